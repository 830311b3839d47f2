"""From what a user names as the server to the transport that reaches it.

Rules of this file:
- Only the transport that is needed is loaded: a client of a local process loads no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import ConfigurationError
from .transport import ClientTransport, MemoryChannel, MemoryTransport, StdioTransport

if TYPE_CHECKING:
    import os
    import ssl

    from ..policy import SecurityPolicy
    from .http import Challenge

__all__ = ["InMemoryServer", "Reach", "Target", "transport_for"]


class InMemoryServer(Protocol):
    """A server object in this process."""

    async def connect_memory(self) -> MemoryChannel:
        """A new channel to it."""
        ...


Target = str | Sequence[str] | InMemoryServer | ClientTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How to reach a server. The fields are those of `Client`."""

    policy: SecurityPolicy
    token: str | None
    headers: Mapping[str, str] | None
    proxy: str | None
    tls: ssl.SSLContext | None
    challenge: Challenge | None
    env: Mapping[str, str] | None
    cwd: str | os.PathLike[str] | None
    on_stderr: Callable[[bytes], None] | None


def transport_for(target: Target, reach: Reach) -> ClientTransport:
    """A new transport to a target; a transport is returned as it is.

    Raises:
        ConfigurationError: the target is nothing that can be reached, or an option does not belong to it.
        ConnectionFailed: plain http to a host that is not loopback.
    """
    limits, timeouts = reach.policy.limits, reach.policy.timeouts
    network = isinstance(target, str)
    local = not network and isinstance(target, Sequence)
    for name in ("token", "headers", "proxy", "tls", "challenge"):
        if not network and getattr(reach, name) is not None:
            raise ConfigurationError(f"{name}= is for servers with a URL")
    for name in ("env", "cwd", "on_stderr"):
        if not local and getattr(reach, name) is not None:
            raise ConfigurationError(f"{name}= is for servers that are started from a list of arguments")
    if isinstance(target, str):
        from .http import HttpSettings, StreamableHttp

        return StreamableHttp(
            HttpSettings(
                target,
                limits=limits,
                timeouts=timeouts,
                token=reach.token,
                headers=reach.headers,
                proxy=reach.proxy,
                tls=reach.tls,
                challenge=reach.challenge,
            )
        )
    if isinstance(target, Sequence):
        return StdioTransport(
            target, limits=limits, timeouts=timeouts, env=reach.env, cwd=reach.cwd, on_stderr=reach.on_stderr
        )
    if hasattr(target, "connect_memory"):
        return MemoryTransport(cast("InMemoryServer", target).connect_memory)
    if hasattr(target, "attach"):
        return cast("ClientTransport", target)
    raise ConfigurationError("the target is a URL, a list of program and arguments, a server, or a client transport")
