"""What a soak is judged by. Each verdict is a function of what was sampled; all of them are printed with their numbers.

Rules of this file:
- No clock, no process: samples in, verdicts out, so that the tests can show each of them good and bad samples.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

MEBI = 1024
"""KiB."""
PER_TEN_MINUTES = 1.0
"""MiB that memory may grow in ten minutes, beyond noise."""
SHORT = 300.0
"""Seconds of a window below which a slope says nothing, and growth has a fixed bound."""
SHORT_GROWTH = 16.0
"""MiB: buffers and caches that are still being filled."""
BLOCKS = 20
FACTOR = 2.0
SPARE = {"descriptors": 4, "sessions": 2, "connections": 4, "places": 4, "tasks": 6, "running": 4, "subscribers": 4}
"""How much more of each there may be afterwards than at most there was before; honest clients come and go."""


@dataclass(frozen=True)
class Verdict:
    """One question and its answer."""

    name: str
    good: bool
    text: str
    numbers: dict


def percentile(values, share):
    """The nearest-rank percentile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def slope(points):
    """Least squares through (x, y): the slope and its standard error."""
    xs, ys = zip(*points, strict=True)
    middle, height = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    if not spread or len(points) < 3:
        return 0.0, 0.0
    rate = sum((x - middle) * (y - height) for x, y in points) / spread
    residue = sum((y - height - rate * (x - middle)) ** 2 for x, y in points)
    return rate, (residue / (len(points) - 2) / spread) ** 0.5


def memory(points):
    """No leak. `points`: (seconds, KiB) of the second half of the attack, what the allocator keeps for later left out.

    Samples close in time are not independent; means of blocks nearly are, so the noise is estimated from those.
    """
    window = points[-1][0] - points[0][0] if points else 0.0
    size = max(1, len(points) // BLOCKS)
    blocks = [points[at : at + size] for at in range(0, len(points) - size + 1, size)]
    means = [(statistics.fmean(x for x, _ in b), statistics.fmean(y for _, y in b)) for b in blocks]
    rate, error = slope(means) if len(means) > 2 else (0.0, 0.0)
    per_ten = rate * 600 / MEBI
    sure = (rate - 2 * error) * 600 / MEBI
    growth = rate * window / MEBI
    numbers = {
        "mib_per_10_min": round(per_ten, 3),
        "at_least": round(sure, 3),
        "growth_mib": round(growth, 2),
        "seconds": round(window),
    }
    if window < SHORT:
        good = bool(points) and growth <= SHORT_GROWTH
        text = f"{growth:+.1f} MiB in {window:.0f} s (short run: at most {SHORT_GROWTH:g})"
    else:
        good = sure <= PER_TEN_MINUTES
        text = f"{per_ten:+.2f} MiB in 10 min, noise {2 * error * 600 / MEBI:.2f} (at most {PER_TEN_MINUTES:g} beyond noise)"
    return Verdict("memory does not grow", good, text, numbers)


def returned(before, after):
    """Everything that was taken is given back. `before`: the samples of the first quiet phase; `after`: the last look."""
    numbers, worse = {}, []
    for name, spare in SPARE.items():
        most = max(sample[name] for sample in before)
        numbers[name] = [most, after[name]]
        if after[name] > most + spare:
            worse.append(name)
    text = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in numbers.items())
    return Verdict("all is given back after the attack", not worse, text, numbers)


def answered(outcomes, words, lost):
    """No request is stuck: every honest one was answered or refused within its time-out."""
    bad = {name: count for name, count in outcomes.items() if name not in ("ok", "refused")}
    if lost:
        bad["probe"] = len(lost)
    done = sum(outcomes.values())
    text = f"{done:,} operations, {outcomes.get('refused', 0)} refused, " + (
        "none stuck, late, lost or wrong" if not bad else str(bad)
    )
    numbers = {**outcomes, "probe_lost": len(lost), "words": [*words, *lost][:50]}
    return Verdict("every honest request is answered", not bad and done > 0, text, numbers)


def tail(quiet, attack, factor=FACTOR):
    """The others' tail does not move. `quiet`, `attack`: microseconds of the well-behaved client's calls."""
    was, now = percentile(quiet, 0.99), percentile(attack, 0.99)
    numbers = {
        "quiet": {"calls": len(quiet), "p50_us": percentile(quiet, 0.5), "p99_us": was},
        "attack": {"calls": len(attack), "p50_us": percentile(attack, 0.5), "p99_us": now},
        "ratio": round(now / was, 2) if was else None,
    }
    text = (
        f"p50 {numbers['quiet']['p50_us'] / 1000:.2f} -> {numbers['attack']['p50_us'] / 1000:.2f} ms, "
        f"p99 {was / 1000:.2f} -> {now / 1000:.2f} ms: {now / was if was else 0:.2f} times (at most {factor:g})"
    )
    return Verdict("a well-behaved client's p99 holds", bool(was and now) and now <= factor * was, text, numbers)


def attacked(did, kinds):
    """It was an attack: every kind of hostile peer did something."""
    idle = [kind for kind in kinds if not any(count for name, count in did.items() if name.startswith(kind))]
    total = {kind: sum(count for name, count in did.items() if name.startswith(kind)) for kind in kinds}
    text = ", ".join(f"{kind} {count:,}" for kind, count in total.items())
    return Verdict("the attack took place", not idle, text, dict(did))


_SHOUTS = ("Traceback (most recent call last)", "was never retrieved", "was never awaited", "Exception in callback")


def quiet_log(text):
    """No traceback in the server's log."""
    found = [line for line in text.splitlines() if any(shout in line for shout in _SHOUTS)]
    return Verdict(
        "the server's log has no traceback",
        not found,
        f"{len(text.splitlines())} lines, {len(found)} bad",
        {"bad": found[:5]},
    )


def ended(status, early):
    """The server served to the end, and ended in order when it was asked to."""
    text = f"exit status {status}" + (", before it was asked to" if early else "")
    return Verdict("the server ends in order", status == 0 and not early, text, {"status": status, "early": early})
