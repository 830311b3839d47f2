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
from garrison.policy import limits, security, tls, transports
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
from tests.support.mcp import MODERN, peer, until
from tests.support.raw_http import connected, serving

TESTS = Path(__file__).resolve().parents[1]

LIVE = "policy/test_live_settings.py"
HERE = "policy/test_configuration.py"
HOW_MUCH = "server/test_limits.py"
EDGE = "transports/test_edge_limits.py"
LEAVING = "transports/test_edge_leaving.py"
STDIO = "transports/test_stdio.py"
FRAMES = "transports/test_websocket_frames.py"
LIFE = "transports/test_websocket_life.py"
LINES = "transports/test_unix_lines.py"
UNIX = "transports/test_unix_socket.py"
SESSIONS = "server/test_http_legacy.py"

SHOWN: dict[type, dict[str, tuple[str, ...]]] = {
    Limits: {
        "message_bytes": (EDGE, STDIO, FRAMES, LINES),
        "json_depth": (LIVE, "protocol/test_json.py"),
        "json_nodes": (LIVE, "protocol/test_json.py"),
        "json_members": (LIVE, "protocol/test_json.py"),
        "json_items": (LIVE, "protocol/test_json.py"),
        "json_key_chars": (LIVE, "protocol/test_json.py"),
        "json_number_chars": (LIVE, "protocol/test_json.py"),
        "header_bytes": (EDGE,),
        "header_count": (EDGE,),
        "connections": (EDGE,),
        "connections_per_address": (EDGE,),
        "in_flight": (STDIO, SESSIONS, HOW_MUCH),
        "in_flight_per_principal": (HOW_MUCH,),
        "message_rate": (STDIO, LIFE, LINES),
        "message_burst": (STDIO, LIFE, LINES),
        "malformed_per_minute": (STDIO, LIFE, LINES, HOW_MUCH),
        "body_rate": (LIFE, LINES),
        "fragments": (FRAMES, "client/test_websocket.py"),
        "outbound_bytes": (LEAVING,),
        "sessions": (SESSIONS,),
        "session_events": (SESSIONS,),
        "session_event_bytes": (SESSIONS,),
        "subscriptions": (HERE,),
        "subscription_events": ("client/test_subscriptions.py",),
        "batch": (SESSIONS,),
        "rounds": ("server/test_asking.py",),
        "threads": ("server/test_context.py",),
        "pages": ("client/test_http_modern.py",),
        "progress_rate": (LIVE,),
    },
    Timeouts: {
        "head": (EDGE,),
        "body": (EDGE, LIFE, LINES),
        "tls": ("transports/test_tls.py",),
        "idle": (EDGE,),
        "write_stall": (LEAVING,),
        "handler": ("server/test_failures.py",),
        "ask": ("server/test_asking.py",),
        "session_idle": (SESSIONS, LIFE, LINES),
        "session_max": (HOW_MUCH,),
        "ping": (LIFE,),
        "pong": (LIFE,),
        "keep_alive": ("server/test_http_modern.py",),
        "request": ("client/test_pool.py",),
        "request_max": (LIVE,),
        "connect": ("client/test_pool.py",),
        "shutdown": (HERE,),
        "state": ("server/test_asking.py",),
    },
    SecurityPolicy: {
        "profile": ("policy/test_listening.py",),
        "limits": (LIVE,),
        "timeouts": (LIVE,),
        "allowed_hosts": ("policy/test_gate.py",),
        "allowed_origins": ("policy/test_gate.py",),
        "trusted_proxies": ("policy/test_proxies.py",),
        "public_url": ("policy/test_proxies.py",),
        "tolerate": (LIVE,),
        "allow_insecure_http_hosts": ("client/test_targets.py",),
        "dangerously_allow_unauthenticated": ("policy/test_gate.py",),
        "dangerously_allow_unsafe_socket_path": (UNIX,),
    },
    TlsServerConfig: dict.fromkeys(
        ("certificate", "key", "client_ca", "minimum", "reload"), ("transports/test_tls.py",)
    ),
    TlsClientConfig: dict.fromkeys(("ca", "certificate", "key", "pins", "minimum"), ("client/test_tls.py",)),
    HttpTransportConfig: dict.fromkeys(
        ("url", "max_message_size", "token", "headers", "tls", "proxy", "unix_socket"), ("client/test_targets.py",)
    ),
    WebSocketConfig: {
        "url": ("client/test_targets.py",),
        "max_message_size": ("client/test_targets.py",),
        "subprotocol": (FRAMES, "client/test_websocket.py"),
        "compression": (FRAMES, "client/test_websocket_options.py"),
        "token": ("client/test_websocket.py",),
        "headers": ("client/test_websocket.py",),
        "tls": ("client/test_targets.py",),
    },
    UnixSocketConfig: {
        "path": (UNIX,),
        "max_message_size": ("client/test_unix.py",),
        "mode": (UNIX,),
        "group": (UNIX,),
        "allowed_uids": (UNIX, "client/test_unix.py"),
    },
}
"""Configuration object -> field -> the files whose tests change it and see what is different."""


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.__name__)
def test_every_field_is_shown_somewhere(kind: type) -> None:
    shown = SHOWN[kind]
    assert {field.name for field in dataclasses.fields(kind)} == shown.keys()
    first = next(field for field in dataclasses.fields(kind)).name
    for field, files in shown.items():
        for file in files:
            path = TESTS / file
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            given = rf"\b{field}=|[\"\']{field}[\"\']"  # it is given a value, or named where values are chosen
            if field == first:
                given += rf"|\b{kind.__name__}\("  # may be given by its place
            assert re.search(given, text), f"{file} gives {kind.__name__}.{field} no value"


def test_every_configuration_object_is_here() -> None:
    found: set[type] = set()
    for module in (limits, security, tls, transports):
        values = [getattr(module, name) for name in module.__all__]
        found.update(value for value in values if isinstance(value, type) and dataclasses.is_dataclass(value))
    assert found == SHOWN.keys()


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
