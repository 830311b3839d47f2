"""`Authorizer`: when a token is renewed, where it goes, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.auth.client.held import Held, covers
from garrison.auth.client.session import Authorizer
from garrison.auth.client.settings import ClientCredentials
from garrison.auth.dpop import DpopKey
from garrison.auth.store import MemoryStore, StoreError
from garrison.auth.tokens import CredentialKey, TokenSet
from garrison.errors import AuthorizationFailed, ClientError, ConfigurationError, ConnectionLost
from garrison.policy.secret import Secret
from garrison.testing import DevAuthorizationServer, Reply, Request
from tests.client.oauth import Person, Protected, forms, kept, scene, signing_in

KEY = CredentialKey("https://as.example", "https://mcp.example/mcp", "desktop")


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """An authorizer beside its servers, on one clock."""

    def __init__(self, authorization: DevAuthorizationServer, server: Protected, person: Person, clock: Clock) -> None:
        self.authorization, self.server, self.person, self.clock = authorization, server, person, clock
        self.told: list[str] = []
        self.store = MemoryStore()

    def authorizer(self, **options: Any) -> Authorizer:
        given = {"store": self.store, "notice": self.told.append, **options}
        return Authorizer(self.server.url, signing_in(self.person, **given), clock=self.clock)

    def headers(self, scope: str = "", error: str = "") -> dict[str, str]:
        more = (f', scope="{scope}"' if scope else "") + (f', error="{error}"' if error else "")
        return {"www-authenticate": f'Bearer realm="x"{more}'}

    async def refused(self, each: Authorizer, status: int = 401, *, person: bool = True, **said: str) -> bool:
        """Has the request refused that would be sent now."""
        url = self.server.url
        return await each.challenged(status, self.headers(**said), url=url, sent=each.lines("POST", url), person=person)

    async def signed_in(self, **options: Any) -> Authorizer:
        each = self.authorizer(**options)
        await each.prepare()
        assert await self.refused(each)
        each.heard(200, {})
        return each


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    async with scene(clock=clock, **options) as (authorization, server, person):
        yield Stage(authorization, server, person, clock)


# Where a token may go.


@pytest.mark.attack("ATK-200")
@pytest.mark.parametrize(
    "url",
    [
        "https://mcp.example/mcp2",
        "https://mcp.example/",
        "https://mcp.example/other/mcp",
        "https://mcp.example/MCP",
        "https://mcp.example/mcp/../other",
        "https://mcp.example/mcp/%2e%2E/other",
        "https://mcp.example/mcp/..%2fother",
        "https://mcp.example/mcp/%2e.\\other",
        "https://mcp.example/mcp/..",
        "https://mcp.example:444/mcp",
        "http://mcp.example/mcp",
        "https://evil.example/mcp",
        "https://mcp.example.evil.example/mcp",
        "https://mcp.example@evil.example/mcp",
    ],
)
def test_a_token_does_not_go_beside_its_resource(url: str) -> None:
    assert not covers("https://mcp.example/mcp", url)


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp"),
        ("https://mcp.example/mcp", "https://mcp.example/mcp/"),
        ("https://mcp.example/mcp", "https://mcp.example/mcp/a..b/c"),
        ("https://mcp.example/mcp", "https://mcp.example/mcp?session=1"),
        ("https://mcp.example/mcp", "https://MCP.example:443/mcp/x"),
        ("https://mcp.example/mcp/", "https://mcp.example/mcp"),
        ("https://mcp.example", "https://mcp.example/anything"),
        ("https://mcp.example/", "https://mcp.example/anything"),
        ("https://mcp.example/mcp?tenant=1", "https://mcp.example/mcp?tenant=1"),
    ],
)
def test_a_token_goes_to_its_resource_and_below(resource: str, url: str) -> None:
    assert covers(resource, url)


def test_a_resource_with_a_query_is_one_address() -> None:
    assert not covers("https://mcp.example/mcp?tenant=1", "https://mcp.example/mcp?tenant=2")
    assert not covers("https://mcp.example/mcp?tenant=1", "https://mcp.example/mcp/x?tenant=1")


@given(st.text(alphabet="./%2eEfFmcp", max_size=24))
def test_what_is_covered_stays_below_when_it_is_resolved(rest: str) -> None:
    import posixpath
    from urllib.parse import unquote

    path = f"/mcp{rest}"
    if covers("https://mcp.example/mcp", f"https://mcp.example{path}"):
        resolved = posixpath.normpath(unquote(path))
        assert resolved == "/mcp" or resolved.startswith("/mcp/")


# When it is renewed.


def without_scope(request: Request, reply: Reply) -> Reply:
    """An answer that says no scopes: they are those that were asked for (RFC 6749 section 5.1)."""
    if request.endpoint != "token":
        return reply
    members = {name: value for name, value in json.loads(reply.body).items() if name != "scope"}
    return replace(reply, body=json.dumps(members).encode())


@pytest.mark.parametrize(("life", "renewed"), [(300.0, 270.0), (61.0, 31.0), (20.0, 10.0), (0.0, 0.0), (None, None)])
def test_a_token_is_renewed_before_it_ends(life: float | None, renewed: float | None) -> None:
    tokens = TokenSet(
        access_token=Secret("a"), refresh_token=Secret("r"), expires_at=None if life is None else 1000 + life
    )
    held = Held(KEY, tokens, "new", dpop=None, endpoint=None, renewable=False, now=1000)
    assert held.renew_at == (float("inf") if renewed is None else 1000 + renewed)


def test_a_token_that_only_a_person_can_renew_is_used_to_its_end() -> None:
    tokens = TokenSet(access_token=Secret("a"), expires_at=1300)
    for renewable, at in ((False, float("inf")), (True, 1270)):
        assert Held(KEY, tokens, "new", dpop=None, endpoint=None, renewable=renewable, now=1000).renew_at == at


async def test_a_token_is_renewed_ahead_and_its_scopes_stay() -> None:
    async with stage(token_seconds=300) as on:
        on.server.scopes = ["read"]
        each = await on.signed_in()
        before = each.lines("POST", on.server.url)
        assert not each.due
        on.clock.now += 271
        assert each.due
        on.authorization.on_reply = without_scope
        await each.prepare()
        assert not each.due and each.lines("POST", on.server.url) != before
        assert each.whoami is not None and each.whoami.scopes == {"read"}
        await each.aclose()


async def test_a_token_that_lives_is_used_while_its_server_cannot_be_reached() -> None:
    async with stage(token_seconds=300) as on:
        each = await on.signed_in()
        before = each.lines("POST", on.server.url)
        await on.authorization.__aexit__(None, None, None)
        on.clock.now += 280
        await each.prepare()
        assert each.lines("POST", on.server.url) == before and not each.due
        on.clock.now += 21
        with pytest.raises(ClientError):
            await each.prepare()
        await each.aclose()


async def test_an_error_of_the_token_endpoint_does_not_end_the_authorization() -> None:
    async with stage(token_seconds=300) as on:
        each = await on.signed_in()
        on.authorization.fail("token", error="temporarily_unavailable", status=503)
        on.clock.now += 301
        with pytest.raises(AuthorizationFailed, match="temporarily_unavailable"):
            await each.prepare()
        await each.prepare()
        assert not each.due and len(on.person.pages) == 1
        await each.aclose()


@pytest.mark.attack("ATK-208")
async def test_a_hundred_that_wait_are_one_request() -> None:
    async with stage(token_seconds=300) as on:
        each = await on.signed_in()
        on.clock.now += 280
        await asyncio.gather(*(each.prepare() for _ in range(100)))
        assert len(forms(on.authorization)) == 2
        await each.aclose()


async def test_a_request_that_was_sent_with_an_older_token_is_sent_again_and_nothing_is_asked() -> None:
    async with stage() as on:
        each = await on.signed_in()
        before, url = each.lines("POST", on.server.url), on.server.url
        assert await on.refused(each)
        asked = len(on.authorization.requests)
        assert await each.challenged(401, on.headers(), url=url, sent=before)
        assert await each.challenged(401, on.headers(), url=url, sent="")
        assert len(on.authorization.requests) == asked
        await each.aclose()


# The ladder.


async def test_a_stored_token_climbs_the_whole_ladder() -> None:
    async with stage() as on:
        await (await on.signed_in()).aclose()
        each = on.authorizer()
        await each.prepare()
        assert await on.refused(each)  # the stored one is renewed
        assert await on.refused(each)  # the renewed one is replaced
        with pytest.raises(AuthorizationFailed, match="just given"):
            await on.refused(each)
        kinds = [form["grant_type"] for form in forms(on.authorization)]
        assert kinds == ["authorization_code", "refresh_token", "authorization_code"]
        await each.aclose()


async def test_an_authorization_server_is_kept_as_long_as_it_is_named() -> None:
    async with stage() as on:
        each = await on.signed_in()
        on.server.issuers = ["https://other.example", on.authorization.issuer]
        assert await on.refused(each)
        assert each.whoami is not None and each.whoami.issuer == on.authorization.issuer
        assert not on.told and len(on.person.pages) == 1
        await each.aclose()


async def test_a_server_that_is_another_resource_now_gets_a_token_for_that_one() -> None:
    async with stage() as on:
        each = await on.signed_in()
        on.server.resource = on.server.url.removesuffix("/mcp")
        assert await on.refused(each)
        assert each.whoami is not None and each.whoami.resource == on.server.resource
        assert len(on.told) == 1 and len(on.person.pages) == 2
        assert [form["grant_type"] for form in forms(on.authorization)] == ["authorization_code"] * 2
        await each.aclose()


async def test_what_nobody_waits_for_asks_nobody() -> None:
    async with stage() as on:
        each = on.authorizer()
        await each.prepare()
        assert not await on.refused(each, person=False)
        assert not on.person.pages
        assert await on.refused(each)
        assert len(on.person.pages) == 1
        await each.aclose()


async def test_who_waits_with_a_person_is_not_sent_away_with_who_waits_without() -> None:
    async with stage() as on:
        each = on.authorizer()
        await each.prepare()
        assert await asyncio.gather(on.refused(each, person=False), on.refused(each)) == [False, True]
        assert len(on.person.pages) == 1
        await each.aclose()


async def test_a_family_of_tokens_that_ended_is_forgotten_at_once() -> None:
    async with stage() as on:
        each = await on.signed_in()
        on.authorization.fail("token", error="invalid_grant", status=400)
        assert not await on.refused(each, person=False)
        assert not kept(on.store, "token") and each.whoami is None
        await each.aclose()


# Proofs.


def nonce_in(lines: str) -> object:
    """The nonce of the proof in some header lines."""
    part = lines.partition("DPoP: ")[2].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("nonce")


async def test_the_latest_nonce_of_any_answer_is_used() -> None:
    async with stage() as on:
        each, url = await on.signed_in(dpop="require"), on.server.url
        assert nonce_in(each.lines("POST", url)) is None
        each.heard(200, {"dpop-nonce": "one"})
        assert nonce_in(each.lines("POST", url)) == "one"
        each.heard(200, {})
        headers = {"www-authenticate": 'Bearer realm="x", DPoP error="use_dpop_nonce"', "dpop-nonce": "two"}
        assert await each.challenged(401, headers, url=url, sent=each.lines("POST", url))
        assert nonce_in(each.lines("POST", url)) == "two"
        assert len(forms(on.authorization)) == 1
        await each.aclose()


# What has an end.


async def test_a_failed_attempt_before_the_page_is_no_question() -> None:
    async with stage() as on:
        each = on.authorizer(client_id=None)
        for _ in range(8):
            with pytest.raises(AuthorizationFailed, match="does not know this client"):
                await on.refused(each)
        await each.aclose()


async def test_a_challenge_that_cannot_be_read_is_followed_nowhere() -> None:
    async with stage() as on:
        each = on.authorizer()
        headers = {"www-authenticate": 'Bearer scope="a", scope="b"'}
        with pytest.raises(AuthorizationFailed, match="WWW-Authenticate"):
            await each.challenged(401, headers, url=on.server.url, sent="")
        assert not on.person.pages and not on.authorization.requests
        await each.aclose()


@pytest.mark.attack("ATK-206")
@pytest.mark.parametrize("yes", [True, False])
async def test_scopes_beyond_a_first_grant_without_any_are_approved_as_well(yes: bool) -> None:
    asked: list[frozenset[str]] = []
    async with stage() as on:
        each = await on.signed_in(approve_scopes=lambda scopes: asked.append(scopes) or yes)
        assert not asked
        if yes:
            assert await on.refused(each, 403, scope="admin", error="insufficient_scope")
        else:
            with pytest.raises(AuthorizationFailed):
                await on.refused(each, 403, scope="admin", error="insufficient_scope")
        assert asked == [frozenset({"admin"})]
        await each.aclose()


@pytest.mark.attack("ATK-206")
async def test_ever_new_scopes_end_as_well() -> None:
    async with stage() as on:
        each = await on.signed_in()
        with pytest.raises(AuthorizationFailed):
            for number in range(100):
                assert await on.refused(each, 403, scope=f"s{number}", error="insufficient_scope")
                each.heard(403, {})
        assert len(on.person.pages) == 4
        await each.aclose()


async def test_step_up_may_be_switched_off() -> None:
    async with stage() as on:
        each = await on.signed_in(step_up_attempts=0)
        with pytest.raises(AuthorizationFailed, match="step_up_attempts"):
            await on.refused(each, 403, scope="admin", error="insufficient_scope")
        assert len(on.person.pages) == 1
        await each.aclose()


# The store.


async def test_a_token_that_cannot_be_kept_is_used_all_the_same() -> None:
    class Full:
        def __init__(self, store: MemoryStore) -> None:
            self._store = store

        def save(self, key: CredentialKey, value: bytes) -> None:
            raise StoreError("the disk is full")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    async with stage() as on:
        each = await on.signed_in(store=Full(on.store))
        assert each.lines("POST", on.server.url).startswith("Authorization: Bearer ")
        assert len(on.told) == 1 and "the disk is full" in on.told[0]
        await each.aclose()


async def test_two_tokens_that_fit_wait_for_what_discovery_says() -> None:
    async with stage() as on:
        await (await on.signed_in()).aclose()
        (key,) = kept(on.store, "token")
        other = CredentialKey("https://other.example", key.resource, key.client_id)
        on.store.save(other, on.store.load(key) or b"")
        each = on.authorizer()
        await each.prepare()
        assert each.whoami is None
        assert await on.refused(each)
        assert each.whoami is not None and each.whoami.issuer == on.authorization.issuer
        assert len(on.person.pages) == 1
        await each.aclose()


async def test_a_bound_token_without_its_key_is_not_used() -> None:
    async with stage() as on:
        await (await on.signed_in(dpop="require")).aclose()
        (key,) = kept(on.store, "key")
        each = on.authorizer(dpop="require")
        await each.prepare()
        assert "\r\nDPoP: " in each.lines("POST", on.server.url)
        await each.aclose()
        on.store.delete(key)
        each = on.authorizer(dpop="require")
        await each.prepare()
        assert each.lines("POST", on.server.url) == ""
        await each.aclose()


async def test_the_key_of_proofs_is_one_for_each_authorization_server() -> None:
    async with stage() as on:
        for account in ("one", "one", "two"):
            await (await on.signed_in(dpop="require", account=account)).aclose()
        keys = {DpopKey.load(Secret((on.store.load(key) or b"").decode())).thumbprint for key in kept(on.store, "key")}
        assert len(keys) == 2


async def test_a_dynamic_registration_is_used_again_and_forgotten_when_it_fails() -> None:
    async with stage(registration=True, clients=[]) as on:
        options: dict[str, Any] = {"client_id": None, "allow_dynamic_registration": True}
        for _ in range(2):
            each = await on.signed_in(**options)
            await each.sign_out()
            await each.aclose()
        assert len(on.authorization.asked("register")) == 1
        (place,) = kept(on.store, "client")
        on.authorization.remove_client(forms(on.authorization)[0]["client_id"])
        on.authorization.on_reply = lambda request, reply: Reply(200) if request.endpoint == "authorize" else reply
        each = on.authorizer(**options, timeout=0.2)
        with pytest.raises(AuthorizationFailed, match="nobody signed in"):
            await on.refused(each)
        assert place not in kept(on.store, "client")
        on.authorization.on_reply = None
        assert await on.refused(each)
        assert len(on.authorization.asked("register")) == 2
        await each.aclose()


@pytest.mark.parametrize("name", ["browser", "approve_scopes", "notice"])
async def test_what_a_function_of_the_user_raises_is_an_error_of_the_call(name: str) -> None:
    def fails(*_: object) -> Any:
        raise KeyError("oh")

    async with stage() as on:
        each = on.authorizer(**{name: fails})
        with pytest.raises(AuthorizationFailed, match="KeyError"):
            if await on.refused(each):
                if name == "notice":
                    on.server.resource = on.server.url.removesuffix("/mcp")
                await on.refused(each, 403, scope="admin", error="insufficient_scope")
        await each.aclose()


def test_a_key_that_is_none_is_told_before_anything_is_connected() -> None:
    with pytest.raises(ConfigurationError, match="key"):
        Authorizer("https://mcp.example/mcp", ClientCredentials("robot", key="not a key"))


# Ends.


async def test_signing_out_ends_a_sign_in() -> None:
    async with stage() as on:
        on.person.gate = asyncio.Event()
        each = on.authorizer()
        waiting = asyncio.ensure_future(on.refused(each))
        while not on.person.pages:
            await asyncio.sleep(0.01)
        assert await each.sign_out()
        with pytest.raises(ConnectionLost):
            await waiting
        assert each.whoami is None and not kept(on.store, "token")
        await each.aclose()


async def test_a_token_of_an_earlier_run_can_be_signed_out() -> None:
    async with stage() as on:
        await (await on.signed_in()).aclose()
        each = on.authorizer()
        assert await each.sign_out()
        assert not kept(on.store, "token")
        assert len(on.authorization.asked("revoke")) == 2
        await each.aclose()


async def test_a_token_that_cannot_be_used_any_more_is_forgotten_and_said_not_to_be_revoked() -> None:
    async with stage() as on:
        await (await on.signed_in(dpop="require")).aclose()
        assert kept(on.store, "token")
        names = on.store.keys()
        for key in names:
            if key.kind == "key":
                on.store.delete(key)
        each = on.authorizer(dpop="require")
        assert not await each.sign_out()
        assert not kept(on.store, "token")
        assert "not revoked" in on.told[-1]
        assert await each.sign_out()  # now there is nothing
        await each.aclose()


async def test_a_closed_authorizer_does_nothing_more() -> None:
    async with stage() as on:
        each = on.authorizer()
        await each.aclose()
        await each.prepare()
        assert not await on.refused(each)
        assert not on.person.pages


def test_it_is_for_addresses_that_tokens_are_sent_to() -> None:
    for url in ("http://example.com/mcp", "https://u:p@example.com/mcp", "ftp://example.com", "https://example.com/#x"):
        with pytest.raises(ConfigurationError):
            Authorizer(url, signing_in(Person()))


@pytest.mark.attack("ATK-208")
async def test_many_clients_of_one_store_renew_once() -> None:
    async with stage(token_seconds=300) as on:
        await (await on.signed_in()).aclose()
        every = [on.authorizer() for _ in range(30)]
        await asyncio.gather(*(each.prepare() for each in every))
        on.clock.now += 280
        async with asyncio.timeout(5):
            await asyncio.gather(*(each.prepare() for each in every))
        assert len(forms(on.authorization)) == 2
        assert len({each.lines("POST", on.server.url) for each in every}) == 1
        for each in every:
            await each.aclose()
