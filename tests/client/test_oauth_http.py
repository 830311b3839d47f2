"""`Client(url, auth=...)` over HTTP: tokens come, go where they belong, are renewed, and end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from garrison import Client, ConfigurationError, HttpTransportConfig, TlsClientConfig, WebSocketConfig
from garrison.auth.client.settings import OAuth
from garrison.auth.store import MemoryStore, StoreError
from garrison.client.targets import authorizer_for
from garrison.errors import AuthenticationRequired, AuthorizationFailed, ConnectionLost, HttpError, RequestTimeout
from garrison.testing import DevAuthorizationServer, Reply

from .fakes import Request, http_server, modern, respond, text
from .oauth import CLIENT, POLICY, Person, claims_of, connected, forms, kept, protected, said, scene, signing_in


async def test_a_person_signs_in_once_and_every_request_carries_the_token() -> None:
    async with scene() as (authorization, server, person):
        async with connected(server, signing_in(person)) as client:
            assert [await said(client), await said(client)] == ["ok", "ok"]
            who = client.whoami
        assert len(person.pages) == 1
        assert [bool(each.headers.get("authorization")) for each in server.calls] == [False, True, True, True]
        assert who is not None and (who.issuer, who.resource) == (authorization.issuer, server.url)
        assert server.tokens[0] not in repr(who)


async def test_a_server_that_wants_no_token_is_not_asked_for_one() -> None:
    person = Person()
    async with http_server(modern({"tools/call": lambda _: text("ok")})) as fake:
        async with Client(fake.url, auth=signing_in(person), policy=POLICY) as client:
            assert await said(client) == "ok"
            assert client.whoami is None
    assert not person.pages
    assert not any("authorization" in each.headers for each in fake.requests)


@pytest.mark.attack("ATK-202")
async def test_all_three_requests_name_the_resource() -> None:
    async with scene() as (authorization, server, person), connected(server, signing_in(person)) as client:
        server.refused.update(server.tokens)
        await said(client)
        asked = parse_qs(urlsplit(person.pages[0]).query)["resource"]
        code, refresh = forms(authorization)
        assert (code["grant_type"], refresh["grant_type"]) == ("authorization_code", "refresh_token")
        assert [asked, code["resource"], refresh["resource"]] == [[server.url], server.url, server.url]


@pytest.mark.attack("ATK-208")
async def test_fifty_calls_with_a_refused_token_renew_it_once() -> None:
    async with scene() as (authorization, server, person), connected(server, signing_in(person)) as client:
        server.refused.update(server.tokens)
        assert await asyncio.gather(*(said(client) for _ in range(50))) == ["ok"] * 50
        assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]
        assert len(person.pages) == 1


@pytest.mark.attack("ATK-208")
async def test_fifty_calls_with_an_ending_token_renew_it_once_before_they_are_sent() -> None:
    async with scene(token_seconds=1) as (authorization, server, person):
        async with connected(server, signing_in(person)) as client:
            authorization.settings.token_seconds = 300
            await asyncio.sleep(0.6)
            first = len(server.calls)
            assert await asyncio.gather(*(said(client) for _ in range(50))) == ["ok"] * 50
            assert len(server.calls) == first + 50
            assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]


async def test_a_new_refresh_token_takes_the_place_of_the_old_one() -> None:
    async with scene() as (authorization, server, person), connected(server, signing_in(person)) as client:
        for _ in range(3):
            server.refused.update(server.tokens)
            await said(client)
        used = [form["refresh_token"] for form in forms(authorization)[1:]]
        assert len(set(used)) == len(used) == 3
        assert len(person.pages) == 1


async def test_a_refresh_token_that_ended_is_forgotten_and_the_person_asked_once() -> None:
    store = MemoryStore()
    async with scene() as (authorization, server, person):
        async with connected(server, signing_in(person, store=store)) as client:
            authorization.fail("token", error="invalid_grant", status=400)
            server.refused.update(server.tokens)
            assert await said(client) == "ok"
            kinds = [form["grant_type"] for form in forms(authorization)]
            assert kinds == ["authorization_code", "refresh_token", "authorization_code"]
            assert len(person.pages) == 2
            old = forms(authorization)[1]["refresh_token"].encode()
            assert not any(old in (store.load(key) or b"") for key in kept(store, "token"))


async def test_tokens_outlive_the_client_and_are_used_from_its_first_request_on() -> None:
    store = MemoryStore()
    async with scene() as (_, server, person):
        async with connected(server, signing_in(person, store=store)) as client:
            await said(client)
        before = len(server.fake.requests)
        async with connected(server, signing_in(person, store=store)) as client:
            await said(client)
        later = server.fake.requests[before:]
        assert [each.target for each in later] == ["/mcp", "/mcp"]
        assert all("authorization" in each.headers for each in later)
        assert len(person.pages) == 1


async def test_accounts_are_kept_apart() -> None:
    store = MemoryStore()
    async with scene() as (_, server, person):
        for account in ("home", "work"):
            async with connected(server, signing_in(person, store=store, account=account)) as client:
                await said(client)
        assert len(person.pages) == 2
        assert {key.account for key in kept(store, "token")} == {"home", "work"}


async def test_what_another_process_renewed_is_taken_and_not_renewed_again() -> None:
    store = MemoryStore()
    async with scene() as (authorization, server, person):
        async with (
            connected(server, signing_in(person, store=store)) as one,
            connected(server, signing_in(person, store=store)) as two,
        ):
            server.refused.update(server.tokens)
            await said(one)
            await said(two)
        assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]


async def test_two_processes_that_renew_at_once_ask_once() -> None:
    store = MemoryStore()
    async with scene() as (authorization, server, person):
        async with (
            connected(server, signing_in(person, store=store)) as one,
            connected(server, signing_in(person, store=store)) as two,
        ):
            server.refused.update(server.tokens)
            assert await asyncio.gather(said(one), said(two)) == ["ok", "ok"]
        assert [form["grant_type"] for form in forms(authorization)] == ["authorization_code", "refresh_token"]


# Where a token goes.


@pytest.mark.attack("ATK-200")
async def test_another_path_of_the_same_host_does_not_get_the_token() -> None:
    def verdict(request: Request) -> bytes | None:
        if request.method != "tools/call":
            return None
        if request.target == "/mcp":
            return respond({}, status="307 Temporary Redirect", extra="Location: /other\r\n")
        return respond({}, status="401 Unauthorized", extra="WWW-Authenticate: Bearer\r\n")

    async with scene() as (_, server, person), connected(server, signing_in(person)) as client:
        assert await said(client) == "ok"
        server.verdict = verdict
        with pytest.raises(AuthenticationRequired):
            await said(client)
        elsewhere = [each for each in server.fake.requests if each.target == "/other"]
        assert len(elsewhere) == 1 and "authorization" not in elsewhere[0].headers
        assert len(person.pages) == 1


async def test_a_path_below_the_resource_gets_it() -> None:
    def verdict(request: Request) -> bytes | None:
        if request.method == "tools/call" and request.target == "/mcp":
            return respond({}, status="307 Temporary Redirect", extra="Location: /mcp/deep\r\n")
        return None

    async with scene() as (_, server, person), connected(server, signing_in(person)) as client:
        server.verdict = verdict
        assert await said(client) == "ok"
        assert server.fake.requests[-1].headers["authorization"].startswith("Bearer ")


@pytest.mark.attack("ATK-200")
async def test_another_server_of_the_same_store_does_not_get_the_token() -> None:
    store = MemoryStore()
    async with scene() as (authorization, server, person), protected(authorization.issuer) as other:
        for each in (server, other):
            async with connected(each, signing_in(person, store=store)) as client:
                await said(client)
        assert len(person.pages) == 2
        assert {claims_of(token)["aud"] for token in other.tokens} == {other.url}


@pytest.mark.attack("ATK-201")
async def test_a_redirect_to_another_origin_is_not_followed() -> None:
    async with scene() as (authorization, server, person), protected(authorization.issuer) as other:

        def verdict(request: Request) -> bytes | None:
            to = f"Location: {other.url}\r\n"
            return respond({}, status="307 Temporary Redirect", extra=to) if request.method == "tools/call" else None

        async with connected(server, signing_in(person)) as client:
            server.verdict = verdict
            with pytest.raises(HttpError):
                await said(client)
            server.verdict = None
            assert await said(client) == "ok"
        assert not other.fake.requests


@pytest.mark.attack("ATK-205")
async def test_nothing_of_one_authorization_server_is_shown_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    store = MemoryStore()
    async with (
        scene(registration=True, clients=[]) as (first, server, person),
        DevAuthorizationServer(registration=True, auto_approve="alice") as second,
    ):
        auth = signing_in(person, client_id=None, allow_dynamic_registration=True, store=store, notice=told.append)
        async with connected(server, auth) as client:
            assert await said(client) == "ok"
            secret = forms(first)[0]["client_id"]
            server.issuers = [second.issuer]
            assert await said(client) == "ok"
            assert client.whoami is not None and client.whoami.issuer == second.issuer
        shown = b"".join(each.body + each.query.encode() + repr(each.headers).encode() for each in second.requests)
        assert secret.encode() not in shown
        assert not any(token.encode() in shown for token in server.tokens)
        assert len(second.asked("register")) == 1
        assert not [key for key in kept(store, "token") if key.issuer == first.issuer]
    assert len(told) == 1 and second.issuer in told[0]
    assert "oauth.issuer_changed" in {getattr(each, "event", "") for each in caplog.records}


@pytest.mark.attack("ATK-205")
async def test_a_registered_client_is_not_shown_to_another_authorization_server() -> None:
    async with (
        scene() as (_, server, person),
        DevAuthorizationServer(clients=[CLIENT], auto_approve="alice") as second,
    ):
        async with connected(server, signing_in(person)) as client:
            await said(client)
            server.issuers = [second.issuer]
            with pytest.raises(AuthorizationFailed, match="client_id"):
                await said(client)
        assert not second.asked("authorize") and not second.asked("token")
        assert len(person.pages) == 1


# What has an end.


async def test_a_server_that_refuses_every_token_ends_with_a_reason() -> None:
    async with scene() as (_, server, person):
        server.refuse_all = True
        client = connected(server, signing_in(person))
        for _ in range(3):
            with pytest.raises(AuthorizationFailed, match="refuses the token"):
                await client.connect()
        await client.aclose()
        assert len(person.pages) == 1


async def test_a_server_that_begins_to_refuse_ends_with_a_reason() -> None:
    async with scene() as (authorization, server, person), connected(server, signing_in(person)) as client:
        server.refuse_all = True
        with pytest.raises(AuthorizationFailed, match="refuses the token"):
            await said(client)
        kinds = [form["grant_type"] for form in forms(authorization)]
        assert kinds == ["authorization_code", "refresh_token", "authorization_code"]


async def test_a_person_is_not_asked_again_and_again() -> None:
    async with scene(refresh_tokens=False) as (_, server, person), connected(server, signing_in(person)) as client:
        with pytest.raises(AuthorizationFailed, match="authorizations within"):
            for _ in range(10):
                server.refused.update(server.tokens)
                await said(client)
        assert len(person.pages) == 4


async def test_a_no_is_told_in_clean_words() -> None:
    async with scene() as (authorization, server, person):
        authorization.fail("authorize", error="access_denied", description="no \x1b[31m http://evil.example")
        client = connected(server, signing_in(person))
        with pytest.raises(AuthorizationFailed) as caught:
            await client.connect()
        await client.aclose()
        assert caught.value.error == "access_denied"
        assert "evil" not in str(caught.value) and "\x1b" not in str(caught.value)
        assert len(person.pages) == 1


# Scopes.


async def test_a_step_up_asks_for_what_was_granted_and_what_is_wanted() -> None:
    async with scene() as (_, server, person):
        server.need = {"server/discover": ["read"], "tools/call": ["write"]}
        async with connected(server, signing_in(person)) as client:
            assert await said(client) == "ok"
            assert client.whoami is not None and client.whoami.scopes == {"read", "write"}
        asked = [parse_qs(urlsplit(page).query)["scope"][0] for page in person.pages]
        assert asked == ["read", "read write"]


@pytest.mark.attack("ATK-206")
async def test_a_hopeless_step_up_ends() -> None:
    async with scene() as (_, server, person):
        server.verdict = lambda request: (
            server.challenge("403 Forbidden", "insufficient_scope", "admin")
            if request.method == "tools/call" and request.headers.get("authorization")
            else None
        )
        async with connected(server, signing_in(person)) as client:
            for _ in range(3):
                with pytest.raises(AuthorizationFailed, match="further scopes"):
                    await said(client)
        assert len(person.pages) <= 3


@pytest.mark.attack("ATK-206")
async def test_five_hundred_scopes_are_not_asked_for() -> None:
    async with scene() as (_, server, person), connected(server, signing_in(person)) as client:
        server.need = {"tools/call": [f"scope{number}" for number in range(500)]}
        with pytest.raises(AuthorizationFailed, match="scopes"):
            await said(client)
        assert len(person.pages) == 1


@pytest.mark.attack("ATK-206")
@pytest.mark.parametrize("yes", [True, False])
async def test_further_scopes_are_asked_for_if_they_are_approved(yes: bool) -> None:
    asked: list[frozenset[str]] = []

    async def approve(scopes: frozenset[str]) -> bool:
        asked.append(scopes)
        return yes

    async with scene() as (_, server, person):
        server.need = {"server/discover": ["read"], "tools/call": ["admin"]}
        async with connected(server, signing_in(person, approve_scopes=approve)) as client:
            if yes:
                assert await said(client) == "ok"
            else:
                with pytest.raises(AuthorizationFailed, match="approve"):
                    await said(client)
        assert asked == [frozenset({"admin"})]
        assert len(person.pages) == 1 + yes


async def test_a_plain_403_is_no_question_of_scopes() -> None:
    async with scene() as (_, server, person), connected(server, signing_in(person)) as client:
        server.verdict = lambda _: respond({}, status="403 Forbidden")
        with pytest.raises(AuthenticationRequired):
            await said(client)
        assert len(person.pages) == 1


@pytest.mark.parametrize(("given", "asked"), [(None, "a b"), (["a"], "a")])
async def test_the_user_may_ask_for_less_than_the_server_names(given: list[str] | None, asked: str) -> None:
    async with scene() as (_, server, person):
        server.scopes = ["a", "b"]
        async with connected(server, signing_in(person, scopes=given)):
            pass
        assert parse_qs(urlsplit(person.pages[0]).query)["scope"] == [asked]


# Waiting.


async def test_the_clock_of_a_call_stands_still_while_a_person_signs_in() -> None:
    async with scene(refresh_tokens=False) as (_, server, person):
        async with connected(server, signing_in(person), timeout=0.3) as client:
            server.refused.update(server.tokens)
            person.gate = asyncio.Event()
            asyncio.get_running_loop().call_later(0.8, person.gate.set)
            assert await said(client) == "ok"
            server.verdict = lambda _: b""
            with pytest.raises(RequestTimeout):
                await said(client)


async def test_who_stops_waiting_does_not_stop_the_sign_in_of_the_others() -> None:
    async with scene(refresh_tokens=False) as (_, server, person), connected(server, signing_in(person)) as client:
        server.refused.update(server.tokens)
        person.gate = asyncio.Event()
        calls = [asyncio.ensure_future(said(client)) for _ in range(3)]
        while len(person.pages) < 2:
            await asyncio.sleep(0.01)
        calls[0].cancel()
        await asyncio.sleep(0.05)
        person.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        assert await asyncio.gather(*calls[1:]) == ["ok", "ok"]
        assert len(person.pages) == 2


async def test_closing_the_client_ends_the_sign_in_and_its_listener() -> None:
    async with scene() as (_, server, person):
        person.gate = asyncio.Event()
        client = connected(server, signing_in(person))
        connecting = asyncio.ensure_future(client.connect())
        while not person.pages:
            await asyncio.sleep(0.01)
        where = urlsplit(parse_qs(urlsplit(person.pages[0]).query)["redirect_uri"][0])
        await client.aclose()
        with pytest.raises(ConnectionLost):
            await connecting
        with pytest.raises(OSError):
            await asyncio.open_connection(where.hostname, where.port)


async def test_nobody_signs_in() -> None:
    async with scene() as (_, server, person):
        person.gate = asyncio.Event()
        client = connected(server, signing_in(person, timeout=0.2))
        with pytest.raises(AuthorizationFailed, match="nobody signed in"):
            await client.connect()
        person.gate.set()
        await client.aclose()


@pytest.mark.attack("ATK-193")
async def test_a_token_endpoint_that_redirects_gets_no_second_request() -> None:
    async with scene() as (authorization, server, person), protected(authorization.issuer) as thief:
        authorization.on_reply = lambda request, reply: (
            Reply(307, headers=(("Location", thief.url),)) if request.endpoint == "token" else reply
        )
        client = connected(server, signing_in(person))
        with pytest.raises(AuthorizationFailed, match="redirects"):
            await client.connect()
        await client.aclose()
        assert not thief.fake.requests


# Signing out.


@pytest.mark.attack("ATK-217")
@pytest.mark.parametrize("works", [True, False])
async def test_signing_out_forgets_the_token_whatever_the_server_says(works: bool) -> None:
    told: list[str] = []
    store = MemoryStore()
    async with scene() as (authorization, server, person):
        async with connected(server, signing_in(person, store=store, notice=told.append)) as client:
            token = server.tokens[0]
            if not works:
                authorization.fail("revoke", status=503)
            assert await client.sign_out() is works
            assert client.whoami is None
            assert not kept(store, "token")
            assert len(told) == (0 if works else 1)
            assert not any(token in text for text in told)
            assert await said(client) == "ok"  # signs in anew
        assert len(person.pages) == 2
        if works:
            assert [form["token_type_hint"] for form in forms(authorization, "revoke")] == [
                "refresh_token",
                "access_token",
            ]


# Settings.


async def test_auth_stands_alone_and_is_for_urls() -> None:
    auth = signing_in(Person())

    async def challenge(status: int, headers: object) -> str | None:
        return None

    cases: list[tuple[Any, dict[str, Any]]] = [
        ("https://example.com/mcp", {"token": "x"}),
        ("https://example.com/mcp", {"challenge": challenge}),
        (["program"], {}),
        ("unix:/tmp/x.sock", {}),
        ("http://example.com/mcp", {}),
    ]
    for target, options in cases:
        with pytest.raises(ConfigurationError, match="auth="):
            Client(target, auth=auth, **options)
    with pytest.raises(ConfigurationError, match="auth="):
        Client("https://example.com/mcp", auth="token")  # type: ignore[arg-type]
    Client("https://example.com/mcp", auth=auth)
    Client("wss://example.com/mcp", auth=auth)


def test_the_authorities_of_the_server_are_believed_of_its_authorization_server(tmp_path: Path) -> None:
    ca, pin = str(tmp_path / "ca.pem"), "A" * 43 + "="
    server = HttpTransportConfig("https://example.com/mcp")
    tls = TlsClientConfig(ca=ca, pins=(pin,), minimum="1.3")
    for auth, believed in (
        (OAuth(), TlsClientConfig(ca=ca, minimum="1.3")),
        (OAuth(tls=TlsClientConfig(ca="other.pem")), TlsClientConfig(ca="other.pem")),
    ):
        made = authorizer_for(server, auth, token=None, challenge=None, tls=tls)
        assert made is not None and made.settings.tls == believed


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (HttpTransportConfig("HTTPS://Example.COM:443/mcp"), "https://example.com/mcp"),
        (WebSocketConfig("WSS://Example.com:8443/mcp"), "https://example.com:8443/mcp"),
        (WebSocketConfig("ws://127.0.0.1:80/mcp"), "http://127.0.0.1/mcp"),
        (HttpTransportConfig("https://example.com"), "https://example.com/"),
    ],
)
def test_a_token_is_for_the_address_however_it_is_written(target: Any, url: str) -> None:
    made = authorizer_for(target, OAuth(), token=None, challenge=None, tls=None)
    assert made is not None and made.url == url


class Broken:
    """A store whose file is damaged."""

    def __getattr__(self, name: str) -> Any:
        raise StoreError("the file is damaged: delete it")


async def test_a_store_that_cannot_be_read_ends_the_attempt_and_asks_nobody() -> None:
    async with scene() as (_, server, person):
        client = connected(server, signing_in(person, store=Broken()))
        with pytest.raises(AuthorizationFailed, match="the file is damaged"):
            await client.connect()
        await client.aclose()
        assert not person.pages


async def test_no_token_stands_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scene() as (authorization, server, person), connected(server, signing_in(person)) as client:
        server.refused.update(server.tokens)
        await said(client)
        secrets = [*server.tokens, *(form["refresh_token"] for form in forms(authorization)[1:])]
        assert secrets and not [secret for secret in secrets if secret in caplog.text]
