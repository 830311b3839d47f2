"""Arguments mirrored into headers: a schema is refused or gives mirrors; what a client sends for them passes the
server's check, and nothing else does."""

from __future__ import annotations

import json
import re
from typing import Any

from fuzz.oracle import Finding, agree, hold, parts
from garrison.errors import HeaderMismatch, ParseError
from garrison.policy import Limits
from garrison.protocol.headers import MirrorError, check_params, mirrors, param_headers
from garrison.protocol.json import decoder

_SCHEMA = b'{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer",'
_SCHEMA += (
    b'"x-mcp-header":"Count"},"o":{"type":"object","properties":{"b":{"type":"boolean","x-mcp-header":"Deep"}}}}}'
)
SEEDS = (
    _SCHEMA + b'\n{"r":"eu","n":3,"o":{"b":true}}\nus',
    _SCHEMA + b'\n{"r":"\\u00e9 ","n":3.0}\n3.0',
    _SCHEMA + b'\n{"r":null,"n":1e3,"o":[]}\n',
    b'{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}\n{}\n',
    b'{"anyOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}\n{}\n',
    b'{"properties":{"x-mcp-header":{"type":"string"}},"default":{"x-mcp-header":1},"x-mcp-header":"A"}\n{}\n',
)
WORDS = tuple(
    b'"x-mcp-header": "type": "string" "integer" "boolean" "number" "properties": "$defs": "items": "anyOf": "default":'
    b' true false null 1 1.0 1.5 9007199254740992 "=?base64?YQ==?=" "\\ud83d\\ude00" {} []'.split()
)
_decode = decoder(Limits(json_depth=30, json_nodes=300))


def check(data: bytes) -> None:
    first, second, other = parts(data, 3)
    try:
        schema, arguments = _decode(first), _decode(second)
    except ParseError:
        return
    try:
        found = mirrors(schema)
    except MirrorError as error:
        hold(len(str(error)) < 300, "what is said", str(error))
        return
    agree("annotations", len(found), sum(1 for _ in annotated(schema)))
    for mirror in found:
        hold(re.fullmatch(r"Mcp-Param-[!#$%&'*+\-.^_`|~0-9A-Za-z]+", mirror.header), "header", mirror.header)
        place: Any = schema
        for name in mirror.path:
            place = place["properties"][name]
        agree("path", (place["x-mcp-header"], place["type"]), (mirror.header[10:], mirror.kind))
    try:
        fields = {name.lower(): value for name, value in param_headers(found, arguments)}
    except MirrorError:
        return
    check_params(found, arguments, fields.get)
    text = other.decode("latin-1")
    for name, value in fields.items():
        for changed in (text, value + "0", None):
            must_differ(found, arguments, {**fields, name: changed}, name)
    for mirror in found:
        if mirror.field not in fields:
            must_differ(found, arguments, {**fields, mirror.field: text}, mirror.field)


def annotated(place: object) -> Any:
    """Annotations of a schema that was taken: all lead through `properties`, so only there is looked."""
    if isinstance(place, dict):
        if "x-mcp-header" in place:
            yield place
        members = place.get("properties")
        if isinstance(members, dict):
            for member in members.values():
                yield from annotated(member)


def must_differ(found: Any, arguments: object, fields: dict[str, str | None], name: str) -> None:
    """A changed header is refused, unless it says the same in another way."""
    try:
        check_params(found, arguments, fields.get)
    except HeaderMismatch:
        return
    mirror = next(each for each in found if each.field == name)
    value: Any = arguments
    for key in mirror.path:
        value = value.get(key) if isinstance(value, dict) else None
    said = fields[name]
    from fuzz.targets.headers import reference

    told = None if said is None else reference(said)
    if isinstance(value, str) and told == value:
        return
    if isinstance(value, bool) and told == json.dumps(value):
        return
    if type(value) in (int, float) and told and re.fullmatch(r"-?[0-9]+(\.0+)?", told) and float(told) == value:
        return
    raise Finding(f"passed: {name}: {said!r} for {value!r}")
