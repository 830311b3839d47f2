"""Event streams of legacy sessions that a client may leave and come back to.

Rules of this file:
- Every event has an id that names its stream and its place; an id belongs to one session and means nothing in another.
- A session keeps a bounded number of events and bytes, the newest ones. What was dropped cannot be replayed.
- A stream is written to by one connection at a time.

Spec: 2025-11-25 basic/transports "Resumability and Redelivery".
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final

from ..protocol.sse import encode_event

if TYPE_CHECKING:
    from ..transports.http.exchange import Exchange

__all__ = ["Stream", "Streams"]

_RETRY_MS: Final = 250
_EVENT_ID: Final = re.compile(r"([0-9a-f]{1,12})-([0-9a-f]{1,12})")


class Stream:
    """One stream: the response to a POST, or the session's own."""

    __slots__ = ("_streams", "done", "exchange", "kept", "next", "number")

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self.number = number
        self.next = 0
        self.kept = 0
        """How many of its events can be replayed."""
        self.exchange: Exchange | None = None
        self.done = False

    def attach(self, exchange: Exchange, *, prime: bool) -> None:
        """Send on this connection from now on. `prime` gives the client an id to come back with."""
        self.exchange = exchange
        exchange.on_gone = self.detach
        if prime:
            self.send(b"")

    def detach(self) -> None:
        """The connection is gone; what comes is kept for the client's return."""
        self.exchange = None

    def send(self, message: bytes) -> None:
        """Send one message, or keep it."""
        place = self.next
        self.next += 1
        event = encode_event(message, id=f"{self.number:x}-{place:x}")
        self._streams.keep(self, place, event)
        if self.exchange is not None:
            self.exchange.send_event(event)

    def finish(self) -> None:
        """The stream has said everything."""
        self.done = True
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.on_gone = None
            exchange.end_stream()
        self._streams.forget(self)

    def leave(self) -> None:
        """End the connection but not the stream, and tell the client when to come back."""
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.on_gone = None
            place = self.next
            self.next += 1
            event = encode_event(b"", id=f"{self.number:x}-{place:x}", retry=_RETRY_MS)
            self._streams.keep(self, place, event)
            exchange.send_event(event)
            exchange.end_stream()


class Streams:
    """The streams of one session.

    Args:
        events, size: how many events, and bytes of events, are kept.
    """

    def __init__(self, events: int, size: int) -> None:
        self._most_events = events
        self._most_bytes = size
        self._bytes = 0
        self._log: deque[tuple[int, int, bytes]] = deque()
        self._streams: dict[int, Stream] = {}
        self._numbers = 0
        self.general = self.new()
        """The session's own stream, opened by GET."""

    def new(self) -> Stream:
        """A stream for the response to a POST."""
        stream = Stream(self, self._numbers)
        self._streams[self._numbers] = stream
        self._numbers += 1
        return stream

    def keep(self, stream: Stream, place: int, event: bytes) -> None:
        """Keep an event for replay, and drop the oldest beyond the bounds."""
        stream.kept += 1
        self._log.append((stream.number, place, event))
        self._bytes += len(event)
        while len(self._log) > self._most_events or self._bytes > self._most_bytes:
            old, _, dropped = self._log.popleft()
            self._bytes -= len(dropped)
            owner = self._streams[old]
            owner.kept -= 1
            self.forget(owner)

    def forget(self, stream: Stream) -> None:
        """Drop a stream that is over and of which nothing is kept."""
        if stream.done and not stream.kept:
            self._streams.pop(stream.number, None)

    def resume(self, last_event_id: str, exchange: Exchange) -> bool:
        """Send what came after this event, and attach the connection to its stream. False if the id names none."""
        found = _EVENT_ID.fullmatch(last_event_id)
        stream = self._streams.get(int(found[1], 16)) if found is not None else None
        if found is None or stream is None or (after := int(found[2], 16)) >= stream.next:
            return False
        stream.leave()  # a client that comes back may be here before its old connection is known to be gone
        kept = [seen for owner, seen, _ in self._log if owner == stream.number and seen > after]
        if len(kept) < stream.next - after - 1:
            return False  # what came next was dropped: a replay with a gap would look whole
        exchange.start_stream()
        for owner, seen, event in tuple(self._log):
            if owner == stream.number and seen > after:
                exchange.send_event(event)
        if stream.done:
            exchange.end_stream()
        else:
            stream.attach(exchange, prime=False)
        return True

    def close(self) -> None:
        """End all connections."""
        for stream in tuple(self._streams.values()):
            stream.finish()
