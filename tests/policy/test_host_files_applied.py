"""Configured means applied, in a host's file: each of its keys, changed, is seen to do something.

What a file can say is seen as what is said in code: by the same cases, with hosts that are read. A key without a case
fails; see `applied/case.py` for how to write one, and `applied/hosting.py` for how a host is read.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest

from garrison.auth import ClientCredentials, OAuth
from garrison.host import ApprovalPolicy, Host, MemoryState, RemoteServer, Rule
from garrison.host.config_values import keys_of
from garrison.policy.secret import Secret
from garrison.policy.tls import TlsClientConfig

from .applied.case import Case, rows, title_of
from .applied.hosting import FILE_KEYS, from_file, toml_value

IN_FILES = [(owner, sorted(names)) for owner, names in FILE_KEYS.items()]


@pytest.fixture(autouse=True)
def nothing_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.mark.parametrize(("owner", "name", "case"), rows(IN_FILES))
async def test_a_changed_key_of_a_hosts_file_is_seen(owner: object, name: str, case: Case | None) -> None:
    assert case is not None, f"nothing shows what {title_of(owner)}.{name} does"
    (first, expected), (then, other) = case.first, case.changed
    with from_file() as texts:
        seen = await asyncio.gather(case.observe(first), case.observe(then))
    assert seen == [expected, other], f"with {name}={first!r} and {then!r} in\n{''.join(texts)}"
    given = [table for text in texts for table in tables(owner, tomllib.loads(text))]
    assert any(name in table for table in given), f"{name} was not said in a file: {given}"


def tables(owner: object, whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the settings of this kind stand in a host's file."""
    if owner is ApprovalPolicy:
        return [whole]
    if owner is Rule:
        return whole.get("rules", [])
    return [whole["host"]] if owner is Host else list(whole["servers"].values())


PIN = "A" * 43 + "="
TLS = TlsClientConfig(ca="/c/ca.pem", certificate="/c/own.pem", key="/c/own.key", pins=(PIN,), minimum="1.3")
USUAL: dict[str, Any] = {
    "scopes": ("a",),
    "issuer": "https://auth.example",
    "account": "mine",
    "private_hosts": ("auth.example",),
    "tls": TLS,
    "dpop": "require",
}
SIGN_INS = [
    OAuth(
        "me",
        Secret("s1"),
        client_metadata_url="https://app.example/id",
        client_name="Mine",
        allow_dynamic_registration=True,
        redirect_uri="http://127.0.0.1/back",
        step_up_attempts=1,
        timeout=9,
        legacy_discovery=True,
        **USUAL,
    ),
    ClientCredentials("me", secret=Secret("s2"), method="client_secret_post", **USUAL),
    ClientCredentials("me", key=Secret("s3"), algorithm="RS256", key_id="k1", **USUAL),
]


@pytest.mark.parametrize("auth", SIGN_INS, ids=lambda auth: type(auth).__name__)
def test_every_key_of_a_sign_in_reaches_the_server_of_a_hosts_file(
    auth: OAuth | ClientCredentials, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "host.toml"
    written = f"auth = {toml_value(auth, tmp_path / 'secrets')}\ntls = {toml_value(TLS, tmp_path)}"
    path.write_text(f'[servers.x]\nurl = "https://mcp.example/mcp"\n{written}\n')
    path.chmod(0o600)
    server = Host.from_file(path, state=MemoryState(), trusted=True).member("x").settings
    assert isinstance(server, RemoteServer)
    assert (server.auth, server.tls) == (auth, TLS)
    table = tomllib.loads(written)
    either = {"secret", "method"} ^ {"key", "algorithm", "key_id"} if isinstance(auth, ClientCredentials) else set()
    assert keys_of(type(auth)) - set(table["auth"]) <= either, "a key is missing here"
    assert keys_of(TlsClientConfig) == set(table["tls"])
