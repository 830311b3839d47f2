"""The HTTP edge on a stage, without sockets or time: one connection, a transport, and an application that records.

Rules of this file:
- The connection is the live one (`transports.http.connection`); only what it stands on is replaced.
- What the application answers follows from the request alone: at once, at the next turn of the loop, or as a stream.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from fuzz.oracle import hold
from garrison.errors import BadRequest, OriginRefused, Refused
from garrison.policy import Limits, Timeouts
from garrison.transports.flood import Floods
from garrison.transports.http.connection import HttpConnection
from garrison.transports.http.edge import HttpListener
from garrison.transports.http.exchange import Exchange, Head
from garrison.transports.peer import Peer

__all__ = ["CONTINUE", "LIMITS", "Loop", "Recorder", "Transport", "listener", "talk"]

LIMITS = Limits(
    header_bytes=600,
    header_count=8,
    message_bytes=200,
    in_flight=5000,
    message_rate=100_000,
    message_burst=100_000,
    malformed_per_minute=100_000,
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TIMEOUTS = Timeouts()
_PEER = Peer("192.0.2.1")

Request = tuple[bytes, bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]


class Handle:
    """What `call_later` gives."""

    def __init__(self, at: float, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.at, self.call, self.arguments = at, call, arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Turns; time passes only when nothing is ready."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.Future(loop=cast("asyncio.AbstractEventLoop", self))

    def get_debug(self) -> bool:
        return False

    def call_soon(self, call: Callable[..., object], *arguments: object, context: object = None) -> None:
        self._ready.append((call, arguments))

    def call_later(self, delay: float, call: Callable[..., object], *arguments: object) -> Handle:
        timer = Handle(self.now + delay, call, arguments)
        self._timers.append(timer)
        return timer

    def call_at(self, at: float, call: Callable[..., object], *arguments: object) -> Handle:
        return self.call_later(at - self.now, call, *arguments)

    def turn(self, *, wait: bool = False) -> None:
        """Run all that is ready, and what that makes ready; with `wait`, also what time makes ready."""
        for _ in range(100_000):
            if self._ready:
                call, arguments = self._ready.popleft()
                call(*arguments)
                continue
            self._timers = [timer for timer in self._timers if not timer.cancelled]
            if not (wait and self._timers):
                return
            timer = min(self._timers, key=lambda timer: timer.at)
            self._timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.call(*timer.arguments)
        hold(False, "the loop does not come to rest")


class Transport:
    """Takes what is written and knows how the connection ended."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = b""
        self.ended = False
        self.reading = True

    def write(self, data: bytes) -> None:
        hold(not self.ended, "written after the end", data)
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.ended

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None


class Other(asyncio.Protocol):
    """What goes on after an upgrade: takes every byte."""

    deadline = 0.0

    def __init__(self, record: Recorder) -> None:
        self._record = record

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._record.switched = b""

    def data_received(self, data: bytes) -> None:
        self._record.switched = (self._record.switched or b"") + data

    def expire(self) -> None: ...
    def leave(self) -> None: ...
    def abort(self) -> None: ...


class Recorder:
    """The application: what it was asked, in order, and what was refused."""

    lasting = True

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.requests: list[Request] = []
        self.refused: int | None = None
        self.switched: bytes | None = None

    def clear(self) -> None:
        self.requests, self.refused, self.switched = [], None, None

    def check(self, head: Head) -> None:
        if b"x-no" in head.fields:
            raise OriginRefused("No")

    def _took(self, head: Head, body: bytes) -> bytes:
        hold(self.refused is None, "served after a refusal", head.path)
        hold(self.switched is None, "served after an upgrade", head.path)
        hold(len(head.fields) <= LIMITS.header_count and len(body) <= LIMITS.message_bytes, "limits")
        hold(b"x-no" not in head.fields, "served, but the gate said no")
        request = (head.method, head.path, head.query, tuple(sorted(head.fields.items())), body)
        self.requests.append(request)
        return b'{"of":%d}' % zlib.crc32(repr(request).encode())

    def handle(self, head: Head, body: bytes, exchange: Exchange) -> None:
        answer = self._took(head, body)
        if head.path == b"/later":
            self._loop.call_soon(exchange.respond, 202, answer)
        elif head.path == b"/stream":
            exchange.start_stream(b"x-stream: 1\r\n")
            exchange.send_event(answer)
            self._loop.call_soon(exchange.end_stream)
        else:
            exchange.respond(200, answer)

    def refusal(self, error: Refused) -> tuple[int, bytes, bytes]:
        hold(self.refused is None, "two refusals")
        self.refused = error.status
        return error.status, b"{}", b""

    def upgrade(self, head: Head) -> tuple[bytes, Any] | None:
        if head.path == b"/none":
            return None
        if head.path != b"/ws":
            raise BadRequest("No such handshake")
        self._took(head, b"")
        return b"upgrade: websocket\r\n", lambda listener, place: Other(self)


Result = tuple[list[Request], int | None, bytes | None, bytes, bool]


def listener(*, heads: bool = True, burst: int = 100_000) -> HttpListener:
    """A listener that never listened.

    Args:
        heads: without, every head is parsed.
        burst: requests after which reading pauses.
    """
    loop: Any = Loop()
    limits = replace(LIMITS, message_burst=burst)
    made = HttpListener(lambda port: Recorder(loop), limits, _TIMEOUTS, Floods(limits))
    made.loop, made.now = loop, loop.time
    made.application = Recorder(loop)
    if not heads:
        nothing: Any = type("NoHeads", (), {"match": lambda self, data: None, "learn": lambda self, data, head: None})
        made.heads = nothing()
    return made


def talk(here: HttpListener, chunks: list[bytes], *, turns: bool = True) -> Result:
    """One connection: what was asked, refused and taken over, what was written, and whether it ended.

    Args:
        turns: the loop runs between the chunks; else all of them come in one turn.
    """
    loop: Any = here.loop
    application: Any = here.application
    application.clear()
    loop.now += 1000.0  # the meters are full again
    place = here.floods.join("192.0.2.1", loop.now, lambda: None)
    connection = HttpConnection(here, _PEER, place)
    here.add(connection)
    carrier: Any = Transport(connection)
    connection.connection_made(carrier)
    for chunk in chunks:
        if not carrier.reading:
            loop.turn(wait=True)
        carrier.protocol.data_received(chunk)
        if turns:
            loop.turn()
    loop.turn(wait=True)
    hold(connection.closing or not connection.answering, "never answered")
    hold(carrier.reading or carrier.ended, "reads no more")
    written = carrier.written.replace(CONTINUE, b"")
    connection.connection_lost(None)
    place.leave()
    loop.turn()
    return application.requests, application.refused, application.switched, written, carrier.ended
