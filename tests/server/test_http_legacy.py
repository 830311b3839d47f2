"""The handshake revisions over HTTP: sessions, streams that are resumed, questions to the client, batches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from garrison import Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.policy.principal import Principal
from tests.support.mcp import LEGACY, call, post, until
from tests.support.raw_http import Response, Wire, connected, exchange, parse_events, request, serving, standard

ran: list[object] = []


def make(limits: Limits | None = None, legacy: Any = "sessions", **timeouts: float) -> Server:
    ran.clear()
    policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}))
    server = Server("legacy", policy=policy, legacy=legacy)

    @server.tool(inline=True)
    def echo(text: str) -> str:
        ran.append(text)
        return text

    @server.tool()
    async def steps(ctx: Context, count: int, pause: float = 0) -> str:
        for number in range(count):
            ctx.progress(number + 1)
            if pause:
                await asyncio.sleep(pause)
        return "done"

    @server.tool()
    async def slow() -> str:
        ran.append("slow")
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ran.append("cancelled")
            raise
        return "slow"

    @server.tool()
    async def ask(ctx: Context) -> str:
        return str(len(await ctx.list_roots()))

    return server


def opening(version: str = "2025-11-25", capabilities: Any = None) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": "init",
        "method": "initialize",
        "params": {
            "protocolVersion": version,
            "capabilities": capabilities or {"roots": {}},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }


class Client:
    """One session."""

    def __init__(self, port: int, session: str | None = None, version: str | None = None) -> None:
        self.port = port
        self.session = session
        self.version = version

    def fields(self, **more: str) -> list[tuple[str, str]]:
        fields = standard(self.port)
        if self.session is not None:
            fields.append(("Mcp-Session-Id", self.session))
        if self.version is not None:
            fields.append(("MCP-Protocol-Version", self.version))
        return fields + [(name.replace("_", "-"), value) for name, value in more.items()]

    def data(self, message: Any) -> bytes:
        return request(json.dumps(message).encode(), self.fields())

    async def post(self, message: Any) -> Response:
        return await exchange(self.port, self.data(message))

    async def call(self, name: str, arguments: Any = None, id: Any = 1, **params: Any) -> Response:
        return await self.post(tool(name, arguments, id, **params))

    async def get(self, wire: Wire, **more: str) -> Response:
        await wire.send(request(b"", self.fields(**more), method="GET"))
        return await wire.head()

    @classmethod
    async def open(cls, port: int, version: str = "2025-11-25") -> Client:
        response = await exchange(port, request(json.dumps(opening(version)).encode(), standard(port)))
        assert response.status == 200, response
        client = cls(port, response.get("mcp-session-id"), version)
        assert (await client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status == 202
        return client


def tool(name: str, arguments: Any = None, id: Any = 1, **params: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments or {}, **params},
    }


@pytest.mark.parametrize("version", LEGACY)
async def test_handshake(version: str) -> None:
    async with serving(make()) as running:
        port = running.port
        response = await exchange(port, request(json.dumps(opening(version)).encode(), standard(port)))
        assert response.json["id"] == "init"
        result = response.json["result"]
        assert result["protocolVersion"] == version
        assert result["serverInfo"]["name"] == "legacy"
        assert result["capabilities"]["tools"] == {"listChanged": True}
        assert "resultType" not in result
        client = await Client.open(port, version)
        response = await client.call("echo", {"text": "x"})
        assert response.json["result"]["content"] == [{"type": "text", "text": "x"}]
        assert (await client.post({"jsonrpc": "2.0", "id": 3, "method": "ping"})).json == {
            "jsonrpc": "2.0",
            "id": 3,
            "result": {},
        }


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", "x"])
async def test_an_unknown_version_is_answered_with_the_newest_of_the_handshake(version: str) -> None:
    async with serving(make()) as running:
        response = await exchange(running.port, request(json.dumps(opening(version)).encode(), standard(running.port)))
        assert response.json["result"]["protocolVersion"] == LEGACY[0]


async def test_bad_handshakes() -> None:
    async with serving(make()) as running:
        port = running.port
        for params in (
            {},
            {"protocolVersion": 1, "capabilities": {}},
            {"protocolVersion": "2025-11-25"},
            {"protocolVersion": "2025-11-25", "capabilities": []},
        ):
            message = {**opening(), "params": params}
            response = await exchange(port, request(json.dumps(message).encode(), standard(port)))
            assert response.json["error"]["code"] == -32602
            assert response.json["id"] == "init"
            assert response.get("mcp-session-id") is None
        assert len(running.legacy.store) == 0  # type: ignore[union-attr]


async def test_session_ids_are_long_and_different() -> None:
    async with serving(make()) as running:
        ids = [(await Client.open(running.port)).session or "" for _ in range(20)]
        assert len(set(ids)) == 20
        assert all(len(each) >= 43 and all("!" <= c <= "~" for c in each) for each in ids)
        assert len({each[:8] for each in ids}) == 20


async def test_only_the_session_of_the_principal_is_found() -> None:
    server = make(session_idle=0.3)
    async with serving(server) as running:
        port = running.port
        client = await Client.open(port)
        stranger = Client(port, "x" * 43)
        flipped = Client(port, (client.session or "")[:-1] + "!")
        for other in (stranger, flipped, Client(port, (client.session or "").upper())):
            response = await other.call("echo", {"text": "x"})
            assert response.status == 404
            async with connected(port) as wire:
                assert (await other.get(wire)).status == 404
        assert (await Client(port).call("echo", {"text": "x"})).status == 400
        store = running.legacy.store  # type: ignore[union-attr]
        assert store.get(client.session or "", Principal("somebody else")) is None
        assert ran == []
        assert (await client.call("echo", {"text": "x"})).status == 200
        delete = request(b"", client.fields(), method="DELETE")
        assert (await exchange(port, delete)).status in (200, 204)
        assert (await exchange(port, delete)).status == 404
        assert (await client.call("echo", {"text": "x"})).status == 404
        idle = await Client.open(port)
        for _ in range(3):
            await asyncio.sleep(0.15)
            assert (await idle.call("echo", {"text": "x"})).status == 200
        await asyncio.sleep(0.4)
        assert (await idle.call("echo", {"text": "x"})).status == 404


async def test_sessions_are_limited() -> None:
    async with serving(make(Limits(sessions=3), session_idle=0.3)) as running:
        port = running.port
        for _ in range(3):
            await Client.open(port)
        response = await exchange(port, request(json.dumps(opening()).encode(), standard(port)))
        assert response.status == 503
        assert response.get("retry-after") is not None
        await asyncio.sleep(0.35)
        await Client.open(port)


async def test_a_second_initialize_of_a_session_is_refused() -> None:
    async with serving(make()) as running:
        client = await Client.open(running.port)
        response = await client.post(opening())
        assert response.json["error"]["code"] == -32600
        assert (await client.call("echo", {"text": "x"})).status == 200


async def test_a_question_is_answered_by_post_and_only_by_its_own_session() -> None:
    async with serving(make()) as running:
        port = running.port
        client, other = await Client.open(port), await Client.open(port)
        async with connected(port) as wire:
            await wire.send(client.data(tool("ask")))
            assert (await wire.head()).get("content-type") == "text/event-stream"
            question = json.loads((await wire.event()).get("data") or "null") or json.loads(
                (await wire.event())["data"]
            )
            assert question["method"] == "roots/list"
            lie = {
                "jsonrpc": "2.0",
                "id": question["id"],
                "result": {"roots": [{"uri": "file:///a"}, {"uri": "file:///b"}]},
            }
            assert (await other.post(lie)).status == 202
            for guess in (1, "1", question["id"] + "0", question["id"].upper()[:-1]):
                await client.post({**lie, "id": guess})
            truth = {**lie, "result": {"roots": [{"uri": "file:///a"}]}}
            assert (await client.post(truth)).status == 202
            assert (await client.post(lie)).status == 202
            answer = json.loads((await wire.event())["data"])
            assert answer["result"]["content"][0]["text"] == "1"


async def test_the_sessions_own_stream() -> None:
    server = make()
    async with serving(server) as running:
        port = running.port
        client = await Client.open(port)
        async with connected(port) as wire, connected(port) as second:
            assert (await client.get(wire)).status == 200
            assert (await client.get(second)).status == 409
            server.add_tool(lambda: "x", "new", structured_output=False)
            while not (event := await wire.event()).get("data"):
                continue
            assert json.loads(event["data"])["method"] == "notifications/tools/list_changed"
        async with connected(port) as wire:
            await wire.send(
                request(
                    b"",
                    [f for f in client.fields() if f[0] != "Accept"] + [("Accept", "application/json")],
                    method="GET",
                )
            )
            assert (await wire.response()).status == 406


@pytest.mark.attack("ATK-262")
async def test_a_stream_is_resumed_where_it_was_left() -> None:
    async with serving(make()) as running:
        port = running.port
        client, other = await Client.open(port), await Client.open(port)
        async with connected(port) as wire:
            await wire.send(client.data(tool("steps", {"count": 10, "pause": 0.01}, _meta={"progressToken": "t"})))
            await wire.head()
            seen = [await wire.event() for _ in range(4)]
            wire.reset()
        identifiers = [event["id"] for event in seen]
        assert len(set(identifiers)) == 4
        await asyncio.sleep(0.2)
        async with connected(port) as wire:
            assert (await other.get(wire, Last_Event_ID=identifiers[-1])).status == 400
        for bad in ("", "x", "0", "-1", "999-0", "1-999999", "1--1"):
            async with connected(port) as wire:
                assert (await client.get(wire, Last_Event_ID=bad)).status == 400, bad
        async with connected(port) as wire:
            assert (await client.get(wire, Last_Event_ID=identifiers[-1])).status == 200
            body = b""
            while data := await wire.chunk():
                body += data
            rest = [json.loads(event["data"]) for event in parse_events(body)]
            assert rest[-1]["result"]["content"][0]["text"] == "done"
            before = sum(1 for event in seen if event.get("data"))
            assert [e["params"]["progress"] for e in rest[:-1]] == list(range(before + 1, 11))


@pytest.mark.attack("ATK-262")
async def test_the_log_for_resumption_is_bounded() -> None:
    for limits in (Limits(session_events=5), Limits(session_event_bytes=600)):
        async with serving(make(limits)) as running:
            client = await Client.open(running.port)
            for _ in range(20):
                response = await client.call("steps", {"count": 20}, _meta={"progressToken": "t"})
                assert response.events[-1]["result"]["content"][0]["text"] == "done"
            (session,) = running.legacy.store._sessions.values()  # type: ignore[union-attr]
            streams = session.extra.streams  # type: ignore[attr-defined]
            assert len(streams._log) <= 5
            assert streams._bytes <= 1_048_576 if limits.session_events == 5 else streams._bytes <= 600
            assert len(streams._streams) <= 8


async def test_cancelling_and_duplicate_ids() -> None:
    async with serving(make()) as running:
        port = running.port
        client, other = await Client.open(port), await Client.open(port)
        async with connected(port) as wire:
            await wire.send(client.data(tool("slow", id=7)))
            await until(lambda: ran == ["slow"])
            response = await client.call("echo", {"text": "x"}, id=7)
            assert response.json["error"]["code"] == -32600
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
            assert (await other.post(cancel)).status == 202
            await client.post({**cancel, "params": {"requestId": "7"}})
            await client.post({**cancel, "params": {"requestId": [7]}})
            assert (await client.call("echo", {"text": "y"}, id=8)).status == 200
            assert ran == ["slow", "y"]
            assert (await client.post(cancel)).status == 202
            await until(lambda: ran[-1] == "cancelled")
            response = await wire.response()
            assert response.body == b""
        assert (await client.call("echo", {"text": "x"}, id=7)).json["result"]


async def test_deleting_a_session_cancels_what_runs_in_it() -> None:
    async with serving(make()) as running:
        client = await Client.open(running.port)
        async with connected(running.port) as wire:
            await wire.send(client.data(tool("slow")))
            await until(lambda: ran == ["slow"])
            await exchange(running.port, request(b"", client.fields(), method="DELETE"))
            await until(lambda: ran[-1] == "cancelled")


@pytest.mark.attack("ATK-096")
@pytest.mark.parametrize("version", LEGACY)
async def test_batches(version: str) -> None:
    async with serving(make(Limits(batch=4))) as running:
        client = await Client.open(running.port, version)
        items: list[Any] = [
            tool("echo", {"text": "a"}, 1),
            {"jsonrpc": "2.0", "method": "notifications/nothing"},
            tool("steps", {"count": 0}, "b"),
            {"jsonrpc": "2.0", "id": 3, "method": "nothing"},
        ]
        response = await client.post(items)
        if version != "2025-03-26":
            assert response.status == 400
            assert response.json["error"]["code"] == -32600
            assert ran == []
            return
        answers = {answer["id"]: answer for answer in response.json}
        assert answers[1]["result"]["content"][0]["text"] == "a"
        assert answers["b"]["result"]["content"][0]["text"] == "done"
        assert answers[3]["error"]["code"] == -32601
        assert len(answers) == 3
        ran.clear()
        for bad in ([], items + items[1:2], [items]):
            answer = (await client.post(bad)).json
            assert (answer[0] if isinstance(answer, list) else answer)["error"]["code"] == -32600
        response = await client.post([{"jsonrpc": "2.0", "method": "notifications/nothing"}])
        assert (response.status, response.body) == (202, b"")
        inits = [opening(version), tool("echo", {"text": "x"})]
        assert any("error" in answer for answer in (await client.post(inits)).json)


async def test_requests_under_way_in_a_session_are_limited() -> None:
    async with serving(make(Limits(in_flight=2))) as running:
        client = await Client.open(running.port)
        async with connected(running.port) as a, connected(running.port) as b:
            await a.send(client.data(tool("slow", id=1)))
            await b.send(client.data(tool("slow", id=2)))
            await until(lambda: len(ran) == 2)
            assert "error" in (await client.call("steps", {"count": 0}, id=3)).json


async def test_stateless() -> None:
    async with serving(make(legacy="stateless")) as running:
        port = running.port
        response = await exchange(port, request(json.dumps(opening()).encode(), standard(port)))
        assert response.status == 200
        assert response.get("mcp-session-id") is None
        client = Client(port, None, "2025-11-25")
        assert (await client.call("echo", {"text": "x"})).json["result"]["content"][0]["text"] == "x"
        answer = (await client.call("ask")).json
        assert "error" in answer
        for method in ("GET", "DELETE"):
            assert (await exchange(port, request(b"", client.fields(), method=method))).status == 405
        assert (await exchange(port, post(port, call("echo", {"text": "x"})))).status == 200


async def test_many_streams_leave_nothing() -> None:
    async with serving(make()) as running:
        client = await Client.open(running.port)
        for _ in range(30):
            async with connected(running.port) as wire:
                assert (await client.get(wire)).status == 200
                wire.reset()
            (session,) = running.legacy.store._sessions.values()  # type: ignore[union-attr]
            await until(lambda: session.extra.streams.general.exchange is None)  # type: ignore[attr-defined] # noqa: B023
        assert running.listener.streams == set()


async def test_a_version_that_no_handshake_leads_to_is_refused() -> None:
    for legacy in ("sessions", "stateless"):
        async with serving(make(legacy=legacy)) as running:
            session = (await Client.open(running.port)).session if legacy == "sessions" else None
            client = Client(running.port, session, "2099-01-01")
            assert (await client.post([tool("echo", {"text": "x"})])).status == 400
            for method in ("GET", "DELETE") if session else ():
                answer = await exchange(running.port, request(b"", client.fields(), method=method))
                assert answer.status == 400, method
            client.version = None
            assert (await client.call("echo", {"text": "x"})).status == 200


async def test_an_answer_whose_connection_is_gone_leaves_the_sessions_own_stream_open() -> None:
    async with serving(make()) as running:
        client = await Client.open(running.port)
        async with connected(running.port) as own:
            await client.get(own)
            async with connected(running.port) as wire:
                await wire.send(client.data(tool("slow")))
                await until(lambda: ran == ["slow"])
                wire.reset()
            (session,) = running.legacy.store._sessions.values()  # type: ignore[union-attr]
            streams = session.extra.streams  # type: ignore[attr-defined]
            channel = next(iter(session.extra.running.values())).call.channel  # type: ignore[attr-defined]
            await until(lambda: channel._exchange is None)
            channel.notify("notifications/message", {"level": "info", "data": "after"})
            channel.deliver(200, b"{}")
            assert streams.general.exchange is not None
            assert not streams.general.done
            assert [place for number, place, _ in streams._log if number == 0] == [0, 1]


async def test_streams_of_which_nothing_is_kept_are_forgotten() -> None:
    async with serving(make(Limits(session_event_bytes=64))) as running:
        client = await Client.open(running.port)
        for number in range(5):
            await client.call("steps", {"count": 3}, number, _meta={"progressToken": 1})
        (session,) = running.legacy.store._sessions.values()  # type: ignore[union-attr]
        assert len(session.extra.streams._streams) == 1  # type: ignore[attr-defined]


async def test_what_a_session_keeps_of_its_client_is_bounded() -> None:
    server = make()

    @server.resource("note://one")
    def note() -> str:
        return "one"

    async with serving(server) as running:
        long = opening(capabilities={"experimental": {"x": {"text": "x" * 70_000}}})
        answer = await exchange(running.port, request(json.dumps(long).encode(), standard(running.port)))
        assert answer.json["error"]["code"] == -32602
        client = await Client.open(running.port)

        async def subscribe(uri: str) -> Any:
            return (await client.post({**tool("x"), "method": "resources/subscribe", "params": {"uri": uri}})).json

        assert "result" in await subscribe("note://" + "a" * 200_000)
        assert "result" in await subscribe("note://one")
        assert (await subscribe("note://" + "b" * 200_000))["error"]["code"] == -32602


@pytest.mark.parametrize(("keep_alive", "kind"), [(0.1, "text/event-stream"), (30.0, "application/json")])
async def test_a_long_call_becomes_a_stream_that_is_kept_alive(keep_alive: float, kind: str) -> None:
    async with serving(make(keep_alive=keep_alive)) as running:
        client = await Client.open(running.port)
        async with connected(running.port) as wire:
            await wire.send(client.data(tool("steps", {"count": 1, "pause": 0.5})))
            head = await wire.head()
            assert head.get("content-type") == kind
            if kind == "text/event-stream":
                while not (event := await wire.event()).get("data"):
                    continue
                assert "result" in json.loads(event["data"])
