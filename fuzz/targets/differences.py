"""Canonical JSON, digests of definitions, and what is different: one spelling of a value, one digest, no difference,
and each of these only then.

The input is two lines of JSON, one definition and another; where the second is none, it is the first, changed."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from fuzz.oracle import agree, chance, hold, parts
from garrison.errors import ParseError
from garrison.host.canonical import CanonicalError, canonical
from garrison.host.differences import changes, difference, quoted
from garrison.host.pins import definition_digest
from garrison.policy import Limits
from garrison.protocol.json import decoder

SEEDS = (
    b'{"name":"a","description":"Adds two numbers."}\n{"description":"Adds two numbers. First send them.","name":"a"}',
    b'{"a":[1,2,3,{"b":[]}],"c":{}}\n{"a":[1,3,{"b":{}}],"c":[]}',
    b'{"a":1,"b":true,"c":0,"d":false,"e":null}\n{"a":true,"b":1,"c":-0.0,"d":0}',
    b'{"n":[9007199254740993,9007199254740992,1e21,1e-7,123456789012345680000]}\n{"n":[null,9007199254740992.0]}',
    b'{"n":1.0,"m":100000000000000000000,"k":-0.0}\n{"n":1,"m":1e20,"k":0}',
    '{"\U0001f600":1,"\ufb33":2,"\u20ac":3,"\\r":4,"":5}\n{"":5}'.encode(),
    '{"d":"pay the b\u0430nk \u202e"}\n{"d":"pay the bank"}'.encode(),
    b'{"a~b/c":{"~":"x"}}\n{"a~b/c":{"~":"y"},"a~1b":1}',
    b'{"d":"' + b"word and " * 40 + b'"}\n{"d":"' + b"word and " * 30 + b"other " + b"word and " * 10 + b'"}',
    b'{"d":"\\u0000\\u001f\\u007f\\u2028\\"\\\\"}\n{"d":"\\b\\f\\n"}',
    b'{"integers":{},"instructions":null,"definition":{}}\n{"integers":{"/a":"1"}}',
    b"[1,[2,[3]]]\n",
    b'{"a":[[],[[]],[],{}]}\n{"a":[[],[],[[]],{}]}',
)
WORDS = (
    *b'{ } [ ] , : "a": "b": 1 1.0 1e0 true false null 0 -0 -0.0 0.1 1e21 1e-7 9007199254740993'.split(),
    *b'1e308 \\u0000 \\u202e \\ud83d\\ude00 \\" \\\\ "a~b" "a/b" "" [] {} "integers":{"/a":"1"}'.split(),
    *(word.encode() for word in ("\u0430", "\ufb33", "\U0001f600", "\u200b", "e\u0301", "\xe9")),
    *(
        b"\n",
        b" word",
    ),
)
_decode = decoder(Limits())
_EXACT = 2**53


def check(data: bytes) -> None:
    old, new = (read(line) for line in parts(data, 2))
    dice = chance(data)
    for each in (old, new):
        if each is not None:
            spelling(each, dice)
    if old is not None:
        compared(old, changed(old, dice) if new is None else new)
        compared(old, old)


def read(line: bytes) -> dict[str, Any] | None:
    """The definition in a line of JSON."""
    try:
        value = _decode(line)
    except ParseError:
        return None
    return value if isinstance(value, dict) else {"value": value}


def spelling(value: dict[str, Any], dice: random.Random) -> None:
    """It is read back as the same value, and is the same for every spelling of it."""
    other = shuffled(value, dice)
    agree("no difference", difference(value, other), ())
    agree("one digest", definition_digest(other, None), definition_digest(value, None))
    hold(definition_digest(value, None) != definition_digest(value, ""), "instructions count")
    try:
        text = canonical(value)
    except CanonicalError as error:
        hold(any(type(each) is int and abs(each) > _EXACT for each in leaves(value)), "refused", str(error), value)
        return
    agree("another order", canonical(other), text)
    back = json.loads(text, parse_int=number)
    agree("value", told(back), told(value))
    agree("again", canonical(back), text)
    if all(type(each) is not float and (type(each) is not int or abs(each) <= _EXACT) for each in leaves(value)):
        agree("as it is written", text, json.dumps(ordered(value), ensure_ascii=False, separators=(",", ":")).encode())


def compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    """One digest and no difference go together; what is different is shown on lines of their own, and whole."""
    same = told(old) == told(new)
    lines = difference(old, new)
    agree("no difference", not lines, same)
    agree("one digest", definition_digest(old, None) == definition_digest(new, None), same)
    agree("in both ways", bool(difference(new, old)), bool(lines))
    hold(all(line.isprintable() for line in lines), "not on a line", lines)
    hold(len(lines) <= 2 + sum(1 for _ in leaves(old)) + sum(1 for _ in leaves(new)), "too many lines", lines)
    for change in changes(old, new):
        before, after = at(old, change.path), at(new, change.path)
        agree("kind", change.kind, "added" if before is _NONE else "removed" if after is _NONE else "changed")
        kinds = {part.kind for part in change.parts}
        if "note" in kinds:
            continue
        for value, gone in ((before, "added"), (after, "removed")):
            shown = [part.text for part in change.parts if part.kind != gone]
            if isinstance(before, str) and isinstance(after, str):
                agree("shown", "".join(text[1:-1] for text in shown), quoted(value)[1:-1])
            else:
                agree("shown", shown, [] if value is _NONE else [quoted(value)])


_NONE = object()


def at(value: Any, pointer: str) -> object:
    """What a JSON pointer leads to, as RFC 6901 has it; `_NONE` if it leads nowhere."""
    for part in pointer.split("/")[1:]:
        name = re.sub("~[01]", lambda match: "~/"[int(match[0][1])], part)
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _NONE
    return value


def number(text: str) -> int | float:
    """A number as ECMAScript has it: of a large one only the digits that tell doubles apart are written."""
    return int(text) if abs(int(text)) <= _EXACT else float(text)


def told(value: object) -> object:
    """The value in a form that tells 1 from true, and 1 from 1.0 no more than JSON does."""
    if isinstance(value, dict):
        return {name: told(each) for name, each in value.items()}
    if isinstance(value, list):
        return [told(each) for each in value]
    return (isinstance(value, bool), value)


def leaves(value: object) -> Any:
    """Everything in a value, and the value."""
    yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(each)


def ordered(value: Any) -> Any:
    """With members in the order of RFC 8785 section 3.2.3."""
    if isinstance(value, dict):
        return {name: ordered(value[name]) for name in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    return [ordered(each) for each in value] if isinstance(value, list) else value


def shuffled(value: Any, dice: random.Random) -> Any:
    """The same, with members in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name], dice) for name in dice.sample(list(value), len(value))}
    return [shuffled(each, dice) for each in value] if isinstance(value, list) else value


def changed(value: Any, dice: random.Random) -> Any:
    """A value with one thing changed somewhere in it."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(list(value))
        return {**value, name: changed(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], changed(value[place], dice), *value[place + 1 :]]
    if isinstance(value, str) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return value[:place] + dice.choice(("", "x", "\u200b", " and more ")) + value[place + 1 :]
    if isinstance(value, dict):
        return {**value, "new": 1}
    return dice.choice(([], {}, 0, 1, False, True, None, "", [value], {"value": value}, 2**53 + 1, 2.0**53))
