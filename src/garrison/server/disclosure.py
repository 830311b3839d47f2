"""What a peer is told about an error. The one place that decides it.

Rules of this file:
- An `McpError` was raised for the peer, a `ToolError` for the model: their words travel, after redaction and hygiene.
  Everything else is a constant text and an error id; the trace goes to the log beside the same id.
- A code that JSON-RPC or MCP reserves, and does not define, or that is no integer, does not travel.
- A refusal is told to whoever listens for security events, once, with the request that it ended.
- The log is read by people too: hygiene and redaction hold for its traces.
- `BaseException` is caught on purpose where handlers run: a handler that raises `KeyboardInterrupt` or runs out of
  memory must end its own request and nothing else.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, cast

import msgspec

from .. import events
from ..errors import GarrisonError, InternalError, McpError, OutputRefused, ToolError
from ..protocol.envelope import MAX_SAFE_INTEGER, Request, encode_error

if TYPE_CHECKING:
    from ..policy.principal import Principal
    from ..protocol.envelope import RequestId
    from ..protocol.revisions import Revision
    from .call import Call

__all__ = ["about", "about_message", "disclose", "encode_failure", "for_model", "log"]

log = logging.getLogger("garrison.server")

_DEFINED: Final = frozenset({-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022})
_RESERVED: Final = range(-32768, -31999)
"""Spec: 2026-07-28 basic, "Error Codes"."""
_PLAIN: Final = 16
"""Characters that hold no key."""
_SUSPICIOUS: Final = "=:"
_NAMING: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def disclose(
    error: BaseException, where: str, call: Call | None = None, sender: events.Event | None = None
) -> McpError:
    """The error that the peer may see. Unexpected ones are logged with their trace here.

    Args:
        error: what ended a request.
        where: for the log.
        call: the request, where there is one. The same error of the same request is recorded once.
        sender: who sent what never became a call, as `about_message` says it.
    """
    if isinstance(error, McpError) and not isinstance(error, InternalError) and _may_travel(error.code):
        if call is None:
            text = f"{error.message} in {where}"
            peer = "" if sender is None else sender.peer
            events.record(error.event or "message.invalid", text, peer=peer, setting=error.hint, about=sender)
        elif error.event is not None and call.told is not error:
            call.told = error
            said = f"{error.message} ({error.detail})" if isinstance(error, OutputRefused) else error.message
            events.record(
                error.event, f"{said} in {where}", peer=call.address, setting=error.hint, about=about(call, error)
            )
        return error
    if isinstance(error, InternalError) and error.disclosed:
        return error
    if isinstance(error, TimeoutError):
        log.warning("time-out in %s", where)
        return _told(InternalError("The request took too long (Timeouts.handler, or the tool's own timeout)"))
    error_id = os.urandom(8).hex()
    if isinstance(error, InternalError):
        log.error("error %s in %s: %s", error_id, where, error.detail or error.message, exc_info=error.__cause__)
    elif isinstance(error, McpError):
        log.error("error %s in %s: code %r is reserved or no integer", error_id, where, error.code, exc_info=error)
    elif isinstance(error, GarrisonError):
        log.error("error %s in %s: %s", error_id, where, error, exc_info=error)
    else:
        log.error("error %s in %s", error_id, where, exc_info=error)
    return _told(InternalError(error_id=error_id))


def _told(error: InternalError) -> InternalError:
    error.disclosed = True
    return error


def for_model(error: BaseException, where: str, call: Call) -> str:
    """What a model reads of an error that ended its tool call.

    Raises:
        McpError: it was raised for the client.
    """
    if isinstance(error, ToolError):
        call.failed = type(error).__name__
        return _presentable(str(error))
    told = disclose(error, where, call)
    if told is error:
        raise told
    reference = cast("dict[str, str]", told.data or {}).get("errorId", "")
    call.failed = reference or type(error).__name__
    return told.message + (f" (error id {reference})" if reference else "")


def about(call: Call, error: McpError | None = None) -> events.Event:
    """A request as it stands in events."""
    principal, params = call.principal, call.params
    named = params.get(_NAMING.get(call.method, ""), "")
    return events.Event(
        "",
        server=call.server,
        principal=principal.key,
        tenant=principal.tenant or "",
        peer=call.address,
        method=call.method,
        target=named if isinstance(named, str) else "",
        request=str(call.id),
        arguments=params.get("arguments"),
        error="" if error is None else type(error).__name__,
    )


def about_message(
    server: str, principal: Principal | None, address: str, message: object, error: McpError
) -> events.Event:
    """What never became a call, as it stands in events: who sent it, and of a request what it asks for."""
    found = events.Event(
        "",
        server=server,
        principal="" if principal is None else principal.key,
        tenant="" if principal is None else principal.tenant or "",
        peer=address,
        error=type(error).__name__,
    )
    if type(message) is not Request:
        return found
    named = message.params.get(_NAMING.get(message.method, ""), "")
    target = named if isinstance(named, str) else ""
    return found._replace(method=message.method, target=target, request=str(message.id))


def _presentable(text: str) -> str:
    """Words from inside the process as they may leave it: what looks like a key masked, what is invisible shown."""
    if text.isascii() and text.isprintable() and len(text) < _PLAIN and not any(c in text for c in _SUSPICIOUS):
        return text
    from ..gate.hygiene import visible
    from ..gate.redaction import redact

    return redact(visible(text))


def _readable(record: logging.LogRecord) -> bool:
    """Have who reads the log see what is there, as who gets an answer does; whatever writes it."""
    text = record.getMessage()
    shown = _presentable(text)
    if shown is not text:
        record.msg, record.args = shown, ()
    if record.exc_info and not record.exc_text:
        record.exc_text = _presentable(logging.Formatter().formatException(record.exc_info))
    return True


log.addFilter(_readable)


def _may_travel(code: object) -> bool:
    if type(code) is not int or not -MAX_SAFE_INTEGER <= code <= MAX_SAFE_INTEGER:
        return False
    return code not in _RESERVED or code in _DEFINED


def encode_failure(identifier: RequestId | None, error: McpError, revision: Revision | None) -> bytes:
    """The error response in the shape of the revision."""
    told, about_it = _presentable(error.message), None if error.data is None else _presentable_data(error.data)
    shaped: dict[str, object] = {"code": error.code, "message": told, "data": about_it}
    if revision is not None:
        shaped = revision.error(error.code, told, about_it)
    code, message = cast("int", shaped["code"]), cast("str", shaped["message"])
    try:
        return encode_error(identifier, code, message, shaped.get("data"))
    except (TypeError, ValueError, msgspec.MsgspecError):
        log.error("message or data of %s cannot be encoded", where_of(error))
        # A name that is no UTF-8 stands in Python text as lone surrogates, which JSON cannot carry.
        return encode_error(identifier, code, message.encode(errors="replace").decode())


def _presentable_data(value: object) -> object:
    if isinstance(value, str):
        return _presentable(value)
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        return {_presentable_data(k): _presentable_data(v) for k, v in members.items()}
    if isinstance(value, (list, tuple)):
        return [_presentable_data(item) for item in cast("list[object]", value)]
    return value


def where_of(error: McpError) -> str:
    """The error's class, for the log."""
    return type(error).__name__
