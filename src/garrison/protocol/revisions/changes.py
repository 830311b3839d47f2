"""Small changes of one JSON object, the vocabulary in which the revisions say how they differ.

A change takes an object and returns it, or a new one; it never alters what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

__all__ = [
    "Change",
    "Object",
    "as_list",
    "as_object",
    "as_text",
    "drop",
    "drop_meta",
    "in_turn",
    "object_properties",
    "only_object_schema",
    "only_object_structured",
    "structured_as_text",
]

Object = dict[str, object]
Change = Callable[[Object], Object]


def as_object(value: object) -> Object | None:
    """The value if it is a JSON object, else None."""
    return cast("Object", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object] | None:
    """The value if it is a JSON array, else None."""
    return cast("list[object]", value) if isinstance(value, list) else None


def in_turn(*steps: Change) -> Change:
    """These changes, one after the other."""

    def change(value: Object) -> Object:
        for step in steps:
            value = step(value)
        return value

    return change


def drop(*names: str) -> Change:
    """Leave these members out."""
    gone = frozenset(names)

    def change(value: Object) -> Object:
        if gone.isdisjoint(value):
            return value
        return {name: item for name, item in value.items() if name not in gone}

    return change


def drop_meta(*keys: str) -> Change:
    """Leave these keys out of `_meta`, and `_meta` out when nothing else was in it."""
    without = drop(*keys)
    no_meta = drop("_meta")

    def change(value: Object) -> Object:
        meta = as_object(value.get("_meta"))
        if meta is None:
            return value
        kept = without(meta)
        if kept is meta:
            return value
        return {**value, "_meta": kept} if kept else no_meta(value)

    return change


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def as_text(block: Object) -> Object:
    """A content block as a text block that says the same as far as text can. Annotations stay."""
    match block.get("type"):
        case "text":
            return block
        case "resource_link":
            text = f"{block.get('title') or block.get('name')}: {block.get('uri')}"
            if description := block.get("description"):
                text += f"\n{description}"
        case "tool_use":
            text = f"{block.get('name')}({_json(block.get('input'))})"
        case "tool_result":
            items = [as_object(item) for item in as_list(block.get("content")) or ()]
            text = "\n".join(str(as_text(item).get("text", "")) for item in items if item is not None)
            if not text and "structuredContent" in block:
                text = _json(block["structuredContent"])
        case kind:
            text = f"[{kind} {block.get('mimeType', '')}]".replace(" ]", "]")
    plain: Object = {"type": "text", "text": text}
    if "annotations" in block:
        plain["annotations"] = block["annotations"]
    if "_meta" in block:
        plain["_meta"] = block["_meta"]
    return plain


def only_object_structured(value: Object) -> Object:
    """Leave out `structuredContent` that is no object; when there is no other content, say it as text."""
    if "structuredContent" not in value or isinstance(value["structuredContent"], dict):
        return value
    return structured_as_text(value)


def structured_as_text(value: Object) -> Object:
    """Leave out `structuredContent`; when there is no other content, say it as text."""
    if "structuredContent" not in value:
        return value
    plain = {name: item for name, item in value.items() if name != "structuredContent"}
    if not plain.get("content"):
        plain["content"] = [{"type": "text", "text": _json(value["structuredContent"])}]
    return plain


def only_object_schema(name: str) -> Change:
    """Leave out the schema in this member unless its type is object."""
    without = drop(name)

    def change(value: Object) -> Object:
        if name not in value:
            return value
        schema = as_object(value[name])
        return value if schema is not None and schema.get("type") == "object" else without(value)

    return change


def object_properties(name: str) -> Change:
    """Write the properties of the schema in this member as objects where they are `true` or `false`."""

    def change(value: Object) -> Object:
        schema = as_object(value.get(name)) or {}
        properties = as_object(schema.get("properties")) or {}
        if not any(isinstance(item, bool) for item in properties.values()):
            return value
        written = {key: _schema_object(item) for key, item in properties.items()}
        return {**value, name: {**schema, "properties": written}}

    return change


def _schema_object(schema: object) -> object:
    if schema is True:
        return {}
    return {"not": {}} if schema is False else schema
