"""A connection on which both sides send messages at any time: stdio, in memory, and whatever frames messages alike.

Rules of this file:
- Bytes of one message in, bytes of messages out through `send`; no transport is known here.
- Modern requests and a legacy handshake are served side by side; each request says itself which it is. One handshake
  per connection.
- A bad message gets its one error, or none where it was a notification, and the next message is served. It is told to
  `malformed`, as is a response that nobody waits for; whoever carries the bytes decides when it was one too many.
- Past `Limits.in_flight` the connection is saturated: the transport stops reading until a request ends.

Spec: 2026-07-28 basic/transports/stdio; 2025-11-25 basic/lifecycle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from ..errors import InvalidRequest, McpError, MessageTooLarge, RemoteError
from ..protocol.envelope import (
    Notification,
    Request,
    Response,
    encode_notification,
    encode_result,
)
from ..protocol.types import PROTOCOL_VERSION_KEY
from .call import modern_call, refused_handshake
from .disclosure import about_message, disclose, encode_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy.principal import Principal
    from ..protocol.envelope import Message
    from ..protocol.revisions import Revision
    from ..transports.peer import Credential
    from .core import Core
    from .running import Running
    from .sessions import Session

__all__ = ["DuplexConnection"]


_LOSSY: Final = frozenset({"notifications/progress", "notifications/message"})


class _Channel:
    """Where the messages of a connection's requests go; one for each era."""

    __slots__ = ("_connection", "_revision")

    def __init__(self, connection: DuplexConnection, revision: Revision | None) -> None:
        self._connection = connection
        self._revision = revision

    def notify(self, method: str, params: dict[str, object]) -> None:
        if self._revision is not None:
            params = self._revision.notification(method, params)
        connection = self._connection
        if connection.congested is None or not connection.congested():
            connection.send(encode_notification(method, params))
        elif method not in _LOSSY:
            # One of a kind is enough to tell that something changed, so what waits is bounded by what was subscribed.
            encoded = encode_notification(method, params)
            connection.waiting[encoded] = None

    async def drain(self) -> None:
        await self._connection.drain()

    def ask(self, method: str, params: dict[str, object]) -> Awaitable[dict[str, object]]:
        session = self._connection.session
        if session is None:
            raise RemoteError(-32601, "a modern client is not asked by request")
        return session.ask(method, params, self._connection.send)

    def close_stream(self) -> None:
        return


class DuplexConnection:
    """One connection.

    Args:
        core: the server.
        send: takes the bytes of one message without its delimiter.
        drain: returns when the peer has room; None where there is always room.
        principal: who is at the other end.
        resumed: called when a saturated connection has room again.
        congested: true while the peer does not read; progress and log messages are dropped meanwhile.
        malformed: called for each message that breaks the protocol, after its answer was sent.
        message_bytes: what the transport's cap is, where it is not the policy's.
        address: where it comes from: an IP address, or `unix`; empty for a pipe and memory.
    """

    def __init__(
        self,
        core: Core,
        send: Callable[[bytes], None],
        *,
        principal: Principal,
        drain: Callable[[], Awaitable[None]] | None = None,
        resumed: Callable[[], None] | None = None,
        congested: Callable[[], bool] | None = None,
        malformed: Callable[[], None] | None = None,
        message_bytes: int | None = None,
        address: str = "",
    ) -> None:
        self._core = core
        self._address = address
        self._message_bytes = message_bytes or core.policy.limits.message_bytes
        self.send = send
        self._drain = drain
        self._resumed = resumed
        self.congested = congested
        self._malformed = malformed
        self._principal = principal
        self._credential: Credential | None = None
        self._asked: Message | None = None
        """What is looked at, once it is a message."""
        self._most = core.policy.limits.in_flight
        self._decode = core.decode
        self._parse = core.parse
        self._in_flight: dict[int | str, Running] = {}
        self.session: Session | None = None
        self._channel = _Channel(self, None)
        self._legacy_channel: _Channel | None = None
        self.waiting: dict[bytes, None] = {}
        """Change notifications for when the peer reads again, each once."""
        self.dropped = 0
        """Messages that had no meaning here: responses nobody waits for, unknown notifications."""

    def authenticated(self, principal: Principal, credential: Credential | None) -> None:
        """What follows is sent by this principal, by what its credential allows."""
        self._principal, self._credential = principal, credential
        if self.session is not None:
            self.session.principal, self.session.credential = principal, credential

    @property
    def wants_loop(self) -> bool:
        """True if something waits for an event loop."""
        return self._core.wants_loop

    @property
    def saturated(self) -> bool:
        """True while no further message should be read."""
        return len(self._in_flight) >= self._most

    @property
    def busy(self) -> bool:
        """True while requests or subscriptions are under way."""
        return bool(self._in_flight)

    async def drain(self) -> None:
        """Return when the peer has room for more."""
        if self._drain is not None:
            await self._drain()

    def receive(self, data: bytes) -> None:
        """Take one message. Never raises for what the peer sent."""
        self._asked = None
        try:
            value: object = self._decode(data)
            if type(value) is list and self.session is not None and self.session.revision.batches:
                self._batch(cast("list[object]", value))
                return
            self._message(cast("object", value), self.send)
        except McpError as exc:
            self._refuse(exc, self.send)

    def too_long(self) -> None:
        """A message passed the byte cap and was thrown away."""
        self._asked = None
        self._refuse(MessageTooLarge(self._message_bytes), self.send)

    def relieved(self) -> None:
        """The peer reads again: tell it what changed meanwhile."""
        waiting, self.waiting = self.waiting, {}
        for encoded in waiting:
            self.send(encoded)

    def close(self) -> None:
        """The peer is gone: cancel what runs for it."""
        for running in tuple(self._in_flight.values()):
            running.cancel()
        if self.session is not None:
            self.session.close()
            self._core.legacy.leave(self.session)

    async def finish(self, grace: float) -> None:
        """Let what runs end, for at most `grace` seconds."""
        import asyncio

        self._core.hub.close()  # a subscription does not end by itself
        tasks = [running.task for running in self._in_flight.values() if running.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)

    def _refuse(self, error: McpError, send: Callable[[bytes], None]) -> None:
        server = self._core.runner.name
        disclose(error, "message", None, about_message(server, self._principal, self._address, self._asked, error))
        if not (isinstance(error, InvalidRequest) and error.of_notification):
            revision = None if self.session is None else self.session.revision
            send(encode_failure(error.request_id, error, revision))
        if error.violation and self._malformed is not None:
            self._malformed()

    def _message(self, value: object, send: Callable[[bytes], None]) -> None:
        message = self._asked = self._parse(value)
        if type(message) is Request:
            self._request(message, send)
        elif type(message) is Notification:
            self._notification(message)
        elif self.session is None or not self.session.answer(cast("Response", message)):
            self.dropped += 1
            if self._malformed is not None:
                self._malformed()

    def _request(self, request: Request, send: Callable[[bytes], None]) -> None:
        identifier = request.id
        if identifier in self._in_flight:
            error = InvalidRequest("A request with this id is under way")
            error.request_id = identifier
            raise error
        core = self._core
        meta = request.params.get("_meta")
        try:
            if type(meta) is dict and PROTOCOL_VERSION_KEY in cast("dict[str, object]", meta):
                call = modern_call(request, self._channel, self._principal, core.versions)
            elif self.session is not None:
                result = core.legacy.local(request, self.session)
                if result is not None:
                    send(encode_result(identifier, result))
                    return
                call = core.legacy.call(request, self.session, cast("_Channel", self._legacy_channel))
            elif request.method == "initialize" and core.serves_legacy:
                send(encode_result(identifier, self._initialize(request)))
                return
            elif request.method == "initialize":
                raise refused_handshake(request, core.versions)
            elif request.method == "ping" and core.serves_legacy:
                send(encode_result(identifier, b"{}"))
                return
            else:
                call = modern_call(request, self._channel, self._principal, core.versions)
        except McpError as exc:
            exc.request_id = identifier
            raise
        call.credential, call.address = self._credential, self._address

        answered = False

        def deliver(status: int, body: bytes, error: McpError | None = None) -> None:
            nonlocal answered
            answered = True
            send(body)

        def ended() -> None:
            if not answered and send != self.send:
                send(b"")  # a batch must not wait for a request that was taken back
            self._ended(identifier)

        running = core.runner.begin(call, deliver, ended)
        if running is not None:
            self._in_flight[identifier] = running

    def _ended(self, identifier: int | str) -> None:
        was = self.saturated
        self._in_flight.pop(identifier, None)
        if was and self._resumed is not None:
            self._resumed()

    def _initialize(self, request: Request) -> bytes:
        session, result = self._core.legacy.initialize(request, self._principal)
        self.session = session
        channel = self._legacy_channel = _Channel(self, session.revision)
        self._core.legacy.listen(session, channel.notify)
        return result

    def _notification(self, notification: Notification) -> None:
        if notification.method == "notifications/cancelled":
            identifier = notification.params.get("requestId")
            if type(identifier) is int or type(identifier) is str:
                running = self._in_flight.get(identifier)
                if running is not None:
                    running.cancel()
                    return
        self.dropped += 1

    def _batch(self, items: list[object]) -> None:
        """A batch of revision 2025-03-26: its responses go out as one array when the last is there."""
        if not items or len(items) > self._core.policy.limits.batch:
            raise InvalidRequest(f"A batch has 1 to {self._core.policy.limits.batch} messages")
        Batch(items, self._message, self._refuse, self.send)


class Batch:
    """The messages of one batch and the responses they get."""

    __slots__ = ("_open", "_responses", "_send")

    def __init__(
        self,
        items: list[object],
        take: Callable[[object, Callable[[bytes], None]], None],
        refuse: Callable[[McpError, Callable[[bytes], None]], None],
        send: Callable[[bytes], None],
    ) -> None:
        self._responses: list[bytes] = []
        self._send = send
        self._open = 1 + sum(1 for item in items if type(item) is dict and "method" in item and "id" in item)
        for item in items:
            try:
                take(item, self._add)
            except McpError as exc:
                answered = type(item) is dict and "method" in item and "id" in item
                if not answered:
                    self._open += 1  # an error that no request waits for is answered too
                if isinstance(exc, InvalidRequest) and exc.of_notification:
                    self._open -= 1
                refuse(exc, self._add)
        self._close_one()

    def _add(self, response: bytes) -> None:
        if response:
            self._responses.append(response)
        self._close_one()

    def _close_one(self) -> None:
        self._open -= 1
        if self._open == 0 and self._responses:
            self._send(b"[" + b",".join(self._responses) + b"]")
