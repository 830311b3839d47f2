"""What a token allows: scopes compared whole, and what is not for a caller looks like what is not there."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import pytest

from garrison import ConfigurationError, Limits, RegistrationError, SecurityPolicy, Server, Timeouts
from garrison.auth.resource import ApiKeys, Grant
from garrison.auth.resource.server import ResourceServer
from tests.support.mcp import modern
from tests.support.protected import (
    ADMIN,
    ALICE,
    BOB,
    FACES,
    METADATA,
    RESOURCE,
    ask,
    bearer,
    challenge,
    facing,
    guarded,
    knock,
    let_in,
    message,
    protection,
    session_post,
    speaking,
    token,
    use,
)
from tests.support.raw_http import connected, exchange, request, serving
from tests.support.roomy import ROOMY_RATES

EVERY = (*FACES, "session")


def outcome(answer: dict[str, Any]) -> str:
    """What became of a call, in a word."""
    if "code" in answer:
        return str(answer["code"])
    return "failed" if answer.get("isError") else "done"


def insufficient(answer: Any, *scopes: str) -> None:
    """The answer is a challenge for these scopes and no others."""
    assert answer.status == 403, answer
    found = challenge(answer)
    assert (found.error, found.scope, found.resource_metadata) == ("insufficient_scope", scopes, METADATA)


# Tools


@pytest.mark.attack("ATK-171")
@pytest.mark.parametrize("face", EVERY)
async def test_a_tool_needs_its_scopes(face: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        async with speaking(face, port, ALICE) as alice, speaking(face, port, ADMIN) as admin:
            for tool, scopes in (("admin_reset", ("admin",)), ("purge", ("admin", "notes:write"))):
                answer = await alice.use(tool)
                assert (answer["code"], answer["data"]["scopes"]) == (403, list(scopes))
                if alice.last is not None:
                    insufficient(alice.last, *scopes)
            assert not ran
            assert outcome(await alice.use("read")) == "done"
            assert outcome(await admin.use("admin_reset")) == "done"
            assert outcome(await admin.use("purge")) == "403"  # all of them are needed
            assert ran == ["read", "admin_reset"]


@pytest.mark.attack("ATK-172")
@pytest.mark.parametrize("face", EVERY)
@pytest.mark.parametrize(
    "scope",
    ["admins", "administrator read", "admin:*", "Admin", "ADMIN", "*", "admi", "", "admin,notes:read", "notes", "a"],
)
async def test_a_scope_is_compared_whole(face: str, scope: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port, speaking(face, port, bearer(scope)) as line:
        assert outcome(await line.use("admin_reset")) == "403"
        assert outcome(await line.use("read")) == "403"
        assert not ran
        assert outcome(await line.use("whoami")) == "done"


@pytest.mark.attack("ATK-172")
async def test_a_scope_includes_what_is_said_and_nothing_else() -> None:
    wider = {"root": ["admin"], "admin": ["notes:write"], "notes:write": ["notes:read"], "notes": []}
    ran: list[str] = []
    async with serving(guarded(protection(hierarchy=wider), ran), token=None) as running:
        for scope, tools in (
            ("root", "read purge admin_reset secret_tool"),
            ("admin", "read purge admin_reset secret_tool"),
            ("notes:write", "read"),
            ("notes:read", "read"),
            ("notes", ""),
            ("roots", ""),
            ("admin:x", ""),
        ):
            ran.clear()
            for tool in ("read", "purge", "admin_reset"):
                await use(running.port, tool, as_=bearer(scope))
            await use(running.port, "secret_tool", {"number": 1}, as_=bearer(scope))
            assert ran == tools.split(), scope
            listing = await ask(running.port, "tools/list", as_=bearer(scope))
            listed = {each["name"] for each in listing.json["result"]["tools"]}
            assert {*tools.split(), "whoami"} <= listed <= {*tools.split(), "whoami", "purge", "private"}


@pytest.mark.attack("ATK-173")
@pytest.mark.parametrize("face", EVERY)
async def test_what_is_hidden_is_answered_like_what_is_not_there(face: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        async with speaking(face, port, ALICE) as alice, speaking(face, port, ADMIN) as admin:
            listed = {
                kind: {each.get("name") or each["uri"] for each in (await alice.ask(f"{kind}/list"))[kind]}
                for kind in ("tools", "prompts", "resources")
            }
            assert listed["tools"] == {"whoami", "read", "purge", "private"}
            assert (listed["prompts"], listed["resources"]) == (set(), {"board"})
            for arguments in ({"number": 1}, {"number": "no number"}, {}, {"x": "y"}):
                hidden = json.dumps(await alice.use("secret_tool", arguments))
                unknown = json.dumps(await alice.use("secret_took", arguments))
                assert hidden == unknown.replace("secret_took", "secret_tool")
            for method, name, other in (
                ("prompts/get", {"name": "plan"}, {"name": "plam"}),
                ("resources/read", {"uri": "note://admins"}, {"uri": "note://adminx"}),
            ):
                (mine,), (theirs,) = name.values(), other.values()
                hidden, unknown = json.dumps(await alice.ask(method, name)), json.dumps(await alice.ask(method, other))
                assert hidden == unknown.replace(theirs, mine)
            assert not ran
            assert "secret_tool" in {each["name"] for each in (await admin.ask("tools/list"))["tools"]}
            assert outcome(await admin.use("secret_tool", {"number": 1})) == "done"
            assert "contents" in await admin.ask("resources/read", {"uri": "note://admins"})


@pytest.mark.attack("ATK-173")
async def test_hidden_and_unknown_are_the_same_bytes_over_http() -> None:
    async with serving(guarded(), token=None) as running:
        hidden, unknown = await use(running.port, "secret_tool"), await use(running.port, "secret_took")
        assert (hidden.status, hidden.fields) == (unknown.status, unknown.fields)
        assert hidden.body == unknown.body.replace(b"secret_took", b"secret_tool")


@pytest.mark.attack("ATK-174")
@pytest.mark.parametrize("face", EVERY)
async def test_what_declares_no_rule_is_for_nobody(face: str, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []
    everything = bearer("notes:read notes:write admin undeclared *")
    async with facing(face, guarded(ran=ran)) as port, speaking(face, port, everything) as line:
        answer = json.dumps(await line.use("undeclared"))
        assert answer == json.dumps(await line.use("undeclarex")).replace("undeclarex", "undeclared")
        assert "undeclared" not in {each["name"] for each in (await line.ask("tools/list"))["tools"]}
        assert not ran
        assert outcome(await line.use("read")) == "done"
    (warned,) = [each for each in caplog.records if getattr(each, "event", "") == "access.undeclared"]
    assert "'undeclared'" in warned.getMessage()


async def test_a_default_rule_is_for_what_declares_none() -> None:
    ran: list[str] = []
    server = guarded(ran=ran, authorize=lambda access: access.principal.subject == "bob")
    async with serving(server, token=None) as running:
        assert (await use(running.port, "undeclared", as_=ALICE)).json.get("error")
        assert ran == []
        assert (await use(running.port, "undeclared", as_=BOB)).json.get("result")
        assert (await use(running.port, "admin_reset", as_=BOB)).status == 403
        assert ran == ["undeclared"]


def test_scopes_that_nobody_could_have_are_an_error_at_the_start() -> None:
    server = Server("open")

    @server.tool(scopes=["admin"])
    def reset() -> str:
        return ""

    with pytest.raises(ConfigurationError, match="scopes"):
        server.http()
    for options in ({"scopes": ['a"']}, {"scopes": ["a\r\nb"]}, {"scopes": ["a b"]}, {"scopes": "admin"}):
        with pytest.raises(RegistrationError, match="scope"):
            server.tool(**options)(lambda: "")  # type: ignore[arg-type]


# What every token needs


@pytest.mark.attack("ATK-171")
@pytest.mark.parametrize("face", FACES)
async def test_what_every_token_needs(face: str) -> None:
    ran: list[str] = []
    auth = protection(scopes=["mcp:use", "notes:read"], hierarchy={"super": ["mcp:use", "notes:read"]})
    async with facing(face, guarded(auth, ran)) as port:
        for scope in ("notes:read", "mcp:use", "", "mcp:used notes:read", "mcp:use,notes:read"):
            insufficient(await knock(face, port, bearer(scope)), "mcp:use", "notes:read")
        assert not ran
        for scope in ("mcp:use notes:read", "notes:read mcp:use other", "super"):
            assert let_in(await knock(face, port, bearer(scope)))
        assert challenge(await knock(face, port, None)).scope == ("mcp:use", "notes:read")


async def test_a_key_without_the_scopes_of_all_is_refused_too() -> None:
    few, many = ApiKeys.new(), ApiKeys.new()
    grants = {few[1]: Grant("few", ["a"]), many[1]: Grant("many", ["a", "b"])}
    auth = ResourceServer(RESOURCE, ApiKeys(grants), scopes=["a", "b"])
    async with serving(guarded(auth), token=None) as running:
        statuses = [(await use(running.port, "whoami", as_=f"Bearer {key.reveal()}")).status for key, _ in (few, many)]
        assert statuses == [403, 200]


# What a name tells


@pytest.mark.attack("ATK-176")
async def test_what_is_not_there_and_what_is_not_for_one_cannot_be_told_apart() -> None:
    """Bodies are the same, and so is the time, as far as that can be seen here."""
    names = {"not there": "note://nowhere/1", "another's": "note://bobby/0011", "hidden": "note://admins"}
    names |= {"not there, too": "note://admind"}
    times: dict[str, list[float]] = {name: [] for name in names}
    bodies: dict[str, set[bytes]] = {name: set() for name in names}
    fast = Limits(message_rate=100_000, message_burst=100_000)
    policy = SecurityPolicy(limits=fast, timeouts=Timeouts(shutdown=0.2), rates=ROOMY_RATES)
    async with serving(guarded(policy=policy), token=None) as running, connected(running.port) as wire:
        for round_ in range(260):
            for name, uri in names.items():
                data = message(running.port, modern("resources/read", {"uri": uri}), ALICE)
                began = time.perf_counter()
                await wire.send(data)
                answer = await wire.response()
                if round_ >= 10:
                    times[name].append(time.perf_counter() - began)
                bodies[name].add(answer.body.replace(uri.encode(), b"URI"))
            await asyncio.sleep(0)
    assert len(set.union(*bodies.values())) == 1
    medians = {name: statistics.median(each) for name, each in times.items()}
    assert max(medians.values()) < 2.0 * min(medians.values()), medians


@pytest.mark.attack("ATK-176")
async def test_a_resource_of_another_is_not_there() -> None:
    ran: list[str] = []
    async with serving(guarded(ran=ran), token=None) as running:
        theirs = await ask(running.port, "resources/read", {"uri": "note://bob/1"}, as_=ALICE)
        nobody = await ask(running.port, "resources/read", {"uri": "nite://bob/1"}, as_=ALICE)
        assert theirs.body == nobody.body.replace(b"nite:", b"note:")
        assert (theirs.status, theirs.fields) == (nobody.status, nobody.fields)
        assert not ran
        assert (await ask(running.port, "resources/read", {"uri": "note://bob/1"}, as_=BOB)).json.get("result")


# Sessions


async def test_a_session_is_its_principal_s_whatever_its_token() -> None:
    ran: list[str] = []
    async with facing("session", guarded(ran=ran)) as port, speaking("session", port, ALICE) as alice:
        session = alice.session
        assert session is not None
        body = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "admin_reset", "arguments": {}}}

        async def said(authorization: str | None, id: str | None = session) -> Any:
            return await exchange(port, session_post(port, body, authorization, id))

        insufficient(await said(ALICE), "admin")
        assert (await said(None)).status == 401
        assert (await said("Bearer nonsense")).status == 401
        other = await said(ADMIN)
        assert other.status == 404
        assert (await said(ADMIN, "invented")).body == other.body
        # Of the same subject, but another program, tenant or issuer: somebody else.
        assert (await said("Bearer " + token(client_id="other-app", scope="admin"))).status == 404
        assert ran == []
        for path in ("GET", "DELETE"):
            lines = [("Host", f"127.0.0.1:{port}"), ("Mcp-Session-Id", session), ("Accept", "text/event-stream")]
            lines += [("MCP-Protocol-Version", "2025-11-25")]
            for authorization, status in ((None, 401), (BOB, 404)):
                more = [("Authorization", authorization)] if authorization else []
                answer = await exchange(port, request(b"", [*lines, *more], method=path, length=False))
                assert answer.status == status
        # Refreshed, with more scopes: the same session, which may more now.
        assert (await said(bearer("notes:read admin", jti="t2"))).json["result"]
        insufficient(await said(ALICE), "admin")
        assert ran == ["admin_reset"]


async def test_a_stream_of_2024_belongs_to_its_principal() -> None:
    async with serving(guarded(http_sse=True), token=None) as running, connected(running.port) as wire:
        port = running.port
        host = [("Host", f"127.0.0.1:{port}")]
        lines = [*host, ("Accept", "text/event-stream"), ("Authorization", ALICE)]
        await wire.send(request(b"", lines, method="GET", target="/sse", length=False))
        assert (await wire.head()).status == 200
        target = (await wire.event())["data"]
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        for authorization, status in ((None, 401), (BOB, 404), ("Bearer x", 401), (ALICE, 202), (bearer(jti="2"), 202)):
            more = [("Content-Type", "application/json")]
            more += [("Authorization", authorization)] if authorization else []
            answer = await exchange(port, request(body, [*host, *more], target=target))
            assert answer.status == status
