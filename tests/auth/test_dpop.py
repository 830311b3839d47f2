"""DPoP: a proof is good for one request, once; anything else proves nothing."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("joserfc")

from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.auth.dpop import ALGORITHMS, DpopKey, Nonces, ProofRefused, ProofVerifier, ReplayCache, nonce_of
from garrison.auth.jws import ALGORITHMS as SIGNATURES
from garrison.auth.jws import SigningKey
from garrison.errors import ConfigurationError
from garrison.policy.secret import Secret

NOW = 1_800_000_000.0
URL = "https://mcp.example.com/mcp"
TOKEN = "the.access-token"

# The examples of RFC 9449: figures 2 and 13, the thumbprint of section 6.1 and the token of figure 13.
_HEAD = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19."
)
RFC_TOKEN_PROOF = _HEAD + (
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0"
    "IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_RESOURCE_PROOF = _HEAD + (
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRy"
    "ZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35"
    "yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"


def segment(value: object) -> str:
    """JSON as a part of a token."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def unpacked(part: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def parts(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = proof.split(".")
    return unpacked(head), unpacked(body)


KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def claims(**changed: Any) -> dict[str, Any]:
    """Of a good proof, with changes; None takes one out."""
    good = {"jti": "j-1", "htm": "POST", "htu": URL, "iat": int(NOW), "ath": ath(TOKEN)}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def ath(token: str) -> str:
    return unpacked(DpopKey.generate().proof("GET", URL, access_token=token, now=NOW).split(".")[1])["ath"]


def proof(head: dict[str, Any] | None = None, key: SigningKey = KEY, **changed: Any) -> str:
    """A proof that is signed whatever it says."""
    header = {"typ": "dpop+jwt", "jwk": dict(key.public), **(head or {})}
    return key.sign(
        key.segment({name: value for name, value in header.items() if value is not None}), claims(**changed)
    )


def verifier(**given: Any) -> ProofVerifier:
    return ProofVerifier(**{"clock": lambda: NOW, **given})


def check(checks: ProofVerifier, given: str, **changed: Any) -> str:
    request = {"method": "POST", "url": URL, "access_token": TOKEN, "jkt_expected": KEY.thumbprint}
    return checks.check(given, **{**request, **changed})


# A client's proofs


def test_a_proof_says_what_it_is_for_and_shows_the_public_key_alone() -> None:
    key = DpopKey.generate()
    made = key.proof("POST", "https://MCP.example.com:443/mcp?a=b", access_token=RFC_TOKEN, nonce="n-1", now=NOW + 0.9)
    header, payload = parts(made)
    assert header.keys() == {"alg", "typ", "jwk"}
    assert (header["alg"], header["typ"]) == ("ES256", "dpop+jwt")
    assert header["jwk"].keys() == {"kty", "crv", "x", "y"}
    assert len(payload.pop("jti")) >= 22
    assert payload == {
        "htm": "POST",
        "htu": "https://mcp.example.com/mcp",
        "iat": int(NOW),
        "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
        "nonce": "n-1",
    }
    assert parts(key.proof("POST", URL, now=NOW))[1].keys() == {"jti", "htm", "htu", "iat"}


def test_no_two_proofs_have_a_name_in_common() -> None:
    key = DpopKey.generate()
    assert len({parts(key.proof("POST", URL, now=NOW))[1]["jti"] for _ in range(200)}) == 200


def test_a_key_survives_being_kept() -> None:
    key = DpopKey.generate()
    again = DpopKey.load(key.export())
    assert again.thumbprint == key.thumbprint != DpopKey.generate().thumbprint
    assert verifier().check(
        again.proof("GET", URL, now=NOW), method="GET", url=URL, access_token=None, jkt_expected=key.thumbprint
    )


def test_a_key_is_not_shown_by_accident() -> None:
    key = DpopKey.generate()
    private = json.loads(key.export().reveal())["d"]
    for shown in (repr(key), str(key), f"{key}", repr(key.export()), repr(key._key)):
        assert private not in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize("text", ["no key", '{"kty":"EC"}', '{"kty":"oct","k":"c2VjcmV0LXNlY3JldA"}', "{", "[]"])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="DPoP key") as caught:
        DpopKey.load(Secret(text))
    assert text not in str(caught.value) or len(text) < 3
    assert caught.value.__cause__ is None


def test_a_proof_needs_an_address() -> None:
    for url in ("mcp.example.com", "https://mcp.example.com/#x", "file:///x"):
        with pytest.raises(ConfigurationError):
            DpopKey.generate().proof("GET", url, now=NOW)


def test_the_nonce_of_an_answer() -> None:
    assert nonce_of({"dpop-nonce": "eyJ7S_zG.eyJH0-Z.HX4w-7v"}) == "eyJ7S_zG.eyJH0-Z.HX4w-7v"
    for headers in (
        {},
        {"dpop-nonce": ""},
        {"dpop-nonce": "a, b"},
        {"dpop-nonce": "a,b"},
        {"dpop-nonce": 'a"b'},
        {"dpop-nonce": "x" * 513},
    ):
        assert nonce_of(headers) is None


# What a server takes


def test_the_examples_of_the_rfc_are_taken() -> None:
    checks = verifier(clock=lambda: 1562262617.0)
    at_token = {"method": "POST", "url": "https://server.example.com/token", "access_token": None}
    assert check(checks, RFC_TOKEN_PROOF, **at_token, jkt_expected=None) == RFC_JKT
    at_resource = {"method": "GET", "url": "https://resource.example.org/protectedresource", "access_token": RFC_TOKEN}
    assert check(checks, RFC_RESOURCE_PROOF, **at_resource, jkt_expected=RFC_JKT) == RFC_JKT


def test_a_good_proof_is_taken_and_names_its_key() -> None:
    assert check(verifier(), proof()) == KEY.thumbprint
    assert check(verifier(), proof(), jkt_expected=None) == KEY.thumbprint
    assert check(verifier(), proof(), access_token=Secret(TOKEN)) == KEY.thumbprint


def keys() -> dict[str, SigningKey]:
    from joserfc.jwk import generate_key

    make: Any = generate_key  # its overloads are one for each kind of key
    made: dict[str, SigningKey] = {}
    for algorithm, (kty, crv) in SIGNATURES.items():
        key = make(kty, crv or 2048)
        made[algorithm] = SigningKey.load(Secret(json.dumps(key.as_dict(private=True))), algorithm)
    return made


def test_each_algorithm_that_can_be_asked_for_works_and_no_other_is_taken() -> None:
    for algorithm, key in keys().items():
        made = proof(key=key)
        assert check(verifier(algorithms=[algorithm]), made, jkt_expected=key.thumbprint) == key.thumbprint
        if algorithm not in ALGORITHMS:
            with pytest.raises(ProofRefused, match="alg is none of"):
                check(verifier(), made, jkt_expected=key.thumbprint)


HS = json.dumps({"typ": "dpop+jwt", "alg": "HS256", "jwk": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}})


def symmetric() -> str:
    import hashlib
    import hmac

    signed = f"{segment(HS)}.{segment(claims())}"
    mac = hmac.digest(b"secret-secret-secret-secret", signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def unsigned() -> str:
    header = {"typ": "dpop+jwt", "alg": "none", "jwk": dict(KEY.public)}
    return f"{segment(header)}.{segment(claims())}."


def bent(made: str, part: int, change: Callable[[str], str]) -> str:
    cut = made.split(".")
    cut[part] = change(cut[part])
    return ".".join(cut)


PRIVATE = {"jwk": json.loads(KEY.export().reveal())}
WRONG: dict[str, tuple[str, str]] = {
    "another address": (proof(htu="https://mcp.example.com/other"), "htu"),
    "another host": (proof(htu="https://mcp.example.org/mcp"), "htu"),
    "another scheme": (proof(htu="http://mcp.example.com/mcp"), "htu"),
    "another port": (proof(htu="https://mcp.example.com:8443/mcp"), "htu"),
    "path in another case": (proof(htu="https://mcp.example.com/MCP"), "htu"),
    "a path that only decodes to it": (proof(htu="https://mcp.example.com/%6dcp"), "htu"),
    "a query in htu": (proof(htu=URL + "?a=b"), "htu"),
    "a fragment in htu": (proof(htu=URL + "#a"), "htu"),
    "a user in htu": (proof(htu="https://me@mcp.example.com/mcp"), "htu"),
    "no htu": (proof(htu=None), "htu"),
    "htu of a wrong type": (proof(htu=[URL]), "htu"),
    "another method": (proof(htm="GET"), "htm"),
    "method in another case": (proof(htm="post"), "htm"),
    "no htm": (proof(htm=None), "htm"),
    "another token": (proof(ath=ath("another")), "ath"),
    "no ath": (proof(ath=None), "ath"),
    "old": (proof(iat=int(NOW) - 61), "iat"),
    "of the future": (proof(iat=int(NOW) + 62), "iat"),
    "no iat": (proof(iat=None), "iat"),
    "iat true": (proof(iat=True), "iat"),
    "iat a text": (proof(iat=str(int(NOW))), "iat"),
    "iat too large to be a float": (proof(iat=10**39), "iat"),
    "iat endless": (proof(iat=1e300), "iat"),
    "no jti": (proof(jti=None), "jti"),
    "empty jti": (proof(jti=""), "jti"),
    "jti a number": (proof(jti=7), "jti"),
    "jti without end": (proof(jti="x" * 513), "jti"),
    "no typ": (proof({"typ": None}), "typ"),
    "typ of another token": (proof({"typ": "JWT"}), "typ"),
    "no jwk": (proof({"jwk": None}), "jwk"),
    "jwk a text": (proof({"jwk": "x"}), "jwk"),
    "a private key in jwk": (proof(PRIVATE), "private"),
    "a symmetric part in jwk": (proof({"jwk": {**KEY.public, "k": "c2VjcmV0"}}), "private"),
    "another key than that of the token": (proof(key=OTHER), "another key"),
    "another key than it shows": (proof({"jwk": dict(KEY.public)}, key=OTHER), "signature"),
    "a point that is not on the curve": (proof({"jwk": {**KEY.public, "y": KEY.public["x"]}}), "not a key"),
    "a coordinate too short": (proof({"jwk": {**KEY.public, "x": "AQAB"}}), "size"),
    "a curve that is not the algorithm's": (proof({"jwk": {**KEY.public, "crv": "P-384"}}), "not a key for"),
    "a critical header": (proof({"crit": ["b64"], "b64": False}), "critical"),
    "HMAC": (symmetric(), "alg"),
    "none": (unsigned(), "base64url"),
    "none with a signature": (bent(unsigned(), 2, lambda _: "AAAA"), "alg"),
    "a changed payload": (bent(proof(), 1, lambda _: segment(claims(jti="j-2"))), "signature"),
    "a changed signature": (bent(proof(), 2, lambda was: ("B" if was[0] == "A" else "A") + was[1:]), "signature"),
    "a second spelling of the signature": (bent(proof(), 2, lambda was: was[:-1] + chr(ord(was[-1]) + 1)), "canonical"),
    "a signature cut short": (bent(proof(), 2, lambda was: was[:-2]), "signature"),
    "a member twice": (bent(proof(), 1, lambda _: segment(json.dumps(claims())[:-1] + ', "jti": "j-9"}')), "duplicate"),
    "a header member twice": (
        bent(proof(), 0, lambda was: segment(json.dumps(unpacked(was))[:-1] + ', "alg": "ES256"}')),
        "duplicate",
    ),
    "not JSON": (bent(proof(), 1, lambda _: segment("{")), "JSON"),
    "a list": (bent(proof(), 1, lambda _: segment([])), "object"),
    "padded": (proof() + "=", "base64url"),
    "two proofs in one field": (f"{proof()}, {proof()}", "parts"),
    "two parts": (proof().rpartition(".")[0], "parts"),
    "five parts": (proof() + ".a.b", "parts"),
    "empty": ("", "parts"),
    "too long": (proof(jti="x", filler="x" * 8192), "8192"),
    "not ASCII": (proof() + "\u00e9", "base64url"),
}


@pytest.mark.attack("ATK-181")
@pytest.mark.parametrize("name", WRONG)
def test_what_proves_nothing_is_refused(name: str) -> None:
    given, reason = WRONG[name]
    checks = verifier()
    with pytest.raises(ProofRefused, match=reason) as caught:
        check(checks, given)
    assert caught.value.code == "invalid_dpop_proof"
    # Nothing of it is remembered: a good proof of the same name is taken.
    assert check(checks, proof()) == KEY.thumbprint


@pytest.mark.attack("ATK-181")
def test_a_proof_is_taken_once() -> None:
    checks = verifier()
    given = proof()
    check(checks, given)
    for _ in range(3):
        with pytest.raises(ProofRefused, match="used before"):
            check(checks, given)
    # Another signature over the same, or over the same name, is no other proof.
    with pytest.raises(ProofRefused, match="used before"):
        check(checks, proof(iat=int(NOW) - 1))
    assert check(checks, proof(jti="j-2"))
    # The name is another client's to use.
    assert check(checks, proof(key=OTHER), jkt_expected=OTHER.thumbprint)


def test_addresses_are_compared_as_http_compares_them() -> None:
    for number, htu in enumerate(("HTTPS://MCP.Example.com/mcp", "https://mcp.example.com:443/mcp", URL)):
        assert check(verifier(), proof(htu=htu, jti=str(number)))
    assert check(verifier(), proof(), url=URL + "?session=1")
    assert check(verifier(), proof(htu="https://mcp.example.com"), url="https://mcp.example.com/")
    assert check(verifier(), proof(htu="http://[::1]/x"), url="http://[::1]:80/x")
    # A WebSocket handshake is a GET over HTTP.
    wss = "wss://mcp.example.com/mcp"
    assert check(verifier(), proof(htm="GET"), url=wss, method="GET")
    assert parts(DpopKey.generate().proof("GET", wss, now=NOW))[1]["htu"] == URL


def test_the_window_is_what_was_configured() -> None:
    for off in (-60, 0, 60):
        assert check(verifier(), proof(iat=int(NOW) + off))
    assert check(verifier(window=300.0), proof(iat=int(NOW) - 300))
    with pytest.raises(ProofRefused, match="iat"):
        check(verifier(window=5.0), proof(iat=int(NOW) - 6))
    assert check(verifier(), proof(iat=NOW - 0.5))


@pytest.mark.parametrize(
    "given",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"algorithms": ["ES256", "HS512"]},
        {"window": 0},
        {"window": 301},
        {"window": float("nan")},
    ],
)
def test_a_verifier_that_would_take_too_much_cannot_be_made(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="ProofVerifier"):
        verifier(**given)


# Replays


def test_a_proof_is_remembered_as_long_as_it_could_be_shown_again() -> None:
    now = [NOW]
    replays = ReplayCache()
    checks = verifier(clock=lambda: now[0], replays=replays)
    late, early = proof(iat=int(NOW) + 60), proof(jti="j-2", iat=int(NOW) - 60)
    check(checks, late)
    check(checks, early)
    for later in range(0, 121, 10):
        now[0] = NOW + later
        with pytest.raises(ProofRefused, match="used before"):
            check(checks, late)
    now[0] = NOW + 121
    with pytest.raises(ProofRefused, match="iat"):
        check(checks, late)
    now[0] = NOW + 200
    check(checks, proof(jti="j-3", iat=int(now[0])))
    assert len(replays) == 1


def test_where_there_is_no_room_no_proof_is_taken_and_none_is_forgotten() -> None:
    now = [NOW]
    checks = verifier(clock=lambda: now[0], replays=ReplayCache(most=3))
    taken = [proof(jti=str(number)) for number in range(3)]
    for each in taken:
        check(checks, each)
    with pytest.raises(ProofRefused, match=r"ReplayCache\.most\)"):
        check(checks, proof(jti="3"))
    for each in taken:
        with pytest.raises(ProofRefused, match="used before"):
            check(checks, each)
    now[0] = NOW + 121
    assert check(checks, proof(jti="4", iat=int(now[0])))


def test_one_key_does_not_use_up_the_room_of_all() -> None:
    checks = verifier(replays=ReplayCache(most_of_key=2))
    check(checks, proof(jti="1"))
    check(checks, proof(jti="2", iat=int(NOW) - 59))
    with pytest.raises(ProofRefused, match="most_of_key"):
        check(checks, proof(jti="3"))
    assert check(checks, proof(key=OTHER), jkt_expected=OTHER.thumbprint)


def test_a_cache_needs_room() -> None:
    for wrong in ({"most": 0}, {"most_of_key": 0}):
        with pytest.raises(ConfigurationError):
            ReplayCache(**wrong)


def test_many_keys_do_not_fill_the_memory() -> None:
    checks = verifier()
    for _ in range(1100):
        key = SigningKey.generate()
        check(checks, proof(key=key), jkt_expected=None)
    assert len(checks._keys) <= 1024


# Nonces of a server


def test_a_nonce_is_demanded_where_there_is_a_source_of_them() -> None:
    now = [NOW]
    nonces = Nonces(period=100.0)
    checks = verifier(nonces=nonces, clock=lambda: now[0])
    for number, nonce in enumerate((None, "", "guessed", Nonces().current(NOW), 7, ["x"], "\u00e9")):
        with pytest.raises(ProofRefused) as caught:
            check(checks, proof(nonce=nonce, jti=str(number)))
        assert caught.value.code == "use_dpop_nonce"
    good = nonces.current(NOW)
    assert nonce_of({"dpop-nonce": good}) == good
    assert check(checks, proof(nonce=good))
    now[0] = (NOW // 100 + 1) * 100 + 50
    assert nonces.current(now[0]) != good
    assert check(checks, proof(nonce=good, iat=int(now[0]), jti="b"))
    now[0] += 100
    with pytest.raises(ProofRefused) as caught:
        check(checks, proof(nonce=good, iat=int(now[0]), jti="c"))
    assert caught.value.code == "use_dpop_nonce"


def test_what_is_wrong_beside_the_nonce_is_not_answered_with_one() -> None:
    checks = verifier(nonces=Nonces())
    with pytest.raises(ProofRefused) as caught:
        check(checks, proof({"jwk": dict(KEY.public)}, key=OTHER))
    assert caught.value.code == "invalid_dpop_proof"


def test_processes_with_one_secret_have_the_same_nonces() -> None:
    secret = bytes(range(32))
    assert Nonces(secret).accepts(Nonces(secret).current(NOW), NOW)
    assert not Nonces(secret).accepts(Nonces(bytes(32)).current(NOW), NOW)
    assert Nonces().current(NOW) != Nonces().current(NOW)
    assert secret.hex() not in repr(Nonces(secret))
    wrong: list[dict[str, Any]] = [{"secret": b"short"}, {"secret": b""}, {"period": 0.5}, {"period": 1e6}]
    for each in wrong:
        with pytest.raises(ConfigurationError):
            Nonces(**each)


# Whatever is sent


GOOD = proof(jti="whole")


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABab09-_.=+/ \x00\u00e9"))
@settings(max_examples=150, deadline=None)
def test_a_proof_with_one_character_changed_proves_nothing(at: int, character: str) -> None:
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    if changed != GOOD:
        with pytest.raises(ProofRefused):
            check(verifier(), changed)


@given(st.one_of(st.text(max_size=60), st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join)))
@settings(max_examples=150, deadline=None)
def test_anything_else_is_refused_and_nothing_breaks(text: str) -> None:
    with pytest.raises(ProofRefused):
        check(verifier(), text)


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(["kty", "crv", "x", "y", "d", "n", "e", "use", "alg"]), _JSON)
@settings(max_examples=150, deadline=None)
def test_a_key_with_anything_in_it_breaks_nothing(member: str, value: object) -> None:
    given_jwk = {**KEY.public, member: value}
    try:
        json.dumps(given_jwk).encode()
        made = proof({"jwk": given_jwk})
    except (UnicodeEncodeError, ValueError):
        return
    try:
        assert check(verifier(), made) == KEY.thumbprint
    except ProofRefused:
        return
    assert given_jwk.keys() - KEY.public.keys() <= {"use", "alg", "n", "e"} and given_jwk.items() >= KEY.public.items()
