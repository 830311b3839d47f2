"""The client on Streamable HTTP with a modern server: what is sent, and what becomes of every kind of answer."""

from __future__ import annotations

import asyncio
import json

import pytest

import garrison.errors as e
from garrison.client import Client, accept_defaults
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.protocol import types as t

from .fakes import EVENTS, MODERN, Request, chunk, discovery, error, event, http_server, modern, respond, result, text

PREFIX = "io.modelcontextprotocol/"


def run(coroutine):
    return asyncio.run(coroutine)


def policy(**limits) -> SecurityPolicy:
    return SecurityPolicy(limits=Limits(**limits), timeouts=Timeouts(shutdown=0.5))


def test_every_request_carries_metadata_and_headers_that_agree():
    async def main():
        async with http_server(modern({"tools/call": lambda r: text("ok")})) as server:
            async with Client(server.url, name="me", version="9", on_elicit=accept_defaults, on_roots=[]) as client:
                answer = await client.call_tool("greet ä", {"a": 1})
                assert client.protocol_version == MODERN
                assert client.server_info == t.Implementation("fake", "1")
            assert isinstance(answer.content[0], t.TextContent) and answer.content[0].text == "ok"
            assert server.methods == ["server/discover", "tools/call"]
            for request in server.requests:
                meta = request.params["_meta"]
                assert meta[PREFIX + "protocolVersion"] == MODERN == request.headers["mcp-protocol-version"]
                assert meta[PREFIX + "clientInfo"] == {"name": "me", "version": "9"}
                assert meta[PREFIX + "clientCapabilities"] == {"elicitation": {"form": {}, "url": {}}, "roots": {}}
                assert request.headers["mcp-method"] == request.method
                assert request.headers["accept-encoding"] == "identity"
                assert {"application/json", "text/event-stream"} <= set(request.headers["accept"].split(", "))
            call = server.requests[1]
            assert call.headers["mcp-name"] == "=?base64?Z3JlZXQgw6Q=?="
            assert call.params["arguments"] == {"a": 1}
            assert call.message["id"] != server.requests[0].message["id"]

    run(main())


def test_token_and_headers_are_sent_and_reserved_headers_refused():
    async def main():
        async with http_server(modern({})) as server:
            async with Client(server.url, token="s3cret", headers={"X-Team": "a"}):
                pass
            assert server.requests[0].headers["authorization"] == "Bearer s3cret"
            assert server.requests[0].headers["x-team"] == "a"

    run(main())
    for headers in ({"Host": "x"}, {"Mcp-Method": "x"}, {"X": "a\r\nY: b"}, {"X Y": "a"}, {"Authorization": "x"}):
        with pytest.raises(e.ConfigurationError):
            Client("http://127.0.0.1/", headers=headers)
    with pytest.raises(e.ConfigurationError):
        Client("http://127.0.0.1/", token="a\r\nb")


def test_plain_http_stays_on_loopback():
    with pytest.raises(e.ConnectionFailed):
        Client("http://example.com/mcp")
    for url in ("https://example.com/mcp", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]:80/"):
        Client(url)
    for url in ("ftp://x/", "https://u:p@example.com/", "nothing", "https://ex ample.com/", "https://example.com/#a"):
        with pytest.raises(e.ConfigurationError):
            Client(url)


@pytest.mark.parametrize("cut", [1, 2, 7, 10_000])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_the_same_however_it_is_cut(cut: int, stream: bool):
    async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
        if request.method == "server/discover":
            return discovery(request)
        done = result(request, text("é" * 50))
        note = {"jsonrpc": "2.0", "method": "notifications/x", "params": {}}
        data = EVENTS + chunk(b": hello\n\n") + event(note) + event(done) + chunk(b"") if stream else respond(done)
        for start in range(0, len(data), cut):
            writer.write(data[start : start + cut])
            if cut > 1 or start % 50 == 0:
                await asyncio.sleep(0)
        return None

    async def main():
        async with http_server(answer) as server, Client(server.url) as client:
            for _ in range(2):
                answer_ = await client.call_tool("x")
                assert answer_.content == [t.TextContent("é" * 50)]
            assert stream or server.connections == 1

    run(main())


def hostile(build):
    """Runs one call whose response is `build(request)`, then a benign one on the same client."""

    async def main(**options):
        def handler(request: Request):
            return build(request) if request.params["name"] == "bad" else text("fine")

        async with http_server(modern({"tools/call": handler})) as server:
            async with Client(server.url, policy=options.pop("policy", None) or policy(), **options) as client:
                with pytest.raises(e.ClientError) as caught:
                    await client.call_tool("bad")
                assert (await client.call_tool("good")).content == [t.TextContent("fine")]
                return caught.value

    return main


def test_what_is_no_answer_is_a_protocol_violation_and_the_client_lives_on():
    def other(request: Request, **change: object) -> bytes:
        return respond({**result(request, text("x")), **change})

    builds = {
        "wrong id": lambda r: other(r, id=r.message["id"] + 1),
        "id as text": lambda r: other(r, id=str(r.message["id"])),
        "no jsonrpc": lambda r: other(r, jsonrpc="1.0"),
        "unknown resultType": lambda r: result(r, {**text("x"), "resultType": "later"}),
        "wrong type": lambda r: result(r, {"content": "x"}),
        "unknown content": lambda r: result(r, {"content": [{"type": "smell"}]}),
        "not json": lambda r: respond(b"{nonsense"),
        "duplicate key": lambda r: respond(b'{"jsonrpc":"2.0","id":%d,"id":1,"result":{}}' % r.message["id"]),
        "batch": lambda r: respond([result(r, text("x"))]),
        "html": lambda r: respond(b"<p>", kind="text/html"),
        "no input asked": lambda r: result(r, {"resultType": "input_required"}),
        "encoded": lambda r: respond(result(r, text("x")), extra="Content-Encoding: gzip\r\n"),
        "two lengths": lambda r: respond(result(r, text("x")), extra="Content-Length: 3\r\n"),
        "not http": lambda r: b"SSH-2.0-x\r\n",
        "endless head": lambda r: b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000,
    }
    for name, build in builds.items():
        problem = run(hostile(build)())
        assert isinstance(problem, e.ProtocolViolation), (name, problem)


@pytest.mark.parametrize("kind", ["body", "chunked", "event", "error"])
def test_size_is_counted_while_reading(kind: str):
    blob = b"x" * 30_000

    def build(request: Request) -> bytes:
        if kind == "body":
            return respond({**result(request, text("x" * 30_000))})
        if kind == "error":
            return respond(blob, status="500 No", kind="text/plain")
        head = EVENTS if kind == "event" else EVENTS.replace(b"text/event-stream", b"application/json")
        return head + b"".join(chunk(b"data: " + blob if i == 0 else blob) for i in range(3))  # never ends

    problem = run(hostile(build)(policy=policy(message_bytes=20_000)))
    assert isinstance(problem, e.ProtocolViolation) and "20000" in str(problem)
    assert run(hostile(lambda r: error(r, -32000))()).args  # a small error passes as what it is


def test_statuses_without_an_mcp_answer():
    assert isinstance(run(hostile(lambda r: respond(b"oops", status="500 No", kind="text/plain"))()), e.HttpError)
    assert isinstance(run(hostile(lambda r: respond(b"", status="202 Accepted"))()), e.HttpError)
    assert isinstance(run(hostile(lambda r: respond(b"", status="401 No"))()), e.AuthenticationRequired)
    remote = run(hostile(lambda r: respond(error(r, -32021), status="400 Bad"))())
    assert isinstance(remote, e.RemoteError) and remote.code == -32021


def test_progress_is_heard_and_keeps_a_call_alive():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method != "tools/call":
                return discovery(request)
            token = request.params["_meta"].get("progressToken")
            writer.write(EVENTS)
            for step in range(4):
                await asyncio.sleep(0.15)
                params = {"progressToken": token, "progress": step}
                writer.write(event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
            writer.write(event(result(request, text("done"))) + chunk(b""))
            return None

        seen: list[float] = []
        async with http_server(answer) as server, Client(server.url) as client:
            await client.call_tool("x", timeout=0.3, on_progress=lambda p: seen.append(p.progress))
            assert seen == [0, 1, 2, 3]
            with pytest.raises(e.RequestTimeout):
                await client.call_tool("x", timeout=0.3)

    run(main())


@pytest.mark.attack("ATK-260")
def test_input_required_is_answered_with_a_new_id_and_the_state_untouched():
    state = '\u0000opaque ✓ " \\ =='
    seen: list[Request] = []

    def handler(request: Request):
        seen.append(request)
        if "inputResponses" not in request.params and "requestState" not in request.params:
            ask = {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "requestedSchema": FORM}}
            roots = {"method": "roots/list"}
            return {"resultType": "input_required", "inputRequests": {"k": ask, "r": roots}, "requestState": state}
        if len(seen) == 2:
            return {"resultType": "input_required", "inputRequests": {}}
        if len(seen) == 3:
            return {"resultType": "input_required", "requestState": ""}
        return text("ok")

    FORM = {"type": "object", "properties": {"n": {"type": "string", "default": "John"}}, "required": ["n"]}

    async def main():
        async with http_server(modern({"tools/call": handler})) as server:
            async with Client(server.url, on_elicit=accept_defaults, on_roots=["file:///a"]) as client:
                await client.call_tool("x", {"q": 1})
                first, second, third, fourth = seen
                assert fourth.params["requestState"] == "" and "inputResponses" not in fourth.params
                assert second.params["requestState"] == state
                assert second.params["inputResponses"] == {
                    "k": {"action": "accept", "content": {"n": "John"}},
                    "r": {"roots": [{"uri": "file:///a"}]},
                }
                assert second.params["arguments"] == {"q": 1} and second.message["id"] != first.message["id"]
                assert "requestState" not in third.params
                await client.call_tool("y")

    run(main())
    assert "requestState" in seen[1].params and "requestState" not in seen[0].params


@pytest.mark.attack("ATK-261")
def test_asking_back_is_bounded_and_needs_a_handler():
    ask = {"k": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}}

    async def main(**options):
        calls: list[int] = []

        def handler(request: Request):
            calls.append(1)
            return {"resultType": "input_required", "inputRequests": ask}

        async with http_server(modern({"tools/call": handler})) as server:
            async with Client(server.url, policy=policy(rounds=3), **options) as client:
                with pytest.raises(e.ClientError) as caught:
                    await client.call_tool("x")
        return caught.value, len(calls)

    problem, calls = run(main())
    assert isinstance(problem, e.InputDeclined) and calls == 1
    message = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
    problem, calls = run(main(on_sample=lambda params: message))
    assert isinstance(problem, e.ProtocolViolation) and calls == 4


SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


def listing(*tools: dict, **more) -> dict:
    return {"tools": list(tools), "ttlMs": 0, "cacheScope": "private", **more}


def test_arguments_are_mirrored_and_tools_with_bad_annotations_left_out(caplog):
    bad = {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}}

    async def main():
        tools = listing({"name": "good", "inputSchema": SCHEMA}, {"name": "bad", "inputSchema": bad})
        async with http_server(modern({"tools/list": lambda r: tools, "tools/call": lambda r: text("x")})) as server:
            async with Client(server.url) as client:
                assert [tool.name async for tool in client.tools()] == ["good"]
                await client.call_tool("good", {"region": " ü"})
                assert server.requests[-1].headers["mcp-param-region"] == "=?base64?IMO8?="
                await client.call_tool("good", {"region": None})
                assert "mcp-param-region" not in server.requests[-1].headers

    run(main())
    assert "'bad'" in caplog.text


def test_a_header_mismatch_lists_the_tools_and_tries_once_more():
    async def main():
        def call(request: Request):
            if "mcp-param-region" in request.headers:
                return text("ok")
            return respond(error(request, -32020), status="400 Bad Request")

        tools = {"tools/list": lambda r: listing({"name": "t", "inputSchema": SCHEMA}), "tools/call": call}
        async with http_server(modern(tools)) as server, Client(server.url) as client:
            await client.call_tool("t", {"region": "x"})
            assert server.methods[1:] == ["tools/call", "tools/list", "tools/call"]
            with pytest.raises(e.RemoteError):
                await client.call_tool("t", {})
            assert server.methods[4:] == ["tools/call", "tools/list", "tools/call"]

    run(main())


def test_structured_content_is_held_against_the_output_schema():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def main():
        tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
        values = {"good": {"n": 1}, "bad": {"n": "1"}}

        def call(request: Request):
            key = request.params["arguments"]["key"]
            return {**text("x"), **({"structuredContent": values[key]} if key in values else {})}

        async with http_server(modern({"tools/list": lambda r: listing(tool), "tools/call": call})) as server:
            async with Client(server.url) as client:
                with pytest.raises(e.OutputInvalid):
                    await client.call_tool("t", {"key": "bad"})
                assert (await client.call_tool("t", {"key": "good"})).structured_content == {"n": 1}
                with pytest.raises(e.OutputInvalid):
                    await client.call_tool("t", {"key": "none"})
                assert server.methods.count("tools/list") == 1

    run(main())


@pytest.mark.parametrize("cache", [True, False])
def test_calls_at_once_list_the_tools_once(cache: bool):
    """A rate that is enough for the calls is enough."""

    async def main():
        tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object", "required": ["n"]}}

        def call(request: Request):
            return {**text("x"), "structuredContent": {"n": 1} if request.params["arguments"] else {}}

        async with http_server(modern({"tools/list": lambda r: listing(tool), "tools/call": call})) as server:
            async with Client(server.url, cache=cache) as client:
                results = await asyncio.gather(*(client.call_tool("t", {"n": n}) for n in range(40)))
                assert [result.structured_content for result in results] == [{"n": 1}] * 40
                with pytest.raises(e.OutputInvalid):
                    await client.call_tool("t")
                assert server.methods.count("tools/list") == 1

    run(main())


def test_tool_errors_are_results_unless_asked_for():
    async def main():
        async with http_server(modern({"tools/call": lambda r: {**text("broken"), "isError": True}})) as server:
            async with Client(server.url) as client:
                assert (await client.call_tool("x")).is_error
                with pytest.raises(e.ToolError, match="broken"):
                    await client.call_tool("x", raise_on_error=True)

    run(main())


def test_fresh_results_are_used_again_until_they_change():
    async def main():
        ttl = 60_000

        def read(request: Request):
            return {"contents": [{"uri": request.params["uri"], "text": "x"}], "ttlMs": ttl, "cacheScope": "private"}

        async with http_server(modern({"resources/read": read, "tools/list": lambda r: listing()})) as server:
            async with Client(server.url) as client:
                for uri in ("a:1", "a:1", "a:2", "a:1"):
                    read_back = (await client.read_resource(uri)).contents
                    assert read_back == [t.TextResourceContents(uri, "x")]
                assert server.methods[1:] == ["resources/read"] * 2
                await client.list_tools()
                await client.list_tools()
                assert server.methods.count("tools/list") == 2  # ttlMs 0
            async with Client(server.url, cache=False) as client:
                await client.read_resource("a:1")
                await client.read_resource("a:1")
                assert server.methods.count("resources/read") == 4

    run(main())


def test_pages_are_followed_to_the_end_and_no_further():
    async def main():
        def pages(request: Request):
            cursor = request.params.get("cursor", "0")
            name = {"name": f"t{cursor}", "inputSchema": {"type": "object"}}
            return listing(name, **({"nextCursor": str(int(cursor) + 1)} if int(cursor) < limit else {}))

        limit = 2
        async with http_server(modern({"tools/list": pages})) as server:
            async with Client(server.url, policy=policy(pages=5)) as client:
                assert [tool.name async for tool in client.tools()] == ["t0", "t1", "t2"]
                limit = 99
                with pytest.raises(e.ProtocolViolation):
                    [tool async for tool in client.tools()]
        circle = listing(nextCursor="x")
        async with http_server(modern({"tools/list": lambda r: circle})) as server, Client(server.url) as client:
            with pytest.raises(e.ProtocolViolation):
                [tool async for tool in client.tools()]
            assert server.methods.count("tools/list") == 2

    run(main())


def test_an_answer_on_another_calls_stream_is_not_taken():
    async def main():
        waiting: dict[str, Request] = {}

        async def call(request: Request):
            waiting[request.params["name"]] = request
            while len(waiting) < 2:
                await asyncio.sleep(0.01)
            if request.params["name"] == "thief":
                return respond(result(waiting["victim"], text("stolen")))
            await asyncio.sleep(0.1)
            return text("mine")

        async with http_server(modern({"tools/call": call})) as server, Client(server.url) as client:
            victim, thief = await asyncio.gather(
                client.call_tool("victim"), client.call_tool("thief"), return_exceptions=True
            )
            assert isinstance(thief, e.ProtocolViolation)
            assert isinstance(victim, t.CallToolResult) and victim.content == [t.TextContent("mine")]
            assert client.dropped["answer"] == 1

    run(main())


def test_log_messages_are_asked_for_by_level():
    async def main():
        async def answer(request: Request, writer: asyncio.StreamWriter) -> object:
            if request.method == "server/discover":
                return discovery(request)
            params = {"level": "info", "data": {"x": 1}}
            writer.write(EVENTS + event({"jsonrpc": "2.0", "method": "notifications/message", "params": params}))
            writer.write(event(result(request, text("x"))) + chunk(b""))
            return None

        logs: list[object] = []
        async with http_server(answer) as server:
            async with Client(server.url, log_level="info", on_log=lambda m: logs.append(m.data)) as client:
                await client.call_tool("x")
                await client.set_log_level("error")
                await client.call_tool("x")
            levels = [r.params["_meta"].get(PREFIX + "logLevel") for r in server.requests]
            assert levels == [None, "info", "error"] and logs == [{"x": 1}] * 2

    run(main())


def test_a_listing_that_fails_does_not_hide_a_result():
    async def main():
        call = {"tools/call": lambda r: {**text("x"), "structuredContent": [1]}}
        async with http_server(modern(call)) as server, Client(server.url) as client:
            assert (await client.call_tool("x")).structured_content == [1]
            await client.call_tool("x")
            assert server.methods.count("tools/list") == 1
            await client.request("resources/list")  # refused as well, and raised
        return None

    with pytest.raises(e.RemoteError):
        asyncio.run(main())


def test_reserved_metadata_cannot_be_overridden_and_other_metadata_is_sent():
    async def main():
        async with http_server(modern({"tools/call": lambda r: text("x")})) as server, Client(server.url) as client:
            await client.call_tool("x", meta={"com.example/trace": "1"})
            assert server.requests[-1].params["_meta"]["com.example/trace"] == "1"
            for key in (PREFIX + "protocolVersion", "progressToken"):
                with pytest.raises(e.ConfigurationError):
                    await client.call_tool("x", meta={key: "1"})

    run(main())


def test_a_challenge_is_answered_with_a_new_token():
    async def main():
        def call(request: Request):
            if request.headers.get("authorization") != "Bearer new":
                return respond(b"", status="401 No", extra='WWW-Authenticate: Bearer scope="x"\r\n')
            return text("ok")

        async def challenge(status: int, headers) -> str | None:
            seen.append((status, headers["www-authenticate"]))
            return "Bearer new"

        seen: list[tuple[int, str]] = []
        async with http_server(modern({"tools/call": call})) as server:
            async with Client(server.url, token="old", challenge=challenge) as client:
                await client.call_tool("x")
                await client.call_tool("x")
        assert seen == [(401, 'Bearer scope="x"')]
        assert json.loads(server.requests[-1].body)["method"] == "tools/call"

    run(main())


@pytest.mark.parametrize("value", [ValueError("broken"), "Bearer a\nb"])
def test_a_challenge_that_fails_ends_the_call_at_once(value: object):
    async def main():
        async def challenge(status: int, headers) -> str | None:
            if isinstance(value, Exception):
                raise value
            return str(value)

        refuse = modern({"tools/call": lambda request: respond(b"", status="401 No")})
        async with http_server(refuse) as server, Client(server.url, challenge=challenge) as client:
            with pytest.raises(e.AuthenticationRequired) as caught:
                await asyncio.wait_for(client.call_tool("x"), 5)
            assert "broken" not in str(caught.value)

    run(main())
