"""The token endpoint of one authorization server, as one client asks it (RFC 6749 section 5, RFC 9449 section 5).

Rules of this file:
- One request is one post. It is repeated in one case alone, once: the server wants a nonce in the DPoP proof.
  No error leads to another grant, another method or another try.
- An answer counts when all of it is right: status, media type, strict JSON, a token of a form that can be sent, and the
  type of token that was asked for. What was asked to be bound to a key is not taken unbound.
- A peer's words are shown cleaned, and without any secret of the request in them.
"""

from __future__ import annotations

import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote_plus

import msgspec

from ...errors import AuthorizationFailed, ConfigurationError, ParseError
from ...policy.limits import Limits
from ...policy.secret import Secret
from ...protocol.json import decoder
from ..dpop import nonce_of
from ..errors import OAuthError
from ..requests import GRANT_TYPES, TokenRequest
from ..tokens import TokenSet
from .words import cleaned, error_code, refused

if TYPE_CHECKING:
    from ...safe.fetch import Fetched, SafeFetch
    from ..dpop import DpopKey
    from ..metadata import AuthorizationServerMetadata
    from .authentication import ClientAuthentication

__all__ = ["MAX_BYTES", "MAX_LIFETIME", "MAX_TOKEN", "TokenEndpoint"]

MAX_BYTES: Final = 256 * 1024
"""Bytes of an answer."""
MAX_TOKEN: Final = 16 * 1024
"""Characters of a token."""
MAX_LIFETIME: Final = 30 * 24 * 3600.0
"""Seconds that a token is believed to last, whatever the server says."""

_FORM: Final = "application/x-www-form-urlencoded"
_TOKEN: Final = re.compile(rf"[!-~]{{1,{MAX_TOKEN}}}")
_REFRESH: Final = re.compile(rf"[ -~]{{1,{MAX_TOKEN}}}")
_SCOPES: Final = re.compile(r"[ !#-\[\]-~]*+")
_SECRET_MEMBERS: Final = (
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "refresh_token",
    "subject_token",
    "token",
)
_WORD: Final = 15
"""Characters of a word that may stand in the name of an error by chance."""
_decode = decoder(Limits(json_depth=8, json_nodes=2_000, json_members=200, json_items=500))


class _Answer(msgspec.Struct, frozen=True):
    """A successful answer (RFC 6749 section 5.1, RFC 8693 section 2.2.1), its types checked."""

    access_token: str
    token_type: str
    expires_in: float | None = None
    refresh_token: str | None = None
    scope: str | None = None
    issued_token_type: str | None = None

    def __repr__(self) -> str:
        return "_Answer(***)"


class TokenEndpoint:
    """Gets tokens from one authorization server, for one client of it.

    Args:
        fetch: what posts; it says which hosts may be asked, and how long an answer may take.
        server: the authorization server.
        client: who asks, and how it shows that.
        dpop: the key that tokens shall be bound to; None for bearer tokens.
        allow_bearer: with `dpop`, take a bearer token too where the server gives one.
        clock: the time, in seconds of `time.time`.

    Raises:
        AuthorizationFailed: the server has no token endpoint, or knows no algorithm that the key signs with.
    """

    def __init__(
        self,
        fetch: SafeFetch,
        server: AuthorizationServerMetadata,
        client: ClientAuthentication,
        *,
        dpop: DpopKey | None = None,
        allow_bearer: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if server.token_endpoint is None:
            raise AuthorizationFailed(f"{server.issuer} has no token_endpoint in its metadata: it gives no tokens")
        known = server.dpop_signing_alg_values_supported
        if dpop is not None and known is not None and dpop.algorithm not in known:
            raise AuthorizationFailed(
                f"{server.issuer} takes DPoP proofs signed with {cleaned(', '.join(known))}, not {dpop.algorithm}: "
                "ask it for bearer tokens"
            )
        self.server = server
        self.client = client
        self._url = server.token_endpoint
        self._fetch = fetch
        self._dpop = dpop
        self._allow_bearer = allow_bearer
        self._clock = clock
        self._nonce: str | None = None

    async def request(self, request: TokenRequest) -> TokenSet:
        """Ask for an access token.

        Args:
            request: the grant.

        Returns:
            The token. Its `scopes` are those that were granted: what the answer says, or else what was asked for. A
            refresh token that the answer does not replace is kept.

        Raises:
            AuthorizationFailed: the server refuses (`error` is its code), or its answer cannot be used.
            FetchRefused, ConnectionFailed, ConnectionLost, RequestTimeout, ProtocolViolation: there is no answer.
            ConfigurationError: there is no such grant here, or the request is of another client.
        """
        answer = await self._ask(request)
        kind = answer.token_type.lower()
        if kind not in ("bearer", "dpop"):
            raise self._unusable("token_type is neither Bearer nor DPoP")
        if kind == "dpop" and self._dpop is None:
            raise self._unusable("the token is bound to a key, and none was shown")
        if kind == "bearer" and self._dpop is not None and not self._allow_bearer:
            raise self._unusable("the token is not bound to the DPoP key that was shown", "TokenEndpoint.allow_bearer")
        return self._tokens(request, answer, bound=kind == "dpop")

    async def assertion(self, request: TokenRequest, issued_token_type: str) -> Secret:
        """Ask, by a token exchange, for what is no access token but an assertion for another server.

        Args:
            request: the exchange.
            issued_token_type: what it has to be (RFC 8693 section 2.2.1).

        Returns:
            The assertion. To be used at once and not kept.

        Raises:
            As `request`; AuthorizationFailed also where the answer is anything else, as an access token.
        """
        answer = await self._ask(request)
        if answer.issued_token_type != issued_token_type:
            raise self._unusable(f"issued_token_type is not {issued_token_type}")
        if answer.token_type.lower() != "n_a":
            raise self._unusable("token_type is not N_A: an access token came where an assertion was asked for")
        return Secret(answer.access_token)

    async def revoke(self, token: Secret, hint: str) -> bool:
        """Tell the server that a token is not used any more (RFC 7009).

        Args:
            token: it.
            hint: `access_token` or `refresh_token`.

        Returns:
            False where the server has no revocation endpoint.

        Raises:
            AuthorizationFailed: the server did not do it.
            FetchRefused, ConnectionFailed, ConnectionLost, RequestTimeout, ProtocolViolation: there is no answer.
        """
        url = self.server.revocation_endpoint
        if url is None:
            return False
        answer, sent = await self._post(url, TokenRequest.about_token(token.reveal(), hint=hint), prove=False)
        if answer.status != 200:
            raise self._failure(answer, sent, "did not revoke the token")
        return True

    async def _ask(self, request: TokenRequest) -> _Answer:
        if request.grant_type not in GRANT_TYPES:
            raise ConfigurationError(f"grant_type must be one of {', '.join(sorted(GRANT_TYPES))}")
        answer, sent = await self._post(self._url, request, prove=True)
        wants_nonce = answer.status >= 400 and _code(answer) == OAuthError.USE_DPOP_NONCE
        if self._dpop is not None and wants_nonce and nonce_of(answer.headers) is not None:
            answer, sent = await self._post(self._url, request, prove=True)
        # Some servers report an error with status 200.
        if answer.status != 200 or _code(answer) is not None:
            raise self._failure(answer, sent, "gave no token")
        return self._read(answer)

    async def _post(self, url: str, request: TokenRequest, *, prove: bool) -> tuple[Fetched, set[str]]:
        """One attempt: its own client assertion, its own proof. Returns the secrets that were sent, too."""
        now = self._clock()
        shown, headers = self.client.apply(request, self.server, url, now)
        headers = {"Accept": "application/json", **headers}
        if prove and self._dpop is not None:
            headers["DPoP"] = self._dpop.proof("POST", url, nonce=self._nonce, now=now)
        answer = await self._fetch.post(url, shown.form(), media_type=_FORM, headers=headers)
        if prove:
            self._nonce = nonce_of(answer.headers) or self._nonce
        return answer, _secrets(shown, headers)

    def _read(self, answer: Fetched) -> _Answer:
        if answer.media_type != "application/json":
            raise self._unusable("the answer is not application/json")
        if len(answer.body) > MAX_BYTES:
            raise self._unusable(f"the answer has more than {MAX_BYTES} bytes")
        try:
            found = msgspec.convert(_decode(answer.body), _Answer)
        except ParseError as exc:
            raise self._unusable(exc.message) from None
        except msgspec.ValidationError as exc:
            raise self._unusable(str(exc)) from None  # the rule and the path, never a value
        if not _TOKEN.fullmatch(found.access_token):
            raise self._unusable(f"access_token is not 1 to {MAX_TOKEN} characters of visible ASCII without spaces")
        if found.refresh_token and not _REFRESH.fullmatch(found.refresh_token):
            raise self._unusable(f"refresh_token is not 1 to {MAX_TOKEN} characters of visible ASCII")
        if found.scope is not None and not _SCOPES.fullmatch(found.scope):
            raise self._unusable("scope has characters that RFC 6749 section 3.3 does not allow")
        if found.expires_in is not None and found.expires_in < 0:
            raise self._unusable("expires_in is negative")
        return found

    def _tokens(self, request: TokenRequest, answer: _Answer, *, bound: bool) -> TokenSet:
        scope = request.parameters.get("scope") if answer.scope is None else answer.scope
        refresh = answer.refresh_token or request.parameters.get("refresh_token")
        lasting = answer.expires_in
        return TokenSet(
            access_token=Secret(answer.access_token),
            token_type="DPoP" if bound else "Bearer",
            expires_at=None if lasting is None else self._clock() + min(lasting, MAX_LIFETIME),
            refresh_token=None if refresh is None else Secret(refresh),
            scopes=None if scope is None else frozenset(scope.split()),
            issued_token_type=answer.issued_token_type,
        )

    def _unusable(self, reason: str, setting: str = "") -> AuthorizationFailed:
        """The server gave something, and it is not taken."""
        return refused(f"The answer of {self.server.issuer} cannot be used: {reason}", setting=setting)

    def _failure(self, answer: Fetched, sent: set[str], what: str) -> AuthorizationFailed:
        """The server gave nothing, and perhaps says why."""
        if 300 <= answer.status < 400:
            return refused(f"{self.server.issuer} {what}: it redirects, and what was sent is for its endpoint alone")
        code = _code(answer)
        if code is None or any(len(secret) > _WORD and secret in code for secret in sent):
            return AuthorizationFailed(f"{self.server.issuer} {what}: status {answer.status}, without an OAuth error")
        description = _member(answer, "error_description")
        words = f" (it says: {cleaned(_without(description, sent))})" if description else ""
        return AuthorizationFailed(f"{self.server.issuer} {what}: {code}{words}", error=code)


def _member(answer: Fetched, name: str) -> str | None:
    """A text in the JSON of an error answer, where it is such."""
    if answer.media_type != "application/json" or len(answer.body) > MAX_BYTES:
        return None
    try:
        found = _decode(answer.body)
    except ParseError:
        return None
    value = cast("dict[str, object]", found).get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def _code(answer: Fetched) -> str | None:
    return error_code(_member(answer, "error") or "")


def _secrets(shown: TokenRequest, headers: Mapping[str, str]) -> set[str]:
    """What of a request is for its server alone."""
    found = {shown.parameters[name] for name in _SECRET_MEMBERS if name in shown.parameters}
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    found.add(credentials)
    if scheme == "Basic":
        with suppress(ValueError):  # it is of a class of the user's
            encoded = b64decode(credentials).decode().partition(":")[2]  # each part is form-encoded in it
            found |= {encoded, unquote_plus(encoded)}
    return found - {""}


def _without(text: str, sent: Iterable[str]) -> str:
    """A text without the secrets that were sent: a server that repeats them would put them into logs."""
    for secret in sent:
        text = text.replace(secret, "***")
    return text
