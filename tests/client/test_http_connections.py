"""The client over HTTP: how its connections are opened, shared, given up and closed."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import pytest

import garrison.errors as e
from garrison.client import Client
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.protocol import types as t

from .fakes import EVENTS, Request, chunk, discovery, http_server, modern, respond, result, text

PREFIX = "io.modelcontextprotocol/"


def run(coroutine):
    return asyncio.run(coroutine)


def policy(**limits) -> SecurityPolicy:
    return SecurityPolicy(limits=Limits(**limits), timeouts=Timeouts(shutdown=0.5))


def test_a_server_that_dies_mid_call_fails_the_call_at_once_and_it_is_not_sent_again():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            if request.params.get("name") == "die":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
                writer.close()
                return None
            return result(request, text("ok"))

        async with http_server(answer) as server, Client(server.url) as client:
            with pytest.raises(e.ConnectionLost):
                await client.call_tool("die")
            await client.call_tool("ok")
            assert [r.params.get("name") for r in server.requests[1:]] == ["die", "ok"]

    run(main())


def test_a_stale_connection_is_retried_only_where_that_is_safe():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            if request.connection == 1:
                writer.close()  # reads the request and goes away without a byte
                return None
            return result(
                request, {"tools": [], "ttlMs": 0, "cacheScope": "public"} if "list" in request.method else text("x")
            )

        async with http_server(answer) as server, Client(server.url) as client:
            await client.list_tools()
            assert server.methods == ["server/discover", "tools/list", "tools/list"]
        async with http_server(answer) as server, Client(server.url) as client:
            with pytest.raises(e.ConnectionLost):
                await client.call_tool("x")
            assert server.methods == ["server/discover", "tools/call"]

    run(main())


def test_a_connection_that_the_server_closed_while_resting_is_not_used():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                asyncio.get_running_loop().call_later(0.02, writer.close)
                return discovery(request)
            return result(request, text("x"))

        async with http_server(answer) as server, Client(server.url) as client:
            await asyncio.sleep(0.1)
            await client.call_tool("x")
            assert server.connections == 2

    run(main())


def test_time_out_and_cancellation_close_the_response_stream():
    async def main():
        gone: list[str] = []

        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method != "tools/call":
                return discovery(request)
            if request.params["name"] == "ok":
                return result(request, text("ok"))
            writer.write(EVENTS)
            await writer.drain()
            while not writer.is_closing():
                writer.write(chunk(b":\n\n"))
                await writer.drain()
                await asyncio.sleep(0.01)
            gone.append(request.params["name"])
            return None

        async with http_server(answer) as server, Client(server.url) as client:
            started = time.monotonic()
            with pytest.raises(e.RequestTimeout) as caught:
                await client.call_tool("slow", timeout=0.2)
            assert 0.15 < time.monotonic() - started < 1.0
            assert caught.value.seconds == 0.2
            task = asyncio.ensure_future(client.call_tool("slower"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.call_tool("ok")
            await asyncio.sleep(0.1)
            assert server.disconnects + len(gone) >= 2
            assert "notifications/cancelled" not in server.methods

    run(main())


def test_redirects_stay_within_the_origin():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            if request.target == "/mcp":
                where = request.params["name"]
                writer.write(respond(b"", status="307 Elsewhere", extra=f"Location: {where}\r\n"))
                return None
            return result(request, text(request.target))

        async with http_server(answer) as server, http_server(answer) as other:
            async with Client(server.url, token="t") as client:
                assert (await client.call_tool("/moved")).content == [t.TextContent("/moved")]
                for where in (other.url, "https://example.com/", "/mcp", ""):
                    with pytest.raises(e.HttpError):
                        await client.call_tool(where)
            assert other.requests == []

    run(main())


def test_many_calls_share_few_connections_and_all_get_their_own_answer():
    async def main():
        async def call(request: Request):
            await asyncio.sleep(0.001)
            return text(str(request.params["arguments"]["i"]))

        async with http_server(modern({"tools/call": call})) as server, Client(server.url) as client:
            answers = await asyncio.gather(*(client.call_tool("x", {"i": i}) for i in range(200)))
            assert [a.content for a in answers] == [[t.TextContent(str(i))] for i in range(200)]
            assert server.connections <= 32

    run(main())


def test_unexpected_bytes_on_a_resting_connection_are_never_an_answer():
    async def main():
        planted = respond({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", **text("evil")}})

        def call(request: Request):
            return respond(result(request, text("ok"))) + (planted if request.params["name"] == "plant" else b"")

        async with http_server(modern({"tools/call": call})) as server, Client(server.url) as client:
            assert (await client.call_tool("plant")).content == [t.TextContent("ok")]
            assert (await client.call_tool("next")).content == [t.TextContent("ok")]
            assert server.connections == 2

    run(main())


def test_bytes_that_come_while_nothing_is_asked_close_the_connection():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            planted = respond(result(request, text("evil")))
            asyncio.get_running_loop().call_later(0.02, writer.write, planted)
            return result(request, text("ok"))

        async with http_server(answer) as server, Client(server.url) as client:
            for count in (1, 2):
                assert (await client.call_tool("x")).content == [t.TextContent("ok")]
                assert server.connections == count
                await asyncio.sleep(0.05)

    run(main())


def test_a_connection_closed_while_the_loop_was_busy_is_not_written_to():
    bodies = {
        "server/discover": b'"supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":0,"cacheScope":"private"',
        "tools/call": b'"content":[]',
    }

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            sock, _ = listener.accept()
            with sock:
                body = sock.recv(65536).partition(b"\r\n\r\n")[2]
                request = json.loads(body)
                answer = b'{"jsonrpc":"2.0","id":%d,"result":{%b}}' % (request["id"], bodies[request["method"]])
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                sock.sendall(head + answer)
                time.sleep(0.1)

    async def main(port: int):
        async with Client(f"http://127.0.0.1:{port}/") as client:
            time.sleep(0.4)  # the loop sees nothing of the closing
            assert (await client.call_tool("x")).content == []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        run(main(listener.getsockname()[1]))
        thread.join(2)


def test_closing_is_possible_twice_from_anywhere_and_ends_what_waits():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            await asyncio.sleep(30)
            return None

        async with http_server(answer) as server:
            client = Client(server.url)
            await client.connect()
            waiting = asyncio.ensure_future(client.call_tool("x"))
            await asyncio.sleep(0.05)
            await asyncio.gather(asyncio.ensure_future(client.aclose()), client.aclose())
            with pytest.raises(e.ConnectionLost):
                await waiting
            with pytest.raises(e.ConnectionLost):
                await client.call_tool("x")
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_closing_while_connecting_ends_the_attempt():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            await asyncio.sleep(30)
            return None

        async with http_server(answer) as server:
            client = Client(server.url)
            task = asyncio.ensure_future(client.connect())
            await asyncio.sleep(0.05)
            await client.aclose()
            async with asyncio.timeout(1):
                with pytest.raises(e.ClientError):
                    await task

    asyncio.run(main())


def test_a_refused_connection_is_named():
    async def main():
        with pytest.raises(e.ConnectionFailed, match=r"127\.0\.0\.1"):
            async with Client("http://127.0.0.1:9/mcp"):
                pass

    run(main())
