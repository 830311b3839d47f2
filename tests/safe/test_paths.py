"""SafePath: what is a path below a root, by its text alone; and that honest names of every script are."""

from __future__ import annotations

import ntpath
import os
import posixpath
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from garrison import ConfigurationError
from garrison.safe.parameter import Parameter, ParameterError
from garrison.safe.paths import SafePath, broken_rule
from garrison.safe.root import SafeRoot

REFUSED = {
    "an empty path": [""],
    "an absolute path": ["/", "/etc/passwd", "//host/share"],
    "`.` or `..`": [".", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a/.."],
    "an empty name": ["a//b", "a/"],
    "a backslash": ["..\\x", "a\\b", "\\\\host\\share"],
    "a colon": ["C:/x", "c:x", "file:///etc/passwd", "a.txt:stream", "a:$DATA"],
    "a home directory": ["~", "~/x", "~root/x"],
    "a control character": ["a\0b", "a\nb", "\x1b[2J", "a\x7f", "a\x85"],
    "an invisible character": [
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\u200db",
        "\ufeffa",
        "a\U000e0041",
        "a\ufe0f",
        "\u200dé",
        "é\u200d",
        "a\u3164",
        "a\u2028b",
    ],
    "half of a surrogate pair": ["a\ud800", "\udc80"],
    "the name of a device": [
        "CON",
        "nul.txt",
        "a/aux",
        "Com1.tar.gz",
        "lpt9",
        "prn ",
        "CONIN$",
        "com¹",
        "ｃｏｎ",
        "nul .",
    ],
    "a dot or space at the end of a name": ["a.", "a ", "a./b", "a /b", "...", "a\u3000", "a\u00a0/b"],
    "a name that is kept for files being written": [".garrison-1", "a/.Garrison-x"],
    "a character that stands for a dot, colon, tilde or slash": [
        "\uff0e\uff0e/x",
        "a\uff0fb",
        "\u2025/x",
        "a\u2024txt",
        "a\ufe68b",
        "\u2100",
        "c\uff1ax",
        "\uff5e",
    ],
    "a name of more than 255 bytes": ["a" * 256, "é" * 128, "a/" + "b" * 256],
    "more than 4096 bytes": ["a/" * 2048 + "a", "é/" * 1400 + "é", "x" * 1_000_000],
}
TAKEN = [
    *(
        "a",
        "a/b/c.txt",
        ".gitignore",
        "..a",
        "a..b",
        "a.tar.gz",
        "-rf",
        "100%.txt",
        "%2e%2e",
        "a b/c",
        "a/~b",
        "x~",
        "$HOME",
    ),
    *(
        "console.log",
        "nulls/auxiliary.md",
        "COM10.txt",
        "icon",
        "con-fig",
        "a,b;c='d'",
        "[x]",
        "*",
        "a?b",
        "a|b",
        "<a>",
    ),
    *(
        "résumé.pdf",
        "re\u0301sume\u0301.pdf",
        "日本語　ファイル.txt",
        "файл.txt",
        "한국어.md",
        "ملف.txt",
        "עברית.txt",
        "ไทย.txt",
    ),
    *("می\u200cخواهم.txt", "क्\u200dष.md", "👩\u200d👩\u200d👧.png", "❤\ufe0f.txt", "½.txt", "ﬁle", "x².md", "a\u0338b"),
    *("a" * 255, "/".join(["a" * 255] * 16), "é" * 127),
]


@pytest.mark.app
@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in REFUSED.items() for text in texts])
def test_what_is_no_path_below_a_root_is_refused_in_the_same_words(rule: str, text: str) -> None:
    if rule not in ("the name of a device", "a dot or space at the end of a name"):
        assert broken_rule(text) == rule
    assert broken_rule(text)
    with pytest.raises(ParameterError) as caught:
        SafePath.from_json(text)
    assert str(caught.value) == "is not a path below the root"


@pytest.mark.app
@pytest.mark.parametrize("text", TAKEN)
def test_honest_names_stay_as_they_are(text: str) -> None:
    assert str(SafePath(text)) == text


PIECES = [*"./\\:~ a*?\0\n", "..", "b.c", "CON", "nul", "com1", "C:", "%2e", ".garrison-"]
PIECES += [
    "\uff0e",
    "\uff0f",
    "\u2024",
    "\u2100",
    "\u200b",
    "\u200d",
    "\ufe0f",
    "\u202e",
    "\ud800",
    "é",
    "e\u0301",
    "👩",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join))
@example("a/../../b")
def test_a_path_that_is_taken_means_the_same_on_every_system(text: str) -> None:
    if broken_rule(text):
        with pytest.raises(ParameterError):
            SafePath(text)
        return
    for form in ("", "NFC", "NFD", "NFKC", "NFKD"):
        read = unicodedata.normalize(form, text) if form else text
        assert posixpath.normpath(read) == read
        assert posixpath.normpath(posixpath.join("/root", read)) == "/root/" + read
        assert ntpath.splitdrive(read)[0] == "" and not ntpath.isabs(read)
        assert ntpath.normpath(read).split("\\") == read.split("/")
        assert os.path.expanduser(read) == read
        assert not any(name.endswith((".", " ")) or name in ("", ".", "..") for name in read.split("/"))
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
    assert max(len(name.encode()) for name in text.split("/")) <= 255


@pytest.mark.parametrize(
    "piece", ["a/", "../", "con ", "~", ". ", "\u200d", "é\u200d", "\uff0e", "com1.", " /", "\ufdfa"]
)
def test_time_grows_with_the_length_alone(piece: str) -> None:
    begun = time.perf_counter()
    for _ in range(5):
        broken_rule((piece * 4096)[:4096])
        broken_rule("x" + (piece * 4096)[:4000] + "\\")
        broken_rule(piece * 100_000)
    assert time.perf_counter() - begun < 1.0


def test_a_path_has_parts() -> None:
    path = SafePath("notes/2024/plan.tar.gz")
    assert (path.parts, path.name, path.suffix) == (("notes", "2024", "plan.tar.gz"), "plan.tar.gz", ".gz")
    assert path.parent == SafePath("notes/2024")
    assert SafePath("notes").parent is None
    assert SafePath(".profile").suffix == "" and SafePath("a.b").suffix == ".b" and SafePath("a").suffix == ""
    assert SafePath("notes") / "a" / SafePath("b/c") == SafePath("notes/a/b/c")
    assert repr(path) == "SafePath('notes/2024/plan.tar.gz')"
    assert len({path, SafePath(str(path)), SafePath("x")}) == 2
    assert path != "notes/2024/plan.tar.gz"
    with pytest.raises(ParameterError):
        _ = path / ".."


def test_it_opens_nothing_by_itself() -> None:
    path: Any = SafePath("a")
    for use in (os.fspath, Path, os.stat, os.listdir, Path("b").joinpath):
        with pytest.raises(TypeError):
            use(path)
    with pytest.raises(ConfigurationError, match="bound to no root"):
        SafePath("a").read_text()


def test_a_bound_path_reads_and_writes_below_its_root(tmp_path: Path) -> None:
    with SafeRoot(tmp_path, write=True) as docs:

        class Doc(SafePath, root=docs):
            """A file below docs."""

        class Note(Doc):
            """A note."""

        (Doc("a")).mkdir()
        (Doc("a") / "b.txt").write_text("é")
        (Note("a/c.txt")).write_bytes(b"c")
        assert Doc("a/b.txt").read_text() == "é"
        assert Doc("a/b.txt").read_bytes() == "é".encode()
        assert Doc("a/b.txt").info().size == 2
        with Doc("a/b.txt").open() as file:
            assert file.read() == "é".encode()
        assert [info.name for info in Doc("a").list()] == ["b.txt", "c.txt"]
        Doc("a/b.txt").remove()
        assert not Doc("a/b.txt").exists() and Note("a/c.txt").exists()
        assert type(Doc("a/b").parent) is Doc and type(Doc("a") / "b") is Doc
        assert Doc("a") == SafePath("a")


def test_it_is_a_type_of_parameters() -> None:
    assert issubclass(SafePath, Parameter)
    assert SafePath.json_schema() == {"type": "string", "minLength": 1, "maxLength": 4096}
    assert type(SafePath.from_json("a/b")) is SafePath
    for value in (None, 1, ["a"], b"a"):
        with pytest.raises(ParameterError):
            SafePath.from_json(value)
