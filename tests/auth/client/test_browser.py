"""Opening pages: one judged argument for one program at a fixed place, or the address in print."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from garrison.auth.client import browser
from garrison.auth.client.browser import Headless, check_address, open_browser
from garrison.errors import AuthorizationFailed

URL = "https://auth.example.com/authorize?client_id=a%20b&state=x-_~.y&scope=a+b,c&resource=https%3A%2F%2Fm"
posix = pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX systems")


@pytest.fixture
def opener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes down its arguments and environment, in place of the desktop's."""
    monkeypatch.setenv("DISPLAY", ":7")
    return program(tmp_path, monkeypatch, 'printf "%s\\n" "$#" "$@" > "$0.args"; env > "$0.env"; pwd > "$0.cwd"')


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *texts: str) -> Path:
    made: list[tuple[str, ...]] = []
    for number, text in enumerate(texts):
        path = tmp_path / f"opener{number}"
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        made.append((str(path),))
    monkeypatch.setattr(browser, "_PROGRAMS", tuple(made))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "opener0"


@posix
@pytest.mark.attack("ATK-192")
async def test_a_page_is_one_argument_of_one_program(opener: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "/bin/false %s")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PATH", str(opener.parent) + os.pathsep + os.environ["PATH"])
    assert await open_browser(URL) is True
    assert opener.with_suffix(".args").read_text().splitlines() == ["1", URL]
    assert opener.with_suffix(".cwd").read_text() == "/\n"
    env = dict(line.split("=", 1) for line in opener.with_suffix(".env").read_text().splitlines() if "=" in line)
    assert env["DISPLAY"] == ":7"
    assert str(opener.parent) not in env["PATH"]
    assert not {"BROWSER", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"} & env.keys()


@posix
@pytest.mark.attack("ATK-191")
@pytest.mark.attack("ATK-192")
@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "vscode://x/y",
        "https://u:p@h.example/",
        "http://public.example/",
        "https://h.example/$(touch x)",
        "https://h.example/$(id)",
        "https://h.example/`id`",
        "https://h.example/;id",
        "https://h.example/|id",
        'https://h.example/" -x',
        "https://h.example/'x'",
        "https://h.example/a b",
        "https://h.example/\nx",
        "https://h.example/\x1b[31m",
        "https://h.example/\u202ex",
        "https://h.example\\@evil.example/",
        "https://h.example/#x",
        "-https://h.example/",
        "--help",
        "",
        "https://h.example/" + "x" * 9000,
    ],
)
async def test_other_addresses_are_not_opened_or_printed(opener: Path, url: str) -> None:
    out = io.StringIO()
    for show in (open_browser, Headless(out=out, prompt=lambda: "")):
        with pytest.raises(AuthorizationFailed):
            await show(url)
    assert out.getvalue() == ""
    assert not opener.with_suffix(".args").exists()


@posix
@pytest.mark.parametrize("url", [URL, "https://h.example/&calc", "https://h.example/%22%20-x", "http://127.0.0.1:9/a"])
async def test_an_address_is_opened_as_it_is(opener: Path, url: str) -> None:
    check_address(url)
    assert await open_browser(url) is True
    assert opener.with_suffix(".args").read_text().splitlines() == ["1", url]


@posix
async def test_a_program_that_fails_leaves_it_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    first = program(tmp_path, monkeypatch, "exit 3", 'echo "$1" > "$0.args"', 'echo "$1" > "$0.args"')
    assert await open_browser(URL) is True
    assert (tmp_path / "opener1.args").exists() and not (tmp_path / "opener2.args").exists()
    program(tmp_path, monkeypatch, "exit 3")
    assert await open_browser(URL) is False
    first.write_bytes(b"\x7fELF no program at all")
    assert await open_browser(URL) is False


@posix
async def test_a_browser_that_runs_on_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(browser, "_PATIENCE", 0.1)
    program(tmp_path, monkeypatch, 'echo $$ > "$0.pid"; exec sleep 30')
    begun = time.monotonic()
    assert await open_browser(URL) is True
    assert time.monotonic() - begun < 10
    pid = int((tmp_path / "opener0.pid").read_text())
    assert os.getsid(pid) == pid  # of its own session: the end of this program is not its own
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):  # it is gone, and no zombie
        for _ in range(100):
            os.kill(pid, 0)
            await asyncio.sleep(0.05)


@posix
async def test_without_a_desktop_nothing_is_started(opener: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_INTEROP"):
        monkeypatch.delenv(name, raising=False)
    assert await open_browser(URL) is False
    assert not opener.with_suffix(".args").exists()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert await open_browser(URL) is True


@posix
async def test_the_programs_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []

    class Process:
        def __init__(self, command: tuple[str, ...], **more: object) -> None:
            started.append(command)

        def wait(self, timeout: float) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert await open_browser(URL) is True
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "startfile", lambda url: started.append(("startfile", url)), raising=False)
    assert await open_browser(URL) is True
    assert started == [("/usr/bin/open", URL), ("startfile", URL)]
    assert all(program[0].startswith("/usr/bin/") for program in browser._PROGRAMS)


# Without a browser


async def test_the_whole_address_is_printed_and_the_last_one_is_read() -> None:
    out = io.StringIO()
    answer = "http://127.0.0.1:4000/callback/x?code=c&state=s"
    threads: list[threading.Thread] = []

    def prompt() -> str:
        threads.append(threading.current_thread())
        return f"  {answer}\n"

    assert await Headless(out=out, prompt=prompt)(URL) == answer
    assert f"\n{URL}\n" in out.getvalue() and "paste" in out.getvalue()
    assert threads[0] is not threading.main_thread() and threads[0].daemon


async def test_who_has_nothing_to_paste_waits_for_the_browser() -> None:
    out = io.StringIO()
    assert await Headless(out=out, prompt=lambda: "\n")(URL) is True

    def gone() -> str:
        raise EOFError

    assert await Headless(out=out, prompt=gone)(URL) is True

    def broken() -> str:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await Headless(out=out, prompt=broken)(URL)


async def test_a_standard_input_that_is_no_terminal_is_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stdio it is the protocol's, and so is standard output."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("http://127.0.0.1/?code=x\n"))
    assert await browser.headless(URL) is True
    assert sys.stdin.read() != ""
    captured = capsys.readouterr()
    assert captured.out == "" and URL in captured.err and "paste" not in captured.err
    monkeypatch.setattr(sys, "stdin", None)
    assert await browser.headless(URL) is True


async def test_a_prompt_that_nobody_answers_can_be_left() -> None:
    asked = threading.Event()
    leave = threading.Event()

    def prompt() -> str:
        asked.set()
        leave.wait(5)
        return "late"

    task = asyncio.create_task(Headless(out=io.StringIO(), prompt=prompt)(URL))
    await asyncio.to_thread(asked.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leave.set()
    await asyncio.sleep(0.05)
