"""A host's tools for the APIs of language models: plain definitions, and the answers to what a model calls.

    tools = openai_tools(host)
    message = ...                                   # what the model said, given `tools.definitions()`
    messages += await tools.answer(message)         # one message for each tool it called; none when it called none

Rules of this file:
- No package of a model's maker is needed or known: what a model said is read as mappings or as objects with the same
  names, what it is given is plain JSON.
- What goes wrong with a call is told to the model as the result of that call, in the host's own words. No exception
  ends an agent's loop but a cancellation, and no argument, token or internal detail stands in a result.
- Schemas go out as they are listed. A tool that an API would refuse, and with it the whole request, is left out and
  named in `left_out`; nothing is cut from a definition.
- Names are looked up in what the host shows now, never taken apart.

OpenAI API reference "Chat Completions" and "Responses", guide "Function calling"; Anthropic API reference "Messages",
guide "Tool use".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, cast

from ..errors import (
    ClientError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    DefinitionChanged,
    GarrisonError,
    InvalidArguments,
    LaunchRefused,
    NoSuchTool,
    NotApproved,
    ParseError,
    ProtocolViolation,
    RequestTimeout,
)
from ..events import Event, record
from ..gate.hygiene import visible
from ..policy import Limits
from ..protocol.json import decoder
from .names import model_name

if TYPE_CHECKING:
    from typing import TypeAlias

    Json: TypeAlias = dict[str, object]

__all__ = ["AgentHost", "ModelTools", "anthropic_tools", "generic_tools", "openai_tools"]

_log = logging.getLogger("garrison.host")
_SHOWN: Final = 80
_PROPERTY: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class AgentTool(Protocol):
    """What is read of a tool: `HostTool`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def input_schema(self) -> Mapping[str, object]: ...


class AgentAnswer(Protocol):
    """What is read of an answer: `ToolAnswer`."""

    @property
    def text(self) -> str: ...
    @property
    def is_error(self) -> bool: ...


class AgentHost(Protocol):
    """What is used of a host: `Host` and `Conversation` are such."""

    def tools(self) -> Sequence[AgentTool]: ...
    async def call(self, name: str, arguments: Mapping[str, object] | None = None) -> AgentAnswer: ...


class Called(NamedTuple):
    """One call as a model gave it."""

    id: str
    name: str
    arguments: object
    """An object, or its JSON text."""


class Said(NamedTuple):
    """What a call came to, for the model."""

    text: str
    is_error: bool


class Form:
    """How one API writes things."""

    def define(self, name: str, tool: AgentTool) -> Json:
        """A tool under the name that the model calls it by."""
        return {"name": name, "description": tool.description, "input_schema": dict(tool.input_schema)}

    def calls(self, message: object) -> list[Called]:
        """The calls in what a model said; in a list, those that it holds."""
        raise NotImplementedError

    def result(self, call: Called, said: Said) -> Json:
        """What a call came to."""
        raise NotImplementedError

    def gather(self, results: list[Json]) -> list[Json]:
        """Results as messages of a conversation."""
        return results

    def refuses(self, schema: Mapping[str, object]) -> str:
        """Why the API would refuse a tool with this schema; empty when it would not."""
        return ""


class ModelTools:
    """The tools of a host for one API.

    Args:
        host: a `Host`, or a `Conversation` of one.
        form: how the API writes things.
    """

    def __init__(self, host: AgentHost, form: Form) -> None:
        self._host = host
        self._form = form
        self._parse = decoder(Limits())
        self._told: set[str] = set()

    def definitions(self) -> list[Json]:
        """What the API takes as `tools`: those that the host shows now. Ask again for each request to the model."""
        self._tell()
        return [self._form.define(name, tool) for name, tool in self._usable().items()]

    @property
    def left_out(self) -> dict[str, str]:
        """Tools that the host shows and the API would refuse, by exposed name, and why."""
        found: dict[str, str] = {}
        names: dict[str, str] = {}
        for tool in self._host.tools():
            name = model_name(tool.name)
            if names.setdefault(name, tool.name) != tool.name:
                found[tool.name] = found[names[name]] = "two tools would have one name for the model"
            elif why := self._form.refuses(tool.input_schema):
                found[tool.name] = why
        return found

    async def answer(self, message: object) -> list[Json]:
        """Carries out what a model called, one call after the other.

        Args:
            message: what the model said, as the API gives it: the message of a chat completion, a response, a message
                of Anthropic's; as a mapping or an object.

        Returns:
            What the conversation goes on with; nothing when no tool was called.
        """
        calls = self._form.calls(message)
        results = [self._form.result(call, await self._carried_out(call)) for call in calls]
        return self._form.gather(results) if results else []

    async def call(self, call: object) -> Json:
        """Carries out one call, as the API gives it: an entry of `tool_calls`, a `function_call`, a `tool_use` block.

        Returns:
            The result, as the API takes it.
        """
        found = self._form.calls([call])
        one = found[0] if found else Called("", "", None)
        return self._form.result(one, await self._carried_out(one))

    def _usable(self) -> dict[str, AgentTool]:
        left_out = self.left_out
        return {model_name(tool.name): tool for tool in self._host.tools() if tool.name not in left_out}

    def _tell(self) -> None:
        for name, why in self.left_out.items():
            if name not in self._told:
                self._told.add(name)
                about = Event("name.refused", server=name.partition(".")[0], target=name)
                record("name.refused", visible(f"{name} is left out of what a model is given: {why}"), about=about)

    async def _carried_out(self, call: Called) -> Said:
        tool = self._usable().get(call.name)
        if tool is None:
            return Said(f"There is no tool {visible(call.name[:_SHOWN])!r}. Nothing was done.", True)
        arguments = self._arguments(call.arguments)
        if arguments is None:
            return Said("The arguments are not one JSON object. Nothing was done.", True)
        try:
            answer = await self._host.call(tool.name, arguments)
        except GarrisonError as exc:
            return Said(_explained(exc), True)
        except Exception as exc:  # noqa: BLE001 - what a host's own code got wrong must not end the agent's loop
            _log.error("%s failed: %s", tool.name, type(exc).__name__)
            return Said(_FAILED, True)
        return Said(answer.text, answer.is_error)

    def _arguments(self, given: object) -> Json | None:
        if isinstance(given, str):
            try:
                given = self._parse(given.encode(errors="surrogatepass")) if given.strip() else {}
            except ParseError:
                return None
        if given is None:
            return {}
        return dict(cast("Mapping[str, object]", given)) if isinstance(given, Mapping) else None


_FAILED: Final = "The call failed. It may or may not have been carried out."

_EXPLAINED: Final[tuple[tuple[type[GarrisonError], str], ...]] = (
    (NoSuchTool, "There is no such tool. Nothing was done."),
    (DefinitionChanged, "The tool has changed since it was approved and is blocked. Nothing was done."),
    (LaunchRefused, "The tool's server may not be started. Nothing was done."),
    (NotApproved, "This call was not approved. Nothing was done. Do not try to reach the same by another way."),
    (RequestTimeout, "The tool did not answer in time. It may or may not have been carried out."),
    (ConnectionFailed, "The tool's server cannot be reached. Nothing was done."),
    (ConnectionLost, "The connection to the tool's server was lost. The call may or may not have been carried out."),
    (ProtocolViolation, "The tool's answer broke the rules and was not used. The call may have been carried out."),
    (ClientError, _FAILED),
)
"""What a model is told, by the first class that fits."""


def _explained(error: GarrisonError) -> str:
    if isinstance(error, InvalidArguments):  # names rules of the tool's schema, never a value
        return visible(f"The arguments do not fit: {'; '.join(error.problems)}. Nothing was done.")
    return next((text for kind, text in _EXPLAINED if isinstance(error, kind)), _FAILED)


# The APIs.


def openai_tools(host: AgentHost, *, api: Literal["chat", "responses"] = "chat") -> ModelTools:
    """The tools of a host for OpenAI's API and those that copy it.

    Args:
        host: a `Host`, or a `Conversation` of one.
        api: `chat` for Chat Completions, `responses` for Responses.

    Raises:
        ConfigurationError: the API is neither.
    """
    if api not in _OPENAI:
        raise ConfigurationError('openai_tools(api=) is "chat" or "responses"')
    return ModelTools(host, _OPENAI[api])


def anthropic_tools(host: AgentHost) -> ModelTools:
    """The tools of a host for Anthropic's Messages API. `answer` gives one message of the user with all results."""
    return ModelTools(host, _Anthropic())


def generic_tools(host: AgentHost) -> ModelTools:
    """The tools of a host for anything else.

    A definition has `name`, `description`, `input_schema`; a call `id`, `name`, `arguments` (an object or its JSON
    text); a result `id`, `name`, `content`, `is_error`. `answer` takes a list of calls, or what has one as
    `tool_calls`.
    """
    return ModelTools(host, _Generic())


def _field(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get(name)
    return getattr(value, name, None)


def _text(value: object, name: str) -> str:
    found = _field(value, name)
    return found if isinstance(found, str) else ""


def _listed(value: object, name: str) -> Sequence[object]:
    """A list itself, or the one that a value holds under a name; nothing where there is none."""
    for found in (value, _field(value, name)):
        if isinstance(found, list | tuple):
            return cast("Sequence[object]", found)
    return ()


def _marked(said: Said) -> str:
    """For APIs whose results have no mark for errors."""
    return f"Error: {said.text}" if said.is_error else said.text


def _not_combined(schema: Mapping[str, object], names: Sequence[str]) -> str:
    if schema.get("type") != "object":
        return 'the API takes only schemas of type "object"'
    found = [name for name in names if name in schema]
    return f"the API takes no schema with {', '.join(found)} at the top" if found else ""


class _Chat(Form):
    """OpenAI's Chat Completions."""

    def define(self, name: str, tool: AgentTool) -> Json:
        function = {"name": name, "description": tool.description, "parameters": dict(tool.input_schema)}
        return {"type": "function", "function": function}

    def calls(self, message: object) -> list[Called]:
        found = [(_text(call, "id"), _field(call, "function")) for call in _listed(message, "tool_calls")]
        return [Called(id_, _text(function, "name"), _field(function, "arguments")) for id_, function in found]

    def result(self, call: Called, said: Said) -> Json:
        return {"role": "tool", "tool_call_id": call.id, "content": _marked(said)}

    def refuses(self, schema: Mapping[str, object]) -> str:
        return _not_combined(schema, ("oneOf", "anyOf", "allOf", "enum", "not"))


class _Responses(_Chat):
    """OpenAI's Responses."""

    def define(self, name: str, tool: AgentTool) -> Json:
        plain = {"name": name, "description": tool.description, "parameters": dict(tool.input_schema)}
        # Without `strict` this API rewrites a schema so that every property is required.
        return {"type": "function", **plain, "strict": False}

    def calls(self, message: object) -> list[Called]:
        return [
            Called(_text(item, "call_id"), _text(item, "name"), _field(item, "arguments"))
            for item in _listed(message, "output")
            if _field(item, "type") == "function_call"
        ]

    def result(self, call: Called, said: Said) -> Json:
        return {"type": "function_call_output", "call_id": call.id, "output": _marked(said)}


class _Anthropic(Form):
    """Anthropic's Messages."""

    def calls(self, message: object) -> list[Called]:
        return [
            Called(_text(block, "id"), _text(block, "name"), _field(block, "input"))
            for block in _listed(message, "content")
            if _field(block, "type") == "tool_use"
        ]

    def result(self, call: Called, said: Said) -> Json:
        plain = {"type": "tool_result", "tool_use_id": call.id, "content": said.text}
        return {**plain, "is_error": said.is_error}

    def gather(self, results: list[Json]) -> list[Json]:
        return [{"role": "user", "content": results}]

    def refuses(self, schema: Mapping[str, object]) -> str:
        if why := _not_combined(schema, ("oneOf", "anyOf", "allOf")):
            return why
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return ""
        names = cast("Mapping[str, object]", properties)
        odd = next((name for name in names if _PROPERTY.fullmatch(name) is None), None)
        if odd is None:
            return ""
        return f"the API takes no property called {visible(odd[:_SHOWN])!r}: letters, digits, _, . and -, 64 in all"


class _Generic(Form):
    """What is common to most."""

    def calls(self, message: object) -> list[Called]:
        return [
            Called(_text(call, "id"), _text(call, "name"), _field(call, "arguments"))
            for call in _listed(message, "tool_calls")
        ]

    def result(self, call: Called, said: Said) -> Json:
        return {"id": call.id, "name": call.name, "content": said.text, "is_error": said.is_error}


_OPENAI: Final[Mapping[str, Form]] = {"chat": _Chat(), "responses": _Responses()}
