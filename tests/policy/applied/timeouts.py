"""`Timeouts`: what is given up, and when, seen on live listeners and clients.

A listener looks at its deadlines twice a second, so that what ends at 0.1 seconds is seen to have ended at 0.7.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from garrison import Client, Context, SecurityPolicy, Server, Timeouts
from garrison.policy.tls import TlsServerConfig
from garrison.policy.transports import UnixSocketConfig
from tests.client.fakes import http_server
from tests.client.fakes import modern as answering
from tests.client.raw_websocket import Raw, raw_server
from tests.support.certs import Authority
from tests.support.edge import Counting, said
from tests.support.mcp import HttpPeer, call, modern, post, until
from tests.support.raw_http import TOKEN, Wire, connected, exchange, serving
from tests.support.websocket import PING

from .case import case
from .limits import asking, opening, said_by
from .scene import LEGACY, YES, end_of, folder, http, outcome, socket_folder, unix_lines, websocket, within

SWEPT = 0.7


def policy(**seconds: float) -> SecurityPolicy:
    return SecurityPolicy(timeouts=Timeouts(**{"shutdown": 0.2, **seconds}))


async def status_within(wire: Wire, seconds: float) -> object:
    answer = await within(seconds, wire.response())
    return getattr(answer, "status", answer)


@case(Timeouts, "head", default="nothing yet", changed=(0.1, 408))
async def head(value: float) -> object:
    async with http(head=value) as scene, scene.connect() as wire:
        await wire.send(post(scene.port, call("echo"))[:20])
        return await status_within(wire, SWEPT)


@case(Timeouts, "body", default="nothing yet", changed=(0.1, 408))
async def body(value: float) -> object:
    async with http(body=value) as scene, scene.connect() as wire:
        await wire.send(post(scene.port, call("echo"))[:-20])
        return await status_within(wire, SWEPT)


@case(Timeouts, "body", default="nothing yet", changed=(0.1, "ended"))
async def body_of_a_line(value: float) -> object:
    async with unix_lines(Counting(body=value).server) as line:
        await line.send(b'{"jsonrpc')
        return await end_of(line, SWEPT)


@case(Timeouts, "tls", default="nothing yet", changed=(0.1, "ended"))
async def tls(value: float) -> object:
    with folder() as place:
        leaf = Authority(place).leaf()
        config = TlsServerConfig(certificate=leaf.certificate, key=leaf.key)
        async with http(server={"tls": config}, tls=value) as scene, scene.connect() as silent:
            return await end_of(silent, 0.4)


@case(Timeouts, "idle", default="nothing yet", changed=(0.1, "ended"))
async def idle(value: float) -> object:
    async with http(idle=value) as scene, scene.connect() as wire:
        await wire.send(post(scene.port, call("echo", {"text": "x"})))
        assert (await wire.response()).status == 200
        return await end_of(wire, SWEPT)


@case(Timeouts, "write_stall", default=True, changed=(0.1, False))
async def write_stall(value: float) -> object:
    with socket_folder() as place:
        path = str(place / "s")
        counting = Counting(write_stall=value)
        async with serving(counting.server, unix=UnixSocketConfig(path)) as running:
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(deaf, path)
                await loop.sock_sendall(deaf, post(1, call("dump", {"size": 3_000_000}), host="localhost"))
                await until(lambda: counting.ran)
                await asyncio.sleep(SWEPT)
                return bool(running.listener.guests)


@case(Timeouts, "handler", default="slow", changed=(0.1, -32603))
async def handler(value: float) -> object:
    async with http(handler=value) as scene:
        answer = await scene.ask(call("slow", {"seconds": 0.3}))
        return answer.json["error"]["code"] if "error" in answer.json else said(answer)


@case(Timeouts, "ask", default="nothing yet", changed=(0.1, True))
async def ask(value: float) -> object:
    async with unix_lines(asking(1, policy=policy(ask=value))) as line:
        await line.ask(opening({"elicitation": {}}))
        await line.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await line.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask", "arguments": {}}})
        assert (await line.read())["method"] == "elicitation/create"
        answer = await within(0.4, answer_to(line, 1))
        return answer if isinstance(answer, str) else answer["result"].get("isError")  # type: ignore[index]


async def answer_to(line: Any, id: int) -> dict[str, Any]:
    while (heard := await line.read()).get("id") != id:
        continue
    return heard


@case(Timeouts, "ask", default="nothing yet", changed=(0.1, True))
async def ask_of_a_client(value: float) -> object:
    async def think(params: object) -> Any:
        await asyncio.sleep(5)
        return YES

    async with serving(asking(1)) as running:
        options: Any = {"policy": policy(ask=value), "on_elicit": think, "era": "legacy"}
        async with Client(running.url, token=TOKEN, **options) as client:
            answer: Any = await within(0.4, client.call_tool("ask"))
            return answer if isinstance(answer, str) else answer.is_error


async def ping(session: HttpPeer) -> int:
    data = session.encode({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    return (await exchange(session.port, data)).status


def session_case(name: str, pauses: list[float]) -> None:
    """A legacy session, asked for a sign of life after each pause."""

    @case(Timeouts, name, default=200, changed=(0.25, 404))
    async def observe(value: float) -> object:
        async with http(**{name: value}) as scene:
            session = HttpPeer(LEGACY, {}, {}, scene.port)
            await session.open()
            status = 0
            for pause in pauses:
                await asyncio.sleep(pause)
                status = await ping(session)
            return status


session_case("session_idle", [0.4])
session_case("session_max", [0.1] * 4)


@case(Timeouts, "session_idle", default="nothing yet", changed=(0.1, "ended"))
async def session_idle_of_a_line(value: float) -> object:
    async with unix_lines(Counting(session_idle=value).server) as line:
        await line.alive()
        return await end_of(line, SWEPT)


@case(Timeouts, "ping", default="nothing yet", changed=(0.1, PING))
async def ping_of_a_server(value: float) -> object:
    async with websocket(Counting(ping=value)) as wire:
        frame = await within(SWEPT, wire.frame())
        return getattr(frame, "opcode", frame)


@case(Timeouts, "pong", default="nothing yet", changed=(0.1, "ended"))
async def pong_of_a_server(value: float) -> object:
    async with websocket(Counting(ping=0.1, pong=value)) as wire:
        assert (await wire.frame()).opcode == PING
        return await end_of(wire, SWEPT)


@case(Timeouts, "pong", default="nothing yet", changed=(0.1, "ConnectionLost"))
async def pong_of_a_client(value: float) -> object:
    async def script(raw: Raw) -> None:
        raw.write(raw.switch())
        await raw.message()
        await asyncio.sleep(5)  # no pong, and no answer

    async with raw_server(script) as peer:
        async with Client(peer.url, policy=policy(ping=0.1, pong=value)) as client:
            return await within(0.5, outcome(client.call_tool("x")))


@case(Timeouts, "keep_alive", default="application/json", changed=(0.1, "text/event-stream"))
async def keep_alive(value: float) -> object:
    async with http(keep_alive=value) as scene:
        return (await scene.ask(call("slow", {"seconds": 0.3}))).get("content-type")


@case(Timeouts, "keep_alive", default="nothing yet", changed=(0.1, b":\r\n\r\n"))
async def keep_alive_of_a_stream(value: float) -> object:
    async with http(keep_alive=value) as scene, scene.connect() as wire:
        await asyncio.sleep(0.6)  # the first look after the start is over
        listen = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await wire.send(post(scene.port, listen))
        await wire.head()
        assert b"acknowledged" in await wire.chunk()
        return await within(SWEPT, wire.chunk())


@case(Timeouts, "request", default="slow", changed=(0.1, "RequestTimeout"))
async def request(value: float) -> object:
    async with http() as scene:
        return await called(scene.running.url, policy(request=value), "slow", {"seconds": 0.3})


@case(Timeouts, "request_max", default="streamed", changed=(0.3, "RequestTimeout"))
async def request_max(value: float) -> object:
    server = Server("reporting")

    @server.tool()
    async def work(ctx: Context) -> str:
        for step in range(6):
            await asyncio.sleep(0.1)
            await ctx.progress(step + 1)
        return "streamed"

    async with serving(server) as running:
        return await called(running.url, policy(request=0.25, request_max=value), "work", {})


@case(Timeouts, "listing", default=6, changed=(0.2, "RequestTimeout"))
async def listing(value: float) -> object:
    """Six pages, each of which takes its time."""

    async def page(request: Any) -> dict[str, Any]:
        await asyncio.sleep(0.08)
        number = int(request.params.get("cursor", "0"))
        tool = {"name": f"t{number}", "inputSchema": {"type": "object"}}
        more = {"nextCursor": str(number + 1)} if number < 5 else {}
        return {"tools": [tool], "ttlMs": 0, "cacheScope": "private", **more}

    async def count() -> int:
        return len([tool async for tool in client.tools()])

    async with http_server(answering({"tools/list": page})) as fake:
        async with Client(fake.url, policy=policy(listing=value)) as client:
            return await outcome(count())


async def called(url: str, chosen: SecurityPolicy, tool: str, arguments: dict[str, Any]) -> object:
    async def text() -> str:
        return said_by(await client.call_tool(tool, arguments, on_progress=lambda report: None))

    async with Client(url, token=TOKEN, policy=chosen) as client:
        return await outcome(text())


async def silent(raw: Raw) -> None:
    """A server that answers no handshake."""
    await asyncio.sleep(5)


@case(Timeouts, "connect", default="nothing yet", changed=(0.1, "ConnectionFailed"))
async def connect(value: float) -> object:
    async with raw_server(silent) as peer:
        return await within(0.4, outcome(Client(peer.url, policy=policy(connect=value)).connect()))


@case(Timeouts, "shutdown", default=["done"], changed=(0.05, ["cancelled"]))
async def shutdown(value: float) -> object:
    ended: list[str] = []
    began = asyncio.Event()
    server = Server("x", policy=policy(shutdown=value))

    @server.tool()
    async def slow() -> str:
        began.set()
        try:
            await asyncio.sleep(0.3)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "x"

    async with serving(server) as running, connected(running.port) as wire:
        await wire.send(post(running.port, call("slow")))
        await asyncio.wait_for(began.wait(), 5)
        await running.close()
    return ended


@case(Timeouts, "state", default="result", changed=(0.05, "error"))
async def state(value: float) -> object:
    async with serving(asking(1, policy=policy(state=value))) as running:
        message = call("ask", capabilities={"elicitation": {}})
        asked = (await exchange(running.port, post(running.port, message))).json["result"]
        await asyncio.sleep(0.1)
        given = dict.fromkeys(asked["inputRequests"], YES)
        message["params"] |= {"requestState": asked["requestState"], "inputResponses": given}
        answer = (await exchange(running.port, post(running.port, message))).json
        return "result" if "result" in answer else "error"
