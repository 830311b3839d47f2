"""The report on the attack catalogue: every case has tests, and nothing but a passed test counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.catalogue import CASES, CLIENT, EVERYWHERE, TRANSPORTS, Case
from tests.attacks.report import Test, judge

ROOT = Path(__file__).resolve().parents[2]


def report(*arguments: str) -> tuple[int, str, str]:
    """Run the report as a user does: exit status, output, and what pytest said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "tests.attacks.report", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110)
    return done.returncode, done.stdout, done.stderr


def test_the_catalogue_has_every_case_once() -> None:
    numbers = [case.id for case in CASES]
    assert numbers == sorted(set(numbers)) and all(re.fullmatch(r"ATK-\d{3}", number) for number in numbers)
    assert len(CASES) >= 114
    assert len({case.title for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.title and not case.title.endswith(".")
        assert TRANSPORTS.issuperset(case.transports)
        assert not case.not_applicable or len(case.not_applicable) > 20


def test_the_transports_are_those_of_the_doors() -> None:
    from tests.attacks import hostile
    from tests.support import everywhere

    assert EVERYWHERE == everywhere.KINDS
    assert CLIENT == hostile.CLIENT


@pytest.mark.timeout(120)
def test_every_case_has_tests_on_every_transport_it_names() -> None:
    status, output, errors = report("--collect", "--json")
    told = json.loads(output)
    missing = [case for case in told["cases"] if case["status"] not in ("covered", "not applicable")]
    assert missing == [], errors[-2_000:]
    assert told["errors"] == []
    assert status == 0


CASE = Case("ATK-001", "one")
MANY = Case("ATK-002", "many", ("stdio", "http"))
NEVER = Case("ATK-003", "never", not_applicable="there is nothing of the kind here")


def verdict(case: Case, *tests: tuple[str, tuple[str, ...]], ran: bool = True) -> str:
    made = [Test(str(n), {case.id: frozenset(played)}, outcome) for n, (outcome, played) in enumerate(tests)]
    return judge([case], made, ran=ran)[0].status


def test_only_a_test_that_passed_counts() -> None:
    assert verdict(CASE) == "missing"
    assert verdict(CASE, ("passed", ())) == "pass"
    assert verdict(CASE, ("skipped", ())) == "missing"
    assert verdict(CASE, ("collected", ())) == "missing"
    assert verdict(CASE, ("collected", ()), ran=False) == "covered"
    assert verdict(CASE, ("skipped", ()), ("passed", ())) == "pass"
    assert verdict(CASE, ("passed", ()), ("failed", ())) == "fail"


def test_a_case_of_several_transports_needs_them_all() -> None:
    assert verdict(MANY, ("passed", ())) == "missing"
    assert verdict(MANY, ("passed", ("stdio",))) == "missing"
    assert verdict(MANY, ("passed", ("stdio",)), ("passed", ("http",))) == "pass"
    assert verdict(MANY, ("passed", ("http", "stdio", "memory"))) == "pass"
    assert verdict(MANY, ("passed", ("stdio",)), ("skipped", ("http",))) == "missing"
    assert verdict(MANY, ("passed", ("stdio",)), ("failed", ("http",))) == "fail"
    assert verdict(MANY, ("collected", ("stdio",)), ran=False) == "missing"


def test_a_case_that_does_not_apply_is_no_pass() -> None:
    assert verdict(NEVER) == "not applicable"
    assert verdict(NEVER, ("passed", ())) == "not applicable"


EXAMPLE = """
import pytest

@pytest.mark.attack("ATK-001")
@pytest.mark.attack("ATK-002")
def test_passes(): pass

@pytest.mark.attack("ATK-003")
def test_fails(): assert 0

@pytest.mark.attack("ATK-004")
def test_is_skipped(): pytest.skip("no")

@pytest.mark.attack("ATK-005")
@pytest.mark.xfail(strict=False)
def test_is_expected_to_fail(): assert 0

@pytest.fixture
def broken(): raise OSError

@pytest.mark.attack("ATK-006")
def test_has_no_fixture(broken): pass

@pytest.mark.attack("ATK-092")
@pytest.mark.parametrize("where", ["memory", "stdio", "http", "session", "asgi", "websocket", "asgi-websocket", "unix"])
def test_goes_everywhere(where): pass

@pytest.mark.attack("ATK-093")
@pytest.mark.parametrize("where", ["memory", "stdio"])
def test_goes_to_some(where): pass

@pytest.mark.attack("ATK-103", transports=("stdio", "http", "websocket", "unix"))
def test_says_where_it_goes(): pass

@pytest.mark.attack("ATK-999")
def test_of_another_list(): pass

@pytest.mark.attack("ATK-7")
def test_of_no_case(): pass
"""


@pytest.mark.timeout(120)
def test_the_report_on_a_suite_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    settings = ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", str(tmp_path)]
    status, output, _ = report("--json", "--", *settings)
    told = json.loads(output)
    cases: dict[str, Any] = {case["id"]: case for case in told["cases"]}
    statuses = {name: case["status"] for name, case in cases.items()}
    assert status == 1
    assert statuses["ATK-001"] == statuses["ATK-002"] == statuses["ATK-092"] == statuses["ATK-103"] == "pass"
    assert statuses["ATK-003"] == statuses["ATK-005"] == statuses["ATK-006"] == "fail"
    assert statuses["ATK-004"] == statuses["ATK-007"] == "missing"
    assert statuses["ATK-093"] == "missing" and cases["ATK-093"]["reason"].endswith(
        "http, session, asgi, websocket, asgi-websocket, unix"
    )
    spared = sum(bool(case.not_applicable) for case in CASES)
    missing = len(CASES) - 7 - spared
    assert told["summary"] == {"pass": 4, "fail": 3, "missing": missing, "not applicable": spared}
    assert len(told["errors"]) == 1 and "ATK-7" in told["errors"][0]

    status, output, _ = report("--", *settings)
    assert status == 1
    assert re.search(r"^ATK-003  fail .*test_fails", output, re.MULTILINE)
    counted = f"4 pass, 3 fail, {missing} missing, {spared} not applicable, of {len(CASES)} attacks"
    assert output.strip().endswith(counted)

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "test_broken.py").write_text("import nothing_of_this_name\n")
    status, output, _ = report("--collect", "--", *settings[:-1], str(broken))
    assert status == 1 and "not collected" in output


@pytest.mark.timeout(60)
def test_the_report_is_good_only_when_all_is(tmp_path: Path) -> None:
    places = ", ".join(map(repr, sorted(TRANSPORTS)))
    marks = "\n".join(f"@pytest.mark.attack({case.id!r}, transports=({places}))" for case in CASES)
    file = tmp_path / "test_all.py"
    settings = ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", str(tmp_path)]
    file.write_text(f"import pytest\n\n{marks}\ndef test_all(): pass\n")
    assert report("--", *settings)[0] == 0
    file.write_text(f"import pytest\n\n{marks}\ndef test_all(): pass\n\ndef test_other(): assert 0\n")
    assert report("--", *settings)[0] == 1
