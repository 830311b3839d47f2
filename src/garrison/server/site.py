"""What one server answers over HTTP, whichever shell carries it.

Rules of this file:
- The edge and the ASGI face are given the same applications, made here, so that their verdicts are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..gate.http import HttpGate
from .http import HttpApplication
from .http_legacy import LegacyHttp
from .http_sse import ENDPOINTS, HttpSse, HttpSseApplication

if TYPE_CHECKING:
    import asyncio

    from ..transports.http.exchange import Application
    from .app import Server

__all__ = ["HttpSite"]


class HttpSite:
    """A server's core and what serves it over HTTP.

    Args:
        server: what to serve.
        path: the MCP endpoint.
        token: the bearer token every request must carry; None asks for none.
        loop: the loop it runs on.

    Raises:
        ConfigurationError: the path does not begin with a slash, or is one of HTTP+SSE's own.
    """

    def __init__(self, server: Server, *, path: str, token: str | None, loop: asyncio.AbstractEventLoop) -> None:
        if not path.startswith("/") or (server.http_sse and path in ENDPOINTS):
            raise ConfigurationError(f"path={path!r}: it must begin with a slash and not be an endpoint of HTTP+SSE")
        self._server = server
        self._path = path
        self._token = token
        self._loop = loop
        self.core = server.core()
        self.legacy = LegacyHttp(self.core, stateless=server.legacy == "stateless") if server.legacy != "off" else None
        self.sse = HttpSse(self.core, loop) if server.http_sse else None

    def application(self, port: int | None) -> Application:
        """What is served on a port; None where the listener's own names are not known."""
        policy = self._server.policy
        gate = HttpGate(
            port=port,
            path=self._path,
            allowed_hosts=policy.allowed_hosts,
            allowed_origins=policy.allowed_origins,
            token=self._token,
            methods=frozenset({b"GET", b"DELETE"}) if self.legacy is not None else frozenset(),
            others={} if self.sse is None else ENDPOINTS,
        )
        application = HttpApplication(self.core, gate, self.legacy, self._loop)
        return application if self.sse is None else HttpSseApplication(application, self.sse)

    def close_sessions(self) -> None:
        """End the sessions of handshake revisions, and their streams."""
        if self.legacy is not None:
            self.legacy.close()
        if self.sse is not None:
            self.sse.close()
