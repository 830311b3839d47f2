"""What every sink of the audit log does, and the one error of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import GarrisonError

if TYPE_CHECKING:
    from ..events import Event

__all__ = ["AuditFailed", "Sink"]


class AuditFailed(GarrisonError):
    """An event is not on record. The message names the sink and what the system says, and nothing of the event."""


class Sink(Protocol):
    """Takes events. Its methods may be called from any thread."""

    def write(self, event: Event) -> None:
        """Record an event. When this returns, the sink has it: a crash of this process does not lose it.

        Raises:
            AuditFailed: it could not be recorded. The next call tries again.
        """
        ...

    def sync(self) -> None:
        """Make durable what was written: when this returns, a crash of the machine does not lose it.

        Raises:
            AuditFailed: the sink cannot promise it.
        """
        ...

    def close(self) -> None:
        """End it. Nothing is written after this; a second call does nothing."""
        ...
