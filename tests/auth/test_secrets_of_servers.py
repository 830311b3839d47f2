"""What a protected server is shown, and whom it asks, is in no log, error, object or answer of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from garrison import Client
from garrison.auth import (
    ApiKeys,
    ClientSecret,
    Grant,
    IntrospectionVerifier,
    TokenRefused,
)
from garrison.auth.resource.verifier import Verified
from garrison.safe import SafeFetch
from garrison.testing import Reply, Request
from tests.client.oauth import POLICY
from tests.support.protected import knock

from .secret_scene import RUBBISH, answered, echoed, form_value, scene, text_of

pytestmark = [pytest.mark.attack("ATK-269"), pytest.mark.attack("ATK-279")]


class Careless:
    """An operator's verifier whose errors repeat the token."""

    issuer = None

    def accepts(self, token: str) -> bool:
        return True

    def verify(self, token: str, now: float) -> Verified:
        raise ValueError(f"cannot read {token}")


class CarelessLater(Careless):
    async def verify(self, token: str, now: float) -> Verified:  # type: ignore[override]
        raise ValueError(f"cannot read {token}")


@pytest.mark.parametrize("careless", [Careless, CarelessLater])
async def test_an_error_of_a_verifier_is_not_shown(careless: type[Careless], capfd: pytest.CaptureFixture[str]) -> None:
    async with scene(capfd, careless()) as at:
        token = at.watch.plant("access_token", secrets.token_urlsafe(40))
        answer = await knock("http", at.port, f"Bearer {token}")
        assert answer.status == 503
        at.watch.look("answer", repr(answer.fields).encode() + answer.body)
        at.watch.look_at_objects()
    assert {"log garrison.security", "answer"} <= at.watch.places
    assert at.watch.seen() == {}


async def test_a_credential_that_is_refused_is_not_repeated(capfd: pytest.CaptureFixture[str]) -> None:
    key, hashed = ApiKeys.new()
    async with scene(capfd, ApiKeys({hashed: Grant("robot", ["read"])})) as at:
        watch = at.watch
        watch.plant("API key", key.reveal())
        token = watch.plant("access_token", secrets.token_urlsafe(40))
        watch.plant_token("JWT", jwt := at.authorization.issue("alice", ["read"], "https://elsewhere.example"))
        good, statuses = f"Bearer {key.reveal()}", list[int]()
        for authorization, target in (
            (f"Bearer {token}", "/mcp"),
            (f"Bearer {jwt}", "/mcp"),
            (f"Bearer {key.reveal()}x", "/mcp"),
            (f"DPoP {token}", "/mcp"),
            (f"Basic {token}", "/mcp"),
            (f"Bearer  {token}", "/mcp"),
            (f"Bearer {token}!", "/mcp"),
            (token, "/mcp"),
            (f"Bearer {token * 500}", "/mcp"),
            (good, f"/mcp?access_token={token}"),
            (None, f"/mcp?access_token={token}"),
            (good, f"/{token}"),
        ):
            answer = await knock("http", at.port, authorization, target=target)
            watch.look("answer", repr(answer.fields).encode() + answer.body)
            statuses.append(answer.status)
        assert all(400 <= status < 500 for status in statuses)
        async with Client(at.url, token=key.reveal(), policy=POLICY, era="modern") as client:
            shown = text_of(await client.call_tool("look"))
            watch.look("answer of a tool", shown)
            watch.look_at_objects(pickles=True)
        assert "robot" in shown
    assert {"answer", "log garrison.security", "repr of TokenCredential"} <= watch.places
    assert watch.seen() == {}


async def test_what_is_asked_about_a_token_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    async with scene(capfd, opaque_tokens=True) as at:
        client = ClientSecret("desktop", at.secret)
        issuer = at.authorization.issuer
        private = [urlsplit(issuer).netloc]
        bodies: list[Callable[[Request], Reply]] = [
            *(RUBBISH[name] for name in ("another media type", "no JSON", "half a document", "a description")),
            RUBBISH["a redirect"],
            lambda request: answered(200, {"active": [echoed(request)]}),
            lambda request: answered(200, {"active": True, "sub": "x", "token_type": form_value(request)}),
            lambda request: answered(200, {"active": True, "iss": form_value(request)}),
        ]
        chosen = bodies[0]

        def spoilt(request: Request, reply: Reply) -> Reply:
            return chosen(request) if request.endpoint == "introspect" else reply

        at.answer = spoilt
        asks = IntrospectionVerifier(issuer, at.url, client=client, cache=0, fetch=SafeFetch(private_hosts=private))
        for chosen in bodies:  # noqa: B007 - what answers reads it
            token = at.watch.plant("access_token", secrets.token_urlsafe(40))
            with pytest.raises(TokenRefused) as caught:
                asked = asks.verify(token, time.time())
                assert isinstance(asked, Awaitable)
                await asked
            at.watch.raised(caught.value)
            at.watch.look("reason", caught.value.reason)
            at.watch.look_at_objects()
        assert len(at.authorization.asked("introspect")) == len(bodies)
    assert at.watch.seen() == {}
