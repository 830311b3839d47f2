"""What a caller may not know of is answered as if it were not there: the same bytes, whatever else is wrong with the
request. Two servers are asked the same: one where it is hidden, one where it was never registered.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

import pytest
from msgspec import Meta

from garrison import Server
from garrison.server.access import Access
from tests.support.callers import ERAS, KINDS, Who, outcome, place
from tests.support.mcp import MODERN
from tests.support.protected import protection

READER = Who("alice", "notes:read")
ADMIN = Who("adam", "admin")
CANARY = "canary-f0e1d2"
WAYS = ("scopes", "policy", "async policy", "undeclared")


def no(access: Access) -> bool:
    return access.principal.subject == "adam"


async def slow_no(access: Access) -> bool:
    return access.principal.subject == "adam"


RULES: dict[str, dict[str, Any]] = {
    "scopes": {"scopes": ["admin"], "without_scopes": "hide"},
    "policy": {"authorize": no},
    "async policy": {"authorize": slow_no},
    "undeclared": {},
}


def make(way: str | None, ran: list[str] | None = None) -> Server:
    """A server with something that a reader may not know of; None: without it."""
    ran = [] if ran is None else ran
    server = Server("two", auth=protection(), page_size=2)

    @server.tool(public=True)
    def visible() -> str:
        return "x"

    @server.resource("note://visible", public=True)
    def visible_note() -> str:
        return "x"

    @server.resource("open://{x}", public=True)
    def visible_family(x: str) -> str:
        return x

    @server.prompt(public=True)
    def shown(style: str) -> str:
        return style

    def same(value: str) -> list[str]:
        return [value]

    server.completion("shown", "style")(same)
    for number in range(3):
        server.add_tool(visible, f"more{number}", public=True)
    if way is None:
        return server
    rule = RULES[way]

    @server.tool("vault", description=CANARY, **rule)
    def vault(number: int, region: Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Region"})] = "eu") -> str:
        ran.append("vault")
        return "x"

    @server.resource("note://vault", description=CANARY, **rule)
    def note() -> str:
        ran.append("note")
        return "x"

    @server.resource("vault://{folder}/{number}", **rule)
    def family(folder: str, number: int) -> str:
        ran.append("family")
        return folder

    @server.prompt("combination", **rule)
    def combination(digits: int) -> str:
        ran.append("combination")
        return "x"

    def suggest(value: str) -> list[str]:
        ran.append("suggest")
        return [CANARY]

    server.completion("combination", "digits")(suggest)
    server.completion("vault://{folder}/{number}", "folder")(suggest)
    return server


def calls(*arguments: object) -> list[tuple[str, dict[str, Any]]]:
    return [("tools/call", {"name": "vault", "arguments": each}) for each in arguments]


def complete(kind: str, name: str, argument: str, **more: Any) -> tuple[str, dict[str, Any]]:
    ref = {"type": f"ref/{kind}", "name" if kind == "prompt" else "uri": name}
    return "completion/complete", {"ref": ref, "argument": {"name": argument, "value": "v"}, **more}


PROBES: list[tuple[str, dict[str, Any]]] = [
    *calls({"number": 1}, {}, {"number": "x"}, {"number": 1, "more": 1}, {"number": None}, [1], "text", 5),
    ("tools/call", {"name": "vault"}),
    ("tools/call", {"name": "vault", "arguments": {"number": 1}, "requestState": "x", "inputResponses": {"a": 1}}),
    ("tools/call", {"name": "vault", "arguments": {"number": 1}, "_meta": {"progressToken": 7}}),
    ("resources/read", {"uri": "note://vault"}),
    ("resources/read", {"uri": "vault://a/1"}),
    ("resources/read", {"uri": "vault://a/x"}),
    ("resources/read", {"uri": "vault://a/1", "more": 1}),
    ("prompts/get", {"name": "combination", "arguments": {"digits": "1"}}),
    ("prompts/get", {"name": "combination", "arguments": {"digits": "x"}}),
    ("prompts/get", {"name": "combination"}),
    ("prompts/get", {"name": "combination", "arguments": [1]}),
    complete("prompt", "combination", "digits"),
    complete("prompt", "combination", "no such argument"),
    complete("prompt", "combination", "digits", context={"arguments": {"a": "b"}}),
    complete("resource", "vault://{folder}/{number}", "folder"),
    complete("resource", "vault://{folder}/{number}", "number"),
    complete("resource", "combination", "digits"),
    ("tools/list", {}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("prompts/list", {}),
]


COMBINATIONS = [
    (transport, revision, way)
    for transport in KINDS
    for revision in ERAS
    for way in WAYS
    if transport in ("memory", "http") or (revision != ERAS[2] and way in ("scopes", "async policy"))
]
"""Every transport, era and way, and all together where they could differ."""


@pytest.mark.attack("ATK-173")
@pytest.mark.parametrize(("transport", "revision", "way"), COMBINATIONS)
async def test_what_is_hidden_is_answered_like_what_is_not_there(transport: str, revision: str, way: str) -> None:
    ran: list[str] = []
    probes = PROBES if revision == MODERN else [*PROBES, ("resources/subscribe", {"uri": "note://vault"})]
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(place(transport, make(way, ran)))
        there = await stack.enter_async_context(place(transport, make(None)))
        a = await stack.enter_async_context(here.caller(READER, revision))
        b = await stack.enter_async_context(there.caller(READER, revision))
        assert a.initialized == b.initialized
        for method, params in probes:
            hidden, absent = await a.bytes(method, params), await b.bytes(method, params)
            if b"nextCursor" in absent:  # sealed for each anew
                hidden, absent = hidden.split(b'"nextCursor"')[0], absent.split(b'"nextCursor"')[0]
            assert hidden == absent, (method, params)
            assert CANARY.encode() not in hidden
        assert ran == []
        if way != "undeclared":
            async with here.caller(ADMIN, revision) as admin:
                assert outcome(await admin.request("tools/call", {"name": "vault", "arguments": {"number": 1}})) == "ok"
                assert outcome(await admin.request("resources/read", {"uri": "vault://a/1"})) == "ok"
                assert outcome(await admin.request(*complete("prompt", "combination", "digits"))) == "ok"
            assert ran == ["vault", "family", "suggest"]


@pytest.mark.attack("ATK-173")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_header_fields_tell_no_more(transport: str, way: str) -> None:
    """Header fields that repeat an argument, or do not: what is not known of has no such fields."""
    fields: list[dict[str, str]] = [
        {"mcp_param_region": "us"},
        {"mcp_param_region": ""},
        {"mcp_param_region": "=?base64?//8=?="},
        {"mcp_name": "visible"},
        {"mcp_name": "=?base64?dmF1bHQ=?="},
        {"mcp_method": "tools/list"},
    ]
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(place(transport, make(way)))
        there = await stack.enter_async_context(place(transport, make(None)))
        a = await stack.enter_async_context(here.caller(READER))
        b = await stack.enter_async_context(there.caller(READER))
        call = {"name": "vault", "arguments": {"number": 1, "region": "eu"}}
        for changes in fields:
            assert await a.bytes("tools/call", call, **changes) == await b.bytes("tools/call", call, **changes), changes
        if way != "undeclared":
            async with here.caller(ADMIN) as admin:
                wrong = await admin.response("tools/call", call, mcp_param_region="us")
                assert wrong.json["error"]["code"] == -32020
                right = await admin.response("tools/call", call, mcp_param_region="eu")
                assert right.json["result"]["resultType"] == "complete"


async def test_pages_are_full_of_what_is_shown() -> None:
    """Where a page ends says nothing of what lies between."""
    for way in (*WAYS, None):
        async with place("memory", make(way)) as at, at.caller(READER) as p:
            pages: list[list[str]] = []
            cursor: str | None = None
            while cursor is not None or not pages:
                result = await p.result("tools/list", {"cursor": cursor} if cursor else {})
                pages.append([tool["name"] for tool in result["tools"]])
                cursor = result.get("nextCursor")
            assert pages == [["visible", "more0"], ["more1", "more2"]]
