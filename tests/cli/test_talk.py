"""The commands that are clients: what they print, and the statuses they end with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from garrison.cli import main

from .commands import SERVER, TOKEN, garrison, served


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    (place / "server.py").write_text(SERVER)
    return place


@pytest.fixture(scope="module")
def url(place: Path) -> Generator[str]:
    with served("server.py", cwd=place) as (url, _):
        yield url


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command in this process, which is quicker."""
    status = main(words)
    out, err = capfd.readouterr()
    return status, out, err


@pytest.fixture
def talk(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GARRISON_TOKEN", TOKEN)
    return url


@pytest.mark.parametrize("era", ["auto", "modern", "legacy"])
def test_a_call_prints_the_text(era: str, talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "call", talk, "add", "a=1", "b=2", "--era", era) == (0, "3\n", "")


@pytest.mark.parametrize("order", [["add", "--token", TOKEN, "a=1", "b=2"], ["--json-args", '{"a": 1}', "add", "b=2"]])
def test_options_may_stand_anywhere(order: list[str], talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "call", talk, *order) == (0, "3\n", "")


def test_json_is_the_whole_result_on_one_line(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "call", talk, "add", "a=1", "b=2", "--json")
    assert status == 0 and out.count("\n") == 1
    result = json.loads(out)
    assert result["structuredContent"] == {"result": 3} and result["content"] == [{"type": "text", "text": "3"}]


def test_a_tool_that_fails_is_status_1_and_says_why(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "call", talk, "fail", "text=no luck") == (1, "", "no luck\n")
    status, out, err = run(capfd, "call", talk, "fail", "text=no luck", "--json")
    assert status == 1 and json.loads(out)["isError"] is True and err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a=x", "b=2"], "a=x: must be integer"),
        (["ad", "a=1"], "did you mean add?"),
        (["add", "a=1", "--json-args", '{"a": 1}'], "'a' is given twice"),
        (["add", "--json-args", "[]"], "one JSON object"),
        (["add", "--env", "A=1"], "--env is for"),
        (["add", "--header", "nocolon"], "'Name: value'"),
    ],
)
def test_wrong_usage_is_status_2(words: list[str], said: str, talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, "call", talk, *words)
    assert status == 2 and said in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["call"], ["call", "x", "y", "--era", "old"], ["list", "x", "--timeout", "0"]]
)
def test_wrong_words_are_status_2(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, *words)
    assert status == 2 and "usage: garrison" in err and out == ""


def test_help_and_version_are_status_0(capfd: pytest.CaptureFixture[str]) -> None:
    from garrison import __version__

    assert run(capfd, "--version") == (0, f"garrison {__version__}\n", "")
    for words in (["--help"], ["call", "--help"], ["demo", "--help"]):
        status, out, err = run(capfd, *words)
        assert status == 0 and out.startswith("usage: garrison") and err == ""


def test_no_connection_is_status_3(free_port: int, talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    for target in (f"http://127.0.0.1:{free_port}/mcp", "there-is-no-such-program", "missing.py"):
        status, out, err = run(capfd, "list", target)
        assert status == 3 and "is the server running" in err.splitlines()[-1] and out == "", err
    status, out, err = run(capfd, "list", talk + "/elsewhere")
    assert status == 3 and out == ""


def test_a_server_that_dies_is_status_3_and_its_last_words_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys; sys.stdin.readline(); sys.exit('no licence')"
    status, _, err = run(capfd, "list", "--", sys.executable, "-c", program)
    assert status == 3 and "no licence" in err


def test_protocol_errors_are_status_4(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, "read", talk, "test://item/a/b")
    assert status == 4 and "-32602" in err and out == ""
    status, out, err = run(capfd, "read", talk, "test://item/a/b", "--json")
    error = json.loads(out)["error"]
    assert status == 4 and (error["kind"], error["code"], error["status"]) == ("RemoteError", -32602, 4) and err == ""


def test_no_answer_in_time_is_status_5(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, "call", talk, "slow", "seconds=20", "--timeout", "0.3")
    assert status == 5 and "--timeout" in err and err.count("\n") == 1 and out == ""


def test_a_missing_or_wrong_token_is_status_6(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    for words in ([], ["--token", "not-the-token-of-it"], ["--header", "X-Token: " + TOKEN]):
        status, out, err = run(capfd, "list", url, *words)
        assert status == 6 and "--token" in err and out == ""
    assert run(capfd, "list", url, "--token", TOKEN, "--header", "X-Other: 1")[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of a console")
def test_interrupted_is_status_130(url: str) -> None:
    command = [sys.executable, "-m", "garrison", "call", url, "slow", "seconds=20", "--progress", "--token", TOKEN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline() == "50% begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")


def test_output_that_nobody_reads_is_no_traceback(url: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "garrison", "list", url, "--json", "--token", TOKEN]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=20)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_lists(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, "list", talk)
    assert status == 0 and err == ""
    for text in ("a: integer, b: integer", "test://item/{name}", "test://bytes", "Greet somebody.", "[name]"):
        assert (text in out) is (text != "[name]")
    lists = json.loads(run(capfd, "list", talk, "--json")[1])
    assert {name: len(items) for name, items in lists.items()} == {
        "tools": 7, "resources": 2, "resourceTemplates": 1, "prompts": 1,
    }  # fmt: skip


def test_a_resource_goes_into_a_pipe_exactly_as_it_is(talk: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["read", talk, "test://text"]) == 0
    assert main(["read", talk, "test://bytes"]) == 0
    assert capfdbinary.readouterr() == (b"text without an end\x00\xff\x1b", b"")


def test_a_prompt(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "prompt", talk, "greet", "who=you")
    assert status == 0 and out == "user: Hello you\n"
    assert json.loads(run(capfd, "prompt", talk, "greet", "who=you", "--json")[1])["messages"][0]["role"] == "user"


@pytest.mark.parametrize(("era", "version"), [("modern", "2026-07-28"), ("legacy", "2025-11-25")])
def test_discover(era: str, version: str, talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "discover", talk, "--era", era)
    assert status == 0 and "tests 1.2.3" in out and version in out and "Use it for tests." in out
    found = json.loads(run(capfd, "discover", talk, "--era", era, "--json")[1])
    assert found["protocolVersion"] == version and found["serverInfo"]["name"] == "tests"


def test_progress_is_shown_as_lines_when_asked_for(talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    lines = "25% step 1\n50% step 2\n75% step 3\n"
    assert run(capfd, "call", talk, "steps", "--progress") == (0, "stepped\n", lines)
    assert run(capfd, "call", talk, "steps") == (0, "stepped\n", "")


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_questions_are_declined_without_a_terminal(era: str, talk: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "call", talk, "ask", "--era", era) == (0, "decline None\n", "")
    # A field without a default cannot be answered by defaults.
    assert run(capfd, "call", talk, "ask", "--era", era, "--yes") == (0, "decline None\n", "")


def test_every_kind_of_target(place: Path) -> None:
    expected = (0, "3\n")
    for words in (
        ["call", "server.py", "add", "a=1", "b=2"],
        ["call", "server.py:server", "add", "a=1", "b=2"],
        ["call", f"'{sys.executable}' server.py", "add", "a=1", "b=2"],
        ["call", "add", "a=1", "b=2", "--", sys.executable, "server.py"],
    ):
        done = garrison(*words, cwd=place)
        assert (done.returncode, done.stdout) == expected, done.stderr


def test_a_started_server_gets_the_variables_that_are_named(place: Path) -> None:
    def seen(*words: str) -> str:
        command = ["call", "server.py", "environment", "name=SECRET", *words]
        return garrison(*command, cwd=place, env={"SECRET": "mine"}).stdout.strip()

    assert seen() == "(not set)"
    assert seen("--env", "SECRET") == "mine"
    assert seen("--env", "SECRET=other") == "other"
    assert garrison("list", "server.py", "--env", "NOT_SET_HERE", cwd=place).returncode == 2
