"""Security events: what was refused, relaxed or limited, each under a stable name.

Rules of this file:
- One function, one logger (`garrison.security`), one line each. What a peer sent stands in it as printable ASCII.
- The record carries `event`, `peer` and `setting` as attributes, for programs.
- Identical events in a flood are counted instead of written: `_MOST` a second of each name, then one line that says how
  many there were.

Names: `host.refused`, `origin.refused`, `auth.refused`, `auth.token_refused`, `auth.forbidden`, `auth.unavailable`,
`auth.credential_ended`, `access.denied`, `access.insufficient_scope`, `access.policy_failed`, `access.undeclared`,
`oauth.refused`, `oauth.issuer_changed`, `credentials.refused`, `http.bad_request`, `http.refused`, `limit.reached`,
`message.malformed`, `message.invalid`, `message.too_large`, `header.mismatch`, `arguments.invalid`, `resource.denied`,
`policy.relaxed`, `peer.refused`, `tls.failed`, `tls.reloaded`, `fetch.refused`.
"""

from __future__ import annotations

import time
from typing import Final

__all__ = ["record"]

_MOST: Final = 20
_WIDTH: Final = 300

_seen: dict[str, list[float]] = {}


def record(event: str, text: str, *, peer: str = "", setting: str = "") -> None:
    """Write one security event.

    Args:
        event: its name.
        text: what happened, in words; a peer's text in it is made safe here.
        peer: who caused it, where known.
        setting: the setting that would change it.
    """
    now = time.monotonic()
    window = _seen.setdefault(event, [now, 0.0])
    if now - window[0] >= 1.0:
        unwritten, window[0], window[1] = window[1] - _MOST, now, 0.0
        if unwritten > 0:
            _write(event, f"{int(unwritten)} more of these in the last second", "", "")
    window[1] += 1
    if window[1] <= _MOST:
        _write(event, text, peer, setting)


def _write(event: str, text: str, peer: str, setting: str) -> None:
    import logging  # lazy: a server on stdio that refuses nothing does not load it

    line = _safe(f"{event}: {text}" + (f" ({setting})" if setting else "") + (f" from {peer}" if peer else ""))
    logging.getLogger("garrison.security").warning(line, extra={"event": event, "peer": peer, "setting": setting})


def _safe(text: str) -> str:
    short = text if len(text) <= _WIDTH else text[:_WIDTH] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in short)
