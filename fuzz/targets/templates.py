"""Templates and URLs made of parts: what is made is what a second reading expects, whatever the values are.

The input is a letter for the kind and a template, then two values, one a line."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import unquote, urlsplit

from fuzz.oracle import agree, hold, parts, steps
from garrison.errors import ConfigurationError
from garrison.safe.templates import SafeTemplate, TemplateRefused
from garrison.safe.urls import UrlRefused

_KINDS: dict[str, Any] = {"h": "html", "m": "markdown", "t": "text", "u": "url"}
SEEDS = (
    b"hHello {a}, {b}\n<b>\n{a}",
    b"h<p title=\"{a}\" lang='{b}'>{a}</p>\n\"><script>\n'",
    b'h<a href="{a}">{b}</a>\nhttps://a/?b=c&d#e\njavascript:alert(1)',
    b'h<a href="/u/{a}?q={b}">\n../x\na&b=c',
    b"h<title>{a}</title><script>x</script><!-- c -->{b}\n</title>\n-->",
    b"h<p onclick='{a}'>\nx\n",
    b"h<!--><p a=x title=\"{a}\" b='c'd>{b}\n<\n>",
    b"h<p`title=\"{a}\" lang='{b}'>\nx onclick=y\n",
    b"m# {a}\n* x\n# y",
    b"m[x]({a}) [y](https://a/{b})\nhttps://a/)(\n../x",
    b"t{{a}} {a} {b}\n{b}\n{a.__class__}",
    b"t{a.b} {0} {a!r}\nx\ny",
    b"uhttps://a.test/v1/{a}/x?q={b}\n../../admin\n&x=#",
    b"uhttps://a.test/{a}{b}\n.\n%2e",
    b"uhttps://{a}/\nx\ny",
)
WORDS = (
    *b"{a} {b} {{ }} {a.b} < > </ /> <!-- --> <script> </script> <title> </title> <p> href= src= title=".split(),
    *b"onclick= style= https:// mailto: javascript: ../ %2e%2e ? # & ; &lt; ]( ` ``` ]: \\ =\" =' \"> '> \" '".split(),
    *(b"\n", b"&#x3c;", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xc2\x85"),
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_FORM = re.compile(r"(?:[^{}]|\{\{|\}\}|\{[A-Za-z_][A-Za-z0-9_]{0,63}\})*+")
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_PLAIN = "https://plain.test/"


def check(data: bytes) -> None:
    first, one, two = (part.decode("utf-8", "replace") for part in parts(data, 3))
    kind = _KINDS.get(first[:1], "text")
    text: Any = first[1:]
    try:
        template = SafeTemplate(text, kind=kind)
    except ConfigurationError as error:
        hold(len(str(error)) < 250 and str(error).isprintable(), "what is said", str(error))
        hold(kind != "text" or _FORM.fullmatch(text) is None, "a template that is one", text)
        return
    hold(_FORM.fullmatch(text) is not None or kind == "url", "a template that is none", text)
    values = {name: (one, two)[number % 2] for number, name in enumerate(template.names)}
    made = rendered(template, values)
    # Counted the second time: the first one compiles patterns.
    hold(steps(lambda: rendered(template, values)) < 400 + 60 * len(text) + 40 * len(one + two), "steps", text)
    if made is None:
        hold(kind != "text", "text is refused", text)
        return
    if kind == "text":
        agree("text", made, _PLACE.sub(lambda place: _put(place, values), text))
    elif kind == "html":
        plain = rendered(template, dict.fromkeys(values, _PLAIN))
        if plain is not None:
            agree("structure", structure(made), structure(plain))
    elif kind == "markdown":
        plain = rendered(template, dict.fromkeys(values, _PLAIN))
        if plain is not None:
            agree("lines", made.count("\n"), plain.count("\n"))
        escaped(one)
    else:
        address(text, made, values)


def rendered(template: SafeTemplate, values: dict[str, str]) -> str | None:
    """What is made; None where a value is refused, in constant words."""
    try:
        return template.render(**values)
    except (TemplateRefused, UrlRefused) as error:
        said = str(error)
        hold(len(said) < 200, "what is said", said)
        return None


def _put(place: re.Match[str], values: dict[str, str]) -> str:
    return place[0][0] if place[1] is None else _CONTROL.sub("\ufffd", values[place[1]])


_WORDS = ("title", "textarea", "script", "style", "iframe", "noembed", "noframes", "noscript", "xmp", "plaintext")
_COMMENT = re.compile(r"!--(?:-?>|.*?(?:--!?>|\Z))", re.DOTALL)
_NAME = re.compile(r"/?[A-Za-z][^ \t\n\f\r/>]*")
_GAP = re.compile(r"[ \t\n\f\r/]*")
_SPACE = re.compile(r"[ \t\n\f\r]*")
_ATTRIBUTE = re.compile(r"=?[^ \t\n\f\r/>=]*")
_VALUE = re.compile(r"\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)|[^ \t\n\f\r>]*")


def structure(text: str) -> list[object]:
    """Tags and the names of their attributes, as browsers' tokenizers find them (WHATWG HTML, section 13.2.5)."""
    found: list[object] = []
    at = text.find("<")
    while at >= 0:
        at += 1
        name = _NAME.match(text, at)
        comment = _COMMENT.match(text, at)
        if name is None:
            bogus = text[at : at + 1] in ("!", "?", "/") and at + 1 < len(text)
            end = comment.end() if comment else text.find(">", at) if bogus else at
            found += ["comment"] if bogus else []
            at = text.find("<", end) if end >= 0 else -1
            continue
        tag = _ascii_lower(name[0])
        names: list[str] = []
        at = _past(_GAP, text, name.end())
        while at < len(text) and text[at] != ">":
            attribute = _ATTRIBUTE.match(text, at)
            names.append(attribute[0] if attribute else "")
            at = _past(_SPACE, text, attribute.end() if attribute else at + 1)
            if text[at : at + 1] == "=":
                at = _past(_SPACE, text, at + 1)
                if text[at : at + 1] != ">":
                    at = _past(_VALUE, text, at)
            at = _past(_GAP, text, at)
        if at >= len(text):
            return found  # a tag that does not end is none
        found.append((tag, names))
        if tag in _WORDS:
            end = re.compile(rf"</{tag}(?=[ \t\n\f\r/>])", re.IGNORECASE | re.ASCII).search(text, at)
            at = -1 if end is None or tag == "plaintext" else end.start()
        else:
            at = text.find("<", at)
    return found


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _ascii_lower(text: str) -> str:
    return re.sub("[A-Z]+", lambda found: found[0].lower(), text)


_MARKDOWN = SafeTemplate("{a}", kind="markdown")
_ESCAPED = re.compile(r"(?:[^!-/:-@\[-`{-~\n\r]|\\[!-/:-@\[-`{-~]|&(?:amp|lt|gt|#34|#39);)*+")


def escaped(value: str) -> None:
    """Every mark of ASCII in a value is one that Markdown takes for itself."""
    made = _MARKDOWN.render(a=value)
    hold(_ESCAPED.fullmatch(made), "a mark that is not escaped", made)
    plain = re.sub(r"\\(.)", r"\1", re.sub(r"&[a-z0-9#]+;", lambda found: unescape(found[0]), made))
    if "\\" not in value and "&" not in value:
        agree("words", plain, " ".join(_CONTROL.sub("\ufffd", value).split()))


def address(text: str, made: str, values: dict[str, str]) -> None:
    """The same host and segments as the template has, each value in its own."""
    hold(re.fullmatch(r"[!-~]*", made) is not None, "not a URL", made)
    before, after = urlsplit(text), urlsplit(made)
    agree("origin", (before.scheme, before.netloc, after.fragment), (after.scheme, after.netloc, ""))
    ours, theirs = before.path.split("/"), after.path.split("/")
    agree("segments", len(ours), len(theirs))
    for template, segment in zip(ours, theirs, strict=True):
        hold(segment not in (".", ".."), "a dot segment", made)
        if "%" not in template:
            agree("segment", unquote(segment), _PLACE.sub(lambda place: _raw(place, values), template))
    agree("parameters", before.query.count("&"), after.query.count("&"))


def _raw(place: re.Match[str], values: dict[str, str]) -> str:
    return place[0] if place[1] is None else values[place[1]]
