"""HTTP/1.1 on loopback: one request and one answer for each connection.

Rules of this file:
- Head, body and time of a request are bounded. What is no HTTP, or has a field twice that stands once, is answered 400.
- The listener is bound to 127.0.0.1 or ::1, and answers to its own names only, so that no web page reaches it by a name
  of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType
from typing import Final

import httptools

from ...errors import InsecureConfigurationError

__all__ = ["LoopbackHttp", "Reply", "Request"]

_HEAD: Final = 32 * 1024
_BODY: Final = 64 * 1024
_SECONDS: Final = 10.0
_PAUSE: Final = 0.05
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_ONCE: Final = frozenset({"authorization", "content-length", "content-type", "cookie", "dpop", "host", "origin"})


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    endpoint: str
    """The name of what is served at the path, as `token`; empty for a path of nothing."""
    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case; repeated fields joined with commas."""
    body: bytes = field(repr=False)

    def cookie(self, name: str) -> str | None:
        """A cookie's value."""
        try:
            found = SimpleCookie(self.headers.get("cookie", "")).get(name)
        except CookieError:
            return None
        return None if found is None else found.value


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class LoopbackHttp:
    """A listener on loopback.

    Args:
        answer: makes the reply to a request. Its `endpoint` is empty still.
        host: `127.0.0.1` or `::1`.

    Raises:
        InsecureConfigurationError: another host.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Reply]], host: str) -> None:
        if host not in _LOOPBACK:
            raise InsecureConfigurationError("host: a development server listens on 127.0.0.1 or ::1, nowhere else")
        self._answer = answer
        self._host = host
        self._names: frozenset[str] = frozenset()
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> str:
        """Listen.

        Args:
            port: where; 0 for one that is free.

        Returns:
            The origin, as `http://127.0.0.1:8080`.

        Raises:
            OSError: the port cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listening = socket.create_server((self._host, port), family=family)
        self._listening.setblocking(False)
        port = self._listening.getsockname()[1]
        name = f"[{self._host}]" if ":" in self._host else self._host
        self._names = frozenset({f"{name}:{port}", f"localhost:{port}"})
        self._accepting = asyncio.create_task(self._accept(self._listening))
        return f"http://{name}:{port}"

    async def stop(self) -> None:
        """End the listener and its connections."""
        listening, accepting, self._listening = self._listening, self._accepting, None
        if listening is None or accepting is None:
            return
        with contextlib.suppress(OSError):
            # Wakes the one who accepts. Cancelled, it could lose a connection that it was just given.
            socket.create_connection(listening.getsockname()[:2], timeout=1.0).close()
        await accepting
        listening.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to let go

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while self._listening is not None:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE)  # no room for one more
                continue
            task = asyncio.create_task(self._connected(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            task.add_done_callback(lambda _, connection=connection: connection.close())

    async def _connected(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_HEAD)
        try:
            async with asyncio.timeout(_SECONDS):
                request = await _read(reader)
            if request is None:
                reply = Reply(400)
            elif request.headers.get("host", "").lower() not in self._names:
                reply = Reply(421)
            else:
                reply = await self._answer(request)
            writer.write(_written(reply))
            async with asyncio.timeout(_SECONDS):
                await writer.drain()
        except (OSError, TimeoutError, EOFError):
            pass  # who asked has gone, or does not go on
        except asyncio.CancelledError:
            writer.transport.abort()  # the server ends
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


class _Parsed:
    """One request as llhttp tells it."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.size = 0
        self.whole = False
        self.wrong = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        if key in self.headers:
            self.wrong = self.wrong or key in _ONCE
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The request, or None where it is none."""
    parsed = _Parsed()
    parser = httptools.HttpRequestParser(parsed)
    size = 0
    while not parsed.whole:
        chunk = await reader.read(16 * 1024)
        size += len(chunk)
        if not chunk:
            raise EOFError
        try:
            parser.feed_data(chunk)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        if parsed.wrong or len(parsed.body) > _BODY or size > _HEAD + 2 * _BODY:
            return None
    path, _, query = parsed.url.decode("latin-1").partition("?")
    method = parser.get_method().decode("ascii")
    return Request("", method, path, query, MappingProxyType(parsed.headers), bytes(parsed.body))


def _written(reply: Reply) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    fields = (*reply.headers, ("Content-Length", str(len(reply.body))), ("Connection", "close"))
    head = f"HTTP/1.1 {reply.status} {phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return head.encode("latin-1") + b"\r\n" + reply.body
