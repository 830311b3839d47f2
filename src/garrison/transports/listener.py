"""A listening socket: who gets a place, TLS handshakes, and one sweep over the deadlines of all connections.

Rules of this file:
- A connection takes its place before anything else, so before its TLS handshake. One that finds none is turned away.
- A connection is a `Guest`. It says by `deadline` until when the other side has to do what is due; the sweep looks at
  all of them, and no message costs a timer.
- Sockets are bound here, by address; what a Unix socket needs is checked by whoever binds it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast

from .. import events
from ..errors import Overloaded
from .peer import Peer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..policy import Limits, Timeouts
    from .flood import Floods, Place
    from .turns import Turns

__all__ = ["BACKLOG", "Guest", "Guests", "Listener", "Tls", "bound", "half_close"]

log = logging.getLogger("garrison.transports")

_SWEEP: Final = 0.5
_TURNED_AWAY: Final = 64
BACKLOG: Final = 1024
"""Connections that wait to be accepted."""
_AT_ONCE: Final = 64


class Guest(Protocol):
    """One connection, as the sweep sees it. An `asyncio.Protocol` as well."""

    deadline: float
    """Loop time until which the other side has to act; 0: nothing is due."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...

    def expire(self) -> None:
        """The deadline has passed."""
        ...

    def leave(self) -> None:
        """The listener stops: end as soon as nothing is due."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


def half_close(transport: asyncio.Transport) -> None:
    """Say that nothing more will come. A peer may have reset the connection, and the loop not know it yet."""
    try:
        transport.write_eof()
    except (OSError, RuntimeError):  # uvloop says RuntimeError
        transport.abort()


class Guests(Protocol):
    """The listener, as its connections see it."""

    limits: Limits
    timeouts: Timeouts
    floods: Floods
    turns: Turns
    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    closing: bool

    def add(self, guest: Guest) -> None:
        """A connection is there; it is looked at from now on."""
        ...

    def gone(self, guest: Guest, place: Place) -> None:
        """A connection has ended."""
        ...


class Tls(Protocol):
    """A certificate that may be renewed while it is served; see `transports.tls`."""

    context: ssl.SSLContext

    def look(self) -> None:
        """Take new files, if there are any."""
        ...


class Listener:
    """A listening socket and its connections.

    Args:
        limits, timeouts: what is allowed.
        floods: the places and meters of the running server.
        tls: the certificate; None for plain connections.
        shared: tells the addresses through which many peers come.
        admit: looks at a new connection's socket before anything is read.

    The one who makes it sets `arrive`.
    """

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        floods: Floods,
        *,
        tls: Tls | None = None,
        look_every: float = 5.0,
        shared: Callable[[str], bool] | None = None,
        admit: Callable[[socket.socket], Peer] | None = None,
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.floods = floods
        self.turns = floods.turns
        self.tls = tls
        self.shared = shared
        self.admit = admit
        self.guests: set[Guest] = set()
        self.closing = False
        self.arrive: Callable[[Peer, Place], Guest]
        """Makes the connection of a peer that has a place."""
        self.turned_away: set[asyncio.Transport] = set()
        self.handshakes: set[asyncio.Task[None]] = set()
        self._look_every = look_every
        self._looked = 0.0
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Begin to listen on bound sockets; connections are taken from `serve` on."""
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self._sockets = sockets
        if self.tls is not None:
            return
        for sock in sockets:
            create = self.loop.create_server
            if sock.family == getattr(socket, "AF_UNIX", None):
                create = self.loop.create_unix_server
                if sys.version_info >= (3, 13):  # its file is removed by who made it, and not by each worker that ends
                    create = functools.partial(create, cleanup_socket=False)
            self._servers.append(await create(lambda: _Arrival(self), sock=sock, backlog=BACKLOG, start_serving=False))

    @property
    def port(self) -> int:
        """The port, chosen by the system where 0 was asked for; 0 on a Unix socket."""
        name: object = self._sockets[0].getsockname() if self._sockets else None
        return cast("tuple[str, int]", name)[1] if isinstance(name, tuple) else 0

    async def serve(self) -> None:
        """Take connections."""
        self._looked = self.now()
        for server in self._servers:
            await server.start_serving()
        if self.tls is not None:
            for sock in self._sockets:
                sock.setblocking(False)
                sock.listen(BACKLOG)
                self.loop.add_reader(sock, self._accept, sock)
        self._timer = self.loop.call_later(_SWEEP, self._sweep)

    def _accept(self, sock: socket.socket) -> None:
        """Take what waits on a listening socket. By hand, because a place is taken before the handshake."""
        for _ in range(_AT_ONCE):
            try:
                taken, name = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # no descriptors are left: those that are open may end
                events.record("limit.reached", f"cannot accept: {exc.strerror}", setting="Limits.connections")
                self.loop.remove_reader(sock)
                self.loop.call_later(_SWEEP, self._accept_again, sock)
                return
            taken.setblocking(False)
            self._welcome(taken, str(name[0]))

    def _accept_again(self, sock: socket.socket) -> None:
        if not self.closing:
            self.loop.add_reader(sock, self._accept, sock)

    def _welcome(self, taken: socket.socket, address: str) -> None:
        """Give a connection its place, and begin its handshake."""

        def evict() -> None:
            task.cancel()

        try:
            shared = self.shared is not None and self.shared(address)
            place = self.floods.join(address, self.now(), evict, shared=shared)
        except Overloaded as exc:
            events.record(exc.event, exc.message, peer=address, setting=exc.hint)
            taken.close()  # without a handshake nothing can be said
            return
        handshake = _Handshake()

        def over(task: asyncio.Task[None]) -> None:
            self.handshakes.discard(task)
            if not handshake.begun:  # it was cancelled before its first step, and could see to nothing itself
                place.leave()
                taken.close()

        task = self.loop.create_task(self._shake_hands(handshake, taken, address, place))
        self.handshakes.add(task)
        task.add_done_callback(over)

    async def _shake_hands(self, handshake: _Handshake, taken: socket.socket, address: str, place: Place) -> None:
        handshake.begun = True
        try:
            transport, _ = await self.loop.connect_accepted_socket(
                lambda: handshake,
                taken,
                ssl=cast("Tls", self.tls).context,
                ssl_handshake_timeout=self.timeouts.tls,
            )
        except (OSError, asyncio.CancelledError) as exc:  # ssl.SSLError and TimeoutError are OSErrors
            place.leave()
            handshake.end(taken)
            if not isinstance(exc, (ConnectionError, asyncio.CancelledError)):
                reason = str(getattr(exc, "reason", None) or type(exc).__name__)
                events.record("tls.failed", f"handshake failed: {reason}", peer=address)
            return
        if transport.is_closing() or self.closing:
            place.leave()
            transport.abort()
            return
        guest = self.hand_over(transport, _secured(transport, address), place)
        if handshake.early and not transport.is_closing():
            guest.data_received(handshake.early)

    def hand_over(self, transport: asyncio.Transport, peer: Peer, place: Place) -> Guest:
        """Make the connection of a peer that has its place."""
        guest = self.arrive(peer, place)
        place.evict_by(guest.abort)
        self.add(guest)
        transport.set_protocol(cast("asyncio.BaseProtocol", guest))
        guest.connection_made(transport)
        return guest

    def _sweep(self) -> None:
        now = self.now()
        # First of all: whatever fails here, deadlines are looked at again.
        self._timer = self.loop.call_later(_SWEEP, self._sweep)
        for guest in tuple(self.guests):
            if guest.deadline and guest.deadline < now:
                try:
                    guest.expire()
                except Exception:  # a fault of ours in one connection must not keep the deadlines of the others
                    log.exception("a connection could not be ended in order")
                    guest.abort()
        if self.tls is not None and now - self._looked >= self._look_every:
            self._looked = now
            self.tls.look()
        self.swept(now)

    def swept(self, now: float) -> None:
        """Called with every sweep."""

    def add(self, guest: Guest) -> None:
        """A connection is there; it is looked at from now on."""
        self.guests.add(guest)

    def gone(self, guest: Guest, place: Place) -> None:
        """A connection has ended."""
        self.guests.discard(guest)
        place.leave()

    def turn_away(self, transport: asyncio.Transport, error: Overloaded) -> None:
        """There is no place for this connection. Nothing is said where nobody would understand it."""
        events.record(error.event, error.message, peer=error.peer, setting=error.hint)
        transport.abort()

    def refuse(self, transport: asyncio.Transport, error: Overloaded, peer: str) -> None:
        """Turn a connection away that finds no place."""
        error.peer = peer
        if len(self.turned_away) >= _TURNED_AWAY:
            transport.abort()  # those who are being told are bounded too
        else:
            self.turn_away(transport, error)

    def stop(self) -> None:
        """Take no more connections; what is due on the others goes on."""
        self.closing = True
        for server in self._servers:
            server.close()
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if self.tls is not None:
                self.loop.remove_reader(sock)
            sock.close()
        for task in tuple(self.handshakes):
            task.cancel()
        for guest in tuple(self.guests):
            guest.leave()

    async def close(self, grace: float) -> None:
        """Let what is due end for at most `grace` seconds, then end what is left."""
        self.stop()
        if self.handshakes:
            await asyncio.wait(self.handshakes)
        end = self.now() + grace
        while self.guests and self.now() < end:
            await asyncio.sleep(0.01)
        for guest in tuple(self.guests):
            guest.abort()
        for transport in tuple(self.turned_away):
            transport.abort()
        if self._timer is not None:
            self._timer.cancel()


class _Arrival(asyncio.Protocol):
    """A plain connection that was accepted, until it has a place."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        transport = self._transport = cast("asyncio.Transport", transport)
        if listener.closing:
            transport.abort()  # accepted in the very turn in which listening ended
            return
        try:
            peer = self._peer(transport)
        except OSError:  # recorded by who refused; or the peer is gone already
            transport.abort()
            return
        try:
            shared = listener.shared is not None and listener.shared(peer.address)
            place = listener.floods.join(peer.address, listener.now(), transport.abort, shared=shared)
        except Overloaded as exc:
            listener.refuse(transport, exc, peer.address)
            return
        listener.hand_over(transport, peer, place)

    def _peer(self, transport: asyncio.Transport) -> Peer:
        admit = self._listener.admit
        if admit is not None:
            return admit(cast("socket.socket", transport.get_extra_info("socket")))
        name: object = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            return Peer(cast("tuple[str, int]", name)[0])
        raise ConnectionError

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._listener.turned_away.discard(self._transport)


class _Handshake(asyncio.Protocol):
    """A connection whose handshake is over, until its own protocol is set: keeps what comes in between."""

    begun = False
    early = b""
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def end(self, taken: socket.socket) -> None:
        """Close. A socket that has a transport is the transport's to close: the loop still watches it."""
        if self._transport is None:
            taken.close()
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.early += data


def _secured(transport: asyncio.Transport, address: str) -> Peer:
    """Who shook hands."""
    certificate = cast("dict[str, object] | None", transport.get_extra_info("peercert"))
    if not certificate:
        return Peer(address, secure=True)
    import ssl

    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return Peer(address, secure=True, certificate=certificate, expires=expires)


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets for an address, or for all addresses of a name. An address needs no codec for names.

    Raises:
        OSError: the address cannot be had.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [_bound(family, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    for family, name in dict.fromkeys((family, name) for family, _, _, _, name in found):
        if sockets:
            port = sockets[0].getsockname()[1]  # one port for all of them
        try:
            sockets.append(_bound(family, (name[0], port, *name[2:])))
        except OSError as exc:
            failed = exc  # a machine without IPv6 has the name all the same
    if failed is not None and (not sockets or failed.errno == errno.EADDRINUSE):
        # A part of the name would be somebody else's, who would be sent what is meant for this server.
        for sock in sockets:
            sock.close()
        raise failed
    return sockets


def _bound(family: int, name: tuple[object, ...]) -> socket.socket:
    # The protocol is named, because asyncio sets TCP_NODELAY only where it is; events would wait for 40 ms each.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
    except OSError:
        sock.close()
        raise
    return sock
