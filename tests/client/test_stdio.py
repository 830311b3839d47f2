"""The client with a server that it starts as a child process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client, accept_defaults, conversation
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.protocol import types as t

from .fakes import program

ECHO = """
for m in messages():
    method = m.get("method")
    if method == "server/discover": discover(m)
    elif method == "tools/call":
        name, a = m["params"]["name"], m["params"]["arguments"]
        if name == "exit": sys.exit(3)
        elif name == "sleep": pass
        elif name == "env": text(m, json.dumps(dict(os.environ)))
        elif name == "cwd": text(m, os.getcwd())
        elif name == "huge": text(m, "x" * 50_000)
        elif name == "junk":
            print("not json"); send([])
            send({"jsonrpc": "2.0", "id": 1, "result": {}}); send({"jsonrpc": "2.0", "id": m["id"] + 7, "result": {}})
            text(m, "ok"); text(m, "twice")
        elif name == "pid": text(m, os.getpid())
        else: text(m, a.get("x", name))
    elif method == "notifications/cancelled":
        open(LOG, "a").write(str(m["params"]["requestId"]) + "\\n")
"""


def server(log: object = os.devnull) -> list[str]:
    return program(f"LOG = {str(log)!r}\n" + ECHO)


def quick(**limits: int) -> SecurityPolicy:
    return SecurityPolicy(limits=Limits(**limits), timeouts=Timeouts(shutdown=0.5, connect=5.0))


def text_of(result: t.CallToolResult) -> str:
    assert isinstance(result.content[0], t.TextContent)
    return result.content[0].text


def test_calls_in_parallel_each_get_their_answer():
    async def main():
        async with Client(server()) as client:
            assert client.protocol_version == "2026-07-28"
            answers = await asyncio.gather(*(client.call_tool("x", {"x": str(i)}) for i in range(100)))
            assert [text_of(a) for a in answers] == [str(i) for i in range(100)]
            big = "é" * 500_000
            assert text_of(await client.call_tool("x", {"x": big})) == big

    asyncio.run(main())


def test_the_child_inherits_only_what_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "x")

    async def main():
        async with Client(server(), env={"MINE": "1"}, cwd=tmp_path) as client:
            found = text_of(await client.call_tool("env"))
            assert "SECRET_TOKEN" not in found and '"MINE": "1"' in found and '"PATH"' in found
            assert text_of(await client.call_tool("cwd")) == str(tmp_path)

    asyncio.run(main())


def test_what_belongs_to_nothing_is_dropped_and_counted():
    async def main():
        async with Client(server()) as client:
            assert text_of(await client.call_tool("junk")) == "ok"
            assert text_of(await client.call_tool("x", {"x": "next"})) == "next"
            assert client.dropped["malformed"] == 2 and client.dropped["answer"] == 3

    asyncio.run(main())


def test_an_oversized_line_fails_its_call_and_the_next_is_served():
    async def main():
        async with Client(server(), policy=quick(message_bytes=10_000)) as client:
            with pytest.raises(e.ProtocolViolation, match="10000"):
                await client.call_tool("huge")
            assert text_of(await client.call_tool("x")) == "x"

    asyncio.run(main())


def test_time_out_and_cancellation_tell_the_server(tmp_path):
    log = tmp_path / "log"

    async def main():
        async with Client(server(log)) as client:
            with pytest.raises(e.RequestTimeout):
                await client.call_tool("sleep", timeout=0.1)
            task = asyncio.ensure_future(client.call_tool("sleep"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.call_tool("x")

    asyncio.run(main())
    assert len(set(log.read_text().split())) == 2


def test_a_server_that_exits_fails_what_waits_at_once_and_is_started_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversation, "_FIRST_PAUSE", 0.01)

    async def main():
        async with Client(server()) as client:
            first = text_of(await client.call_tool("pid"))
            started = time.monotonic()
            other = asyncio.ensure_future(client.call_tool("sleep"))
            with pytest.raises(e.ConnectionLost, match="exit code 3"):
                await client.call_tool("exit")
            with pytest.raises(e.ConnectionLost):
                await other
            assert time.monotonic() - started < 3
            assert text_of(await client.call_tool("pid")) != first
            for _ in range(4):
                with pytest.raises(e.ConnectionLost):
                    await client.call_tool("exit")
                await client.call_tool("x")
            with pytest.raises(e.ConnectionLost):
                await client.call_tool("exit")
            for _ in range(2):
                with pytest.raises(e.ConnectionLost, match="more than 5 times within 600 s"):
                    await client.call_tool("x")

    asyncio.run(main())


def test_a_server_is_started_again_after_a_pause_that_doubles():
    async def main():
        async with Client(server()) as client:
            pauses: list[float] = []
            for _ in range(3):
                with pytest.raises(e.ConnectionLost):
                    await client.call_tool("exit")
                started = time.monotonic()
                await client.call_tool("x")
                pauses.append(time.monotonic() - started)
        assert 0.1 <= pauses[0] < 0.6 and pauses[1] >= 0.2 and 0.4 <= pauses[2] < 1.5

    asyncio.run(main())


def test_closing_while_it_waits_to_start_again_starts_nothing(tmp_path: Path):
    starts = tmp_path / "starts"
    body = f"open({str(starts)!r}, 'a').write('x')\nLOG = os.devnull\n" + ECHO

    async def main():
        client = Client(program(body), policy=quick())
        await client.connect()
        with pytest.raises(e.ConnectionLost):
            await client.call_tool("exit")
        waiting = asyncio.ensure_future(client.call_tool("x"))
        await asyncio.sleep(0.02)
        await client.aclose()
        with pytest.raises(e.ConnectionLost, match="closed"):
            await waiting

    asyncio.run(main())
    assert starts.read_text() == "x"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()[2] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_ends_a_stubborn_server_and_its_children():
    stubborn = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call": text(m, f"{os.getpid()} {child.pid}")
time.sleep(60)
"""

    async def main() -> list[int]:
        async with Client(program(stubborn), policy=quick()) as client:
            pids = [int(p) for p in text_of(await client.call_tool("x")).split()]
            assert all(alive(p) for p in pids)
        return pids

    started = time.monotonic()
    pids = asyncio.run(main())
    assert time.monotonic() - started < 5
    time.sleep(0.1)
    assert not any(alive(p) for p in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_ends_what_a_well_behaved_server_left_behind():
    leaving = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call": text(m, child.pid)
"""

    async def main() -> int:
        async with Client(program(leaving), policy=quick()) as client:
            return int(text_of(await client.call_tool("x")))

    pid = asyncio.run(main())
    time.sleep(0.1)
    assert not alive(pid)


def test_a_program_that_is_not_there_or_says_nothing():
    async def main():
        with pytest.raises(e.ConnectionFailed, match="no-such-program"):
            async with Client(["no-such-program"]):
                pass
        with pytest.raises(e.ClientError):
            async with Client(program("sys.exit(1)"), policy=quick()):
                pass

    asyncio.run(main())
    targets: list[Any] = [[], ["a\0b"], [1], None, 3]
    for target in targets:
        with pytest.raises(e.ConfigurationError):
            Client(target)


LEGACY = """
def say(m, value):
    send({"jsonrpc": "2.0", "id": m["id"], "result": {"content": [{"type": "text", "text": json.dumps(value)}]}})
for m in messages():
    method = m.get("method")
    if method == "server/discover":
        if MODE == "error": error(m, -32601)
        elif MODE == "odd": error(m, -32000)
        elif MODE == "exit": open(FLAG, "a").close(); sys.exit(1)
    elif method == "initialize":
        log = m
        send({"jsonrpc": "2.0", "id": m["id"], "result": {"protocolVersion": VERSION, "capabilities": {"tools": {}},
              "serverInfo": {"name": "old", "version": "1"}}})
    elif method == "notifications/initialized":
        pass
    elif method == "tools/call":
        call = m
        if m["params"]["name"] == "ask":
            send({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {"message": "?",
                  "requestedSchema": {"type": "object", "properties": {"n": {"type": "integer", "default": 30}}}}})
            send({"jsonrpc": "2.0", "id": 2, "method": "ping"})
            send({"jsonrpc": "2.0", "id": 3, "method": "roots/list"})
            answers = [None, None, None]
        elif m["params"]["name"] == "batch":
            send([{"jsonrpc": "2.0", "id": m["id"], "result": {"content": []}}])
        else:
            say(m, log["params"])
    elif method is None:
        answers = [a for a in answers if a is not None] + [m]
        if len(answers) == 3:
            say(call, answers)
        else:
            answers = answers + [None]
"""


def legacy(mode: str, version: str = "2025-06-18", flag: object = os.devnull) -> list[str]:
    return program(f"MODE, VERSION, FLAG = {mode!r}, {version!r}, {str(flag)!r}\n" + LEGACY)


@pytest.mark.parametrize("mode", ["error", "odd", "silent", "exit"])
def test_a_server_of_the_older_era_is_recognized(mode: str):
    async def main():
        fast = SecurityPolicy(timeouts=Timeouts(connect=0.6, shutdown=0.5))
        async with Client(legacy(mode), policy=fast, on_elicit=accept_defaults) as client:
            assert client.protocol_version == "2025-06-18"
            assert client.server_info is not None and client.server_info.name == "old"
            params = text_of(await client.call_tool("x"))
            assert '"protocolVersion": "2025-11-25"' in params and '"elicitation"' in params

    asyncio.run(main())


def test_nothing_older_is_spoken_where_that_is_ruled_out():
    async def main():
        choices: list[dict[str, Any]] = [
            {"era": "modern"},
            {"versions": ["2026-07-28"]},
            {"versions": ["2026-07-28", "2025-11-25"]},
        ]
        for options in choices:
            with pytest.raises(e.ConnectionFailed):
                async with Client(legacy("error"), policy=quick(), **options):
                    pass

    asyncio.run(main())
    wrong: list[dict[str, Any]] = [{"versions": ["1999-01-01"]}, {"versions": ["2026-07-28"], "era": "legacy"}]
    for options in wrong:
        with pytest.raises(e.ConfigurationError):
            Client(["x"], **options)


def test_questions_of_an_older_server_are_answered_while_the_call_waits():
    async def main():
        async with Client(legacy("error", "2025-06-18"), on_elicit=accept_defaults) as client:
            answers = text_of(await client.call_tool("ask"))
            assert '{"action": "accept", "content": {"n": 30}}' in answers
            assert '"id": 2, "result": {}' in answers
            assert '"id": 3, "error": {"code": -32601' in answers

    asyncio.run(main())


def test_batches_are_taken_only_in_the_revision_that_has_them():
    async def main():
        async with Client(legacy("error", "2025-03-26")) as client:
            assert (await client.call_tool("batch")).content == []
        async with Client(legacy("error", "2025-06-18")) as client:
            with pytest.raises(e.RequestTimeout):
                await client.call_tool("batch", timeout=0.2)

    asyncio.run(main())
