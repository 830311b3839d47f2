"""What is known of a server's tools: which headers mirror their arguments, and what their output must be.

Rules of this file:
- Over HTTP, a tool with an invalid `x-mcp-header` annotation is left out of listings, with a warning.
- An output schema is compiled when the first structured result of its tool comes.
- When the list has changed, what was known of a tool holds until it is listed again: who says that the list has changed
  and then gives none has not got rid of the schema.

Spec: 2026-07-28 server/tools "Structured Content", basic/transports/streamable-http "Custom Headers".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidArguments, OutputInvalid
from ..protocol import types as t
from ..protocol.headers import MirrorError, mirrors, param_headers
from .words import refused, said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..errors import ProtocolViolation
    from ..protocol.headers import Mirror
    from ..protocol.schema import Schema

__all__ = ["Catalogue"]

_log = logging.getLogger("garrison.client")


class _Known:
    __slots__ = ("mirrors", "output_schema", "schema")

    def __init__(self, found: tuple[Mirror, ...], output_schema: dict[str, object] | None) -> None:
        self.mirrors = found
        self.output_schema = output_schema
        self.schema: Schema | None = None


class Catalogue:
    """The tools that were listed.

    Args:
        most: tools that are remembered.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._tools: dict[str, _Known] = {}
        self._former: dict[str, _Known] = {}
        """Of before the last change, until the tools are listed again."""
        self.changes = 0
        """How often the list was forgotten."""
        self.complete = False
        """True once every page was learnt since the last change."""

    def forget(self) -> None:
        """Forgets all tools: the server's list has changed."""
        if self._tools:
            self._former, self._tools = self._tools, {}
        self.changes += 1
        self.complete = False

    def learnt(self, changes: int) -> None:
        """Says that every page was learnt, and what `changes` was before the first one."""
        self.complete = changes == self.changes
        if self.complete:
            self._former.clear()

    def give_up(self) -> None:
        """Says that the list cannot be had: what was known before holds until the next change."""
        self.complete = True

    def learn(self, result: t.ListToolsResult, *, mirrored: bool) -> t.ListToolsResult:
        """Remembers the tools of one page, and returns it without those that must not be offered.

        Args:
            result: the page.
            mirrored: whether arguments are mirrored in headers on this connection.
        """
        kept: list[t.Tool] = []
        for tool in result.tools:
            try:
                found = mirrors(tool.input_schema) if mirrored else ()
            except MirrorError as exc:
                _log.warning("Tool %.128r is left out: %s", tool.name, exc)
                self._tools.pop(tool.name, None)
                continue
            kept.append(tool)
            if len(self._tools) < self._most:
                self._tools[tool.name] = _Known(found, tool.output_schema)
        return result if len(kept) == len(result.tools) else msgspec.structs.replace(result, tools=kept)

    def knows(self, name: str) -> bool:
        """True when the tool was listed."""
        return name in self._tools

    def knew_output(self, name: str) -> bool:
        """True when the tool had an output schema before the last change."""
        known = self._former.get(name)
        return known is not None and known.output_schema is not None

    def headers(self, name: str, arguments: Mapping[str, object]) -> list[tuple[str, str]]:
        """The headers that mirror these arguments; none for a tool that was not listed.

        Raises:
            InvalidArguments: an argument that travels in a header has the wrong type.
        """
        known = self._tools.get(name)
        if known is None or not known.mirrors:
            return []
        try:
            return param_headers(known.mirrors, arguments)
        except MirrorError as exc:
            raise InvalidArguments(name, (str(exc),)) from None

    def check(self, name: str, result: t.CallToolResult) -> None:
        """Holds a result against the tool's output schema; a tool that was not listed has none.

        Raises:
            OutputInvalid: the result breaks the schema, or structured content is missing.
            ProtocolViolation: the schema itself is not one.
        """
        known = self._tools.get(name) or self._former.get(name)
        if known is None or known.output_schema is None or result.is_error:
            return
        if result.structured_content is t.UNSET:
            raise _refused(f"{name}: the tool has an output schema, and the result has no structured content")
        schema = known.schema
        if schema is None:
            from ..protocol.schema import Schema, SchemaError  # lazy: most tools have no output schema

            try:
                schema = known.schema = Schema(known.output_schema)
            except SchemaError as exc:
                text = f"{name}: its output schema cannot be used: {said(exc)}"
                raise refused(text, method="tools/call") from None
        if not schema.is_valid(result.structured_content):
            problems = "; ".join(schema.problems(result.structured_content))
            raise _refused(f"{name}: the structured content breaks the output schema: {said(problems)}")


def _refused(text: str) -> ProtocolViolation:
    return refused(text, method="tools/call", kind=OutputInvalid)
