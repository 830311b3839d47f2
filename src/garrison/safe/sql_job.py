"""One query on its way to a connection, whatever the driver.

Rules of this file:
- A job says all that a driver is to keep to: reading or writing, time, rows, bytes, and what may be read.
- The settings of a PostgreSQL transaction are made here once, for every driver of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from .sql_rows import Gathering, Rows

if TYPE_CHECKING:
    from .sql_text import Rendered, Statement

__all__ = ["Done", "Job", "busy", "transaction_settings"]

_GRACE: Final = 0.25
"""Seconds that a program waits beyond the database's own time-out, so that the database is the one to say it."""


@dataclass(slots=True)
class Job:
    """A statement with its values, and the bounds that it runs in."""

    statement: Statement
    values: Mapping[str, object] = field(repr=False)
    dialect: str
    write: bool
    seconds: float
    max_rows: int
    max_bytes: int
    readable: dict[str, frozenset[str]] | None = None
    """What a model's query may read, by table, for databases that ask; None for a program's own statement."""
    callable: frozenset[str] = frozenset()
    """The functions that it may call, in lower case."""
    stopped: bool = False
    """Nobody waits for it any more."""
    begun: float = field(default_factory=time.monotonic)

    @property
    def asked(self) -> bool:
        """The text came from a model."""
        return self.readable is not None

    @property
    def left(self) -> float:
        """Seconds until it has to be done; negative afterwards."""
        return -1.0 if self.stopped else self.begun + self.seconds - time.monotonic()

    @property
    def patience(self) -> float:
        """Seconds that a program waits for it in all."""
        return self.seconds + _GRACE

    def check(self) -> None:
        """Raise `TimeoutError` where the time is over."""
        if self.left <= 0:
            raise TimeoutError

    def rendered(self, style: str) -> Rendered:
        """The statement for a driver."""
        return self.statement.render(style, self.values)

    def gathering(self) -> Gathering:
        """What takes its rows."""
        return Gathering(self.max_rows, self.max_bytes)


@dataclass(slots=True)
class Done:
    """What came of a job."""

    rows: Rows
    changed: int = 0
    """Rows that were written; 0 where the driver does not say."""


def transaction_settings(job: Job) -> str:
    """What a PostgreSQL transaction begins with: several statements, without parameters.

    A time-out of the server ends the query there too. `standard_conforming_strings` makes a backslash in a string a
    backslash, which is how the text was read here.
    """
    milliseconds = max(1, int(job.left * 1000))
    first = "SET TRANSACTION READ WRITE" if job.write else "SET TRANSACTION READ ONLY"
    return (
        f"{first}; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds + 1000}; "
        "SET LOCAL standard_conforming_strings = on"
    )


def busy() -> ConfigurationError:
    """The error for a connection that is in the middle of something else."""
    return ConfigurationError(
        "SafeSQL: the connection has a transaction open; give SafeSQL a connection of its own, a pool or a factory"
    )
