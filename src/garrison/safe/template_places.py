"""Where a place of a template stands, and so how its value is written there. No regular expression runs twice.

Rules of this file:
- It reads the program's own text, once, when the template is made. What cannot be told apart is refused: a place inside
  a script, a style, a comment, a tag, an attribute without quotes, or one whose value is code.
- Of HTML and Markdown it knows what it needs to tell one place from the other, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from ..errors import ConfigurationError

__all__ = ["Place", "html_places", "markdown_places"]


class Place(Enum):
    """What a value is, where it stands."""

    TEXT = "text"
    """Words between tags, or of an attribute in quotes."""
    ADDRESS = "address"
    """A whole address, from its scheme on."""
    SEGMENT = "segment"
    """A piece of an address, before its query."""
    QUERY = "query"
    """A value in the query of an address."""


_ADDRESSES: Final = frozenset(
    {
        *("action", "background", "cite", "data", "formaction", "href", "icon", "longdesc", "manifest", "ping"),
        *("poster", "profile", "src", "xlink:href"),
    }
)
"""Attributes that hold one address."""
_CODE: Final = frozenset({"content", "http-equiv", "is", "srcdoc", "srcset", "imagesrcset", "style", "xmlns"})
"""Attributes whose value is read by another grammar than an address or words. `on...` are so, too."""
_RAW: Final = frozenset(
    {"iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "template", "xmp"}
)
"""Elements whose content is no markup, or that of another document."""
_WORDS: Final = frozenset({"title", "textarea"})
"""Elements whose content is words and entities, without markup."""
_CLOSED: Final = frozenset({"animate", "base", "embed", "link", "meta", "object", "param", "set"})
"""Elements whose attributes say what else is loaded."""
_TAG_NAME: Final = re.compile(r"/?([A-Za-z][^ \t\n\f\r/>]*)")
_SPACE: Final = " \t\n\f\r"
_ATTRIBUTE: Final = re.compile(r"(=?[^ \t\n\f\r/>=]*+)[ \t\n\f\r]*+(=)?[ \t\n\f\r]*+")
"""Names as browsers take them, WHATWG HTML section 13.2.5."""
_UNQUOTED: Final = re.compile(r"[^ \t\n\f\r>]*+")
_COMMENT_END: Final = re.compile(r"--!?>")
_PART_OF_TAG: Final = re.compile(r"</?[A-Za-z0-9:-]*\Z")


class _Html:
    """Reads literal text from the left; between two pieces of it there is a place."""

    def __init__(self) -> None:
        self._state: Callable[[str], str] = self._text
        self._element = ""
        self._attribute = ""
        self._quote = ""
        self._value = ""
        """What the attribute holds so far."""

    def read(self, text: str) -> None:
        """Go on with text that has no place in it."""
        while text:
            text = self._state(text)

    def place(self) -> Place:
        """What a value is that follows. Raises `ConfigurationError` where none may."""
        if self._state == self._text or (self._state == self._raw and self._element in _WORDS):
            return Place.TEXT
        if self._state == self._quoted:
            return self._in_attribute()
        raise _refused("stands inside a tag, a comment or raw text; put it between tags or in a quoted attribute")

    def _in_attribute(self) -> Place:
        name = self._attribute
        if name in _CODE or name.startswith("on") or self._element in _CLOSED:
            raise _refused(f"stands in the attribute {name[:40]!r}, whose value is code or loads something")
        if name not in _ADDRESSES:
            return Place.TEXT
        place = address_place(self._value)
        self._value += "x"
        return place

    # States: each takes what it knows from the front and gives back the rest.

    def _text(self, text: str) -> str:
        _, found, rest = text.partition("<")
        if not found:
            return ""
        if rest.startswith(("!-->", "!--->")):  # comments without content, which browsers forgive
            return rest.partition(">")[2]
        if rest.startswith("!--"):
            self._state = self._comment
            return rest[3:]
        name = _TAG_NAME.match(rest)
        if name is None:
            if rest[:1] in ("!", "?", "/"):
                self._state = self._declaration
                return rest
            if not rest:
                raise _refused("follows a lone <; write &lt;")
            return rest
        if name.end() == len(rest):
            raise _refused("stands in the name of a tag")
        self._element = "" if rest.startswith("/") else name[1].lower()
        self._state = self._tag
        return rest[name.end() :]

    def _comment(self, text: str) -> str:
        end = _COMMENT_END.search(text)
        return "" if end is None else self._back(text[end.end() :])

    def _declaration(self, text: str) -> str:
        _, found, rest = text.partition(">")
        return self._back(rest) if found else ""

    def _tag(self, text: str) -> str:
        text = text.lstrip(_SPACE + "/")
        if text.startswith(">"):
            if self._element in _RAW or self._element in _WORDS:
                self._state = self._raw
                return text[1:]
            return self._back(text[1:])
        match = _ATTRIBUTE.match(text)
        if match is None:
            return ""
        rest = text[match.end() :]
        if match[2] is None:
            return rest
        self._attribute, self._value = match[1].lower(), ""
        if rest[:1] in ("'", '"'):
            self._quote, self._state = rest[0], self._quoted
            return rest[1:]
        return _UNQUOTED.sub("", rest, count=1)

    def _quoted(self, text: str) -> str:
        value, found, rest = text.partition(self._quote)
        self._value += value
        if found:
            self._state = self._tag
        return rest

    def _raw(self, text: str) -> str:
        """Up to the end tag, which stands in one literal."""
        end = re.search(rf"</{self._element}(?=[ \t\n\f\r/>])", text, re.IGNORECASE | re.ASCII)
        if end is None:
            if _PART_OF_TAG.search(text):
                raise _refused("stands in the name of a tag")
            return ""
        self._element, self._state = "", self._tag
        return text[end.end() :]

    def _back(self, rest: str) -> str:
        self._element, self._state = "", self._text
        return rest


def html_places(literals: Sequence[str]) -> list[Place]:
    """The kind of each place between two literals of an HTML template.

    Raises:
        ConfigurationError: a place stands where no value can be made inert.
    """
    reader = _Html()
    found: list[Place] = []
    for literal in literals[:-1]:
        reader.read(literal)
        found.append(reader.place())
    reader.read(literals[-1])
    return found


_CODE_MARKS: Final = re.compile(r"`|~~~")
_DESTINATION: Final = re.compile(r"\]\(\s*<?([^\s()<>]*)\Z")
_REFERENCE: Final = re.compile(r"(?:\A|\n) {0,3}\[[^\]\n]*\]:\s*<?([^\s<>]*)\Z")
_OPEN_TAG: Final = re.compile(r"<(?:[A-Za-z/!?][^>]*)?\Z")
_RAW_ELEMENT: Final = re.compile(r"<(?:script|style|pre|textarea|xmp|iframe|noscript)\b", re.IGNORECASE)


def markdown_places(literals: Sequence[str]) -> list[Place]:
    """The kind of each place between two literals of a Markdown template.

    Raises:
        ConfigurationError: as for HTML; also inside a template with code, where nothing can be escaped.
    """
    if len(literals) > 1 and any(_CODE_MARKS.search(literal) or _RAW_ELEMENT.search(literal) for literal in literals):
        raise _refused("and code or raw text in one Markdown template: nothing can be escaped inside code")
    before = ""
    found: list[Place] = []
    for literal in literals[:-1]:
        before += literal
        if _OPEN_TAG.search(before) is not None:
            raise _refused("stands inside a tag")
        destination = _DESTINATION.search(before) or _REFERENCE.search(before)
        found.append(Place.TEXT if destination is None else address_place(destination[1]))
        before += "x"
    return found


def address_place(before: str) -> Place:
    """What a value is behind this beginning of an address. Raises `ConfigurationError` in scheme, host or fragment."""
    before = before.strip()
    if not before:
        return Place.ADDRESS
    if "#" in before:
        raise _refused("stands in the fragment of an address")
    if re.fullmatch(r"(?:https?:)?//[^/?]*|[^/?]*", before):
        raise _refused("stands in the scheme or host of an address; begin it with https://host/ or /")
    return Place.QUERY if "?" in before else Place.SEGMENT


def _refused(text: str) -> ConfigurationError:
    return ConfigurationError(f"SafeTemplate: a place {text}")
