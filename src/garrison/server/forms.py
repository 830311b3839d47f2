"""Python types as forms for the user: the flat schemas that elicitation allows.

Rules of this file:
- A form is an object of text, numbers, booleans, and choices of text. Nothing nests. Anything else does not register.
- An enumeration whose names differ from its values is published with its names as titles.
- A form never asks for a secret: a field that looks like one does not register. Secrets go through URL mode.
- What is published is less than what is checked: bounds that forms cannot say still hold for the answer.

Spec: 2026-07-28 client/elicitation, "Requested Schema".
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from typing import Annotated, cast, get_args, get_origin, get_type_hints

import msgspec

from ..errors import InvalidParams, RegistrationError
from ..protocol.schema import Schema
from ..protocol.schema_problems import resolve
from . import json_types, pydantic_types
from .sensitive import looks_secret

__all__ = ["check_form", "elicit_schema", "elicit_value"]

_FORMATS = frozenset({"email", "uri", "date", "date-time"})
_KEPT = {
    "string": ("minLength", "maxLength", "default"),
    "integer": ("minimum", "maximum", "default"),
    "number": ("minimum", "maximum", "default"),
    "boolean": ("default",),
    "array": ("minItems", "maxItems", "default"),
}


def elicit_schema(form: type[object]) -> dict[str, object]:
    """The `requestedSchema` of a dataclass, TypedDict, struct or pydantic model.

    Raises:
        RegistrationError: a field is no text, number, boolean or choice, or looks like a secret.
    """
    full, hints = _full(form), _hints(form)
    members = full.get("properties")
    if full.get("type") != "object" or not isinstance(members, dict):
        raise RegistrationError(f"{_label(form)}: a form is a dataclass, TypedDict, struct or pydantic model")
    required = cast("list[str]", full.get("required", []))
    fields: dict[str, object] = {}
    optional: set[str] = set()
    for name, schema in cast("dict[str, dict[str, object]]", members).items():
        field, nullable = _field(schema, full, hints.get(name))
        if field is None:
            raise RegistrationError(f"{_label(form)}: field {name!r} is no text, number, boolean or choice of text")
        if any(isinstance(t, str) and looks_secret(t) for t in _words(name, field)):
            raise RegistrationError(f"{_label(form)}: field {name!r} asks for a secret; use a URL (elicit_url) instead")
        fields[name] = field
        if nullable:
            optional.add(name)
    result: dict[str, object] = {"type": "object", "properties": fields}
    needed = [name for name in required if name not in optional]
    if needed:
        result["required"] = needed
    return result


def check_form(schema: Mapping[str, object]) -> None:
    """Refuse a hand-written form that the specification does not allow.

    Raises:
        RegistrationError: it is no flat object of primitives and choices, or a field looks like a secret.
    """
    fields = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(fields, Mapping):
        raise RegistrationError('a form is a schema of "type": "object" with "properties"')
    for name, field in cast("Mapping[str, object]", fields).items():
        rule = cast("Mapping[str, object]", field) if isinstance(field, Mapping) else dict[str, object]()
        if rule.get("type") not in _KEPT:
            raise RegistrationError(f"form field {name!r}: text, number, boolean or choice only")
        if any(isinstance(t, str) and looks_secret(t) for t in _words(name, rule)):
            raise RegistrationError(f"form field {name!r} asks for a secret; use a URL (elicit_url) instead")


def elicit_value(form: type[object], content: dict[str, object]) -> object:
    """The instance that a user's answer makes.

    Raises:
        InvalidParams: the answer does not fit the form. The text names fields and rules, never what was entered.
    """
    schema = _compiled(form)
    required = cast("list[str]", schema.definition.get("required", []))
    # Optional fields without a default are not asked for; leaving one out means None.
    given = {**{name: None for name in required if name not in content and _nullable(schema, name)}, **content}
    problems = schema.problems(given)
    if not problems:
        try:
            if pydantic_types.concerns(form):
                return pydantic_types.Adapter(form).load(given)
            return msgspec.convert(given, form)
        except (msgspec.ValidationError, ValueError):
            problems = ("the answer does not fit the form",)
    raise InvalidParams("Elicited content: " + "; ".join(problems))


def _label(form: object) -> str:
    return getattr(form, "__name__", "form")


def _full(form: type[object]) -> dict[str, object]:
    try:
        if pydantic_types.concerns(form):
            return json_types.tidy(pydantic_types.Adapter(form).schema())
        return json_types.published(form)
    except (TypeError, ValueError) as exc:
        raise RegistrationError(f"{_label(form)}: cannot be published as a form: {str(exc).splitlines()[-1]}") from exc


@functools.lru_cache(maxsize=128)
def _compiled(form: type[object]) -> Schema:
    return Schema(_full(form))


def _hints(form: type[object]) -> dict[str, object]:
    try:
        return get_type_hints(form, include_extras=True)
    except (NameError, TypeError):  # titles of choices are then left out
        return {}


def _nullable(schema: Schema, name: str) -> bool:
    members = cast("dict[str, dict[str, object]]", schema.definition["properties"])
    return name in members and any(b == {"type": "null"} for b in _branches(members[name]))


def _branches(schema: Mapping[str, object]) -> list[object]:
    branches = schema.get("anyOf")
    return cast("list[object]", branches) if isinstance(branches, list) else []


def _field(schema: dict[str, object], root: dict[str, object], hint: object) -> tuple[dict[str, object] | None, bool]:
    """The schema of one field as forms have it, or `None`; and whether it may be left out for being nullable."""
    outer = schema
    branches = [b for b in _branches(schema) if b != {"type": "null"}]
    nullable = len(branches) < len(_branches(schema))
    if len(branches) == 1:
        schema = {**cast("dict[str, object]", branches[0]), **{k: v for k, v in schema.items() if k != "anyOf"}}
    schema = _written_out(schema, root)
    kind = "string" if "enum" in schema else schema.get("type")
    if not isinstance(kind, str) or kind not in _KEPT:
        return None, nullable
    field: dict[str, object] = {"type": kind}
    field.update({key: outer[key] for key in ("title", "description") if key in outer})
    if kind == "array":
        items = schema.get("items")
        inner = _written_out(cast("object", items), root) if isinstance(items, dict) else {}
        choice = _choice(inner, _enumeration(hint))
        if choice is None:
            return None, nullable
        titled = choice.pop("oneOf", None)
        field["items"] = {"anyOf": titled} if titled else {"type": "string", **choice}
    elif "enum" in schema:
        choice = _choice(schema, _enumeration(hint))
        if choice is None:
            return None, nullable
        field.update(choice)
    elif kind == "string" and schema.get("format") in _FORMATS:
        field["format"] = schema["format"]
    elif kind == "string" and "contentEncoding" in schema:
        return None, nullable
    field.update({key: schema[key] for key in _KEPT[kind] if schema.get(key) is not None})
    return field, nullable


def _written_out(schema: object, root: dict[str, object]) -> dict[str, object]:
    node = cast("dict[str, object]", schema)
    reference = node.get("$ref")
    target = resolve(root, reference) if isinstance(reference, str) else None
    return node if target is None else {**target, **{k: v for k, v in node.items() if k != "$ref"}}


def _choice(schema: Mapping[str, object], kind: type[enum.Enum] | None) -> dict[str, object] | None:
    values = schema.get("enum")
    if not isinstance(values, list) or not all(isinstance(v, str) for v in cast("list[object]", values)):
        return None
    if kind is not None and any(member.name != member.value for member in kind):
        return {"oneOf": [{"const": member.value, "title": member.name.replace("_", " ")} for member in kind]}
    return {"enum": [member.value for member in kind] if kind is not None else values}


def _enumeration(hint: object) -> type[enum.Enum] | None:
    """The enumeration that a field's annotation mentions."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    found = [leaf for leaf in json_types.leaves(hint) if isinstance(leaf, type) and issubclass(leaf, enum.Enum)]
    return found[0] if len(found) == 1 else None


def _words(name: str, field: Mapping[str, object]) -> tuple[object, ...]:
    """What a form says of a field."""
    return name, field.get("title"), field.get("description"), field.get("format")
