"""An example, or its vulnerable twin, as a process of its own, and a client that talks to it.

    async with talking(TWINS / "files.py", "--root", str(root), over="http") as client:
        await said(client.call_tool("read_file", {"path": "../key"}))

Rules of this file:
- Both are started the same way, by `garrison run`, so that a script cannot tell them apart.
- What a call came to is a text, whether it is an answer or a refusal: a test looks for what must not be in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, GarrisonError
from garrison import types as t

__all__ = ["BOTH", "CANARY", "EXAMPLES", "OVER", "TWINS", "accept", "decline", "file_of", "said", "served", "talking"]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TWINS = Path(__file__).with_name("twins")
BOTH = ("example", "twin")
OVER = ("http", "stdio")
CANARY = "canary-5d1f0c7e"
"""Stands where nobody may get it from."""
_TOKEN = "a-token-for-the-tests"
_STARTING = 20


def file_of(which: str, name: str) -> Path:
    """The file of the example of this name, or of its twin."""
    return (EXAMPLES if which == "example" else TWINS) / f"{name}.py"


@contextmanager
def served(file: Path, *words: str, env: Mapping[str, str] | None = None) -> Generator[str]:
    """The file's server on a port of its own: its URL. The token is `GARRISON_TOKEN` of the process."""
    command = [sys.executable, "-P", "-m", "garrison", "run", str(file), "--http", "127.0.0.1:0", *words]
    environment = {**os.environ, "GARRISON_TOKEN": _TOKEN, **(env or {})}
    with tempfile.TemporaryFile("w+") as told:  # a pipe that nobody reads would fill up
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=told, text=True, env=environment)
        try:
            yield _url(process, told.fileno())
        finally:
            process.terminate()
            process.wait(_STARTING)
    assert process.returncode == 0


def _url(process: subprocess.Popen[str], told: int) -> str:
    import time

    end = time.monotonic() + _STARTING
    while True:
        text = os.pread(told, 65_536, 0).decode("utf-8", "replace")
        found = re.search(r"http://\S+", text)
        if found:
            return found[0]
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"it did not start: {text}")
        time.sleep(0.01)


@asynccontextmanager
async def talking(
    file: Path, *words: str, over: str, on_elicit: Callable[..., Any] | None = None
) -> AsyncIterator[Client]:
    """A client of the file's server, over HTTP on a real listener or over stdio."""
    if over == "stdio":
        command = [sys.executable, "-P", "-m", "garrison", "run", str(file), *words]
        async with Client(command, on_elicit=on_elicit) as client:
            yield client
        return
    with served(file, *words) as url:
        async with Client(url, token=_TOKEN, on_elicit=on_elicit) as client:
            yield client


async def said(call: Awaitable[t.CallToolResult | t.ReadResourceResult]) -> str:
    """What came of a call, as text: every content, or the words of the error."""
    try:
        result = await call
    except GarrisonError as error:
        return f"{type(error).__name__}: {error}"
    parts = result.content if isinstance(result, t.CallToolResult) else result.contents
    texts = [part.text if isinstance(part, t.TextContent | t.TextResourceContents) else repr(part) for part in parts]
    if isinstance(result, t.CallToolResult) and result.is_error:
        texts.insert(0, "refused:")
    return "\n".join(texts)


def accept(question: object) -> t.ElicitResult:
    """A user who says yes."""
    return t.ElicitResult(action="accept", content={"confirm": True})


def decline(question: object) -> t.ElicitResult:
    """A user who says no."""
    return t.ElicitResult(action="decline")
