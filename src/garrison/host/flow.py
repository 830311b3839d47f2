"""What one conversation has read, and what that makes dangerous: `Flow`.

    flow.note("mail.search", Label.PRIVATE | Label.UNTRUSTED)      # a result was given to the model
    flow.reasons(Label.OUTWARD)                                     # why the next call has to be asked about

Rules of this file:
- A model does what it reads. What strangers wrote may stand behind any call that follows it, and what is private may
  stand in the arguments of any call that follows it: no matter which server, which tool, and how long ago.
- Nothing is guessed from texts: labels decide, and those of the host's owner alone.
- It only ever grows, until `forget`.
"""

from __future__ import annotations

from typing import Final, final

from .labels import Label

__all__ = ["Flow"]

_MOST: Final = 256
"""Sources that are remembered by name; what labels there were is never forgotten."""
_NAMED: Final = 8
"""Sources that one reason names."""
_READ: Final = Label.PRIVATE | Label.UNTRUSTED


@final
class Flow:
    """What a model has been given since the conversation began."""

    __slots__ = ("_seen", "_sources")

    def __init__(self) -> None:
        self._seen = Label(0)
        self._sources: dict[str, Label] = {}

    def note(self, source: str, labels: Label) -> None:
        """Remember that a result was given to the model.

        Args:
            source: the tool, `alias.tool`, or whatever a person would call it.
            labels: the tool's; `EVERYTHING` where nobody said.
        """
        read = labels & _READ
        self._seen |= read
        if not read:
            return
        if source in self._sources or len(self._sources) < _MOST:
            self._sources[source] = self._sources.get(source, Label(0)) | read

    def forget(self) -> None:
        """Begin anew: what the model has read before is not in its context any more."""
        self._seen = Label(0)
        self._sources.clear()

    def sources(self) -> tuple[str, ...]:
        """Where what is private or untrusted came from, in order: `mail.search (private, untrusted)`."""
        return tuple(
            f"{source} ({', '.join(label.name.lower() for label in labels if label.name)})"
            for source, labels in self._sources.items()
        )

    def reasons(self, labels: Label) -> tuple[str, ...]:
        """Why a call is dangerous after what was read, in words for a person; empty where it is not.

        Args:
            labels: of the tool that would be called.
        """
        if not self._seen:
            return ()
        strangers, private = Label.UNTRUSTED in self._seen, Label.PRIVATE in self._seen
        found: list[str] = []
        if Label.OUTWARD in labels and strangers and (private or Label.PRIVATE in labels):
            read = self._named(Label.PRIVATE) or "what it reads itself"
            found.append(
                "private data, words of strangers and a way out come together, which is how data is stolen: the model "
                f"has read what strangers wrote ({self._named(Label.UNTRUSTED)}), and this call can send private data "
                f"({read}) to somebody else"
            )
        elif Label.OUTWARD in labels and private:
            found.append(
                f"the model has read private data ({self._named(Label.PRIVATE)}), and this call can send it to "
                "somebody else"
            )
        if Label.DESTRUCTIVE in labels and strangers:
            found.append(
                f"the model has read what strangers wrote ({self._named(Label.UNTRUSTED)}), who may be behind this "
                "call, and it can change or delete what cannot be had back"
            )
        return tuple(found)

    def _named(self, label: Label) -> str:
        names = [source for source, labels in self._sources.items() if label in labels]
        if not names and label in self._seen:
            return "by a source that came too late to be kept"
        more = len(names) - _NAMED
        return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
