"""Which store a client uses, where the person does not say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from ...errors import ConfigurationError
from ...policy.secret import Secret
from ...protocol.sealed import key_from_text
from .contract import CredentialStore, StoreError
from .file import FileStore
from .folder import data_folder
from .keyring import KeyringStore
from .memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY_VARIABLE", "PASSPHRASE_VARIABLE", "default_path", "open_store"]

KEY_VARIABLE: Final = "GARRISON_STORE_KEY"
"""32 random bytes for the file: 64 hexadecimal digits, or base64."""
PASSPHRASE_VARIABLE: Final = "GARRISON_STORE_PASSPHRASE"  # noqa: S105 - its name, not the passphrase
"""A passphrase for the file."""


def default_path() -> str:
    """Where the encrypted file is: `credentials` in `$XDG_DATA_HOME/garrison` or what the platform has instead."""
    return os.path.join(data_folder(), "credentials")


def open_store(
    preferred: Literal["keyring", "file", "memory"] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    passphrase: Secret | None = None,
    key: bytes | None = None,
    notice: Callable[[str], None] | None = None,
) -> CredentialStore:
    """The platform's keyring; where there is none, an encrypted file if a key for it is given; else memory.

    Args:
        preferred: this one and no other.
        path: of the file; default `default_path()`.
        passphrase: of the file, at least 12 characters; default `$GARRISON_STORE_PASSPHRASE`.
        key: of the file, 32 random bytes; default `$GARRISON_STORE_KEY`, which goes before a passphrase from there.
        notice: is told, in a sentence for the person, that credentials are kept in memory because nothing better is
            there; default: a warning of the logger `garrison.credentials`.

    Raises:
        ConfigurationError: a key or passphrase is not one; or the file is preferred and there is neither, or both.
        StoreError: the keyring is preferred, and there is none.
    """
    if preferred == "memory":
        return MemoryStore()
    if preferred == "keyring":
        return KeyringStore()
    found = _key(passphrase, key)
    if preferred == "file":
        if found is None:
            raise ConfigurationError(
                f"the credential file needs a key: passphrase=, key=, ${PASSPHRASE_VARIABLE} or ${KEY_VARIABLE}"
            )
        return FileStore(default_path() if path is None else path, found)
    try:
        return KeyringStore()
    except StoreError as error:
        if found is not None:
            return FileStore(default_path() if path is None else path, found)
        (notice or _warn)(
            f"Credentials are kept in memory, until this program ends: {error}, or set {PASSPHRASE_VARIABLE} for a file"
        )
        return MemoryStore()


def _key(passphrase: Secret | None, key: bytes | None) -> bytes | Secret | None:
    if passphrase is not None and key is not None:
        raise ConfigurationError("open_store: give passphrase= or key=, not both")
    if passphrase is not None or key is not None:
        return passphrase if key is None else key
    if text := os.environ.get(KEY_VARIABLE):
        try:
            return key_from_text(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{KEY_VARIABLE}: {error}") from None
    text = os.environ.get(PASSPHRASE_VARIABLE)
    return Secret(text) if text else None


def _warn(text: str) -> None:
    import logging

    logging.getLogger("garrison.credentials").warning(text)
