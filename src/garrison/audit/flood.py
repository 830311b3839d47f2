"""Identical events in a flood: written up to a number a second, and counted from there.

Rules of this file:
- Identical means: the same event with the same decision from the same peer. What is always written is not asked about.
- What is kept grows with no number of peers: the kinds of a second are bounded, and further peers share one count.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

__all__ = ["Flood", "Repeated"]

_SECOND: Final = 1.0
_KINDS: Final = 64
_OTHERS: Final = ""


class Repeated(NamedTuple):
    """Events that were not written."""

    event: str
    decision: str
    peer: str
    """Empty where it was several."""
    more: int


@final
class Flood:
    """Counts the events of a second. Not for several threads at once.

    Args:
        rate: how many of a kind are written in a second.
    """

    __slots__ = ("_begin", "_counts", "_rate", "_unwritten")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._begin = float("-inf")
        self._counts: dict[tuple[str, str, str], int] = {}
        self._unwritten: dict[tuple[str, str, str], Repeated] = {}

    def admit(self, event: str, decision: str, peer: str) -> bool:
        """Whether an event is written. Call `ended` first."""
        kind = (event, decision, peer)
        count = self._counts.get(kind)
        if count is None:
            if len(self._counts) >= _KINDS:
                kind = (event, decision, _OTHERS)
            count = self._counts.get(kind, 0)
        self._counts[kind] = count + 1
        if count < self._rate:
            return True
        known = self._unwritten.get(kind)
        self._unwritten[kind] = Repeated(*kind, 1) if known is None else known._replace(more=known.more + 1)
        return False

    def ended(self, now: float, *, end: bool = False) -> list[Repeated]:
        """What was counted in the second that is over, once; with `end`, also in the one that is not.

        What cannot be written is given to `back`.

        Args:
            now: seconds of a clock that never goes back.
        """
        if not self._counts:
            self._begin = now
            return []
        if now - self._begin < _SECOND and not end:
            return []
        found = list(self._unwritten.values())
        self._counts.clear()
        self._unwritten.clear()
        self._begin = now
        return found

    def back(self, repeated: list[Repeated]) -> None:
        """Keep counts for the next time."""
        for each in repeated:
            known = self._unwritten.get(each[:3])
            self._unwritten[each[:3]] = each if known is None else each._replace(more=known.more + each.more)
            self._counts.setdefault(each[:3], self._rate)
