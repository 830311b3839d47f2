"""The ASGI face and its host: under which names it is called, when it starts and ends, and WebSockets handed over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from garrison import ConfigurationError, Limits, SecurityPolicy, Server
from garrison.policy.transports import WebSocketConfig
from garrison.transports.http.asgi_websocket import AsgiSocket
from tests.support.mcp import modern
from tests.transports.asgi import MODERN, TOUCH, ask, make, scope
from tests.transports.hosts import META, TOKEN, Hosts, call, policy


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.close()


# Names of the listener


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
    server = Server("x", policy=policy(outbound_bytes=1000, shutdown=0.2))

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
