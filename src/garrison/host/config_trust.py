"""Which configuration files are believed: `untrusted` and `trust`.

Rules of this file:
- What lies in this user's own configuration folder, where nobody else can write, is believed unasked. Any other file
  came with a project, a download or a repository: whoever wrote it chooses what is started here.
- Such a file is shown whole, and approved by its digest under its real path. After each change it is asked about
  again, with what is different.
- What looks like a secret is named, and neither shown nor kept.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from ..errors import ConfigurationError
from ..gate.redaction import redact, redact_value
from ..protocol.json import encode
from .config_json import parse_json
from .launches import quoted
from .questions import FileQuestion, shown

if TYPE_CHECKING:
    from .state import State

__all__ = ["config_folder", "is_json", "lines_of", "parsed", "trust", "untrusted"]

_SECRETS_IN: Final = frozenset({"env", "headers", "token", "auth", "tls"})
"""Tables of a server whose texts are shown only where they do not look like a secret."""
_ROOTS: Final = ("servers", "mcpServers")
"""Where servers stand, by their names."""
_ADDRESSES: Final = frozenset({"url", "serverUrl", "httpUrl"})
_DEPTH: Final = 32
"""How deep the tables and lists of a TOML file are nested."""
_HIDDEN: Final = "(a secret, which is not shown)"
_REFERENCE: Final = re.compile(r"\$\{(?:env:|credential:|file:)?[A-Za-z0-9_./-]*\}", re.ASCII)
_SCHEME: Final = re.compile(r"\s*(?:bearer|basic|token)?\s*", re.IGNORECASE)
"""What may stand beside a reference and is no secret: "Bearer ${env:TOKEN}"."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def config_folder() -> str:
    """This user's own folder for configurations of Garrison.

    `$XDG_CONFIG_HOME/garrison`, else `~/.config/garrison`; Windows `%APPDATA%\\garrison`.
    """
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        named, default = os.environ.get("APPDATA", ""), os.path.join(home, "AppData", "Roaming")
    else:
        named, default = os.environ.get("XDG_CONFIG_HOME", ""), os.path.join(home, ".config")
    return os.path.join(named if os.path.isabs(named) else default, "garrison")


def untrusted(path: str | os.PathLike[str], data: bytes, state: State) -> FileQuestion | None:
    """What somebody is to be asked about a file; None where it is this user's own, or was approved as it is.

    Args:
        path: the file.
        data: what is in it.
        state: where it is kept which files were approved, in the record `files`.

    Raises:
        ConfigurationError: it is not of its form.
        StateError: what is kept cannot be read.
    """
    real: str = os.path.realpath(path)
    if _is_own(real):
        return None
    kept = state.read("files").get(real)
    old = cast("Mapping[str, object]", kept) if isinstance(kept, dict) else None
    if old is not None and old.get("digest") == _digest(data):
        return None
    lines = lines_of(real, data)
    changes = () if old is None else _changes(old, lines)
    return FileQuestion(server="", path=real, lines=(*lines, *changes), changed=old is not None)


def trust(path: str | os.PathLike[str], data: bytes, state: State) -> None:
    """Keep that somebody approved a file with these bytes.

    Raises:
        ConfigurationError: it is not of its form.
        StateError: it cannot be kept.
    """
    real: str = os.path.realpath(path)
    with state.changing("files") as files:
        files[real] = {"digest": _digest(data), "lines": list(lines_of(real, data))}


def lines_of(path: str, data: bytes) -> tuple[str, ...]:
    """All that a configuration says, a setting on a line; what looks like a secret is named and not shown.

    Raises:
        ConfigurationError: it is not of its form.
    """
    return tuple(_flat(parsed(path, data), "", ()))


def is_json(path: str, data: bytes) -> bool:
    """Whether a file is JSON: by its name, or by a brace, with which no TOML begins."""
    return path.endswith(".json") or data.lstrip()[:1] == b"{"


def parsed(path: str, data: bytes) -> dict[str, object]:
    """The table or object in a file.

    Raises:
        ConfigurationError: it is neither TOML nor strict JSON.
    """
    if is_json(path, data):
        return parse_json(data, path)
    from tomllib import loads  # lazy: other formats need none

    try:
        table = loads(data.decode())
        if _is_deep(table):
            raise RecursionError
        encode(table)  # what cannot be written cannot be shown
    except ValueError as exc:  # of TOML, of UTF-8, or of an integer with more digits than Python reads or writes
        raise ConfigurationError(f"{path}: not TOML: {exc}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: not TOML: nested too deeply") from None
    return table


def _is_deep(table: dict[str, object]) -> bool:
    """Whether it is nested deeper than `_DEPTH`: dotted keys nest without the reader's noticing."""
    level: list[object] = [table]
    for _ in range(_DEPTH):
        inner = [cast("dict[str, object]", each).values() if isinstance(each, dict) else each for each in level]
        level = [
            each for items in cast("list[list[object]]", inner) for each in items if isinstance(each, (dict, list))
        ]
        if not level:
            return False
    return True


def _flat(value: object, at: str, names: tuple[str, ...]) -> Iterator[str]:
    items = cast("list[object]", value if isinstance(value, list) else [])
    if isinstance(value, dict) and value:
        for name, each in cast("dict[str, object]", value).items():
            part = name if _BARE.fullmatch(name) else quoted(name)
            yield from _flat(each, f"{at}.{part}" if at else part, (*names, name))
    elif any(isinstance(each, dict) for each in items):
        for place, each in enumerate(items, 1):
            yield from _flat(each, f"{at}[{place}]", names)
    else:
        yield f"{at} = {_leaf(cast('object', value), names)}"


def _leaf(value: object, names: tuple[str, ...]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_leaf(each, names) for each in cast('list[object]', value))}]"
    if not isinstance(value, str):
        return shown(value)
    if _may_be_secret(names):
        rest = _REFERENCE.sub("", value).replace(":-", ": ")  # a default is a text of its own
        if redact_value({names[-1]: rest}) != {names[-1]: rest} and (rest == value or not _SCHEME.fullmatch(rest)):
            return _HIDDEN
    return quoted(redact(value) if names and names[-1] in _ADDRESSES else value)


def _may_be_secret(names: tuple[str, ...]) -> bool:
    """Whether a text stands where secrets do. What a server is called says nothing, and what a rule allows is shown."""
    place = names[1:] if names[:1] == ("mcp",) else names
    if not place or place[0] == "rules" or names[-1] == "from":
        return False
    return not _SECRETS_IN.isdisjoint(place[2:] if place[0] in _ROOTS else names)


def _changes(old: Mapping[str, object], lines: Sequence[str]) -> Iterator[str]:
    kept = old.get("lines")
    before = [str(line) for line in cast("list[object]", kept)] if isinstance(kept, list) else []
    gone = [f"no more: {line}" for line in before if line not in lines]
    more = [f"new: {line}" for line in lines if line not in before]
    for change in [*gone, *more] or ["something that is not shown: a secret, the order, or the layout"]:
        yield f"changed: {change}"


def _is_own(path: str) -> bool:
    """Whether a file lies in this user's own folder, where nobody else can put anything."""
    folder: str = os.path.realpath(config_folder())
    part: str = os.path.dirname(path)
    while part == folder or part.startswith(folder + os.sep):
        if os.name == "posix":
            about = os.lstat(part)
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
        if part == folder:
            return True
        part = os.path.dirname(part)
    return False


def _digest(data: bytes) -> str:
    from hashlib import sha256  # lazy: only files of projects need it

    return f"sha256:{sha256(data).hexdigest()}"
