"""Templates of commands: refused with `ConfigurationError`, or every value is one argument as it stands, in its place
and never the name of an option; or it is refused by a rule that does not show it."""

from __future__ import annotations

import re

from fuzz.oracle import Finding, agree, hold, parts
from garrison.errors import ConfigurationError
from garrison.safe.command_template import Slot, SlotError, Template
from garrison.safe.paths import SafePath

SEEDS = (
    b"log\t--max-count={n}\t--\t{p}\n5\tdocs/a b.md\t-x\tq",
    b"{a}\n5\tdocs\t--output=/tmp/x",
    b"--file={a}\t-o{b}\n1\tp\t@file\t-y",
    b"add\t--\t{a*}\n1\tp\tx\ty",
    b"{{{a}}}\t{b}x{a}\n1\tp\tx\ty",
    b"-{a}\n1\tp\tx",
    b"--out{a}={b}\n1\tp\tx\ty",
    b"--{c}={a}\n1\tp\tx",
    b"{c}\t{c}:{n}\n-7\tp\tx",
    b"{p*}\t{n}\n1\t../x\tx",
    b"{a}{b}\n1\tp\tx",
)
WORDS = (*b"{a} {b} {c} {n} {p} {a*} {{ }} -- --x= -x -- @ + - ..".split(), b"\t", b"\n", b"\0", "é".encode())

_SLOTS = {
    "a": Slot(str),
    "b": Slot(re.compile("(?s).*"), at_sign=True),
    "c": Slot(["red", "--all", "-v"]),
    "n": Slot(range(-100, 100)),
    "p": Slot(SafePath),
}
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\*?\}")


def check(data: bytes) -> None:
    first, second = (part.decode("utf-8", "replace") for part in parts(data, 2))
    words = first.split("\t")
    number, path, *texts = [*second.split("\t"), "", ""]
    text = texts[0]
    try:
        template = Template("op", words, _SLOTS)
    except ConfigurationError:
        return
    values: dict[str, object] = {
        "a": text,
        "b": texts[-1],
        "c": "--all",
        "n": int(number) if re.fullmatch("-?[0-9]{1,5}", number, re.ASCII) else number,
        "p": path,
    }
    given = {name: [values[name]] * 2 if name in template.several else values[name] for name in template.slots}
    try:
        arguments = template.arguments(given)
    except SlotError as error:
        fixed = {name: {"a": "a", "b": "b", "c": "red", "n": 1, "p": "p"}[name] for name in template.slots}
        template.arguments({name: [value] if name in template.several else value for name, value in fixed.items()})
        for value in (text, texts[-1], path):
            hold(len(value) < 12 or value in first or value not in str(error), "the value is shown", str(error))
        return
    expected: list[str] = []
    ended = False
    for word in words:
        names = [match[1] for match in _PLACE.finditer(word) if match[1]]
        argument = _PLACE.sub(lambda match: str(values[match[1]]) if match[1] else match[0][0], word)
        expected += [argument] * (2 if names and names[0] in template.several else 1)
        if not ended and names[:1] != ["c"]:
            no_option(word, argument, names)
        ended = ended or word == "--"
    agree("arguments", arguments, tuple(expected))
    hold(not any(map(_REFUSED.search, arguments)), "a control character", arguments)


def no_option(word: str, argument: str, names: list[str]) -> None:
    """What is an option was one in the template, and has the name that it has there."""
    if not names or argument[:1] not in ("-", "+"):
        return
    if word[:1] not in ("-", "+"):
        raise Finding(f"{word!r} became {argument!r}")
    name = argument.partition("=")[0]
    if word.startswith("--"):
        before = _PLACE.sub(lambda match: "--all" if match[1] == "c" else match[0][0] if not match[1] else "\0", word)
        numbered = re.search(r"\{n\*?\}", word.partition("=")[0]) is not None
        hold(numbered or name == before.partition("=")[0], "the name of an option", word, argument)
    elif word.startswith("-"):
        start = next(match.start() for match in _PLACE.finditer(word) if match[1])
        hold(start > 1 or names[0] in "cn", "an option's letter", word, argument)
