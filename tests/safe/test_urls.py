"""URLs put together from a peer's parts: the parts stay where the program put them."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import ConfigurationError
from garrison.safe.urls import SafeUrl, UrlRefused, url

USERS = SafeUrl("https://api.example.com/v1/users/{id}")


def test_a_value_is_one_segment() -> None:
    assert USERS.build(id="ann") == "https://api.example.com/v1/users/ann"
    assert USERS.build(id=7) == "https://api.example.com/v1/users/7"
    assert USERS.build(id="Zoë Ω") == "https://api.example.com/v1/users/Zo%C3%AB%20%CE%A9"
    assert USERS.build(id="a.b..c-d_e~f") == "https://api.example.com/v1/users/a.b..c-d_e~f"
    assert USERS.build(id="me@example.com+x") == "https://api.example.com/v1/users/me%40example.com%2Bx"
    assert url("https://a/{x}/{y}.json", x="1", y="...") == "https://a/1/....json"
    assert USERS.variables == ("id",)


def test_a_query_is_a_dictionary() -> None:
    assert (
        url("https://a", {"q": "a&b=c #d+e", "all": True, "n": 1.5})
        == "https://a?q=a%26b%3Dc%20%23d%2Be&all=true&n=1.5"
    )
    assert url("https://a/?x=1", {"tag": ["a", "b"]}) == "https://a/?x=1&tag=a&tag=b"
    assert url("https://a/?x={x}&", {"y": 1}, x="\n") == "https://a/?x=%0A&y=1"
    assert url("https://a/", {"tag": []}) == url("https://a/", {}) == "https://a/"


@pytest.mark.app
@pytest.mark.attack("ATK-139")
@pytest.mark.parametrize(
    "value",
    ["../../admin", "..", ".", "a/../b", "..\\admin", "%2e%2e/admin", "%252e%252e%252fadmin", "..;/admin", "..%00",
     "a/.", "", "a\nb", "\x00", "\x85", "\u2028", "\ud800", "a%0d%0aHost:%20evil", "x" * 1025],
)  # fmt: skip
def test_values_that_lead_elsewhere_are_refused(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UrlRefused, match=r"^id: ") as caught:
        USERS.build(id=value)
    assert len(value) < 2 or value not in str(caught.value)
    assert [cast("Any", record).event for record in caplog.records] == ["url.refused"]


@pytest.mark.app
@pytest.mark.attack("ATK-139")
@pytest.mark.parametrize(
    "value", ["x?y=1", "x#", "//evil", "/admin", "@evil", "a;b", "http://evil/", "x&y", "%", "C:\\x"]
)
def test_marks_of_urls_are_encoded(value: str) -> None:
    made = USERS.build(id=value)
    naive = f"https://api.example.com/v1/users/{value}"
    assert urlsplit(made).path.split("/")[1:3] == ["v1", "users"] and len(urlsplit(made).path.split("/")) == 4
    assert (urlsplit(made).query, urlsplit(made).fragment) == ("", "")
    assert unquote(urlsplit(made).path.rpartition("/")[2]) == value
    assert made != naive  # what a program gets that formats


@pytest.mark.app
@pytest.mark.attack("ATK-139")
def test_no_value_can_make_a_dot_segment_with_its_neighbours() -> None:
    template = SafeUrl("https://a/{x}{y}/.{z}")
    for values in ({"x": ".", "y": "a", "z": "b"}, {"x": "a", "y": "b", "z": "."}):
        with pytest.raises(UrlRefused):
            template.build(**values)
    assert template.build(x="a", y="b", z="c") == "https://a/ab/.c"


@pytest.mark.parametrize(
    "template",
    ["", "/v1/{id}", "//host/{id}", "ftp://host/", "{scheme}://host/", "https://{host}/", "https://api.{host}/",
     "https://host:{port}/", "https://host{path}", "https://user@host/", "https://host/#{x}", "https://host/{x.y}",
     "https://host/{x[0]}", "https://host/{x!r}", "https://host/{}", "https://host/{0}", "https://host/{x", "https://host/x}",
     "https://host/{{x}}", "https://host/ {x}", "https://host/é", "https://host/../{x}", "https://host\\{x}"],
)  # fmt: skip
def test_templates_that_are_none(template: Any) -> None:
    with pytest.raises(ConfigurationError, match="SafeUrl"):
        SafeUrl(template)


def test_values_are_those_of_the_template() -> None:
    for values in ({}, {"id": "1", "x": "2"}, {"x": "1"}):
        with pytest.raises(TypeError, match="id"):
            USERS.build(**values)
    for value in (None, b"x", ["x"], object()):
        with pytest.raises(TypeError):
            USERS.build(id=cast("Any", value))
    assert url("https://a/{query}", query="x") == "https://a/x"
    with pytest.raises(ConfigurationError, match="max_chars"):
        SafeUrl("https://a", max_chars=0)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_inert(segment: str, value: str, key: str) -> None:
    template = SafeUrl("https://api.example.com/v1/{segment}/end?fixed=1&value={value}")
    try:
        made = template.build({key: value}, segment=segment, value=value)
    except UrlRefused:
        return
    assert re.fullmatch(r"[!-~]+", made)
    parts = urlsplit(made)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "api.example.com", "")
    head, own, end = parts.path[1:].split("/")
    assert (head, unquote(own, errors="strict"), end) == ("v1", segment, "end")
    found = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    assert found == [("fixed", "1"), ("value", value), (key, value)]
