"""URI templates: refused with `ValueError`, or unambiguous: what is matched is safe, what was expanded comes back, and
time grows with the length and no faster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from fuzz.oracle import Finding, agree, chance, hold, parts, pumped, steps
from garrison.protocol.uri import is_uri_text
from garrison.protocol.uritemplate import UriTemplate, expand

SEEDS = (
    b"file:///{path}\nfile:///a.txt\na b\tc",
    b"db://{table}/{id}{?limit,offset}\ndb://t/1?offset=2&limit=1\nx\ty\tz",
    b"a:{+path}/end{#frag}\na:b/c/end#x\nb/c\tx",
    b"a:{/seg*}\na:/b/c\none\ttwo",
    b"a:{;x,y}{.ext}\na:;x=1;y=2.txt\n1\t2\t3",
    b"a:b?x=1{&y,z*}\na:b?x=1&y=2&z=3&z=4\n1\t2",
    b"a:{var:3}-{b}\na:abc-d\nabcd\te",
    b"plain:text\nplain:text\n",
    b"a:{+path}/{n}{;x,y*}\na:b/c/d;x=1;y=2;y=3\nq\tw\te\tr",
    b"a:{/seg*}{;x,y}/end\na:/b/c;y=2/end\nq\tw\te",
)
_PIECES = b"{ } {+ {# {. {/ {; {? {& , * :3 {a} {b} {c*} %2F %2e .. / ? & = ; # - http://"
WORDS = (*_PIECES.split(), b"\n", b"\t")


def check(data: bytes) -> None:
    first, second, third = parts(data, 3)
    text, uri = first.decode("utf-8", "replace"), second.decode("latin-1")
    given = third.decode("utf-8", "replace").split("\t")
    try:
        expand(text, {})
    except ValueError:
        for make in (UriTemplate, lambda text: expand(text, {"a": "b"})):
            try:
                make(text)
            except ValueError:
                continue
            raise Finding("a template that cannot be expanded") from None
        return
    try:
        template = UriTemplate(text)
    except ValueError as error:
        hold(len(str(error)) < 200, "what is said", str(error))
        return
    matched = template.match(uri)
    if matched is not None:
        safe(template, matched)
        back(template, matched)
    values = dict(zip(template.variables, given * len(template.variables), strict=False))
    expanded = template.expand(values)
    agree("expand", expanded, expand(text, values))
    hold(is_uri_text(expanded) or len(expanded) > 60_000 or not expanded, "not the text of a URI", expanded)
    again = template.match(expanded)
    if again is not None:
        safe(template, again)
        if distinct(template, values):
            same_values(template, values, again)
    elif distinct(template, values) and plain(template, values):
        raise Finding(f"{text!r} with {values!r} gives {expanded!r}, which it does not match")
    if chance(data).random() < 0.005:
        slow = pumped(second, 10_000).decode("latin-1")
        hold(steps(lambda: template.match(slow)) < 60 * len(slow) + 5000, "steps", text, slow[:100])


_ASCII = bytes(range(128)).decode()


def expressions(template: UriTemplate) -> list[tuple[str, str, str]]:
    """Operator, variable and modifier, by a second reading of the template."""
    found: list[tuple[str, str, str]] = []
    for operator, inside in re.findall(r"\{([+#./;?&]?)([^}]*)\}", template.template):
        for spec in inside.split(","):
            name = re.split(r"[*:]", spec)[0]
            found.append((operator, name, spec[len(name) :]))
    return found


def distinct(template: UriTemplate, values: Mapping[str, str | list[str]]) -> bool:
    """Values of which nothing looks like the text between them: then there is one reading."""
    literals = re.sub(r"\{[^}]*\}", "", template.template)
    between = set(quote(literals, safe=_ASCII) + ".")
    for operator, name, _ in expressions(template):
        value = values.get(name, "")
        text = value if isinstance(value, str) else "".join(value)
        if operator in (";", "?", "&"):
            text = name + text
        if operator in ("+", "#") and re.search("[^A-Za-z0-9]", text):
            return False
        if between & set(quote(text, safe="")):
            return False
    return True


def plain(template: UriTemplate, values: dict[str, str]) -> bool:
    """Values that have to come back: short words; and in an operator that leaves letters alone."""
    words = all(re.fullmatch(r"[a-z0-9]{1,3}", value) for value in values.values())
    return words and all(modifier in ("", "*") for _, _, modifier in expressions(template))


def same_values(template: UriTemplate, values: dict[str, str], matched: dict[str, str | list[str]]) -> None:
    """What was expanded comes back."""
    for _, name, modifier in expressions(template):
        value = values[name]
        if modifier.startswith(":"):
            value = value[: int(modifier[1:])]
        agree(f"{template.template} {name}", matched.get(name), [value] if modifier == "*" else value)


def safe(template: UriTemplate, matched: dict[str, str | list[str]]) -> None:
    """No value climbs out of its place."""
    for operator, name, _ in expressions(template):
        value = matched.get(name, [])
        for item in [value] if isinstance(value, str) else value:
            hold("\0" not in item, "NUL", item)
            if operator in ("", "/", "."):
                hold(item not in ("", ".", "..") and "/" not in item and "\\" not in item, "segment", item)
            elif operator == "+":
                hold(not {".", ".."} & set(re.split("[/?#]", item)) and "\\" not in item, "path", item)


def back(template: UriTemplate, matched: dict[str, str | list[str]]) -> None:
    """What was matched, expanded, is matched the same."""
    if distinct(template, matched):
        uri = template.expand(matched)
        agree(f"{template.template} {uri}", template.match(uri), matched)
