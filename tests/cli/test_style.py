"""What a server says is shown on a terminal and never obeyed by it; a pipe gets it unchanged."""

from __future__ import annotations

import io
import re

import pytest

from garrison.cli import style


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EVIL = "\x1b]0;owned\x07 \x9b31m \u202egnp.exe\r over [red]markup[/red]\n\tkept"


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_escapes_instead_of_control_characters(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not rich:
        monkeypatch.setattr(style, "_boxed", lambda *args: False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    style.emit(EVIL)
    style.table("Title", ("heading",), [(EVIL,)])
    style.emit_json({"text": EVIL})
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())  # bold and the like, of our own
    assert "gnp.exe" in shown and "[red]markup[/red]" in shown and "kept" in shown
    assert not {c for c in shown if c in "\x1b\x07\x9b\u202e\r"}


def test_a_pipe_gets_every_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", pipe := io.StringIO())
    style.emit(EVIL)
    assert pipe.getvalue() == EVIL + "\n"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style.bold("a", Terminal()) == "\x1b[1ma\x1b[0m"
    assert style.bold("a", io.StringIO()) == "a"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style.bold("a", Terminal()) == "a"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert style.bold("a", Terminal()) == "a"


def test_a_plain_table_has_columns_and_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", pipe := io.StringIO())
    style.table("Title", ("a", "b"), [("long cell", "1"), ("x", "two\nlines")])
    assert pipe.getvalue().splitlines() == ["Title", "  a          b", "  long cell  1", "  x          two lines"]
