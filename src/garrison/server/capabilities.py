"""What a server offers: one table, from which it is advertised and by which methods are found.

Rules of this file:
- A method whose capability is not offered does not exist, on every transport and in every revision.
- A capability is offered while something is registered for it, and never where the server leaves it out. The same holds
  for its parts: `subscribe` and `listChanged`.

Spec: 2026-07-28 basic, "Capabilities".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import MethodNotFound
from ..protocol.types import ListChangedCapability, ResourcesCapability, ServerCapabilities

if TYPE_CHECKING:
    from .registry import Registry

__all__ = ["Offer"]

_NEEDS: Final = {
    "tools/call": "tools",
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "resources/subscribe": "resources.subscribe",
    "resources/unsubscribe": "resources.subscribe",
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "completion/complete": "completions",
    "logging/setLevel": "logging",
}
"""Method -> the capability that it belongs to. What is not here belongs to the protocol itself."""
_PARTS: Final = {
    "tools": ("tools.listChanged",),
    "prompts": ("prompts.listChanged",),
    "resources": ("resources.listChanged", "resources.subscribe"),
}
_LISTEN: Final = {
    "tools.listChanged": "toolsListChanged",
    "prompts.listChanged": "promptsListChanged",
    "resources.listChanged": "resourcesListChanged",
    "resources.subscribe": "resourceSubscriptions",
}
"""Part of a capability -> the member of a filter that listens to it."""


class Offer:
    """What one server offers.

    Args:
        registry: what is registered.
        limit: what may be offered at most; None: everything.
    """

    def __init__(self, registry: Registry, limit: ServerCapabilities | None) -> None:
        self._registry = registry
        self._left_out = frozenset[str]() if limit is None else _left_out(limit)
        self._extensions = None if limit is None else limit.extensions
        self._experimental = None if limit is None else limit.experimental
        self.changed()

    def changed(self) -> None:
        """Something was registered or taken away."""
        registry = self._registry
        present = {
            "tools": registry.tools,
            "resources": registry.resources or registry.templates,
            "prompts": registry.prompts,
            "completions": registry.completers,
            "logging": True,
        }
        there = {name for name, registered in present.items() if registered} - self._left_out
        parts = {part for name in there for part in _PARTS.get(name, ())}
        self.names = frozenset(there | parts - self._left_out)
        """The capabilities that are offered now, and their parts."""
        self.missing = frozenset(method for method, needed in _NEEDS.items() if needed not in self.names)
        """The methods that do not exist now."""

    def tells(self, kind: str) -> bool:
        """Whether clients are told of changes to "tools", "prompts" or "resources"; also when the last one went."""
        return not {kind, f"{kind}.listChanged"} & self._left_out

    def check(self, method: str) -> None:
        """Refuse a method whose capability is not offered.

        Raises:
            MethodNotFound: it is not.
        """
        if method in self.missing:
            raise MethodNotFound

    def listening(self) -> frozenset[str]:
        """What `subscriptions/listen` can be asked for."""
        return frozenset(_LISTEN[name] for name in self.names if name in _LISTEN)

    def capabilities(self) -> ServerCapabilities:
        """What is advertised."""
        names = self.names

        def flag(part: str) -> bool | None:
            return True if part in names else None

        def changes(name: str) -> ListChangedCapability | None:
            return ListChangedCapability(list_changed=flag(f"{name}.listChanged")) if name in names else None

        resources = ResourcesCapability(
            subscribe=flag("resources.subscribe"), list_changed=flag("resources.listChanged")
        )
        return ServerCapabilities(
            tools=changes("tools"),
            resources=resources if "resources" in names else None,
            prompts=changes("prompts"),
            completions={} if "completions" in names else None,
            logging={} if "logging" in names else None,
            extensions=self._extensions,
            experimental=self._experimental,
        )


def _left_out(limit: ServerCapabilities) -> frozenset[str]:
    """The capabilities and parts that are not among these."""
    offered = {
        "tools": limit.tools,
        "prompts": limit.prompts,
        "resources": limit.resources,
        "completions": limit.completions,
        "logging": limit.logging,
        "tools.listChanged": limit.tools and limit.tools.list_changed,
        "prompts.listChanged": limit.prompts and limit.prompts.list_changed,
        "resources.listChanged": limit.resources and limit.resources.list_changed,
        "resources.subscribe": limit.resources and limit.resources.subscribe,
    }
    return frozenset(name for name, value in offered.items() if value is None or value is False)
