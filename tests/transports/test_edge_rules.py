"""The rules of HTTP that the listener holds: fields, methods, targets, versions, expectations, codings."""

from __future__ import annotations

import json

import pytest

from tests.support.edge import Counting, refused, said
from tests.support.mcp import call, modern_fields, post
from tests.support.raw_http import changed, connected, exchange, request, serving, standard


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


@pytest.mark.attack("ATK-008")
async def test_an_absolute_target_teaches_no_host() -> None:
    """Its authority counts instead of Host, so what its Host line says must never be taken for what was checked."""
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x"})
        body = json.dumps(message).encode()
        fields = changed(modern_fields(port, message), host="evil.example")
        ours = request(body, fields, target=f"http://127.0.0.1:{port}/mcp")
        async with connected(port) as wire:
            for _ in range(3):
                await wire.send(ours)
                assert (await wire.response()).status == 200  # RFC 9112 section 3.2.2
        good = post(port, message)
        for _ in range(3):
            assert (await exchange(port, good)).status == 200
        counting.ran.clear()
        for _ in range(3):
            await refused(port, request(body, fields), 421)
        await refused(port, request(body, modern_fields(port, message), target="http://evil.example/mcp"), 421)
        assert counting.ran == []
