"""Who may speak to this listener over HTTP, decided on the head alone.

Rules of this file:
- Everything is closed but what is listed. Names are compared whole, never by prefix or suffix.
- The order is: Host, Origin, path, token, method, media types. A cheap refusal comes before a dear one, and nobody is
  told about paths or methods before it is known that they may ask.
- What the peer sends about itself, forwarded headers included, decides nothing.

RFC 9110 sections 7.2 and 12.5; Fetch, "Origin" and "Sec-Fetch-Site"; spec: 2026-07-28 streamable-http, "Security".
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

from ..errors import BadRequest, ConfigurationError, HostRefused, OriginRefused, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..transports.http.exchange import Head

__all__ = ["HttpGate"]

_HOST: Final = re.compile(rb"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
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


class HttpGate:
    """The checks of one listener.

    Args:
        port: where it listens on loopback; part of its own names. None: it has no names but `allowed_hosts`.
        path: the MCP endpoint.
        allowed_hosts, allowed_origins: what is answered beside the loopback names.
        token: the bearer token every request must carry; None asks for none.
        methods: HTTP methods that the endpoint answers beside POST.
        others: further paths, and the HTTP methods each answers.

    Raises:
        ConfigurationError: an allowed host or origin is not of its form.
    """

    def __init__(
        self,
        *,
        port: int | None,
        path: str,
        allowed_hosts: tuple[str, ...],
        allowed_origins: tuple[str, ...],
        token: str | None,
        methods: frozenset[bytes],
        others: Mapping[str, frozenset[bytes]] | None = None,
    ) -> None:
        hosts: set[bytes] = set()
        for name in _LOOPBACK if port is not None else ():
            hosts.add(f"{name}:{port}".encode())
            if port == 80:
                hosts.add(name.encode())
        for host in allowed_hosts:
            value = host.lower().encode()
            if _HOST.fullmatch(value) is None:
                raise ConfigurationError(f"allowed_hosts: {host!r} is not a host or host:port")
            hosts.add(value)
        origins = {
            f"http://{host.decode()}".encode()
            for host in hosts
            if host.partition(b":")[0] in (b"127.0.0.1", b"localhost") or host.startswith(b"[::1]")
        }
        for origin in allowed_origins:
            if _ORIGIN.fullmatch(origin.lower()) is None:
                raise ConfigurationError(f"allowed_origins: {origin!r} is not scheme://host[:port]")
            origins.add(origin.lower().encode())
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._path = path.encode()
        self._authorization = None if token is None else b"Bearer " + token.encode()
        self._methods = {name.encode(): answered for name, answered in (others or {}).items()}
        self._methods[self._path] = methods | {b"POST"}
        self.principal = "anonymous" if token is None else "token"
        self.lasting = True
        """The verdict depends on the head alone: names, and a token that does not change."""

    def check(self, head: Head) -> None:
        """Refuse a request that may not go on, and say in the head who sends one that may.

        Raises:
            Refused: with the status to answer.
        """
        fields = head.fields
        host = fields.get(b"host")
        if host not in self._hosts:
            self._check_host(host)
        origin = fields.get(b"origin")
        if origin is not None:
            if origin.lower() not in self._origins:
                raise OriginRefused("Origin not allowed", hint="SecurityPolicy.allowed_origins")
        elif fields.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise OriginRefused("Cross-site request without an allowed Origin", hint="SecurityPolicy.allowed_origins")
        methods = self._methods.get(head.path)
        if methods is None:
            raise BadRequest("Not found", status=404)
        if self._authorization is not None:
            given = fields.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._authorization):
                self._check_scheme(given)
        head.principal = self.principal
        if head.method not in methods:
            refused = BadRequest("Method not allowed", status=405)
            refused.allow = b", ".join(sorted(methods, reverse=True))
            raise refused
        if head.method == b"POST":
            if fields.get(b"content-type") not in _JSON_TYPES:
                self._check_content_type(fields.get(b"content-type"))
            if b"content-encoding" in fields:
                raise BadRequest("Content-Encoding is not served", status=415)
            if fields.get(b"accept") not in _BOTH and head.path == self._path:
                self._check_accept(fields.get(b"accept"))

    def _check_host(self, host: bytes | None) -> None:
        if host is None or _HOST.fullmatch(host) is None:
            raise BadRequest("Missing or malformed Host")
        if host.lower() not in self._hosts:
            raise HostRefused("Host not served here", hint="SecurityPolicy.allowed_hosts")

    def _check_scheme(self, given: bytes) -> None:
        scheme, _, token = given.partition(b" ")
        expected = self._authorization or b""
        if scheme.lower() != b"bearer" or not hmac.compare_digest(b"Bearer " + token.strip(), expected):
            raise Unauthenticated(
                "A bearer token is required", hint="the token printed at start, --token, GARRISON_TOKEN"
            )

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
