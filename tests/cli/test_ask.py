"""Questions of the server at a terminal: fields are asked for until they fit; Ctrl-D declines; nothing is obeyed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from garrison.cli.ask import read_field

from .commands import SERVER

MANY = {"type": "array", "items": {"enum": ["a", "b"]}}


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        ("x", {"type": "string"}, "x"),
        ("yes", {"type": "boolean"}, True),
        ("N", {"type": "boolean"}, False),
        ("-4", {"type": "integer"}, -4),
        ("4.5", {"type": "number"}, 4.5),
        ("b", {"type": "string", "enum": ["a", "b"]}, "b"),
        ("b", {"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}, "b"),
        ("a, b", MANY, ["a", "b"]),
    ],
)
def test_a_field_is_read_as_its_type(text: str, rule: dict[str, object], value: object) -> None:
    assert read_field(text, rule) == value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("maybe", {"type": "boolean"}),
        ("4.5", {"type": "integer"}),
        ("four", {"type": "number"}),
        ("c", {"enum": ["a", "b"]}),
        ("a, c", MANY),
        ("", {"type": "string"}),
    ],
)
def test_what_does_not_fit_is_asked_for_again(text: str, rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"answer|number|choose|needed"):
        read_field(text, rule)


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, *words: str, cwd: Path) -> None:
        import pty

        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "garrison", *words],
            stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, cwd=cwd, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        ends = time.monotonic() + 10
        while text not in self.seen:
            assert time.monotonic() < ends, self.seen
            if select.select([self._master], [], [], 0.1)[0]:
                self.seen += os.read(self._master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=10)
        os.close(self._master)
        return self.process.returncode, out


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pytest.importorskip("pty")
    changes = {
        '"Who?"': r'"Who\x1b]0;evil\x07?"',
        "import Context,": "import SecurityPolicy, Context,",
        'for tests.")': 'for tests.", policy=SecurityPolicy(dangerously_skip_hygiene="a server that means harm"))',
    }
    text = SERVER
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "server.py").write_text(text)
    return tmp_path


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_form_is_filled_in_at_the_terminal(era: str, place: Path) -> None:
    terminal = Terminal("call", "server.py", "ask", "--era", era, cwd=place)
    terminal.wait_for("name")
    terminal.type("\n")
    terminal.wait_for("this is needed")
    terminal.type("Ann\n")
    terminal.wait_for("[2]")
    terminal.type("many\n")
    terminal.wait_for("a whole number")
    terminal.type("3\n")
    assert terminal.end() == (0, "accept Form(name='Ann', count=3)\n")
    assert "\x1b]0;evil" not in terminal.seen and r"\x1b]0;evil\x07" in terminal.seen


def test_the_end_of_input_declines(place: Path) -> None:
    terminal = Terminal("call", "server.py", "ask", cwd=place)
    terminal.wait_for("name")
    terminal.type("\x04")
    assert terminal.end() == (0, "decline None\n")


def test_an_interrupt_at_a_question_ends_the_command(place: Path) -> None:
    terminal = Terminal("call", "server.py", "ask", cwd=place)
    terminal.wait_for("name")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == (130, "")


def test_progress_is_a_bar_that_goes_away(place: Path) -> None:
    terminal = Terminal("call", "server.py", "slow", "seconds=0.3", cwd=place)
    terminal.wait_for("50% begun")
    assert "[############............]" in terminal.seen
    terminal.wait_for("begun\r\x1b[K")
    assert terminal.end() == (0, "slow\n")
