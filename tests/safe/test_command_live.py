"""SafeCommand in a server's tools, attacked over HTTP; and a twin that hands the same texts to a shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from garrison import Client, Server
from garrison.safe.command import CommandTimeout, SafeArgument, SafeCommand
from tests.safe.programs import program

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeCommand needs POSIX")]

TOKEN = "t" * 20


def servers(folder: Path) -> tuple[Server, Server]:
    """One whose tools look for a word and count lines, by a `SafeCommand`; and its twin, by a shell."""
    grep = SafeCommand(
        SafeCommand.find("grep"),
        {"find": ["-n", "-e", "{word}", "notes"], "count": ["-c", "{word}", "notes"]},
        slots={"word": str},
        cwd=folder,
    )
    (folder / "notes").write_text("a; id\nplain\n-v\n")
    safe, twin = Server("safe"), Server("twin")

    @safe.tool()
    async def find(operation: Literal["find", "count"], word: str) -> str:
        return (await grep.run(operation, word=word)).stdout

    @safe.tool()
    async def typed(word: SafeArgument) -> str:
        return (await grep.run("find", word=str(word))).stdout

    @twin.tool(name="find")
    def careless(operation: Literal["find", "count"], word: str) -> str:
        option = "-n" if operation == "find" else "-c"
        line = f"grep {option} {word} notes"
        return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, stdin=-3).stdout

    return safe, twin


async def call(server: Server, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Over HTTP: whether it is an error, and the text."""
    async with server.http(port=0, token=TOKEN) as serving:
        async with Client(serving.url, token=TOKEN) as client:
            result = await client.call_tool(tool, arguments)
            return bool(result.is_error), "".join(getattr(each, "text", "") for each in result.content)


@pytest.mark.attack("ATK-132")
@pytest.mark.parametrize(
    "word",
    [
        "x; touch canary;",
        "$(touch canary)",
        "`touch canary`",
        "x\ntouch canary\n",
        "x notes | touch canary;",
        "a notes && touch canary #",
        "x || touch canary #",
        "x > canary #",
        "''; touch canary; ''",
        "%PATH% & touch canary",
        "x\0; touch canary",
    ],
)
async def test_what_a_shell_would_run_is_text(tmp_path: Path, word: str) -> None:
    safe, twin = servers(tmp_path)
    failed, said = await call(safe, "find", operation="find", word=word)
    assert not (tmp_path / "canary").exists()
    assert said == "" if not failed else "canary" not in said
    assert failed == bool(re.search(r"[\n\0]", word))
    if "\0" not in word:  # the shell's own twin takes no NUL
        await call(twin, "find", operation="find", word=word)
        assert (tmp_path / "canary").exists()


@pytest.mark.attack("ATK-132")
async def test_such_texts_are_found_where_they_stand(tmp_path: Path) -> None:
    safe, _ = servers(tmp_path)
    assert await call(safe, "find", operation="find", word="a; id") == (False, "1:a; id\n")
    assert await call(safe, "typed", word="plain") == (False, "2:plain\n")
    assert await call(safe, "find", operation="count", word="plain") == (False, "1\n")


@pytest.mark.attack("ATK-133")
@pytest.mark.parametrize("word", ["--file=secret", "-fsecret", "--include=*", "@secret"])
async def test_options_are_refused(tmp_path: Path, word: str) -> None:
    """`grep -f` reads its words from a file: lines of the notes that are in the secret show what stands in it."""
    (tmp_path / "secret").write_text("plain\n")
    safe, twin = servers(tmp_path)
    for operation in ("find", "count"):
        failed, said = await call(safe, "find", operation=operation, word=word)
        rule = "@" if word[0] == "@" else "a dash"
        assert failed and said == f"grep: {operation}: slot 'word' must not begin with {rule}"
    failed, said = await call(safe, "typed", word=word)
    assert failed and "must not begin with" in said and word not in said
    if "secret" in word and word[0] == "-":
        assert await call(twin, "find", operation="find", word=word) == (False, "2:plain\n")


async def test_operations_that_are_not_written_down_do_not_exist(tmp_path: Path) -> None:
    made = SafeCommand("/usr/bin/printf", {"hello": ["hello"]})
    server = Server("s")

    @server.tool()
    async def act(operation: str) -> str:
        return (await made.run(operation)).stdout

    assert await call(server, "act", operation="hello") == (False, "hello")
    failed, said = await call(server, "act", operation="rm -rf /")
    assert failed and said == "printf: no such operation; there are: hello"


async def test_a_time_out_is_told_to_the_model(tmp_path: Path) -> None:
    made = SafeCommand(program(tmp_path, "time.sleep(60)"), {"wait": []}, timeout=0.3)
    server = Server("s")

    @server.tool()
    async def act() -> str:
        return (await made.run("wait")).stdout

    assert await call(server, "act") == (True, "tool wait did not end within 0.3 s")
    with pytest.raises(CommandTimeout):
        await made.run("wait")
