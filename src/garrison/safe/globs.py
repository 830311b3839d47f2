"""Patterns for names: `*.md`, `2024/??/*`, `**/README.md`. Steps through a text in one pass, whatever the pattern.

Rules of this file:
- `*` is any characters of one name, `?` is one, `**` in place of a name is any number of names. Everything else is
  itself, brackets and a leading dot too. Case counts.
- A state is a set of places in the pattern, as the bits of one integer, so that a character costs the same few
  operations at all of them. Shifted left, a place is the next one; times 6, the next two.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Glob", "is_pattern"]

_ANY: Final = ""
"""Stands for every character that the pattern does not name."""


def is_pattern(text: str) -> bool:
    """Whether a name matches more than itself."""
    return "*" in text or "?" in text


class Glob:
    """A pattern of paths.

    Args:
        pattern: names with `/` between them. `**` at the end stands for everything below, as `**/*` does.
    """

    __slots__ = ("_end", "_moves", "_skips", "_stays", "_wanders", "start")

    def __init__(self, pattern: str) -> None:
        names: list[str] = []
        for name in pattern.split("/"):
            if name != "**" or names[-1:] != ["**"]:
                names.append(name)
        if names[-1] == "**":
            names.append("*")
        singles = stays = wanders = skips = 0
        named: dict[str, int] = {}
        place = 1
        """The bit of where the next token begins."""
        for number, name in enumerate(names):
            if name == "**":  # a place to come to, from which it goes on at once to the next two
                skips |= place
                wanders |= place << 1  # goes on through any text, and leaves at a slash
                named["/"] = named.get("/", 0) | place << 1
                place <<= 2
                continue
            for character in name:
                if character == "*":
                    stays |= place
                    continue
                if character == "?":
                    singles |= place
                else:
                    named[character] = named.get(character, 0) | place
                place <<= 1
            if number < len(names) - 1:
                named["/"] = named.get("/", 0) | place
                place <<= 1
        moves = {character: bits | singles for character, bits in named.items()}
        self._moves = {_ANY: singles, **moves, "/": named.get("/", 0)}
        self._stays = stays
        self._wanders = wanders
        self._skips = skips
        self._end = place
        self.start = 1 | (1 & skips) * 6
        """The state before any text."""

    def step(self, state: int, text: str) -> int:
        """The state after some text; 0 when nothing that begins so can match."""
        moves, wanders, skips, loops = self._moves, self._wanders, self._skips, self._stays | self._wanders
        other = moves[_ANY]
        for character in text:
            state = (state & moves.get(character, other)) << 1 | state & (wanders if character == "/" else loops)
            state |= (state & skips) * 6
        return state

    def is_match(self, state: int) -> bool:
        """Whether the text up to here matches."""
        return bool(state & self._end)
