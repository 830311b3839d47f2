"""Security events: what was refused, relaxed or limited, and which calls were served, each under a stable name.

Rules of this file:
- Whoever listens (an audit log, metrics) is told every event, whole. The logger `garrison.security` is told of what is
  neither a call nor allowed, in one line of printable ASCII, with `event`, `peer` and `setting` as attributes for
  programs.
- Identical events in a flood are counted instead of logged: `_MOST` a second of each name, then one line that says how
  many there were.
- What is refused within a request is about that request, whoever refuses it: `cause` says which one it is, or which
  server it is about.
- A listener that fails harms nobody: it is logged, and the others are told.

Names: `host.refused`, `origin.refused`, `auth.refused`, `auth.token_refused`, `auth.forbidden`, `auth.unavailable`,
`auth.credential_ended`, `access.denied`, `access.insufficient_scope`, `access.policy_failed`, `access.undeclared`,
`oauth.refused`, `oauth.issuer_changed`, `credentials.refused`, `http.bad_request`, `http.refused`, `limit.reached`,
`limit.store_unavailable`, `message.malformed`, `message.invalid`, `message.too_large`, `header.mismatch`,
`arguments.invalid`, `resource.denied`, `policy.relaxed`, `peer.refused`, `tls.failed`, `tls.reloaded`, `call.begun`,
`call.ended`, `call.refused`, `call.unconfirmed`, `call.conflict`, `call.repeated`, `link.refused`, `output.refused`,
`audit.unavailable`, `audit.failed`, `path.refused`, `sql.refused`, `command.refused`, `command.ended`, `fetch.refused`,
`url.refused`, `template.refused`, `archive.refused`, `document.refused`, `approval.granted`, `approval.denied`,
`launch.refused`, `launch.limited`, `server.restarted`, `pin.approved`, `pin.changed`, `name.refused`,
`definition.flagged`, `flow.held`, `elicitation.refused`, `sampling.refused`, `roots.refused`, `config.untrusted`,
`response.refused`.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Event", "cause", "emit", "heard", "listen", "record"]

_MOST: Final = 20
_WIDTH: Final = 300
_NOTED: Final = frozenset({"policy.relaxed", "tls.reloaded", "server.restarted"})
_FAILED: Final = frozenset(
    {"limit.store_unavailable", "audit.failed", "auth.unavailable", "access.policy_failed", "tls.failed"}
)

_seen: dict[str, list[float]] = {}
_listeners: tuple[Callable[[Event], None], ...] = ()


class Event(NamedTuple):
    """What happened. Texts may hold a peer's words: whoever writes them down makes them safe."""

    name: str
    text: str = ""
    decision: str = ""
    """`allowed`, `refused`, `failed` or `noted`."""
    outcome: str = ""
    """Of a call that ended: `ok`, `error` or `cancelled`."""
    server: str = ""
    """The server's name, where it is known."""
    principal: str = ""
    """`Principal.key` of who asked."""
    tenant: str = ""
    peer: str = ""
    """The address of who caused it."""
    method: str = ""
    target: str = ""
    """The tool's or prompt's name, or the resource's URI."""
    request: str = ""
    """The JSON-RPC id."""
    arguments: object = None
    """Decoded JSON, for a digest."""
    error: str = ""
    """The error's class or its id in the log."""
    setting: str = ""
    """The setting that would change it."""
    duration: float = 0.0
    """Seconds."""
    time: float = 0.0
    """In seconds of `time.time`."""


cause: ContextVar[Callable[[], Event] | None] = ContextVar("garrison.events.cause", default=None)
"""Gives the request on whose behalf code runs; set while somebody listens. Tasks and worker threads of the request know
it too."""


def listen(listener: Callable[[Event], None]) -> Callable[[], None]:
    """Have every event of this process told to a function, at once and on the thread where it happens.

    Returns:
        What ends it.
    """
    global _listeners
    _listeners = (*_listeners, listener)

    def stop() -> None:
        global _listeners
        _listeners = tuple(each for each in _listeners if each is not listener)

    return stop


def heard() -> bool:
    """Whether anybody listens."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Tell whoever listens."""
    for listener in _listeners:
        try:
            listener(event)
        except Exception as exc:  # noqa: BLE001 - a listener is somebody's code, and what it watches goes on without it
            _count("audit.failed", f"a listener failed: {type(exc).__name__}", "", "")


def record(
    event: str, text: str, *, peer: str = "", setting: str = "", decision: str = "", about: Event | None = None
) -> None:
    """Tell of one security event.

    Args:
        event: its name.
        text: what happened, in words; a peer's text in it is made safe where it is written.
        peer: who caused it, where known.
        setting: the setting that would change it.
        decision: `refused` when not given, but for what is a failure or a notice by its name.
        about: the request that it is about; that of `cause` when not given.
    """
    if _listeners:
        if (about is None or not about.server) and (request := cause.get()) is not None:
            whose = request()
            about = whose if about is None else about._replace(server=whose.server)
        how = decision or ("noted" if event in _NOTED else "failed" if event in _FAILED else "refused")
        whole = Event(event) if about is None else about._replace(name=event)
        emit(
            whole._replace(
                text=text, decision=how, peer=peer or whole.peer, setting=setting, time=whole.time or time.time()
            )
        )
    if decision != "allowed":
        _count(event, text, peer, setting)


def _count(event: str, text: str, peer: str, setting: str) -> None:
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
