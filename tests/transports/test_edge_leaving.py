"""The HTTP listener against peers that read slowly, leave or share it, and its own leaving."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket

import pytest

from garrison import Limits
from tests.support.edge import Counting, alive, said
from tests.support.mcp import call, post, until
from tests.support.raw_http import connected, exchange, request, serving, standard


@pytest.mark.attack("ATK-037")
async def test_a_reader_that_stalls_a_stream_is_put_out() -> None:
    counting = Counting(Limits(outbound_bytes=100_000), write_stall=5)
    async with serving(counting.server) as running:
        port = running.port
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        message = call("stream", {"count": 100_000, "size": 10_000}, progressToken="t")
        async with connected(port) as wire:
            wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await wire.send(post(port, message))
            await until(lambda: not running.listener.guests, 10)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
        assert "streamed" not in counting.ran
        await alive(port)


@pytest.mark.attack("ATK-037")
async def test_answers_do_not_pile_up_for_a_reader_that_stalls() -> None:
    counting = Counting(Limits(outbound_bytes=100_000), write_stall=1, idle=1)
    async with serving(counting.server) as running:
        port = running.port
        data = post(port, call("dump", {"size": 200_000}))
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()

        async def flood() -> None:
            for _ in range(2000):
                await loop.sock_sendall(raw, data)

        task = asyncio.create_task(flood())
        await asyncio.sleep(0.8)
        assert len(counting.ran) * 200_000 < 20_000_000, f"{len(counting.ran)} answers wait"
        await until(lambda: not running.listener.guests, 5)
        task.cancel()
        raw.close()
        await alive(port)


async def test_a_large_answer_reaches_a_reader_that_is_only_slow() -> None:
    counting = Counting(Limits(outbound_bytes=100_000))
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire:
            await wire.send(post(port, call("dump", {"size": 8_000_000})) * 3)
            for _ in range(3):
                response = await wire.response()
                assert len(said(response)) == 8_000_000


@pytest.mark.attack("ATK-039")
@pytest.mark.parametrize("how", ["close", "reset", "after pipelining"])
async def test_leaving_cancels_a_modern_request(how: str) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire:
            await wire.send(post(port, call("slow", {"seconds": 60})))
            await until(lambda: counting.ran)
            if how == "after pipelining":
                await wire.send(post(port, call("echo", {"text": "late"})))
                await asyncio.sleep(0.05)
            if how == "close":
                wire.close()
            else:
                wire.reset()
            await until(lambda: counting.cancelled, 2)
        await until(lambda: not running.listener.guests)
        assert counting.ran == ["slow"]
        await alive(port)


async def test_leaving_does_not_cancel_a_legacy_request() -> None:
    counting = Counting()
    finished: list[str] = []

    @counting.server.tool()
    async def finish() -> str:
        counting.ran.append("finish")
        await asyncio.sleep(0.1)
        finished.append("x")
        return "x"

    async with serving(counting.server) as running:
        port = running.port
        opening = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        response = await exchange(port, request(json.dumps(opening).encode(), standard(port)))
        session = response.get("mcp-session-id") or ""
        fields = [*standard(port), ("Mcp-Session-Id", session)]
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "finish", "arguments": {}}}
        async with connected(port) as wire:
            await wire.send(request(json.dumps(body).encode(), fields))
            await until(lambda: counting.ran)
            wire.reset()
        await until(lambda: finished, 2)


@pytest.mark.attack("ATK-040")
async def test_connections_that_break_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        data = post(port, call("echo", {"text": "x"}))
        stream = post(port, call("stream", {"count": 1000, "size": 100}, progressToken="t"))
        before = len(asyncio.all_tasks())
        with caplog.at_level(logging.ERROR):
            for number in range(120):
                async with connected(port) as wire:
                    if number % 2:
                        await wire.send(data[: len(data) * (number % 10) // 10])
                    else:
                        await wire.send(stream)
                        await wire.head()
                    wire.reset()
            await until(lambda: not running.listener.guests)
            await until(lambda: len(asyncio.all_tasks()) <= before)
        assert [r for r in caplog.records if r.name.startswith(("garrison", "asyncio"))] == []
        await alive(port)


@pytest.mark.attack("ATK-043")
async def test_equal_ids_of_different_connections_do_not_meet() -> None:
    counting = Counting()

    @counting.server.tool()
    async def later(text: str) -> str:
        await asyncio.sleep(0.01)
        return text

    async with serving(counting.server) as running:
        port = running.port

        together = asyncio.Semaphore(100)  # within Limits.connections_per_address

        async def one(number: int) -> None:
            async with together:
                response = await exchange(port, post(port, call("later", {"text": f"canary-{number}"}, 1)))
            assert said(response) == f"canary-{number}"

        await asyncio.gather(*(one(number) for number in range(200)))


async def test_closing_lets_a_request_end_and_takes_no_more() -> None:
    counting = Counting(shutdown=2)
    async with serving(counting.server) as running:
        port = running.port
        async with connected(port) as wire, connected(port) as idle:
            await wire.send(post(port, call("slow", {"seconds": 0.2})))
            await until(lambda: counting.ran)
            closing = asyncio.create_task(running.listener.close(2))
            await asyncio.sleep(0.02)
            assert await idle.ended() == b""
            response = await wire.response()
            assert said(response) == "slow"
            assert response.get("connection") == "close"
            await closing
            with pytest.raises(OSError):
                async with connected(port):
                    pass
