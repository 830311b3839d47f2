"""URIs: RFC 3986's own examples pass, and text that two readers could read differently does not."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.protocol.uri import MAX_URI_CHARS, Uri, UriError, parse_uri, percent_decode


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ftp://ftp.is.co.za/rfc/rfc1808.txt", ("ftp", "ftp.is.co.za", "/rfc/rfc1808.txt", None, None)),
        ("ldap://[2001:db8::7]/c=GB?objectClass?one", ("ldap", "[2001:db8::7]", "/c=GB", "objectClass?one", None)),
        ("mailto:John.Doe@example.com", ("mailto", None, "John.Doe@example.com", None, None)),
        ("tel:+1-816-555-1212", ("tel", None, "+1-816-555-1212", None, None)),
        ("telnet://192.0.2.16:80/", ("telnet", "192.0.2.16:80", "/", None, None)),
        ("urn:oasis:names:docbook:4.1.2", ("urn", None, "oasis:names:docbook:4.1.2", None, None)),
        ("foo://example.com:8042/over/there?name=ferret#nose",
         ("foo", "example.com:8042", "/over/there", "name=ferret", "nose")),
        ("FILE:///a%20b", ("file", "", "/a%20b", None, None)),
        ("a:", ("a", None, "", None, None)),
        ("a:?#", ("a", None, "", "", "")),
        ("a://h?q/?#f/?", ("a", "h", "", "q/?", "f/?")),
    ],
)  # fmt: skip
def test_good_uris(text: str, parts: tuple[str, str | None, str, str | None, str | None]) -> None:
    assert parse_uri(text) == Uri(*parts, text)


@pytest.mark.parametrize(
    "text",
    [
        "", "relative/path", "//host/path", "://x", "1a:b", "a_b:c", "a\x00:b",
        "a:b c", "a:b\n", "\ta:b", "a:b\\c", "a:b\x7f", "http://ex\u0430mple.com/", "a:\ufb03",
        "a:<b>", 'a:"', "a:{b}", "a:^", "a:|", "a:`",
        "a:%", "a:%2", "a:%zz", "a:%2g", "a:% 2",
        "http://user@host/", "http://user:secret@host/", "http://@host/", "http://good.com@evil.com/",
        "http://host:port/", "http://host:80:80/", "http://host:65536/", "http://host:999999999/", "http://h[o]st/",
        "http://[::1/", "http://[::1]x/", "http://[]/", "http://[:::]/", "http://[v1.x]/",
        "a:[b]", "a:b?[c]", "a:b#c#d", "a:b#[c]", "a:" + "b" * MAX_URI_CHARS,
    ],
)  # fmt: skip
def test_bad_uris(text: str) -> None:
    with pytest.raises(UriError):
        parse_uri(text)


@given(st.text(alphabet="ab:/?#[]@%2Ff. \\é\n", max_size=30))
def test_what_is_accepted_is_read_as_the_standard_library_reads_it(rest: str) -> None:
    try:
        uri = parse_uri("x:" + rest)
    except UriError:
        return
    other = urlsplit(uri.raw)
    assert (uri.scheme, uri.authority or "", uri.path, uri.query or "", uri.fragment or "") == tuple(other)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_decoding_undoes_quoting(text: str) -> None:
    assert percent_decode(quote(text, safe="")) == text


def test_decoding_happens_once() -> None:
    assert percent_decode("%252e%252E%2f") == "%2e%2E/"
    assert percent_decode("a+b") == "a+b"


@pytest.mark.parametrize("text", ["%", "a%2", "%zz", "%+1", "%%41", "%ff", "%c0%af", "%ed%a0%80", "%00", "\0", "é"])
def test_what_is_not_decoded(text: str) -> None:
    with pytest.raises(UriError):
        percent_decode(text)


@pytest.mark.parametrize("unit", ["a", "%41", "%", ":", "/", "@", "[", "?", "#", "1"])
def test_hostile_uris_take_linear_time(unit: str) -> None:
    start = time.process_time()
    for text in ("a://" + (unit * 65_000)[:65_000], "a:" + (unit * 65_000)[:65_000] + "\\", unit * 100_000):
        with contextlib.suppress(UriError):
            parse_uri(text)
    assert time.process_time() - start < 0.15
