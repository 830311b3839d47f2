"""The asynchronous face of a credential store: its lock is given back, whatever becomes of who wanted it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import garrison.auth.store
from garrison.auth.client.keeping import Keeping
from garrison.auth.client.obtain import way_for
from garrison.auth.client.settings import AuthSettings, ClientCredentials, OAuth
from garrison.auth.store import MemoryStore, StoreError
from garrison.auth.tokens import CredentialKey, TokenSet
from garrison.policy.secret import Secret

KEY = CredentialKey("https://as.example", "https://mcp.example/mcp", "desktop")


async def test_what_is_kept_is_what_was_given() -> None:
    keeping = Keeping(MemoryStore())
    tokens = TokenSet(access_token=Secret("a"), refresh_token=Secret("r"), scopes=frozenset({"x"}), expires_at=5.0)
    assert await keeping.tokens(KEY) is None
    await keeping.keep(KEY, tokens)
    assert await keeping.tokens(KEY) == tokens
    assert await keeping.keys() == (KEY,)
    await keeping.forget(KEY)
    assert await keeping.tokens(KEY) is None


async def test_one_at_a_time_and_all_of_more_than_there_are_threads() -> None:
    store, inside, most = MemoryStore(), 0, 0

    async def one() -> None:
        nonlocal inside, most
        keeping = Keeping(store)
        async with keeping.locked(KEY):
            inside += 1
            most = max(most, inside)
            await keeping.save(KEY, b"x")
            inside -= 1

    async with asyncio.timeout(5):
        await asyncio.gather(*(one() for _ in range(60)))
    assert most == 1


async def test_who_is_cancelled_while_waiting_leaves_no_lock_behind() -> None:
    keeping = Keeping(MemoryStore())

    async def wait() -> None:
        async with keeping.locked(KEY):
            raise RuntimeError("not reached")

    async with keeping.locked(KEY):
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(2), keeping.locked(KEY):
        pass


async def test_a_lock_that_cannot_be_had_is_an_error() -> None:
    class Locked:
        @contextmanager
        def lock(self, key: CredentialKey) -> Iterator[None]:
            raise StoreError("it is locked")
            yield

    broken: Any = Locked()
    with pytest.raises(StoreError, match="it is locked"):
        async with Keeping(broken).locked(KEY):
            pass


@pytest.mark.parametrize(("auth", "opened"), [(OAuth("desktop"), True), (ClientCredentials("a", secret="s"), False)])
async def test_a_person_has_the_store_of_the_platform_and_a_program_its_memory(
    auth: AuthSettings, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def open_store(**options: object) -> MemoryStore:
        calls.append(options["notice"])
        return MemoryStore()

    def tell(text: str) -> None:
        pass

    monkeypatch.setattr(garrison.auth.store, "open_store", open_store)
    way = way_for("https://mcp.example/mcp", auth, clock=lambda: 0.0, tell=tell, count=lambda: None)
    await way.keeping()
    await way.keeping()
    assert calls == ([tell] if opened else [])
