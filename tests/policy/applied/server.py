"""The arguments of `Server`, seen by clients of a live listener."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from garrison import Client, Context, Limits, Rates, SecurityPolicy, Server, SharedRates, Timeouts
from garrison.audit import FunctionSink
from garrison.protocol.types import Icon, ToolAnnotations
from garrison.server.idempotency import MemoryOutcomes
from tests.support.mcp import call, modern, post
from tests.support.raw_http import TOKEN, connected, exchange, request, serving, standard
from tests.support.redis_server import redis_server

from .case import case
from .limits import asking, opening, said_by
from .rates import ONCE
from .scene import YES, folder

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))


def make(name: str = "s", **options: Any) -> Server:
    server = Server(name, **{"policy": POLICY, **options})
    for number in range(3):
        server.add_tool(lambda: "x", f"t{number}", structured_output=False)

    @server.tool()
    def state(ctx: Context) -> str:
        return str(ctx.state)

    return server


async def discovered(server: Server) -> Any:
    """The result of `server/discover`."""
    async with serving(server) as running:
        return (await exchange(running.port, post(running.port, modern("server/discover")))).json["result"]


async def info(**options: Any) -> dict[str, Any]:
    """What it says of itself."""
    return (await discovered(make(**options)))["_meta"]["io.modelcontextprotocol/serverInfo"]


@case(Server, "name", first=("one", "one"), changed=("other", "other"))
async def name(value: str) -> object:
    return (await info(name=value))["name"]


@case(Server, "version", default="0.1.0", changed=("9.9", "9.9"))
async def version(value: str) -> object:
    return (await info(version=value))["version"]


def word_case(name: str, wire: str, value: Any, seen: object) -> None:
    """One of the further words about it, which are not said by default."""

    @case(Server, name, default=None, changed=(value, seen))
    async def observe(value: Any) -> object:
        return (await info(**{name: value})).get(wire)


word_case("title", "title", "Title", "Title")
word_case("description", "description", "Described", "Described")
word_case("website_url", "websiteUrl", "https://example.com", "https://example.com")
word_case("icons", "icons", [Icon(src="https://example.com/i.png")], [{"src": "https://example.com/i.png"}])


@case(Server, "instructions", default=None, changed=("Use it", "Use it"))
async def instructions(value: str | None) -> object:
    return (await discovered(make(instructions=value))).get("instructions")


@asynccontextmanager
async def yielding() -> AsyncIterator[str]:
    yield "entered"


@case(Server, "lifespan", default="None", changed=(yielding, "entered"))
async def lifespan(value: Any) -> object:
    async with serving(make(lifespan=value)) as running, Client(running.url, token=TOKEN) as client:
        return said_by(await client.call_tool("state"))


@case(Server, "policy", default=200, changed=(SecurityPolicy(limits=Limits(message_bytes=10)), 413))
async def policy(value: SecurityPolicy | None) -> object:
    async with serving(make(policy=value)) as running:
        return (await exchange(running.port, post(running.port, call("t0")))).status


@case(Server, "state_key", default="error", changed=("ab" * 32, "result"))
async def state_key(value: str | None) -> object:
    """Whether what one process sealed, another with the same key opens."""
    first, second = (asking(1, policy=POLICY, state_key=value) for _ in range(2))
    message = call("ask", capabilities={"elicitation": {}})
    async with serving(first) as running:
        asked = (await exchange(running.port, post(running.port, message))).json["result"]
    given = dict.fromkeys(asked["inputRequests"], YES)
    message["params"] |= {"requestState": asked["requestState"], "inputResponses": given}
    async with serving(second) as running:
        answer = (await exchange(running.port, post(running.port, message))).json
    return "result" if "result" in answer else "error"


class Once:
    """A memory of what was used in which everything was used already."""

    def take(self, key: str, until: float) -> bool:
        return False


@case(Server, "replays", default="result", changed=(Once(), "error"))
async def replays(value: Once | None) -> object:
    """Whether the answer to a tool that destroys something is taken."""
    server = make(replays=value)

    async def wipe(ctx: Context) -> str:
        return (await ctx.elicit("all of it?", {"type": "object", "properties": {}})).action

    server.add_tool(wipe, annotations=ToolAnnotations(destructive_hint=True))
    message = call("wipe", capabilities={"elicitation": {}})
    async with serving(server) as running:
        asked = (await exchange(running.port, post(running.port, message))).json["result"]
        given = {name: {"action": "accept", "content": {}} for name in asked["inputRequests"]}
        message["params"] |= {"requestState": asked["requestState"], "inputResponses": given}
        answer = (await exchange(running.port, post(running.port, message))).json
    return "result" if "result" in answer else "error"


async def listed(**options: Any) -> Any:
    """The first page of the tools."""
    async with serving(make(**options)) as running:
        return (await exchange(running.port, post(running.port, modern("tools/list")))).json["result"]


@case(Server, "page_size", default=4, changed=(2, 2))
async def page_size(value: int | None) -> object:
    return len((await listed(page_size=value))["tools"])


@case(Server, "ttl_ms", default=60_000, changed=(77, 77))
async def ttl_ms(value: int) -> object:
    return (await listed(ttl_ms=value))["ttlMs"]


@case(Server, "cache_scope", default="private", changed=("public", "public"))
async def cache_scope(value: str) -> object:
    return (await listed(cache_scope=value))["cacheScope"]


async def shaken(legacy: str) -> object:
    """What a handshake gets: a session, none, or nothing."""
    async with serving(make(legacy=legacy)) as running:
        answer = await exchange(running.port, request(json.dumps(opening()).encode(), standard(running.port)))
        if "result" not in answer.json:
            return "refused"
        return "a session" if answer.get("mcp-session-id") else "no session"


@case(Server, "legacy", default="a session", changed=("stateless", "no session"))
async def legacy_stateless(value: str) -> object:
    return await shaken(value)


@case(Server, "legacy", default="a session", changed=("off", "refused"))
async def legacy_off(value: str) -> object:
    return await shaken(value)


@case(Server, "http_sse", default=404, changed=(True, 200))
async def http_sse(value: bool) -> object:
    async with serving(make(http_sse=value)) as running, connected(running.port) as wire:
        await wire.send(request(b"", standard(running.port), method="GET", target="/sse", length=False))
        return (await wire.head()).status


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[list[str]]:
    """Two servers of one name, as two processes would be; what the handler of either did."""
    ran: list[str] = []

    async def buy(what: str, key: str) -> str:
        ran.append(what)
        return "bought"

    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for _ in range(2):
            server = make(**options)
            server.add_tool(buy, idempotent_by="key")
            ports.append((await stack.enter_async_context(serving(server))).port)
        for port in ports:
            answer = await exchange(port, post(port, call("buy", {"what": "bread", "key": "k1"})))
            ran.append(str(answer.status))
        yield ran


@case(Server, "audit", default=[], changed=("kept", ["call.ended", "auth.refused"]), apart=True)
async def audit(value: str | None) -> object:
    """What is on record of a call, and of one with a wrong token."""
    kept: list[str] = []
    sink = None if value is None else FunctionSink(lambda record: kept.append(record.event))
    async with serving(make(audit=sink)) as running:
        assert (await exchange(running.port, post(running.port, call("t0")))).status == 200
        assert (await exchange(running.port, post(running.port, call("t0"), "t" * 20))).status == 401
    return [name for name in kept if name in ("call.ended", "auth.refused")]


@case(
    Server,
    "rate_store",
    default=["bread", "200", "bread", "200"],
    changed=("shared", ["bread", "200", "429"]),
    peer=True,
)
async def rate_store(value: str | None) -> object:
    """What two processes let pass where one call is allowed."""
    once = SecurityPolicy(timeouts=Timeouts(shutdown=0.2), rates=Rates(principal=ONCE))
    if value is None:
        async with two(policy=once) as ran:
            return ran
    with folder() as place, redis_server(place) as store:
        async with two(policy=once, rate_store=SharedRates(store.url, timeout=5.0)) as ran:
            return ran


@case(Server, "outcomes", default=["bread", "200", "bread", "200"], changed=("shared", ["bread", "200", "200"]))
async def outcomes(value: str | None) -> object:
    """How often two processes do what one key stands for."""
    async with two(outcomes=None if value is None else MemoryOutcomes()) as ran:
        return ran
