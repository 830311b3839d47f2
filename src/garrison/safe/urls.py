"""URLs put together from parts that a peer chose.

    users = SafeUrl("https://api.example.com/v1/users/{id}")
    await fetch.get(users.build(id=user_id))
    await fetch.get(url("https://api.example.com/search", {"q": words}))

Rules of this file:
- Scheme, host and port come from the program. A value stands in the path or in the query, and nowhere else.
- A value in the path is percent-encoded and stays in the segment that the program wrote. What would be another place
  for a server that decodes once more (`..`, `../x`, `%2e%2e/x`) is refused rather than encoded.
- A value in the query is one value: `&`, `=`, `#` and `+` are encoded.

Spec: RFC 3986 sections 2.1, 3.3 and 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import quote, unquote

from .. import events
from ..errors import ConfigurationError, ToolError

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = ["SafeUrl", "UrlRefused", "UrlValue", "encoded", "url"]

_NAME: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_BEFORE_PATH: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?=[/?]|\Z)")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SEPARATOR: Final = re.compile(r"[/\\]")
_DECODINGS: Final = 3
"""How often a value is decoded in the search for dot segments: by servers behind servers."""

UrlValue = str | int | float | bool
"""What may stand in a URL. True and False are written `true` and `false`."""


class UrlRefused(ToolError):
    """A value cannot stand in the URL. The message names the variable and the rule, never the value."""


class _Piece(NamedTuple):
    """The program's text, and the variable that follows it; none at the end."""

    text: str
    variable: str
    in_query: bool


@final
class SafeUrl:
    """A URL with places for values.

    Args:
        template: an absolute http or https URL; `{name}` in its path or query is a place for a value.
        max_chars: most characters of one value.

    Raises:
        ConfigurationError: the template is not of its form: a place in scheme, host or port, user information, a
            fragment, or braces around something else than a name.
    """

    __slots__ = ("_max_chars", "_pieces", "_template", "variables")

    def __init__(self, template: LiteralString, *, max_chars: int = 1024) -> None:
        if type(max_chars) is not int or max_chars < 1:
            raise ConfigurationError("SafeUrl.max_chars must be a positive integer")
        self._template = str(template)
        self._max_chars = max_chars
        self._pieces = _pieces(self._template)
        self.variables = tuple(dict.fromkeys(piece.variable for piece in self._pieces if piece.variable))
        """The names in the template, in its order."""

    def __repr__(self) -> str:
        return f"SafeUrl({self._template!r})"

    def build(self, query: Mapping[str, UrlValue | Sequence[UrlValue]] | None = None, /, **values: UrlValue) -> str:
        """The URL.

        Args:
            query: further parameters, in this order; of a sequence each is one parameter.
            values: one for each variable of the template.

        Raises:
            UrlRefused: a value cannot stand where it would.
            TypeError: a value is missing, one too many, or neither text nor a number.
        """
        if values.keys() != set(self.variables):
            raise TypeError(f"SafeUrl: the values must be those of {', '.join(self.variables) or 'no variable'}")
        made: list[str] = []
        for piece in self._pieces:
            made.append(piece.text)
            if piece.variable:
                text = _text(values[piece.variable])
                made.append(self._encoded(text, piece.variable, in_query=piece.in_query))
        whole = "".join(made)
        if not query:
            return whole
        pairs = "&".join(
            f"{self._encoded(name, 'query', in_query=True)}={self._encoded(_text(each), 'query', in_query=True)}"
            for name, value in query.items()
            for each in ((value,) if isinstance(value, str | int | float) else value)
        )
        joint = "" if not pairs or whole.endswith(("?", "&")) else "&" if "?" in whole else "?"
        return whole + joint + pairs

    def _encoded(self, value: str, name: str, *, in_query: bool) -> str:
        if len(value) > self._max_chars:
            raise refused(f"{name}: is too long", "SafeUrl.max_chars")
        return encoded(value, name, in_query=in_query)


def url(
    template: LiteralString,
    query: Mapping[str, UrlValue | Sequence[UrlValue]] | None = None,
    /,
    **values: UrlValue,
) -> str:
    """`SafeUrl(template).build(query, **values)`, for a URL that is built once.

    Raises:
        ConfigurationError, UrlRefused, TypeError: as there.
    """
    return SafeUrl(template).build(query, **values)


def encoded(value: str, name: str, *, in_query: bool) -> str:
    """A value, percent-encoded for its place: one segment of a path, or one value of a query.

    Raises:
        UrlRefused: it cannot stand there; the message calls it `name`.
    """
    if in_query:
        if _SURROGATE.search(value):
            raise refused(f"{name}: is not Unicode text")
        return quote(value, safe="")
    if not value:
        raise refused(f"{name}: is empty")
    seen = value
    for _ in range(_DECODINGS):
        if _CONTROL.search(seen):
            raise refused(f"{name}: has control characters")
        if any(segment.partition(";")[0] in (".", "..") for segment in _SEPARATOR.split(seen)):
            raise refused(f"{name}: has dot segments")
        decoded = unquote(seen, errors="replace")
        if decoded == seen:
            break
        seen = decoded
    return quote(value, safe="")


def refused(text: str, setting: str = "") -> UrlRefused:
    """The error for a value, after its security event."""
    events.record("url.refused", text, setting=setting)
    return UrlRefused(f"{text} ({setting})" if setting else text)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError("SafeUrl: a value is text or a number")


def _pieces(template: str) -> tuple[_Piece, ...]:
    begin = _BEFORE_PATH.match(template)
    if begin is None:
        raise ConfigurationError("SafeUrl: begin with https://host, or http://host, without places in it")
    if not _VISIBLE.fullmatch(template) or "#" in template or "\\" in template:
        raise ConfigurationError("SafeUrl: visible ASCII characters only, no backslash and no fragment")
    found: list[_Piece] = []
    at = 0
    for match in _NAME.finditer(template):
        found.append(_Piece(template[at : match.start()], match[1], "?" in template[: match.start()]))
        at = match.end()
    found.append(_Piece(template[at:], "", False))
    if any("{" in piece.text or "}" in piece.text for piece in found):
        raise ConfigurationError("SafeUrl: braces hold a plain name, {id}; write others as %7B and %7D")
    path = template[begin.end() :].partition("?")[0]
    if any(segment in (".", "..") for segment in path.split("/")):
        raise ConfigurationError("SafeUrl: the path has a dot segment")
    return tuple(found)
