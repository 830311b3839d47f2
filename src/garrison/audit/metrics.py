"""Counts of events and durations of calls, as Prometheus reads them.

    metrics = Metrics(tools=["add", "search"])
    stop = events.listen(metrics)
    print(metrics.prometheus_text())

Rules of this file:
- A label has few values, and nothing that a peer chooses: names of events, decisions, methods of the specification,
  outcomes, and tools that the application named. What is none of these is `other`. No label says who.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from ..events import Event

__all__ = ["BUCKETS", "CONTENT_TYPE", "Labels", "Metrics"]

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends in seconds; one more has no end."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `Metrics.prometheus_text`."""
_OTHER: Final = "other"
_MOST_NAMES: Final = 200
_MOST_TOOLS: Final = 1000
_DECISIONS: Final = frozenset({"", "allowed", "refused", "failed", "noted"})
_OUTCOMES: Final = frozenset({"", "ok", "error", "cancelled"})


@final
class Labels:
    """What may stand in labels.

    Args:
        tools: names of tools, or a function that gives those of the moment.
    """

    __slots__ = ("_methods", "_names", "_tools")

    def __init__(self, tools: Collection[str] | Callable[[], Collection[str]] = ()) -> None:
        from ..protocol import methods

        revisions = (getattr(methods, name) for name in methods.__all__ if name.startswith("V"))
        self._methods = frozenset(
            method
            for revision in revisions
            if isinstance(revision, methods.Methods)
            for method in (*revision.client_requests, *revision.client_notifications)
        )
        self._tools = tools if callable(tools) else (lambda named=frozenset(tools): named)
        self._names: set[str] = set()

    def of_event(self, event: Event) -> tuple[str, str]:
        """Its name and decision."""
        name = event.name
        if name not in self._names:
            if len(self._names) < _MOST_NAMES:
                self._names.add(name)
            else:
                name = _OTHER
        return name, event.decision if event.decision in _DECISIONS else _OTHER

    def of_call(self, event: Event) -> tuple[str, str, str]:
        """Method, tool and outcome."""
        tool = ""
        if event.method == "tools/call":
            known = self._tools()
            tool = event.target if event.target in known and len(known) <= _MOST_TOOLS else _OTHER
        return (
            event.method if event.method in self._methods else _OTHER,
            tool,
            event.outcome if event.outcome in _OUTCOMES else _OTHER,
        )


@final
class Metrics:
    """Counts whatever it is called with: a listener for `events.listen`. From any thread.

    Args:
        tools: names of tools that may be labels, or a function that gives those of the moment; calls of others, and
            where there are more than 1000, count as `other`.
    """

    __slots__ = ("_calls", "_events", "_labels", "_lock")

    def __init__(self, tools: Collection[str] | Callable[[], Collection[str]] = ()) -> None:
        self._labels = Labels(tools)
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str], int] = {}
        self._calls: dict[tuple[str, str, str], _Histogram] = {}

    def __call__(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            kind = self._labels.of_event(event)
            self._events[kind] = self._events.get(kind, 0) + 1
            if event.name == "call.ended":
                call = self._labels.of_call(event)
                histogram = self._calls.get(call)
                if histogram is None:
                    histogram = self._calls[call] = _Histogram()
                histogram.add(event.duration)

    def prometheus_text(self) -> str:
        """All of it in Prometheus's text format (version 0.0.4): `garrison_events_total` and
        `garrison_call_duration_seconds`, whose `_count` is the number of calls."""
        with self._lock:
            lines = ["# HELP garrison_events_total Security events.", "# TYPE garrison_events_total counter"]
            for (event, decision), count in sorted(self._events.items()):
                lines.append(f"garrison_events_total{_labelled(event=event, decision=decision)} {count}")
            name = "garrison_call_duration_seconds"
            lines += [f"# HELP {name} Durations of calls.", f"# TYPE {name} histogram"]
            for (method, tool, outcome), histogram in sorted(self._calls.items()):
                labels = {"method": method, "tool": tool, "outcome": outcome}
                lines += histogram.lines(name, labels)
        return "\n".join([*lines, ""])


class _Histogram:
    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: dict[str, str]) -> list[str]:
        found: list[str] = []
        total = 0
        for end, count in zip((*map(repr, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f"{name}_bucket{_labelled(**labels, le=end)} {total}")
        found.append(f"{name}_sum{_labelled(**labels)} {self._sum!r}")
        found.append(f"{name}_count{_labelled(**labels)} {total}")
        return found


def _labelled(**labels: str) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
