"""A credential store as an event loop uses it: what blocks runs in a thread.

Rules of this file:
- The lock of a credential is taken and given back by one thread, whatever becomes of the task that wanted it.
- What a store cannot give is an error, never an empty answer: nobody signs in again because a file was locked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from ...errors import AuthorizationFailed

if TYPE_CHECKING:
    from ..store import CredentialStore
    from ..tokens import CredentialKey, TokenSet

__all__ = ["Keeping"]

_PATIENCE: Final = 65.0
"""Seconds to wait for another process that renews the same credential; a little longer than our stores do."""


class Keeping:
    """The asynchronous face of a store. Each method raises `StoreError` where the store cannot be used."""

    def __init__(self, store: CredentialStore) -> None:
        self._store = store

    async def tokens(self, key: CredentialKey) -> TokenSet | None:
        """The tokens that are kept under a key."""
        from ..store.records import decode_tokens

        record = await asyncio.to_thread(self._store.load, key)
        return None if record is None else decode_tokens(record)

    async def keep(self, key: CredentialKey, tokens: TokenSet) -> None:
        """Keep tokens, in place of older ones."""
        from ..store.records import encode_tokens

        await asyncio.to_thread(self._store.save, key, encode_tokens(tokens))

    async def load(self, key: CredentialKey) -> bytes | None:
        """What is kept under a key."""
        return await asyncio.to_thread(self._store.load, key)

    async def save(self, key: CredentialKey, value: bytes) -> None:
        """Keep a value, in place of an older one."""
        await asyncio.to_thread(self._store.save, key, value)

    async def forget(self, key: CredentialKey) -> None:
        """Delete what is kept under a key."""
        await asyncio.to_thread(self._store.delete, key)

    async def keys(self) -> tuple[CredentialKey, ...]:
        """All keys."""
        return await asyncio.to_thread(self._store.keys)

    @asynccontextmanager
    async def locked(self, key: CredentialKey) -> AsyncGenerator[None]:
        """Hold the lock of a credential, against other processes and other clients of this one.

        Raises:
            AuthorizationFailed: somebody else did not give it back.
        """
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[None] = loop.create_future()
        done = threading.Event()

        def settle(error: BaseException | None) -> None:
            if entered.done():
                return
            if error is None:
                entered.set_result(None)
            else:
                entered.set_exception(error)

        def tell(error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, error)

        def hold() -> None:
            try:
                with self._store.lock(key):
                    tell(None)
                    done.wait()
            except Exception as exc:  # noqa: BLE001 - whatever a store raises, who waits must hear of it
                tell(exc)

        # A thread of its own: those of the loop's executor do the work of whoever holds the lock.
        threading.Thread(target=hold, name="garrison-credential-lock", daemon=True).start()
        try:
            await asyncio.wait((entered,), timeout=_PATIENCE)
            if not entered.done():
                raise AuthorizationFailed("Another process is renewing the same token and does not finish; try again")
            entered.result()
            yield
        finally:
            done.set()
            entered.cancel()
