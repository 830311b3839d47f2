"""Addresses of pages that servers want visited: where they lead, and what a person is warned of."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.errors import NotApproved
from garrison.host.addresses import LONG, MAX_URL, check_page, open_page


def warned(url: str, *words: str) -> str:
    """The host, once each of the words stands in a warning."""
    page = check_page(url)
    for word in words:
        assert any(word in warning for warning in page.warnings), (word, page.warnings)
    return page.host


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/",
        "https://accounts.example.com/o/oauth2/v2/auth?client_id=1&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcb",
        "https://github.com/login/device",
        "https://login.example.co.uk/a/b?c=d#e",
        "https://app.example.com/@me/it's_(good)",
        "https://dev.example.com/x",
        "https://a-b.example.com/",
        "https://xn.example.com/",
    ],
)
def test_an_ordinary_page_has_no_warning(url: str) -> None:
    page = check_page(url)
    host, warnings, same = page
    assert (host, warnings, same) == (urlsplit(url).hostname, (), url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com", "http://127.0.0.1/", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"),
        *(
            "vbscript:x",
            "ftp://example.com",
            "about:blank",
            "ms-msdt:/id",
            "//example.com",
            "example.com",
            "",
            "https:",
        ),
        *("https:example.com", "https:/example.com", "https:///example.com", "https://", "https://?x", "https://:443/"),
        *(
            "https://google.com@evil.example/",
            "https://a:b@evil.example",
            "https://@evil.example/",
            "https://%40@x.org",
        ),
        *("https://evil.example\\@google.com", "https://evil.example\\.google.com", "https:\\\\evil.example"),
        *(
            "https://a.com\t/",
            "https://a.com\n",
            " https://a.com",
            "https://a.com ",
            "https://a .com",
            "https://a.com\0",
        ),
        *("https://a.com/\u202egnp.exe", "https://a.com/\u200b", "https://a\u200bb.com/", "https://a.com/\u2028x"),
        *(
            "https://%65vil.example/",
            "https://a%2ecom/",
            "https://a.com%2f@b.com/",
            "https://a.com/%zz",
            "https://a.com/%",
        ),
        *(
            "https://a..b/",
            "https://./",
            "https://-a.com/",
            "https://a-.com/",
            "https://a.com:0/",
            "https://a.com:65536/",
        ),
        *("https://a.com:1234567/", "https://a.com:x/", "https://a.com:\u0664\u0664\u0663/", "https://a.com:443:443/"),
        *(
            "https://256.0.0.1/",
            "https://1.2.3.4.5/",
            "https://4294967296/",
            "https://a.1/",
            "https://0x7f.x.1/",
            "https://08/",
        ),
        *(
            "https://[::1",
            "https://[::1]x/",
            "https://[::g]/",
            "https://[fe80::1%25eth0]/",
            "https://[]/",
            "https://[1.2.3.4]/",
        ),
        *(
            "https://\uff45vil.com/",
            "https://\uff11\uff12\uff17.0.0.1/",
            "https://evil\u3002com/",
            "https://\u24d6oogle.com/",
        ),
        *("https://evil.com\uff0fgoogle.com/", "https://evil.com\u2215google.com/", "https://a.com\uff20b.com/"),
        *(
            "https://xn--/",
            "https://xn--a.com/",
            "https://xn--abc-.com/",
            "https://xn--\u00fc.com/",
            "https://xn--ab\u00fc/",
        ),
        *(
            "https://a.com/ünicode",
            "https://a.com/<script>",
            'https://a.com/"x',
            "https://a.com/`x`",
            "https://a.com/{x}",
        ),
        *(
            "https://\ud800.com/",
            "https://a.com/?q=\ud800",
            "https://" + "a" * 64 + ".com/",
            "https://" + "a." * 130 + "com/",
        ),
        "https://a.com/" + "x" * MAX_URL,
    ],
)
def test_what_is_not_https_or_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(NotApproved):
        check_page(url)


def test_a_refusal_says_why() -> None:
    for url, why in (
        ("http://example.com", "https://"),
        ("https://google.com@evil.example/", "user information"),
        ("https://%65vil.example/", "escapes"),
        ("https://evil.example\\@google.com", "backslashes"),
        ("https://a.com/ü", "percent-encoded"),
        ("https://a.com:0/", "port"),
        ("https://" + "a" * MAX_URL, str(MAX_URL)),
    ):
        with pytest.raises(NotApproved, match=why):
            check_page(url)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        *(
            ("127.0.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0x7f.1", "127.0.0.1"),
        ),
        *(("0177.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("127.0.1", "127.0.0.1"), ("0X7F.0.0.0x1", "127.0.0.1")),
        *(("127.0.0.1.", "127.0.0.1"), ("0", "0.0.0.0"), ("0x", "0.0.0.0"), ("10.1", "10.0.0.1")),
        *(("169.254.169.254", "169.254.169.254"), ("2852039166", "169.254.169.254"), ("192.168.257", "192.168.1.1")),
        *(
            ("[::1]", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
            ("[fd00::1]", "fd00::1"),
        ),
        *(("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"), ("[FE80::1]", "fe80::1")),
    ],
)
def test_numbers_in_every_notation_are_shown_as_the_address_that_they_are(written: str, host: str) -> None:
    page = check_page(f"https://{written}/x")
    shown = str(ipaddress.ip_address(host))
    assert page.host == shown
    assert page.url == f"https://{f'[{shown}]' if ':' in shown else shown}/x"
    assert any("number" in warning for warning in page.warnings)
    assert any("not public" in warning for warning in page.warnings)


def test_a_public_number_is_warned_of_as_a_number_only() -> None:
    assert check_page("https://8.8.8.8/").warnings == ("it leads to a number (8.8.8.8), not to a name",)
    assert warned("https://134744072/", "unusual way") == "8.8.8.8"


def test_names_in_other_letters_are_shown_in_both_forms() -> None:
    assert warned("https://xn--ggle-55da.com/", "'g\u043e\u043egle.com'", "Cyrillic", "'google'") == "xn--ggle-55da.com"
    assert warned("https://g\u043e\u043egle.com/", "xn--ggle-55da.com", "Cyrillic") == "xn--ggle-55da.com"
    assert warned("https://\u0430\u0440\u0440\u04cf\u0435.com/", "looks like 'apple'") == "xn--80ak6aa92e.com"
    assert warned("https://\u05e9\u05dc\u05d5\u05dd.co.il/", "right to left") == "xn--9dbne9b.co.il"


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("日本語.jp", "xn--wgv71a119e.jp"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.de", "xn--strae-oqa.de"),  # as browsers do, and not "strasse.de"
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
    ],
)
def test_an_honest_name_in_other_letters_has_no_warning_but_its_two_forms(name: str, host: str) -> None:
    page = check_page(f"https://{name}/")
    assert page.host == host
    assert page.url == f"https://{host}/"
    assert len(page.warnings) == 1
    assert host in page.warnings[0]
    assert name.lower() in page.warnings[0]
    assert check_page(f"https://{host}/").warnings == page.warnings


def test_places_of_this_network_and_odd_addresses_are_warned_of() -> None:
    for name in ("localhost", "LOCALHOST.", "x.localhost", "nas.local", "intranet", "db.internal", "router.lan"):
        assert warned(f"https://{name}/", "not public") == name.lower().removesuffix(".")
    assert warned("https://a.com:8443/", "port 8443") == "a.com"
    assert warned("https://evil.example/https://google.com/", "leads to evil.example") == "evil.example"
    assert check_page("https://a.com/" + "x" * LONG).warnings == (f"it is long: {LONG + 14} characters",)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("google.com.evil.example", "evil.example"),
        ("accounts.google.com.evil.co.uk", "evil.co.uk"),
        ("google.com-login.evil.example", "evil.example"),
        ("google.com.evil.de", "evil.de"),
        ("www.example.org.a.b.c.evil.example", "evil.example"),
    ],
)
def test_a_well_known_name_in_front_of_another_is_pointed_out(name: str, owner: str) -> None:
    assert warned(f"https://{name}/", f"leads to {owner};") == name


@pytest.mark.parametrize(
    "name", ["www.google.com", "www.bbc.co.uk", "mail.google.com", "com.example.org", "a.b.c.example.org"]
)
def test_other_names_are_not(name: str) -> None:
    assert check_page(f"https://{name}/").warnings == ()


async def test_a_page_is_opened_in_its_ascii_form_and_only_if_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def opener(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr("garrison.auth.client.browser._open", opener)
    assert await open_page("https://bücher.example/a?b=c")
    assert await open_page("https://0x7f.1/")
    assert opened == ["https://xn--bcher-kva.example/a?b=c", "https://127.0.0.1/"]
    for url in (
        "http://example.com",
        "javascript:alert(1)",
        "https://a@b.com/",
        "https://a.com/$(id)",
        "https://a.com/;calc.exe",
        "https://a.com/'x'",
        "-https://a.com/",
        "--help",
    ):
        with pytest.raises(NotApproved):
            await open_page(url)
    assert len(opened) == 2


URLISH = st.text(st.sampled_from("htps:/@.%\\[]0123456789abcxn-#?&=\u0430\u00fc\u202e \t\uff0e\u3002"), max_size=24)


@settings(max_examples=400, deadline=None)
@given(URLISH, st.sampled_from(("https://", "https://a.com", "HTTPS:", "")))
def test_what_is_accepted_leads_where_other_readers_say(text: str, before: str) -> None:
    with contextlib.suppress(NotApproved):
        page = check_page(before + text)
        again = check_page(page.url)
        assert (again.host, again.url) == (page.host, page.url)
        parts = urlsplit(page.url)
        assert (parts.scheme, parts.hostname, parts.username) == ("https", page.host, None)
        assert page.url.isascii()
        seen: Any = urlsplit(before + text)
        assert "@" not in seen.netloc
