"""The HTTP listener's limits and deadlines, against peers that flood and stall."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import time

import pytest

from garrison import Limits
from tests.support.edge import Counting, alive, refused, said
from tests.support.mcp import call, modern_fields, post, until
from tests.support.raw_http import Wire, chunked, connected, exchange, request, serving


async def test_keep_alive_and_its_end() -> None:
    counting = Counting(idle=0.2)
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire:
            for number in range(5):
                await wire.send(post(port, call("echo", {"text": str(number)})))
                response = await wire.response()
                assert said(response) == str(number)
                assert response.get("connection") is None
            started = time.monotonic()
            assert await wire.ended() == b""
            assert 0.1 < time.monotonic() - started < 2
        async with connected(port) as wire:
            await wire.send(post(port, call("echo", {"text": "x"}), Connection="close"))
            response = await wire.response()
            assert response.get("connection") == "close"
            assert await wire.ended() == b""


@pytest.mark.attack("ATK-026")
async def test_declared_oversize_is_refused_before_the_body() -> None:
    counting = Counting(Limits(message_bytes=1000))
    async with serving(counting.server) as running:
        port = running.port
        fields = modern_fields(port, call("echo"))
        await refused(port, request(b"", [*fields, ("Content-Length", "1001")], length=False), 413)
        await refused(port, request(b"", [*fields, ("Content-Length", "9" * 15)], length=False), 413)
        # llhttp refuses what does not fit 64 bits
        await refused(port, request(b"", [*fields, ("Content-Length", "9" * 400)], length=False), 400, 413)
        small = call("echo", {"text": "x"})
        room = 1000 - len(json.dumps(small).encode())
        exact = call("echo", {"text": "x" * (room + 1)})
        assert len(json.dumps(exact).encode()) == 1000
        assert (await exchange(port, post(port, exact))).status == 200
        over = call("echo", {"text": "x" * (room + 2)})
        assert (await exchange(port, post(port, over))).status == 413
        # A head that is known already does not go round the limit.
        async with connected(port) as wire:
            for _ in range(3):
                await wire.send(post(port, exact))
                assert (await wire.response()).status == 200
        assert (await exchange(port, post(port, over))).status == 413
        await alive(port)


@pytest.mark.attack("ATK-027")
async def test_undeclared_oversize_is_refused_while_it_is_read() -> None:
    counting = Counting(Limits(message_bytes=100_000))
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire:
            await wire.send(chunked(b"", modern_fields(port, call("echo")))[:-5])
            for _ in range(64):
                wire.writer.write(b"%x\r\n%b\r\n" % (65536, b"x" * 65536))
            response = await wire.response()  # readable though the peer is still sending
            assert response.status == 413
        assert counting.ran == []
        await alive(port)


@pytest.mark.attack("ATK-033")
@pytest.mark.parametrize("slowly", [False, True])
async def test_heads_are_bounded(slowly: bool) -> None:
    counting = Counting(Limits(header_bytes=4096, header_count=20))
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        fields = modern_fields(port, message)
        body = json.dumps(message).encode()
        room = 20 - len(fields) - 1
        many = [(f"X-{number}", "y") for number in range(room)]
        assert (await exchange(port, request(body, [*fields, *many]))).status == 200
        for data in (
            request(body, [*fields, *many, ("X-More", "y")]),
            request(body, [*fields, ("X-Long", "y" * 5000)]),
            request(body, fields, target="/mcp?" + "y" * 5000),
            request(body, fields, method="Y" * 5000),
            request(body, [*fields, ("X-" + "y" * 5000, "z")]),
        ):
            counting.ran.clear()
            async with connected(port) as wire:
                for at in range(0, len(data), 200) if slowly else (0,):
                    wire.writer.write(data[at : at + 200] if slowly else data)
                    await asyncio.sleep(0)
                assert (await wire.response()).status in (400, 431), data[:60]
            assert counting.ran == []
        async with connected(port) as wire:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                for _ in range(200):
                    await wire.send(b"GET /mcp HTTP/1.1\r\nX: " if _ == 0 else b"y" * 4096)
                assert (await wire.response()).status == 431
                raise ConnectionError
        await alive(port)


@pytest.mark.attack("ATK-034")
async def test_a_slow_head_ends_at_its_deadline() -> None:
    counting = Counting(head=0.3)
    async with serving(counting.server) as running:
        port = running.port
        data = post(port, call("echo"))
        for start in (data[:20], b""):
            async with connected(port) as wire:
                started = time.monotonic()
                await wire.send(start)
                if start:
                    sender = asyncio.create_task(_drip(wire, data[20:]))
                    assert (await wire.response()).status == 408
                    sender.cancel()
                assert await wire.ended() == b""
                assert time.monotonic() - started < 4
        assert counting.ran == []
        await alive(port)


async def _drip(wire: Wire, data: bytes) -> None:
    for byte in data:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.1)


@pytest.mark.attack("ATK-035")
async def test_a_slow_body_ends_at_its_deadline() -> None:
    counting = Counting(body=0.3, head=5)
    async with serving(counting.server) as running:
        port = running.port
        data = post(port, call("echo"))
        async with connected(port) as wire:
            await wire.send(data[:-30])
            sender = asyncio.create_task(_drip(wire, data[-30:]))
            started = time.monotonic()
            assert (await wire.response()).status == 408
            assert time.monotonic() - started < 1.5
            sender.cancel()
        # a second request of a connection has the same deadlines
        async with connected(port) as wire:
            await wire.send(post(port, call("echo", {"text": "x"})) + data[:-30])
            assert (await wire.response()).status == 200
            assert (await wire.response()).status == 408
        await alive(port)


@pytest.mark.attack("ATK-036")
@pytest.mark.parametrize("setting", ["connections", "connections_per_address"])
async def test_who_hoards_connections_takes_them_from_itself(setting: str) -> None:
    counting = Counting(Limits(**{setting: 5}))
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as known:
            await known.send(post(port, call("echo", {"text": "known"})))
            assert (await known.response()).status == 200
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
            await until(lambda: len(running.listener.guests) == 5)
            await alive(port)  # a newcomer that says something at once finds a place
            await known.send(post(port, call("echo", {"text": "known"})))
            assert (await known.response()).status == 200  # and who was let in keeps the one it has
        for _, writer in idle:
            writer.close()
        await until(lambda: not running.listener.guests)
        assert running.core.floods.count == 0


async def test_connections_are_capped_and_those_beyond_the_cap_are_not_kept() -> None:
    counting = Counting(Limits(connections=5))
    async with serving(counting.server) as running, contextlib.AsyncExitStack() as stack:
        port = running.port
        held = [await stack.enter_async_context(connected(port)) for _ in range(5)]
        for wire in held:
            await wire.send(post(port, call("echo", {"text": "x"})))
            assert (await wire.response()).status == 200
        response = await exchange(port, post(port, call("echo", {"text": "x"})))
        assert response.status == 503
        assert response.get("retry-after") == "1"
        # A peer beyond the cap that never closes is put out: descriptors are bounded too.
        extra = [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]

        async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with asyncio.timeout(4):
                try:
                    await reader.read(-1)
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                except ConnectionError:
                    return

        await until(lambda: len(running.listener.turned_away) == 64)
        await asyncio.gather(*(gone(*pair) for pair in extra))
        assert not running.listener.turned_away
        held[0].writer.close()
        await until(lambda: len(running.listener.guests) == 4)
        await alive(port)


@pytest.mark.attack("ATK-036")
async def test_a_preflight_keeps_no_place() -> None:
    counting = Counting(Limits(connections=4, connections_per_address=4))
    policy = dataclasses.replace(counting.server.policy, allowed_origins=("https://app.example",))
    counting.server.policy = policy
    async with serving(counting.server) as running, contextlib.AsyncExitStack() as stack:
        port = running.port
        fields = [
            ("Host", f"127.0.0.1:{port}"),
            ("Origin", "https://app.example"),
            ("Access-Control-Request-Method", "POST"),
        ]
        held = [await stack.enter_async_context(connected(port)) for _ in range(4)]
        for wire in held:  # each shows no credential
            await wire.send(request(b"", fields, method="OPTIONS", length=False))
            assert (await wire.response()).status == 204
        await alive(port)
        # A page that goes on with its request on the connection of its preflight keeps it.
        message = call("echo", {"text": "page"})
        await held[3].send(post(port, message, Origin="https://app.example"))
        assert said(await held[3].response()) == "page"
        idle = [await stack.enter_async_context(connected(port)) for _ in range(20)]
        assert len(idle) == 20
        await held[3].send(post(port, message, Origin="https://app.example"))
        assert said(await held[3].response()) == "page"


@pytest.mark.parametrize("keep", [True, False])
async def test_who_reads_slowly_gets_all(keep: bool) -> None:
    counting = Counting(write_stall=0.3)
    size = 6_000_000
    async with serving(counting.server) as running, asyncio.timeout(15):
        loop = asyncio.get_running_loop()
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", running.port))
            more = {} if keep else {"Connection": "close"}
            await loop.sock_sendall(peer, post(running.port, call("dump", {"size": size}), **more))
            got = 0
            while got < size:
                data = await loop.sock_recv(peer, 128 * 1024)
                assert data, f"put out after {got} bytes"
                got += len(data)
                await asyncio.sleep(0.03)


async def test_who_reads_nothing_is_put_out() -> None:
    counting = Counting(write_stall=0.3)
    async with serving(counting.server) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.write(post(running.port, call("dump", {"size": 12_000_000})))
        await asyncio.wait_for(reader.readline(), 5)
        await until(lambda: not running.listener.guests)
        writer.close()


async def test_a_body_in_crumbs_is_refused_and_one_in_small_pieces_is_not() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        fields = modern_fields(port, call("echo"))
        for text, size in (("x" * 300, 1), ("x" * 600_000, 300)):
            body = json.dumps(call("echo", {"text": text})).encode()
            assert size > 1 or len(body) < 1000
            assert (await exchange(port, chunked(body, fields, size))).status == 200
        async with connected(port) as wire:
            await wire.send(chunked(b"", modern_fields(port, call("echo")))[:-5])
            wire.writer.write(b"1\r\n \r\n" * 50_000)
            assert (await wire.response()).status == 400
        await alive(port)
