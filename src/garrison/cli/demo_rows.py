"""A row of the demo: what was done, what should come of it, and what came.

Rules of this file:
- A row holds exactly when what came equals what should come; nobody says so by hand.
- A check that breaks is a row that does not hold, and the demo goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import GarrisonError

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["BROKEN", "Row", "row"]

BROKEN = (GarrisonError, OSError, EOFError, TimeoutError, ValueError, LookupError)
"""What a check may end with when the server does not do as it should."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the demo's table."""

    what: str
    transport: str
    era: str
    expected: str
    got: str

    @property
    def ok(self) -> bool:
        """True when what came is what should come."""
        return self.got == self.expected


async def row(what: str, transport: str, era: str, expected: str, check: Awaitable[str]) -> Row:
    """Run one check; if it breaks, what broke it is what came."""
    try:
        got = await check
    except BROKEN as exc:
        got = f"{type(exc).__name__}: {exc}"
    return Row(what, transport, era, expected, got)
