"""Rates in memory: who has asked how often, and when they may ask again.

    limiter = RateLimiter(max_requests=100, window=60)
    limiter.check(caller)                   # RateLimited when it is too much

Rules of this file:
- A table has room for so many callers. One that owes nothing may be forgotten; one that owes something never is, so
  coming again, or with other names, gives nobody a new allowance.
- When all that a table knows owe something, newcomers share a fixed number of places among themselves. Which one falls
  to whom depends on a secret of the process. What a shared place owes goes with whoever leaves it for one of their own.
- Looking for places costs the same whether the table is full or not: a few entries are looked at for every newcomer.
- What is refused is charged nothing.
- A clock that goes back shuts nobody out for longer than a full debt.

Time comes in as an argument, but to `RateLimiter`, which has a clock and may be used from any thread.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeVar, final

from ..errors import ConfigurationError, RateLimited
from ..policy.rates import Rate

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence
    from hashlib import blake2b

__all__ = ["Buckets", "Charge", "FixedWindows", "RateLimiter", "SlidingWindows", "take_all"]

V = TypeVar("V")

_LOOKS: Final = 3
"""Entries that are looked at for every newcomer: more than one, so that a table that was full becomes small again."""
_FEW: Final = 4096
"""Entries that are not worth looking for what can be forgotten."""
_SHARED: Final = 1024
"""Places that newcomers share when a table is full."""
_LONGEST: Final = 256
"""Characters of a key that is kept as it is; of a longer one its digest is."""
_SLACK: Final = 0.01
"""Of one request: what rounding may cost in a burst."""
_STAMPS: Final = 4_000_000
"""Moments that sliding windows remember in all."""


class _Table(ABC, Generic[V]):
    """What each caller owes, for so many callers."""

    __slots__ = ("_enough", "_full", "_hand", "_kept", "_keys", "_most", "_secret")

    def __init__(self, most: int) -> None:
        self._most = most
        self._enough = min(most, _FEW)
        self._kept: dict[str | int, V] = {}
        """Key -> what it owes. Numbers are the places that newcomers share when the table is full."""
        self._keys: list[str] = []
        """The keys with a place of their own, in no order."""
        self._hand = 0
        """Which of them is looked at next."""
        self._full = False
        """It was full once, so shared places may owe something."""
        self._secret: blake2b | None = None
        """A digest that began with a secret."""

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._kept)

    @abstractmethod
    def take(self, key: str, cost: int, now: float) -> float:
        """Charge a caller, where there is room.

        Args:
            key: who. Compared as a whole; of any length.
            cost: how many requests this one counts for; no more than may come at once.
            now: seconds, of one clock for all calls.

        Returns:
            0.0, or the seconds until it would pass; then nothing was charged.
        """

    @abstractmethod
    def _new(self) -> V:
        """What a caller owes who was never seen."""

    @abstractmethod
    def _is_idle(self, value: V, now: float) -> bool:
        """Whether this is nothing."""

    def _copy(self, value: V) -> V:
        """The same debt, for another caller."""
        return value

    def _first(self, key: str) -> V:
        shared = self._kept.get(self._place_of(key)) if self._full else None
        return self._new() if shared is None else self._copy(shared)

    def _place(self, key: str, now: float) -> tuple[str | int, V]:
        """A place for a caller that has none under this key, and what it owes there."""
        key, kept, keys = _short(key), self._kept, self._keys
        if key in kept:
            return key, kept[key]
        for _ in range(min(_LOOKS, len(keys)) if len(keys) >= self._enough else 0):
            self._hand = (self._hand + 1) % len(keys)
            if self._is_idle(kept[keys[self._hand]], now):
                del kept[keys[self._hand]]
                keys[self._hand] = keys[-1]
                keys.pop()
        if len(keys) < self._most:
            kept[key] = first = self._first(key)
            keys.append(key)
            return key, first
        self._full = True
        place = self._place_of(key)
        if place not in kept:
            kept[place] = self._new()
        return place, kept[place]

    def _place_of(self, key: str) -> int:
        if self._secret is None:
            from hashlib import blake2b
            from secrets import token_bytes

            self._secret = blake2b(key=token_bytes(32), digest_size=4)
        digest = self._secret.copy()
        digest.update(key.encode(errors="surrogatepass"))
        return int.from_bytes(digest.digest()) % min(_SHARED, self._most)


def _short(key: str) -> str:
    if len(key) <= _LONGEST:
        return key
    from hashlib import blake2b

    return blake2b(key.encode(errors="surrogatepass"), digest_size=32).hexdigest()


@final
class Buckets(_Table[float]):
    """One bucket for each caller, by the generic cell rate: one moment in time says it all.

    Args:
        rate: how fast a bucket fills, and how much it holds.
        most: callers that are remembered.
        grace: seconds of debt that `charge` may add to an empty bucket.

    What is kept is when everything taken so far would have come at the steady rate. In any time no more passes than the
    burst and what the time is worth.
    """

    __slots__ = ("burst", "deepest", "interval", "room")

    def __init__(self, rate: Rate, most: int, grace: float = 0.0) -> None:
        super().__init__(most)
        self.interval = 1.0 / rate.per_second
        """Seconds that one request is worth."""
        self.room = (rate.burst + _SLACK) * self.interval
        """Seconds of a full bucket."""
        self.deepest = self.room + grace
        """Seconds that a caller can owe."""
        self.burst = rate.burst

    def take(self, key: str, cost: int, now: float) -> float:
        place: str | int = key
        due = self._kept.get(key)
        if due is None:
            place, due = self._place(key, now)
        if due < now:
            due = now
        later = due + cost * self.interval
        if later - now > self.room:
            return self.wait(key, cost, now)
        self._kept[place] = later
        return 0.0

    def wait(self, key: str, cost: int, now: float) -> float:
        """What `take` would return; nothing is charged. A cost of 0 asks whether there is a debt beyond the bucket."""
        late = self._due(key, now)[1] + cost * self.interval - now - self.room
        return late if late > 0.0 else 0.0

    def charge(self, key: str, cost: int, now: float) -> None:
        """Charge a caller whether or not there is room, up to the grace."""
        place, due = self._due(key, now)
        self._kept[place] = min(due + cost * self.interval, now + self.deepest)

    def _due(self, key: str, now: float) -> tuple[str | int, float]:
        place: str | int = key
        due = self._kept.get(key)
        if due is None:
            place, due = self._place(key, now)
        if due > now + self.deepest:  # more than can be: the clock went back
            self._kept[place] = due = now + self.deepest
        return place, max(due, now)

    def _new(self) -> float:
        return 0.0

    def _is_idle(self, value: float, now: float) -> bool:
        return value <= now


@final
class SlidingWindows(_Table["array[float]"]):
    """No more than so many in any time of the window's length, exactly.

    Args:
        most_requests: how many.
        window: seconds.
        most: callers that are remembered. Fewer, where their moments together would be more than 4 million.
    """

    __slots__ = ("_array", "_requests", "_window")

    def __init__(self, most_requests: int, window: float, most: int) -> None:
        from array import array

        super().__init__(min(most, max(1, _STAMPS // most_requests)))
        self._array = array
        self._requests = most_requests
        self._window = window

    def take(self, key: str, cost: int, now: float) -> float:
        log = self._kept.get(key)
        if log is None:
            log = self._place(key, now)[1]
        length, others = len(log), self._requests - cost
        if length > others:
            stamp = log[-1 - others]
            if stamp + self._window > now:
                return stamp + self._window - now if stamp <= now else self._turned_back(log, key, cost, now)
            if length >= 2 * self._requests:
                del log[: -self._requests]
        if cost == 1:
            log.append(now)
        else:
            log.extend([now] * cost)
        return 0.0

    def _turned_back(self, log: array[float], key: str, cost: int, now: float) -> float:
        """What was asked lies in the future: the clock went back."""
        log[:] = self._array("d", (min(each, now) for each in log))
        return self.take(key, cost, now)

    def _new(self) -> array[float]:
        return self._array("d")

    def _copy(self, value: array[float]) -> array[float]:
        return value[:]

    def _is_idle(self, value: array[float], now: float) -> bool:
        return not value or value[-1] <= now - self._window


@final
class FixedWindows(_Table[tuple[float, int]]):
    """No more than so many from one full window of the clock to the next; around its edge, up to twice as many.

    Args:
        most_requests: how many.
        window: seconds.
        most: callers that are remembered.
    """

    __slots__ = ("_requests", "_window")

    def __init__(self, most_requests: int, window: float, most: int) -> None:
        super().__init__(most)
        self._requests = most_requests
        self._window = window

    def take(self, key: str, cost: int, now: float) -> float:
        place: str | int = key
        known = self._kept.get(key)
        if known is None:
            place, known = self._place(key, now)
        number, count = now // self._window, known[1]
        if known[0] < number:
            count = 0  # a clock that went back begins no new window
        if count + cost > self._requests:
            self._kept[place] = (number, count)
            return (number + 1) * self._window - now
        self._kept[place] = (number, count + cost)
        return 0.0

    def _new(self) -> tuple[float, int]:
        return (0.0, 0)

    def _is_idle(self, value: tuple[float, int], now: float) -> bool:
        return value[1] == 0 or value[0] < now // self._window


class Charge(NamedTuple):
    """What one limit wants of one call."""

    buckets: Buckets
    key: str
    """Who pays."""
    cost: int
    """0 only asks whether there is a debt."""
    setting: str
    """The name of the limit."""


def take_all(charges: Sequence[Charge], now: float) -> tuple[float, str]:
    """Charge all of them, or none.

    Returns:
        Seconds until all would pass, 0.0 when they did; and the setting that makes it take so long.
    """
    longest, setting = 0.0, ""
    for buckets, key, cost, name in charges:
        wait = buckets.wait(key, cost, now)
        if wait > longest:
            longest, setting = wait, name
    if not longest:
        for buckets, key, cost, _ in charges:
            if cost:
                buckets.charge(key, cost, now)
    return longest, setting


@final
class RateLimiter:
    """No more than so many requests of one caller in some time. May be used from any thread.

    Args:
        max_requests: how many.
        window: seconds.
        algorithm: `sliding`: no more in any time of the window's length, exactly. `bucket`: so many at once, and one
            more whenever the window divided by `max_requests` has passed. `fixed`: no more from one full window of the
            clock to the next, which lets twice as many pass around its edge.
        most_keys: callers that are told apart. When as many have something to pay, newcomers share what is left.
        clock: gives seconds that never go back.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    __slots__ = ("_acquire", "_clock", "_release", "_requests", "_table")

    def __init__(
        self,
        max_requests: int,
        window: float,
        *,
        algorithm: Literal["sliding", "bucket", "fixed"] = "sliding",
        most_keys: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("max_requests", max_requests), ("most_keys", most_keys)):
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"RateLimiter.{name} must be a positive integer")
        if type(window) not in (int, float) or not 0 < window < float("inf"):
            raise ConfigurationError("RateLimiter.window must be a number of seconds above 0")
        self._requests = max_requests
        lock = Lock()
        self._acquire, self._release = lock.acquire, lock.release
        self._clock = clock
        self._table: Buckets | SlidingWindows | FixedWindows
        if algorithm == "bucket":
            self._table = Buckets(Rate(max_requests / window, max_requests), most_keys)
        elif algorithm == "sliding":
            self._table = SlidingWindows(max_requests, float(window), most_keys)
        elif algorithm == "fixed":
            self._table = FixedWindows(max_requests, float(window), most_keys)
        else:
            raise ConfigurationError("RateLimiter.algorithm must be sliding, bucket or fixed")

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._table)

    def check(self, client_id: str, cost: int = 1) -> None:
        """Let a request pass, and remember it.

        Args:
            client_id: who asks. Let it be what was verified (`ctx.principal.account`), not what a peer says of itself.
            cost: how many requests this one counts for.

        Raises:
            RateLimited: it is too much now; nothing was remembered.
            ValueError: the cost is none that could ever pass.
        """
        if not 0 < cost <= self._requests:
            raise ValueError("cost is between 1 and max_requests")
        # In place of `with`, which costs more than the rest.
        self._acquire()
        try:
            wait = self._table.take(client_id, cost, self._clock())
        finally:
            self._release()
        if wait > 0.0:
            raise RateLimited(wait, "RateLimiter.max_requests")
