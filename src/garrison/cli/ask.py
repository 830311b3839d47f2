"""The server's questions, put to the person at the terminal.

Rules of this file:
- Without a terminal, and for whatever cannot be answered, the question is declined.
- The end of input (Ctrl-D) declines.
- What the server asks is untrusted text: it is shown, not obeyed. A URL is printed and never opened.

Spec: 2026-07-28 client/elicitation.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final, cast

from ..client import accept_defaults
from ..protocol.types import ElicitFormParams, ElicitResult
from .style import bold, dim, safe

if TYPE_CHECKING:
    from ..protocol.types import ElicitUrlParams

__all__ = ["Asker", "read_field"]

_YES: Final = frozenset({"y", "yes", "true", "1"})
_NO: Final = frozenset({"n", "no", "false", "0"})


class _Declined(Exception):
    """Internal: the person gave no answer."""


class Asker:
    """Answers `elicitation/create`.

    Args:
        yes: accept every form with its defaults, and ask nobody.
    """

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes
        self._turn: asyncio.Lock | None = None

    async def __call__(self, params: ElicitFormParams | ElicitUrlParams) -> ElicitResult:
        if self._yes:
            return accept_defaults(params)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ElicitResult(action="decline")
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:  # questions of one round come together; people answer one by one
            try:
                return await _interview(params)
            except _Declined:
                return ElicitResult(action="decline")


async def _interview(params: ElicitFormParams | ElicitUrlParams) -> ElicitResult:
    _say(f"{bold('The server asks:', sys.stderr)} {safe(params.message)}  {dim('(Ctrl-D declines)', sys.stderr)}")
    if not isinstance(params, ElicitFormParams):
        _say(f"It wants you to open {safe(params.url)}")
        return ElicitResult(action="accept" if await _agrees("Will you open it yourself?") else "decline")
    properties = params.requested_schema.get("properties")
    required = params.requested_schema.get("required")
    names = cast("list[object]", required) if isinstance(required, list) else []
    fields = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    if not fields:
        return ElicitResult(action="accept" if await _agrees("Agree?") else "decline", content={})
    content: dict[str, str | int | float | bool | list[str]] = {}
    for name, rule in fields.items():
        value = await _field(name, cast("dict[str, object]", rule) if isinstance(rule, dict) else {}, name in names)
        if value is not None:
            content[name] = value
    return ElicitResult(action="accept", content=content)


async def _agrees(question: str) -> bool:
    return (await _line(f"{question} [y/N] ")).strip().lower() in _YES


async def _field(name: str, rule: dict[str, object], required: bool) -> str | int | float | bool | list[str] | None:
    title = rule.get("title") if isinstance(rule.get("title"), str) else name
    hint = "; ".join(part for part in (_text(rule.get("description")), _choices_of(rule), _kind(rule)) if part)
    default = rule.get("default")
    shown = "" if default is None else f" [{safe(_shown(default))}]"
    while True:
        text = (await _line(f"  {safe(str(title))} {dim(f'({safe(hint)})', sys.stderr)}{shown}: ")).strip()
        if not text and default is not None:
            return cast("str | int | float | bool | list[str]", default)
        if not text and not required:
            return None
        try:
            return read_field(text, rule)
        except ValueError as exc:
            _say(f"  {exc}")


def read_field(text: str, rule: dict[str, object]) -> str | int | float | bool | list[str]:
    """What was typed into one field, as its type.

    Args:
        text: without surrounding blanks.
        rule: the field's primitive schema.

    Raises:
        ValueError: it does not fit; the message is for the person.
    """
    kind = rule.get("type", "string")
    if kind == "boolean":
        if text.lower() in _YES | _NO:
            return text.lower() in _YES
        raise ValueError("answer yes or no")
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            raise ValueError("a whole number, please" if kind == "integer" else "a number, please") from None
    choices = _values(rule)
    if kind == "array":
        picked = [part.strip() for part in text.split(",") if part.strip()]
        wrong = [part for part in picked if part not in choices]
        if wrong:
            raise ValueError(f"choose among {', '.join(map(safe, choices))}, separated by commas")
        return picked
    if choices and text not in choices:
        raise ValueError(f"choose one of {', '.join(map(safe, choices))}")
    if not text:
        raise ValueError("this is needed")
    return text


def _values(rule: dict[str, object]) -> list[str]:
    """The values that may be chosen: `enum`, or the `const` of `oneOf` and `anyOf`; those of `items` in a list."""
    inner = rule.get("items")
    if isinstance(inner, dict):
        rule = cast("dict[str, object]", inner)
    listed = rule.get("enum")
    if isinstance(listed, list):
        return [value for value in cast("list[object]", listed) if isinstance(value, str)]
    for name in ("oneOf", "anyOf"):
        options = rule.get(name)
        if isinstance(options, list):
            named = [
                cast("dict[str, object]", o).get("const") for o in cast("list[object]", options) if isinstance(o, dict)
            ]
            return [value for value in named if isinstance(value, str)]
    return []


def _choices_of(rule: dict[str, object]) -> str:
    return " | ".join(_values(rule))


def _kind(rule: dict[str, object]) -> str:
    kind = rule.get("type")
    return {"boolean": "yes or no", "integer": "whole number", "number": "number", "array": "separated by commas"}.get(
        kind if isinstance(kind, str) else "", ""
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, cast("list[object]", value)))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _line(prompt: str) -> str:
    """One typed line.

    Raises:
        _Declined: the input has ended.
    """
    print(prompt, end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        # Waiting on the loop keeps the connection alive, and lets Ctrl-C end the wait.
        loop.add_reader(sys.stdin.fileno(), lambda: ready.done() or ready.set_result(None))
    except NotImplementedError:
        pass  # this platform's loop watches no terminal: wait in readline
    else:
        try:
            await ready
        finally:
            loop.remove_reader(sys.stdin.fileno())
    text = sys.stdin.readline()
    if not text:
        _say("")
        raise _Declined
    return text
