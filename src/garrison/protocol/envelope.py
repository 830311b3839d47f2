"""The JSON-RPC 2.0 envelope, as MCP narrows it.

Rules of this file:
- One object is one message: a request, a notification or a response. Members of two kinds at once are refused, and so
  are members that JSON-RPC does not name, unless a policy tolerates these: then they are dropped.
- An id is a string of 1 to 128 characters without control characters, or an integer that a double holds exactly.
  `null`, booleans, floats (1.0 too), arrays and objects are not ids. An id is answered with the type it came in.
- An `McpError` raised here carries `request_id` where the message was a request whose id could be read.

Spec: 2026-07-28 basic, "Messages".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast

import msgspec

from ..errors import InvalidRequest, McpError
from .json import encode, encode_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Message",
    "Notification",
    "Request",
    "RequestId",
    "Response",
    "encode_error",
    "encode_notification",
    "encode_request",
    "encode_result",
    "is_request_id",
    "parse_message",
    "parser",
]

RequestId = int | str

MAX_SAFE_INTEGER: Final = 2**53 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REQUEST = frozenset({"jsonrpc", "id", "method", "params"})
_RESULT = frozenset({"jsonrpc", "id", "result"})
_ERROR = frozenset({"jsonrpc", "id", "error"})
_NAMED = _REQUEST | _RESULT | _ERROR


class Request:
    """A request: the sender waits for a response with this id."""

    __slots__ = ("id", "method", "params")

    def __init__(self, id: RequestId, method: str, params: dict[str, object]) -> None:
        self.id = id
        self.method = method
        self.params = params


class Notification:
    """A notification: nothing is ever sent in answer."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: dict[str, object]) -> None:
        self.method = method
        self.params = params


class Response:
    """A response: `result` or `error` is set, never both. `id` is None only where a request's id could not be read."""

    __slots__ = ("error", "id", "result")

    def __init__(self, id: RequestId | None, result: dict[str, object] | None, error: McpError | None) -> None:
        self.id = id
        self.result = result
        self.error = error


Message = Request | Notification | Response


def is_request_id(value: object) -> bool:
    """True for what may stand as a request id."""
    if type(value) is int:
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
    return type(value) is str and 0 < len(value) <= 128 and _CONTROL.search(value) is None


def parse_message(value: object) -> Message:
    """The message in a parsed JSON value.

    Raises:
        InvalidRequest: it is not one message; `request_id` is set where it was a request with a readable id.
    """
    if type(value) is not dict:
        raise InvalidRequest(
            "Batches are not part of this protocol revision" if type(value) is list else "A message is a JSON object"
        )
    message = cast("dict[str, object]", value)
    method = message.get("method")
    if type(method) is str and message.get("jsonrpc") == "2.0" and 0 < len(method) <= 128:
        params = message.get("params")
        if params is None and "params" not in message:
            params = dict[str, object]()
        if type(params) is dict and message.keys() <= _REQUEST:
            params = cast("dict[str, object]", params)
            identifier = message.get("id")
            if type(identifier) is int:
                if -MAX_SAFE_INTEGER <= identifier <= MAX_SAFE_INTEGER:
                    return Request(identifier, method, params)
            elif type(identifier) is str:
                if is_request_id(identifier):
                    return Request(identifier, method, params)
            elif identifier is None and "id" not in message:
                return Notification(method, params)
    elif "method" not in message and message.get("jsonrpc") == "2.0":
        response = _response(message)
        if response is not None:
            return response
    raise _refusal(message)


def parser(*, unknown_members: bool = False) -> Callable[[object], Message]:
    """`parse_message`, or one that first drops the members that JSON-RPC does not name."""
    return _parse_named if unknown_members else parse_message


def _parse_named(value: object) -> Message:
    if type(value) is dict:
        message = cast("dict[str, object]", value)
        value = {name: message[name] for name in message.keys() & _NAMED}
    return parse_message(cast("object", value))


def _response(message: dict[str, object]) -> Response | None:
    identifier = message.get("id")
    known = is_request_id(identifier)
    keys = message.keys()
    if keys == _RESULT and known and type(message["result"]) is dict:
        return Response(cast("RequestId", identifier), cast("dict[str, object]", message["result"]), None)
    if keys <= _ERROR and "error" in keys and (known or identifier is None):
        error = message["error"]
        if type(error) is dict:
            fields = cast("dict[str, object]", error)
            code, text = fields.get("code"), fields.get("message")
            if type(code) is int and type(text) is str:
                failure = McpError(text, code=code, data=fields.get("data"))
                return Response(cast("RequestId | None", identifier), None, failure)
    return None


def _refusal(message: dict[str, object]) -> InvalidRequest:
    """Why this object is no message. Only reached by refused input, so it may take its time."""
    identifier = message.get("id")
    method = message.get("method")
    if message.get("jsonrpc") != "2.0":
        reason = 'Member "jsonrpc" must be "2.0"'
    elif "method" in message and (type(method) is not str or not 0 < len(method) <= 128):
        reason = 'Member "method" must be a string of 1 to 128 characters'
    elif "id" in message and not is_request_id(identifier):
        reason = 'Member "id" must be a string of 1 to 128 characters or an integer within 2^53'
    elif "method" in message and not message.keys() <= _REQUEST:
        reason = "A request has the members jsonrpc, id, method and params, and no other"
    elif "method" in message:
        reason = 'Member "params" must be an object'
    else:
        reason = "Neither a request nor a response"
    refusal = InvalidRequest(f"Invalid message: {reason}")
    if "method" in message and is_request_id(identifier):
        refusal.request_id = cast("RequestId", identifier)
    refusal.of_notification = "method" in message and "id" not in message
    return refusal


def _id(identifier: RequestId) -> bytes:
    return b"%d" % identifier if type(identifier) is int else encode_text(cast("str", identifier))


def encode_result(identifier: RequestId, result: bytes) -> bytes:
    """A response with this result, which is JSON already."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_id(identifier), result)


def encode_error(identifier: RequestId | None, code: int, message: str, data: object = None) -> bytes:
    """An error response. Without an id the member is absent, as the schema has it."""
    head = b'{"jsonrpc":"2.0",' if identifier is None else b'{"jsonrpc":"2.0","id":%b,' % _id(identifier)
    tail = b"" if data is None else b',"data":' + encode(data)
    return b'%b"error":{"code":%d,"message":%b%b}}' % (head, code, encode_text(message), tail)


def encode_request(identifier: RequestId, method: str, params: Mapping[str, object] | msgspec.Raw) -> bytes:
    """A request with these parameters."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (_id(identifier), encode_text(method), encode(params))


def encode_notification(method: str, params: Mapping[str, object] | msgspec.Raw | None = None) -> bytes:
    """A notification; without parameters the member is absent."""
    tail = b"" if params is None else b',"params":' + encode(params)
    return b'{"jsonrpc":"2.0","method":%b%b}' % (encode_text(method), tail)
