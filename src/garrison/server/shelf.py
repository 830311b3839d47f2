"""`Shelf`: what is kept for accounts for a time, in the memory of this process.

Rules of this file:
- Nothing is pushed out to make room. What is full takes nothing new, and no account can fill it for the others.
- Everything ends when its time is over, used or not. Keeping it again does not make it last longer.
- Its methods may be called from any thread, and each is one step for all of them.
"""

from __future__ import annotations

import threading
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Full", "Shelf"]

V = TypeVar("V")


class Full(Exception):
    """There is no room for it.

    Args:
        bound: the name of the bound that was reached.
        seconds: until something that it counts has ended.
    """

    def __init__(self, bound: str, seconds: float) -> None:
        super().__init__(bound)
        self.bound = bound
        self.seconds = seconds


class _Kept(Generic[V]):
    __slots__ = ("account", "expires", "size", "value")

    def __init__(self, account: str, expires: float, value: V) -> None:
        self.account = account
        self.expires = expires
        self.value = value
        self.size = 0


class _Share(Generic[V]):
    """What is kept for one account, the oldest first."""

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: dict[str, _Kept[V]] = {}
        self.size = 0


class Shelf(Generic[V]):
    """Values by key.

    Args:
        name: of what is bounded here, for errors.
        clock: gives seconds that never go back.
        ttl: seconds for which a value is kept.
        most, most_each: values at once, in all and of one account.
        most_bytes, most_bytes_each: the same for their sizes, where sizes are given.

    Raises:
        ConfigurationError: a number is not above 0.
    """

    __slots__ = ("_all", "_bounds", "_clock", "_lock", "_shares", "_size", "_ttl")

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        *,
        ttl: float,
        most: int,
        most_each: int,
        most_bytes: int = 1,
        most_bytes_each: int = 1,
    ) -> None:
        if not (isfinite(ttl) and ttl > 0):
            raise ConfigurationError(f"{name}.ttl must be a number of seconds above 0")
        self._bounds = {
            "most": most,
            "most_each": most_each,
            "most_bytes": most_bytes,
            "most_bytes_each": most_bytes_each,
        }
        for bound, value in self._bounds.items():
            if value < 1:
                raise ConfigurationError(f"{name}.{bound} must be at least 1")
        self._clock = clock
        self._ttl = ttl
        self._all: dict[str, _Kept[V]] = {}
        self._shares: dict[str, _Share[V]] = {}
        """Account -> its own; who has none is not there."""
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are kept."""
        with self._lock:
            self._sweep()
            return len(self._all)

    def add(self, account: str, key: str, value: V) -> V | None:
        """Keep a value, unless there is one of this key.

        Returns:
            The one that there is; None where the new one is kept.

        Raises:
            Full: there is no room.
        """
        with self._lock:
            now = self._sweep()
            there = self._all.get(key)
            if there is not None:
                return there.value
            share = self._shares.get(account)
            bounds = self._bounds
            if share is not None and len(share.kept) >= bounds["most_each"]:
                raise Full("most_each", next(iter(share.kept.values())).expires - now)
            if len(self._all) >= bounds["most"]:
                raise Full("most", next(iter(self._all.values())).expires - now)
            if share is None:
                share = self._shares[account] = _Share()
            self._all[key] = share.kept[key] = _Kept(account, now + self._ttl, value)
            return None

    def change(self, key: str, value: V, size: int) -> str | None:
        """Put another value in the place of the one of this key; nothing happens where there is none any more.

        Returns:
            The bound that its bytes would pass, where the old value stays; else None.
        """
        with self._lock:
            self._sweep()
            kept = self._all.get(key)
            if kept is None:
                return None
            share, more = self._shares[kept.account], size - kept.size
            if share.size + more > self._bounds["most_bytes_each"]:
                return "most_bytes_each"
            if self._size + more > self._bounds["most_bytes"]:
                return "most_bytes"
            kept.value, kept.size = value, size
            share.size += more
            self._size += more
            return None

    def take(self, key: str, account: str | None = None) -> tuple[str, V] | None:
        """Take the value of this key away. Of several at once, one gets it.

        Args:
            key: of the value.
            account: whose it must be; None takes anybody's.

        Returns:
            Its account and the value; None where there is none, or it is another account's, whose it stays.
        """
        with self._lock:
            self._sweep()
            kept = self._all.get(key)
            if kept is None or (account is not None and kept.account != account):
                return None
            self._drop(key)
            return kept.account, kept.value

    def _sweep(self) -> float:
        """Drop what has expired, before anything is looked for. Gives the time."""
        now = self._clock()
        while self._all:
            oldest = next(iter(self._all))
            if self._all[oldest].expires > now:
                break
            self._drop(oldest)
        return now

    def _drop(self, key: str) -> None:
        kept = self._all.pop(key)
        share = self._shares[kept.account]
        del share.kept[key]
        share.size -= kept.size
        self._size -= kept.size
        if not share.kept:
            del self._shares[kept.account]
