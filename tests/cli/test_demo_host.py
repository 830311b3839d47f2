"""`garrison demo --host`: every attack works without a host, none with one, and a control that is missing is seen."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.cli import main
from garrison.cli.demo_host import Played, play, play_one
from garrison.cli.demo_host_attacks import ATTACKS, SECRET

from .commands import garrison

pytestmark = pytest.mark.client


async def passed() -> dict[str, str]:
    """The attacks that were not stopped, and what the thief had."""
    return {each.attack.name: each.guarded for each in await play() if not each.ok}


def test_every_attack_is_stopped() -> None:
    done = garrison("demo", "--host", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True and done.stderr == "" and report["seconds"] < 20
    rows = report["rows"]
    assert [row["attack"] for row in rows] == ["rug pull", "cross-server shadow", "line jump", "toxic flow"]
    assert {row["careless"] for row in rows} == {"the secret is stolen"} and {row["host"] for row in rows} == {
        "nothing"
    }
    assert [row["event"]["name"] for row in rows] == [
        "pin.changed",
        "definition.flagged",
        "definition.flagged",
        "flow.held",
    ]
    assert all(row["ok"] and row["how"] and row["event"]["text"] for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="an audit log needs the modes and locks of POSIX")
def test_the_events_are_shown_and_on_record(tmp_path: Path) -> None:
    path = tmp_path / "log" / "demo.log"
    done = garrison("demo", "--host", "--audit", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("All 4 attacks work without a host, and none with one")
    assert lines[-2] == f"The audit log: garrison audit verify {path}"
    assert sum(line.startswith("  audit: ") for line in lines) == 4 and "PASSED" not in done.stdout
    kept = {json.loads(line).get("event") for line in path.read_text().splitlines()}
    assert {"pin.changed", "definition.flagged", "flow.held", "approval.denied", "approval.granted"} <= kept
    assert SECRET not in path.read_text()
    assert garrison("audit", "verify", str(path)).returncode == 0


def test_two_kinds_of_demo_are_not_one() -> None:
    done = garrison("demo", "--host", "--auth")
    assert done.returncode == 2 and "not allowed with" in done.stderr


async def test_pins_that_are_not_compared_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.host.pins.ServerPins.status", lambda *args: "same")
    assert SECRET in (await passed())["rug pull"]


async def test_flow_that_is_not_followed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.host.flow.Flow.reasons", lambda *args: ())
    assert (await passed()).keys() == {"toxic flow"}


async def test_definitions_that_nobody_reads_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.host.exposure.scan", lambda *args, **options: ())
    found = await passed()
    assert found.keys() == {"cross-server shadow", "line jump"} and SECRET in found["cross-server shadow"]
    assert found["line jump"] == "", "instructions are not given to a model, whatever they say"


def test_an_attack_that_does_nothing_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    played = asyncio.run(play_one(ATTACKS[0]))
    assert played.ok
    assert not replace(played, careless="").ok
    assert not replace(played, guarded="anything").ok
    assert not replace(played, event=None).ok
    assert not replace(played, honest="").ok

    async def two(log: object) -> list[Played]:
        return [played, replace(played, guarded=SECRET)]

    monkeypatch.setattr("garrison.cli.demo_host.play", two)
    assert main(["demo", "--host"]) == 1
    out = capfd.readouterr()[0]
    assert "PASSED" in out and "1 of 2 attacks are not stopped" in out
