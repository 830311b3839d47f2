"""What leaves in a result is looked at here: hygiene of text, sizes, and the kind of what is binary.

Rules of this file:
- A text that needs nothing done is the same object afterwards; only what was changed costs more than a look.
- What was changed says so in the result's `_meta`: `garrison/sanitised`, `garrison/truncated`, `garrison/redacted`.
- A text is cut at `Limits.output_block_bytes`, and its last line says so. A result beyond `Limits.output_bytes`, or
  binary content that is not of its declared type, is not sent.
- Names of members are text that leaves too. What the server itself writes into a result is left alone.

Spec: 2026-07-28 server/tools "Security Considerations" (servers sanitise tool outputs).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import OutputRefused
from ..protocol.json import encode
from ..protocol.types import TextContent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gate.untrusted import Untrusted
    from ..policy import SecurityPolicy
    from .tool_policy import ToolPolicy

__all__ = ["Outgoing"]

_SANITISED: Final = "garrison/sanitised"
_REDACTED: Final = "garrison/redacted"
_BACKSLASH: Final = 0x5C
_DELETE: Final = 0x7F
_ESCAPED: Final = re.compile(rb"\\[bfru]")
"""How JSON writes control characters other than tab and line feed."""
_FRAME: Final = 1024
"""Bytes kept for the two lines around what is quoted."""
_TRUNCATED: Final = "garrison/truncated"
_HARMLESS: Final = bytes((9, 10, *range(32, 127)))
"""ASCII that is text, with tab and line feed."""
_UTF8: Final = 4
"""Bytes of a code point at most."""
_VALUES: Final = frozenset({"structuredContent", "_meta"})
"""Members whose value is any JSON, in which no member has a meaning."""


class Outgoing:
    """The checks on what leaves, for one server or for one tool.

    Args:
        policy: of the server.
        tool: what its tool says of its text, where it says something.
    """

    __slots__ = ("_block", "_clean", "_glance", "_inert", "_redact", "most", "short")

    def __init__(self, policy: SecurityPolicy, tool: ToolPolicy | None = None) -> None:
        self.most = policy.limits.output_bytes
        self._block = policy.limits.output_block_bytes
        self.short = self._block // _UTF8
        """Characters of a text that needs no cut, whatever they are."""
        raw = bool(policy.dangerously_skip_hygiene) or (tool is not None and bool(tool.raw_text))
        self._clean: Callable[[str], str] | None = None if raw else _cleaner(policy.hygiene)
        self._redact = _redactor() if policy.redact_results else None
        self._glance = self._redact is None and not (tool is not None and tool.inert_markdown)
        self._inert = _inert() if tool is not None and tool.inert_markdown else None

    def is_plain(self, text: str, encoded: bytes) -> bool:
        """Whether nothing is to be done to a short text, as its JSON tells at a glance; False where it takes a look.

        JSON writes control characters, line breaks and quotation marks in more than one byte, all other ASCII in one.
        """
        return len(encoded) == len(text) + 2 and self._glance and text.isascii() and "\x7f" not in text

    def block(self, text: str, notes: dict[str, object]) -> str:
        """One block of text, as it leaves.

        Args:
            text: as the handler gave it.
            notes: gets what is to stand in `_meta`.
        """
        if len(text) > self.short:
            text = self._cut(text, notes)
        return self.text(text, notes)

    def text(self, text: str, notes: dict[str, object]) -> str:
        """A text of any length after hygiene, and redaction where it is asked for."""
        if self._clean is not None:
            clean = self._clean(text)
            if clean is not text:
                notes[_SANITISED] = True
                text = clean
        if self._inert is not None:
            inert = self._inert(text)
            if inert is not text and inert != text:
                notes[_SANITISED] = True
                text = inert
        if self._redact is not None:
            masked = self._redact(text)
            if masked is not text:
                notes[_REDACTED] = True
                text = masked
        return text

    def quote(self, value: Untrusted[object]) -> TextContent:
        """The block of a value that somebody else wrote: short enough that its closing line is never cut off."""
        text, meta = value.rendered(self._clean or _as_it_is, most=max(1, self._block - _FRAME))
        return TextContent(text, meta=meta)

    def structured(self, raw: bytes, notes: dict[str, object]) -> bytes:
        """Structured content, given as JSON."""
        if self._inert is None and self._redact is None:
            if self._clean is None:
                return raw
            if _BACKSLASH not in raw or _ESCAPED.search(raw) is None:
                if raw.isascii() and _DELETE not in raw:
                    return raw
                if self._clean(text := raw.decode()) is text:
                    return raw
        value = cast("object", msgspec.json.decode(raw))
        looked_at = self._strings(value, notes)
        return raw if looked_at is value else encode(looked_at)

    def result(self, plain: dict[str, object], notes: dict[str, object]) -> dict[str, object]:
        """A whole result as builtins of the newest shape.

        Raises:
            OutputRefused: binary content that is not of its declared type.
        """
        return cast("dict[str, object]", self._walk(plain, notes))

    def params(self, value: dict[str, object]) -> dict[str, object]:
        """The parameters of a notification or a question on their way to the client."""
        return cast("dict[str, object]", self._strings(value, {}))

    def whole(self, encoded: bytes) -> bytes:
        """A result as it is sent.

        Raises:
            OutputRefused: it is too large.
        """
        if len(encoded) > self.most:
            raise OutputRefused(
                "Output refused: it is larger than this server sends; ask for less",
                detail=f"{len(encoded)} bytes",
                hint="Limits.output_bytes",
            )
        return encoded

    def _cut(self, text: str, notes: dict[str, object]) -> str:
        raw = text.encode(errors="surrogatepass")
        if len(raw) <= self._block:
            return text
        kept = raw[: self._block].decode(errors="ignore")
        notes[_TRUNCATED] = {"bytes": len(raw), "kept": self._block}
        return f"{kept}\n[cut here: {self._block} of {len(raw)} bytes]"

    def _strings(self, value: object, notes: dict[str, object]) -> object:
        """Any JSON with its texts looked at; the same object where none was changed."""
        if isinstance(value, str):
            return self.text(value, notes)
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            changed = {self.text(k, notes): self._strings(v, notes) for k, v in members.items()}
            if len(changed) < len(members):
                raise OutputRefused(
                    "Output refused: members whose names differ in hidden characters alone",
                    detail=f"{len(members)} members",
                    hint="SecurityPolicy.hygiene",
                )
            same = all(a is b for a, b in zip(changed.values(), members.values(), strict=False))
            return members if same and changed.keys() == members.keys() else changed
        if isinstance(value, list):
            items = cast("list[object]", value)
            looked_at = [self._strings(item, notes) for item in items]
            return items if all(a is b for a, b in zip(looked_at, items, strict=True)) else looked_at
        return value

    def _walk(self, value: object, notes: dict[str, object], member: str = "") -> object:
        """A result: texts of content are blocks, binary content is of its type."""
        if isinstance(value, str):
            return self.block(value, notes) if member == "text" else self.text(value, notes)
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            binary = _binary(members)
            return {
                k: v if k == binary else self._strings(v, notes) if k in _VALUES else self._walk(v, notes, k)
                for k, v in members.items()
            }
        if isinstance(value, list):
            return [self._walk(item, notes) for item in cast("list[object]", value)]
        return value


def _binary(content: dict[str, object]) -> str:
    """The member of a content that is binary, whose bytes are what its type says; empty where none is.

    Raises:
        OutputRefused: they are not, or are no Base64.
    """
    if isinstance(content.get("blob"), str) and "uri" in content:
        member = "blob"
    elif content.get("type") in ("image", "audio") and "data" in content:
        member = "data"
    else:
        return ""
    from ..gate.media import canonical_base64, check_media

    text, kind = content[member], content.get("mimeType")
    data = canonical_base64(text) if isinstance(text, str) else None
    said = kind if isinstance(kind, str) else ""
    reason = "no canonical Base64" if data is None else check_media(said, data)
    if member == "data" and not said.lower().startswith(f"{content['type']}/"):
        reason = "a type that is none of its content's"
    if reason is not None:
        raise OutputRefused(
            "Output refused: binary content that is not of its type", detail=reason, hint="mime_type= of the content"
        )
    return member


def _as_it_is(text: str) -> str:
    return text


def _cleaner(hygiene: str) -> Callable[[str], str]:
    """The function of a kind of hygiene, loaded with the first text that is not plain ASCII."""
    found: list[Callable[[str], str]] = []

    def clean(text: str) -> str:
        if text.isascii() and not text.encode().translate(None, _HARMLESS):
            return text
        if not found:
            from ..gate import hygiene as functions

            found.append(functions.visible if hygiene == "visible" else functions.stripped)
        return found[0](text)

    return clean


def _redactor() -> Callable[[str], str]:
    from ..gate.redaction import redact

    return redact


def _inert() -> Callable[[str], str]:
    from ..gate.markdown import inert

    return inert
