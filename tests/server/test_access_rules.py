"""Rules as they are declared, and the functions that decide: what is asked, when, and what counts as a yes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from garrison import ConfigurationError, RegistrationError, SecurityPolicy, Server, Timeouts, mcp_server, tool
from garrison.server.access import Access, AccessControl
from tests.support.callers import Who, outcome, place
from tests.support.mcp import until
from tests.support.protected import protection

ALICE = Who("alice", "notes:read")
OWNER = Who("owner", owner=True)


def server_of(authorize: Any = None, default: Any = None, **options: Any) -> tuple[Server, list[Any]]:
    """A protected server with one tool, whose policy function this is; what ran."""
    ran: list[Any] = []
    server = Server("rules", auth=protection(), authorize=default, **options)

    @server.tool(**({"authorize": authorize} if authorize is not None else {}))
    def act(number: int = 1, tags: list[str] | None = None) -> str:
        ran.append((number, tags))
        return "done"

    return server, ran


async def verdict(server: Server, who: Who = ALICE, transport: str = "memory", **arguments: Any) -> str:
    async with place(transport, server) as at, at.caller(who) as p:
        return outcome(await p.once("tools/call", {"name": "act", "arguments": arguments}))


async def truth(access: Access) -> bool:
    await asyncio.sleep(0)
    return True


class Odd:
    """True for whoever asks nicely."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # it is never in a set


def fails(access: Access) -> bool:
    raise RuntimeError("the database of rights is down")


async def fails_later(access: Access) -> bool:
    await asyncio.sleep(0)
    raise PermissionError


async def gives(value: Any) -> Any:
    return value


@pytest.mark.parametrize("authorize", [lambda access: True, truth, lambda access: gives(True)])
async def test_a_policy_function_that_says_true_lets_in(authorize: Any) -> None:
    server, ran = server_of(authorize)
    assert await verdict(server, number=3) == "ok"
    assert ran == [(3, None)]


@pytest.mark.parametrize(
    "authorize",
    [
        lambda access: False,
        lambda access: None,
        lambda access: 1,
        lambda access: "yes",
        lambda access: ["yes"],
        lambda access: Odd(),
        lambda access: gives(1),
        lambda access: gives("True"),
        lambda access: gives(None),
        lambda access: gives(gives),
        lambda: True,
        fails,
        fails_later,
    ],
)
async def test_whatever_else_a_policy_function_does_is_a_no(authorize: Any) -> None:
    server, ran = server_of(authorize)
    assert await verdict(server) == "unknown"
    assert ran == []
    async with place("memory", server) as at:
        async with at.caller(ALICE) as p:
            assert (await p.result("tools/list"))["tools"] == []
        async with at.caller(OWNER) as p:
            assert outcome(await p.once("tools/call", {"name": "act", "arguments": {}})) == "ok"


async def test_a_policy_function_that_fails_is_an_event_and_no_text_of_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, _ = server_of(fails)
    async with place("http", server) as at, at.caller(ALICE) as p:
        assert b"database" not in await p.bytes("tools/call", {"name": "act", "arguments": {}})
    assert "access.policy_failed: authorize= of 'act' raised an exception" in caplog.text


async def test_what_a_policy_function_is_asked() -> None:
    asked: list[Access] = []

    def record(access: Access) -> bool:
        asked.append(access)
        return True

    server, ran = server_of(record)

    @server.resource("note://{owner}/{number}{?lang}", authorize=record)
    def note(number: int) -> str:
        return "x"

    @server.prompt(authorize=record)
    def ask(count: int) -> str:
        return "x"

    def suggest(value: str) -> list[str]:
        return [value]

    server.completion("note://{owner}/{number}{?lang}", "number")(suggest)
    async with place("memory", server) as at:
        async with at.caller(ALICE) as p:
            await p.result("tools/call", {"name": "act", "arguments": {"number": 2, "tags": ["a"]}})
            await p.result("resources/read", {"uri": "note://bob/7"})
            await p.result("prompts/get", {"name": "ask", "arguments": {"count": "5"}})
            ref = {"type": "ref/resource", "uri": "note://{owner}/{number}{?lang}"}
            given = {"arguments": {"owner": "bob"}}
            completing = {"ref": ref, "argument": {"name": "number", "value": "1"}, "context": given}
            await p.result("completion/complete", completing)
            await p.result("tools/list")
            calls = [(each.method, each.name, each.arguments and dict(each.arguments)) for each in asked]
            assert calls == [
                ("tools/call", "act", {"number": 2, "tags": ["a"]}),
                ("resources/read", "note://bob/7", {"owner": "bob", "number": 7}),
                ("prompts/get", "ask", {"count": 5}),
                ("completion/complete", "note://{owner}/{number}{?lang}", {"owner": "bob", "number": "1"}),
                ("tools/list", "act", None),
            ]
            assert all(each.principal == ALICE.principal for each in asked)
            assert all(each.principal.scopes == {"notes:read"} for each in asked)
            with pytest.raises(TypeError):
                asked[0].arguments["number"] = 99  # type: ignore[index]  # that is what is shown
            assert ran == [(2, ["a"])]
            asked.clear()
            # Arguments that break the schema are not shown to it: it is asked whether the tool may be known.
            await p.once("tools/call", {"name": "act", "arguments": {"number": "x"}})
            assert [(each.method, each.arguments) for each in asked] == [("tools/call", None)]
            asked.clear()
            server.resource_updated("note://bob/7")  # nobody listens: nobody is asked about
        async with at.caller(OWNER) as p:
            await p.result("tools/call", {"name": "act", "arguments": {}})
            await p.result("tools/list")
            await p.result("resources/read", {"uri": "note://bob/7"})
    assert asked == []


async def test_who_hears_of_a_change_is_asked_as_who_reads() -> None:
    asked: list[dict[str, object]] = []

    def odd_numbers(access: Access) -> bool:
        asked.append(dict(access.arguments or {}))
        return access.arguments is None or access.arguments["number"] in (1, 3)

    server = Server("rules", auth=protection())

    @server.resource("note://{owner}/{number}", scopes=["admin"], without_scopes="hide")
    def hidden(owner: str, number: int) -> str:
        return "x"

    @server.resource("note://{+owner}/{number}", authorize=odd_numbers)
    def note(number: int) -> str:
        return "x"

    async with place("memory", server) as at, at.caller(ALICE, "2025-11-25") as p:
        for uri in ("note://a/1", "note://a/2", "note://a/3", "note://a/x"):
            await p.result("resources/subscribe", {"uri": uri})
            reads = outcome(await p.once("resources/read", {"uri": uri})) == "ok"
            p.notifications.clear()
            asked.clear()
            server.resource_updated(uri)
            await asyncio.sleep(0.01)
            assert [params["uri"] for _, params in p.notifications] == ([uri] if reads else [])
            assert asked == ([] if uri.endswith("x") else [{"owner": "a", "number": int(uri[-1])}])


async def test_questions_about_changes_do_not_pile_up() -> None:
    waiting = asyncio.Event()
    asked: list[Access] = []

    async def thinks(access: Access) -> bool:
        asked.append(access)
        await waiting.wait()
        return True

    server = Server("rules", auth=protection(), policy=SecurityPolicy(timeouts=Timeouts(handler=0.5, shutdown=0.1)))

    @server.resource("note://one", authorize=thinks)
    def one() -> str:
        return "x"

    async with place("memory", server) as at, at.caller(ALICE, "2025-11-25") as p:
        await p.result("resources/subscribe", {"uri": "note://one"})
        for number in range(100):
            server.resource_updated("note://one")
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert len(asked) == 1
        await asyncio.sleep(0.6)  # its time is over, and it has not said yes
        assert p.notifications == []
        waiting.set()
        server.resource_updated("note://one")
        await until(lambda: p.notifications)
        assert len(asked) == 2


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_a_policy_function_has_the_calls_time(revision: str) -> None:
    async def hangs(access: Access) -> bool:
        await asyncio.sleep(30)
        return True

    policy = SecurityPolicy(timeouts=Timeouts(handler=0.1, shutdown=0.1))
    server, ran = server_of(hangs, policy=policy)
    began = asyncio.get_running_loop().time()
    async with place("memory", server) as at, at.caller(ALICE, revision) as p:
        for method, params in (("tools/call", {"name": "act", "arguments": {}}), ("tools/list", {})):
            response = await p.once(method, params)
            assert "error" in response, response
            assert "result" not in response
    assert asyncio.get_running_loop().time() - began < 5
    assert ran == []


async def test_a_call_that_is_taken_back_is_not_decided_on() -> None:
    began = asyncio.Event()
    ended: list[str] = []

    async def thinks(access: Access) -> bool:
        began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return True

    server, ran = server_of(thinks)
    async with place("memory", server) as at, at.caller(ALICE) as p:
        p.start(p.message("tools/call", {"name": "act", "arguments": {}}, "one", {}))
        await began.wait()
        told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "one"}}
        await p.tell(told)
        await until(lambda: ended)
        assert ran == []


@pytest.mark.parametrize("known", [True, False])
async def test_who_may_know_but_not_do_is_told_so(known: bool) -> None:
    """Refused for these arguments: denied to who may know of it, and unknown to others."""
    server, ran = server_of(lambda access: known if access.arguments is None else access.arguments["number"] == 1)
    assert await verdict(server, number=1) == "ok"
    assert await verdict(server, number=2) == ("denied" if known else "unknown")
    bad = await verdict(server, number="x")
    assert bad == ("failed" if known else "unknown")
    assert ran == [(1, None)]


@pytest.mark.parametrize("protected", [True, False])
async def test_the_policy_function_of_a_server_is_asked_about_what_says_nothing(protected: bool) -> None:
    asked: list[str] = []

    def all_but_two(access: Access) -> bool:
        asked.append(access.name)
        return access.name != "two"

    server = Server("rules", authorize=all_but_two, auth=protection() if protected else None)

    def handler() -> str:
        return "x"

    server.add_tool(handler, "one")
    server.add_tool(handler, "two")
    server.add_tool(handler, "three", authorize=lambda access: False)
    server.add_tool(handler, "four", public=True)
    async with place("memory", server) as at, at.caller(ALICE) as p:
        verdicts = [outcome(await p.once("tools/call", {"name": n})) for n in ("one", "two", "three", "four")]
        assert verdicts == ["ok", "unknown", "unknown", "ok"]
        assert [each["name"] for each in (await p.result("tools/list"))["tools"]] == ["one", "four"]
    assert set(asked) == {"one", "two"}


def handler() -> str:
    return "x"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"scopes": "a b"}, "a list of scopes"),
        ({"scopes": b"ab"}, "a list of scopes"),
        ({"scopes": [""]}, "visible ASCII"),
        ({"scopes": ["a b"]}, "visible ASCII"),
        ({"scopes": ['a"']}, "visible ASCII"),
        ({"scopes": ["a\\"]}, "visible ASCII"),
        ({"scopes": ["a\r\nx: y"]}, "visible ASCII"),
        ({"scopes": ["\u00e9"]}, "visible ASCII"),
        ({"scopes": [5]}, "visible ASCII"),
        ({"public": True, "scopes": ["a"]}, "leave scopes="),
        ({"public": True, "authorize": truth}, "leave scopes="),
        ({"public": "no"}, "True or False"),
        ({"public": 1}, "True or False"),
        ({"authorize": True}, "a function"),
        ({"authorize": "admins"}, "a function"),
        ({"without_scopes": "hide"}, "beside scopes="),
        ({"without_scopes": "hide", "authorize": truth}, "beside scopes="),
        ({"without_scopes": "hide", "scopes": []}, "beside scopes="),
        ({"without_scopes": "secret", "scopes": ["a"]}, "beside scopes="),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, Any], words: str) -> None:
    server = Server("rules")
    registrations: list[Any] = [
        lambda: server.add_tool(handler, "it", **rule),
        lambda: server.add_resource(handler, "note://it", **rule),
        lambda: server.add_resource(handler, "note://{it}", **rule),
        lambda: server.add_prompt(handler, "it", **rule),
    ]
    for register in registrations:
        with pytest.raises(RegistrationError, match=words):
            register()
    assert [*server.registry.entries()] == []


@pytest.mark.parametrize(
    "rule",
    [
        {"scopes": ["a", "b:c", "https://x.example/scope"]},
        {"scopes": iter(("a",))},
        {"scopes": {"a"}, "without_scopes": "hide"},
        {"scopes": ("a",), "authorize": truth, "without_scopes": "list"},
        {"authorize": truth},
        {"public": True},
        {"public": False},
        {"scopes": []},
        {},
    ],
)
def test_a_rule_that_can_be_meant_is_taken(rule: dict[str, Any]) -> None:
    Server("rules").add_tool(handler, "it", **rule)


@pytest.mark.attack("ATK-174")
@pytest.mark.parametrize("kind", ["http", "asgi"])
async def test_what_was_not_declared_is_named_at_the_start(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    server, ran = server_of()
    server.add_tool(handler, "declared", public=True)
    with caplog.at_level(logging.WARNING):
        assert await verdict(server, transport=kind) == "unknown"
    assert caplog.text.count("access.undeclared: offered to nobody: tool 'act' (scopes=, public=)") == 1
    assert ran == []
    caplog.clear()
    with caplog.at_level(logging.WARNING):  # with a rule for the whole server, nothing is undeclared
        server, ran = server_of(default=truth)
        assert await verdict(server, transport=kind) == "ok"
    assert "access.undeclared" not in caplog.text


async def test_scopes_need_somebody_who_gives_them() -> None:
    server = Server("rules")
    server.add_tool(handler, "it", scopes=["a"])
    for serve in (lambda: server.asgi(token="x" * 32), lambda: server.run_http(port=0)):
        with pytest.raises(ConfigurationError, match=r"tool 'it' needs scopes.*Server\(auth=\.\.\.\)"):
            serve()
    with pytest.raises(ConfigurationError, match="needs scopes"):
        async with server.http(port=0):
            pass
    async with place("memory", server) as at:  # whoever started it needs none; others cannot have any
        async with at.caller(OWNER) as p:
            assert outcome(await p.once("tools/call", {"name": "it"})) == "ok"
        async with at.caller(Who("uid:1000")) as p:
            assert outcome(await p.once("tools/call", {"name": "it"})) == "scopes"


@pytest.mark.parametrize("kind", ["memory", "http"])
@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_rules_of_what_is_registered_later_hold_at_once(kind: str, revision: str) -> None:
    server = Server("rules", auth=protection())
    server.add_tool(handler, "first", public=True)

    async def names(p: Any) -> list[str]:
        return [each["name"] for each in (await p.result("tools/list"))["tools"]]

    async def verdict_of(p: Any, name: str) -> str:
        return outcome(await p.once("tools/call", {"name": name}))

    async with place(kind, server) as at, at.caller(ALICE, revision) as p:
        assert await names(p) == ["first"]
        server.add_tool(handler, "hidden", scopes=["admin"], without_scopes="hide")
        server.add_tool(handler, "asks", scopes=["admin"])
        server.add_tool(handler, "mine", scopes=["notes:read"])
        server.add_tool(handler, "bare")
        assert await names(p) == ["first", "mine"]
        assert [await verdict_of(p, name) for name in ("hidden", "asks", "mine", "bare", "first")] == [
            *("unknown", "scopes", "ok", "unknown", "ok")
        ]
        server.remove_tool("mine")
        assert await names(p) == ["first"]
        assert await verdict_of(p, "mine") == "unknown"
        server.add_tool(handler, "mine", public=True)
        assert await names(p) == ["first", "mine"]
        server.remove_tool("mine")
        server.add_tool(handler, "mine", scopes=["admin"])
        assert await verdict_of(p, "mine") == "scopes"


async def test_the_first_rule_of_an_open_server_holds_at_once() -> None:
    server = Server("rules")
    server.add_tool(handler, "first")
    async with place("memory", server) as at, at.caller(Who("uid:1000")) as p:
        assert outcome(await p.once("tools/call", {"name": "first"})) == "ok"
        server.add_tool(handler, "second", authorize=lambda access: False)
        assert outcome(await p.once("tools/call", {"name": "second"})) == "unknown"
        assert outcome(await p.once("tools/call", {"name": "first"})) == "ok"
        assert [each["name"] for each in (await p.result("tools/list"))["tools"]] == ["first"]


async def test_rules_of_a_class() -> None:
    @mcp_server(name="of a class", auth=protection())
    class Notes:
        @tool(scopes=["notes:read"])
        def act(self) -> str:
            return "x"

        @tool()
        def bare(self) -> str:
            return "x"

    assert await verdict(Server.of(Notes())) == "ok"
    assert await verdict(Server.of(Notes()), Who("alice", "notes:write")) == "scopes"
    async with place("memory", Server.of(Notes())) as at, at.caller(ALICE) as p:
        assert outcome(await p.once("tools/call", {"name": "bare"})) == "unknown"


@pytest.mark.parametrize("public", [True, False])
def test_public_contents_need_a_public_resource(public: bool) -> None:
    server = Server("rules", auth=protection())
    options: dict[str, Any] = {"cache_scope": "public", **({"public": True} if public else {"scopes": ["a"]})}
    if public:
        server.add_resource(handler, "note://it", **options)
    else:
        with pytest.raises(RegistrationError, match="cache_scope"):
            server.add_resource(handler, "note://it", **options)
    with pytest.raises(ConfigurationError, match="cache_scope"):
        Server("rules", auth=protection(), cache_scope="public")


def test_something_may_be_registered_while_a_list_is_made() -> None:
    """As a handler does in its thread, between any two steps of the list."""
    server = Server("rules", auth=protection())
    server.add_tool(handler, "first", scopes=["a"])
    server.add_tool(handler, "second", public=True)

    class Meanwhile(frozenset[str]):
        def __le__(self, other: object) -> bool:
            server.add_tool(handler, "more", public=True)
            return True

    rule = server.registry.tools["first"].rule
    assert rule is not None
    rule.scopes = Meanwhile()
    shown = AccessControl(closed=True).listed(ALICE.principal, "tools/list", server.registry.tools)
    assert shown == {"first", "second"}
