"""The address on this machine where the browser brings the answer of an authorization server.

Rules of this file:
- It is bound before the browser opens and kept until the answer is there: a port that is free in between could be
  somebody else's. It is a literal loopback address, or every address of `localhost` where that is what is registered.
- Whoever is on this machine may connect, and every page in the browser may send a request. So: the exact Host and path,
  GET alone, 8 KiB of head, five seconds for it, and a bounded number of connections. A connection does not wait for
  another one.
- What the answer is worth is for the judge to say. What it does not take is answered and forgotten, and the listener
  listens on. What it takes ends the listening.
- Pages are constant: nothing of a request stands in one, and their policy loads nothing.

Spec: RFC 8252 sections 7.3 and 8.3; RFC 9110; RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from ... import events
from ...errors import AuthorizationFailed, ConfigurationError, ConnectionFailed
from ..urls import check_url, is_loopback_url

__all__ = ["RedirectListener"]

T = TypeVar("T")

_HEAD: Final = 8 * 1024
"""Bytes of a request's head."""
_CONNECTIONS: Final = 32
"""Connections at a time; another one is closed."""

_REQUEST: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]{1,8192}) HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_FIXED: Final = re.compile(r"/[A-Za-z0-9\-._~/]*")

_PAGE: Final = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    "<body><h1>{title}</h1><p>{text}</p></body></html>"
)
_TAKEN: Final = (
    "Answer received",
    "You can close this window and return to the program, which says whether it worked.",
)
_NOT_TAKEN: Final = ("Nothing to see here", "This is not an answer that a program is waiting for.")
_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
}


class RedirectListener:
    """Waits on loopback for one answer.

        async with RedirectListener() as listener:
            answer = await listener.receive(judge)

    Args:
        redirect_uri: the registered one: `http` on `127.0.0.1`, `[::1]` or `localhost`, with a path and without a
            query. Without a port, or with port 0, any free one is taken. None: `127.0.0.1`, a free port, and a path
            that nobody can guess.
        patience: seconds that a connection has to send its request.

    Raises:
        ConfigurationError: `redirect_uri` is not of this form.
    """

    def __init__(self, redirect_uri: str | None = None, *, patience: float = 5.0) -> None:
        self._host, self._port, self._path = _taken_apart(redirect_uri)
        self._patience = patience
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._judge: Callable[[str], bool] | None = None

    @property
    def redirect_uri(self) -> str:
        """The address, with the port that is bound."""
        return f"http://{self._host}:{self._port}{self._path}"

    async def __aenter__(self) -> Self:
        """Bind.

        Raises:
            ConnectionFailed: the port belongs to another program, or this machine has no loopback.
        """
        for listening in self._bound():
            self._servers.append(await asyncio.start_server(self._connected, sock=listening, limit=_HEAD))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._judge = None
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()  # the page of the answer was written in the same step that took it, and is sent still
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def receive(self, judge: Callable[[str], T | None]) -> T:
        """Wait for a delivery that counts.

        Args:
            judge: is given the query of each delivery at the address. It returns None for one that is not awaited, and
                what the answer is for the one that is; or raises `AuthorizationFailed`, which ends the waiting too.

        Returns:
            What the judge returned.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def judged(query: str) -> bool:
            try:
                found = judge(query)
            except AuthorizationFailed as exc:
                answer.set_exception(exc)
            else:
                if found is None:
                    return False
                answer.set_result(found)
            self._judge = None
            return True

        self._judge = judged
        try:
            return await answer
        finally:
            self._judge = None

    def _bound(self) -> list[socket.socket]:
        """Sockets at the address; of `localhost`, at both of its addresses where both exist."""
        families = {
            "127.0.0.1": ((socket.AF_INET, "127.0.0.1"),),
            "[::1]": ((socket.AF_INET6, "::1"),),
            "localhost": ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")),
        }[self._host]
        made: list[socket.socket] = []
        try:
            for family, address in families:
                if made and not _has(family, address):
                    continue  # a machine without IPv6
                made.append(_listening(family, address, self._port))
                self._port = int(made[-1].getsockname()[1])
        except OSError as exc:
            for each in made:
                each.close()
            raise ConnectionFailed(
                f"the answer of the authorization server cannot be taken at {self._host}:{self._port}: "
                f"{exc.strerror or 'not available'} (redirect_uri)"
            ) from None
        return made

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(self._patience):
                    status = await self._status(reader)
                    writer.write(_answer(status))
                    await writer.drain()
        except TimeoutError:
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _status(self, reader: asyncio.StreamReader) -> int:
        """Read a request and judge it."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return 431
        except asyncio.IncompleteReadError:
            return 400
        first, *lines = head[:-4].split(b"\r\n")
        request = _REQUEST.fullmatch(first)
        fields = [_FIELD.fullmatch(line) for line in lines]
        if request is None or None in fields:
            return 400
        named = [(match[1].lower(), match[2]) for match in fields if match is not None]
        hosts = [value for name, value in named if name == b"host"]
        if request[1] != b"GET":
            return 405
        if len(hosts) != 1 or any(name in (b"content-length", b"transfer-encoding") for name, _ in named):
            return 400
        if hosts[0].lower() != f"{self._host}:{self._port}".encode():
            events.record("host.refused", "a request to the redirect listener has the Host of another site")
            return 421
        path, _, query = request[2].decode("ascii").partition("?")
        if not secrets.compare_digest(path, self._path):
            return 404
        judge = self._judge
        return 404 if judge is None else 200 if judge(query) else 400


def _taken_apart(redirect_uri: str | None) -> tuple[str, int, str]:
    """Host as in a URL, port or 0, path."""
    if redirect_uri is None:
        return "127.0.0.1", 0, f"/callback/{secrets.token_urlsafe(16)}"
    try:
        uri = check_url(redirect_uri, "redirect_uri")
        parts = urlsplit(redirect_uri)
        port = parts.port
    except ValueError as exc:
        raise ConfigurationError(f"redirect_uri: {exc}") from None
    if uri.scheme != "http" or not is_loopback_url(redirect_uri):
        raise ConfigurationError("redirect_uri: this program listens on http and loopback alone")
    if uri.query is not None or not _FIXED.fullmatch(uri.path):
        raise ConfigurationError("redirect_uri: a path of plain characters, without a query")
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host, port or 0, uri.path


def _has(family: int, address: str) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _listening(family: int, address: str, port: int) -> socket.socket:
    """A socket that no other program shares."""
    made = socket.socket(family)
    try:
        if sys.platform == "win32":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(_CONNECTIONS)
    except OSError:
        made.close()
        raise
    return made


def _answer(status: int) -> bytes:
    title, text = _TAKEN if status == 200 else _NOT_TAKEN
    body = _PAGE.format(title=title, text=text).encode()
    head = (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
        + ("Allow: GET\r\n" if status == 405 else "")
        + "Content-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
        "Referrer-Policy: no-referrer\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "X-Frame-Options: DENY\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
