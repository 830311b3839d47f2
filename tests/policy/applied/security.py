"""`SecurityPolicy`: who and what, seen on live listeners and clients."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from garrison import Client, Limits, Rates, SecurityPolicy, Server, Timeouts
from garrison.policy.transports import UnixSocketConfig
from tests.client.fakes import http_server, modern, text
from tests.support.mcp import call, post
from tests.support.raw_http import Response, connected, exchange, serving

from .case import case
from .limits import said_by
from .rates import ONCE
from .scene import outcome, socket_folder

QUICK = Timeouts(shutdown=0.2)


def make(**settings: Any) -> Server:
    server = Server("s", policy=SecurityPolicy(**{"timeouts": QUICK, **settings}))

    @server.tool(inline=True)
    def echo(text: str = "x") -> str:
        return text

    return server


async def answer(
    server: Server, token: str | None = None, /, host: str = "127.0.0.1", **fields: str | None
) -> Response:
    """What one good call gets, but for the fields that are changed."""
    given = {} if token is None else {"token": token}
    async with serving(server, host=host) as running:
        return await exchange(running.port, post(running.port, call("echo"), **given, **fields))


@case(SecurityPolicy, "profile", default=200, changed=("conformance", "InsecureConfigurationError"))
async def profile(value: Any) -> object:
    async def served() -> int:
        reasons = {"0.0.0.0": "a test"}
        server = make(profile=value, allow_insecure_http_hosts=reasons, allowed_hosts=("mcp.example",))
        return (await answer(server, host="0.0.0.0", Host="mcp.example")).status

    return await outcome(served())


@case(SecurityPolicy, "limits", default=200, changed=(Limits(message_bytes=10), 413))
async def limits(value: Limits) -> object:
    return (await answer(make(limits=value))).status


@case(SecurityPolicy, "timeouts", default="done", changed=(Timeouts(handler=0.05), -32603))
async def timeouts(value: Timeouts) -> object:
    server = make(timeouts=value)

    @server.tool("echo-slowly")
    async def slow() -> str:
        await asyncio.sleep(0.2)
        return "done"

    async with serving(server) as running:
        found = (await exchange(running.port, post(running.port, call("echo-slowly")))).json
        return found["error"]["code"] if "error" in found else found["result"]["content"][0]["text"]


@case(SecurityPolicy, "allowed_hosts", default=421, changed=(("mcp.example",), 200))
async def allowed_hosts(value: tuple[str, ...]) -> object:
    return (await answer(make(allowed_hosts=value), Host="mcp.example")).status


@case(
    SecurityPolicy, "allowed_origins", default=(403, None), changed=(("https://a.example",), (200, "https://a.example"))
)
async def allowed_origins(value: tuple[str, ...]) -> object:
    found = await answer(make(allowed_origins=value), origin="https://a.example")
    return found.status, found.get("access-control-allow-origin")


@case(SecurityPolicy, "trusted_proxies", default=[200, 503], changed=(("127.0.0.1",), [200, 200]))
async def trusted_proxies(value: tuple[str, ...]) -> object:
    """Where one address may have one connection, a trusted proxy may have more."""
    statuses: list[int] = []
    server = make(trusted_proxies=value, limits=Limits(connections_per_address=1))
    async with serving(server) as running, contextlib.AsyncExitStack() as stack:
        for client in ("203.0.113.1", "203.0.113.2"):
            wire = await stack.enter_async_context(connected(running.port))
            with contextlib.suppress(ConnectionError):
                await wire.send(post(running.port, call("echo"), x_forwarded_for=client))
            statuses.append((await wire.response()).status)
    return statuses


@case(SecurityPolicy, "public_url", default=(421, 200), changed=("https://mcp.example/mcp", (200, 400)))
async def public_url(value: str) -> object:
    """Its name is answered, and a request that reached the proxy without TLS is not."""
    server = make(public_url=value, trusted_proxies=("127.0.0.1",))
    named = await answer(server, Host="mcp.example")
    return named.status, (await answer(server, x_forwarded_proto="http")).status


@case(SecurityPolicy, "tolerate", default=406, changed=(("accept",), 200))
async def tolerate(value: tuple[str, ...]) -> object:
    return (await answer(make(tolerate=value), accept="application/json")).status


@case(SecurityPolicy, "tolerate", default="ProtocolViolation", changed=(("unknown_members",), "ok"))
async def tolerate_of_a_client(value: tuple[str, ...]) -> object:
    def more(request: Any) -> dict[str, Any]:
        found = {"resultType": "complete", **text("ok")}
        return {"jsonrpc": "2.0", "id": request.message["id"], "result": found, "trace": 1}

    async with http_server(modern({"tools/call": more})) as fake:

        async def called() -> str:
            return said_by(await client.call_tool("x"))

        async with Client(fake.url, policy=SecurityPolicy(tolerate=value, timeouts=QUICK)) as client:
            return await outcome(called())


@case(SecurityPolicy, "rates", default=[200, 200], changed=(Rates(principal=ONCE), [200, 429]))
async def rates(value: Rates) -> object:
    async with serving(make(rates=value)) as running:
        return [(await exchange(running.port, post(running.port, call("echo")))).status for _ in range(2)]


def leaving_case(name: str, text: str, default: tuple[str, object], value: Any, seen: tuple[str, object]) -> None:
    """A text that leaves, and what `_meta` says of it."""

    @case(SecurityPolicy, name, default=default, changed=(value, seen))
    async def observe(value: Any) -> object:
        async with serving(make(**{name: value})) as running:
            answer = (await exchange(running.port, post(running.port, call("echo", {"text": text})))).json["result"]
        notes = {key: note for key, note in answer["_meta"].items() if key.startswith("garrison/")}
        return answer["content"][0]["text"], notes


HIDDEN, KEY = "a\u202eb", "key AKIAIOSFODNN7EXAMPLE"
SANITISED = {"garrison/sanitised": True}
leaving_case("hygiene", HIDDEN, ("a<U+202E>b", SANITISED), "strip", ("ab", SANITISED))
leaving_case("dangerously_skip_hygiene", HIDDEN, ("a<U+202E>b", SANITISED), "a test", (HIDDEN, {}))
leaving_case("redact_results", KEY, (KEY, {}), True, ("key [redacted:aws]", {"garrison/redacted": True}))

INSECURE = {"0.0.0.0": "a test"}


@case(SecurityPolicy, "allow_insecure_http_hosts", default="ConnectionFailed", changed=(INSECURE, "ok"))
async def insecure_hosts_of_a_client(value: dict[str, str]) -> object:
    async with http_server(modern({"tools/call": lambda request: text("ok")})) as fake:

        async def called() -> str:
            url = fake.url.replace("127.0.0.1", "0.0.0.0")  # not loopback by its name, but it gets there
            async with Client(url, policy=SecurityPolicy(allow_insecure_http_hosts=value)) as client:
                return said_by(await client.call_tool("x"))

        return await outcome(called())


@case(SecurityPolicy, "allow_insecure_http_hosts", default="InsecureConfigurationError", changed=(INSECURE, 200))
async def insecure_hosts_of_a_server(value: dict[str, str]) -> object:
    async def served() -> int:
        server = make(allow_insecure_http_hosts=value, allowed_hosts=("mcp.example",))
        return (await answer(server, host="0.0.0.0", Host="mcp.example")).status

    return await outcome(served())


@case(SecurityPolicy, "dangerously_allow_unauthenticated", default=401, changed=("a test", 200))
async def unauthenticated(value: str) -> object:
    server = make(dangerously_allow_unauthenticated=value)
    async with serving(server, token=None) as running:
        return (await exchange(running.port, post(running.port, call("echo"), None))).status


@case(
    SecurityPolicy,
    "dangerously_allow_unsafe_socket_path",
    default="InsecureConfigurationError",
    changed=("a test", "x"),
)
async def unsafe_socket_path(value: str) -> object:
    with socket_folder() as place:
        place.chmod(0o777)

        async def served() -> str:
            async with make(dangerously_allow_unsafe_socket_path=value).unix(UnixSocketConfig(str(place / "s"))) as at:
                async with Client(at.url) as client:
                    return said_by(await client.call_tool("echo"))

        return await outcome(served())
