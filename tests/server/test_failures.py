"""Handlers that raise, pretend to be cancelled or take too long: the client gets an answer, and no secret."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from garrison import McpError, SecurityPolicy, Server, Timeouts
from tests.support.features import always, make, text
from tests.support.mcp import peer


class Tired(KeyboardInterrupt):
    pass


@always
@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.attack("ATK-119")
@pytest.mark.attack("ATK-120")
async def test_what_a_handler_raises_is_masked_and_logged(
    revision: str, inline: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = make()
    errors: list[BaseException] = [
        RuntimeError("/var/db password=hunter2 SELECT *"),
        Tired("hunter2"),
        RecursionError("hunter2"),
        MemoryError("hunter2"),
        SystemExit("hunter2"),
        ExceptionGroup("hunter2", [ValueError("hunter2")]),
        StopIteration("hunter2"),
    ]

    @server.tool(inline=inline)
    def fail(number: int) -> str:
        raise errors[number]

    @server.tool(inline=True)
    def fine() -> str:
        return "fine"

    async with peer(server, revision, "memory") as p:
        for number, error in enumerate(errors):
            caplog.clear()
            response = await p.request("tools/call", {"name": "fail", "arguments": {"number": number}})
            said = json.dumps(response)
            assert "hunter2" not in said, said
            assert "Traceback" not in said
            assert response["result"]["isError"] is True
            identifier = text(response["result"]).partition("error id ")[2].rstrip(")")
            assert len(identifier) == 16, (error, said)
            assert any(identifier in record.getMessage() and record.exc_info for record in caplog.records)
        assert text(await p.tool("fine")) == "fine"


@always
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_handler_that_pretends_to_be_cancelled_is_answered(
    revision: str, error: type[BaseException], kind: str
) -> None:
    server = make()

    async def async_() -> str:
        raise error("hunter2")

    def sync() -> str:
        raise error("hunter2")

    server.add_tool(async_ if kind == "async" else sync, "fail", inline=kind == "inline")
    async with peer(server, revision, "memory") as p:
        async with asyncio.timeout(1):
            response = await p.request("tools/call", {"name": "fail"})
        assert "hunter2" not in json.dumps(response)
        assert "error" in response or response["result"]["isError"] is True


@always
@pytest.mark.attack("ATK-120")
async def test_a_coroutine_that_raises_ends_only_itself(revision: str) -> None:
    server = make()

    @server.tool()
    async def fail(kind: str) -> str:
        await asyncio.sleep(0)
        raise {"key": KeyboardInterrupt, "memory": MemoryError, "group": BaseExceptionGroup}[kind](
            *(("hunter2", [KeyboardInterrupt("hunter2")]) if kind == "group" else ("hunter2",))
        )

    async with peer(server, revision, "memory") as p:
        for kind in ("key", "memory", "group"):
            response = await p.request("tools/call", {"name": "fail", "arguments": {"kind": kind}})
            assert response["result"]["isError"] is True
            assert "hunter2" not in json.dumps(response)


@pytest.mark.parametrize("inline", [True, False])
async def test_an_error_that_json_cannot_carry_is_answered(inline: bool) -> None:
    server = Server("names")

    @server.tool(inline=inline)
    def find() -> str:
        raise McpError("no file \udce4", data={"name": "\udce4"})

    @server.tool(inline=True)
    def fine() -> str:
        return "fine"

    async with peer(server) as p:
        answer = await p.request("tools/call", {"name": "find"})
        assert answer["error"] == {
            "code": -32603,
            "message": "no file <U+DCE4>",
            "data": {"name": "<U+DCE4>"},
        }
        assert text(await p.tool("fine")) == "fine"


@pytest.mark.attack("ATK-109")
async def test_codes_that_a_handler_chooses() -> None:
    from garrison import McpError

    server = make()

    @server.tool()
    async def custom(code: int) -> str:
        raise McpError("chosen", code=code, data={"a": 1})

    async with peer(server) as p:
        error = await p.error("tools/call", {"name": "custom", "arguments": {"code": 7}})
        assert error == {"code": 7, "message": "chosen", "data": {"a": 1}}


@always
async def test_time_outs(revision: str) -> None:
    server = make(policy=SecurityPolicy(timeouts=Timeouts(handler=0.1, shutdown=0.2)))
    cancelled: list[str] = []

    @server.tool()
    async def slow() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.append("slow")
            raise
        return "x"

    @server.tool(timeout=5)
    async def patient() -> str:
        await asyncio.sleep(0.2)
        return "patient"

    @server.resource("slow://x")
    async def resource() -> str:
        await asyncio.sleep(5)
        return "x"

    async with peer(server, revision, "memory") as p:
        started = time.monotonic()
        response = await p.request("tools/call", {"name": "slow"})
        assert "too long" in json.dumps(response)
        assert cancelled == ["slow"]
        assert "error" in await p.request("resources/read", {"uri": "slow://x"})
        assert time.monotonic() - started < 2
        assert text(await p.tool("patient")) == "patient"
