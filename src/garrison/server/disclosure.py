"""What a peer is told about an error. The one place that decides it.

Rules of this file:
- An `McpError` was raised for the peer: its code, message and data travel. Everything else is a constant text and an
  error id; the trace goes to the log beside the same id.
- A code that JSON-RPC or MCP reserves, and does not define, or that is no integer, does not travel.
- `BaseException` is caught on purpose where handlers run: a handler that raises `KeyboardInterrupt` or runs out of
  memory must end its own request and nothing else.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, cast

import msgspec

from .. import events
from ..errors import GarrisonError, InternalError, McpError
from ..protocol.envelope import MAX_SAFE_INTEGER, encode_error

if TYPE_CHECKING:
    from ..protocol.envelope import RequestId
    from ..protocol.revisions import Revision

__all__ = ["disclose", "encode_failure", "log"]

log = logging.getLogger("garrison.server")

_DEFINED: Final = frozenset({-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022})
_RESERVED: Final = range(-32768, -31999)
"""Spec: 2026-07-28 basic, "Error Codes"."""


def disclose(error: BaseException, where: str) -> McpError:
    """The error that the peer may see. Unexpected ones are logged with their trace here."""
    if isinstance(error, McpError) and not isinstance(error, InternalError) and _may_travel(error.code):
        if error.event is not None:
            events.record(error.event, f"{error.message} in {where}", setting=error.hint)
        return error
    if isinstance(error, TimeoutError):
        log.warning("time-out in %s", where)
        return InternalError("The request took too long (Timeouts.handler, or the tool's own timeout)")
    error_id = os.urandom(8).hex()
    if isinstance(error, InternalError):
        log.error("error %s in %s: %s", error_id, where, error.detail or error.message, exc_info=error.__cause__)
    elif isinstance(error, McpError):
        log.error("error %s in %s: code %r is reserved or no integer", error_id, where, error.code, exc_info=error)
    elif isinstance(error, GarrisonError):
        log.error("error %s in %s: %s", error_id, where, error, exc_info=error)
    else:
        log.error("error %s in %s", error_id, where, exc_info=error)
    return InternalError(error_id=error_id)


def _may_travel(code: object) -> bool:
    if type(code) is not int or not -MAX_SAFE_INTEGER <= code <= MAX_SAFE_INTEGER:
        return False
    return code not in _RESERVED or code in _DEFINED


def encode_failure(identifier: RequestId | None, error: McpError, revision: Revision | None) -> bytes:
    """The error response in the shape of the revision."""
    shaped: dict[str, object] = {"code": error.code, "message": error.message, "data": error.data}
    if revision is not None:
        shaped = revision.error(error.code, error.message, error.data)
    code, message = cast("int", shaped["code"]), cast("str", shaped["message"])
    try:
        return encode_error(identifier, code, message, shaped.get("data"))
    except (TypeError, ValueError, msgspec.MsgspecError):
        log.error("message or data of %s cannot be encoded", where_of(error))
        # A name that is no UTF-8 stands in Python text as lone surrogates, which JSON cannot carry.
        return encode_error(identifier, code, message.encode(errors="replace").decode())


def where_of(error: McpError) -> str:
    """The error's class, for the log."""
    return type(error).__name__
