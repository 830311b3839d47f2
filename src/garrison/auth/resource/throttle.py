"""How often an address may get a token wrong.

Rules of this file:
- An address is one IPv4 address or one IPv6 network, as everywhere else (`policy/networks`).
- Memory is bounded. Who is forgotten was not heard of for longest, and has no more than a full allowance.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ...policy.networks import network_of

__all__ = ["Throttle"]

_MOST: Final = 10_000


class Throttle:
    """Counts failures by address.

    Args:
        per_minute: failures that are allowed in a minute; as many may come at once.
    """

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Network -> what it has left, and when that was counted."""

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        if not self._left:
            return 0.0
        left = self._now(network_of(address), now)
        return 0.0 if left >= 1.0 else (1.0 - left) * 60.0 / self._most

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        network = network_of(address)
        self._left[network] = (self._now(network, now) - 1.0, now)
        self._left.move_to_end(network)
        if len(self._left) > _MOST:
            self._left.popitem(last=False)

    def _now(self, network: str, now: float) -> float:
        left, then = self._left.get(network, (self._most, now))
        return min(self._most, left + max(0.0, now - then) * self._most / 60.0)
