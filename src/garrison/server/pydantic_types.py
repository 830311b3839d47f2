"""Types of pydantic in signatures.

Rules of this file:
- pydantic is never loaded here. An annotation can only mention its types when the program has loaded it.
- An annotation that mentions a pydantic model, dataclass or `Field` is pydantic's as a whole: its schema is published,
  and it reads the value from JSON in strict mode, so that "1" is no integer and a date comes from its text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, cast

from .json_types import leaves

if TYPE_CHECKING:
    import pydantic

__all__ = ["Adapter", "concerns", "dump", "field_default"]


def concerns(annotation: object) -> bool:
    """Whether the annotation mentions a type or a `Field` of pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and any(_is_pydantic(leaf) for leaf in leaves(annotation))


def _is_pydantic(leaf: object) -> bool:
    if isinstance(leaf, type):
        return hasattr(leaf, "__pydantic_validator__") or hasattr(leaf, "__pydantic_core_schema__")
    return type(leaf).__module__.partition(".")[0] == "pydantic"


def field_default(annotation: object, default: object) -> tuple[object, bool, object]:
    """Takes `Field(...)` apart where it stands as the default: annotation, whether there is a default, the default."""
    if type(default).__name__ != "FieldInfo" or not _is_pydantic(default):
        return annotation, True, default
    field = cast("pydantic.fields.FieldInfo", default)
    if field.is_required():
        return Annotated[annotation, field], False, None
    value = cast("object", field.get_default(call_default_factory=True, validated_data={}))
    # The default is ours to apply; left in the field it would be applied to the type.
    from pydantic.fields import FieldInfo

    bare = FieldInfo(description=field.description, title=field.title, examples=field.examples)
    bare.metadata = field.metadata
    return Annotated[annotation, bare], True, value


def dump(value: object) -> object:
    """A pydantic value as JSON builtins.

    Raises:
        NotImplementedError: not a pydantic model.
    """
    method = cast("Callable[..., object] | None", getattr(value, "model_dump", None))
    if method is None or not _is_pydantic(type(value)):
        raise NotImplementedError(type(value).__name__)
    return method(mode="json", by_alias=True)


class Adapter:
    """Schema, reader and writer of one annotation.

    Raises:
        TypeError: pydantic cannot express the annotation.
    """

    __slots__ = ("_adapter",)

    def __init__(self, annotation: object) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        try:
            self._adapter: pydantic.TypeAdapter[object] = TypeAdapter(cast("type[object]", annotation))
        except PydanticUserError as exc:
            raise TypeError(str(exc)) from exc

    def schema(self, *, output: bool = False) -> dict[str, object]:
        """The JSON Schema, with its definitions under `$defs`."""
        from pydantic.errors import PydanticInvalidForJsonSchema

        try:
            return cast(
                "dict[str, object]",
                self._adapter.json_schema(mode="serialization" if output else "validation"),
            )
        except PydanticInvalidForJsonSchema as exc:
            raise TypeError(str(exc)) from exc

    def load(self, value: object, *, strict: bool = True) -> object:
        """The value of decoded JSON.

        Raises:
            ValueError: it does not fit. The text may repeat the value.
        """
        import msgspec

        return self._adapter.validate_json(msgspec.json.encode(value), strict=strict)

    def dump(self, value: object) -> object:
        """A value of the annotation as JSON builtins."""
        return cast("object", self._adapter.dump_python(value, mode="json", by_alias=True))
