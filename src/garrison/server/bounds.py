"""Bounds on the texts and arrays of arguments whose author set none: published in the schema, and enforced.

Rules of this file:
- What the author said holds, larger or smaller. Enumerations and constants need no bound.
- `bounded` does to a type what `bound` does to its schema, where msgspec's conversion alone checks the arguments.
"""

from __future__ import annotations

import types
from typing import Annotated, NamedTuple, Union, cast, get_args, get_origin

import msgspec

from .json_types import each_subschema

__all__ = ["Bounds", "bound", "bounded"]

_ENOUGH = ("enum", "const", "$ref")


class Bounds(NamedTuple):
    """`Limits.argument_chars` and `Limits.argument_items`."""

    chars: int
    items: int


def bounded(annotation: object, bounds: Bounds) -> object:
    """The type with bounds on its texts and lists, as far as it is built of JSON's own types."""
    if annotation is str:
        return Annotated[str, msgspec.Meta(max_length=bounds.chars)]
    if annotation is list:
        return Annotated[list[object], msgspec.Meta(max_length=bounds.items)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        if any(isinstance(m, msgspec.Meta) and m.max_length is not None for m in metadata):
            core = inner if inner is str else _inside(inner, bounds)
            return Annotated[(core, *metadata)]
        return Annotated[(bounded(inner, bounds), *metadata)]
    if origin is list:
        return Annotated[_inside(annotation, bounds), msgspec.Meta(max_length=bounds.items)]
    if origin in (Union, types.UnionType):
        return Union[tuple(bounded(a, bounds) for a in arguments)]  # noqa: UP007 - the members are only known now
    if origin is dict:
        return _inside(annotation, bounds)
    return annotation


def _inside(annotation: object, bounds: Bounds) -> object:
    """A container with bounds on what is in it, and none on itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        return list[bounded(arguments[0], bounds)]
    if origin is dict:
        return dict[arguments[0], bounded(arguments[1], bounds)]
    return annotation


def bound(schema: dict[str, object], bounds: Bounds) -> dict[str, object]:
    """The schema with bounds on every text and array in it that has none."""

    def add(node: object) -> object:
        copy = dict(cast("dict[str, object]", node))
        each_subschema(copy, add)
        if not any(word in copy for word in _ENOUGH):
            if copy.get("type") == "string":
                copy.setdefault("maxLength", bounds.chars)
            elif copy.get("type") == "array" and "prefixItems" not in copy:
                copy.setdefault("maxItems", bounds.items)
        return copy

    return cast("dict[str, object]", add(schema))
