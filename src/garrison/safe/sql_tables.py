"""The tables that a program declares, and statements put together from their names.

Rules of this file:
- A table or column that is not declared is refused. Names are compared as they are written, never folded.
- Names stand quoted in a statement, values as parameters; nothing else that was given reaches the text.
- An `update` or `delete` says which rows. None is no way to say "all".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from ..errors import ConfigurationError
from .sql_errors import refused
from .sql_text import Statement

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["Built", "Tables"]

Declared = Mapping[str, Iterable[str] | None] | Iterable[str]
"""Tables with their columns; None, or only a name, for whatever columns a table has."""

_TICKED: Final = frozenset({"mysql"})
"""Dialects whose names stand in backticks."""
_MOST_VALUES: Final = 1000
"""Values of one list in `where`. SQLite takes 32,766 parameters, PostgreSQL 65,535."""


class Built(NamedTuple):
    """A statement and the values of its parameters."""

    statement: Statement
    values: dict[str, object]


class Tables:
    """An allow-list of tables and columns.

    Args:
        declared: a name is `table` or `schema.table`.
        dialect: whose quotes are used.

    Raises:
        ConfigurationError: a name is empty or holds NUL, or a column stands twice.
    """

    def __init__(self, declared: Declared, dialect: str) -> None:
        if isinstance(declared, str):
            raise ConfigurationError("SafeSQL.tables: names of tables with their columns, not one text")
        named = isinstance(declared, Mapping)
        given = cast("Mapping[str, Iterable[str] | None]", declared if named else dict.fromkeys(declared)).items()
        self._quote = "`" if dialect in _TICKED else '"'
        self.columns: dict[str, tuple[str, ...] | None] = {}
        """By table; None for whatever columns it has."""
        for table, columns in given:
            if isinstance(columns, str):
                raise ConfigurationError(f"SafeSQL.tables: the columns of {table!r} are a list of names")
            listed = None if columns is None else tuple(columns)
            for name in (*str(table).split("."), *(listed or ())):
                if type(name) is not str or not name or "\0" in name:
                    raise ConfigurationError("SafeSQL.tables: a name is a text of one character or more, without NUL")
            if listed is not None and (not listed or len(set(listed)) != len(listed)):
                raise ConfigurationError(f"SafeSQL.tables: {table!r} has no column, or one twice")
            self.columns[table] = listed

    def select(
        self,
        table: str,
        *,
        columns: Sequence[str] | None,
        where: Mapping[str, object],
        order_by: str | Sequence[str],
        limit: int,
        offset: int,
    ) -> Built:
        """A SELECT. See `SafeSQL.select`."""
        text = _Text()
        text += f"SELECT {self._list(table, columns)} FROM {self._table(table)}"  # noqa: S608 - names are declared and quoted
        self._where(text, table, where)
        orders = [order_by] if isinstance(order_by, str) else list(order_by)
        said = [self._full(table, each.removeprefix("-")) + " DESC" * each.startswith("-") for each in orders if each]
        text += " ORDER BY " + ", ".join(said) if said else ""
        text += f" LIMIT {_count(limit, 'limit')}"
        text += f" OFFSET {_count(offset, 'offset')}" if offset else ""
        return text.built("select")

    def insert(self, table: str, values: Mapping[str, object], returning: Sequence[str]) -> Built:
        """An INSERT of one row."""
        text = _Text()
        name = self._table(table)
        if not values:
            _wrong("insert: there is no value")
        columns = ", ".join(self._column(table, column) for column in values)
        text += f"INSERT INTO {name} ({columns}) VALUES ("  # noqa: S608 - names are declared and quoted
        for number, value in enumerate(values.values()):
            text += ", " if number else ""
            text.bind(value)
        text += ")"
        text += f" RETURNING {self._list(table, returning)}" if returning else ""
        return text.built("insert")

    def update(self, table: str, values: Mapping[str, object], where: Mapping[str, object]) -> Built:
        """An UPDATE of the rows that fit."""
        text = _Text()
        text += f"UPDATE {self._table(table)} SET "  # noqa: S608 - names are declared and quoted
        if not values or not where:
            _wrong("update: values and where are needed")
        for number, (column, value) in enumerate(values.items()):
            text += f"{', ' if number else ''}{self._column(table, column)} = "
            text.bind(value)
        self._where(text, table, where)
        return text.built("update")

    def delete(self, table: str, where: Mapping[str, object]) -> Built:
        """A DELETE of the rows that fit."""
        text = _Text()
        text += f"DELETE FROM {self._table(table)}"  # noqa: S608 - names are declared and quoted
        if not where:
            _wrong("delete: where is needed")
        self._where(text, table, where)
        return text.built("delete")

    def _where(self, text: _Text, table: str, where: Mapping[str, object]) -> None:
        for number, (column, value) in enumerate(where.items()):
            text += f" {'AND' if number else 'WHERE'} "
            name = self._full(table, column)
            if value is None:
                text += f"{name} IS NULL"
            elif isinstance(value, list | tuple | set | frozenset):
                self._among(text, name, list(value))  # pyright: ignore[reportUnknownArgumentType] - values of any kind
            else:
                text += f"{name} = "
                text.bind(value)

    def _among(self, text: _Text, name: str, values: list[object]) -> None:
        if len(values) > _MOST_VALUES:
            raise refused(f"has a list of more than {_MOST_VALUES} values")
        if not values:
            text += "1 = 0"  # among none
            return
        text += f"{name} IN ("
        for number, value in enumerate(values):
            text += ", " if number else ""
            text.bind(value)
        text += ")"

    def _list(self, table: str, columns: Sequence[str] | None) -> str:
        if isinstance(columns, str):
            _wrong("columns: a list of names")
        if not columns:
            columns = self.columns.get(table)
        return "*" if columns is None else ", ".join(self._full(table, column) for column in columns)

    def _table(self, table: str) -> str:
        if type(table) is not str or table not in self.columns:
            raise refused("names a table that is not declared", "SafeSQL.tables")
        return ".".join(map(self._quoted, table.split(".")))

    def _column(self, table: str, column: str) -> str:
        allowed = self.columns.get(table, ())
        if type(column) is not str or (allowed is not None and column not in allowed):
            raise refused("names a column that is not declared", "SafeSQL.tables")
        if not column or "\0" in column:
            raise refused("names a column that cannot be")
        return self._quoted(column)

    def _full(self, table: str, column: str) -> str:
        """A column under its table: SQLite takes a quoted name that it does not know for a string, but not there."""
        return f"{self._table(table)}.{self._column(table, column)}"

    def _quoted(self, name: str) -> str:
        return self._quote + name.replace(self._quote, self._quote * 2) + self._quote


class _Text:
    """A statement that grows by text of this file and by values."""

    def __init__(self) -> None:
        self._parts = [""]
        self._values: dict[str, object] = {}

    def __iadd__(self, text: str) -> _Text:
        self._parts[-1] += text
        return self

    def bind(self, value: object) -> None:
        """A parameter with this value."""
        if isinstance(value, Mapping):
            _wrong("a value is no object")
        name = f"p{len(self._values)}"
        self._values[name] = value
        self._parts += [name, ""]

    def built(self, verb: str) -> Built:
        return Built(Statement(tuple(self._parts), verb), self._values)


def _count(number: int, name: str) -> int:
    if type(number) is not int or number < 0:
        _wrong(f"{name}: a number of rows")
    return number


def _wrong(text: str) -> NoReturn:
    raise TypeError(f"SafeSQL: {text}")
