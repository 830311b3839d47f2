"""Places and meters: what a flooding peer costs the others, and what an honest one never notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import Client, Limits, SecurityPolicy, Server, Timeouts
from garrison.errors import Overloaded
from garrison.policy.networks import network_of
from garrison.policy.rates import Rates
from garrison.policy.transports import WebSocketConfig
from garrison.transports.flood import UNIT, Floods, Meter, Place
from tests.support.mcp import call, post, until
from tests.support.raw_http import TOKEN, connected, serving
from tests.support.roomy import ROOMY_RATES


def nothing() -> None:
    return None


# Meters


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    meter = Meter(Limits(message_rate=10, message_burst=20))
    assert [meter.take(0.0, 10) for _ in range(20)] == [0.0] * 20
    assert meter.take(0.0, 10) == pytest.approx(0.1)
    assert meter.take(0.0, 10) == pytest.approx(0.2)
    assert meter.take(0.2, 10) == pytest.approx(0.1)
    assert meter.take(10.0, 10) == 0.0
    assert not meter.full(10.0)
    assert meter.full(10.2)


def test_large_messages_cost_more() -> None:
    meter = Meter(Limits(message_rate=10, message_burst=20))
    assert meter.take(0.0, UNIT * 19) == 0.0
    assert meter.take(0.0, 10) == pytest.approx(0.1)


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 200_000)), max_size=60),
    st.integers(1, 100),
    st.integers(1, 100),
)
def test_no_schedule_gets_more_than_burst_and_rate(steps: list[tuple[float, int]], rate: int, burst: int) -> None:
    """Whoever waits as told is never served more than the burst and the rate since the start allow."""
    meter = Meter(Limits(message_rate=rate, message_burst=burst))
    now = served = 0.0
    for pause, size in steps:
        now += pause
        served += 1 + size // UNIT
        now += meter.take(now, size)
        assert served <= burst + rate * now + 1e-6


def test_malformed_messages_have_a_meter_of_their_own() -> None:
    meter = Meter(Limits(malformed_per_minute=3))
    assert [meter.malformed(0.0) for _ in range(4)] == [False, False, False, True]
    assert not meter.malformed(21.0)
    assert meter.malformed(21.0)
    assert meter.take(21.0, 1) == 0.0


# Places


def test_the_oldest_newcomer_leaves_and_who_was_let_in_stays() -> None:
    floods = Floods(Limits(connections_per_address=3))
    left: list[str] = []

    def join(name: str, address: str = "a") -> Place:
        return floods.join(address, 0.0, lambda: left.append(name))

    join("first").let_in()
    join("second")
    third = join("third")
    join("other", "b")
    join("fourth")
    assert left == ["second"]
    join("fifth")
    assert left == ["second", "third"]
    third.leave()  # its transport tells as well
    assert floods.count == 4


def test_without_newcomers_there_is_no_room() -> None:
    floods = Floods(Limits(connections=2, connections_per_address=2))
    places = [floods.join("a", 0.0, nothing), floods.join("a", 0.0, nothing)]
    for place in places:
        place.let_in()
        place.let_in()
    with pytest.raises(Overloaded, match="connections_per_address"):
        floods.join("a", 0.0, nothing)
    with pytest.raises(Overloaded, match=r"Limits\.connections\b"):
        floods.join("b", 0.0, nothing)
    places[0].leave()
    floods.join("b", 0.0, nothing)


def test_a_shared_address_has_no_limit_of_its_own() -> None:
    floods = Floods(Limits(connections=10, connections_per_address=2))
    for _ in range(10):
        floods.join("proxy", 0.0, nothing, shared=True).let_in()
    with pytest.raises(Overloaded):
        floods.join("proxy", 0.0, nothing, shared=True)


def test_coming_again_is_no_new_burst() -> None:
    floods = Floods(Limits(message_rate=10, message_burst=20, connections_per_address=4))
    waits: list[float] = []
    for _ in range(10):
        place = floods.join("a", 0.0, nothing)
        waits += [place.meter.take(0.0, 1) for _ in range(20)]
        place.leave()
    assert waits[:20] == [0.0] * 20
    assert all(wait > 0 for wait in waits[20:])
    assert floods.join("b", 0.0, nothing).meter.take(0.0, 1) == 0.0


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    floods = Floods(Limits())
    for number in range(20_000):
        place = floods.join(f"10.{number}", number * 1e-4, nothing)
        place.meter.take(number * 1e-4, 1)
        place.leave()
        floods.lend(f"11.{number}", number * 1e-4).take(number * 1e-4, 1)
    assert len(floods._addresses) <= 4096 + 256
    assert floods.count == 0
    keeping = floods.join("kept", 3.0, nothing)
    for number in range(20_000):
        floods.lend(f"12.{number}", 3.0).take(3.0, 1)
    keeping.leave()
    assert floods.count == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2::3", "20010db800010002"),
        ("2001:db8:1:2:ffff::9", "20010db800010002"),
        ("2001:db8:1:3::3", "20010db800010003"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("unix", "unix"),
        ("10.0.0.1#5", "10.0.0.1#5"),
    ],
)
def test_a_host_is_one_peer_however_many_addresses_it_has(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["join", "in", "leave"])), max_size=80))
def test_the_books_are_right_whatever_happens(steps: list[tuple[str, str]]) -> None:
    limits = Limits(connections=5, connections_per_address=3)
    floods = Floods(limits)
    there: dict[Place, str] = {}
    for address, what in steps:
        mine = [place for place, where in there.items() if where == address]
        if what == "join":
            box: list[Place] = []
            with contextlib.suppress(Overloaded):
                box.append(floods.join(address, 0.0, lambda box=box: there.pop(box[0])))  # type: ignore[misc]
                there[box[0]] = address
        elif mine and what == "in":
            mine[0].let_in()
        elif mine:
            mine[0].leave()
            del there[mine[0]]
        assert floods.count == len(there) <= 5
        assert all(sum(where == a for where in there.values()) <= 3 for a in "abc")


# The live listener


def make(limits: Limits | None = None, rates: Rates | None = None, **timeouts: float) -> Server:
    policy = SecurityPolicy(
        limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}), rates=rates or Rates()
    )
    server = Server("flood", policy=policy)

    @server.tool(inline=True)
    def echo(text: str) -> str:
        return text

    @server.tool()
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slow"

    return server


Flooder = Callable[[], AsyncIterator[None]]


@contextlib.asynccontextmanager
async def place(server: Server, transport: str, folder: Path) -> AsyncIterator[tuple[str, str | None]]:
    """The server on a transport: what a client names, and its token."""
    if transport == "unix":
        async with server.unix(str(folder / "d" / "s.sock")) as running:
            yield running.url, None
    else:
        async with serving(server, websocket=WebSocketConfig()) as running:
            yield (running.url if transport == "http" else running.websocket_url), TOKEN


@pytest.mark.parametrize("transport", ["http", "websocket", "unix"])
async def test_the_rate_holds_on_every_transport_and_nothing_is_lost(transport: str, tmp_path: Path) -> None:
    server = make(Limits(message_rate=50, message_burst=20))
    async with place(server, transport, tmp_path) as (url, token):
        async with Client(url, token=token, era="modern", versions=["2026-07-28"]) as client:
            started = time.monotonic()
            for number in range(45):
                result = await client.call_tool("echo", {"text": str(number)})
                assert result.structured_content == {"result": str(number)}
            took = time.monotonic() - started
    assert 0.4 < took < 3.0  # 45 messages and the first contact, less the burst of 20, at 50 a second
    wide = make(Limits(message_rate=10_000))
    async with place(wide, transport, tmp_path) as (url, token):
        async with Client(url, token=token, era="modern", versions=["2026-07-28"]) as client:
            started = time.monotonic()
            for number in range(45):
                await client.call_tool("echo", {"text": str(number)})
            assert time.monotonic() - started < 0.4


@pytest.mark.parametrize("transport", ["http", "websocket", "unix"])
async def test_an_honest_agent_is_left_alone(transport: str, tmp_path: Path) -> None:
    """A burst of 200 calls, 100 of them at once, and then 50 a second."""
    async with place(make(), transport, tmp_path) as (url, token):
        async with Client(url, token=token) as client:
            started = time.monotonic()
            await asyncio.gather(*(client.call_tool("slow", {"seconds": 0.2}) for _ in range(100)))
            await asyncio.gather(*(client.call_tool("echo", {"text": "x"}) for _ in range(100)))
            assert time.monotonic() - started < 2.0
            late = 0.0
            for number in range(50):
                await asyncio.sleep(0.02)
                before = time.monotonic()
                await client.call_tool("echo", {"text": str(number)})
                late = max(late, time.monotonic() - before)
            assert late < 0.5


async def test_a_flood_does_not_move_the_others_tail() -> None:
    """Pipelined requests as fast as they go, with a valid token, beside one client that calls now and then."""
    async with serving(make(rates=ROOMY_RATES)) as running:
        port = running.port
        request = post(port, call("echo", {"text": "x" * 1000}))

        async def tail(calls: int) -> float:
            times: list[float] = []
            async with connected(port) as wire:
                for _ in range(calls):
                    await asyncio.sleep(0.005)
                    before = time.perf_counter()
                    await wire.send(request)
                    assert (await wire.response()).status == 200
                    times.append(time.perf_counter() - before)
            return statistics.quantiles(times, n=20)[-1]

        async def flood() -> None:
            async with connected(port) as wire:
                try:
                    while True:
                        wire.writer.write(request * 50)
                        await wire.writer.drain()
                except ConnectionError:
                    pass

        async def swallow() -> None:
            with contextlib.suppress(ConnectionError):
                async with connected(port) as wire:
                    await wire.send(request * 50)
                    while await wire.reader.read(65536):
                        await wire.send(request * 50)

        quiet = await tail(80)
        floods = [asyncio.create_task(flood()) for _ in range(3)] + [asyncio.create_task(swallow()) for _ in range(3)]
        await asyncio.sleep(0.5)
        loud = await tail(80)
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        assert loud < max(10 * quiet, 0.05), (quiet, loud)


async def test_a_body_has_to_arrive_at_a_rate() -> None:
    server = make(Limits(body_rate=20_000), body=0.3)
    async with serving(server) as running:
        port = running.port
        data = post(port, call("echo", {"text": "x" * 30_000}))
        head, body = data[: data.index(b"\r\n\r\n") + 4], data[data.index(b"\r\n\r\n") + 4 :]

        async def send(step: int, pause: float) -> int:
            async def trickle() -> None:
                with contextlib.suppress(ConnectionError):
                    for start in range(0, len(body), step):
                        await wire.send(body[start : start + step])
                        await asyncio.sleep(pause)

            async with connected(port) as wire:
                await wire.send(head)
                sender = asyncio.create_task(trickle())
                status = (await wire.response()).status
                sender.cancel()
                return status

        assert await send(5_000, 0.15) == 200  # longer than Timeouts.body, but at 33 KB a second
        assert await send(100, 0.15) == 408  # a byte now and then keeps nothing open


async def test_malformed_messages_end_their_connection_and_no_other() -> None:
    async with serving(make(Limits(malformed_per_minute=3))) as running:
        port = running.port
        bad = post(port, {"jsonrpc": "1.0", "id": 1, "method": "x"})
        async with connected(port) as good, connected(port) as wire:
            for number in range(4):
                await wire.send(bad)
                response = await wire.response()
                assert response.status == 400
                assert response.json["error"]["code"] == -32600
                assert response.get("connection") == ("close" if number == 3 else None)
            assert await wire.ended() == b""
            await good.send(post(port, call("echo", {"text": "x"})))
            assert (await good.response()).status == 200
        async with connected(port) as again:  # its meter is the one it left
            await again.send(post(port, call("echo", {"text": "x"})))
            assert (await again.response()).status == 200
            for _ in range(5):
                await again.send(bad)
                if (await again.response()).get("connection") == "close":
                    break
            else:
                raise AssertionError


async def test_a_connection_that_waits_for_its_rate_is_not_idle() -> None:
    async with serving(make(Limits(message_rate=1, message_burst=1), idle=0.6)) as running:
        port = running.port
        async with connected(port) as wire:
            for _ in range(3):
                await wire.send(post(port, call("echo", {"text": "x"})))
                assert (await wire.response()).status == 200


async def test_requests_sent_ahead_are_served_in_order_at_the_rate() -> None:
    async with serving(make(Limits(message_rate=100, message_burst=5))) as running:
        port = running.port
        async with connected(port) as wire:
            await wire.send(b"".join(post(port, call("echo", {"text": str(n)}, n)) for n in range(40)))
            for number in range(40):
                response = await wire.response()
                assert json.loads(response.body)["id"] == number


async def test_a_connection_that_fails_to_end_keeps_no_deadline_of_another(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(make(head=0.2)) as running, connected(running.port) as first, connected(running.port) as second:
        for wire in (first, second):
            await wire.send(b"POST /mcp HTTP/1.1\r\n")
        await until(lambda: len(running.listener.guests) == 2)
        broken: Any = next(iter(running.listener.guests))
        port = broken.transport.get_extra_info("peername")[1]
        broken.__class__ = type("Broken", (type(broken),), {"__slots__": (), "expire": lambda self: 1 / 0})
        for wire in (first, second):
            faulty = wire.writer.get_extra_info("sockname")[1] == port
            answer = await wire.ended()
            assert answer == b"" if faulty else answer.startswith(b"HTTP/1.1 408")
        assert "ZeroDivisionError" in caplog.text


async def test_what_comes_after_a_refusal_is_not_read_without_end() -> None:
    """A peer that is told why, and goes on sending, soon sends into a full pipe."""
    async with serving(make()) as running, connected(running.port) as wire:
        await wire.send(b"nonsense\r\n\r\n")
        assert (await wire.response()).status == 400
        sent, chunk = 0, b"x" * 65536
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1.0):
                while sent < 1 << 30:
                    await wire.send(chunk)
                    sent += len(chunk)
        assert sent < 32 << 20  # the burst of a meter in its units, and what the pipe holds
