"""Reads the definitions of a server's tools for signs of an attack: `scan`, `scan_text`.

Rules of this file:
- Every string is read, keys too: a model reads names, enumerations, defaults, patterns and examples like descriptions.
- A finding is advice. What protects is that nothing is shown to a model that nobody approved, and that an approval ends
  with any change. A definition without a finding is not safe.
- What says something only once it is decoded or its disguise is taken off counts more than the same said openly.
- Signs of two kinds that are each medium are high together (`_TOGETHER`).
- Bounded: so many characters are read, so many findings are given. What was not read is itself a finding.
- The text of a finding is the host's, with the suspect part in it short and visible.

Against: tool poisoning, full-schema poisoning, shadowing, line jumping. docs/scanner.md says how much it finds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple, cast

from ..gate.hygiene import visible
from .scanner_codes import decoded
from .scanner_marks import hidden_words, marks, unfolded
from .scanner_reader import NOBODY, Foreign, read
from .scanner_rules import LETTERS, Level, matches

__all__ = ["Finding", "Level", "scan", "scan_text"]

_CHARACTERS: Final = 131_072
"""Of one definition, what is decoded counted too."""
_FINDINGS: Final = 40
_DEPTH: Final = 3
"""How often something decoded is decoded again."""
_SHOWN: Final = 100
_POINTER: Final = 200
_SHORTEST_NAME: Final = 4

_RANK: Final[dict[Level, int]] = {"high": 0, "medium": 1, "low": 2}
_RAISED: Final[dict[Level, Level]] = {"low": "medium", "medium": "high", "high": "high"}
_TOGETHER: Final = frozenset(
    {
        "address",
        "comment",
        "consent",
        "conversation",
        "credentials",
        "exfiltration",
        "order",
        "override",
        "prose",
        "role",
        "secrecy",
        "shadowing",
        "shell",
    }
)

_OBJECTS: Final = frozenset({"credentials", "conversation", "secrecy"})
"""Rules whose low findings count beside a medium one of another rule."""
_EXACT: Final = frozenset({"name", "value", "pattern"})
_QUOTING: Final = re.compile(
    r"(?:such as|e\.g\.,?|for example,?|like|texts|phrases) [\"`\u201c][^\"`\u201d]{0,100}\Z", re.IGNORECASE
)

_NAMES: Final = frozenset({"required", "dependentRequired"})
_VALUES: Final = frozenset({"enum", "const", "default", "examples", "example"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


class Finding(NamedTuple):
    """A sign in a definition."""

    level: Level
    """`high`: a definition has no good reason for it. `medium`: few have. `low`: many have."""
    rule: str
    where: str
    """JSON pointer into the definition; `/instructions` is the server's own text."""
    text: str
    """What it is, with the suspect part, made visible and cut."""


def scan(
    definition: Mapping[str, object],
    *,
    alias: str = "",
    others: Mapping[str, Collection[str]] = {},
    instructions: str | None = None,
) -> tuple[Finding, ...]:
    """What is suspect in a definition of a tool, gravest first; at most 41 findings.

    Args:
        definition: all that the server says of the tool, as JSON.
        alias: the server's.
        others: alias of each other server to the names of its tools. Under this server's alias: its own tools, of
            which it may speak.
        instructions: the server's own text about its use; found under `/instructions`.
    """
    own = definition.get("name")
    state = _Scan(_foreign(others, alias, own if isinstance(own, str) else ""))
    for text, where, role in _strings(definition):
        state.read(text, where, role)
    if instructions:
        state.read(instructions, "/instructions", "instructions")
    return state.result()


def scan_text(
    text: str, where: str, *, alias: str = "", others: Mapping[str, Collection[str]] = {}
) -> tuple[Finding, ...]:
    """The same of a single text: a server's instructions, a prompt, an error.

    Args:
        text: what the server says.
        where: what findings say of its place.
        alias: the server's.
        others: alias of each other server to the names of its tools.
    """
    state = _Scan(_foreign(others, alias, ""))
    state.read(text, where, "instructions" if where == "/instructions" else "prose")
    return state.result()


class _Scan:
    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign
        self._left = _CHARACTERS
        self._findings: dict[tuple[str, str], Finding] = {}
        self._beyond = False

    def read(self, text: str, where: str, role: str) -> None:
        """Reads one string of the definition."""
        if self._left <= 0 or len(self._findings) > 4 * _FINDINGS:
            self._beyond = True
            return
        if len(text) > self._left:
            self._beyond = True
        for level, rule, words, part in self._signs(text, role, _DEPTH):
            self._add(Finding(level, rule, where[:_POINTER], f"{words}: {_excerpt(part)}"))

    def _add(self, finding: Finding) -> None:
        key = (finding.where, finding.rule)
        known = self._findings.get(key)
        if known is None or _RANK[finding.level] < _RANK[known.level]:
            self._findings[key] = finding

    def _signs(self, text: str, role: str, depth: int) -> Iterator[tuple[Level, str, str, str]]:
        """Level, rule, words and part of each sign."""
        text = text[: max(0, self._left)]
        self._left -= len(text)
        for mark in marks(text):
            softer = mark.rule == "address" and role == "instructions"
            yield "low" if softer else mark.level, mark.rule, mark.text, mark.part
        yield from _misplaced(text, role)
        plain = unfolded(text)
        open_signs: set[tuple[str, Level]] = set()
        if plain != text:
            for level, rule, words, part in self._sentences(text, role):
                open_signs.add((rule, level))
                yield level, rule, words, part
        for level, rule, words, part in self._sentences(plain, role):
            if plain == text:
                yield level, rule, words, part
            elif (rule, level) not in open_signs:
                yield _RAISED[level], rule, f"in disguise, {words}", part
        if depth == 0:
            return
        pieces = [("hidden characters", words) for words in hidden_words(text)]
        pieces += [(name, words) for name, _, words in decoded(plain)]
        for name, words in pieces:
            if self._left <= 0:
                break
            said = False
            for level, rule, what, part in self._signs(words, "decoded", depth - 1):
                if rule in _TOGETHER:
                    said = True
                    yield _RAISED[level], rule, f"in {name}, {what}", part
            if not said and words.count(" ") >= 2 and name not in ("rot13", "reversed text"):
                usual = name in ("base64", "percent signs")
                yield "low" if usual else "medium", "encoded", f"holds text in {name}", words

    def _sentences(self, text: str, role: str) -> Iterator[tuple[Level, str, str, str]]:
        reading = read(text, self._foreign)
        for row, start, end in matches(reading.shape):
            begin = reading.spans[start][0]
            part = text[begin : reading.spans[end - 1][1]]
            level = row.level
            if level == "low" and role in _EXACT and (row.rule == "credentials" or LETTERS["TALK"] in reading.shape):
                level = "medium"  # where a name or a value stands, nothing is explained
            if role == "instructions" and row.rule == "address":
                level = "low"  # whom else would they speak to?
            example = role in ("prose", "instructions") and _QUOTING.search(text, max(0, begin - 120), begin)
            if example:
                if level == "low":
                    continue
                level = "medium" if level == "high" else "low"
            yield level, row.rule, row.text, part

    def result(self) -> tuple[Finding, ...]:
        """The findings, gravest first."""
        found = sorted(self._findings.values(), key=lambda finding: _RANK[finding.level])
        together = _joined(found)
        if together is not None:
            found.insert(0, together)
        if self._beyond:
            text = f"is larger than {_CHARACTERS} characters, or has too many signs: the rest was not read"
            found.insert(0, Finding("high", "size", "", text))
        if len(found) <= _FINDINGS:
            return tuple(found)
        rest = found[_FINDINGS:]
        return (*found[:_FINDINGS], Finding(rest[0].level, "more", "", f"and {len(rest)} more"))


def _joined(found: list[Finding]) -> Finding | None:
    """A finding for signs of several kinds, none of which is high by itself."""
    if found and found[0].level == "high":
        return None
    medium = {finding.rule: finding for finding in found if finding.level == "medium" and finding.rule in _TOGETHER}
    low = {finding.rule for finding in found if finding.level == "low" and finding.rule in _OBJECTS}
    rules = sorted(low | medium.keys())
    if not medium or len(rules) < 2:
        return None
    first = next(iter(medium.values()))
    return Finding("high", "together", first.where, f"several signs together: {', '.join(rules)}")


def _strings(definition: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Each string, its pointer, and what it is: `prose`, `name`, `value`, `pattern`."""
    stack: list[tuple[object, str, str, bool]] = [(definition, "", "prose", False)]
    while stack:
        value, where, role, names = stack.pop()
        if isinstance(value, str):
            yield value, where, role
        elif isinstance(value, Mapping):
            members = cast("Mapping[object, object]", value)
            inner: list[tuple[object, str, str, bool]] = []
            for key, each in members.items():
                name = str(key)
                place = f"{where}/{name.replace('~', '~0').replace('/', '~1')}"[: 4 * _POINTER]
                if names or name not in _KEYWORDS:
                    yield name, place, "name"
                inner.append((each, place, role if names else _role(name, role), not names and name in _MAPS))
            stack.extend(reversed(inner))
        elif isinstance(value, list | tuple):
            items = cast("list[object]", value)
            stack.extend((items[i], f"{where}/{i}", role, False) for i in range(len(items) - 1, -1, -1))


_KEYWORDS: Final = frozenset(
    {
        *("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "_meta", "type"),
        *("properties", "required", "items", "enum", "default", "const", "pattern", "examples", "format", "minimum"),
        *("maximum", "additionalProperties", "$schema"),
    }
)
"""Keys that are not read where they mean what they say."""


def _role(name: str, role: str) -> str:
    if name in _VALUES:
        return "value"
    if name == "pattern":
        return "pattern"
    if name in _NAMES:
        return "name"
    return role if role == "value" else "prose"


def _misplaced(text: str, role: str) -> Iterator[tuple[Level, str, str, str]]:
    """Sentences where names and values are."""
    if len(text) < 16:
        return
    words = text.count(" ") + 1
    if role == "name":
        if words >= 5:
            yield "high", "prose", "is a sentence where a name should be", text
        elif words == 1 and (text.count("_") >= 5 or text.count("-") >= 5):
            yield "medium", "prose", "is a sentence where a name should be", text
    elif role == "value" and words >= 8:
        yield "low", "prose", "is a sentence where a value should be", text
    elif role == "pattern" and sum(word.isalpha() for word in text.split()) >= 4:
        yield "medium", "prose", "is a sentence where a pattern should be", text


def _foreign(others: Mapping[str, Collection[str]], alias: str, own: str) -> Foreign:
    if not others:
        return NOBODY
    tools = {name.lower(): {tool.lower() for tool in theirs} for name, theirs in others.items()}
    ours = tools.pop(alias.lower(), set[str]())
    theirs = {tool for names in tools.values() for tool in names if len(tool) >= _SHORTEST_NAME}
    own = own.lower()
    twin = own if own in theirs else ""
    names = theirs - ours - {own}
    return Foreign(names, {name for name in names if name.isalpha()}, twin, tools)


def _excerpt(part: str) -> str:
    part = " ".join(visible(part[: 4 * _SHOWN]).split())
    return (
        part if len(part) <= _SHOWN else f"{visible(part[:_SHOWN])}..."
    )  # what was cut off may be what showed a joiner
