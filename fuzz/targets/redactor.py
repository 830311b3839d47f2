"""The redactor: what is planted is masked wherever it stands alone, masked text stays as it is, clean text is the same
object, in time that grows with the length and no faster."""

from __future__ import annotations

import time

from fuzz.oracle import agree, chance, hold, pumped
from garrison.gate.redaction import redact, redact_value

_MIX = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0"
PLANTED = (
    "ghp_" + _MIX,
    "AKIA" + "IOSFODNN7EXAMPL3",
    "xoxb-" + _MIX,
    "sk_live_" + _MIX,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + _MIX,
    "-----BEGIN PRIVATE KEY-----\n" + _MIX + "\n-----END PRIVATE KEY-----",
)
SEEDS = (
    b"password=hunter2 and api_key: abcdef123456",
    b'{"password": "hunter2", "n": [1, "Bearer abc123def"]}',
    b"Authorization: Bearer xxx\r\nCookie: a=b; c=d",
    b"postgres://bob:p@ss@host/x?code=abc12345&sig=x1234567",
    b"-----BEGIN RSA PRIVATE KEY-----\nMII-A\n-----END RSA PRIVATE KEY-----eyJhbGciOi.eyJzdWIi.x",
    b"eyJeyJeyJ.eyJ.eyJ sk-sk-sk- ghp_ghp_ AKIAAKIA",
    b"123456789:AAA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8 SG.A1b2C3d4E5f6G7h8I9.A1b2C3d4E5f6G7h8I9",
    b'\\"client_secret\\": \\"abc[redacted:x]123\\" DB_PASSWORD=[redacted:password]',
    "пароль=x é\u200b".encode(),
)
WORDS = (
    *(
        b"password",
        b"passwd",
        b"secret",
        b"api_key",
        b"access_token",
        b"token",
        b"Authorization",
        b"Cookie",
        b"Bearer ",
    ),
    *(
        b"=",
        b": ",
        b'"',
        b"'",
        b'\\"',
        b"://",
        b"@",
        b"?code=",
        b"&sig=",
        b"[redacted:",
        b"]",
        b"\\n",
        b"\n",
        b"(",
        b"[",
    ),
    *(b"eyJ", b"AKIA", b"ghp_", b"sk-", b"xoxb-", b"npm_", b"-----BEGIN ", b"PRIVATE KEY-----", b"-----END ", b":AA"),
    *(_MIX.encode(), b"hunter2", b"code_verifier", b"Basic ", b"DPoP ", b"SG.", b"sk_live_"),
)


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass" if data.isascii() else "replace")
    masked = redact(text)
    agree("again", redact(masked), masked)
    hold((masked is text) == (masked == text), "the same object")
    hold("[redacted:" in masked if masked is not text else True, "changed without a mask", masked)
    value = {"a": [text, 1, None], text: True}
    twice = redact_value(redact_value(value))
    agree("values again", twice, redact_value(value))
    planted(text, data)
    if chance(data).random() < 0.01:
        long = pumped(data, 200_000).decode("utf-8", "replace")
        begin = time.process_time()
        redact(long)
        hold(time.process_time() - begin < 2.0, "slow")


def planted(text: str, data: bytes) -> None:
    """A key that stands on a line of its own does not get through, whatever stands on the others."""
    key = chance(data).choice(PLANTED)
    masked = redact(f"{text}\n\n{key}\n\n{text}")
    hold(_MIX not in masked.replace(text, "") or _MIX in text, "a key got through", key, masked)
