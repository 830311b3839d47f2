"""Content: what tools, prompts and language models say.

Spec: 2026-07-28 server/tools "Tool Result", client/sampling.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import field

from .wire import UNSET, Meta, Number, UnsetType, Value, Variant, Wire

__all__ = [
    "Annotations",
    "AudioContent",
    "BlobResourceContents",
    "ContentBlock",
    "EmbeddedResource",
    "Icon",
    "ImageContent",
    "PromptMessage",
    "ResourceContents",
    "ResourceLink",
    "Role",
    "SamplingContent",
    "SamplingMessage",
    "TextContent",
    "TextResourceContents",
    "ToolResultContent",
    "ToolUseContent",
]

Role = Literal["user", "assistant"]


class Annotations(Wire, frozen=True):
    """Hints on use and display. `priority` is between 0 and 1, `last_modified` an ISO 8601 time."""

    audience: list[Role] | None = None
    priority: Number | None = None
    last_modified: str | None = None


class Icon(Wire, frozen=True):
    """An image to show. `sizes` are like `48x48` or `any`."""

    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["light", "dark"] | None = None


class ResourceContents(Variant):
    """What a resource holds: `TextResourceContents` or `BlobResourceContents`."""

    __slots__ = ()

    @classmethod
    def variant(cls, value: object) -> type[Wire]:
        blob = isinstance(value, dict) and "blob" in value and "text" not in value
        return BlobResourceContents if blob else TextResourceContents


class TextResourceContents(Meta, ResourceContents, frozen=True):
    """A resource, or a part of one, as text."""

    uri: str
    text: str
    mime_type: str | None = None


class BlobResourceContents(Meta, ResourceContents, frozen=True):
    """A resource, or a part of one, as base64."""

    uri: str
    blob: str
    mime_type: str | None = None


class TextContent(Meta, tag_field="type", tag="text", frozen=True):
    """Text."""

    type: ClassVar[Literal["text"]] = "text"
    text: str
    annotations: Annotations | None = None


class ImageContent(Meta, tag_field="type", tag="image", frozen=True):
    """An image; `data` is base64."""

    type: ClassVar[Literal["image"]] = "image"
    data: str
    mime_type: str
    annotations: Annotations | None = None


class AudioContent(Meta, tag_field="type", tag="audio", frozen=True):
    """Sound; `data` is base64. Since 2025-03-26."""

    type: ClassVar[Literal["audio"]] = "audio"
    data: str
    mime_type: str
    annotations: Annotations | None = None


class ResourceLink(Meta, tag_field="type", tag="resource_link", frozen=True):
    """A resource that can be read, named without its contents. `size` is in bytes. Since 2025-06-18."""

    type: ClassVar[Literal["resource_link"]] = "resource_link"
    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: Number | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None


class EmbeddedResource(Meta, tag_field="type", tag="resource", frozen=True):
    """A resource with its contents."""

    type: ClassVar[Literal["resource"]] = "resource"
    resource: ResourceContents
    annotations: Annotations | None = None


ContentBlock = TextContent | ImageContent | AudioContent | ResourceLink | EmbeddedResource


class ToolUseContent(Meta, tag_field="type", tag="tool_use", frozen=True):
    """A language model's wish to call a tool. Since 2025-11-25."""

    type: ClassVar[Literal["tool_use"]] = "tool_use"
    id: str
    name: str
    input: dict[str, Value]


class ToolResultContent(Meta, tag_field="type", tag="tool_result", frozen=True):
    """The answer to a `ToolUseContent`. Since 2025-11-25."""

    type: ClassVar[Literal["tool_result"]] = "tool_result"
    tool_use_id: str
    content: list[ContentBlock] = field(default_factory=lambda: list[ContentBlock]())
    structured_content: Value | UnsetType = UNSET
    is_error: bool | None = None


SamplingContent = TextContent | ImageContent | AudioContent | ToolUseContent | ToolResultContent


class PromptMessage(Wire, frozen=True):
    """One message of a prompt."""

    role: Role
    content: ContentBlock


class SamplingMessage(Meta, frozen=True):
    """One message to a language model. A list of content is possible since 2025-11-25."""

    role: Role
    content: SamplingContent | list[SamplingContent]
