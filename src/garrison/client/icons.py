"""Icons that a server names: which of them may be shown, and how one is fetched, for a host that wants to show it.

    found = check_icon(icon, "https://example.com/mcp")         # an image, or the address of one
    image = await fetch_icon(icon, "https://example.com/mcp")   # asks the network, when somebody wants to see it

Rules of this file:
- Nothing is fetched by looking at an icon. `fetch_icon` is the only way out: without credentials, to the server's own
  origin, through `SafeFetch`, and no redirect is followed.
- An image is PNG, JPEG or WebP by its bytes, whatever its type says; SVG is a document with scripts, and refused.
- Bytes are bounded before they are decoded, and pixels before anybody else decodes them.

Spec: 2026-07-28 basic, "Icons"; RFC 2397; PNG 11.2.1; ITU-T T.81 B.2.2; RFC 9649.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from .words import refused, said

if TYPE_CHECKING:
    from ..errors import ProtocolViolation
    from ..protocol import types as t
    from ..safe.fetch import SafeFetch

__all__ = ["MAX_BYTES", "MAX_SIDE", "IconImage", "check_icon", "fetch_icon", "read_icon"]

MAX_BYTES: Final = 256 * 1024
"""Bytes of an image."""
MAX_SIDE: Final = 1024
"""Pixels of its width, and of its height."""

_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
_ALIASES: Final = {"image/jpg": "image/jpeg"}
_DATA: Final = re.compile(r"data:([a-z0-9.+/-]{1,64});base64,", re.IGNORECASE)
_OK: Final = 200
_SHOWN: Final = 120

# Markers of JPEG: frames, which hold the size, and those without a length.
_FRAMES: Final = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


class IconImage(NamedTuple):
    """An image that may be shown."""

    media_type: str
    width: int
    height: int
    """In pixels."""
    data: bytes


def check_icon(icon: t.Icon, server_url: str | None) -> IconImage | str:
    """Judge an icon without fetching anything.

    Args:
        icon: as the server named it.
        server_url: the server's own address; None of one that has none, like a program.

    Returns:
        The image of a `data:` URI, or the https address of one at the server's own origin.

    Raises:
        ProtocolViolation: it is neither, or the image is not allowed.
    """
    declared = _declared(icon.mime_type)
    source = icon.src
    if source[:5].lower() == "data:":
        return _from_data(source, declared)
    from ..transports.http.url import UrlError, parse_endpoint  # lazy: most clients show no icon

    try:
        endpoint = parse_endpoint(source)
        own = None if server_url is None else parse_endpoint(server_url).origin
    except UrlError as exc:
        raise _refused(f"{said(source, _SHOWN)!r} is no address of one: {said(exc)}") from None
    if not endpoint.secure:
        raise _refused(f"{said(source, _SHOWN)!r} is neither https nor data")
    if endpoint.origin != own:
        raise _refused(f"{said(source, _SHOWN)!r} is not at the server's own origin")
    return endpoint.origin + endpoint.target


async def fetch_icon(icon: t.Icon, server_url: str | None, *, fetch: SafeFetch | None = None) -> IconImage:
    """The image of an icon, fetched if need be. To be called when somebody wants to see it, and not before.

    Args:
        icon, server_url: as of `check_icon`.
        fetch: what fetches; one that reaches the public Internet by default.

    Raises:
        ProtocolViolation: the icon is not allowed, or what came is not an image that is.
        FetchRefused, ClientError: it could not be fetched.
    """
    found = check_icon(icon, server_url)
    if not isinstance(found, str):
        return found
    from ..safe.fetch import SafeFetch  # lazy: most clients show no icon

    way = fetch or SafeFetch(max_bytes=MAX_BYTES, media_types=(*_TYPES, *_ALIASES))
    answer = await way.get(found, redirects=0)
    if answer.status != _OK:
        raise _refused(f"{said(found, _SHOWN)!r} was answered with HTTP status {answer.status}")
    return read_icon(answer.body, _declared(icon.mime_type))


def read_icon(data: bytes, media_type: str | None = None) -> IconImage:
    """The type and size of an image, from its first bytes.

    Args:
        data: the image.
        media_type: what it is said to be.

    Raises:
        ProtocolViolation: it is no PNG, JPEG or WebP, not what it is said to be, or too large.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"it is larger than {MAX_BYTES} bytes")
    for kind, size_of in _READERS:
        size = size_of(data)
        if size is None:
            continue
        if media_type not in (None, kind):
            raise _refused(f"it is {kind} and is said to be {media_type}")
        width, height = size
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            raise _refused(f"it has {width} x {height} pixels, and more than {MAX_SIDE} a side are not shown")
        return IconImage(kind, width, height, data)
    raise _refused("it is neither PNG nor JPEG nor WebP")


def _declared(media_type: str | None) -> str | None:
    if media_type is None:
        return None
    name = media_type.partition(";")[0].strip().lower()
    name = _ALIASES.get(name, name)
    if name not in _TYPES:
        raise _refused(f"{said(media_type, _SHOWN)!r} is not shown: PNG, JPEG and WebP are")
    return name


def _from_data(source: str, declared: str | None) -> IconImage:
    from ..gate.media import canonical_base64

    head = _DATA.match(source)
    if head is None:
        raise _refused("a data: address that is not an image in Base64")
    if len(source) - head.end() > MAX_BYTES // 3 * 4 + 4:
        raise _refused(f"it is larger than {MAX_BYTES} bytes")
    named = _declared(head[1])
    if declared not in (None, named):
        raise _refused(f"it is said to be {declared} and {named}")
    data = canonical_base64(source[head.end() :])
    if data is None:
        raise _refused("a data: address that is not an image in Base64")
    return read_icon(data, named)


def _png(data: bytes) -> tuple[int, int] | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _jpeg(data: bytes) -> tuple[int, int] | None:
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in (0xD9, 0xDA):  # the image, and no frame before it
            return None
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


_READERS: Final = (("image/png", _png), ("image/jpeg", _jpeg), ("image/webp", _webp))


def _refused(why: str) -> ProtocolViolation:
    return refused(f"An icon is not shown: {why}")
