"""The client over WebSocket: with good servers, and with servers that break every rule."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client

from .raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    FRAGMENTS,
    LIMIT,
    PING,
    PONG,
    TEXT,
    Raw,
    call,
    echo,
    echo_on,
    frame,
    quick,
    raw_server,
)

# The handshake.


async def test_the_handshake_says_what_it_must_and_nothing_else():
    async with raw_server(echo) as peer:
        async with Client(peer.url, token="s3cret", headers={"X-Tenant": "a"}) as client:
            assert client.protocol_version == "2026-07-28"
            assert await call(client, "hé") == "hé"
        raw = peer.connections[0]
    assert raw.first == "GET /mcp HTTP/1.1"
    assert set(raw.headers) == {
        "host",
        "upgrade",
        "connection",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "authorization",
        "x-tenant",
    }
    assert raw.headers["host"] == f"127.0.0.1:{peer.port}"
    assert raw.headers["authorization"] == "Bearer s3cret" and raw.headers["x-tenant"] == "a"
    assert raw.headers["sec-websocket-protocol"] == "mcp" and raw.headers["sec-websocket-version"] == "13"


async def test_nothing_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "WS_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def cookie(raw: Raw) -> None:
        raw.write(raw.switch(extra="Set-Cookie: a=b\r\n"))
        await echo_on(raw)

    async with raw_server(cookie) as peer:
        for _ in range(2):
            async with Client(peer.url) as client:
                assert await call(client) == "ok"
    assert [("cookie" in raw.headers, "authorization" in raw.headers) for raw in peer.connections] == [
        (False, False),
        (False, False),
    ]


async def test_the_token_is_in_no_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        async with raw_server(echo) as peer, Client(peer.url, token="s3cret-token") as client:
            assert await call(client, "private words") == "private words"
    assert "s3cret-token" not in caplog.text and "private words" not in caplog.text


def wrong_key(raw: Raw) -> bytes:
    return raw.switch(key="AAAAAAAAAAAAAAAAAAAAAAAAAAA=")


HANDSHAKES: dict[str, tuple[Callable[[Raw], bytes], type[Exception], str]] = {
    "wrong accept key": (wrong_key, e.ProtocolViolation, "Sec-WebSocket-Accept"),
    "accept key twice": (
        lambda raw: raw.switch(extra="Sec-WebSocket-Accept: x\r\n"),
        e.ProtocolViolation,
        "Sec-WebSocket-Accept",
    ),
    "no subprotocol": (lambda raw: raw.switch(protocol=None), e.ProtocolViolation, "subprotocol 'mcp'"),
    "another subprotocol": (lambda raw: raw.switch(protocol="chat"), e.ProtocolViolation, "chat"),
    "two subprotocols": (lambda raw: raw.switch(protocol="mcp, chat"), e.ProtocolViolation, "mcp, chat"),
    "extension forced": (
        lambda raw: raw.switch(extra="Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        e.ProtocolViolation,
        "extension",
    ),
    "no upgrade": (
        lambda raw: raw.switch().replace(b"Upgrade: websocket\r\n", b""),
        e.ProtocolViolation,
        "Upgrade",
    ),
    "http/1.0": (lambda raw: raw.switch().replace(b"HTTP/1.1", b"HTTP/1.0"), e.ProtocolViolation, "HTTP/1.1"),
    "no http": (lambda raw: b"SSH-2.0-OpenSSH\r\n\r\n", e.ProtocolViolation, "HTTP/1.1"),
    "bare line feeds": (lambda raw: raw.switch().replace(b"\r\nUpgrade", b"\nUpgrade"), e.ProtocolViolation, "wrongly"),
    "401": (lambda raw: b"HTTP/1.1 401 No\r\n\r\n", e.AuthenticationRequired, "token"),
    "403": (lambda raw: b"HTTP/1.1 403 No\r\n\r\n", e.AuthenticationRequired, "not allowed"),
    "404": (lambda raw: b"HTTP/1.1 404 No\r\n\r\n", e.HttpError, "is WebSocket served at /mcp"),
    "503": (lambda raw: b"HTTP/1.1 503 Busy\r\nContent-Length: 9999999\r\n\r\n", e.HttpError, "status 503"),
    "redirect": (
        lambda raw: b"HTTP/1.1 307 Go\r\nLocation: ws://evil.example/\x1b[31m\r\n\r\n",
        e.HttpError,
        r"points to ws://evil.example/\?\[31m, which is not followed",
    ),
    "200": (lambda raw: raw.switch(status="200 OK"), e.HttpError, "status 200"),
    "many headers": (
        lambda raw: raw.switch(extra="".join(f"X-{i}: 1\r\n" for i in range(61))),
        e.ProtocolViolation,
        "head of the answer is too large",
    ),
    "long header": (
        lambda raw: raw.switch(extra="".join(f"X: {'a' * 5_000}\r\n" for _ in range(4))),
        e.ProtocolViolation,
        "head of the answer is too large",
    ),
    "close": (lambda raw: b"HTTP/1.1 101 Swit", e.ConnectionFailed, "closed the connection"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_wrong_answer_to_the_handshake_ends_the_attempt(name: str):
    answer, error, words = HANDSHAKES[name]
    more: list[bytes] = []

    async def script(raw: Raw) -> None:
        raw.write(answer(raw))
        await raw.writer.drain()
        if name == "close":
            raw.writer.close()
        more.append(await raw.reader.read())

    async with raw_server(script) as peer:
        with pytest.raises(error, match=words) as caught:
            await Client(peer.url, policy=quick()).connect()
        assert len(str(caught.value)) < 500 and str(caught.value).isprintable()
        await asyncio.sleep(0.05)
    assert len(peer.connections) == 1 and more == [b""], "nothing is sent on a connection that was not agreed on"


async def test_headers_up_to_the_limits_are_taken_in_any_pieces():
    async def script(raw: Raw) -> None:
        answer = raw.switch(extra="".join(f"X-{i}: {'a' * 100}\r\n" for i in range(60)))
        for start in range(0, len(answer), 997):
            raw.write(answer[start : start + 997])
            await raw.writer.drain()
            await asyncio.sleep(0)
        await echo_on(raw)

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        assert await call(client) == "ok"


async def test_frames_may_come_with_the_answer_to_the_handshake():
    async def script(raw: Raw) -> None:
        raw.write(raw.switch(), frame(PING, b"early"))
        opcode, data = await raw.frame()
        while opcode != PONG:
            opcode, data = await raw.frame()
        assert data == b"early"

    async with raw_server(script) as peer:
        client = Client(peer.url, policy=quick({"connect": 0.5}), era="modern")
        with pytest.raises(e.ConnectionFailed):
            await client.connect()


@pytest.mark.parametrize("kind", ["silence", "trickle", "endless"])
async def test_the_handshake_has_a_deadline_and_a_size(kind: str):
    async def script(raw: Raw) -> None:
        if kind == "silence":
            await raw.reader.read()
        raw.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        while not raw.writer.is_closing():
            raw.write(b"X-A: b\r\n" if kind == "trickle" else b"X" * 10_000)
            await raw.writer.drain()
            await asyncio.sleep(0.05 if kind == "trickle" else 0)

    async with raw_server(script) as peer:
        start = time.monotonic()
        error = e.ProtocolViolation if kind == "endless" else e.ConnectionFailed
        with pytest.raises(error):
            await Client(peer.url, policy=quick({"connect": 0.3})).connect()
        assert time.monotonic() - start < 1.0


async def test_nobody_listens(free_port: int):
    with pytest.raises(e.ConnectionFailed, match=f"ws://127.0.0.1:{free_port}"):
        await Client(f"ws://127.0.0.1:{free_port}/mcp", policy=quick()).connect()


# Frames.

FRAMES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "masked": (lambda: frame(TEXT, b"{}", mask=b"abcd"), 1002, "masking"),
    "binary": (lambda: frame(BINARY, b"{}"), 1003, "binary"),
    "binary in fragments": (lambda: frame(BINARY, b"{", fin=False), 1003, "binary"),
    "reserved bit": (lambda: frame(TEXT, b"{}", rsv=4), 1002, "reserved bits"),
    "reserved opcode": (lambda: frame(3, b"{}"), 1002, "opcode"),
    "no UTF-8": (lambda: frame(TEXT, b'{"a":"\xff"}'), 1007, "UTF-8"),
    "no UTF-8 in fragments": (lambda: frame(TEXT, b'"\xc3', fin=False) + frame(CONT, b'"'), 1007, "UTF-8"),
    "surrogate": (lambda: frame(TEXT, b'"\xed\xa0\x80"'), 1007, "UTF-8"),
    "oversize": (lambda: frame(TEXT, b"x" * (LIMIT + 1)), 1009, str(LIMIT)),
    "oversize, announced only": (lambda: frame(TEXT, b"x" * 2**17)[:10], 1009, str(LIMIT)),
    "oversize in fragments": (
        lambda: frame(TEXT, b"x" * (LIMIT - 1), fin=False) + frame(CONT, b"xx"),
        1009,
        str(LIMIT),
    ),
    "fragment bomb": (
        lambda: frame(TEXT, b"x", fin=False) + frame(CONT, b"", fin=False) * 100_000,
        1008,
        "Limits.fragments",
    ),
    "ping of 126 bytes": (lambda: frame(PING, b"x" * 126), 1002, "control frame"),
    "ping in fragments": (lambda: frame(PING, b"x", fin=False), 1002, "control frame"),
    "ping flood": (lambda: frame(PING) * 5_000, 1008, "pings"),
    "pong flood": (lambda: frame(PONG, b"x" * 100) * 5_000, 1008, "pings"),
    "continuation of nothing": (lambda: frame(CONT, b"{}"), 1002, "continuation"),
    "text within text": (lambda: frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002, "continuation"),
    "close of one byte": (lambda: frame(CLOSE, b"x"), 1002, "close frame"),
    "close code 1005": (lambda: frame(CLOSE, b"\x03\xed"), 1002, "invalid status code"),
    "compressed, unasked": (lambda: frame(TEXT, zlib.compress(b"{}")[2:-4], rsv=4), 1002, "reserved bits"),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_server_that_breaks_a_rule_is_left_with_the_code_for_it(name: str):
    make, code, words = FRAMES[name]
    closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        if len(peer.connections) > 1:
            await echo_on(raw)
        await raw.message()
        raw.write(make())
        closed.set_result(await raw.closed())

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        with pytest.raises((e.ConnectionLost, e.ProtocolViolation)) as caught:
            await asyncio.gather(call(client, "one"))
        # Of one call under way it is known that the message that was too large was its answer.
        assert isinstance(caught.value, e.ProtocolViolation if code == 1009 else e.ConnectionLost)
        assert words in str(caught.value)
        assert (await asyncio.wait_for(closed, 5))[0] == code
        assert await call(client, "again") == "again", "the client connects again"
        assert len(peer.connections) == 2


GOOD: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: frame(TEXT, data),
    "at the limit": lambda data: frame(TEXT, data.ljust(LIMIT)),
    "at the limit, in fragments": lambda data: frame(TEXT, data, fin=False) + frame(CONT, b" " * (LIMIT - len(data))),
    "in as many fragments as may be": lambda data: (
        frame(TEXT, data[:9], fin=False) + frame(CONT, fin=False) * (FRAGMENTS - 2) + frame(CONT, data[9:])
    ),
    "with pings between fragments": lambda data: (
        frame(TEXT, data[:9], fin=False) + frame(PING, b"p" * 125) + frame(PONG) + frame(CONT, data[9:])
    ),
    "a character in two fragments": lambda data: (
        frame(TEXT, data[: data.index(b"\xa9")], fin=False) + frame(CONT, data[data.index(b"\xa9") :])
    ),
    "some pings first": lambda data: frame(PING) * 50 + frame(TEXT, data),
}


@pytest.mark.parametrize("name", GOOD)
async def test_what_the_rules_allow_is_read(name: str):
    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        while True:
            message = await raw.message()
            body = {"resultType": "complete", "content": [{"type": "text", "text": "é"}]}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": body}
            raw.write(GOOD[name](json.dumps(answer, ensure_ascii=False).encode()))

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        for _ in range(3):
            assert await call(client) == "é"
        assert len(peer.connections) == 1


async def test_pings_are_answered_with_their_own_words():
    pongs: list[bytes] = []

    async def script(raw: Raw) -> None:
        raw.write(raw.switch(), frame(PING, b"1"), frame(PING, b"2"))
        while len(pongs) < 2:
            opcode, data = await raw.frame()
            if opcode == PONG:
                pongs.append(data)
            else:
                message = json.loads(data)
                raw.result(message, supportedVersions=["2026-07-28"], capabilities={}, ttlMs=0, cacheScope="private")
        await echo_on(raw)

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        assert await call(client) == "ok"
    assert pongs == [b"1", b"2"]


async def test_every_frame_has_a_mask_of_its_own():
    async with raw_server(echo) as peer, Client(peer.url) as client:
        for _ in range(50):
            await call(client)
        assert len(set(peer.connections[0].masks)) >= 50


async def test_an_answer_cannot_be_prepared_for_a_request_that_was_not_sent():
    ids: list[int] = []

    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        while True:
            message = await raw.message()
            ids.append(message["id"])
            raw.text(message, "true")
            for guess in range(message["id"] + 1, message["id"] + 21):
                raw.text({"id": guess}, "forged")

    async with raw_server(script) as peer, Client(peer.url, policy=quick()) as client:
        assert [await call(client) for _ in range(100)] == ["true"] * 100
        assert client.dropped["answer"] >= 20 * 99
    assert len(set(ids)) == 100 and max(ids) < 2**53, "unique, and exact in every JSON reader"
    steps = [after - before for before, after in itertools.pairwise(ids)]
    assert len(set(steps)) == 99 and min(map(abs, steps)) > 2**20
