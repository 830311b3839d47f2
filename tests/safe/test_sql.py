"""SafeSQL over every driver: values are bound, names declared, reading only reads, time and size end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import logging
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import aiosqlite
import asyncpg
import msgspec
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from garrison.errors import ConfigurationError
from garrison.safe import Rows, SafeSQL, SqlFailed, SqlRefused
from tests.support.postgres import Database, database

SCHEMA = """
CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL UNIQUE, team text);
INSERT INTO users VALUES (1, 'Ada', 'red'), (2, 'Bob', NULL), (3, 'Cleo', 'red');
CREATE TABLE secrets (id integer, word text);
INSERT INTO secrets VALUES (1, 'hush');
"""
TABLES = {"users": ["id", "name", "team"]}
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    "postgres": "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
}
MANY = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 'x' AS x FROM n",
    "postgres": "SELECT generate_series(1, 100000000) AS i, 'x' AS x",
}

SQLITE = ("file", "sqlite3", "sqlite3 function", "aiosqlite", "aiosqlite function", "sqlalchemy sqlite")
POSTGRES = (
    *("psycopg", "psycopg function", "psycopg async", "psycopg async function", "asyncpg", "asyncpg pool"),
    *("asyncpg function", "sqlalchemy psycopg", "sqlalchemy asyncpg", "sqlalchemy psycopg async", "another driver"),
)
SYNC = ("file", "sqlite3", "sqlite3 function", "sqlalchemy sqlite", "psycopg", "psycopg function", "sqlalchemy psycopg")


@functools.cache
def shared() -> Database:
    return database()


@pytest.fixture
def server() -> Database:
    made = shared()
    made.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public;" + SCHEMA)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a ?#%41.db"  # a name that is no part of a URI
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return path


class Another:
    """A connection of a driver that nobody has heard of. PEP 249, with the paramstyle of its module."""

    def __init__(self, connection: Any, style: str) -> None:
        self._connection = connection
        module = ModuleType("unheard_of")
        module.paramstyle = style  # type: ignore[attr-defined]
        module.Error = Exception  # type: ignore[attr-defined]
        sys.modules["unheard_of"] = module

    def cursor(self) -> Any:
        return self._connection.cursor()

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


Another.__module__ = "unheard_of"


@contextlib.asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest, **options: Any) -> AsyncIterator[SafeSQL]:
    """SafeSQL over this kind of source."""
    async with contextlib.AsyncExitStack() as stack:
        dialect: str | None = None
        source: Any
        if kind in SQLITE:
            path = request.getfixturevalue("file")
            if kind == "file":
                source = path
            elif kind == "sqlite3":
                source = stack.enter_context(contextlib.closing(sqlite3.connect(path, check_same_thread=False)))
            elif kind == "sqlite3 function":
                source, dialect = lambda: sqlite3.connect(path, check_same_thread=False), "sqlite"
            elif kind == "aiosqlite":
                source = await stack.enter_async_context(aiosqlite.connect(path))
            elif kind == "aiosqlite function":
                source, dialect = lambda: aiosqlite.connect(path), "sqlite"
            else:
                source = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(path)))
                stack.callback(source.dispose)
        else:
            made: Database = request.getfixturevalue("server")
            if kind == "psycopg":
                source = stack.enter_context(psycopg.connect(made.dsn))
            elif kind == "psycopg function":
                source, dialect = lambda: psycopg.connect(made.dsn), "postgres"
            elif kind == "psycopg async":
                source = await stack.enter_async_context(await psycopg.AsyncConnection.connect(made.dsn))
            elif kind == "psycopg async function":
                source, dialect = lambda: psycopg.AsyncConnection.connect(made.dsn), "postgres"
            elif kind == "asyncpg":
                source = await asyncpg.connect(made.dsn)
                stack.push_async_callback(source.close)
            elif kind == "asyncpg pool":
                source = await stack.enter_async_context(asyncpg.create_pool(made.dsn, min_size=1, max_size=2))
            elif kind == "asyncpg function":
                source, dialect = lambda: asyncpg.connect(made.dsn), "postgres"
            elif kind == "sqlalchemy psycopg":
                source = sqlalchemy.create_engine(made.url("psycopg"))
                stack.callback(source.dispose)
            elif kind == "another driver":
                source, dialect = Another(stack.enter_context(psycopg.connect(made.dsn)), "pyformat"), "postgres"
            else:
                source = create_async_engine(made.url(kind.split()[1]))
                stack.push_async_callback(source.dispose)
        options = {"tables": TABLES, "dialect": dialect, **options}
        db = SafeSQL(source, **options)
        stack.callback(db.close)
        yield db


every = pytest.mark.parametrize("kind", [*SQLITE, *(pytest.param(kind, marks=pytest.mark.peer) for kind in POSTGRES)])


def dialect(kind: str) -> str:
    return "sqlite" if kind in SQLITE else "postgres"


@every
async def test_reading_with_every_driver(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as db:
        rows = await db.fetch(
            "SELECT id, name FROM users WHERE name = :name OR name = :name OR id = :id", name="Ada", id=2
        )
        assert sorted(rows, key=str) == [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}] and not rows.truncated
        assert await db.fetch("SELECT '50%' AS a, ':x' AS b;") == [{"a": "50%", "b": ":x"}]
        assert await db.fetch("SELECT '50%' AS a, name FROM users WHERE id = :id", id=1) == [
            {"a": "50%", "name": "Ada"}
        ]
        assert await db.get("users", id=3) == {"id": 3, "name": "Cleo", "team": "red"}
        assert await db.get("users", id=99) is None
        with pytest.raises(LookupError):
            await db.get("users", team="red")
        assert await db.select("users", where={"team": None}, columns=["name"]) == [{"name": "Bob"}]
        picked = await db.select("users", where={"id": [1, 2, 3], "team": "red"}, order_by="-id", columns=["id"])
        assert picked == [{"id": 3}, {"id": 1}]
        assert await db.select("users", where={"id": []}) == []
        assert await db.select("users", columns=["id"], order_by=["id"], limit=1, offset=1) == [{"id": 2}]
        assert await db.ask("SELECT count(*) AS n FROM users WHERE name LIKE '%a'") == [{"n": 1}]


@every
async def test_what_writes_is_refused_by_the_database_too(kind: str, request: pytest.FixtureRequest) -> None:
    """A SELECT that writes, given to `fetch` by the program itself."""
    async with opened(kind, request) as db:
        if dialect(kind) == "postgres":
            request.getfixturevalue("server").run("CREATE SEQUENCE s")
            with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
                await db.fetch("WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone")
            with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
                await db.fetch("SELECT nextval('s')")
        else:
            for text in (
                "WITH gone AS (SELECT 1) DELETE FROM users",
                "WITH x AS (SELECT 1) INSERT INTO users SELECT 9, '', ''",
            ):
                with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
                    await db.fetch(text)
        with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
            await db.execute("DELETE FROM users")
        with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
            await db.delete("users", where={"id": 1})
        assert len(await db.select("users")) == 3


@every
async def test_writing_with_every_driver(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request, write=True) as db:
        new = await db.insert("users", {"id": 4, "name": "Dora'); DROP TABLE users; --"}, returning=["id", "name"])
        assert new == {"id": 4, "name": "Dora'); DROP TABLE users; --"}
        assert await db.insert("users", {"id": 5, "name": "Eve"}) == {}
        assert await db.update("users", {"team": "blue"}, where={"id": [4, 5]}) == 2
        assert await db.execute("UPDATE users SET team = :team WHERE team IS NULL", team="none") == 1
        assert await db.delete("users", where={"name": "Eve"}) == 1
        assert [row["team"] for row in await db.select("users", order_by="id")] == ["red", "none", "red", "blue"]
        with pytest.raises(SqlFailed, match="breaks a rule of the database"):
            await db.insert("users", {"id": 1, "name": "needle"})
        with pytest.raises(SqlFailed, match="breaks a rule of the database"):
            await db.update("users", {"name": "one name"}, where={"team": "red"})  # the second row is one too many
        assert len(await db.select("users", where={"name": "one name"})) == 0
        with pytest.raises(SqlRefused, match=r"SafeSQL\.(write|execute)"):
            await db.fetch("DELETE FROM users")
        with pytest.raises(SqlRefused):
            await db.execute("DROP TABLE users")
    async with opened(kind, request) as db:  # committed
        assert len(await db.select("users")) == 4


@every
async def test_a_slow_query_is_ended_and_the_connection_goes_on(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request, timeout=0.3) as db:
        begun = time.monotonic()
        with pytest.raises(SqlFailed, match=r"longer than 0\.3 s \(SafeSQL\.timeout\)"):
            await db.fetch(SLOW[dialect(kind)])  # pyright: ignore[reportArgumentType] - a text of the test
        assert time.monotonic() - begun < 5
        for _ in range(20):  # a thread may still be about to notice
            with contextlib.suppress(SqlFailed):
                assert await db.get("users", id=1)
                break
        else:
            pytest.fail("the connection is lost")


@every
async def test_rows_and_bytes_are_bounded(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "another driver":
        return  # its rows are all fetched by the driver, as PEP 249 has no other way
    many = MANY[dialect(kind)]
    async with opened(kind, request, max_rows=7) as db:
        rows = await db.fetch(many)  # pyright: ignore[reportArgumentType] - a text of the test
        assert [row["i"] for row in rows] == [1, 2, 3, 4, 5, 6, 7] and rows.truncated
        assert rows.as_json()["truncated"] is True
    async with opened(kind, request, max_bytes=1000) as db:
        rows = await db.fetch(many)  # pyright: ignore[reportArgumentType] - a text of the test
        assert rows.truncated and 20 < len(rows) < 100


@every
async def test_several_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as db:
        found = await asyncio.gather(*(db.get("users", id=number % 3 + 1) for number in range(9)))
        assert [row and row["id"] for row in found] == [1, 2, 3] * 3


@every
async def test_a_request_that_ends_early_ends_its_query(kind: str, request: pytest.FixtureRequest) -> None:
    if kind in ("psycopg", "psycopg function", "sqlalchemy psycopg", "another driver"):
        return  # in threads, they go on until the server's time-out
    async with opened(kind, request, timeout=5) as db:
        slow: Any = SLOW[dialect(kind)]
        task = asyncio.create_task(db.fetch(slow))
        await asyncio.sleep(0.1)
        task.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.get("users", id=1)
        assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    "kind", [kind if kind in SQLITE else pytest.param(kind, marks=pytest.mark.peer) for kind in SYNC]
)
async def test_without_awaiting(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request, write=True) as db:
        assert db.sync.fetch("SELECT name FROM users WHERE id = :id", id=1) == [{"name": "Ada"}]
        assert db.sync.get("users", id=1) == db.sync.select("users", where={"id": 1})[0]
        assert db.sync.ask("SELECT max(id) AS n FROM users") == [{"n": 3}]
        assert db.sync.insert("users", {"id": 4, "name": "D"}, returning=["id"]) == {"id": 4}
        assert db.sync.update("users", {"name": "E"}, where={"id": 4}) == 1
        assert db.sync.execute("UPDATE users SET name = :n WHERE id = :id", n="F", id=4) == 1
        assert db.sync.delete("users", where={"id": 4}) == 1
        with pytest.raises(SqlRefused):
            db.sync.fetch("SELECT 1; SELECT 2")


@pytest.mark.parametrize("kind", ["aiosqlite", "aiosqlite function", pytest.param("asyncpg", marks=pytest.mark.peer)])
async def test_asynchronous_connections_are_awaited(kind: str, request: pytest.FixtureRequest) -> None:
    async with opened(kind, request) as db:
        with pytest.raises(ConfigurationError, match="await"):
            db.sync.get("users", id=1)


# What SQLite is told


async def test_sqlite_is_told_to_refuse_what_is_neither_reading_nor_writing(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, check_same_thread=False)) as connection:
        db = SafeSQL(connection, tables=TABLES, write=True)
        connection.create_function("load_extension", 1, lambda name: "loaded")  # where Python is built without it
        with pytest.raises(SqlRefused):
            await db.fetch("SELECT load_extension('x')")
        with pytest.raises(SqlRefused):
            await db.execute("INSERT INTO sqlite_master VALUES ('a', 'b', 'c', 1, 'd')")
        with pytest.raises(SqlRefused):
            await db.fetch("WITH x AS (SELECT 1) SELECT * FROM pragma_table_info('users')")
        connection.execute("PRAGMA user_version = 7")  # its owner goes on as before
        assert connection.execute("PRAGMA query_only").fetchone() == (0,)
        assert connection.execute("SELECT load_extension('x')").fetchone() == ("loaded",)
        connection.execute("CREATE TABLE t (a)")
        db.close()


def test_reading_holds_without_the_authorizer_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.safe.sql_sqlite._authorizer", lambda job: lambda *asked: sqlite3.SQLITE_OK)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        with pytest.raises(SqlRefused, match=r"SafeSQL\.write"):
            SafeSQL(connection, tables=TABLES).sync.fetch("WITH x AS (SELECT 1) DELETE FROM users")
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (3,)


async def test_a_file_that_is_read_is_opened_for_reading(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **more: asked.append(path) or real(path, **more))
    await SafeSQL(file, tables=TABLES).get("users", id=1)
    await SafeSQL(file, tables=TABLES, write=True).get("users", id=1)
    assert [uri.rpartition("?")[2] for uri in asked] == ["mode=ro", "mode=rw"]
    with pytest.raises(sqlite3.OperationalError):
        await SafeSQL(file.with_name("none.db"), tables=TABLES, write=True).get("users", id=1)
    assert not file.with_name("none.db").exists()


async def test_a_value_that_fills_memory_is_not_made(file: Path) -> None:
    with pytest.raises(SqlFailed, match=r"SafeSQL\.max_bytes"):
        await SafeSQL(file, tables=TABLES).fetch("SELECT zeroblob(900000000)")


async def test_a_connection_of_another_thread_says_what_to_do(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        db = SafeSQL(connection, tables=TABLES)
        with pytest.raises(ConfigurationError, match="check_same_thread"):
            await db.get("users", id=1)
        assert db.sync.get("users", id=1)


# Connections that cannot be used


async def test_a_connection_in_a_transaction_is_left_alone(file: Path, server: Database) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE users SET team = 'x'")
        with pytest.raises(ConfigurationError, match="transaction"):
            SafeSQL(connection, tables=TABLES, write=True).sync.delete("users", where={"id": 1})
        assert connection.in_transaction
    with psycopg.connect(server.dsn) as connection:
        connection.execute("UPDATE users SET team = 'x'")
        with pytest.raises(ConfigurationError, match="transaction"):
            SafeSQL(connection, tables=TABLES).sync.get("users", id=1)
    connection = await asyncpg.connect(server.dsn)
    async with connection.transaction():
        with pytest.raises(ConfigurationError, match="transaction"):
            await SafeSQL(connection, tables=TABLES).get("users", id=1)
    await connection.close()


@pytest.mark.peer
async def test_another_driver_that_commits_each_statement_is_refused(server: Database) -> None:
    """There is no transaction then that could be told to read only."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        db = SafeSQL(Another(connection, "pyformat"), tables=TABLES, dialect="postgres")
        with pytest.raises(ConfigurationError, match="autocommit"):
            db.sync.get("users", id=1)


async def test_a_database_that_is_not_told_to_read_only_needs_a_reason(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        another = Another(connection, "qmark")
        with pytest.raises(ConfigurationError, match="dangerously_without_read_only"):
            SafeSQL(another, tables=TABLES, dialect="oracle")
        with caplog.at_level(logging.WARNING, "garrison.security"):
            reason = "the role has SELECT alone"
            db = SafeSQL(another, tables=TABLES, dialect="oracle", dangerously_without_read_only=reason)
        assert [getattr(record, "event", "") for record in caplog.records] == ["policy.relaxed"]
        assert db.sync.fetch("SELECT name FROM users WHERE id = :id AND id = :id", id=1) == [{"name": "Ada"}]
        connection.execute("BEGIN")
        db.sync.fetch("WITH x AS (SELECT 1) DELETE FROM users")  # read is rolled back
        assert len(db.sync.fetch("SELECT * FROM users")) == 3


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (":memory:", {}, "path"),
        ("postgresql://u:needle@h/d", {}, "path"),
        (7, {}, "int is no path"),
        (lambda: None, {}, "dialect"),
        ("a.db", {"dialect": "postgres"}, "speaks 'sqlite'"),
        ("a.db", {"timeout": 0}, "timeout"),
        ("a.db", {"max_rows": 0}, "max_rows"),
        ("a.db", {"max_bytes": 1.5}, "max_bytes"),
        ("a.db", {"write": 1}, "write"),
        ("a.db", {"tables": "users"}, "tables"),
        ("a.db", {"tables": {"users": "id"}}, "list of names"),
        ("a.db", {"tables": {"users": []}}, "no column"),
        ("a.db", {"tables": {"users": ["a", "a"]}}, "twice"),
        ("a.db", {"tables": {"": None}}, "without NUL"),
        ("a.db", {"tables": {"a..b": None}}, "without NUL"),
        ("a.db", {"functions": ["x("]}, "functions"),
    ],
)
def test_settings_that_cannot_be(source: object, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        SafeSQL(source, **{"tables": TABLES, **options})
    assert "needle" not in str(caught.value)


def test_what_is_printed_has_no_password() -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg://u:needle@127.0.0.1:1/d")
    db = SafeSQL(engine, tables=TABLES)
    assert repr(db) == "SafeSQL(postgres by sqlalchemy, tables: users)" and "needle" not in repr(vars(db))
    dsn = "postgresql://u:needle@127.0.0.1:1/d?connect_timeout=1"
    assert "needle" not in repr(SafeSQL(lambda: psycopg.connect(dsn), tables=TABLES, dialect="postgres"))


# Names, values, errors


@pytest.mark.parametrize(
    "call",
    [
        lambda db: db.select("secrets"),
        lambda db: db.select("users", columns=["password"]),
        lambda db: db.select("users", where={"password": 1}),
        lambda db: db.select("users", where={"id = 1 OR 1": 1}),
        lambda db: db.select("users", order_by="password"),
        lambda db: db.select("users", order_by="id; DROP TABLE users"),
        lambda db: db.select("users", order_by="--id"),
        lambda db: db.insert("secrets", {"id": 1}),
        lambda db: db.insert("users", {"password": 1}),
        lambda db: db.insert("users", {"id": 9}, returning=["password"]),
        lambda db: db.update("users", {"password": 1}, where={"id": 1}),
        lambda db: db.delete("secrets", where={"id": 1}),
        lambda db: db.get("secrets", id=1),
        lambda db: db.get("users", password=1),
    ],
)
async def test_names_that_are_not_declared_are_refused(
    file: Path, call: Callable[[SafeSQL], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "garrison.security"), pytest.raises(SqlRefused, match=r"SafeSQL\.tables"):
        await call(SafeSQL(file, tables=TABLES, write=True))
    assert [(getattr(r, "event", ""), getattr(r, "setting", "")) for r in caplog.records] == [
        ("sql.refused", "SafeSQL.tables")
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda db: db.get("users"),
        lambda db: db.delete("users", where={}),
        lambda db: db.update("users", {"team": "x"}, where={}),
        lambda db: db.update("users", {}, where={"id": 1}),
        lambda db: db.insert("users", {}),
        lambda db: db.select("users", where={"id": {"$gt": 0}}),
        lambda db: db.select("users", limit="1; DROP TABLE users"),
        lambda db: db.select("users", offset=-1),
        lambda db: db.select("users", columns="id"),
        lambda db: db.fetch("SELECT :a"),
        lambda db: db.fetch("SELECT 1", a=1),
    ],
)
async def test_calls_that_mean_nothing_are_errors_of_the_program(file: Path, call: Callable[[SafeSQL], Any]) -> None:
    with pytest.raises(TypeError):
        await call(SafeSQL(file, tables=TABLES, write=True))


async def test_a_table_of_which_every_column_may_be_used(file: Path) -> None:
    db = SafeSQL(file, tables=["users"])
    assert list((await db.select("users", where={"team": "red"}, order_by="name"))[0]) == ["id", "name", "team"]
    with pytest.raises(sqlite3.OperationalError):  # quoted: it is a name and no more
        await db.select("users", where={'id" = 1 OR "id': 1})


async def test_errors_of_the_driver_stay_what_they_are(file: Path) -> None:
    """The server masks them; a text of the database never reaches the peer by SafeSQL."""
    with pytest.raises(sqlite3.OperationalError):
        await SafeSQL(file, tables=TABLES).fetch("SELECT nothing FROM users")
    with pytest.raises(sqlite3.OperationalError):
        await SafeSQL(file, tables={"gone": ["id"]}).select("gone")
    with pytest.raises(SqlFailed, match="cannot run this query") as caught:
        await SafeSQL(file, tables={"gone": ["id"]}).ask("SELECT id FROM gone")
    assert "gone" not in str(caught.value)


@pytest.mark.peer
async def test_values_of_every_type_are_json(server: Database) -> None:
    server.run("CREATE TYPE pair AS (a int, b text)")
    text = """
        SELECT 1.10::numeric AS exact, 'NaN'::numeric AS nan, 1e300::float8 AS float, 'Infinity'::float8 AS inf,
        '2026-01-02 03:04:05+00'::timestamptz AS moment, '2026-01-02'::date AS day, '03:04:05'::time AS clock,
        '1 day 2 hours'::interval AS long, 'c56a4180-65aa-42ec-a945-5fd21dec0538'::uuid AS uuid,
        '\\x00ff'::bytea AS bytes,
        ARRAY[1.5, 2]::numeric[] AS list, '{"a": [1, null]}'::jsonb AS json, NULL AS nothing, TRUE AS truth,
        int4range(1, 5) AS range, '10.0.0.0/8'::cidr AS net, 1 AS twice, 2 AS twice, 9223372036854775807 AS big
    """
    expected: dict[str, object] = {"exact": "1.10", "nan": "NaN", "float": 1e300, "inf": "Infinity"}
    expected |= {"day": "2026-01-02", "clock": "03:04:05", "long": "P1DT7200S", "bytes": "AP8=", "list": ["1.5", "2"]}
    expected |= {"uuid": "c56a4180-65aa-42ec-a945-5fd21dec0538", "nothing": None, "truth": True, "net": "10.0.0.0/8"}
    expected |= {"twice": 1, "twice_2": 2, "big": 9223372036854775807}
    connection = await asyncpg.connect(server.dsn)
    with psycopg.connect(server.dsn) as other:
        for source in (connection, other):
            (row,) = rows = await SafeSQL(source, tables=TABLES).fetch(text)
            assert {name: row[name] for name in expected} == expected
            assert datetime.datetime.fromisoformat(str(row["moment"])).timestamp() == 1767323045
            assert json.loads(json.dumps(row)) == row == msgspec.json.decode(msgspec.json.encode(rows))[0]
            assert rows.columns[-2] == "twice_2"
        (row,) = await SafeSQL(connection, tables=TABLES).fetch("SELECT ROW(1, 'x')::pair AS pair")
        assert row == {"pair": {"a": 1, "b": "x"}}
    await connection.close()


def test_what_has_no_form_in_json_names_its_column(file: Path) -> None:
    class Point:
        pass

    connection = sqlite3.connect(file, detect_types=sqlite3.PARSE_COLNAMES)
    sqlite3.register_converter("point", lambda data: Point())
    with contextlib.closing(connection), pytest.raises(TypeError, match="column 'p': Point has no form in JSON"):
        SafeSQL(connection, tables=TABLES).sync.fetch('SELECT 1 AS "p [point]"')


def test_rows_are_a_list_that_says_what_it_is() -> None:
    rows = Rows([{"a": UUID(int=0)}])
    assert repr(rows).startswith("Rows([") and rows.as_json() == {"rows": list(rows), "truncated": False}
