"""`garrison new` makes projects whose tests pass, replaces nothing, and has the examples as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from garrison import ConfigurationError, __version__
from garrison.cli import main
from garrison.cli import new as module
from garrison.cli.new import TEMPLATES, make

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "src" / "garrison" / "cli" / "templates"
COPIES = [name for name in TEMPLATES if name != "quickstart"]

pytestmark = pytest.mark.app


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_tests_of_a_new_project_pass(template: str, place: Path) -> None:
    made = make("my-server", template, place)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GARRISON"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=made, env=environment, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_an_attack_that_goes_through_is_seen(place: Path) -> None:
    made = make("my-server", "quickstart", place)
    server = made / "server.py"
    careless = "return path.read_text()", "return (folder / str(path)).read_text()"
    text = server.read_text().replace(*careless).replace("path: Document", "path: str")
    server.write_text(text)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=made, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "test_nothing_else_is_read" in done.stdout


def test_what_is_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my-server"]) == 0
    made = place / "my-server"
    assert files(made) == {
        ".gitignore",
        "README.md",
        "documents/welcome.md",
        "pyproject.toml",
        "server.py",
        "tests/test_server.py",
    }
    said = capsys.readouterr().out
    assert "cd my-server" in said and "uv run pytest" in said and "uv run garrison run server.py" in said
    assert not any("@NAME@" in (made / name).read_text() for name in files(made))
    assert 'Server("my-server"' in (made / "server.py").read_text()


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_project_says_which_garrison(template: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tomllib.loads((make("here", template, place) / "pyproject.toml").read_text())
    assert here["project"]["name"] == "here"
    assert here["tool"]["uv"]["sources"]["garrison"] == {"path": ROOT.as_posix(), "editable": True}

    monkeypatch.setattr(module, "_source_tree", lambda: None)
    there = tomllib.loads((make("there", template, place) / "pyproject.toml").read_text())
    assert "sources" not in there["tool"]["uv"]
    (needs,) = there["project"]["dependencies"]
    extras = needs.removeprefix("garrison[").removesuffix(f"]>={__version__}").split(",")
    assert set(extras) <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_a_copy_elsewhere_is_no_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, found in ((None, False), ("not [ toml", False), ('[project]\nname = "x"', False)):
        if text is not None:
            (tmp_path / "pyproject.toml").write_text(text)
        monkeypatch.setattr(module, "__file__", str(tmp_path / "src" / "garrison" / "cli" / "new.py"))
        assert (module._source_tree() is not None) == found
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "garrison"')
    assert module._source_tree() == tmp_path


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/tmp/x", "a b", "-x", "x-", "1x", "x.y", "é", "x\n", 'x"y', "x" * 65, "~", "$(id)"],
)
def test_names_that_are_none(name: str, place: Path) -> None:
    with pytest.raises(ConfigurationError, match="the name: letters"):
        make(name, "quickstart", place / "within")
    assert not list(place.iterdir())


@pytest.mark.parametrize("name", ["garrison", "Garrison", "pytest", "msgspec", "jsonschema_rs"])
def test_names_of_what_a_project_needs(name: str, place: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose another one"):
        make(name, "quickstart", place)
    assert not list(place.iterdir())


def test_nothing_is_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = place / "there"
    there.mkdir()
    (there / "server.py").write_text("mine")
    (place / "file").write_text("mine")
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to(place / "elsewhere")
    for name in ("there", "file", "link"):
        assert main(["new", name]) == 2
        assert "nothing was changed" in capsys.readouterr().err
    assert files(place) == {"there/server.py", "file"}
    assert (there / "server.py").read_text() == (place / "file").read_text() == "mine"
    (place / "empty").mkdir()
    assert main(["new", "empty"]) == 0


def test_a_disk_that_is_full(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "make", full)
    assert main(["new", "x"]) == 2
    assert capsys.readouterr().err == "garrison: cannot make x: No space left on device\n"


def test_a_template_that_is_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "x", "--from", "nothing"]) == 2
    assert "quickstart" in capsys.readouterr().err and not files(place)


def test_the_help_lists_the_templates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in TEMPLATES)


@pytest.mark.parametrize("name", COPIES)
def test_a_template_is_the_example(name: str) -> None:
    example, copy = ROOT / "examples" / f"{name}.py", FOLDER / name / "server.py.txt"
    assert copy.read_text() == example.read_text(), f"cp {example.relative_to(ROOT)} {copy.relative_to(ROOT)}"


def test_every_template_is_a_folder_that_is_packed() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(TEMPLATES)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"] == {"packages": ["src/garrison"]}  # with everything in it
    assert "/src" in build["sdist"]["include"]
    ignored = subprocess.run(["git", "check-ignore", "--", *map(str, FOLDER.rglob("*"))], cwd=ROOT, capture_output=True)
    assert ignored.stdout == b"" and ignored.returncode in (1, 128)  # what git ignores, a wheel leaves out
