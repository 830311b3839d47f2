"""The front at a terminal, at a terminal."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from garrison.host.consent import Consent
from garrison.host.console import terminal
from garrison.host.fields import read_field
from garrison.host.labels import EVERYTHING, Label
from garrison.host.questions import (
    Always,
    CallQuestion,
    FormQuestion,
    Review,
    ToolsQuestion,
    UrlQuestion,
    Verdict,
)
from tests.host.screen import PROMPT, Screen

pytest.importorskip("pty")

NO = Verdict(False)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("NO_COLOR", "1")
    made = Screen()
    yield made
    made.close()


def call(**arguments: object) -> CallQuestion:
    return CallQuestion(
        server="files",
        tool="files.write",
        arguments=arguments,
        labels=Label.DESTRUCTIVE,
        sources=("web.get (untrusted)",),
        hints={"readOnlyHint": True},
    )


@pytest.mark.parametrize("typed", ["y\n", "yes\n", " YES \n", "Y\n"])
async def test_yes(screen: Screen, typed: str) -> None:
    assert await screen.answers(call(path="/a"), typed) == Verdict(True)


@pytest.mark.parametrize("typed", ["n\n", "no\n", "\n", "   \n", "\x04"])
async def test_no_is_the_default(screen: Screen, typed: str) -> None:
    assert await screen.answers(call(path="/a"), typed) == NO


async def test_what_is_neither_is_asked_again_and_then_a_no(screen: Screen) -> None:
    asking = screen.ask(call())
    for _ in range(6):
        await screen.wait_for(PROMPT)
        screen.type("yess\n")
    await screen.wait_for("That is a no.")
    assert await asking == NO
    asking = screen.ask(call())
    await screen.wait_for(PROMPT)
    screen.type("j\n")
    await screen.wait_for(PROMPT)
    screen.type("y\n")
    assert await asking == Verdict(True)


async def test_all_of_a_question_is_shown(screen: Screen) -> None:
    asking = screen.ask(call(path="/a/\u202egpj.sh", text="\x1b[2Jhi\nthere"))
    shown = await screen.wait_for(PROMPT)
    for words in ("Call files.write?", "<U+202E>", "web.get (untrusted)", "destructive", "unverified", "readOnlyHint"):
        assert words in shown
    assert "\x1b" not in shown and "\u202e" not in shown and "hi\\nthere" in shown
    screen.type("n\n")
    await asking


async def test_colours_are_for_people(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    asking = screen.ask(call(text="\x1b[31mred"))
    shown = await screen.wait_for(PROMPT)
    assert set(re.findall(r"\x1b\[\d*m", shown)) == {"\x1b[1m", "\x1b[2m", "\x1b[0m"}
    screen.type("n\n")
    await asking


async def test_a_long_question_shows_its_size_and_its_end_and_takes_no_yes_before_all_was_shown(screen: Screen) -> None:
    text = "A" * 60_000 + "MIDDLE" + "A" * 39_980 + "; rm -rf / #HARM"
    asking = screen.ask(call(text=text))
    shown = await screen.wait_for(PROMPT)
    assert f"({len(text)} characters)" in shown and "HARM" in shown and "MIDDLE" not in shown
    assert "characters not shown" in shown and len(shown) < 3000 and "s = show all" in shown
    for early in ("y\n", "a\n"):
        screen.type(early)
        assert "Not all of it" in await screen.wait_for(PROMPT)
    screen.type("s\n")
    shown = await screen.wait_for(PROMPT)
    assert "MIDDLE" in shown and len(shown) > len(text) and "s = show all" not in shown
    screen.type("y\n")
    assert await asking == Verdict(True)


async def test_many_arguments_are_a_long_question(screen: Screen) -> None:
    asking = screen.ask(call(**{f"a{number}": number for number in range(500)}))
    shown = await screen.wait_for(PROMPT)
    assert "lines not shown" in shown and "a0: 0" in shown and "unverified" in shown and "a250" not in shown
    screen.type("s\n")
    assert "a250: 250" in await screen.wait_for(PROMPT)
    screen.type("n\n")
    assert await asking == NO


async def test_what_was_typed_before_the_question_answers_nothing(screen: Screen) -> None:
    screen.type("y\ny\ny\n")
    await asyncio.sleep(0.02)
    asking = screen.ask(call())
    await screen.wait_for(PROMPT)
    await asyncio.sleep(0.05)
    assert not asking.done()
    screen.type("n\n")
    assert await asking == NO


async def test_a_yes_that_is_not_ended_is_none(screen: Screen) -> None:
    asking = screen.ask(call())
    await screen.wait_for(PROMPT)
    screen.type("y\x04")  # the line is handed over without its end
    await asyncio.sleep(0.05)
    assert not asking.done()
    screen.type("\x04")
    assert await asking == NO


@pytest.mark.parametrize(
    ("typed", "seconds"), [("\n", 3600), ("30m\n", 1800), ("8 h\n", 28_800), ("30d\n", 2_592_000), ("2\n", 7200)]
)
async def test_always_asks_how_long(screen: Screen, typed: str, seconds: float) -> None:
    assert await screen.answers(call(path="*"), "a\n", typed) == Verdict(True, Always(seconds=seconds))


async def test_always_without_a_span_is_a_no(screen: Screen) -> None:
    assert await screen.answers(call(), "always\n", "31d\n", "forever\n", "0m\n") == NO
    assert await screen.answers(call(), "a\n", "\x04") == NO


async def test_always_is_for_calls_alone(screen: Screen) -> None:
    question = UrlQuestion(server="mail", message="hi", url="https://example.com/a", host="example.com")
    asking = screen.ask(question)
    shown = await screen.wait_for(PROMPT)
    assert "always" not in shown and "https://example.com/a" in shown
    screen.type("a\n")
    await screen.wait_for(PROMPT)
    screen.type("y\n")
    assert await asking == Verdict(True)


async def test_a_servers_lines_do_not_look_like_the_hosts(screen: Screen) -> None:
    message = "hello\nCall files.read?\n  ! nothing to fear\u2028y = yes\r\nx"
    asking = screen.ask(UrlQuestion(server="mail", message=message, url="https://e.com", host="e.com"))
    shown = (await screen.wait_for(PROMPT)).replace("\r", "").splitlines()
    assert not any(re.match(r"[\s!]*(Call files|nothing to fear|y = yes)", line) for line in shown[:-1])
    assert any(r'"hello\nCall files.read?\n  ! nothing to fear' in line for line in shown[:-1])
    screen.type("n\n")
    await asking


def tools(*names: str) -> ToolsQuestion:
    reviews = tuple(Review(name=name, definition={"name": name}, digest="sha256:0") for name in names)
    return ToolsQuestion(server="files", tools=reviews)


async def test_tools_are_approved_together_or_some_of_them(screen: Screen) -> None:
    question = tools("files.read", "files.write", "files.list")
    assert await screen.answers(question, "y\n") == Verdict(True)
    for typed in ("1 3\n", "files.read, 3\n", "1,files.list\n"):
        verdict = await screen.answers(question, "p\n", typed)
        assert verdict == Verdict(True, tools=frozenset({"files.read", "files.list"}))
    assert await screen.answers(question, "p\n", "\n") == NO
    assert await screen.answers(question, "p\n", "4\n", "0\n", "files\n") == NO


FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Your\n name", "description": "as \x1b[1mprinted"},
        "size": {"type": "string", "enum": ["s", "m"]},
        "count": {"type": "integer"},
        "note": {"type": "string"},
        "sure": {"type": "boolean", "default": True},
    },
    "required": ["name", "size", "count"],
}


async def test_a_form_is_filled_in_field_by_field(screen: Screen) -> None:
    question = FormQuestion(server="shop", message="Order?", schema=FORM)
    verdict = await screen.answers(question, "y\n", "Ann\n", "xl\n", "m\n", "many\n", "3\n", "\n", "\n")
    assert verdict == Verdict(True, edited={"name": "Ann", "size": "m", "count": 3})  # no default is sent unasked
    assert "\x1b" not in screen.seen and "Your name" in screen.seen and "choose one of s, m" in screen.seen
    for typed in (["n\n"], ["y\n", "\x04"], ["y\n", "\n", "\n", "\n"]):
        assert await screen.answers(question, *typed) == NO


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        ("a", {}, "a"),
        ("No", {"type": "boolean"}, False),
        ("-4", {"type": "integer"}, -4),
        ("1.5", {"type": "number"}, 1.5),
        ("b", {"oneOf": [{"const": "a"}, {"const": "b"}]}, "b"),
        ("a, b", {"type": "array", "items": {"enum": ["a", "b"]}}, ["a", "b"]),
        ("", {"type": "array", "items": {"anyOf": [{"const": "a"}]}}, []),
    ],
)
def test_a_field_is_of_its_type(text: str, rule: Mapping[str, object], value: object) -> None:
    assert read_field(text, rule) == value


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        *(("nan", {"type": "number"}), ("1e999", {"type": "number"}), ("x", {"type": "integer"})),
        *(("", {}), ("maybe", {"type": "boolean"}), ("c", {"enum": ["a"]}), ("1" * 5000, {"type": "integer"})),
        ("a, c", {"type": "array", "items": {"enum": ["a"]}}),
    ],
)
def test_a_field_of_another_type_is_none(text: str, rule: Mapping[str, object]) -> None:
    with pytest.raises(ValueError, match=r"please|needed|answer|choose"):
        read_field(text, rule)


async def test_without_a_terminal_nobody_is_asked(screen: Screen) -> None:
    class Closed(io.StringIO):
        def isatty(self) -> bool:
            raise ValueError("closed")

    for source in (io.StringIO("y\n"), Closed()):
        approve: Any = terminal(input=source, output=screen.output)
        assert await approve(call()) == NO
    approve = terminal(input=screen.input, output=io.StringIO())
    assert await approve(call()) == NO


async def test_a_question_that_is_taken_back_gives_the_terminal_back(screen: Screen) -> None:
    consent = Consent(terminal(input=screen.input, output=screen.output), patience=0.1)
    asking = asyncio.ensure_future(consent.ask(call()))
    await screen.wait_for("Nobody waits for the answer")
    assert await asking == NO
    screen.type("y\n")  # too late, and nothing to the next question
    await asyncio.sleep(0.02)
    again = asyncio.ensure_future(Consent(terminal(input=screen.input, output=screen.output)).ask(call()))
    await screen.wait_for(PROMPT)
    await asyncio.sleep(0.02)
    assert not again.done()
    screen.type("y\n")
    assert await again == Verdict(True)


async def test_a_screen_that_cannot_show_a_letter_is_told_its_number(screen: Screen) -> None:
    plain = os.fdopen(os.dup(screen.output.fileno()), "w", encoding="ascii")
    approve: Any = terminal(input=screen.input, output=plain)
    asking = asyncio.ensure_future(approve(call(path="/д")))
    assert "/\\u0434" in await screen.wait_for(PROMPT)
    screen.type("y\n")
    assert await asking == Verdict(True)
    plain.close()


async def test_the_danger_of_a_conversation_is_said_first(screen: Screen) -> None:
    question = CallQuestion(server="a", tool="a.b", arguments={}, labels=EVERYTHING, reasons=("because\nof this",))
    asking = screen.ask(question)
    shown = (await screen.wait_for(PROMPT)).replace("\r", "")
    assert "Call a.b?\n  ! because of this\n  arguments:" in shown
    screen.type("a\n")
    assert "asked about all the same" in await screen.wait_for(": ")
    screen.type("\n")
    assert (await asking).always == Always()
