"""Values in headers: what is encoded can stand in a header and is read back; only the same name passes."""

from __future__ import annotations

import re
from base64 import b64encode

from fuzz.oracle import Finding, agree, hold, parts
from garrison.errors import HeaderMismatch
from garrison.protocol.headers import SAFE_INTEGER, check_name, decode_value, encode_value

SEEDS = (
    b"search\nsearch",
    b"=?base64?aMOpbGxv?=\nh\xc3\xa9llo",
    b"=?base64??=\n",
    b"=?base64?YWJj\nx",
    b"9007199254740991\n-9007199254740992",
    b" padded\n padded ",
    b"=?base64?aGk=?=\n=?base64?aGk=?=",
)
WORDS = (b"=?base64?", b"?=", b"=?BASE64?", b"=?base64??=", b"YQ==", b"YR==", b"\t", b" ", b"\x7f", b"\xc3\xa9", b"\n")


def reference(text: str) -> str | None:
    """The value, or None for what is refused."""
    match = re.fullmatch(r"=\?base64\?(.*)\?=", text, re.DOTALL)
    if match is None:
        return text if all(char == "\t" or " " <= char <= "~" for char in text) else None
    for value in _decodings(match[1]):
        if b64encode(value.encode()).decode() == match[1]:
            return value
    return None


def _decodings(body: str) -> list[str]:
    import base64

    try:
        return [base64.b64decode(body, validate=True).decode()]
    except ValueError:
        return []


def check(data: bytes) -> None:
    header, body = parts(data, 2)
    text = header.decode("latin-1")
    try:
        value = decode_value(text)
    except HeaderMismatch as error:
        hold(len(str(error)) < 200 and str(error).isascii() and str(error).isprintable(), "what is said", str(error))
        agree("refused", reference(text), None)
    else:
        agree("value", value, reference(text))
        round_trip(value)
    said = body.decode("utf-8", "surrogateescape")
    round_trip(said)
    number(header)
    name(text, said)


def round_trip(value: str) -> None:
    try:
        encoded = encode_value(value)
    except ValueError:
        hold(any("\ud800" <= char <= "\udfff" for char in value), "not encoded", value)
        return
    hold(re.fullmatch(r"|[!-~]|[!-~][ -~]*[!-~]", encoded), "cannot stand in a header", encoded)
    agree("back", decode_value(encoded), value)
    check_name(encoded, value)


def number(text: bytes) -> None:
    """Integers, as far as the text is one."""
    if not re.fullmatch(rb"-?[0-9]{1,20}", text):
        return
    value = int(text)
    try:
        encoded = encode_value(value)
    except ValueError:
        hold(abs(value) > SAFE_INTEGER, "not encoded", value)
        return
    agree("integer", (int(encoded), abs(value) <= SAFE_INTEGER), (value, True))


def name(header: str, body: str) -> None:
    """The name in the header passes only where it is the name in the body."""
    expected = reference(header)
    try:
        check_name(header, body)
    except HeaderMismatch as error:
        hold(expected is None or expected != body, "refused", header, body)
        hold(str(error).isascii() and str(error).isprintable() and len(str(error)) < 300, "what is said", str(error))
        return
    if expected != body:
        raise Finding(f"passed: {header!r} as {body!r}")
