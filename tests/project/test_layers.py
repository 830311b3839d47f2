"""Rooms import downwards only, and nobody looks into another room's private modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "garrison"


def test_the_rooms_import_downwards() -> None:
    # In a process of its own: the linter configures logging for the whole of the one it runs in.
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def imports(path: Path, package: Path = SOURCES) -> Iterator[tuple[str, ...]]:
    """The modules of the package that a file imports, each as its path below the package's top."""
    here = path.relative_to(package).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == package.name)
        elif isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = here[: len(here) - node.level + 1] + module
            elif module and module[0] == package.name:
                base = module[1:]
            else:
                continue
            yield from ((*base, alias.name) for alias in node.names)


def private_visits(package: Path) -> list[str]:
    return [
        f"{path.relative_to(package)} imports {'.'.join(target)}"
        for path in sorted(package.rglob("*.py"))
        for target in imports(path, package)
        if any(part.startswith("_") and not part.endswith("__") for part in target)
        and target[:1] != path.relative_to(package).parts[:1]
    ]


def test_no_room_looks_into_the_private_modules_of_another() -> None:
    assert private_visits(SOURCES) == []


def test_a_look_into_a_private_module_would_be_found(tmp_path: Path) -> None:
    package = tmp_path / "house"
    for room in ("kitchen", "cellar"):
        (package / room).mkdir(parents=True)
    (package / "cellar" / "door.py").write_text("from ._wine import bottle\nfrom . import _shelf\n")
    assert private_visits(package) == []
    (package / "kitchen" / "cook.py").write_text("from ..cellar._wine import bottle\nimport house.cellar._shelf\n")
    assert private_visits(package) == [
        f"{Path('kitchen/cook.py')} imports cellar._wine.bottle",
        f"{Path('kitchen/cook.py')} imports cellar._shelf",
    ]
