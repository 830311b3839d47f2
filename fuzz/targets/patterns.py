"""Patterns of arguments: what one surely matches stays where the pattern says, read in every way; what it perhaps
matches is at least that, in every spelling; and no text takes long.

The input is three lines: a pattern, a text, and a JSON value."""

from __future__ import annotations

import ntpath
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

from fuzz.oracle import agree, chance, hold, parts, pumped, steps
from garrison.errors import ConfigurationError, ParseError
from garrison.host.patterns import ArgumentPattern, NamePattern
from garrison.policy import Limits
from garrison.protocol.json import decoder

SEEDS = (
    b'/data/**\n/data/a/b.txt\n{"a":[1,"x",null]}',
    b"/data/**\n/data/../etc/passwd\n1",
    b"/data/*\n/data/%2e%2e/etc\n1.0",
    b"/data/*/x\n/data/a\\..\\..\\x\ntrue",
    b"**\n/data/%252e%252e%252fetc\n0",
    b"*.md\n/x/../data/a.md\n[]",
    b"https://example.com/**\nhttps://example.com/a?b=c#d\n{}",
    b"https://*.example.com/api/*\nhttps://a.example.com@evil.example/api/x\n[[]]",
    b'https://example.com/*\nhttps://example.com/..;/x\n"a"',
    '/data/**\n/data/\u2025/\uff0e\uff0e/\uff0fx\n"/data/x"'.encode(),
    "/data/*\n/DATA/a\u200b\n-0.0".encode(),
    b'/data/a\n/data/a\n{"a":{"b":"/data/x"}}',
    b"a*b**c\nab/c\n1e5",
    b"***\n/data/%u002e%u002e/etc\nnull",
    b"/data/**\n//data/x\n1",
    b"/data/**\n/data/. ./x\n1",
    b"https://example.com/**\nhttps://user:x@EXAMPLE.com.:443/./a/../b\n1",
)
WORDS = (
    *b"/data/ ../ ..; .. . // \\ %2e %2f %5c %252e %u002e %c0%ae %00 ** * /* ://".split(),
    *b"https://example.com/ @ : ; ?a=b #x file:///data/ .example.com [::1] :443 ~ etc/passwd C:".split(),
    *b'true 1.0 [ ] { } "a":'.split(),
    *(
        word.encode()
        for word in (
            "\uff0e",
            "\uff0f",
            "\uff3c",
            "\u2024",
            "\u2025",
            "\u2100",
            "\uff05",
            "\u200b",
            "\xad",
            "\u0130",
            "\u212a",
            "\ufb01",
            "e\u0301",
            "\ufdfa",
        )
    ),
    *(
        b"\n",
        b" ",
        b". ",
    ),
)
_FORMS: Final[tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...]] = ("NFC", "NFD", "NFKC", "NFKD")
_DULL = re.compile(r"/?[a-z0-9_]+(?:/[a-z0-9_]+)*")
_FOLDERS = [
    (ArgumentPattern({"a": pattern}), pattern) for pattern in ("/data/**", "/data/*", "/data/*/x", "/data/**/*.md")
]
_SITES = [
    (ArgumentPattern({"a": pattern}), pattern.partition("://")[2].partition("/")[0])
    for pattern in ("https://example.com/**", "https://example.com/api/*", "https://*.example.com/**")
]
_decode = decoder(Limits())


def check(data: bytes) -> None:
    first, second, third = parts(data, 3)
    pattern, text = first.decode(errors="replace")[:200], second.decode(errors="replace")
    for each, _ in _FOLDERS:
        if each.surely({"a": text}):
            for path in paths(text):
                hold(path == "/data" or path.startswith("/data/"), "leaves the folder", text, path)
    for each, host in _SITES:
        if each.surely({"a": text}):
            for read in (text, *(unicodedata.normalize(form, text) for form in _FORMS)):
                at_the_host(read, host)
    for path in straight(text):
        if path.startswith("/data/") and path.isascii():
            hold(_FOLDERS[0][0].perhaps({"a": text}), "evades what denies", text, path)
    any_pattern(pattern, text)
    value(third)
    if chance(data).random() < 0.01:
        linear(pattern, text.encode())


def paths(text: str) -> Iterator[str]:
    """Where a text leads to: as it stands, decoded, in each form of Unicode, on POSIX, Windows, and in a servlet."""
    for _ in range(4):
        for read in {text, *(unicodedata.normalize(form, text) for form in _FORMS)}:
            yield posixpath.normpath(read)
            yield posixpath.normpath(read.replace("\\", "/"))
            yield posixpath.normpath(re.sub(r";[^/]*", "", read))
            yield posixpath.normpath("/".join(part.strip() for part in read.split("/")))
            yield ntpath.normpath("/".join(part.rstrip(". ") or part for part in read.split("/"))).replace("\\", "/")
        text = unquote(re.sub("%u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text))


def straight(text: str) -> Iterator[str]:
    """The paths that a plain server would see."""
    for _ in range(3):
        if "://" not in text and not text.startswith("//"):
            yield posixpath.normpath(text)
        text = unquote(text)


def at_the_host(text: str, host: str) -> None:
    """An address that is at the host for whoever reads it."""
    split = urlsplit(text)
    hold(split.scheme == "https" and "@" not in split.netloc and "\\" not in text, "of another form", text)
    name = split.netloc.partition(":")[0]
    hold(name.endswith(host[1:]) if host.startswith("*") else name == host, "at another host", text)
    hold(posixpath.normpath(unquote(split.path) or "/") == (split.path.rstrip("/") or "/"), "climbs", text)


def any_pattern(pattern: str, text: str) -> None:
    """It matches as the regular expression does that says the same, or less where it has to be sure."""
    for kind in (ArgumentPattern, NamePattern):
        try:
            if kind is NamePattern:
                made: ArgumentPattern | NamePattern = NamePattern(pattern, "pattern")
            else:
                made = ArgumentPattern({"a": pattern})
        except ConfigurationError as error:
            hold("pattern" in str(error) or "arguments.a" in str(error), "what is said", str(error))
            continue
        given: dict[str, object] = {"a": text}
        sure, maybe = (
            (made.surely(given), made.perhaps(given))
            if isinstance(made, ArgumentPattern)
            else ((made.surely(text), made.perhaps(text)))
        )
        hold(maybe or not sure, "sure and not possible", pattern, text)
        if pattern.count("*") <= 3:
            plain = re.fullmatch(_expression(pattern), text, re.DOTALL) is not None
            hold(plain or not sure, "sure of what it does not say", pattern, text)
            hold(sure or not plain or not _DULL.fullmatch(text), "not sure of what is plain", pattern, text)
            hold(maybe or not plain, "not possible", pattern, text)
        if sure:
            for spelled in (text.upper(), text.lower(), "\u200b" + text, text[:1] + "\u200d\u200d" + text[1:]):
                again = made.perhaps({"a": spelled}) if isinstance(made, ArgumentPattern) else made.perhaps(spelled)
                hold(again, "evades what denies", pattern, text, spelled)
        if sure and isinstance(made, ArgumentPattern):
            hold(made.perhaps({"a": quote(text, safe="")}), "evades what denies", pattern, text, quote(text, safe=""))
            hold(made.perhaps({"a": [{"b": text}], "c": 1}), "evades what denies", pattern, text)
            hold(not made.surely({"a": text, "c": 1}) and not made.surely({}), "sure of other arguments", pattern)


def _expression(pattern: str) -> str:
    stars = {"*": r"[^/\\]*"}
    return "".join(
        stars.get(part, ".*") if part[0] == "*" else re.escape(part) for part in re.findall(r"\*+|[^*]", pattern)
    )


def value(data: bytes) -> None:
    """A value matches itself, whatever else it is, and what it says is possible as a text."""
    try:
        given = _decode(data)
    except ParseError:
        return None
    try:
        made = ArgumentPattern({"a": given})
    except ConfigurationError as error:
        return hold(isinstance(given, str) and "://" in given, "refused", given, str(error))
    for each, _ in (*_FOLDERS, *_SITES):
        each.surely({"a": given})
        each.perhaps({"a": given})
    if not (isinstance(given, str) and "*" in given):
        hold(made.surely({"a": given}) and made.perhaps({"a": given, "b": 1}), "not itself", given)
        hold(not made.surely({"a": [given]}), "not in a list", given)
    if isinstance(given, int | float):
        agree("true is not 1", made.surely({"a": bool(given)}), isinstance(given, bool))
    return None


def linear(pattern: str, text: bytes) -> None:
    """Lines of Python grow with the text."""
    long = pumped(text, 6000).decode(errors="replace")[:6000]
    made = ArgumentPattern({"a": "*a*b/**c*"}) if "://" in pattern else ArgumentPattern({"a": pattern})
    size = max(len(unicodedata.normalize("NFKC", long)), 100)
    hold(steps(lambda: made.surely({"a": long})) < 30 * size + 2000, "steps of what is sure", pattern)
    hold(steps(lambda: made.perhaps({"a": long})) < 400 * size + 4000, "steps of what is possible", pattern)
