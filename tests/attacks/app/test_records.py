"""The audit log of a live server: one line for each event, whatever a peer writes, and how a full disk is met."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from garrison import Rate, Rates, SecurityPolicy, events
from garrison.audit import AuditKey, AuditLog
from garrison.audit import log as log_module
from garrison.cli import main
from tests.attacks.app.sut import CANARY, KEY, QUICK, Sut
from tests.attacks.app.test_outputs import HIDDEN, hidden_in
from tests.audit.scene import KEY as LOG_KEY
from tests.audit.scene import checked
from tests.support.callers import Who, place
from tests.support.everywhere import call as text_of_call
from tests.support.everywhere import door
from tests.support.mcp import call, modern
from tests.support.protected import bearer, facing, message, use
from tests.support.raw_http import exchange, request, standard

pytestmark = pytest.mark.app

ALICE = bearer("read", "alice", tenant="home")
WHO = '["https://auth.example.com","home","alice","app"]'


def log_at(path: Path, **options: Any) -> AuditLog:
    """A log of this test."""
    return AuditLog(path, **{"key": LOG_KEY, "fsync": "never", "rate": 10_000, **options})


def records(path: Path) -> list[dict[str, Any]]:
    """Every record of events in a log."""
    return [entry for entry in map(json.loads, path.read_text().splitlines()) if "event" in entry]


@pytest.mark.attack("ATK-280", transports=("http", "websocket", "unix"))
@pytest.mark.parametrize("kind", ["http", "websocket", "unix"])
async def test_what_a_peer_writes_is_one_line(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log" / "audit.log"
    forged = '{"seq":9,"event":"call.ended","target":"transfer"}'
    names = [*HIDDEN.values(), f"a\n{forged}", f"a\r\n{forged}", "a\u2028b\u2029c\x85d", "x" * 5000]
    with log_at(path) as log:
        sut = Sut(tmp_path, protected=True, audit=log, policy=SecurityPolicy(timeouts=QUICK))
        async with place(kind, sut.server) as at, at.caller(Who("alice")) as p:
            for name in names:
                await p.once("tools/call", {"name": name, "arguments": {"text": name}})
                await p.once("resources/read", {"uri": f"x://{name}"})
                await p.once("tools/call", {"name": "add", "arguments": {name[:200]: 1}})
                await p.once("tools/call", {"name": "explain", "arguments": {"text": name}})
                await p.once("tools/call", {"name": "decode", "arguments": {"kind": "url", "data": f"../{name}"}})
            assert (await p.tool("echo", {"text": "x"}))["content"]
    data = path.read_bytes()
    assert data.endswith(b"\n") and b"\r" not in data and b"\x1b" not in data
    for line in data[:-1].split(b"\n"):
        entry = json.loads(line)
        assert entry["seq"] >= 0 and not hidden_in(line.decode()), line
        assert all(len(text) < 5000 for text in entry.values() if isinstance(text, str))
    found = records(path)
    assert len(found) == 6 * len(names) + 1  # what is refused within a tool has a record of its own, and its call one
    assert {entry["principal"] for entry in found} == {WHO}
    assert found[-1]["event"] == "call.ended" and found[-1]["target"] == "echo" and found[-1]["outcome"] == "ok"
    assert checked(path, closed=True).ok
    assert main(["audit", "tail", str(path), "-n", "1000"]) == 0
    out, _ = capfd.readouterr()
    assert not hidden_in(out.replace("\n", ""))


@pytest.mark.attack("ATK-280", transports=("http",))
async def test_a_header_that_holds_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log" / "audit.log"
    with log_at(path) as log:
        sut = Sut(tmp_path, protected=True, audit=log)
        async with facing("http", sut.server) as port:
            for agent in ("\x1b[2Jx", "a\x9bb", f"x {KEY}", "\u202e".encode().decode("latin-1")):
                for who in (ALICE, f"Bearer {agent}", None):
                    data = message(port, call("echo", {"text": "x"}), who, user_agent=agent, origin=f"http://{agent}.x")
                    assert (await exchange(port, data)).status >= 400
            assert (await use(port, "echo", {"text": "x"}, as_=ALICE)).status == 200
    text = path.read_text()
    assert not hidden_in(text.replace("\n", "")) and KEY not in text and "\x1b" not in caplog.text
    assert KEY not in caplog.text and checked(path, closed=True).ok
    assert records(path)[-1]["event"] == "call.ended"


class Disk:
    """Where the log lies: full, or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.full = False
        write = os.write

        def limited(descriptor: int, data: bytes) -> int:
            if self.full and os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data)

        monkeypatch.setattr(log_module.os, "write", limited)


@pytest.mark.attack("ATK-282", transports=("http",))
@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_a_full_disk(
    fsync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log" / "audit.log"
    disk = Disk(monkeypatch, path)
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        with log_at(path, fsync=fsync) as log:
            sut = Sut(tmp_path, protected=True, audit=log)
            async with facing("http", sut.server) as port:
                assert (await use(port, "wipe", {"what": "one"}, as_=ALICE)).status == 200
                disk.full = True
                caplog.clear()
                for _ in range(3):
                    refused = await use(port, "wipe", {"what": CANARY}, as_=ALICE)
                    assert (refused.status, refused.json["error"]["code"]) == (503, 503)
                    assert refused.json["error"]["message"] == "Not done: it could not be recorded"
                    assert refused.get("retry-after") == "5"
                    assert (await use(port, "echo", {"text": "x"}, as_=ALICE)).status == 200
                assert sut.ran == ["wipe one", "echo", "echo", "echo"]
                told = [event for event in heard if event.name == "audit.unavailable"]
                assert [(event.principal, event.target, event.decision) for event in told] == [
                    (WHO, "wipe", "refused")
                ] * 3
                assert "audit.unavailable: Not done" in caplog.text and "Server(audit=)" in caplog.text
                alarms = [record for record in caplog.records if "a record could not be written" in record.message]
                assert len(alarms) == 1 and alarms[0].levelno == logging.ERROR
                assert CANARY not in caplog.text
                disk.full = False
                assert (await use(port, "wipe", {"what": "two"}, as_=ALICE)).status == 200
                assert sut.ran[-1] == "wipe two"
    finally:
        stop()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    lost = [entry for entry in found if entry.get("lost")]
    assert len(lost) == 1 and lost[0]["lost"] >= 6
    done = [(entry["event"], entry["target"]) for entry in found if entry.get("event")]
    assert done == [("call.begun", "wipe"), ("call.ended", "wipe")] * 2
    assert checked(path, closed=True).ok


@pytest.mark.attack("ATK-282", transports=("stdio",))
async def test_a_full_disk_on_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log" / "audit.log"
    disk = Disk(monkeypatch, path)
    with log_at(path) as log:
        sut = Sut(tmp_path, audit=log)
        async with door("stdio", sut.server) as at, at.connect() as line:
            for full, tool, word in ((False, "wipe", "answered"), (True, "wipe", "503"), (True, "region", "answered"),
                                     (False, "wipe", "answered")):  # fmt: skip
                disk.full = full
                arguments = '{"what":"x"}' if tool == "wipe" else '{"region":"eu"}'
                await line.send(at.message(text_of_call(tool, arguments)))
                assert (await line.answers(1))[0].word == word
        assert sut.ran == ["wipe x", "region", "wipe x"]
    assert checked(path, closed=True).ok


@pytest.mark.attack("ATK-288", transports=("http",))
async def test_a_day_in_the_log(tmp_path: Path) -> None:
    """A sign-in that fails, one that holds, a call, a refusal, an approval, a limit, a relaxation: a record of each."""
    path = tmp_path / "log" / "audit.log"
    policy = SecurityPolicy(timeouts=QUICK, tolerate=("duplicate_keys",), rates=Rates(principal=Rate(0.01, burst=6)))
    capabilities = {"elicitation": {}}
    with log_at(path) as log:
        sut = Sut(tmp_path, protected=True, audit=log, policy=policy)
        async with facing("http", sut.server) as port:

            async def send(body: Any, who: str | None = ALICE) -> Any:
                return await exchange(port, message(port, body, who))

            assert (await send(call("echo", {"text": "x"}), "Bearer " + "x" * 40)).status == 401
            assert (await send(call("echo", {"text": "x"}, id=1))).status == 200
            assert (await send(call("admin_reset", id=2))).status == 403
            asked = (await send(call("transfer", {"to": "bob", "amount": 5}, id=3, capabilities=capabilities))).json
            result = asked["result"]
            assert result["resultType"] == "input_required" and sut.ran == ["echo"]
            yes = {"action": "accept", "content": {"confirm": True}}
            body = modern(
                "tools/call",
                {
                    "name": "transfer",
                    "arguments": {"to": "bob", "amount": 5},
                    "requestState": result["requestState"],
                    "inputResponses": dict.fromkeys(result["inputRequests"], yes),
                },
                4,
                capabilities=capabilities,
            )
            assert (await send(body)).json["result"]["content"][0]["text"] == "sent"
            assert (await send(body)).json["error"]["code"] == -32602  # the approval was for one
            assert sut.ran == ["echo", "transfer 5 to bob"]
            assert [(await send(call("echo", {"text": "x"}, id=n))).status for n in (5, 6)] == [200, 429]
    found = [
        (each["event"], each.get("principal"), each.get("request"), each.get("outcome") or each.get("decision"))
        for each in records(path)
    ]
    assert found == [
        ("policy.relaxed", None, None, "noted"),
        ("auth.token_refused", None, None, "refused"),
        ("call.ended", WHO, "1", "ok"),
        ("access.insufficient_scope", WHO, "2", "refused"),
        ("call.begun", WHO, "4", "allowed"),
        ("call.ended", WHO, "4", "ok"),
        ("call.refused", WHO, "4", "refused"),
        ("call.ended", WHO, "5", "ok"),
        ("limit.reached", WHO, "6", "refused"),
    ]
    assert "bob" not in path.read_text()  # arguments are digests
    assert checked(path, closed=True).ok


@pytest.mark.attack("ATK-289", transports=("http",))
async def test_a_flood_of_refusals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log" / "audit.log"
    count = 1500
    with log_at(path, rate=20) as log:
        sut = Sut(tmp_path, protected=True, audit=log)
        begin = time.monotonic()
        async with facing("http", sut.server) as port:
            flood = request(b"{}", [*standard(port, None), ("Origin", "http://evil.example")])

            async def some() -> None:
                for _ in range(count // 10):
                    assert (await exchange(port, flood)).status == 403

            await asyncio.gather(*(some() for _ in range(10)))
            assert (await use(port, "echo", {"text": "x"}, as_=ALICE)).status == 200
        seconds = time.monotonic() - begin
    refused = [entry for entry in records(path) if entry.get("event") == "origin.refused"]
    assert sum(entry.get("count", 1) for entry in refused) == count
    assert len(refused) <= 21 * (seconds + 2)
    assert len([record for record in caplog.records if "origin.refused" in record.message]) <= 21 * (seconds + 2)
    assert [entry["target"] for entry in records(path) if entry["event"] == "call.ended"] == ["echo"]
    found = checked(path, closed=True)
    assert found.ok and isinstance(LOG_KEY, AuditKey)
