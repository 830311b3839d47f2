"""The ASGI face gives the verdicts of Garrison's own listener, and lets go of what its peers let go of."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from garrison import ConfigurationError, Context, Limits, SecurityPolicy, Server
from garrison.policy.transports import WebSocketConfig
from garrison.transports.http.asgi_websocket import AsgiSocket
from tests.support.mcp import modern
from tests.transports.hosts import META, TOKEN, Hosts, Place, call, policy

KINDS = ("edge", "asgi", "mounted")
MODERN: dict[str, Any] = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "touch"}
TOUCH = call("touch", meta=META)
LIMIT = 4096


def make(calls: list[str], **settings: Any) -> Server:
    server = Server("test", policy=policy(**settings), http_sse=True)

    @server.tool(inline=True)
    def touch(padding: str = "") -> str:
        calls.append("touch")
        return "done"

    @server.tool()
    async def wait(seconds: float) -> str:
        calls.append("begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        calls.append("ended")
        return "waited"

    @server.tool()
    async def count(ctx: Context, to: int) -> str:
        for number in range(to):
            await ctx.progress(number, to)
        return "counted"

    @server.tool()
    async def flood(ctx: Context, size: int, times: int = 1_000_000, patient: bool = True) -> str:
        calls.append("flooding")
        try:
            for number in range(times):
                sent = ctx.progress(number, message="x" * size)
                if patient:
                    await sent
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        return "flooded"

    return server


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


# Names of the listener


async def ask(app: Any, scope: dict[str, Any], body: bytes = TOUCH) -> int:
    """The status an ASGI application gives to a request of a host server that is not there."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


def scope(host: str, server: tuple[str, int | None] | None, **more: Any) -> dict[str, Any]:
    fields = {
        "host": host,
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        **{name.replace("_", "-"): value for name, value in MODERN.items()},
    }
    return {
        "type": "http",
        "http_version": "2",
        "method": "POST",
        "path": "/mcp",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "server": server,
        **more,
    }


@pytest.mark.parametrize(
    ("host", "server", "status"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000), 200),
        ("[::1]:8000", ("::1", 8000), 200),
        ("localhost:8000", ("127.0.0.1", 9000), 421),  # the Host header does not say which port this is
        ("localhost:8000", ("10.0.0.5", 8000), 421),
        ("localhost:8000", ("/run/app.sock", None), 421),
        ("localhost", ("/run/app.sock", None), 200),  # a Unix socket has this name
        ("localhost:8000", None, 421),
        ("evil.example:8000", ("127.0.0.1", 8000), 421),
        ("mcp.example", ("10.0.0.5", 8000), 200),
        ("mcp.example", None, 200),
        ("mcp.example:8000", ("10.0.0.5", 8000), 421),
    ],
)
async def test_a_listener_has_loopback_names_only_on_loopback(host: str, server: Any, status: int) -> None:
    calls: list[str] = []
    app = make(calls, allowed_hosts=("mcp.example",)).asgi(token=TOKEN)
    async with app:
        assert await ask(app, scope(host, server, scheme="https")) == status
    assert calls == (["touch"] if status == 200 else [])


@pytest.mark.parametrize(
    ("more", "policy", "status"),
    [
        ({"scheme": "http", "client": ("10.0.0.9", 5)}, {}, 403),
        ({"scheme": "http", "client": ("10.0.0.9", 5)}, {"trusted_proxies": ("10.0.1.0/24",)}, 403),
        ({"scheme": "http", "client": ("10.0.0.9", 5)}, {"trusted_proxies": ("10.0.0.0/24",)}, 200),
        ({"scheme": "http", "client": ("10.0.0.9", 5)}, {"allow_insecure_http_hosts": {"10.0.0.5": "a test"}}, 200),
        ({"scheme": "http", "client": ("127.0.0.1", 5)}, {}, 200),
        ({"scheme": "https", "client": ("10.0.0.9", 5)}, {}, 200),
    ],
)
async def test_a_plain_connection_from_elsewhere_comes_through_a_trusted_proxy(
    more: dict[str, Any], policy: dict[str, Any], status: int
) -> None:
    calls: list[str] = []
    app = make(calls, allowed_hosts=("mcp.example",), **policy).asgi(token=TOKEN)
    async with app:
        assert await ask(app, scope("mcp.example", ("10.0.0.5", 8000), **more)) == status
    assert calls == (["touch"] if status == 200 else [])


@pytest.mark.parametrize(
    ("root", "path", "raw", "status"),
    [
        ("", "/mcp", b"/mcp", 200),
        ("", "/mcp", None, 200),
        ("/a b", "/a b/mcp", b"/a%20b/mcp", 200),
        ("/api", "/mcp", b"/mcp", 200),  # a host whose path leaves out the mount point
        ("/api", "/apimcp", b"/apimcp", 404),
        ("", "/mcp", b"/%6Dcp", 404),
        ("/api", "/api/mcp", b"/api/%6dcp", 404),
    ],
)
async def test_the_endpoint_is_what_follows_the_mount_point(
    root: str, path: str, raw: bytes | None, status: int
) -> None:
    calls: list[str] = []
    more = {"root_path": root, "path": path} | ({} if raw is None else {"raw_path": raw})
    app = make(calls).asgi(token=TOKEN)
    async with app:
        assert await ask(app, scope("127.0.0.1:1", ("127.0.0.1", 1), **more)) == status
    assert len(calls) == (status == 200)


# Start and end


def with_lifespan(events: list[str], fail: int = 0) -> Server:
    left = [fail]

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        task = asyncio.current_task()
        await asyncio.sleep(0.01)
        if left[0]:
            left[0] -= 1
            events.append("failed")
            raise RuntimeError("the database is down")
        events.append("entered")
        yield
        events.append("left" if asyncio.current_task() is task else "left in another task")

    server = Server("test", lifespan=lifespan)

    @server.tool()
    async def touch() -> str:
        events.append("touch")
        return "done"

    return server


def test_the_hosts_lifespan_starts_and_ends_the_server(hosts: Hosts) -> None:
    events: list[str] = []
    place = hosts.asgi(with_lifespan(events))
    assert events == ["entered"]
    assert place.ask(place.request(body=TOUCH, **MODERN)).status == 200
    hosts.stop(place)
    assert events == ["entered", "touch", "left"]


def test_an_outer_lifespan_starts_and_ends_a_mounted_server(hosts: Hosts) -> None:
    events: list[str] = []
    mcp = with_lifespan(events).asgi(token=TOKEN)
    place = hosts.uvicorn(Starlette(routes=[Mount("/x", mcp)], lifespan=lambda app: mcp), "/x")
    assert events == ["entered"]
    assert place.ask(place.request(body=TOUCH, **MODERN)).status == 200
    hosts.stop(place)
    assert events == ["entered", "touch", "left"]


async def test_without_lifespan_events_the_first_good_requests_start_the_server_once() -> None:
    events: list[str] = []
    app = with_lifespan(events).asgi(token=TOKEN)
    here = scope("127.0.0.1:1", ("127.0.0.1", 1))
    assert await ask(app, scope("evil.example", ("127.0.0.1", 1))) == 421
    assert events == []  # who is refused starts nothing
    assert await asyncio.gather(*(ask(app, here) for _ in range(5))) == [200] * 5
    assert events == ["entered"] + ["touch"] * 5
    await app.__aexit__(None, None, None)
    assert events[-1] == "left"


def test_a_loop_that_ends_ends_the_server() -> None:
    events: list[str] = []
    app = with_lifespan(events).asgi(token=TOKEN)
    assert asyncio.run(ask(app, scope("127.0.0.1:1", ("127.0.0.1", 1)))) == 200
    assert asyncio.run(ask(app, scope("127.0.0.1:1", ("127.0.0.1", 1)))) == 200
    assert events == ["entered", "touch", "left"] * 2


async def test_a_server_that_did_not_start_is_tried_again() -> None:
    events: list[str] = []
    app = with_lifespan(events, fail=1).asgi(token=TOKEN)
    here = scope("127.0.0.1:1", ("127.0.0.1", 1))
    assert await ask(app, here) == 503
    assert await ask(app, here) == 200
    assert events == ["failed", "entered", "touch"]
    await app.__aexit__(None, None, None)


async def test_a_failed_start_is_reported_to_the_host() -> None:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        assert "database" not in str(message)

    await with_lifespan([], fail=1).asgi(token=TOKEN)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.failed"]


async def test_what_still_runs_at_the_end_is_answered_with_503() -> None:
    calls: list[str] = []
    app = make(calls, shutdown=0.05).asgi(token=TOKEN)
    here = scope("127.0.0.1:1", ("127.0.0.1", 1))
    here["headers"] = [field for field in here["headers"] if field[0] != b"mcp-name"] + [(b"mcp-name", b"wait")]
    waiting = asyncio.ensure_future(ask(app, here, call("wait", meta=META, seconds=20)))
    while calls != ["begun"]:
        await asyncio.sleep(0.01)
    await app.__aexit__(None, None, None)
    assert await waiting == 503 and calls == ["begun", "cancelled"]


async def test_a_websocket_is_refused() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await Server("test").asgi(token=TOKEN)({"type": "websocket"}, receive, send)
    assert sent == ["websocket.close"]
    with pytest.raises(ValueError, match="not served"):
        await Server("test").asgi(token=TOKEN)({"type": "other"}, receive, send)


async def test_a_response_that_is_refused_over_http2_has_no_connection_field() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is not asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    for version, fields in (("2", []), ("1.1", [(b"connection", b"close")])):
        sent.clear()
        app = Server("test").asgi(token=TOKEN)
        await app(scope("evil.example", ("127.0.0.1", 1), http_version=version), receive, send)
        assert sent[0]["status"] == 421
        assert [field for field in sent[0]["headers"] if field[0] == b"connection"] == fields


def test_a_token_that_is_made_is_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    app = Server("test").asgi()
    assert app.token is not None and f"Token: {app.token}\n" in capsys.readouterr().err
    Server("test").asgi(token=TOKEN)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["mcp", "/sse", "/messages/"])
async def test_a_path_that_cannot_be_served_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        await Server("test", http_sse=True).asgi(path=path, token=TOKEN).__aenter__()


# WebSocket, as a host of ASGI hands it over


class HostSocket:
    """One `websocket` scope, and what was sent on it."""

    def __init__(self, app: Any, token: str = TOKEN, port: int = 5000) -> None:
        self.sent: list[dict[str, Any]] = []
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.received.put_nowait({"type": "websocket.connect"})
        self.takes = asyncio.Event()
        self.takes.set()
        scope = {
            "type": "websocket",
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:80"), (b"authorization", f"Bearer {token}".encode())],
            "client": ("127.0.0.7", port),
            "server": ("127.0.0.1", 80),
            "subprotocols": ["mcp"],
        }
        self.task = asyncio.ensure_future(app(scope, self.received.get, self._send))

    async def _send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)
        await asyncio.sleep(0)
        await self.takes.wait()

    def say(self, value: object) -> None:
        self.received.put_nowait({"type": "websocket.receive", "text": json.dumps(value)})


async def test_handshakes_at_once_find_no_more_places_than_there_are() -> None:
    app = Server("x", policy=SecurityPolicy(limits=Limits(connections=4))).asgi(
        token=TOKEN, websocket=WebSocketConfig()
    )
    sockets = [HostSocket(app, port=5000 + number) for number in range(20)]
    await asyncio.sleep(0.2)
    assert sum(each.sent[0]["type"] == "websocket.accept" for each in sockets) == 4
    for each in sockets:
        each.task.cancel()
    await asyncio.wait([each.task for each in sockets])
    late = HostSocket(app)
    await asyncio.sleep(0.05)
    assert late.sent[0]["type"] == "websocket.accept"
    late.received.put_nowait({"type": "websocket.disconnect"})
    await late.task
    await app.__aexit__(None, None, None)


async def test_a_refused_handshake_is_recorded_with_its_peer(caplog: pytest.LogCaptureFixture) -> None:
    app = Server("x").asgi(token=TOKEN, websocket=WebSocketConfig())
    socket = HostSocket(app, token="not-the-token")
    await socket.task
    assert [each["type"] for each in socket.sent] == ["websocket.close"]
    assert [record.__dict__["peer"] for record in caplog.records] == ["127.0.0.7"]


async def test_a_peer_that_is_put_out_while_it_is_written_to_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("x", policy=SecurityPolicy(limits=Limits(outbound_bytes=1000)))

    @server.tool()
    async def later(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "x" * 3000

    ended: list[BaseException | None] = []
    write = AsgiSocket._write  # its task ends unseen

    async def watched(self: AsgiSocket, send: Any) -> None:
        try:
            await write(self, send)
        except BaseException as exc:
            ended.append(exc)
            raise
        ended.append(None)

    monkeypatch.setattr(AsgiSocket, "_write", watched)
    app = server.asgi(token=TOKEN, websocket=WebSocketConfig())
    socket = HostSocket(app)
    await asyncio.sleep(0.05)
    socket.takes.clear()
    for number in range(8):
        socket.say(modern("tools/call", {"name": "later", "arguments": {"seconds": 0.05 + number / 100}}, number))
    await asyncio.sleep(0.3)
    socket.takes.set()
    async with asyncio.timeout(5):
        await socket.task
    assert ended == [None]
    await app.__aexit__(None, None, None)
