"""Queries that a model wrote: taken apart, held against a list of what there may be, and written anew.

Rules of this file:
- What is not listed is refused: kinds of nodes, types, functions, tables, columns. A parser's error is a refusal.
- The text that came is never run. What is run is written from the checked tree, with every name quoted and every column
  under the table that it was found in, and that text is looked at once more.
- Each column is looked up here, in the tables of its own SELECT and of those around it, whatever the parser made of it.
- A WITH stands at the beginning alone, and its names are visible to what follows them; so a name has one meaning.

sqlglot does the parsing; nothing of it is loaded before the first query is checked.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import lru_cache
from threading import get_ident
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigurationError
from .sql_names import FUNCTIONS, NODES, TYPES, WORDS
from .sql_text import SqlTextError, pieces

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from sqlglot import exp

__all__ = ["DIALECTS", "Checked", "Checker"]

DIALECTS: Final = ("sqlite", "postgres")
"""Whose queries are checked."""
_DEPTH: Final = 24
"""Parentheses inside each other."""
_PIECES: Final = 1500
"""Words, names, signs."""
_NAME: Final = 63
"""Bytes of a name; PostgreSQL forgets the rest of a longer one."""
_KINDS: Final = frozenset({"space", "comment", "word", "number", "cast", "string", "name", "end"})
_SIGNS: Final = frozenset("+-*/%<>=!|(),.~")
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_BEGINNING: Final = re.compile(r"(?:select|with)\b|\(", re.IGNORECASE)
_SIDES: Final = frozenset({"", "LEFT", "RIGHT", "FULL", "INNER", "OUTER", "CROSS"})
_TABLES: Final = 48
"""Tables, each counted as often as a WITH brings it: databases copy those."""
_WEIGHT: Final = 20_000
"""Nodes of all expressions, each counted as often as a query outside repeats it: databases copy those too."""
_OWN: Final = "garrison_"
"""What names of this file begin with."""
_SYSTEM: Final = "garrison_rows"

_UNKNOWN: Final = "names a column that is not declared"
_FORM: Final = "is not one SELECT that this checker understands"


@contextmanager
def _unheard() -> Generator[None]:
    """On this thread, sqlglot does not write to its logger what it cannot make out, in the words of the query."""
    from logging import LogRecord, getLogger

    thread = get_ident()

    def elsewhere(record: LogRecord) -> bool:
        return record.thread != thread

    log = getLogger("sqlglot")
    log.addFilter(elsewhere)
    try:
        yield
    finally:
        log.removeFilter(elsewhere)


class Checked(NamedTuple):
    """A query that may be run."""

    text: str
    names: frozenset[str]
    """What it calls the queries inside it. None of them is the name of a declared table."""


class Checker:
    """Checks queries against declared tables.

    Args:
        tables: `table` or `schema.table`, with their columns.
        dialect: one of `DIALECTS`.
        functions: functions that may be called beside those of every query.
        max_rows, max_bytes: rows of a result, and bytes of one row.
        max_chars: characters of a query.

    Raises:
        ConfigurationError: sqlglot is not installed, or the dialect is another one.
    """

    def __init__(
        self,
        tables: Mapping[str, tuple[str, ...]],
        dialect: str,
        functions: Iterable[str],
        *,
        max_rows: int,
        max_bytes: int,
        max_chars: int = 4096,
    ) -> None:
        if dialect not in DIALECTS:
            raise ConfigurationError(f"SafeSQL: a model's queries are checked for {' and '.join(DIALECTS)} alone")
        try:
            import sqlglot  # noqa: F401  # pyright: ignore[reportUnusedImport] - whether it is there
        except ImportError as exc:
            raise ConfigurationError("SafeSQL: a model's queries need sqlglot: pip install garrison[sql]") from exc
        self._dialect = dialect
        self.functions = FUNCTIONS[dialect] | {name.lower() for name in functions}
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.max_chars = max_chars
        self._names = list(tables)
        self._columns = [tuple(map(self._folded, tables[name])) for name in self._names]
        self._tables = {tuple(map(self._folded, name.split("."))): i for i, name in enumerate(self._names)}
        self._reserved = {parts[-1].lower() for parts in self._tables}
        _kinds(dialect, self.functions)

    def check(self, text: str) -> Checked:
        """The query to run in place of this one.

        Raises:
            SqlTextError: it is not allowed; the message is the rule.
        """
        from sqlglot import exp

        tree = self._tree(self._plain(text))
        names = frozenset(node.alias for node in tree.find_all(exp.CTE, exp.Subquery) if node.alias)
        return Checked(self._written(tree), names - self._reserved)

    def _folded(self, name: str) -> str:
        """A declared name as it stands in a tree: SQLite knows no case."""
        return name.lower() if self._dialect == "sqlite" else name

    # The text

    def _plain(self, text: str) -> str:
        """The text without comments, when all of its pieces are plain."""
        if len(text) > self.max_chars:
            raise SqlTextError(f"is longer than {self.max_chars} characters")
        if _UNSEEN.search(text):
            raise SqlTextError("has control characters")
        out: list[str] = []
        depth = count = 0
        before = ""
        for kind, piece in pieces(text, self._dialect):
            count += 1
            if kind == "end" or before == "end":
                if kind not in ("end", "space", "comment"):
                    raise SqlTextError("is more than one statement")
                before = "end"
                continue
            if kind not in _KINDS and not (kind == "other" and piece in _SIGNS):
                raise SqlTextError("has a sign, a string or a name of a form that is not allowed")
            if kind == "string" and before in ("word", "number"):  # E'', X'', N''
                raise SqlTextError("has a string with a prefix")
            depth += (piece == "(") - (piece == ")")
            if count > _PIECES or depth > _DEPTH:
                raise SqlTextError("is too long or too deep")
            out.append(" " if kind in ("space", "comment") else piece)
            before = kind if kind != "other" else piece
        plain = "".join(out).strip()
        if not _BEGINNING.match(plain):
            raise SqlTextError("is not a SELECT")
        return plain

    # The tree

    def _tree(self, text: str) -> exp.Query:
        """The checked and qualified tree of a text."""
        from sqlglot import exp, parse
        from sqlglot.errors import OptimizeError
        from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

        try:
            with _unheard():
                found = [each for each in parse(text, dialect=self._dialect) if each is not None]
                tree = found[0]
                if len(found) != 1 or not isinstance(tree, exp.Select | exp.SetOperation):
                    raise SqlTextError("is not one SELECT")
                normalize_identifiers(tree, dialect=self._dialect)
                self._nodes(tree)
                self._from(tree)
                tree = self._qualified(tree)
                self._nodes(tree)
                self._lookup(tree)
                self._limit(tree)
        except SqlTextError:
            raise
        except RecursionError:
            raise SqlTextError("is too deep") from None
        except OptimizeError as exc:
            raise SqlTextError("names a column that is not declared, or that two tables have") from exc
        except Exception as exc:  # whatever a parser of others raises, the query was not understood
            raise SqlTextError(_FORM) from exc
        return tree

    def _nodes(self, tree: exp.Expr) -> None:
        """Every node is of a listed kind."""
        from sqlglot import exp

        kinds = _kinds(self._dialect, self.functions)
        for node in tree.walk():
            kind = type(node)
            if isinstance(node, exp.Anonymous):
                name = node.this
                if not isinstance(name, str) or name.lower() not in self.functions:
                    raise SqlTextError("calls a function that is not listed")
            elif kind not in kinds:
                rule = "calls a function that is not listed" if isinstance(node, exp.Func) else _FORM
                raise SqlTextError(f"{rule}: {kind.__name__}")
            rule = _RULES.get(kind.__name__)
            if rule is not None:
                rule(node)

    def _from(self, tree: exp.Expr) -> None:
        """Every table is declared, or a WITH before it. Declared ones get a name of ours until the tree is checked."""
        from sqlglot import exp

        ctes = self._ctes(tree)
        brought = [0] * (len(ctes) + 1)
        for table in sorted(tree.find_all(exp.Table), key=lambda table: _place(table, ctes)):
            place = _place(table, ctes)
            if not all(isinstance(part, exp.Identifier) for part in table.parts):
                raise SqlTextError("selects from something else than a table")
            parts = tuple(part.name for part in table.parts)
            before = len(parts) == 1 and ctes.get(parts[0], place) < place
            brought[place] += brought[ctes[parts[0]]] if before else 1
            if brought[place] > _TABLES:
                raise SqlTextError("has too many tables")
            if before:
                continue
            number = self._tables.get(parts)
            if number is None:
                raise SqlTextError("names a table that is not declared")
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(parts[-1], quoted=True)))
            for name in ("db", "catalog"):
                table.set(name, None)
            table.set("this", exp.to_identifier(f"{_OWN}{number}", quoted=True))

    def _ctes(self, tree: exp.Expr) -> dict[str, int]:
        """The names of the WITH at the beginning, each with its place."""
        from sqlglot import exp

        found: dict[str, int] = {}
        for node in tree.find_all(exp.With):
            if node.parent is not tree or node.args.get("recursive"):
                raise SqlTextError("has a WITH that is recursive or not at the beginning")
            for cte in node.expressions:
                name = cte.alias
                if not name or name in found or name.lower() in self._reserved or name.lower().startswith(_OWN):
                    raise SqlTextError("has a WITH under the name of a table or of another one")
                found[name] = len(found)
        return found

    def _qualified(self, tree: exp.Expr) -> exp.Query:
        from sqlglot import exp
        from sqlglot.optimizer.qualify import qualify
        from sqlglot.schema import MappingSchema

        known: dict[str, object] = {
            f"{_OWN}{i}": dict.fromkeys(columns, "unknown") for i, columns in enumerate(self._columns)
        }
        schema = MappingSchema(known, dialect=self._dialect, normalize=False)
        done = qualify(tree, dialect=self._dialect, schema=schema)
        if not isinstance(done, exp.Select | exp.SetOperation):
            raise SqlTextError(_FORM)
        return done

    def _lookup(self, tree: exp.Query) -> None:
        """Every column belongs to a declared table, or to what a query inside this one gives."""
        from sqlglot import exp

        if any(join.args.get("using") for join in tree.find_all(exp.Join)):  # they were written out as conditions
            raise SqlTextError("has a JOIN of a kind that is not allowed")
        if any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star)):  # so were those
            raise SqlTextError(_UNKNOWN)
        ctes: dict[str, exp.Expr] = {
            cte.alias: cte.this for node in tree.find_all(exp.With) for cte in node.expressions
        }
        weights: dict[tuple[int, int], int] = {}

        def weight(column: exp.Column) -> int:
            """How large the expression is that stands behind a column."""
            if column.args.get("db") or column.args.get("catalog") or isinstance(column.this, exp.Star):
                raise SqlTextError(_UNKNOWN)
            if not column.table:
                self._output(column)
                return 1
            source = _source(column)
            if isinstance(source, exp.Table) and source.name.startswith(_OWN):
                if column.name not in self._columns[int(source.name.removeprefix(_OWN))]:
                    raise SqlTextError(_UNKNOWN)
                return 1
            query = _query(ctes[source.name] if isinstance(source, exp.Table) else source)
            if column.name not in query.named_selects:
                raise SqlTextError(_UNKNOWN)
            return output(query, query.named_selects.index(column.name))

        def output(query: exp.Query, number: int) -> int:
            """How large an output of a query is."""
            if isinstance(query, exp.SetOperation):
                return output(_query(query.this), number) + output(_query(query.expression), number)
            key = id(query), number
            if key not in weights:
                nodes = list(query.selects[number].walk()) if number < len(query.selects) else []
                weights[key] = sum(weight(node) if isinstance(node, exp.Column) else 1 for node in nodes)
            return weights[key]

        if sum(weight(column) for column in tree.find_all(exp.Column)) > _WEIGHT:
            raise SqlTextError("repeats its parts too often")

    @staticmethod
    def _output(column: exp.Column) -> None:
        """A column without its table is the name of an output, by itself in an ORDER BY or DISTINCT ON."""
        from sqlglot import exp

        holder = column.parent.parent if isinstance(column.parent, exp.Ordered | exp.Tuple) else None
        kind = exp.Order if isinstance(column.parent, exp.Ordered) else exp.Distinct
        query = holder.parent if isinstance(holder, kind) else None
        if not isinstance(query, exp.Query) or column.name not in query.named_selects:
            raise SqlTextError(_UNKNOWN)

    def _limit(self, tree: exp.Query) -> None:
        """At most one row more than is kept."""
        from sqlglot import exp

        most = self._max_rows + 1
        limit = tree.args.get("limit")
        said = int(limit.expression.this) if limit is not None else most
        tree.set("limit", exp.Limit(expression=exp.Literal.number(min(said, most))))

    # The text that is run

    def _written(self, tree: exp.Query) -> str:
        from sqlglot import ErrorLevel, exp

        for table in tree.find_all(exp.Table):
            if table.name.startswith(_OWN):
                parts = self._names[int(table.name.removeprefix(_OWN))].split(".")
                for key, part in zip(("this", "db", "catalog"), reversed(parts), strict=False):
                    table.set(key, exp.to_identifier(part, quoted=True))
        try:
            text = tree.sql(dialect=self._dialect, identify=True, comments=False, unsupported_level=ErrorLevel.RAISE)
        except RecursionError:
            raise SqlTextError("is too deep") from None
        except Exception as exc:  # as above
            raise SqlTextError(_FORM) from exc
        self._last_look(text)
        return self._bounded(text) if self._dialect == "postgres" else text

    def _last_look(self, text: str) -> None:
        """Whatever wrote it: one statement of plain pieces, in which only listed functions are called."""
        word = before = ""
        for kind, piece in pieces(text, self._dialect):
            if kind == "space":
                continue
            plain = kind in _KINDS - {"comment", "end"} or (kind == "other" and piece in _SIGNS)
            called = piece == "(" and before == "word" and word not in self.functions and word not in WORDS
            if not plain or called or (kind == "string" and before == "word" and word not in WORDS):
                raise SqlTextError("calls a function that is not listed" if called else _FORM)
            before, word = kind, piece.lower() if kind == "word" else ""

    def _bounded(self, text: str) -> str:
        """A row larger than `max_bytes` ends the query at the server: a value can have a gigabyte there."""
        size = f'octet_length(CAST("{_SYSTEM}".* AS text))'
        wrong = f"CAST(CAST({size} AS text) || ' bytes' AS boolean)"
        within = f"CASE WHEN {size} <= {self._max_bytes} THEN TRUE ELSE {wrong} END"
        return f'SELECT * FROM ({text}) AS "{_SYSTEM}" WHERE {within}'  # noqa: S608 - the checked text


def _place(table: exp.Expr, ctes: Mapping[str, int]) -> int:
    """The number of the WITH that a table stands in; one more than the last outside of them."""
    from sqlglot import exp

    holder = table.find_ancestor(exp.CTE)
    return len(ctes) if holder is None else ctes[holder.alias]


def _query(node: exp.Expr) -> exp.Query:
    """A query without the parentheses around it."""
    from sqlglot import exp

    while isinstance(node, exp.Subquery):
        node = node.this
    if not isinstance(node, exp.Select | exp.SetOperation):
        raise SqlTextError(_FORM)
    return node


def _source(column: exp.Column) -> exp.Expr:
    """What a column is taken from: of the SELECTs that it stands in, the nearest that has such a table."""
    from sqlglot import exp

    select = column.find_ancestor(exp.Select)
    while select is not None:
        source = _sources(select).get(column.table)
        if source is not None:
            return source
        select = select.find_ancestor(exp.Select)
    raise SqlTextError(_UNKNOWN)


def _sources(select: exp.Select) -> dict[str, exp.Expr]:
    """What a SELECT selects from, by name."""
    first = select.args.get("from_") or select.args.get("from")
    found: dict[str, exp.Expr] = {}
    for holder in (first, *(select.args.get("joins") or ())):
        if holder is None:
            continue
        name = holder.this.alias_or_name
        if not name or name in found:
            raise SqlTextError("has two tables of one name, or one without")
        found[name] = holder.this
    return found


@lru_cache(maxsize=32)
def _kinds(dialect: str, functions: frozenset[str]) -> frozenset[type]:
    """The kinds of nodes that there may be: those listed, and what the parser makes of each listed function."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    kinds = {getattr(exp, name) for name in NODES if hasattr(exp, name)}
    for function in functions:
        for arguments in ("", "a", "a, b", "a, b, c"):
            try:
                made = parse_one(f"SELECT {function}({arguments})", dialect=dialect)
            except (SqlglotError, ValueError, AttributeError, IndexError, TypeError):
                continue  # it is not called with so many
            kinds |= {type(node) for node in made.walk() if isinstance(node, exp.Func)}
    return frozenset(kinds - {exp.Anonymous, exp.AnonymousAggFunc, exp.Command})


# What is held of a kind beyond its being listed


def _identifier(node: exp.Expr) -> None:
    if len(node.name.encode()) > _NAME:
        raise SqlTextError(f"has a name longer than {_NAME} bytes")


def _literal(node: exp.Expr) -> None:
    if not node.is_string and not _NUMBER.fullmatch(node.name):
        raise SqlTextError(_FORM)


def _var(node: exp.Expr) -> None:
    if not node.name.replace(" ", "").isidentifier() or not node.name.isascii():
        raise SqlTextError(_FORM)


def _type(node: exp.Expr) -> None:
    said = node.args.get("this")
    if getattr(said, "name", "") not in TYPES or node.args.get("kind"):
        raise SqlTextError("names a type that is not listed")


def _table(node: exp.Expr) -> None:
    if any(
        value not in (None, []) for name, value in node.args.items() if name not in ("this", "db", "catalog", "alias")
    ):
        raise SqlTextError("selects from a table in a way that is not allowed")


def _from(node: exp.Expr) -> None:
    if type(node.this).__name__ not in ("Table", "Subquery"):
        raise SqlTextError("selects from something else than a table")


def _join(node: exp.Expr) -> None:
    _from(node)
    if node.args.get("method") or not {node.text("side").upper(), node.text("kind").upper()} <= _SIDES:
        raise SqlTextError("has a JOIN of a kind that is not allowed")


def _alias(node: exp.Expr) -> None:
    if node.args.get("columns"):
        raise SqlTextError("gives the columns of a table other names")


def _star(node: exp.Expr) -> None:
    if any(node.args.values()):
        raise SqlTextError(_FORM)


def _rows(node: exp.Expr) -> None:
    number = node.args.get("expression")
    plain = getattr(number, "is_int", False) is True and number is not None and 0 < len(number.name) < 10
    if not plain or node.args.get("expressions"):
        raise SqlTextError("has a LIMIT or OFFSET that is no plain number")


def _select(node: exp.Expr) -> None:
    for name in ("hint", "kind", "into", "locks", "operation_modifiers", "options"):
        if node.args.get(name):
            raise SqlTextError(_FORM)
    outputs = node.args.get("expressions")
    if not outputs:
        raise SqlTextError("selects nothing")
    stars = [output.sql() for output in outputs if output.is_star]
    if len(stars) != len(set(stars)) or ("*" in stars and len(stars) > 1):  # each would double the columns
        raise SqlTextError("has a star twice")


_RULES: Final = {
    "Identifier": _identifier,
    "Literal": _literal,
    "Var": _var,
    "DataType": _type,
    "From": _from,
    "Table": _table,
    "Join": _join,
    "TableAlias": _alias,
    "Star": _star,
    "Limit": _rows,
    "Offset": _rows,
    "Select": _select,
}
