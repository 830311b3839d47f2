"""The little HTTP server of the development authorization server: what it reads, and what it does not."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import garrison.testing
from garrison.testing.oauth.http import LoopbackHttp, Reply, Request, _read

HEAD = b"POST /a%20b?x=1&y HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nCookie: a=b; c=d\r\nx-one: 2\r\n"
WHOLE = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


async def parsed(pieces: list[bytes]) -> Request | None:
    """What is read of bytes that come in pieces."""
    reader = asyncio.StreamReader()
    reading = asyncio.ensure_future(_read(reader))
    for piece in pieces:
        reader.feed_data(piece)
        await asyncio.sleep(0)
    reader.feed_eof()
    return await reading


@settings(max_examples=60, deadline=None)
@given(cuts=st.sets(st.integers(1, len(CHUNKED) - 1), max_size=8), text=st.sampled_from([WHOLE, CHUNKED]))
async def test_the_same_bytes_are_the_same_request_in_any_pieces(cuts: set[int], text: bytes) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    request = await parsed([text[start:end] for start, end in itertools.pairwise(edges)])
    assert request is not None
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a%20b", "x=1&y", b"hello")
    assert request.headers["x-one"] == "1, 2" and request.cookie("c") == "d" and request.cookie("e") is None


@asynccontextmanager
async def running() -> AsyncIterator[int]:
    """An echo; gives its port."""

    async def echo(request: Request) -> Reply:
        return Reply(200, request.body)

    server = LoopbackHttp(echo, "127.0.0.1")
    origin = await server.start(0)
    try:
        yield int(origin.rpartition(":")[2])
    finally:
        await server.stop()


async def said(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await reader.read()
    except ConnectionError:
        return b""  # closed while we were sending
    finally:
        writer.close()


@pytest.mark.parametrize(
    "wrong",
    [
        b"no http\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: HERE\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000,
        b"POST / HTTP/1.1\r\nHost: HERE\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: HERE\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: HERE\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HERE\r\nAuthorization: a\r\nauthorization: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: HERE\r\nDPoP: a\r\nDPoP: b\r\n\r\n",
    ],
)
async def test_what_is_no_proper_request_is_not_answered_as_one(wrong: bytes) -> None:
    async with running() as port:
        here = b"127.0.0.1:%d" % port
        answer = await said(port, wrong.replace(b"HERE", here))
        assert answer[:13] in (b"", b"HTTP/1.1 400 ")
        right = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\n\r\nhi" % here
        assert (await said(port, right)).endswith(b"\r\n\r\nhi")


async def test_it_ends_at_once_whoever_is_connected() -> None:
    async with running() as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        idle[0][1].write(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.01)
        late = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 1
    for _, writer in (*idle, late):
        writer.close()


def test_its_names_are_loaded_when_they_are_used() -> None:
    assert set(garrison.testing.__all__) == set(garrison.testing._NAMES)
    for name in garrison.testing.__all__:
        assert getattr(garrison.testing, name).__name__ == name and name in dir(garrison.testing)
    with pytest.raises(AttributeError):
        garrison.testing.Nothing  # noqa: B018
    program = "import garrison.testing, sys; print([m for m in sys.modules if 'oauth' in m or 'httptools' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
