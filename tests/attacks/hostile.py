"""A server that says what a test wants, over every transport by which a client meets a server that is not its own.

    async with hostile("unix", script) as client: ...

Rules of this file:
- A script gets each request of the client and a function that says anything at all: over HTTP on the event stream that
  answers the request, elsewhere on the one channel.
- `server/discover` is answered for the script, and so is `tools/list`, from the `tools` that the test gives.
- Each message is a task of its own, so that a script may answer late or never.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from garrison import Client, SecurityPolicy
from tests.attacks.catalogue import CLIENT
from tests.client.fakes import EVENTS, Request, chunk, http_server

__all__ = ["CLIENT", "Script", "answer", "hostile", "serving_script"]

Json = dict[str, Any]
Say = Callable[[Any], None]
Script = Callable[[Json, Say], Awaitable[None]]

_RELAY = """
import os, socket, sys, threading
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
def copy():
    while data := os.read(0, 65536):
        peer.sendall(data)
    os._exit(0)
threading.Thread(target=copy, daemon=True).start()
while data := peer.recv(65536):
    os.write(1, data)
"""


def answer(request: Json, result: Json) -> Json:
    """A complete result for a request."""
    return {"jsonrpc": "2.0", "id": request["id"], "result": {"resultType": "complete", **result}}


def _scripted(script: Script, tools: list[Json]) -> Script:
    async def handle(message: Json, say: Say) -> None:
        cached = {"ttlMs": 0, "cacheScope": "private"}
        if message.get("method") == "server/discover":
            found: Json = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **cached}
            say(answer(message, found))
        elif message.get("method") == "tools/list" and tools:
            say(answer(message, {"tools": tools, **cached}))
        elif "id" in message:
            await script(message, say)

    return handle


def _bytes(said: Any) -> bytes:
    return said if isinstance(said, bytes) else json.dumps(said).encode()


@asynccontextmanager
async def hostile(
    kind: str,
    script: Script,
    *,
    tools: list[Json] | None = None,
    policy: SecurityPolicy | None = None,
    **options: Any,
) -> AsyncIterator[Client]:
    """A client that has met the server; `options` are further arguments of `Client`."""
    handle = _scripted(script, tools or [])
    async with _SERVERS[kind](handle) as target:
        async with Client(target, policy=policy or SecurityPolicy(), **options) as client:
            yield client


@asynccontextmanager
async def _http(handle: Script) -> AsyncIterator[str]:
    async def answer_one(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)

        def say(said: Any) -> None:
            if not writer.is_closing():
                writer.write(chunk(b"data: " + _bytes(said) + b"\n\n"))

        await handle(request.message, say)
        if not writer.is_closing():
            writer.write(b"0\r\n\r\n")

    async with http_server(answer_one) as fake:
        yield fake.url


class _Tasks:
    """Messages that are being answered."""

    def __init__(self, handle: Script, say: Say) -> None:
        self._handle = handle
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, data: bytes | str) -> None:
        task = asyncio.ensure_future(self._handle(json.loads(data), self._say))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def _unix_path(handle: Script) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks = _Tasks(handle, lambda said: writer.write(_bytes(said) + b"\n"))
        try:
            while data := await reader.readline():
                tasks.take(data)
        except ConnectionError:
            pass
        finally:
            await tasks.end()
            writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mcp.sock")
        server = await asyncio.start_unix_server(serve, path, limit=2**25)
        os.chmod(path, 0o600)
        try:
            yield path
        finally:
            server.close()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _unix(handle: Script) -> AsyncIterator[str]:
    async with _unix_path(handle) as path:
        yield f"unix:{path}"


@asynccontextmanager
async def _stdio(handle: Script) -> AsyncIterator[list[str]]:
    async with _unix_path(handle) as path:
        # On one line: an argument with a line break is refused by hosts.
        yield [sys.executable, "-S", "-c", f"exec({_RELAY!r})", path]


@asynccontextmanager
async def _websocket(handle: Script) -> AsyncIterator[str]:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.typing import Subprotocol

    async def talk(socket: ServerConnection) -> None:
        waiting: asyncio.Queue[bytes] = asyncio.Queue()

        async def write() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.send(await waiting.get(), text=True)

        writing = asyncio.create_task(write())
        tasks = _Tasks(handle, lambda said: waiting.put_nowait(_bytes(said)))
        try:
            async for data in socket:
                tasks.take(data)
        finally:
            await tasks.end()
            writing.cancel()

    async with serve(talk, "127.0.0.1", 0, subprotocols=[Subprotocol("mcp")], compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/mcp"


def serving_script(kind: str, handle: Script) -> contextlib.AbstractAsyncContextManager[Any]:
    """A server that answers with `handle` and nothing else; gives what a client reaches it by."""
    return _SERVERS[kind](handle)


_SERVERS: Mapping[str, Callable[[Script], contextlib.AbstractAsyncContextManager[Any]]] = {
    "stdio": _stdio,
    "http": _http,
    "websocket": _websocket,
    "unix": _unix,
}
