"""Finds what a text holds in another writing, and reads it: base64, hexadecimal, percent signs, escapes, entities.

Rules of this file:
- Only what becomes readable text counts; anything else may be a key, a digest or a picture.
- Decoding is bounded by the caller: how deep, how much.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

__all__ = ["decoded"]

_MOST: Final = 8
"""Pieces of one kind in one text that are looked at."""
_LONGEST: Final = 16_384
_READABLE: Final = 0.9


class _Row(NamedTuple):
    name: str
    needle: str
    pattern: re.Pattern[str]
    read: Callable[[str], str]


def decoded(text: str) -> Iterator[tuple[str, str, str]]:
    """The name of each writing, the piece as it stands, and what it says."""
    if len(text) < 12:
        return
    for row in _ROWS:
        if row.needle and row.needle not in text:
            continue
        for number, found in enumerate(row.pattern.finditer(text)):
            if number == _MOST:
                break
            piece = found[0][:_LONGEST]
            try:
                plain = row.read(piece)
            except ValueError:
                continue
            if plain != piece and _readable(plain):
                yield row.name, piece, plain
    low = text.lower()
    if "rot13" in low or "rot-13" in low or "caesar" in low:
        yield "rot13", text, text[:_LONGEST].translate(_ROT13)
    if "revers" in low or "backward" in low:
        yield "reversed text", text, text[:_LONGEST][::-1]


def _readable(text: str) -> bool:
    """Whether it is written text: letters and spaces of any script, hardly anything else."""
    if len(text) < 6 or "\ufffd" in text:
        return False
    good = sum(
        1 for letter in text if letter.isalpha() or letter in " \n.,:;'\"/~_-!?<>()[]{}=&@#$+" or letter.isdigit()
    )
    return good >= len(text) * _READABLE and (" " in text or len(text) >= 16)


def _base64(piece: str) -> str:
    piece = piece.replace("-", "+").replace("_", "/").rstrip("=")
    return b64decode(piece[: len(piece) - (len(piece) % 4 == 1)] + "=" * (-len(piece) % 4)).decode()


def _hexadecimal(piece: str) -> str:
    return bytes.fromhex(re.sub(r"[^0-9A-Fa-f]|0x", "", piece.replace("\\x", ""))).decode()


def _percent(piece: str) -> str:
    return bytes.fromhex(piece.replace("%", "")).decode()


def _escapes(piece: str) -> str:
    return "".join(chr(int(code, 16)) for code in re.findall(r"[0-9A-Fa-f]{4}", piece))


def _entities(piece: str) -> str:
    codes = re.findall(r"&#(?:x([0-9A-Fa-f]{1,6})|(\d{1,7}));", piece)
    return "".join(chr(int(sixteen, 16) if sixteen else int(ten)) for sixteen, ten in codes)


def _binary(piece: str) -> str:
    return bytes(int(byte, 2) for byte in re.findall(r"[01]{8}", piece)).decode()


def _spaced(piece: str) -> str:
    words = re.split(r"[ .*_-]{2,}", piece)
    return " ".join(re.sub(r"[ .*_-]", "", word) for word in words)


_ROWS: Final = (
    _Row("base64", "", re.compile(r"[A-Za-z0-9+/_-]{20,}+={0,2}"), _base64),
    _Row("hexadecimal", "", re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}+"), _hexadecimal),
    _Row("hexadecimal", "\\x", re.compile(r"(?:\\x[0-9A-Fa-f]{2}){6,}+"), _hexadecimal),
    _Row("hexadecimal", " ", re.compile(r"(?<![0-9A-Fa-f])(?:(?:0x)?[0-9A-Fa-f]{2}[ ,:]{1,2}){12,}+"), _hexadecimal),
    _Row("percent signs", "%", re.compile(r"(?:%[0-9A-Fa-f]{2}){6,}+"), _percent),
    _Row("escapes", "\\u", re.compile(r"(?:\\u\{?[0-9A-Fa-f]{4}\}?){6,}+"), _escapes),
    _Row("entities", "&#", re.compile(r"(?:&#(?:x[0-9A-Fa-f]{1,6}|\d{1,7});[ ]?){6,}+"), _entities),
    _Row("binary digits", "01", re.compile(r"(?:[01]{8}[ ,]?){6,}+"), _binary),
    _Row("spaced letters", " ", re.compile(r"(?<!\w)(?:[^\W\d_][ .*_-]{1,4}){8,}+[^\W\d_]?"), _spaced),
)
_UPPER: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROT13: Final = str.maketrans(
    _UPPER + _UPPER.lower(), _UPPER[13:] + _UPPER[:13] + _UPPER[13:].lower() + _UPPER[:13].lower()
)
