"""The requests of one HTTP/1.1 connection, read out of its bytes by llhttp.

Rules of this file:
- Every byte is counted while it is read: the head against `Limits.header_bytes`, the body against
  `Limits.message_bytes`. What is too large is refused before it is kept.
- A request that breaks HTTP ends the reading, so that no second meaning of its bytes survives.
- Of what was sent ahead, one request is read at a time, or the few that a small piece holds: what comes after it is
  given back, for the other connections to have their turn.

RFC 9112; RFC 9110.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from ...errors import BadRequest, Refused
from .exchange import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..peer import Peer
    from .edge import HttpListener

__all__ = ["RequestReader"]

_PIECE: Final = 2048
"""Bytes that are parsed at once where nobody knows yet where the request ends."""
_CHUNKS: Final = 1024
_CHUNK: Final = 256
"""A body may come in so many chunks, and one more for each so many bytes: a chunk costs more than its bytes."""


class RequestReader:
    """What one peer sends.

    Args:
        listener: whose limits and clock count, and whose heads are learnt.
        peer: who sends.
        admit: called with each complete head, before any byte of its body is taken. Raises `Refused` for one that goes
            no further.
    """

    __slots__ = (
        "_admit",
        "_body",
        "_chunks",
        "_complete",
        "_declined",
        "_fresh",
        "_head_bytes",
        "_head_raw",
        "_input",
        "_listener",
        "_parser",
        "_peer",
        "_pieces",
        "_size",
        "_until",
        "_upgrade",
        "deadline",
        "failure",
        "head",
        "queue",
        "switching",
    )

    def __init__(self, listener: HttpListener, peer: Peer, admit: Callable[[Head], None]) -> None:
        self._listener = listener
        self._peer = peer
        self._admit = admit
        self._parser = httptools.HttpRequestParser(self)
        self.queue: deque[tuple[Head, bytes, bool]] = deque()
        """Complete requests: head, body, and whether the connection may be kept after it."""
        self.failure: Refused | None = None
        """Why nothing more is read. It is answered after what is complete."""
        self.head: Head | None = None
        """The request that is being read."""
        self.deadline = 0.0
        """Loop time at which it must be complete."""
        self.switching = False
        """The last request that is complete asks for WebSocket, and the parser has left."""
        self._declined = -1
        self._complete = False
        self._input = b""
        self._upgrade = False
        self._until = 0.0
        self._begin_head()

    def _begin_head(self) -> None:
        self._head_bytes = self._head_raw = 0
        self._fresh = True
        self._body: bytes = b""
        self._chunks: bytearray | None = None
        self._pieces = self._size = 0

    def feed(self, data: bytes) -> bytes:
        """Read on, up to the end of the piece in which a request is complete.

        Returns:
            What was not read. It is to be fed before anything that comes later.
        """
        if self._declined >= 0:
            self._take_declined(data)
            return b""
        self._fresh = self._complete = False
        self._input = data
        view, start, size = memoryview(data), 0, len(data)
        # A head by itself, where one begins in a long piece, because it says where its body ends.
        end = data.find(b"\r\n\r\n", 0, _PIECE) + 4 if self.head is None and size > _PIECE else 0
        while start < size and not self._complete and self.failure is None:
            if end <= max(start, 4):
                end = start + (self._due() or _PIECE)
            try:
                self._parser.feed_data(view[start:end])
            except httptools.HttpParserUpgrade as exc:
                start += cast("int", exc.args[0])
                if self._upgrade:
                    self.switching = True
                    break
                self._decline(data[start:])
                start = size
                break
            except httptools.HttpParserCallbackError:
                self.failure = self.failure or BadRequest("Malformed HTTP request")
            except httptools.HttpParserError:
                self.failure = BadRequest("Malformed HTTP request")
            start = end
        self._input = b""
        if self.failure is not None:
            return b""
        if self.head is not None and self._head_bytes >= 0 and not self._fresh:
            # The parser keeps an unfinished head: at most the limit and the piece in which it began.
            self._head_raw += size
            if self._head_raw > self._listener.limits.header_bytes:
                self.failure = BadRequest("Header too large", status=431, hint="Limits.header_bytes")
        return data[start:]

    def renew(self) -> None:
        """Give what is half read its whole time again: it has waited for us."""
        timeouts = self._listener.timeouts
        self._until = self._listener.now() + (timeouts.head if self._head_bytes >= 0 else timeouts.body)
        self.deadline = self._until + max(0, self._size) / self._listener.limits.body_rate

    def withdraw(self, head: Head, refusal: Refused) -> None:
        """Refuse a request that was read already, and with it what came after it: nothing more is answered."""
        while any(each is head for each, _, _ in self.queue):
            self.queue.pop()
        self.head, self.failure, self.switching = head, refusal, False

    def _due(self) -> int:
        """Bytes of the body that are to come, where its head says how many."""
        head = self.head
        if head is None or self._head_bytes >= 0:
            return 0
        return max(0, int(head.fields.get(b"content-length", b"0")) - self._size)

    def _decline(self, rest: bytes) -> None:
        """Serve a request that offers another protocol as if it did not (RFC 9110 section 7.8), and then close.

        The parser has left with the end of its head. A body of a known length is read here; what follows it is not.
        """
        head, _, _ = self.queue.pop()
        if b"transfer-encoding" in head.fields:
            self.failure = BadRequest("A request that offers an upgrade needs a Content-Length")
            return
        self.head = head
        self._fresh = True
        self._declined = int(head.fields.get(b"content-length", b"0"))
        self._take_declined(rest)

    def _take_declined(self, data: bytes) -> None:
        head = self.head
        if head is None:
            return  # whatever follows the one request
        part = data[: self._declined - self._size]
        if part:
            self.on_body(part)
        if self._size == self._declined:
            self.queue.append((head, self._body if self._chunks is None else bytes(self._chunks), False))
            self.head = None

    # llhttp callbacks

    def _objection(self, refusal: Refused) -> Refused:
        """Remember why parsing ends; the parser passes on no more than that it did."""
        self.failure = refusal
        return refusal

    def on_message_begin(self) -> None:
        self.head = Head()
        self._begin_head()
        self.deadline = self._listener.now() + self._listener.timeouts.head

    def on_url(self, url: bytes) -> None:
        head = self.head
        if head is not None:
            head.path += url
            self._head_bytes += len(url)
            if self._head_bytes > self._listener.limits.header_bytes:
                raise self._objection(BadRequest("Header too large", status=431, hint="Limits.header_bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        head = self.head
        if head is None or self._head_bytes < 0:
            raise self._objection(BadRequest("Trailer fields are not served"))
        self._head_bytes += len(name) + len(value) + 4
        limits = self._listener.limits
        if len(head.fields) >= limits.header_count or self._head_bytes > limits.header_bytes:
            raise self._objection(
                BadRequest("Header too large", status=431, hint="Limits.header_count, Limits.header_bytes")
            )
        head.add(name, value)

    def on_headers_complete(self) -> None:
        head = self.head
        if head is None:
            return
        listener = self._listener
        parser = self._parser
        self._head_bytes = -1
        head.method = parser.get_method()
        head.path, _, head.query = head.path.partition(b"?")
        head.peer = self._peer
        scheme = b"https://" if self._peer.secure else b"http://"
        if head.path.startswith(scheme):
            # RFC 9112 section 3.2.2: the authority of an absolute target counts, whatever Host says.
            head.fields[b"host"], slash, path = head.path[len(scheme) :].partition(b"/")
            head.path = slash + path
        if head.repeated is not None:
            raise self._objection(BadRequest(f"Repeated header field {head.repeated.decode('latin-1')}"))
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._objection(BadRequest("HTTP version not served"))
        try:
            self._admit(head)
        except Refused as refusal:
            raise self._objection(refusal) from None
        # llhttp says it of HTTP/1.0 too.
        asked = parser.should_upgrade() and version == "1.1"
        self._upgrade = asked and head.fields.get(b"upgrade", b"").lower() == b"websocket"
        self.deadline = self._until = listener.now() + listener.timeouts.body

    def on_chunk_header(self) -> None:
        self._pieces += 1
        if self._pieces > _CHUNKS + self._size // _CHUNK:
            raise self._objection(BadRequest("Body in too many small chunks"))

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._listener.limits.message_bytes:
            raise self._objection(BadRequest("Message too large", status=413, hint="Limits.message_bytes"))
        self.deadline = self._until + self._size / self._listener.limits.body_rate
        if not self._body:
            self._body = body
        elif self._chunks is None:
            self._chunks = bytearray(self._body) + body
        else:
            self._chunks += body

    def on_message_complete(self) -> None:
        head = self.head
        if head is None:
            return
        body = self._body if self._chunks is None else bytes(self._chunks)
        if self._fresh and not self.queue and head.pending is None:
            self._listener.heads.learn(self._input, head)
        keep = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self.queue.append((head, body, keep))
        self._complete = True
        self.head = None
        self._body = b""
        self._chunks = None
