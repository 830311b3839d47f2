"""MCP over WebSocket: one JSON-RPC message in a text message, both ways, behind the gate of HTTP.

Rules of this file:
- Host, Origin, path and credential were looked at by the gate, before the handshake is answered; here the handshake
  itself is.
- Behind the socket stands the same connection as behind stdio. Its principal is the handshake's, and it ends when the
  credential does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import BadRequest, Refused
from ..policy.transports import limits_for
from .serve import Shell, duplex

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy.principal import Principal
    from ..policy.transports import WebSocketConfig
    from ..transports.flood import Meter, Place
    from ..transports.http.asgi import Receive, Scope, Send
    from ..transports.http.exchange import Application, Head, Takeover
    from ..transports.listener import Guest, Guests
    from ..transports.peer import Credential
    from .core import Core
    from .duplex import DuplexConnection
    from .site import HttpSite

__all__ = ["WebSocketDoor", "serve_asgi"]


class WebSocketDoor:
    """Takes WebSocket handshakes of the edge.

    Args:
        core: the running server.
        config: how WebSocket is served.
    """

    def __init__(self, core: Core, config: WebSocketConfig) -> None:
        self._core = core
        self._config = config
        self._limits = limits_for(core.policy.limits, config)

    def accept(self, head: Head) -> tuple[bytes, Takeover]:
        """The fields of the 101, and what goes on with the connection.

        Raises:
            Refused: the handshake is wrong.
        """
        from ..transports.websocket import WebSocketShell, accept

        fields = accept(head, self._config)
        principal, peer, credential = head.principal, head.peer, head.credential
        address = head.client or peer.address

        def take(guests: Guests, place: Place) -> Guest:
            return WebSocketShell(
                guests,
                place,
                lambda shell: _conversation(self._core, shell, principal, credential, address),
                limits=self._limits,
                address=peer.address,
                compression=b"permessage-deflate" in fields,
                credential=credential,
            )

        return fields, take


def _conversation(
    core: Core, shell: Shell, principal: Principal, credential: Credential | None, address: str
) -> DuplexConnection:
    connection = duplex(core, shell, principal, address=address)
    connection.authenticated(principal, credential)
    return connection


async def serve_asgi(
    site: HttpSite,
    application: Application,
    ready: Callable[[], Awaitable[None]],
    meter: Meter,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Serve one `websocket` scope of an ASGI host: the same checks, then whole messages in and out.

    Args:
        site: what is served over HTTP.
        application: its gate stands before the handshake.
        ready: awaited once the handshake may go on.
        meter: of the connection.
        scope, receive, send: as ASGI has them.
    """
    from ..transports.http.asgi import ask, head_of, pairs, peer_of
    from ..transports.http.asgi_websocket import AsgiSocket
    from ..transports.http.exchange import SECURITY_FIELDS

    config, core = site.websocket, site.core
    await receive()  # websocket.connect
    peer = peer_of(scope)
    try:
        if config is None:
            raise BadRequest("WebSocket is not served here", hint="websocket=, --ws")
        head = head_of(scope, core.policy.limits, peer)
        head.fields |= {b"upgrade": b"websocket", b"connection": b"upgrade"}  # over HTTP/2 there are no such fields
        await ask(application, head)
        if config.subprotocol not in cast("list[str]", scope.get("subprotocols") or []):
            raise BadRequest(f"Sec-WebSocket-Protocol must offer {config.subprotocol}")
        await ready()
        if len(site.sockets) >= core.policy.limits.connections:
            raise BadRequest("Too many connections", status=503, hint="Limits.connections")
        socket = AsgiSocket(
            limits_for(core.policy.limits, config), core.policy.timeouts, meter, peer.address, head.credential
        )
        address = head.client or peer.address
        socket.connect(lambda shell: _conversation(core, shell, head.principal, head.credential, address))
        site.sockets.add(socket)  # before anything is waited for: others are counting too
    except Refused as exc:
        exc.peer = peer.address
        status, body, fields = application.refusal(exc)
        extensions = cast("dict[str, object]", scope.get("extensions") or {})
        if "websocket.http.response" in extensions:
            headers = [(b"content-type", b"application/json"), *pairs(SECURITY_FIELDS + fields + exc.reply)]
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": exc.message})
        return
    try:
        await send({"type": "websocket.accept", "subprotocol": config.subprotocol, "headers": []})
        await socket.run(receive, send)
    finally:
        site.sockets.discard(socket)
