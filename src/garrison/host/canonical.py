"""The one spelling of a JSON value: JSON Canonicalization Scheme, RFC 8785.

Rules of this file:
- Two values have the same bytes just when they are the same JSON value: the order of members, white space and the way a
  number is written do not count; Unicode is left as it is, and not normalized.
- What has no such spelling is an error and never another value: NaN and infinities, integers that no IEEE 754 double
  holds, lone surrogates, member names that are no text, types that JSON does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from ..errors import GarrisonError
from ..protocol.json import encode

__all__ = ["CanonicalError", "canonical"]

_DEPTH: Final = 256
_EXACT: Final = 2**53


class CanonicalError(GarrisonError):
    """The value has no canonical form. The text names the rule and never the value."""


def canonical(value: object) -> bytes:
    """The canonical JSON text of a value, as UTF-8.

    Args:
        value: dict or other mapping, list, tuple, str, int, float, bool or None, and such inside; at most 256 deep.

    Raises:
        CanonicalError: it has none.

    Spec: RFC 8785 section 3.2; numbers as ECMA-262 Number::toString (section 3.2.2.3).
    """
    parts: list[bytes] = []
    try:
        _write(value, parts, _DEPTH)
    except UnicodeEncodeError:
        raise CanonicalError("a lone surrogate is no text (RFC 8785 section 3.2.2.2)") from None
    return b"".join(parts)


def _write(value: object, parts: list[bytes], depth: int) -> None:
    if value is None or value is True or value is False:
        parts.append(b"null" if value is None else b"true" if value else b"false")
    elif isinstance(value, str):
        parts.append(encode(value))  # it escapes what section 3.2.2.2 wants escaped, in that way, and nothing else
    elif isinstance(value, int):
        parts.append(_integer(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif depth == 0:
        raise CanonicalError(f"nested deeper than {_DEPTH}")
    elif isinstance(value, list | tuple):
        before = b"["
        for item in cast("list[object]", value):
            parts.append(before)
            _write(item, parts, depth - 1)
            before = b","
        parts.append(b"]" if before == b"," else b"[]")
    elif isinstance(value, Mapping):
        before = b"{"
        for name, item in _sorted(cast("Mapping[object, object]", value)):
            parts += (before, encode(name), b":")
            _write(item, parts, depth - 1)
            before = b","
        parts.append(b"}" if before == b"," else b"{}")
    else:
        raise CanonicalError(f"{type(value).__name__} is no JSON type")


def _sorted(members: Mapping[object, object]) -> list[tuple[str, object]]:
    """Members by the UTF-16 code units of their names, section 3.2.3."""
    ascii_only = True
    for name in members:
        if type(name) is not str:
            raise CanonicalError("a member name that is no text")
        ascii_only = ascii_only and name.isascii()
    named = cast("list[tuple[str, object]]", list(members.items()))
    named.sort(key=_name if ascii_only else _code_units)
    return named


def _name(member: tuple[str, object]) -> str:
    return member[0]


def _code_units(member: tuple[str, object]) -> bytes:
    return member[0].encode("utf-16-be")


def _integer(value: int) -> bytes:
    if -_EXACT <= value <= _EXACT:
        return b"%d" % value
    try:
        nearest = float(value)
    except OverflowError:
        nearest = 0.0
    if nearest != value:
        raise CanonicalError("an integer that no IEEE 754 double holds (RFC 8785 section 3.2.2.3)")
    return _number(nearest)


def _number(value: float) -> bytes:
    """ECMA-262 Number::toString. Both that and `repr` take the shortest digits that are read back as this double, and
    of those the nearest; where the point stands, and from where on there is an exponent, differs."""
    if value == 0:
        return b"0"
    if value - value != 0:
        raise CanonicalError("NaN and infinities are no JSON (RFC 8785 section 3.2.2.3)")
    sign, size = ("-", -value) if value < 0 else ("", value)
    mantissa, _, exponent = repr(size).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or "0")  # how many digits stand before the point
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{point - 1:+d}"
    return (sign + text).encode()
