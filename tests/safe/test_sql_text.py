"""The text of a statement: parameters are found where the database would find them, and nowhere else."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.safe.sql_errors import SqlRefused
from garrison.safe.sql_text import SqlTextError, parse, pieces, statement

DIALECTS = ("sqlite", "postgres", "mysql", "oracle")
READING = frozenset({"select"})


@pytest.mark.parametrize(
    ("dialect", "text", "names"),
    [
        ("postgres", "SELECT a::int, :b", {"b"}),
        ("postgres", "SELECT ':a', \":b\", 'it''s :c', :d", {"d"}),
        ("postgres", "SELECT e'\\':a', E'\\\\', :b", {"b"}),
        ("postgres", "SELECT e'x'\n'\\' :a', :b", {"b"}),
        ("postgres", "SELECT '\\', :a", {"a"}),
        ("postgres", "SELECT $$ :a $$, $x$ $$ :b $x$, :c", {"c"}),
        ("postgres", "SELECT a$b$c, :d", {"d"}),
        ("postgres", "SELECT 1 -- :a\n, :b /* :c /* :d */ :e */, :f", {"b", "f"}),
        ("postgres", "SELECT a[1:2], b ? 'x', '{}'::jsonb @> '{}', :a", {"a"}),
        ("postgres", "SELECT 😀e'\\', :a", {"a"}),
        ("sqlite", "SELECT [a :b], `c :d`, :e", {"e"}),
        ("sqlite", "SELECT 1 /* /* :a */, :b", {"b"}),
        ("mysql", "SELECT \"\\\":a\", '\\':b', :c # :d\n, :e, 1--:f", {"c", "e", "f"}),
        ("oracle", "SELECT '\\', :a", {"a"}),
    ],
)
def test_parameters_are_what_the_database_takes_for_such(dialect: str, text: str, names: set[str]) -> None:
    assert parse(text, dialect).names == names


def test_a_statement_in_every_style() -> None:
    said = parse("SELECT '50%', :a, :b, :a ;", "postgres")
    values = {"a": 1, "b": 2}
    assert said.render("named", values) == ("SELECT '50%', :a, :b, :a ", values)
    assert said.render("pyformat", values) == ("SELECT '50%%', %(a)s, %(b)s, %(a)s ", values)
    assert said.render("format", values) == ("SELECT '50%%', %s, %s, %s ", (1, 2, 1))
    assert said.render("qmark", values) == ("SELECT '50%', ?, ?, ? ", (1, 2, 1))
    assert said.render("numeric", values) == ("SELECT '50%', :1, :2, :1 ", (1, 2))
    assert said.render("dollar", values) == ("SELECT '50%', $1, $2, $1 ", (1, 2))
    assert parse("SELECT '50%'", "postgres").render("pyformat", {}) == ("SELECT '50%'", None)


def test_values_are_those_of_the_parameters() -> None:
    said = parse("SELECT :a", "sqlite")
    with pytest.raises(TypeError, match="no value for :a; no parameter :b"):
        said.render("named", {"b": "needle"})


@pytest.mark.parametrize(
    ("dialect", "text", "rule"),
    [
        *((dialect, "SELECT 1; SELECT 2", "more than one") for dialect in DIALECTS),
        *((dialect, "SELECT 1;;", "more than one") for dialect in DIALECTS),
        *((dialect, "SELECT 'x", "without its end") for dialect in DIALECTS),
        *((dialect, 'SELECT "x', "without its end") for dialect in DIALECTS),
        *((dialect, "SELECT /* x", "without its end") for dialect in DIALECTS),
        *((dialect, "SELECT '\0' -- \0", "NUL") for dialect in DIALECTS),
        ("sqlite", "SELECT ?", "placeholder"),
        ("sqlite", "SELECT ?1", "placeholder"),
        ("sqlite", "SELECT @a", "placeholder"),
        *(("sqlite", f"SELECT {odd}", "placeholder") for odd in (":é", ":aé", ":1", ":a(b)", ":a::b", ":a$", "1::int")),
        ("sqlite", "SELECT $a", "placeholder"),
        ("sqlite", "SELECT [x", "without its end"),
        ("postgres", "SELECT $1", "placeholder"),
        ("postgres", "SELECT $$ x", "without its end"),
        ("postgres", "SELECT $a$ x $b$", "without its end"),
        ("postgres", "SELECT e'\\'", "without its end"),
        ("postgres", "SELECT /* /* */", "without its end"),
        ("mysql", "SELECT '\\'", "without its end"),
        ("mysql", "SELECT ?", "placeholder"),
        ("postgres", "", "begin"),
        ("postgres", "-- nothing", "begin"),
        ("postgres", "(SELECT 1)", "begin"),
        ("postgres", "DELETE FROM t", "SELECT"),
        ("postgres", "DROP TABLE t", "SELECT"),
    ],
)
def test_other_texts_are_refused(dialect: str, text: str, rule: str) -> None:
    with pytest.raises(SqlRefused, match=rule):
        statement(text, dialect, READING, "SafeSQL.write")


NASTY = st.text(alphabet="'\"`$eE:;-/*\\[]#?%a1\n \0é", max_size=40)


@given(NASTY, st.sampled_from(DIALECTS))
def test_the_pieces_are_the_text(text: str, dialect: str) -> None:
    try:
        found = list(pieces(text, dialect))
    except SqlTextError as error:
        assert len(str(error)) < 90
    else:
        assert "".join(piece for _, piece in found) == text
        assert all(piece for _, piece in found)


@given(NASTY, st.sampled_from(DIALECTS))
def test_a_literal_hides_whatever_stands_in_it(text: str, dialect: str) -> None:
    text = text.replace("\0", "")
    if dialect == "mysql":
        text = text.replace("\\", "\\\\")
    said = parse("SELECT '" + text.replace("'", "''") + "', :value", dialect)
    assert said.names == {"value"}


@given(st.text(alphabet="'\"`:;-/*[]a1 \n", max_size=30))
def test_sqlite_finds_the_same_parameters(text: str) -> None:
    """What was found is bound by SQLite itself, and a text that it can compile is never one statement less."""
    try:
        said = parse(f"SELECT 1 {text}", "sqlite")
    except SqlTextError:
        return
    rendered = said.render("named", dict.fromkeys(said.names, 1))
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(rendered.text, rendered.values or {})
        except sqlite3.ProgrammingError as error:  # more statements, or other parameters, than were found
            raise AssertionError(text) from error
        except sqlite3.OperationalError:
            return  # no SQL, which is no matter of ours


@given(st.text(max_size=200), st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text()))
def test_a_value_comes_back_as_it_was_given(literal: str, values: dict[str, str]) -> None:
    text = "SELECT '" + literal.replace("'", "''").replace("\0", "") + "'" + "".join(f", :{name}" for name in values)
    rendered = parse(text, "sqlite").render("qmark", values)
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            row = connection.execute(rendered.text, rendered.values or ()).fetchone()
        except UnicodeEncodeError:
            return
    assert list(row) == [literal.replace("\0", ""), *values.values()]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "part", ["'", "''", '"', "$$", "$a$", "/*", "--", ":", ":a", "::", "e'", "[", "`", "\\", ";", " "]
)
def test_time_grows_with_the_length_and_no_faster(dialect: str, part: str) -> None:
    begun = time.process_time()
    for text in ("SELECT " + part * 20_000, "SELECT 'x" + part * 20_000):
        with suppress(SqlTextError):
            list(pieces(text, dialect))
    assert time.process_time() - begun < 2
