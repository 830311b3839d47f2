"""A request that was refused for now (429, 503) is sent again when the server says; nothing else is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client
from garrison.policy import SecurityPolicy, Timeouts

from .fakes import error, http_server, modern, respond, result, text

FAST = SecurityPolicy(timeouts=Timeouts(connect=3.0, request=20.0, shutdown=0.2))


async def call(url: str) -> str:
    async with Client(url, policy=FAST) as client:
        answer = await client.call_tool("x")
    return answer.content[0].text  # type: ignore[union-attr]  # the fake answers with text


def busy(times: int, status: str, after: str | None):
    """A server that refuses the first calls of a tool."""
    refused: list[float] = []
    plain = modern({"tools/call": lambda r: text("ok")})

    async def answer(request: Any, writer: asyncio.StreamWriter) -> object:
        if request.method == "tools/call" and len(refused) < times:
            refused.append(time.monotonic())
            extra = f"Retry-After: {after}\r\n" if after is not None else ""
            return writer.write(respond(b"{}", status=status, extra=extra))
        return await plain(request, writer)

    return answer, refused


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_call_that_was_refused_for_now_is_sent_again_when_the_server_says(status: str) -> None:
    answer, refused = busy(1, status, "1")
    async with http_server(answer) as fake:
        assert await call(fake.url) == "ok"
        first, second = [r.body for r in fake.requests if r.method == "tools/call"]
        assert first == second
        assert 1.0 <= time.monotonic() - refused[0] < 2.5


@pytest.mark.parametrize(
    ("times", "status", "after", "sent"),
    [
        (3, "503 Busy", "0", 4),
        (9, "503 Busy", "0", 4),
        (9, "503 Busy", "6", 1),
        (9, "503 Busy", "99999999999", 1),
        (9, "503 Busy", None, 1),
        (9, "429 Busy", "-1", 1),
        (9, "429 Busy", "0.5", 1),
        (9, "429 Busy", "Wed, 21 Oct 2015 07:28:00 GMT", 1),
        (9, "500 Broken", "0", 1),
        (9, "502 Broken", "0", 1),
    ],
)
async def test_patience_has_an_end(times: int, status: str, after: str | None, sent: int) -> None:
    answer, refused = busy(times, status, after)
    async with http_server(answer) as fake:
        if times < sent:
            assert await call(fake.url) == "ok"
        else:
            with pytest.raises(e.HttpError) as caught:
                await call(fake.url)
            assert caught.value.status == int(status[:3])
        assert [r.method for r in fake.requests].count("tools/call") == sent
        assert len(refused) == min(times, sent)


async def test_patience_ends_with_the_deadline_of_the_call() -> None:
    answer, _ = busy(9, "503 Busy", "1")
    async with http_server(answer) as fake, Client(fake.url, policy=FAST) as client:
        begun = time.monotonic()
        with pytest.raises(e.HttpError):
            await client.call_tool("x", timeout=0.9)
        assert time.monotonic() - begun < 0.8
        waiting = asyncio.create_task(client.call_tool("x"))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(1.7)
        assert [r.method for r in fake.requests].count("tools/call") == 2


async def test_a_notification_is_sent_again_too() -> None:
    refused = 0

    async def legacy(request: Any, writer: asyncio.StreamWriter) -> object:
        nonlocal refused
        if request.method == "server/discover":
            return error(request, -32601)
        if request.method == "initialize":
            info = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
            return result(request, info)
        if request.verb != "POST":
            return writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
        if request.method == "notifications/initialized" and refused < 2:
            refused += 1
            return writer.write(respond(b"", status="503 Busy", extra="Retry-After: 0\r\n"))
        return writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async with http_server(legacy) as fake, Client(fake.url, policy=FAST, era="legacy"):
        assert [r.method for r in fake.requests].count("notifications/initialized") == 3
