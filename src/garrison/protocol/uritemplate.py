"""URI templates (RFC 6570): full expansion, and matching that gives back only values safe to look at.

Rules of this file:
- `expand` follows the RFC to its level 4. Matching is our own, because the RFC leaves it open.
- Matching is linear: literals are searched from the left up to the one variable that may span segments, and from the
  right after it. No regular expression, no second try.
- A template that could be matched in two ways is refused when it is made, with the reason.
- A value is percent-decoded exactly once, and a value that could climb out of its place is no match:
  `{var}` is one whole path segment, `{+var}` may span segments but has no `.` or `..` among them.
- In a query, parameters may come in any order and may be absent; unknown and repeated ones are no match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast, final

import msgspec

from .uri import UriError, is_uri_text, percent_decode

__all__ = ["MAX_TEMPLATE_CHARS", "MAX_VARIABLES", "UriTemplate", "Value", "expand"]

MAX_TEMPLATE_CHARS: Final = 8 * 1024
MAX_VARIABLES: Final = 64

Value = str | int | Sequence[str] | Mapping[str, str] | None
"""What a variable may hold in an expansion; None and empty lists and maps are undefined."""


class _Operator(msgspec.Struct, frozen=True):
    """A row of the table in RFC 6570, appendix A."""

    first: str
    separator: str
    named: bool
    if_empty: str
    reserved: bool


_OPERATORS = {
    "": _Operator("", ",", False, "", False),
    "+": _Operator("", ",", False, "", True),
    "#": _Operator("#", ",", False, "", True),
    ".": _Operator(".", ".", False, "", False),
    "/": _Operator("/", "/", False, "", False),
    ";": _Operator(";", ";", True, "", False),
    "?": _Operator("?", "&", True, "=", False),
    "&": _Operator("&", "&", True, "=", False),
}


class _Variable(msgspec.Struct, frozen=True):
    name: str
    explode: bool
    prefix: int


class _Expression(msgspec.Struct, frozen=True):
    operator: str
    variables: tuple[_Variable, ...]


_VARIABLE = re.compile(r"((?:\w|%[0-9A-Fa-f]{2})++(?:\.(?:\w|%[0-9A-Fa-f]{2})++)*+)(\*|:[1-9][0-9]{0,3})?", re.ASCII)
_NOT_LITERAL = re.compile(r"[\x00-\x20\"<>\\^`{|}\x7f]|%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[^A-Za-z0-9\-._~]")
_RESERVED = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]")
_SEGMENT_END = re.compile(r"[/?#]")


def _parse(template: str) -> tuple[str | _Expression, ...]:
    if len(template) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"a URI template must be at most {MAX_TEMPLATE_CHARS} characters")
    parts: list[str | _Expression] = []
    count = 0
    position = 0
    while position < len(template):
        start = template.find("{", position)
        literal = template[position : start if start >= 0 else None]
        if _NOT_LITERAL.search(literal):
            raise ValueError("a URI template holds a character that must be percent-encoded, or a stray brace")
        if literal:
            parts.append(_encode(literal, reserved=True))
        if start < 0:
            break
        end = template.find("}", start)
        if end < 0:
            raise ValueError("a URI template holds an expression without its closing brace")
        expression = _expression(template[start + 1 : end])
        count += len(expression.variables)
        if count > MAX_VARIABLES:
            raise ValueError(f"a URI template must have at most {MAX_VARIABLES} variables")
        parts.append(expression)
        position = end + 1
    return tuple(parts)


def _expression(text: str) -> _Expression:
    operator = text[:1] if text[:1] in _OPERATORS else ""
    variables: list[_Variable] = []
    for spec in text[len(operator) :].split(","):
        match = _VARIABLE.fullmatch(spec)
        if match is None:
            raise ValueError("a URI template holds an expression that RFC 6570 does not define")
        modifier = match[2] or ""
        variables.append(_Variable(match[1], modifier == "*", int(modifier[1:]) if modifier[:1] == ":" else 0))
    return _Expression(operator, tuple(variables))


def _encode(text: str, *, reserved: bool) -> str:
    return (_RESERVED if reserved else _UNRESERVED).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    return found if len(found) == 3 else "".join(f"%{byte:02X}" for byte in found.encode())


def expand(template: str, values: Mapping[str, Value]) -> str:
    """The URI that a template gives with these values.

    Raises:
        ValueError: the template is not RFC 6570, or a prefix is asked of a list or map.

    Spec: RFC 6570, section 3.
    """
    return _expand(_parse(template), values)


def _expand(parts: tuple[str | _Expression, ...], values: Mapping[str, Value]) -> str:
    return "".join(part if isinstance(part, str) else _expand_expression(part, values) for part in parts)


def _expand_expression(expression: _Expression, values: Mapping[str, Value]) -> str:
    operator = _OPERATORS[expression.operator]
    pieces: list[str] = []
    for variable in expression.variables:
        value = values.get(variable.name)
        if isinstance(value, str | int):
            text = str(value)
            text = _encode(text[: variable.prefix] if variable.prefix else text, reserved=operator.reserved)
            pieces.append(_named(operator, variable.name, text))
        elif value:
            if variable.prefix:
                raise ValueError(f"variable {variable.name} has a prefix and must be a text")
            pieces += _expand_many(operator, variable, value)
    return operator.first + operator.separator.join(pieces) if pieces else ""


def _expand_many(operator: _Operator, variable: _Variable, value: Sequence[str] | Mapping[str, str]) -> list[str]:
    if isinstance(value, Mapping):
        items = [[_encode(part, reserved=operator.reserved) for part in pair] for pair in value.items()]
        if variable.explode:
            return [_named(operator, name, text) if operator.named else f"{name}={text}" for name, text in items]
        texts = [part for pair in items for part in pair]
    else:
        texts = [_encode(item, reserved=operator.reserved) for item in value]
        if variable.explode:
            return [_named(operator, variable.name, text) for text in texts]
    return [_named(operator, variable.name, ",".join(texts))]


def _named(operator: _Operator, name: str, text: str) -> str:
    if not operator.named:
        return text
    return f"{name}={text}" if text else name + operator.if_empty


_Kind = Literal["segment", "reserved", "list", "parameters"]


class _Capture(msgspec.Struct, frozen=True):
    """A place where a URI differs from its template: one variable, or the `;` parameters of a segment.

    `separator` cuts a list into items. `banned` are characters that would belong to a later expression.
    `rooted` says that a slash stands before it, so that the value must not begin with another one.
    """

    kind: _Kind
    variables: tuple[_Variable, ...]
    separator: str = ""
    banned: str = ""
    rooted: bool = False

    @property
    def spans(self) -> bool:
        return self.kind == "reserved" or self.separator == "/"


class _Shape(msgspec.Struct, frozen=True):
    """Literals and captures in turn, one literal more than captures; `pivot` is the capture that takes what is left."""

    literals: tuple[str, ...]
    captures: tuple[_Capture, ...]
    pivot: int

    def scan(self, text: str) -> list[str] | None:
        """What each capture covers, or None. Time is linear in the text."""
        first, last = self.literals[0], self.literals[-1]
        left, right = len(first), len(text) - len(last)
        if not self.captures:
            return [] if text == first else None
        if right <= left or not text.startswith(first) or not text.endswith(last):
            return None
        found = [""] * len(self.captures)
        for index in range(self.pivot):
            literal = self.literals[index + 1]
            at = text.find(literal, left + 1, right)
            if at < 0:
                return None
            found[index], left = text[left:at], at + len(literal)
        # From the right on reversed text: `str.rfind` is not linear for every needle.
        backward = text[::-1] if self.pivot + 1 < len(self.captures) else ""
        size = len(text)
        for index in range(len(self.captures) - 1, self.pivot, -1):
            if self.captures[index].kind == "parameters":
                # They hold what they begin with, and nothing between the pivot and them does: the first one is theirs.
                literal = self.literals[index]
                at = text.find(literal, left + 1, right - 1)
                if at < 0:
                    return None
                found[index], right = text[at + len(literal) : right], at
                continue
            literal = self.literals[index][::-1]
            at = backward.find(literal, size - right + 1, size - left)
            if at < 0:
                return None
            found[index], right = text[size - at : right], size - at - len(literal)
        if right <= left:
            return None
        found[self.pivot] = text[left:right]
        return found


@final
class UriTemplate:
    """A template that makes and matches URIs.

    Args:
        template: RFC 6570, at most `MAX_TEMPLATE_CHARS` characters and `MAX_VARIABLES` variables.

    Raises:
        ValueError: it is not RFC 6570, too large, or could be matched in more than one way.
    """

    __slots__ = ("_ampersands", "_fragment", "_parts", "_query", "_query_first", "_shapes", "template", "variables")

    def __init__(self, template: str) -> None:
        self.template: Final = template
        """The template as written."""
        self._parts = _parse(template)
        expressions = [part for part in self._parts if isinstance(part, _Expression)]
        self.variables: Final[tuple[str, ...]] = tuple(item.name for each in expressions for item in each.variables)
        """The names of the variables, in order."""
        if len(set(self.variables)) < len(self.variables):
            raise ValueError("a URI template that is matched must not use a variable twice")
        main = list(self._parts)
        fragment = _pop(main, "#")
        self._fragment = None if fragment is None else _Capture("reserved", (_only(fragment),))
        queries: list[_Expression] = []
        while (query := _pop(main, "?", "&")) is not None:
            queries.insert(0, query)
        tails = [part.operator for part in (*main, *queries[1:]) if isinstance(part, _Expression)]
        if "#" in tails or "?" in tails or any(part in main for part in expressions if part.operator == "&"):
            raise ValueError("a URI template must end with its query expressions, '?' first, and then its fragment")
        self._query = {item.name: item for part in queries for item in part.variables}
        self._query_first = bool(queries) and queries[0].operator == "?"
        fixed = "".join(part for part in main if isinstance(part, str))
        if fixed.count("#") + (self._fragment is not None) > 1:
            raise ValueError("a URI template must not have more than one fragment")
        if self._query_first and "?" in fixed:
            raise ValueError("a URI template must continue a literal query with '&', not with '?'")
        self._ampersands = fixed.partition("?")[2].count("&") if "?" in fixed else fixed.count("&")
        self._shapes = self._flatten(main)

    def __repr__(self) -> str:
        return f"UriTemplate({self.template!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UriTemplate) and other.template == self.template

    def __hash__(self) -> int:
        return hash(self.template)

    def expand(self, values: Mapping[str, Value]) -> str:
        """The URI that the template gives with these values.

        Raises:
            ValueError: a prefix is asked of a list or map.
        """
        return _expand(self._parts, values)

    def match(self, uri: str) -> dict[str, str | list[str]] | None:
        """The decoded values of the variables if the URI fits the template, else None.

        A variable with `*` gives a list. Absent parameters of `{?...}`, `{&...}`, `{;...}` and `{#...}` are left out.
        """
        if not is_uri_text(uri):
            return None
        values: dict[str, str | list[str]] = {}
        try:
            return values if self._match(uri, values) else None
        except UriError:
            return None

    def _match(self, uri: str, values: dict[str, str | list[str]]) -> bool:
        if self._fragment:
            uri, mark, fragment = uri.partition("#")
            if mark and not _take(self._fragment, fragment, values):
                return False
        if self._query:
            uri, query = self._split_query(uri)
            if query is not None and ("#" in query or not _take_parameters(self._query, query.split("&"), values)):
                return False
        for shape in self._shapes:
            found = shape.scan(uri)
            if found is not None:
                return all(_take(capture, raw, values) for capture, raw in zip(shape.captures, found, strict=True))
        return False

    def _split_query(self, uri: str) -> tuple[str, str | None]:
        if self._query_first:
            head, mark, query = uri.partition("?")
            return head, query if mark else None
        at = uri.find("?")
        for _ in range(self._ampersands + 1):
            at = uri.find("&", at + 1)
            if at < 0:
                return uri, None
        return uri[:at], uri[at + 1 :]

    def _flatten(self, main: list[str | _Expression]) -> tuple[_Shape, ...]:
        parameters = [part for part in main if isinstance(part, _Expression) and part.operator == ";"]
        if len(parameters) > 1:
            raise ValueError("a URI template must not have more than one ';' expression")
        banned = (";" if parameters else "") + ("&" if self._query and not self._query_first else "")
        shape = _shape(main, banned)
        if not parameters:
            return (shape,)
        # All parameters may be absent; then nothing at all stands in their place.
        return shape, _shape([part for part in main if part is not parameters[0]], banned)


def _pop(parts: list[str | _Expression], *operators: str) -> _Expression | None:
    """Take the last part off, if it is an expression with one of these operators."""
    if parts and isinstance(last := parts[-1], _Expression) and last.operator in operators:
        del parts[-1]
        return last
    return None


def _only(part: _Expression) -> _Variable:
    first, *more = part.variables
    if more or first.explode:
        raise ValueError(f"'{{{part.operator}...}}' is ambiguous with several values: a value may hold a comma")
    return first


def _shape(main: list[str | _Expression], banned: str) -> _Shape:
    literals = [""]
    captures: list[_Capture] = []
    for part in main:
        if isinstance(part, str):
            literals[-1] += part
            continue
        operator = _OPERATORS[part.operator]
        if part.operator == "+":
            rooted = literals[-1].endswith("/") and not literals[-1].endswith("://")
            new = [_Capture("reserved", (_only(part),), banned=banned, rooted=rooted)]
        elif part.operator == ";":
            new = [_Capture("parameters", part.variables, separator=";")]
        else:
            new = [
                _Capture("list", (item,), operator.separator, banned)
                if item.explode
                else _Capture("segment", (item,), "", banned)
                for item in part.variables
            ]
        for index, capture in enumerate(new):
            literals[-1] += operator.separator if index else operator.first
            if captures and not literals[-1]:
                raise ValueError("a URI template is ambiguous: two variables stand together without a literal between")
            captures.append(capture)
            literals.append("")
    spanning = [index for index, capture in enumerate(captures) if capture.spans]
    if len(spanning) > 1:
        raise ValueError("a URI template is ambiguous: more than one variable may span several segments")
    pivot = spanning[0] if spanning else len(captures) - 1
    for index, capture in enumerate(captures):
        between = "".join(literals[pivot + 1 : index + 1]).removesuffix(";")
        if capture.kind == "parameters" and ";" in between:
            raise ValueError("a URI template is ambiguous: a literal ';' before the ';' expression")
    return _Shape(tuple(literals), tuple(captures), pivot)


def _take(capture: _Capture, raw: str, values: dict[str, str | list[str]]) -> bool:
    """Decode and check what a capture covers, and note its value."""
    if any(char in raw for char in capture.banned):
        return False
    variable = capture.variables[0]
    if capture.kind == "parameters":
        return not _SEGMENT_END.search(raw) and _take_parameters(
            {item.name: item for item in capture.variables}, raw.split(";"), values
        )
    if capture.kind == "list":
        items = [_segment(item) for item in raw.split(capture.separator)]
        values[variable.name] = [item for item in items if item is not None]
        return None not in items
    value = _segment(raw) if capture.kind == "segment" else _reserved(raw)
    if (
        value is None
        or (variable.prefix and len(value) > variable.prefix)
        or (capture.rooted and value.startswith("/"))
    ):
        return False
    values[variable.name] = value
    return True


def _take_parameters(known: dict[str, _Variable], pairs: list[str], values: dict[str, str | list[str]]) -> bool:
    for pair in pairs:
        name, _, raw = pair.partition("=")
        variable = known.get(name)
        if variable is None:
            return False
        value = percent_decode(raw)
        if variable.prefix and len(value) > variable.prefix:
            return False
        if variable.explode:
            cast("list[str]", values.setdefault(name, [])).append(value)
        elif name in values:
            return False
        else:
            values[name] = value
    return True


def _segment(raw: str) -> str | None:
    """One whole path segment, decoded, or None."""
    if _SEGMENT_END.search(raw):
        return None
    value = percent_decode(raw)
    return None if value in ("", ".", "..") or "/" in value or "\\" in value else value


def _reserved(raw: str) -> str | None:
    """Text that may span segments, decoded, or None."""
    value = percent_decode(raw)
    segments = _SEGMENT_END.split(value)
    return None if not value or "\\" in value or "." in segments or ".." in segments else value
