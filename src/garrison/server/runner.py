"""Calls and their answers: the answer now where nothing waits, else when it is there.

Rules of this file:
- A call that needs no waiting costs no task and no timer, and needs no event loop.
- One that needs a loop before there is one waits for it: `wants_loop` tells the transport to start one.
- Who comes over a network may call as often as `SecurityPolicy.rates` says, which is asked before anything else.
- A principal has at most `Limits.in_flight_per_principal` calls that wait, on all connections together. One more is
  refused before its handler runs. Subscriptions have a limit of their own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import TooManyRequests
from ..protocol.envelope import encode_result
from .disclosure import about, disclose, encode_failure
from .recording import Recorder

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..errors import McpError
    from ..gate.admission import Admission
    from .call import Call
    from .desk import Desk
    from .outgoing import Outgoing
    from .running import Deliver, Running

__all__ = ["Runner"]

_LISTEN: Final = "subscriptions/listen"
_COMPLETE: Final = "completion/complete"


class Runner:
    """Takes calls to the desk and their answers back.

    Args:
        name: of the server.
        desk: has them done.
        admission: how often who may call.
        looks: looks at the texts that are sent on the way to a result.
        most: `Limits.in_flight_per_principal`.
    """

    def __init__(self, name: str, desk: Desk, admission: Admission, looks: Outgoing, most: int) -> None:
        self.name = name
        self._desk = desk
        self._admission = admission
        self._has_budget = admission.has_budget
        self._looks = looks
        self._most = most
        self._under_way: dict[str | None, int] = {}
        """Principal -> how many of its calls wait; who has none is not there."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[Running, Callable[[], None] | None]] = []
        self._running: set[Running] = set()
        self._spending: set[asyncio.Task[None]] = set()
        """What is being told to the store of rates."""
        self._make: type[Running] | None = None

    @property
    def wants_loop(self) -> bool:
        """True if a call waits for an event loop."""
        return bool(self._waiting)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tie the runner to a running loop, and start what waited for it."""
        self._loop = loop
        waiting, self._waiting = self._waiting, []
        for running, on_end in waiting:
            taken_back = running.ended
            token = events.cause.set(partial(about, running.call))
            self._start(loop, running, on_end)
            events.cause.reset(token)
            if running.ended and not taken_back and on_end is not None:
                on_end()

    def begin(self, call: Call, deliver: Deliver, on_end: Callable[[], None] | None = None) -> Running | None:
        """Have a call done.

        Args:
            call: the request.
            deliver: called once with HTTP status, encoded response and the error if it is one, now or later; never if
                the call is cancelled.
            on_end: called when a call that was not done at once is over, answered or not.

        Returns:
            The running call, or None if it is done.
        """
        call.server, call.looks = self.name, self._looks
        token = None
        if events.heard():
            recorder = Recorder(call, deliver, on_end)
            deliver, on_end = recorder.deliver, recorder.ended
            token = events.cause.set(partial(about, call))
        try:
            return self._begin(call, deliver, on_end)
        finally:
            if token is not None:
                events.cause.reset(token)

    def _begin(self, call: Call, deliver: Deliver, on_end: Callable[[], None] | None) -> Running | None:
        address, admission = call.address, self._admission
        if self._has_budget and address:
            deliver = self._charging(call, deliver)
        try:
            if not address or call.principal.owner:
                outcome = self._desk.dispatch(call)
            elif admission.shared is not None:
                outcome = self._admitted(call)
            else:
                admission.take(call.principal, address, completion=call.method == _COMPLETE)
                outcome = self._desk.dispatch(call)
            if isinstance(outcome, bytes):
                deliver(200, encode_result(call.id, outcome))
                return None
        except BaseException as exc:  # noqa: BLE001 - nothing a handler does may end the loop that serves the others
            error = disclose(exc, call.method, call)
            deliver(error.http_status, encode_failure(call.id, error, call.revision), error)
            return None
        if self._make is None:
            from .running import Running

            self._make = Running
        running = call.running = self._make(call, deliver, outcome)
        if self._loop is None:
            self._waiting.append((running, on_end))
            return running
        self._start(self._loop, running, on_end)
        return None if running.ended else running

    def _charging(self, call: Call, deliver: Deliver) -> Deliver:
        """Charges the bytes of the answer to who gets it."""

        def charge(status: int, body: bytes, error: McpError | None = None) -> None:
            if self._admission.shared is not None and self._loop is not None:
                spent = self._loop.create_task(self._admission.spend_shared(call.principal, call.address, len(body)))
                self._spending.add(spent)
                spent.add_done_callback(self._spending.discard)
            else:
                self._admission.spend(call.principal, call.address, len(body))
            deliver(status, body, error)

        return charge

    async def _admitted(self, call: Call) -> bytes:
        """The result of a call of which several processes keep count."""
        await self._admission.take_shared(call.principal, call.address, completion=call.method == _COMPLETE)
        outcome = self._desk.dispatch(call)
        return outcome if isinstance(outcome, bytes) else await outcome

    def _start(self, loop: asyncio.AbstractEventLoop, running: Running, on_end: Callable[[], None] | None) -> None:
        under_way = self._under_way
        if under_way and not running.ended and under_way.get(_who(running), 0) >= self._most:
            running.refuse(TooManyRequests("Limits.in_flight_per_principal"))
            return

        def ended() -> None:
            if running in self._running:
                self._running.remove(running)
                self._count(running, -1)
            if on_end is not None:
                on_end()

        running.start(loop, ended)
        if not running.ended:
            self._running.add(running)
            self._count(running, 1)

    def _count(self, running: Running, more: int) -> None:
        who = _who(running)
        if who is not None:
            count = self._under_way.get(who, 0) + more
            if count:
                self._under_way[who] = count
            else:
                del self._under_way[who]

    async def close(self, grace: float) -> None:
        """Give what runs `grace` seconds to end, then cancel it."""
        import asyncio

        if self._spending:
            await asyncio.wait(self._spending, timeout=grace)
        tasks = [running.task for running in self._running if running.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for running in tuple(self._running):
            running.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)


def _who(running: Running) -> str | None:
    """On whose account a call is; None for a subscription, which is on nobody's."""
    return None if running.call.method == _LISTEN else running.call.principal.account
