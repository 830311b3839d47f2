"""What a hostile server answers: each is refused with a typed error that says why, and the client goes on."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, Limits, SecurityPolicy, Timeouts, events, sanitize_for_llm
from garrison import types as t
from garrison.client.icons import check_icon, fetch_icon
from garrison.errors import (
    ClientError,
    ConnectionLost,
    HttpError,
    OutputInvalid,
    ProtocolViolation,
    RemoteError,
    RequestTimeout,
    ToolError,
)
from garrison.safe.fetch import SafeFetch
from tests.attacks.catalogue import CLIENT
from tests.attacks.hostile import Json, Say, answer, hostile, serving_script
from tests.client.fakes import (
    EVENTS,
    Request,
    chunk,
    discovery,
    http_server,
    listening,
    program,
    respond,
)
from tests.client.fakes import result as result_of

pytestmark = pytest.mark.client

over_every_transport = pytest.mark.parametrize("transport", CLIENT)
CACHED: Json = {"ttlMs": 0, "cacheScope": "private"}


def text(request: Json, said: str = "good", **more: Any) -> Json:
    return answer(request, {"content": [{"type": "text", "text": said}], **more})


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


async def names(client: Client) -> list[str]:
    return [found.name async for found in client.tools()]


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    """Every event of the test."""
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    yield heard
    stop()


def refusals(told: list[events.Event]) -> list[events.Event]:
    return [event for event in told if event.name == "response.refused"]


# Listings


async def _same_cursor(number: int) -> Json:
    return {"tools": [tool(f"t{number}")], "nextCursor": "again"}


async def _endless(number: int) -> Json:
    return {"tools": [], "nextCursor": f"c{number}"}


async def _endless_tools(number: int) -> Json:
    return {"tools": [tool(f"t{number}-{n}") for n in range(100)], "nextCursor": f"c{number}"}


async def _many(number: int) -> Json:
    return {"tools": [tool(f"t{n}") for n in range(513)]}


async def _large(number: int) -> Json:
    return {"tools": [tool("small"), tool("large", description="x" * 66_000)]}


async def _large_schema(number: int) -> Json:
    return {"tools": [tool("large", outputSchema={"enum": ["x" * 1000] * 70})]}


async def _long_cursor(number: int) -> Json:
    return {"tools": [], "nextCursor": f"{number}" + "c" * 70_000}


async def _slow(number: int) -> Json:
    await asyncio.sleep(0.12)
    return {"tools": [tool(f"t{number}")], "nextCursor": f"c{number}"}


async def _never(number: int) -> Json:
    await asyncio.sleep(60)
    return {"tools": []}


LISTINGS: list[Any] = [
    (_same_cursor, ProtocolViolation, "circle"),
    (_endless, ProtocolViolation, r"Limits\.pages"),
    (_endless_tools, ProtocolViolation, r"Limits\.tools"),
    (_many, ProtocolViolation, r"Limits\.tools"),
    (_large, ProtocolViolation, r"'large'.*Limits\.definition_bytes"),
    (_large_schema, ProtocolViolation, r"Limits\.definition_bytes"),
    (_long_cursor, ProtocolViolation, r"Limits\.definition_bytes"),
    (_slow, RequestTimeout, r"Timeouts\.listing"),
    (_never, RequestTimeout, r"Timeouts\.listing"),
]


@pytest.mark.attack("ATK-237")
@over_every_transport
@pytest.mark.parametrize(("page", "error", "words"), LISTINGS, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_listing_without_measure_ends(
    transport: str, page: Any, error: type[ClientError], words: str, told: list[events.Event]
) -> None:
    honest = False
    asked = 0

    async def script(request: Json, say: Say) -> None:
        nonlocal asked
        if request["method"] != "tools/list":
            say(text(request))
        elif honest:
            again = request["params"].get("cursor") is None
            more = {"nextCursor": "more"} if again else {}
            say(answer(request, {"tools": [tool("a" if again else "b", description="x" * 60_000)], **more, **CACHED}))
        else:
            asked += 1
            say(answer(request, {**await page(asked), **CACHED}))

    policy = SecurityPolicy(timeouts=Timeouts(listing=0.4))
    async with hostile(transport, script, policy=policy) as client:
        started = time.monotonic()
        with pytest.raises(error, match=words):
            await names(client)
        assert time.monotonic() - started < 5
        assert asked <= 101
        assert len(refusals(told)) == (error is ProtocolViolation)
        assert (await client.call_tool("work")).content  # the client is usable
        honest = True
        assert await names(client) == ["a", "b"]


@pytest.mark.attack("ATK-237")
async def test_other_listings_have_an_end_too() -> None:
    async def script(request: Json, say: Say) -> None:
        members = {
            "resources/list": ("resources", {"uri": "a:b", "name": "n"}),
            "resources/templates/list": ("resourceTemplates", {"uriTemplate": "a:{b}", "name": "n"}),
            "prompts/list": ("prompts", {"name": "n"}),
        }
        member, one = members[request["method"]]
        at = int(request["params"].get("cursor", "0"))
        more = {"nextCursor": str(at + 1)} if limited or not at else {}
        say(answer(request, {member: [one] * 5, **more, **CACHED}))

    async with hostile("unix", script, policy=SecurityPolicy(limits=Limits(listed=20))) as client:
        for walk in (client.resources, client.resource_templates, client.prompts):
            limited = True
            with pytest.raises(ProtocolViolation, match=r"Limits\.listed"):
                _ = [one async for one in walk()]
            limited = False
            assert len([one async for one in walk()]) == 10


async def test_time_that_the_caller_takes_is_not_the_listing_s() -> None:
    async def script(request: Json, say: Say) -> None:
        more = {} if request["params"].get("cursor") == "b" else {"nextCursor": "b"}
        say(answer(request, {"tools": [tool("t" + str(len(more)))], **more, **CACHED}))

    async with hostile("unix", script, policy=SecurityPolicy(timeouts=Timeouts(listing=0.2))) as client:
        found: list[str] = []
        async for each in client.tools():
            found.append(each.name)
            await asyncio.sleep(0.4)
        assert found == ["t1", "t0"]


# Results


@pytest.mark.attack("ATK-239")
@over_every_transport
async def test_what_breaks_the_output_schema_is_not_used(transport: str, told: list[events.Event]) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools = [tool("count", outputSchema=schema), tool("free")]
    values: Any = [{"n": "x"}, {}, [], None, "n", {"n": 1.5}]

    async def script(request: Json, say: Say) -> None:
        value = request["params"]["arguments"].get("value")
        say(text(request) if value == "nothing" else text(request, structuredContent=value))

    async with hostile(transport, script, tools=tools) as client:
        for value in (*values, "nothing"):
            with pytest.raises(OutputInvalid):  # listed or not yet: nobody has listed here
                await client.call_tool("count", {"value": value})
            await names(client)
        assert len(refusals(told)) == len(values) + 1
        assert (await client.call_tool("count", {"value": {"n": 1}})).structured_content == {"n": 1}
        assert (await client.call_tool("free", {"value": "anything"})).structured_content == "anything"


@pytest.mark.attack("ATK-239")
@pytest.mark.parametrize("listing", ["gone", "other", "same"])
async def test_a_schema_is_not_got_rid_of_by_saying_that_the_list_has_changed(listing: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    changed = False

    async def script(request: Json, say: Say) -> None:
        nonlocal changed
        if request["method"] == "tools/list":
            if changed and listing == "gone":
                say({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32603, "message": "no"}})
                return
            mine = tool("count") if changed and listing == "other" else tool("count", outputSchema=schema)
            say(answer(request, {"tools": [mine], **CACHED}))
            return
        changed = True
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        say(text(request, structuredContent={"n": "evil"}))

    async with hostile("unix", script) as client:
        await names(client)
        if listing == "other":  # the tool has a new definition, which a host would show
            assert (await client.call_tool("count")).structured_content == {"n": "evil"}
        else:
            with pytest.raises(OutputInvalid):
                await client.call_tool("count")


EVIL = "\x1b]0;evil\x07\u202egnp.exe\u200b\nERROR all is well\n" + "x" * 10_000


@over_every_transport
async def test_a_server_s_words_are_shown_and_cut_in_errors_and_stay_whole_as_data(transport: str) -> None:
    async def script(request: Json, say: Say) -> None:
        if request["params"]["name"] == "error":
            fault = {"code": 7, "message": EVIL, "data": {"more": EVIL}}
            say({"jsonrpc": "2.0", "id": request["id"], "error": fault})
        elif request["params"]["name"] == "type":
            say(text(request, resultType=EVIL))
        elif request["params"]["name"] == "enum":
            say(answer(request, {"content": [{"type": EVIL}]}))
        else:
            say(text(request, EVIL, isError=True))

    async with hostile(transport, script) as client:
        with pytest.raises(RemoteError) as remote:
            await client.call_tool("error")
        assert remote.value.message == EVIL and remote.value.data == {"more": EVIL}  # data is untouched
        with pytest.raises(ProtocolViolation) as kind:
            await client.call_tool("type")
        with pytest.raises(ProtocolViolation) as enum:
            await client.call_tool("enum")
        for caught in (remote, kind, enum):
            shown = str(caught.value)
            assert len(shown) < 600 and shown.isprintable() and "\n" not in shown
        assert "␛]0;evil" in str(remote.value) and "<U+202E>" in str(remote.value)
        with pytest.raises(ToolError) as failed:
            await client.call_tool("tool", raise_on_error=True)
        assert "\x1b" not in str(failed.value) and "\u202e" not in str(failed.value) and len(str(failed.value)) < 5_000
        result: Any = await client.call_tool("tool")
        assert result.content[0].text == EVIL


@over_every_transport
async def test_messages_that_go_the_other_way_reach_nobody(transport: str) -> None:
    async def script(request: Json, say: Say) -> None:
        for method in ("ping", "tools/call", "sampling/createMessage", "roots/list", "elicitation/create"):
            say({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
        for method in ("notifications/initialized", "notifications/roots/list_changed"):
            say({"jsonrpc": "2.0", "method": method})
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        say(text(request))

    heard: list[str] = []
    options: Any = {
        "on_sample": lambda _: pytest.fail("it was asked"),
        "on_roots": lambda: pytest.fail("it was asked"),
        "on_elicit": lambda _: pytest.fail("it was asked"),
        "on_notification": lambda notification: heard.append(notification.method),
    }
    async with hostile(transport, script, **options) as client:
        assert (await client.call_tool("work")).content
        await asyncio.sleep(0.02)
        assert heard == ["notifications/tools/list_changed"]
        assert client.dropped["request"] == 5 and client.dropped["notification"] == 2


@over_every_transport
async def test_an_answer_that_is_both_a_result_and_an_error_is_neither(transport: str) -> None:
    both = True

    async def script(request: Json, say: Say) -> None:
        error = {"error": {"code": 1, "message": "no"}} if both else {}
        say({**text(request), **error})

    async with hostile(transport, script) as client:
        with pytest.raises(ProtocolViolation):
            await client.call_tool("work", timeout=2)
        both = False
        assert (await client.call_tool("work")).content


async def test_more_questions_than_anybody_would_ask_are_not_asked() -> None:
    count = 129
    asked: list[object] = []

    async def script(request: Json, say: Say) -> None:
        if "inputResponses" in request["params"]:
            say(text(request, str(len(request["params"]["inputResponses"]))))
            return
        one = {"method": "roots/list", "params": {}}
        say(answer(request, {"resultType": "input_required", "inputRequests": {f"q{n}": one for n in range(count)}}))

    def roots() -> list[str]:
        asked.append(1)
        return []

    async with hostile("unix", script, on_roots=roots) as client:
        with pytest.raises(ProtocolViolation, match=r"Limits\.in_flight"):
            await client.call_tool("work")
        assert not asked
        count = 3
        result: Any = await client.call_tool("work")
        assert result.content[0].text == "3" and len(asked) == 3


# Floods: what a client keeps of them is measured in a process of its own


_FLOODED = """
import asyncio, sys
from garrison import Client, Limits, SecurityPolicy, Timeouts
from garrison.errors import ClientError

def peak():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) // 1024

async def main():
    target = sys.argv[1] if len(sys.argv) == 2 else sys.argv[1:]
    policy = SecurityPolicy(limits=Limits(message_bytes=4 * 1024 * 1024), timeouts=Timeouts(request=20, shutdown=0.2))
    async with Client(target, policy=policy) as client:
        await client.call_tool("honest")
        before = peak()
        try:
            await client.call_tool("flood")
        except ClientError as error:
            print(type(error).__name__, "Limits.message_bytes" in str(error))
        print(peak() - before)
        print((await client.call_tool("honest")).content[0].text)

asyncio.run(main())
"""

_STDIO_FLOOD = """
for m in messages():
    if m.get("method") == "server/discover":
        discover(m)
    elif m.get("params", {}).get("name") == "flood":
        sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{"x":"' % m["id"])
        for _ in range(64):
            sys.stdout.write("x" * 2**20)
        sys.stdout.write('"}}\\n'); sys.stdout.flush()
    elif "id" in m:
        text(m, "good")
"""


def _flood(shape: str) -> Any:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.params["name"] != "flood":
            return result_of(request, {"content": [{"type": "text", "text": "good"}]})
        block = b"x" * 2**20
        try:
            if shape == "json":
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (64 << 20)
                writer.write(head)
            elif shape == "crumbs":  # 4 MiB in pieces of two bytes
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                block = b"2\r\nxy\r\n" * 2**17
                writer.write(head)
            else:
                writer.write(EVENTS + (chunk(b"data: ") if shape == "event" else b""))
                block = chunk(b"data: x\n" * 2**17 if shape == "lines" else block)
            for _ in range(64):
                writer.write(block)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()
        return None

    return serve


async def _peak(*target: str) -> list[str]:
    source = str(Path(__file__).parents[2] / "src")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": source}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FLOODED, *target, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(), 60)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return out.decode().split("\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.attack("ATK-237")
@pytest.mark.parametrize("shape", ["json", "crumbs", "event", "lines", "line"])
async def test_of_a_flood_no_more_is_kept_than_the_limit(shape: str) -> None:
    if shape == "line":
        said = await _peak(*program(_STDIO_FLOOD))
    else:
        async with http_server(_flood(shape)) as fake:
            said = await _peak(fake.url)
    assert said[0] == "ProtocolViolation True", said
    assert int(said[1]) < 24, f"{said[1]} MiB more, of 64 that came and 4 that are allowed"
    assert said[2] == "good"


_PINGS = """
first = True
for m in messages():
    if m.get("method") == "initialize":
        info = {"serverInfo": {"name": "x", "version": "1"}, "capabilities": {"tools": {}}}
        send({"jsonrpc": "2.0", "id": m["id"], "result": {"protocolVersion": "2025-11-25", **info}})
    elif m.get("method") == "server/discover":
        error(m, -32601)
    elif m.get("params", {}).get("name") == "flood":
        n = 0
        block = 1000
        while n < 400000:  # and none of the answers is read
            sys.stdout.write("".join('{"jsonrpc":"2.0","id":"%d","method":"ping"}\\n' % i for i in range(n, n + block)))
            n += block
        sys.stdout.flush()
        send({"jsonrpc": "2.0", "id": m["id"], "error": {"code": 1, "message": "Limits.message_bytes"}})
    elif "id" in m and "method" in m:
        send({"jsonrpc": "2.0", "id": m["id"], "result": {"content": [{"type": "text", "text": "good"}]}})
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.attack("ATK-237")
async def test_a_server_that_asks_and_does_not_listen_fills_no_memory() -> None:
    said = await _peak(*program(_PINGS))
    assert said[0] == "RemoteError True"
    assert int(said[1]) < 16, f"{said[1]} MiB more"
    assert said[2] == "good"


# In the middle of a call


class _Counting:
    """A local server that does something bad in the middle of a call, and writes down how often it was called."""

    def __init__(self, folder: Path, bad: str) -> None:
        self.log = folder / "calls"
        self.argv = program(f"""
log = open({str(self.log)!r}, "a")
for m in messages():
    if m.get("method") == "server/discover":
        discover(m)
    elif "id" in m and m["params"].get("name") == "honest":
        text(m, "good")
    elif "id" in m:
        log.write(f"{{m['params']['name']}} {{os.getpid()}}\\n"); log.flush()
        {bad}
""")

    @property
    def calls(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()]

    @property
    def processes(self) -> set[int]:
        return {int(line.split()[1]) for line in self.log.read_text().splitlines()}


BAD: list[Any] = [
    ("os._exit(1)", ConnectionLost),
    ("os.kill(os.getpid(), 9)", ConnectionLost),
    ("os.close(1); time.sleep(60)", (ConnectionLost, RequestTimeout)),
    ("time.sleep(60)", RequestTimeout),
    ("os.kill(os.getpid(), 19)", RequestTimeout),
    (
        "\n        while True: send({'jsonrpc': '2.0', 'method': 'notifications/x', 'params': {'a': 'b' * 100}})",
        RequestTimeout,
    ),
    ("\n        while True: sys.stdout.write('{]\\n' * 1000)", RequestTimeout),
    ("\n        while True: sys.stdout.write('x' * 65536)", (ProtocolViolation, RequestTimeout)),
    (
        "send({'jsonrpc': '2.0', 'id': m['id'] + 1, 'result': {'resultType': 'complete', 'content': []}})",
        RequestTimeout,
    ),
    (
        "send({'jsonrpc': '2.0', 'id': m['id'], 'result': {'resultType': 'complete', 'content': 'lie'}})",
        ProtocolViolation,
    ),
    ("send({'jsonrpc': '2.0', 'id': m['id'], 'result': 7})", ProtocolViolation),
    ("send([{'jsonrpc': '2.0', 'id': m['id'], 'result': {}}])", RequestTimeout),
]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as stat:
        return stat.read().rsplit(")")[-1].split()[0] != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.attack("ATK-238")
@pytest.mark.parametrize(("bad", "error"), BAD)
async def test_in_the_middle_of_a_call_over_stdio(tmp_path: Path, bad: str, error: Any) -> None:
    server = _Counting(tmp_path, bad)
    policy = SecurityPolicy(timeouts=Timeouts(request=0.5, shutdown=0.2))
    async with Client(server.argv, policy=policy) as client:
        assert (await client.call_tool("honest")).content
        started = time.monotonic()
        waiters = [client.call_tool(name) for name in ("one", "two", "three")]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert time.monotonic() - started < 1.5
        assert any(isinstance(outcome, error) for outcome in outcomes)
        assert all(isinstance(outcome, ClientError) for outcome in outcomes), outcomes
    calls = server.calls
    assert len(calls) == len(set(calls))  # none was repeated
    assert not any(map(_alive, server.processes))


def _in_the_middle(bad: str, calls: list[str]) -> Any:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        name = request.params["name"]
        if name == "honest":
            return result_of(request, {"content": []})
        calls.append(name)
        if bad == "reset":
            writer.transport.abort()
        elif bad == "close":
            writer.close()
        elif bad == "half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
            writer.close()
        elif bad == "stream ends":
            writer.write(EVENTS + chunk(b": hello\n\n") + b"0\r\n\r\n")
        elif bad in ("hang", "hang in the head", "hang in the stream"):
            writer.write({"hang": b"", "hang in the head": b"HTTP/1.1 20"}.get(bad, EVENTS))
            await asyncio.sleep(30)
        elif bad in ("comments", "events", "heads"):
            piece = {
                "comments": chunk(b":\n" * 1000),
                "events": chunk(b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n' * 100),
                "heads": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
            }[bad]
            writer.write(b"" if bad == "heads" else EVENTS)
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
        elif bad == "status":
            return writer.write(respond(b"", status="502 Bad Gateway"))
        elif bad == "elsewhere":
            port = writer.get_extra_info("sockname")[1]
            away = f"Location: http://localhost:{port}/mcp\r\n"
            return writer.write(respond(b"", status="307 Temporary Redirect", extra=away))
        elif bad == "cookie and proxy":
            return writer.write(respond(b"", status="407 Proxy", extra="Proxy-Authenticate: Basic\r\n"))
        elif bad == "lie":
            return result_of(request, {"content": "lie"})
        elif bad == "other id":
            return {**result_of(request, {"content": []}), "id": 7}
        elif bad == "no json":
            return writer.write(respond(b"{]"))
        elif bad == "html":
            return writer.write(respond(b"<html>", kind="text/html"))
        elif bad == "gzip":
            return writer.write(respond(b"", extra="Content-Encoding: gzip\r\n"))
        return None

    return serve


OVER_HTTP: list[Any] = [
    ("reset", ConnectionLost),
    ("close", ConnectionLost),
    ("half", ConnectionLost),
    ("stream ends", ConnectionLost),
    ("hang", RequestTimeout),
    ("hang in the head", RequestTimeout),
    ("hang in the stream", RequestTimeout),
    ("comments", RequestTimeout),
    ("events", RequestTimeout),
    ("heads", (ProtocolViolation, RequestTimeout)),
    ("status", HttpError),
    ("elsewhere", HttpError),
    ("cookie and proxy", HttpError),
    ("lie", ProtocolViolation),
    ("other id", ProtocolViolation),
    ("no json", ProtocolViolation),
    ("html", ProtocolViolation),
    ("gzip", ProtocolViolation),
]


@pytest.mark.attack("ATK-238")
@pytest.mark.parametrize(("bad", "error"), OVER_HTTP)
async def test_in_the_middle_of_a_call_over_http(bad: str, error: Any) -> None:
    calls: list[str] = []
    policy = SecurityPolicy(timeouts=Timeouts(request=0.5, shutdown=0.2))
    async with http_server(_in_the_middle(bad, calls)) as fake, Client(fake.url, policy=policy) as client:
        assert not (await client.call_tool("honest")).content
        started = time.monotonic()
        waiters = [client.call_tool(name) for name in ("one", "two", "three")]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert time.monotonic() - started < 1.5
        assert all(isinstance(outcome, error) for outcome in outcomes), outcomes
        assert sorted(calls) == ["one", "three", "two"]  # each once
        assert not (await client.call_tool("honest")).content


# What is never fetched


@pytest.mark.attack("ATK-234")
@pytest.mark.attack("ATK-235")
@pytest.mark.attack("ATK-236")
@over_every_transport
async def test_nothing_that_a_server_names_is_fetched(transport: str) -> None:
    touched: list[bytes] = []

    async def canary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        touched.append(await reader.read(1000))
        writer.write(respond(b"", status="404 No"))
        writer.close()

    async with listening(canary) as port:
        away = f"http://127.0.0.1:{port}/?d=CANARY"
        icon = {"src": away, "mimeType": "image/png"}
        page = f'![x]({away}) [y]({away}) <img src="{away}"> <{away}>\n[z]: {away}\n\x1b]8;;{away}\x07link\x1b]8;;\x07'
        link = {"type": "resource_link", "uri": away, "name": "x", "icons": [icon]}
        local = {"type": "resource_link", "uri": "file:///etc/passwd", "name": "x"}
        words = {"type": "text", "text": page}

        async def script(request: Json, say: Say) -> None:
            method = request["method"]
            if method == "tools/call" and request["params"]["name"] == "fail":
                say(
                    {
                        "jsonrpc": "2.0",
                        "id": request["id"],
                        "error": {"code": 1, "message": page, "data": {"uri": away}},
                    }
                )
            elif method == "tools/call":
                inside = {"type": "resource", "resource": {"uri": away, "text": page}}
                say(answer(request, {"content": [words, link, local, inside]}))
            elif method == "resources/list":
                found = {"uri": away, "name": "x", "icons": [icon], "description": page}
                say(answer(request, {"resources": [found], **CACHED}))
            elif method == "resources/read":
                say(
                    answer(
                        request, {"contents": [{"uri": request["params"]["uri"], "text": "by the server"}], **CACHED}
                    )
                )
            else:
                say(answer(request, {"messages": [{"role": "user", "content": link}]}))

        tools = [tool("work", icons=[icon], description=page), tool("fail")]
        async with hostile(transport, script, tools=tools) as client:
            assert await names(client) == ["work", "fail"]
            result: Any = await client.call_tool("work")
            with pytest.raises(RemoteError):
                await client.call_tool("fail")
            _ = [found async for found in client.resources()]
            await client.get_prompt("p")
            read: Any = await client.read_resource(result.content[1].uri)
            assert read.contents[0].text == "by the server"  # a link is read by the server that gave it, or not at all
            read = await client.read_resource("file:///etc/passwd")
            assert read.contents[0].text == "by the server"
            await asyncio.sleep(0.05)
            assert not touched
            inert = sanitize_for_llm(result.content[0].text, markdown="inert")
            assert "](" not in inert and "<img" not in inert and "\x1b" not in inert and away not in inert
        reach = SafeFetch(private_hosts=[f"127.0.0.1:{port}"])
        await reach.get(away)  # the canary does sing
        assert len(touched) == 1


def png(width: int = 16, height: int = 16) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
        + width.to_bytes(4)
        + height.to_bytes(4)
        + b"\x08\x06\x00\x00\x00\x00\x00\x00\x00"
    )


@pytest.mark.attack("ATK-236")
@pytest.mark.parametrize(
    "source",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://example.com/icon.png",
        "https://evil.example/icon.png",
        "https://example.com:444/icon.png",
        "https://example.com.evil.example/icon.png",
        "https://user:password@example.com/icon.png",
        "https://example.com@evil.example/icon.png",
        "//example.com/icon.png",
        "/icon.png",
        "blob:https://example.com/1",
        "https://example.com\\@evil.example/i.png",
        "https://exa\u200bmple.com/i.png",
        "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+",
        "data:image/svg+xml,<svg onload='alert(1)'/>",
        "data:text/html;base64,PGI+",
        "data:image/png,x",
        "",
    ],
)
async def test_an_icon_that_is_not_the_server_s_own_picture_is_not_shown(source: str) -> None:
    with pytest.raises(ProtocolViolation):
        check_icon(t.Icon(src=source), "https://example.com/mcp")
    with pytest.raises(ProtocolViolation):
        await fetch_icon(t.Icon(src=source), "https://example.com/mcp")


@pytest.mark.attack("ATK-236")
async def test_an_icon_of_the_server_s_own_origin_may_be_fetched() -> None:
    icon = t.Icon(src="https://example.com/icon.png", mime_type="image/png")
    assert check_icon(icon, "https://example.com/mcp") == "https://example.com/icon.png"
    for own in (None, "https://other.example/mcp", "http://127.0.0.1:8000/mcp"):
        with pytest.raises(ProtocolViolation, match="own origin"):
            check_icon(icon, own)
    with pytest.raises(ProtocolViolation, match="not shown"):
        check_icon(t.Icon(src=icon.src, mime_type="image/svg+xml"), "https://example.com/mcp")
    with pytest.raises(ProtocolViolation, match="pixels"):
        check_icon(_data(png(20_000, 20_000)), None)
    with pytest.raises(ProtocolViolation, match="said to be"):
        check_icon(_data(png(), "image/webp"), None)
    with pytest.raises(ProtocolViolation, match="neither PNG"):
        check_icon(_data(b"<svg/>"), None)
    with pytest.raises(ProtocolViolation, match="bytes"):
        check_icon(_data(png() + bytes(300_000)), None)
    found = check_icon(_data(png(48, 32)), None)
    assert found == ("image/png", 48, 32, png(48, 32))


def _data(image: bytes, kind: str = "image/png") -> t.Icon:
    from base64 import b64encode

    return t.Icon(src=f"data:{kind};base64,{b64encode(image).decode()}")


# Headers


def _inside(place: Json) -> Json:
    return {"type": "object", "properties": {"a": place}}


HEADERS: list[Json] = [
    _inside({"type": "string", "x-mcp-header": ""}),
    _inside({"type": "string", "x-mcp-header": "a\r\nX-Evil: 1"}),
    _inside({"type": "string", "x-mcp-header": "a b"}),
    _inside({"type": "string", "x-mcp-header": "ä"}),
    _inside({"type": "string", "x-mcp-header": "a:"}),
    _inside({"type": "string", "x-mcp-header": 7}),
    _inside({"type": "string", "x-mcp-header": None}),
    _inside({"type": "number", "x-mcp-header": "A"}),
    _inside({"type": "object", "x-mcp-header": "A"}),
    _inside({"type": "array", "x-mcp-header": "A"}),
    _inside({"type": ["string"], "x-mcp-header": "A"}),
    _inside({"x-mcp-header": "A"}),
    {
        "type": "object",
        "properties": {
            "a": {"type": "string", "x-mcp-header": "Name"},
            "b": {"type": "string", "x-mcp-header": "NAME"},
        },
    },
    {"type": "object", "x-mcp-header": "A"},
    _inside({"anyOf": [{"type": "string", "x-mcp-header": "A"}]}),
    {"type": "object", "anyOf": [_inside({"type": "string", "x-mcp-header": "A"})]},
    {
        "type": "object",
        "$defs": {"a": {"type": "string", "x-mcp-header": "A"}},
        "properties": {"a": {"$ref": "#/$defs/a"}},
    },
    _inside({"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}),
    {"type": "object", "additionalProperties": {"type": "string", "x-mcp-header": "A"}},
    {"type": "object", "if": _inside({"type": "string", "x-mcp-header": "A"})},
]


@pytest.mark.attack("ATK-240")
async def test_a_tool_with_a_wrong_header_is_left_out_and_the_others_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    good = _inside({"type": "string", "x-mcp-header": "Region"})
    tools = [tool(f"bad{n}") | {"inputSchema": schema} for n, schema in enumerate(HEADERS)]
    tools += [tool("good") | {"inputSchema": good}, tool("plain")]

    async def script(request: Json, say: Say) -> None:
        say(text(request))

    async with hostile("http", script, tools=tools) as client:
        assert await names(client) == ["good", "plain"]
        assert [found.name for found in (await client.list_tools()).tools] == ["good", "plain"]
        for number in range(len(HEADERS)):
            assert any(f"'bad{number}'" in message for message in caplog.messages), HEADERS[number]
        assert (await client.call_tool("good", {"a": "eu"})).content
    async with hostile("unix", script, tools=tools) as client:  # without headers there is nothing wrong with them
        assert len(await names(client)) == len(tools)


@pytest.mark.attack("ATK-240")
async def test_a_tool_that_was_good_before_sends_no_header_once_it_is_bad() -> None:
    schema = _inside({"type": "string", "x-mcp-header": "Region"})

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.method == "tools/list":
            return result_of(request, {"tools": [tool("store") | {"inputSchema": schema}], **CACHED})
        return result_of(request, {"content": []})

    async with http_server(serve) as fake, Client(fake.url) as client:
        await names(client)
        await client.call_tool("store", {"a": "secret"})
        assert fake.requests[-1].headers["mcp-param-region"] == "secret"
        schema = _inside({"anyOf": [{"type": "string", "x-mcp-header": "Region"}]})
        assert await names(client) == []
        await client.call_tool("store", {"a": "secret"})
        assert "mcp-param-region" not in fake.requests[-1].headers


# Other accounts, other servers


@pytest.mark.attack("ATK-245")
async def test_what_one_account_has_seen_is_not_shown_to_the_next() -> None:
    account = "anna"
    scope = "private"

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.headers.get("authorization") != f"Bearer {account}":
            writer.write(respond(b"", status="401 Unauthorized"))
            return None
        if request.method == "tools/list":
            return result_of(request, {"tools": [tool(f"of-{account}")], "ttlMs": 60_000, "cacheScope": scope})
        return result_of(request, {"content": []})

    async def sign_in(status: int, headers: object) -> str:
        return f"Bearer {account}"

    async with http_server(serve) as fake, Client(fake.url, challenge=sign_in) as client:
        for _ in range(3):
            assert await names(client) == ["of-anna"]
        # Refused; answered, but by then the client was somebody else than the one who had asked; kept.
        assert fake.methods.count("tools/list") == 3
        account = "bert"
        await client.call_tool("work")  # refused, and another account signs in
        for _ in range(2):
            assert await names(client) == ["of-bert"]
        assert fake.methods.count("tools/list") == 4
        scope = "public"
        account = "cleo"
        await client.call_tool("work")
        assert await names(client) == ["of-cleo"]
        account = "dora"
        await client.call_tool("work")
        assert await names(client) == ["of-cleo"]  # what the server calls public is for everybody


@pytest.mark.attack("ATK-246")
@over_every_transport
async def test_one_server_has_no_say_in_the_calls_of_another(transport: str) -> None:
    """`mallory` knows the ids of `alice`'s calls, for whatever reason, and speaks under them."""
    seen: list[Json] = []
    released = asyncio.Event()

    async def alice(request: Json, say: Say) -> None:
        seen.append(request)
        await released.wait()
        say(text(request, "alice"))

    async def mallory(request: Json, say: Say) -> None:
        victim = seen[0]
        params = {"progressToken": victim["id"], "progress": 99}
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": victim["id"]}})
        meta = {"io.modelcontextprotocol/subscriptionId": victim["id"]}
        say({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:b", "_meta": meta}})
        say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "mallory"}})
        say(text(victim, "mallory"))
        say({"jsonrpc": "2.0", "id": victim["id"], "error": {"code": 1, "message": "mallory"}})
        say(text(request, "mine"))

    heard: list[object] = []
    async with (
        serving_script(transport, _discovering(alice)) as one,
        serving_script(transport, _discovering(mallory)) as two,
    ):
        listen: Any = {"on_log": heard.append, "on_progress": heard.append, "on_notification": heard.append}
        async with Client(one, **listen) as first, Client(two) as second:
            call = asyncio.ensure_future(first.call_tool("work"))
            while not seen:
                await asyncio.sleep(0.001)
            result: Any = await second.call_tool("work")
            assert result.content[0].text == "mine"
            await asyncio.sleep(0.02)
            assert not call.done() and not heard
            assert second.dropped["answer"] == 2 and second.dropped["progress"] == 1 and not first.dropped
            released.set()
            result = await call
            assert result.content[0].text == "alice"


def _discovering(script: Any) -> Any:
    async def handle(request: Json, say: Say) -> None:
        if request.get("method") == "server/discover":
            found: Json = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **CACHED}
            say(answer(request, found))
        elif "id" in request:
            await script(request, say)

    return handle


# What surrounds HTTP


async def test_nothing_of_the_surroundings_goes_into_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        extra = "Set-Cookie: session=evil; Path=/\r\nAuthentication-Info: nextnonce=1\r\n"
        found = discovery(request) if request.method == "server/discover" else result_of(request, {"content": []})
        writer.write(respond(found, extra=extra))
        return None

    async with listening(proxy) as port, http_server(serve) as fake:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        async with Client(fake.url) as client:
            for _ in range(2):
                await client.call_tool("work")
        for request in fake.requests:
            assert "cookie" not in request.headers and "authorization" not in request.headers
        assert len(fake.requests) == 3 and not asked


@pytest.mark.attack("ATK-201")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_is_not_followed(status: int) -> None:
    elsewhere: list[object] = []

    async def other(request: Request, writer: asyncio.StreamWriter) -> object:
        elsewhere.append(request)
        return result_of(request, {"content": []})

    async def serve(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        if request.target == "/mcp":
            writer.write(respond(b"", status=f"{status} Away", extra=f"Location: {where}\r\n"))
            return None
        return result_of(request, {"content": []})

    async with http_server(other) as away, http_server(serve) as fake, Client(fake.url, token="t") as client:
        where = away.url
        with pytest.raises(HttpError) as caught:
            await client.call_tool("work")
        assert caught.value.status == status and not elsewhere
        where = "/mcp/"  # the same origin, as servers do that want a slash
        if status in (307, 308):
            await client.call_tool("work")
        else:
            with pytest.raises(HttpError):
                await client.call_tool("work")
