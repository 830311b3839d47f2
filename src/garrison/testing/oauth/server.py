"""An authorization server for development and tests, on loopback, in memory, with a list of people to pick from.

Rules of this file:
- It refuses every address that is not loopback, and says at the start that it is not for production: whoever reaches it
  may sign in as anybody.
- Otherwise it is strict: PKCE with S256, resource indicators, exact redirect URIs, `iss` in answers, codes and refresh
  tokens that are used once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, cast

import msgspec

from ...auth.errors import OAuthError
from ...auth.metadata import AuthorizationServerMetadata
from ...errors import ConfigurationError
from .assertions import ALGORITHMS, Assertions
from .clients import METHODS, Clients
from .consent import Consent
from .documents import Documents
from .grants import GRANTS, TokenEndpoint
from .http import LoopbackHttp, Reply, Request
from .ledger import Ledger
from .people import DevClient, TrustedIssuer, User
from .settings import Settings
from .signing import Algorithm, Signer
from .tokens import Tokens
from .wire import Refusal, form, json_reply

if TYPE_CHECKING:
    from joserfc.jwk import Key

    from ...auth.dpop import ProofVerifier

__all__ = ["DevAuthorizationServer"]

_LOG: Final = 10_000
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"
_NOTICE: Final = "Development authorization server at {}: for tests and this machine, never for production.\n"

Endpoint = Callable[[Request], Awaitable[Reply]]
Discovery = Literal["oauth", "openid"]


class DevAuthorizationServer:
    """An OAuth 2.1 authorization server for development and tests.

        async with DevAuthorizationServer(users=[User("alice", scopes=["mail:read"])]) as authorization:
            server = ResourceServer("https://mcp.example.com/mcp", JwtVerifier(authorization.issuer, ...))

    Args:
        users: who may sign in; one `alice` where none is given. Everybody who reaches the server may be each of them.
        clients: registered programs.
        scopes: `scopes_supported`; empty for every scope.
        default_scopes: granted where none is asked for.
        resources: the resources that tokens may be for; None for all.
        trusted_issuers: whose assertions are taken for tokens.
        auto_approve: the name of a user who agrees to everything at once, without a page: for tests.
        path: of the issuer, as `/tenant`; empty for none.
        host, port: where to listen: `127.0.0.1` or `::1`, and 0 for a free port.
        algorithm: `ES256` or `RS256`.
        opaque_tokens: access tokens that only introspection explains, in place of JWTs (RFC 9068).
        refresh_tokens: give refresh tokens; where `offline_access` is among `scopes`, only with it.
        registration: dynamic registration (RFC 7591).
        documents: clients may be known by the URL of a document about them.
        dpop: `offered`, `required` or `off` (RFC 9449); `dpop_nonces` demands nonces in proofs.
        discovery: under which names metadata is published: `oauth` (RFC 8414), `openid`, or both.
        token_seconds, code_seconds: how long access tokens and codes are good.
        clock: the time, in seconds of `time.time`.

    Attributes:
        settings: the same settings; tests may change them while the server runs.
        requests: what was asked, the newest last.
        metadata: members of the metadata document that replace its own; None takes one out.
        on_reply: sees each request with its answer and gives the answer that is sent.

    Raises:
        InsecureConfigurationError: a host that is not loopback.
        ConfigurationError: another argument is not of its form.
    """

    def __init__(
        self,
        users: Iterable[User] = (),
        *,
        clients: Iterable[DevClient] = (),
        scopes: Iterable[str] = (),
        default_scopes: Iterable[str] = (),
        resources: Iterable[str] | None = None,
        trusted_issuers: Iterable[TrustedIssuer] = (),
        auto_approve: str | None = None,
        path: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        algorithm: Algorithm = "ES256",
        opaque_tokens: bool = False,
        refresh_tokens: bool = True,
        registration: bool = False,
        documents: bool = True,
        dpop: Literal["offered", "required", "off"] = "offered",
        dpop_nonces: bool = False,
        discovery: Iterable[Discovery] = ("oauth", "openid"),
        token_seconds: float = 300.0,
        code_seconds: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if path and (not path.startswith("/") or path.endswith("/") or "?" in path or "#" in path):
            raise ConfigurationError("path begins with a slash and does not end with one")
        people = {user.name: user for user in users} or {"alice": User("alice")}
        if auto_approve is not None and auto_approve not in people:
            raise ConfigurationError("auto_approve names nobody of users")
        self.settings = Settings(
            users=people,
            scopes=tuple(scopes),
            default_scopes=tuple(default_scopes),
            resources=None if resources is None else frozenset(resources),
            auto_approve=auto_approve,
            refresh_tokens=refresh_tokens,
            registration=registration,
            opaque_tokens=opaque_tokens,
            dpop=dpop,
            dpop_nonces=dpop_nonces,
            token_seconds=token_seconds,
            code_seconds=code_seconds,
            clock=clock,
        )
        self.requests: list[Request] = []
        self.metadata: dict[str, object] = {}
        self.on_reply: Callable[[Request, Reply], Reply] | None = None
        self._http = LoopbackHttp(self._serve, host)
        self._port = port
        self._path = path
        self._discovery = frozenset(discovery)
        self._documents = Documents(clock) if documents else None
        self._signer = Signer(algorithm)
        self._ledger = Ledger(clock)
        self._tokens = Tokens(self.settings, self._signer, self._ledger)
        assertions = Assertions(clock)
        self._clients = Clients(self.settings, clients, self._documents, assertions)
        self._consent = Consent(self.settings, self._clients, self._ledger)
        self._grants = TokenEndpoint(
            self.settings,
            clients=self._clients,
            ledger=self._ledger,
            tokens=self._tokens,
            signer=self._signer,
            assertions=assertions,
            issuers=trusted_issuers,
            proofs=self._proofs,
        )
        self._proof_verifiers: dict[bool, ProofVerifier] = {}
        self._faults: dict[str, list[Refusal]] = {}
        self._endpoints: dict[str, Endpoint] = {
            "metadata": self._metadata,
            "jwks": self._jwks,
            "authorize": self._authorize,
            "consent": self._consent.consent,
            "token": self._grants.answer,
            "introspect": self._introspect,
            "revoke": self._revoke,
            "register": self._register,
        }
        self._paths: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        origin = await self._http.start(self._port)
        path = self._path
        self.settings.issuer = origin + path
        self._paths = {f"{path}/{name}": name for name in self._endpoints if name != "metadata"}
        where = [_OAUTH + path] if "oauth" in self._discovery else []
        where += [_OPENID + path, path + _OPENID] if "openid" in self._discovery else []
        self._paths |= dict.fromkeys(where, "metadata")
        sys.stderr.write(_NOTICE.format(self.issuer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._http.stop()

    # What a program sees

    @property
    def issuer(self) -> str:
        """Its identifier: the `iss` of its tokens. Empty until it listens."""
        return self.settings.issuer

    @property
    def jwks(self) -> dict[str, object]:
        """Its public keys."""
        return self._signer.jwks

    @property
    def key(self) -> Key:
        """The private key that signs now, of joserfc."""
        return self._signer.key

    @property
    def trusted_issuers(self) -> dict[str, TrustedIssuer]:
        """Whose assertions are taken, by issuer. May be changed."""
        return self._grants.issuers

    @property
    def auto_approve(self) -> str | None:
        """The user who agrees to everything at once. May be changed.

        Raises:
            ConfigurationError: on being set to nobody of the users.
        """
        return self.settings.auto_approve

    @auto_approve.setter
    def auto_approve(self, name: str | None) -> None:
        if name is not None and name not in self.settings.users:
            raise ConfigurationError("auto_approve names nobody of users")
        self.settings.auto_approve = name

    def add_client(self, client: DevClient) -> None:
        """Register a client, in place of an older one of its id."""
        self._clients.add(client)

    def remove_client(self, client_id: str) -> None:
        """Forget a client."""
        self._clients.remove(client_id)

    def add_user(self, user: User) -> None:
        """Add a person, in place of an older one of the name."""
        self.settings.users[user.name] = user

    def issue(
        self,
        subject: str = "alice",
        scopes: Iterable[str] = (),
        audience: object = None,
        *,
        client_id: str | None = "dev-client",
        lifetime: float | None = None,
        typ: str = "at+jwt",
        header: Mapping[str, object] | None = None,
        key: Key | Mapping[str, str] | str | bytes | None = None,
        **claims: object,
    ) -> str:
        """An access token without any flow: a right one, or for tests a wrong one.

        Args:
            subject: `sub`. The tenant of a user of this name is named as well.
            scopes, audience, client_id: `scope`, `aud`, `client_id`.
            lifetime: seconds; negative for a token that has ended.
            typ, header: the kind, and members of the header in place of the usual ones; `alg` may be `none`.
            key: signs in place of the server's own: a key of joserfc, a private JWK, PEM, or bytes for HMAC.
            claims: further claims, and others in place of the usual ones. None leaves one out.
        """
        user = self.settings.users.get(subject)
        usual: dict[str, object] = {
            "sub": subject,
            "aud": audience,
            "client_id": client_id,
            "scope": " ".join(scopes) or None,
            "tenant": user.tenant if user is not None else None,
        }
        if lifetime is not None:
            usual["exp"] = int(self.settings.clock() + lifetime)
        return self._tokens.signed({**usual, **claims}, typ=typ, header=header, key=key)

    def issue_id_token(self, subject: str, client_id: str, **claims: object) -> str:
        """An ID token, as a sign-in at this server would give: what is exchanged for an ID-JAG."""
        return self._tokens.id_token(subject, client_id, claims)

    def issue_id_jag(
        self,
        subject: str,
        *,
        audience: str,
        client_id: str,
        resource: str,
        scopes: Iterable[str] = (),
        header: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """An identity assertion (ID-JAG) for another authorization server; `claims` as of `issue`."""
        return self._tokens.id_jag(
            subject=subject,
            audience=audience,
            client_id=client_id,
            resource=resource,
            scope=" ".join(scopes) or None,
            claims=claims,
            header=header,
        )

    def revoke(self, token: str) -> bool:
        """End a token: a refresh token with everything that came of its consent. False if it is not known."""
        return self._ledger.revoke(token)

    def rotate_keys(self, *, keep: bool = True) -> None:
        """Sign with a new key from now on. `keep` goes on publishing the older ones."""
        self._signer.rotate(keep=keep)

    def fail(
        self,
        endpoint: str,
        *,
        error: str = OAuthError.SERVER_ERROR,
        description: str = "a fault for a test",
        status: int | None = None,
        headers: Iterable[tuple[str, str]] = (),
        times: int = 1,
    ) -> None:
        """Let the next requests to an endpoint fail. `authorize` sends the error to the redirect URI.

        Args:
            endpoint: `metadata`, `jwks`, `authorize`, `token`, `introspect`, `revoke` or `register`.
            error, description, status, headers: of the answer.
            times: how often.

        Raises:
            ConfigurationError: there is no such endpoint.
        """
        if endpoint not in self._endpoints:
            raise ConfigurationError(f"endpoint must be one of {', '.join(self._endpoints)}")
        fault = Refusal(error, description, status=status, headers=tuple(headers))
        self._faults.setdefault(endpoint, []).extend([fault] * times)

    def asked(self, endpoint: str) -> list[Request]:
        """The requests that came to an endpoint."""
        return [request for request in self.requests if request.endpoint == endpoint]

    # Serving

    async def _serve(self, request: Request) -> Reply:
        request = replace(request, endpoint=self._paths.get(request.path, ""))
        del self.requests[: max(0, len(self.requests) - _LOG + 1)]
        self.requests.append(request)
        try:
            reply = await self._answer(request)
        except Refusal as refusal:
            reply = refusal.reply()
        return reply if self.on_reply is None else self.on_reply(request, reply)

    async def _answer(self, request: Request) -> Reply:
        endpoint = self._endpoints.get(request.endpoint)
        if endpoint is None or (request.endpoint == "register" and not self.settings.registration):
            return Reply(404)
        if request.endpoint != "authorize":
            fault = self._fault(request.endpoint)
            if fault is not None:
                raise fault
        return await endpoint(request)

    def _fault(self, endpoint: str) -> Refusal | None:
        waiting = self._faults.get(endpoint)
        return waiting.pop(0) if waiting else None

    async def _authorize(self, request: Request) -> Reply:
        return await self._consent.authorize(request, self._fault("authorize"))

    async def _metadata(self, request: Request) -> Reply:
        return _published(request, self._document())

    async def _jwks(self, request: Request) -> Reply:
        return _published(request, self.jwks)

    def _document(self) -> dict[str, object]:
        settings = self.settings
        at = settings.endpoint
        own = AuthorizationServerMetadata(
            issuer=settings.issuer,
            authorization_endpoint=at("authorize"),
            token_endpoint=at("token"),
            jwks_uri=at("jwks"),
            registration_endpoint=at("register") if settings.registration else None,
            revocation_endpoint=at("revoke"),
            introspection_endpoint=at("introspect"),
            scopes_supported=settings.scopes or None,
            response_types_supported=("code",),
            grant_types_supported=GRANTS,
            code_challenge_methods_supported=("S256",),
            token_endpoint_auth_methods_supported=METHODS,
            token_endpoint_auth_signing_alg_values_supported=ALGORITHMS,
            dpop_signing_alg_values_supported=self._proofs().algorithms if settings.dpop != "off" else None,
            authorization_response_iss_parameter_supported=True,
            client_id_metadata_document_supported=self._documents is not None,
        )
        members = cast("dict[str, object]", msgspec.json.decode(own.to_json()))
        members |= {
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self._signer.algorithm],
        }
        return {name: value for name, value in {**members, **self.metadata}.items() if value is not None}

    def _proofs(self) -> ProofVerifier:
        """With the nonces that are set; both kinds keep their memory."""
        from ...auth.dpop import Nonces, ProofVerifier

        wanted = self.settings.dpop_nonces
        if wanted not in self._proof_verifiers:
            nonces = Nonces() if wanted else None
            self._proof_verifiers[wanted] = ProofVerifier(nonces=nonces, clock=self.settings.clock)
        return self._proof_verifiers[wanted]

    async def _introspect(self, request: Request) -> Reply:
        """RFC 7662, for clients that authenticate."""
        given = form(request)
        client = await self._clients.authenticate(request, given)
        if not client.confidential:
            raise Refusal(OAuthError.INVALID_CLIENT, "introspection is for clients that authenticate")
        token = given.get("token", "")
        access, refresh = self._ledger.access(token), self._ledger.refresh(token)
        if access is not None:
            bound = "cnf" in access.claims
            return json_reply({"active": True, "token_type": "DPoP" if bound else "Bearer", **access.claims})
        if refresh is not None and refresh[0].client_id == client.client_id:
            return json_reply({"active": True, "client_id": client.client_id, "exp": int(refresh[1])})
        return json_reply({"active": False})

    async def _revoke(self, request: Request) -> Reply:
        """RFC 7009: what is not known is as good as revoked."""
        given = form(request)
        client = await self._clients.authenticate(request, given)
        if "token" not in given:
            raise Refusal(OAuthError.INVALID_REQUEST, "token is missing")
        self._ledger.revoke(given["token"], client.client_id)
        return Reply(200)

    async def _register(self, request: Request) -> Reply:
        if request.method != "POST":
            raise Refusal(OAuthError.INVALID_REQUEST, "only POST is served here", status=405)
        return json_reply(self._clients.register(request), status=201)


def _published(request: Request, members: object) -> Reply:
    if request.method not in ("GET", "HEAD"):
        return Reply(405, b"", (("Allow", "GET"),))
    fields = (("Content-Type", "application/json"), ("Cache-Control", "max-age=60"))
    return Reply(200, msgspec.json.encode(members), fields)
