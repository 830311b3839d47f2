"""States of requests: for one server, one caller, one request, one round; and of what destroys, once."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from garrison import ConfigurationError, Context, Principal, SecurityPolicy, Server, Timeouts
from garrison.protocol.types import ToolAnnotations
from garrison.server import states
from garrison.server.states import UsedStates
from tests.support.mcp import modern
from tests.support.protected import ALICE, BOB, Response, exchange, message, protection

KEY = "cd" * 32
YES = {"action": "accept", "content": {"yes": True}}
FORM = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
ELICIT: dict[str, Any] = {"capabilities": {"elicitation": {}}}


def transfers(ran: list[str], name: str = "bank", **options: Any) -> Server:
    """A server whose `transfer` asks before it acts, and whose `note` asks too and destroys nothing."""
    server = Server(name, **{"auth": protection(), "state_key": KEY, **options})

    async def asked(ctx: Context, to: str) -> str:
        answer = await ctx.elicit(f"CANARY send to {to}?", FORM)
        if not answer.accepted:
            return "nothing"
        ran.append(to)
        return "sent"

    rules: Any = {"public": True} if server.auth is not None else {}
    server.add_tool(asked, "transfer", annotations=ToolAnnotations(destructive_hint=True), confirm=False, **rules)
    server.add_tool(asked, "note", **rules)
    return server


async def ask(port: int, tool: str, to: str = "x", as_: str = ALICE, **params: Any) -> Response:
    body = modern("tools/call", {"name": tool, "arguments": {"to": to}, **params}, **ELICIT)
    return await exchange(port, message(port, body, as_))


async def state_of(port: int, tool: str = "transfer", as_: str = ALICE) -> dict[str, Any]:
    """What the client is to bring back, with a yes."""
    result = (await ask(port, tool, as_=as_)).json["result"]
    assert result["resultType"] == "input_required"
    return {"requestState": result["requestState"], "inputResponses": {"elicit_1": YES}}


def refused(response: Response) -> bool:
    return response.json.get("error") == {"code": -32602, "message": "Invalid requestState"}


@pytest.mark.attack("ATK-252")
async def test_an_answer_to_what_destroys_counts_once() -> None:
    ran: list[str] = []
    async with transfers(ran).http(port=0) as running:
        again = await state_of(running.port)
        assert "sent" in (await ask(running.port, "transfer", **again)).body.decode()
        for _ in range(3):
            assert refused(await ask(running.port, "transfer", **again))
        assert ran == ["x"]
        again = await state_of(running.port, "note")  # what destroys nothing may be asked again
        for _ in range(2):
            assert "sent" in (await ask(running.port, "note", **again)).body.decode()
        assert ran == ["x"] * 3


@pytest.mark.attack("ATK-249")
@pytest.mark.attack("ATK-250")
@pytest.mark.attack("ATK-253")
async def test_a_state_is_for_one_caller_and_one_request() -> None:
    ran: list[str] = []
    server = transfers(ran, page_size=1)
    async with server.http(port=0) as running:
        port = running.port
        again = await state_of(port)
        assert refused(await ask(port, "transfer", as_=BOB, **again))
        assert refused(await ask(port, "transfer", to="y", **again))
        assert refused(await ask(port, "note", **again))
        listing = await exchange(port, message(port, modern("tools/list"), ALICE))
        cursor = listing.json["result"]["nextCursor"]
        assert refused(await ask(port, "transfer", **{**again, "requestState": cursor}))
        body = modern("tools/list", {"cursor": again["requestState"]})
        assert (await exchange(port, message(port, body, ALICE))).json["error"]["message"] == "Invalid cursor"
        assert ran == []
        assert "sent" in (await ask(port, "transfer", **again)).body.decode()


@pytest.mark.attack("ATK-254")
async def test_a_state_is_for_the_server_that_made_it() -> None:
    ran: list[str] = []
    async with transfers(ran, "one", auth=None).http(port=0, token="t" * 32) as one:
        made = await state_of(one.port, as_="Bearer " + "t" * 32)
    for name, taken in (("two", False), ("one", True)):  # the same key, the same token
        async with transfers(ran, name, auth=None).http(port=0, token="t" * 32) as other:
            response = await ask(other.port, "transfer", as_="Bearer " + "t" * 32, **made)
            assert refused(response) is not taken
    assert ran == ["x"]


@pytest.mark.attack("ATK-255")
async def test_answers_count_only_where_a_question_was_open() -> None:
    ran: list[str] = []
    async with transfers(ran).http(port=0) as running:
        port = running.port
        early = await ask(port, "transfer", inputResponses={"elicit_1": YES})
        assert early.json["result"]["resultType"] == "input_required"
        assert ran == []
        # What destroys nothing may be told the answer before it asks, as the protocol lets clients do.
        assert "sent" in (await ask(port, "note", inputResponses={"elicit_1": YES, "more": YES})).body.decode()
        ran.clear()
        again = await state_of(port)
        for given in ({"elicit_2": YES}, {}, {"elicit_1": {"action": "accept"}}, {"elicit_1": 5}, [], None):
            response = await ask(port, "note", **{**(await state_of(port, "note")), "inputResponses": given})
            assert response.json["result"]["resultType"] == "input_required", given
        for action in ("decline", "cancel"):
            given = {"elicit_1": {"action": action}}
            response = await ask(port, "transfer", **{**(await state_of(port)), "inputResponses": given})
            assert "nothing" in response.body.decode()
        assert ran == []
        given = {**again["inputResponses"], "more": YES}
        assert "sent" in (await ask(port, "transfer", **{**again, "inputResponses": given})).body.decode()


@pytest.mark.attack("ATK-248")
@pytest.mark.attack("ATK-257")
async def test_a_state_is_opaque_and_every_change_is_refused_alike() -> None:
    ran: list[str] = []
    async with transfers(ran).http(port=0) as running:
        port = running.port
        again = await state_of(port)
        token = again["requestState"]
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        assert b"CANARY" not in raw
        assert b"elicit" not in raw
        changed = {token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(0, len(token), 7)}
        changed |= {"", token[:-1], token + "A", token + "==", base64.b64encode(raw).decode() + "=", "\x00"}
        bodies = {(await ask(port, "transfer", **{**again, "requestState": each})).body for each in changed}
        assert len(bodies) == 1
        assert ran == []
        assert "sent" in (await ask(port, "transfer", **again)).body.decode()


@pytest.mark.attack("ATK-251")
async def test_a_state_ends() -> None:
    ran: list[str] = []
    policy = SecurityPolicy(timeouts=Timeouts(state=0.3, shutdown=0.2))
    async with transfers(ran, policy=policy).http(port=0) as running:
        again = await state_of(running.port)
        await asyncio.sleep(0.35)
        assert refused(await ask(running.port, "transfer", **again))
        assert ran == []
        again = await state_of(running.port)
        assert "sent" in (await ask(running.port, "transfer", **again)).body.decode()


@pytest.mark.attack("ATK-263")
async def test_a_state_of_a_pipe_is_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    class Line:
        """A client in memory, on whose behalf nobody showed anything."""

        def __init__(self, principal: Principal | None = None) -> None:
            self.principal = principal

        async def ask(self, **params: Any) -> Any:
            connection = await transfers(ran, auth=None).connect_memory(self.principal)
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            connection.on_message = lambda data: answer.set_result(json.loads(data))
            body = modern("tools/call", {"name": "transfer", "arguments": {"to": "x"}, **params}, **ELICIT)
            connection.send(json.dumps(body).encode())
            try:
                return await answer
            finally:
                await connection.close()

    for line, other in ((Line(), True), (Line(Principal("alice", issuer="https://issuer.example")), False)):
        token = (await line.ask())["result"]["requestState"]
        again = {"requestState": token, "inputResponses": {"elicit_1": YES}}
        assert ("error" in await line.ask(**again)) is False
        with monkeypatch.context() as patch:
            patch.setattr(states, "_PROCESS", "another")
            assert ("error" in await line.ask(**again)) is other


def test_the_memory_of_what_was_used_is_bounded_and_refuses_when_full() -> None:
    used = UsedStates(2)
    later = time.time() + 60
    assert [used.take("a", later), used.take("a", later), used.take("b", later), used.take("c", later)] == [
        *(True, False),
        *(True, False),
    ]
    used = UsedStates(2)
    assert used.take("a", time.time() - 1)
    assert used.take("b", later)
    assert used.take("c", later)  # the first has ended


async def test_keys_are_changed_without_refusing_anyone() -> None:
    ran: list[str] = []
    new = "ef" * 32
    async with transfers(ran).http(port=0) as running:
        made = await state_of(running.port, "note")
    for keys, opens in (([new, KEY], True), ([bytes.fromhex(new), KEY], True), ([new], False), (new, False)):
        async with transfers(ran, state_key=keys).http(port=0) as running:
            assert refused(await ask(running.port, "note", **made)) is not opens
            sealed = await state_of(running.port, "note")
        async with transfers(ran, state_key=new).http(port=0) as running:  # what is sealed is sealed with the new one
            assert not refused(await ask(running.port, "note", **sealed))
    for keys in ([], [new, KEY, "ab" * 32], [new, "short"], [new, b"short"]):
        with pytest.raises(ConfigurationError):
            transfers(ran, state_key=keys)


async def test_a_cursor_is_for_the_server_that_made_it() -> None:
    sent = "Bearer " + "t" * 32

    async def page(port: int, params: dict[str, Any]) -> Any:
        return (await exchange(port, message(port, modern("tools/list", params), sent))).json

    options: dict[str, Any] = {"auth": None, "page_size": 1}
    async with transfers([], "one", **options).http(port=0, token="t" * 32) as one:
        cursor = (await page(one.port, {}))["result"]["nextCursor"]
    for name, opens in (("one", True), ("two", False)):
        async with transfers([], name, **options).http(port=0, token="t" * 32) as other:
            assert ("result" in await page(other.port, {"cursor": cursor})) is opens


class Shared:
    """A memory that several processes would share."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def take(self, key: str, until: float) -> bool:
        assert until > time.time()
        return key not in self.keys and not self.keys.add(key)


async def test_a_memory_of_ones_own_is_asked() -> None:
    ran: list[str] = []
    shared = Shared()
    made: dict[str, Any] = {}
    for number in range(2):  # two replicas
        async with transfers(ran, replays=shared).http(port=0) as running:
            made = made or await state_of(running.port)
            assert refused(await ask(running.port, "transfer", **made)) is bool(number)
    assert len(shared.keys) == 1
    assert ran == ["x"]


def test_workers_need_a_memory_that_they_share(free_port: int) -> None:
    options: dict[str, Any] = {"auth": None, "legacy": "off"}
    with pytest.raises(ConfigurationError, match="replays="):
        transfers([], **options).run_http(port=free_port, token="t" * 32, workers=2)
    server = transfers([], replays=Shared(), **options)
    with pytest.raises(ConfigurationError, match="path="):  # what comes after it
        server.run_http(port=free_port, token="t" * 32, workers=2, path="no slash")
