"""`HttpTransportConfig`, `WebSocketConfig` and `UnixSocketConfig`, as targets of a client and on a listener."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, SecurityPolicy, Server, Timeouts
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
from garrison.transports import unix
from tests.client.fakes import http_server, listening, modern, text
from tests.client.raw_websocket import Raw, raw_server
from tests.client.raw_websocket import echo as echo_frames
from tests.support.certs import Authority
from tests.support.edge import Counting
from tests.support.mcp import call
from tests.support.raw_http import TOKEN, connected, exchange, serving
from tests.support.websocket import RSV1, WebSocketWire, message

from .case import case
from .limits import said_by
from .scene import folder, handshake, outcome, socket_folder, unix_lines

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2, connect=5, request=5))


def named(name: str) -> Server:
    """A server whose `echo` says its name first."""
    server = Server(name, policy=POLICY)

    @server.tool(inline=True)
    def echo(text: str = "") -> str:
        return name + text

    return server


async def echoed(config: Any, text: str = "", **options: Any) -> str:
    """What `echo` answers a client of this configuration."""
    async with Client(config, policy=POLICY, **options) as client:
        return said_by(await client.call_tool("echo", {"text": text}))


# Streamable HTTP


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[dict[str, Any]]:
    """Two servers, by name."""
    async with serving(named("one"), **options) as one, serving(named("other"), **options) as other:
        yield {"one": one, "other": other}


@case(HttpTransportConfig, "url", first=("one", "one"), changed=("other", "other"))
async def http_url(value: str) -> object:
    async with two() as servers:
        return await echoed(HttpTransportConfig(servers[value].url, token=TOKEN))


@case(HttpTransportConfig, "max_message_size", default="one" + "x" * 3000, changed=(2000, "ClientError"))
async def http_message_size(value: int | None) -> object:
    async with serving(named("one")) as running:
        config = HttpTransportConfig(running.url, token=TOKEN, max_message_size=value)
        return await outcome(echoed(config, "x" * 3000))


@case(HttpTransportConfig, "token", default="AuthenticationRequired", changed=(TOKEN, "one"))
async def http_token(value: str | None) -> object:
    async with serving(named("one")) as running:
        return await outcome(echoed(HttpTransportConfig(running.url, token=value)))


@case(HttpTransportConfig, "headers", default=None, changed=({"X-A": "1"}, "1"))
async def http_headers(value: dict[str, str] | None) -> object:
    async with http_server(modern({"tools/call": lambda request: text("ok")})) as fake:
        assert await echoed(HttpTransportConfig(fake.url, headers=value)) == "ok"
        return fake.requests[-1].headers.get("x-a")


@asynccontextmanager
async def secured(**options: Any) -> AsyncIterator[tuple[Any, TlsClientConfig]]:
    """A server with a certificate, and how to believe it."""
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key)
        async with serving(named("one"), tls=tls, **options) as running:
            yield running, TlsClientConfig(ca=authority.pem)


@case(HttpTransportConfig, "tls", default="ConnectionFailed", changed=("believing", "one"))
async def http_tls(value: object) -> object:
    async with secured() as (running, believing):
        config = HttpTransportConfig(running.url, token=TOKEN, tls=believing if value else None)
        return await outcome(echoed(config))


@asynccontextmanager
async def proxying() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that connects: its URL, and what it was asked for."""
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split(" ")[0])
        far_reader, far_writer = await asyncio.open_connection(*head.split(" ")[1].split(":"))
        writer.write(b"HTTP/1.1 200 Go\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:
            far_writer.transport.abort()

    async with listening(proxy) as port:
        yield f"http://127.0.0.1:{port}", asked


@case(HttpTransportConfig, "proxy", default=("one", []), changed=("the proxy", ("one", ["CONNECT"])))
async def http_proxy(value: object) -> object:
    async with secured() as (running, believing), proxying() as (url, asked):
        config = HttpTransportConfig(running.url, token=TOKEN, tls=believing, proxy=url if value else None)
        return await echoed(config), asked


@case(HttpTransportConfig, "unix_socket", default="one", changed=("the socket", "other"))
async def http_unix_socket(value: object) -> object:
    with socket_path() as place:
        path = str(place)
        async with serving(named("one")) as running, serving(named("other"), unix=UnixSocketConfig(path)):
            url = "http://localhost/mcp" if value else running.url
            return await echoed(HttpTransportConfig(url, token=TOKEN, unix_socket=path if value else None))


# WebSocket


@case(WebSocketConfig, "url", first=("one", "one"), changed=("other", "other"))
async def ws_url(value: str) -> object:
    async with two(websocket=WebSocketConfig()) as servers:
        return await echoed(WebSocketConfig(servers[value].websocket_url, token=TOKEN))


@case(WebSocketConfig, "max_message_size", default="one" + "x" * 3000, changed=(2000, "ClientError"))
async def ws_message_size_of_a_client(value: int | None) -> object:
    async with serving(named("one"), websocket=WebSocketConfig()) as running:
        config = WebSocketConfig(running.websocket_url, token=TOKEN, max_message_size=value)
        return await outcome(echoed(config, "x" * 3000))


@case(WebSocketConfig, "max_message_size", default="one" + "x" * 3000, changed=(2000, "ConnectionLost"))
async def ws_message_size_of_a_server(value: int | None) -> object:
    async with serving(named("one"), websocket=WebSocketConfig(max_message_size=value)) as running:
        return await outcome(echoed(WebSocketConfig(running.websocket_url, token=TOKEN), "x" * 3000))


@case(WebSocketConfig, "subprotocol", default=(101, "mcp"), changed=("mcp.v2", (400, None)))
async def ws_subprotocol_of_a_server(value: str) -> object:
    async with serving(named("one"), websocket=WebSocketConfig(subprotocol=value)) as running:
        answer = await exchange(running.port, handshake(running.port))
        return answer.status, answer.get("sec-websocket-protocol")


@case(WebSocketConfig, "subprotocol", default="mcp", changed=("mcp.v2", "mcp.v2"))
async def ws_subprotocol_of_a_client(value: str) -> object:
    async def script(raw: Raw) -> None:
        raw.write(raw.switch(protocol=value))
        raw.text(await raw.message(), "ok")

    async with raw_server(script) as peer:
        await echoed(WebSocketConfig(peer.url, subprotocol=value))
        return peer.connections[0].headers["sec-websocket-protocol"]


OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@case(WebSocketConfig, "compression", default=(False, 0), changed=(True, (True, RSV1)))
async def ws_compression_of_a_server(value: bool) -> object:
    """Whether it is agreed to, and a long answer is compressed."""
    async with serving(Counting().server, websocket=WebSocketConfig(compression=value)) as running:
        async with connected(running.port) as wire:
            await wire.send(handshake(running.port, sec_websocket_extensions=OFFER))
            agreed = (await wire.head()).get("sec-websocket-extensions")
            await wire.send(message(call("dump", {"size": 3000})))
            frame = await WebSocketWire(wire.reader, wire.writer).frame()
            return agreed is not None, frame.first & RSV1


@case(WebSocketConfig, "compression", default=False, changed=(True, True))
async def ws_compression_of_a_client(value: bool) -> object:
    async with raw_server(echo_frames) as peer:
        assert await echoed(WebSocketConfig(peer.url, compression=value)) == "ok"
        return "permessage-deflate" in peer.connections[0].headers.get("sec-websocket-extensions", "")


@case(WebSocketConfig, "token", default="AuthenticationRequired", changed=(TOKEN, "one"))
async def ws_token(value: str | None) -> object:
    async with serving(named("one"), websocket=WebSocketConfig()) as running:
        return await outcome(echoed(WebSocketConfig(running.websocket_url, token=value)))


@case(WebSocketConfig, "headers", default=None, changed=({"X-A": "1"}, "1"))
async def ws_headers(value: dict[str, str] | None) -> object:
    async with raw_server(echo_frames) as peer:
        assert await echoed(WebSocketConfig(peer.url, headers=value)) == "ok"
        return peer.connections[0].headers.get("x-a")


@case(WebSocketConfig, "tls", default="ConnectionFailed", changed=("believing", "one"))
async def ws_tls(value: object) -> object:
    async with secured(websocket=WebSocketConfig()) as (running, believing):
        config = WebSocketConfig(running.websocket_url, token=TOKEN, tls=believing if value else None)
        return await outcome(echoed(config))


# Unix sockets


@contextmanager
def socket_path() -> Iterator[Path]:
    with socket_folder() as place:
        yield place / "s"


@case(UnixSocketConfig, "path", first=("one", "one"), changed=("other", "other"))
async def unix_path(value: str) -> object:
    with socket_path() as path:
        async with (
            named("one").unix(UnixSocketConfig(f"{path}-one")),
            named("other").unix(UnixSocketConfig(f"{path}-other")),
        ):
            return await echoed(UnixSocketConfig(f"{path}-{value}"))


@case(UnixSocketConfig, "max_message_size", default="one" + "x" * 3000, changed=(2000, "RemoteError"))
async def unix_message_size_of_a_server(value: int | None) -> object:
    with socket_path() as path:
        async with named("one").unix(UnixSocketConfig(str(path), max_message_size=value)):
            return await outcome(echoed(UnixSocketConfig(str(path)), "x" * 3000))


@case(UnixSocketConfig, "max_message_size", default="one" + "x" * 3000, changed=(2000, "ClientError"))
async def unix_message_size_of_a_client(value: int | None) -> object:
    with socket_path() as path:
        async with named("one").unix(UnixSocketConfig(str(path))):
            return await outcome(echoed(UnixSocketConfig(str(path), max_message_size=value), "x" * 3000))


@case(UnixSocketConfig, "mode", default=0o600, changed=(0o660, 0o660))
async def unix_mode(value: int) -> object:
    with socket_path() as path:
        async with named("one").unix(UnixSocketConfig(str(path), mode=value)):
            return stat.S_IMODE(path.lstat().st_mode)


@case(UnixSocketConfig, "group", default="its own", changed=("another", "another"))
async def unix_group(value: str | None) -> object:
    with socket_path() as path:
        own = os.getegid()
        another = own + 1 if os.geteuid() == 0 else next((g for g in os.getgroups() if g != own), None)
        if another is None:
            pytest.skip("this user is in one group only")
        async with named("one").unix(UnixSocketConfig(str(path), mode=0o660, group=another if value else None)):
            return {own: "its own", another: "another"}[path.lstat().st_gid]


@contextmanager
def another_user() -> Iterator[int]:
    """The kernel names another user as the one at the other end."""
    real, other = unix.peer_uid, os.getuid() + 1
    unix.peer_uid = lambda sock: other
    try:
        yield other
    finally:
        unix.peer_uid = real


@case(UnixSocketConfig, "allowed_uids", default=b"", changed=("the other's", b"answered"), apart=True)
async def allowed_uids_of_a_server(value: object) -> object:
    with another_user() as other:
        async with unix_lines(Counting().server, {"allowed_uids": (other,) if value else ()}) as line:
            await line.send(call("echo", {"text": "x"}))
            async with asyncio.timeout(5):
                try:
                    return b"answered" if b'"result"' in await line.reader.readline() else b""
                except ConnectionError:
                    return b""


@case(UnixSocketConfig, "allowed_uids", default="ConnectionFailed", changed=("the other's", "one"), apart=True)
async def allowed_uids_of_a_client(value: object) -> object:
    with socket_path() as path:
        async with asyncio.timeout(5):
            async with named("one").unix(UnixSocketConfig(str(path), allowed_uids=(os.getuid() + 1,))):
                with another_user() as other:
                    config = UnixSocketConfig(str(path), allowed_uids=(other,) if value else ())
                    return await outcome(echoed(config))


__all__ = ["echoed", "proxying", "secured", "two"]
