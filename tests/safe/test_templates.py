"""SafeTemplate: values of any text stay text, wherever a template may put them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import ConfigurationError, Secret
from garrison.safe.templates import SafeTemplate, TemplateRefused
from garrison.safe.urls import UrlRefused


def html(template: Any, /, **values: Any) -> str:
    return SafeTemplate(template, kind="html").render(**values)


def markdown(template: Any, /, **values: Any) -> str:
    return SafeTemplate(template, kind="markdown").render(**values)


def test_values_are_put_in() -> None:
    assert (
        SafeTemplate("Hello {name}, {{ok}} {n} {name}", kind="text").render(name="Ann", n=3) == "Hello Ann, {ok} 3 Ann"
    )
    assert html("<p title='{a}'>{b}</p>", a="x", b="y") == "<p title='x'>y</p>"
    assert html("<title>{a}</title><p>{a}", a="1 < 2") == "<title>1 &lt; 2</title><p>1 &lt; 2"
    assert html("<!-- a --><!doctype html><br/><script>x</script>{a}", a="<").endswith("</script>&lt;")
    assert markdown("# {title}\n\n{text}", title="Hello", text="one two") == "# Hello\n\none two"
    assert SafeTemplate("https://a/{id}", kind="url").render(id="a/b") == "https://a/a%2Fb"
    assert SafeTemplate("{b}{a}{b}", kind="text").names == ("b", "a")
    assert SafeTemplate("https://a/{b}", kind="url").names == ("b",)
    assert SafeTemplate("none", kind="html").render() == "none"


class Key:
    secret = "s3cret"


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize(
    "text", ["{x.__class__}", "{x.secret}", "{x[0]}", "{x!r}", "{x:>99999999}", "{}", "{0}", "{", "}"]
)
def test_a_place_is_a_plain_name(text: Any) -> None:
    kinds: Any
    for kinds in ("html", "markdown", "text"):
        with pytest.raises(ConfigurationError, match="plain name"):
            SafeTemplate(text, kind=kinds)
        # The same words as a value are words.
        made = SafeTemplate("{x}", kind=kinds).render(x=text)
        made = made.replace("&gt;", ">")
        made = made.replace("&gt;", ">")
        assert made.replace("\\", "") == text


@pytest.mark.app
@pytest.mark.attack("ATK-156")
def test_what_format_does() -> None:
    """The twin: `str.format` with a text of others reads attributes."""
    given = "{x.secret}"
    assert given.format(x=Key()) == "s3cret"
    assert SafeTemplate("{x}", kind="text").render(x="{x.secret}") == "{x.secret}"
    assert "s3cret" not in SafeTemplate("{x}{y}", kind="text").render(x="{y.secret}", y="{x}")


@pytest.mark.parametrize(
    "template",
    ["<script>{x}</script>", "<script>var a = '{x}'</script>", "<style>{x}</style>", "<p {x}>", "<p a={x}>",
     "<p a=b{x}>", "<p onclick='f(\"{x}\")'>", "<p style='{x}'>", "<!-- {x} -->", "<{x}>", "<p{x}>",
     "</{x}>", "<a href='java{x}'>",
     "<a href='javascript:{x}'>", "<a href='https://{x}/'>", "<a href='//{x}'>", "<a href='/#{x}'>",
     "<meta content='{x}'>",
     "<iframe srcdoc='{x}'>", "<iframe>{x}</iframe>", "<base href='{x}'>", "<object data='{x}'>", "<img srcset='{x}'>",
     "<p a='b'{x}>", "<link href='{x}'>", "<!doctype {x}>", "<textarea {x}>", "<SCRIPT>{x}</SCRIPT>", "a <{x}",
     "<script></scripty>{x}</script>", "<p a=x\u00a0title='{x}'>", "<!--><script>--></p>{x}", "<title></ti{x}",
     "<title><b a='</title><script>'>{x}",
     "<script></\u017fcript>{x}", "<!-- --!><script>-->{x}", "<p a=title='{x}'>",
     "<p`title='{x}'>", "<p a='b'/onclick='{x}'>",
     "<p\nONCLICK=\"{x}\">"],
)  # fmt: skip
def test_places_in_html_where_nothing_is_inert(template: Any) -> None:
    with pytest.raises(ConfigurationError, match="SafeTemplate: a place"):
        SafeTemplate(template, kind="html")


@pytest.mark.parametrize(
    "template",
    ["`{x}`", "```\n{x}\n```", "~~~\n{x}\n~~~", "<a href='{x}'>", "<script>{x}</script>", "<{x}>", "[a](java{x})",
     "[a](https://{x}/)", "[a]: java{x}", "<!-- {x}"],
)  # fmt: skip
def test_places_in_markdown_where_nothing_is_inert(template: Any) -> None:
    with pytest.raises(ConfigurationError, match="SafeTemplate: a place"):
        SafeTemplate(template, kind="markdown")


ADDRESSES = ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:x", "java\nscript:x", "data:text/html,x",
             "//evil", "vbscript:x", "\\\\evil", "https:\\\\evil", "https://user@evil/", "file:///etc/passwd",
             "", "x", "https://"]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_judged(address: str, caplog: pytest.LogCaptureFixture) -> None:
    for make in (lambda x: html("<a href='{x}'>", x=x), lambda x: markdown("[a]({x})", x=x)):
        caplog.clear()
        with pytest.raises(TemplateRefused, match=r"^x: is not an address") as caught:
            make(address)
        assert len(address) < 2 or address not in str(caught.value)
        assert [cast("Any", record).event for record in caplog.records] == ["template.refused"]


def test_addresses_that_may_stand() -> None:
    assert html('<a href="{x}">', x="https://a/b?c=d&e=f#g") == '<a href="https://a/b?c=d&amp;e=f#g">'
    assert html('<a href="{x}">', x="mailto:ann@example.com") == '<a href="mailto:ann@example.com">'
    assert html('<a href="{x}">', x="https://a/'\"><b>") == '<a href="https://a/%27%22%3E%3Cb%3E">'
    assert html('<a href="/u/{x}?q={y}">', x="a/b", y="c&d") == '<a href="/u/a%2Fb?q=c%26d">'
    assert markdown("[a](https://a/{x})", x="b)c") == "[a](https://a/b%29c)"
    with pytest.raises(UrlRefused):
        html('<a href="/u/{x}">', x="../admin")


def test_arguments_that_are_none() -> None:
    template = SafeTemplate("{x}", kind="text")
    for values in ({}, {"y": 1}, {"x": 1, "y": 2}, {"x": None}, {"x": b"x"}, {"x": Secret("s")}, {"x": Key()}):
        with pytest.raises(TypeError, match="SafeTemplate"):
            template.render(**cast("Any", values))
    with pytest.raises(ConfigurationError, match="kind"):
        SafeTemplate("x", kind=cast("Any", "sql"))
    with pytest.raises(ConfigurationError, match="max_chars"):
        SafeTemplate("x", kind="text", max_chars=0)
    with pytest.raises(TemplateRefused, match="max_chars"):
        SafeTemplate("{x}", kind="text", max_chars=3).render(x="four")


class Reading(HTMLParser):
    """What a browser would see, roughly."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[object] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(tag)

    def handle_comment(self, data: str) -> None:
        self.seen.append(("comment", data))

    def handle_data(self, data: str) -> None:
        if self.seen and isinstance(self.seen[-1], list):
            cast("list[str]", self.seen[-1]).append(data)
        else:
            self.seen.append([data])


def read(text: str) -> list[object]:
    reader = Reading()
    reader.feed(text)
    reader.close()
    return ["".join(cast("list[str]", each)) if isinstance(each, list) else each for each in reader.seen]


TEXTS = st.text(max_size=60) | st.text("<>&\"'{}x/= \n`!-", max_size=30)


@given(TEXTS, TEXTS)
def test_any_text_is_inert_in_html(one: str, two: str) -> None:
    made = html("<p title=\"{one}\" lang='{two}'>{one}|{two}</p>", one=one, two=two)
    control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
    one, two = (control.sub("\ufffd", text) for text in (one, two))
    assert read(made) == [("p", {"title": one, "lang": two}), f"{one}|{two}", "p"]


@given(TEXTS)
def test_any_text_is_inert_in_markdown(text: str) -> None:
    made = markdown("before {x} after", x=text)
    assert "\n" not in made and "\r" not in made
    inner = made.removeprefix("before ").removesuffix(" after")
    # Every mark of ASCII is escaped, by a backslash or as an entity; taken back, the words are those of the value.
    assert re.fullmatch(r"(?:[^!-/:-@\[-`{-~]|\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt|#34|#39);)*", inner)
    plain = re.sub(r"\\(.)", r"\1", inner)
    for entity, mark in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        plain = plain.replace(entity, mark) if entity not in text else plain
    control = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
    if "&" not in text:
        assert plain == " ".join(control.split())


@given(TEXTS, TEXTS)
def test_any_text_is_inert_in_text(one: str, two: str) -> None:
    made = SafeTemplate("{{one}} {one} {two}", kind="text").render(one=one, two=two)
    control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
    assert made == f"{{one}} {control.sub(chr(0xFFFD), one)} {control.sub(chr(0xFFFD), two)}"
