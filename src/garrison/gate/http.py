"""Who may speak to this listener over HTTP, decided on the head alone.

Rules of this file:
- Everything is closed but what is listed. Names are compared whole, never by prefix or suffix.
- The order is: the proxy, Host, Origin, path, credential, method, media types. A cheap refusal comes before a dear one,
  and nobody is told about paths or methods before it is known that they may ask.
- Who asks is found out by one `Authenticator`: the listener's token, its certificates, or what protects the server.
- What the peer sends about itself decides nothing; what a trusted proxy says of whom it serves decides whose requests
  are counted, and nothing else.
- Pages of listed origins may read answers (CORS), and refusals too; pages of other origins get no such header. A
  preflight carries no credential and reaches no handler.

RFC 9110 sections 7.2, 7.8 and 12.5; Fetch, "CORS protocol", "Origin" and "Sec-Fetch-Site"; spec: 2026-07-28
streamable-http, "Security".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..errors import BadRequest, ConfigurationError, HostRefused, OriginRefused
from .proxies import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from ..policy import SecurityPolicy
    from ..transports.http.exchange import Head
    from .authentication import Authenticator

__all__ = ["HttpGate"]

_HOST: Final = re.compile(rb"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_PORT: Final = re.compile(rb":[0-9]+\Z")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_PARAM: Final = re.compile(rb"mcp-param-[a-z0-9-]{1,64}")
_JSON_TYPES: Final = frozenset(
    {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
)
_BOTH: Final = frozenset(
    {
        b"application/json, text/event-stream",
        b"text/event-stream, application/json",
        b"application/json,text/event-stream",
        b"*/*",
    }
)


_CORS_SENT: Final = (
    b"authorization, content-type, dpop, last-event-id, mcp-method, mcp-name, mcp-protocol-version, mcp-session-id"
)
_CORS_READ: Final = b"dpop-nonce, mcp-protocol-version, mcp-session-id, retry-after, www-authenticate"
_PREFLIGHT_SECONDS: Final = 600


class HttpGate:
    """The checks of one listener.

    Args:
        policy: whom it answers.
        port: where it listens on loopback; part of its own names. None: it has no names but `allowed_hosts`.
        secure: it speaks TLS.
        public: others can reach it without TLS, so that only trusted proxies and this machine may connect.
        path: the MCP endpoint.
        local: it listens on a Unix socket, where `localhost` is its name.
        authenticator: finds out who asks.
        methods: HTTP methods that the endpoint answers beside POST.
        others: further paths, and the HTTP methods each answers.
        open_paths: of these, the ones that everybody may ask for, without a credential.
        http: the endpoint answers requests; False where it serves WebSocket only.
        websocket: the endpoint answers a WebSocket handshake.

    Raises:
        ConfigurationError: an allowed host, origin or proxy, or the public URL, is not of its form.
    """

    def __init__(
        self,
        policy: SecurityPolicy,
        *,
        port: int | None,
        path: str,
        local: bool = False,
        authenticator: Authenticator,
        methods: frozenset[bytes],
        secure: bool = False,
        public: bool = False,
        others: Mapping[str, frozenset[bytes]] | None = None,
        open_paths: Set[str] = frozenset(),
        http: bool = True,
        websocket: bool = False,
    ) -> None:
        scheme = "https" if secure else "http"
        hosts: set[bytes] = {b"localhost"} if local else set()
        for name in _LOOPBACK if port is not None else ():
            hosts.add(f"{name}:{port}".encode())
            if port == (443 if secure else 80):
                hosts.add(name.encode())
        own = {f"{scheme}://{host.decode()}".encode() for host in hosts}
        for host in policy.allowed_hosts:
            value = host.lower().encode()
            if _HOST.fullmatch(value) is None:
                raise ConfigurationError(f"SecurityPolicy.allowed_hosts: {host!r} is not a host or host:port")
            hosts.add(value)
            if port is not None and _PORT.search(value) is None:
                hosts.add(b"%b:%d" % (value, port))
        listed: set[bytes] = set()
        for origin in policy.allowed_origins:
            if _ORIGIN.fullmatch(origin.lower()) is None:
                raise ConfigurationError(f"SecurityPolicy.allowed_origins: {origin!r} is not scheme://host[:port]")
            listed.add(origin.lower().encode())
        if policy.public_url:
            value = policy.public_url.removeprefix("https://").partition("/")[0].lower().encode()
            if _HOST.fullmatch(value) is None:
                raise ConfigurationError("SecurityPolicy.public_url is not https://host[:port]/path")
            hosts.add(value)
        self._hosts = frozenset(hosts)
        self._own = frozenset(own)
        self._listed = frozenset(listed)
        self._path = path.encode()
        self._authenticate = authenticator.authenticate
        self._http = http
        self._websocket = websocket
        self._any_accept = "accept" in policy.tolerate
        self._proxies = TrustedProxies(policy.trusted_proxies)
        self._public = public
        self._https = bool(policy.public_url)
        served = methods | {b"POST"} if http else frozenset[bytes]()
        self._methods = {name.encode(): answered for name, answered in (others or {}).items()}
        self._methods[self._path] = served
        self._open = frozenset(path.encode() for path in open_paths)
        self.shared = self._proxies.trusts
        """Tells the addresses through which many peers come."""
        self._looks_at_peer = bool(self._proxies) or public
        self.lasting = not self._looks_at_peer and authenticator.lasting
        """The verdict depends on the head alone: names, and a token that does not change."""

    def check(self, head: Head) -> None:
        """Refuse a request that may not go on, and say in the head who sends one that may.

        Where the authenticator cannot tell yet, `head.pending` says when to ask again, and nothing is decided.

        Raises:
            Refused: with the status to answer.
        """
        fields = head.fields
        if self._looks_at_peer:
            self._check_peer(head)
        host = fields.get(b"host")
        if host not in self._hosts:
            self._check_host(host)
        origin = fields.get(b"origin")
        if origin is not None:
            origin = origin.lower()
            if origin in self._listed:
                head.reply = _readable(origin)
            elif origin not in self._own:
                raise OriginRefused("Origin not allowed", hint="SecurityPolicy.allowed_origins")
        elif fields.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise OriginRefused("Cross-site request without an allowed Origin", hint="SecurityPolicy.allowed_origins")
        methods = self._methods.get(head.path)
        if methods is None:
            raise BadRequest("Not found", status=404)
        if head.method == b"OPTIONS" and head.reply and b"access-control-request-method" in fields:
            head.reply += _preflight(methods, fields.get(b"access-control-request-headers", b""))
            return
        if head.path not in self._open:
            self._authenticate(head)
            if head.pending is not None:
                return
        if b"upgrade" in fields and _asks_for_websocket(head):
            if not self._websocket or head.path != self._path:
                raise BadRequest("WebSocket is not served here", hint="websocket=, --ws")
            return
        if head.method not in methods or (head.path == self._path and not self._http):
            self._refuse_method(head, methods)
        if head.method == b"POST":
            if fields.get(b"content-type") not in _JSON_TYPES:
                self._check_content_type(fields.get(b"content-type"))
            if b"content-encoding" in fields:
                raise BadRequest("Content-Encoding is not served", status=415)
            if fields.get(b"accept") not in _BOTH and head.path == self._path and not self._any_accept:
                self._check_accept(fields.get(b"accept"))

    def _check_peer(self, head: Head) -> None:
        """Whom a proxy serves; and nobody but proxies where the connection is not protected."""
        address = head.peer.address
        head.client = None
        if self._proxies.trusts(address):
            head.client = self._proxies.client(head.fields, address)
            if self._https and self._proxies.scheme(head.fields) == "http":
                raise BadRequest("This endpoint is reached by https", hint="SecurityPolicy.public_url")
        elif self._public and not _is_loopback(address):
            raise BadRequest("Connect through the proxy", status=403, hint="SecurityPolicy.trusted_proxies")

    def _refuse_method(self, head: Head, methods: frozenset[bytes]) -> None:
        if not self._http:
            refused = BadRequest("Only WebSocket is served here", status=426, hint="http=True, --http")
            refused.reply = b"upgrade: websocket\r\n"
            raise refused
        refused = BadRequest("Method not allowed", status=405)
        refused.allow = b", ".join(sorted(methods, reverse=True))
        raise refused

    def _check_host(self, host: bytes | None) -> None:
        if host is None or _HOST.fullmatch(host) is None:
            raise BadRequest("Missing or malformed Host")
        if host.lower() not in self._hosts:
            raise HostRefused("Host not served here", hint="SecurityPolicy.allowed_hosts")

    def _check_content_type(self, value: bytes | None) -> None:
        media, _, parameters = (value or b"").partition(b";")
        charset = parameters.strip().lower().replace(b'"', b"")
        if media.strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
            raise BadRequest("Content-Type must be application/json", status=415)

    def _check_accept(self, value: bytes | None) -> None:
        accepted = {part.partition(b";")[0].strip().lower() for part in (value or b"").split(b",")}
        if b"*/*" not in accepted and not (
            accepted & {b"application/json", b"application/*"} and accepted & {b"text/event-stream", b"text/*"}
        ):
            raise BadRequest("Accept must list application/json and text/event-stream", status=406)


def _readable(origin: bytes) -> bytes:
    """What lets a page of this origin read the answer."""
    return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\nvary: origin\r\n" % (
        origin,
        _CORS_READ,
    )


def _preflight(methods: frozenset[bytes], wanted: bytes) -> bytes:
    """The further fields of the answer to a preflight: what the page may send."""
    # Mcp-Param-* are named by the tools' schemas; those that are asked for are let through.
    named = [name.strip().lower() for name in wanted.split(b",")]
    mirrored = b"".join(b", " + name for name in named if _PARAM.fullmatch(name))
    return b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\naccess-control-max-age: %d\r\n" % (
        b", ".join(sorted(methods)),
        _CORS_SENT + mirrored,
        _PREFLIGHT_SECONDS,
    )


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def _asks_for_websocket(head: Head) -> bool:
    """RFC 6455 section 4.2.1. Another protocol that is offered need not be taken up (RFC 9110 section 7.8)."""
    fields = head.fields
    return (
        head.method == b"GET"
        and fields[b"upgrade"].lower() == b"websocket"
        and b"upgrade" in [part.strip() for part in fields.get(b"connection", b"").lower().split(b",")]
    )
