"""The handshake revisions over HTTP: sessions, the GET stream, resumption, and batches of 2025-03-26.

Rules of this file:
- A session is found by its id and its principal together; anything else is 404, and looks the same.
- A peer that goes away has not cancelled anything: its request runs on, and its events wait for its return.
- Without sessions (`stateless`), every request stands alone and nothing can be asked back.

Spec: 2025-11-25 basic/transports "Streamable HTTP"; 2025-03-26 basic/transports.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from ..errors import BadRequest, InsufficientScope, InvalidRequest, McpError, TooManyRequests
from ..protocol.envelope import Notification, Request, Response, encode_notification, encode_result
from ..protocol.revisions import LEGACY, get
from .disclosure import about_message, disclose, encode_failure
from .duplex import Batch
from .sessions import Session, SessionStore
from .streams import Stream, Streams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..protocol.envelope import Message
    from ..protocol.revisions import Revision
    from ..transports.http.exchange import Exchange, Head
    from .core import Core
    from .running import Running

__all__ = ["LegacyHttp"]

_ASSUMED: Final = "2025-03-26"
_PRIMED: Final = frozenset({"2025-11-25"})


class _State:
    """What HTTP keeps for a session."""

    __slots__ = ("running", "streams")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.running: dict[int | str, Running] = {}


class _Channel:
    """The response to one legacy request: an object, or a stream that can be left and resumed."""

    __slots__ = ("_deliver", "_exchange", "_insufficient", "_over", "_session", "_stream", "_streams", "timer")

    def __init__(
        self,
        session: Session,
        streams: Streams,
        exchange: Exchange | None,
        deliver: Callable[[bytes], None] | None = None,
        insufficient: Callable[[tuple[str, ...]], bytes] = lambda scopes: b"",
    ) -> None:
        self._insufficient = insufficient
        self._session = session
        self._streams = streams
        self._exchange = exchange
        self._deliver = deliver
        self._stream: Stream | None = None
        self._over = False
        self.timer: asyncio.TimerHandle | None = None
        if exchange is not None:
            exchange.on_gone = self._gone

    def _gone(self) -> None:
        self._exchange = None

    def _open(self) -> Stream:
        stream = self._stream
        if stream is None:
            stream = self._stream = self._streams.new() if self._exchange is not None else self._streams.general
            if self._exchange is not None:
                self._exchange.start_stream()
                stream.attach(self._exchange, prime=self._session.revision.version in _PRIMED)
        return stream

    def open(self) -> None:
        """Turn the response into a stream, which is kept alive and can be resumed, if the answer is not out."""
        if not self._over and self._exchange is not None:
            self._open()

    def notify(self, method: str, params: dict[str, object]) -> None:
        if not self._over:
            shaped = self._session.revision.notification(method, params)
            self._open().send(encode_notification(method, shaped))

    async def drain(self) -> None:
        exchange = self._stream.exchange if self._stream is not None else self._exchange
        if exchange is not None:
            await exchange.drain()

    def ask(self, method: str, params: dict[str, object]) -> Awaitable[dict[str, object]]:
        return self._session.ask(method, params, self._open().send)

    def close_stream(self) -> None:
        if self._stream is not None and self._session.revision.version in _PRIMED:
            self._stream.leave()

    def deliver(self, status: int, body: bytes, error: McpError | None = None) -> None:
        """Send the answer; what comes after it is dropped."""
        self._over = True
        if self._deliver is not None:
            self._deliver(body)
        elif self._stream is not None and self._stream is not self._streams.general:
            self._stream.send(body)
            self._stream.finish()
        elif self._exchange is not None:
            if isinstance(error, InsufficientScope):
                self._exchange.respond(error.http_status, body, self._insufficient(error.scopes))
                return
            # Other errors of the desk are answers, and a status of their own would hide them from handshake clients.
            self._exchange.respond(200, body)

    def cancelled(self) -> None:
        """The call is over; if it was not answered, end what is open."""
        if self._over:
            return
        self._over = True
        if self._deliver is not None:
            self._deliver(b"")
        elif self._stream is not None and self._stream is not self._streams.general:
            self._stream.finish()
        elif self._exchange is not None:
            self._exchange.respond(202, b"")


def _busy(session: Session) -> bool:
    state = cast("_State", session.extra)
    return bool(state.running) or state.streams.general.exchange is not None


class LegacyHttp:
    """Serves handshake revisions on one listener.

    Args:
        core: the running server.
        stateless: hand out no sessions.
    """

    def __init__(self, core: Core, *, stateless: bool) -> None:
        self._core = core
        self._stateless = stateless
        self.store = SessionStore(core.policy.limits, core.policy.timeouts)
        self.store.on_close = self._closed
        self.store.busy = _busy
        self.insufficient: Callable[[tuple[str, ...]], bytes] = lambda scopes: b""
        """Header lines that name scopes which are needed."""
        self._timer: asyncio.TimerHandle | None = None

    def _closed(self, session: Session) -> None:
        self._core.legacy.leave(session)
        state = cast("_State", session.extra)
        for running in tuple(state.running.values()):
            running.cancel()
        state.streams.close()

    def _sweep_later(self) -> None:
        """As long as there are sessions, end those that nobody uses and those that are too old."""
        if self._timer is None:
            timeouts = self._core.policy.timeouts
            pause = min(timeouts.session_idle, timeouts.session_max) / 2
            self._timer = asyncio.get_running_loop().call_later(pause, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        self.store.sweep()
        if len(self.store):
            self._sweep_later()

    def close(self) -> None:
        """End all sessions."""
        if self._timer is not None:
            self._timer.cancel()
        self.store.close()

    def _streams(self) -> Streams:
        limits = self._core.policy.limits
        return Streams(limits.session_events, limits.session_event_bytes)

    def _session(self, head: Head) -> Session:
        """The session this request belongs to.

        Raises:
            BadRequest: 404 for an id that names none of this principal's sessions; 400 without one, or for a version
                that no handshake leads to.
        """
        version = head.text(b"mcp-protocol-version")
        if version is None:
            version = _ASSUMED
        if version not in LEGACY:
            raise BadRequest("MCP-Protocol-Version is not one of a session")
        given = head.text(b"mcp-session-id")
        if given is not None and not self._stateless:
            session = self.store.get(given, head.principal, head.credential)
            if session is None:
                raise BadRequest("Session not found", status=404)
            session.address = head.client or head.peer.address
            return session
        if not self._stateless:
            raise BadRequest("Mcp-Session-Id is required: begin with initialize")
        session = Session("", cast("Revision", get(version)), head.principal, {}, None)
        session.extra, session.credential = _State(self._streams()), head.credential
        session.address = head.client or head.peer.address
        return session

    def post(self, head: Head, message: Message, exchange: Exchange) -> None:
        """Take one message.

        Raises:
            McpError: it is wrong.
            Refused: it belongs to no session.
        """
        if type(message) is Request and message.method == "initialize" and b"mcp-session-id" not in head.fields:
            self._initialize(head, message, exchange)
            return
        session = self._session(head)
        if type(message) is Request:
            try:
                self._request(message, session, exchange, None)
            except McpError as exc:
                exc.request_id = message.id
                self._told(exc, message, session)
                if exc.violation:
                    exchange.malformed()
                exchange.respond(200, encode_failure(message.id, exc, session.revision))
            return
        self._one_way(message, session, exchange)
        exchange.respond(202, b"")

    def _told(self, error: McpError, message: Message | None, session: Session) -> None:
        """Have it on record that a message never became a call."""
        server = self._core.runner.name
        disclose(error, "message", None, about_message(server, session.principal, session.address, message, error))

    def _one_way(self, message: Message, session: Session, exchange: Exchange) -> None:
        if type(message) is Response:
            if not session.answer(message):
                exchange.malformed()  # nobody asked
        elif type(message) is Notification and message.method == "notifications/cancelled":
            identifier = message.params.get("requestId")
            if type(identifier) is int or type(identifier) is str:
                running = cast("_State", session.extra).running.get(identifier)
                if running is not None:
                    running.cancel()

    def _initialize(self, head: Head, request: Request, exchange: Exchange) -> None:
        try:
            session, result = self._core.legacy.initialize(request, head.principal)
        except McpError as exc:
            exc.request_id = request.id
            raise
        fields = b""
        if not self._stateless:
            streams = self._streams()
            session.extra = _State(streams)
            self.store.add(session)
            self._sweep_later()
            revision = session.revision

            def told(method: str, params: dict[str, object]) -> None:
                streams.general.send(encode_notification(method, revision.notification(method, params)))

            self._core.legacy.listen(session, told)
            fields = b"mcp-session-id: %b\r\n" % session.id.encode()
        exchange.respond(200, encode_result(request.id, result), fields)

    def _request(
        self, request: Request, session: Session, exchange: Exchange | None, deliver: Callable[[bytes], None] | None
    ) -> None:
        state = cast("_State", session.extra)
        identifier = request.id
        if identifier in state.running:
            raise InvalidRequest("A request with this id is under way")
        if len(state.running) >= self._core.policy.limits.in_flight:
            raise TooManyRequests("Limits.in_flight")
        result = self._core.legacy.local(request, session)
        if result is not None:
            body = encode_result(identifier, result)
            if exchange is not None:
                exchange.respond(200, body)
            elif deliver is not None:
                deliver(body)
            return
        channel = _Channel(session, state.streams, exchange, deliver, self.insufficient)
        call = self._core.legacy.call(request, session, channel)

        def ended() -> None:
            state.running.pop(identifier, None)
            if channel.timer is not None:
                channel.timer.cancel()
                channel.timer = None
            channel.cancelled()

        running = self._core.runner.begin(call, channel.deliver, ended)
        if running is not None:
            state.running[identifier] = running
            if exchange is not None:
                pause = self._core.policy.timeouts.keep_alive
                channel.timer = asyncio.get_running_loop().call_later(pause, channel.open)

    def batch(self, head: Head, items: list[object], exchange: Exchange) -> None:
        """Take a batch: the responses go out as one array.

        Raises:
            InvalidRequest: this client's revision has no batches, or the batch is empty or too large.
        """
        session = self._session(head)
        most = self._core.policy.limits.batch
        if not session.revision.batches or not 1 <= len(items) <= most:
            raise InvalidRequest(f"A batch has 1 to {most} messages, and only in revision 2025-03-26")
        if not any(type(item) is not dict or ("method" in item and "id" in item) for item in items):
            for item in items:
                self._one_way(self._core.parse(item), session, exchange)
            exchange.respond(202, b"")
            return

        def take(item: object, send: Callable[[bytes], None]) -> None:
            message = self._core.parse(item)
            if type(message) is not Request:
                self._one_way(message, session, exchange)
                return
            if message.method == "initialize":
                raise InvalidRequest("initialize is not part of a batch")
            try:
                self._request(message, session, None, send)
            except McpError as exc:
                exc.request_id = message.id
                raise

        def refuse(error: McpError, send: Callable[[bytes], None]) -> None:
            self._told(error, None, session)
            if error.violation:
                exchange.malformed()
            if not (isinstance(error, InvalidRequest) and error.of_notification):
                send(encode_failure(error.request_id, error, session.revision))

        Batch(items, take, refuse, lambda body: exchange.respond(200, body))

    def get(self, head: Head, exchange: Exchange) -> None:
        """Open the session's own stream, or resume one.

        Raises:
            Refused: no such session, no such event, or the stream is open already.
        """
        if self._stateless:
            raise BadRequest("Method not allowed", status=405)
        session = self._session(head)
        accept = head.text(b"accept") or ""
        if "text/event-stream" not in accept and "*/*" not in accept:
            raise BadRequest("Accept must list text/event-stream", status=406)
        streams = cast("_State", session.extra).streams
        last = head.text(b"last-event-id")
        if last is not None:
            if not streams.resume(last, exchange):
                raise BadRequest("Last-Event-ID names no event of this session")
            return
        if streams.general.exchange is not None:
            raise BadRequest("This session's stream is open already", status=409)
        exchange.start_stream()
        streams.general.attach(exchange, prime=session.revision.version in _PRIMED)

    def delete(self, head: Head, exchange: Exchange) -> None:
        """End a session.

        Raises:
            Refused: no such session.
        """
        if self._stateless or head.method != b"DELETE":
            raise BadRequest("Method not allowed", status=405)
        self.store.remove(self._session(head))
        exchange.respond(200, b"")
