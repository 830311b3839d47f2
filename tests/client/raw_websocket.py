"""A WebSocket server on a raw socket, which says exactly what a test wants: right or wrong, whole or in pieces."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from garrison.client import Client
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.protocol import types as t

from .fakes import MODERN, listening

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


LIMIT = 20_000
FRAGMENTS = 8


def quick(timeouts: dict[str, float] | None = None, **limits: int) -> SecurityPolicy:
    return SecurityPolicy(
        limits=Limits(**{"message_bytes": LIMIT, "fragments": FRAGMENTS, **limits}),
        timeouts=Timeouts(**{"connect": 3.0, "shutdown": 0.5, "request": 5.0, **(timeouts or {})}),
    )


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


async def call(client: Client, text: str = "ok") -> str:
    return text_of(await client.call_tool("echo", {"x": text}))


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = b"") -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head = struct.pack("!BB", first, bit | len(data))
    elif len(data) < 2**16:
        head = struct.pack("!BBH", first, bit | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(data))
    return head + mask + (bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data)


def accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


class Raw:
    """One connection, after its request was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer = reader, writer
        self.head = head
        self.first, *lines = head.rstrip("\r\n").split("\r\n")
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self.masks: list[bytes] = []
        self.seen: list[dict[str, Any]] = []

    def switch(
        self, *, key: str | None = None, protocol: str | None = "mcp", extra: str = "", status: str = ""
    ) -> bytes:
        """The right answer to the handshake, but for what is given."""
        lines = [
            f"HTTP/1.1 {status or '101 Switching Protocols'}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {key or accept(self.headers['sec-websocket-key'])}",
        ]
        lines += [f"Sec-WebSocket-Protocol: {protocol}"] if protocol is not None else []
        return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode()

    def write(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def say(self, value: object) -> None:
        self.write(frame(TEXT, json.dumps(value).encode()))

    def result(self, message: dict[str, Any], **value: object) -> None:
        self.say({"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **value}})

    def text(self, message: dict[str, Any], text: str) -> None:
        self.result(message, content=[{"type": "text", "text": text}])

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the client, which must be masked."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client's frame is masked"
        assert first & 0x80 and not first & 0x70
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        self.masks.append(mask)
        data = await self.reader.readexactly(size)
        wide = int.from_bytes((mask * (size // 4 + 1))[:size]) ^ int.from_bytes(data)
        return first & 0x0F, wide.to_bytes(size)

    async def message(self) -> dict[str, Any]:
        """The next message; `server/discover` is answered on the way, and so is the client's goodbye."""
        while True:
            opcode, data = await self.frame()
            if opcode == CLOSE:
                self.write(frame(CLOSE, data))
                self.writer.close()
            if opcode != TEXT:
                continue
            message = json.loads(data)
            self.seen.append(message)
            if message.get("method") != "server/discover":
                return message
            self.result(
                message,
                supportedVersions=[MODERN],
                capabilities={"tools": {}},
                ttlMs=0,
                cacheScope="private",
            )

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the client's close frame; what comes before it is skipped."""
        while True:
            opcode, data = await self.frame()
            if opcode == CLOSE:
                return struct.unpack("!H", data[:2])[0] if data else 1005, data[2:].decode()


class Peer:
    """The server: where it is, and the connections it had."""

    def __init__(self) -> None:
        self.port = 0
        self.connections: list[Raw] = []
        self.errors: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/mcp"


@asynccontextmanager
async def raw_server(
    script: Callable[[Raw], Awaitable[object]], *, limit: int = 2**26, **options: Any
) -> AsyncIterator[Peer]:
    """Runs the script for each connection, when its request was read. What it raises fails the test at the end."""
    peer = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        raw = Raw(reader, writer, head)
        peer.connections.append(raw)
        try:
            await script(raw)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as exc:  # shown by the test that runs it
            peer.errors.append(exc)

    async with listening(serve, limit=limit, **options) as peer.port:
        yield peer
    if peer.errors:
        raise peer.errors[0]


async def echo(raw: Raw) -> None:
    """A good server: `echo` answers its text; the first frame is the right answer to the handshake."""
    raw.write(raw.switch())
    await echo_on(raw)


async def echo_on(raw: Raw) -> None:
    while True:
        message = await raw.message()
        if message.get("method") == "tools/call":
            raw.text(message, message["params"]["arguments"].get("x", "ok"))
