"""The `garrison` command.

Rules of this file:
- The first word chooses the command; only that command's options are built and only its module is loaded, so that
  `garrison run` starts as fast as the file it runs.
- Every command is a function from parsed options to an exit status. Whatever ends it early is turned into a status and
  one line in one place (`failures`).
- In commands that talk to a server, `--` starts a command line: `garrison call add a=1 -- python server.py`.

Exit statuses are in `failures`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from .options import COMMANDS, parsed, usage

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_HELP: Final = frozenset({"-h", "--help", "help"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; those of this process when not given.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in _HELP:
        print(usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from .. import __version__

        print(f"garrison {__version__}")
        return 0
    name = words.pop(0)
    command = COMMANDS.get(name)
    if command is None:
        print(f"garrison: no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    if command.talks and "--" in words:
        words = _with_target_first(words)
    try:
        options = parsed(name, words)
        module = import_module(command.module, __name__)
        status = cast("Callable[[Namespace], int]", getattr(module, command.function))(options)
        sys.stdout.flush()
        return status
    except SystemExit as exc:  # argparse has said why
        if not isinstance(exc.code, int):
            raise
        return exc.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _nobody_reads()


def _with_target_first(words: list[str]) -> list[str]:
    """Put what follows `--` where the target stands, as one word."""
    import shlex

    at = words.index("--")
    return [shlex.join(words[at + 1 :]), *words[:at]]


def _nobody_reads() -> int:
    """Output was closed early, as `| head` does: end without a second complaint at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141
