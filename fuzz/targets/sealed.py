"""Sealed tokens: what was sealed opens where it belongs; nothing that was changed opens, and no text does."""

from __future__ import annotations

from hashlib import sha256

from fuzz.oracle import Finding, agree, hold, parts
from garrison.errors import ConfigurationError
from garrison.protocol.sealed import KEY_BYTES, Sealer, SealError, key_from_text

SEEDS = (
    b"0\nA\nbinding\npayload",
    b"5\n-\n\n",
    b"30 60\n \nb\n{}",
    b"0 999\n\n\nAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    b"22\n=\nx\n" + b"ab" * 32,
    b"22\n=\nx\n" + b"ab" * 15 + b"  " + b"ab" * 16,
)
WORDS = (b"\n", b"=", b"-", b"_", b"+", b"/", b"A", b"AQ", b"Ag", b" 1", b"00" * 32)
NOW = 1_000_000.0

_other = Sealer(bytes(KEY_BYTES))


def refuses(sealer: Sealer, purpose: str, token: str, binding: bytes, now: float = NOW) -> None:
    try:
        payload = sealer.open(purpose, token, binding=binding, now=now)
    except SealError as error:
        agree("what is said", str(error), "token refused")
        return
    raise Finding(f"opened: {token!r} gave {payload!r}")


def check(data: bytes) -> None:
    where, put, binding, payload = parts(data, 4)
    # A key for each input: the fuzzer learns what it sees compared, and would put in tokens of earlier inputs.
    sealer = Sealer(sha256(data).digest())
    token = sealer.seal("cursor", payload, binding=binding, expires=NOW + 1)
    hold(set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), "alphabet", token)
    agree("payload", sealer.open("cursor", token, binding=binding, now=NOW), payload)
    refuses(sealer, "state", token, binding)
    refuses(sealer, "cursor", token, binding + b"x")
    refuses(sealer, "cursor", token, binding, NOW + 1)
    refuses(_other, "cursor", token, binding)
    numbers = [int(piece) for piece in where.split()[:2] if piece.isdigit() and len(piece) < 9]
    begin = numbers[0] % (len(token) + 1) if numbers else 0
    end = begin + numbers[1] if len(numbers) > 1 else begin + 1
    for text in (put.decode("latin-1"), put.decode("utf-8", "surrogateescape")):
        changed = token[:begin] + text + token[end:]
        if changed != token:
            refuses(sealer, "cursor", changed, binding)
        refuses(sealer, "cursor", text, binding)
    refuses(sealer, "cursor", payload.decode("latin-1"), binding)
    for text in (payload.decode("latin-1"), put.decode("latin-1")):
        try:
            agree("key", len(key_from_text(text)), KEY_BYTES)
        except ConfigurationError as error:
            hold(text.strip() == "" or len(text) < 8 or text not in str(error), "the key is repeated", str(error))
