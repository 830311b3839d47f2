"""How long a WebSocket lives: pings, closing, time, pace, slow readers, credentials, and the server's own end."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from garrison import Limits
from garrison.policy.transports import WebSocketConfig
from garrison.transports.http.exchange import Head
from garrison.transports.peer import Until
from garrison.transports.websocket import accept
from tests.support.edge import Counting
from tests.support.mcp import call, until
from tests.support.websocket import (
    CLOSE,
    CONTINUATION,
    FAST,
    FIN,
    HELLO,
    PING,
    PONG,
    TEXT,
    Opened,
    WebSocketWire,
    alive,
    closing,
    frame,
    message,
    websockets,
)

# Pings and closing


async def test_the_last_of_several_pings_is_answered() -> None:
    async with websockets(Counting().server) as ends:
        wire = await ends.connect()
        await wire.send(frame(b"one", PING))
        assert await wire.frame() == (PONG, b"one", FIN | PONG)
        await wire.send(*(frame(b"%d" % number, PING) for number in range(20)), frame(HELLO))
        got = [await wire.frame() for _ in range(2)]
        assert [one.opcode for one in got] in ([TEXT, PONG], [PONG, TEXT])
        assert b"19" in (got[0].payload, got[1].payload)


@pytest.mark.attack("ATK-073")
async def test_a_flood_of_pings_is_slowed_down_and_costs_the_others_nothing() -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire, other = await ends.connect(), await ends.connect()
        wire.writer.write(frame(b"", PING) * 40_000)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for number in range(20):
            start = loop.time()
            await alive(other, f"a{number}")
            assert loop.time() - start < 0.25
        pongs = 0
        try:
            while True:
                assert (await wire.frame(0.3)).opcode == PONG
                pongs += 1
        except TimeoutError:
            pass
        assert pongs < 200


@pytest.mark.parametrize("code", [None, 1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999])
async def test_a_close_is_answered_with_the_same_code_and_nothing_after_it_is_served(code: int | None) -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(message(call("echo", {"text": "a"})), closing(code, b"bye" if code else b""), frame(HELLO))
        assert (await wire.answer())["id"] == 1
        assert (await wire.closed()).code == (code or 1005)
        assert counting.ran == ["a"]
        await until(lambda: not ends.ends.guests)


async def test_silence_is_asked_after_and_then_given_up() -> None:
    async with websockets(Counting(ping=0.1, pong=0.1).server) as ends:
        dead, living = await ends.connect(), await ends.connect()
        assert (await dead.frame(1)).opcode == PING
        for _ in range(4):
            got = await living.frame(1)
            assert got.opcode == PING
            await living.send(frame(got.payload, PONG))
        assert await dead.ended(1) == b""
        await alive(living)


async def test_a_connection_without_requests_is_closed() -> None:
    counting = Counting(session_idle=0.3, ping=0.1)
    async with websockets(counting.server) as ends:
        idle, busy = await ends.connect(), await ends.connect()
        await busy.send(message(call("slow", {"seconds": 0.8})))

        async def pongs(wire: WebSocketWire) -> Any:
            while (got := await wire.frame()).opcode == PING:
                await wire.send(frame(got.payload, PONG))
            return got

        closed, answer = await asyncio.gather(pongs(idle), pongs(busy))
        assert (closed.opcode, closed.code) == (CLOSE, 1001)
        assert answer.json["result"]["content"][0]["text"] == "slow"


@pytest.mark.parametrize(
    "part", [frame(HELLO)[:1], frame(HELLO)[:40], frame(HELLO, fin=False), frame(b"", fin=False)], ids=len
)
async def test_a_message_that_was_begun_has_to_arrive(part: bytes) -> None:
    counting = Counting(Limits(body_rate=1_000_000), body=0.2)
    async with websockets(counting.server) as ends:
        slow, quick = await ends.connect(), await ends.connect()
        await slow.send(part)
        for number in range(6):
            await asyncio.sleep(0.05)
            await alive(quick, f"q{number}")
            if part[0] == TEXT:
                await slow.send(frame(b"", PING))  # keeps nothing alive
        while (got := await slow.frame()).opcode == PONG:
            pass
        assert (got.opcode, got.code) == (CLOSE, 1008)


async def test_a_message_may_take_longer_when_more_of_it_comes() -> None:
    counting = Counting(Limits(body_rate=100), body=0.2)
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        data = frame(HELLO)
        for at in range(0, len(data), 40):
            await wire.send(data[at : at + 40])
            await asyncio.sleep(0.1)
        assert (await wire.answer())["id"] == 7


# Pace


async def test_a_flooder_is_slowed_down_and_the_others_are_not() -> None:
    counting = Counting(Limits(message_rate=100, message_burst=200))
    async with websockets(counting.server) as ends:
        wire, other = await ends.connect(), await ends.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()
        wire.writer.write(b"".join(message(call("echo", {"text": "f"}, id)) for id in range(5000)))
        slowest = 0.0
        for number in range(50):
            before = loop.time()
            await alive(other, f"b{number}")
            slowest = max(slowest, loop.time() - before)
        assert slowest < 0.25
        while counting.ran.count("f") < 250:
            await asyncio.sleep(0.01)
        took = loop.time() - start
        assert took > 0.3, "50 more than the burst take half a second"
        assert counting.ran.count("f") <= 200 + 32 + took * 100 + 1


async def test_messages_in_many_pieces_cost_more() -> None:
    counting = Counting(Limits(message_rate=20, message_burst=20))
    async with websockets(counting.server) as ends:
        whole, pieces = await ends.connect(), await ends.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(5):
            await alive(whole, f"w{number}")
        assert loop.time() - start < 0.2
        empty = [frame(b"", CONTINUATION, fin=False)] * 900
        for _ in range(2):
            await pieces.send(frame(b"", fin=False), *empty, frame(HELLO, CONTINUATION))
            await pieces.answer()
        assert loop.time() - start > 1.0


async def test_a_burst_of_an_honest_client_is_not_slowed_down() -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()
        await wire.send(*(message(call("echo", {"text": "b"}, id)) for id in range(200)))
        assert {(await wire.answer())["id"] for _ in range(200)} == set(range(200))
        assert loop.time() - start < 1.0


async def test_no_more_is_served_at_once_than_may_be_under_way() -> None:
    counting = Counting(Limits(in_flight=4))
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(*(message(call("slow", {"seconds": 0.1}, id)) for id in range(10)))
        await asyncio.sleep(0.05)
        assert counting.ran.count("slow") == 4
        assert {(await wire.answer())["id"] for _ in range(10)} == set(range(10))


async def test_too_many_malformed_messages_end_the_connection_once_they_are_answered() -> None:
    counting = Counting(Limits(malformed_per_minute=3))
    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(*[frame("{")] * 3)
        assert [(await wire.answer())["error"]["code"] for _ in range(3)] == [-32700] * 3
        await alive(wire)
        await wire.send(frame(""), frame(HELLO))
        assert (await wire.answer())["error"]["code"] == -32700
        assert (await wire.closed()).code == 1008
        assert counting.ran == ["alive"]


async def test_a_slow_reader_is_put_out() -> None:
    counting = Counting(Limits(outbound_bytes=1000, message_rate=10**6, message_burst=10**6))
    async with websockets(counting.server) as ends:
        slow, quick = await ends.connect(), await ends.connect()
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        shell = ends.ends.guests[0]
        for id in range(40):
            await slow.send(message(call("slow", {"seconds": 0.2}, id)))
        await slow.send(message(call("dump", {"size": 12_000_000}, "big")))
        await until(lambda: shell.congested)
        await until(lambda: shell in ends.ends.ended)
        await quick.send(message(call("dump", {"size": 12_000_000}, "big")))
        assert (await quick.answer())["id"] == "big"


async def test_a_reader_that_takes_nothing_is_put_out_and_one_that_is_slow_is_not() -> None:
    counting = Counting(FAST, write_stall=0.5)
    async with websockets(counting.server) as ends:
        stuck, slow = await ends.connect(), await ends.connect()
        for wire in (stuck, slow):
            await wire.send(message(call("dump", {"size": 12_000_000})))
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        first, second = ends.ends.guests
        for _ in range(20):
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await slow.reader.readexactly(550_000)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        assert first in ends.ends.ended
        assert second in ends.ends.guests


async def test_who_reads_a_long_answer_slowly_is_not_asked_for_signs_of_life() -> None:
    counting = Counting(FAST, ping=0.1, pong=0.2)

    @counting.server.tool()
    async def later(size: int) -> str:
        await asyncio.sleep(0.05)
        return "x" * size

    async with websockets(counting.server) as ends:
        wire = await ends.connect()
        await wire.send(message(call("later", {"size": 12_000_000})))
        for _ in range(20):
            wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await wire.reader.readexactly(600_000)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
        assert len(ends.ends.guests) == 1


# Ending


class Lasting:
    """A credential that holds while it is allowed, and is not to be asked again for a minute."""

    allowed = True

    def left(self, now: float) -> float:
        return 60.0 if self.allowed else 0.0


async def test_the_connection_ends_with_its_credential() -> None:
    counting = Counting()
    credential = Lasting()
    async with websockets(counting.server, credential=credential) as ends:
        wire = await ends.connect()
        await alive(wire)
        credential.allowed = False
        await wire.send(frame(HELLO))
        closed = await wire.closed()
        assert (closed.code, closed.payload[2:]) == (1008, b"credential expired")
        assert counting.ran == ["alive"]


@pytest.mark.attack("ATK-074")
async def test_a_quiet_connection_ends_when_its_credential_expires() -> None:
    counting = Counting()
    async with websockets(counting.server, credential=Until(time.time() + 0.3)) as ends:
        wire = await ends.connect()
        await alive(wire)
        await wire.send(message(call("slow", {"seconds": 5})))
        closed = await wire.closed()
        assert (closed.code, closed.payload[2:]) == (1008, b"credential expired")
        await until(lambda: counting.cancelled == ["slow"])


async def test_a_server_that_stops_lets_what_runs_end() -> None:
    counting = Counting(shutdown=2.0)
    async with websockets(counting.server) as ends:
        quiet, busy = await ends.connect(), await ends.connect()
        await busy.send(message(call("slow", {"seconds": 0.1})))
        await until(lambda: counting.ran)
        for guest in tuple(ends.ends.guests):
            guest.leave()
        await busy.send(message(call("echo", {"text": "late"}, 2)))
        assert (await quiet.closed()).code == 1001
        assert (await busy.answer())["result"]["content"][0]["text"] == "slow"
        assert (await busy.closed()).code == 1001
        assert counting.ran == ["slow"]


async def test_what_runs_is_cancelled_when_the_client_goes() -> None:
    counting = Counting()
    async with websockets(counting.server) as ends:
        for leave in (lambda wire: wire.writer.close(), lambda wire: wire.writer.write(closing())):
            wire = await ends.connect()
            await wire.send(message(call("slow", {"seconds": 5})))
            await until(lambda: counting.ran)
            leave(wire)
            await until(lambda: counting.cancelled == ["slow"])
            await until(lambda: not ends.ends.guests)
            counting.ran.clear()
            counting.cancelled.clear()


async def test_a_failure_of_ours_ends_one_connection_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async with websockets(Counting().server) as ends:
        wire, other = await ends.connect(), await ends.connect()
        await alive(wire)

        def fail(data: bytes) -> None:
            raise RuntimeError("ours")

        ends.ends.guests[0]._peer.receive = fail
        await wire.send(frame(HELLO))
        assert (await wire.closed()).code == 1011
        await alive(other)
        assert "ours" in caplog.text


# Another implementation


async def test_the_websockets_library_is_served(free_port: int) -> None:
    """Handshake, large and fragmented messages, both ways, with and without compression, and the close."""
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    class Door(asyncio.Protocol):
        """Answers a handshake, and hands over."""

        def __init__(self, opened: Opened, config: WebSocketConfig) -> None:
            self.opened, self.config, self.data = opened, config, b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.data += data
            if not self.data.endswith(b"\r\n\r\n"):
                return
            head = Head()
            head.method = b"GET"
            for line in self.data.split(b"\r\n")[1:-2]:
                name, _, value = line.partition(b":")
                head.add(name, value)
            fields = accept(head, self.config)
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % fields)
            self.opened.ends._more = {"compression": b"permessage-deflate" in fields}
            shell = self.opened.ends.arrive()
            self.transport.set_protocol(shell)
            shell.connection_made(self.transport)

    for compression in (False, True):
        counting = Counting(FAST)
        async with websockets(counting.server) as ends:
            config = WebSocketConfig(compression=compression)
            loop = asyncio.get_running_loop()
            listener = await loop.create_server(partial(Door, ends, config), "127.0.0.1", free_port)
            async with connect(
                f"ws://127.0.0.1:{free_port}/mcp", subprotocols=[Subprotocol("mcp")], max_size=1 << 25
            ) as client:
                assert client.subprotocol == "mcp"
                assert bool(client.protocol.extensions) == compression
                await client.send(HELLO.decode())
                assert json.loads(await client.recv())["id"] == 7
                text = json.dumps(call("echo", {"text": "e" * 3_000_000}, 8))
                await client.send(text)
                assert json.loads(await client.recv())["result"]["content"][0]["text"] == "e" * 3_000_000
                await client.send(text[at : at + 100_000] for at in range(0, len(text), 100_000))
                assert json.loads(await client.recv())["id"] == 8
                await (await client.ping())
            assert client.close_code == 1000
            listener.close()


async def test_random_bytes_never_bring_the_server_down() -> None:
    counting = Counting(FAST)
    dice = random.Random(7)
    async with websockets(counting.server) as ends:
        other = await ends.connect()
        for _ in range(50):
            wire = await ends.connect()
            first = dice.choice([0x81, 0x01, 0x80, 0x89, dice.randrange(256)])
            with suppress(ConnectionError):
                await wire.send(bytes([first]) + dice.randbytes(200))
            wire.writer.close()
        await alive(other)
