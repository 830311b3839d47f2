"""SafeRoot against paths, links, special files, hard links and mounts; and that honest files are read."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError, ToolError
from garrison.safe import openat
from garrison.safe.files import PathRefused
from garrison.safe.paths import SafePath
from garrison.safe.root import SafeRoot
from tests.safe.roots import CANARY, both_ways, opened, outside_of, refusal, tree

pytestmark = [pytest.mark.app, pytest.mark.skipif(sys.platform == "win32", reason="SafeRoot needs openat")]

is_root = pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="only root may do this")


def open_below(folder: Path) -> int:
    """How many descriptors of this process lead there."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not tell what is open")
    found = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if each_exists(each)]
    return sum(each.startswith(str(folder)) for each in found)


def each_exists(descriptor: str) -> bool:
    """The one that lists them is gone when it is asked for."""
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tree(tmp_path)


# What is read


@both_ways
@pytest.mark.parametrize("follow", ["never", "within"])
def test_files_are_read(folder: Path, way: str, follow: Any) -> None:
    (folder / "ünï").write_bytes("é\r\n".encode())
    with opened(folder, way, follow=follow) as root:
        assert root.read_text("inside.txt") == "inside"
        assert root.read_bytes(SafePath("sub/deep/b.md")) == b"b"
        assert root.read_text("ünï") == "é\r\n"
        assert root.read_text("ünï", "latin-1") == "Ã©\r\n"
        with root.open("sub/a.md") as file:
            assert (file.read(), file.info.path, file.info.size) == (b"a", "sub/a.md", 1)
        info = root.info("sub/a.md")
        assert (info.path, info.name, info.is_dir, info.size) == ("sub/a.md", "a.md", False, 1)
        assert abs(info.modified - time.time()) < 60
        assert root.info("sub").is_dir and root.exists("sub") and root.exists("inside.txt")
        for name in ("nothing", "sub/nothing", "inside.txt/x", "x" * 200, "a/" * 1000 + "a"):
            assert not root.exists(name)
            with refusal(setting=None):
                root.read_text(name)
        with refusal(setting=None, said="is a directory"):
            root.read_text("sub")
        (folder / "bad").write_bytes(b"\xff")
        with refusal(setting=None, said="is not utf-8 text"):
            root.read_text("bad")
        assert root.read_text("bad", errors="replace") == "\ufffd"


def test_a_file_is_read_up_to_its_end_whatever_it_says_of_its_size(tmp_path: Path) -> None:
    if not Path("/proc/sys/kernel").is_dir():
        pytest.skip("no files without a size here")
    with SafeRoot("/proc/sys/kernel") as root:
        assert root.info("ostype").size == 0
        assert root.read_text("ostype") == Path("/proc/sys/kernel/ostype").read_text() != ""


def test_an_open_file_is_one_for_others_to_read(folder: Path) -> None:
    import io
    import zipfile

    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("name", "content" * 1000)
    with SafeRoot(folder) as root:
        with root.open("a.zip") as file, zipfile.ZipFile(file) as archive:
            assert archive.read("name") == b"content" * 1000
        with root.open("inside.txt") as file, io.TextIOWrapper(file) as text:
            assert list(text) == ["inside"]


def test_text_that_others_wrote_says_where_it_comes_from(folder: Path) -> None:
    with SafeRoot(folder) as root:

        class Doc(SafePath, root=root):
            """A file below the root."""

        for found in (root.read_untrusted("sub/a.md"), Doc("sub/a.md").read_untrusted()):
            assert (found.value, found.source) == ("a", "file:sub/a.md")


@pytest.mark.parametrize("name", ["max_bytes", "max_entries", "max_depth"])
def test_arguments_are_checked(folder: Path, name: str) -> None:
    options: Any = {name: 0}
    with pytest.raises(ConfigurationError, match=f"SafeRoot.{name}"):
        SafeRoot(folder, **options)


def test_a_root_is_a_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folder / "nothing", folder / "inside.txt"):
        with pytest.raises(ConfigurationError, match="SafeRoot"):
            SafeRoot(path)
    wrong: Any = "always"
    with pytest.raises(ConfigurationError, match="follow"):
        SafeRoot(folder, follow=wrong)
    monkeypatch.setattr(os, "supports_dir_fd", set())
    with pytest.raises(ConfigurationError, match="Linux or macOS"):
        SafeRoot(folder)


def test_a_refusal_is_for_the_model(folder: Path) -> None:
    assert issubclass(PathRefused, ToolError)
    assert repr(SafeRoot(folder, write=True)) == f"SafeRoot({str(folder)!r}, write=True)"


def test_a_root_stays_the_directory_that_it_was(folder: Path) -> None:
    with SafeRoot(folder) as root:
        folder.rename(folder.parent / "elsewhere")
        (folder.parent / "database").rename(folder)
        assert root.read_text("inside.txt") == "inside"
        assert not root.exists("x")


def test_a_closed_root_opens_nothing_and_leaves_nothing_open(folder: Path) -> None:
    root = SafeRoot(folder)
    assert open_below(folder) == 1
    file = root.open("inside.txt")
    root.close()
    root.close()
    assert file.read() == b"inside"
    file.close()
    for call in (root.read_text, root.open, root.info, root.exists, root.list):
        with pytest.raises(ValueError, match="closed"):
            call("inside.txt")
    with SafeRoot(folder) as root, pytest.raises(PathRefused):
        root.read_text("sub")
    forgotten = SafeRoot(folder)
    del forgotten
    gc.collect()
    assert open_below(folder) == 0


@both_ways
def test_no_descriptor_is_left_by_refusals(folder: Path, way: str) -> None:
    (folder / "link").symlink_to(outside_of(folder))
    (folder / "sub" / "up").symlink_to("../..")
    os.mkfifo(folder / "fifo")
    with opened(folder, way, follow="within", max_bytes=3) as root:
        before = open_below(folder.parent)
        for path in (
            "link",
            "sub/up",
            "sub/up/database/x",
            "fifo",
            "inside.txt",
            "sub",
            "no",
            "sub/no/a",
            "inside.txt/a",
        ):
            with pytest.raises(PathRefused):
                root.read_bytes(path)
            root.exists(path)
        list(root.walk())
        assert open_below(folder.parent) == before == 1


def test_closing_while_others_read_leads_nowhere_else(folder: Path) -> None:
    """A descriptor's number is soon another's: reads that are under way keep theirs."""
    (outside_of(folder).parent / "inside.txt").write_text(CANARY)
    said: set[str] = set()
    stop = threading.Event()
    current = [SafeRoot(folder)]

    def read() -> None:
        while not stop.is_set():
            try:
                said.add(current[0].read_text("inside.txt"))
            except ValueError:
                said.add("closed")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        current[0].close()
        number = os.open(outside_of(folder).parent, os.O_RDONLY)
        current[0] = SafeRoot(folder)
        os.close(number)
    stop.set()
    for reader in readers:
        reader.join()
    assert "inside" in said and said <= {"inside", "closed"}


# Paths


@pytest.mark.attack("ATK-121")
@both_ways
@pytest.mark.parametrize(
    "path",
    [
        *("../x", "..\\x", "/etc/passwd", "C:\\x", "~", "file:///etc/passwd", "", "."),
        *("sub/../../database/x", "sub/..", "sub/deep/../../../data-secret/x", "\0", "inside.txt\0", "a\nb"),
        *("\uff0e\uff0e/database/x", "..\uff0fdatabase", "NUL", "inside.txt.", "inside.txt ", "inside.txt:x"),
    ],
)
def test_traversal_is_refused_in_the_words_for_what_is_absent(folder: Path, way: str, path: str) -> None:
    with opened(folder, way) as root:
        for call in (root.read_bytes, root.read_text, root.open, root.info, root.list, root.walk):
            with refusal():
                call(path)
        with refusal(setting=None):
            root.read_text("absent")
        assert not root.exists(path)
        assert root.read_text("inside.txt") == "inside"


@pytest.mark.attack("ATK-123")
@both_ways
@pytest.mark.parametrize("name", ["data-secret", "database"])
def test_a_sibling_with_the_same_beginning_is_outside(folder: Path, way: str, name: str) -> None:
    with opened(folder, way) as root:
        for path in (str(folder.parent / name / "x"), f"../{name}/x", f"../data/../{name}/x"):
            with refusal():
                root.read_text(path)
        with refusal(setting=None):
            root.read_text(f"{name}/x")
        (folder / name).mkdir()
        (folder / name / "x").write_text("inside")
        assert root.read_text(f"{name}/x") == "inside"


# Links


@pytest.mark.attack("ATK-124")
@both_ways
def test_no_link_is_followed(folder: Path, way: str) -> None:
    (folder / "out").symlink_to(outside_of(folder))
    (folder / "chain").symlink_to("out")
    (folder / "long").symlink_to("chain")
    (folder / "up").symlink_to("..")
    (folder / "in").symlink_to("inside.txt")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    with opened(folder, way) as root:
        for path in ("out", "chain", "long", "up", "up/database/x", "up/data/inside.txt", "in", "loop", "dangling"):
            for call in (root.read_bytes, root.open, root.info, root.list):
                with refusal(setting="SafeRoot.follow"):
                    call(path)
        assert {info.name for info in root.list()} == {"inside.txt", "sub"}
        assert root.read_text("inside.txt") == "inside"


@pytest.mark.attack("ATK-124")
@both_ways
def test_followed_links_stay_within(folder: Path, way: str) -> None:
    leading_out = {"out": str(outside_of(folder)), "absolute": str(folder / "inside.txt"), "up": "..", "chain": "out"}
    leading_out |= {"far": "../database/x", "sub/up": "../..", "sub/around": "../../data/inside.txt"}
    within = {"in": "inside.txt", "twice": "in", "dir": "sub/deep", "sub/deep/back": "../../inside.txt", "here": "."}
    within |= {"slash": "sub/deep/", "dots": "sub/./deep/../a.md", "sub/above": "..", "loop": "loop2", "loop2": "loop"}
    for name, target in (leading_out | within).items():
        (folder / name).symlink_to(target)
    with opened(folder, way, follow="within") as root:
        for path in (
            "out",
            "absolute",
            "up",
            "up/database/x",
            "far",
            "sub/up",
            "sub/up/database/x",
            "sub/around",
            "chain",
        ):
            with refusal():
                root.read_text(path)
        for path in ("loop", "loop/x"):
            with refusal():
                root.read_text(path)
        for path in (
            "in",
            "twice",
            "sub/deep/back",
            "dir/back",
            "here/inside.txt",
            "sub/above/in",
            "here/here/here/in",
        ):
            assert root.read_text(path) == "inside", path
        assert root.read_text("dir/b.md") == root.read_text("slash/b.md") == "b"
        assert root.read_text("dots") == "a"
        assert [info.path for info in root.list("slash")] == ["slash/b.md", "slash/back"]
        named = {info.name: info.is_dir for info in root.list()}
        directories, files = ("sub", "dir", "here", "slash"), ("inside.txt", "in", "twice", "dots")
        assert named == dict.fromkeys(directories, True) | dict.fromkeys(files, False)
        assert {info.path for info in root.walk() if info.name == "b.md"} == {"sub/deep/b.md"}
        with refusal(setting=None, said="is a directory"):
            root.read_text("here")


@both_ways
def test_a_chain_of_links_has_an_end(folder: Path, way: str) -> None:
    (folder / "l0").symlink_to("inside.txt")
    for number in range(1, 60):
        (folder / f"l{number}").symlink_to(f"l{number - 1}")
    with opened(folder, way, follow="within") as root:
        assert root.read_text("l30") == "inside"
        with refusal():
            root.read_text("l50")


# Special files


@pytest.mark.attack("ATK-125")
@both_ways
def test_special_files_are_refused_at_once(folder: Path, way: str) -> None:
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the address of a socket is short
        server.bind("socket")
        os.chdir(here)
    begun = time.monotonic()
    with opened(folder, way) as root:
        for path in ("fifo", "socket"):
            for call in (root.read_bytes, root.open, root.info):
                with refusal():
                    call(path)
            assert not root.exists(path)
            with refusal(setting=None):
                root.list(path)
        assert [info.name for info in root.list()] == ["inside.txt", "sub"]
        assert root.read_text("inside.txt") == "inside"
    assert time.monotonic() - begun < 5


@pytest.mark.attack("ATK-125")
@is_root
@both_ways
def test_devices_are_refused(folder: Path, way: str) -> None:
    os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    os.mknod(folder / "none", 0o60666, os.makedev(250, 250))
    with opened(folder, way) as root:
        for path in ("zero", "none"):
            for call in (root.read_bytes, root.open, root.info):
                with refusal():
                    call(path)
        assert root.read_text("inside.txt") == "inside"


@pytest.mark.attack("ATK-125")
@both_ways
@pytest.mark.parametrize(("follow", "setting"), [("never", "SafeRoot.follow"), ("within", "")])
def test_the_environment_is_not_read_through_a_link(folder: Path, way: str, follow: Any, setting: str) -> None:
    (folder / "env").symlink_to("/proc/self/environ")
    (folder / "fd").symlink_to("/dev/fd/0")
    with opened(folder, way, follow=follow) as root:
        for path in ("env", "fd"):
            with refusal(setting=setting):
                root.read_bytes(path)
        assert root.read_text("inside.txt") == "inside"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_links_of_proc_are_refused_by_the_kernel_and_by_the_walk() -> None:
    for way in ("kernel", "walk"):
        with opened(Path("/proc/self"), way, follow="within") as root:
            for path in ("exe", "cwd/pyproject.toml", "root/etc/passwd", "fd/0"):
                with pytest.raises(PathRefused):
                    root.read_bytes(path)
            assert root.read_bytes("comm")


@pytest.mark.attack("ATK-125")
@both_ways
def test_a_huge_file_is_refused_before_it_is_read(folder: Path, way: str) -> None:
    with open(folder / "sparse", "wb") as file:
        file.truncate(10 * 1024**3)
    begun = time.monotonic()
    with opened(folder, way) as root:
        for call in (root.read_bytes, root.read_text, root.open):
            with refusal(setting="SafeRoot.max_bytes", said="is larger than 4194304 bytes (SafeRoot.max_bytes)"):
                call("sparse")
        assert root.info("sparse").size == 10 * 1024**3
    assert time.monotonic() - begun < 2


def test_the_size_is_counted_while_it_is_read(folder: Path) -> None:
    said = "is larger than 6 bytes (SafeRoot.max_bytes)"
    with SafeRoot(folder, max_bytes=6) as root:
        assert root.read_text("inside.txt") == "inside"
        for read in (lambda file: file.read(), lambda file: file.read(7), lambda file: list(file)):
            with root.open("inside.txt") as file:
                assert file.read(6) == b"inside"
                assert file.read() == b""
                with open(folder / "inside.txt", "ab") as more:
                    more.write(b"more")
                file.seek(0)
                with refusal(setting="SafeRoot.max_bytes", said=said):
                    read(file)
            (folder / "inside.txt").write_text("inside")
    if Path("/proc/sys/kernel").is_dir():  # files there say 0 bytes
        with SafeRoot("/proc/sys/kernel", max_bytes=3) as root:
            with refusal(setting="SafeRoot.max_bytes", said="is larger than 3 bytes (SafeRoot.max_bytes)"):
                root.read_bytes("ostype")


# Hard links and mounts


@pytest.mark.attack("ATK-126")
@both_ways
def test_a_file_with_another_name_is_refused_unless_that_is_allowed(folder: Path, way: str) -> None:
    os.link(outside_of(folder), folder / "hard")
    with opened(folder, way) as root:
        for call in (root.read_bytes, root.open, root.info):
            with refusal(setting="SafeRoot.hard_links"):
                call("hard")
        assert "hard" not in {info.name for info in root.list()}
        assert root.read_text("inside.txt") == "inside"
    with opened(folder, way, hard_links=True) as root:
        assert root.read_text("hard") == CANARY
        assert "hard" in {info.name for info in root.list()}


@pytest.mark.attack("ATK-126")
@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no other mount to try")
@both_ways
@pytest.mark.parametrize("follow", ["never", "within"])
def test_other_mounts_are_outside(way: str, follow: Any) -> None:
    with opened(Path("/"), way, follow=follow) as root:
        for path in ("proc/version", "proc", "proc/self/environ"):
            with refusal():
                root.info(path)
        assert root.info("bin").is_dir if follow == "within" else root.info("etc").is_dir
    with opened(Path("/proc"), way, follow=follow) as root:
        assert root.read_bytes("version")


@pytest.mark.attack("ATK-126")
@is_root
@pytest.mark.skipif(sys.platform != "linux", reason="bind mounts are Linux's")
@both_ways
def test_a_bind_mount_of_the_same_device_is_outside(folder: Path, way: str) -> None:
    (folder / "bound").mkdir()
    (folder / "bound.txt").touch()
    outside = outside_of(folder)
    mounts = [(outside.parent, folder / "bound"), (outside, folder / "bound.txt")]
    for source, target in mounts:
        done = subprocess.run(["mount", "--bind", source, target], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mounting here; test_other_mounts_are_outside covers it: {done.stderr}")
    try:
        assert (folder / "bound" / "x").stat().st_dev == folder.stat().st_dev
        with opened(folder, way) as root:
            for path in ("bound/x", "bound", "bound.txt"):
                with refusal():
                    root.info(path)
            with refusal():
                root.read_bytes("bound/x")
            with refusal():
                root.list("bound")
            assert not any(info.path.startswith("bound/") for info in root.walk())
            assert root.read_text("inside.txt") == "inside"
    finally:
        for _, target in mounts:
            subprocess.run(["umount", target], check=True)


# The system says no


@is_root
@both_ways
def test_what_may_not_be_read_looks_absent(folder: Path, way: str) -> None:
    (folder / "inside.txt").chmod(0)
    (folder / "sub").chmod(0)
    with opened(folder, way) as root:
        os.seteuid(65534)
        try:
            for path in ("inside.txt", "sub/a.md"):
                with refusal():
                    root.read_text(path)
        finally:
            os.seteuid(0)
        assert root.read_text("inside.txt") == "inside"


def test_a_kernel_without_openat2_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat, "_OPENAT2", 100_000)
    with SafeRoot(folder) as root:
        assert isinstance(root._opener, openat.Walk)
        assert root.read_text("inside.txt") == "inside"
