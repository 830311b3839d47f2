"""Running a job on a connection of psycopg, asyncpg or any driver of PEP 249.

Rules of this file:
- A connection is taken between transactions and given back between transactions. Reading ends with a rollback.
- PostgreSQL is told that the transaction only reads, and when to give up, before the statement is sent.
- Rows of psycopg and asyncpg come through a cursor of the server, a few at a time: what is not wanted is never sent.

PostgreSQL: "SET TRANSACTION", "DECLARE", "Client Connection Defaults"; PEP 249.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ..errors import ConfigurationError
from .sql_job import Done, Job, busy, transaction_settings
from .sql_text import STYLES

if TYPE_CHECKING:
    import psycopg

    # asyncpg has no types of its own: what is used of it.
    class Named(Protocol):
        name: str

    class Portal(Protocol):
        async def fetch(self, n: int, /) -> Sequence[Sequence[object]]: ...

    class Prepared(Protocol):
        def get_attributes(self) -> Sequence[Named]: ...
        def get_statusmsg(self) -> str: ...
        def cursor(self, *values: object) -> Awaitable[Portal]: ...
        async def fetch(self, *values: object) -> Sequence[Sequence[object]]: ...

    class AsyncpgConnection(Protocol):
        def is_in_transaction(self) -> bool: ...
        def is_closed(self) -> bool: ...
        async def execute(self, text: str, /) -> str: ...
        async def prepare(self, text: str, /) -> Prepared: ...


__all__ = ["Runner", "dialect_of", "root_of", "runner_of"]

_CURSOR: Final = "garrison"
_NEVER_STYLED: Final = "this driver says no paramstyle that PEP 249 has; wrap its module's name"


class DbCursor(Protocol):
    """What is used of a cursor of PEP 249."""

    @property
    def description(self) -> Sequence[Sequence[object]] | None: ...
    @property
    def rowcount(self) -> int: ...
    def execute(self, text: str, values: object = ..., /) -> object: ...
    def fetchmany(self, size: int, /) -> Sequence[Sequence[object]]: ...
    def close(self) -> object: ...


class DbConnection(Protocol):
    """What is used of a connection of PEP 249."""

    def cursor(self) -> DbCursor: ...
    def commit(self) -> object: ...
    def rollback(self) -> object: ...


class Runner(NamedTuple):
    """How jobs are run on one kind of connection. One of both is there."""

    run: Callable[..., Done] | None = None
    run_async: Callable[..., Awaitable[Done]] | None = None


_DIALECTS: Final = {
    "sqlite3": "sqlite",
    "aiosqlite": "sqlite",
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "asyncpg": "postgres",
    "psycopg2": "postgres",
    "pg8000": "postgres",
    "pymysql": "mysql",
    "MySQLdb": "mysql",
}
_ENFORCED: Final = frozenset({"sqlite3", "aiosqlite", "psycopg", "asyncpg"})
"""Drivers with a way of their own below."""


def root_of(thing: object) -> str:
    """The package that a connection, pool or engine comes from; of a subclass, the known one it is derived from."""
    roots = [kind.__module__.partition(".")[0] for kind in type(thing).__mro__]
    return next((root for root in roots if root in _DIALECTS or root == "sqlalchemy"), roots[0])


def dialect_of(root: str) -> str | None:
    """The dialect that a driver speaks, where it speaks one."""
    return _DIALECTS.get(root)


def runner_of(connection: object, dialect: str) -> Runner:
    """How to run jobs on a connection.

    Raises:
        ConfigurationError: it is none, or speaks another dialect than was said.
    """
    root = root_of(connection)
    spoken = _DIALECTS.get(root, dialect)
    if spoken != dialect:
        raise ConfigurationError(f"SafeSQL.dialect is {dialect!r}, and the connection speaks {spoken!r}")
    kinds = {kind.__name__ for kind in type(connection).__mro__}
    if root == "sqlite3" and "Connection" in kinds:
        from .sql_sqlite import run_sqlite

        return Runner(run_sqlite)
    if root == "aiosqlite" and "Connection" in kinds:
        from .sql_sqlite import run_aiosqlite

        return Runner(None, run_aiosqlite)
    if root == "asyncpg" and kinds & {"Connection", "PoolConnectionProxy"}:
        return Runner(None, run_asyncpg)
    if root == "psycopg" and "AsyncConnection" in kinds:
        return Runner(None, run_psycopg_async)
    if root == "psycopg" and "Connection" in kinds:
        return Runner(run_psycopg)
    if dialect == "sqlite":
        raise ConfigurationError("SafeSQL: SQLite is reached through sqlite3 or aiosqlite")
    if root not in _ENFORCED and all(callable(getattr(connection, name, None)) for name in _NEEDED):
        return Runner(run_dbapi)
    raise ConfigurationError(f"SafeSQL: {type(connection).__module__}.{type(connection).__name__} is no connection")


_NEEDED: Final = ("cursor", "commit", "rollback")


# psycopg


def run_psycopg(connection: psycopg.Connection[object], job: Job) -> Done:
    """A job on a connection of psycopg."""
    import psycopg
    from psycopg.rows import tuple_row

    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise busy()
    text, values = job.rendered("pyformat")
    with connection.transaction(force_rollback=not job.write):
        with psycopg.Cursor(connection, row_factory=tuple_row) as plain:
            plain.execute(transaction_settings(job).encode())
        taken = job.gathering()
        cursor = (
            psycopg.Cursor(connection, row_factory=tuple_row)
            if job.write
            else psycopg.ServerCursor(connection, _CURSOR, row_factory=tuple_row)
        )
        with cursor:
            cursor.execute(text.encode(), values)
            if cursor.description:
                taken.name(column.name for column in cursor.description)
                while taken.wanted and taken.take(cursor.fetchmany(taken.wanted)):
                    job.check()
            return Done(taken.rows, max(0, cursor.rowcount) if job.write else 0)


async def run_psycopg_async(connection: psycopg.AsyncConnection[object], job: Job) -> Done:
    """A job on an asynchronous connection of psycopg."""
    import psycopg
    from psycopg.rows import tuple_row

    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise busy()
    text, values = job.rendered("pyformat")
    async with connection.transaction(force_rollback=not job.write):
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as plain:
            await plain.execute(transaction_settings(job).encode())
        taken = job.gathering()
        cursor = (
            psycopg.AsyncCursor(connection, row_factory=tuple_row)
            if job.write
            else psycopg.AsyncServerCursor(connection, _CURSOR, row_factory=tuple_row)
        )
        async with cursor:
            await cursor.execute(text.encode(), values)
            if cursor.description:
                taken.name(column.name for column in cursor.description)
                while taken.wanted and taken.take(await cursor.fetchmany(taken.wanted)):
                    job.check()
            return Done(taken.rows, max(0, cursor.rowcount) if job.write else 0)


# asyncpg


async def run_asyncpg(connection: AsyncpgConnection, job: Job) -> Done:
    """A job on a connection of asyncpg."""
    if connection.is_in_transaction():
        raise busy()
    text, values = job.rendered("dollar")
    given = tuple(values or ())
    try:
        await connection.execute(f"BEGIN; {transaction_settings(job)}")
        prepared = await connection.prepare(text)
        taken = job.gathering()
        taken.name(column.name for column in prepared.get_attributes())
        if job.write:
            taken.take([tuple(record) for record in await prepared.fetch(*given)])
        else:
            cursor = await prepared.cursor(*given)
            while taken.wanted and taken.take([tuple(record) for record in await cursor.fetch(taken.wanted)]):
                job.check()
        changed = prepared.get_statusmsg().rpartition(" ")[2] if job.write else ""
        await connection.execute("COMMIT" if job.write else "ROLLBACK")
    except BaseException:
        await _taken_back(connection)
        raise
    return Done(taken.rows, int(changed) if changed.isdecimal() else 0)


async def _taken_back(connection: AsyncpgConnection) -> None:
    """End a transaction. What ended a query by force may reach the rollback that follows it; then once more."""
    import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none

    for _ in range(3):
        if connection.is_closed():
            return
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.execute("ROLLBACK")
            return


# Any driver of PEP 249


def run_dbapi(connection: DbConnection, job: Job) -> Done:
    """A job on a connection of another driver. Only PostgreSQL is asked to hold the time and the reading itself."""
    text, values = job.rendered(_style(connection))
    cursor = connection.cursor()
    try:
        if job.dialect == "postgres":
            _settle(connection, cursor, job)
        if values is None:
            cursor.execute(text)
        else:
            cursor.execute(text, values)
        taken = job.gathering()
        if cursor.description:
            taken.name(str(column[0]) for column in cursor.description)
            while taken.wanted and taken.take(cursor.fetchmany(taken.wanted)):
                job.check()
        done = Done(taken.rows, max(0, cursor.rowcount) if job.write else 0)
        if job.write:
            connection.commit()
        return done
    finally:
        with suppress(*_errors(connection)):
            cursor.close()
        connection.rollback()  # after a commit there is nothing to take back


def _settle(connection: DbConnection, cursor: DbCursor, job: Job) -> None:
    """The settings of a transaction, and a look that they hold: outside of one they would be forgotten at once."""
    for each in transaction_settings(job).split("; "):
        cursor.execute(each)
    cursor.execute("SHOW transaction_read_only")
    said = cursor.fetchmany(1)
    if getattr(connection, "autocommit", False) is True or str(said[0][0]) != ("off" if job.write else "on"):
        raise ConfigurationError("SafeSQL: the connection commits each statement; turn its autocommit off")


def _module(connection: object) -> object:
    """The driver's module, which PEP 249 gives `paramstyle` and `Error`."""
    for kind in type(connection).__mro__:
        found = sys.modules.get(kind.__module__.partition(".")[0])
        if hasattr(found, "paramstyle"):
            return found
    return None


def _style(connection: object) -> str:
    style = getattr(_module(connection), "paramstyle", None)
    if style not in STYLES:
        raise ConfigurationError(f"SafeSQL: {type(connection).__module__}: {_NEVER_STYLED}")
    return str(style)


def _errors(connection: object) -> tuple[type[BaseException], ...]:
    error = getattr(_module(connection), "Error", None)
    return (error,) if isinstance(error, type) and issubclass(error, Exception) else ()
