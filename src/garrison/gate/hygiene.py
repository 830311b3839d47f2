"""Text that leaves is text that can be seen: `visible`, `stripped`, and `sanitize_for_llm` for authors.

Rules of this file:
- What a person does not see and a model or a terminal reads is suspect: control characters, escape sequences, bidi
  overrides, tags, zero-width characters, fillers, variation selectors, lone surrogates. Tab, line feed and CR LF stay.
- A suspect stays where a script needs it (`_ALONE`, `_NEEDED`): a joiner beside Persian or Devanagari, a mark of
  direction on a line that runs right to left, what binds an emoji. It never stays in a run longer than `_RUN`.
- Whether a character stays depends on neighbours that stay themselves, so that cleaning twice is cleaning once.
- Clean text comes back as the same object; ASCII takes about half a nanosecond a character. Time grows with the length.
- The tables are written out here. They do not change with the Unicode version of the interpreter.

This lowers the risk that hidden text reaches a model; it proves nothing about the text that is seen.

Spec: 2026-07-28 server/tools "Security Considerations" (servers sanitize tool outputs). UTS #51 (emoji sequences),
UAX #9 (bidi controls), Unicode Standard chapter 23 (special areas and format characters).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CUT", "sanitize_for_llm", "stripped", "visible"]

CUT: Final = "\n[cut here: {count} more characters]"
"""The marker of `sanitize_for_llm`: `{count}` is how many characters were left out."""

_ASCII: Final = bytes((i < 32 and i not in b"\t\n") or i == 127 for i in range(256))
_SHORT: Final = 40
_RUN: Final = 8

# What is never plain text (controls, deprecated and reserved format characters, noncharacters, tags), and what may be.
_NEVER: Final = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u17b4\u17b5\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0"
    r"\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
)
_MAYBE: Final = r"\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\ufe00-\ufe0f\U000e0000-\U000effff"
_SUSPECT: Final = _NEVER + _MAYBE

# Characters of scripts, none of them suspect.
_LETTER: Final = r"[^\W\d_\u115f\u1160\u3164\uffa0]"
_RIGHT_TO_LEFT: Final = (
    r"\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
)
_JOINING: Final = (  # Arabic to Mongolian and their like: scripts whose letters take other shapes beside each other
    r"\u0600-\u061b\u061d-\u115e\u1700-\u17b3\u17b6-\u180a\u1810-\u1cff\ua800-\uabff\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
    r"\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
_SPACELESS: Final = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\uaadf"
)
_MONGOLIAN: Final = r"\u1807\u180a\u1820-\u18aa"
_PICTURE: Final = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030"
    r"\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_VARIED: Final = (  # other characters with registered variants: signs, Myanmar, Phags-pa, ideographs
    r"0\u1000-\u109f\u2018-\u201d\u2205-\u22ff\u2a00-\u2aff\u3000-\u303f\u3400-\u9fff\ua840-\ua877\ua9e0-\ua9fe\uaa60-\uaa7f"
    r"\uf900-\ufaff\uff00-\uff9f\U00010ac0-\U00010aff\U00020000-\U0003fffd"
)
_IDEOGRAPH: Final = r"\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"

_SUBDIVISIONS: Final = [  # their names in tag characters, with the end tag
    "".join(chr(0xE0000 + ord(letter)) for letter in name) + "\U000e007f" for name in ("gbeng", "gbsct", "gbwls")
]

_ALONE: Final = (  # stays where no other suspect stands beside it
    # Joiners within scripts that use them; word breaks of scripts without spaces.
    rf"[\u200c\u200d](?:(?<=[{_JOINING}].)|(?=[{_JOINING}]))",
    rf"\u200b(?:(?<=[{_SPACELESS}].)|(?=[{_SPACELESS}]))",
    # Marks of direction; only on a line that runs right to left, which `_cleaned` looks up.
    r"(?P<mark>[\u061c\u200e\u200f])",
)
_NEEDED: Final = (
    r"\r(?=\n)",
    # Emoji: joined ones, presentation, keycaps, the flags of England, Scotland and Wales.
    rf"\u200d(?:(?<=[{_PICTURE}].)|(?<=[{_PICTURE}]\ufe0f.))(?=[{_PICTURE}])",
    rf"[\ufe0e\ufe0f](?<=[#*0-9{_PICTURE}].)",
    rf"(?:{'|'.join(_SUBDIVISIONS)})(?<=\U0001f3f4.{{6}})",
    # Registered variants of other characters.
    rf"[\ufe00-\ufe02](?<=[{_VARIED}].)",
    rf"[\U000e0100-\U000e011f](?<=[{_IDEOGRAPH}].)",
    # Mongolian forms and its vowel separator.
    rf"[\u180b-\u180d\u180f](?<=[{_MONGOLIAN}].)",
    rf"\u180e(?:(?<=[{_MONGOLIAN}].)|(?<=[{_MONGOLIAN}][\u180b-\u180d\u180f].))(?=[{_MONGOLIAN}])",
    # Fillers of Old Korean syllables.
    r"\u115f(?=[\u1161-\u11a7\ud7b0-\ud7c6]|\u1160[\u11a8-\u11ff\ud7cb-\ud7fb])",
    r"\u1160(?:(?<=[\u1100-\u115e\ua960-\ua97c].)|(?<=\u115f.)(?=[\u11a8-\u11ff\ud7cb-\ud7fb]))",
    # A soft hyphen where a word can be divided; a grapheme joiner between Hebrew points.
    rf"\xad(?<={_LETTER}{{2}}.)(?={_LETTER}{{2}})",
    r"\u034f(?<=[\u0591-\u05c7].)(?=[\u0591-\u05c7])",
)

_ESCAPE_SEQUENCE: Final = (  # ECMA-48: control sequences, strings with their content, and two-character escapes
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\n-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]"
)


class _Tables:
    """The compiled patterns, made when the first text needs them."""

    __slots__ = ("alone", "escape", "needed", "right_to_left", "suspects")

    def __init__(self) -> None:
        self.suspects = re.compile(rf"[{_SUSPECT}\r]+")
        self.needed = re.compile("|".join(_NEEDED), re.DOTALL).match
        self.alone = re.compile("|".join(_ALONE + _NEEDED), re.DOTALL).match
        self.right_to_left = re.compile(rf"[{_RIGHT_TO_LEFT}]")
        self.escape = re.compile(_ESCAPE_SEQUENCE)


_tables: _Tables | None = None


def visible(text: str) -> str:
    """The text with every hidden character in a form that is seen.

    Control characters become their pictures (`␛`, `␀`, `␡`), others their number (`<U+202E>`); of a run of more than
    8, the number of the first and how many follow. The same object if nothing is hidden.
    """
    if len(text) <= _SHORT and text.isascii() and text.isprintable():
        return text
    return text if _is_plain(text) else _cleaned(text, _shown)


def stripped(text: str) -> str:
    """The text without hidden characters, and without escape sequences of terminals, whose rest would be litter.

    The same object if nothing is hidden.
    """
    if len(text) <= _SHORT and text.isascii() and text.isprintable():
        return text
    if _is_plain(text):
        return text
    # A sequence goes before the rest is judged: what stands beside it afterwards are the neighbours that stay.
    without = _compiled().escape.sub("", text)
    return _cleaned(text if len(without) == len(text) else without, _nothing)


def sanitize_for_llm(
    text: str,
    *,
    markdown: Literal["keep", "inert"] = "keep",
    fences: Literal["keep", "close", "wrap"] = "close",
    most: int = 100_000,
    marker: str = CUT,
) -> str:
    """Text of others, ready to stand in what a model reads. For authors of tools, prompts and resources.

    Hidden characters are removed (`stripped`), too long a text is cut with a word about it, and a fence that was left
    open is closed, so that it does not swallow what follows. Code is not touched.

    Args:
        text: what somebody else wrote.
        markdown: "inert" also breaks what a program that shows Markdown would fetch or make clickable: images, links,
            reference definitions, raw HTML, bare addresses (`https:(//)...`). The words stay.
        fences: "close" closes an open fence at the end; "wrap" puts all of it in a fence longer than any inside, as a
            block of plain text, whatever `markdown` says; "keep" leaves fences alone.
        most: characters that are looked at; the rest is left out.
        marker: what is written where the text was cut, with `{count}` for the number of characters left out.

    Raises:
        ValueError: an argument is none of these.
    """
    if markdown not in ("keep", "inert") or fences not in ("keep", "close", "wrap") or most < 0:
        raise ValueError('sanitize_for_llm: markdown is "keep" or "inert", fences "keep", "close" or "wrap", most >= 0')
    from . import markdown as md  # lazy: what only authors call

    clean = stripped(text if len(text) <= most else text[:most])
    if fences == "wrap":
        clean = md.wrapped(clean)
    elif markdown == "inert":
        clean = md.inert(clean)
    if fences == "close":
        clean = md.closed(clean)
    return clean if len(text) <= most else clean + marker.replace("{count}", str(len(text) - most))


def _compiled() -> _Tables:
    global _tables
    if _tables is None:
        _tables = _Tables()
    return _tables


def _is_plain(text: str) -> bool:
    """Whether there is not even a suspect."""
    if text.isascii():
        return text.replace("\r\n", "\n").encode().translate(_ASCII).find(1) < 0
    return _compiled().suspects.search(text) is None


def _cleaned(text: str, form: Callable[[str], str]) -> str:
    """The text with `form(run)` in place of suspects that no script needs; the same object if there are none."""
    tables = _compiled()
    pieces: list[str] = []
    done = line_end = 0
    right_to_left = False
    for found in tables.suspects.finditer(text):
        position, end = found.span()
        if end - position > _RUN:
            pieces += text[done:position], form(found[0])
            done = end
            continue
        single = end - position == 1 or (end - position == 2 and text.startswith("\r\n", position + 1))
        needed = tables.alone if single else tables.needed
        while position < end:
            stays = needed(text, position)
            if stays is not None and stays.lastgroup is not None:
                if position >= line_end:
                    begin = text.rfind("\n", 0, position) + 1
                    line_end = text.find("\n", position) + 1 or len(text) + 1
                    right_to_left = tables.right_to_left.search(text, begin, line_end) is not None
                if not right_to_left:
                    stays = None
            if stays is not None:
                position = stays.end()
                continue
            pieces += text[done:position], form(text[position])
            position += 1
            done = position
    if not pieces:
        return text
    pieces.append(text[done:])
    return "".join(pieces)


def _nothing(run: str) -> str:
    return ""


def _shown(run: str) -> str:
    code = ord(run[0])
    if len(run) > 1:
        return f"<U+{code:04X} and {len(run) - 1} more hidden>"
    if code < 32:
        return chr(0x2400 + code)
    return "\u2421" if code == 127 else f"<U+{code:04X}>"
