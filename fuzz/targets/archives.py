"""Archives: refused, or nothing but paths below a root with the bytes that a second reading finds.

The input is a line of names, separated by `|`, from which a zip or tar file is made, then a line that says how, then
bytes that are put over it: the number before the first space is the place."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from contextlib import suppress
from posixpath import normpath

from fuzz.oracle import agree, hold, parts
from garrison.safe.archives import ArchiveRefused, SafeArchive, decompress
from garrison.safe.paths import broken_rule

SEEDS = (
    b"a.txt|d/b.txt\nz\n",
    b"a|../b\nz\n",
    b"a|A\nt\n",
    b"a|a/b\nz\n",
    b"d/|d/e\nt\n",
    b"/etc/passwd\nt\n",
    b"a\\b|c:d|nul\nz\n",
    b"\xc3\xa9|e\xcc\x81\nz\n",
    b"./x|./y\nt\n",
    b"a\nz\n30 \x99",
    b"a\nt\n156 2",
    b"a\ng\n20 \xff",
    b"a|b\nz\n22 \xff\xff\xff\xff",
    b"a\nr\n",
    b"a\nz\n0 PK\5\6",
    b"a|b|c|d|e|f|g|h|i\nt\n",
    b"x" * 120 + b"/y\nt\n",
    b"a\nt\n124 777777777777",
)
WORDS = (
    *b"../ / \\ | : ~ . .. nul con \xc3\xa9 \xef\xbc\x8f \xe2\x80\xae 30 156 124 345".split(),
    *b"PK\1\2 PK\3\4 PK\5\6 PK\6\6 PK\6\7".split(),
    *(b"\nz\n", b"\nt\n", b"\ng\n", b"\nr\n", b"\x00", b"\xff\xff\xff\xff", b"ustar\0", b"x", b"g", b"L", b"./"),
)
_CAPS = {"max_members": 8, "max_bytes": 20_000, "max_member_bytes": 2000, "max_depth": 4}


def check(data: bytes) -> None:
    names, how, patch = parts(data, 3)
    members = [(name, b"content of " + name[:40]) for name in names.split(b"|")[:12]]
    made = b"|".join(name for name, _ in members) if how == b"r" else _MAKERS.get(how[:1], zipped)(members)
    place, _, over = patch.partition(b" ")
    at = int(place) if place.isdigit() and len(place) < 6 else 0
    changed = made[:at] + over + made[at + len(over) :]
    archive = SafeArchive(changed, **_CAPS)
    try:
        listed = archive.members()
        found = archive.read_all()
    except ArchiveRefused as error:
        text = str(error)
        hold(len(text) < 200 and text.isascii() and text.isprintable(), "what is said", text)
        if changed == made and how != b"r" and all(plain(name) for name, _ in members) and apart(members):
            hold(len(members) > 8 or "deep" in text or "name" in text, "an honest archive", text)
        small(changed)
        return
    agree("files", [each.path for each in listed if not each.is_dir], list(found))
    agree("lengths", [each.size for each in listed if not each.is_dir], [len(each) for each in found.values()])
    hold(len(listed) <= 8 and all(len(each) <= 2000 for each in found.values()), "caps")
    for path in [each.path for each in listed]:
        hold(not broken_rule(path) and path.count("/") < 4, "a path", path)
        hold(normpath(path) == path and path.split("/")[0] not in ("", ".."), "a path that leads out", path)
    hold(len({path.casefold() for path in found}) == len(found), "twins", list(found))
    if changed == made and b"\0" not in names:  # the end of a name, in tar
        honest = {name.removeprefix(b"./").decode(): body for name, body in members if not name.endswith(b"/")}
        agree("content", found, honest)


def plain(name: bytes) -> bool:
    """Whether a name has nothing that could be refused."""
    return name.isalnum() and len(name) < 50


def apart(members: list[tuple[bytes, bytes]]) -> bool:
    return len({name.lower() for name, _ in members}) == len(members)


def small(data: bytes) -> None:
    """What is one compressed file is no larger than its cap."""
    with suppress(ArchiveRefused):
        hold(len(decompress(data, max_bytes=3000)) <= 3000, "more than the cap")


def zipped(members: list[tuple[bytes, bytes]]) -> bytes:
    """A zip file whose names are bytes, every second one deflated."""
    files, directory = b"", b""
    for number, (name, body) in enumerate(members):
        is_dir = name.endswith(b"/")
        body = b"" if is_dir else body
        packed = body
        if number % 2:
            packer = zlib.compressobj(wbits=-15)
            packed = packer.compress(body) + packer.flush()
        name = name[:65_000]
        common = 20, 0x800, 8 * (number % 2), 0, 33, zlib.crc32(body), len(packed), len(body), len(name), 0
        directory += struct.pack("<4sH5H3L5H2L", b"PK\1\2", 20, *common, 0, 0, 0, 0, len(files)) + name
        files += struct.pack("<4s5H3L2H", b"PK\3\4", *common) + name + packed
    count = len(members)
    return files + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(files), 0)


def tarred(members: list[tuple[bytes, bytes]]) -> bytes:
    """A tar file as Python writes it, in GNU's form."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, body in members:
            header = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            is_dir = name.endswith(b"/")
            header.type, header.size = (tarfile.DIRTYPE, 0) if is_dir else (tarfile.REGTYPE, len(body))
            archive.addfile(header, io.BytesIO(body))
    return made.getvalue()


def packed(members: list[tuple[bytes, bytes]]) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(tarred(members)) + packer.flush()


_MAKERS = {b"z": zipped, b"t": tarred, b"g": packed}
