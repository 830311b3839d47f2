"""Without a token nothing is open but the metadata, and a token counts only where it belongs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from garrison import ConfigurationError, SecurityPolicy, Server, Timeouts
from garrison.auth import ProtectedResourceMetadata, WwwAuthenticate
from garrison.auth.resource import ApiKeys, Grant
from garrison.auth.resource.server import ResourceServer
from tests.auth.resource.issuer import verifier
from tests.support.mcp import LEGACY, MODERN, call, modern
from tests.support.protected import (
    ALICE,
    FACES,
    ISSUER,
    METADATA,
    RESOURCE,
    WELL_KNOWN,
    bearer,
    challenge,
    facing,
    guarded,
    handshake,
    knock,
    let_in,
    message,
    protection,
    use,
)
from tests.support.raw_http import Response, changed, connected, exchange, request, serving

METHODS = (
    *("server/discover", "initialize", "ping", "subscriptions/listen", "logging/setLevel", "completion/complete"),
    *("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/templates/list"),
    *("resources/read", "resources/subscribe", "resources/unsubscribe", "no/such", "rpc.discover"),
    *("notifications/initialized", "notifications/cancelled", "notifications/roots/list_changed"),
)
POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))


def unasked(answer: Response) -> None:
    """It is the answer to who shows nothing: a challenge, and no error."""
    assert answer.status == 401, answer
    found = challenge(answer)
    assert (found.scheme, found.error, found.error_description) == ("Bearer", None, None)
    assert (found.resource_metadata, found.scope) == (METADATA, ("notes:read",))
    assert (answer.get("x-content-type-options"), answer.get("cache-control")) == ("nosniff", "no-store")


def legacy(port: int, method: str, version: str, authorization: str | None, **fields: str | None) -> bytes:
    """The bytes of a POST of a revision with a handshake."""
    lines = [("Host", f"127.0.0.1:{port}"), ("Content-Type", "application/json")]
    lines += [("Accept", "application/json, text/event-stream"), ("MCP-Protocol-Version", version)]
    if authorization is not None:
        lines.append(("Authorization", authorization))
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "method": method, "params": params}
    if not method.startswith("notifications/"):
        body["id"] = 1
    return request(json.dumps(body).encode(), changed(lines, **fields))


# No token


@pytest.mark.attack("ATK-159")
@pytest.mark.parametrize("face", ["http", "asgi"])
@pytest.mark.parametrize("revision", [MODERN, *LEGACY])
async def test_no_method_is_open_without_a_token(face: str, revision: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        for method in METHODS:
            if revision == MODERN:
                data = message(port, modern(method), None)
            else:
                data = legacy(port, method, revision, None)
            unasked(await exchange(port, data))
        assert not ran
        if revision == MODERN:
            assert (await use(port, "whoami")).status == 200
        else:
            assert (await exchange(port, legacy(port, "initialize", revision, ALICE))).status == 200


@pytest.mark.attack("ATK-159")
@pytest.mark.parametrize("face", FACES)
async def test_no_door_is_open_without_a_token(face: str) -> None:
    async with facing(face, guarded(http_sse=True)) as port:
        unasked(await knock(face, port, None))
        lines = [("Host", f"127.0.0.1:{port}"), ("Accept", "text/event-stream")]
        for method, target in [
            *(("GET", "/mcp"), ("DELETE", "/mcp"), ("HEAD", "/mcp"), ("OPTIONS", "/mcp"), ("PUT", "/mcp")),
            *(("GET", "/sse"), ("POST", "/messages/"), ("POST", "/messages/?sessionId=x"), ("POST", "/sse")),
        ]:
            data = request(b"", [*lines, ("Mcp-Session-Id", "x")], method=method, target=target)
            async with connected(port) as wire:
                await wire.send(data)
                unasked(await wire.head())
        assert let_in(await knock(face, port, ALICE))
        async with connected(port) as wire:
            await wire.send(request(b"", [*lines, ("Authorization", ALICE)], method="GET", target="/sse", length=False))
            assert (await wire.head()).status == 200


@pytest.mark.attack("ATK-159")
async def test_the_body_of_a_stranger_is_not_waited_for() -> None:
    async with serving(guarded(), token=None) as running, connected(running.port) as wire:
        data = message(running.port, call("whoami"), None, expect="100-continue")
        await wire.send(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        unasked(await wire.head())


# A token in another place


@pytest.mark.attack("ATK-160")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/mcp?access_token={}", {}),
        ("/mcp?Authorization=Bearer%20{}", {}),
        ("/mcp?token={}", {}),
        ("/mcp", {"cookie": "access_token={}; Authorization=Bearer {}"}),
        ("/mcp", {"x_authorization": "Bearer {}"}),
        ("/mcp", {"x_forwarded_authorization": "Bearer {}"}),
        ("/mcp", {"proxy_authorization": "Bearer {}"}),
        ("/mcp", {"x_api_key": "{}"}),
        ("/mcp", {"sec_websocket_protocol": "mcp, bearer.{}"}),
        ("/mcp", {"authentication_info": "Bearer {}"}),
    ],
)
async def test_a_token_elsewhere_is_none_and_is_written_nowhere(
    face: str, target: str, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    secret = bearer().removeprefix("Bearer ")
    with caplog.at_level(logging.DEBUG):
        async with facing(face, guarded(ran=ran)) as port:
            filled = {name: value.replace("{}", secret) for name, value in fields.items()}
            answer = await knock(face, port, None, target=target.replace("{}", secret), **filled)
            unasked(answer)
            assert secret.encode() not in answer.body and not any(secret in value for _, value in answer.fields)
            assert not ran
            assert let_in(await knock(face, port, "Bearer " + secret))
    ours = [each.getMessage() for each in caplog.records if each.name.startswith("garrison")]
    assert not any(part in line for line in ours for part in secret.split("."))


@pytest.mark.attack("ATK-160")
async def test_a_token_in_the_body_is_none() -> None:
    ran: list[str] = []
    secret = bearer().removeprefix("Bearer ")
    async with serving(guarded(ran=ran), token=None) as running:
        port = running.port
        form = changed([("Host", f"127.0.0.1:{port}")], content_type="application/x-www-form-urlencoded")
        unasked(await exchange(port, request(b"access_token=" + secret.encode(), form)))
        body = call("whoami")
        body["params"]["_meta"]["authorization"] = body["access_token"] = f"Bearer {secret}"
        unasked(await exchange(port, message(port, body, None)))
        assert not ran


@pytest.mark.attack("ATK-160")
@pytest.mark.parametrize("face", FACES)
async def test_a_token_in_two_places_is_refused(face: str) -> None:
    """RFC 6750 section 2: no more than one way in a request."""
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        answer = await knock(face, port, bearer(jti="new"), target="/mcp?access_token=x")
        assert (answer.status, challenge(answer).error) == (400, "invalid_request")
        assert let_in(await knock(face, port, ALICE, target="/mcp?other=x"))
        again = await knock(face, port, ALICE, target="/mcp?access_token=x")
        assert again.status == 400
        assert ran in ([], ["whoami"])


# The field itself


@pytest.mark.attack("ATK-161")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("bearer {}", 200),
        ("BEARER {}", 200),
        ("BeArEr {}", 200),
        ("Bearer  {}", 400),
        ("Bearer\t{}", 401),
        ("Bearer{}", 401),
        ("Bearer", 400),
        ("{}", 401),
        ("Basic {}", 401),
        ("Token {}", 401),
        ("Bearerx {}", 401),
        ("Bearer {}, Bearer {}", 400),
        ("Bearer {} {}", 400),
        ("Bearer {}, Basic x", 400),
        ("Basic x, Bearer {}", 401),
        ('Bearer "{}"', 400),
        ("Bearer token={}", 400),
        ("Bearer {}\u00e9", 400),
        ("Bearer {};", 400),
        ("Bearer =", 400),
        ("DPoP {}", 401),
    ],
)
async def test_the_field_has_one_form(face: str, value: str, status: int) -> None:
    ran: list[str] = []
    secret = bearer().removeprefix("Bearer ")
    async with facing(face, guarded(ran=ran)) as port:
        answer = await knock(face, port, value.replace("{}", secret))
        assert (200 if answer.status == 101 else answer.status) == status, answer
        assert bool(ran) == (status == 200 and not face.endswith("websocket"))
        assert let_in(await knock(face, port, ALICE))


@pytest.mark.attack("ATK-161")
@pytest.mark.parametrize("face", FACES)
async def test_two_fields_are_refused(face: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        for twice in ((ALICE, ALICE), (ALICE, "Bearer x"), ("Bearer x", ALICE), ("", ALICE)):
            async with connected(port) as wire:
                if face.endswith("websocket"):
                    data = handshake(port)
                else:
                    data = message(port, call("whoami"), None)
                start, _, body = data.partition(b"\r\n\r\n")
                lines = b"".join(b"\r\nAuthorization: " + each.encode() for each in twice)
                await wire.send(start + lines + b"\r\n\r\n" + body)
                assert (await wire.head()).status == 400
        assert not ran
        assert let_in(await knock(face, port, ALICE))


# Metadata


async def document(port: int, target: str = WELL_KNOWN, method: str = "GET", **fields: str | None) -> Response:
    lines = changed([("Host", f"127.0.0.1:{port}")], **fields)
    return await exchange(port, request(b"", lines, method=method, target=target, length=False))


@pytest.mark.attack("ATK-179")
@pytest.mark.parametrize("face", FACES)
async def test_the_metadata_is_for_everybody_and_says_what_is(face: str) -> None:
    auth = protection(scopes=["notes:read"], name="Notes", documentation="https://docs.example.com/")
    async with facing(face, guarded(auth)) as port:
        for authorization in (None, "Bearer nonsense", ALICE):
            answer = await document(port, authorization=authorization)
            assert (answer.status, answer.get("content-type")) == (200, "application/json")
            assert answer.get("x-content-type-options") == "nosniff"
        said = answer.json
        assert said["resource"] == RESOURCE
        assert said["authorization_servers"] == [ISSUER]
        assert said["bearer_methods_supported"] == ["header"]
        assert said["scopes_supported"] == ["notes:read"]
        assert said["resource_name"] == "Notes"
        assert said["resource_documentation"] == "https://docs.example.com/"
        assert not said.get("dpop_bound_access_tokens_required")
        assert "offline_access" not in answer.body.decode()
        assert ProtectedResourceMetadata.read(answer.body, RESOURCE).resource == RESOURCE
        refused = await knock(face, port, None)
        assert challenge(refused).resource_metadata == METADATA
        assert METADATA.endswith(WELL_KNOWN)


@pytest.mark.attack("ATK-179")
async def test_the_metadata_is_only_read() -> None:
    async with serving(guarded(), token=None) as running:
        port = running.port
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = await document(port, method=method)
            assert (answer.status, answer.get("allow")) == (405, "GET"), method
        for target in (WELL_KNOWN + "/", WELL_KNOWN + "/x", "/.well-known/", WELL_KNOWN.upper(), "//" + WELL_KNOWN):
            assert (await document(port, target)).status == 404, target
        assert (await document(port, WELL_KNOWN + "?x=y")).status == 200
        assert (await document(port, "/.well-known/oauth-protected-resource")).status == 404  # of another resource


@pytest.mark.attack("ATK-179")
async def test_the_metadata_is_served_to_no_foreign_name_or_page() -> None:
    origin = "https://app.example.com"
    policy = SecurityPolicy(allowed_origins=(origin,), timeouts=Timeouts(shutdown=0.2))
    async with serving(guarded(policy=policy), token=None) as running:
        port = running.port
        assert (await document(port, host="evil.example.com")).status == 421
        assert (await document(port, origin="https://evil.example.com")).status == 403
        assert (await document(port, sec_fetch_site="cross-site")).status == 403
        readable = await document(port, origin=origin)
        assert (readable.status, readable.get("access-control-allow-origin")) == (200, origin)
        asked = await document(port, method="OPTIONS", origin=origin, access_control_request_method="GET")
        assert (asked.status, asked.get("access-control-allow-methods")) == (204, "GET")
        plain = await document(port)
        assert plain.get("access-control-allow-origin") is None


@pytest.mark.attack("ATK-179")
@pytest.mark.parametrize(
    ("resource", "path", "place"),
    [
        ("https://mcp.example.com", "/mcp", "/.well-known/oauth-protected-resource"),
        ("https://mcp.example.com/", "/", "/.well-known/oauth-protected-resource"),
        ("https://mcp.example.com/a/b", "/mcp", "/.well-known/oauth-protected-resource/a/b"),
        ("https://mcp.example.com/a/b", "/b", "/.well-known/oauth-protected-resource/a/b"),
    ],
)
async def test_the_metadata_is_where_the_identifier_leads(resource: str, path: str, place: str) -> None:
    server = Server("p", auth=ResourceServer(resource, verifier(audience=resource)), policy=POLICY)
    async with serving(server, token=None, path=path) as running:
        answer = await document(running.port, place)
        assert (answer.status, answer.json["resource"]) == (200, resource)
        assert (await document(running.port, "/.well-known/oauth-protected-resource" + path.rstrip("/"))).status == 200


async def test_where_nobody_can_be_asked_for_a_token_there_is_no_metadata() -> None:
    secret, hashed = ApiKeys.new()
    auth = ResourceServer(RESOURCE, ApiKeys({hashed: Grant("ci", ["notes:read"])}), scopes_supported=["notes:read"])
    async with serving(guarded(auth), token=None) as running:
        port = running.port
        assert (await document(port)).status in (401, 404)
        found = challenge(await knock("http", port, None))
        assert (found.resource_metadata, found.scope) == (None, ("notes:read",))
        assert (await use(port, "whoami", as_="Bearer " + secret.reveal())).status == 200


# What cannot be configured


@pytest.mark.attack("ATK-178", "ATK-179")
@pytest.mark.parametrize(
    "options",
    [
        {"resource": "http://mcp.example.com/mcp"},
        {"resource": "https://user@mcp.example.com/mcp"},
        {"resource": "https://mcp.example.com/mcp#x"},
        {"resource": 'https://mcp.example.com/"mcp'},
        {"resource": "https://mcp.example.com/m\r\nset-cookie: x"},
        {"resource": "mcp.example.com"},
        {"resource": ""},
        {"scopes": ["offline_access"]},
        {"scopes_supported": ["offline_access"]},
        {"scopes": ['a"b']},
        {"scopes": ["a b"]},
        {"scopes": ["a\r\nset-cookie: x"]},
        {"scopes": ["a\\"]},
        {"scopes": [""]},
        {"scopes": "notes:read"},
        {"scopes_supported": ['a"b']},
        {"scopes_supported": "notes:read"},
        {"hierarchy": {"admin": "notes:read"}},
        {"hierarchy": {"admin": ['"']}},
        {"hierarchy": {"a b": ["notes:read"]}},
        {"dpop": "maybe"},
        {"recheck": 0},
        {"recheck": 61},
        {"failures_per_minute": 0},
    ],
    ids=repr,
)
@pytest.mark.parametrize("keys", [False, True], ids=["issuer", "keys"])
def test_a_resource_that_could_not_be_told_is_refused_at_the_start(options: dict[str, Any], keys: bool) -> None:
    checking: Any = ApiKeys({ApiKeys.new()[1]: Grant("ci")}) if keys else ISSUER
    resource = options.get("resource", RESOURCE)
    more = {name: value for name, value in options.items() if name != "resource"}
    with pytest.raises(ConfigurationError, match="ResourceServer"):
        ResourceServer(resource, checking, **more)
    ResourceServer(RESOURCE, checking, scopes=["notes:read"], hierarchy={"admin": ["notes:read"]})


def test_somebody_has_to_vouch() -> None:
    with pytest.raises(ConfigurationError, match="name an issuer"):
        ResourceServer(RESOURCE)


@pytest.mark.attack("ATK-178")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "target", ['/mcp?"x"', "/mcp?a=%0d%0aset-cookie:%20x", '/"mcp"', "/mcp%0d%0ax", "/mcp?scope=%22,error=%22x"]
)
async def test_what_is_asked_for_is_not_in_the_challenge(face: str, target: str) -> None:
    async with facing(face, guarded()) as port:
        answer = await knock(face, port, None, target=target)
        assert answer.status in (401, 404), answer
        assert answer.get("set-cookie") is None
        if answer.status == 401:
            unasked(answer)


@pytest.mark.attack("ATK-178")
async def test_the_identifier_stands_quoted_in_the_challenge() -> None:
    resource = "https://mcp.example.com/it's/a,b;c=%22"
    server = Server("p", auth=ResourceServer(resource, verifier(audience=resource)), policy=POLICY)
    async with serving(server, token=None) as running:
        answer = await knock("http", running.port, None)
        (found,) = WwwAuthenticate.parse(answer.get("www-authenticate") or "")
        where = "https://mcp.example.com/.well-known/oauth-protected-resource/it's/a,b;c=%22"
        assert found.resource_metadata == where
        assert (await document(running.port, where.removeprefix("https://mcp.example.com"))).status == 200
