"""VULNERABLE ON PURPOSE: the database server without its protections, for tests to attack. Never run it for anybody."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from garrison import Server


def serve(database: str = "shop.sqlite", write: bool = False) -> Server:
    server = Server("shop-vulnerable")

    def run(text: str) -> list[dict[str, Any]]:
        if database.startswith("postgresql://"):
            import psycopg

            with psycopg.connect(database, autocommit=True) as connection:
                cursor = connection.execute(text.encode())  # UNSAFE: any statement, any number of them
                names = [column.name for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in (cursor.fetchall() if names else [])]
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            cursor = connection.cursor()
            for each in filter(str.strip, text.split(";")):
                cursor.execute(each)  # UNSAFE
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    columns = {"users": "id, name, city", "products": "id, name, cents"}

    @server.tool()
    def lookup(table: str, id: int | str) -> dict[str, Any]:
        # UNSAFE: names and values become text of the statement
        return run(f"SELECT {columns.get(table, '*')} FROM {table} WHERE id = {id}")[-1]

    @server.resource("db://{table}/{id}", mime_type="application/json")
    def record(table: str, id: str) -> dict[str, Any]:
        return run(f"SELECT {columns.get(table, '*')} FROM {table} WHERE id = {id}")[-1]

    @server.tool()
    def ask(query: str) -> dict[str, Any]:
        return {"rows": run(query), "truncated": False}  # UNSAFE: what a model wrote is run

    if write:

        @server.tool()
        def order(user: int, product: int, quantity: int | str, key: str) -> str:
            names = "user_id, product_id, quantity"
            made = run(f"INSERT INTO orders ({names}) VALUES ({user}, {product}, {quantity}) RETURNING id")
            return f"order {made[0]['id']} is placed"  # UNSAFE: once for each time it is asked

    return server
