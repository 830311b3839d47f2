"""`Limits`: what a peer may cause, seen on live listeners and clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import Any

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.policy.transports import UnixSocketConfig
from tests.client.fakes import EVENTS, chunk, event, http_server, modern, result, text
from tests.support.edge import Counting
from tests.support.mcp import HttpPeer, call, post, until
from tests.support.mcp import modern as modern_message
from tests.support.raw_http import TOKEN, Wire, exchange, request, serving, standard
from tests.support.websocket import CLOSE, HELLO, TEXT, fragments

from .case import case
from .scene import LEGACY, YES, end_of, http, outcome, socket_folder, unix_lines, websocket, within

QUICK = Timeouts(shutdown=0.2)


def policy(**limits: int) -> SecurityPolicy:
    return SecurityPolicy(limits=Limits(**limits), timeouts=QUICK)


@case(Limits, "message_bytes", default=200, changed=(2000, 413))
async def message_bytes(value: int) -> object:
    async with http(Limits(message_bytes=value)) as scene:
        assert await scene.echo("short") == 200
        return await scene.echo("x" * 3000)


@case(Limits, "message_bytes", default=3000, changed=(2000, "ProtocolViolation"))
async def message_bytes_of_a_client(value: int) -> object:
    async with http() as scene:
        async with Client(scene.running.url, token=TOKEN, policy=policy(message_bytes=value)) as client:
            return await outcome(length(client, {"size": 3000}))


async def length(client: Client, arguments: dict[str, Any]) -> int:
    result: Any = (await client.call_tool("dump", arguments)).content[0]
    return len(result.text)


def json_case(name: str, limit: int, value: dict[str, Any]) -> None:
    """One limit of the JSON reader: the same arguments pass by default, and are refused with this limit."""

    @case(Limits, name, default=(200, [value]), changed=(limit, (400, [])))
    async def observe(limit: int) -> object:
        ran: list[object] = []
        server = Server("s", policy=policy(**{name: limit}))

        @server.tool(inline=True)
        def take(value: dict[str, object]) -> int:
            ran.append(value)
            return len(value)

        async with serving(server) as running:
            response = await exchange(running.port, post(running.port, call("take", {"value": value})))
            return response.status, ran


json_case("json_depth", 6, {"a": [[[[1]]]]})
json_case("json_nodes", 25, {"a": list(range(30))})
json_case("json_members", 10, {str(n): n for n in range(11)})
json_case("json_items", 10, {"a": list(range(11))})
json_case("json_key_chars", 50, {"k" * 51: 1})
json_case("json_number_chars", 20, {"a": 10**20})


async def refused_or(limits: dict[str, int], tool: str, late: bool = False, **arguments: Any) -> object:
    """What a call of `take`, `many` or `give` gets where a server has these limits: its text, or its error.

    `late`: it gets them when its tools are there already, as from the command line.
    """
    server = Server("s", policy=policy(**({} if late else limits)))

    @server.tool(inline=True)
    def take(text: str) -> int:
        return len(text)

    @server.tool(inline=True)
    def many(items: list[int]) -> int:
        return len(items)

    @server.tool(structured_output=False)
    def give(size: int) -> str:
        return "x" * size

    if late:
        server.policy = policy(**limits)
    async with serving(server) as running:
        answer = (await exchange(running.port, post(running.port, call(tool, arguments)))).json
        listed = (await exchange(running.port, post(running.port, modern_message("tools/list")))).json
    properties = {tool["name"]: tool["inputSchema"]["properties"] for tool in listed["result"]["tools"]}
    bounds = properties["take"]["text"]["maxLength"], properties["many"]["items"]["maxItems"]
    assert bounds == (limits.get("argument_chars", 65_536), limits.get("argument_items", 1000))
    if "error" in answer:
        return answer["error"]["code"]
    result = answer["result"]
    said = result["content"][0]["text"]
    if result.get("isError"):
        return said
    kept = result.get("_meta", {}).get("garrison/truncated")
    return (said, kept) if kept else said


@case(
    Limits,
    "argument_chars",
    default="100",
    changed=(99, "Invalid arguments for tool 'take': text: must have at most 99 characters"),
)
async def argument_chars(value: int) -> object:
    return await refused_or({"argument_chars": value}, "take", text="x" * 100)


@case(
    Limits,
    "argument_chars",
    default="100",
    changed=(99, "Invalid arguments for tool 'take': text: must have at most 99 characters"),
)
async def late_argument_chars(value: int) -> object:
    return await refused_or({"argument_chars": value}, "take", late=True, text="x" * 100)


@case(
    Limits,
    "argument_items",
    default="10",
    changed=(9, "Invalid arguments for tool 'many': items: must have at most 9 items"),
)
async def argument_items(value: int) -> object:
    return await refused_or({"argument_items": value}, "many", items=[1] * 10)


@case(
    Limits,
    "output_block_bytes",
    default="x" * 50,
    changed=(40, ("x" * 40 + "\n[cut here: 40 of 50 bytes]", {"bytes": 50, "kept": 40})),
)
async def output_block_bytes(value: int) -> object:
    return await refused_or({"output_block_bytes": value}, "give", size=50)


@case(Limits, "output_bytes", default="x" * 3000, changed=(2000, -32603))
async def output_bytes(value: int) -> object:
    return await refused_or({"output_bytes": value}, "give", size=3000)


@case(Limits, "header_bytes", default=200, changed=(4096, 431))
async def header_bytes(value: int) -> object:
    async with http(Limits(header_bytes=value)) as scene:
        return await scene.echo(x_long="y" * 5000)


@case(Limits, "header_count", default=200, changed=(20, 431))
async def header_count(value: int) -> object:
    async with http(Limits(header_count=value)) as scene:
        return await scene.echo(**{f"x_{number}": "y" for number in range(20)})


def places_case(name: str) -> None:
    """Four connections that are let in; with room for three, the fourth is told so."""

    @case(Limits, name, default=[200] * 4, changed=(3, [200] * 3 + [503]))
    async def observe(value: int) -> object:
        statuses: list[int] = []
        async with http(Limits(**{name: value})) as scene, contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                wire: Wire = await stack.enter_async_context(scene.connect())
                with contextlib.suppress(ConnectionError):  # who finds no place is not listened to
                    await wire.send(post(scene.port, call("echo", {"text": "x"})))
                statuses.append((await wire.response()).status)
        return statuses


places_case("connections")
places_case("connections_per_address")


@case(Limits, "in_flight", default=6, changed=(2, 2))
async def in_flight(value: int) -> object:
    counting = Counting(Limits(in_flight=value))
    async with unix_lines(counting.server) as line:
        await line.send(*(call("slow", {"seconds": 5}, id) for id in range(6)))
        await asyncio.sleep(0.1)
        return counting.ran.count("slow")


@case(Limits, "in_flight_per_principal", default=200, changed=(1, 429))
async def in_flight_per_principal(value: int) -> object:
    async with http(Limits(in_flight_per_principal=value)) as scene, scene.connect() as wire:
        await wire.send(post(scene.port, call("slow", {"seconds": 5})))
        await until(lambda: scene.counting.ran)
        return (await scene.ask(call("slow", {"seconds": 0}))).status


def pace_case(name: str, others: dict[str, int], value: int) -> None:
    """A dozen calls, one after the other, that take a second when they are slowed down."""

    @case(Limits, name, default="at once", changed=(value, "nothing yet"))
    async def observe(value: int) -> object:
        counting = Counting(Limits(**{**others, name: value}))

        async def calls() -> str:
            for number in range(12):
                await line.ask(call("echo", {"text": "x"}, number))
            return "at once"

        async with unix_lines(counting.server) as line:
            return await within(0.5, calls())


pace_case("message_rate", {"message_burst": 2}, 10)
pace_case("message_burst", {"message_rate": 10}, 2)


@case(Limits, "malformed_per_minute", default="nothing yet", changed=(2, "ended"))
async def malformed_per_minute(value: int) -> object:
    async with unix_lines(Counting(Limits(malformed_per_minute=value)).server) as line:
        for _ in range(3):
            assert (await line.ask(b"{\n"))["error"]["code"] == -32700
        return await end_of(line, 0.15)


@case(Limits, "body_rate", default="nothing yet", changed=(1_000_000, 408))
async def body_rate(value: int) -> object:
    async with http(Limits(body_rate=value), body=0.1) as scene, scene.connect() as wire:
        # Of three thousand bytes all but the last came: by default that is worth three seconds.
        await wire.send(post(scene.port, call("echo", {"text": "x" * 3000}))[:-1])
        answer = await within(0.8, wire.response())
        return getattr(answer, "status", answer)


@case(Limits, "fragments", default=TEXT, changed=(8, CLOSE))
async def fragment_count(value: int) -> object:
    async with websocket(Counting(Limits(fragments=value))) as wire:
        await wire.send(*fragments(HELLO, *range(1, 20)))
        return (await wire.frame()).opcode


@case(Limits, "outbound_bytes", default=(True, "streamed"), changed=(100_000, (False, "put out")))
async def outbound_bytes(value: int) -> object:
    counting = Counting(Limits(outbound_bytes=value), write_stall=5)

    @counting.server.tool()
    def much(ctx: Context) -> str:
        for number in range(20):  # without waiting for the reader
            ctx.wait(report(ctx, number))
        return "streamed"

    async def report(ctx: Context, number: int) -> None:
        ctx.progress(number + 1, message="x" * 100_000)

    with socket_folder() as place:
        path = str(place / "s")  # what the system keeps of a Unix socket is little, and always the same
        async with serving(counting.server, unix=UnixSocketConfig(path)) as running:
            reader, writer = await asyncio.open_unix_connection(path, limit=1000)
            writer.write(post(1, call("much", progressToken="t"), host="localhost"))
            await asyncio.sleep(0.3)
            waiting = bool(running.listener.guests)
            rest = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5):
                    while b"streamed" not in rest and (data := await reader.read(1 << 16)):
                        rest = rest[-100:] + data
            writer.close()
            return waiting, "streamed" if b"streamed" in rest else "put out"


def opening(capabilities: dict[str, Any] | None = None, version: str = LEGACY) -> dict[str, Any]:
    params = {
        "protocolVersion": version,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params}


@case(Limits, "sessions", default=[200, 200], changed=(1, [200, 503]))
async def sessions(value: int) -> object:
    async with http(Limits(sessions=value)) as scene:
        data = request(json.dumps(opening()).encode(), standard(scene.port))
        return [(await exchange(scene.port, data)).status for _ in range(2)]


@case(Limits, "sessions_per_principal", default=[200, 200], changed=(1, [200, 503]))
async def sessions_per_principal(value: int) -> object:
    async with http(Limits(sessions_per_principal=value)) as scene:
        data = request(json.dumps(opening()).encode(), standard(scene.port))
        return [(await exchange(scene.port, data)).status for _ in range(2)]


def resuming_case(name: str, value: int) -> None:
    """A stream of twenty events is resumed after its first; where that is forgotten, it cannot be."""

    @case(Limits, name, default=200, changed=(value, 400))
    async def observe(value: int) -> object:
        async with http(Limits(**{name: value})) as scene:
            session = HttpPeer(LEGACY, {}, {}, scene.port)
            await session.open()
            params = {"name": "stream", "arguments": {"count": 20, "size": 10}}
            async with scene.connect() as wire:
                await wire.send(session.encode(session.message("tools/call", params, 1, {"progressToken": "t"})))
                await wire.head()
                first = (await wire.event())["id"]
                while await wire.chunk():
                    continue
            fields = [("Mcp-Session-Id", session.session or ""), ("MCP-Protocol-Version", LEGACY)]
            async with scene.connect() as wire:
                again = [*standard(scene.port), *fields, ("Last-Event-ID", first)]
                await wire.send(request(b"", again, method="GET"))
                return (await wire.head()).status


resuming_case("session_events", 5)
resuming_case("session_event_bytes", 600)


@case(Limits, "subscriptions", default="text/event-stream", changed=(1, "application/json"))
async def subscriptions(value: int) -> object:
    return await second_subscription(Limits(subscriptions=value))


@case(Limits, "subscriptions_per_principal", default="text/event-stream", changed=(1, "application/json"))
async def subscriptions_per_principal(value: int) -> object:
    return await second_subscription(Limits(subscriptions_per_principal=value))


async def second_subscription(limits: Limits) -> object:
    """What the second stream of one principal gets: a stream, or an error."""
    async with http(limits) as scene, scene.connect() as one, scene.connect() as more:
        kinds: list[str | None] = []
        for number, wire in enumerate((one, more)):
            listen = modern_message("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, number)
            await wire.send(post(scene.port, listen))
            kinds.append((await wire.head()).get("content-type"))
        assert kinds[0] == "text/event-stream"
        return kinds[1]


def item(id: str) -> str:
    return id


@case(Limits, "subscription_events", default=20, changed=(10, "ProtocolViolation"))
async def subscription_events(value: int) -> object:
    async with http() as scene:

        async def changes() -> int:
            count = 0
            async with client.subscribe(resources=[f"a:{number}" for number in range(20)]) as heard:
                for number in range(20):
                    scene.counting.server.resource_updated(f"a:{number}")
                await asyncio.sleep(0.1)
                while count < 20:
                    await anext(heard)
                    count += 1
            return count

        scene.counting.server.resource("a:{id}")(item)
        async with Client(scene.running.url, token=TOKEN, policy=policy(subscription_events=value)) as client:
            return await outcome(changes())


@case(Limits, "batch", default=["result"] * 3, changed=(2, "error"))
async def batch(value: int) -> object:
    async with http(Limits(batch=value)) as scene:
        session = HttpPeer("2025-03-26", {}, {}, scene.port)
        await session.open()
        pings: Any = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(3)]
        answer = (await exchange(scene.port, session.encode(pings))).json
        if isinstance(answer, list) and len(answer) == 3:
            return ["result" if "result" in each else "error" for each in answer]
        return "error" if "error" in (answer[0] if isinstance(answer, list) else answer) else answer


def asking(times: int, **options: Any) -> Server:
    """A server whose `ask` asks back so many times."""
    server = Server("asking", **options)

    @server.tool()
    async def ask(ctx: Context) -> str:
        for number in range(times):
            await ctx.elicit(f"{number}?", {"type": "object", "properties": {"answer": {"type": "string"}}})
        return "asked"

    return server


@case(Limits, "rounds", default=False, changed=(2, True))
async def rounds(value: int) -> object:
    wide = policy(rounds=20)
    async with serving(asking(3, policy=policy(rounds=value))) as running:
        async with Client(running.url, token=TOKEN, policy=wide, on_elicit=lambda params: YES) as client:
            return (await client.call_tool("ask")).is_error or False


@case(Limits, "rounds", default="asked", changed=(2, "ProtocolViolation"))
async def rounds_of_a_client(value: int) -> object:
    async with serving(asking(3)) as running:

        async def ask() -> object:
            return said_by(await client.call_tool("ask"))

        options: Any = {"policy": policy(rounds=value), "on_elicit": lambda params: YES}
        async with Client(running.url, token=TOKEN, **options) as client:
            return await outcome(ask())


def said_by(result: Any) -> str:
    return result.content[0].text


@case(Limits, "threads", default=6, changed=(2, 2))
async def threads(value: int) -> object:
    async with http(Limits(threads=value)) as scene:
        lock = threading.Lock()
        now = most = 0

        @scene.counting.server.tool()
        def work() -> str:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.1)
            with lock:
                now -= 1
            return "x"

        await asyncio.gather(*(scene.ask(call("work")) for _ in range(6)))
        return most


@case(Limits, "pages", default=5, changed=(3, "ProtocolViolation"))
async def pages(value: int) -> object:
    server = Server("pages", page_size=1)
    for number in range(5):
        server.add_tool(lambda: "x", f"t{number}", structured_output=False)
    async with serving(server) as running:

        async def count() -> int:
            return len([tool async for tool in client.tools()])

        async with Client(running.url, token=TOKEN, policy=policy(pages=value)) as client:
            return await outcome(count())


def listing_case(name: str, changed: int, kind: str) -> None:
    """A bound on what a client takes in a listing: five of a kind, of some 1000 bytes each."""

    @case(Limits, name, default=5, changed=(changed, "ProtocolViolation"))
    async def observe(value: int) -> object:
        server = Server("many")
        for number in range(5):
            server.add_tool(lambda: "x", f"t{number}", description="x" * 1000, structured_output=False)
            server.prompt(f"p{number}")(lambda: "x")
        async with serving(server) as running:

            async def count() -> int:
                return len([each async for each in getattr(client, kind)()])

            async with Client(running.url, token=TOKEN, policy=policy(**{name: value})) as client:
                return await outcome(count())


listing_case("definition_bytes", 1000, "tools")
listing_case("tools", 4, "tools")
listing_case("listed", 4, "prompts")


@case(Limits, "progress_rate", default=True, changed=(5, False))
async def progress_rate(value: int) -> object:
    def reports(request: Any) -> bytes:
        token = request.params["_meta"]["progressToken"]
        steps = [
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": step}}
            for step in range(50)
        ]
        parts = [event(step) for step in steps]
        return EVENTS + b"".join(parts) + event(result(request, text("ok"))) + chunk(b"")

    heard: list[object] = []
    async with http_server(modern({"tools/call": reports})) as server:
        async with Client(server.url, policy=policy(progress_rate=value)) as client:
            await client.call_tool("x", on_progress=heard.append)
    assert 5 <= len(heard) <= 50
    return len(heard) > 20


__all__ = ["asking", "opening", "policy", "said_by"]
