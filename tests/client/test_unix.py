"""The client over a Unix socket: with a good server, and with what lies there in its place."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import pytest

import garrison.errors as e
from garrison.client import Client
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.policy.transports import UnixSocketConfig
from garrison.protocol import types as t

from .fakes import MODERN

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


def quick(timeouts: dict[str, float] | None = None, **limits: int) -> SecurityPolicy:
    return SecurityPolicy(
        limits=Limits(**limits),
        timeouts=Timeouts(**{"connect": 3.0, "shutdown": 0.5, "request": 5.0, **(timeouts or {})}),
    )


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


async def call(client: Client, text: str = "ok") -> str:
    return text_of(await client.call_tool("echo", {"x": text}))


def result(message: dict[str, Any], **value: object) -> bytes:
    value["resultType"] = "complete"
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value}).encode() + b"\n"


async def answer(line: bytes, writer: Writer) -> None:
    message = json.loads(line)
    if message["method"] == "server/discover":
        writer.write(
            result(message, supportedVersions=[MODERN], capabilities={"tools": {}}, ttlMs=0, cacheScope="private")
        )
        return
    text = message.get("params", {}).get("arguments", {}).get("x", "")
    if text == "die":
        writer.transport.abort()
    elif text == "huge":
        writer.write(result(message, content=[{"type": "text", "text": "x" * 50_000}]))
    elif text == "junk":
        writer.write(b"\xff\n\n{}\n" + result({"id": 1}) + result(message, content=[{"type": "text", "text": "kept"}]))
    elif text != "sleep" and "id" in message:
        writer.write(result(message, content=[{"type": "text", "text": text}]))


@asynccontextmanager
async def serving(
    path: Path, handle: Callable[[bytes, Writer], Awaitable[None]] = answer
) -> AsyncIterator[list[bytes]]:
    lines: list[bytes] = []
    writers: list[Writer] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        writers.append(writer)
        try:
            while line := await reader.readline():
                lines.append(line)
                await handle(line, writer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=2**25)
    try:
        yield lines
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def test_calls_in_parallel_each_get_their_answer(tmp_path: Path):
    path = tmp_path / "mcp.sock"
    async with serving(path), Client(f"unix:{path}") as client:
        assert client.protocol_version == MODERN
        answers = await asyncio.gather(*(call(client, str(i)) for i in range(100)))
        assert answers == [str(i) for i in range(100)]
        assert await call(client, "é\n\u2028" * 300_000) == "é\n\u2028" * 300_000
        assert await call(client, "junk") == "kept"
        assert client.dropped["malformed"] == 2 and client.dropped["answer"] == 1


async def test_an_oversized_line_fails_its_call_and_the_next_is_served(tmp_path: Path):
    path = tmp_path / "mcp.sock"
    async with serving(path), Client(UnixSocketConfig(str(path), max_message_size=10_000)) as client:
        with pytest.raises(e.ProtocolViolation, match="10000"):
            await call(client, "huge")
        assert await call(client) == "ok"


async def test_what_is_under_way_when_the_server_goes_is_lost_and_the_next_call_connects_again(tmp_path: Path):
    path = tmp_path / "mcp.sock"
    async with serving(path) as lines, Client(f"unix:{path}") as client:
        found = await asyncio.gather(call(client, "sleep"), call(client, "die"), return_exceptions=True)
        assert [type(error) for error in found] == [e.ConnectionLost, e.ConnectionLost]
        assert await call(client, "again") == "again"
        assert sum(b'"die"' in line for line in lines) == 1
    async with serving(tmp_path / "other.sock"), Client(f"unix:{tmp_path / 'other.sock'}") as client:
        assert await call(client) == "ok"


async def test_a_server_that_is_gone_says_so(tmp_path: Path):
    path = tmp_path / "mcp.sock"
    async with serving(path):
        client = Client(f"unix:{path}")
        await client.connect()
    with pytest.raises(e.ClientError):
        await call(client)
    with pytest.raises(e.ConnectionFailed, match="is the server running"):
        await call(client)
    await client.aclose()


async def test_a_server_that_stops_reading_is_given_up(tmp_path: Path):
    path = tmp_path / "mcp.sock"

    async def deaf(line: bytes, writer: Writer) -> None:
        await answer(line, writer)
        cast("asyncio.Transport", writer.transport).pause_reading()
        await asyncio.sleep(20)

    policy = quick({"write_stall": 0.3}, outbound_bytes=2**16)
    async with serving(path, deaf), Client(f"unix:{path}", policy=policy) as client:
        start = time.monotonic()
        calls = [call(client, "x" * 2**20) for _ in range(10)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, e.ConnectionLost)
        assert time.monotonic() - start < 3.0


async def test_closing_does_not_wait_for_a_server_that_does_not_read(tmp_path: Path):
    path = tmp_path / "mcp.sock"

    async def deaf(line: bytes, writer: Writer) -> None:
        await answer(line, writer)
        cast("asyncio.Transport", writer.transport).pause_reading()
        await asyncio.sleep(20)

    async with serving(path, deaf):
        client = Client(f"unix:{path}", policy=quick())
        await client.connect()
        under_way = asyncio.ensure_future(call(client, "x" * 2**23))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await client.aclose()
        assert 0.4 < time.monotonic() - start < 1.5
        with pytest.raises(e.ConnectionLost):
            await under_way


# Whose socket it is.


@pytest.mark.parametrize("kind", ["nothing", "file", "directory", "symbolic link", "nobody listens", "too long"])
async def test_what_is_not_a_served_socket_is_named(tmp_path: Path, kind: str):
    path, words = tmp_path / "mcp.sock", ""
    if kind == "nothing":
        words = "is the server running"
    elif kind == "file":
        path.write_text("")
        words = "not a socket"
    elif kind == "directory":
        path.mkdir()
        words = "not a socket"
    elif kind == "nobody listens":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
        words = "is the server running"
    elif kind == "too long":
        path = tmp_path / ("x" * 120)
        words = "x{120}: "
    async with serving(tmp_path / "real.sock"):
        if kind == "symbolic link":
            path.symlink_to(tmp_path / "real.sock")
            words = "symbolic link"
        with pytest.raises(e.ConnectionFailed, match=words) as caught:
            await Client(f"unix:{path}").connect()
        assert str(path) in str(caught.value)
        async with Client(f"unix:{tmp_path / 'real.sock'}") as client:
            assert await call(client) == "ok"


OTHER = 65534
SERVER = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.setuid(%d)
sock.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); sock.listen()
print("ready", flush=True)
while True:
    connection, _ = sock.accept()
    print(repr(connection.recv(100)), flush=True)
"""


@pytest.mark.attack("ATK-077")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a server of another user; see the twin below")
async def test_a_server_of_another_user_hears_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "mcp.sock"
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    with subprocess.Popen([sys.executable, "-c", SERVER % OTHER, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            with pytest.raises(e.ConnectionFailed, match="allowed_uids"):
                await Client(f"unix:{path}").connect()
            assert "peer.refused" in caplog.text
            assert process.stdout.readline() == b"b''\n"
            client = Client(
                UnixSocketConfig(str(path), allowed_uids=(OTHER,)), policy=quick({"connect": 0.2}), era="modern"
            )
            with pytest.raises(e.ClientError):
                await client.connect()
            assert b"server/discover" in process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.attack("ATK-077")
async def test_the_user_that_the_kernel_names_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "mcp.sock"
    async with serving(path) as lines:
        monkeypatch.setattr("garrison.transports.unix.peer_uid", lambda sock: os.getuid() + 1)
        with pytest.raises(e.ConnectionFailed, match="allowed_uids"):
            await Client(f"unix:{path}").connect()
        assert lines == []
        async with Client(UnixSocketConfig(str(path), allowed_uids=(os.getuid() + 1,))) as client:
            assert await call(client) == "ok"
