"""How the lines on a Unix socket are served, and when a connection ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if sys.platform == "win32":
    pytest.skip("no Unix sockets here", allow_module_level=True)

from garrison import Limits, Timeouts
from garrison.transports.flood import Floods
from garrison.transports.unix import UnixShell
from tests.support.edge import Counting
from tests.support.mcp import call, until
from tests.support.unix_socket import lines


async def test_lines_are_served_as_on_stdio() -> None:
    counting = Counting()
    async with lines(counting) as wires:
        wire = await wires.connect()
        await wire.alive()
        await wire.send(b"\n\r\n", json.dumps(call("echo", {"text": "crlf"}, 2)).encode() + b"\r\n", b"{\n")
        assert (await wire.read())["id"] == 2
        assert (await wire.read())["error"]["code"] == -32700
        await wire.alive()
        initialize = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        answer = await wire.ask({"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": initialize})
        assert answer["result"]["protocolVersion"] == "2025-11-25"


async def test_a_line_that_is_too_long_is_answered_once_and_the_next_is_served() -> None:
    counting = Counting(Limits(message_bytes=1000))
    async with lines(counting) as wires:
        wire = await wires.connect()
        await wire.send(b"[" * 300_000, b"]\n", call("echo", {"text": "next"}, 2))
        assert "1000 bytes" in (await wire.read())["error"]["message"]
        assert (await wire.read())["id"] == 2


class _Sink:
    """A transport that keeps nothing."""

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


class _Heard:
    """A conversation that hears lines."""

    saturated = busy = False

    def __init__(self) -> None:
        self.lines: list[bytes | None] = []

    def receive(self, data: bytes) -> None:
        self.lines.append(data)

    def too_long(self) -> None:
        self.lines.append(None)

    def close(self) -> None: ...


class _Guests:
    """A listener without a socket."""

    limits = Limits(message_bytes=12, message_rate=10**6, message_burst=10**6)
    timeouts = Timeouts()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.floods = Floods(self.limits)
        self.turns = self.floods.turns


def heard(stream: bytes, *cuts: int) -> list[bytes | None]:
    guests, conversation = _Guests(), _Heard()
    place = guests.floods.join("unix", 0.0, lambda: None)
    shell = UnixShell(guests, place, lambda shell: conversation)  # type: ignore[arg-type]
    shell.connection_made(_Sink())  # type: ignore[arg-type]
    edges = [0, *cuts, len(stream)]
    for a, b in itertools.pairwise(edges):
        if b > a:
            shell.data_received(stream[a:b])
            while shell._waits:
                guests.loop.call_soon(guests.loop.stop)
                guests.loop.run_forever()
    guests.loop.close()
    return conversation.lines


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"{}", b"\n", b"\r\n", b"x" * 11, b"x" * 12, b"x" * 13, b"\r", b"y"])), st.data())
def test_lines_mean_the_same_however_they_are_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    assert heard(stream) == heard(stream, *cuts)


def test_many_lines_in_one_piece_are_all_served() -> None:
    assert heard(b"{}\n" * 1000) == [b"{}"] * 1000


async def test_a_client_that_has_said_all_gets_its_answers() -> None:
    counting = Counting(shutdown=2.0)
    async with lines(counting) as wires:
        wire, other = await wires.connect(), await wires.connect()
        await wire.send(call("slow", {"seconds": 0.2}, 1), json.dumps(call("echo", {"text": "no end"}, 2)).encode())
        wire.writer.write_eof()
        assert {(await wire.read())["id"] for _ in range(2)} == {1, 2}
        assert await wire.ended() == b""
        await until(lambda: len(wires.ends.guests) == 1)
        await other.alive()


async def test_the_end_of_one_client_leaves_the_subscriptions_of_others() -> None:
    counting = Counting(shutdown=0.2)
    listen = {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen"}
    params = call("echo")["params"]["_meta"]
    async with lines(counting) as wires:
        wire, other = await wires.connect(), await wires.connect()
        for one in (wire, other):
            await one.send({**listen, "params": {"notifications": {"toolsListChanged": True}, "_meta": params}})
            assert "acknowledged" in (await one.read())["method"]
        wire.writer.write_eof()
        assert await wire.ended() == b""
        await other.alive()
        assert len(wires.ends.guests) == 1


async def test_a_line_that_was_begun_has_to_arrive() -> None:
    counting = Counting(Limits(body_rate=1_000_000), body=0.2)
    async with lines(counting) as wires:
        slow, quick = await wires.connect(), await wires.connect()
        await slow.send(b"\n\n{")
        for number in range(6):
            await asyncio.sleep(0.05)
            await quick.alive(f"q{number}")
            await slow.send(b" ")
        assert await slow.ended(1) == b""


async def test_each_line_has_its_own_time() -> None:
    """A client that always has begun the next line, and always ends it in time."""
    counting = Counting(Limits(body_rate=1_000_000), body=0.4)
    data = json.dumps(call("echo", {"text": "half"})).encode()
    async with lines(counting) as wires:
        wire = await wires.connect()
        await wire.send(data[:9])
        for _ in range(8):
            await asyncio.sleep(0.1)
            await wire.send(data[9:] + b"\n" + data[:9])
            assert (await wire.read())["id"] == 1


async def test_a_connection_without_requests_is_closed() -> None:
    counting = Counting(session_idle=0.2)
    async with lines(counting) as wires:
        idle, busy = await wires.connect(), await wires.connect()
        await busy.send(call("slow", {"seconds": 0.6}))
        assert await idle.ended(1) == b""
        assert (await busy.read())["result"]["content"][0]["text"] == "slow"
        assert await busy.ended(1) == b""


async def test_a_connection_with_requests_is_kept() -> None:
    async with lines(Counting(session_idle=0.3)) as wires:
        wire = await wires.connect()
        for number in range(8):
            await asyncio.sleep(0.1)
            await wire.alive(f"k{number}")


async def test_a_flooder_is_slowed_down_and_the_others_are_not() -> None:
    counting = Counting(Limits(message_rate=100, message_burst=200))
    async with lines(counting) as wires:
        wire, other = await wires.connect(), await wires.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()
        flood = b"".join(json.dumps(call("echo", {"text": "f"}, id)).encode() + b"\n" for id in range(5000))
        wire.writer.write(flood)
        slowest = 0.0
        for number in range(50):
            before = loop.time()
            await other.alive(f"b{number}")
            slowest = max(slowest, loop.time() - before)
        assert slowest < 0.25
        while counting.ran.count("f") < 250:
            await asyncio.sleep(0.01)
        took = loop.time() - start
        assert took > 0.3
        assert counting.ran.count("f") <= 200 + 32 + took * 100 + 1


async def test_bytes_are_charged_as_well_as_lines() -> None:
    """A message costs one more for every 16 KiB of it, also where the pieces that arrive are small."""
    counting = Counting(Limits(message_rate=10, message_burst=20))
    async with lines(counting) as wires:
        wire = await wires.connect()
        loop = asyncio.get_running_loop()
        start = loop.time()
        await wire.send(call("echo", {"text": "x" * (16 * 1024 * 24)}, 1))
        await wire.read()
        await wire.alive()
        assert loop.time() - start > 0.3
        assert len(counting.ran) == 2


async def test_too_many_malformed_lines_end_the_connection_once_they_are_answered() -> None:
    counting = Counting(Limits(malformed_per_minute=3))
    async with lines(counting) as wires:
        wire = await wires.connect()
        await wire.send(b"{\n" * 3)
        assert [(await wire.read())["error"]["code"] for _ in range(3)] == [-32700] * 3
        await wire.alive()
        await wire.send(b"{\n", call("echo", {"text": "late"}))
        assert (await wire.read())["error"]["code"] == -32700
        assert await wire.ended() == b""
        assert counting.ran == ["alive"]


async def test_a_slow_reader_is_put_out() -> None:
    counting = Counting(Limits(outbound_bytes=1000))
    async with lines(counting) as wires:
        slow = await wires.connect()
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await slow.send(
            *(call("slow", {"seconds": 0.2}, id) for id in range(40)), call("dump", {"size": 5_000_000}, "big")
        )
        await until(lambda: len(wires.ends.ended) == 1)
        await (await wires.connect()).alive()


async def test_a_server_that_stops_lets_what_runs_end() -> None:
    counting = Counting(shutdown=2.0)
    async with lines(counting) as wires:
        quiet, busy = await wires.connect(), await wires.connect()
        await busy.send(call("slow", {"seconds": 0.1}))
        await until(lambda: counting.ran)
        for guest in tuple(wires.ends.guests):
            guest.leave()
        assert await quiet.ended() == b""
        assert (await busy.read())["result"]["content"][0]["text"] == "slow"
        assert await busy.ended() == b""


async def test_what_runs_is_cancelled_when_the_client_goes() -> None:
    counting = Counting()
    async with lines(counting) as wires:
        wire = await wires.connect()
        await wire.send(call("slow", {"seconds": 5}))
        await until(lambda: counting.ran)
        for guest in tuple(wires.ends.guests):
            guest.abort()
        await until(lambda: counting.cancelled == ["slow"])
        assert await wire.ended() == b""
