"""Arguments of a command as templates with typed slots, and what a value may be to stand in one.

Rules of this file:
- A word of a template becomes one argument, or with `{name*}` one for each value. Nothing is split or expanded.
- What stands in a slot is never an option: a value that begins like one is refused where a program would read one, and
  a template in which a slot's text would go on with the name of an option is refused when it is made.
- Nothing is repaired: a value arrives byte by byte as it was given, or is refused. Errors name the slot and the rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from ..errors import ConfigurationError
from .parameter import Parameter, ParameterError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["SafeArgument", "Slot", "SlotError", "Template"]

_LONGEST: Final = 4096
_MOST_VALUES: Final = 256
_MOST_BYTES: Final = 96 * 1024
"""Of all arguments of a call: below what Linux takes, for one and for all of them."""
_BIGGEST: Final = 2**63
_UNPRINTED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLACE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}|[{}]")
_TYPES: Final = "a Parameter class, str, int, range, a compiled pattern, a list of texts or an Enum of texts"

Kind = type[str] | type[int] | range | re.Pattern[str] | Sequence[str] | frozenset[str] | type[Parameter] | type[Enum]


class SlotError(ValueError):
    """A value breaks a rule of its slot, or there is one too many. `slot` is its name, if one is known."""

    def __init__(self, slot: str, rule: str) -> None:
        super().__init__(f"slot {slot!r} {rule}" if slot else rule)
        self.slot = slot
        self.rule = rule


class SafeArgument(Parameter):
    """A text that can stand as one argument of a command: a parameter type for tools, and a type of slots.

    Args:
        text: 1 to 4096 bytes of UTF-8, without control characters and line breaks; it begins with none of `-`, `+`
            and `@`, which programs read as options and as files of arguments.

    Raises:
        ParameterError: it is not such a text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        rule = _broken(text, empty=False, at_sign=False) or _optional(text)
        if rule:
            raise ParameterError(rule)
        self._text = text

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """A string of 1 to 4096 characters."""
        return {"type": "string", "minLength": 1, "maxLength": _LONGEST}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The argument. Raises `ParameterError`."""
        if not isinstance(value, str):
            raise ParameterError("must be a text")
        return cls(value)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, SafeArgument) else NotImplemented

    def __hash__(self) -> int:
        return hash((SafeArgument, self._text))


class Slot:
    """The type of a slot, with what it allows beside its rules.

    Args:
        kind: `str` for any text; `int`; a `range` for numbers of it; a compiled pattern that the whole text matches; a
            list or set of texts, or an `Enum` of them, for one of those as they stand; a `Parameter` class for what it
            accepts, as text.
        empty: allow the empty text.
        at_sign: allow texts that begin with `@`, which many programs read as the name of a file of arguments or data.

    Raises:
        ConfigurationError: the kind is none of these.
    """

    __slots__ = ("at_sign", "chosen", "empty", "number", "read")

    def __init__(self, kind: Kind, *, empty: bool = False, at_sign: bool = False) -> None:
        self.read: Callable[[object], str]
        self.read, self.chosen, self.number = _reader(kind)
        self.empty = empty
        self.at_sign = at_sign

    def text(self, name: str, value: object) -> str:
        """The value as it will stand in an argument.

        Raises:
            SlotError: it breaks a rule.
        """
        try:
            text = self.read(value)
        except ParameterError as exc:
            raise SlotError(name, str(exc)) from None
        rule = "" if self.chosen else _broken(text, empty=self.empty, at_sign=self.at_sign)
        if rule:
            raise SlotError(name, rule)
        return text


class _Piece(NamedTuple):
    """Fixed text, then a slot; the last of a word has none."""

    text: str
    slot: str = ""


class _Word(NamedTuple):
    pieces: tuple[_Piece, ...]
    after_end: bool
    """After `--`, where programs look for no options."""
    each: bool
    """One argument for each value."""


class Template:
    """The arguments of one operation.

    Args:
        name: the operation's, for errors.
        words: one text for each argument. `{slot}` is replaced by a value, `{slot*}` standing alone by any number of
            them; `{{` and `}}` are braces.
        slots: the types of its slots, and of others.

    Raises:
        ConfigurationError: a word is no template, a slot has no type, or a value could become an option.
    """

    def __init__(self, name: str, words: Sequence[str], slots: Mapping[str, Slot]) -> None:
        if isinstance(words, str) or not all(type(word) is str for word in cast("Sequence[object]", words)):
            raise ConfigurationError(f"operation {name!r}: its arguments are a list of texts, one for each")
        self._slots: dict[str, Slot] = {}
        found: list[_Word] = []
        after_end = False
        for word in words:
            if _UNPRINTED.search(word):
                raise ConfigurationError(f"operation {name!r}: an argument has a control character in it")
            try:
                pieces, each = _parsed(word)
                for piece in pieces:
                    if piece.slot:
                        self._slots[piece.slot] = _known(slots, piece.slot)
                _check_options(pieces, slots, after_end=after_end)
            except ValueError as exc:
                raise ConfigurationError(f"operation {name!r}, argument {word!r}: {exc}") from None
            found.append(_Word(pieces, after_end, each))
            after_end = after_end or word == "--"
        self._words = tuple(found)
        self.several = frozenset(word.pieces[0].slot for word in found if word.each)
        """The slots that take a list."""
        if any(piece.slot in self.several for word in found if not word.each for piece in word.pieces):
            raise ConfigurationError(f"operation {name!r}: a slot stands both with `*` and without")

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of its slots, in their order."""
        return tuple(self._slots)

    def free_after(self, options: Sequence[str]) -> bool:
        """Whether text of a caller follows one of these options: as the next argument, or in the same."""
        before = ""
        for word in self._words:
            free = any(piece.slot and not self._fixed(piece.slot) for piece in word.pieces)
            if free and (before in options or word.pieces[0].text.startswith(tuple(options))):
                return True
            before = word.pieces[0].text
        return False

    def arguments(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """The arguments, with these values in their slots.

        Raises:
            SlotError: a value is missing, one too many, or breaks a rule.
        """
        for name in self._slots:
            if name not in values:
                raise SlotError(name, "is missing")
        if len(values) > len(self._slots):
            raise SlotError("", f"takes values for {', '.join(self._slots) or 'no slot'}, and no other")
        found: list[str] = []
        for word in self._words:
            if word.each:
                found += self._several(word, values[word.pieces[0].slot])
            else:
                found.append(self._one(word, values))
        if sum(len(argument.encode()) + 1 for argument in found) > _MOST_BYTES:
            raise SlotError(self.slots[-1] if self._slots else "", f"makes more than {_MOST_BYTES} bytes of arguments")
        return tuple(found)

    def _several(self, word: _Word, value: object) -> list[str]:
        name = word.pieces[0].slot
        if not isinstance(value, list | tuple):
            raise SlotError(name, "must be a list")
        items = cast("Sequence[object]", value)
        if len(items) > _MOST_VALUES:
            raise SlotError(name, f"must not have more than {_MOST_VALUES} values")
        return [self._one(word, {name: item}) for item in items]

    def _one(self, word: _Word, values: Mapping[str, object]) -> str:
        parts: list[str] = []
        for piece in word.pieces:
            parts.append(piece.text)
            if piece.slot:
                parts.append(self._slots[piece.slot].text(piece.slot, values[piece.slot]))
        argument = "".join(parts)
        first = word.pieces[0]
        if first.slot and not first.text and not word.after_end and not self._slots[first.slot].chosen:
            rule = _optional(argument)
            if rule:
                raise SlotError(first.slot, rule)
        return argument

    def _fixed(self, slot: str) -> bool:
        return self._slots[slot].chosen or self._slots[slot].number


def _parsed(word: str) -> tuple[tuple[_Piece, ...], bool]:
    """A word's pieces, and whether it stands for any number of arguments."""
    pieces: list[_Piece] = []
    text: list[str] = []
    position = 0
    each = False
    for match in _PLACE.finditer(word):
        text.append(word[position : match.start()])
        position = match.end()
        if match[0] in ("{{", "}}"):
            text.append(match[0][0])
        elif match[1] is None:
            raise ValueError("a lone brace (write {{ or }} for one)")
        else:
            each = each or bool(match[2])
            pieces.append(_Piece("".join(text), match[1]))
            text = []
    text.append(word[position:])
    rest = "".join(text)
    if each and (len(pieces) > 1 or pieces[0].text or rest):
        raise ValueError("{slot*} stands alone in its argument")
    if any(not piece.text for piece in pieces[1:]):
        raise ValueError("two slots with nothing between them")
    return (*pieces, _Piece(rest)), each


def _known(slots: Mapping[str, Slot], name: str) -> Slot:
    if name not in slots:
        raise ValueError(f"slot {name!r} has no type: slots={{{name!r}: ...}}, {_TYPES}")
    return slots[name]


def _check_options(pieces: tuple[_Piece, ...], slots: Mapping[str, Slot], *, after_end: bool) -> None:
    """Refuse a word in which a slot's text would be the name of an option, or a part of it."""
    if after_end or not pieces[0].text.startswith("-"):
        return
    before = ""
    for piece in pieces:
        before += piece.text
        if not piece.slot or slots[piece.slot].chosen:
            continue
        if before in ("-", "--") or (before.startswith("--") and "=" not in before):
            raise ValueError(f"what stands in {piece.slot!r} would be the name of an option: write --option={{slot}}")


def _broken(text: str, *, empty: bool, at_sign: bool) -> str:
    """The rule of every argument that a text breaks; empty when it breaks none."""
    if not text:
        return "" if empty else "must not be empty"
    if len(text) > _LONGEST:
        return f"must not be longer than {_LONGEST} bytes"
    if _UNPRINTED.search(text):
        return "must not have control characters or line breaks"
    if len(text.encode()) > _LONGEST:
        return f"must not be longer than {_LONGEST} bytes"
    return "must not begin with @" if text[0] == "@" and not at_sign else ""


def _optional(argument: str) -> str:
    """The rule that an argument breaks which programs read as an option."""
    if argument[:1] == "-":
        return "must not begin with a dash"
    return "must not begin with a plus sign" if argument[:1] == "+" else ""


def _reader(kind: object) -> tuple[Callable[[object], str], bool, bool]:
    """From a value to its text; whether all texts are written by the author; whether they are numbers."""
    if kind is str:
        return _text, False, False
    if kind is int:
        return lambda value: _number(value, range(-_BIGGEST, _BIGGEST), "must be a whole number"), False, True
    if isinstance(kind, range):
        if not kind:
            raise ConfigurationError("a slot's range is empty")
        allowed = kind
        rule = f"must be a whole number from {min(kind[0], kind[-1])} to {max(kind[0], kind[-1])}"
        rule += f" in steps of {abs(kind.step)}" if abs(kind.step) != 1 else ""
        return lambda value: _number(value, allowed, rule), False, True
    if isinstance(kind, re.Pattern):
        return _matching(cast("re.Pattern[str]", kind)), False, False
    if isinstance(kind, type) and issubclass(kind, Parameter):
        return _accepting(kind), False, False
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choosing([member.value for member in kind]), True, False
    if isinstance(kind, list | tuple | set | frozenset):
        choices = cast("Sequence[object]", kind)
        return _choosing(sorted(choices, key=str) if isinstance(kind, set | frozenset) else choices), True, False
    raise ConfigurationError(f"the type of a slot is {_TYPES}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ParameterError("must be a text")
    return str(value)


def _number(value: object, allowed: range, rule: str) -> str:
    if type(value) is not int or value not in allowed:
        raise ParameterError(rule)
    return str(value)


def _matching(pattern: re.Pattern[str]) -> Callable[[object], str]:
    if not isinstance(cast("object", pattern.pattern), str):  # callers without a type checker pass bytes too
        raise ConfigurationError("the pattern of a slot is one of text")
    match = pattern.fullmatch

    def read(value: object) -> str:
        text = _text(value)
        if len(text) > _LONGEST or match(text) is None:  # length first: time to match grows with it
            raise ParameterError("does not match its pattern")
        return text

    return read


def _accepting(kind: type[Parameter]) -> Callable[[object], str]:
    def read(value: object) -> str:
        made = value if isinstance(value, kind) else kind.from_json(_text(value))
        return os.fspath(made) if isinstance(made, os.PathLike) else str(made)

    return read


def _choosing(choices: Sequence[object]) -> Callable[[object], str]:
    texts: list[str] = []
    for choice in choices:
        if not isinstance(choice, str) or _UNPRINTED.search(choice):
            raise ConfigurationError("the choices of a slot are texts without control characters")
        texts.append(choice)
    if not texts:
        raise ConfigurationError("a slot has no choices")
    allowed = frozenset(texts)
    rule = "must be one of: " + ", ".join(texts[:20]) + (", ..." if len(texts) > 20 else "")

    def read(value: object) -> str:
        text = _text(value.value if isinstance(value, Enum) else value)
        if text not in allowed:
            raise ParameterError(rule)
        return text

    return read
