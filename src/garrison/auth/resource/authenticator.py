"""The authenticator of a protected listener: from the head of a request to who sends it.

Rules of this file:
- A verdict is kept for `ResourceServer.recheck` seconds and never past the token's end, by a digest of the credential.
  A token that comes again costs one digest and one look-up; one that is bound to a key has its proof checked each time.
- What cannot be told at once (keys to fetch, an authorization server to ask) is asked once for all that wait.
- Whatever is wrong with a token, its sender reads the same words. The reason is in the security event.
- An address that gets tokens wrong too often is not looked at for a while: a flood of bad tokens costs no signature.
- What cannot be verified is refused, with 503 where the fault is not the token's.

RFC 6750 sections 2 and 3; RFC 9449 section 7; RFC 9728 section 5.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, cast, final

from ... import events
from ...errors import (
    AuthorizationFailed,
    BadRequest,
    ConfigurationError,
    Forbidden,
    Overloaded,
    Unauthenticated,
)
from ...policy.secret import Secret
from ..challenge import WwwAuthenticate
from ..errors import OAuthError
from .throttle import Throttle
from .verifier import TokenRefused, VerifierUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...policy.principal import Principal
    from ...transports.http.exchange import Head
    from ..dpop import ProofVerifier
    from .server import ResourceServer
    from .upstream import UpstreamTokens
    from .verifier import TokenVerifier, Verified

__all__ = ["TokenAuthenticator", "TokenCredential"]

_CREDENTIALS: Final = re.compile(rb"([A-Za-z]+) ([A-Za-z0-9\-._~+/]++=*+)")
_MOST_TOKEN: Final = 16 * 1024
_KEPT: Final = 10_000
"""Verdicts that are kept, of each kind."""
_BAD_FOR: Final = 5.0
"""Seconds for which a token that had to be asked about stays refused."""
_ASK_TIMEOUT: Final = 15.0
_LOOK: Final = 1.0


@final
class TokenCredential:
    """A token that was verified, as long as it holds. It shows nobody the token."""

    __slots__ = ("_authenticator", "_token", "due", "expires", "key", "principal", "thumbprint", "verifier")

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        key: bytes,
        token: Secret,
        verifier: TokenVerifier,
        found: Verified,
        due: float,
    ) -> None:
        self._authenticator = authenticator
        self._token = token
        self.key = key
        self.verifier = verifier
        self.principal: Principal = found.principal
        self.expires = found.expires
        self.thumbprint = None if found.issued_for is None else found.issued_for.jkt
        self.due = due

    def __repr__(self) -> str:
        return f"TokenCredential({self.principal!r})"

    def left(self, now: float) -> float:
        """See `transports.peer.Credential`. Has the token verified again when that is due."""
        if self.expires <= now:
            return 0.0
        if self.due <= now:
            self._authenticator.verify_again(self, self._token)
            return min(_LOOK, self.expires - now)
        if self._authenticator.is_asking(self.key):
            return min(_LOOK, self.expires - now)
        return min(self.expires, self.due) - now

    async def upstream(self, resource: str, audience: str | None, scopes: frozenset[str]) -> Secret:
        """A token for another server in place of this one. See `Context.upstream_token`."""
        kept = self._authenticator.upstream
        if kept is None:
            raise ConfigurationError("ResourceServer(exchange=...) says where tokens for other servers come from")
        if self.left(time.time()) <= 0.0:
            raise AuthorizationFailed("The caller's own token has ended")
        return await kept.get(self.key, self._token, resource, audience, scopes, self.expires)


class TokenAuthenticator:
    """Finds out who asks, for one listener. A `gate.authentication.Authenticator`.

    Args:
        server: what protects it.
        path: the endpoint, whose URL is the identifier of the resource.
        identity: the name in a client's certificate, where certificates are asked for.
        clock: the time, in seconds of `time.time`.
    """

    lasting = False

    def __init__(
        self,
        server: ResourceServer,
        *,
        path: str,
        identity: Callable[[Mapping[str, object]], str | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._path = path.encode()
        self._identity = identity
        self._clock = clock
        self._good: OrderedDict[bytes, TokenCredential] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, TokenRefused]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[None]] = {}
        self._throttle = Throttle(server.failures_per_minute)
        self._proofs: ProofVerifier | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.upstream: UpstreamTokens | None = None
        if server.exchange is not None:
            from .upstream import UpstreamTokens

            self.upstream = UpstreamTokens(server.exchange, clock)

    def authenticate(self, head: Head) -> None:
        """See `gate.authentication.Authenticator`."""
        head.pending = None
        given = head.fields.get(b"authorization")
        if given is None:
            self._without_token(head)
            return
        if b"access_token=" in head.query:
            raise self._malformed()
        key = hashlib.sha256(given).digest()
        known = self._good.get(key)
        now = self._clock()
        if known is None or known.due <= now or known.expires <= now:
            known = self._examine(head, given, key, now)
            if known is None:
                return
        if known.thumbprint is not None:
            self._check_proof(head, given, known, now)
        if self._server.scopes:
            self._check_scopes(known.principal)
        head.principal = known.principal
        head.credential = known

    def close(self) -> None:
        """Stop asking anybody."""
        for task in tuple(self._tasks):
            task.cancel()
        if self.upstream is not None:
            self.upstream.close()

    # Challenges

    def challenge(self, error: OAuthError | None = None, *, scopes: Iterable[str] = ()) -> bytes:
        """Header lines that say what is needed: one challenge for each scheme that is taken."""
        server = self._server
        base = WwwAuthenticate(server.metadata_url, error=error, scope=tuple(scopes))
        lines = b"" if server.dpop == "require" else b"www-authenticate: %b\r\n" % str(base).encode("latin-1")
        if server.dpop == "require" or error in (OAuthError.INVALID_DPOP_PROOF, OAuthError.USE_DPOP_NONCE):
            from ..dpop import ALGORITHMS

            bound = WwwAuthenticate(
                server.metadata_url,
                scheme="DPoP",
                error=error,
                scope=base.scope,
                parameters={"algs": " ".join(ALGORITHMS)},
            )
            lines = b"www-authenticate: %b\r\n" % str(bound).encode("latin-1")
        return lines

    def insufficient(self, scopes: Iterable[str]) -> bytes:
        """Header lines for a request that needs further scopes (RFC 6750 section 3.1)."""
        return self.challenge(OAuthError.INSUFFICIENT_SCOPE, scopes=scopes)

    def _without_token(self, head: Head) -> None:
        """A request without a token: known by its certificate, or by nothing."""
        certificates, certificate = self._server.certificates, head.peer.certificate
        if certificates is None or certificate is None or self._identity is None:
            refused = Unauthenticated("An access token is required", hint="Authorization: Bearer")
            refused.challenge = self.challenge(scopes=self._server.scopes_supported)
            raise refused
        now = self._clock()
        name = self._identity(certificate)
        principal = None if name is None or head.peer.expires <= now else certificates.principal(name)
        if name is None or principal is None:
            refused = Unauthenticated("The client's certificate is nobody's here", hint="Certificates")
            refused.challenge = self.challenge(scopes=self._server.scopes_supported)
            raise refused
        if self._server.scopes:
            self._check_scopes(principal)
        from .certificates import CertificateCredential

        head.principal = principal
        head.credential = CertificateCredential(certificates, name, head.peer.expires, self._server.recheck)

    def _refused(
        self, head: Head, reason: str, error: OAuthError = OAuthError.INVALID_TOKEN, *, counted: bool = False
    ) -> Unauthenticated:
        """The one answer to every token that is not taken. `counted`: as a failure of who showed it first."""
        address = head.client or head.peer.address
        if not counted:
            self._throttle.failed(address, self._clock())
        events.record("auth.token_refused", reason, peer=address)
        refused = Unauthenticated("The access token is not valid")
        refused.told = True
        refused.challenge = self.challenge(error, scopes=self._server.scopes_supported)
        return refused

    # Tokens

    def _examine(self, head: Head, given: bytes, key: bytes, now: float) -> TokenCredential | None:
        """The credential of a token that is not known; None where it has to be waited for.

        Raises:
            Refused: it is not taken.
        """
        bad = self._bad.get(key)
        if bad is not None and now < bad[0]:
            if isinstance(bad[1], VerifierUnavailable):
                raise self._unavailable(bad[1].reason)
            raise self._refused(head, bad[1].reason, counted=True)
        address = head.client or head.peer.address
        known = self._good.get(key)
        # What was good a moment ago is looked at again, whatever its neighbours get wrong.
        wait = self._throttle.wait(address, now) if known is None or known.expires <= now else 0.0
        if wait > 0.0:
            slowed = Overloaded("Too many failed attempts", hint="ResourceServer.failures_per_minute", status=429)
            slowed.retry_after = math.ceil(wait)
            raise slowed
        token = self._token(head, given)
        bound = given[:5].lower() == b"dpop "
        asking = self._asking.get(key)
        if asking is not None:
            head.pending = asyncio.shield(asking)
            return None
        try:
            verifier = next((each for each in self._server.verifiers if each.accepts(token)), None)
            if verifier is None:
                raise TokenRefused("no verifier takes a token of this form or issuer")
            found = verifier.verify(token, now)
            if isinstance(found, Awaitable):
                head.pending = self._ask(key, Secret(token), verifier, found, bound=bound, address=address)
                return None
            self._check_binding(found, bound=bound)
            gone = self._gone(found)
            if gone is not False:
                head.pending = self._ask(key, Secret(token), verifier, found, gone, bound=bound, address=address)
                return None
        except VerifierUnavailable as exc:
            raise self._unavailable(exc.reason) from None
        except TokenRefused as exc:
            raise self._refused(head, exc.reason) from None
        except Exception as exc:  # whatever an operator's verifier raises must let no token pass
            raise self._unavailable(_failed(exc)) from exc
        return self._keep(key, Secret(token), verifier, found, now)

    def _token(self, head: Head, given: bytes) -> str:
        """The token in an Authorization field.

        Raises:
            Refused: there is none, or not one.
        """
        scheme = given.partition(b" ")[0].lower()
        if scheme not in (b"bearer", b"dpop"):
            refused = Unauthenticated("An access token is required", hint="Authorization: Bearer")
            refused.challenge = self.challenge(scopes=self._server.scopes_supported)
            raise refused
        match = _CREDENTIALS.fullmatch(given)
        if match is None:
            raise self._malformed()
        if len(match[2]) > _MOST_TOKEN:
            raise self._refused(head, "longer than 16 KiB")
        return match[2].decode("ascii")

    def _malformed(self) -> BadRequest:
        """The answer to a token in another place or form. Of several ways to send one, a request uses one."""
        malformed = BadRequest("One access token in the Authorization field, after one space")
        malformed.challenge = self.challenge(OAuthError.INVALID_REQUEST, scopes=self._server.scopes_supported)
        return malformed

    def _check_binding(self, found: Verified, *, bound: bool) -> None:
        """Whether a token is shown in the way that it was made for.

        Raises:
            TokenRefused: it is not.
        """
        held = found.issued_for
        if held is not None and held.x5t_s256 is not None:
            raise TokenRefused("bound to a client certificate, which is not compared here")
        if held is None and (bound or self._server.dpop == "require"):
            raise TokenRefused("not bound to a key")

    def _check_scopes(self, principal: Principal) -> None:
        """Whether a token has what every token must have.

        Raises:
            Refused: it has not.
        """
        server = self._server
        if not server.scopes <= server.granted(principal.scopes):
            refused = Forbidden("The access token does not allow this", hint="ResourceServer.scopes")
            refused.challenge = self.insufficient(sorted(server.scopes))
            raise refused

    def _gone(self, found: Verified) -> Literal[False] | Awaitable[bool]:
        """Whether a token was revoked.

        Raises:
            TokenRefused: it was.
        """
        ask = self._server.revoked
        if ask is None:
            return False
        try:
            gone = ask(found.principal, found.token_id)
        except Exception as exc:  # the operator's function: what it raises must not let a token pass
            raise VerifierUnavailable(f"ResourceServer.revoked failed ({type(exc).__name__})") from exc
        if isinstance(gone, Awaitable):
            return gone
        _check_gone(gone)
        return False

    def _keep(self, key: bytes, token: Secret, verifier: TokenVerifier, found: Verified, now: float) -> TokenCredential:
        """Believe a verdict for a while. An older one of the same token is renewed, for what stands on it."""
        known = self._good.get(key)
        due = now + self._server.recheck
        if known is not None:
            bound_to = None if found.issued_for is None else found.issued_for.jkt
            same = known.principal == found.principal and known.thumbprint == bound_to
            if same and known.principal.scopes <= found.principal.scopes:
                known.principal, known.expires, known.due = found.principal, found.expires, due
                self._good.move_to_end(key)
                return known
            known.expires = 0.0  # it is somebody else's now, or allows less: what stands on it ends
        known = self._good[key] = TokenCredential(self, key, token, verifier, found, due)
        if len(self._good) > _KEPT:
            self._good.popitem(last=False)
        return known

    def _unavailable(self, reason: str) -> Overloaded:
        events.record("auth.unavailable", reason)
        refused = Overloaded("Tokens cannot be verified now", hint="see the log for the authorization server")
        refused.told = True
        return refused

    # What has to be waited for

    def _ask(
        self,
        key: bytes,
        token: Secret,
        verifier: TokenVerifier,
        found: Verified | Awaitable[Verified],
        gone: Awaitable[bool] | None = None,
        *,
        bound: bool,
        address: str = "",
    ) -> Awaitable[None]:
        """Wait for a verdict, once for all who ask about the same token. A bad one counts against the address."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._asking[key] = done
        task = loop.create_task(self._settle(key, token, verifier, found, gone, done, bound=bound, address=address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(done)

    async def _settle(
        self,
        key: bytes,
        token: Secret,
        verifier: TokenVerifier,
        found: Verified | Awaitable[Verified],
        gone: Awaitable[bool] | None,
        done: asyncio.Future[None],
        *,
        bound: bool,
        address: str,
    ) -> None:
        """Put the verdict where it is looked for."""
        refusal: TokenRefused | None = None
        try:
            async with asyncio.timeout(_ASK_TIMEOUT):
                known = await found if isinstance(found, Awaitable) else found
                self._check_binding(known, bound=bound)
                verdict = self._gone(known) if gone is None else gone
                _check_gone(verdict if verdict is False else await verdict)
                self._keep(key, token, verifier, known, self._clock())
        except TokenRefused as exc:
            refusal = exc
            if address and not isinstance(exc, VerifierUnavailable):  # also where whoever asked has left
                self._throttle.failed(address, self._clock())
        except TimeoutError:
            refusal = VerifierUnavailable("no verdict in time")
        except Exception as exc:  # noqa: BLE001 - whatever an operator's function raises must let no token pass
            refusal = VerifierUnavailable(_failed(exc))
        finally:
            if refusal is not None:
                self._condemn(key, refusal)
            self._asking.pop(key, None)
            if not done.done():
                done.set_result(None)

    def _condemn(self, key: bytes, refusal: TokenRefused) -> None:
        unavailable = isinstance(refusal, VerifierUnavailable)
        self._bad[key] = (self._clock() + (_LOOK if unavailable else _BAD_FOR), refusal)
        if len(self._bad) > _KEPT:
            self._bad.popitem(last=False)
        known = self._good.pop(key, None)
        if known is not None:
            known.expires = 0.0
            events.record("auth.credential_ended", refusal.reason)

    def is_asking(self, key: bytes) -> bool:
        """Whether a verdict is waited for."""
        return key in self._asking

    def verify_again(self, known: TokenCredential, token: Secret) -> None:
        """Have a token that something open stands on verified again."""
        now = self._clock()
        known.due = now + self._server.recheck
        self._good[known.key] = known
        if known.key in self._asking:
            return
        bound = known.thumbprint is not None
        try:
            found = known.verifier.verify(token.reveal(), now)
            if isinstance(found, Awaitable):
                self._ask(known.key, token, known.verifier, found, bound=bound)
                return
            gone = self._gone(found)
            if gone is not False:
                self._ask(known.key, token, known.verifier, found, gone, bound=bound)
                return
        except TokenRefused as exc:
            self._condemn(known.key, exc)
            return
        except Exception as exc:  # noqa: BLE001 - as above; and who looks after the others must not be stopped by it
            self._condemn(known.key, VerifierUnavailable(_failed(exc)))
            return
        self._keep(known.key, token, known.verifier, found, now)

    # Proofs

    def _check_proof(self, head: Head, given: bytes, known: TokenCredential, now: float) -> None:
        """Whether the sender holds the key that a token is bound to (RFC 9449 section 4.3).

        Raises:
            Refused: it does not show that.
        """
        from ..dpop import ProofRefused

        if given[:5].lower() != b"dpop ":
            raise self._refused(head, "bound to a key, and shown without its proof")
        proof = head.fields.get(b"dpop")
        if proof is None:
            raise self._refused(head, "no DPoP proof", OAuthError.INVALID_DPOP_PROOF)
        token = given[5:].decode("ascii")
        proofs = self._proofs or self._make_proofs()
        try:
            proofs.check(
                proof.decode("latin-1"),
                method=head.method.decode("ascii", "replace"),
                url=self._url(head),
                access_token=token,
                jkt_expected=known.thumbprint,
            )
        except ProofRefused as exc:
            if exc.code != OAuthError.USE_DPOP_NONCE:
                raise self._refused(head, exc.reason, OAuthError.INVALID_DPOP_PROOF) from None
            refused = Unauthenticated("The DPoP proof needs a nonce")
            refused.challenge = self.challenge(OAuthError.USE_DPOP_NONCE) + self._nonce()
            raise refused from None

    def _make_proofs(self) -> ProofVerifier:
        from ..dpop import Nonces, ProofVerifier

        given = self._server.dpop_nonce
        nonces = (Nonces() if given else None) if isinstance(given, bool) else given
        self._proofs = ProofVerifier(nonces=nonces, clock=self._clock)
        return self._proofs

    def _nonce(self) -> bytes:
        nonces = cast("ProofVerifier", self._proofs).nonces
        return b"" if nonces is None else b"dpop-nonce: %b\r\n" % nonces.current(self._clock()).encode("ascii")

    def _url(self, head: Head) -> str:
        """The URL of a request, from the configured identifier and never from Host."""
        resource = self._server.resource
        if head.path == self._path:
            return resource
        scheme, _, rest = resource.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}{(head.root + head.path).decode('latin-1')}"


def _failed(exc: Exception) -> str:
    return f"verification failed ({type(exc).__name__})"


def _check_gone(verdict: object) -> None:
    """Whether a token was revoked, as `ResourceServer.revoked` says.

    Raises:
        TokenRefused: it was.
        VerifierUnavailable: it is not said.
    """
    if verdict is True:
        raise TokenRefused("revoked")
    if verdict is not False:
        raise VerifierUnavailable("ResourceServer.revoked returned neither True nor False")
