"""`Handles`: values that stay on the server between calls, each named by a handle that only its caller can use.

    carts = Handles[Cart]("cart")

    @server.tool()
    def begin(ctx: Context) -> str:
        return carts.new(ctx, Cart())

    @server.tool()
    def add(ctx: Context, cart: str, item: str) -> int:
        found = carts.get(ctx, cart)
        ...

Rules of this file:
- A handle is made here, from 256 random bits, and begins with the name of what it stands for. It opens nothing by
  itself: a value is found by its handle and its caller together.
- Unknown, ended, expired, another kind's and somebody else's are one thing: not found, by the same look and in the same
  words.
- Nothing is pushed out to make room. What is full refuses what is new, and no account can fill it for the others.
"""

from __future__ import annotations

import re
import threading
import time
from math import isfinite
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from .. import events
from ..errors import ConfigurationError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context

__all__ = ["Handles"]

T = TypeVar("T")
S = TypeVar("S")

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BYTES: Final = 32


class _Kept(NamedTuple):
    expires: float
    account: str
    value: object


class Handles(Generic[T]):
    """Values of one kind, in the memory of this process. Its methods may be called from any thread.

    Args:
        name: what a handle stands for, as models and users read it: lower-case letters, digits and underscores.
        ttl: seconds from the making of a handle to its end.
        most: values at once in all.
        most_each: values at once of one account: issuer, tenant and subject, whatever programs act for it.
        clock: gives seconds that never go back.

    Raises:
        ConfigurationError: a value is not of its form.

    Where nobody is asked who they are, all callers are one, and whoever has a handle can use it.
    """

    __slots__ = ("_clock", "_counts", "_each", "_kept", "_lock", "_most", "_name", "_ttl")

    def __init__(
        self,
        name: str = "handle",
        *,
        ttl: float = 3600.0,
        most: int = 10_000,
        most_each: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError("Handles.name: a lower-case letter, then up to 31 of a-z 0-9 _")
        if not (isfinite(ttl) and ttl > 0):
            raise ConfigurationError("Handles.ttl must be a number of seconds above 0")
        if most < 1 or most_each < 1:
            raise ConfigurationError("Handles.most and most_each must be at least 1")
        self._name = name
        self._ttl = ttl
        self._most = most
        self._each = most_each
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}
        """By caller and handle; the oldest first, so that those that expire are found in front."""
        self._counts: dict[str, int] = {}
        """Account -> how many of them are its own; who has none is not there."""
        self._lock = threading.RLock()
        """One that its thread may take again: a value that is dropped may have something to end, too."""

    def __repr__(self) -> str:
        return f"Handles({self._name!r}, {len(self)} of {self._most})"

    def __len__(self) -> int:
        """How many are kept."""
        with self._lock:
            self._sweep()
            return len(self._kept)

    def new(self, ctx: Context[S], value: T) -> str:
        """Keep a value for the caller.

        Returns:
            Its handle: the name, an underscore and 43 characters of `A-Z a-z 0-9 - _`.

        Raises:
            ToolError: the caller has `most_each` already, or there are `most` in all.
        """
        import secrets

        principal = ctx.principal
        handle = f"{self._name}_{secrets.token_urlsafe(_BYTES)}"
        with self._lock:
            self._sweep()
            count = self._counts.get(principal.account, 0)
            full = "most_each" if count >= self._each else "most" if len(self._kept) >= self._most else None
            if full is None:
                self._counts[principal.account] = count + 1
                self._kept[principal.key, handle] = _Kept(self._clock() + self._ttl, principal.account, value)
                return handle
        events.record("limit.reached", f"too many of {self._name!r} of {principal.key}", setting=f"Handles.{full}")
        if full == "most_each":
            raise ToolError(f"Too many at once of: {self._name}. End one of them first.")
        raise ToolError(f"Too many at once of: {self._name}. Try again later.")

    def get(self, ctx: Context[S], handle: str) -> T:
        """The caller's value of this handle.

        Raises:
            ToolError: it has none; the model is told to begin a new one.
        """
        with self._lock:
            self._sweep()
            kept = self._kept.get((ctx.principal.key, handle))
        return self._value(kept)

    def end(self, ctx: Context[S], handle: str) -> T:
        """The caller's value of this handle, which from now on names nothing. Of several at once, one gets it.

        Raises:
            ToolError: it has none, as for `get`.
        """
        with self._lock:
            self._sweep()
            kept = self._kept.pop((ctx.principal.key, handle), None)
            if kept is not None:
                self._uncount(kept.account)
        return self._value(kept)

    def _value(self, kept: _Kept | None) -> T:
        if kept is None:
            raise ToolError(f"No such {self._name}: it has ended or expired, or never was. Begin a new one.")
        return cast("T", kept.value)

    def _sweep(self) -> None:
        """Drop what has expired, before anything is looked for."""
        now = self._clock()
        while self._kept:
            first = next(iter(self._kept))
            if self._kept[first].expires > now:
                return
            self._uncount(self._kept.pop(first).account)

    def _uncount(self, account: str) -> None:
        left = self._counts[account] - 1
        if left:
            self._counts[account] = left
        else:
            del self._counts[account]
