"""How a client is known: the order of ways, the metadata document, and registrations that were changed on the way."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from garrison import ConfigurationError
from garrison.auth import AuthorizationServerMetadata, TokenRequest
from garrison.auth.client.authentication import ClientSecret, PublicClient
from garrison.auth.client.registration import ClientRegistration, Registered, client_metadata_document
from garrison.errors import AuthorizationFailed
from tests.auth.client.answers import Canned, document, site

ISSUER = "https://auth.example.com"
REGISTER = f"{ISSUER}/register"
REDIRECT = "http://127.0.0.1:40001/callback/x"
DOCUMENT = "https://app.example.com/oauth/client.json"
DYNAMIC = ClientRegistration(allow_dynamic_registration=True, client_name="My client")


def server(*methods: str, cimd: bool = False, register: str | None = REGISTER) -> AuthorizationServerMetadata:
    return AuthorizationServerMetadata(
        issuer=ISSUER,
        token_endpoint=f"{ISSUER}/token",
        registration_endpoint=register,
        client_id_metadata_document_supported=cimd,
        token_endpoint_auth_methods_supported=methods or ("none",),
    )


def registered(**members: Any) -> dict[str, Any]:
    return {"client_id": "dyn-1", "redirect_uris": [REDIRECT], **members}


async def dynamic(
    answer: Any, *methods: str, status: int = 201, redirect: str = REDIRECT, scopes: tuple[str, ...] = ()
) -> tuple[Registered, dict[str, Any]]:
    """A dynamic registration, and what was asked for."""
    fetch = Canned({REGISTER: answer if isinstance(answer, tuple) else document(answer, status=status)})
    found = await DYNAMIC.register(fetch, server(*methods), redirect, scopes)
    ((url, body),) = fetch.posted
    assert url == REGISTER
    return found, json.loads(body)


# The order


async def test_the_ways_are_tried_in_the_order_of_mcp() -> None:
    everything = server("none", cimd=True)
    fetch = Canned({REGISTER: document(registered())})
    known = PublicClient("known")
    all_ways = ClientRegistration(client=known, metadata_document=DOCUMENT, allow_dynamic_registration=True)
    found = await all_ways.register(fetch, everything, REDIRECT)
    assert (found.client, found.how, found.issuer, found.redirect_uri) == (known, "pre-registered", ISSUER, REDIRECT)
    by_document = ClientRegistration(metadata_document=DOCUMENT, allow_dynamic_registration=True)
    found = await by_document.register(fetch, everything, REDIRECT)
    assert (found.client.client_id, found.client.method, found.how) == (DOCUMENT, "none", "metadata document")
    assert fetch.posted == []
    found = await by_document.register(fetch, server("none"), REDIRECT)
    assert (found.client.client_id, found.how) == ("dyn-1", "dynamic")


async def test_nobody_registers_itself_unless_it_is_allowed() -> None:
    fetch = Canned({REGISTER: document(registered())})
    with pytest.raises(AuthorizationFailed, match=r"client_id.*allow_dynamic_registration"):
        await ClientRegistration().register(fetch, server("none", cimd=True), REDIRECT)
    assert fetch.posted == []
    with pytest.raises(AuthorizationFailed, match=r"client_id$"):
        await DYNAMIC.register(fetch, server(register=None), REDIRECT)


async def test_a_registered_client_is_shown_to_its_own_server_alone() -> None:
    ours = ClientRegistration(client=ClientSecret("id", "s3cret"), issuer=ISSUER)
    assert (await ours.register(Canned({}), server(), REDIRECT)).client.client_id == "id"
    other = AuthorizationServerMetadata(issuer="https://evil.example", client_id_metadata_document_supported=True)
    with pytest.raises(AuthorizationFailed, match="issuer"):
        await ours.register(Canned({}), other, REDIRECT)


# The metadata document


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/client.json",
        "http://127.0.0.1/client.json",
        "https://app.example.com",
        "https://app.example.com/",
        "https://app.example.com/a/../client.json",
        "https://app.example.com/./client.json",
        "https://app.example.com/%2E%2e/client.json",
        "https://app.example.com/client.json?x=1",
        "https://app.example.com/client.json#x",
        "https://u:p@app.example.com/client.json",
        "client.json",
    ],
)
def test_a_document_has_an_address_that_servers_take(url: str) -> None:
    with pytest.raises(ConfigurationError, match="client_metadata_url"):
        ClientRegistration(metadata_document=url)
    with pytest.raises(ConfigurationError, match="client_metadata_url"):
        client_metadata_document(url, "x", ["http://127.0.0.1/callback"])


def test_the_document_has_what_servers_ask_for() -> None:
    made = json.loads(
        client_metadata_document(
            DOCUMENT,
            "My client",
            ["http://127.0.0.1/callback"],
            scopes=["a", "b"],
            client_uri="https://app.example.com/",
        )
    )
    assert made == {
        "client_id": DOCUMENT,
        "client_name": "My client",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "scope": "a b",
        "client_uri": "https://app.example.com/",
    }
    web = json.loads(client_metadata_document(DOCUMENT, "x", ["https://app/cb"], jwks_uri="https://app/keys"))
    assert (web["application_type"], web["token_endpoint_auth_method"]) == ("web", "private_key_jwt")
    assert "scope" not in web


@pytest.mark.parametrize(
    ("redirects", "more"),
    [
        ([], {}),
        (["http://app.example.com/cb"], {}),
        (["myapp:/cb"], {}),
        (["https://app/cb#x"], {}),
        (["https://app/cb"], {"jwks_uri": "http://app/keys"}),
        (["https://app/cb"], {"logo_uri": "javascript:x"}),
    ],
)
def test_a_document_with_other_addresses_is_not_made(redirects: list[str], more: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        client_metadata_document(DOCUMENT, "x", redirects, **more)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_a_client_has_a_name_to_read(name: str) -> None:
    with pytest.raises(ConfigurationError, match="client_name"):
        ClientRegistration(client_name=name)
    with pytest.raises(ConfigurationError, match="client_name"):
        client_metadata_document(DOCUMENT, name, ["https://app/cb"])


# Dynamic registration


async def test_a_client_registers_as_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "garrison.security"):
        found, asked = await dynamic(registered(token_endpoint_auth_method="none"), scopes=("a", "b"))
    assert asked == {
        "client_name": "My client",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "scope": "a b",
    }
    assert (found.client.client_id, found.client.method, found.secret) == ("dyn-1", "none", None)
    assert "policy.relaxed" in caplog.text and "deprecates" in caplog.text
    _, asked = await dynamic(registered(redirect_uris=["https://app/cb"]), redirect="https://app/cb")
    assert asked["application_type"] == "web" and "scope" not in asked


@pytest.mark.parametrize(
    ("methods", "method"),
    [
        (("client_secret_basic", "none"), "none"),
        (("client_secret_post", "client_secret_basic"), "client_secret_basic"),
        (("client_secret_post", "private_key_jwt"), "client_secret_post"),
    ],
)
async def test_the_way_to_show_who_it_is_is_one_that_the_server_knows(methods: tuple[str, ...], method: str) -> None:
    found, asked = await dynamic(registered(client_secret="s3:cret"), *methods)
    assert (asked["token_endpoint_auth_method"], found.client.method) == (method, method)
    # A secret that nobody asked for is not kept.
    assert (found.secret is None) == (method == "none")
    if method == "client_secret_basic":
        request = TokenRequest.client_credentials("https://mcp.example.com", client_id="dyn-1")
        _, fields = found.client.apply(request, server(*methods), f"{ISSUER}/token", 0.0)
        assert base64.b64decode(fields["Authorization"].split()[1]) == b"dyn-1:s3%3Acret"
    assert "s3:cret" not in repr(found)


async def test_a_server_that_knows_keys_only_is_told_to_be_registered_at() -> None:
    with pytest.raises(AuthorizationFailed, match="client_id"):
        await dynamic(registered(), "private_key_jwt")


@pytest.mark.attack("ATK-204")
@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uris": ["https://evil.example/cb"]},
        {"redirect_uris": [REDIRECT, "https://evil.example/cb"]},
        {"redirect_uris": []},
        {"redirect_uris": ["http://127.0.0.1:40001/other"]},
        {"redirect_uris": ["http://localhost:40001/callback/x"]},
        {"redirect_uris": ["https://127.0.0.1:40001/callback/x"]},
        {"redirect_uris": ["http://127.0.0.1:40001/callback/x?y"]},
        {"token_endpoint_auth_method": "client_secret_basic", "client_secret": "x"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"grant_types": ["authorization_code", "password"]},
        {"grant_types": ["implicit"]},
        {"grant_types": []},
        {"response_types": ["code", "token"]},
        {"response_types": ["id_token"]},
        {"scope": "a b admin"},
    ],
)
async def test_a_registration_that_was_changed_is_not_used(changed: dict[str, Any]) -> None:
    with pytest.raises(AuthorizationFailed, match=r"another|without a secret"):
        await dynamic(registered(**changed), scopes=("a", "b"))


@pytest.mark.parametrize(
    "same",
    [
        {"redirect_uris": None},
        {"redirect_uris": ["http://127.0.0.1/callback/x"]},
        {"redirect_uris": ["http://127.0.0.1:5/callback/x"]},
        {"token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"]},
        {"grant_types": ["authorization_code"], "response_types": ["code"]},
        {"scope": "b"},
        {"client_secret": "unasked", "client_name": "x", "client_id_issued_at": 1, "software_id": {"x": []}},
    ],
)
async def test_a_registration_that_means_the_same_is_used(same: dict[str, Any]) -> None:
    members = {name: value for name, value in registered(**same).items() if value is not None}
    found, _ = await dynamic(members, scopes=("a", "b"))
    assert (found.client.client_id, found.redirect_uri) == ("dyn-1", REDIRECT)


async def test_of_web_clients_no_port_is_free() -> None:
    with pytest.raises(AuthorizationFailed, match="redirect_uris"):
        await dynamic(registered(redirect_uris=["https://app:8443/cb"]), redirect="https://app/cb")


async def test_the_scopes_that_a_server_gives_unasked_are_its_own_matter() -> None:
    found, _ = await dynamic(registered(scope="everything that is there"))
    assert found.client.client_id == "dyn-1"


@pytest.mark.parametrize(
    "answer",
    [
        document({}),
        document([]),
        document(registered(client_id="")),
        document(registered(client_id=7)),
        document(registered(client_id="a\nb")),
        document(registered(client_id="x" * 2001)),
        document(registered(redirect_uris="x")),
        (201, "application/json", b'{"client_id": "a", "client_id": "b"}'),
        (201, "application/json", b"<html>"),
        (201, "text/html", json.dumps(registered()).encode()),
        (204, "application/json", b""),
        (307, "application/json", json.dumps(registered()).encode()),
    ],
)
async def test_an_answer_that_is_none_is_not_used(answer: tuple[int, str, bytes]) -> None:
    with pytest.raises(AuthorizationFailed):
        await dynamic(answer)


@pytest.mark.parametrize("secret", [{}, {"client_secret": ""}, {"client_secret": "a\nb"}])
async def test_a_client_that_needs_a_secret_gets_one(secret: dict[str, str]) -> None:
    with pytest.raises(AuthorizationFailed, match="secret"):
        await dynamic(registered(**secret), "client_secret_basic")
    with pytest.raises(AuthorizationFailed, match="expires"):
        await dynamic(registered(client_secret="x", client_secret_expires_at=-1), "client_secret_basic")


async def test_a_refusal_says_what_to_do_and_what_the_server_said_cleaned() -> None:
    said = "\x1b[31mredirect\u202e must be https://evil.example/login or www.evil.example now" + " more" * 100
    with pytest.raises(AuthorizationFailed) as caught:
        await dynamic({"error": "invalid_redirect_uri", "error_description": said}, status=400)
    text = str(caught.value)
    assert caught.value.error == "invalid_redirect_uri"
    assert "set redirect_uri" in text and "set client_id" in text
    assert "redirect must be (address left out) or (address left out) now" in text.replace(" [31m", "")
    assert "evil" not in text and text.isascii() and text.isprintable() and len(text) < 500
    for body in ({"error": "a b\x1b"}, {"error": 7}, []):
        with pytest.raises(AuthorizationFailed, match="status 403") as caught:
            await dynamic(body, status=403)
        assert caught.value.error is None


@pytest.mark.attack("ATK-193")
async def test_what_is_posted_to_register_is_not_sent_on() -> None:
    async with site() as authority, site() as other:
        authority.locations["/register"] = other.url + "/register"
        metadata = AuthorizationServerMetadata(
            issuer=authority.url,
            registration_endpoint=authority.url + "/register",
            token_endpoint_auth_methods_supported=("none",),
        )
        from garrison.auth.client.discovery import fetch_for

        fetch = fetch_for(authority.url)
        with pytest.raises(AuthorizationFailed, match="307"):
            await DYNAMIC.register(fetch, metadata, REDIRECT)
        assert other.asked == []
        authority.locations.clear()
        authority.answers["/register"] = document(registered(), status=201)
        assert (await DYNAMIC.register(fetch, metadata, REDIRECT)).client.client_id == "dyn-1"
        assert json.loads(authority.bodies[-1])["redirect_uris"] == [REDIRECT]
        dead = AuthorizationServerMetadata(issuer=ISSUER, registration_endpoint="http://127.0.0.1:1/register")
        with pytest.raises(AuthorizationFailed, match="cannot be registered"):
            await DYNAMIC.register(fetch, dead, REDIRECT)


# Kept


async def test_a_registration_is_kept_for_its_server_until_it_ends() -> None:
    answer = registered(client_secret="s3cret", client_secret_expires_at=1000)
    found, _ = await dynamic(answer, "client_secret_post")
    kept = found.to_json()
    again = Registered.from_json(kept, ISSUER, 999.0)
    assert again is not None
    assert (again.client, again.redirect_uri, again.expires_at) == (found.client, REDIRECT, 1000)
    assert again.client.method == "client_secret_post"
    assert Registered.from_json(kept, ISSUER, 1000.0) is None
    assert Registered.from_json(kept, "https://other.example", 0.0) is None
    assert Registered.from_json(kept[:-3], ISSUER, 0.0) is None
    assert Registered.from_json(kept.replace(b"client_secret_post", b"another"), ISSUER, 0.0) is None
    public, _ = await dynamic(registered())
    assert Registered.from_json(public.to_json(), ISSUER, 9e9) is not None


async def test_what_is_configured_is_not_kept() -> None:
    given = await ClientRegistration(client=PublicClient("x")).register(Canned({}), server(), REDIRECT)
    with pytest.raises(ValueError, match="dynamic"):
        given.to_json()
