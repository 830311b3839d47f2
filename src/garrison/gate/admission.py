"""Admission: whether a call may be done now, by the rates of the policy and of its tool.

Rules of this file:
- A call is charged to all limits that it falls under, or to none. What is refused costs nothing.
- Who pays is the account that was verified; the address, where nobody was, or many have one token. Nothing that a peer
  says of itself is a key.
- Whoever started the server is not counted by the policy's rates. A tool's own limits hold for everybody: they protect
  what is behind the tool.
- Bytes of an answer are charged when it leaves. Who owes for them is refused until the time has paid.
- It says no before a handler runs, and whoever answers the caller records it (`limit.reached`).
"""

from __future__ import annotations

import time
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final, final

from ..errors import RateLimited
from ..policy.networks import network_of
from ..policy.principal import ANONYMOUS, HOLDER
from .rates import Buckets, Charge, take_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..policy.principal import Principal
    from ..policy.rates import Rate, Rates
    from .shared_rates import SharedRates

__all__ = ["Admission"]

_PRINCIPAL: Final = "Rates.principal"
_GRACE: Final = 3600.0
"""Seconds for which answers that were too large keep their reader waiting, at most, beside the bucket itself."""


@final
class Admission:
    """Applies rates to calls. May be used from any thread; the methods for a store, from its event loop.

    Args:
        rates: of the policy.
        shared: counts for several processes together; None counts for this one.
        clock: gives seconds that never go back.
    """

    __slots__ = (
        "_acquire",
        "_address",
        "_bytes",
        "_clock",
        "_completion",
        "_only_principal",
        "_principal",
        "_rates",
        "_release",
        "_running",
        "_tenant",
        "_tools",
        "shared",
    )

    def __init__(
        self, rates: Rates, *, shared: SharedRates | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        most = rates.most_keys
        self._rates = rates
        self._principal = Buckets(rates.principal, most)
        self._completion = Buckets(rates.completion, most)
        self._address = None if rates.address is None else Buckets(rates.address, most)
        self._tenant = None if rates.tenant is None else Buckets(rates.tenant, most)
        self._bytes = None if rates.output_bytes is None else Buckets(rates.output_bytes, most, _GRACE)
        self._only_principal = self._address is self._tenant is self._bytes is None
        self._tools: dict[Rate, Buckets] = {}
        """Rates of tools. Several tools of one rate have one table, and keys of their own in it."""
        self._running: dict[str, int] = {}
        """Tool -> its calls under way; a tool without any is not there."""
        self.shared = shared
        self._clock = clock
        # One lock for all tables, since a call is charged to all of them or none. Its methods in place of `with`, which
        # costs as much as all the rest.
        lock = Lock()
        self._acquire, self._release = lock.acquire, lock.release

    @property
    def has_budget(self) -> bool:
        """Whether the bytes of answers are counted: what leaves is then told by `spend`."""
        return self._bytes is not None

    def take(self, principal: Principal, address: str, *, completion: bool = False) -> None:
        """Let a request pass, and charge it; in the memory of this process.

        Args:
            principal: who asks.
            address: IP address of the peer that asks, or of the one for whom a trusted proxy asks.
            completion: it is a completion.

        Raises:
            RateLimited: it is too much now; nothing must be done for it.
        """
        if self._only_principal and not completion:
            if principal.owner:
                return
            who = _at(address) if principal is HOLDER or principal is ANONYMOUS else principal.account
            self._acquire()
            try:
                wait = self._principal.take(who, 1, self._clock())
            finally:
                self._release()
            setting = _PRINCIPAL
        else:
            wait, setting = self._take(self._of_request(principal, address, completion))
        if wait > 0.0:
            raise RateLimited(wait, setting)

    async def take_shared(self, principal: Principal, address: str, *, completion: bool = False) -> None:
        """The same with `shared`, where there is one. While it cannot be reached, this process counts for itself.

        Raises:
            RateLimited: it is too much now; nothing must be done for it.
        """
        wait, setting = await self._take_shared(self._of_request(principal, address, completion))
        if wait > 0.0:
            raise RateLimited(wait, setting)

    def take_tool(self, principal: Principal, address: str, tool: str, cost: int = 1, rate: Rate | None = None) -> None:
        """Let the call of a tool pass whose request has passed `take`; in the memory of this process.

        Args:
            principal, address: as for `take`.
            tool: its name.
            cost: how many requests it counts for. One that counts for more than a burst takes all of it.
            rate: how often each caller may call it.

        Raises:
            RateLimited: it is too much now; the handler must not run. What `take` charged is given back.
        """
        wait, setting = self._take(self._of_tool(principal, address, tool, cost, rate))
        if wait > 0.0:
            self._charge(self._back(principal, address))
            raise RateLimited(wait, setting)

    async def take_tool_shared(
        self, principal: Principal, address: str, tool: str, cost: int = 1, rate: Rate | None = None
    ) -> None:
        """The same with `shared`, where there is one.

        Raises:
            RateLimited: it is too much now; the handler must not run. What `take_shared` charged is given back.
        """
        wait, setting = await self._take_shared(self._of_tool(principal, address, tool, cost, rate))
        if wait > 0.0:
            back = self._back(principal, address)
            self._charge(back)
            if self.shared is not None:
                await self.shared.charge(back)
            raise RateLimited(wait, setting)

    def spend(self, principal: Principal, address: str, size: int) -> None:
        """Charge the bytes of an answer, in the memory of this process. Nothing where there is no budget."""
        if self._bytes is not None and not principal.owner and size > 0:
            self._charge([Charge(self._bytes, _who(principal, address), size, "Rates.output_bytes")])

    async def spend_shared(self, principal: Principal, address: str, size: int) -> None:
        """The same with `shared`, where there is one."""
        if self._bytes is not None and not principal.owner and size > 0:
            charges = [Charge(self._bytes, _who(principal, address), size, "Rates.output_bytes")]
            self._charge(charges)
            if self.shared is not None:
                await self.shared.charge(charges)

    def acquire(self, tool: str, most: int) -> None:
        """Begin a call of a tool of which only so many may be under way, all callers together; `release` ends it.

        Raises:
            RateLimited: as many are.
        """
        self._acquire()
        try:
            count = self._running.get(tool, 0)
            if count < most:
                self._running[tool] = count + 1
                return
        finally:
            self._release()
        raise RateLimited(1.0, f"concurrency= of tool {tool!r}")

    def release(self, tool: str) -> None:
        """End a call that `acquire` let begin."""
        self._acquire()
        try:
            left = self._running.get(tool, 0) - 1
            if left > 0:
                self._running[tool] = left
            else:
                self._running.pop(tool, None)
        finally:
            self._release()

    def _of_request(self, principal: Principal, address: str, completion: bool) -> list[Charge]:
        if principal.owner:
            return []
        found = self._of_caller(principal, address, 1)
        if self._bytes is not None:
            found.append(Charge(self._bytes, _who(principal, address), 0, "Rates.output_bytes"))
        if completion:
            found.append(Charge(self._completion, _who(principal, address), 1, "Rates.completion"))
        return found

    def _of_tool(self, principal: Principal, address: str, tool: str, cost: int, rate: Rate | None) -> list[Charge]:
        """What a tool wants beyond the one request."""
        found = self._of_caller(principal, address, cost - 1, 1) if cost > 1 and not principal.owner else []
        setting = f"rate= of tool {tool!r}"
        if rate is None and cost > 1 and not principal.owner:
            rate, setting = self._rates.heavy, "Rates.heavy"
        if rate is not None:
            found.append(Charge(self._of_tools(rate), f"{tool}\n{_who(principal, address)}", 1, setting))
        return found

    def _of_caller(self, principal: Principal, address: str, cost: int, spare: int = 0) -> list[Charge]:
        """What the limits of a caller want: no more than fits into a bucket beside `spare`, so that all can pass."""
        found = [(self._principal, _who(principal, address), _PRINCIPAL)]
        if self._tenant is not None and principal.tenant is not None:
            found.append((self._tenant, f"{principal.issuer}\n{principal.tenant}", "Rates.tenant"))
        if self._address is not None and not principal.local:
            found.append((self._address, _at(address), "Rates.address"))
        return [Charge(buckets, key, min(cost, buckets.burst - spare), setting) for buckets, key, setting in found]

    def _back(self, principal: Principal, address: str) -> list[Charge]:
        """The one request."""
        return [] if principal.owner else self._of_caller(principal, address, -1)

    def _of_tools(self, rate: Rate) -> Buckets:
        buckets = self._tools.get(rate)
        if buckets is None:
            buckets = self._tools.setdefault(rate, Buckets(rate, self._rates.most_keys))
        return buckets

    def _take(self, charges: list[Charge]) -> tuple[float, str]:
        self._acquire()
        try:
            return take_all(charges, self._clock())
        finally:
            self._release()

    async def _take_shared(self, charges: list[Charge]) -> tuple[float, str]:
        answer = None
        if charges and self.shared is not None:
            answer = await self.shared.take(charges)
            if answer is not None and not answer[0]:
                self._charge(charges)  # so that nobody has a new allowance when the store goes away
        return self._take(charges) if answer is None else answer

    def _charge(self, charges: list[Charge]) -> None:
        self._acquire()
        try:
            now = self._clock()
            for buckets, key, cost, _ in charges:
                if cost:
                    buckets.charge(key, cost, now)
        finally:
            self._release()


def _who(principal: Principal, address: str) -> str:
    return _at(address) if principal is HOLDER or principal is ANONYMOUS else principal.account


@lru_cache(1024)
def _at(address: str) -> str:
    """An address as a key that is nobody's account."""
    return "@" + network_of(address)
