"""A host's tools as the APIs of language models take them, and what a model is told of its calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from garrison import events
from garrison.errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    DefinitionChanged,
    GarrisonError,
    InvalidArguments,
    LaunchRefused,
    NoSuchTool,
    NotApproved,
    OutputInvalid,
    ProtocolViolation,
    RequestTimeout,
)
from garrison.host import adapters
from garrison.host.adapters import ModelTools, anthropic_tools, generic_tools, openai_tools

pytestmark = pytest.mark.client

SECRET = "sk-5d1f0c7e"
PLAIN = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


class Tool(NamedTuple):
    name: str
    description: str = "Does it."
    input_schema: Mapping[str, object] = PLAIN


class Answer(NamedTuple):
    text: str
    is_error: bool = False


GOOD = Answer("good")


class Hosting:
    """As much of a host as the adapters use."""

    def __init__(self, *tools: Tool, answer: Answer | BaseException = GOOD) -> None:
        self._tools = tools or (Tool("files.read_file"), Tool("web.fetch"))
        self.answer = answer
        self.called: list[tuple[str, Mapping[str, object] | None]] = []

    def tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, object] | None = None) -> Answer:
        self.called.append((name, arguments))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Api(NamedTuple):
    """One API: its tools, a model's message that calls, and the results as (id, text, is an error)."""

    tools: Any
    message: Any
    results: Any


def _chat_message(*calls: tuple[str, str, object]) -> dict[str, object]:
    found = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": _json(given)}}
        for id_, name, given in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": found}


def _response(*calls: tuple[str, str, object]) -> dict[str, object]:
    found: list[object] = [{"type": "reasoning", "summary": []}]
    for id_, name, given in calls:
        found.append(
            {"type": "function_call", "id": "fc", "call_id": id_, "name": name, "arguments": _json(given)},
        )
    return {"id": "resp", "output": found}


def _blocks(*calls: tuple[str, str, object]) -> dict[str, object]:
    found: list[object] = [{"type": "text", "text": "I shall look."}]
    found += [{"type": "tool_use", "id": id_, "name": name, "input": given} for id_, name, given in calls]
    return {"role": "assistant", "stop_reason": "tool_use", "content": found}


def _calls(*calls: tuple[str, str, object]) -> list[object]:
    return [{"id": id_, "name": name, "arguments": given} for id_, name, given in calls]


def _json(given: object) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _of_chat(messages: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    assert all(message["role"] == "tool" for message in messages)
    return [_split(message["tool_call_id"], message["content"]) for message in messages]


def _of_responses(items: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    assert all(item["type"] == "function_call_output" for item in items)
    return [_split(item["call_id"], item["output"]) for item in items]


def _split(id_: str, text: str) -> tuple[str, str, bool]:
    return id_, text.removeprefix("Error: "), text.startswith("Error: ")


def _of_blocks(messages: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    (message,) = messages  # all results of a message are in the next one
    assert message["role"] == "user"
    assert all(block["type"] == "tool_result" for block in message["content"])
    return [(block["tool_use_id"], block["content"], block["is_error"]) for block in message["content"]]


def _of_calls(results: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(result["id"], result["content"], result["is_error"]) for result in results]


APIS = {
    "chat": Api(openai_tools, _chat_message, _of_chat),
    "responses": Api(lambda host: openai_tools(host, api="responses"), _response, _of_responses),
    "anthropic": Api(anthropic_tools, _blocks, _of_blocks),
    "generic": Api(generic_tools, _calls, _of_calls),
}
every_api = pytest.mark.parametrize("api", APIS.values(), ids=APIS)
every_text_api = pytest.mark.parametrize("api", [APIS[name] for name in ("chat", "responses", "generic")])


def as_object(value: Any) -> Any:
    """What a maker's package gives: the same names, as attributes."""
    if isinstance(value, dict) and not value.keys() & {"path"}:
        return SimpleNamespace(**{name: as_object(each) for name, each in value.items()})
    return [as_object(each) for each in value] if isinstance(value, list) else value


# Definitions


def test_definitions_are_as_each_api_takes_them() -> None:
    host = Hosting(Tool("files.read_file"))
    name, described = "files__read_file", {"description": "Does it."}
    assert openai_tools(host).definitions() == [
        {"type": "function", "function": {"name": name, **described, "parameters": PLAIN}}
    ]
    assert openai_tools(host, api="responses").definitions() == [
        {"type": "function", "name": name, **described, "parameters": PLAIN, "strict": False}
    ]
    for tools in (anthropic_tools(host), generic_tools(host)):
        assert tools.definitions() == [{"name": name, **described, "input_schema": PLAIN}]


@every_api
def test_definitions_are_plain_json(api: Api) -> None:
    definitions = api.tools(Hosting()).definitions()
    assert json.loads(json.dumps(definitions)) == definitions


@every_api
async def test_what_the_host_shows_now_is_what_counts(api: Api) -> None:
    host = Hosting()
    tools = api.tools(host)
    assert len(tools.definitions()) == 2
    host._tools = host._tools[:1]
    assert len(tools.definitions()) == 1
    ((_, text, is_error),) = api.results(await tools.answer(api.message(("1", "web__fetch", {}))))
    assert is_error and "no tool" in text
    assert host.called == []


def test_another_api_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="responses"):
        openai_tools(Hosting(), api="assistants")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schema", "by"),
    [
        ({"type": "object", "oneOf": [{}]}, {"chat", "responses", "anthropic"}),
        ({"type": "object", "anyOf": [{}]}, {"chat", "responses", "anthropic"}),
        ({"type": "object", "allOf": [{}]}, {"chat", "responses", "anthropic"}),
        ({"type": "object", "not": {}}, {"chat", "responses"}),
        ({"type": "object", "enum": [{}]}, {"chat", "responses"}),
        ({"oneOf": [{"type": "object"}]}, {"chat", "responses", "anthropic"}),
        ({"type": "object", "properties": {"$top": {}}}, {"anthropic"}),
        ({"type": "object", "properties": {"x" * 65: {}}}, {"anthropic"}),
        ({"type": "object", "properties": {"a": {"oneOf": [{}]}}, "$defs": {"$b": {}}}, set()),
        ({"type": "object"}, set()),
    ],
)
def test_a_tool_that_an_api_would_refuse_with_all_others_is_left_out(schema: dict[str, object], by: set[str]) -> None:
    host = Hosting(Tool("odd.tool", input_schema=schema), Tool("files.read_file"))
    for name, api in APIS.items():
        tools = api.tools(host)
        assert set(tools.left_out) == ({"odd.tool"} if name in by else set())
        definitions = tools.definitions()
        assert len(definitions) == (1 if name in by else 2)
        assert json.dumps(schema) in json.dumps(definitions) or name in by, "nothing is cut from a schema"


async def test_what_is_left_out_is_on_record_once_and_cannot_be_called() -> None:
    host = Hosting(Tool("odd.tool", input_schema={"type": "object", "oneOf": [{}]}))
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        tools = openai_tools(host)
        assert tools.definitions() == tools.definitions() == []
    finally:
        stop()
    assert [(event.name, event.server, event.target) for event in heard] == [("name.refused", "odd", "odd.tool")]
    await tools.answer(_chat_message(("1", "odd__tool", {})))
    assert host.called == []


def test_two_tools_with_one_name_for_the_model_are_both_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "model_name", lambda name: name[:3])
    tools = openai_tools(Hosting(Tool("abc.x"), Tool("abc.y"), Tool("abc.z"), Tool("d.x")))
    assert set(tools.left_out) == {"abc.x", "abc.y", "abc.z"}
    assert len(tools.definitions()) == 1


# Calls


@every_api
@pytest.mark.parametrize("form", [lambda value: value, as_object], ids=["mapping", "object"])
async def test_a_call_is_carried_out_and_answered(api: Api, form: Any) -> None:
    host = Hosting()
    message = form(api.message(("1", "files__read_file", {"path": "a"}), ("2", "web__fetch", {"path": "ü"})))
    assert api.results(await api.tools(host).answer(message)) == [("1", "good", False), ("2", "good", False)]
    assert host.called == [("files.read_file", {"path": "a"}), ("web.fetch", {"path": "ü"})]


@every_api
async def test_a_message_without_calls_is_answered_with_nothing(api: Api) -> None:
    tools: ModelTools = api.tools(Hosting())
    for message in (api.message(), {"role": "assistant", "content": "Done."}, {"tool_calls": None}, None, "Done.", 1):
        assert await tools.answer(message) == []


async def test_one_call_is_answered_alone() -> None:
    host = Hosting()
    (call,) = _chat_message(("1", "web__fetch", {"path": "a"}))["tool_calls"]  # type: ignore[misc]
    expected = {"role": "tool", "tool_call_id": "1", "content": "good"}
    assert await openai_tools(host).call(call) == await openai_tools(host).call(as_object(call)) == expected
    block = {"type": "tool_use", "id": "1", "name": "web__fetch", "input": {"path": "a"}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "good", "is_error": False}
    assert await anthropic_tools(host).call(block) == result
    item = {"type": "function_call", "call_id": "1", "name": "web__fetch", "arguments": ""}
    assert (await openai_tools(host, api="responses").call(item))["output"] == "good"
    assert (await generic_tools(host).call({"name": "web__fetch"}))["content"] == "good"
    assert len(host.called) == 5


@every_api
@pytest.mark.parametrize("call", [{}, None, "x", [], {"function": 3}, {"id": 7, "name": ["x"]}])
async def test_what_is_no_call_is_answered_as_an_error(api: Api, call: object) -> None:
    host = Hosting()
    assert "no tool" in json.dumps(await api.tools(host).call(call))
    assert host.called == []


@every_api
@pytest.mark.parametrize("name", ["", "read_file", "files.read_file", "files__", "FILES__READ_FILE", "x\u202e" * 200])
async def test_only_whole_names_that_were_given_out_find_a_tool(api: Api, name: str) -> None:
    host = Hosting()
    ((_, text, is_error),) = api.results(await api.tools(host).answer(api.message(("1", name, {"path": "a"}))))
    assert is_error and "no tool" in text and "\u202e" not in text and len(text) < 1500
    assert host.called == []


@every_text_api
@pytest.mark.parametrize(
    "given", ["{", '{"path": "a"', "[]", '"a"', "1", "null", '{"a":1,"a":2}', '{"a":NaN}', "x\ud800"]
)
async def test_arguments_that_are_no_object_call_nothing(api: Api, given: str) -> None:
    host = Hosting()
    ((id_, text, is_error),) = api.results(await api.tools(host).answer(api.message(("1", "web__fetch", given))))
    if given == "null":
        assert not is_error and host.called == [("web.fetch", {})]
        return
    assert (id_, is_error) == ("1", True) and "JSON object" in text
    assert host.called == []


@every_text_api
async def test_no_arguments_are_an_empty_object(api: Api) -> None:
    host = Hosting()
    for given in ("", "  ", "{}"):
        assert api.results(await api.tools(host).answer(api.message(("1", "web__fetch", given)))) == [
            ("1", "good", False)
        ]
    assert host.called == [("web.fetch", {})] * 3


@every_text_api
async def test_numbers_come_as_they_were_written(api: Api) -> None:
    host = Hosting()
    await api.tools(host).answer(api.message(("1", "web__fetch", '{"a": 1, "b": 1.5, "c": [true, null]}')))
    assert host.called == [("web.fetch", {"a": 1, "b": 1.5, "c": [True, None]})]


async def test_a_block_whose_input_is_no_object_calls_nothing() -> None:
    host = Hosting()
    for given in ([], 1, "{"):
        (message,) = await anthropic_tools(host).answer(_blocks(("1", "web__fetch", given)))
        assert message["content"][0]["is_error"]  # type: ignore[index]
    assert host.called == []


# What goes wrong


FAILURES: list[tuple[BaseException, str]] = [
    (NoSuchTool(SECRET), "no such tool"),
    (NotApproved(SECRET), "not approved"),
    (DefinitionChanged(SECRET), "changed since"),
    (LaunchRefused(SECRET), "may not be started"),
    (RequestTimeout("tools/call", 5), "in time"),
    (ConnectionFailed(SECRET), "cannot be reached"),
    (ConnectionLost(SECRET), "may or may not"),
    (ProtocolViolation(SECRET), "broke the rules"),
    (OutputInvalid(SECRET), "broke the rules"),
    (InvalidArguments("fetch", ("/path: is required",)), "/path: is required"),
    (ConfigurationError(SECRET), "The call failed"),
    (GarrisonError(SECRET), "The call failed"),
    (OSError(SECRET), "The call failed"),
    (ValueError(SECRET), "The call failed"),
    (TimeoutError(SECRET), "The call failed"),
]


@every_api
@pytest.mark.parametrize(("failure", "text"), FAILURES, ids=lambda value: type(value).__name__)
async def test_a_failure_is_told_to_the_model_and_ends_nothing(
    api: Api, failure: BaseException, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = api.message(("1", "web__fetch", {"path": SECRET}))
    host = Hosting(answer=failure)
    ((id_, told, is_error),) = api.results(await api.tools(host).answer(message))
    assert (id_, is_error) == ("1", True)
    assert text in told
    assert SECRET not in told and SECRET not in caplog.text
    host.answer = Answer("good")
    assert api.results(await api.tools(host).answer(message)) == [("1", "good", False)]


@every_api
async def test_an_error_of_the_tool_is_one_for_the_model(api: Api) -> None:
    host = Hosting(answer=Answer("no such file", is_error=True))
    message = api.message(("1", "web__fetch", {}))
    assert api.results(await api.tools(host).answer(message)) == [("1", "no such file", True)]


@every_api
async def test_a_cancelled_call_stays_cancelled(api: Api) -> None:
    with pytest.raises(asyncio.CancelledError):
        await api.tools(Hosting(answer=asyncio.CancelledError())).answer(api.message(("1", "web__fetch", {})))
