"""Text for a terminal: colours, tables, and text of others made harmless.

Rules of this file:
- What a server says is untrusted. On a terminal its control characters and direction overrides are shown, not obeyed;
  in a pipe every byte is kept, because a program reads it.
- Colours and boxes appear on a terminal only, never with NO_COLOR (https://no-color.org) or a dumb terminal.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

__all__ = ["bold", "coloured", "dim", "emit", "emit_json", "green", "red", "safe", "table"]

_OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_UNSEEN: Final = re.compile("[\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")


def safe(text: str) -> str:
    """The text with everything a terminal would obey, or not show, written as an escape; line ends and tabs stay."""
    shown = _OBEYED.sub(_escaped, text.replace("\r\n", "\n"))
    return shown if shown.isascii() else _UNSEEN.sub(_escaped, shown)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def coloured(file: TextIO) -> bool:
    """True where colours may be used."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _paint(code: str, text: str, file: TextIO) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(file) else text


def bold(text: str, file: TextIO) -> str:
    """The text in bold, where colours may be used."""
    return _paint("1", text, file)


def dim(text: str, file: TextIO) -> str:
    """The text dimmed, where colours may be used."""
    return _paint("2", text, file)


def green(text: str, file: TextIO) -> str:
    """The text in green, where colours may be used."""
    return _paint("32", text, file)


def red(text: str, file: TextIO) -> str:
    """The text in red, where colours may be used."""
    return _paint("31", text, file)


def emit(text: str) -> None:
    """Print a server's text on standard output."""
    print(safe(text) if sys.stdout.isatty() else text)


def emit_json(value: object) -> None:
    """Print a JSON value on standard output: indented on a terminal, on one line otherwise."""
    import msgspec

    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    emit(data.decode())


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: boxed on a terminal with `rich`, in plain columns otherwise.

    Args:
        title: above the table.
        headings: one for each column.
        rows: the cells; text of others may stand in them.
    """
    if sys.stdout.isatty():
        rows = [[safe(cell) for cell in row] for row in rows]
        if _boxed(title, headings, rows):
            return
    lines = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    print(bold(title, sys.stdout))
    for line in (headings, *lines):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _boxed(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    box = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for heading in headings:
        box.add_column(heading, overflow="fold")
    for row in rows:
        # Text, not str: a string would be read for markup.
        box.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(no_color=not coloured(sys.stdout)).print(box)
    return True


_STYLES: Final = {
    "ok": "green",
    "NO": "bold red",
    "refused": "green",
    "PASSED": "bold red",
    "default": "dim",
    "tighter": "green",
    "looser": "yellow",
    "warning": "yellow",
    "note": "dim",
}
"""How a cell that says no more than this is shown."""
