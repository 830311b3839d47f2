"""The base install stays small: everything it brings is counted, transitive packages too."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 12
"""Packages of `pip install garrison`, garrison included."""


def closure(name: str) -> set[str]:
    """Every distribution that installing `name` without extras brings on this platform, `name` included."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset[str]())]
    while waiting:
        package, extras = waiting.pop()
        found.add(package)
        for text in importlib.metadata.requires(package) or []:
            need = Requirement(text)
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""})
            if wanted and canonicalize_name(need.name) not in found:
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return found


def test_the_closure_is_within_the_budget() -> None:
    packages = closure("garrison")
    assert {"garrison", "msgspec", "cryptography", "cffi"} <= packages
    assert len(packages) <= BUDGET, sorted(packages)


def test_no_optional_part_is_in_the_base_install() -> None:
    assert closure("garrison").isdisjoint({"pydantic", "rich", "orjson", "uvloop", "mcp", "starlette", "anyio"})


def test_every_dependency_has_a_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(x for part in project["optional-dependencies"].values() for x in part)]
    for requirement in wanted:
        assert re.search(re.escape(f'"{requirement}"') + r"[],]*\s+# \w", text), requirement
