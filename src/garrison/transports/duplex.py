"""One end of a connection on which both sides send messages at any time, over an asyncio transport.

Rules of this file:
- Bytes in, messages to the other side's `Conversation`; messages out, bytes. How a message is framed is the subclass's.
- What was read is served by turns: at most `_TURN` frames or a `SPAN` of time, then the others have theirs. Nothing
  more is read while some of it waits, while the conversation is saturated, or while the peer does not take what is
  written.
- What is served is charged to the connection's meter. Over its rate nothing is served or read for a while; that is no
  error, and time in which we do not read is not held against the peer.
- A message that was begun has to arrive in `Timeouts.body` and a second more for every `Limits.body_rate` bytes of it.
- What waits for a slow peer is kept here and counted. The transport gets no more while it is full, so it holds one
  message and a little, whatever `Limits.outbound_bytes` says.
- One deadline, looked at by the listener's sweep. It may be early: `expire` looks at what is really due.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Final, cast

from .. import events
from .flood import UNIT
from .listener import half_close
from .turns import SPAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..policy import Limits
    from .conversation import Conversation
    from .flood import Place
    from .listener import Guests

__all__ = ["DuplexShell"]

log = logging.getLogger("garrison.transports")

_TURN: Final = 32
_FLUSH: Final = 64 * 1024
"""Bytes of answers that are written at once, before all that came is answered."""
_LINGER: Final = 2.0
_LOOK: Final = 0.01

_GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_INTERNAL: Final = 1011

Clock = tuple[float, "Callable[[], None]"]


class DuplexShell(asyncio.Protocol):
    """One connection of a peer that was let in; a `Guest` of its listener.

    Args:
        guests: the listener.
        place: the connection's place; its meter is charged. The listener gives it back.
        connect: makes the conversation, when the connection is made. It gets this shell, whose `send`, `drain`,
            `resume`, `congested` and `malformed` are for it.
        limits: what is allowed, where this transport has its own; the listener's otherwise.
        address: who is at the other end, for security events.
    """

    __slots__ = (
        "_active",
        "_address",
        "_began",
        "_close_by",
        "_collecting",
        "_connect",
        "_ended",
        "_ending",
        "_eof",
        "_guests",
        "_heard",
        "_leaving",
        "_left",
        "_limits",
        "_loop",
        "_lost",
        "_messages",
        "_meter",
        "_out",
        "_paid",
        "_peer",
        "_place",
        "_queued",
        "_reading",
        "_room",
        "_shut",
        "_stall_at",
        "_stopped",
        "_timeouts",
        "_transport",
        "_unpaid",
        "_waits",
        "closing",
        "deadline",
    )

    def __init__(
        self,
        guests: Guests,
        place: Place,
        connect: Callable[[Self], Conversation],
        *,
        limits: Limits | None = None,
        address: str = "unix",
    ) -> None:
        self._guests = guests
        self._place = place
        self._connect = connect
        self._limits = limits or guests.limits
        self._timeouts = guests.timeouts
        self._loop = guests.loop
        self._meter = place.meter
        self._address = address
        self._peer: Conversation
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._queued = 0
        self._room: asyncio.Future[None] | None = None
        self._left = 0
        self._stall_at = 0.0
        self._reading = True
        self._eof = False
        self._collecting = False
        self._paid: asyncio.TimerHandle | None = None
        self._waits = False
        self._messages = 0
        self._unpaid = 0
        self._began = 0.0
        self._heard = 0.0
        self._active = 0.0
        self._stopped = 0.0
        self._ending: tuple[int, str] | None = None
        self._ended = False
        self._lost = False
        self._leaving: asyncio.Task[None] | None = None
        self._close_by = 0.0
        self._shut = False
        self.closing = False
        """Nothing more is said; what comes is dropped."""
        self.deadline = 0.0
        """Loop time at which to call `expire`; 0: never."""

    # What a subclass knows

    def _feed(self, data: bytes) -> None:
        """Keep what was read."""
        raise NotImplementedError

    def _step(self) -> bool:
        """Take one frame of what was read, and serve the message it ends. False where there is no whole one."""
        raise NotImplementedError

    def _begun(self) -> int:
        """Bytes of the message that has begun and not ended; 0 where there is none."""
        raise NotImplementedError

    def _encode(self, message: bytes) -> None:
        """Put the bytes of one message into `_out`."""
        raise NotImplementedError

    def _farewell(self, code: int, reason: str) -> None:
        """Put the last bytes into `_out`, where this transport has any."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._heard = self._active = now = self._loop.time()
        self._place.let_in()
        self._peer = self._connect(self)
        self.deadline = min(at for at, _ in self._clocks(now))

    def data_received(self, data: bytes) -> None:
        if self._shut:
            # Reads on for a moment, so that the peer can read why; but each read is charged, and no peer is endless.
            if self._meter.take(self._loop.time(), max(len(data), UNIT), 0) > 0.0:
                self._transport.pause_reading()
            return
        self._heard = self._loop.time()
        self._unpaid += len(data)
        self._feed(data)
        self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shut = self.closing = self._lost = True
        self.deadline = 0.0
        self._out.clear()
        self._let_go()
        self._guests.gone(self, self._place)

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()
            self._left = self._transport.get_write_buffer_size()
            self._stall_at = self._loop.time() + self._timeouts.write_stall
            self._alarm(self._stall_at)

    def resume_writing(self) -> None:
        self._heard = self._loop.time()  # what it took is a sign of life
        self._admit()
        if self.closing:
            return
        self._flush()
        if self._room is not None:
            return
        self._collecting = True
        self._peer.relieved()
        self._collecting = False
        self._flush()
        self.resume()

    # Reading

    def resume(self) -> None:
        """Serve what was read, as far as there is room; read on when all is served."""
        if self._collecting or self._shut or self._waits or self._paid is not None:
            return
        peer, step, left = self._peer, self._step, _TURN
        end = perf_counter() + SPAN
        self._collecting = True
        try:
            while left and self._room is None and not peer.saturated and step():
                left -= 1
                if self._ending is not None:
                    break
                if perf_counter() >= end:
                    left = 0
        except Exception:  # whatever fails here is ours, and must not end the loop that serves the others
            log.exception("a connection failed")
            self._ending = _INTERNAL, "internal error"
        self._collecting = False
        if self._ending is not None:
            self.close(*self._ending)
            return
        self._flush()
        if self.closing:
            return
        now = self._loop.time()
        wait = self._pay(now)
        if wait > 0.0:
            self._paid = self._loop.call_later(wait, self._soon)
        elif not left:
            self._soon()
        idle = not self._waits and self._paid is None and self._room is None and not peer.saturated
        if not self._eof:
            self._watch(idle, now)
        elif idle:
            self.leave()

    def _soon(self) -> None:
        """Go on when the other connections have had their turn."""
        self._paid = None
        self._waits = True
        self._guests.turns.wait(self._loop, self._go_on)

    def _go_on(self) -> None:
        self._waits = False
        self.resume()

    def _receive(self, message: bytes) -> None:
        """Pass one message on."""
        self._messages += 1
        self._began = 0.0
        self._active = self._heard
        self._peer.receive(message)

    def _pay(self, now: float) -> float:
        """Charge what was served. Seconds for which nothing more should be."""
        messages, unpaid = self._messages, self._unpaid
        if messages:
            self._messages = 0
        elif unpaid < UNIT:
            return 0.0
        self._unpaid = unpaid % UNIT
        return self._meter.take(now, unpaid, messages)

    def _watch(self, on: bool, now: float) -> None:
        """Read, or do not; and give a message that was begun its time."""
        if on is not self._reading:
            self._reading = on
            if on:
                self._heard = now
                if self._began:
                    self._began += now - self._stopped
                self._transport.resume_reading()
                self._alarm(min(at for at, _ in self._clocks(now)))
            else:
                self._stopped = now
                self._transport.pause_reading()
        if not self._begun():
            self._began = 0.0
        elif not self._began:
            self._began = now
            self._alarm(now + self._timeouts.body)

    def malformed(self) -> None:
        """The peer has broken the protocol, and was told. If it was once too often, the connection ends."""
        if self._meter.malformed(self._loop.time()):
            text = "too many malformed messages"
            self._record("limit.reached", text, "Limits.malformed_per_minute")
            self._ending = _POLICY, text
            if not self._collecting:
                self.close(*self._ending)

    # Writing

    def send(self, message: bytes) -> None:
        """Write one message. Dropped when the connection is closing."""
        if self.closing:
            return
        before = self._queued
        self._queued = before + len(message)
        if not self._collecting:
            self._active = self._loop.time()
        self._encode(message)
        if self._room is not None:
            if before > self._limits.outbound_bytes:
                self._record("limit.reached", "a slow reader is put out", "Limits.outbound_bytes")
                self.abort()
        elif not self._collecting or self._queued > _FLUSH:
            self._flush()

    @property
    def congested(self) -> bool:
        """True while the peer does not take what is written."""
        return self._room is not None

    async def drain(self) -> None:
        """Return when the peer has taken what waits."""
        if self._room is not None:
            await asyncio.shield(self._room)

    def _flush(self) -> None:
        out = self._out
        if out and self._room is None and not self.closing:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._queued = 0
            self._transport.write(data)

    def _admit(self) -> None:
        """Let those go on who wait for room."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # Time

    def _alarm(self, at: float) -> None:
        if not self.deadline or at < self.deadline:
            self.deadline = at

    def _clocks(self, now: float) -> list[Clock]:
        """When what is to be done if nothing happens until then."""
        if self.closing:
            return [(self._close_by, self._stalled)]
        clocks: list[Clock] = [(self._active + self._timeouts.session_idle, self._idle)]
        if self._room is not None:
            clocks.append((self._stall_at, self._stalled))
        if self._began and self._reading and not self._shut:
            body = self._timeouts.body + self._begun() / self._limits.body_rate
            clocks.append((self._began + body, self._late))
        return clocks

    def expire(self) -> None:
        """The deadline has passed: do what is due, and set the next."""
        now = self._loop.time()
        for at, act in self._clocks(now):
            if at <= now:
                act()
        if not self._lost:
            self.deadline = min(at for at, _ in self._clocks(now))

    def _idle(self) -> None:
        if self._peer.busy or self._leaving is not None:
            self._active = self._loop.time()
        else:
            self.close(_GOING_AWAY, "idle")

    def _stalled(self) -> None:
        """End it, unless the peer has taken something since the last look."""
        left = self._transport.get_write_buffer_size()
        if left < self._left:
            self._left = left
            self._stall_at = self._close_by = self._loop.time() + self._timeouts.write_stall
            return
        if left:
            self._record("limit.reached", "a peer that takes nothing is put out", "Timeouts.write_stall")
        self.abort()

    def _late(self) -> None:
        self._record("limit.reached", "a message was not complete in time", "Timeouts.body, Limits.body_rate")
        self.close(_POLICY, "message not complete in time")

    # Ending

    def close(self, code: int = _GOING_AWAY, reason: str = "") -> None:
        """Write what waits and a farewell, and end. What still runs for the peer is cancelled.

        Args:
            code, reason: for a transport that can say them (RFC 6455 section 7.4.1).
        """
        if self.closing:
            return
        self._farewell(code, reason)
        self._hang_up(linger=True)

    def _hang_up(self, *, linger: bool) -> None:
        """Say what is left, and close. A close with unread bytes could take it back; so read on for a moment."""
        transport = self._transport
        self._shut = self.closing = True
        if self._out:
            transport.write(b"".join(self._out))
            self._out.clear()
        self._let_go()
        if transport.is_closing():
            return
        self._left = transport.get_write_buffer_size()
        self._close_by = self._loop.time() + (self._timeouts.write_stall if self._left else _LINGER)
        self.deadline = self._close_by
        if linger and transport.can_write_eof() and not self._eof:
            half_close(transport)
            if not self._reading and not transport.is_closing():
                transport.resume_reading()
        else:
            transport.close()

    def leave(self) -> None:
        """Read no more, let what runs end, then close."""
        if self._shut:
            return
        self._shut = True
        if not self._peer.busy:
            self.close(_GOING_AWAY, "the server stops")
            return
        if not self._eof:
            self._watch(False, self._loop.time())
        self._leaving = self._loop.create_task(self._settle() if self._eof else self._finish())

    async def _finish(self) -> None:
        await self._peer.finish(self._timeouts.shutdown)
        self.close(_GOING_AWAY, "the server stops")

    async def _settle(self) -> None:
        """This client asks nothing more. The server goes on for others, so its subscriptions are only waited for."""
        end = self._loop.time() + self._timeouts.shutdown
        while self._peer.busy and self._loop.time() < end:
            await asyncio.sleep(_LOOK)
        self.close()

    def abort(self) -> None:
        """End now."""
        self._shut = self.closing = self._lost = True
        self.deadline = 0.0
        self._out.clear()
        self._let_go()
        self._transport.abort()

    def _let_go(self) -> None:
        """Nobody will hear an answer: end what runs, once, and wait for nothing more."""
        if self._ended:
            return
        self._ended = True
        if self._paid is not None:
            self._paid.cancel()
            self._paid = None
        self._admit()
        if self._leaving is not None:
            self._leaving.cancel()
        self._peer.close()

    def _record(self, event: str, text: str, setting: str = "") -> None:
        events.record(event, text, peer=self._address, setting=setting)
