"""From what a handler returns to the result that is sent.

Rules of this file:
- A tool's structured value is encoded once and stands in the result as JSON; its text form is made from the same bytes.
- Text that leaves walks through `clean`, the one place where output hygiene stands.
- What is constant in a result is bytes made at start.

Spec: 2026-07-28 server/tools "Tool Result", server/resources, server/prompts.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import InternalError, ToolError
from ..protocol.json import encode, encode_text
from ..protocol.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    GetPromptResult,
    ImageContent,
    PromptMessage,
    ReadResourceResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from .disclosure import disclose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..protocol.revisions import Revision
    from ..protocol.types import CacheScope, ContentBlock
    from ..protocol.types import ResourceContents as Contents
    from .registry import ToolEntry
    from .signature import Signature

__all__ = ["ResourceContents", "ToolOutput", "Wire", "prompt_result", "resource_result"]

_CONTENT: Final = (TextContent, ImageContent, AudioContent, ResourceLink, EmbeddedResource)


class ToolOutput:
    """A tool's result with its parts named: `ToolOutput.text("...")`, `.json(value)`, `.error("...")`.

    Args:
        content: the blocks for the model.
        structured: JSON value for `structuredContent`; it must fit the tool's outputSchema if there is one.
        is_error: True for a failure that the model should read.
        meta: the result's `_meta`.
    """

    __slots__ = ("content", "is_error", "meta", "structured")

    def __init__(
        self,
        content: Sequence[ContentBlock] = (),
        *,
        structured: object = msgspec.UNSET,
        is_error: bool = False,
        meta: dict[str, object] | None = None,
    ) -> None:
        self.content = tuple(content)
        self.structured = structured
        self.is_error = is_error
        self.meta = meta

    @classmethod
    def text(cls, text: str) -> ToolOutput:
        """One block of text."""
        return cls((TextContent(text),))

    @classmethod
    def json(cls, value: object) -> ToolOutput:
        """Structured content, and the same as text for clients that read only text."""
        raw = encode(value)
        return cls((TextContent(raw.decode()),), structured=msgspec.json.decode(raw))

    @classmethod
    def error(cls, text: str) -> ToolOutput:
        """A failure the model should read."""
        return cls((TextContent(text),), is_error=True)


class ResourceContents:
    """Contents of a resource: `ResourceContents.text(uri, "...")`, `.json(uri, value)`, `.blob(uri, b"...")`."""

    @staticmethod
    def text(uri: str, text: str, mime_type: str | None = "text/plain") -> TextResourceContents:
        """Text contents."""
        return TextResourceContents(uri=uri, text=text, mime_type=mime_type)

    @staticmethod
    def json(uri: str, value: object) -> TextResourceContents:
        """A JSON value as text, type application/json."""
        return TextResourceContents(uri=uri, text=encode(value).decode(), mime_type="application/json")

    @staticmethod
    def blob(uri: str, data: bytes, mime_type: str | None = "application/octet-stream") -> BlobResourceContents:
        """Binary contents; encoded as Base64 here."""
        return BlobResourceContents(uri=uri, blob=b2a_base64(data, newline=False).decode(), mime_type=mime_type)


class Wire:
    """Writes results in the shape of a revision."""

    __slots__ = ("_meta", "_modern_head", "_modern_tail", "clean", "server_info")

    def __init__(self, server_info: dict[str, object], clean: Callable[[str], str] | None = None) -> None:
        self.server_info = server_info
        self.clean = clean
        self._meta = {"io.modelcontextprotocol/serverInfo": server_info}
        self._modern_head = b'{"resultType":"complete",'
        self._modern_tail = b',"_meta":' + encode(self._meta) + b"}"

    def tool_value(self, signature: Signature, value: object, revision: Revision) -> bytes:
        """The result of a tool that publishes an output schema and returned a plain value."""
        kind = type(value)
        structured = signature.to_structured(value)
        if kind is str:
            plain = cast("str", value)
            text = encode_text(plain if self.clean is None else self.clean(plain))
        elif kind is int:
            text = b'"%d"' % value
        else:
            inner = signature.text_of(structured).decode()
            text = encode_text(inner if self.clean is None else self.clean(inner))
        if revision.modern:
            return b'%b"content":[{"type":"text","text":%b}],"structuredContent":%b%b' % (
                self._modern_head,
                text,
                structured,
                self._modern_tail,
            )
        if revision.structured_content:
            return b'{"content":[{"type":"text","text":%b}],"structuredContent":%b}' % (text, structured)
        return b'{"content":[{"type":"text","text":%b}]}' % text

    def tool_result(self, tool: ToolEntry, value: object, revision: Revision) -> bytes:
        """The result of a tool that returned `value`."""
        if tool.publishes and type(value) is not ToolOutput and type(value) is not CallToolResult:
            return self.tool_value(tool.signature, value, revision)
        return self.tool_output(tool.signature, value, revision)

    def tool_failure(self, name: str, error: BaseException, revision: Revision) -> bytes:
        """The result of a tool that raised: an error for the model to read.

        Raises:
            McpError: the tool raised it for the client.
        """
        if isinstance(error, ToolError):
            return self.tool_error(str(error), revision)
        told = disclose(error, f"tool {name}")
        if told is error:
            raise told
        data = cast("dict[str, str]", told.data or {})
        reference = f" (error id {data['errorId']})" if data else ""
        return self.tool_error(told.message + reference, revision)

    def tool_error(self, text: str, revision: Revision) -> bytes:
        """A result with `isError` for the model to read."""
        shown = encode_text(text if self.clean is None else self.clean(text))
        if revision.modern:
            return b'%b"content":[{"type":"text","text":%b}],"isError":true%b' % (
                self._modern_head,
                shown,
                self._modern_tail,
            )
        return b'{"content":[{"type":"text","text":%b}],"isError":true}' % shown

    def struct(self, method: str, result: object, revision: Revision) -> bytes:
        """Any result: a struct or builtins of the newest shape."""
        plain = cast("dict[str, object]", msgspec.to_builtins(result))
        if self.clean is not None:
            plain = cast("dict[str, object]", _map_text(plain, self.clean))
        if not revision.modern:
            return encode(revision.result(method, plain))
        plain.setdefault("resultType", "complete")
        meta = plain.get("_meta")
        plain["_meta"] = {**meta, **self._meta} if isinstance(meta, dict) else self._meta
        return encode(plain)

    def tool_output(self, signature: Signature, value: object, revision: Revision) -> bytes:
        """The result of a tool that returned content, a `ToolOutput`, a `CallToolResult` or nothing.

        Raises:
            InternalError: the value is none of these, or structured content does not fit the output schema.
        """
        if isinstance(value, ToolOutput):
            result = CallToolResult(
                content=list(value.content),
                structured_content=value.structured,
                is_error=value.is_error or None,
                meta=value.meta,
            )
        elif isinstance(value, CallToolResult):
            result = value
        elif value is None:
            result = CallToolResult(content=[])
        elif isinstance(value, str):
            result = CallToolResult(content=[TextContent(value)])
        elif isinstance(value, _CONTENT):
            result = CallToolResult(content=[value])
        elif (blocks := _blocks(value)) is not None:
            result = CallToolResult(content=blocks)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            raise InternalError(detail="a tool returned bytes; return ImageContent, AudioContent or EmbeddedResource")
        else:
            result = CallToolResult(content=[TextContent(encode(value).decode())])
        if signature.output_schema is not None and not result.is_error:
            signature.check_structured(result.structured_content)
        return self.struct("tools/call", result, revision)


def _blocks(value: object) -> list[ContentBlock] | None:
    """The content in a list of texts and content, or None for any other value."""
    if not isinstance(value, (list, tuple)):
        return None
    blocks: list[ContentBlock] = []
    for item in cast("Sequence[object]", value):
        if isinstance(item, str):
            blocks.append(TextContent(item))
        elif isinstance(item, _CONTENT):
            blocks.append(item)
        else:
            return None
    return blocks


def resource_result(
    uri: str, mime_type: str | None, value: object, ttl_ms: int, scope: CacheScope
) -> ReadResourceResult:
    """The result of reading a resource whose handler returned `value`.

    Raises:
        InternalError: the handler returned None or nothing readable.
    """
    if isinstance(value, ReadResourceResult):
        return value
    parts = cast("list[object]", value) if isinstance(value, list) else list[object]()
    several = [part for part in parts if isinstance(part, (TextResourceContents, BlobResourceContents))]
    contents: list[Contents] = (
        [*several] if several and len(several) == len(parts) else [_contents(uri, mime_type, cast("object", value))]
    )
    return ReadResourceResult(contents=contents, ttl_ms=ttl_ms, cache_scope=scope)


def _contents(uri: str, mime_type: str | None, value: object) -> TextResourceContents | BlobResourceContents:
    if isinstance(value, (TextResourceContents, BlobResourceContents)):
        return value
    if isinstance(value, str):
        return ResourceContents.text(uri, value, mime_type or "text/plain")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ResourceContents.blob(uri, bytes(cast("bytes", value)), mime_type or "application/octet-stream")
    if value is None:
        raise InternalError(detail=f"the handler of resource {uri} returned None; raise ResourceNotFound instead")
    contents = ResourceContents.json(uri, value)
    return contents if mime_type is None else msgspec.structs.replace(contents, mime_type=mime_type)


def prompt_result(description: str | None, value: object) -> GetPromptResult:
    """The result of a prompt whose handler returned `value`: text, a message, content, or a list of these.

    Raises:
        InternalError: the handler returned something else.
    """
    if isinstance(value, GetPromptResult):
        return value
    values = list(cast("Sequence[object]", value)) if isinstance(value, (list, tuple)) else [value]
    return GetPromptResult(messages=[_message(item) for item in values], description=description)


def _message(value: object) -> PromptMessage:
    if isinstance(value, PromptMessage):
        return value
    if isinstance(value, str):
        return PromptMessage(role="user", content=TextContent(value))
    if isinstance(value, _CONTENT):
        return PromptMessage(role="user", content=value)
    raise InternalError(detail=f"a prompt returned {type(value).__name__}; return str, PromptMessage or content")


def _map_text(value: object, clean: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {k: _map_text(v, clean) for k, v in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_map_text(item, clean) for item in cast("list[object]", value)]
    return value
