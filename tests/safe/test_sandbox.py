"""Sandboxes of commands: what is not listed is out of reach, what is listed is not, and none is made by halves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from garrison.errors import ConfigurationError
from garrison.safe import landlock, sandbox
from garrison.safe.command import CommandFailed, CommandTimeout, SafeCommand, Sandbox
from tests.safe.programs import PYTHON, command, running, until

pytestmark = [
    pytest.mark.app,
    pytest.mark.skipif(sys.platform != "linux", reason="Landlock and bubblewrap are Linux's"),
]

LANDLOCK = pytest.param("landlock")
BUBBLEWRAP = pytest.param("bubblewrap", marks=pytest.mark.peer)
BOTH = pytest.mark.parametrize("by", [LANDLOCK, BUBBLEWRAP])
By = Literal["landlock", "bubblewrap"]

INTERPRETER = (*{sys.base_prefix, sysconfig.get_config_var("LIBDIR") or sys.base_prefix},)
"""What the scripts of these tests need beside the system's programs."""

TRY = """
import json, socket
def attempt(work):
    try:
        return str(work())
    except OSError as error:
        return type(error).__name__
def connect(kind, address, family=socket.AF_INET):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        if kind == socket.SOCK_DGRAM: s.send(b"x")
    return "connected"
def put(path):
    with open(path, "w") as file: return file.write("x")
def truncate(path): os.truncate(path, 0); return "truncated"
def scan(path): return sorted(os.listdir(path))
"""


@pytest.fixture(autouse=True)
def available(request: pytest.FixtureRequest) -> None:
    """A machine that lacks what a test needs makes it fail, and says what to do."""
    by = request.node.callspec.params.get("by", "landlock") if hasattr(request.node, "callspec") else "landlock"
    if by == "bubblewrap" and not Path("/usr/bin/bwrap").exists():
        pytest.fail("bubblewrap is missing: apt-get install -y bubblewrap (or leave these out: pytest -m 'not peer')")
    try:
        Sandbox(by=by)
    except ConfigurationError as error:
        pytest.fail(f"this machine cannot hold a command: {error} (kernel {os.uname().release})")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A home with a key, a folder with a note, and a desk to work at."""
    for path, text in (("home/.ssh/id", "KEY"), ("shown/note", "NOTE"), ("desk/old", "OLD")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "shown" / "link").symlink_to(tmp_path / "home/.ssh/id")
    return tmp_path


def held(place: Path, attempts: str, by: By = "landlock", **options: Any) -> SafeCommand:
    """A command in a sandbox that tries these expressions and prints what came of each."""
    options.setdefault("read", [place / "shown"])
    options.setdefault("write", [place / "desk"])
    kept = Sandbox(**options, execute=INTERPRETER, by=by)
    return command(
        place,
        f"{TRY}\np = os.path.dirname(sys.argv[1])\nprint(json.dumps([{attempts}]))",
        (str(place / "x"),),
        sandbox=kept,
    )


async def came_of(tool: SafeCommand) -> list[str]:
    result = await tool.run("go")
    assert result.ok, result
    return json.loads(result.stdout)


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[object]]]:
    """A server on loopback, and who came."""
    came: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


# Files


@BOTH
async def test_files_that_are_not_listed_are_out_of_reach(place: Path, by: By) -> None:
    attempts = """
    attempt(lambda: open(p + "/home/.ssh/id").read()), attempt(lambda: scan(p + "/home/.ssh")),
    attempt(lambda: open(p + "/shown/link").read()), attempt(lambda: put(p + "/shown/note")),
    attempt(lambda: put(p + "/shown/new")), attempt(lambda: os.unlink(p + "/shown/note")),
    attempt(lambda: truncate(p + "/shown/note")), attempt(lambda: os.rename(p + "/desk/old", p + "/home/old")),
    attempt(lambda: open("/etc/shadow").read()), attempt(lambda: put("/etc/new")), attempt(lambda: put("/usr/new")),
    attempt(lambda: open("/proc/PID/environ").read()), attempt(lambda: open("/proc/PID/cmdline").read())
    """.replace("PID", str(os.getpid()))
    outside = {"PermissionError", "FileNotFoundError", "OSError", "IsADirectoryError"}
    assert set(await came_of(held(place, attempts, by))) <= outside
    assert (place / "shown/note").read_text() == "NOTE" and (place / "home/.ssh/id").read_text() == "KEY"
    assert sorted(os.listdir(place / "shown")) == ["link", "note"] and not (place / "home/old").exists()


@BOTH
async def test_files_that_are_listed_can_be_used(place: Path, by: By) -> None:
    attempts = """
    attempt(lambda: open(p + "/shown/note").read()), attempt(lambda: scan(p + "/shown")),
    attempt(lambda: put(p + "/desk/new")), attempt(lambda: open(p + "/desk/old").read()),
    attempt(lambda: os.mkdir(p + "/desk/d")), attempt(lambda: os.rename(p + "/desk/old", p + "/desk/moved")),
    attempt(lambda: truncate(p + "/desk/moved")), attempt(lambda: put("/dev/null")),
    attempt(lambda: len(open("/dev/urandom", "rb").read(3)))
    """
    expected = ["NOTE", "['link', 'note']", "1", "OLD", "None", "None", "truncated", "1", "3"]
    assert await came_of(held(place, attempts, by)) == expected
    assert sorted(os.listdir(place / "desk")) == ["d", "moved", "new"]


async def test_without_a_sandbox_the_same_reach_everything(place: Path) -> None:
    """What the tests above would see of a sandbox that holds nothing."""
    attempts = 'attempt(lambda: open(p + "/home/.ssh/id").read()), attempt(lambda: put(p + "/shown/new"))'
    body = f"{TRY}\np = os.path.dirname(sys.argv[1])\nprint(json.dumps([{attempts}]))"
    assert await came_of(command(place, body, (str(place / "x"),))) == ["KEY", "1"]


@BOTH
async def test_programs_of_the_system_run(place: Path, by: By) -> None:
    kept = Sandbox(read=[place / "shown"], by=by)
    for path in ("/bin/cat", "/usr/bin/cat"):
        cat = SafeCommand(
            path, {"note": ["--", str(place / "shown/note")], "key": [str(place / "home/.ssh/id")]}, sandbox=kept
        )
        assert (await cat.run("note")).stdout == "NOTE"
        denied = await cat.run("key")
        assert denied.status == 1 and denied.stdout == ""


@BOTH
async def test_programs_that_are_not_listed_do_not_start(place: Path, by: By) -> None:
    for folder in ("shown", "desk", "home"):
        (place / folder / "tool").write_bytes(Path("/usr/bin/true").read_bytes())
        (place / folder / "tool").chmod(0o755)
    start = 'attempt(lambda: os.spawnv(os.P_WAIT, p + "/{}/tool", ["tool"]))'
    attempts = ", ".join(start.format(folder) for folder in ("shown", "desk", "home"))
    results = await came_of(held(place, attempts, by))
    assert results[2] == "127"
    if by == "landlock":  # bubblewrap says what is seen, not what is started
        assert results == ["127"] * 3
    kept = Sandbox(execute=[place / "shown", *INTERPRETER], by=by)
    assert (await SafeCommand(place / "shown/tool", {"go": []}, sandbox=kept).run("go")).ok


# Network and other processes


@BOTH
async def test_there_is_no_network(place: Path, by: By) -> None:
    bus = socket.socket(socket.AF_UNIX)
    bus.bind(str(place / "shown/bus"))
    bus.listen()
    with bus:
        async with listener() as (port, came):
            attempts = f"""
            attempt(lambda: connect(socket.SOCK_STREAM, ("127.0.0.1", {port}))),
            attempt(lambda: connect(socket.SOCK_DGRAM, ("192.0.2.1", 53))),
            attempt(lambda: socket.getaddrinfo("localhost.invalid", 80))
            """
            results = await came_of(held(place, attempts, by))
            assert "connected" not in results and not came, results
            if by == "landlock":
                unix = 'attempt(lambda: connect(socket.SOCK_STREAM, p + "/shown/bus", socket.AF_UNIX))'
                assert await came_of(held(place, unix)) == ["PermissionError"]
                assert await came_of(held(place, unix, network=True)) == ["connected"]


@BOTH
async def test_there_is_a_network_where_it_is_asked_for(place: Path, by: By) -> None:
    async with listener() as (port, came):
        attempts = f'attempt(lambda: connect(socket.SOCK_STREAM, ("127.0.0.1", {port})))'
        assert await came_of(held(place, attempts, by, network=True)) == ["connected"]
        await until(lambda: came)
        assert await came_of(held(place, attempts, by)) != ["connected"]


@BOTH
async def test_other_processes_are_out_of_reach(place: Path, by: By) -> None:
    if by == "landlock" and landlock.landlock_version() < 6:
        pytest.skip("signals are held from Linux 6.12 on")
    victim = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        attempts = f"attempt(lambda: os.kill({victim.pid}, 9)), attempt(lambda: os.kill({os.getpid()}, 0))"
        assert set(await came_of(held(place, attempts, by))) <= {"PermissionError", "ProcessLookupError"}
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@BOTH
async def test_what_runs_in_a_sandbox_ends_in_time(place: Path, by: By) -> None:
    body = """
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
    time.sleep(60)
    """
    tool = command(place, body, sandbox=Sandbox(execute=INTERPRETER, by=by), timeout=1.0)
    with pytest.raises(CommandTimeout):
        await tool.run("go")
    assert not running(str(place))


@BOTH
async def test_the_sandbox_holds_what_the_program_starts(place: Path, by: By) -> None:
    attempts = f'os.popen("cat {place}/home/.ssh/id {place}/shown/note 2>/dev/null").read()'
    assert await came_of(held(place, attempts, by)) == ["NOTE"]


# By halves


def test_what_cannot_be_had_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for options in ({"read": ["/nonexistent"]}, {"write": "/tmp"}, {"read": [5]}, {"by": "hope"}, {"network": "no"}):
        with pytest.raises(ConfigurationError):
            Sandbox(**options)  # pyright: ignore[reportArgumentType] - a test passes what it wants
    monkeypatch.setattr(landlock, "landlock_version", lambda: 0)
    with pytest.raises(ConfigurationError, match="no Landlock"):
        Sandbox()
    monkeypatch.setattr(landlock, "supported_machine", lambda: False)
    with pytest.raises(ConfigurationError, match="x86-64"):
        Sandbox()
    monkeypatch.setattr(sandbox, "_BUBBLEWRAP", str(tmp_path / "bwrap"))
    with pytest.raises(ConfigurationError, match="missing"):
        Sandbox(by="bubblewrap")
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    with pytest.raises(ConfigurationError, match="namespaces"):
        Sandbox(by="bubblewrap")


async def test_a_sandbox_that_fails_late_starts_nothing(place: Path) -> None:
    gone = place / "gone"
    gone.mkdir()
    tool = command(place, "print('started')", sandbox=Sandbox(read=[gone], execute=INTERPRETER))
    assert (await tool.run("go")).ok
    gone.rmdir()
    with pytest.raises(CommandFailed, match="sandbox: No such file"):
        await tool.run("go")


@pytest.mark.parametrize("version", [1, 2, 3, 5])
async def test_older_kernels_hold_what_they_know(place: Path, version: int) -> None:
    """The same rules under an older version's number: what Landlock lacked, the filter refuses."""
    source = str(Path(landlock.__file__).parent)
    code = f"""
import sys, os, json, socket
sys.path.insert(0, {source!r})
import landlock
landlock.landlock_version = lambda: {version}
landlock.no_new_privileges()
landlock.confine(read=[{str(place / "shown")!r}], execute=[], write=[{str(place / "desk")!r}], network=False)
p = {str(place)!r}
{TRY}
print([attempt(lambda: open(p + "/home/.ssh/id")), attempt(lambda: open(p + "/shown/note").read()),
    attempt(lambda: truncate(p + "/shown/note")), attempt(lambda: put(p + "/desk/old")),
    attempt(lambda: connect(socket.SOCK_STREAM, ("127.0.0.1", 9)))])
"""
    done = subprocess.run([PYTHON, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(["PermissionError", "NOTE", "PermissionError", "1", "PermissionError"]), (
        done.stderr
    )
    assert (place / "shown/note").read_text() == "NOTE"
