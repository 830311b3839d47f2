"""The message types and the revisions against the official JSON Schemas, in both directions.

The schemas come from the folder in `GARRISON_SCHEMAS`, or from a folder `schema` in a directory beside the checkout.
Where there is neither, those of the models in `mcp-types` stand in; they have one era for all older revisions.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import mcp_types.methods as peer
import msgspec
import pytest

from garrison.protocol import types as t
from garrison.protocol.revisions import LATEST, LEGACY, VERSIONS, get

Json = Any  # a JSON document of somebody else, walked freely

RESULT_NAMES = {method: kind.__name__ for method, kind in t.RESULTS.items() if kind is not t.EmptyResult}
ANSWER_NAMES = {method: kind.__name__ for method, kind in t.ANSWERS.items()}
REQUESTS: dict[str, tuple[str, Any]] = {
    "initialize": ("InitializeRequest", t.InitializeParams),
    "logging/setLevel": ("SetLevelRequest", t.SetLevelParams),
    "resources/subscribe": ("SubscribeRequest", t.SubscribeParams),
    "resources/unsubscribe": ("UnsubscribeRequest", t.SubscribeParams),
    "server/discover": ("DiscoverRequest", t.EmptyParams),
    "tools/list": ("ListToolsRequest", t.PaginatedParams),
    "tools/call": ("CallToolRequest", t.CallToolParams),
    "resources/list": ("ListResourcesRequest", t.PaginatedParams),
    "resources/templates/list": ("ListResourceTemplatesRequest", t.PaginatedParams),
    "resources/read": ("ReadResourceRequest", t.ReadResourceParams),
    "prompts/list": ("ListPromptsRequest", t.PaginatedParams),
    "prompts/get": ("GetPromptRequest", t.GetPromptParams),
    "completion/complete": ("CompleteRequest", t.CompleteParams),
    "subscriptions/listen": ("SubscriptionsListenRequest", t.SubscriptionsListenParams),
    "sampling/createMessage": ("CreateMessageRequest", t.CreateMessageParams),
    "elicitation/create": ("ElicitRequest", t.ElicitParams),
    "roots/list": ("ListRootsRequest", t.EmptyParams),
    "notifications/cancelled": ("CancelledNotification", t.CancelledParams),
    "notifications/progress": ("ProgressNotification", t.ProgressParams),
    "notifications/message": ("LoggingMessageNotification", t.LoggingMessageParams),
    "notifications/resources/updated": ("ResourceUpdatedNotification", t.ResourceUpdatedParams),
    "notifications/subscriptions/acknowledged": (
        "SubscriptionsAcknowledgedNotification",
        t.SubscriptionsAcknowledgedParams,
    ),
}
OPEN = {"inputSchema", "outputSchema", "requestedSchema", "_meta", "params", "experimental", "extensions"}
"""Members whose object may have more than the schema names."""


def _folder() -> Path | None:
    if named := os.environ.get("GARRISON_SCHEMAS"):
        return Path(named)
    beside = Path(__file__).resolve().parents[3].glob(f"*/schema/{LATEST}.json")
    return next((path.parent for path in beside), None)


def _close(node: Json, open_here: bool = False) -> Json:
    """The schema with every object closed that does not say it is open."""
    if isinstance(node, list):
        return [_close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {
        key: {name: _close(item, name in OPEN or name.endswith("MetaObject")) for name, item in value.items()}
        if key in ("properties", "$defs", "definitions")
        else _close(value, open_here)
        for key, value in node.items()
    }
    if "properties" in node and "additionalProperties" not in node and not open_here:
        closed["additionalProperties"] = False
    return closed


@cache
def _document(version: str, closed: bool) -> Json:
    folder = _folder()
    if folder is None:
        return None
    document = json.loads((folder / f"{version}.json").read_text("utf-8"))
    return _close(document) if closed else document


def _schema(name: str, version: str, method: str, *, params: bool = False, closed: bool = False) -> Json | None:
    """A schema that stands alone, or None where the revision does not have the definition."""
    document = _document(version, closed)
    if document is None:
        if params:
            tables = (peer.CLIENT_REQUESTS, peer.SERVER_REQUESTS, peer.SERVER_NOTIFICATIONS, peer.CLIENT_NOTIFICATIONS)
        else:
            tables = (peer.SERVER_RESULTS, peer.CLIENT_RESULTS)
        model = next((table[method, version] for table in tables if (method, version) in table), None)
        if model is None:
            return None
        from pydantic import TypeAdapter

        adapter: Json = TypeAdapter[Json](model)  # pyright: ignore[reportArgumentType]  # a union is no type to it
        schema = adapter.json_schema(by_alias=True)
        node = schema["properties"].get("params", {}) if params else schema
        options = [one for one in node.get("anyOf", ()) if "$ref" in one]
        if not params:
            options = [one for one in options if one["$ref"].endswith("/" + name)]
        return {**({"anyOf": options} if options else node), "$defs": schema.get("$defs", {})}
    key = "$defs" if "$defs" in document else "definitions"
    definition = document[key].get(name)
    if definition is None:
        return None
    part: Json = {"$ref": f"#/{key}/{name}"}
    if params:
        if "params" not in definition["properties"]:
            return None
        part = definition["properties"]["params"]
    return {"$schema": document["$schema"], key: document[key], "allOf": [part]}


# --- instances of a schema ---


def _resolve(node: Json, root: Json) -> Json:
    while "$ref" in node:
        target: Json = root
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def instances(node: Json, root: Json, depth: int = 0) -> list[Json]:
    """Small values that the schema allows: each optional member absent and present, each member of each union."""
    if not isinstance(node, dict):
        return [{"any": [None, 1.5]}]
    if str(node.get("$ref")).endswith(("JSONValue", "JSONObject")):
        return [{}, {"any": [None, 1.5]}]
    node = _resolve(node, root)
    if "const" in node:
        return [node["const"]]
    if "enum" in node:
        return list(node["enum"])
    for union in ("anyOf", "oneOf"):
        if union in node:
            return [value for one in node[union] for value in instances(one, root, depth + 1)]
    if "allOf" in node:
        return instances(node["allOf"][0], root, depth)
    kind = node.get("type")
    if isinstance(kind, list):
        return [value for one in kind for value in instances({**node, "type": one}, root, 9)[:1]]
    if kind == "object" or "properties" in node:
        return _objects(node, root, depth)
    if kind == "array":
        if depth > 5:
            return [[]]
        items = instances(node.get("items", {}), root, depth + 1)
        return [[], items]
    scalars: dict[Json, list[Json]] = {
        "string": ["a:b" if node.get("format") == "uri" else "YQ=="],
        # An id is an integer or a string, and no peer writes it as 5.0; the models say so in a union.
        "integer": [5, 5.0] if depth < 9 and "$schema" in root else [5],
        "number": [0, 0.5],
        "boolean": [True, False],
        "null": [None],
    }
    return scalars.get(kind, [None, "any", [1], {"any": 1}])


def _objects(node: Json, root: Json, depth: int) -> list[Json]:
    properties = node.get("properties", {})
    if depth > 6:
        properties = {name: properties[name] for name in node.get("required", ())}
    values = {name: instances(item, root, depth + 1) for name, item in properties.items()}
    smallest = {name: values[name][0] for name in node.get("required", ())}
    found = [smallest, {name: item[-1] for name, item in values.items()}]
    found += [{**smallest, name: item} for name, items in values.items() for item in items]
    extra = node.get("additionalProperties", {})
    if extra is not False:
        more = instances(extra, root, depth + 1)[:1] if extra else ["unknown"]
        found += [{**smallest, "x-unknown": value} for value in more]
    return found


def _valid_instances(schema: Json) -> list[Json]:
    """The instances that the schema really allows; the generator does not know every keyword."""
    validator = jsonschema_rs.validator_for(schema)
    return [value for value in instances(schema, schema) if validator.is_valid(value)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("method", "name"), (RESULT_NAMES | ANSWER_NAMES).items())
def test_every_result_the_schema_allows_is_read(version: str, method: str, name: str) -> None:
    schema = _schema(name, version, method)
    revision = get(version)
    if schema is None or revision is None:
        known = {**revision.methods.client_requests, **revision.methods.server_requests} if revision else {}
        assert method not in known
        return
    kind = {**t.RESULTS, **t.ANSWERS}[method]
    values = _valid_instances(schema)
    assert len(values) > 3
    for value in values:
        if version == LATEST and method in t.RESULTS and value["resultType"] != "complete":
            value = {**value, "resultType": "complete"}
        t.convert(revision.upgrade_result(method, value), kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", REQUESTS)
def test_all_params_the_schema_allows_are_read(version: str, method: str) -> None:
    name, kind = REQUESTS[method]
    schema = _schema(name, version, method, params=True)
    revision = get(version)
    assert revision is not None
    if schema is None:
        tables = revision.methods
        assert method not in {**tables.client_requests, **tables.server_requests, **tables.server_notifications}
        return
    values = _valid_instances(schema)
    assert len(values) > 1
    for value in values:
        t.convert(revision.upgrade_params(method, value), kind)


def test_every_input_required_result_is_read() -> None:
    schema = _schema("InputRequiredResult", LATEST, "tools/call")
    assert schema is not None
    for value in _valid_instances(schema):
        read = t.convert({**value, "resultType": "input_required"}, t.CallToolResult | t.InputRequiredResult)
        assert isinstance(read, t.InputRequiredResult)


# --- what we send ---

META: dict[str, object] = {"example.com/trace": "1"}
ICONS = [t.Icon("https://example.com/i.png", mime_type="image/png", sizes=["48x48"], theme="dark")]
NOTES = t.Annotations(audience=["user"], priority=0.5, last_modified="2025-01-12T15:00:58Z")
CONTENTS = [
    t.TextResourceContents("file:///a", "text", mime_type="text/plain", meta=META),
    t.BlobResourceContents("file:///b", "YQ==", meta=META),
]
CONTENT: list[t.ContentBlock] = [
    t.TextContent("hi", annotations=NOTES, meta=META),
    t.ImageContent("YQ==", "image/png", annotations=NOTES),
    t.AudioContent("YQ==", "audio/wav", annotations=NOTES, meta=META),
    t.ResourceLink("file:///a", "a", title="A", description="d", size=3, icons=ICONS, annotations=NOTES, meta=META),
    *(t.EmbeddedResource(contents, annotations=NOTES, meta=META) for contents in CONTENTS),
]
TOOLS = [
    t.Tool("plain", {"type": "object"}),
    t.Tool(
        "full",
        {"type": "object", "properties": {"any": True, "none": False, "n": {"type": "integer"}}, "required": ["n"]},
        description="d",
        title="T",
        output_schema={"type": "object", "properties": {"any": True}},
        annotations=t.ToolAnnotations(read_only_hint=True),
        icons=ICONS,
        meta=META,
    ),
    t.Tool("list", {"type": "object"}, output_schema={"type": "array", "items": {"type": "string"}}),
]
SERVER = t.Implementation("s", "1", title="S", description="d", website_url="https://example.com", icons=ICONS)
CAPABILITIES = t.ServerCapabilities(
    tools=t.ListChangedCapability(True),
    resources=t.ResourcesCapability(True, True),
    prompts=t.ListChangedCapability(True),
    completions={},
    logging={},
    experimental={"x": {}},
)
SERVER_META: dict[str, object] = {**META, t.SERVER_INFO_KEY: {"name": "s", "version": "1"}}
SAMPLES: list[tuple[str, t.Wire]] = [
    ("initialize", t.InitializeResult("2025-11-25", CAPABILITIES, SERVER, instructions="i", meta=SERVER_META)),
    ("server/discover", t.DiscoverResult([LATEST], CAPABILITIES, instructions="i", meta=SERVER_META)),
    ("tools/list", t.ListToolsResult(TOOLS, next_cursor="c", ttl_ms=5, cache_scope="public", meta=SERVER_META)),
    ("tools/call", t.CallToolResult(CONTENT, structured_content={"a": 1}, is_error=False, meta=SERVER_META)),
    ("tools/call", t.CallToolResult([], structured_content=[1, 2])),
    ("tools/call", t.CallToolResult([], structured_content=None)),
    (
        "resources/list",
        t.ListResourcesResult(
            [
                t.Resource("file:///a", "a", title="A", description="d", size=1, icons=ICONS, annotations=NOTES),
                t.Resource("file:///b", "b", mime_type="text/plain", meta=META),
            ]
        ),
    ),
    (
        "resources/templates/list",
        t.ListResourceTemplatesResult(
            [t.ResourceTemplate("file:///{a}", "a", title="A", icons=ICONS, annotations=NOTES, meta=META)]
        ),
    ),
    ("resources/read", t.ReadResourceResult(list[t.ResourceContents](CONTENTS), meta=SERVER_META)),
    (
        "prompts/list",
        t.ListPromptsResult(
            [
                t.Prompt(
                    "p", title="P", arguments=[t.PromptArgument("a", title="A", required=True)], icons=ICONS, meta=META
                )
            ]
        ),
    ),
    ("prompts/get", t.GetPromptResult([t.PromptMessage("user", block) for block in CONTENT], description="d")),
    ("completion/complete", t.CompleteResult(t.Completion(["a"], total=1, has_more=False))),
    ("subscriptions/listen", t.SubscriptionsListenResult(meta={t.SUBSCRIPTION_ID_KEY: 1})),
    ("elicitation/create", t.ElicitResult("accept", content={"a": "b", "n": 1, "t": True})),
    ("elicitation/create", t.ElicitResult("decline")),
    ("sampling/createMessage", t.CreateMessageResult("assistant", t.TextContent("a", meta=META), "m", stop_reason="x")),
    (
        "sampling/createMessage",
        t.CreateMessageResult("assistant", [t.TextContent("a"), t.ToolUseContent("1", "n", {"a": 1}, meta=META)], "m"),
    ),
    ("sampling/createMessage", t.CreateMessageResult("assistant", [t.AudioContent("YQ==", "audio/wav")], "m")),
    ("roots/list", t.ListRootsResult([t.Root("file:///a", name="a", meta=META)])),
]
MESSAGES = [
    t.SamplingMessage("user", t.TextContent("a", annotations=NOTES, meta=META), meta=META),
    t.SamplingMessage("user", t.AudioContent("YQ==", "audio/wav")),
    t.SamplingMessage("assistant", [t.ToolUseContent("1", "n", {"a": 1}), t.TextContent("b")]),
    t.SamplingMessage("user", [t.ToolResultContent("1", [t.TextContent("c")], structured_content=[1])]),
]
FORM: dict[str, object] = {
    "type": "object",
    "properties": {
        "s": {"type": "string", "default": "x", "minLength": 1},
        "n": {"type": "integer", "default": 1},
        "b": {"type": "boolean", "default": True},
        "e": {"type": "string", "oneOf": [{"const": "a", "title": "A"}], "default": "a"},
    },
    "required": ["s"],
}
QUESTIONS: list[tuple[str, t.Wire]] = [
    (
        "sampling/createMessage",
        t.CreateMessageParams(
            MESSAGES,
            100,
            tools=TOOLS,
            tool_choice=t.ToolChoice("auto"),
            system_prompt="s",
            model_preferences=t.ModelPreferences([t.ModelHint("m")], speed_priority=0.5),
            include_context="none",
            metadata={},
        ),
    ),
    ("elicitation/create", t.ElicitFormParams("m", FORM)),
    ("elicitation/create", t.ElicitUrlParams("m", "https://example.com")),
    ("roots/list", t.EmptyParams()),
]
NEWS: list[tuple[str, t.Wire]] = [
    ("notifications/progress", t.ProgressParams(1, 0.5, total=1, message="m")),
    ("notifications/message", t.LoggingMessageParams("info", None, logger="l", meta={t.SUBSCRIPTION_ID_KEY: 1})),
    ("notifications/resources/updated", t.ResourceUpdatedParams("file:///a", meta={t.SUBSCRIPTION_ID_KEY: 1})),
    ("notifications/cancelled", t.CancelledParams(1, reason="r")),
]


def _hold(schema: Json, value: object) -> None:
    jsonschema_rs.validator_for(schema).validate(json.loads(msgspec.json.encode(value)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("method", "sample"), SAMPLES)
def test_results_we_send_are_valid_and_say_nothing_unknown(version: str, method: str, sample: t.Wire) -> None:
    revision = get(version)
    assert revision is not None
    schema = _schema((RESULT_NAMES | ANSWER_NAMES)[method], version, method, closed=True)
    if schema is None:
        return
    before = t.to_dict(sample)
    _hold(schema, revision.result(method, before))
    assert before == t.to_dict(sample)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("method", "sample"), QUESTIONS)
def test_questions_we_ask_are_valid_and_say_nothing_unknown(version: str, method: str, sample: t.Wire) -> None:
    revision = get(version)
    assert revision is not None
    schema = _schema(REQUESTS[method][0], version, method, params=True, closed=True)
    url = isinstance(sample, t.ElicitUrlParams)
    if schema is None or (url and not revision.url_elicitation):
        return
    before = t.to_dict(sample)
    _hold(schema, revision.server_request(method, before))
    assert before == t.to_dict(sample)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("method", "sample"), NEWS)
def test_notifications_we_send_are_valid_and_say_nothing_unknown(version: str, method: str, sample: t.Wire) -> None:
    revision = get(version)
    assert revision is not None
    schema = _schema(REQUESTS[method][0], version, method, params=True, closed=True)
    assert schema is not None
    _hold(schema, revision.notification(method, t.to_dict(sample)))


@pytest.mark.parametrize("version", LEGACY)
def test_the_handshake_we_send_is_valid(version: str) -> None:
    revision = get(version)
    assert revision is not None
    params = t.InitializeParams(
        version,
        t.ClientCapabilities(
            elicitation=t.ElicitationCapability(form={}, url={}),
            sampling=t.SamplingCapability(context={}, tools={}),
            roots=t.ListChangedCapability(True),
            experimental={"x": {}},
        ),
        SERVER,
    )
    schema = _schema("InitializeRequest", version, "initialize", params=True, closed=True)
    assert schema is not None
    _hold(schema, revision.request("initialize", t.to_dict(params)))


@pytest.mark.parametrize("version", VERSIONS)
def test_method_tables_are_those_of_the_revision(version: str) -> None:
    revision = get(version)
    assert revision is not None
    tables = revision.methods

    def peers(table: Any) -> set[str]:
        return {method for method, dated in table if dated == version and "tasks/" not in method}

    assert set(tables.client_requests) == peers(peer.CLIENT_REQUESTS)
    assert tables.client_notifications == peers(peer.CLIENT_NOTIFICATIONS)
    assert set(tables.server_requests) == peers(peer.SERVER_REQUESTS)
    assert set(tables.server_notifications) == peers(peer.SERVER_NOTIFICATIONS)
    if revision.modern:
        assert tables.cacheable == set(peer.CACHEABLE_METHODS)
        assert tables.input_required == set(peer.INPUT_REQUIRED_METHODS)
