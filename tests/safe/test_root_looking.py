"""SafeRoot.list, walk and glob: what is found, in which order, up to which bounds, in which time."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from garrison.safe.files import FileInfo, PathRefused
from garrison.safe.globs import Glob
from garrison.safe.root import SafeRoot
from tests.safe.roots import refusal, tree

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeRoot needs openat")]

FILES = ["a.md", "b.txt", "docs/a.md", "docs/deep/a.md", "docs/deep/er/c.md", "docs/.hidden.md", "é/[x].md", "é/y.md"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def paths(found: Iterable[FileInfo]) -> list[str]:
    return [info.path for info in found]


def test_what_is_in_a_directory_is_listed_by_name(folder: Path) -> None:
    with SafeRoot(folder) as root:
        assert paths(root.list()) == ["a.md", "b.txt", "docs", "é"]
        assert paths(root.list("docs")) == ["docs/.hidden.md", "docs/a.md", "docs/deep"]
        found = root.list()[0]
        assert found == FileInfo("a.md", False, 4, found.modified) == root.info("a.md")
        for path in ("nothing", "a.md", "a.md/x"):
            with refusal(setting=None):
                root.list(path)


def test_what_cannot_be_opened_by_its_name_is_left_out(folder: Path) -> None:
    for name in ("a\\b", "a\nb", "end.", "con", "x:y", "~", b"\xff\xfe", "a\u202eb", ".garrison-0"):
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode())
        with open(path, "w"):
            pass
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("a.md")
    with SafeRoot(folder) as root:
        assert paths(root.list()) == ["a.md", "b.txt", "docs", "é"]
        assert sorted(paths(root.walk())) == sorted([*FILES, "docs", "docs/deep", "docs/deep/er", "é"])
        assert all(root.exists(path) for path in paths(root.walk()))


def test_a_walk_goes_from_above_to_below(folder: Path) -> None:
    with SafeRoot(folder) as root:
        assert paths(root.walk()) == [
            *("a.md", "b.txt", "docs", "é", "docs/.hidden.md", "docs/a.md", "docs/deep"),
            *("docs/deep/a.md", "docs/deep/er", "docs/deep/er/c.md", "é/[x].md", "é/y.md"),
        ]
        assert paths(root.walk("docs/deep")) == ["docs/deep/a.md", "docs/deep/er", "docs/deep/er/c.md"]
        with refusal(setting=None):
            list(root.walk("nothing"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a.md", "b.txt", "docs", "é"]),
        ("*.md", ["a.md"]),
        ("a.md", ["a.md"]),
        ("?.*", ["a.md", "b.txt"]),
        ("docs/*.md", ["docs/.hidden.md", "docs/a.md"]),
        ("*/a.md", ["docs/a.md"]),
        ("**/a.md", ["a.md", "docs/a.md", "docs/deep/a.md"]),
        ("docs/**/*.md", ["docs/.hidden.md", "docs/a.md", "docs/deep/a.md", "docs/deep/er/c.md"]),
        ("**/deep/**", ["docs/deep/a.md", "docs/deep/er", "docs/deep/er/c.md"]),
        ("docs/deep/**", ["docs/deep/a.md", "docs/deep/er", "docs/deep/er/c.md"]),
        ("**/**/er/*", ["docs/deep/er/c.md"]),
        ("é/[x].md", ["é/[x].md"]),
        ("?/?.md", ["é/y.md"]),
        ("A.MD", []),
        ("nothing/*", []),
        ("a.md/*", []),
        ("docs/deep/??", ["docs/deep/er"]),
        ("d**s/a.md", ["docs/a.md"]),
    ],
)
def test_patterns(folder: Path, pattern: str, found: list[str]) -> None:
    with SafeRoot(folder) as root:
        assert paths(root.glob(pattern)) == found


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "*/../..", "~/*", "", "a//*", "*\\x", "*\0", "**/..", "C:/*"])
def test_patterns_that_lead_outside_are_refused(folder: Path, pattern: str) -> None:
    with SafeRoot(folder) as root:
        with refusal():
            root.glob(pattern)


def test_a_pattern_does_not_go_through_links(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / "up").symlink_to("..")
    (folder / "in").symlink_to("sub")
    with SafeRoot(folder) as root:
        assert paths(root.glob("*/x")) == paths(root.glob("up/*")) == paths(root.glob("**/x")) == []
        assert paths(root.glob("*/a.md")) == ["sub/a.md"]
    with SafeRoot(folder, follow="within") as root:
        assert paths(root.glob("*/x")) == paths(root.glob("up/*")) == []
        assert paths(root.glob("*/a.md")) == ["sub/a.md"]
        assert paths(root.glob("in/*.md")) == ["in/a.md"]


def test_entries_are_counted_while_they_are_looked_at(folder: Path) -> None:
    for number in range(20):
        os.mkfifo(folder / "docs" / f"{number}")  # what is left out counts
    with SafeRoot(folder, max_entries=23) as root:
        assert len(root.list("docs")) == 3
        assert len(root.list()) == 4
        said = "more than 23 entries (SafeRoot.max_entries)"
        for look in (root.walk, lambda: root.glob("**/a.md")):
            with refusal(setting="SafeRoot.max_entries", said=said):
                list(look())
        assert paths(root.glob("?.md")) == ["a.md"]
        os.mkfifo(folder / "docs" / "20")
        with refusal(setting="SafeRoot.max_entries", said=said):
            root.list("docs")


def test_what_is_too_deep_is_left_out(folder: Path) -> None:
    with SafeRoot(folder, max_depth=2) as root:
        assert paths(root.glob("**/a.md")) == ["a.md", "docs/a.md"]
        assert root.read_text("docs/deep/er/c.md") == "docs/deep/er/c.md"
    with SafeRoot(folder, max_depth=1) as root:
        assert paths(root.walk()) == ["a.md", "b.txt", "docs", "é"]


def test_what_changes_while_it_is_walked_is_left_out(folder: Path) -> None:
    with SafeRoot(folder) as root:
        walk = root.walk()
        next(walk)
        (folder / "docs").rename(folder / "renamed")
        (folder / "docs").symlink_to("renamed")
        assert paths(walk) == ["b.txt", "docs", "é", "é/[x].md", "é/y.md"]


def regex(pattern: str) -> re.Pattern[str]:
    """A pattern the plain way."""
    names = pattern.split("/")
    if names[-1] == "**":
        names.append("*")
    parts = [
        "(?:[^/]*/)*" if name == "**" else re.escape(name).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for name in names
    ]
    text = "".join(
        part + ("/" if name != "**" and number < len(names) - 1 else "")
        for number, (part, name) in enumerate(zip(parts, names, strict=True))
    )
    return re.compile(text, re.DOTALL)


NAME = st.text("ab.é", min_size=1, max_size=4)
WILD = st.text("ab.?*é", min_size=1, max_size=4) | st.just("**")


@settings(max_examples=500, deadline=None)
@given(st.lists(WILD, min_size=1, max_size=5), st.lists(NAME, min_size=1, max_size=5))
@example(["**", "a"], ["a"])
@example(["a", "**"], ["a", "b"])
@example(["**", "**", "a", "**"], ["b", "a", "a"])
def test_patterns_match_what_regular_expressions_do(pattern: list[str], names: list[str]) -> None:
    glob, text = Glob("/".join(pattern)), "/".join(names)
    state = glob.start
    for number, name in enumerate(names):
        state = glob.step(state, "/" if number else "")
        for character in name:
            state = glob.step(state, character)
    whole = glob.step(glob.start, text)
    assert whole == state
    assert glob.is_match(whole) == bool(regex("/".join(pattern)).fullmatch(text))
    if state == 0:  # nothing below it can match
        assert not regex("/".join(pattern)).fullmatch(text + "/a")


@pytest.mark.parametrize("pattern", ["*a" * 100, "?*" * 100, "**/a" * 50, "**/" * 1000 + "b", "a?" * 120 + "*" * 10])
def test_no_pattern_takes_long(pattern: str) -> None:
    begun = time.perf_counter()
    glob = Glob(pattern)
    for name in ("a" * 255, "a/" * 120, "ab" * 120):
        for _ in range(20):
            glob.step(glob.start, name)
    assert time.perf_counter() - begun < 0.5


def test_refusals_of_a_walk_are_for_the_model(folder: Path) -> None:
    with SafeRoot(folder, max_entries=1) as root, pytest.raises(PathRefused):
        list(root.walk())
