"""Token sets and names as bytes: what is written is read, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.auth.store import StoreError, decode_tokens, encode_tokens
from garrison.auth.store.records import decode_key, encode_key
from garrison.auth.tokens import CredentialKey, TokenSet
from garrison.policy.secret import Secret

TEXT = st.text(max_size=20)
SECRET = st.text(min_size=1, max_size=40).map(Secret)
TOKENS = st.builds(
    TokenSet,
    access_token=SECRET,
    token_type=st.sampled_from(["Bearer", "DPoP"]),
    expires_at=st.none() | st.floats(0, 1e11),
    refresh_token=st.none() | SECRET,
    scopes=st.none() | st.frozensets(TEXT, max_size=5),
    issued_token_type=st.none() | TEXT,
)
KEYS = st.builds(CredentialKey, TEXT, TEXT, TEXT, TEXT, kind=st.sampled_from(["token", "client", "key"]))
WHOLE = {
    "tokens": 1,
    "access_token": "at",
    "token_type": "Bearer",
    "expires_at": 1.5,
    "refresh_token": None,
    "scopes": ["a"],
    "issued_token_type": None,
}


@given(tokens=TOKENS)
def test_tokens_come_back_as_they_were(tokens: TokenSet) -> None:
    assert decode_tokens(encode_tokens(tokens)) == tokens


@given(key=KEYS)
def test_keys_come_back_as_they_were(key: CredentialKey) -> None:
    assert decode_key(encode_key(key)) == key


@given(one=KEYS, other=KEYS)
def test_two_keys_have_one_spelling_only_where_they_are_equal(one: CredentialKey, other: CredentialKey) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_members_of_a_key_do_not_run_into_each_other() -> None:
    spellings = {
        encode_key(CredentialKey(*parts)) for parts in (("ab", "c"), ("a", "bc"), ("a", "b", "c"), ('a","b', ""))
    }
    assert len(spellings) == 4


def test_a_whole_record_is_read() -> None:
    assert decode_tokens(json.dumps(WHOLE).encode()).access_token.reveal() == "at"


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 2},
        {"tokens": "1"},
        {"token_type": "bearer"},
        {"access_token": ""},
        {"access_token": None},
        {"refresh_token": ""},
        {"expires_at": "1"},
        {"scopes": "a"},
        {"more": 1},
    ],
    ids=str,
)
def test_anything_odd_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        decode_tokens(json.dumps({**WHOLE, **change}).encode())


@pytest.mark.parametrize("gone", WHOLE)
def test_every_member_has_to_be_there(gone: str) -> None:
    with pytest.raises(StoreError):
        decode_tokens(json.dumps({name: value for name, value in WHOLE.items() if name != gone}).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"tokens":1,"tokens":1}', b"\xff", b"[" * 1000])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_tokens(data)
    with pytest.raises(StoreError):
        decode_key(data)


@pytest.mark.parametrize("expires_at", [float("inf"), float("-inf"), float("nan")])
def test_a_time_that_json_does_not_have_is_not_written(expires_at: float) -> None:
    with pytest.raises(StoreError, match="finite"):
        encode_tokens(TokenSet(access_token=Secret("at"), expires_at=expires_at))


def test_no_error_repeats_a_secret() -> None:
    for call in (
        lambda: encode_tokens(TokenSet(access_token=Secret("canary\ud800"))),
        lambda: encode_tokens(TokenSet(access_token=Secret("canary" * 20_000))),
        lambda: decode_tokens(json.dumps({**WHOLE, "access_token": ["canary"]}).encode()),
        lambda: decode_tokens(b'{"tokens":1,"access_token":"canary'),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert "canary" not in f"{caught.value!r} {caught.value.__cause__!r}"
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_key_is_not_longer_than_a_store_takes() -> None:
    assert encode_key(CredentialKey("https://a.example/" + "p" * 4_000))
    with pytest.raises(StoreError, match="longer"):
        encode_key(CredentialKey("https://a.example/" + "p" * 9_000))
