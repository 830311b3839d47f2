"""Our client against the official Python SDK's server: both eras, stdio and HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from garrison import Client, RemoteError, types
from tests.support.ports import free_port

from .peers import THEIRS, their_http

pytestmark = pytest.mark.peer

Era = Literal["auto", "legacy"]
ERAS = pytest.mark.parametrize(("era", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with their_http(free_port()) as address:
        yield address


def answer(params: types.ElicitFormParams | types.ElicitUrlParams) -> types.ElicitResult:
    assert params.message == "What is your name?"
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def tour(client: Client, version: str) -> None:
    """Everything our client does."""
    assert client.protocol_version == version
    assert client.server_info is not None and client.server_info.name == "theirs"
    assert client.instructions == "Ask me anything."

    assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "fail", "count", "greet"]
    added = await client.call_tool("add", {"a": 2, "b": 3})
    assert not added.is_error and added.structured_content == {"result": 5}
    failed = await client.call_tool("fail")
    assert failed.is_error and "fail" in text_of(failed)

    seen: list[types.ProgressParams] = []
    counted = await client.call_tool("count", {"to": 3}, on_progress=seen.append)
    assert text_of(counted) == "counted to 3"
    assert [(step.progress, step.total, step.message) for step in seen] == [
        (1, 3, "number 1"),
        (2, 3, "number 2"),
        (3, 3, "number 3"),
    ]

    assert text_of(await client.call_tool("greet")) == "Hello, Ada!"

    assert [resource.uri for resource in (await client.list_resources()).resources] == ["test://text"]
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["test://squares/{number}"]
    for uri, expected in (("test://text", "a text"), ("test://squares/12", "144")):
        contents = (await client.read_resource(uri)).contents[0]
        assert isinstance(contents, types.TextResourceContents) and contents.text == expected
    with pytest.raises(RemoteError):
        await client.read_resource("test://nothing")

    assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["review"]
    message = (await client.get_prompt("review", {"language": "rust"})).messages[0]
    assert message.role == "user" and isinstance(message.content, types.TextContent)
    assert message.content.text == "Review this rust code"
    completed = await client.complete(types.PromptReference(name="review"), "language", "p")
    assert completed.values == ["python", "pascal"]


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


@ERAS
async def test_stdio(era: Era, version: str) -> None:
    async with Client([*THEIRS, "stdio"], era=era, on_elicit=answer) as client:
        await tour(client, version)


@ERAS
async def test_http(era: Era, version: str, url: str) -> None:
    async with Client(url, era=era, on_elicit=answer) as client:
        await tour(client, version)
