"""One HTTP request and its response, as the server's rooms see it, whatever carries it.

Rules of this file:
- `Head` is a request without its body: names in lower case, values as bytes, nothing decoded or trusted.
- A field that decides about security may stand once. A second one is remembered in `repeated`, for the gate to refuse.
- `Exchange` is the response side. Exactly one of `respond` and `start_stream` is called, once.

RFC 9110 section 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ...errors import Refused
from ...policy.principal import NOBODY
from ..peer import LOCAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...policy.principal import Principal
    from ..flood import Place
    from ..listener import Guest, Guests
    from ..peer import Credential, Peer

__all__ = ["SECURITY_FIELDS", "SINGLE", "Application", "Exchange", "Head", "Takeover", "reason"]

SINGLE: Final = frozenset(
    {
        b"accept",
        b"access-control-request-method",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"dpop",
        b"host",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
        b"sec-fetch-site",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    }
)
SECURITY_FIELDS: Final = (
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
)
"""Header lines of every response."""
_REASONS: Final = {
    101: b"Switching Protocols",
    200: b"OK",
    202: b"Accepted",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


def reason(status: int) -> bytes:
    """The reason phrase of a status."""
    return _REASONS.get(status, b"Unknown")


class Head:
    """A request's method, target and fields, and what the gate found out about it."""

    __slots__ = (
        "cleared",
        "client",
        "credential",
        "fields",
        "memo",
        "method",
        "path",
        "peer",
        "pending",
        "principal",
        "query",
        "repeated",
        "reply",
        "root",
    )

    def __init__(self) -> None:
        self.peer: Peer = LOCAL
        """Who is at the other end of the connection."""
        self.client: str | None = None
        """The address of whom a trusted proxy serves; None where the peer speaks for itself."""
        self.reply = b""
        """Header lines that the answer to this request carries, each ended with CRLF: what lets a page read it."""
        self.method = b""
        self.root = b""
        """Where the application is mounted; what `path` does not say."""
        self.path = b""
        self.query = b""
        self.fields: dict[bytes, bytes] = {}
        self.repeated: bytes | None = None
        self.principal: Principal = NOBODY
        """Who sends this, set by the gate."""
        self.credential: Credential | None = None
        """What shows it, where it can end; what stays open is looked after by it."""
        self.pending: Awaitable[object] | None = None
        """The gate cannot tell yet: to be asked again when this is done, and no more of the request is read before."""
        self.cleared = False
        """The gate let this head pass, and need not be asked again."""
        self.memo: object = None
        """What the application has read out of this head; for a head that comes again."""

    def __reduce__(self) -> str:
        raise TypeError("a Head holds credentials and is not pickled")

    def copy(self) -> Head:
        """The same request, about which nothing was found out yet."""
        head = Head()
        head.method, head.root, head.path, head.query = self.method, self.root, self.path, self.query
        head.fields, head.memo = self.fields, self.memo
        return head

    def add(self, name: bytes, value: bytes) -> None:
        """Take one field. White space around its value is not part of it (RFC 9110 section 5.5)."""
        name = name.lower()
        value = value.strip(b" \t")
        if name in self.fields:
            if name in SINGLE or name.startswith(b"mcp-param-"):
                self.repeated = name
            value = self.fields[name] + b", " + value
        self.fields[name] = value

    def text(self, name: bytes) -> str | None:
        """A field's value as text, or None."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")


class Exchange(Protocol):
    """The response to one request. All methods belong to the event loop's thread."""

    on_gone: Callable[[], None] | None
    """Called once if the peer leaves, or is put out, before the response is complete."""

    def respond(self, status: int, body: bytes, fields: bytes = b"") -> None:
        """Send a whole response. `fields` are further header lines, each ended with CRLF; a body is JSON."""
        ...

    def start_stream(self, fields: bytes = b"") -> None:
        """Begin an event stream (status 200)."""
        ...

    def send_event(self, event: bytes) -> None:
        """Send one encoded event on the stream. Dropped when the peer is gone."""
        ...

    def end_stream(self) -> None:
        """The stream is complete."""
        ...

    def drain(self) -> Awaitable[None]:
        """Return when the peer has room for more."""
        ...

    def malformed(self) -> None:
        """Said before the answer to a request that breaks the protocol: too many of them end the connection."""
        ...


class Takeover(Protocol):
    """Makes what goes on with a connection after 101 Switching Protocols, ready for its `connection_made`."""

    def __call__(self, guests: Guests, place: Place) -> Guest: ...


class Application(Protocol):
    """What a listener serves."""

    lasting: bool
    """The verdict of `check` depends on the bytes of the head alone, so it holds when the same head comes again."""

    def check(self, head: Head) -> None:
        """Called when the head is complete, before any byte of the body is taken.

        Raises:
            Refused: the request goes no further.
        """
        ...

    def handle(self, head: Head, body: bytes, exchange: Exchange) -> None:
        """Called with the complete request."""
        ...

    def refusal(self, error: Refused) -> tuple[int, bytes, bytes]:
        """Status, body and further fields for a refusal."""
        ...

    def upgrade(self, head: Head) -> tuple[bytes, Takeover] | None:
        """Called in place of `handle` for a request that asks for another protocol, and that `check` let pass.

        Returns:
            The fields of the 101 and what goes on; None to answer as if nothing had been asked.

        Raises:
            Refused: the handshake is wrong.
        """
        ...
