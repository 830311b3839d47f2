"""What one server answers over HTTP, whichever shell carries it.

Rules of this file:
- The edge and the ASGI face are given the same applications, made here, so that their verdicts are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import events
from ..errors import ConfigurationError
from ..gate.authentication import Certified, NobodyAsked, OneToken
from ..gate.http import HttpGate
from ..transports.peer import Until
from .http import HttpApplication
from .http_legacy import LegacyHttp

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from ..gate.authentication import Authenticator
    from ..policy.transports import WebSocketConfig
    from ..transports.http.asgi_websocket import AsgiSocket
    from ..transports.http.exchange import Application
    from .app import Server
    from .http_sse import HttpSse

__all__ = ["HttpSite", "check_site"]


def check_site(server: Server, path: str) -> None:
    """Refuse an endpoint, or names of hosts, origins and proxies, that could not be served, and scopes without tokens.

    What a protected server offers to nobody, because no rule was declared, is named in a security event.

    Raises:
        ConfigurationError: one of them is not of its form, or the path is one of HTTP+SSE's own; or something needs
            scopes that no caller can have.
    """
    others = _others(server)
    if not path.startswith("/") or path in others:
        raise ConfigurationError(f"path={path!r}: it must begin with a slash and not be an endpoint of HTTP+SSE")
    HttpGate(server.policy, port=None, path=path, authenticator=NobodyAsked(), methods=frozenset(), others=others)
    if server.auth is None:
        named = next((name for name, entry in server.registry.entries() if entry.rule and entry.rule.scopes), None)
        if named is not None:
            raise ConfigurationError(f"{named} needs scopes, and nothing says who has which: set Server(auth=...)")
        return
    bare = [name for name, entry in server.registry.entries() if entry.rule is None]
    if bare and not server.has_default_rule:
        events.record("access.undeclared", f"offered to nobody: {', '.join(bare[:20])}", setting="scopes=, public=")


def _others(server: Server) -> Mapping[str, frozenset[bytes]]:
    """The paths beside the endpoint."""
    if not server.http_sse:
        return {}
    from .http_sse import ENDPOINTS

    return ENDPOINTS


def _documents(server: Server, path: str) -> Mapping[str, bytes]:
    """What everybody may read: the metadata of a protected resource (RFC 9728 section 3).

    It is served where its identifier leads to, and where the endpoint's own path does: in front of the server there may
    be what changes paths.
    """
    auth = server.auth
    if auth is None or auth.metadata is None or auth.metadata_url is None:
        return {}
    from ..protocol.uri import parse_uri

    document = auth.metadata.to_json()
    well_known = "/.well-known/oauth-protected-resource"
    return {parse_uri(auth.metadata_url).path: document, well_known + path.rstrip("/"): document}


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
        self._end: Callable[[], None] = lambda: None
        self._server = server
        self._path = path
        self._documents = _documents(server, path)
        self._loop = loop
        self.websocket = websocket
        self.sockets: set[AsgiSocket] = set()
        """Open WebSockets of an ASGI host."""
        self._http = http
        self._authenticator = self._authenticated(token, identity)
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
            authenticator=self._authenticator,
            methods=frozenset({b"GET", b"DELETE"}) if self.legacy is not None else frozenset(),
            others={**self._others, **dict.fromkeys(self._documents, frozenset({b"GET"}))},
            open_paths=frozenset(self._documents),
            http=self._http,
            websocket=self.websocket is not None,
            secure=secure,
            public=public,
        )
        door = None
        if self.websocket is not None:
            from .http_websocket import WebSocketDoor

            door = WebSocketDoor(self.core, self.websocket)
        application = HttpApplication(
            self.core,
            gate,
            self.legacy,
            self._loop,
            door,
            documents={path.encode(): document for path, document in self._documents.items()},
            insufficient=self.insufficient,
        )
        if not self._server.http_sse:
            return application
        from .http_sse import HttpSse, HttpSseApplication

        if self.sse is None:
            self.sse = HttpSse(self.core, self._loop)
        return HttpSseApplication(application, self.sse)

    def _authenticated(
        self, token: str | None, identity: Callable[[Mapping[str, object]], str | None] | None
    ) -> Authenticator:
        """What finds out who asks."""
        self.insufficient: Callable[[tuple[str, ...]], bytes] = lambda scopes: b""
        if self._server.auth is not None:
            from ..auth.resource.authenticator import TokenAuthenticator

            tokens = TokenAuthenticator(self._server.auth, path=self._path, identity=identity)
            self.insufficient = tokens.insufficient
            self._end = tokens.close
            return tokens
        if identity is not None:
            return Certified(identity, Until, token)
        return NobodyAsked() if token is None else OneToken(token)

    def close_sessions(self) -> None:
        """End the sessions of handshake revisions, their streams, and what is being asked about tokens."""
        self._end()
        if self.legacy is not None:
            self.legacy.close()
        if self.sse is not None:
            self.sse.close()
