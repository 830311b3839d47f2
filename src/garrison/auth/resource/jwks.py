"""The keys of an issuer (RFC 7517): read, and kept for a while.

Rules of this file:
- A key is bound to algorithms when it is read: by its type, its curve, its `alg`, `use` and `key_ops`. A token can
  only name one of these (RFC 8725 section 3.1).
- A set with a secret in it is refused whole, whatever the secret: its issuer has lost it. A key that cannot be used
  for signatures is known by its name and verifies nothing. Two keys of one name verify nothing either.
- Who sends tokens cannot make us ask more often than once per cool-down.
- Keys that are too old are not used. While the issuer cannot be asked, the last ones count for `stale` seconds longer,
  and then nobody is let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from ... import events
from ...errors import ClientError, ConfigurationError, ParseError
from ...policy.limits import Limits
from ...protocol.json import decoder
from ..jws import ALGORITHMS, JwsError, VerifyingKey
from ..urls import check_issuer, check_url
from .issuer import DocumentError, fetch_document, issuer_fetch, issuer_metadata
from .verifier import VerifierUnavailable

if TYPE_CHECKING:
    from ...safe.fetch import SafeFetch

__all__ = ["DEFAULT_ALGORITHMS", "JwksCache", "KeySet", "Verify"]

Verify = Callable[[bytes, bytes], bool]
"""From what was signed and the signature to whether it is one."""

DEFAULT_ALGORITHMS: Final = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
"""Those that are taken where nothing else is said. `Ed25519` is the newer name of what most write as `EdDSA`."""

_KEYS: Final = 64
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RETRY: Final = 5.0
"""Seconds between attempts while there are no keys at all."""

_decode = decoder(Limits(json_depth=8, json_nodes=20_000, json_members=100, json_items=1_000))


class KeySet:
    """Keys of one issuer, each bound to what it may verify. Never changed.

    Args:
        named: by `kid`; of an empty mapping, the key is known and verifies nothing.
        unnamed: of the keys that have no `kid`.
    """

    __slots__ = ("_all", "named")

    def __init__(
        self, named: Mapping[str, Mapping[str, Verify]], unnamed: Collection[Mapping[str, Verify]] = ()
    ) -> None:
        self.named = named
        self._all = (*named.values(), *unnamed)

    def find(self, kid: str | None, algorithm: str) -> Verify | None:
        """What verifies a signature.

        Args:
            kid: the name of the key; None where the token names none, which is enough if one key alone fits.
            algorithm: one that is allowed.

        Returns:
            None: there is no such key, or it is not for this algorithm.
        """
        if kid is not None:
            return self.named.get(kid, {}).get(algorithm)
        fitting = [key[algorithm] for key in self._all if algorithm in key]
        return fitting[0] if len(fitting) == 1 else None

    @classmethod
    def read(cls, document: bytes, algorithms: Collection[str]) -> KeySet:
        """The keys of a document.

        Args:
            document: a JWK Set (RFC 7517 section 5). Keys that are not understood are passed over, as it asks.
            algorithms: those that are allowed, of `ALGORITHMS`.

        Raises:
            DocumentError: it is no JWK Set, it has too many keys, or it has a secret.
        """
        try:
            members = _decode(document)
        except ParseError as exc:
            raise DocumentError(exc.message) from None
        keys = cast("dict[str, object]", members).get("keys") if type(members) is dict else None
        if type(keys) is not list:
            raise DocumentError("the document is no JWK Set: it has no list of keys")
        entries = cast("list[object]", keys)
        if len(entries) > _KEYS:
            raise DocumentError(f"the JWK Set has more than {_KEYS} keys")
        found: dict[str | None, list[Mapping[str, Verify]]] = {}
        for each in entries:
            if type(each) is not dict:
                raise DocumentError("a key of the JWK Set is no object")
            jwk = cast("dict[str, object]", each)
            if not _SECRET.isdisjoint(jwk) or jwk.get("kty") == "oct":
                raise DocumentError("the JWK Set has a private or symmetric key, which must never be published")
            kid = jwk.get("kid")
            if kid is not None and type(kid) is not str:
                continue
            found.setdefault(kid, []).append(_bound(jwk, algorithms))
        unnamed = found.pop(None, [])
        return cls({kid: _only(keys) for kid, keys in found.items() if kid is not None}, unnamed)


def _only(keys: list[Mapping[str, Verify]]) -> Mapping[str, Verify]:
    """The one of these keys of one name that verifies something, if it is one."""
    useful = [key for key in keys if key]
    return useful[0] if len(useful) == 1 else {}


def _bound(jwk: Mapping[str, object], algorithms: Collection[str]) -> Mapping[str, Verify]:
    """What a key verifies, by algorithm; nothing where it cannot be used (RFC 7517 sections 4.2 to 4.4)."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or type(operations) is not list or "verify" not in operations:
        return {}
    bound: dict[str, Verify] = {}
    for name in algorithms:
        if jwk.get("alg", name) == name:
            with suppress(JwsError):
                bound[name] = VerifyingKey(jwk, name).verify
    return bound


class JwksCache:
    """The keys of one issuer, fetched when they are needed.

    Args:
        issuer: whose keys.
        uri: where they are; None: where the issuer's metadata says.
        algorithms: those that are allowed.
        fetch: in place of a fetcher that reaches the public Internet and the hosts of `issuer` and `uri`.
        fresh: seconds for which keys are used without asking.
        stale: seconds for which they are used longer while the issuer cannot be asked.
        cooldown: seconds between two fetches, whatever tokens come.

    Raises:
        ConfigurationError: an argument is not of its form.
    """

    def __init__(
        self,
        issuer: str,
        uri: str | None = None,
        *,
        algorithms: Collection[str] = DEFAULT_ALGORITHMS,
        fetch: SafeFetch | None = None,
        fresh: float = 600.0,
        stale: float = 3600.0,
        cooldown: float = 30.0,
    ) -> None:
        try:
            check_issuer(issuer, "issuer")
            if uri is not None:
                check_url(uri, "jwks_uri")
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        if not algorithms or not set(algorithms) <= ALGORITHMS.keys():
            raise ConfigurationError(f"JwksCache.algorithms: one or more of {', '.join(ALGORITHMS)}")
        if not (0 < cooldown <= fresh and stale >= 0):
            raise ConfigurationError("JwksCache: positive seconds, cooldown not longer than fresh; stale may be 0")
        self.issuer = issuer
        self._configured = self._uri = uri
        self._algorithms = tuple(algorithms)
        self._fetch = fetch
        self._fresh = fresh
        self._usable = fresh + stale
        self._cooldown = cooldown
        self._keys: KeySet | None = None
        self._since = self._tried = float("-inf")
        self._failure = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def failing(self) -> bool:
        """Whether the last attempt brought nothing."""
        return bool(self._failure)

    def current(self, now: float) -> KeySet | None:
        """The keys, where they can be had without waiting."""
        age, waited = now - self._since, now - self._tried
        if 0 <= age < self._fresh:
            return self._keys
        # The last attempt failed, and not long ago: nobody waits for the next, which is made beside.
        if self._failure and 0 <= age < self._usable and 0 <= waited < 2 * self._cooldown:
            if waited >= self._cooldown:
                self._start(now)
            return self._keys
        return None

    def may_ask(self, now: float) -> bool:
        """Whether `refresh` would ask, or is at it."""
        gap = self._cooldown if 0 <= now - self._since < self._usable else _RETRY
        return self._task is not None or not 0 <= now - self._tried < gap

    async def refresh(self, now: float) -> KeySet:
        """The keys after asking. Callers at the same time share one answer.

        Raises:
            VerifierUnavailable: there are none that may be used.
        """
        if self.may_ask(now):
            await asyncio.shield(self._start(now))
        keys = self._keys
        if keys is None or (self._failure and not 0 <= now - self._since < self._usable):
            raise self.unavailable()
        return keys

    def unavailable(self) -> VerifierUnavailable:
        """That there are no keys to check with."""
        return VerifierUnavailable(f"the keys of the issuer cannot be had: {self._failure or 'nothing was asked yet'}")

    def _start(self, now: float) -> asyncio.Task[None]:
        if self._task is None:
            self._tried = now
            self._task = asyncio.get_running_loop().create_task(self._ask(now))
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None

    async def _ask(self, now: float) -> None:
        fetch = self._fetch = self._fetch or issuer_fetch(self.issuer, self._configured)
        try:
            uri = self._uri
            if uri is None:
                uri = (await issuer_metadata(fetch, self.issuer)).jwks_uri
                if uri is None:
                    raise DocumentError("the metadata of the issuer has no jwks_uri; set JwtVerifier.jwks_uri")
            keys = KeySet.read(await fetch_document(fetch, uri), self._algorithms)
        except (ClientError, DocumentError) as exc:
            self._uri = self._configured  # a place that the metadata named may have moved
            self._failure = str(exc)
            events.record("auth.unavailable", f"keys of {self.issuer}: {exc}", setting="JwtVerifier.jwks_uri")
            return
        self._uri, self._keys, self._since, self._failure = uri, keys, now, ""
