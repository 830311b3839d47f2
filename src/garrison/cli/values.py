"""`name=value` words as JSON values, by the tool's own schema.

Rules of this file:
- Where the schema allows text, the word is taken as it stands. Everywhere else it is JSON: `3`, `true`, `["a"]`.
- A word that cannot be of its type is refused here, with the type named; all further checks are the server's.

Spec: 2026-07-28 server/tools "Tool" (inputSchema).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from ..errors import ConfigurationError, ParseError
from ..policy import Limits
from ..protocol.json import decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["json_object", "pairs", "typed"]

_decode: Final = decoder(Limits())
_NESTING: Final = 16
_NAMES: Final[tuple[tuple[type[object], str], ...]] = (
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def pairs(words: Iterable[str]) -> dict[str, str]:
    """`name=value` words as a dict.

    Raises:
        ConfigurationError: a word has no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"argument {word!r}: must be name=value")
        if name in found:
            raise ConfigurationError(f"argument {name!r} is given twice")
        found[name] = value
    return found


def json_object(text: str) -> dict[str, object]:
    """The object of `--json-args`.

    Raises:
        ConfigurationError: it is not strict JSON, or not an object.
    """
    try:
        value = _decode(text.encode())
    except (ParseError, UnicodeEncodeError) as exc:
        raise ConfigurationError(f"--json-args: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigurationError("--json-args: must be one JSON object")
    return cast("dict[str, object]", value)


def typed(words: Mapping[str, str], schema: Mapping[str, object]) -> dict[str, object]:
    """The words as the values that the schema asks for.

    Args:
        words: by name.
        schema: the tool's `inputSchema`.

    Raises:
        ConfigurationError: a value cannot be of its type. Names that the schema does not have are passed on as text,
            for the server to judge.
    """
    properties = schema.get("properties")
    rules = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    return {name: _value(name, text, _types(rules.get(name, True), schema, 0)) for name, text in words.items()}


def _value(name: str, text: str, types: frozenset[str]) -> object:
    if "string" in types:
        return text
    try:
        value = _decode(text.encode())
    except (ParseError, UnicodeEncodeError):
        if not types:
            return text  # anything goes
        value = text
    if types and not types & _types_of(value):
        raise ConfigurationError(f"argument {name}={text}: must be {' or '.join(sorted(types))}")
    return value


def _types_of(value: object) -> frozenset[str]:
    """The JSON Schema types that a parsed value is of."""
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return frozenset({"integer", "number"})
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return frozenset({name})
    return frozenset({"null"})


def _types(rule: object, root: Mapping[str, object], depth: int) -> frozenset[str]:
    """The types that a schema names, its alternatives included; none when it does not say."""
    if not isinstance(rule, dict) or depth > _NESTING:
        return frozenset()
    rule = cast("dict[str, object]", rule)
    kind = rule.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, list):
        return frozenset(name for name in cast("list[object]", kind) if isinstance(name, str))
    if "const" in rule:
        return _types_of(rule["const"])
    listed = rule.get("enum")
    if isinstance(listed, list):
        return frozenset[str]().union(*map(_types_of, cast("list[object]", listed)))
    reference = rule.get("$ref")
    if isinstance(reference, str):
        return _types(_local(reference, root), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        options = rule.get(name)
        if isinstance(options, list):
            kinds = [_types(option, root, depth + 1) for option in cast("list[object]", options)]
            return frozenset[str]().union(*kinds)
    return frozenset()


def _local(reference: str, root: Mapping[str, object]) -> object:
    """What a `#/...` pointer names in the schema (RFC 6901); None when it names nothing."""
    if not reference.startswith("#/"):
        return None
    place: object = root
    for step in reference[2:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        place = cast("Mapping[str, object]", place).get(step) if isinstance(place, dict) else None
    return place
