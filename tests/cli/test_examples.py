"""Every file of examples/ runs, and does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from garrison import Client
from garrison import types as t

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name)]


def text(result: t.CallToolResult) -> str:
    (part,) = result.content
    assert isinstance(part, t.TextContent)
    return part.text


async def test_quickstart() -> None:
    async with Client(example("quickstart.py")) as client:
        assert text(await client.call_tool("add", {"a": 19, "b": 23})) == "42"


async def test_resources_and_prompts() -> None:
    async with Client(example("resources_and_prompts.py")) as client:
        (contents,) = (await client.read_resource("books://book/emma")).contents
        assert isinstance(contents, t.TextResourceContents) and contents.text.startswith("Emma Woodhouse")
        (message,) = (await client.get_prompt("continue_book", {"title": "moby-dick"})).messages
        assert isinstance(message.content, t.TextContent) and "Ishmael" in message.content.text
        completion = await client.complete(t.PromptReference(name="continue_book"), "title", "mo")
        assert completion.values == ["moby-dick"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_asking(era: str) -> None:
    def answer(params: object) -> t.ElicitResult:
        return t.ElicitResult(action="accept", content={"seats": 2, "window": False})

    async with Client(example("asking.py"), era="modern" if era == "modern" else "legacy", on_elicit=answer) as client:
        assert text(await client.call_tool("book", {"city": "Rome"})) == "Booked 2 to Rome, at the aisle."


async def test_progress() -> None:
    steps: list[float] = []
    async with Client(example("progress.py")) as client:
        result = await client.call_tool("build", {"parts": 3}, on_progress=lambda step: steps.append(step.progress))
    assert text(result) == "It is built." and steps == [1, 2, 3]


async def test_class_server() -> None:
    async with Client(example("class_server.py")) as client:
        assert text(await client.call_tool("write", {"name": "list", "text": "milk"})) == "Kept list"
        (contents,) = (await client.read_resource("notes://list")).contents
        assert isinstance(contents, t.TextResourceContents) and contents.text == "milk"
        assert (await client.call_tool("write", {"name": "list", "text": " "})).is_error
        assert len((await client.get_prompt("summarize", {"name": "list"})).messages) == 1


def test_client() -> None:
    done = subprocess.run(example("client.py"), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["speaks 2026-07-28", "offers add", "19 + 23 = 42"]


def test_every_example_has_a_test() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    attacked = {path.stem.removeprefix("test_") for path in Path(__file__).parents[1].glob("examples/test_*.py")}
    assert names and names <= {name.removeprefix("test_") for name in globals()} | attacked
