"""Signed access tokens: what verifies carries the signature of one of the harness's keys over exactly these bytes, and
claims that a second reading takes too; anything else is refused, with words that are ours.

The input is a place, what is put there, a header, claims, and a token that was never signed. `KEYS` are of no use to
anybody: they are made of their names."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from fuzz.oracle import Finding, agree, hold, parts
from garrison.auth.jws import JwsError, base64url, read_compact
from garrison.auth.resource.jwks import DEFAULT_ALGORITHMS, KeySet
from garrison.auth.resource.jwt import JwtVerifier, unverified_issuer
from garrison.auth.resource.verifier import MAX_CHARS, TokenRefused, Verified

_HEAD = b'{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}'
_CLAIMS = b'{"iss":"https://as.example","aud":"https://mcp.example/mcp","sub":"u","exp":1000100,"iat":1000000%b}'
SEEDS = (
    b"0\nA\n" + _HEAD + b"\n" + _CLAIMS % b"",
    b"40 1\n-\n" + _HEAD + b"\n" + _CLAIMS % b',"client_id":"c","scope":"a b","jti":"1","nbf":999990',
    b'0\n\n{"alg":"ES256","kid":"p"}\n' + _CLAIMS % b',"cnf":{"jkt":"' + b"A" * 43 + b'"},"scp":["a"]',
    b'0\n\n{"alg":"ES256","kid":"ed"}\n' + _CLAIMS % b"",
    b"0\n\n" + _HEAD + b"\n" + _CLAIMS.replace(b"mcp.example", b"other.example") % b"",
    b"0\n\n" + _HEAD + b"\n" + _CLAIMS.replace(b"1000100", b"999969.5").replace(b"1000000", b"990000") % b"",
    b"0\n\n" + _HEAD + b"\n" + _CLAIMS % b',"nbf":1000031',
    b'0\n\n{"alg":"none"}\n' + _CLAIMS % b"",
    b'0\n\n{"alg":"HS256","kid":"ed","typ":"JWT"}\n' + _CLAIMS % b"",
    b'0\n\n{"alg":"EdDSA","crit":["b64"],"b64":false}\n' + _CLAIMS % b"",
    b'0\n\n{"alg":"EdDSA","jwk":{"kty":"OKP"},"zip":"DEF"}\n' + _CLAIMS % b"",
    b"0\n=\n" + _HEAD + b'\n{"iss":"https://as.example","aud":["x"],"exp":1e6,"sub":""}',
    b"9999\n.\n" + _HEAD + b"\n" + _CLAIMS % b',"exp":2',
    b"0\n\n\n\neyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2FzLmV4YW1wbGUifQ.",
    b"0\n\n\n\neyJhbGciOiJFZERTQSJ9.e30.AAAA",
)
WORDS = (
    *b'"alg": "kid": "typ": "crit": "b64": "enc": "zip": "jwk": "jku": "x5c": "none" "HS256" "ES256" "EdDSA"'.split(),
    *b'"Ed25519" "RS256" "at+jwt" "JWT" "dpop+jwt" "ed" "p" "iss": "aud": "sub": "exp": "iat": "nbf": "jti":'.split(),
    *b'"scope": "scp": "cnf": "jkt": "x5t#S256": "client_id": "azp": "at_hash": "events": "tid": null true 1e6'.split(),
    *(
        b"\n",
        b"=",
        b"-",
        b"_",
        b".",
        b",",
        b"{}",
        b"[]",
        b"\\u00a0",
        b'"https://as.example"',
        b'"https://mcp.example/mcp"',
    ),
)
NOW = 1_000_000.0
ISSUER, AUDIENCE = "https://as.example", "https://mcp.example/mcp"
ED25519 = Ed25519PrivateKey.from_private_bytes(sha256(b"ed").digest())
P256 = derive_private_key(int.from_bytes(sha256(b"p").digest(), "big") >> 1, SECP256R1())
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NAMED = {"EdDSA": "ed", "Ed25519": "ed", "ES256": "p"}
_numbers = P256.public_key().public_numbers()
PUBLIC: dict[str, dict[str, str]] = {
    "ed": {"kty": "OKP", "crv": "Ed25519", "x": base64url(ED25519.public_key().public_bytes_raw())},
    "p": {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url(_numbers.x.to_bytes(32, "big")),
        "y": base64url(_numbers.y.to_bytes(32, "big")),
    },
}


class Keys:
    """A cache that always has the keys."""

    issuer = ISSUER
    failing = False

    def __init__(self) -> None:
        document = {"keys": [{"kid": name, **jwk} for name, jwk in PUBLIC.items()]}
        self._keys = KeySet.read(json.dumps(document).encode(), DEFAULT_ALGORITHMS)

    def current(self, now: float) -> KeySet:
        return self._keys

    def may_ask(self, now: float) -> bool:
        return False


_keys: Any = Keys()
_verifier = JwtVerifier(ISSUER, (AUDIENCE, "urn:mcp"), jwks=_keys, tenant_claim=None)
_strict = JwtVerifier(ISSUER, AUDIENCE, jwks=_keys, require_typ=True, tenant_claim="tid", leeway=0.0)


def sign(signed: bytes, algorithm: str) -> bytes:
    """The signature of a key over some bytes, always the same; that of the Ed25519 key for what is no algorithm."""
    if algorithm != "ES256":
        return ED25519.sign(signed)
    r, s = decode_dss_signature(P256.sign(signed, ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signed_token(header: bytes, claims: bytes) -> str:
    """A token of any two texts."""
    signed = f"{base64url(header)}.{base64url(claims)}".encode()
    return f"{signed.decode()}.{base64url(sign(signed, algorithm_of(header)))}"


def algorithm_of(header: bytes) -> str:
    """What a header names, if anything."""
    found = plain_json(header)
    return str(found.get("alg")) if isinstance(found, dict) else ""


def genuine(token: str) -> bool:
    """Whether the third part is what the harness puts under the first two. ECDSA has two signatures for each."""
    signed, _, last = token.rpartition(".")
    algorithm = algorithm_of(_decoded(signed.partition(".")[0]))
    given, made = _decoded(last), sign(signed.encode(), algorithm)
    if algorithm == "ES256":
        twin = made[:32] + (_ORDER - int.from_bytes(made[32:], "big")).to_bytes(32, "big")
        return base64url(given) == last and given in (made, twin)
    return last == base64url(made)


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def plain_json(data: bytes) -> Any:
    """A value by the standard library, without members twice; None where there is none."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None


def may_pass(header: dict[str, Any], claims: dict[str, Any], *, strict: bool) -> bool:
    """Whether header and claims keep every rule."""
    kind, leeway = header.get("typ"), 0 if strict else 30
    if header.get("kid", "ed") not in ("ed", "p") or not {"crit", "b64", "enc", "zip"}.isdisjoint(header):
        return False
    if header.get("kid") not in (None, _NAMED.get(str(header.get("alg")))):
        return False
    is_access = isinstance(kind, str) and kind.lower() in ("at+jwt", "application/at+jwt")
    if not is_access:
        if strict or not (kind is None or str(kind).lower() in ("jwt", "application/jwt")):
            return False
        if {"at_hash", "c_hash", "s_hash", "events"} & claims.keys():
            return False
    audience = claims.get("aud")
    several = audience if isinstance(audience, list) else [audience]
    known = {AUDIENCE} if strict else {AUDIENCE, "urn:mcp"}
    if not all(isinstance(each, str) for each in several) or known.isdisjoint(several):
        return False
    times: list[Any] = [claims.get(name) for name in ("exp", "iat", "nbf")]
    if any(isinstance(each, bool) or not isinstance(each, int | float | None) for each in times) or times[0] is None:
        return False
    expires, issued, begins = times
    begun = max(issued or 0, begins or 0) <= NOW + leeway
    lasts = expires + leeway > NOW and expires - (NOW if issued is None else issued) <= 86_400
    texts = [claims.get(name) for name in ("sub", "tid")] if strict else [claims.get("sub")]
    return bool(begun and lasts and claims.get("iss") == ISSUER and all(isinstance(x, str) and x for x in texts))


def verify(verifier: JwtVerifier, token: str) -> Verified | None:
    """What comes of a token; None: it was refused."""
    try:
        found = verifier.verify(token, NOW)
    except TokenRefused as error:
        hold(len(error.reason) < 160 and error.reason.isascii() and error.reason.isprintable(), error.reason)
        return None
    if not isinstance(found, Verified):
        raise Finding("an answer that is awaited for")
    return found


def judge(token: str) -> bool:
    """Give a token to both verifiers. True if one takes it."""
    took = False
    for verifier in (_verifier, _strict):
        found = verify(verifier, token)
        if found is None:
            continue
        took, strict = True, verifier is _strict
        hold(genuine(token), "verified, and never signed", token)
        agree("looks like ours", (verifier.accepts(token), unverified_issuer(token)), (True, ISSUER))
        header, claims = (plain_json(_decoded(part)) for part in token.split(".")[:2])
        hold(isinstance(header, dict) and isinstance(claims, dict), "no objects", header, claims)
        hold(may_pass(header, claims, strict=strict), "verified", header, claims)
        who = found.principal
        agree("who", (who.subject, who.issuer, dict(who.claims)), (claims["sub"], ISSUER, claims))
        client = claims.get("client_id") if claims.get("client_id") is not None else claims.get("azp")
        agree("client", (who.client_id, found.token_id), (client, claims.get("jti")))
        agree("tenant", who.tenant, claims["tid"] if strict else None)
        agree("end", found.expires, claims["exp"] + (0 if strict else 30))
        hold(found.expires > NOW, "has ended")
        agree("scopes", who.scopes, scopes(claims))
        bound = found.issued_for
        told = None if bound is None else (bound.jkt, bound.x5t_s256)
        cnf = claims.get("cnf")
        agree("bound", told, None if cnf is None else (cnf.get("jkt"), cnf.get("x5t#S256")))
    return took


def scopes(claims: dict[str, Any]) -> set[str]:
    """RFC 6749 section 3.3: a space is all that stands between two scopes."""
    if claims.get("scope") is not None:
        several = [claims["scope"]]
    else:
        given = claims.get("scp")
        several = given if isinstance(given, list) else [given or ""]
    return {word for each in several for word in each.split(" ") if word}


def check(data: bytes) -> None:
    where, put, header, claims, raw = parts(data, 5)
    never = raw.decode("latin-1")
    judge(never)
    compact(never)
    token = signed_token(header, claims)
    took = judge(token)
    if ordinary(header, claims):
        hold(took, "refused", header, claims)
    numbers = [int(piece) for piece in where.split()[:2] if piece.isdigit() and len(piece) < 9]
    begin = numbers[0] % (len(token) + 1) if numbers else 0
    end = begin + numbers[1] if len(numbers) > 1 else begin + 1
    for text in {put.decode("latin-1"), put.decode("utf-8", "surrogateescape")}:
        changed = token[:begin] + text + token[end:]
        judge(changed)
        compact(changed)
    first, second, third = token.split(".")
    other = base64url(sign(b"something else", algorithm_of(header)))
    unused = chr(ord(third[-1]) + 1)  # the same bytes in another spelling: of the last character, four bits count
    for changed in (
        *(f"{first}.{second}.", f"{first}.{second}", f"{token}.", f"{token}=", f" {token}", f"{token}\n"),
        *(f"{first}.{second}.{other}", token[:-1] + unused),
    ):
        hold(not judge(changed), "taken", changed)
    hold(not judge(f"{second}.{first}.{third}") or first == second, "exchanged")
    hold(verify(_verifier, token + "A" * MAX_CHARS) is None, "too long")


def ordinary(header: bytes, claims: bytes) -> bool:
    """Whether both are so plain that nothing can be wrong with them."""
    head, body = plain_json(header), plain_json(claims)
    if not isinstance(head, dict) or not isinstance(body, dict) or len(header + claims) > 900:
        return False
    if not head.keys() <= {"alg", "kid", "typ"} or head.get("alg") not in _NAMED or head.get("typ") != "at+jwt":
        return False
    if not body.keys() <= {"iss", "aud", "sub", "exp", "iat", "client_id", "jti"} or "kid" not in head:
        return False
    if any(not isinstance(body.get(name, "x"), str) or not body.get(name, "x") for name in ("client_id", "jti")):
        return False
    digits = all(re.fullmatch("[0-9]{1,9}", str(body.get(name, 1))) for name in ("exp", "iat"))
    return digits and b"\\u" not in claims and may_pass(head, body, strict=False)


def compact(token: str) -> None:
    """Taken apart, a token can be put together again in one way."""
    try:
        found = read_compact(token, MAX_CHARS)
    except JwsError as error:
        hold(len(str(error)) < 160 and str(error).isascii() and str(error).isprintable(), "what is said", str(error))
        return
    agree("together", f"{found.signed.decode()}.{base64url(found.signature)}", token)
    first, second, _ = token.split(".")
    agree("header", found.header, plain_json(_decoded(first)))
    agree("claims", found.payload, plain_json(_decoded(second)))
    hold("crit" not in found.header, "crit")
