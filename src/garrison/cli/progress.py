"""Progress of a call, on standard error: a bar on a terminal, lines when they are asked for.

Spec: 2026-07-28 basic/patterns/progress.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from .style import safe

if TYPE_CHECKING:
    from ..protocol.types import ProgressParams

__all__ = ["Progress"]

_WIDTH: Final = 24


class Progress:
    """Shows what it is called with.

    Args:
        lines: print a line for each step when standard error is no terminal.
    """

    def __init__(self, *, lines: bool) -> None:
        self._bar = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._lines = lines
        self._drawn = False

    def __call__(self, params: ProgressParams) -> None:
        """Show one step."""
        text = " ".join(safe(params.message or "").split())
        if params.total:
            share = min(max(params.progress / params.total, 0.0), 1.0)
            full = round(share * _WIDTH)
            amount, bar = f"{share:4.0%}", f"[{'#' * full}{'.' * (_WIDTH - full)}] "
        else:
            amount, bar = f"{params.progress:g}", ""
        if self._bar:
            self._draw(f"{bar}{amount} {text}")
        elif self._lines:
            print(f"{amount.strip()} {text}".rstrip(), file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        print(f"\r\x1b[K{text[: columns - 1]}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def clear(self) -> None:
        """Take the bar away, so that the result starts on a clean line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False
