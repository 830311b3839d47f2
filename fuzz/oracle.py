"""What the targets share: how a finding is raised, how bytes are cut, how steps are counted.

Rules of this file:
- Everything follows from the input alone, so that a finding can be replayed.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["Finding", "agree", "chance", "choppings", "hold", "parts", "pumped", "steps"]


class Finding(Exception):
    """An oracle was proven wrong."""


def hold(condition: object, *text: object) -> None:
    """Raise a `Finding` unless the condition is true."""
    if not condition:
        raise Finding(" ".join(item if isinstance(item, str) else repr(item) for item in text))


def agree(what: str, left: object, right: object) -> None:
    """Raise a `Finding` unless both are the same."""
    if left != right:
        raise Finding(f"{what}:\n  {left!r}\n  {right!r}")


def chance(data: bytes) -> random.Random:
    """Chance that is the same whenever the input is."""
    return random.Random(zlib.crc32(data))  # noqa: S311 - it has to come out the same again


def choppings(data: bytes, count: int = 3, bytewise: int = 400) -> Iterator[list[bytes]]:
    """The input in pieces: cut at a few places, `count` times, and byte by byte where it is at most `bytewise` long."""
    if len(data) < 2:
        return
    dice = chance(data)
    for _ in range(count):
        places = sorted(dice.sample(range(1, len(data)), min(len(data) - 1, dice.choice((1, 1, 2, 5)))))
        yield [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    if len(data) <= bytewise:
        yield [data[i : i + 1] for i in range(len(data))]


def parts(data: bytes, count: int) -> list[bytes]:
    """The input as `count` parts, of which each but the last is a line; what is missing is empty."""
    found = data.split(b"\n", count - 1)
    return found + [b""] * (count - len(found))


def pumped(data: bytes, size: int) -> bytes:
    """The input with a piece of it repeated until it is `size` long: what a bad pattern would choke on."""
    if not data:
        return data
    dice = chance(data)
    begin = dice.randrange(len(data))
    end = dice.randrange(begin, len(data)) + 1
    piece = data[begin:end]
    return data[:begin] + piece * (max(0, size - len(data)) // len(piece) + 1) + data[end:]


def steps(call: Callable[[], object]) -> int:
    """How many lines of Python run during a call; exceptions are not caught."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
