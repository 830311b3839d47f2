"""`garrison demo`: every row holds, and a row that does not is seen."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.cli import demo_attacks, demo_server, main
from garrison.cli.demo_app import BESIDE
from garrison.cli.demo_app_attacks import attack_application
from garrison.cli.demo_raw import outcome
from garrison.cli.demo_rows import Row, row
from garrison.policy.principal import Principal
from garrison.safe.root import SafeRoot

from .commands import garrison


def test_every_row_holds() -> None:
    done = garrison("demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True and done.stderr == ""
    rows = report["rows"]
    assert all(row["ok"] is (row["got"] == row["expected"]) is True for row in rows)
    assert {(row["transport"], row["era"]) for row in rows} == {
        *((transport, era) for transport in ("stdio", "http") for era in ("modern", "legacy")),
        ("file", "modern"),
    }
    attacks = [index for index, row in enumerate(rows) if row["expected"][:1] in "4-"]
    assert len(attacks) >= 15
    of_tools = [row for row in rows if row["expected"] == "200 isError"]
    assert len(of_tools) >= 10
    assert report["seconds"] < 20


def verified(path: str) -> tuple[int, str]:
    """What `garrison audit verify` says of a log."""
    done = garrison("audit", "verify", path)
    return done.returncode, done.stdout


@pytest.mark.skipif(os.name != "posix", reason="an audit log needs the modes and locks of POSIX")
def test_the_log_of_the_demo_is_kept_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log" / "demo.log"
    done = garrison("demo", "--fast", "--audit", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2] == f"The audit log: garrison audit verify {path}"
    assert verified(str(path))[0] == 0
    found = [entry for entry in map(json.loads, path.read_text().splitlines()) if "event" in entry]
    refused = {entry["event"] for entry in found if entry.get("decision") == "refused"}
    assert refused >= {
        "host.refused", "origin.refused", "auth.refused", "message.malformed", "arguments.invalid", "call.conflict",
        "path.refused", "sql.refused", "fetch.refused", "command.refused", "archive.refused", "document.refused",
        "limit.reached",
    }  # fmt: skip
    assert {"call.begun", "call.ended", "policy.relaxed"} & {entry["event"] for entry in found}
    assert BESIDE not in path.read_text()
    assert {each.name for each in path.parent.iterdir()} == {"demo.log", "demo.log.lock"}
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    status, said = verified(str(path))
    assert status == 1 and "BROKEN" in said and "record 5: missing" in said


@pytest.mark.skipif(os.name != "posix", reason="an audit log needs the modes and locks of POSIX")
def test_a_place_where_others_can_write_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = garrison("demo", "--fast", "--audit", str(tmp_path / "open" / "demo.log"))
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert list((tmp_path / "open").iterdir()) == []


async def test_helpers_that_let_everything_pass_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(root: SafeRoot, path: str) -> str:
        return (tmp_path / "docs" / path).read_text()

    async def confirmed(*_: object) -> None:
        return

    monkeypatch.setattr(SafeRoot, "read_text", read)
    monkeypatch.setattr("garrison.server.outgoing._cleaner", lambda hygiene: lambda text: text)
    monkeypatch.setattr("garrison.server.confirmation.confirm", confirmed)
    rows = {row.what: (row.expected, row.got) for row in await attack_application(tmp_path, None) if not row.ok}
    assert rows["a path out of the directory"] == ("200 isError", "the secret")
    assert rows["a link out of it"] == ("200 isError", "the secret")
    assert rows["a terminal's commands in a result"] == ("written out", "as it is")
    assert rows["a payment that nobody confirmed"] == ("200 asks", "200 result")


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
