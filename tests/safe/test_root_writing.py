"""SafeRoot(write=True): files are whole, private and inside; what could mislead is refused."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from garrison.safe import writing
from garrison.safe.files import PathRefused
from garrison.safe.root import SafeRoot
from tests.safe.roots import CANARY, both_ways, opened, outside_of, refusal, tree

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeRoot needs openat")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path)


@both_ways
def test_files_are_written_read_moved_and_removed(folder: Path, way: str) -> None:
    with opened(folder, way, write=True) as root:
        root.write_text("new.txt", "é\r\n")
        assert (folder / "new.txt").read_bytes() == "é\r\n".encode()
        root.write_bytes("new.txt", b"other")
        root.write_text("sub/latin", "é", "latin-1")
        assert (folder / "sub" / "latin").read_bytes() == b"\xe9"
        root.mkdir("x/y/z", parents=True)
        root.mkdir("x/y/z", parents=True, exist_ok=True)
        root.rename("new.txt", "x/y/moved")
        assert root.read_text("x/y/moved") == "other" and not root.exists("new.txt")
        root.rename("x/y", "z")
        assert root.read_text("z/moved") == "other"
        root.remove("z/moved")
        root.rmdir("z/z")
        assert root.list("z") == []
        assert {path.name for path in folder.iterdir()} == {"inside.txt", "sub", "x", "z"}


def test_what_is_made_is_private_and_what_is_replaced_keeps_its_mode(folder: Path) -> None:
    before = os.umask(0)
    try:
        with SafeRoot(folder, write=True) as root:
            root.write_text("new", "")
            root.mkdir("dir")
            (folder / "inside.txt").chmod(0o6754)
            root.write_text("inside.txt", "other")
    finally:
        os.umask(before)
    modes = {name: (folder / name).stat().st_mode & 0o7777 for name in ("new", "dir", "inside.txt")}
    assert modes == {"new": 0o600, "dir": 0o700, "inside.txt": 0o754}


def test_a_root_is_read_only_unless_it_is_said(folder: Path) -> None:
    with SafeRoot(folder) as root:
        for change in (
            lambda: root.write_text("inside.txt", "x"),
            lambda: root.write_bytes("new", b""),
            lambda: root.mkdir("new"),
            lambda: root.remove("inside.txt"),
            lambda: root.rmdir("sub"),
            lambda: root.rename("inside.txt", "new"),
        ):
            with refusal(setting="SafeRoot.write", said="is read-only (SafeRoot.write)"):
                change()
    assert (folder / "inside.txt").read_text() == "inside"


@pytest.mark.attack("ATK-121")
@pytest.mark.attack("ATK-124")
@both_ways
@pytest.mark.parametrize("follow", ["never", "within"])
def test_nothing_outside_is_written_moved_or_removed(folder: Path, way: str, follow: str) -> None:
    (folder / "out").symlink_to(outside_of(folder))
    (folder / "new").symlink_to(folder.parent / "made")
    (folder / "up").symlink_to("..")
    linked = "SafeRoot.follow" if follow == "never" else ""
    with opened(folder, way, write=True, follow=follow) as root:
        for path, setting in {
            **dict.fromkeys(("../made", "/tmp/made", "sub/../../made", ".garrison-1", "out", "new", "up"), ""),
            **dict.fromkeys(("up/made", "up/data/inside.txt"), linked),
        }.items():
            with refusal(setting=setting):
                root.write_text(path, "x")
            with refusal(setting=setting):
                root.rename(path, "free")
            if path != "up":
                with refusal(setting=setting):
                    root.remove(path)
            if path not in ("out", "new", "up"):
                with refusal(setting=setting):
                    root.rename("inside.txt", path)
                with refusal(setting=setting):
                    root.mkdir(path)
                with refusal(setting=setting):
                    root.rmdir(path)
        for path in ("out", "new", "up"):
            for change in (lambda: root.mkdir(path, exist_ok=True), lambda: root.rename("inside.txt", path)):  # noqa: B023
                with refusal(setting=None, said="exists already"):
                    change()
            with refusal(setting=None):
                root.rmdir(path)
        root.write_text("inside.txt", "written")
    assert (folder / "inside.txt").read_text() == "written"
    assert outside_of(folder).read_text() == CANARY
    assert {path.name for path in folder.parent.iterdir()} == {"data", "data-secret", "database"}
    assert {path.name for path in folder.iterdir()} == {"inside.txt", "sub", "out", "new", "up"}


@both_ways
def test_changes_go_through_links_to_directories_within(folder: Path, way: str) -> None:
    (folder / "in").symlink_to("sub")
    with opened(folder, way, write=True, follow="within") as root:
        root.write_text("in/new", "x")
        root.mkdir("in/a/b", parents=True)
        assert (folder / "sub" / "new").read_text() == "x" and (folder / "sub" / "a" / "b").is_dir()


@pytest.mark.attack("ATK-126")
def test_the_other_name_of_a_file_keeps_its_content(folder: Path) -> None:
    os.link(outside_of(folder), folder / "hard")
    with SafeRoot(folder, write=True) as root:
        for change in (lambda: root.write_text("hard", "x"), lambda: root.remove("hard")):
            with refusal(setting="SafeRoot.hard_links"):
                change()
    with SafeRoot(folder, write=True, hard_links=True) as root:
        root.write_text("hard", "x")
        assert root.read_text("hard") == "x"
    assert outside_of(folder).read_text() == CANARY


def test_special_files_stay(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with SafeRoot(folder, write=True) as root:
        for change in (
            lambda: root.write_text("fifo", "x"),
            lambda: root.remove("fifo"),
            lambda: root.rename("fifo", "x"),
        ):
            with refusal():
                change()
    assert (folder / "fifo").is_fifo()


def test_plain_words_for_what_does_not_fit(folder: Path) -> None:
    with SafeRoot(folder, write=True) as root:
        for change, said in (
            (lambda: root.write_text("sub", "x"), "is a directory"),
            (lambda: root.remove("sub"), "is a directory"),
            (lambda: root.mkdir("sub"), "exists already"),
            (lambda: root.mkdir("inside.txt", exist_ok=True), "exists already"),
            (lambda: root.rename("inside.txt", "sub/a.md"), "exists already"),
            (lambda: root.rename("sub", "sub/deep/x"), "cannot be moved there"),
            (lambda: root.rmdir("sub"), "is not empty"),
            (lambda: root.rmdir("inside.txt"), "no such file or directory"),
            (lambda: root.remove("nothing"), "no such file or directory"),
            (lambda: root.rename("nothing", "x"), "no such file or directory"),
            (lambda: root.write_text("nothing/x", "x"), "no such file or directory"),
            (lambda: root.write_text("inside.txt/x", "x"), "no such file or directory"),
            (lambda: root.mkdir("a/b"), "no such file or directory"),
            (lambda: root.write_text("x", "\ud800"), "is not utf-8 text"),
        ):
            with refusal(setting=None, said=said):
                change()
    assert {path.name for path in folder.iterdir()} == {"inside.txt", "sub"}


def test_size_is_bounded(folder: Path) -> None:
    with SafeRoot(folder, write=True, max_bytes=6) as root:
        root.write_bytes("new", b"x" * 6)
        with refusal(setting="SafeRoot.max_bytes", said="is larger than 6 bytes (SafeRoot.max_bytes)"):
            root.write_bytes("new", b"x" * 7)
        with refusal(setting="SafeRoot.max_bytes", said="is larger than 6 bytes (SafeRoot.max_bytes)"):
            root.write_text("new", "éééé")
        assert root.read_bytes("new") == b"x" * 6


def test_a_directory_is_filled_up_to_a_number(folder: Path) -> None:
    with SafeRoot(folder, write=True, max_entries=5) as root:
        for number in range(3):
            root.write_text(str(number), "")
        said = "more than 5 entries (SafeRoot.max_entries)"
        for change in (lambda: root.write_text("new", ""), lambda: root.rename("sub/a.md", "new")):
            with refusal(setting="SafeRoot.max_entries", said=said):
                change()
        root.mkdir("sub/fine")
        root.write_text("inside.txt", "replaced")
        assert len(root.list()) == 5


TWINS = [
    ("readme", "README"),
    ("straße", "STRASSE"),
    ("é", "e\u0301"),
    ("\u212b", "\xc5"),
    ("ΣΑΣ", "σας"),
    ("❤", "❤\ufe0f"),
]


@pytest.mark.parametrize(("one", "other"), [*TWINS, *((other, one) for one, other in TWINS)])
def test_a_twin_of_a_name_is_not_made(folder: Path, one: str, other: str) -> None:
    (folder / one).write_text("one")
    said = "exists already, spelled otherwise"
    with SafeRoot(folder, write=True) as root:
        for change in (
            lambda: root.write_text(other, "x"),
            lambda: root.mkdir(other),
            lambda: root.rename("inside.txt", other),
        ):
            with refusal(said=said):
                change()
        assert not root.exists(other)
        root.write_text(one, "again")
        root.write_text(f"sub/{other}", "elsewhere")
        root.rename(one, other)
        assert root.read_text(other) == "again"


def test_names_that_only_look_alike_are_no_twins(folder: Path) -> None:
    with SafeRoot(folder, write=True) as root:
        for name in ("a", "á", "а", "ab", "a-b", "x2", "x²", "f", "ﬁ"):
            root.write_text(name, name)
        assert len(root.list()) == 11
    assert writing.folded("A\u030a") == writing.folded(unicodedata.normalize("NFC", "a\u030a"))


def test_a_file_is_there_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "full")

    def fail(*arguments: object, **more: object) -> None:
        raise full

    with SafeRoot(folder, write=True) as root:
        for name in ("write", "fsync", "rename"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                with pytest.raises(OSError) as caught:
                    root.write_text("inside.txt", "x" * 1000)
                assert caught.value is full
            assert sorted(os.listdir(folder)) == ["inside.txt", "sub"]
            assert root.read_text("inside.txt") == "inside"
        pieces: list[bytes] = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: pieces.append(data) or write(fd, data[:10]))
        root.write_text("inside.txt", "x" * 95)
        assert len(pieces) == 10 and root.read_text("inside.txt") == "x" * 95


def test_a_file_is_written_under_a_name_that_nobody_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "guessed")
    (folder / ".garrison-guessed").symlink_to(folder.parent / "made")
    os.link(outside_of(folder), folder / "sub" / ".garrison-guessed")
    with SafeRoot(folder, write=True) as root:
        for path in ("new", "sub/new"):
            with refusal(setting=None, said="exists already"):
                root.write_text(path, "x")
        root.write_text("sub/deep/new", "x")
    assert outside_of(folder).read_text() == CANARY
    assert not (folder.parent / "made").exists()


def test_readers_see_the_old_content_or_the_new(folder: Path) -> None:
    contents = [letter * 100_000 for letter in "ab"]
    done = threading.Event()
    with SafeRoot(folder, write=True) as root:
        root.write_text("file", contents[0])

        def change() -> None:
            for number in range(60):
                root.write_text("file", contents[number % 2])
            done.set()

        writer = threading.Thread(target=change)
        writer.start()
        seen: set[str] = set()
        while not done.is_set():
            seen.add(root.read_text("file"))
            assert [info.name for info in root.list()] == ["file", "inside.txt", "sub"]
        writer.join()
    assert seen <= set(contents) and seen


@pytest.mark.parametrize("way", ["write", "mkdir", "rename"])
def test_only_one_of_many_makes_a_name(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, done = ("new", "New", "NEW", "nEw"), list[str]()
    listed = writing.names

    def slowly(directory: int) -> Iterator[str]:
        """Everybody has looked before anybody makes it, unless they wait for each other."""
        found = list(listed(directory))
        time.sleep(0.02)
        return iter(found)

    monkeypatch.setattr(writing, "names", slowly)
    with SafeRoot(folder, write=True) as root:
        for name in names:
            (folder / "sub" / f"from {name}").touch()
        makers: dict[str, Callable[[str], None]] = {
            "write": lambda name: root.write_text(name, ""),
            "mkdir": lambda name: root.mkdir(name),
            "rename": lambda name: root.rename(f"sub/from {name}", name),
        }

        def make(name: str) -> None:
            try:
                makers[way](name)
            except PathRefused:
                return
            done.append(name)

        threads = [threading.Thread(target=make, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(done) == 1 and root.exists(done[0])
        assert len(root.list()) == 3
