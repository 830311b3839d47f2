"""Folders that servers may be told of, once somebody agrees: roots.

Rules of this file:
- A root is an existing directory, told as the `file://` URI of where it really is: links are resolved before it is
  judged, and again whenever it is told.
- Nothing that holds everything or credentials is a root without a reason: a whole disk, a home folder, `~/.ssh` and its
  like, what is inside them, and what they are inside of.
- Each server's person is asked once for each set of folders, and a no holds as long as a yes.

A root is word of where to work, and keeps no server out of anything: that is what a sandbox is for.

Spec: 2026-07-28 client/roots.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from .. import events
from ..auth.store.folder import data_folder
from ..errors import ConfigurationError
from ..gate.hygiene import visible
from ..protocol.types import Root
from .questions import RootsQuestion
from .state import state_folder

if TYPE_CHECKING:
    from .consent import Consent

__all__ = ["Roots", "root_problem"]

_BELOW_HOME: Final = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".config/gcloud", ".config/gh", ".config/garrison"),
    *(
        ".config/op",
        ".config/doctl",
        ".config/hub",
        ".config/rclone",
        ".password-store",
        ".netrc",
        ".pki",
        ".git-credentials",
    ),
    *(".local/share/keyrings", ".local/share/kwalletd", ".mozilla", ".thunderbird", ".config/google-chrome"),
    *(".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge", ".bitcoin", ".ethereum", ".vault-token"),
    *(".terraform.d", ".npmrc", ".pypirc", ".cargo/credentials.toml", ".claude", ".cursor", ".oci", ".minikube"),
    *("Library/Keychains", "Library/Application Support", "Library/Cookies", "AppData"),
)
"""Where programs keep what proves who somebody is."""
_OF_SYSTEM: Final = ("/etc", "/proc", "/sys", "/dev", "/run", "/boot")
_SETTING: Final = "Host(dangerously_allow_roots=)"


def root_problem(path: str) -> str:
    """Why a folder is told to nobody without a reason; empty for other folders.

    Args:
        path: absolute, and without links.
    """
    place = _parts(path)
    for home in {_parts(os.path.realpath(home)) for home in _home_folders()}:
        if place == home:
            return "is a home folder"
        if _inside(home, place):
            return "holds a home folder"
    if len(place) <= 1:
        return "is a whole disk"
    for kept in _kept():
        if _inside(place, kept):
            return "is among what holds credentials or the system's own files"
        if _inside(kept, place):
            return "holds folders with credentials or the system's own files"
    return ""


@final
class Roots:
    """The roots of one server: a handler of `roots/list`.

    Args:
        alias: the server's.
        consent: asks somebody before they are told.
        folders: the folders; a relative one is below the working directory of now.
        dangerously_allow_roots: why folders are among them that `root_problem` finds something to say of.

    Raises:
        ConfigurationError: a folder is none, is written with `..`, or is not one that servers are told of.
    """

    __slots__ = ("_alias", "_asked", "_consent", "_folders", "_forced", "_lock")

    def __init__(
        self,
        alias: str,
        consent: Consent,
        folders: Sequence[str | os.PathLike[str]],
        *,
        dangerously_allow_roots: str = "",
    ) -> None:
        if isinstance(folders, str):
            raise ConfigurationError("Host(roots=) is a list of folders")
        self._alias = alias
        self._consent = consent
        self._forced = bool(dangerously_allow_roots.strip())
        self._asked: dict[tuple[str, ...], bool] = {}
        self._lock = asyncio.Lock()
        self._folders = tuple(_written(folder) for folder in folders)
        for folder in self._folders:
            place = _resolved(folder)
            if place is None:
                raise ConfigurationError(f"Host(roots=): {visible(folder)!r} is no directory")
            problem = root_problem(place)
            if problem and not self._forced:
                raise ConfigurationError(
                    f"Host(roots=): {visible(place)!r} {problem}, "
                    f"and is told to no server without a reason in {_SETTING}"
                )
            if problem:
                text = f"dangerously_allow_roots: {alias} may be told {visible(place)}: {dangerously_allow_roots}"
                events.record("policy.relaxed", text, setting=_SETTING)

    async def __call__(self) -> list[Root]:
        """The folders, where somebody agrees; else none."""
        async with self._lock:  # of several requests, the first one asks
            places = self._places()
            if not places:
                return []
            allowed = self._asked.get(places)
            if allowed is None:
                verdict = await self._consent.ask(RootsQuestion(server=self._alias, roots=places))
                allowed = self._asked[places] = verdict.allowed
        return [Root(uri=Path(place).as_uri()) for place in places] if allowed else []

    def _places(self) -> tuple[str, ...]:
        """Where the folders are now, as far as they still may be told."""
        places: list[str] = []
        for folder in self._folders:
            place = _resolved(folder)
            problem = "is no directory" if place is None else "" if self._forced else root_problem(place)
            if problem or place is None:
                text = f"{self._alias} is not told {visible(folder)}, which {problem} by now"
                about = events.Event("roots.refused", server=self._alias, target=visible(folder))
                events.record("roots.refused", text, setting="Host(roots=)", about=about)
            else:
                places.append(place)
        return tuple(dict.fromkeys(places))


def _written(folder: str | os.PathLike[str]) -> str:
    """A folder as it was given, absolute. Raises `ConfigurationError`."""
    text = os.fspath(folder)
    if not text or "\0" in text or "://" in text:
        raise ConfigurationError(f"Host(roots=): {visible(text)!r} is no path")
    if ".." in Path(text).parts:
        raise ConfigurationError(f"Host(roots=): {visible(text)!r} has '..'; say where it is")
    return os.path.join(os.getcwd(), text)


def _resolved(folder: str) -> str | None:
    """Where a folder really is; None where there is none."""
    try:
        place = os.path.realpath(folder, strict=True)
    except OSError:
        return None
    return place if os.path.isdir(place) else None


def _home_folders() -> set[str]:
    """This user's home folders: the one that is set, and the one that the system knows."""
    found = {os.path.expanduser("~")}
    try:
        import pwd  # lazy: Windows has none

        found.add(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        pass
    return {home for home in found if os.path.isabs(home) and len(Path(home).parts) > 1}


def _kept() -> set[tuple[str, ...]]:
    """What is told to nobody: credentials, the system's own, and where this program keeps what was approved."""
    homes = {os.path.realpath(home) for home in _home_folders()}
    below = (os.path.join(home, name) for home in homes for name in _BELOW_HOME)
    places = (data_folder(), state_folder(), *_OF_SYSTEM, *below)
    return {_parts(found) for place in places for found in (place, os.path.realpath(place))}


def _parts(path: str) -> tuple[str, ...]:
    """Where it is, for comparing: file systems differ in whether case counts, and here it never does."""
    return tuple(part.casefold() for part in Path(path).parts)


def _inside(place: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return place[: len(other)] == other
