"""HTTP with SSE, the transport of 2024-11-05: a stream for what the server says, a POST for what the client says.

Rules of this file:
- Served only where the server asks for it, behind the same gate as the newer transport.
- A stream and its session are one: the session begins with the stream, ends with it, and belongs to the principal who
  opened it. Its address for POST cannot be guessed, and is 404 for everybody else.
- Every answer goes on the stream. What waits there for a slow reader is bounded by the exchange, and requests under way
  by `Limits.in_flight`; past that a POST is refused. `Limits.malformed_per_minute` ends the stream.
- A stream without a POST for `Timeouts.session_idle` is ended, and any after `Timeouts.session_max`.

Spec: 2024-11-05 basic/transports "HTTP with SSE".
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import BadRequest, Overloaded, Refused
from ..protocol.revisions import get
from ..protocol.sse import encode_event
from ..transports.flood import Meter
from .duplex import DuplexConnection
from .sessions import Session, SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..policy.principal import Principal
    from ..protocol.revisions import Revision
    from ..transports.http.exchange import Application, Exchange, Head
    from .core import Core

__all__ = ["ENDPOINTS", "HttpSse", "HttpSseApplication"]

log = logging.getLogger("garrison.http")

_STREAM: Final = "/sse"
_MESSAGES: Final = "/messages/"
_REVISION: Final = "2024-11-05"

ENDPOINTS: Final[Mapping[str, frozenset[bytes]]] = {_STREAM: frozenset({b"GET"}), _MESSAGES: frozenset({b"POST"})}
"""The two paths, and the HTTP methods each answers."""


class _Stream:
    """What is kept for a session: its response, and the connection that speaks through it."""

    __slots__ = ("connection", "exchange", "meter", "timer")

    def __init__(
        self, core: Core, principal: Principal, exchange: Exchange, malformed: Callable[[], None], address: str
    ) -> None:
        self.exchange = exchange
        self.meter = Meter(core.policy.limits)
        self.connection = DuplexConnection(
            core, self.send, principal=principal, drain=exchange.drain, malformed=malformed, address=address
        )
        self.timer: asyncio.TimerHandle | None = None

    def send(self, message: bytes) -> None:
        self.exchange.send_event(encode_event(message, event="message"))


class HttpSse:
    """The streams of one listener.

    Args:
        core: the running server.
        loop: the loop the listener runs on.
    """

    def __init__(self, core: Core, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._timeouts = core.policy.timeouts
        self.store = SessionStore(core.policy.limits, core.policy.timeouts)
        self.store.on_close = self._closed

    def open(self, head: Head, exchange: Exchange) -> None:
        """Open a stream; its first event is the address for POST.

        Raises:
            Refused: the client takes no events, or there are `Limits.sessions` already.
        """
        accept = head.fields.get(b"accept", b"")
        if b"text/event-stream" not in accept and b"*/*" not in accept:
            raise BadRequest("Accept must list text/event-stream", status=406)
        session = Session(secrets.token_urlsafe(32), cast("Revision", get(_REVISION)), head.principal, {}, None)
        session.extra = _Stream(
            self._core,
            head.principal,
            exchange,
            lambda: self._malformed(session),
            head.client or head.peer.address,
        )
        self.store.add(session)
        exchange.start_stream()
        exchange.on_gone = lambda: self.store.remove(session)
        exchange.send_event(encode_event(_address(head, session.id), event="endpoint"))
        self._look(session)

    def take(self, head: Head, body: bytes, exchange: Exchange) -> None:
        """Take one message of the client.

        Raises:
            Refused: the address is not that of a stream of this principal, or too much is under way.
        """
        session = self.store.get(_session_id(head.query), head.principal, head.credential)
        if session is None:
            raise BadRequest("Session not found", status=404)
        connection = cast("_Stream", session.extra).connection
        connection.authenticated(head.principal, head.credential)
        if connection.saturated:
            raise Overloaded("Too many requests under way in this session", hint="Limits.in_flight")
        exchange.respond(202, b"")
        connection.receive(body)

    def close(self) -> None:
        """End all streams."""
        self.store.close()

    def _look(self, session: Session) -> None:
        """End the stream if it was idle too long or is too old; otherwise look again when it may be."""
        idle, age = session.used + self._timeouts.session_idle, session.began + self._timeouts.session_max
        left = min(idle, age) - time.monotonic()
        if left <= 0:
            log.info("event stream ended (%s)", "Timeouts.session_idle" if idle < age else "Timeouts.session_max")
            self.store.remove(session)
        else:
            cast("_Stream", session.extra).timer = self._loop.call_later(left, self._look, session)

    def _malformed(self, session: Session) -> None:
        stream = cast("_Stream", session.extra)
        if stream.meter.malformed(self._loop.time()):
            events.record("limit.reached", "too many malformed messages", setting="Limits.malformed_per_minute")
            self.store.remove(session)

    def _closed(self, session: Session) -> None:
        stream = cast("_Stream", session.extra)
        if stream.timer is not None:
            stream.timer.cancel()
        stream.connection.close()
        stream.exchange.on_gone = None
        stream.exchange.end_stream()


class HttpSseApplication:
    """An application with the two paths of this transport beside its own.

    Args:
        inner: serves every other path; its gate has let the two paths through.
        streams: serves these.
    """

    def __init__(self, inner: Application, streams: HttpSse) -> None:
        self._inner = inner
        self._streams = streams
        self.check = inner.check
        self.refusal = inner.refusal
        self.upgrade = inner.upgrade
        self.lasting = inner.lasting
        self.upgrade = inner.upgrade

    def handle(self, head: Head, body: bytes, exchange: Exchange) -> None:
        """Answer one request. Never raises for what the peer sent."""
        path = head.path.decode("latin-1")
        if head.method not in ENDPOINTS.get(path, ()):  # a preflight too: it is nobody's, and opens nothing
            self._inner.handle(head, body, exchange)
            return
        try:
            if path == _STREAM:
                self._streams.open(head, exchange)
            else:
                self._streams.take(head, body, exchange)
        except Refused as exc:
            exc.peer = head.client or head.peer.address
            exchange.respond(*self.refusal(exc))


def _address(head: Head, identifier: str) -> bytes:
    """The path for POST, seen from the origin, so that it also holds where the application is mounted."""
    prefix = ""
    if head.root:
        from urllib.parse import quote

        prefix = "/" + quote(head.root).strip("/")
    return f"{prefix}{_MESSAGES}?sessionId={identifier}".encode()


def _session_id(query: bytes) -> str:
    """The one `sessionId` of a query; empty, which names no session, if there is not exactly one."""
    given = [value for name, _, value in (part.partition(b"=") for part in query.split(b"&")) if name == b"sessionId"]
    return given[0].decode("latin-1") if len(given) == 1 else ""
