"""One record for each refusal: who, from where, what was asked, which control said no, and nothing that is a secret.

Rules of this file:
- Each kind of refusal is provoked once on a live listener, as somebody who is known wherever anybody is let in.
- After it an honest request of the same kind is served, and leaves one record of its own.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from garrison import Context, Limits, LinkRefused, Links, Rate, Rates, SecurityPolicy
from garrison.events import Event
from garrison.server.access import Access
from tests.attacks.app.sink import Kept
from tests.attacks.app.sut import CANARY, KEY, QUICK, Sut, answered
from tests.support.callers import KINDS, Who, place
from tests.support.everywhere import call as line
from tests.support.everywhere import door
from tests.support.mcp import MODERN, call, modern, modern_fields, until
from tests.support.protected import bearer, facing, message, session_post
from tests.support.raw_http import changed, exchange, request

pytestmark = pytest.mark.app

ALICE = bearer("read", "alice", tenant="home")
WHO = '["https://auth.example.com","home","alice","app"]'
SMALL = Limits(message_bytes=100_000, output_bytes=1_500_000, in_flight_per_principal=1)
DESTROYS = {"what": "all"}
PAY = {"to": "bob", "amount": 5, "key": "k1"}

Make = Callable[[int], bytes]


def use(tool: str, arguments: Any = None, *, as_: str | None = ALICE, **fields: str | None) -> Make:
    """A call of a tool."""
    return lambda port: message(port, call(tool, arguments, id=7), as_, target="/mcp", **fields)


def ask(method: str, params: Any = None, **fields: str | None) -> Make:
    """Another request."""
    return lambda port: message(port, modern(method, params, id=7), ALICE, target="/mcp", **fields)


def raw(body: bytes, tool: str = "echo") -> Make:
    """A body that is not what a client would write."""
    return lambda port: request(
        body, [*changed(modern_fields(port, call(tool), None), authorization=None), ("Authorization", ALICE)]
    )


def archive() -> str:
    """A tar file with a member that leads out."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../" + CANARY))
    return base64.b64encode(made.getvalue()).decode()


class Case(NamedTuple):
    """A refusal."""

    event: str
    """Its name."""
    sent: Make
    setting: str
    """What it names; empty where there is nothing to set."""
    about: tuple[str, str] | None
    """Method and target of the request; None where nothing had become a request of somebody who is known."""
    inside: bool = False
    """The tool refused, or its output was refused: its call ended too, in an error."""
    before: tuple[Make, ...] = ()
    """What is sent first."""
    twin: Make = use("echo", {"text": "x"})


TOOL = "tools/call"
NO_META = json.dumps({"jsonrpc": "2.0", "id": 7, "method": TOOL, "params": {"name": "echo"}}).encode()
CASES: dict[str, Case] = {
    "host": Case("host.refused", use("echo", {"text": "x"}, host="evil.example"), "SecurityPolicy.allowed_hosts", None),
    "origin": Case(
        "origin.refused", use("echo", {"text": "x"}, origin=f"http://{CANARY}.example"),
        "SecurityPolicy.allowed_origins", None,
    ),
    "no token": Case("auth.refused", use("echo", {"text": "x"}, as_=None), "Authorization: Bearer", None),
    "bad token": Case("auth.token_refused", use("echo", {"text": "x"}, as_=f"Bearer {KEY}{CANARY}"), "", None),
    "media type": Case("http.bad_request", use("echo", {"text": "x"}, content_type="text/plain"), "", None),
    "too large": Case(
        "http.bad_request", use("echo", {"text": CANARY * 20_000}), "Limits.message_bytes", None,
        twin=use("echo", {"text": "x" * 50_000}),
    ),
    "malformed": Case("message.malformed", raw(b'{"' + CANARY.encode()), "", ("", "")),
    "invalid": Case("message.invalid", raw(b'{"jsonrpc":"1.0","id":7,"method":"tools/call"}'), "", ("", "")),
    "no _meta": Case("message.invalid", raw(NO_META), "", (TOOL, "echo")),
    "header": Case("header.mismatch", use("echo", {"text": "x"}, mcp_name="add"), "", (TOOL, "echo")),
    "mirrored argument": Case(
        "header.mismatch", use("region", {"region": "eu"}, mcp_param_region="us"), "", (TOOL, "region"),
        twin=use("region", {"region": "eu"}, mcp_param_region="eu"),
    ),
    "no such session": Case(
        "http.bad_request",
        lambda port: session_post(port, {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, ALICE, CANARY), "", None,
    ),
    "scopes": Case("access.insufficient_scope", use("admin_reset"), "", (TOOL, "admin_reset")),
    "policy function": Case(
        "access.denied", ask("resources/read", {"uri": "tenant://notes/m1"}), "authorize=",
        ("resources/read", "tenant://notes/m1"), twin=ask("resources/read", {"uri": "tenant://notes/n1"}),
    ),
    "failing policy function": Case(
        "access.policy_failed", use("odd", {"text": "x"}), "authorize=", (TOOL, "odd"), twin=use("odd", {"text": "ok"})
    ),
    "failing policy function, bad arguments": Case(
        "access.policy_failed", use("odd", {"text": 1}), "authorize=", (TOOL, "odd"), twin=use("odd", {"text": "ok"})
    ),
    "arguments": Case(
        "arguments.invalid", use("add", {"a": CANARY, "b": 1}), "", (TOOL, "add"), twin=use("add", {"a": 1, "b": 1})
    ),
    "a path in an argument": Case(
        "arguments.invalid", use("doc", {"path": f"../{CANARY}"}), "", (TOOL, "doc"), twin=use("doc", {"path": "a.txt"})
    ),
    "a URL in an argument": Case(
        "arguments.invalid", use("page", {"url": f"http://{CANARY}.example/"}), "", (TOOL, "page")
    ),
    "unknown tool": Case("call.refused", use("nothing"), "", (TOOL, "nothing")),
    "unknown resource": Case(
        "call.refused", ask("resources/read", {"uri": "db://keys/1"}), "", ("resources/read", "db://keys/1"),
        twin=ask("resources/read", {"uri": "db://users/1"}),
    ),
    "unknown prompt": Case(
        "call.refused", ask("prompts/get", {"name": "nothing"}), "", ("prompts/get", "nothing"),
        twin=ask("prompts/get", {"name": "greet", "arguments": {"name": "Ann"}}),
    ),
    "unknown method": Case("call.refused", ask("nothing/at-all"), "", ("nothing/at-all", "")),
    "unknown reference": Case(
        "call.refused",
        ask("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value":""}}),
        "", ("completion/complete", ""),
    ),
    "a forged state": Case(
        "call.refused", ask(TOOL, {"name": "transfer", "arguments": {"to": "x", "amount": 1}, "requestState": CANARY,
                                   "inputResponses": {}}), "", (TOOL, "transfer"),
    ),
    "rate": Case(
        "limit.reached", use("metered"), "rate= of tool 'metered'", (TOOL, "metered"), before=(use("metered"),)
    ),
    "output too large": Case(
        "output.refused", use("lines", {"n": 2000}), "Limits.output_bytes", (TOOL, "lines"), inside=True,
        twin=use("lines", {"n": 100}),
    ),
    "output of another kind": Case(
        "output.refused", use("picture", {"kind": "image/png", "data": "PGh0bWw+"}),
        "mime_type= of the content", (TOOL, "picture"), inside=True,
        twin=use("picture", {"kind": "image/gif", "data": "R0lGODlhAAAA"}),
    ),
    "path": Case(
        "path.refused", use("read", {"path": f"../{CANARY}"}), "", (TOOL, "read"), inside=True,
        twin=use("read", {"path": "a.txt"}),
    ),
    "path of a resource": Case(
        "path.refused", ask("resources/read", {"uri": "file:///a:b"}), "", ("resources/read", "file:///a:b"),
        inside=True, twin=ask("resources/read", {"uri": "file:///a.txt"}),
    ),
    "sql": Case(
        "sql.refused", use("lookup", {"table": f"keys {CANARY}", "id": "1"}), "SafeSQL.tables", (TOOL, "lookup"),
        inside=True, twin=use("lookup", {"table": "users", "id": "1"}),
    ),
    "command": Case(
        "command.refused", use("run", {"op": f"rm {CANARY}", "arg": "x"}), "SafeCommand.operations", (TOOL, "run"),
        inside=True, twin=use("run", {"op": "say", "arg": "x"}),
    ),
    "fetch": Case(
        "fetch.refused", use("fetch", {"url": f"https://127.0.0.1/{CANARY}"}), "SafeFetch.hosts", (TOOL, "fetch"),
        inside=True,
    ),
    "archive": Case(
        "archive.refused", use("decode", {"kind": "archive", "data": archive()}), "", (TOOL, "decode"), inside=True
    ),
    "xml": Case(
        "document.refused", use("decode", {"kind": "xml", "data": f"<!DOCTYPE x SYSTEM 'file:///{CANARY}'><x/>"}), "",
        (TOOL, "decode"), inside=True, twin=use("decode", {"kind": "xml", "data": "<x>y</x>"}),
    ),
    "yaml": Case(
        "document.refused", use("decode", {"kind": "yaml", "data": f"!!python/object/apply:os.system ['{CANARY}']"}),
        "", (TOOL, "decode"), inside=True, twin=use("decode", {"kind": "yaml", "data": "a: 1"}),
    ),
    "template": Case(
        "template.refused", use("decode", {"kind": "template", "data": f"javascript:{CANARY}"}), "", (TOOL, "decode"),
        inside=True, twin=use("decode", {"kind": "template", "data": "https://example.com/"}),
    ),
    "url": Case(
        "url.refused", use("decode", {"kind": "url", "data": f"../{CANARY}"}), "", (TOOL, "decode"), inside=True,
        twin=use("decode", {"kind": "url", "data": "ann"}),
    ),
    "unconfirmed": Case(
        "call.unconfirmed", use("transfer", {"to": CANARY, "amount": 1}), "tool(confirm=)", (TOOL, "transfer"),
        twin=use("wipe", DESTROYS),
    ),
    "conflict": Case(
        "call.conflict", use("pay", {**PAY, "to": CANARY}), "tool(idempotent_by=)", (TOOL, "pay"),
        before=(use("pay", PAY),), twin=use("pay", {**PAY, "key": "k2"}),
    ),
    "too many handles": Case(
        "limit.reached", use("cart_new"), "Handles.most_each", (TOOL, "cart_new"), inside=True,
        before=(use("cart_new"),) * 3,
    ),
    "too many links": Case(
        "limit.reached", use("link"), "Links.most_each", (TOOL, "link"), inside=True, before=(use("link"),)
    ),
}  # fmt: skip


def opened(folder: Path, kept: Kept) -> Sut:
    """The server, with what only these cases need."""
    rates = Rates(principal=Rate(1000, burst=1000))
    sut = Sut(folder, protected=True, audit=kept, policy=SecurityPolicy(timeouts=QUICK, limits=SMALL, rates=rates))
    links: Links[str] = Links("https://shop.example/pay", most_each=1)

    def odd_rule(access: Access) -> bool:
        if access.arguments is None or access.arguments.get("text") != "ok":
            raise RuntimeError(CANARY)
        return True

    @sut.server.tool(authorize=odd_rule)
    def odd(text: str) -> str:
        return text

    @sut.server.tool(public=True, rate=Rate(0.01, burst=1))
    def metered() -> str:
        return "x"

    @sut.server.tool(public=True)
    def link(ctx: Context) -> str:
        return links.new(ctx, "order")

    return sut


def said(kept: Kept) -> list[str]:
    """What stands on record."""
    return [f"{event.name} {event.text}" for event in kept.events]


def checked(event: Event) -> None:
    """What every record holds to."""
    for text in (event.name, event.text, event.setting, event.error, event.peer, event.principal, event.tenant):
        assert text.isprintable(), event
    assert event.time > 1_000_000_000
    assert event.arguments is None or isinstance(event.arguments, dict)


@pytest.mark.attack("ATK-288")
@pytest.mark.parametrize("kind", CASES)
async def test_one_refusal_is_one_record(kind: str, tmp_path: Path) -> None:
    case, kept = CASES[kind], Kept()
    async with facing("http", opened(tmp_path, kept).server) as port:
        for made in case.before:
            assert (await exchange(port, made(port))).status == 200
        kept.events.clear()
        answer = await exchange(port, case.sent(port))
        assert CANARY not in answer.body.decode() or kind == "unknown resource", answer
        await asyncio.sleep(0)
        assert len(kept.refusals) == 1, said(kept)
        (event,) = kept.refusals
        checked(event)
        assert (event.name, event.setting, event.peer) == (case.event, case.setting, "127.0.0.1")
        assert event.decision == ("failed" if "failed" in case.event else "refused") and event.outcome == ""
        if case.about is not None:
            assert (event.server, event.principal, event.tenant) == ("sut", WHO, "home"), event
            method, target = case.about
            assert (event.method, event.target, event.request) == (method, target, "7" if method else "")
        # Whoever was let in and made a tool refuse has a call that ended too, in an error.
        assert [each.outcome for each in kept.calls] == (["error"] if case.inside else [])
        for line in kept.lines():
            assert line.count(b"\n") <= 1 and KEY.encode() not in line
            assert CANARY.encode() not in line or event.target, line

        kept.events.clear()
        answer = await exchange(port, case.twin(port))
        assert answer.status == 200 and "error" not in answer.json and not answer.json["result"].get("isError"), answer
        assert [event.name for event in kept.events if event.name != "call.begun"] == ["call.ended"], said(kept)
        ended = kept.calls[0]
        checked(ended)
        assert (ended.decision, ended.outcome, ended.error, ended.request) == ("allowed", "ok", "", "7")
        assert (ended.server, ended.principal, ended.peer) == ("sut", WHO, "127.0.0.1")
        assert 0 < ended.duration < 5


@pytest.mark.attack("ATK-288", transports=KINDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_the_same_record_everywhere(kind: str, tmp_path: Path) -> None:
    kept = Kept()
    sut = Sut(tmp_path, protected=True, audit=kept)
    asked: list[tuple[str, dict[str, Any], str, bool]] = [
        ("add", {"a": CANARY, "b": 1}, "arguments.invalid", False),
        ("nothing", {}, "call.refused", False),
        ("admin_reset", {}, "access.insufficient_scope", False),
        ("read", {"path": f"../{CANARY}"}, "path.refused", True),
        ("lookup", {"table": "keys", "id": "1"}, "sql.refused", True),
        ("transfer", {"to": "x", "amount": 1}, "call.unconfirmed", False),
    ]
    async with place(kind, sut.server) as at, at.caller(Who("alice", "read"), MODERN) as p:
        for tool, arguments, name, inside in asked:
            kept.events.clear()
            response = await p.once("tools/call", {"name": tool, "arguments": arguments}, "r7")
            assert "error" in response or response["result"]["isError"], response
            assert [event.name for event in kept.refusals] == [name], said(kept)
            assert [event.outcome for event in kept.calls] == (["error"] if inside else [])
            for event in kept.events:
                checked(event)
                assert (event.principal, event.tenant, event.server) == (WHO, "home", "sut")
                assert (event.method, event.target, event.request) == (TOOL, tool, "r7")
                assert event.peer == ("" if kind in ("memory", "unix") else "127.0.0.1")
        kept.events.clear()
        assert (await p.tool("echo", {"text": "x"}))["content"]
        assert [(event.name, event.outcome, event.principal) for event in kept.events] == [("call.ended", "ok", WHO)]


@pytest.mark.attack("ATK-288", transports=("stdio", "session"))
@pytest.mark.parametrize("kind", ["stdio", "session"])
async def test_whoever_needs_no_name_is_on_record_too(kind: str, tmp_path: Path) -> None:
    kept = Kept()
    sut = Sut(tmp_path, audit=kept)
    async with door(kind, sut.server) as at:
        for text, name, method in (
            (line("add", '{"a":"1","b":1}'), "arguments.invalid", TOOL),
            (line("read", '{"path":"../x"}'), "path.refused", TOOL),
            (line("nothing"), "call.refused", TOOL),
            ("{", "message.malformed", ""),
            ('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":7}', "message.invalid", ""),
        ):
            kept.events.clear()
            await answered(at, text)
            assert [event.name for event in kept.refusals] == [name], said(kept)
            (event,) = kept.refusals
            assert event.principal and event.method == method
            assert event.peer == ("" if kind == "stdio" else "127.0.0.1")
            checked(event)
        kept.events.clear()
        assert (await answered(at, line("echo", '{"text":"x"}'))).word == "answered"
        assert [(event.name, event.outcome) for event in kept.events] == [("call.ended", "ok")]


async def test_calls_under_way_beyond_what_one_may_have(tmp_path: Path) -> None:
    kept = Kept()
    async with facing("http", opened(tmp_path, kept).server) as port:
        first = asyncio.create_task(exchange(port, use("slow", {"seconds": 0.3})(port)))
        await asyncio.sleep(0.1)
        assert (await exchange(port, use("slow", {"seconds": 0.01})(port))).status == 429
        assert [(event.name, event.setting) for event in kept.events] == [
            ("limit.reached", "Limits.in_flight_per_principal")
        ]
        assert (kept.events[0].principal, kept.events[0].target, kept.events[0].request) == (WHO, "slow", "7")
        assert (await first).status == 200
        assert [(event.name, event.outcome) for event in kept.events[1:]] == [("call.ended", "ok")]
        assert kept.events[1].duration > 0.2


async def test_requests_beyond_a_rate(tmp_path: Path) -> None:
    kept = Kept()
    rates = Rates(principal=Rate(0.1, burst=2))
    sut = Sut(tmp_path, protected=True, audit=kept, policy=SecurityPolicy(timeouts=QUICK, rates=rates))
    async with facing("http", sut.server) as port:
        statuses = [(await exchange(port, use("echo", {"text": "x"})(port))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert [event.name for event in kept.events] == ["call.ended", "call.ended", "limit.reached"]
        (event,) = kept.refusals
        assert (event.setting, event.principal, event.target, event.error) == (
            "Rates.principal", WHO, "echo", "RateLimited",
        )  # fmt: skip


async def test_a_link_that_is_opened_by_somebody_else(tmp_path: Path) -> None:
    kept = Kept()
    sut = Sut(tmp_path, protected=True, audit=kept)
    links: Links[str] = Links("https://shop.example/pay")

    @sut.server.tool(public=True)
    def link(ctx: Context) -> str:
        return links.new(ctx, "order")

    async with facing("http", sut.server) as port:
        result = (await exchange(port, use("link")(port))).json["result"]
        ticket = result["content"][0]["text"].rpartition("=")[2]
        kept.events.clear()
        bob = Who("bob").principal
        with pytest.raises(LinkRefused):
            links.redeem(ticket, bob, peer="192.0.2.7")
        assert [(event.name, event.principal, event.peer) for event in kept.events] == [
            ("link.refused", bob.account, "192.0.2.7")
        ]
        assert ticket not in str(kept.events)
        kept.events.clear()
        assert links.redeem(ticket, Who("alice").principal) == "order"
        assert kept.events == []


async def test_what_one_server_refuses_is_not_on_the_record_of_another(tmp_path: Path) -> None:
    mine, others = Kept(), Kept()
    sut = Sut(tmp_path / "one", protected=True, audit=mine)
    other = Sut(tmp_path / "two", protected=True, audit=others, name="other")
    async with facing("http", sut.server) as port, facing("http", other.server) as second:
        await exchange(port, use("read", {"path": "../x"})(port))
        assert [event.name for event in mine.events] == ["path.refused", "call.ended"]
        assert others.events == []
        await exchange(second, use("read", {"path": "../x"})(second))
        assert len(mine.events) == 2 and [event.server for event in others.events] == ["other", "other"]


async def test_a_call_that_is_taken_back_is_one_record(tmp_path: Path) -> None:
    kept = Kept()
    sut = Sut(tmp_path, protected=True, audit=kept)
    async with facing("http", sut.server) as port:
        task = asyncio.create_task(exchange(port, use("slow", {"seconds": 20})(port)))
        await until(lambda: sut.ran == ["slow"])
        task.cancel()
        await until(lambda: kept.events)
        assert [(event.name, event.outcome, event.target) for event in kept.events] == [
            ("call.ended", "cancelled", "slow")
        ]
        assert kept.events[0].principal == WHO


async def test_listings_and_discovery_leave_no_record(tmp_path: Path) -> None:
    kept = Kept()
    sut = Sut(tmp_path, protected=True, audit=kept)
    async with facing("http", sut.server) as port:
        for method in ("tools/list", "resources/list", "prompts/list", "server/discover"):
            assert (await exchange(port, ask(method)(port))).status == 200
        assert kept.events == []
    assert kept.closed <= 1
