"""URIs as RFC 3986 writes them, and nothing that only looks like one.

Rules of this file:
- A URI is ASCII with a scheme. Spaces, controls, backslashes, raw non-ASCII and broken percent escapes are refused,
  because two readers of such text may see two different places.
- User information (`user:password@host`) is refused: it names no resource and misleads people about the host.
- Nothing is normalized or decoded on the way in; `percent_decode` decodes once, when the caller asks for it.
- Every pattern runs in linear time.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["MAX_URI_CHARS", "Uri", "UriError", "is_uri_text", "parse_uri", "percent_decode"]

MAX_URI_CHARS: Final = 64 * 1024

_UNRESERVED_AND_SUB_DELIMS = r"A-Za-z0-9\-._~!$&'()*+,;="
_TEXT = re.compile(
    rf"[{_UNRESERVED_AND_SUB_DELIMS}:/?#\[\]@]*+(?:%[0-9A-Fa-f]{{2}}[{_UNRESERVED_AND_SUB_DELIMS}:/?#\[\]@]*+)*+"
)
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*+):(?://([^/?#]*+))?([^?#]*+)(?:\?([^#]*+))?(?:#(.*+))?")
_AUTHORITY = re.compile(rf"(?:\[([0-9A-Fa-f:.]++)\]|[{_UNRESERVED_AND_SUB_DELIMS}%]*+)(?::([0-9]*+))?")
_ESCAPES: Final = {
    f"{a}{b}": bytes((int(a + b, 16),)) for a in "0123456789abcdefABCDEF" for b in "0123456789abcdefABCDEF"
}


class UriError(ValueError):
    """The text is not an acceptable URI. The message names the rule and never repeats the text."""


class Uri(msgspec.Struct, frozen=True):
    """A parsed URI (RFC 3986, section 3). Parts stand as written, percent escapes included; the scheme is lower case.

    `authority`, `query` and `fragment` are None when absent, which is not the same as empty. `raw` is the whole text.
    """

    scheme: str
    authority: str | None
    path: str
    query: str | None
    fragment: str | None
    raw: str


def is_uri_text(text: str) -> bool:
    """Whether the text holds only characters and percent escapes that a URI may hold, at most `MAX_URI_CHARS`."""
    return len(text) <= MAX_URI_CHARS and _TEXT.fullmatch(text) is not None


def parse_uri(text: str) -> Uri:
    """Take a URI apart.

    Raises:
        UriError: it is longer than `MAX_URI_CHARS`, has no scheme, or breaks RFC 3986 or a rule of this file.
    """
    if not is_uri_text(text):
        raise UriError(f"a URI must be at most {MAX_URI_CHARS} characters, ASCII, with whole percent escapes")
    match = _PARTS.fullmatch(text)
    if match is None:
        raise UriError("a URI must begin with a scheme")
    scheme, authority, path, query, fragment = match.groups()
    if authority is not None:
        _check_authority(authority)
    for part in (path, query, fragment):
        if part is not None and ("[" in part or "]" in part or "#" in part):
            raise UriError("brackets and '#' must be percent-encoded outside the host")
    return Uri(scheme.lower(), authority, path, query, fragment, text)


def _check_authority(authority: str) -> None:
    if "@" in authority:
        raise UriError("a URI must not hold user information")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise UriError("the authority must be a host with an optional port")
    address, port = match.groups()
    if port and (len(port) > 5 or int(port) > 65535):
        raise UriError("the port must be at most 65535")
    if address is not None:
        from ipaddress import AddressValueError, IPv6Address

        try:
            IPv6Address(address)
        except AddressValueError:
            raise UriError("the bracketed host must be an IPv6 address") from None


def percent_decode(text: str) -> str:
    """Decode the percent escapes of a part of a URI, exactly once, as strict UTF-8.

    Raises:
        UriError: a broken escape, raw non-ASCII, bytes that are not UTF-8, or NUL.

    Spec: RFC 3986, sections 2.1 and 2.5.
    """
    if not text.isascii():
        raise UriError("a URI must be ASCII")
    decoded = text
    if "%" in text:
        first, *rest = text.split("%")
        pieces = [first.encode("ascii")]
        try:
            for piece in rest:
                pieces.append(_ESCAPES[piece[:2]])
                pieces.append(piece[2:].encode("ascii"))
            decoded = b"".join(pieces).decode()
        except KeyError:
            raise UriError("a percent sign must be followed by two hexadecimal digits") from None
        except UnicodeDecodeError:
            raise UriError("percent escapes must be UTF-8") from None
    if "\0" in decoded:
        raise UriError("a URI must not hold NUL")
    return decoded
