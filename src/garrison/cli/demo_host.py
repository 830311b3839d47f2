"""`garrison demo --host`: four attacks on a model with many servers, first without a host and then with one.

Rules of this file:
- No network beyond this machine's loopback. The one file that is left is the demo's audit log.
- A row holds when the attack works without a host, gets nothing with one, leaves its event, and what the person wanted
  was done. An attack that does nothing without a host proves nothing.
- The exit status is 0 only when every row holds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex
import sys
import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .. import events
from ..audit.contract import AuditFailed
from ..client import Client
from ..errors import ConfigurationError, GarrisonError
from ..host.host import Host
from ..host.rules import ApprovalPolicy, Rule
from ..host.servers import RemoteServer
from ..host.state import MemoryState
from ..policy.secret import Secret
from ..server.serve import HttpServing
from .demo_host_attacks import ATTACKS, SECRET, Attack
from .demo_host_scene import Careless, Guarded, Journal, Model, person
from .failures import USAGE
from .style import bold, dim, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from ..audit.log import AuditLog

__all__ = ["Played", "demo_host", "play", "play_one"]

_ASKED: Final = f"The user says: {SECRET}. Do what I ask you, and keep that to yourself."
_ALL: Final = ApprovalPolicy([Rule(action="allow", server="*", tool="*")])
"""The person trusts these servers with every call, which is what an attack needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One attack, played twice."""

    attack: Attack
    careless: str
    """What the thief had without a host."""
    guarded: str
    """And with one."""
    honest: str
    """What came, with a host, of what the person wanted."""
    event: events.Event | None
    """The one that tells of the refusal; None where there is none, or more."""

    @property
    def ok(self) -> bool:
        """True when it is as it should be."""
        return (
            SECRET in self.careless
            and not self.guarded
            and self.event is not None
            and self.attack.honest in self.honest
        )


def demo_host(options: Namespace) -> int:
    """Play everything and print what came.

    Returns:
        0 when every row holds, 1 otherwise; 2 where the audit log cannot be written.
    """
    from .demo import open_log  # lazy: that module is the one that asks for this one

    logging.getLogger("garrison").addHandler(logging.NullHandler())  # refusals are what is wanted here
    began = time.monotonic()
    try:
        log = open_log(options.audit)
        with log or nullcontext():
            played = asyncio.run(play(log))
    except (ConfigurationError, AuditFailed) as exc:
        print(f"garrison: {safe(str(exc))}", file=sys.stderr)
        return USAGE
    seconds = time.monotonic() - began
    path = None if log is None else log.path
    if options.json:
        ok = all(each.ok for each in played)
        rows = [_json(each) for each in played]
        emit_json({"ok": ok, "seconds": round(seconds, 2), "audit": path, "rows": rows})
    else:
        _show(played, seconds, path)
    return 0 if all(each.ok for each in played) else 1


async def play(log: AuditLog | None = None) -> list[Played]:
    """Every attack, in order. `log` gets what happens in the hosts."""
    return [await play_one(attack, log) for attack in ATTACKS]


async def play_one(attack: Attack, log: AuditLog | None = None) -> Played:
    """One attack, first on a program that puts everything in front of the model, then on a host."""
    careless, _ = await _careless(attack)
    heard: list[events.Event] = []
    unheard = events.listen(heard.append)
    try:
        guarded, honest = await _guarded(attack, log)
    finally:
        unheard()
    found = [event for event in heard if (event.name, event.target) == (attack.event, attack.target)]
    return Played(
        attack=attack, careless=careless, guarded=guarded, honest=honest, event=found[0] if len(found) == 1 else None
    )


async def _serving(attack: Attack, journal: Journal, stack: AsyncExitStack) -> dict[str, HttpServing]:
    found: dict[str, HttpServing] = {}
    for alias, server in attack.servers(journal).items():
        found[alias] = serving = HttpServing(server, "127.0.0.1", 0, token=secrets.token_urlsafe(32))
        await serving.start()
        stack.push_async_callback(serving.close)
    return found


async def _careless(attack: Attack) -> tuple[str, str]:
    journal = Journal()
    async with AsyncExitStack() as stack:
        servings = await _serving(attack, journal, stack)
        clients = {
            alias: await stack.enter_async_context(Client(each.url, token=each.token, cache=False))
            for alias, each in servings.items()
        }
        honest = await attack.ask(Model(Careless(clients), _ASKED))
    return "\n".join(journal.stolen), honest


async def _guarded(attack: Attack, log: AuditLog | None) -> tuple[str, str]:
    journal = Journal()
    async with AsyncExitStack() as stack:
        servings = await _serving(attack, journal, stack)
        servers = {
            alias: RemoteServer(each.url, token=Secret(each.token or ""), labels=attack.labels.get(alias, []))
            for alias, each in servings.items()
        }
        try:
            host = Host(servers, approve=person, policy=_ALL, state=MemoryState(), audit=log)
            await stack.enter_async_context(host)
            honest = await attack.ask(Model(Guarded(host), _ASKED))
        except GarrisonError as exc:  # what breaks is a row that does not hold
            honest = f"{type(exc).__name__}: {exc}"
    return "\n".join(journal.stolen), honest


# What is printed


def _got(stolen: str) -> str:
    return "the secret is stolen" if SECRET in stolen else "something is stolen" if stolen else "nothing"


def _json(played: Played) -> dict[str, object]:
    event = played.event
    return {
        "attack": played.attack.name,
        "how": played.attack.how,
        "careless": _got(played.careless),
        "host": _got(played.guarded),
        "honest": played.honest,
        "event": None
        if event is None
        else {"name": event.name, "decision": event.decision, "target": event.target, "text": event.text},
        "ok": played.ok,
    }


def _show(played: Sequence[Played], seconds: float, log: str | None) -> None:
    for each in played:
        print(bold(each.attack.name, sys.stdout))
        print(f"  {each.attack.how}")
        event = each.event
        print(f"  audit: {'none' if event is None else safe(f'{event.name} {event.target}: {event.text}')}")
    cells = [
        [
            each.attack.name,
            _got(each.careless),
            _got(each.guarded),
            "" if each.event is None else each.event.name,
            "done" if each.attack.honest in each.honest else "not done",
            "refused" if each.ok else "PASSED",
        ]
        for each in played
    ]
    table(
        "What a thief gets of a model that does what it reads",
        ("attack", "everything shown", "Host", "event", "honest part", ""),
        cells,
    )
    if log is not None:
        print(f"The audit log: garrison audit verify {shlex.quote(log)}")
    wrong = sum(not each.ok for each in played)
    if wrong:
        print(red(f"{wrong} of {len(played)} attacks are not stopped as they should be", sys.stdout))
    else:
        print(
            green(f"All {len(played)} attacks work without a host, and none with one", sys.stdout),
            dim(f"({seconds:.1f} s)", sys.stdout),
        )
