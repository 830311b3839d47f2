"""What a tool or resource gave, as a model and a person may see it: `ToolAnswer`.

Rules of this file:
- Every text of a server is cleaned: what is hidden is written out. A model reads it between two lines that name its
  source; for a person Markdown is inert beside that.
- Nothing is fetched: a link to a resource, an icon, an address in a text stay text. Nothing of `ui://` is rendered.
- An error text is a server's text like any other.

Spec: 2026-07-28 server/tools "Security Considerations"; client/index "Security and Trust".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..gate.hygiene import visible
from ..gate.markdown import inert
from ..gate.untrusted import Untrusted
from ..protocol import types as t
from ..protocol.json import encode
from .labels import NOTHING, Label

if TYPE_CHECKING:
    from ..errors import RemoteError

__all__ = ["ToolAnswer", "answer_of", "error_of", "joined"]

_LARGEST_TEXT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """The answer of one server to one call."""

    server: str
    """The alias."""
    tool: str
    """What was called: `alias.tool`."""
    plain: str
    """All its text, cleaned; images and the like as a line that says what they are."""
    is_error: bool = False
    structured: object = None
    """The structured content, as it was checked against the tool's output schema; texts in it are as the server wrote
    them."""
    content: Sequence[object] = ()
    """The content blocks, typed; as the server wrote them."""
    labels: Label = NOTHING
    """What the tool was labelled with."""

    @property
    def text(self) -> str:
        """For a model: the text between two lines that say whose it is and carry a fresh delimiter."""
        return Untrusted(self.plain, self._source).rendered(most=_LARGEST_TEXT).text

    @property
    def untrusted(self) -> Untrusted[str]:
        """The text as a value that says where it came from."""
        return Untrusted(self.plain, self._source)

    def display(self) -> str:
        """For a person: the text with nothing in it that a viewer would fetch, follow or draw."""
        return inert(self.plain)

    @property
    def _source(self) -> str:
        return f"{'an error of ' if self.is_error else ''}{self.tool}"


def answer_of(result: t.CallToolResult, *, server: str, tool: str, labels: Label) -> ToolAnswer:
    """A result, checked already, as an answer."""
    plain = joined(result.content)
    structured = None if result.structured_content is t.UNSET else result.structured_content
    if not plain and structured is not None:
        plain = visible(encode(structured).decode())
    return ToolAnswer(
        server=server,
        tool=tool,
        plain=plain,
        is_error=bool(result.is_error),
        structured=structured,
        content=tuple(result.content),
        labels=labels,
    )


def error_of(error: RemoteError, *, server: str, tool: str, labels: Label) -> ToolAnswer:
    """A protocol error that the server answered with, as an answer: its message is the server's text."""
    plain = visible(f"{error.message} ({error.code})")
    return ToolAnswer(server=server, tool=tool, plain=plain, is_error=True, labels=labels)


def joined(content: Sequence[object]) -> str:
    """The text of content blocks, cleaned; a line for what is none."""
    return "\n".join(visible(_text(block)) for block in content)


def _text(block: object) -> str:
    if isinstance(block, t.TextContent):
        return block.text
    if isinstance(block, t.ResourceLink):
        return f"[link to a resource, not fetched: {block.name}: {block.uri}]"
    if isinstance(block, t.EmbeddedResource):
        return _resource(block.resource)
    if isinstance(block, t.TextResourceContents | t.BlobResourceContents):
        return _resource(block)
    kind = "image" if isinstance(block, t.ImageContent) else "audio" if isinstance(block, t.AudioContent) else ""
    if isinstance(block, t.ImageContent | t.AudioContent):
        return f"[{kind} of type {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
    return f"[content of a kind that is not shown: {type(block).__name__}]"


def _resource(contents: t.ResourceContents) -> str:
    if isinstance(contents, t.TextResourceContents):
        if not contents.uri.lower().startswith("ui:"):
            return contents.text
        size = len(contents.text)
    elif isinstance(contents, t.BlobResourceContents):
        size = len(contents.blob) * 3 // 4
    else:
        return "[a resource of a kind that is not shown]"
    return f"[resource {contents.uri} of type {contents.mime_type or 'unknown'}, {size} bytes, not shown]"
