"""WebSocket, the server's side: the same messages and the same end however the bytes are cut, as a second reading and
the `websockets` library have them; with compression as well."""

from __future__ import annotations

import zlib
from typing import Any

from fuzz import frames
from fuzz.oracle import agree, choppings, hold
from fuzz.stage import Transport, listener
from garrison.policy import Limits
from garrison.transports.websocket import WebSocketShell

LIMITS = Limits(message_bytes=130, fragments=4, message_rate=100_000, message_burst=100_000)
_KEY = b"\1\2\3\4"


def _frame(first: int, payload: bytes) -> bytes:
    return frames.frame(first, payload, _KEY)


def _deflated(text: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


SEEDS = (
    _frame(0x81, b"{}")
    + _frame(0x89, b"ping")
    + _frame(0x81, b"[]")
    + _frame(0x88, b"\x03\xe8bye")
    + _frame(0x81, b"x"),
    _frame(0x01, b"a") + _frame(0x89, b"") + _frame(0x00, "é".encode()[:1]) + _frame(0x80, "é".encode()[1:]),
    *(_frame(0x01, b"a") + _frame(0x00, b"") * count + _frame(0x80, b"b") for count in (2, 3, 4)),
    _frame(0x81, b"x" * 130) + _frame(0x01, b"x" * 126) + _frame(0x80, b"x" * 5),
    _frame(0x82, b"binary"),
    _frame(0x81, b"\xff"),
    _frame(0x88, b"\x03"),
    _frame(0x88, b"\x03\xed"),
    _frame(0x88, b""),
    b"\x81\x02{}",
    b"\x81\xfe\x00\x05\1\2\3\4xxxxx",
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\2\3\4",
    _frame(0x83, b""),
    _frame(0xC1, _deflated(b"hello hello hello")) + _frame(0xC1, _deflated(b"\0" * 60_000)),
    _frame(0x41, _deflated(b"hello")[:3]) + _frame(0x80, _deflated(b"hello")[3:]),
    _frame(0xC1, b"\xff\xff"),
    _frame(0x80, b"x"),
    _frame(0x01, b"x") + _frame(0x81, b"x"),
    _frame(0x09, b""),
    _frame(0x8A, b"y"),
)
WORDS = (
    _frame(0x81, b"a"),
    _frame(0x01, b"a"),
    _frame(0x80, b"b"),
    _frame(0x00, b"b"),
    _frame(0x89, b""),
    _frame(0x88, b"\x03\xe8"),
    b"\xfe\x00\x7e",
    b"\xff\0\0\0\0\0\1\0\0",
    b"\0\0\0\0",
    b"\x80",
    b"\xc1",
    b"\x41",
    b"\x82",
    b"\xbf",
    b"\xc0",
    _KEY,
)

_LISTENER = listener()
Result = tuple[list[bytes], int | None, bool]


class Conversation:
    """Takes messages and answers each."""

    wants_loop = saturated = busy = False

    def __init__(self, shell: WebSocketShell) -> None:
        self._shell = shell
        self.messages: list[bytes] = []
        self.ends = 0

    def receive(self, data: bytes) -> None:
        hold(not self.ends, "a message after the end")
        self.messages.append(data)
        self._shell.send(data)

    def too_long(self) -> None: ...
    def relieved(self) -> None: ...
    async def finish(self, grace: float) -> None: ...

    def close(self) -> None:
        self.ends += 1


def talk(chunks: list[bytes], *, compression: bool) -> Result:
    """The messages that were passed on, the code of the close frame that was sent, and whether the connection ended."""
    loop: Any = _LISTENER.loop
    loop.now += 1000.0
    place = _LISTENER.floods.join("192.0.2.1", loop.now, lambda: None)
    made: list[Conversation] = []

    def connect(shell: WebSocketShell) -> Conversation:
        made.append(Conversation(shell))
        return made[0]

    shell = WebSocketShell(_LISTENER, place, connect, limits=LIMITS, compression=compression)
    _LISTENER.add(shell)
    carrier: Any = Transport(shell)
    shell.connection_made(carrier)
    for chunk in chunks:
        if carrier.ended:
            break
        if not carrier.reading:
            loop.turn(wait=True)
        shell.data_received(chunk)
    loop.turn(wait=True)
    hold(carrier.ended == shell.closing, "the transport is open after the end, or the other way round")
    shell.connection_lost(None)
    loop.turn()
    hold(made[0].ends == 1, "ended", made[0].ends)
    return made[0].messages, written(carrier.written, made[0].messages, compression=compression), carrier.ended


def written(data: bytes, messages: list[bytes], *, compression: bool) -> int | None:
    """Look at what the server wrote: an answer to each message, pongs, at most one close frame. The code of that."""
    said = frames.read(data, masked=False, most=1000, fragments=1, compression=compression)
    hold(not said.wrong, "wrong frames were written", data)
    agree("answers", said.messages, messages)
    if said.closed is None:
        return None
    return int.from_bytes(said.closed[:2], "big") if said.closed else 1005


def check(data: bytes) -> None:
    for compression in (False, True):
        expected = frames.read(data, masked=True, most=130, fragments=4, compression=compression)
        whole = messages, code, ended = talk([data], compression=compression)
        agree("messages", messages, expected.messages)
        if expected.closed is not None:
            agree("close", code, int.from_bytes(expected.closed[:2], "big") if expected.closed else 1005)
        elif expected.wrong:
            hold(code in expected.wrong, "code", code, "not in", expected.wrong)
        else:
            hold(code is None and not ended, "ended with", code)
        for chunks in choppings(data, count=2, bytewise=80):
            agree(f"cut {chunks}", talk(chunks, compression=compression), whole)
        if not compression:
            said, failed = frames.witness(data, server=True, most=130)
            agree("the library's messages", said[: len(messages)], messages)
            if expected.wrong and not expected.lax:  # it may still wait for the rest of the frame
                agree("the library passes on no more", len(said), len(messages))
            # It minds a close frame within a message, and counts control frames to the message that they interrupt.
            elif not expected.wrong and expected.closed is None and failed != 1009:
                agree("the library", (said, failed), (messages, None))
