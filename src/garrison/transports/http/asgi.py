"""The ASGI shell: the same request and response as the edge, carried by somebody else's HTTP server.

Rules of this file:
- The host server parses HTTP. What it hands over is counted and checked here as at the edge, in the same order, and
  the body is refused before it is kept.
- The endpoint is what follows the mount point. A path that was written with percent escapes is not the endpoint.
- A response that is there at once is sent without a task. One that takes time is watched: a peer that leaves, or that
  takes no bytes, has its request cancelled.
- Connections, heads that come slowly and idle time belong to the host server; `Limits.connections` bounds the requests
  under way here. Who sends too many messages waits for each, as at the edge; connections are told apart by their port.

ASGI 3.0, "HTTP & WebSocket ASGI Message Format" 2.5; RFC 9110.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Final, cast

from ... import events
from ...errors import BadRequest, Overloaded, Refused
from ...policy.networks import network_of
from ...protocol.sse import COMMENT
from ..peer import Peer
from .exchange import SECURITY_FIELDS, Head

if TYPE_CHECKING:
    from ...policy import Limits, Timeouts
    from ..flood import Floods, Meter
    from ..peer import Credential
    from .exchange import Application

__all__ = ["AsgiShell", "Fields", "Message", "Receive", "Scope", "Send", "ask", "head_of", "pairs", "peer_of"]

Scope = MutableMapping[str, object]
Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

_HIGH_WATER: Final = 64 * 1024
_MOST_LENGTH_DIGITS: Final = 15
_METERS: Final = 32
"""Meters of one address: its connections are told apart by their port, and coming again is no new burst."""
_LONGEST_WAIT: Final = 5.0
_ASKED: Final = 4
"""Times that the gate is asked about one request."""


def pairs(lines: bytes) -> Fields:
    """Header lines as ASGI has them."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")) if name]


_SECURITY: Final = pairs(SECURITY_FIELDS)
_STREAM: Final = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"), *_SECURITY]
_JSON: Final = (b"content-type", b"application/json")
_CLOSE: Final = (b"connection", b"close")


class _Exchange:
    """The response to one request: filled from the event loop's thread, sent by `run`."""

    __slots__ = (
        "_begun",
        "_changed",
        "_complete",
        "_fields",
        "_gone",
        "_lease",
        "_limits",
        "_peer",
        "_reply",
        "_room",
        "_send",
        "_sending",
        "_size",
        "_status",
        "_streaming",
        "_timeouts",
        "_waiting",
        "credential",
        "meter",
        "on_gone",
    )

    def __init__(self, send: Send, limits: Limits, timeouts: Timeouts, peer: Peer, meter: Meter) -> None:
        self._send = send
        self._peer = peer
        self.meter = meter
        self._reply: Fields = []
        self._limits = limits
        self._timeouts = timeouts
        self._status = 0
        self._fields: Fields = []
        self._waiting: list[bytes] = []
        self._size = 0
        self._begun = self._streaming = self._complete = self._sending = self._gone = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self.on_gone: Callable[[], None] | None = None
        self.credential: Credential | None = None
        self._lease: asyncio.TimerHandle | None = None

    # Exchange

    def respond(self, status: int, body: bytes, fields: bytes = b"") -> None:
        if self._status or self._gone:
            return
        self._status = status
        self._fields = [
            *((_JSON,) if body else ()),
            *_SECURITY,
            *pairs(fields),
            *self._reply,
            *(((b"content-length", b"%d" % len(body)),) if status != 204 else ()),
        ]
        self._waiting.append(body)
        self._finish()

    def start_stream(self, fields: bytes = b"") -> None:
        if self._status or self._gone:
            return
        self._status = 200
        self._fields = [*_STREAM, *pairs(fields), *self._reply]
        self._streaming = True
        self._changed.set()
        self._look()

    def send_event(self, event: bytes) -> None:
        if self._gone or not self._streaming:
            return
        self._waiting.append(event)
        self._size += len(event)
        self._changed.set()
        if self._sending and self._size > self._limits.outbound_bytes + len(event):
            self._put_out("Limits.outbound_bytes")

    def end_stream(self) -> None:
        if self._streaming and not self._gone:
            self._streaming = False
            self._finish()

    async def drain(self) -> None:
        while (self._sending or self._size > _HIGH_WATER) and not self._gone:
            self._room.clear()
            await self._room.wait()

    def malformed(self) -> None:
        if self.meter.malformed(asyncio.get_running_loop().time()):
            setting = "Limits.malformed_per_minute"
            events.record("limit.reached", "too many malformed messages", peer=self._peer.address, setting=setting)
            self._reply = [*self._reply, _CLOSE]

    def _look(self) -> None:
        """End the stream when its credential has ended."""
        if self.credential is not None and not self._gone:
            left = self.credential.left(time.time())
            if left <= 0.0:
                self.leave()
            elif left < float("inf"):
                self._lease = asyncio.get_running_loop().call_later(left, self._look)

    def _put_out(self, setting: str) -> None:
        events.record("limit.reached", "slow reader put out", peer=self._peer.address, setting=setting)
        self.leave()

    def _finish(self) -> None:
        self._complete = True
        self.on_gone = None
        self._changed.set()

    # The shell's side

    def carry(self, reply: bytes) -> None:
        """Have the answer carry these header lines."""
        self._reply = pairs(reply)

    def refuse(self, status: int, body: bytes, fields: bytes, *, close: bool) -> None:
        """Answer a request that goes no further; `close` asks an HTTP/1 host to read no more of it."""
        self.respond(status, body, fields)
        if close:
            self._fields.append(_CLOSE)

    def leave(self) -> None:
        """The peer is gone, or has to go."""
        self._gone = True
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()
        self._changed.set()
        self._room.set()

    def shut(self) -> None:
        """The server ends: take the request back, and end the response."""
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()
        self.respond(503, b"")
        self.end_stream()

    async def run(self, receive: Receive) -> None:
        """Send the response until it is complete or its peer gone."""
        if self._complete:
            await self._flush()
            return
        watcher = asyncio.get_running_loop().create_task(self._watch(receive))
        try:
            while not self._gone:
                if self._waiting or self._complete or (self._status and not self._begun):
                    complete = self._complete
                    await self._flush()
                    if complete:
                        return
                else:
                    await self._pause()
        finally:
            if self._lease is not None:
                self._lease.cancel()
            watcher.cancel()
            await asyncio.wait((watcher,))

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.leave()

    async def _pause(self) -> None:
        """Wait for something to send; on a quiet stream that is a comment."""
        self._changed.clear()
        try:
            async with asyncio.timeout(self._timeouts.keep_alive if self._streaming else None):
                await self._changed.wait()
        except TimeoutError:
            self._waiting.append(COMMENT)

    async def _flush(self) -> None:
        data = b"".join(self._waiting)
        more = not self._complete
        self._waiting.clear()
        self._size = 0
        self._sending = True
        try:
            async with asyncio.timeout(self._timeouts.write_stall):
                if not self._begun:
                    self._begun = True
                    await self._send({"type": "http.response.start", "status": self._status, "headers": self._fields})
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            self._put_out("Timeouts.write_stall")
        except OSError:  # what a host of ASGI 2.4 raises when the peer is gone
            self.leave()
        finally:
            self._sending = False
            self._room.set()


class AsgiShell:
    """Carries requests of an ASGI host to an application.

    Args:
        limits, timeouts: what is allowed.
        floods: the meters of the running server.
        ready: awaited after a request has passed the gate and before its body is read.
    """

    def __init__(
        self, limits: Limits, timeouts: Timeouts, floods: Floods, ready: Callable[[], Awaitable[None]]
    ) -> None:
        self._limits = limits
        self._timeouts = timeouts
        self._floods = floods
        self._ready = ready
        self._open: set[_Exchange] = set()

    async def serve(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an `http` scope."""
        peer = peer_of(scope)
        exchange = _Exchange(send, self._limits, self._timeouts, peer, self.meter(scope, peer))
        self._open.add(exchange)
        try:
            if await self._handle(application, scope, receive, exchange, peer):
                await exchange.run(receive)
        finally:
            self._open.discard(exchange)
            exchange.leave()

    def meter(self, scope: Scope, peer: Peer) -> Meter:
        """The meter of a connection of the host."""
        match scope.get("client"):
            case (str(), int(port)) if port:
                key = f"{network_of(peer.address)}#{port % _METERS}"
            case _:
                key = peer.address
        return self._floods.lend(key, asyncio.get_running_loop().time())

    async def _handle(
        self, application: Application, scope: Scope, receive: Receive, exchange: _Exchange, peer: Peer
    ) -> bool:
        """Have the request answered or refused. False if the peer left before it was complete."""
        head: Head | None = None
        try:
            if len(self._open) > self._limits.connections:
                raise Overloaded("Too many requests", hint="Limits.connections")
            head = head_of(scope, self._limits, peer)
            try:
                await ask(application, head)
            finally:
                exchange.carry(head.reply)
            exchange.credential = head.credential
            await self._ready()
            body = await self._body(receive)
            if body is None:
                return False
            await self._pace(head, exchange, len(body))
            application.handle(head, body, exchange)
        except Refused as exc:
            exc.peer = (head.client if head is not None else None) or peer.address
            # HTTP/2 and later have no such field: there, only the stream ends.
            http1 = str(scope.get("http_version", "1.1")).startswith("1")
            exchange.refuse(*application.refusal(exc), close=http1)
        return True

    async def _pace(self, head: Head, exchange: _Exchange, size: int) -> None:
        """Let a message wait for its turn.

        Raises:
            Overloaded: that would be too long.
        """
        now = asyncio.get_running_loop().time()
        meter = exchange.meter if head.client is None else self._floods.lend(head.client, now)
        wait = meter.take(now, size)
        if wait > (_LONGEST_WAIT if head.client is None else 0.0):
            raise Overloaded("Too many requests", hint="Limits.message_rate", status=429)
        if wait:
            await asyncio.sleep(wait)

    def shut(self) -> None:
        """End every response under way."""
        for exchange in tuple(self._open):
            exchange.shut()

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, or None if the peer left."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeouts.body) as until:
                latest = until.when() or 0.0
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    chunk = cast("bytes", message.get("body", b""))
                    if len(body) + len(chunk) > self._limits.message_bytes:
                        raise BadRequest("Message too large", status=413, hint="Limits.message_bytes")
                    if not message.get("more_body", False):
                        return bytes(body + chunk) if body else bytes(chunk)
                    body += chunk
                    until.reschedule(latest + len(body) / self._limits.body_rate)
        except TimeoutError:
            raise BadRequest("Request not complete in time", status=408, hint="Timeouts.body") from None


async def ask(application: Application, head: Head) -> None:
    """Ask the gate about a request, until it can tell.

    Raises:
        Refused: the request goes no further.
    """
    for _ in range(_ASKED):
        application.check(head)
        if head.pending is None:
            return
        await head.pending
    raise Overloaded("The credential could not be checked")


def peer_of(scope: Scope) -> Peer:
    """Who the host says is at the other end."""
    match scope.get("client"):
        case (str(address), int()):
            return Peer(address, secure=scope.get("scheme") in ("https", "wss"))
        case _:
            return Peer("unix")


def head_of(scope: Scope, limits: Limits, peer: Peer) -> Head:
    """The head of a request, counted as at the edge.

    Raises:
        BadRequest: it is too large, or says something twice.
    """
    head = Head()
    head.peer = peer
    head.method = cast("str", scope.get("method", "GET")).encode("latin-1", "replace")
    head.query = cast("bytes", scope.get("query_string", b""))
    head.root, head.path = _endpoint(scope)
    size = len(head.method) + len(head.root) + len(head.path) + len(head.query)
    for name, value in cast("Iterable[tuple[bytes, bytes]]", scope["headers"]):
        size += len(name) + len(value) + 4
        if len(head.fields) >= limits.header_count or size > limits.header_bytes:
            raise BadRequest("Header too large", status=431, hint="Limits.header_count, Limits.header_bytes")
        head.add(name, value)
    if head.repeated is not None:
        raise BadRequest(f"Repeated header field {head.repeated.decode('latin-1')}")
    length = head.fields.get(b"content-length")
    if length is not None:
        if not length.isdigit():
            raise BadRequest("Malformed Content-Length")
        if len(length) > _MOST_LENGTH_DIGITS or int(length) > limits.message_bytes:
            raise BadRequest("Message too large", status=413, hint="Limits.message_bytes")
    if head.fields.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise BadRequest("Expectation failed", status=417)
    return head


def _endpoint(scope: Scope) -> tuple[bytes, bytes]:
    """Where the application is mounted, and what of the path follows it. Both as text that was not escaped."""
    path, root = cast("str", scope["path"]), cast("str", scope.get("root_path", ""))
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    below = path.encode("utf-8", "surrogateescape")
    raw = cast("bytes | None", scope.get("raw_path"))
    if raw is not None and not raw.partition(b"?")[0].endswith(below):
        below = raw
    return root.encode("utf-8", "surrogateescape"), below
