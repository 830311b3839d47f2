"""Plays the attacks of `messages.py` at every transport and says what became of each.

    python [-O] -m tests.attacks.verdicts        # one JSON object; status 1 when a verdict is wrong

Works under `python -O`: nothing here relies on `assert`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
import tracemalloc
from typing import NamedTuple

from garrison import Limits
from tests.attacks.messages import ATTACKS, CANARY, Attack, Input
from tests.attacks.target import Target
from tests.support.everywhere import KINDS, Answer, Door, call, door

__all__ = ["Played", "doors_of", "play"]

_TELLTALES = (b"Traceback", b"site-packages", b"/src/", b".py", b"jiter", b"msgspec", b"\x1b", b"\\u001b", b"\\ud800")
_TRACED = ("memory", "http")
"""Where memory is looked at: what a transport itself may hold is its own tests' business."""
_SEVERAL = 18
"""Inputs for one server: fewer than the malformed messages that end a connection."""
_UNPACED = Limits(message_rate=1_000_000, message_burst=1_000_000)
"""Large messages are read later when many come; what becomes of each is the same, and is not waited for here."""


class Played(NamedTuple):
    """What became of one attack at one transport."""

    words: list[str]
    """The verdict on each input."""
    wrong: list[str]
    """What should not have been; empty when the attack failed and its twins were served."""


def doors_of(attack: Attack) -> tuple[str, ...]:
    """The transports where an attack has a meaning."""
    return KINDS if attack.eras == "both" else tuple(kind for kind in KINDS if kind != "session")


async def play(attack: Attack, kind: str, *, measured: bool = True) -> Played:
    """Send every input and every twin of an attack, each on a connection of its own.

    `measured`: look at time and memory too, which tells something only while nothing else runs.
    """
    played = Played([], [])
    inputs = [*attack.inputs, *attack.twins]
    for start in range(0, len(inputs), _SEVERAL):
        target = Target(_UNPACED)
        async with door(kind, target.server) as at:
            for number, each in enumerate(inputs[start : start + _SEVERAL], start):
                target.ran.clear()
                answer, wrong = await _one(at, attack, each, measured)
                if number < len(attack.inputs):
                    played.words.append(answer.word)
                if target.ran != ([each.ran] if each.ran else []):
                    wrong.append(f"handlers ran: {target.ran}")
                played.wrong.extend(f"{kind} input {number} {str(each.text)[:80]!r}: {what}" for what in wrong)
            target.ran.clear()
            if (await at.verdict(call(arguments='{"text":"alive"}'))).word != "answered" or target.ran != [
                "echo alive"
            ]:
                played.wrong.append(f"{kind}: no longer alive")
    return played


async def _one(at: Door, attack: Attack, each: Input, measured: bool) -> tuple[Answer, list[str]]:
    raw = at.message(each.text)
    traced = measured and attack.memory and at.kind in _TRACED
    if traced:
        gc.collect()
        tracemalloc.start()
    started = time.process_time()
    answer = await at.verdict(raw)
    seconds = time.process_time() - started
    peak = 0
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    wrong: list[str] = []
    expected = each.but.get(at.kind, each.word)
    if answer.word != expected:
        wrong.append(f"{answer.word} instead of {expected}: {answer.data[:120]!r}")
    if each.status is not None and at.modern and answer.status not in (None, each.status):
        wrong.append(f"HTTP status {answer.status} instead of {each.status}")
    if answer.status is not None and answer.status >= 500:
        wrong.append(f"HTTP status {answer.status}")
    wrong.extend(f"{telltale!r} was told" for telltale in _TELLTALES if telltale in answer.data)
    if CANARY.encode() in answer.data:
        wrong.append("the input was repeated")
    if answer.word == "answered" and f'"id":{_id_of(raw)}'.encode() not in answer.data:
        wrong.append(f"answered with another id: {answer.data[:60]!r}")
    if answer.word == "answered" and each.ran.startswith("exact ") and each.ran[6:].encode() not in answer.data:
        wrong.append(f"not exact: {answer.data[:120]!r}")
    if measured and seconds > attack.seconds:
        wrong.append(f"{seconds:.2f} s")
    if peak > attack.memory:
        wrong.append(f"{peak >> 20} MiB")
    return answer, wrong


def _id_of(raw: bytes) -> str:
    return json.dumps(json.loads(raw)["id"])


async def _at(kind: str) -> dict[str, Played]:
    return {each.id: await play(each, kind, measured=False) for each in ATTACKS if kind in doors_of(each)}


async def main() -> int:
    """Play everything, at all transports side by side, and print it."""
    played = dict(zip(KINDS, await asyncio.gather(*map(_at, KINDS)), strict=True))
    told = {kind: {name: each._asdict() for name, each in attacks.items()} for kind, attacks in played.items()}
    json.dump(
        {"asserts": __debug__, "log": logging.getLevelName(logging.getLogger().level), "played": told}, sys.stdout
    )
    return int(any(each.wrong for attacks in played.values() for each in attacks.values()))


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"))
    sys.exit(asyncio.run(main()))
