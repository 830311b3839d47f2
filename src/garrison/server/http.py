"""MCP over HTTP, the modern way: each POST is one request, complete in itself.

Rules of this file:
- The gate has looked at the head before the body was read; here the body is read, once, and held against the headers
  that repeat parts of it.
- The response is one JSON object unless the handler sends something first, or takes long: then it is an event stream.
- When the peer goes, its request is cancelled.
- Traffic of handshake revisions goes to `LegacyHttp`, which is absent where they are not served.

Spec: 2026-07-28 basic/transports/streamable-http.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import (
    BadRequest,
    HeaderMismatch,
    InsufficientScope,
    InvalidRequest,
    McpError,
    Refused,
    UnsupportedVersion,
)
from ..protocol.envelope import Notification, Request, encode_error, encode_notification
from ..protocol.headers import check_name, check_params
from ..protocol.revisions import LATEST, LEGACY
from ..protocol.sse import encode_event
from ..protocol.types import PROTOCOL_VERSION_KEY
from .call import modern_call, refused_handshake, shown
from .disclosure import about_message, disclose, encode_failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from ..gate.http import HttpGate
    from ..protocol.envelope import Message
    from ..protocol.headers import Mirror
    from ..transports.http.exchange import Exchange, Head, Takeover
    from .call import Call
    from .core import Core
    from .http_legacy import LegacyHttp
    from .http_websocket import WebSocketDoor

__all__ = ["HttpApplication", "fields_for"]

_LATEST: Final = LATEST.encode()
_LEGACY: Final = frozenset(version.encode() for version in LEGACY)


def fields_for(error: McpError, insufficient: Callable[[tuple[str, ...]], bytes]) -> bytes:
    """The header lines that belong to an error."""
    if isinstance(error, InsufficientScope):
        return insufficient(error.scopes)
    return b"retry-after: %d\r\n" % error.retry_after if error.retry_after else b""


class _Channel:
    """The response to one modern request."""

    __slots__ = ("_exchange", "_insufficient", "_streaming", "timer")

    def __init__(self, exchange: Exchange, insufficient: Callable[[tuple[str, ...]], bytes]) -> None:
        self._exchange: Exchange | None = exchange
        self._insufficient = insufficient
        self._streaming = False
        self.timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Turn the response into a stream, if it is not one and the answer is not out."""
        if self._exchange is not None and not self._streaming:
            self._streaming = True
            self._exchange.start_stream()

    def notify(self, method: str, params: dict[str, object]) -> None:
        exchange = self._exchange
        if exchange is not None:
            self.open()
            exchange.send_event(encode_event(encode_notification(method, params)))

    async def drain(self) -> None:
        if self._exchange is not None:
            await self._exchange.drain()

    def ask(self, method: str, params: dict[str, object]) -> Awaitable[dict[str, object]]:
        raise McpError("a modern client is not asked by request")

    def close_stream(self) -> None:
        return

    def deliver(self, status: int, body: bytes, error: McpError | None = None) -> None:
        """Send the answer; what comes after it is dropped."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._streaming:
            exchange.send_event(encode_event(body))
            exchange.end_stream()
        else:
            if error is not None and error.violation:
                exchange.malformed()
            exchange.respond(status, body, b"" if error is None else fields_for(error, self._insufficient))

    def ended(self) -> None:
        """The call is over, answered or not."""
        self._exchange = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class HttpApplication:
    """What the HTTP shells serve.

    Args:
        core: the running server.
        gate: who may speak.
        legacy: the handshake revisions, or None.
        loop: the loop the listener runs on.
        websocket: what serves a connection that became a WebSocket, or None.
        documents: paths beside the endpoint, and what everybody reads there.
        insufficient: header lines that name scopes which are needed.
    """

    def __init__(
        self,
        core: Core,
        gate: HttpGate,
        legacy: LegacyHttp | None,
        loop: asyncio.AbstractEventLoop,
        websocket: WebSocketDoor | None = None,
        *,
        documents: Mapping[bytes, bytes] | None = None,
        insufficient: Callable[[tuple[str, ...]], bytes] = lambda scopes: b"",
    ) -> None:
        self._core = core
        self._decode = core.decode
        self._parse = core.parse
        self._names = core.modern.methods.names
        self._tools = core.registry.tools
        self._keep_alive = core.policy.timeouts.keep_alive
        self._legacy = legacy
        self._loop = loop
        self._websocket = websocket
        self._documents = documents or {}
        self._insufficient = insufficient
        if legacy is not None:
            legacy.insufficient = insufficient
        self.check = gate.check
        self.lasting = gate.lasting

    def refusal(self, error: Refused) -> tuple[int, bytes, bytes]:
        """Status, body and header lines that tell the peer; the hint goes to the log."""
        if not error.told:
            events.record(error.event, error.message, peer=error.peer, setting=error.hint)
        fields = error.challenge
        if error.status == 405:
            fields = b"allow: %b\r\n" % (error.allow or (b"POST, GET, DELETE" if self._legacy is not None else b"POST"))
        elif error.retry_after:
            fields = b"retry-after: %d\r\n" % error.retry_after
        return error.status, encode_error(None, InvalidRequest.code, error.message), fields

    def upgrade(self, head: Head) -> tuple[bytes, Takeover] | None:
        """What a WebSocket handshake gets; None where none is served.

        Raises:
            Refused: the handshake is wrong.
        """
        return None if self._websocket is None else self._websocket.accept(head)

    def handle(self, head: Head, body: bytes, exchange: Exchange) -> None:
        """Answer one request. Never raises for what the peer sent."""
        try:
            if head.method == b"POST":
                self._post(head, body, exchange)
            elif head.method == b"OPTIONS":
                exchange.respond(204, b"")
            elif head.path in self._documents:
                exchange.respond(200, self._documents[head.path])
            elif self._legacy is None:
                raise BadRequest("Method not allowed", status=405)
            elif head.method == b"GET":
                self._legacy.get(head, exchange)
            else:
                self._legacy.delete(head, exchange)
        except McpError as exc:
            self._refuse(exc, None, head, exchange)
        except Refused as exc:
            exc.peer = head.client or head.peer.address
            exchange.respond(*self.refusal(exc))

    def _refuse(self, error: McpError, message: Message | None, head: Head, exchange: Exchange) -> None:
        """Answer what never became a call."""
        address = head.client or head.peer.address
        disclose(error, "message", None, about_message(self._core.runner.name, head.principal, address, message, error))
        if error.violation:
            exchange.malformed()
        exchange.respond(error.http_status, encode_failure(error.request_id, error, None))

    def _post(self, head: Head, body: bytes, exchange: Exchange) -> None:
        value = self._decode(body)
        version = head.fields.get(b"mcp-protocol-version")
        if type(value) is list:
            if self._legacy is None or version == _LATEST:
                raise InvalidRequest("Batches are not part of this protocol revision")
            self._legacy.batch(head, cast("list[object]", value), exchange)
            return
        message = self._parse(value)
        try:
            if version == _LATEST:
                self._modern(head, message, exchange)
            elif _is_modern(version, message):
                raise _mismatch(version, message, self._core.versions)
            elif self._legacy is None:
                raise _refused_legacy(message, self._core.versions)
            else:
                self._legacy.post(head, message, exchange)
        except McpError as exc:
            self._refuse(exc, message, head, exchange)

    def _modern(self, head: Head, message: Message, exchange: Exchange) -> None:
        if type(message) is not Request:
            if type(message) is Notification:
                exchange.respond(202, b"")
                return
            raise InvalidRequest("A client of this revision sends no responses")
        channel = _Channel(exchange, self._insufficient)
        try:
            call = modern_call(message, channel, head.principal, self._core.versions)
            call.credential, call.address = head.credential, head.client or head.peer.address
            self._match(head, call)
        except UnsupportedVersion:
            error = HeaderMismatch("MCP-Protocol-Version differs from the request's _meta")
            error.request_id = message.id
            raise error from None
        except McpError as exc:
            exc.request_id = message.id
            raise
        running = self._core.runner.begin(call, channel.deliver, channel.ended)
        if running is not None:
            exchange.on_gone = running.cancel
            channel.timer = self._loop.call_later(self._keep_alive, channel.open)

    def _match(self, head: Head, call: Call) -> None:
        """Hold the headers that repeat the body against it."""
        memo = head.memo
        if memo is None:
            memo = head.memo = (head.text(b"mcp-method"), head.text(b"mcp-name"))
        said_method, said_name = cast("tuple[str | None, str | None]", memo)
        method = call.method
        if said_method != method:
            raise HeaderMismatch("Mcp-Method is missing or differs from the method in the body")
        member = self._names.get(method)
        if member is None:
            return
        name = call.params.get(member)
        if type(name) is not str:
            return  # the desk refuses it, whatever the header says
        if said_name != name or not name.isascii() or name.startswith("=?"):
            check_name(said_name, name)
        if method == "tools/call":
            tool = self._tools.get(name)
            if tool is not None and tool.mirrors:
                call.match = partial(_match_arguments, tool.mirrors, call.params.get("arguments"), head)


def _match_arguments(mirrored: tuple[Mirror, ...], arguments: object, head: Head) -> None:
    check_params(mirrored, arguments, lambda field: head.text(field.lower().encode()))


def _version_in(message: Message) -> object:
    if type(message) is Request or type(message) is Notification:
        meta = message.params.get("_meta")
        if type(meta) is dict:
            return cast("dict[str, object]", meta).get(PROTOCOL_VERSION_KEY)
    return None


def _is_modern(version: bytes | None, message: Message) -> bool:
    """True for what no handshake revision sends, though the header is not the newest revision."""
    return _version_in(message) is not None or (version is not None and version not in _LEGACY)


def _mismatch(version: bytes | None, message: Message, versions: tuple[str, ...]) -> McpError:
    inside = _version_in(message)
    said = None if version is None else version.decode("latin-1")
    error: McpError
    if said is None:
        error = HeaderMismatch("MCP-Protocol-Version is required")
    elif inside is not None and inside != said:
        error = HeaderMismatch("MCP-Protocol-Version differs from the request's _meta")
    else:
        error = UnsupportedVersion(shown(said), versions)
    if type(message) is Request:
        error.request_id = message.id
    return error


def _refused_legacy(message: Message, versions: tuple[str, ...]) -> McpError:
    if type(message) is Request:
        return refused_handshake(message, versions)
    return UnsupportedVersion("none", versions)
