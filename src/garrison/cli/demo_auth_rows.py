"""A row of `garrison demo --auth`: what was tried, what should come of it, what came, and what saw to that.

Rules of this file:
- A row holds exactly when what came equals what should come.
- An attack is refused or has passed; nothing else is said of it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal

from .demo_rows import BROKEN

__all__ = ["Kind", "Tried", "attack", "honest"]

Kind = Literal["honest", "attack"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One line of the table."""

    part: str
    what: str
    kind: Kind
    expected: str
    got: str
    rule: str
    """The rule or setting that decided."""

    @property
    def ok(self) -> bool:
        """True when what came is what should come."""
        return self.got == self.expected

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.kind == "attack":
            return "refused" if self.ok else "PASSED"
        return "ok" if self.ok else "NO"


async def _row(part: str, what: str, kind: Kind, expected: str, check: Awaitable[str], rule: str) -> Tried:
    try:
        got = await check
    except BROKEN as exc:
        got = f"{type(exc).__name__}: {exc}"
    return Tried(part, what, kind, expected, got, rule)


async def honest(part: str, what: str, expected: str, check: Awaitable[str], rule: str = "") -> Tried:
    """What should work; if it breaks, what broke it is what came."""
    return await _row(part, what, "honest", expected, check, rule)


async def attack(part: str, what: str, expected: str, check: Awaitable[str], rule: str) -> Tried:
    """What should be refused."""
    return await _row(part, what, "attack", expected, check, rule)
