"""Our client against the reference servers on npm, over stdio."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from garrison import Client, types
from garrison.client import accept_defaults

from .peers import INSTALLING, npm_tool

pytestmark = [pytest.mark.peer, pytest.mark.timeout(INSTALLING + 60)]


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return [*npm_tool("mcp-server-everything"), "stdio"]


@pytest.fixture(scope="module")
def filesystem() -> list[str]:
    return npm_tool("mcp-server-filesystem")


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


def speak(params: types.CreateMessageParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent("It rains"), model="none")


async def test_everything_calls(everything: list[str]) -> None:
    async with Client(everything) as client:
        assert client.protocol_version == "2025-11-25"
        assert {"echo", "get-sum"} <= {tool.name async for tool in client.tools()}
        assert text_of(await client.call_tool("echo", {"message": "héllo"})) == "Echo: héllo"
        assert "5" in text_of(await client.call_tool("get-sum", {"a": 2, "b": 3}))
        weather = await client.call_tool("get-structured-content", {"location": "Chicago"})
        assert isinstance(weather.structured_content, dict) and "temperature" in weather.structured_content
        image = next(
            part for part in (await client.call_tool("get-tiny-image")).content if isinstance(part, types.ImageContent)
        )
        assert base64.b64decode(image.data).startswith(b"\x89PNG")
        assert (await client.call_tool("get-sum", {"a": "two"})).is_error

        seen: list[types.ProgressParams] = []
        await client.call_tool("trigger-long-running-operation", {"duration": 0.3, "steps": 3}, on_progress=seen.append)
        assert [step.progress for step in seen] == [1, 2, 3]
        await client.ping()


async def test_everything_reads_and_prompts(everything: list[str]) -> None:
    async with Client(everything) as client:
        uris = [resource.uri async for resource in client.resources()]
        assert "demo://resource/static/document/features.md" in uris
        for uri in (uris[0], "demo://resource/dynamic/text/1"):
            contents = (await client.read_resource(uri)).contents[0]
            assert isinstance(contents, types.TextResourceContents) and contents.uri == uri and contents.text
        blob = (await client.read_resource("demo://resource/dynamic/blob/1")).contents[0]
        assert isinstance(blob, types.BlobResourceContents) and base64.b64decode(blob.blob)

        assert "args-prompt" in [prompt.name async for prompt in client.prompts()]
        message = (await client.get_prompt("args-prompt", {"city": "Oslo"})).messages[0]
        assert isinstance(message.content, types.TextContent) and "Oslo" in message.content.text
        reference = types.PromptReference(name="completable-prompt")
        assert "Engineering" in (await client.complete(reference, "department", "E")).values


async def test_everything_asks_back(everything: list[str], tmp_path: Path) -> None:
    asked: list[str] = []

    def fill_in(params: types.ElicitFormParams | types.ElicitUrlParams) -> types.ElicitResult:
        asked.append(params.message)
        filled = accept_defaults(params)
        return types.ElicitResult(action="accept", content={**(filled.content or {}), "name": "Ada"})

    async with Client(everything, on_elicit=fill_in, on_sample=speak, on_roots=[str(tmp_path)]) as client:
        said = await client.call_tool("trigger-sampling-request", {"prompt": "weather", "maxTokens": 10})
        assert "It rains" in text_of(said)
        form = await client.call_tool("trigger-elicitation-request")
        assert len(asked) == 1 and not form.is_error
        assert tmp_path.name in text_of(await client.call_tool("get-roots-list"))


async def test_filesystem(filesystem: list[str], tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    async with Client([*filesystem, str(inside)]) as client:
        assert {"read_text_file", "write_file"} <= {tool.name async for tool in client.tools()}
        note = str(inside / "note.txt")
        written = await client.call_tool("write_file", {"path": note, "content": "line 1\nline 2\n"})
        assert not written.is_error and Path(note).read_text() == "line 1\nline 2\n"
        assert text_of(await client.call_tool("read_text_file", {"path": note, "head": 1})) == "line 1"
        assert "note.txt" in text_of(await client.call_tool("list_directory", {"path": str(inside)}))
        refused = await client.call_tool("read_text_file", {"path": str(outside / "secret")})
        assert refused.is_error and "secret" not in text_of(refused).replace(str(outside / "secret"), "")
