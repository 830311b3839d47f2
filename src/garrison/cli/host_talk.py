"""The prompt of `garrison host`: a person in the place of the model, as long as they like.

Rules of this file:
- The loop goes on while a line is typed: connections are kept alive, and what servers announce is heard.
- What one command gets wrong is said, and ends no other. Ctrl-C and Ctrl-D end all of it, with every program.
- What was read counts for the calls after it, as it would with a model, until `new` begins another conversation.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigurationError, GarrisonError
from .failures import report
from .host import arguments_of, call_tool, standing
from .host_show import changed, show_definitions, show_host
from .style import dim, red, safe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable

    from ..host.conversation import Conversation
    from ..host.host import Host

__all__ = ["talk"]

_HELP: Final = """\
  ALIAS.TOOL name=value ...   call a tool
  list                        what a model is shown and what not
  show [NAME ...]             exactly what a model is shown
  approve                     ask about what waits for approval
  new                         begin a new conversation, which has read nothing
  quit                        end (or Ctrl-D)"""
_PROMPT: Final = "garrison> "
_END: Final = frozenset({"quit", "exit"})


class _Talk(NamedTuple):
    """What a command may need."""

    host: Host
    options: Namespace
    words: list[str]


async def talk(host: Host, options: Namespace) -> int:
    """Read commands until the end.

    Returns:
        The exit status: how things are at the end.
    """
    print(dim("ALIAS.TOOL name=value calls a tool; help says what else there is.", sys.stderr), file=sys.stderr)
    conversation = host.conversation()
    told = {each.name for each in host.unshown() if changed(host, each)}
    while (line := await _line()) is not None:
        try:
            words = _split(line)
            if not words:
                continue
            if words[0] in _END:
                break
            if words[0] == "new":
                conversation = host.conversation()
            elif words[0] in _COMMANDS:
                await _COMMANDS[words[0]](_Talk(host, options, words[1:]))
            else:
                await _call(conversation, host, options, words[1:] if words[0] == "call" else words)
        except GarrisonError as exc:
            report(exc, as_json=False)
        _tell_changed(host, told)
    return standing(host)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise ConfigurationError(f"{exc}") from None


async def _call(conversation: Conversation, host: Host, options: Namespace, words: list[str]) -> None:
    if not words or "." not in words[0]:
        raise ConfigurationError(f"there is no command {' '.join(words[:1]) or 'call without a name'!r}; try help")
    arguments = await arguments_of(host, words[0], words[1:], None)
    await call_tool(conversation, words[0], arguments, options)


def _tell_changed(host: Host, told: set[str]) -> None:
    """Say once what was taken away since it was last looked at."""
    now = {each.name for each in host.unshown() if changed(host, each)}
    for name in sorted(now - told):
        print(
            safe(f"{name} has {red('CHANGED', sys.stderr)} and is blocked; list shows the difference"), file=sys.stderr
        )
    told.clear()
    told.update(now)


async def _list(talk: _Talk) -> None:
    await talk.host.refresh()
    show_host(talk.host, as_json=False)


async def _show(talk: _Talk) -> None:
    show_definitions(talk.host, talk.words, as_json=False)


async def _approve(talk: _Talk) -> None:
    await talk.host.refresh()
    agreed = await talk.host.review()
    print("\n".join(f"approved {safe(tool.name)}" for tool in agreed) or "Nothing was approved.")


async def _help(talk: _Talk) -> None:
    print(_HELP)


_COMMANDS: Final[dict[str, Callable[[_Talk], Awaitable[None]]]] = {
    "list": _list,
    "show": _show,
    "approve": _approve,
    "help": _help,
}


async def _line() -> str | None:
    """One typed line; None at the end of input."""
    print(_PROMPT, end="", file=sys.stderr, flush=True)
    source, typed = sys.stdin.fileno(), b""
    while not typed.endswith(b"\n"):
        await _readable(source)
        # Not by way of sys.stdin, which may read ahead what answers the next question.
        more = os.read(source, 4096)
        if not more:
            print(file=sys.stderr)
            return None
        typed += more
    return typed.decode(errors="replace")


async def _readable(source: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(source, lambda: ready.done() or ready.set_result(None))
    except NotImplementedError:
        return  # this platform's loop watches no terminal: wait in the reading
    try:
        await ready
    finally:
        loop.remove_reader(source)
