"""What an audit log says in sum: how often what happened, who did it, what was refused, and how long calls took.

Rules of this file:
- A log is counted in one pass, and what is kept grows with the kinds of things in it, not with its length: of each kind
  at most so many, the rest in one.
- Events that were counted instead of written count here as often as they happened.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, final

from .reading import entries, log_files
from .record import Mark, Record

__all__ = ["Counts", "Latency", "Report", "report", "summed"]

_KINDS: Final = 1000
_OTHERS: Final = "(others)"
_BASE: Final = 1.05
_LOWEST: Final = 0.001
"""Milliseconds. Durations are kept in steps of 5 %, so that a percentile is right to that."""


class Counts:
    """How often each kind was there."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, kind: str, count: int = 1) -> None:
        """Count one; of too many kinds, among the others."""
        if kind not in self._counts and len(self._counts) >= _KINDS:
            kind = _OTHERS
        self._counts[kind] = self._counts.get(kind, 0) + count

    def top(self, most: int | None = None) -> list[tuple[str, int]]:
        """Kinds and counts, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return ordered if most is None else ordered[:most]

    def get(self, kind: str) -> int:
        """One of the counts."""
        return self._counts.get(kind, 0)

    def as_dict(self) -> dict[str, int]:
        """All of them, the most frequent first."""
        return dict(self.top())


_STEPS: Final = tuple(_LOWEST * _BASE**i for i in range(480))
"""Up to some hours."""


@final
class Latency:
    """Durations, by how long they were."""

    __slots__ = ("_counts", "count", "longest")

    def __init__(self) -> None:
        self._counts = [0] * (len(_STEPS) + 1)
        self.count = 0
        self.longest = 0.0

    def add(self, milliseconds: float) -> None:
        """Take one."""
        self._counts[bisect_left(_STEPS, milliseconds)] += 1
        self.count += 1
        self.longest = max(self.longest, milliseconds)

    def percentile(self, part: float) -> float:
        """Milliseconds that this part of all, from 0 to 1, did not pass; 0 where there are none."""
        due = part * self.count
        seen = 0
        for step, count in zip(_STEPS, self._counts, strict=False):
            seen += count
            if count and seen >= due:
                return min(step, self.longest)
        return self.longest

    def as_dict(self) -> dict[str, float]:
        """Count, percentiles and the longest, in milliseconds."""
        found = {f"p{part:g}": round(self.percentile(part / 100), 3) for part in (50, 90, 95, 99)}
        return {"count": self.count, **found, "longest": round(self.longest, 3)}


@dataclass(slots=True)
class Report:
    """A log in numbers. The names of these fields are those of `garrison audit report --json`."""

    files: int = 0
    records: int = 0
    first: str = ""
    """The time of the first record."""
    last: str = ""
    events: Counts = field(default_factory=Counts)
    decisions: Counts = field(default_factory=Counts)
    principals: Counts = field(default_factory=Counts)
    tenants: Counts = field(default_factory=Counts)
    tools: Counts = field(default_factory=Counts)
    """Ended calls, by the tool's name and the outcome."""
    refusals: Counts = field(default_factory=Counts)
    """By event and whoever was refused."""
    latency: Latency = field(default_factory=Latency)
    """Of calls."""
    counted: int = 0
    """Events that were counted instead of written; they are among the counts."""
    lost: int = 0
    """Events that could not be written."""
    unclean: int = 0
    """Runs that ended without closing the log."""

    def as_dict(self) -> dict[str, object]:
        """The same, for JSON."""
        return {
            name: value.as_dict() if isinstance(value := getattr(self, name), (Counts, Latency)) else value
            for name in self.__slots__
        }


def report(path: str | os.PathLike[str]) -> Report:
    """Sum up a log, with its older files. It is not verified: `verify` does that.

    Raises:
        ConfigurationError: there is no log, or it cannot be read.
    """
    files = log_files(os.fspath(path))
    found = summed(entries(files))
    found.files = len(files)
    return found


def summed(of: Iterable[Record | Mark]) -> Report:
    """Sum up entries."""
    found = Report()
    for entry in of:
        found.records += 1
        found.first = found.first or entry.time
        found.last = entry.time
        if isinstance(entry, Mark):
            _add_mark(found, entry)
        else:
            _add_record(found, entry)
    return found


def _add_mark(found: Report, mark: Mark) -> None:
    found.lost += mark.lost
    found.unclean += mark.unclean
    if mark.log == "repeated":
        found.counted += mark.count
        found.events.add(mark.event, mark.count)
        _add_decision(found, mark, mark.peer, mark.count)


def _add_record(found: Report, record: Record) -> None:
    found.events.add(record.event)
    _add_decision(found, record, record.principal or record.peer)
    if record.principal:
        found.principals.add(record.principal)
    if record.tenant:
        found.tenants.add(record.tenant)
    if record.event == "call.ended":
        if record.method == "tools/call":
            found.tools.add(f"{record.target} {record.outcome}".strip())
        found.latency.add(record.duration_ms)


def _add_decision(found: Report, entry: Record | Mark, who: str, count: int = 1) -> None:
    if entry.decision:
        found.decisions.add(entry.decision, count)
    if entry.decision == "refused":
        found.refusals.add(" ".join(filter(None, (entry.event, who and f"by {who}"))), count)
