"""What a client may do on a network: where it goes without TLS, and which headers a caller may add.

Rules of this file:
- Everything is checked once, before anything is connected.
- Without TLS only to this machine, or to a host that the policy names with a reason; that is recorded.
- A header's name is a token and its value printable ASCII, so that none can end or begin another. What the client
  itself says cannot be said again.

Spec: RFC 9110 section 5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import ConfigurationError, ConnectionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..transports.http.url import Endpoint

__all__ = ["allow_plain", "request_headers"]

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def allow_plain(endpoint: Endpoint, reasons: Mapping[str, str]) -> None:
    """Lets an endpoint be spoken to without TLS if it is this machine, or one of the hosts with a reason.

    Raises:
        ConnectionFailed: it is neither.
    """
    if endpoint.secure or endpoint.loopback:
        return
    reason = next((why for host, why in reasons.items() if host.lower() == endpoint.host), None)
    if reason is None:
        raise ConnectionFailed(
            f"{endpoint.origin}: plain {endpoint.scheme} is only spoken to this machine; use TLS, or name the host and "
            "a reason in SecurityPolicy.allow_insecure_http_hosts"
        )
    events.record(
        "policy.relaxed",
        f"{endpoint.origin} is spoken to without TLS: {reason}",
        setting="SecurityPolicy.allow_insecure_http_hosts",
    )


def request_headers(
    headers: Mapping[str, str] | None, token: str | None, *, reserved: frozenset[str] = frozenset()
) -> tuple[tuple[str, str], ...]:
    """The headers that a caller adds to a request, the token among them.

    Args:
        headers, token: what the caller gave.
        reserved: further names, in lower case, that the client itself says.

    Raises:
        ConfigurationError: a header or the token is not one, or is set by the client itself.
    """
    found: list[tuple[str, str]] = []
    if token is not None:
        if not _TOKEN.fullmatch(token):
            raise ConfigurationError("token= holds characters that a header must not hold")
        found.append(("Authorization", f"Bearer {token}"))
    for name, value in (headers or {}).items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigurationError(f"headers=: {name!r} is not a header")
        key = name.lower()
        if key in _RESERVED or key in reserved or key.startswith(("mcp-", "sec-websocket-")):
            raise ConfigurationError(f"headers=: {name} is set by the client itself (for a token use token=)")
        found.append((name, value))
    return tuple(found)
