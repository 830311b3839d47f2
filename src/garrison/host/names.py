"""Names of tools: what a model calls them, and which names must not be shown to it.

    exposed("files", "read_file")                   # "files.read_file"
    verdict = check_names({"files": ["read_file"], "web": ["fetch", "fetch"]})
    verdict.refused[("web", "fetch")]               # why

Rules of this file:
- The alias in front is chosen by whoever runs the host. It holds no `.`, so that the first one ends it, and no two
  tools have one exposed name.
- What one server calls its tools never takes a tool from another: across servers names are flagged, within one they
  are refused. Of names that cannot be told apart within one server none is shown.
- Look-alikes are found by comparing keys and never by comparing all with all: time grows with the names alone.
- No name is mended: what is refused is refused as it was listed.

Spec: 2026-07-28 server/tools "Tool Names". UTS 39 sections 4 and 5.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ..errors import ConfigurationError
from ..gate.hygiene import visible
from .confusables import has_other_forms, hidden, scripts_mixed, skeleton, unassigned

__all__ = ["NameVerdict", "check_aliases", "check_names", "exposed", "model_name", "skeleton"]

_LONGEST: Final = 128
_TAKEN: Final = frozenset({"resources/read", "prompts/get"})
"""What rules and labels call the reading of resources and prompts."""
_SHOWN: Final = 80
_NEAR: Final = range(5, 65)
"""How long names are, without separators, of which one letter more or less is told."""
_MOST_FLAGS: Final = 8

_NUMBERED: Final = re.compile(r"(?<=\d)[-_. /]+(?=\d)")
_SEPARATORS: Final = re.compile(r"[-_. /]+")
_KEPT: Final = "\0"
"""Stands between digits where a separator stood: `v1_1` is not `v11`."""

_MODEL: Final = 64
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NOT_MODEL: Final = re.compile(r"[^A-Za-z0-9-]+", re.ASCII)
_DIGEST: Final = 20

_Place = tuple[str, str]
"""The alias, and the server's own name of the tool."""
_Keys = tuple[str, str]


class NameVerdict(NamedTuple):
    """What is wrong with names, by alias and the server's own name of the tool."""

    refused: Mapping[tuple[str, str], str]
    """Not to be shown or called, and why; in the words of the host, with nothing hidden in them."""
    flagged: Mapping[tuple[str, str], tuple[str, ...]]
    """What whoever approves the tool should know: the same name, or one like it, elsewhere. None is a refusal."""


def exposed(alias: str, tool: str) -> str:
    """What a model calls the tool of a server: `alias.tool`. The alias is one that `check_alias` let pass."""
    return f"{alias}.{tool}"


def check_aliases(aliases: Iterable[str]) -> None:
    """Refuse aliases that a reader could take for each other: `my-files` and `my_files`, `web1` and `webl`.

    Raises:
        ConfigurationError: two of them are alike.
    """
    seen: dict[str, str] = {}
    for alias in aliases:
        for key in _keys(alias):
            other = seen.setdefault(key, alias)
            if other != alias:
                raise ConfigurationError(
                    f"the servers {other!r} and {alias!r} look alike: give one of them another alias"
                )


def check_names(tools: Mapping[str, Sequence[str]]) -> NameVerdict:
    """Judge the names of the tools of all servers.

    Args:
        tools: by alias, the names as the server lists them, repetitions included.
    """
    refused: dict[_Place, str] = {}
    keys: dict[_Place, _Keys] = {}
    for alias, names in tools.items():
        sound: dict[str, _Keys] = {}
        for name, count in _counted(names).items():
            why = _malformed(name) or ("" if count == 1 else f"its server lists this name {count} times")
            if why:
                refused[alias, name] = why
            else:
                sound[name] = _keys(name)
        for name, like in _alike(sound).items():
            refused[alias, name] = f"its server also lists {_told(like)}, which looks the same or nearly so"
        keys |= {(alias, name): found for name, found in sound.items() if (alias, name) not in refused}
    return NameVerdict(refused, _across(keys))


def model_name(name: str) -> str:
    """The name of a tool for model APIs that take only letters, digits, `_` and `-`, 64 in all.

    `files.read_file` is `files__read_file`. What cannot be written so ends in a digest of the whole name instead, and
    has no `__`: no two names become one unless 80 bits of SHA-256 are the same.

    Args:
        name: an exposed name.
    """
    alias, _, tool = name.partition(".")
    plain = f"{alias}__{tool}"
    if len(plain) <= _MODEL and "__" not in f"{alias}." and alias[-1:] != "_" and _MODEL_NAME.fullmatch(tool):
        return plain
    from hashlib import sha256  # lazy: most names need none

    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{_NOT_MODEL.sub('_', name)[: _MODEL - _DIGEST - 1].strip('_')}_{digest}"


# One name.


def _malformed(name: str) -> str:
    """Why a name is refused whatever stands beside it; empty for a good one."""
    if not name:
        return "it has no name"
    if len(name) > _LONGEST:
        return f"its name has {len(name)} characters; {_LONGEST} are allowed"
    if name in _TAKEN:
        return "its name stands for what is no tool: rules for that would be rules for it"
    if name != name.strip():
        return "its name begins or ends with a blank"
    if found := hidden(name):
        return f"its name holds {_code(found)}, which nobody sees"
    if found := unassigned(name):
        return f"its name holds {_code(found)}, which Unicode has not assigned"
    if has_other_forms(name):
        return "its name is written in full-width, mathematical or other special forms of letters"
    if mixed := scripts_mixed(name):
        return f"its name mixes letters of {' and '.join(mixed)}: {_told(name)}"
    return ""


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return counts


def _keys(name: str) -> _Keys:
    """What a name shares with those that look like it: the skeleton, and that without case and separators."""
    plain = _SEPARATORS.sub("", _NUMBERED.sub(_KEPT, name.casefold()))
    return f"={skeleton(name)}", _SEPARATORS.sub("", skeleton(plain)).casefold()


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _told(name: str) -> str:
    """A name in a sentence: whole or cut, and the code points of letters that pass for ASCII."""
    shown = visible(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
    strange = [c for c in dict.fromkeys(name) if not c.isascii() and skeleton(c).isascii()]
    return f'"{shown}"' + (f" (with {', '.join(map(_code, strange[:4]))})" if strange else "")


# Names beside each other.


def _alike(sound: Mapping[str, _Keys]) -> dict[str, str]:
    """The names of one server that cannot be told apart, each with another one that it looks like."""
    first: dict[str, str] = {}
    alike: dict[str, str] = {}
    for name, keys in sound.items():
        for key in keys:
            other = first.setdefault(key, name)
            if other != name:
                alike.setdefault(name, other)
                alike.setdefault(other, name)
    return alike


def _across(keys: Mapping[_Place, _Keys]) -> dict[_Place, tuple[str, ...]]:
    """What other servers have that is called the same, looks the same, or differs in one letter."""
    flagged: dict[_Place, dict[str, str]] = defaultdict(dict)
    for text, keys_of in _KINDS:
        index = _Index()
        by_place = {(alias, name): tuple(keys_of(name, found)) for (alias, name), found in keys.items()}
        for place, values in by_place.items():
            index.add(place, values)
        for place, values in by_place.items():
            told = flagged[place]
            for alias, name in index.others(place, values):
                if alias not in told and len(told) < _MOST_FLAGS:
                    told[alias] = text.format(alias=alias, name=_told(name))
    return {place: tuple(texts.values()) for place, texts in flagged.items() if texts}


def _without_one(key: str) -> Iterator[str]:
    """The key, and what is left of it without each of its letters: alike in one letter is alike in one of these."""
    if len(key) in _NEAR:
        yield key
        for at in range(len(key)):
            yield key[:at] + key[at + 1 :]


class _Index:
    """One tool of each server for each key."""

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first: dict[str, _Place] = {}
        self._more: dict[str, dict[str, str]] = {}

    def add(self, place: _Place, keys: Iterable[str]) -> None:
        for key in keys:
            if self._first.setdefault(key, place)[0] != place[0]:
                self._more.setdefault(key, {}).setdefault(*place)

    def others(self, place: _Place, keys: Iterable[str]) -> Iterator[_Place]:
        for key in keys:
            for alias, name in (self._first[key], *self._more.get(key, {}).items()):
                if alias != place[0]:
                    yield alias, name


_KINDS: Final[tuple[tuple[str, Callable[[str, _Keys], Iterable[str]]], ...]] = (
    ("the server {alias} has a tool of the same name", lambda name, found: (name,)),
    ("it looks like {name} of the server {alias}", lambda name, found: found),
    ("it is {name} of the server {alias} but for one letter", lambda name, found: _without_one(found[1])),
)
"""What is told, most alike first, and the keys that two names share when it holds. Of each server one thing is told."""
