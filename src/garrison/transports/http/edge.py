"""The HTTP listener: what its connections share, and where they are refused.

Rules of this file:
- One application for all connections, made when the port is known, because the listener's own names have it.
- Event streams on which nothing happens get a comment line every `Timeouts.keep_alive`, and end with the certificate
  that opened them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..listener import Listener, half_close
from .connection import HttpConnection
from .heads import KnownHeads

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from ...errors import Overloaded
    from ...policy import Limits, Timeouts
    from ..flood import Floods, Place
    from ..listener import Tls
    from ..peer import Peer
    from .exchange import Application

__all__ = ["HttpListener"]


class HttpListener(Listener):
    """A listening socket that speaks HTTP, and its connections. See `Listener` for the arguments.

    Args:
        application: makes what is served, when the port is known.
    """

    application: Application

    def __init__(
        self,
        application: Callable[[int], Application],
        limits: Limits,
        timeouts: Timeouts,
        floods: Floods,
        *,
        tls: Tls | None = None,
        look_every: float = 5.0,
        shared: Callable[[str], bool] | None = None,
        admit: Callable[[socket.socket], Peer] | None = None,
    ) -> None:
        super().__init__(limits, timeouts, floods, tls=tls, look_every=look_every, shared=shared, admit=admit)
        self._make = application
        self.heads = KnownHeads(limits.header_count, limits.header_bytes)
        self.streams: set[HttpConnection] = set()
        self.arrive = self._arrive
        self._quiet = 0.0

    async def start(self, sockets: list[socket.socket]) -> int:
        """Listen and serve on bound sockets.

        Returns:
            The port, chosen by the system where it was 0.

        Raises:
            OSError: the address cannot be had.
        """
        await self.listen(sockets)
        try:
            self.application = self._make(self.port)
        except BaseException:
            self.stop()
            raise
        self._quiet = self.now()
        await self.serve()
        return self.port

    def _arrive(self, peer: Peer, place: Place) -> HttpConnection:
        return HttpConnection(self, peer, place)

    def turn_away(self, transport: asyncio.Transport, error: Overloaded) -> None:
        """Answer 503 and close; nothing of the request is read."""
        self.turned_away.add(transport)
        transport.write(HttpConnection.refusal(self.application.refusal(error)))
        half_close(transport)
        self.loop.call_later(2.0, transport.abort)

    def swept(self, now: float) -> None:
        """End streams whose credential has ended, and keep quiet ones alive."""
        today = time.time()
        for connection in tuple(self.streams):
            if connection.credential is not None and connection.credential.left(today) <= 0.0:
                connection.abort()
        if now - self._quiet >= self.timeouts.keep_alive:
            self._quiet = now
            for connection in tuple(self.streams):
                connection.send_event(b":\r\n\r\n")
