"""Credentials in an encrypted file, for machines without a keyring.

Rules of this file:
- A change is: lock, read, change, replace. Reading takes no lock, since a file is replaced whole.
- What cannot be read is an error of every method; nothing is written in its place.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Final, final

from ...errors import ConfigurationError
from ...policy.secret import Secret
from ..tokens import CredentialKey
from .contract import PATIENCE
from .folder import Folder
from .records import check_value, encode_key
from .sealing import KEY_BYTES, MAX_FILE_BYTES, Keyholder, SealedFile

__all__ = ["MIN_PASSPHRASE", "FileStore"]

MIN_PASSPHRASE: Final = 12
"""Characters of a passphrase. Who has the file can guess as long as he likes."""


@final
class FileStore:
    """A store in one encrypted file.

    Args:
        path: the file, in a folder of one's own, which is made if there is none. The locks are beside it.
        key: 32 random bytes, or a passphrase of at least 12 characters.

    Raises:
        ConfigurationError: the key is neither, or the platform has no file modes (Windows: use `KeyringStore`).
    """

    __slots__ = ("_folder", "_holder", "_name", "path")

    def __init__(self, path: str | os.PathLike[str], key: bytes | Secret) -> None:
        if os.name != "posix":
            raise ConfigurationError("FileStore needs POSIX file modes and locks; use KeyringStore on this platform")
        if isinstance(key, Secret):
            if len(key.reveal()) < MIN_PASSPHRASE:
                raise ConfigurationError(f"FileStore: a passphrase must have at least {MIN_PASSPHRASE} characters")
        elif type(key) is not bytes or len(key) != KEY_BYTES:
            raise ConfigurationError(f"FileStore: a key must be {KEY_BYTES} random bytes, or a Secret: a passphrase")
        self.path: str = os.path.abspath(path)
        """The file."""
        folder, self._name = os.path.split(self.path)
        self._folder = Folder(folder)
        self._holder = Keyholder(key)

    def __repr__(self) -> str:
        return f"FileStore({self.path!r}, key=***)"

    def __reduce__(self) -> str:
        raise TypeError("a FileStore holds a key and is not pickled")

    def load(self, key: CredentialKey) -> bytes | None:
        """What was kept under a key, or None.

        Raises:
            StoreError: the file or the entry cannot be read, or others could have changed it.
        """
        file = self._read()
        return None if file is None else file.get(key)

    def save(self, key: CredentialKey, value: bytes) -> None:
        """Keep a value: when this returns, it is on the disk.

        Raises:
            StoreError: as for `load`; it is larger than 64 KiB; the disk is full. What was there is still there.
        """
        check_value(value)
        with self._changing():
            file = self._read() or SealedFile(self._holder, self.path, None)
            file.put(key, value)
            self._folder.replace(self._name, file.to_bytes())

    def delete(self, key: CredentialKey) -> bool:
        """Forget a value, also one that does not open. False if there was none.

        Raises:
            StoreError: as for `save`.
        """
        if self._read() is None:
            return False
        with self._changing():
            file = self._read()
            if file is None or not file.drop(key):
                return False
            self._folder.replace(self._name, file.to_bytes())
        return True

    def keys(self) -> tuple[CredentialKey, ...]:
        """All keys that are there.

        Raises:
            StoreError: as for `load`.
        """
        file = self._read()
        return () if file is None else file.keys()

    def lock(self, key: CredentialKey) -> AbstractContextManager[None]:
        """Held by one thread of one process at a time, for each key; the file may be changed meanwhile.

        Raises:
            StoreError: another held it for 60 s, or the folder is not safe.
        """
        return self._folder.lock(f"{self._name}.{sha256(encode_key(key)).hexdigest()[:16]}.lock", PATIENCE)

    def _changing(self) -> AbstractContextManager[None]:
        return self._folder.lock(f"{self._name}.lock", PATIENCE)

    def _read(self) -> SealedFile | None:
        data = self._folder.read(self._name, MAX_FILE_BYTES)
        return None if data is None else SealedFile(self._holder, self.path, data)
