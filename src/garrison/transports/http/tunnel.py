"""The way to an https endpoint through an HTTP proxy.

Rules of this file:
- The proxy sees where the client goes and nothing else: TLS begins after its answer, with the endpoint itself.
- A proxy is used only where one was named; no variable of the environment names one.
- Its answer is bounded like any head, and anything but success ends the attempt.

Spec: RFC 9110 section 9.3.6 (CONNECT).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from ...errors import ConfigurationError, ConnectionFailed
from .url import UrlError, parse_endpoint

if TYPE_CHECKING:
    from .url import Endpoint

__all__ = ["Proxy", "Tunnel"]


class Proxy:
    """The address of an HTTP proxy, and what is said to it."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        userinfo, at, address = rest.rpartition("@")
        try:
            endpoint = parse_endpoint(f"{scheme}://{address}")
        except UrlError as exc:
            raise ConfigurationError(f"proxy=: {exc}") from None
        if endpoint.secure:
            raise ConfigurationError("proxy=: the proxy itself is reached by http://")
        self.host, self.port = endpoint.host, endpoint.port
        self._authorization = ""
        if at:
            from base64 import b64encode
            from urllib.parse import unquote_to_bytes

            token = b64encode(unquote_to_bytes(userinfo)).decode()
            self._authorization = f"Proxy-Authorization: Basic {token}\r\n"

    def connect(self, endpoint: Endpoint) -> bytes:
        """The CONNECT request for an endpoint."""
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        authority = f"{host}:{endpoint.port}"
        return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{self._authorization}\r\n".encode("ascii")


class Tunnel(asyncio.Protocol):
    """Waits for the proxy's answer to CONNECT; after that the TLS handshake takes the transport over."""

    def __init__(self, limit: int) -> None:
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limit = limit
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def ask(self, request: bytes) -> None:
        if self._transport is not None:
            self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.open.done() or (b"\r\n\r\n" not in self._head and len(self._head) <= self._limit):
            return
        line = self._head.split(b"\r\n", 1)[0].split(b" ")
        if (
            len(line) >= 2
            and line[0].startswith(b"HTTP/1.")
            and line[1].startswith(b"2")
            and self._head.endswith(b"\r\n\r\n")
        ):
            self.open.set_result(None)
        else:
            status = line[1].decode("latin-1")[:3] if len(line) >= 2 else "no status"
            self.open.set_exception(ConnectionFailed(f"The proxy refused the connection ({status})"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(ConnectionFailed("The proxy closed the connection"))
