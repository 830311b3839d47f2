"""What every message type has in common, and the way from a parsed value to a type.

Rules of this package:
- The types are those of revision 2026-07-28; a member that only an older revision knows is marked so.
- A field that is `None` is not written. Where null is a value of its own the field is `UNSET` instead.
- Unknown members are ignored when read; a known member of the wrong type is a `msgspec.ValidationError`.
- A type that the specification tells apart by a member (`type`, `resultType`, `mode`, `method`) has no field for it:
  the class is the tag, and it is always written.
"""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, TypeVar, cast, overload

import msgspec
from msgspec import UNSET, UnsetType, field

__all__ = [
    "PROTOCOL_VERSION_KEY",
    "CLIENT_INFO_KEY",
    "CLIENT_CAPABILITIES_KEY",
    "LOG_LEVEL_KEY",
    "SERVER_INFO_KEY",
    "SUBSCRIPTION_ID_KEY",
    "UNSET",
    "Meta",
    "Number",
    "UnsetType",
    "Value",
    "Variant",
    "Wire",
    "convert",
    "to_dict",
]

if TYPE_CHECKING:
    Value = object
else:
    # msgspec takes Any as it comes, and asks the hook about every object.
    from typing import Any as Value

T = TypeVar("T")

PROTOCOL_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO_KEY = "io.modelcontextprotocol/clientInfo"
CLIENT_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"
SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_ID_KEY = "io.modelcontextprotocol/subscriptionId"

Number = int | float
"""A JSON number. `5` and `5.0` are the same number to JSON Schema, also where it says integer."""


class Wire(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Base of every message type: frozen, snake_case here, camelCase on the wire."""


class Meta(Wire, kw_only=True, frozen=True):
    """Base of every type with `_meta`. Spec: 2026-07-28 basic, "_meta"."""

    meta: dict[str, Value] | None = field(name="_meta", default=None)


class Variant:
    """Base of a family whose members are told apart by what they hold, not by a required tag."""

    __slots__ = ()

    @classmethod
    def variant(cls, value: object) -> type[Wire]:
        """The type of the family that this parsed value is to be read as."""
        raise NotImplementedError


def _variant(kind: type[object], value: object) -> object:
    if issubclass(kind, Variant):
        return convert(value, kind.variant(value))
    raise NotImplementedError(kind)


@overload
def convert(value: object, kind: type[T]) -> T: ...
@overload
def convert(value: object, kind: UnionType) -> object: ...
def convert(value: object, kind: type[T] | UnionType) -> object:
    """Read a parsed JSON value as a message type.

    Args:
        value: dict, list, str, number, bool or None, as the JSON parser made it.
        kind: a type of this package, or a union of those that are told apart by a tag.

    Raises:
        msgspec.ValidationError: the value does not fit; the text names the rule and mostly the place.
    """
    return msgspec.convert(value, kind, dec_hook=_variant)


def to_dict(value: Wire) -> dict[str, object]:
    """A message type as new dicts and lists, with the names of the wire."""
    return cast("dict[str, object]", msgspec.to_builtins(value))
