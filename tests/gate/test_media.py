"""Binary content is of its declared type, and Base64 is written in one way only."""

from __future__ import annotations

from binascii import b2a_base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.gate.media import canonical_base64, check_media

FTYP = b"\x00\x00\x00\x1cftyp"
GENUINE = {
    "image/png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "image/gif": b"GIF89a\x01\x00",
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "image/avif": FTYP + b"avif\x00\x00\x00\x00mif1avif",
    "image/heic": FTYP + b"mif1\x00\x00\x00\x00mif1heic",
    "image/bmp": b"BM\x46\x00\x00\x00",
    "image/tiff": b"II*\x00\x08\x00",
    "image/x-icon": b"\x00\x00\x01\x00\x01\x00",
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "audio/mpeg": b"ID3\x04\x00",
    "audio/mp3": b"\xff\xfb\x90\x64",
    "audio/ogg": b"OggS\x00\x02",
    "audio/flac": b"fLaC\x00\x00",
    "audio/aac": b"\xff\xf1\x50\x80",
    "audio/m4a": FTYP + b"M4A \x00\x00\x00\x00",
    "audio/webm": b"\x1a\x45\xdf\xa3\x01",
    "video/mp4": FTYP + b"isom\x00\x00\x02\x00",
    "application/pdf": b"%PDF-1.7\n",
    "application/zip": b"PK\x03\x04\x14\x00",
}
PAGES = [
    b"<!DOCTYPE html><script>alert(1)</script>",
    b"\n  <HTML><body onload=x>",
    b"\xef\xbb\xbf<script>fetch('//evil')</script>",
    b"\xff\xfe<\x00s\x00c\x00r\x00i\x00p\x00t\x00>\x00",
    b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' onload='x'/>",
    b"<svg onload=alert(1)>",
    b"#!/bin/sh\nrm -rf ~\n",
    b"function x() {}",
    b"<!-- --><img src=x onerror=y>",
]


@pytest.mark.attack("ATK-144")
@pytest.mark.app
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", [*GENUINE, "image/unheard-of", "audio/unheard-of", "IMAGE/PNG; x=y", "image/svg+xml"])
def test_a_page_is_no_picture(kind: str, page: bytes) -> None:
    reason = check_media(kind, page)
    assert reason is not None and "alert" not in reason


@pytest.mark.attack("ATK-144")
@pytest.mark.app
@pytest.mark.parametrize("kind", GENUINE)
def test_genuine_content_passes(kind: str) -> None:
    assert check_media(kind, GENUINE[kind]) is None
    assert check_media(f" {kind.upper()} ; a=b", GENUINE[kind] + b"<script>") is None


def test_one_picture_is_not_another() -> None:
    """Of types with a signature of their own, none passes for another."""
    boxed = {"audio/m4a", "video/mp4", "image/avif", "image/heic"}  # one container, told apart by brands
    alike = [{"audio/mp3", "audio/mpeg"}]
    passed = [
        (kind, other)
        for kind in GENUINE
        for other in GENUINE
        if kind != other and {kind, other} not in alike and check_media(kind, GENUINE[other]) is None
    ]
    assert all({kind, other} <= boxed for kind, other in passed), passed
    assert not [kind for kind, other in passed if kind.startswith("image/")], passed
    assert check_media("image/avif", GENUINE["video/mp4"]) is not None
    assert check_media("image/png", b"") is not None and check_media("image/unheard-of", b"") is not None


def test_other_types_are_not_looked_into() -> None:
    for kind in ("text/html", "application/json", "application/octet-stream", "", "nonsense"):
        assert check_media(kind, PAGES[0]) is None
    assert check_media("image/unheard-of", b"\x01\x02\x03") is None


def test_svg_passes_where_it_is_allowed() -> None:
    assert check_media("image/svg+xml", b"<svg/ >") == check_media("image/svg+xml; charset=utf-8", b"<svg>") is not None
    for text in (b"<svg>", b"<?xml version='1.0'?>\n<!-- x --><!DOCTYPE svg PUBLIC '-'>\n<svg xmlns='x'>"):
        assert check_media("image/svg+xml", text, allow_svg=True) is None
    assert check_media("image/svg+xml", PAGES[0], allow_svg=True) is not None
    assert check_media("image/svg+xml", b"<!---->" * 200, allow_svg=True) is not None


@given(st.binary(max_size=60), st.sampled_from([*GENUINE, "image/x", "image/svg+xml", "text/plain"]))
def test_any_bytes_get_an_answer(data: bytes, kind: str) -> None:
    reason = check_media(kind, data, allow_svg=True)
    assert reason is None or (reason and reason.isascii())


@given(st.binary(max_size=60))
def test_base64_is_read_as_it_is_written(data: bytes) -> None:
    assert canonical_base64(b2a_base64(data, newline=False).decode()) == data


@pytest.mark.parametrize(
    "text",
    [
        "YQ",
        "YQ=",
        "YR==",
        "YWJ=x",
        "YQ==\n",
        " YQ==",
        "YQ==YQ==",
        "Y-_=",
        "====",
        "=",
        "YQ\n==",
        "ÄÄÄÄ",
        "YWI=YWI=",
        "YW==",
    ],
)
def test_other_base64_is_refused(text: str) -> None:
    assert canonical_base64(text) is None


def test_base64_of_nothing_and_little() -> None:
    assert canonical_base64("") == b"" and canonical_base64("YQ==") == b"a"
