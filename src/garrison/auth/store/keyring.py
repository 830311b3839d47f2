"""Credentials in the platform's keyring: macOS Keychain, Windows Credential Manager, or a Secret Service.

Rules of this file:
- There is one back end for each platform, and it is made here. `PYTHON_KEYRING_BACKEND`, `keyringrc.cfg`,
  `KEYRING_PROPERTY_*`, priorities and installed plug-ins are not asked, and no plug-in is loaded.
- Not on the list: libsecret, which lets `SECRET_BACKEND` choose a file instead; KWallet's own interface, whose failures
  to write go unseen (its Secret Service is taken); null, fail, chainer, and whatever writes plain files.
- A keyring finds by name and cannot list. The name of an entry is the hash of its key, the key stands in the entry and
  is compared; an index entry has all keys.
- Credential Manager takes 2560 bytes of UTF-16. A longer text is kept in parts under a name of their own, and counts
  once the entry points to them: who is killed in between leaves the old one.
- What was written is read again, so that a keyring that forgets is an error and no surprise.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from importlib import import_module
from secrets import token_hex
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast, final

from ..tokens import CredentialKey
from .contract import PATIENCE, StoreError
from .folder import Folder, data_folder, refused
from .records import check_value, decode_key, encode_key

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["KeyringStore"]

_INDEX: Final = "index"
_USER: Final = "garrison"
_MOST_KEYS: Final = 1_000
_TRIES: Final = 3
_HERE: Final = "="
_IN_PARTS: Final = re.compile(r"\+([0-9a-f]{16})\.([1-9][0-9]{0,3})\.([0-9a-f]{64})")


class _Backend(NamedTuple):
    title: str
    module: str
    name: str
    chars: int
    """Of one entry."""


_BACKENDS: Final = {
    "darwin": _Backend("macOS Keychain", "keyring.backends.macOS", "Keyring", 1 << 20),
    "win32": _Backend("Windows Credential Manager", "keyring.backends.Windows", "WinVaultKeyring", 1200),
}
_ELSEWHERE: Final = _Backend("Secret Service", "keyring.backends.SecretService", "Keyring", 1 << 20)


class _Ring(Protocol):
    """What is used of a back end of the keyring package."""

    viable: bool

    def get_password(self, service: str, username: str) -> str | None: ...
    def set_password(self, service: str, username: str, password: str) -> None: ...
    def delete_password(self, service: str, username: str) -> None: ...


@final
class KeyringStore:
    """A store in the platform's keyring. Needs `garrison[keyring]`.

    Args:
        service: the name under which the entries stand there.

    Raises:
        StoreError: the package is not installed, or no keyring answers.
    """

    __slots__ = ("_chars", "_folder", "_label", "_ring", "_service", "backend")

    def __init__(self, service: str = "garrison") -> None:
        backend = _BACKENDS.get(sys.platform, _ELSEWHERE)
        self._ring = _ring(backend)
        self._chars = backend.chars
        self._service = service
        self._folder = Folder(data_folder())
        self._label = f"keyring.{_hash(service.encode('utf-8', 'replace'))[:8]}"
        self.backend = backend.title
        """Which keyring it is, for people."""

    def __repr__(self) -> str:
        return f"KeyringStore({self._service!r}, backend={self.backend!r})"

    def load(self, key: CredentialKey) -> bytes | None:
        """What was kept under a key, or None.

        Raises:
            StoreError: the keyring is locked or fails, or what is there is of another key or damaged.
        """
        name = encode_key(key)
        found = self._get(_place(name))
        if found is None:
            return None
        if len(found) != 2 or found[0] != name:
            raise self._damaged(_place(name))
        return found[1]

    def save(self, key: CredentialKey, value: bytes) -> None:
        """Keep a value.

        Raises:
            StoreError: as for `load`; it is larger than 64 KiB; the keyring did not keep it.
        """
        check_value(value)
        with self._changing():
            self.load(key)  # what cannot be read is not written over
            keys = self.keys()
            if key not in keys:
                if len(keys) >= _MOST_KEYS:
                    raise StoreError(f"the keyring has {_MOST_KEYS} credentials, which are the most; delete some")
                self._put_index((*keys, key))
            name = encode_key(key)
            self._put(_place(name), _encoded((name, value)))

    def delete(self, key: CredentialKey) -> bool:
        """Forget a value, also one that cannot be read. False if there was none.

        Raises:
            StoreError: the keyring is locked or fails.
        """
        with self._changing():
            there = self._drop(_place(encode_key(key)))
            keys = self.keys()
            if key in keys:
                self._put_index(tuple(other for other in keys if other != key))
        return there

    def keys(self) -> tuple[CredentialKey, ...]:
        """All keys that were saved and not deleted here; an entry may have been deleted by other means since.

        Raises:
            StoreError: the keyring is locked or fails, or the index is damaged.
        """
        return tuple(map(decode_key, self._get(_INDEX) or ()))

    def lock(self, key: CredentialKey) -> AbstractContextManager[None]:
        """Held by one thread of one process at a time, for each key, by a file in the folder of Garrison's data.

        Raises:
            StoreError: another held it for 60 s, or the folder is not safe.
        """
        return self._folder.lock(f"{self._label}.{_place(encode_key(key))[:16]}.lock", PATIENCE)

    def _changing(self) -> AbstractContextManager[None]:
        return self._folder.lock(f"{self._label}.lock", PATIENCE)

    def _put_index(self, keys: tuple[CredentialKey, ...]) -> None:
        self._put(_INDEX, _encoded(tuple(map(encode_key, keys))))

    # Texts of any length

    def _get(self, name: str) -> tuple[bytes, ...] | None:
        head = self._read(name)
        for _ in range(_TRIES):
            if head is None:
                return None
            pieces = _decoded(self._whole(name, head))
            if pieces is not None:
                return pieces
            before, head = head, self._read(name)
            if head == before:  # else it was replaced while it was read
                break
        raise self._damaged(name)

    def _damaged(self, name: str) -> StoreError:
        return refused(f"{self.backend}: {self._service}/{name} was changed or is damaged; delete it and log in again")

    def _whole(self, name: str, head: str) -> str | None:
        """The text that an entry has or points to, or None where a part is missing or of another."""
        if head.startswith(_HERE):
            return head[len(_HERE) :]
        parts = _parts(name, head)
        text = "".join(self._read(part) or "" for part in parts)
        return text if parts and _hash(text.encode()) == head.rpartition(".")[2] else None

    def _put(self, name: str, text: str) -> None:
        old = self._read(name)
        head = _HERE + text
        if len(head) > self._chars:
            count = -(-len(text) // self._chars)
            head = f"+{token_hex(8)}.{count}.{_hash(text.encode())}"
            for index, part in enumerate(_parts(name, head)):
                self._write(part, text[index * self._chars : (index + 1) * self._chars])
        self._write(name, head)
        for part in _parts(name, old or ""):
            self._remove(part)

    def _drop(self, name: str) -> bool:
        head = self._read(name)
        if head is None:
            return False
        for place in (name, *_parts(name, head)):
            self._remove(place)
        return True

    # The back end. On Windows an entry that shares its service with another is moved about, so each has its own.

    def _read(self, name: str) -> str | None:
        with self._failing():
            return self._ring.get_password(f"{self._service}/{name}", _USER)

    def _write(self, name: str, text: str) -> None:
        with self._failing():
            self._ring.set_password(f"{self._service}/{name}", _USER, text)
        if self._read(name) != text:
            raise refused(f"{self.backend} did not keep what was saved; use FileStore")

    def _remove(self, name: str) -> None:
        if self._read(name) is not None:
            with self._failing():
                self._ring.delete_password(f"{self._service}/{name}", _USER)

    @contextmanager
    def _failing(self) -> Generator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a back end raises what its platform does; its text is not shown
            raise StoreError(
                f"{self.backend} failed ({type(error).__name__}); unlock it, or choose another store"
            ) from None


def _ring(backend: _Backend) -> _Ring:
    try:
        made = cast("type[_Ring] | None", getattr(import_module(backend.module), backend.name, None))
    except ImportError:
        raise StoreError("KeyringStore needs the keyring package; install garrison[keyring]") from None
    if made is None or (made.__module__, made.__qualname__) != (backend.module, backend.name):
        raise refused(f"{backend.module}.{backend.name} is not the keyring package's own; use FileStore")
    if not made.viable:
        raise StoreError(f"no {backend.title} answers; start one and unlock it")
    # Without `__init__`: all it does is to take properties from the environment.
    return made.__new__(made)


def _parts(name: str, head: str) -> list[str]:
    """The names of the parts that an entry points to."""
    found = _IN_PARTS.fullmatch(head)
    return [f"{name}.{found[1]}.{index}" for index in range(int(found[2]))] if found else []


def _encoded(pieces: tuple[bytes, ...]) -> str:
    return ".".join(b64encode(piece).decode() for piece in pieces)


def _decoded(text: str | None) -> tuple[bytes, ...] | None:
    """What was encoded, or None."""
    if not text:
        return None if text is None else ()
    try:
        return tuple(b64decode(piece, validate=True) for piece in text.split("."))
    except ValueError:
        return None


def _place(name: bytes) -> str:
    """Where the value of a key is."""
    return _hash(name)[:32]


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()
