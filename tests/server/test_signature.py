"""Signatures: what is published is enforced, nothing is coerced, and what cannot be expressed does not register."""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from garrison.errors import InternalError, InvalidArguments, InvalidParams, RegistrationError
from garrison.protocol.schema import Schema
from garrison.protocol.types import CallToolResult, ImageContent, TextContent
from garrison.server.docstrings import parse
from garrison.server.forms import elicit_schema, elicit_value
from garrison.server.results import ToolOutput
from garrison.server.signature import Signature

SECRET = "hunter2-do-not-repeat"


class Context:
    pass


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Place(TypedDict):
    name: str


class Pair(NamedTuple):
    left: int
    right: str


class Node(msgspec.Struct):
    value: int
    kids: list[Node] = []


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: the first
            of both
        b (int): the second
    """
    return a + b


def sign(fn: Callable[..., object], **options: object) -> Signature:
    return Signature.of(fn, name="t", **options)  # pyright: ignore[reportArgumentType] - options of several types


def refused(signature: Signature, arguments: object) -> tuple[str, ...]:
    with pytest.raises(InvalidArguments) as caught:
        signature.bind(arguments)  # pyright: ignore[reportArgumentType] - peers send anything
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.problems


def test_a_function_is_published() -> None:
    signature = sign(add)
    assert signature.description == "Adds two numbers."
    assert signature.input_schema == {
        "type": "object",
        "properties": {
            "a": {"description": "the first of both", "type": "integer"},
            "b": {"description": "the second", "type": "integer"},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    assert signature.bind({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert not signature.is_async


@pytest.mark.parametrize("value", ["1", True, 1.0, 1.5, None, [1], SECRET])
def test_nothing_is_coerced(value: object) -> None:
    signature = sign(add)
    assert refused(signature, {"a": value, "b": 2})[0].startswith("a: must be")
    assert signature.bind({"a": 1, "b": 2}) == {"a": 1, "b": 2}


def test_coercion_is_there_for_those_who_ask() -> None:
    assert sign(add, strict=False).bind({"a": "1", "b": 2}) == {"a": 1, "b": 2}


@pytest.mark.parametrize("key", ["verbose", "ctx", "self", "__class__", "_meta"])
def test_unknown_and_injected_names_cannot_be_set(key: str) -> None:
    def tool(a: int, ctx: Context, other: Context | None = None) -> None: ...

    signature = sign(tool, inject=lambda annotation: annotation is Context)
    assert signature.injected == (("ctx", Context), ("other", Context | None))
    assert list(signature.input_schema["properties"]) == ["a"]  # pyright: ignore[reportArgumentType] - a dict
    assert refused(signature, {"a": 1, key: 1}) == (f"unknown argument '{key}'",)
    assert signature.bind({"a": 1}) == {"a": 1}


def test_absent_arguments_are_none_given() -> None:
    def tool(a: int = 3) -> None: ...

    assert sign(tool).bind(None) == {"a": 3}
    assert refused(sign(add), None) == ("a: required", "b: required")
    assert refused(sign(tool), []) == ("must be an object",)


def everything(
    a: Annotated[int, Meta(ge=1, description="a bound", extra_json_schema={"x-mcp-header": "A"})],
    b: Annotated[str, "plain words"] = "x",
    point: Point | None = None,
    place: Place | None = None,
    pair: Pair | None = None,
    color: Color = Color.RED,
    day: datetime.date = datetime.date(2020, 1, 1),
    ident: uuid.UUID | None = None,
    price: decimal.Decimal = decimal.Decimal("1.5"),
    data: bytes = b"",
    both: tuple[int, str] = (1, "a"),
    some: set[int] = set(),  # noqa: B006 - each call must get its own
    choice: Literal["a", "b"] = "a",
    anything: object = None,
    node: Node | None = None,
) -> None: ...


def test_types_of_the_standard_library_are_converted() -> None:
    bound = sign(everything).bind(
        {
            "a": 1,
            "point": {"x": 1},
            "place": {"name": "here"},
            "pair": [1, "r"],
            "color": "g",
            "day": "2026-07-28",
            "ident": "12345678-1234-5678-1234-567812345678",
            "price": "2.50",
            "data": base64.b64encode(b"hi").decode(),
            "both": [2, "b"],
            "some": [1, 2],
            "anything": {"deep": [None]},
            "node": {"value": 1, "kids": [{"value": 2}]},
        }
    )
    assert bound["point"] == Point(1) and bound["pair"] == Pair(1, "r") and bound["color"] is Color.GREEN
    assert bound["day"] == datetime.date(2026, 7, 28) and bound["price"] == decimal.Decimal("2.50")
    assert bound["data"] == b"hi" and bound["both"] == (2, "b") and bound["some"] == {1, 2}
    assert bound["node"] == Node(1, [Node(2)]) and bound["anything"] == {"deep": [None]}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"a": 0}, "a: must be at least 1"),
        ({"a": 1, "point": {"x": SECRET}}, "point.x: must be an integer"),
        ({"a": 1, "point": {"x": 1, "z": 1}}, "point: unknown member 'z'"),
        ({"a": 1, "place": {"name": "x", "z": 1}}, "place: unknown member 'z'"),
        ({"a": 1, "color": SECRET}, "color: must be one of the 2 allowed values"),
        ({"a": 1, "day": SECRET}, "day: must be a date (YYYY-MM-DD)"),
        ({"a": 1, "price": "NaN"}, "price: must match the pattern of the schema"),
        ({"a": 1, "price": 1.5}, "price: must be a string"),
        ({"a": 1, "data": "!" + SECRET}, "data: does not fit its type"),
        ({"a": 1, "some": [1, 1]}, "some: must not repeat an item"),
        ({"a": 1, "both": [1, 2]}, "both[1]: must be a string"),
        ({"a": 1, "node": {"value": 1, "kids": [{"value": SECRET}]}}, "node.kids[0].value: must be an integer"),
        ({"a": 1, "node": {"value": 1.0}}, "node.value: must be int, not float"),
    ],
)
def test_what_the_schema_refuses_does_not_reach_the_function(arguments: dict[str, object], problem: str) -> None:
    signature = sign(everything)
    assert refused(signature, arguments) == (problem,)
    assert signature.bind({"a": 1})["b"] == "x"


def test_extra_keywords_descriptions_and_defaults_are_published() -> None:
    schema = sign(everything).input_schema
    members = schema["properties"]
    assert isinstance(members, dict)
    assert members["a"] == {"description": "a bound", "x-mcp-header": "A", "type": "integer", "minimum": 1}
    assert members["b"] == {"description": "plain words", "type": "string", "default": "x"}
    assert members["day"]["default"] == "2020-01-01" and members["anything"] == {"default": None}
    assert "title" not in repr(schema)
    Schema(schema)


def test_mutable_defaults_are_fresh() -> None:
    def tool(a: list[int] = [1], b: dict[str, list[int]] = {"k": []}) -> None: ...  # noqa: B006 - on purpose

    signature = sign(tool)
    first = signature.bind({})
    first["a"].append(2)  # pyright: ignore[reportAttributeAccessIssue] - a list
    first["b"]["k"].append(2)  # pyright: ignore[reportIndexIssue] - a dict
    assert signature.bind({}) == {"a": [1], "b": {"k": []}}


def test_a_default_of_none_allows_none() -> None:
    def tool(a: int = None) -> None: ...  # pyright: ignore[reportArgumentType]  # noqa: RUF013 - people write it

    assert sign(tool).bind({"a": None}) == {"a": None}


def no_annotation(a): ...
def any_number(*args: int) -> None: ...
def any_name(**options: int) -> None: ...
def positional(a: int, /) -> None: ...
def inexpressible(a: complex) -> None: ...
def undefined(a: Missing) -> None: ...  # noqa: F821 # pyright: ignore[reportUndefinedVariable] - the case
def look_around(a: Annotated[str, Meta(pattern="(?=a)b")]) -> None: ...
def returns_complex() -> complex: ...
def generator() -> object:
    yield 1


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (no_annotation, "no_annotation.*'a'.*add a type"),
        (any_number, "any_number.*'args'.*input_schema"),
        (any_name, "any_name.*'options'.*input_schema"),
        (positional, "positional.*'a'.*remove"),
        (inexpressible, "inexpressible.*'a'.*use JSON types"),
        (undefined, "undefined.*'Missing'.*module level"),
        (look_around, "look_around.*a.pattern.*linear-time"),
        (returns_complex, "return type.*output_schema="),
        (generator, "generator.*return the value"),
        (lambda *args: 1, "lambda.*'args'"),
    ],
)
def test_what_cannot_be_expressed_fails_at_registration(fn: Callable[..., object], words: str) -> None:
    with pytest.raises(RegistrationError, match=words):
        sign(fn)


def test_methods_and_coroutines() -> None:
    class Tools:
        async def find(self, q: str) -> str:
            return q

        def __call__(self, n: int) -> int:
            return n

    found = sign(Tools().find)
    assert found.is_async and found.bind({"q": "x"}) == {"q": "x"}
    assert sign(Tools()).bind({"n": 1}) == {"n": 1}


HAND: dict[str, object] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
}


def test_a_schema_by_hand_is_published_as_it_is_and_enforced() -> None:
    def named(a, ctx: Context): ...
    def whole(arguments: dict[str, object]) -> None: ...

    mine = copy.deepcopy(HAND)
    signature = sign(named, input_schema=mine, inject=lambda annotation: annotation is Context)
    mine["required"] = []
    assert signature.input_schema == HAND
    assert signature.bind({"a": 1}) == {"a": 1}
    assert refused(signature, {"a": SECRET}) == ("a: must be an integer",)
    assert refused(signature, {}) == ("a: required",)
    assert refused(signature, {"a": 1, "ctx": 1}) == ("an unknown argument",)
    assert sign(whole, input_schema=HAND).bind({"a": 1, "b": 2}) == {"arguments": {"a": 1, "b": 2}}
    for broken in ({"type": "array"}, {"type": "object", "$ref": "http://127.0.0.1:9/x"}, {**HAND, "required": []}):
        with pytest.raises(RegistrationError):
            sign(named, input_schema=broken)


def returning(annotation: object) -> Signature:
    def tool(): ...

    tool.__annotations__["return"] = annotation
    return sign(tool)


@pytest.mark.parametrize(
    ("annotation", "value", "structured", "text"),
    [
        (int, 5, b'{"result":5}', b"5"),
        (str, 'a"b', b'{"result":"a\\"b"}', b'"a\\"b"'),
        (bool, True, b'{"result":true}', b"true"),
        (float, 1.5, b'{"result":1.5}', b"1.5"),
        (float, 1, b'{"result":1}', b"1"),
        (list[Point], [Point(1)], b'{"result":[{"x":1,"y":0}]}', b'[{"x":1,"y":0}]'),
        (Literal["a"], "a", b'{"result":"a"}', b'"a"'),
        (int | None, None, b'{"result":null}', b"null"),
        (Point, Point(1, 2), b'{"x":1,"y":2}', b'{"x":1,"y":2}'),
        (Place, {"name": "n"}, b'{"name":"n"}', b'{"name":"n"}'),
        (Node, Node(1), b'{"value":1,"kids":[]}', b'{"value":1,"kids":[]}'),
        (dict[str, int], {"a": 1}, b'{"a":1}', b'{"a":1}'),
    ],
)
def test_results_are_structured(annotation: object, value: object, structured: bytes, text: bytes) -> None:
    signature = returning(annotation)
    assert signature.output_schema is not None and signature.output_schema["type"] == "object"
    assert signature.to_structured(value) == structured
    assert signature.text_of(structured) == text
    signature.check_structured(msgspec.json.decode(structured))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, SECRET),
        (int, True),
        (float, float("inf")),
        (float, float("nan")),
        (Point, {"x": SECRET}),
        (Place, {"name": "n", "more": SECRET}),
        (Literal["a"], SECRET),
        (Point, object()),
        (dict[str, int], {"a": 1.5}),
    ],
)
def test_a_result_that_breaks_its_schema_is_an_internal_error(annotation: object, value: object) -> None:
    signature = returning(annotation)
    published = signature.output_schema
    assert published is not None
    published.clear()  # what is enforced does not change with what was listed
    with pytest.raises(InternalError) as caught:
        signature.to_structured(value)
    assert caught.value.message == "Internal error"
    assert "'t' returned" in str(caught.value.detail) and SECRET not in str(caught.value.detail)


@pytest.mark.parametrize(
    "annotation",
    [
        None,
        object,
        bytes,
        TextContent,
        list[TextContent | ImageContent],
        str | ImageContent,
        ToolOutput,
        CallToolResult,
    ],
)
def test_content_publishes_no_output_schema(annotation: object) -> None:
    assert returning(annotation).output_schema is None
    assert sign(add, structured_output=False).output_schema is None
    assert sign(add).output_schema is not None


def test_an_output_schema_by_hand() -> None:
    signature = sign(add, output_schema={"type": "object", "required": ["n"]})
    assert signature.output_schema == {"type": "object", "required": ["n"]}
    assert signature.to_structured({"n": 1}) == b'{"n":1}'
    with pytest.raises(InternalError):
        signature.check_structured({})
    with pytest.raises(RegistrationError):
        sign(add, output_schema={"type": "nonsense"})


def test_prompt_arguments_are_text() -> None:
    def prompt(topic: str, n: int = 3, loud: bool = False, color: Color | None = None) -> str:
        """:param topic: what about"""
        return topic

    signature = sign(prompt)
    listed = signature.text_arguments().listed
    assert (listed[0].name, listed[0].description, listed[0].required) == ("topic", "what about", True)
    assert {a.name: a.choices for a in listed if a.choices} == {"loud": ("true", "false"), "color": ("r", "g")}
    assert signature.bind_text({"topic": "x", "n": "7", "loud": "true", "color": "g"}) == {
        "topic": "x",
        "n": 7,
        "loud": True,
        "color": Color.GREEN,
    }
    for broken in ({"n": "07"}, {"n": " 7"}, {"n": "7.0"}, {"loud": "True"}, {"color": "x"}, {"zz": "1"}, {"n": 7}):
        with pytest.raises(InvalidArguments):
            signature.bind_text({"topic": "x", **broken})

    def nested(points: list[int]) -> str: ...

    with pytest.raises(RegistrationError, match="'points'"):
        sign(nested).text_arguments()


@dataclasses.dataclass
class Form:
    name: Annotated[str, Meta(title="Name", min_length=1)]
    age: int | None
    day: datetime.date | None = None
    color: Color = Color.RED
    colors: list[Color] = dataclasses.field(default_factory=list[Color])
    letters: list[Literal["a", "b"]] = dataclasses.field(default_factory=list[Literal["a", "b"]])


def test_forms_are_flat() -> None:
    titled = [{"const": "r", "title": "RED"}, {"const": "g", "title": "GREEN"}]
    assert elicit_schema(Form) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "age": {"type": "integer"},
            "day": {"type": "string", "format": "date"},
            "color": {"type": "string", "oneOf": titled, "default": "r"},
            "colors": {"type": "array", "items": {"anyOf": titled}},
            "letters": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        },
        "required": ["name"],
    }
    assert elicit_value(Form, {"name": "n", "colors": ["g"]}) == Form("n", None, colors=[Color.GREEN])
    for broken in ({"name": ""}, {"name": "n", "age": SECRET}, {"name": "n", SECRET: 1}, {}):
        with pytest.raises(InvalidParams):
            elicit_value(Form, dict(broken))


@pytest.mark.parametrize("field", [("x", list[int]), ("x", Point), ("x", bytes), ("password", str), ("api_key", str)])
def test_forms_that_nest_or_ask_for_secrets_do_not_register(field: tuple[str, type]) -> None:
    with pytest.raises(RegistrationError, match=field[0]):
        elicit_schema(msgspec.defstruct("Bad", [field]))
    assert elicit_schema(msgspec.defstruct("Good", [("tokenizer_name", str)]))
    with pytest.raises(RegistrationError):
        elicit_schema(int)


@pytest.mark.parametrize(
    "text",
    [
        (
            "First\nparagraph.\n\nMore.\n\nArgs:\n"
            "    a: one\n      more\n    b (int, optional): two: three\n\nReturns:\n    c: no"
        ),
        (
            "First paragraph.\n\nMore.\n\nParameters\n----------\n"
            "a : int\n    one\n    more\nb\n    two: three\n\nReturns\n-------\nc\n  no"
        ),
        "First paragraph.\n\n:param a: one\n  more\n:param int b: two: three\n:returns: c: no",
    ],
)
def test_docstrings_of_three_styles(text: str) -> None:
    assert parse(text) == ("First paragraph.", {"a": "one more", "b": "two: three"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyabk"), inner, max_size=3),
    max_leaves=6,
)


def mixed(
    a: int | None = None,
    b: list[str] = [],  # noqa: B006 - as people write it
    x: dict[str, float] | None = None,
    y: Point | None = None,
) -> None: ...


def exact(a: int | None = None, b: list[str] = [], x: dict[str, float] | None = None) -> None: ...  # noqa: B006


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("abxyz"), values, max_size=4), st.sampled_from([mixed, exact]))
def test_whatever_runs_fits_the_published_schema(arguments: dict[str, object], fn: Callable[..., object]) -> None:
    signature = sign(fn)
    fits = Schema(signature.input_schema).is_valid(arguments)
    try:
        signature.bind(arguments)
    except InvalidArguments as refusal:
        assert not fits or any("not float" in problem for problem in refusal.problems)
    else:
        assert fits


def test_pydantic_types() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", x=(int, ...), day=(datetime.date, ...))

    def tool(m, n, q=pydantic.Field(3, le=5)): ...  # noqa: B008 - as people write it

    tool.__annotations__ = {
        "m": model,
        "n": Annotated[int, pydantic.Field(ge=1, description="n")],
        "q": int,
        "return": model,
    }
    signature = sign(tool)
    good = {"m": {"x": 1, "day": "2026-07-28"}, "n": 1}
    bound = signature.bind(good)
    assert bound["m"] == model(x=1, day=datetime.date(2026, 7, 28)) and bound["q"] == 3
    assert signature.to_structured(bound["m"]) == b'{"x":1,"day":"2026-07-28"}'
    assert refused(signature, {**good, "n": 0}) == ("n: must be at least 1",)
    assert refused(signature, {**good, "q": 9}) == ("q: must be at most 5",)
    assert refused(signature, {**good, "m": {"x": SECRET, "day": "2026-07-28"}}) == ("m.x: must be an integer",)
    assert refused(signature, {**good, "m": {"x": 1, "day": "2026-07-28", "z": 1}}) == ("m: unknown member 'z'",)
    assert elicit_schema(model)["required"] == ["x", "day"]
    assert elicit_value(model, {"x": 1, "day": "2026-07-28"}) == bound["m"]
