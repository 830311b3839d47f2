"""The client over WebSocket: TLS, addresses, options and compression."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client
from garrison.policy import SecurityPolicy
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import WebSocketConfig
from garrison.transports.tls import server_context
from tests.support.certs import Authority

from .raw_websocket import Raw, call, echo, quick, raw_server


async def test_wss_believes_the_authority_it_was_given_and_no_other(tmp_path: Path):
    ours, theirs = Authority(tmp_path), Authority(tmp_path)
    leaf = ours.leaf()
    context = server_context(TlsServerConfig(certificate=leaf.certificate, key=leaf.key))
    async with raw_server(echo, ssl=context) as peer:
        url = f"wss://localhost:{peer.port}/mcp"
        good = TlsClientConfig(ca=ours.pem, pins=(leaf.pin,))
        async with Client(url, token="t", tls=good) as client:
            assert await call(client) == "ok"
        async with Client(WebSocketConfig(url, tls=good)) as client:
            assert await call(client) == "ok"
        for tls, words in (
            (TlsClientConfig(ca=theirs.pem), "TlsClientConfig"),
            (None, "TlsClientConfig"),
            (TlsClientConfig(ca=ours.pem, pins=(theirs.leaf().pin,)), "pins"),
        ):
            with pytest.raises(e.ConnectionFailed, match=words):
                await Client(url, token="t", tls=tls).connect()
        assert len(peer.connections) == 2, "nothing was said to a server that was not believed"
        with pytest.raises(e.ConnectionFailed):
            await Client(peer.url, policy=quick({"connect": 1.0})).connect()  # no TLS spoken to a TLS port


async def test_a_server_that_wants_a_certificate_gets_the_one_that_was_given(tmp_path: Path):
    authority = Authority(tmp_path)
    leaf, mine = authority.leaf(), authority.leaf(("agent@example.com",), client=True)
    context = server_context(TlsServerConfig(certificate=leaf.certificate, key=leaf.key, client_ca=authority.pem))
    async with raw_server(echo, ssl=context) as peer:
        url = f"wss://localhost:{peer.port}/mcp"
        tls = TlsClientConfig(ca=authority.pem, certificate=mine.certificate, key=mine.key)
        async with Client(url, tls=tls) as client:
            assert await call(client) == "ok"
        with pytest.raises(e.ConnectionFailed, match="may want a client certificate"):
            await Client(url, tls=TlsClientConfig(ca=authority.pem)).connect()

    def serve(listener: socket.socket) -> None:
        """A server that sends the alert, which the one above does not."""
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as secured:
            with contextlib.suppress(ssl.SSLError):
                secured.do_handshake()
            time.sleep(0.2)  # the alert would be lost if the socket were closed on what was not read

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = asyncio.get_running_loop().run_in_executor(None, serve, listener)
        with pytest.raises(e.ConnectionFailed, match="the server wants a client certificate"):
            await Client(
                f"wss://localhost:{listener.getsockname()[1]}/", tls=TlsClientConfig(ca=authority.pem)
            ).connect()
        await thread


# Addresses, options, compression.


@pytest.mark.attack("ATK-049")
async def test_plain_ws_goes_to_this_machine_or_to_hosts_with_a_reason(caplog: pytest.LogCaptureFixture):
    async with raw_server(echo) as peer:
        url = f"ws://0.0.0.0:{peer.port}/mcp"  # not loopback by its name, but it gets there
        with pytest.raises(e.ConnectionFailed, match="allow_insecure_http_hosts"):
            await Client(url, token="x").connect()
        assert not peer.connections
        policy = SecurityPolicy(allow_insecure_http_hosts={"0.0.0.0": "a lab without TLS"})
        async with Client(url, policy=policy) as client:
            assert await call(client) == "ok"
    assert "policy.relaxed" in caplog.text and "a lab without TLS" in caplog.text


async def test_the_configuration_object_is_a_target():
    async def script(raw: Raw) -> None:
        raw.write(raw.switch(protocol="mcp.v2"))
        while True:
            message = await raw.message()
            raw.text(message, message["params"]["arguments"]["x"] * 2)

    config = WebSocketConfig("", subprotocol="mcp.v2", token="t1", headers={"X-A": "1"}, max_message_size=3_000)
    async with raw_server(script) as peer:
        target = WebSocketConfig(
            peer.url, subprotocol="mcp.v2", token=config.token, headers=config.headers, max_message_size=3_000
        )
        async with Client(target) as client:
            assert len(await call(client, "x" * 1_400)) == 2_800
            with pytest.raises(e.ProtocolViolation, match="larger than 3000"):
                await call(client, "x" * 1_500)
            with pytest.raises(e.ClientError, match="larger than 3000 bytes and was not sent"):
                await call(client, "x" * 2_990)
            assert await call(client, "x") == "xx" and len(peer.connections) == 2
        raw = peer.connections[0]
        assert raw.headers["authorization"] == "Bearer t1" and raw.headers["x-a"] == "1"
        assert raw.headers["sec-websocket-protocol"] == "mcp.v2"


async def _library(handler: Callable[[Any], Awaitable[None]], compression: str | None, test: Any) -> None:
    from websockets.asyncio.server import serve

    async with serve(handler, "127.0.0.1", 0, subprotocols=["mcp"], compression=compression, max_size=2**25) as server:  # type: ignore[list-item]
        await test(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/")


async def _answer(connection: Any, times: int = 1) -> None:
    async for text in connection:
        message = json.loads(text)
        if message["method"] == "server/discover":
            value: dict[str, Any] = {
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "private",
            }
        else:
            value = {"content": [{"type": "text", "text": message["params"]["arguments"]["x"] * times}]}
        value["resultType"] = "complete"
        await connection.send(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value}))


async def test_with_the_server_of_another_project():
    async def test(url: str) -> None:
        async with Client(url) as client:
            answers = await asyncio.gather(*(call(client, str(i)) for i in range(100)))
            assert answers == [str(i) for i in range(100)]
            assert await call(client, "é" * 2_000_000) == "é" * 2_000_000

    await _library(_answer, None, test)


async def test_compression_only_where_it_is_asked_for():
    agreed: list[int] = []

    async def handler(connection: Any) -> None:
        agreed.append(len(connection.protocol.extensions))
        await _answer(connection)

    async def test(url: str) -> None:
        async with Client(url) as client:
            assert await call(client, "a" * 1_000) == "a" * 1_000
        async with Client(WebSocketConfig(url, compression=True)) as client:
            assert await call(client, "a" * 100_000) == "a" * 100_000

    await _library(handler, "deflate", test)
    assert agreed == [0, 1]


async def test_what_is_inflated_counts():
    async def handler(connection: Any) -> None:
        with contextlib.suppress(Exception):  # the library tells this handler that the client has left
            await _answer(connection, 2**20)

    async def test(url: str) -> None:
        async with Client(WebSocketConfig(url, compression=True, max_message_size=2**20)) as client:
            with pytest.raises(e.ProtocolViolation, match=str(2**20)):
                await call(client, "x")
        async with Client(WebSocketConfig(url, compression=True, max_message_size=2**21)) as client:
            assert len(await call(client, "x")) == 2**20

    await _library(handler, "deflate", test)
