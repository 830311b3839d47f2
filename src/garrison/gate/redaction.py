"""Masks what looks like a key: `redact` for a text, `redact_value` for a JSON value.

Rules of this file:
- One table (`_ROWS`), one pattern, one pass. Each row is found by a character that is rare in other text, looks back at
  what has to stand before it, and reads on. What it captures becomes `[redacted:KIND]`.
- Every repetition is possessive or bounded, and a token begins only where none is under way: time grows with the
  length and no faster.
- A format that an issuer published counts wherever it stands. What is merely called a password or a key counts where
  its value looks like one: a name, a type, a call or a placeholder does not.
- Twice is once. Text without a key comes back as the same object.

This lowers the risk that a key slips out; a key that looks like nothing passes. Keep secrets in `Secret` instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["redact", "redact_value"]


class _Row(NamedTuple):
    kind: str
    anchors: str
    """Characters, each of which may begin a match."""
    rest: str
    """What follows the anchor. Its last group that took part is masked."""
    back: int = 0
    """How many characters before that group are masked with it."""


def _token(kind: str, prefix: str, body: str, *, width: int) -> _Row:
    """A row for tokens of a published format, found by the last character of their prefix."""
    return _Row(kind, prefix[-1], rf"{_begins(prefix)}(?!-)({body})", width)


def _begins(prefix: str) -> str:
    """Where a token may begin: after no other token; `\\n` in a JSON text and the end of a private key are none."""
    return rf"(?<={prefix})(?:(?<![\w+-]{prefix})|(?<=\\[nrt]{prefix})|(?<=-----{prefix}))"


def _assigned(kind: str, anchors: str, name: str, value: str) -> _Row:
    """A row for what is given to a name: `name=value`, `name: value`, `"name": "value"`, also with escaped quotes."""
    return _Row(kind, anchors, rf"(?i:{name})\\?[\"']?[ \t]{{0,3}}(?::=|=>|[:=](?!=))[ \t]{{0,3}}(?:{value})")


_TYPES: Final = (
    r"(?i:str|string|text|bytes|none|null|nil|true|false|pass\w{4,6}|pwd|secret|changeme|required|optional|hidden)"
)
_BARE: Final = r"[^\s\"'`,;&<>(){}\[\]\\|]"
_BRACKET: Final = r"\[(?!redacted:)"
"""A bracket that is not the beginning of a mask."""
_LOOKS_CHOSEN: Final = rf"(?={_BARE}{{0,100}}?[\d!@#%^*?+~])"


def _value(least: int) -> str:
    """A value of at least so many characters: quoted, bare with a digit or a sign, or one word directly after `=`."""
    return (
        rf"\\?[\"'](?!{_TYPES}\\?[\"']|[$<{{%*.])((?:[^\s\"'\\\[]|{_BRACKET}){{{least},}}+)(?=\\?[\"']|\Z)"
        rf"|(?![/.~$%*]){_LOOKS_CHOSEN}({_BARE}{{{least},}}+)(?![(\[{{])"
        rf"|(?<==)(?!{_TYPES}(?![A-Za-z]))([A-Za-z]{{{least},}}+)(?=[\s&\"']|\Z)"
    )


_NAMED: Final = (  # words before `key` and `token` that make it one to keep, with the word itself: "any.key" is none
    *("api", "access", "account", "private", "secret", "signing", "encryption", "master", "auth", "license", "shared"),
)
_KEY: Final = "|".join(rf"(?<={word}.{{3}})|(?<={word}[_ -].{{3}})" for word in _NAMED)
_TOKEN: Final = "|".join(
    rf"(?<={word}.{{5}})|(?<={word}[_ -].{{5}})"
    for word in (
        "access",
        "refresh",
        "id",
        "auth",
        "api",
        "bearer",
        "session",
        "csrf",
        "bot",
        "security",
        "oauth",
        "secret",
    )
)
_SCHEMES: Final = r"(?i:bearer|basic|dpop|token|digest|negotiate|apikey)[ \t]{1,3}"

_ENDS: Final = r"(?!\w|-(?!----))"
"""No token goes on here; five hyphens begin a private key."""
_QUERY: Final = r"code|sig|signature|x-amz-(?:signature|credential|security-token)|(?:access_|id_)?token"

_IN_QUERY: Final = r"[^&\s\"'<>#\\\[]"

_ROWS: Final = (
    # Formats that issuers published.
    _token("jwt", "eyJ", r"[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+){1,3}", width=3),
    _token("aws", "A[KS]IA", r"[A-Z0-9]{16}" + _ENDS, width=4),
    _token("github", "gh[pousr]_", r"[\w-]{20,}+", width=4),
    _token("github", "github_pat_", r"[\w-]{20,}+", width=11),
    _token("gitlab", "glpat-", r"[\w-]{16,}+", width=6),
    _token("api-key", "sk-", r"(?=[\w-]{0,60}\d)[\w-]{20,}+", width=3),
    _token("slack", "xox[a-z]-", r"[\w-]{10,}+", width=5),
    _token("slack", "xapp-", r"[\w-]{10,}+", width=5),
    _Row("slack", "/", r"(?<=hooks\.slack\.com/)services/([\w/-]{20,}+)"),
    _token("google", "AIza", r"[\w-]{35}" + _ENDS, width=4),
    _token("google", "GOCSPX-", r"[\w-]{20,}+", width=7),
    _token("stripe", "[sr]k_live_", r"[\w-]{10,}+", width=8),
    _token("stripe", "[sr]k_test_", r"[\w-]{10,}+", width=8),
    _token("stripe", "whsec_", r"[\w-]{20,}+", width=6),
    _token("npm", "npm_", r"[\w-]{30,}+", width=4),
    _token("pypi", "pypi-", r"AgE[\w-]{20,}+", width=5),
    _token("huggingface", "hf_", r"[\w-]{30,}+", width=3),
    _token("docker", "dckr_pat_", r"[\w-]{20,}+", width=9),
    _token("age", "AGE-SECRET-KEY-", r"1[\w-]{20,}+", width=15),
    _Row("sendgrid", "G", rf"{_begins('SG')}\.([\w-]{{16,}}+\.[\w-]{{16,}}+)", 3),
    _Row("telegram", "A", r"(?<=\d:A)A([\w-]{33})" + _ENDS, 2),
    _Row(
        "private-key",
        "B",
        r"(?<=-----B)EGIN ([A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^-]++|-(?!----))*+"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?)",
        11,
    ),
    # What protocols say is one.
    _Row("password", "/", r"(?<=:/)/[^\s/:@?#\"'<>\[]{0,256}+:((?:[^\s/\"'<>\[]|\[(?!redacted:)){1,512})(?<!@)@"),
    _Row("bearer", "bB", r"(?i:earer)[ \t]{1,3}(?=[\w.~+/=-]{0,100}?\d|[\w-]{20})([\w.~+/=-]{8,}+)"),
    _Row("bearer", "P", r"(?<=DPoP)[ \t]{1,3}([\w.~+/=-]{20,}+)"),
    _assigned(
        "authorization",
        "zZ",
        r"(?<=authoriz)ation",
        rf"\\?[\"']?(?:{_SCHEMES}(?![$<{{%(\[*.])|(?={_BARE}{{0,100}}?\d)(?={_BARE}{{8}})(?![$<{{%(\[*./])(?!{_SCHEMES}))"
        rf"((?:[^\s\"'\\,;<>()\[]|{_BRACKET}){{3,}}+)",
    ),
    _assigned("cookie", "kK", r"(?<=cook)ie", r"\\?[\"']?([\w!#$%&*+.^`|~-]{1,64}+=[^\r\n\"'\\]*+)"),
    *(_Row("query", sign, rf"(?i:{_QUERY})=(?={_IN_QUERY}{{0,100}}?\d)({_IN_QUERY}{{8,}}+)") for sign in "?&"),
    # What is called one.
    _assigned("password", "pP", r"ass(?:word|wd|phrase|code)|wd", _value(4)),
    _assigned("secret", "cC", r"(?<=sec)ret|redentials?|ode_verifier", _value(6)),
    _assigned("secret", "kK", rf"ey(?:{_KEY})", _value(8)),
    _assigned("secret", "kK", rf"(?<=tok)en(?:{_TOKEN})", _value(8)),
    _assigned("secret", "kK", r"(?<=tok)en", _value(24)),
)  # fmt: skip

_MEMBER: Final = (
    r"(?i:(?P<password>pass(?:word|wd|phrase|code)|pwd)|(?P<authorization>authorization)|(?P<cookie>cookie)"
    rf"|(?P<secret>secret|credentials?|code_verifier|(?:{'|'.join(_NAMED)})[_ -]?key"
    r"|(?:access|refresh|id|auth|api|bearer|session|csrf|bot|security|oauth|secret)[_ -]?token))\Z"
)
"""Names of members of JSON objects, at their end, whose values are masked whatever they look like."""


_NAME_CHARS: Final = 12
_COMMON: Final = "b/_-pc"
"""The anchors that other text has most of, the most common last; they are asked for first."""


class _Tables:
    """The compiled patterns, and what the groups of the first one mean."""

    __slots__ = ("found_by", "member", "search")

    def __init__(self) -> None:
        # Every alternative begins with a plain character, by which the search skips what cannot match. An empty group
        # at the end of a row tells which one it was.
        self.found_by: dict[int, _Row] = {}
        alternatives: list[str] = []
        group = 0
        for anchor in sorted({anchor for row in _ROWS for anchor in row.anchors}, key=_COMMON.find, reverse=True):
            rows = [row for row in _ROWS if anchor in row.anchors]
            for row in rows:
                group += re.compile(row.rest).groups + 1
                self.found_by[group] = row
            alternatives.append(f"{re.escape(anchor)}(?:{'|'.join(row.rest + '()' for row in rows)})")
        self.search = re.compile("|".join(alternatives), re.ASCII).search
        self.member = re.compile(_MEMBER).search


_tables: _Tables | None = None


def redact(text: str) -> str:
    """The text with `[redacted:KIND]` in place of what looks like a key; the same object if nothing does."""
    tables = _tables or _compiled()
    found = tables.search(text)
    if found is None:
        return text
    pieces: list[str] = []
    done = 0
    while found is not None:
        last = cast("int", found.lastindex)
        row = tables.found_by[last]
        group = last - 1
        while found.start(group) < 0:
            group -= 1
        begin = max(done, found.start(group) - row.back)
        before = text[done:begin]
        if begin - found.start() > _NAME_CHARS:  # a token in the place of a user's name
            before = before[: found.start() - done] + redact(text[found.start() : begin])
        pieces += before, f"[redacted:{row.kind}]"
        done = found.end(group)
        found = tables.search(text, found.end())
    pieces.append(text[done:])
    return "".join(pieces)


def redact_value(value: object) -> object:
    """A JSON value with its texts redacted, keys of objects included; the same object if nothing changed.

    A text or number whose name says what it is (`password`, `clientSecret`, `api_key`, `Authorization`) is masked
    whatever it looks like.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return _members(cast("dict[object, object]", value))
    if isinstance(value, (list, tuple)):
        items = cast("list[object] | tuple[object, ...]", value)
        fresh = [redact_value(item) for item in items]
        return items if all(new is old for new, old in zip(fresh, items, strict=True)) else fresh
    return value


def _members(members: dict[object, object]) -> object:
    named: Callable[[str], re.Match[str] | None] = (_tables or _compiled()).member
    fresh: dict[object, object] = {}
    changed = False
    for name, value in members.items():
        key, new = name, value
        kind = None
        if isinstance(name, str):
            key = redact(name)
            kind = named(name)
        if kind is None or type(value) not in (str, int, float) or value == "":
            new = redact_value(value)
        elif not (isinstance(value, str) and value.startswith("[redacted:")):
            new = f"[redacted:{kind.lastgroup}]"
        changed = changed or new is not value or key is not name
        fresh[key] = new
    return fresh if changed else members


def _compiled() -> _Tables:
    global _tables
    if _tables is None:
        _tables = _Tables()
    return _tables
