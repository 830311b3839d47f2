"""Text with places for values that a peer chose.

    page = SafeTemplate('<p title="{title}">Hello {name}</p>', kind="html")
    page.render(name=name, title=title)

Rules of this file:
- The template is the program's. A place is `{name}`; attributes, indexes, conversions and formats do not exist, and
  what looks like one is refused when the template is made. `{{` and `}}` are braces.
- A value is text and stays text: it is escaped for the place where it stands, and braces in it are braces. Nothing that
  was put in is read again.
- What no escaping makes inert is refused: an address with another scheme than http, https and mailto.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, final

from .. import events
from ..errors import ConfigurationError, ToolError
from . import urls
from .template_places import Place, html_places, markdown_places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import LiteralString

__all__ = ["SafeTemplate", "TemplateRefused"]

Kind = Literal["html", "markdown", "text", "url"]

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ADDRESS: Final = re.compile(r"(?:https?://[^/?#\\@]+(?:[/?#].*)?|mailto:[^?#]+)", re.IGNORECASE | re.DOTALL)
_ENTITIES: Final = {ord(mark): f"&#{ord(mark)};" for mark in "\"'"} | {38: "&amp;", 60: "&lt;", 62: "&gt;"}
_MARKDOWN: Final = {**{ord(char): "\\" + char for char in "!#$%()*+,-./:;=?@[\\]^_`{|}~"}, **_ENTITIES}
"""Every ASCII mark, so that no flavour of Markdown finds its own; those of HTML as entities, which count inside it too.
CommonMark 0.31 sections 2.4 and 2.5."""


class TemplateRefused(ToolError):
    """A value cannot stand in its place. The message names the place and the rule, never the value."""


class _Place(NamedTuple):
    literal: str
    """What stands before it."""
    name: str
    write: Callable[[str, str], str]
    """From value and name to what is written."""


@final
class SafeTemplate:
    """A text with places for values.

    Args:
        template: the text, with places `{name}`.
        kind: `html`: entities, and addresses judged where an attribute holds one. `markdown`: every mark escaped, line
            breaks made spaces. `text`: as it is, without control characters. `url`: a `SafeUrl`.
        max_chars: most characters of one value.

    Raises:
        ConfigurationError: braces hold something else than a name, or a place stands where nothing can be made inert:
            in a script, a style, a comment, a tag, an attribute without quotes, in code of Markdown.
    """

    __slots__ = ("_kind", "_last", "_max_chars", "_places", "_url", "names")

    def __init__(self, template: LiteralString, *, kind: Kind, max_chars: int = 100_000) -> None:
        if type(max_chars) is not int or max_chars < 1:
            raise ConfigurationError("SafeTemplate.max_chars must be a positive integer")
        if kind not in ("html", "markdown", "text", "url"):
            raise ConfigurationError('SafeTemplate.kind: "html", "markdown", "text" or "url"')
        self._kind = kind
        self._max_chars = max_chars
        self._url = urls.SafeUrl(template, max_chars=max_chars) if kind == "url" else None
        literals, names = ([""], []) if kind == "url" else _parsed(template)
        self._places = tuple(map(_Place, literals, names, _writers(kind, literals)))
        self._last = literals[-1]
        self.names = self._url.variables if self._url is not None else tuple(dict.fromkeys(names))
        """The names of the places, in the order of the template."""

    def __repr__(self) -> str:
        return f"SafeTemplate(kind={self._kind!r}, names={self.names!r})"

    def render(self, **values: str | int | float) -> str:
        """The text with its values.

        Args:
            values: one for each name of the template.

        Raises:
            TemplateRefused: a value is too long, or an address that may not stand there.
            UrlRefused: a value cannot be a piece of its URL.
            TypeError: a value is missing, one too many, or neither text nor a number.
        """
        if self._url is not None:
            return self._url.build(**values)
        if values.keys() != set(self.names):
            raise TypeError(f"SafeTemplate: the values must be those of {', '.join(self.names) or 'no name'}")
        texts = {name: self._text(name, value) for name, value in values.items()}
        made: list[str] = []
        for place in self._places:
            made += (place.literal, place.write(texts[place.name], place.name))
        made.append(self._last)
        return "".join(made)

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str | int | float):
            raise TypeError("SafeTemplate: a value is text or a number")
        text = str(value)
        if len(text) > self._max_chars:
            raise _refused(f"{name}: is too long", "SafeTemplate.max_chars")
        return _CONTROL.sub("\ufffd", text)


def _parsed(template: str) -> tuple[list[str], list[str]]:
    """The literal pieces and the names between them."""
    literals, names = [""], list[str]()
    at = 0
    for match in _TOKEN.finditer(template):
        literals[-1] += template[at : match.start()]
        at = match.end()
        if match[1] is not None:
            names.append(match[1])
            literals.append("")
        elif match[0] in ("{{", "}}"):
            literals[-1] += match[0][0]
        else:
            raise ConfigurationError("SafeTemplate: braces hold a plain name, {name}; write a brace as {{ or }}")
    literals[-1] += template[at:]
    return literals, names


def _writers(kind: Kind, literals: Sequence[str]) -> list[Callable[[str, str], str]]:
    """How the value of each place is written."""
    match kind:
        case "html":
            return [_HTML[place] for place in html_places(literals)]
        case "markdown":
            return [_IN_MARKDOWN[place] for place in markdown_places(literals)]
        case _:
            return [_as_it_is] * (len(literals) - 1)


def _as_it_is(value: str, name: str) -> str:
    return value


def _entities(value: str, name: str) -> str:
    return value.translate(_ENTITIES)


def _marks(value: str, name: str) -> str:
    """A line break would begin a block; of spaces, Markdown keeps one."""
    return " ".join(value.split()).translate(_MARKDOWN)


def _address(value: str, name: str) -> str:
    """An absolute address of a harmless scheme, with everything encoded that could end it."""
    from urllib.parse import quote

    if _ADDRESS.fullmatch(value) is None or any(char.isspace() for char in value) or "\ufffd" in value:
        raise _refused(f"{name}: is not an address of http, https or mailto")
    return quote(value, safe="%:/?#[]@!$&*+,;=~-._").translate(_ENTITIES)


def _segment(value: str, name: str) -> str:
    return urls.encoded(value, name, in_query=False)


def _query(value: str, name: str) -> str:
    return urls.encoded(value, name, in_query=True)


_HTML: Final = {
    Place.TEXT: _entities,
    Place.ADDRESS: _address,
    Place.SEGMENT: _segment,
    Place.QUERY: _query,
}
_IN_MARKDOWN: Final = {**_HTML, Place.TEXT: _marks}


def _refused(text: str, setting: str = "") -> TemplateRefused:
    events.record("template.refused", text, setting=setting)
    return TemplateRefused(f"{text} ({setting})" if setting else text)
