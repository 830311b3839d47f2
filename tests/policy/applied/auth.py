"""What protects a server: `ResourceServer`, its verifiers, and what `Server` says of access, seen by callers."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.auth.client.authentication import ClientSecret
from garrison.auth.dpop import DpopKey
from garrison.auth.resource import (
    ApiKeys,
    Certificates,
    Grant,
    IntrospectionVerifier,
    JwksCache,
    JwtVerifier,
)
from garrison.auth.resource.server import ResourceServer
from garrison.auth.tokens import TokenSet
from garrison.errors import ConfigurationError
from garrison.policy.secret import Secret
from garrison.policy.tls import TlsServerConfig
from garrison.protocol.types import ListChangedCapability, ServerCapabilities
from tests.auth.resource.issuer import ENDPOINT, ISSUER, JWKS_URI, RESOURCE, Web, jwk, jwks, key, page, token, web
from tests.support.certs import Authority
from tests.support.mcp import call, modern
from tests.support.protected import Asked, active, ask, challenge, message, use
from tests.support.raw_http import Response, connected, exchange, request, serving

from .case import case
from .scene import folder
from .tls import trusting

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
OTHER = "https://other.example.com/mcp"
SECRET, HASHED = ApiKeys.new()
METADATA = f"{ISSUER}/.well-known/oauth-authorization-server"


def issued(private: Any = None, algorithm: str = "ES256", **changes: Any) -> str:
    """A token that is good now, for the Authorization field."""
    now = time.time()
    return "Bearer " + token(private, algorithm, **{"iat": now - 10, "exp": now + 300, **changes})


def made(auth: ResourceServer | None, **options: Any) -> Server:
    """A server with a tool for everybody, one for who has a scope, and one that says what can be had upstream."""
    server = Server("s", policy=POLICY, auth=auth, **options)

    @server.tool(public=True)
    def who(ctx: Context) -> str:
        return f"{ctx.principal.tenant}/{ctx.principal.subject}"

    @server.tool(public=True)
    async def upstream(ctx: Context) -> str:
        try:
            return (await ctx.upstream_token(OTHER)).reveal()
        except ConfigurationError as exc:
            return type(exc).__name__

    @server.tool()
    def bare() -> str:
        return "done"

    @server.resource("note://1", public=True)
    def note() -> str:
        return "note"

    if auth is not None:

        @server.tool(scopes=["read"])
        def read() -> str:
            return "done"

    return server


def resource_server(*verifiers: Any, resource: str = RESOURCE, **options: Any) -> ResourceServer:
    given = verifiers or (JwtVerifier(ISSUER, resource, jwks_uri=JWKS_URI, fetch=web()),)
    return ResourceServer(resource, *given, **options)


def text(answer: Response) -> str:
    return answer.json["result"]["content"][0]["text"]


async def status(auth: ResourceServer, authorization: str | None, tool: str = "who") -> int:
    """What a call with this field gets."""
    async with serving(made(auth), token=None) as running:
        return (await use(running.port, tool, as_=authorization)).status


async def metadata(auth: ResourceServer) -> dict[str, Any]:
    async with serving(made(auth), token=None) as running:
        fields = [("Host", f"127.0.0.1:{running.port}")]
        target = "/.well-known/oauth-protected-resource/mcp"
        answer = await exchange(running.port, request(b"", fields, method="GET", target=target, length=False))
        return answer.json


# ResourceServer


@case(ResourceServer, "resource", first=(RESOURCE, (200, 401)), changed=(OTHER, (401, 200)))
async def resource(value: str) -> object:
    """Whether tokens for one and for the other are taken."""
    auth = resource_server(resource=value)
    return await status(auth, issued(aud=RESOURCE)), await status(auth, issued(aud=OTHER))


@case(ResourceServer, "verifiers", first=("issuer", (200, 401)), changed=("keys", (401, 200)))
async def verifiers(value: str) -> object:
    given = ApiKeys({HASHED: Grant("ci")}) if value == "keys" else JwtVerifier(ISSUER, RESOURCE, fetch=as_metadata())
    auth = ResourceServer(RESOURCE, given)
    return await status(auth, issued()), await status(auth, f"Bearer {SECRET.reveal()}")


def as_metadata() -> Web:
    """A web whose metadata says where the keys are."""
    said = {"issuer": ISSUER, "jwks_uri": JWKS_URI, "introspection_endpoint": ENDPOINT}
    return Web({METADATA: page(said), JWKS_URI: page(jwks(jwk(key("EC")))), ENDPOINT: page(active())})


@case(ResourceServer, "certificates", default=401, changed=("listed", 200))
async def certificates(value: str | None) -> object:
    """What somebody gets who shows a certificate and no token."""
    with folder() as place:
        authority = Authority(place)
        leaf, alice = authority.leaf(), authority.leaf(("alice.example",), client=True)
        tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key, client_ca=authority.pem)
        listed = None if value is None else Certificates({"alice.example": Grant("alice")})
        context = trusting(authority)
        context.load_cert_chain(alice.certificate, alice.key)
        async with serving(made(resource_server(certificates=listed)), token=None, tls=tls) as running:
            async with connected(running.port, ssl=context) as wire:
                await wire.send(message(running.port, call("who"), None))
                return (await wire.response()).status


@case(ResourceServer, "scopes", default=200, changed=(("all",), 403))
async def scopes(value: tuple[str, ...]) -> object:
    return await status(resource_server(scopes=value), issued(scope="read"))


@case(ResourceServer, "scopes_supported", default=((), None), changed=(("read",), (("read",), ["read"])))
async def scopes_supported(value: tuple[str, ...] | None) -> object:
    """What the challenge and the metadata name."""
    auth = resource_server(scopes_supported=value)
    async with serving(made(auth), token=None) as running:
        named = challenge(await use(running.port, "who", as_=None)).scope
    return named, (await metadata(auth)).get("scopes_supported")


@case(ResourceServer, "hierarchy", default=403, changed=({"all": ["read"]}, 200))
async def hierarchy(value: Any) -> object:
    return await status(resource_server(hierarchy=value), issued(scope="all"), "read")


@case(ResourceServer, "dpop", default=(200, "Bearer"), changed=("require", (401, "DPoP")))
async def dpop(value: Any) -> object:
    """What an unbound token gets, and how who shows none is asked."""
    auth = resource_server(dpop=value)
    async with serving(made(auth), token=None) as running:
        answers = [await use(running.port, "who", as_=given) for given in (issued(), None)]
        return answers[0].status, challenge(answers[1]).scheme


@case(ResourceServer, "dpop_nonce", default=(200, False), changed=(True, (401, True)))
async def dpop_nonce(value: bool) -> object:
    mine = DpopKey.generate()
    given = issued(cnf={"jkt": mine.thumbprint}).removeprefix("Bearer ")
    async with serving(made(resource_server(dpop_nonce=value)), token=None) as running:
        proof = mine.proof("POST", RESOURCE, access_token=given, now=time.time())
        answer = await exchange(running.port, message(running.port, call("who"), f"DPoP {given}", dpop=proof))
        return answer.status, answer.get("dpop-nonce") is not None


@case(ResourceServer, "revoked", default=200, changed=(lambda principal, token_id: token_id == "t1", 401))
async def revoked(value: Any) -> object:
    return await status(resource_server(revoked=value), issued(jti="t1"))


@case(ResourceServer, "recheck", default=[200, 200], changed=(1.0, [200, 401]))
async def recheck(value: float) -> object:
    """What a token gets that is revoked after its first use, a little more than a second later."""
    gone: list[bool] = []
    auth = resource_server(recheck=value, revoked=lambda principal, token_id: bool(gone))
    async with serving(made(auth), token=None) as running:
        mine = issued()
        found = [(await use(running.port, "who", as_=mine)).status]
        gone.append(True)
        await asyncio.sleep(1.1)
        return [*found, (await use(running.port, "who", as_=mine)).status]


class Exchanging:
    """Gives a token for any other."""

    async def exchange(self, subject_token: Secret, **what: Any) -> TokenSet:
        return TokenSet(access_token=Secret(f"for {what['resource']}"), expires_at=time.time() + 300)


@case(ResourceServer, "exchange", default="ConfigurationError", changed=(Exchanging(), f"for {OTHER}"))
async def exchange_(value: Any) -> object:
    async with serving(made(resource_server(exchange=value)), token=None) as running:
        return text(await use(running.port, "upstream", as_=issued()))


@case(ResourceServer, "failures_per_minute", default=[401] * 6, changed=(3, [401] * 3 + [429] * 3))
async def failures_per_minute(value: int) -> object:
    async with serving(made(resource_server(failures_per_minute=value)), token=None) as running:
        return [(await use(running.port, "who", as_=f"Bearer bad{number}")).status for number in range(6)]


@case(ResourceServer, "name", default=None, changed=("Notes", "Notes"))
async def name(value: str | None) -> object:
    return (await metadata(resource_server(name=value))).get("resource_name")


@case(ResourceServer, "documentation", default=None, changed=("https://docs.example.com/", "https://docs.example.com/"))
async def documentation(value: str | None) -> object:
    return (await metadata(resource_server(documentation=value))).get("resource_documentation")


@case(ResourceServer, "fetch", first=("with keys", 200), changed=("without", 503))
async def fetch(value: str) -> object:
    """What an issuer that is given by its URL is found with."""
    found = as_metadata() if value == "with keys" else Web()
    return await status(ResourceServer(RESOURCE, ISSUER, fetch=found), issued())


# JwtVerifier


async def judged(given: str, *, private: Any = None, **settings: Any) -> int:
    """What a token gets where its verifier has these settings."""
    documents = web(jwk(private or key("EC")))
    settings = {"jwks_uri": JWKS_URI, "fetch": documents, **settings}
    settings = {name: value for name, value in settings.items() if value is not None}
    checking = JwtVerifier(settings.pop("issuer", ISSUER), settings.pop("audience", RESOURCE), **settings)
    return await status(ResourceServer(RESOURCE, checking), given)


@case(JwtVerifier, "issuer", first=(ISSUER, (200, 401)), changed=(f"{ISSUER}/2", (401, 200)))
async def jwt_issuer(value: str) -> object:
    return await judged(issued(), issuer=value), await judged(issued(iss=f"{ISSUER}/2"), issuer=value)


@case(JwtVerifier, "audience", first=(RESOURCE, (200, 401)), changed=([RESOURCE, OTHER], (200, 200)))
async def jwt_audience(value: Any) -> object:
    return await judged(issued(), audience=value), await judged(issued(aud=OTHER), audience=value)


@case(JwtVerifier, "jwks_uri", default=[METADATA, JWKS_URI], changed=(JWKS_URI, [JWKS_URI]))
async def jwt_jwks_uri(value: str | None) -> object:
    """What is asked for."""
    documents = as_metadata()
    checking = JwtVerifier(ISSUER, RESOURCE, jwks_uri=value, fetch=documents)
    assert await status(ResourceServer(RESOURCE, checking), issued()) == 200
    return documents.asked


@case(JwtVerifier, "algorithms", default=200, changed=(["RS256"], 401))
async def jwt_algorithms(value: Any) -> object:
    return await judged(issued(), algorithms=value)


@case(JwtVerifier, "algorithms", default=401, changed=(["ES384"], 200))
async def jwt_other_algorithms(value: Any) -> object:
    private = key("EC", "1", "P-384")
    return await judged(issued(private, "ES384"), algorithms=value, private=private)


@case(JwtVerifier, "leeway", default=200, changed=(0.0, 401))
async def jwt_leeway(value: float) -> object:
    return await judged(issued(exp=time.time() - 5), leeway=value)


@case(JwtVerifier, "max_age", default=200, changed=(60.0, 401))
async def jwt_max_age(value: float) -> object:
    return await judged(issued(), max_age=value)


@case(JwtVerifier, "require_typ", default=200, changed=(True, 401))
async def jwt_require_typ(value: bool) -> object:
    return await judged(issued(header={"typ": "JWT"}), require_typ=value)


@case(JwtVerifier, "tenant_claim", default=("None/alice", 200), changed=("org", ("acme/alice", 401)))
async def jwt_tenant_claim(value: str | None) -> object:
    """Whose the caller is, and what a token without a tenant gets."""
    checking = JwtVerifier(ISSUER, RESOURCE, jwks_uri=JWKS_URI, tenant_claim=value, fetch=web())
    async with serving(made(ResourceServer(RESOURCE, checking)), token=None) as running:
        whose = text(await use(running.port, "who", as_=issued(org="acme")))
        return whose, (await use(running.port, "who", as_=issued())).status


@case(JwtVerifier, "fetch", first=("with keys", 200), changed=("without", 503))
async def jwt_fetch(value: str) -> object:
    return await judged(issued(), fetch=web() if value == "with keys" else Web())


@case(JwtVerifier, "jwks", default=200, changed=("another's", 401))
async def jwt_cache(value: str | None) -> object:
    cache = None if value is None else JwksCache(ISSUER, JWKS_URI, fetch=web(jwk(key("EC", "2"))))
    more: dict[str, Any] = {} if cache is None else {"jwks_uri": None, "fetch": None}
    return await judged(issued(), jwks=cache, **more)


# IntrospectionVerifier


async def introspected(answer: dict[str, Any], **settings: Any) -> int:
    """What a token gets about which this is said, where its verifier has these settings."""
    settings = {"endpoint": ENDPOINT, "fetch": Asked({"opaque": answer}), **settings}
    checking = IntrospectionVerifier(
        settings.pop("issuer", ISSUER),
        settings.pop("audience", RESOURCE),
        client=settings.pop("client", ClientSecret("mcp", "a-secret-of-this-server")),
        **settings,
    )
    return await status(ResourceServer(RESOURCE, checking), "Bearer opaque")


@case(IntrospectionVerifier, "issuer", first=(ISSUER, 200), changed=(f"{ISSUER}/2", 401))
async def introspection_issuer(value: str) -> object:
    return await introspected(active(iss=ISSUER), issuer=value)


@case(IntrospectionVerifier, "audience", first=(RESOURCE, 401), changed=([RESOURCE, OTHER], 200))
async def introspection_audience(value: Any) -> object:
    return await introspected(active(aud=OTHER), audience=value)


@case(IntrospectionVerifier, "client", first=("one", "Basic b25lOnM="), changed=("two", "Basic dHdvOnM="))
async def introspection_client(value: str) -> object:
    """How the server shows who it is."""
    documents = as_metadata()
    checking = IntrospectionVerifier(ISSUER, RESOURCE, client=ClientSecret(value, "s"), fetch=documents)
    assert await status(ResourceServer(RESOURCE, checking), "Bearer opaque") == 200
    return documents.headers[0]["Authorization"]


@case(IntrospectionVerifier, "endpoint", default=[METADATA, ENDPOINT], changed=(ENDPOINT, [ENDPOINT]))
async def introspection_endpoint(value: str | None) -> object:
    """What is asked."""
    documents = as_metadata()
    client = ClientSecret("mcp", "s")
    checking = IntrospectionVerifier(ISSUER, RESOURCE, client=client, endpoint=value, fetch=documents)
    assert await status(ResourceServer(RESOURCE, checking), "Bearer opaque") == 200
    return documents.asked


@case(IntrospectionVerifier, "cache", default=[200, 401], changed=(60.0, [200, 200]))
async def introspection_cache(value: float) -> object:
    """What a token gets that is taken back after its first use, where a verdict is believed for a second."""
    said = Asked({"opaque": active()})
    client = ClientSecret("mcp", "s")
    checking = IntrospectionVerifier(ISSUER, RESOURCE, client=client, endpoint=ENDPOINT, cache=value, fetch=said)
    async with serving(made(ResourceServer(RESOURCE, checking, recheck=1.0)), token=None) as running:
        found = [(await use(running.port, "who", as_="Bearer opaque")).status]
        said.answers.clear()
        await asyncio.sleep(1.1)
        return [*found, (await use(running.port, "who", as_="Bearer opaque")).status]


@case(IntrospectionVerifier, "tenant_claim", default=200, changed=("org", 401))
async def introspection_tenant_claim(value: str | None) -> object:
    return await introspected(active(), tenant_claim=value)


@case(IntrospectionVerifier, "dangerously_any_audience", default=401, changed=("they are for us alone", 200))
async def introspection_any_audience(value: str) -> object:
    return await introspected(active(aud=None), dangerously_any_audience=value)


@case(IntrospectionVerifier, "fetch", first=("with an answer", 200), changed=("without", 503))
async def introspection_fetch(value: str) -> object:
    return await introspected({}, fetch=Asked({"opaque": active()}) if value == "with an answer" else Web())


# Server


@case(Server, "auth", default=(401, False), changed=("given", (200, True)))
async def server_auth(value: str | None) -> object:
    """What a token of the issuer gets, and whether who shows none is told where to get one."""
    auth = None if value is None else resource_server()
    async with serving(made(auth), token=None) as running:
        told = await use(running.port, "who", as_=None)
        return (await use(running.port, "who", as_=issued())).status, b"resource_metadata" in repr(told.fields).encode()


@case(Server, "authorize", default=("error", "result"), changed=(lambda access: access.name == "bare", ("result",) * 2))
async def server_authorize(value: Any) -> object:
    """What a tool gets that declares no rule, on a protected server, and one that does."""
    async with serving(made(resource_server(), authorize=value), token=None) as running:
        answers = [(await use(running.port, tool, as_=issued())).json for tool in ("bare", "who")]
        return tuple("result" if "result" in each else "error" for each in answers)


OFFERED = ServerCapabilities(tools=ListChangedCapability(list_changed=True))


@case(Server, "capabilities", default=(200, True), changed=(OFFERED, (404, False)))
async def server_capabilities(value: Any) -> object:
    """What a listing of resources gets, and whether they are advertised."""
    async with serving(made(resource_server(), capabilities=value), token=None) as running:
        listed = await ask(running.port, "resources/list", as_=issued())
        found = await exchange(running.port, message(running.port, modern("server/discover"), issued()))
        return listed.status, "resources" in json.loads(found.body)["result"]["capabilities"]
