"""Tokens that are bound to a key (DPoP): of no use to who has the token alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from garrison.auth import WwwAuthenticate
from garrison.auth.dpop import DpopKey
from garrison.auth.resource.server import ResourceServer
from tests.auth.resource.issuer import encoded, key, signed
from tests.support.mcp import call
from tests.support.protected import (
    ALICE,
    FACES,
    METADATA,
    RESOURCE,
    Asked,
    active,
    asking,
    challenge,
    facing,
    guarded,
    knock,
    let_in,
    message,
    protection,
    token,
)
from tests.support.raw_http import changed, connected, exchange, request, serving

MINE, OTHER = DpopKey.generate(), DpopKey.generate()
PATIENT: dict[str, Any] = {"failures_per_minute": 10_000}
BOUND = token(cnf={"jkt": MINE.thumbprint})
TWICE = token(cnf={"jkt": MINE.thumbprint}, sub="bob")


def method_of(face: str) -> str:
    return "GET" if face.endswith("websocket") else "POST"


def proof(method: str, url: str = RESOURCE, *, held: DpopKey = MINE, of: str = BOUND, **options: Any) -> str:
    options.setdefault("now", time.time())
    return held.proof(method, url, access_token=of, **options)


async def shown(face: str, port: int, given: str | None, *, of: str = BOUND, scheme: str = "DPoP", **more: Any) -> Any:
    """The answer to who shows a token, and a proof."""
    return await knock(face, port, f"{scheme} {of}", dpop=given, **more)


def forged(method: str, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """A proof whose header and claims are not made by `DpopKey`, signed by the right key of this test."""
    private = key("EC", "dpop")
    public = {name: value for name, value in private.as_dict(private=False).items() if name != "kid"}
    claims = {"jti": str(time.perf_counter()), "htm": method, "htu": RESOURCE, "iat": time.time(), "ath": ath(FORGED)}
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public, **(header or {})}
    payload = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    return signed({n: v for n, v in head.items() if v is not None}, payload, private, "ES256")


def ath(access_token: str) -> str:
    import hashlib

    return encoded(hashlib.sha256(access_token.encode()).digest())


FORGED = token(cnf={"jkt": key("EC", "dpop").thumbprint()})


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_a_bound_token_needs_its_scheme_and_a_proof(face: str) -> None:
    ran: list[str] = []
    method = method_of(face)
    async with facing(face, guarded(protection(**PATIENT), ran)) as port:
        for scheme in ("Bearer", "bearer"):
            for given in (None, proof(method)):
                answer = await shown(face, port, given, scheme=scheme)
                assert (answer.status, challenge(answer).error) == (401, "invalid_token")
        missing = await shown(face, port, None)
        said = challenge(missing)
        assert (missing.status, said.scheme, said.error) == (401, "DPoP", "invalid_dpop_proof")
        assert said.resource_metadata == METADATA and "ES256" in said.parameters["algs"]
        # An unbound token is none of this scheme.
        assert (await shown(face, port, proof(method, of=ALICE[7:]), of=ALICE[7:])).status == 401
        assert not ran
        for scheme in ("DPoP", "dpop"):
            assert let_in(await shown(face, port, proof(method), scheme=scheme))
        assert let_in(await knock(face, port, ALICE))


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_a_proof_for_something_else_is_refused(face: str) -> None:
    ran: list[str] = []
    method = method_of(face)
    bad: list[Callable[[], str]] = [
        lambda: proof("PUT"),
        lambda: proof(method.lower()),
        lambda: proof(method, "https://mcp.example.com/other"),
        lambda: proof(method, "https://evil.example.com/mcp"),
        lambda: proof(method, "http://127.0.0.1:1/mcp"),
        lambda: proof(method, RESOURCE + "/"),
        lambda: proof(method, held=OTHER),
        lambda: proof(method, of=TWICE),
        lambda: MINE.proof(method, RESOURCE, now=time.time()),
        lambda: proof(method, now=time.time() - 400),
        lambda: proof(method, now=time.time() + 400),
        lambda: proof(method)[:-4] + "AAAA",
        lambda: BOUND,
        lambda: "x",
        lambda: proof(method) + ", " + proof(method),
    ]
    async with facing(face, guarded(protection(**PATIENT), ran)) as port:
        for make in bad:
            answer = await shown(face, port, make())
            assert (answer.status, challenge(answer).error) == (401, "invalid_dpop_proof"), answer
        assert not ran
        assert let_in(await shown(face, port, proof(method)))
        assert let_in(await shown(face, port, proof(method, RESOURCE + "?x=y"), target="/mcp?x=y"))


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_a_proof_of_a_wrong_form_is_refused(face: str) -> None:
    method = method_of(face)
    private = key("EC", "dpop").as_dict(private=True)
    bad: list[Callable[[], str]] = [
        lambda: forged(method, {"typ": "at+jwt"}),
        lambda: forged(method, {"typ": None}),
        lambda: forged(method, {"jwk": None}),
        lambda: forged(method, {"jwk": private}),
        lambda: forged(method, {"jwk": {"kty": "oct", "k": "AAAA"}}),
        lambda: forged(method, {"alg": "HS256"}),
        lambda: forged(method, {"alg": "none"}),
        lambda: forged(method, {"crit": ["x"]}),
        lambda: forged(method, jti=None),
        lambda: forged(method, jti=""),
        lambda: forged(method, iat=None),
        lambda: forged(method, iat="now"),
        lambda: forged(method, htm=None),
        lambda: forged(method, htu=None),
        lambda: forged(method, ath=None),
        lambda: forged(method, ath=ath(BOUND)),
    ]
    ran: list[str] = []
    async with facing(face, guarded(protection(**PATIENT), ran)) as port:
        for make in bad:
            answer = await shown(face, port, make(), of=FORGED)
            assert (answer.status, challenge(answer).error) == (401, "invalid_dpop_proof"), answer
        assert not ran
        assert let_in(await shown(face, port, forged(method), of=FORGED))


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_a_proof_is_good_once(face: str) -> None:
    ran: list[str] = []
    method = method_of(face)
    async with facing(face, guarded(protection(**PATIENT), ran)) as port:
        given = proof(method)
        assert let_in(await shown(face, port, given))
        for _ in range(2):
            answer = await shown(face, port, given)
            assert (answer.status, challenge(answer).error) == (401, "invalid_dpop_proof")
        assert let_in(await shown(face, port, proof(method)))


async def test_a_proof_counts_for_each_request_of_a_connection() -> None:
    """Also where the listener knows the head by heart."""
    ran: list[str] = []
    async with serving(guarded(protection(**PATIENT), ran), token=None) as running:
        port = running.port
        async with connected(port) as wire:
            for _ in range(3):
                await wire.send(message(port, call("whoami"), f"DPoP {BOUND}", dpop=proof("POST")))
                assert (await wire.response()).status == 200
            again = message(port, call("whoami"), f"DPoP {BOUND}", dpop=proof("POST"))
            await wire.send(again + again)
            assert [(await wire.response()).status for _ in range(2)] == [200, 401]
        assert ran == ["whoami"] * 4
        twice = message(port, call("whoami"), f"DPoP {BOUND}", dpop=proof("POST"))
        start, _, body = twice.partition(b"\r\n\r\n")
        second = b"\r\nDPoP: " + proof("POST").encode() + b"\r\n\r\n"
        assert (await exchange(port, start + second + body)).status == 400


async def test_a_proof_is_looked_at_after_the_token_was_asked_about() -> None:
    fetch = Asked({"opaque": active(cnf={"jkt": MINE.thumbprint}, token_type="DPoP")})
    ran: list[str] = []
    auth = protection(verifiers=[asking(fetch)], **PATIENT)
    async with serving(guarded(auth, ran), token=None) as running:
        port = running.port
        given = proof("POST", of="opaque")
        assert (await shown("http", port, proof("POST", of="opaque", held=OTHER), of="opaque")).status == 401
        assert (await shown("http", port, given, of="opaque", scheme="Bearer")).status == 401
        assert not ran
        assert (await shown("http", port, given, of="opaque")).status == 200
        assert (await shown("http", port, given, of="opaque")).status == 401


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_where_proofs_are_required_there_is_no_other_way(face: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(protection(dpop="require", **PATIENT), ran)) as port:
        unasked = challenge(await knock(face, port, None))
        assert (unasked.scheme, unasked.error) == ("DPoP", None)
        for authorization in (ALICE, "DPoP " + ALICE[7:]):
            answer = await knock(face, port, authorization, dpop=proof(method_of(face), of=ALICE[7:]))
            assert (answer.status, challenge(answer).scheme) == (401, "DPoP")
        assert not ran
        assert let_in(await shown(face, port, proof(method_of(face))))


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("face", FACES)
async def test_a_nonce_of_ours_has_to_be_in_the_proof(face: str) -> None:
    ran: list[str] = []
    method = method_of(face)
    async with facing(face, guarded(protection(dpop_nonce=True, failures_per_minute=2), ran)) as port:
        nonces: list[str] = []
        for invented in (None, "invented", "", None, None):
            answer = await shown(face, port, proof(method, nonce=invented))
            assert (answer.status, challenge(answer).error) == (401, "use_dpop_nonce")
            nonces.append(answer.get("dpop-nonce") or "")
        assert len(nonces[0]) > 16 and len(set(nonces)) == 1
        assert not ran
        assert let_in(await shown(face, port, proof(method, nonce=nonces[0])))
        spent = proof(method, nonce=nonces[0])
        assert let_in(await shown(face, port, spent))
        assert challenge(await shown(face, port, spent)).error == "invalid_dpop_proof"


@pytest.mark.attack("ATK-181")
async def test_a_token_that_is_bound_to_a_certificate_is_not_taken() -> None:
    ran: list[str] = []
    async with serving(guarded(protection(**PATIENT), ran), token=None) as running:
        for bound in ({"x5t#S256": "A" * 43}, {"x5t#S256": "A" * 43, "jkt": MINE.thumbprint}, {"kid": "x"}, {}):
            of = token(cnf=bound)
            for scheme in ("Bearer", "DPoP"):
                answer = await shown("http", running.port, proof("POST", of=of), of=of, scheme=scheme)
                assert answer.status == 401, bound
        assert not ran


async def test_other_doors_have_their_own_address_in_the_proof() -> None:
    """The endpoints of HTTP+SSE and of sessions are addresses of the same origin."""
    auth = protection(**PATIENT)
    async with serving(guarded(auth, http_sse=True), token=None) as running:
        port = running.port
        lines = [("Host", f"127.0.0.1:{port}"), ("Accept", "text/event-stream"), ("Authorization", f"DPoP {BOUND}")]
        for url, status in ((RESOURCE, 401), ("https://mcp.example.com/sse", 200)):
            async with connected(port) as wire:
                fields = changed(lines, dpop=proof("GET", url))
                await wire.send(request(b"", fields, method="GET", target="/sse", length=False))
                assert (await wire.head()).status == status
        for method, status in (("POST", 401), ("DELETE", 404)):
            fields = changed(lines, dpop=proof(method), mcp_session_id="x", mcp_protocol_version="2025-11-25")
            answer = await exchange(port, request(b"", fields, method="DELETE", length=False))
            assert answer.status == status


async def test_the_address_in_a_proof_is_the_configured_one_behind_a_proxy() -> None:
    """What Host says is not what the proof is compared with."""
    async with serving(guarded(protection(**PATIENT)), token=None) as running:
        for url, status in ((f"http://127.0.0.1:{running.port}/mcp", 401), (RESOURCE, 200)):
            assert (await shown("http", running.port, proof("POST", url))).status == status


def test_the_challenges_of_both_schemes_can_be_read() -> None:
    from garrison.auth.errors import OAuthError
    from garrison.auth.resource.authenticator import TokenAuthenticator

    auth: ResourceServer = protection()
    for error in (None, *OAuthError):
        lines = TokenAuthenticator(auth, path="/mcp").challenge(error, scopes=["a", "b"]).decode().strip()
        (found,) = WwwAuthenticate.parse(lines.partition(": ")[2])
        assert (found.error, found.scope) == (error, ("a", "b"))
