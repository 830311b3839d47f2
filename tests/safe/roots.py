"""What the tests of `SafeRoot` share: a root opened each way, and what the refusals said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from garrison import events
from garrison.safe import openat
from garrison.safe.files import PathRefused
from garrison.safe.root import SafeRoot

__all__ = ["CANARY", "both_ways", "opened", "outside_of", "refusal", "tree"]

CANARY = "canary: this lies outside the root"

both_ways = pytest.mark.parametrize("way", ["kernel", "walk"])
"""By `openat2`, and name by name."""


@contextmanager
def opened(folder: Path, way: str, **options: Any) -> Iterator[SafeRoot]:
    """A root that opens this way."""
    if way == "kernel" and sys.platform != "linux":
        pytest.skip("openat2 is Linux's")
    none = mock.patch.object(openat, "kernel", lambda root, follow: None)
    with none if way == "walk" else mock.patch.object(openat, "Walk", not_walked):
        root = SafeRoot(folder, **options)
    with root:
        yield root


def not_walked(*arguments: object, **more: object) -> openat.Opener:
    pytest.fail("openat2 is not to be had here: Linux 5.6 or newer is needed, and a container that allows it")


def tree(folder: Path) -> Path:
    """`r/data`, which is the root, with files in it; beside it what must never be read."""
    root = folder / "r" / "data"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "inside.txt").write_text("inside")
    (root / "sub" / "a.md").write_text("a")
    (root / "sub" / "deep" / "b.md").write_text("b")
    for name in ("data-secret", "database"):
        (folder / "r" / name).mkdir()
        (folder / "r" / name / "x").write_text(CANARY)
    return root


def outside_of(root: Path) -> Path:
    """A file that must never be read."""
    return root.parent / "data-secret" / "x"


@contextmanager
def refusal(*, setting: str | None = "", said: str = "no such file or directory") -> Iterator[list[events.Event]]:
    """One `PathRefused` that says this, with one event that names this setting; with no event for None."""
    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        with pytest.raises(PathRefused) as caught:
            yield heard
    finally:
        stop()
    assert str(caught.value) == said
    assert caught.value.__cause__ is None
    assert CANARY not in repr(heard)
    if setting is None:
        assert heard == []
    else:
        assert [(each.name, each.decision, each.setting) for each in heard] == [("path.refused", "refused", setting)]
