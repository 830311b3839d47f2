"""Questions of a host, put to the person at the terminal: `terminal`.

    async with Host(servers, approve=terminal()) as host: ...

Rules of this file:
- Without a terminal there is nobody to ask. The end of input (Ctrl-D) and an empty line are a no.
- All of a question is shown before a yes counts. What is long is shown with its beginning, its size and its end, and a
  yes is not taken until the rest was shown too.
- What others wrote is shown and not obeyed: hidden characters are written out, and a line of theirs never begins where
  the host's lines begin.
- What was typed before the question was shown answers nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO, cast, final
from unicodedata import east_asian_width

from ..gate.hygiene import visible
from .fields import choices, read_field
from .grants import LONGEST
from .questions import Always, CallQuestion, FormQuestion, ToolsQuestion, Verdict, cut

if TYPE_CHECKING:
    from .fields import FieldValue
    from .questions import Approver, Question

__all__ = ["Terminal", "terminal"]

_NO: Final = Verdict(False)
_LINE: Final = 1500
"""Characters of one line that are shown at first."""
_LINES: Final = 60
_TRIES: Final = 3
_NARROW: Final = 20
"""Columns of a terminal below which nothing can be said of its rows; 0 where it does not tell."""
_GOES_ON: Final = "  | "
_SPAN: Final = re.compile(r"([0-9]{1,6})\s*([smhd]?)", re.ASCII)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 3600.0}
_BOLD: Final = "1"
_YELLOW: Final = "33"
_DIM: Final = "2"


def terminal(*, input: TextIO | None = None, output: TextIO | None = None) -> Approver:
    """An approver that asks the person at the terminal.

    Args:
        input: what is read; standard input when None.
        output: where questions are shown; standard error when None. Both have to be terminals, or nobody is asked.
    """
    return Terminal(input, output)


class _NoAnswer(Exception):
    """Internal: the input has ended, or nothing that was typed is an answer."""


@final
class Terminal:
    """What `terminal` returns: called with a question, it gives the verdict."""

    __slots__ = ("_input", "_output")

    def __init__(self, input: TextIO | None = None, output: TextIO | None = None) -> None:
        self._input = input
        self._output = output

    async def __call__(self, question: Question) -> Verdict:
        source, screen = self._input or sys.stdin, self._output or sys.stderr
        if not (_is_terminal(source) and _is_terminal(screen)):
            return _NO
        talk = _Talk(source, screen)
        try:
            return await _asked(talk, question)
        except _NoAnswer:
            talk.say("That is a no.")
            return _NO
        except asyncio.CancelledError:
            talk.say("\nNobody waits for the answer any more: that is a no.")
            raise


async def _asked(talk: _Talk, question: Question) -> Verdict:
    lines = _lines(question)
    short = _shortened(lines)
    whole = short == lines
    _show(talk, short, len(question.reasons))
    for _ in range(_TRIES * 2):
        answer = (await talk.line(_prompt(question, whole))).strip().lower()
        if answer in ("n", "no", ""):
            return _NO
        if answer in ("s", "show") and not whole:
            _show(talk, lines, len(question.reasons))
            whole = True
        elif answer in ("y", "yes", "a", "always", "p", "pick") and not whole:
            talk.say("Not all of it has been shown yet: s shows it.")
        elif answer in ("y", "yes"):
            return await _accepted(talk, question)
        elif answer in ("a", "always") and isinstance(question, CallQuestion):
            return await _always(talk, question)
        elif answer in ("p", "pick") and isinstance(question, ToolsQuestion):
            return await _picked(talk, question)
        else:
            talk.say("y or n, please.")
    raise _NoAnswer


def _prompt(question: Question, whole: bool) -> str:
    more = ", a = always, for these arguments" if isinstance(question, CallQuestion) else ""
    more = ", p = pick some of them" if isinstance(question, ToolsQuestion) else more
    return "y = yes" + more + ("" if whole else ", s = show all of it first") + ", n = no [n]: "


async def _accepted(talk: _Talk, question: Question) -> Verdict:
    if not isinstance(question, FormQuestion):
        return Verdict(True)
    properties, required = question.schema.get("properties"), question.schema.get("required")
    needed = cast("list[object]", required) if isinstance(required, list) else []
    content: dict[str, FieldValue] = {}
    for name, rule in (cast("dict[str, object]", properties) if isinstance(properties, dict) else {}).items():
        value = await _field(
            talk, name, cast("dict[str, object]", rule) if isinstance(rule, dict) else {}, name in needed
        )
        if value is not None:
            content[name] = value
    return Verdict(True, edited=content)


async def _field(talk: _Talk, name: str, rule: Mapping[str, object], needed: bool) -> FieldValue | None:
    title, kind = rule.get("title"), rule.get("type")
    hints = [str(rule.get("description") or ""), " | ".join(choices(rule)), "" if kind == "string" else str(kind or "")]
    label = _one_line(f"{title if isinstance(title, str) else name} ({'; '.join(hint for hint in hints if hint)})")
    for _ in range(_TRIES):
        text = (await talk.line(f"  {label}{'' if needed else ', may be left out'}: ")).strip()
        if not text and not needed:
            return None
        try:
            return read_field(text, rule)
        except ValueError as exc:
            talk.say(f"  {_one_line(str(exc))}")
    raise _NoAnswer


async def _always(talk: _Talk, question: CallQuestion) -> Verdict:
    if question.reasons:
        talk.say("It is asked about all the same where what was read makes the call dangerous, as now.")
    for _ in range(_TRIES):
        text = (await talk.line("For how long? 30m, 8h, 7d; 30d at most [1h]: ")).strip().lower() or "1h"
        span = _SPAN.fullmatch(text)
        seconds = float(span[1]) * _UNITS[span[2]] if span else 0.0
        if 0 < seconds <= LONGEST:
            return Verdict(True, Always(seconds=seconds))
        talk.say("A number and m, h or d, please.")
    raise _NoAnswer


async def _picked(talk: _Talk, question: ToolsQuestion) -> Verdict:
    names = [review.name for review in question.tools]
    for number, name in enumerate(names, 1):
        talk.say(f"  {number}  {_one_line(name)}")
    for _ in range(_TRIES):
        typed = [part for part in re.split(r"[,\s]+", await talk.line("Which? Numbers or names: ")) if part]
        found = [names[int(each) - 1] if _is_number(each, len(names)) else each for each in typed]
        if found and all(each in names for each in found):
            return Verdict(True, tools=frozenset(found))
        if not found:
            return _NO
        talk.say("Numbers or names of this list, please.")
    raise _NoAnswer


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= most


def _lines(question: Question) -> list[str]:
    """Heading, reasons and body, each line of somebody else's text behind a mark of its own."""
    found = [_one_line(question.heading()), *(f"  ! {_one_line(reason)}" for reason in question.reasons)]
    for line in question.body():
        first, *rest = visible(line).splitlines() or [""]
        found += [f"  {first}", *(_GOES_ON + each for each in rest)]
    return found


def _shortened(lines: list[str]) -> list[str]:
    """The same for a small place: of long and of many lines the beginning and the end, and how much is missing."""
    short = [cut(line, _LINE) for line in lines]
    if len(short) > _LINES:
        head, tail = _LINES * 2 // 3, _LINES // 3
        left = len(short) - head - tail
        short = [*short[:head], f"  [... {left} of {len(short)} lines not shown ...]", *short[-tail:]]
    return short


def _show(talk: _Talk, lines: list[str], reasons: int) -> None:
    talk.say("")
    for number, line in enumerate(lines):
        for row in _rows(line, talk.columns):
            talk.say(row, _BOLD if number == 0 else _YELLOW if number <= reasons else "")
    talk.forget_typed()


def _rows(line: str, columns: int) -> list[str]:
    """A line as the rows of the terminal: those that go on with one are marked, so that no padding makes words of
    others begin a row. What is one word to its end, as an address is, stays whole, to be copied."""
    if columns < _NARROW or len(line) * 2 < columns or line.rfind(" ") < columns // 2:
        return [line]
    rows, row, used = list[str](), "", 0
    for char in line:
        size = 2 if east_asian_width(char) in "WF" else 1
        if used + size >= columns:
            rows.append(row)
            row, used = _GOES_ON, len(_GOES_ON)
        row += char
        used += size
    return [*rows, row]


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())


def _is_terminal(file: TextIO | None) -> bool:
    try:
        return file is not None and file.isatty()
    except ValueError:  # closed
        return False


class _Talk:
    """One terminal: what is said and what is typed."""

    def __init__(self, source: TextIO, screen: TextIO) -> None:
        self._source = source.fileno()
        self._screen = screen
        self._colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def say(self, text: str, colour: str = "", end: str = "\n") -> None:
        encoding = self._screen.encoding or "ascii"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        if colour and self._colours:
            text = f"\x1b[{colour}m{text}\x1b[0m"
        self._screen.write(text + end)
        self._screen.flush()

    @property
    def columns(self) -> int:
        """How many characters a row has; 0 where that is not known."""
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self._screen.fileno()).columns
        return 0

    def forget_typed(self) -> None:
        """Drop what was typed already."""
        with suppress(ImportError, OSError):
            import termios  # lazy: not on every platform

            termios.tcflush(self._source, termios.TCIFLUSH)

    async def line(self, prompt: str) -> str:
        """One typed line.

        Raises:
            _NoAnswer: the input has ended.
        """
        self.say(prompt, _DIM, end="")
        typed = b""
        while not typed.endswith(b"\n"):
            await self._readable()
            more = os.read(self._source, 4096)
            if not more:
                self.say("")
                raise _NoAnswer
            typed += more
        return typed.partition(b"\n")[0].decode(errors="replace")

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            # Waiting on the loop keeps connections alive, and lets the question be taken back.
            loop.add_reader(self._source, lambda: ready.done() or ready.set_result(None))
        except NotImplementedError:
            return  # this platform's loop watches no terminal: wait in the reading
        try:
            await ready
        finally:
            loop.remove_reader(self._source)
