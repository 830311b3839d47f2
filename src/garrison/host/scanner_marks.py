"""What the definition scanner sees without reading words: hidden characters, disguised letters, markup, addresses.

Rules of this file:
- What is hidden is what `gate.hygiene` calls hidden: no second opinion.
- Every repetition of a pattern is bounded or possessive: time grows with the length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..gate.hygiene import stripped, visible
from .confusables import skeleton
from .scanner_rules import Level

__all__ = ["Mark", "hidden_words", "marks", "unfolded"]


class Mark(NamedTuple):
    """A sign, and the part of the text that it is."""

    rule: str
    level: Level
    text: str
    part: str


class _Row(NamedTuple):
    rule: str
    level: Level
    needle: str
    """A text without which there is nothing to look for."""
    pattern: re.Pattern[str]
    text: str


_ROLE: Final = "imitates the marks of a system prompt or a conversation"
_ADDRESSED: Final = "speaks to the model, past the user"
_COMMENT: Final = "has text in a comment, which a page does not show"
_LOADS: Final = "has a picture that loads from an address"
_KEY: Final = "holds the head of a private key"
_REAL: Final = r"(?![^/]{0,60}example\.(?:com|org|net)/)"
_SHELL: Final = "holds a shell command"

_ROWS: Final = (
    _Row(
        "role",
        "high",
        "<",
        re.compile(
            r"<\s{0,3}/?\s{0,3}(?:important|system|secret|hidden|instructions?|override|critical|admin|sys|developer"
            r"|system[-_ ]\w{1,20}|tool_calls?|function_calls?)\b[^<>\n]{0,80}>",
            re.IGNORECASE,
        ),
        _ROLE,
    ),
    _Row("role", "high", "<|", re.compile(r"<\|[\w ]{2,24}\|>"), _ROLE),
    _Row("role", "high", "[", re.compile(r"\[/?(?:INST|SYSTEM|ASSISTANT|ADMIN)(?:\s[^\]\n]{0,40})?\]"), _ROLE),
    _Row("role", "high", "<", re.compile(r"<<\s?/?SYS\s?>>|<(?:start|end)_of_turn>"), _ROLE),
    _Row(
        "role",
        "high",
        "#",
        re.compile(r"#{2,6}[ \t]{0,3}(?:instruction|system|response|human|assistant)s?\s?:", re.IGNORECASE),
        _ROLE,
    ),
    _Row(
        "role",
        "high",
        ":",
        re.compile(
            r"(?:^|\n|[.!?]\s)[ \t]{0,8}(?:SYSTEM|ADMIN|DEVELOPER)"
            r"(?: (?:NOTE|NOTICE|OVERRIDE|MESSAGE|PROMPT|INSTRUCTIONS?|ALERT|UPDATE))?\s?:"
        ),
        _ROLE,
    ),
    _Row("role", "medium", ":", re.compile(r"\n[ \t]{0,8}(?:Human|User|Assistant|AI)\s?:"), _ROLE),
    _Row(
        "address",
        "medium",
        ":",
        re.compile(r"\b(?:assistants?|(?:the|language|ai) models?|(?:the|ai) agents?|llms?)\s?:\s", re.IGNORECASE),
        _ADDRESSED,
    ),
    _Row("comment", "medium", "<!--", re.compile(r"<!--(?=[^>]{12})[^>]{0,300}"), _COMMENT),
    _Row("exfiltration", "medium", "](", re.compile(r"!\[[^\]\n]{0,200}\]\(\s{0,3}https?://" + _REAL), _LOADS),
    _Row("exfiltration", "medium", "<", re.compile(r"<img\b[^>]{0,300}?\bsrc\b", re.IGNORECASE), _LOADS),
    _Row("shell", "high", "|", re.compile(r"\b(?:curl|wget)\b[^\n|;]{1,200}\|\s?(?:sudo\s)?(?:ba|z)?sh\b"), _SHELL),
    _Row("shell", "medium", "$(", re.compile(r"\$\([a-z][^)\n]{2,100}\)"), _SHELL),
    _Row("shell", "medium", "rm ", re.compile(r"\brm -rf? [/~$*]"), _SHELL),
    _Row("shell", "medium", "/dev/tcp", re.compile(r"/dev/tcp/"), _SHELL),
    _Row("credentials", "medium", "PRIVATE KEY-----", re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"), _KEY),
)

_ADDRESS: Final = re.compile(r"https?://[^\s\"'`)]{1,2000}+")
_PLACE: Final = re.compile(
    r"(?:\$?\{{1,2}|<|\[|%7B)(?:the\s)?(?:[^\s}>\]]{0,20}?(?:message|conversation|chat|content|question|prompt|secret|key"
    r"|token|password|env|result|history|context|memory)|url>)",
    re.IGNORECASE,
)
_ANY_PLACE: Final = re.compile(r"[?&=][^{<]{0,100}(?:\{|<)")
_FILLED: Final = "has an address with a place for what the conversation holds"
_OPEN: Final = "has an address with a place to fill in"
_PADDING: Final = re.compile(r"[ \t\u00a0\u2000-\u200a\u3000]{80,}+|(?:\r?\n[ \t]*+){20,}+")
_SHOWN: Final = re.compile(r"<U\+([0-9A-F]{4,6})(?: and ([0-9]{1,6}) more hidden)?>|[\u2400-\u241f\u2421]")
_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_LATIN: Final = re.compile(r"[A-Za-z]")
_LOOKALIKE_SCRIPTS: Final = re.compile(r"[\u0370-\u052f\u0531-\u058f\u13a0-\u13ff\uab70-\uabbf]")
_STYLED: Final = re.compile(r"[\uff21-\uff5a\U0001d400-\U0001d7ff\u24b6-\u24e9\u2100-\u214f\U0001f130-\U0001f189]")

_TAGS: Final = re.compile(r"[\U000e0020-\U000e007e]{4,}")
_VARIATION: Final = re.compile(r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")

_KINDS: Final = (  # up to which code point, level, name; the first that fits
    (0x1F, "high", "a control character"),
    (0x9F, "high", "a control character"),
    (0xAD, "low", "a soft hyphen"),
    (0x200A, "medium", "a character without width"),
    (0x200D, "medium", "a character without width"),
    (0x200F, "medium", "a mark of direction"),
    (0x202E, "high", "a change of direction"),
    (0x2065, "medium", "a character without width"),
    (0x206F, "high", "a change of direction"),
    (0xFE0F, "low", "a variation selector"),
    (0xFEFF, "low", "a byte order mark"),
    (0xFFFF, "high", "a character that is no text"),
    (0xE007F, "high", "a tag, text that is not seen"),
    (0x10FFFF, "low", "a variation selector"),
)
_MANY: Final = 3


def marks(text: str) -> Iterator[Mark]:
    """The signs in a text."""
    if not text.isascii() or not text.isprintable():
        yield from _hidden(text)
    if len(text) >= 20:
        padding = _PADDING.search(text)
        if padding is not None:
            follows = padding.end() < len(text) and padding.start() > 0
            level: Level = "high" if follows else "low"
            yield Mark("padding", level, "pushes text out of view with empty space", text[padding.end() :][:80])
    if not text.isascii():
        yield from _mixed(text)
    if "://" in text:
        yield from _addresses(text)
    for row in _ROWS:
        if row.needle in text:
            found = row.pattern.search(text)
            if found is not None:
                yield Mark(row.rule, row.level, row.text, text[max(0, found.start()) : found.end() + 40])


def unfolded(text: str) -> str:
    """The text as a model may read it: nothing hidden, letters of a style or another script as those they look like.

    The same object if there is nothing to change.
    """
    if text.isascii() and text.isprintable():
        return text
    clean = stripped(text).replace("\xad", "")
    if clean.isascii():
        return clean
    if _STYLED.search(clean):
        clean = unicodedata.normalize("NFKC", clean)
    return _WORD.sub(_plain_word, clean) if _LOOKALIKE_SCRIPTS.search(clean) else clean


def hidden_words(text: str) -> Iterator[str]:
    """What is written in tags or in runs of variation selectors, one byte each."""
    if text.isascii():
        return
    for found in _TAGS.finditer(text):
        yield "".join(chr(ord(letter) - 0xE0000) for letter in found[0])
    for found in _VARIATION.finditer(text):
        raw = bytes(ord(letter) - (0xFE00 if letter < "\uff00" else 0xE0100 - 16) for letter in found[0])
        yield raw.decode(errors="replace")


def _hidden(text: str) -> Iterator[Mark]:
    shown = visible(text)
    if shown is text or shown == text:
        return
    worst: dict[str, tuple[Level, int, str]] = {}
    for found in _SHOWN.finditer(shown):
        code = int(found[1], 16) if found[1] else ord(found[0]) - 0x2400
        count = 1 + int(found[2] or 0)
        level, name = _kind(0x7F if code == 0x21 and not found[1] else code)
        part = shown[max(0, found.start() - 20) : found.end() + 30]
        before = worst.get(name)
        worst[name] = (level, count + (before[1] if before else 0), before[2] if before else part)
    for name, (level, count, part) in worst.items():
        if level != "high" and count >= _MANY:
            level = "high"
        yield Mark("hidden", level, f"has {name}" + (f" and {count - 1} more" if count > 1 else ""), part)


def _addresses(text: str) -> Iterator[Mark]:
    low: Mark | None = None
    for found in _ADDRESS.finditer(text):
        start, end = found.span()
        if _PLACE.search(text, start, end + 40):
            yield Mark("exfiltration", "high", _FILLED, text[start : end + 40])
            return
        if low is None and _ANY_PLACE.search(text, start, end + 1):
            low = Mark("exfiltration", "low", _OPEN, text[start : end + 1])
    if low is not None:
        yield low


def _kind(code: int) -> tuple[Level, str]:
    if code in (0x3164, 0xFFA0, 0x115F, 0x1160, 0x17B4, 0x17B5):
        return "high", "a filler, which is not seen"
    for last, level, name in _KINDS:
        if code <= last:
            return level, name  # pyright: ignore[reportReturnType] - the table's levels
    return "high", "a character that is no text"


def _mixed(text: str) -> Iterator[Mark]:
    if _LOOKALIKE_SCRIPTS.search(text):
        for found in _WORD.finditer(text):
            word = found[0]
            plain = _plain_word(found)
            if plain == word:
                continue
            inside = re.search(r"[A-Za-z][^A-Za-z]+[A-Za-z]|\A[^A-Za-z]+[A-Za-z]", word) is not None
            level: Level = "high" if inside else "low"
            yield Mark("mixed-script", level, "has a word with letters that look like others", f"{word} (not {plain})")
            break
    styled = _STYLED.findall(text)
    if len(styled) >= 8:
        yield Mark(
            "styled", "low", "has letters of a style that programs do not take for letters", "".join(styled[:40])
        )


def _plain_word(found: re.Match[str]) -> str:
    """A word that mixes Latin with letters that look Latin, in Latin; any other word as it is."""
    word = found[0]
    if word.isascii() or _LATIN.search(word) is None or _LOOKALIKE_SCRIPTS.search(word) is None:
        return word
    plain = "".join(letter if letter.isascii() else skeleton(letter) for letter in word)
    return plain if plain.isascii() else word
