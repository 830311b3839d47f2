"""Which store is taken where nobody says."""

from __future__ import annotations

import base64
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError
from garrison.auth.store import FileStore, KeyringStore, MemoryStore, StoreError, default_path, open_store
from garrison.policy.secret import Secret

from .conftest import KEY, A, Keyring

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def no_ring(ring: type[Keyring]) -> None:
    ring.viable = False


def said_nothing(text: str) -> None:
    raise AssertionError(text)


def test_the_keyring_is_first(ring: type[Keyring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_STORE_PASSPHRASE", PASSPHRASE)
    assert isinstance(open_store(notice=said_nothing), KeyringStore)


@pytest.mark.usefixtures("no_ring")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GARRISON_STORE_KEY", KEY.hex()),
        ("GARRISON_STORE_KEY", base64.b64encode(KEY).decode()),
        ("GARRISON_STORE_PASSPHRASE", PASSPHRASE),
    ],
)
def test_a_key_in_the_environment_gives_the_file(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    store = open_store(notice=said_nothing)
    assert isinstance(store, FileStore) and store.path == default_path()
    store.save(A, b"value")
    key = Secret(text) if name.endswith("PASSPHRASE") else KEY
    assert FileStore(default_path(), key).load(A) == b"value"


@pytest.mark.usefixtures("no_ring")
@pytest.mark.parametrize("given", [{"key": KEY}, {"passphrase": Secret(PASSPHRASE)}], ids=["key", "passphrase"])
def test_a_key_that_is_given_goes_before_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setenv("GARRISON_STORE_KEY", "no key at all")
    path = home / "elsewhere" / "file"
    for preferred in (None, "file"):
        store = open_store(preferred, path=path, **given, notice=said_nothing)
        assert isinstance(store, FileStore) and store.path == str(path)
        store.save(A, b"value")
    assert FileStore(path, *given.values()).load(A) == b"value"


@pytest.mark.attack("ATK-264")
@pytest.mark.usefixtures("no_ring")
def test_memory_is_last_and_the_person_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    notices: list[str] = []
    store = open_store(notice=notices.append)
    store.save(A, b"canary-token")
    assert isinstance(store, MemoryStore) and store.load(A) == b"canary-token"
    (notice,) = notices
    assert "in memory, until this program ends" in notice and "GARRISON_STORE_PASSPHRASE" in notice
    assert not [file for file in home.rglob("*") if file.is_file()]
    assert caplog.records == []
    open_store()
    assert [(record.name, record.levelno) for record in caplog.records] == [("garrison.credentials", logging.WARNING)]


@pytest.mark.usefixtures("no_ring")
def test_what_was_asked_for_is_had_or_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store("memory", notice=said_nothing), MemoryStore)
    with pytest.raises(StoreError, match="no Secret Service"):
        open_store("keyring", passphrase=Secret(PASSPHRASE))
    with pytest.raises(ConfigurationError, match="GARRISON_STORE_PASSPHRASE"):
        open_store("file")
    monkeypatch.setenv("GARRISON_STORE_PASSPHRASE", PASSPHRASE)
    assert isinstance(open_store("file"), FileStore)


def test_the_file_is_taken_before_a_keyring_where_it_is_asked_for(ring: type[Keyring]) -> None:
    assert isinstance(open_store("file", key=KEY), FileStore)
    assert isinstance(open_store("keyring", key=KEY), KeyringStore)
    assert ring.entries == {}


@pytest.mark.usefixtures("no_ring")
@pytest.mark.parametrize(
    ("name", "text"), [("GARRISON_STORE_KEY", "canary"), ("GARRISON_STORE_PASSPHRASE", "canary-four")]
)
def test_a_bad_key_in_the_environment_is_an_error_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError) as caught:
        open_store()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("given", [{"key": b""}, {"key": KEY, "passphrase": Secret(PASSPHRASE)}], ids=["empty", "both"])
@pytest.mark.usefixtures("no_ring")
def test_a_key_that_is_none_is_not_passed_over(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        open_store(**given)


def test_the_file_is_in_the_folder_that_the_platform_has_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_path() == f"{home}/data/garrison/credentials"
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", odd)
        assert default_path() == f"{home}/.local/share/garrison/credentials"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_path() == f"{home}/Library/Application Support/garrison/credentials"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", f"{home}/local")
    assert default_path() == f"{home}/local/garrison/credentials"
