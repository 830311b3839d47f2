"""Attacks that take more than one message, on every transport."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.attacks.target import CODES, Target
from tests.support import mcp
from tests.support.everywhere import KINDS, Line, call, door

MODERN = tuple(kind for kind in KINDS if kind != "session")
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

everywhere = pytest.mark.parametrize("door_kind", KINDS)
in_the_newest_revision = pytest.mark.parametrize("door_kind", MODERN)


def raw(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def said(message: dict[str, Any]) -> str:
    return message["result"]["content"][0]["text"]


async def done(line: Line, message: bytes) -> dict[str, Any]:
    """Send a request and read its answer; notifications before it are left out."""
    await line.send(message)
    return (await line.answers(1))[0].json


@pytest.mark.attack("ATK-092")
@everywhere
async def test_an_id_is_answered_with_its_own_type(door_kind: str) -> None:
    target = Target()
    async with door(door_kind, target.server) as at, at.connect() as line:
        await line.send(at.message(call("slow", '{"seconds":0.1,"name":"text"}', '"1"')))
        await line.send(at.message(call("slow", '{"seconds":0.05,"name":"number"}', "1")))
        answers = {type(answer.json["id"]): answer.json for answer in await line.answers(2)}
        assert said(answers[str]) == "text" and answers[str]["id"] == "1"
        assert said(answers[int]) == "number" and answers[int]["id"] == 1
        assert sorted(target.ran) == ["slow number", "slow text"]


@pytest.mark.attack("ATK-093")
@everywhere
async def test_an_id_that_is_under_way_is_not_taken_twice(door_kind: str) -> None:
    target = Target()
    async with door(door_kind, target.server) as at, at.connect() as line:
        await line.send(at.message(call("slow", '{"seconds":0.2,"name":"first"}', "7")))
        await mcp.until(lambda: target.ran)
        await line.send(at.message(call("slow", '{"seconds":0.2,"name":"second"}', "7")))
        one, other = await line.answers(2)
        assert one.json["id"] == other.json["id"] == 7
        if door_kind in ("http", "asgi"):
            # Every POST of the newest revision stands alone: both are served, each with its own answer.
            assert {said(one.json), said(other.json)} == {"first", "second"}
            assert target.ran == ["slow first", "slow second"]
        else:
            assert one.word == "-32600"
            assert said(other.json) == "first"
            assert target.ran == ["slow first"]
        assert said(await done(line, at.message(call("slow", '{"seconds":0.01,"name":"third"}', "7")))) == "third"


@pytest.mark.attack("ATK-099")
@in_the_newest_revision
async def test_what_one_request_declares_is_not_believed_of_the_next(door_kind: str) -> None:
    target = Target()
    async with door(door_kind, target.server) as at, at.connect() as line:
        able = raw(mcp.call("ask", id=1, capabilities={"elicitation": {"url": {}}}))
        assert (await done(line, able))["result"]["resultType"] == "input_required"
        for number, declared in enumerate(({}, {"elicitation": {}}, {"sampling": {}}), 2):
            refused = await done(line, raw(mcp.call("ask", id=number, capabilities=declared)))
            assert refused["error"]["code"] == -32021, declared
        assert (await done(line, able))["result"]["resultType"] == "input_required"


@pytest.mark.attack("ATK-109")
@everywhere
async def test_codes_that_mean_something_else_or_nothing_are_not_sent(door_kind: str) -> None:
    target = Target()
    async with door(door_kind, target.server) as at, at.connect() as line:
        for number, code in enumerate(CODES):
            response = await done(line, at.message(call("fail", json.dumps({"number": number}), str(number))))
            assert response["id"] == number
            if number >= len(CODES) - 3:
                assert response["error"] == {"code": code, "message": "chosen", "data": {"n": number}}
            else:
                assert response["result"]["isError"] is True, code
                assert "chosen" not in json.dumps(response)
        assert said(await done(line, at.message(call()))) == "x"


@pytest.mark.attack("ATK-110")
@in_the_newest_revision
async def test_log_messages_go_to_whoever_asked_for_them(door_kind: str) -> None:
    level = "io.modelcontextprotocol/logLevel"
    target = Target()
    async with door(door_kind, target.server) as at, at.connect() as line, at.connect() as other:
        await other.send(raw(mcp.call("talk", {"name": "silent"}, 1)))
        await line.send(raw(mcp.call("talk", {"name": "chatty"}, 2, **{level: "debug"})))
        await line.send(raw(mcp.call("talk", {"name": "terse"}, 3, **{level: "warning"})))
        heard: list[str] = []
        answered: set[int] = set()
        while answered != {2, 3}:
            message = (await line.receive()).json
            if "method" in message:
                assert message["method"] == "notifications/message"
                heard.append(message["params"]["data"])
            else:
                answered.add(message["id"])
        assert sorted(heard) == ["chatty debug", "chatty error", "terse error"]
        assert (await other.receive()).json["id"] == 1
        assert other.incoming.empty()


@pytest.mark.attack("ATK-111")
@in_the_newest_revision
async def test_a_subscription_hears_what_it_asked_for_and_is_its_owners(door_kind: str) -> None:
    server = Target().server
    server.add_prompt(lambda: "x", "greet")
    server.add_resource(lambda: "x", "a://b", name="b")
    async with door(door_kind, server) as at, at.connect() as alice, at.connect() as bob:
        listen = mcp.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "s-1")
        await alice.send(raw(listen))
        first = (await alice.receive()).json
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"toolsListChanged": True}
        assert first["params"]["_meta"][_SUBSCRIPTION] == "s-1"

        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s-1"}}
        await bob.send(raw(cancel))
        await bob.send(raw(mcp.call("echo", {"text": "x"}, "b-1", **{_SUBSCRIPTION: "s-1"})))
        while "result" not in (answer := (await bob.receive())).json:
            assert answer.word == "silent" and answer.status == 202

        server.add_prompt(lambda: "x", "other")
        server.resource_updated("a://b")
        server.add_tool(lambda: "x", "new", structured_output=False)
        heard = (await alice.receive()).json
        assert heard["method"] == "notifications/tools/list_changed"
        assert heard["params"]["_meta"][_SUBSCRIPTION] == "s-1"
        assert alice.incoming.empty() and bob.incoming.empty()
