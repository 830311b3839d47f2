"""`garrison new`: a directory with a server that runs, its tests, and what a project needs around them.

Rules of this file:
- Nothing is replaced: every file is made new, in a directory that is not there or is empty.
- Servers and their tests are files in `templates`, one folder each; `@NAME@` in them is the project's name. Those of
  `examples` are the examples themselves.
- The project asks for the Garrison that makes it: its version or, where that is a source tree, the tree.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigurationError
from .failures import OK, USAGE

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["TEMPLATES", "Template", "make", "new"]

_FOLDER: Final = Path(__file__).with_name("templates")
_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
_TAKEN: Final = frozenset({"garrison", "pytest"})
"""Names that the project's own requirements have."""


class Template(NamedTuple):
    """What a project can begin with."""

    summary: str
    """What it serves."""
    call: str
    """A first call, as words of `garrison call`; empty where somebody has to sign in first."""
    options: str = ""
    """Options of `garrison run` to try it with."""
    extras: tuple[str, ...] = ("cli",)
    """What it needs of Garrison beside the core."""


TEMPLATES: Final[dict[str, Template]] = {
    "quickstart": Template("the documents of one folder, for reading", "read_document path=welcome.md"),
    "files": Template("the files below a directory", "list_files"),
    "database": Template("a shop's database", "lookup table=products id=1", "--demo", ("cli", "sql")),
    "commands": Template("a few programs, without a shell", "version"),
    "web": Template("pages of the Web", "fetch url=https://example.com/"),
    "notes": Template("notes of several tenants, for people who sign in", "", "--http 127.0.0.1:8000 --dev"),
}
"""By name, the default first."""


def new(options: Namespace) -> int:
    """Make the directory, and say what to do with it.

    Returns:
        0 when it is made, 2 when it was not.
    """
    try:
        place = make(options.name, options.template, Path.cwd())
    except ConfigurationError as exc:
        print(f"garrison: {exc}", file=sys.stderr)
        return USAGE
    except OSError as exc:
        print(f"garrison: cannot make {options.name}: {exc.strerror or exc}", file=sys.stderr)
        return USAGE
    run = f"uv run garrison run server.py {TEMPLATES[options.template].options}".rstrip()
    print(f"{place.name} is made: {TEMPLATES[options.template].summary}. Next:\n")
    print(f"    cd {place.name}\n    uv run pytest\n    {run}\n\nREADME.md there says more.")
    return OK


def make(name: str, template: str, within: Path) -> Path:
    """Make a project.

    Args:
        name: of the directory, and of the project.
        template: one of `TEMPLATES`.
        within: the directory that it is made in.

    Returns:
        The new directory.

    Raises:
        ConfigurationError: the name is not of its form or taken, or the directory is not empty.
        OSError: something could not be written.
    """
    _check(name)
    place = within / name
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise ConfigurationError(f"{name} is there already; nothing was changed")
    for path, text in _files(name, template).items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    return place


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError("the name: letters, digits, - and _, from a letter to a letter or digit, 64 at most")
    from importlib.metadata import PackageNotFoundError, version

    plain = re.sub("[-_]+", "-", name).lower()
    try:
        taken = plain in _TAKEN or bool(version(plain))
    except PackageNotFoundError:
        return
    if taken:
        raise ConfigurationError(f"{name} is the name of a package that is installed; choose another one")


def _files(name: str, template: str) -> dict[str, str]:
    """Every file, by its path."""
    kind, folder = TEMPLATES[template], _FOLDER / template

    def filled(text: str) -> str:
        return text.replace("@NAME@", name).replace(f"examples/{template}.py", "server.py")

    files = {
        "pyproject.toml": _project(name, kind),
        "README.md": _readme(name, template, kind),
        ".gitignore": _IGNORED,
        "server.py": filled((folder / "server.py.txt").read_text("utf-8")),
        "tests/test_server.py": filled((folder / "test_server.py.txt").read_text("utf-8")),
    }
    further = folder / "further"
    if further.is_dir():
        files |= {
            path.relative_to(further).as_posix(): filled(path.read_text("utf-8"))
            for path in sorted(further.rglob("*"))
            if path.is_file()
        }
    return files


def _project(name: str, kind: Template) -> str:
    from .. import __version__

    needs = f"garrison[{','.join(kind.extras)}]"
    tree = _source_tree()
    source = ""
    if tree is None:
        needs += f">={__version__}"
    else:
        from json import dumps  # a basic string of TOML is written as JSON writes it

        path = dumps(tree.as_posix(), ensure_ascii=False)
        source = f"\n[tool.uv.sources]\ngarrison = {{ path = {path}, editable = true }}\n"
    return _PROJECT.format(name=name, summary=kind.summary, needs=needs) + source


def _source_tree() -> Path | None:
    """Where this Garrison's source tree is, if it runs from one."""
    import tomllib

    tree = Path(__file__).resolve().parents[3]
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return tree if project.get("project", {}).get("name") == "garrison" else None


def _readme(name: str, template: str, kind: Template) -> str:
    words = ["server.py", *kind.options.split()]
    lines = ["uv run pytest", f"uv run garrison run {' '.join(words)}"]
    if kind.call:
        lines += [f"{lines[-1]} --http 127.0.0.1:8000", _call(kind)]
    lines += ["uv run garrison run server.py --help", f"uv run garrison doctor {' '.join(words)}"]
    arguments = ", ".join(f'"{word}"' for word in words)
    more = _MORE[template] if template in _MORE else _HOST.format(name=name, arguments=arguments)
    return _README.format(
        name=name, summary=kind.summary, template=template, lines="\n".join(f"    {line}" for line in lines), more=more
    )


def _call(kind: Template) -> str:
    if not kind.options:
        return f"uv run garrison call server.py {kind.call}"
    return f"uv run garrison call {kind.call} -- garrison run server.py {kind.options}"


_PROJECT: Final = """\
[project]
name = "{name}"
version = "0.1.0"
description = "An MCP server: {summary}."
requires-python = ">=3.11"
dependencies = ["{needs}"]

[dependency-groups]
dev = ["pytest>=8.4"]

[tool.uv]
package = false

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
"""

_README: Final = """\
# {name}

An MCP server: {summary}. It began as `garrison new {name} --from {template}`.

{lines}

`server.py` is the server. `tests/test_server.py` has what its users rely on, and an attack that it withstands. `doctor`
shows what the server would allow.

{more}"""

_HOST: Final = """\
## In a host

A host that starts its servers is told so in a JSON file of its own:

    {{"mcpServers": {{"{name}": {{
        "command": "uv",
        "args": ["run", "--directory", "/path/to/{name}", "garrison", "run", {arguments}]
    }}}}}}
"""

_MORE: Final = {
    "notes": """\
## Sign in

`--dev` starts an authorization server for this machine, where you may be alice or bob. Sign in as one of them, and call
a tool:

    uv run garrison login http://127.0.0.1:8000/mcp --client-id notes-cli --scope notes:write
    uv run garrison call http://127.0.0.1:8000/mcp add_note text=milk key=1
""",
}
"""What the README of a template says in place of how a host starts it."""

_IGNORED: Final = """\
__pycache__/
.venv/
.pytest_cache/

# Data
*.sqlite
*.sqlite-*
*.jsonl*
"""
