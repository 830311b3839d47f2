"""Results for people: what each kind of answer looks like on standard output.

Rules of this file:
- Text is printed as text. Of data that is no text, kind and size are said; but a resource goes into a pipe or a file
  exactly as it is, be it text or bytes.
- Structured content is printed when there is no text: a server repeats it as text for those who read text.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

from ..protocol import types as t
from .style import bold, dim, emit, emit_json, safe, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

__all__ = ["show_contents", "show_discovery", "show_lists", "show_prompt", "show_result"]


def show_discovery(version: str, info: t.Implementation | None, found: t.DiscoverResult) -> None:
    """Print what a server is."""
    name = "a server without a name" if info is None else f"{info.title or info.name} {info.version}"
    offers = [member for member, value in t.to_dict(found.capabilities).items() if value is not None]
    print(bold(safe(name), sys.stdout))
    if info is not None and info.description:
        emit(info.description)
    emit(f"speaks      {version} here; supports {', '.join(found.supported_versions)}")
    emit(f"offers      {', '.join(offers) or 'nothing'}")
    if found.instructions:
        emit(f"instructions\n{found.instructions}")


def show_lists(
    tools: Sequence[t.Tool],
    resources: Sequence[t.Resource],
    templates: Sequence[t.ResourceTemplate],
    prompts: Sequence[t.Prompt],
) -> None:
    """Print a table for each list that is not empty."""
    if tools:
        rows = [[tool.name, _signature(tool.input_schema), tool.description or tool.title or ""] for tool in tools]
        table("Tools", ("name", "arguments", "description"), rows)
    if resources:
        rows = [[r.uri, r.title or r.name, r.mime_type or "", r.description or ""] for r in resources]
        table("Resources", ("URI", "name", "type", "description"), rows)
    if templates:
        rows = [[r.uri_template, r.title or r.name, r.mime_type or "", r.description or ""] for r in templates]
        table("Resource templates", ("URI template", "name", "type", "description"), rows)
    if prompts:
        rows = [[p.name, _prompt_signature(p), p.description or p.title or ""] for p in prompts]
        table("Prompts", ("name", "arguments", "description"), rows)
    if not (tools or resources or templates or prompts):
        print("The server lists nothing.", file=sys.stderr)


def _signature(schema: Mapping[str, object]) -> str:
    """The arguments of a tool in short: `a: integer, [b: string]`; brackets mean that it may be left out."""
    properties = schema.get("properties")
    required = schema.get("required")
    names = cast("list[object]", required) if isinstance(required, list) else []
    parts: list[str] = []
    for name, rule in (cast("dict[str, object]", properties) if isinstance(properties, dict) else {}).items():
        kind: object = cast("dict[str, object]", rule).get("type") if isinstance(rule, dict) else None
        if isinstance(kind, list):
            kind = "|".join(map(str, cast("list[object]", kind)))
        text = f"{name}: {kind}" if isinstance(kind, str) else name
        parts.append(text if name in names else f"[{text}]")
    return ", ".join(parts)


def _prompt_signature(prompt: t.Prompt) -> str:
    return ", ".join(item.name if item.required else f"[{item.name}]" for item in prompt.arguments or [])


def show_result(result: t.CallToolResult) -> None:
    """Print a tool's answer; on standard error when the tool failed."""
    out = sys.stderr if result.is_error else sys.stdout
    if not any(isinstance(part, t.TextContent) for part in result.content) and result.structured_content is not t.UNSET:
        emit_json(result.structured_content)
        return
    for part in result.content:
        _write(_block(part), out)


def _block(part: t.ContentBlock) -> str:
    if isinstance(part, t.TextContent):
        return part.text
    if isinstance(part, t.ResourceLink):
        return f"{part.uri}  {part.title or part.name}"
    if isinstance(part, t.EmbeddedResource):
        return _contents(part.resource)
    return _size(part.mime_type, part.data)


def _contents(part: t.ResourceContents) -> str:
    if isinstance(part, t.TextResourceContents):
        return part.text
    return _size(part.mime_type or "data", part.blob) if isinstance(part, t.BlobResourceContents) else ""


def _size(kind: str, base64: str) -> str:
    return f"[{kind}, {len(base64.rstrip('=')) * 3 // 4} bytes; --json has them]"


def _write(text: str, out: TextIO) -> None:
    print(safe(text) if out.isatty() else text, file=out)


def show_contents(contents: Sequence[t.ResourceContents]) -> None:
    """Print a resource: for people on a terminal, and exactly as it is into a pipe or a file."""
    if sys.stdout.isatty():
        for part in contents:
            _write(_contents(part), sys.stdout)
        return
    from base64 import b64decode

    sys.stdout.flush()
    for part in contents:
        if isinstance(part, t.TextResourceContents):
            sys.stdout.buffer.write(part.text.encode())
        elif isinstance(part, t.BlobResourceContents):
            sys.stdout.buffer.write(b64decode(part.blob))
    sys.stdout.buffer.flush()


def show_prompt(result: t.GetPromptResult) -> None:
    """Print the messages of a prompt, each under its role."""
    if result.description:
        print(dim(safe(result.description), sys.stderr), file=sys.stderr)
    for message in result.messages:
        print(bold(f"{message.role}:", sys.stdout), end=" ")
        _write(_block(message.content), sys.stdout)
