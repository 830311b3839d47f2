"""What a handler asks of its client: elicitation, sampling and roots, their rounds, states and time-outs."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts, ToolOutput
from tests.support.features import always, everywhere, make, text
from tests.support.mcp import MODERN, peer, until

ELICIT = {"elicitation": {}}
YES = {"action": "accept", "content": {"name": "Ann", "age": 7}}


@dataclass
class Person:
    name: str
    age: int


@pytest.mark.parametrize("revision", [MODERN, "2025-11-25", "2025-06-18"])
@everywhere
async def test_elicitation(revision: str, transport: str) -> None:
    server = make()
    effects: list[str] = []

    @server.tool()
    async def ask(ctx: Context) -> str:
        await ctx.once("effect", lambda: effects.append("x"))
        first = await ctx.elicit("who", Person)
        second = await ctx.elicit("again", Person)
        return f"{first.action} {first.content} {second.accepted}"

    given = iter([YES, {"action": "decline"}])
    async with peer(
        server, revision, transport, capabilities=ELICIT, answers={"elicitation/create": lambda _: next(given)}
    ) as p:
        result = await p.tool("ask")
        assert text(result) == "accept Person(name='Ann', age=7) False"
        assert effects == ["x"]
        assert [params["message"] for _, params in p.asked] == ["who", "again"]
        assert p.rounds == (2 if revision == MODERN else 0)


@always
async def test_a_client_without_the_capability_is_not_asked(revision: str) -> None:
    server = make()
    after: list[str] = []

    @server.tool()
    async def ask(ctx: Context) -> str:
        await ctx.elicit("who", Person)
        after.append("x")
        return "x"

    @server.tool()
    async def model(ctx: Context) -> str:
        await ctx.sample("hi", max_tokens=5)
        return "x"

    async with peer(server, revision, "memory", capabilities={"roots": {}}) as p:
        for name in ("ask", "model"):
            error = await p.error("tools/call", {"name": name})
            assert error["code"] == (-32021 if revision == MODERN else -32602)
        assert p.asked == []
        assert after == []


@pytest.mark.attack("ATK-099")
async def test_capabilities_are_not_remembered_between_modern_requests() -> None:
    server = make()

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit("who", Person)).action

    async with peer(server, capabilities=ELICIT) as p:
        assert (await p.once("tools/call", {"name": "ask"}))["result"]["resultType"] == "input_required"
        p.capabilities = {}
        assert (await p.once("tools/call", {"name": "ask"}))["error"]["code"] == -32021


@pytest.mark.parametrize("revision", [MODERN, "2025-11-25"])
async def test_url_elicitation(revision: str) -> None:
    server = make()

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit_url("sign in", "https://example.com/x")).action

    async with peer(
        server,
        revision,
        capabilities={"elicitation": {"url": {}}},
        answers={"elicitation/create": lambda _: {"action": "accept"}},
    ) as p:
        assert text(await p.tool("ask")) == "accept"
        assert p.asked[0][1]["url"] == "https://example.com/x"
        assert p.asked[0][1]["mode"] == "url"
    async with peer(server, revision, capabilities=ELICIT) as p:
        assert "error" in await p.once("tools/call", {"name": "ask"})


@always
@everywhere
async def test_sampling_and_roots(revision: str, transport: str) -> None:
    server = make()

    @server.tool()
    async def ask(ctx: Context) -> str:
        reply = await ctx.sample("hi", max_tokens=5)
        roots = await ctx.list_roots()
        return f"{reply.model} {roots[0].uri}"

    answers = {
        "sampling/createMessage": lambda _: {
            "role": "assistant",
            "content": {"type": "text", "text": "yo"},
            "model": "m",
        },
        "roots/list": lambda _: {"roots": [{"uri": "file:///tmp"}]},
    }
    async with peer(server, revision, transport, capabilities={"sampling": {}, "roots": {}}, answers=answers) as p:
        assert text(await p.tool("ask")) == "m file:///tmp"


@pytest.mark.parametrize("revision", [MODERN, "2025-11-25"])
@pytest.mark.parametrize("how", ["gather", "group"])
async def test_questions_that_are_asked_together_go_out_together(revision: str, how: str) -> None:
    server = make()

    @server.tool()
    async def ask(ctx: Context) -> str:
        if how == "gather":
            answers = await asyncio.gather(ctx.elicit("a", Person), ctx.elicit("b", Person), ctx.list_roots())
            return f"{answers[0].action} {answers[1].action} {len(answers[2])}"
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ctx.elicit("a", Person))
            second = group.create_task(ctx.elicit("b", Person))
            roots = group.create_task(ctx.list_roots())
        return f"{first.result().action} {second.result().action} {len(roots.result())}"

    answers = {"elicitation/create": lambda _: YES, "roots/list": lambda _: {"roots": []}}
    async with peer(server, revision, capabilities={**ELICIT, "roots": {}}, answers=answers) as p:
        assert text(await p.tool("ask")) == "accept accept 0"
        assert len(p.asked) == 3
        assert p.rounds == (1 if revision == MODERN else 0)


async def test_questions_from_a_thread() -> None:
    server = make()

    @server.tool()
    def ask(ctx: Context) -> str:
        return ctx.wait(ctx.elicit("a", Person)).action

    for revision in (MODERN, "2025-11-25"):
        async with peer(server, revision, capabilities=ELICIT, answers={"elicitation/create": lambda _: YES}) as p:
            assert text(await p.tool("ask")) == "accept"


async def test_a_request_state_opens_only_where_it_belongs() -> None:
    server = make()
    ran: list[str] = []

    @server.tool()
    async def ask(ctx: Context, what: str) -> str:
        answer = await ctx.elicit("sure", Person)
        ran.append(what)
        return answer.action

    @server.tool()
    async def other(ctx: Context, what: str) -> str:
        ran.append(what)
        return (await ctx.elicit("sure", Person)).action

    params = {"name": "ask", "arguments": {"what": "a"}}
    async with peer(server, capabilities=ELICIT) as p:
        first = (await p.once("tools/call", params))["result"]
        state, given = first["requestState"], {"elicit_1": YES}
        for change in (
            {"requestState": state[:-3] + ("AAA" if state[-3:] != "AAA" else "BBB")},
            {"requestState": ""},
            {"requestState": 5},
            {"requestState": None, "arguments": {"what": "a"}, "name": "nobody"},
            {"arguments": {"what": "b"}},
            {"name": "other"},
            {"arguments": {"what": "a", "more": 1}},
        ):
            again = {**params, "requestState": state, "inputResponses": given, **change}
            response = await p.once("tools/call", again)
            assert "error" in response or response["result"].get("isError"), change
        assert ran == []
        wrong = await p.once(
            "tools/call",
            {
                **params,
                "requestState": state,
                "inputResponses": {"elicit_1": {"action": "accept", "content": {"name": 5}}},
            },
        )
        assert wrong["result"]["resultType"] == "input_required"
        assert ran == []
        response = await p.once("tools/call", {**params, "requestState": state, "inputResponses": given})
        assert text(response["result"]) == "accept"
        assert ran == ["a"]
    async with peer(make(), capabilities=ELICIT) as p:
        assert "error" in await p.once("tools/call", {**params, "requestState": state, "inputResponses": given})


async def test_a_state_key_lets_replicas_share_states_and_a_state_expires() -> None:
    key = "ab" * 32

    def replica(seconds: float) -> Server:
        server = make(state_key=key, policy=SecurityPolicy(timeouts=Timeouts(state=seconds, shutdown=0.2)))

        @server.tool()
        async def ask(ctx: Context) -> str:
            return (await ctx.elicit("sure", Person)).action

        return server

    for seconds in (60.0, 0.05):
        async with peer(replica(seconds), capabilities=ELICIT) as p:
            state = (await p.once("tools/call", {"name": "ask"}))["result"]["requestState"]
        await asyncio.sleep(0.06)
        async with peer(replica(60), capabilities=ELICIT) as p:
            again = await p.once(
                "tools/call", {"name": "ask", "requestState": state, "inputResponses": {"elicit_1": YES}}
            )
            assert ("result" in again) == (seconds == 60), again


async def test_rounds_are_limited() -> None:
    server = make(policy=SecurityPolicy(limits=Limits(rounds=3)))

    @server.tool()
    async def ask(ctx: Context, times: int) -> str:
        for number in range(times):
            await ctx.elicit(f"{number}", Person)
        return "done"

    async with peer(server, capabilities=ELICIT, answers={"elicitation/create": lambda _: YES}) as p:
        assert text(await p.tool("ask", {"times": 3})) == "done"
        result = await p.tool("ask", {"times": 4})
        assert result["isError"] is True


async def test_the_handlers_clock_stands_while_a_legacy_client_thinks() -> None:
    server = make(policy=SecurityPolicy(timeouts=Timeouts(handler=0.15, ask=5, shutdown=0.2)))

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit("who", Person)).action

    async with peer(server, "2025-11-25", capabilities=ELICIT) as p:
        waiting = p.start(p.message("tools/call", {"name": "ask"}, 1, {}))
        questions: list[dict[str, Any]] = []
        p.reply = lambda question: questions.append(question) or {"jsonrpc": "2.0", "method": "notifications/nothing"}
        await until(lambda: questions)
        await asyncio.sleep(0.3)
        await p.tell({"jsonrpc": "2.0", "id": questions[0]["id"], "result": YES})
        assert text((await waiting)["result"]) == "accept"


async def test_a_question_that_is_not_answered_times_out() -> None:
    server = make(policy=SecurityPolicy(timeouts=Timeouts(ask=0.1, shutdown=0.2)))

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit("who", Person)).action

    async with peer(server, "2025-11-25", capabilities=ELICIT) as p:
        p.reply = lambda question: {"jsonrpc": "2.0", "method": "notifications/nothing"}
        response = await p.once("tools/call", {"name": "ask"})
        assert response["result"]["isError"] is True


async def test_a_thread_that_asks_for_a_cancelled_request_is_let_go() -> None:
    server = Server("threads", policy=SecurityPolicy(limits=Limits(threads=1)))
    let_go: list[str] = []

    @server.tool()
    def ask(ctx: Context) -> str:
        try:
            return ctx.wait(ctx.list_roots())[0].uri
        except BaseException as exc:
            let_go.append(type(exc).__name__)
            raise

    async def never() -> list[str]:
        await asyncio.sleep(20)
        return []

    async with Client(server, era="legacy", on_roots=never) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call_tool("ask"), 0.2)
        await until(lambda: let_go == ["CancelledError"])


@pytest.mark.attack("ATK-256")
async def test_a_handler_puts_no_state_of_its_own_on_the_wire() -> None:
    """What a handler returns is content, whatever it looks like; a state is made and sealed here."""
    server = make()
    plain = {"resultType": "input_required", "requestState": "plain-canary", "inputRequests": {}}

    @server.tool(structured_output=False)
    async def returns() -> dict[str, object]:
        return plain

    @server.tool(structured_output=False)
    async def outputs() -> ToolOutput:
        return ToolOutput.json(plain)

    @server.tool()
    async def asks(ctx: Context) -> str:
        await ctx.once("plain-canary", lambda: "plain-canary")
        return (await ctx.elicit("sure", Person)).action

    async with peer(server, capabilities=ELICIT) as p:
        for name in ("returns", "outputs"):
            result = (await p.once("tools/call", {"name": name}))["result"]
            assert result["resultType"] == "complete"
            assert "requestState" not in result
            assert "plain-canary" in text(result)
        state = (await p.once("tools/call", {"name": "asks"}))["result"]["requestState"]
        assert b"canary" not in b64decode(state + "=" * (-len(state) % 4), altchars=b"-_")
        again = {"name": "asks", "requestState": "plain-canary", "inputResponses": {"elicit_1": YES}}
        assert (await p.once("tools/call", again))["error"]["message"] == "Invalid requestState"
