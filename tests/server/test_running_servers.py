"""One server, running in several places at once, and what its parts promise each other."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts, mcp_server, tool
from garrison.client import ToolListChanged
from garrison.errors import InsecureConfigurationError, RemoteError


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
