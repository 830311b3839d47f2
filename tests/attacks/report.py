"""The report on the attack catalogue: which case is answered by which tests, and whether they passed.

    uv run python -m tests.attacks.report                 run the tests of all cases, and report
    uv run python -m tests.attacks.report --collect       only look whether there are tests
    uv run python -m tests.attacks.report --json          the same as JSON
    uv run python -m tests.attacks.report -- -x tests     run these tests instead of `-m attack`

The exit status is 0 when every case passed or is not applicable, 1 when one failed or is missing.

A test names the cases it plays: `@pytest.mark.attack("ATK-079")`. The transports it plays them on are those among the
values of its parameters, and those the mark names: `@pytest.mark.attack("ATK-114", transports=("stdio", "http"))`.

Rules of this file:
- Only a test that ran and passed counts. One that was skipped, or was expected to fail, does not.
- A case with a failed test has failed, whatever else passed.
- A mark with a number that is not of the form ATK-nnn is an error; numbers beyond the catalogue are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.attacks.catalogue import CASES, TRANSPORTS, Case

__all__ = ["Recorder", "Test", "judge", "main"]

_NUMBER = re.compile(r"ATK-\d{3}")


@dataclass
class Test:
    """A test that plays attacks."""

    __test__ = False

    name: str
    cases: dict[str, frozenset[str]]
    """Case -> the transports it is played on."""
    outcome: str = "collected"
    """`passed`, `failed`, `skipped`, or `collected` where nothing was run."""


@dataclass
class Verdict:
    """What is known of one case."""

    case: Case
    status: str
    """`pass`, `covered` (there are tests that were not run), `fail`, `missing`, `not applicable`."""
    reason: str = ""
    tests: int = 0


@dataclass(eq=False)
class Recorder:
    """A pytest plugin that notes which cases the tests play and how they end."""

    tests: dict[str, Test] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            cases: dict[str, frozenset[str]] = {}
            for mark in item.iter_markers("attack"):
                for number in mark.args:
                    if not isinstance(number, str) or not _NUMBER.fullmatch(number):
                        self.errors.append(f"{item.nodeid}: {number!r} is no case")
                        continue
                    cases[number] = cases.get(number, frozenset()) | _transports(item, mark)
            if cases:
                self.tests[item.nodeid] = Test(item.nodeid, cases)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}: not collected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.get(report.nodeid)
        if test is None or test.outcome in ("failed", "skipped"):
            return
        if report.failed or hasattr(report, "wasxfail"):
            test.outcome = "failed"
        elif report.skipped:
            test.outcome = "skipped"
        elif report.when == "call":
            test.outcome = "passed"


def _transports(item: pytest.Item, mark: pytest.Mark) -> frozenset[str]:
    named = frozenset(mark.kwargs.get("transports", ()))
    if not named <= TRANSPORTS:
        raise pytest.UsageError(f"{item.nodeid}: {sorted(named - TRANSPORTS)} are no transports")
    parameters: Mapping[str, Any] = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    return named | frozenset(value for value in parameters.values() if isinstance(value, str) and value in TRANSPORTS)


def judge(cases: Iterable[Case], tests: Sequence[Test], *, ran: bool = True) -> list[Verdict]:
    """The verdict on each case.

    Args:
        cases: the catalogue.
        tests: what was collected.
        ran: whether the tests were run; otherwise that there are tests is enough.
    """
    return [_verdict(case, [test for test in tests if case.id in test.cases], ran) for case in cases]


def _verdict(case: Case, tests: list[Test], ran: bool) -> Verdict:
    if case.not_applicable:
        return Verdict(case, "not applicable", case.not_applicable, len(tests))
    if not tests:
        return Verdict(case, "missing", "no test plays it")
    failed = [test.name for test in tests if test.outcome == "failed"]
    if failed:
        return Verdict(case, "fail", ", ".join(failed), len(tests))
    counted = [test for test in tests if test.outcome == "passed" or not ran]
    if not counted:
        return Verdict(case, "missing", "its tests did not run", len(tests))
    played = frozenset[str]().union(*(test.cases[case.id] for test in counted))
    unplayed = [transport for transport in case.transports if transport not in played]
    if unplayed:
        return Verdict(case, "missing", f"not played on {', '.join(unplayed)}", len(tests))
    return Verdict(case, "pass" if ran else "covered", "", len(counted))


def _told(verdicts: Sequence[Verdict]) -> str:
    lines: list[str] = []
    for verdict in verdicts:
        case = verdict.case
        where = f" [{' '.join(case.transports)}]" if case.transports else ""
        reason = f": {verdict.reason}" if verdict.reason else ""
        lines.append(f"{case.id}  {verdict.status:<14} {verdict.tests:>3} tests  {case.title}{where}{reason}")
    return "\n".join(lines)


def _summary(verdicts: Sequence[Verdict]) -> dict[str, int]:
    names = ("pass", "covered", "fail", "missing", "not applicable")
    counts = {name: sum(verdict.status == name for verdict in verdicts) for name in names}
    return {name: count for name, count in counts.items() if count or name in ("fail", "missing")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect or run, report, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.report", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--collect", action="store_true", help="run nothing")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, in place of `-m attack`")
    options = parser.parse_args(arguments)

    recorder = Recorder()
    command = [*(options.pytest or ["-m", "attack"]), "--continue-on-collection-errors"]
    command += ["--collect-only", "-qq"] if options.collect else []
    with contextlib.redirect_stdout(sys.stderr):
        status = pytest.main(["-n0", *command], plugins=[recorder])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"no report: pytest ended with status {int(status)}")
        return 1
    verdicts = judge(CASES, tuple(recorder.tests.values()), ran=not options.collect)
    summary = _summary(verdicts)
    good = status == pytest.ExitCode.OK and not (recorder.errors or summary["fail"] or summary["missing"])
    if options.json:
        rows = [
            {
                "id": verdict.case.id,
                "title": verdict.case.title,
                "transports": verdict.case.transports,
                "status": verdict.status,
                "reason": verdict.reason,
                "tests": verdict.tests,
            }
            for verdict in verdicts
        ]
        print(
            json.dumps({"summary": summary, "errors": recorder.errors, "pytest": int(status), "cases": rows}, indent=1)
        )
    else:
        print(_told(verdicts))
        for error in recorder.errors:
            print(f"error: {error}")
        print(", ".join(f"{count} {name}" for name, count in summary.items()) + f", of {len(verdicts)} attacks")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
