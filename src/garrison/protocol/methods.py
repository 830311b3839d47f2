"""Who may say what: one table of methods per revision.

Rules of this file:
- A method that is not in a table does not exist in that revision; the tasks of 2025-11-25 are not spoken here.
- A capability is written as in the capability objects, with a dot between levels; `None` means that none is needed.
- The tables are data. What a message becomes in another revision stands in `revisions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

__all__ = ["V2024_11_05", "V2025_03_26", "V2025_06_18", "V2025_11_25", "V2026_07_28", "Methods"]


class Methods(msgspec.Struct, frozen=True, kw_only=True):
    """The methods of one revision."""

    client_requests: Mapping[str, str | None]
    """What a client may ask, with the server capability that it belongs to."""
    client_notifications: frozenset[str]
    """What a client may tell."""
    server_requests: Mapping[str, str | None]
    """What a server may ask in a request of its own, with the client capability that it needs."""
    input_requests: Mapping[str, str | None]
    """What a server may ask inside an `input_required` result, with the client capability that it needs."""
    server_notifications: Mapping[str, str | None]
    """What a server may tell, with the server capability that it belongs to."""
    names: Mapping[str, str]
    """The member of `params` that the HTTP header `Mcp-Name` repeats. Spec: 2026-07-28 streamable-http."""
    cacheable: frozenset[str]
    """Requests whose result carries `ttlMs` and `cacheScope`."""
    input_required: frozenset[str]
    """Requests that may be answered with `input_required`."""


def _table(*parts: Mapping[str, str | None]) -> Mapping[str, str | None]:
    whole: dict[str, str | None] = {}
    for part in parts:
        whole.update(part)
    return MappingProxyType(whole)


_FEATURES: Mapping[str, str | None] = {
    "tools/list": "tools",
    "tools/call": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "completion/complete": "completions",
}
_HANDSHAKE: Mapping[str, str | None] = {
    "initialize": None,
    "ping": None,
    "logging/setLevel": "logging",
    "resources/subscribe": "resources.subscribe",
    "resources/unsubscribe": "resources.subscribe",
}
_STATELESS: Mapping[str, str | None] = {
    "server/discover": None,
    # What each filter member needs is for the filter to say; the acknowledgement names what is granted.
    "subscriptions/listen": None,
}
_NEWS: Mapping[str, str | None] = {
    "notifications/cancelled": None,
    "notifications/progress": None,
    "notifications/message": "logging",
    "notifications/resources/updated": "resources.subscribe",
    "notifications/resources/list_changed": "resources",
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
}
_QUESTIONS: Mapping[str, str | None] = {"sampling/createMessage": "sampling", "roots/list": "roots"}
_ELICITATION: Mapping[str, str | None] = {"elicitation/create": "elicitation"}
_NOTHING: Mapping[str, str | None] = MappingProxyType({})
_NO_NAMES: Mapping[str, str] = MappingProxyType({})

_LEGACY_NOTIFICATIONS = frozenset(
    {
        "notifications/cancelled",
        "notifications/progress",
        "notifications/initialized",
        "notifications/roots/list_changed",
    }
)


def _legacy(server_requests: Mapping[str, str | None], server_notifications: Mapping[str, str | None]) -> Methods:
    return Methods(
        client_requests=_table(_HANDSHAKE, _FEATURES),
        client_notifications=_LEGACY_NOTIFICATIONS,
        server_requests=server_requests,
        input_requests=_NOTHING,
        server_notifications=server_notifications,
        names=_NO_NAMES,
        cacheable=frozenset(),
        input_required=frozenset(),
    )


_PING: Mapping[str, str | None] = {"ping": None}

V2024_11_05 = _legacy(_table(_PING, _QUESTIONS), _table(_NEWS))
V2025_03_26 = V2024_11_05
V2025_06_18 = _legacy(_table(_PING, _QUESTIONS, _ELICITATION), _table(_NEWS))
V2025_11_25 = _legacy(
    _table(_PING, _QUESTIONS, _ELICITATION), _table(_NEWS, {"notifications/elicitation/complete": None})
)
V2026_07_28 = Methods(
    client_requests=_table(_STATELESS, _FEATURES),
    client_notifications=frozenset({"notifications/cancelled"}),
    server_requests=_NOTHING,
    input_requests=_table(_QUESTIONS, _ELICITATION),
    server_notifications=_table(_NEWS, {"notifications/subscriptions/acknowledged": None}),
    names=MappingProxyType({"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}),
    cacheable=frozenset(
        {
            "server/discover",
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "resources/read",
            "prompts/list",
        }
    ),
    input_required=frozenset({"tools/call", "resources/read", "prompts/get"}),
)
