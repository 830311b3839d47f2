"""HTTP/1.1 connections of a client to one origin, kept open and used again.

Rules of this file:
- One request at a time on a connection; its response goes to one `ResponseHandler`, by plain calls, without a task.
- A response head is bounded while it is read (`Limits.header_bytes`, `Limits.header_count`); the body is counted by the
  handler, which knows whether it is one message or a stream.
- A connection that said anything unexpected (bytes nobody asked for, bytes after a response) is never used again.
- Nothing is sent twice here. A handler learns whether the connection died before any byte of the answer came on a
  connection that had been used before; what may be sent again is the caller's to know.
- Content codings are refused: a compressed body would escape the byte caps.
- Over TLS, the certificate, its name and its pins are checked before a connection is handed out, so before any request.

Spec: RFC 9112.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from ...errors import ClientError, ConfigurationError, ConnectionFailed, ConnectionLost, ProtocolViolation
from ..dial import dial
from .tunnel import Proxy, Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...policy import Limits, Timeouts
    from ...policy.tls import TlsClientConfig
    from ...policy.transports import UnixSocketConfig
    from .url import Endpoint

__all__ = ["Connection", "Pool", "ResponseHandler"]

_ATTEMPTS: Final = 3
"""Tries to open one connection, all within `Timeouts.connect`."""
_PEEK_AFTER: Final = 0.25
"""Seconds of rest after which a kept connection is asked whether the server closed it."""


class ResponseHandler(Protocol):
    """Takes one response. Exactly one of `done` and `failed` is called, last."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The head came. Names are in lower case; a repeated field is joined with commas. May raise `ClientError`."""
        ...

    def data(self, chunk: bytes) -> None:
        """Some of the body came. May raise `ClientError`, which ends the connection."""
        ...

    def done(self) -> None:
        """The response is complete, and its connection is free already."""
        ...

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        """No complete response. `untouched`: a used connection closed before any byte of an answer."""
        ...


class Connection(asyncio.Protocol):
    """One connection. Made by `Pool`; a caller uses `send` and `abort`."""

    __slots__ = (
        "_answered",
        "_bounded",
        "_complete",
        "_error",
        "_extra",
        "_field_bytes",
        "_handler",
        "_head_bytes",
        "_headers",
        "_in_body",
        "_keep",
        "_limits",
        "_parser",
        "_pool",
        "_reused",
        "_transport",
        "_used",
        "counted",
        "rested",
    )

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool = pool
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._handler: ResponseHandler | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._used = False
        self._reused = False
        self.counted = False
        """True while the pool's limit counts this connection."""
        self.rested = 0.0
        """Loop time at which it was last put back."""
        self._reset()

    def _reset(self) -> None:
        self._answered = self._in_body = self._complete = self._extra = self._bounded = False
        self._keep = False
        self._head_bytes = self._field_bytes = 0
        self._headers: dict[str, str] = {}
        self._error: ClientError | None = None

    # What a caller does.

    def send(self, request: bytes, handler: ResponseHandler) -> bool:
        """Writes one request, head and body, and gives the response to `handler`.

        Returns:
            False when the connection is closed: nothing was written, and the handler will hear nothing.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self._reset()
        self._reused, self._used = self._used, True
        self._handler = handler
        transport.write(request)
        return True

    def abort(self) -> None:
        """Closes at once; the handler hears nothing more."""
        self._handler = None
        if self._transport is not None:
            self._transport.abort()

    def check_pins(self, pins: tuple[str, ...]) -> None:
        """Compares the server's key with the pins, if there are any. Raises `ConnectionFailed`."""
        if pins and self._transport is not None:
            from ..tls import check_pins

            check_pins(self._transport.get_extra_info("ssl_object"), pins)

    @property
    def usable(self) -> bool:
        """True when a request may be written: open, and not closed by the server as far as can be seen."""
        return self._transport is not None and not self._transport.is_closing()

    def closed_by_peer(self) -> bool:
        """True when the server closed or spoke while the connection rested. Costs one system call."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._handler is None:
            self.abort()
            return
        self._answered = True
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._complete:
                self._extra = True  # what follows a whole response is not part of it
            else:
                self._error = self._error or ProtocolViolation("The server's answer is not HTTP/1.1")
        if not self._in_body and not self._complete and self._head_bytes > self._limits.header_bytes:
            self._error = self._error or ProtocolViolation("The head of the response is too large")
        if self._error is not None:
            self._fail(self._error)
        elif self._complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handler is not None:
            if self._in_body and not self._bounded and exc is None:
                self._keep = False
                self._finish()
            else:
                error = self._ended(exc)
                self._fail(error, untouched=self._reused and not self._answered)
        self._transport = None
        self._pool.gone(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._error is not None or self._complete:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._field_bytes += len(name) + len(value) + 4
        if len(headers) > self._limits.header_count or self._field_bytes > self._limits.header_bytes:
            self._error = ProtocolViolation("The head of the response is too large")

    def on_headers_complete(self) -> None:
        if self._error is not None or self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        headers = self._headers
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            self._error = ProtocolViolation("The server sent a compressed body, which was not asked for")
            return
        self._in_body = True
        self._bounded = "content-length" in headers or "transfer-encoding" in headers
        if self._handler is not None:
            try:
                self._handler.head(status, headers)
            except ClientError as exc:
                self._error = exc

    def on_body(self, data: bytes) -> None:
        if self._error is None and self._handler is not None and not self._complete:
            try:
                self._handler.data(data)
            except ClientError as exc:
                self._error = exc

    def on_message_complete(self) -> None:
        if self._error is None and self._in_body and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # Endings.

    def _finish(self) -> None:
        handler, self._handler = self._handler, None
        if self._keep and not self._extra and self.usable:
            self._pool.release(self)
        elif self._transport is not None:
            self._transport.close()
        if handler is not None:
            handler.done()

    def _ended(self, exc: Exception | None) -> ClientError:
        what = "The connection ended before the response did"
        if self._transport is None or self._transport.get_extra_info("ssl_object") is None:
            return ConnectionLost(what)
        from ..tls import ended

        return ended(what, exc, fresh=not self._reused and not self._answered)

    def _fail(self, error: ClientError, *, untouched: bool = False) -> None:
        handler, self._handler = self._handler, None
        if self._transport is not None:
            self._transport.abort()
        if handler is not None:
            handler.failed(error, untouched=untouched)


class Pool:
    """Connections to one endpoint's origin.

    Args:
        endpoint: where to connect.
        limits, timeouts: `connect` bounds opening, TLS and proxy included; `idle` bounds resting.
        most: connections at once; further requests wait for a free one. Streams opened with `extra` are not counted.
        proxy: `http://[user:password@]host:port` of an HTTP proxy, used with CONNECT; only for https endpoints.
        tls: whom to believe, in place of the platform's roots; only for https endpoints.
        unix_socket: a Unix socket to connect to instead; the endpoint then only says what is asked for.
        address: the numeric address to connect to, in place of looking up the endpoint's host.

    Raises:
        ConfigurationError: the proxy's address is wrong, a file of `tls` cannot be used, or the settings do not belong
            together.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limits: Limits,
        timeouts: Timeouts,
        most: int = 32,
        proxy: str | None = None,
        tls: TlsClientConfig | ssl.SSLContext | None = None,
        unix_socket: UnixSocketConfig | None = None,
        address: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._limits = limits
        self._timeouts = timeouts
        self._most = most
        self._proxy = Proxy(proxy) if proxy is not None else None
        if self._proxy is not None and not endpoint.secure:
            raise ConfigurationError("proxy= is for https endpoints; plain http stays on loopback")
        if proxy is not None and unix_socket is not None:
            raise ConfigurationError("proxy= and unix_socket= are two ways to one server; give one")
        if tls is not None and not endpoint.secure:
            raise ConfigurationError("tls= is for https endpoints")
        self.unix_socket = unix_socket
        self._address = address
        self._pins = () if tls is None or isinstance(tls, ssl.SSLContext) else tls.pins
        self._context = _context(tls) if endpoint.secure else None
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._open = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def idle(self) -> Connection | None:
        """A connection that can be written to at once, or None."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            rest = now - connection.rested
            fresh = rest < self._timeouts.idle and not (rest > _PEEK_AFTER and connection.closed_by_peer())
            if connection.usable and fresh:
                return connection
            connection.abort()
        return None

    async def connection(self, *, extra: bool = False) -> Connection:
        """A connection to write to; waits for a free one, or opens one.

        Args:
            extra: for a long-lived stream: always a connection of its own, outside the limit.

        Raises:
            ConnectionFailed: none could be opened.
        """
        while not extra:
            connection = self.idle()
            if connection is not None:
                return connection
            if self._open < self._most:
                break
            waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                handed = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._pass_on(waiter.result())
                raise
            if handed is not None and handed.usable:
                return handed
        if self._closed:
            raise ConnectionFailed("The client is closed")
        if extra:
            return await self._connect()
        self._open += 1
        try:
            connection = await self._connect()
        except BaseException:  # the place in the count must be given back whatever ended the attempt
            self._open -= 1
            self._pass_on(None)
            raise
        connection.counted = True
        return connection

    def release(self, connection: Connection) -> None:
        """Takes back a connection whose response is complete."""
        if self._closed or not connection.counted:
            connection.abort()
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        loop = asyncio.get_running_loop()
        connection.rested = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._timeouts.idle, self._sweep)

    def gone(self, connection: Connection) -> None:
        """Forgets a connection that is closed."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.counted:
            connection.counted = False
            self._open -= 1
            self._pass_on(None)

    def close(self) -> None:
        """Closes every connection. Handlers under way hear that theirs failed."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._all):
            connection.abort()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _pass_on(self, connection: Connection | None) -> None:
        """Gives a connection, or the right to open one, to the next in line."""
        if connection is not None and connection.usable:
            self.release(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._timeouts.idle
        for connection in tuple(self._idle):
            if connection.rested <= oldest:
                self._idle.remove(connection)
                connection.abort()
        self._sweeper = loop.call_later(self._timeouts.idle, self._sweep) if self._idle else None

    async def _connect(self) -> Connection:
        where = self.endpoint.origin if self.unix_socket is None else self.unix_socket.path
        try:
            async with asyncio.timeout(self._timeouts.connect):
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        connection = await self._open_one()
                        break
                    except ConnectionError:
                        if attempt == _ATTEMPTS:
                            raise
                    await asyncio.sleep(_backoff(attempt))
                else:  # pragma: no cover - the loop ends by break or raise
                    raise ConnectionFailed(where)
        except TimeoutError:
            raise ConnectionFailed(f"{where} did not answer within {self._timeouts.connect:g} s") from None
        except ssl.SSLError as exc:
            from ..tls import explain

            raise ConnectionFailed(f"{where}: {explain(exc)}") from exc
        except OSError as exc:
            raise ConnectionFailed(f"{where}: {exc.strerror or type(exc).__name__}") from exc
        if not connection.usable or self._closed:
            connection.abort()
            raise ConnectionFailed(f"{where} closed the connection at once")
        self._all.add(connection)
        return connection

    async def _open_one(self) -> Connection:
        connection = await (self._through_proxy(self._proxy) if self._proxy is not None else self._direct())
        try:
            connection.check_pins(self._pins)
        except ConnectionFailed:
            connection.abort()
            raise
        return connection

    async def _direct(self) -> Connection:
        loop = asyncio.get_running_loop()
        endpoint = self.endpoint
        context = self._context

        def make() -> Connection:
            return Connection(self, self._limits)

        if self.unix_socket is not None:
            from ..unix import connect as connect_unix

            _, connection = await loop.create_unix_connection(
                make,
                sock=connect_unix(self.unix_socket),
                ssl=context,
                server_hostname=endpoint.host if context is not None else None,
                ssl_handshake_timeout=self._timeouts.connect if context is not None else None,
            )
            return connection
        _, connection = await dial(
            make, endpoint, context=context, timeout=self._timeouts.connect, address=self._address
        )
        return connection

    async def _through_proxy(self, proxy: Proxy) -> Connection:
        loop = asyncio.get_running_loop()
        endpoint = self.endpoint
        transport, tunnel = await loop.create_connection(
            lambda: Tunnel(self._limits.header_bytes), proxy.host, proxy.port
        )
        try:
            tunnel.ask(proxy.connect(endpoint))
            await tunnel.open
            connection = Connection(self, self._limits)
            secured = await loop.start_tls(
                transport,
                connection,
                cast("ssl.SSLContext", self._context),
                server_hostname=endpoint.host,
                ssl_handshake_timeout=self._timeouts.connect,
            )
        except BaseException:  # the socket must not outlive the attempt
            transport.abort()
            raise
        if secured is None:
            raise ConnectionFailed(f"{endpoint.origin} closed the connection at once")
        connection.connection_made(secured)
        return connection


def _context(tls: TlsClientConfig | ssl.SSLContext | None) -> ssl.SSLContext:
    from ..tls import client_context  # lazy: a client of plain http on loopback never needs it

    return client_context(tls)


def _backoff(attempt: int) -> float:
    """Seconds before the next try: doubling, with jitter of half."""
    import secrets

    return 0.1 * 2**attempt * (0.5 + secrets.randbelow(1000) / 2000)
