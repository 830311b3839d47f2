"""Server-sent events, both directions: an encoder for whole messages and an incremental parser.

Rules of this file:
- Data is bytes from end to end; its reader decides whether it is good JSON. Ids and event types are text.
- The parser follows the HTML standard: lines end with CR, LF or CRLF wherever the chunks are cut, and an event exists
  only once its blank line has arrived.
- One event holds at most `limit` bytes of data. Bytes are counted as they arrive, and none is looked at twice.
- The result does not depend on how the bytes were cut into chunks.

Standard: HTML, section 9.2 "Server-sent events" (WHATWG).
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from ..errors import MessageTooLarge

__all__ = ["COMMENT", "SseEvent", "SseParser", "encode_event"]

COMMENT: Final = b":\r\n\r\n"
"""An empty comment: keeps a quiet stream alive and means nothing."""

_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "
_COLON = ord(":")
_RETRY_DIGITS = 9  # eleven days; what is longer is ignored


class SseEvent(msgspec.Struct, frozen=True):
    """One event.

    `id` is the id that this event carried, or None; an event with an id and no data at all has `data == b""`.
    """

    data: bytes
    event: str = "message"
    id: str | None = None


def encode_event(data: bytes, *, id: str | None = None, event: str | None = None, retry: int | None = None) -> bytes:
    """One event as bytes.

    Args:
        data: one line, such as JSON without line breaks.
        id: what a client sends back as `Last-Event-ID`.
        event: the event type; "message" when not given.
        retry: milliseconds a client waits before it connects again.

    Raises:
        ValueError: a line break in `data`, `id` or `event`, a NUL in `id`, or a negative `retry`.
    """
    if b"\n" in data or b"\r" in data:
        raise ValueError("data of an event must not hold a line break")
    if id is None and event is None and retry is None:
        return b"data: %b\r\n\r\n" % data
    head = b""
    if event is not None:
        head += _field("event", event)
    if id is not None:
        if "\0" in id:
            raise ValueError("the id of an event must not hold NUL")
        head += _field("id", id)
    if retry is not None:
        if retry < 0:
            raise ValueError("retry must not be negative")
        head += b"retry: %d\r\n" % retry
    return b"%bdata: %b\r\n\r\n" % (head, data)


def _field(name: str, value: str) -> bytes:
    if "\n" in value or "\r" in value:
        raise ValueError(f"{name} of an event must not hold a line break")
    return f"{name}: {value}\r\n".encode()


@final
class SseParser:
    """Reads an event stream.

    Args:
        limit: most bytes of data in one event (`Limits.message_bytes`).
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_event",
        "_id",
        "_limit",
        "_line",
        "_size",
        "_started",
        "_too_large",
        "last_event_id",
        "retry",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: bytes | bytearray | None = None
        self._size = 0
        self._event = ""
        self._id: str | None = None
        self._after_cr = False
        self._started = False
        self._too_large = False
        self.last_event_id = ""
        """The last id that a complete event carried; empty when there is none."""
        self.retry: int | None = None
        """Milliseconds to wait before connecting again, when the server said so."""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that this chunk completes, in order.

        Raises:
            MessageTooLarge: an event passed the limit. Events before it are returned first; then this and every
                later call raises.
        """
        events: list[SseEvent] = []
        if not self._too_large:
            self._read(chunk, events)
        if self._too_large and not events:
            raise MessageTooLarge(self._limit)
        return events

    def _read(self, chunk: bytes, events: list[SseEvent]) -> None:
        if not self._started:
            chunk = bytes(self._line) + chunk
            self._line.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._line += chunk
                return
            self._started = True
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if not chunk:
            return
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        self._after_cr = chunk.endswith(b"\r")
        if lines and self._line:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
        for line in lines:
            self._take(line, events)
            if self._too_large:
                return
        if len(self._line) + len(rest) > self._room():
            self._fail()
        else:
            self._line += rest

    def _room(self) -> int:
        return self._limit - self._size + len(_DATA)

    def _fail(self) -> None:
        self._too_large = True
        self._line.clear()
        self._data = None

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            self._dispatch(events)
        elif len(line) > self._room():
            self._fail()
        elif line.startswith(_DATA):
            self._append(line[len(_DATA) :])
        elif line[0] != _COLON:
            name, _, value = line.partition(b":")
            self._field(name, value.removeprefix(b" "))

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry = int(value)

    def _append(self, value: bytes) -> None:
        held = self._data
        size = len(value) if held is None else self._size + 1 + len(value)
        if size > self._limit:
            self._fail()
            return
        self._size = size
        if held is None:
            self._data = value
        else:
            if not isinstance(held, bytearray):
                self._data = held = bytearray(held)
            held += b"\n"
            held += value

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._id is not None:
            self.last_event_id = self._id
        if self._data is not None or self._id is not None:
            events.append(SseEvent(bytes(self._data or b""), self._event or "message", self._id))
        self._data = None
        self._size = 0
        self._event = ""
        self._id = None
