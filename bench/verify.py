#!/usr/bin/env python3
"""What it costs to check a credential: microseconds of CPU for each verifier, for good ones and for bad ones.

    python bench/verify.py [--rounds 7] [--json FILE]

No socket and no peer: the keys and answers of the issuer are at hand. `again` is the same credential over and over,
`distinct` is another one each time. The rows of the listener are what a request costs there: all of the gate, and what
the gate costs with a fixed token. Each number is the median of the rounds; a bad one is what a stranger can make us
spend per request before his address is throttled. What a listener took it remembers, and does not verify again for
`ResourceServer.recheck` seconds.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import logging
import secrets
import statistics
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src")]

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from garrison import SecurityPolicy
from garrison.auth.resource import (
    ApiKeys,
    Certificates,
    Grant,
    IntrospectionVerifier,
    JwksCache,
    JwtVerifier,
    TokenRefused,
)
from garrison.auth.resource.authenticator import TokenAuthenticator
from garrison.auth.resource.server import ResourceServer
from garrison.errors import Refused
from garrison.gate.authentication import OneToken
from garrison.gate.http import HttpGate
from garrison.safe import Fetched, SafeFetch
from garrison.transports.http.exchange import Head
from garrison.transports.peer import Peer

ISSUER, RESOURCE = "https://auth.example.com", "https://mcp.example.com/mcp"
JWKS, ENDPOINT = f"{ISSUER}/keys", f"{ISSUER}/introspect"
JSON = {"content-type": "application/json"}
NOW = 1_800_000_000.0
KEYS = {
    "ES256": ECKey.generate_key("P-256", {"kid": "ES256"}),
    "RS256": RSAKey.generate_key(2048, {"kid": "RS256"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "EdDSA"}),
}


class Web(SafeFetch):
    """Has the keys, and answers every question with yes."""

    async def get(self, url, **_):
        keys = [{**key.as_dict(private=False), "use": "sig"} for key in KEYS.values()]
        return Fetched(url, 200, JSON, json.dumps({"keys": keys}).encode())

    async def post(self, url, body, **_):
        answer = {"active": True, "aud": RESOURCE, "sub": "alice", "exp": NOW + 300, "scope": "a b", "iss": ISSUER}
        return Fetched(url, 200, JSON, json.dumps(answer).encode())


class NoSecret:
    client_id, method = "bench", "client_secret_basic"

    def apply(self, request, server, endpoint, now):
        return request, {}


def b64(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(algorithm="ES256", *, header=(), **changed):
    claims = {"iss": ISSUER, "aud": RESOURCE, "sub": secrets.token_hex(8), "client_id": "app", "scope": "a b"}
    claims |= {"iat": NOW, "exp": NOW + 300, "jti": secrets.token_hex(8), **changed}
    text = f"{b64({'alg': algorithm, 'kid': algorithm, 'typ': 'at+jwt', **dict(header)})}.{b64(claims)}"
    signing = JWSRegistry.algorithms.get(algorithm)
    signature = signing.sign(text.encode(), KEYS[algorithm]) if algorithm in KEYS else b"x" * 64
    return f"{text}.{b64(signature)}"


def timed(check, credentials, rounds):
    """The median of the rounds, in microseconds of CPU a credential."""
    found = []
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        begin = time.process_time()
        for credential in credentials:
            try:
                check(credential)
            except TokenRefused:
                pass
        found.append((time.process_time() - begin) / len(credentials) * 1e6)
        gc.enable()
    return statistics.median(found)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # A cool-down that does not end while it runs: what is measured is a flood, not the one fetch in 30 seconds.
    jwt = JwtVerifier(ISSUER, RESOURCE, jwks=JwksCache(ISSUER, JWKS, fetch=Web(), fresh=1e9, cooldown=1e9))
    await jwt.verify(token(), NOW)
    opaque = IntrospectionVerifier(ISSUER, RESOURCE, client=NoSecret(), endpoint=ENDPOINT, fetch=Web())
    await opaque.verify("opaque", NOW)
    key, hashed = ApiKeys.new()
    keys = ApiKeys({hashed: Grant("ci"), **{ApiKeys.new()[1]: Grant(f"ci{n}") for n in range(1000)}})
    certificates = Certificates({f"ci{n}.example.com": Grant(f"ci{n}") for n in range(1000)})

    def check(credential):
        jwt.verify(credential, NOW)

    def table(make, count=300):
        return [make() for _ in range(count)]

    def swapped(texts):
        """Each with the signature of the next."""
        signatures = [text.rpartition(".")[2] for text in texts]
        return [f"{text.rpartition('.')[0]}.{signatures[n - 1]}" for n, text in enumerate(texts)]

    good = {algorithm: table(lambda algorithm=algorithm: token(algorithm)) for algorithm in KEYS}
    bad = {
        "64 KiB": table(lambda: "a" * 65_536),
        "no JWT": table(lambda: secrets.token_urlsafe(200)),
        "16 KiB of brackets": table(lambda: f"{b64(b'[' * 6000)}.{b64(b'[' * 6000)}.{b64(b'x')}", 50),
        "alg none": table(lambda: token("none")),
        "wrong aud": table(lambda: token(aud="https://other.example.com")),
        "expired": table(lambda: token(exp=NOW - 100)),
        "random kid": table(lambda: token(header={"kid": secrets.token_hex(8)})),
        "wrong signature, ES256": swapped(good["ES256"]),
        "wrong signature, RS256": swapped(good["RS256"]),
        "wrong signature, EdDSA": swapped(good["EdDSA"]),
    }
    results = {}

    def row(name, function, credentials):
        results[name] = round(timed(function, credentials, options.rounds), 2)
        print(f"{name:44} {results[name]:9.2f}")

    print(f"{'':44} {'us':>9}")
    for algorithm, credentials in good.items():
        row(f"JwtVerifier, {algorithm}, again", check, credentials[:1] * 300)
        row(f"JwtVerifier, {algorithm}, distinct", check, credentials)
    for name, credentials in bad.items():
        row(f"JwtVerifier, bad: {name}", check, credentials)
    row("JwtVerifier.accepts", jwt.accepts, good["ES256"])
    row("IntrospectionVerifier, again", lambda text: opaque.verify(text, NOW), ["opaque"] * 3000)
    row("ApiKeys, of 1001, good", lambda text: keys.verify(text, NOW), [key.reveal()] * 3000)
    row("ApiKeys, bad", lambda text: keys.verify(text, NOW), table(lambda: ApiKeys.new()[0].reveal(), 1000))
    row("Certificates, of 1000", certificates.principal, ["ci7.example.com"] * 3000)
    row("(a SHA-256 of a token, for scale)", lambda text: hashlib.sha256(text.encode()).digest(), good["ES256"])
    # The listener: from the head of a request to its principal, and all that the gate looks at besides.
    protection = ResourceServer(RESOURCE, jwt, failures_per_minute=30)
    policy = SecurityPolicy(allowed_hosts=("mcp.example.com",))

    def gate(authenticator):
        return HttpGate(policy, port=None, path="/mcp", authenticator=authenticator, methods=frozenset())

    def head(credential, address="192.0.2.1"):
        made = Head()
        made.method, made.path, made.peer = b"POST", b"/mcp", Peer(address)
        made.fields = {
            b"host": b"mcp.example.com",
            b"authorization": b"Bearer " + credential.encode(),
            b"content-type": b"application/json",
            b"accept": b"application/json, text/event-stream",
        }
        return made

    def pass_gate(check):
        def one(each):
            try:
                check(each)
            except Refused:
                pass

        return one

    logging.disable(logging.CRITICAL)
    tokens = gate(TokenAuthenticator(protection, path="/mcp", clock=lambda: NOW))
    fixed = gate(OneToken("t" * 43))
    row("gate, fixed token", pass_gate(fixed.check), [head("t" * 43)] * 3000)
    row("gate, JWT again", pass_gate(tokens.check), [head(good["ES256"][0])] * 3000)
    row("gate, 300 JWTs in turn", pass_gate(tokens.check), [head(each) for each in good["ES256"]])
    many = [head(each, f"198.51.{n // 250}.{n % 250}") for n, each in enumerate(bad["wrong signature, ES256"])]
    row("gate, bad ES256, each from another address", pass_gate(tokens.check), many)
    flood = [head(secrets.token_urlsafe(600), "203.0.113.9") for _ in range(3000)]
    row("gate, a flood of bad ones from one address", pass_gate(tokens.check), flood)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
