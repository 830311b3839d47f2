"""Settings that must fit each other before a listener opens its socket.

Rules of this file:
- One function looks at all of them, for every way to listen. What does not fit is refused before the address is bound,
  and the message says which settings to change, by their names in code and on the command line.
- Nothing is repaired or guessed: what would be open without having been asked for stays closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError, InsecureConfigurationError

if TYPE_CHECKING:
    from .security import SecurityPolicy
    from .tls import TlsServerConfig
    from .transports import UnixSocketConfig, WebSocketConfig

__all__ = ["check_listening", "check_parts", "is_loopback"]

_FOR_CLIENTS = ("url", "token", "headers", "tls")


def check_listening(
    policy: SecurityPolicy, host: str, *, tls: TlsServerConfig | None, token: bool, unix: bool = False
) -> None:
    """Refuse to listen where the settings do not fit.

    Args:
        policy: the server's policy.
        host: the address to bind; not looked at with `unix`.
        tls: the listener's certificate.
        token: a token was chosen for this listener; one made at its start does not count.
        unix: it listens on a Unix socket.

    Raises:
        InsecureConfigurationError: others could reach it unprotected. The message names every setting to change.
        ConfigurationError: the settings contradict each other.
    """
    proxies = tuple(name for name in policy.trusted_proxies if (name == "unix") == unix)
    if policy.public_url and tls is None and not proxies:
        raise ConfigurationError(
            f"public_url={policy.public_url!r} is https, and this listener is not: set tls (--tls-cert, --tls-key), or "
            f"trusted_proxies (--trusted-proxy {'unix' if unix else 'ADDRESS'}) where a proxy terminates TLS"
        )
    if unix:
        if tls is not None:
            raise ConfigurationError("tls= is for addresses of a network; a Unix socket has no use for it")
        return
    if is_loopback(host):
        return
    if policy.profile == "conformance":
        raise InsecureConfigurationError(
            f'host={host!r}: others can reach this address, and profile="conformance" is served on loopback only'
        )
    missing: list[str] = []
    if tls is None and not proxies and host not in policy.allow_insecure_http_hosts:
        missing.append(
            "tls (--tls-cert FILE --tls-key FILE), or trusted_proxies (--trusted-proxy ADDRESS) where a proxy "
            "terminates TLS"
        )
    if not policy.allowed_hosts and not policy.public_url:
        missing.append("allowed_hosts (--allowed-host NAME), the names by which clients reach it")
    if not token and not policy.dangerously_allow_unauthenticated and (tls is None or tls.client_ca is None):
        missing.append("a token (--token, GARRISON_TOKEN), or client_ca (--tls-client-ca FILE) for certificates")
    if missing:
        raise InsecureConfigurationError(
            f"host={host!r}: others can reach this address. To serve it, set "
            + "; ".join(missing)
            + ". To serve this machine only, use a loopback address: 127.0.0.1"
        )


def check_parts(
    websocket: WebSocketConfig | None, unix: UnixSocketConfig | None = None, *, hosted: bool = False
) -> None:
    """Refuse what is set and a server that speaks HTTP has no use for.

    Args:
        websocket, unix: of the listener.
        hosted: an ASGI server holds its connections.

    Raises:
        ConfigurationError: the message names the setting, and what to do in its place.
    """
    for name in _FOR_CLIENTS if websocket is not None else ():
        if getattr(websocket, name):
            raise ConfigurationError(f"WebSocketConfig.{name} is for clients; a listener has its own arguments")
    if hosted and websocket is not None and websocket.compression:
        raise ConfigurationError("WebSocketConfig.compression: set it at the ASGI server, whose connections these are")
    if unix is not None and unix.max_message_size is not None:
        raise ConfigurationError("UnixSocketConfig.max_message_size is for lines; for HTTP, set Limits.message_bytes")


def is_loopback(host: str) -> bool:
    """True for `localhost`, 127.0.0.0/8 and ::1."""
    import socket

    if host == "localhost":
        return True
    for family, first in ((socket.AF_INET, b"\x7f"), (socket.AF_INET6, bytes(15) + b"\x01")):
        try:
            return socket.inet_pton(family, host).startswith(first)
        except OSError:
            continue
    return False
