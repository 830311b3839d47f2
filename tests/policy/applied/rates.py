"""`Rates` and `Rate`: how often callers may call, seen over HTTP. Callers have one address unless a case says more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from garrison import Rate, Rates, SecurityPolicy, Server, Timeouts
from garrison.auth.resource import JwtVerifier
from garrison.auth.resource.server import ResourceServer
from tests.auth.resource.issuer import ISSUER, JWKS_URI, RESOURCE, web
from tests.support.mcp import Json, call, modern, post
from tests.support.protected import use
from tests.support.raw_http import exchange, serving

from .auth import issued
from .case import case

ONCE = Rate(0.001, burst=1)
"""Once, and for a test never again."""


def make(rates: Rates, auth: ResourceServer | None = None, **settings: Any) -> Server:
    policy = SecurityPolicy(rates=rates, timeouts=Timeouts(shutdown=0.2), **settings)
    server = Server("s", policy=policy, auth=auth)

    @server.tool(inline=True, public=True)
    def who() -> str:
        return "somebody, in so many bytes"

    @server.tool(inline=True, public=True, cost=2)
    def dear() -> str:
        return "dear"

    @server.prompt(public=True)
    def greet(name: str) -> str:
        return name

    @server.completion("greet", "name")
    def names(value: str) -> list[str]:
        return ["ada"]

    return server


@asynccontextmanager
async def counted(rates: Rates, **settings: Any) -> AsyncIterator[Any]:
    """What sends a message and says the status of its answer; all share the listener's token."""
    async with serving(make(rates, **settings)) as running:

        async def send(message: Json | None = None, **fields: str | None) -> int:
            answer = await exchange(running.port, post(running.port, message or call("who"), **fields))
            assert (answer.status == 429) == (answer.get("retry-after") is not None)
            return answer.status

        yield send


async def statuses(rates: Rates, *tokens: str) -> list[int]:
    """What calls get that show these tokens, one after the other."""
    checking = JwtVerifier(ISSUER, RESOURCE, jwks_uri=JWKS_URI, tenant_claim="org", fetch=web())
    async with serving(make(rates, ResourceServer(RESOURCE, checking)), token=None) as running:
        return [(await use(running.port, "who", as_=token)).status for token in tokens]


@case(Rate, "per_second", first=(0.01, [200, 429]), changed=(100.0, [200, 200]))
async def per_second(value: float) -> object:
    async with counted(Rates(principal=Rate(value, burst=1))) as send:
        first = await send()
        await asyncio.sleep(0.05)
        return [first, await send()]


@case(Rate, "burst", first=(1, [200, 429, 429]), changed=(2, [200, 200, 429]))
async def burst(value: int) -> object:
    async with counted(Rates(principal=Rate(0.001, burst=value))) as send:
        return [await send() for _ in range(3)]


@case(Rates, "principal", default=[200] * 3, changed=(ONCE, [200, 429, 429]))
async def principal(value: Rate) -> object:
    async with counted(Rates(principal=value)) as send:
        return [await send() for _ in range(3)]


@case(Rates, "principal", default=[200] * 3, changed=(ONCE, [200, 429, 200]))
async def principal_and_another(value: Rate) -> object:
    """Alice twice, then Bob."""
    alice, bob = (issued(sub=name, org="acme") for name in ("alice", "bob"))
    return await statuses(Rates(principal=value), alice, alice, bob)


@case(Rates, "address", default=[200, 200], changed=(ONCE, [200, 429]))
async def address(value: Rate | None) -> object:
    """Two people of different tenants, from one address."""
    people = [issued(sub=name, org=name) for name in ("alice", "bob")]
    return await statuses(Rates(address=value), *people)


@case(Rates, "tenant", default=[200] * 3, changed=(ONCE, [200, 429, 200]))
async def tenant(value: Rate | None) -> object:
    """Two people of one tenant, then one of another."""
    people = [issued(sub=name, org=org) for name, org in (("alice", "acme"), ("bob", "acme"), ("eve", "other"))]
    return await statuses(Rates(tenant=value), *people)


@case(Rates, "completion", default=[200, 200, 200], changed=(ONCE, [200, 429, 200]))
async def completion(value: Rate) -> object:
    """Two completions, then a call."""
    ask = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": ""}}
    async with counted(Rates(completion=value)) as send:
        return [*[await send(modern("completion/complete", ask)) for _ in range(2)], await send()]


@case(Rates, "heavy", default=[200, 200, 200], changed=(ONCE, [200, 429, 200]))
async def heavy(value: Rate | None) -> object:
    """Two calls of a tool that has a cost, then one of a tool that has none."""
    async with counted(Rates(heavy=value)) as send:
        return [*[await send(call("dear")) for _ in range(2)], await send()]


@case(Rates, "output_bytes", default=[200, 200], changed=(Rate(1, burst=10), [200, 429]))
async def output_bytes(value: Rate | None) -> object:
    async with counted(Rates(output_bytes=value)) as send:
        return [await send(), await send()]


@case(Rates, "most_keys", default=[200, 200, 200], changed=(1, [200, 200, 429]))
async def most_keys(value: int) -> object:
    """Three callers once each; where one has a place of its own, the others share what is left."""
    rates = Rates(principal=ONCE, most_keys=value)
    async with counted(rates, trusted_proxies=("127.0.0.1",)) as send:
        return [await send(x_forwarded_for=f"203.0.113.{number}") for number in range(3)]


__all__ = ["ONCE"]
