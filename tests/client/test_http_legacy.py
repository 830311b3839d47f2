"""The client over HTTP with servers of the older revisions: handshake, sessions, streams, and HTTP+SSE."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

import garrison.errors as e
from garrison.client import Client, accept_defaults
from garrison.policy import SecurityPolicy, Timeouts
from garrison.protocol import types as t

from .fakes import EVENTS, Request, chunk, error, event, http_server, respond

ACCEPTED = respond(b"", status="202 Accepted")


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[object]]


class OldServer:
    """Streamable HTTP of 2025: sessions, and a `call` that a test gives."""

    def __init__(
        self, call: Handler | None = None, *, version: str = "2025-11-25", refusal=None, capabilities=None
    ) -> None:
        self.sessions: list[str] = []
        self.version = version
        self.call = call
        self.refusal = refusal
        self.capabilities = capabilities or {"tools": {}}
        self.posted: list[dict] = []
        self.get: Handler | None = None

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> object:
        session = request.headers.get("mcp-session-id")
        if request.verb == "GET":
            if self.get is not None:
                return await self.get(request, writer)
            writer.write(respond(b"", status="405 Method Not Allowed"))
        elif request.verb == "DELETE":
            writer.write(respond(b"", status="200 OK"))
        elif request.method == "server/discover":
            refusal = (
                self.refusal(request) if self.refusal else respond(b"no session", status="400 Bad", kind="text/plain")
            )
            writer.write(refusal)
        elif request.method == "initialize":
            self.sessions.append(f"s{len(self.sessions) + 1}")
            info = {"name": "old", "version": "1"}
            body = {"protocolVersion": self.version, "capabilities": self.capabilities, "serverInfo": info}
            answer = {"jsonrpc": "2.0", "id": request.message["id"], "result": body}
            writer.write(respond(answer, extra=f"Mcp-Session-Id: {self.sessions[-1]}\r\n"))
        elif not self.sessions or session != self.sessions[-1]:
            writer.write(
                respond({"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "?"}}, status="404 No")
            )
        elif "id" not in request.message or "method" not in request.message:
            self.posted.append(request.message)
            writer.write(ACCEPTED)
        elif self.call is not None:
            return await self.call(request, writer)
        else:
            writer.write(respond(answer_to(request, "ok")))
        return None


def answer_to(request: Request, value: str) -> dict:
    return {"jsonrpc": "2.0", "id": request.message["id"], "result": {"content": [{"type": "text", "text": value}]}}


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


REFUSALS = {
    "plain 400": lambda r: respond(b"nope", status="400 Bad", kind="text/plain"),
    "404": lambda r: respond(b"", status="404 No"),
    "json-rpc 400": lambda r: respond(error(r, -32000), status="400 Bad"),
    "json-rpc 200": lambda r: respond(error(r, -32601)),
    "empty result": lambda r: respond({"jsonrpc": "2.0", "id": r.message["id"], "result": {}}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_older_server_is_recognized_and_the_session_kept(name: str):
    async def main():
        async with http_server(OldServer(refusal=REFUSALS[name])) as server:
            async with Client(server.url) as client:
                assert client.protocol_version == "2025-11-25"
                assert text_of(await client.call_tool("x")) == "ok"
                await client.ping()
            requests = [r for r in server.requests if r.verb != "GET"]
            assert [r.method or r.verb for r in requests] == [
                "server/discover", "initialize", "notifications/initialized", "tools/call", "ping", "DELETE",
            ]  # fmt: skip
            assert "mcp-session-id" not in requests[1].headers
            for request in requests[2:]:
                assert request.headers["mcp-session-id"] == "s1"
                assert request.headers["mcp-protocol-version"] == "2025-11-25"
            assert "_meta" not in requests[3].params

    asyncio.run(main())


def test_refusals_that_do_not_tell_the_era_are_errors():
    async def main(status: str, kind):
        refused = OldServer(refusal=lambda r: respond(b"", status=status))
        async with http_server(refused) as server:
            with pytest.raises(kind):
                async with Client(server.url):
                    pass
            assert server.methods == ["server/discover"]

    asyncio.run(main("401 No", e.AuthenticationRequired))
    asyncio.run(main("500 No", e.HttpError))
    asyncio.run(main("429 No", e.HttpError))


def test_a_modern_error_never_leads_to_a_downgrade():
    async def main(code: int, data, kind):
        refused = OldServer(refusal=lambda r: respond(error(r, code, data=data), status="400 Bad"))
        async with http_server(refused) as server:
            with pytest.raises(kind):
                async with Client(server.url):
                    pass
            assert "initialize" not in server.methods

    asyncio.run(main(-32020, None, e.RemoteError))
    asyncio.run(main(-32022, {"supported": ["2099-01-01"]}, e.ConnectionFailed))


def test_an_unsupported_version_with_an_older_one_offered_is_negotiated():
    async def main():
        refusal = {"supported": ["2025-11-25"], "requested": "2026-07-28"}
        old = OldServer(refusal=lambda r: respond(error(r, -32022, data=refusal), status="400 Bad"))
        async with http_server(old) as server:
            async with Client(server.url) as client:
                assert client.protocol_version == "2025-11-25"
            with pytest.raises(e.ConnectionFailed):
                async with Client(server.url, era="modern"):
                    pass

    asyncio.run(main())


def test_a_server_may_not_choose_a_revision_that_is_ruled_out():
    async def main():
        async with http_server(OldServer(version="2024-11-05")) as server:
            with pytest.raises(e.ConnectionFailed):
                async with Client(server.url, versions=["2025-11-25", "2025-06-18"]):
                    pass
            async with Client(server.url) as client:
                assert client.protocol_version == "2024-11-05"

    asyncio.run(main())


def test_a_lost_session_is_renewed_once_and_the_request_sent_again():
    async def main():
        old = OldServer()
        async with http_server(old) as server, Client(server.url) as client:
            await client.call_tool("x")
            old.sessions.append("other")
            assert text_of(await client.call_tool("y")) == "ok"
            assert old.sessions == ["s1", "other", "s3"]
            old.sessions.append("again")
            await asyncio.gather(client.call_tool("a"), client.call_tool("b"), client.call_tool("c"))
            assert old.sessions == ["s1", "other", "s3", "again", "s5"]

    asyncio.run(main())


def test_a_server_that_forgets_every_session_ends_the_call():
    async def main():
        async def forget(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(respond(b"", status="404 Not Found"))

        old = OldServer(forget)
        async with http_server(old) as server, Client(server.url) as client:
            with pytest.raises(e.HttpError):
                await asyncio.wait_for(client.call_tool("x"), 5)
            assert len(old.sessions) == 4

    asyncio.run(main())


def test_a_broken_stream_is_taken_up_again_after_exactly_the_time_asked_for():
    async def main():
        times: list[float] = []
        calls: list[Request] = []

        async def call(request: Request, writer: asyncio.StreamWriter) -> None:
            calls.append(request)
            writer.write(EVENTS + chunk(b"id: e1\nretry: 300\ndata: \n\n"))
            await writer.drain()
            await asyncio.sleep(0.05)
            times.append(time.monotonic())
            writer.write(chunk(b""))

        async def get(request: Request, writer: asyncio.StreamWriter) -> None:
            if "last-event-id" not in request.headers:
                writer.write(respond(b"", status="405 No"))
                return
            times.append(time.monotonic())
            assert request.headers["last-event-id"] == ("e1" if len(times) == 2 else "e2")
            if len(times) == 2:
                writer.write(EVENTS + chunk(b"id: e2\ndata: \n\n") + chunk(b""))
                return
            writer.write(EVENTS + event(answer_to(calls[0], "late")) + chunk(b""))

        old = OldServer(call, version="2025-03-26")
        old.get = get
        async with http_server(old) as server, Client(server.url) as client:
            assert text_of(await client.call_tool("x")) == "late"
        assert 0.3 <= times[1] - times[0] <= 0.45
        assert 0.3 <= times[2] - times[1] <= 0.45
        assert len(calls) == 1

    asyncio.run(main())


def test_a_stream_without_an_event_id_that_breaks_is_lost():
    async def main():
        async def call(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(EVENTS + event({"jsonrpc": "2.0", "method": "notifications/x"}) + chunk(b""))

        async with http_server(OldServer(call)) as server, Client(server.url) as client:
            with pytest.raises(e.ConnectionLost):
                await client.call_tool("x")

    asyncio.run(main())


def test_questions_on_streams_are_answered_by_post():
    async def main():
        asked = asyncio.Event()

        async def call(request: Request, writer: asyncio.StreamWriter) -> None:
            form = {"type": "object", "properties": {"n": {"type": "string", "default": "John"}}}
            params = {"message": "?", "requestedSchema": form}
            writer.write(
                EVENTS + event({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params})
            )
            await writer.drain()
            while not any(m.get("id") == "q" for m in old.posted):
                await asyncio.sleep(0.01)
            answer = next(m["result"] for m in old.posted if m.get("id") == "q")
            writer.write(event(answer_to(request, json.dumps(answer))) + chunk(b""))

        async def get(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(EVENTS + event({"jsonrpc": "2.0", "id": 7, "method": "roots/list"}))
            await writer.drain()
            while not any(m.get("id") == 7 for m in old.posted):
                await asyncio.sleep(0.01)
            asked.set()
            await asyncio.sleep(30)

        old = OldServer(call)
        old.get = get
        async with http_server(old) as server:
            async with Client(server.url, on_elicit=accept_defaults, on_roots=["/tmp"]) as client:
                answer = json.loads(text_of(await client.call_tool("x")))
                assert answer == {"action": "accept", "content": {"n": "John"}}
                await asyncio.wait_for(asked.wait(), 5)
        assert {"roots": [{"uri": "file:///tmp"}]} in [m.get("result") for m in old.posted]

    asyncio.run(main())


def test_time_out_tells_an_older_server():
    async def main():
        async def call(request: Request, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(30)

        old = OldServer(call)
        async with http_server(old) as server, Client(server.url) as client:
            with pytest.raises(e.RequestTimeout):
                await client.call_tool("x", timeout=0.1)
            await asyncio.sleep(0.1)
            sent = next(r for r in server.requests if r.method == "tools/call").message["id"]
            cancelled = [m["params"]["requestId"] for m in old.posted if m.get("method") == "notifications/cancelled"]
            assert cancelled == [sent]

    asyncio.run(main())


class SseServer:
    """HTTP+SSE of 2024-11-05."""

    def __init__(self, endpoint: str = "/messages?id=1") -> None:
        self.endpoint = endpoint
        self.stream: asyncio.StreamWriter | None = None

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> object:
        if request.verb == "GET":
            self.stream = writer
            writer.write(EVENTS + chunk(f"event: endpoint\ndata: {self.endpoint}\n\n".encode()))
            await writer.drain()
            await asyncio.sleep(30)
        elif request.target == "/mcp":
            writer.write(respond(b"", status="405 No"))
        else:
            assert self.stream is not None
            writer.write(ACCEPTED)
            if request.method == "initialize":
                body = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {},
                    "serverInfo": {"name": "sse", "version": "1"},
                }
                self.say({"jsonrpc": "2.0", "id": request.message["id"], "result": body})
            elif request.method == "tools/call" and request.params["name"] == "die":
                self.stream.close()
            elif request.method == "tools/call":
                self.say(answer_to(request, request.target))
        return None

    def say(self, message: dict) -> None:
        assert self.stream is not None
        self.stream.write(event(message, prefix=b"event: message\n"))


def test_the_oldest_http_transport_is_found_and_spoken():
    async def main():
        async with http_server(SseServer()) as server:
            async with Client(server.url, token="t") as client:
                assert client.protocol_version == "2024-11-05"
                assert text_of(await client.call_tool("x")) == "/messages?id=1"
                with pytest.raises(e.ConnectionLost):
                    await client.call_tool("die", timeout=5)
            assert all(r.headers["authorization"] == "Bearer t" for r in server.requests)
            with pytest.raises(e.ClientError):
                async with Client(server.url, versions=["2026-07-28", "2025-11-25"]):
                    pass

    asyncio.run(main())


def test_an_endpoint_event_of_another_origin_is_refused():
    async def main():
        for endpoint in ("https://example.com/x", "//example.com/x", "http://127.0.0.1:1/x", "javascript:1"):
            async with http_server(SseServer(endpoint)) as server:
                fast = SecurityPolicy(timeouts=Timeouts(connect=1.0, shutdown=0.5))
                with pytest.raises(e.ConnectionFailed):
                    async with Client(server.url, token="t", policy=fast):
                        pass

    asyncio.run(main())
