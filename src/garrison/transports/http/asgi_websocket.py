"""A WebSocket whose frames an ASGI host reads and writes: whole messages in and out.

Rules of this file:
- The host's own limits hold while a message is read; here it is counted again, and refused as at the edge.
- Text only. One message at a time goes to the peer; the next one is taken when there is room: requests under way,
  messages sent, and what the client has not read yet are bounded.
- Closed with 1003 for binary, 1007 for what is not UTF-8, 1008 for what may not go on, 1009 for what is too large,
  1001 when the server ends or the connection was idle too long.

ASGI 3.0, "WebSocket"; RFC 6455 section 7.4.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from ... import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...policy import Limits, Timeouts
    from ..conversation import Conversation
    from ..flood import Meter
    from ..peer import Credential
    from .asgi import Receive, Send

__all__ = ["AsgiSocket"]


class AsgiSocket:
    """One WebSocket of a host.

    Args:
        limits, timeouts: what is allowed.
        meter: of its connection.
        address: of the client, for security events.
        credential: what the handshake showed; the connection ends with it. None: it does not end.
    """

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        meter: Meter,
        address: str,
        credential: Credential | None = None,
    ) -> None:
        self._credential = credential
        self._lease: asyncio.TimerHandle | None = None
        self._limits = limits
        self._timeouts = timeouts
        self._meter = meter
        self._address = address
        self._out: deque[tuple[str, int]] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._over: tuple[int, str] | None = None
        self._gone = False
        self._peer: Conversation

    def connect(self, connect: Callable[[AsgiSocket], Conversation]) -> None:
        """Set what is served on it."""
        self._peer = connect(self)

    # What the connection of the server calls.

    def send(self, message: bytes) -> None:
        """Send one message; dropped when the client is gone."""
        if self._gone or self._over is not None:
            return
        self._out.append((message.decode(), len(message)))
        self._size += len(message)
        self._changed.set()
        if self._size > self._limits.outbound_bytes + len(message):
            self._put_out("Limits.outbound_bytes")

    @property
    def congested(self) -> bool:
        """True while the client does not take what is sent."""
        return len(self._out) > 1

    async def drain(self) -> None:
        """Return when the client has taken what waits."""
        while self._out and not self._gone:
            self._room.clear()
            await self._room.wait()

    def resume(self) -> None:
        """There is room for further requests."""
        self._room.set()

    def malformed(self) -> None:
        """A message broke the protocol."""
        if self._meter.malformed(asyncio.get_running_loop().time()):
            setting = "Limits.malformed_per_minute"
            events.record("limit.reached", "too many malformed messages", peer=self._address, setting=setting)
            self.close(1008, "too many malformed messages")

    # Ending

    def close(self, code: int, reason: str) -> None:
        """End with a code, once what waits is out."""
        if self._over is None:
            self._over = code, reason
            self._changed.set()
            self._room.set()

    def _put_out(self, setting: str) -> None:
        events.record("limit.reached", "slow reader put out", peer=self._address, setting=setting)
        self._out.clear()
        self._leave()
        self.close(1008, "slow reader")

    def _leave(self) -> None:
        self._gone = True
        self._changed.set()
        self._room.set()

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve until either side ends."""
        reader = asyncio.ensure_future(self._read(receive))
        writer = asyncio.ensure_future(self._write(send))
        self._look()
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if self._over is not None and not writer.done():
                await asyncio.wait((writer,), timeout=self._timeouts.write_stall)
        finally:
            self._leave()
            if self._lease is not None:
                self._lease.cancel()
            reader.cancel()
            writer.cancel()
            await asyncio.wait((reader, writer))
            self._peer.close()

    async def shut(self) -> None:
        """The server ends: let what runs end, then close."""
        await self._peer.finish(self._timeouts.shutdown)
        self.close(1001, "the server ends")

    def _holds(self) -> bool:
        """Whether the credential still holds; closes where it does not."""
        if self._credential is None or self._credential.left(time.time()) > 0.0:
            return True
        self.close(1008, "credential expired")
        return False

    def _look(self) -> None:
        """Look at the credential when it is to be asked again."""
        if self._credential is not None and self._holds():
            left = self._credential.left(time.time())
            if left < float("inf"):
                self._lease = asyncio.get_running_loop().call_later(left, self._look)

    async def _read(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        while self._over is None:
            message = await self._next(receive)
            if message is None:
                return
            text = message.get("text")
            if type(text) is not str:
                self.close(1003, "text only")
                return
            try:
                data = text.encode()
            except UnicodeEncodeError:
                self.close(1007, "not UTF-8")
                return
            if len(data) > self._limits.message_bytes:
                events.record(
                    "message.too_large", "message too large", peer=self._address, setting="Limits.message_bytes"
                )
                self.close(1009, "message too large")
                return
            wait = self._meter.take(loop.time(), len(data))
            if wait:
                await asyncio.sleep(wait)
            if not self._holds():
                return
            self._peer.receive(data)
            while (self._peer.saturated or self.congested) and not self._gone and self._over is None:
                self._room.clear()
                await self._room.wait()

    async def _next(self, receive: Receive) -> dict[str, object] | None:
        """The next message; None when the client is gone or was idle too long."""
        while True:
            waiting = asyncio.ensure_future(receive())
            try:
                done, _ = await asyncio.wait((waiting,), timeout=self._timeouts.session_idle)
                if done:
                    message = waiting.result()
                    if message["type"] == "websocket.receive":
                        return cast("dict[str, object]", message)
                    self._leave()
                    return None
            finally:
                if not waiting.done():
                    waiting.cancel()
            if not self._peer.busy:
                self.close(1001, "idle")
                return None

    async def _write(self, send: Send) -> None:
        try:
            while not self._gone:
                async with asyncio.timeout(self._timeouts.write_stall if self._out else None):
                    if self._out:
                        text, size = self._out[0]
                        await send({"type": "websocket.send", "text": text})
                        if self._gone:
                            return  # put out meanwhile
                        self._out.popleft()
                        self._size -= size
                        if not self._out:
                            self._peer.relieved()
                        self._room.set()
                    elif self._over is not None:
                        code, reason = self._over
                        await send({"type": "websocket.close", "code": code, "reason": reason})
                        return
                    else:
                        self._changed.clear()
                        await self._changed.wait()
        except TimeoutError:
            self._put_out("Timeouts.write_stall")
        except OSError:  # what a host raises when the peer is gone
            self._leave()
