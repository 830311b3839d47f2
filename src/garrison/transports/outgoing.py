"""One connection that a client opened, and on which messages go both ways: what WebSocket and Unix sockets share.

Rules of this file:
- `write` writes at once. Only while the peer does not take what was written it returns something to await, and then the
  message waits outside the connection: beside the messages being written, no more than `Limits.outbound_bytes` is held.
- A peer that takes nothing for `Timeouts.write_stall` is given up.
- The end is told once, unless it is this side that closes. Nothing late from an old connection reaches a new one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from ..errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy import Limits, Timeouts

__all__ = ["Outgoing", "shown"]

_WIDTH: Final = 200


def shown(text: str) -> str:
    """A peer's text as it may stand in an error: printable ASCII, and short."""
    short = text if len(text) <= _WIDTH else text[:_WIDTH] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in short)


class Outgoing(asyncio.Protocol):
    """Base of both. A subclass frames: it has `put`, `data_received`, and `farewell` if it says goodbye.

    Args:
        limits, timeouts: `outbound_bytes`, `write_stall` and `shutdown` apply here.
        on_lost: hears once that the connection ended without `end`.
    """

    def __init__(self, *, limits: Limits, timeouts: Timeouts, on_lost: Callable[[ConnectionLost], None]) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.alive = False
        """True while messages can pass."""
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._on_lost = on_lost
        self._gone: asyncio.Future[None] = self.loop.create_future()
        self._room: asyncio.Future[None] | None = None
        self._written = 0
        self._taken = 0
        self._stall: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None

    def send(self, message: bytes) -> Awaitable[None] | None:
        """Sends one message. What is returned, if anything, is to be awaited: it is written once there is room.

        Raises:
            ConnectionLost: (also when awaited) the connection has ended.
        """
        if not self.alive:
            raise ConnectionLost("The connection is closed")
        if self._room is not None:
            return self._send_later(message)
        self.put(message)
        return None

    async def _send_later(self, message: bytes) -> None:
        while self._room is not None:
            # Shielded: the one future serves every writer, and one that gives up must not end the others' wait.
            await asyncio.shield(self._room)
        if not self.alive:
            raise ConnectionLost("The connection ended before the message was written")
        self.put(message)

    def put(self, message: bytes) -> None:
        """Frames one message and writes it."""
        raise NotImplementedError

    def farewell(self) -> None:
        """Tells the peer that no more will come."""
        if self.transport is not None:
            self.transport.close()

    def write(self, data: bytes) -> None:
        """Hands bytes to the socket."""
        if self.transport is not None:
            self._written += len(data)
            self.transport.write(data)

    def over(self, reason: str, *, tell: bool = True) -> None:
        """Once, when no more messages can pass: tells it, and sees that the socket is closed in time."""
        if not self.alive:
            return
        self.alive = False
        self.resume_writing()
        if not self._gone.done():
            self._ending = self.loop.call_later(self.timeouts.shutdown, self.abort)
        if tell:
            self._on_lost(ConnectionLost(reason))

    def abort(self) -> None:
        """Closes the socket now."""
        if self.transport is not None and not self._gone.done():
            self.transport.abort()

    async def end(self) -> None:
        """Says goodbye, and waits for the peer to close for at most `Timeouts.shutdown`. May be called twice."""
        if self.alive:
            self.farewell()
            self.over("", tell=False)
        elif self._ending is None:
            self.abort()  # it never got so far that there would be anything to say
        if self.transport is None:
            return
        try:
            if not self._gone.done():
                await asyncio.wait((self._gone,), timeout=self.timeouts.shutdown)
        finally:
            self.abort()
        await asyncio.wait((self._gone,), timeout=self.timeouts.shutdown)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self.limits.outbound_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        self.over("The server ended the connection")
        if self._ending is not None:
            self._ending.cancel()

    def pause_writing(self) -> None:
        if self._room is None and self.alive:
            self._room = self.loop.create_future()
            self._taken = self._progress()
            self._stall = self.loop.call_later(self.timeouts.write_stall, self._stalled)

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _progress(self) -> int:
        """Bytes that the peer has taken, as far as the socket tells."""
        return self._written - (self.transport.get_write_buffer_size() if self.transport is not None else 0)

    def _stalled(self) -> None:
        taken = self._progress()
        if taken > self._taken:
            self._taken = taken
            self._stall = self.loop.call_later(self.timeouts.write_stall, self._stalled)
            return
        self.over(f"The server took nothing for {self.timeouts.write_stall:g} s (Timeouts.write_stall)")
        self.abort()
