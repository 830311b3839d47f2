"""`WWW-Authenticate`, both ways: the challenge that a protected resource sends, and those that a client is sent.

Rules of this file:
- The whole grammar of RFC 9110 section 11.6.1 is read: several challenges in one field and in several, parameters as
  tokens and as quoted strings, token68, empty list elements. What does not fit it is refused whole: a client that
  guessed would follow an address that the server did not name.
- What is written holds no control character, so that no value ends a header line, and of the attributes of RFC 6750
  only the characters that section 3 allows.
- Reading takes linear time and `MAX_CHARS` at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

__all__ = ["MAX_CHARS", "ChallengeError", "WwwAuthenticate"]

MAX_CHARS: Final = 16 * 1024
"""Characters that are read of all `WWW-Authenticate` fields of one response."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]++=*+")
_QUOTED: Final = re.compile(r'"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+)"')
_SPACE: Final = re.compile(r"[ \t]*+")
_EQUALS: Final = re.compile(r"[ \t]*+=[ \t]*+")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ATTRIBUTE: Final = re.compile(r"[ !#-\[\]-~]*+")
_SCOPE: Final = re.compile(r"[!#-\[\]-~]++")
_PLAIN: Final = re.compile(r"[\t -~\x80-\xff]*+")
_OWN: Final = ("realm", "scope", "error", "error_description", "resource_metadata")


class ChallengeError(ValueError):
    """The field is not one of RFC 9110. The message names the rule and never repeats the text."""


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WwwAuthenticate:
    """One challenge (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC 9728 section 5.1).

    `str()` of it is the value of a `WWW-Authenticate` field.

    Raises:
        ValueError: a part holds characters that it must not.
    """

    resource_metadata: str | None = None
    """Where the metadata of the protected resource is: a URL."""
    scheme: str = field(default="Bearer", kw_only=True)
    """The authentication scheme; its case means nothing."""
    error: str | None = field(default=None, kw_only=True)
    """What is wrong with the request, mostly an `OAuthError`; none where it showed no credential."""
    error_description: str | None = field(default=None, kw_only=True)
    """The same for developers."""
    scope: tuple[str, ...] = field(default=(), kw_only=True)
    """All scopes that the request needs."""
    realm: str | None = field(default=None, kw_only=True)
    """The protection space (RFC 9110 section 11.5)."""
    parameters: Mapping[str, str] = field(default_factory=_nothing, kw_only=True)
    """Further parameters, as `algs` of DPoP; their names in lower case."""
    token68: str | None = field(default=None, kw_only=True)
    """What schemes without parameters have in their place."""

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.scheme):
            raise ValueError("scheme must be a token of RFC 9110")
        for scope in self.scope:
            if not _SCOPE.fullmatch(scope):
                raise ValueError("scope: each is visible ASCII without quotes and backslashes (RFC 6749 section 3.3)")
        for name in ("error", "error_description"):
            value: str | None = getattr(self, name)
            if value is not None and not _ATTRIBUTE.fullmatch(value):
                raise ValueError(f"{name} must be ASCII without quotes, backslashes and controls (RFC 6750 section 3)")
        for value in (self.resource_metadata, self.realm, *self.parameters.values()):
            if value is not None and not _PLAIN.fullmatch(value):
                raise ValueError("a parameter must be Latin-1 without controls")
        for name in self.parameters:
            if not _TOKEN.fullmatch(name) or name.lower() != name or name in _OWN:
                raise ValueError("parameters: each name is a lower-case token that has no field of its own")
        if self.token68 is not None and (not _TOKEN68.fullmatch(self.token68) or self._attributes()):
            raise ValueError("token68 must be one of RFC 9110, and stands alone")
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def with_error(self, error: str, description: str | None = None) -> WwwAuthenticate:
        """The same challenge that names an error."""
        return replace(self, error=str(error), error_description=description)

    def with_scopes(self, scopes: Iterable[str]) -> WwwAuthenticate:
        """The same challenge that names the scopes that are needed."""
        return replace(self, scope=tuple(scopes))

    def _attributes(self) -> dict[str, str]:
        own = {name: getattr(self, name) for name in _OWN if name != "scope"}
        if self.scope:
            own["scope"] = " ".join(self.scope)
        return {name: own[name] for name in _OWN if own.get(name) is not None} | dict(self.parameters)

    def __str__(self) -> str:
        if self.token68 is not None:
            return f"{self.scheme} {self.token68}"
        pairs = (f"{name}={_quoted(value)}" for name, value in self._attributes().items())
        return f"{self.scheme} {', '.join(pairs)}".rstrip()

    @classmethod
    def parse(cls, *values: str) -> tuple[WwwAuthenticate, ...]:
        """All challenges of a response, in order.

        Args:
            values: the values of its `WWW-Authenticate` fields, decoded as Latin-1.

        Raises:
            ChallengeError: they are no challenges, too long, or name a parameter twice.
        """
        text = ",".join(values)
        if len(text) > MAX_CHARS:
            raise ChallengeError(f"challenges of more than {MAX_CHARS} characters")
        return tuple(_made(*each) for each in _read(text))

    @classmethod
    def select(cls, challenges: Iterable[WwwAuthenticate], *schemes: str) -> WwwAuthenticate | None:
        """The first challenge of the first of these schemes that there is one of."""
        given = tuple(challenges)
        for scheme in schemes:
            for challenge in given:
                if challenge.scheme.lower() == scheme.lower():
                    return challenge
        return None


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _made(scheme: str, token68: str | None, given: dict[str, str]) -> WwwAuthenticate:
    own = {name: given.pop(name) for name in _OWN if name in given}
    scope = tuple(word for word in own.pop("scope", "").split(" ") if word)
    try:
        return WwwAuthenticate(scheme=scheme, token68=token68, parameters=given, scope=scope, **own)
    except ValueError as exc:
        raise ChallengeError(str(exc)) from None


def _read(text: str) -> list[tuple[str, str | None, dict[str, str]]]:
    """Scheme, token68 and parameters of each challenge."""
    found: list[tuple[str, str | None, dict[str, str]]] = []
    at, size = 0, len(text)
    while True:
        at = _past(text, at)
        if at < size and text[at] == ",":
            at += 1  # an empty element, or the end of one
            continue
        if at >= size:
            return found
        parameter = _parameter(text, at)
        if parameter is not None:
            if not found or found[-1][1] is not None:
                raise ChallengeError("a parameter without a scheme")
            name, value, at = parameter
            if name in found[-1][2]:
                raise ChallengeError("a parameter twice in one challenge")
            found[-1][2][name] = value
        else:
            at = _scheme(text, at, found)
        at = _past(text, at)
        if at < size and text[at] != ",":
            raise ChallengeError("something between two challenges")


def _scheme(text: str, at: int, found: list[tuple[str, str | None, dict[str, str]]]) -> int:
    """Read a scheme and what stands beside it before the next comma. Returns where that ends."""
    match = _TOKEN.match(text, at)
    if match is None:
        raise ChallengeError("a challenge must begin with its scheme")
    scheme, at = match[0], match.end()
    begin = _past(text, at)
    if begin == at or begin >= len(text) or text[begin] == ",":
        found.append((scheme, None, {}))
        return begin
    parameter = _parameter(text, begin)
    if parameter is not None:
        name, value, at = parameter
        found.append((scheme, None, {name: value}))
        return at
    match = _TOKEN68.match(text, begin)
    if match is None:
        raise ChallengeError("a scheme must be followed by parameters or a token68")
    found.append((scheme, match[0], {}))
    return match.end()


def _parameter(text: str, at: int) -> tuple[str, str, int] | None:
    """Name, value and end of a parameter that begins here, if one does."""
    name = _TOKEN.match(text, at)
    if name is None:
        return None
    equals = _EQUALS.match(text, name.end())
    if equals is None:
        return None
    quoted = _QUOTED.match(text, equals.end())
    if quoted is not None:
        return name[0].lower(), _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
    value = _TOKEN.match(text, equals.end())
    return None if value is None else (name[0].lower(), value[0], value.end())


def _past(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
