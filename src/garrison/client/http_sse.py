"""HTTP+SSE of revision 2024-11-05, the client's side: one GET stream in, a POST for each message out.

Rules of this file:
- The first event names the address for POST; it must be of the same origin as the stream.
- Every answer comes on the stream. When the stream ends, the connection is lost.

Spec: 2024-11-05 basic/transports "HTTP with SSE".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import ConnectionFailed, ConnectionLost, HttpError, ProtocolViolation
from .http_response import EventStream
from .transport import OneChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..transports.http.pool import Connection
    from ..transports.http.url import Endpoint
    from .http import HttpSettings
    from .transport import Call, Receiver

__all__ = ["HttpSse"]


class HttpSse(OneChannel):
    """A server of the oldest HTTP transport. The settings are those of `StreamableHttp`."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._receiver: Receiver | None = None
        self._connection: Connection | None = None
        self._stream: EventStream | None = None
        self._target: asyncio.Future[Endpoint] | None = None
        self._closed = False

    @property
    def down(self) -> bool:
        return self._stream is None or self._stream.ended.done()

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        self._target = asyncio.get_running_loop().create_future()
        stream = self._stream = EventStream(self.settings.limits.message_bytes, self._deliver)
        stream.ended.add_done_callback(self._over)
        try:
            async with asyncio.timeout(self.settings.timeouts.connect):
                request = self.settings.head("GET", "Accept: text/event-stream\r\n\r\n")
                self._connection = await self.settings.write(request, stream, extra=True)
                await self._target
        except TimeoutError:
            raise ConnectionFailed("The server opened no event stream with an endpoint in time") from None

    def send(self, call: Call) -> Awaitable[None] | None:
        return self.post(call.body)

    def post(self, message: bytes) -> Awaitable[None] | None:
        if self.down or self._target is None or not self._target.done():
            raise ConnectionLost("The event stream has ended")
        return self._post(message, self._target.result())

    async def _post(self, message: bytes, target: Endpoint) -> None:
        response = await self.settings.exchange("POST", "Content-Type: application/json\r\n", message, target)
        if response.status >= 300:
            raise HttpError(response.status, f"The server refused a message with HTTP status {response.status}")

    async def aclose(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.abort()
        if self._stream is not None and not self._stream.ended.done():
            self._stream.done()
        self.settings.pool.close()

    def _deliver(self, event: str, data: bytes) -> None:
        target = self._target
        if event == "endpoint" and target is not None and not target.done():
            endpoint = self.settings.same_origin(data.decode("utf-8", "replace").strip())
            if endpoint is None:
                raise ProtocolViolation("The endpoint event names another origin")
            target.set_result(endpoint)
        elif event == "message" and self._receiver is not None:
            self._receiver.receive(data, None)

    def _over(self, ended: asyncio.Future[int]) -> None:
        if self._target is not None and not self._target.done():
            status = 0 if ended.cancelled() else ended.result()
            self._target.set_exception(ConnectionFailed(f"The server opened no event stream (HTTP status {status})"))
        elif self._receiver is not None and not self._closed:
            self._receiver.lost(ConnectionLost("The event stream has ended"))
