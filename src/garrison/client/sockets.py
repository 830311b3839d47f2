"""Transports that are one socket with messages in both directions: WebSocket and Unix sockets.

Rules of this file:
- A connection that ended is not used again: `down` says so, and `open` makes a new one. What was under way is lost.
- Opening takes `Timeouts.connect` at most, everything included; an attempt that fails leaves no socket behind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import ConnectionFailed, ConnectionLost
from .transport import OneChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..policy import Limits, Timeouts
    from ..transports.outgoing import Outgoing
    from .transport import Call, Receiver

__all__ = ["SocketTransport"]


class SocketTransport(OneChannel):
    """Base of both. A subclass has `connect`."""

    def __init__(self, where: str, *, limits: Limits, timeouts: Timeouts) -> None:
        self.where = where
        """The server's address, for errors."""
        self.limits = limits
        self.timeouts = timeouts
        self.receiver: Receiver | None = None
        self._connection: Outgoing | None = None
        self._closed = False

    async def connect(self) -> Outgoing:
        """A new connection, ready for messages.

        Raises:
            ClientError, OSError: there is none.
        """
        raise NotImplementedError

    @property
    def down(self) -> bool:
        return self._connection is None or not self._connection.alive

    def attach(self, receiver: Receiver) -> None:
        self.receiver = receiver

    async def open(self) -> None:
        """Connects, unless there is a connection.

        Raises:
            ClientError: as `connect`; ConnectionFailed for a time-out or an error of the system.
        """
        if not self.down:
            return
        old, self._connection = self._connection, None
        if old is not None:
            old.abort()
        try:
            async with asyncio.timeout(self.timeouts.connect):
                connection = await self.connect()
        except TimeoutError:
            raise ConnectionFailed(f"{self.where} did not answer within {self.timeouts.connect:g} s") from None
        except OSError as exc:
            raise ConnectionFailed(f"{self.where}: {exc.strerror or type(exc).__name__}") from exc
        self._connection = connection
        if self._closed:
            await connection.end()
            raise ConnectionFailed("The client is closed")

    def send(self, call: Call) -> Awaitable[None] | None:
        return self.post(call.body)

    def post(self, message: bytes) -> Awaitable[None] | None:
        if self._connection is None:
            raise ConnectionLost("The connection is closed")
        return self._connection.send(message)

    async def aclose(self) -> None:
        self._closed = True
        if self._connection is not None:
            await self._connection.end()

    def lost(self, error: ConnectionLost) -> None:
        """For the connection: it ended."""
        if self.receiver is not None:
            self.receiver.lost(error)

    def too_large(self) -> None:
        """For the connection: a message passed the limit."""
        if self.receiver is not None:
            self.receiver.too_large()

    def receive(self, message: bytes) -> None:
        """For the connection: a message came."""
        if self.receiver is not None:
            self.receiver.receive(message, None)
