"""A case: what shows that one setting does something.

    @case(Limits, "json_depth", default=200, changed=(6, 400))
    async def json_depth(value: int) -> object:
        ...  # start a server or a client with this value, and say what is seen from outside

Rules of this package:
- `observe` looks at a live server or client from the other end, and says what it saw as a plain value.
- A case says what is seen with the default, or with a `first` value where there is no default or it takes too long to
  show, and what is seen with a changed one. Each has to be seen exactly, so that nothing passes by noise.
- A setting may have several cases, where several transports apply it each in its own way.
- What authors of tools call (`SafeRoot` and the like) is observed through a tool of a live server; so is what is said
  about a tool.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, is_typeddict

import pytest

__all__ = ["CASES", "Case", "case", "default_of", "names_of", "rows", "title_of"]

Observe = Callable[[Any], Awaitable[object]]
NONE = inspect.Parameter.empty


class Case(NamedTuple):
    """See the top of this file."""

    observe: Observe
    first: tuple[Any, object]
    """A value, and what is seen with it."""
    changed: tuple[Any, object]
    apart: bool
    """The two observations must not be made at the same time."""
    peer: bool
    """It needs a program that is not Python's."""


CASES: dict[tuple[object, str], list[Case]] = {}
"""Class or function, and the name of a field or parameter -> its cases."""


def case(
    owner: object,
    name: str,
    *,
    default: object = NONE,
    first: tuple[Any, object] | None = None,
    changed: tuple[Any, object],
    apart: bool = False,
    peer: bool = False,
) -> Callable[[Observe], Observe]:
    """Add a case.

    Args:
        owner: the class or function whose setting it is.
        name: the field or parameter.
        default: what is seen with the default.
        first: in place of `default`, another value and what is seen with it.
        changed: the changed value and what is seen with it.
        apart: observe one after the other.
        peer: it needs a program that is not Python's.
    """
    if first is None:
        # A setting that there is not is told by the test, beside the others.
        first = (default_of(owner, name) if name in names_of(owner) else None, default)

    def add(observe: Observe) -> Observe:
        CASES.setdefault((owner, name), []).append(Case(observe, first, changed, apart, peer))
        return observe

    return add


def names_of(owner: object) -> tuple[str, ...]:
    """The settings of a class or function, or the keys of a `TypedDict` of options."""
    if is_typeddict(owner):
        return tuple(sorted(owner.__required_keys__ | owner.__optional_keys__))  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(owner):
        return tuple(field.name for field in dataclasses.fields(owner) if field.init)
    return tuple(name for name in inspect.signature(_called(owner)).parameters if name != "self")


def default_of(owner: object, name: str) -> Any:
    """A setting's default; None for an option that is not given; an error where it has none."""
    found: object = NONE
    if is_typeddict(owner):
        return None
    if dataclasses.is_dataclass(owner):
        (field,) = [field for field in dataclasses.fields(owner) if field.name == name]
        if field.default is not dataclasses.MISSING:
            found = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found = field.default_factory()
    else:
        found = inspect.signature(_called(owner)).parameters[name].default
    if found is NONE:
        raise ValueError(f"{title_of(owner)}.{name} has no default: say first=(value, what is seen)")
    return found


def rows(settings: Iterable[tuple[object, Iterable[str]]]) -> list[Any]:
    """Every case of every setting; None where a setting has none."""
    found: list[Any] = []
    for owner, names in settings:
        for name in names:
            for number, each in enumerate(CASES.get((owner, name), [None])):
                ending = f"-{number + 1}" if number else ""
                marks = [pytest.mark.peer] if each is not None and each.peer else []
                found.append(pytest.param(owner, name, each, id=f"{title_of(owner)}.{name}{ending}", marks=marks))
    return found


def title_of(owner: object) -> str:
    """What a test calls it."""
    return getattr(owner, "__qualname__", repr(owner))


def _called(owner: object) -> Callable[..., object]:
    found: Any = owner.__init__ if isinstance(owner, type) else owner
    return found
