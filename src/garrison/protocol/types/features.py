"""What a peer has and can: implementations, capabilities, tools, resources, prompts, roots.

Spec: 2026-07-28 server/tools, server/resources, server/prompts, basic "Capabilities".
"""

from __future__ import annotations

import msgspec

from .content import Annotations, Icon
from .wire import Meta, Number, Value, Wire

__all__ = [
    "ClientCapabilities",
    "ElicitationCapability",
    "Implementation",
    "ListChangedCapability",
    "Prompt",
    "PromptArgument",
    "Resource",
    "ResourceTemplate",
    "ResourcesCapability",
    "Root",
    "SamplingCapability",
    "ServerCapabilities",
    "SubscriptionFilter",
    "Tool",
    "ToolAnnotations",
]


class Implementation(Wire, frozen=True):
    """Name and version of a program. Self-reported: never a ground for a decision."""

    name: str
    version: str
    title: str | None = None
    description: str | None = None
    website_url: str | None = None
    icons: list[Icon] | None = None


class ListChangedCapability(Wire, frozen=True):
    """`list_changed`: the peer tells when its list changes."""

    list_changed: bool | None = None


class ResourcesCapability(Wire, frozen=True):
    """`subscribe`: changes of single resources can be listened to; `list_changed`: changes of the list too."""

    subscribe: bool | None = None
    list_changed: bool | None = None


class ServerCapabilities(Wire, frozen=True):
    """What a server offers. An absent member means that it is not offered."""

    tools: ListChangedCapability | None = None
    resources: ResourcesCapability | None = None
    prompts: ListChangedCapability | None = None
    completions: dict[str, Value] | None = None
    logging: dict[str, Value] | None = None
    extensions: dict[str, dict[str, Value]] | None = None
    experimental: dict[str, dict[str, Value]] | None = None

    def with_tools(self) -> ServerCapabilities:
        """The same, with tools."""
        return msgspec.structs.replace(self, tools=ListChangedCapability(list_changed=True))

    def with_resources(self) -> ServerCapabilities:
        """The same, with resources."""
        return msgspec.structs.replace(self, resources=ResourcesCapability(subscribe=True, list_changed=True))

    def with_prompts(self) -> ServerCapabilities:
        """The same, with prompts."""
        return msgspec.structs.replace(self, prompts=ListChangedCapability(list_changed=True))

    def with_completions(self) -> ServerCapabilities:
        """The same, with completions."""
        return msgspec.structs.replace(self, completions={})

    def with_logging(self) -> ServerCapabilities:
        """The same, with log messages."""
        return msgspec.structs.replace(self, logging={})


class SamplingCapability(Wire, frozen=True):
    """`context`: `includeContext` is understood; `tools`: so are `tools` and `toolChoice`."""

    context: dict[str, Value] | None = None
    tools: dict[str, Value] | None = None


class ElicitationCapability(Wire, frozen=True):
    """The modes of elicitation. With neither member, form mode alone."""

    form: dict[str, Value] | None = None
    url: dict[str, Value] | None = None


class ClientCapabilities(Wire, frozen=True):
    """What a client can be asked for. An absent member means that it cannot."""

    elicitation: ElicitationCapability | None = None
    sampling: SamplingCapability | None = None
    roots: ListChangedCapability | None = None
    """`list_changed` in revisions up to 2025-11-25 only."""
    extensions: dict[str, dict[str, Value]] | None = None
    experimental: dict[str, dict[str, Value]] | None = None

    def supports(self, need: str) -> bool:
        """Whether a capability in the dotted spelling of the method tables is declared.

        Args:
            need: `roots`, `sampling`, `sampling.tools`, `sampling.context`, `elicitation` (form mode) or
                `elicitation.url`.
        """
        name, _, part = need.partition(".")
        if name == "elicitation":
            modes = self.elicitation
            if modes is None:
                return False
            return modes.url is not None if part == "url" else modes.form is not None or modes.url is None
        capability = getattr(self, name, None)
        return capability is not None and (not part or getattr(capability, part, None) is not None)


class ToolAnnotations(Wire, frozen=True):
    """Hints on what a tool does. Untrusted unless the server is trusted."""

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class Tool(Meta, frozen=True):
    """A tool. `input_schema` has the type `object`; `output_schema` may have any type since 2026-07-28."""

    name: str
    input_schema: dict[str, Value]
    description: str | None = None
    title: str | None = None
    output_schema: dict[str, Value] | None = None
    annotations: ToolAnnotations | None = None
    icons: list[Icon] | None = None


class Resource(Meta, frozen=True):
    """A resource that can be read. `size` is in bytes."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: Number | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None


class ResourceTemplate(Meta, frozen=True):
    """A family of resources. `uri_template` is an RFC 6570 template."""

    uri_template: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None


class PromptArgument(Wire, frozen=True):
    """One argument of a prompt; its value is always text."""

    name: str
    title: str | None = None
    description: str | None = None
    required: bool | None = None


class Prompt(Meta, frozen=True):
    """A prompt or prompt template."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None
    icons: list[Icon] | None = None


class Root(Meta, frozen=True):
    """A directory or file the server may work on. `uri` starts with `file://`."""

    uri: str
    name: str | None = None


class SubscriptionFilter(Wire, frozen=True):
    """What a `subscriptions/listen` stream carries. `resource_subscriptions` are URIs."""

    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None
