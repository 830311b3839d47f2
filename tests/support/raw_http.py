"""HTTP as bytes on a socket, so that a test can send what no HTTP library would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from garrison import Server
from garrison.server.serve import HttpServing

TOKEN = "a-token-of-more-than-sixteen-characters"
Fields = Sequence[tuple[str, str]]


@asynccontextmanager
async def serving(
    server: Server, *, token: str | None = TOKEN, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[HttpServing]:
    """The server on a free port, in this process; `options` are those of `Server.http`."""
    running = HttpServing(server, host, 0, token=token, **options)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


class Response:
    """One parsed response."""

    def __init__(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    def get(self, name: str) -> str | None:
        """The value of a field that may stand once."""
        values = [value for field, value in self.fields if field == name]
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON messages of an event stream."""
        return [json.loads(event["data"]) for event in parse_events(self.body) if event.get("data")]

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.body[:200]!r})"


def parse_events(text: bytes) -> list[dict[str, str]]:
    """The fields of each whole event."""
    events: list[dict[str, str]] = []
    for block in text.decode().replace("\r\n", "\n").split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                event[name] = value.removeprefix(" ")
        if event:
            events.append(event)
    return events


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Response:
        """A response's head."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")[:-2]
        fields = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
        return Response(int(lines[0].split(" ")[1]), fields, b"")

    async def chunk(self) -> bytes:
        """One chunk; empty for the last."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def event(self) -> dict[str, str]:
        """The next event that is not a comment."""
        while True:
            for event in parse_events(await self.chunk()):
                return event

    async def response(self, *, skip_continue: bool = True) -> Response:
        """A whole response."""
        answer = await self.head()
        while answer.status == 100 and skip_continue:
            answer = await self.head()
        if answer.get("transfer-encoding") == "chunked":
            while data := await self.chunk():
                answer.body += data
        else:
            answer.body = await self.reader.readexactly(int(answer.get("content-length") or 0))
        return answer

    async def ended(self, seconds: float = 5.0) -> bytes:
        """What came until the other side closed."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Leave without a goodbye."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Wire]:
    """A connection to a port; `options` are those of `asyncio.open_connection`."""
    reader, writer = await asyncio.open_connection(host, port, limit=64 * 1024 * 1024, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def standard(port: int, token: str | None = TOKEN) -> list[tuple[str, str]]:
    """The fields that every request needs."""
    fields = [
        ("Host", f"127.0.0.1:{port}"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ]
    if token is not None:
        fields.append(("Authorization", f"Bearer {token}"))
    return fields


def changed(fields: Fields, **changes: str | None) -> list[tuple[str, str]]:
    """Fields with some replaced, added or (None) taken away; `_` in a name stands for `-`."""
    names = {name.replace("_", "-").lower(): value for name, value in changes.items()}
    kept = [(n, v) for n, v in fields if n.lower() not in names]
    return kept + [(n, v) for n, v in names.items() if v is not None]


def request(
    body: bytes,
    fields: Fields,
    *,
    method: str = "POST",
    target: str = "/mcp",
    version: str = "1.1",
    length: bool = True,
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes, fields: Fields, size: int = 7) -> bytes:
    """The bytes of a POST with a chunked body."""
    head = request(b"", [*fields, ("Transfer-Encoding", "chunked")], length=False)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def exchange(port: int, data: bytes) -> Response:
    """Send bytes on a connection of their own and read one response."""
    async with connected(port) as wire:
        await wire.send(data)
        return await wire.response()
