"""What a server does with the frames of a WebSocket client: those that are right, and those that are not."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison import Limits, Timeouts
from garrison.errors import BadRequest
from garrison.policy.transports import WebSocketConfig
from garrison.transports.flood import Floods
from garrison.transports.http.exchange import Head
from garrison.transports.websocket import WebSocketShell, accept
from tests.support.edge import Counting
from tests.support.mcp import call
from tests.support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAST,
    FIN,
    HELLO,
    PING,
    PONG,
    RSV1,
    TEXT,
    alive,
    closing,
    fragments,
    frame,
    message,
    websockets,
)

# Handshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    b"host": b"localhost",
    b"upgrade": b"websocket",
    b"connection": b"keep-alive, Upgrade",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": KEY,
    b"sec-websocket-protocol": b"other, mcp",
}


def handshake(config: WebSocketConfig | None = None, method: bytes = b"GET", **changes: bytes | None) -> bytes:
    head = Head()
    head.method = method
    fields = HANDSHAKE | {name.replace("_", "-").encode(): value for name, value in changes.items()}
    for name, value in fields.items():
        if value is not None:
            head.add(name, value)
    return accept(head, config or WebSocketConfig())


def test_the_answer_to_a_handshake_is_that_of_the_rfc() -> None:
    lines = handshake().split(b"\r\n")
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert b"sec-websocket-protocol: mcp" in lines
    assert b"upgrade: websocket" in lines
    assert b"connection: Upgrade" in lines
    assert not any(line.startswith(b"sec-websocket-extensions") for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        {"method": b"POST"},
        {"upgrade": None},
        {"upgrade": b"h2c"},
        {"upgrade": b"websocket, websocket"},
        {"connection": None},
        {"connection": b"keep-alive"},
        {"connection": b"not-upgrade"},
        {"sec_websocket_key": None},
        {"sec_websocket_key": b""},
        {"sec_websocket_key": KEY + b", " + KEY},
        {"sec_websocket_key": KEY[:-2]},
        {"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZR=="},  # bits behind the end
        {"sec_websocket_key": b"dGhlIHNhbXBsZSBub25j"},
        {"sec_websocket_key": KEY + b"\n"},
        {"sec_websocket_protocol": None},
        {"sec_websocket_protocol": b"MCP, mcp2"},
        {"content_length": b"5"},
        {"transfer_encoding": b"chunked"},
    ],
    ids=str,
)
def test_a_handshake_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        handshake(**change)
    assert refused.value.status == 400


@pytest.mark.parametrize("version", [None, b"8", b"13, 13", b"14", b"013"])
def test_another_version_is_told_which_one_is_served(version: bytes | None) -> None:
    with pytest.raises(BadRequest) as refused:
        handshake(sec_websocket_version=version)
    assert refused.value.status == 426
    assert b"sec-websocket-version: 13\r\n" in refused.value.reply


@pytest.mark.attack("ATK-070")
def test_offers_of_subprotocols_are_bounded() -> None:
    handshake(sec_websocket_protocol=b", ".join([b"x"] * 15 + [b"mcp"]))
    for offer in (b", ".join([b"x"] * 16 + [b"mcp"]), b"mcp, " + b"x" * 1024, b", ".join([b"x" * 1000] * 50)):
        with pytest.raises(BadRequest):
            handshake(sec_websocket_protocol=offer)


def test_the_subprotocol_is_the_configured_one() -> None:
    config = WebSocketConfig(subprotocol="mcp.test")
    with pytest.raises(BadRequest, match=r"mcp\.test"):
        handshake(config)
    assert b"sec-websocket-protocol: mcp.test\r\n" in handshake(config, sec_websocket_protocol=b"mcp.test")


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (b"permessage-deflate", b""),
        (b"permessage-deflate; client_max_window_bits", b""),
        (b"x-unknown, permessage-deflate; client_max_window_bits=10; client_no_context_takeover", b""),
        (b"permessage-deflate; server_max_window_bits=12", b"; server_max_window_bits=12"),
        (b"permessage-deflate; server_max_window_bits=9, permessage-deflate", b""),
        (b"permessage-deflate; server_max_window_bits=9", None),
        (b"permessage-deflate; server_max_window_bits", None),
        (b"permessage-deflate; server_no_context_takeover=1", None),
        (b"permessage-deflate; client_max_window_bits=16", None),
        (b"permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        (b"permessage-deflate; unknown", None),
        (b"permessage-bzip2", None),
        (b"", None),
    ],
)
def test_compression_is_agreed_to_only_where_it_is_configured(offer: bytes, agreed: bytes | None) -> None:
    assert b"extensions" not in handshake(sec_websocket_extensions=offer)
    answer = handshake(WebSocketConfig(compression=True), sec_websocket_extensions=offer)
    if agreed is None:
        assert b"extensions" not in answer
    else:
        both = b"server_no_context_takeover; client_no_context_takeover"
        assert b"sec-websocket-extensions: permessage-deflate; %b%b\r\n" % (both, agreed) in answer


# Frames


@pytest.mark.parametrize(
    "data",
    [
        frame(HELLO),
        frame(HELLO, mask=b"\xa5\x00\xff\x3c"),
        b"".join(fragments(HELLO, 1, 2, 100)),
        b"".join(fragments(HELLO, HELLO.index(b"\xc3") + 1)),  # within a character
        frame(b"", TEXT, fin=False) + frame(b"", CONTINUATION, fin=False) + frame(HELLO, CONTINUATION),
        frame(b"x" * 125, PING) + frame(HELLO),
        frame(b"", PONG) + frame(HELLO),
        frame(HELLO[:9], fin=False) + frame(b"between", PING) + frame(HELLO[9:], CONTINUATION),
    ],
)
@pytest.mark.attack("ATK-073")
async def test_what_a_client_may_send_is_served(data: bytes) -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(data)
        while (got := await wire.frame()).opcode == PONG:
            pass
        assert got.json["id"] == 7
        await alive(wire)
        assert counting.ran == ["h\N{LATIN SMALL LETTER E WITH ACUTE}llo", "alive"]


BROKEN: dict[str, tuple[int, bytes]] = {
    "not masked": (1002, frame(HELLO, mask=None)),
    "ping not masked": (1002, frame(b"x", PING, mask=None)),
    "close not masked": (1002, frame(b"\x03\xe8", CLOSE, mask=None)),
    "rsv1": (1002, frame(HELLO, bits=0x40)),
    "rsv2": (1002, frame(HELLO, bits=0x20)),
    "rsv3": (1002, frame(HELLO, bits=0x10)),
    "rsv1 on a ping": (1002, frame(b"", PING, bits=0x40)),
    **{f"opcode {opcode}": (1002, frame(HELLO, opcode)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "ping of 126": (1002, frame(b"x" * 126, PING)),
    "pong of 126": (1002, frame(b"x" * 126, PONG)),
    "close of 126": (1002, frame(b"\x03\xe8" + b"x" * 124, CLOSE)),
    "ping of 2**62": (1002, frame(b"", PING, length=b"\x7f" + (1 << 62).to_bytes(8, "big"))),
    "fragmented ping": (1002, frame(b"x", PING, fin=False)),
    "fragmented close": (1002, frame(b"\x03\xe8", CLOSE, fin=False)),
    "length of 2 bytes for 5": (1002, frame(b"hello", length=b"\x7e\x00\x05")),
    "length of 8 bytes for 5": (1002, frame(b"hello", length=b"\x7f" + bytes(7) + b"\x05")),
    "length of 8 bytes for 65535": (1002, frame(b"x" * 65535, length=b"\x7f" + (65535).to_bytes(8, "big"))),
    "continuation of nothing": (1002, frame(HELLO, CONTINUATION)),
    "message within a message": (1002, frame(b"{", fin=False) + frame(HELLO)),
    "close of one byte": (1002, frame(b"\x03", CLOSE)),
    **{f"close with {code}": (1002, closing(code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)},
    "close reason not UTF-8": (1002, closing(1000, b"\xff")),
    "binary": (1003, frame(HELLO, BINARY)),
    "binary begun": (1003, frame(HELLO, BINARY, fin=False)),
    "binary that never comes": (1003, frame(b"", BINARY, length=b"\x7e\xff\xff")),
    "text not UTF-8": (1007, frame(b'{"jsonrpc":"2.0","method":"\xff"}')),
    "text cut within a character": (1007, frame(b"\xe2\x82")),
    "text with a surrogate": (1007, frame(b"\xed\xa0\x80")),
    "text in an overlong form": (1007, frame(b"\xc0\xaf")),
    "fragments not UTF-8": (1007, b"".join(fragments(b"\xe2\x82" + HELLO, 1))),
}


@pytest.mark.attack("ATK-073")
@pytest.mark.parametrize(("code", "data"), BROKEN.values(), ids=BROKEN)
async def test_a_frame_that_breaks_the_rules_ends_the_connection(code: int, data: bytes) -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire, other = await ends.connect(), await ends.connect()
        await wire.send(message(call("echo", {"text": "before"})), data, message(call("echo", {"text": "after"})))
        assert (await wire.answer())["result"]["content"][0]["text"] == "before"
        assert (await wire.closed()).code == code
        assert counting.ran == ["before"]
        await alive(other)


@settings(deadline=None)
@given(st.data())
def test_frames_mean_the_same_however_they_are_cut(data: st.DataObject) -> None:
    """One stream of frames, whole, and cut at any places: the same messages and the same end."""
    parts: list[bytes] = []
    kinds = data.draw(st.lists(st.sampled_from(["text", "cut", "ping", "pong", "long", "broken"]), max_size=8))
    for kind in kinds:
        mask = data.draw(st.binary(min_size=4, max_size=4))
        if kind == "broken":
            parts.append(data.draw(st.sampled_from([data for _, data in BROKEN.values() if len(data) < 1000])))
        elif kind in ("ping", "pong"):
            payload = data.draw(st.binary(max_size=125))
            parts.append(frame(payload, PING if kind == "ping" else PONG, mask=mask))
        elif kind == "long":
            size = data.draw(st.sampled_from([124, 125, 126, 127, 65535, 65536]))
            parts.append(frame(b"x" * size, mask=mask))
        elif kind == "cut":
            text = data.draw(st.text()).encode()
            cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
            parts.extend(fragments(text, *cuts))
        else:
            parts.append(frame(data.draw(st.text()), mask=mask))
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    assert heard(stream) == heard(stream, *cuts)


def test_frames_mean_the_same_cut_at_every_byte() -> None:
    stream = b"".join(
        [
            frame(HELLO, mask=b"\x01\x02\x03\x04"),
            *fragments(HELLO, 3, 9),
            frame(b"?", PING),
            frame("y" * 300),
            closing(1000, b"bye"),
        ]
    )
    whole = heard(stream)
    assert whole[0] == [HELLO, HELLO, b"y" * 300]
    for at in range(len(stream)):
        assert heard(stream, at) == whole
    assert heard(stream, *range(len(stream))) == whole


def test_what_comes_while_frames_wait_is_served_after_them() -> None:
    stream = b"".join(frame(b"%d" % number) for number in range(100))
    for at in (0, 1, 250, 400, 401, len(stream) - 1):
        guests, conversation = _Guests(), _Conversation()
        shell = connected(guests, _Transport(), conversation)
        shell.data_received(stream[:at])
        shell.data_received(stream[at:])
        while len(conversation.heard) < 100:
            guests.turn()
        assert conversation.heard == [b"%d" % number for number in range(100)]
        guests.loop.close()


class _Transport:
    """Keeps what is written, and closes when it is told to."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    write_eof = abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _Conversation:
    """Hears messages."""

    wants_loop = saturated = busy = False

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended = 0

    def receive(self, data: bytes) -> None:
        self.heard.append(data)

    def too_long(self) -> None:
        raise AssertionError

    def relieved(self) -> None: ...

    async def finish(self, grace: float) -> None: ...

    def close(self) -> None:
        self.ended += 1


class _Guests:
    """A listener without a socket."""

    limits = FAST
    timeouts = Timeouts()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.floods = Floods(self.limits)
        self.turns = self.floods.turns

    def gone(self, guest: object, place: object) -> None: ...

    def turn(self) -> None:
        """Let the loop do what is due."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()


def connected(guests: _Guests, transport: _Transport, conversation: _Conversation) -> WebSocketShell:
    place = guests.floods.join("a", 0.0, lambda: None)
    shell = WebSocketShell(guests, place, lambda shell: conversation)  # type: ignore[arg-type]
    shell.connection_made(transport)  # type: ignore[arg-type]
    return shell


def heard(stream: bytes, *cuts: int) -> tuple[list[bytes], bytes, bool]:
    """What a shell hears, its last close frame, and whether it has ended."""
    guests, transport, conversation = _Guests(), _Transport(), _Conversation()
    shell = connected(guests, transport, conversation)
    edges = [0, *cuts, len(stream)]
    for a, b in itertools.pairwise(edges):
        if b > a:
            shell.data_received(stream[a:b])
            guests.turn()
    guests.turn()
    guests.loop.close()
    assert conversation.ended == int(shell.closing)
    close = transport.written.rfind(bytes((FIN | CLOSE,))) if shell.closing else len(transport.written)
    return conversation.heard, transport.written[close:], transport.ended


# Size

SMALL = Limits(message_bytes=2000, fragments=8)


def echo_of(size: int) -> bytes:
    """A call whose text has so many bytes in all."""
    empty = json.dumps(call("echo", {"text": ""}, 1)).encode()
    return json.dumps(call("echo", {"text": "x" * (size - len(empty))}, 1)).encode()


@pytest.mark.parametrize("cuts", [(), (1000,), (1, 2, 3, 1500)])
@pytest.mark.parametrize("more", [-1, 0, 1, 5000])
async def test_the_size_of_a_message_is_summed_over_its_fragments(cuts: tuple[int, ...], more: int) -> None:
    counting = Counting(SMALL)
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(*fragments(echo_of(2000 + more), *cuts))
        if more <= 0:
            assert (await wire.answer())["id"] == 1
            await alive(wire)
        else:
            assert (await wire.closed()).code == 1009
            assert counting.ran == []


async def test_a_frame_that_is_too_large_is_refused_before_its_payload_comes() -> None:
    async with websockets(Counting(SMALL).server) as ends:
        for length in (2001, 1 << 40, 1 << 63, (1 << 64) - 1):
            wire = await ends.connect()
            field = b"\x7e" + length.to_bytes(2, "big") if length < 65536 else b"\x7f" + length.to_bytes(8, "big")
            await wire.send(frame(b"", length=field))
            assert (await wire.closed()).code == 1009


@pytest.mark.attack("ATK-072")
@pytest.mark.parametrize("count", [7, 8, 9])
async def test_the_frames_of_a_message_are_counted(count: int) -> None:
    counting = Counting(SMALL)
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(*fragments(HELLO, *range(1, count)))
        if count <= 8:
            assert (await wire.answer())["id"] == 7
        else:
            assert (await wire.closed()).code == 1008
            assert counting.ran == []


@pytest.mark.attack("ATK-072")
async def test_a_million_fragments_of_one_byte_cost_no_memory() -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire, other = await ends.connect(), await ends.connect()
        bomb = frame(b"x", fin=False) + frame(b"x", CONTINUATION, fin=False) * 10_000
        tracemalloc.start()
        with suppress(ConnectionError):
            for _ in range(100):
                await wire.send(bomb)
        await alive(other)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * 1024 * 1024
        assert (await wire.frame()).code == 1008
        assert counting.ran == ["alive"]


# Compression


def deflated(data: bytes, wbits: int = -15) -> bytes:
    deflate = zlib.compressobj(wbits=wbits)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


async def test_compressed_messages_are_served_where_it_was_agreed() -> None:
    counting = Counting(FAST)
    async with websockets(counting.server, compression=True) as ends:
        wire = await ends.connect()
        packed = deflated(HELLO)
        await wire.send(frame(packed, bits=RSV1))
        assert (await wire.answer())["id"] == 7
        cut = frame(packed[:9], bits=RSV1, fin=False) + frame(b"", PING) + frame(packed[9:], CONTINUATION)
        await wire.send(cut)
        assert (await wire.frame()).opcode == PONG
        assert (await wire.answer())["id"] == 7
        final = zlib.compressobj(wbits=-15)
        await wire.send(frame(final.compress(HELLO) + final.flush() + b"\x00", bits=RSV1))
        assert (await wire.answer())["id"] == 7
        await alive(wire)
        await wire.send(message(call("dump", {"size": 5000})))
        got = await wire.frame()
        assert got.first & RSV1
        assert len(got.payload) < 1000
        assert got.json["result"]["content"][0]["text"] == "x" * 5000


@pytest.mark.parametrize("cut", [False, True])
async def test_what_is_inflated_is_counted(cut: bool) -> None:
    for more in (-1, 0, 1, 3_000_000):
        counting = Counting(SMALL)
        async with websockets(counting.server, compression=True) as ends:
            wire = await ends.connect()
            packed = deflated(echo_of(2000 + more))
            await wire.send(
                *([frame(packed[:60], bits=RSV1, fin=False), frame(packed[60:], CONTINUATION)] if cut else []),
                *([] if cut else [frame(packed, bits=RSV1)]),
            )
            if more <= 0:
                assert (await wire.answer())["id"] == 1
            else:
                assert (await wire.closed()).code == 1009
                assert counting.ran == []


async def test_a_bomb_is_not_inflated() -> None:
    bomb = deflated(bytes(50_000_000))
    async with websockets(Counting(SMALL).server, compression=True) as ends:
        wire = await ends.connect()
        tracemalloc.start()
        await wire.send(*([frame(bomb[:1000], bits=RSV1, fin=False), frame(bomb[1000:1900], CONTINUATION)]))
        closed = await wire.closed()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert closed.code == 1009
        assert peak < 500_000


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (1007, frame(b"\xff\xff\xff\xff", bits=RSV1)),
        (1007, frame(zlib.compress(HELLO), bits=RSV1)),
        (1007, frame(zlib.compress(HELLO, wbits=-15) + b"more behind the end", bits=RSV1)),
        (1002, frame(deflated(HELLO)[:5], bits=RSV1, fin=False) + frame(b"", CONTINUATION, bits=RSV1)),
        (1002, frame(b"", PING, bits=RSV1)),
        (1002, frame(HELLO, bits=RSV1 | 0x20)),
        (1003, frame(deflated(HELLO), BINARY, bits=RSV1)),
    ],
)
async def test_compression_that_is_broken_ends_the_connection(code: int, data: bytes) -> None:
    counting = Counting()
    async with websockets(counting.server, compression=True) as ends:
        wire = await ends.connect()
        await wire.send(data)
        assert (await wire.closed()).code == code
        assert counting.ran == []
