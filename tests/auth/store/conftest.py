"""A keyring that tests can look into, and a home that is empty."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from garrison.auth.store import sealing
from garrison.auth.tokens import CredentialKey

DEFAULT_COST = sealing._COST
KEY = bytes(range(32))
A = CredentialKey("https://a.example", "https://mcp.a.example", "client-a")
B = CredentialKey("https://b.example", "https://mcp.b.example", "client-b")


class Keyring:
    """Stands for the keyring package's own back end, under its name."""

    __module__ = "keyring.backends.SecretService"
    viable = True
    entries: dict[tuple[str, str], str]
    chars = 1 << 20
    deaf = False
    failing: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.failing is not None:
            raise self.failing
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        assert len(password.encode("utf-16-le")) <= 2 * self.chars
        if not self.deaf:
            self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase is stretched less than by default."""
    monkeypatch.setattr(sealing, "_COST", 15)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a folder for temporary files with nothing in them, and no session bus."""
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(place))
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "data"))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={place}/no-bus")
    for name in ("GARRISON_STORE_KEY", "GARRISON_STORE_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def ring(home: Path, monkeypatch: pytest.MonkeyPatch) -> type[Keyring]:
    """What this platform's keyring holds."""
    made = type("Keyring", (Keyring,), {"__module__": Keyring.__module__, "entries": {}})
    module = ModuleType(Keyring.__module__)
    module.__dict__["Keyring"] = made
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, Keyring.__module__, module)
    return made
