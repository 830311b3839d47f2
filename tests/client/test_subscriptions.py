"""Listening for changes, in both eras through one method."""

from __future__ import annotations

import asyncio

import pytest

import garrison.errors as e
from garrison.client import Client, ResourceListChanged, ResourceUpdated, ToolListChanged
from garrison.policy import Limits, SecurityPolicy
from garrison.protocol import types as t

from .fakes import EVENTS, Request, chunk, discovery, event, http_server, program, respond, result
from .test_http_legacy import OldServer

ID = "io.modelcontextprotocol/subscriptionId"


def note(method: str, owner: object, **params: object) -> dict:
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {"_meta": {ID: owner}, **params}}


async def take(changes, count: int) -> list[object]:
    async with asyncio.timeout(5):
        return [await anext(changes) for _ in range(count)]


class Listening:
    """A modern server: `script` writes what a stream carries after its acknowledgement."""

    def __init__(self, script) -> None:
        self.script = script
        self.streams = 0
        self.lists = 0

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.method == "tools/list":
            self.lists += 1
            return result(request, {"tools": [], "ttlMs": 60_000, "cacheScope": "public"})
        self.streams += 1
        owner = request.message["id"]
        wanted = request.params["notifications"]
        writer.write(EVENTS + event(note("subscriptions/acknowledged", owner, notifications=wanted)))
        await writer.drain()
        await self.script(request, writer, owner)
        return None


def test_changes_arrive_typed_and_the_cache_hears_of_them():
    async def script(request: Request, writer: asyncio.StreamWriter, owner: int) -> None:
        await asyncio.sleep(0.1)
        for message in (
            note("tools/list_changed", owner),
            note("prompts/list_changed", owner),  # not asked for
            note("resources/updated", owner + 1, uri="a:x"),  # another subscription's
            note("resources/updated", owner, uri="a:x/y"),
            note("resources/updated", owner, uri="b:x"),  # not asked for
        ):
            writer.write(event(message))
        closing = {"jsonrpc": "2.0", "id": owner, "result": {"resultType": "complete", "_meta": {ID: owner}}}
        writer.write(event(closing) + chunk(b""))

    async def main():
        listening = Listening(script)
        async with http_server(listening) as server, Client(server.url) as client:
            await client.list_tools()
            await client.list_tools()
            assert listening.lists == 1
            async with client.subscribe(tools=True, resources=["a:x"]) as changes:
                assert changes.acknowledged.tools_list_changed is True
                assert changes.acknowledged.prompts_list_changed is None
                async with asyncio.timeout(5):
                    assert [c async for c in changes] == [ToolListChanged(), ResourceUpdated("a:x/y")]
            await client.list_tools()
            assert listening.lists == 2 and listening.streams == 1

    asyncio.run(main())


def test_leaving_closes_the_stream():
    async def main():
        async def script(request: Request, writer: asyncio.StreamWriter, owner: int) -> None:
            while not writer.is_closing():
                writer.write(chunk(b":\n\n"))
                await writer.drain()
                await asyncio.sleep(0.01)
            ended.set()

        ended = asyncio.Event()
        async with http_server(Listening(script)) as server, Client(server.url) as client:
            async with client.subscribe(tools=True) as changes:
                waiting = asyncio.ensure_future(anext(changes, None))
                await asyncio.sleep(0.05)
            assert await waiting is None
            await asyncio.sleep(0.1)
            assert ended.is_set() or server.disconnects

    asyncio.run(main())


def test_a_broken_stream_is_opened_again_and_reports_what_may_have_changed():
    async def main():
        async def script(request: Request, writer: asyncio.StreamWriter, owner: int) -> None:
            if listening.streams == 1:
                writer.transport.abort()
            else:
                await asyncio.sleep(30)

        listening = Listening(script)
        async with http_server(listening) as server, Client(server.url) as client:
            async with client.subscribe(resources_list=True, resources=["a:x"]) as changes:
                assert await take(changes, 2) == [ResourceListChanged(), ResourceUpdated("a:x")]
            assert listening.streams == 2

    asyncio.run(main())


def test_closing_the_client_ends_the_loop():
    async def script(request: Request, writer: asyncio.StreamWriter, owner: int) -> None:
        await asyncio.sleep(30)

    async def main():
        for target in ("http", "stdio"):
            async with http_server(Listening(script)) as server:
                client = Client(server.url if target == "http" else program(STDIO))
                changes = client.subscribe(prompts=True)
                await changes.__aenter__()
                loop = asyncio.ensure_future(anext(changes, None))
                await asyncio.sleep(0.05)
                await client.aclose()
                async with asyncio.timeout(2):
                    assert await loop is None
                await changes.aclose()

    asyncio.run(main())


def test_a_reader_that_falls_behind_is_told():
    async def script(request: Request, writer: asyncio.StreamWriter, owner: int) -> None:
        writer.write(event(note("tools/list_changed", owner)) * 20)
        await asyncio.sleep(30)

    async def main():
        small = SecurityPolicy(limits=Limits(subscription_events=10))
        async with http_server(Listening(script)) as server, Client(server.url, policy=small) as client:
            async with client.subscribe(tools=True) as changes:
                await asyncio.sleep(0.1)
                assert len(await take(changes, 10)) == 10
                with pytest.raises(e.ProtocolViolation):
                    await anext(changes)

    asyncio.run(main())


def test_a_server_without_subscriptions_says_so():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            return {"jsonrpc": "2.0", "id": request.message["id"], "error": {"code": -32601, "message": "no"}}

        async with http_server(answer) as server, Client(server.url) as client:
            with pytest.raises(e.RemoteError):
                async with client.subscribe(tools=True):
                    pass

    asyncio.run(main())


STDIO = """
owner = None
for m in messages():
    method = m.get("method")
    if method == "server/discover": discover(m)
    elif method == "subscriptions/listen":
        owner = m["id"]
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": owner}}
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
              "params": {**meta, "notifications": m["params"]["notifications"]}})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": meta})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed",
              "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": owner + 9}}})
    elif method == "notifications/cancelled":
        cancelled = m["params"]["requestId"]
    elif method == "tools/call":
        if m["params"]["name"] == "exit": sys.exit(0)
        text(m, cancelled == owner)
"""


def test_one_channel_carries_subscriptions_and_calls_and_a_restart_listens_again():
    async def main():
        async with Client(program(STDIO)) as client:
            async with client.subscribe(tools=True) as changes:
                assert await take(changes, 1) == [ToolListChanged()]
                async with asyncio.timeout(5):
                    while client.dropped.get("subscription") != 1:
                        await asyncio.sleep(0.01)
                with pytest.raises(e.ConnectionLost):
                    await client.call_tool("exit")
                # once for what may have been missed, once because the new process says so
                assert await take(changes, 2) == [ToolListChanged()] * 2
            answer = await client.call_tool("cancelled?")
            assert answer.content == [t.TextContent("True")]

    asyncio.run(main())


def test_an_older_server_is_subscribed_to_by_the_same_method():
    async def main():
        say: asyncio.Queue[dict] = asyncio.Queue()

        async def call(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(respond({"jsonrpc": "2.0", "id": request.message["id"], "result": {}}))

        async def get(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(EVENTS)
            while True:
                writer.write(event(await say.get()))
                await writer.drain()

        capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
        old = OldServer(call, capabilities=capabilities)
        old.get = get
        async with http_server(old) as server, Client(server.url) as client:
            async with client.subscribe(tools=True, prompts=True, resources=["a:x"]) as changes:
                assert changes.acknowledged.prompts_list_changed is None
                async with client.subscribe(resources=["a:x"]) as others:
                    say.put_nowait({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                    say.put_nowait(
                        {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:x"}}
                    )
                    assert await take(changes, 2) == [ToolListChanged(), ResourceUpdated("a:x")]
                    assert await take(others, 1) == [ResourceUpdated("a:x")]
                assert "resources/unsubscribe" not in server.methods
                old.sessions.append("lost")
                await client.ping()
                assert await take(changes, 2) == [ToolListChanged(), ResourceUpdated("a:x")]
            assert server.methods.count("resources/subscribe") == 2
            assert server.methods.count("resources/unsubscribe") == 1

    asyncio.run(main())
