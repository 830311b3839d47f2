"""What every store does, each of them asked the same."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.auth.store import CredentialStore, FileStore, KeyringStore, MemoryStore, StoreError
from garrison.auth.tokens import CredentialKey

from .conftest import KEY, A, B, Keyring

MAKERS: dict[str, Callable[[Path], CredentialStore]] = {
    "memory": lambda place: MemoryStore(),
    "file": lambda place: FileStore(place / "store" / "credentials", KEY),
    "keyring": lambda place: KeyringStore(),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path, ring: type[Keyring]) -> CredentialStore:
    return MAKERS[request.param](tmp_path)


def test_a_new_store_is_empty(store: CredentialStore) -> None:
    assert store.load(A) is None
    assert store.keys() == ()
    assert store.delete(A) is False


def test_what_was_saved_is_there_until_it_is_deleted(store: CredentialStore) -> None:
    store.save(A, b"one")
    store.save(B, b"")
    assert (store.load(A), store.load(B)) == (b"one", b"")
    store.save(A, b"two")
    assert store.load(A) == b"two"
    assert set(store.keys()) == {A, B}
    assert store.delete(A) is True
    assert (store.load(A), store.load(B)) == (None, b"")
    assert store.keys() == (B,)
    assert store.delete(A) is False


def test_keys_that_differ_in_one_member_are_strangers(store: CredentialStore) -> None:
    whole = CredentialKey("https://a.example", "https://r.example", "client", "work")
    others = [
        CredentialKey("https://a.example/", "https://r.example", "client", "work"),
        CredentialKey("https://a.example", "https://r.example/", "client", "work"),
        CredentialKey("https://a.example", "https://r.example", "Client", "work"),
        CredentialKey("https://a.example", "https://r.example", "client", "home"),
        CredentialKey("https://a.example", "https://r.example", "client", "work", kind="client"),
        CredentialKey("https://a.examplehttps://r.example", "", "client", "work"),
    ]
    store.save(whole, b"secret")
    assert [store.load(other) for other in others] == [None] * len(others)
    assert store.load(whole) == b"secret"


def test_values_are_bytes_of_up_to_64_kib(store: CredentialStore) -> None:
    value = bytes(range(256)) * 256
    store.save(A, value)
    assert store.load(A) == value
    with pytest.raises(StoreError, match="65537 bytes"):
        store.save(A, value + b"x")
    assert store.load(A) == value


def test_a_lock_is_held_by_one_at_a_time_for_each_key(store: CredentialStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("file", "keyring", "memory"):
        monkeypatch.setattr(f"garrison.auth.store.{module}.PATIENCE", 0.1)
    with store.lock(A):
        store.save(A, b"renewed")  # who holds it may use the store
        with store.lock(B):
            pass
        with pytest.raises(StoreError, match=r"0\.1 s"), store.lock(A):
            pass
    with store.lock(A):
        assert store.load(A) == b"renewed"


def test_who_waits_for_a_lock_gets_it(store: CredentialStore) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with store.lock(A):
            order.append("second")

    thread = threading.Thread(target=wait)
    with store.lock(A):
        thread.start()
        assert waiting.wait(5)
        thread.join(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_lock_is_released_by_another_thread_and_after_an_error(store: CredentialStore) -> None:
    held = store.lock(A)
    taker = threading.Thread(target=held.__enter__)
    taker.start()
    taker.join(5)
    held.__exit__(None, None, None)
    with pytest.raises(KeyError), store.lock(A):
        raise KeyError
    with store.lock(A):
        pass


def test_a_store_shows_nothing_of_what_is_in_it(store: CredentialStore) -> None:
    store.save(A, b"canary-value")
    shown = f"{store!r} {store} {store:}"
    assert "canary" not in shown and KEY.hex() not in shown and repr(KEY) not in shown
    if not isinstance(store, KeyringStore):
        for copied in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                copied(store)
