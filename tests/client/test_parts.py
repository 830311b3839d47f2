"""Parts of the client on their own: the in-memory channel, handlers, the cache."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client, accept_defaults
from garrison.client.cache import Cache
from garrison.protocol import types as t


class Channel:
    """A modern server in this process that answers every call with its arguments."""

    def __init__(self) -> None:
        self.on_message: Callable[[bytes], None] = lambda data: None
        self.closed = 0
        self.sent: list[dict] = []

    def send(self, data: bytes) -> None:
        request = json.loads(data)
        self.sent.append(request)
        if "id" not in request:
            return
        if request["method"] == "server/discover":
            body = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"}
        elif request["params"].get("name") == "silent":
            return
        else:
            body = {"content": [{"type": "text", "text": json.dumps(request["params"]["arguments"])}]}
        self.on_message(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": body}).encode())

    async def close(self) -> None:
        self.closed += 1


class InMemory:
    def __init__(self) -> None:
        self.channel = Channel()

    async def connect_memory(self) -> Channel:
        return self.channel


def test_a_server_in_memory_is_a_target():
    async def main():
        server = InMemory()
        async with Client(server) as client:
            answer = await client.call_tool("x", {"a": [1, "é"]})
            assert answer.content == [t.TextContent('{"a": [1, "\\u00e9"]}')]
            with pytest.raises(e.RequestTimeout):
                await client.call_tool("silent", timeout=0.05)
            await asyncio.sleep(0)
            assert server.channel.sent[-1]["method"] == "notifications/cancelled"
        assert server.channel.closed == 1

    asyncio.run(main())


def test_ids_of_two_connections_differ():
    async def main() -> set[int]:
        servers = [InMemory() for _ in range(5)]
        for server in servers:
            async with Client(server):
                pass
        return {server.channel.sent[0]["id"] for server in servers}

    assert len(asyncio.run(main())) == 5


def test_options_that_do_not_belong_to_the_target_are_refused():
    wrong: list[dict[str, Any]] = [
        {"token": "x"},
        {"proxy": "http://x"},
        {"headers": {}},
        {"timeout": 0},
        {"log_level": "loud"},
    ]
    for options in wrong:
        with pytest.raises(e.ConfigurationError):
            Client(["x"], **options)
    with pytest.raises(e.ConfigurationError):
        Client("http://localhost/", env={})


def form(**schema: object) -> t.ElicitFormParams:
    return t.ElicitFormParams(message="?", requested_schema={"type": "object", **schema})


def test_defaults_are_accepted_only_where_they_are_enough():
    fields = {"a": {"type": "string", "default": "x"}, "b": {"type": "integer"}}
    assert accept_defaults(form(properties=fields)) == t.ElicitResult(action="accept", content={"a": "x"})
    assert accept_defaults(form(properties=fields, required=["a"])).action == "accept"
    assert accept_defaults(form(properties=fields, required=["a", "b"])).action == "decline"
    assert accept_defaults(t.ElicitUrlParams(message="?", url="https://x")).action == "decline"


def page(ttl: float) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[], ttl_ms=ttl)


def test_the_cache_keeps_what_is_fresh_and_nothing_else():
    cache = Cache()
    key = ("tools/list", None)
    cache.put(key, page(1000), size=1, now=0.0, generation=cache.generation)
    assert cache.get(key, 0.999) is not None and cache.get(("tools/list", "2"), 0.5) is None
    assert cache.get(key, 1.0) is None
    for ttl in (0, -5):
        cache.put(key, page(ttl), size=1, now=0.0, generation=cache.generation)
        assert cache.get(key, 0.0) is None
    cache.put(key, page(1e15), size=1, now=0.0, generation=cache.generation)
    assert cache.get(key, 86_399.0) is not None and cache.get(key, 86_401.0) is None


def test_a_change_drops_what_is_kept_and_what_is_under_way():
    cache = Cache()
    before = cache.generation
    for method, subject in (("tools/list", None), ("prompts/list", None), ("resources/read", "a:x")):
        cache.put((method, subject), page(1000), size=1, now=0.0, generation=before)
    cache.changed("notifications/tools/list_changed")
    cache.changed("notifications/resources/updated", "a:x/below")
    assert cache.get(("tools/list", None), 0.0) is None
    assert cache.get(("resources/read", "a:x"), 0.0) is None
    assert cache.get(("prompts/list", None), 0.0) is not None
    cache.put(("tools/list", None), page(1000), size=1, now=0.0, generation=before)
    assert cache.get(("tools/list", None), 0.0) is None


def test_the_cache_is_bounded():
    cache = Cache()
    for number in range(1000):
        cache.put(("resources/read", str(number)), page(1000), size=1, now=0.0, generation=0)
    kept = [n for n in range(1000) if cache.get(("resources/read", str(n)), 0.0) is not None]
    assert kept == list(range(744, 1000))
    cache.put(("tools/list", None), page(1000), size=2**26, now=0.0, generation=0)
    assert cache.get(("tools/list", None), 0.0) is None


def test_a_client_of_a_local_server_loads_no_http():
    code = (
        "import sys, garrison.client as c; c.Client(['x']);"
        "print([m for m in ('ssl', 'httptools', 'http', 'email', 'inspect', 'cryptography', 'jsonschema_rs', 'pathlib')"
        " if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "httptools" not in loaded and "jsonschema_rs" not in loaded and "cryptography" not in loaded
