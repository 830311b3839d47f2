"""At the edges of a start and an end: nothing is left over, nothing is closed twice, nobody gets away."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison import Client, SecurityPolicy, Timeouts
from garrison.client.launching import Launch
from garrison.errors import ConnectionFailed, ConnectionLost
from garrison.safe import process
from garrison.safe.process import Channels, Plan, supervise
from tests.client.fakes import program
from tests.safe.programs import alive, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor's whole means; /proc")

SERVER = """
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call":
        name = m["params"]["name"]
        if name == "exit": os._exit(1)
        if name == "deep":
            for _ in range(m["params"]["arguments"]["depth"]): os.mkdir("deep"); os.chdir("deep")
        if name == "closed":
            os.makedirs("closed/folder"); open("closed/folder/file", "w").close()
            os.chmod("closed/folder", 0o500); os.chmod("closed", 0o500)
        if name == "loud": os.write(2, b"loud")
        text(m, json.dumps({"pid": os.getpid(), "parent": os.getppid(), "home": os.environ["HOME"]}))
        if name == "deaf":
            os.close(0)
            time.sleep(60)
"""


def quick() -> SecurityPolicy:
    return SecurityPolicy(timeouts=Timeouts(shutdown=0.5, connect=10.0))


async def ask(client: Client, name: str = "x", **arguments: object) -> Any:
    result: Any = await client.call_tool(name, arguments)
    return json.loads(result.content[0].text)


def loops() -> list[Any]:
    found: list[Any] = [asyncio.new_event_loop]
    with contextlib.suppress(ImportError):
        import uvloop

        found.append(uvloop.new_event_loop)
    return found


each_loop = pytest.mark.parametrize("make", loops(), ids=lambda make: make.__module__.partition(".")[0])


@each_loop
def test_starts_that_are_given_up_leave_no_folder_and_close_nothing_of_the_others(
    make: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    launch = Launch(program(SERVER), own_folder=True)

    async def given_up(turns: int) -> None:
        task = asyncio.ensure_future(Client(launch, policy=quick()).connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> None:
        async with Client(launch, policy=quick()) as client:
            before = set(os.listdir("/proc/self/fd"))
            for turns in range(1, 41):
                await given_up(turns)
                if turns % 8 == 0:
                    gc.collect()
                    assert await ask(client)
                    async with Client(launch, policy=quick()) as other:
                        assert await ask(other)
            gc.collect()
            await until(lambda: len(set(os.listdir("/proc/self/fd")) - before) <= 1, 3)
        await until(lambda: not os.listdir(tmp_path), 5)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


@each_loop
def test_what_is_said_to_one_that_stopped_reading_is_lost_and_nothing_else(
    make: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with Client(program(SERVER), policy=quick()) as client:
            first = await ask(client, "deaf")
            await asyncio.sleep(0.1)
            with pytest.raises(ConnectionLost):
                await ask(client)
            assert (await ask(client))["pid"] != first["pid"]

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


@each_loop
def test_who_listens_badly_to_standard_error_ends_nothing(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    heard: list[bytes] = []

    def listener(data: bytes) -> None:
        heard.append(data)
        raise ValueError("the listener's own")

    async def main() -> None:
        async with Client(program(SERVER), policy=quick(), on_stderr=listener) as client:
            for count in (1, 2, 3):
                assert await ask(client, "loud")
                await until(lambda count=count: len(heard) == count, 3)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


async def test_a_start_that_failed_does_not_end_the_calls_of_the_next_one(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.symlink_to(sys.executable)
    launch = Launch([str(tool), *program(SERVER)[1:]])
    async with Client(launch, policy=quick()) as client:
        tool.unlink()
        tool.write_bytes(b"\0no program")
        tool.chmod(0o755)
        with pytest.raises(ConnectionLost):
            await client.call_tool("exit")
        with pytest.raises(ConnectionFailed):
            await ask(client)
        tool.unlink()
        tool.symlink_to(sys.executable)
        lost: list[object] = []
        link: Any = client._conversation.link  # what ends all calls under way
        link._on_lost = lost.append
        assert await ask(client)
        await asyncio.sleep(0.7)
        assert not lost
        assert await ask(client)


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(60)
time.sleep(60)
"""


@pytest.mark.parametrize("read", [True, False])
async def test_the_leash_breaks_for_one_who_did_not_read_what_was_said(tmp_path: Path, read: bool) -> None:
    note = tmp_path / "pid"
    folder = tmp_path / "own"
    folder.mkdir()
    argv = (sys.executable, "-c", DAEMON, str(note))
    channels = Channels(feeding=True)
    supervise(channels)
    channels.control.setblocking(True)
    plan = Plan(sys.executable, argv, {}, "/", {}, None, folder=str(folder), report=True)
    channels.control.sendall(plan.encoded())
    await until(lambda: note.exists() and note.read_text(), 5)
    if read:
        assert b"started" in channels.control.recv(100)
    channels.close()
    await until(lambda: not alive(int(note.read_text())), 3)
    await until(lambda: not folder.exists(), 3)


async def test_a_supervisor_that_is_killed_is_noticed_by_every_waiter() -> None:
    async with Client(program(SERVER.replace('"x"', '"y"')), policy=quick()) as client:
        found = await ask(client)
        os.kill(found["pid"], signal.SIGSTOP)
        waiting = [asyncio.ensure_future(ask(client)) for _ in range(3)]
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        os.kill(found["parent"], signal.SIGKILL)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, ConnectionLost) for end in ends) and time.monotonic() - begun < 1.0
        await until(lambda: not alive(found["pid"]), 2)
        assert (await ask(client))["pid"] != found["pid"]


@pytest.mark.parametrize("what", ["deep", "closed"])
async def test_a_folder_goes_whatever_the_program_made_of_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "keep"
    keep.write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(process, "_helper", helper := process._Helper())  # one with fewer descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        async with Client(Launch(program(SERVER), own_folder=True), policy=quick()) as client:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            found = await ask(client, what, depth=1500)
            os.symlink(keep, f"{found['home']}/link")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        helper._forget()
    await until(lambda: os.listdir(tmp_path) == ["keep"], 5)


async def test_where_no_descriptor_is_left_a_start_fails_as_such_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    launch = Launch(program(SERVER), own_folder=True)
    async with Client(launch, policy=quick()) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.open("/dev/null", os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, max(map(int, os.listdir("/proc/self/fd"))) + 12), hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(8):
                with pytest.raises(ConnectionFailed):
                    await Client(launch, policy=quick()).connect()
                os.close(held.pop())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                os.close(each)
        assert await ask(client)
        assert len(os.listdir(tmp_path)) == 1


def test_a_plan_shows_no_environment() -> None:
    plan = Plan("/bin/true", ("true",), {"TOKEN": "s3cret"}, "/", {}, None)
    assert "s3cret" not in repr(plan) and b"s3cret" in plan.encoded()
    assert struct.unpack("!I", plan.encoded()[:4])[0] == len(plan.encoded()) - 4


LIMITS = """
import resource, sys
def tried(*given):
    try: return [list(resource.prlimit(*given)), "done"][1]
    except PermissionError: return "refused"
    except Exception as exc: return repr(exc)
for m in messages():
    if m.get("method") == "server/discover": discover(m)
    elif m.get("method") == "tools/call":
        other = m["params"]["arguments"]["pid"]
        text(m, json.dumps({
            "other": tried(other, resource.RLIMIT_NOFILE, (64, 64)),
            "looked": tried(other, resource.RLIMIT_NOFILE),
            "own": tried(0, resource.RLIMIT_CORE, (0, 0))}))
"""


@pytest.mark.parametrize("sandbox", ["landlock", "off"])
async def test_a_sandboxed_program_sets_no_limits_of_others(sandbox: Any) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        try:
            async with Client(Launch(program(LIMITS), sandbox=sandbox), policy=quick()) as client:
                result: Any = await client.call_tool("x", {"pid": other.pid})
            wanted = {"own": "done", "looked": "done", "other": "refused" if sandbox == "landlock" else "done"}
            assert json.loads(result.content[0].text) == wanted
        finally:
            other.kill()
