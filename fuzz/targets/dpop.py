"""DPoP proofs: what is taken was signed by the harness over exactly these bytes, for this method, address, token and
time, and is taken once; whatever else is shown is refused.

The input is a place, what is put there, a method, an address, a token, a header (`JWK` in it is the harness's key), and
claims (`ATH` in them is the hash of the token)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fuzz.oracle import Finding, agree, hold, parts
from fuzz.targets.jwt import ED25519, P256, PUBLIC, plain_json
from garrison.auth.dpop import DpopKey, Nonces, ProofRefused, ProofVerifier, nonce_of
from garrison.auth.jws import SigningKey, base64url
from garrison.errors import ConfigurationError
from garrison.policy.secret import Secret
from garrison.transports.http.url import UrlError

_WHERE = b"POST\nhttps://mcp.example/mcp\ntoken\n"
_HEAD = b'{"typ":"dpop+jwt","alg":"EdDSA","jwk":JWK}\n'
_CLAIMS = b'{"jti":"1","htm":"POST","htu":"https://mcp.example/mcp","iat":1000000,"ath":"ATH"}'
SEEDS = (
    b"0\nA\n" + _WHERE + _HEAD + _CLAIMS,
    b"30 2\n-\n" + _WHERE + _HEAD + _CLAIMS.replace(b"1000000", b"999940.0"),
    b"0\n\nGET\nwss://MCP.example:443?x\nt\n"
    + _HEAD
    + b'{"jti":"1","htm":"GET","htu":"HTTPS://mcp.example/","iat":1e6}',
    b"1\n\nGET\nhttp://[::1]:80/%41/../a?b\n\n" + _HEAD + _CLAIMS.replace(b"POST", b"GET"),
    b'0\n\nPOST\nhttps://a/\n\n{"typ":"dpop+jwt","alg":"none","jwk":JWK}\n' + _CLAIMS,
    b'0\n\nPOST\nhttps://a/\n\n{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"oct","k":"AA"}}\n' + _CLAIMS,
    b'0\n\nPOST\nhttps://a/\n\n{"typ":"JWT","alg":"EdDSA","jwk":JWK,"crit":["x"]}\n' + _CLAIMS,
    b"0\n\n" + _WHERE + _HEAD.replace(b"dpop+", b"at+") + _CLAIMS,
    b"0\n\n" + _WHERE + _HEAD + _CLAIMS.replace(b'/mcp"', b'/mcp?x"'),
    b"0\n\nPOST\nfile:///x\n\n" + _HEAD + _CLAIMS,
    b"9999\n, e30.e30.AA\n" + _WHERE + _HEAD + _CLAIMS.replace(b'"1"', b'""'),
    b"0\ne30.e30.AA\n" + _WHERE + _HEAD + _CLAIMS.replace(b'"iat":1000000', b'"iat":99999999999999999999999999'),
)
WORDS = (
    *b'"typ": "alg": "jwk": JWK "dpop+jwt" "EdDSA" "Ed25519" "ES256" "none" "HS256" "crit": "d": "kid":'.split(),
    *b'"jti": "htm": "htu": "iat": "ath": "nonce": ATH 1000000 1e6 true null {} [] "POST" "GET" POST GET'.split(),
    *(b"https://mcp.example/mcp", b"wss://", b"http://", b":443", b":80", b"[::1]", b"?", b"#", b"/..", b"%2F", b"%2f"),
    *(b"\n", b".", b",", b"=", b" "),
)
NOW = 1_000_000.0

_private = {**PUBLIC["p"], "d": base64url(P256.private_numbers().private_value.to_bytes(32, "big"))}
_key = DpopKey.load(Secret(json.dumps(_private)))
_other = DpopKey(SigningKey.generate())
_JWK = b'{"kty":"OKP","crv":"Ed25519","x":"%b"}' % PUBLIC["ed"]["x"].encode()
_JKT = base64url(sha256(b'{"crv":"Ed25519","kty":"OKP","x":"%b"}' % PUBLIC["ed"]["x"].encode()).digest())
_nonces = Nonces(bytes(32))


def taken(verifier: ProofVerifier, proof: str, method: str, url: str, token: str | None, jkt: str | None) -> str | None:
    """The thumbprint, or None where the proof was refused."""
    try:
        return verifier.check(proof, method=method, url=url, access_token=token, jkt_expected=jkt)
    except ProofRefused as error:
        said = error.reason
        hold(len(said) < 160 and said.isascii() and said.isprintable(), "what is said", said)
        hold(error.code == "invalid_dpop_proof" or (error.code == "use_dpop_nonce" and verifier.nonces), error.code)
        return None


def verifier(*, nonces: bool = False) -> ProofVerifier:
    """One that has seen nothing."""
    return ProofVerifier(nonces=_nonces if nonces else None, clock=lambda: NOW)


def check(data: bytes) -> None:
    where, put, *given = parts(data, 7)
    method, url, token = (part.decode("latin-1") for part in given[:3])
    head, claims = given[3].replace(b"JWK", _JWK), given[4].replace(b"ATH", ath(token).encode())
    good = address(method, url, token)
    if good is not None:
        honest(method, url, token, good, where, put)
    signed = f"{base64url(head)}.{base64url(claims)}"
    crafted(f"{signed}.{base64url(ED25519.sign(signed.encode()))}", method, url, token)
    for text in (put.decode("latin-1"), given[4].decode("latin-1")):
        crafted(text, method, url, token)
        nonce = nonce_of({"dpop-nonce": text})
        hold(nonce in (None, text) and (nonce is None or re.fullmatch(r"[!-~]{1,512}", text)), "nonce", nonce)


def ath(token: str) -> str:
    return base64url(sha256(token.encode()).digest())


def address(method: str, url: str, token: str) -> str | None:
    """An honest proof for this address; None where it is no address, which both sides have to find."""
    try:
        return _key.proof(method, url, access_token=token, now=NOW)
    except ConfigurationError:
        proof = _key.proof(method, "https://mcp.example/", access_token=token, now=NOW)
        try:
            taken(verifier(), proof, method, url, token, None)
        except UrlError:
            return None
        raise Finding(f"no address for a proof, and one for its check: {url!r}") from None


def honest(method: str, url: str, token: str, proof: str, where: bytes, put: bytes) -> None:
    """A proof passes once, for what it is, and for nothing else."""
    fresh = verifier()
    for other in (
        (method + "x", url, token, None),
        (method, url.partition("?")[0] + "x", token, None),
        (method, url, token + "x", _key.thumbprint),
        (method, url, token, _other.thumbprint),
    ):
        try:
            hold(taken(fresh, proof, *other) is None, "taken for", *other)
        except UrlError:
            hold(other[1] != url, "an address, and none", url)
    numbers = [int(piece) for piece in where.split()[:2] if piece.isdigit() and len(piece) < 9]
    begin = numbers[0] % (len(proof) + 1) if numbers else 0
    end = begin + numbers[1] if len(numbers) > 1 else begin + 1
    for text in {put.decode("latin-1"), put.decode("utf-8", "surrogateescape")}:
        changed = proof[:begin] + text + proof[end:]
        if changed != proof:
            hold(taken(fresh, changed, method, url, token, _key.thumbprint) is None, "changed", changed)
            hold(taken(fresh, changed, method, url, token, None) is None, "changed, and of any key", changed)
    unsigned, _, signature = proof.rpartition(".")
    turned = f"{unsigned}.{signature[43:]}{signature[:43]}"
    hold(taken(fresh, turned, method, url, token, None) is None, "another signature")
    hold(taken(fresh, f"{proof},{proof}", method, url, token, None) is None, "two")
    agree("honest", taken(fresh, proof, method, url, token, _key.thumbprint), _key.thumbprint)
    agree("twice", taken(fresh, proof, method, url, token, _key.thumbprint), None)
    demanding = verifier(nonces=True)
    agree("without a nonce", taken(demanding, proof, method, url, token, None), None)
    proof = _key.proof(method, url, access_token=token, nonce=_nonces.current(NOW), now=NOW)
    agree("with a nonce", taken(demanding, proof, method, url, token, None), _key.thumbprint)
    agree("twice, with a nonce", taken(demanding, proof, method, url, token, None), None)


def crafted(proof: str, method: str, url: str, token: str) -> None:
    """Whatever it says: it is refused, or it is of a harness's key and says what it has to."""
    fresh = verifier()
    try:
        jkt = taken(fresh, proof, method, url, token, None)
        bound = taken(verifier(), proof, method, url, token, _JKT)
    except UrlError:
        return
    hold(bound in (None, _JKT), "bound to a key", bound)
    if jkt is None:
        agree("refused", bound, None)
        return
    first, second, third = proof.split(".")
    header, claims = (plain_json(_decoded(part)) for part in (first, second))
    if jkt == _JKT:
        agree("signature", third, base64url(ED25519.sign(f"{first}.{second}".encode())))
    else:
        hold(third != "" and bound is None, "of another key", proof)
    hold(header["typ"] == "dpop+jwt" and header["alg"] in ("ES256", "ES384", "EdDSA", "Ed25519"), "header", header)
    hold("d" not in header["jwk"] and "crit" not in header, "header", header)
    agree("method", claims["htm"], method)
    agree("address", normal(claims["htu"]), normal(url, query=True))
    agree("token", claims["ath"], ath(token))
    hold(type(claims["iat"]) in (int, float) and abs(claims["iat"] - NOW) <= 60, "iat", claims["iat"])
    hold(isinstance(claims["jti"], str) and claims["jti"], "jti", claims["jti"])
    agree("twice", taken(fresh, proof, method, url, token, None), None)


def normal(url: str, *, query: bool = False) -> Any:
    """RFC 3986 sections 6.2.2.1 and 6.2.3, by the standard library."""
    split = urlsplit(url)
    hold(query or not split.query, "a query in htu", url)
    scheme = {"ws": "http", "wss": "https"}.get(split.scheme, split.scheme)
    port = split.port or {"http": 80, "https": 443}.get(scheme)
    return scheme, split.hostname, port, split.path or "/"


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
