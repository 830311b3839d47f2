"""RFC 8785: the RFC's own examples, a witness of ten thousand numbers, and what has no canonical form."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.host.canonical import CanonicalError, canonical

pytestmark = pytest.mark.client

# RFC 8785 appendix B: bits of a double, and how it is written.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


def double(bits: int) -> float:
    return struct.unpack(">d", struct.pack(">Q", bits))[0]


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_of_the_rfc(bits: str, text: str) -> None:
    assert canonical(double(int(bits, 16))) == text.encode()


def numbers() -> Iterator[float]:
    """Where exponents begin and end, the least normal numbers, then doubles of a chain of SHA-256."""
    for exponent in range(-330, 309):
        power = float(f"1e{exponent}")
        yield from (power, math.nextafter(power, 0), -math.nextafter(power, 1e300))
    yield from (double(0x0010000000000000 + i) for i in range(500))
    block = bytes(32)
    while True:
        block = hashlib.sha256(block).digest()
        yield from (each for each in struct.unpack("<4d", block) if math.isfinite(each))


def test_ten_thousand_numbers_as_a_javascript_engine_writes_them() -> None:
    # The digest is of the same lines as V8 made them, with JSON.stringify.
    digest = hashlib.sha256()
    for _, number in zip(range(10_000), numbers(), strict=False):
        bits = struct.unpack(">Q", struct.pack(">d", number))[0]
        digest.update(b"%x,%s\n" % (bits, canonical(number)))
    assert digest.hexdigest() == "a013792c6fac982d12bbd13a2b000273cc7f755da639b713dfde9e7bc64e5549"


NAMES = r"""{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
 "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"""
SORTED = """{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis",\
"\u20ac":"Euro Sign","\U0001f600":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}"""
SAMPLE = r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
 "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
WRITTEN = """{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
"string":"\u20ac$\\u000f\\nA'B\\"\\\\\\\\\\"/"}"""
EXAMPLES = [
    (SAMPLE, WRITTEN),
    (NAMES, SORTED),
    ('[56,{"d":true,"10":null,"1":[ ]}]', '[56,{"1":[],"10":null,"d":true}]'),
    (r'{"1":{"\n":56.0},"":"empty","a":{},"A":{}}', r'{"":"empty","1":{"\n":56},"A":{},"a":{}}'),
    (r'{"Unnormalized Unicode":"A\u030a"}', '{"Unnormalized Unicode":"A\u030a"}'),
]


@pytest.mark.parametrize(("given", "wanted"), EXAMPLES)
def test_objects_of_the_rfc(given: str, wanted: str) -> None:
    assert canonical(json.loads(given)) == wanted.encode()


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 10**400, "\ud800", {"\udfff": 1}, {1: "a"},
        {None: "a"}, b"bytes", Decimal(1), {1, 2}, object(),
    ],
)  # fmt: skip
def test_what_has_no_canonical_form_is_refused_wherever_it_stands(value: object) -> None:
    for whole in (value, [value], {"a": {"b": [0, value]}}):
        with pytest.raises(CanonicalError):
            canonical(whole)


def test_integers_that_a_double_holds_are_written_as_that_double() -> None:
    assert canonical(2**53) == b"9007199254740992" == canonical(2.0**53)
    assert canonical(-(2**53) + 1) == b"-9007199254740991"
    assert canonical(10**21) == b"1e+21" and canonical(2**63) == b"9223372036854776000"


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    assert canonical(nested(256)) == b"[" * 256 + b"1" + b"]" * 256
    for depth in (257, 100_000):
        with pytest.raises(CanonicalError, match="deeper"):
            canonical(nested(depth))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def reversed_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reversed_order(value[name]) for name in reversed(value)}
    return [reversed_order(item) for item in value] if isinstance(value, list) else value


def read(text: bytes) -> Any:
    """As RFC 8785 reads JSON: a number is a double."""
    return json.loads(text, parse_int=float)


@given(JSON)
def test_it_is_the_same_value_and_the_same_again(value: Any) -> None:
    text = canonical(value)
    assert read(text) == value
    assert canonical(read(text)) == text == canonical(reversed_order(value))


@given(st.dictionaries(st.text(), st.none()))
def test_names_are_in_the_order_of_their_utf_16_code_units(members: dict[str, None]) -> None:
    names = list(json.loads(canonical(members)))
    assert names == sorted(members, key=lambda name: name.encode("utf-16-be"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_back_as_it_was(number: float) -> None:
    text = canonical(number).decode()
    assert float(text) == number
    digits = text.lstrip("-").partition("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 17
