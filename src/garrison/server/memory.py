"""A server and its client in one process, joined without a socket: the same corridor, the same bytes.

Rules of this file:
- What the server sends arrives at the next turn of the loop, so that the client never runs inside the server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..policy.principal import LOCAL
from .duplex import DuplexConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..policy.principal import Principal
    from .app import Server
    from .core import Core

__all__ = ["MemoryConnection"]


class MemoryConnection:
    """The client's end of a connection in memory. Made by `Server.connect_memory`."""

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop, principal: Principal) -> None:
        self._core = core
        self._loop = loop
        self._connection = DuplexConnection(core, self._receive, principal=principal)
        self._waiting: list[bytes] = []
        self._scheduled = False
        self._closed = False
        self.on_message: Callable[[bytes], None] = lambda data: None
        """Called with each message of the server."""

    @classmethod
    async def open(cls, server: Server, principal: Principal | None = None) -> MemoryConnection:
        """Start the server on the running loop and connect to it."""
        core = server.core()
        await core.start()
        return cls(core, asyncio.get_running_loop(), LOCAL if principal is None else principal)

    def send(self, data: bytes) -> None:
        """Send one message to the server."""
        self._connection.receive(data)

    def _receive(self, data: bytes) -> None:
        self._waiting.append(data)
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.on_message(data)

    async def close(self) -> None:
        """End the connection and the server behind it."""
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        await self._core.close()
