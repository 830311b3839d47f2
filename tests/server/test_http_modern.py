"""The stateless revision over HTTP: headers that repeat the body, statuses, streams, and what is refused."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import Any

import pytest

from garrison import Context, RegistrationError, SecurityPolicy, Server, Timeouts
from garrison.protocol.types import PROTOCOL_VERSION_KEY
from tests.support.mcp import MODERN, call, meta, modern, modern_fields, post, until
from tests.support.raw_http import Response, changed, connected, exchange, parse_events, request, serving, standard

ran: list[object] = []


def make(**options: Any) -> Server:
    ran.clear()
    options.setdefault("policy", SecurityPolicy(timeouts=Timeouts(shutdown=0.2)))
    server = Server("modern", **options)

    @server.tool(inline=True)
    def echo(text: str) -> str:
        ran.append(text)
        return text

    @server.tool(
        inline=True,
        input_schema={
            "type": "object",
            "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"},
                "count": {"type": "integer", "x-mcp-header": "Count"},
                "sure": {"type": "boolean", "x-mcp-header": "Sure"},
            },
        },
    )
    def mirrored(region: str | None = None, count: int | None = None, sure: bool | None = None) -> str:
        ran.append((region, count, sure))
        return "x"

    @server.tool()
    async def steps(ctx: Context, count: int, pause: float = 0) -> str:
        for number in range(count):
            ctx.progress(number + 1)
        await asyncio.sleep(pause)
        return "done"

    @server.resource("a://b")
    async def plain() -> str:
        return "x"

    return server


def error(response: Response, status: int, code: int, id: object = 1) -> dict[str, Any]:
    assert response.status == status, response
    body = response.json
    assert body["error"]["code"] == code, body
    assert body.get("id") == id, body
    assert ran == []
    return body["error"]


@pytest.mark.attack("ATK-051")
@pytest.mark.attack("ATK-052")
@pytest.mark.attack("ATK-053")
@pytest.mark.attack("ATK-054")
async def test_headers_must_repeat_the_body() -> None:
    message = call("echo", {"text": "x"})
    async with serving(make()) as running:
        port = running.port
        for change in (
            {"mcp_name": "mirrored"},
            {"mcp_name": None},
            {"mcp_name": "Echo"},
            {"mcp_name": "echo "[:4] + "x"},
            {"mcp_name": "echo,echo"},
            {"mcp_method": "tools/list"},
            {"mcp_method": "TOOLS/CALL"},
            {"mcp_method": None},
            {"mcp_protocol_version": None},
            {"mcp_protocol_version": "2025-11-25"},
            {"mcp_protocol_version": "2026-07-28x"},
            {"mcp_protocol_version": "9999-01-01"},
        ):
            error(await exchange(port, post(port, message, **change)), 400, -32020)
        for version in ("2025-11-25", "9999-01-01"):
            other = call("echo", {"text": "x"})
            other["params"]["_meta"][PROTOCOL_VERSION_KEY] = version
            error(await exchange(port, post(port, other)), 400, -32020)
        assert (await exchange(port, post(port, message))).status == 200
        assert ran == ["x"]


@pytest.mark.attack("ATK-056")
@pytest.mark.attack("ATK-057")
async def test_the_base64_form_of_a_header() -> None:
    message = call("echo", {"text": "x"})
    async with serving(make()) as running:
        port = running.port

        def sentinel(raw: bytes) -> str:
            return f"=?base64?{b64encode(raw).decode()}?="

        for bad in (
            "=?BASE64?ZWNobw==?=",
            "=?base64?ZWNobw?=",
            "=?base64?ZWNobw=?=",
            "=?base64?ZWNob x==?=",
            "=?base64??=",
            "=?base64?ZWNobx==?=",
            "ZWNobw==",
            sentinel(b"\xff\xfe"),
            sentinel(sentinel(b"echo").encode()),
            sentinel(b"echo\n"),
        ):
            error(await exchange(port, post(port, message, mcp_name=bad)), 400, -32020)
        assert (await exchange(port, post(port, message, mcp_name=sentinel(b"echo")))).status == 200
        ran.clear()
        read = modern("resources/read", {"uri": "a://b"})
        assert (await exchange(port, post(port, read))).status == 200
        assert (await exchange(port, post(port, read, mcp_name=sentinel(b"a://b")))).status == 200
        error(await exchange(port, post(port, read, mcp_name="a://c")), 400, -32020)


@pytest.mark.attack("ATK-058")
@pytest.mark.attack("ATK-059")
@pytest.mark.parametrize(
    ("arguments", "fields", "ok"),
    [
        ({"region": "eu"}, {"region": "eu"}, True),
        ({"region": "eu"}, {"region": "us"}, False),
        ({"region": "eu"}, {}, False),
        ({"region": None}, {"region": "eu"}, False),
        ({"region": None}, {}, True),
        ({}, {"region": "eu"}, False),
        ({}, {}, True),
        ({"region": "ü"}, {"region": "=?base64?w7w=?="}, True),
        ({"region": "eu"}, {"region": "=?base64?ZXU=?="}, True),
        ({"region": "eu"}, {"region": "EU"}, False),
        ({"count": 42}, {"count": "42"}, True),
        ({"count": 42}, {"count": "42.0"}, True),
        ({"count": 42}, {"count": "4.2e1"}, False),
        ({"count": 42}, {"count": "0x2a"}, False),
        ({"count": 42}, {"count": "042"}, False),
        ({"count": 42}, {"count": "+42"}, False),
        ({"count": 42}, {"count": "43"}, False),
        ({"sure": True}, {"sure": "true"}, True),
        ({"sure": True}, {"sure": "True"}, False),
        ({"sure": True}, {"sure": "1"}, False),
        ({"sure": True}, {"sure": "false"}, False),
    ],
)
async def test_parameter_headers(arguments: dict[str, Any], fields: dict[str, str], ok: bool) -> None:
    async with serving(make()) as running:
        port = running.port
        message = call("mirrored", arguments)
        changes: dict[str, str | None] = {f"mcp_param_{name}": value for name, value in fields.items()}
        response = await exchange(port, post(port, message, **changes))
        if not ok:
            error(response, 400, -32020)
        elif None in arguments.values():
            assert response.status == 200  # whether null fits is for the schema to say
        else:
            assert response.status == 200
            assert "isError" not in response.json["result"], response


@pytest.mark.attack("ATK-151")
@pytest.mark.parametrize(
    "name",
    ["password", "api_key", "access_token", "region"],
)
def test_a_secret_is_not_mirrored(name: str) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string", "x-mcp-header": "Given"}}, "required": [name]}

    def password(password: str) -> str:
        return "x"

    def api_key(api_key: str) -> str:
        return "x"

    def access_token(access_token: str) -> str:
        return "x"

    def region(region: str) -> str:
        return "x"

    function = {"password": password, "api_key": api_key, "access_token": access_token, "region": region}[name]
    if name == "region":
        Server("x").add_tool(function, input_schema=schema)
    else:
        with pytest.raises(RegistrationError):
            Server("x").add_tool(function, input_schema=schema)


@pytest.mark.attack("ATK-097")
async def test_meta_must_be_complete() -> None:
    async with serving(make()) as running:
        port = running.port
        for change in (
            {"_meta": None},
            {"_meta": []},
            {"_meta": {}},
            {"_meta": {k: v for k, v in meta().items() if "protocolVersion" not in k}},
            {"_meta": {k: v for k, v in meta().items() if "clientCapabilities" not in k}},
            {"_meta": meta(version=1)},  # type: ignore[arg-type]
            {"_meta": {**meta(), "io.modelcontextprotocol/clientCapabilities": []}},
            {"_meta": {**meta(), "progressToken": []}},
        ):
            message = call("echo", {"text": "x"}, "id-7")
            message["params"].update(change)
            response = await exchange(port, post(port, message))
            assert response.status == 400, change
            assert response.json["error"]["code"] in (-32602, -32020)
            assert response.json["id"] == "id-7"
        message = call("echo", {"text": "x"})
        del message["params"]["_meta"]
        error(await exchange(port, post(port, message)), 400, -32602)


@pytest.mark.attack("ATK-098")
@pytest.mark.parametrize("version", ["9999-01-01", "DRAFT", '"; DROP', "2026-07-2"])
async def test_an_unknown_version_is_named_with_what_is_spoken(version: str) -> None:
    async with serving(make()) as running:
        port = running.port
        message = call("echo", {"text": "x"}, version=version)
        response = await exchange(port, post(port, message, mcp_protocol_version=version))
        told = error(response, 400, -32022)
        assert told["data"]["supported"][0] == MODERN
        assert told["data"]["requested"] == version


async def test_statuses_and_ids() -> None:
    async with serving(make()) as running:
        port = running.port
        for message, status, code in (
            (modern("tools/nothing", id=5), 404, -32601),
            (modern("prompts/list", id=5), 404, -32601),
            (modern("ping", id=5), 404, -32601),
            (call("nothing", id=5), 200, -32602),
            (modern("tools/list", {"cursor": "x"}, id=5), 200, -32602),
        ):
            error(await exchange(port, post(port, message)), status, code, 5)
        for body, code in ((b"{", -32700), (b"[]", -32600), (b"1", -32600), (b'{"id":1}', -32600)):
            response = await exchange(port, request(body, modern_fields(port, call("echo"))))
            error(response, 400, code, None)
            assert "id" not in response.json
        batch = json.dumps([call("echo", {"text": "x"}), call("echo", {"text": "x"}, 2)]).encode()
        error(await exchange(port, request(batch, modern_fields(port, call("echo")))), 400, -32600, None)


@pytest.mark.attack("ATK-092")
async def test_an_id_comes_back_with_its_type() -> None:
    async with serving(make()) as running:
        port = running.port
        for identifier in (0, 1, -5, 2**53 - 1, "1", "ü", "x" * 128):
            response = await exchange(port, post(port, call("echo", {"text": "x"}, identifier)))
            assert response.json["id"] == identifier
            assert type(response.json["id"]) is type(identifier)


async def test_notifications_and_responses() -> None:
    async with serving(make()) as running:
        port = running.port
        for method in ("notifications/cancelled", "notifications/nothing"):
            message = {"jsonrpc": "2.0", "method": method, "params": {"requestId": 1, "_meta": meta()}}
            response = await exchange(port, post(port, message))
            assert (response.status, response.body) == (202, b"")
        for body in (
            {"jsonrpc": "2.0", "id": 1, "result": {}},
            {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}},
        ):
            response = await exchange(port, request(json.dumps(body).encode(), modern_fields(port, call("echo"))))
            assert response.status == 400


async def test_a_response_becomes_a_stream_with_the_first_notification() -> None:
    async with serving(make()) as running:
        port = running.port
        response = await exchange(port, post(port, call("steps", {"count": 0}, progressToken="t")))
        assert response.get("content-type") == "application/json"
        async with connected(port) as wire:
            for _ in range(2):  # the connection is kept after a stream
                await wire.send(post(port, call("steps", {"count": 3}, progressToken="t")))
                response = await wire.response()
                assert response.get("content-type") == "text/event-stream"
                assert response.get("x-accel-buffering") == "no"
                assert [e.get("method", "response") for e in response.events] == ["notifications/progress"] * 3 + [
                    "response"
                ]
                assert all("id" not in event for event in parse_events(response.body))


async def test_a_quiet_request_becomes_a_stream_that_is_kept_alive() -> None:
    policy = SecurityPolicy(timeouts=Timeouts(keep_alive=0.1, shutdown=0.2))
    async with serving(make(policy=policy)) as running:
        port = running.port
        async with connected(port) as wire:
            await wire.send(post(port, call("steps", {"count": 0, "pause": 1.3})))
            response = await wire.response()
            assert response.get("content-type") == "text/event-stream"
            assert response.body.startswith(b":")
            assert response.events[-1]["result"]["content"][0]["text"] == "done"


@pytest.mark.attack("ATK-111")
async def test_a_subscription_is_a_stream_that_ends_gracefully_with_the_server() -> None:
    server = make()
    async with serving(server) as running:
        port = running.port
        async with connected(port) as wire, connected(port) as leaving:
            listen = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "s")
            for each in (wire, leaving):
                await each.send(post(port, listen))
                assert (await each.head()).get("content-type") == "text/event-stream"
                first = json.loads((await each.event())["data"])
                assert first["method"] == "notifications/subscriptions/acknowledged"
            assert sum(len(hub._listeners) for hub in server._hubs) == 2
            leaving.reset()
            await until(lambda: sum(len(hub._listeners) for hub in server._hubs) == 1)
            server.add_tool(lambda: "x", "new", structured_output=False)
            assert json.loads((await wire.event())["data"])["method"] == "notifications/tools/list_changed"
            closing = asyncio.create_task(running.close())
            last = json.loads((await wire.event())["data"])
            assert last["id"] == "s"
            assert last["result"]["resultType"] == "complete"
            assert await wire.chunk() == b""
            await closing


@pytest.mark.attack("ATK-025")
async def test_without_legacy_nothing_of_it_is_answered() -> None:
    async with serving(make(legacy="off")) as running:
        port = running.port
        for method in ("GET", "DELETE"):
            response = await exchange(port, request(b"", [*standard(port), ("Mcp-Session-Id", "x")], method=method))
            assert response.status == 405
            assert response.get("allow") == "POST"
        opening = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
        }
        response = await exchange(port, request(json.dumps(opening).encode(), standard(port)))
        told = error(response, 400, -32022)
        assert told["data"]["supported"] == [MODERN]
        assert response.get("mcp-session-id") is None
        response = await exchange(port, request(b"[]", changed(standard(port))))
        assert response.status == 400
        assert (await exchange(port, post(port, call("echo", {"text": "x"})))).status == 200
