"""The message types of the protocol, under their short name: `from garrison.types import TextContent`."""

from .protocol import types as _types
from .protocol.types import *  # noqa: F403 - this module is that one, by another name

__all__ = _types.__all__  # pyright: ignore[reportUnsupportedDunderAll] - the same list
