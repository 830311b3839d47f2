"""What a server offers: lists and their pages, what is not found, and who hears of changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.features import always, make
from tests.support.mcp import LEGACY, MODERN, call, peer, until


@always
async def test_what_is_not_offered_is_not_found(revision: str) -> None:
    server = make()
    methods = [
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "tools/callX",
        "__class__",
        "rpc.discover",
        "tasks/list",
        "initialize" if revision == MODERN else "server/discover",
        "ping" if revision == MODERN else "subscriptions/listen",
        "logging/setLevel" if revision == MODERN else "sampling/createMessage",
    ]
    async with peer(server, revision, "memory") as p:
        for method in methods:
            error = await p.error(method, {"name": "x", "uri": "x://y"})
            assert error["code"] == -32601, method
        capabilities = (
            (await p.result("server/discover"))["capabilities"] if revision == MODERN else p.initialized["capabilities"]
        )
        assert not {"tools", "resources", "prompts", "completions"} & capabilities.keys()


@always
async def test_pages(revision: str) -> None:
    server = make(page_size=2, ttl_ms=1234, cache_scope="public")
    for number in range(5):
        server.add_tool(lambda: "x", f"tool_{number}", structured_output=False)

    @server.prompt()
    def one() -> str:
        return "x"

    @server.prompt()
    def two() -> str:
        return "x"

    @server.prompt()
    def three() -> str:
        return "x"

    async with peer(server, revision, "memory") as p:
        names: list[str] = []
        cursor: dict[str, str] = {}
        for _ in range(3):
            result = await p.result("tools/list", cursor)
            names += [t["name"] for t in result["tools"]]
            assert (result.get("ttlMs"), result.get("cacheScope")) == (
                (1234, "public") if revision == MODERN else (None, None)
            )
            cursor = {"cursor": result.get("nextCursor")}
        assert names == [f"tool_{number}" for number in range(5)]
        assert cursor == {"cursor": None}
        good = (await p.result("tools/list"))["nextCursor"]
        flipped = good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1]
        for bad in ("", "2", "x" * 100, flipped, good + "A", 2, {}, [good]):
            assert (await p.error("tools/list", {"cursor": bad}))["code"] == -32602, bad
        assert (await p.error("prompts/list", {"cursor": good}))["code"] == -32602
        assert "tools" in await p.result("tools/list", {"cursor": good})
        server.remove_tool("tool_4")
        error = await p.error("tools/list", {"cursor": good})
        assert error["code"] == -32602


@pytest.mark.parametrize("revision", LEGACY)
@pytest.mark.parametrize("transport", ["memory", "stdio"])
async def test_changes_are_told_to_legacy_clients(revision: str, transport: str) -> None:
    server = make()
    server.add_tool(lambda: "x", "old", structured_output=False)

    @server.resource("a://b")
    async def read() -> str:
        return "x"

    async with peer(server, revision, transport) as p:
        assert p.initialized["capabilities"]["tools"] == {"listChanged": True}
        server.add_tool(lambda: "x", "new", structured_output=False)
        server.remove_tool("old")
        server.resource_updated("a://b")
        await p.result("ping")
        assert [m for m, _ in p.notifications] == ["notifications/tools/list_changed"] * 2
        assert (await p.error("tools/call", {"name": "old"}))["code"] == -32602
        p.notifications.clear()
        await p.result("resources/subscribe", {"uri": "a://b"})
        server.resource_updated("a://b")
        server.resource_updated("a://c")
        await p.result("resources/unsubscribe", {"uri": "a://b"})
        server.resource_updated("a://b")
        await p.result("ping")
        assert p.notifications == [("notifications/resources/updated", {"uri": "a://b"})]


@pytest.mark.parametrize("transport", ["memory", "stdio"])
@pytest.mark.attack("ATK-111")
async def test_a_subscription_hears_what_it_asked_for(transport: str) -> None:
    server = make()
    server.add_tool(lambda: "x", "old", structured_output=False)
    server.add_prompt(lambda: "x", "p")

    @server.resource("a://b")
    async def read() -> str:
        return "x"

    key = "io.modelcontextprotocol/subscriptionId"
    async with peer(server, MODERN, transport) as p:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["a://b"], "promptsListChanged": False}
        p.start(p.message("subscriptions/listen", {"notifications": wanted}, "sub-1", {}))
        await until(lambda: p.notifications)
        method, params = p.notifications.pop()
        assert method == "notifications/subscriptions/acknowledged"
        assert params["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a://b"]}
        assert params["_meta"][key] == "sub-1"
        server.add_prompt(lambda: "x", "q")
        server.add_tool(lambda: "x", "new", structured_output=False)
        server.resource_updated("a://b")
        server.resource_updated("a://c")
        await p.result("tools/list")
        assert [m for m, _ in p.notifications] == [
            "notifications/tools/list_changed",
            "notifications/resources/updated",
        ]
        assert all(n["_meta"][key] == "sub-1" for _, n in p.notifications)
        p.notifications.clear()
        await p.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "sub-1"}})
        await p.result("tools/list")
        server.add_tool(lambda: "x", "third", structured_output=False)
        await p.result("tools/list")
        assert p.notifications == []
        for bad in (None, [], {"toolsListChanged": 1}, {"resourceSubscriptions": "a"}, {"resourceSubscriptions": [1]}):
            assert (await p.error("subscriptions/listen", {"notifications": bad}))["code"] == -32602


async def test_closing_ends_subscriptions_gracefully() -> None:
    server = make()
    server.add_tool(lambda: "x", "old", structured_output=False)
    connection = await server.connect_memory()
    said: list[dict[str, Any]] = []
    connection.on_message = lambda data: said.append(json.loads(data))
    connection.send(
        json.dumps(
            {
                **call("x"),
                "method": "subscriptions/listen",
                "params": {**call("x")["params"], "notifications": {"toolsListChanged": True}},
            }
        ).encode()
    )
    await until(lambda: said)
    for hub in server._hubs:
        hub.close()
    await until(lambda: len(said) == 2)
    assert said[1]["id"] == 1
    assert said[1]["result"]["resultType"] == "complete"
    await connection.close()
