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
    from collections.abc import Callable, Mapping

    from ..policy.transports import WebSocketConfig
    from ..transports.http.asgi_websocket import AsgiSocket
    from ..transports.http.exchange import Application
    from .app import Server
    from .http_sse import HttpSse

__all__ = ["HttpSite", "check_site"]


def check_site(server: Server, path: str) -> None:
    """Refuse an endpoint, or names of hosts, origins and proxies, that could not be served.

    Raises:
        ConfigurationError: one of them is not of its form, or the path is one of HTTP+SSE's own.
    """
    others = _others(server)
    if not path.startswith("/") or path in others:
        raise ConfigurationError(f"path={path!r}: it must begin with a slash and not be an endpoint of HTTP+SSE")
    HttpGate(server.policy, port=None, path=path, token=None, methods=frozenset(), others=others)


def _others(server: Server) -> Mapping[str, frozenset[bytes]]:
    """The paths beside the endpoint."""
    if not server.http_sse:
        return {}
    from .http_sse import ENDPOINTS

    return ENDPOINTS


class HttpSite:
    """A server's core and what serves it over HTTP.

    Args:
        server: what to serve.
        path: the MCP endpoint.
        token: the bearer token every request must carry; None asks for none.
        loop: the loop it runs on.
        websocket: serve WebSocket at the endpoint too.
        http: serve requests at the endpoint; False where it serves WebSocket only.
        identity: the name in a client's certificate, where certificates are asked for.
    """

    def __init__(
        self,
        server: Server,
        *,
        path: str,
        token: str | None,
        loop: asyncio.AbstractEventLoop,
        websocket: WebSocketConfig | None = None,
        http: bool = True,
        identity: Callable[[Mapping[str, object]], str | None] | None = None,
    ) -> None:
        self._others = _others(server)
        self._server = server
        self._path = path
        self._token = token
        self._loop = loop
        self.websocket = websocket
        self.sockets: set[AsgiSocket] = set()
        """Open WebSockets of an ASGI host."""
        self._http = http
        self._identity = identity
        self.core = server.core()
        self.legacy = LegacyHttp(self.core, stateless=server.legacy == "stateless") if server.legacy != "off" else None
        self.sse: HttpSse | None = None

    def application(
        self, port: int | None, *, local: bool = False, secure: bool = False, public: bool = False
    ) -> Application:
        """What is served on a port.

        Args:
            port: part of the listener's own names; None where they are not known.
            local: it listens on a Unix socket, where `localhost` is its name.
            secure: the listener speaks TLS.
            public: others can reach the listener without TLS.
        """
        gate = self.gate = HttpGate(
            self._server.policy,
            port=port,
            local=local,
            path=self._path,
            token=self._token,
            methods=frozenset({b"GET", b"DELETE"}) if self.legacy is not None else frozenset(),
            others=self._others,
            http=self._http,
            websocket=self.websocket is not None,
            secure=secure,
            public=public,
            identity=self._identity,
        )
        door = None
        if self.websocket is not None:
            from .http_websocket import WebSocketDoor

            door = WebSocketDoor(self.core, self.websocket)
        application = HttpApplication(self.core, gate, self.legacy, self._loop, door)
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
