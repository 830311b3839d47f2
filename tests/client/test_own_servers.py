"""The client with Garrison's own servers, over WebSocket and Unix sockets, in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import garrison.errors as e
from garrison import Context, Server
from garrison.client import Client, ToolListChanged
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
from garrison.protocol import types as t
from tests.support.certs import Authority
from tests.support.roomy import ROOMY_RATES, roomy

TOKEN = "a-token-that-is-long-enough-0123456789"


@dataclass
class Person:
    name: str


def make(**limits: int) -> Server:
    policy = SecurityPolicy(limits=roomy(Limits(**limits)), timeouts=Timeouts(shutdown=0.3), rates=ROOMY_RATES)
    server = Server("own", version="1", policy=policy)

    @server.tool()
    async def echo(text: str) -> str:
        return text

    @server.tool()
    async def slow(ctx: Context) -> str:
        for step in range(3):
            await ctx.progress(step, 3)
            await asyncio.sleep(0.01)
        return "done"

    @server.tool()
    async def ask(ctx: Context) -> str:
        return f"hello {(await ctx.elicit('who', Person)).content}"

    @server.tool()
    async def forever() -> str:
        await asyncio.sleep(30)
        return "never"

    return server


@asynccontextmanager
async def reached(kind: str, server: Server, folder: Path) -> AsyncIterator[Any]:
    """A target at which the server is served."""
    if kind == "unix":
        async with server.unix(str(folder / "own" / "mcp.sock")):
            yield f"unix:{folder / 'own' / 'mcp.sock'}"
    elif kind == "http over unix":
        path = str(folder / "own" / "http.sock")
        async with server.http(token=TOKEN, unix=UnixSocketConfig(path)):
            yield HttpTransportConfig("http://localhost/mcp", token=TOKEN, unix_socket=path)
    elif kind == "wss":
        authority = Authority(folder)
        leaf = authority.leaf()
        tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key)
        async with server.http(port=0, token=TOKEN, tls=tls, websocket=WebSocketConfig()) as serving:
            yield WebSocketConfig(serving.websocket_url, token=TOKEN, tls=TlsClientConfig(ca=authority.pem))
    else:
        config = WebSocketConfig(compression=kind == "ws, compressed")
        async with server.http(port=0, token=TOKEN, websocket=config) as serving:
            yield WebSocketConfig(serving.websocket_url, token=TOKEN, compression=config.compression)


KINDS = ["ws", "ws, compressed", "wss", "unix", "http over unix"]


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", "2024-11-05"])
@pytest.mark.parametrize("kind", KINDS)
async def test_everything_passes(kind: str, version: str, tmp_path: Path):
    progress: list[float] = []
    server = make(message_rate=100_000, message_burst=100_000)
    async with (
        reached(kind, server, tmp_path) as target,
        Client(
            target,
            versions=[version],
            on_elicit=lambda _: t.ElicitResult(action="accept", content={"name": "Ann"}),
            on_progress=lambda report: progress.append(report.progress),
        ) as client,
    ):
        assert client.protocol_version == version
        answers = await asyncio.gather(*(client.call_tool("echo", {"text": str(i)}) for i in range(100)))
        assert [text_of(answer) for answer in answers] == [str(i) for i in range(100)]
        big = "é\n" * 1_000_000
        assert text_of(await client.call_tool("echo", {"text": big})) == big
        assert text_of(await client.call_tool("slow")) == "done" and progress == [0, 1, 2]
        if version >= "2025-06-18":
            assert text_of(await client.call_tool("ask")) == "hello Person(name='Ann')"
        with pytest.raises(e.RequestTimeout):
            await client.call_tool("forever", timeout=0.1)
        with pytest.raises(e.RemoteError):
            await client.call_tool("unknown")
        assert text_of(await client.call_tool("echo", {"text": "still"})) == "still"


@pytest.mark.parametrize("kind", ["ws", "unix"])
async def test_changes_are_heard(kind: str, tmp_path: Path):
    server = make()
    async with reached(kind, server, tmp_path) as target, Client(target) as client:
        async with client.subscribe(tools=True) as changes:

            @server.tool()
            async def another() -> str:
                return "x"

            async with asyncio.timeout(5):
                assert isinstance(await anext(aiter(changes)), ToolListChanged)


@pytest.mark.parametrize(
    ("token", "error"), [(None, e.AuthenticationRequired), ("wrong" * 8, e.AuthenticationRequired)]
)
async def test_without_the_token_there_is_no_websocket(token: str | None, error: type[Exception]):
    async with make().http(port=0, token=TOKEN, websocket=WebSocketConfig()) as serving:
        with pytest.raises(error):
            await Client(serving.websocket_url, token=token).connect()
        async with Client(serving.websocket_url, token=TOKEN) as client:
            assert text_of(await client.call_tool("echo", {"text": "in"})) == "in"


@pytest.mark.parametrize("kind", ["ws", "unix"])
async def test_a_server_that_stops_ends_what_is_under_way_and_is_found_again(kind: str, tmp_path: Path):
    async with reached(kind, make(), tmp_path) as target:
        client = Client(target)
        await client.connect()
        under_way = asyncio.ensure_future(client.call_tool("forever"))
        await asyncio.sleep(0.05)
    with pytest.raises(e.ClientError):
        await under_way
    with pytest.raises(e.ConnectionFailed):
        await client.call_tool("echo", {"text": "nobody"})
    await client.aclose()
