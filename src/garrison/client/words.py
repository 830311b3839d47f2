"""A server's words where a person reads them: in exceptions, in the log, in events.

Rules of this file:
- What a server wrote is shown with hidden characters written out, on one line, and short. Data stays as it came.
- A response that is refused is one event, `response.refused`, whoever refuses it.
"""

from __future__ import annotations

from typing import Final

from .. import events
from ..errors import ProtocolViolation, RemoteError

__all__ = ["refused", "remote_error", "said", "said_lines"]

_MOST: Final = 300
_MOST_OF_TOOL: Final = 4_000
_LINE_FEED: Final = "\u240a"


def said(text: object, most: int = _MOST) -> str:
    """A server's words on one line: hidden characters and line ends are written out, and `most` characters are left."""
    lines = said_lines(text if isinstance(text, str) else str(text), most)
    return lines if "\n" not in lines else lines.replace("\r\n", _LINE_FEED).replace("\n", _LINE_FEED)


def said_lines(text: str, most: int = _MOST_OF_TOOL) -> str:
    """The same with its lines as they are."""
    from ..gate.hygiene import visible  # lazy: only what goes wrong needs it

    if len(text) <= most:
        return visible(text)
    return f"{visible(text[:most])}... [{len(text) - most} more characters]"


def refused(
    text: str, *, method: str = "", setting: str = "", kind: type[ProtocolViolation] = ProtocolViolation
) -> ProtocolViolation:
    """The error for a response that is not passed on. It is recorded as a security event.

    Args:
        text: what was refused, in our words; a server's words in it are `said`.
        method: of the request.
        setting: what would change it.
        kind: the class of the error.
    """
    events.record("response.refused", text, setting=setting, about=events.Event("response.refused", method=method))
    return kind(f"{text} ({setting})" if setting else text)


def remote_error(code: int, message: str, data: object) -> RemoteError:
    """A server's error: `code`, `message` and `data` as they came, and a text that can be shown."""
    error = RemoteError(code, message, data)
    error.args = (f"{said(message)} ({code})",)
    return error
