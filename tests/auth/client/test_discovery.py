"""Discovery: the order of MCP, documents of somebody else, addresses that lead inside, scopes; and honest servers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison import ConfigurationError
from garrison.auth import AuthorizationServerMetadata, ProtectedResourceMetadata, WwwAuthenticate
from garrison.auth.client.discovery import (
    canonical_resource,
    choose_scopes,
    discover,
    discover_resource,
    discover_server,
    fetch_for,
    read_challenge,
)
from garrison.errors import AuthorizationFailed, ConnectionFailed, ProtocolViolation
from garrison.safe import FetchRefused, SafeFetch
from tests.auth.client.answers import Canned, document, site

MCP = "https://mcp.example.com/v1/mcp"
PATHED = "https://mcp.example.com/.well-known/oauth-protected-resource/v1/mcp"
ROOT = "https://mcp.example.com/.well-known/oauth-protected-resource"
ISSUER = "https://auth.example.com"
AS = "https://auth.example.com/.well-known/oauth-authorization-server"
TENANT = "https://auth.example.com/tenant1"
TENANT_FORMS = (
    "https://auth.example.com/.well-known/oauth-authorization-server/tenant1",
    "https://auth.example.com/.well-known/openid-configuration/tenant1",
    "https://auth.example.com/tenant1/.well-known/openid-configuration",
)
HTML = (200, "text/html; charset=utf-8", b"<!DOCTYPE html><p>welcome")


def about(resource: str = MCP, *issuers: str, **more: Any) -> dict[str, Any]:
    return {"resource": resource, "authorization_servers": list(issuers or (ISSUER,)), **more}


def of(issuer: str = ISSUER, **more: Any) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        **more,
    }


def challenge(**more: Any) -> WwwAuthenticate:
    return WwwAuthenticate(**more)


# The metadata of the server


async def test_the_challenge_is_asked_first_and_then_nothing_else() -> None:
    named = "https://mcp.example.com/custom/metadata.json"
    fetch = Canned({named: document(about()), PATHED: document(about())})
    found = await discover_resource(fetch, MCP, challenge(resource_metadata=named))
    assert (found.resource, found.authorization_servers, fetch.asked) == (MCP, (ISSUER,), [named])
    assert fetch.headers[0]["Accept"] == "application/json"


@pytest.mark.parametrize("nothing", [(404, "text/plain", b""), HTML, (500, "application/json", b"{}")])
async def test_the_next_address_is_asked_where_there_is_no_document(nothing: tuple[int, str, bytes]) -> None:
    named = "https://mcp.example.com/custom"
    fetch = Canned({named: nothing, PATHED: nothing, ROOT: document(about("https://mcp.example.com"))})
    found = await discover_resource(fetch, MCP, challenge(resource_metadata=named))
    assert fetch.asked == [named, PATHED, ROOT]
    assert found.resource == "https://mcp.example.com"


async def test_an_address_is_asked_once() -> None:
    fetch = Canned({})
    with pytest.raises(AuthorizationFailed, match="legacy_discovery"):
        await discover_resource(fetch, MCP, challenge(resource_metadata=PATHED))
    assert fetch.asked == [PATHED, ROOT]


@pytest.mark.attack("ATK-186")
@pytest.mark.parametrize(
    "named",
    [
        "https://evil.example/metadata",
        "https://mcp.example.com.evil.example/metadata",
        "https://mcp.example.com:8443/metadata",
        "http://mcp.example.com/metadata",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8080/metadata",
        "https://user@mcp.example.com/metadata",
        "file:///etc/passwd",
        "//mcp.example.com/x",
    ],
)
async def test_metadata_of_another_origin_is_not_fetched(named: str) -> None:
    fetch = Canned({PATHED: document(about())})
    with pytest.raises(AuthorizationFailed):
        await discover_resource(fetch, MCP, challenge(resource_metadata=named))
    assert fetch.asked == []


async def test_metadata_of_another_origin_is_fetched_where_the_user_trusts_it() -> None:
    named = "https://metadata.example.net/mcp"
    fetch = Canned({named: document(about())})
    asked: list[str] = []
    found = await discover_resource(
        fetch, MCP, challenge(resource_metadata=named), trust=lambda url: not asked.append(url)
    )
    assert (found.resource, asked, fetch.asked) == (MCP, [named], [named])
    with pytest.raises(AuthorizationFailed, match="trust_resource_metadata"):
        await discover_resource(fetch, MCP, challenge(resource_metadata=named), trust=lambda url: False)
    fetch.asked.clear()
    with pytest.raises(AuthorizationFailed, match="http is for loopback"):
        # Trust is for origins: plain http is not made better by it.
        await discover_resource(fetch, MCP, challenge(resource_metadata="http://x.example/"), trust=lambda url: True)
    assert fetch.asked == []


@pytest.mark.attack("ATK-187")
@pytest.mark.parametrize(
    "resource",
    [
        "https://evil.example.com/v1/mcp",
        "http://mcp.example.com/v1/mcp",
        "https://mcp.example.com:8443/v1/mcp",
        "https://mcp.example.com/v1/other",
        "https://mcp.example.com/v1/mcp/admin",
        "https://mcp.example.com/v1/mc",
        "https://mcp.example.com/v1/mcp/",
        "https://mcp.example.com/V1/mcp",
        "https://mcp.example.com/v1/%6dcp",
        "https://mcp.example.com/v1/mcp/..",
        "https://mcp.example.com/v1/mcp#x",
        "https://mcp.example.com/v1?x",
        "https://user@mcp.example.com/v1/mcp",
        "mcp.example.com/v1/mcp",
        "",
        7,
        None,
    ],
)
async def test_a_document_of_another_resource_ends_it_before_the_authorization_server(resource: Any) -> None:
    fetch = Canned({PATHED: document(about(resource)), ROOT: document(about()), AS: document(of())})
    with pytest.raises(AuthorizationFailed, match="resource"):
        await discover(fetch, MCP, None)
    assert fetch.asked == [PATHED]


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        (MCP, MCP),
        (MCP, "https://mcp.example.com/v1"),
        (MCP, "https://mcp.example.com/v1/"),
        (MCP, "https://mcp.example.com"),
        (MCP, "https://mcp.example.com/"),
        (MCP, "https://MCP.example.com/v1/mcp"),
        (MCP, "https://mcp.example.com:443/v1/mcp"),
        ("https://mcp.example.com", "https://mcp.example.com/"),
        ("https://mcp.example.com/", "https://mcp.example.com"),
        (MCP + "?a=b", MCP + "?a=b"),
        (MCP + "?a=b", "https://mcp.example.com/v1"),
    ],
)
async def test_the_server_and_paths_above_it_are_its_resource(url: str, resource: str) -> None:
    """What is sent as `resource` is what the document says, as it says it."""
    fetch = Canned({PATHED: document(about(resource)), ROOT: document(about(resource)), AS: document(of())})
    assert (await discover(fetch, url, challenge(resource_metadata=PATHED))).resource == resource


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "..", "%2e", "v1"]), max_size=4), st.lists(st.sampled_from(["a", "b"])))
async def test_only_whole_segments_are_above(segments: list[str], mine: list[str]) -> None:
    url = "https://h.example/" + "/".join(mine)
    resource = "https://h.example/" + "/".join(segments)
    first = canonical_resource(url).replace("h.example", "h.example/.well-known/oauth-protected-resource", 1)
    fetch = Canned({first: document(about(resource))})
    if segments == mine[: len(segments)]:
        assert (await discover_resource(fetch, url, None)).resource == resource
    else:
        with pytest.raises(AuthorizationFailed):
            await discover_resource(fetch, url, None)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"resource": "https://mcp.example.com/v1/mcp", "authorization_servers": []}',
        b'{"resource": "https://mcp.example.com/v1/mcp"}',
        b'{"resource": "https://mcp.example.com/v1/mcp", "authorization_servers": ["http://plain.example"]}',
        b'{"resource": "https://mcp.example.com/v1/mcp", "authorization_servers": ["https://a.example/?q"]}',
        b'{"resource": "https://mcp.example.com/v1/mcp", "authorization_servers": ["https://a.x"], "resource": ""}',
    ],
)
async def test_a_document_that_is_none_ends_it(body: bytes) -> None:
    fetch = Canned({PATHED: (200, "application/json", body)})
    with pytest.raises(AuthorizationFailed, match="metadata"):
        await discover_resource(fetch, MCP, None)


@pytest.mark.parametrize("error", [ConnectionFailed("x"), FetchRefused("y"), ProtocolViolation("z")])
async def test_what_cannot_be_fetched_is_one_kind_of_error(error: Exception) -> None:
    with pytest.raises(AuthorizationFailed, match=str(error)):
        await discover_resource(Canned({PATHED: error}), MCP, None)
    with pytest.raises(AuthorizationFailed, match=str(error)):
        await discover_server(Canned({AS: error}), ISSUER)


@pytest.mark.parametrize(
    "url", ["http://mcp.example.com/mcp", "https://h/#x", "ftp://h/", "https://u@h/", "https:///x"]
)
async def test_a_server_is_https_or_loopback(url: str) -> None:
    with pytest.raises(AuthorizationFailed):
        await discover(Canned({}), url, None)


# The metadata of the authorization server


@pytest.mark.attack("ATK-189")
@pytest.mark.parametrize("at", range(3))
async def test_the_forms_of_an_issuer_with_a_path_are_asked_in_order(at: int) -> None:
    fetch = Canned({**dict.fromkeys(TENANT_FORMS[:at], HTML), TENANT_FORMS[at]: document(of(TENANT))})
    found = await discover_server(fetch, TENANT)
    assert (found.issuer, tuple(fetch.asked)) == (TENANT, TENANT_FORMS[: at + 1])


async def test_an_issuer_without_a_path_has_two_forms() -> None:
    openid = "https://auth.example.com/.well-known/openid-configuration"
    fetch = Canned({openid: document(of())})
    assert (await discover_server(fetch, ISSUER)).token_endpoint == f"{ISSUER}/token"
    assert fetch.asked == [AS, openid]
    with pytest.raises(AuthorizationFailed, match="no metadata"):
        await discover_server(Canned({}), ISSUER)


@pytest.mark.attack("ATK-188")
@pytest.mark.parametrize(
    "issuer",
    [
        "https://auth.example.com/",
        "https://AUTH.example.com",
        "https://auth.example.com:443",
        "https://evil.example",
        "https://auth.example.com/tenant1",
        "http://auth.example.com",
    ],
)
async def test_metadata_of_another_issuer_is_not_used(issuer: str) -> None:
    with pytest.raises(AuthorizationFailed, match="metadata cannot be used"):
        await discover_server(Canned({AS: document({**of(), "issuer": issuer})}), ISSUER)


async def test_an_issuer_is_used_as_it_is_written() -> None:
    """A slash at the end belongs to the identifier, though not to the address of the document."""
    assert (await discover_server(Canned({AS: document(of(ISSUER + "/"))}), ISSUER + "/")).issuer == ISSUER + "/"


@pytest.mark.attack("ATK-191")
@pytest.mark.attack("ATK-194")
@pytest.mark.parametrize(
    ("member", "url"),
    list(
        itertools.product(
            ("authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint", "jwks_uri"),
            (
                "http://auth.example.com/x",
                "https://10.0.0.5/x",
                "https://[fd00::1]/x",
                "https://169.254.169.254/x",
                "http://127.0.0.1:9/x",
                "https://localhost/x",
                "javascript:alert(1)",
                "file:///etc/passwd",
                "data:text/html,x",
                "vscode://x/y",
                "https://u:p@h.example/",
                "https://h.example/#x",
            ),
        )
    ),
)
async def test_metadata_with_an_address_that_is_not_acceptable_is_not_used(member: str, url: str) -> None:
    with pytest.raises(AuthorizationFailed):
        await discover_server(Canned({AS: document(of(**{member: url}))}), ISSUER)


@pytest.mark.parametrize("issuer", ["http://auth.example.com", "https://h/?a", "https://h/#a", "javascript:x", ""])
async def test_an_issuer_that_is_not_acceptable_is_not_asked(issuer: str) -> None:
    fetch = Canned({})
    with pytest.raises(AuthorizationFailed):
        await discover_server(fetch, issuer)
    assert fetch.asked == []


async def test_of_several_authorization_servers_the_first_or_the_configured_one_is_taken() -> None:
    fetch = Canned(
        {
            PATHED: document(about(MCP, TENANT, ISSUER)),
            AS: document(of()),
            TENANT_FORMS[0]: document(of(TENANT)),
        }
    )
    assert (await discover(fetch, MCP, None)).server.issuer == TENANT
    assert (await discover(fetch, MCP, None, issuer=ISSUER)).server.issuer == ISSUER
    fetch.asked.clear()
    with pytest.raises(AuthorizationFailed, match="issuer"):
        await discover(fetch, MCP, None, issuer="https://gone.example")
    assert fetch.asked == [PATHED]


# 2025-03-26


LEGACY_AS = "https://mcp.example.com/.well-known/oauth-authorization-server"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_server_of_the_first_authorization_is_its_own_authority(slash: str) -> None:
    origin = "https://mcp.example.com"
    fetch = Canned({LEGACY_AS: document({**of(origin), "issuer": origin + slash, "token_endpoint": origin + "/o/t"})})
    found = await discover(fetch, MCP, None, legacy=True)
    assert (found.resource, found.metadata, found.server.token_endpoint) == (MCP, None, origin + "/o/t")
    assert fetch.asked == [PATHED, ROOT, LEGACY_AS]
    assert fetch.headers[-1]["MCP-Protocol-Version"] == "2025-03-26"


async def test_without_any_metadata_the_endpoints_are_the_default_ones() -> None:
    found = await discover(Canned({}), MCP, None, legacy=True)
    origin = "https://mcp.example.com"
    assert found.server.issuer == origin
    assert found.server.authorization_endpoint == origin + "/authorize"
    assert found.server.token_endpoint == origin + "/token"
    assert found.server.registration_endpoint == origin + "/register"
    assert found.server.has_pkce


async def test_the_old_way_is_only_taken_where_it_is_allowed_and_nothing_else_is_there() -> None:
    fetch = Canned({LEGACY_AS: document(of("https://mcp.example.com"))})
    with pytest.raises(AuthorizationFailed, match="legacy_discovery"):
        await discover(fetch, MCP, None)
    assert LEGACY_AS not in fetch.asked
    with pytest.raises(AuthorizationFailed, match="resource"):
        await discover(Canned({PATHED: document(about("https://evil.example"))}), MCP, None, legacy=True)
    with pytest.raises(AuthorizationFailed, match="issuer"):
        await discover(Canned({LEGACY_AS: document(of("https://evil.example"))}), MCP, None, legacy=True)
    with pytest.raises(AuthorizationFailed, match="issuer"):
        await discover(fetch, MCP, None, legacy=True, issuer=ISSUER)


# What fetches


async def test_a_server_on_this_machine_may_send_to_other_ports_of_it() -> None:
    async with site() as mcp, site() as authority:
        mcp.answers["/.well-known/oauth-protected-resource/mcp"] = document(about(mcp.url + "/mcp", authority.url))
        authority.answers["/.well-known/oauth-authorization-server"] = document(of(authority.url))
        fetch = fetch_for(mcp.url + "/mcp")
        found = await discover(fetch, mcp.url + "/mcp", None)
        assert found.server.issuer == authority.url
        assert (await fetch.post(authority.url + "/token", b"x", media_type="text/plain")).status == 404
        assert authority.asked[-1] == "POST /token"


@pytest.mark.attack("ATK-194")
async def test_a_server_elsewhere_sends_nobody_to_this_machine() -> None:
    async with site() as here:
        here.answers["/.well-known/oauth-authorization-server"] = document(of(here.url))
        with pytest.raises(AuthorizationFailed, match="https"):
            await discover_server(fetch_for("https://mcp.example.com/mcp"), here.url)
        with pytest.raises(FetchRefused):
            await fetch_for("https://mcp.example.com/mcp").post(here.url, b"", media_type="text/plain")
        assert here.asked == []
        listed = fetch_for("https://mcp.example.com/mcp", private_hosts=[f"127.0.0.1:{here.port}"])
        assert (await discover_server(listed, here.url)).issuer == here.url
        # A server on this machine may not send into the network around it.
        with pytest.raises(FetchRefused):
            await fetch_for(here.url).get("https://10.0.0.5/")


@pytest.mark.attack("ATK-194")
@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.5", "fd00::1", "127.0.0.1"])
async def test_a_name_that_leads_inside_is_not_asked(address: str) -> None:
    async def names(host: str, port: int) -> list[str]:
        return [address]

    with pytest.raises(AuthorizationFailed, match="not public"):
        await discover_server(SafeFetch(resolver=names), "https://metadata.google.internal")


async def test_redirects_stay_with_the_origin_and_are_few() -> None:
    async with site() as mcp, site() as other:
        path = "/.well-known/oauth-protected-resource"
        other.answers[path] = mcp.answers["/moved"] = document(about(mcp.url))
        mcp.locations = {path: "/moved"}
        assert (await discover_resource(fetch_for(mcp.url), mcp.url, None)).resource == mcp.url
        mcp.locations = {path: other.url + path}
        with pytest.raises(AuthorizationFailed, match="another origin"):
            await discover_resource(fetch_for(mcp.url), mcp.url, None)
        assert other.asked == []
        mcp.locations = {path: "/1", "/1": "/2", "/2": "/moved"}
        with pytest.raises(AuthorizationFailed, match="redirects"):
            await discover_resource(fetch_for(mcp.url), mcp.url, None)


async def test_a_document_has_a_size() -> None:
    async with site() as mcp:
        members = about(mcp.url)
        for size, fits in ((200_000, True), (300_000, False)):
            body = json.dumps({**members, "resource_name": "x" * size}).encode()
            mcp.answers["/.well-known/oauth-protected-resource"] = (200, "application/json", body)
            if fits:
                assert await discover_resource(fetch_for(mcp.url), mcp.url, None)
            else:
                with pytest.raises(AuthorizationFailed, match="bytes"):
                    await discover_resource(fetch_for(mcp.url), mcp.url, None)


def test_a_fetch_is_for_a_server() -> None:
    with pytest.raises(ConfigurationError, match="address"):
        fetch_for("mcp.example.com")


# Challenges


@pytest.mark.attack("ATK-209")
def test_only_the_parameter_of_our_own_scheme_counts() -> None:
    fields = (
        'Basic realm="x, resource_metadata=\\"https://evil.example\\", Bearer resource_metadata=https://evil.example"',
        'Custom resource_metadata="https://evil.example"',
        'Bearer scope="a b", resource_metadata="https://mcp.example.com/m"',
    )
    for order in itertools.permutations(fields):
        found = read_challenge(*order)
        assert found is not None
        assert (found.resource_metadata, found.scope) == ("https://mcp.example.com/m", ("a", "b"))
    assert read_challenge(*fields[:2]) is None
    assert read_challenge() is None


@pytest.mark.attack("ATK-209")
@pytest.mark.parametrize(
    "field",
    [
        'Bearer resource_metadata="https://a.example", resource_metadata="https://b.example"',
        'Bearer resource_metadata="https://a.example" resource_metadata="x"',
        'Bearer realm="' + "x" * 1024 * 1024 + '"',
        'Bearer realm="unterminated',
    ],
)
def test_a_challenge_that_can_be_read_twice_is_not_read(field: str) -> None:
    with pytest.raises(AuthorizationFailed, match="WWW-Authenticate"):
        read_challenge(field)


def test_a_challenge_for_dpop_is_ours_too() -> None:
    found = read_challenge('Bearer realm="x", DPoP algs="ES256", resource_metadata="https://a.example/m"')
    assert found is not None and found.resource_metadata == "https://a.example/m"
    first = read_challenge('DPoP algs="ES256", Bearer realm="x"')
    assert first is not None and first.scheme == "DPoP"


# Scopes


SUPPORTED = ProtectedResourceMetadata(MCP, (ISSUER,), ("read", "write"))
BARE = ProtectedResourceMetadata(MCP, (ISSUER,))
OFFLINE = AuthorizationServerMetadata(issuer=ISSUER, scopes_supported=("read", "offline_access"))


def test_the_challenge_says_the_scopes_else_the_metadata_else_nobody() -> None:
    assert choose_scopes(challenge(scope=("x", "y")), SUPPORTED) == ("x", "y")
    assert choose_scopes(challenge(), SUPPORTED) == ("read", "write")
    assert choose_scopes(None, SUPPORTED) == ("read", "write")
    assert choose_scopes(None, BARE) == ()
    assert choose_scopes(None, None) == ()


def test_a_step_up_keeps_what_is_held() -> None:
    assert choose_scopes(challenge(scope=("write", "a")), SUPPORTED, held=("a", "b")) == ("a", "b", "write")
    assert choose_scopes(None, SUPPORTED, held=("a",)) == ("a",)


def test_offline_access_is_asked_for_where_the_server_knows_it_and_it_is_wanted() -> None:
    assert choose_scopes(None, SUPPORTED, OFFLINE, refresh=True) == ("read", "write", "offline_access")
    assert choose_scopes(None, SUPPORTED, OFFLINE) == ("read", "write")
    assert choose_scopes(None, SUPPORTED, AuthorizationServerMetadata(issuer=ISSUER), refresh=True) == ("read", "write")
    # Alone it would be asked for in place of what the server gives without a word.
    assert choose_scopes(None, BARE, OFFLINE, refresh=True) == ()
    assert choose_scopes(None, SUPPORTED, OFFLINE, refresh=True, approved={"read", "write"})[-1] == "offline_access"
    held = ("a", "offline_access")
    assert choose_scopes(None, SUPPORTED, OFFLINE, refresh=True, held=held) == held


@pytest.mark.attack("ATK-206")
def test_scopes_are_bounded() -> None:
    fifty = tuple(f"s{i}" for i in range(50))
    assert choose_scopes(challenge(scope=fifty), None) == fifty
    with pytest.raises(AuthorizationFailed, match="50 scopes"):
        choose_scopes(challenge(scope=(*fifty, "one-more")), None)
    with pytest.raises(AuthorizationFailed, match="50 scopes"):
        choose_scopes(challenge(scope=("one-more",)), None, held=fifty)
    assert choose_scopes(challenge(scope=("x" * 1000,)), None)
    with pytest.raises(AuthorizationFailed, match="1000"):
        choose_scopes(challenge(scope=("x" * 1001,)), None)
    with pytest.raises(AuthorizationFailed, match="6749"):
        choose_scopes(None, ProtectedResourceMetadata(MCP, (ISSUER,), ("two words",)))


@pytest.mark.attack("ATK-206")
def test_scopes_that_were_not_approved_need_consent() -> None:
    asked: list[frozenset[str]] = []

    def approve(scopes: frozenset[str]) -> bool:
        asked.append(scopes)
        return "admin" not in scopes

    known = {"read"}
    assert choose_scopes(challenge(scope=("read",)), None, approved=known, approve=approve) == ("read",)
    assert asked == []
    assert choose_scopes(challenge(scope=("read", "write")), None, approved=known, approve=approve)
    assert asked == [frozenset({"write"})]
    with pytest.raises(AuthorizationFailed, match="approve_scopes"):
        choose_scopes(challenge(scope=("admin",)), None, approved=known, approve=approve)
    with pytest.raises(AuthorizationFailed, match="approve_scopes"):
        choose_scopes(challenge(scope=("write",)), None, approved=known)
