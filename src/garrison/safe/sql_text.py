"""The text of a statement: one statement, its first word, and its `:name` parameters in the driver's own style.

Rules of this file:
- Text is read as the database reads it, by the dialect's rules for strings, names and comments. What stands in those
  is no parameter, no semicolon and no word.
- One statement. A second one is refused before any driver sees it; a semicolon may end the first.
- Values have names. The positional placeholders of drivers are refused, so that nothing is bound by accident.
- Whatever is left open at the end is refused.

PostgreSQL 4.1 "Lexical Structure"; SQLite "SQL As Understood By SQLite"; PEP 249 `paramstyle`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigurationError
from .sql_errors import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["STYLES", "Piece", "Rendered", "SqlTextError", "Statement", "parse", "pieces", "statement"]

STYLES: Final = ("named", "pyformat", "format", "qmark", "numeric", "dollar")
"""The styles of PEP 249, and `dollar` (`$1`) of asyncpg."""

# Every character beyond ASCII may stand in a name, as in the lexers of SQLite, PostgreSQL and MySQL.
_FIRST: Final = r"[A-Za-z_\x80-\U0010ffff]"
_NEXT: Final = r"[A-Za-z0-9_$\x80-\U0010ffff]"
_COMMON: Final = rf"""
  (?P<space>   [\x09-\x0d\ ]+)
| (?P<comment> --[^\n\r]*)
| (?P<open>    /\*)
| (?P<word>    {_FIRST}{_NEXT}*)
| (?P<number>  [0-9][0-9A-Za-z_]*)
| (?P<end>     ;)
"""
_PARAMS: Final = r"| (?P<cast> ::) | (?P<param> :[A-Za-z_][A-Za-z0-9_]*)"
_PARAMS_SQLITE: Final = r"| (?P<param> :[A-Za-z_][A-Za-z0-9_]*+(?![$(\x80-\U0010ffff]|::)) | (?P<place> [:?@$\#])"
"""There `:a(b)` and `:a::b` are one placeholder each, and a colon is nothing else."""
_PLAIN: Final = r"'(?:[^']|'')*+'"
_ESCAPES: Final = r"'(?:[^'\\]|\\.|'')*+'"
_QUOTED: Final = rf"| (?P<string> {_PLAIN}) | (?P<name> \"(?:[^\"]|\"\")*+\")"
_REST: Final = r"| (?P<bad> ['\"`]) | (?P<other> .)"
_TICKS: Final = r"| (?P<ticks> `(?:[^`]|``)*+`)"
_CONTINUED: Final = r"[\ \t\f\v]*+[\r\n][\ \t\f\v\r\n]*+"
"""What may stand between the parts of one PostgreSQL string."""

_POSTGRES: Final = rf"""
  (?P<escaped> [eE]{_ESCAPES}(?:{_CONTINUED}{_ESCAPES})*+)
| (?P<lone>    [eE]')
| (?P<dollars> \$(?P<tag>(?:{_FIRST}[A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
| (?P<place>   \$[0-9]+)
| (?P<dollar>  \$)
|
"""

# A dialect puts what only it has before the common part where both could begin alike.
_DIALECTS: Final[dict[str, str]] = {
    "sqlite": _COMMON + _PARAMS_SQLITE + _QUOTED + _TICKS + r"| (?P<brackets> \[[^\]]*+\]) | (?P<lone> \[)" + _REST,
    "postgres": _POSTGRES + _COMMON + _PARAMS + _QUOTED + _REST,
    "mysql": r"(?P<hashed> \#[^\n\r]*) | (?P<dashes> --(?![\x00-\x20]|\Z)) |"
    + _COMMON
    + _PARAMS
    + rf"| (?P<string> {_ESCAPES} | \"(?:[^\"\\]|\\.|\"\")*+\")"
    + _TICKS
    + r"| (?P<place> \?)"
    + _REST,
}
_OTHERS: Final = _COMMON + _PARAMS + _QUOTED + r"| (?P<place> \?)" + _REST
_IGNORED: Final = frozenset({"space", "comment", "hashed"})
_FAULTS: Final = {
    "place": "has a placeholder that is not of the form :name",
    "bad": "has a string, a name or a comment without its end",
    "lone": "has a string, a name or a comment without its end",
    "dollar": "has a string, a name or a comment without its end",
}
_NESTED: Final = frozenset({"postgres"})
"""Dialects whose comments may hold comments."""


class Piece(NamedTuple):
    """A part of the text: a kind of the patterns above, and the characters."""

    kind: str
    text: str


class Rendered(NamedTuple):
    """A statement in a driver's style."""

    text: str
    values: dict[str, object] | tuple[object, ...] | None
    """What goes with it; None where there are no parameters, for which drivers leave `%` alone."""


class SqlTextError(ValueError):
    """The text breaks a rule, which the message is: the end of a sentence that begins with "The query"."""


class Statement(NamedTuple):
    """One statement, taken apart."""

    parts: tuple[str, ...]
    """Text and names of parameters in turn, beginning and ending with text."""
    verb: str
    """Its first word in lower case; empty where it begins otherwise."""

    @property
    def names(self) -> frozenset[str]:
        """The names of its parameters."""
        return frozenset(self.parts[1::2])

    def render(self, style: str, values: Mapping[str, object]) -> Rendered:
        """The text with placeholders of this style, and the values as it wants them.

        Args:
            style: one of `STYLES`.
            values: one for each parameter, and no other.

        Raises:
            TypeError: values and parameters are not the same.
        """
        wanted = self.names
        if set(wanted) != set(values):
            missing, extra = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
            said = [f"no value for :{name}" for name in missing] + [f"no parameter :{name}" for name in extra]
            raise TypeError("; ".join(said))
        if not wanted:
            return Rendered("".join(self.parts), None)
        order: list[str] = []
        out: list[str] = []
        percent = style in ("pyformat", "format")
        for number, part in enumerate(self.parts):
            if not number % 2:
                out.append(part.replace("%", "%%") if percent else part)
                continue
            if style in ("format", "qmark") or part not in order:
                order.append(part)
            out.append(_PLACEHOLDERS[style].format(part, order.index(part) + 1))
        if style in ("named", "pyformat"):
            return Rendered("".join(out), dict(values))
        return Rendered("".join(out), tuple(values[name] for name in order))


_PLACEHOLDERS: Final = {
    "named": ":{0}",
    "pyformat": "%({0})s",
    "format": "%s",
    "qmark": "?",
    "numeric": ":{1}",
    "dollar": "${1}",
}


@lru_cache(maxsize=32)
def _pattern(dialect: str) -> re.Pattern[str]:
    return re.compile(_DIALECTS.get(dialect, _OTHERS), re.VERBOSE | re.DOTALL)


def pieces(text: str, dialect: str) -> Iterator[Piece]:
    """The text in pieces that together are the text.

    Raises:
        SqlTextError: a string, name or comment does not end, or there is a NUL or a placeholder of another style.
    """
    if "\0" in text:  # where C ends a text
        raise SqlTextError("has a NUL")
    scan = _pattern(dialect).match
    at = 0
    while at < len(text):
        match = scan(text, at)
        if match is None or match.lastgroup is None:  # `other` takes every character
            raise SqlTextError(_FAULTS["bad"])
        kind, end = match.lastgroup, match.end()
        if kind == "open":
            kind, end = "comment", _comment(text, at, nested=dialect in _NESTED)
        if kind in _FAULTS:
            raise SqlTextError(_FAULTS[kind])
        yield Piece(kind, text[at:end])
        at = end


def _comment(text: str, begin: int, *, nested: bool) -> int:
    """Where the comment that begins here has its end."""
    depth, at = 1, begin + 2
    while depth:
        close = text.find("*/", at)
        if close < 0:
            raise SqlTextError(_FAULTS["bad"])
        inner = text.find("/*", at, close) if nested else -1
        depth, at = (depth + 1, inner + 2) if inner >= 0 else (depth - 1, close + 2)
    return at


@lru_cache(maxsize=512)
def parse(text: str, dialect: str) -> Statement:
    """Take a text apart.

    Raises:
        SqlTextError: it is not one whole statement with named parameters.
    """
    parts = [""]
    verb: str | None = None
    ended = False
    for kind, piece in pieces(text, dialect):
        if kind not in _IGNORED:
            if ended:
                raise SqlTextError("is more than one statement")
            ended = kind == "end"
            if verb is None:
                verb = piece.lower() if kind == "word" else ""
        if kind == "param":
            parts += [piece[1:], ""]
        elif kind != "end":
            parts[-1] += piece
    if not verb:
        raise SqlTextError("does not begin with a word")
    return Statement(tuple(parts), verb)


def statement(text: str, dialect: str, verbs: frozenset[str], setting: str) -> Statement:
    """The one statement of a text that a program wrote.

    Args:
        text: the text.
        dialect: whose rules it is read by.
        verbs: the first words that it may have.
        setting: what would allow others, for the log.

    Raises:
        SqlRefused: it breaks a rule of this file, or begins with another word.
    """
    if type(text) is not str:
        raise ConfigurationError("SafeSQL: the statement is a str")
    try:
        found = parse(text, dialect)
    except SqlTextError as exc:
        raise refused(str(exc)) from None
    if found.verb not in verbs:
        raise refused(f"begins with another word than {', '.join(sorted(verbs)).upper()}", setting)
    return found
