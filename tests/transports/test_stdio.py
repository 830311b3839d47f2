"""A server on standard input and output, started as a program and fed with bytes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.mcp import call, modern

PROGRAM = Path(__file__).parent.parent / "support" / "stdio_server.py"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "init",
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
UNPACED = {"message_rate": 1_000_000, "message_burst": 1_000_000}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes are polled here")


class Program:
    """The started server."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors
        self._rest = b""
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin.fileno(), process.stdout.fileno()

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.stdin, data) :]

    def send(self, *messages: Any) -> None:
        self.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def line(self, seconds: float = 10) -> bytes:
        """The next line of standard output."""
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("no line")
            data = os.read(self.stdout, 1 << 20)
            if not data:
                raise EOFError
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def read(self, seconds: float = 10) -> Any:
        return json.loads(self.line(seconds))

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.read()

    def silent(self, seconds: float = 0.1) -> bool:
        return not self._rest and not select.select([self.stdout], [], [], seconds)[0]

    def alive(self) -> None:
        answer = self.ask(call("echo", {"text": "alive"}, "alive"))
        assert answer["result"]["content"][0]["text"] == "alive", answer

    def end(self, seconds: float = 5) -> int:
        """Close standard input and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(seconds)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()


@contextmanager
def program(**options: Any) -> Iterator[Program]:
    environment = {**os.environ, "PYTHONPATH": "src"}
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, after the program has ended
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        cwd=Path(__file__).parent.parent.parent,
    )
    try:
        yield Program(process, errors)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, errors):
            assert pipe is not None
            pipe.close()


def test_whole_and_split() -> None:
    with program() as p:
        data = b"".join(json.dumps(call("echo", {"text": "hé"}, n)).encode() + b"\n" for n in range(3))
        p.write(data)
        whole = [p.line() for _ in range(3)]
        assert [json.loads(line)["id"] for line in whole] == [0, 1, 2]
        for at in range(1, len(data), 37):
            p.write(data[:at])
            time.sleep(0.001)
            p.write(data[at:])
            assert [p.line() for _ in range(3)] == whole
        for byte in data:
            p.write(bytes([byte]))
        assert [p.line() for _ in range(3)] == whole
        p.ask(call("slow", {"seconds": 0}))  # from here on an event loop runs
        p.write(data[:100])
        time.sleep(0.01)
        p.write(data[100:])
        assert [p.line() for _ in range(3)] == whole


@pytest.mark.attack("ATK-061")
@pytest.mark.parametrize("loop", [False, True])
def test_an_endless_line(loop: bool) -> None:
    with program(limits={"message_bytes": 1_000_000, **UNPACED}) as p:
        if loop:
            p.ask(call("slow", {"seconds": 0}))
        before = p.ask(call("memory"))["result"]["structuredContent"]["result"]
        for _ in range(60):
            p.write(b"x" * 1_000_000)
        answer = p.read()
        assert answer["error"]["code"] == -32600
        assert "id" not in answer
        assert p.silent()
        p.write(b"\n")
        p.alive()
        assert p.ask(call("memory"))["result"]["structuredContent"]["result"] - before < 20_000
        exact = call("echo", {"text": ""})
        room = 1_000_000 - len(json.dumps(exact))
        for more, key in ((0, "result"), (1, "error")):
            assert key in p.ask(call("echo", {"text": "x" * (room + more)}))


@pytest.mark.attack("ATK-062")
@pytest.mark.attack("ATK-064")
@pytest.mark.parametrize("loop", [False, True])
def test_lines_that_are_no_messages(loop: bool) -> None:
    good = json.dumps(call("echo", {"text": "x"})).encode()
    with program() as p:
        if loop:
            p.ask(call("slow", {"seconds": 0}))
        for bad in (
            b"\xff\xfe",
            b'"\xc0\xaf"',
            b'"\xed\xa0\x80"',
            b"\0",
            b'"\0"',
            b"\xef\xbb\xbf" + good,
            good[:-1],
            good + good,
            good.replace(b",", b",\r", 1)[:-1],
            b"{",
            b"\x0b" + good,
        ):
            p.write(bad + b"\n")
            assert p.read()["error"]["code"] == -32700, bad
            p.alive()
        p.write(b"[]\n")
        assert p.read()["error"]["code"] == -32600
        p.write(b"\n" * 10_000 + b"\r\n" * 10)
        p.write(good + b"\r\n")
        assert p.read()["result"]["content"][0]["text"] == "x"
        p.write(good.replace(b",", b",\r", 1) + b"\n")  # white space inside JSON
        assert p.read()["result"]
        assert p.silent()


@pytest.mark.attack("ATK-063")
def test_only_messages_are_on_standard_output() -> None:
    with program() as p:
        p.send(call("noisy_inline", id=1))
        assert p.read()["id"] == 1
        p.send(call("noisy", id=2))
        assert p.read()["id"] == 2
        p.alive()
        assert p.silent()
        assert p.end() == 0
        errors = p.errors()
        for stray in ("print", "write", "descriptor", "child", "inline"):
            assert f"STRAY {stray}" in errors


@pytest.mark.attack("ATK-065")
def test_responses_that_nobody_waits_for() -> None:
    with program(limits={"malformed_per_minute": 10_000, **UNPACED}) as p:
        for number in range(1000):
            p.send(
                {"jsonrpc": "2.0", "id": number, "result": {}},
                {"jsonrpc": "2.0", "id": str(number), "error": {"code": 1, "message": "x"}},
            )
        p.alive()
        p.send(INITIALIZE)
        assert p.read()["id"] == "init"
        p.send({"jsonrpc": "2.0", "id": 1, "result": {}})
        p.alive()
        assert p.silent()


BAD = [b"{", b"[]", b'{"jsonrpc":"2.0","id":1}', b"\xff", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}']


@pytest.mark.attack("ATK-065")
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("most", [5, 20])
def test_too_many_malformed_messages_end_the_connection(most: int, loop: bool) -> None:
    with program(limits={} if most == 20 else {"malformed_per_minute": most}) as p:
        if loop:
            p.send(call("slow", {"seconds": 0.1}, "kept"))
        bad = [BAD[number % len(BAD)] for number in range(most + 10)]
        p.write(b"".join(line + b"\n" for line in bad) + json.dumps(call("echo", {"text": "late"})).encode() + b"\n")
        answers = [p.read() for _ in range(most + 1 + loop)]
        assert sum("error" in answer for answer in answers) == most + 1
        assert not loop or "result" in answers[-1]
        with pytest.raises(EOFError):
            p.line()
        assert p.process.wait(3) == 0
        assert "limit.reached" in p.errors()
        assert "Limits.malformed_per_minute" in p.errors()


@pytest.mark.attack("ATK-065")
@pytest.mark.parametrize("loop", [False, True])
def test_too_many_responses_that_nobody_waits_for_end_the_connection(loop: bool) -> None:
    stray = {"jsonrpc": "2.0", "id": "1-00112233", "result": {}}
    with program() as p:
        if loop:
            p.ask(call("slow", {"seconds": 0}))
        p.send(*[stray] * 20)
        p.alive()
        p.send(stray)
        with pytest.raises(EOFError):
            p.line()
        assert p.process.wait(3) == 0


def test_requests_that_fail_are_no_violations() -> None:
    with program() as p:
        for number in range(40):
            p.ask(call("nothing", {}, number))
            p.ask(call("echo", {"text": number}, number))
            p.ask(modern("no/such", {}, number))
            p.send({"jsonrpc": "2.0", "method": "notifications/unknown"})
        p.alive()


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("rate", "burst", "pause"), [(40, 10, 0.5), (20, 31, 0.0), (400, 10, 0.05)])
def test_messages_over_the_rate_make_the_server_read_later(rate: int, burst: int, pause: float, loop: bool) -> None:
    with program(limits={"message_rate": rate, "message_burst": burst}) as p:
        p.ask(call("slow", {"seconds": 0})) if loop else p.alive()
        time.sleep(2 / rate)
        started = time.monotonic()
        p.send(*(call("echo", {"text": "x"}, number) for number in range(30)))
        assert [p.read()["id"] for _ in range(30)] == list(range(30))
        p.alive()
        assert pause * 0.9 <= time.monotonic() - started < pause + 0.9


def test_a_message_costs_more_the_larger_it_is() -> None:
    limits = {"message_rate": 10, "message_burst": 20}
    for size, pause in ((100, 0.0), (500_000, 1.0)):
        with program(limits=limits) as p:
            p.alive()
            started = time.monotonic()
            p.ask(call("echo", {"text": "x" * size}))
            p.alive()
            assert pause * 0.9 <= time.monotonic() - started < pause + 0.9


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_waits_to_read(number: int, loop: bool) -> None:
    with program(limits={"message_rate": 1, "message_burst": 1}) as p:
        if loop:
            p.ask(call("slow", {"seconds": 0}))
        p.send(*(call("echo", {"text": "x"}, number) for number in range(30)))
        for _ in range(30):
            p.read()
        time.sleep(0.05)
        p.process.send_signal(number)
        assert p.process.wait(2) == 0
        assert "Traceback" not in p.errors()


@pytest.mark.attack("ATK-066")
@pytest.mark.parametrize("how", ["eof", "term", "int"])
@pytest.mark.parametrize("busy", ["async", "thread", "idle", "plain"])
def test_the_end(how: str, busy: str) -> None:
    with program() as p:
        if busy == "plain":
            p.alive()
        elif busy == "idle":
            p.ask(call("slow", {"seconds": 0}))
        else:
            p.send(call("slow" if busy == "async" else "blocking", {"seconds": 60}))
            p.alive()
        started = time.monotonic()
        if how == "eof":
            status = p.end()
        else:
            p.process.send_signal({"term": signal.SIGTERM, "int": signal.SIGINT}[how])
            status = p.process.wait(5)
        assert status == 0
        assert time.monotonic() - started < 2.5
        errors = p.errors()
        assert "Traceback" not in errors, errors
        assert ("slow cancelled" in errors) == (busy == "async")


def test_what_was_asked_before_the_end_is_answered() -> None:
    with program() as p:
        p.send(*(call("slow", {"seconds": 0.05}, n) for n in range(5)), call("echo", {"text": "x"}, 5))
        p.write(json.dumps(call("echo", {"text": "no newline"}, 6)).encode())
        assert p.process.stdin is not None
        p.process.stdin.close()
        answers = {p.read()["id"] for _ in range(7)}
        assert answers == set(range(7))
        assert p.process.wait(3) == 0


@pytest.mark.attack("ATK-067")
@pytest.mark.parametrize("tool", ["echo", "slow"])
def test_ten_thousand_requests_that_nobody_reads(tool: str) -> None:
    arguments = {"text": "x" * 1000} if tool == "echo" else {"seconds": 0}
    data = b"".join(json.dumps(call(tool, arguments, n)).encode() + b"\n" for n in range(10_000))
    with program(limits={"outbound_bytes": 100_000, **UNPACED}) as p:
        before = p.ask(call("memory"))["result"]["structuredContent"]["result"]
        os.set_blocking(p.stdin, False)
        sent = 0
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # nothing is read meanwhile: the pipe fills, and the server stops reading
            try:
                sent += os.write(p.stdin, data[sent : sent + 65536])
            except BlockingIOError:
                time.sleep(0.01)
        if tool == "echo":
            assert sent < len(data), "no back-pressure"
        got: list[int] = []
        while len(got) < 10_000:
            if sent < len(data):
                with suppress(BlockingIOError):
                    sent += os.write(p.stdin, data[sent : sent + 65536])
            while len(got) < 10_000 and (b"\n" in p._rest or not p.silent(0)):
                got.append(p.read()["id"])
        assert sorted(got) == list(range(10_000))
        if tool == "echo":
            assert got == list(range(10_000))
        os.set_blocking(p.stdin, True)
        assert p.ask(call("memory"))["result"]["structuredContent"]["result"] - before < 40_000


def test_progress_for_a_client_that_does_not_read_is_bounded() -> None:
    with program(limits={"outbound_bytes": 100_000}) as p:
        before = p.ask(call("memory"))["result"]["structuredContent"]["result"]
        p.send(call("talk", {"count": 3_000, "size": 10_000}, progressToken="t"))
        time.sleep(0.3)
        while p.read().get("id") != 1:
            continue
        assert p.ask(call("memory"))["result"]["structuredContent"]["result"] - before < 20_000


@pytest.mark.attack("ATK-068")
@pytest.mark.attack("ATK-093")
def test_cancellation_and_duplicates() -> None:
    def cancel(identifier: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": identifier}}

    with program() as p:
        p.send(
            cancel(1), cancel("x"), cancel(None), cancel([1]), {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        )
        p.alive()
        p.send(call("slow", {"seconds": 30}, 7), call("slow", {"seconds": 0.3}, "7"))
        duplicate = p.ask(call("echo", {"text": "x"}, 7))
        assert duplicate["id"] == 7
        assert duplicate["error"]["code"] == -32600
        p.send(cancel(7), cancel(7))
        p.alive()
        answer = p.read()
        assert (answer["id"], answer["result"]["content"][0]["text"]) == ("7", "slow")
        p.send(cancel("7"))
        assert p.ask(call("slow", {"seconds": 0}, 7))["result"]
        p.send(call("slow", {"seconds": 9}, 8), cancel(8))
        p.alive()
        assert p.silent()
        assert p.end() == 0
        assert p.errors().count("slow cancelled") <= 2


def test_both_eras_on_one_pipe() -> None:
    with program() as p:
        assert p.ask({"jsonrpc": "2.0", "id": 0, "method": "ping"})["result"] == {}
        assert p.ask(modern("server/discover"))["result"]["resultType"] == "complete"
        assert p.ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})["error"]["code"] == -32602
        assert p.ask(INITIALIZE)["result"]["protocolVersion"] == "2025-06-18"
        legacy = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": "x"}},
        }
        assert "resultType" not in p.ask(legacy)["result"]
        assert p.ask(call("echo", {"text": "x"}))["result"]["resultType"] == "complete"
        assert p.ask(INITIALIZE)["error"]["code"] == -32600
        assert p.ask(legacy)["result"]


@pytest.mark.attack("ATK-096")
@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18"])
def test_batches(version: str) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0}}}
        for n in range(3)
    ]
    with program(limits={"batch": 5}) as p:
        assert p.ask(batch)["error"]["code"] == -32600
        p.ask({**INITIALIZE, "params": {**INITIALIZE["params"], "protocolVersion": version}})
        answer = p.ask([*batch, {"jsonrpc": "2.0", "method": "notifications/x"}])
        if version != "2025-03-26":
            assert answer["error"]["code"] == -32600
            return
        assert sorted(each["id"] for each in answer) == [0, 1, 2]
        for bad in ([], batch * 2, [[]]):
            answer = p.ask(bad)
            answer = answer[0] if isinstance(answer, list) else answer
            assert answer["error"]["code"] == -32600
        p.send([{"jsonrpc": "2.0", "method": "notifications/x"}])
        p.alive()


@pytest.mark.parametrize("most", [2, 50])
def test_requests_under_way_are_limited_and_all_answered(most: int) -> None:
    with program(limits={"in_flight": most}) as p:
        started = time.monotonic()
        p.send(*(call("slow", {"seconds": 0.2}, n) for n in range(10)))
        assert {p.read()["id"] for _ in range(10)} == set(range(10))
        assert (time.monotonic() - started > 0.95) == (most == 2)


def test_a_client_that_closes_its_reading_end_ends_the_server() -> None:
    with program() as p:
        p.alive()
        assert p.process.stdout is not None
        p.process.stdout.close()
        for _ in range(3):
            try:
                p.send(call("echo", {"text": "x"}))
            except BrokenPipeError:
                break
            time.sleep(0.02)
        assert p.process.wait(3) == 0
        assert "Traceback" not in p.errors()
        devnull = os.open(os.devnull, os.O_RDONLY)
        p.process.stdout = os.fdopen(devnull, "rb")
