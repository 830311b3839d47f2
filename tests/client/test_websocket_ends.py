"""How the client's WebSocket connections end, what keeps them, and that it is the same however the bytes are cut."""

from __future__ import annotations

import asyncio
import time
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import garrison.errors as e
from garrison.client import Client
from garrison.client.websocket import WebSocketTransport
from garrison.policy import Limits, Timeouts
from garrison.policy.transports import WebSocketConfig

from .raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    FRAGMENTS,
    LIMIT,
    PING,
    PONG,
    TEXT,
    Raw,
    call,
    echo_on,
    frame,
    quick,
    raw_server,
)

# The end of a connection.


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x03\xf3he said\x1b[2J " + b"x" * 100, r"code 1011 \(internal error\) he said\?\[2J"),
        (b"\x03\xe9", r"code 1001 \(going away\)"),
        (b"\x0f\xa0", "code 4000"),
        (b"", "code 1005"),
        (None, "ended the connection"),
    ],
)
async def test_a_close_in_the_middle_of_a_call_says_why(payload: bytes | None, words: str):
    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        await raw.message()
        await raw.message()
        if payload is None:
            raw.writer.transport.abort()
            return
        raw.write(frame(CLOSE, payload))
        assert (await raw.frame()) == (CLOSE, payload)

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        found = await asyncio.gather(call(client), call(client), return_exceptions=True)
    for error in found:
        assert isinstance(error, e.ConnectionLost)
        with pytest.raises(e.ConnectionLost, match=words):
            raise error
        assert str(error).isprintable()


async def test_after_a_loss_the_next_call_connects_again_and_nothing_is_sent_twice():
    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        message = await raw.message()
        if message["params"]["arguments"]["x"] == "die":
            raw.writer.transport.abort()
            return
        raw.text(message, "served")
        await echo_on(raw)

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        with pytest.raises(e.ConnectionLost):
            await call(client, "die")
        assert await call(client, "live") == "served"
        said = [
            m["params"]["arguments"]["x"] for raw in peer.connections for m in raw.seen if "arguments" in m["params"]
        ]
        assert said == ["die", "live"]


async def test_closing_shakes_hands_and_does_not_wait_for_ever():
    closes: list[tuple[int, str]] = []

    async def polite(raw: Raw) -> None:
        raw.write(raw.switch())
        await raw.message()
        closes.append(await raw.closed())
        raw.write(frame(CLOSE, b"\x03\xe8"))
        raw.writer.close()

    async def deaf(raw: Raw) -> None:
        raw.write(raw.switch())
        await raw.message()
        await asyncio.sleep(20)

    for script, least, most in ((polite, 0.0, 0.4), (deaf, 0.4, 1.5)):
        async with raw_server(script) as peer:
            client = Client(peer.url, policy=quick())
            await client.connect()
            under_way = asyncio.ensure_future(call(client))
            await asyncio.sleep(0.05)
            start = time.monotonic()
            await client.aclose()
            assert least <= time.monotonic() - start < most
            with pytest.raises(e.ConnectionLost):
                await under_way
    assert closes == [(1000, "")]


async def test_a_silent_server_is_pinged_and_then_given_up():
    pings = 0

    async def silent(raw: Raw) -> None:
        nonlocal pings
        raw.write(raw.switch())
        await raw.message()
        while True:
            opcode, _ = await raw.frame()
            pings += opcode == PING

    async with raw_server(silent) as peer:
        async with Client(peer.url, policy=quick({"ping": 0.1, "pong": 0.2})) as client:
            start = time.monotonic()
            with pytest.raises(e.ConnectionLost, match="no sign of life"):
                await call(client)
            assert 0.25 < time.monotonic() - start < 2.0 and pings == 1


async def test_a_quiet_server_that_answers_pings_is_kept():
    async def quiet(raw: Raw) -> None:
        raw.write(raw.switch())
        message = await raw.message()
        for _ in range(4):
            opcode, data = await raw.frame()
            assert opcode == PING
            raw.write(frame(PONG, data))
        raw.text(message, "late")
        await echo_on(raw)

    async with raw_server(quiet) as peer, Client(peer.url, policy=quick({"ping": 0.05, "pong": 0.5})) as client:
        assert await call(client) == "late"


async def test_a_server_that_stops_reading_is_given_up_and_the_queue_stays_small():
    async def deaf(raw: Raw) -> None:
        raw.writer.transport.get_extra_info("socket").setsockopt(1, 8, 4096)
        raw.write(raw.switch())
        await raw.message()
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)

    policy = quick({"write_stall": 0.3}, message_bytes=2**22, outbound_bytes=2**16)
    async with raw_server(deaf) as peer, Client(peer.url, policy=policy) as client:
        start = time.monotonic()
        calls = [asyncio.ensure_future(call(client, "x" * 2**20)) for _ in range(20)]
        await asyncio.sleep(0.15)
        connection: Any = client._conversation.link.transport._connection  # type: ignore[union-attr] # how much is held
        assert connection.transport.get_write_buffer_size() < 3 * 2**20
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, e.ConnectionLost)
        assert time.monotonic() - start < 3.0


async def test_a_server_that_reads_slowly_gets_everything():
    async def slow(raw: Raw) -> None:
        read = raw.reader.readexactly

        async def sip(size: int) -> bytes:
            pieces: list[bytes] = []
            while size:
                await asyncio.sleep(0.01 if size > 2**17 else 0)
                pieces.append(await read(min(size, 2**17)))
                size -= len(pieces[-1])
            return b"".join(pieces)

        raw.reader.readexactly = sip  # type: ignore[method-assign]
        raw.write(raw.switch())
        while True:
            message = await raw.message()
            raw.text(message, str(len(message["params"]["arguments"]["x"])))

    policy = quick({"write_stall": 0.2}, message_bytes=2**25, outbound_bytes=2**16)
    async with raw_server(slow, limit=2**17) as peer, Client(peer.url, policy=policy) as client:
        start = time.monotonic()
        assert await call(client, "x" * 12_000_000) == "12000000"
        assert time.monotonic() - start > 0.8, "it took longer than a stall may"


# The same bytes, whole and in pieces.


class _Socket:
    def __init__(self) -> None:
        self.written = b""

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None: ...
    def close(self) -> None: ...


PIECES = [
    frame(TEXT, b'{"a":1}'),
    frame(TEXT, b"x" * 300),
    frame(TEXT, b"ab", fin=False) + frame(PING, b"p") + frame(CONT, b"cd", fin=False) + frame(CONT),
    frame(PONG),
    frame(BINARY, b"z"),
    frame(TEXT, b"\xff"),
    frame(CLOSE, b"\x03\xe8bye"),
    frame(TEXT, b"y" * 70_000),
]


@settings(max_examples=60, deadline=None)
@given(
    picked=st.lists(st.sampled_from(PIECES), max_size=6),
    cuts=st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=12),
)
def test_how_the_bytes_are_cut_changes_nothing(picked: list[bytes], cuts: list[int]):
    from garrison.transports.http.url import WEBSOCKET, parse_endpoint
    from garrison.transports.websocket_client import Handshake, WebSocketConnection

    stream = b"".join(picked)

    async def heard(sizes: list[int]) -> tuple[list[Any], list[str]]:
        messages: list[Any] = []
        ends: list[str] = []
        connection = WebSocketConnection(
            Handshake(endpoint=parse_endpoint("ws://localhost/mcp", WEBSOCKET), subprotocol="mcp"),
            limits=Limits(message_bytes=LIMIT, fragments=FRAGMENTS),
            timeouts=Timeouts(),
            on_text=messages.append,
            on_too_large=lambda: messages.append("too large"),
            on_lost=lambda error: ends.append(str(error)),
        )
        sock: Any = _Socket()
        connection.connection_made(sock)
        waiting = asyncio.ensure_future(connection.agree())
        await asyncio.sleep(0)
        raw = Raw(sock, sock, sock.written.decode())
        data, at, turn = raw.switch() + stream, 0, 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            connection.data_received(data[at : at + size])
            at, turn = at + size, turn + 1
        await waiting
        connection.connection_lost(None)
        return messages, ends

    assert asyncio.run(heard([10**9])) == asyncio.run(heard(cuts))


async def test_a_slow_upload_is_a_sign_of_life():
    size = 6_000_000

    async def slow(raw: Raw) -> None:
        raw.write(raw.switch())
        raw.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 64 * 1024)
        reader: Any = raw.reader
        reader._limit = 64 * 1024  # it keeps whatever comes otherwise
        got = 0
        while got < size:
            data = await raw.reader.read(128 * 1024)
            if not data:
                break
            got += len(data)
            await asyncio.sleep(0.03)
        taken.set_result(got)
        await raw.reader.read(-1)

    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with raw_server(slow) as peer:
        timeouts = Timeouts(ping=0.2, pong=0.6, shutdown=0.1)
        transport = WebSocketTransport(WebSocketConfig(peer.url), limits=Limits(), timeouts=timeouts)
        await transport.open()
        connection: Any = transport._connection  # to make its buffer small
        connection.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 64 * 1024)
        transport.post(b"x" * size)
        assert await taken >= size
        await transport.aclose()
