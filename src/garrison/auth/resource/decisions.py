"""Decisions that need not be made twice: a bounded memory of tokens that were checked.

Rules of this file:
- A token is remembered by its SHA-256, so that nobody finds tokens here, and looking one up tells nothing of another.
- The memory is bounded; what was not asked for longest goes first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["MOST", "Decisions", "fingerprint"]

MOST: Final = 10_000
"""Decisions that are kept."""

T = TypeVar("T")


def fingerprint(token: str) -> bytes:
    """The name under which the decision on a token is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Decisions(Generic[T]):
    """Decisions by fingerprint, each with the time it was made.

    Args:
        lasts: seconds for which one counts.
        most: how many are kept.
    """

    __slots__ = ("_kept", "_lasts", "_most")

    def __init__(self, lasts: float, most: int = MOST) -> None:
        self._lasts = lasts
        self._most = most
        self._kept: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def get(self, name: bytes, now: float) -> T | None:
        """The decision, if there is one that still counts. One from the future, as after a clock was set back, does
        not."""
        found = self._kept.get(name)
        if found is None:
            return None
        made, decision = found
        if not 0 <= now - made < self._lasts:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        return decision

    def put(self, name: bytes, decision: T, now: float) -> None:
        """Keep a decision."""
        self._kept[name] = (now, decision)
        self._kept.move_to_end(name)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget(self, name: bytes) -> None:
        """Keep it no longer."""
        self._kept.pop(name, None)

    def __len__(self) -> int:
        return len(self._kept)
