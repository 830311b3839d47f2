"""Sealed tokens: what went in comes out for the right asker in time, and for nobody else ever."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import ConfigurationError
from garrison.protocol.sealed import MAX_TOKEN_CHARS, Sealer, SealError, key_from_text

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
SEALER = Sealer(KEY)


def sealed(payload: bytes = b"secret payload") -> str:
    return SEALER.seal("state", payload, binding=b"alice", expires=100.0)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_is_sealed_opens(payload: bytes, binding: bytes) -> None:
    token = SEALER.seal("state", payload, binding=binding, expires=100.0)
    assert Sealer(KEY).open("state", token, binding=binding, now=99.9) == payload
    assert token.isascii()
    assert token.replace("-", "").replace("_", "").isalnum()


def test_the_payload_is_not_readable_and_no_two_tokens_are_alike() -> None:
    raw = base64.urlsafe_b64decode(sealed() + "==")
    assert b"secret" not in raw
    assert len({sealed() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("purpose", "binding", "now"),
    [
        ("cursor", b"alice", 0.0),
        ("state", b"mallory", 0.0),
        ("state", b"", 0.0),
        ("state", b"alice", 100.0),
        ("state", b"alice", 1e12),
        ("state", b"alice", float("nan")),
    ],
)
def test_a_token_opens_for_nothing_else(purpose: str, binding: bytes, now: float) -> None:
    token = sealed()
    assert SEALER.open("state", token, binding=b"alice", now=0.0) == b"secret payload"
    with pytest.raises(SealError, match=r"^token refused$"):
        SEALER.open(purpose, token, binding=binding, now=now)


def test_the_nonce_and_the_binding_cannot_trade_bytes() -> None:
    token = SEALER.seal("state", b"", binding=b"", expires=100.0)
    with pytest.raises(SealError):
        SEALER.open("state", token, binding=base64.urlsafe_b64decode(token + "==")[16:17], now=0.0)


def test_every_changed_character_is_noticed() -> None:
    token = sealed()
    for index, char in enumerate(token):
        for other in "AB-_/":
            if other != char:
                with pytest.raises(SealError):
                    SEALER.open("state", token[:index] + other + token[index + 1 :], binding=b"alice", now=0.0)


def test_the_last_character_has_one_spelling() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for size in range(3):
        token = sealed(b"x" * size)
        opened = 0
        for char in alphabet:
            try:
                SEALER.open("state", token[:-1] + char, binding=b"alice", now=0.0)
                opened += 1
            except SealError:
                pass
        assert opened == 1


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="))
)
def test_anything_else_is_refused(token: str) -> None:
    with pytest.raises(SealError, match=r"^token refused$"):
        SEALER.open("state", token, now=0.0)


@pytest.mark.parametrize("change", ["{}=", "{}==", " {}", "{}\n", "{}A", "{}AAAA", "\u00e9{}"])
def test_other_spellings_are_refused(change: str) -> None:
    with pytest.raises(SealError):
        SEALER.open("state", change.format(sealed()), binding=b"alice", now=0.0)
    with pytest.raises(SealError):
        SEALER.open("state", sealed()[:-1], binding=b"alice", now=0.0)


def test_long_tokens_are_neither_made_nor_read() -> None:
    token = SEALER.seal("state", bytes(49_000), expires=1.0)
    assert len(token) <= MAX_TOKEN_CHARS
    assert SEALER.open("state", token, now=0.0) == bytes(49_000)
    with pytest.raises(ValueError, match="longer"):
        SEALER.seal("state", bytes(50_000), expires=1.0)
    with pytest.raises(SealError):
        SEALER.open("state", "A" * 10_000_000, now=0.0)


@pytest.mark.parametrize("expires", [float("inf"), float("nan")])
def test_every_token_expires(expires: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        SEALER.seal("state", b"", expires=expires)


def test_keys_rotate() -> None:
    old = sealed()
    rotated = Sealer(OTHER, previous=[KEY])
    assert rotated.open("state", old, binding=b"alice", now=0.0) == b"secret payload"
    new = rotated.seal("state", b"new", expires=100.0)
    assert Sealer(OTHER).open("state", new, now=0.0) == b"new"
    for sealer, token in [(SEALER, new), (Sealer(OTHER), old), (Sealer(), old)]:
        with pytest.raises(SealError):
            sealer.open("state", token, binding=b"alice", now=0.0)


def test_without_gcm_siv_tokens_are_sealed_with_gcm_and_every_replica_opens_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers import aead

    def unsupported(key: bytes) -> None:
        raise UnsupportedAlgorithm("no GCM-SIV")

    modern = sealed()
    with monkeypatch.context() as patch:
        patch.setattr(aead, "AESGCMSIV", unsupported)
        plain = Sealer(KEY)
        token = plain.seal("state", b"gcm", expires=100.0)
        assert plain.open("state", token, now=0.0) == b"gcm"
        with pytest.raises(SealError):
            plain.open("state", modern, binding=b"alice", now=0.0)
    assert SEALER.open("state", token, now=0.0) == b"gcm"


def test_keys_do_not_leak() -> None:
    assert repr(SEALER) == "Sealer(key=***, previous=0)"
    with pytest.raises(TypeError):
        pickle.dumps(SEALER)
    with pytest.raises(ConfigurationError) as caught:
        key_from_text("hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_short_key_is_refused(key: bytes) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Sealer(key)
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Sealer(KEY, previous=[key])


@pytest.mark.parametrize(
    "text",
    [
        OTHER.hex(),
        OTHER.hex().upper(),
        base64.b64encode(OTHER).decode(),
        base64.urlsafe_b64encode(OTHER).decode().rstrip("="),
        f"  {OTHER.hex()}\n",
    ],
)
def test_a_key_in_text(text: str) -> None:
    assert key_from_text(text) == OTHER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 64,
        "é" * 43,
        OTHER.hex()[:-2],
        "A" * 42,
        "A" * 44,
        "A" * 60,
        "A A" * 20,
        OTHER.hex()[:30] + "  " + OTHER.hex()[:32],  # hexadecimal reading passes over white space
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="32 random bytes"):
        key_from_text(text)


def test_cryptography_is_loaded_only_when_a_token_is_made() -> None:
    code = "import sys, garrison.protocol.sealed as s; s.Sealer(); sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
