"""One server, running in several places at once, and what its parts promise each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts, mcp_server, tool
from garrison.client import ToolListChanged
from garrison.errors import InsecureConfigurationError, RemoteError
from garrison.server.serve import stdio_shell


def make(**options: object) -> Server:
    server = Server("s", **options)  # pyright: ignore[reportArgumentType] - a test passes what it wants

    @server.tool()
    def grow(name: str) -> str:
        """Registered from a worker's thread."""
        server.add_tool(lambda: "x", name, structured_output=False)
        return name

    return server


async def first_change(client: Client, ready: asyncio.Event) -> object:
    async with client.subscribe(tools=True) as changes:
        ready.set()
        async for change in changes:
            return change
    return None


async def test_a_change_made_in_a_thread_reaches_every_running_form_of_the_server() -> None:
    server = make()
    async with server.http(port=0, token="t" * 20) as serving:
        async with Client(serving.url, token="t" * 20) as far, Client(server) as near, Client(server) as leaving:
            events = [asyncio.Event() for _ in range(2)]
            waiting = [asyncio.create_task(first_change(c, e)) for c, e in zip((far, near), events, strict=True)]
            for event in events:
                await event.wait()
            await leaving.aclose()  # the end of one connection is not the end of the others' subscriptions
            await near.call_tool("grow", {"name": "new"})
            assert await asyncio.gather(*waiting) == [ToolListChanged(), ToolListChanged()]
            assert "new" in {t.name for t in (await far.list_tools()).tools}


async def test_serving_in_a_programs_own_loop() -> None:
    server = make()
    async with server.http(port=0, path="/elsewhere", token="t" * 20) as serving:
        assert serving.url.endswith("/elsewhere")
        async with Client(serving.url, token="t" * 20) as client:
            assert (await client.call_tool("grow", {"name": "x1"})).structured_content == {"result": "x1"}
    with pytest.raises(InsecureConfigurationError, match="loopback"):
        server.http("0.0.0.0", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_events_leave_at_once(host: str) -> None:
    """Small writes are not held back until the peer has acknowledged the ones before."""
    server = make()
    async with server.http(host, 0, token="t" * 20) as serving:
        async with Client(serving.url, token="t" * 20) as client:
            await client.list_tools()
            connections: list[Any] = list(serving.listener.guests)
            assert connections
            for connection in connections:
                sock = connection.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_class_takes_the_options_of_a_server() -> None:
    left: list[str] = []

    @asynccontextmanager
    async def life():
        yield "alive"
        left.append("left")

    @mcp_server(name="c", instructions="Use it.", lifespan=life, page_size=1)
    class Two:
        @tool(inline=True)
        def one(self) -> int:
            return 1

        @tool()
        async def state(self, ctx: Context[str]) -> str:
            return ctx.state

    async with Client(Server.of(Two())) as client:
        assert client.instructions == "Use it."
        assert len((await client.list_tools()).tools) == 1
        assert (await client.call_tool("state")).structured_content == {"result": "alive"}
    assert left == ["left"]


async def test_an_error_without_an_id_is_for_the_only_call_that_waits() -> None:
    server = Server("s", policy=SecurityPolicy(limits=Limits(json_items=5)))

    @server.tool(inline=True)
    def count(items: list[int]) -> int:
        return len(items)

    async with Client(server) as client:
        with pytest.raises(RemoteError) as caught:
            await client.call_tool("count", {"items": [1] * 6}, timeout=5)
        assert caught.value.code == -32700
        assert (await client.call_tool("count", {"items": [1] * 5})).structured_content == {"result": 5}


async def test_a_handshake_is_refused_with_what_is_spoken_instead() -> None:
    connection = await make(legacy="off").connect_memory()
    said: list[dict[str, object]] = []
    connection.on_message = lambda data: said.append(json.loads(data))
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    connection.send(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params}).encode())
    await asyncio.sleep(0)
    assert said[0]["id"] == 7
    assert said[0]["error"]["data"]["supported"] == ["2026-07-28"]  # pyright: ignore[reportIndexIssue] - JSON
    await connection.close()


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "object", "properties": {"password": {"type": "string"}}}, "secret"),
        ({"type": "object", "properties": {"pin": {"type": "string", "title": "API key"}}}, "secret"),
        ({"type": "object", "properties": {"inner": {"type": "object"}}}, "text, number"),
        ({"type": "string"}, "form"),
        ({"type": "object", "properties": {"name": {"type": "string"}}}, ""),
    ],
)
async def test_a_form_written_by_hand_is_held_to_the_rules(schema: dict[str, object], word: str) -> None:
    server = Server("s")

    @server.tool()
    async def ask(ctx: Context) -> str:
        try:
            answer = await ctx.elicit("?", schema)
        except Exception as exc:
            return str(exc)
        return answer.action

    async def decline(params: object) -> dict[str, object]:
        return {"action": "decline"}

    async with Client(server, on_elicit=decline) as client:
        told = (await client.call_tool("ask")).structured_content
    assert isinstance(told, dict)
    assert word in told["result"] if word else told == {"result": "decline"}


async def test_a_handler_that_ignores_its_deadline_is_answered_for() -> None:
    server = Server("s")

    @server.tool(timeout=0.05)
    async def stubborn() -> str:
        for _ in range(12):
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue
        return "late"

    @server.tool(timeout=5)
    async def quick() -> str:
        await asyncio.sleep(0.01)
        return "in time"

    async with Client(server) as client:
        with pytest.raises(RemoteError, match="too long"):
            await asyncio.wait_for(client.call_tool("stubborn"), 1)
        assert (await client.call_tool("quick")).structured_content == {"result": "in time"}


async def test_reports_faster_than_they_are_read_do_not_pile_up() -> None:
    server = Server("s")
    most = 5

    @server.tool()
    async def report(ctx: Context) -> str:
        for step in range(1, 200):
            await ctx.progress(step)
        return "done"

    running = 0
    peak = 0

    async def slow(progress: object) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.2)
        running -= 1

    async with Client(server, policy=SecurityPolicy(limits=Limits(in_flight=most))) as client:
        result = await client.call_tool("report", on_progress=slow)
        assert result.structured_content == {"result": "done"}
        assert client.dropped["report"] > 0
    assert 0 < peak <= most


async def test_a_stdio_client_that_stops_reading_is_told_once_of_each_change_and_then_given_up() -> None:
    async def run(write_stall: float, read: bool) -> tuple[bytes, float]:
        server = Server("s", policy=SecurityPolicy(timeouts=Timeouts(write_stall=write_stall, shutdown=0.2)))
        server.add_resource(lambda: "x", "test://r", name="r")
        server_in, client_out = os.pipe()
        client_in, server_out = os.pipe()
        core = server.core()
        await core.start()
        shell = stdio_shell(core, server_in, server_out)
        loop = asyncio.get_running_loop()
        started = loop.time()
        running = asyncio.create_task(shell.run())
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        wanted = {"resourceSubscriptions": ["test://r"]}
        listen = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "subscriptions/listen",
            "params": {"_meta": meta, "notifications": wanted},
        }
        os.write(client_out, json.dumps(listen).encode() + b"\n")
        await asyncio.sleep(0.05)
        for _ in range(20_000):
            server.resource_updated("test://r")
        got = b""
        if read:
            os.set_blocking(client_in, False)
            while True:
                await asyncio.sleep(0.01)
                with contextlib.suppress(BlockingIOError):
                    got += os.read(client_in, 1 << 20)
                if got.count(b"updated") and not shell.congested:
                    break
            os.close(client_out)
        await asyncio.wait_for(running, 5)
        await core.close()
        for descriptor in (client_in, server_in, server_out, *(() if read else (client_out,))):
            os.close(descriptor)
        return got, loop.time() - started

    _, seconds = await run(0.3, read=False)
    assert seconds < 4
    got, _ = await run(30, read=True)
    assert got.count(b"updated") < 20_000


async def test_a_client_that_does_not_answer_is_named_as_the_reason() -> None:
    server = Server("s", policy=SecurityPolicy(timeouts=Timeouts(ask=0.05)))

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit("?", {"type": "object", "properties": {}})).action

    async def never(params: object) -> dict[str, object]:
        await asyncio.sleep(60)
        return {"action": "cancel"}

    async with Client(server, era="legacy", on_elicit=never) as client:
        result = await client.call_tool("ask")
    assert result.is_error
    assert "did not answer" in result.content[0].text  # pyright: ignore[reportAttributeAccessIssue] - text is sent
