"""Tokens that only their authorization server can read: it is asked (RFC 7662).

Rules of this file:
- `active` is `true` or the token is refused; an answer that is none of RFC 7662 is no answer, and lets nobody in.
- An answer counts for a minute at most and never past `exp` (section 4); a no counts for seconds. What is remembered,
  and how much is asked at once, is bounded.
- What is not for this server's issuer is not shown to it: an API key of ours, a JWT of another issuer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from ... import events
from ...errors import ClientError, ConfigurationError, ParseError
from ...policy.limits import Limits
from ...protocol.json import decoder
from ..metadata import AuthorizationServerMetadata
from ..requests import TokenRequest
from ..urls import check_url
from .api_keys import PREFIX
from .claims import ClaimRules, audiences
from .decisions import Decisions, fingerprint
from .issuer import DocumentError, document_of, issuer_fetch, issuer_metadata
from .jwt import unverified_issuer
from .verifier import MAX_CHARS, TokenRefused, Verified, VerifierUnavailable

if TYPE_CHECKING:
    from ...safe.fetch import SafeFetch
    from ..client.authentication import ClientAuthentication

__all__ = ["IntrospectionVerifier"]

MAX_CACHE: Final = 60.0
_REFUSED_FOR: Final = 10.0
_AT_ONCE: Final = 64
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]++=*+")
_FORM: Final = "application/x-www-form-urlencoded"
_KINDS: Final = frozenset({"bearer", "dpop"})

_decode = decoder(Limits(json_depth=16, json_nodes=20_000, json_members=1_000, json_items=10_000))


class IntrospectionVerifier:
    """Asks the authorization server about tokens. A `TokenVerifier`.

    Args:
        issuer: the authorization server.
        audience: the identifier of this server in `aud`, or several. A token without it is refused.
        client: how this server shows the authorization server who it is, which RFC 7662 section 2.1 demands.
        endpoint: where to ask; None: where the issuer's metadata says (`introspection_endpoint`).
        cache: seconds for which a yes counts, 60 at most. A `ResourceServer` keeps verdicts for `recheck` seconds by
            itself, so that this is for use without one.
        tenant_claim: the member that names the tenant. A token without it is refused.
        dangerously_any_audience: why `aud` need not name this server: the authorization server gives its tokens for
            this server alone, say. Empty: it must.
        fetch: in place of a fetcher that reaches the public Internet and the hosts of `issuer` and `endpoint`.

    Raises:
        ConfigurationError: an argument is missing or not of its form.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Iterable[str],
        *,
        client: ClientAuthentication,
        endpoint: str | None = None,
        cache: float = 0.0,
        tenant_claim: str | None = None,
        dangerously_any_audience: str = "",
        fetch: SafeFetch | None = None,
    ) -> None:
        if not 0 <= cache <= MAX_CACHE:
            raise ConfigurationError(f"IntrospectionVerifier.cache: 0 to {MAX_CACHE:g} seconds")
        named = audiences(audience, "IntrospectionVerifier: audience")
        if dangerously_any_audience and not dangerously_any_audience.strip():
            raise ConfigurationError("IntrospectionVerifier.dangerously_any_audience: a reason that says something")
        self._rules = ClaimRules(
            verifier="IntrospectionVerifier",
            issuer=issuer,
            issuer_needed=False,
            subject_needed=False,
            audience=frozenset() if dangerously_any_audience else named,
            leeway=0.0,
            max_age=None,
            tenant_claim=tenant_claim,
        )
        self._server: AuthorizationServerMetadata | None = None
        if endpoint is not None:
            try:
                check_url(endpoint, "IntrospectionVerifier.endpoint")
            except ValueError as exc:
                raise ConfigurationError(str(exc)) from None
            self._server = AuthorizationServerMetadata(issuer=issuer, introspection_endpoint=endpoint)
        if client.method == "none":
            raise ConfigurationError("IntrospectionVerifier.client: one with a credential (RFC 7662 section 2.1)")
        if dangerously_any_audience:
            events.record("policy.relaxed", f"dangerously_any_audience: {dangerously_any_audience}")
        self._endpoint = endpoint
        self._client = client
        self._fetch = fetch
        self._good: Decisions[Verified] = Decisions(cache)
        self._bad: Decisions[str] = Decisions(_REFUSED_FOR)
        self._asking: dict[bytes, asyncio.Task[Verified]] = {}

    @property
    def issuer(self) -> str:
        """The authorization server that is asked."""
        return self._rules.issuer

    def accepts(self, token: str) -> bool:
        """Whether it may be a token of our authorization server: it has the form of one, and is not known to be
        something else."""
        if len(token) > MAX_CHARS or not _TOKEN.fullmatch(token) or token.startswith(PREFIX):
            return False
        return unverified_issuer(token) in (None, self._rules.issuer)

    def verify(self, token: str, now: float) -> Verified | Awaitable[Verified]:
        """Check a token. Awaitable unless the answer is remembered.

        Raises:
            TokenRefused: it is not taken.
            VerifierUnavailable: the authorization server gives no answer.
        """
        if not self.accepts(token):
            raise TokenRefused("it has not the form of a token of this issuer")
        name = fingerprint(token)
        good = self._good.get(name, now)
        if good is not None and now < good.expires:
            return good
        bad = self._bad.get(name, now)
        if bad is not None:
            raise TokenRefused(bad)
        asking = self._asking.get(name)
        if asking is None:
            if len(self._asking) >= _AT_ONCE:
                raise VerifierUnavailable(f"{_AT_ONCE} tokens are being asked about")
            asking = asyncio.get_running_loop().create_task(self._decide(token, name, now))
            self._asking[name] = asking
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        # Who goes away does not take the answer from those who wait for the same one.
        return asyncio.shield(asking)

    async def _decide(self, token: str, name: bytes, now: float) -> Verified:
        try:
            answer = await self._ask(token, now)
        except (ClientError, DocumentError) as exc:
            if self._endpoint is None:
                self._server = None  # what the metadata said may be old
            events.record(
                "auth.unavailable",
                f"introspection at {self._rules.issuer}: {exc}",
                setting="IntrospectionVerifier.endpoint",
            )
            raise VerifierUnavailable(f"the authorization server cannot be asked: {exc}") from None
        try:
            verified = self._read(answer, now)
        except TokenRefused as exc:
            self._bad.put(name, exc.reason, now)
            raise
        self._good.put(name, verified, now)
        return verified

    def _read(self, answer: dict[str, object], now: float) -> Verified:
        if answer["active"] is False:
            raise TokenRefused("its authorization server says that it is not active")
        kind = answer.get("token_type")
        if kind is not None and not (type(kind) is str and kind.lower() in _KINDS):
            raise TokenRefused("token_type is not that of an access token")
        verified = self._rules.verified(answer, now)
        if type(kind) is str and kind.lower() == "dpop" and (not verified.issued_for or not verified.issued_for.jkt):
            raise TokenRefused("token_type is DPoP, and cnf has no jkt")
        return verified

    async def _ask(self, token: str, now: float) -> dict[str, object]:
        """What the authorization server says: an object whose `active` is true or false."""
        fetch = self._fetch = self._fetch or issuer_fetch(self._rules.issuer, self._endpoint)
        server = self._server
        if server is None:
            server = self._server = await issuer_metadata(fetch, self._rules.issuer)
        # What the token endpoint takes says nothing of this one: the method is the operator's.
        server = replace(server, token_endpoint_auth_methods_supported=(self._client.method,))
        endpoint = server.introspection_endpoint
        if endpoint is None:
            raise DocumentError("the metadata of the issuer has no introspection_endpoint")
        # A form with the client's authentication: of a token request, this is all that matters here.
        form = TokenRequest("", "", MappingProxyType({"token": token, "token_type_hint": "access_token"}))
        form, headers = self._client.apply(form, server, endpoint, now)
        answer = await fetch.post(
            endpoint, form.form(), media_type=_FORM, headers={"Accept": "application/json", **headers}
        )
        try:
            members = _decode(document_of(answer))
        except ParseError as exc:
            raise DocumentError(exc.message) from None
        if type(members) is not dict or type(cast("dict[str, object]", members).get("active")) is not bool:
            raise DocumentError("the answer is none of RFC 7662: active is neither true nor false")
        return cast("dict[str, object]", members)
