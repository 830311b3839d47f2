"""Kill, hang, flood and lie in the middle of a call: a typed error in time, nothing left behind, nothing repeated."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Limits, SecurityPolicy, Timeouts
from garrison.errors import ClientError, ConnectionLost, HttpError, LaunchRefused, ProtocolViolation, RequestTimeout
from garrison.host import LocalServer, RemoteServer
from tests.client.fakes import EVENTS, PRELUDE, Request, chunk, discovery, http_server, respond
from tests.client.fakes import result as result_of
from tests.safe.programs import alive, until
from tests.support.hosted import Json, Offer, Scene, hosted, text, tool

pytestmark = pytest.mark.client

CALLED = ("one", "two", "three")
TOOLS: list[Json] = [tool(name) for name in (*CALLED, "honest")]
SECONDS = 0.5
POLICY = SecurityPolicy(
    timeouts=Timeouts(request=SECONDS, connect=5.0, shutdown=0.3), limits=Limits(message_bytes=1 << 20)
)


async def attacked(scene: Scene, error: Any) -> None:
    """Three models wait while the server does its worst; each is told in time, and the other server answers."""
    began = time.monotonic()
    waiting = [asyncio.ensure_future(scene.host.call(f"bad.{name}")) for name in CALLED]
    other = asyncio.ensure_future(scene.host.call("good.look"))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert time.monotonic() - began < 10, outcomes
    assert all(isinstance(outcome, ClientError) for outcome in outcomes), outcomes
    assert any(isinstance(outcome, error) for outcome in outcomes), outcomes
    assert (await asyncio.wait_for(other, 5)).plain == "ok"
    ended = {event.target: event for event in scene.told("call.ended") if event.server == "bad"}
    assert ended, "what was sent is on record; a call that found the server gone was not sent"
    assert all(event.outcome == "error" and event.error for event in ended.values())
    late = [event for event in ended.values() if event.duration > SECONDS + 1]
    assert not late, "each is told within a second of its deadline"
    assert (await scene.host.call("good.look")).plain == "ok"


# A local server

SERVER = """
log = open({log!r}, "a")
for m in messages():
    if m.get("method") == "server/discover":
        discover(m)
    elif m.get("method") == "tools/list":
        result(m, tools={tools!r}, ttlMs=0, cacheScope="private")
    elif m.get("method") == "tools/call":
        name = m["params"]["name"]
        log.write(f"{{name}} {{os.getpid()}}\\n"); log.flush()
        if name == "honest":
            text(m, "good")
        else:
{bad}
"""

OVER_STDIO: dict[str, tuple[str, Any]] = {
    "exits": ("os._exit(1)", ConnectionLost),
    "is killed": ("os.kill(os.getpid(), 9)", ConnectionLost),
    "closes its output": ("os.close(1); time.sleep(60)", (ConnectionLost, RequestTimeout)),
    "hangs": ("time.sleep(60)", RequestTimeout),
    "stops": ("os.kill(os.getpid(), 19)", RequestTimeout),
    "leaves a child": ("os.fork() or time.sleep(60); os._exit(1)", ConnectionLost),
    "floods with notifications": (
        "while True: send({'jsonrpc': '2.0', 'method': 'notifications/x', 'params': {'a': 'b' * 99}})",
        RequestTimeout,
    ),
    "floods with rubbish": ("while True: sys.stdout.write('{]\\n' * 999)", (RequestTimeout, ProtocolViolation)),
    "floods without a line": ("while True: sys.stdout.write('x' * 65536)", (RequestTimeout, ProtocolViolation)),
    "floods standard error": ("while True: os.write(2, b'\\x1b[31mx' * 9999)", RequestTimeout),
    "lies about the type": ("result(m, content='lie')", ProtocolViolation),
    "lies about the result": ("send({'jsonrpc': '2.0', 'id': m['id'], 'result': 7})", ProtocolViolation),
    "answers another request": ("m['id'] += 1000; text(m, 'lie')", RequestTimeout),
    "answers in a batch": ("send([{'jsonrpc': '2.0', 'id': m['id'], 'result': {}}])", RequestTimeout),
}


def bad_server(folder: Path, bad: str) -> LocalServer:
    path = folder / "server.py"
    body = SERVER.format(log=str(folder / "calls"), tools=TOOLS, bad=textwrap.indent(bad, " " * 12))
    path.write_text(PRELUDE + body)
    return LocalServer([sys.executable, str(path)], sandbox="off", policy=POLICY)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.attack("ATK-237", transports=("stdio",))
@pytest.mark.attack("ATK-238", transports=("stdio",))
@pytest.mark.parametrize("bad", OVER_STDIO)
async def test_a_local_server_that(tmp_path: Path, bad: str) -> None:
    body, error = OVER_STDIO[bad]
    server = bad_server(tmp_path, body)
    async with hosted("stdio", {"bad": server, "good": Offer([tool("look")])}) as scene:
        assert (await scene.host.call("bad.honest")).plain == "good"
        scene.events.clear()
        await attacked(scene, error)
    lines = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    called = [name for name, _ in lines if name != "honest"]
    assert len(called) == len(set(called)), "no call was repeated"
    await until(lambda: not any(alive(int(process)) for _, process in lines), 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.attack("ATK-238", transports=("stdio",))
async def test_a_server_that_was_killed_is_started_again_and_no_call_twice(tmp_path: Path) -> None:
    """The twin: what was lost is lost, and what comes after is answered, by a program that was looked at again."""
    server = bad_server(tmp_path, "os.kill(os.getpid(), 9)")
    async with hosted("stdio", {"bad": server}) as scene:
        with pytest.raises(ConnectionLost):
            await scene.host.call("bad.one")
        assert (await scene.host.call("bad.honest")).plain == "good"
        path = tmp_path / "server.py"
        with pytest.raises(ConnectionLost):
            await scene.host.call("bad.two")
        path.write_text(path.read_text().replace('"good"', '"another program"'))
        for _ in range(2):
            with pytest.raises(LaunchRefused):
                await scene.host.call("bad.honest")
        assert [event.server for event in scene.told("launch.refused")] == ["bad"] * 2
    names = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert names == ["one", "honest", "two"]


# A server over HTTP

OVER_HTTP: dict[str, Any] = {
    "resets": ConnectionLost,
    "closes": ConnectionLost,
    "sends half": ConnectionLost,
    "ends the stream": ConnectionLost,
    "hangs": RequestTimeout,
    "hangs in the head": RequestTimeout,
    "hangs in the stream": RequestTimeout,
    "floods with comments": RequestTimeout,
    "floods with notifications": RequestTimeout,
    "floods with one answer": ProtocolViolation,
    "floods with one event": ProtocolViolation,
    "says 502": HttpError,
    "sends us elsewhere": HttpError,
    "lies about the type": ProtocolViolation,
    "answers another request": ProtocolViolation,
    "says no JSON": ProtocolViolation,
    "says HTML": ProtocolViolation,
}


async def _misbehave(bad: str, request: Request, writer: asyncio.StreamWriter) -> object:
    flood = {
        "floods with comments": (EVENTS, chunk(b":\n" * 1000)),
        "floods with notifications": (
            EVENTS,
            chunk(b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n' * 100),
        ),
        "floods with one answer": (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk(b" " * 65536),
        ),
        "floods with one event": (EVENTS + chunk(b"data: "), chunk(b"x" * 65536)),
    }
    plain = {
        "says 502": respond(b"", status="502 Bad Gateway"),
        "sends us elsewhere": respond(
            b"", status="307 Temporary Redirect", extra="Location: http://evil.example/mcp\r\n"
        ),
        "says no JSON": respond(b"{]"),
        "says HTML": respond(b"<html>", kind="text/html"),
    }
    if bad in flood:
        head, piece = flood[bad]
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
    elif bad in plain:
        writer.write(plain[bad])
    elif bad.startswith("hangs"):
        writer.write({"hangs in the head": b"HTTP/1.1 20", "hangs in the stream": EVENTS}.get(bad, b""))
        await asyncio.sleep(30)
    elif bad == "resets":
        writer.transport.abort()
    elif bad == "closes":
        writer.close()
    elif bad == "sends half":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        writer.close()
    elif bad == "ends the stream":
        writer.write(EVENTS + chunk(b": hello\n\n") + b"0\r\n\r\n")
    elif bad == "lies about the type":
        return result_of(request, {"content": "lie"})
    else:
        return {**result_of(request, text("lie")), "id": 7}
    return None


@asynccontextmanager
async def bad_http(bad: str, calls: list[str]) -> AsyncIterator[str]:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.method == "tools/list":
            return result_of(request, {"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"})
        if request.method != "tools/call":
            return None
        name = request.params["name"]
        calls.append(name)
        return result_of(request, text("good")) if name == "honest" else await _misbehave(bad, request, writer)

    async with http_server(serve) as fake:
        yield fake.url


@pytest.mark.attack("ATK-237", transports=("http",))
@pytest.mark.attack("ATK-238", transports=("http",))
@pytest.mark.parametrize("bad", OVER_HTTP)
async def test_a_server_over_http_that(bad: str) -> None:
    calls: list[str] = []
    async with bad_http(bad, calls) as url:
        servers = {"bad": RemoteServer(url, policy=POLICY), "good": Offer([tool("look")])}
        async with hosted("http", servers) as scene:
            assert (await scene.host.call("bad.honest")).plain == "good"
            scene.events.clear()
            await attacked(scene, OVER_HTTP[bad])
            assert sorted(name for name in calls if name != "honest") == sorted(CALLED), "each once"
            assert (await scene.host.call("bad.honest")).plain == "good"  # and it may be used on


@pytest.mark.attack("ATK-238", transports=("stdio", "http"))
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_model_is_told_in_the_host_s_words_that_it_may_have_happened(transport: str, tmp_path: Path) -> None:
    calls: list[str] = []
    async with bad_http("hangs", calls) as url:
        stdio = bad_server(tmp_path, "time.sleep(60)")
        bad: Any = stdio if transport == "stdio" else RemoteServer(url, policy=POLICY)
        async with hosted(transport, {"bad": bad}) as scene:
            told = await scene.says("bad.one")
            assert "did not answer in time" in told and "may or may not have been carried out" in told
            assert "untrusted" not in told and os.fspath(tmp_path) not in told and "127.0.0.1" not in told
            if transport == "http":
                assert "good" in await scene.says("bad.honest")
