"""The states of requests that ask back, as they travel through clients (`requestState`).

Rules of this file:
- A state opens for the server that made it, for the same principal, method and parameters, before it ends, and in the
  round that it was made for. Whatever else is wrong, the answer is one constant error.
- On a pipe or in memory, where nobody has shown who they are, it opens in the process that made it only.
- It says which questions are open. Answers to others were not asked for.
- The state of a tool that destroys something opens once, and its answers count with their state only. Other tools take
  answers without one, as clients may send them.

Spec: 2026-07-28 basic/patterns/mrtr.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

import msgspec

from ..errors import InvalidParams
from ..protocol.json import encode
from ..protocol.sealed import SealError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..protocol.sealed import Sealer
    from .call import Call

__all__ = ["Replays", "State", "States", "UsedStates", "answers_to"]

_PURPOSE: Final = "requestState"
_NOT_PART_OF_THE_REQUEST: Final = frozenset({"_meta", "inputResponses", "requestState"})
_PROCESS: Final = os.urandom(16).hex()


class Replays(Protocol):
    """Remembers what may be used once. Shared by all processes that serve the same clients."""

    def take(self, key: str, until: float) -> bool:
        """Whether it is the first time that this key is taken.

        Args:
            key: what is taken: text of this server's own.
            until: when it may be forgotten, in seconds of `time.time`.
        """
        ...


class UsedStates:
    """`Replays` in the memory of one process.

    Args:
        most: keys that are remembered. When they are all still good, nothing more is taken.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._taken: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, key: str, until: float) -> bool:
        """See `Replays`."""
        with self._lock:
            if key in self._taken:
                return False
            if len(self._taken) >= self._most:
                now = time.time()
                self._taken = {each: end for each, end in self._taken.items() if end > now}
                if len(self._taken) >= self._most:
                    return False
            self._taken[key] = until
            return True


class State(NamedTuple):
    """What is known from earlier rounds of a request."""

    round: int
    answers: dict[str, dict[str, object]]
    done: dict[str, object]
    """What `Context.once` produced."""
    asked: tuple[str, ...]
    """The questions that are open."""


class States:
    """Seals and opens the states of one server.

    Args:
        sealer: made with the first state.
        audience: the server, as nobody else is called: the identifier of the resource, or its name.
        replays: remembers the states that open once.
        life: seconds for which a state opens: `Timeouts.state`.
    """

    def __init__(self, sealer: Callable[[], Sealer], audience: str, replays: Replays, life: float) -> None:
        self._sealer = sealer
        self._audience = audience
        self._replays = replays
        self._life = life

    def seal(self, call: Call, state: State) -> str:
        """A state for the client to bring back."""
        expires = time.time() + self._life
        payload = encode([os.urandom(16).hex(), expires, state])
        return self._sealer().seal(_PURPOSE, payload, binding=self._binding(call), expires=expires)

    def open(self, call: Call, token: object, *, once: bool) -> State:
        """What a client brought back.

        Args:
            call: the request that it came with.
            token: `params.requestState`.
            once: refuse it from the second time on.

        Raises:
            InvalidParams: it is not the state of this request, or not any more.
        """
        try:
            if type(token) is not str:
                raise SealError
            payload = self._sealer().open(_PURPOSE, token, binding=self._binding(call), now=time.time())
            identifier, expires, state = msgspec.json.decode(payload, type=tuple[str, float, State])
            if once and not self._replays.take(identifier, expires):
                raise SealError
        except (SealError, msgspec.MsgspecError) as exc:
            raise InvalidParams("Invalid requestState") from exc
        return state

    def _binding(self, call: Call) -> bytes:
        """What a state belongs to. Another server, principal, method or parameter makes another binding."""
        from hashlib import sha256

        params = {k: v for k, v in call.params.items() if k not in _NOT_PART_OF_THE_REQUEST}
        whose = [self._audience, call.principal.key, _PROCESS if call.principal.local else ""]
        return sha256(msgspec.json.encode([*whose, call.method, params], order="deterministic")).digest()


def answers_to(asked: Iterable[str] | None, given: object) -> dict[str, object]:
    """Of what a client answered, what it was asked; all of it where nothing says what that was."""
    if type(given) is not dict:
        return {}
    answers = cast("dict[str, object]", given)
    return answers if asked is None else {name: answers[name] for name in asked if name in answers}
