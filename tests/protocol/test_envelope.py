"""One JSON-RPC message or none: hybrids, ids, and what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.errors import InvalidRequest
from garrison.protocol.envelope import (
    Notification,
    Request,
    Response,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    is_request_id,
    parse_message,
)

V = {"jsonrpc": "2.0"}
ERROR = {"code": -1, "message": "x"}

REFUSED: list[Any] = [
    None,
    1,
    "x",
    [],
    {},
    [{**V, "id": 1, "method": "x"}],
    V,
    {**V, "id": 1},
    {"id": 1, "method": "x"},
    {**V, "id": 1, "method": "x", "result": {}},
    {**V, "id": 1, "method": "x", "error": ERROR},
    {**V, "id": 1, "method": "x", "extra": 1},
    {**V, "id": 1, "method": "x", "params": []},
    {**V, "id": 1, "method": "x", "params": None},
    {**V, "id": 1, "method": "x", "params": "x"},
    {**V, "id": 1, "method": 5},
    {**V, "id": 1, "method": None},
    {**V, "id": 1, "method": ""},
    {**V, "id": 1, "method": "x" * 129},
    {**V, "method": "x", "result": {}},
    {**V, "method": "x", "params": []},
    {**V, "id": 1, "result": {}, "error": ERROR},
    {**V, "id": 1, "result": {}, "extra": 1},
    {**V, "id": 1, "result": {}, "params": {}},
    {**V, "id": 1, "result": None},
    {**V, "id": 1, "result": "x"},
    {**V, "result": {}},
    {**V, "id": None, "result": {}},
    {**V, "id": 1, "error": None},
    {**V, "id": 1, "error": {}},
    {**V, "id": 1, "error": {"code": "x", "message": "x"}},
    {**V, "id": 1, "error": {"code": 1.5, "message": "x"}},
    {**V, "id": 1, "error": {"code": True, "message": "x"}},
    {**V, "id": 1, "error": {"code": 1}},
    {**V, "id": True, "error": ERROR},
]


@pytest.mark.attack("ATK-095")
@pytest.mark.attack("ATK-096")
@pytest.mark.parametrize("message", REFUSED, ids=repr)
def test_what_is_no_message(message: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_message(message)
    request = isinstance(message, dict) and "method" in message and message.get("id") == 1
    assert raised.value.request_id == (1 if request else None)
    notification = isinstance(message, dict) and "method" in message and "id" not in message
    assert raised.value.of_notification is notification


@pytest.mark.attack("ATK-094")
@pytest.mark.parametrize("version", ["1.0", "2", "2.00", 2.0, 2, None, "", ["2.0"], "missing"])
def test_the_version_member(version: Any) -> None:
    message = {"jsonrpc": version, "id": 1, "method": "x"}
    if version == "missing":
        del message["jsonrpc"]
    for kind in (message, {**{k: v for k, v in message.items() if k != "method"}, "result": {}}):
        with pytest.raises(InvalidRequest):
            parse_message(kind)


@pytest.mark.attack("ATK-091")
@pytest.mark.attack("ATK-088")
@pytest.mark.parametrize(
    "identifier", [None, True, False, 1.5, 1.0, {}, [], "", "x" * 129, 2**53, -(2**53), "a\nb", "a\0", "\x7f", "\x85"]
)
def test_what_is_no_id(identifier: Any) -> None:
    assert not is_request_id(identifier)
    with pytest.raises(InvalidRequest) as raised:
        parse_message({**V, "id": identifier, "method": "x"})
    assert raised.value.request_id is None
    assert not raised.value.of_notification
    with pytest.raises(InvalidRequest):
        parse_message({**V, "id": identifier, "result": {}})


@pytest.mark.parametrize("identifier", [0, 1, -1, 2**53 - 1, -(2**53) + 1, "1", "x" * 128, "ü", " ", "\u2028"])
def test_what_is_an_id(identifier: Any) -> None:
    request = parse_message({**V, "id": identifier, "method": "x"})
    assert isinstance(request, Request)
    assert request.id == identifier
    assert type(request.id) is type(identifier)
    assert request.params == {}
    response = parse_message({**V, "id": identifier, "result": {"a": 1}})
    assert isinstance(response, Response)
    assert (response.id, response.result, response.error) == (identifier, {"a": 1}, None)
    for written in (
        encode_result(identifier, b"{}"),
        encode_error(identifier, -1, "x"),
        encode_request(identifier, "x", {}),
    ):
        back = json.loads(written)["id"]
        assert (back, type(back)) == (identifier, type(identifier))


def test_messages() -> None:
    notification = parse_message({**V, "method": "x", "params": {"a": 1}})
    assert isinstance(notification, Notification)
    assert (notification.method, notification.params) == ("x", {"a": 1})
    failure = parse_message({**V, "error": {**ERROR, "data": [1], "more": 1}})
    assert isinstance(failure, Response)
    assert failure.id is None
    assert failure.error is not None
    assert (failure.error.code, failure.error.message, failure.error.data) == (-1, "x", [1])
    assert json.loads(encode_error(None, -1, "x", {"a": 1})) == {**V, "error": {**ERROR, "data": {"a": 1}}}
    assert json.loads(encode_notification("x")) == {**V, "method": "x"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"]),
        st.just("2.0") | anything,
        max_size=6,
    )
)
def test_any_object_is_one_kind_or_refused(value: dict[str, Any]) -> None:
    try:
        message = parse_message(value)
    except InvalidRequest:
        return
    assert value["jsonrpc"] == "2.0"
    kinds = [isinstance(message, kind) for kind in (Request, Notification, Response)]
    assert sum(kinds) == 1
    assert isinstance(message, Response) != ("method" in value)
    assert isinstance(message, Request) == ("method" in value and "id" in value)
