"""A sink of a server's audit that keeps what it is told, and can be down."""

from __future__ import annotations

from garrison.audit.record import Recorder, encode
from garrison.events import Event

__all__ = ["CALLS", "Kept"]

CALLS = frozenset({"call.begun", "call.ended"})
"""Records of what was served."""
_recorder = Recorder(bytes(32))


class Kept:
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = False
        self.closed = 0

    def write(self, event: Event) -> None:
        """Keep it, or fail as a full disk does."""
        if self.down:
            raise OSError(28, "No space left on device")
        self.events.append(event)

    def sync(self) -> None:
        """Nothing is kept anywhere else."""
        if self.down:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Remember it."""
        self.closed += 1

    @property
    def refusals(self) -> list[Event]:
        """What is no call that was served."""
        return [event for event in self.events if event.name not in CALLS]

    @property
    def calls(self) -> list[Event]:
        """Calls that ended."""
        return [event for event in self.events if event.name == "call.ended"]

    def lines(self) -> list[bytes]:
        """What an audit log writes of each."""
        return [encode(_recorder.record(event)) for event in self.events]
