"""What a tool returns, as structured content that fits its published output schema.

Rules of this file:
- A type whose schema is an object is published as it is. Any other is the member `result` of an object.
- Plain scalars of their own type need no check. Everything else is turned into JSON builtins and asked of the schema.
- A value that does not fit is the tool author's mistake: an internal error whose detail, for the log, names the rule.

Spec: 2026-07-28 server/tools, "Structured Content" and "Output Schema".
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Mapping
from typing import Any, cast, get_origin

import msgspec

from ..errors import InternalError, RegistrationError
from ..protocol.json import encode, encode_text
from ..protocol.schema import Schema, SchemaError
from . import json_types, pydantic_types

__all__ = ["Output", "of_annotation", "of_definition"]

_INFINITY = float("inf")
_HEAD = b'{"result":'


class Output:
    """The output schema of one tool and the way of its values into it."""

    __slots__ = ("_adapter", "_enforced", "_schema", "definition", "plain", "tool", "wrapped")

    def __init__(
        self,
        tool: str,
        definition: dict[str, object],
        *,
        wrapped: bool = False,
        plain: object = None,
        adapter: pydantic_types.Adapter | None = None,
        schema: Schema | None = None,
    ) -> None:
        self.tool = tool
        self.definition = definition
        self.wrapped = wrapped
        self._enforced = copy.deepcopy(definition) if schema is None else definition
        self.plain = plain
        self._adapter = adapter
        self._schema = schema

    def encode(self, value: object) -> bytes:
        """The structured content of a returned value, as JSON.

        Raises:
            InternalError: the value does not fit the schema.
        """
        kind = cast("object", type(value))
        if kind is self.plain:
            if kind is int:
                return b'{"result":%d}' % value
            if kind is str:
                return b'{"result":%b}' % encode_text(cast("str", value))
            if kind is bool:
                return b'{"result":true}' if value else b'{"result":false}'
            if kind is float and -_INFINITY < cast("float", value) < _INFINITY:
                return b'{"result":%b}' % encode(value)
        try:
            builtins = self._builtins(value)
        except (TypeError, ValueError, RecursionError, NotImplementedError) as exc:
            raise InternalError(
                detail=f"tool {self.tool!r} returned a value of type {type(value).__name__} that is not JSON"
            ) from exc
        structured = {"result": builtins} if self.wrapped else builtins
        self.check(structured)
        return encode(structured)

    def text_of(self, structured: bytes) -> bytes:
        """The JSON of the value alone, of what `encode` gave."""
        return structured[len(_HEAD) : -1] if self.wrapped else structured

    def check(self, structured: object) -> None:
        """Checks structured content given as JSON builtins.

        Raises:
            InternalError: it does not fit the schema.
        """
        if self._schema is None:
            self._schema = _compile(self.tool, self._enforced)
        if not self._schema.is_valid(structured):
            problems = "; ".join(self._schema.problems(structured))
            raise InternalError(detail=f"tool {self.tool!r} returned a value that breaks its output schema: {problems}")

    def _builtins(self, value: object) -> object:
        if self._adapter is not None:
            return self._adapter.dump(value)
        return cast("object", msgspec.to_builtins(value, str_keys=True, enc_hook=pydantic_types.dump))


def of_definition(tool: str, definition: Mapping[str, object]) -> Output:
    """An output with a schema written by hand.

    Raises:
        RegistrationError: the schema is not usable.
    """
    schema = _compile(tool, definition)
    return Output(tool, schema.definition, schema=schema)


def _compile(tool: str, definition: Mapping[str, object]) -> Schema:
    try:
        return Schema(definition)
    except SchemaError as exc:
        raise RegistrationError(f"tool {tool!r}: output schema: {exc}") from exc


def of_annotation(tool: str, annotation: object) -> Output | None:
    """The output of a return annotation, or `None` when it publishes none.

    No annotation, `None`, `Any`, `object`, bytes and content types publish none.

    Raises:
        RegistrationError: the type cannot be expressed.
    """
    if any(annotation is nothing for nothing in (None, type(None), Any, object)):
        return None
    if any(_is_content(leaf) for leaf in json_types.leaves(annotation)):
        return None
    try:
        adapter = pydantic_types.Adapter(annotation) if pydantic_types.concerns(annotation) else None
        schema = json_types.published(annotation) if adapter is None else json_types.tidy(adapter.schema(output=True))
    except (TypeError, ValueError) as exc:
        raise RegistrationError(
            f"tool {tool!r}: its return type cannot be published as JSON Schema ({str(exc).splitlines()[-1]}); "
            "annotate a JSON type, or pass structured_output=False or output_schema="
        ) from exc
    if schema.get("type") == "object":
        return Output(tool, schema, adapter=adapter)
    definitions = schema.pop("$defs", None)
    wrapper: dict[str, object] = {
        "type": "object",
        "properties": {"result": schema},
        "required": ["result"],
        "additionalProperties": False,
    }
    if definitions:
        wrapper["$defs"] = definitions
    plain = annotation if get_origin(annotation) is None and not isinstance(annotation, types.UnionType) else None
    return Output(tool, wrapper, wrapped=True, plain=plain, adapter=adapter)


def _is_content(leaf: object) -> bool:
    """Whether a part of a return annotation is content for the model instead of data."""
    from ..protocol import types as protocol
    from .results import ToolOutput

    marked = sys.modules.get("garrison.gate.untrusted")  # an annotation that names it has loaded it
    if marked is not None and leaf is marked.Untrusted:
        return True
    return any(
        leaf is kind
        for kind in (
            *(bytes, bytearray, memoryview, ToolOutput, protocol.CallToolResult, protocol.TextContent),
            *(protocol.ImageContent, protocol.AudioContent, protocol.ResourceLink, protocol.EmbeddedResource),
        )
    )
