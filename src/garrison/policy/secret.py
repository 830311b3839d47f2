"""A text that must not be shown: tokens, codes, client secrets, passphrases.

Rules of this file:
- What prints, formats, logs, pickles or serializes a secret gets a mask or an error. `reveal` is the one way out.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final, final

__all__ = ["Secret"]

_MASK: Final = "***"


@final
class Secret:
    """A text that prints as a mask.

    Args:
        text: the secret. An empty one is an error: it protects nothing.

    Raises:
        ValueError: it is empty.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a secret must not be empty")
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same text, in constant time; never equal to a plain text."""
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass"))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")
