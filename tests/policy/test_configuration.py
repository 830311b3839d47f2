"""Configuration objects take what they are for, and nothing else; what some settings do beyond one changed value.

That every setting is applied: `test_configured_means_applied.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from garrison import ConfigurationError, Limits, SecurityPolicy, Server, Timeouts
from tests.support.mcp import MODERN, peer, until
from tests.support.raw_http import connected, serving


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_a_limit_is_a_positive_integer(name: str) -> None:
    for bad in (0, -1, 1.5, "5", None, True, float("inf")):
        with pytest.raises(ConfigurationError, match=name):
            Limits(**{name: bad})  # type: ignore[arg-type]
    assert getattr(Limits(**{name: 7}), name) == 7


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timeouts)])
def test_a_time_out_is_a_positive_number(name: str) -> None:
    for bad in (0, -1, "5", None, True, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match=name):
            Timeouts(**{name: bad})  # type: ignore[arg-type]
    assert getattr(Timeouts(**{name: 0.5}), name) == 0.5


@pytest.mark.attack("ATK-112")
def test_misspelt_settings_are_refused() -> None:
    for kind in (Limits, Timeouts, SecurityPolicy):
        with pytest.raises(TypeError, match="alowed"):
            kind(alowed=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Server("x", polcy=None)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError):
        Limits(json_depth=191)
    for bad in ({"page_size": 0}, {"ttl_ms": -1}, {"state_key": b"short"}, {"state_key": "zz"}, {"legacy": "of"}):
        with pytest.raises(ConfigurationError):
            Server("x", **bad)  # type: ignore[arg-type]


def test_settings_are_frozen() -> None:
    for value in (Limits(), Timeouts(), SecurityPolicy()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, 1)


@pytest.mark.parametrize("most", [1, 3])
async def test_subscriptions(most: int) -> None:
    server = Server("x", policy=SecurityPolicy(limits=Limits(subscriptions=most)))
    server.add_tool(lambda: "x", "t", structured_output=False)
    async with peer(server) as p:
        params = {"notifications": {"toolsListChanged": True}}
        for number in range(most):
            p.start(p.message("subscriptions/listen", params, f"s{number}", {}))
        await until(lambda: len(p.notifications) == most)
        assert "error" in await p.once("subscriptions/listen", params)
        await p.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s0"}})
        await asyncio.sleep(0.01)
        p.start(p.message("subscriptions/listen", params, "again", {}))
        await until(lambda: len(p.notifications) == most + 1)


@pytest.mark.parametrize("grace", [0.05, 5.0])
async def test_shutdown(grace: float) -> None:
    ended: list[str] = []
    began = asyncio.Event()
    server = Server("x", policy=SecurityPolicy(timeouts=Timeouts(shutdown=grace)))

    @server.tool()
    async def slow() -> str:
        began.set()
        try:
            await asyncio.sleep(0.4)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "x"

    from tests.support.mcp import call, post

    async with serving(server) as running, connected(running.port) as wire:
        await wire.send(post(running.port, call("slow")))
        await asyncio.wait_for(began.wait(), 5)
        await running.close()
    assert ended == ["done" if grace == 5 else "cancelled"]


async def test_what_a_server_says_of_itself() -> None:
    server = Server(
        "name",
        "9.9",
        title="Title",
        description="Described",
        website_url="https://example.com",
        instructions="Use it",
        ttl_ms=77,
        cache_scope="public",
    )
    async with peer(server) as p:
        result = await p.result("server/discover")
        assert (result["instructions"], result["ttlMs"], result["cacheScope"]) == ("Use it", 77, "public")
        assert MODERN in result["supportedVersions"]
        info = result["_meta"]["io.modelcontextprotocol/serverInfo"]
        assert info == {
            "name": "name",
            "version": "9.9",
            "title": "Title",
            "description": "Described",
            "websiteUrl": "https://example.com",
        }
    async with peer(server, "2024-11-05") as p:
        assert p.initialized["serverInfo"] == {"name": "name", "version": "9.9"}
        assert p.initialized["instructions"] == "Use it"


@pytest.mark.parametrize("legacy", ["off", "sessions", "stateless"])
async def test_legacy(legacy: Any) -> None:
    server = Server("x", legacy=legacy)
    connection = await server.connect_memory()
    said: list[Any] = []
    connection.on_message = lambda data: said.append(json.loads(data))
    params = {"protocolVersion": "2025-11-25", "capabilities": {}}
    connection.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode())
    await until(lambda: said)
    assert ("result" in said[0]) == (legacy != "off"), said
    await connection.close()
    if legacy == "off":
        async with peer(server) as p:
            assert (await p.result("server/discover"))["supportedVersions"] == [MODERN]
