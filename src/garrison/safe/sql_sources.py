"""Where connections come from: a file, a connection, a pool, an engine, or a function that makes one.

Rules of this file:
- A connection is used by one query at a time. One that was given is waited for; one that a function made is closed
  after its query.
- What drivers block on is done in threads that belong to the `SafeSQL`, at most `_THREADS` of them.
- Nothing is opened before the first query.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from ..errors import ConfigurationError
from .sql_drivers import dialect_of, root_of, runner_of
from .sql_job import Done, Job

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from typing import Protocol

    class Proxied(Protocol):
        """What is used of a pooled connection of SQLAlchemy."""

        driver_connection: object

        def close(self) -> None: ...

    class Engine(Protocol):
        """What is used of `sqlalchemy.Engine`."""

        def raw_connection(self) -> Proxied: ...

    class AsyncConnection(Protocol):
        """What is used of `sqlalchemy.ext.asyncio.AsyncConnection`."""

        async def get_raw_connection(self) -> Proxied: ...

    class AsyncEngine(Protocol):
        """What is used of `sqlalchemy.ext.asyncio.AsyncEngine`."""

        def connect(self) -> AbstractAsyncContextManager[AsyncConnection]: ...

    class SyncPool(Protocol):
        """What is used of `psycopg_pool.ConnectionPool`."""

        def connection(self, timeout: float) -> AbstractContextManager[object]: ...

    class AsyncPool(Protocol):
        """What is used of `psycopg_pool.AsyncConnectionPool`."""

        def connection(self, timeout: float) -> AbstractAsyncContextManager[object]: ...

    class AsyncpgPool(Protocol):
        """What is used of `asyncpg.Pool`."""

        def acquire(self, *, timeout: float) -> AbstractAsyncContextManager[object]: ...


__all__ = ["Source"]

_T = TypeVar("_T")
_THREADS: Final = 4
_ENGINES: Final = {"postgresql": "postgres", "mariadb": "mysql", "mssql": "tsql"}
"""SQLAlchemy's names of dialects that sqlglot has under another name."""

Take = Callable[[Job], AbstractContextManager[object]]
TakeAsync = Callable[[Job], AbstractAsyncContextManager[object]]


class Source:
    """Runs jobs on connections of one database.

    Args:
        given: see `SafeSQL`.
        dialect: what it speaks, where that cannot be seen.
        write: how files are opened.

    Raises:
        ConfigurationError: it is nothing that connections come from, or its dialect cannot be told.
    """

    def __init__(self, given: object, dialect: str | None, *, write: bool) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._take: Take | None = None
        self._take_async: TakeAsync | None = None
        self._make: Callable[[], object] | None = None
        self.name = root = root_of(given)
        known = dialect_of(root)
        if isinstance(given, str | Path):
            if "://" in str(given) or str(given) in (":memory:", ""):
                raise ConfigurationError(
                    "SafeSQL: a text is the path of an SQLite file; else give a connection or pool"
                )
            self.name, known = "sqlite3", "sqlite"
            self._take = _file(Path(given), write=write)
        elif root == "sqlalchemy":
            known = self._engine(given)
        elif known is not None or callable(getattr(given, "cursor", None)):
            self._connected(given, dialect or known or "")
        elif callable(given):
            self.name = "a function"
            self._make = cast("Callable[[], object]", given)
        else:
            raise ConfigurationError(
                f"SafeSQL: {type(given).__name__} is no path, connection, pool, engine or function"
            )
        spoken = dialect or known
        if spoken is None:
            raise ConfigurationError(f'SafeSQL.dialect: say what {self.name} speaks: "postgres", "sqlite", ...')
        if known not in (None, spoken):
            raise ConfigurationError(f"SafeSQL.dialect is {spoken!r}, and {self.name} speaks {known!r}")
        self.dialect: str = spoken

    def _engine(self, given: object) -> str:
        """An engine of SQLAlchemy is a pool: its connections are used as the driver's own."""
        if not callable(getattr(given, "connect", None)):
            raise ConfigurationError(
                "SafeSQL: of SQLAlchemy an Engine or AsyncEngine is used, no connection or session"
            )
        if callable(getattr(given, "raw_connection", None)) and not hasattr(given, "sync_engine"):
            self._take = _engine(cast("Engine", given))
        else:
            self._take_async = _async_engine(cast("AsyncEngine", given))
        said = str(getattr(getattr(given, "dialect", None), "name", ""))
        return _ENGINES.get(said, said)

    def _connected(self, given: object, dialect: str) -> None:
        kinds = {kind.__name__ for kind in type(given).__mro__}
        if self.name == "psycopg_pool" and "AsyncConnectionPool" in kinds:
            self._take_async = lambda job: cast("AsyncPool", given).connection(job.patience)
        elif self.name == "psycopg_pool":
            self._take = lambda job: cast("SyncPool", given).connection(job.patience)
        elif self.name == "asyncpg" and "Pool" in kinds:
            self._take_async = lambda job: cast("AsyncpgPool", given).acquire(timeout=job.patience)
        elif runner_of(given, dialect).run is not None:
            self._take = _one(given)
        else:
            self._take_async = _one_async(given)

    async def run(self, job: Job) -> Done:
        """Run a job. What blocks, blocks a thread; one that nobody waits for any more is stopped."""
        try:
            async with asyncio.timeout(job.patience):
                if self._make is not None:
                    done = await self._in_thread(lambda: self._made(job))
                    return await _awaited(done, job) if isinstance(done, Awaitable) else done
                if self._take_async is None:
                    return await self._in_thread(lambda: self._here(job))
                async with self._take_async(job) as connection:
                    return await _run_async(connection, job)
        finally:
            job.stopped = True

    def run_sync(self, job: Job) -> Done:
        """Run a job in this thread.

        Raises:
            ConfigurationError: the connections are asynchronous.
        """
        if self._make is not None:
            done = self._made(job)
            if not isinstance(done, Awaitable):
                return done
            close = getattr(done, "close", None)  # a coroutine that nobody will await
            if asyncio.iscoroutine(done) and callable(close):
                close()
        elif self._take is not None:
            return self._here(job)
        raise ConfigurationError("SafeSQL.sync: the connections are asynchronous; await the methods of SafeSQL itself")

    def close(self) -> None:
        """End the threads, after what runs in them. A connection in use by a thread must not be closed by another."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None

    def _here(self, job: Job) -> Done:
        if self._take is None:
            raise ConfigurationError("SafeSQL: there is no connection")
        job.check()
        with self._take(job) as connection:
            return _run(connection, job)

    def _made(self, job: Job) -> Done | Awaitable[object]:
        """A job on a connection of the program's function, or what the function gave to await."""
        if self._make is None:
            raise ConfigurationError("SafeSQL: there is no connection")
        job.check()
        made = self._make()
        if isinstance(made, Awaitable):
            return cast("Awaitable[object]", made)
        try:
            return _run(made, job)
        finally:
            close = getattr(made, "close", None)
            if callable(close):
                close()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(_THREADS, "garrison-sql")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _run(connection: object, job: Job) -> Done:
    runner = runner_of(connection, job.dialect)
    if runner.run is None:
        raise ConfigurationError("SafeSQL: an asynchronous connection comes from a function that is awaited")
    return runner.run(connection, job)


async def _run_async(connection: object, job: Job) -> Done:
    runner = runner_of(connection, job.dialect)
    if runner.run_async is None:
        raise ConfigurationError("SafeSQL: a function that is awaited gives an asynchronous connection")
    try:
        return await runner.run_async(connection, job)
    finally:
        job.stopped = True  # before the connection is closed, which waits for it


async def _awaited(made: Awaitable[object], job: Job) -> Done:
    connection = await made
    try:
        return await _run_async(connection, job)
    finally:
        close = getattr(connection, "close", None)
        ending = close() if callable(close) else None
        if isinstance(ending, Awaitable):
            await ending


def _file(path: Path, *, write: bool) -> Take:
    @contextmanager
    def take(job: Job) -> Generator[object]:
        from .sql_sqlite import open_file

        connection = open_file(path, write=write, seconds=job.seconds)
        try:
            yield connection
        finally:
            connection.close()

    return take


def _one(connection: object) -> Take:
    lock = threading.Lock()

    @contextmanager
    def take(job: Job) -> Generator[object]:
        if not lock.acquire(timeout=max(0.0, job.left)):
            raise TimeoutError
        try:
            job.check()
            yield connection
        finally:
            lock.release()

    return take


def _one_async(connection: object) -> TakeAsync:
    lock = asyncio.Lock()

    @asynccontextmanager
    async def take(job: Job) -> AsyncGenerator[object]:
        async with lock:
            job.check()
            yield connection

    return take


def _engine(engine: Engine) -> Take:
    @contextmanager
    def take(job: Job) -> Generator[object]:
        pooled = engine.raw_connection()
        try:
            yield pooled.driver_connection
        finally:
            pooled.close()

    return take


def _async_engine(engine: AsyncEngine) -> TakeAsync:
    @asynccontextmanager
    async def take(job: Job) -> AsyncGenerator[object]:
        async with engine.connect() as connection:
            yield (await connection.get_raw_connection()).driver_connection

    return take
