"""The demo's conversation: the whole protocol once, on every transport and in both eras.

Rules of this file:
- What should come is worked out from the pages in this process; what came is worked out from the server's answer alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..client import Client
from ..protocol import types as t
from .demo_rows import BROKEN, Row, row
from .demo_server import pages, server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Literal

__all__ = ["ERAS", "talk"]

ERAS: dict[Literal["modern", "legacy"], str] = {"modern": "2026-07-28", "legacy": "2025-11-25"}
"""The eras, with the newest revision of each."""

_WORD = "transport"


async def talk(
    transport: str, era: Literal["modern", "legacy"], client: Callable[..., Client], *, steps: int
) -> list[Row]:
    """One conversation.

    Args:
        transport: for the rows.
        era: which protocol to speak.
        client: makes a client of the server; takes the options of `Client`.
        steps: of progress.
    """
    answers: list[str] = []

    def choose(params: t.ElicitFormParams | t.ElicitUrlParams) -> t.ElicitResult:
        answers.append(params.message)
        return t.ElicitResult(action="accept", content={"page": _found()[0]})

    try:
        async with client(era=era, on_elicit=choose) as connected:
            rows: list[Row] = []
            for what, expected, check in _checks(era, steps, answers):
                rows.append(await row(what, transport, era, expected, check(connected)))
            return rows
    except BROKEN as exc:
        return [Row("connect", transport, era, "connected", f"{type(exc).__name__}: {exc}")]


def _checks(
    era: Literal["modern", "legacy"], steps: int, answers: list[str]
) -> Sequence[tuple[str, str, Callable[[Client], Awaitable[str]]]]:
    """What is done, what should come, and how it is done."""
    name = next(iter(pages()))
    text = pages()[name]

    async def discover(client: Client) -> str:
        await client.discover()
        info = client.server_info
        return f"{info.name if info else None} speaks {client.protocol_version}"

    async def everything(client: Client) -> str:
        tools = [tool.name async for tool in client.tools()]
        resources = [resource.uri async for resource in client.resources()]
        templates = [template.uri_template async for template in client.resource_templates()]
        prompts = [prompt.name async for prompt in client.prompts()]
        return _counts(tools, resources, templates, prompts)

    async def search(client: Client) -> str:
        result = await client.call_tool("search", {"word": _WORD, "limit": 1000})
        found = cast("dict[str, list[dict[str, object]]]", result.structured_content)["result"]
        return f"{len(found)} lines in {len({hit['page'] for hit in found})} pages"

    async def read(client: Client) -> str:
        (contents,) = (await client.read_resource(f"docs://page/{name}")).contents
        return _extent(contents.text if isinstance(contents, t.TextResourceContents) else "")

    async def progress(client: Client) -> str:
        seen: list[t.ProgressParams] = []
        await client.call_tool("index", {"steps": steps}, on_progress=seen.append)
        return _steps([step.progress for step in seen], seen[-1].total)

    async def prompt(client: Client) -> str:
        (message,) = (await client.get_prompt("explain", {"name": name})).messages
        content = message.content
        said = content.text if isinstance(content, t.TextContent) else ""
        return f"{message.role}: {_extent(said.partition(':')[2].strip())}"

    async def ask(client: Client) -> str:
        before = len(answers)
        result = await client.call_tool("open_page", {"word": _WORD})
        (content,) = result.content
        said = content.text if isinstance(content, t.TextContent) else ""
        return f"asked {len(answers) - before} time, opened {said!r}"

    entries = server.registry
    lists = (entries.tools, entries.resources, entries.templates, entries.prompts)
    hits = [key for key, page in pages().items() for line in page.splitlines() if _WORD in line.lower()]
    return (
        ("discover", f"{server.info.name} speaks {ERAS[era]}", discover),
        ("list everything", _counts(*(list(entry) for entry in lists)), everything),
        (f"call search({_WORD!r})", f"{len(hits)} lines in {len(set(hits))} pages", search),
        (f"read docs://page/{name}", _extent(text), read),
        ("call index, with progress", _steps(range(1, steps + 1), steps), progress),
        ("get the prompt explain", f"user: {_extent(text.strip())}", prompt),
        ("call open_page, which asks", f"asked 1 time, opened {pages()[_found()[0]].splitlines()[0]!r}", ask),
    )


def _found() -> list[str]:
    """The pages that the word is in, in the server's order."""
    return sorted(name for name, text in pages().items() if _WORD in text.lower())


def _counts(tools: Sequence[str], resources: Sequence[str], templates: Sequence[str], prompts: Sequence[str]) -> str:
    return (
        f"{len(tools)} tools, {len(resources)} resource, {len(templates)} template, {len(prompts)} prompt: "
        f"{', '.join(sorted([*tools, *prompts]))}"
    )


def _extent(text: str) -> str:
    """Length and a fingerprint of a text, short enough for a table."""
    from hashlib import sha256

    return f"{len(text)} characters, sha256 {sha256(text.encode()).hexdigest()[:8]}"


def _steps(seen: Sequence[float], total: float | None) -> str:
    """How progress went: whether it grew, and how far."""
    order = "rising" if list(seen) == sorted(set(seen)) else "not rising"
    return f"{len(seen)} steps, {order} to {max(seen, default=0):g} of {total or 0:g}"
