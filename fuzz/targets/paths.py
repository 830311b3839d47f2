"""Paths below a root, and patterns of them. What is taken as a path means the same names on every system, whatever form
Unicode gives it; a pattern matches what a plain reading of it does; and neither takes long.

The input is three lines: a path, a pattern, and a path that the pattern is held against."""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal

from fuzz.oracle import agree, chance, hold, parts, pumped, steps
from garrison.safe.globs import Glob
from garrison.safe.parameter import ParameterError
from garrison.safe.paths import SafePath, broken_rule

SEEDS = (
    b"notes/2024/plan.md\n**/*.md\nnotes/2024/plan.md",
    b"../../etc/passwd\n*\na",
    b"a/../b\na?c/**\nabc/d/e",
    b"/etc/passwd\n**\nx",
    b"C:\\x\n*a*b*\naaab",
    b"file:///etc/passwd\n**/**/a\na",
    b"~root/x\na**b\na/b",
    b"a/con.txt\n?\n\xc3\xa9",
    b"a. /b \n*/\na/",
    b"\xef\xbc\x8e\xef\xbc\x8e\xef\xbc\x8fx\n**/?\naa",
    b"e\xcc\x81/\xe2\x80\xae\n*.*.*\na.b.c",
    b"\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xae\n\n",
    b".garrison-0\n**/a/**/b\na/a/b/b",
    b"a b/Con .txt\n* b\na b",
    b"a\xef\xbc\x8fb\n?/?\na/b",
    b"a\x00b\nab\nab",
)
WORDS = (
    *(b"..", b"/", b"../", b"//", b"\\", b":", b"~", b". ", b"**", b"**/", b"*", b"?", b"CON", b"nul.", b"com1", b"$"),
    *("\uff0e", "\uff0f", "\u2024", "\u2025", "\u2100", "\u200b", "\u200d", "\ufe0f", "\u202e", "\u00a0", "\u00b9"),
    *("\u0301", "\U000e0041", "\ud800", "\ufdfa", "é", "👩"),
)
WORDS = tuple(word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass") for word in WORDS)

_FORMS: Final[tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...]] = ("NFC", "NFD", "NFKC", "NFKD")
_DEVICES: Final = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
_DEVICES.update(f"{name}{number}" for name in ("com", "lpt") for number in range(10))
_DULL: Final = re.compile(r"[a-z0-9_]{1,20}(?:\.[a-z0-9_]{1,20})?(?:/[a-z0-9_]{1,20}(?:\.[a-z0-9_]{1,20})?){0,4}")


def check(data: bytes) -> None:
    path, pattern, name = (part.decode("utf-8", "surrogateescape") for part in parts(data, 3))
    rule = broken_rule(path)
    try:
        agree("text", str(SafePath(path)), path)
        hold(not rule, "taken", path, rule)
    except ParameterError as error:
        hold(rule, "refused", path)
        agree("what is said", str(error), "is not a path below the root")
    if rule:
        hold(not _DULL.fullmatch(path) or _devices(path), "refused", path, rule)
    else:
        hold(path == path.encode().decode() and 0 < len(path.encode()) <= 4096, "length", path)
        hold(not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in path), "characters", path)
        for read in (path, *(unicodedata.normalize(form, path) for form in _FORMS)):
            agree("names", read.count("/"), path.count("/"))
            means_the_same(read)
    if pattern and len(pattern) < 200:
        glob = Glob(pattern)
        agree("match", glob.is_match(glob.step(glob.start, name)), plainly(pattern, name))
        agree("in pieces", glob.step(glob.step(glob.start, name[:3]), name[3:]), glob.step(glob.start, name))
    if chance(data).random() < 0.01:
        long = pumped(path.encode("utf-8", "surrogateescape"), 4096).decode("utf-8", "surrogateescape")[:4096]
        hold(steps(lambda: broken_rule(long)) < 20 * len(long) + 2000, "steps of a path", path)
        glob = Glob(pattern or "*")
        hold(steps(lambda: glob.step(glob.start, long)) < 5 * len(long) + 100, "steps of a pattern", pattern)


def means_the_same(text: str) -> None:
    """Names below a root, to every library that reads it."""
    agree("POSIX", posixpath.normpath(posixpath.join("/root", text)), "/root/" + text)
    agree("Windows", ntpath.normpath(ntpath.join("C:\\root", text)), "C:\\root\\" + text.replace("/", "\\"))
    agree("home", os.path.expanduser(text), text)
    agree("drive", ntpath.splitdrive(text)[0], "")
    for name in text.split("/"):
        hold(name.strip(". ") and name.rstrip(". ") == name, "dots and spaces", text)
        hold(len(name) < 256 * 18, "length", text)
    hold(not _devices(text), "a device", text)


def _devices(text: str) -> bool:
    return any(name.partition(".")[0].rstrip(" ").lower() in _DEVICES for name in text.split("/"))


def plainly(pattern: str, text: str) -> bool:
    """Whether a pattern matches, tried out in every way."""
    wanted, given = pattern.split("/"), text.split("/")
    if wanted[-1] == "**":
        wanted.append("*")

    @lru_cache(None)
    def names(i: int, j: int) -> bool:
        if i == len(wanted):
            return j == len(given)
        if wanted[i] == "**":
            return names(i + 1, j) or (j < len(given) and names(i, j + 1))
        return j < len(given) and one(wanted[i], given[j]) and names(i + 1, j + 1)

    return names(0, 0)


def one(pattern: str, name: str) -> bool:
    """Whether a pattern matches a name."""
    reached = {0}
    for each in pattern:
        if each == "*":
            reached = set(range(min(reached), len(name) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(name) and each in ("?", name[at])}
    return len(name) in reached
