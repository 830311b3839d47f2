"""A shop's database, in an SQLite file or on a PostgreSQL server.

    uv run garrison run examples/database.py --database shop.sqlite --demo
    uv run garrison run examples/database.py --database postgresql://shop@db.example.com/shop --write

The model may write its own SELECTs: they are checked against the columns below before they run. `users.password_hash`
and all other tables are for nobody. With `--write` orders can be placed, each once.
"""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from garrison import ResourceNotFound, Server, ToolError
from garrison.safe import SafeSQL, SqlQuery

TABLES = {
    "users": ["id", "name", "city"],
    "products": ["id", "name", "cents"],
    "orders": ["id", "user_id", "product_id", "quantity"],
}
Table = Literal["users", "products", "orders"]
Id = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Quantity = Annotated[int, Meta(ge=1, le=100)]
Key = Annotated[str, Meta(max_length=64)]

SAMPLE = """
CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, city text, password_hash text NOT NULL);
INSERT INTO users VALUES (1, 'Ada', 'London', 'hash-of-ada'), (2, 'Björn', 'Malmö', 'hash-of-bjorn');
CREATE TABLE products (id integer PRIMARY KEY, name text NOT NULL, cents integer NOT NULL);
INSERT INTO products VALUES (1, 'tea', 450), (2, 'cup', 1200), (3, 'pot', 3900);
CREATE TABLE orders (id integer PRIMARY KEY, user_id integer NOT NULL REFERENCES users,
    product_id integer NOT NULL REFERENCES products, quantity integer NOT NULL);
INSERT INTO orders VALUES (1, 1, 1, 2), (2, 2, 3, 1);
CREATE TABLE payments (id integer PRIMARY KEY, card text NOT NULL);
INSERT INTO payments VALUES (1, '4111 1111 1111 1111');
"""


def serve(database: str = "shop.sqlite", write: bool = False, demo: bool = False) -> Server:
    """A shop's database, in an SQLite file or on a PostgreSQL server.

    Args:
        database: the SQLite file, or postgresql://USER@HOST/NAME; a password belongs into PGPASSWORD or ~/.pgpass
        write: orders can be placed
        demo: make the SQLite file first, with a sample, where it is not there
    """
    source, dialect = _source(database, demo=demo)
    shop = SafeSQL(source, dialect=dialect, tables=TABLES, max_rows=200)
    server = Server("shop", instructions="Amounts of money are in cents.")

    class Ask(SqlQuery, db=shop):
        """One SELECT."""

    @server.tool()
    async def lookup(table: Table, id: Id) -> dict[str, object]:
        """Look a record up."""
        row = await shop.get(table, id=id)
        if row is None:
            raise ToolError("there is no such record")
        return row

    @server.resource("db://{table}/{id}", name="record", mime_type="application/json")
    async def record(table: Table, id: Id) -> dict[str, object]:
        """A record."""
        row = await shop.get(table, id=id)
        if row is None:
            raise ResourceNotFound(f"db://{table}/{id}")
        return row

    @server.tool()
    async def ask(query: Ask) -> dict[str, object]:
        """Run a query of your own. `truncated` says that there are more rows than are shown."""
        return (await query.fetch()).as_json()

    if write:
        orders = SafeSQL(source, dialect=dialect, tables={"orders": TABLES["orders"]}, write=True)

        @server.tool(idempotent_by="key")
        async def order(user: Id, product: Id, quantity: Quantity, key: Key) -> str:
            """Place an order. Make up a key for each; calling again with the same key orders nothing more."""
            if await shop.get("users", id=user) is None or await shop.get("products", id=product) is None:
                raise ToolError("there is no such user or product")
            made = await orders.insert(
                "orders", {"user_id": user, "product_id": product, "quantity": quantity}, returning=["id"]
            )
            return f"order {made['id']} is placed"

    return server


def _source(database: str, *, demo: bool) -> tuple[Path | Callable[[], Awaitable[object]], str]:
    """What connections come from, and what they speak."""
    if database.startswith(("postgresql://", "postgres://")):
        import asyncpg

        return lambda: asyncpg.connect(database), "postgres"
    if demo and not Path(database).exists():
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.executescript(SAMPLE)
    return Path(database), "sqlite"


if __name__ == "__main__":
    serve(demo=True).run()
