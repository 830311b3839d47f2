"""HTTP+SSE of 2024-11-05: served where it is asked for, behind the same gate, and bounded like everything else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client

import garrison
from garrison import ConfigurationError, Context, Server
from garrison.policy.principal import Principal
from garrison.server.http_sse import HttpSse
from garrison.transports.http.exchange import Head
from tests.transports.hosts import TOKEN, Hosts, Place, Wire, call, policy

KINDS = ("edge", "asgi", "mounted")


def make(calls: list[str], **settings: Any) -> Server:
    server = Server("test", policy=policy(**settings), http_sse=True)

    @server.tool(inline=True)
    def touch() -> str:
        calls.append("touch")
        return "done"

    @server.tool()
    async def wait(seconds: float) -> str:
        calls.append("begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        return "waited"

    @server.tool()
    async def greet(ctx: Context) -> str:
        answer = await ctx.sample("Say hello", max_tokens=5)
        return f"{answer.content.text}!"  # type: ignore[union-attr]

    return server


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def places(hosts: Hosts) -> dict[str, Place]:
    return {kind: hosts.start(kind, make) for kind in KINDS}


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def listen(place: Place, **fields: Any) -> bytes:
    return place.request("GET", "/sse", **{"accept": "text/event-stream", **fields})


class Client:
    """A stream, and the address to post to."""

    def __init__(self, place: Place, wire: Wire) -> None:
        self.place = place
        self.wire = wire
        wire.send(listen(place))
        answer = wire.head()
        assert answer.status == 200 and answer.fields["content-type"] == "text/event-stream"
        kind, target = wire.event()
        assert kind == "endpoint"
        self.path = target.removeprefix(place.prefix)

    def post(self, body: bytes, path: str | None = None, **fields: Any) -> int:
        fields = {"omit": ("accept",), **fields}
        return self.place.ask(self.place.request("POST", path or self.path, body, **fields)).status

    def say(self, method: str, id: int | None = None, **params: Any) -> int:
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if id is None else {"id": id})
        return self.post(json.dumps(message).encode())

    def read(self) -> Any:
        kind, data = self.wire.event()
        assert kind == "message"
        return json.loads(data)

    def greet(self, version: str = "2024-11-05") -> Any:
        hello = {
            "protocolVersion": version,
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "t", "version": "1"},
        }
        assert self.say("initialize", 0, **hello) == 202
        result = self.read()["result"]
        assert self.say("notifications/initialized") == 202
        return result


@contextmanager
def client(place: Place) -> Iterator[Client]:
    with place.connect() as wire:
        yield Client(place, wire)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.calls.clear()
    with client(place) as peer:
        result = peer.greet()
        assert result["protocolVersion"] == "2024-11-05" and result["serverInfo"]["name"] == "test"
        assert peer.say("tools/list", 1) == 202
        assert {tool["name"] for tool in peer.read()["result"]["tools"]} == {"touch", "wait", "greet"}
        assert peer.post(call("touch", 2)) == 202
        assert peer.read()["result"] == {"content": [{"type": "text", "text": "done"}]}
        assert peer.post(b"{") == 202
        assert peer.read()["error"]["code"] == -32700
        assert peer.post(call("greet", 3)) == 202
        question = peer.read()
        assert question["method"] == "sampling/createMessage"
        said = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
        assert peer.post(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": said}).encode()) == 202
        assert peer.read()["result"]["content"][0]["text"] == "hello!"
    assert place.calls == ["touch"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_official_client(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    url = f"http://127.0.0.1:{place.port}{place.prefix}/sse"
    async with sse_client(url, headers={"Authorization": f"Bearer {TOKEN}"}) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            assert len((await session.list_tools()).tools) == 3
            done = await session.call_tool("touch", {})
            assert done.content[0].text == "done"  # type: ignore[union-attr]


BAD_STREAMS: dict[str, tuple[int, dict[str, Any]]] = {
    "another host": (421, {"host": "evil.example"}),
    "another origin": (403, {"origin": "https://evil.example"}),
    "a cross-site request": (403, {"sec_fetch_site": "cross-site"}),
    "no token": (401, {"omit": ("authorization",)}),
    "no events": (406, {"accept": "application/json"}),
    "another method": (405, {"method": "DELETE"}),
    "a POST": (405, {"method": "POST"}),
    "a path below": (404, {"path": "/sse/"}),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_a_bad_stream_is_refused_alike_everywhere(places: dict[str, Place], case: str) -> None:
    status, fields = BAD_STREAMS[case]
    arguments = {"method": "GET", "path": "/sse", "accept": "text/event-stream", **fields}
    answers = [place.ask(place.request(**arguments)) for place in places.values()]
    assert [answer.status for answer in answers] == [status] * 3
    assert len({answer.body for answer in answers}) == 1


BAD_MESSAGES: dict[str, tuple[int, dict[str, Any]]] = {
    "another host": (421, {"host": "evil.example"}),
    "another origin": (403, {"origin": "https://evil.example"}),
    "no token": (401, {"omit": ("authorization",)}),
    "text": (415, {"content_type": "text/plain"}),
    "no session": (404, {"path": "/messages/"}),
    "an invented session": (404, {"path": "/messages/?sessionId=1"}),
    "an empty session": (404, {"path": "/messages/?sessionId="}),
    "a session and another": (404, {"path": "{path}&sessionId=1"}),
    "the session of the other transport": (404, {"path": "/messages/", "mcp_session_id": "{session}"}),
    "a session on the other path": (404, {"path": "/mcp", "omit": (), "mcp_session_id": "{session}"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_a_bad_message_is_refused_and_reaches_no_handler(places: dict[str, Place], kind: str, case: str) -> None:
    place = places[kind]
    status, fields = BAD_MESSAGES[case]
    with client(place) as peer:
        peer.greet()
        place.calls.clear()
        session = peer.path.partition("=")[2]
        filled = {
            name: value.replace("{path}", peer.path).replace("{session}", session) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        assert peer.post(call("touch"), **filled) == status
        assert place.calls == []
        assert peer.post(call("touch")) == 202 and peer.read()["id"] == 1
        assert place.calls == ["touch"]


def test_an_address_cannot_be_guessed(places: dict[str, Place]) -> None:
    with client(places["edge"]) as one, client(places["edge"]) as other:
        assert one.path != other.path and len(one.path.partition("=")[2]) >= 43  # 256 bits


@pytest.mark.parametrize("kind", KINDS)
def test_streams_do_not_hear_each_other(places: dict[str, Place], kind: str) -> None:
    with client(places[kind]) as one, client(places[kind]) as other:
        one.greet()
        other.greet("2025-03-26")
        assert one.post(call("touch", 7)) == 202 and other.say("ping", 8) == 202
        assert one.read()["id"] == 7 and other.read()["id"] == 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_closes_ends_its_session_and_its_requests(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    with client(place) as peer:
        peer.greet()
        place.calls.clear()
        assert peer.post(call("wait", 1, seconds=20)) == 202
        assert wait_for(lambda: place.calls == ["begun"])
    assert wait_for(lambda: place.calls == ["begun", "cancelled"])
    assert peer.post(call("touch", 2)) == 404


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_are_bounded(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, sessions=1))
    with client(place) as peer:
        peer.greet()
        assert place.ask(listen(place)).status == 503
        assert peer.say("ping", 1) == 202 and peer.read()["id"] == 1

    def again() -> bool:
        with place.connect() as wire:
            wire.send(listen(place))
            return wire.head().status == 200

    assert wait_for(again)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_under_way_are_bounded(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, in_flight=1))
    with client(place) as peer:
        peer.greet()
        assert peer.post(call("wait", 1, seconds=0.4)) == 202
        assert peer.post(call("touch", 2)) == 503
        assert peer.read()["id"] == 1
        assert peer.post(call("touch", 3)) == 202 and peer.read()["id"] == 3
    assert place.calls == ["begun", "touch"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_stream_is_ended(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, session_idle=0.5))
    with client(place) as idle, client(place) as busy:
        for number in range(4):
            time.sleep(0.2)
            assert busy.say("ping", number) == 202 and busy.read()["id"] == number
        assert idle.wire.event() == ("", "")
        assert idle.say("ping", 1) == 404


def test_it_is_served_only_where_it_is_asked_for(hosts: Hosts) -> None:
    for place in (hosts.edge(Server("test")), hosts.asgi(Server("test"))):
        assert place.ask(listen(place)).status == 404
        assert place.ask(place.request("POST", "/messages/?sessionId=1")).status == 404
    with pytest.raises(ConfigurationError, match="http_sse"):
        Server("test", http_sse=True, legacy="stateless")


class Response:
    """A response that is kept."""

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.status = 0
        self.events: list[bytes] = []

    def respond(self, status: int, body: bytes, fields: bytes = b"") -> None:
        self.status = status

    def start_stream(self, fields: bytes = b"") -> None:
        self.status = 200

    def send_event(self, event: bytes) -> None:
        self.events.append(event)

    def end_stream(self) -> None:
        pass

    async def drain(self) -> None:
        pass

    def malformed(self) -> None:
        pass


async def test_a_session_belongs_to_who_opened_it() -> None:
    calls: list[str] = []
    core = make(calls).core()
    await core.start()
    streams = HttpSse(core, asyncio.get_running_loop())
    head, stream = Head(), Response()
    head.principal, head.fields = Principal("alice"), {b"accept": b"text/event-stream"}
    streams.open(head, stream)
    head.query = stream.events[0].decode().partition("?")[2].partition("\r")[0].encode()
    for principal, status in (("bob", 404), ("alice", 202)):
        head.principal, answer = Principal(principal), Response()
        try:
            streams.take(head, b'{"jsonrpc":"2.0","id":1,"method":"ping"}', answer)
        except Exception as exc:
            answer.status = exc.status  # type: ignore[attr-defined]
        assert answer.status == status
        assert len(stream.events) == (2 if principal == "alice" else 1)
    streams.close()
    await core.close()


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_our_own_client_finds_the_older_transport_by_itself(era: Any) -> None:
    calls: list[str] = []
    async with make(calls).http(port=0, token=TOKEN) as serving:
        url = serving.url.removesuffix("/mcp") + "/sse"
        async with garrison.Client(url, token=TOKEN, era=era) as client:
            assert (await client.call_tool("touch")).content
    assert calls
