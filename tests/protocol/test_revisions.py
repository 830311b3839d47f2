"""What the rooms inside rely on at the door to the older revisions."""

from __future__ import annotations

import copy
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import MissingCapability, ResourceNotFound
from garrison.protocol import types as t
from garrison.protocol.revisions import LATEST, LEGACY, VERSIONS, Revision, get
from garrison.protocol.revisions.revision import PARTS


def revision(version: str) -> Revision:
    found = get(version)
    assert found is not None
    return found


def test_the_revisions_and_what_they_know() -> None:
    assert VERSIONS == ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
    assert VERSIONS[0] == LATEST and VERSIONS[1:] == LEGACY
    assert get("2023-01-01") is None

    def knowing(flag: str) -> list[str]:
        return [version for version in VERSIONS if getattr(revision(version), flag)]

    assert knowing("modern") == knowing("result_type") == ["2026-07-28"]
    assert knowing("input_errors_in_result") == knowing("icons") == list(VERSIONS[:2])
    assert knowing("url_elicitation") == knowing("sampling_tools") == list(VERSIONS[:2])
    assert knowing("elicitation") == knowing("structured_content") == knowing("titles") == list(VERSIONS[:3])
    assert knowing("resource_links") == list(VERSIONS[:3])
    assert knowing("audio") == list(VERSIONS[:4])
    assert knowing("batches") == ["2025-03-26"]
    for version in VERSIONS:
        assert revision(version).elicitation == any(
            "elicitation/create" in table
            for table in (revision(version).methods.server_requests, revision(version).methods.input_requests)
        )


@pytest.mark.parametrize("version", LEGACY)
def test_what_is_of_the_newest_alone_does_not_go_out(version: str) -> None:
    listing = t.ListToolsResult([], ttl_ms=5, cache_scope="public", meta={t.SERVER_INFO_KEY: {}, "a": 1})
    assert revision(version).result("tools/list", t.to_dict(listing)) == {"tools": [], "_meta": {"a": 1}}
    bare = t.EmptyResult(meta={t.SERVER_INFO_KEY: {}})
    assert revision(version).result("ping", t.to_dict(bare)) == {}
    params: dict[str, object] = {"name": "a", "requestState": "s", "_meta": {t.PROTOCOL_VERSION_KEY: LATEST}}
    assert revision(version).request("tools/call", params) == {"name": "a"}
    assert revision(LATEST).request("tools/call", params) is params


@pytest.mark.parametrize("version", LEGACY)
def test_what_is_of_the_newest_alone_does_not_come_in(version: str) -> None:
    forged: dict[str, object] = {
        "name": "a",
        "inputResponses": {},
        "requestState": "s",
        "_meta": {t.CLIENT_CAPABILITIES_KEY: {"sampling": {}}, "progressToken": 1},
    }
    assert revision(version).upgrade_params("tools/call", forged) == {"name": "a", "_meta": {"progressToken": 1}}
    asked = {"resultType": "input_required", "content": [], "ttlMs": 5}
    assert revision(version).upgrade_result("tools/call", asked)["resultType"] == "complete"
    listing = revision(version).upgrade_result("tools/list", {"tools": [], "ttlMs": 5, "cacheScope": "public"})
    assert listing == {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    answer: dict[str, object] = {"action": "decline"}
    assert revision(version).upgrade_result("elicitation/create", answer) == answer


def test_the_newest_is_left_alone() -> None:
    latest = revision(LATEST)
    value: dict[str, object] = {"content": [{"type": "audio"}], "structuredContent": 1, "resultType": "complete"}
    assert latest.result("tools/call", value) is value
    assert latest.upgrade_result("tools/call", value) is value
    assert latest.server_request("elicitation/create", value) is value


@pytest.mark.parametrize("version", LEGACY)
def test_error_codes_are_those_of_the_revision(version: str) -> None:
    older = revision(version)
    missing = ResourceNotFound("file:///a")
    error = older.error(missing.code, missing.message, missing.data)
    assert error == {"code": -32002, "message": "Resource not found", "data": {"uri": "file:///a"}}
    assert older.upgrade_error(-32002, "gone", {"uri": "a:b"}) == (-32602, "gone", {"uri": "a:b"})
    assert older.error(-32602, "bad") == {"code": -32602, "message": "bad"}
    assert [older.error(code, "m")["code"] for code in (-32020, -32021, -32022, -32603)] == [
        -32600,
        -32602,
        -32602,
        -32603,
    ]
    assert revision(LATEST).error(missing.code, "m", missing.data)["code"] == -32602


def _call(version: str, result: t.CallToolResult) -> dict[str, object]:
    return revision(version).result("tools/call", t.to_dict(result))


def test_structured_content_goes_where_it_is_known_and_is_said_as_text_where_nothing_else_is_said() -> None:
    as_object = t.CallToolResult([t.TextContent("a")], structured_content={"n": 1})
    as_list = t.CallToolResult([], structured_content=[1])
    said = {"content": [{"type": "text", "text": "[1]"}]}
    assert _call(LATEST, as_list)["structuredContent"] == [1]
    for version in ("2025-11-25", "2025-06-18"):
        assert _call(version, as_object)["structuredContent"] == {"n": 1}
        assert _call(version, as_list) == said
    for version in ("2025-03-26", "2024-11-05"):
        assert _call(version, as_object) == {"content": [{"type": "text", "text": "a"}]}
        assert _call(version, as_list) == said


def test_links_and_sound_become_text_where_they_are_unknown() -> None:
    notes = t.Annotations(priority=1, last_modified="2025-01-01T00:00:00Z")
    result = t.CallToolResult(
        [
            t.ResourceLink("file:///a", "a", title="A", description="d", annotations=notes),
            t.AudioContent("YQ==", "audio/wav"),
        ]
    )

    def kinds(version: str) -> list[object]:
        return [block["type"] for block in cast("list[dict[str, object]]", _call(version, result)["content"])]

    assert kinds("2025-06-18") == ["resource_link", "audio"]
    assert kinds("2025-03-26") == ["text", "audio"]
    assert _call("2024-11-05", result)["content"] == [
        {"type": "text", "text": "A: file:///a\nd", "annotations": {"priority": 1}},
        {"type": "text", "text": "[audio audio/wav]"},
    ]


def _tool(version: str, tool: t.Tool) -> dict[str, object]:
    listing = revision(version).result("tools/list", t.to_dict(t.ListToolsResult([tool])))
    return cast("list[dict[str, object]]", listing["tools"])[0]


def test_a_tool_keeps_what_the_revision_knows() -> None:
    tool = t.Tool(
        "a",
        {"type": "object", "properties": {"x": True, "y": False, "z": {"type": "string"}}},
        title="A",
        output_schema={"type": "object"},
        icons=[t.Icon("https://a")],
        annotations=t.ToolAnnotations(read_only_hint=True),
    )
    plain = {"x": {}, "y": {"not": {}}, "z": {"type": "string"}}
    for version in LEGACY:
        assert cast("dict[str, object]", _tool(version, tool)["inputSchema"])["properties"] == plain
    assert set(_tool("2025-11-25", tool)) == {"name", "title", "inputSchema", "outputSchema", "annotations", "icons"}
    assert set(_tool("2025-06-18", tool)) == {"name", "title", "inputSchema", "outputSchema", "annotations"}
    assert _tool("2025-03-26", tool)["annotations"] == {"readOnlyHint": True, "title": "A"}
    assert set(_tool("2024-11-05", tool)) == {"name", "inputSchema"}
    assert "outputSchema" not in _tool("2025-11-25", t.Tool("a", {"type": "object"}, output_schema={"type": "array"}))


def test_capabilities_are_those_of_the_revision() -> None:
    ours = t.to_dict(t.ServerCapabilities(completions={}, logging={}, extensions={"a/b": {}}))
    assert set(revision("2025-11-25").capabilities(ours)) == {"completions", "logging", "extensions"}
    assert set(revision("2025-06-18").capabilities(ours)) == {"completions", "logging"}
    assert set(revision("2024-11-05").capabilities(ours)) == {"logging"}


@pytest.mark.parametrize(
    ("version", "needs"),
    [
        ("2025-11-25", {"roots", "sampling", "sampling.tools", "elicitation", "elicitation.url"}),
        ("2025-06-18", {"roots", "sampling", "sampling.context", "elicitation"}),
        ("2025-03-26", {"roots", "sampling", "sampling.context"}),
    ],
)
def test_an_older_client_can_only_have_declared_what_its_revision_knows(version: str, needs: set[str]) -> None:
    declared: dict[str, object] = {"roots": {}, "sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}}
    params: dict[str, object] = {
        "protocolVersion": version,
        "capabilities": declared,
        "clientInfo": {"name": "c", "version": "1"},
    }
    read = t.convert(revision(version).upgrade_params("initialize", params), t.InitializeParams)
    every = ("roots", "sampling", "sampling.tools", "sampling.context", "elicitation", "elicitation.url")
    assert {need for need in every if read.capabilities.supports(need)} == needs


def test_a_form_is_asked_in_the_words_of_the_revision() -> None:
    choice = {"type": "string", "oneOf": [{"const": "a", "title": "A"}], "default": "a"}
    form = t.to_dict(t.ElicitFormParams("m", {"type": "object", "properties": {"c": choice, "b": {"type": "boolean"}}}))
    assert revision("2025-11-25").server_request("elicitation/create", form) == form
    older = revision("2025-06-18").server_request("elicitation/create", form)
    assert older == {
        "message": "m",
        "requestedSchema": {
            "type": "object",
            "properties": {"c": {"type": "string", "enum": ["a"], "enumNames": ["A"]}, "b": {"type": "boolean"}},
        },
    }
    url = t.to_dict(t.ElicitUrlParams("m", "https://a"))
    asked = [revision("2025-11-25").server_request("elicitation/create", url)["elicitationId"] for _ in range(2)]
    assert asked[0] != asked[1]
    several = t.to_dict(t.ElicitFormParams("m", {"type": "object", "properties": {"c": {"type": "array"}}}))
    for version, params in (("2025-06-18", url), ("2025-06-18", several), ("2025-03-26", form)):
        with pytest.raises(MissingCapability):
            revision(version).server_request("elicitation/create", params)


def test_sampling_is_asked_in_the_words_of_the_revision() -> None:
    messages = [
        t.SamplingMessage("assistant", [t.TextContent("a"), t.ToolUseContent("1", "add", {"n": 1}, meta={"a": 1})]),
        t.SamplingMessage("user", [t.ToolResultContent("1", [t.TextContent("2")])]),
    ]
    params = t.to_dict(t.CreateMessageParams(messages, 10, tools=[t.Tool("add", {"type": "object"})]))
    assert revision("2025-11-25").server_request("sampling/createMessage", params) == params
    assert revision("2025-06-18").server_request("sampling/createMessage", params) == {
        "messages": [
            {"role": "assistant", "content": {"type": "text", "text": "a"}},
            {"role": "assistant", "content": {"type": "text", "text": 'add({"n":1})', "_meta": {"a": 1}}},
            {"role": "user", "content": {"type": "text", "text": "2"}},
        ],
        "maxTokens": 10,
    }


def test_notifications_say_what_the_revision_knows() -> None:
    progress = t.to_dict(t.ProgressParams(1, 2, message="m"))
    assert revision("2025-03-26").notification("notifications/progress", progress) == progress
    assert "message" not in revision("2024-11-05").notification("notifications/progress", progress)
    meta: dict[str, object] = {t.SUBSCRIPTION_ID_KEY: 1, "a": 1}
    updated = t.to_dict(t.ResourceUpdatedParams("a:b", meta=meta))
    assert revision(LATEST).notification("notifications/resources/updated", updated)["_meta"] == meta
    for version in LEGACY:
        sent = revision(version).notification("notifications/resources/updated", updated)
        assert sent == {"uri": "a:b", "_meta": {"a": 1}}


@pytest.mark.parametrize("key", [t.PROTOCOL_VERSION_KEY, t.CLIENT_INFO_KEY, t.CLIENT_CAPABILITIES_KEY, t.LOG_LEVEL_KEY])
def test_a_request_carries_per_request_members_in_the_newest_alone(key: str) -> None:
    params: dict[str, object] = {"_meta": {key: "x", "progressToken": 1}}
    assert revision(LATEST).upgrade_params("tools/list", params) == params
    for version in LEGACY:
        assert revision(version).request("tools/list", params) == {"_meta": {"progressToken": 1}}
        assert revision(version).upgrade_params("tools/list", params) == {"_meta": {"progressToken": 1}}


def test_a_client_asks_in_the_words_of_the_revision() -> None:
    ref = t.PromptReference("p", title="P")
    context = t.CompletionContext({"a": "b"})
    complete = t.to_dict(t.CompleteParams(ref, t.CompletionArgument("n", "v"), context))
    assert revision("2025-06-18").request("completion/complete", complete) == complete
    older = revision("2025-03-26").request("completion/complete", complete)
    assert older == {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "n", "value": "v"}}


@pytest.mark.parametrize(
    ("version", "sampling", "elicitation"),
    [("2025-11-25", {"tools": {}}, {"form": {}, "url": {}}), ("2025-06-18", {}, {}), ("2025-03-26", {}, None)],
)
def test_a_client_declares_what_the_revision_knows(version: str, sampling: object, elicitation: object) -> None:
    params: dict[str, object] = {
        "capabilities": {"sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}, "extensions": {}}
    }
    declared = cast("dict[str, object]", revision(version).request("initialize", params)["capabilities"])
    assert declared.get("sampling") == sampling
    assert declared.get("elicitation") == elicitation
    assert ("extensions" in declared) == (version == "2025-11-25")


def test_the_tables_know_no_tasks() -> None:
    for version in VERSIONS:
        assert not any("tasks" in method for method in revision(version).methods.client_requests)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "type", "annotations", "_meta", "properties", "oneOf", "resource", "title"]),
            inner,
        )
    ),
    max_leaves=12,
)
_members = sorted({member for parts in PARTS.values() for member, _ in parts} | {"structuredContent", "outputSchema"})


@given(
    version=st.sampled_from(LEGACY),
    kind=st.sampled_from(sorted(kind for kind in PARTS if "/" in kind or kind[0] in "?>")),
    value=st.dictionaries(st.sampled_from(_members), _json, max_size=4),
)
def test_any_value_is_translated_without_being_changed(version: str, kind: str, value: dict[str, object]) -> None:
    before = copy.deepcopy(value)
    method = kind.lstrip("?>")
    older = revision(version)
    for translate in (older.result, older.request, older.server_request, older.notification):
        try:
            translate(method, value)
        except MissingCapability:
            assert not older.url_elicitation
    older.upgrade_params(method, value)
    older.upgrade_result(method, value)
    assert value == before
