"""URI templates: RFC 6570's own tables for expansion; for matching, values that stay in their place, in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.protocol.uritemplate import UriTemplate, Value, expand

VALUES: dict[str, Value] = {
    "count": ["one", "two", "three"],
    "dom": ["example", "com"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "keys": {"semi": ";", "dot": ".", "comma": ","},
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_keys": {},
    "undef": None,
}

# RFC 6570, sections 3.2.1 to 3.2.9: template and expansion.
TABLES = """
{count} one,two,three | {count*} one,two,three | {/count} /one,two,three | {/count*} /one/two/three
{;count} ;count=one,two,three | {;count*} ;count=one;count=two;count=three
{?count} ?count=one,two,three | {?count*} ?count=one&count=two&count=three
{&count*} &count=one&count=two&count=three
{var} value | {hello} Hello%20World%21 | {half} 50%25 | O{empty}X OX | O{undef}X OX | {x,y} 1024,768
{x,hello,y} 1024,Hello%20World%21,768 | ?{x,empty} ?1024, | ?{x,undef} ?1024 | ?{undef,y} ?768
{var:3} val | {var:30} value | {list} red,green,blue | {list*} red,green,blue
{keys} semi,%3B,dot,.,comma,%2C | {keys*} semi=%3B,dot=.,comma=%2C
{+var} value | {+hello} Hello%20World! | {+half} 50%25 | {base}index http%3A%2F%2Fexample.com%2Fhome%2Findex
{+base}index http://example.com/home/index | O{+empty}X OX | O{+undef}X OX | {+path}/here /foo/bar/here
here?ref={+path} here?ref=/foo/bar | up{+path}{var}/here up/foo/barvalue/here | {+x,hello,y} 1024,Hello%20World!,768
{+path,x}/here /foo/bar,1024/here | {+path:6}/here /foo/b/here | {+list} red,green,blue | {+list*} red,green,blue
{+keys} semi,;,dot,.,comma,, | {+keys*} semi=;,dot=.,comma=,
{#var} #value | {#hello} #Hello%20World! | {#half} #50%25 | foo{#empty} foo# | foo{#undef} foo
{#x,hello,y} #1024,Hello%20World!,768 | {#path,x}/here #/foo/bar,1024/here | {#path:6}/here #/foo/b/here
{#list} #red,green,blue | {#list*} #red,green,blue | {#keys} #semi,;,dot,.,comma,, | {#keys*} #semi=;,dot=.,comma=,
{.who} .fred | {.who,who} .fred.fred | {.half,who} .50%25.fred | www{.dom*} www.example.com | X{.var} X.value
X{.empty} X. | X{.undef} X | X{.var:3} X.val | X{.list} X.red,green,blue | X{.list*} X.red.green.blue
X{.keys} X.semi,%3B,dot,.,comma,%2C | X{.keys*} X.semi=%3B.dot=..comma=%2C | X{.empty_keys} X | X{.empty_keys*} X
{/who} /fred | {/who,who} /fred/fred | {/half,who} /50%25/fred | {/who,dub} /fred/me%2Ftoo | {/var} /value
{/var,empty} /value/ | {/var,undef} /value | {/var,x}/here /value/1024/here | {/var:1,var} /v/value
{/list} /red,green,blue | {/list*} /red/green/blue | {/list*,path:4} /red/green/blue/%2Ffoo
{/keys} /semi,%3B,dot,.,comma,%2C | {/keys*} /semi=%3B/dot=./comma=%2C
{;who} ;who=fred | {;half} ;half=50%25 | {;empty} ;empty | {;v,empty,who} ;v=6;empty;who=fred
{;v,bar,who} ;v=6;who=fred
{;x,y} ;x=1024;y=768 | {;x,y,empty} ;x=1024;y=768;empty | {;x,y,undef} ;x=1024;y=768 | {;hello:5} ;hello=Hello
{;list} ;list=red,green,blue | {;list*} ;list=red;list=green;list=blue
{;keys} ;keys=semi,%3B,dot,.,comma,%2C | {;keys*} ;semi=%3B;dot=.;comma=%2C
{?who} ?who=fred | {?half} ?half=50%25 | {?x,y} ?x=1024&y=768 | {?x,y,empty} ?x=1024&y=768&empty=
{?x,y,undef} ?x=1024&y=768 | {?var:3} ?var=val | {?list} ?list=red,green,blue
{?list*} ?list=red&list=green&list=blue | {?keys} ?keys=semi,%3B,dot,.,comma,%2C | {?keys*} ?semi=%3B&dot=.&comma=%2C
{&who} &who=fred | {&half} &half=50%25 | ?fixed=yes{&x} ?fixed=yes&x=1024 | {&x,y,empty} &x=1024&y=768&empty=
{&x,y,undef} &x=1024&y=768 | {&var:3} &var=val | {&list} &list=red,green,blue
{&list*} &list=red&list=green&list=blue | {&keys} &keys=semi,%3B,dot,.,comma,%2C | {&keys*} &semi=%3B&dot=.&comma=%2C
"""
CASES = [cell.split() for row in TABLES.strip().splitlines() for cell in row.split(" | ")]


@pytest.mark.parametrize(("template", "uri"), CASES, ids=[case[0] for case in CASES])
def test_expansion_is_the_rfcs(template: str, uri: str) -> None:
    assert expand(template, VALUES) == uri


def test_expansion_beyond_ascii() -> None:
    assert expand("é{x:1}%41{+y}", {"x": "éa", "y": "100%ü%41"}) == "%C3%A9%C3%A9%41100%25%C3%BC%41"
    with pytest.raises(ValueError, match="prefix"):
        expand("{list:3}", VALUES)


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "a{b",
        "a}b",
        "{}",
        "{{a}}",
        "{a b}",
        "{a,}",
        "{,a}",
        "{=a}",
        "{|a}",
        "{!a}",
        "{@a}",
        "{a*:3}",
        "{a:0}",
        "{a:10000}",
        "{a:x}",
        "{a**}",
        "{.}",
        "{a..b}",
        "{a.}",
        "{é}",
        "{a%2}",
        "a b",
        "a%",
        "a%2",
        "a\\b",
        "<",
        "^",
        "a\0",
        "x" * 8193,
        "/".join(f"{{v{i}}}" for i in range(65)),
    ],
)
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="URI template"):
        expand(template, {})
    with pytest.raises(ValueError, match="URI template"):
        UriTemplate(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{a}{b}", "together"),
        ("x{+a}{b}", "together"),
        ("x{a}{+b}", "together"),
        ("x{a}{;p}{b}", "together"),
        ("{+a}/x/{+b}", "several segments"),
        ("{+a}{/b*}", "several segments"),
        ("x{+a,b}", "comma"),
        ("x{+a*}", "comma"),
        ("x{#a,b}", "comma"),
        ("{a}/{a}", "twice"),
        ("x{?a}{?b}", "query expressions"),
        ("x{?a}/y", "query expressions"),
        ("x{&a}{?b}", "query expressions"),
        ("x{&a}/{b}", "query expressions"),
        ("x{#a}{?b}", "query expressions"),
        ("x{#a}y", "query expressions"),
        ("x?y=1{?a}", "literal query"),
        ("x#y{#a}", "one fragment"),
        ("x#y#{a}", "one fragment"),
        ("x{;a}/{;b}", "';'"),
    ],
)
def test_what_could_match_in_two_ways_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        UriTemplate(template)


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("note://all", "note://all", {}),
        ("note://{id}", "note://42", {"id": "42"}),
        ("note://{id}", "note://a,b;c=d:e@f", {"id": "a,b;c=d:e@f"}),
        ("note://{id}", "note://%252F", {"id": "%2F"}),
        ("note://{id}", "note://%E4%B8%96", {"id": "世"}),
        ("note://{id}", "note://...", {"id": "..."}),
        ("note://{id:2}", "note://ab", {"id": "ab"}),
        ("é://{id}", "%C3%A9://x", {"id": "x"}),
        ("u://{user}/posts/{post}", "u://ann/posts/7", {"user": "ann", "post": "7"}),
        ("u://{x,y}", "u://1,2", {"x": "1", "y": "2"}),
        ("u://{l*}", "u://1,2,3", {"l": ["1", "2", "3"]}),
        ("u://{name}.json", "u://a.json.json", {"name": "a.json"}),
        ("u://{name}{.ext}", "u://a.tar.gz", {"name": "a", "ext": "tar.gz"}),
        ("u://{a}{.b*}", "u://a.b.c", {"a": "a", "b": ["b", "c"]}),
        ("u:/{/a,b}/here", "u://1/2/here", {"a": "1", "b": "2"}),
        ("u:{/l*}/end", "u:/1/2/end", {"l": ["1", "2"]}),
        ("file:///{+path}", "file:///a/b%20c/d", {"path": "a/b c/d"}),
        ("file://{+path}", "file:///a", {"path": "/a"}),
        ("f:{+p}-{q}/c", "f:p-q/r-s/c", {"p": "p-q/r", "q": "s"}),
        ("f:{a}/{+p}/v/{b}/{c}", "f:1/2/v/3/v/4/5", {"a": "1", "p": "2/v/3", "b": "4", "c": "5"}),
        ("p:{+url}", "p:http://h/a?b=c#d", {"url": "http://h/a?b=c#d"}),
        ("u:x{;a,b}", "u:x", {}),
        ("u:x{;a,b}", "u:x;b=2;a=1", {"a": "1", "b": "2"}),
        ("u:{x}{;a,b}/y", "u:7;a/y", {"x": "7", "a": ""}),
        ("u:x{;a*}", "u:x;a=1;a=2", {"a": ["1", "2"]}),
        ("u:x{?a,b}", "u:x", {}),
        ("u:x{?a,b}", "u:x?b=2", {"b": "2"}),
        ("u:x{?a,b}", "u:x?b=/..&a=", {"b": "/..", "a": ""}),
        ("u:x{?a*}", "u:x?a=1&a=2", {"a": ["1", "2"]}),
        ("u:x{?a}{&b}", "u:x?b=2&a=1", {"a": "1", "b": "2"}),
        ("u:{+p}{?a}", "u:x/y?a=1", {"p": "x/y", "a": "1"}),
        ("u:x?q={q}", "u:x?q=1", {"q": "1"}),
        ("u:x?q={q}{&a}", "u:x?q=1", {"q": "1"}),
        ("u:x?q={q}{&a}", "u:x?q=1&a=2", {"q": "1", "a": "2"}),
        ("u:x?k=1&q={q}{&a}", "u:x?k=1&q=1&a=2", {"q": "1", "a": "2"}),
        ("u:x{#f}", "u:x", {}),
        ("u:x{?a}{#f}", "u:x?a=1#b/c", {"a": "1", "f": "b/c"}),
    ],
)
def test_matching(template: str, uri: str, values: dict[str, object]) -> None:
    assert UriTemplate(template).match(uri) == values


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("note://all", "note://al"),
        ("note://all", "note://all/"),
        ("note://all", "NOTE://all"),
        ("note://all", ""),
        ("note://{id}", "note://"),
        ("note://{id}", "Note://1"),
        ("note://{id}", "note://a/b"),
        ("note://{id}", "note://a?b"),
        ("note://{id}", "note://a#b"),
        ("note://{id}", "note://."),
        ("note://{id}", "note://.."),
        ("note://{id}", "note://%2e%2E"),
        ("note://{id}", "note://a%2Fb"),
        ("note://{id}", "note://a%5Cb"),
        ("note://{id}", "note://a%00"),
        ("note://{id}", "note://%ff"),
        ("note://{id}", "note://%c0%ae"),
        ("note://{id}", "note://a%2"),
        ("note://{id}", "note://a b"),
        ("note://{id}", "note://é"),
        ("note://{id}", "note://a\\b"),
        ("note://{id}", "note://a\n"),
        ("note://{id:2}", "note://abc"),
        ("note://{a}2{b}", "note://x%2Fy"),
        ("file:///{+path}", "file:///"),
        ("file:///{+path}", "file:////etc/passwd"),
        ("file:///{+path}", "file:///%2Fetc"),
        ("file:///{+path}", "file:///a/../b"),
        ("file:///{+path}", "file:///a/%2e%2e/b"),
        ("file:///{+path}", "file:///.."),
        ("file:///{+path}", "file:///a%2F..%2Fb"),
        ("file:///{+path}", "file:///a/./b"),
        ("file:///{+path}", "file:///a/..?x"),
        ("file:///{+path}", "file:///a%5C..%5Cb"),
        ("file:///{+path}", "file:///a%00"),
        ("file:///{+path}", "file:///a/.."),
        ("u:{/l*}", "u:/a/../b"),
        ("u:{/l*}", "u:/a//b"),
        ("u:{/l*}", "u:/a%2Fb"),
        ("u:x{.l*}", "u:x.a..b"),
        ("u:x{;a}", "u:x;b=1"),
        ("u:x{;a}", "u:x;a=1;a=2"),
        ("u:x{;a}", "u:x;"),
        ("u:x{;a}", "u:x;a=1/y"),
        ("u:{x}{;a}", "u:1;b=1"),
        ("u:x{?a}", "u:x?b=1"),
        ("u:x{?a}", "u:x?a=1&a=2"),
        ("u:x{?a}", "u:x?"),
        ("u:x{?a}", "u:x?a=%00"),
        ("u:x{?a}", "u:x?a=%zz"),
        ("u:x{?a}", "u:x?a=1#f"),
        ("u:x{?a:2}", "u:x?a=123"),
        ("u:x?q={q}{&a}", "u:x?q=1&b=2"),
        ("u:x?q={q}{&a}", "u:x&a=2"),
        ("u:x{#f}", "u:x#.."),
        ("u:x{#f}", "u:x#a%2F..%2Fb"),
        ("u:x{#f}", "u:x#"),
    ],
)
def test_no_match(template: str, uri: str) -> None:
    assert UriTemplate(template).match(uri) is None


SAFE = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\"), min_size=1).filter(
    lambda v: v not in (".", "..")
)


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\."), min_size=1)


@given(st.lists(SAFE, min_size=5, max_size=5), st.lists(SAFE, min_size=1, max_size=4), PLAIN)
def test_what_a_template_makes_it_matches(texts: list[str], items: list[str], fragment: str) -> None:
    template = UriTemplate("s://{a}/x/{b}{/items*}/{c}{?d,e}{#f}")
    fragment = fragment.replace("%", "")  # the RFC leaves what looks like an escape as it is
    values: dict[str, Value] = {**dict(zip("abcde", texts, strict=True)), "items": items, "f": fragment or "f"}
    assert template.match(template.expand(values)) == values


def test_templates_are_values() -> None:
    template = UriTemplate("s://{a}/{+b}{?c,d*}")
    assert template.variables == ("a", "b", "c", "d")
    assert template.template == "s://{a}/{+b}{?c,d*}"
    assert template == UriTemplate(template.template)
    assert len({template, UriTemplate(template.template), UriTemplate("s://x")}) == 2
    assert repr(template) == "UriTemplate('s://{a}/{+b}{?c,d*}')"


HOSTILE = [
    "s:{a}x",
    "s:{a}-{b}-{c}-{d}-x",
    "s:{+a}x",
    "s:{+a}/a/{b}/a/{c}",
    "s:{a*}",
    "s:{/a*}/x",
    "s:{.a*}",
    "s:{.a,b,c}x",
    "s:{;a*}",
    "s:{;a}x",
    "s:{?a*}",
    "s:{?a,b}",
    "s:?a={a}{&b*}",
    "s:{#a}",
    "s:{+a}" + "a" + "b" * 90 + "{b}",
    "s:{+z}" + "a" * 3000 + "b{b}",
    "s:{+z}b" + "a" * 3000 + "/{b}",
    "s:" + "a".join(f"{{v{i}}}" for i in range(64)),
]


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_uris_take_linear_time(template: str) -> None:
    matcher = UriTemplate(template)
    units = [
        "a",
        "-",
        "/",
        "/a",
        "a/",
        ".",
        ",",
        ";a",
        ";a=1",
        "&a=1",
        "?",
        "#",
        "%41",
        "%2e%2e/",
        "a" * 3000 + "/",
        "ab",
        "b",
    ]
    slowest = 0.0
    for unit in units:
        for size in (65_000, 100_000):
            for start, end in (("s:", ""), ("s:?", ""), ("s:;a=", "x"), ("s:?a=1&", ""), ("s:#", "/")):
                uri = start + (unit * (size // len(unit) + 1))[: size // len(unit) * len(unit)] + end
                if matching(matcher, uri) >= 0.05:  # once more: the machine may have been busy
                    slowest = max(slowest, min(matching(matcher, uri) for _ in range(3)))
    assert slowest < 0.05


def matching(matcher: UriTemplate, uri: str) -> float:
    """Seconds of this process that it takes."""
    begin = time.process_time()
    matcher.match(uri)
    return time.process_time() - begin
