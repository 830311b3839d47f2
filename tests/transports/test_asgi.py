"""The ASGI face gives the verdicts of Garrison's own listener, and lets go of what its peers let go of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.transports.asgi import MODERN, TOUCH, make
from tests.transports.hosts import META, TOKEN, Hosts, Place, call

KINDS = ("edge", "asgi", "mounted")
LIMIT = 4096


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def places(hosts: Hosts) -> dict[str, Place]:
    settings = {
        "message_bytes": LIMIT,
        "header_count": 24,
        "header_bytes": 2048,
        "body": 0.6,
        "allowed_hosts": ("mcp.example:8443",),
        "allowed_origins": ("https://app.example",),
    }
    return {kind: hosts.start(kind, lambda calls: make(calls, **settings)) for kind in KINDS}


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


GOOD: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "a host on the list": {"host": "mcp.example:8443"},
    "localhost": {"host": "localhost:{port}"},
    "an origin on the list": {"origin": "https://app.example"},
    "the listener's own origin": {"origin": "http://127.0.0.1:{port}", "sec_fetch_site": "same-origin"},
    "a charset": {"content_type": "application/json; charset=UTF-8"},
    "any media type": {"accept": "*/*"},
    "as large as allowed": {"body": call("touch", meta=META, padding="x" * (LIMIT - len(TOUCH) - 15))},
    "a query": {"path": "/mcp?a=b"},
}
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "another host": (421, {"host": "evil.example"}),
    "a loopback name without the port": (421, {"host": "localhost"}),
    "a loopback name with another port": (421, {"host": "127.0.0.1:1"}),
    "a listed host on another port": (421, {"host": "mcp.example:8444"}),
    "no host": (400, {"omit": ("host",)}),
    "a host that is none": (400, {"host": "127.0.0.1:{port}@evil"}),
    "another origin": (403, {"origin": "https://evil.example"}),
    "the null origin": (403, {"origin": "null"}),
    "a cross-site request without origin": (403, {"sec_fetch_site": "cross-site"}),
    "no token": (401, {"omit": ("authorization",)}),
    "another token": (401, {"authorization": "Bearer another-token-long-enough"}),
    "a token that begins alike": (401, {"authorization": f"Bearer {TOKEN[:-1]}"}),
    "two tokens": (400, {"extra": (("authorization", "Bearer x"),)}),
    "two hosts": (400, {"extra": (("host", "evil.example"),)}),
    "two names": (400, {"extra": (("mcp-name", "other"),)}),
    "another path": (404, {"path": "/other"}),
    "a path below": (404, {"path": "/mcp/"}),
    "an escaped path": (404, {"path": "/%6dcp"}),
    "an escaped slash": (404, {"path": "/x%2f..%2fmcp"}),
    "a path with dots": (404, {"path": "/x/../mcp"}),
    "another method": (405, {"method": "PUT"}),
    "OPTIONS": (405, {"method": "OPTIONS", "origin": "https://app.example"}),
    "text": (415, {"content_type": "text/plain"}),
    "a form": (415, {"content_type": "application/x-www-form-urlencoded"}),
    "a compressed body": (415, {"content_encoding": "gzip"}),
    "JSON only": (406, {"accept": "application/json"}),
    "an announced body that is too large": (413, {"content_length": str(LIMIT + 1)}),
    "a body that is too large": (413, {"body": call("touch", meta=META, padding="x" * LIMIT)}),
    "too many fields": (431, {"extra": tuple((f"x-{n}", "1") for n in range(24))}),
    "fields that are too large": (431, {"x_long": "x" * 2048}),
    "a token that is wrong before a method that is": (401, {"method": "PUT", "omit": ("authorization",)}),
    "a path that is wrong before a token that is": (404, {"path": "/x", "omit": ("authorization",)}),
    "another expectation": (417, {"expect": "something"}),
    "not JSON": (400, {"body": b"{"}),
    "JSON with a key twice": (400, {"body": TOUCH[:-1] + b', "id": 2}'}),
    "another name in the header": (400, {"mcp_name": "other"}),
    "no method in the header": (400, {"omit": ("mcp-method",)}),
    "another revision in the header": (400, {"mcp_protocol_version": "2099-01-01"}),
    "an unknown tool": (200, {"body": TOUCH.replace(b'"touch"', b'"nothing"'), "mcp_name": "nothing"}),
    "an invented session": (404, {"omit": ("mcp-protocol-version",), "mcp_session_id": "x", "body": call("touch")}),
}
SAME = ("content-type", "allow", "www-authenticate", "retry-after", "x-content-type-options", "cache-control")


def asked(place: Place, arguments: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    body = TOUCH if arguments.get("method", "POST") == "POST" else b""
    answer = place.ask(place.request(**{"body": body, **MODERN, **arguments}))
    return answer.status, {name: answer.fields[name] for name in SAME if name in answer.fields}, answer.body


@pytest.mark.parametrize("case", GOOD)
def test_a_good_request_is_answered_alike_everywhere(places: dict[str, Place], case: str) -> None:
    answers = {}
    for kind, place in places.items():
        place.calls.clear()
        answers[kind] = asked(place, GOOD[case])
        assert place.calls == ["touch"], kind
    assert answers["edge"][0] == 200 and b"done" in answers["edge"][2]
    assert answers["asgi"] == answers["edge"] and answers["mounted"] == answers["edge"]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_alike_everywhere_and_reaches_no_handler(places: dict[str, Place], case: str) -> None:
    status, arguments = BAD[case]
    answers = {}
    for kind, place in places.items():
        place.calls.clear()
        answers[kind] = asked(place, arguments)
        assert place.calls == [], kind
    assert answers["edge"][0] == status
    assert answers["asgi"] == answers["edge"] and answers["mounted"] == answers["edge"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunked_body_is_counted_while_it_comes(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.calls.clear()
    head = place.request(omit=("content-length",), transfer_encoding="chunked", **MODERN)
    with place.connect() as wire:
        wire.send(head)
        for _ in range(LIMIT // 1000 + 1):  # never completed: only counting can end it
            wire.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert wire.answer().status == 413
        assert wire.ended()
    with place.connect() as wire:
        wire.send(head)
        for start in range(0, len(TOUCH), 50):
            piece = TOUCH[start : start + 50]
            wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
        assert wire.answer().status == 200
    assert place.calls == ["touch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_does_not_come_is_given_up(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.calls.clear()
    with place.connect() as wire:
        wire.send(place.request(body=TOUCH, **MODERN)[:-10])
        assert wire.head().status == 408
    with place.connect() as wire:
        request = place.request(body=TOUCH, **MODERN)
        wire.send(request[:-10])
        time.sleep(0.1)
        wire.send(request[-10:])
        assert wire.answer().status == 200
    assert place.calls == ["touch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_body_is_not_read_any_further(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    with place.connect() as wire:
        wire.send(place.request(content_length="1000", omit=("authorization",)))
        answer = wire.answer()
        assert answer.status == 401 and answer.fields["connection"] == "close"
        assert wire.ended()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answered_connection_stays_open(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    with place.connect() as wire:
        for _ in range(3):
            wire.send(place.request(body=TOUCH, **MODERN))
            assert wire.answer().status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_sends_first_makes_the_response_a_stream(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    body = call("count", meta={**META, "progressToken": "p"}, to=3)
    answer = place.ask(place.request(body=body, **{**MODERN, "mcp_name": "count"}))
    assert answer.status == 200 and answer.fields["content-type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in answer.body.decode().split("\r\n") if line.startswith("data: ")]
    assert [event.get("method") for event in events] == ["notifications/progress"] * 3 + [None]
    assert events[-1]["result"]["content"][0]["text"] == "counted"


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_leaves_has_its_request_cancelled(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.calls.clear()
    with place.connect() as wire:
        wire.send(place.request(body=call("wait", meta=META, seconds=20), **{**MODERN, "mcp_name": "wait"}))
        assert wait_for(lambda: place.calls == ["begun"])
    assert wait_for(lambda: place.calls == ["begun", "cancelled"])
    place.calls.clear()
    answer = place.ask(place.request(body=call("wait", meta=META, seconds=0.05), **{**MODERN, "mcp_name": "wait"}))
    assert answer.status == 200 and place.calls == ["begun", "ended"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quiet_stream_is_kept_alive(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, keep_alive=0.1))
    answer = place.ask(place.request(body=call("wait", meta=META, seconds=0.8), **{**MODERN, "mcp_name": "wait"}))
    assert answer.fields["content-type"] == "text/event-stream"
    assert answer.body.startswith(b":\r\n\r\n") and b"waited" in answer.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_takes_no_bytes_is_put_out(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, write_stall=0.5))
    body = call("flood", meta={**META, "progressToken": "p"}, size=50_000)
    with place.connect() as wire:
        wire.send(place.request(body=body, **{**MODERN, "mcp_name": "flood"}))
        assert wait_for(lambda: place.calls == ["flooding", "cancelled"], 10)


@pytest.mark.parametrize("kind", KINDS)
def test_what_waits_for_a_slow_reader_is_bounded(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, outbound_bytes=200_000))
    body = call("flood", meta={**META, "progressToken": "p"}, size=50_000, patient=False)
    with place.connect() as wire:
        wire.send(place.request(body=body, **{**MODERN, "mcp_name": "flood"}))
        assert wait_for(lambda: place.calls == ["flooding", "cancelled"])
    body = call("flood", meta={**META, "progressToken": "p"}, size=50_000, times=160)
    with place.connect() as wire:  # a handler that waits for its reader keeps it
        wire.send(place.request(body=body, **{**MODERN, "mcp_name": "flood"}))
        time.sleep(0.3)
        answer = wire.answer()
    assert len(answer.body) > 160 * 50_000 and b"flooded" in answer.body


@pytest.mark.parametrize("kind", ["asgi", "mounted"])
def test_requests_under_way_are_bounded(hosts: Hosts, kind: str) -> None:
    place = hosts.start(kind, lambda calls: make(calls, connections=1))
    with place.connect() as wire:
        wire.send(place.request(body=call("wait", meta=META, seconds=20), **{**MODERN, "mcp_name": "wait"}))
        assert wait_for(lambda: place.calls == ["begun"])
        refused = place.ask(place.request(body=TOUCH, **MODERN))
        assert refused.status == 503 and refused.fields["retry-after"] == "1"
    assert wait_for(lambda: place.calls == ["begun", "cancelled"])
    assert wait_for(lambda: place.ask(place.request(body=TOUCH, **MODERN)).status == 200)
    assert place.calls == ["begun", "cancelled", "touch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_handshake_client_is_served(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    begun = place.ask(
        place.request(body=json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).encode())
    )
    session = begun.fields["mcp-session-id"]
    legacy: dict[str, Any] = {"mcp_session_id": session, "mcp_protocol_version": "2025-11-25"}
    assert place.ask(place.request(body=call("touch"), **legacy)).json()["result"]["content"][0]["text"] == "done"
    assert place.ask(place.request("DELETE", **legacy)).status == 200
    assert place.ask(place.request(body=call("touch"), **legacy)).status == 404
