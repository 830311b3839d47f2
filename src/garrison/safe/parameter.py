"""`Parameter`: a class that can stand as the annotation of a tool's parameter and checks what is given there.

    class Sku(Parameter):
        def __init__(self, text: str) -> None:
            self.text = text

        @classmethod
        def json_schema(cls) -> dict[str, object]:
            return {"type": "string", "pattern": "^[A-Z]{3}[0-9]{4}$"}

        @classmethod
        def from_json(cls, value: object) -> Sku:
            return cls(str(value))

Rules of this file:
- The schema is published and holds before `from_json` is asked.
- What an error says is a rule, and never the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Parameter", "ParameterError"]


class ParameterError(ValueError):
    """The value breaks a rule, which the message names: "is not a path below the root". The value is not in it."""


class Parameter:
    """A type of arguments with a schema and a check of its own; also inside `list[...]` and `... | None`."""

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """What is published, and holds of every value that `from_json` is given."""
        raise NotImplementedError(f"{cls.__name__}.json_schema")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The argument that the handler gets.

        Args:
            value: decoded JSON that fits `json_schema`.

        Raises:
            ParameterError: it breaks a rule that the schema cannot say.
        """
        raise NotImplementedError(f"{cls.__name__}.from_json")
