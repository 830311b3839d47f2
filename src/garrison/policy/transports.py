"""Settings of one transport, by the names of the security guide. Each is also a target: `Client(WebSocketConfig(...))`.

Rules of this file:
- Values only, frozen; what they say is done by the transport.
- `max_message_size` replaces `Limits.message_bytes` on this transport, at both ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .limits import Limits
    from .tls import TlsClientConfig

__all__ = [
    "HttpTransportConfig",
    "UnixSocketConfig",
    "WebSocketConfig",
    "check_size",
    "check_subprotocol",
    "limits_for",
]


@dataclass(frozen=True, slots=True)
class HttpTransportConfig:
    """A server to reach over Streamable HTTP.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    url: str
    """The endpoint: https, or http on loopback."""
    max_message_size: int | None = field(default=None, kw_only=True)
    """Bytes of one message, both directions."""
    token: str | None = field(default=None, kw_only=True, repr=False)
    """The bearer token."""
    headers: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    """Further HTTP headers."""
    tls: TlsClientConfig | None = field(default=None, kw_only=True)
    """Whom to believe, in place of the platform's roots."""
    proxy: str | None = field(default=None, kw_only=True, repr=False)
    """`http://host:port` of an HTTP proxy for https."""
    unix_socket: UnixSocketConfig | str | None = field(default=None, kw_only=True)
    """Connect to this Unix socket instead of the URL's host and port; `allowed_uids` says who may serve it."""

    def __post_init__(self) -> None:
        check_size("HttpTransportConfig.max_message_size", self.max_message_size)
        if isinstance(self.unix_socket, str):
            object.__setattr__(self, "unix_socket", UnixSocketConfig(self.unix_socket))
        elif self.unix_socket is not None and self.unix_socket.max_message_size is not None:
            raise ConfigurationError(
                "HttpTransportConfig.max_message_size is the one that counts, not that of unix_socket"
            )


@dataclass(frozen=True, slots=True)
class WebSocketConfig:
    """WebSocket: a server to reach, or how a listener serves it.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    url: str = ""
    """Client: the endpoint, wss, or ws on loopback. A server takes the address of its listener."""
    max_message_size: int | None = field(default=None, kw_only=True)
    """Bytes of one message, summed over its fragments, both directions."""
    subprotocol: str = field(default="mcp", kw_only=True)
    """The subprotocol that both ends must name (RFC 6455 section 1.9)."""
    compression: bool = field(default=False, kw_only=True)
    """Whether permessage-deflate is agreed to; what is inflated is counted (RFC 7692)."""
    token: str | None = field(default=None, kw_only=True, repr=False)
    """Client: the bearer token."""
    headers: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    """Client: further HTTP headers of the handshake."""
    tls: TlsClientConfig | None = field(default=None, kw_only=True)
    """Client: whom to believe, in place of the platform's roots."""

    def __post_init__(self) -> None:
        check_size("WebSocketConfig.max_message_size", self.max_message_size)
        check_subprotocol("WebSocketConfig.subprotocol", self.subprotocol)


@dataclass(frozen=True, slots=True)
class UnixSocketConfig:
    """A Unix socket: to reach, or to serve on. One message per line, as on stdio.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    path: str
    """Where it is. Its directory is made, for its owner alone, if it is not there."""
    max_message_size: int | None = field(default=None, kw_only=True)
    """Bytes of one message, both directions."""
    mode: int = field(default=0o600, kw_only=True)
    """Server: the socket's permissions; at most 0o660."""
    group: str | int | None = field(default=None, kw_only=True)
    """Server: the group that the socket belongs to, by name or number; the process's own when not given."""
    allowed_uids: tuple[int, ...] = field(default=(), kw_only=True)
    """User ids of peers, at both ends, beside the process's own."""

    def __post_init__(self) -> None:
        check_size("UnixSocketConfig.max_message_size", self.max_message_size)
        if not self.path or "\0" in self.path:
            raise ConfigurationError("UnixSocketConfig.path must be the path of a file")
        if type(self.mode) is not int or self.mode & ~0o660 or not self.mode & stat.S_IRUSR:
            raise ConfigurationError("UnixSocketConfig.mode: 0o600 or 0o660; nobody else may connect")
        if not all(type(uid) is int and uid >= 0 for uid in self.allowed_uids):
            raise ConfigurationError("UnixSocketConfig.allowed_uids must be user ids")
        object.__setattr__(self, "path", os.fspath(self.path))


def check_size(setting: str, size: int | None) -> None:
    """Refuse what is no size of a message; None leaves it to the limits.

    Raises:
        ConfigurationError: with the setting's name.
    """
    if size is not None and (type(size) is not int or size < 1):
        raise ConfigurationError(f"{setting} must be a positive integer")


def check_subprotocol(setting: str, name: str) -> None:
    """Refuse what is no name of a subprotocol (RFC 6455 section 4.1).

    Raises:
        ConfigurationError: with the setting's name.
    """
    if not name or not all("!" <= c <= "~" and c not in '()<>@,;:\\"/[]?={}' for c in name):
        raise ConfigurationError(f"{setting} must be one token of RFC 9110")


def limits_for(limits: Limits, config: HttpTransportConfig | WebSocketConfig | UnixSocketConfig) -> Limits:
    """The limits of a transport with this configuration."""
    size = config.max_message_size
    return limits if size is None else replace(limits, message_bytes=size)
