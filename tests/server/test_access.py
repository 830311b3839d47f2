"""Who may use what: every kind of rule, for every kind of caller, over every transport and in every era."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from garrison import Context, Server
from garrison.server.access import Access
from tests.support.callers import ERAS, KINDS, Place, Who, outcome, place
from tests.support.mcp import MODERN, until
from tests.support.protected import guarded, protection
from tests.support.raw_http import Wire, changed, connected, parse_events, request, standard

HIERARCHY = {"root": ["admin", "notes:write"], "admin": ["notes:read"]}
OWNER = Who("owner", owner=True)
CALLERS = {
    "nothing": Who("alice"),
    "reader": Who("alice", "notes:read"),
    "admin": Who("adam", "admin notes:write"),
    "root": Who("rita", "root"),
    "stranger": Who("alice", "notes:read", "elsewhere"),
    "lookalike": Who("alice", "administrator admins admin:* notes:read:all notes notes:* ADMIN *"),
}


def here(access: Access) -> bool:
    return access.principal.tenant == "home"


def make(ran: list[str] | None = None) -> Server:
    """The guarded server, and more of each kind."""
    ran = [] if ran is None else ran
    auth = protection(scopes_supported=("notes:read",), hierarchy=HIERARCHY, tenant_claim="tenant")
    server = guarded(auth, ran)

    @server.tool(authorize=here)
    async def local_only() -> str:
        ran.append("local_only")
        return "done"

    @server.tool(scopes=["notes:read"], authorize=here)
    def read_here() -> str:
        ran.append("read_here")
        return "done"

    @server.resource("note://readers", scopes=["notes:read"])
    def readers() -> str:
        ran.append("readers")
        return "readers"

    @server.resource("log://{day}", scopes=["admin"], without_scopes="hide")
    def log_of(day: str) -> str:
        ran.append("log_of")
        return day

    @server.prompt(scopes=["notes:read"])
    def sum_up(style: str) -> str:
        ran.append("sum_up")
        return style

    @server.prompt(public=True)
    def greet(name: str) -> str:
        ran.append("greet")
        return name

    @server.prompt()
    def undeclared_prompt() -> str:
        ran.append("undeclared_prompt")
        return "x"

    @server.resource("note://undeclared")
    def undeclared_resource() -> str:
        ran.append("undeclared_resource")
        return "x"

    def suggest(value: str) -> list[str]:
        ran.append("suggest")
        return [value + "!"]

    for reference, argument in (("plan", "any"), ("sum_up", "style"), ("greet", "name"), ("log://{day}", "day")):
        server.completion(reference, argument)(suggest)
    return server


def tool(name: str, /, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": name, "arguments": arguments}


def read(uri: str) -> tuple[str, dict[str, Any]]:
    return "resources/read", {"uri": uri}


def prompt(name: str, /, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "prompts/get", {"name": name, "arguments": arguments}


def complete(kind: str, name: str, argument: str) -> tuple[str, dict[str, Any]]:
    ref = {"type": f"ref/{kind}", "name" if kind == "prompt" else "uri": name}
    return "completion/complete", {"ref": ref, "argument": {"name": argument, "value": "v"}}


ORDER = ("nothing", "reader", "admin", "root", "stranger", "lookalike", "owner")
"""What becomes of a request, for each of these in turn."""
MATRIX: list[tuple[str, tuple[str, dict[str, Any]], str]] = [
    ("whoami", tool("whoami"), "ok ok ok ok ok ok ok"),
    ("read", tool("read"), "scopes ok ok ok ok scopes ok"),
    ("admin_reset", tool("admin_reset"), "scopes scopes ok ok scopes scopes ok"),
    ("purge", tool("purge"), "scopes scopes ok ok scopes scopes ok"),
    ("secret_tool", tool("secret_tool", number=1), "unknown unknown ok ok unknown unknown ok"),
    ("undeclared", tool("undeclared"), "unknown unknown unknown unknown unknown unknown ok"),
    ("private", tool("private", owner="alice"), "ok ok denied denied ok ok ok"),
    ("private", tool("private", owner="bob"), "denied denied denied denied denied denied ok"),
    ("local_only", tool("local_only"), "ok ok ok ok unknown ok ok"),
    ("read_here", tool("read_here"), "scopes ok ok ok unknown scopes ok"),
    ("board", read("note://public"), "ok ok ok ok ok ok ok"),
    ("readers", read("note://readers"), "scopes ok ok ok ok scopes ok"),
    ("admins", read("note://admins"), "unknown unknown ok ok unknown unknown ok"),
    ("undeclared_resource", read("note://undeclared"), "unknown unknown unknown unknown unknown unknown ok"),
    ("note", read("note://alice/1"), "ok ok unknown unknown ok ok ok"),
    ("note", read("note://bob/1"), "unknown unknown unknown unknown unknown unknown ok"),
    ("log_of", read("log://monday"), "unknown unknown ok ok unknown unknown ok"),
    ("plan", prompt("plan"), "unknown unknown ok ok unknown unknown ok"),
    ("sum_up", prompt("sum_up", style="x"), "scopes ok ok ok ok scopes ok"),
    ("greet", prompt("greet", name="x"), "ok ok ok ok ok ok ok"),
    ("undeclared_prompt", prompt("undeclared_prompt"), "unknown unknown unknown unknown unknown unknown ok"),
    ("suggest", complete("prompt", "sum_up", "style"), "scopes ok ok ok ok scopes ok"),
    ("suggest", complete("prompt", "greet", "name"), "ok ok ok ok ok ok ok"),
    ("suggest", complete("resource", "log://{day}", "day"), "unknown unknown ok ok unknown unknown ok"),
]
EVERYBODY = {"whoami", "private"}
LISTED: dict[str, dict[str, set[str]]] = {
    "tools/list": {
        "nothing": {"whoami", "purge", "private", "local_only"},
        "reader": {"whoami", "purge", "private", "local_only", "read", "read_here"},
        "admin": {"whoami", "purge", "private", "local_only", "read", "read_here", "admin_reset", "secret_tool"},
        "stranger": {"whoami", "purge", "private", "read"},
    },
    "resources/list": {
        "nothing": {"note://public"},
        "reader": {"note://public", "note://readers"},
        "admin": {"note://public", "note://readers", "note://admins"},
    },
    "resources/templates/list": {
        "nothing": {"note://{owner}/{id}"},
        "reader": {"note://{owner}/{id}"},
        "admin": {"note://{owner}/{id}", "log://{day}"},
    },
    "prompts/list": {"nothing": {"greet"}, "reader": {"greet", "sum_up"}, "admin": {"greet", "sum_up", "plan"}},
}
SAME_AS = {"root": "admin", "lookalike": "nothing", "stranger": "reader"}


async def listed(p: Any, method: str) -> set[str]:
    result = await p.result(method)
    members = {"resources/list": "uri", "resources/templates/list": "uriTemplate"}
    (items,) = [value for value in result.values() if isinstance(value, list)]
    return {item[members.get(method, "name")] for item in items}


def callers(at: Place) -> dict[str, Who]:
    return {**CALLERS, "owner": OWNER} if at.has_owner else CALLERS


@pytest.mark.attack("ATK-171", "ATK-172", "ATK-173", "ATK-174")
@pytest.mark.parametrize("revision", ERAS)
@pytest.mark.parametrize("transport", KINDS)
async def test_who_may_call_what(transport: str, revision: str) -> None:
    ran: list[str] = []
    async with place(transport, make(ran)) as at:
        for name, who in callers(at).items():
            async with at.caller(who, revision) as p:
                for handler, (method, params), verdicts in MATRIX:
                    expected = verdicts.split()[ORDER.index(name)]
                    ran.clear()
                    assert outcome(await p.request(method, params)) == expected, (name, params)
                    assert ran == ([handler] if expected == "ok" else []), (name, params)


@pytest.mark.attack("ATK-173", "ATK-174")
@pytest.mark.parametrize("revision", ERAS)
@pytest.mark.parametrize("transport", KINDS)
async def test_who_is_shown_what(transport: str, revision: str) -> None:
    server = make()
    everything = {
        "tools/list": set(server.registry.tools),
        "resources/list": set(server.registry.resources),
        "resources/templates/list": set(server.registry.templates),
        "prompts/list": set(server.registry.prompts),
    }
    async with place(transport, server) as at:
        for name, who in callers(at).items():
            async with at.caller(who, revision) as p:
                for method, shown in LISTED.items():
                    expected = shown.get(name) or shown.get(SAME_AS.get(name, ""))
                    assert await listed(p, method) == (everything[method] if name == "owner" else expected), name


@pytest.mark.parametrize("transport", KINDS)
async def test_changes_are_told_to_those_who_may_read(transport: str) -> None:
    server = make()
    uris = ["note://public", "note://readers", "note://admins", "note://alice/1", "log://monday", "note://undeclared"]
    heard = {
        "nothing": {"note://public", "note://alice/1"},
        "reader": {"note://public", "note://readers", "note://alice/1"},
        "admin": {"note://public", "note://readers", "note://admins", "log://monday"},
        "lookalike": {"note://public", "note://alice/1"},
    }
    async with place(transport, server) as at:
        for name, expected in heard.items():
            for revision in ("2025-11-25", "2024-11-05") if transport not in ("http", "asgi") else ():
                async with at.caller(CALLERS[name], revision) as p:
                    for uri in [*uris, "note://absent"]:
                        assert await p.result("resources/subscribe", {"uri": uri}) == {}
                    for uri in uris:
                        server.resource_updated(uri)
                    await until(lambda p=p, expected=expected: len(p.notifications) >= len(expected))
                    await asyncio.sleep(0.01)
                    assert {params["uri"] for _, params in p.notifications} == expected, (name, revision)
            if transport in ("http", "asgi"):
                continue
            async with at.caller(CALLERS[name]) as p:
                filters = {"notifications": {"resourceSubscriptions": [*uris, "note://absent"]}}
                p.start(p.message("subscriptions/listen", filters, "listen", {}))
                await until(lambda p=p: p.notifications)
                assert p.notifications[0][1]["notifications"] == filters["notifications"]
                for uri in uris:
                    server.resource_updated(uri)
                await until(lambda p=p, expected=expected: len(p.notifications) > len(expected))
                await asyncio.sleep(0.01)
                assert {params["uri"] for _, params in p.notifications[1:]} == expected, name


@pytest.mark.attack("ATK-171")
@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_a_challenge_names_all_that_is_needed_and_nothing_else(transport: str) -> None:
    ran: list[str] = []
    async with place(transport, make(ran)) as at:
        for revision in ERAS:
            async with at.caller(Who("alice", "notes:read"), revision) as p:
                for name, scopes in (("admin_reset", "admin"), ("purge", "admin notes:write")):
                    response = await p.response("tools/call", {"name": name, "arguments": {}})
                    assert response.status == 403
                    challenge = response.get("www-authenticate") or ""
                    assert 'error="insufficient_scope"' in challenge
                    assert f'scope="{scopes}"' in challenge
                    assert 'resource_metadata="https://mcp.example.com/' in challenge
                    assert response.json["error"]["data"] == {"scopes": scopes.split()}
                assert (await p.response("tools/call", {"name": "read", "arguments": {}})).status == 200
    assert set(ran) == {"read"}


async def test_a_tool_of_the_caller_sees_who_it_is() -> None:
    server = make()

    @server.tool(scopes=["notes:read"])
    def mine(ctx: Context) -> str:
        return ctx.principal.key

    async with place("http", server) as at, at.caller(Who("alice", "notes:read", "acme"), MODERN) as p:
        result = await p.tool("mine")
        assert result["content"][0]["text"] == Who("alice", tenant="acme").principal.key


async def events_of(wire: Wire) -> AsyncIterator[dict[str, Any]]:
    """The messages of an event stream; several may come in one chunk."""
    while True:
        for event in parse_events(await wire.chunk()):
            if event.get("data"):
                yield json.loads(event["data"])


@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_a_right_that_was_lost_is_lost_for_open_streams_too(transport: str) -> None:
    server = make()
    uris = ["note://public", "note://readers", "note://admins"]
    async with (
        place(transport, server) as at,
        at.caller(CALLERS["reader"], "2025-11-25") as p,
        connected(at.port) as wire,
    ):
        for uri in uris:
            assert await p.result("resources/subscribe", {"uri": uri}) == {}
        fields = [*standard(at.port, p.token), ("Mcp-Session-Id", p.session), ("MCP-Protocol-Version", p.revision)]
        stream = changed(fields, accept="text/event-stream")
        await wire.send(request(b"", stream, method="GET"))
        assert (await wire.head()).status == 200
        events = events_of(wire)

        async def heard() -> list[str]:
            """What is told of changes to all of them, up to the change of a list, which everybody is told of."""
            for uri in uris:
                server.resource_updated(uri)
            server.remove_tool("whoami" if "whoami" in server.registry.tools else "read")
            found: list[str] = []
            while (said := await anext(events))["method"] != "notifications/tools/list_changed":
                found.append(said["params"]["uri"])
            return found

        assert await heard() == ["note://public", "note://readers"]
        p.token = CALLERS["nothing"].token  # the same caller comes with a token for less
        assert outcome(await p.request("resources/read", {"uri": "note://readers"})) == "scopes"
        assert await heard() == ["note://public"]


@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_a_stream_of_subscriptions_tells_what_may_be_read(transport: str) -> None:
    server = make()
    uris = ["note://admins", "note://readers", "note://public"]
    async with place(transport, server) as at, at.caller(CALLERS["reader"]) as p, connected(at.port) as wire:
        filters = {"notifications": {"resourceSubscriptions": uris}}
        await wire.send(p.encode(p.message("subscriptions/listen", filters, "listen", {})))
        assert (await wire.head()).status == 200
        events = events_of(wire)
        assert "acknowledged" in (await anext(events))["method"]
        for uri in uris:
            server.resource_updated(uri)
        told = [(await anext(events))["params"]["uri"] for _ in range(2)]
        assert told == ["note://readers", "note://public"]
