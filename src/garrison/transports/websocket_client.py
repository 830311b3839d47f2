"""WebSocket, the client's side: the handshake and the frames of one connection.

Rules of this file:
- The grammar is that of the `websockets` sans-IO layer; what it leaves open is decided here.
- The head of the answer is bounded before it is parsed, and every answer but 101 ends the attempt: redirects are not
  followed, so that a token never leaves for an address that nobody configured. The subprotocol must be agreed on.
- Text only. A message is counted over its fragments (1009), and so are its frames (1008); what is no UTF-8 ends the
  connection (1007), and so does a binary message (1003) or a frame that breaks the grammar (1002).
- Bytes are given to the parser in slices, so that a flood of tiny frames is noticed before much of it is worked off.
  Pings and pongs are metered as messages are; more of them end the connection (1008).
- One timer for each connection: it pings a peer that is silent, and gives up one that stays so.

Spec: RFC 6455; RFC 7692 for compression.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from ..errors import AuthenticationRequired, ClientError, ConnectionFailed, HttpError, ProtocolViolation
from .flood import Meter
from .outgoing import Outgoing, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from websockets.extensions.base import ClientExtensionFactory

    from ..errors import ConnectionLost
    from ..policy import Limits, Timeouts
    from .http.url import Endpoint

__all__ = ["Handshake", "WebSocketConnection"]

_SLICE: Final = 16 * 1024
_END: Final = b"\r\n\r\n"

_wire = logging.getLogger("garrison.websocket")
# The library writes every header, the token's too, to a logger that is open for debugging. This one never is.
_wire.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is asked of the server."""

    endpoint: Endpoint
    subprotocol: str
    compression: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    """Further request headers; names and values are checked already."""


class WebSocketConnection(Outgoing):
    """One connection, from its handshake to its end.

    Args:
        handshake: what to ask for.
        limits, timeouts: `header_bytes`, `header_count`, `message_bytes`, `fragments`, `message_rate` and
            `message_burst` (pings and pongs), `outbound_bytes`; `ping`, `pong`, `write_stall`, `shutdown`.
        on_text: gets each message.
        on_too_large: hears that a message passed the limit, just before `on_lost`.
        on_lost: hears once that the connection ended without `end`.
    """

    def __init__(
        self,
        handshake: Handshake,
        *,
        limits: Limits,
        timeouts: Timeouts,
        on_text: Callable[[bytes], None],
        on_too_large: Callable[[], None],
        on_lost: Callable[[ConnectionLost], None],
    ) -> None:
        super().__init__(limits=limits, timeouts=timeouts, on_lost=on_lost)
        self._handshake = handshake
        self._where = handshake.endpoint.origin
        self._on_text = on_text
        self._on_too_large = on_too_large
        self._frames = _protocol(handshake, limits)
        self.answer: Mapping[str, str] = {}
        """The fields of an answer that refused the handshake: names in lower case, repeated ones joined by commas."""
        self._agreed: asyncio.Future[None] = self.loop.create_future()
        self._head = bytearray()
        self._partial = bytearray()
        self._fragments = 0
        self._meter = Meter(limits)
        self._heard = 0.0
        self._pinged = 0.0
        self._passed = 0
        self._watch: asyncio.TimerHandle | None = None

    async def agree(self) -> None:
        """Sends the request of the handshake and waits for the answer.

        Raises:
            AuthenticationRequired: the server answered 401 or 403.
            HttpError: it answered another status than 101.
            ConnectionFailed: it closed the connection.
            ProtocolViolation: its answer is not what the RFC asks for, or agrees to something else.
        """
        request = self._frames.connect()
        for name, value in self._handshake.headers:
            request.headers[name] = value
        self._frames.send_request(request)
        self._flush()
        await self._agreed

    def put(self, message: bytes) -> None:
        self._frames.send_text(message)
        self._flush()

    def farewell(self) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()

    def over(self, reason: str, *, tell: bool = True) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._partial.clear()
        super().over(reason, tell=tell)

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        if not self._agreed.done():
            data = self._answered(data)
        self._heard = self.loop.time()
        view = memoryview(data)
        start = 0
        while self.alive and start < len(view):  # what comes after the end is of no interest
            self._feed(bytes(view[start : start + _SLICE]) if len(view) > _SLICE else data)
            start += _SLICE

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse(ConnectionFailed(f"{self._where} closed the connection during the handshake{self._why(exc)}"))
        super().connection_lost(exc)

    # The handshake.

    def _answered(self, data: bytes) -> bytes:
        """Takes the head of the answer. Returns the frames that came after it."""
        head = self._head
        searched = max(len(head) - len(_END) + 1, 0)
        head += data
        end = head.find(_END, searched)
        size = end + len(_END) if end >= 0 else len(head)
        if size > self.limits.header_bytes or head.count(b"\r\n", 0, size) - 2 > self.limits.header_count:
            self._refuse(ProtocolViolation(f"{self._where}: the head of the answer is too large"))
        elif end >= 0:
            rest = bytes(head[size:])
            try:
                self._check(bytes(head[:size]))
            except ClientError as exc:
                self._refuse(exc)
            else:
                self._begin()
                return rest
        return b""

    def _check(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        protocol, _, status = lines[0].partition(" ")
        code = status[:3]
        if protocol != "HTTP/1.1" or not (code.isascii() and code.isdigit()):
            raise ProtocolViolation(f"{self._where} does not speak HTTP/1.1")
        if code != "101":
            self.answer = _fields(lines[1:])
            raise self._other(int(code), lines[1:])
        self._frames.receive_data(head)
        self._frames.events_received()
        exc = self._frames.handshake_exc
        if exc is not None:
            raise ProtocolViolation(f"{self._where} answered the handshake wrongly: {shown(str(exc))}") from exc
        if self._frames.subprotocol != self._handshake.subprotocol:
            raise ProtocolViolation(f"{self._where} did not agree to the subprotocol {self._handshake.subprotocol!r}")

    def _other(self, status: int, lines: list[str]) -> ClientError:
        if status in (401, 403):
            why = "it wants a token (token=)" if status == 401 else "it is not allowed"
            return AuthenticationRequired(status, f"{self._where} refused the connection: {why} ({status})")
        said = f"{self._where} answered the WebSocket handshake with HTTP status {status}"
        if 300 <= status < 400:
            places = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("location:")]
            where = shown(places[0]) if places else "nowhere"
            said = f"{said}: it points to {where}, which is not followed; name the new address if you trust it"
        elif status in (400, 404, 405, 426):
            said = f"{said}: is WebSocket served at {shown(self._handshake.endpoint.target)}?"
        return HttpError(status, said)

    def _begin(self) -> None:
        self._head.clear()
        self.alive = True
        self._heard = self.loop.time()
        self._watch = self.loop.call_later(self.timeouts.ping, self._look)
        if not self._agreed.done():
            self._agreed.set_result(None)

    def _refuse(self, error: ClientError) -> None:
        if not self._agreed.done():
            self._agreed.set_exception(error)
            self._agreed.exception()  # marks it as seen where nobody waits any more
            self.abort()

    def _why(self, exc: Exception | None) -> str:
        """With TLS 1.3 a server that misses the client certificate says so only now, or just leaves."""
        if isinstance(exc, ssl.SSLError):
            from .tls import explain

            return f": {explain(exc)}"
        silent = self._handshake.endpoint.secure and not self._head
        return "; it may want a client certificate: tls=TlsClientConfig(certificate=, key=)" if silent else ""

    # Frames.

    def _feed(self, data: bytes) -> None:
        frames = self._frames
        frames.receive_data(data)
        for event in frames.events_received():
            if self.alive and isinstance(event, Frame):
                self._take(event)
        self._flush()
        if not self.alive:
            return
        if frames.close_rcvd is not None:
            self.over(f"The server closed the connection with code {shown(str(frames.close_rcvd))}")
        elif isinstance(frames.parser_exc, PayloadTooBig):
            self._too_large()
        elif frames.parser_exc is not None:
            self.over(f"The server broke the WebSocket protocol: {shown(str(frames.parser_exc))}")

    def _take(self, frame: Frame) -> None:
        opcode, data = frame.opcode, frame.data
        if opcode is Opcode.TEXT or opcode is Opcode.CONT:
            if opcode is Opcode.TEXT and frame.fin:
                self._deliver(bytes(data))
                return
            self._partial += data
            self._fragments = self._fragments + 1 if opcode is Opcode.CONT else 1
            if self._fragments > self.limits.fragments:
                self._fail(CloseCode.POLICY_VIOLATION, "a message in too many fragments (Limits.fragments)")
            elif frame.fin:
                message = bytes(self._partial)
                self._partial.clear()
                self._deliver(message)
        elif opcode is Opcode.BINARY:
            self._fail(CloseCode.UNSUPPORTED_DATA, "a binary message, where only text is spoken")
        elif opcode is not Opcode.CLOSE and self._meter.take(self._heard, 0):
            self._fail(CloseCode.POLICY_VIOLATION, "too many pings (Limits.message_rate)")

    def _deliver(self, message: bytes) -> None:
        if len(message) > self.limits.message_bytes:  # what was inflated is more than what was announced
            self._frames.fail(CloseCode.MESSAGE_TOO_BIG)
            self._too_large()
            return
        if not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "a message that is no UTF-8")
                return
        self._on_text(message)

    def _too_large(self) -> None:
        self._on_too_large()
        self.over(f"The server sent a message of more than {self.limits.message_bytes} bytes (Limits.message_bytes)")

    def _fail(self, code: CloseCode, what: str) -> None:
        """Ends the connection for something that the server sent."""
        self._frames.fail(code)
        self.over(f"The server sent {what}; the connection was closed with code {code.value}")

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            # Empty means that no more will be written. The socket is closed by the peer or by the deadline.
            if data:
                self.write(data)

    # Time.

    def _look(self) -> None:
        now = self.loop.time()
        if self._pinged > self._heard:
            due = self._pinged + self.timeouts.pong
            taken = self._progress()
            if due <= now and taken > self._passed:  # the ping may still wait behind a large message
                self._passed, self._pinged = taken, now
                due = now + self.timeouts.pong
            elif due <= now:
                silence = now - self._heard
                self.over(f"The server gave no sign of life for {silence:.0f} s (Timeouts.ping, Timeouts.pong)")
                self.abort()
                return
        elif self._heard + self.timeouts.ping <= now:
            self._frames.send_ping(b"")
            self._flush()
            self._pinged, self._passed = now, self._progress()
            due = now + min(self.timeouts.ping, self.timeouts.pong)
        else:
            due = self._heard + self.timeouts.ping
        self._watch = self.loop.call_at(due, self._look)


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key, value = name.strip().lower(), value.strip()
        if key:
            fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _protocol(handshake: Handshake, limits: Limits) -> ClientProtocol:
    endpoint = handshake.endpoint
    path, _, query = endpoint.target.partition("?")
    extensions: list[ClientExtensionFactory] | None = None
    if handshake.compression:
        from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

        # No context is kept between messages: what one holds does not show in the size of another.
        extensions = [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]
    return ClientProtocol(
        WebSocketURI(endpoint.secure, endpoint.host, endpoint.port, path, query),
        subprotocols=[Subprotocol(handshake.subprotocol)],
        extensions=extensions,
        max_size=limits.message_bytes,
        logger=_wire,
    )
