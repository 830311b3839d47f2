"""Strict JSON: RFC 8259 as RFC 7493 (I-JSON) reads it, inside `Limits`.

Rules of this file:
- Refused: duplicate member names (escaped ones too), NaN and infinities, numbers that overflow to infinity, byte order
  marks, invalid UTF-8, unpaired surrogates, data after the value, and everything else that is not RFC 8259.
- The number of values is bounded before memory is spent on them: only a text longer than twice the node limit can break
  it, and such a text is counted first.
- Depth, members, items, names and numbers are checked on the parsed value in one walk; floats arrive as their source
  text, so that a number is measured as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

import jiter
import msgspec

from ..errors import ParseError
from ..policy import Limits

try:
    from orjson import dumps as _dumps
except ImportError:
    _dumps = None

__all__ = ["Json", "decoder", "encode", "encode_text"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INFINITY = float("inf")

_parse = cast("Callable[..., object]", jiter.from_json)
encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""A value, struct or raw JSON as bytes, without white space and so without line breaks."""

if _dumps is None:

    def encode_text(text: str) -> bytes:
        """A string as a JSON string."""
        return encode(text)
else:

    def encode_text(text: str, _dumps: Callable[[str], bytes] = _dumps) -> bytes:
        """A string as a JSON string."""
        return _dumps(text)


def decoder(limits: Limits) -> Callable[[bytes], object]:
    """A function that reads one JSON text.

    Args:
        limits: the `json_*` limits apply; the byte cap is the transport's, which counts while reading.

    Returns:
        A function from bytes to a value of dict, list, str, int, float, bool and None. It raises `ParseError`, whose
        text names the rule and never the input.
    """
    count_from = 2 * limits.json_nodes
    walk = _walker(limits)

    def decode(data: bytes) -> object:
        if len(data) > count_from:
            _count(data, limits.json_nodes)
        try:
            value = _parse(
                data,
                allow_inf_nan=False,
                catch_duplicate_keys=True,
                cache_mode="keys",
                float_mode="lossless-float",
            )
        except ValueError as exc:
            raise ParseError(_reason(exc)) from None
        kind = type(value)
        if kind is dict:
            walk(cast("dict[str, object]", value))
            return value
        return walk({"": value})[""]

    return decode


def _reason(exc: ValueError) -> str:
    """The parser's words without the position and without what it quotes of the input."""
    text = str(exc)
    if text.startswith("Detected duplicate key"):
        return "Invalid JSON: duplicate member name"
    head, _, position = text.partition(" at line ")
    if not position or len(head) > 80 or '"' in head:
        return "Invalid JSON"
    return f"Invalid JSON: {head}"


def _count(data: bytes, most: int) -> None:
    """Refuses a text with more values than `most`, before any is built. Exact, and linear in the text."""

    def values(text: bytes) -> int:
        return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")

    # Separators inside strings count too at first; only a text that looks guilty is read string by string.
    if values(data) > most and values(_STRING.sub(b'""', data)) > most:
        raise ParseError(f"Invalid JSON: more than {most} values")


def _walker(limits: Limits) -> Callable[[dict[str, object]], dict[str, object]]:
    depth_limit, node_limit = limits.json_depth, limits.json_nodes
    member_limit, item_limit = limits.json_members, limits.json_items
    key_limit, number_limit = limits.json_key_chars, limits.json_number_chars
    int_limit: int = 10**number_limit

    def number(value: object, kind: type) -> object:
        if kind is int:
            raise ParseError(f"Invalid JSON: number of more than {number_limit} characters")
        source = bytes(cast("jiter.LosslessFloat", value))
        if len(source) > number_limit:
            raise ParseError(f"Invalid JSON: number of more than {number_limit} characters")
        result = float(source)
        if result == _INFINITY or result == -_INFINITY:
            raise ParseError("Invalid JSON: number out of range")
        return result

    def walk(root: dict[str, object]) -> dict[str, object]:
        nodes = 1
        level: list[object] = [root]
        for _ in range(depth_limit + 1):
            deeper: list[object] = []
            for container in level:
                if type(container) is dict:
                    mapping = cast("dict[str, object]", container)
                    size = len(mapping)
                    if size > member_limit:
                        raise ParseError(f"Invalid JSON: more than {member_limit} members in an object")
                    nodes += size
                    for key, value in mapping.items():
                        kind = type(value)
                        if len(key) > key_limit:
                            raise ParseError(f"Invalid JSON: member name of more than {key_limit} characters")
                        if kind is str:
                            continue
                        if kind is dict or kind is list:
                            deeper.append(value)
                        elif kind is int:
                            if not -int_limit < cast("int", value) < int_limit:
                                number(value, int)
                        elif kind is not bool and value is not None:
                            mapping[key] = number(value, kind)
                else:
                    items = cast("list[object]", container)
                    size = len(items)
                    if size > item_limit:
                        raise ParseError(f"Invalid JSON: more than {item_limit} items in an array")
                    nodes += size
                    for index, value in enumerate(items):
                        kind = type(value)
                        if kind is str:
                            continue
                        if kind is dict or kind is list:
                            deeper.append(value)
                        elif kind is int:
                            if not -int_limit < cast("int", value) < int_limit:
                                number(value, int)
                        elif kind is not bool and value is not None:
                            items[index] = number(value, kind)
            if nodes > node_limit:
                raise ParseError(f"Invalid JSON: more than {node_limit} values")
            if not deeper:
                return root
            level = deeper
        raise ParseError(f"Invalid JSON: nested deeper than {depth_limit}")

    return walk
