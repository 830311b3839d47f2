"""The HTTP listener against peers that send ahead: everybody has a turn, and nothing that was sent is lost."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from garrison import Limits, TlsServerConfig, WebSocketConfig
from tests.support.certs import Authority
from tests.support.edge import Counting, alive, said
from tests.support.mcp import call, modern_fields, post
from tests.support.raw_http import TOKEN, chunked, connected, serving
from tests.support.websocket import WebSocketWire, message

PLENTY = Limits(message_rate=100_000, message_burst=100_000)


async def test_who_sends_ahead_does_not_keep_the_others_waiting() -> None:
    counting = Counting(PLENTY)
    async with serving(counting.server) as running:
        port = running.port
        flood = b"".join(post(port, call("echo", {"text": "flood"}, n)) for n in range(150))
        address = ("127.0.0.1", port)
        with socket.create_connection(address) as first, socket.create_connection(address) as other:
            await alive(port)  # both connections are accepted
            counting.ran.clear()
            first.sendall(flood)
            other.sendall(post(port, call("echo", {"text": "other"})))
            async with asyncio.timeout(10):
                while len(counting.ran) < 151:
                    await asyncio.sleep(0)
        assert counting.ran.index("other") < 20
        assert counting.ran.count("flood") == 150


@pytest.mark.parametrize("size", [10, 3000, 70_000])
async def test_what_was_sent_ahead_of_an_end_is_answered(size: int) -> None:
    counting = Counting(PLENTY)
    async with serving(counting.server) as running:
        port = running.port
        count = 40 if size < 10_000 else 4
        async with connected(port) as wire:
            wire.writer.write(b"".join(post(port, call("echo", {"text": "x" * size}, n)) for n in range(count)))
            wire.writer.write_eof()
            assert [(await wire.response()).json["id"] for _ in range(count)] == list(range(count))
            assert await wire.ended() == b""


async def test_half_a_request_ahead_of_an_end_is_none() -> None:
    counting = Counting(PLENTY)
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire:
            data = b"".join(post(port, call("echo", {"text": "x" * 500}, n)) for n in range(10))
            wire.writer.write(data[:-10])
            wire.writer.write_eof()
            assert [(await wire.response()).json["id"] for _ in range(9)] == list(range(9))
            assert await wire.ended(2) == b""
        assert len(counting.ran) == 9


async def test_requests_of_any_length_sent_at_once_are_answered_in_order() -> None:
    """Heads, bodies and chunks that end before, at and after the places where the reading stops."""
    counting = Counting(PLENTY)
    chance = random.Random(7)
    async with serving(counting.server) as running:
        port = running.port
        sizes = [*range(1500, 2500, 45), *(chance.randrange(1, 9000) for _ in range(60)), 200_000, 5]
        data: list[bytes] = []
        for number, size in enumerate(sizes):
            message = call("echo", {"text": "é" * size}, number)
            request = post(port, message)
            if number % 3 == 1:
                request = chunked(
                    json.dumps(message).encode(), modern_fields(port, message), chance.randrange(1000, 5000)
                )
            elif number % 3 == 2:
                request = request.replace(b"\r\n", b"\r\nX-Long: " + b"y" * chance.randrange(1, 4000) + b"\r\n", 1)
            data.append(request)
        async with connected(port) as wire:
            sending = asyncio.create_task(wire.send(b"".join(data)))
            for number, size in enumerate(sizes):
                response = await wire.response()
                assert response.json["id"] == number
                assert len(said(response)) == size
            await sending


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_request_to_upgrade_may_come_after_another_and_before_its_frames(size: int) -> None:
    counting = Counting(PLENTY)
    async with serving(counting.server, websocket=WebSocketConfig()) as running:
        port = running.port
        fields = [
            ("Host", f"127.0.0.1:{port}"),
            ("Authorization", f"Bearer {TOKEN}"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "mcp"),
        ]
        upgrade = (
            b"GET /mcp HTTP/1.1\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in fields) + b"\r\n"
        )
        frames = b"".join(message(call("echo", {"text": "x" * size}, number)) for number in range(3))
        async with connected(port) as wire:
            await wire.send(post(port, call("slow", {"seconds": 0.05}, 1)) * 2 + upgrade + frames)
            assert [(await wire.response()).json["id"] for _ in range(2)] == [1, 1]
            assert (await wire.head()).status == 101
            spoken = WebSocketWire(wire.reader, wire.writer)
            assert [(await spoken.answer())["id"] for _ in range(3)] == [0, 1, 2]
            assert (await spoken.ask(call("echo", {"text": "after"}, 9)))["id"] == 9


@pytest.mark.parametrize("secure", [False, True])
async def test_over_tls_an_end_is_an_end(secure: bool, tmp_path: Path) -> None:
    """TLS has no half of a close here: asyncio would warn each time that one is asked for."""
    authority = Authority(tmp_path)
    leaf = authority.leaf()
    tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key) if secure else None
    believing: dict[str, Any] = {"ssl": ssl.create_default_context(cafile=authority.pem)} if secure else {}
    counting = Counting(PLENTY)
    async with serving(counting.server, tls=tls) as running:
        port = running.port
        async with connected(port, **believing) as wire:
            await wire.send(post(port, call("echo", {"text": "y"})))
            assert said(await wire.response()) == "y"
            connection: Any = next(iter(running.listener.guests))
            connection.data_received(post(port, call("echo", {"text": "x"})) * 3)
            assert connection.eof_received() is not secure
