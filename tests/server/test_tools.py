"""What a tool lists, takes and gives, for clients of every revision, over every transport."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from garrison import Context, ToolError, ToolOutput
from tests.support.features import always, everywhere, make, text
from tests.support.mcp import MODERN, peer


@dataclass
class Point:
    x: int
    y: int


@always
@everywhere
async def test_tools(revision: str, transport: str) -> None:
    server = make()

    @server.tool()
    async def point(x: int, y: int = 2) -> Point:
        """A point."""
        return Point(x, y)

    @server.tool()
    def joined(parts: list[str]) -> str:
        return "-".join(parts)

    @server.tool()
    async def sorry() -> ToolOutput:
        return ToolOutput.error("no such luck")

    @server.tool()
    async def raises() -> str:
        raise ToolError("told on purpose")

    async with peer(server, revision, transport) as p:
        tools = {t["name"]: t for t in (await p.result("tools/list"))["tools"]}
        assert list(tools) == ["point", "joined", "sorry", "raises"]
        assert tools["point"]["description"] == "A point."
        assert tools["point"]["inputSchema"]["required"] == ["x"]
        result = await p.tool("point", {"x": 1})
        assert json.loads(text(result)) == {"x": 1, "y": 2}
        if revision >= "2025-06-18":
            assert result["structuredContent"] == {"x": 1, "y": 2}
            assert tools["point"]["outputSchema"]["type"] == "object"
        else:
            assert "structuredContent" not in result
            assert "outputSchema" not in tools["point"]
        assert ("resultType" in result) == (revision == MODERN)
        assert text(await p.tool("joined", {"parts": ["a", "b"]})) == "a-b"
        for name, words in (("sorry", "no such luck"), ("raises", "told on purpose")):
            result = await p.tool(name)
            assert result["isError"] is True
            assert text(result) == words
        error = await p.error("tools/call", {"name": "nothing", "arguments": {}})
        assert error["code"] == -32602


@always
@everywhere
@pytest.mark.attack("ATK-115")
@pytest.mark.attack("ATK-116")
@pytest.mark.attack("ATK-117")
@pytest.mark.attack("ATK-118")
async def test_arguments_are_checked_before_the_handler_runs(revision: str, transport: str) -> None:
    server = make()
    ran: list[object] = []

    @server.tool()
    async def scale(factor: int, ctx: Context, flag: bool = False) -> int:
        ran.append(factor)
        return factor

    bad: list[dict[str, Any]] = [
        {"factor": "CANARY-SECRET"},
        {"factor": True},
        {"factor": 1.5},
        {"factor": None},
        {},
        {"factor": 1, "admin": True},
        {"factor": 1, "__proto__": {}},
        {"factor": 1, "__class__": "x"},
        {"factor": 1, "ctx": {}},
        {"factor": 1, "self": 1},
        {"factor": 1, "return": 1},
        {"factor": 1, "flag": "true"},
    ]
    async with peer(server, revision, transport) as p:
        for arguments in bad:
            response = await p.request("tools/call", {"name": "scale", "arguments": arguments})
            if revision in (MODERN, "2025-11-25"):
                assert response["result"]["isError"] is True, arguments
            else:
                assert response["error"]["code"] == -32602, arguments
            assert "CANARY" not in json.dumps(response)
            assert "http" not in json.dumps(response)
        assert ran == []
        assert text(await p.tool("scale", {"factor": 3})) == "3"
        assert ran == [3]
        for arguments in ([], "x", 1):
            response = await p.request("tools/call", {"name": "scale", "arguments": arguments})
            assert "error" in response or response["result"]["isError"]
        for params in ({"name": 1}, {}, {"name": ["scale"]}, {"name": None}):
            assert (await p.error("tools/call", params))["code"] == -32602
        assert ran == [3]


@always
@pytest.mark.attack("ATK-143")
async def test_a_result_that_breaks_its_schema_does_not_leave(revision: str) -> None:
    server = make()

    @server.tool()
    async def wrong() -> int:
        return "CANARY"  # type: ignore[return-value]

    @server.tool(output_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    async def by_hand(value: str) -> ToolOutput:
        return ToolOutput.json({"n": int(value) if value.isdigit() else value})

    async with peer(server, revision, "memory") as p:
        for name, arguments in (("wrong", {}), ("by_hand", {"value": "CANARY"})):
            result = await p.tool(name, arguments)
            assert result["isError"] is True
            assert "CANARY" not in json.dumps(result)
        result = await p.tool("by_hand", {"value": "7"})
        assert json.loads(text(result)) == {"n": 7}


@pytest.mark.parametrize("key", ["io.modelcontextprotocol/serverInfo", "io.modelcontextprotocol/subscriptionId"])
@pytest.mark.attack("ATK-101")
async def test_reserved_meta_of_a_client_is_not_echoed(key: str) -> None:
    server = make()

    @server.tool()
    async def echo() -> str:
        return "x"

    async with peer(server) as p:
        result = await p.tool(
            "echo", **{key: {"name": "CANARY"}, "io.modelcontextprotocol/unknown": 1, "traceparent": "x" * 5000}
        )
        assert "CANARY" not in json.dumps(result)
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "test"
