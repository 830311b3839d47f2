"""What others publish, answer, or leave on the disk: metadata, key sets, answers of token endpoints, kept tokens, and
the encrypted file. Each reader is given every input; each raises its own error, or says what the document says.

In the encrypted file, `$S` stands for the salt, `$C` for the check, `$N0` and `$V0` for a sealed name and its value."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import urlsplit

from fuzz.oracle import Finding, agree, hold
from fuzz.targets.jwt import PUBLIC, plain_json
from garrison.auth import AuthorizationServerMetadata, ProtectedResourceMetadata
from garrison.auth.client.authentication import ClientSecret
from garrison.auth.client.endpoint import TokenEndpoint
from garrison.auth.dpop import DpopKey
from garrison.auth.jws import SigningKey
from garrison.auth.metadata import MetadataError
from garrison.auth.requests import TokenRequest
from garrison.auth.resource.issuer import DocumentError
from garrison.auth.resource.jwks import DEFAULT_ALGORITHMS, KeySet
from garrison.auth.store.contract import StoreError
from garrison.auth.store.records import decode_key, decode_tokens, encode_key, encode_tokens
from garrison.auth.store.sealing import Keyholder, SealedFile
from garrison.auth.tokens import CredentialKey, TokenSet
from garrison.errors import AuthorizationFailed
from garrison.policy.secret import Secret
from garrison.safe.fetch import Fetched

_FILE = b'{"header":{"version":1,"key":"random","salt":"$S","cost":0},"check":"$C","entries":['
_KEYS = json.dumps({"keys": [{"kid": name, **jwk} for name, jwk in PUBLIC.items()]}, separators=(",", ":")).encode()
SEEDS = (
    b'{"resource":"https://mcp.example/mcp","authorization_servers":["https://as.example"],"scopes_supported":["a"]}',
    b'{"resource":"https://mcp.example/mcp","authorization_servers":["http://localhost:1/x"],"jwks_uri":"https://a/"}',
    b'{"resource":"http://127.0.0.1.evil.example/","authorization_servers":["https://as.example?x"]}',
    b'{"issuer":"https://as.example","token_endpoint":"https://as.example/t","code_challenge_methods_supported":["S256"]}',
    b'{"issuer":"https://as.example","token_endpoint":"http://as.example/t"}',
    _KEYS,
    _KEYS[:-2] + b',{"kid":"ed","kty":"OKP","x":"AA"},{"kty":"RSA","n":"%b","e":"AQAB"}]}' % (b"_" * 341 + b"w"),
    _KEYS.replace(b'"crv"', b'"d":"AAAA","crv"', 1),
    b'{"keys":[{"kty":"oct","k":"AAAA"}]}',
    b'{"keys":[{"kty":"EC","crv":"P-256","x":1,"y":null,"use":"enc","key_ops":["sign"]},{"kid":1}]}',
    b'{"access_token":"t","token_type":"Bearer","expires_in":60,"refresh_token":"r","scope":"a b"}',
    b'{"access_token":"t","token_type":"DPoP","expires_in":1e300,"issued_token_type":"x"}',
    b'{"error":"invalid_grant","error_description":"no refresh-token-canary, see https://evil.example"}',
    b'{"error":"use_dpop_nonce","access_token":"t","token_type":"bearer"}',
    b'{"tokens":1,"access_token":"a","token_type":"Bearer","expires_at":1.5,"refresh_token":null,"scopes":["b","a"]%b}'
    % b',"issued_token_type":null',
    b'["https://as.example","","","default","token"]',
    _FILE + b'{"name":"$N0","value":"$V0"},{"name":"$N1","value":"$V1"}]}',
    _FILE + b'{"name":"$N0","value":"$V1"},{"name":"$N1","value":"$V0"}]}',
    _FILE + b'{"name":"$N0","value":"$V0"},{"name":"$N0","value":"$V0"}]}',
    _FILE.replace(b"random", b"scrypt").replace(b":0}", b":99}") + b"]}",
    _FILE.replace(b"$C", b"$N0") + b'{"name":"$V0","value":"$N0"}]}',
)
WORDS = (
    *b'"resource": "authorization_servers": "scopes_supported": "jwks_uri": "issuer": "token_endpoint":'.split(),
    *b'"authorization_endpoint": "code_challenge_methods_supported": "S256" "keys": "kty": "crv": "kid":'.split(),
    *b'"use": "key_ops": "alg": "d": "x": "y": "n": "e": "EC" "OKP" "RSA" "oct" "P-256" "P-384" "AQAB"'.split(),
    *b'"access_token": "token_type": "Bearer" "DPoP" "expires_in": "refresh_token": "scope": "error": "N_A"'.split(),
    *b'"error_description": "tokens":1 "scopes": "header": "check": "entries": "name": "value": "cost": $S $C'.split(),
    *b'$N0 $V0 $N1 $V1 "random" "scrypt" https:// http:// localhost 127.0.0.1 [::1] @ ? # null true 1e400 -1'.split(),
    *(b"refresh-token-canary", b"client-secret-canary", b"www.", b"\\u00a0", b"\\u0000", b'"https://as.example"'),
)
RESOURCE, ISSUER = "https://mcp.example/mcp", "https://as.example"
_MASKED = re.compile(r"TokenSet\(access_token=Secret\(\*{3}\),.* refresh_token=Secret\(\*{3}\),")
_REFRESH, _SECRET = "refresh-token-canary", "client-secret-canary"
NOW = 1_000_000.0


def said(error: Exception) -> None:
    """What an error says is short and ours."""
    text = str(error)
    hold(len(text) < 400 and text.isascii() and text.isprintable(), "what is said", text)
    hold("evil" not in text, "a peer's text is repeated", text)


def check(data: bytes) -> None:
    document = plain_json(data)
    members = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    metadata(data, members, ProtectedResourceMetadata, "resource", RESOURCE)
    metadata(data, members, AuthorizationServerMetadata, "issuer", ISSUER)
    keys(data, members)
    for endpoint in _endpoints:
        for status in (200, 400):
            answer(endpoint, data, members, status)
    records(data)
    file(data)


def metadata(data: bytes, members: dict[str, Any], kind: Any, name: str, asked: str) -> None:
    """It is of whom was asked for, and every address in it may be asked."""
    own = members.get(name)
    for identifier in {asked, own if isinstance(own, str) else asked}:
        try:
            found = kind.read(data, identifier)
        except MetadataError as error:
            said(error)
            continue
        agree("identifier", (getattr(found, name), own), (identifier, identifier))
        addresses = [found.resource, *found.authorization_servers] if name == "resource" else [found.issuer]
        hold(len(addresses) > 1 or name == "issuer", "no authorization server")
        for member in ("token_endpoint", "authorization_endpoint", "registration_endpoint", "jwks_uri"):
            addresses.append(getattr(found, member, None) or addresses[0])
        for address in addresses:
            split = urlsplit(address)
            here = split.hostname in ("localhost", "127.0.0.1", "::1")
            hold(split.scheme == "https" or (split.scheme == "http" and here), "an address", address)
            hold(split.hostname and "@" not in split.netloc and "#" not in address, "an address", address)
        for member, value in members.items():
            if member in found.__struct_fields__ and value is not None:
                taken = getattr(found, member)
                agree(member, list(taken) if isinstance(taken, tuple) else taken, value)
        agree("again", kind.read(found.to_json(), identifier), found)
        for other in (identifier + "/", identifier.upper(), ""):
            try:
                kind.read(data, other)
            except MetadataError:
                continue
            hold(other == identifier, "of another", other)


def keys(data: bytes, members: dict[str, Any]) -> None:
    """No secret is taken; what was not signed does not verify, whatever the key."""
    try:
        found = KeySet.read(data, DEFAULT_ALGORITHMS)
    except DocumentError as error:
        said(error)
        return
    listed = [each for each in members["keys"] if isinstance(each, dict)]
    agree("objects", len(listed), len(members["keys"]))
    for each in listed:
        hold(not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & each.keys() and each.get("kty") != "oct", "a secret")
    for name, uses in found.named.items():
        same = [each for each in listed if each.get("kid") == name]
        hold(same, "a key without a name", name)
        for algorithm, verify in uses.items():
            fitting = [each for each in same if each.get("alg", algorithm) == algorithm and each.get("use") != "enc"]
            hold(fitting and algorithm in DEFAULT_ALGORITHMS, "bound to", algorithm, same)
            for size in (0, 1, 63, 64, 65, 256, 342, 512):
                hold(not verify(b"signed", b"\x5a" * size), "verified", algorithm, same)
    for algorithm in DEFAULT_ALGORITHMS:
        verify = found.find(None, algorithm)
        hold(verify is None or not verify(b"signed", b"\x5a" * 64), "verified", algorithm)
        agree("unknown", found.find("no such key", algorithm), found.named.get("no such key", {}).get(algorithm))


class Post:
    """A fetcher that has one answer."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"")
        self.asked = 0

    async def post(self, url: str, body: bytes, *, media_type: str, headers: dict[str, str]) -> Fetched:
        status, document = self.answer
        self.asked += 1
        return Fetched(url, status, {"content-type": "application/json", "dpop-nonce": "n"}, document)


def _endpoint(dpop: DpopKey | None) -> tuple[TokenEndpoint, Post]:
    post: Any = Post()
    server = AuthorizationServerMetadata(issuer=ISSUER, token_endpoint=f"{ISSUER}/token")
    return TokenEndpoint(post, server, ClientSecret("client", _SECRET), dpop=dpop, clock=lambda: NOW), post


_endpoints = (_endpoint(None), _endpoint(DpopKey(SigningKey.generate())))
_request = TokenRequest.refresh_token(_REFRESH, "client", RESOURCE, scope="a")


def answer(endpoint: tuple[TokenEndpoint, Post], data: bytes, members: dict[str, Any], status: int) -> None:
    """A token that the answer names, of the type that was asked for; or an error without any of our secrets."""
    asker, post = endpoint
    bound = endpoint is _endpoints[1]
    post.answer, post.asked = (status, data), 0
    try:
        asker.request(_request).send(None)
    except StopIteration as done:
        tokens: TokenSet = done.value
    except AuthorizationFailed as error:
        text = str(error)
        hold(text.isascii() and text.isprintable() and len(text) < 500, "what is said", text)
        hold(_REFRESH not in text and _SECRET not in text, "a secret is shown", text)
        hold(not re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/|www\.", text.replace(ISSUER, "")), "a link", text)
        hold(error.error in (None, members.get("error")), "code", error.error)
        hold(post.asked == 1 or (bound and post.asked == 2 and members.get("error") == "use_dpop_nonce"), "asked again")
        return
    else:
        raise Finding("it waits for something")
    hold(status == 200 and post.asked == 1, "a token of an error")
    agree("token", tokens.access_token.reveal(), members["access_token"])
    hold(re.fullmatch(r"[!-~]+", members["access_token"]), "cannot be sent", members["access_token"])
    kind = "DPoP" if bound else "Bearer"
    agree("type", (tokens.token_type, members["token_type"].lower()), (kind, kind.lower()))
    refresh = None if tokens.refresh_token is None else tokens.refresh_token.reveal()
    agree("refresh token", refresh, members.get("refresh_token") or _REFRESH)
    scope = members.get("scope")
    agree("scopes", tokens.scopes, {word for word in ("a" if scope is None else scope).split(" ") if word})
    lasts = members.get("expires_in")
    agree("end", tokens.expires_at, None if lasts is None else NOW + min(lasts, 30 * 24 * 3600.0))
    hold(tokens.expires_at is None or tokens.expires_at >= NOW, "ends before it began", tokens)
    agree("kept", decode_tokens(encode_tokens(tokens)), tokens)
    hold(_MASKED.match(repr(tokens)), "a secret is shown", tokens)


_records: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...] = (
    (decode_key, encode_key),
    (decode_tokens, encode_tokens),
)


def records(data: bytes) -> None:
    """What is read is what is written, and has one spelling."""
    for decode, encode in _records:
        try:
            value = decode(data)
        except StoreError as error:
            said(error)
            continue
        try:
            written = encode(value)
        except StoreError as error:  # longer than a store takes
            said(error)
            continue
        agree("again", decode(written), value)
        agree("one spelling", encode(decode(written)), written)


_NAMES = tuple(CredentialKey(ISSUER, f"{RESOURCE}/{number}", "client") for number in range(2))
_VALUES = {name: b"value of %d" % number for number, name in enumerate(_NAMES)}
_holders = Keyholder(bytes(32)), Keyholder(bytes(31) + b"\1"), Keyholder(Secret("not the passphrase"))


_LONG_WORK = re.compile(rb"1[5-9]\s*}")
"""What scrypt may cost, and would take too long here."""


def _sealed() -> dict[bytes, bytes]:
    """The words of an honest file: the same in every run."""
    numbers = iter(range(1, 100))
    with patch("os.urandom", lambda size: next(numbers).to_bytes(size, "big")):
        made = SealedFile(_holders[0], "FILE", None)
        for name, value in _VALUES.items():
            made.put(name, value)
    honest = json.loads(made.to_bytes())
    words = {b"$S": honest["header"]["salt"], b"$C": honest["check"]}
    for number, entry in enumerate(honest["entries"]):
        words |= {b"$N%d" % number: entry["name"], b"$V%d" % number: entry["value"]}
    return {name: text.encode() for name, text in words.items()}


_WORDS = _sealed()


def file(data: bytes) -> None:
    """It opens with its key alone, and what opens is what was kept under this name."""
    for word, text in _WORDS.items():
        data = data.replace(word, text)
    for holder in _holders if not _LONG_WORK.search(data) else _holders[:2]:
        try:
            opened = SealedFile(holder, "FILE", data)
        except StoreError as error:
            said(error)
            continue
        hold(holder is _holders[0], "opened with another key")
        names = opened.keys()
        hold(set(names) <= set(_NAMES), "names", names)
        for name in _NAMES:
            try:
                agree("value", opened.get(name), _VALUES[name] if name in names else None)
            except StoreError as error:
                said(error)
        listed = plain_json(data)["entries"]
        agree("entries", len(names), len(listed))
        pairs = {tuple(sorted(entry.values())) for entry in listed}
        honest = {tuple(sorted((_WORDS[b"$N%d" % n].decode(), _WORDS[b"$V%d" % n].decode()))) for n in range(2)}
        if pairs <= honest:
            for name in names:
                agree("value", opened.get(name), _VALUES[name])
        hold(b64encode(_VALUES[_NAMES[0]]) not in opened.to_bytes(), "a value is plain")
        agree("again", SealedFile(holder, "FILE", opened.to_bytes()).keys(), opened.keys())
