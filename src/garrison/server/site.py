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

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from ..transports.http.exchange import Application
    from .app import Server
    from .http_sse import HttpSse

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
        self._others: Mapping[str, frozenset[bytes]] = {}
        if server.http_sse:
            from .http_sse import ENDPOINTS

            self._others = ENDPOINTS
        if not path.startswith("/") or path in self._others:
            raise ConfigurationError(f"path={path!r}: it must begin with a slash and not be an endpoint of HTTP+SSE")
        self._server = server
        self._path = path
        self._token = token
        self._loop = loop
        self.core = server.core()
        self.legacy = LegacyHttp(self.core, stateless=server.legacy == "stateless") if server.legacy != "off" else None
        self.sse: HttpSse | None = None

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
            others=self._others,
        )
        application = HttpApplication(self.core, gate, self.legacy, self._loop)
        if not self._server.http_sse:
            return application
        from .http_sse import HttpSse, HttpSseApplication

        if self.sse is None:
            self.sse = HttpSse(self.core, self._loop)
        return HttpSseApplication(application, self.sse)

    def close_sessions(self) -> None:
        """End the sessions of handshake revisions, and their streams."""
        if self.legacy is not None:
            self.legacy.close()
        if self.sse is not None:
            self.sse.close()
