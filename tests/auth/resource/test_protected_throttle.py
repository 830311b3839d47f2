"""Who gets tokens wrong too often is not looked at for a while, and nobody else is kept waiting by it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest

from garrison import Limits, SecurityPolicy, Timeouts
from garrison.auth.resource import TokenRefused, Verified
from garrison.auth.resource.throttle import Throttle
from tests.auth.resource.issuer import verifier
from tests.support.mcp import call, until
from tests.support.protected import (
    ALICE,
    BOB,
    FACES,
    Asked,
    active,
    asking,
    bearer,
    challenge,
    facing,
    guarded,
    knock,
    knocking,
    let_in,
    message,
)
from tests.support.protected import protection as protected
from tests.support.raw_http import Response, connected, exchange, serving


class Counting:
    """A verifier that counts what it is shown."""

    def __init__(self) -> None:
        self._real = verifier()
        self.issuer = self._real.issuer
        self.looks = 0

    def accepts(self, token: str) -> bool:
        return True

    def verify(self, token: str, now: float) -> Verified | Awaitable[Verified]:
        self.looks += 1
        if token.startswith("bad"):
            raise TokenRefused("bad")
        return self._real.verify(token, now)


def limits(**options: Any) -> SecurityPolicy:
    most = Limits(connections=3000, connections_per_address=3000, message_rate=100_000, message_burst=100_000)
    return SecurityPolicy(limits=most, timeouts=Timeouts(shutdown=0.2), **options)


@pytest.mark.attack("ATK-183")
@pytest.mark.parametrize("face", FACES)
async def test_a_thousand_bad_tokens_of_one_address(face: str) -> None:
    ran: list[str] = []
    counting = Counting()
    many = 1000 if face in ("http", "websocket") else 200
    server = guarded(protected(verifiers=[counting]), ran, policy=limits())
    async with facing(face, server) as port:
        assert let_in(await knock(face, port, ALICE))
        before = counting.looks
        answers: list[Response] = []
        for at in range(0, many, 50):
            answers += await asyncio.gather(*(knock(face, port, f"Bearer bad{at + n}") for n in range(50)))
        told = Counter(each.status for each in answers)
        assert set(told) == {401, 429}
        assert counting.looks - before <= 40 and told[401] <= 40  # those of a minute, and what comes back meanwhile
        late = [each for each in answers if each.status == 429]
        assert {1 <= int(each.get("retry-after") or 0) <= 60 for each in late} == {True}
        assert len({each.body for each in late}) == 1
        assert len({each.body for each in answers if each.status == 401}) == 1
        assert challenge(answers[0]).error == "invalid_token"
        # Who was let in before is let in; a token that is new has to wait.
        assert let_in(await knock(face, port, ALICE))
        assert (await knock(face, port, bearer(subject="new"))).status == 429
        assert ran == ([] if face.endswith("websocket") else ["whoami", "whoami"])


@pytest.mark.attack("ATK-183")
@pytest.mark.parametrize("face", ["http", "asgi"])
async def test_others_behind_the_same_proxy_are_not_concerned(face: str) -> None:
    counting = Counting()
    policy = limits(trusted_proxies=("127.0.0.1",), allowed_hosts=("mcp.example.com",))
    server = guarded(protected(verifiers=[counting], failures_per_minute=5), policy=policy)
    async with facing(face, server) as port:

        async def said(client: str, authorization: str) -> int:
            fields = {"host": "mcp.example.com", "x_forwarded_for": client}
            return (await exchange(port, message(port, call("whoami"), authorization, **fields))).status

        assert [await said("203.0.113.9", f"Bearer bad{n}") for n in range(7)] == [401] * 5 + [429] * 2
        assert await said("203.0.113.9", ALICE) == 429
        assert await said("203.0.113.10", ALICE) == 200
        assert await said("203.0.113.9", ALICE) == 200  # known now
        assert await said("1.2.3.4, 203.0.113.9", "Bearer bad") == 429  # what the client wrote itself counts nothing
        # A network of IPv6 belongs to one.
        assert [await said(f"2001:db8::{n:x}", f"Bearer bad6{n}") for n in range(1, 8)] == [401] * 5 + [429] * 2
        assert await said("2001:db8:0:1::1", BOB) == 200


async def test_a_known_token_is_looked_at_again_whatever_its_neighbours_do() -> None:
    """What an attacker at the same address gets wrong ends nobody's session after `recheck`."""
    counting = Counting()
    server = guarded(protected(verifiers=[counting], recheck=1.0, failures_per_minute=3), policy=limits())
    async with serving(server, token=None) as running:
        assert (await knock("http", running.port, ALICE)).status == 200
        short = bearer(subject="short", exp=time.time() - 29.4)  # and 30 seconds of leeway
        assert (await knock("http", running.port, short)).status == 200
        for number in range(5):
            await knock("http", running.port, f"Bearer bad{number}")
        await asyncio.sleep(1.1)
        looks = counting.looks
        assert (await knock("http", running.port, ALICE)).status == 200
        assert counting.looks == looks + 1
        assert (await knock("http", running.port, short)).status == 429  # one that has ended is a token like any other
        assert counting.looks == looks + 1


@pytest.mark.attack("ATK-183")
@pytest.mark.parametrize("face", FACES)
async def test_who_leaves_before_the_answer_is_counted_all_the_same(face: str) -> None:
    """Or else an authorization server could be asked about one token after another, without end."""
    fetch = Asked({"good": active()})
    auth = protected(verifiers=[asking(fetch)], failures_per_minute=5)
    async with facing(face, guarded(auth, policy=limits())) as port:
        assert let_in(await knock(face, port, "Bearer good"))
        fetch.may_answer.clear()
        for number in range(10):
            async with connected(port) as wire:
                await wire.send(knocking(face, port, f"Bearer bad{number}"))
                await until(partial(fetch.asked.__contains__, f"bad{number}"))
                wire.reset()
        await asyncio.sleep(0.05)
        fetch.may_answer.set()
        await asyncio.sleep(0.05)
        assert (await knock(face, port, "Bearer new")).status == 429
        assert len(fetch.asked) == 11
        assert let_in(await knock(face, port, "Bearer good"))


async def test_a_token_that_was_asked_about_is_counted_once() -> None:
    fetch = Asked()
    auth = protected(verifiers=[asking(fetch)], failures_per_minute=3)
    async with serving(guarded(auth, policy=limits()), token=None) as running:
        for number in (1, 1, 1, 1, 2, 2):  # shown again at once, it costs no question and tells nothing new
            assert (await knock("http", running.port, f"Bearer bad{number}")).status == 401
        assert fetch.asked == ["bad1", "bad2"]
        statuses = [(await knock("http", running.port, f"Bearer bad{number}")).status for number in (3, 4, 3)]
        assert statuses == [401, 429, 401]


async def test_no_token_and_faults_of_ours_are_not_counted() -> None:
    server = guarded(protected(failures_per_minute=2), policy=limits())
    async with serving(server, token=None) as running:
        for given in (None, None, "Basic x", "Bearer  x", None, "Basic y", "Bearer x y"):
            assert (await knock("http", running.port, given)).status in (400, 401)
        assert (await knock("http", running.port, ALICE)).status == 200


def test_the_allowance_comes_back_with_time() -> None:
    throttle = Throttle(6)
    for _ in range(6):
        assert throttle.wait("203.0.113.9", 0.0) == 0.0
        throttle.failed("203.0.113.9", 0.0)
    assert throttle.wait("203.0.113.9", 0.0) == 10.0
    assert throttle.wait("203.0.113.9", 4.0) == 6.0
    assert throttle.wait("203.0.113.9", 10.0) == 0.0
    assert throttle.wait("203.0.113.10", 0.0) == 0.0
    assert throttle.wait("203.0.113.9", -1000.0) > 0.0  # a clock that is set back gives nothing away
    throttle.failed("203.0.113.9", 10.0)
    assert throttle.wait("203.0.113.9", 10.0) == 10.0
    assert throttle.wait("203.0.113.9", 1e9) == 0.0


def test_its_memory_is_bounded() -> None:
    throttle = Throttle(1)
    for number in range(12_000):
        throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(throttle._left) == 10_000
    assert throttle.wait("10.0.46.223", 0.0) > 0.0
