"""Who may use what: the rules that tools, resources and prompts declare, and the one place that applies them.

Rules of this file:
- On a protected server, what has no rule is neither listed nor callable.
- Scopes are compared whole; what one includes is said by `ResourceServer.hierarchy`, and by nothing else.
- What a caller may not know of is answered like what does not exist, by the same code. It is asked for more scopes only
  where the rule says so.
- A policy function that fails, or answers anything but True, has said no.
- Whoever started this process is bound by no rule: who is on the other end of a pipe or in memory, or has the same user
  id on a Unix socket.

Spec: 2026-07-28 basic/authorization "Scope Challenge Handling"; server/utilities/caching.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import events
from ..errors import AccessDenied, InsufficientScope, McpError
from .disclosure import about
from .rules import Rule

if TYPE_CHECKING:
    from ..policy.principal import Principal
    from .call import Call
    from .registry import Entry
    from .rules import Authorize

__all__ = ["Access", "AccessControl"]

log = logging.getLogger("garrison.server")


@dataclass(frozen=True, slots=True)
class Access:
    """What a policy function is asked about."""

    principal: Principal
    """Who asks."""
    method: str
    """The JSON-RPC method."""
    name: str
    """The tool's or prompt's name; the resource's URI, or its template where it is listed."""
    arguments: Mapping[str, object] | None
    """The arguments after validation; None where something is listed, or asked whether it may be known."""


_FOR_ALL = Rule(frozenset(), None, "challenge")


class AccessControl:
    """Applies rules to callers.

    Args:
        closed: what has no rule is for nobody; False: for everybody.
        default: the policy function of what has no rule of its own.
        granted: what a token with these scopes may do, with all that they include.
    """

    def __init__(
        self,
        *,
        closed: bool,
        default: Authorize | None = None,
        granted: Callable[[frozenset[str]], frozenset[str]] = lambda scopes: scopes,
    ) -> None:
        self._granted = granted
        self._default = Rule(frozenset(), default, "challenge") if default is not None else None if closed else _FOR_ALL

    def knows(self, principal: Principal, entry: Entry) -> bool:
        """Whether a caller has the scopes for something. Its policy function is asked by `allows`.

        Returns:
            False where it is to be told that there is no such thing.

        Raises:
            InsufficientScope: it needs further scopes, and may know it.
        """
        if principal.owner:
            return True
        rule = entry.rule or self._default
        if rule is None:
            return False
        if rule.scopes <= self._granted(principal.scopes):
            return True
        if rule.without_scopes == "hide":
            return False
        raise InsufficientScope(tuple(sorted(rule.scopes)))

    def asks(self, principal: Principal, entry: Entry) -> bool:
        """Whether a policy function has to be asked about this caller."""
        rule = entry.rule or self._default
        return not principal.owner and rule is not None and rule.authorize is not None

    async def allows(self, entry: Entry, access: Access) -> bool:
        """What the policy function says."""
        verdict = await self._verdict(entry, access)
        if verdict is None:
            events.record("access.policy_failed", _failed(access))
        return verdict is True

    async def _verdict(self, entry: Entry, access: Access) -> bool | None:
        """The same, and None where it failed."""
        rule = entry.rule or self._default
        if rule is None or rule.authorize is None:
            return rule is not None
        try:
            verdict = rule.authorize(access)
            if isinstance(verdict, Awaitable):
                verdict = await verdict
        except Exception:  # the operator's function may raise anything, and then it has not said yes
            log.exception("the policy function of %s failed", access.name)
            return None
        return verdict is True

    async def ask(
        self,
        call: Call,
        entry: Entry,
        name: str,
        bind: Callable[[], dict[str, object]],
        unknown: McpError,
        denied: McpError | None = None,
    ) -> dict[str, object]:
        """The validated arguments of a call that the policy function allows.

        Args:
            call, entry, name: what is called.
            bind: validates the arguments.
            unknown: what a caller is told who may not know of it, whatever its arguments.
            denied: what one is told who may, but not with these arguments; `AccessDenied` when not given.

        Raises:
            McpError: one of these, or what `bind` raises.
        """
        principal, method = call.principal, call.method
        shown = Access(principal, method, name, None)
        try:
            kwargs = bind()
        except McpError:
            verdict = await self._verdict(entry, shown)
            if verdict is True:
                raise
            raise self._denied(call, shown, unknown, verdict) from None
        verdict = await self._verdict(entry, Access(principal, method, name, MappingProxyType(kwargs)))
        if verdict is True:
            return kwargs
        if denied is None:
            denied = AccessDenied() if await self._verdict(entry, shown) is True else unknown
        raise self._denied(call, shown, denied, verdict)

    def _denied(self, call: Call, access: Access, error: McpError, verdict: bool | None) -> McpError:
        """Have it on record, once, that the policy function did not say yes."""
        call.told = error
        if verdict is None:
            name, text = "access.policy_failed", _failed(access)
        else:
            name, text = "access.denied", f"{call.method} {access.name!r} by {call.principal}: authorize= said no"
        events.record(name, text, peer=call.address, setting="authorize=", about=about(call, error))
        return error

    def may_read(
        self, entry: Entry, principal: Principal, uri: str, values: Mapping[str, object]
    ) -> bool | Awaitable[bool]:
        """Whether a caller may read a resource; to be awaited where a policy function is asked."""
        try:
            if not self.knows(principal, entry):
                return False
        except InsufficientScope:
            return False
        if not self.asks(principal, entry):
            return True
        return self.allows(entry, Access(principal, "resources/read", uri, values))

    def listed(
        self, principal: Principal, method: str, entries: Mapping[str, Entry]
    ) -> frozenset[str] | Awaitable[frozenset[str]]:
        """The names of these entries that a caller is shown; to be awaited where policy functions are asked."""
        if principal.owner:
            return frozenset(entries)
        granted = self._granted(principal.scopes)
        names: set[str] = set()
        unsure: dict[str, Entry] = {}
        for name, entry in tuple(entries.items()):  # a handler's thread may register meanwhile
            rule = entry.rule or self._default
            if rule is None or not (rule.scopes <= granted or rule.without_scopes == "list"):
                continue
            if rule.authorize is None:
                names.add(name)
            else:
                unsure[name] = entry
        return self._ask(principal, method, names, unsure) if unsure else frozenset(names)

    async def _ask(
        self, principal: Principal, method: str, names: set[str], unsure: Mapping[str, Entry]
    ) -> frozenset[str]:
        for name, entry in unsure.items():
            if await self.allows(entry, Access(principal, method, name, None)):
                names.add(name)
        return frozenset(names)


def _failed(access: Access) -> str:
    return f"authorize= of {access.name!r} raised an exception"
