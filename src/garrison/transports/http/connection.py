"""One HTTP/1.1 connection of the edge: an `asyncio.Protocol` over llhttp.

Rules of this file:
- Every phase has a deadline, which the listener's sweep looks at; no request costs a timer.
- One request at a time per connection, and then the others have their turn. What the peer sends ahead is answered in
  order, and bounded: while a response is due nothing more is read from the socket, nor while the meter says that the
  peer has sent enough.
- A request that breaks HTTP is answered after those before it, and the connection closed, so that no second meaning of
  its bytes survives. The close lingers, so that a peer that is still sending can read why.
- What waits for a slow reader is bounded by `Limits.outbound_bytes`; a peer that takes nothing is put out.

RFC 9112; RFC 9110.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from ... import events
from ...errors import BadRequest, Overloaded, Refused
from ...policy.principal import NOBODY
from ..flood import UNIT
from ..listener import half_close
from .exchange import SECURITY_FIELDS, reason
from .requests import RequestReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..flood import Place
    from ..peer import Credential, Peer
    from .edge import HttpListener
    from .exchange import Head

__all__ = ["HttpConnection"]

log = logging.getLogger("garrison.http")

_JSON_OK: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %%d\r\n\r\n%%b" % SECURITY_FIELDS
)
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-accel-buffering: no\r\n%b" % SECURITY_FIELDS
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_CLOSE: Final = b"connection: close\r\n"
_AHEAD: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER: Final = 2.0
_ASKED: Final = 3
"""Times that the gate is asked about one request."""


def _response(status: int, body: bytes, fields: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n%b" % (
        status,
        reason(status),
        b"content-type: application/json\r\n" if body else b"",
        SECURITY_FIELDS,
        fields,
        b"content-length: %d\r\n" % len(body) if status != 204 else b"",
        body,
    )


class HttpConnection(asyncio.Protocol):
    """One peer. Its states: reading a head, reading a body, answering, and closing."""

    __slots__ = (
        "_again",
        "_asking",
        "_keep",
        "_known",
        "_left",
        "_listener",
        "_meter",
        "_over",
        "_pace",
        "_paused",
        "_place",
        "_reader",
        "_reading",
        "_reply",
        "_room",
        "_streaming",
        "answering",
        "closing",
        "credential",
        "deadline",
        "on_gone",
        "peer",
        "transport",
    )

    def __init__(self, listener: HttpListener, peer: Peer, place: Place) -> None:
        self._listener = listener
        self.peer = peer
        self._place = place
        self._meter = place.meter
        self._known = False
        self._pace: asyncio.TimerHandle | None = None
        self._reply = b""
        self._reader = RequestReader(listener, peer, self._admit)
        self._again = False
        self._asking: asyncio.Task[None] | None = None
        self._over = False
        self._keep = True
        self._reading = True
        self._paused: bytes = b""
        self._room: asyncio.Future[None] | None = None
        self._left = 0
        self._streaming = False
        self.answering = False
        self.closing = False
        self.deadline = 0.0
        self.on_gone: Callable[[], None] | None = None
        self.credential: Credential | None = None
        """Of the request that is being answered."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.deadline = self._listener.now() + self._listener.timeouts.head

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.gone(self, self._place)
        self.closing = True
        if self._pace is not None:
            self._pace.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._gone()

    def eof_received(self) -> bool:
        # What was sent ahead and waits for its turn is still answered; not over TLS, which has no half of a close.
        self._over = self._again and self.transport.can_write_eof()
        return self._over

    def data_received(self, data: bytes) -> None:
        if self.closing:
            # Reads on for a moment, so that the peer can read why; but each read is charged, and no peer is endless.
            if self._meter.take(self._listener.now(), max(len(data), UNIT), 0) > 0.0:
                self.transport.pause_reading()
            return
        if self._again or self._busy:
            self._hold(data)
            return
        if self._reader.head is None and self._reader.failure is None:
            known = self._listener.heads.match(data)
            if known is not None and self._shortcut(*known):
                return
        self._feed(data)

    def _shortcut(self, head: Head, body: bytes) -> bool:
        """Serve a request whose head needs no parsing. False if it is not to be served at once."""
        listener = self._listener
        if not listener.application.lasting:
            head = head.copy()  # what is found out about this connection is not for the others
        head.peer = self.peer
        if not head.cleared:
            try:
                self._check(head)
            except Refused as refusal:
                refusal.reply += head.reply
                self._refuse(refusal)
                return True
            if head.pending is not None:
                return False
            head.cleared = listener.application.lasting
        if len(body) > listener.limits.message_bytes:
            return False
        if not self._known:
            self._let_in(head)
        self._keep = True
        self._serve(head, body)
        return True

    def _let_in(self, head: Head) -> None:
        """Keep the place of a peer that the gate knows. A preflight passes it too, and shows no credential."""
        if head.principal is not NOBODY:
            self._known = True
            self._place.let_in()

    def _serve(self, head: Head, body: bytes) -> None:
        """Have a complete request answered, and count it."""
        listener = self._listener
        self.answering = True
        self.deadline = 0.0
        self._reply = head.reply
        self.credential = head.credential
        if head.client is not None:
            if listener.floods.lend(head.client, listener.now()).take(listener.now(), len(body)) > 0.0:
                error = Overloaded("Too many requests", hint="Limits.message_rate", status=429)
                error.peer = head.client
                self.respond(*listener.application.refusal(error))
                return
        else:
            wait = self._meter.take(listener.now(), len(body))
            if wait > 0.0:
                self._pace = listener.loop.call_later(wait, self._unpace)
                events.record("limit.reached", "reading paused", peer=self.peer.address, setting="Limits.message_rate")
        listener.application.handle(head, body, self)

    def _unpace(self) -> None:
        self._pace = None
        if not self.answering and not self.closing:
            self._wait()

    def pause_writing(self) -> None:
        self._room = self._listener.loop.create_future()
        self._left = self.transport.get_write_buffer_size()
        self.deadline = self._listener.now() + self._listener.timeouts.write_stall

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None
        if self.answering:
            self.deadline = 0.0
        elif not self.closing and self._pace is None:
            self._wait()

    # Reading

    def _hold(self, data: bytes) -> None:
        """Bytes that came while a response is due: keep a few, to see the peer leave, then read no more."""
        self._paused += data
        if self._reading and len(self._paused) >= _AHEAD:
            self._reading = False
            self.transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        rest = reader.feed(data)
        if self._asking is not None:
            self.deadline = 0.0  # the peer waits for us
        elif reader.head is not None:
            self.deadline = reader.deadline
        if rest:
            self._hold(rest)
        self._next()

    def _admit(self, head: Head) -> None:
        """The gate, for a head that is complete; then its body is asked for.

        Raises:
            Refused: the request goes no further.
        """
        length = head.fields.get(b"content-length")
        self._check(head)
        if length is not None and int(length) > self._listener.limits.message_bytes:
            raise BadRequest("Message too large", status=413, hint="Limits.message_bytes")
        if head.pending is None:
            self._welcome(head)
        elif self._asking is None:
            self._hold_for(head, head.pending)

    def _check(self, head: Head) -> None:
        try:
            self._listener.application.check(head)
        except Refused as refusal:
            refusal.peer = head.client or self.peer.address
            raise

    def _hold_for(self, head: Head, pending: Awaitable[object]) -> None:
        """Serve and read nothing until the gate can tell about a request."""
        self._asking = self._listener.loop.create_task(self._ask(head, pending))

    async def _ask(self, head: Head, pending: Awaitable[object]) -> None:
        refusal: Refused | None = Overloaded("The credential could not be checked")
        try:
            for _ in range(_ASKED):
                await pending
                self._check(head)
                if head.pending is None:
                    self._welcome(head)
                    refusal = None
                    break
                pending = head.pending
        except Refused as exc:
            refusal = exc
        except Exception:  # a fault of ours, and until it is known who asks nothing is served
            log.exception("a credential could not be checked")
        finally:
            if refusal is not None:
                self._reader.withdraw(head, refusal)
            self._asking = None
            if not self.closing:
                self._wait()

    def _welcome(self, head: Head) -> None:
        """The gate lets the request pass: ask for its body, if it waits to be asked."""
        if not self._known:
            self._let_in(head)
        expect = head.fields.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise BadRequest("Expectation failed", status=417)
            if not self._reader.queue and not self.answering and head is self._reader.head:
                self.transport.write(_CONTINUE)

    # Answering

    def _next(self) -> None:
        """Serve the next request that is complete; after the last, answer what broke."""
        reader = self._reader
        if reader.queue:
            if self._busy:
                return
            head = reader.queue[0][0]
            if head.pending is not None:
                self._hold_for(head, head.pending)
                return
            head, body, self._keep = reader.queue.popleft()
            if reader.switching and not reader.queue:
                self._switch(head, body)
            else:
                self._serve(head, body)
        elif reader.failure is not None and not self.answering:
            self._refuse(reader.failure)

    def _switch(self, head: Head, body: bytes) -> None:
        """Hand the connection over to the protocol that was asked for, with what came after the request."""
        listener = self._listener
        try:
            if body:
                raise BadRequest("A request to upgrade has no body")
            taken = listener.application.upgrade(head)
        except Refused as refusal:
            refusal.reply += head.reply
            refusal.peer = head.client or self.peer.address
            self._refuse(refusal)
            return
        if taken is None:
            self._keep = False
            self._serve(head, body)
            return
        fields, takeover = taken
        guest = takeover(listener, self._place)
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % fields)
        self.closing = True
        listener.guests.discard(self)
        listener.add(guest)
        self._place.evict_by(guest.abort)
        self.transport.set_protocol(cast("asyncio.BaseProtocol", guest))
        guest.connection_made(self.transport)
        if not self._reading:
            self.transport.resume_reading()
        if self._paused:
            guest.data_received(self._paused)

    def malformed(self) -> None:
        if self._meter.malformed(self._listener.now()):
            self._keep = False
            events.record(
                "limit.reached",
                "too many malformed messages",
                peer=self.peer.address,
                setting="Limits.malformed_per_minute",
            )

    def respond(self, status: int, body: bytes, fields: bytes = b"") -> None:
        if self.closing or not self.answering:
            return
        keep = self._keep and not self._listener.closing
        if status == 200 and keep and not fields and not self._reply:
            self.transport.write(_JSON_OK % (len(body), body))
        else:
            self._write(status, body, fields + self._reply, keep)
        self._done(keep)

    def _write(self, status: int, body: bytes, fields: bytes, keep: bool) -> None:
        self.transport.write(_response(status, body, fields if keep else fields + _CLOSE))

    @staticmethod
    def refusal(answer: tuple[int, bytes, bytes]) -> bytes:
        """The bytes of a refusal after which the connection is closed."""
        status, body, fields = answer
        return _response(status, body, fields + _CLOSE)

    def start_stream(self, fields: bytes = b"") -> None:
        if self.closing or not self.answering:
            return
        self._streaming = True
        # What is not kept open ends with its connection: HTTP/1.0 knows no chunks.
        ending = _CHUNKED if self._keep else _CLOSE
        self.transport.write(b"%b%b%b%b\r\n" % (_STREAM, fields, self._reply, ending))
        self._listener.streams.add(self)

    def send_event(self, event: bytes) -> None:
        if self.closing or not self._streaming:
            return
        transport = self.transport
        transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._keep else event)
        if self._room is None:
            return
        self._left += len(event)
        if transport.get_write_buffer_size() > self._listener.limits.outbound_bytes + len(event):
            events.record(
                "limit.reached", "slow reader put out", peer=self.peer.address, setting="Limits.outbound_bytes"
            )
            self.abort()

    def end_stream(self) -> None:
        if self.closing or not self._streaming:
            return
        self._streaming = False
        self._listener.streams.discard(self)
        if self._keep:
            self.transport.write(b"0\r\n\r\n")
        self._done(self._keep and not self._listener.closing)

    async def drain(self) -> None:
        room = self._room
        if room is not None and not self.closing:
            await asyncio.shield(room)

    def _done(self, keep: bool) -> None:
        self.answering = False
        self.on_gone = None
        if not keep:
            self._close()
            return
        if self._room is None and self._pace is None:
            self._wait()

    def _wait(self) -> None:
        """Nothing is due: wait for the next request, or go on with what came already."""
        reader = self._reader
        if reader.queue or reader.failure is not None or self._paused or not self._reading or self._over:
            self._soon()
        if reader.head is not None:
            reader.renew()
            self.deadline = reader.deadline
        else:
            self.deadline = self._listener.now() + self._listener.timeouts.idle

    def _soon(self) -> None:
        """Go on when the other connections have had their turn."""
        if not self._again:
            self._again = True
            self._listener.turns.wait(self._listener.loop, self._go_on)

    def _go_on(self) -> None:
        """Serve what waited while the last response was due, then read again."""
        self._again = False
        if self._busy:
            return
        self._next()
        if self._busy or self._again:
            return
        data, self._paused = self._paused, b""
        if data:
            self._feed(data)
        if self._busy or self._again:
            return
        if self._over:
            self._close()
        elif not self._reading:
            self._reading = True
            self.transport.resume_reading()

    @property
    def _busy(self) -> bool:
        """True while nothing more should be taken."""
        return (
            self.closing
            or self.answering
            or self._room is not None
            or self._pace is not None
            or self._asking is not None
        )

    # Ending

    def _refuse(self, error: Refused) -> None:
        """Answer a request that goes no further, and close."""
        if self.closing:
            return
        error.peer = error.peer or self.peer.address
        status, body, fields = self._listener.application.refusal(error)
        head = self._reader.head
        if head is not None and head.method == b"HEAD":
            body = b""
        self._write(status, body, fields + error.reply + (head.reply if head is not None else b""), keep=False)
        self.closing = True
        self.deadline = self._listener.now() + _LINGER
        if not self._reading:
            self.transport.resume_reading()
        # A close with unread bytes would reset the connection before the peer has read the answer. TLS has no half of a
        # close: there the peer has the answer's length, and is left to close.
        if self.transport.can_write_eof():
            half_close(self.transport)

    def _close(self) -> None:
        self.closing = True
        self._left = self.transport.get_write_buffer_size()
        self.deadline = self._listener.now() + self._listener.timeouts.write_stall
        self.transport.close()

    def leave(self) -> None:
        """The listener stops: end now, or with the response that is due."""
        if not self.closing and not self.answering:
            self._close()

    def abort(self) -> None:
        """End the connection now."""
        self.closing = True
        self._gone()
        self.transport.abort()

    def _gone(self) -> None:
        self._listener.streams.discard(self)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()

    def expire(self) -> None:
        """The deadline of the present phase has passed."""
        if self._reader.head is not None and not self.closing and not self.answering:
            self._refuse(BadRequest("Request not complete in time", status=408, hint="Timeouts.head, Timeouts.body"))
        elif self.closing and not self.transport.is_closing() and not self.transport.can_write_eof():
            self._close()
        elif (left := self.transport.get_write_buffer_size()) and left < self._left:
            self._left = left  # slow, but not stalled
            self.deadline = self._listener.now() + self._listener.timeouts.write_stall
        else:
            self.abort()
