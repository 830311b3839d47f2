"""Strict JSON: RFC 8259 as RFC 7493 (I-JSON) reads it, inside `Limits`.

Rules of this file:
- Refused: duplicate member names (escaped ones too), NaN and infinities, numbers that overflow to infinity, byte order
  marks, invalid UTF-8, unpaired surrogates, data after the value, and everything else that is not RFC 8259. Duplicate
  names alone can be tolerated.
- The number of values is bounded before memory is spent on them: only a text longer than twice the node limit can break
  it, and such a text is counted first.
- Depth, members, items, names and numbers are checked on the parsed value in one walk; floats arrive as their source
  text, so that a number is measured as it was written.
- The walk is the hottest loop of the package, so objects and arrays have each their own copy of it, and pyright is told
  by comment what a value is, where `cast` would be a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, cast

import jiter
import msgspec

from ..errors import ParseError
from ..policy import Limits

try:
    from orjson import dumps as _orjson_dumps
except ImportError:
    _orjson_dumps = None

__all__ = ["Json", "decoder", "encode", "encode_text"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_BLOCK: Final = 64 * 1024
_ESCAPES: Final = re.compile(rb"\\*+")
_INFINITY = float("inf")

_parse = cast("Callable[..., object]", jiter.from_json)
encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""A value, struct or raw JSON as bytes, without white space and so without line breaks."""

encode_text: Callable[[str], bytes] = encode if _orjson_dumps is None else _orjson_dumps
"""A string as a JSON string; with `orjson`, long ones take a tenth of the time."""


def decoder(limits: Limits, *, duplicate_keys: bool = False) -> Callable[[bytes], object]:
    """A function that reads one JSON text.

    Args:
        limits: the `json_*` limits apply; the byte cap is the transport's, which counts while reading.
        duplicate_keys: let an object have a member twice; the last one counts.

    Returns:
        A function from bytes to a value of dict, list, str, int, float, bool and None. It raises `ParseError`, whose
        text names the rule and never the input.
    """
    count_from = 2 * limits.json_nodes
    check_object = _checker(limits)
    refuse_duplicates = not duplicate_keys

    def decode(data: bytes) -> object:
        if len(data) > count_from:
            _count(data, limits.json_nodes)
        try:
            value = _parse(
                data,
                allow_inf_nan=False,
                catch_duplicate_keys=refuse_duplicates,
                cache_mode="keys",
                float_mode="lossless-float",
            )
        except ValueError as exc:
            raise ParseError(_reason(exc)) from None
        if type(value) is dict:
            check_object(cast("dict[str, object]", value), 1)
            return cast("object", value)
        whole: dict[str, object] = {"": value}
        check_object(whole, 0)
        return whole[""]

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
    """Refuses a text with more values than `most`, before any is built. Exact, linear, and in little memory."""
    # Separators inside strings, and what opens an empty container, count too at first; only a text that looks guilty is
    # read again: block by block, without its strings and white space.
    if 1 + data.count(b",") + data.count(b"[") + data.count(b"{") <= most:
        return
    values, quotes, start, inside, opener = 1, 0, 0, 0, b""
    while start < len(data):
        end = start + _BLOCK
        if data[end - 1 : end] == b"\\":
            end = cast("re.Match[bytes]", _ESCAPES.match(data, end)).end() + 1  # an escape is not taken apart
        block = data[start:end]
        if b"\\" in block:
            block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        start = end
        quotes += block.count(b'"')
        if quotes <= 4 * most:
            parts = block.split(b'"')
            outside = b"s".join(parts[inside::2])
            began = len(parts) - inside > 1  # a string that may go on in the next block
            inside = (inside + len(parts) - 1) % 2
            if inside and began:
                outside += b"s"
            outside = opener + outside.translate(None, b" \t\r\n")
            # A container may turn out empty in the next block.
            opener = outside[-1:] if outside[-1:] in (b"[", b"{") else b""
            outside = outside[: len(outside) - len(opener)]
            values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
            values -= outside.count(b"[]") + outside.count(b"{}")
        # Of strings, JSON has at most two per value.
        if values > most or quotes > 4 * most:
            raise ParseError(f"Invalid JSON: more than {most} values")


def _checker(limits: Limits) -> Callable[[dict[str, object], int], int]:
    """A function that checks an object and all in it, given its depth, and returns how many values it holds."""
    depth_limit, node_limit = limits.json_depth, limits.json_nodes
    member_limit, item_limit = limits.json_members, limits.json_items
    key_limit, number_limit = limits.json_key_chars, limits.json_number_chars
    int_limit: int = 10**number_limit
    int_least = -(10 ** (number_limit - 1))  # the sign is a character too

    def number(value: object) -> object:
        """The float that was written, or a refusal of it or of a long integer."""
        source = b"" if type(value) is int else bytes(cast("jiter.LosslessFloat", value))
        if not source or len(source) > number_limit:
            raise ParseError(f"Invalid JSON: number of more than {number_limit} characters")
        result = float(source)
        if result == _INFINITY or result == -_INFINITY:
            raise ParseError("Invalid JSON: number out of range")
        return result

    def check_object(members: dict[str, object], depth: int) -> int:
        nodes = len(members)
        if nodes > member_limit:
            raise ParseError(f"Invalid JSON: more than {member_limit} members in an object")
        if depth > depth_limit:
            raise ParseError(f"Invalid JSON: nested deeper than {depth_limit}")
        for key, value in members.items():
            if len(key) > key_limit:
                raise ParseError(f"Invalid JSON: member name of more than {key_limit} characters")
            kind = type(value)
            if kind is str:
                continue
            if kind is dict:
                nodes += check_object(value, depth + 1)  # pyright: ignore[reportArgumentType] - see the rules
            elif kind is list:
                nodes += check_array(value, depth + 1)  # pyright: ignore[reportArgumentType] - see the rules
            elif kind is int:
                if not int_least < value < int_limit:  # pyright: ignore[reportOperatorIssue] - see the rules
                    number(value)
            elif kind is not bool and value is not None:
                members[key] = number(value)
        if nodes > node_limit:
            raise ParseError(f"Invalid JSON: more than {node_limit} values")
        return nodes

    def check_array(items: list[object], depth: int) -> int:
        nodes = len(items)
        if nodes > item_limit:
            raise ParseError(f"Invalid JSON: more than {item_limit} items in an array")
        if depth > depth_limit:
            raise ParseError(f"Invalid JSON: nested deeper than {depth_limit}")
        for index, value in enumerate(items):
            kind = type(value)
            if kind is str:
                continue
            if kind is dict:
                nodes += check_object(value, depth + 1)  # pyright: ignore[reportArgumentType] - see the rules
            elif kind is list:
                nodes += check_array(value, depth + 1)  # pyright: ignore[reportArgumentType] - see the rules
            elif kind is int:
                if not int_least < value < int_limit:  # pyright: ignore[reportOperatorIssue] - see the rules
                    number(value)
            elif kind is not bool and value is not None:
                items[index] = number(value)
        if nodes > node_limit:
            raise ParseError(f"Invalid JSON: more than {node_limit} values")
        return nodes

    return check_object
