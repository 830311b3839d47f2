"""The token endpoint: one function for each grant type (RFC 6749, 7523, 8693, 8707, 9449).

Rules of this file:
- First the client, then the proof of its key, then the grant. A grant that is refused gives nothing and says why.
- There is no grant that takes a person's password, and none without a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from ...auth.errors import OAuthError
from .assertions import Assertions, claims_of
from .clients import Clients
from .http import Reply, Request
from .ledger import Family, Ledger
from .people import CLIENT_CREDENTIALS, CODE, JWT_BEARER, REFRESH, TOKEN_EXCHANGE, DevClient, TrustedIssuer
from .settings import Settings, narrowed
from .signing import Signer
from .tokens import ACCESS_TOKEN, ID_JAG, ID_JAG_TYP, ID_TOKEN, Tokens
from .wire import Refusal, form, json_reply, scope_words

if TYPE_CHECKING:
    from ...auth.dpop import ProofVerifier

__all__ = ["GRANTS", "TokenEndpoint"]

GRANTS: Final = (CODE, REFRESH, CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE)
_LONGEST: Final = 3600.0
"""Seconds that an assertion of another issuer is good for at most."""

Form = Mapping[str, str]


class TokenEndpoint:
    """Answers `token`.

    Args:
        settings: of the server.
        clients: who may ask.
        ledger, tokens, signer: what was granted, and what grants more.
        assertions: reads what others signed.
        issuers: the others.
        proofs: checks DPoP proofs; gives the nonces that are sent.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clients: Clients,
        ledger: Ledger,
        tokens: Tokens,
        signer: Signer,
        assertions: Assertions,
        issuers: Iterable[TrustedIssuer],
        proofs: Callable[[], ProofVerifier],
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._ledger = ledger
        self._tokens = tokens
        self._signer = signer
        self._assertions = assertions
        self._proofs = proofs
        self.issuers: dict[str, TrustedIssuer] = {issuer.issuer: issuer for issuer in issuers}
        self._grants: dict[str, Callable[[Request, Form], Awaitable[dict[str, object]]]] = {
            CODE: self._code,
            REFRESH: self._refresh,
            CLIENT_CREDENTIALS: self._client_credentials,
            JWT_BEARER: self._jwt_bearer,
            TOKEN_EXCHANGE: self._token_exchange,
        }

    async def answer(self, request: Request) -> Reply:
        """A token, or the error.

        Raises:
            Refusal: no token.
        """
        given = form(request)
        grant = self._grants.get(given.get("grant_type", ""))
        if grant is None:
            if "grant_type" not in given:
                raise Refusal(OAuthError.INVALID_REQUEST, "grant_type is missing")
            raise Refusal(OAuthError.UNSUPPORTED_GRANT_TYPE, f"grant_type must be one of {', '.join(GRANTS)}")
        members = await grant(request, given)
        return json_reply(members, headers=self._nonce())

    async def _client(self, request: Request, given: Form, grant: str) -> DevClient:
        client = await self._clients.authenticate(request, given)
        if not client.may(grant):
            raise Refusal(OAuthError.UNAUTHORIZED_CLIENT, "the client may not use this grant type")
        return client

    # DPoP

    def _nonce(self) -> tuple[tuple[str, str], ...]:
        nonces = self._proofs().nonces if self._settings.dpop_nonces else None
        return (("DPoP-Nonce", nonces.current(self._settings.clock())),) if nonces is not None else ()

    def _key(self, request: Request, bound: str | None = None) -> str | None:
        """The thumbprint of the key that is proven (RFC 9449 section 5); None where none is shown, and none needed."""
        from ...auth.dpop import ProofRefused

        proof, settings = request.headers.get("dpop"), self._settings
        if proof is None or settings.dpop == "off":
            if settings.dpop == "required" or bound is not None:
                raise Refusal("invalid_dpop_proof", "a DPoP proof is needed", headers=self._nonce())
            return None
        try:
            return self._proofs().check(
                proof, method="POST", url=settings.endpoint("token"), access_token=None, jkt_expected=bound
            )
        except ProofRefused as exc:
            raise Refusal(exc.code, exc.reason, headers=self._nonce()) from None

    # The grants

    async def _code(self, request: Request, given: Form) -> dict[str, object]:
        client = await self._client(request, given, CODE)
        key = self._key(request)
        family = self._ledger.redeem(
            given.get("code", ""),
            client_id=client.client_id,
            redirect_uri=given.get("redirect_uri"),
            verifier=given.get("code_verifier", ""),
        )
        self._settings.resource(given.get("resource"), family.resource)
        if family.key is not None and family.key != key:
            raise Refusal(OAuthError.INVALID_GRANT, "the code is bound to another DPoP key")
        if not client.confidential:
            family.key = key  # RFC 9449 section 5: the refresh tokens of a public client are bound as well
        more = self._tokens.refresh(family) if client.may(REFRESH) else {}
        return self._tokens.access(family, key) | more

    async def _refresh(self, request: Request, given: Form) -> dict[str, object]:
        client = await self._client(request, given, REFRESH)
        shown = given.get("refresh_token", "")
        family = self._ledger.refresh_family(shown, client.client_id)
        key = self._key(request, family.key)
        self._settings.resource(given.get("resource"), family.resource)
        scopes = scope_words(given.get("scope")) or family.scopes
        if not set(scopes) <= set(family.scopes):
            raise Refusal(OAuthError.INVALID_SCOPE, "scope names more than was granted")
        self._ledger.spend(shown)
        return self._tokens.access(family, key, scopes=scopes) | self._tokens.refresh(family)

    async def _client_credentials(self, request: Request, given: Form) -> dict[str, object]:
        client = await self._client(request, given, CLIENT_CREDENTIALS)
        if not client.confidential:
            raise Refusal(OAuthError.UNAUTHORIZED_CLIENT, "client_credentials is for clients that authenticate")
        key = self._key(request)
        resource = self._settings.resource(given.get("resource"))
        scopes = self._settings.exact_scopes(given.get("scope"), client.scopes)
        family = Family(client.client_id, client.client_id, resource, scopes, tenant=client.tenant)
        return self._tokens.access(family, key)

    async def _jwt_bearer(self, request: Request, given: Form) -> dict[str, object]:
        assertion = given.get("assertion")
        if assertion is None:
            raise Refusal(OAuthError.INVALID_REQUEST, "assertion is missing")
        issuer = self.issuers.get(str(claims_of(assertion).get("iss")))
        if issuer is None:
            raise Refusal(OAuthError.INVALID_GRANT, "assertion: its issuer is not trusted here")
        if issuer.id_jag:
            return await self._id_jag(request, given, issuer, assertion)
        return await self._workload(request, given, issuer, assertion)

    async def _id_jag(self, request: Request, given: Form, issuer: TrustedIssuer, assertion: str) -> dict[str, object]:
        """Enterprise-managed authorization, section 5."""
        client = await self._client(request, given, JWT_BEARER)
        claims = self._read(assertion, issuer, ID_JAG_TYP, once=True)
        resource, said, scope = claims.get("resource"), claims.get("sub"), claims.get("scope")
        if claims.get("client_id") != client.client_id:
            raise Refusal(OAuthError.INVALID_GRANT, "assertion: client_id is not the client that sends it")
        user = self._settings.users.get(said) if isinstance(said, str) else None
        if user is None:
            raise Refusal(OAuthError.INVALID_GRANT, "assertion: sub is not known here")
        try:
            bound = self._settings.resource(resource if isinstance(resource, str) else None)
        except Refusal as exc:
            raise Refusal(OAuthError.INVALID_GRANT, f"assertion: {exc.description}") from None
        if "resource" in given:
            self._settings.resource(given["resource"], bound)
        allowed = scope_words(scope) if isinstance(scope, str) else None
        asked = self._settings.asked_scopes(given.get("scope")) or allowed or ()
        key = self._key(request)
        family = Family(client.client_id, user.name, bound, narrowed(asked, allowed, user.scopes), tenant=user.tenant)
        return self._tokens.access(family, key)

    async def _workload(
        self, request: Request, given: Form, issuer: TrustedIssuer, assertion: str
    ) -> dict[str, object]:
        """Workload identity federation: the platform's token is all that the client has (RFC 7523 section 2.1)."""
        claims = self._read(assertion, issuer, None, once=False)
        subject = claims.get("sub")
        client_id = issuer.workloads.get(subject) if isinstance(subject, str) else None
        if client_id is None:
            raise Refusal(OAuthError.INVALID_GRANT, "assertion: sub is not known here")
        if given.get("client_id", client_id) != client_id:
            raise Refusal(OAuthError.INVALID_GRANT, "assertion: sub stands for another client")
        client = await self._clients.find(client_id)
        if client.grants is not None and JWT_BEARER not in client.grants:
            raise Refusal(OAuthError.UNAUTHORIZED_CLIENT, "the client may not use this grant type")
        key = self._key(request)
        resource = self._settings.resource(given.get("resource"))
        scopes = self._settings.exact_scopes(given.get("scope"), client.scopes)
        family = Family(client_id, str(subject), resource, scopes, tenant=client.tenant)
        return self._tokens.access(family, key)

    def _read(self, assertion: str, issuer: TrustedIssuer, typ: str | None, *, once: bool) -> dict[str, object]:
        # A platform gives the same token to its workload until it ends, so that one is not counted.
        audiences = (self._settings.issuer,) if typ else (self._settings.issuer, self._settings.endpoint("token"))
        return self._assertions.read(
            assertion,
            issuer.keys(),
            issuer=issuer.issuer,
            audiences=audiences,
            typ=typ,
            error=OAuthError.INVALID_GRANT,
            longest=_LONGEST,
            once=once,
        )

    async def _token_exchange(self, request: Request, given: Form) -> dict[str, object]:
        """RFC 8693: an ID-JAG for an ID token, or an access token for another resource."""
        client = await self._client(request, given, TOKEN_EXCHANGE)
        wanted, shown = given.get("requested_token_type", ACCESS_TOKEN), given.get("subject_token")
        if shown is None:
            raise Refusal(OAuthError.INVALID_REQUEST, "subject_token is missing")
        kinds = (wanted, given.get("subject_token_type"))
        if kinds == (ID_JAG, ID_TOKEN):
            return self._for_id_jag(client, given, shown)
        if kinds == (ACCESS_TOKEN, ACCESS_TOKEN):
            return self._for_access(request, client, given, shown)
        raise Refusal(OAuthError.INVALID_REQUEST, "these token types are not exchanged here")

    def _for_id_jag(self, client: DevClient, given: Form, shown: str) -> dict[str, object]:
        settings = self._settings
        claims = self._assertions.read(
            shown,
            self._signer.jwks,
            issuer=settings.issuer,
            audiences=(client.client_id,),
            typ=None,
            error=OAuthError.INVALID_GRANT,
            longest=_LONGEST,
            once=False,
        )
        user, audience = settings.users.get(str(claims.get("sub"))), given.get("audience")
        if user is None:
            raise Refusal(OAuthError.INVALID_GRANT, "subject_token: sub is not known here")
        if audience is None:
            raise Refusal(OAuthError.INVALID_TARGET, "audience is missing: name the other authorization server")
        resource = settings.resource(given.get("resource"))
        scopes = narrowed(settings.asked_scopes(given.get("scope")), user.scopes)
        jag = self._tokens.id_jag(
            subject=user.name,
            audience=audience,
            client_id=client.elsewhere.get(audience, client.client_id),
            resource=resource,
            scope=" ".join(scopes) or None,
            claims={},
        )
        said = claims_of(jag)
        answer: dict[str, object] = {
            "issued_token_type": ID_JAG,
            "access_token": jag,
            "token_type": "N_A",
            "expires_in": int(str(said["exp"])) - int(str(said["iat"])),
        }
        return answer | ({"scope": " ".join(scopes)} if scopes else {})

    def _for_access(self, request: Request, client: DevClient, given: Form, shown: str) -> dict[str, object]:
        found = self._ledger.access(shown)
        if found is None:
            raise Refusal(OAuthError.INVALID_REQUEST, "subject_token is not good")
        key = self._key(request)
        resource = self._settings.resource(given.get("resource") or given.get("audience"))
        subject = str(found.claims.get("sub"))
        user, tenant = self._settings.users.get(subject), found.claims.get("tenant")
        scopes = self._settings.exact_scopes(given.get("scope"), user.scopes if user is not None else None)
        family = Family(client.client_id, subject, resource, scopes, tenant=tenant if isinstance(tenant, str) else None)
        actor = {"act": {"sub": client.client_id}}
        return self._tokens.access(family, key, more=actor) | {"issued_token_type": ACCESS_TOKEN}
