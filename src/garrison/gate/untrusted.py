"""`Untrusted`: text of somebody else, which says so on its way to a model.

    @server.tool()
    async def read_page(url: str) -> Untrusted[str]:
        page = await fetch.get(url)
        return Untrusted(page.text, source=url)

Rules of this file:
- It does not turn into text by accident: no `str`, no formatting, no joining. `rendered` and `value` are the ways out.
- What is rendered stands between two lines with the same 128 random bits, made anew for each rendering and not in the
  content: nobody who wrote the content could have written the closing line.
- The source is a text of others too: one line, nothing hidden, not long.

A model may still do what such a text says. The delimiter tells it, and the program around it, whose words they are.

Spec: 2026-07-28 basic, "General fields" (`_meta`); server/tools "Security Considerations".
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, NoReturn, TypeVar, cast, final

from ..protocol.json import encode
from .hygiene import visible

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PROVENANCE", "Rendered", "Untrusted"]

PROVENANCE: Final = "garrison/provenance"
"""The member of `_meta` that says where a content came from."""

T_co = TypeVar("T_co", covariant=True)

_SOURCE_CHARS: Final = 200
_LOOKALIKE: Final = re.compile(r"\[(?=[ \t]*(?:begin|end) untrusted content\b)", re.IGNORECASE)


class Rendered(NamedTuple):
    """An untrusted content as a model reads it, and what its `_meta` says of it."""

    text: str
    """The content between its two lines."""
    meta: dict[str, object]
    """Under `PROVENANCE`: `source`, `trust` (always "untrusted") and `delimiter`."""


@final
class Untrusted(Generic[T_co]):
    """A value that somebody else wrote: a page, a mail, a file, a row.

    Args:
        value: a text, or a JSON value, which is rendered as JSON.
        source: where it comes from, as a person would name it: an address, a path, "mail of 3 May".

    Raises:
        ValueError: the source is empty.
    """

    __slots__ = ("_source", "_value")

    _value: T_co
    _source: str

    def __init__(self, value: T_co, source: str) -> None:
        if not source:
            raise ValueError("an Untrusted needs a source: where does the value come from?")
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "_source", source)

    @property
    def value(self) -> T_co:
        """The value itself, for code that checks it."""
        return self._value

    @property
    def source(self) -> str:
        """Where it comes from."""
        return self._source

    def rendered(self, clean: Callable[[str], str] = visible, *, most: int | None = None) -> Rendered:
        """The content between two lines that name its source and carry a fresh delimiter.

        Args:
            clean: what is done to hidden characters: `visible`, `stripped`, or a function of your own.
            most: bytes of UTF-8 that the content may have; what is beyond is left out, and a line says so. The closing
                line is always there.

        Raises:
            TypeError, ValueError: the value is neither a text nor JSON.
        """
        value: object = self._value
        text = _LOOKALIKE.sub("(", clean(value if isinstance(value, str) else encode(value).decode()))
        if most is not None and len(text) * 4 > most:
            text = _cut(text, most)
        source = " ".join(clean(self._source[:_SOURCE_CHARS]).split())
        delimiter = secrets.token_hex(16)
        while delimiter in text or delimiter in source:
            delimiter = secrets.token_hex(16)
        return Rendered(
            f"[begin untrusted content {delimiter} from {source}]\n{text}\n[end untrusted content {delimiter}]",
            {PROVENANCE: {"source": source, "trust": "untrusted", "delimiter": delimiter}},
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Untrusted does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Untrusted does not change: {name}")

    def __reduce__(self) -> tuple[type[Untrusted[object]], tuple[object, str]]:
        return Untrusted, (self._value, self._source)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Untrusted):
            return NotImplemented
        theirs = cast("Untrusted[object]", other)
        return self._value == theirs._value and self._source == theirs._source

    def __hash__(self) -> int:
        return hash((Untrusted, self._value, self._source))

    def __repr__(self) -> str:
        return f"Untrusted({type(self._value).__name__}, source={self._source!r})"

    def __str__(self) -> NoReturn:
        raise TypeError(
            "an Untrusted is not joined to other text: use .rendered(), or .value where you have checked it"
        )

    def __format__(self, spec: str) -> NoReturn:
        self.__str__()


def _cut(text: str, most: int) -> str:
    raw = text.encode(errors="replace")
    if len(raw) <= most:
        return text
    return f"{raw[:most].decode(errors='ignore')}\n[cut here: {most} of {len(raw)} bytes]"
