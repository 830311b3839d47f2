"""Server-sent events: the events are those of a plain reading of the standard, however the bytes are cut; what the
encoder writes is read back as that one event and no other."""

from __future__ import annotations

import re

from fuzz.oracle import agree, choppings, hold, parts
from garrison.errors import MessageTooLarge
from garrison.protocol.sse import COMMENT, SseEvent, SseParser, encode_event

SEEDS = (
    b"data: one\n\ndata: two\r\n\r\ndata: three\r\rdata\n\n",
    b"\xef\xbb\xbfid: 1\nevent: e\nretry: 15\ndata: {}\n: comment\n\n",
    b"id: a\0b\nid: 7\n\nid\ndata:x\ndata:  y\n\n",
    b"data: 0123456789012345678901234567890123456789\n\ndata: after\n\n",
    b"event\r\ndata: \xff\r\n\r\n",
)
WORDS = (
    b"data",
    b"data: ",
    b"id: ",
    b"event: ",
    b"retry: ",
    b":",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\0",
)
LIMIT = 32

State = tuple[list[SseEvent], str, int | None]


def reference(data: bytes) -> State:
    """The standard's algorithm over the whole stream, with no limit. An id without data counts as an event too."""
    lines = re.split(b"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events: list[SseEvent] = []
    held: list[bytes] = []
    kind, last, retry = "", "", None
    identifier: str | None = None
    for line in lines:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            last = last if identifier is None else identifier
            if held or identifier is not None:
                events.append(SseEvent(b"\n".join(held), kind or "message", identifier))
            held, kind, identifier = [], "", None
        elif name == b"data":
            held.append(value)
        elif name == b"event":
            kind = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            identifier = value.decode(errors="replace")
        elif name == b"retry" and re.fullmatch(rb"[0-9]{1,9}", value):
            retry = int(value)
    return events, last, retry


def read(chunks: list[bytes], limit: int) -> tuple[State, bool]:
    """What the parser says, and whether it gave up."""
    parser = SseParser(limit)
    events: list[SseEvent] = []
    try:
        for chunk in [*chunks, b""]:
            events += parser.feed(chunk)
            hold(len(parser._line) <= limit + 6, "more is kept than the limit")
    except MessageTooLarge:
        return (events, parser.last_event_id, parser.retry), True
    return (events, parser.last_event_id, parser.retry), False


def check(data: bytes) -> None:
    whole = reference(data)
    agree("events", read([data], 1 << 20), (whole, False))
    small = read([data], LIMIT)
    (events, _, _), gave_up = small
    hold(all(len(event.data) <= LIMIT for event in events), "an event over the limit")
    agree("events before the limit", events, whole[0][: len(events)])
    if not gave_up:
        agree("within the limit", small[0], whole)
    for chunks in choppings(data):
        agree("cut", read(chunks, LIMIT), small)
    encoder(data)


def encoder(data: bytes) -> None:
    """Whatever is encoded comes back as it was, or is refused for what would break the stream."""
    first, second, body = parts(data, 3)
    identifier, kind = (part.decode("utf-8", "surrogateescape") for part in (first, second))
    bad = any(b in body + first + second for b in (b"\r", b"\n")) or "\0" in identifier or not _utf8(first, second)
    try:
        encoded = encode_event(body, id=identifier, event=kind, retry=len(data))
    except ValueError:
        hold(bad, "refused", body, identifier, kind)
        return
    hold(not bad, "encoded", encoded)
    expected = SseEvent(body, kind or "message", identifier)
    between = [SseEvent(b"a"), expected, SseEvent(b"b")]
    stream = encode_event(b"a") + COMMENT + encoded + encode_event(b"b")
    agree("back", read([stream], 1 << 20), ((between, identifier, len(data)), False))


def _utf8(*texts: bytes) -> bool:
    try:
        b"".join(texts).decode()
        return all(text.decode() is not None for text in texts)
    except UnicodeDecodeError:
        return False
