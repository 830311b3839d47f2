"""The soak, in short: it passes on the server as it is, it notices a server that goes wrong, and each verdict can fail.
`python bench/soak.py --minutes 60` is the long form; see bench/README.md. Not among the tests of `uv run pytest`, since it
loads the machine: `uv run pytest bench/test_soak.py` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.soaking import verdicts

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = dict.fromkeys(verdicts.SPARE, 10)
ALL = {
    "memory does not grow",
    "all is given back after the attack",
    "every honest request is answered",
    "a well-behaved client's p99 holds",
    "the server's log has no traceback",
    "the server ends in order",
    "the attack took place",
}

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the soak reads /proc")


def soak(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, verdicts by name, and what was printed. Other work on the machine moves the p99; here it is let."""
    report = tmp_path / "soak.json"
    command = [
        sys.executable,
        "bench/soak.py",
        "--json",
        str(report),
        "--factor",
        "50",
        "--eager",
        "--session-idle",
        "2",
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    text = done.stdout + done.stderr
    found = {verdict["name"]: verdict for verdict in json.loads(report.read_text())["verdicts"]}
    return done.returncode, found, text


@linux
@pytest.mark.timeout(120)
def test_the_server_stands_a_short_soak(tmp_path: Path) -> None:
    status, found, text = soak(tmp_path, "--seconds", "15")
    assert found.keys() == ALL
    assert status == 0, text
    assert found["a well-behaved client's p99 holds"]["attack"]["calls"] > 200
    assert found["every honest request is answered"]["ok"] > 200
    for kind in ("flood.http", "flood.401", "malformed.json", "slow.reader", "half.tls", "reset.stream"):
        assert found["the attack took place"].get(kind), kind


@linux
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ("leak", "memory does not grow"),
        ("crash", "the server ends in order"),
    ],
)
def test_a_server_that_goes_wrong_is_noticed(broken: str, name: str, tmp_path: Path) -> None:
    status, found, text = soak(tmp_path, "--seconds", "6", "--broken", broken)
    assert status == 1, text
    assert not found[name]["good"], text


# The verdicts


def test_steady_memory_passes_and_a_leak_does_not() -> None:
    noise = [300 * ((n * 7919) % 13 - 6) for n in range(1800)]
    steady = [(float(n), 60_000.0 + noise[n]) for n in range(1800)]
    leaking = [(at, rss + at * 2.5) for at, rss in steady]  # 1.46 MiB in ten minutes
    assert verdicts.memory(steady).good
    assert not verdicts.memory(leaking).good
    assert 1.3 < verdicts.memory(leaking).numbers["mib_per_10_min"] < 1.6


def test_a_short_run_has_a_fixed_bound() -> None:
    assert verdicts.memory([(float(n), 60_000.0 + 20 * n) for n in range(60)]).good
    assert not verdicts.memory([(float(n), 60_000.0 + 400 * n) for n in range(60)]).good
    assert not verdicts.memory([]).good


def test_one_spike_is_no_slope() -> None:
    points = [(float(n), 60_000.0 + (40_000 if 600 < n < 640 else 0)) for n in range(1800)]
    assert verdicts.memory(points).good


@pytest.mark.parametrize("name", verdicts.SPARE)
def test_everything_that_was_taken_is_looked_for(name: str) -> None:
    before = [SAMPLE, {**SAMPLE, name: 12}]
    assert verdicts.returned(before, SAMPLE).good
    assert verdicts.returned(before, {**SAMPLE, name: 12 + verdicts.SPARE[name]}).good
    assert not verdicts.returned(before, {**SAMPLE, name: 13 + verdicts.SPARE[name]}).good


@pytest.mark.parametrize("outcome", ["late", "stuck", "lost", "failed"])
def test_a_request_without_an_answer_is_a_failure(outcome: str) -> None:
    assert verdicts.answered({"ok": 100, "refused": 3}, [], []).good
    assert not verdicts.answered({"ok": 100, outcome: 1}, [], []).good
    assert not verdicts.answered({"ok": 100}, [], ["http: TimeoutError"]).good
    assert not verdicts.answered({}, [], []).good


def test_the_tail_may_double_and_no_more() -> None:
    quiet = [100] * 980 + [1000] * 20
    assert verdicts.tail(quiet, [100] * 980 + [1990] * 20).good
    assert not verdicts.tail(quiet, [100] * 980 + [2100] * 20).good
    assert not verdicts.tail(quiet, []).good


def test_a_traceback_and_a_bad_end_are_seen() -> None:
    assert verdicts.quiet_log("auth.refused: A bearer token is required\n").good
    assert not verdicts.quiet_log("x\nTraceback (most recent call last):\n").good
    assert not verdicts.quiet_log("Task exception was never retrieved\n").good
    assert verdicts.ended(0, early=False).good
    assert not verdicts.ended(1, early=False).good
    assert not verdicts.ended(None, early=False).good
    assert not verdicts.ended(0, early=True).good


def test_an_attack_that_did_nothing_is_no_attack() -> None:
    assert verdicts.attacked({"flood.http": 3, "half.head": 1}, ("flood", "half")).good
    assert not verdicts.attacked({"flood.http": 3}, ("flood", "half")).good
