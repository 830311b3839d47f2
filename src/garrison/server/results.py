"""From what a handler returns to the result that is sent.

Rules of this file:
- A tool's structured value is encoded once and stands in the result as JSON; its text form is made from the same bytes.
- What a handler made goes through `outgoing`, the one place where what leaves is looked at.
- What is constant in a result is bytes made at start.

Spec: 2026-07-28 server/tools "Tool Result", server/resources, server/prompts.
"""

from __future__ import annotations

import sys
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import InternalError
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
from .disclosure import for_model
from .outgoing import Outgoing
from .tool_policy import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..gate.untrusted import Untrusted
    from ..policy import SecurityPolicy
    from ..protocol.revisions import Revision
    from ..protocol.types import CacheScope, ContentBlock
    from ..protocol.types import ResourceContents as Contents
    from .call import Call
    from .registry import ToolEntry
    from .tool_policy import ToolPolicy

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
    """Writes results in the shape of a revision.

    Args:
        server_info: how the server names itself.
        policy: how what leaves is looked at.
    """

    __slots__ = ("_meta", "_modern_head", "_modern_tail", "_outgoing", "_policy", "_special", "server_info")

    def __init__(self, server_info: dict[str, object], policy: Callable[[], SecurityPolicy]) -> None:
        self.server_info = server_info
        self._policy = policy
        self._outgoing: Outgoing | None = None
        self._special: dict[ToolPolicy, Outgoing] = {}
        self._meta: dict[str, object] = {"io.modelcontextprotocol/serverInfo": server_info}
        self._modern_head = b'{"resultType":"complete",'
        self._modern_tail = b',"_meta":' + encode(self._meta) + b"}"

    def start(self) -> None:
        """Take the policy as it now is."""
        self._outgoing = None
        self._special = {}

    @property
    def outgoing(self) -> Outgoing:
        """What looks at text that leaves."""
        return self._looks()

    def _looks(self, tool: ToolEntry | None = None) -> Outgoing:
        if tool is None or not (tool.policy.raw_text or tool.policy.inert_markdown):
            if self._outgoing is None:
                self._outgoing = Outgoing(self._policy())
            return self._outgoing
        special = self._special.get(tool.policy)
        if special is None:
            special = self._special[tool.policy] = Outgoing(self._policy(), tool.policy)
        return special

    def tool_value(self, tool: ToolEntry, value: object, revision: Revision) -> bytes:
        """The result of a tool that publishes an output schema and returned a plain value."""
        looks, signature = self._outgoing, tool.signature
        if looks is None or tool.policy is not PLAIN:
            looks = self._looks(tool)
        kind = type(value)
        notes: dict[str, object] = {}
        if kind is str:
            plain = cast("str", value)
            if len(plain) > looks.short or not looks.is_plain(plain, text := encode_text(plain)):
                value = looks.block(plain, notes)
                text = encode_text(value)
            structured = b'{"result":%b}' % text if signature.gives_text else signature.to_structured(value)
        else:
            structured = signature.to_structured(value)
            if kind is int:
                text = b'"%d"' % value
            else:
                structured = looks.structured(structured, notes)
                text = encode_text(looks.block(signature.text_of(structured).decode(), notes))
        if revision.modern:
            tail = self._tail(notes) if notes else self._modern_tail
            result = b'%b"content":[{"type":"text","text":%b}],"structuredContent":%b%b' % (
                self._modern_head,
                text,
                structured,
                tail,
            )
        else:
            meta = b',"_meta":' + encode(notes) if notes else b""
            if revision.structured_content:
                result = b'{"content":[{"type":"text","text":%b}],"structuredContent":%b%b}' % (text, structured, meta)
            else:
                result = b'{"content":[{"type":"text","text":%b}]%b}' % (text, meta)
        return result if len(result) <= looks.most else looks.whole(result)

    def _tail(self, notes: dict[str, object]) -> bytes:
        return b',"_meta":' + encode({**notes, **self._meta}) + b"}"

    def tool_result(self, tool: ToolEntry, value: object, revision: Revision) -> bytes:
        """The result of a tool that returned `value`.

        Raises:
            OutputRefused: it must not leave.
        """
        if tool.publishes and type(value) is not ToolOutput and type(value) is not CallToolResult:
            return self.tool_value(tool, value, revision)
        return self.tool_output(tool, value, revision)

    def tool_failure(self, name: str, error: BaseException, call: Call) -> bytes:
        """The result of a tool that raised: an error for the model to read.

        Raises:
            McpError: the tool raised it for the client.
        """
        return self.tool_error(for_model(error, f"tool {name}", call), call.revision)

    def tool_error(self, text: str, revision: Revision) -> bytes:
        """A result with `isError` for the model to read, of a text that `disclosure` gave."""
        notes: dict[str, object] = {}
        shown = encode_text(self._looks().block(text, notes))
        if revision.modern:
            return b'%b"content":[{"type":"text","text":%b}],"isError":true%b' % (
                self._modern_head,
                shown,
                self._tail(notes) if notes else self._modern_tail,
            )
        meta = b',"_meta":' + encode(notes) if notes else b""
        return b'{"content":[{"type":"text","text":%b}],"isError":true%b}' % (shown, meta)

    def struct(self, method: str, result: object, revision: Revision, tool: ToolEntry | None = None) -> bytes:
        """A result that a handler made: a struct or builtins of the newest shape.

        Raises:
            OutputRefused: it must not leave.
        """
        looks, notes = self._looks(tool), dict[str, object]()
        plain = looks.result(cast("dict[str, object]", msgspec.to_builtins(result)), notes)
        if notes:
            meta = plain.get("_meta")
            plain["_meta"] = {**cast("dict[str, object]", meta), **notes} if isinstance(meta, dict) else notes
        return looks.whole(self.own(method, plain, revision))

    def own(self, method: str, result: object, revision: Revision) -> bytes:
        """A result of the server's own words: listings, discovery."""
        plain = cast("dict[str, object]", msgspec.to_builtins(result))
        if not revision.modern:
            return encode(revision.result(method, plain))
        plain.setdefault("resultType", "complete")
        meta = plain.get("_meta")
        plain["_meta"] = {**meta, **self._meta} if isinstance(meta, dict) else self._meta
        return encode(plain)

    def tool_output(self, tool: ToolEntry, value: object, revision: Revision) -> bytes:
        """The result of a tool that returned content, a `ToolOutput`, a `CallToolResult` or nothing.

        Raises:
            InternalError: the value is none of these, or structured content does not fit the output schema.
            OutputRefused: it must not leave.
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
        elif (blocks := _blocks(value, self._looks(tool))) is not None:
            result = CallToolResult(content=blocks)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            raise InternalError(detail="a tool returned bytes; return ImageContent, AudioContent or EmbeddedResource")
        else:
            result = CallToolResult(content=[TextContent(encode(value).decode())])
        if tool.signature.output_schema is not None and not result.is_error:
            tool.signature.check_structured(result.structured_content)
        return self.struct("tools/call", result, revision, tool)


def _blocks(value: object, looks: Outgoing) -> list[ContentBlock] | None:
    """The content in texts and content, one or several, or None for any other value."""
    items = list(cast("Sequence[object]", value)) if isinstance(value, (list, tuple)) else [value]
    blocks: list[ContentBlock] = []
    for item in items:
        block = _block(item, looks)
        if block is None:
            return None
        blocks.append(block)
    return blocks


def _block(item: object, looks: Outgoing) -> ContentBlock | None:
    if isinstance(item, str):
        return TextContent(item)
    if isinstance(item, _CONTENT):
        return item
    marked = sys.modules.get("garrison.gate.untrusted")  # whoever made such a value has loaded it
    if marked is not None and isinstance(item, marked.Untrusted):
        return looks.quote(cast("Untrusted[object]", item))
    return None


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
