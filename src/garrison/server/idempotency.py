"""Idempotency keys: a call that is sent again is answered again, and not done again.

    @server.tool(destructive=True, idempotent_by="key")
    def transfer(to: str, cents: int, key: str) -> str: ...

Rules of this file:
- A key names one deed of one account and one tool: issuer, tenant and subject, whatever program acts for them. The same
  key with other arguments is a conflict, and so is a repeat while the first call is under way.
- What the handler made of it is kept, a result with `isError` too. Where it began and gave no result (it raised
  something else, was cancelled, ran out of time), nobody knows what was done: this is kept, and a repeat is told so.
- Where the handler did not begin (not confirmed, not recorded), or asked a question and will be run again, nothing is
  kept.
- A result is kept in the newest revision's shape, and a repeat gets it in the shape of its own.
- Keys and arguments are kept as digests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, cast

import msgspec

from .. import events
from ..errors import IdempotencyConflict, InvalidArguments, RateLimited
from ..protocol.json import encode
from .disclosure import about, log
from .shelf import Full, Shelf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..protocol.revisions import Revision
    from .call import Call
    from .registry import ToolEntry

__all__ = ["Deed", "MemoryOutcomes", "Outcome", "Outcomes", "deed_of", "done_once", "shaped"]

_SETTING: Final = "tool(idempotent_by=)"


class Outcome(NamedTuple):
    """What is known of a deed. Every field is plain text or bytes, for a database."""

    digest: str
    """Of the arguments."""
    state: Literal["begun", "done", "unknown"]
    result: bytes | None = None
    """The encoded result of what is done; None where there was no room to keep it."""


class Outcomes(Protocol):
    """Remembers what became of deeds. Shared by all processes that serve the same callers.

    What any of these methods raises is the call's failure before its handler runs; after it, it is logged, and the deed
    stays begun.
    """

    async def begin(self, deed: str, account: str, digest: str) -> Outcome | None:
        """Keep that a deed has begun, unless something is known of it. One step for all who ask at once.

        Args:
            deed: its name: 64 hexadecimal digits.
            account: whose it is, for a bound on how many one account has.
            digest: of its arguments, for the `Outcome`.

        Returns:
            What is known; None where it is the caller's to do.

        Raises:
            TooManyRequests: there is no room. What is still good is not forgotten to make some.
        """
        ...

    async def finish(self, deed: str, outcome: Outcome) -> None:
        """Keep how a deed ended, in the place of what was known."""
        ...

    async def forget(self, deed: str) -> None:
        """It was not done."""
        ...


class MemoryOutcomes:
    """`Outcomes` in the memory of one process.

    Args:
        ttl: seconds from the beginning of a deed until it is forgotten. More than any of its tools takes.
        most, most_each: deeds at once, in all and of one account. When there are as many, no new one is begun.
        most_bytes, most_bytes_each: bytes of their results. What does not fit is done, and its result is not kept.
        clock: gives seconds that never go back.

    Raises:
        ConfigurationError: a number is not above 0.
    """

    __slots__ = ("_shelf",)

    def __init__(
        self,
        *,
        ttl: float = 86_400.0,
        most: int = 10_000,
        most_each: int = 1_000,
        most_bytes: int = 64 * 1024 * 1024,
        most_bytes_each: int = 8 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf: Shelf[Outcome] = Shelf(
            "MemoryOutcomes",
            clock,
            ttl=ttl,
            most=most,
            most_each=most_each,
            most_bytes=most_bytes,
            most_bytes_each=most_bytes_each,
        )

    def __len__(self) -> int:
        """How many deeds are remembered."""
        return len(self._shelf)

    async def begin(self, deed: str, account: str, digest: str) -> Outcome | None:
        """See `Outcomes`."""
        try:
            return self._shelf.add(account, deed, Outcome(digest, "begun"))
        except Full as exc:
            raise RateLimited(exc.seconds, f"MemoryOutcomes.{exc.bound}") from None

    async def finish(self, deed: str, outcome: Outcome) -> None:
        """See `Outcomes`."""
        passed = self._shelf.change(deed, outcome, len(outcome.result or b""))
        if passed is not None:
            self._shelf.change(deed, outcome._replace(result=None), 0)
            events.record(
                "limit.reached", "no room to keep a result", setting=f"MemoryOutcomes.{passed}", decision="failed"
            )

    async def forget(self, deed: str) -> None:
        """See `Outcomes`."""
        self._shelf.take(deed)


class Deed(NamedTuple):
    """One deed, as it is remembered."""

    name: str
    digest: str


def deed_of(tool: ToolEntry, call: Call) -> Deed | None:
    """The deed that a call asks for; None where it has no key.

    Raises:
        InvalidArguments: the key is an empty text.
    """
    by = tool.policy.idempotent_by
    arguments = cast("dict[str, object]", call.params.get("arguments") or {})
    key = None if by is None else arguments.get(by)
    if key is None:
        return None
    if key == "":
        raise InvalidArguments(tool.name, (f"{by}: must not be empty",))
    name = _digest([call.server, call.principal.account, tool.name, key])
    return Deed(name, _digest([name, arguments]))


async def done_once(
    outcomes: Outcomes, deed: Deed, call: Call, do: Callable[[], Awaitable[bytes | None]]
) -> bytes | None:
    """The result of a deed, which is done unless it was done before.

    Args:
        outcomes: remembers deeds.
        deed: which one.
        call: that asks for it.
        do: gives its result in the newest revision's shape; None where its handler asked something and will run again.

    Raises:
        IdempotencyConflict: the key stands for another call, or for one of which there is no result.
        TooManyRequests: there is no room to remember it.
    """
    known = await outcomes.begin(deed.name, call.principal.account, deed.digest)
    if known is not None:
        return _again(known, deed, call)
    try:
        result = await do()
    except GeneratorExit:  # no loop is left to wait on
        raise
    except BaseException:
        await _settle(outcomes, deed, Outcome(deed.digest, "unknown") if call.began else None)
        raise
    await _settle(outcomes, deed, None if result is None else Outcome(deed.digest, "done", result))
    return result


def shaped(result: bytes, revision: Revision) -> bytes:
    """A tool's result that was kept, in the shape of a revision."""
    if revision.modern:
        return result
    return encode(revision.result("tools/call", cast("dict[str, object]", msgspec.json.decode(result))))


def _again(known: Outcome, deed: Deed, call: Call) -> bytes:
    """The result of a deed that was done before."""
    if known.digest != deed.digest:
        raise _conflict("This key stands for a call with other arguments; what is another deed needs a new key")
    if known.state == "begun":
        error = _conflict("The call of this key is under way, or was cut off")
        error.retry_after = 1
        raise error
    if known.state == "unknown":
        raise _conflict("It is not known what the call of this key did; look before doing it again with a new key")
    if known.result is None:
        raise _conflict("The call of this key was done; its result was not kept")
    if events.heard():
        events.emit(about(call)._replace(name="call.repeated", decision="noted", setting=_SETTING, time=time.time()))
    return known.result


def _conflict(text: str) -> IdempotencyConflict:
    error = IdempotencyConflict(text)
    error.hint = _SETTING
    return error


async def _settle(outcomes: Outcomes, deed: Deed, outcome: Outcome | None) -> None:
    """Keep how it ended, or that it was not done."""
    try:
        if outcome is None:
            await outcomes.forget(deed.name)
        else:
            await outcomes.finish(deed.name, outcome)
    except Exception:  # noqa: BLE001 - a store may raise anything; what is done is answered, and its key stays taken
        log.exception("the outcome of a call with an idempotency key could not be kept")


def _digest(value: object) -> str:
    from hashlib import sha256

    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
