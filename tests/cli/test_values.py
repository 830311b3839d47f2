"""`name=value` words become the values that the tool's schema asks for."""

from __future__ import annotations

import pytest

from garrison import ConfigurationError
from garrison.cli.values import json_object, pairs, typed

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "deep": {"type": "boolean"},
        "tags": {"type": "array"},
        "extra": {"$ref": "#/$defs/Extra"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "maybe_text": {"type": ["string", "null"]},
        "level": {"enum": [1, 2]},
        "any": {},
        "loop": {"$ref": "#/properties/loop"},
    },
    "$defs": {"Extra": {"type": "object"}},
}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=3", "3"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("count=3", 3),
        ("count=-3", -3),
        ("ratio=3", 3),
        ("ratio=0.5", 0.5),
        ("deep=true", True),
        ('tags=["a", 1]', ["a", 1]),
        ('extra={"a": null}', {"a": None}),
        ("maybe=7", 7),
        ("maybe=null", None),
        ("maybe_text=null", "null"),
        ("level=2", 2),
        ("any=[1]", [1]),
        ("any=plain", "plain"),
        ("loop=plain", "plain"),
        ("unknown=plain", "plain"),
    ],
)
def test_a_word_is_read_as_the_schema_says(word: str, value: object) -> None:
    name = word.partition("=")[0]
    assert typed(pairs([word]), SCHEMA) == {name: value}


@pytest.mark.parametrize(
    "word", ["count=x", "count=0.5", "count=true", "deep=1", "tags={}", 'extra="a"', "ratio=1e999"]
)
def test_a_word_of_another_type_is_refused_with_the_type_it_must_be(word: str) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        typed(pairs([word]), SCHEMA)


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a=1", "a=2"]])
def test_words_that_are_no_pairs_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="argument"):
        pairs(words)


def test_json_arguments_are_one_object() -> None:
    assert json_object('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for wrong in ("[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "{", "\ud800"):
        with pytest.raises(ConfigurationError, match="--json-args"):
            json_object(wrong)
