"""What a tool can do to the flow of information: `Label`.

Rules of this file:
- Labels are given by whoever runs the host. What a server says of its own tools (`annotations`) lowers nothing.
- A tool without labels is taken to have all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag
from typing import Final

from ..errors import ConfigurationError

__all__ = ["EVERYTHING", "NOTHING", "Label", "labels_of"]


class Label(Flag):
    """What a tool reads, and where what it is given can end."""

    PRIVATE = 1
    """Its results hold what is not meant for everybody: files, mails, rows of a database."""
    UNTRUSTED = 2
    """Its results hold what strangers wrote: pages, mails, issues."""
    OUTWARD = 4
    """What it is given can leave this machine, or reach somebody else: requests, mails, posts."""
    DESTRUCTIVE = 8
    """It changes or deletes what cannot be had back."""


NOTHING: Final = Label(0)
EVERYTHING: Final = Label.PRIVATE | Label.UNTRUSTED | Label.OUTWARD | Label.DESTRUCTIVE
_NAMES: Final = {label.name.lower(): label for label in Label if label.name is not None}


def labels_of(names: Iterable[str]) -> Label:
    """Labels by their names in a configuration: `private`, `untrusted`, `outward`, `destructive`; none is none.

    Raises:
        ConfigurationError: a name is none of them.
    """
    found = NOTHING
    for name in names:
        if name not in _NAMES:
            raise ConfigurationError(f"{name!r} is no label: {', '.join(_NAMES)}")
        found |= _NAMES[name]
    return found
