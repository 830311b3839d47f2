"""Whether bytes are what their type says: `check_media`, `canonical_base64`.

Rules of this file:
- A type that stands in the table has a signature, and its bytes begin with it. That says what a viewer will take them
  for, not that the file is sound.
- An image, sound or film that is not in the table passes unless it looks like markup or a script. Other types are not
  looked into: their text is text.
- SVG is a document with scripts. It passes as an image only where the caller says so.

Spec: 2026-07-28 server/tools "Image Content", "Audio Content"; WHATWG MIME Sniffing; RFC 4648 section 3.5 (canonical
encoding).
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64
from typing import Final

__all__ = ["canonical_base64", "check_media"]

_HEAD: Final = 1024

_AAC: Final = rb"\xff[\xf0\xf1\xf8\xf9]|ADIF"
_MP3: Final = rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"
_EBML: Final = rb"\x1a\x45\xdf\xa3"
_BRANDED: Final = rb".{4}ftyp(?:.{4}){0,32}?"


def _brands(*names: str) -> bytes:
    """An ISO base media file that names one of these brands."""
    return _BRANDED + b"(?:" + "|".join(names).encode() + b")"


# Each type with what its bytes begin with, as a pattern.
_SIGNATURES: Final[dict[str, bytes]] = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/apng": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF.{4}WEBP",
    "image/avif": _brands("avif", "avis"),
    "image/heic": _brands("heic", "heix", "hevc", "hevx", "heim", "heis"),
    "image/heif": _brands("heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1"),
    "image/bmp": rb"BM",
    "image/tiff": rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+",
    "image/x-icon": rb"\x00\x00[\x01\x02]\x00",
    "image/jxl": rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
    "audio/wav": rb"(?:RIFF|RF64|RIFX).{4}WAVE",
    "audio/mpeg": _MP3,
    "audio/ogg": rb"OggS",
    "audio/flac": rb"fLaC",
    "audio/aac": _AAC,
    "audio/mp4": rb".{4}ftyp",
    "audio/webm": _EBML,
    "video/webm": _EBML,
    "video/mp4": rb".{4}ftyp",
    "video/ogg": rb"OggS",
    "application/ogg": rb"OggS",
    "application/pdf": rb"%PDF-",
    "application/zip": rb"PK(?:\x03\x04|\x05\x06|\x07\x08)",
    "application/gzip": rb"\x1f\x8b",
}
_SYNONYMS: Final = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/ico": "image/x-icon",
    "image/heic-sequence": "image/heic",
    "image/heif-sequence": "image/heif",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/mpeg3": "audio/mpeg",
    "audio/x-mpeg": "audio/mpeg",
    "audio/opus": "audio/ogg",
    "audio/x-flac": "audio/flac",
    "audio/aacp": "audio/aac",
    "audio/x-aac": "audio/aac",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "application/x-zip-compressed": "application/zip",
    "application/x-gzip": "application/gzip",
}
_SEEN_OR_HEARD: Final = ("image/", "audio/", "video/")
_SVG: Final = "image/svg+xml"
_MARKUP: Final = re.compile(
    rb"\s*(?:<[!?/a-z]|#!|(?:var|let|const|function|import|window|document)\b|\(?function\b|%!ps)", re.IGNORECASE
)
_SVG_ROOT: Final = re.compile(rb"\s*(?:<\?xml.*?\?>\s*|<!--.*?-->\s*|<!DOCTYPE svg[^\[>]*>\s*)*+<svg[\s>]", re.DOTALL)


def check_media(declared: str, data: bytes, *, allow_svg: bool = False) -> str | None:
    """Why these bytes are not of their declared type, or None where nothing speaks against it.

    Args:
        declared: a media type, with or without parameters.
        data: the content; its beginning is looked at.
        allow_svg: True where SVG may pass as an image. Whoever shows it runs its scripts.

    Returns:
        A rule for the log: never a part of the content.
    """
    kind = declared.partition(";")[0].strip().lower()
    kind = _SYNONYMS.get(kind, kind)
    head = data[:_HEAD]
    if kind.startswith(_SVG):
        if not allow_svg:
            return "image/svg+xml is a document with scripts, not an image"
        return None if _SVG_ROOT.match(_plain(head)) else "declared image/svg+xml, and does not begin with <svg>"
    signature = _SIGNATURES.get(kind)
    if signature is not None:
        return None if re.match(signature, head, re.DOTALL) else f"declared {kind}, and does not begin like one"
    if kind.startswith(_SEEN_OR_HEARD):
        if _MARKUP.match(_plain(head)):
            return "declared an image, sound or film, and looks like markup or a script"
        if not data:
            return "declared an image, sound or film, and is empty"
    return None


def canonical_base64(text: str) -> bytes | None:
    """The bytes of a Base64 text of the plain alphabet, padded, without other characters or stray bits; else None."""
    if len(text) % 4 or not text.isascii():
        return None
    try:
        data = a2b_base64(text, strict_mode=True)
    except Error:
        return None
    return data if b2a_base64(data, newline=False) == text.encode() else None


def _plain(head: bytes) -> bytes:
    """What markup looks like to a viewer: without byte order marks, and without the zeros of UTF-16."""
    return head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").replace(b"\x00", b"")
