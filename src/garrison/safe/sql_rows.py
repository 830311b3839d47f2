"""What a query gives: rows of values that JSON has, up to a number of rows and of bytes.

Rules of this file:
- What JSON cannot say exactly is text: `Decimal`, dates and times (ISO 8601), UUID, infinities and NaN. Binary is
  base64. What has no form here is an error that names the column, never a `repr`.
- Two columns of one name keep both: `id`, `id_2`.
- Rows that were left out are never left out in silence: `truncated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Gathering", "Rows"]

_DEPTH: Final = 32
"""Arrays and JSON values inside each other."""
_AS_TEXT: Final = frozenset({"ipaddress", "asyncpg.types", "psycopg.types.range", "psycopg.types.multirange"})
"""Modules whose values have a text that says all of them."""


class Rows(list[dict[str, object]]):
    """A list of rows, each a dict by column.

    Returned by a tool, it is a list of objects. `as_json` keeps what a list cannot say.
    """

    columns: tuple[str, ...] = ()
    """The names of the columns, in order."""
    truncated: bool = False
    """There were more rows, or more bytes, than `SafeSQL.max_rows` and `max_bytes` let through."""

    def as_json(self) -> dict[str, object]:
        """`{"rows": [...], "truncated": ...}`."""
        return {"rows": list(self), "truncated": self.truncated}

    def __repr__(self) -> str:
        return f"Rows({super().__repr__()}{', truncated=True' if self.truncated else ''})"


class Gathering:
    """Takes rows as a driver gives them until there are enough.

    Args:
        most_rows, most_bytes: how much there may be.
    """

    def __init__(self, most_rows: int, most_bytes: int) -> None:
        self.rows = Rows()
        self._most_rows = most_rows
        self._left = most_bytes

    def name(self, columns: Iterable[str]) -> None:
        """The columns of the rows to come."""
        named: dict[str, None] = {}
        for column in columns:
            name, number = column, 1
            while name in named:
                number += 1
                name = f"{column}_{number}"
            named[name] = None
        self.rows.columns = tuple(named)

    @property
    def wanted(self) -> int:
        """How many rows to ask for next: one more than fits, so that it is known whether there are more."""
        return 0 if self.rows.truncated else min(self._most_rows - len(self.rows) + 1, 100)

    def take(self, rows: Sequence[Sequence[object]]) -> bool:
        """Keep rows. False: ask for no more."""
        for row in rows:
            values = {name: _json(value, name) for name, value in zip(self.rows.columns, row, strict=True)}
            self._left -= sum(len(name) + _size(value) for name, value in values.items())
            if len(self.rows) == self._most_rows or self._left < 0:
                self.rows.truncated = True
                return False
            self.rows.append(values)
        return bool(rows)


def _size(value: object) -> int:
    """About as many bytes as it has in JSON."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) + 2
    if isinstance(value, list):
        return 2 + sum(1 + _size(each) for each in cast("list[object]", value))
    if isinstance(value, dict):
        return 2 + sum(len(name) + 4 + _size(each) for name, each in cast("dict[str, object]", value).items())
    if type(value) is int and value.bit_length() > 64:
        return value.bit_length() // 3
    return 8


def _json(value: object, column: str, depth: int = 0) -> object:
    """The value as JSON has it."""
    if value is None or type(value) in (str, int, bool):
        return value
    if depth > _DEPTH:
        raise TypeError(f"column {column!r}: values inside each other deeper than {_DEPTH}")
    if isinstance(value, str | int):  # a subclass, as enumerations are
        return value
    for kind, form in _FORMS.items():
        if isinstance(value, kind):
            return form(value)
    if isinstance(value, Mapping):  # JSON
        return _object(cast("Mapping[object, object]", value).items(), column, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(each, column, depth + 1) for each in cast("Iterable[object]", value)]
    items = getattr(value, "items", None)
    if type(value).__module__.partition(".")[0] == "asyncpg" and callable(items):  # a Record, which is no Mapping
        return _object(cast("Iterable[tuple[object, object]]", items()), column, depth)
    if type(value).__module__ in _AS_TEXT:
        return str(value)
    raise TypeError(f"column {column!r}: {type(value).__name__} has no form in JSON; cast it in the statement")


def _object(items: Iterable[tuple[object, object]], column: str, depth: int) -> dict[str, object]:
    return {str(name): _json(value, column, depth + 1) for name, value in items}


def _number(value: float) -> object:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _binary(value: bytes) -> str:
    import base64

    return base64.b64encode(value).decode()


def _when(value: datetime | date | time) -> str:
    return value.isoformat()


def _duration(value: timedelta) -> str:
    import msgspec

    return str(msgspec.to_builtins(value))


def _exact(value: Decimal) -> str:
    return format(value, "f") if value.is_finite() else str(value)


_FORMS: Final[dict[type, Callable[..., object]]] = {
    float: _number,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _binary,
    datetime: _when,
    date: _when,
    time: _when,
    timedelta: _duration,
    Decimal: _exact,
    UUID: str,
}
