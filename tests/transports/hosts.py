"""Listeners for tests, on an event loop in a thread of its own, and a client that sends the bytes it is given."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from garrison import SecurityPolicy, Server
from garrison.server.serve import HttpServing
from tests.support.hosting import Host

TOKEN = "a-token-that-is-long-enough"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Place:
    """Where a server listens."""

    port: int
    prefix: str
    stop: Callable[[], Awaitable[None]]
    calls: list[str] = field(default_factory=list)

    def request(
        self,
        method: str = "POST",
        path: str = "/mcp",
        body: bytes = b"",
        *,
        omit: tuple[str, ...] = (),
        extra: tuple[tuple[str, str], ...] = (),
        **fields: str,
    ) -> bytes:
        """The bytes of a request that is good but for what the arguments say. `{port}` stands for the port."""
        head = {
            "host": "127.0.0.1:{port}",
            "authorization": f"Bearer {TOKEN}",
            "accept": "application/json, text/event-stream",
        }
        if method == "POST":
            head |= {"content-type": "application/json", "content-length": str(len(body))}
        head |= {name.replace("_", "-"): value for name, value in fields.items()}
        lines = [f"{name}: {value}" for name, value in [*head.items(), *extra] if name not in omit]
        text = "\r\n".join([f"{method} {self.prefix}{path} HTTP/1.1", *lines, "", ""]).replace("{port}", str(self.port))
        return text.encode("latin-1") + body

    def connect(self) -> Wire:
        """A connection."""
        return Wire(socket.create_connection(("127.0.0.1", self.port), timeout=5))

    def ask(self, data: bytes) -> Answer:
        """Send one request on a connection of its own and read the response."""
        with self.connect() as wire:
            wire.send(data)
            return wire.answer()


@dataclass
class Answer:
    """A response."""

    status: int
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


class Wire:
    """A connection as the test sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._file = sock.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes. A peer that has answered and closed already is no error."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def head(self) -> Answer:
        """Status and fields of a response; its body is not read."""
        while True:
            status = int(self._file.readline().split()[1])
            fields: dict[str, str] = {}
            while line := self._file.readline().decode("latin-1").strip():
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            if status != 100:
                return Answer(status, fields, b"")

    def answer(self) -> Answer:
        """A whole response."""
        answer = self.head()
        if answer.fields.get("transfer-encoding") == "chunked":
            while chunk := self.chunk():
                answer.body += chunk
        else:
            answer.body = self._file.read(int(answer.fields.get("content-length", 0)))
        return answer

    def chunk(self) -> bytes:
        """The next chunk of a stream; empty at its end."""
        size = int(self._file.readline() or b"0", 16)
        data = self._file.read(size)
        self._file.readline()
        return data

    def event(self) -> tuple[str, str]:
        """Type and data of the next event."""
        while chunk := self.chunk():
            lines = dict(line.split(": ", 1) for line in chunk.decode().split("\r\n") if ": " in line)
            if "data" in lines:
                return lines.get("event", "message"), lines["data"]
        return "", ""

    def ended(self) -> bool:
        """True when the server has closed the connection; waits for it."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


class Hosts:
    """Starts servers in a thread and ends them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._places: list[Place] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(8)

    def edge(self, server: Server) -> Place:
        """The server behind Garrison's own listener."""

        async def start() -> Place:
            serving = HttpServing(server, "127.0.0.1", 0, token=TOKEN)
            await serving.start()
            return Place(serving.port, "", serving.close)

        return self._keep(self.run(start()))

    def uvicorn(self, app: Any, prefix: str = "", **options: Any) -> Place:
        """An ASGI application behind uvicorn."""

        async def start() -> Place:
            host = Host(app, **options)
            return Place(await host.begin(), prefix, host.end)

        return self._keep(self.run(start()))

    def asgi(self, server: Server) -> Place:
        """The server's ASGI face behind uvicorn, with lifespan events."""
        return self.uvicorn(server.asgi(token=TOKEN), lifespan="on")

    def mounted(self, server: Server) -> Place:
        """The server's ASGI face below a prefix of another application that forwards no lifespan events."""
        return self.uvicorn(Starlette(routes=[Mount("/some/prefix", server.asgi(token=TOKEN))]), "/some/prefix")

    def start(self, kind: str, make: Callable[[list[str]], Server]) -> Place:
        """A place of a kind: `edge`, `asgi` or `mounted`. What the server's handlers record is in `Place.calls`."""
        calls: list[str] = []
        place: Place = getattr(self, kind)(make(calls))
        place.calls = calls
        return place

    def _keep(self, place: Place) -> Place:
        self._places.append(place)
        return place

    def stop(self, place: Place) -> None:
        """End one server."""
        self._places.remove(place)
        self.run(place.stop())  # type: ignore[arg-type]

    async def _cancel_rest(self) -> None:
        """What `asyncio.run` does at its end."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def close(self) -> None:
        """End all servers and the thread."""
        for place in tuple(self._places):
            self.stop(place)
        self.run(self._cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def call(name: str, id: int = 1, meta: dict[str, Any] | None = None, **arguments: Any) -> bytes:
    """The body of a `tools/call`."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    if meta is not None:
        params["_meta"] = meta
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).encode()


def policy(**settings: Any) -> SecurityPolicy:
    """A policy with limits and time-outs given by name."""
    from garrison import Limits, Timeouts

    limits = {name: value for name, value in settings.items() if name in Limits.__dataclass_fields__}
    timeouts = {name: value for name, value in settings.items() if name in Timeouts.__dataclass_fields__}
    rest = {name: value for name, value in settings.items() if name not in limits and name not in timeouts}
    return SecurityPolicy(limits=Limits(**limits), timeouts=Timeouts(**timeouts), **rest)
