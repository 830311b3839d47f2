"""The HTTP listener against peers that split, stall, flood, smuggle and leave."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import time

import pytest

from garrison import Context, Limits, SecurityPolicy, Server, Timeouts
from tests.support.mcp import call, modern_fields, post, until
from tests.support.raw_http import (
    Response,
    Wire,
    changed,
    chunked,
    connected,
    exchange,
    request,
    serving,
    standard,
)


class Counting:
    """A server that knows what its handlers did."""

    def __init__(self, limits: Limits | None = None, **timeouts: float) -> None:
        self.ran: list[str] = []
        self.cancelled: list[str] = []
        policy = SecurityPolicy(limits=limits or Limits(), timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}))
        self.server = server = Server("edge", policy=policy)

        @server.tool(inline=True)
        def echo(text: str) -> str:
            self.ran.append(text)
            return text

        @server.tool()
        async def slow(seconds: float) -> str:
            self.ran.append("slow")
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled.append("slow")
                raise
            return "slow"

        @server.tool(inline=True)
        def dump(size: int) -> str:
            self.ran.append("dump")
            return "x" * size

        @server.tool()
        async def stream(ctx: Context, count: int, size: int) -> str:
            for number in range(count):
                ctx.progress(number + 1, message="x" * size)
                await asyncio.sleep(0)
            self.ran.append("streamed")
            return "streamed"


def said(response: Response) -> str:
    return response.json["result"]["content"][0]["text"]


async def alive(port: int) -> None:
    response = await exchange(port, post(port, call("echo", {"text": "alive"})))
    assert response.status == 200
    assert said(response) == "alive"


async def refused(port: int, data: bytes, *statuses: int) -> Response:
    """Send bytes; the one answer is a refusal and the connection ends."""
    async with connected(port) as wire:
        await wire.send(data)
        response = await wire.response()
        assert response.status in (statuses or (400,)), response
        assert b"Traceback" not in response.body
        assert response.get("x-content-type-options") == "nosniff"
        assert response.get("cache-control") == "no-store"
        assert response.get("server") is None
        assert not any(name.startswith("access-control") for name, _ in response.fields)
        assert await wire.ended() == b""
        return response


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
            (connection,) = running.listener.connections
            connection.data_received(
                post(port, call("slow", {"seconds": 0.01}, 2)) + post(port, call("echo", {"text": "bb"}, 3))
            )
            assert connection.answering
            await until(lambda: not connection.answering)
            connection.data_received(post(port, call("echo", {"text": "aa"}, 4)))
            assert [(await wire.response()).json["id"] for _ in range(3)] == [2, 3, 4]


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


# Limits


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
async def test_connections_are_capped_and_those_beyond_the_cap_are_not_kept() -> None:
    counting = Counting(Limits(connections=5))
    async with serving(counting.server) as running:
        port = running.port
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        await until(lambda: len(running.listener.connections) == 5)
        response = await exchange(port, post(port, call("echo", {"text": "x"})))
        assert response.status == 503
        assert response.get("retry-after") == "1"
        # A peer beyond the cap that never closes is put out: descriptors are bounded too.
        extra = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]

        async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            async with asyncio.timeout(4):
                try:
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                except ConnectionError:
                    return

        await asyncio.gather(*(gone(*pair) for pair in extra))
        held[0][1].close()
        await until(lambda: len(running.listener.connections) <= 4)
        await alive(port)
        for _, writer in held[1:] + extra:
            writer.close()


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
            await until(lambda: not running.listener.connections, 10)
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
        await until(lambda: not running.listener.connections, 5)
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


@pytest.mark.attack("ATK-007")
@pytest.mark.attack("ATK-055")
@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Origin",
        "Authorization",
        "Content-Type",
        "Accept",
        "Mcp-Method",
        "Mcp-Name",
        "MCP-Protocol-Version",
        "Mcp-Session-Id",
        "Sec-Fetch-Site",
        "Last-Event-ID",
        "Content-Encoding",
        "Mcp-Param-Region",
    ],
)
async def test_a_field_that_decides_may_stand_once(name: str) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        fields = modern_fields(port, message)
        good = {n.lower(): v for n, v in fields}.get(name.lower(), "same-origin")
        base = [(n, v) for n, v in fields if n.lower() != name.lower()]
        for pair in ((good, "evil"), ("evil", good), (good, good)):
            data = request(json.dumps(message).encode(), [*base, (name, pair[0]), (name.lower(), pair[1])])
            await refused(port, data, 400)
        joined = request(json.dumps(message).encode(), [*base, (name, f"{good}, evil")])
        if name in ("Host", "Authorization", "Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"):
            assert (await exchange(port, joined)).status in (400, 401, 421)
        assert counting.ran == []


# Methods, targets, expectations


@pytest.mark.attack("ATK-044")
@pytest.mark.parametrize(
    "method", ["HEAD", "PUT", "TRACE", "PATCH", "OPTIONS", "CONNECT", "GET", "DELETE", "post", "FOO"]
)
async def test_methods(method: str) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        body = json.dumps(message).encode()
        async with connected(port) as wire:
            await wire.send(
                request(body, [*modern_fields(port, message), ("X-HTTP-Method-Override", "POST")], method=method)
            )
            raw = await wire.ended() if method not in ("GET", "DELETE") else (await wire.head()).status
        if isinstance(raw, bytes):
            status = int(raw.split(b" ")[1])
            assert status in (400, 404, 405)
            assert b"access-control" not in raw.lower()
            if method in ("PUT", "PATCH", "OPTIONS", "TRACE"):
                assert status == 405
                assert b"allow: POST, GET, DELETE" in raw
            if method == "HEAD":
                assert raw.partition(b"\r\n\r\n")[2] == b"", "a response to HEAD has no body"
        else:
            assert raw in (400, 404, 405)
        assert counting.ran == []


@pytest.mark.attack("ATK-008")
@pytest.mark.attack("ATK-045")
@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/mcp",
        "http://127.0.0.1/mcp",
        "//mcp",
        "/mcp/",
        "/MCP",
        "/%6dcp",
        "/mcp;x=1",
        "/mcp%00",
        "/mcp/../admin",
        "/x/../mcp",
        "*",
        "/",
        "mcp",
        "/mcp#x",
    ],
)
async def test_targets_that_are_not_the_endpoint(target: str) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        data = request(json.dumps(message).encode(), modern_fields(port, message), target=target)
        await refused(port, data, 400, 404, 421)
        assert counting.ran == []
        ok = request(json.dumps(message).encode(), modern_fields(port, message), target="/mcp?a=b")
        assert (await exchange(port, ok)).status == 200


async def test_http_1_0() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        body = json.dumps(message).encode()
        async with connected(port) as wire:
            await wire.send(request(body, modern_fields(port, message), version="1.0"))
            response = await wire.response()
            assert response.status == 200
            assert await wire.ended() == b""
        await refused(port, request(body, changed(modern_fields(port, message), host=None), version="1.0"), 400)
        # Chunks are of HTTP/1.1: what an older client gets must not be chunked.
        stream = call("stream", {"count": 2, "size": 1}, progressToken="t")
        async with connected(port) as wire:
            await wire.send(request(json.dumps(stream).encode(), modern_fields(port, stream), version="1.0"))
            assert b"transfer-encoding" not in await wire.ended()


@pytest.mark.attack("ATK-028")
async def test_expectations() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        body, fields = json.dumps(message).encode(), modern_fields(port, message)
        async with connected(port) as wire:
            await wire.send(request(body, [*fields, ("Expect", "100-continue")])[: -len(body)])
            assert (await wire.head()).status == 100
            await wire.send(body)
            assert said(await wire.response()) == "x"
        expect = ("Expect", "100-continue")
        for bad, status in (
            (changed(fields, origin="http://evil.example"), 403),
            (changed(fields, host="evil.example"), 421),
            (changed(fields, authorization=None), 401),
        ):
            head = request(b"", [*bad, expect, ("Content-Length", "50")], length=False)
            await refused(port, head, status)
        await refused(port, request(b"", [*fields, expect, ("Content-Length", str(10**9))], length=False), 413)
        await refused(port, request(body, [*fields, ("Expect", "200-ok")]), 417)


@pytest.mark.attack("ATK-038")
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, gzip", "identity"])
async def test_compressed_bodies_are_not_inflated(coding: str) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        await refused(port, post(port, call("echo", {"text": "x"}), content_encoding=coding), 415)
        assert counting.ran == []


# Leaving


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
        await until(lambda: not running.listener.connections)
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
            await until(lambda: not running.listener.connections)
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

        async def one(number: int) -> None:
            response = await exchange(port, post(port, call("later", {"text": f"canary-{number}"}, 1)))
            assert said(response) == f"canary-{number}"

        await asyncio.gather(*(one(number) for number in range(150)))


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
        async with connected(port) as wire:
            for number in range(400):
                await wire.send(request(bad[number % len(bad)], fields))
                response = await wire.response()
                assert response.status == 400
                assert response.json["error"]["code"] in (-32700, -32600)
        assert counting.ran == []
        await alive(port)


@pytest.mark.attack("ATK-102")
async def test_headers_of_no_meaning_are_ignored() -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"}, baggage="x" * 100_000, traceparent="00-zz")
        response = await exchange(
            port,
            post(port, message, mcp_session_id="x", last_event_id="5", x_forwarded_for="1.2.3.4", cookie="a=b"),
        )
        assert said(response) == "x"
        assert response.get("mcp-session-id") is None


async def test_a_known_head_is_still_checked() -> None:
    """A head that is remembered passes the same gate: its parts cannot be put together into what the gate refuses."""
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        good = post(port, message)
        legacy_initialize = request(b"{}", standard(port))
        async with connected(port) as wire:
            for data in (good, good, legacy_initialize.replace(b"{}", b"[]"), good):
                await wire.send(data)
                await wire.response()
        counting.ran.clear()
        for change in ({"host": None}, {"authorization": None}, {"content_type": None}, {"accept": None}):
            async with connected(port) as wire:
                await wire.send(post(port, message, **change))
                assert (await wire.response()).status in (400, 401, 406, 415), change
        length = b"Content-Length: %d\r\n" % len(good.partition(b"\r\n\r\n")[2])
        doubled = good.replace(length, length + length)
        assert doubled != good
        await refused(port, good.replace(b"Host:", b"Host: 127.0.0.1:%d\r\nHost:" % port), 400)
        assert counting.ran == []


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
