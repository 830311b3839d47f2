"""What pages of other origins may read: those that are listed, and nobody else. On the edge and in the ASGI face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from garrison import Server
from tests.transports.hosts import Answer, Hosts, Place, call, policy

LISTED = "https://app.example"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
BODY = call("touch", meta=META)
MODERN: dict[str, Any] = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "touch"}


def make(calls: list[str]) -> Server:
    server = Server("cors", policy=policy(allowed_origins=(LISTED,), shutdown=0.2))

    @server.tool(inline=True)
    def touch() -> str:
        calls.append("touch")
        return "x"

    return server


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.close()


@pytest.fixture(params=["edge", "asgi", "mounted"])
def place(request: pytest.FixtureRequest, hosts: Hosts) -> Iterator[Place]:
    place = hosts.start(request.param, make)
    yield place
    hosts.stop(place)


def cors(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.fields.items() if name.startswith("access-control-")}


def test_a_page_of_a_listed_origin_can_read_the_answer(place: Place) -> None:
    answer = place.ask(place.request(body=BODY, origin=LISTED, **MODERN))
    assert answer.status == 200
    assert answer.fields["access-control-allow-origin"] == LISTED
    assert "mcp-session-id" in answer.fields["access-control-expose-headers"]
    assert "origin" in answer.fields["vary"].lower()
    assert "access-control-allow-credentials" not in answer.fields
    assert place.calls == ["touch"]
    again = place.ask(place.request(body=BODY, **MODERN))
    assert (again.status, cors(again)) == (200, {})


def test_it_can_read_refusals_too(place: Place) -> None:
    for change, status in (({"authorization": "Bearer no"}, 401), ({"content_type": "text/plain"}, 415)):
        answer = place.ask(place.request(body=BODY, origin=LISTED, **{**MODERN, **change}))
        assert answer.status == status
        assert answer.fields["access-control-allow-origin"] == LISTED
    assert place.calls == []


def test_a_stream_can_be_read(place: Place) -> None:
    listen = (
        b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},'
        b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
        b'"io.modelcontextprotocol/clientCapabilities":{}}}}'
    )
    modern: dict[str, Any] = {"mcp_protocol_version": "2026-07-28", "mcp_method": "subscriptions/listen"}
    with place.connect() as wire:
        wire.send(place.request(body=listen, origin=LISTED, **modern))
        head = wire.head()
        assert head.fields["content-type"] == "text/event-stream"
        assert head.fields["access-control-allow-origin"] == LISTED


@pytest.mark.attack("ATK-019")
def test_preflights(place: Place) -> None:
    wanted = "authorization, content-type, mcp-method, mcp-name, mcp-protocol-version, mcp-param-region"
    asked: dict[str, Any] = {"access_control_request_method": "POST", "access_control_request_headers": wanted}
    answer = place.ask(place.request("OPTIONS", origin=LISTED, omit=("authorization",), content_length="0", **asked))
    assert answer.status == 204
    assert answer.body == b""
    allowed = cors(answer)
    assert allowed["access-control-allow-origin"] == LISTED
    assert "POST" in allowed["access-control-allow-methods"]
    granted = {name.strip() for name in allowed["access-control-allow-headers"].split(",")}
    assert {name.strip() for name in wanted.split(",")} <= granted
    assert "*" not in granted
    for change in ({"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
        fields: dict[str, Any] = {"origin": LISTED, **asked, **change}
        answer = place.ask(place.request("OPTIONS", omit=("authorization",), **fields))
        assert answer.status in (403, 421)
        assert cors(answer) == {}
    # Without an Origin it is no preflight, and asks for a credential like anything else.
    assert place.ask(place.request("OPTIONS", omit=("authorization",), **asked)).status == 401
    answer = place.ask(place.request("OPTIONS", "/nothing", origin=LISTED, omit=("authorization",), **asked))
    assert answer.status == 404
    assert place.calls == []


def test_what_a_preflight_asks_for_is_not_echoed(place: Place) -> None:
    asked: dict[str, Any] = {
        "access_control_request_method": "PUT",
        "access_control_request_headers": "x-evil, mcp-param-a b, *",
    }
    answer = place.ask(place.request("OPTIONS", origin=LISTED, omit=("authorization",), **asked))
    assert "x-evil" not in str(answer.fields)
    assert "PUT" not in answer.fields["access-control-allow-methods"]
    assert "mcp-param" not in answer.fields["access-control-allow-headers"]
