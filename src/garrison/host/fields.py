"""One field of a form, read from what somebody typed.

Spec: 2026-07-28 client/elicitation "Requested Schema".
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Final, cast

from ..gate.hygiene import visible

__all__ = ["FieldValue", "choices", "read_field"]

FieldValue = str | int | float | bool | list[str]

_WORDS: Final = {"y": True, "yes": True, "true": True, "1": True, "n": False, "no": False, "false": False, "0": False}


def read_field(text: str, rule: Mapping[str, object]) -> FieldValue:
    """What was typed into one field, as its type.

    Args:
        text: without surrounding blanks.
        rule: the field's primitive schema.

    Raises:
        ValueError: it does not fit; the message is for the person.
    """
    kind = rule.get("type", "string")
    if kind == "boolean":
        if text.lower() not in _WORDS:
            raise ValueError("answer yes or no")
        return _WORDS[text.lower()]
    if kind in ("integer", "number"):
        try:
            number = int(text) if kind == "integer" else float(text)
        except ValueError:
            number = inf
        if not isfinite(number):
            raise ValueError("a whole number, please" if kind == "integer" else "a number, please")
        return number
    known = choices(rule)
    listed = ", ".join(visible(choice) for choice in known)
    if kind == "array":
        picked = [part.strip() for part in text.split(",") if part.strip()]
        if any(part not in known for part in picked):
            raise ValueError(f"choose among {listed}, separated by commas")
        return picked
    if known and text not in known:
        raise ValueError(f"choose one of {listed}")
    if not text:
        raise ValueError("this is needed")
    return text


def choices(rule: Mapping[str, object]) -> list[str]:
    """The values that may be chosen: `enum`, or the `const` of `oneOf` and `anyOf`; those of `items` in a list."""
    inner = rule.get("items")
    if isinstance(inner, dict):
        rule = cast("dict[str, object]", inner)
    listed = rule.get("enum")
    if isinstance(listed, list):
        return [value for value in cast("list[object]", listed) if isinstance(value, str)]
    for name in ("oneOf", "anyOf"):
        options = rule.get(name)
        if isinstance(options, list):
            tables = [
                cast("dict[str, object]", each) for each in cast("list[object]", options) if isinstance(each, dict)
            ]
            return [value for value in (table.get("const") for table in tables) if isinstance(value, str)]
    return []
