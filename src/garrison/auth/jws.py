"""Compact JWS (RFC 7515): signing with a key of ours, and reading what others signed.

Rules of this file:
- Every algorithm is asymmetric and stands in one table beside the kind of its key. `none` and HMAC do not exist here.
- What is read is canonical base64url and strict JSON, without `crit`, and is that before a signature is looked at.
- A key is checked for its algorithm when it is made. Whether it is to be believed is for who calls.
- Signatures are those of `joserfc`, which gets the algorithm from here and never from a token.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, cast, final

from ..errors import ParseError
from ..policy.limits import Limits
from ..policy.secret import Secret
from ..protocol.json import decoder, encode

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import ECKey, OKPKey, RSAKey

__all__ = ["ALGORITHMS", "Compact", "JwsError", "SigningKey", "VerifyingKey", "base64url", "read_compact"]

ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
        "Ed25519": ("OKP", "Ed25519"),
        "PS256": ("RSA", ""),
        "PS384": ("RSA", ""),
        "PS512": ("RSA", ""),
        "RS256": ("RSA", ""),
        "RS384": ("RSA", ""),
        "RS512": ("RSA", ""),
    }
)
"""What a key of each algorithm is: `kty` and `crv` (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864)."""

_PUBLIC: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
"""The members that make a public key, and its thumbprint (RFC 7638 section 3.2)."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SIZES: Final = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}
"""Bytes of a coordinate."""
_RSA_BYTES: Final = range(256, 513)
"""Bytes of a modulus: 2048 to 4096 bits."""
_RSA_EXPONENT: Final = 4
"""Most bytes of a public exponent."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]++")
_decode = decoder(Limits(json_depth=16, json_nodes=2_000, json_members=200, json_items=1_000, json_number_chars=40))


class JwsError(ValueError):
    """A token or a key that cannot be used. The message names the rule, and repeats nothing of either."""


class Compact(NamedTuple):
    """A JWS, taken apart. Nothing in it is believed before its signature is."""

    header: Mapping[str, object]
    payload: Mapping[str, object]
    signed: bytes
    """What the signature is over."""
    signature: bytes


def base64url(data: bytes) -> str:
    """Bytes in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def read_compact(token: str, most: int) -> Compact:
    """Take a compact JWS apart whose payload is a JSON object.

    Args:
        token: its text.
        most: characters of it that are allowed.

    Raises:
        JwsError: it is none, too long, or has critical header parameters.
    """
    if len(token) > most:
        raise JwsError(f"a token of more than {most} characters")
    parts = token.split(".")
    if len(parts) != 3:
        raise JwsError("not three parts with dots between them")
    head, body, signature = (_bytes(part) for part in parts)
    header, payload = _object(head, "header"), _object(body, "payload")
    if "crit" in header or "b64" in header:
        raise JwsError("critical header parameters are not known here")
    return Compact(header, payload, token.rpartition(".")[0].encode("ascii"), signature)


def _bytes(text: str) -> bytes:
    """What canonical base64url stands for: of several spellings of the same bytes one is taken."""
    if not _SEGMENT.fullmatch(text) or len(text) % 4 == 1:
        raise JwsError("not base64url")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise JwsError("not canonical base64url")
    return data


def _object(data: bytes, what: str) -> dict[str, object]:
    try:
        value = _decode(data)
    except ParseError as exc:
        raise JwsError(f"{what}: {exc.message}") from None
    if not isinstance(value, dict):
        raise JwsError(f"{what}: not a JSON object")
    return cast("dict[str, object]", value)


def _check_algorithm(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise JwsError(f"an algorithm must be one of {', '.join(ALGORITHMS)}")


def _model(algorithm: str) -> JWSAlgModel:
    """The signature of an algorithm.

    Asked for by our own table: `joserfc` would warn of `EdDSA`, the name that RFC 9449 and all servers still use.
    """
    from joserfc.jws import JWSRegistry

    _check_algorithm(algorithm)
    return JWSRegistry.algorithms[algorithm]


def _kind(algorithm: str) -> type[ECKey | OKPKey | RSAKey]:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: dict[str, type[ECKey | OKPKey | RSAKey]] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
    return kinds[ALGORITHMS[algorithm][0]]


def _members(jwk: Mapping[str, object], algorithm: str) -> dict[str, str]:
    """The public members of a key, each checked; those that do not make the key are left out."""
    kty, crv = ALGORITHMS[algorithm]
    members = {name: jwk.get(name) for name in _PUBLIC[kty]}
    if members["kty"] != kty or (crv and members["crv"] != crv):
        raise JwsError(f"not a key for {algorithm}")
    for name in members.keys() - {"kty", "crv"}:
        value = members[name]
        size = len(_bytes(value)) if isinstance(value, str) else 0
        if not (size == _SIZES[crv] if crv else size in _RSA_BYTES if name == "n" else 0 < size <= _RSA_EXPONENT):
            raise JwsError(f"{name} is missing or of a wrong size for {algorithm}")
    return cast("dict[str, str]", members)


@final
class VerifyingKey:
    """A public key with the one algorithm that it is used for.

    Args:
        jwk: the key (RFC 7517). Members that do not make the key are not looked at.
        algorithm: one of `ALGORITHMS`.

    Raises:
        JwsError: it is none for this algorithm, too small or too large, or holds a private part.
    """

    __slots__ = ("_key", "_model", "thumbprint")

    def __init__(self, jwk: Mapping[str, object], algorithm: str) -> None:
        from joserfc.errors import JoseError
        from joserfc.jwk import thumbprint

        self._model = _model(algorithm)
        if not _PRIVATE.isdisjoint(jwk):
            raise JwsError("a private key where a public one belongs")
        members = _members(jwk, algorithm)
        try:
            # A plain dict is what the binding of each kind takes; its declared types differ from kind to kind.
            self._key = _kind(algorithm).import_key(members)  # pyright: ignore[reportArgumentType]
        except (ValueError, JoseError):
            raise JwsError("not a key of its kind") from None
        self.thumbprint: str = thumbprint(members)
        """The SHA-256 thumbprint (RFC 7638), in base64url."""

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether this key made a signature."""
        return self._model.verify(signed, signature, self._key)


@final
class SigningKey:
    """A private key with the one algorithm that it is used for. Prints without the key.

    Made by `generate` or `load`.
    """

    __slots__ = ("_key", "_model", "algorithm", "public", "thumbprint")

    def __init__(self, key: ECKey | OKPKey | RSAKey, algorithm: str) -> None:
        from joserfc.jwk import thumbprint

        self._key = key
        self._model = _model(algorithm)
        self.algorithm = algorithm
        given = cast("Mapping[str, object]", key.as_dict(private=False))
        self.public: Mapping[str, str] = MappingProxyType(_members(given, algorithm))
        """The public key, as a JWK."""
        self.thumbprint: str = thumbprint(dict(self.public))
        """Its SHA-256 thumbprint (RFC 7638), in base64url."""

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key for ES256, which every server knows."""
        from joserfc.jwk import ECKey

        return cls(ECKey.generate_key("P-256"), "ES256")

    @classmethod
    def load(cls, key: Secret, algorithm: str) -> SigningKey:
        """A key that is kept as text.

        Args:
            key: a private key: PEM without a passphrase (PKCS#8, SEC 1, PKCS#1), or a JWK.
            algorithm: one of `ALGORITHMS`.

        Raises:
            JwsError: it is none, or none for this algorithm. Nothing of it is repeated.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from joserfc.errors import JoseError

        _check_algorithm(algorithm)
        text = key.reveal().strip()
        wanted = {"EC": EllipticCurvePrivateKey, "OKP": Ed25519PrivateKey, "RSA": RSAPrivateKey}
        try:
            raw = _from_jwk(text, algorithm) if text.startswith("{") else _from_pem(text)
            if not isinstance(raw, wanted[ALGORITHMS[algorithm][0]]):
                raise JwsError(f"not a private key for {algorithm}")
            if isinstance(raw, RSAPrivateKey) and raw.key_size // 8 not in _RSA_BYTES:
                raise JwsError("an RSA key has 2048 to 4096 bits")
            # One of the three kinds, and the one that belongs to the algorithm: both were checked above.
            return cls(_kind(algorithm).import_key(raw), algorithm)  # pyright: ignore[reportArgumentType]
        except JwsError:
            raise
        except (ValueError, KeyError, JoseError, UnsupportedAlgorithm):
            raise JwsError(f"not a private key in PEM or as a JWK, or none for {algorithm}") from None

    def export(self) -> Secret:
        """The private key, as a JWK; what `load` takes."""
        return Secret(encode(dict(self._key.as_dict(private=True))).decode("ascii"))

    def segment(self, header: Mapping[str, object]) -> bytes:
        """A header as it stands in a token, made once where it is always the same; `alg` is added."""
        return urlsafe_b64encode(encode({"alg": self.algorithm, **header})).rstrip(b"=")

    def sign(self, segment: bytes, claims: Mapping[str, object]) -> str:
        """A compact JWS.

        Args:
            segment: the header, from `segment`.
            claims: the payload.
        """
        signed = segment + b"." + urlsafe_b64encode(encode(claims)).rstrip(b"=")
        return f"{signed.decode('ascii')}.{base64url(self._model.sign(signed, self._key))}"

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm}, thumbprint={self.thumbprint!r})"

    def __reduce__(self) -> str:
        raise TypeError("a SigningKey is not pickled")


def _from_jwk(text: str, algorithm: str) -> object:
    given = _object(text.encode("utf-8", "surrogatepass"), "key")
    members = {name: value for name, value in given.items() if name in _PRIVATE and isinstance(value, str)}
    if "d" not in members:
        raise JwsError("a public key cannot sign")
    return _kind(algorithm).binding.import_from_dict({**members, **_members(given, algorithm)})


def _from_pem(text: str) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(text.encode("utf-8", "surrogatepass"), None)
    except TypeError:
        raise JwsError("a key in PEM must not have a passphrase: decrypt it and keep it in a Secret") from None
