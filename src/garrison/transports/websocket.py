"""The server's end of a WebSocket: the handshake's answer, and frames. One JSON-RPC message in each text message.

Rules of this file:
- A frame is looked at before its payload is there: what it may not be, or be as large as, is refused before it is kept.
- The size of a message is summed over its fragments, and so is what compression makes of it.
- What a client must not do ends the connection with the code that says so: 1002 broken frames, 1003 binary, 1007 no
  UTF-8, 1008 too many or no longer allowed, 1009 too large, 1011 our failure, 1001 idle or the server stops.
- Every message of a client is charged as one, and so is every control frame. Of its pings the last one is answered.
- Silence for `Timeouts.ping` is asked after, and silence after that for `Timeouts.pong` ends the connection.
- Compression is agreed to only where the configuration says so, and never keeps anything between messages.

RFC 6455; RFC 7692.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
import zlib
from typing import TYPE_CHECKING, Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # no binary of it for this platform
    from websockets.utils import apply_mask

from ..errors import BadRequest
from .duplex import Clock, DuplexShell

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..policy import Limits
    from ..policy.transports import WebSocketConfig
    from .conversation import Conversation
    from .flood import Place
    from .http.exchange import Head
    from .listener import Guests
    from .peer import Credential

__all__ = ["WebSocketShell", "accept"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OFFERS: Final = 16
_OFFER_BYTES: Final = 1024

_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_FIN: Final = 0x80
_COMPRESSED: Final = 0x40
_WHOLE_TEXT: Final = _FIN | _TEXT
_CONTROL_BYTES: Final = 125
_FRAGMENTS_A_MESSAGE: Final = 32
"""Fragments that cost as much as a message: about as long as one takes to be served."""

_BROKEN: Final = 1002
_NOT_TEXT: Final = 1003
_NOT_UTF8: Final = 1007
_POLICY: Final = 1008
_TOO_LARGE: Final = 1009

_EVENTS: Final = {_POLICY: "limit.reached", _TOO_LARGE: "message.too_large"}
_SETTINGS: Final = {
    _POLICY: "Limits.fragments",
    _TOO_LARGE: "Limits.message_bytes, WebSocketConfig.max_message_size",
}

_WINDOW: Final = 12
"""Bits of the window of what we compress: 4 KiB, so that a connection costs little (RFC 7692 section 7.1.2.1)."""
_WORTH: Final = 512
_TAIL: Final = b"\x00\x00\xff\xff"


def _verdict(first: int) -> tuple[int, str] | None:
    """What is wrong with a frame that begins with this byte, whatever came before it. RFC 6455 section 5.2."""
    opcode = first & 0x0F
    if opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
        return _BROKEN, "reserved opcode"
    if first & 0x70:
        return _BROKEN, "reserved bit"
    if opcode >= _CLOSE and not first & _FIN:
        return _BROKEN, "fragmented control frame"
    if opcode == _BINARY:
        return _NOT_TEXT, "binary message; only text is served"
    return None


_VERDICTS: Final = tuple(_verdict(first) for first in range(256))


# Handshake


def accept(head: Head, config: WebSocketConfig) -> bytes:
    """Answer a handshake. Host, origin and credentials are checked before, by the gate.

    Args:
        head: a request of HTTP/1.1 or newer.
        config: `subprotocol` and `compression` count here.

    Returns:
        The header lines of the 101, each ended with CRLF. Compression is agreed to where they name
        `permessage-deflate`.

    Raises:
        BadRequest: the handshake is not one (400), or of another version (426).

    RFC 6455 section 4.2.
    """
    fields = head.fields
    if head.method != b"GET":
        raise BadRequest("A WebSocket handshake is a GET request")
    if fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields:
        raise BadRequest("A WebSocket handshake has no body")
    if fields.get(b"upgrade", b"").lower() != b"websocket":
        raise BadRequest("Upgrade must be websocket")
    if b"upgrade" not in _tokens(fields.get(b"connection", b"").lower()):
        raise BadRequest("Connection must name Upgrade")
    if fields.get(b"sec-websocket-version") != b"13":
        refusal = BadRequest("Only version 13 of WebSocket is served", status=426)
        refusal.reply = b"sec-websocket-version: 13\r\nupgrade: websocket\r\n"
        raise refusal
    key = _key(fields.get(b"sec-websocket-key", b""))
    offered = fields.get(b"sec-websocket-protocol", b"")
    names = _tokens(offered)
    if len(offered) > _OFFER_BYTES or len(names) > _OFFERS:
        raise BadRequest("Too many subprotocols offered")
    subprotocol = config.subprotocol.encode("ascii")
    if subprotocol not in names:
        raise BadRequest(f"Sec-WebSocket-Protocol must offer {config.subprotocol}")
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    answer = (
        b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %b\r\nsec-websocket-protocol: %b\r\n"
        % (digest, subprotocol)
    )
    agreed = _agree(fields.get(b"sec-websocket-extensions", b"")) if config.compression else b""
    if agreed:
        answer += b"sec-websocket-extensions: %b\r\n" % agreed
    return answer


def _tokens(value: bytes) -> list[bytes]:
    return [name for item in value.split(b",") if (name := item.strip(b" \t"))]


def _key(value: bytes) -> bytes:
    """The key, if it is the Base64 of 16 bytes in its one right spelling."""
    try:
        nonce = binascii.a2b_base64(value)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16 or base64.b64encode(nonce) != value:
        raise BadRequest("Sec-WebSocket-Key must be the Base64 of 16 bytes")
    return value


def _agree(value: bytes) -> bytes:
    """The first offer of compression that can be had; empty where there is none. RFC 7692 section 7.1."""
    if len(value) > _OFFER_BYTES:
        return b""
    for offer in _tokens(value)[:_OFFERS]:
        name, *parameters = (part.strip(b" \t") for part in offer.split(b";"))
        if name.lower() == b"permessage-deflate":
            answer = _agree_to(parameters)
            if answer:
                return answer
    return b""


def _agree_to(parameters: list[bytes]) -> bytes:
    answer = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    seen: set[bytes] = set()
    for parameter in parameters:
        name, given, value = parameter.partition(b"=")
        value = value.strip(b'"')
        bits = int(value) if value in (b"8", b"9", b"10", b"11", b"12", b"13", b"14", b"15") else 0
        if name in seen:
            return b""
        seen.add(name)
        if name in (b"server_no_context_takeover", b"client_no_context_takeover"):
            if given:
                return b""
        elif name == b"client_max_window_bits":
            if given and not bits:
                return b""
        elif name == b"server_max_window_bits" and bits >= _WINDOW:
            answer += b"; server_max_window_bits=%d" % _WINDOW
        else:
            return b""
    return answer


# Frames


class WebSocketShell(DuplexShell):
    """One WebSocket after its handshake; a `Guest` of the listener.

    Args:
        guests, place, connect, limits, address: see `DuplexShell`.
        compression: it was agreed to.
        credential: what the handshake showed; asked before every message, and the connection ends with it, with 1008.
            None: it does not end.
    """

    __slots__ = (
        "_ask_at",
        "_at",
        "_chunk",
        "_compression",
        "_credential",
        "_frames",
        "_inflate",
        "_need",
        "_partial",
        "_pinged",
        "_pong",
        "_size",
        "_text",
    )

    def __init__(
        self,
        guests: Guests,
        place: Place,
        connect: Callable[[Self], Conversation],
        *,
        limits: Limits | None = None,
        address: str = "",
        compression: bool = False,
        credential: Credential | None = None,
    ) -> None:
        super().__init__(guests, place, connect, limits=limits, address=address)
        self._compression = compression
        self._credential = credential
        self._ask_at = guests.loop.time()
        self._chunk: bytes | bytearray = b""
        self._at = 0
        self._partial: bytearray | None = None
        self._need = 0
        self._text = bytearray()
        self._frames = 0
        self._size = 0
        self._inflate: _Inflate | None = None
        self._pong: bytes | None = None
        self._pinged = 0.0

    def _feed(self, data: bytes) -> None:
        partial = self._partial
        if partial is not None:
            partial += data
            if len(partial) >= self._need:
                self._chunk, self._at, self._partial = partial, 0, None
        elif self._at < len(self._chunk):
            self._chunk = self._chunk[self._at :] + data
            self._at = 0
        else:
            self._chunk, self._at = data, 0

    def _short(self, need: int) -> bool:
        """Wait until there are so many bytes of this frame."""
        rest = self._chunk[self._at :]
        self._chunk, self._at = b"", 0
        if rest:
            self._partial = bytearray(rest)
            self._need = need
        return False

    def _begun(self) -> int:
        size = self._size + self._frames
        return size if self._partial is None else size + len(self._partial)

    def _step(self) -> bool:
        chunk, at = self._chunk, self._at
        have = len(chunk) - at
        if have < 2:
            return self._short(2)
        first, second = chunk[at], chunk[at + 1]
        if first != _WHOLE_TEXT or self._frames or second < 0x80:
            objection = self._objection(first, second)
            if objection is not None:
                return self._fail(*objection)
        length = second & 0x7F
        start = 6
        if length > _CONTROL_BYTES:
            start = 8 if length == 126 else 14
            if have < start:
                return self._short(start)
            least = 126 if length == 126 else 0x10000
            length = int.from_bytes(chunk[at + 2 : at + start - 4], "big")
            if length < least:
                return self._fail(_BROKEN, "length not in its shortest form")
        if length > self._limits.message_bytes - self._size and not first & 0x08:
            return self._fail(_TOO_LARGE, f"message larger than {self._limits.message_bytes} bytes")
        if have < start + length:
            return self._short(start + length)
        body = at + start
        self._at = body + length
        payload = apply_mask(chunk[body : body + length], chunk[body - 4 : body])
        if first == _WHOLE_TEXT:
            return self._deliver(payload)
        return self._frame(first, payload)

    def _objection(self, first: int, second: int) -> tuple[int, str] | None:
        """What is wrong with a frame that begins with these two bytes."""
        opcode = first & 0x0F
        plain = first & ~_COMPRESSED if self._compression and opcode in (_TEXT, _BINARY) else first
        verdict = _VERDICTS[plain]
        if verdict is not None:
            return verdict
        if second < 0x80:
            return _BROKEN, "frame not masked"
        if opcode >= _CLOSE:
            return (_BROKEN, "control frame too long") if second & 0x7F > _CONTROL_BYTES else None
        if opcode == _TEXT and self._frames:
            return _BROKEN, "message within a message"
        if opcode == _CONTINUATION and not self._frames:
            return _BROKEN, "continuation of nothing"
        return None

    def _frame(self, first: int, payload: bytes) -> bool:
        """Take a frame that is not a whole message."""
        opcode = first & 0x0F
        if opcode >= _CLOSE:
            self._messages += 1
            if opcode == _CLOSE:
                return self._closed(payload)
            if opcode == _PING:
                self._pong = payload
            return True
        if first & _COMPRESSED:
            self._inflate = _Inflate()
        self._frames += 1
        self._size += len(payload)
        if self._frames > self._limits.fragments:
            return self._fail(_POLICY, f"message of more than {self._limits.fragments} frames")
        if not self._frames % _FRAGMENTS_A_MESSAGE:
            self._messages += 1
        last = bool(first & _FIN)
        if self._inflate is not None:
            try:
                payload = self._inflate.feed(payload, self._limits.message_bytes - len(self._text), last=last)
            except zlib.error:
                return self._fail(_NOT_UTF8, "not compressed as agreed")
            if len(self._text) + len(payload) > self._limits.message_bytes:
                return self._fail(_TOO_LARGE, f"message larger than {self._limits.message_bytes} bytes")
        self._text += payload
        if not last:
            return True
        message = bytes(self._text)
        self._text.clear()
        self._frames = self._size = 0
        self._inflate = None
        return self._deliver(message)

    def _deliver(self, message: bytes) -> bool:
        if not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError:
                return self._fail(_NOT_UTF8, "text that is not UTF-8")
        if self._credential is not None and self._credential.left(time.time()) <= 0.0:
            self._ending = _POLICY, "credential expired"
            return True
        self._receive(message)
        return True

    def _fail(self, code: int, reason: str) -> bool:
        """The peer has broken a rule that ends the connection."""
        self._record(_EVENTS.get(code, "message.malformed"), f"WebSocket: {reason}", _SETTINGS.get(code, ""))
        self._ending = code, reason
        return True

    def _closed(self, payload: bytes) -> bool:
        """The client closes: answer with its code, and end. RFC 6455 sections 5.5.1 and 7.4."""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            known = code in _CODES or 3000 <= code <= 4999
            try:
                payload[2:].decode()
            except UnicodeDecodeError:
                known = False
            if len(payload) == 1 or not known:
                return self._fail(_BROKEN, "malformed close frame")
        self._shut = True
        self._out.append(_control(_CLOSE, payload[:2]))
        self._hang_up(linger=False)
        return False

    # Writing

    def _encode(self, message: bytes) -> None:
        first = _WHOLE_TEXT
        if self._compression and len(message) >= _WORTH:
            first |= _COMPRESSED
            deflate = zlib.compressobj(wbits=-_WINDOW, memLevel=5)
            message = (deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)
        length = len(message)
        if length <= _CONTROL_BYTES:
            self._out.append(bytes((first, length)))
        elif length < 0x10000:
            self._out.append(bytes((first, 126, length >> 8, length & 0xFF)))
        else:
            self._out.append(bytes((first, 127)) + length.to_bytes(8, "big"))
        self._out.append(message)

    def _flush(self) -> None:
        if self._pong is not None and self._room is None:
            self._out.insert(0, _control(_PONG, self._pong))
            self._pong = None
        super()._flush()

    def _farewell(self, code: int, reason: str) -> None:
        text = reason.encode("ascii", "replace")[: _CONTROL_BYTES - 2]
        self._out.append(_control(_CLOSE, code.to_bytes(2, "big") + text))

    # Time

    def _clocks(self, now: float) -> list[Clock]:
        clocks = super()._clocks(now)
        if not self.closing:
            if self._credential is not None:
                clocks.append((self._ask_at, self._look))
            if self._reading and not self._shut and self._room is None:  # a ping would wait behind what waits
                if self._pinged > self._heard:
                    clocks.append((self._pinged + self._timeouts.pong, self._silent))
                else:
                    clocks.append((self._heard + self._timeouts.ping, self._ping))
        return clocks

    def _look(self) -> None:
        """Whether the credential still holds."""
        left = 0.0 if self._credential is None else self._credential.left(time.time())
        if left <= 0.0:
            self.close(_POLICY, "credential expired")
        else:
            self._ask_at = self._guests.now() + left

    def _ping(self) -> None:
        self._pinged = self._loop.time()
        self._out.append(_control(_PING, b""))
        self._flush()

    def _silent(self) -> None:
        self._record("limit.reached", "a peer that answers no ping is put out", "Timeouts.pong")
        self.abort()


_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def _control(opcode: int, payload: bytes) -> bytes:
    return bytes((_FIN | opcode, len(payload))) + payload


class _Inflate:
    """Undoes the compression of one message, a frame at a time. RFC 7692 section 7.2.2."""

    __slots__ = ("_inflater",)

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=-15)

    def feed(self, payload: bytes, room: int, *, last: bool) -> bytes:
        """What a frame inflates to, but at most one byte more than there is room for.

        Raises:
            zlib.error: it is not compressed data, or there is something behind its end.
        """
        inflater = self._inflater
        text = inflater.decompress(payload, room + 1)
        if last and len(text) <= room and not inflater.eof:
            text += inflater.decompress(_TAIL, room + 1 - len(text))
        # A sender that ends the data with a final block puts an empty one behind it (section 7.2.3.4).
        if inflater.unused_data not in (b"", b"\x00"):
            raise zlib.error("data behind the end")
        return text
