"""SafeCommand: which programs and settings it takes, what the program gets, and what comes back."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from garrison import Secret
from garrison.errors import ConfigurationError, ToolError
from garrison.safe.command import (
    CommandFailed,
    CommandLimits,
    CommandRefused,
    CommandResult,
    SafeCommand,
    Slot,
)
from garrison.safe.paths import SafePath
from tests.safe.programs import PYTHON, command, program

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeCommand needs POSIX")]

SHOW = """
import json
print(json.dumps({
    "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0), "stdin": sys.stdin.read(),
    "session": os.getsid(0) == os.getpid(), "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "ignored": [line for line in open("/proc/self/status") if line.startswith(("SigIgn", "SigBlk", "NoNewPrivs"))],
}))
"""


async def shown(made: SafeCommand, **values: Any) -> dict[str, Any]:
    result = await made.run("go", **values)
    assert result.ok, result
    return json.loads(result.stdout)


# What the program gets, and what comes back


async def test_two_lines() -> None:
    printf = SafeCommand("/usr/bin/printf", {"show": ["%s", "{text}"]}, slots={"text": str})
    assert await printf.run("show", text="a b; $(id)") == CommandResult(0, "a b; $(id)", "")
    assert printf.run_sync.__name__ and printf.operations == ("show",)
    assert printf.arguments("show", text="x") == ("%s", "x")


def test_without_an_event_loop() -> None:
    printf = SafeCommand(SafeCommand.find("printf"), {"show": ["%s", "{text}"]}, slots={"text": str})
    assert printf.run_sync("show", text="x").stdout == "x"
    with pytest.raises(CommandRefused):
        printf.run_sync("show", text="-v")


async def test_within_an_event_loop_it_is_awaited() -> None:
    with pytest.raises(RuntimeError, match="await"):
        SafeCommand("/usr/bin/true", {"x": []}).run_sync("x")


async def test_a_status_is_a_result_and_what_is_not_text_is_replaced(tmp_path: Path) -> None:
    tool = command(tmp_path, "os.write(1, b'a\\xff'); os.write(2, b'no\\xfe'); sys.exit(3)")
    result = await tool.run("go")
    assert result == CommandResult(3, "a\ufffd", "no\ufffd") and not result.ok
    killed = await command(tmp_path, "os.kill(os.getpid(), 15)").run("go")
    assert killed.status == -signal.SIGTERM


async def test_input(tmp_path: Path) -> None:
    tool = command(tmp_path, "print(len(sys.stdin.buffer.read()))")
    assert (await tool.run("go")).stdout == "0\n"
    assert (await tool.run("go", stdin=b"x" * 1_000_000)).stdout == "1000000\n"
    text: Any = "not bytes"
    with pytest.raises(TypeError):
        await tool.run("go", stdin=text)
    deaf = command(tmp_path, "print('done')", timeout=5)
    assert (await deaf.run("go", stdin=b"x" * 1_000_000)).stdout == "done\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_program_gets_nothing_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_TOKEN", "secret-of-the-server")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    leaked = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        seen = await shown(command(tmp_path, SHOW, ("{x}",), slots={"x": str}), x="a b")
    finally:
        for descriptor in (leaked, read, write):
            os.close(descriptor)
    path = str(tmp_path / "tool")
    assert seen["argv"] == [path, "a b"]
    seen["env"].pop("LC_CTYPE", None)  # Python's own
    assert seen["env"] == {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    assert seen["fds"] == [0, 1, 2] and seen["stdin"] == "" and seen["session"]
    assert seen["cwd"] == "/" and seen["umask"] == 0o077
    assert dict(line.split() for line in seen["ignored"])["NoNewPrivs:"] == "1"
    assert int(dict(line.split() for line in seen["ignored"])["SigBlk:"], 16) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_program_gets_what_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (tmp_path / "work").mkdir()
    tool = command(
        tmp_path,
        SHOW,
        cwd=tmp_path / "work",
        env={"API_KEY": Secret("k3y"), "HOME": "/tmp", "NAME": "é"},
        inherit=["TZ", "NOT_SET_ANYWHERE"],
    )
    seen = await shown(tool)
    expected = {"API_KEY": "k3y", "HOME": "/tmp", "NAME": "é", "TZ": "Asia/Tokyo"}
    assert expected.items() <= seen["env"].items() and "NOT_SET_ANYWHERE" not in seen["env"]
    assert seen["cwd"] == str(tmp_path / "work")
    assert "k3y" not in repr(vars(tool)["_label"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=30), max_size=6))
def test_every_text_arrives_as_one_argument_byte_for_byte_or_is_refused(texts: list[str]) -> None:
    printf = SafeCommand(
        "/usr/bin/printf", {"show": [r"%s\0", "--", "{texts*}"]}, slots={"texts": Slot(str, at_sign=True)}
    )
    try:
        arguments = printf.arguments("show", texts=texts)
    except CommandRefused:
        assert any(not text or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text) for text in texts)
        return
    assert list(arguments[2:]) == texts
    assert printf.run_sync("show", texts=texts).stdout == "".join(f"{text}\0" for text in ["--", *texts])


# Refusals


async def test_a_refusal_names_what_there_is_and_is_an_event(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    tool = command(
        tmp_path, "open('/tmp/never', 'w')", ("{count}", "{path}"), slots={"count": range(1, 3), "path": SafePath}
    )
    cases = [
        ("rm -rf", {}, "tool: no such operation; there are: go"),
        ("go", {"count": 1}, "tool: go: slot 'path' is missing"),
        ("go", {"count": 9, "path": "a"}, "tool: go: slot 'count' must be a whole number from 1 to 2"),
        ("go", {"count": 1, "path": "../evil"}, "tool: go: slot 'path' is not a path below the root"),
        ("go", {"count": 1, "path": "a", "evil": 1}, "tool: go: takes values for count, path, and no other"),
    ]
    for operation, values, said in cases:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "garrison.security"), pytest.raises(CommandRefused) as caught:
            await tool.run(operation, **values)
        assert str(caught.value) == said and isinstance(caught.value, ToolError)
        (record,) = caplog.records
        assert record.__dict__["event"] == "command.refused" and record.__dict__["setting"].startswith("SafeCommand.")
        assert "evil" not in record.getMessage() and "rm -rf" not in record.getMessage()


# Programs


def test_a_program_is_a_file_with_its_whole_path(tmp_path: Path) -> None:
    operations = {"go": []}
    for bad in ("git", "./git", "", "bin/git", "/usr/bin/../bin", "/nonexistent/git", "/etc/passwd", "/dev/null", "/"):
        with pytest.raises(ConfigurationError):
            SafeCommand(bad, operations)
    good = program(tmp_path, "")
    link = tmp_path / "link"
    link.symlink_to(good)
    assert SafeCommand(link, operations).program == str(good)


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_program_that_others_can_change_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    path = program(folder, "")
    assert SafeCommand(path, {"go": []})  # the benign twin
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="changed by others"):
        SafeCommand(path, {"go": []})
    path.chmod(0o755)
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match="changed by others"):
        SafeCommand(path, {"go": []})
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="changed by others"):
        SafeCommand(link, {"go": []})


async def test_a_program_that_others_can_change_by_now_is_not_run(tmp_path: Path) -> None:
    tool = command(tmp_path, "print(1)")
    assert (await tool.run("go")).ok
    (tmp_path / "tool").chmod(0o777)
    with pytest.raises(CommandFailed, match="changed by others"):
        await tool.run("go")
    (tmp_path / "tool").unlink()
    with pytest.raises(CommandFailed):
        await tool.run("go")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_program_of_another_user_is_refused(tmp_path: Path) -> None:
    path = program(tmp_path, "")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="changed by others"):
        SafeCommand(path, {"go": []})


async def test_path_and_working_folder_lead_to_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"open({str(tmp_path / 'hijacked')!r}, 'w')", "printf")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = SafeCommand.find("printf")
    assert found == "/usr/bin/printf"
    assert (await SafeCommand(found, {"go": ["x"]}, cwd=tmp_path).run("go")).stdout == "x"
    assert not (tmp_path / "hijacked").exists()
    for bad in ("no-such-program-here", "../bin/ls", "", "a/b", "ls\n", "-x"):
        with pytest.raises(ConfigurationError):
            SafeCommand.find(bad)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_there_is_no_shell(shell: str, tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to(shell)
    for path in (shell, str(link)):
        with pytest.raises(ConfigurationError, match="shell"):
            SafeCommand(path, {"go": ["-c", "{x}"]}, slots={"x": str})


def test_text_of_a_caller_is_no_code_of_an_interpreter(tmp_path: Path) -> None:
    for name, option in (("python3.13", "-c"), ("perl", "-e"), ("node", "--eval")):
        path = program(tmp_path, "", name)
        for words in ([option, "{x}"], [f"{option}{{x}}"], [f"{option}=print({{x}})"]):
            with pytest.raises(ConfigurationError, match=r"code|option"):
                SafeCommand(path, {"go": words}, slots={"x": str})
        SafeCommand(path, {"go": [option, "print(1)", "{x}"]}, slots={"x": str})
        SafeCommand(path, {"go": [option, "{x}"]}, slots={"x": ["print(1)"]})


async def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("#!/nonexistent/interpreter\n")
    path.chmod(0o755)
    with pytest.raises(CommandFailed, match="program: No such file"):
        await SafeCommand(path, {"go": []}).run("go")
    path.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(CommandFailed, match="program: Exec format error"):
        await SafeCommand(path, {"go": []}).run("go")
    (tmp_path / "gone").mkdir()
    tool = command(tmp_path, "", cwd=tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CommandFailed, match="folder: No such file"):
        await tool.run("go")


# Settings


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"max_output": 0},
        {"max_errors": 1.5},
        {"cwd": "/nonexistent"},
        {"env": {"LD_PRELOAD": "x"}},
        {"env": {"PYTHONPATH": "x"}},
        {"env": {"BASH_ENV": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"env": {"A": 5}},
        {"inherit": ["LD_LIBRARY_PATH"]},
        {"inherit": ["NODE_OPTIONS"]},
        {"inherit": "PATH"},
        {"slots": {"x": str}},
        {"slots": {"x": float}},
    ],
)
def test_what_is_no_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SafeCommand("/usr/bin/true", {"go": []}, **options)


def test_what_is_no_operation_is_refused() -> None:
    for operations in ({}, {"go": "a b"}, {"go": ["{x}"]}, {"go": ["{stdin}"]}):
        with pytest.raises(ConfigurationError):
            SafeCommand("/usr/bin/true", operations, slots={"stdin": str} if "{stdin}" in str(operations) else None)


@pytest.mark.parametrize("name", ["cpu", "memory", "file_size", "open_files", "processes"])
def test_limits_are_positive_numbers(name: str) -> None:
    bad: Any
    for bad in (0, -1, 1.5, True, 2**63):
        with pytest.raises(ConfigurationError, match=name):
            CommandLimits(**{name: bad})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
async def test_every_limit_holds_the_program(tmp_path: Path) -> None:
    body = """
    import resource
    names = ["CORE", "CPU", "AS", "FSIZE", "NOFILE", "NPROC"]
    print([resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in names])
    """
    given = CommandLimits(cpu=7, memory=2**31, file_size=4096, open_files=33, processes=4000)
    result = await command(tmp_path, body, limits=given).run("go")
    assert result.stdout == f"[0, 7, {2**31}, 4096, 33, 4000]\n"
    usual = json.loads((await command(tmp_path, body).run("go")).stdout)
    assert usual[0] == 0 and usual[4] == 1024
    spinning = command(tmp_path, "while True: pass", limits=CommandLimits(cpu=1), timeout=20)
    assert (await spinning.run("go")).status in (-signal.SIGKILL, -signal.SIGXCPU)
    greedy = command(tmp_path, "x = bytearray(2**30)", limits=CommandLimits(memory=2**28))
    assert "MemoryError" in (await greedy.run("go")).stderr


def test_the_interpreter_of_the_scripts_is_the_one_of_the_tests() -> None:
    assert Path(PYTHON).is_file()
