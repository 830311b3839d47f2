"""Where a host remembers what was approved: a folder of one person's own, or memory.

    state = FolderState()                    # $XDG_STATE_HOME/garrison/host, or what the platform has instead
    pins = state.read("pins")                # {} where nothing was kept
    with state.changing("pins") as pins:     # locked, read, and written whole when the block ends without an error
        pins["..."] = {...}

Rules of this file:
- What cannot be read, or could have been written by somebody else, is an error and never an empty record: nothing is
  approved by losing a file, and nothing is written in its place.
- A file is replaced whole, under a lock that other processes take too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Final, Protocol, cast, final

import msgspec

from ..auth.store.contract import StoreError
from ..auth.store.folder import Folder
from ..errors import GarrisonError

if TYPE_CHECKING:
    Record = dict[str, object]

__all__ = ["FolderState", "MemoryState", "State", "StateError", "state_folder"]

_MOST: Final = 16 * 1024 * 1024
_PATIENCE: Final = 10.0


class StateError(GarrisonError):
    """What a host remembers cannot be read or written. The message names the file and what to do."""


class State(Protocol):
    """Records by name, each a JSON object: `pins`, `launches`, `grants`, `files`."""

    def read(self, name: str) -> Record:
        """A copy of a record; empty where there is none. Raises `StateError`."""
        ...

    def changing(self, name: str) -> AbstractContextManager[Record]:
        """A record to change, held by one at a time; kept when the block ends without an error. Raises `StateError`."""
        ...


def state_folder() -> str:
    """Where this platform has the state of one person's programs: the part of it that is a host's.

    `$XDG_STATE_HOME/garrison/host`, else `~/.local/state/garrison/host`; macOS
    `~/Library/Application Support/garrison/host`; Windows `%LOCALAPPDATA%\\garrison\\host`.
    """
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        named, default = "", os.path.join(home, "Library", "Application Support")
    elif sys.platform == "win32":
        named, default = os.environ.get("LOCALAPPDATA", ""), os.path.join(home, "AppData", "Local")
    else:
        named, default = os.environ.get("XDG_STATE_HOME", ""), os.path.join(home, ".local", "state")
    return os.path.join(named if os.path.isabs(named) else default, "garrison", "host")


@final
class FolderState:
    """Records as files of a folder.

    Args:
        path: the folder, made with mode 0700 when something is first kept; `state_folder()` when not given.
    """

    __slots__ = ("_folder", "path")

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = os.path.abspath(state_folder() if path is None else path)
        """The folder."""
        self._folder = Folder(self.path)

    def read(self, name: str) -> Record:
        try:
            data = self._folder.read(f"{name}.json", _MOST)
        except StoreError as exc:
            raise StateError(str(exc)) from exc
        if data is None:
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, object])
        except msgspec.DecodeError as exc:
            raise StateError(
                f"{os.path.join(self.path, name)}.json is not what was written ({exc}); move it away to be asked anew"
            ) from None

    @contextmanager
    def changing(self, name: str) -> Generator[Record]:
        try:
            with self._folder.lock(f"{name}.lock", _PATIENCE):
                record = self.read(name)
                yield record
                self._folder.replace(f"{name}.json", msgspec.json.format(msgspec.json.encode(record), indent=1))
        except StoreError as exc:
            raise StateError(str(exc)) from exc


@final
class MemoryState:
    """Records that end with this object: every start asks anew."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def read(self, name: str) -> Record:
        return deepcopy(self._records.get(name, cast("Record", {})))

    @contextmanager
    def changing(self, name: str) -> Generator[Record]:
        record = self.read(name)
        yield record
        self._records[name] = record
