"""What users and the SDK rely on when they make, write and read message types."""

from __future__ import annotations

import msgspec
import pytest

from garrison.protocol import types as t


def test_types_are_written_with_the_names_of_the_wire_and_without_what_is_absent() -> None:
    tool = t.Tool("add", {"type": "object"}, annotations=t.ToolAnnotations(read_only_hint=True), meta={"a": 1})
    assert t.to_dict(tool) == {
        "name": "add",
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
        "_meta": {"a": 1},
    }
    assert t.to_dict(t.TextContent("hi")) == {"type": "text", "text": "hi"}
    assert t.to_dict(t.ListRootsRequest()) == {"method": "roots/list"}


def test_what_the_specification_requires_is_written_though_it_is_the_default() -> None:
    assert t.to_dict(t.EmptyResult()) == {"resultType": "complete"}
    assert t.to_dict(t.InputRequiredResult(request_state="s")) == {"resultType": "input_required", "requestState": "s"}
    assert t.to_dict(t.ListToolsResult([])) == {
        "resultType": "complete",
        "tools": [],
        "ttlMs": 0,
        "cacheScope": "private",
    }
    assert t.to_dict(t.CallToolResult([])) == {"resultType": "complete", "content": []}


def test_null_is_a_value_where_the_specification_allows_any() -> None:
    assert t.to_dict(t.CallToolResult([], structured_content=None))["structuredContent"] is None
    read = t.convert({"content": [], "structuredContent": None}, t.CallToolResult)
    assert read.structured_content is None
    assert t.convert({"content": []}, t.CallToolResult).structured_content is t.UNSET
    assert t.to_dict(t.LoggingMessageParams("info", None)) == {"level": "info", "data": None}


def test_types_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        t.TextContent("a").text = "b"  # pyright: ignore[reportAttributeAccessIssue]  # the point of the test


def test_a_result_and_a_question_are_told_apart() -> None:
    kinds = t.CallToolResult | t.InputRequiredResult
    assert isinstance(t.convert({"resultType": "complete", "content": []}, kinds), t.CallToolResult)
    asked = t.convert(
        {
            "resultType": "input_required",
            "requestState": "s",
            "inputRequests": {
                "f": {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {}}},
                "u": {"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "https://a"}},
                "r": {"method": "roots/list"},
            },
        },
        kinds,
    )
    assert isinstance(asked, t.InputRequiredResult) and asked.input_requests is not None
    form, url = asked.input_requests["f"], asked.input_requests["u"]
    assert isinstance(form, t.ElicitRequest) and isinstance(form.params, t.ElicitFormParams)
    assert isinstance(url, t.ElicitRequest) and url.params == t.ElicitUrlParams("m", "https://a")
    assert isinstance(asked.input_requests["r"], t.ListRootsRequest)
    with pytest.raises(msgspec.ValidationError, match="resultType"):
        t.convert({"resultType": "later", "content": []}, kinds)


def test_resource_contents_are_read_as_text_or_blob() -> None:
    contents = [{"uri": "a:b", "text": "t", "_meta": {"k": 1}}, {"uri": "a:c", "blob": "YQ==", "unknown": 1}]
    read = t.convert({"contents": contents}, t.ReadResourceResult)
    assert read.contents == [t.TextResourceContents("a:b", "t", meta={"k": 1}), t.BlobResourceContents("a:c", "YQ==")]
    assert t.to_dict(read)["contents"] == [contents[0], {"uri": "a:c", "blob": "YQ=="}]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"type": "video", "data": ""}, r"'video' - at `\$\.content\[0\]\.type`"),
        ({"text": "a"}, "`type`"),
        ({"type": "text", "text": 1}, r"`\$\.content\[0\]\.text`"),
        ({"type": "resource", "resource": {"uri": "a:b"}}, "`text`"),
        ("text", r"`\$\.content\[0\]`"),
    ],
)
def test_content_that_is_unknown_or_wrong_is_refused_with_its_place(content: object, place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        t.convert({"content": [content]}, t.CallToolResult)


def test_unknown_members_are_ignored() -> None:
    assert t.convert({"content": [{"type": "text", "text": "a", "new": {}}], "x": 1}, t.CallToolResult).content == [
        t.TextContent("a")
    ]


@pytest.mark.parametrize(
    ("capabilities", "yes", "no"),
    [
        ({}, [], ["roots", "sampling", "sampling.tools", "elicitation", "elicitation.url"]),
        ({"elicitation": {}}, ["elicitation"], ["elicitation.url"]),
        ({"elicitation": {"url": {}}}, ["elicitation.url"], ["elicitation"]),
        ({"elicitation": {"url": {}, "form": {}}}, ["elicitation.url", "elicitation"], []),
        ({"sampling": {}}, ["sampling"], ["sampling.tools", "sampling.context"]),
        ({"sampling": {"tools": {}}, "roots": {}}, ["sampling", "sampling.tools", "roots"], ["sampling.context"]),
    ],
)
def test_capabilities_answer_for_the_needs_of_the_tables(capabilities: object, yes: list[str], no: list[str]) -> None:
    read = t.convert(capabilities, t.ClientCapabilities)
    assert all(read.supports(need) for need in yes)
    assert not any(read.supports(need) for need in no)


def test_logging_levels_are_in_order() -> None:
    levels = list(t.LOGGING_LEVELS.values())
    assert levels == sorted(levels)
    assert t.LOGGING_LEVELS["emergency"] > t.LOGGING_LEVELS["debug"]
