"""The server's side of a connection on which both sides speak at any time, as whatever carries its bytes sees it.

Rules of this file:
- Types only: nothing here is loaded by a running server.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Conversation"]


class Conversation(Protocol):
    """The server's side of a connection, as the shell sees it."""

    @property
    def wants_loop(self) -> bool:
        """True if something waits for an event loop."""
        ...

    @property
    def saturated(self) -> bool:
        """True while nothing more should be read."""
        ...

    @property
    def busy(self) -> bool:
        """True while requests or subscriptions are under way."""
        ...

    def receive(self, data: bytes) -> None:
        """Take one message."""
        ...

    def too_long(self) -> None:
        """A message was too long and is gone."""
        ...

    def relieved(self) -> None:
        """The client has taken all that waited."""
        ...

    async def finish(self, grace: float) -> None:
        """Let what runs end, for at most `grace` seconds."""
        ...

    def close(self) -> None:
        """The client is gone."""
        ...
