"""Asking somebody, and what counts as a yes: `Consent`.

Rules of this file:
- Nobody to ask, an error, a late answer, an answer that is not clearly yes: all of that is a no.
- One question at a time. Servers take turns: one that asks a lot waits behind itself, and is refused where too many of
  its questions wait.
- An approver that is late keeps its turn until it has really ended: what it says then answers no other question.
- Each question ends in one event, `approval.granted` or `approval.denied`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, NamedTuple, cast, final

from .. import events
from ..errors import ConfigurationError
from ..gate.hygiene import visible
from .questions import Always, CallQuestion, Verdict, cut

if TYPE_CHECKING:
    from .questions import Approver, Question

__all__ = ["Consent", "Decision"]

_NO: Final = Verdict(False)
_HEADING: Final = 200
_TARGET: Final = 500
"""Characters of what a question is about: it may be about hundreds of tools."""

_log = logging.getLogger("garrison.host")


class Decision(NamedTuple):
    """A verdict, and how it came about."""

    verdict: Verdict
    why: str
    """In words that end a sentence: `somebody said no`."""
    setting: str = ""
    """What would change it; empty where somebody decided."""


@final
class Consent:
    """Puts questions to an approver.

    Args:
        approve: asks somebody; None is a no to everything. One that waits for a person is a coroutine function: a plain
            one is called on the loop, and nothing else happens meanwhile.
        patience: seconds that a question may wait for its turn, and then for its answer.
        waiting: how many questions of one server may wait.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    __slots__ = ("_approve", "_patience", "_turns", "_waiting")

    def __init__(self, approve: Approver | None, *, patience: float = 300.0, waiting: int = 16) -> None:
        if approve is not None and not callable(approve):
            raise ConfigurationError("approve= is a function that takes a question")
        if not 0 < patience < float("inf"):
            raise ConfigurationError("patience= is a positive number of seconds")
        if type(waiting) is not int or waiting < 1:
            raise ConfigurationError("waiting= is a positive whole number")
        self._approve = approve
        self._patience = patience
        self._waiting = waiting
        self._turns = _Turns()

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._approve is not None

    async def ask(self, question: Question) -> Verdict:
        """The answer to a question; a refusal where there is none. It raises nothing but a cancellation."""
        return (await self.decide(question)).verdict

    async def decide(self, question: Question) -> Decision:
        """The same, and how it came about."""
        try:
            decision = await self._decided(question)
        except asyncio.CancelledError:
            _record(question, Decision(_NO, "what it was about was taken back"))
            raise
        _record(question, decision)
        return decision

    async def _decided(self, question: Question) -> Decision:
        if self._approve is None:
            return Decision(_NO, "there is nobody to ask", "Host(approve=)")
        if not self._turns.room(question.server, self._waiting):
            return Decision(_NO, f"{self._waiting} questions of this server wait already")
        if not await self._turns.mine(question.server, self._patience):
            return Decision(_NO, f"it waited {self._patience:g} s for its turn", "Host(patience=)")
        return await self._put(question)

    async def _put(self, question: Question) -> Decision:
        """Ask, as the only one."""
        began = time.monotonic()
        asking = asyncio.ensure_future(self._answer(question))
        asking.add_done_callback(self._ended)
        try:
            await asyncio.wait((asking,), timeout=self._patience)
        finally:
            asking.cancel()  # late, or nobody waits for it any more; nothing where it is done
        if not asking.done() or time.monotonic() - began > self._patience:
            return Decision(_NO, f"there was no answer within {self._patience:g} s", "Host(patience=)")
        if asking.cancelled() or asking.exception() is not None:
            return Decision(_NO, "asking failed", "Host(approve=)")
        return _judged(asking.result())

    async def _answer(self, question: Question) -> object:
        approve = cast("Approver", self._approve)
        answer: object = approve(question)
        return await cast("Awaitable[object]", answer) if isinstance(answer, Awaitable) else answer

    def _ended(self, asking: asyncio.Future[object]) -> None:
        self._turns.pass_on()
        if not asking.cancelled() and (error := asking.exception()) is not None:
            _log.error("The approver failed, which is a no", exc_info=error)


def _judged(answer: object) -> Decision:
    if answer is True:
        return Decision(Verdict(True), "somebody said yes")
    if isinstance(answer, Verdict) and answer.allowed is True:
        chosen: object = answer.tools
        if chosen is None or type(chosen) is frozenset:
            always = answer.always if isinstance(answer.always, Always) else None
            return Decision(answer._replace(always=always), "somebody said yes")
    if answer is False or (isinstance(answer, Verdict) and answer.allowed is False):
        return Decision(_NO, "somebody said no")
    return Decision(_NO, "the answer was neither yes nor no", "Host(approve=)")


def _record(question: Question, decision: Decision) -> None:
    allowed = decision.verdict.allowed
    arguments = dict(question.arguments) if isinstance(question, CallQuestion) else None
    name = "approval.granted" if allowed else "approval.denied"
    events.record(
        name,
        f"{visible(cut(question.heading(), _HEADING))}: {decision.why}",
        setting=decision.setting,
        decision="allowed" if allowed else "refused",
        about=events.Event(
            name, server=question.server, target=visible(cut(question.target, _TARGET)), arguments=arguments
        ),
    )


class _Turns:
    """One at a time: a line for each server, and the servers one after another."""

    __slots__ = ("_busy", "_lines")

    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._busy = False

    def room(self, server: str, most: int) -> bool:
        """Whether one more question of this server may wait."""
        return len(self._lines.get(server, ())) < most

    async def mine(self, server: str, patience: float) -> bool:
        """True when it is this question's turn, which `pass_on` ends; False when that took too long."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(server, deque()).append(turn)
        if not self._busy:
            self.pass_on()
        try:
            await asyncio.wait((turn,), timeout=patience)
        except asyncio.CancelledError:
            self._leave(server, turn)
            raise
        if turn.done():
            return True
        self._leave(server, turn)
        return False

    def pass_on(self) -> None:
        """Let the next one begin: the first in the line of the server that has waited longest for a turn."""
        self._busy = bool(self._lines)
        if self._busy:
            server = next(iter(self._lines))
            line = self._lines.pop(server)
            turn = line.popleft()
            if line:
                self._lines[server] = line
            turn.set_result(None)

    def _leave(self, server: str, turn: asyncio.Future[None]) -> None:
        if turn.done():  # it was given in this very moment
            self.pass_on()
            return
        line = self._lines[server]
        line.remove(turn)
        if not line:
            del self._lines[server]
