"""What the client does with the responses of Streamable HTTP, as they arrive.

Rules of this file:
- Bytes are counted as they come: a body against `Limits.message_bytes`, a stream against the same for each event.
- A body is JSON or a stream of events; anything else is no answer.
- A stream that goes on after its answer is cut off after `LINGER` seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..errors import ConnectionLost, HttpError, MessageTooLarge, ProtocolViolation
from ..protocol.sse import SseParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..errors import ClientError
    from ..transports.http.pool import Connection
    from ..transports.http.url import Endpoint
    from .transport import Call, Receiver

__all__ = ["Body", "EventStream", "PostResponse", "media_type"]

LINGER: Final = 1.0


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of a response, without parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class _Kept:
    """A body as it comes. However small its pieces, it takes little more memory than its bytes."""

    __slots__ = ("_bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes: bytes | bytearray = b""

    def add(self, chunk: bytes) -> bool:
        """Keeps a piece. False when it would be too much."""
        held = self._bytes
        if len(held) + len(chunk) > self.limit:
            return False
        if not held:
            self._bytes = chunk
        elif isinstance(held, bytearray):
            held += chunk
        else:
            self._bytes = bytearray(held) + chunk
        return True

    def content(self) -> bytes:
        """All pieces."""
        return bytes(self._bytes)


def _too_large(the: str, limit: int) -> str:
    return f"{the} answer is larger than {limit} bytes (Limits.message_bytes)"


class Body:
    """A response whose body is kept, up to a limit. `ended` resolves to the status."""

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._kept = _Kept(limit)

    @property
    def content(self) -> bytes:
        """What came."""
        return self._kept.content()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers

    def data(self, chunk: bytes) -> None:
        if not self._kept.add(chunk):
            raise ProtocolViolation(_too_large("The", self._kept.limit))

    def done(self) -> None:
        if not self.ended.done():
            self.ended.set_result(self.status)

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


class EventStream:
    """The stream that answers a GET. `ended` resolves to the status once the stream is over, however it ended.

    Args:
        limit: bytes of one event.
        parser: keeps the last event id and the retry time over reconnections; a new one for each stream.
        deliver: gets the type and data of every event that has data.
        opened: is called when the status says that events will come.
    """

    def __init__(
        self,
        limit: int,
        deliver: Callable[[str, bytes], None],
        opened: Callable[[], None] | None = None,
    ) -> None:
        self.parser = SseParser(limit)
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.events = 0
        self.headers: Mapping[str, str] = {}
        self._deliver = deliver
        self._opened = opened
        self._status = 0

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status, self.headers = status, headers
        if status != 200:
            raise HttpError(status, f"The server answered with HTTP status {status}")
        if media_type(headers) != "text/event-stream":
            self._status = 406
            raise ProtocolViolation("The server answered a GET with something that is not an event stream")
        if self._opened is not None:
            self._opened()

    def data(self, chunk: bytes) -> None:
        try:
            events = self.parser.feed(chunk)
        except MessageTooLarge as exc:
            raise ProtocolViolation(str(exc)) from None
        for event in events:
            self.events += 1
            if event.data:
                self._deliver(event.event, event.data)

    def done(self) -> None:
        if not self.ended.done():
            self.ended.set_result(self._status)

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        self.done()


class PostResponse:
    """The response to one request, delivered to the receiver.

    Args:
        call: the request.
        receiver: gets the messages.
        limit: bytes of the body or of one event.
        again: is asked what to do when there is no answer: True when the call goes on some other way.
        heard: is told of every head that comes.
    """

    __slots__ = (
        "_again",
        "_heard",
        "_kept",
        "_limit",
        "_linger",
        "_receiver",
        "call",
        "connection",
        "headers",
        "parser",
        "sent",
        "status",
        "target",
        "task",
        "tries",
    )

    def __init__(
        self,
        call: Call,
        receiver: Receiver,
        limit: int,
        again: Callable[[PostResponse, ClientError | None, bool], bool],
        heard: Callable[[PostResponse], None] | None = None,
    ) -> None:
        self.call = call
        self.connection: Connection | None = None
        self.headers: Mapping[str, str] = {}
        self.status = 0
        self.parser: SseParser | None = None
        self.tries = 0
        """How often the request was sent again."""
        self.sent = ""
        """The header lines that authorized the request, where they are not the same for all."""
        self.target: Endpoint | None = None
        """Where it was sent, if not to the configured endpoint."""
        self.task: asyncio.Task[None] | None = None
        """What carries the call on after its first response ended."""
        self._receiver = receiver
        self._limit = limit
        self._again = again
        self._heard = heard
        self._linger: asyncio.TimerHandle | None = None
        self._kept = _Kept(limit)

    def cancel(self) -> None:
        """Stops listening, and closes the connection if the response is still coming."""
        self._forget_linger()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()
        if self.task is not None:
            self.task.cancel()

    def restart(self, connection: Connection) -> None:
        """Makes ready for another response."""
        self.connection = connection
        self.headers, self.status, self.parser = {}, 0, None
        self._kept = _Kept(self._limit)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, headers
        if self._heard is not None:
            self._heard(self)
        if status != 200:
            return
        kind = media_type(headers)
        if kind == "text/event-stream":
            self.parser = SseParser(self._limit)
        elif kind != "application/json":
            raise ProtocolViolation(f"{self.call.method}: the answer is neither JSON nor an event stream")

    def data(self, chunk: bytes) -> None:
        if self.parser is None:
            if not self._kept.add(chunk):
                raise ProtocolViolation(_too_large(f"{self.call.method}: the", self._kept.limit))
            return
        try:
            events = self.parser.feed(chunk)
        except MessageTooLarge as exc:
            raise ProtocolViolation(f"{self.call.method}: {exc} (Limits.message_bytes)") from None
        for event in events:
            if event.data and event.event == "message":
                self._receiver.receive(event.data, self.call)
        if self.call.future.done() and self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self.cancel)

    def done(self) -> None:
        self._forget_linger()
        self.connection = None
        call = self.call
        if call.future.done():
            return
        body = self._kept.content()
        if self.status == 200 and self.parser is None:
            self._receiver.receive(body, call)
            if not call.future.done():
                self._receiver.fail(
                    call, ProtocolViolation(f"{call.method}: the response holds no answer to this request")
                )
        elif self._again(self, None, False):
            return
        elif self.status >= 400:
            self._receiver.refused(call, self.status, body)
        elif self.parser is not None:
            self._receiver.fail(call, ConnectionLost(f"{call.method}: the event stream ended before the answer"))
        else:
            self._receiver.fail(
                call, HttpError(self.status, f"The server answered {call.method} with HTTP status {self.status}")
            )

    def failed(self, error: ClientError, *, untouched: bool) -> None:
        self._forget_linger()
        self.connection = None
        if self.call.future.done() or self._again(self, error, untouched):
            return
        self._receiver.fail(self.call, error)

    def _forget_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
