"""Callers of one running server: who they are, the door they come through, the revision they speak.

    async with place("websocket", server) as at:
        async with at.caller(Who("alice", "notes:read"), "2025-11-25") as p:
            await p.tool("whoami")
            assert await p.bytes("tools/call", {"name": "hidden"}) == ...

Over HTTP and WebSocket a caller has a token of the issuer of `protected`; in memory and on the Unix socket it is the
same principal without one. The last of a `Who` is for these two only: whoever started the server has no token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from garrison import Server, UnixSocketConfig, WebSocketConfig
from garrison.policy.principal import LOCAL, Principal
from garrison.server.memory import MemoryConnection
from garrison.server.serve import UnixServing, duplex
from garrison.transports.unix import UnixShell

from .everywhere import uvicorn_serving
from .mcp import MODERN, Answer, DuplexPeer, HttpPeer, Json, post, until
from .protected import ISSUER, bearer
from .raw_http import Response, exchange, request, standard

__all__ = ["ERAS", "KINDS", "Place", "Who", "outcome", "place"]

KINDS = ("memory", "unix", "http", "websocket", "asgi", "asgi-websocket")
ERAS = (MODERN, "2025-11-25", "2024-11-05")


class Who(NamedTuple):
    """A caller."""

    subject: str = "alice"
    scope: str = ""
    tenant: str = "home"
    owner: bool = False

    @property
    def principal(self) -> Principal:
        if self.owner:
            return LOCAL
        scopes = frozenset(self.scope.split())
        return Principal(self.subject, issuer=ISSUER, client_id="app", tenant=self.tenant, scopes=scopes)

    @property
    def token(self) -> str:
        return bearer(self.scope, self.subject, tenant=self.tenant).split()[1]


class _Duplex(DuplexPeer):
    """Keeps the bytes of each response."""

    def __init__(self, revision: str, capabilities: Json, answers: dict[str, Answer]) -> None:
        super().__init__(revision, capabilities, answers)
        self.answered: dict[object, bytes] = {}

    def receive(self, data: bytes) -> None:
        message = json.loads(data)
        if isinstance(message, dict) and "method" not in message:
            self.answered[message.get("id")] = bytes(data)
        super().receive(data)

    async def bytes(self, method: str, params: Json | None = None, id: int | str = "same", **fields: str) -> bytes:
        """All that is answered to one request."""
        await self.transmit(self.message(method, params, id, {}))
        return self.answered.pop(id)


class _Http(HttpPeer):
    """Shows a token, and keeps whole responses."""

    token = ""

    def encode(self, message: Json, **fields: str | None) -> bytes:
        if self.modern:
            return post(self.port, message, self.token, **fields)
        lines = standard(self.port, self.token)
        if self.session is not None:
            lines += [("Mcp-Session-Id", self.session), ("MCP-Protocol-Version", self.revision)]
        return request(json.dumps(message).encode(), lines)

    async def response(self, method: str, params: Json | None = None, id: int | str = 1, **fields: str) -> Response:
        """The whole response to one request; `fields` are header fields to change."""
        return await exchange(self.port, self.encode(self.message(method, params, id, {}), **fields))

    async def bytes(self, method: str, params: Json | None = None, id: int | str = "same", **fields: str) -> bytes:
        """Status, header fields and body, without the time of day."""
        found = await self.response(method, params, id, **fields)
        head = [f"{name}: {value}" for name, value in found.fields if name != "date"]
        return "\n".join([str(found.status), *head, ""]).encode() + found.body


class _UnixAs(UnixServing):
    """Takes who comes next for this principal."""

    next = LOCAL
    arrived = 0

    def _arrive(self, peer: Any, place: Any) -> UnixShell:
        place.let_in()
        self.arrived += 1
        principal = self.next
        return UnixShell(self.listener, place, lambda shell: duplex(self.core, shell, principal))


Connect = Callable[[Who, _Duplex], contextlib.AbstractAsyncContextManager[None]]


class Place:
    """A running server at one of `KINDS`."""

    def __init__(self, kind: str, port: int = 0, connect: Connect | None = None) -> None:
        self.kind = kind
        self.port = port
        self.has_owner = kind in ("memory", "unix")
        self._connect = connect

    @asynccontextmanager
    async def caller(
        self, who: Who, revision: str = MODERN, *, capabilities: Json | None = None, answers: Any = None
    ) -> AsyncIterator[Any]:
        """A peer of this revision, connected."""
        if self._connect is None:
            http = _Http(revision, capabilities or {}, answers or {}, self.port)
            http.token = who.token
            await http.open()
            yield http
            return
        peer = _Duplex(revision, capabilities or {}, answers or {})
        async with self._connect(who, peer):
            await peer.open()
            yield peer


@asynccontextmanager
async def place(kind: str, server: Server) -> AsyncIterator[Place]:
    """The server in this process, at one of `KINDS`."""
    match kind:
        case "memory":
            yield Place(kind, 0, _in_memory(server))
        case "unix":
            with tempfile.TemporaryDirectory() as folder:
                async with _UnixAs(server, UnixSocketConfig(os.path.join(folder, "s"))) as serving:
                    yield Place(kind, 0, _on_socket(serving))  # type: ignore[arg-type]  # __aenter__ gives itself
        case "http":
            async with server.http(port=0) as http:
                yield Place(kind, http.port)
        case "websocket":
            async with server.http(port=0, websocket=WebSocketConfig()) as http:
                yield Place(kind, http.port, _on_websocket(http.port))
        case "asgi":
            async with uvicorn_serving(server.asgi()) as port:
                yield Place(kind, port)
        case _:
            app = server.asgi(websocket=WebSocketConfig())
            async with uvicorn_serving(app, ws="websockets-sansio") as port:
                yield Place(kind, port, _on_websocket(port))


def _in_memory(server: Server) -> Connect:
    @asynccontextmanager
    async def connect(who: Who, peer: _Duplex) -> AsyncIterator[None]:
        line = await MemoryConnection.open(server, who.principal)
        line.on_message = peer.receive
        peer.write = line.send
        try:
            yield
        finally:
            await line.close()

    return connect


def _on_socket(serving: _UnixAs) -> Connect:
    @asynccontextmanager
    async def connect(who: Who, peer: _Duplex) -> AsyncIterator[None]:
        serving.next, before = who.principal, serving.arrived
        reader, writer = await asyncio.open_unix_connection(serving.config.path, limit=1 << 26)
        await until(lambda: serving.arrived > before)
        peer.write = lambda data: writer.write(data + b"\n")

        async def read() -> None:
            while data := await reader.readline():
                peer.receive(data)

        try:
            async with _reading(read()):
                yield
        finally:
            writer.close()

    return connect


def _on_websocket(port: int) -> Connect:
    @asynccontextmanager
    async def connect(who: Who, peer: _Duplex) -> AsyncIterator[None]:
        from websockets.asyncio.client import connect as dial
        from websockets.exceptions import ConnectionClosed
        from websockets.typing import Subprotocol

        async with dial(
            f"ws://127.0.0.1:{port}/mcp",
            subprotocols=[Subprotocol("mcp")],
            additional_headers={"Authorization": f"Bearer {who.token}"},
            compression=None,
            proxy=None,
        ) as socket:
            sending: asyncio.Queue[bytes] = asyncio.Queue()
            peer.write = sending.put_nowait

            async def write() -> None:
                while True:
                    await socket.send(await sending.get(), text=True)

            async def read() -> None:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        peer.receive(await socket.recv(decode=False))

            async with _reading(read()), _reading(write()):
                yield
            socket.transport.abort()  # a goodbye takes some servers 40 ms

    return connect


@asynccontextmanager
async def _reading(coroutine: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def outcome(response: Json) -> str:
    """What became of a request: "ok", "failed", "scopes", "denied", "unknown" or the code of another error."""
    error = response.get("error")
    if error is None:
        return "failed" if response["result"].get("isError") else "ok"
    if error["code"] == 403:
        return "scopes" if "scopes" in error.get("data", {}) else "denied"
    unknown = ("Unknown tool", "Unknown prompt", "Resource not found", "params.ref names nothing")
    return "unknown" if error["message"].startswith(unknown) else str(error["code"])
