"""Markdown of others made inert: nothing in it is fetched, nothing becomes a link, code is left alone.

Rules of this file:
- Nothing is parsed that has to be parsed the same way elsewhere. Outside code, the few characters without which there
  is no link, image, definition, raw HTML or address are broken: `](`, `]:`, `[[`, `<`, `://`, `www.`. Words stay.
- Code is what every reader of Markdown takes for code: a fenced block none of whose lines stands left of its fence, and
  a span within one line. Where that is in doubt, it is text: code may gain a backslash, a link never stays alive.
- A fence that a viewer would draw as a diagram, and so might fetch for, becomes a fence of text.
- Twice is once.

Spec: CommonMark 0.31 sections 2.4 (backslash escapes), 4.5 (fenced code), 4.6 and 6.6 (raw HTML), 4.7 (link reference
definitions), 6.1 (code spans), 6.3 to 6.5 (links, images, autolinks); GitHub Flavored Markdown 6.9 (autolinks).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["closed", "inert", "wrapped"]

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE: Final = re.compile(r"( *)(`{3,}(?=[^`|]*$)|~{3,}(?=[^|]*$))[ \t]*\{?\.?([^\s}]*)")
_FENCE_LIKE: Final = re.compile(r"[ \t>*+\-0-9.)]*(?:```|~~~)")
_DOUBTFUL: Final = re.compile(r"\A(?:---|\+\+\+)|\$\$|^[ \t]*\\\[", re.MULTILINE)
"""Front matter and blocks of mathematics: what stands in them is Markdown for some readers and none for others."""
_MATHEMATICS: Final = re.compile(r"\$|(?<!\])\\\(")

_DRAWN: Final = frozenset(
    ("mermaid", "plantuml", "puml", "dot", "graphviz", "svg", "vega", "vega-lite", "geojson", "topojson")
)

_ACTIVE: Final = re.compile(r"\\[\[\]\\]|\](?=[(:])|\[(?=\[)|<(?!\s)|://|[wW]{3}\.")
"""What has to be broken, after the escapes that are text already."""
_BROKEN: Final = {"]": "]\\", "[": "[\\", "<": "&lt;", "://": ":(//)"}
_SPAN: Final = re.compile(r"\\[\\`]|(?P<code>(?P<ticks>`+)(?!`)[^|]*?(?<!`)(?P=ticks)(?!`))|`+")


def inert(text: str) -> str:
    """The text with everything broken that a viewer fetches or makes a link; the same object if there is nothing."""
    if _ACTIVE.search(text) is None and "```" not in text and "~~~" not in text:
        return text
    every = _LINE.findall(text)
    done: list[str] = []
    doubt = _DOUBTFUL.search(text) is not None
    open_span = False  # a span may have begun in an earlier line of this paragraph
    blank = True  # the line before
    number = 0
    while number < len(every):
        line = every[number]
        fence = None if doubt else _FENCE.match(line.rstrip("\r\n"))
        if fence is not None:
            end = _end_of_fence(every, number, len(fence[1]), fence[2]) if blank or len(fence[1]) < 4 else 0
            if end:
                drawn = fence[3].lower() in _DRAWN
                done.append(line[: fence.start(3)] + "text" + line[fence.end(3) :] if drawn else line)
                done += every[number + 1 : end]
                number, open_span, blank = end, False, False
                continue
        doubt = doubt or _FENCE_LIKE.match(line) is not None
        blank = not line.strip()
        if blank:
            open_span = False
        if doubt or open_span or "`" not in line or _MATHEMATICS.search(line) is not None:
            open_span = open_span or "`" in line
            done.append(_ACTIVE.sub(_broken, line))
        else:
            broken, open_span = _around_spans(line)
            done.append(broken)
        number += 1
    result = "".join(done)
    return text if result == text else result


def closed(text: str) -> str:
    """The text with a line that closes the fenced block left open at its end; the same object if there is none."""
    if "```" not in text and "~~~" not in text:
        return text
    opened = ""
    for line in _LINE.findall(text):
        bare = line.strip()
        if opened:
            if bare.startswith(opened) and not bare.strip(opened[0]):
                opened = ""
        elif (fence := _FENCE.match(line.rstrip("\r\n"))) is not None and len(fence[1]) < 4:
            opened = fence[2]
    if not opened:
        return text
    return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{opened}\n"


def wrapped(text: str) -> str:
    """The text in a fenced block of its own, whose fence is longer than every run of backticks in it."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}\n"


def _end_of_fence(lines: list[str], start: int, indent: int, ticks: str) -> int:
    """The number of the line after a fenced block, or 0 if it is not certain to be one."""
    for number in range(start + 1, len(lines)):
        line = lines[number].rstrip()
        bare = line.lstrip(" ")
        if not bare:
            continue
        if len(line) - len(bare) < indent:
            return 0
        if bare.startswith(ticks) and not bare.strip(ticks[0]):
            return number + 1 if bare == ticks and len(line) - len(bare) == indent else 0
    return len(lines) if indent == 0 else 0


def _around_spans(line: str) -> tuple[str, bool]:
    """A line with everything outside its code spans broken, and whether a span in it was left open."""
    pieces: list[str] = []
    done = 0
    for found in _SPAN.finditer(line):
        if found["code"] is not None:
            pieces += _ACTIVE.sub(_broken, line[done : found.start()]), found[0]
            done = found.end()
        elif found[0][0] == "`":
            return "".join(pieces) + _ACTIVE.sub(_broken, line[done:]), True
    return "".join(pieces) + _ACTIVE.sub(_broken, line[done:]), False


def _broken(found: re.Match[str]) -> str:
    piece = found[0]
    return piece[:3] + "(.)" if piece[0] in "wW" else _BROKEN.get(piece, piece)
