"""Newline framing: the lines are those of one `split`, however the bytes are cut, within the limit."""

from __future__ import annotations

from fuzz.oracle import agree, choppings, hold
from garrison.protocol.lines import TOO_LONG, LineReader, TooLong

SEEDS = (
    b"one\ntwo\r\n\r\n\nthree",
    b"x" * 12 + b"\n" + b"y" * 13 + b"\r\n" + b"z" * 12 + b"\r\n",
    b"x" * 40 + b"\nafter\n" + b"x" * 13 + b"\r",
    b"\r\r\n\r",
)
WORDS = (b"\n", b"\r", b"\r\n", b"\r\r\n", b"x" * 11, b"x" * 12)
LIMIT = 12


def reference(data: bytes) -> list[bytes | TooLong]:
    """One look at the whole."""
    lines = [piece.removesuffix(b"\r") for piece in data.split(b"\n")]
    return [line if len(line) <= LIMIT else TOO_LONG for line in lines if line]


def read(chunks: list[bytes]) -> list[bytes | TooLong]:
    """What the reader says."""
    reader = LineReader(LIMIT)
    lines: list[bytes | TooLong] = []
    for chunk in chunks:
        lines += reader.feed(chunk)
        hold(len(reader._tail) <= LIMIT + 1, "more is kept than the limit")
    last = reader.close()
    return lines if last is None else [*lines, last]


def check(data: bytes) -> None:
    expected = reference(data)
    agree("whole", read([data]), expected)
    for chunks in choppings(data):
        agree(f"cut {chunks}", read(chunks), expected)
