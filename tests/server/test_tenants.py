"""Two tenants on one server: whatever names something of the one is unknown to the other, byte for byte.

Alice of one tenant and Alice of the other have the same issuer, subject and program; only the tenant claim differs.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from garrison import Context, Limits, ResourceAccessDenied, SecurityPolicy, Server, Timeouts
from garrison.server.access import Access
from tests.support.callers import ERAS, KINDS, Who, outcome, place
from tests.support.mcp import until
from tests.support.protected import protection
from tests.support.raw_http import changed, connected, exchange, request, standard

RED, BLUE = Who("alice", "notes:read", "red"), Who("alice", "notes:read", "blue")
BOB = Who("bob", "notes:read", "red")
LEGACY = "2025-11-25"
NAMES = {"red": ["red plans"], "blue": ["blue plans"]}


def mine(access: Access) -> bool:
    return access.arguments is None or access.arguments.get("tenant") == access.principal.tenant


class House:
    """A server of two tenants, and what its handlers wait for."""

    def __init__(self, limits: Limits | None = None) -> None:
        policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(shutdown=0.2))
        self.server = server = Server("house", auth=protection(tenant_claim="tenant"), policy=policy, page_size=1)
        self.let_go = asyncio.Event()
        self.began: list[str | None] = []
        self.cancelled: list[str | None] = []

        @server.tool(public=True)
        async def hold(ctx: Context) -> str | None:
            self.began.append(ctx.principal.tenant)
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(ctx.principal.tenant)
                raise
            return ctx.principal.tenant

        @server.tool(public=True)
        async def steps(ctx: Context) -> str:
            for number in range(3):
                await ctx.progress(number + 1, message=ctx.principal.tenant)
                await asyncio.sleep(0.005)
            return "done"

        @server.tool(public=True)
        async def confirm(ctx: Context) -> str:
            answer = await ctx.elicit("sure?", {"type": "object", "properties": {}})
            return f"{ctx.principal.tenant} {answer.action}"

        @server.resource("names://all", public=True)
        def names(ctx: Context) -> str:
            return NAMES[ctx.principal.tenant or ""][0]

        @server.resource("plans://{tenant}/{number}", authorize=mine)
        def plans(tenant: str, number: str) -> str:
            return f"{tenant} {number}"

        @server.resource("deeds://{tenant}/{number}", public=True)
        def deeds(ctx: Context, tenant: str, number: str) -> str:
            if tenant != ctx.principal.tenant:
                raise ResourceAccessDenied(f"deeds://{tenant}/{number}", "another tenant's")
            return f"{tenant} {number}"


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "arguments": {}}


@pytest.mark.attack("ATK-175")
@pytest.mark.parametrize("revision", ERAS)
@pytest.mark.parametrize("transport", KINDS)
async def test_what_belongs_to_another_tenant_is_not_there(transport: str, revision: str) -> None:
    house = House()
    async with place(transport, house.server) as at:
        for who, other in ((RED, BLUE), (BLUE, RED)):
            async with at.caller(who, revision) as p:
                shared = await p.result("resources/read", {"uri": "names://all"})
                assert shared["contents"][0]["text"] == f"{who.tenant} plans"
                for kind in ("plans", "deeds"):
                    own = await p.result("resources/read", {"uri": f"{kind}://{who.tenant}/1"})
                    assert own["contents"][0]["text"] == f"{who.tenant} 1"
                    # The two names have one length, and what is told of them differs in the name alone.
                    theirs = await p.bytes("resources/read", {"uri": f"{kind}://{other.tenant}/1"})
                    nobody = await p.bytes("resources/read", {"uri": f"{kind}://{'x' * len(other.tenant)}/1"})
                    assert theirs.replace(other.tenant.encode(), b"x" * len(other.tenant)) == nobody
                    absent = await p.bytes("resources/read", {"uri": f"blank://{other.tenant}/1"})
                    assert theirs.replace(kind.encode(), b"blank") == absent
                    assert b"not found" in theirs


@pytest.mark.attack("ATK-175")
@pytest.mark.parametrize("revision", ERAS)
@pytest.mark.parametrize("transport", KINDS)
async def test_a_cursor_is_good_for_whom_it_was_given_to(transport: str, revision: str) -> None:
    async with place(transport, House().server) as at:
        async with at.caller(RED, revision) as p:
            cursor = (await p.result("tools/list"))["nextCursor"]
            again = await p.result("tools/list", {"cursor": cursor})
            assert again["tools"][0]["name"] == "steps"
        invented = cursor[:20] + ("A" if cursor[20] != "A" else "B") + cursor[21:]
        for other in (BLUE, BOB):
            async with at.caller(other, revision) as p:
                stolen = await p.bytes("tools/list", {"cursor": cursor})
                assert stolen == await p.bytes("tools/list", {"cursor": invented})
                assert b"Invalid cursor" in stolen
                assert stolen == await p.bytes("tools/list", {"cursor": ""})
        async with at.caller(RED, revision) as p:  # and on another connection of the same caller
            assert "tools" in await p.result("tools/list", {"cursor": cursor})
            assert (await p.error("prompts/list", {"cursor": cursor}))["code"] in (-32601, -32602)
            assert (await p.error("resources/list", {"cursor": cursor}))["code"] == -32602


@pytest.mark.attack("ATK-175", "ATK-249")
@pytest.mark.parametrize("transport", KINDS)
async def test_a_request_state_is_good_for_whom_it_was_given_to(transport: str) -> None:
    elicitation = {"elicitation": {}}
    async with place(transport, House().server) as at:
        async with at.caller(RED, capabilities=elicitation) as p:
            state = (await p.once("tools/call", tool("confirm")))["result"]["requestState"]
        given = {"elicit_1": {"action": "accept", "content": {}}}
        invented = state[:20] + ("A" if state[20] != "A" else "B") + state[21:]
        params = {**tool("confirm"), "inputResponses": given}
        for other in (BLUE, BOB):
            async with at.caller(other, capabilities=elicitation) as p:
                stolen = await p.bytes("tools/call", {**params, "requestState": state})
                assert stolen == await p.bytes("tools/call", {**params, "requestState": invented})
                assert b"Invalid requestState" in stolen
        async with at.caller(RED, capabilities=elicitation) as p:
            done = await p.result("tools/call", {**params, "requestState": state})
            assert done["content"][0]["text"] == "red accept"


async def whole(port: int, who: Who, session: str, method: str = "POST", body: Any = None, **more: str) -> bytes:
    """A whole response to a request within a session: status, header fields and body."""
    fields = [*standard(port, who.token), ("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY)]
    data = b"" if body is None else json.dumps(body).encode()
    response = await exchange(port, request(data, changed(fields, **more), method=method))
    return repr((response.status, response.fields, response.body)).encode()


@pytest.mark.attack("ATK-175", "ATK-258")
@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_a_session_is_found_by_its_tenant_only(transport: str) -> None:
    house = House()
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": tool("steps")}
    told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    events = {"accept": "text/event-stream"}
    async with place(transport, house.server) as at, at.caller(RED, LEGACY) as red:
        invented = "f" * len(red.session)
        for other in (BLUE, BOB):
            for method, body, more in (
                ("POST", call, {}),
                ("POST", told, {}),
                ("POST", {**call, "method": "initialize"}, {}),
                ("GET", None, events),
                ("GET", None, {**events, "last_event_id": "0-0"}),
                ("DELETE", None, {}),
            ):
                stolen = await whole(at.port, other, red.session, method, body, **more)
                assert stolen == await whole(at.port, other, invented, method, body, **more), (method, body)
                assert stolen.startswith(b"(404")
        # In the URL it says nothing at all.
        fields = [*standard(at.port, BLUE.token), ("MCP-Protocol-Version", LEGACY)]
        data = json.dumps(call).encode()
        for query in (f"/mcp?sessionId={red.session}", f"/mcp?mcp-session-id={red.session}"):
            assert (await exchange(at.port, request(data, fields, target=query))).status == 400
        assert outcome(await red.request("tools/call", tool("steps"))) == "ok"  # it has not ended
        own = await whole(at.port, RED, red.session, "DELETE")
        assert own.startswith(b"(200")
        assert (await whole(at.port, RED, red.session, "POST", call)).startswith(b"(404")


@pytest.mark.attack("ATK-175", "ATK-262")
@pytest.mark.parametrize("transport", ["http", "asgi"])
async def test_the_events_of_a_session_are_replayed_to_nobody_else(transport: str) -> None:
    async with place(transport, House().server) as at:
        async with at.caller(RED, LEGACY) as red, at.caller(BLUE, LEGACY) as blue:
            call = red.message("tools/call", tool("steps"), 7, {"progressToken": "t"})
            async with connected(at.port) as wire:
                await wire.send(red.encode(call))
                assert (await wire.head()).status == 200
                first = await wire.event()
                second = await wire.event()
                wire.reset()
            await asyncio.sleep(0.05)
            assert "red" in second["data"]
            events = {"accept": "text/event-stream", "last_event_id": first["id"]}
            # With the session of the other: 404 as for any. In its own: as an id that was never given out.
            stolen = await whole(at.port, BLUE, red.session, "GET", **events)
            assert stolen == await whole(at.port, BLUE, "f" * len(red.session), "GET", **events)
            own = await whole(at.port, BLUE, blue.session, "GET", **events)
            never = await whole(at.port, BLUE, blue.session, "GET", **{**events, "last_event_id": "fff-fff"})
            assert own == never
            assert own.startswith(b"(400")
            again = await whole(at.port, RED, red.session, "GET", **events)  # its own client gets the rest
            assert b"red" in again
            assert b"done" in again


@pytest.mark.parametrize("revision", ERAS)
@pytest.mark.parametrize("transport", ["unix", "websocket", "asgi-websocket"])
async def test_changes_are_told_to_the_tenant_whose_they_are(transport: str, revision: str) -> None:
    house = House()
    uris = ["names://all", "plans://red/1", "plans://blue/1"]
    async with place(transport, house.server) as at:
        async with at.caller(RED, revision) as red, at.caller(BLUE, revision) as blue:
            for p in (red, blue):
                if p.modern:
                    filters = {"notifications": {"resourceSubscriptions": uris}}
                    p.start(p.message("subscriptions/listen", filters, "listen", {}))
                    await until(lambda p=p: p.notifications)
                    p.notifications.clear()
                else:
                    for uri in uris:
                        await p.result("resources/subscribe", {"uri": uri})
            house.server.resource_updated("names://all", tenant="red")
            house.server.resource_updated("names://all", tenant="green")
            house.server.resource_updated("plans://red/1")
            house.server.resource_updated("plans://blue/1", tenant="red")
            house.server.resource_updated("names://all")
            await until(lambda: len(red.notifications) >= 3 and blue.notifications)
            await asyncio.sleep(0.01)
            heard = [[params["uri"] for _, params in p.notifications] for p in (red, blue)]
            assert sorted(heard[0]) == ["names://all", "names://all", "plans://red/1"]
            assert heard[1] == ["names://all"]


@pytest.mark.parametrize("transport", ["unix", "http", "websocket"])
async def test_what_one_account_has_under_way_is_not_counted_to_another(transport: str) -> None:
    house = House(Limits(in_flight_per_principal=2, in_flight=10))
    async with place(transport, house.server) as at:
        async with at.caller(RED) as red, at.caller(RED) as red_again, at.caller(BLUE) as blue, at.caller(BOB) as bob:
            callers = (red, red_again, blue, bob)
            calls = [
                asyncio.ensure_future(p.once("tools/call", tool("hold"), id=f"held {number}"))
                for number, p in enumerate(callers)
            ]
            await until(lambda: len(house.began) == 4)
            for p in (red, red_again):
                assert (await p.error("tools/call", tool("hold")))["code"] == 429
            more = [asyncio.ensure_future(p.once("tools/call", tool("hold"), id="more")) for p in (blue, bob)]
            await until(lambda: len(house.began) == 6)
            house.let_go.set()
            assert all("result" in each for each in await asyncio.gather(*calls, *more))


@pytest.mark.attack("ATK-175")
@pytest.mark.parametrize("revision", ERAS[:2])
@pytest.mark.parametrize("transport", ["unix", "http", "websocket"])
async def test_the_same_ids_and_progress_tokens_are_kept_apart(transport: str, revision: str) -> None:
    house = House()
    async with place(transport, house.server) as at:
        async with at.caller(RED, revision) as red, at.caller(BLUE, revision) as blue:
            answers = await asyncio.gather(
                *(p.once("tools/call", tool("steps"), id="same", progressToken="same") for p in (red, blue))
            )
            assert all(outcome(each) == "ok" for each in answers)
            for p, who in ((red, RED), (blue, BLUE)):
                said = {params["message"] for method, params in p.notifications if method.endswith("/progress")}
                assert said == {who.tenant}
            # Nor does one end what the other has under way, of whatever id.
            calls = [asyncio.ensure_future(p.once("tools/call", tool("hold"), id="held")) for p in (red, blue)]
            await until(lambda: len(house.began) == 2)
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "held"}}
            async with at.caller(BOB, revision) as bob:
                await bob.tell(told)
            await asyncio.sleep(0.02)
            assert house.cancelled == []
            if revision == LEGACY or transport != "http":  # a modern client over HTTP cancels by leaving
                await red.tell(told)
                await until(lambda: house.cancelled)
                assert house.cancelled == ["red"]
                calls[0].cancel()
            house.let_go.set()
            assert outcome(await calls[1]) == "ok"
            await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.attack("ATK-175")
@pytest.mark.parametrize("transport", ["unix", "http", "websocket"])
async def test_a_question_is_answered_by_whom_it_was_put_to(transport: str) -> None:
    """An answer of somebody else to the id of a question is as one to no question."""
    house = House()
    ids: list[str] = []
    async with place(transport, house.server) as at:
        async with (
            at.caller(RED, LEGACY, capabilities={"elicitation": {}}) as red,
            at.caller(BLUE, LEGACY, capabilities={"elicitation": {}}) as blue,
        ):
            honest = red.reply

            def reply(question: dict[str, Any]) -> dict[str, Any]:
                ids.append(question["id"])
                return {**honest(question), "id": "to nobody"}

            red.reply = reply
            red.answers["elicitation/create"] = lambda _: {"action": "decline"}
            call = asyncio.ensure_future(red.once("tools/call", tool("confirm")))
            await until(lambda: ids)
            stolen = {"jsonrpc": "2.0", "id": ids[0], "result": {"action": "accept", "content": {}}}
            for identifier in (ids[0], "never asked"):
                await blue.tell({**stolen, "id": identifier})
            await asyncio.sleep(0.02)
            assert not call.done()
            await red.tell({**stolen, "result": {"action": "decline"}})
            assert (await call)["result"]["content"][0]["text"] == "red decline"
