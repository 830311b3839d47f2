"""Nothing of a command outlives it: time, output, cancelling, daemons, the death of who asked; memory stays bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from garrison.safe import process
from garrison.safe.command import CommandFailed, CommandTimeout, SafeCommand
from tests.safe.programs import alive, command, running, until

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

FAMILY = """
note = os.path.dirname(sys.argv[0])
def stay(name):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(f"{note}/{name}.new", "w") as file: file.write(str(os.getpid()))
    os.rename(f"{note}/{name}.new", f"{note}/{name}.pid")
    time.sleep(60); os._exit(0)
if os.fork() == 0:
    stay("child")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100); os.environ.clear()
        stay("daemon")
    os._exit(0)
while not all(os.path.exists(f"{note}/{name}.pid") for name in ("child", "daemon")): time.sleep(0.01)
"""
"""A child, and a daemon: forked twice, in a session of its own, with no descriptor and no environment."""


def pids(folder: Path) -> list[int]:
    return [int(file.read_text()) for file in sorted(folder.glob("*.pid"))]


async def test_a_daemon_does_not_outlive_the_time_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tool = command(tmp_path, FAMILY + "stay('program')", timeout=1.5)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "garrison.security"), pytest.raises(CommandTimeout) as caught:
        await tool.run("go")
    assert time.monotonic() - started < 4
    assert len(pids(tmp_path)) == 3 and not any(map(alive, pids(tmp_path)))
    assert str(caught.value) == "tool go did not end within 1.5 s"
    assert [(each.__dict__["event"], each.__dict__["setting"]) for each in caplog.records] == [
        ("command.ended", "SafeCommand.timeout")
    ]


async def test_the_vulnerable_twin_leaves_the_daemon(tmp_path: Path) -> None:
    """What a time-out of the standard library's own leaves behind: this is what the test above would see."""
    made = command(tmp_path, FAMILY + "stay('program')")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([made.program], timeout=1.5, capture_output=True)
    left = pids(tmp_path)
    try:
        assert sum(map(alive, left)) == 2
    finally:
        for pid in left:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


async def test_a_daemon_does_not_outlive_the_program(tmp_path: Path) -> None:
    result = await command(tmp_path, FAMILY + "print('done'); sys.exit(4)").run("go")
    assert (result.status, result.stdout) == (4, "done\n")
    assert len(pids(tmp_path)) == 2 and not any(map(alive, pids(tmp_path)))


async def test_a_daemon_does_not_outlive_cancelling(tmp_path: Path) -> None:
    task = asyncio.create_task(command(tmp_path, FAMILY + "stay('program')", timeout=30).run("go"))
    await until(lambda: len(pids(tmp_path)) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(alive, pids(tmp_path)))


async def test_cancelling_at_once_starts_nothing_that_stays(tmp_path: Path) -> None:
    tool = command(tmp_path, FAMILY + "stay('program')")
    for pause in (0, 0, 0.001, 0.005, 0.02, 0.05):
        task = asyncio.create_task(tool.run("go"))
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.2)
    assert not any(map(alive, pids(tmp_path)))


def test_a_daemon_does_not_outlive_who_asked(tmp_path: Path) -> None:
    """The server is killed: its commands end, and the helper process too."""
    tool = command(tmp_path, FAMILY + "stay('program')").program
    code = f"""
    import asyncio
    from garrison.safe import process
    from garrison.safe.command import SafeCommand
    async def main():
        task = asyncio.create_task(SafeCommand({tool!r}, {{"go": []}}, timeout=50).run("go"))
        await asyncio.sleep(0.1)
        print(process._helper._pid, flush=True)
        await task
    asyncio.run(main())
    """
    source = str(Path(process.__file__).parents[2])
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    with server:
        assert server.stdout is not None
        helper = int(server.stdout.readline())
        asyncio.run(until(lambda: len(pids(tmp_path)) == 3))
        assert all(map(alive, pids(tmp_path))) and alive(helper)
        server.kill()
    asyncio.run(until(lambda: not any(map(alive, [*pids(tmp_path), helper]))))


async def test_a_program_is_asked_to_end_before_it_is_made_to(tmp_path: Path) -> None:
    body = """
    import signal
    def leave(*_):
        open(os.path.dirname(sys.argv[0]) + "/tidied", "w"); os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    time.sleep(60)
    """
    with pytest.raises(CommandTimeout):
        await command(tmp_path, body, timeout=0.5).run("go")
    assert (tmp_path / "tidied").exists()


async def test_a_program_that_forks_without_end_is_ended(tmp_path: Path) -> None:
    """One process that is another every moment, and sessions all the time; all end by themselves, but later."""
    body = """
    folder = os.path.dirname(sys.argv[0]) + "/pids"; os.mkdir(folder)
    end = time.monotonic() + 15
    def note(): open(f"{folder}/{os.getpid()}", "w").close()
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < end:
            if os.fork(): os._exit(0)
            note()
        os._exit(0)
    for _ in range(300):
        if os.fork() == 0:
            os.setsid(); note()
            time.sleep(15); os._exit(0)
        time.sleep(0.01)
    """
    with pytest.raises(CommandTimeout):
        await command(tmp_path, body, timeout=0.7).run("go")
    assert len(os.listdir(tmp_path / "pids")) > 20
    assert not running(str(tmp_path))


# Output


async def test_output_without_end_is_cut_and_the_program_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = """
    with open(os.path.dirname(sys.argv[0]) + "/1.pid", "w") as file: file.write(str(os.getpid()))
    while True: os.write(1, b"y" * 65536)
    """
    tool = command(tmp_path, body, max_output=100_000, timeout=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with caplog.at_level(logging.WARNING, "garrison.security"):
        result = await tool.run("go")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert result.truncated and result.stdout == "y" * 100_000 and not result.ok
    assert grown < 8 * 1024, "KiB"
    assert not any(map(alive, pids(tmp_path)))
    assert [each.__dict__["setting"] for each in caplog.records] == ["SafeCommand.max_output"]


async def test_output_that_just_fits_is_whole(tmp_path: Path) -> None:
    tool = command(tmp_path, "os.write(1, b'y' * 1000); os.write(2, b'n' * 1000)", max_output=1000, max_errors=1000)
    result = await tool.run("go")
    assert result.ok and (len(result.stdout), len(result.stderr)) == (1000, 1000)


async def test_of_standard_error_the_end_is_kept_and_the_program_goes_on(tmp_path: Path) -> None:
    body = "for i in range(100): os.write(2, b'x' * 65536)\nos.write(2, b'the reason'); print('done')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await command(tmp_path, body, max_errors=2000).run("go")
    assert result.ok and result.stdout == "done\n"
    assert result.stderr.endswith("xthe reason") and len(result.stderr) == 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024, "KiB"


async def test_errors_without_end_meet_the_time_out(tmp_path: Path) -> None:
    with pytest.raises(CommandTimeout):
        await command(tmp_path, "while True: os.write(2, b'y' * 65536)", timeout=0.5).run("go")


async def test_who_reads_input_for_ever_gets_its_end(tmp_path: Path) -> None:
    result = await command(tmp_path, "sys.stdin.buffer.read(); print('end')", timeout=5).run("go")
    assert result.stdout == "end\n"


# The helper process


async def test_many_at_once_and_nothing_is_left_open(tmp_path: Path) -> None:
    tool = command(tmp_path, "print(sys.argv[1])", ("{x}",), slots={"x": int})
    await tool.run("go", x=0)
    before = len(os.listdir("/proc/self/fd"))
    results = await asyncio.gather(*(tool.run("go", x=x) for x in range(20)))
    assert [result.stdout for result in results] == [f"{x}\n" for x in range(20)]
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before
    helper = process._helper._pid
    await until(lambda: not Path(f"/proc/{helper}/task/{helper}/children").read_text(), 5)


async def test_a_helper_that_died_is_replaced() -> None:
    tool = SafeCommand("/usr/bin/true", {"go": []})
    await tool.run("go")
    first = process._helper._pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))
    assert (await tool.run("go")).ok
    assert process._helper._pid != first


async def test_a_supervisor_that_is_lost_is_an_error_and_its_program_ends(tmp_path: Path) -> None:
    body = """
    import signal
    print(os.getppid(), flush=True)
    with open(os.path.dirname(sys.argv[0]) + "/1.new", "w") as file: file.write(str(os.getpid()))
    os.rename(os.path.dirname(sys.argv[0]) + "/1.new", os.path.dirname(sys.argv[0]) + "/1.pid")
    os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)
    """
    with pytest.raises(CommandFailed, match="lost"):
        await command(tmp_path, body, timeout=20).run("go")
    await until(lambda: not any(map(alive, pids(tmp_path))))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root becomes another user")
def test_who_drops_privileges_runs_commands_without_them(tmp_path: Path) -> None:
    code = """
    import os
    from garrison.safe.command import SafeCommand
    who = SafeCommand("/usr/bin/id", {"go": ["-u"]})
    before = who.run_sync("go").stdout.strip()
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    try:
        print(before, who.run_sync("go").stdout.strip())
    except Exception as error:
        print(before, type(error).__name__, error)  # where this user may not read the interpreter
    """
    source = str(Path(process.__file__).parents[2])
    done = subprocess.run(
        ["/usr/bin/env", sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    before, after = done.stdout.split(maxsplit=1)
    assert before == "0" and (after.strip() == "65534" or after.startswith("CommandFailed")), done.stdout + done.stderr


def test_after_a_fork_there_is_another_helper() -> None:
    code = """
    import os, sys
    from garrison.safe import process
    from garrison.safe.command import SafeCommand
    tool = SafeCommand("/usr/bin/true", {"go": []})
    assert tool.run_sync("go").ok
    first = process._helper._pid
    child = os.fork()
    if child == 0:
        assert process._helper._pid == 0 and tool.run_sync("go").ok and process._helper._pid not in (0, first)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert tool.run_sync("go").ok and process._helper._pid == first
    """
    source = str(Path(process.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)


def test_the_helper_loads_nothing_of_the_package() -> None:
    code = process._HELPER.rpartition(";")[0] + "; print(sorted(name for name in sys.modules if 'garrison' in name))"
    here = str(Path(process.__file__).parent)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, here], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['garrison_safe', 'garrison_safe.landlock', 'garrison_safe.supervisor']"
