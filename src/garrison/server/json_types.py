"""Python types as JSON Schema, in the shape that is published.

Rules of this file:
- The schema comes from msgspec, which also converts the values. Where the two may differ, `is_exact` is false, and a
  value is asked of the schema first.
- Objects with named members are closed. Titles that only repeat a class name are dropped. References are local.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, Union, cast, get_args, get_origin

import msgspec

from ..safe.parameter import Parameter

__all__ = ["decoded", "each_subschema", "leaves", "is_exact", "published", "tidy", "unwrap_optional"]

_ANY = "x-any"
"""Marks what `object` stands for while the schema is made: an empty schema counts as none."""
_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_EXACT: tuple[object, ...] = (int, str, bool, float, None, type(None), typing.Any, object)
_QUIET = frozenset({"title", "description", "examples", "default", "deprecated"})
"""JSON Schema keywords that say nothing about validity."""
_ONE = ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAP = ("properties", "patternProperties", "$defs")


def leaves(annotation: object) -> Iterator[object]:
    """The types and metadata that an annotation is built of, aliases written out; values of `Literal` are none."""
    origin = get_origin(annotation)
    if origin is Literal:
        return
    alias = getattr(annotation, "__value__", None) if type(annotation).__name__ == "TypeAliasType" else None
    if alias is not None:
        yield from leaves(alias)
    elif origin is Annotated:
        inner, *metadata = get_args(annotation)
        yield from leaves(inner)
        yield from metadata
    elif origin is not None:
        yield origin
        for argument in get_args(annotation):
            yield from leaves(argument)
    else:
        yield annotation


def unwrap_optional(annotation: object) -> tuple[object, bool]:
    """The annotation without `None`, and whether there was one. A union of more types keeps them."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    arguments = get_args(annotation)
    rest = tuple(a for a in arguments if a is not type(None))
    if len(rest) == len(arguments):
        return annotation, False
    return (rest[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007 - the members are only known now


def is_exact(annotation: object) -> bool:
    """Whether msgspec's strict conversion accepts what the published schema accepts, but no floats as integers."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return all(type(member.value) is str for member in annotation)
        return any(annotation is known for known in _EXACT)
    if origin is Literal:
        return all(type(value) in (str, int) for value in arguments)
    if origin is Annotated:
        return is_exact(arguments[0]) and all(map(_quiet, arguments[1:]))
    if origin is list or origin in (Union, types.UnionType):
        return all(map(is_exact, arguments))
    return origin is dict and arguments[0] is str and is_exact(arguments[1])


def _quiet(metadata: object) -> bool:
    if not isinstance(metadata, msgspec.Meta):
        return True
    extra = metadata.extra_json_schema or {}
    return (
        metadata.pattern is None
        and metadata.multiple_of is None
        and metadata.tz is None
        and all(key in _QUIET or key.startswith("x-") for key in extra)
    )


def _hook(kind: type) -> dict[str, object]:
    if kind is object:
        return {_ANY: True}
    if issubclass(kind, Parameter):
        return kind.json_schema()
    raise NotImplementedError


def decoded(kind: type, value: object) -> object:
    """A value of a type that msgspec does not know.

    Raises:
        ParameterError: it breaks a rule of the type.
    """
    if issubclass(kind, Parameter):
        return kind.from_json(value)
    if kind is object:
        return value
    raise NotImplementedError(kind.__name__)


def published(annotation: object) -> dict[str, object]:
    """The schema of a type msgspec knows, with `$defs` for what it refers to.

    Raises:
        TypeError, ValueError: the type cannot be expressed. The text says why.
    """
    (top,), definitions = msgspec.json.schema_components(
        (annotation,), schema_hook=_hook, ref_template="#/$defs/{name}"
    )
    return tidy({**top, "$defs": definitions} if definitions else top)


def tidy(schema: Mapping[str, object]) -> dict[str, object]:
    """The schema as it is published: closed objects, no noise, the top written out, only definitions that are used."""
    definitions: dict[str, object] = {}
    top = _tidy(schema, definitions)
    reference = top.get("$ref")
    if isinstance(reference, str):
        rest = {key: value for key, value in top.items() if key != "$ref"}
        top = {**cast("dict[str, object]", definitions[reference.removeprefix("#/$defs/")]), **rest}
    used: dict[str, object] = {}
    pending: list[object] = [top]
    while pending:
        for name in _references(pending.pop()):
            if name not in used and name in definitions:
                used[name] = definitions[name]
                pending.append(definitions[name])
    return {**top, "$defs": {name: definitions[name] for name in definitions if name in used}} if used else top


def _tidy(schema: object, definitions: dict[str, object], name: str | None = None) -> dict[str, object]:
    node = dict(cast("Mapping[str, object]", schema))
    stored = node.pop("$defs", None)
    if isinstance(stored, dict):
        for key, definition in cast("dict[str, object]", stored).items():
            clean = _tidy(definition, definitions, key)
            if definitions.setdefault(key, clean) != clean:
                raise ValueError(f"two types are called {key}")
    node.pop(_ANY, None)
    node.pop("discriminator", None)
    if name is not None and node.get("title") in (name, name.rpartition(".")[2]):
        del node["title"]
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
        if not node.get("required", True):
            del node["required"]
    if node.get("format") == "decimal":
        del node["format"]
        node["pattern"] = _DECIMAL
    members = node.get("properties")
    if isinstance(members, dict):
        node["properties"] = {n: _untitled(n, c) for n, c in cast("dict[str, object]", members).items()}
    each_subschema(node, lambda child: _tidy(child, definitions))
    return node


def _untitled(name: str, child: object) -> object:
    """A member's schema without a title that only spells its name."""
    if not isinstance(child, dict):
        return child
    schema = cast("dict[str, object]", child)
    spelled = name.replace("_", " ").title()
    return {key: value for key, value in schema.items() if key != "title" or value != spelled}


def each_subschema(node: dict[str, object], change: Callable[[object], object]) -> None:
    """Replaces every subschema of a schema."""
    for key in _ONE:
        child = node.get(key)
        if isinstance(child, dict):
            node[key] = change(cast("object", child))
    for key in _LIST:
        if isinstance(node.get(key), list):
            node[key] = [_changed(c, change) for c in cast("list[object]", node[key])]
    for key in _MAP:
        if isinstance(node.get(key), dict):
            members = cast("dict[str, object]", node[key]).items()
            node[key] = {n: _changed(c, change) for n, c in members}


def _changed(child: object, change: Callable[[object], object]) -> object:
    return change(cast("object", child)) if isinstance(child, dict) else child


def _references(schema: object) -> list[str]:
    found: list[str] = []

    def look(node: object) -> object:
        copy = dict(cast("dict[str, object]", node))
        reference = copy.get("$ref")
        if isinstance(reference, str):
            found.append(reference.removeprefix("#/$defs/"))
        each_subschema(copy, look)
        return copy

    look(schema)
    return found
