"""What looks like a key is masked, what does not is left alone, and no text takes long."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from garrison.gate.redaction import redact, redact_value

CORPUS = Path(__file__).parent / "corpus"
MIX = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0"
HEX = "0123456789abcdef" * 2

# In two pieces where a scanner of repositories would take the example for a real one.
KEYS = {
    "AKIA" + "IOSFODNN7EXAMPL3": "aws",
    "ASIA" + "IOSFODNN7EXAMPL3": "aws",
    "ghp_" + MIX[:36]: "github",
    "gho_" + MIX[:36]: "github",
    "github_pat_" + MIX: "github",
    "glpat-" + MIX[:20]: "gitlab",
    "sk-" + MIX: "api-key",
    "sk-proj-" + MIX + "_-" + MIX: "api-key",
    "sk-ant-api03-" + MIX + "-AA": "api-key",
    "sk-" + HEX: "api-key",
    "xoxb-" + "123456789012-1234567890123-" + MIX[:24]: "slack",
    "xapp-" + "1-A0123-" + MIX: "slack",
    "AIza" + MIX[:35]: "google",
    "GOCSPX-" + MIX[:28]: "google",
    "sk_live_" + MIX[:24]: "stripe",
    "rk_test_" + MIX[:24]: "stripe",
    "whsec_" + MIX[:32]: "stripe",
    "npm_" + MIX[:36]: "npm",
    "pypi-" + "AgEIcHlwaS5vcmc" + MIX: "pypi",
    "hf_" + MIX[:34]: "huggingface",
    "dckr_pat_" + MIX[:27]: "docker",
    "SG." + MIX[:22] + "." + MIX: "sendgrid",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P": "jwt",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ+/=\n-----END PRIVATE KEY-----": "private-key",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMI\n-----END RSA PRIVATE KEY-----": "private-key",
    "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNz\\n-----END OPENSSH PRIVATE KEY-----": "private-key",
}
NAMED = [
    ("Authorization: Bearer xxx", "Authorization: Bearer [redacted:authorization]"),
    ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted:authorization]"),
    ('{"Authorization": "Bearer abc"}', '{"Authorization": "Bearer [redacted:authorization]"}'),
    ("Authorization: abcdef123456", "Authorization: [redacted:authorization]"),
    ("sent Bearer abc123def to it", "sent Bearer [redacted:bearer] to it"),
    ("DPoP " + MIX, "DPoP [redacted:bearer]"),
    ("postgres://bob:hunter2@db/x", "postgres://bob:[redacted:password]@db/x"),
    ("https://u:p@ss@host/", "https://u:[redacted:password]@host/"),
    ("https://ghp_" + MIX + ":x-oauth@github.com", "https://[redacted:github]:[redacted:password]@github.com"),
    ("redis://:s3cret@localhost", "redis://:[redacted:password]@localhost"),
    ("password=hunter2", "password=[redacted:password]"),
    ("user=bob password=swordfish", "user=bob password=[redacted:password]"),
    ("DB_PASSWORD='correct-horse'", "DB_PASSWORD='[redacted:password]'"),
    ('{"password": "hunter2", "n": 1}', '{"password": "[redacted:password]", "n": 1}'),
    ('"{\\"passwd\\": \\"hunter2\\"}"', '"{\\"passwd\\": \\"[redacted:password]\\"}"'),
    ("passphrase: tr0ub4dor&3", "passphrase: [redacted:password]&3"),
    ("PWD => 'abcd'", "PWD => '[redacted:password]'"),
    ("api_key: abcdef123456", "api_key: [redacted:secret]"),
    ("X-Api-Key: abcdef123456", "X-Api-Key: [redacted:secret]"),
    ("apiKey := 'abcdefghijkl'", "apiKey := '[redacted:secret]'"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPx", "aws_secret_access_key = [redacted:secret]"),
    ("client_secret=abc123", "client_secret=[redacted:secret]"),
    ("AccountKey=Zm9vYmFyMTIz==;EndpointSuffix=x", "AccountKey=[redacted:secret];EndpointSuffix=x"),
    ("refresh_token: abcdef123456", "refresh_token: [redacted:secret]"),
    ("code_verifier=" + MIX, "code_verifier=[redacted:secret]"),
    ("token=" + MIX, "token=[redacted:secret]"),
    ("Set-Cookie: sid=abc; HttpOnly", "Set-Cookie: [redacted:cookie]"),
    ("https://x.example/cb?code=abc12345&state=1", "https://x.example/cb?code=[redacted:query]&state=1"),
    ("https://x.example/b?a=1&sig=abc%2F123%3D", "https://x.example/b?a=1&sig=[redacted:query]"),
    ("bot 123456789:AA" + MIX[:33], "bot 123456789:[redacted:telegram]"),
    ("https://hooks.slack.com/services/T0/B0/" + MIX, "https://hooks.slack.com/services/[redacted:slack]"),
]  # fmt: skip
WORDS = [
    *(
        "eyJ",
        "eyJhbGciOiJIUzI1NiJ9",
        ".",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "AKIA",
        "IOSFODNN7EXAMPL3",
    ),
    *(
        "ghp_",
        "sk-",
        "xoxb-",
        "sk_live_",
        "pypi-AgE",
        MIX,
        MIX[:35],
        "://",
        "a:b",
        "@",
        "password",
        "secret",
        "api_key",
        "token",
    ),
    *(
        "access_token",
        "Authorization",
        "Bearer",
        "Basic",
        "Cookie",
        "=",
        ":",
        " ",
        '"',
        "'",
        '\\"',
        "\n",
        "\\n",
        "-",
        "_",
        "+",
        "&",
    ),
    *("?code=", "(", ",", "[redacted:x]", "hunter2", "abc", "1", "A", "123:AA", "SG.", "é", "/"),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "around", ["{}", "the key {} is bad", '{{"a":"{}"}}', "x={}&y", "({})", "line\n{}\nline", "in JSON\\n{}\\n", "é{}"]
)
def test_published_formats(key: str, around: str) -> None:
    masked = redact(around.format(key))
    assert f"[redacted:{KEYS[key]}]" in masked
    assert "A1b2C3d4" not in masked and key[12:] not in masked
    assert len(masked) <= len(around) + 30


@pytest.mark.parametrize("key", KEYS)
def test_a_key_alone_is_only_its_mask(key: str) -> None:
    assert redact(key) == f"[redacted:{KEYS[key]}]"


@pytest.mark.parametrize(("text", "masked"), NAMED)
def test_what_is_called_a_key(text: str, masked: str) -> None:
    assert redact(text) == masked


def test_several_in_one_text() -> None:
    one, other = "ghp_" + MIX[:36], "AKIA" + "IOSFODNN7EXAMPL3"
    assert redact(f"{one} and {other}, password=hunter2.") == (
        "[redacted:github] and [redacted:aws], password=[redacted:password]"
    )


@pytest.mark.parametrize("line", (CORPUS / "no_keys.txt").read_text("utf-8").splitlines())
def test_what_is_no_key_is_the_same_object(line: str) -> None:
    assert redact(line) is line


def test_prose_code_and_languages_are_the_same_object() -> None:
    for name in ("languages.tsv", "symbols.txt", "formats.txt", "no_keys.txt"):
        text = (CORPUS / name).read_bytes().decode()
        assert redact(text) is text


@given(st.lists(st.sampled_from(WORDS), max_size=16).map("".join))
@example('password="eyJ-----BEGIN PRIVATE KEY-----')
@example("-----BEGIN PRIVATE KEY----------END PRIVATE KEY-----ghp_A1b2C3d4E5f6G7h8I9j0K1l2")
@example("AKIAIOSFODNN7EXAMPL3eyJhbGciOiJIUzI1NiJ9.eyJhbGciOiJIUzI1NiJ9.a")
@settings(max_examples=400)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    assert (once is text) == (once == text)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "eyJ",
            "eyJ.",
            "eyJaaaaaaaa.",
            "password=",
            'password:"',
            "sk-",
            "sk-1",
            "://a:",
            "://",
            "a@",
            "Bearer ",
            "-----BEGIN ",
        ),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "Authorization: ",
            "api_key=",
            "Cookie:a=",
            "&code=",
            "A",
            "_",
            "ghp_",
            "password=a1(",
        ),
    ],
)
def test_time_grows_with_the_length(piece: str) -> None:
    """A megabyte takes some tenths of a second; what grows with the square would take hours."""
    for text in (piece * (1_000_000 // len(piece)), piece + "a" * 500_000 + piece + "-" * 500_000):
        begin = time.process_time()
        redact(text)
        assert time.process_time() - begin < 2.0


def test_values_are_masked_by_their_names() -> None:
    value = {
        "user": "bob",
        "password": "x",
        "clientSecret": "short",
        "api_key": 12345,
        "nested": [{"Authorization": "none"}, {"accessToken": ""}, ("Cookie", {"Cookie": "a=b"})],
        "passwordHint": "pet",
        "schema": {"password": {"type": "string"}},
        "nextPageToken": "CAUQAA",
        "text": "Bearer abc123def",
    }
    assert redact_value(value) == {
        "user": "bob",
        "password": "[redacted:password]",
        "clientSecret": "[redacted:secret]",
        "api_key": "[redacted:secret]",
        "nested": [
            {"Authorization": "[redacted:authorization]"},
            {"accessToken": ""},
            ["Cookie", {"Cookie": "[redacted:cookie]"}],
        ],
        "passwordHint": "pet",
        "schema": {"password": {"type": "string"}},
        "nextPageToken": "CAUQAA",
        "text": "Bearer [redacted:bearer]",
    }
    assert redact_value(redact_value(value)) == redact_value(value)


@pytest.mark.parametrize(
    "value",
    [None, True, 1.5, "text", [], {}, [1, "a", {"b": [None]}], {"password": None, "secret": False, "token": ["a"]}],
)
def test_a_value_without_keys_is_the_same_object(value: Any) -> None:
    assert redact_value(value) is value


def test_a_key_for_a_name_is_masked_too() -> None:
    assert redact_value({"ghp_" + MIX[:36]: 1}) == {"[redacted:github]": 1}
