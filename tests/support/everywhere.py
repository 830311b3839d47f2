"""One message to a server over every transport there is, and what became of it.

    async with door("websocket", server) as at:
        verdict = await at.verdict(b'{"jsonrpc": ...}')      # a connection of its own; verdict.word == "-32700"
        async with at.connect() as line:                      # or several messages on one connection
            await line.send(raw)
            answer = await line.receive()

Rules of this file:
- The bytes given are the bytes sent: nothing is parsed on the way, so that a test can send what is not JSON.
- A message says the same at every door. `META` in it stands for the members of `_meta` that a request needs there.
- Works under `python -O`: nothing here relies on `assert`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from garrison import Server
from garrison.protocol.headers import encode_value
from garrison.server.serve import stdio_shell

from .mcp import MODERN, meta
from .raw_http import TOKEN, Wire, connected, request, standard

__all__ = ["KINDS", "META", "Answer", "Door", "Line", "call", "door"]

KINDS = ("memory", "stdio", "http", "session", "asgi", "websocket", "asgi-websocket", "unix")
"""`session` is HTTP in a handshake revision, others speak the newest; uvicorn serves `asgi` and `asgi-websocket`."""
META = '"$meta":0'
_SESSION_REVISION = "2025-11-25"
_MODERN_META = json.dumps(meta())[1:-1].encode()
_LEGACY_META = b'"test/era":"legacy"'
_NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_SENTINEL = json.dumps(
    {"jsonrpc": "2.0", "id": "sentinel", "method": "server/discover", "params": {"_meta": meta()}}
).encode()
_LIMIT = 64 * 1024 * 1024
_LONG = 2 * 1024 * 1024
"""Messages that are longer get the header fields of a call of `echo`, unread."""
_SECONDS = 10.0


def call(name: str = "echo", arguments: str = '{"text":"x"}', id: str = "1", *, more: str = "") -> str:
    """The text of a `tools/call`: `arguments`, `id` and `more` (what follows in `_meta`) are JSON as it is sent."""
    params = f'{{"name":{json.dumps(name)},"arguments":{arguments},"_meta":{{{META}{more}}}}}'
    return f'{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}'


class Answer(NamedTuple):
    """What came back for a message: the bytes of one JSON-RPC message, or none."""

    data: bytes = b""
    status: int | None = None
    """The HTTP status, where there is one."""
    closed: bool = False
    """The connection ended."""

    @property
    def json(self) -> dict[str, Any]:
        """The message."""
        return json.loads(self.data) if self.data else {}

    @property
    def word(self) -> str:
        """The verdict in a word: an error code, `answered`, `silent`, `closed`, or an HTTP status without a body."""
        if self.data:
            message = self.json
            if "error" in message:
                return str(message["error"]["code"])
            return "failed" if message.get("result", {}).get("isError") else "answered"
        if self.status is not None and self.status >= 300:
            return str(self.status)
        return "closed" if self.closed else "silent"


class Line:
    """One connection."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Answer] = asyncio.Queue()

    async def send(self, raw: bytes) -> None:
        """Send one message."""
        raise NotImplementedError

    async def receive(self) -> Answer:
        """The next message of the server, notifications too. After the end of the connection: that it is closed."""
        async with asyncio.timeout(_SECONDS):
            answer = await self.incoming.get()
        if answer.closed:
            self.incoming.put_nowait(answer)
        return answer

    async def answers(self, count: int) -> list[Answer]:
        """The next responses, without notifications."""
        found: list[Answer] = []
        while len(found) < count:
            answer = await self.receive()
            if answer.closed or "method" not in answer.json:
                found.append(answer)
        return found


class DuplexLine(Line):
    """A connection on which messages come and go as they please."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        super().__init__()
        self._write = write

    async def send(self, raw: bytes) -> None:
        sent = self._write(raw)
        if sent is not None:
            await sent

    def heard(self, data: bytes) -> None:
        """A message came."""
        self.incoming.put_nowait(Answer(data))

    def ended(self) -> None:
        """The connection ended."""
        self.incoming.put_nowait(Answer(closed=True))


class HttpLine(Line):
    """A client that sends each message as a POST. A free connection is used again, as HTTP clients do."""

    def __init__(self, port: int, session: str | None) -> None:
        super().__init__()
        self._port = port
        self._session = session
        self._free: list[Wire] = []
        self._open = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, raw: bytes) -> None:
        wire = self._free.pop() if self._free else await self._open.enter_async_context(connected(self._port))
        fields = standard(self._port) + _fields(raw, self._session)
        with contextlib.suppress(ConnectionError):  # it may have answered a part of it and closed
            await wire.send(request(raw, fields))
        task = asyncio.create_task(self._read(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, wire: Wire) -> None:
        try:
            head = await wire.head()
            if head.get("transfer-encoding") == "chunked":
                buffer = b""
                while chunk := await wire.chunk():
                    *events, buffer = (buffer + chunk).split(b"\r\n\r\n")
                    for data in _data_of(events):
                        self.incoming.put_nowait(Answer(data, head.status))
            else:
                body = await wire.reader.readexactly(int(head.get("content-length") or 0))
                self.incoming.put_nowait(Answer(body, head.status))
            if head.get("connection") != "close":
                self._free.append(wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.incoming.put_nowait(Answer(closed=True))

    async def close(self) -> None:
        """Leave."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._open.aclose()


def _data_of(events: list[bytes]) -> Iterator[bytes]:
    for event in events:
        lines = [line.partition(b":") for line in event.split(b"\r\n")]
        data = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
        if data:
            yield data


def _fields(raw: bytes, session: str | None) -> list[tuple[str, str]]:
    """The header fields that an honest client would send with this message, as far as it can be read at all."""
    if session is not None:
        return [("Mcp-Session-Id", session), ("MCP-Protocol-Version", _SESSION_REVISION)]
    method, name, version = "tools/call", "echo", MODERN
    if len(raw) > _LONG:
        raw = b""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
        message = json.loads(raw)
        said = message["method"] if isinstance(message.get("method"), str) else method
        method = encode_value(said[:128])
        inside = message.get("params", {})
        wanted = inside.get("_meta", {}).get("io.modelcontextprotocol/protocolVersion", MODERN)
        version = wanted if isinstance(wanted, str) and wanted.isascii() and wanted.isprintable() else MODERN
        named = inside.get(_NAMES.get(said, ""))
        name = encode_value(named) if isinstance(named, str) else name
    fields = [("MCP-Protocol-Version", version), ("Mcp-Method", method)]
    return [*fields, ("Mcp-Name", name)] if method in _NAMES else fields


class Door:
    """A running server at one transport."""

    def __init__(self, kind: str, connect: Callable[[], contextlib.AbstractAsyncContextManager[Line]]) -> None:
        self.kind = kind
        self.connect = connect
        """A new connection."""
        self.modern = kind != "session"
        self.http = kind in ("http", "session", "asgi")

    def message(self, text: str | bytes) -> bytes:
        """The bytes of a message, with the `_meta` that is needed here in the place of `META`."""
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return raw.replace(META.encode(), _MODERN_META if self.modern else _LEGACY_META)

    async def verdict(self, text: str | bytes) -> Answer:
        """What becomes of one message on a connection of its own. For what is answered at once, or never."""
        async with self.connect() as line:
            await line.send(self.message(text))
            if self.http:
                return (await line.answers(1))[0]
            await line.send(_SENTINEL)  # its answer shows that nothing more will come, and that the framing holds
            first = (await line.answers(1))[0]
            if first.json.get("id") == "sentinel":
                return Answer()
            second = (await line.answers(1))[0]
            if not second.closed and second.json.get("id") != "sentinel":
                raise ValueError(f"two answers to one message: {first.data[:200]!r} {second.data[:200]!r}")
            return first._replace(closed=second.closed)


@asynccontextmanager
async def door(kind: str, server: Server) -> AsyncIterator[Door]:
    """The server in this process, at one of `KINDS`."""
    async with _DOORS[kind](server) as connect:
        yield Door(kind, connect)


# One function for each kind: it starts the server and gives what makes a connection.

Connect = Callable[[], contextlib.AbstractAsyncContextManager[Line]]


@asynccontextmanager
async def _memory(server: Server) -> AsyncIterator[Connect]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Line]:
        connection = await server.connect_memory()
        line = DuplexLine(connection.send)
        connection.on_message = line.heard
        try:
            yield line
        finally:
            await connection.close()

    yield connect


@asynccontextmanager
async def _stdio(server: Server) -> AsyncIterator[Connect]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Line]:
        loop = asyncio.get_running_loop()
        server_in, client_out = os.pipe()
        client_in, server_out = os.pipe()
        core = server.core()
        await core.start()
        shell = asyncio.create_task(stdio_shell(core, server_in, server_out).run())
        reader = asyncio.StreamReader(_LIMIT)
        incoming, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(client_in, "rb")
        )
        outgoing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(client_out, "wb"))
        line, reading = _lines(reader, outgoing.write)
        try:
            yield line
        finally:
            outgoing.close()
            await shell
            reading.cancel()
            incoming.close()
            await core.close()
            os.close(server_in)
            os.close(server_out)
            await asyncio.sleep(0)

    yield connect


@asynccontextmanager
async def _http(server: Server) -> AsyncIterator[Connect]:
    async with server.http(port=0, token=TOKEN) as serving:
        yield lambda: _http_line(serving.port)


@asynccontextmanager
async def _session(server: Server) -> AsyncIterator[Connect]:
    async with server.http(port=0, token=TOKEN) as serving:

        @asynccontextmanager
        async def connect() -> AsyncIterator[Line]:
            session = await _handshake(serving.port)
            async with _http_line(serving.port, session) as line:
                yield line

        yield connect


@asynccontextmanager
async def _asgi(server: Server) -> AsyncIterator[Connect]:
    async with uvicorn_serving(server.asgi(token=TOKEN)) as port:
        yield lambda: _http_line(port)


@asynccontextmanager
async def _websocket(server: Server) -> AsyncIterator[Connect]:
    from garrison.policy.transports import WebSocketConfig

    async with server.http(port=0, token=TOKEN, websocket=WebSocketConfig()) as serving:
        yield lambda: _websocket_line(serving.port)


@asynccontextmanager
async def _asgi_websocket(server: Server) -> AsyncIterator[Connect]:
    from garrison.policy.transports import WebSocketConfig

    app = server.asgi(token=TOKEN, websocket=WebSocketConfig())
    async with uvicorn_serving(app, ws="websockets-sansio") as port:
        yield lambda: _websocket_line(port)


@asynccontextmanager
async def _unix(server: Server) -> AsyncIterator[Connect]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mcp.sock")
        async with server.unix(path):

            @asynccontextmanager
            async def connect() -> AsyncIterator[Line]:
                reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT)
                line, reading = _lines(reader, writer.write)
                try:
                    yield line
                finally:
                    reading.cancel()
                    writer.close()

            yield connect


_DOORS: dict[str, Callable[[Server], contextlib.AbstractAsyncContextManager[Connect]]] = {
    "memory": _memory,
    "stdio": _stdio,
    "http": _http,
    "session": _session,
    "asgi": _asgi,
    "websocket": _websocket,
    "asgi-websocket": _asgi_websocket,
    "unix": _unix,
}


def _lines(reader: asyncio.StreamReader, write: Callable[[bytes], object]) -> tuple[DuplexLine, asyncio.Task[None]]:
    """A connection with a message on each line."""

    def send(raw: bytes) -> None:
        write(raw + b"\n")

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.readline():
                line.heard(data)
        line.ended()

    line = DuplexLine(send)
    return line, asyncio.create_task(read())


@asynccontextmanager
async def _http_line(port: int, session: str | None = None) -> AsyncIterator[Line]:
    line = HttpLine(port, session)
    try:
        yield line
    finally:
        await line.close()


@asynccontextmanager
async def _websocket_line(port: int) -> AsyncIterator[Line]:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed
    from websockets.typing import Subprotocol

    async with connect(
        f"ws://127.0.0.1:{port}/mcp",
        subprotocols=[Subprotocol("mcp")],
        additional_headers={"Authorization": f"Bearer {TOKEN}"},
        compression=None,
        max_size=None,
        proxy=None,
    ) as socket:

        async def send(raw: bytes) -> None:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(raw, text=True)

        async def read() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    line.heard(await socket.recv(decode=False))
            line.ended()

        line = DuplexLine(send)
        reading = asyncio.create_task(read())
        try:
            yield line
        finally:
            reading.cancel()
            socket.transport.abort()  # a goodbye takes some servers 40 ms


async def _handshake(port: int) -> str:
    """The id of a new session."""
    who = {"protocolVersion": _SESSION_REVISION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    async with connected(port) as wire:
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": who}
        await wire.send(request(json.dumps(opening).encode(), standard(port)))
        session = (await wire.response()).get("mcp-session-id")
        if session is None:
            raise ValueError("no session")
        told = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        await wire.send(request(told, standard(port) + _fields(told, session)))
        await wire.response()
    return session


@asynccontextmanager
async def uvicorn_serving(app: Any, **options: Any) -> AsyncIterator[int]:
    """An ASGI application behind uvicorn on this loop; gives the port."""
    from .hosting import Host

    host = Host(app, **{"lifespan": "on", **options})
    port = await host.begin()
    try:
        yield port
    finally:
        await host.end()
