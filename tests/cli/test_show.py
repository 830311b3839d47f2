"""What each kind of answer looks like: to people on a terminal, and in a pipe."""

from __future__ import annotations

import io

import pytest

from garrison import types as t
from garrison.cli import show
from garrison.cli.failures import report
from garrison.errors import (
    AuthenticationRequired,
    ClientError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    GarrisonError,
    HttpError,
    InputDeclined,
    OutputInvalid,
    ProtocolViolation,
    RemoteError,
    RequestTimeout,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard output a terminal; in the test itself, because each phase of a test gets an output of its own."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    return terminal


def result(*content: dict[str, object], **members: object) -> t.CallToolResult:
    return t.convert({"content": list(content), **members}, t.CallToolResult)


BLOB = {"uri": "a:b", "blob": "AP8b", "mimeType": "image/png"}
EVERY_KIND = result(
    {"type": "text", "text": "plain \x1b[2J"},
    {"type": "image", "data": "AP8b", "mimeType": "image/png"},
    {"type": "audio", "data": "AP8bAA==", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "a:link", "name": "linked"},
    {"type": "resource", "resource": {"uri": "a:c", "text": "embedded"}},
    {"type": "resource", "resource": BLOB},
    structuredContent={"not": "shown"},
)
SHOWN = [
    "[image/png, 3 bytes; --json has them]",
    "[audio/wav, 4 bytes; --json has them]",
    "a:link  linked",
    "embedded",
    "[image/png, 3 bytes; --json has them]",
]


def test_every_kind_of_content_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    show.show_result(EVERY_KIND)
    assert terminal.getvalue().splitlines() == [r"plain \x1b[2J", *SHOWN]


def test_every_kind_of_content_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show.show_result(EVERY_KIND)
    assert capsys.readouterr().out.splitlines() == ["plain \x1b[2J", *SHOWN]


def test_structured_content_is_shown_when_there_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    show.show_result(result(structuredContent={"a": [1]}))
    assert terminal.getvalue() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_structured_content_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show.show_result(result(structuredContent={"a": [1]}))
    assert capsys.readouterr().out == '{"a":[1]}\n'


def test_a_failed_tool_speaks_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    show.show_result(result({"type": "text", "text": "no"}, isError=True))
    assert capsys.readouterr() == ("", "no\n")


def test_bytes_of_a_resource_are_described_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    contents = t.convert({"contents": [BLOB, {"uri": "a:c", "text": "words"}]}, t.ReadResourceResult).contents
    show.show_contents(contents)
    assert terminal.getvalue() == "[image/png, 3 bytes; --json has them]\nwords\n"


def test_a_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    found = t.convert(
        {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "instructions": "Use\x1b it"},
        t.DiscoverResult,
    )
    show.show_discovery("2026-07-28", t.Implementation(name="a\x07", version="1", title="A\x07"), found)
    shown = terminal.getvalue()
    assert shown.splitlines()[0] == r"A\x07 1" and "offers      tools" in shown and r"Use\x1b it" in shown


def test_lists_say_what_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}, "c": True}}
    show.show_lists([t.Tool(name="x", input_schema={**schema, "required": ["a"]})], [], [], [])
    assert "a: integer, [b: string|null], [c]" in capsys.readouterr().out
    show.show_lists([], [], [], [])
    assert capsys.readouterr() == ("", "The server lists nothing.\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("x"), 2),
        (ConnectionFailed("x"), 3),
        (ConnectionLost("x"), 3),
        (HttpError(500, "x"), 3),
        (RemoteError(-32602, "x"), 4),
        (ProtocolViolation("x"), 4),
        (OutputInvalid("x"), 4),
        (InputDeclined("x"), 4),
        (ClientError("x"), 4),
        (RequestTimeout("tools/call", 1), 5),
        (AuthenticationRequired(401, "x"), 6),
        (AuthenticationRequired(403, "x"), 6),
    ],
)
def test_every_error_has_its_status_and_one_line(
    error: GarrisonError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, as_json=False) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("garrison: ") and err.count("\n") == 1


def test_an_error_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report(RemoteError(-32000, "first\x1b]0;evil\x07\nsecond"), as_json=False, log="")
    assert capsys.readouterr().err == "garrison: first\\x1b]0;evil\\x07 second (-32000)\n"
