"""Strict JSON: the verdict and the value are those of the standard library's reader, held to the same rules."""

from __future__ import annotations

import json

from fuzz.oracle import Finding, agree, hold
from garrison.errors import ParseError
from garrison.policy import Limits
from garrison.protocol.json import decoder, encode

SEEDS = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,2.5e-3,true,null]}}}',
    b'[[[[[["deep"]]]]]]',
    b'{"a":1,"\\u0061":2}',
    b'["\\ud83d\\ude00","\\ud800"]',
    b"[1e999,-0.0,-0,123456789012345678,0.1]",
    b'{"k":{},"l":[],"m":[{"n":"\\"}{,"}]} ',
    b"\xef\xbb\xbf{}",
    b"[" + b",".join([b"1"] * 40) + b"]",
)
WORDS = tuple(
    b'{ } [ ] , : " \\u \\ud800 \\udc00 \\" \\\\ true false null NaN Infinity -0 1e999 1E+ .5 "a":'.split(b" ")
)

SMALL = Limits(json_depth=5, json_nodes=30, json_members=6, json_items=12, json_key_chars=6, json_number_chars=12)
_decoders = [(limits, decoder(limits)) for limits in (SMALL, Limits())]
_decode = decoder(Limits())


class _No(Exception):
    """The reference refuses."""


def reference(data: bytes, limits: Limits) -> object:
    """The value, or None with `_No` raised: json.loads, duplicate names, surrogates, infinities and limits."""
    try:
        text = data.decode()
        numbers: list[str] = []

        def number(source: str) -> str:
            numbers.append(source)
            return source

        json.loads(text, parse_int=number, parse_float=number, parse_constant=_refuse, object_pairs_hook=_unique)
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _No from None
    if any(len(source) > limits.json_number_chars for source in numbers):
        raise _No
    nodes = _measure(value, limits, 1)
    if nodes > limits.json_nodes:
        raise _No
    return value


def _refuse(name: str) -> object:
    raise _No


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise _No
    return dict(pairs)


def _measure(value: object, limits: Limits, depth: int) -> int:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _No from None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise _No
    if isinstance(value, list | dict):
        if depth > limits.json_depth or len(value) > (
            limits.json_items if isinstance(value, list) else limits.json_members
        ):
            raise _No
        if isinstance(value, list):
            return 1 + sum(_measure(item, limits, depth + 1) for item in value)
        if any(len(key) > limits.json_key_chars for key in value):
            raise _No
        for key in value:
            _measure(key, limits, depth)
        return 1 + sum(_measure(item, limits, depth + 1) for item in value.values())
    return 1


def same(value: object) -> object:
    """The value in a form that tells 1 from 1.0 from true, and -0.0 from 0.0."""
    if isinstance(value, dict):
        return {key: same(item) for key, item in value.items()}
    if isinstance(value, list):
        return [same(item) for item in value]
    return (type(value), repr(value))


def check(data: bytes) -> None:
    for limits, decode in _decoders:
        try:
            value = decode(data)
        except ParseError as error:
            hold(len(str(error)) < 120, "a refusal is short", str(error))
            try:
                expected = reference(data, limits)
            except _No:
                continue
            raise Finding(f"refused ({error}), but good: {expected!r}") from None
        try:
            expected = reference(data, limits)
        except _No:
            raise Finding(f"accepted, but bad: {value!r}") from None
        agree("value", same(value), same(expected))
        agree("again", same(_decode(encode(value))), same(value))
