"""`Client(url, auth=...)` beyond single requests: sessions of older servers, their streams, and WebSocket."""

from __future__ import annotations

import asyncio

import pytest

from garrison import Client, SecurityPolicy, Timeouts
from garrison.errors import AuthenticationRequired, AuthorizationFailed

from .fakes import EVENTS, Request, event, respond
from .oauth import POLICY, Person, Protected, connected, forms, said, scene, signing_in
from .raw_websocket import Raw, echo, raw_server

ACCEPTED = respond(b"", status="202 Accepted")


def older(server: Protected) -> None:
    """Makes a protected server one of 2025, with a session and a stream of GET."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.target != "/mcp":
            return await modern(request, writer)
        refusal = server.judge(request)
        if refusal is not None:
            writer.write(refusal)
        elif request.verb == "GET":
            writer.write(EVENTS)
        elif request.verb == "DELETE":
            writer.write(respond({}))
        elif request.method == "initialize":
            body = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
            message = {"jsonrpc": "2.0", "id": request.message["id"], "result": body}
            writer.write(respond(message, extra="Mcp-Session-Id: s1\r\n"))
        elif "id" not in request.message:
            writer.write(ACCEPTED)
        else:
            writer.write(respond({"jsonrpc": "2.0", "id": request.message["id"], "result": {}}))
        return None

    modern = server.fake.answer
    server.fake.answer = answer


def sent(server: Protected) -> list[tuple[str, bool]]:
    """What came to the endpoint, and whether it had a token that was good then."""
    return [(each.method or each.verb, "authorization" in each.headers) for each in server.calls]


async def test_everything_of_a_session_carries_the_token() -> None:
    async with scene() as (_, server, person):
        older(server)
        async with connected(server, signing_in(person), era="legacy") as client:
            await client.ping()
        assert sent(server)[0] == ("initialize", False)
        assert {name for name, _ in sent(server)} >= {
            "initialize",
            "notifications/initialized",
            "GET",
            "ping",
            "DELETE",
        }
        assert all(had for _, had in sent(server)[1:])


async def test_what_nobody_waits_for_renews_a_token_and_asks_no_person() -> None:
    async with scene() as (authorization, server, person):
        older(server)
        server.verdict = lambda request: (
            server.challenge("401 Unauthorized", "invalid_token")
            if request.verb == "GET" and request.headers["authorization"].endswith(server.tokens[0])
            else None
        )
        async with connected(server, signing_in(person), era="legacy") as client:
            await client.ping()
            assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]
            server.verdict = None
            server.refuse_all = True
            with pytest.raises(AuthorizationFailed):
                await client.ping()
            pages = len(person.pages)
        assert sent(server)[-1] == ("DELETE", True)
        assert len(person.pages) == pages


async def test_the_stream_of_a_session_asks_no_person() -> None:
    async with scene(refresh_tokens=False) as (_, server, person):
        older(server)
        server.verdict = lambda request: (
            server.challenge("401 Unauthorized", "invalid_token") if request.verb == "GET" else None
        )
        async with connected(server, signing_in(person), era="legacy") as client:
            await client.ping()
            await asyncio.sleep(0.2)
        assert ("GET", True) in sent(server)
        assert len(person.pages) == 1


async def test_a_notification_that_is_refused_is_sent_again_with_a_new_token() -> None:
    async with scene() as (authorization, server, person):
        older(server)
        server.verdict = lambda request: (
            server.challenge("401 Unauthorized", "invalid_token")
            if request.method == "notifications/initialized" and len(server.tokens) == 1
            else None
        )
        async with connected(server, signing_in(person), era="legacy"):
            pass
        assert [name for name, _ in sent(server)].count("notifications/initialized") == 2
        assert len(person.pages) == 1 and len(forms(authorization)) == 2


async def test_a_stream_of_events_carries_the_token() -> None:
    async with scene() as (_, server, person):

        def verdict(request: Request) -> bytes | None:
            if request.method != "tools/call" or "authorization" not in request.headers:
                return None
            body = {"content": [{"type": "text", "text": "streamed"}], "resultType": "complete"}
            return EVENTS + event({"jsonrpc": "2.0", "id": request.message["id"], "result": body}) + b"0\r\n\r\n"

        async with connected(server, signing_in(person)) as client:
            server.verdict = verdict
            assert await said(client) == "streamed"


# WebSocket


async def behind(raw: Raw, server: Protected) -> None:
    """A WebSocket endpoint that wants what the protected server wants."""
    refusal = server.judge(Request("GET", "/mcp", raw.headers, b"", 0))
    if refusal is not None:
        raw.write(refusal)
        raw.writer.close()
        return
    await echo(raw)


async def test_a_handshake_that_is_refused_is_repeated_with_a_token() -> None:
    async with scene() as (_, server, person):
        async with raw_server(lambda raw: front(raw, server)) as peer:
            server.resource = peer.url.replace("ws:", "http:")
            async with Client(peer.url, auth=signing_in(person), policy=POLICY, timeout=0.5) as client:
                assert client.whoami is not None and client.whoami.resource == server.resource
            had = ["authorization" in raw.headers for raw in peer.connections if "upgrade" in raw.headers]
        assert had == [False, True]
        assert len(person.pages) == 1


async def front(raw: Raw, server: Protected) -> None:
    """One port for the WebSocket and for the metadata of the resource."""
    if "upgrade" in raw.headers:
        await behind(raw, server)
        return
    document = {"resource": server.here, "authorization_servers": server.issuers}
    raw.write(respond(document, extra="Connection: close\r\n"))


async def test_a_handshake_says_which_scopes_it_needs() -> None:
    async with scene() as (_, server, person):
        server.need = {"": ["read"]}
        async with raw_server(lambda raw: front(raw, server)) as peer:
            server.resource = peer.url.replace("ws:", "http:")
            async with Client(peer.url, auth=signing_in(person), policy=POLICY) as client:
                assert client.whoami is not None and client.whoami.scopes == {"read"}
            server.need = {"": ["admin"]}
        assert len(person.pages) == 1


async def test_a_websocket_that_connects_again_renews_a_token_that_is_refused() -> None:
    async def once(raw: Raw) -> None:
        if "upgrade" not in raw.headers or server.judge(Request("GET", "/mcp", raw.headers, b"", 0)) is not None:
            await front(raw, server)
            return
        raw.write(raw.switch())
        raw.text(await raw.message(), "ok")
        await raw.writer.drain()
        raw.writer.close()

    async with scene() as (authorization, server, person):
        async with raw_server(once) as peer:
            server.resource = peer.url.replace("ws:", "http:")
            async with Client(peer.url, auth=signing_in(person), policy=POLICY) as client:
                assert await said(client) == "ok"
                token = [raw.headers["authorization"] for raw in peer.connections if "authorization" in raw.headers]
                server.refused.add(token[-1].partition(" ")[2])
                await asyncio.sleep(0.1)
                assert await said(client) == "ok"
        assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]
        assert len(person.pages) == 1


async def test_a_person_may_take_longer_than_a_connection() -> None:
    async with scene() as (_, server, person):
        person.gate = asyncio.Event()
        asyncio.get_running_loop().call_later(0.8, person.gate.set)
        async with raw_server(lambda raw: front(raw, server)) as peer:
            server.resource = peer.url.replace("ws:", "http:")
            policy = SecurityPolicy(timeouts=Timeouts(connect=0.4, shutdown=0.5))
            async with Client(peer.url, auth=signing_in(person), policy=policy):
                pass


async def test_a_websocket_that_refuses_every_token_ends_with_a_reason() -> None:
    async with scene() as (_, server, person):
        server.refuse_all = True
        async with raw_server(lambda raw: front(raw, server)) as peer:
            server.resource = peer.url.replace("ws:", "http:")
            client = Client(peer.url, auth=signing_in(person), policy=POLICY)
            with pytest.raises(AuthorizationFailed, match="refuses the token"):
                await client.connect()
            await client.aclose()
        assert len(person.pages) == 1


async def test_a_plain_403_of_a_websocket_is_what_it_is() -> None:
    async def refuse(raw: Raw) -> None:
        raw.write(respond({}, status="403 Forbidden", extra="Connection: close\r\n"))

    person = Person()
    async with raw_server(refuse) as peer:
        client = Client(peer.url, auth=signing_in(person), policy=POLICY)
        with pytest.raises(AuthenticationRequired):
            await client.connect()
        await client.aclose()
    assert not person.pages


# HTTP+SSE


async def test_the_oldest_transport_carries_the_token_below_the_resource() -> None:
    streams: list[asyncio.StreamWriter] = []
    async with scene() as (_, server, person):

        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if "/.well-known/" in request.target:
                return await ours(request, writer)
            if request.target == "/mcp" and request.verb == "POST":
                writer.write(server.judge(request) or respond({}, status="405 Method Not Allowed"))
            elif request.verb == "GET":
                streams.append(writer)
                assert server.judge(request) is None
                writer.write(EVENTS + chunked("event: endpoint\ndata: /mcp/messages\n\n"))
            else:
                assert server.judge(request) is None
                writer.write(ACCEPTED)
                if request.method == "initialize":
                    info = {"name": "older", "version": "1"}
                    body = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": info}
                    streams[-1].write(event({"jsonrpc": "2.0", "id": request.message["id"], "result": body}))
                    await streams[-1].drain()
            return None

        ours = server.fake.answer
        server.fake.answer = answer
        async with connected(server, signing_in(person), era="legacy") as client:
            assert client.protocol_version == "2024-11-05"
        assert server.fake.requests[-1].target == "/mcp/messages"


def chunked(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text.encode())
