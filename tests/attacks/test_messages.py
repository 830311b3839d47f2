"""Malformed and hostile messages get the same verdict on every transport, reach no handler, and harm nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.messages import ATTACKS, Attack
from tests.attacks.target import Target
from tests.attacks.verdicts import doors_of, play
from tests.support.everywhere import KINDS, call, door

ROOT = Path(__file__).resolve().parents[2]

every_case = pytest.mark.parametrize(
    ("attack", "door_kind"),
    [
        pytest.param(
            attack,
            kind,
            id=f"{attack.id}-{kind}",
            # One table of verdicts for all transports: being equal to it is being equal to each other.
            marks=[pytest.mark.attack(attack.id), pytest.mark.attack("ATK-113")],
        )
        for attack in ATTACKS
        for kind in doors_of(attack)
    ],
)


@every_case
async def test_a_bad_message_is_refused_the_same_everywhere(attack: Attack, door_kind: str) -> None:
    played = await play(attack, door_kind)
    assert played.wrong == []
    assert len(played.words) == len(attack.inputs) > 0


def test_every_attack_has_a_harmless_twin_and_says_what_runs() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert attack.twins, attack.id
        assert all(twin.word == "answered" and twin.ran for twin in attack.twins), attack.id
        assert all(bool(each.ran) == (each.word == "answered") for each in attack.inputs), attack.id


async def test_what_works_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The player itself: an attack that gets through, a twin that does not, and a wrong verdict are all told."""
    from garrison.protocol import json as strict

    parse = strict._parse

    def tolerant(data: bytes, **options: object) -> object:
        return parse(data, **{**options, "catch_duplicate_keys": False})

    duplicate = next(attack for attack in ATTACKS if attack.id == "ATK-079")
    for kind in ("memory", "http"):
        with monkeypatch.context() as patch:
            patch.setattr(strict, "_parse", tolerant)
            wrong = (await play(duplicate, kind)).wrong
        assert any("answered instead of -32700" in each for each in wrong)
        assert any("handlers ran: ['echo CANARY" in each for each in wrong)
        assert any("the input was repeated" in each for each in wrong)
        assert (await play(duplicate, kind)).wrong == []
        refused_twin = duplicate._replace(twins=duplicate.inputs[:1])
        assert (await play(refused_twin, kind)).wrong == []
        broken_twin = duplicate._replace(twins=[duplicate.twins[0]._replace(text="{")])
        assert any("-32700 instead of answered" in each for each in (await play(broken_twin, kind)).wrong)


@pytest.mark.attack("ATK-114", transports=KINDS)
@pytest.mark.timeout(180)
def test_the_verdicts_are_the_same_without_asserts_and_with_a_quiet_log() -> None:
    environment = {**os.environ, "LOG": "ERROR", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-O", "-m", "tests.attacks.verdicts"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert (told["asserts"], told["log"]) == (False, "ERROR")
    assert [
        each for attacks in told["played"].values() for played in attacks.values() for each in played["wrong"]
    ] == []
    assert done.returncode == 0, done.stderr
    assert told["played"].keys() == set(KINDS)
    for attack in ATTACKS:
        for kind in doors_of(attack):
            expected = [each.but.get(kind, each.word) for each in attack.inputs]
            assert told["played"][kind][attack.id]["words"] == expected


@pytest.mark.parametrize("door_kind", KINDS)
async def test_a_door_tells_apart_what_a_verdict_may_be(door_kind: str) -> None:
    target = Target()
    async with door(door_kind, target.server) as at:
        assert (await at.verdict(call())).word == "answered"
        assert (await at.verdict(call("nothing"))).word == "-32602"
        assert (await at.verdict("{")).word == "-32700"
        assert (await at.verdict('{"jsonrpc":"2.0","method":"notifications/unheard"}')).word == "silent"
        assert target.ran == ["echo x"]
