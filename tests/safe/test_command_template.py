"""Templates of commands: what becomes one argument, what is refused, and which templates are none."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import ConfigurationError
from garrison.safe.command_template import SafeArgument, Slot, SlotError, Template
from garrison.safe.parameter import Parameter, ParameterError
from garrison.safe.paths import SafePath

pytestmark = pytest.mark.app


def template(words: Sequence[str], **slots: Any) -> Template:
    made = {name: kind if isinstance(kind, Slot) else Slot(kind) for name, kind in slots.items()}
    return Template("op", words, made)


def one(word: str, value: object, kind: Any = str, *, before: tuple[str, ...] = ()) -> str:
    """The argument that a word with the slot `x` becomes."""
    return template([*before, word], x=kind).arguments({"x": value})[-1]


def refusal(word: str, value: object, kind: Any = str, *, before: tuple[str, ...] = ()) -> str:
    with pytest.raises(SlotError) as caught:
        one(word, value, kind, before=before)
    said = str(caught.value)
    assert said.startswith("slot 'x' ")
    assert not isinstance(value, str) or len(value) < 4 or value not in said
    return caught.value.rule


class Colour(enum.Enum):
    RED = "red"
    DARK = "--dark"


class Sku(Parameter):
    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_json(cls, value: object) -> Sku:
        if not str(value).startswith("SKU"):
            raise ParameterError("is no SKU")
        return cls(str(value))

    def __str__(self) -> str:
        return self.text


# What values become


def test_words_are_arguments_and_nothing_in_them_is_split() -> None:
    made = template(["log", "--max-count={count}", "a b", "{{x}}", "--", "{path}"], count=range(1, 101), path=SafePath)
    assert made.slots == ("count", "path")
    assert made.arguments({"count": 5, "path": "docs/a b.md"}) == (
        *("log", "--max-count=5", "a b"),
        *("{x}", "--", "docs/a b.md"),
    )
    assert template([]).arguments({}) == ()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (str, "a; $(id) `id` | cat %PATH% *", "a; $(id) `id` | cat %PATH% *"),
        (str, "naïve 漢字 🙂 مرحبا", "naïve 漢字 🙂 مرحبا"),
        (int, 7, "7"),
        (range(0, 10, 5), 5, "5"),
        (re.compile(r"[a-z]+"), "abc", "abc"),
        (["a", "--all"], "--all", "--all"),
        ({"x", "@y"}, "@y", "@y"),
        (Colour, "red", "red"),
        (Colour, Colour.DARK, "--dark"),
        (Sku, "SKU1", "SKU1"),
        (Sku, Sku("SKU2"), "SKU2"),
        (SafePath, SafePath("a/b"), "a/b"),
        (SafeArgument, SafeArgument("x"), "x"),
        (Slot(str, empty=True), "", ""),
        (Slot(str, at_sign=True), "@scope/name", "@scope/name"),
    ],
)
def test_a_value_that_fits_is_the_argument(kind: Any, value: object, text: str) -> None:
    assert one("{x}", value, kind) == text
    assert one("--to={x}!", value, kind) == f"--to={text}!"


def test_several_values_are_several_arguments() -> None:
    made = template(["add", "--", "{paths*}"], paths=SafePath)
    assert made.arguments({"paths": ["a", "b c", "-rf"]}) == ("add", "--", "a", "b c", "-rf")
    assert made.arguments({"paths": []}) == ("add", "--")
    loose = template(["{paths*}"], paths=str)
    for bad in ("a", ["a", "-x"], [""], [1], ["a"] * 257, {"a": 1}):
        with pytest.raises(SlotError):
            loose.arguments({"paths": bad})
    assert len(loose.arguments({"paths": ["a"] * 256})) == 256
    with pytest.raises(SlotError, match="bytes of arguments"):
        loose.arguments({"paths": ["x" * 4000] * 30})


@given(st.text(max_size=60))
def test_any_text_is_one_argument_as_it_stands_or_is_refused(text: str) -> None:
    for word, before, bare in (("{x}", (), True), ("{x}", ("--",), False), ("--to={x}", (), False)):
        harmless = bool(text) and text[0] not in ("@-+" if bare else "@")
        plain = not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)
        if harmless and plain:
            assert one(word, text, before=before) == word.replace("{x}", text)
        else:
            assert refusal(word, text, before=before).startswith("must not ")


# What is refused


@pytest.mark.attack("ATK-133")
@pytest.mark.parametrize(
    "value", ["--output=/tmp/x", "-oProxyCommand=id", "-", "--", "-1", "+:!id", "@file", "@/etc/passwd"]
)
def test_options_and_files_of_arguments_are_refused(value: str) -> None:
    for kind in (str, re.compile(".*"), SafeArgument):
        refusal("{x}", value, kind)
        assert one("{x}", "output=-x@y", kind) == "output=-x@y"  # the benign twin
    with pytest.raises(ParameterError):
        SafeArgument.from_json(value)
    after = one("{x}", value, before=("--",)) if value[0] != "@" else refusal("{x}", value, before=("--",))
    assert after in (value, "must not begin with @")


def test_a_negative_number_is_no_option_either() -> None:
    assert refusal("{x}", -5, int) == "must not begin with a dash"
    assert one("--by={x}", -5, int) == one("{x}", -5, range(-9, 9), before=("--",)).replace("", "--by=", 1) == "--by=-5"


@pytest.mark.attack("ATK-132")
@pytest.mark.parametrize(
    "value", ["a\nid", "a\0b", "\x1b[2J", "a\rb", "a\x9bb", "a\u2028b", "a\ud800", "x" * 4097, "é" * 2049, ""]
)
def test_what_no_argument_should_have_is_refused(value: str) -> None:
    for kind in (str, re.compile("(?s).*")):
        refusal("{x}", value, kind)
    with pytest.raises(ParameterError):
        SafeArgument(value)
    assert one("{x}", "x" * 4096) == "x" * 4096


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        (str, 5, "must be a text"),
        (str, None, "must be a text"),
        (str, b"x", "must be a text"),
        (int, "5", "must be a whole number"),
        (int, True, "must be a whole number"),
        (int, 5.0, "must be a whole number"),
        (int, 10**40, "must be a whole number"),
        (range(1, 101), 101, "must be a whole number from 1 to 100"),
        (range(10, 0, -5), 7, "must be a whole number from 5 to 10 in steps of 5"),
        (re.compile("[a-z]+"), "a1", "does not match its pattern"),
        (re.compile("[a-z]+"), "abc\n", "does not match its pattern"),
        (["a", "b"], "c", "must be one of: a, b"),
        (Colour, "blue", "must be one of: red, --dark"),
        (Sku, "nope", "is no SKU"),
        (Sku, 5, "must be a text"),
        (SafePath, "../x", "is not a path below the root"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_rule(kind: Any, value: object, rule: str) -> None:
    assert refusal("{x}", value, kind) == rule


def test_missing_and_further_values_are_refused_with_what_there_is() -> None:
    made = template(["{a}", "{b}"], a=str, b=str)
    with pytest.raises(SlotError, match="slot 'b' is missing"):
        made.arguments({"a": "x"})
    with pytest.raises(SlotError, match="takes values for a, b, and no other"):
        made.arguments({"a": "x", "b": "y", "evil": "z"})
    with pytest.raises(SlotError, match="no slot"):
        template(["status"]).arguments({"evil": "z"})


# What is no template


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["{"], "lone brace"),
        (["a}b"], "lone brace"),
        (["{a b}"], "lone brace"),
        (["{0}"], "lone brace"),
        (["{x!r}"], "lone brace"),
        (["{x}{x}"], "nothing between"),
        (["--{x*}"], "stands alone"),
        (["{x*}/"], "stands alone"),
        (["{x}", "{x*}"], "both"),
        (["{y}"], "no type"),
        (["-{x}"], "name of an option"),
        (["--{x}"], "name of an option"),
        (["--out{x}"], "name of an option"),
        (["a\nb"], "control character"),
        ("status", "list of texts"),
        ([1], "list of texts"),
    ],
)
def test_what_is_no_template_is_refused_when_it_is_made(words: Any, about: str) -> None:
    with pytest.raises(ConfigurationError, match=about):
        template(words, x=str)


def test_options_that_the_author_lists_may_be_chosen() -> None:
    assert template(["--{x}"], x=["short", "long"]).arguments({"x": "short"}) == ("--short",)
    assert template(["-n{x}"], x=range(1, 9)).arguments({"x": 3}) == ("-n3",)
    assert template(["--", "-{x}"], x=str).arguments({"x": "y"}) == ("--", "-y")


@pytest.mark.parametrize("kind", [float, "text", {}, [], [1], ["a\n"], range(0), re.compile(b"x"), PurePosixPath, None])
def test_what_is_no_type_of_a_slot_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError):
        Slot(kind)


def test_a_parameter_of_its_own() -> None:
    assert SafeArgument.json_schema() == {"type": "string", "minLength": 1, "maxLength": 4096}
    assert str(SafeArgument.from_json("a b")) == "a b" and SafeArgument("a") == SafeArgument("a")
    assert len({SafeArgument("a"), SafeArgument("a")}) == 1
    with pytest.raises(ParameterError):
        SafeArgument.from_json(5)
