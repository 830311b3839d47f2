"""YAML of others, as JSON would say it: maps with text for keys, lists, text, numbers, true, false and null.

Rules of this file:
- The parser's events are read, and no object is constructed but those. Tags beyond YAML's core schema are refused.
- Plain words mean what YAML 1.2 says: `no`, `on`, `12:30`, `010` and dates are text or plain numbers, for every reader
  the same.
- One document. No aliases: what is written once is there once. No key twice, no merge key.
- Depth and nodes are counted while it is read, without recursion.

Spec: YAML 1.2.2, section 10.3 "Core Schema".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from math import isfinite
from typing import Any, Final, cast

from ..errors import ConfigurationError
from .documents import DocumentRefused, hold_positive, refused

__all__ = ["DocumentRefused", "parse_yaml"]

_LARGEST: Final = 2**64
_CORE: Final = "tag:yaml.org,2002:"


def _integer(text: str, base: int = 10) -> int:
    value = int(text, base) if len(text) <= 24 else _LARGEST
    if not -_LARGEST < value < _LARGEST:
        raise refused("a number that is too large")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise refused("a number that is too large")
    return value


def _no_number(text: str) -> float:
    raise refused("an infinity or what is not a number")


_PLAIN: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], object]], ...]] = (
    ("null", re.compile(r"(?:null|Null|NULL|~|)"), lambda text: None),
    ("bool", re.compile(r"(?:true|True|TRUE)"), lambda text: True),
    ("bool", re.compile(r"(?:false|False|FALSE)"), lambda text: False),
    ("int", re.compile(r"[-+]?[0-9]+"), _integer),
    ("int", re.compile(r"0o[0-7]+"), lambda text: _integer(text[2:], 8)),
    ("int", re.compile(r"0x[0-9a-fA-F]+"), lambda text: _integer(text[2:], 16)),
    ("float", re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?"), _float),
    ("float", re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), _no_number),
)
"""The core schema: tag, form and value of plain scalars. What has none of these forms is text."""


def parse_yaml(
    data: bytes | str, *, max_bytes: int = 256 * 1024, max_depth: int = 32, max_nodes: int = 20_000
) -> object:
    """What a document says, in values that JSON has.

    Args:
        data: the document; bytes are UTF-8.
        max_bytes: most bytes, of text in UTF-8.
        max_depth: most maps and lists within each other.
        max_nodes: most maps, lists, keys and values.

    Returns:
        `dict[str, ...]`, `list[...]`, `str`, `int`, `float`, `bool` or None; None for an empty document.

    Raises:
        DocumentRefused: it is not YAML, breaks a rule of this file, or a cap.
        ConfigurationError: PyYAML is missing, or a cap is not a positive integer.
    """
    hold_positive("parse_yaml", max_bytes=max_bytes, max_depth=max_depth, max_nodes=max_nodes)
    if len(data) > max_bytes:
        raise refused(f"more than {max_bytes} bytes", "max_bytes")
    try:
        text = data if isinstance(data, str) else bytes(data).decode()
        if len(text.encode()) > max_bytes:
            raise refused(f"more than {max_bytes} bytes", "max_bytes")
    except UnicodeError:
        raise refused("it is not UTF-8") from None
    reader = _Reader(max_depth, max_nodes)
    for event in _events(text):
        reader.take(event)
    return reader.value


def _events(text: str) -> Iterable[Any]:  # PyYAML has no types
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise ConfigurationError("parse_yaml needs PyYAML: pip install garrison[yaml]") from None
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from cast("Iterable[Any]", yaml.parse(text, Loader=loader))
    except (yaml.YAMLError, UnicodeError, ValueError, OverflowError):
        raise refused("it is not YAML") from None


class _Open:
    """A map or list that is not at its end."""

    __slots__ = ("key", "value")

    def __init__(self, value: dict[str, object] | list[object]) -> None:
        self.value = value
        self.key: str | None = None
        """Of a map: the key whose value comes next."""


class _Reader:
    """Builds the value of one document from events."""

    def __init__(self, max_depth: int, max_nodes: int) -> None:
        self._max_depth = max_depth
        self._left = self._max_nodes = max_nodes
        self._open: list[_Open] = []
        self._documents = 0
        self.value: object = None

    def take(self, event: Any) -> None:  # PyYAML has no types
        """The next event. Raises `DocumentRefused`."""
        match type(event).__name__:
            case "ScalarEvent":
                self._add(_scalar(event.value, event.tag, plain=event.implicit[0]))
            case "MappingStartEvent":
                self._begin({}, event.tag, "map")
            case "SequenceStartEvent":
                self._begin([], event.tag, "seq")
            case "MappingEndEvent" | "SequenceEndEvent":
                self._open.pop()
            case "AliasEvent":
                raise refused("it has an alias")
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    raise refused("more than one document")
                if event.tags:
                    raise refused("it declares tags")
            case _:
                pass

    def _begin(self, value: dict[str, object] | list[object], tag: str | None, kind: str) -> None:
        if tag not in (None, "!", _CORE + kind):
            raise refused("a tag beyond YAML's core schema")
        self._add(value)
        if len(self._open) >= self._max_depth:
            raise refused(f"more than {self._max_depth} maps and lists within each other", "max_depth")
        self._open.append(_Open(value))

    def _add(self, value: object) -> None:
        self._left -= 1
        if self._left < 0:
            raise refused(f"more than {self._max_nodes} nodes", "max_nodes")
        if not self._open:
            self.value = value
            return
        inner = self._open[-1]
        if isinstance(inner.value, list):
            inner.value.append(value)
        elif inner.key is None:
            if not isinstance(value, str):
                raise refused("a key that is not text; put it in quotes")
            if value == "<<":
                raise refused("a merge key")
            if value in inner.value:
                raise refused("a key stands twice")
            inner.key = value
        else:
            inner.value[inner.key], inner.key = value, None


def _scalar(text: str, tag: str | None, *, plain: bool) -> object:
    """The value of a scalar. `plain`: it stands without quotes and without a tag."""
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise refused("half of a surrogate pair")
    kind = "" if tag is None else tag.removeprefix(_CORE)
    if tag is not None and tag != "!" and tag != _CORE + kind:
        raise refused("a tag beyond YAML's core schema")
    if kind in ("str", "!") or (tag is None and not plain):
        return text
    for name, form, read in _PLAIN:
        if (not kind or kind == name) and form.fullmatch(text) is not None:
            return read(text)
    if kind:
        raise refused("a tag beyond YAML's core schema, or one that its value does not fit")
    return text
