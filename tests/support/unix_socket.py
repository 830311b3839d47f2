"""Clients of a Unix socket, and a server's ends of their connections in this process."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from garrison.policy.transports import UnixSocketConfig
from garrison.transports.unix import BoundSocket, UnixShell, bind

from .edge import Counting
from .mcp import call
from .websocket import Ends


class Lines:
    """A client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        await self.writer.drain()

    async def read(self, seconds: float = 5.0) -> Any:
        async with asyncio.timeout(seconds):
            line = await self.reader.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.read()

    async def alive(self, id: str = "alive") -> None:
        answer = await self.ask(call("echo", {"text": "alive"}, id))
        assert answer["id"] == id, answer

    async def ended(self, seconds: float = 5.0) -> bytes:
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""


class Wires:
    """What a test talks to."""

    def __init__(self, ends: Ends, path: str) -> None:
        self.ends = ends
        self.path = path
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Lines:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 26)
        self.writers.append(writer)
        return Lines(reader, writer)


class _Arrival(asyncio.Protocol):
    """Asks who it is before anything is read, as a listener does."""

    def __init__(self, ends: Ends, bound: BoundSocket) -> None:
        self.ends, self.bound = ends, bound

    def connection_made(self, transport: Any) -> None:
        try:
            self.bound.admit(transport.get_extra_info("socket"))
        except PermissionError:
            transport.abort()
            return
        shell = self.ends.arrive()
        transport.set_protocol(shell)
        shell.connection_made(transport)


@asynccontextmanager
async def lines(counting: Counting, bound: BoundSocket | None = None) -> AsyncIterator[Wires]:
    """Connections to a server over a Unix socket."""
    folder = tempfile.mkdtemp(prefix="g")
    bound = bound or bind(UnixSocketConfig(os.path.join(folder, "s")))
    core = counting.server.core()
    await core.start()
    ends = Ends(core, counting.server.policy.limits, counting.server.policy.timeouts, UnixShell)
    listener = await ends.loop.create_unix_server(lambda: _Arrival(ends, bound), sock=bound.socket)
    wires = Wires(ends, bound.path)
    try:
        yield wires
    finally:
        listener.close()
        for writer in wires.writers:
            writer.close()
        await ends.close()
        await core.close()
        bound.close()
        os.rmdir(folder)
