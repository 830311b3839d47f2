"""What holds a secret shows none, what is started gets none; and what is looked for would be found."""

from __future__ import annotations

import json
import logging
import pickle
import secrets
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import pytest
from joserfc.jwk import ECKey

from garrison import Client
from garrison.auth import (
    ClientCredentials,
    ClientSecret,
    CredentialKey,
    DpopKey,
    EnterpriseAuthorization,
    FileStore,
    MemoryStore,
    Nonces,
    OAuth,
    PkceChallenge,
    PrivateKeyJwt,
    TokenRequest,
    TokenSet,
    WorkloadIdentity,
)
from garrison.auth.client import browser, endpoint, registration
from garrison.auth.requests import AuthorizationRequest
from garrison.auth.store import records
from garrison.errors import ClientError
from garrison.policy.secret import Secret
from tests.support.protected import knock

from .canaries import watching
from .secret_scene import scene, text_of

pytestmark = [pytest.mark.attack("ATK-269"), pytest.mark.attack("ATK-279")]


PEM = ECKey.generate_key("P-256", private=True).as_pem(private=True).decode()
KEPT = secrets.token_urlsafe(32)
HOLDERS: dict[str, Callable[[], object]] = {
    "Secret": lambda: Secret(KEPT),
    "TokenSet": lambda: TokenSet(access_token=Secret(KEPT), refresh_token=Secret(KEPT)),
    "OAuth": lambda: OAuth("desktop", KEPT),
    "ClientCredentials": lambda: ClientCredentials("robot", secret=KEPT),
    "ClientCredentials with a key": lambda: ClientCredentials("robot", key=PEM),
    "EnterpriseAuthorization": lambda: EnterpriseAuthorization(
        issuer="https://as.example",
        idp="https://idp.example/token",
        id_token=lambda: KEPT,
        client_id="c",
        secret=KEPT,
        idp_client_id="i",
        idp_client_secret=KEPT,
    ),
    "WorkloadIdentity": lambda: WorkloadIdentity(assertion=lambda: KEPT),
    "ClientSecret": lambda: ClientSecret("desktop", KEPT),
    "PrivateKeyJwt": lambda: PrivateKeyJwt("robot", PEM, algorithm="ES256"),
    "PkceChallenge": lambda: PkceChallenge(KEPT + KEPT),
    "AuthorizationRequest": lambda: AuthorizationRequest(
        "desktop", PkceChallenge(), "https://mcp.example.com", redirect_uri="http://127.0.0.1/cb", state=KEPT
    ),
    "TokenRequest": lambda: TokenRequest.refresh_token(KEPT, "desktop", "https://mcp.example.com"),
    "DpopKey": lambda: DpopKey.load(Secret(DpopKey.generate().export().reveal())),
    "Nonces": lambda: Nonces(KEPT.encode()),
    "MemoryStore": lambda: _filled(MemoryStore()),
    "FileStore": lambda: FileStore("/nowhere/credentials", Secret(KEPT)),
}


def _filled(store: MemoryStore) -> MemoryStore:
    store.save(CredentialKey("https://as.example"), KEPT.encode())
    return store


def test_what_is_written_and_read_shows_no_secret_on_its_way() -> None:
    tokens: dict[str, Any] = {"access_token": KEPT, "refresh_token": KEPT, "token_type": "Bearer"}
    on_the_way = (
        endpoint._Answer(**tokens),
        registration._Answer("desktop", client_secret=KEPT),
        registration._Kept("https://as.example", "desktop", "none", "http://127.0.0.1/cb", KEPT, 0),
        records._Tokens(version=1, expires_at=None, scopes=None, issued_token_type=None, **tokens),
    )
    for found in on_the_way:
        assert KEPT not in f"{found!r} {found} {[found]}"


@pytest.mark.parametrize("name", HOLDERS)
def test_what_holds_a_secret_shows_none_and_is_not_pickled(name: str) -> None:
    holder = HOLDERS[name]()
    pieces = (KEPT, KEPT.encode().hex(), PEM[60:100])
    for shown in (repr(holder), str(holder), f"{holder}", f"{[holder]}", f"{holder!a}"):
        assert not any(piece in shown for piece in pieces)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
            pickle.dumps(holder, protocol)
        assert not any(piece in str(caught.value) for piece in pieces)


async def test_a_program_that_is_started_gets_no_secret(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shows = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ)]), file={})"
    async with watching(capfd) as watch:
        for name in ("GARRISON_STORE_PASSPHRASE", "GARRISON_STORE_KEY", "GARRISON_TOKEN", "OAUTH_CLIENT_SECRET"):
            monkeypatch.setenv(name, watch.plant(name, secrets.token_hex(32)))
        said: list[bytes] = []
        with pytest.raises(ClientError) as caught:
            async with Client(
                [sys.executable, "-c", shows.format("sys.stderr")], env={"MINE": "shown"}, on_stderr=said.append
            ):
                pass
        watch.raised(caught.value)
        watch.look("a server", b"".join(said))

        opener = tmp_path / "opener"
        file = f"open({str(tmp_path / 'opened')!r}, 'w')"
        opener.write_text(f"#!{sys.executable}\n{shows.format(file)}\n")
        opener.chmod(0o700)
        monkeypatch.setattr(browser, "_PROGRAMS", ((str(opener),),))
        monkeypatch.setenv("DISPLAY", ":0")
        pkce = PkceChallenge()
        watch.plant("code_verifier", pkce.verifier)
        request = AuthorizationRequest("desktop", pkce, "https://mcp.example.com", redirect_uri="http://127.0.0.1/cb")
        assert await browser.open_browser(request.url("https://as.example/authorize"))
        watch.look("the opener", (tmp_path / "opened").read_bytes())
    assert b'"MINE": "shown"' in b"".join(said) and b"as.example" in (tmp_path / "opened").read_bytes()
    assert watch.seen() == {}


async def test_secrets_reach_those_whom_they_are_for(capfd: pytest.CaptureFixture[str]) -> None:
    async with scene(capfd) as at:
        store = MemoryStore()
        async with at.client(store=store, dpop="off") as client:
            at.watch.plant_store(store)
            assert "alice" in text_of(await client.call_tool("look"))
        (asked,) = at.authorization.asked("token")
        both = f"{quote_plus('desktop')}:{quote_plus(at.secret)}".encode()
        assert asked.headers["authorization"] == f"Basic {b64encode(both).decode()}"
        for name in ("code", "code_verifier"):
            assert dict(parse_qsl(asked.body.decode()))[name]
        at.watch.look("the authorization server", asked.body + asked.headers["authorization"].encode())
        (name,) = store.keys()
        kept = json.loads(store.load(name) or b"")
        at.watch.look("the store", store.load(name) or b"")
        statuses = [(await knock("http", at.port, f"Bearer {kept['access_token']}{more}")).status for more in ("", "x")]
        assert statuses == [200, 401]
    assert at.watch.seen() == {
        "the authorization server": {"client secret", "code", "code_verifier"},
        "the store": {"access_token", "refresh_token"},
    }


@dataclass
class Loose:
    """What shows what it has."""

    token: str


Loose.__module__ = "garrison.loose"  # a room that is looked at


async def test_what_is_shown_is_found(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async with watching(capfd) as watch:
        token = watch.plant("token", secrets.token_urlsafe(40))
        logging.getLogger("garrison.client").debug("the token is %s", token[:20])
        logging.getLogger("garrison.server").debug("no words", extra={"token": token})
        loose = Loose(token)
        watch.look_at_objects()
        del loose
        error = ValueError(f"not {b64encode(token.encode()).decode()}")
        watch.raised(error)
        print(token)
        (tmp_path / "file").write_text(token)
        watch.look_into(tmp_path)
    assert watch.seen().keys() == {
        *("log garrison.client", "log garrison.server", "exception", "standard output", "file file"),
        *("repr of Loose", "str of Loose", "format of Loose"),
    }
