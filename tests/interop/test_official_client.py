"""The official Python SDK's client against our server: both eras, stdio and HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import mcp_types as theirs
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client

from .peers import OURS, TOKEN, our_http

pytestmark = pytest.mark.peer

SOON = 1.5
"""Seconds. A server that stays for longer after its input has ended is killed."""
MODERN, LEGACY = "2026-07-28", "2025-11-25"
ERAS = pytest.mark.parametrize(("mode", "version"), [("auto", MODERN), ("legacy", LEGACY)], ids=["modern", "legacy"])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with our_http() as address:
        yield address


async def answer(context: ClientRequestContext, params: theirs.ElicitRequestParams) -> theirs.ElicitResult:
    return theirs.ElicitResult(action="accept", content={"name": "Ada"})


@asynccontextmanager
async def over_stdio(mode: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=OURS[0], args=[*OURS[1:], "stdio"])
    async with Client(server, mode=mode, elicitation_callback=answer) as client:
        yield client


@asynccontextmanager
async def over_http(mode: str, url: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=answer) as client:
            yield client


async def tour(client: Client, version: str) -> None:
    """Everything a client of this SDK does."""
    assert client.protocol_version == version
    assert client.server_info is not None and client.server_info.name == "ours"
    assert client.instructions == "Ask me anything."

    assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "fail", "count", "greet"]
    added = await client.call_tool("add", {"a": 2, "b": 3})
    assert not added.is_error and added.structured_content == {"result": 5}
    failed = await client.call_tool("fail", {})
    assert failed.is_error and text_of(failed) == "This went wrong"
    refused = await client.call_tool("add", {"a": "two", "b": 3})
    assert refused.is_error and "a" in text_of(refused)

    seen: list[tuple[float, float | None, str | None]] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    counted = await client.call_tool("count", {"to": 3}, progress_callback=heard)
    assert text_of(counted) == "counted to 3"
    assert seen == [(1, 3, "number 1"), (2, 3, "number 2"), (3, 3, "number 3")]

    assert text_of(await client.call_tool("greet", {})) == "Hello, Ada!"

    assert [str(resource.uri) for resource in (await client.list_resources()).resources] == ["test://text"]
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["test://squares/{number}"]
    for uri, expected in (("test://text", "a text"), ("test://squares/12", "144")):
        contents = (await client.read_resource(uri)).contents[0]
        assert isinstance(contents, theirs.TextResourceContents) and contents.text == expected

    assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["review"]
    message = (await client.get_prompt("review", {"language": "rust"})).messages[0]
    assert message.role == "user" and isinstance(message.content, theirs.TextContent)
    assert message.content.text == "Review this rust code"
    reference = theirs.PromptReference(name="review")
    completed = await client.complete(reference, {"name": "language", "value": "p"})
    assert completed.completion.values == ["python", "pascal"]


def text_of(result: theirs.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, theirs.TextContent)
    return content.text


@ERAS
async def test_stdio(mode: str, version: str) -> None:
    async with over_stdio(mode) as client:
        await tour(client, version)


async def test_stdio_ends_though_a_subscription_is_open() -> None:
    loop = asyncio.get_running_loop()
    async with over_stdio("auto") as client, client.listen(tools_list_changed=True):
        left = loop.time()
    assert loop.time() - left < SOON


@ERAS
async def test_http(mode: str, version: str, url: str) -> None:
    async with over_http(mode, url) as client:
        await tour(client, version)


@ERAS
async def test_http_without_the_token(mode: str, version: str, url: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with Client(url, mode=mode) as client:
            await client.list_tools()
    assert caught.group_contains(MCPError, match="Server returned an error response")
