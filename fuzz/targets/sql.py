"""Statements and model-written queries: what SQLite itself reads, calls and finds is what was found and allowed.

The oracle is a database with canaries, and SQLite's authorizer, which tells every column that a statement reads and
every function that it calls. PostgreSQL's rules are checked by writing and reading again.
"""

from __future__ import annotations

import sqlite3

from fuzz.oracle import agree, hold
from garrison.safe.sql_check import Checker
from garrison.safe.sql_text import SqlTextError, parse, pieces

SEEDS = (
    b"sSELECT * FROM users",
    b"sSELECT u.name, count(*) n FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.name ORDER BY n LIMIT 3",
    b"sWITH a AS (SELECT id FROM users) SELECT a.id FROM a WHERE a.id IN (SELECT user_id FROM orders)",
    b"sSELECT name FROM users WHERE name LIKE 'x''y%' ESCAPE '!' UNION SELECT note FROM orders",
    b"sSELECT secret FROM canary",
    b"sSELECT email FROM users u WHERE EXISTS (SELECT 1 FROM canary)",
    b"sSELECT (SELECT max(email) FROM users) FROM orders; DROP TABLE users",
    b"sSELECT coalesce(name, 'a') || upper(name), row_number() OVER (PARTITION BY name ORDER BY id) FROM users",
    b"sWITH users AS (SELECT * FROM canary) SELECT * FROM users",
    b"sSELECT name AS email FROM users ORDER BY lower(email) -- x",
    b"sSELECT * FROM (SELECT id, name FROM users) q, orders AS o WHERE q.id = o.user_id",
    b"pSELECT date_trunc('month', now())::date, E'\\'' FROM users",
    b"pSELECT $$ ' $$, /* /* */ */ name FROM users ORDER BY name NULLS LAST",
    b"pSELECT u.row_to_json, (u).email, u::text FROM users u",
    b"tSELECT ':a', \":b\", [:c], `:d`, :e -- :f",
    b"tSELECT 1 /* :a */ + :b; ;",
)
WORDS = (
    *(
        b"SELECT ",
        b" FROM ",
        b" WHERE ",
        b"users",
        b"orders",
        b"canary",
        b"secret",
        b"email",
        b"name",
        b"id",
        b"WITH a AS (",
    ),
    *(
        b" UNION ",
        b" JOIN ",
        b" ON ",
        b" USING (",
        b" ORDER BY ",
        b" GROUP BY ",
        b" LIMIT ",
        b" AS ",
        b"(SELECT ",
        b")",
        b"*",
    ),
    *(
        b"'",
        b"''",
        b'"',
        b"--",
        b"/*",
        b"*/",
        b";",
        b"::",
        b":x",
        b"$$",
        b"e'\\'",
        b"[",
        b"`",
        b"lower(",
        b"count(",
        b"hex(",
    ),
    *(
        b"CASE WHEN ",
        b" THEN ",
        b" END",
        b" IN (",
        b" LIKE ",
        b"CAST(",
        b" OVER (",
        b"sqlite_master",
        b"pg_class",
        b"EXISTS (",
    ),
)

_TABLES = {"users": ("id", "name"), "orders": ("id", "user_id", "note")}
_SCHEMA = """
CREATE TABLE users (id integer, name text, email text);
CREATE TABLE orders (id integer, user_id integer, note text, card text);
CREATE TABLE canary (id integer, secret text);
INSERT INTO users VALUES (1, 'Ada', 'CANARY'), (2, 'Bob', 'CANARY');
INSERT INTO orders VALUES (1, 1, 'x', 'CANARY');
INSERT INTO canary VALUES (1, 'CANARY');
"""
_FUNCTIONS_BESIDE = frozenset({"like", "glob", "->", "->>", "current_date", "current_time", "current_timestamp"})
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION})

sqlite = Checker(_TABLES, "sqlite", (), max_rows=20, max_bytes=10_000)
postgres = Checker(_TABLES, "postgres", (), max_rows=20, max_bytes=10_000)
_database = sqlite3.connect(":memory:", check_same_thread=False)
_database.executescript(_SCHEMA)
_database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)


def check(data: bytes) -> None:
    kind, text = data[:1], data[1:].decode("utf-8", "replace")
    if kind == b"t":
        return parameters(text)
    checker = postgres if kind == b"p" else sqlite
    try:
        checked = checker.check(text)
    except SqlTextError as error:
        return hold(len(str(error)) < 120 and "CANARY" not in str(error), "what is said", str(error))
    if checker is sqlite:
        compiled(text, checked.text)
        agree("again", checker.check(checked.text).text, checked.text)
    else:
        plain(checked.text)
    return None


def compiled(text: str, written: str) -> None:
    """SQLite reads only what is declared, and calls only what is listed."""
    names: set[str] = set()

    def tell(action: int, first: str | None, second: str | None, schema: str | None, inside: str | None) -> int:
        if action not in _READING:
            names.add(f"action {action}")
        if action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in sqlite.functions | _FUNCTIONS_BESIDE:
            names.add(f"function {second}")
        if action == sqlite3.SQLITE_READ and first in ("canary", "sqlite_master"):
            names.add(f"table {first}")
        if action == sqlite3.SQLITE_READ and second in ("email", "card", "secret") and first in (*_TABLES, "canary"):
            names.add(f"column {first}.{second}")
        return sqlite3.SQLITE_OK

    left = [200]
    _database.set_authorizer(tell)
    _database.set_progress_handler(lambda: left.append(left.pop() - 1) or left[0] < 0, 1000)
    try:
        rows = _database.execute(written).fetchmany(30)
    except sqlite3.Error:
        rows = []
    finally:
        _database.set_authorizer(None)
        _database.set_progress_handler(None, 0)
    hold(not names, "reached", sorted(names), text, written)
    hold(len(rows) <= 21, "rows", len(rows), written)
    hold("CANARY" in text or "CANARY" not in str(rows), "canary", text, written)


def plain(written: str) -> None:
    """Nothing of PostgreSQL's other strings, comments and parameters is in what is written."""
    kinds = {kind for kind, _ in pieces(written, "postgres")}
    hold(kinds <= {"space", "word", "number", "cast", "string", "name", "other"}, "kinds", kinds, written)
    for hidden in ("canary", "secret", "email", "pg_", "card"):
        outside = [piece for kind, piece in pieces(written, "postgres") if kind == "word"]
        hold(not any(word.lower().startswith(hidden) for word in outside), "word", hidden, written)


def parameters(text: str) -> None:
    """SQLite finds as many statements, and the same parameters."""
    try:
        said = parse(text, "sqlite")
    except SqlTextError as error:
        return hold(len(str(error)) < 120, "what is said", str(error))
    if said.verb != "select":
        return None
    rendered = said.render("named", dict.fromkeys(said.names, 1))
    try:
        _database.execute("EXPLAIN " + rendered.text, rendered.values or {}).fetchone()
    except sqlite3.ProgrammingError as error:  # another number of statements or parameters
        hold(False, "SQLite", str(error), text)
    except (sqlite3.Error, UnicodeEncodeError):
        return None
    return None
