"""What every store does, and the one error of this room."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ...errors import GarrisonError
from ..tokens import CredentialKey

__all__ = ["MAX_VALUE_BYTES", "PATIENCE", "CredentialStore", "StoreError"]

MAX_VALUE_BYTES = 64 * 1024
"""Bytes of one value, in every store."""
PATIENCE = 60.0
"""Seconds that `lock` waits for another program, or for another thread of this one."""


class StoreError(GarrisonError):
    """Credentials cannot be read or kept. The message says what to do, and never has a secret in it."""


class CredentialStore(Protocol):
    """Keeps bytes by key. Its methods may block; who runs an event loop calls them in a thread.

    Each raises `StoreError` where the store cannot be used.
    """

    def load(self, key: CredentialKey) -> bytes | None:
        """What was kept under a key, or None."""
        ...

    def save(self, key: CredentialKey, value: bytes) -> None:
        """Keep a value, in place of an older one.

        An older one that cannot be read is not written over; `delete` takes it away.
        """
        ...

    def delete(self, key: CredentialKey) -> bool:
        """Forget a value, also one that cannot be read. False if there was none."""
        ...

    def keys(self) -> tuple[CredentialKey, ...]:
        """All keys that are there."""
        ...

    def lock(self, key: CredentialKey) -> AbstractContextManager[None]:
        """Held while a credential is renewed, so that of several processes one does it. Not reentrant.

        The other methods may be called by who holds it. Another thread may release it than the one that took it.
        """
        ...
