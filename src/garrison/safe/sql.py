"""SQL for tools: values bound, names declared, one statement, reading only, within time and size.

    shop = SafeSQL("shop.db", tables={"users": ["id", "name"]})
    rows = await shop.fetch("SELECT name FROM users WHERE id = :id", id=given)

Rules of this file:
- A value never becomes text of a statement. A name does only when it is declared, and then it is quoted.
- The database enforces reading: a program's own statement cannot write here unless it is given to a method that writes.
- `SafeSQL` awaits, `SafeSQL.sync` does not; both say the same statements, which `_Statements` makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, LiteralString

from .. import events
from ..errors import ConfigurationError
from .sql_check import Checker
from .sql_errors import SqlFailed, SqlRefused, refused, told
from .sql_job import Done, Job
from .sql_query import SqlQuery
from .sql_rows import Rows
from .sql_sources import Source
from .sql_tables import Built, Tables
from .sql_text import SqlTextError, Statement, statement

if TYPE_CHECKING:
    from .sql_tables import Declared

__all__ = ["Rows", "SafeSQL", "SqlFailed", "SqlQuery", "SqlRefused", "SyncSQL"]

_READING: Final = frozenset({"select", "with", "values"})
_WRITING: Final = frozenset({"insert", "update", "delete", "with", "replace", "merge"})
_ENFORCED: Final = ("sqlite", "postgres")
"""Dialects whose databases are told to read only."""


class _Statements:
    """What both faces share: from arguments to jobs, from what comes of them to results."""

    def __init__(
        self,
        source: Source,
        tables: Tables,
        functions: frozenset[str],
        *,
        write: bool,
        timeout: float,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        self.source, self.tables, self.functions = source, tables, functions
        self.write, self.timeout, self.max_rows, self.max_bytes = write, timeout, max_rows, max_bytes

    @cached_property
    def checker(self) -> Checker:
        """What model-written queries are checked by: the tables that say their columns."""
        named = {table: columns for table, columns in self.tables.columns.items() if columns is not None}
        if not named or len(named) < len(self.tables.columns):
            raise ConfigurationError("SafeSQL.tables: name the columns of each table that a model's query may ask for")
        return Checker(named, self.source.dialect, self.functions, max_rows=self.max_rows, max_bytes=self.max_bytes)

    def fetch(self, text: str, values: Mapping[str, object]) -> Job:
        said = statement(text, self.source.dialect, _READING, "SafeSQL.execute")
        return self._job(Built(said, dict(values)), write=False)

    def execute(self, text: str, values: Mapping[str, object]) -> Job:
        self._writing()
        said = statement(text, self.source.dialect, _WRITING, "SafeSQL.fetch")
        return self._job(Built(said, dict(values)), write=True)

    def ask(self, query: SqlQuery | str) -> Job:
        checker = self.checker
        try:
            checked = checker.check(query) if isinstance(query, str) else query.checked(checker)
        except SqlTextError as exc:
            raise refused(str(exc), "SafeSQL.tables, SafeSQL.functions") from None
        job = self._job(Built(Statement((checked.text,), "select"), {}), write=False)
        job.readable = dict.fromkeys(checked.names, frozenset[str]())  # of which SQLite says that they are read
        job.readable |= {table: frozenset(columns or ()) for table, columns in self.tables.columns.items()}
        job.callable = checker.functions
        return job

    def select(
        self,
        table: str,
        columns: Sequence[str] | None,
        where: Mapping[str, object] | None,
        order_by: str | Sequence[str],
        limit: int | None,
        offset: int,
    ) -> Job:
        # One row more than is kept tells whether there were more.
        most = self.max_rows + 1 if limit is None else limit
        built = self.tables.select(
            table, columns=columns, where=where or {}, order_by=order_by, limit=most, offset=offset
        )
        return self._job(built, write=False)

    def get(self, table: str, where: Mapping[str, object]) -> Job:
        if not where:
            raise TypeError("SafeSQL: get: say which row")
        return self.select(table, None, where, (), 2, 0)

    def insert(self, table: str, values: Mapping[str, object], returning: Sequence[str]) -> Job:
        self._writing()
        return self._job(self.tables.insert(table, values, returning), write=True)

    def update(self, table: str, values: Mapping[str, object], where: Mapping[str, object]) -> Job:
        self._writing()
        return self._job(self.tables.update(table, values, where), write=True)

    def delete(self, table: str, where: Mapping[str, object]) -> Job:
        self._writing()
        return self._job(self.tables.delete(table, where), write=True)

    def _writing(self) -> None:
        if not self.write:
            raise refused("writes, and this is for reading", "SafeSQL.write")

    def _job(self, built: Built, *, write: bool) -> Job:
        return Job(
            built.statement,
            built.values,
            dialect=self.source.dialect,
            write=write,
            seconds=self.timeout,
            max_rows=self.max_rows,
            max_bytes=self.max_bytes,
        )


def _one(rows: Rows) -> dict[str, object] | None:
    if len(rows) > 1 or rows.truncated:
        raise LookupError("SafeSQL.get: more than one row fits, or one of more than max_bytes")
    return rows[0] if rows else None


class SafeSQL:
    """A database with declared tables, for reading unless it says otherwise.

    Args:
        source: the path of an SQLite file; a connection of `sqlite3`, `aiosqlite`, `psycopg`, `asyncpg` or any driver
            of PEP 249; a pool of `asyncpg` or `psycopg_pool`; an engine of SQLAlchemy; or a function without arguments
            that gives a connection, or one to await, which is closed after its query.
        tables: the tables, `table` or `schema.table`, with their columns; None or only a name for whatever columns a
            table has. `get`, `select`, `insert`, `update`, `delete` and model-written queries know no others.
        dialect: what the database speaks, where a function or an unknown driver is given: "sqlite", "postgres",
            "mysql".
        write: whether `execute`, `insert`, `update` and `delete` may be used.
        timeout: seconds for a query, waiting for its connection counted.
        max_rows: most rows of a result.
        max_bytes: most bytes of a result, counted as JSON; in SQLite also of each single value.
        functions: functions that a model-written query may call besides those of `sql_names`.
        dangerously_without_read_only: why it is well that a database other than SQLite and PostgreSQL is not told to
            read only. Statements are held to SELECT and rolled back, and functions that write are not stopped.

    Raises:
        ConfigurationError: an argument is not of its form.
    """

    def __init__(
        self,
        source: object,
        *,
        tables: Declared,
        dialect: str | None = None,
        write: bool = False,
        timeout: float = 5.0,
        max_rows: int = 1000,
        max_bytes: int = 1024 * 1024,
        functions: Iterable[str] = (),
        dangerously_without_read_only: str = "",
    ) -> None:
        if not 0 < timeout < float("inf"):
            raise ConfigurationError("SafeSQL.timeout must be a positive number of seconds")
        for name, number in (("max_rows", max_rows), ("max_bytes", max_bytes)):
            if type(number) is not int or not 0 < number < 2**31:
                raise ConfigurationError(f"SafeSQL.{name} must be a positive integer")
        if type(write) is not bool:
            raise ConfigurationError("SafeSQL.write must be True or False")
        called = frozenset([functions] if isinstance(functions, str) else functions)
        if not all(name.isascii() and name.isidentifier() for name in called):
            raise ConfigurationError("SafeSQL.functions: names of functions")
        made = Source(source, dialect, write=write)
        if made.dialect not in _ENFORCED and not write:
            if not dangerously_without_read_only.strip():
                raise ConfigurationError(
                    f"SafeSQL: {made.dialect} is not told to read only; use a role that can only read, and say so in "
                    "dangerously_without_read_only="
                )
            events.record(
                "policy.relaxed", dangerously_without_read_only, setting="SafeSQL.dangerously_without_read_only"
            )
        self._statements = _Statements(
            made,
            Tables(tables, made.dialect),
            called,
            write=write,
            timeout=timeout,
            max_rows=max_rows,
            max_bytes=max_bytes,
        )
        self.sync = SyncSQL(self._statements)
        """The same methods for threads; they do not await."""

    @property
    def checker(self) -> Checker:
        """What model-written queries are checked by.

        Raises:
            ConfigurationError: a table says no columns, the dialect is another than SQLite and PostgreSQL, or sqlglot
                is not installed.
        """
        return self._statements.checker

    def describe(self) -> str:
        """The tables and columns for a model: `One SELECT for PostgreSQL. Tables: users(id, name)`."""
        names = {"sqlite": "SQLite", "postgres": "PostgreSQL", "mysql": "MySQL"}
        statements = self._statements
        told = (f"{table}({', '.join(columns or ('*',))})" for table, columns in statements.tables.columns.items())
        dialect = names.get(statements.source.dialect, statements.source.dialect)
        return f"One SELECT for {dialect}. Tables: {'; '.join(told)}"

    async def fetch(self, text: LiteralString, /, **values: object) -> Rows:
        """Run a statement that reads: SELECT, WITH or VALUES.

        Args:
            text: one statement, written in the program, with `:name` where values go. Type checkers refuse a text that
                was put together from others.
            values: one for each name.

        Returns:
            The rows, at most `max_rows`.

        Raises:
            SqlRefused: it is more than one statement, begins with another word, or the database says that it writes.
            SqlFailed: it took too long.
            TypeError: names and values are not the same, or a value of the result has no form in JSON.
        """
        return (await self._run(self._statements.fetch(text, values))).rows

    async def select(
        self,
        table: str,
        *,
        where: Mapping[str, object] | None = None,
        columns: Sequence[str] | None = None,
        order_by: str | Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Rows:
        """Rows of a declared table.

        Args:
            table, columns: declared names; no columns are all declared ones.
            where: values by column. None is NULL; a list is any of its values.
            order_by: columns; `-name` is descending.
            limit, offset: numbers of rows.

        Raises:
            SqlRefused: a name is not declared.
            SqlFailed: it took too long.
        """
        return (await self._run(self._statements.select(table, columns, where, order_by, limit, offset))).rows

    async def get(self, table: str, /, **where: object) -> dict[str, object] | None:
        """The one row that fits; None where there is none.

        Raises:
            LookupError: there are more.
            SqlRefused, SqlFailed: as `select`.
        """
        return _one((await self._run(self._statements.get(table, where))).rows)

    async def ask(self, query: SqlQuery | str) -> Rows:
        """Run a query that a model wrote, after it was checked.

        Raises:
            SqlRefused: it is not allowed; the text says which rule.
            SqlFailed: it took too long, or the database cannot run it.
        """
        return (await self._run(self._statements.ask(query))).rows

    async def execute(self, text: LiteralString, /, **values: object) -> int:
        """Run a statement that writes: INSERT, UPDATE, DELETE, MERGE or REPLACE. It is a transaction of its own.

        Returns:
            How many rows it wrote.

        Raises:
            SqlRefused: as `fetch`, or `write` is not set.
            SqlFailed: it breaks a constraint, or took too long. Nothing was written.
        """
        return (await self._run(self._statements.execute(text, values))).changed

    async def insert(
        self, table: str, values: Mapping[str, object], *, returning: Sequence[str] = ()
    ) -> dict[str, object]:
        """Put a row into a declared table.

        Args:
            values: by column.
            returning: columns whose values are given back, as the new key.

        Raises:
            SqlRefused, SqlFailed: as `execute`.
        """
        rows = (await self._run(self._statements.insert(table, values, returning))).rows
        return rows[0] if rows else {}

    async def update(self, table: str, values: Mapping[str, object], *, where: Mapping[str, object]) -> int:
        """Change the rows that fit; `where` as in `select`, and not empty.

        Returns:
            How many rows it wrote.

        Raises:
            SqlRefused, SqlFailed: as `execute`.
        """
        return (await self._run(self._statements.update(table, values, where))).changed

    async def delete(self, table: str, *, where: Mapping[str, object]) -> int:
        """Take out the rows that fit; as `update`."""
        return (await self._run(self._statements.delete(table, where))).changed

    async def _run(self, job: Job) -> Done:
        try:
            return await self._statements.source.run(job)
        except Exception as exc:  # every driver has errors of its own, and some of them are for the caller
            if (said := told(exc, seconds=job.seconds, asked=job.asked, write=job.write)) is None:
                raise
            raise said from exc

    def close(self) -> None:
        """End the threads that synchronous drivers run in, after the queries that run there: up to `timeout` seconds.

        What was given is not closed; close it afterwards.
        """
        self._statements.source.close()

    def __repr__(self) -> str:
        statements = self._statements
        source, tables = statements.source, ", ".join(statements.tables.columns)
        return f"SafeSQL({source.dialect} by {source.name}, tables: {tables}{', write' if statements.write else ''})"


class SyncSQL:
    """The methods of `SafeSQL` for synchronous drivers, in the thread that calls. Made by `SafeSQL.sync`.

    Raises of each method:
        ConfigurationError: the connections are asynchronous.
    """

    def __init__(self, statements: _Statements) -> None:
        self._statements = statements

    def fetch(self, text: LiteralString, /, **values: object) -> Rows:
        """See `SafeSQL.fetch`."""
        return self._run(self._statements.fetch(text, values)).rows

    def select(
        self,
        table: str,
        *,
        where: Mapping[str, object] | None = None,
        columns: Sequence[str] | None = None,
        order_by: str | Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Rows:
        """See `SafeSQL.select`."""
        return self._run(self._statements.select(table, columns, where, order_by, limit, offset)).rows

    def get(self, table: str, /, **where: object) -> dict[str, object] | None:
        """See `SafeSQL.get`."""
        return _one(self._run(self._statements.get(table, where)).rows)

    def ask(self, query: SqlQuery | str) -> Rows:
        """See `SafeSQL.ask`."""
        return self._run(self._statements.ask(query)).rows

    def execute(self, text: LiteralString, /, **values: object) -> int:
        """See `SafeSQL.execute`."""
        return self._run(self._statements.execute(text, values)).changed

    def insert(self, table: str, values: Mapping[str, object], *, returning: Sequence[str] = ()) -> dict[str, object]:
        """See `SafeSQL.insert`."""
        rows = self._run(self._statements.insert(table, values, returning)).rows
        return rows[0] if rows else {}

    def update(self, table: str, values: Mapping[str, object], *, where: Mapping[str, object]) -> int:
        """See `SafeSQL.update`."""
        return self._run(self._statements.update(table, values, where)).changed

    def delete(self, table: str, *, where: Mapping[str, object]) -> int:
        """See `SafeSQL.delete`."""
        return self._run(self._statements.delete(table, where)).changed

    def _run(self, job: Job) -> Done:
        try:
            return self._statements.source.run_sync(job)
        except Exception as exc:  # every driver has errors of its own, and some of them are for the caller
            if (said := told(exc, seconds=job.seconds, asked=job.asked, write=job.write)) is None:
                raise
            raise said from exc
