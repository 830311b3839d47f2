"""URIs: refused with `UriError` or taken apart as RFC 3986 does, in time that grows with the length and no faster."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

from fuzz.oracle import agree, chance, hold, pumped, steps
from garrison.protocol.uri import UriError, is_uri_text, parse_uri, percent_decode

SEEDS = (
    b"https://example.com:443/a/b%20c?q=1#f",
    b"file:///etc/passwd",
    b"custom:opaque",
    b"HTTP://[2001:db8::1]:80/",
    b"http://u:p@h/",
    b"x://h:99999/",
    b"a:%C3%A9%00%2e%2E%zz",
    b"http://[::1]x/",
    b"x:/a[b]",
)
WORDS = (
    b"://",
    b"//",
    b"%2F",
    b"%00",
    b"%C3%A9",
    b"%",
    b"[::1]",
    b"[",
    b"]",
    b"@",
    b":0",
    b"?",
    b"#",
    b"..",
    b"\\",
    b"file:",
    b"::ffff:1.2.3.4",
)

_APPENDIX_B = re.compile(r"(?:([^:/?#]+):)(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        uri = parse_uri(text)
    except UriError as error:
        hold(len(str(error)) < 120, "what is said", str(error))
    else:
        match = _APPENDIX_B.fullmatch(text)
        hold(match, "RFC 3986, appendix B, does not match", text)
        if match:
            scheme, *rest = match.groups()
            agree("parts", (uri.scheme, uri.authority, uri.path, uri.query, uri.fragment), (scheme.lower(), *rest))
        again = uri.scheme + ":" + ("" if uri.authority is None else "//" + uri.authority) + uri.path
        again += ("" if uri.query is None else "?" + uri.query) + ("" if uri.fragment is None else "#" + uri.fragment)
        agree("again", (again, uri.raw), (uri.scheme + text[len(uri.scheme) :], text))
        hold(text.isascii() and text.isprintable() and not set(' "<>\\^`{|}') & set(text), "characters", text)
        host(text)
    decode(text)
    if chance(data).random() < 0.005:
        long = pumped(data, 10_000).decode("utf-8", "surrogateescape")
        for call in (parse_uri, percent_decode, is_uri_text):
            hold(steps(lambda call=call: _quietly(call, long)) < 20 * len(long) + 1000, "steps", call.__name__)


def host(text: str) -> None:
    """The standard library sees no user, and the same port."""
    split = urlsplit(text)
    hold(split.username is None and split.password is None, "user information", text)
    if split.netloc and split.scheme:
        hold(split.port is None or 0 <= split.port <= 65535, "port", text)


def decode(text: str) -> None:
    try:
        value = percent_decode(text)
    except UriError:
        whole = text.isascii() and not re.search("%(?![0-9A-Fa-f]{2})", text)
        if whole:
            raw = unquote_to_bytes(text)
            hold(b"\0" in raw or not _utf8(raw), "refused", text)
        return
    agree("decoded", value.encode(), unquote_to_bytes(text))
    hold("\0" not in value, "NUL")


def _utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quietly(call: object, text: str) -> None:
    try:
        call(text)  # pyright: ignore[reportCallIssue] - one of three functions of a text
    except UriError:
        return
