"""The rules of the definition scanner about sentences: which classes of words in which order are a sign.

Rules of this file:
- A shape is read from left to right: classes of `scanner_words`, `A/B` for either, `..n` for up to n words between.
  Without `..n`, one word follows the other. No shape goes across the end of a sentence.
- High is what a definition has no good reason to say. Medium is what a few have a reason for. Low is what many say, and
  counts beside others.
- `~n` is a gap without a word that denies.
- Gaps are short and few: the time for a text grows with its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from typing import Final, Literal, NamedTuple

from .scanner_words import ENGLISH, OTHER_LANGUAGES, UNSPACED

__all__ = ["BORDER", "LETTERS", "NAMED", "NOTHING", "OTHER_LETTERS", "Level", "Match", "Row", "matches"]

Level = Literal["high", "medium", "low"]

NAMED: Final = ("URL", "MAIL", "FOREIGN", "TWIN", "ALIAS")
"""Classes of what is no word: an address, a mailbox, another server's tool, this tool's name elsewhere, an alias."""

_CLASSES: Final = tuple(dict.fromkeys([*ENGLISH, *OTHER_LANGUAGES, *UNSPACED, *NAMED]))
LETTERS: Final = {name: chr(0x100 + number) for number, name in enumerate(_CLASSES)}
"""Class to the letter that stands for it in a shape."""
OTHER_LETTERS: Final = {name: chr(0x200 + number) for number, name in enumerate(_CLASSES)}
"""The same for words of other languages."""
NOTHING: Final = "."
BORDER: Final = "|"


class Row(NamedTuple):
    """A sign."""

    rule: str
    level: Level
    shape: str
    text: str
    """What it says of the definition, in the host's words."""
    unless_after: str = ""
    """Classes: no sign if one of them stands up to three words before."""
    unless_before: str = ""
    """Classes: no sign if one of them stands up to three words after."""


class Match(NamedTuple):
    """A sign that was found, and where in the shape."""

    row: Row
    start: int
    end: int


_HIDE: Final = "asks to keep something from the user"
_OVERRIDE: Final = "asks to put aside instructions"
_TAKE: Final = "asks to read a file with credentials"
_GIVE: Final = "asks to pass on credentials"
_TALKS: Final = "asks to pass on the conversation or the system prompt"
_ORDER: Final = "wants to be called before or beside other tools"
_SHADOW: Final = "speaks of another server's tool"
_STEER: Final = "wants to change how another tool is used"
_CONSENT: Final = "wants to go without the user's consent"
_LEAK: Final = "sends something to an address"

ROWS: Final = (
    # Secrecy
    Row("secrecy", "high", "NOT ..4 TELL ..6 PERSON", _HIDE, unless_after="WHEN"),
    Row("secrecy", "high", "PERSON ..3 NOT ..2 TELL", _HIDE, unless_after="WHEN"),
    Row("secrecy", "medium", "NOT ..2 TELL ..2 IT/YOU", _HIDE, unless_after="WHEN"),
    Row("secrecy", "medium", "NOT ..2 PERSON ..2 KNOW", _HIDE, unless_after="WHEN"),
    Row("secrecy", "medium", "NOT ..4 SHOW ..4 PERSON", _HIDE, unless_after="WHEN"),
    Row("secrecy", "medium", "NOT ..2 KNOW ..4 PERSON", _HIDE, unless_after="WHEN"),
    Row("secrecy", "low", "NOT ..4 NOTIFY ..5 PERSON", _HIDE),
    Row("secrecy", "high", "QUIET ..4 PERSON", _HIDE, unless_after="WHEN"),
    Row("secrecy", "medium", "PERSON ..3 NOT ..3 KNOW", _HIDE, unless_after="WHEN"),
    Row("secrecy", "high", "QUIET ORDERS", _HIDE),
    Row("secrecy", "low", "QUIET", "speaks of doing something unseen"),
    Row("secrecy", "medium", "PRETEND", "asks to pretend something"),
    # Overriding
    Row("override", "high", "IGNORE ..3 EARLIER/OTHER/YOUR ..3 ORDERS", _OVERRIDE),
    Row("override", "high", "IGNORE ..2 YOUR ..2 RULES", _OVERRIDE),
    Row("override", "medium", "IGNORE ..2 ORDERS ..3 PERSON", _OVERRIDE),
    Row("override", "medium", "IGNORE ..1 PERSON", _OVERRIDE),
    Row("override", "medium", "ORDERS ..4 LAW", _OVERRIDE),
    Row("override", "high", "PRIORITY ..5 PERSON/YOUR", "wants to be obeyed before the user"),
    Row("override", "medium", "TREAT ..8 ORDERS", "wants its output to be obeyed"),
    Row("override", "medium", "OBEY IT", "wants its output to be obeyed", unless_after="NOT"),
    Row("override", "medium", "YOU ..3 NEW ..2 RULES/ORDERS", "gives new rules"),
    Row("override", "medium", "YOUR NEW ..2 RULES/ORDERS", "gives new rules"),
    Row("override", "high", "DECODE ..8 OBEY", "asks to decode something and to follow it"),
    # Credentials
    Row("credentials", "low", "FILE", "names a file with credentials"),
    Row("credentials", "medium", "READ ..5 FILE", _TAKE, unless_after="NOT"),
    Row("credentials", "medium", "CONTENT ..4 FILE", _TAKE),
    Row("credentials", "high", "MUST ..4 READ ..5 FILE", _TAKE, unless_after="NOT"),
    Row("credentials", "high", "FIRST READ ..5 FILE", _TAKE),
    Row("credentials", "high", "READ ..5 FILE ..10 SEND", _GIVE, unless_after="NOT"),
    Row("credentials", "high", "SEND ..6 FILE ..6 FIELD/TOOL/URL", _GIVE, unless_after="NOT"),
    Row("credentials", "high", "FILE ..10 SEND ..6 IT", _GIVE),
    Row("credentials", "medium", "SEND ..5 FILE", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "READ ..5 SECRET ..8 SEND", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "SEND ..5 SECRET ..6 FIELD/TOOL/URL", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "SEND ..2 PERSON ..2 SECRET", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "MUST ..3 SEND ..5 SECRET", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "ALL ..3 SECRET", _GIVE),
    Row("credentials", "medium", "SEND EARLIER ..2 SECRET", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "SEND ..3 SECRET ..3 PERSON", _GIVE, unless_after="NOT"),
    Row("credentials", "medium", "FILE/SECRET ~3 MUST ~2 GIVEN", _GIVE),
    Row("credentials", "medium", "MODEL ..8 FILE", _TAKE),
    # The conversation
    Row("conversation", "high", "SEND ..8 SYS/TALK ..8 FIELD/TOOL/URL", _TALKS, unless_after="NOT"),
    Row("conversation", "high", "SYS/TALK ~6 GIVEN ~6 FIELD/TOOL/URL", _TALKS),
    Row("conversation", "medium", "SEND ..6 SYS/TALK", _TALKS, unless_after="NOT"),
    Row("conversation", "medium", "SYS/TALK ~10 FIELD", _TALKS),
    Row("conversation", "medium", "SYS/TALK ~5 GIVEN", _TALKS),
    Row("conversation", "medium", "SEND ..6 PERSON SAID", _TALKS, unless_after="NOT"),
    Row("conversation", "medium", "MODEL ..4 SYS/TALK", _TALKS),
    Row("conversation", "medium", "SIDE", _TALKS),
    Row("conversation", "medium", "YOUR SYS", _TALKS),
    Row("conversation", "medium", "ALL ..5 PERSON SAID", _TALKS),
    Row("conversation", "medium", "ALL ..4 SAID ..6 FIELD", _TALKS),
    Row("conversation", "low", "SYS/TALK", "speaks of the conversation or the system prompt"),
    # Order of tools
    Row("order", "medium", "USE/USED ..4 BEFORE/FIRST ..3 OTHER/EARLIER ..2 TOOL", _ORDER, unless_before="HERE"),
    Row("order", "medium", "BEFORE ..1 USE ..2 OTHER/EARLIER ..1 TOOL", _ORDER, unless_before="HERE"),
    Row("order", "high", "BEFORE ..4 TOOL ..2 OTHER/EARLIER SERVER", _ORDER),
    Row("order", "medium", "NOT OTHER ..1 TOOL", _ORDER, unless_before="HERE"),
    Row("order", "medium", "USE ..10 EVERY ..2 TURN", _ORDER),
    Row("order", "medium", "EVERY ..2 TURN ..8 USE", _ORDER),
    Row("order", "low", "MUST USE ..2 FIRST", _ORDER),
    Row("shadowing", "medium", "EVERY ..4 TOOL ..2 USED", _STEER),
    Row("order", "medium", "USED ..3 BEFORE ..3 OTHER/EARLIER ..1 TOOL", _ORDER, unless_before="HERE"),
    # Other servers
    Row("shadowing", "high", "REPLACE ..4 FOREIGN/TWIN", _STEER),
    Row("shadowing", "high", "FOREIGN ..6 REPLACE/CHANGE", _STEER),
    Row("shadowing", "high", "WHEN/BEFORE/AFTER/EVERY ..2 FOREIGN ..8 MUST/CHANGE/USE", _STEER),
    Row("shadowing", "high", "NOT ..2 USE ..3 FOREIGN", _STEER),
    Row("shadowing", "high", "FOREIGN ..8 NOT USE", _STEER),
    Row("shadowing", "high", "USE ..3 REPLACE ..3 FOREIGN", _STEER),
    Row("shadowing", "high", "CHANGE ..6 FOREIGN", _STEER),
    Row("shadowing", "high", "FOREIGN MUST", _STEER),
    Row("shadowing", "medium", "FOREIGN", _SHADOW),
    Row("shadowing", "medium", "BUILTIN ..2 TOOL ..3 SERVER", _STEER),
    Row("shadowing", "medium", "OTHER/BUILTIN ..2 TOOL ..4 REPLACE", _STEER, unless_before="HERE"),
    Row("shadowing", "medium", "REPLACE ..3 OTHER/BUILTIN ..2 TOOL", _STEER, unless_before="HERE"),
    Row("shadowing", "medium", "TOOL ..3 OTHER SERVER", _STEER),
    Row("shadowing", "low", "OTHER/EARLIER SERVER", "speaks of other servers"),
    Row("shadowing", "low", "ALIAS SERVER", "speaks of another server"),
    # Consent
    Row("consent", "medium", "PERSON ..3 ALREADY ..2 APPROVED", _CONSENT, unless_after="WHEN"),
    Row("consent", "medium", "NOT ..3 CONFIRM ..4 PERSON", _CONSENT, unless_after="WHEN"),
    Row("consent", "medium", "NOT ..3 PERSON ..2 CONFIRM", _CONSENT, unless_after="WHEN"),
    Row("consent", "medium", "NOT ..2 CONFIRM", _CONSENT, unless_after="WHEN"),
    Row("consent", "high", "NOT ..2 CONFIRM ..8 OTHER/EARLIER ..1 TOOL", _CONSENT),
    Row("consent", "medium", "PERSON ..1 APPROVED ..3 ALREADY/ALL", _CONSENT, unless_after="WHEN"),
    Row("consent", "medium", "SKIP ..2 CONFIRM/RULES", _CONSENT),
    # Leaks
    Row("exfiltration", "medium", "SEND ..10 URL", _LEAK, unless_after="NOT"),
    Row("exfiltration", "high", "SECRET/TALK/SYS/FILE ..6 URL/MAIL", _LEAK),
    Row("exfiltration", "medium", "BCC ..4 MAIL", _LEAK),
    Row("exfiltration", "medium", "MAIL ..3 BCC", _LEAK),
    Row("exfiltration", "medium", "MUST ..4 BCC", _LEAK),
    Row("exfiltration", "medium", "SEND ..4 MAIL", _LEAK),
    # Words to a model
    Row("address", "medium", "ORDERS ..2 MODEL", "speaks to the model, past the user"),
    Row("address", "medium", "NOTE ..2 MODEL", "speaks to the model, past the user"),
    Row("address", "low", "MODEL ..2 MUST", "says what a model must do"),
    Row("address", "low", "YOU MUST", "says what a model must do"),
)

_AROUND: Final[
    tuple[tuple[str, Level, tuple[str, ...], str], ...]
] = (  # of other languages, where the words stand in any order
    ("secrecy", "high", ("NOT", "TELL", "PERSON"), _HIDE),
    ("secrecy", "medium", ("QUIET", "SEND"), _HIDE),
    ("override", "high", ("IGNORE", "EARLIER", "ORDERS"), _OVERRIDE),
    ("credentials", "high", ("READ", "FILE", "SEND"), _GIVE),
    ("credentials", "high", ("SEND", "SECRET", "FIELD"), _GIVE),
    ("credentials", "medium", ("READ", "FILE"), _TAKE),
    ("credentials", "medium", ("SEND", "FILE"), _GIVE),
    ("credentials", "medium", ("SEND", "SECRET"), _GIVE),
    ("conversation", "high", ("SEND", "TALK", "FIELD"), _TALKS),
    ("conversation", "high", ("SEND", "TALK", "TOOL"), _TALKS),
    ("conversation", "medium", ("SEND", "TALK"), _TALKS),
    ("order", "medium", ("BEFORE", "OTHER", "TOOL"), _ORDER),
)


class _Compiled(NamedTuple):
    row: Row
    pattern: re.Pattern[str]
    first: str
    """The letters one of which it begins with, or has to be there."""
    after: str
    before: str
    other: bool
    """Whether a letter of another language must be in it."""


_by_first: dict[str, list[_Compiled]] = {}


def matches(shape: str) -> Iterator[Match]:
    """The first place of each sign in a shape."""
    if not _by_first:
        for compiled in _compile():
            for letter in compiled.first:
                _by_first.setdefault(letter, []).append(compiled)
    candidates = dict.fromkeys(compiled for letter in dict.fromkeys(shape) for compiled in _by_first.get(letter, ()))
    for row, pattern, _, after, before, other in candidates:
        for found in pattern.finditer(shape):
            start, end = found.span()
            if other and not any(letter >= "\u0200" for letter in found[0]):
                continue
            if after and not set(_sentence_before(shape, start)).isdisjoint(after):
                continue
            if before and not set(_sentence_after(shape, end)).isdisjoint(before):
                continue
            yield Match(row, start, end)
            break


def _sentence_before(shape: str, start: int) -> str:
    return shape[max(0, start - 3) : start].rpartition(BORDER)[2]


def _sentence_after(shape: str, end: int) -> str:
    return shape[end : end + 3].partition(BORDER)[0]


def _compile() -> Iterator[_Compiled]:
    for row in ROWS:
        pattern = "".join(_part(part) for part in row.shape.split())
        first = _letters(row.shape.split()[0])
        yield _Compiled(row, re.compile(pattern), first, _letters(row.unless_after), _letters(row.unless_before), False)
    for rule, level, classes, text in _AROUND:
        sets = [f"[{LETTERS[name]}{OTHER_LETTERS[name]}]" for name in classes]
        orders = "|".join("[^|]{0,8}?".join(order) for order in permutations(sets))
        row = Row(rule, level, " ".join(classes), text)
        yield _Compiled(row, re.compile(orders), LETTERS[classes[0]] + OTHER_LETTERS[classes[0]], "", "", True)


def _part(part: str) -> str:
    if part.startswith("~"):
        return rf"[^|{LETTERS['NOT']}]{{0,{part[1:]}}}?"
    if part.startswith(".."):
        return rf"[^|]{{0,{part[2:]}}}?"
    return f"[{_letters(part)}]"


def _letters(part: str) -> str:
    return "".join(LETTERS[name] for name in part.split("/")) if part else ""
