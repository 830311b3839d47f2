"""Parameters of requests and notifications, and the questions a server may put to a client.

Spec: 2026-07-28 schema; for the handshake, `logging/setLevel` and `resources/subscribe`, 2025-11-25 schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, cast

from msgspec import field

from .content import SamplingMessage
from .features import ClientCapabilities, Implementation, SubscriptionFilter, Tool
from .wire import Meta, Number, Value, Variant, Wire

__all__ = [
    "LOGGING_LEVELS",
    "CallToolParams",
    "CancelledParams",
    "CompleteParams",
    "CompletionArgument",
    "CompletionContext",
    "CreateMessageParams",
    "CreateMessageRequest",
    "ElicitFormParams",
    "ElicitParams",
    "ElicitRequest",
    "ElicitUrlParams",
    "EmptyParams",
    "GetPromptParams",
    "InitializeParams",
    "InputRequest",
    "ListRootsRequest",
    "LoggingLevel",
    "LoggingMessageParams",
    "ModelHint",
    "ModelPreferences",
    "PaginatedParams",
    "ProgressParams",
    "ProgressToken",
    "PromptReference",
    "ReadResourceParams",
    "RequestId",
    "ResourceTemplateReference",
    "ResourceUpdatedParams",
    "SetLevelParams",
    "SubscribeParams",
    "SubscriptionsAcknowledgedParams",
    "SubscriptionsListenParams",
    "ToolChoice",
]

RequestId = str | int
ProgressToken = str | int

LoggingLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]

LOGGING_LEVELS: Mapping[LoggingLevel, int] = MappingProxyType(
    {
        "debug": 0,
        "info": 1,
        "notice": 2,
        "warning": 3,
        "error": 4,
        "critical": 5,
        "alert": 6,
        "emergency": 7,
    }
)
"""The levels of RFC 5424 with their order; a higher number is more severe."""


class EmptyParams(Meta, frozen=True):
    """Parameters of a method that takes none."""


class PaginatedParams(Meta, frozen=True):
    """Parameters of the listings."""

    cursor: str | None = None


class Retriable(Meta, kw_only=True, frozen=True):
    """What a retry carries after `input_required`: the answers by key, unread, and the state as it was sent."""

    input_responses: dict[str, dict[str, Value]] | None = None
    request_state: str | None = None


class CallToolParams(Retriable, frozen=True):
    """Parameters of `tools/call`."""

    name: str
    arguments: dict[str, Value] | None = None


class ReadResourceParams(Retriable, frozen=True):
    """Parameters of `resources/read`."""

    uri: str


class GetPromptParams(Retriable, frozen=True):
    """Parameters of `prompts/get`."""

    name: str
    arguments: dict[str, str] | None = None


class PromptReference(Wire, tag_field="type", tag="ref/prompt", frozen=True):
    """The prompt whose argument is completed."""

    type: ClassVar[Literal["ref/prompt"]] = "ref/prompt"
    name: str
    title: str | None = None


class ResourceTemplateReference(Wire, tag_field="type", tag="ref/resource", frozen=True):
    """The resource template, or resource, whose variable is completed."""

    type: ClassVar[Literal["ref/resource"]] = "ref/resource"
    uri: str


class CompletionArgument(Wire, frozen=True):
    """The argument that is completed, and what is typed so far."""

    name: str
    value: str


class CompletionContext(Wire, frozen=True):
    """The values that are already settled."""

    arguments: dict[str, str] | None = None


class CompleteParams(Meta, frozen=True):
    """Parameters of `completion/complete`."""

    ref: PromptReference | ResourceTemplateReference
    argument: CompletionArgument
    context: CompletionContext | None = None


class SubscriptionsListenParams(Meta, frozen=True):
    """Parameters of `subscriptions/listen`."""

    notifications: SubscriptionFilter


class SubscriptionsAcknowledgedParams(Meta, frozen=True):
    """Parameters of `notifications/subscriptions/acknowledged`: what the stream will really carry."""

    notifications: SubscriptionFilter


class InitializeParams(Meta, frozen=True):
    """Parameters of `initialize`, up to 2025-11-25."""

    protocol_version: str
    capabilities: ClientCapabilities
    client_info: Implementation


class SetLevelParams(Meta, frozen=True):
    """Parameters of `logging/setLevel`, up to 2025-11-25."""

    level: LoggingLevel


class SubscribeParams(Meta, frozen=True):
    """Parameters of `resources/subscribe` and `resources/unsubscribe`, up to 2025-11-25."""

    uri: str


class CancelledParams(Meta, frozen=True):
    """Parameters of `notifications/cancelled`. Without an id (2025-11-25 only) there is nothing to cancel."""

    request_id: RequestId | None = None
    reason: str | None = None


class ProgressParams(Meta, frozen=True):
    """Parameters of `notifications/progress`; `progress` grows with every message."""

    progress_token: ProgressToken
    progress: Number
    total: Number | None = None
    message: str | None = None


class LoggingMessageParams(Meta, frozen=True):
    """Parameters of `notifications/message`; `data` is any JSON value, null too."""

    level: LoggingLevel
    data: Value
    logger: str | None = None


class ResourceUpdatedParams(Meta, frozen=True):
    """Parameters of `notifications/resources/updated`."""

    uri: str


class ElicitParams(Variant):
    """Parameters of `elicitation/create`: `ElicitFormParams` or `ElicitUrlParams`. No mode means form."""

    __slots__ = ()

    @classmethod
    def variant(cls, value: object) -> type[Wire]:
        url = isinstance(value, dict) and cast("dict[str, object]", value).get("mode") == "url"
        return ElicitUrlParams if url else ElicitFormParams


class ElicitFormParams(Meta, ElicitParams, tag_field="mode", tag="form", frozen=True):
    """A form for the user. `requested_schema` is an object schema whose properties are primitive."""

    mode: ClassVar[Literal["form"]] = "form"
    message: str
    requested_schema: dict[str, Value]


class ElicitUrlParams(Meta, ElicitParams, tag_field="mode", tag="url", frozen=True):
    """A page the user is to visit; what happens there stays there. Since 2025-11-25."""

    mode: ClassVar[Literal["url"]] = "url"
    message: str
    url: str
    elicitation_id: str | None = None
    """2025-11-25 only, which requires it."""


class ModelHint(Wire, frozen=True):
    """A name, or part of a name, of a model."""

    name: str | None = None


class ModelPreferences(Wire, frozen=True):
    """What matters in the choice of a model; the priorities are between 0 and 1."""

    hints: list[ModelHint] | None = None
    cost_priority: Number | None = None
    speed_priority: Number | None = None
    intelligence_priority: Number | None = None


class ToolChoice(Wire, frozen=True):
    """Whether the model may, must or must not use a tool."""

    mode: Literal["auto", "required", "none"] | None = None


class CreateMessageParams(Meta, frozen=True):
    """Parameters of `sampling/createMessage`. `tools` and `tool_choice` since 2025-11-25."""

    messages: list[SamplingMessage]
    max_tokens: Number
    model_preferences: ModelPreferences | None = None
    system_prompt: str | None = None
    include_context: Literal["none", "thisServer", "allServers"] | None = None
    temperature: Number | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, Value] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None


class CreateMessageRequest(Wire, tag_field="method", tag="sampling/createMessage", frozen=True):
    """A question inside `InputRequiredResult`: let the client's model write a message."""

    method: ClassVar[Literal["sampling/createMessage"]] = "sampling/createMessage"
    params: CreateMessageParams


class ElicitRequest(Wire, tag_field="method", tag="elicitation/create", frozen=True):
    """A question inside `InputRequiredResult`: ask the user."""

    method: ClassVar[Literal["elicitation/create"]] = "elicitation/create"
    params: ElicitParams


class ListRootsRequest(Wire, tag_field="method", tag="roots/list", frozen=True):
    """A question inside `InputRequiredResult`: name the roots."""

    method: ClassVar[Literal["roots/list"]] = "roots/list"
    params: EmptyParams = field(default=EmptyParams())


InputRequest = CreateMessageRequest | ElicitRequest | ListRootsRequest
