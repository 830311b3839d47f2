"""The redirect listener among whoever is on this machine: other programs, pages of the browser, and the browser."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison import ConfigurationError
from garrison.auth.client.loopback import RedirectListener
from garrison.errors import AuthorizationFailed, ConnectionFailed

NOT_TAKEN = b"not an answer that a program is waiting for"


async def sent(port: int, *pieces: bytes, address: str = "127.0.0.1", pause: float = 0.0) -> bytes:
    """What comes back for these bytes."""
    reader, writer = await asyncio.open_connection(address, port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        answer = await reader.read()
    await closed(writer)
    return answer


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def port_of(listener: RedirectListener) -> int:
    return urlsplit(listener.redirect_uri).port or 0


def request(
    listener: RedirectListener, query: str = "", *, method: str = "GET", host: str = "", more: str = ""
) -> bytes:
    parts = urlsplit(listener.redirect_uri)
    target = parts.path + (f"?{query}" if query else "")
    return f"{method} {target} HTTP/1.1\r\nHost: {host or parts.netloc}\r\n{more}\r\n".encode()


def judge(query: str) -> str | None:
    """Takes what begins with `good`."""
    if query == "denied":
        raise AuthorizationFailed("denied")
    return query if query.startswith("good") else None


@contextlib.asynccontextmanager
async def waiting(
    redirect_uri: str | None = None, *, patience: float = 5.0
) -> AsyncIterator[tuple[RedirectListener, asyncio.Task[str]]]:
    """A listener and who waits at it."""
    async with RedirectListener(redirect_uri, patience=patience) as listener:
        task = asyncio.create_task(listener.receive(judge))
        await asyncio.sleep(0)
        yield listener, task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_is_delivered_once() -> None:
    async with waiting() as (listener, task):
        answer = await sent(port_of(listener), request(listener, "good=1"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"close this window" in answer
        assert await task == "good=1"
        again = await sent(port_of(listener), request(listener, "good=2"))
        assert again.startswith(b"HTTP/1.1 404 ") and NOT_TAKEN in again


async def test_of_many_answers_at_once_one_counts() -> None:
    judged: list[str] = []
    async with RedirectListener() as listener:
        task = asyncio.create_task(listener.receive(lambda query: judged.append(query) or query))
        await asyncio.sleep(0)
        peers = [await asyncio.open_connection("127.0.0.1", port_of(listener)) for _ in range(10)]
        await asyncio.sleep(0.05)
        for number, (_, writer) in enumerate(peers):
            writer.write(request(listener, f"good={number}"))
        pages = [await reader.read() for reader, _ in peers]
        assert sorted(page.split(b" ")[1] for page in pages) == [b"200"] + [b"404"] * 9
        assert judged == [await task]
        for _, writer in peers:
            await closed(writer)


async def test_the_last_page_arrives_though_nobody_listens_any_more() -> None:
    async with RedirectListener() as listener:
        browsing = asyncio.create_task(sent(port_of(listener), request(listener, "good")))
        assert await listener.receive(judge) == "good"
    page = await browsing
    assert page.startswith(b"HTTP/1.1 200 OK\r\n") and page.endswith(b"</html>")


async def test_an_answer_that_is_a_refusal_ends_the_waiting() -> None:
    async with waiting() as (listener, task):
        answer = await sent(port_of(listener), request(listener, "denied"))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(AuthorizationFailed, match="denied"):
            await task


@pytest.mark.attack("ATK-195")
async def test_what_is_not_awaited_is_forgotten() -> None:
    async with waiting() as (listener, task):
        for query in ("", "bad", "code=x&state=y"):
            answer = await sent(port_of(listener), request(listener, query))
            assert answer.startswith(b"HTTP/1.1 400 ") and NOT_TAKEN in answer
        await sent(port_of(listener), request(listener, "good"))
        assert await task == "good"


async def test_the_path_is_not_to_be_guessed_and_the_port_not_to_be_known() -> None:
    async with RedirectListener() as one, RedirectListener() as other:
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/callback/[A-Za-z0-9_-]{22}", one.redirect_uri)
        assert urlsplit(one.redirect_uri).path != urlsplit(other.redirect_uri).path
        assert port_of(one) != port_of(other)


@pytest.mark.attack("ATK-203")
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET {path}?good HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET {path}?good HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n", 421),
        ("GET {path}?good HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n", 421),
        ("GET {path}?good HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421),
        ("GET {path}?good HTTP/1.1\r\n\r\n", 400),
        ("GET {path}?good HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n", 400),
        ("GET http://{host}{path}?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("GET /?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("GET {path}/?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("GET /favicon.ico HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("HEAD {path}?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 405),
        ("OPTIONS {path}?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 405),
        ("POST {path}?good HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\ngood", 405),
        ("GET {path}?good HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\ngood", 400),
        ("GET {path}?good HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET {path}?good HTTP/2.0\r\nHost: {host}\r\n\r\n", 400),
        ("GET {path}?good\r\nHost: {host}\r\n\r\n", 400),
        ("GET  {path}?good HTTP/1.1\r\nHost: {host}\r\n\r\n", 400),
        ("GET {path}?good HTTP/1.1\r\n Host: {host}\r\n\r\n", 400),
        ("GET {path}?good HTTP/1.1\nHost: {host}\r\n\r\n", 400),
        ("GET {path}?good HTTP/1.1\r\nHost: {host}\r\nX : y\r\n\r\n", 400),
        ("\x16\x03\x01\x02\r\n\r\n", 400),
    ],
)
async def test_what_is_no_delivery_is_refused(text: str, status: int) -> None:
    async with waiting() as (listener, task):
        parts = urlsplit(listener.redirect_uri)
        bytes_sent = text.format(path=parts.path, port=parts.port, host=parts.netloc).encode()
        answer = await sent(port_of(listener), bytes_sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert not task.done()
        await sent(port_of(listener), request(listener, "good"))
        assert await task == "good"


@pytest.mark.attack("ATK-203")
async def test_a_page_says_nothing_of_the_request_and_loads_nothing() -> None:
    async with waiting() as (listener, task):
        hostile = "good<script>alert(1)</script>&x=%3Cscript%3E"
        pages = [
            await sent(port_of(listener), request(listener, "<script>", more="Referer: <script>\r\n")),
            await sent(port_of(listener), request(listener, method="<script>")),
            await sent(port_of(listener), request(listener, hostile)),
        ]
        assert await task == hostile
        for page in pages:
            head, _, body = page.partition(b"\r\n\r\n")
            assert b"script" not in body.lower()
            assert b"Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'" in head
            assert b"frame-ancestors 'none'" in head and b"X-Content-Type-Options: nosniff" in head
            assert b"Referrer-Policy: no-referrer" in head and b"Cache-Control: no-store" in head
            assert b"Content-Length: %d" % len(body) in head


@pytest.mark.attack("ATK-203")
async def test_a_head_has_a_size() -> None:
    async with waiting() as (listener, task):
        answer = await sent(port_of(listener), request(listener, "good=" + "x" * 9000))
        assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
        with contextlib.suppress(ConnectionError):
            await sent(port_of(listener), b"GET /" + b"x" * 1024 * 1024)
        assert not task.done()
        await sent(port_of(listener), request(listener, "good=" + "x" * 7000))
        assert len(await task) == 7005


@pytest.mark.attack("ATK-203")
async def test_slow_connections_end_and_hold_up_nobody() -> None:
    async with waiting(patience=0.8) as (listener, task):
        slow = [await asyncio.open_connection("127.0.0.1", port_of(listener)) for _ in range(8)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        assert (await sent(port_of(listener), request(listener, "bad"))).startswith(b"HTTP/1.1 400 ")
        assert time.monotonic() - begun < 0.7
        for reader, writer in slow:
            assert await reader.read() == b""
            await closed(writer)
        await sent(port_of(listener), request(listener, "good"))
        assert await task == "good"


@pytest.mark.attack("ATK-203")
async def test_connections_are_bounded() -> None:
    async with waiting(patience=1.0) as (listener, task):
        idle = [await asyncio.open_connection("127.0.0.1", port_of(listener)) for _ in range(40)]
        await asyncio.sleep(0.1)
        ended = [reader.at_eof() for reader, _ in idle]
        assert ended.count(True) == 8
        for reader, writer in idle:
            await reader.read()
            await closed(writer)
        await sent(port_of(listener), request(listener, "good"))
        assert await task == "good"


@pytest.mark.attack("ATK-203")
async def test_it_listens_on_loopback_alone_and_not_longer_than_it_waits() -> None:
    async with RedirectListener() as listener:
        names = [each.getsockname() for server in listener._servers for each in server.sockets]
        assert names == [("127.0.0.1", port_of(listener))]
        # It is bound: nobody else can have the port in the meantime.
        with socket.socket() as other, pytest.raises(OSError):
            other.bind(("127.0.0.1", port_of(listener)))
        assert (await sent(port_of(listener), request(listener, "good"))).startswith(b"HTTP/1.1 404 ")
    with pytest.raises(ConnectionError):
        await sent(port_of(listener), b"x")


async def test_closing_does_not_wait_for_who_is_slow() -> None:
    async with RedirectListener() as listener:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    await closed(writer)


# Registered addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_registered_address_is_kept_but_for_a_free_port(host: str) -> None:
    async with waiting(f"http://{host}/callback") as (listener, task):
        assert re.fullmatch(rf"http://{host}:[1-9][0-9]*/callback", listener.redirect_uri)
        await sent(port_of(listener), request(listener, "good"))
        assert await task == "good"


async def test_localhost_is_both_of_its_addresses() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with waiting("http://localhost/cb") as (listener, task):
        assert (await sent(port_of(listener), request(listener, "bad"))).startswith(b"HTTP/1.1 400 ")
        await sent(port_of(listener), request(listener, "good"), address="::1")
        assert await task == "good"
        async with RedirectListener("http://[::1]/cb") as six:
            assert six.redirect_uri.startswith("http://[::1]:")


async def test_a_port_of_somebody_else_is_an_error_that_says_so() -> None:
    async with RedirectListener() as taken:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(ConnectionFailed, match="redirect_uri"):
                async with RedirectListener(f"http://{host}:{port_of(taken)}/cb"):
                    pass
    async with RedirectListener(f"http://127.0.0.1:{port_of(taken)}/cb") as again:
        assert again.redirect_uri == f"http://127.0.0.1:{port_of(taken)}/cb"


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1/cb",
        "http://192.0.2.1/cb",
        "http://0.0.0.0/cb",
        "https://app.example.com/cb",
        "http://127.0.0.1/cb?x",
        "http://127.0.0.1/cb#x",
        "http://127.0.0.1/c%62",
        "http://127.0.0.1",
        "http://u@127.0.0.1/cb",
        "http://127.0.0.1:99999/cb",
        "myapp:/cb",
    ],
)
def test_an_address_that_cannot_be_listened_at_is_a_mistake(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="redirect_uri"):
        RedirectListener(uri)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 200), max_size=6))
async def test_a_request_in_pieces_is_the_same_request(cuts: list[int]) -> None:
    async with waiting() as (listener, task):
        whole = request(listener, "good=1", more="Accept: text/html\r\nUser-Agent: x\r\n")
        edges = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
        pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
        assert (await sent(port_of(listener), *pieces)).startswith(b"HTTP/1.1 200 ")
        assert await task == "good=1"
