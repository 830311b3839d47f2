"""The MCP Inspector's command line against our server: both eras, stdio and HTTP."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .peers import INSTALLING, OURS, TOKEN, npm_tool, our_http

pytestmark = [pytest.mark.peer, pytest.mark.timeout(INSTALLING + 60)]

ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
TOOL_ERROR = 5
"""The exit status for a result with `isError`."""


class Inspector:
    """The program, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self._command = [*npm_tool("mcp-inspector"), "--cli"]
        self._environment = {**os.environ, "HOME": str(home), "MCP_INSPECTOR_OAUTH_CALLBACK_PORT": "0"}
        self._environment["NODE_COMPILE_CACHE"] = str(home / "compiled")

    def __call__(self, target: list[str], era: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *target, "--protocol-era", era, "--format", "json", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    return Inspector(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with our_http() as address:
        yield address


@pytest.fixture(params=["stdio", "http"])
def target(request: pytest.FixtureRequest, url: str) -> list[str]:
    if request.param == "stdio":
        return [*OURS, "stdio"]
    return [url, "--transport", "http", "--header", f"Authorization: Bearer {TOKEN}"]


def result_of(done: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)["result"]


@ERAS
def test_the_tools_are_listed_without_complaint(inspector: Inspector, target: list[str], era: str) -> None:
    listed = result_of(inspector(target, era, "--method", "tools/list", "--strict"))
    assert [tool["name"] for tool in listed["tools"]] == ["add", "fail", "count", "greet"]


@ERAS
def test_a_tool_is_called(inspector: Inspector, target: list[str], era: str) -> None:
    called = result_of(
        inspector(target, era, "--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3")
    )
    assert called["content"] == [{"type": "text", "text": "5"}]
    assert called["structuredContent"] == {"result": 5}
    assert ("_meta" in called) == (era == "modern")


@ERAS
def test_a_tool_that_fails_is_told_apart(inspector: Inspector, target: list[str], era: str) -> None:
    called = result_of(inspector(target, era, "--method", "tools/call", "--tool-name", "fail"), TOOL_ERROR)
    assert called["isError"] is True and called["content"][0]["text"] == "This went wrong"


@ERAS
def test_without_the_token_there_is_nothing(inspector: Inspector, url: str, era: str) -> None:
    done = inspector([url, "--transport", "http"], era, "--method", "tools/list")
    assert done.returncode not in (0, TOOL_ERROR) and "tools" not in done.stdout
