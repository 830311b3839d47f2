"""SQL injection against a server over HTTP, on SQLite and PostgreSQL, and against the twin that puts text together.

The twin is what people write: an f-string. The same calls go to both; the twin gives up the canary, and it alone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from garrison import Client, Server
from garrison.errors import RemoteError
from garrison.safe import SafeSQL, SqlQuery, SqlRefused
from tests.support.postgres import database

pytestmark = pytest.mark.app

CANARY = "CANARY-51c2"
SCHEMA = f"""
CREATE TABLE users (id text PRIMARY KEY, name text, password text);
CREATE TABLE orders (id text PRIMARY KEY, total integer);
CREATE TABLE canary (secret text);
INSERT INTO users VALUES ('1', 'Ada', '{CANARY}-ada'), ('2', 'Bob', '{CANARY}-bob');
INSERT INTO orders VALUES ('a', 5);
INSERT INTO canary VALUES ('{CANARY}');
"""
TABLES = {"users": ["id", "name"], "orders": ["id", "total"]}
VALUES = (
    "1' OR '1'='1",
    "1'; DROP TABLE canary; --",
    "1' UNION SELECT secret, secret FROM canary --",
    "' UNION SELECT password, id FROM users --",
    "1' AND (SELECT count(*) FROM canary) > 0 --",
    "1\\' OR 1=1 --",
    "1' || '",
    "%' OR name LIKE '%",
    "1\u02bc OR \u02bc1\u02bc=\u02bc1",
    ":id",
    "$1",
    "%(id)s",
)
NAMES = (
    "users; --",
    "sqlite_master",
    'users" --',
    "canary",
    "users, canary",
    "users UNION SELECT secret, secret FROM canary",
    "pg_catalog.pg_shadow",
    "main.canary",
    "public.canary",
    "USERS",
    "users ",
    "",
)
QUERIES = (
    "SELECT secret FROM canary",
    "SELECT password FROM users",
    "SELECT id FROM orders; DROP TABLE canary",
    "WITH gone AS (DELETE FROM canary RETURNING secret) SELECT * FROM gone",
)


class Scene(NamedTuple):
    safe: Server
    twin: Server
    past: Callable[[str], list[Any]]
    db: SafeSQL


@contextlib.asynccontextmanager
async def scene(kind: str, folder: Path) -> AsyncIterator[Scene]:
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            path = folder / "shop.db"
            connection = stack.enter_context(
                contextlib.closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None))
            )
            connection.executescript(SCHEMA)
            past: Callable[[str], list[Any]] = lambda text: connection.execute(text).fetchall()  # noqa: E731
            db = SafeSQL(path, tables=TABLES)
        else:
            made = database(SCHEMA)
            past = made.run
            db = SafeSQL(lambda: psycopg.connect(made.dsn), dialect="postgres", tables=TABLES)
        yield Scene(safe(db), twin(past), past, db)
        db.close()


def safe(db: SafeSQL) -> Server:
    server = Server("safe")

    class Ask(SqlQuery, db=db):
        "One SELECT of the shop."

    @server.tool()
    async def user(id: str) -> list[dict[str, object]]:
        return await db.fetch("SELECT id, name FROM users WHERE id = :id", id=id)

    @server.tool()
    async def rows(table: str, order: str = "id") -> list[dict[str, object]]:
        return await db.select(table, order_by=order)

    def ask(query: SqlQuery) -> dict[str, object]:
        return query.fetch_sync().as_json()

    ask.__annotations__["query"] = Ask  # a class of this function, which its text cannot name
    server.add_tool(ask)
    return server


def twin(past: Callable[[str], list[Any]]) -> Server:
    """The same tools, with text put together."""
    server = Server("twin")

    @server.tool()
    def user(id: str) -> list[list[str]]:
        return [list(map(str, row)) for row in past(f"SELECT id, name FROM users WHERE id = '{id}'")]

    @server.tool()
    def rows(table: str, order: str = "id") -> list[list[str]]:
        return [list(map(str, row)) for row in past(f"SELECT * FROM {table} ORDER BY 1")]

    @server.tool()
    def ask(query: str) -> list[list[str]]:
        return [list(map(str, row)) for row in past(query)]

    return server


async def talk(server: Server, tool: str, calls: list[dict[str, str]]) -> list[str]:
    """What a client over HTTP is told for each call, errors and all."""
    told: list[str] = []
    async with server.http(port=0, token="t" * 20) as serving, Client(serving.url, token="t" * 20) as client:
        for arguments in calls:
            try:
                result = await client.call_tool(tool, arguments)
                told.append(f"{result.structured_content} {result.content}")
            except RemoteError as error:
                told.append(f"error {error} {error.data}")
    return told


kinds = pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.peer)])


@kinds
@pytest.mark.attack("ATK-130")
async def test_a_value_is_data(kind: str, tmp_path: Path) -> None:
    async with scene(kind, tmp_path) as here:
        told = await talk(here.safe, "user", [{"id": value} for value in VALUES])
        assert all("'result': []" in text for text in told), told
        assert [str(row[0]) for row in here.past("SELECT secret FROM canary")] == [CANARY]
        assert await here.db.fetch("SELECT id FROM users WHERE id = :id", id=VALUES[0]) == []
        assert "Ada" in (await talk(here.safe, "user", [{"id": "1"}]))[0]
        leaked = await talk(here.twin, "user", [{"id": value} for value in VALUES])
        assert any(CANARY in text for text in leaked) and any("Bob" in text for text in leaked)


@kinds
@pytest.mark.attack("ATK-131")
async def test_a_name_is_one_that_was_declared(kind: str, tmp_path: Path) -> None:
    async with scene(kind, tmp_path) as here:
        calls = [{"table": name} for name in NAMES] + [{"table": "users", "order": name} for name in NAMES if name]
        told = await talk(here.safe, "rows", calls)
        assert not any(CANARY in text or "Ada" in text for text in told), told
        assert all("SafeSQL.tables" in text for text in told), told
        for name in NAMES:
            with pytest.raises(SqlRefused):
                await here.db.select(name)
        assert "Ada" in (await talk(here.safe, "rows", [{"table": "users", "order": "-id"}]))[0]
        leaked = await talk(here.twin, "rows", calls[: len(NAMES)])
        assert any(CANARY in text for text in leaked)


@kinds
@pytest.mark.attack("ATK-130")
async def test_a_query_of_a_model_is_checked_before_the_tool_runs(kind: str, tmp_path: Path) -> None:
    async with scene(kind, tmp_path) as here:
        told = await talk(here.safe, "ask", [{"query": query} for query in QUERIES])
        assert not any(CANARY in text for text in told), told
        assert all("SafeSQL" in text for text in told), told
        assert len(here.past("SELECT secret FROM canary")) == 1
        honest = await talk(here.safe, "ask", [{"query": "SELECT sum(total) AS t FROM orders"}])
        assert "'t': 5" in honest[0] and "'truncated': False" in honest[0]
        leaked = await talk(here.twin, "ask", [{"query": query} for query in QUERIES])
        assert CANARY in leaked[0] and CANARY in leaked[1]
        if kind == "postgres":
            assert here.past("SELECT to_regclass('canary')") == [(None,)]


@kinds
async def test_a_database_that_cannot_be_reached_is_an_internal_error(kind: str, tmp_path: Path) -> None:
    """Neither path nor address nor password is told."""
    tables = {"users": ["id"]}
    dsn = f"postgresql://u:needle@/d?host={tmp_path}/needle"
    if kind == "sqlite":
        db = SafeSQL(tmp_path / "needle.db", tables=tables)
    else:
        db = SafeSQL(lambda: psycopg.connect(dsn), dialect="postgres", tables=tables)
    server = Server("s")

    @server.tool()
    async def rows() -> list[dict[str, object]]:
        return await db.select("users")

    (told,) = await talk(server, "rows", [{}])
    assert "nternal error" in told and "needle" not in told and str(tmp_path) not in told
    db.close()
