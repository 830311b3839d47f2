"""The database server and its vulnerable twin, over SQLite and a real PostgreSQL, attacked by one script."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from garrison import Client
from tests.support.postgres import database

from .running import BOTH, CANARY, OVER, file_of, said, talking

pytestmark = pytest.mark.app

SCHEMA = f"""
CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, city text, password_hash text NOT NULL);
INSERT INTO users VALUES (1, 'Ada', 'London', '{CANARY}'), (2, 'Björn', 'Malmö', '{CANARY}');
CREATE TABLE products (id integer PRIMARY KEY, name text NOT NULL, cents integer NOT NULL);
INSERT INTO products VALUES (1, 'tea', 450), (2, 'cup', 1200);
CREATE TABLE orders (id {{key}}, user_id integer NOT NULL, product_id integer NOT NULL, quantity integer NOT NULL);
INSERT INTO orders (user_id, product_id, quantity) VALUES (1, 1, 2);
CREATE TABLE payments (id integer PRIMARY KEY, card text NOT NULL);
INSERT INTO payments VALUES (1, '{CANARY}');
"""
KINDS = [
    pytest.param("sqlite"),
    pytest.param("postgres", marks=pytest.mark.peer),
]


class Shop(NamedTuple):
    """A database, as the example is told of it and as the test looks into it."""

    word: str
    rows: Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    if request.param == "postgres":
        made = database(SCHEMA.format(key="integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY"))
        return Shop(made.dsn, made.run)
    path = tmp_path / "shop.sqlite"

    def rows(text: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute(text).fetchall()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA.format(key="integer PRIMARY KEY"))
    return Shop(str(path), rows)


async def benign(client: Client) -> list[Any]:
    """What an honest client does."""
    joined = "SELECT u.name, o.quantity FROM users u JOIN orders o ON o.user_id = u.id ORDER BY u.name"
    return [
        json.loads(await said(call))
        for call in (
            client.call_tool("lookup", {"table": "users", "id": 2}),
            client.read_resource("db://products/1"),
            client.call_tool("ask", {"query": joined}),
        )
    ]


async def attack(client: Client) -> dict[str, str]:
    """Every way to the canary, and what came of it."""
    came = {way: await said(client.call_tool("lookup", arguments)) for way, arguments in LOOKUPS.items()}
    came |= {way: await said(client.call_tool("ask", {"query": query})) for way, query in QUERIES.items()}
    return came | {uri: await said(client.read_resource(uri)) for uri in URIS}


LOOKUPS: dict[str, dict[str, Any]] = {
    "another table": {"table": "payments", "id": 1},
    "a table and more": {"table": "payments WHERE 1 = 1 --", "id": 1},
    "a value and more": {"table": "users", "id": "0 UNION SELECT id, card, card FROM payments"},
    "a comment at the end": {"table": "products", "id": "0 UNION SELECT 1, password_hash, 1 FROM users --"},
}
QUERIES = {
    "a column": "SELECT password_hash FROM users",
    "all columns": "SELECT * FROM users",
    "a table in a union": "SELECT name FROM users WHERE 1 = 0 UNION SELECT card FROM payments",
    "a table under another name": "WITH users AS (SELECT card AS name FROM payments) SELECT name FROM users",
    "a column in a subquery": 'SELECT (SELECT max("password_hash") FROM "users") AS name',
    "comments for spaces": "SELECT/**/card/*'*/FROM/**/payments--'",
}
URIS = ("db://payments/1", "db://users/0%20UNION%20SELECT%20id,card,card%20FROM%20payments")


@pytest.mark.attack("ATK-130")
@pytest.mark.attack("ATK-131")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_against_both(which: str, over: str, shop: Shop) -> None:
    async with talking(file_of(which, "database"), "--database", shop.word, over=over) as client:
        came = await attack(client)
        leaked = {way for way, text in came.items() if CANARY in text}
        assert leaked == (set() if which == "example" else set(came))
        assert (await benign(client))[0] == {"id": 2, "name": "Björn", "city": "Malmö"}  # it is alive


@pytest.mark.parametrize("over", OVER)
async def test_honest_calls_get_the_same_from_both(over: str, shop: Shop) -> None:
    answers: list[list[Any]] = []
    for which in BOTH:
        async with talking(file_of(which, "database"), "--database", shop.word, over=over) as client:
            answers.append(await benign(client))
    assert answers[0] == answers[1]
    assert answers[0][-1] == {"rows": [{"name": "Ada", "quantity": 2}], "truncated": False}


DAMAGE = {
    "payments": "SELECT count(*) FROM payments",
    "cents": "SELECT cents FROM products WHERE id = 1",
    "orders": "SELECT count(*) FROM orders",
    "cities": "SELECT city FROM users WHERE id = 1",
}


async def destroy(client: Client, shop: Shop) -> set[str]:
    """Every way to change what nobody allowed, and what is changed after it."""
    before = {name: shop.rows(text) for name, text in DAMAGE.items()}
    await said(client.call_tool("ask", {"query": "DELETE FROM payments"}))
    await said(client.call_tool("ask", {"query": "SELECT 1; UPDATE products SET cents = 0"}))
    await said(client.call_tool("lookup", {"table": "users", "id": "1; UPDATE users SET city = 'x'"}))
    order = {"user": 1, "product": 1, "quantity": 3, "key": "one and the same"}
    first, again = [await said(client.call_tool("order", order)) for _ in range(2)]
    assert first == "order 2 is placed"
    await said(client.call_tool("order", {**order, "quantity": "3), (1, 1, 3", "key": "another"}))
    after = {name: shop.rows(text) for name, text in DAMAGE.items()}
    changed = {name for name in DAMAGE if before[name] != after[name]}
    if after["orders"] == [(2,)] and again == first:
        changed.discard("orders")
    return changed


@pytest.mark.attack("ATK-130")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_that_destroys_against_both(which: str, over: str, shop: Shop) -> None:
    async with talking(file_of(which, "database"), "--database", shop.word, "--write", over=over) as client:
        changed = await destroy(client, shop)
    assert changed == (set() if which == "example" else set(DAMAGE))


async def test_who_and_what_is_ordered_has_to_be_there(shop: Shop) -> None:
    async with talking(file_of("example", "database"), "--database", shop.word, "--write", over="stdio") as client:
        order = {"user": 99, "product": 1, "quantity": 1, "key": "k"}
        assert "no such user or product" in await said(client.call_tool("order", order))
        assert "quantity" in await said(client.call_tool("order", {**order, "user": 1, "quantity": 101}))
        assert "no such record" in await said(client.call_tool("lookup", {"table": "users", "id": 99}))
    assert shop.rows(DAMAGE["orders"]) == [(1,)]


async def test_the_sample_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "sample.sqlite"
    words = ("--database", str(path), "--demo", "--write")
    for number in (3, 4):
        async with talking(file_of("example", "database"), *words, over="stdio") as client:
            order = {"user": 1, "product": 2, "quantity": 1, "key": f"k{number}"}
            assert await said(client.call_tool("order", order)) == f"order {number} is placed"
            assert "refused" in await said(client.call_tool("ask", {"query": "SELECT card FROM payments"}))
