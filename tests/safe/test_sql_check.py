"""Queries as models write them: hostile ones give nothing and change nothing, honest ones give what they gave before.

The database user may do everything, so that only the checker and SafeSQL stand between a query and the canaries.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from garrison.errors import ConfigurationError
from garrison.safe import ParameterError, SafeSQL, SqlFailed, SqlQuery, SqlRefused
from garrison.safe.sql_check import Checked, Checker
from garrison.safe.sql_names import FUNCTIONS, NODES, TYPES
from garrison.safe.sql_text import SqlTextError
from tests.support.postgres import Database, database

CANARY = "CANARY-7f3a"
TABLES = {"users": ["id", "name", "team"], "orders": ["id", "user_id", "total", "note", "placed"]}
SCHEMA = f"""
CREATE TABLE users (id integer PRIMARY KEY, name text, team text, email text);
CREATE TABLE orders (id integer PRIMARY KEY, user_id integer, total numeric(10,2), note text, placed date, card text);
CREATE TABLE canary (id integer PRIMARY KEY, secret text);
INSERT INTO users VALUES (1, 'Ada', 'red', '{CANARY}-a'), (2, 'Bob', 'red', '{CANARY}-b'),
  (3, 'Cleo', 'blue', '{CANARY}-c'), (4, 'D''Arcy', NULL, '{CANARY}-d');
INSERT INTO orders VALUES (1, 1, 10.50, 'first; -- not the last', '2026-01-05', '{CANARY}-1'),
  (2, 1, 20.00, 'a /* b */', '2026-01-20', '{CANARY}-2'), (3, 2, 5.25, '100%', '2026-02-01', '{CANARY}-3'),
  (4, 3, 99.99, NULL, '2026-02-14', '{CANARY}-4'), (5, 9, 1.00, '{{"a": {{"b": 7}}}}', '2026-03-03', '{CANARY}-5');
INSERT INTO canary VALUES (1, '{CANARY}');
"""
OPEN = SCHEMA.replace(", email text", "").replace(", card text", "").split("INSERT INTO canary")[0]
OPEN = re.sub(f", '{CANARY}-.'", "", OPEN)
"""The same without what is not declared, for honest queries that are not checked."""
EVERYTHING = (
    "SELECT 1, id, name, team, email FROM users UNION ALL SELECT 2, id, note, card, CAST(total AS text) FROM orders "
    "UNION ALL SELECT 3, id, secret, NULL, NULL FROM canary ORDER BY 1, 2"
)

HOSTILE = """
SELECT secret FROM canary
SELECT * FROM canary
SELECT c.* FROM canary c
SELECT email FROM users
SELECT users.email FROM users
SELECT u.email FROM users AS u
SELECT name FROM users WHERE email LIKE 'CANARY%'
SELECT name FROM users ORDER BY email
SELECT count(*) FROM users GROUP BY email
SELECT count(*) FROM users GROUP BY team HAVING max(email) > 'A'
SELECT name AS email FROM users ORDER BY lower(email)
SELECT name AS email FROM users ORDER BY email || ''
SELECT max(email) OVER () FROM users
SELECT sum(1) OVER (ORDER BY email) FROM users
SELECT (SELECT email FROM users u WHERE u.id = users.id) FROM users
SELECT (SELECT secret FROM canary) FROM users
SELECT name FROM users WHERE EXISTS (SELECT 1 FROM canary)
SELECT name FROM users WHERE id IN (SELECT id FROM canary)
SELECT name FROM users WHERE name = (SELECT secret FROM canary LIMIT 1)
SELECT CASE WHEN (SELECT count(*) FROM canary) > 0 THEN 1 ELSE 0 END
SELECT name FROM users UNION SELECT secret FROM canary
SELECT name FROM users UNION ALL SELECT email FROM users
SELECT name FROM users EXCEPT SELECT secret FROM canary
SELECT name FROM users INTERSECT SELECT secret FROM canary
SELECT u.name FROM users u JOIN canary c ON c.id = u.id
SELECT u.name FROM users u, canary c
SELECT u.name FROM users u CROSS JOIN canary
SELECT u.name FROM users u LEFT JOIN canary c ON TRUE
SELECT * FROM users NATURAL JOIN canary
SELECT * FROM users u NATURAL JOIN orders o
SELECT * FROM users JOIN canary USING (id)
SELECT name FROM (SELECT * FROM canary) AS users
SELECT x.email FROM (SELECT email FROM users) AS x
SELECT x.secret FROM (SELECT secret FROM canary) x
WITH x AS (SELECT secret FROM canary) SELECT * FROM x
WITH x AS (SELECT email FROM users) SELECT * FROM x
WITH users AS (SELECT secret AS name FROM canary) SELECT name FROM users
WITH users AS (SELECT * FROM canary) SELECT * FROM users
WITH canary AS (SELECT * FROM canary) SELECT * FROM canary
WITH a AS (SELECT * FROM canary), canary AS (SELECT 1 AS id) SELECT * FROM a
WITH canary AS (SELECT id, name AS secret FROM users), b AS (SELECT * FROM main.canary) SELECT * FROM b
SELECT * FROM (WITH canary AS (SELECT 1 AS id) SELECT * FROM canary) q, canary
SELECT * FROM (WITH canary AS (SELECT 1 AS secret) SELECT secret FROM canary) q JOIN canary ON TRUE
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r
WITH RECURSIVE r(n) AS (SELECT 'a' UNION ALL SELECT n || n FROM r) SELECT max(length(n)) FROM r
WITH x(a, b) AS (SELECT id, name FROM users) SELECT a FROM x
SELECT a FROM users AS u (a, b, c, d)
SELECT d FROM users AS u (a, b, c, d)
SELECT users FROM users
SELECT u FROM users u
SELECT u.* FROM canary, users AS u
SELECT (u).email FROM users u
SELECT (u.*) FROM users u
SELECT count(u) FROM users u
SELECT main.canary.secret FROM main.canary
SELECT * FROM main.canary
SELECT * FROM "canary"
SELECT * FROM "CANARY"
SELECT * FROM cAnArY
SELECT * FROM/**/canary
SELECT * FROM users; SELECT * FROM canary
SELECT * FROM users; DROP TABLE users
SELECT * FROM users;;
SELECT * FROM users; --
SELECT 1; DELETE FROM users
DELETE FROM users
UPDATE users SET name = 'x'
INSERT INTO users VALUES (9, 'x', 'x', 'x')
INSERT INTO users SELECT id + 100, secret, '', '' FROM canary
DROP TABLE canary
DROP TABLE users
CREATE TABLE t AS SELECT * FROM users
ALTER TABLE users ADD COLUMN x text
CREATE VIEW v AS SELECT * FROM canary
REPLACE INTO users VALUES (1, 'x', 'x', 'x')
BEGIN
COMMIT
ROLLBACK
EXPLAIN SELECT * FROM canary
VALUES (1)
TABLE canary
WITH x AS (DELETE FROM users RETURNING id) SELECT * FROM x
WITH x AS (UPDATE users SET name = 'x' RETURNING id) SELECT * FROM x
WITH x AS (INSERT INTO users VALUES (9, 'x', 'x', 'x') RETURNING id) SELECT * FROM x
WITH x AS (SELECT 1) DELETE FROM users
WITH x AS (SELECT 1) INSERT INTO canary VALUES (5, 'x')
SELECT * FROM users WHERE id = :id
SELECT * FROM users WHERE id = ?
SELECT * FROM users WHERE id = $1
SELECT * FROM users WHERE id = @id
SELECT * FROM users WHERE name = %(name)s
SELECT `name` FROM users
SELECT [name] FROM users
SELECT name FROM users WHERE name = 'x
SELECT name FROM users /* open
SELECT name FROM users WHERE name = "x
SELECT name FROM users WHERE (id = 1
SELECT name FROM users WHERE id = 1))
SELECT sqlite_version()
SELECT load_extension('/tmp/x.so')
SELECT readfile('/etc/passwd')
SELECT writefile('/tmp/x', 'y')
SELECT zeroblob(1000000000)
SELECT hex(randomblob(1000000000))
SELECT printf('%.*c', 1000000000, 'x')
SELECT repeat('x', 1000000000)
SELECT unknown_function(1)
SELECT "lower"('x') FROM canary
SELECT fts3_tokenizer('simple')
SELECT * FROM sqlite_master
SELECT * FROM sqlite_schema
SELECT sql FROM main.sqlite_master
SELECT * FROM pragma_table_info('users')
SELECT * FROM json_each('[1]')
SELECT * FROM lower('users')
SELECT * FROM FROM users
FROM users
SELECT * FROM (FROM canary)
SELECT rowid, name FROM users
SELECT users.rowid FROM users
SELECT name FROM users LIMIT (SELECT count(*) FROM canary)
SELECT name FROM users LIMIT -1
SELECT name FROM users LIMIT 1 OFFSET (SELECT max(id) FROM canary)
SELECT name FROM users FETCH FIRST 1 ROWS ONLY
SELECT name FROM users FOR UPDATE
SELECT name INTO x FROM users
SELECT x'53454c454354'
SELECT 1 FROM users WHERE name LIKE (SELECT secret FROM canary)
SELECT
""".strip().split("\n")
"""What neither database may do. One is a whole query each."""
POSTGRES = """
SELECT * FROM public.canary
SELECT * FROM pg_catalog.pg_class
SELECT * FROM pg_class
SELECT * FROM pg_shadow
SELECT * FROM pg_stat_activity
SELECT * FROM information_schema.tables
SELECT table_name FROM information_schema.columns
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('/etc/passwd')
SELECT pg_ls_dir('/')
SELECT * FROM pg_ls_dir('/')
SELECT pg_catalog.pg_read_file('/etc/passwd')
SELECT pg_sleep(20)
SELECT pg_catalog.pg_sleep(20)
SELECT "pg_sleep"(20)
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '/tmp/x')
SELECT dblink('dbname=postgres', 'SELECT 1')
SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(a int)
SELECT set_config('transaction_read_only', 'off', false)
SELECT current_setting('data_directory')
SELECT query_to_xml('SELECT * FROM canary', true, false, '')
SELECT table_to_xml('canary', true, false, '')
SELECT database_to_xml(true, false, '')
SELECT xpath('/a', query_to_xml('SELECT * FROM canary', true, false, ''))
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT ts_stat('SELECT to_tsvector(secret) FROM canary')
SELECT pg_terminate_backend(1)
SELECT pg_advisory_lock(1)
SELECT pg_notify('a', 'b')
SELECT nextval('s')
SELECT setval('s', 1)
SELECT txid_current()
SELECT version()
SELECT current_user
SELECT session_user
SELECT current_database()
SELECT current_catalog
SELECT current_schema
SELECT current_role
SELECT user
SELECT inet_server_addr()
SELECT pg_typeof(users) FROM users
SELECT row_to_json(users) FROM users
SELECT to_jsonb(u) FROM users u
SELECT u.row_to_json FROM users u
SELECT users.to_json FROM users
SELECT json_agg(users) FROM users
SELECT array_agg(u) FROM users u
SELECT string_agg(u::text, ',') FROM users u
SELECT u::text FROM users u
SELECT CAST(users AS text) FROM users
SELECT q.row_to_json FROM (SELECT id FROM users) q
SELECT ctid FROM users
SELECT xmin, name FROM users
SELECT tableoid::regclass FROM users
SELECT 'canary'::regclass
SELECT 'canary'::regclass::oid
SELECT CAST('canary' AS regclass)
SELECT 'x'::xml
SELECT 'x'::public.users
SELECT E'\\' UNION SELECT secret FROM canary --'
SELECT e'\\'' || (SELECT secret FROM canary) || '\\''
SELECT U&'\\0041'
SELECT U&"n\\0061me" FROM users
SELECT $$x$$
SELECT $x$ ' $x$, secret FROM canary --'
SELECT '\\' , secret FROM canary --'
SELECT /* /* */ secret FROM canary /* */ */ 1
SELECT 1 /* /* */ */ , secret FROM canary
SELECT * FROM ONLY canary
SELECT * FROM canary TABLESAMPLE SYSTEM (100)
SELECT * FROM users TABLESAMPLE SYSTEM (100)
SELECT * FROM LATERAL (SELECT secret FROM canary) x
SELECT x.secret FROM users u, LATERAL (SELECT secret FROM canary) x
SELECT * FROM generate_series(1, 1000000000)
SELECT generate_series(1, 1000000000)
SELECT unnest(ARRAY[1, 2])
SELECT ARRAY(SELECT secret FROM canary)
SELECT ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[ARRAY[1]]]]]]]]]]]]
SELECT ROW(1, 2)
SELECT 1 OPERATOR(pg_catalog.+) 1
SELECT name FROM users FOR SHARE
SELECT name FROM users FOR NO KEY UPDATE SKIP LOCKED
SELECT DISTINCT ON (email) name FROM users
SELECT name FROM users GROUP BY ROLLUP (name, email)
SELECT count(*) FILTER (WHERE email LIKE 'C%') FROM users
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY email) FROM users
SELECT sum(total) OVER w FROM orders WINDOW w AS (PARTITION BY card)
SELECT COALESCE((SELECT secret FROM canary), 'x')
SELECT name FROM users WHERE id = ANY (SELECT id FROM canary)
SELECT name COLLATE "C" FROM users
COPY users TO '/tmp/x'
COPY (SELECT * FROM canary) TO PROGRAM 'cat > /tmp/x'
SET ROLE postgres
SHOW data_directory
DO $$ BEGIN DELETE FROM users; END $$
CALL x()
LISTEN x
VACUUM
GRANT ALL ON canary TO public
PREPARE x AS SELECT 1
DECLARE c CURSOR FOR SELECT * FROM canary
TRUNCATE users
MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE
LOCK TABLE users
""".strip().split("\n")
SQLITE = """
ATTACH DATABASE '/tmp/x.db' AS x
PRAGMA table_info(users)
PRAGMA query_only = 0
VACUUM INTO '/tmp/x.db'
SELECT * FROM temp.sqlite_master
SELECT * FROM dbstat
SELECT * FROM "users" WHERE "secret" = 'x'
SELECT "CANARY" FROM users
SELECT USERS.EMAIL FROM USERS
SELECT Users."Email" FROM users
SELECT _rowid_ FROM users
SELECT oid FROM users
SELECT name FROM users NOT INDEXED
SELECT name FROM users INDEXED BY x
SELECT * FROM users WHERE name MATCH 'x'
SELECT * FROM users WHERE name REGEXP 'x'
SELECT group_concat(email) FROM users
SELECT quote(email) FROM users
SELECT sum(1) OVER w FROM users WINDOW w AS (ORDER BY email)
SELECT last_insert_rowid()
SELECT total_changes()
SELECT sqlite_compileoption_get(1)
SELECT random()
SELECT x.name FROM users AS x, (SELECT secret AS name FROM canary) AS y
SELECT CAST(email AS blob) FROM users
SELECT name FROM users WHERE (id, email) = (1, 'x')
SELECT name FROM users WHERE (id, email) IN (SELECT id, secret FROM canary)
""".strip().split("\n")

HONEST = """
SELECT * FROM users ORDER BY id
SELECT id, name FROM users WHERE team = 'red' ORDER BY id
SELECT name FROM users WHERE team IS NULL
SELECT name FROM users WHERE team IS NOT NULL ORDER BY name DESC
SELECT u.name, o.total FROM users u JOIN orders o ON o.user_id = u.id ORDER BY o.id
SELECT u.name, o.total FROM users AS u LEFT JOIN orders AS o ON o.user_id = u.id ORDER BY u.id, o.id
SELECT count(*) FROM orders
SELECT COUNT(DISTINCT user_id) FROM orders
SELECT team, count(*) AS n FROM users GROUP BY team ORDER BY n DESC, team
SELECT team, count(*) FROM users GROUP BY 1 HAVING count(*) > 1
SELECT user_id, sum(total) AS spent FROM orders GROUP BY user_id ORDER BY spent DESC LIMIT 2
SELECT user_id, min(total), max(total) FROM orders GROUP BY user_id ORDER BY user_id
SELECT name FROM users WHERE id IN (1, 3) ORDER BY id
SELECT name FROM users WHERE id NOT IN (SELECT user_id FROM orders) ORDER BY id
SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id AND o.total > 15) ORDER BY name
SELECT name FROM users WHERE name LIKE 'A%'
SELECT name FROM users WHERE name LIKE '%!%%' ESCAPE '!' OR name = 'Bob'
SELECT note FROM orders WHERE note LIKE '%\\%%' ESCAPE '\\'
SELECT name FROM users WHERE name = 'D''Arcy'
SELECT note FROM orders WHERE note = 'first; -- not the last'
SELECT note FROM orders WHERE note = 'a /* b */'
SELECT note FROM orders WHERE note = '100%'
SELECT 'a:b', '::', ':x', '$1', '?', '%s' FROM users WHERE id = 1
SELECT id FROM orders WHERE total BETWEEN 5 AND 21 ORDER BY id
SELECT id, CASE WHEN total > 50 THEN 'big' WHEN total > 10 THEN 'middle' ELSE 'small' END FROM orders ORDER BY id
SELECT upper(name), lower(name), length(name) FROM users ORDER BY id
SELECT coalesce(team, 'none') AS team FROM users ORDER BY id
SELECT nullif(team, 'red') FROM users ORDER BY id
SELECT name || ' of ' || coalesce(team, '-') FROM users ORDER BY id
SELECT substr(name, 1, 2) FROM users ORDER BY id
SELECT trim('  x  '), replace('abc', 'b', 'x')
SELECT round(avg(id), 2) FROM users
SELECT abs(-3), 7 % 4, 2 * (3 + 4), -5 + 1
SELECT 1.5e2, 0.25
SELECT DISTINCT team FROM users WHERE team IS NOT NULL ORDER BY team
SELECT id FROM users UNION SELECT user_id FROM orders ORDER BY id
SELECT id FROM users UNION ALL SELECT id FROM orders ORDER BY 1
SELECT id FROM users EXCEPT SELECT user_id FROM orders ORDER BY 1
SELECT id FROM users INTERSECT SELECT user_id FROM orders ORDER BY 1
WITH s AS (SELECT user_id u, sum(total) t FROM orders GROUP BY u) SELECT name, t FROM users JOIN s ON u = id ORDER BY t
WITH a AS (SELECT id FROM users), b AS (SELECT id FROM a WHERE id > 1) SELECT count(*) FROM b
SELECT count(*) FROM (SELECT id FROM users LIMIT 2) AS q
SELECT 1 FROM (SELECT id FROM users) AS q, (SELECT 2 AS x) AS r
SELECT x.team, x.n FROM (SELECT team, count(*) AS n FROM users GROUP BY team) AS x WHERE x.n > 1
SELECT name, (SELECT count(*) FROM orders o WHERE o.user_id = u.id) AS orders FROM users u ORDER BY u.id
SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY total DESC) AS place FROM orders ORDER BY id
SELECT id, rank() OVER (ORDER BY user_id) AS r, lag(id) OVER (ORDER BY id) AS before FROM orders ORDER BY id
SELECT id, sum(id) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS s FROM orders ORDER BY id
SELECT count(*) FILTER (WHERE total > 10) AS many FROM orders
SELECT a.name, b.name FROM users a JOIN users b ON a.team = b.team AND a.id < b.id
SELECT * FROM users JOIN (SELECT user_id AS id, count(*) AS n FROM orders GROUP BY user_id) AS c USING (id) ORDER BY id
SELECT u.*, o.id AS order_id FROM users u JOIN orders o ON u.id = o.user_id WHERE o.id = 1
SELECT id FROM orders ORDER BY placed DESC, id LIMIT 2 OFFSET 1
SELECT "name" FROM "users" WHERE "id" = 1
select NAME from USERS where ID = 1
SELECT CAST(id AS text), CAST('7' AS integer) FROM users ORDER BY id
SELECT total FROM orders WHERE NOT (total > 10 OR total < 2)
SELECT name FROM users WHERE (id, team) = (1, 'red')
SELECT max(placed), min(placed) FROM orders
SELECT name AS "the name; --", id AS "x""y" FROM users WHERE id = 2
SELECT name FROM users ORDER BY team NULLS LAST, name;
SELECT 'žluťoučký 日本語 🦊' FROM users WHERE id = 1
SELECT id FROM users WHERE TRUE AND id <> 2 AND id != 3 AND id >= 1 AND id <= 4 ORDER BY id
""".strip().split("\n")
HONEST.append("SELECT name -- the name\nFROM users /* of users */ WHERE id = 1")
HONEST_POSTGRES = """
(SELECT id FROM users WHERE id = 1) UNION ALL (SELECT id FROM users WHERE id = 2)
SELECT date_trunc('month', placed) AS month, sum(total) FROM orders GROUP BY 1 ORDER BY 1
SELECT extract(month FROM placed), to_char(placed, 'YYYY-MM') FROM orders ORDER BY id
SELECT name FROM users WHERE name ILIKE 'a%'
SELECT total::integer, total::numeric(10, 1), id::text FROM orders ORDER BY id
SELECT placed + INTERVAL '1 day', placed - DATE '2026-01-01' FROM orders ORDER BY id
SELECT string_agg(name, ', ' ORDER BY name) FROM users
SELECT DISTINCT ON (user_id) user_id, id FROM orders ORDER BY user_id, id DESC
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders
SELECT split_part(name, 'd', 1), left(name, 2), position('d' IN name), greatest(id, 2) FROM users ORDER BY id
SELECT bool_and(total > 0), stddev(total) FROM orders
SELECT name, array_agg(o.id ORDER BY o.id) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY name ORDER BY name
""".strip().split("\n")
HONEST_SQLITE = """
SELECT strftime('%Y-%m', placed) AS month, count(*) FROM orders GROUP BY month ORDER BY month
SELECT date(placed, '+1 day') FROM orders ORDER BY id
SELECT group_concat(name, '; ') FROM users
SELECT ifnull(team, 'none'), iif(id > 2, 'late', 'early') FROM users ORDER BY id
SELECT instr(name, 'd'), typeof(name) FROM users ORDER BY id
SELECT json_extract(note, '$.a.b') FROM orders WHERE id = 5
SELECT julianday(placed) - julianday('2026-01-01') FROM orders ORDER BY id
SELECT total(total) FROM orders WHERE id < 3
""".strip().split("\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
    connection.close()
    return path


@pytest.fixture(scope="module")
def server() -> Database:
    return database(SCHEMA)


class Place(NamedTuple):
    """A database behind SafeSQL."""

    kind: str
    db: SafeSQL
    past: Callable[[str], list[Any]]
    """A way past SafeSQL."""
    open: Callable[[str], list[Any]]
    """A way into a database with the same rows, that has nothing but what is declared."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.peer)])
def place(request: pytest.FixtureRequest, shop: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        with closing(sqlite3.connect(shop)) as connection, closing(sqlite3.connect(":memory:")) as other:
            other.executescript(OPEN)
            db = SafeSQL(shop, tables=TABLES, timeout=1)
            yield Place("sqlite", db, lambda q: connection.execute(q).fetchall(), lambda q: other.execute(q).fetchall())
        return
    made: Database = request.getfixturevalue("server")
    with psycopg.connect(made.dsn) as one:
        yield Place("postgres", SafeSQL(one, tables=TABLES, timeout=1), made.run, database(OPEN).run)


@pytest.mark.app
@pytest.mark.attack("ATK-130")
def test_hostile_queries_read_no_canary_and_write_nothing(place: Place) -> None:
    before = place.past(EVERYTHING)
    assert any(CANARY in str(row) for row in before)
    queries = HOSTILE + (POSTGRES if place.kind == "postgres" else SQLITE)
    assert len(queries) >= 120
    passed: list[str] = []
    for query in queries:
        begun = time.monotonic()
        try:
            rows = place.db.sync.ask(query)
        except (SqlRefused, SqlFailed) as error:
            assert CANARY not in str(error) and len(str(error)) < 160
        else:
            passed.append(query)
            assert CANARY not in json.dumps(rows), query
        assert time.monotonic() - begun < 5.0, query
    assert place.past(EVERYTHING) == before
    assert set(passed) == HARMLESS[place.kind]


HARMLESS = {
    "sqlite": {"SELECT * FROM users; --", "SELECT * FROM users;;"},
    "postgres": {"SELECT * FROM users; --", "SELECT * FROM users;;", "SELECT /* /* */ secret FROM canary /* */ */ 1"},
}
"""What looks worse than it is: one statement of declared columns, and a comment in a comment."""


def raw(row: Any) -> list[object]:
    """A driver's row as it comes out of SafeSQL."""
    return [
        str(value)
        if isinstance(value, decimal.Decimal)
        else value.isoformat()
        if isinstance(value, datetime.date | datetime.datetime)
        else value
        for value in row
    ]


def test_honest_queries_give_what_they_give_without_the_checker(place: Place) -> None:
    queries = HONEST + (HONEST_POSTGRES if place.kind == "postgres" else HONEST_SQLITE)
    assert len(queries) >= 60
    for query in queries:
        rows = place.db.sync.ask(query)
        assert [list(row.values()) for row in rows] == [raw(row) for row in place.open(query)], query
        assert rows.columns or not rows


def test_what_is_checked_is_checked_again_with_the_same_result() -> None:
    """The text that is run passes the checker itself: nothing that it writes is beyond what it reads."""
    tables = {name: tuple(columns) for name, columns in TABLES.items()}
    checker = Checker(tables, "sqlite", (), max_rows=10, max_bytes=10_000)
    for query in HONEST + HONEST_SQLITE:
        once = checker.check(query).text
        assert checker.check(once).text == once


def test_a_query_is_cut_to_the_rows_and_keeps_a_smaller_limit(shop: Path) -> None:
    few = SafeSQL(shop, tables=TABLES, max_rows=2)
    rows = few.sync.ask("SELECT id FROM users ORDER BY id")
    assert [row["id"] for row in rows] == [1, 2] and rows.truncated
    assert not few.sync.ask("SELECT id FROM users LIMIT 1").truncated
    assert len(few.sync.ask("SELECT id FROM users LIMIT 1000000")) == 2


def test_a_query_that_makes_much_out_of_little_is_ended(place: Place) -> None:
    """A hundred megabytes of one letter: neither the program nor its memory meets them."""
    text = "'xxxx'"
    for _ in range(4):
        text = f"replace({text}, 'x', '{'x' * 70}')"
    with pytest.raises(SqlFailed):
        place.db.sync.ask(f"SELECT {text}")
    assert len(place.db.sync.ask(f"SELECT '{'x' * 3000}' AS s")[0]["s"]) == 3000  # pyright: ignore[reportArgumentType] - a text


def doubled(levels: int) -> list[str]:
    """Queries whose parts are twice as many with each level, once a database has put them together."""
    nested, starred = "SELECT name AS s FROM users", "SELECT * FROM users"
    tables, values = "WITH a0 AS (SELECT id FROM users)", "WITH a0 AS (SELECT id FROM users)"
    for n in range(levels):
        nested = f"SELECT x.s || x.s AS s FROM ({nested}) x"
        starred = f"SELECT x.*, x.* FROM ({starred}) x"
        tables += f", a{n + 1} AS (SELECT x.id FROM a{n} x, a{n} y)"
        values += f", a{n + 1} AS (SELECT x.id + x.id AS id FROM a{n} x)"
    return [nested, starred, f"{tables} SELECT * FROM a{levels}", f"{values} SELECT * FROM a{levels}"]


@pytest.mark.parametrize("number", range(4))
def test_a_query_whose_parts_double_is_refused(place: Place, number: int) -> None:
    """Planning such a query has no time-out in either database."""
    begun = time.monotonic()
    with pytest.raises(SqlRefused):
        place.db.sync.ask(doubled(20)[number])
    assert time.monotonic() - begun < 5
    if number != 1:
        assert place.db.sync.ask(doubled(3)[number])


def test_a_query_that_takes_long_is_ended(place: Place) -> None:
    many = ", ".join(f"orders o{n}" for n in range(14))
    added = " + ".join(f"o{n}.id" for n in range(14))
    begun = time.monotonic()
    with pytest.raises(SqlFailed, match="longer than"):
        place.db.sync.ask(f"SELECT count(*) FROM {many} WHERE {added} < 0")
    assert 0.8 < time.monotonic() - begun < 5


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT " + "(" * 4000,
        "SELECT " + "(" * 2000 + "1" + ")" * 2000,
        "SELECT " + "1+" * 2000 + "1",
        "SELECT " + "NOT " * 1000 + "1",
        "SELECT " + "-" * 4000 + "1",
        "SELECT " + "- " * 2000 + "1",
        "SELECT 1" + " OR 1" * 800,
        "SELECT 1" + " UNION SELECT 1" * 250,
        "SELECT " + "CASE WHEN 1=1 THEN " * 180 + "1" + " END" * 180,
        "SELECT " + "a," * 1300 + "a FROM users",
        "SELECT " + "[" * 4000,
        "SELECT " + "ARRAY[" * 20 + "1" + "]" * 20,
        "SELECT '" + "''" * 2000,
        "SELECT 1 " + "/*" * 2000,
        "SELECT * FROM " + "(SELECT * FROM " * 23 + "users" + ") x" * 23,
        "SELECT * FROM users " + "JOIN users ON 1=1 " * 200,
        "SELECT " + "lower(" * 23 + "name" + ")" * 23 + " FROM users",
        "x" * 100_000,
    ],
    ids=lambda query: query[:24],
)
def test_no_query_takes_long_to_check(dialect: str, query: str) -> None:
    checker = Checker({"users": ("id", "name")}, dialect, (), max_rows=10, max_bytes=10_000)
    begun = time.process_time()
    try:
        checker.check(query)
    except SqlTextError as error:
        assert len(str(error)) < 120
    assert time.process_time() - begun < 1.5


def test_every_name_of_the_lists_is_one_that_sqlglot_knows() -> None:
    from sqlglot import exp

    assert [name for name in sorted(NODES) if not hasattr(exp, name)] == []
    assert [name for name in sorted(TYPES) if not hasattr(exp.DType, name)] == []
    never = {
        "pg_sleep",
        "pg_read_file",
        "load_extension",
        "set_config",
        "current_setting",
        "repeat",
        "lpad",
        "zeroblob",
    }
    assert never.isdisjoint(FUNCTIONS["sqlite"] | FUNCTIONS["postgres"])


def test_a_function_of_the_program_is_listed_to_be_called(tmp_path: Path, shop: Path) -> None:
    query = "SELECT hex(name) FROM users WHERE id = 1"
    with pytest.raises(SqlRefused, match=r"function that is not listed.*SafeSQL\.functions"):
        SafeSQL(shop, tables=TABLES).sync.ask(query)
    rows = SafeSQL(shop, tables=TABLES, functions=["hex"]).sync.ask(query)
    assert list(rows[0].values()) == ["416461"]


def test_sqlite_itself_refuses_what_a_broken_checker_lets_through(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = SafeSQL(shop, tables=TABLES)
    monkeypatch.setattr(db.checker, "check", lambda text: Checked(text, frozenset()))
    for query in (
        "SELECT secret FROM canary",
        "SELECT email FROM users",
        "SELECT count(*) FROM canary",
        "SELECT hex(name) FROM users",
        "SELECT * FROM sqlite_master",
        "PRAGMA query_only = 0",
        "DELETE FROM users",
        "ATTACH 'x' AS x",
    ):
        with pytest.raises(SqlRefused):
            db.sync.ask(query)
    assert len(db.sync.ask("SELECT count(*), name FROM users")) == 1


def test_names_of_schemas_and_names_with_capitals(server: Database) -> None:
    made = database(
        'CREATE SCHEMA sales; CREATE TABLE sales."Big Orders" (id int, "Total" int, hidden int);'
        'INSERT INTO sales."Big Orders" VALUES (1, 2, 3); CREATE TABLE orders (id int); INSERT INTO orders VALUES (7)'
    )
    with psycopg.connect(made.dsn) as connection:
        db = SafeSQL(connection, tables={"sales.Big Orders": ["id", "Total"], "orders": ["id"]})
        assert db.sync.ask('SELECT * FROM sales."Big Orders"') == [{"id": 1, "Total": 2}]
        assert db.sync.ask('SELECT b."Total", o.id FROM sales."Big Orders" b, orders o') == [{"Total": 2, "id": 7}]
        assert db.sync.select("sales.Big Orders", where={"Total": 2}) == [{"id": 1, "Total": 2}]
        for query in ('SELECT hidden FROM sales."Big Orders"', "SELECT * FROM sales.orders", "SELECT * FROM Orders2"):
            with pytest.raises(SqlRefused):
                db.sync.ask(query)


# As a parameter


def test_a_bound_query_is_checked_with_the_arguments(shop: Path) -> None:
    db = SafeSQL(shop, tables=TABLES)

    class Ask(SqlQuery, db=db):
        "One SELECT of the shop."

    schema = Ask.json_schema()
    assert schema["type"] == "string" and schema["maxLength"] == 4096
    assert "users(id, name, team)" in str(schema["description"]) and "email" not in str(schema)
    assert Ask.from_json("SELECT name FROM users WHERE id = 1").fetch_sync() == [{"name": "Ada"}]
    assert asyncio.run(Ask.from_json("SELECT name FROM users WHERE id = 1").fetch()) == [{"name": "Ada"}]
    with pytest.raises(ParameterError) as caught:
        Ask.from_json("SELECT email FROM users WHERE name = 'needle'")
    assert "SafeSQL.tables" in str(caught.value) and "needle" not in str(caught.value)


def test_an_unbound_query_is_checked_where_it_is_asked(shop: Path) -> None:
    db = SafeSQL(shop, tables=TABLES)
    assert SqlQuery.json_schema() == {"type": "string", "minLength": 1, "maxLength": 4096}
    assert db.sync.ask(SqlQuery.from_json("SELECT name FROM users WHERE id = 1")) == [{"name": "Ada"}]
    with pytest.raises(SqlRefused):
        db.sync.ask(SqlQuery.from_json("SELECT * FROM canary"))
    with pytest.raises(ConfigurationError, match="no database"):
        SqlQuery.from_json("SELECT 1").fetch_sync()


def test_a_query_of_one_database_is_checked_anew_for_another(shop: Path) -> None:
    class Ask(SqlQuery, db=SafeSQL(shop, tables=TABLES)):
        pass

    query = Ask.from_json("SELECT note FROM orders")
    with pytest.raises(SqlRefused):
        SafeSQL(shop, tables={"users": ["id"]}).sync.ask(query)


def test_a_table_without_columns_is_not_for_models(shop: Path) -> None:
    for tables in (["users"], {"users": None}, {"users": ["id"], "orders": None}):
        with pytest.raises(ConfigurationError, match="name the columns"):

            class Ask(SqlQuery, db=SafeSQL(shop, tables=tables)):
                pass


def test_only_dialects_that_were_tried_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="sqlite and postgres"):
        Checker({"t": ("a",)}, "mysql", (), max_rows=1, max_bytes=1)


def test_without_sqlglot_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sqlglot", None)
    with pytest.raises(ConfigurationError, match=r"garrison\[sql\]"):
        Checker({"t": ("a",)}, "sqlite", (), max_rows=1, max_bytes=1)
