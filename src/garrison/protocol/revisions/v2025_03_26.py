"""Revision 2025-03-26, as it differs from 2025-06-18.

It has batches. It has no titles but the one in a tool's annotations, no structured content, resource links or
elicitation, no context in completions, and `_meta` only in parameters and results.
"""

from __future__ import annotations

from ...errors import MissingCapability
from ..methods import V2025_03_26
from .changes import Object, as_object, as_text, drop, in_turn, structured_as_text
from .v2025_06_18 import REVISION as NEWER

__all__ = ["REVISION"]

_older_tool = drop("title", "outputSchema", "_meta")


def _tool(tool: Object) -> Object:
    annotations = as_object(tool.get("annotations")) or {}
    if "title" in tool and "title" not in annotations:
        tool = {**tool, "annotations": {**annotations, "title": tool["title"]}}
    return _older_tool(tool)


def _no_link(block: Object) -> Object:
    return as_text(block) if block.get("type") == "resource_link" else block


def _no_elicitation(params: Object) -> Object:
    raise MissingCapability({"elicitation": {}})


def _newer_initialize(params: Object) -> Object:
    capabilities = as_object(params.get("capabilities"))
    return params if capabilities is None else {**params, "capabilities": _without_elicitation(capabilities)}


_without_elicitation = drop("elicitation")
_older_item = drop("title", "_meta")
_without_meta = drop("_meta")

REVISION = NEWER.older(
    "2025-03-26",
    methods=V2025_03_26,
    elicitation=False,
    structured_content=False,
    resource_links=False,
    titles=False,
    batches=True,
    changes={
        "implementation": drop("title"),
        "clientCapabilities": _without_elicitation,
        "tools/call": structured_as_text,
        "tool": _tool,
        "resource": _older_item,
        "resourceTemplate": _older_item,
        "prompt": _older_item,
        "promptArgument": drop("title"),
        "reference": drop("title"),
        "annotations": drop("lastModified"),
        "content": in_turn(_no_link, _without_meta),
        "samplingContent": _without_meta,
        "contents": _without_meta,
        "root": _without_meta,
        ">completion/complete": drop("context"),
        "?elicitation/create": _no_elicitation,
    },
    upgrades={">initialize": _newer_initialize},
)
