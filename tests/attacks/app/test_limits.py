"""Who asks too often waits, and nobody else does; what a peer says of itself changes nothing about it."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import garrison
from garrison import Limits, Rate, Rates, SecurityPolicy, events
from tests.attacks.app.sink import Kept
from tests.attacks.app.sut import QUICK, Sut
from tests.support.mcp import call, modern, modern_fields
from tests.support.protected import bearer, facing, message, speaking
from tests.support.raw_http import TOKEN, Response, Wire, changed, connected, exchange, request, serving

pytestmark = pytest.mark.app

ALICE = bearer("read", "alice", tenant="home")
BOB = bearer("read", "bob", tenant="away")
ROOM = Limits(message_rate=1_000_000, message_burst=1_000_000)
"""One connection may send as fast as it can: rates of callers are what is looked at."""
REFERENCE = {"ref": {"type": "ref/resource", "uri": "tenant://notes/{id}"}, "argument": {"name": "id", "value": ""}}


async def many(wire: Wire, data: list[bytes], window: int = 64) -> list[Response]:
    """Send requests on one connection, so many at once, and read their responses."""
    found: list[Response] = []
    for start in range(0, len(data), window):
        await wire.send(b"".join(data[start : start + window]))
        found += [await wire.response() for _ in data[start : start + window]]
    return found


@pytest.mark.attack("ATK-146", transports=("http", "asgi", "websocket", "session"))
@pytest.mark.parametrize("face", ["http", "asgi", "websocket", "session"])
async def test_who_tries_what_there_is_finds_only_his_own(face: str, tmp_path: Path) -> None:
    sut = Sut(tmp_path, protected=True, policy=SecurityPolicy(timeouts=QUICK, limits=ROOM))
    async with facing(face, sut.server) as port:
        async with speaking(face, port, BOB) as bob, speaking(face, port, ALICE) as alice:
            answers: list[Any] = []
            for number in range(120):
                tried = {**REFERENCE, "argument": {"name": "id", "value": f"n{number % 10}"[: number % 3]}}
                answers.append(await bob.ask("completion/complete", tried))
            found = [answer["completion"]["values"] for answer in answers if "completion" in answer]
            refused = [answer for answer in answers if "completion" not in answer]
            assert {value for values in found for value in values} == {"m1"}
            assert len(refused) >= 20 and {answer["code"] for answer in refused} == {429}
            assert all(answer["data"]["retryAfter"] >= 1 for answer in refused)
            assert len(found) >= 40
            assert (await alice.ask("completion/complete", REFERENCE))["completion"]["values"] == ["n1"]
            assert (await bob.use("echo", {"text": "x"}))["content"][0]["text"] == "x"


@pytest.mark.attack("ATK-147", transports=("http", "asgi", "websocket"))
@pytest.mark.parametrize("face", ["http", "asgi", "websocket"])
async def test_one_of_many_is_limited_and_the_others_are_not(face: str, tmp_path: Path) -> None:
    kept = Kept()
    rates = Rates(principal=Rate.of("120/minute", burst=30))
    sut = Sut(tmp_path, protected=True, audit=kept, policy=SecurityPolicy(timeouts=QUICK, limits=ROOM, rates=rates))
    async with facing(face, sut.server) as port:
        async with speaking(face, port, ALICE) as alice, speaking(face, port, BOB) as bob:
            served = refused = 0
            for number in range(200):
                answer = await alice.use("echo", {"text": "a"})
                if "content" in answer:
                    served += 1
                else:
                    refused += 1
                    assert (answer["code"], answer["message"]) == (429, "Rate limit exceeded")
                    assert 1 <= answer["data"]["retryAfter"] <= 2
                    if alice.last is not None:
                        assert alice.last.status == 429
                        assert alice.last.get("retry-after") == str(answer["data"]["retryAfter"])
                if number % 10 == 0:
                    assert (await bob.use("echo", {"text": "b"}))["content"][0]["text"] == "b"
            assert 30 <= served < 60 and refused > 140
            assert len(sut.ran) == served + 20
            # Another token, session or program of hers is no new allowance.
            async with speaking(face, port, bearer("read", "alice", tenant="home", client_id="other")) as again:
                assert (await again.use("echo", {"text": "a"})).get("code") == 429
            limited = [event for event in kept.events if event.name == "limit.reached"]
            assert len(limited) == refused + 1
            assert {(event.setting, event.target) for event in limited} == {("Rates.principal", "echo")}
            assert all('"alice"' in event.principal for event in limited)
            await asyncio.sleep(1.1)
            assert (await alice.use("echo", {"text": "a"}))["content"][0]["text"] == "a"


@asynccontextmanager
async def heard(listened: bool) -> AsyncIterator[None]:
    """With somebody who listens for events, as an audit does, or without."""
    stop = events.listen(lambda event: None) if listened else lambda: None
    try:
        yield
    finally:
        stop()


SOURCES = Path(garrison.__file__).parent


async def kept(enough: int) -> tuple[int, str]:
    """Bytes that Garrison holds of what was made since memory is traced, and where most were made.

    What it is done with is given time to go, while there is more than enough.
    """
    ours = tracemalloc.Filter(inclusive=True, filename_pattern=f"{SOURCES}/*")
    end = time.monotonic() + 3.0
    while True:
        gc.collect()
        found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("lineno")
        held = sum(each.size for each in found)
        if held < enough or time.monotonic() > end:
            return held, "\n".join(map(str, found[:8]))
        await asyncio.sleep(0.2)


def spoofed(port: int, token: str | None) -> Callable[[int], bytes]:
    """Calls by somebody who calls himself otherwise each time."""
    body = call("echo", {"text": "x"}, id="id-NUMBER")
    body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = {"name": "client-NUMBER", "version": "1"}
    fields = changed(
        modern_fields(port, body, token),
        x_forwarded_for="ADDRESS", forwarded="for=ADDRESS", x_real_ip="ADDRESS", user_agent="client-NUMBER",
        cookie="id=NUMBER", mcp_session_id="NUMBER",
    )  # fmt: skip
    raw = request(json.dumps(body).encode(), fields)

    def numbered(number: int) -> bytes:
        address = b"%d.%d.%d.%d" % (number % 223 + 1, number // 7 % 250, number // 250 % 250, number % 250)
        return raw.replace(b"NUMBER", b"%06d" % number).replace(b"ADDRESS", address)

    return numbered


@pytest.mark.attack("ATK-148", transports=("http",))
@pytest.mark.parametrize("listened", [False, True], ids=["", "listened"])
@pytest.mark.parametrize(("token", "count"), [(TOKEN, 4_000), (None, 3_000)])
def test_names_that_a_peer_makes_up_are_no_keys(token: str | None, count: int, listened: bool, tmp_path: Path) -> None:
    open_to_all: Any = {} if token else {"dangerously_allow_unauthenticated": "who asks is what the test is about"}
    policy = SecurityPolicy(timeouts=QUICK, limits=ROOM, **open_to_all)

    async def play() -> None:
        sut = Sut(tmp_path, policy=policy)
        async with serving(sut.server, token=token) as running, heard(listened):
            number = spoofed(running.port, token)
            async with connected(running.port) as wire:
                statuses: dict[int, int] = {}

                async def flood(start: int, stop: int) -> None:
                    for begin in range(start, stop, 500):
                        data = [number(n) for n in range(begin, min(begin + 500, stop))]
                        for response in await many(wire, data, 100):
                            statuses[response.status] = statuses.get(response.status, 0) + 1

                await flood(0, count // 4)
                tracemalloc.start()
                try:
                    await flood(count // 4, count)
                    held, where = await kept(256 * 1024)
                finally:
                    tracemalloc.stop()
                assert statuses.keys() == {200, 429} and statuses[429] > statuses[200], statuses
                assert len(sut.ran) == statuses[200]
                assert held < 256 * 1024, f"{held >> 10} KiB\n{where}"
                admission = running.core.runner._admission
                assert len(admission._principal) <= 1

    asyncio.run(play())


@pytest.mark.attack("ATK-142", transports=("http",))
async def test_who_takes_much_waits_until_the_time_has_paid(tmp_path: Path) -> None:
    rates = Rates(output_bytes=Rate(1024, burst=100_000))
    sut = Sut(tmp_path, protected=True, policy=SecurityPolicy(timeouts=QUICK, rates=rates))
    async with facing("http", sut.server) as port:

        async def dump(who: str) -> Response:
            return await exchange(port, message(port, call("dump", {"n": 60_000}), who))

        assert [(await dump(ALICE)).status for _ in range(3)] == [200, 429, 429]
        assert (await dump(BOB)).status == 200
        assert (await exchange(port, message(port, modern("tools/list"), ALICE))).status == 429
