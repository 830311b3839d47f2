"""How much one peer may send, on whatever transport: places for connections, and a meter for messages.

Rules of this file:
- One `Floods` belongs to one running server; every listener of it takes its places and meters here.
- When a place is wanted and none is free, the connection that has waited longest without being let in leaves. So a peer
  that hoards connections takes them from itself, and one that was let in keeps its own.
- Too many messages are no error: the transport stops reading for as long as the meter says, and nothing is lost. A
  message costs one, and one more for every `UNIT` of it.
- A meter outlives its connection, and its address's next connection gets it as it was: coming again is no new burst.
- Addresses are remembered only while they have connections or meters that are not full again.

Time comes in as an argument; nothing here waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from ..errors import Overloaded
from ..policy.networks import network_of
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..policy import Limits

__all__ = ["UNIT", "Floods", "Meter", "Place"]

UNIT: Final = 16 * 1024
"""Bytes of a message that cost as much as one more message: they take about as long to serve."""
_ROUNDING: Final = 1e-9
_MOST: Final = 4096
"""Addresses that are remembered, beside those that have connections."""
_FEW: Final = 256


@final
class Meter:
    """What one connection may still send. A generic cell rate: one moment in time says it all.

    `due` is when everything taken so far would have been sent at the allowed rate.
    """

    __slots__ = ("_bad_due", "_bad_interval", "_bad_room", "_due", "_interval", "_room")

    def __init__(self, limits: Limits) -> None:
        self._interval = 1.0 / limits.message_rate
        self._room = limits.message_burst * self._interval + _ROUNDING
        self._due = 0.0
        self._bad_interval = 60.0 / limits.malformed_per_minute
        self._bad_room = 60.0 + _ROUNDING
        self._bad_due = 0.0

    def take(self, now: float, size: int, count: int = 1) -> float:
        """Charge messages.

        Args:
            now: seconds, of a clock that does not go back.
            size: their bytes together.
            count: how many.

        Returns:
            Seconds for which nothing more should be read; mostly 0.
        """
        due = self._due
        if due < now:
            due = now
        self._due = due = due + self._interval * (count + size // UNIT)
        wait = due - now - self._room
        return wait if wait > 0.0 else 0.0

    def malformed(self, now: float) -> bool:
        """Charge a message that breaks the protocol. True when the connection should end once it is answered."""
        due = max(self._bad_due, now) + self._bad_interval
        if due - now > self._bad_room:
            return True
        self._bad_due = due
        return False

    def full(self, now: float) -> bool:
        """True when it is as good as new."""
        return self._due <= now and self._bad_due <= now


class _Address:
    """What is known of one peer address."""

    __slots__ = ("count", "lent", "meters", "newcomers")

    def __init__(self) -> None:
        self.count = 0
        self.newcomers: dict[Place, None] = {}
        self.meters: list[Meter] = []
        """Meters of connections that are gone, the one that has rested longest first."""
        self.lent: Meter | None = None


@final
class Place:
    """The place of one connection, until `leave`."""

    __slots__ = ("_address", "_evict", "_floods", "meter")

    def __init__(self, floods: Floods, address: _Address, meter: Meter, evict: Callable[[], None]) -> None:
        self._floods = floods
        self._address: _Address | None = address
        self._evict = evict
        self.meter = meter

    def let_in(self) -> None:
        """The peer has been let in: its place is safe from newcomers. Cheap to say again."""
        address = self._address
        if address is not None and self in address.newcomers:
            del address.newcomers[self]
            del self._floods.newcomers[self]

    def evict_by(self, evict: Callable[[], None]) -> None:
        """Say how the connection is made to end from now on."""
        self._evict = evict

    def leave(self) -> None:
        """The connection has ended. May be said again."""
        address, self._address = self._address, None
        if address is not None:
            self._floods.left(self, address)

    def evict(self) -> None:
        """Make the connection end."""
        self.leave()
        self._evict()


class Floods:
    """The places and meters of one running server.

    Args:
        limits: `connections`, `connections_per_address`, `message_rate`, `message_burst`, `malformed_per_minute`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._addresses: dict[str, _Address] = {}
        self.newcomers: dict[Place, None] = {}
        """Connections that have not been let in yet, the oldest first."""
        self.count = 0
        """Connections in all."""
        self.turns = Turns()
        """Where connections wait that have more to be served than is their due."""
        self._forget_at = _FEW

    def join(self, address: str, now: float, evict: Callable[[], None], *, shared: bool = False) -> Place:
        """A place for a new connection.

        Args:
            address: who connects: an IP address, or a name for what has none. Of IPv6, the /64 counts.
            now: seconds, of the clock that the meters are asked with.
            evict: called if the connection has to make room for another one.
            shared: many peers come through this address, as through a proxy: it has no limit of its own.

        Raises:
            Overloaded: there is none, and nobody who would have to leave.
        """
        limits = self._limits
        record = self._record(address, now)
        if not shared and record.count >= limits.connections_per_address:
            self._make_room(record.newcomers, "Limits.connections_per_address")
        elif self.count >= limits.connections:
            self._make_room(self.newcomers, "Limits.connections")
        meter = record.meters.pop(0) if record.meters else Meter(limits)
        place = Place(self, record, meter, evict)
        record.count += 1
        self.count += 1
        record.newcomers[place] = self.newcomers[place] = None
        return place

    def lend(self, address: str, now: float) -> Meter:
        """The one meter of an address whose connections are not its own, because a proxy holds them."""
        record = self._record(address, now)
        if record.lent is None:
            record.lent = Meter(self._limits)
        return record.lent

    def left(self, place: Place, address: _Address) -> None:
        """A connection has given its place back."""
        address.newcomers.pop(place, None)
        self.newcomers.pop(place, None)
        address.count -= 1
        self.count -= 1
        address.meters.append(place.meter)
        if len(address.meters) > self._limits.connections_per_address:
            del address.meters[0]

    def _make_room(self, newcomers: dict[Place, None], setting: str) -> None:
        oldest = next(iter(newcomers), None)
        if oldest is None:
            raise Overloaded("Too many connections", hint=setting)
        oldest.evict()

    def _record(self, address: str, now: float) -> _Address:
        key = network_of(address)
        record = self._addresses.get(key)
        if record is None:
            if len(self._addresses) >= self._forget_at:
                self._forget(now)
            record = self._addresses[key] = _Address()
        return record

    def _forget(self, now: float) -> None:
        """Drop what is as good as unknown; of the rest, the oldest half where it is too much."""
        addresses = self._addresses
        for key, record in tuple(addresses.items()):
            if record.count:
                continue
            if (record.lent is None or record.lent.full(now)) and all(meter.full(now) for meter in record.meters):
                del addresses[key]
        if len(addresses) >= _MOST:
            for key in [key for key, record in addresses.items() if not record.count][: _MOST // 2]:
                del addresses[key]
        self._forget_at = len(addresses) + _FEW
