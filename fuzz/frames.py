"""A second reading of WebSocket frames: of all bytes at once, and by the `websockets` library. RFC 6455 section 5."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass, field

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

__all__ = ["Reading", "frame", "read", "witness"]

_CLOSE_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


@dataclass
class Reading:
    """What the bytes say."""

    messages: list[bytes] = field(default_factory=list)
    wrong: set[int] = field(default_factory=set)
    """Codes that may be given for what is wrong; empty: nothing is."""
    closed: bytes | None = None
    """Payload of the close frame that ended the reading."""
    lax: bool = False
    """What is wrong is nothing that the library minds."""


def frame(first: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """The bytes of a frame, in its shortest form."""
    flag, size = (0 if mask is None else 0x80), len(payload)
    head = bytes((first, flag | size)) if size < 126 else bytes((first, flag | 126)) + size.to_bytes(2, "big")
    return head + (payload if mask is None else mask + _masked(payload, mask))


def _masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def read(
    data: bytes, *, masked: bool, most: int, fragments: int, compression: bool = False, lax: bool = False
) -> Reading:
    """Read all frames.

    Args:
        masked: frames have to be masked; else they must not be.
        most, fragments: bytes and frames of a message.
        compression: RFC 7692 was agreed to, without context.
        lax: a length need not be in its shortest form.
    """
    said = Reading()
    held, count, deflated = b"", 0, False
    position = 0

    def wrong(*codes: int, lax: bool = False) -> Reading:
        said.wrong, said.lax = set(codes), lax
        return said

    while len(data) - position >= 2:
        first, second = data[position], data[position + 1]
        opcode, final, length = first & 15, first >= 0x80, second & 0x7F
        codes: set[int] = set()
        reserved = first & 0x70
        if compression and opcode == 1:
            reserved &= ~0x40
        if opcode not in (0, 1, 2, 8, 9, 10) or reserved or (second >= 0x80) != masked:
            codes.add(1002)
        if opcode >= 8 and (not final or (length > 125 and not lax)):
            codes.add(1002)
        if (opcode in (1, 2) and count) or (opcode == 0 and not count):
            codes.add(1002)
        if opcode == 2:
            codes.add(1003)
        if codes:
            return wrong(*codes, lax=codes == {1003})
        extended = {126: 2, 127: 8}.get(length, 0)
        start = position + 2 + extended + (4 if masked else 0)
        # A size is looked at as soon as it is there; this side may also wait for the key that follows it.
        if len(data) < position + 2 + extended:
            return said
        if extended:
            length = int.from_bytes(data[position + 2 : position + 2 + extended], "big")
            short = length < {2: 126, 8: 65536}[extended]
            if short and not lax:
                return said if len(data) < start else wrong(1002, lax=True)
        if opcode >= 8 and length > 125:
            return wrong(1002, 1009)
        if opcode < 8 and length > most - len(held):
            return said if len(data) < start and extended else wrong(1009, 1002)
        if len(data) < start + length:
            return said
        payload = data[start : start + length]
        if masked:
            payload = _masked(payload, data[start - 4 : start])
        position = start + length
        if opcode == 8:
            code = int.from_bytes(payload[:2], "big")
            if payload and (len(payload) == 1 or code not in _CLOSE_CODES):
                return wrong(1002)
            if not _utf8(payload[2:]):
                return wrong(1002, 1007)
            said.closed = payload
            return said
        if opcode > 8:
            continue
        deflated = bool(first & 0x40) if opcode == 1 else deflated
        held, count = held + payload, count + 1
        if count > fragments:
            return wrong(1008, lax=True)
        message = held
        if deflated:
            try:
                message = _inflated(held, most + 1, whole=final)
            except zlib.error:
                return wrong(1007)
            if len(message) > most:
                return wrong(1009)
        if final:
            if not _utf8(message):
                return wrong(1007, lax=True)
            said.messages.append(message)
            held, count, deflated = b"", 0, False
    return said


def _utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _inflated(data: bytes, most: int, *, whole: bool) -> bytes:
    inflater = zlib.decompressobj(wbits=-15)
    text = inflater.decompress(data, most)
    if whole and not inflater.eof and len(text) < most:
        text += inflater.decompress(b"\0\0\xff\xff", most - len(text))
    if inflater.unused_data not in (b"", b"\0"):
        raise zlib.error
    return text


def witness(data: bytes, *, server: bool, most: int) -> tuple[list[bytes], int | None]:
    """The messages, text or binary, by the library, and the code with which it fails the connection, if it does."""
    protocol = (
        ServerProtocol(state=State.OPEN, max_size=most)
        if server
        else ClientProtocol(WebSocketURI(False, "h", 80, "/", ""), state=State.OPEN, max_size=most)
    )
    messages: list[bytes] = []
    held = b""
    with suppress(ConnectionClosed):
        protocol.receive_data(data)
    for event in protocol.events_received():
        if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
            held += event.data
            if event.fin:
                messages.append(held)
                held = b""
    if protocol.parser_exc is None:
        return messages, None
    return messages, None if protocol.close_sent is None else protocol.close_sent.code
