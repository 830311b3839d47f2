"""The JSON-RPC envelope: a message is exactly one of three kinds, by a second reading of the same rules; what is
encoded is read back."""

from __future__ import annotations

import json
from typing import Any

from fuzz.oracle import agree, hold
from garrison.errors import InvalidRequest, McpError, ParseError
from garrison.policy import Limits
from garrison.protocol.envelope import (
    Message,
    Notification,
    Request,
    Response,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    parse_message,
)
from garrison.protocol.json import decoder, encode

SEEDS = (
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","arguments":{}}}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"jsonrpc":"2.0","id":"x","error":{"code":-32600,"message":"no","data":[1]}}',
    b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1.0,"method":"ping","extra":1}',
    b'{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
)
WORDS = tuple(
    b'"jsonrpc":"2.0" "id": "method": "params": "result": "error": "code": "message": null true 1.0 {} []'.split()
)
WORDS += (b"9007199254740991", b"-9007199254740992", b'"\\u0000"', b'"\\u0085"', b',"x":1')

_decode = decoder(Limits())


def kind(value: Any) -> str:
    """What a value is, by the rules written out the long way."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return "bad"
    names = set(value) - {"jsonrpc"}
    if "method" in names:
        method = value["method"]
        good = isinstance(method, str) and 1 <= len(method) <= 128 and isinstance(value.get("params", {}), dict)
        if not good or names - {"id", "method", "params"}:
            return "bad"
        return "notification" if "id" not in names else "request" if good_id(value["id"]) else "bad"
    if names == {"id", "result"}:
        return "result" if good_id(value["id"]) and isinstance(value["result"], dict) else "bad"
    if names - {"id"} == {"error"}:
        error = value["error"]
        if not isinstance(error, dict) or type(error.get("code")) is not int or type(error.get("message")) is not str:
            return "bad"
        return "error" if value.get("id") is None or good_id(value["id"]) else "bad"
    return "bad"


def good_id(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**53
    return (
        isinstance(value, str) and 1 <= len(value) <= 128 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
    )


def shown(message: Message) -> str:
    if isinstance(message, Response):
        return "result" if message.result is not None else "error"
    return "request" if isinstance(message, Request) else "notification"


def again(message: Message) -> bytes:
    """The message, encoded."""
    if isinstance(message, Request):
        return encode_request(message.id, message.method, message.params)
    if isinstance(message, Notification):
        return encode_notification(message.method, message.params)
    if message.error is not None:
        return encode_error(message.id, message.error.code, message.error.message, message.error.data)
    hold(message.id is not None, "a result without id")
    return encode_result(message.id or 0, encode(message.result))


def check(data: bytes) -> None:
    try:
        value = _decode(data)
    except ParseError:
        return
    expected = kind(value)
    try:
        message = parse_message(value)
    except InvalidRequest as error:
        agree("kind", "bad", expected)
        readable = isinstance(value, dict) and "method" in value and good_id(value.get("id"))
        agree("id", error.request_id, value["id"] if readable and isinstance(value, dict) else None)
        agree(
            "notification", error.of_notification, isinstance(value, dict) and "method" in value and "id" not in value
        )
        return
    agree("kind", shown(message), expected)
    encoded = again(message)
    hold(b"\n" not in encoded and b"\r" not in encoded, "a line break")
    json.loads(encoded)
    back = parse_message(_decode(encoded))
    agree("kind again", shown(back), expected)
    for name in ("id", "method", "params", "result"):
        agree(name, getattr(back, name, None), getattr(message, name, None))
    left, right = (getattr(each, "error", None) for each in (message, back))
    if isinstance(left, McpError) and isinstance(right, McpError):
        agree("error", (left.code, left.message, left.data), (right.code, right.message, right.data))
