"""How much one principal may have under way, how long a session lasts, how much may be malformed: on live servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from garrison import Client, Limits, RemoteError, SecurityPolicy, Server, Timeouts
from garrison.policy.principal import ANONYMOUS, LOCAL, Principal
from garrison.protocol.envelope import Request
from garrison.server.duplex import DuplexConnection
from tests.support.features import everywhere
from tests.support.mcp import MODERN, HttpPeer, call, meta, peer, post, until
from tests.support.raw_http import Wire, changed, connected, exchange, request, serving, standard

LEGACY = "2025-11-25"


class Holding:
    """A server whose `hold` waits until it is let go."""

    def __init__(self, limits: Limits | None = None, **timeouts: float) -> None:
        self.began = 0
        self.under_way = 0
        self.let_go = asyncio.Event()
        policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}))
        self.server = Server("s", policy=policy, http_sse=True)

        @self.server.tool()
        async def hold() -> str:
            self.began += 1
            self.under_way += 1
            try:
                await self.let_go.wait()
            finally:
                self.under_way -= 1
            return "held"

        @self.server.tool()
        async def at_once() -> str:
            return "now"

        @self.server.tool(inline=True)
        def echo(text: str) -> str:
            return text

    def holds(self, p: Any, count: int) -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(p.once("tools/call", {"name": "hold"})) for _ in range(count)]


async def answered(waiting: Awaitable[Any]) -> bool:
    return "result" in await waiting


# Under way, of one principal


@everywhere
@pytest.mark.parametrize("revision", [MODERN, LEGACY])
@pytest.mark.parametrize("most", [1, 3])
async def test_one_more_than_a_principal_may_have_under_way(transport: str, revision: str, most: int) -> None:
    holding = Holding(Limits(in_flight_per_principal=most))
    async with peer(holding.server, revision, transport) as p:
        held = holding.holds(p, most)
        await until(lambda: holding.began == most)
        for name in ("hold", "at_once"):
            refused = await p.once("tools/call", {"name": name})
            assert refused["error"] == {"code": 429, "message": "Too many requests under way"}
        assert holding.began == most
        assert await answered(p.once("tools/call", {"name": "echo", "arguments": {"text": "x"}}))  # it does not wait
        holding.let_go.set()
        assert all([await answered(each) for each in held])
        assert await answered(p.once("tools/call", {"name": "hold"}))
        assert holding.began == most + 1


@everywhere
async def test_a_hundred_at_once_pass(transport: str) -> None:
    holding = Holding()
    async with peer(holding.server, MODERN, transport) as p:
        held = holding.holds(p, 100)
        await until(lambda: holding.began == 100)
        holding.let_go.set()
        assert all([await answered(each) for each in held])


@pytest.mark.parametrize("transport", ["memory", "stdio"])
async def test_a_cancelled_call_makes_room(transport: str) -> None:
    holding = Holding(Limits(in_flight_per_principal=2))
    async with peer(holding.server, MODERN, transport) as p:
        for turn in range(3):
            p.start(p.message("tools/call", {"name": "hold"}, f"a{turn}", {}))
            p.start(p.message("tools/call", {"name": "hold"}, f"b{turn}", {}))
            await until(lambda turn=turn: holding.began == 2 * turn + 2)
            assert "error" in await p.once("tools/call", {"name": "at_once"})
            for name in "ab":
                cancel = {"method": "notifications/cancelled", "params": {"requestId": f"{name}{turn}"}}
                await p.tell({"jsonrpc": "2.0", **cancel})
            await asyncio.sleep(0.02)


async def test_a_call_whose_client_has_gone_or_whose_time_is_up_makes_room() -> None:
    holding = Holding(Limits(in_flight_per_principal=1), handler=0.3)
    async with serving(holding.server) as running:
        message = call("hold")
        async with connected(running.port) as wire:
            await wire.send(post(running.port, message))
            await until(lambda: holding.began == 1)
            refused = await exchange(running.port, post(running.port, message))
            assert (refused.status, refused.get("retry-after")) == (429, "1")
            assert refused.json["id"] == message["id"]
            wire.reset()
            await until(lambda: not holding.under_way)
        for began in (2, 3):
            assert (await exchange(running.port, post(running.port, message))).json["error"]["code"] == -32603
            assert holding.began == began


async def test_another_principal_is_not_affected() -> None:
    holding = Holding(Limits(in_flight_per_principal=2))
    core = holding.server.core()
    await core.start()
    said: dict[str, list[Any]] = {"alice": [], "bob": []}
    lines = {
        (name, number): DuplexConnection(
            core, lambda data, of=name: said[of].append(json.loads(data)), principal=Principal(name)
        )
        for name in said
        for number in range(2)
    }
    for number, line in enumerate(lines.values()):
        line.receive(json.dumps(call("hold", id=number)).encode())
    await until(lambda: holding.began == 4)
    assert said == {"alice": [], "bob": []}
    lines["alice", 0].receive(json.dumps(call("hold", id="more")).encode())
    assert [each["error"]["code"] for each in said["alice"]] == [429]
    lines["bob", 1].close()
    await asyncio.sleep(0)
    lines["bob", 0].receive(json.dumps(call("hold", id="more")).encode())
    await until(lambda: holding.began == 5)
    assert said["bob"] == []
    assert lines["bob", 0].busy
    assert not lines["bob", 1].busy
    holding.let_go.set()
    await until(lambda: len(said["alice"]) == 3 and len(said["bob"]) == 2)
    assert not lines["bob", 0].busy
    await core.close()


async def test_subscriptions_are_counted_on_their_own() -> None:
    holding = Holding(Limits(in_flight_per_principal=1))
    async with peer(holding.server) as p:
        params = {"notifications": {"toolsListChanged": True}}
        for number in range(3):
            p.start(p.message("subscriptions/listen", params, f"s{number}", {}))
        await until(lambda: len(p.notifications) == 3)
        (held,) = holding.holds(p, 1)
        await until(lambda: holding.began == 1)
        holding.let_go.set()
        assert await answered(held)


async def test_calls_that_wait_for_the_event_loop_count_when_they_start() -> None:
    holding = Holding(Limits(in_flight_per_principal=2))
    core = holding.server.core()
    said: list[Any] = []
    line = DuplexConnection(core, lambda data: said.append(json.loads(data)), principal=LOCAL)
    for number in range(5):
        line.receive(json.dumps(call("hold", id=number)).encode())
    for number in (0, 4):
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": number}}
        line.receive(json.dumps({"jsonrpc": "2.0", **cancelled}).encode())
    assert line.wants_loop
    await core.start()
    await until(lambda: holding.began == 2)
    assert [(each["id"], each["error"]["code"]) for each in said] == [(3, 429)]
    holding.let_go.set()
    await until(lambda: len(said) == 3 and not line.busy)
    await core.close()


async def test_one_session_over_http_has_no_more_under_way_than_one_connection() -> None:
    holding = Holding(Limits(in_flight=2))
    async with peer(holding.server, LEGACY, "http") as p:
        held = holding.holds(p, 2)
        await until(lambda: holding.began == 2)
        assert (await p.once("tools/call", {"name": "hold"}))["error"]["code"] == 429
        async with changed_session(p) as other:  # another session of the same principal
            third = holding.holds(other, 1)
            await until(lambda: holding.began == 3)
            holding.let_go.set()
            assert all([await answered(each) for each in held + third])


@asynccontextmanager
async def changed_session(p: HttpPeer) -> AsyncIterator[HttpPeer]:
    other = HttpPeer(p.revision, p.capabilities, p.answers, p.port)
    await other.open()
    yield other


async def test_the_client_is_told_that_it_asks_too_much() -> None:
    holding = Holding(Limits(in_flight_per_principal=1))
    async with Client(holding.server) as client:
        first = asyncio.ensure_future(client.call_tool("hold"))
        await until(lambda: holding.began == 1)
        with pytest.raises(RemoteError, match="Too many requests under way") as refused:
            await client.call_tool("hold")
        assert refused.value.code == 429
        holding.let_go.set()
        await first


# An honest client


@everywhere
async def test_an_honest_burst_and_a_steady_load_are_never_delayed(transport: str) -> None:
    holding = Holding()
    longest = 0.0

    async with peer(holding.server, MODERN, transport) as p:

        async def one() -> None:
            nonlocal longest
            started = time.monotonic()
            assert await answered(p.once("tools/call", {"name": "at_once"}))
            longest = max(longest, time.monotonic() - started)

        for _ in range(2):
            await asyncio.gather(*(one() for _ in range(100)))
        assert longest < 1.5, "a hundred at once"  # what a busy machine needs to serve them
        longest = 0.0
        steady = []
        for _ in range(150):
            steady.append(asyncio.ensure_future(one()))
            await asyncio.sleep(0.02)
        await asyncio.gather(*steady)
        assert longest < 0.5


# How long sessions last, and who has them


async def handshake(port: int) -> HttpPeer:
    p = HttpPeer(LEGACY, {}, {}, port)
    await p.open()
    return p


async def ping(p: HttpPeer) -> int:
    return (await exchange(p.port, p.encode({"jsonrpc": "2.0", "id": 1, "method": "ping"}))).status


@pytest.mark.parametrize(("session_max", "lives"), [(0.4, False), (30.0, True)])
async def test_a_session_in_use_ends_when_it_is_too_old(session_max: float, lives: bool) -> None:
    holding = Holding(session_max=session_max)
    async with serving(holding.server) as running:
        p = await handshake(running.port)
        started = time.monotonic()
        async with connected(running.port) as stream:
            fields = [("Mcp-Session-Id", p.session or ""), ("MCP-Protocol-Version", LEGACY)]
            await stream.send(request(b"", standard(running.port) + fields, method="GET"))
            assert (await stream.head()).status == 200
            while time.monotonic() - started < 0.3:
                assert await ping(p) == 200
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            assert await ping(p) == (200 if lives else 404)
            assert len(running.legacy.store) == lives  # type: ignore[arg-type]
            if not lives:
                assert b"0\r\n\r\n" in await stream.reader.readuntil(b"0\r\n\r\n")
        again = await handshake(running.port)
        assert await ping(again) == 200


async def test_an_unused_old_session_is_swept_away_with_what_runs_for_it() -> None:
    holding = Holding(session_max=0.3)
    async with serving(holding.server) as running:
        p = await handshake(running.port)
        (held,) = holding.holds(p, 1)
        await until(lambda: holding.began == 1)
        assert len(running.legacy.store) == 1  # type: ignore[arg-type]
        await until(lambda: not len(running.legacy.store), 1)  # type: ignore[arg-type]
        with pytest.raises((json.JSONDecodeError, asyncio.IncompleteReadError)):
            await held


@pytest.mark.parametrize(("session_max", "lives"), [(0.4, False), (30.0, True)])
async def test_an_event_stream_of_2024_ends_when_it_is_too_old(session_max: float, lives: bool) -> None:
    holding = Holding(session_max=session_max)
    async with old_stream(holding.server) as old:
        started = time.monotonic()
        while time.monotonic() - started < 0.3:
            assert await old.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}') == 202
            await asyncio.sleep(0.05)
        if lives:
            await asyncio.sleep(0.2)
            assert await old.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}') == 202
            return
        async with asyncio.timeout(0.4):  # nothing is asked any more: it ends by itself
            while await old.wire.chunk():
                continue
        assert await old.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}') == 404


@asynccontextmanager
async def old_stream(server: Server) -> AsyncIterator[Any]:
    """A stream of HTTP+SSE, and what posts to it."""
    async with serving(server) as running, connected(running.port) as wire:
        await wire.send(request(b"", standard(running.port), method="GET", target="/sse", length=False))
        assert (await wire.head()).status == 200
        address = (await wire.event())["data"]

        async def send(body: bytes) -> int:
            return (await exchange(running.port, request(body, standard(running.port), target=address))).status

        yield SimpleNamespace(wire=wire, post=send, port=running.port)


@pytest.mark.attack("ATK-258")
async def test_session_ids_cannot_be_guessed_and_belong_to_a_principal() -> None:
    core = Holding().server.core()
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    sessions = [
        core.legacy.initialize(Request(1, "initialize", dict(params)), Principal("alice"))[0] for _ in range(1000)
    ]
    numbers = [int(session.id, 16) for session in sessions]
    assert len(set(numbers)) == 1000
    assert all(len(session.id) == 64 for session in sessions)
    for bit in range(256):  # each is set in about half of them: 1,000 throws of a coin, eight deviations
        assert 370 < sum(number >> bit & 1 for number in numbers) < 630

    async with serving(Holding().server) as running:
        p = await handshake(running.port)
        store = running.legacy.store  # type: ignore[union-attr]
        assert store.get(p.session or "", Principal("token")) is not None
        for stranger in (Principal("bob"), ANONYMOUS, LOCAL, Principal("token", issuer="https://issuer.example")):
            assert store.get(p.session or "", stranger) is None
        assert await ping(p) == 200


async def test_the_session_decides_which_revision_is_spoken_not_the_header() -> None:
    batch = json.dumps([{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(2)]).encode()
    async with serving(Holding().server) as running:
        for version, batches in (("2025-03-26", True), (LEGACY, False)):
            p = HttpPeer(version, {}, {}, running.port)
            await p.open()
            for header in ("2025-03-26", "2025-06-18", LEGACY):
                fields = [("Mcp-Session-Id", p.session or ""), ("MCP-Protocol-Version", header)]
                response = await exchange(running.port, request(batch, standard(running.port) + fields))
                assert response.status == (200 if batches else 400)
            for header in ("2023-01-01", "x", ""):
                fields = [("Mcp-Session-Id", p.session or ""), ("MCP-Protocol-Version", header)]
                response = await exchange(running.port, request(batch, standard(running.port) + fields))
                assert response.status == 400


# Messages that break the protocol


def tolerated(policy: SecurityPolicy | None = None) -> tuple[Server, list[str]]:
    server = Server("s", policy=policy)
    ran: list[str] = []

    @server.tool(inline=True)
    def echo(text: str) -> str:
        ran.append(text)
        return text

    return server, ran


PLAIN = json.dumps(call("echo", {"text": "last"})).encode()
TWICE = PLAIN.replace(b'"text"', b'"text": "first", "te\\u0078t"')
FURTHER = PLAIN.replace(b'"jsonrpc"', b'"trace": {"a": 1}, "jsonrpc"')


async def test_every_violation_is_told_to_the_transport() -> None:
    server, ran = tolerated()
    core = server.core()
    await core.start()
    told: list[int] = []
    said: list[bytes] = []
    line = DuplexConnection(core, said.append, principal=LOCAL, malformed=lambda: told.append(len(said)))

    def violations(data: bytes) -> int:
        before = len(told)
        line.receive(data)
        return len(told) - before

    for data in (b"{", b"[]", b"{}", TWICE, FURTHER, b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}'):
        said.clear()
        assert violations(data) == 1
        assert told[-1] == 1, "it is answered first"
    assert violations(b'{"jsonrpc":"2.0","method":"ping","extra":1}') == 1  # a notification, so without an answer
    assert violations(b'{"jsonrpc":"2.0","id":"x","result":{}}') == 1
    assert violations(b'{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"x"}}') == 1
    before = len(told)
    line.too_long()
    assert len(told) == before + 1
    for honest in (
        PLAIN,
        json.dumps(call("nothing")).encode(),
        json.dumps(call("echo", {"text": 1})).encode(),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "no/such", "params": {"_meta": meta()}}).encode(),
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}',
    ):
        assert violations(honest) == 0
    opening = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    line.receive(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}).encode())
    batch = b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":3},{"jsonrpc":"2.0"},1]'
    assert violations(batch) == 3
    assert ran == ["last"]
    line.close()
    await core.close()


@pytest.mark.parametrize("most", [3, 20])
async def test_too_many_malformed_messages_end_the_connection_over_http(most: int) -> None:
    server, _ = tolerated(SecurityPolicy(limits=Limits(malformed_per_minute=most)))
    async with serving(server) as running, connected(running.port) as wire:

        async def status(data: bytes, **changes: str | None) -> int:
            await wire.send(request(data, changed(fields, **changes)))
            return (await wire.response()).status

        fields = standard(running.port)
        fields += [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")]
        bad: list[tuple[bytes, dict[str, str | None]]] = [(b"{", {}), (FURTHER, {}), (PLAIN, {"Mcp_Name": "other"})]
        for number in range(most):
            data, changes = bad[number % 3]
            assert await status(data, **changes) == 400
            assert await status(PLAIN) == 200
        assert await status(b"{") == 400
        assert await wire.ended() == b""
        assert (await exchange(running.port, request(PLAIN, fields))).status == 200


@pytest.mark.parametrize("most", [3, 20])
async def test_too_many_malformed_messages_end_the_connection_of_a_session(most: int) -> None:
    holding = Holding(Limits(malformed_per_minute=most))
    async with serving(holding.server) as running, connected(running.port) as wire:
        p = await handshake(running.port)
        stray = {"jsonrpc": "2.0", "id": "1-00112233", "result": {}}

        async def status(message: Any) -> int:
            await wire.send(p.encode(message))
            return (await wire.response()).status

        again = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        for number in range(most):
            assert await status(stray) == 202 if number % 2 else await status(again) == 200
        assert await status({"jsonrpc": "2.0", "id": 1, "method": "ping"}) == 200
        assert await status(stray) == 202
        assert await wire.ended() == b""
        assert await ping(p) == 200


@pytest.mark.parametrize("most", [3, 20])
async def test_too_many_malformed_messages_end_an_event_stream_of_2024(most: int) -> None:
    async with old_stream(Holding(Limits(malformed_per_minute=most)).server) as old:
        for _ in range(most):
            assert await old.post(b"{") == 202
            assert json.loads((await old.wire.event())["data"])["error"]["code"] == -32700
        assert await old.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}') == 202
        assert json.loads((await old.wire.event())["data"])["result"] == {}
        assert await old.post(b"{") == 202
        assert json.loads((await old.wire.event())["data"])["error"]["code"] == -32700
        assert await last_chunk(old.wire) == b""
        assert await old.post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}') == 404


async def last_chunk(wire: Wire) -> bytes:
    return await asyncio.wait_for(wire.chunk(), 3)


async def test_a_preflight_opens_no_event_stream() -> None:
    page = "https://page.example"
    server = Server("s", policy=SecurityPolicy(allowed_origins=(page,)), http_sse=True)
    async with serving(server) as running:
        for target in ("/sse", "/messages/?sessionId=x", "/mcp"):
            fields = [("Host", f"127.0.0.1:{running.port}"), ("Origin", page), ("Access-Control-Request-Method", "GET")]
            data = request(b"", fields, method="OPTIONS", target=target, length=False)
            response = await exchange(running.port, data)
            assert (response.status, response.get("content-type"), response.body) == (204, None, b"")
