"""Opening a connection to a network address, over TLS where there is a context.

Rules of this file:
- Addresses of a name are raced (RFC 8305) where the loop can do that. It may leak a socket when the race is cancelled:
  not where nothing is raced.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .http.url import Endpoint

__all__ = ["dial"]

P = TypeVar("P", bound=asyncio.Protocol)

_HEAD_START: Final = 0.25
"""Seconds that one address is tried before the next is tried beside it."""


async def dial(
    make: Callable[[], P],
    endpoint: Endpoint,
    *,
    context: ssl.SSLContext | None,
    timeout: float,
    address: str | None = None,
) -> tuple[asyncio.Transport, P]:
    """A connection to an endpoint.

    Args:
        make: makes its protocol.
        endpoint: where to.
        context: checks the certificate and its name; None for a plain connection.
        timeout: seconds for the TLS handshake.
        address: the numeric address to connect to; else the host is looked up.

    Raises:
        OSError: there is none; `ssl.SSLError` is one.
    """
    loop = asyncio.get_running_loop()
    connect = loop.create_connection
    if isinstance(loop, asyncio.BaseEventLoop) and not endpoint.loopback and address is None:
        connect = functools.partial(connect, happy_eyeballs_delay=_HEAD_START)
    return await connect(
        make,
        address or endpoint.host,
        endpoint.port,
        ssl=context,
        server_hostname=endpoint.host if context is not None else None,
        ssl_handshake_timeout=timeout if context is not None else None,
    )
