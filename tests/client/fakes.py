"""Small servers for the client's tests: raw HTTP that says exactly what a test wants, and programs for stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODERN = "2026-07-28"


@dataclass
class Request:
    verb: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @property
    def method(self) -> str:
        return self.message.get("method", "")

    @property
    def params(self) -> dict[str, Any]:
        return self.message.get("params", {})


@dataclass
class FakeHttp:
    """`answer` gets each request and a writer; what it returns, if anything, is written as a JSON response."""

    answer: Callable[[Request, asyncio.StreamWriter], Awaitable[object]]
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    disconnects: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def methods(self) -> list[str]:
        return [r.method if r.verb == "POST" else r.verb for r in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                verb, target, _ = first.split(" ")
                request = Request(verb, target, headers, body, number)
                self.requests.append(request)
                result = await self.answer(request, writer)
                if result is not None:
                    writer.write(respond(result))
                await writer.drain()
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.disconnects += 1
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]], **options: Any
) -> AsyncIterator[int]:
    """A server on a free port, which is given; at the end its connections are closed before the loop is."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)  # what was accepted has its task now
        ending = tuple(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)


@asynccontextmanager
async def http_server(answer: Callable[[Request, asyncio.StreamWriter], Awaitable[object]]):
    fake = FakeHttp(answer)
    async with listening(fake.serve, limit=2**25) as fake.port:
        yield fake


def respond(value: object, *, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object, *, prefix: bytes = b"") -> bytes:
    return chunk(prefix + b"data: " + json.dumps(value).encode() + b"\n\n")


def result(request: Request, value: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.message["id"], "result": {"resultType": "complete", **value}}


def error(request: Request, code: int, text: str = "no", data: object = None) -> dict[str, Any]:
    fault: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        fault["data"] = data
    return {"jsonrpc": "2.0", "id": request.message.get("id"), "error": fault}


def discovery(request: Request, **capabilities: object) -> dict[str, Any]:
    return result(
        request,
        {
            "supportedVersions": [MODERN],
            "capabilities": capabilities or {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "1"}},
        },
    )


def text(value: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}]}


def modern(handlers: dict[str, Callable[..., Any]]):
    """An `answer` for a modern server: one function per method, returning the members of its result."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
        method = request.method
        if method == "server/discover" and method not in handlers:
            return discovery(request)
        if method not in handlers:
            return error(request, -32601)
        value = handlers[method](request)
        if asyncio.iscoroutine(value):
            value = await value
        if isinstance(value, bytes):
            writer.write(value)
            return None
        return value if "jsonrpc" in value else result(request, value)

    return answer


PRELUDE = """
import json, os, sys, time
def send(value):
    sys.stdout.write(json.dumps(value) + "\\n"); sys.stdout.flush()
def result(m, **value):
    send({"jsonrpc": "2.0", "id": m["id"], "result": {"resultType": "complete", **value}})
def error(m, code, **more):
    send({"jsonrpc": "2.0", "id": m["id"], "error": {"code": code, "message": "no", **more}})
def discover(m):
    result(m, supportedVersions=["2026-07-28"], capabilities={"tools": {}}, ttlMs=0, cacheScope="private")
def text(m, value):
    result(m, content=[{"type": "text", "text": str(value)}])
def messages():
    for line in sys.stdin:
        yield json.loads(line)
"""


def program(body: str) -> list[str]:
    """The arguments that start a server with this body; `PRELUDE` names what it may use."""
    return [sys.executable, "-c", PRELUDE + body]
