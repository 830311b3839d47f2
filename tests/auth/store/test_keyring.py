"""The platform's keyring: which back end is taken, and that what is kept there is whole and under its own name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from garrison.auth.store import KeyringStore, StoreError
from garrison.auth.store import keyring as room
from garrison.auth.tokens import CredentialKey

from .conftest import A, B, Keyring

SOURCES = str(Path(__file__).resolve().parents[3] / "src")
has_package = pytest.mark.skipif(
    not any(os.path.isdir(os.path.join(place, "keyring")) for place in sys.path), reason="keyring is not installed"
)


def run(text: str, home: Path, **environment: str) -> str:
    """What a program prints, whose home is empty."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": SOURCES, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Which back end is taken

PLUGIN = """
import pathlib
from keyring.backend import KeyringBackend
pathlib.Path(__file__).with_name("loaded").touch()
class Plain(KeyringBackend):
    priority = 100
    def get_password(self, service, username):
        return None
    def set_password(self, service, username, password):
        pathlib.Path(__file__).with_name("plain").write_text(password)
"""

USE = """
import sys
from garrison.auth.store import open_store, KeyringStore, StoreError
from garrison.auth.tokens import CredentialKey
import keyring
store = open_store(notice=lambda text: print("notice"))
store.save(CredentialKey("https://a.example"), b"canary-token")
print(type(store).__name__)
try:
    KeyringStore()
except StoreError as error:
    print(error)
"""


def plug_in(home: Path) -> Path:
    """A folder for `PYTHONPATH` with a back end that writes plain files, as an installed package has it."""
    place = home / "plugin"
    (place / "plain_ring-1.dist-info").mkdir(parents=True)
    (place / "plain_ring-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-ring\nVersion: 1\n")
    (place / "plain_ring-1.dist-info" / "entry_points.txt").write_text("[keyring.backends]\nplain = plain_ring\n")
    (place / "plain_ring.py").write_text(PLUGIN)
    return place


def configured(home: Path, backend: str) -> None:
    (home / ".config" / "python_keyring").mkdir(parents=True)
    (home / ".config" / "python_keyring" / "keyringrc.cfg").write_text(f"[backend]\ndefault-keyring={backend}\n")


@has_package
@pytest.mark.attack("ATK-268")
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="these have a keyring always")
@pytest.mark.parametrize(
    "backend", ["keyring.backends.null.Keyring", "keyring.backends.chainer.ChainerBackend", "plain_ring.Plain"]
)
@pytest.mark.parametrize("by", ["environment", "configuration", "priority"])
def test_nobody_else_chooses_the_back_end(home: Path, backend: str, by: str) -> None:
    place = plug_in(home)
    environment = {"PYTHONPATH": f"{SOURCES}{os.pathsep}{place}", "XDG_CONFIG_HOME": str(home / ".config")}
    if by == "environment":
        environment["PYTHON_KEYRING_BACKEND"] = backend
    elif by == "configuration":
        configured(home, backend)
    said = run(USE, home, **environment).splitlines()
    assert said == ["notice", "MemoryStore", "no Secret Service answers; start one and unlock it"]
    assert not (place / "loaded").exists() and not (place / "plain").exists()
    # The same settings do lead the keyring package itself there, so that they would have been obeyed.
    if by != "priority":
        asked = run("import keyring; print(type(keyring.get_keyring()).__name__)", home, **environment)
        assert asked.strip() == backend.rpartition(".")[2]


@pytest.mark.attack("ATK-268")
def test_the_platforms_own_back_end_is_taken(ring: type[Keyring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    store = KeyringStore()
    store.save(A, b"value")
    assert store.backend == "Secret Service"
    assert len(ring.entries) == 2  # the value and the index


@has_package
def test_properties_of_the_environment_do_not_reach_it(home: Path) -> None:
    text = """
import sys
sys.platform = "linux"
import keyring.backends.SecretService as module
module.Keyring.viable = True
from garrison.auth.store import KeyringStore
print(vars(KeyringStore()._ring), vars(module.Keyring()))
"""
    said = run(text, home, KEYRING_PROPERTY_SCHEME="KeePassXC", KEYRING_PROPERTY_PREFERRED_COLLECTION="/evil")
    assert said.strip() == "{} {'scheme': 'KeePassXC', 'preferred_collection': '/evil'}"


@pytest.mark.attack("ATK-268")
@pytest.mark.parametrize("what", ["__module__", "__qualname__"])
def test_a_class_that_took_the_place_of_the_packages_own_is_refused(ring: type[Keyring], what: str) -> None:
    KeyringStore()
    setattr(ring, what, "plain_ring")
    with pytest.raises(StoreError, match="not the keyring package's own"):
        KeyringStore()


def test_a_back_end_that_does_not_answer_is_an_error(ring: type[Keyring]) -> None:
    ring.viable = False
    with pytest.raises(StoreError, match="no Secret Service answers"):
        KeyringStore()


def test_without_the_package_the_error_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (*room._BACKENDS.values(), room._ELSEWHERE):
        monkeypatch.setitem(sys.modules, backend.module, None)
    with pytest.raises(StoreError, match=r"garrison\[keyring\]"):
        KeyringStore()


@has_package
def test_every_back_end_of_the_list_is_there_under_its_name(home: Path) -> None:
    from importlib import import_module

    for backend in (*room._BACKENDS.values(), room._ELSEWHERE):
        found: Any = getattr(import_module(backend.module), backend.name)
        assert (found.__module__, found.__qualname__) == (backend.module, backend.name)
        from keyring.backend import KeyringBackend

        assert found.__init__ is KeyringBackend.__init__  # which is left out


# What is kept there


def test_two_services_do_not_see_each_other(ring: type[Keyring]) -> None:
    KeyringStore("one").save(A, b"value")
    assert KeyringStore("two").load(A) is None
    assert KeyringStore("two").keys() == ()
    assert KeyringStore("one").load(A) == b"value"


@pytest.mark.attack("ATK-267")
def test_entries_that_were_swapped_in_the_keyring(ring: type[Keyring]) -> None:
    store = KeyringStore()
    store.save(A, b"token of a")
    (a,) = [name for name in ring.entries if not name[0].endswith("index")]
    store.save(B, b"token of b")
    (b,) = [name for name in ring.entries if not name[0].endswith("index") and name != a]
    assert (store.load(A), store.load(B)) == (b"token of a", b"token of b")
    ring.entries[a], ring.entries[b] = ring.entries[b], ring.entries[a]
    for key in (A, B):
        with pytest.raises(StoreError, match="changed or is damaged; delete it and log in again"):
            store.load(key)
        with pytest.raises(StoreError):
            store.save(key, b"new")
    assert store.delete(A) is True
    store.save(A, b"after a new login")
    assert store.load(A) == b"after a new login"


@pytest.mark.parametrize("text", ["", "=", "=!", "x", "=eA==", "+0123456789abcdef.1." + "0" * 64, "=eA==.eA==.eA=="])
def test_a_damaged_entry_is_an_error_and_stays_as_it_is(ring: type[Keyring], text: str) -> None:
    store = KeyringStore()
    store.save(A, b"value")
    (name,) = [name for name in ring.entries if not name[0].endswith("index")]
    ring.entries[name] = text
    for use in (lambda: store.load(A), lambda: store.save(A, b"new")):
        with pytest.raises(StoreError, match="delete it"):
            use()
    assert ring.entries[name] == text
    assert store.delete(A) is True


def test_a_damaged_index_is_an_error_and_the_entries_are_still_there(ring: type[Keyring]) -> None:
    store = KeyringStore()
    store.save(A, b"value")
    ring.entries["garrison/index", "garrison"] = "=eA=="
    with pytest.raises(StoreError):
        store.keys()
    with pytest.raises(StoreError):
        store.save(B, b"value")
    assert store.load(A) == b"value"


def test_a_keyring_that_keeps_nothing_is_found_out(ring: type[Keyring]) -> None:
    store = KeyringStore()
    ring.deaf = True
    with pytest.raises(StoreError, match="did not keep"):
        store.save(A, b"value")


def test_the_error_of_a_back_end_does_not_show_its_text(ring: type[Keyring]) -> None:
    store = KeyringStore()
    store.save(A, b"value")
    ring.failing = RuntimeError("canary-token could not be stored")
    for use in (lambda: store.load(A), lambda: store.save(A, b"new"), lambda: store.delete(A), store.keys):
        with pytest.raises(StoreError, match=r"Secret Service failed \(RuntimeError\); unlock it") as caught:
            use()
        assert "canary" not in f"{caught.value!r} {caught.value.__cause__!r}" and caught.value.__suppress_context__
    ring.failing = None
    assert store.load(A) == b"value"


# Credential Manager takes 2560 bytes


@pytest.fixture
def small(ring: type[Keyring], monkeypatch: pytest.MonkeyPatch) -> type[Keyring]:
    """A keyring that takes no more than Windows does."""
    ring.chars = 1280
    least = room._BACKENDS["win32"]
    monkeypatch.setattr(room, "_ELSEWHERE", room._ELSEWHERE._replace(chars=least.chars))
    return ring


@pytest.mark.parametrize("size", [0, 700, 899, 900, 901, 5_000, 65_536])
def test_a_value_of_any_size_is_kept_in_parts(small: type[Keyring], size: int) -> None:
    store, value = KeyringStore(), os.urandom(size)
    store.save(A, value)
    assert store.load(A) == value
    store.save(A, b"short")
    assert store.load(A) == b"short"
    assert len(small.entries) == 2  # no part is left
    store.save(A, value)
    assert store.delete(A) is True
    assert [name for name, _ in small.entries] == ["garrison/index"]


def test_many_keys_are_kept_in_parts(small: type[Keyring]) -> None:
    store = KeyringStore()
    keys = [CredentialKey(f"https://server-{index}.example", "https://mcp.example/" + "p" * 200) for index in range(12)]
    for key in keys:
        store.save(key, key.issuer.encode())
    assert store.keys() == tuple(keys)
    assert [store.load(key) for key in keys] == [key.issuer.encode() for key in keys]


@pytest.mark.attack("ATK-266")
def test_who_stops_between_the_parts_leaves_the_old_version(
    small: type[Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyringStore()
    old, new = os.urandom(5_000), os.urandom(5_000)
    store.save(A, old)
    write, stop = small.set_password, 0
    for stop in range(40):
        calls = 0

        def failing(self: Keyring, service: str, username: str, password: str, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise OSError("no space")
            write(self, service, username, password)

        with monkeypatch.context() as patch:
            patch.setattr(small, "set_password", failing)
            try:
                store.save(A, new)
            except StoreError:
                assert KeyringStore().load(A) == old
            else:
                break
    assert stop > 3
    assert store.load(A) == new


@pytest.mark.parametrize("change", ["gone", "exchanged"])
def test_a_part_that_is_gone_or_exchanged_is_noticed(small: type[Keyring], change: str) -> None:
    store = KeyringStore()
    store.save(A, os.urandom(5_000))
    parts = sorted(name for name in small.entries if "." in name[0])
    assert len(parts) > 3 and store.load(A)
    if change == "gone":
        del small.entries[parts[1]]
    else:
        small.entries[parts[1]], small.entries[parts[2]] = small.entries[parts[2]], small.entries[parts[1]]
    with pytest.raises(StoreError, match="damaged"):
        store.load(A)


def test_a_value_that_is_replaced_while_it_is_read_is_read_again(
    small: type[Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, new = KeyringStore(), os.urandom(5_000)
    store.save(A, os.urandom(5_000))
    read, first = small.get_password, True

    def racing(self: Keyring, service: str, username: str) -> str | None:
        nonlocal first
        if first and "." in service:  # the reader has the old head, and comes for its parts
            first = False
            KeyringStore().save(A, new)
        return read(self, service, username)

    monkeypatch.setattr(small, "get_password", racing)
    assert store.load(A) == new


# A real one

REAL = """
import subprocess
import sys
subprocess.run(["gnome-keyring-daemon", "--unlock", "--components=secrets"], input=b"pw", check=True, timeout=10,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
from garrison.auth.store import KeyringStore, open_store
from garrison.auth.tokens import CredentialKey
key, value = CredentialKey("https://a.example", "https://r.example", "c"), b"canary-token" * 1000
store = open_store()
store.save(key, value)
print(type(store).__name__, KeyringStore().load(key) == value, KeyringStore().keys() == (key,))
print(store.delete(key), store.load(key), store.keys(), store.delete(key))
"""


@has_package
@pytest.mark.peer
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the Secret Service is a desktop's of Linux and BSD")
def test_a_real_secret_service(home: Path) -> None:
    missing = [each for each in ("dbus-run-session", "gnome-keyring-daemon") if shutil.which(each) is None]
    assert not missing, f"{missing} missing: apt-get install -y --no-install-recommends gnome-keyring dbus-daemon"
    environment = {name: text for name, text in os.environ.items() if name != "DBUS_SESSION_BUS_ADDRESS"}
    done = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", REAL],
        env={**environment, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["KeyringStore True True", "True None () False"], done.stderr
    assert not [file for file in home.rglob("*") if file.is_file() and b"canary" in file.read_bytes()]
