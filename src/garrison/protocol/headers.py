"""Body values mirrored into HTTP headers: encoding, annotations in schemas, and the check that both agree.

Rules of this file:
- A header that stands for a body value is believed only after it was compared with the body.
- What cannot travel as plain visible ASCII travels as `=?base64?...?=`, and only its canonical form is read back.
- A schema with one wrong `x-mcp-header` has no mirrors at all: the tool is not listed.
- Header values arrive as the HTTP layer hands them over: the white space around them is already gone (RFC 9110, 5.5).
- What a peer wrote appears in a message only as at most 64 printable ASCII characters.

Spec: 2026-07-28 basic/transports/streamable-http, "Request Metadata"; server/tools, "x-mcp-header".
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Final, Literal, cast

import msgspec

from ..errors import HeaderMismatch

__all__ = [
    "Mirror",
    "MirrorError",
    "check_name",
    "check_params",
    "decode_value",
    "encode_value",
    "mirrors",
    "param_headers",
]

Kind = Literal["string", "integer", "boolean"]

SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer, either sign, that every peer reads exactly (RFC 7493, section 2.2)."""

_ANNOTATION = "x-mcp-header"
_KINDS: dict[str, Kind] = {"string": "string", "integer": "integer", "boolean": "boolean"}
_KIND_OF: dict[type, Kind] = {str: "string", int: "integer", bool: "boolean"}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]{0,15}))(?:\.0{1,16})?")
_PREFIX = "=?base64?"
_SUFFIX = "?="
_SHOWN = 64
# Keywords whose members are named by the author, so that a member called "x-mcp-header" is no annotation.
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
# Keywords that hold instance data.
_DATA = frozenset({"const", "default", "enum", "examples"})


class MirrorError(ValueError):
    """An `x-mcp-header` annotation breaks a rule, or an argument cannot be mirrored. The message says which and why."""


class Mirror(msgspec.Struct, frozen=True):
    """One property that travels in a header too.

    `header` is the field name as written (`Mcp-Param-Region`), `field` the same in lower case, `path` the property
    names from the root of the arguments, `kind` the JSON Schema type.
    """

    header: str
    field: str
    path: tuple[str, ...]
    kind: Kind


def encode_value(value: str | int | bool) -> str:
    """A value as header text.

    Raises:
        ValueError: an integer outside plus or minus 2**53 - 1, or a text with an unpaired surrogate.

    Spec: "Value Encoding".
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise ValueError("integer outside the range that a header may carry")
        return str(value)
    plain = value.isascii() and value.isprintable() and value == value.strip(" ")
    if plain and not (value.startswith(_PREFIX) and value.endswith(_SUFFIX)):
        return value
    return _PREFIX + b2a_base64(value.encode(), newline=False).decode("ascii") + _SUFFIX


def decode_value(text: str) -> str:
    """The value that header text stands for; text without the exact prefix and suffix stands for itself.

    Raises:
        HeaderMismatch: characters a header may not hold, or Base64 that is not canonical, padded UTF-8.
    """
    if len(text) < len(_PREFIX) + len(_SUFFIX) or not (text.startswith(_PREFIX) and text.endswith(_SUFFIX)):
        if not text.isascii() or not text.replace("\t", " ").isprintable():
            raise HeaderMismatch("Header mismatch: a header value holds invalid characters")
        return text
    body = text[len(_PREFIX) : -len(_SUFFIX)]
    try:
        raw = a2b_base64(body, strict_mode=True)
        value = raw.decode()
    except (Base64Error, ValueError):
        raise HeaderMismatch("Header mismatch: a header value holds invalid Base64") from None
    if b2a_base64(raw, newline=False).decode("ascii") != body:
        raise HeaderMismatch("Header mismatch: a header value holds invalid Base64")
    return value


def mirrors(input_schema: object) -> tuple[Mirror, ...]:
    """The mirrored properties of an input schema, outermost first.

    Args:
        input_schema: the tool's `inputSchema` as a JSON value.

    Raises:
        MirrorError: an annotation anywhere in the schema is not allowed; the tool must not be offered.

    Spec: "Schema Extension".
    """
    found: dict[str, Mirror] = {}
    # Every place where a subschema may stand; with its path where nothing but `properties` leads to it, else with None.
    places: list[tuple[object, tuple[str, ...] | None]] = [(input_schema, ())]
    for place, path in places:
        if isinstance(place, list):
            places.extend((item, None) for item in cast("list[object]", place))
        if not isinstance(place, dict):
            continue
        schema = cast("dict[str, object]", place)
        if _ANNOTATION in schema:
            mirror = _mirror(schema, path)
            if found.setdefault(mirror.field, mirror) is not mirror:
                raise MirrorError(f"{_ANNOTATION} {_show(mirror.header)} is used twice")
        for keyword, value in schema.items():
            if keyword in _SCHEMA_MAPS and isinstance(value, dict):
                chain = path if keyword == "properties" else None
                for name, member in cast("dict[str, object]", value).items():
                    places.append((member, None if chain is None else (*chain, name)))
            elif keyword not in _DATA and isinstance(value, dict | list):
                places.append((cast("object", value), None))
    return tuple(found.values())


def _mirror(schema: dict[str, object], path: tuple[str, ...] | None) -> Mirror:
    if not path:
        raise MirrorError(f"{_ANNOTATION} stands where no chain of properties leads")
    where = _show(".".join(path))
    name = schema[_ANNOTATION]
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise MirrorError(f"{_ANNOTATION} of {where} is not an HTTP field name")
    declared = schema.get("type")
    kind = _KINDS.get(declared) if isinstance(declared, str) else None
    if kind is None:
        raise MirrorError(f"{_ANNOTATION} of {where} needs the type string, integer or boolean")
    header = "Mcp-Param-" + name
    return Mirror(header, header.lower(), path, kind)


def param_headers(mirrors: tuple[Mirror, ...], arguments: object) -> list[tuple[str, str]]:
    """The headers a client sends with these arguments; nothing for what is absent or null.

    Raises:
        MirrorError: an argument is not of its mirror's type, or an integer is out of range.

    Spec: "Client Behavior".
    """
    headers: list[tuple[str, str]] = []
    for mirror in mirrors:
        value = _at(arguments, mirror.path)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        kind = _KIND_OF.get(type(value))
        if not isinstance(value, str | int) or kind != mirror.kind:
            raise MirrorError(f"argument {_show('.'.join(mirror.path))} is not of type {mirror.kind}")
        try:
            headers.append((mirror.header, encode_value(value)))
        except ValueError as error:
            raise MirrorError(f"argument {_show('.'.join(mirror.path))}: {error}") from None
    return headers


def check_params(mirrors: tuple[Mirror, ...], arguments: object, get_header: Callable[[str], str | None]) -> None:
    """Hold the mirrored headers of a request against its arguments.

    Args:
        mirrors: of the tool that is called.
        arguments: the JSON value of `params.arguments`, or None.
        get_header: gives the value of a field by its lower-case name, or None.

    Raises:
        HeaderMismatch: a header is missing, malformed, unexpected, or says something else than the body.

    Spec: "Server Behavior for Custom Headers".
    """
    for mirror in mirrors:
        text = get_header(mirror.field)
        value = _at(arguments, mirror.path)
        if text is None:
            if value is not None:
                raise HeaderMismatch(f"Header mismatch: {_show(mirror.header)} header is missing")
        elif value is None:
            raise HeaderMismatch(f"Header mismatch: {_show(mirror.header)} header has no value in the body")
        elif not _same(decode_value(text), value):
            raise HeaderMismatch(f"Header mismatch: {_show(mirror.header)} header does not match the body value")


def _same(text: str, value: object) -> bool:
    if isinstance(value, str):
        return text == value
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, int | float):
        match = _INTEGER.fullmatch(text)
        return match is not None and abs(value) <= SAFE_INTEGER and int(match[1]) == value
    return False


def check_name(header_value: str | None, body_value: str) -> None:
    """Hold the `Mcp-Name` header against the name or URI in the body.

    Raises:
        HeaderMismatch: it is missing, malformed, or differs.

    Spec: "Standard Request Headers", "Server Validation".
    """
    if header_value is None:
        raise HeaderMismatch("Header mismatch: Mcp-Name header is missing")
    name = decode_value(header_value)
    if name != body_value:
        raise HeaderMismatch(
            f"Header mismatch: Mcp-Name header value '{_show(name)}' does not match body value '{_show(body_value)}'"
        )


def _at(arguments: object, path: tuple[str, ...]) -> object:
    value = arguments
    for name in path:
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, object]", value).get(name)
    return value


def _show(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_SHOWN])
