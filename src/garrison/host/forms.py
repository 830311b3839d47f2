"""Forms that a server asks a person to fill in: which are put to anybody, and what is sent back.

Rules of this file:
- A form is flat: text, numbers, yes or no, choices of text. What else a schema may say is refused, and so is what is
  too large to be read.
- Nobody is asked for a secret. All words of a form are read for it: names, titles, descriptions, choices, defaults, and
  the message. A form of nothing but yes and no may speak of secrets, since none can be typed into it.
- What is sent is what the person gave, once it fits the form. A default is a suggestion, and never an answer.

Spec: 2026-07-28 client/elicitation, "Requested Schema", "Form Mode Security".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, cast, final

from ..errors import NotApproved
from ..gate.hygiene import visible
from ..protocol.json import encode
from ..protocol.schema import Schema, SchemaError
from .secret_words import asks_for_secret

__all__ = ["MAX_BYTES", "MAX_CHOICES", "MAX_FIELDS", "MAX_MESSAGE", "MAX_TEXT", "Form", "check_form"]

MAX_FIELDS: Final = 32
"""Fields of a form."""
MAX_CHOICES: Final = 256
"""Choices of a field."""
MAX_MESSAGE: Final = 4096
"""Characters of what the server says of a form."""
MAX_TEXT: Final = 1024
"""Characters of a title, a description, a choice or a default; of a name, 64."""
MAX_BYTES: Final = 32 * 1024
"""Of the whole schema."""

_MAX_NAME: Final = 64

_OUTER: Final = frozenset({"$schema", "type", "title", "description", "properties", "required", "additionalProperties"})
_ANY: Final = frozenset({"type", "title", "description", "default"})
_NUMBER: Final = _ANY | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "string": _ANY | {"minLength", "maxLength", "pattern", "format", "enum", "enumNames", "oneOf"},
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": _ANY,
    "array": _ANY | {"items", "minItems", "maxItems", "uniqueItems"},
}
_FORMATS: Final = frozenset({"email", "uri", "date", "date-time"})
_ITEM: Final = ({"type", "enum"}, {"anyOf"})
_LINK: Final = re.compile(r"[a-z][a-z0-9+.-]*://|\bwww\.|\bjavascript:", re.IGNORECASE)
_WARNING: Final = re.compile(
    r"\b(?:do not|don[\'\u2019]t|never) (?:give|enter|type|share|send|include|provide|put|use)\b[^.;:!?()\n]{0,200}",
    re.IGNORECASE,
)
"""What honest servers say in a field's description: `do not give us your PIN`."""

_Json = Mapping[str, object]


@final
class Form:
    """A form that a person may be asked to fill in."""

    __slots__ = ("_schema", "fields", "reasons")

    def __init__(self, schema: Schema, fields: tuple[str, ...], reasons: tuple[str, ...]) -> None:
        self._schema = schema
        self.fields = fields
        """The names of its fields."""
        self.reasons = reasons
        """What a person should know who reads it, in the host's words."""

    def content(self, given: object) -> dict[str, object]:
        """What may be sent of what a person gave.

        Args:
            given: the content by field. None is an empty form, where there is no field at all.

        Raises:
            NotApproved: it does not fit the form. The text names fields and rules, and nothing that was given.
        """
        if given is None and not self.fields:
            given = {}
        if not isinstance(given, Mapping):
            raise NotApproved("the form was not filled in: Verdict(True, edited=...) holds its content")
        content = dict(cast("Mapping[str, object]", given))
        problems = self._schema.problems(content)
        if problems:
            raise NotApproved("what was filled in does not fit the form: " + "; ".join(problems))
        return content


def check_form(message: str, schema: Mapping[str, object]) -> Form:
    """Judge a form before anybody sees it.

    Args:
        message: what the server says of it.
        schema: its `requestedSchema`.

    Raises:
        NotApproved: it asks for a secret, is not flat, or is too large. The text says which field and why.
    """
    if len(message) > MAX_MESSAGE:
        raise NotApproved(f"the message of the form has more than {MAX_MESSAGE} characters")
    if len(encode(schema)) > MAX_BYTES:
        raise NotApproved(f"the form has more than {MAX_BYTES} bytes")
    fields = _fields(schema)
    kinds = {_check_field(name, field) for name, field in fields.items()}
    texts = [("the message", message), *_texts(schema, fields)]
    for where, text in texts:
        if where != "the message" and len(text) > MAX_TEXT:
            raise NotApproved(f"{where} has more than {MAX_TEXT} characters")
    if kinds - {"boolean"}:
        for where, text in [("the message", message), *_texts(schema, fields, warnings=False)]:
            found = asks_for_secret(text)
            if found:
                raise NotApproved(f"{where} asks for a secret ({found}), which no form may; a page (URL mode) may")
    try:
        # What was not asked for is not sent, whatever the schema says of it.
        compiled = Schema({**schema, "additionalProperties": False})
    except SchemaError as exc:
        raise NotApproved(f"the form cannot be used: {visible(str(exc))[:200]}") from None
    return Form(compiled, tuple(fields), tuple(_reasons([text for _, text in texts])))


def _fields(schema: _Json) -> dict[str, _Json]:
    unknown = schema.keys() - _OUTER
    fields, required = schema.get("properties"), schema.get("required", [])
    if unknown:
        raise NotApproved(f"the form is not flat: it has {_shown(min(unknown))}")
    said = [schema.get(key, "") for key in ("title", "description")]
    if not all(isinstance(text, str) for text in said) or not isinstance(
        schema.get("additionalProperties", True), bool
    ):
        raise NotApproved("the form is not flat: its title and description are text, additionalProperties is a boolean")
    if schema.get("type") != "object" or not isinstance(fields, dict):
        raise NotApproved('the form is no object: "type": "object" with "properties"')
    named = cast("dict[str, object]", fields)
    if len(named) > MAX_FIELDS:
        raise NotApproved(f"the form has more than {MAX_FIELDS} fields")
    if not isinstance(required, list) or not all(each in named for each in cast("list[object]", required)):
        raise NotApproved("the form requires fields that it does not have")
    for name, field in named.items():
        if not name or len(name) > _MAX_NAME or visible(name) != name:
            raise NotApproved(f"field {_shown(name)}: a name has 1 to {_MAX_NAME} characters, and none is hidden")
        if not isinstance(field, dict):
            raise NotApproved(f"field {_shown(name)} is no schema")
    return cast("dict[str, _Json]", named)


def _check_field(name: str, field: _Json) -> str:
    """The type of a field. Raises `NotApproved` for what is not flat."""
    where = f"field {_shown(name)}"
    kind = field.get("type")
    allowed = _KEYWORDS.get(kind) if isinstance(kind, str) else None
    if allowed is None:
        raise NotApproved(f"{where} is neither text, a number, yes or no, nor a choice of text")
    unknown = field.keys() - allowed
    if unknown:
        raise NotApproved(f"{where} is not flat: it has {_shown(min(unknown))}")
    if not all(isinstance(field.get(key, ""), str) for key in ("title", "description")):
        raise NotApproved(f"{where}: title and description are text")
    if "format" in field and field["format"] not in _FORMATS:
        raise NotApproved(f"{where}: a format is one of {', '.join(sorted(_FORMATS))}")
    default = field.get("default")
    plain = cast("list[object]", default) if isinstance(default, list) else [default or ""]
    if not all(isinstance(each, str | int | float) for each in plain):
        raise NotApproved(f"{where}: its default is no plain value")
    _check_choices(where, field.get("enum", []), titled=False)
    _check_choices(where, field.get("enumNames", []), titled=False)
    _check_choices(where, field.get("oneOf", []), titled=True)
    if kind == "array":
        items = field.get("items")
        choices = cast("dict[str, object]", items) if isinstance(items, dict) else {}
        if choices.keys() not in _ITEM or choices.get("type", "string") != "string":
            raise NotApproved(f"{where}: a list is one of choices of text")
        _check_choices(where, choices.get("enum", []), titled=False)
        _check_choices(where, choices.get("anyOf", []), titled=True)
    return cast("str", kind)


def _check_choices(where: str, choices: object, *, titled: bool) -> None:
    if not isinstance(choices, list) or len(cast("list[object]", choices)) > MAX_CHOICES:
        raise NotApproved(f"{where}: choices are a list of at most {MAX_CHOICES}")
    for choice in cast("list[object]", choices):
        texts = [choice]
        if titled:
            named = cast("dict[str, object]", choice) if isinstance(choice, dict) else {}
            texts = list(named.values()) if named.keys() == {"const", "title"} else [None]
        if not all(isinstance(text, str) for text in texts):
            raise NotApproved(f"{where}: a choice is a text, or has one under const and its title")


def _texts(schema: _Json, fields: Mapping[str, _Json], *, warnings: bool = True) -> Iterator[tuple[str, str]]:
    """All words of a form, and where they stand; without `warnings`, not those of a description against giving them."""
    for key in ("title", "description"):
        if isinstance(said := schema.get(key), str):
            yield f"the form's {key}", said
    for name, field in fields.items():
        where = f"field {_shown(name)}"
        yield where, name
        for key, value in field.items():
            for text in _strings(value) if key not in ("type", "format") else ():
                yield where, text if warnings or key != "description" else _WARNING.sub("", text)


def _strings(value: object) -> Iterator[str]:
    """The strings of a field, which is flat, without the names of its members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in cast("dict[str, object]", value).items():
            if key != "type":
                yield from _strings(member)
    elif isinstance(value, list):
        for member in cast("list[object]", value):
            yield from _strings(member)


def _reasons(texts: list[str]) -> Iterator[str]:
    if any(_LINK.search(text) for text in texts):
        yield "its words hold an address, which nobody has checked"
    if any(visible(text) != text for text in texts):
        yield "its words hold hidden characters, which are written out here"


def _shown(name: str) -> str:
    return repr(visible(name[:_MAX_NAME]))
