"""Confirmation: whoever asked for what destroys says yes to it, with its arguments before their eyes.

Rules of this file:
- The question shows the tool and its arguments as they will be used: those that were given, and defaults. Each is one
  line of JSON, in which nothing is invisible; what is long is shortened in the middle, what is secret is masked.
- Only `accept` with `confirm: true` is a yes. Everything else is a no, and a client that cannot be asked is one too.
- A yes is for this request: its state (`states`) opens for the same caller, tool and arguments, and once.
- A refusal is one event, `call.unconfirmed`.

Spec: 2026-07-28 server/tools "Security Considerations" (human in the loop); client/elicitation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import AccessDenied, MissingCapability, RemoteError, ToolError
from ..policy.secret import Secret
from ..protocol.json import encode
from .ask import Question
from .disclosure import about
from .sensitive import looks_secret

if TYPE_CHECKING:
    from .ask import Asker
    from .call import Call
    from .registry import ToolEntry

__all__ = ["KEY", "confirm", "question"]

KEY: Final = "garrison.confirm"
"""The question's name. No number that counts a handler's own questions makes it."""
_WORDS: Final = "Do you want this to be done?"
_CAPABILITY: Final = ("elicitation", "form")
_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})
_MASK: Final = "***"
_HEAD: Final = 200
_TAIL: Final = 80
_UNDECLARED: Final = 20
"""Arguments of an open schema that are shown beside its own."""
_BREAKS: Final = {0x2028: "<U+2028>", 0x2029: "<U+2029>"}


async def confirm(asker: Asker, tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> None:
    """Return once the call is confirmed.

    Args:
        asker: of the call.
        tool: what is called.
        call: the request.
        kwargs: the arguments as the handler gets them.

    Raises:
        ToolError: it is not confirmed.
        MissingCapability: the client cannot ask anybody.
        InputRequired: modern revision, and the answer is not there yet.
    """
    try:
        answer = await asker.ask(question(tool, call, kwargs), KEY)
    except MissingCapability:
        _refused(call, "the client cannot ask the user")
        raise
    except (ToolError, RemoteError) as exc:
        _refused(call, "the client gave no answer that counts")
        raise ToolError("Not done: the client gave no answer to the question whether to do it") from exc
    content = answer.get("content")
    if answer.get("action") == "accept" and cast("dict[str, object]", content).get("confirm") is True:
        return
    _refused(call, "the user said no")
    raise ToolError("Not done: the user did not confirm it. Do not try again unless the user asks for it.")


def question(tool: ToolEntry, call: Call, kwargs: dict[str, object]) -> Question:
    """What the user is asked."""
    words = tool.policy.confirm if isinstance(tool.policy.confirm, str) else _WORDS
    lines = _arguments(tool, cast("dict[str, object]", call.params.get("arguments") or {}), kwargs)
    message = "\n".join([words, "", f"Tool: {tool.name}", *(lines or ["(no arguments)"])])
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"confirm": {"type": "boolean", "title": "Yes, do it", "default": False}},
        "required": ["confirm"],
    }
    params: dict[str, object] = {"mode": "form", "message": message, "requestedSchema": schema}
    return Question("elicit", "elicitation/create", params, _CAPABILITY, _check)


def _check(answer: dict[str, object]) -> str | None:
    action = answer.get("action")
    if action not in _ACTIONS:
        return "unknown action"
    if action != "accept":
        return None
    content = answer.get("content")
    fits = type(content) is dict and type(cast("dict[str, object]", content).get("confirm")) is bool
    return None if fits else "confirm: must be true or false"


def _arguments(tool: ToolEntry, given: dict[str, object], kwargs: dict[str, object]) -> list[str]:
    """A line for each argument: those of the schema in its order, then others."""
    properties = cast("dict[str, object]", tool.definition.input_schema.get("properties") or {})
    lines: list[str] = []
    for name, rule in properties.items():
        if name in given:
            lines.append(_line(name, given[name], kwargs.get(name)))
        elif tool.signature.parameters and type(rule) is dict:
            default = cast("dict[str, object]", rule).get("default")
            if default is not None:
                lines.append(f"{_line(name, default, kwargs.get(name))} (default)")
    others = [name for name in given if name not in properties]
    lines += [_line(name, given[name], None) for name in others[:_UNDECLARED]]
    if len(others) > _UNDECLARED:
        lines.append(f"(and {len(others) - _UNDECLARED} more arguments)")
    return lines


def _line(name: str, value: object, bound: object) -> str:
    secret = looks_secret(name) or isinstance(bound, Secret)
    label = name if name.isidentifier() and name.isascii() else _shown(name)
    return f"- {label}: {_MASK if secret else _shown(_masked(value))}"


def _masked(value: object) -> object:
    """JSON without the values of members that look like secrets."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {k: _MASK if looks_secret(k) else _masked(v) for k, v in members.items()}
    if isinstance(value, list):
        return [_masked(item) for item in cast("list[object]", value)]
    return value


def _shown(value: object) -> str:
    from ..gate.hygiene import visible
    from ..gate.redaction import redact

    text = visible(redact(encode(value).decode())).translate(_BREAKS)
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]} [{len(text) - _HEAD - _TAIL} characters are not shown] {text[-_TAIL:]}"


def _refused(call: Call, why: str) -> None:
    call.told = refusal = AccessDenied(f"not confirmed: {why}")  # for the record; the peer reads what is raised
    events.record(
        "call.unconfirmed", refusal.message, peer=call.address, setting="tool(confirm=)", about=about(call, refusal)
    )
