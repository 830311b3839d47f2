"""WebSocket, the client's transport. The frames are in `transports/websocket_client.py`.

Rules of this file:
- `wss` everywhere; `ws` on loopback, and to hosts that the policy names with a reason.
- The token is a header of the handshake, never a part of the URL. No cookies, no proxy, nothing of the environment.
- With `auth=` a handshake that is refused is repeated with another token. The time that a person needs does not count
  as time to connect.
- Nothing is sent before the certificate, and the pins where there are some, were found good.

Spec: RFC 6455.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..errors import AuthenticationRequired, ConfigurationError, ConnectionFailed
from ..transports.dial import dial
from ..transports.http.url import WEBSOCKET, UrlError, parse_endpoint
from ..transports.websocket_client import Handshake, WebSocketConnection
from .outbound import allow_plain, request_headers
from .sockets import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..auth.client.session import Authorizer
    from ..policy import Limits, Timeouts
    from ..policy.tls import TlsClientConfig
    from ..policy.transports import WebSocketConfig

__all__ = ["WebSocketTransport"]

_MOST_ROUNDS: Final = 8
"""Handshakes of one attempt to connect; the counts of `auth` end before this one does."""


class WebSocketTransport(SocketTransport):
    """A server at a `wss` or `ws` address.

    Args:
        config: where it is, and how it is spoken to.
        limits, timeouts: the client's policy.
        tls: in place of `config.tls`.
        auth: gets tokens by itself, in place of `config.token`.
        insecure_hosts: host -> why it may be spoken to without TLS off loopback.

    Raises:
        ConfigurationError: the URL, a header, the token or a TLS setting is not one.
        ConnectionFailed: plain ws to a host that is neither loopback nor named.
    """

    def __init__(
        self,
        config: WebSocketConfig,
        *,
        limits: Limits,
        timeouts: Timeouts,
        tls: ssl.SSLContext | TlsClientConfig | None = None,
        auth: Authorizer | None = None,
        insecure_hosts: Mapping[str, str] | None = None,
    ) -> None:
        try:
            endpoint = parse_endpoint(config.url, WEBSOCKET)
        except UrlError as exc:
            raise ConfigurationError(f"the URL of the server: {exc}") from None
        allow_plain(endpoint, insecure_hosts or {})
        super().__init__(endpoint.origin, limits=limits, timeouts=timeouts)
        tls = config.tls if tls is None else tls
        if tls is not None and not endpoint.secure:
            raise ConfigurationError("tls= is for wss endpoints")
        self._endpoint = endpoint
        self._auth = auth
        self._url = "http" + endpoint.origin[2:] + endpoint.target
        self._answer: Mapping[str, str] = {}
        self._lines = ""
        """The header lines that authorize the next handshake."""
        self._pins = () if tls is None or isinstance(tls, ssl.SSLContext) else tls.pins
        self._context = _context(tls) if endpoint.secure else None
        self._handshake = Handshake(
            endpoint=endpoint,
            subprotocol=config.subprotocol,
            compression=config.compression,
            headers=request_headers(config.headers, config.token),
        )

    async def open(self) -> None:
        auth = self._auth
        if auth is None or not self.down:
            return await super().open()
        for _ in range(_MOST_ROUNDS):
            if auth.due:
                await auth.prepare()
            self._lines = auth.lines("GET", self._url)
            try:
                await super().open()
            except AuthenticationRequired as exc:
                auth.heard(exc.status, self._answer)
                if not await auth.challenged(exc.status, self._answer, url=self._url, sent=self._lines):
                    raise
            else:
                return auth.heard(101, {})
        raise AuthenticationRequired(401, f"{self.where} refuses every token")

    async def connect(self) -> WebSocketConnection:
        endpoint, context = self._endpoint, self._context
        lines = self._lines.splitlines()
        headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
        connection = WebSocketConnection(
            replace(self._handshake, headers=(*self._handshake.headers, *headers)),
            limits=self.limits,
            timeouts=self.timeouts,
            on_text=self.receive,
            on_too_large=self.too_large,
            on_lost=self.lost,
        )
        try:
            transport, _ = await dial(lambda: connection, endpoint, context=context, timeout=self.timeouts.connect)
            if self._pins:
                from ..transports.tls import check_pins

                check_pins(transport.get_extra_info("ssl_object"), self._pins)
            try:
                await connection.agree()
            finally:
                self._answer = connection.answer
        except ssl.SSLError as exc:
            connection.abort()
            from ..transports.tls import explain

            raise ConnectionFailed(f"{self.where}: {explain(exc)}") from exc
        except BaseException:  # whatever ended the attempt, its socket must not outlive it
            connection.abort()
            raise
        return connection


def _context(tls: TlsClientConfig | ssl.SSLContext | None) -> ssl.SSLContext:
    from ..transports.tls import client_context  # lazy: a client of ws on loopback never needs it

    return client_context(tls)
