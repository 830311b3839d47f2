"""`garrison demo`: every row holds, and a row that does not is seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from garrison.cli import demo_attacks, demo_server, main
from garrison.cli.demo_raw import outcome
from garrison.cli.demo_rows import Row, row
from garrison.policy.principal import Principal

from .commands import garrison


def test_every_row_holds() -> None:
    done = garrison("demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True and done.stderr == ""
    rows = report["rows"]
    assert all(row["ok"] is (row["got"] == row["expected"]) is True for row in rows)
    assert {(row["transport"], row["era"]) for row in rows} == {
        (transport, era) for transport in ("stdio", "http") for era in ("modern", "legacy")
    }
    attacks = [index for index, row in enumerate(rows) if row["expected"][:1] in "4-"]
    assert len(attacks) >= 15
    assert report["seconds"] < 20


def test_the_table_says_that_all_is_well() -> None:
    done = garrison("demo", "--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("All ") and done.stdout.count("  ok\n") > 60


def broken(capfd: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Run the demo, which must fail, and give the rows that do not hold."""
    status = main(["demo", "--fast", "--json"])
    out, err = capfd.readouterr()
    assert status == 1 and out, (status, out, err)
    report = json.loads(out)
    assert report["ok"] is False
    return {row["what"]: (row["expected"], row["got"]) for row in report["rows"] if not row["ok"]}


def test_a_gate_that_lets_everybody_in_is_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    anyone = Principal("anyone")
    monkeypatch.setattr("garrison.gate.http.HttpGate.check", lambda self, head: setattr(head, "principal", anyone))
    rows = broken(capfd)
    assert rows["no token"] == ("401 -32600", "200 result")
    assert {"a foreign Host", "a foreign Origin (DNS rebinding)", "a form's text/plain (CSRF)"} <= rows.keys()


def test_a_server_that_answers_wrongly_is_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    honest = demo_attacks.http_attacks

    def wrong(port: int, page: str) -> tuple[demo_attacks.Attack, ...]:
        return tuple(replace(attack, good=attack.evil) for attack in honest(port, page)[:1])

    monkeypatch.setattr(demo_attacks, "http_attacks", wrong)
    assert broken(capfd) == {"then the honest call": ("200 result", "401 -32600")}


async def test_a_check_that_breaks_is_a_row_that_does_not_hold() -> None:
    async def breaks() -> str:
        raise ConnectionResetError("gone")

    async def holds() -> str:
        return "fine"

    assert await row("a", "http", "modern", "fine", breaks()) == Row(
        "a", "http", "modern", "fine", "ConnectionResetError: gone"
    )
    assert (await row("a", "http", "modern", "fine", holds())).ok


def test_outcomes() -> None:
    assert outcome({"error": {"code": -32700}}) == "-32700"
    assert outcome({"result": {"isError": True}}) == "isError"
    assert outcome({"result": {"resultType": "input_required"}}) == "asks"
    assert outcome({"result": {}}) == "result"
    assert outcome({}) == "no response"


def test_the_pages_are_those_of_the_checkout_or_the_modules_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Garrison" in demo_server.pages()["readme"]
    monkeypatch.setattr("pathlib.Path.is_file", lambda self, **options: False)
    installed = demo_server.pages.__wrapped__()
    assert installed["errors"].startswith("Every error Garrison raises") and len(installed) > 20
