"""SafeRoot while somebody changes the tree under it: nothing from outside is ever returned, and what is inside is.

The twin is the usual way: resolve the path, see whether it begins with the root, open it. It gives the canary away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from garrison import events
from garrison.safe.files import PathRefused
from garrison.safe.root import SafeRoot
from tests.safe.roots import CANARY, both_ways, opened

pytestmark = [
    pytest.mark.app,
    pytest.mark.attack("ATK-124"),
    pytest.mark.skipif(sys.platform == "win32", reason="SafeRoot needs openat"),
]

ROUNDS = 10_000
PATH = "dir/file"


def scene(folder: Path) -> Path:
    """A root with `dir/file`, and beside it `outside/file`."""
    for name, text in (("root/dir", "inside"), ("outside", CANARY)):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(text)
    return folder / "root"


SWAP_FILE = """
os.symlink("../../outside/file", "dir/link")
os.rename("dir/link", "dir/file")
with open("dir/new", "w") as file:
    file.write("inside")
os.rename("dir/new", "dir/file")
"""
"""The file is a link to outside for a moment."""

SWAP_DIRECTORY = """
os.rename("dir", "away")
os.symlink("../outside", "dir")
os.unlink("dir")
os.rename("away", "dir")
"""
"""The directory is renamed, and a link to outside has its name for a moment."""

SWAPS = pytest.mark.parametrize("swap", [SWAP_FILE, SWAP_DIRECTORY], ids=["file", "directory"])

_FOREVER = """
import os, signal, sys
going = [True]
signal.signal(signal.SIGTERM, lambda *_: going.clear())
print("ready", flush=True)
while going:
    for _ in range(20):
{swap}
    os.sched_yield() if hasattr(os, "sched_yield") else None
"""


@contextmanager
def swapping(swap: str, root: Path) -> Iterator[None]:
    """Another process that changes the tree all the time, and leaves it as it was."""
    code = _FOREVER.format(swap=textwrap.indent(swap, " " * 8))
    command = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None, "nobody swapped any more"
        finally:
            process.terminate()
    assert process.returncode == 0


def rounds(least: int, seen: Counter[str], *wanted: str) -> Iterator[None]:
    """So many rounds, and more of them until everything wanted was seen; not for ever."""
    until = time.monotonic() + 20
    count = 0
    while count < least or not all(seen[each] for each in wanted):
        count += 1
        yield
        if time.monotonic() > until:
            pytest.fail(f"{count} rounds: {seen}")


def usual(root: Path, path: str) -> str:
    """What is done where there is no SafeRoot."""
    whole = os.path.realpath(root / path)
    if not whole.startswith(f"{root}{os.sep}"):
        raise PathRefused("outside")
    with open(whole) as file:
        return file.read()


@SWAPS
def test_the_usual_way_gives_the_outside_away(swap: str, tmp_path: Path) -> None:
    root = Path(os.path.realpath(scene(tmp_path)))
    seen: Counter[str] = Counter()
    with swapping(swap, root):
        for _ in rounds(1, seen, CANARY):
            with suppress(PathRefused, FileNotFoundError):
                seen[usual(root, PATH)] += 1


@both_ways
@SWAPS
@pytest.mark.timeout(120)
def test_nothing_from_outside_is_read(swap: str, way: str, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    stop = events.listen(lambda event: seen.update([event.text.partition(",")[0]]))
    wanted = ("inside", "no such file or directory", "a symbolic link")
    with opened(scene(tmp_path), way) as root, swapping(swap, tmp_path / "root"):
        for _ in rounds(ROUNDS, seen, *wanted):
            try:
                seen[root.read_text(PATH)] += 1
            except PathRefused as error:
                seen[str(error)] += 1
    stop()
    assert seen.keys() == set(wanted)


@both_ways
@SWAPS
def test_nothing_from_outside_is_listed(swap: str, way: str, tmp_path: Path) -> None:
    folder = scene(tmp_path)
    (tmp_path / "outside" / "canary").touch()
    found: Counter[str] = Counter()
    with opened(folder, way, follow="within") as root, swapping(swap, folder):
        for _ in rounds(500, found, "dir", "dir/file"):
            found.update(info.path for info in root.walk())
            found.update(info.path for info in root.glob("dir/*"))
    assert not any(path.endswith("canary") for path in found), found


@both_ways
def test_nothing_outside_is_written(way: str, tmp_path: Path) -> None:
    folder = scene(tmp_path)
    done: Counter[str] = Counter()
    with opened(folder, way, write=True) as root, swapping(SWAP_DIRECTORY, folder):
        changes: dict[str, Callable[[], None]] = {
            "written": lambda: root.write_text("dir/new", "new"),
            "moved": lambda: root.rename("dir/new", "dir/moved"),
            "removed": lambda: root.remove("dir/moved"),
            "made": lambda: root.mkdir("dir/made"),
            "unmade": lambda: root.rmdir("dir/made"),
        }
        for _ in rounds(500, done, *changes, "refused"):
            for name, change in changes.items():
                try:
                    change()
                except PathRefused:
                    done["refused"] += 1
                else:
                    done[name] += 1
    assert os.listdir(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside" / "file").read_text() == CANARY
    assert [name for name in os.listdir(folder / "dir") if name.startswith(".garrison")] == []


@both_ways
def test_links_within_are_followed_while_the_tree_moves(way: str, tmp_path: Path) -> None:
    """`..` of a link, in a directory that is renamed to another depth, does not go one further up than the root."""
    folder = scene(tmp_path)
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "file").write_text(CANARY)
    (folder / "file").write_text("inside")
    (folder / "a" / "b" / "c" / "up").symlink_to("../../../file")

    deeper = 'os.rename("a/b/c", "c"); os.rename("c", "a/b/c")'
    seen: Counter[str] = Counter()
    with opened(folder, way, follow="within") as root, swapping(deeper, folder):
        for _ in rounds(3_000, seen, "inside", "refused"):
            for path in ("a/b/c/up", "c/up"):
                try:
                    seen[root.read_text(path)] += 1
                except PathRefused:
                    seen["refused"] += 1
    assert seen.keys() == {"inside", "refused"}


def test_a_file_that_grows_while_it_is_read_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    stop = threading.Event()

    def grow() -> None:
        with open(path, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * 50_000)
                if file.tell() > 2_000_000:
                    file.truncate(0)

    writer = threading.Thread(target=grow)
    writer.start()
    sizes: set[int] = set()
    refused = 0
    with SafeRoot(tmp_path, max_bytes=1_000_000) as root:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                sizes.add(len(root.read_bytes("log")))
            except PathRefused:
                refused += 1
    stop.set()
    writer.join()
    assert refused and max(sizes) <= 1_000_000
