"""Settings seen from outside: the same bytes to a live listener with the default and with another value."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.errors import RequestTimeout
from tests.support.mcp import call, post
from tests.support.raw_http import exchange, serving


def make(policy: SecurityPolicy | None = None) -> tuple[Server, list[object]]:
    server = Server("s", policy=policy)
    ran: list[object] = []

    @server.tool(inline=True)
    def take(value: dict[str, object]) -> int:
        ran.append(value)
        return len(value)

    return server, ran


@pytest.mark.parametrize(
    ("setting", "limit", "value"),
    [
        ("json_depth", 6, {"a": [[[[1]]]]}),
        ("json_nodes", 25, {"a": list(range(30))}),
        ("json_members", 10, {str(n): n for n in range(11)}),
        ("json_items", 10, {"a": list(range(11))}),
        ("json_key_chars", 50, {"k" * 51: 1}),
        ("json_number_chars", 20, {"a": 10**20}),
    ],
)
async def test_a_limit_on_json_reaches_the_listener(setting: str, limit: int, value: dict[str, Any]) -> None:
    message = call("take", {"value": value})
    tight, never = make(SecurityPolicy(limits=Limits(**{setting: limit})))
    async with serving(tight) as running:
        response = await exchange(running.port, post(running.port, message))
        assert response.status == 400
        assert response.json["error"]["code"] == -32700
        honest = call("take", {"value": {"a": 1}})
        assert (await exchange(running.port, post(running.port, honest))).json["result"]["structuredContent"] == {
            "result": 1
        }
        assert never == [{"a": 1}]
    wide, ran = make()
    async with serving(wide) as running:
        assert (await exchange(running.port, post(running.port, message))).status == 200
        assert ran == [json.loads(json.dumps(value))]


@pytest.mark.parametrize(("request_max", "ends_in_time"), [(0.5, False), (10.0, True)])
async def test_progress_extends_a_request_only_up_to_its_most(request_max: float, ends_in_time: bool) -> None:
    server = Server("s")

    @server.tool()
    async def work(ctx: Context) -> str:
        for step in range(1, 13):
            await asyncio.sleep(0.1)
            await ctx.progress(step)
        return "done"

    policy = SecurityPolicy(timeouts=Timeouts(request=0.4, request_max=request_max))
    async with server.http(port=0, token="t" * 20) as serving:
        async with Client(serving.url, token="t" * 20, policy=policy, on_progress=lambda *report: None) as client:
            loop = asyncio.get_running_loop()
            started = loop.time()
            if ends_in_time:  # thrice Timeouts.request, because every report starts it anew
                assert (await client.call_tool("work")).structured_content == {"result": "done"}
                return
            with pytest.raises(RequestTimeout):
                await client.call_tool("work")
            assert 0.35 < loop.time() - started < 1.1
            assert (await client.list_tools()).tools  # and the client goes on
