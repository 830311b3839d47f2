"""What the tests of the command share: running it as a process, and a server to run it on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOKEN = "a-token-for-the-tests"

SERVER = '''
import asyncio
from dataclasses import dataclass
from garrison import Context, ResourceContents, Server, ToolError, ToolOutput

server = Server("tests", version="1.2.3", instructions="Use it for tests.")

@dataclass
class Form:
    """Fields."""
    name: str
    count: int = 2

@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

@server.tool()
def fail(text: str) -> str:
    raise ToolError(text)

@server.tool()
def structured() -> ToolOutput:
    return ToolOutput.json({"a": [1]})

@server.tool()
async def slow(seconds: float, ctx: Context) -> str:
    await ctx.progress(1, 2, "begun")
    await asyncio.sleep(seconds)
    return "slow"

@server.tool()
async def steps(ctx: Context) -> str:
    for step in range(1, 4):
        await ctx.progress(step, 4, f"step {step}")
    return "stepped"

@server.tool()
async def ask(ctx: Context) -> str:
    answer = await ctx.elicit("Who?", Form)
    return f"{answer.action} {answer.content}"

@server.tool()
def environment(name: str) -> str:
    import os
    return os.environ.get(name, "(not set)")

@server.resource("test://text")
def text() -> str:
    return "text without an end"

@server.resource("test://bytes")
def data() -> bytes:
    return b"\\x00\\xff\\x1b"

@server.resource("test://item/{name}", mime_type="text/plain")
def item(name: str) -> str:
    return name

@server.prompt()
def greet(who: str) -> str:
    """Greet somebody."""
    return f"Hello {who}"

server.run()
'''


def garrison(
    *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GARRISON_TOKEN", "NO_COLOR")} | dict(env or {})
    return subprocess.run(
        [sys.executable, "-m", "garrison", *words],
        capture_output=True, text=True, encoding="utf-8", timeout=30, cwd=cwd, env=environment, input=stdin,
    )  # fmt: skip


@contextmanager
def served(target: str, *words: str, cwd: Path, token: str | None = TOKEN) -> Generator[tuple[str, str]]:
    """A server of `garrison run --http`: its URL, and what it said when it started."""
    environment = {k: v for k, v in os.environ.items() if k != "GARRISON_TOKEN"}
    if token is not None:
        environment["GARRISON_TOKEN"] = token
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison", "run", target, "--http", "127.0.0.1:0", *words],
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=cwd, env=environment,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        if token is None:
            said += process.stderr.readline()
        found = re.search(r"http://\S+", said)
        assert found, said + process.stderr.read()
        yield found[0], said
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0
