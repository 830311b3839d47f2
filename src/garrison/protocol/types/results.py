"""Results. `CallToolResult | InputRequiredResult` can be read as one: `resultType` tells them apart.

A server's result always carries `resultType`, and a cacheable one `ttlMs` and `cacheScope`. A client's answer to a
question has none of them. Spec: 2026-07-28 basic "Results", server/utilities/caching.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import field

from .content import ContentBlock, PromptMessage, ResourceContents, Role, SamplingContent
from .features import (
    Implementation,
    Prompt,
    Resource,
    ResourceTemplate,
    Root,
    ServerCapabilities,
    Tool,
)
from .params import InputRequest
from .wire import UNSET, Meta, Number, UnsetType, Value, Wire

__all__ = [
    "ANSWERS",
    "RESULTS",
    "CacheScope",
    "CacheableResult",
    "CallToolResult",
    "CompleteResult",
    "Completion",
    "CreateMessageResult",
    "DiscoverResult",
    "ElicitResult",
    "EmptyResult",
    "GetPromptResult",
    "InitializeResult",
    "InputRequiredResult",
    "ListPromptsResult",
    "ListResourceTemplatesResult",
    "ListResourcesResult",
    "ListRootsResult",
    "ListToolsResult",
    "PaginatedResult",
    "ReadResourceResult",
    "Result",
    "SubscriptionsListenResult",
]

CacheScope = Literal["public", "private"]


def _private() -> CacheScope:
    return "private"


class Result(Meta, tag_field="resultType", tag="complete", frozen=True):
    """Base of a server's results."""


class EmptyResult(Result, frozen=True):
    """Done, and nothing to say."""


class InputRequiredResult(Result, tag="input_required", frozen=True):
    """The server needs answers first: ask, then send the request again with them and the state unchanged."""

    input_requests: dict[str, InputRequest] | None = None
    request_state: str | None = None


class CacheableResult(Result, kw_only=True, frozen=True):
    """`ttl_ms`: for how many milliseconds the result stays fresh; `cache_scope`: who may share it."""

    # Defaults made by a factory are written, and both members are required on the wire.
    ttl_ms: Number = field(default_factory=int)
    cache_scope: CacheScope = field(default_factory=_private)


class PaginatedResult(CacheableResult, kw_only=True, frozen=True):
    """`next_cursor`: where the next page starts; absent on the last one."""

    next_cursor: str | None = None


class DiscoverResult(CacheableResult, frozen=True):
    """Result of `server/discover`."""

    supported_versions: list[str]
    capabilities: ServerCapabilities
    instructions: str | None = None


class InitializeResult(Result, frozen=True):
    """Result of `initialize`, up to 2025-11-25."""

    protocol_version: str
    capabilities: ServerCapabilities
    server_info: Implementation
    instructions: str | None = None


class ListToolsResult(PaginatedResult, frozen=True):
    """Result of `tools/list`."""

    tools: list[Tool]


class ListResourcesResult(PaginatedResult, frozen=True):
    """Result of `resources/list`."""

    resources: list[Resource]


class ListResourceTemplatesResult(PaginatedResult, frozen=True):
    """Result of `resources/templates/list`."""

    resource_templates: list[ResourceTemplate]


class ListPromptsResult(PaginatedResult, frozen=True):
    """Result of `prompts/list`."""

    prompts: list[Prompt]


class CallToolResult(Result, frozen=True):
    """Result of `tools/call`. `is_error`: the tool failed, and the content tells the model how."""

    content: list[ContentBlock]
    structured_content: Value | UnsetType = UNSET
    is_error: bool | None = None


class ReadResourceResult(CacheableResult, frozen=True):
    """Result of `resources/read`."""

    contents: list[ResourceContents]


class GetPromptResult(Result, frozen=True):
    """Result of `prompts/get`."""

    messages: list[PromptMessage]
    description: str | None = None


class Completion(Wire, frozen=True):
    """Up to 100 values, best first; `total` is how many there are in all."""

    values: list[str]
    total: Number | None = None
    has_more: bool | None = None


class CompleteResult(Result, frozen=True):
    """Result of `completion/complete`."""

    completion: Completion


class SubscriptionsListenResult(Result, frozen=True):
    """Result of `subscriptions/listen` when the server ends it; `meta` names the subscription."""


class ElicitResult(Meta, frozen=True):
    """A client's answer to `elicitation/create`. `content` is there when a form was accepted."""

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, str | int | float | bool | list[str]] | None = None


class CreateMessageResult(Meta, frozen=True):
    """A client's answer to `sampling/createMessage`."""

    role: Role
    content: SamplingContent | list[SamplingContent]
    model: str
    stop_reason: str | None = None


class ListRootsResult(Meta, frozen=True):
    """A client's answer to `roots/list`."""

    roots: list[Root]


RESULTS: Mapping[str, type[Result]] = MappingProxyType(
    {
        "initialize": InitializeResult,
        "ping": EmptyResult,
        "logging/setLevel": EmptyResult,
        "resources/subscribe": EmptyResult,
        "resources/unsubscribe": EmptyResult,
        "server/discover": DiscoverResult,
        "tools/list": ListToolsResult,
        "tools/call": CallToolResult,
        "resources/list": ListResourcesResult,
        "resources/templates/list": ListResourceTemplatesResult,
        "resources/read": ReadResourceResult,
        "prompts/list": ListPromptsResult,
        "prompts/get": GetPromptResult,
        "completion/complete": CompleteResult,
        "subscriptions/listen": SubscriptionsListenResult,
    }
)
"""The complete result of each request that a client sends."""

ANSWERS: Mapping[str, type[Meta]] = MappingProxyType(
    {
        "elicitation/create": ElicitResult,
        "sampling/createMessage": CreateMessageResult,
        "roots/list": ListRootsResult,
    }
)
"""The answer to each question that a server asks."""
