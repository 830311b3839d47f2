"""What the cases share: a served `Counting`, ways to reach it, and folders that are gone afterwards."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Limits, Server
from garrison.errors import GarrisonError
from garrison.policy.transports import UnixSocketConfig, WebSocketConfig
from garrison.server.serve import HttpServing
from tests.support.edge import Counting
from tests.support.mcp import Json, call, post
from tests.support.raw_http import TOKEN, Response, Wire, changed, connected, exchange, request, serving, standard
from tests.support.unix_socket import Lines
from tests.support.websocket import WebSocketWire

LEGACY = "2025-11-25"
YES = {"action": "accept", "content": {"answer": "yes"}}


class Scene:
    """A server on a port of 127.0.0.1."""

    def __init__(self, running: HttpServing, counting: Counting) -> None:
        self.running = running
        self.port = running.port
        self.counting = counting

    async def ask(self, message: Json, **fields: str | None) -> Response:
        """One modern POST on a connection of its own."""
        return await exchange(self.port, post(self.port, message, **fields))

    async def echo(self, text: str = "x", **fields: str | None) -> int:
        """The status of one call."""
        return (await self.ask(call("echo", {"text": text}), **fields)).status

    def connect(self) -> Any:
        """A connection, as a context manager."""
        return connected(self.port)


@asynccontextmanager
async def http(limits: Limits | None = None, /, server: Any = None, **timeouts: float) -> AsyncIterator[Scene]:
    """`Counting` over HTTP with these limits and time-outs; `server` are further arguments of `Server.http`."""
    counting = Counting(limits, **timeouts)
    async with serving(counting.server, **(server or {})) as running:
        yield Scene(running, counting)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="g") as path:
        yield Path(path)


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder for Unix sockets; skips where there are none."""
    if sys.platform == "win32":
        pytest.skip("no Unix sockets here")
    with folder() as path:
        yield path


@asynccontextmanager
async def unix_lines(server: Server, config: dict[str, Any] | None = None, connections: int = 1) -> AsyncIterator[Any]:
    """Connections to a server on a Unix socket; the one, or a list of them."""
    with socket_folder() as place:
        path = str(place / "s")
        async with server.unix(UnixSocketConfig(path, **(config or {}))):
            opened: list[Lines] = []
            for _ in range(connections):
                opened.append(Lines(*await asyncio.open_unix_connection(path, limit=1 << 26)))
            try:
                yield opened[0] if connections == 1 else opened
            finally:
                for each in opened:
                    each.writer.close()


def handshake(port: int, target: str = "/mcp", **changes: str | None) -> bytes:
    """A WebSocket handshake, with header fields changed."""
    fields = [
        *changed(standard(port), content_type=None, accept=None),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "mcp"),
    ]
    return request(b"", changed(fields, **changes), method="GET", target=target, length=False)


@asynccontextmanager
async def websocket(
    counting: Counting, config: WebSocketConfig | None = None, **changes: str | None
) -> AsyncIterator[WebSocketWire]:
    """A WebSocket on the listener of a server; the handshake is good but for what `changes` say."""
    async with serving(counting.server, websocket=config or WebSocketConfig()) as running:
        async with connected(running.port) as wire:
            await wire.send(handshake(running.port, "/mcp", **changes))
            assert (await wire.head()).status == 101
            yield WebSocketWire(wire.reader, wire.writer)


async def outcome(work: Awaitable[object]) -> object:
    """What a client gets: the result, or the name of the error."""
    try:
        return await work
    except GarrisonError as exc:
        return type(exc).__name__


async def within(seconds: float, work: Awaitable[object]) -> object:
    """What comes of it, or "nothing yet"."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return "nothing yet"


async def end_of(wire: Wire | WebSocketWire | Lines, seconds: float) -> object:
    """Whether the other side ends a connection in time: "ended" or "nothing yet"."""
    try:
        await wire.ended(seconds)
    except TimeoutError:
        return "nothing yet"
    return "ended"


__all__ = [
    "LEGACY",
    "TOKEN",
    "YES",
    "Scene",
    "end_of",
    "folder",
    "handshake",
    "http",
    "outcome",
    "socket_folder",
    "unix_lines",
    "websocket",
    "within",
]
