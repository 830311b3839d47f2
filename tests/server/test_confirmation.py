"""Tools that destroy something: nothing is done that whoever asked has not confirmed, with its arguments in view."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison import Context, SecurityPolicy, Server, Timeouts, events
from garrison.protocol.types import ToolAnnotations
from garrison.server.confirmation import KEY
from tests.support.callers import Who, place
from tests.support.features import text
from tests.support.mcp import MODERN, Json, peer, until
from tests.support.protected import protection

pytestmark = pytest.mark.app

ELICIT: Json = {"elicitation": {}}
LEGACY = "2025-11-25"
PLACES = ("memory", "stdio", "unix", "http", "websocket")
SAID_YES: Json = {"action": "accept", "content": {"confirm": True}}
REFUSALS: list[Json] = [
    {"action": "decline"},
    {"action": "cancel"},
    {"action": "accept", "content": {"confirm": False}},
    {"action": "decline", "content": {"confirm": True}},
]
NONSENSE: list[Any] = [
    {"action": "accept"},
    {"action": "accept", "content": {}},
    {"action": "accept", "content": {"confirm": "true"}},
    {"action": "accept", "content": {"confirm": 1}},
    {"action": "accept", "content": [True]},
    {"action": "ACCEPT", "content": {"confirm": True}},
    {"content": {"confirm": True}},
    {"confirm": True},
]
MONEY: Json = {"to": "bob", "cents": 500}


def yes(_: Json) -> Json:
    return SAID_YES


class Bank:
    """A server whose `transfer` destroys something, and what it did."""

    def __init__(self, *, protected: bool = False, **options: Any) -> None:
        self.done: list[str] = []
        options.setdefault("policy", SecurityPolicy(timeouts=Timeouts(shutdown=0.2, handler=5, ask=5)))
        self.server = Server("bank", auth=protection(tenant_claim="tenant") if protected else None, **options)
        rules: Any = {"public": True} if protected else {}

        @self.server.tool(destructive=True, **rules)
        async def transfer(to: str, cents: int) -> str:
            self.done.append(f"{cents} to {to}")
            return "sent"

        @self.server.tool(**rules)
        async def balance() -> int:
            return 500


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    """Every security event but those of calls that were done."""
    found: list[events.Event] = []
    stop = events.listen(lambda event: found.append(event) if not event.name.startswith("call.e") else None)
    yield found
    stop()


@asynccontextmanager
async def caller(transport: str, server: Server, revision: str = MODERN, **options: Any) -> AsyncIterator[Any]:
    """A peer at one of `PLACES`; over a network it shows a token."""
    if transport == "stdio":
        async with peer(server, revision, "stdio", **options) as p:
            yield p
        return
    async with place(transport, server) as at, at.caller(Who("alice"), revision, **options) as p:
        yield p


def unconfirmed(found: list[events.Event]) -> int:
    """How often a call was refused for want of a yes; nothing else was refused."""
    assert {event.name for event in found} <= {"call.unconfirmed"}
    return len(found)


@pytest.mark.attack("ATK-153", transports=["memory", "stdio", "unix", "http", "websocket"])
@pytest.mark.parametrize("revision", [MODERN, LEGACY])
@pytest.mark.parametrize("transport", PLACES)
async def test_nothing_is_destroyed_without_a_yes(transport: str, revision: str, heard: list[events.Event]) -> None:
    bank = Bank(protected=transport != "stdio")
    given: list[Json] = []
    async with caller(transport, bank.server, revision, capabilities={"roots": {}}) as p:  # nobody can be asked
        error = await p.error("tools/call", {"name": "transfer", "arguments": MONEY})
        assert error["code"] == (-32021 if revision == MODERN else -32602)
        assert error["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}
        assert text(await p.tool("balance")) == "500"
    assert unconfirmed(heard) == 1
    answers = {"elicitation/create": lambda _: given.pop(0)}
    async with caller(transport, bank.server, revision, capabilities=ELICIT, answers=answers) as p:
        for refusal in REFUSALS:
            given.append(refusal)
            result = await p.tool("transfer", MONEY)
            assert result["isError"] is True
            assert text(result).startswith("Not done")
        assert bank.done == []
        assert unconfirmed(heard) == 1 + len(REFUSALS)
        given.append(SAID_YES)  # the same caller, who is asked and says yes
        assert text(await p.tool("transfer", MONEY)) == "sent"
        assert bank.done == ["500 to bob"]
        assert len(p.asked) == len(REFUSALS) + 1
    assert unconfirmed(heard) == 1 + len(REFUSALS)
    event = heard[0]
    assert (event.method, event.target, event.decision) == ("tools/call", "transfer", "refused")
    assert "confirm" in event.setting


@pytest.mark.attack("ATK-153")
@pytest.mark.parametrize("revision", ["2025-03-26", "2024-11-05"])
async def test_a_revision_that_cannot_ask_destroys_nothing(revision: str) -> None:
    bank = Bank()
    async with peer(bank.server, revision, capabilities=ELICIT, answers={"elicitation/create": yes}) as p:
        assert (await p.error("tools/call", {"name": "transfer", "arguments": MONEY}))["code"] == -32602
        assert text(await p.tool("balance")) == "500"
    assert bank.done == []


@pytest.mark.attack("ATK-153")
@pytest.mark.parametrize("answer", NONSENSE)
async def test_what_is_no_answer_is_no_yes(answer: Json, heard: list[events.Event]) -> None:
    bank = Bank()
    answers: Any = {"elicitation/create": lambda _: answer}
    async with peer(bank.server, LEGACY, capabilities=ELICIT, answers=answers) as p:
        assert (await p.tool("transfer", MONEY))["isError"] is True
        assert unconfirmed(heard) == 1
    async with peer(bank.server, capabilities=ELICIT) as p:  # it is asked again, and then says yes
        params = {"name": "transfer", "arguments": MONEY}
        first = (await p.once("tools/call", params))["result"]
        again = {**params, "requestState": first["requestState"], "inputResponses": {KEY: answer}}
        second = (await p.once("tools/call", again))["result"]
        assert second["resultType"] == "input_required"
        assert bank.done == []
        again = {**params, "requestState": second["requestState"], "inputResponses": {KEY: SAID_YES}}
        assert text((await p.once("tools/call", again))["result"]) == "sent"
    assert bank.done == ["500 to bob"]


@pytest.mark.attack("ATK-153")
async def test_a_client_that_fails_to_ask_has_not_asked(heard: list[events.Event]) -> None:
    bank = Bank(policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2, ask=0.1)))
    async with peer(bank.server, LEGACY, capabilities=ELICIT) as p:
        result = await p.tool("transfer", MONEY)  # answered with an error
        assert result["isError"] is True
        p.reply = lambda question: {"jsonrpc": "2.0", "method": "notifications/nothing"}
        assert (await p.tool("transfer", MONEY))["isError"] is True  # not answered at all
    assert bank.done == []
    assert unconfirmed(heard) == 2


@pytest.mark.attack("ATK-153", transports=["http", "websocket"])
@pytest.mark.parametrize("transport", ["memory", "http", "websocket"])
async def test_a_yes_is_for_one_caller_one_tool_and_its_arguments(transport: str) -> None:
    bank = Bank(protected=True)
    bank.server.add_tool(_transfer_like(bank.done), "wipe", destructive=True, public=True)
    params: Json = {"name": "transfer", "arguments": MONEY}
    async with place(transport, bank.server) as at:
        async with (
            at.caller(Who("alice"), capabilities=ELICIT) as alice,
            at.caller(Who("bob"), capabilities=ELICIT) as bob,
        ):
            first = (await alice.once("tools/call", params))["result"]
            signed = {"requestState": first["requestState"], "inputResponses": {KEY: SAID_YES}}
            for who, change in (
                (alice, {"arguments": {**MONEY, "to": "mallory"}}),
                (alice, {"arguments": {**MONEY, "cents": 501}}),
                (alice, {"name": "wipe"}),
                (bob, {}),
            ):
                refused = await who.once("tools/call", {**params, **signed, **change})
                assert refused["error"]["message"] == "Invalid requestState", change
            early = await alice.once("tools/call", {**params, "inputResponses": {KEY: SAID_YES}})
            assert early["result"]["resultType"] == "input_required"  # no answer before the question
            assert bank.done == []
            assert text((await alice.once("tools/call", {**params, **signed}))["result"]) == "sent"
            for _ in range(2):  # and it was for one call
                assert "error" in await alice.once("tools/call", {**params, **signed})
            assert bank.done == ["500 to bob"]


def _transfer_like(done: list[str]) -> Callable[..., str]:
    def wipe(to: str, cents: int) -> str:
        done.append("wiped")
        return "wiped"

    return wipe


@pytest.mark.attack("ATK-153")
async def test_of_twenty_uses_of_one_yes_one_counts() -> None:
    bank = Bank()
    params: Json = {"name": "transfer", "arguments": MONEY}
    async with peer(bank.server, capabilities=ELICIT) as p:
        first = (await p.once("tools/call", params))["result"]
        again = {**params, "requestState": first["requestState"], "inputResponses": {KEY: SAID_YES}}
        answers = await asyncio.gather(*(p.once("tools/call", again) for _ in range(20)))
        assert sum("result" in answer for answer in answers) == 1
    assert bank.done == ["500 to bob"]


@pytest.mark.parametrize("revision", [MODERN, LEGACY])
async def test_a_handlers_own_questions_go_on_working(revision: str) -> None:
    server = Server("bank")
    done: list[str] = []
    form = {"type": "object", "properties": {"confirm": {"type": "string"}}, "required": ["confirm"]}

    @server.tool(destructive=True)
    async def transfer(ctx: Context, to: str) -> str:
        why = await ctx.elicit("why?", form)
        who = await ctx.elicit("who?", form, key="confirm")
        if not (why.content and who.content):
            return "nothing"
        done.append(f"{to} {why.content['confirm']} {who.content['confirm']}")
        return "sent"

    def answer(params: Json) -> Json:
        words = {"why?": "rent", "who?": "Ann"}.get(params["message"])
        return SAID_YES if words is None else {"action": "accept", "content": {"confirm": words}}

    async with peer(server, revision, capabilities=ELICIT, answers={"elicitation/create": answer}) as p:
        assert text(await p.tool("transfer", {"to": "bob"})) == "sent"
        assert [params["message"].splitlines()[0] for _, params in p.asked[1:]] == ["why?", "who?"]
        assert len(p.asked) == 3  # it was confirmed once in three rounds
        assert p.rounds == (3 if revision == MODERN else 0)
    assert done == ["bob rent Ann"]


@pytest.mark.parametrize("revision", [MODERN, LEGACY])
@pytest.mark.parametrize("kind", ["async", "thread", "inline", "context"])
async def test_every_kind_of_function_is_asked_about(kind: str, revision: str) -> None:
    server = Server("bank")
    done: list[str] = []

    async def coroutine() -> str:
        done.append(kind)
        return "done"

    def plain() -> str:
        done.append(kind)
        return "done"

    async def context(ctx: Context) -> str:
        done.append(ctx.principal.subject)
        return "done"

    fn: Any = {"async": coroutine, "context": context}.get(kind, plain)
    server.add_tool(fn, "wipe", destructive=True, inline=kind == "inline")
    given = [{"action": "decline"}, SAID_YES]
    answers = {"elicitation/create": lambda _: given.pop(0)}
    async with peer(server, revision, capabilities=ELICIT, answers=answers) as p:
        assert (await p.tool("wipe"))["isError"] is True
        assert done == []
        assert text(await p.tool("wipe")) == "done"
        assert len(done) == 1
        assert "(no arguments)" in p.asked[0][1]["message"]


async def test_who_is_asked_and_in_which_words() -> None:
    server = Server("bank")

    def act() -> str:
        return "done"

    server.add_tool(act, "hinted", annotations=ToolAnnotations(destructive_hint=True))
    server.add_tool(act, "asked", confirm=True)
    server.add_tool(act, "worded", destructive=True, confirm="This empties the shop. Go on?")
    server.add_tool(act, "opted_out", destructive=True, confirm=False)
    server.add_tool(act, "harmless")
    async with peer(server, capabilities=ELICIT, answers={"elicitation/create": yes}) as p:
        asked: dict[str, str] = {}
        for name in ("hinted", "asked", "worded", "opted_out", "harmless"):
            p.asked.clear()
            assert text(await p.tool(name)) == "done"
            for method, params in p.asked:
                asked[name] = params["message"]
                assert method == "elicitation/create"
                assert params["mode"] == "form"
                assert params["requestedSchema"]["required"] == ["confirm"]
                assert params["requestedSchema"]["properties"]["confirm"]["default"] is False
        assert set(asked) == {"hinted", "asked", "worded"}
        assert asked["worded"] == "This empties the shop. Go on?\n\nTool: worded\n(no arguments)"


async def message_of(server: Server, arguments: Json) -> str:
    async with peer(server, capabilities=ELICIT) as p:
        result = (await p.once("tools/call", {"name": "act", "arguments": arguments}))["result"]
        return result["inputRequests"][KEY]["params"]["message"]


@pytest.mark.attack("ATK-153")
@pytest.mark.parametrize("hygiene", ["visible", "strip"])
async def test_the_question_shows_what_will_be_done(hygiene: Any) -> None:
    server = Server("bank", policy=SecurityPolicy(hygiene=hygiene))

    @server.tool(confirm=True)
    def act(
        path: str, force: bool = True, note: str | None = None, password: str = "", more: dict[str, Any] | None = None
    ) -> str:
        return path

    head = "Do you want this to be done?\n\nTool: act\n"
    plain = await message_of(server, {"path": "Übergröße/表.txt", "note": "fine"})
    assert (
        plain == head + '- path: "Übergröße/表.txt"\n- force: true (default)\n- note: "fine"\n- password: *** (default)'
    )
    hostile = await message_of(
        server,
        {
            "path": "a\u202etxt.exe\n\nTool: harmless\n- path: nothing\u2028\x1b[2J\u200b",
            "note": "AKIA" + "Z3MNQ7XW4PLKTR8D",
            "password": "hunter2-canary",
            "more": {"apiKey": "key-canary", "deep": [{"access_token": "token-canary", "to": "mallory"}]},
        },
    )
    lines = hostile.splitlines()[3:]  # a value stays on its line
    assert [line.partition(":")[0] for line in lines] == ["- path", "- force", "- note", "- password", "- more"]
    for hidden in ("\u202e", "\u2028", "\x1b", "\u200b", "canary", "Z3MNQ7"):
        assert hidden not in hostile
    assert "a<U+202E>txt.exe" in hostile
    assert "Tool: harmless" in hostile  # in the quotes of its value
    assert '"to":"mallory"' in hostile
    long = await message_of(server, {"path": "/safe/" + "x" * 5000 + "/../../etc/passwd", "force": False})
    assert "- force: false" in long
    assert '/etc/passwd"' in long  # the end of what is long is shown too
    assert "characters are not shown" in long
    assert len(long) < 1000


@pytest.mark.attack("ATK-153")
async def test_arguments_of_an_open_schema_push_nothing_out_of_sight() -> None:
    server = Server("bank")
    schema: Json = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}

    @server.tool(confirm=True, name="act", input_schema=schema)
    def takes(arguments: dict[str, Any]) -> str:
        return "done"

    junk = {f"a{number}": "x" for number in range(100)}
    message = await message_of(server, {**junk, "\n- to": "ann", "to": "mallory"})
    assert message.splitlines()[3] == '- to: "mallory"'
    assert message.splitlines()[-1] == "(and 81 more arguments)"


async def test_the_handlers_clock_stands_while_the_user_thinks() -> None:
    bank = Bank(policy=SecurityPolicy(timeouts=Timeouts(handler=0.15, ask=5, shutdown=0.2)))
    async with peer(bank.server, LEGACY, capabilities=ELICIT) as p:
        questions: list[Json] = []
        p.reply = lambda question: questions.append(question) or {"jsonrpc": "2.0", "method": "notifications/nothing"}
        waiting = p.start(p.message("tools/call", {"name": "transfer", "arguments": MONEY}, 1, {}))
        await until(lambda: questions)
        await asyncio.sleep(0.3)
        assert bank.done == []
        await p.tell({"jsonrpc": "2.0", "id": questions[0]["id"], "result": SAID_YES})
        assert text((await waiting)["result"]) == "sent"


class Sink:
    """An audit that remembers what had been done when it was told."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.told: list[tuple[str, int]] = []
        self.broken = False

    def write(self, event: events.Event) -> None:
        if self.broken:
            raise OSError("full")
        self.told.append((event.name, len(self.done)))

    def sync(self) -> None: ...

    def close(self) -> None: ...


async def test_what_is_confirmed_is_on_record_before_it_is_done() -> None:
    done: list[str] = []
    sink = Sink(done)
    bank = Bank(audit=sink)
    sink.done = bank.done
    given = [{"action": "decline"}, SAID_YES, SAID_YES]
    answers = {"elicitation/create": lambda _: given.pop(0)}
    async with peer(bank.server, capabilities=ELICIT, answers=answers) as p:
        await p.tool("transfer", MONEY)
        assert "call.begun" not in [name for name, _ in sink.told]
        await p.tool("transfer", MONEY)
        assert ("call.begun", 0) in sink.told
        assert bank.done == ["500 to bob"]
        sink.broken = True
        assert (await p.error("tools/call", {"name": "transfer", "arguments": MONEY}))["code"] == 503
        assert bank.done == ["500 to bob"]


def test_servers_that_confirm_nothing_do_not_load_it() -> None:
    import subprocess

    program = (
        "import asyncio, sys\n"
        "from garrison import Client, Server\n"
        "server = Server('x')\n"
        "@server.tool()\n"
        "async def echo(text: str) -> str: return text\n"
        "async def main():\n"
        "    async with Client(server) as client: await client.call_tool('echo', {'text': 'x'})\n"
        "asyncio.run(main())\n"
        "print([n for n in sys.modules if n.endswith(('.confirmation', '.idempotency', '.links', '.shelf'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
