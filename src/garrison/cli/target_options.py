"""Options of a target: the parameters of the function that makes its server, as options of the command line.

    def serve(root: Path = Path("."), write: bool = False) -> Server:
        '''The files below a directory.

        Args:
            root: the directory.
            write: files may be changed.
        '''

takes `--root DIR`, and `--write` or `--no-write`.

Rules of this file:
- An option is a parameter's name with `-` for `_`. None takes the place of one of garrison's own: that is an error.
- A parameter that was not given is left out of the call, so that its default stands in one place.
- All types are looked at before any word is: what cannot be an option is an error whether it is used or not.
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .load import Factory

__all__ = ["add_target_options", "given"]

_DEST: Final = "target."
"""Before the names under which values are kept, so that they are none of garrison's own."""
_TYPES: Final = "str, int, float, bool, pathlib.Path, Literal, a list of these, or one of these or None"
_SECTION: Final = re.compile(r"(?:Args|Arguments|Parameters):\s*")
_ITEM: Final = re.compile(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")


class _Kind(NamedTuple):
    """How the words of one option become a value."""

    read: Callable[[str], object]
    """Raises argparse.ArgumentTypeError."""
    metavar: str
    several: type[list[object]] | type[tuple[object, ...]] | None = None
    """What values of a repeated option are put in."""


def add_target_options(parser: argparse.ArgumentParser, factory: Factory) -> list[str]:
    """Add an option for each parameter.

    Args:
        parser: of `garrison run` or `garrison doctor`.
        factory: the target's function.

    Returns:
        The options, as they are written: `--root`, `--write/--no-write`.

    Raises:
        ConfigurationError: a parameter cannot be an option, or would be one of garrison's own.
    """
    where = f"{factory.place}: {factory.name}()"
    try:
        hints = get_type_hints(factory.function)
    except Exception as exc:  # noqa: BLE001 - annotations are expressions: evaluating them may raise anything
        raise ConfigurationError(f"{where}: its annotations cannot be read: {exc}") from None
    summary, said = _documentation(factory.function)
    group = parser.add_argument_group(f"options of {factory.place}", summary or None)
    names: list[str] = []
    for parameter in inspect.signature(factory.function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{where}: {parameter} cannot be an option: it has no name to be given by")
        option = "--" + parameter.name.replace("_", "-")
        if parameter.name not in hints:
            raise ConfigurationError(f"{where}: {parameter.name} has no type, and an option needs one: {_TYPES}")
        if parameter.name.startswith("no_") and hints[parameter.name] is bool:
            raise ConfigurationError(f"{where}: {parameter.name}: name what it allows, so that --no-... can forbid it")
        kind, optional = _kind(hints[parameter.name], f"{where}: {parameter.name}")
        required = parameter.default is parameter.empty and not optional
        text = _help(said.get(parameter.name, ""), parameter, kind, required=required)
        try:
            _add(group, option, parameter.name, kind, text, required=required)
        except argparse.ArgumentError:
            raise ConfigurationError(
                f"{where}: the parameter {parameter.name} would be the option {option}, which is taken; give it "
                "another name"
            ) from None
        names.append(f"{option}/--no-{option[2:]}" if kind is None else option)
    return names


def given(options: argparse.Namespace, factory: Factory) -> dict[str, object]:
    """The arguments of the function: those that were given, and None for optional ones without a default."""
    found: dict[str, object] = {}
    for parameter in inspect.signature(factory.function).parameters.values():
        value: object = getattr(options, _DEST + parameter.name, parameter.empty)
        if value is not parameter.empty:
            found[parameter.name] = value
        elif parameter.default is parameter.empty:
            found[parameter.name] = None
    return found


class _Append(argparse.Action):
    """Gathers the values of a repeated option; they take the place of the default."""

    gathered: type[list[object]] | type[tuple[object, ...]] = list

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, *_: object
    ) -> None:
        before = cast("Sequence[object]", getattr(namespace, self.dest, ()))
        setattr(namespace, self.dest, self.gathered([*before, values]))


class _AppendTuple(_Append):
    gathered = tuple


def _add(
    group: argparse._ArgumentGroup,  # pyright: ignore[reportPrivateUsage] - argparse names it nowhere else
    option: str,
    name: str,
    kind: _Kind | None,
    text: str,
    *,
    required: bool,
) -> None:
    dest = _DEST + name
    if kind is None:
        action = argparse.BooleanOptionalAction
        group.add_argument(option, dest=dest, action=action, default=argparse.SUPPRESS, required=required, help=text)
        return
    action = "store" if kind.several is None else _AppendTuple if kind.several is tuple else _Append
    group.add_argument(
        option,
        dest=dest,
        action=action,
        type=kind.read,
        metavar=kind.metavar,
        default=argparse.SUPPRESS,
        required=required,
        help=text,
    )


def _kind(annotation: object, where: str) -> tuple[_Kind | None, bool]:
    """How a type is read, None for a flag; and whether None is one of its values.

    Raises:
        ConfigurationError: it is none that an option can have.
    """
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        optional = len(rest) < len(get_args(annotation))
        annotation = rest[0] if len(rest) == 1 else annotation
    if annotation is bool:
        return None, optional
    several = _several(annotation)
    if several is not None:
        kind, item = several
        inner = _single(item)
        if inner is not None:
            return inner._replace(several=kind), optional
    else:
        single = _single(annotation)
        if single is not None:
            return single, optional
    raise ConfigurationError(f"{where} is of a type that no option can have: {_TYPES}")


def _several(annotation: object) -> tuple[type[list[object]] | type[tuple[object, ...]], object] | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, Sequence) and len(arguments) == 1:
        return list, arguments[0]
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple, arguments[0]
    return None


def _single(annotation: object) -> _Kind | None:
    if get_origin(annotation) is Literal:
        choices = {str(value): cast("object", value) for value in get_args(annotation)}
        return _Kind(_choosing(choices), "{" + ",".join(choices) + "}")
    return next((kind for known, kind in _SIMPLE if annotation is known), None)


def _choosing(choices: dict[str, object]) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"must be one of: {', '.join(choices)}")
        return choices[text]

    return read


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError("must be a number")
    return value


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("must be a path")
    return Path(text)


_SIMPLE: Final[tuple[tuple[object, _Kind], ...]] = (
    (str, _Kind(str, "TEXT")),
    (int, _Kind(_whole, "NUMBER")),
    (float, _Kind(_number, "NUMBER")),
    (Path, _Kind(_path, "PATH")),
)


def _help(said: str, parameter: inspect.Parameter, kind: _Kind | None, *, required: bool) -> str:
    """A line of help. In argparse, `%` begins a placeholder."""
    default = _default(parameter.default, kind)
    notes = ["required"] * required + [default] * bool(default) + ["may be repeated"] * bool(kind and kind.several)
    text = said.rstrip(".") + (f" ({'; '.join(notes)})" if notes else "")
    return text.strip().replace("%", "%%")


def _default(value: object, kind: _Kind | None) -> str:
    if value is inspect.Parameter.empty or value is None or value in ("", [], ()):
        return ""
    if kind is None:
        return "default: on" if value else ""
    shown = ", ".join(map(str, cast("Sequence[object]", value))) if kind.several else str(value)
    return f"default: {shown}"


def _documentation(function: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and what it says of each parameter in its section `Args:`."""
    lines = (inspect.getdoc(function) or "").splitlines()
    end = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    summary = " ".join(line.strip() for line in lines[:end])
    said: dict[str, str] = {}
    start = next((number for number, line in enumerate(lines) if _SECTION.fullmatch(line)), len(lines))
    name, margin = "", 0
    for line in lines[start + 1 :]:
        if line and not line[0].isspace():
            break  # the next section
        indent = len(line) - len(line.lstrip())
        item = _ITEM.fullmatch(line.strip()) if not margin or indent <= margin else None
        if item is not None:
            margin = indent
            name = item[1]
            said[name] = item[2]
        elif name and line.strip():
            said[name] += " " + line.strip()
    return summary, said
