"""Which characters look alike and which scripts they belong to: the tables of Unicode, and what UTS 39 makes of them.

Rules of this file:
- The tables are those of `characters.txt`, whatever Unicode version the interpreter has. They are read when the first
  text that is not ASCII is asked about, in about 10 ms, and kept.
- Functions are pure; time grows with the length of the text.

UTS 39 (Unicode Security Mechanisms) section 4 "Confusable Detection" (the internal skeleton: no bidi reordering),
section 5.1 "Mixed-Script Detection", section 5.2 "Restriction-Level Detection".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

__all__ = ["UNICODE", "has_other_forms", "hidden", "scripts_mixed", "skeleton", "unassigned"]

UNICODE: Final = "17.0.0"
"""The version of the tables."""

_FILE: Final = Path(__file__).with_name("characters.txt")

_ASCII: Final = str.maketrans(
    {'"': "''", "%": "\xba/\u2080", "0": "O", "1": "l", "I": "l", "`": "'", "m": "rn", "|": "l"}
)
"""What the tables say of ASCII."""

_ANY: Final = frozenset({"Common"})
_EAST: Final = {"Han": ("Hanb", "Jpan", "Kore"), "Hiragana": ("Jpan",), "Katakana": ("Jpan",)} | {
    "Hangul": ("Kore",),
    "Bopomofo": ("Hanb",),
}
"""Scripts that are written together, by the names of the mixtures. UTS 39 table 1a."""
_WITH_LATIN: Final = frozenset({"Hanb", "Jpan", "Kore"})
"""What may be mixed with Latin. UTS 39 section 5.2 "Highly Restrictive"."""


_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
_BLANK: Final = "\u2800"
"""A pattern of Braille without dots."""


class _Tables:
    """What is read from the file."""

    __slots__ = ("ends", "ignored", "prototypes", "scripts", "starts")

    def __init__(self, text: str) -> None:
        self.prototypes: dict[int, str] = {}
        """A text for each character that looks like another; empty for what is ignored."""
        self.ignored: set[int] = set()
        ranges: list[tuple[int, int, frozenset[str]]] = []
        part = ""
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            if line.startswith("["):
                part = line
                continue
            key, _, words = line.partition(":")
            spans = (word.partition("-") for word in words.split())
            codes = [(int(first, 16), int(last or first, 16)) for first, _, last in spans]
            if part == "[script]":
                names = _augmented(key)
                ranges += [(first, last, names) for first, last in codes]
                continue
            like = "".join(chr(int(code, 16)) for code in key.split("+")) if key else ""
            for first, last in codes:
                self.prototypes.update(dict.fromkeys(range(first, last + 1), like))
                if not key:
                    self.ignored.update(range(first, last + 1))
        ranges.sort(key=lambda span: span[0])
        self.starts = [first for first, _, _ in ranges]
        self.ends = [last for _, last, _ in ranges]
        self.scripts = [names for _, _, names in ranges]

    def scripts_of(self, character: str) -> frozenset[str] | None:
        code = ord(character)
        at = bisect_right(self.starts, code) - 1
        return self.scripts[at] if at >= 0 and code <= self.ends[at] else None


_tables: _Tables | None = None


def _read() -> _Tables:
    global _tables
    if _tables is None:
        _tables = _Tables(_FILE.read_text(encoding="utf-8"))
    return _tables


def _augmented(key: str) -> frozenset[str]:
    names = set(key.split("+"))
    for name in tuple(names):
        names.update(_EAST.get(name, ()))
    return frozenset(names)


def _common(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    common, *rest = sets
    return common.intersection(*rest)


def skeleton(text: str) -> str:
    """What two texts have in common if and only if they look alike. It is for comparing, not for showing.

    UTS 39 section 4.
    """
    if text.isascii():
        return text.translate(_ASCII)
    from unicodedata import normalize  # lazy: most texts are ASCII

    return normalize("NFD", normalize("NFD", text).translate(cast("dict[int, str | int | None]", _read().prototypes)))


def scripts_mixed(text: str) -> tuple[str, ...]:
    """The scripts of a text that mixes some which no language writes together, in their order; empty for others.

    Latin beside what Chinese, Japanese or Korean is written with is no mixture; nor are signs and digits.
    """
    if text.isascii():
        return ()
    from unicodedata import normalize  # lazy: as above

    tables = _read()
    found = [tables.scripts_of(character) for character in normalize("NFC", text)]
    sets = [names for names in found if names is not None and names != _ANY]
    if not sets or _common(sets):
        return ()
    others = [names for names in sets if "Latin" not in names]
    if others and _common(others) & _WITH_LATIN:
        return ()
    plain = (min(names - _WITH_LATIN) for names in sets)
    return tuple(dict.fromkeys(plain))


def hidden(text: str) -> str:
    """The first character of a text that a reader does not see, or sees as a blank other than a space; or nothing.

    Control, format and separator characters, lone surrogates, and what is ignored by default (UAX 44
    `Default_Ignorable_Code_Point`): fillers, variation selectors, joiners, tags.
    """
    if text.isascii():
        return "" if text.isprintable() else next(character for character in text if not character.isprintable())
    from unicodedata import category  # lazy: as above

    ignored = _read().ignored
    return next(
        (c for c in text if c != " " and (ord(c) in ignored or c in _BLANK or category(c) in _UNSEEN)),
        "",
    )


def unassigned(text: str) -> str:
    """The first character of a text that Unicode has not assigned, or leaves to private use; or nothing."""
    if text.isascii():
        return ""
    tables = _read()
    return next((character for character in text if tables.scripts_of(character) is None), "")


def has_other_forms(text: str) -> bool:
    """Whether a text has other forms of ordinary characters: full-width or mathematical letters, ligatures (UAX 15)."""
    if text.isascii():
        return False
    from unicodedata import normalize  # lazy: as above

    return normalize("NFKC", text) != normalize("NFC", text)
