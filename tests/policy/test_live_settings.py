"""Settings seen from outside: the same bytes to a live listener with the default and with another value."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison import Client, Context, Limits, SecurityPolicy, Server, Timeouts
from garrison.errors import ClientError, RequestTimeout
from garrison.protocol.types import ProgressParams
from tests.support.features import everywhere
from tests.support.mcp import MODERN, call, over_pipes, post
from tests.support.raw_http import exchange, request, serving, standard


def make(policy: SecurityPolicy | None = None) -> tuple[Server, list[object]]:
    server = Server("s", policy=policy)
    ran: list[object] = []

    @server.tool(inline=True)
    def take(value: dict[str, object]) -> int:
        ran.append(value)
        return len(value)

    return server, ran


@pytest.mark.parametrize(
    ("setting", "limit", "value"),
    [
        ("json_depth", 6, {"a": [[[[1]]]]}),
        ("json_nodes", 25, {"a": list(range(30))}),
        ("json_members", 10, {str(n): n for n in range(11)}),
        ("json_items", 10, {"a": list(range(11))}),
        ("json_key_chars", 50, {"k" * 51: 1}),
        ("json_number_chars", 20, {"a": 10**20}),
    ],
)
async def test_a_limit_on_json_reaches_the_listener(setting: str, limit: int, value: dict[str, Any]) -> None:
    message = call("take", {"value": value})
    tight, never = make(SecurityPolicy(limits=Limits(**{setting: limit})))
    async with serving(tight) as running:
        response = await exchange(running.port, post(running.port, message))
        assert response.status == 400
        assert response.json["error"]["code"] == -32700
        honest = call("take", {"value": {"a": 1}})
        assert (await exchange(running.port, post(running.port, honest))).json["result"]["structuredContent"] == {
            "result": 1
        }
        assert never == [{"a": 1}]
    wide, ran = make()
    async with serving(wide) as running:
        assert (await exchange(running.port, post(running.port, message))).status == 200
        assert ran == [json.loads(json.dumps(value))]


@pytest.mark.parametrize(("request_max", "ends_in_time"), [(0.5, False), (10.0, True)])
async def test_progress_extends_a_request_only_up_to_its_most(request_max: float, ends_in_time: bool) -> None:
    server = Server("s")

    @server.tool()
    async def work(ctx: Context) -> str:
        for step in range(1, 13):
            await asyncio.sleep(0.1)
            await ctx.progress(step)
        return "done"

    policy = SecurityPolicy(timeouts=Timeouts(request=0.4, request_max=request_max))
    async with server.http(port=0, token="t" * 20) as serving:
        async with Client(serving.url, token="t" * 20, policy=policy, on_progress=lambda *report: None) as client:
            loop = asyncio.get_running_loop()
            started = loop.time()
            if ends_in_time:  # thrice Timeouts.request, because every report starts it anew
                assert (await client.call_tool("work")).structured_content == {"result": "done"}
                return
            with pytest.raises(RequestTimeout):
                await client.call_tool("work")
            assert 0.35 < loop.time() - started < 1.1
            assert (await client.list_tools()).tools  # and the client goes on


def tolerated(policy: SecurityPolicy | None = None) -> tuple[Server, list[str]]:
    server = Server("s", policy=policy)
    ran: list[str] = []

    @server.tool(inline=True)
    def echo(text: str) -> str:
        ran.append(text)
        return text

    return server, ran


@asynccontextmanager
async def raw(server: Server, transport: str) -> AsyncIterator[Callable[[bytes], Awaitable[Any]]]:
    """What sends one message as bytes and gives the answer."""
    if transport == "http":
        async with serving(server) as running:

            async def over_http(data: bytes) -> Any:
                fields = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")]
                return (await exchange(running.port, request(data, standard(running.port) + fields))).json

            yield over_http
        return
    answers: asyncio.Queue[Any] = asyncio.Queue()

    class Hearing:
        write: Callable[[bytes], None]

        def receive(self, data: bytes) -> None:
            answers.put_nowait(json.loads(data))

    hearing = Hearing()

    async def duplex(data: bytes) -> Any:
        hearing.write(data)
        return await asyncio.wait_for(answers.get(), 5)

    if transport == "stdio":
        async with over_pipes(server, hearing):  # type: ignore[arg-type]
            yield duplex
        return
    connection = await server.connect_memory()
    connection.on_message = hearing.receive
    hearing.write = connection.send
    yield duplex
    await connection.close()


PLAIN = json.dumps(call("echo", {"text": "last"})).encode()
TWICE = PLAIN.replace(b'"text"', b'"text": "first", "te\\u0078t"')
FURTHER = PLAIN.replace(b'"jsonrpc"', b'"trace": {"a": 1}, "jsonrpc"')


@everywhere
@pytest.mark.parametrize(
    ("tolerate", "passes"),
    [
        ((), ()),
        (("duplicate_keys",), (TWICE,)),
        (("unknown_members",), (FURTHER,)),
        (("duplicate_keys", "unknown_members"), (TWICE, FURTHER)),
    ],
)
async def test_what_is_tolerated(transport: str, tolerate: tuple[str, ...], passes: tuple[bytes, ...]) -> None:
    server, ran = tolerated(SecurityPolicy(tolerate=tolerate))
    async with raw(server, transport) as send:
        for message, code in ((TWICE, -32700), (FURTHER, -32600)):
            answer = await send(message)
            if message in passes:
                assert answer["result"]["structuredContent"] == {"result": "last"}
            else:
                assert answer["error"]["code"] == code
        assert ran == ["last"] * len(passes)
        for hybrid in (b'"result": {}, "jsonrpc"', b'"error": {"code": 1, "message": "x"}, "jsonrpc"'):
            assert (await send(PLAIN.replace(b'"jsonrpc"', hybrid)))["error"]["code"] == -32600
        for broken in (PLAIN.replace(b'"2.0"', b'"2.1"'), PLAIN.replace(b'"id": 1', b'"id": 1.5')):
            assert (await send(broken))["error"]["code"] == -32600
        assert (await send(PLAIN))["result"]
    assert ran == ["last"] * (len(passes) + 1)


@pytest.mark.parametrize(("tolerate", "status"), [((), 406), (("accept",), 200)])
async def test_an_accept_header_that_lists_one_media_type(tolerate: tuple[str, ...], status: int) -> None:
    server, ran = tolerated(SecurityPolicy(tolerate=tolerate))
    async with serving(server) as running:
        for accept in ("application/json", None):
            data = post(running.port, call("echo", {"text": "x"}), accept=accept)
            assert (await exchange(running.port, data)).status == status
        assert len(ran) == (2 if tolerate else 0)
        assert (await exchange(running.port, post(running.port, call("echo", {"text": "x"})))).status == 200


@pytest.mark.parametrize("policy", [SecurityPolicy.strict(), SecurityPolicy.compat()])
async def test_what_a_client_tolerates(policy: SecurityPolicy) -> None:
    async with Client(FakeServer(b'"structuredContent": {"a": 1, "a": 2}', b', "trace": 1'), policy=policy) as client:
        if policy.tolerate:
            assert (await client.call_tool("x")).structured_content == {"a": 2}
            return
        with pytest.raises(RequestTimeout):  # what is no message answers nothing
            await client.call_tool("x", timeout=0.2)


class FakeServer:
    """Stands for a server in this process; answers every tool call with the same."""

    def __init__(self, content: bytes = b"", more: bytes = b"", reports: Callable[[int], list[Any]] | None = None):
        self.content = content
        self.more = more
        self.reports = reports
        self.on_message: Callable[[bytes], None] = lambda data: None

    async def connect_memory(self) -> FakeServer:
        return self

    def send(self, data: bytes) -> None:
        self.answering = asyncio.ensure_future(self.answer(json.loads(data)))

    async def answer(self, message: Any) -> None:
        method = message["method"]
        if method == "server/discover":
            result = {
                "resultType": "complete",
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "x", "version": "1"}},
            }
            self.say({"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif method == "tools/list":
            result = {"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"}
            self.say({"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif method == "tools/call":
            if self.reports is not None:
                for report in self.reports(message["id"]):
                    if isinstance(report, float):
                        await asyncio.sleep(report)
                    else:
                        self.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": report})
            head = b'{"jsonrpc":"2.0","id":%d' % message["id"] + self.more
            self.on_message(head + b',"result":{"resultType":"complete","content":[],%b}}' % (self.content or b'"x":1'))

    def say(self, message: Any) -> None:
        self.on_message(json.dumps(message).encode())

    async def close(self) -> None:
        return


@pytest.mark.attack("ATK-103")
@pytest.mark.parametrize("rate", [5, 100])
async def test_progress_over_the_rate_is_dropped(rate: int) -> None:
    def flood(token: int) -> list[Any]:
        return [{"progressToken": token, "progress": step} for step in range(1000)]

    heard: list[float] = []

    def hear(report: ProgressParams) -> None:
        heard.append(report.progress)

    policy = SecurityPolicy(limits=Limits(progress_rate=rate))
    async with Client(FakeServer(reports=flood), policy=policy) as client:
        await client.call_tool("x", on_progress=hear)
        assert heard[:rate] == list(range(rate))
        assert len(heard) <= rate * 1.1 + 1
        assert client._conversation.link.dropped["progress"] == 1000 - len(heard)  # type: ignore[union-attr]
        heard.clear()
        await client.call_tool("x", on_progress=hear)
        assert rate <= len(heard) <= rate * 1.1 + 1, "each call has its own"


@pytest.mark.attack("ATK-103")
async def test_progress_that_does_not_grow_is_dropped_and_gives_no_time() -> None:
    def steps(token: int) -> list[Any]:
        return [{"progressToken": token, "progress": number} for number in (1, 1, 0.5, 2, -3, 2.0, 2.5)]

    heard: list[float] = []

    def hear(report: ProgressParams) -> None:
        heard.append(report.progress)

    async with Client(FakeServer(reports=steps)) as client:
        await client.call_tool("x", on_progress=hear)
    assert heard == [1, 2, 2.5]

    def standing(token: int) -> list[Any]:
        return [part for _ in range(30) for part in (0.05, {"progressToken": token, "progress": 1})]

    def growing(token: int) -> list[Any]:
        return [part for step in range(8) for part in (0.05, {"progressToken": token, "progress": step})]

    for reports, ends in ((standing, False), (growing, True)):
        async with Client(FakeServer(reports=reports)) as client:
            started = time.monotonic()
            if ends:
                await client.call_tool("x", timeout=0.2, on_progress=hear)
                continue
            with pytest.raises(RequestTimeout):
                await client.call_tool("x", timeout=0.2, on_progress=hear)
            assert time.monotonic() - started < 0.6


@pytest.mark.parametrize("over", ["memory", "http"])
async def test_a_client_sends_nothing_larger_than_a_message_may_be(over: str) -> None:
    server, ran = make()
    asked: list[str] = []

    @server.tool()
    async def ask(ctx: Context) -> str:
        answer = await ctx.sample("Say much", max_tokens=1)
        asked.append(str(answer))
        return "heard"

    def say(params: Any) -> dict[str, Any]:
        return {"role": "assistant", "model": "m", "content": {"type": "text", "text": "x" * size}}

    policy = SecurityPolicy(limits=Limits(message_bytes=4000))
    async with server.http(port=0, token="t" * 20) as serving:
        target: Any = server if over == "memory" else serving.url
        token = None if over == "memory" else "t" * 20
        async with Client(target, token=token, policy=policy, on_sample=say, era="legacy") as client:
            with pytest.raises(ClientError, match="larger than 4000 bytes and was not sent"):
                await client.call_tool("take", {"value": {"a": "x" * 4000}})
            assert ran == []
            await client.call_tool("take", {"value": {"a": "x" * 3000}})
            size = 5000
            assert (await client.call_tool("ask")).is_error
            assert asked == []
            size = 5
            assert not (await client.call_tool("ask")).is_error
