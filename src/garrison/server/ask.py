"""Asking the client back: one call that works in every revision.

Rules of this file:
- A legacy client gets a request and answers it while the handler waits.
- A modern client gets no request. The handler's run ends with `InputRequired`; the questions travel in the result, the
  answers come with the retry, and the handler runs again from its start. An answer is found by its key, so a handler
  must ask the same questions in the same order until it has got the answers; `key=` frees a question from its place.
- What was answered, and what `once` produced, travels in `requestState` (`states`). A state that does not open is
  refused.
- An answer from the client is checked against its question. One that does not fit, or that belongs to no question that
  the state names, counts as not given.

Spec: 2026-07-28 basic/patterns/mrtr.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, cast

import msgspec

from ..errors import MissingCapability, ToolError
from .states import State, answers_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..policy import Limits, Timeouts
    from .call import Call
    from .states import States

__all__ = ["Asker", "InputRequired", "Question"]


class InputRequired(BaseException):
    """Ends a handler's run because answers are missing. No `Exception`, so that no handler catches it by accident."""


class Question:
    """One thing to ask: a method, its parameters, the capability it needs and the check of its answer."""

    __slots__ = ("capability", "check", "kind", "method", "params")

    def __init__(
        self,
        kind: str,
        method: str,
        params: dict[str, object],
        capability: tuple[str, ...],
        check: Callable[[dict[str, object]], str | None],
    ) -> None:
        self.kind = kind
        self.method = method
        self.params = params
        self.capability = capability
        self.check = check


class Asker:
    """The questions of one request, with the answers known so far.

    Args:
        call: the request.
        states: seals and opens its state.
        limits, timeouts: of the server.
        once: its state opens once.

    Raises:
        InvalidParams: the state that came with it is not its own.
    """

    __slots__ = (
        "_answers",
        "_call",
        "_counts",
        "_done",
        "_given",
        "_limits",
        "_pending",
        "_round",
        "_states",
        "_timeouts",
    )

    def __init__(self, call: Call, states: States, limits: Limits, timeouts: Timeouts, *, once: bool) -> None:
        self._call = call
        self._states = states
        self._limits = limits
        self._timeouts = timeouts
        self._counts: dict[str, int] = {}
        self._pending: dict[str, Question] = {}
        token = call.params.get("requestState")
        state, asked = State(0, {}, {}, ()), () if once else None
        if token is not None and call.revision.modern:
            state = states.open(call, token, once=once)
            asked = state.asked
        self._round = state.round
        self._answers = dict(state.answers)
        self._done = dict(state.done)
        self._given = answers_to(asked, call.params.get("inputResponses"))

    def _key(self, kind: str, key: str | None) -> str:
        if key is None:
            number = self._counts.get(kind, 0) + 1
            self._counts[kind] = number
            return f"{kind}_{number}"
        return key

    async def ask(self, question: Question, key: str | None) -> dict[str, object]:
        """The client's answer.

        Raises:
            MissingCapability: the client did not declare that it can be asked this.
            InputRequired: modern revision, and the answer is not there yet.
            ToolError: the request asked back too many rounds, or a legacy answer does not fit its question.
        """
        import asyncio

        call = self._call
        if not declares(call.capabilities, question.capability):
            raise MissingCapability(nested(question.capability))
        name = self._key(question.kind, key)
        if not call.revision.modern:
            if call.running is not None:
                call.running.pause()  # the handler's time does not run while the user thinks
            try:
                params = question.params if call.looks is None else call.looks.params(question.params)
                waiting = call.channel.ask(question.method, params)
                try:
                    answer = await asyncio.wait_for(waiting, self._timeouts.ask)
                except TimeoutError as exc:
                    raise ToolError("The client did not answer in time (Timeouts.ask)") from exc
                answer = call.revision.upgrade_result(question.method, answer)
            finally:
                if call.running is not None:
                    call.running.resume()
            problem = question.check(answer)
            if problem is not None:
                raise ToolError(f"The client's answer does not fit the question: {problem}")
            return answer
        known = self._answers.get(name)
        if known is not None:
            return known
        given = self._given.get(name)
        if type(given) is dict and question.check(cast("dict[str, object]", given)) is None:
            self._answers[name] = cast("dict[str, object]", given)
            return self._answers[name]
        self._pending[name] = question
        # One turn of the loop lets the questions of sibling tasks join, so that all go out in one round.
        await asyncio.sleep(0)
        raise InputRequired

    async def once(self, key: str, fn: Callable[[], Awaitable[object] | object]) -> object:
        """Run `fn` the first time, and give its JSON value again whenever the handler is run again."""
        if key in self._done:
            return self._done[key]
        value = fn()
        if inspect.isawaitable(value):
            value = await cast("Awaitable[object]", value)
        self._done[key] = msgspec.to_builtins(value)
        return value

    def result(self) -> dict[str, object]:
        """The `InputRequiredResult` for the questions that are open.

        Raises:
            ToolError: the rounds are used up.
        """
        if self._round >= self._limits.rounds:
            raise ToolError(f"Gave up asking after {self._round} rounds")
        state = State(self._round + 1, self._answers, self._done, tuple(self._pending))
        return {
            "resultType": "input_required",
            "inputRequests": {k: {"method": q.method, "params": q.params} for k, q in self._pending.items()},
            "requestState": self._states.seal(self._call, state),
        }


def declares(capabilities: dict[str, object], path: tuple[str, ...]) -> bool:
    """True if the client declared this capability. `elicitation: {}` means form mode (spec: client/elicitation)."""
    members = capabilities
    for depth, name in enumerate(path):
        value = members.get(name)
        if type(value) is not dict:
            return depth == 1 and path == ("elicitation", "form") and not members
        members = cast("dict[str, object]", value)
    return True


def nested(path: tuple[str, ...]) -> dict[str, object]:
    """A capability path as a `ClientCapabilities` object."""
    inner: dict[str, object] = {}
    for name in reversed(path):
        inner = {name: inner}
    return inner
