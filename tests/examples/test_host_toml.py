"""`garrison host examples/host.toml` with two real servers of npm: the walk-through of docs/host-command.md."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.at_terminal import AtTerminal
from tests.interop.peers import INSTALLING, npm_locked

from .running import EXAMPLES

pytestmark = [pytest.mark.app, pytest.mark.peer, pytest.mark.client, pytest.mark.timeout(INSTALLING + 60)]

PAGE = (EXAMPLES.parent / "docs" / "host-command.md").read_text()
EVERYTHING = Path("node_modules") / "@modelcontextprotocol" / "server-everything" / "dist"


def link_or_copy(source: str, target: str) -> None:
    """The same file under another name, where both are of one file system: there are thousands."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh clone, as far as it is needed, in which npm has installed what the lock file names."""
    pytest.importorskip("pty")
    installed = npm_locked(EXAMPLES / "servers")
    target = tmp_path / "clone" / "examples"
    shutil.copytree(EXAMPLES / "servers", target / "servers", ignore=shutil.ignore_patterns("node_modules"))
    shutil.copy(EXAMPLES / "host.toml", target)
    shutil.copytree(installed, target / "servers" / "node_modules", symlinks=True, copy_function=link_or_copy)
    echo = target / "servers" / EVERYTHING / "tools" / "echo.js"
    text = echo.read_text()
    echo.unlink()  # the one file that is changed is not that of the other tests
    echo.write_text(text)
    return target.parent


def host(checkout: Path, *words: str) -> AtTerminal:
    folder = os.path.dirname(sys.executable)  # where `uv run` finds `python`
    env = {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}", "NO_COLOR": "1"}
    state = os.fspath(checkout.parent / "state")
    return AtTerminal("host", "examples/host.toml", *words, "--state", state, cwd=checkout, env=env)


def agree(terminal: AtTerminal, question: str) -> str:
    """Says yes, once all of it was shown."""
    shown = terminal.answer(question, "s")
    if "s = show" in shown:
        shown = terminal.wait_for("no [n]: ")
    else:
        terminal.wait_for("no [n]: ")  # there was nothing more to show
    terminal.type("y\n")
    return shown


def step(number: str) -> str:
    """The commands of one step of the walk-through."""
    [found] = re.findall(rf"^## {number}\..*?```sh\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.attack("ATK-223", transports=("stdio",))
def test_the_walk_through(checkout: Path) -> None:
    terminal = host(checkout)
    shown = agree(terminal, "Believe the configuration")
    assert "server-filesystem" in shown and "servers/notes" in shown
    for _ in range(2):
        shown = agree(terminal, "Start the server")
        assert "sandbox: " in shown and "has no network" in shown and "high:" not in shown and "medium:" not in shown
    for _ in range(2):
        shown = agree(terminal, "Show the model tools of")
        assert "high:" not in shown and "medium:" not in shown
    shown = terminal.wait_for("garrison> ")
    assert "files.read_text_file" in shown and "everything.echo" in shown and "CHANGED" not in shown

    terminal.type("files.list_directory path=.\n")  # a rule allows it
    shown = terminal.wait_for("garrison> ")
    assert "plan.txt" in shown and "[n]" not in shown
    terminal.type("files.read_text_file path=plan.txt\n")
    assert 'path: "plan.txt"' in terminal.answer("Call files.read_text_file?", "y")
    assert "paint the shed" in terminal.wait_for("garrison> ")
    terminal.type("everything.echo message=hello\n")
    terminal.answer("Call everything.echo?", "n")
    assert "was not called" in terminal.wait_for("garrison> ")
    terminal.type("everything.echo message=hello\n")
    terminal.answer("Call everything.echo?", "y")
    assert "Echo: hello" in terminal.wait_for("garrison> ")
    terminal.type("files.write_file path=plan.txt content=nothing\n")
    terminal.answer("Call files.write_file?", "y")
    assert "EACCES" in terminal.wait_for("garrison> ")  # the sandbox, whatever was allowed
    terminal.type("quit\n")
    assert terminal.end()[0] == 0

    again = host(checkout, "call", "files.list_directory", "path=.")
    status, out = again.end()
    assert status == 0 and "shopping.txt" in out and "[n]" not in out  # nothing is asked a second time

    changing = re.sub(r"^uv run garrison .*$", "", step("4"), flags=re.MULTILINE)
    before = (checkout / "examples" / "servers" / EVERYTHING / "tools" / "echo.js").read_text()
    assert os.system(f"cd {checkout} && {changing}") == 0
    assert (checkout / "examples" / "servers" / EVERYTHING / "tools" / "echo.js").read_text() != before
    status, out = host(checkout, "list").end()
    assert status == 7 and "everything.echo is not what was approved" in out and "CHANGED" in out
    assert 'added /inputSchema/required/1: +"context"' in out and "said so far" in out
    status, out = host(checkout, "call", "everything.echo", "message=hello", "context=all", "--yes").end()
    assert status == 7 and "is not what was approved" in out and "Echo:" not in out

    terminal = host(checkout, "approve")
    shown = agree(terminal, "Show the model tools of everything (1 changed)?")
    assert "everything.echo  CHANGED" in shown
    assert terminal.end()[0] == 0
    status, out = host(checkout, "call", "everything.echo", "message=hello", "context=all", "--yes").end()
    assert status == 0 and "Echo: hello" in out


def test_the_page_and_the_file_name_the_same_commands() -> None:
    text = (EXAMPLES / "host.toml").read_text()
    install = step("1").strip()
    assert install in text.replace("\n# ", "\n").replace("    uv", "uv")
    assert "uv run garrison host examples/host.toml" in step("2")
