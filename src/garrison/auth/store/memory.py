"""Credentials in memory: gone when the process ends."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, final

from ..tokens import CredentialKey
from .contract import PATIENCE, StoreError
from .records import check_value

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["MemoryStore"]


@final
class MemoryStore:
    """A store for one process. Others do not see it, and nothing of it is written anywhere."""

    __slots__ = ("_guard", "_locks", "_values")

    def __init__(self) -> None:
        self._guard = Lock()
        self._values: dict[CredentialKey, bytes] = {}
        self._locks: dict[CredentialKey, Lock] = {}

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._values)} entries)"

    def __reduce__(self) -> str:
        raise TypeError("a MemoryStore holds secrets and is not pickled")

    def load(self, key: CredentialKey) -> bytes | None:
        """What was kept under a key, or None."""
        return self._values.get(key)

    def save(self, key: CredentialKey, value: bytes) -> None:
        """Keep a value.

        Raises:
            StoreError: it is larger than 64 KiB.
        """
        check_value(value)
        self._values[key] = bytes(value)

    def delete(self, key: CredentialKey) -> bool:
        """Forget a value. False if there was none."""
        return self._values.pop(key, None) is not None

    def keys(self) -> tuple[CredentialKey, ...]:
        """All keys that are there."""
        return tuple(self._values)

    def lock(self, key: CredentialKey) -> AbstractContextManager[None]:
        """Held by one at a time, for each key.

        Raises:
            StoreError: another held it for 60 s.
        """
        with self._guard:
            lock = self._locks.setdefault(key, Lock())
        return _held(lock)


@contextmanager
def _held(lock: Lock) -> Generator[None]:
    if not lock.acquire(timeout=PATIENCE):
        raise StoreError(f"the credential has been locked for {PATIENCE:g} s")
    try:
        yield
    finally:
        lock.release()
