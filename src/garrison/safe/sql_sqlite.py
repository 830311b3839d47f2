"""SQLite, which asks before it reads: `sqlite3`, and `aiosqlite` on its own thread.

Rules of this file:
- What is not on the lists of `_READING` and `_WRITING` is refused by SQLite itself, when it compiles the statement:
  ATTACH, PRAGMA, extensions, changes of the schema. Reading is `query_only` besides.
- A model's query may read the columns that were declared and call the functions that were listed; no other compiles.
- The clock is looked at every `_STEPS` steps of SQLite's machine; one value is never larger than `max_bytes`.
- A connection is left as it was found, but for an authorizer and a progress handler, which SQLite does not give back.

SQLite: "Compile-Time Authorization Callbacks", "Query Progress Callbacks", "Run-Time Limits", "PRAGMA query_only".
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from .sql_job import Done, Job, busy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Protocol

    class OnItsThread(Protocol):
        """What is used of an `aiosqlite.Connection`."""

        _conn: sqlite3.Connection

        def _execute(self, fn: Callable[..., Done], *args: object) -> Awaitable[Done]: ...


__all__ = ["open_file", "run_aiosqlite", "run_sqlite"]

_STEPS: Final = 2000
_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_WRITING: Final = _READING | {
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_TRANSACTION,
}
_NEVER_CALLED: Final = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlar_uncompress"}
)
"""Functions of SQLite and of its shell that reach outside the database."""
_SCHEMA: Final = ("sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema")
_OPERATORS: Final = frozenset({"like", "glob", "->", "->>", "current_date", "current_time", "current_timestamp"})
"""What is written as an operator or a word and compiled as a function."""


def open_file(path: str | Path, *, write: bool, seconds: float) -> sqlite3.Connection:
    """A connection to a database file that exists, for reading unless `write`."""
    uri = f"{Path(path).absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    return sqlite3.connect(uri, uri=True, timeout=seconds, check_same_thread=False)


def run_sqlite(connection: sqlite3.Connection, job: Job) -> Done:
    """Run a job. A writing one is committed, or rolled back where it fails."""
    try:
        open_before = connection.in_transaction
        if job.write and open_before:
            raise busy()
        with _guarded(connection, job):
            try:
                done = _run(connection, job)
                if job.write:
                    connection.commit()
            except BaseException:
                if not open_before and connection.in_transaction:
                    connection.rollback()
                raise
        return done
    except sqlite3.ProgrammingError as exc:
        if "thread" not in str(exc):
            raise
        raise ConfigurationError(
            "SafeSQL: this sqlite3 connection is for the thread that opened it; "
            "open it with check_same_thread=False, or give SafeSQL the path of the file"
        ) from exc


async def run_aiosqlite(connection: OnItsThread, job: Job) -> Done:
    """Run a job on the connection's own thread. Its public methods have neither limits nor a way to hold others off."""
    return await connection._execute(run_sqlite, connection._conn, job)  # pyright: ignore[reportPrivateUsage] - see above


def _run(connection: sqlite3.Connection, job: Job) -> Done:
    text, values = job.rendered("named")
    cursor = connection.cursor()
    cursor.row_factory = None  # whatever the connection's own is
    try:
        cursor.execute(text, values or {})
        taken = job.gathering()
        if cursor.description:
            taken.name(str(column[0]) for column in cursor.description)
            while taken.wanted and taken.take(cursor.fetchmany(taken.wanted)):
                job.check()
            if job.write:
                cursor.fetchall()  # a statement with RETURNING has to come to its end
        return Done(taken.rows, max(0, cursor.rowcount) if job.write else 0)
    finally:
        cursor.close()


@contextmanager
def _guarded(connection: sqlite3.Connection, job: Job) -> Generator[None]:
    asking = connection.cursor()
    asking.row_factory = None
    before = bool(asking.execute("PRAGMA query_only").fetchone()[0])
    asking.close()
    largest = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, job.max_bytes)
    pattern = connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
    attached = connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    try:
        connection.execute(f"PRAGMA query_only = {0 if job.write else 1}")
        connection.set_progress_handler(lambda: job.left <= 0, _STEPS)
        connection.set_authorizer(_authorizer(job))
        yield
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, largest)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, pattern)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, attached)
        with suppress(sqlite3.Error):  # what happened before is what is told
            connection.execute(f"PRAGMA query_only = {int(before)}")


def _authorizer(job: Job) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    actions = _WRITING if job.write else _READING
    readable = None
    if job.readable is not None:
        readable = {
            table.rpartition(".")[2].lower(): {column.lower() for column in columns}
            for table, columns in job.readable.items()
        }
    functions = job.callable | _OPERATORS

    def decide(action: int, first: str | None, second: str | None, schema: str | None, inside: str | None) -> int:
        if action not in actions:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION:
            name = (second or "").lower()
            fine = name not in _NEVER_CALLED if readable is None else name in functions
        elif action == sqlite3.SQLITE_READ and readable is not None:
            # A view reads tables of its own; `inside` names it. It names a WITH as well, which is therefore never
            # given the name of a table (`sql_check`).
            columns = readable.get((first or "").lower())
            through = (inside or "").lower() in readable
            fine = through or (columns is not None and (not second or second.lower() in columns))
        elif action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            fine = (first or "").lower() not in _SCHEMA
        else:
            fine = True
        return sqlite3.SQLITE_OK if fine else sqlite3.SQLITE_DENY

    return decide
