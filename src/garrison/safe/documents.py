"""The error of a document that is not read, for every format."""

from __future__ import annotations

from .. import events
from ..errors import ConfigurationError, ToolError

__all__ = ["DocumentRefused", "hold_positive", "refused"]


class DocumentRefused(ToolError):
    """The document is not read. The message says which rule it breaks, and repeats nothing of it."""


def refused(rule: str, setting: str = "") -> DocumentRefused:
    """The error for a document, after its security event."""
    events.record("document.refused", rule, setting=setting)
    return DocumentRefused(f"The document was refused: {rule}" + (f" ({setting})" if setting else ""))


def hold_positive(function: str, **caps: int) -> None:
    """Every cap is a positive integer. Raises `ConfigurationError`."""
    for name, value in caps.items():
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{function}: {name} must be a positive integer")
