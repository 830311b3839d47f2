"""What a docstring says: the first paragraph, and the text for each parameter.

Reads Google (`Args:`), NumPy (`Parameters` underlined) and Sphinx (`:param x:`) styles. A docstring in no style gives
its first paragraph only. White space is folded; nothing raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import cleandoc
from typing import NamedTuple

__all__ = ["Docstring", "parse"]

_GOOGLE_HEAD = re.compile(r"(?:Args|Arguments|Parameters|Params|Keyword Args|Keyword Arguments):\s*")
_GOOGLE_ITEM = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY_ITEM = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?")
_SPHINX_ITEM = re.compile(r":(?:param|parameter|arg|argument)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_UNDERLINE = re.compile(r"-{3,}\s*")


class Docstring(NamedTuple):
    """The parts of a docstring that are published."""

    summary: str
    """The first paragraph on one line; empty when there is none."""
    parameters: dict[str, str]
    """Parameter name to text."""


def parse(text: str) -> Docstring:
    """The parts of a docstring."""
    lines = cleandoc(text).splitlines()
    parameters = _google(lines)
    parameters.update(_numpy(lines))
    parameters.update(_sphinx(lines))
    return Docstring(_summary(lines), {name: text for name, text in parameters.items() if text})


def _summary(lines: list[str]) -> str:
    taken: list[str] = []
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if not line.strip() or _GOOGLE_HEAD.fullmatch(line) or line.startswith(":") or _UNDERLINE.fullmatch(following):
            break
        taken.append(line)
    return _fold(taken)


def _fold(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _google(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    inside = False
    level: int | None = None
    current: list[str] = []
    for line in lines:
        if not inside:
            inside, level = _GOOGLE_HEAD.fullmatch(line) is not None, None
        elif line.strip():
            depth = _indent(line)
            if depth == 0:
                inside, level = _GOOGLE_HEAD.fullmatch(line) is not None, None
                continue
            level = depth if level is None else level
            item = _GOOGLE_ITEM.fullmatch(line.strip()) if depth <= level else None
            if item is not None:
                current = found.setdefault(item[1], [])
                current.append(item[2])
            else:
                current.append(line)
    return {name: _fold(text) for name, text in found.items()}


def _numpy(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    inside = False
    current: list[list[str]] = []
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if _UNDERLINE.fullmatch(following):
            inside = line.strip() in ("Parameters", "Other Parameters")
        elif inside and not _UNDERLINE.fullmatch(line) and line.strip():
            item = _NUMPY_ITEM.fullmatch(line) if _indent(line) == 0 else None
            if item is not None:
                current = [found.setdefault(name.strip(), []) for name in item[1].split(",")]
            elif _indent(line):
                for texts in current:
                    texts.append(line)
    return {name: _fold(text) for name, text in found.items()}


def _sphinx(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        item = _SPHINX_ITEM.fullmatch(line.strip())
        if item is not None:
            current = found.setdefault(item[1], [])
            current.append(item[2])
        elif line.startswith(":") or not line.strip():
            current = None
        elif current is not None:
            current.append(line)
    return {name: _fold(text) for name, text in found.items()}
