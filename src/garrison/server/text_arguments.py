"""Parameters of a function as arguments that are all text, as prompts and URI templates have them.

Text, enumerations of text and optional text are taken as they are. Numbers and booleans are read from their JSON text
and nothing else: `7` is an integer, `07`, ` 7` and `7.0` are not. Other types do not register.

Spec: 2026-07-28 server/prompts, "Data Types"; server/utilities/completion.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, cast, get_args, get_origin

from ..errors import InvalidArguments, RegistrationError
from ..safe.parameter import Parameter
from .json_types import unwrap_optional

__all__ = ["TextArgument", "TextArguments"]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,63})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,63})(?:\.[0-9]{1,63})?(?:[eE][+-]?[0-9]{1,3})?")


class TextArgument(NamedTuple):
    """One argument as it is listed."""

    name: str
    description: str | None
    required: bool
    choices: tuple[str, ...]
    """All that the argument may be, for completion; empty when it may be any text."""


class _Described(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def annotation(self) -> object: ...
    @property
    def description(self) -> str | None: ...
    @property
    def required(self) -> bool: ...


def _integer(text: str) -> object:
    if _INTEGER.fullmatch(text) is None:
        raise ValueError("must be an integer")
    return int(text)


def _number(text: str) -> object:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("must be a number")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("must be a number in range")
    return value


def _boolean(text: str) -> object:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _text(text: str) -> object:
    return text


_READERS: dict[object, Callable[[str], object]] = {str: _text, int: _integer, float: _number, bool: _boolean}


class TextArguments:
    """The arguments of one function, listed and read.

    Raises:
        RegistrationError: a parameter that text cannot give.
    """

    __slots__ = ("_readers", "listed", "name")

    def __init__(self, name: str, parameters: Sequence[_Described]) -> None:
        self.name = name
        listed: list[TextArgument] = []
        self._readers: dict[str, Callable[[str], object]] = {}
        for p in parameters:
            kind = _bare(p.annotation)
            choices = _choices(kind)
            reader = _text if choices or _is_text(kind) else _READERS.get(kind)
            if reader is None:
                raise RegistrationError(
                    f"{name}: parameter {p.name!r} must be str, int, float, bool, a Parameter of text, or a Literal or "
                    "Enum of str: its arguments are text"
                )
            self._readers[p.name] = reader
            booleans = ("true", "false") if kind is bool else ()
            listed.append(TextArgument(p.name, p.description, p.required, choices or booleans))
        self.listed = tuple(listed)

    def read(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments as JSON values. Unknown ones are kept, for the binding to refuse.

        Raises:
            InvalidArguments: a value is not text, or not the text of its type.
        """
        values: dict[str, object] = {}
        problems: list[str] = []
        for name, text in arguments.items():
            reader = self._readers.get(name, _text)
            if not isinstance(text, str):
                problems.append(f"{name}: must be a string" if name in self._readers else "an unknown argument")
                continue
            try:
                values[name] = reader(text)
            except ValueError as exc:
                problems.append(f"{name}: {exc}")
        if problems:
            raise InvalidArguments(self.name, tuple(problems[:5]))
        return values


def _bare(annotation: object) -> object:
    """The type without `Annotated` and `None`."""
    for _ in range(4):
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        annotation = unwrap_optional(annotation)[0]
    return annotation


def _is_text(kind: object) -> bool:
    """Whether it is a type of a helper, or of the author's own, that is made from text."""
    return isinstance(kind, type) and issubclass(kind, Parameter) and kind.json_schema().get("type") == "string"


def _choices(kind: object) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        values: tuple[object, ...] = get_args(kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        values = tuple(cast("object", member.value) for member in kind)
    else:
        return ()
    texts = tuple(value for value in values if isinstance(value, str))
    return texts if len(texts) == len(values) else ()
