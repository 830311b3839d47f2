"""A function that makes a server gives `garrison run` options of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from garrison import Client
from garrison.cli import main
from garrison.cli.load import Factory, find, load
from garrison.errors import ConfigurationError

from .commands import garrison, served

FILE = '''
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Optional
from garrison import Server

def serve(
    root: Path = Path("."),
    write: bool = False,
    *,
    max_size: int = 3,
    ratio: float = 0.5,
    name: str = "tests",
    mode: Literal["a", "b"] = "a",
    level: Literal[1, 2] = 1,
    host: list[str] = [],
    port: tuple[int, ...] = (1, 2),
    colour: bool = True,
    key: Optional[str] = None,
    extra: Path | None,
) -> Server:
    """Serves what it is given.

    Longer words that are not shown.

    Args:
        root: the directory, of which 100% is
            served
        write (bool): changes are allowed.
        host: whom to ask
        mode: see: there

    Returns:
        mode: not a parameter
    """
    server = Server(name, version="1.0")
    @server.tool()
    def given() -> str:
        return repr([root, write, max_size, ratio, name, mode, level, list(host), port, colour, key, extra])
    return server
'''
DEFAULTS = "[PosixPath('.'), False, 3, 0.5, 'tests', 'a', 1, [], (1, 2), True, None, None]"


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    (tmp_path / "server.py").write_text(FILE)
    return tmp_path


async def given(*words: str) -> str:
    """What the function got."""
    async with Client([sys.executable, "-P", "-m", "garrison", "run", "server.py", *words]) as client:
        (part,) = (await client.call_tool("given", {})).content
    return str(getattr(part, "text", ""))


async def test_every_type_arrives_as_what_it_is() -> None:
    words = "--root docs --write --max-size -7 --ratio=1e3 --name x --mode b --level 2 --host a --host=b --port 9"
    assert await given(*words.split(), "--no-colour", "--key", "k", "--extra", "e", "--stdio") == (
        "[PosixPath('docs'), True, -7, 1000.0, 'x', 'b', 2, ['a', 'b'], (9,), False, 'k', PosixPath('e')]"
    )


async def test_what_is_not_given_is_the_functions_own_default() -> None:
    assert await given() == DEFAULTS
    assert await given("--no-write") == DEFAULTS


async def test_over_http_beside_garrisons_own_options(place: Path) -> None:
    with served("server.py", "--max-size", "8", "--limit", "batch=1", "--name", "other", cwd=place) as (url, told):
        assert "other 1.0 serves MCP" in told
        async with Client(url, token="a-token-for-the-tests") as client:
            assert ", 8, 0.5, 'other'" in str((await client.call_tool("given", {})).content)


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_help_lists_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "server.py", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"usage: garrison {command} server.py [OPTION ...]" in text and "--http HOST:PORT" in text
    _, _, own = text.partition("options of server.py: Serves what it is given.")
    assert "--root PATH the directory, of which 100% is served (default: .)" in own
    assert "--write, --no-write changes are allowed --max-size" in own
    assert "--mode {a,b} see: there (default: a)" in own
    assert (
        "--host TEXT whom to ask (may be repeated)" in own and "--port NUMBER (default: 1, 2; may be repeated)" in own
    )
    assert "--colour, --no-colour (default: on)" in own and "Longer words" not in own


def test_help_needs_no_target_and_no_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--http", "-h"], ["-h", "--limit"]):
        assert main(["run", *words]) == 0
        assert "TARGET" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rot docs", "unrecognized arguments: --rot docs; server.py takes --root, --write/--no-write, --max-size"),
        ("more", "unrecognized arguments: more"),
        ("--roo docs", "unrecognized arguments: --roo"),
        ("--max-size 1.5", "argument --max-size: must be a whole number"),
        ("--max-size 1_0", "argument --max-size: must be a whole number"),
        ("--ratio nan", "argument --ratio: must be a number"),
        ("--mode c", "argument --mode: must be one of: a, b"),
        ("--level 3", "argument --level: must be one of: 1, 2"),
        ("--port x", "argument --port: must be a whole number"),
        ("--root=", "argument --root: must be a path"),
        ("--name", "argument --name: expected one argument"),
        ("--write=yes", "argument --write/--no-write: ignored explicit argument"),
    ],
)
def test_what_does_not_fit_is_said_by_its_name(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "server.py", *words.split()]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_what_is_required_is_asked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "server.py").write_text(
        "from garrison import Server\ndef serve(root: str, *, on: bool) -> Server:\n    return Server(root)\n"
    )
    assert main(["run", "server.py"]) == 2
    assert "the following arguments are required: --root, --on/--no-on" in capsys.readouterr().err
    assert main(["run", "server.py", "--help"]) == 0
    assert "--root TEXT (required)" in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "server.py"]) == 2


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("http: str = ''", "the parameter http would be the option --http, which is taken"),
        ("allowed_host: list[str] = []", "allowed_host would be the option --allowed-host"),
        ("help: bool = False", "help would be the option --help"),
        ("target: str = '', a: bool = False, no_a: str = ''", "no_a would be the option --no-a"),
        ("no_cache: bool = False", "no_cache: name what it allows"),
        ("root: dict[str, str] = {}", "serve(): root is of a type that no option can have"),
        ("flags: list[bool] = []", "flags is of a type"),
        ("either: int | str = 1", "either is of a type"),
        ("root=1", "serve(): root has no type"),
        ("*roots: str", "cannot be an option"),
        ("root: str = '', /", "cannot be an option"),
        ("root: 'Missing' = 1", "annotations cannot be read: name 'Missing' is not defined"),
    ],
)
def test_a_parameter_that_can_be_no_option_is_an_error_that_names_it(
    signature: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"from garrison import Server\ndef serve({signature}) -> Server:\n    return Server('x')\n"
    (place / "server.py").write_text(source)
    assert main(["run", "server.py"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("garrison: server.py: serve()")


def test_where_there_is_a_server_functions_are_functions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "server.py").write_text(FILE + "\nserver = serve(extra=None)\n")
    assert not isinstance(find("server.py"), Factory)
    assert main(["run", "server.py", "--root", "docs"]) == 2
    err = capsys.readouterr().err
    assert "unrecognized arguments: --root docs\n" in err


def test_which_function_makes_the_server(place: Path) -> None:
    both = "from __future__ import annotations\nimport garrison\nfrom garrison import Server\n"
    both += "def one() -> Server:\n    return Server('one')\n"
    (place / "one.py").write_text(both)
    assert load("one.py").info.name == "one"
    both += "def two() -> garrison.Server:\n    return Server('two')\ndef _three() -> Server: ...\n"
    (place / "server.py").write_text(both)
    with pytest.raises(ConfigurationError, match=r"choose one of server\.py:one, server\.py:two"):
        find("server.py")
    assert load("server.py:two").info.name == "two"
    with pytest.raises(ConfigurationError, match="servers there: one, two"):
        find("server.py:four")
    (place / "server.py").write_text("from garrison import Server\nfrom one import one\nserver = None\n")
    with pytest.raises(ConfigurationError, match="no server at the top"):  # a helper of another file
        find("server.py")


def test_mistakes_of_the_function_are_its_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = "from garrison import Server, ConfigurationError\ndef serve(root: str = 'x') -> Server:\n    "
    for body, said in (
        ("raise ConfigurationError('no such folder')", "garrison: no such folder\n"),
        ("return 'server'", "garrison: server.py: serve() made a str, not a server\n"),
        ("raise KeyError(root)", "garrison: server.py could not be loaded\n"),
        ("raise SystemExit('stop')", "garrison: server.py could not be loaded\n"),
    ):
        (place / "server.py").write_text(start + body + "\n")
        assert main(["run", "server.py"]) == 2
        assert capsys.readouterr().err.endswith(said)


def test_doctor_takes_them_too() -> None:
    done = garrison("doctor", "server.py", "--name", "looked-at", "--json")
    assert json.loads(done.stdout)["server"]["name"] == "looked-at", done.stderr
