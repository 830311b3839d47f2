"""What stays open ends with the token that it stands on: when that expires, and soon after it is taken back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.auth.resource import Certificates, Grant
from garrison.policy.principal import Principal
from garrison.policy.tls import TlsServerConfig
from garrison.policy.transports import WebSocketConfig
from garrison.transports.http.asgi_websocket import AsgiSocket
from garrison.transports.websocket import WebSocketShell
from tests.auth.resource.issuer import verifier
from tests.support.certs import Authority
from tests.support.mcp import call, modern, until
from tests.support.protected import (
    ALICE,
    FACES,
    Asked,
    active,
    asking,
    bearer,
    facing,
    guarded,
    handshake,
    knock,
    let_in,
    message,
    protection,
    speaking,
    use,
)
from tests.support.raw_http import Wire, connected, request, serving
from tests.support.websocket import CLOSE, WebSocketWire, frame

LISTEN = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
HOSTS = ("http", "asgi")
"""Waiting is most of these tests: they are made at both at the same time."""
Ended = Callable[[], Any]


async def listening(stack: AsyncExitStack, port: int, authorization: str) -> Wire:
    """A `subscriptions/listen` stream."""
    wire = await stack.enter_async_context(connected(port))
    await wire.send(message(port, LISTEN, authorization))
    assert (await wire.head()).status == 200
    assert "acknowledged" in (await wire.event())["data"]
    return wire


async def session_stream(stack: AsyncExitStack, port: int, authorization: str) -> Wire:
    """The GET stream of a session."""
    line = await stack.enter_async_context(speaking("session", port, authorization))
    wire = await stack.enter_async_context(connected(port))
    lines = [("Host", f"127.0.0.1:{port}"), ("Accept", "text/event-stream"), ("Authorization", authorization)]
    lines += [("Mcp-Session-Id", line.session or ""), ("MCP-Protocol-Version", "2025-11-25")]
    await wire.send(request(b"", lines, method="GET", length=False))
    assert (await wire.head()).status == 200
    return wire


async def sse_stream(stack: AsyncExitStack, port: int, authorization: str) -> Wire:
    """The stream of HTTP+SSE."""
    wire = await stack.enter_async_context(connected(port))
    lines = [("Host", f"127.0.0.1:{port}"), ("Accept", "text/event-stream"), ("Authorization", authorization)]
    await wire.send(request(b"", lines, method="GET", target="/sse", length=False))
    assert (await wire.head()).status == 200
    return wire


async def socket(stack: AsyncExitStack, port: int, authorization: str) -> WebSocketWire:
    """A WebSocket on which nothing is said."""
    wire = await stack.enter_async_context(connected(port))
    await wire.send(handshake(port, authorization))
    assert (await wire.head()).status == 101
    return WebSocketWire(wire.reader, wire.writer)


KINDS: dict[str, Callable[[AsyncExitStack, int, str], Any]] = {
    "listen": listening,
    "session": session_stream,
    "sse": sse_stream,
    "websocket": socket,
}


@asynccontextmanager
async def everything(host: str, server: Server) -> AsyncIterator[int]:
    """A listener where all of these can be opened."""
    face = "websocket" if host == "http" else "asgi-websocket"
    async with facing(face, server, websocket=WebSocketConfig()) as port:
        yield port


async def ends(wire: Wire | WebSocketWire, seconds: float) -> float | None:
    """Seconds until the other side ends it, for a WebSocket by the code for that; None: it does not."""
    began = time.perf_counter()
    try:
        if isinstance(wire, WebSocketWire):
            closed = await wire.frame(seconds)
            assert (closed.opcode, closed.code) == (CLOSE, 1008)
        else:
            await wire.ended(seconds)
    except TimeoutError:
        return None
    return time.perf_counter() - began


async def streams_end_when_the_token_does_and_when_it_is_revoked(host: str) -> None:
    gone: set[str] = set()

    def revoked(principal: Principal, token_id: str | None) -> bool:
        return (token_id or "") in gone

    auth = protection(verifiers=[verifier(leeway=0)], revoked=revoked, recheck=1.0)
    async with everything(host, guarded(auth, http_sse=True)) as port, AsyncExitStack() as stack:
        senders = {
            "expires": bearer(subject="alice", jti="a", exp=time.time() + 1.2),
            "revoked": bearer(subject="carol", jti="c"),
            "stays": bearer(subject="bob", jti="b"),
        }
        wires = {(who, kind): await KINDS[kind](stack, port, given) for who, given in senders.items() for kind in KINDS}
        gone.add("c")
        found = dict(zip(wires, await asyncio.gather(*(ends(wire, 2.9) for wire in wires.values())), strict=True))
        for (who, kind), seconds in found.items():
            if who == "stays":
                assert seconds is None, (who, kind)
            else:
                assert seconds is not None and seconds < 2.6, (who, kind, seconds)
        for who, given in senders.items():
            answer = await knock("http", port, given)
            assert answer.status == (200 if who == "stays" else 401), who


@pytest.mark.attack("ATK-184", "ATK-074", transports=FACES)
async def test_streams_end_when_the_token_does_and_when_it_is_revoked() -> None:
    await asyncio.gather(*map(streams_end_when_the_token_does_and_when_it_is_revoked, HOSTS))


async def streams_end_when_the_authorization_server_says_so(host: str) -> None:
    fetch = Asked({name: active(name) for name in ("alice", "bob", "carol", "dora")})
    auth = protection(verifiers=[asking(fetch)], recheck=1.0)
    async with everything(host, guarded(auth, http_sse=True)) as port, AsyncExitStack() as stack:
        wires = {
            (who, kind): await KINDS[kind](stack, port, f"Bearer {who}") for who in fetch.answers for kind in KINDS
        }
        fetch.answers["alice"] = {"active": False}
        fetch.answers["carol"] = OSError("it cannot be asked")
        fetch.answers["dora"] = active("dora", scope="")  # it allows less than it did
        asked = len(fetch.asked)
        found = dict(zip(wires, await asyncio.gather(*(ends(wire, 2.6) for wire in wires.values())), strict=True))
        for (who, kind), seconds in found.items():
            assert (seconds is None) == (who == "bob"), (who, kind, seconds)
        assert len(fetch.asked) - asked <= 12  # once for all that stand on one token, not once for each
        assert (await knock("http", port, "Bearer alice")).status == 401
        assert (await knock("http", port, "Bearer bob")).status == 200
        assert (await use(port, "read", as_="Bearer dora")).status == 403


@pytest.mark.attack("ATK-184", transports=FACES)
async def test_streams_end_when_the_authorization_server_says_so() -> None:
    await asyncio.gather(*map(streams_end_when_the_authorization_server_says_so, HOSTS))


@pytest.mark.attack("ATK-074")
@pytest.mark.parametrize("face", ["websocket", "asgi-websocket"])
async def test_a_message_on_a_credential_that_ended_is_not_served(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything has looked at it."""
    monkeypatch.setattr(WebSocketShell, "_look", lambda shell: setattr(shell, "_ask_at", shell._loop.time() + 60))
    monkeypatch.setattr(AsgiSocket, "_look", lambda socket: None)
    ran: list[str] = []
    auth = protection(verifiers=[verifier(leeway=0)])
    async with facing(face, guarded(auth, ran)) as port, AsyncExitStack() as stack:
        web = await socket(stack, port, bearer(exp=time.time() + 0.5))
        assert (await web.ask(call("whoami")))["result"]
        await asyncio.sleep(0.52)
        await web.send(frame(json.dumps(call("whoami", id=2))))
        closed = await web.frame()
        assert (closed.opcode, closed.code) == (CLOSE, 1008)
        assert ran == ["whoami"]
        assert let_in(await knock(face, port, ALICE))


async def a_call_after_the_revocation_is_refused(face: str) -> None:
    gone: list[str] = []
    ran: list[str] = []

    async def revoked(principal: Principal, token_id: str | None) -> bool:
        await asyncio.sleep(0)
        return principal.subject in gone

    auth = protection(revoked=revoked, recheck=1.0)
    async with facing(face, guarded(auth, ran)) as port, speaking(face, port, ALICE) as line:
        assert (await line.use("whoami"))["structuredContent"]["subject"] == "alice"
        gone.append("alice")
        await asyncio.sleep(1.05)
        if line.socket is None:
            await line.use("whoami")
            assert line.last is not None and line.last.status == 401
        else:
            closed = await line.socket.frame()
            assert (closed.opcode, closed.code) == (CLOSE, 1008)
        assert ran == ["whoami"]
        answer = await knock(face.replace("session", "http"), port, bearer(subject="bob"))
        assert let_in(answer)


@pytest.mark.attack("ATK-184", transports=FACES)
async def test_a_call_after_the_revocation_is_refused() -> None:
    await asyncio.gather(*map(a_call_after_the_revocation_is_refused, (*FACES, "session")))


async def test_the_hook_is_asked_about_each_token_once_in_a_while() -> None:
    asked: list[tuple[str, str | None]] = []

    def revoked(principal: Principal, token_id: str | None) -> bool:
        asked.append((principal.subject, token_id))
        return False

    auth = protection(revoked=revoked, recheck=1.0)
    async with serving(guarded(auth), token=None) as running:
        mine = bearer(jti="mine")
        for _ in range(3):
            assert (await use(running.port, "whoami", as_=mine)).status == 200
        assert asked == [("alice", "mine")]
        await asyncio.sleep(1.05)
        assert (await use(running.port, "whoami", as_=mine)).status == 200
        assert asked == [("alice", "mine")] * 2


async def a_hook_that_fails_later_ends_streams_and_the_listener_goes_on(host: str) -> None:
    """What looks after the streams of all is not stopped by what fails for one."""
    failing: list[str] = []

    def revoked(principal: Principal, token_id: str | None) -> Any:
        if principal.subject in failing:
            raise ZeroDivisionError
        return False

    class Failing:
        issuer = None

        def __init__(self) -> None:
            self._real = verifier()

        def accepts(self, token: str) -> bool:
            return True

        def verify(self, token: str, now: float) -> Any:
            if "verify" in failing:
                raise KeyError(token)
            return self._real.verify(token, now)

    auth = protection(verifiers=[Failing()], revoked=revoked, recheck=1.0)
    async with everything(host, guarded(auth)) as port, AsyncExitStack() as stack:
        wires = [await KINDS[kind](stack, port, bearer(subject="carol")) for kind in ("listen", "websocket")]
        failing.append("carol")
        assert None not in await asyncio.gather(*(ends(wire, 2.6) for wire in wires))
        wires = [await KINDS[kind](stack, port, bearer(subject="bob")) for kind in ("listen", "websocket")]
        failing.append("verify")
        assert None not in await asyncio.gather(*(ends(wire, 2.6) for wire in wires))
        assert (await knock("http", port, bearer(subject="bob", jti="2"))).status == 503
        failing.clear()
        assert (await knock("http", port, bearer(subject="bob", jti="2"))).status == 200


async def test_a_hook_that_fails_later_ends_streams_and_the_listener_goes_on() -> None:
    await asyncio.gather(*map(a_hook_that_fails_later_ends_streams_and_the_listener_goes_on, HOSTS))


async def test_a_stream_ends_with_the_certificate_that_it_stands_on_or_its_listing(tmp_path: Any) -> None:
    import ssl

    authority = Authority(tmp_path)
    leaf = authority.leaf()
    short = authority.leaf(("alice.example",), client=True, days=(-1, 2.5 / 86400))
    tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key, client_ca=authority.pem)
    names = ("alice", "bob", "carol")
    listed = Certificates({f"{name}.example": Grant(name, ["notes:read"]) for name in names})
    auth = protection(certificates=listed)
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.load_cert_chain(short.certificate, short.key)
    async with serving(guarded(auth), token=None, tls=tls) as running:
        async with connected(running.port, ssl=context) as wire:
            await wire.send(message(running.port, LISTEN, None))
            assert (await wire.head()).status == 200
            seconds = await ends(wire, 5.0)
            assert seconds is not None and seconds < 4.0
        for name in ("bob.example", "carol.example"):
            lasting = authority.leaf((name,), client=True)
            context = ssl.create_default_context(cafile=str(authority.pem))
            context.load_cert_chain(lasting.certificate, lasting.key)
            async with connected(running.port, ssl=context) as wire:
                await wire.send(message(running.port, LISTEN, None))
                assert (await wire.head()).status == 200
                if name == "bob.example":
                    listed.revoke(name)
                assert (await ends(wire, 1.7) is None) == (name != "bob.example")


async def test_a_call_under_way_keeps_who_began_it() -> None:
    """A request that was let in is answered; the next one is looked at anew."""
    ran: list[str] = []
    server = Server(
        "slow", auth=protection(verifiers=[verifier(leeway=0)]), policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
    )
    begun = asyncio.Event()

    @server.tool(public=True)
    async def slow(ctx: Context) -> str:
        begun.set()
        await asyncio.sleep(0.7)
        ran.append(ctx.principal.subject)
        return ctx.principal.subject

    async with serving(server, token=None) as running, connected(running.port) as wire:
        mine = bearer(exp=time.time() + 0.5)
        await wire.send(message(running.port, call("slow"), mine))
        await begun.wait()
        assert (await wire.response()).status == 200
        await wire.send(message(running.port, call("slow"), mine))
        assert (await wire.response()).status == 401
        await until(lambda: ran == ["alice"])
