"""Idempotency keys: what is sent again is answered again and not done again, over every transport and revision."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison import ConfigurationError, Context, RateLimited, SecurityPolicy, Server, Timeouts, ToolError, events
from garrison.policy.principal import Principal
from garrison.server.idempotency import MemoryOutcomes, Outcome
from garrison.server.memory import MemoryConnection
from tests.support.callers import Who, place
from tests.support.features import text
from tests.support.mcp import MODERN, REVISIONS, Json, modern, peer, until
from tests.support.protected import protection

pytestmark = pytest.mark.app

ELICIT: Json = {"elicitation": {}}
LEGACY = "2025-11-25"
SAID_YES: Json = {"action": "accept", "content": {"confirm": True}}
ALICE = Who("alice")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Till:
    """A server that is paid, and what it was paid."""

    def __init__(self, *, protected: bool = False, **options: Any) -> None:
        self.done: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        options.setdefault("policy", SecurityPolicy(timeouts=Timeouts(shutdown=0.2, handler=5, ask=5)))
        self.server = Server("till", auth=protection(tenant_claim="tenant") if protected else None, **options)
        rules: Any = {"public": True, "idempotent_by": "key"} if protected else {"idempotent_by": "key"}

        @self.server.tool(**rules)
        async def pay(to: str, key: str | None = None) -> dict[str, str]:
            self.done.append(to)
            number = len(self.done)
            await self.gate.wait()
            return {"receipt": f"{number} {to}"}

        @self.server.tool(**rules)
        async def refund(to: str, key: str) -> str:
            self.done.append(f"refund {to}")
            return "refunded"

        @self.server.tool(**rules)
        async def fail(how: str, key: str) -> str:
            self.done.append(how)
            if how == "told":
                raise ToolError("not enough money")
            if how == "slow":
                await asyncio.sleep(20)
            raise RuntimeError("canary")


def paid(to: str = "bob", key: Any = "k1", **more: Any) -> Json:
    return {"name": "pay", "arguments": {"to": to, "key": key, **more}}


def conflicts(response: Json) -> str:
    """What a conflict says."""
    assert response["error"]["code"] == 409, response
    return response["error"]["message"]


@pytest.fixture
def refused() -> Iterator[list[events.Event]]:
    """The security events of refusals."""
    found: list[events.Event] = []
    stop = events.listen(lambda event: found.append(event) if event.decision == "refused" else None)
    yield found
    stop()


@asynccontextmanager
async def at_place(transport: str, server: Server) -> AsyncIterator[Any]:
    """What connects to a running server: in-process kinds, listeners, and pipes, which have one caller."""
    if transport != "stdio":
        async with place(transport, server) as at:
            yield at
        return

    class Pipes:
        def caller(self, _: Who, revision: str = MODERN, **options: Any) -> Any:
            return peer(server, revision, "stdio", **options)

    yield Pipes()


@pytest.mark.attack("ATK-154", transports=["memory", "stdio", "unix", "http", "websocket"])
@pytest.mark.parametrize("revision", [MODERN, LEGACY])
@pytest.mark.parametrize("transport", ["memory", "stdio", "unix", "http", "websocket"])
async def test_a_deed_is_done_once(transport: str, revision: str, refused: list[events.Event]) -> None:
    till = Till(protected=transport != "stdio")
    async with at_place(transport, till.server) as at:
        async with at.caller(ALICE, revision) as p:
            first = await p.result("tools/call", paid())
            assert text(first) == '{"receipt":"1 bob"}'
            for _ in range(2):
                assert await p.result("tools/call", paid()) == first
            assert till.done == ["bob"]
            told = conflicts(await p.once("tools/call", paid("mallory")))
            assert "other arguments" in told
            assert "mallory" not in told
            assert till.done == ["bob"]
            assert [(event.name, event.target) for event in refused] == [("call.conflict", "pay")]
            assert "idempotent_by" in refused[0].setting
        async with at.caller(ALICE, revision) as p:  # on another connection
            assert await p.result("tools/call", paid()) == first
            assert text(await p.result("tools/call", paid("mallory", "k2"))) == '{"receipt":"2 mallory"}'
            assert till.done == ["bob", "mallory"]


async def test_http_says_conflict_too() -> None:
    till = Till(protected=True)
    async with place("http", till.server) as at, at.caller(ALICE) as p:
        assert (await p.response("tools/call", paid())).status == 200
        assert (await p.response("tools/call", paid("mallory"))).status == 409
        till.gate.clear()
        waiting = asyncio.create_task(p.response("tools/call", paid(key="k2")))
        await until(lambda: len(till.done) == 2)
        busy = await p.response("tools/call", paid(key="k2"))
        assert (busy.status, busy.get("retry-after")) == (409, "1")
        till.gate.set()
        assert (await waiting).status == 200
        assert (await p.response("tools/call", paid(key="k2"))).status == 200
    assert len(till.done) == 2


async def test_a_repeat_gets_the_shape_of_its_own_revision() -> None:
    for first in (MODERN, "2024-11-05"):
        till = Till()
        async with peer(till.server, first) as p:
            await p.result("tools/call", paid())
        for revision in REVISIONS:
            async with peer(till.server, revision) as p:
                repeated = await p.result("tools/call", paid())
                fresh = await p.result("tools/call", paid(key=None))
            assert repeated.keys() == fresh.keys()
            assert text(repeated) == '{"receipt":"1 bob"}'
            assert ("structuredContent" in repeated) == (revision >= "2025-06-18")
            assert ("resultType" in repeated) == (revision == MODERN)
        assert len(till.done) == 1 + len(REVISIONS)


@pytest.mark.attack("ATK-154")
async def test_a_key_is_one_accounts_and_one_tools() -> None:
    till = Till(protected=True)
    async with place("http", till.server) as at:
        for who in (ALICE, Who("bob"), Who("alice", tenant="elsewhere")):
            async with at.caller(who) as p:
                receipt = text(await p.result("tools/call", paid(who.subject)))
                assert receipt == f'{{"receipt":"{len(till.done)} {who.subject}"}}'
        assert len(till.done) == 3
        async with at.caller(ALICE) as p:
            assert text(await p.tool("refund", {"to": "alice", "key": "k1"})) == "refunded"
            assert text(await p.result("tools/call", paid("alice"))) == '{"receipt":"1 alice"}'
        assert len(till.done) == 4


@pytest.mark.attack("ATK-154")
async def test_another_program_of_the_same_account_does_not_do_it_again() -> None:
    till = Till(protected=True)
    for program in ("app", "other app"):
        principal = Principal("alice", issuer="https://issuer.example", client_id=program)
        connection = await MemoryConnection.open(till.server, principal)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.on_message = lambda data, answer=answer: answer.set_result(json.loads(data))
        connection.send(json.dumps(modern("tools/call", paid())).encode())
        assert text((await answer)["result"]) == '{"receipt":"1 bob"}'
        await connection.close()
    assert till.done == ["bob"]


@pytest.mark.attack("ATK-154")
@pytest.mark.parametrize("transport", ["memory", "http", "websocket"])
async def test_of_twenty_at_once_one_is_done(transport: str) -> None:
    till = Till(protected=True)
    till.gate.clear()
    async with place(transport, till.server) as at, at.caller(ALICE) as one, at.caller(ALICE) as other:
        asking = [asyncio.create_task(p.once("tools/call", paid())) for p in (one, other) for _ in range(10)]
        done, waiting = set[Any](), set(asking)
        async with asyncio.timeout(10):
            while len(waiting) > 1:
                done, waiting = await asyncio.wait(asking, timeout=0.05)
        assert len(done) == 19
        assert {conflicts(task.result()) for task in done} == {"The call of this key is under way, or was cut off"}
        till.gate.set()
        assert text((await next(iter(waiting)))["result"]) == '{"receipt":"1 bob"}'
        again = await asyncio.gather(*(p.result("tools/call", paid()) for p in (one, other) for _ in range(10)))
        assert {text(result) for result in again} == {'{"receipt":"1 bob"}'}
    assert till.done == ["bob"]


@pytest.mark.attack("ATK-154")
@pytest.mark.parametrize("revision", [MODERN, LEGACY])
async def test_a_repeat_is_not_confirmed_again_and_what_was_not_confirmed_is_free(revision: str) -> None:
    server = Server("till")
    done: list[str] = []

    @server.tool(destructive=True, idempotent_by="key")
    async def pay(to: str, key: str) -> str:
        done.append(to)
        return f"paid {to}"

    given = [{"action": "decline"}, SAID_YES]
    answers = {"elicitation/create": lambda _: given.pop(0)}
    async with peer(server, revision, capabilities=ELICIT, answers=answers) as p:
        assert (await p.result("tools/call", paid()))["isError"] is True
        assert done == []
        for _ in range(3):
            assert text(await p.result("tools/call", paid())) == "paid bob"
        assert len(p.asked) == 2
        conflicts(await p.request("tools/call", paid("mallory")))  # nobody is asked about it
        assert len(p.asked) == 2
    async with peer(server, revision) as p:  # who can ask nobody gets what was done, too
        assert text(await p.result("tools/call", paid())) == "paid bob"
        assert (await p.request("tools/call", paid(key="k2")))["error"]["code"] in (-32021, -32602)
    async with peer(server, revision, capabilities=ELICIT, answers={"elicitation/create": lambda _: SAID_YES}) as p:
        assert text(await p.result("tools/call", paid(key="k2"))) == "paid bob"
    assert done == ["bob", "bob"]


async def test_what_is_cancelled_while_the_user_thinks_is_free() -> None:
    server = Server("till", policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2)))
    done: list[str] = []

    @server.tool(destructive=True, idempotent_by="key")
    async def pay(to: str, key: str) -> str:
        done.append(to)
        return f"paid {to}"

    async with peer(server, LEGACY, capabilities=ELICIT) as p:
        questions: list[Json] = []
        answering = p.reply
        p.reply = lambda question: questions.append(question) or {"jsonrpc": "2.0", "method": "notifications/nothing"}
        p.start(p.message("tools/call", paid(), 44, {}))
        await until(lambda: questions)
        assert "under way" in conflicts(await p.once("tools/call", paid()))
        await p.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 44}})
        await asyncio.sleep(0.05)
        p.reply, p.answers = answering, {"elicitation/create": lambda _: SAID_YES}
        assert text(await p.result("tools/call", paid())) == "paid bob"
    assert done == ["bob"]


@pytest.mark.attack("ATK-154")
async def test_two_confirmed_chains_of_one_key_do_one_deed() -> None:
    server = Server("till")
    done: list[str] = []

    @server.tool(destructive=True, idempotent_by="key")
    async def pay(to: str, key: str) -> str:
        done.append(to)
        return f"paid {to}"

    async with peer(server, capabilities=ELICIT) as p:
        chains = [(await p.once("tools/call", paid()))["result"] for _ in range(2)]
        for chain in chains:
            again = {"requestState": chain["requestState"], "inputResponses": {"garrison.confirm": SAID_YES}}
            assert text((await p.once("tools/call", {**paid(), **again}))["result"]) == "paid bob"
    assert done == ["bob"]


@pytest.mark.parametrize("revision", [MODERN, LEGACY])
async def test_a_handler_that_asks_is_done_when_it_has_answered(revision: str) -> None:
    server = Server("till")
    done: list[str] = []

    @server.tool(idempotent_by="key")
    async def pay(ctx: Context, to: str, key: str) -> str:
        answer = await ctx.elicit("sure?", {"type": "object", "properties": {"confirm": {"type": "boolean"}}})
        done.append(f"{to} {answer.action}")
        return done[-1]

    given = [SAID_YES, {"action": "decline"}]
    answers = {"elicitation/create": lambda _: given.pop(0)}
    async with peer(server, revision, capabilities=ELICIT, answers=answers) as p:
        for _ in range(2):
            assert text(await p.result("tools/call", paid())) == "bob accept"
        assert text(await p.result("tools/call", paid(key="k2"))) == "bob decline"
        if revision == MODERN:  # a state that does not open has done nothing, and its key is free
            bad = {**paid(key="k3"), "requestState": "x", "inputResponses": {}}
            assert (await p.once("tools/call", bad))["error"]["code"] == -32602
        given.append(SAID_YES)
        assert text(await p.result("tools/call", paid(key="k3"))) == "bob accept"
    assert done == ["bob accept", "bob decline", "bob accept"]


@pytest.mark.parametrize("revision", [MODERN, LEGACY])
async def test_what_became_of_a_failure(revision: str) -> None:
    till = Till(policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2, handler=0.2)))

    def failing(how: str, key: str) -> Json:
        return {"name": "fail", "arguments": {"how": how, "key": key}}

    async with peer(till.server, revision) as p:
        first = await p.result("tools/call", failing("told", "k1"))
        assert first["isError"] is True
        assert await p.result("tools/call", failing("told", "k1")) == first  # what the tool says is its result
        unexpected = await p.result("tools/call", failing("unexpected", "k2"))
        assert unexpected["isError"] is True
        assert "canary" not in text(unexpected)
        assert (await p.error("tools/call", failing("slow", "k3")))["code"] == -32603  # out of time
        for how, key in (("unexpected", "k2"), ("slow", "k3")):
            assert "not known" in conflicts(await p.once("tools/call", failing(how, key)))
        cancelled = p.start(p.message("tools/call", failing("slow", "k4"), 44, {}))
        await until(lambda: till.done.count("slow") == 2)
        await p.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 44}})
        await asyncio.sleep(0.05)
        assert not cancelled.done()
        assert "not known" in conflicts(await p.once("tools/call", failing("slow", "k4")))
        assert till.done == ["told", "unexpected", "slow", "slow"]


async def test_without_a_key_every_call_is_a_deed() -> None:
    till = Till()
    async with peer(till.server) as p:
        for arguments in ({"to": "bob"}, {"to": "bob"}, {"to": "bob", "key": None}):
            await p.result("tools/call", {"name": "pay", "arguments": arguments})
        assert len(till.done) == 3
        assert "key" in (await p.error("tools/call", paid(key="")))["message"]  # two deeds would be one
        assert len(till.done) == 3
        wrong = await p.result("tools/call", paid(key=5))
        assert wrong["isError"] is True
        assert len(till.done) == 3


async def test_what_is_kept_does_not_tell_keys_or_arguments() -> None:
    seen: list[object] = []

    class Watched(MemoryOutcomes):
        async def begin(self, deed: str, account: str, digest: str) -> Outcome | None:
            seen.extend((deed, account, digest))
            return await super().begin(deed, account, digest)

    till = Till(outcomes=Watched())
    async with peer(till.server) as p:
        await p.result("tools/call", paid("bob-canary", "key-canary"))
        await p.result("tools/call", paid("bob-canary", "another"))
        await p.tool("refund", {"to": "bob-canary", "key": "key-canary"})
    assert "canary" not in repr(seen)
    assert seen[1] == "local"
    assert len({seen[0], seen[3], seen[6]}) == 3
    assert len({seen[2], seen[5], seen[8]}) == 3  # the same arguments of another deed do not look the same


class Shared:
    """A store that two servers share, as a database would be."""

    def __init__(self) -> None:
        self.known: dict[str, Outcome] = {}
        self.broken = ""

    def _work(self, what: str) -> None:
        if self.broken == what:
            raise ConnectionError("canary")

    async def begin(self, deed: str, account: str, digest: str) -> Outcome | None:
        self._work("begin")
        known = self.known.get(deed)
        if known is None:
            self.known[deed] = Outcome(digest, "begun")
        return known

    async def finish(self, deed: str, outcome: Outcome) -> None:
        await asyncio.sleep(0)
        self._work("finish")
        self.known[deed] = outcome

    async def forget(self, deed: str) -> None:
        await asyncio.sleep(0)
        self.known.pop(deed, None)


@pytest.mark.attack("ATK-154")
async def test_a_store_of_ones_own_is_shared_and_its_failures_do_nothing_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = Shared()
    one, two = Till(outcomes=shared), Till(outcomes=shared)
    async with peer(one.server) as p, peer(two.server) as q:
        first = await p.result("tools/call", paid())
        assert await q.result("tools/call", paid()) == first
        conflicts(await q.once("tools/call", paid("mallory")))
        assert two.done == []
        shared.broken = "begin"
        down = await q.result("tools/call", paid(key="k2"))
        assert down["isError"] is True
        assert "canary" not in text(down)
        assert two.done == []
        shared.broken = "finish"
        assert text(await q.result("tools/call", paid(key="k3"))) == '{"receipt":"1 bob"}'
        assert "could not be kept" in caplog.text
        shared.broken = ""
        assert "under way, or was cut off" in conflicts(await p.once("tools/call", paid(key="k3")))
        assert (one.done, two.done) == (["bob"], ["bob"])
        assert text(await p.result("tools/call", paid(key="k2"))) == '{"receipt":"2 bob"}'


async def begin(outcomes: MemoryOutcomes, number: int, account: str = "alice") -> Outcome | None:
    return await outcomes.begin(f"{account} {number}", account, f"digest {number}")


async def test_a_memory_is_bounded_and_forgets_nothing_to_make_room() -> None:
    clock = Clock()
    outcomes = MemoryOutcomes(ttl=100, most=6, most_each=4, clock=clock)
    for number in range(4):
        assert await begin(outcomes, number) is None
        clock.now += 10
    with pytest.raises(RateLimited) as full:
        await begin(outcomes, 9)
    assert full.value.hint == "MemoryOutcomes.most_each"
    assert full.value.data == {"retryAfter": 60}
    for number in range(2):  # she cannot fill it for others
        assert await begin(outcomes, number, "bob") is None
    with pytest.raises(RateLimited) as full:
        await begin(outcomes, 1, "carol")
    assert full.value.hint == "MemoryOutcomes.most"
    assert [await begin(outcomes, number) for number in range(4)] == [Outcome(f"digest {n}", "begun") for n in range(4)]
    await outcomes.forget("alice 1")
    assert await begin(outcomes, 9) is None
    clock.now += 60
    assert await begin(outcomes, 0) is None  # its time was over
    assert len(outcomes) == 6
    clock.now += 100
    assert len(outcomes) == 0
    assert outcomes._shelf._shares == {}


async def test_results_that_do_not_fit_are_done_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = MemoryOutcomes(most_bytes=100, most_bytes_each=60)

    async def done(number: int, size: int, account: str = "alice") -> Outcome | None:
        assert await begin(outcomes, number, account) is None
        await outcomes.finish(f"{account} {number}", Outcome("d", "done", b"x" * size))
        return await begin(outcomes, number, account)

    kept, left = Outcome("d", "done", b"x" * 50), Outcome("d", "done")
    assert await done(1, 50) == kept
    assert await done(2, 11) == left
    assert "MemoryOutcomes.most_bytes_each" in caplog.text
    assert await done(3, 50, "bob") == kept
    assert await done(4, 1, "carol") == left
    await outcomes.forget("bob 3")
    assert await done(5, 50, "dave") == kept
    await outcomes.finish("nobody's", Outcome("d", "done", b"x"))  # its time was over
    assert await begin(outcomes, 1) == kept


async def test_a_repeat_of_what_was_not_kept_is_told_so() -> None:
    till = Till(outcomes=MemoryOutcomes(most_bytes=10))
    async with peer(till.server) as p:
        assert text(await p.result("tools/call", paid())) == '{"receipt":"1 bob"}'
        assert "was done" in conflicts(await p.once("tools/call", paid()))
    assert till.done == ["bob"]


@pytest.mark.attack("ATK-154")
async def test_when_there_is_no_room_nothing_is_done() -> None:
    till = Till(outcomes=MemoryOutcomes(most_each=2))
    async with peer(till.server) as p:
        for key in ("k1", "k2"):
            await p.result("tools/call", paid(key=key))
        assert (await p.error("tools/call", paid(key="k3")))["code"] == 429
        assert text(await p.result("tools/call", paid(key="k1"))) == '{"receipt":"1 bob"}'
    assert len(till.done) == 2


@pytest.mark.parametrize(
    "options", [{"ttl": 0}, {"ttl": float("inf")}, {"most": 0}, {"most_each": 0}, {"most_bytes": 0}]
)
def test_settings_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"MemoryOutcomes\."):
        MemoryOutcomes(**options)
