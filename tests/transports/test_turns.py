"""Turns: everybody's comes, in order, and all of them together keep nobody else waiting for long."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from garrison import Limits, SecurityPolicy, Server
from garrison.transports.turns import SPAN, Turns
from tests.support.everywhere import call as text_call
from tests.support.everywhere import door
from tests.support.mcp import call, post
from tests.support.raw_http import connected, serving
from tests.support.roomy import ROOMY_RATES


class Loop:
    """What is to be called soon."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., None], Any]] = deque()

    def call_soon(self, call: Callable[..., None], argument: Any) -> None:
        self.soon.append((call, argument))

    def turn(self) -> None:
        call, argument = self.soon.popleft()
        call(argument)


class Line:
    """A line of peers whose turns take a third of a span each, and what was served."""

    def __init__(self) -> None:
        self.loop: Any = Loop()
        self.now = 0.0
        self.turns = Turns(lambda: self.now)
        self.served: list[str] = []

    def come(self, name: str, times: int = 1) -> None:
        def call() -> None:
            self.now += SPAN * 0.4
            self.served.append(name)
            if name == "bad":
                raise ZeroDivisionError
            if times > 1:
                self.come(name, times - 1)

        self.turns.wait(self.loop, call)


def test_a_turn_is_short_and_who_has_more_to_do_goes_to_the_end() -> None:
    line = Line()
    for name in "abcd":
        line.come(name, 2)
    assert len(line.loop.soon) == 1
    line.loop.turn()
    assert line.served == ["a", "b", "c"]
    line.come("e")
    assert len(line.loop.soon) == 1
    while line.loop.soon:
        line.loop.turn()
    assert line.served == ["a", "b", "c", "d", "a", "b", "c", "e", "d"]
    line.come("f")
    line.loop.turn()
    assert line.served[-1] == "f"
    assert not line.loop.soon


def test_one_that_waits_again_at_once_has_one_turn_at_a_time() -> None:
    line = Line()
    line.come("a", 3)
    for count in (1, 2, 3):
        line.loop.turn()
        assert line.served == ["a"] * count
    assert not line.loop.soon


def test_who_fails_fails_alone() -> None:
    line = Line()
    for name in ("a", "bad", "c"):
        line.come(name)
    with pytest.raises(ZeroDivisionError):
        line.loop.turn()
    line.loop.turn()
    assert line.served == ["a", "bad", "c"]
    assert not line.loop.soon


# On live listeners

Ask = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def peers(kind: str, server: Server, count: int) -> AsyncIterator[tuple[list[Ask], Ask]]:
    """Connections that send forty calls ahead, and one that sends a call and has its answer."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if kind == "http":
            port = (await enter(serving(server))).port
            wires = [await enter(connected(port)) for _ in range(count)]
            honest = await enter(connected(port))

            async def ask(text: str) -> None:
                await honest.send(post(port, call("spin", {"text": text})))
                assert (await honest.response()).status == 200

            data = post(port, call("spin", {"text": "flood"})) * 40
            yield [lambda text, wire=wire: wire.send(data) for wire in wires], ask
            return
        at = await enter(door(kind, server))
        lines = [await enter(at.connect()) for _ in range(count)]
        alone = await enter(at.connect())

        def message(text: str) -> bytes:
            return at.message(text_call("spin", json.dumps({"text": text})))

        async def ahead(line: Any) -> None:
            for _ in range(40):
                await line.send(message("flood"))

        async def ask_line(text: str) -> None:
            await alone.send(message(text))
            await alone.answers(1)

        yield [lambda text, line=line: ahead(line) for line in lines], ask_line


@pytest.mark.parametrize("kind", ["http", "websocket", "unix"])
async def test_however_many_send_ahead_the_others_are_served_between_short_turns(kind: str) -> None:
    limits = Limits(message_rate=100_000, message_burst=100_000)
    server = Server("turns", policy=SecurityPolicy(limits=limits, rates=ROOMY_RATES))
    ran: list[str] = []

    @server.tool(inline=True)
    def spin(text: str) -> None:
        ran.append(text)
        end = time.perf_counter() + SPAN * 0.4
        while time.perf_counter() < end:
            pass

    async with peers(kind, server, 20) as (floods, ask):
        await ask("first")
        for flood in floods:
            await flood("")
        between: list[int] = []
        for number in range(10):
            before = len(ran)
            await ask(f"honest {number}")
            between.append(ran.index(f"honest {number}") - before)
        async with asyncio.timeout(20):
            while len(ran) < 1 + 10 + 20 * 40:
                await asyncio.sleep(0.01)
    # The first has met what came with it; from then on three calls fit into a turn, and an answer takes a few turns.
    assert sorted(between)[5] <= 8, between
