"""WebSocket, the client's side: handshake and frames end the same however the bytes are cut, and the messages are those
of a second reading. An input that does not begin as an answer of HTTP is what follows a good one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fuzz import frames
from fuzz.frames import frame as _frame
from fuzz.oracle import agree, choppings, hold
from fuzz.stage import Loop, Transport
from garrison.errors import ClientError, ConnectionLost
from garrison.policy import Limits, Timeouts
from garrison.transports.http.url import WEBSOCKET, parse_endpoint
from garrison.transports.websocket_client import Handshake, WebSocketConnection

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455, section 1.3, with the answer that belongs to it."""
GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
)
SEEDS = (
    _frame(0x81, b"{}") + _frame(0x89, b"ping") + _frame(0x81, b"[]") + _frame(0x88, b"\x03\xe8bye"),
    _frame(0x01, b"a") + _frame(0x8A, b"") + _frame(0x00, "é".encode()[:1]) + _frame(0x80, "é".encode()[1:]),
    _frame(0x01, b"a") + _frame(0x00, b"") * 5,
    _frame(0x81, b"x" * 131),
    _frame(0x82, b"b"),
    _frame(0x81, b"\xff"),
    b"\x81\x82{}{}{}",
    b"\x81\x7e\x00\x01x",
    b"\x81\x7f\xff" + b"\0" * 7,
    _frame(0x88, b"\x03"),
    _frame(0xC1, b"x"),
    GOOD + _frame(0x81, b"{}"),
    GOOD.replace(b"mcp", b"other"),
    GOOD.replace(b"s3p", b"s4p"),
    GOOD.replace(b"Upgrade: websocket\r\n", b""),
    GOOD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    b"HTTP/1.1 302 Found\r\nLocation: ws://other/\r\n\r\n",
    b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 \r\n" + b"x: y\r\n" * 12 + b"\r\n",
    b"HTTP/1.1 101 x\r\nx: " + b"y" * 600,
    b"HTTP/1.0 101 x\r\n\r\n",
)
WORDS = (
    _frame(0x81, b"a"),
    _frame(0x01, b"a"),
    _frame(0x80, b"b"),
    _frame(0x00, b"b"),
    _frame(0x89, b""),
    _frame(0x88, b"\x03\xe8"),
    GOOD,
    b"\r\n",
    b"HTTP/1.1 101 ",
    b"HTTP/1.1 403 ",
    b"\x7e\x00\x7e",
    b"\x7f\0\0\0\0\0\1\0\0",
    b"\x82",
    b"\xc1",
)
_LIMITS = Limits(
    message_bytes=130, fragments=4, message_rate=100_000, message_burst=100_000, header_bytes=500, header_count=8
)
_TIMEOUTS = Timeouts()
_HANDSHAKE = Handshake(endpoint=parse_endpoint("ws://127.0.0.1:1/mcp", WEBSOCKET), subprotocol="mcp")

Result = tuple[str, list[bytes], bool, bool]


def read(chunks: list[bytes]) -> Result:
    """How the handshake ended, the messages, whether one was too large, and whether the connection was lost by then."""
    loop: Any = Loop()
    messages: list[bytes] = []
    lost: list[ConnectionLost] = []
    large: list[bool] = []
    asyncio._set_running_loop(loop)
    try:
        connection = WebSocketConnection(
            _HANDSHAKE,
            limits=_LIMITS,
            timeouts=_TIMEOUTS,
            on_text=lambda data: (hold(not lost, "a message after the end"), messages.append(data))[1],
            on_too_large=lambda: large.append(True),
            on_lost=lost.append,
        )
        frames_of: Any = connection._frames
        frames_of.key = _KEY
        carrier: Any = Transport(connection)
        connection.connection_made(carrier)
        agreeing = connection.agree()
        answer = _step(agreeing)
        for chunk in chunks:
            if carrier.ended:
                break
            connection.data_received(chunk)
        early = bool(lost)
        connection.connection_lost(None)
        if answer == "waits":
            answer = _step(agreeing)
        hold(answer != "waits", "the handshake never ends")
        hold(len(lost) == (answer == "agreed") and len(large) <= 1, "told", lost, large)
        loop.turn()
    finally:
        asyncio._set_running_loop(None)
    return answer, messages, bool(large), early


def _step(call: Coroutine[Any, Any, None]) -> str:
    """Go on with a call as far as it goes."""
    try:
        call.send(None)
    except StopIteration:
        return "agreed"
    except ClientError as error:
        return type(error).__name__
    return "waits"


def check(data: bytes) -> None:
    stream = data if data.startswith(b"HTTP") else GOOD + data
    whole = answer, messages, large, lost = read([stream])
    if stream.startswith(GOOD):
        agree("the handshake", answer, "agreed")
        expected = frames.read(stream[len(GOOD) :], masked=False, most=130, fragments=4, lax=True)
        agree("messages", messages, expected.messages[: len(messages)] if large else expected.messages)
        # The library may wait for the rest of a wrong frame, and counts control frames to the message they interrupt.
        if not large and not expected.wrong & {1002, 1003, 1009}:
            agree("lost", lost, bool(expected.wrong) or expected.closed is not None)
    for chunks in choppings(stream, count=3, bytewise=300):
        agree(f"cut {chunks}", read(chunks), whole)
