"""WebSocket frames as bytes, and a server's end of a connection on a socket of this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from garrison import Limits, Server, Timeouts
from garrison.policy.principal import LOCAL
from garrison.server.core import Core
from garrison.server.serve import duplex
from garrison.transports.duplex import DuplexShell
from garrison.transports.flood import Floods, Place
from garrison.transports.listener import Guest
from garrison.transports.websocket import WebSocketShell

from .mcp import call

FAST = Limits(message_rate=1_000_000, message_burst=1_000_000)
HELLO = json.dumps(call("echo", {"text": "h\N{LATIN SMALL LETTER E WITH ACUTE}llo"}, 7), ensure_ascii=False).encode()
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40


def masked(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)) if any(mask) else data


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    bits: int = 0,
    mask: bytes | None = bytes(4),
    length: bytes | None = None,
) -> bytes:
    """One frame of a client. `length`: the length field as it is not, without the mask bit; `mask=None`: unmasked."""
    data = payload.encode() if isinstance(payload, str) else payload
    if length is None:
        size = len(data)
        if size < 126:
            length = bytes((size,))
        elif size < 0x10000:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    first = bytes((opcode | bits | (FIN if fin else 0),))
    if mask is None:
        return first + length + data
    return first + bytes((length[0] | 0x80,)) + length[1:] + mask + masked(data, mask)


def message(value: Any, *, mask: bytes | None = None) -> bytes:
    """A JSON value as one text frame, masked at random."""
    return frame(json.dumps(value), mask=os.urandom(4) if mask is None else mask)


def fragments(data: bytes, *cuts: int) -> list[bytes]:
    """A text message as frames, cut at these places."""
    edges = [0, *cuts, len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    return [
        frame(piece, TEXT if at == 0 else CONTINUATION, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)
    ]


def closing(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason, CLOSE)


class Frame(NamedTuple):
    """One frame of the server."""

    opcode: int
    payload: bytes
    first: int

    @property
    def code(self) -> int:
        """The code of a close frame; 1005 where it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005

    @property
    def json(self) -> Any:
        """The message of a text frame."""
        if self.first & RSV1:
            return json.loads(zlib.decompressobj(wbits=-15).decompress(self.payload + b"\x00\x00\xff\xff"))
        return json.loads(self.payload)


class WebSocketWire:
    """A client's end, after the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def frame(self, seconds: float = 5.0) -> Frame:
        """The next frame."""
        async with asyncio.timeout(seconds):
            first, second = await self.reader.readexactly(2)
            assert second < 0x80, "a server does not mask"
            length = second
            if second == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            elif second == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
            return Frame(first & 0x0F, await self.reader.readexactly(length), first)

    async def answer(self, seconds: float = 5.0) -> Any:
        """The next message."""
        got = await self.frame(seconds)
        assert got.opcode == TEXT, got
        return got.json

    async def ask(self, value: Any) -> Any:
        await self.send(message(value))
        return await self.answer()

    async def closed(self, seconds: float = 5.0) -> Frame:
        """The close frame that comes next, after which the connection ends."""
        got = await self.frame(seconds)
        assert got.opcode == CLOSE, got
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                assert await self.reader.read(1) == b""
        return got

    async def ended(self, seconds: float = 5.0) -> bytes:
        """What came until the other side closed."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""


async def alive(wire: WebSocketWire, identifier: str = "alive") -> None:
    answer = await wire.ask(call("echo", {"text": "alive"}, identifier))
    assert answer["id"] == identifier
    assert answer["result"]["content"][0]["text"] == "alive"


class Ends:
    """The server's ends of the connections that were made, swept as a listener does."""

    def __init__(
        self,
        core: Core,
        limits: Limits,
        timeouts: Timeouts,
        make: Callable[..., DuplexShell],
        sweep: float = 0.02,
        **more: Any,
    ) -> None:
        self.core = core
        self.limits = limits
        self.timeouts = timeouts
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.closing = False
        self.floods = Floods(limits)
        self.turns = self.floods.turns
        self.guests: list[Any] = []
        self.ended: list[Any] = []
        self._make = make
        self._more = more
        self._task = self.loop.create_task(self._sweep(sweep))

    def arrive(self) -> DuplexShell:
        place = self.floods.join("127.0.0.1", self.now(), lambda: None)
        shell = self._make(self, place, lambda shell: duplex(self.core, shell, LOCAL), **self._more)
        self.add(shell)
        return shell

    def add(self, guest: Guest) -> None:
        self.guests.append(guest)

    def gone(self, guest: Guest, place: Place) -> None:
        self.guests.remove(guest)
        self.ended.append(guest)
        place.leave()

    async def _sweep(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for guest in tuple(self.guests):
                if guest.deadline and guest.deadline < self.now():
                    guest.expire()

    async def close(self) -> None:
        self._task.cancel()
        for guest in tuple(self.guests):
            guest.abort()
        await asyncio.sleep(0)


class Opened:
    """Ends that a test talks to."""

    def __init__(self, ends: Ends, port: int) -> None:
        self.ends = ends
        self.port = port
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> WebSocketWire:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        self.writers.append(writer)
        return WebSocketWire(reader, writer)


@asynccontextmanager
async def websockets(server: Server, **more: Any) -> AsyncIterator[Opened]:
    """WebSocket connections to a server whose handshakes are over, on a port of 127.0.0.1."""
    core = server.core()
    await core.start()
    ends = Ends(core, server.policy.limits, server.policy.timeouts, WebSocketShell, **more)
    listener = await ends.loop.create_server(ends.arrive, "127.0.0.1", 0)
    opened = Opened(ends, listener.sockets[0].getsockname()[1])
    try:
        yield opened
    finally:
        listener.close()
        for writer in opened.writers:
            writer.close()
        await ends.close()
        await core.close()
