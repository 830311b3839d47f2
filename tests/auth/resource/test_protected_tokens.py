"""Tokens that are not good, on live listeners: the same answer to all of them, and no handler runs."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.auth.resource import ApiKeys, Certificates, Grant
from garrison.auth.resource.server import ResourceServer
from garrison.policy.tls import TlsServerConfig
from tests.auth.resource.issuer import JWKS_URI, encoded, jwk, jwks, key, page, verifier, web
from tests.auth.resource.issuer import Web as PaperWeb
from tests.support.certs import Authority
from tests.support.mcp import call
from tests.support.protected import (
    ALICE,
    FACES,
    ISSUER,
    RESOURCE,
    Asked,
    active,
    asking,
    bearer,
    challenge,
    facing,
    guarded,
    knock,
    let_in,
    message,
    protection,
    subject,
    token,
    use,
)
from tests.support.raw_http import connected, exchange, serving

PATIENT: dict[str, Any] = {"failures_per_minute": 10_000}


def unsigned(name: str) -> str:
    payload = token().split(".")[1]
    return f"{encoded({'alg': name, 'typ': 'at+jwt'})}.{payload}."


def claims_of(**changed: Any) -> dict[str, Any]:
    now = time.time()
    good = {"iss": ISSUER, "aud": RESOURCE, "sub": "alice", "scope": "notes:read", "iat": now - 10, "exp": now + 300}
    return {**good, **changed}


def by_public_key(form: Callable[[], bytes]) -> str:
    """A token whose MAC is made with what everybody knows of the issuer's key."""
    text = f"{encoded({'alg': 'HS256', 'kid': '1', 'typ': 'at+jwt'})}.{encoded(claims_of())}"
    return f"{text}.{encoded(hmac.digest(form(), text.encode(), 'sha256'))}"


def own_key(**header: Any) -> str:
    """A token of somebody else's key, whose header says where to find that."""
    mine = key("EC", "attacker")
    return token(mine, header={"kid": "attacker", **header})


def pem() -> bytes:
    return key("EC").as_pem(private=False)


def flipped() -> str:
    """A good token with one bit of its signature turned."""
    head, _, mark = token().rpartition(".")
    return f"{head}.{'B' if mark[0] == 'A' else 'A'}{mark[1:]}"


BAD: dict[str, list[Callable[[], str]]] = {
    "ATK-162": [
        lambda: token(aud="https://other.example.com/mcp"),
        lambda: token(aud=None),
        lambda: token(aud=["https://a.example.com", "https://b.example.com"]),
        lambda: token(aud=RESOURCE + "/"),
        lambda: token(aud=RESOURCE[:-1]),
        lambda: token(aud=RESOURCE.upper()),
        lambda: token(aud=[]),
        lambda: token(aud=ISSUER),
    ],
    "ATK-163": [
        lambda: token(iss=ISSUER + "/"),
        lambda: token(iss=ISSUER.replace("auth", "AUTH")),
        lambda: token(iss=ISSUER + "/tenant2"),
        lambda: token(iss=None),
        lambda: token(iss=[ISSUER]),
    ],
    "ATK-164": [lambda name=name: unsigned(name) for name in ("none", "None", "nOnE", "", "NONE")]
    + [lambda: token().rpartition(".")[0] + ".", lambda: token().rpartition(".")[0]],
    "ATK-165": [
        lambda: by_public_key(pem),
        lambda: by_public_key(lambda: pem().strip()),
        lambda: by_public_key(lambda: jwks(jwk(key("EC")))),
    ],
    "ATK-166": [
        lambda: own_key(jwk=jwk(key("EC", "attacker"))),
        lambda: own_key(jwk=jwk(key("EC", "attacker")), kid="1"),
        lambda: own_key(x5c=["MIIB"], kid=None),
        lambda: own_key(kid="../../../../dev/null"),
        lambda: own_key(kid="' OR 1=1 --"),
        lambda: own_key(kid="\x00"),
        lambda: own_key(kid=1),
    ],
    "ATK-167": [lambda: token(header={"crit": ["bork"], "bork": True}), lambda: token(header={"crit": []})],
    "ATK-168": [
        lambda: token(exp=time.time() - 61),
        lambda: token(exp=None),
        lambda: token(exp=str(int(time.time()) + 300)),
        lambda: token(nbf=time.time() + 300),
        lambda: token(iat=4_070_908_800, exp=4_070_909_000),
        lambda: token(exp=1e308),
        lambda: token(exp=True),
        lambda: token(exp=time.time() + 10_000_000),
    ],
    "ATK-169": [
        lambda: "a." + "A" * 3_000 + ".b",
        lambda: token() + ".x",
        lambda: ".".join(token().split(".")[:2]),
        lambda: "...",
        lambda: "~~~.~~~.~~~",
        lambda: token(header={"enc": "A256GCM", "zip": "DEF"}),
        lambda: flipped(),
        lambda: "x",
        lambda: token(sub=None),
    ],
}


@pytest.mark.attack("ATK-162", "ATK-163", "ATK-164", "ATK-165", "ATK-166", "ATK-167", "ATK-168", "ATK-169")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("case", BAD)
async def test_a_bad_token_gets_the_one_answer(face: str, case: str) -> None:
    ran: list[str] = []
    fetch = web()
    async with facing(face, guarded(protection(fetch, **PATIENT), ran)) as port:
        said: set[bytes] = set()
        for make in BAD[case]:
            bad = make()
            answer = await knock(face, port, f"Bearer {bad}")
            assert answer.status == 401, (bad, answer)
            assert challenge(answer).error == "invalid_token"
            assert bad.encode() not in answer.body
            said.add(answer.body)
        assert len(said) == 1
        assert not ran
        assert let_in(await knock(face, port, ALICE))
        assert fetch.asked == [JWKS_URI] * len(fetch.asked) and len(fetch.asked) <= 1


@pytest.mark.attack("ATK-166")
@pytest.mark.parametrize("face", FACES)
async def test_a_token_sends_us_nowhere(face: str) -> None:
    met: list[int] = []

    async def canary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(1)
        writer.close()

    ran: list[str] = []
    listener = await asyncio.start_server(canary, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/keys"
        async with facing(face, guarded(protection(**PATIENT), ran)) as port:
            for field in ("jku", "x5u"):
                for kid in ("attacker", "1", None):
                    answer = await knock(face, port, "Bearer " + own_key(**{field: url, "kid": kid}))
                    assert answer.status == 401
            assert let_in(await knock(face, port, ALICE))
        assert not met


@pytest.mark.attack("ATK-169")
@pytest.mark.parametrize("face", FACES)
async def test_a_token_of_a_mebibyte_is_not_read(face: str) -> None:
    ran: list[str] = []
    async with facing(face, guarded(ran=ran)) as port:
        async with connected(port) as wire:
            began = time.perf_counter()
            try:
                wire.writer.write(message(port, call("whoami"), "Bearer " + "a" * (1 << 20)))
                status = (await wire.head()).status
            except (ConnectionError, asyncio.IncompleteReadError):
                status = 431  # the host has hung up while it was sent
            assert status in (400, 401, 431) and time.perf_counter() - began < 2
        assert not ran
        assert let_in(await knock(face, port, ALICE))


@pytest.mark.attack("ATK-170")
@pytest.mark.parametrize("face", ["http", "asgi"])
async def test_names_of_keys_that_nobody_has_are_asked_about_once(face: str) -> None:
    ran: list[str] = []
    fetch = web()
    async with facing(face, guarded(protection(fetch, **PATIENT), ran)) as port:
        assert let_in(await knock(face, port, ALICE))
        await asyncio.gather(
            *(knock(face, port, "Bearer " + token(header={"kid": secrets.token_hex(8)})) for _ in range(100))
        )
        assert len(fetch.asked) <= 2
        assert ran == ["whoami"]
        assert let_in(await knock(face, port, bearer(subject="bob")))


# Several who vouch


@pytest.mark.attack("ATK-163")
@pytest.mark.parametrize("face", FACES)
async def test_issuers_are_kept_apart(face: str) -> None:
    """Same names of keys, same subjects; each token is taken by its own issuer's key alone."""
    other = "https://login.example.org"
    mine, theirs = key("EC", "1"), key("OKP", "1")
    fetch = PaperWeb({JWKS_URI: page(jwks(jwk(mine))), f"{other}/keys": page(jwks(jwk(theirs)))})
    verifiers = [verifier(fetch), verifier(fetch, issuer=other, jwks_uri=f"{other}/keys")]
    async with facing(face, guarded(protection(verifiers=verifiers, **PATIENT))) as port:
        first, second = token(mine), token(theirs, "EdDSA", iss=other)
        for good in (first, second):
            assert let_in(await knock(face, port, f"Bearer {good}"))
        for bad in (token(theirs, "EdDSA"), token(mine, iss=other), token(iss="https://third.example.net")):
            answer = await knock(face, port, f"Bearer {bad}")
            assert (answer.status, challenge(answer).error) == (401, "invalid_token")
        if not face.endswith("websocket"):
            who = [(await knock(face, port, f"Bearer {each}")).json for each in (first, second)]
            issuers = [each["result"]["structuredContent"]["issuer"] for each in who]
            assert issuers == [ISSUER, other]


async def test_a_token_is_shown_to_no_other_authorization_server() -> None:
    fetch = Asked({"opaque": active()})
    secret, hashed = ApiKeys.new()
    keys = ApiKeys({hashed: Grant("ci", ["notes:read"])})
    auth = protection(verifiers=[keys, verifier(), asking(fetch)], **PATIENT)
    async with serving(guarded(auth), token=None) as running:
        for good, who in ((secret.reveal(), "ci"), (token(sub="bob"), "bob"), ("opaque", "alice")):
            assert subject(await use(running.port, "whoami", as_=f"Bearer {good}")) == who
        for bad in ("gk_" + "x" * 43, token(iss="https://login.example.org"), secret.reveal()[:-1]):
            assert (await use(running.port, "whoami", as_=f"Bearer {bad}")).status == 401
        assert fetch.asked == ["opaque"]


@pytest.mark.parametrize("face", FACES)
async def test_api_keys(face: str) -> None:
    ran: list[str] = []
    secret, hashed = ApiKeys.new()
    keys = ApiKeys({hashed: Grant("ci", ["notes:read"])})
    auth = ResourceServer(RESOURCE, keys, recheck=1.0)
    async with facing(face, guarded(auth, ran)) as port:
        assert let_in(await knock(face, port, f"Bearer {secret.reveal()}"))
        for bad in (hashed, ApiKeys.new()[0].reveal(), secret.reveal().upper(), ALICE.removeprefix("Bearer ")):
            assert (await knock(face, port, f"Bearer {bad}")).status in (400, 401)
        if not face.endswith("websocket"):
            assert (await use(port, "admin_reset", as_=f"Bearer {secret.reveal()}")).status == 403
            assert ran == ["whoami"]
        keys.revoke(hashed)
        await asyncio.sleep(1.05)
        assert (await knock(face, port, f"Bearer {secret.reveal()}")).status == 401


# Mutual TLS


async def test_certificates_with_and_without_tokens(tmp_path: Any) -> None:
    import ssl

    authority = Authority(tmp_path)
    leaf, alice, bob = (
        authority.leaf(),
        authority.leaf(("alice.example",), client=True),
        authority.leaf(("bob.example",), client=True),
    )
    tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key, client_ca=authority.pem)
    named = Certificates({"alice.example": Grant("alice", ["notes:read"])})
    ran: list[str] = []

    async def said(port: int, mine: Any, tool: str, authorization: str | None) -> Any:
        context = ssl.create_default_context(cafile=str(authority.pem))
        context.load_cert_chain(mine.certificate, mine.key)
        async with connected(port, ssl=context) as wire:
            await wire.send(message(port, call(tool), authorization))
            return await wire.response()

    for scopes, expected in ((), 200), (["admin"], 403):
        auth = protection(certificates=named, scopes=scopes, hierarchy={"root": ["admin"]}, **PATIENT)
        async with serving(guarded(auth, ran), token=None, tls=tls) as running:
            port = running.port
            found = await said(port, alice, "whoami", None)
            assert found.status == expected
            assert (await said(port, bob, "whoami", None)).status == 401
            # A token, where there is one, is what counts; and a bad one is not made up for by a certificate.
            assert (await said(port, alice, "whoami", "Bearer nonsense")).status == 401
            assert (await said(port, bob, "whoami", bearer("admin", "bob"))).status == 200
            if not scopes:
                assert found.json["result"]["structuredContent"]["issuer"] == "certificate"
                assert (await said(port, alice, "read", None)).status == 200
                assert (await said(port, alice, "admin_reset", None)).status == 403
                assert (await said(port, alice, "whoami", bearer(subject="bob"))).json["result"]["structuredContent"][
                    "subject"
                ] == "bob"
    named.revoke("alice.example")
    async with serving(guarded(protection(certificates=named), ran), token=None, tls=tls) as running:
        assert (await said(running.port, alice, "whoami", None)).status == 401
    assert "admin_reset" not in ran


async def test_a_certificate_is_nothing_where_none_are_listed(tmp_path: Any) -> None:
    import ssl

    authority = Authority(tmp_path)
    leaf, alice = authority.leaf(), authority.leaf(("alice.example",), client=True)
    tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key, client_ca=authority.pem)
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.load_cert_chain(alice.certificate, alice.key)
    async with serving(guarded(), token=None, tls=tls) as running:
        for authorization, status in ((None, 401), (ALICE, 200)):
            async with connected(running.port, ssl=context) as wire:
                await wire.send(message(running.port, call("whoami"), authorization))
                assert (await wire.response()).status == status


# What is seen of a token


@pytest.mark.parametrize("face", ["http", "asgi"])
async def test_a_token_is_shown_nowhere(face: str, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    policy = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
    server = Server("p", auth=protection(**PATIENT), policy=policy)

    @server.tool(public=True)
    def show(ctx: Context) -> str:
        shown.extend((repr(ctx), str(ctx), repr(ctx.principal), str(ctx.principal), repr(dict(ctx.principal.claims))))
        shown.extend(repr(getattr(ctx, name, None)) for name in dir(ctx) if not name.startswith("__"))
        shown.append(repr(vars(ctx)) if hasattr(ctx, "__dict__") else "")
        raise RuntimeError("in a handler")

    secret, bad = token(), flipped()
    with caplog.at_level(logging.DEBUG):
        async with facing(face, server) as port:
            failed = await use(port, "show", as_=f"Bearer {secret}")
            refused = await use(port, "show", as_=f"Bearer {bad}")
    assert (failed.status, refused.status) == (200, 401)
    texts = [*shown, failed.body.decode(), refused.body.decode(), *(v for _, v in refused.fields + failed.fields)]
    records = [each for each in caplog.records if each.name.startswith("garrison")]
    texts += [repr(vars(each)) + (each.exc_text or "") for each in records]
    assert any("alice" in each for each in texts)  # something was looked at
    for part in (*secret.split("."), bad.rpartition(".")[2]):
        assert not [each for each in texts if part in each]


async def test_the_reason_is_in_the_security_event_and_not_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(guarded(protection(**PATIENT)), token=None) as running:
        await use(running.port, "whoami")
        for _ in range(2):  # a head that the listener knows, and one that it does not
            caplog.clear()
            answer = await use(running.port, "whoami", as_=bearer(aud="https://other.example.com"))
            assert b"aud" not in answer.body
            events = [each for each in caplog.records if getattr(each, "event", "") == "auth.token_refused"]
            assert [each.getMessage() for each in events] == [
                "auth.token_refused: aud does not have this server from 127.0.0.1"
            ]


async def test_a_token_that_ends_is_refused_once_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the listener knows every line of the request."""
    auth = protection(verifiers=[verifier(leeway=0)])
    async with serving(guarded(auth), token=None) as running, connected(running.port) as wire:
        data = message(running.port, call("whoami"), bearer(exp=time.time() + 0.6))
        for _ in range(3):
            await wire.send(data)
            assert (await wire.response()).status == 200
        await asyncio.sleep(0.65)
        caplog.clear()
        await wire.send(data)
        assert (await wire.response()).status == 401
        assert await wire.ended() == b""
        assert [getattr(each, "event", "") for each in caplog.records].count("auth.token_refused") == 1
        assert (await exchange(running.port, message(running.port, call("whoami"), ALICE))).status == 200
