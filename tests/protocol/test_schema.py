"""JSON Schema: what is accepted and refused, how it is worded, and that hostile definitions and values stay cheap."""

from __future__ import annotations

import copy
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.protocol.schema import DIALECTS, MAX_DEPTH, MAX_PATTERNS, MAX_SUBSCHEMAS, Schema, SchemaError

SECRET = "hunter2-do-not-repeat"


def problems(definition: dict[str, object], value: object) -> tuple[str, ...]:
    return Schema(definition).problems(value)


def test_the_definition_is_kept_as_it_is() -> None:
    definition: dict[str, object] = {"type": "object", "x-own": [1, {"a": None}], "title": "T"}
    before = copy.deepcopy(definition)
    schema = Schema(definition)
    assert schema.definition is definition and definition == before
    definition["type"] = "string"
    assert schema.is_valid({}) and not schema.is_valid("text")


@pytest.mark.parametrize(
    ("definition", "value", "expected"),
    [
        ({"properties": {"a": {"type": "integer"}}}, {"a": SECRET}, "a: must be an integer"),
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": 1}, "a: must be a string or null"),
        (
            {"properties": {"tags": {"items": {"enum": ["a", "b", "c", "d"]}}}},
            {"tags": ["a", "b", "c", SECRET]},
            "tags[3]: must be one of the 4 allowed values",
        ),
        ({"required": ["b"]}, {}, "b: required"),
        ({"properties": {"a": {"required": ["b"]}}}, {"a": {}}, "a.b: required"),
        ({"additionalProperties": False}, {"verbose": 1}, "unknown argument 'verbose'"),
        ({"additionalProperties": False}, {SECRET + " with spaces": 1}, "an unknown argument"),
        ({"additionalProperties": False}, {"x" * 65: 1}, "an unknown argument"),
        ({"additionalProperties": False}, {"naïve": 1}, "an unknown argument"),
        ({"properties": {"a": {"const": SECRET}}}, {"a": 1}, "a: must be the one allowed value"),
        ({"properties": {"a": {"minimum": 3}}}, {"a": 2}, "a: must be at least 3"),
        ({"properties": {"a": {"minLength": 1}}}, {"a": ""}, "a: must have at least 1 character"),
        ({"properties": {"a": {"pattern": "^x$"}}}, {"a": SECRET}, "a: must match the pattern of the schema"),
        ({"properties": {"a": {"format": "uuid"}}}, {"a": SECRET}, "a: must be a UUID"),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [SECRET, SECRET]}, "a: must not repeat an item"),
        (
            {"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
            {"a": SECRET},
            "a: must be an integer or null",
        ),
        (
            {
                "properties": {"a": {"anyOf": [{"$ref": "#/$defs/p"}, {"type": "null"}]}},
                "$defs": {"p": {"required": ["z"]}},
            },
            {"a": {}},
            "a.z: required",
        ),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [1, SECRET], "[1]: not allowed"),
        ({"patternProperties": {"^x-": {"type": "integer"}}}, {"x-a": SECRET}, "x-a: must be an integer"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, "b: required"),
        ({"not": {"type": "string"}}, SECRET, "does not fit the schema"),
    ],
)
def test_a_problem_names_path_and_rule(definition: dict[str, object], value: object, expected: str) -> None:
    assert problems(definition, value) == (expected,)
    assert SECRET not in expected


def test_problems_are_limited_and_none_when_the_value_fits() -> None:
    schema = Schema({"items": {"type": "integer"}})
    assert len(schema.problems(["x"] * 100)) == 5
    assert len(schema.problems(["x"] * 100, limit=2)) == 2
    assert schema.problems([1, 2]) == ()


def test_a_value_that_is_not_json_does_not_fit() -> None:
    schema = Schema({})
    assert schema.is_valid({"a": 1})
    assert not schema.is_valid(object()) and not schema.is_valid({1: 2}) and not schema.is_valid("\ud800")


@pytest.mark.parametrize("dialect", [*DIALECTS, *(d + "#" for d in DIALECTS)])
def test_dialects_that_are_known_are_used(dialect: str) -> None:
    assert not Schema({"$schema": dialect, "type": "integer"}).is_valid("x")
    old = Schema({"$schema": DIALECTS[2], "items": [{"type": "integer"}], "additionalItems": False})
    assert old.is_valid([1]) and not old.is_valid([1, 2])


@pytest.mark.parametrize(
    "definition",
    [
        {"$schema": "http://json-schema.org/draft-03/schema#"},
        {"$schema": "https://example.com/own"},
        {"properties": {"a": {"$id": "urn:a", "$schema": "https://example.com/own"}}},
        {"$defs": {"a": {"$schema": "https://example.com/own"}}},
    ],
)
def test_an_unknown_dialect_is_an_error_that_says_so(definition: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match="dialect") as caught:
        Schema(definition)
    assert "example.com" not in str(caught.value)


def test_a_member_called_schema_is_no_dialect() -> None:
    assert Schema({"properties": {"$schema": {"type": "string"}}, "const": {"$schema": "x"}}).is_valid({"$schema": "x"})


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize("where", ["top", "member", "unused"])
def test_nothing_is_fetched(keyword: str, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        address = f"http://127.0.0.1:{canary.getsockname()[1]}/s.json"
        for target in (address, "file:///etc/passwd", "other.json"):
            leaf: dict[str, object] = {keyword: target}
            definition = {"top": leaf, "member": {"properties": {"a": leaf}}, "unused": {"$defs": {"a": leaf}}}[where]
            with pytest.raises(SchemaError, match="reference") as caught:
                Schema(definition)
            assert target not in str(caught.value)
        with pytest.raises(SchemaError):
            Schema({"$id": address, "$ref": "y"})
        with pytest.raises(BlockingIOError):
            canary.accept()


def test_local_references_work() -> None:
    schema = Schema({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "array", "items": {"$ref": "#"}}}})
    assert schema.is_valid([[], [[]]]) and not schema.is_valid([1])
    assert schema.problems([1]) == ("[0]: must be an array",)
    with pytest.raises(SchemaError):
        Schema({"$ref": "#/$defs/missing"})
    anchored = Schema({"$id": "https://example.com/x", "$ref": "a", "$defs": {"a": {"$id": "a", "type": "string"}}})
    assert anchored.is_valid("x") and not anchored.is_valid(1)


def nested(levels: int, leaf: dict[str, object]) -> dict[str, object]:
    for _ in range(levels):
        leaf = {"items": leaf}
    return leaf


def ladder(levels: int, width: int, keyword: str) -> dict[str, object]:
    rungs: dict[str, object] = {"l0": {"type": "integer"}}
    for level in range(1, levels + 1):
        rungs[f"l{level}"] = {keyword: [{"$ref": f"#/$defs/l{level - 1}"}] * width}
    return {"$defs": rungs, "$ref": f"#/$defs/l{levels}"}


def renamed_ladder(levels: int, width: int) -> dict[str, object]:
    """A bomb whose references are spelled otherwise than the identifiers they resolve to."""
    rungs: dict[str, object] = {"l0": {"$id": "l0", "type": "integer"}}
    for level in range(1, levels + 1):
        rungs[f"l{level}"] = {"$id": f"l{level}", "anyOf": [{"$ref": f"./l{level - 1}"}] * width}
    return {"$id": "https://example.com/s", "$defs": rungs, "$ref": f"l{levels}"}


@pytest.mark.parametrize(
    ("definition", "twin"),
    [
        (nested(MAX_DEPTH, {}), nested(MAX_DEPTH - 1, {})),
        (nested(100_000, {}), {}),
        (
            {"$defs": {str(i): {} for i in range(MAX_SUBSCHEMAS)}},
            {"$defs": {str(i): {} for i in range(MAX_SUBSCHEMAS - 10)}},
        ),
        (
            {"properties": {str(i): {"pattern": "a"} for i in range(MAX_PATTERNS + 1)}},
            {"properties": {str(i): {"pattern": "a"} for i in range(MAX_PATTERNS)}},
        ),
        ({"patternProperties": {str(i): {} for i in range(MAX_PATTERNS + 1)}}, {"patternProperties": {"1": {}}}),
        (ladder(12, 10, "anyOf"), ladder(2, 10, "anyOf")),
        (renamed_ladder(12, 10), renamed_ladder(2, 10)),
        (ladder(12, 10, "oneOf"), ladder(2, 10, "oneOf")),
        (ladder(12, 10, "allOf"), ladder(2, 10, "allOf")),
        ({"pattern": "(?=a)b"}, {"pattern": "ab"}),
        ({"pattern": r"(a)\1"}, {"pattern": r"^[\w.-]{1,64}$"}),
        ({"pattern": "((a{100}){100}){100}"}, {"pattern": "(a{100})"}),
        ({"type": "no-such-type"}, {"type": "null"}),
        ({"minimum": "3"}, {"minimum": 3}),
    ],
)
def test_a_definition_outside_the_bounds_is_refused_quickly(
    definition: dict[str, object], twin: dict[str, object]
) -> None:
    started = time.process_time()
    with pytest.raises(SchemaError):
        Schema(definition)
    assert time.process_time() - started < 0.5
    Schema(twin)


def test_many_ordinary_definitions_shared_by_many_members_are_no_bomb() -> None:
    shared = {f"d{i}": {"type": "object", "properties": {"a": {"type": "string"}}} for i in range(100)}
    members: dict[str, object] = {f"m{i}": {"$ref": f"#/$defs/d{i % 100}"} for i in range(1_000)}
    assert Schema({"$defs": shared, "properties": members}).is_valid({"m1": {"a": "x"}})


def test_only_an_object_is_a_definition() -> None:
    for value in (True, [], "x", None):
        with pytest.raises(SchemaError):
            Schema(value)  # pyright: ignore[reportArgumentType] - the wrong type on purpose


@pytest.mark.parametrize("links", [1, 2, 3])
def test_recursion_with_alternatives_does_not_blow_up(links: int) -> None:
    names = "xyz"[:links]

    def branch(target: str, most: int) -> dict[str, object]:
        return {"type": "object", "properties": {"c": {"$ref": f"#/$defs/{target}"}}, "maxProperties": most}

    definitions = {name: {"anyOf": [branch(t, most) for t in names for most in (1, 2, 3)]} for name in names}
    schema = Schema({"$defs": definitions, "$ref": "#/$defs/x"})
    value: object = 5
    for _ in range(62):
        value = {"c": value}
    started = time.process_time()
    assert not schema.is_valid(value)
    assert schema.problems(value)
    assert time.process_time() - started < 0.25


def test_explaining_a_large_value_is_bounded() -> None:
    schema = Schema({"items": {"properties": {"a": {"enum": list(range(1_000))}}}})
    value = [{"a": index % 1_000} for index in range(50_000)] + [{"a": -1}]
    started = time.process_time()
    assert schema.problems(value) == ("does not fit the schema",)
    assert time.process_time() - started < 2


def test_a_pattern_runs_in_linear_time() -> None:
    schema = Schema({"pattern": "^(a+)+$"})
    started = time.process_time()
    assert not schema.is_valid("a" * 50_000 + "b")
    assert time.process_time() - started < 0.5
    assert schema.is_valid("aaa")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
TYPES = ("integer", "number", "string", "boolean", "null", "array", "object")


@settings(max_examples=150, deadline=None)
@given(json_values, st.sampled_from(TYPES), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True))
def test_problems_are_named_exactly_when_a_value_does_not_fit(value: object, kind: str, others: list[str]) -> None:
    schema = Schema(
        {"type": others, "items": {"type": kind}, "additionalProperties": {"anyOf": [{"type": kind}, {"type": "null"}]}}
    )
    found = schema.problems(value)
    assert (found == ()) is schema.is_valid(value)
    assert "does not fit the schema" not in found
