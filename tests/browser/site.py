"""A web site that is not ours: it serves one page at every path, and notes every request.

As a victim in place of the MCP server it shows that an attack leaves the browser at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["NAMES", "Seen", "Site", "site"]

NAMES = ("rebind.test", "evil.test", "app.test")
"""Host names that the browser takes for 127.0.0.1."""
PAGE = b"<!doctype html><title>page</title><link rel=icon href=data:,><body></body>"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(PAGE)


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes


@dataclass
class Site:
    """Where it is, and what came."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    def url(self, host: str) -> str:
        return f"http://{host}:{self.port}/"


class _Answering(asyncio.Protocol):
    """One connection: one request, one page."""

    def __init__(self, here: Site, open_ones: set[asyncio.Transport]) -> None:
        self._here = here
        self._open_ones = open_ones
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, whole, body = self._data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not whole or len(body) < int(fields.get("content-length", 0)):
            return
        method, path, _ = first.split(" ")
        self._here.seen.append(Seen(method, path, fields, body))
        self._data = b""
        self._transport.write(HEAD + PAGE)
        self._transport.close()


@asynccontextmanager
async def site(port: int = 0) -> AsyncIterator[Site]:
    """The site on a port of 127.0.0.1; 0 is any."""
    open_ones: set[asyncio.Transport] = set()
    here = Site(0)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: _Answering(here, open_ones), "127.0.0.1", port)
    here.port = listener.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        listener.close()
        for _ in range(5):
            await asyncio.sleep(0)  # what was just accepted becomes a connection
        for transport in tuple(open_ones):
            transport.abort()
        while open_ones:
            await asyncio.sleep(0)
