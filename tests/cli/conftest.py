"""No test of the command looks into the keyring or the credentials of who runs it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_sign_ins(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty place for sign-ins, of no keyring."""
    home: Path = tmp_path_factory.getbasetemp() / "no-sign-ins"
    monkeypatch.setenv("GARRISON_STORE", "file")
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
