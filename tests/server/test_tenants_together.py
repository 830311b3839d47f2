"""Callers side by side: whose call a handler runs in, and what the time of an answer tells."""

from __future__ import annotations

import asyncio
import contextvars
import random
import statistics
import time
from typing import Any

import pytest

from garrison import Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.server.access import Access
from tests.support.callers import KINDS, Who, place
from tests.support.protected import protection
from tests.support.raw_http import connected
from tests.support.roomy import ROOMY_RATES

RED, BLUE = Who("alice", "notes:read", "red"), Who("bob", "notes:write", "blue")
_SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("_SEEN", default="")


def make() -> Server:
    policy = SecurityPolicy(
        limits=Limits(message_rate=1_000_000, message_burst=1_000_000),
        timeouts=Timeouts(shutdown=0.2),
        rates=ROOMY_RATES,
    )
    server = Server("both", auth=protection(tenant_claim="tenant"), policy=policy)
    pauses = random.Random(1)

    def about(ctx: Context) -> list[str | None]:
        p = ctx.principal
        return [p.subject, p.tenant, *sorted(p.scopes)]

    @server.tool(public=True)
    async def waits(ctx: Context, number: int) -> dict[str, Any]:
        before = about(ctx)
        left = _SEEN.get()  # what another call would have left behind
        _SEEN.set(ctx.principal.subject)
        await asyncio.sleep(pauses.random() * 0.004)
        return {"number": number, "before": before, "after": about(ctx), "left": left, "mine": _SEEN.get()}

    @server.tool(public=True)
    def works(ctx: Context, number: int) -> dict[str, Any]:
        before = about(ctx)
        left = _SEEN.get()
        _SEEN.set(ctx.principal.subject)
        time.sleep(pauses.random() * 0.002)
        return {"number": number, "before": before, "after": about(ctx), "left": left, "mine": _SEEN.get()}

    def mine(access: Access) -> bool:
        return access.arguments is None or access.arguments.get("tenant") == access.principal.tenant

    @server.resource("plans://{tenant}/{number}", authorize=mine)
    async def plans(tenant: str, number: str) -> str:
        return number

    @server.resource("vault://{tenant}/{number}", scopes=["admin"], without_scopes="hide")
    async def vault(tenant: str, number: str) -> str:
        return number

    return server


@pytest.mark.attack("ATK-177")
@pytest.mark.parametrize("transport", [kind for kind in KINDS if kind != "memory"])
async def test_a_handler_runs_for_its_caller_whatever_runs_beside_it(transport: str) -> None:
    """500 calls of two callers, on the loop and in threads, mixed as they come."""
    order = random.Random(2)
    async with place(transport, make()) as at:
        async with at.caller(RED, "2025-11-25") as red, at.caller(BLUE) as blue:

            async def one(number: int) -> None:
                p, who = order.choice([(red, RED), (blue, BLUE)])
                name = order.choice(["waits", "works"])
                async with at_once:
                    result = await p.tool(name, {"number": number})
                said = result.get("structuredContent")
                expected = [who.subject, who.tenant, who.scope]
                assert said == {
                    "number": number,
                    "before": expected,
                    "after": expected,
                    "left": "",
                    "mine": who.subject,
                }

            at_once = asyncio.Semaphore(40)
            await asyncio.gather(*(one(number) for number in range(500)))


@pytest.mark.attack("ATK-176")
async def test_time_does_not_tell_what_is_there() -> None:
    """What is absent, what scopes hide and what is another tenant's take one time, as far as it can be told."""
    kinds = ("blank", "vault", "plans")
    async with place("http", make()) as at, at.caller(RED) as p, connected(at.port) as wire:
        asked = {
            kind: p.encode(p.message("resources/read", {"uri": f"{kind}://blue/{'1' * 16}"}, 1, {})) for kind in kinds
        }
        own = p.encode(p.message("resources/read", {"uri": "plans://red/1"}, 1, {}))

        async def seconds(data: bytes) -> float:
            began = time.perf_counter()
            await wire.send(data)
            response = await wire.response()
            taken = time.perf_counter() - began
            assert (b"Resource not found" in response.body) == (data is not own)
            return taken

        ratios: list[float] = []
        for _ in range(3):  # the machine has other work
            samples: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(1000):
                for kind in random.sample(kinds, 3):
                    samples[kind].append(await seconds(asked[kind]))
            medians = [statistics.median(samples[kind]) for kind in kinds]
            ratios.append(max(medians) / min(medians))
            if ratios[-1] < 1.75:
                break
        else:
            raise AssertionError(ratios)
        await seconds(own)
