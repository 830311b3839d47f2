"""SafeArchive against archives that climb out, link out, lie or swell; and that honest ones are unpacked whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import ConfigurationError, ToolError
from garrison.safe.archives import ArchiveMember, ArchiveRefused, SafeArchive, decompress
from garrison.safe.root import SafeRoot

HONEST = {"a.txt": b"one", "d/b.bin": bytes(range(256)) * 40, "d/e/empty": b"", "d/日本.txt": "é".encode() * 999}
MIB = 1024 * 1024


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **more: Any) -> bytes:
    """A zip file as Python writes it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method, **more) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def zip_of(*members: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    """A zip file of members with attributes of their own."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return made.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w", **more: Any) -> bytes:
    """A tar file as Python writes it."""
    return tar_of(*((info(name, size=len(data)), data) for name, data in files.items()), mode=mode, **more)


def info(name: str, **more: Any) -> tarfile.TarInfo:
    """The header of a tar member."""
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def tar_of(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w", **more: Any) -> bytes:
    """A tar file of these headers."""
    made = io.BytesIO()
    opened: Any = tarfile.open
    with opened(fileobj=made, mode=mode, **more) as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))
    return made.getvalue()


def refusal(data: bytes, **caps: int) -> str:
    """Why an archive is refused, whichever way it is read."""
    said: set[str] = set()
    for read in (SafeArchive.members, SafeArchive.read_all):
        try:
            read(SafeArchive(data, **caps))
        except ArchiveRefused as error:
            said.add(str(error))
    assert len(said) == 1, said
    return said.pop()


@pytest.fixture
def root(tmp_path: Path) -> SafeRoot:
    (tmp_path / "in").mkdir()
    return SafeRoot(tmp_path / "in", write=True)


# What is honest is unpacked


@pytest.mark.parametrize(
    "make",
    [
        zipped,
        lambda files: zipped(files, zipfile.ZIP_STORED),
        lambda files: tarred(files),
        lambda files: tarred(files, "w:gz"),
        lambda files: tarred(files, "w:bz2"),
        lambda files: tarred(files, "w:xz"),
        lambda files: tarred(files, format=tarfile.GNU_FORMAT),
        lambda files: tarred(files, format=tarfile.USTAR_FORMAT),
        lambda files: gzip.compress(tarred(files)[:700]) + gzip.compress(tarred(files)[700:]),
    ],
    ids=["zip", "zip-stored", "tar", "tar.gz", "tar.bz2", "tar.xz", "gnu", "ustar", "tar.gz-in-two"],
)
def test_what_is_honest_is_unpacked(make: Callable[[dict[str, bytes]], bytes], root: SafeRoot, tmp_path: Path) -> None:
    data = make(HONEST)
    archive = SafeArchive(data)
    assert archive.read_all() == HONEST
    assert archive.members() == tuple(ArchiveMember(name, len(body), False) for name, body in HONEST.items())
    assert archive.read("d/b.bin") == HONEST["d/b.bin"]
    assert archive.extract(root, "x/y") == tuple(f"x/y/{name}" for name in HONEST)
    for name, body in HONEST.items():
        assert (tmp_path / "in/x/y" / name).read_bytes() == body
    with io.BytesIO(data) as file:
        assert SafeArchive(file).read_all() == HONEST
        assert not file.closed


def test_long_names_and_folders() -> None:
    name = "/".join(["folder" * 20] * 5) + "/file"
    for data in (
        zipped({name: b"x"}),
        tarred({name: b"x"}, format=tarfile.PAX_FORMAT),
        tarred({name: b"x"}, format=tarfile.GNU_FORMAT),
    ):
        assert SafeArchive(data).read(name) == b"x"
    data = tar_of(
        (info("./", type=tarfile.DIRTYPE), b""), (info("./d", type=tarfile.DIRTYPE), b""), (info("./d/f"), b"")
    )
    assert [(member.path, member.is_dir) for member in SafeArchive(data).members()] == [("d", True), ("d/f", False)]


def test_a_zip_file_that_was_written_to_a_pipe_and_one_with_wide_lengths() -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1000)
        with archive.open("b", "w", force_zip64=True) as file:
            file.write(b"y" * 10)
    assert SafeArchive(pipe.data).read_all() == {"a": b"x" * 1000, "b": b"y" * 10}


def test_an_honest_archive_may_be_large() -> None:
    files = {f"part/{number}": os.urandom(1000) + bytes(4000) for number in range(900)}
    files["big"] = os.urandom(MIB) * 10
    for data in (zipped(files), tarred(files, "w:gz")):
        assert SafeArchive(data).read_all() == files


def test_a_file_that_is_there_already_is_kept(root: SafeRoot, tmp_path: Path) -> None:
    (tmp_path / "in/d").mkdir()
    (tmp_path / "in/d/b.bin").write_bytes(b"mine")
    archive = SafeArchive(zipped(HONEST))
    with pytest.raises(ToolError, match="already"):
        archive.extract(root)
    assert sorted(os.listdir(tmp_path / "in")) == ["d"]
    archive.extract(root, overwrite=True)
    assert (tmp_path / "in/d/b.bin").read_bytes() == HONEST["d/b.bin"]
    with pytest.raises(ToolError, match="no such file"):
        archive.read("d")


# What leads out


OUTSIDE = ["../x", "/etc/x", "a/../../x", "..", "C:/x", "..\\x", "a//x", "~/x", "x\0y", "a/./x", "nul", "x.", "․․/x"]


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(name: str, root: SafeRoot, tmp_path: Path, caplog: Any) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    attacks = [tar_of((info("good"), b""), (info(name), b""), format=tarfile.GNU_FORMAT)] if "\0" not in name else []
    attacks.append(zip_of((zipfile.ZipInfo("good"), b""), (entry, b"")))
    for data in attacks:
        caplog.clear()
        assert "name" in refusal(data)
        with pytest.raises(ArchiveRefused):
            SafeArchive(data).extract(root)
        assert [record.event for record in caplog.records] == ["archive.refused"] * 3
        assert name in ("..", "a/./x", "x.") or name not in caplog.text
        assert os.listdir(tmp_path / "in") == []
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.app
@pytest.mark.attack("ATK-156")
def test_what_tarfile_does_without_a_filter(tmp_path: Path, root: SafeRoot) -> None:
    """The twin: the same archive writes beside its folder when it is unpacked by the standard library's old way."""
    attack = tar_of((info("../stolen", size=5), b"owned"))
    with tarfile.open(fileobj=io.BytesIO(attack)) as archive:
        archive.extractall(tmp_path / "in", filter="fully_trusted")
    assert (tmp_path / "stolen").read_bytes() == b"owned"
    (tmp_path / "stolen").unlink()
    with pytest.raises(ArchiveRefused):
        SafeArchive(attack).extract(root)
    assert not (tmp_path / "stolen").exists()


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"S"],
)
def test_links_and_devices_in_tar(kind: bytes) -> None:
    data = tar_of((info("d"), b""), (info("x", type=kind, linkname="/etc/passwd"), b""))
    if kind == tarfile.CONTTYPE:  # a regular file by another letter
        assert SafeArchive(data).read("x") == b""
    else:
        assert "neither a file nor a folder" in refusal(data)


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140755, 0o040755])
def test_links_and_devices_in_zip(mode: int) -> None:
    entry = zipfile.ZipInfo("x")
    entry.external_attr = mode << 16
    assert "neither a file nor a folder" in refusal(zip_of((entry, b"/etc/passwd")))
    entry.external_attr = 0o100644 << 16
    assert SafeArchive(zip_of((entry, b"text"))).read("x") == b"text"


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["a", "a"], "same name"),
        (["a", "A"], "differ by case"),
        (["é", "e\u0301"], "differ by case"),
        (["d/a", "D/b"], "differ by case"),
        (["ﬁ", "fi"], "differ by case"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b", "a"], "both a file and a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twins_are_refused(names: list[str], rule: str) -> None:
    for data in (
        zip_of(*((zipfile.ZipInfo(name), b"x") for name in names)),
        tar_of(*((info(name, size=1), b"x") for name in names)),
    ):
        assert rule in refusal(data)


# What swells


def resident(code: str, data: Path) -> tuple[str, int]:
    """What a program says, and how many bytes it held at most beyond those of a start."""
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from garrison.errors import GarrisonError\n"
        "from garrison.safe.archives import SafeArchive, decompress\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "before = peak()\n"
        f"try: print({code})\n"
        "except GarrisonError as error: print(error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(data)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said, held = done.stdout.strip().splitlines()
    return said, int(held)


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.skipif(sys.platform != "linux", reason="counts resident bytes as Linux does")
def test_bombs_are_stopped_early(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(256)) + packer.flush()  # zeros
    assert len(bomb) < MIB
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    said, held = resident("len(decompress(data))", path)
    assert "max_bytes" in said or "max_ratio" in said
    assert held < 40 * MIB, held

    inner = zipped({"0": bytes(15 * MIB)})
    nest = zipped({str(number): inner for number in range(16)})  # 42.zip's idea: what is inside stays packed
    assert SafeArchive(nest).read_all() == {str(number): inner for number in range(16)}
    path.write_bytes(zipped({str(number): bytes(15 * MIB) for number in range(20)}))
    said, held = resident("len(SafeArchive(data).read_all())", path)
    assert "max_ratio" in said
    assert held < 40 * MIB, held


def test_caps(root: SafeRoot) -> None:
    files = {f"{number}": os.urandom(1000) for number in range(10)}
    for data in (zipped(files), tarred(files, "w:gz")):
        assert "SafeArchive.max_members" in refusal(data, max_members=9)
        assert len(SafeArchive(data, max_members=10).members()) == 10
        assert "SafeArchive.max_member_bytes" in refusal(data, max_member_bytes=999)
        assert len(SafeArchive(data, max_member_bytes=1000).read_all()) == 10
        with pytest.raises(ArchiveRefused, match=r"SafeArchive\.max_bytes"):
            SafeArchive(data, max_bytes=9999).extract(root)
        assert list(root.walk()) == []
    deep = zipped({"a/b/c/d": b""})
    assert "SafeArchive.max_depth" in refusal(deep, max_depth=3)
    assert SafeArchive(deep, max_depth=4).members()


def test_the_ratio_counts_past_the_first_mib() -> None:
    assert len(SafeArchive(zipped({"zeros": bytes(MIB)})).read("zeros")) == MIB
    data = zipped({"zeros": bytes(2 * MIB)})
    with pytest.raises(ArchiveRefused, match="max_ratio"):
        SafeArchive(data).read("zeros")
    assert len(SafeArchive(data, max_ratio=2000).read("zeros")) == 2 * MIB


def test_a_flood_of_empty_streams_ends() -> None:
    with pytest.raises(ArchiveRefused, match="streams"):
        decompress(gzip.compress(b"") * 20_000)
    assert decompress(gzip.compress(b"x") * 5000) == b"x" * 5000


# What two readers would see differently


def changed(data: bytes, at: int, form: str, value: int) -> bytes:
    """The bytes with a number in them changed."""
    made = bytearray(data)
    struct.pack_into(form, made, at, value)
    return bytes(made)


def central(data: bytes, number: int = 0) -> int:
    """Where an entry of the directory begins."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


ONE = zipped({"name": b"x" * 100})


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (ONE.replace(b"name", b"nam2", 1), "differs from the directory"),
        (changed(ONE, 22, "<L", 99), "differs from the directory"),
        (changed(ONE, 8, "<H", 0), "differs from the directory"),
        (changed(ONE, 14, "<L", 1), "differs from the directory"),
        (changed(ONE, 6, "<H", 1), "differs from the directory"),
        (changed(ONE, central(ONE) + 8, "<H", 1), "encrypted"),
        (changed(ONE, central(ONE) + 10, "<H", 12), "another method"),
        (changed(ONE, central(ONE) + 34, "<H", 1), "several"),
        (changed(ONE, len(ONE) - 12, "<H", 0), "fewer entries|one part of several"),
        (changed(ONE, len(ONE) - 18, "<H", 1), "several"),
        (changed(ONE, len(ONE) - 6, "<L", 0), "does not lie before its end"),
        (b"#!/bin/sh\n" + ONE, "neither zip nor tar"),
        (ONE[:4] + ONE, "does not lie before its end"),
        (ONE + b"x", "no end, or more than one"),
        (ONE[:-1], "no end, or more than one"),
        (ONE[:-2] + b"\x16\0" + ONE[-22:], "no end, or more than one"),
        (b"PK\3\4", "no end"),
    ],
)
def test_zip_files_with_two_readings(data: bytes, rule: str) -> None:
    assert re.search(rule, refusal(data)), refusal(data)
    assert SafeArchive(ONE).read_all() == {"name": b"x" * 100}


def both(data: bytes, field: int, form: str, value: int) -> bytes:
    """A number of the only member changed in both its headers: `field` is its place in the local one."""
    return changed(changed(data, field, form, value), central(data) + field + 2, form, value)


def test_lengths_and_check_sums_are_those_of_the_content() -> None:
    for data in (both(ONE, 22, "<L", 99), both(ONE, 22, "<L", 101), both(ONE, 14, "<L", 1)):
        assert SafeArchive(data).members()
        with pytest.raises(ArchiveRefused, match="directory says"):
            SafeArchive(data).read_all()
    with pytest.raises(ArchiveRefused, match=r"a member of more than|directory says"):
        SafeArchive(both(ONE, 22, "<L", 0xFFFFFFFE)).read_all()


def by_hand(files: bytes, *entries: tuple[bytes, int, int, int, int]) -> bytes:
    """A zip file with a directory of these: name, check sum, packed length, length, place."""
    directory = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, packed, size, len(name), 0, 0, 0, 0, 0, place)
        + name
        for name, crc, packed, size, place in entries
    )
    count = len(entries)
    return files + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(files), 0)


@pytest.mark.app
@pytest.mark.attack("ATK-156")
def test_members_that_share_bytes() -> None:
    """Two members of one kernel: the first quotes the header of the second, and goes on with its content."""
    packer = zlib.compressobj(9, wbits=-15)
    zeros = bytes(MIB // 2)
    kernel = packer.compress(zeros) + packer.flush()
    second = (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(zeros), len(kernel), len(zeros), 1, 0) + b"b"
    )
    quote = struct.pack("<BHH", 0, len(second), len(second) ^ 0xFFFF)
    crc, packed, size = zlib.crc32(second + zeros), len(quote + second + kernel), len(second + zeros)
    first = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, packed, size, 1, 0) + b"a"
    files = first + quote + second + kernel
    one = (b"a", crc, packed, size, 0)
    two = (b"b", zlib.crc32(zeros), len(kernel), len(zeros), len(first + quote))
    # Alone, each is an honest member.
    assert SafeArchive(by_hand(files, one)).read("a") == second + zeros
    assert SafeArchive(by_hand(files, two)).read("b") == zeros
    assert "share bytes" in refusal(by_hand(files, one, two))
    assert "same name" in refusal(by_hand(files, one, one))
    assert "in the directory" in refusal(by_hand(first + quote, one))


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (tarred({"a": b"x"})[:1024], "ends too early"),
        (tarred({"a": b"x"})[:513], "ends too early"),
        (tarred({"a": b"x"}) + tarred({"b": b"y"}), "behind its end"),
        (gzip.compress(tarred({"a": b"x"}), mtime=0) + b"more", "damaged"),
        (gzip.compress(tarred({"a": b"x"}), mtime=0)[:-3], "too early"),
        (tar_of((info("a", size=1, pax_headers={"size": "2"}), b"x"), format=tarfile.PAX_FORMAT), "two lengths"),
        (tar_of((info("a", pax_headers={"GNU.sparse.major": "1"}), b"")), "in pieces"),
        (tar_of((info("a"), b""), format=tarfile.PAX_FORMAT, pax_headers={"path": "b"}), "about all members"),
        (tar_of((info("a", pax_headers={"comment": "x" * 70_000}), b"")), "about one member"),
        (b"x" * 2048, "neither zip nor tar"),
        (b"", "neither zip nor tar"),
    ],
)
def test_tar_files_with_two_readings(data: bytes, rule: str) -> None:
    assert rule in refusal(data)


def test_a_tar_header_that_was_changed() -> None:
    data = tarred({"a": b"x", "b": b"y"})
    assert "damaged" in refusal(data[:1024] + b"c" + data[1025:])
    negative = bytearray(tarred({"a": b""}))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 256 + sum(negative[156:512]))
    assert "not of its form" in refusal(bytes(negative))


# One compressed file


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_one_compressed_file(pack: Callable[[bytes], bytes]) -> None:
    data = os.urandom(100_000)
    assert decompress(pack(data)) == data
    assert decompress(pack(data) + pack(data)) == data + data
    for broken in (pack(data)[:-2], pack(data) + b"x", b"x" + pack(data), pack(data)[:500] + b"x" * 500):
        with pytest.raises(ArchiveRefused):
            decompress(broken)
    with pytest.raises(ArchiveRefused, match=r"decompress\.max_bytes"):
        decompress(pack(data), max_bytes=99_999)


def test_xz_that_wants_much_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 128 * MIB, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    greedy = lzma.compress(b"x", filters=filters)
    with pytest.raises(ArchiveRefused, match="memory"):
        decompress(greedy)
    assert decompress(lzma.compress(b"x", preset=9)) == b"x"


@pytest.mark.parametrize("caps", [{"max_members": 0}, {"max_bytes": -1}, {"max_ratio": 1.5}, {"max_depth": True}])
def test_caps_that_are_none(caps: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(caps))):
        SafeArchive(b"", **caps)


@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(["zip", "tar", "tgz"]))
def test_changed_archives_are_read_or_refused(noise: bytes, at: int, kind: str) -> None:
    made = {"zip": zipped, "tar": tarred, "tgz": lambda files: tarred(files, "w:gz")}[kind]({"a": b"x" * 50, "b": b"y"})
    data = made[:at] + noise + made[at + len(noise) :]
    try:
        found = SafeArchive(data).read_all()
    except ArchiveRefused:
        return
    assert all(len(body) <= 2000 for body in found.values())
