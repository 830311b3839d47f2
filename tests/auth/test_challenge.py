"""`WWW-Authenticate`: what is written is read, what others write is read as RFC 9110 has it, and nothing is guessed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.auth import OAuthError, WwwAuthenticate
from garrison.auth.challenge import MAX_CHARS, ChallengeError

METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource"


def read(*values: str) -> list[tuple[str, dict[str, str]]]:
    """Scheme and parameters of each challenge."""
    return [(one.scheme, one._attributes()) for one in WwwAuthenticate.parse(*values)]


def test_the_challenge_of_a_protected_resource() -> None:
    challenge = WwwAuthenticate(METADATA)
    assert str(challenge) == f'Bearer resource_metadata="{METADATA}"'
    refused = challenge.with_error(OAuthError.INSUFFICIENT_SCOPE, "more is needed").with_scopes(["a", "b:c"])
    assert str(refused) == (
        'Bearer scope="a b:c", error="insufficient_scope", error_description="more is needed", '
        f'resource_metadata="{METADATA}"'
    )
    assert str(WwwAuthenticate(scheme="Negotiate")) == "Negotiate"
    assert str(WwwAuthenticate(scheme="DPoP", parameters={"algs": "ES256"})) == 'DPoP algs="ES256"'


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["Bearer"], [("Bearer", {})]),
        (['bearer Realm="x" , ERROR = invalid_token'], [("bearer", {"realm": "x", "error": "invalid_token"})]),
        (
            ['Basic realm="a, b=\\"c\\"", Bearer scope="x  y"'],
            [("Basic", {"realm": 'a, b="c"'}), ("Bearer", {"scope": "x y"})],
        ),
        (
            ['DPoP algs="ES256 PS256", error="use_dpop_nonce"', "Bearer"],
            [("DPoP", {"error": "use_dpop_nonce", "algs": "ES256 PS256"}), ("Bearer", {})],
        ),
        ([", ,Bearer , , realm=x,,", ""], [("Bearer", {"realm": "x"})]),
        (["Negotiate, Bearer, Basic realm=x"], [("Negotiate", {}), ("Bearer", {}), ("Basic", {"realm": "x"})]),
        ([], []),
    ],
)
def test_what_others_write_is_read(values: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert read(*values) == found


def test_token68_is_no_parameter() -> None:
    assert [
        (one.scheme, one.token68) for one in WwwAuthenticate.parse("Negotiate YWJj==, Bearer realm=x, NTLM abc")
    ] == [
        ("Negotiate", "YWJj=="),
        ("Bearer", None),
        ("NTLM", "abc"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "realm=x",
        'Bearer realm="x',
        'Bearer realm="x" scope="y"',
        "Bearer realm=x realm=y",
        "Bearer realm=x, realm=y",
        'Bearer realm="a\x00b"',
        'Bearer realm="a\r\nX: y"',
        "Bearer ,realm=x y",
        "Bearer =x",
        "Negotiate abc, x=y",
        '"Bearer"',
        "Bearer (x)",
        'Bearer error="a\\"b"',
        'Bearer scope="a\tb"',
        'Bearer scope="a\xa0b"',
        'Bearer scope="a\x85b"',
    ],
)
def test_what_is_no_challenge_is_refused(value: str) -> None:
    with pytest.raises(ChallengeError) as caught:
        WwwAuthenticate.parse(value)
    assert value not in str(caught.value)


def test_no_more_than_a_bound_is_read() -> None:
    assert len(WwwAuthenticate.parse("a," * (MAX_CHARS // 2))) == MAX_CHARS // 2
    with pytest.raises(ChallengeError, match="characters"):
        WwwAuthenticate.parse("a", "," * MAX_CHARS)


@pytest.mark.parametrize(
    "given",
    [
        {"scheme": "Bea rer"},
        {"scheme": ""},
        {"scope": ("a b",)},
        {"scope": ('a"',)},
        {"error": "a\r\nSet-Cookie: x"},
        {"error_description": 'say "no"'},
        {"realm": "a\nb"},
        {"resource_metadata": "https://a/\r\n"},
        {"parameters": {"a b": "c"}},
        {"parameters": {"scope": "c"}},
        {"parameters": {"x": "\x7f\x01"}},
        {"token68": "a b"},
        {"token68": "abc", "realm": "x"},
    ],
)
def test_nothing_that_ends_a_line_is_written(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        WwwAuthenticate(**given)  # type: ignore[arg-type]


texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
words = st.text("abcXYZ019:/.-_", min_size=1, max_size=8)
challenges = st.builds(
    lambda scheme, metadata, realm, scope, error, more: WwwAuthenticate(
        metadata, scheme=scheme, realm=realm, scope=tuple(scope), error=error, parameters=more
    ),
    words.map(lambda text: text.replace(":", "x").replace("/", "y")),
    st.none() | texts,
    st.none() | texts,
    st.lists(words, max_size=3),
    st.none() | st.sampled_from(list(OAuthError)),
    st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), texts, max_size=3),
)


@given(st.lists(challenges, max_size=4), st.booleans())
def test_what_is_written_is_read(given: list[WwwAuthenticate], together: bool) -> None:
    values = [str(one) for one in given]
    assert list(WwwAuthenticate.parse(*([", ".join(values)] if together else values))) == given


@given(st.text(max_size=60))
def test_nothing_else_is_raised(text: str) -> None:
    with contextlib.suppress(ChallengeError):
        WwwAuthenticate.parse(text)


def test_the_best_of_several_is_chosen() -> None:
    found = WwwAuthenticate.parse("Basic realm=x, Bearer realm=y, DPoP algs=ES256, bearer realm=z")
    assert (WwwAuthenticate.select(found, "DPoP", "Bearer") or found[0]).scheme == "DPoP"
    assert (WwwAuthenticate.select(found, "bearer") or found[0]).realm == "y"
    assert WwwAuthenticate.select(found, "Digest") is None
