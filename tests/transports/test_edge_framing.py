"""The HTTP listener against peers that split, pipeline and smuggle."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from tests.support.edge import Counting, alive, refused, said
from tests.support.mcp import call, modern_fields, post, until
from tests.support.raw_http import chunked, connected, exchange, request, serving

# Framing


async def test_the_same_bytes_whole_and_split_anywhere() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        data = post(running.port, call("echo", {"text": "héé"}))
        whole = await exchange(running.port, data)
        assert said(whole) == "héé"
        async with connected(running.port) as wire:
            wire.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(1, len(data)):
                await wire.send(data[:at])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await wire.send(data[at:])
                answer = await wire.response()
                assert (answer.status, answer.fields, answer.body) == (whole.status, whole.fields, whole.body), at
            for byte in data:
                await wire.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await wire.response()).body == whole.body


async def test_chunked_bodies() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        message = call("echo", {"text": "chunked"})
        body, fields = json.dumps(message).encode(), modern_fields(running.port, message)
        async with connected(running.port) as wire:
            for size in (1, 7, 1000):
                await wire.send(chunked(body, fields, size))
                assert said(await wire.response()) == "chunked"
            data = chunked(body, fields, 50)
            for at in range(1, len(data), 3):
                await wire.send(data[:at])
                await asyncio.sleep(0)
                await wire.send(data[at:])
                assert said(await wire.response()) == "chunked"


async def test_pipelined_requests_are_answered_in_order() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        data = b"".join(
            post(port, call("slow", {"seconds": 0.02}, n) if n % 5 == 0 else call("echo", {"text": str(n)}, n))
            for n in range(40)
        )
        async with connected(port) as wire:
            await wire.send(data)
            assert [(await wire.response()).json["id"] for _ in range(40)] == list(range(40))
        assert len(counting.ran) == 40


async def test_a_request_that_arrives_as_a_response_ends_waits_its_turn() -> None:
    """Bytes that come in the same turn of the loop must not overtake the pipelined request before them."""
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        first = post(port, call("echo", {"text": "aa"}, 1))
        async with connected(port) as wire:
            await wire.send(first)
            await wire.response()
            connection: Any = next(iter(running.listener.guests))
            connection.data_received(
                post(port, call("slow", {"seconds": 0.01}, 2)) + post(port, call("echo", {"text": "bb"}, 3))
            )
            assert connection.answering
            await until(lambda: not connection.answering)
            connection.data_received(post(port, call("echo", {"text": "aa"}, 4)))
            assert [(await wire.response()).json["id"] for _ in range(3)] == [2, 3, 4]


# Smuggling


@pytest.mark.attack("ATK-030")
@pytest.mark.attack("ATK-031")
@pytest.mark.attack("ATK-032")
async def test_bytes_with_two_meanings_are_refused() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        body = json.dumps(message).encode()
        fields = modern_fields(port, message)
        second = post(port, call("echo", {"text": "SMUGGLED"}))
        plain = request(body, fields)
        length = ("Content-Length", str(len(body)))
        bodies = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

        def with_fields(*more: tuple[str, str], data: bytes = bodies) -> bytes:
            return request(b"", [*fields, *more], length=False) + data

        te = "Transfer-Encoding"
        cases = {
            "cl-te": with_fields(length, (te, "chunked")),
            "te-cl": with_fields((te, "chunked"), length),
            "xchunked": with_fields((te, "xchunked")),
            "identity": with_fields((te, "identity")),
            "chunked, identity": with_fields((te, "chunked, identity")),
            "two te": with_fields((te, "chunked"), (te, "chunked")),
            "two cl": with_fields(length, length, data=body),
            "cl list": with_fields(("Content-Length", f"{len(body)}, {len(body)}"), data=body),
            "cl sign": with_fields(("Content-Length", f"+{len(body)}"), data=body),
            "cl negative": with_fields(("Content-Length", "-1"), data=body),
            "cl hex": with_fields(("Content-Length", hex(len(body))), data=body),
            "0x size": with_fields((te, "chunked"), data=b"0x5\r\nhello\r\n0\r\n\r\n"),
            "+ size": with_fields((te, "chunked"), data=b"+5\r\nhello\r\n0\r\n\r\n"),
            "17 digits": with_fields((te, "chunked"), data=b"1" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
            "lf size": with_fields((te, "chunked"), data=b"5\nhello\n0\n\n"),
            "no crlf": with_fields((te, "chunked"), data=b"5\r\nhello0\r\n\r\n"),
            "trailer": with_fields((te, "chunked"), data=bodies[:-2] + b"X-Evil: 1\r\n\r\n"),
            "fold": plain.replace(b"Accept:", b"X-Fold: a\r\n b\r\nAccept:"),
            "fold authorization": plain.replace(b"Bearer ", b"Bearer\r\n "),
            "bare cr": plain.replace(b"Accept:", b"X: a\rX2: b\r\nAccept:"),
            "bare lf": plain.replace(b"Accept:", b"X: a\nX2: b\r\nAccept:"),
            "nul": plain.replace(b"Accept:", b"X: a\0b\r\nAccept:"),
            "space before colon": plain.replace(b"Accept:", b"X : a\r\nAccept:"),
            "no name": plain.replace(b"Accept:", b": a\r\nAccept:"),
            "leading space": plain.replace(b"Host:", b" Host:"),
            "no version": plain.replace(b" HTTP/1.1", b""),
            "2.0": plain.replace(b"HTTP/1.1", b"HTTP/2.0"),
            "1.9": plain.replace(b"HTTP/1.1", b"HTTP/1.9"),
            "0.9": plain.replace(b"HTTP/1.1", b"HTTP/0.9"),
            "upgrade": plain.replace(b"Accept:", b"Connection: Upgrade\r\nUpgrade: websocket\r\nAccept:"),
            "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5,
        }
        for name, data in cases.items():
            for prime in (False, True):
                async with connected(port) as wire:
                    if prime:
                        await wire.send(plain)
                        assert (await wire.response()).status == 200
                    counting.ran.clear()
                    await wire.send(data + second)
                    answers = await wire.ended()
                    assert counting.ran == [], name
                    assert answers.startswith(b"HTTP/1.1 4"), (name, answers)
                    assert answers.count(b"HTTP/1.1 ") == 1, name
        # the twins
        assert said(await exchange(port, with_fields((te, "chunked")))) == "x"
        assert said(await exchange(port, with_fields((te, "Chunked")))) == "x"
        assert said(await exchange(port, plain.replace(b"Accept:", b"X:\t a \t\r\nAccept:"))) == "x"
        await alive(port)


@pytest.mark.attack("ATK-029")
async def test_bytes_after_a_short_length_are_no_second_request() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        data = request(json.dumps(message).encode() + b"x" * 100_000, modern_fields(port, message), length=False)
        data = data.replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\n", 1)
        async with connected(port) as wire:
            wire.writer.write(data)
            answers = await wire.ended()
            assert answers.startswith(b"HTTP/1.1 400")
        assert counting.ran == []
        await alive(port)


@pytest.mark.attack("ATK-041")
async def test_a_storm_of_bad_bodies() -> None:
    counting = Counting()
    bad: list[bytes] = [
        b"",
        b"{",
        b"nul",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"[[]]",
        b"1",
        b'"x"',
        b"{}{}",
        b'{"a":1,"a":2}',
        b"[1e999]",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":null,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":[]}',
        b"[" * 100_000,
        b'{"a":' * 10_000,
        b'"\\ud800"',
    ]
    async with serving(counting.server) as running:
        port = running.port
        fields = modern_fields(port, call("echo"))
        for start in range(0, 400, 21):
            async with connected(port) as wire:
                for number in range(start, start + 21):
                    await wire.send(request(bad[number % len(bad)], fields))
                    response = await wire.response()
                    assert response.status == 400
                    assert response.json["error"]["code"] in (-32700, -32600)
                    if (
                        response.get("connection") == "close"
                    ):  # Limits.malformed_per_minute, however often it comes back
                        assert start or number == 20
                        break
        assert counting.ran == []
        await alive(port)


@pytest.mark.parametrize("cut", [0, 1, 40, 200])
async def test_another_protocol_that_is_offered_is_not_taken_up(cut: int) -> None:
    """As Java's HttpClient offers h2c with its first request: the request is served, and the offer left alone."""
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
        data = post(port, call("echo", {"text": "x" * 300}), **offer)
        async with connected(port) as wire:
            for part in (data[:-cut], data[-cut:]) if cut else (data,):
                await wire.send(part)
                await asyncio.sleep(0.02)
            response = await wire.response()
            assert said(response) == "x" * 300
            assert response.get("upgrade") is None
            assert response.get("connection") == "close"
            assert await wire.ended() == b""
        # What follows is not read as another request, whatever it is.
        async with connected(port) as wire:
            await wire.send(data + post(port, call("echo", {"text": "smuggled"})))
            assert (await wire.response()).status == 200
            assert await wire.ended() == b""
        assert "smuggled" not in counting.ran
        for changes, status in (({"host": "evil.example"}, 421), ({"authorization": None}, 401)):
            await refused(port, post(port, call("echo", {"text": "x"}), **offer, **changes), status)
        chunks = chunked(b"{}", [*modern_fields(port, call("echo")), *offer.items()])
        await refused(port, chunks, 400)
        await alive(port)
