"""DPoP (RFC 9449): a token that is of use only with a key, and the proofs of having that key.

Rules of this file:
- A proof is for one request: method, address without query, time, token. It is made anew for each, also for a retry.
- What is cheap is checked before what is dear, and nothing is remembered of a proof that was refused.
- A proof is taken once. Where there is no room to remember one, it is refused: the memory forgets by time alone.
- Addresses are compared after what RFC 3986 section 6.2.2.1 and 6.2.3 say of scheme, host, default port and empty path.
  Percent-encodings and dots stay as they are.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final, Protocol, cast, final

from ..errors import ConfigurationError
from ..policy.secret import Secret
from ..transports.http.url import HTTP, WEBSOCKET, Endpoint, UrlError, parse_endpoint
from .jws import ALGORITHMS as SIGNATURES
from .jws import JwsError, SigningKey, VerifyingKey, base64url, read_compact

__all__ = [
    "ALGORITHMS",
    "DpopKey",
    "NonceSource",
    "Nonces",
    "ProofRefused",
    "ProofVerifier",
    "ReplayCache",
    "nonce_of",
]

ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "Ed25519")
"""What proofs may be signed with where nothing else is said. None needs a key of which a proof grows long."""
_MOST: Final = 8 * 1024
"""Characters of a proof."""
_JTI: Final = 512
_KEYS: Final = 1024
"""Keys that are kept after they proved themselves; making one of a JWK takes as long as checking a signature."""
_NONCE: Final = re.compile(r"[!#-\[\]-~]{1,512}")
"""RFC 9449 section 8.1, and not without end."""


class ProofRefused(Exception):
    """A proof that proves nothing.

    Args:
        reason: for the log, never for the peer.
        code: what the peer is told: `invalid_dpop_proof`, or `use_dpop_nonce` beside a `DPoP-Nonce` field.
    """

    def __init__(self, reason: str, *, code: str = "invalid_dpop_proof") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@lru_cache(maxsize=256)
def _target(url: str) -> str:
    """The address of a request as it stands in `htu` (RFC 9449 section 4.2).

    A WebSocket handshake is an HTTP request: wss and ws count as https and http.

    Raises:
        UrlError: it is no address of an endpoint, or has a fragment.
    """
    found = parse_endpoint(url, WEBSOCKET if url[:2].lower() == "ws" else HTTP)
    scheme = "https" if found.secure else "http"
    return Endpoint(scheme, found.host, found.port, "").origin + found.target.partition("?")[0]


def _hash(access_token: Secret | str) -> str:
    text = access_token.reveal() if isinstance(access_token, Secret) else access_token
    return base64url(sha256(text.encode("utf-8", "surrogatepass")).digest())


@final
class DpopKey:
    """A key that tokens are bound to. Of ES256; one for each authorization server.

    Made by `generate` or `load`. Prints without the key.
    """

    __slots__ = ("_head", "_key")

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._head = key.segment({"typ": "dpop+jwt", "jwk": dict(key.public)})

    @classmethod
    def generate(cls) -> DpopKey:
        """A new key."""
        return cls(SigningKey.generate())

    @classmethod
    def load(cls, key: Secret) -> DpopKey:
        """A key that was kept.

        Args:
            key: what `export` gave: a private JWK.

        Raises:
            ConfigurationError: it is none. Nothing of it is repeated.
        """
        try:
            return cls(SigningKey.load(key, "ES256"))
        except JwsError as exc:
            raise ConfigurationError(f"DPoP key: {exc}") from None

    def export(self) -> Secret:
        """The key with its private part, to be kept in a credential store."""
        return self._key.export()

    @property
    def algorithm(self) -> str:
        """The algorithm of its proofs."""
        return self._key.algorithm

    @property
    def thumbprint(self) -> str:
        """`jkt`: the SHA-256 thumbprint of the public key (RFC 7638, RFC 9449 section 6.1)."""
        return self._key.thumbprint

    def proof(
        self, method: str, url: str, *, access_token: Secret | str | None = None, nonce: str | None = None, now: float
    ) -> str:
        """A new proof: the value of one `DPoP` field (RFC 9449 section 4.2).

        Args:
            method: of the request, in its own case.
            url: where the request goes; its query is left out of the proof.
            access_token: the token that goes with it; None at a token endpoint.
            nonce: the last one that this server gave.
            now: the time, in seconds of `time.time`.

        Raises:
            ConfigurationError: `url` is no address of an endpoint.
        """
        try:
            target = _target(url)
        except UrlError as exc:
            raise ConfigurationError(f"DPoP proof: {exc}") from None
        claims: dict[str, object] = {"jti": secrets.token_urlsafe(18), "htm": method, "htu": target, "iat": int(now)}
        if access_token is not None:
            claims["ath"] = _hash(access_token)
        if nonce is not None:
            claims["nonce"] = nonce
        return self._key.sign(self._head, claims)

    def __repr__(self) -> str:
        return f"DpopKey(thumbprint={self.thumbprint!r})"

    def __reduce__(self) -> str:
        raise TypeError("a DpopKey is not pickled")


def nonce_of(headers: Mapping[str, str]) -> str | None:
    """The nonce that a server sent, for the next proof to it (RFC 9449 sections 8 and 9).

    Args:
        headers: the fields of a response of any status, names in lower case.

    Returns:
        It, or None: there is none, there are two, or it is not of the form of section 8.1.
    """
    nonce = headers.get("dpop-nonce", "")
    return nonce if _NONCE.fullmatch(nonce) and "," not in nonce else None


class NonceSource(Protocol):
    """Where a server takes its nonces from."""

    def current(self, now: float) -> str:
        """The nonce to be sent."""
        ...

    def accepts(self, nonce: str, now: float) -> bool:
        """Whether a nonce is one of ours and still good."""
        ...


@final
class Nonces:
    """Nonces of a server that nobody has to remember: an HMAC over the time. Two periods each are good.

    Args:
        secret: 32 bytes or more, the same for all processes of one server; made anew when not given.
        period: seconds after which the next one is sent.

    Raises:
        ConfigurationError: an argument is not of its form.
    """

    __slots__ = ("_period", "_secret")

    def __init__(self, secret: bytes | None = None, *, period: float = 120.0) -> None:
        if secret is not None and len(secret) < 32:
            raise ConfigurationError("Nonces.secret must have 32 bytes or more")
        if not 1 <= period <= 3600:
            raise ConfigurationError("Nonces.period must be 1 to 3600 seconds")
        self._secret = secret or secrets.token_bytes(32)
        self._period = period

    def _of(self, period: int) -> str:
        return base64url(hmac_digest(self._secret, b"dpop-nonce:%d" % period, "sha256")[:18])

    def current(self, now: float) -> str:
        """The nonce of this period."""
        return self._of(int(now // self._period))

    def accepts(self, nonce: str, now: float) -> bool:
        """Whether it is the nonce of this period or the one before."""
        period, given = int(now // self._period), nonce.encode("utf-8", "surrogatepass")
        return any(compare_digest(given, self._of(each).encode()) for each in (period, period - 1))

    def __repr__(self) -> str:
        return f"Nonces(period={self._period:g})"

    def __reduce__(self) -> str:
        raise TypeError("Nonces are not pickled")


@dataclass(slots=True)
class _Slice:
    """What was seen of proofs that end in one slice of time."""

    seen: set[bytes] = field(default_factory=lambda: set[bytes]())
    of_key: dict[str, int] = field(default_factory=lambda: dict[str, int]())


@final
class ReplayCache:
    """The proofs that were taken and could be shown again (RFC 9449 section 11.1), of one process.

    Where several processes answer for one address, let each client come to the same one, or expect one use per process.

    Args:
        most: proofs that are remembered at once, some 100 bytes each. When there is no room, no proof is taken.
        most_of_key: how many of them may be of one key, so that nobody uses up the room of all.

    Raises:
        ConfigurationError: an argument is not a positive number.
    """

    __slots__ = ("_most", "_most_of_key", "_slices")

    _WIDTH: Final = 30.0

    def __init__(self, most: int = 262_144, most_of_key: int = 65_536) -> None:
        if most < 1 or most_of_key < 1:
            raise ConfigurationError("ReplayCache: most and most_of_key must be positive")
        self._most = most
        self._most_of_key = most_of_key
        self._slices: dict[int, _Slice] = {}

    def __len__(self) -> int:
        return sum(len(each.seen) for each in self._slices.values())

    def take(self, jkt: str, jti: str, ends: float, now: float) -> None:
        """Take a proof for the first time.

        Args:
            jkt, jti: its key's thumbprint, and its own name.
            ends: when it is refused for its age, in seconds of `time.time`.
            now: the time.

        Raises:
            ProofRefused: it was seen, or there is no room to remember it.
        """
        for past in [index for index in self._slices if (index + 1) * self._WIDTH <= now]:
            del self._slices[past]
        name = sha256(f"{jkt}.{jti}".encode("utf-8", "surrogatepass")).digest()[:16]
        if any(name in each.seen for each in self._slices.values()):
            raise ProofRefused("the proof was used before")
        if len(self) >= self._most:
            raise ProofRefused("no room to remember proofs (ReplayCache.most)")
        if sum(each.of_key.get(jkt, 0) for each in self._slices.values()) >= self._most_of_key:
            raise ProofRefused("no room to remember proofs of this key (ReplayCache.most_of_key)")
        part = self._slices.setdefault(int(ends // self._WIDTH), _Slice())
        part.seen.add(name)
        part.of_key[jkt] = part.of_key.get(jkt, 0) + 1


@final
class ProofVerifier:
    """Checks proofs as RFC 9449 section 4.3 says.

    Args:
        algorithms: what a proof may be signed with; asymmetric ones only. They go into the challenge as `algs`.
        window: seconds that the time of a proof may be off, either way; at most 300.
        nonces: demand a nonce of this source in each proof.
        replays: the memory of proofs that were taken; one of its own when not given.
        clock: the time, in seconds of `time.time`.

    Raises:
        ConfigurationError: an argument is not of its form.
    """

    __slots__ = ("_clock", "_keys", "_replays", "_window", "algorithms", "nonces")

    def __init__(
        self,
        algorithms: Iterable[str] = ALGORITHMS,
        *,
        window: float = 60.0,
        nonces: NonceSource | None = None,
        replays: ReplayCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.algorithms = tuple(algorithms)
        if not self.algorithms or not SIGNATURES.keys() >= set(self.algorithms):
            raise ConfigurationError(f"ProofVerifier.algorithms must be some of {', '.join(SIGNATURES)}")
        if not 1 <= window <= 300:
            raise ConfigurationError("ProofVerifier.window must be 1 to 300 seconds")
        self.nonces = nonces
        self._window = window
        self._replays = ReplayCache() if replays is None else replays
        self._clock = clock
        self._keys: dict[str, VerifyingKey] = {}

    def check(
        self, proof: str, *, method: str, url: str, access_token: Secret | str | None, jkt_expected: str | None
    ) -> str:
        """Take a proof, once.

        Args:
            proof: the value of the only `DPoP` field of a request; several joined by commas are none.
            method, url: of the request, as its sender saw it; a query of `url` is not looked at.
            access_token: the token beside it; None at a token endpoint.
            jkt_expected: the thumbprint that the token is bound to; None where none is known yet.

        Returns:
            The thumbprint of the key.

        Raises:
            ProofRefused: it proves nothing; `code` says whether a nonce is all that is missing.
            UrlError: `url` is no address of an endpoint.
        """
        now = self._clock()
        try:
            header, claims, signed, signature = read_compact(proof, _MOST)
            key = self._key(proof.partition(".")[0], header)
        except JwsError as exc:
            raise ProofRefused(str(exc)) from None
        if jkt_expected is not None and key.thumbprint != jkt_expected:
            raise ProofRefused("the proof is of another key than the token")
        jti, made = self._claims(claims, method, _target(url), now)
        if access_token is not None and claims.get("ath") != _hash(access_token):
            raise ProofRefused("ath: the proof is for another token")
        if not key.verify(signed, signature):
            raise ProofRefused("the signature is not that of the key")
        self._remember(proof.partition(".")[0], key)
        if self.nonces is not None:
            nonce = claims.get("nonce")
            if not isinstance(nonce, str) or not self.nonces.accepts(nonce, now):
                raise ProofRefused("nonce: none, or not one of the last ones", code="use_dpop_nonce")
        self._replays.take(key.thumbprint, jti, made + self._window, now)
        return key.thumbprint

    def _key(self, segment: str, header: Mapping[str, object]) -> VerifyingKey:
        known = self._keys.get(segment)
        if known is not None:
            return known
        algorithm, jwk = header.get("alg"), header.get("jwk")
        if header.get("typ") != "dpop+jwt":
            raise ProofRefused("typ is not dpop+jwt")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            raise ProofRefused(f"alg is none of {', '.join(self.algorithms)} (ProofVerifier.algorithms)")
        if not isinstance(jwk, dict):
            raise ProofRefused("jwk is missing")
        return VerifyingKey(cast("dict[str, object]", jwk), algorithm)

    def _remember(self, segment: str, key: VerifyingKey) -> None:
        if len(self._keys) >= _KEYS and segment not in self._keys:
            self._keys.clear()
        self._keys[segment] = key

    def _claims(self, claims: Mapping[str, object], method: str, target: str, now: float) -> tuple[str, float]:
        """`jti` and `iat`, after all that says which request the proof is for."""
        jti, htu, made = claims.get("jti"), claims.get("htu"), claims.get("iat")
        if not isinstance(jti, str) or not 0 < len(jti) <= _JTI:
            raise ProofRefused(f"jti is not a text of 1 to {_JTI} characters")
        if claims.get("htm") != method:
            raise ProofRefused("htm: the proof is for another method")
        if not isinstance(htu, str) or "?" in htu or not _same(htu, target):
            raise ProofRefused("htu: the proof is for another address")
        if not isinstance(made, int | float) or abs(now - made) > self._window:
            raise ProofRefused("iat is missing, or too far off (ProofVerifier.window)")
        return jti, float(made)


def _same(htu: str, target: str) -> bool:
    try:
        return htu == target or _target(htu) == target
    except UrlError:
        return False
