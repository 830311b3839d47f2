"""Revision 2025-06-18, as it differs from 2025-11-25.

It has no icons, no tools or lists of content in sampling, and no URL elicitation; a form has plain strings, numbers,
booleans and single choices, and only a boolean has a default. Invalid tool input is a protocol error.
"""

from __future__ import annotations

from ...errors import MissingCapability
from ..methods import V2025_06_18
from .changes import Object, as_list, as_object, as_text, drop, in_turn
from .v2025_11_25 import REVISION as NEWER

__all__ = ["REVISION"]

_without_default = drop("default")
_without_one_of = drop("oneOf")
_without_mode = drop("mode")
_without_schema = drop("$schema")
_without_icons = drop("icons")
_without_extensions = drop("extensions")


def _form(params: Object) -> Object:
    if params.get("mode") == "url":
        raise MissingCapability({"elicitation": {"url": {}}})
    return _without_mode(params)


def _form_schema(schema: Object) -> Object:
    properties = as_object(schema.get("properties")) or {}
    fields = {name: item if (one := as_object(item)) is None else _field(one) for name, item in properties.items()}
    return {**_without_schema(schema), "properties": fields}


def _field(schema: Object) -> Object:
    kind = schema.get("type")
    if kind == "array":
        # A choice of several cannot be asked here, and asking something else would give the handler another answer.
        raise MissingCapability({"elicitation": {"form": {}}})
    if kind != "boolean":
        schema = _without_default(schema)
    options = [one for item in as_list(schema.get("oneOf")) or () if (one := as_object(item)) is not None]
    if not options:
        return schema
    return {
        **_without_one_of(schema),
        "enum": [option.get("const") for option in options],
        "enumNames": [option.get("title") for option in options],
    }


def _one_block_each(params: Object) -> Object:
    messages: list[object] = []
    for item in as_list(params.get("messages")) or ():
        message = as_object(item)
        blocks = None if message is None else as_list(message.get("content"))
        if message is None or blocks is None:
            messages.append(item)
        else:
            messages.extend({**message, "content": block} for block in blocks)
    return {**params, "messages": messages}


def _no_tool_block(block: Object) -> Object:
    return as_text(block) if block.get("type") in ("tool_use", "tool_result") else block


def _one_block(answer: Object) -> Object:
    blocks = as_list(answer.get("content"))
    if blocks is None:
        return answer
    if len(blocks) == 1:
        return {**answer, "content": blocks[0]}
    texts = [str(as_text(block)["text"]) for item in blocks if (block := as_object(item)) is not None]
    return {**answer, "content": {"type": "text", "text": "\n".join(texts)}}


def _client_capabilities(capabilities: Object) -> Object:
    older = dict(_without_extensions(capabilities))
    if "sampling" in older:
        older["sampling"] = {}
    if (modes := as_object(older.pop("elicitation", None))) is not None and ("form" in modes or not modes):
        # An object without modes means form.
        older["elicitation"] = {}
    return older


def _newer_initialize(params: Object) -> Object:
    capabilities = as_object(params.get("capabilities"))
    if capabilities is None:
        return params
    newer = dict(capabilities)
    for name, part in (("sampling", "context"), ("elicitation", "form")):
        if isinstance(newer.get(name), dict):
            newer[name] = {part: {}}
    return {**params, "capabilities": newer}


REVISION = NEWER.older(
    "2025-06-18",
    methods=V2025_06_18,
    input_errors_in_result=False,
    url_elicitation=False,
    sampling_tools=False,
    icons=False,
    changes={
        "implementation": drop("icons", "description", "websiteUrl"),
        "serverCapabilities": _without_extensions,
        "clientCapabilities": _client_capabilities,
        "tool": _without_icons,
        "resource": _without_icons,
        "resourceTemplate": _without_icons,
        "prompt": _without_icons,
        "content": _without_icons,
        "?elicitation/create": _form,
        "formSchema": _form_schema,
        "?sampling/createMessage": in_turn(drop("tools", "toolChoice"), _one_block_each),
        "samplingMessage": drop("_meta"),
        "samplingContent": _no_tool_block,
        "sampling/createMessage": _one_block,
    },
    upgrades={">initialize": _newer_initialize},
)
