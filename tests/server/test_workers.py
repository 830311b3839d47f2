"""Several processes on one address: what they need, and that all of them serve, are replaced, and end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, ConfigurationError, Server
from garrison.errors import ClientError
from tests.support.raw_http import TOKEN

PROGRAM = """
import os, sys
from garrison import Context, Server

server = Server("w", state_key=b"k" * 32, legacy="stateless")

@server.tool(inline=True)
def pid() -> int:
    return os.getpid()

@server.tool()
async def ask(ctx: Context) -> str:
    answer = await ctx.elicit("Go on?", {"type": "object", "properties": {"yes": {"type": "boolean"}}})
    return f"{os.getpid()} {answer.accepted}"

@server.tool(inline=True)
def die() -> int:
    os._exit(3)

server.run_http(port=int(sys.argv[1]), workers=2)
"""


@pytest.mark.parametrize(
    ("options", "workers", "match"),
    [
        ({"legacy": "off"}, 2, "state_key"),
        ({"state_key": b"k" * 32}, 2, "legacy"),
        ({"state_key": b"k" * 32, "legacy": "off"}, 0, "workers"),
        ({"state_key": b"k" * 32, "legacy": "off"}, True, "workers"),
    ],
)
def test_what_several_cannot_do_is_refused(options: Any, workers: int, match: str, free_port: int) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Server("x", **options).run_http(port=free_port, workers=workers)


@pytest.fixture
def served(tmp_path: Path, free_port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(free_port)],
        env={**os.environ, "GARRISON_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"Serving MCP" in process.stderr.readline()
        yield process, f"http://127.0.0.1:{free_port}/mcp"
    finally:
        process.kill()
        process.communicate()


def children(process: subprocess.Popen[bytes]) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}


async def pids(url: str, most: int = 200) -> set[int]:
    """The workers that answer, of many connections at once."""

    async def one() -> int:
        async with Client(url, token=TOKEN, era="modern") as client:
            content: Any = (await client.call_tool("pid")).structured_content
            return int(str(content["result"]))

    found: set[int] = set()
    while len(found) < 2 and most > 0:
        found |= set(await asyncio.gather(*(one() for _ in range(10))))
        most -= 10
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_all_of_them_serve_and_who_dies_is_replaced(served: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = served
    first = await pids(url)
    assert first == children(process)
    with pytest.raises(ClientError):
        async with Client(url, token=TOKEN, era="modern") as client:
            await client.call_tool("die")
    until = time.monotonic() + 5
    while len(children(process)) < 2 or children(process) == first:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    again = await pids(url)
    assert len(again & first) == 1
    assert again == children(process)
    # What one has sealed the other opens.
    for _ in range(6):
        async with Client(
            url, token=TOKEN, era="modern", on_elicit=lambda params: {"action": "accept", "content": {"yes": True}}
        ) as client:
            content: Any = (await client.call_tool("ask")).structured_content
            assert str(content["result"]).endswith("True")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_they_end_with_their_parent(served: tuple[subprocess.Popen[bytes], str], number: signal.Signals) -> None:
    process, url = served
    await pids(url)
    there = children(process)
    process.send_signal(number)
    await asyncio.to_thread(process.wait, 8)
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in there):
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


ON_A_SOCKET = """
import os, signal, sys, time
from garrison import Server
from garrison.policy.transports import UnixSocketConfig
from garrison.server.serve import run_http

server = Server("w", state_key=b"k" * 32, legacy="stateless")
{more}
run_http(server, "127.0.0.1", 0, unix=UnixSocketConfig(sys.argv[1]), workers=2)
"""
STOPPED_WHILE_IT_FORKS = """
fork = os.fork
def first():
    os.fork = fork
    os.kill(os.getpid(), signal.SIGTERM)
    return fork()
os.fork = first
"""


def on_a_socket(folder: Path, more: str = "") -> subprocess.Popen[bytes]:
    (folder / "program.py").write_text(ON_A_SOCKET.format(more=more))
    return subprocess.Popen(
        [sys.executable, str(folder / "program.py"), str(folder / "run" / "mcp.sock")],
        env={**os.environ, "GARRISON_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_ends_leaves_the_socket_to_the_others(tmp_path: Path) -> None:
    process = on_a_socket(tmp_path)
    path = tmp_path / "run" / "mcp.sock"
    try:
        assert process.stderr is not None
        assert b"Serving MCP" in process.stderr.readline()
        until = time.monotonic() + 5
        while len(children(process)) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)  # both serve by now
        victim = min(children(process))
        os.kill(victim, signal.SIGTERM)
        while victim in children(process):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert path.is_socket()
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_stop_while_the_first_worker_is_made_is_heard(tmp_path: Path) -> None:
    process = on_a_socket(tmp_path, STOPPED_WHILE_IT_FORKS)
    try:
        assert process.wait(8) == 0
        assert not (tmp_path / "run" / "mcp.sock").exists()
    finally:
        process.kill()
        process.communicate()
