"""Attacks on HTTP that are not one malformed request: where it is mounted, what it says of itself, floods, events."""

from __future__ import annotations

import asyncio
import errno
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from garrison import Client, Context, InsecureConfigurationError, Limits, SecurityPolicy, Server, Timeouts
from garrison.policy.rates import Rates
from tests.attacks.target import Target
from tests.support.everywhere import call as text_of_call
from tests.support.everywhere import door, uvicorn_serving
from tests.support.mcp import call, modern_fields, post, until
from tests.support.raw_http import TOKEN, Response, changed, connected, exchange, request, serving, standard
from tests.support.roomy import RAW_TEXT, ROOMY_RATES

QUICK = Timeouts(shutdown=0.2)


def echoing(ran: list[str], **policy: Any) -> Server:
    server = Server("http", policy=SecurityPolicy(timeouts=QUICK, **policy))

    @server.tool(inline=True)
    def echo(text: str) -> str:
        ran.append(text)
        return text

    return server


@asynccontextmanager
async def mounted(server: Server) -> AsyncIterator[int]:
    """The server below /x of an application that lets every page read everything."""

    async def hello(_: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(
        routes=[Route("/", hello), Mount("/x", server.asgi(token=TOKEN))],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
    )
    async with uvicorn_serving(app) as port:
        yield port


@pytest.mark.attack("ATK-021")
async def test_open_cors_of_the_application_around_it_opens_nothing() -> None:
    ran: list[str] = []
    async with mounted(echoing(ran)) as port:

        async def ask(**changes: str | None) -> Response:
            body = json.dumps(call("echo", {"text": "x"})).encode()
            fields = changed(modern_fields(port, call("echo")), **changes)
            return await exchange(port, request(body, fields, target="/x/mcp"))

        for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1:{port}.evil.example", f"0.0.0.0:{port}"):
            assert (await ask(host=host)).status in (400, 421)
        for origin in ("http://evil.example", "null", f"http://localhost:{port}.evil.example", "https://app.example"):
            assert (await ask(origin=origin)).status == 403
        assert (await ask(sec_fetch_site="cross-site")).status == 403
        assert (await ask(authorization=None, origin="http://evil.example")).status == 403
        assert ran == []
        assert (await ask(origin=f"http://127.0.0.1:{port}")).status == 200
        assert (await ask()).status == 200
        assert ran == ["x", "x"]
        # The application around it is as open as it says.
        hello = request(
            b"", [("Host", f"127.0.0.1:{port}"), ("Origin", "http://evil.example")], method="GET", target="/"
        )
        assert (await exchange(port, hello)).get("access-control-allow-origin") == "*"


@pytest.mark.attack("ATK-013")
async def test_an_open_bind_with_all_it_needs_is_asked_under_foreign_names() -> None:
    ran: list[str] = []
    with pytest.raises(InsecureConfigurationError):
        await echoing(ran).http("0.0.0.0", 0).start()
    server = echoing(ran, allowed_hosts=("mcp.example",), trusted_proxies=("127.0.0.2",))
    async with server.http("0.0.0.0", 0, token=TOKEN) as running:
        port = running.port
        for host in ("evil.example", "mcp.example.evil.example", "evil.example:443", "0.0.0.0", f"0.0.0.0:{port}"):
            assert (await exchange(port, post(port, call("echo", {"text": "x"}), host=host))).status in (400, 421)
        assert (await exchange(port, post(port, call("echo", {"text": "x"}), None, host="mcp.example"))).status == 401
        assert ran == []
        assert (await exchange(port, post(port, call("echo", {"text": "x"}), host="mcp.example"))).status == 200
        assert ran == ["x"]


@pytest.mark.attack("ATK-023")
async def test_what_the_server_says_of_itself_does_not_come_from_host() -> None:
    """There is no metadata document; the challenge, refusals and the address of a stream say nothing of the name."""
    server = Server("sse", policy=SecurityPolicy(timeouts=QUICK, allowed_hosts=("alias.example",)), http_sse=True)
    async with serving(server) as running:
        port = running.port
        for host in ("alias.example", f"127.0.0.1:{port}"):
            told = await exchange(port, post(port, call("echo"), None, host=host))
            assert told.status == 401
            assert told.get("www-authenticate") == "Bearer"
            for target in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
                fields = changed(standard(port), host=host)
                absent = await exchange(port, request(b"", fields, method="GET", target=target))
                assert absent.status == 404
                assert b"alias" not in absent.body
            async with connected(port) as wire:
                await wire.send(request(b"", changed(standard(port), host=host), method="GET", target="/sse"))
                assert (await wire.head()).status == 200
                event = await wire.event()
                assert event["event"] == "endpoint"
                assert event["data"].startswith("/messages")
                assert "alias" not in event["data"]
        refused = await exchange(port, post(port, call("echo"), host="evil.example"))
        assert refused.status == 421
        assert b"evil" not in refused.body and not any("evil" in value for _, value in refused.fields)


def _requests(port: int, prefix: str) -> list[tuple[int, bytes]]:
    """A request for every kind of response there is, and the status it has to get."""
    body = json.dumps(call("echo", {"text": "x"})).encode()
    good = modern_fields(port, call("echo"))

    def ask(content: bytes = body, *, method: str = "POST", target: str = "/mcp", **changes: str | None) -> bytes:
        return request(content, changed(good, **changes), method=method, target=prefix + target)

    told = b'{"jsonrpc":"2.0","method":"notifications/unheard"}'
    handshake = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    opening = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": handshake}).encode()
    unknown = json.dumps({**call("echo"), "method": "nothing"}).encode()
    return [
        (200, ask()),
        (200, ask(opening, mcp_protocol_version=None)),
        (200, ask(json.dumps(call("progress", progressToken=1)).encode(), mcp_name="progress")),
        (200, ask(origin=f"http://127.0.0.1:{port}")),
        (200, ask(origin="https://app.example")),
        (202, ask(told)),
        (400, ask(b"{")),
        (400, ask(mcp_name="other")),
        (400, ask(host="a b")),
        (401, ask(authorization=None)),
        (401, ask(authorization="Bearer wrong")),
        (403, ask(origin="http://evil.example")),
        (403, ask(b"", method="OPTIONS", origin="http://evil.example")),
        (404, ask(target="/nothing")),
        (404, ask(unknown, mcp_method="nothing")),
        (405, ask(b"", method="PUT")),
        (405, ask(b"", method="OPTIONS")),
        (406, ask(accept="text/html")),
        (413, ask(b"x" * 5_000)),
        (415, ask(content_type="text/plain")),
        (415, ask(content_encoding="gzip")),
        (421, ask(host="evil.example")),
    ]


@pytest.mark.attack("ATK-024")
@pytest.mark.parametrize("place", ["edge", "asgi", "mounted"])
async def test_every_kind_of_response_has_the_security_headers_and_no_banner(place: str) -> None:
    ran: list[str] = []
    server = echoing(ran, limits=Limits(message_bytes=4_000), allowed_origins=("https://app.example",))

    @server.tool()
    async def progress(ctx: Context) -> str:
        await ctx.progress(1)
        return "done"

    @asynccontextmanager
    async def started() -> AsyncIterator[tuple[int, str]]:
        if place == "edge":
            async with serving(server) as running:
                yield running.port, ""
        elif place == "asgi":  # the banner would be the host's own
            async with uvicorn_serving(server.asgi(token=TOKEN), server_header=False) as port:
                yield port, ""
        else:
            app = Starlette(routes=[Mount("/x", server.asgi(token=TOKEN))])
            async with uvicorn_serving(app, server_header=False) as port:
                yield port, "/x"

    seen: Counter[int] = Counter()
    streams = 0
    async with started() as (port, prefix):
        requests = _requests(port, prefix)
        if place == "edge":  # elsewhere the head is the host's business
            requests.append((431, post(port, call("echo"), x_long="x" * 20_000)))
        for status, data in requests:
            response = await exchange(port, data)
            assert response.status == status, (data[:200], response)
            seen[status] += 1
            assert response.get("x-content-type-options") == "nosniff", response
            assert response.get("cache-control") == "no-store", response
            assert response.get("referrer-policy") == "no-referrer", response
            assert response.get("server") is None and response.get("x-powered-by") is None
            assert response.get("access-control-allow-origin") in (
                None,
                "https://app.example",
                f"http://127.0.0.1:{port}",
            )
            assert status == 200 or not any(word in response.body for word in (b"arrison", b"ython", b"uvicorn"))
            kind = response.get("content-type")
            assert kind in (None, "application/json", "text/event-stream"), kind
            streams += kind == "text/event-stream"
    assert len(seen) == (12 if place == "edge" else 11)
    assert streams == 1


class _Gate:
    """A server whose `hold` runs until it is let go."""

    def __init__(self, limits: Limits, rates: Rates) -> None:
        self.under_way = self.most = self.done = 0
        self.open = asyncio.Event()
        self.server = server = Server("flood", policy=SecurityPolicy(limits=limits, timeouts=QUICK, rates=rates))

        @server.tool()
        async def hold() -> str:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await self.open.wait()
            finally:
                self.under_way -= 1
            self.done += 1
            return "held"

        @server.tool(inline=True)
        def echo(text: str) -> str:
            return text


async def _flood(port: int, calls: int) -> list[asyncio.Task[int]]:
    """That many calls at once, each on its own connection: the statuses; 0 where the connection was closed."""
    data = post(port, call("hold"))

    async def one() -> int:
        try:
            return (await exchange(port, data)).status
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0

    return [asyncio.create_task(one()) for _ in range(calls)]


@pytest.mark.attack("ATK-042")
@pytest.mark.parametrize(
    ("limits", "most"),
    [
        # From one address, with as many calls as it likes, connections run out first.
        (Limits(), Limits().connections_per_address),
        # With as many connections as it likes, one principal has what one principal may have.
        (Limits(connections=2_000, connections_per_address=2_000), Limits().in_flight_per_principal),
        (Limits(connections=2_000, connections_per_address=2_000, in_flight_per_principal=40), 40),
    ],
    ids=["default", "many connections", "few calls"],
)
async def test_a_flood_of_slow_calls_with_one_token(limits: Limits, most: int) -> None:
    gate = _Gate(limits, ROOMY_RATES)
    async with serving(gate.server) as running:
        tracemalloc.start()
        tasks = await _flood(running.port, 1_000)
        await until(lambda: sum(task.done() for task in tasks) >= 1_000 - most, 20)
        await asyncio.sleep(0.05)
        assert gate.under_way == gate.most == most
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * 16 * 1024 * 1024
        refused = Counter(task.result() for task in tasks if task.done())
        assert refused.keys() <= {0, 429, 503} and refused.total() == 1_000 - most
        if limits.connections > 1_000:
            assert refused.keys() == {429}
            # What waits for nothing is still served, and so is whoever comes later.
            assert (await exchange(running.port, post(running.port, call("echo", {"text": "x"})))).status == 200
        gate.open.set()
        held = Counter(await asyncio.gather(*tasks))
        assert held[200] == gate.done == most
        again = await _flood(running.port, most)
        assert Counter(await asyncio.gather(*again)) == {200: most}


@pytest.mark.attack("ATK-042")
async def test_a_flood_of_slow_calls_is_over_its_rate_first(caplog: pytest.LogCaptureFixture) -> None:
    """By default, the calls of one burst begin, and what the time since is worth."""
    rate, most = Rates().principal, Limits().in_flight_per_principal
    gate = _Gate(Limits(connections=2_000, connections_per_address=2_000), Rates())
    async with serving(gate.server) as running:
        began = time.monotonic()
        tasks = await _flood(running.port, 1_000)
        await until(lambda: sum(task.done() for task in tasks) + gate.under_way == 1_000, 20)
        begun = gate.under_way
        assert rate.burst <= begun <= min(most, rate.burst + rate.per_second * (time.monotonic() - began))
        assert Counter(task.result() for task in tasks if task.done()) == {429: 1_000 - begun}
        assert "(Rates.principal)" in caplog.text
        gate.open.set()
        held = Counter(await asyncio.gather(*tasks))
        assert held[200] == gate.done == gate.most == begun
        # The time pays, and then the same caller is served.
        await asyncio.sleep(2 / rate.per_second)
        assert (await exchange(running.port, post(running.port, call("echo", {"text": "x"})))).status == 200


@pytest.mark.attack("ATK-040")
@pytest.mark.attack("ATK-034")
async def test_a_reset_at_the_wrong_moment_takes_no_deadline_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's reset has arrived, but not at the loop, when the server closes its half: the system then fails."""
    from asyncio import selector_events

    moments: list[object] = []

    def write_eof(transport: object) -> None:
        moments.append(transport)
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    target = Target(head=0.2)
    async with serving(target.server) as running:
        with monkeypatch.context() as patch:
            patch.setattr(selector_events._SelectorSocketTransport, "write_eof", write_eof)  # type: ignore[attr-defined]
            async with connected(running.port) as first:
                await first.send(b"POST /mcp HTTP/1.1\r\n")
                await first.ended()
        assert len(moments) == 1
        async with connected(running.port) as second:
            await second.send(b"POST /mcp HTTP/1.1\r\n")
            assert (await second.response()).status == 408
            assert await second.ended() == b""
        assert (await exchange(running.port, post(running.port, call("echo", {"text": "x"})))).status == 200


HOSTILE = (
    "a\r\n\r\ndata: {}\r\n\r\n",
    "a\nevent: x\ndata: 1",
    'a\r\rdata: {"jsonrpc":"2.0","id":1,"result":{}}\r\r',
    "a\n\nid: 7\nretry: 1\n\n:",
    "a\u2028data: 1\u2029\x0b\x0c\x85\x1e",
    "\ufeffdata: x\x00y",
)
WRITTEN_OUT = (
    "a\r\n\r\ndata: {}\r\n\r\n",
    "a\nevent: x\ndata: 1",
    'a\u240d\u240ddata: {"jsonrpc":"2.0","id":1,"result":{}}\u240d\u240d',
    "a\n\nid: 7\nretry: 1\n\n:",
    "a\u2028data: 1\u2029\u240b\u240c<U+0085>\u241e",
    "<U+FEFF>data: x\u2400y",
)
"""The same with what no reader sees written out, as it leaves by default."""
SAID = pytest.mark.parametrize(
    ("said", "reason"), [(WRITTEN_OUT, ""), (HOSTILE, RAW_TEXT)], ids=["written out", "as it is"]
)


@pytest.mark.attack("ATK-047")
@pytest.mark.parametrize("door_kind", ["http", "session", "asgi"])
@SAID
async def test_line_breaks_in_what_a_handler_says_make_no_event(
    door_kind: str, said: tuple[str, ...], reason: str
) -> None:
    server = Server("sse", policy=SecurityPolicy(timeouts=QUICK, dangerously_skip_hygiene=reason))

    @server.tool()
    async def talk(ctx: Context) -> str:
        for number, text in enumerate(HOSTILE, 1):
            await ctx.progress(number, message=text)
            await ctx.log("error", text, logger=text)
            await ctx.log("error", {text: [text]})
        return "".join(HOSTILE)

    more = ',"progressToken":"t\\r\\n\\r\\ndata: {}","io.modelcontextprotocol/logLevel":"debug"'
    async with door(door_kind, server) as at, at.connect() as line:
        await line.send(at.message(text_of_call("talk", "{}", '"7 \\u2028 data: x"', more=more)))
        for number, text in enumerate(said, 1):
            progress, logged, structured = [(await line.receive()).json for _ in range(3)]
            assert progress["method"] == "notifications/progress"
            assert progress["params"]["message"] == text and progress["params"]["progress"] == number
            assert logged["params"]["data"] == logged["params"]["logger"] == text
            assert structured["params"]["data"] == {text: [text]}
        last = (await line.receive()).json
        assert last["id"] == "7 \u2028 data: x"
        assert last["result"]["content"][0]["text"] == "".join(said)
        await asyncio.sleep(0.05)
        assert line.incoming.empty()


@pytest.mark.attack("ATK-047")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@SAID
async def test_a_client_reads_exactly_the_events_that_were_meant(era: Any, said: tuple[str, ...], reason: str) -> None:
    server = Server("sse", policy=SecurityPolicy(timeouts=QUICK, dangerously_skip_hygiene=reason))

    @server.tool()
    async def talk(ctx: Context) -> str:
        for number, text in enumerate(HOSTILE, 1):
            await ctx.progress(number, message=text)
            await ctx.log("error", text)
        return "done"

    heard: list[object] = []
    async with server.http(port=0, token=TOKEN) as running:
        async with Client(
            running.url,
            token=TOKEN,
            era=era,
            log_level="debug",
            on_log=lambda message: heard.append(message.data),
            on_notification=lambda notification: None,
        ) as client:
            reports: list[object] = []
            result = await client.call_tool(
                "talk", on_progress=lambda report, *_: reports.append(getattr(report, "message", report))
            )
            assert result.content[0].text == "done"  # type: ignore[union-attr]
            assert heard == list(said)
            assert len(reports) == len(HOSTILE)
            assert not client.dropped


async def test_the_target_serves_every_tool_that_the_attacks_name() -> None:
    target = Target()
    async with door("memory", target.server) as at:
        for name, arguments in (("echo", '{"text":"x"}'), ("admin_reset", "{}"), ("scale", '{"x":1}')):
            assert (await at.verdict(text_of_call(name, arguments))).word == "answered"
        assert target.ran == ["echo x", "admin_reset", "scale 1.0"]
