"""Every setting changes what the live server or client does.

`SHOWN` says where each field is seen to matter; a field without a place, or a place that does not name it, fails here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError, Limits, SecurityPolicy, Server, Timeouts
from tests.support.mcp import MODERN, peer, until
from tests.support.raw_http import connected, serving

TESTS = Path(__file__).resolve().parents[1]

SHOWN = {
    "message_bytes": ("transports/test_edge_limits.py", "transports/test_stdio.py"),
    "json_depth": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "json_nodes": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "json_members": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "json_items": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "json_key_chars": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "json_number_chars": ("policy/test_live_settings.py", "protocol/test_json.py"),
    "header_bytes": ("transports/test_edge_limits.py",),
    "header_count": ("transports/test_edge_limits.py",),
    "connections": ("transports/test_edge_limits.py",),
    "in_flight": ("transports/test_stdio.py", "server/test_http_legacy.py"),
    "outbound_bytes": ("transports/test_edge_leaving.py",),
    "sessions": ("server/test_http_legacy.py",),
    "session_events": ("server/test_http_legacy.py",),
    "session_event_bytes": ("server/test_http_legacy.py",),
    "subscriptions": ("policy/test_configuration.py",),
    "batch": ("server/test_http_legacy.py",),
    "rounds": ("server/test_asking.py",),
    "threads": ("server/test_context.py",),
    "head": ("transports/test_edge_limits.py",),
    "body": ("transports/test_edge_limits.py",),
    "idle": ("transports/test_edge_limits.py",),
    "write_stall": ("transports/test_edge_leaving.py",),
    "handler": ("server/test_failures.py",),
    "ask": ("server/test_asking.py",),
    "session_idle": ("server/test_http_legacy.py",),
    "keep_alive": ("server/test_http_modern.py",),
    "shutdown": ("policy/test_configuration.py",),
    "state": ("server/test_asking.py",),
    "pages": ("client/test_http_modern.py",),
    "request": ("client/test_pool.py",),
    "request_max": ("policy/test_live_settings.py",),
    "connect": ("client/test_pool.py",),
    "subscription_events": ("client/test_subscriptions.py",),
}
"""Field -> the files whose tests change it and see what is different."""


def test_every_field_is_shown_somewhere() -> None:
    fields = {field.name for kind in (Limits, Timeouts) for field in dataclasses.fields(kind)}
    assert fields == SHOWN.keys()
    for field, files in SHOWN.items():
        for file in files:
            text = (TESTS / file).read_text(encoding="utf-8")
            assert re.search(rf"\b{field}\b", text), f"{file} does not mention {field}"
    assert {field.name for field in dataclasses.fields(SecurityPolicy)} == {
        "limits",
        "timeouts",
        "allowed_hosts",
        "allowed_origins",
        "dangerously_allow_unauthenticated",
    }


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
    server = Server("x", policy=SecurityPolicy(timeouts=Timeouts(shutdown=grace)))

    @server.tool()
    async def slow() -> str:
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
        await until(lambda: running.listener.connections and next(iter(running.listener.connections)).answering)
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
