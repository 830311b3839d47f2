"""Revision 2025-11-25, as it differs from 2026-07-28.

It has the handshake, sessions, requests from server to client, and error -32002 for a resource that is not there. It
has no `resultType`, caching hints, multi round-trip requests or per-request capabilities; structured content is an
object, and so is what a schema of a tool describes.
"""

from __future__ import annotations

from ..methods import V2025_11_25, V2026_07_28
from ..types.wire import (
    CLIENT_CAPABILITIES_KEY,
    CLIENT_INFO_KEY,
    LOG_LEVEL_KEY,
    PROTOCOL_VERSION_KEY,
    SERVER_INFO_KEY,
    SUBSCRIPTION_ID_KEY,
)
from .changes import (
    Object,
    as_object,
    drop,
    drop_meta,
    in_turn,
    object_properties,
    only_object_schema,
    only_object_structured,
)
from .revision import Error
from .v2026_07_28 import REVISION as NEWER

__all__ = ["REVISION"]

_CODES = {-32020: -32600, -32021: -32602, -32022: -32602}
"""HeaderMismatch, MissingRequiredClientCapability and UnsupportedProtocolVersion under the codes of JSON-RPC."""

_modern_params = in_turn(
    drop("inputResponses", "requestState"),
    drop_meta(PROTOCOL_VERSION_KEY, CLIENT_INFO_KEY, CLIENT_CAPABILITIES_KEY, LOG_LEVEL_KEY),
)


def _error(error: Error) -> Error:
    code, message, data = error
    if code == -32602 and "uri" in (as_object(data) or {}):
        return (-32002, message, data)
    return (_CODES.get(code, code), message, data)


def _newer_error(error: Error) -> Error:
    code, message, data = error
    return (-32602, message, data) if code == -32002 else error


def _elicitation(params: Object) -> Object:
    if params.get("mode") == "url" and "elicitationId" not in params:
        from secrets import token_urlsafe

        return {**params, "elicitationId": token_urlsafe(16)}
    return params


def _complete(result: Object) -> Object:
    return {**result, "resultType": "complete"}


def _stale(result: Object) -> Object:
    return {**result, "ttlMs": 0, "cacheScope": "private"}


REVISION = NEWER.older(
    "2025-11-25",
    methods=V2025_11_25,
    modern=False,
    result_type=False,
    changes={
        "*": in_turn(drop("resultType", "ttlMs", "cacheScope"), drop_meta(SERVER_INFO_KEY)),
        ">*": _modern_params,
        "!*": drop_meta(SUBSCRIPTION_ID_KEY),
        "tools/call": only_object_structured,
        "samplingContent": only_object_structured,
        "tool": in_turn(
            only_object_schema("outputSchema"), object_properties("inputSchema"), object_properties("outputSchema")
        ),
        "?elicitation/create": _elicitation,
    },
    upgrades={
        # What this revision does not define has no meaning in it, whoever wrote it: it is set, not completed.
        "*": _complete,
        **dict.fromkeys(V2026_07_28.cacheable, _stale),
        ">*": _modern_params,
    },
    error_change=_error,
    error_upgrade=_newer_error,
)
