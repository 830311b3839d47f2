"""How this room says no: with the setting that would change it, and of a peer's words only what cannot harm a reader.

Rules of this file:
- A peer's text becomes printable ASCII on one line, short, and without anything that a terminal or a chat makes a link.
"""

from __future__ import annotations

import re
from typing import Final

from ... import events
from ...errors import AuthorizationFailed

__all__ = ["MAX_WORDS", "cleaned", "error_code", "refused"]

MAX_WORDS: Final = 200
"""Characters of a peer's text that are shown."""

_LINK: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]{0,31}:/|www\.|mailto:)\S*", re.IGNORECASE)
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]+")
_CODE: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def cleaned(text: str) -> str:
    """A peer's words, fit to be shown: printable ASCII, no links, at most `MAX_WORDS` characters."""
    plain = _NOT_PRINTABLE.sub(" ", text[: 4 * MAX_WORDS])
    plain = " ".join(_LINK.sub("(address left out)", plain).split())
    return plain if len(plain) <= MAX_WORDS else plain[: MAX_WORDS - 3] + "..."


def error_code(text: str) -> str | None:
    """An OAuth error code as it was written, or None where the text is none (RFC 6749 section 5.2)."""
    return text if _CODE.fullmatch(text) else None


def refused(text: str, *, setting: str = "", error: str | None = None) -> AuthorizationFailed:
    """The error for an attempt that a check ends. It is recorded as a security event.

    Args:
        text: what was refused and what to do, in our words.
        setting: what would change it.
        error: the OAuth error code, where an authorization server named one.
    """
    events.record("oauth.refused", text, setting=setting)
    return AuthorizationFailed(f"{text} ({setting})" if setting else text, error=error)
