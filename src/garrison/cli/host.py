"""`garrison host CONFIG [list|show|call|approve|shell]`: many servers for one model, from the terminal.

Rules of this file:
- Nobody is asked but the person at the terminal. Without one, nothing is started, approved or called that was not
  approved before.
- Looking asks about no tool: `list` and `show` ask for what has to be started and nothing else.
- `--yes` stands for the one call that the command line names, and for no program and no definition.
- Results go to standard output; questions and everything else to standard error.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import ConfigurationError, GarrisonError, NotApproved
from ..gate.hygiene import visible
from ..host.console import Terminal
from ..host.host import Host
from ..host.questions import CallQuestion
from ..host.state import FolderState, StateError
from .failures import NOT_APPROVED, OK, TOOL_FAILED, USAGE, WAITS, quiet, report
from .host_show import changed, show_answer, show_change, show_definitions, show_host
from .progress import Progress
from .style import dim, safe
from .values import json_object, pairs, typed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence

    from ..host.conversation import Conversation
    from ..host.questions import Question, Verdict

__all__ = ["arguments_of", "call_tool", "host", "standing"]

_STARTING: Final = frozenset({"file", "launch"})
_CALLING: Final = frozenset({"call", "form", "url", "roots", "sample", "sample-result"})
_ASKED: Final = {
    "list": _STARTING,
    "show": _STARTING,
    "call": _STARTING | _CALLING,
    "approve": _STARTING | {"tools"},
    "shell": _STARTING | _CALLING | {"tools"},
}
"""Which questions an action asks; the answer to all others is no."""
_TOLD: Final = frozenset(
    {"elicitation.refused", "sampling.refused", "roots.refused", "launch.limited", "server.restarted"}
)
"""Events that end no command, so that nothing else would tell of them."""


def host(options: Namespace) -> int:
    """`garrison host CONFIG [ACTION] [NAME] [name=value ...]`"""
    quiet()
    logging.getLogger("garrison.host").addHandler(logging.NullHandler())  # what fails is shown where it belongs
    output: object = sys.stdout
    if isinstance(output, TextIOWrapper):
        cast("TextIOWrapper", output).reconfigure(errors="backslashreplace")
    try:
        action = _action(options)
        return asyncio.run(_ACTIONS[action](options, _ASKED[action]))
    except StateError as exc:
        return report(exc, as_json=options.json, status=USAGE)
    except GarrisonError as exc:
        return report(exc, as_json=options.json)


def _action(options: Namespace) -> str:
    """What is to be done: on a terminal without a word, the prompt.

    Raises:
        ConfigurationError: the words do not fit together.
    """
    action: str | None = options.action
    if action is None:
        return "shell" if _has_person() and not options.json else "list"
    if action in ("approve", "shell") and (options.json or not _has_person()):
        raise ConfigurationError(
            f"{action} needs a terminal, and somebody there; elsewhere `garrison pins approve` takes the digest of "
            "what somebody has looked at"
        )
    if action == "call" and not options.words:
        raise ConfigurationError("call needs the NAME of a tool: alias.tool")
    if action not in ("call", "show") and options.words:
        raise ConfigurationError(f"{action} takes no further words")
    if action != "call" and (options.yes or options.json_args is not None):
        raise ConfigurationError("--yes and --json-args are for call")
    return action


def _has_person() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


class _Front:
    """Asks the person at the terminal what an action asks for.

    Args:
        asked: the kinds of questions.
    """

    def __init__(self, asked: frozenset[str]) -> None:
        self._asked = asked
        self.reviews = "tools" in asked
        """Whether tools are asked about at the start."""
        self._terminal = Terminal()
        self.agreed: tuple[str, Mapping[str, object]] | None = None
        """The call that `--yes` stands for."""

    async def __call__(self, question: Question) -> Verdict | bool:
        if isinstance(question, CallQuestion) and self.agreed == (question.tool, question.arguments):
            return True
        if question.kind not in self._asked:
            return False
        return await self._terminal(question)


@asynccontextmanager
async def _started(options: Namespace, front: _Front) -> AsyncGenerator[Host]:
    """The host with all its servers; ended with the block, whatever ends that."""
    made = Host.from_file(
        options.config,
        approve=front if _has_person() or options.yes else None,
        state=FolderState(options.state),
        trusted=options.trust,
        review=front.reviews,
    )
    for notice in made.notices:
        _note(f"note: {notice}")
    if _has_person():
        _note(f"Starting {', '.join(made.servers) or 'nothing'} ...")
    unheard = events.listen(_hear)
    try:
        async with made:
            yield made
    finally:
        unheard()


def _hear(event: events.Event) -> None:
    if event.name in _TOLD:
        _note(f"note: {event.text}" + (f" ({event.setting})" if event.setting else ""))


def _note(text: str) -> None:
    print(dim(safe(visible(text)), sys.stderr), file=sys.stderr)


def standing(host: Host) -> int:
    """The exit status for how things are."""
    if any(changed(host, each) for each in host.unshown()):
        return NOT_APPROVED
    return WAITS if host.unshown() or host.failures else OK


async def _list(options: Namespace, asked: frozenset[str]) -> int:
    async with _started(options, _Front(asked)) as made:
        show_host(made, as_json=options.json)
        return standing(made)


async def _show(options: Namespace, asked: frozenset[str]) -> int:
    async with _started(options, _Front(asked)) as made:
        show_definitions(made, options.words, as_json=options.json)
        return standing(made)


async def _approve(options: Namespace, asked: frozenset[str]) -> int:
    async with _started(options, _Front(asked)) as made:
        show_host(made, as_json=False)
        return standing(made)


async def _call(options: Namespace, asked: frozenset[str]) -> int:
    front = _Front(asked)
    async with _started(options, front) as made:
        name, *words = options.words
        arguments = await arguments_of(made, name, words, options.json_args)
        front.agreed = (name, arguments) if options.yes else None
        return await call_tool(made.conversation(), name, arguments, options)


async def _shell(options: Namespace, asked: frozenset[str]) -> int:
    from .host_talk import talk  # lazy: only a person at a terminal needs it

    async with _started(options, _Front(asked)) as made:
        show_host(made, as_json=False)
        return await talk(made, options)


async def arguments_of(host: Host, name: str, words: Sequence[str], whole: str | None) -> dict[str, object]:
    """The arguments of a call as typed: by the schema that was approved.

    Args:
        host: the host.
        name: `alias.tool`.
        words: `name=value`.
        whole: all as one JSON object.

    Raises:
        ConfigurationError: a word is no argument, or one is given twice.
        NotApproved, NoSuchTool, ClientError: as of `Host.sound`.
    """
    try:
        tool = await host.sound(name)
    except NotApproved:
        show_change(host, name)
        raise
    given = {} if whole is None else json_object(whole)
    more = pairs(words)
    twice = given.keys() & more.keys()
    if twice:
        raise ConfigurationError(f"argument {min(twice)!r} is given twice")
    return given | typed(more, tool.input_schema)


async def call_tool(conversation: Conversation, name: str, arguments: Mapping[str, object], options: Namespace) -> int:
    """Call a tool, if a rule or the person allows it, and print what it answers.

    Returns:
        The exit status.

    Raises:
        GarrisonError: as of `Conversation.call`.
    """
    progress = Progress(lines=options.progress)
    try:
        answer = await conversation.call(name, arguments, timeout=options.timeout, on_progress=progress)
    finally:
        progress.clear()
    show_answer(answer, as_json=options.json)
    return TOOL_FAILED if answer.is_error else OK


_ACTIONS: Final[dict[str, Callable[[Namespace, frozenset[str]], Coroutine[None, None, int]]]] = {
    "list": _list,
    "show": _show,
    "call": _call,
    "approve": _approve,
    "shell": _shell,
}
