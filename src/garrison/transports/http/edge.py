"""The HTTP/1.1 listener: an `asyncio.Protocol` over llhttp.

Rules of this file:
- Every byte is counted while it is read: the head against `Limits.header_bytes`, the body against
  `Limits.message_bytes`. What is too large is refused before it is kept.
- Every phase has a deadline. One sweep of the listener looks at all connections; no request costs a timer.
- One request at a time per connection. What the peer sends ahead is parsed, answered in order, and bounded: while a
  response is due nothing more is read from the socket.
- A request that breaks HTTP is answered after those before it, and the connection closed, so that no second meaning of
  its bytes survives. The close lingers, so that a peer that is still sending can read why.
- What waits for a slow reader is bounded by `Limits.outbound_bytes`; a peer that takes nothing is put out.

RFC 9112; RFC 9110.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from ...errors import BadRequest, Overloaded, Refused
from .exchange import SECURITY_FIELDS, Head, reason
from .heads import KnownHeads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...policy import Limits, Timeouts
    from .exchange import Application

__all__ = ["HttpListener"]

log = logging.getLogger("garrison.http")

_JSON_OK: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %%d\r\n\r\n%%b" % SECURITY_FIELDS
)
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-accel-buffering: no\r\n%b" % SECURITY_FIELDS
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_CLOSE: Final = b"connection: close\r\n"
_AHEAD: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SWEEP: Final = 0.5
_LINGER: Final = 2.0


class _Connection(asyncio.Protocol):
    """One peer. Its states: reading a head, reading a body, answering, and closing."""

    __slots__ = (
        "_body",
        "_chunk",
        "_chunks",
        "_failure",
        "_fresh",
        "_head",
        "_head_bytes",
        "_head_raw",
        "_keep",
        "_listener",
        "_parser",
        "_paused",
        "_queue",
        "_reading",
        "_room",
        "_size",
        "_streaming",
        "answering",
        "closing",
        "deadline",
        "on_gone",
        "transport",
    )

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._head: Head | None = None
        self._head_bytes = 0
        self._head_raw = 0
        self._fresh = False
        self._chunk = b""
        self._body: bytes = b""
        self._chunks: bytearray | None = None
        self._size = 0
        self._queue: deque[tuple[Head, bytes, bool]] = deque()
        self._failure: Refused | None = None
        self._keep = True
        self._reading = True
        self._paused: bytes = b""
        self._room: asyncio.Future[None] | None = None
        self._streaming = False
        self.answering = False
        self.closing = False
        self.deadline = 0.0
        self.on_gone: Callable[[], None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        listener = self._listener
        self.deadline = listener.now() + listener.timeouts.head
        listener.connections.add(self)
        over = len(listener.connections) - listener.limits.connections
        if over > listener.limits.connections:
            self.abort()  # those who are being refused are bounded too
        elif over > 0:
            self._refuse(Overloaded("Too many connections", hint="Limits.connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        self.closing = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._gone()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        if self.answering or self._paused or self._room is not None:
            self._hold(data)
            return
        if self._head is None and not self._queue and self._failure is None:
            known = self._listener.heads.match(data)
            if known is not None and self._shortcut(*known):
                return
        self._feed(data)

    def _shortcut(self, head: Head, body: bytes) -> bool:
        """Serve a request whose head needs no parsing. False if the gate has an objection, for the parser to repeat."""
        listener = self._listener
        application = listener.application
        if not head.cleared:
            try:
                application.check(head)
            except Refused:
                return False
            head.cleared = application.lasting
        if len(body) > listener.limits.message_bytes:
            return False
        self._keep = True
        self.answering = True
        self.deadline = 0.0
        application.handle(head, body, self)
        return True

    def pause_writing(self) -> None:
        self._room = self._listener.loop.create_future()
        self.deadline = self._listener.now() + self._listener.timeouts.write_stall

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None
        if self.answering:
            self.deadline = 0.0
        elif not self.closing:
            self._wait()

    # Reading

    def _hold(self, data: bytes) -> None:
        """Bytes that came while a response is due: keep a few, to see the peer leave, then read no more."""
        self._paused += data
        if self._reading and len(self._paused) >= _AHEAD:
            self._reading = False
            self.transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        self._fresh = False
        self._chunk = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._failure = BadRequest("Upgrade is not offered")
        except httptools.HttpParserCallbackError:
            self._failure = self._failure or BadRequest("Malformed HTTP request")
        except httptools.HttpParserError:
            self._failure = BadRequest("Malformed HTTP request")
        if self._failure is None and self._head is not None and self._head_bytes >= 0 and not self._fresh:
            # The parser keeps an unfinished head: at most the limit and the chunk in which it began.
            self._head_raw += len(data)
            if self._head_raw > self._listener.limits.header_bytes:
                self._failure = BadRequest("Header too large", status=431, hint="Limits.header_bytes")
        self._next()

    # llhttp callbacks

    def _objection(self, refusal: Refused) -> Refused:
        """Remember why parsing ends; the parser passes on no more than that it did."""
        self._failure = refusal
        return refusal

    def on_message_begin(self) -> None:
        if len(self._queue) >= self._listener.limits.in_flight:
            raise self._objection(Overloaded("Too many requests sent ahead", hint="Limits.in_flight"))
        self._head = Head()
        self._head_bytes = self._head_raw = 0
        self._fresh = True
        self._body = b""
        self._chunks = None
        self._size = 0
        self.deadline = self._listener.now() + self._listener.timeouts.head

    def on_url(self, url: bytes) -> None:
        head = self._head
        if head is not None:
            head.path += url
            self._head_bytes += len(url)
            if self._head_bytes > self._listener.limits.header_bytes:
                raise self._objection(BadRequest("Header too large", status=431, hint="Limits.header_bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        head = self._head
        if head is None or self._head_bytes < 0:
            raise self._objection(BadRequest("Trailer fields are not served"))
        self._head_bytes += len(name) + len(value) + 4
        limits = self._listener.limits
        if len(head.fields) >= limits.header_count or self._head_bytes > limits.header_bytes:
            raise self._objection(
                BadRequest("Header too large", status=431, hint="Limits.header_count, Limits.header_bytes")
            )
        head.add(name, value)

    def on_headers_complete(self) -> None:
        head = self._head
        if head is None:
            return
        listener = self._listener
        parser = self._parser
        self._head_bytes = -1
        head.method = parser.get_method()
        head.path, _, head.query = head.path.partition(b"?")
        if head.path.startswith(b"http://"):
            # RFC 9112 section 3.2.2: the authority of an absolute target counts, whatever Host says.
            head.fields[b"host"], slash, path = head.path[7:].partition(b"/")
            head.path = slash + path
        if head.repeated is not None:
            raise self._objection(BadRequest(f"Repeated header field {head.repeated.decode('latin-1')}"))
        if parser.get_http_version() not in ("1.1", "1.0"):
            raise self._objection(BadRequest("HTTP version not served"))
        if parser.should_upgrade():
            raise self._objection(BadRequest("Upgrade is not offered"))
        length = head.fields.get(b"content-length")
        if length is not None and int(length) > listener.limits.message_bytes:
            raise self._objection(BadRequest("Message too large", status=413, hint="Limits.message_bytes"))
        try:
            listener.application.check(head)
        except Refused as refusal:
            raise self._objection(refusal) from None
        self.deadline = listener.now() + listener.timeouts.body
        expect = head.fields.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise self._objection(BadRequest("Expectation failed", status=417))
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._listener.limits.message_bytes:
            raise self._objection(BadRequest("Message too large", status=413, hint="Limits.message_bytes"))
        if not self._body:
            self._body = body
        elif self._chunks is None:
            self._chunks = bytearray(self._body) + body
        else:
            self._chunks += body

    def on_message_complete(self) -> None:
        head = self._head
        if head is None:
            return
        body = self._body if self._chunks is None else bytes(self._chunks)
        if self._fresh and not self._queue:
            self._listener.heads.learn(self._chunk, head)
        keep = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self._queue.append((head, body, keep))
        self._head = None
        self._body = b""
        self._chunks = None

    # Answering

    def _next(self) -> None:
        """Serve what is complete, in order; after the last, answer what broke."""
        while self._queue and not self.answering and not self.closing and self._room is None:
            head, body, self._keep = self._queue.popleft()
            self.answering = True
            self.deadline = 0.0
            self._listener.application.handle(head, body, self)
        if self._failure is not None and not self.answering and not self._queue:
            self._refuse(self._failure)

    def respond(self, status: int, body: bytes, fields: bytes = b"") -> None:
        if self.closing or not self.answering:
            return
        keep = self._keep and not self._listener.closing
        if status == 200 and keep and not fields:
            self.transport.write(_JSON_OK % (len(body), body))
        else:
            self._write(status, body, fields, keep)
        self._done(keep)

    def _write(self, status: int, body: bytes, fields: bytes, keep: bool) -> None:
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%b%b%bcontent-length: %d\r\n%b\r\n%b"
            % (
                status,
                reason(status),
                b"content-type: application/json\r\n" if body else b"",
                SECURITY_FIELDS,
                fields,
                len(body),
                b"" if keep else b"connection: close\r\n",
                body,
            )
        )

    def start_stream(self, fields: bytes = b"") -> None:
        if self.closing or not self.answering:
            return
        self._streaming = True
        # What is not kept open ends with its connection: HTTP/1.0 knows no chunks.
        self.transport.write(b"%b%b%b\r\n" % (_STREAM, fields, _CHUNKED if self._keep else _CLOSE))
        self._listener.streams.add(self)

    def send_event(self, event: bytes) -> None:
        if self.closing or not self._streaming:
            return
        transport = self.transport
        transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._keep else event)
        if self._room is not None and transport.get_write_buffer_size() > self._listener.limits.outbound_bytes + len(
            event
        ):
            log.warning("slow reader put out: %s (Limits.outbound_bytes)", transport.get_extra_info("peername"))
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
        if self._room is None:
            self._wait()

    def _wait(self) -> None:
        """Nothing is due: wait for the next request, or go on with what came already."""
        listener = self._listener
        self.deadline = listener.now() + (listener.timeouts.idle if self._head is None else listener.timeouts.body)
        if self._queue or self._failure is not None or self._paused or not self._reading:
            listener.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Serve what waited while the last response was due, then read again."""
        if self.closing or self.answering:
            return
        self._next()
        if self._busy:
            return
        data, self._paused = self._paused, b""
        if data:
            self._feed(data)
        if not self._reading and not self._busy:
            self._reading = True
            self.transport.resume_reading()

    @property
    def _busy(self) -> bool:
        """True while nothing more should be taken."""
        return self.closing or self.answering or self._room is not None

    # Ending

    def _refuse(self, error: Refused) -> None:
        """Answer a request that goes no further, and close."""
        if self.closing:
            return
        status, body, fields = self._listener.application.refusal(error)
        if self._head is not None and self._head.method == b"HEAD":
            body = b""
        self._write(status, body, fields, keep=False)
        self.closing = True
        self.deadline = self._listener.now() + _LINGER
        if not self._reading:
            self.transport.resume_reading()
        # A close with unread bytes would reset the connection before the peer has read the answer.
        self.transport.write_eof()

    def _close(self) -> None:
        self.closing = True
        self.deadline = self._listener.now() + self._listener.timeouts.write_stall
        self.transport.close()

    def leave(self) -> None:
        """End a connection on which nothing is due, once its last response is out."""
        if not self.closing:
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
        if self._head is not None and not self.closing and not self.answering:
            self._refuse(BadRequest("Request not complete in time", status=408, hint="Timeouts.head, Timeouts.body"))
        else:
            self.abort()


def _bound(host: str, port: int) -> socket.socket | None:
    """A socket for an address; None for a name, which the loop looks up. An address needs no codec for names."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        # The protocol is named, because asyncio sets TCP_NODELAY only where it is; events would wait for 40 ms each.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        return sock
    return None


class HttpListener:
    """A listening socket and its connections.

    Args:
        application: makes what is served, when the port is known.
        limits, timeouts: what is allowed.
    """

    application: Application

    def __init__(self, application: Callable[[int], Application], limits: Limits, timeouts: Timeouts) -> None:
        self._make = application
        self.limits = limits
        self.timeouts = timeouts
        self.heads = KnownHeads(limits.header_count, limits.header_bytes)
        self.connections: set[_Connection] = set()
        self.streams: set[_Connection] = set()
        self.closing = False
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet = 0.0

    async def start(self, host: str, port: int) -> int:
        """Bind and listen.

        Returns:
            The port, chosen by the system where `port` is 0.

        Raises:
            OSError: the address cannot be had.
        """
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        sock, make = _bound(host, port), lambda: _Connection(self)
        if sock is None:
            self._server = await self.loop.create_server(make, host, port, backlog=1024, start_serving=False)
        else:
            self._server = await self.loop.create_server(make, sock=sock, backlog=1024, start_serving=False)
        port = self._server.sockets[0].getsockname()[1]
        try:
            self.application = self._make(port)
        except BaseException:
            self._server.close()
            raise
        await self._server.start_serving()
        self._timer = self.loop.call_later(_SWEEP, self._sweep)
        return port

    def _sweep(self) -> None:
        now = self.now()
        for connection in tuple(self.connections):
            if connection.deadline and connection.deadline < now:
                connection.expire()
        if now - self._quiet >= self.timeouts.keep_alive:
            self._quiet = now
            for connection in tuple(self.streams):
                connection.send_event(b":\r\n\r\n")
        self._timer = self.loop.call_later(_SWEEP, self._sweep)

    def stop(self) -> None:
        """Stop listening; responses under way go on, and their connections are not kept."""
        self.closing = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            if not connection.answering:
                connection.leave()

    async def close(self, grace: float) -> None:
        """Let responses end for at most `grace` seconds, then close what is left."""
        self.stop()
        end = self.now() + grace
        while self.connections and self.now() < end:
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
