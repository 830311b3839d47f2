"""Which calls were served, told to whoever listens for security events; and the audit of a server.

Rules of this file:
- A call whose handler began is told once, when it is over: `call.ended`, with how it ended and how long it took. One
  that was refused before is told once by its refusal; `call.refused` where the refusal has no name of its own.
- A call that destroys something is on record, durably, before it is done: `call.begun`. Where it cannot be recorded it
  is not done. Other calls go on, and the failure is logged.
- What follows a call on its connection is not about the call: its answer is passed on with no `cause`, which the next
  request would otherwise begin with, and keep.
- A record that names another server of this process is not this server's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .. import events
from ..errors import AuditUnavailable
from .disclosure import about, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..audit.contract import Sink
    from ..errors import McpError
    from .call import Call
    from .running import Deliver

__all__ = ["Audit", "Recorder", "open_sink"]

_QUIET: Final = 10.0
"""Seconds between two lines in the log about a sink that is down."""


def open_sink(sink: Sink | None, part: str = "") -> None:
    """Open a sink that opens something, to fail before anything is served.

    Args:
        sink: the sink; None is none.
        part: which of several processes this is.
    """
    opening = getattr(sink, "open", None)
    if opening is not None:
        opening(part)


class Audit:
    """The audit of one server: tells its sink what happens in it.

    Args:
        name: of the server.
        sink: keeps the records.

    Raises:
        AuditFailed: it cannot, and says so before anything is served.
    """

    def __init__(self, name: str, sink: Sink) -> None:
        open_sink(sink)
        self._name = name
        self._sink = sink
        self._stop: Callable[[], None] | None = events.listen(self._hear)
        self._silent_until = 0.0

    def _hear(self, event: events.Event) -> None:
        if event.server and event.server != self._name:
            return
        try:
            self._sink.write(event)
        except Exception:  # noqa: BLE001 - a sink may be anybody's; calls that need no record go on
            now = time.monotonic()
            if now >= self._silent_until:
                self._silent_until = now + _QUIET
                log.exception("audit of %r: a record could not be written", self._name)

    def require(self, call: Call) -> None:
        """Have it on record that a call is about to be done.

        Raises:
            AuditUnavailable: it cannot be.
        """
        event = about(call)._replace(name="call.begun", decision="allowed", time=time.time())
        try:
            self._sink.write(event)
            self._sink.sync()
        except Exception as exc:  # whatever the sink says, it is not on record
            raise AuditUnavailable from exc

    def close(self) -> None:
        """Tell the sink no more, and let what it has be durable."""
        if self._stop is not None:
            self._stop()
            self._stop = None
            try:
                self._sink.sync()
            except Exception:  # noqa: BLE001 - it was told as far as it could be
                log.exception("audit of %r: its end could not be made durable", self._name)


class Recorder:
    """Follows one call to its end."""

    __slots__ = ("_call", "_deliver", "_on_end", "_started", "_told")

    def __init__(self, call: Call, deliver: Deliver, on_end: Callable[[], None] | None) -> None:
        self._call = call
        self._deliver = deliver
        self._on_end = on_end
        self._started = time.perf_counter()
        self._told = False

    def deliver(self, status: int, body: bytes, error: McpError | None = None) -> None:
        """Tell how the call ended, then pass its answer on: what was answered is on record."""
        call = self._call
        failed = call.failed or ("" if error is None else type(error).__name__)
        self._tell("error" if failed else "ok", failed)
        token = events.cause.set(None)
        try:
            self._deliver(status, body, error)
        finally:
            events.cause.reset(token)

    def ended(self) -> None:
        """The call is over, answered or taken back."""
        self._tell("cancelled", "")
        if self._on_end is not None:
            token = events.cause.set(None)
            try:
                self._on_end()
            finally:
                events.cause.reset(token)

    def _tell(self, outcome: str, failed: str) -> None:
        call = self._call
        if self._told:
            return
        self._told = True
        if call.began:
            name, decision = "call.ended", "allowed"
        elif failed and call.told is None:
            name, decision, outcome = "call.refused", "refused", ""
        else:
            return  # its refusal was told, or it is a listing
        events.emit(
            about(call)._replace(
                name=name,
                decision=decision,
                outcome=outcome,
                error=failed,
                duration=time.perf_counter() - self._started,
                time=time.time(),
            )
        )
