"""The rules that tools, resources and prompts declare when they are registered. `access` applies them.

Rules of this file:
- A rule that contradicts itself is an error at registration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from ..errors import RegistrationError

if TYPE_CHECKING:
    from .access import Access

__all__ = ["AccessOptions", "Authorize", "Rule", "WithoutScopes", "rule_of"]

WithoutScopes = Literal["challenge", "hide", "list"]
_CHOICES: Final = ("challenge", "hide", "list")

Authorize = Callable[["Access"], "bool | Awaitable[bool]"]
"""A policy function: whether this may be. It may be `async`."""


class AccessOptions(TypedDict, total=False):
    """Who may use what is registered. On a protected server, what says nothing of this is offered to nobody."""

    scopes: Iterable[str]
    """Scopes that a caller's token must have, all of them."""
    public: bool
    """Every caller may use it, with any token that the server takes."""
    authorize: Authorize
    """A policy function, asked for each call, beside the scopes."""
    without_scopes: WithoutScopes
    """What a caller without the scopes learns. "challenge", where not given: it is not listed, and a call is answered
    by what scopes to get. "list": the same, and it is listed. "hide": it does not exist."""


class Rule:
    """Who may use one tool, resource or prompt.

    Args:
        scopes: all that are needed.
        authorize: asked besides.
        without_scopes: what a caller without the scopes learns. "challenge": it is not listed, and a call is answered
            by what scopes to get. "list": the same, and it is listed. "hide": it does not exist.
    """

    __slots__ = ("authorize", "binds", "scopes", "without_scopes")

    def __init__(self, scopes: frozenset[str], authorize: Authorize | None, without_scopes: WithoutScopes) -> None:
        self.scopes = scopes
        self.authorize = authorize
        self.without_scopes: WithoutScopes = without_scopes
        self.binds = bool(scopes) or authorize is not None
        """It is not for every caller."""


def rule_of(what: str, options: AccessOptions) -> Rule | None:
    """The rule that the options of a registration declare; None where they declare none.

    Args:
        what: the name in an error.

    Raises:
        RegistrationError: they contradict each other.
    """
    scopes, public = options.get("scopes"), options.get("public", False)
    authorize, without_scopes = options.get("authorize"), options.get("without_scopes")
    if isinstance(scopes, str | bytes):
        raise RegistrationError(f"{what}: scopes= is a list of scopes, not one text")
    if type(public) is not bool:
        raise RegistrationError(f"{what}: public= is True or False")
    if authorize is not None and not callable(authorize):
        raise RegistrationError(f"{what}: authorize= is a function")
    wanted = frozenset(scopes or ())
    if public and (wanted or authorize is not None):
        raise RegistrationError(f"{what}: public=True is for every caller; leave scopes= and authorize= out")
    if without_scopes is not None and (without_scopes not in _CHOICES or not wanted):
        raise RegistrationError(f'{what}: without_scopes is "challenge", "hide" or "list", beside scopes=')
    for scope in wanted:
        if type(scope) is not str or not scope or not all("!" <= c <= "~" and c not in '"\\' for c in scope):
            raise RegistrationError(f"{what}: a scope is visible ASCII without quotes and backslashes")
    if not public and not wanted and authorize is None:
        return None
    return Rule(wanted, authorize, without_scopes or "challenge")
