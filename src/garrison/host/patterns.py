"""Which arguments a rule or a grant is about: values, and texts in which `*` and `**` stand for others.

    pattern = ArgumentPattern({"path": "/data/**", "depth": 1})
    pattern.surely({"path": "/data/a.txt", "depth": 1})            # True
    pattern.surely({"path": "/data/../etc/passwd", "depth": 1})    # False: read in a roundabout way, it is another path

Rules of this file:
- What allows needs a match that is sure (`surely`): all arguments named, and texts that can be read in one way only.
- What refuses or asks is content with a match that is possible (`perhaps`): spellings, case, encodings and further
  arguments change nothing.
- Time grows with the length of a text and no faster, whatever the pattern: who wrote the text knows the pattern.
- Nothing is looked up: links and mounts are the server's, and are not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from posixpath import normpath
from typing import Final, cast, final
from unicodedata import normalize
from urllib.parse import unquote

from ..errors import ConfigurationError
from ..gate.hygiene import stripped
from ..protocol.json import encode

__all__ = ["ArgumentPattern", "NamePattern"]

_MOST: Final = 64 * 1024
"""Characters of a text that is compared with a pattern; a longer one matches no more than it must."""
_PARTS: Final = re.compile(r"\*+|[^*]")
_ESCAPE: Final = re.compile(r"%u?[0-9A-Fa-f]{2}")
_AUTHORITY: Final = re.compile(r"[^*/]*://(?:\*|\*\*|(?:\*\.)?[^*/]+)(?:/.*)?", re.DOTALL)
_HOST: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?", re.ASCII)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_DECODINGS: Final = 3
_BITS: Final = 1024


@final
class ArgumentPattern:
    """The arguments of some calls.

    Args:
        arguments: for each argument its value, or a text with `*` (any characters but `/` and `\\`) or `**` (any).
            Texts inside lists and objects are values.
        where: what an error calls it.

    Raises:
        ConfigurationError: a name is no text, a value is no JSON, or a URL is open where its host ends.
    """

    __slots__ = ("_fields",)

    def __init__(self, arguments: Mapping[str, object], where: str = "arguments") -> None:
        self._fields: dict[str, _Text | _Value] = {}
        for name, value in arguments.items():
            if type(name) is not str:
                raise ConfigurationError(f"{where}: names of arguments are texts")
            if not _is_json(value):
                raise ConfigurationError(f"{where}.{name}: is no JSON, and would match nothing")
            self._fields[name] = _Text(value, f"{where}.{name}") if isinstance(value, str) else _Value(value)

    def surely(self, arguments: Mapping[str, object]) -> bool:
        """Whether these are the arguments, each of them and no other, and nothing about them is roundabout."""
        return arguments.keys() == self._fields.keys() and all(
            field.surely(arguments[name]) for name, field in self._fields.items()
        )

    def perhaps(self, arguments: Mapping[str, object]) -> bool:
        """Whether they could be understood as these; further arguments make no difference."""
        return all(name in arguments and field.perhaps(arguments[name]) for name, field in self._fields.items())


@final
class NamePattern:
    """A name in which `*` stands for any characters.

    Raises:
        ConfigurationError: it is empty, or no text.
    """

    __slots__ = ("_exact", "_loose")

    def __init__(self, text: str, where: str) -> None:
        if type(text) is not str or not text.strip() or not text.isprintable():
            raise ConfigurationError(f"{where} must be a name, in which * stands for any characters")
        self._exact = _Machine(_parts(text))
        self._loose = _Machine(["**" if part.startswith("*") else part for part in _parts(_folded(text))])

    def surely(self, name: str) -> bool:
        """Whether it is one of these. `*` does not stand for `/`, which `resources/read` has and no tool's name."""
        return len(name) <= _MOST and self._exact.matches(name)

    def perhaps(self, name: str) -> bool:
        """The same without regard to case and to what is not seen, and with `/` among what `*` stands for."""
        return len(name) > _MOST or self._exact.matches(name) or any(map(self._loose.matches, _foldings(name)))


class _Value:
    """One JSON value that is no text."""

    def __init__(self, value: object) -> None:
        self._value = value
        scalar = not isinstance(value, (list, dict, tuple))
        self._text = _Text(encode(value).decode(), "") if scalar else None

    def surely(self, value: object) -> bool:
        return _same(self._value, value)

    def perhaps(self, value: object) -> bool:
        return _same(self._value, value) or (self._text is not None and self._text.perhaps(value))


class _Text:
    """One text, with or without wildcards."""

    def __init__(self, text: str, where: str) -> None:
        if "://" in text and "*" in text and _AUTHORITY.fullmatch(text) is None:
            raise ConfigurationError(
                f"{where}: {text!r} is open where its host ends; write https://example.com/** or https://*.example.com/**"
            )
        parts = _parts(text)
        wild = {part for part in parts if part.startswith("*")}
        self._exact = None if wild else text
        self._anything = text == "**"
        self._path = "/" in text
        self._careful = self._path or "*" in wild
        self._url = "://" in text
        self._machine = _Machine(parts)
        self._loose = _Machine(_parts(_folded(text)))

    def surely(self, value: object) -> bool:
        if type(value) is not str:
            return False
        if self._exact is not None:
            return value == self._exact
        if self._anything:
            return True
        if len(value) > _MOST or (not _is_plain(value, self._url) if self._careful else _climbs(value)):
            return False
        if self._url and _HOST.fullmatch(value.partition("://")[2].partition("/")[0]) is None:
            return False
        return self._machine.matches(value)

    def perhaps(self, value: object) -> bool:
        return any(self._perhaps(text) for text in _texts(value))

    def _perhaps(self, text: str) -> bool:
        if len(text) > _MOST or self._anything:
            return True
        return self._machine.matches(text) or any(
            self._loose.matches(reading) or (self._path and reading.startswith("..")) for reading in _readings(text)
        )


class _Machine:
    """A pattern as a set of places in it, each a bit: all are followed at once.

    Args:
        parts: single characters, `*` and `**`; no two wildcards side by side.
    """

    __slots__ = ("_bits", "_end", "_loops", "_wide")

    def __init__(self, parts: list[str]) -> None:
        self._bits: dict[str, int] = {}
        self._loops = self._wide = 0
        for place, part in enumerate(parts):
            if part in ("*", "**"):
                self._loops |= 1 << place
                self._wide |= (part == "**") << place
            else:
                self._bits[part] = self._bits.get(part, 0) | 1 << place
        self._end = 1 << len(parts)

    def matches(self, text: str) -> bool:
        bits, loops, wide = self._bits, self._loops, self._wide
        places = 1 | (1 & loops) << 1
        for character in text:
            stay = places & (wide if character in "/\\" else loops)
            places = stay | (places & bits.get(character, 0)) << 1
            places |= (places & loops) << 1  # a wildcard stands for nothing too
            if not places:
                return False
        return bool(places & self._end)


def _parts(text: str) -> list[str]:
    return ["**" if len(part) > 1 else part for part in _PARTS.findall(text)]


def _is_json(value: object) -> bool:
    """Whether an argument can be this value: no day, no NaN, no integer beyond what a double can be near."""
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return all(type(name) is str and _is_json(each) for name, each in members.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, cast("list[object]", value)))
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, int):
        return value.bit_length() <= _BITS
    return value is None or isinstance(value, str)


def _same(one: object, other: object) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        ours, theirs = cast("list[object]", one), cast("list[object]", other)
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return left.keys() == right.keys() and all(_same(value, right[name]) for name, value in left.items())
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value; what is no text as it would be written."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += cast("dict[object, object]", item).keys()
            pending += cast("dict[object, object]", item).values()
        elif isinstance(item, (list, tuple)):
            pending += cast("list[object]", item)
        else:
            yield encode(item).decode()


def _is_plain(text: str, url: bool) -> bool:
    """Whether a path or address says what it seems to say, to whoever reads it."""
    normal = normalize("NFKC", text)  # as some file systems and servers would read it
    if not text.isprintable() or "\\" in normal or normal.count("/") != text.count("/"):
        return False
    if _ESCAPE.search(normal) is not None:
        return False
    return "//" not in (text.partition("://")[2] if url else text) and not _climbs(normal)


def _climbs(text: str) -> bool:
    """Whether a part between slashes, in any spelling, is `.` or `..`, or would be on some system."""
    for reading in {text, normalize("NFKC", unquote(text))}:
        for part in reading.replace("\\", "/").split("/"):
            name = part.partition(";")[0]
            if name and not name.strip(". "):
                return True
    return False


def _folded(text: str) -> str:
    return normalize("NFKC", stripped(text)).casefold()


def _foldings(text: str) -> set[str]:
    """The text folded: with sequences of terminals taken out, with their controls alone taken out, and with characters
    left whole that stand for several, among them slashes."""
    return {_folded(text), _folded(_CONTROLS.sub("", text)), stripped(text).casefold()}


def _readings(text: str) -> set[str]:
    """What a text may be taken for: decoded, without case and hidden characters, and as the path that it leads to."""
    found: set[str] = set()
    for _ in range(_DECODINGS):
        found |= _foldings(text)
        text = unquote(text)
    for reading in tuple(found):
        straight = reading.replace("\\", "/")
        scheme, address, rest = straight.partition("://")
        if address and scheme != "file":
            host, slash, path = rest.partition("/")
            host = host.rpartition("@")[2].removesuffix(":443").removesuffix(":80").rstrip(".")
            straight = f"{scheme}://{host}{slash}{_straightened('/' + path).lstrip('/')}"
        else:
            straight = _straightened(rest if address else straight)
        found |= {straight, straight + "/"}
    return found


def _straightened(path: str) -> str:
    path = "/".join(part.strip() or part for part in path.split("/"))
    straight = normpath(path) if path else ""
    return "/" + straight.lstrip("/") if straight.startswith("/") else straight
