"""No secret of a flow is shown to anybody but those whom it is for: not by logs, errors, objects, files or answers."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from garrison.auth import (
    MemoryStore,
    StoreError,
)
from garrison.auth.store import open_store
from garrison.errors import AuthorizationFailed, ClientError, ToolError
from garrison.testing import Reply, Request

from .secret_scene import ALL, REFUSALS, RUBBISH, answered, ended, scene, text_of

pytestmark = [pytest.mark.attack("ATK-269"), pytest.mark.attack("ATK-279")]


@pytest.mark.parametrize("dpop", ["require", "off"])
async def test_a_whole_flow_shows_no_secret(
    dpop: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / name))
    async with scene(capfd, token_seconds=2) as at:
        watch = at.watch
        passphrase = watch.plant("passphrase", secrets.token_urlsafe(24))
        monkeypatch.setenv("GARRISON_STORE_PASSPHRASE", passphrase)
        store = open_store("file")
        at.answer = lambda _, reply: watch.look_at_objects() or reply
        async with at.client(store=store, dpop=dpop) as client:
            shown = text_of(await client.call_tool("look"))
            watch.look("answer of a tool", shown)
            assert "alice" in shown
            watch.plant_store(store)
            with pytest.raises(ToolError) as caught:
                await client.call_tool("fall", raise_on_error=True)
            watch.raised(caught.value)
            watch.plant_store(store)
            at.authorization.settings.token_seconds = 300
            await asyncio.sleep(1.1)
            watch.look("answer of a tool", text_of(await client.call_tool("look")))
            watch.look("whoami", repr(client.whoami))
            watch.plant_store(store)
            watch.look_at_objects(pickles=True)
            assert await client.sign_out() is True
        kinds = [dict(parse_qsl(each.body.decode()))["grant_type"] for each in at.authorization.asked("token")]
        assert kinds[0] == "authorization_code" and kinds.count("authorization_code") == 2 and "refresh_token" in kinds
        assert watch.look_into(tmp_path) >= 1
    assert watch.names >= ALL | {"passphrase", "token"} | ({"DPoP key"} if dpop == "require" else set())
    assert {
        "log asyncio",
        "log garrison.security",
        "log garrison.server",
        "repr of Secret",
        "repr of Held",
    } <= watch.places
    assert watch.seen() == {}


@pytest.mark.parametrize("when", ["authorization_code", "refresh_token", "revoke"])
async def test_what_repeats_a_request_is_not_shown(when: str, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    kinds = [what for what in RUBBISH if when != "revoke" or what in REFUSALS]
    async with scene(capfd) as at:
        what, spoilt = "", list[str]()

        def rubbish(request: Request, reply: Reply) -> Reply:
            form = dict(parse_qsl(request.body.decode("latin-1")))
            if form.get("grant_type") != when and (request.endpoint, when) != ("revoke", "revoke"):
                return reply
            at.watch.look_at_objects()
            spoilt.append(what)
            return RUBBISH[what](request)

        at.answer = rubbish
        for what in kinds:
            failed, store = list[BaseException](), MemoryStore()
            if when != "authorization_code":
                ended(at, store)
            at.person.ends = when == "refresh_token"
            try:
                async with at.client(store=store, dpop="off", notice=told.append) as client:
                    if when == "revoke":
                        await client.sign_out()
            except ClientError as exc:
                at.watch.raised(exc)
                failed.append(exc)
            at.watch.look_at_objects()
            assert failed or when == "revoke", what
        assert list(dict.fromkeys(spoilt)) == kinds
    at.watch.look("notice", "\n".join(told))
    assert at.watch.names >= {
        "client secret",
        *({"code", "state"} if when == "authorization_code" else {"refresh_token"}),
    }
    assert {"exception", "repr of Fetched"} <= at.watch.places or when == "revoke"
    assert at.watch.seen() == {}


@pytest.mark.parametrize("error", ["access_denied", "server_error"])
async def test_words_that_come_back_with_a_no_are_not_shown(error: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with scene(capfd) as at:

        def spoilt(request: Request, reply: Reply) -> Reply:
            if request.endpoint != "authorize":
                return reply
            given = dict(parse_qsl(request.query))
            query = urlencode(
                {
                    "error": error,
                    "error_description": f"no, {given['state']}",
                    "state": given["state"],
                    "iss": at.authorization.issuer,
                }
            )
            return Reply(302, b"", (("Location", f"{given['redirect_uri']}?{query}"),))

        at.answer = spoilt
        with pytest.raises(AuthorizationFailed) as caught:
            async with at.client():
                pass
        at.watch.raised(caught.value)
        at.watch.look_at_objects()
    assert "state" in at.watch.names and caught.value.error == error
    assert at.watch.seen() == {}


async def test_what_a_registration_gave_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    async with scene(capfd) as at:
        secret, store = at.watch.plant("registered secret", secrets.token_urlsafe(24)), MemoryStore()

        def spoilt(request: Request, reply: Reply) -> Reply:
            at.watch.look_at_objects()
            if request.endpoint != "register":
                return reply
            asked = json.loads(request.body)
            return answered(201, {**asked, "client_id": secret[:12], "client_secret": secret, **changes})

        at.answer = spoilt
        auth = {"client_id": None, "client_secret": None, "allow_dynamic_registration": True, "store": store}
        changes: dict[str, Any]
        for changes in (  # noqa: B007 - what answers reads it
            {"redirect_uris": [f"https://elsewhere.example/{secret}"]},
            {"client_secret_expires_at": secret},
            {"client_secret": [secret]},
            {"client_id": ""},
        ):
            with pytest.raises(AuthorizationFailed) as caught:
                async with at.client(**auth):
                    pass
            at.watch.raised(caught.value)
        assert len(at.authorization.asked("register")) == 4
    assert at.watch.seen() == {}


class FailingStore:
    """A store that keeps, until it fails at one thing."""

    def __init__(self, fails: str, error: Exception) -> None:
        self._store, self._fails, self._error = MemoryStore(), fails, error

    def __getattr__(self, name: str) -> Any:
        if name == self._fails:
            raise_it = self._error

            def fail(*_: object) -> None:
                raise raise_it

            return fail
        return getattr(self._store, name)


@pytest.mark.parametrize("error", [StoreError("the disk is full"), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize("fails", ["keys", "load", "save", "lock", "delete"])
async def test_a_store_that_fails_takes_no_secret_along(
    fails: str, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    async with scene(capfd) as at:
        store: Any = FailingStore(fails, error)
        if fails == "lock":
            ended(at, store)
        try:
            async with at.client(store=store, notice=told.append, dpop="off") as client:
                await client.call_tool("look")
                await client.sign_out()
        except ClientError as exc:
            at.watch.raised(exc)
        at.watch.look_at_objects()
    at.watch.look("notice", "\n".join(told))
    assert "exception" in at.watch.places or told
    assert at.watch.seen() == {}
