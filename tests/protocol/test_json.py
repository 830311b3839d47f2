"""Strict JSON: what is accepted is exactly what a strict reference accepts, inside the limits."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from garrison.errors import ParseError
from garrison.policy import Limits
from garrison.protocol import json as module
from garrison.protocol.json import decoder, encode, encode_text

decode = decoder(Limits())
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Refused(Exception):
    """The reference refuses."""


def reference(data: bytes, limits: Limits) -> Any:
    """The standard library's parser with every leniency taken away, and the limits counted the slow way."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
    if re.search(r"[^\S \t\r\n]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL)):
        raise Refused

    def number(source: str) -> Any:
        if len(source) > limits.json_number_chars or not source.isascii():
            raise Refused
        if re.fullmatch(r"-?[0-9]+", source):
            return int(source)
        value = float(source)
        if math.isinf(value):
            raise Refused
        return value

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise Refused
        return dict(items)

    def constant(source: str) -> Any:
        raise Refused

    try:
        value = json.loads(
            text, parse_float=number, parse_int=number, parse_constant=constant, object_pairs_hook=pairs, strict=True
        )
    except (ValueError, RecursionError):
        raise Refused from None
    count = 0

    def walk(item: Any, depth: int) -> None:
        nonlocal count
        count += 1
        if isinstance(item, str):
            if any("\ud800" <= c <= "\udfff" for c in item):
                raise Refused
        elif isinstance(item, dict):
            if depth > limits.json_depth or len(item) > limits.json_members:
                raise Refused
            for key, each in item.items():
                walk(key, 0)
                count -= 1
                if len(key) > limits.json_key_chars:
                    raise Refused
                walk(each, depth + 1)
        elif isinstance(item, list):
            if depth > limits.json_depth or len(item) > limits.json_items:
                raise Refused
            for each in item:
                walk(each, depth + 1)

    walk(value, 1)
    if count > limits.json_nodes:
        raise Refused
    return value


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b))


def compare(data: bytes, limits: Limits) -> None:
    try:
        expected = reference(data, limits)
    except Refused:
        with pytest.raises(ParseError):
            decoder(limits)(data)
    else:
        assert same(decoder(limits)(data), expected)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=20,
)
small = Limits(json_depth=4, json_nodes=12, json_members=3, json_items=4, json_key_chars=4, json_number_chars=8)
fragments = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"',
            "a",
            '"a"',
            '"b"',
            '"\\u0061"',
            "0",
            "1",
            "-",
            "1e5",
            "1e999",
            "01",
            "1.",
            ".5",
            "true",
            "null",
            "NaN",
            "-Infinity",
            " ",
            "\n",
            "\t",
            "\x0b",
            "\xa0",
            "\ufeff",
            "\x00",
            "\\ud800",
            '"\\ud83d\\ude00"',
            '"\\udc00\\ud800"',
            "//",
            "'",
            "\\",
            "[[[",
            "]]]",
            '{"a":',
            "é",
        ]
    ),
    max_size=14,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(values, st.booleans())
def test_what_json_dumps_writes_is_read(value: Any, ascii: bool) -> None:
    compare(json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass"), Limits())
    compare(json.dumps(value, indent=1).encode(), small)


@settings(max_examples=800, deadline=None)
@given(fragments)
@example('{"a":1,"\\u0061":2}')
@example('{"a":{"b":1,"b":2}}')
@example("[[[[]]]]")
@example("[[[[[]]]]]")
@example("-0")
@example("-0.0")
@example("1E400")
@example("1e-99999")
@example("[1,]")
@example('"\x7f"')
@example('"\t"')
def test_fragments_are_read_as_the_reference_reads_them(text: str) -> None:
    compare(text.encode("utf-8", "surrogatepass"), Limits())
    compare(text.encode("utf-8", "surrogatepass"), small)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    compare(data, Limits())


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_damaged_json_raises_nothing_else(value: Any, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    compare(bytes(text), Limits())


@pytest.mark.parametrize("change", [-1, 0, 1])
@pytest.mark.parametrize("wrap", [b"%b", b'{"params":%b}', b"[%b]"])
@pytest.mark.attack("ATK-083")
@pytest.mark.attack("ATK-085")
@pytest.mark.attack("ATK-086")
def test_each_limit_holds_exactly(change: int, wrap: bytes) -> None:
    depth = 0 if wrap == b"%b" else 1
    n = 20 + change
    cases: list[tuple[dict[str, int], bytes]] = [
        ({"json_depth": 20 + depth}, b"[" * n + b"]" * n),
        ({"json_depth": 20 + depth}, b'{"a":' * n + b"1" + b"}" * n),
        ({"json_depth": 20 + depth}, b'{"a":[' * (n // 2) + (b"[]" if n % 2 else b"1") + b"]}" * (n // 2)),
        ({"json_members": 20}, encode({f"k{i}": i for i in range(n)})),
        ({"json_items": 20}, encode([0] * n)),
        ({"json_key_chars": 20}, encode({"é" * n: 1})),
        ({"json_key_chars": 20}, encode({"\U0001f600" * n: 1})),
        ({"json_number_chars": 20}, b"1" * n),
        ({"json_number_chars": 20}, b"-" + b"1" * (n - 1)),
        ({"json_number_chars": 20}, b"1." + b"1" * (n - 2)),
        ({"json_number_chars": 20}, b"1e-" + b"1" * (n - 3)),
        ({"json_nodes": 20 + depth}, encode([0] * (n - 1))),
        ({"json_nodes": 20 + depth}, encode(dict.fromkeys(map(str, range(n - 1)), 0))),
        ({"json_nodes": 20 + depth}, encode([[0]] * ((n - 1) // 2) + ([0] if n % 2 == 0 else []))),
        ({"json_nodes": 20 + depth}, encode([",[{" * 50] * (n - 1))),
    ]
    for limits, data in cases:
        read = decoder(Limits(**limits))
        text = wrap % data
        if change > 0:
            with pytest.raises(ParseError):
                pytest.fail(f"{limits} {read(text)!r:.200}")
        else:
            assert same(read(text), json.loads(text)), (limits, text)


def count_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count_of, value.values()))
    return 1 + sum(map(count_of, value)) if isinstance(value, list) else 1


tricky = st.text(st.sampled_from('",[]{}\\ \n:sé'), max_size=8)
nested = st.recursive(
    st.none() | st.integers(0, 9) | tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=30,
)


@given(nested, st.sampled_from([None, 0, 2]), st.integers(1, 24))
def test_values_are_counted_the_same_wherever_a_block_ends(value: Any, indent: int | None, block: int) -> None:
    data, count = json.dumps(value, indent=indent).encode(), count_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        module._count(data, count)
        if count > 1:
            with pytest.raises(ParseError, match=f"more than {count - 1} values"):
                module._count(data, count - 1)


@pytest.mark.parametrize(
    "field", ["json_depth", "json_nodes", "json_members", "json_items", "json_key_chars", "json_number_chars"]
)
def test_the_default_limits(field: str) -> None:
    limit = getattr(Limits(), field)
    make = {
        "json_depth": lambda n: b"[" * n + b"]" * n,
        "json_nodes": lambda n: (
            encode([[0] * 999] * (n // 1000) + [0] * (n % 1000 - 1))
            if n % 1000
            else encode([[0] * 999] * (n // 1000 - 1) + [[0] * 998])
        ),
        "json_members": lambda n: encode({str(i): 0 for i in range(n)}),
        "json_items": lambda n: encode([0] * n),
        "json_key_chars": lambda n: encode({"k" * n: 0}),
        "json_number_chars": lambda n: b"1" * n,
    }[field]
    decode(make(limit))
    with pytest.raises(ParseError):
        decode(make(limit + 1))


@pytest.mark.attack("ATK-079")
@pytest.mark.attack("ATK-080")
@pytest.mark.attack("ATK-081")
@pytest.mark.attack("ATK-082")
@pytest.mark.attack("ATK-087")
@pytest.mark.attack("ATK-089")
@pytest.mark.attack("ATK-090")
@pytest.mark.parametrize(
    "data",
    [
        b'{"name":"admin","name":"echo"}',
        b'{"a":{"name":1,"\\u006eame":2}}',
        b'{"x":NaN}',
        b"[-Infinity]",
        b"[Infinity]",
        b"1e999",
        b"-1e999",
        b'["\\ud800"]',
        b'"\\udc00\\ud800"',
        b'{"\\ud800":1}',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b'"\xff"',
        b"{}{}",
        b"{} x",
        b"{}\x00",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"{'a':1}",
        b"{a:1}",
        b"{/**/}",
        b"[1,]",
        b'{"a":1,}',
        b"0x10",
        b"01",
        b"+1",
        b".5",
        b"5.",
        b"True",
        b"",
        b" ",
        b'"\x00"',
        b'"\n"',
        b'"\\x41"',
        b'"\\u12"',
        b"\x0b1",
        b"1\x0c",
    ],
)
def test_what_is_no_json(data: bytes) -> None:
    for limits in (Limits(), Limits(json_nodes=1)):
        with pytest.raises(ParseError) as raised:
            decoder(limits)(data)
        assert "admin" not in raised.value.message
        assert raised.value.message.startswith("Invalid JSON")


@pytest.mark.attack("ATK-084")
def test_numbers_are_exact() -> None:
    for text in (
        b"9007199254740993",
        b"-9007199254740993",
        b"1" * 64,
        b"0.1",
        b"-0.0",
        b"1e-99999",
        b"123456789.123456789",
    ):
        assert same(decode(text), json.loads(text))
        assert same(decode(b'{"a":[%b]}' % text), {"a": [json.loads(text)]})
    assert type(decode(b"1.0")) is float
    assert type(decode(b'{"a":1.0}')["a"]) is float  # type: ignore[index]


@pytest.mark.attack("ATK-083")
@pytest.mark.attack("ATK-085")
@pytest.mark.attack("ATK-086")
@pytest.mark.parametrize(
    "data",
    [
        b"1" * 5_000,
        b"0." + b"1" * 100_000,
        b"1" * 1_000_000,
        b"[" * 1_000_000,
        b'{"a":' * 300_000,
        b"[" + b"0," * 5_000_000 + b"0]",
        b"[" + b"[]," * 2_000_000 + b"0]",
        b'"' + b"\\" * 1_000_001,
        b'"' * 1_000_000,
        b'"\\"' * 400_000,
        b"{" + b",".join(b'"%d":0' % n for n in range(200_000)) + b"}",
    ],
    ids=lambda data: data[:6].decode(),
)
def test_dear_texts_are_refused_cheaply(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ParseError):
        decode(data)
    assert time.process_time() - started < 1.0


def test_what_the_peer_wrote_is_not_in_the_refusal() -> None:
    for data in (b'{"CANARY":1,"CANARY":2}', b"CANARY", b'["CANARY', b'{"CANARY" 1}', b"[CANARY]"):
        with pytest.raises(ParseError) as raised:
            decode(data)
        assert "CANARY" not in str(raised.value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_is_written_as_one_line(text: str) -> None:
    written = encode_text(text)
    assert json.loads(written) == text
    assert b"\n" not in written
    assert b"\r" not in written
