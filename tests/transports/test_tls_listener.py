"""TLS on the live listener: who gets in, what is known of them, renewal while serving, peers that shake no hands."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.errors import ClientError, ConnectionFailed
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import WebSocketConfig
from tests.support.certs import Authority, Leaf
from tests.support.mcp import call, modern, modern_fields, post, until
from tests.support.raw_http import TOKEN, Wire, chunked, connected, request, serving, standard


def make(limits: Limits | None = None, **timeouts: float) -> Server:
    policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}))
    server = Server("tls", policy=policy)

    @server.tool(inline=True)
    def who(ctx: Context) -> str:
        return str(ctx.principal)

    @server.tool()
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slow"

    return server


def config(leaf: Leaf, **more: object) -> TlsServerConfig:
    return TlsServerConfig(certificate=leaf.certificate, key=leaf.key, **more)  # type: ignore[arg-type]


def trusting(authority: Authority, leaf: Leaf | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.pem))
    if leaf is not None:
        context.load_cert_chain(leaf.certificate, leaf.key)
    return context


async def test_every_kind_of_client_gets_in_and_no_byte_travels_in_the_clear(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    believe = TlsClientConfig(ca=authority.pem)
    async with serving(make(), tls=config(authority.leaf()), websocket=WebSocketConfig()) as running:
        assert running.url.startswith("https://")
        assert running.websocket_url.startswith("wss://")
        for url in (running.url, running.websocket_url):
            for era in ("modern", "legacy"):
                async with Client(url, token=TOKEN, tls=believe, era=era) as client:
                    assert (await client.call_tool("who")).structured_content == {"result": "token"}
            with pytest.raises(ConnectionFailed, match="certificate"):
                async with Client(url, token=TOKEN):
                    pass
        async with connected(running.port) as plain:
            await plain.send(post(running.port, call("who")))
            assert b"HTTP/1.1 2" not in await plain.ended()


async def test_a_listener_is_known_by_its_https_names_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(make(), tls=config(authority.leaf())) as running:
        port = running.port
        for origin, target, status in (
            (f"https://127.0.0.1:{port}", "/mcp", 200),
            (f"http://127.0.0.1:{port}", "/mcp", 403),
            (None, f"https://127.0.0.1:{port}/mcp", 200),
            (None, f"https://evil.example:{port}/mcp", 421),
            (None, f"http://127.0.0.1:{port}/mcp", 404),
        ):
            async with connected(port, ssl=trusting(authority)) as wire:
                data = post(port, call("who"), origin=origin)
                await wire.send(data.replace(b"POST /mcp", f"POST {target}".encode()))
                assert (await wire.response()).status == status, (origin, target)


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_client_certificate_is_asked_for_and_tells_who_calls(tmp_path: Path, transport: str) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other", "Other")
    good = authority.leaf(("spiffe://example/agent",), client=True)
    tls = config(authority.leaf(), client_ca=authority.pem)
    async with serving(make(), tls=tls, token=None, websocket=WebSocketConfig()) as running:
        assert running.token is None
        url = running.url if transport == "http" else running.websocket_url
        shown = TlsClientConfig(ca=authority.pem, certificate=good.certificate, key=good.key)
        for era in ("modern", "legacy"):
            async with Client(url, tls=shown, era=era) as client:
                result = await client.call_tool("who")
                assert result.structured_content == {"result": "certificate:spiffe://example/agent"}
        strange = other.leaf(("spiffe://example/agent",), client=True)
        for bad in (
            TlsClientConfig(ca=authority.pem),
            TlsClientConfig(ca=authority.pem, certificate=strange.certificate, key=strange.key),
        ):
            with pytest.raises(ClientError):
                async with Client(url, tls=bad, timeout=3):
                    pass


async def test_a_session_of_one_certificate_is_unknown_to_another(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    names = [authority.leaf((name,), client=True) for name in ("alice.example", "bob.example")]
    async with serving(make(), tls=config(authority.leaf(), client_ca=authority.pem), token=None) as running:
        port = running.port
        alice, bob = (trusting(authority, leaf) for leaf in names)
        async with connected(port, ssl=alice) as wire:
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
            await wire.send(request(json.dumps(hello).encode(), standard(port)))
            session = (await wire.response()).get("mcp-session-id")
        assert session
        body = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        data = request(
            json.dumps(body).encode(),
            [*standard(port), ("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-11-25")],
        )
        for context, status in ((alice, 200), (bob, 404), (alice, 200)):
            async with connected(port, ssl=context) as wire:
                await wire.send(data)
                assert (await wire.response()).status == status


async def test_a_certificate_is_renewed_under_load_and_no_request_fails(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    leaf = authority.leaf()
    believe = TlsClientConfig(ca=authority.pem)
    server = make(Limits(message_rate=10_000))
    async with serving(server, tls=config(leaf, reload=0.01)) as running:
        port, done, failed, stop = running.port, 0, 0, False

        async def load() -> None:
            nonlocal done, failed
            while not stop:
                try:
                    async with Client(running.url, token=TOKEN, tls=believe, era="modern") as client:
                        for _ in range(20):
                            await client.call_tool("who")
                            done += 1
                except Exception:
                    failed += 1

        async def serial() -> int:
            async with connected(port, ssl=trusting(authority)) as wire:
                found = wire.writer.get_extra_info("ssl_object").getpeercert()
                return int(found["serialNumber"], 16)

        workers = [asyncio.create_task(load()) for _ in range(4)]
        seen = {await serial()}
        for _ in range(2):
            leaf.replace(authority.leaf())
            await asyncio.sleep(0.7)
            seen.add(await serial())
        stop = True
        await asyncio.gather(*workers)
    assert len(seen) == 3
    assert failed == 0
    assert done > 100


async def test_who_never_shakes_hands_is_given_up_and_keeps_nobody_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = make(Limits(connections_per_address=10), tls=0.5)
    async with serving(server, tls=config(authority.leaf())) as running:
        port = running.port
        started = time.monotonic()
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        await until(lambda: running.core.floods.count == 10)  # half-open connections have places like any other
        async with connected(port, ssl=trusting(authority)) as wire:
            await wire.send(post(port, call("who")))
            assert (await wire.response()).status == 200
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        assert time.monotonic() - started < 3
        await until(lambda: running.core.floods.count == 0)


async def test_what_comes_with_the_handshake_is_not_lost(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(make(), tls=config(authority.leaf())) as running:
        port = running.port

        def talk() -> bytes:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        incoming.write(sock.recv(65536))
                tls.write(post(port, call("who")))
                sock.sendall(outgoing.read())  # the end of the handshake and a request, in one segment
                answer = b""
                while b"}" not in answer:
                    incoming.write(sock.recv(65536))
                    try:
                        answer += tls.read(65536)
                    except ssl.SSLWantReadError:
                        continue
                return answer

        for _ in range(5):
            assert b"200 OK" in await asyncio.to_thread(talk)


async def test_the_limits_hold_inside_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = make(Limits(message_bytes=100_000), head=0.3)
    async with serving(server, tls=config(authority.leaf())) as running:
        port = running.port
        async with connected(port, ssl=trusting(authority)) as wire:
            await wire.send(chunked(b"", modern_fields(port, call("who")))[:-5])
            for _ in range(4):
                wire.writer.write(b"%x\r\n%b\r\n" % (65536, b"x" * 65536))
            assert (await wire.response()).status == 413
        async with connected(port, ssl=trusting(authority)) as wire:
            await wire.send(b"POST /mcp HTTP/1.1\r\n")
            assert (await wire.response()).status == 408


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_the_oldest_version_is_a_setting(tmp_path: Path, version: str) -> None:
    authority = Authority(tmp_path)
    async with serving(make(), tls=config(authority.leaf(), minimum=version)) as running:
        context = trusting(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if version == "1.3":
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connected(running.port, ssl=context):
                    pass
        else:
            async with connected(running.port, ssl=context) as wire:
                await wire.send(post(running.port, call("who")))
                assert (await wire.response()).status == 200


async def test_closing_ends_a_handshake_that_is_under_way(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    running = make().http(port=0, token=TOKEN, tls=config(authority.leaf()))
    await running.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    await until(lambda: running.core.floods.count == 1)
    await running.close()
    assert await Wire(reader, writer).ended() == b""
    writer.close()


@pytest.mark.attack("ATK-074")
async def test_what_a_certificate_opened_ends_when_it_does(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    lasting = authority.leaf(("bob.example",), client=True)
    tls = config(authority.leaf(), client_ca=authority.pem)
    async with serving(make(), tls=tls, token=None, websocket=WebSocketConfig()) as running:
        port = running.port
        brief = authority.leaf(("alice.example",), client=True, days=(-1, 2.5 / 86_400))

        def shown(leaf: Leaf) -> TlsClientConfig:
            return TlsClientConfig(ca=authority.pem, certificate=leaf.certificate, key=leaf.key)

        alice = Client(running.websocket_url, tls=shown(brief), era="modern", timeout=5)
        bob = Client(running.websocket_url, tls=shown(lasting), era="modern", timeout=5)
        async with alice, bob, connected(port, ssl=trusting(authority, brief)) as kept:
            for client in (alice, bob):
                await client.call_tool("who")
            await kept.send(post(port, call("who")))
            assert (await kept.response()).status == 200
            async with connected(port, ssl=trusting(authority, brief)) as stream:
                listen = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
                await stream.send(post(port, listen))
                assert (await stream.head()).get("content-type") == "text/event-stream"
                await stream.chunk()
                assert b"data:" not in await stream.ended()
            await kept.send(post(port, call("who")))
            assert (await kept.response()).status == 401
            with pytest.raises(ClientError):
                await alice.call_tool("who")
            await bob.call_tool("who")


@pytest.mark.attack("ATK-036")
async def test_who_has_to_make_room_before_the_handshake_began_is_closed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(make(Limits(connections=4)), tls=config(authority.leaf())) as running:
        loop = asyncio.get_running_loop()
        peers = [socket.socket() for _ in range(20)]
        try:
            for peer in peers:  # all of them wait when the listener looks, and are accepted at once
                peer.connect(("127.0.0.1", running.port))
                peer.setblocking(False)
            await until(lambda: len(running.listener.handshakes) == 4 and running.core.floods.count == 4)
            async with asyncio.timeout(3):
                ended = await asyncio.gather(*(loop.sock_recv(peer, 1) for peer in peers[:16]), return_exceptions=True)
            assert all(each == b"" or isinstance(each, ConnectionError) for each in ended)
            async with connected(running.port, ssl=trusting(authority), server_hostname="127.0.0.1") as wire:
                await wire.send(post(running.port, call("who")))
                assert (await wire.response()).status == 200
        finally:
            for peer in peers:
                peer.close()
