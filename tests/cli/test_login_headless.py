"""Signing in without a desktop: the address is printed whole, and the one that it leads to is pasted, or opened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .signing_in import Place, consented, delivered, place


@pytest.fixture(scope="module")
def there() -> Generator[Place]:
    with place() as made:
        yield made


@contextmanager
def signing_in(there: Place, home: Path, *words: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A `garrison login` that has printed the address of the page."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GARRISON_")}
    environment |= {"XDG_DATA_HOME": str(home), "GARRISON_STORE": "file", "GARRISON_STORE_KEY": "ab" * 32}
    environment = {k: v for k, v in environment.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_INTEROP")}
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison", "login", there.url, "--client-id", "desktop", "--timeout", "20", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    with process:
        try:
            assert process.stderr is not None
            url = ""
            for line in process.stderr:
                if found := re.fullmatch(r"(http://\S+)\n", line):
                    url = found[1]
                    break
            yield process, url
        finally:
            process.kill()


@pytest.mark.parametrize("way", ["pasted", "opened"])
def test_the_answer_is_pasted_or_comes_by_itself(way: str, there: Place, tmp_path: Path) -> None:
    with signing_in(there, tmp_path, "--headless", "--json") as (process, url):
        address = consented(url)
        if way == "opened":
            delivered(address)
        out, err = process.communicate(address + "\n" if way == "pasted" else None, timeout=20)
    assert process.returncode == 0, out + err
    report = json.loads(out)
    assert (report["server"], report["scopes"]) == (there.url, ["notes:read"])
    code = re.search("code=([^&]+)", address)
    assert code and code[1] not in out + err
    assert "eyJ" not in out + err  # how a JWT begins


@pytest.mark.parametrize("pasted", ["nonsense", "http://127.0.0.1:1/callback?code=a&state=b", "{url}"])
def test_another_address_is_refused(pasted: str, there: Place, tmp_path: Path) -> None:
    with signing_in(there, tmp_path, "--headless") as (process, url):
        out, err = process.communicate(pasted.format(url=url) + "\n", timeout=20)
    assert process.returncode == 6 and out == "" and "is not the answer to this request" in err
    assert err.strip().count("\n") <= 3


def test_without_a_desktop_and_a_terminal_it_ends_at_once(there: Place, tmp_path: Path) -> None:
    with signing_in(there, tmp_path, "--json") as (process, url):
        out, _ = process.communicate(timeout=20)
    error = json.loads(out)["error"]
    assert (process.returncode, url, error["kind"]) == (6, "", "AuthorizationFailed")
    assert "no browser could be opened" in error["message"]
    with signing_in(there, tmp_path, "--headless") as (process, url):
        assert url.startswith(there.authorization.issuer + "/authorize?")


def test_nobody_comes(there: Place, tmp_path: Path) -> None:
    with signing_in(there, tmp_path, "--headless", "--timeout", "0.3") as (process, _):
        out, err = process.communicate(timeout=20)
    assert process.returncode == 6 and out == "" and "nobody signed in within 0.3 s" in err
