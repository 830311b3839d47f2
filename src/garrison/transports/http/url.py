"""The address of an MCP endpoint: what a client may connect to, and what counts as the same origin.

Rules of this file:
- Only `http` and `https`, or `ws` and `wss` where they are asked for; no user name or password in the address, no
  fragment, no control characters, no non-ASCII.
- Two endpoints are of one origin when scheme, host and port are the same (RFC 6454 section 5).
- Loopback is `localhost` and the literal addresses 127.0.0.0/8 and ::1; a name that merely resolves there is not.
- `unix:` is followed by the absolute path of a socket, as it is in the file system: nothing in it is decoded, and there
  is no host, query or fragment.

Spec: RFC 3986; RFC 9110 section 4.2; RFC 6455 section 3.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

__all__ = ["HTTP", "WEBSOCKET", "Endpoint", "UrlError", "is_loopback", "parse_endpoint", "parse_unix"]

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_BRACKETED: Final = re.compile(r"\[[0-9A-Fa-f:.]+\](?::[0-9]*)?")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

HTTP: Final = ("https", "http")
"""The schemes of Streamable HTTP, the secure one first."""
WEBSOCKET: Final = ("wss", "ws")
"""The schemes of WebSocket. RFC 6455 section 3."""


class UrlError(ValueError):
    """The text is not the address of an MCP endpoint. The message says why and does not repeat the text."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: `host` without brackets, `target` as it stands in the request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def secure(self) -> bool:
        """True for https and wss."""
        return self.scheme in ("https", "wss")

    @property
    def authority(self) -> str:
        """The value of the Host header. RFC 9110 section 7.2."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`. RFC 6454 section 6.2."""
        return f"{self.scheme}://{self.authority}"

    @property
    def loopback(self) -> bool:
        """True when the host is this machine by its very name."""
        return is_loopback(self.host)

    def join(self, reference: str) -> Endpoint:
        """The endpoint that a Location header or an `endpoint` event names, relative to this one, over HTTP.

        Raises:
            UrlError: the reference is not the address of an endpoint.
        """
        return parse_endpoint(urljoin(self.origin + self.target, reference))


def parse_endpoint(url: str, schemes: tuple[str, str] = HTTP) -> Endpoint:
    """The endpoint in an absolute URL.

    Args:
        url: the text.
        schemes: `HTTP` or `WEBSOCKET`.

    Raises:
        UrlError: it is something else.
    """
    if _VISIBLE.fullmatch(url) is None or "\\" in url:
        raise UrlError("a URL has only visible ASCII characters (use punycode and percent-encoding for others)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlError("not a URL") from None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in schemes:
        raise UrlError(f"the scheme must be {schemes[0]}, or {schemes[1]} on loopback")
    if "@" in parts.netloc:
        raise UrlError("no user name or password may stand in the URL (use token= or headers=)")
    if "#" in url:
        raise UrlError("the address of an endpoint has no fragment")
    if "[" in parts.netloc:  # `urlsplit` takes what is in brackets for the host, whatever stands around them
        named = _BRACKETED.fullmatch(parts.netloc) is not None and _is_ipv6(host)
    else:
        named = _HOST.fullmatch(host) is not None
    if not named or port == 0:
        raise UrlError("the URL names no valid host and port")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(scheme, host, port or _PORTS[scheme], target)


def parse_unix(target: str) -> str:
    """The path in `unix:/path/of.sock`.

    Raises:
        UrlError: it is something else.
    """
    path = target.removeprefix("unix:")
    if path == target or not path.startswith("/") or path.startswith("//"):
        raise UrlError("a Unix socket is named by its absolute path: unix:/path/of.sock")
    if not path.isprintable() or path.endswith("/"):
        raise UrlError("the path of a Unix socket has no control characters, and does not end with /")
    return path


def is_loopback(host: str) -> bool:
    """True for `localhost`, 127.0.0.0/8 and ::1."""
    if host == "localhost":
        return True
    try:
        if ":" in host:
            return socket.inet_pton(socket.AF_INET6, host) == b"\x00" * 15 + b"\x01"
        return socket.inet_pton(socket.AF_INET, host)[0] == 127
    except OSError:
        return False


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return True
