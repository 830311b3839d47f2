"""Mirrored headers: honest ones pass, and a header that says something else than the body never does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import HeaderMismatch
from garrison.protocol.headers import (
    Mirror,
    MirrorError,
    check_name,
    check_params,
    decode_value,
    encode_value,
    mirrors,
    param_headers,
)

SAFE = 2**53 - 1


def schema(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


def annotated(kind: object = "string", name: object = "Region") -> dict[str, object]:
    return {"type": kind, "x-mcp-header": name}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("a\tb", "=?base64?YQli?="),
        ("in side", "in side"),
        ("", ""),
        ("=?BASE64?x?=", "=?BASE64?x?="),
        (42, "42"),
        (-7, "-7"),
        (SAFE, "9007199254740991"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_values_are_encoded_as_the_specification_shows(value: str | int | bool, text: str) -> None:
    assert encode_value(value) == text
    if isinstance(value, str):
        assert decode_value(text) == value


@given(st.text(st.characters(codec="utf-8")))
def test_every_text_survives_as_plain_ascii(value: str) -> None:
    text = encode_value(value)
    assert text.isascii()
    assert text.isprintable()
    assert text == text.strip()
    assert decode_value(text) == value


@pytest.mark.parametrize("value", [SAFE + 1, -SAFE - 1])
def test_unsafe_integers_are_not_encoded(value: int) -> None:
    with pytest.raises(ValueError, match="range"):
        encode_value(value)


@pytest.mark.parametrize(
    "text",
    [
        "=?base64?SGVsbG8?=",  # no padding
        "=?base64?SGVs!!!bG8=?=",  # alphabet
        "=?base64?SGVsbG8==?=",  # too much padding
        "=?base64?SGVsbG9=?=",  # stray bits: another spelling of the same bytes
        "=?base64?SGVs bG8=?=",
        "=?base64?SGVsbG8=\n?=",
        "=?base64?-_-_?=",  # the URL alphabet
        "=?base64?/w==?=",  # not UTF-8
        "=?base64?7aCA?=",  # a surrogate
        "=?base64?é?=",
        "plain é",
        "line\nbreak",
        "nul\0",
        "\x7f",
    ],
)
def test_malformed_header_values_are_refused(text: str) -> None:
    with pytest.raises(HeaderMismatch):
        decode_value(text)


@pytest.mark.parametrize(
    "text", ["SGVsbG8=", "=?base64?SGVsbG8=", "SGVsbG8=?=", "=?Base64?SGVsbG8=?=", "=?base64?=", "a\tb"]
)
def test_text_without_both_markers_is_literal(text: str) -> None:
    assert decode_value(text) == text


def test_mirrors_of_a_schema() -> None:
    found = mirrors(
        schema(
            region=annotated(),
            count=annotated("integer", "Count"),
            inner=schema(flag=annotated("boolean", "Flag")),
            plain={"type": "number"},
        )
    )
    assert found == (
        Mirror("Mcp-Param-Region", "mcp-param-region", ("region",), "string"),
        Mirror("Mcp-Param-Count", "mcp-param-count", ("count",), "integer"),
        Mirror("Mcp-Param-Flag", "mcp-param-flag", ("inner", "flag"), "boolean"),
    )


@pytest.mark.parametrize(
    "benign",
    [
        True,
        None,
        {},
        schema(a={"type": "string", "default": {"x-mcp-header": "no annotation"}}),
        schema(a={"enum": [{"x-mcp-header": ""}], "const": {"x-mcp-header": ""}, "examples": [{"x-mcp-header": ""}]}),
        schema(**{"x-mcp-header": {"type": "number"}}),
        {"$defs": {"x-mcp-header": {"type": "number"}}},
    ],
)
def test_what_only_looks_like_an_annotation_is_none(benign: object) -> None:
    assert mirrors(benign) == ()


@pytest.mark.parametrize("name", ["", "two words", "a:b", "größe", "a\r\nb", "a\n", "a\0", 5, None, True, ["a"]])
def test_names_that_are_no_field_names_are_refused(name: object) -> None:
    with pytest.raises(MirrorError, match=r"region.*field name"):
        mirrors(schema(region=annotated(name=name)))


@pytest.mark.parametrize("kind", ["number", "object", "array", "null", ["string", "null"], None, "String"])
def test_types_that_cannot_be_mirrored_are_refused(kind: object) -> None:
    with pytest.raises(MirrorError, match="type"):
        mirrors(schema(region=annotated(kind)))
    with pytest.raises(MirrorError, match="type"):
        mirrors(schema(region={"x-mcp-header": "Region"}))


@pytest.mark.parametrize("second", ["Region", "REGION"])
def test_a_name_used_twice_is_refused(second: str) -> None:
    with pytest.raises(MirrorError, match="twice"):
        mirrors(schema(a=annotated(), b=schema(c=annotated(name=second))))


@pytest.mark.parametrize(
    "hidden",
    [
        annotated(),
        {"items": annotated()},
        {"prefixItems": [annotated()]},
        {"anyOf": [{"type": "null"}, annotated()]},
        {"oneOf": [schema(a=annotated())]},
        {"allOf": [schema(a=annotated())]},
        {"not": annotated()},
        {"if": schema(a=annotated())},
        {"then": schema(a=annotated())},
        {"else": schema(a=annotated())},
        {"$defs": {"a": annotated()}},
        {"$defs": {"a": schema(b=annotated())}},
        {"patternProperties": {"a": annotated()}},
        {"additionalProperties": annotated()},
        {"dependentSchemas": {"a": schema(b=annotated())}},
        {"x-unknown": {"deep": [annotated()]}},
        schema(a={"type": "array", "items": schema(b=annotated())}),
    ],
)
def test_annotations_that_properties_alone_do_not_reach_are_refused(hidden: dict[str, object]) -> None:
    with pytest.raises(MirrorError, match="chain"):
        mirrors(hidden)


ALL = mirrors(
    schema(
        text=annotated(name="Text"),
        number=annotated("integer", "Number"),
        inner=schema(flag=annotated("boolean", "Flag")),
    )
)


def test_a_client_sends_what_is_there_and_nothing_else() -> None:
    arguments = {"text": "", "number": -3, "inner": {"flag": False}, "other": 1}
    assert param_headers(ALL, arguments) == [
        ("Mcp-Param-Text", ""),
        ("Mcp-Param-Number", "-3"),
        ("Mcp-Param-Flag", "false"),
    ]
    assert param_headers(ALL, {"text": None, "inner": None}) == []
    assert param_headers(ALL, {"inner": "not an object", "number": 42.0}) == [("Mcp-Param-Number", "42")]
    assert param_headers(ALL, None) == []
    assert param_headers((), arguments) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": 1},
        {"text": ["a"]},
        {"number": True},
        {"number": 1.5},
        {"number": "1"},
        {"number": SAFE + 1},
        {"text": "\ud800"},
    ],
)
def test_a_client_does_not_mirror_what_does_not_fit(arguments: object) -> None:
    with pytest.raises(MirrorError, match="argument"):
        param_headers(ALL, arguments)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.none() | st.text(st.characters(codec="utf-8")),
            "number": st.none() | st.integers(-SAFE, SAFE),
            "inner": st.fixed_dictionaries({}, optional={"flag": st.none() | st.booleans()}),
        },
    )
)
def test_what_a_client_sends_a_server_accepts(arguments: dict[str, object]) -> None:
    sent = {name.lower(): value for name, value in param_headers(ALL, arguments)}
    check_params(ALL, arguments, sent.get)


@pytest.mark.parametrize("text", ["42", "42.0", "42.000", "=?base64?NDI=?="])
def test_integers_are_compared_as_numbers(text: str) -> None:
    check_params(ALL, {"number": 42}, {"mcp-param-number": text}.get)
    check_params(ALL, {"number": 42.0}, {"mcp-param-number": text}.get)


@pytest.mark.parametrize(
    "text", ["43", "4.2e1", "0x2a", "42 ", "+42", "042", "42.", "42.5", "٤٢", "", "4_2", "9" * 5000]
)
def test_other_spellings_of_an_integer_are_refused(text: str) -> None:
    with pytest.raises(HeaderMismatch):
        check_params(ALL, {"number": 42}, {"mcp-param-number": text}.get)


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"text": "a"}, {}),
        ({"text": "a"}, {"mcp-param-text": "b"}),
        ({"text": "a"}, {"mcp-param-text": "A"}),
        ({"text": "=?base64?YQ==?="}, {"mcp-param-text": "=?base64?YQ==?="}),
        ({"text": None}, {"mcp-param-text": "null"}),
        ({}, {"mcp-param-text": ""}),
        (None, {"mcp-param-text": "a"}),
        ({"inner": {"flag": True}}, {"mcp-param-flag": "True"}),
        ({"inner": {"flag": True}}, {"mcp-param-flag": "1"}),
        ({"inner": {"flag": True}}, {"mcp-param-flag": "false"}),
        ({"inner": {"flag": True}}, {}),
        ({"number": SAFE + 1}, {"mcp-param-number": str(SAFE + 1)}),
        ({"number": float("inf")}, {"mcp-param-number": "1"}),
        ({"text": ["a"]}, {"mcp-param-text": "['a']"}),
    ],
)
def test_headers_that_differ_from_the_body_are_refused(arguments: object, headers: dict[str, str]) -> None:
    with pytest.raises(HeaderMismatch):
        check_params(ALL, arguments, headers.get)


def test_headers_of_other_tools_are_ignored() -> None:
    check_params(ALL, {}, {"mcp-param-unknown": "x"}.get)


@pytest.mark.parametrize(("header", "body"), [("tool", "tool"), ("=?base64?d2VyxLk=?=", "werĹ"), ("a b", "a b")])
def test_the_name_matches(header: str, body: str) -> None:
    check_name(header, body)


@pytest.mark.parametrize(
    ("header", "body"), [(None, "tool"), ("Tool", "tool"), ("", "tool"), ("=?base64?dG9vbA?=", "tool"), ("é", "é")]
)
def test_the_name_differs(header: str | None, body: str) -> None:
    with pytest.raises(HeaderMismatch):
        check_name(header, body)


def test_messages_do_not_carry_what_a_peer_wrote() -> None:
    with pytest.raises(HeaderMismatch) as caught:
        check_name(encode_value("\x1b[31m\n世" + "x" * 1000), "\u202e" * 1000)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250
    assert (caught.value.code, caught.value.http_status) == (-32020, 400)
