"""The commands of `examples/README.md` work as they stand there, and its tables of options are the real ones."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from garrison import Client
from garrison.cli.load import Factory, find
from garrison.cli.options import parser_for
from garrison.cli.target_options import add_target_options
from tests.cli.commands import garrison

from .running import EXAMPLES, served

README = (EXAMPLES / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
RUNS = re.findall(r"^uv run garrison run (.*)$", SHELL, re.MULTILINE)
CALLS = re.findall(r"^uv run garrison (call .*)$", SHELL, re.MULTILINE)
_SECTION = re.compile(r"^## .*?\n\n\[`(\w+\.py)`\].*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = {found[1]: found[0] for found in _SECTION.finditer(README)}

pytestmark = pytest.mark.app


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that looks like the repository's root, and in which files may be made."""
    for name in ("examples", "docs"):
        (tmp_path / name).symlink_to(EXAMPLES.parent / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", RUNS)
async def test_each_starts_and_offers_tools(line: str) -> None:
    file, *words = shlex.split(line)
    if "--http" in words:
        at = words.index("--http")
        with served(Path(file), *words[:at], *words[at + 2 :]) as url:
            assert url.startswith("http://127.0.0.1:")
        return
    async with Client([sys.executable, "-P", "-m", "garrison", "run", file, *words]) as client:
        assert [tool.name async for tool in client.tools()]


# There is no repository here, and no Internet; whoever calls a running server has signed in, as in `test_notes`.
@pytest.mark.parametrize("line", [line for line in CALLS if "log " not in line and "http" not in line])
def test_each_call_is_answered(line: str) -> None:
    words = shlex.split(line)
    if "--" in words:  # `uv run` has `garrison` on its path; these tests may not
        at = words.index("--") + 1
        words[at : at + 1] = [sys.executable, "-P", "-m", "garrison"]
    done = garrison(*words)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("name", SECTIONS)
def test_its_table_lists_the_options_that_there_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    factory = find(f"examples/{name}")
    assert isinstance(factory, Factory)
    taken = {option.partition("/")[0] for option in add_target_options(parser_for("run"), factory)}
    cells = re.findall(r"^\| (`--[^|]+)", SECTIONS[name], re.MULTILINE)
    told = {option for cell in cells for option in re.findall(r"`(--[a-z-]+)", cell)}
    assert told == taken


def test_each_server_has_its_section_and_its_command() -> None:
    assert SECTIONS.keys() == {"files.py", "database.py", "commands.py", "web.py", "notes.py"}
    for name in SECTIONS:
        assert any(line.startswith(f"examples/{name}") for line in RUNS), name
