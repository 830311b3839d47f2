"""Reads a text for the definition scanner: which word does what, as a short text with one letter for each word.

Rules of this file:
- One pass over the text; each place is looked at by one pattern that never goes back over what it has taken.
- Words joined by `_`, `-`, `.` or a change to a capital letter are read one by one, unless they are known together.

`"Do not tell the user."` becomes `.NT.P|`, with the letters of `scanner_rules.LETTERS`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from .scanner_rules import BORDER, LETTERS, NOTHING, OTHER_LETTERS
from .scanner_words import ENGLISH, OTHER_LANGUAGES, UNSPACED

__all__ = ["NOBODY", "Foreign", "Reading", "read"]

_LONGEST_STEM: Final = 14
_ARTICLES: Final = frozenset({"the", "a", "an", "of"})

# Files that hold credentials, or say where servers and their credentials are.
_FILES: Final = (
    r"(?:(?:~|\$\{?HOME\}?|%USERPROFILE%|/root|/(?:home|Users)/\w{1,32})?[/\\])?"
    r"(?:\.(?:ssh|aws|kube|gnupg|azure|cursor|codeium|config[/\\](?:gcloud|gh))(?![\w-])(?:[/\\][\w.\-]{0,64})*+"
    r"|\.docker[/\\]config\.json"
    r"|\.(?:env(?:\.(?!example|sample|template|dist)\w{1,16})?|netrc|npmrc|pypirc|pgpass|git-credentials|bash_history"
    r"|zsh_history|vault-token|htpasswd|mcp\.json)(?![\w.]*(?:example|sample)|[\w-]))"
    r"|/etc/(?:passwd|shadow|sudoers)(?!\w)|/proc/(?:self|\d{1,8})/environ"
    r"|id_(?:rsa|ed25519|ecdsa|dsa)(?![A-Za-z0-9])"
    r"|(?:mcp|claude_desktop_config|application_default_credentials)\.json|secring\.gpg|wallet\.dat"
)
_URL: Final = r"https?://[^\s<>\"'`)\]]{1,2000}"
_END: Final = r"[.!?:;](?=[\s\"')\]]|\Z)|\n[ \t]*\n|\n(?=[ \t]*[-*#•])|[\u3002\uff01\uff1f\u0964\u061f]"


class Foreign(NamedTuple):
    """The tools of the other servers, as the reader looks for them."""

    names: Collection[str]
    """In lower case."""
    plain: Collection[str]
    """Those among them that are ordinary words: only counted where they are quoted or called a tool."""
    twin: str
    """This tool's own name, if another server has a tool of that name."""
    tools: Mapping[str, Collection[str]]
    """Alias to names, in lower case."""


class Reading(NamedTuple):
    """A text, read."""

    shape: str
    spans: list[tuple[int, int]]
    """Where each letter of the shape stands in the text."""


NOBODY: Final = Foreign(frozenset(), frozenset(), "", {})


class _Tables:
    __slots__ = ("pairs", "stems", "token", "unspaced", "words")

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.pairs: dict[tuple[str, str], str] = {}
        self.stems: dict[str, str] = {}
        for table, letters in ((OTHER_LANGUAGES, OTHER_LETTERS), (ENGLISH, LETTERS)):  # what is English stays so
            for name, text in table.items():
                single, *double = text.split("|")
                for word in single.split():
                    if word.endswith("*"):
                        self.stems[word[:-1]] = letters[name]
                    else:
                        self.words[word] = letters[name]
                for pair in double:
                    self.pairs[tuple(pair.split())[:2]] = letters[name]  # pyright: ignore[reportArgumentType] - two words
        self.unspaced = {word: OTHER_LETTERS[name] for name, text in UNSPACED.items() for word in text.split()}
        stems = "|".join(sorted(map(re.escape, self.unspaced), key=len, reverse=True))
        self.token = re.compile(
            rf"(?P<url>{_URL})|(?P<file>(?<![\w)\]])(?:{_FILES}))(?!\.pub)|(?P<end>{_END})|(?P<unspaced>{stems})"
            r"|(?P<single>[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
            r"|(?P<word>(?:(?![\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])\w)++"
            r"(?:[.+'\u2019-](?:(?![\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])\w)++)*+(?P<at>@[\w-]++(?:\.[\w-]++)++)?)",
            re.IGNORECASE,
        )


_tables: _Tables | None = None
_KINDS: Final = {"url": LETTERS["URL"], "file": LETTERS["FILE"], "end": BORDER}
_PIECE: Final = re.compile(r"[A-Z]++(?![a-z])|[A-Z]?[^\W\d_A-Z]++(?:['\u2019][^\W\d_]++)?|\d++|[A-Z]")


def read(text: str, foreign: Foreign = NOBODY) -> Reading:
    """The shape of a text."""
    global _tables
    if _tables is None:
        _tables = _Tables()
    reader = _Reader(_tables, text, foreign)
    for found in _tables.token.finditer(text):
        reader.take(found)
    return Reading("".join(reader.letters), reader.spans)


class _Reader:
    __slots__ = ("_foreign", "_tables", "_text", "_words", "letters", "spans")

    def __init__(self, tables: _Tables, text: str, foreign: Foreign) -> None:
        self._tables = tables
        self._text = text
        self._foreign = foreign
        self._words: list[str] = []
        """The word of each letter; empty where there is none."""
        self.letters: list[str] = []
        self.spans: list[tuple[int, int]] = []

    def take(self, found: re.Match[str]) -> None:
        """Reads what the pattern found next."""
        kind, whole, span = found.lastgroup, found[0], found.span()
        if kind == "word" and found["at"]:
            self._put(NOTHING if _is_example(whole) else LETTERS["MAIL"], span)
        elif kind == "word":
            self._word(whole, span)
        elif kind == "unspaced":
            self._put(self._tables.unspaced[whole], span)
        else:
            self._put(_KINDS.get(kind or "", NOTHING), span)

    def _put(self, letter: str, span: tuple[int, int], word: str = "") -> None:
        self.letters.append(letter)
        self.spans.append(span)
        self._words.append(word)

    def _word(self, whole: str, span: tuple[int, int]) -> None:
        low = whole.lower()
        if self._foreign.tools:
            letter = self._theirs(low, span)
            if letter:
                self._put(letter, span, low)
                return
        plain = low.isalpha() and (low == whole or whole.isupper() or whole.istitle())
        if plain or low in self._tables.words:
            self._piece(low, span)
            return
        for part in _PIECE.finditer(whole):
            self._piece(part[0].lower(), (span[0] + part.start(), span[0] + part.end()))

    def _piece(self, word: str, span: tuple[int, int]) -> None:
        words, pairs = self._words, self._tables.pairs
        back = 1
        if len(words) > 1 and words[-1] in _ARTICLES and (words[-2], word) in pairs:
            back = 2
        pair = pairs.get((words[-back], word)) if words else None
        if pair is not None:
            begin = self.spans[-back][0]
            del words[-back:], self.letters[-back:], self.spans[-back:]
            self._put(pair, (begin, span[1]), word)
            return
        letter = self._tables.words.get(word.replace("\u2019", "'")) or self._stem(word)
        if letter == NOTHING and word in self._foreign.tools:
            letter = LETTERS["ALIAS"]
        self._put(letter, span, word)

    def _stem(self, word: str) -> str:
        for size in range(min(len(word), _LONGEST_STEM), 2, -1):
            letter = self._tables.stems.get(word[:size])
            if letter is not None:
                return letter
        return NOTHING

    def _theirs(self, low: str, span: tuple[int, int]) -> str:
        """The letter of another server's tool; empty if the word is none."""
        foreign = self._foreign
        alias, dot, tool = low.partition(".")
        if dot and tool in foreign.tools.get(alias, ()):
            return LETTERS["FOREIGN"]
        before = self._words[-1] if self._words else ""
        owner = before.removesuffix("'s").removesuffix("\u2019s")
        if owner != before and low in foreign.tools.get(owner, ()):
            return LETTERS["FOREIGN"]
        if low == foreign.twin:
            return LETTERS["TWIN"]
        if low not in foreign.names:
            return ""
        start, end = span
        called = low not in foreign.plain or (start > 0 and self._text[start - 1] in "`'\"\u201c\u2018")
        if called or self._text[end : end + 9].lower().startswith((" tool", " function")):
            return LETTERS["FOREIGN"]
        return ""


def _is_example(mail: str) -> bool:
    domain = mail.rpartition("@")[2].lower()
    return domain.endswith((".example", "example.com", "example.org", "example.net", ".test", ".invalid"))
