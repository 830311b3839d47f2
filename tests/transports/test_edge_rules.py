"""The rules of HTTP that the listener holds: fields, methods, targets, versions, expectations, codings."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import socket

import pytest

from garrison import ConfigurationError, Limits
from garrison.transports.listener import bound
from tests.support.edge import Counting, refused, said
from tests.support.mcp import call, modern_fields, post
from tests.support.ports import free_port
from tests.support.raw_http import changed, chunked, connected, exchange, request, serving, standard


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


async def test_a_listed_page_may_read_every_refusal() -> None:
    counting = Counting(Limits(message_bytes=1000), body=0.3)
    counting.server.policy = dataclasses.replace(counting.server.policy, allowed_origins=("https://app.example",))
    async with serving(counting.server) as running:
        port = running.port
        message = call("echo", {"text": "x" * 2000})
        fields = [*modern_fields(port, message), ("Origin", "https://app.example")]
        for data, status in (
            (chunked(json.dumps(message).encode(), fields, 600), 413),
            (request(b"", [*fields, ("Content-Length", "9")], length=False), 408),
            (request(b"", [*fields, ("Expect", "tea")]), 417),
            (request(b"", changed(fields, Authorization=None)), 401),
        ):
            response = await exchange(port, data)
            assert response.status == status
            assert response.get("access-control-allow-origin") == "https://app.example"
            stranger = data.replace(b"https://app.example", b"https://evil.example")
            response = await exchange(port, stranger)
            assert response.get("access-control-allow-origin") is None


async def test_a_known_head_of_another_peer_is_not_put_down_to_the_first(caplog: pytest.LogCaptureFixture) -> None:
    counting = Counting()
    async with serving(counting.server) as running:
        port = running.port
        fields = [*standard(port), ("MCP-Protocol-Version", "2025-11-25"), ("Mcp-Session-Id", "nobody's")]
        for address in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.1"):
            caplog.clear()
            async with connected(port, local_addr=(address, 0)) as wire:
                await wire.send(request(b"", fields, method="GET"))
                assert (await wire.response()).status == 404
            assert [record.__dict__["peer"] for record in caplog.records] == [address]


@pytest.mark.skipif(not socket.has_ipv6, reason="needs ::1")
async def test_a_name_that_is_half_somebody_elses_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET6) as squatter:
        port = free_port()
        squatter.bind(("::1", port))
        squatter.listen()

        async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
            four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            return [four, (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        with pytest.raises(OSError) as caught:
            await bound("localhost", port)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket() as again:  # nothing stays bound
            again.bind(("127.0.0.1", port))
    for sock in await bound("localhost", port):
        sock.close()


@pytest.mark.parametrize("url", ["https://", "https:///mcp", "https:// a/mcp", "https://a?b", "https://user@a/mcp"])
async def test_a_public_url_that_names_no_host_is_not_served(url: str) -> None:
    counting = Counting()
    counting.server.policy = dataclasses.replace(counting.server.policy, public_url=url, trusted_proxies=("127.0.0.1",))
    with pytest.raises(ConfigurationError, match="public_url"):
        counting.server.http()


@pytest.mark.parametrize("proxy", ["0.0.0.0/0", "::/0"])
async def test_everybody_is_no_proxy(proxy: str) -> None:
    counting = Counting()
    counting.server.policy = dataclasses.replace(counting.server.policy, trusted_proxies=(proxy,))
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        counting.server.http()
