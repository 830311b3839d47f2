"""The server's keys, and what it signs with them: right tokens, and for tests wrong ones.

Rules of this file:
- Private keys live here and die with the server. What is shown of them is the public half.
- Headers and claims are signed as given, so that a test can make any token. The endpoints give right ones.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from joserfc.jwk import Key

__all__ = ["Algorithm", "Signer"]

Algorithm = Literal["ES256", "RS256"]

_RSA_BITS: Final = 2048


class Signer:
    """Signs as one issuer.

    Args:
        algorithm: of its keys.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        if algorithm not in ("ES256", "RS256"):
            raise ConfigurationError("algorithm must be ES256 or RS256")
        self.algorithm: Algorithm = algorithm
        self.key: Key = self._new()
        """The private key that signs now, of joserfc."""
        self._older: list[Key] = []

    def _new(self) -> Key:
        from joserfc.jwk import ECKey, RSAKey

        kid = secrets.token_hex(8)
        if self.algorithm == "ES256":
            return ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})
        return RSAKey.generate_key(_RSA_BITS, {"kid": kid, "use": "sig", "alg": "RS256"})

    @property
    def jwks(self) -> dict[str, object]:
        """The public keys (RFC 7517 section 5)."""
        return {"keys": [dict(key.as_dict(private=False)) for key in (self.key, *self._older)]}

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with a new key from now on.

        Args:
            keep: go on publishing the older ones.
        """
        self._older = [self.key, *self._older] if keep else []
        self.key = self._new()

    def sign(
        self,
        claims: Mapping[str, object],
        typ: str,
        *,
        header: Mapping[str, object] | None = None,
        key: Key | Mapping[str, str] | str | bytes | None = None,
    ) -> str:
        """A JWT in compact form. Members of `claims` and `header` that are None are left out.

        Args:
            claims: what it says.
            typ: its kind.
            header: members in place of the usual ones. With `alg` of `none` it is not signed.
            key: signs in place of the server's.
        """
        from joserfc.jws import JWSRegistry

        used = self.key if key is None else _key(key)
        members = {"alg": self.algorithm, "typ": typ, "kid": self.key.kid, **(header or {})}
        named = members["alg"]
        text = f"{_part(members)}.{_part(claims)}"
        if not isinstance(named, str) or named.lower() == "none":
            return f"{text}."
        known = named if named in JWSRegistry.algorithms else self.algorithm
        signed = JWSRegistry(algorithms=[known]).get_alg(known).sign(text.encode("ascii"), used)
        return f"{text}.{_base64(signed)}"


def _key(key: Key | Mapping[str, str] | str | bytes) -> Key:
    from joserfc.jwk import JWKRegistry, OctKey

    if isinstance(key, bytes):
        return OctKey.import_key(key)
    if isinstance(key, Mapping):
        return JWKRegistry.import_key(dict[str, "str | list[str]"](key))
    if not isinstance(key, str):
        return key
    for kind in ("EC", "RSA", "OKP"):
        try:
            return JWKRegistry.import_key(key, kind)
        except ValueError:
            continue
    raise ConfigurationError("key: no private key in PEM")


def _part(members: Mapping[str, object]) -> str:
    return _base64(msgspec.json.encode({name: value for name, value in members.items() if value is not None}))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
