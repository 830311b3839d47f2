"""What is decided about calls beforehand: `Rule`, and `ApprovalPolicy`, which holds them in order.

    ApprovalPolicy([
        Rule(action="deny", server="*", tool="delete_*"),
        Rule(action="allow", server="files", tool="read_*", arguments={"path": "/data/**"}, until=date(2026, 12, 31)),
    ])

Rules of this file:
- The first rule that matches decides, and `default` where none does.
- Server and tool are two patterns: no `*` reaches from one into the other.
- A rule that allows matches what is sure, one that asks or refuses what is possible (`patterns`).
- What a server says of its own tools stands in no rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Final, Literal, NamedTuple, cast

from ..errors import ConfigurationError
from ..policy.toml import nearest
from ..protocol.json import encode
from .patterns import ArgumentPattern, NamePattern

__all__ = ["Action", "ApprovalPolicy", "Decided", "Rule"]

Action = Literal["allow", "ask", "deny"]

_ACTIONS: Final = ("allow", "ask", "deny")
_ALIASES: Final = re.compile(r"[a-z0-9_*-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to some calls.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    action: Action
    """`allow` without asking, `ask` somebody, or `deny`."""
    server: str
    """The alias, in which `*` stands for any characters."""
    tool: str
    """The tool's name without the alias, in which `*` stands for any characters. Resources are read by the tool
    `resources/read` and prompts by `prompts/get`, which a `*` alone allows nothing of."""
    arguments: Mapping[str, object] | None = None
    """Which calls: see `ArgumentPattern`. None: all; an empty mapping: those without arguments."""
    until: date | None = None
    """The last day on which the rule holds, in UTC; None is no end."""
    dangerously_ignore_flow: str = ""
    """Of a rule that allows: why it does so even where what the conversation has read makes the call dangerous. Empty:
    somebody is asked then."""
    _names: tuple[NamePattern, NamePattern] = field(init=False, repr=False, compare=False)
    _given: ArgumentPattern | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.action not in _ACTIONS:
            raise ConfigurationError('Rule.action is "allow", "ask" or "deny"')
        if type(self.server) is not str or _ALIASES.fullmatch(self.server) is None:
            raise ConfigurationError("Rule.server must be an alias, in which * stands for any characters")
        if self.arguments is not None and not isinstance(self.arguments, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - of a file
            raise ConfigurationError("Rule.arguments must be a table of arguments")
        if self.until is not None and type(self.until) is not date:
            raise ConfigurationError('Rule.until must be a day, as "2026-12-31"')
        reason: object = self.dangerously_ignore_flow
        if type(reason) is not str or (reason and not reason.strip()):
            raise ConfigurationError("Rule.dangerously_ignore_flow must be a text that says why")
        if reason and self.action != "allow":
            raise ConfigurationError(f'Rule.dangerously_ignore_flow means nothing with action "{self.action}"')
        names = NamePattern(self.server, "Rule.server"), NamePattern(self.tool, "Rule.tool")
        given = None if self.arguments is None else ArgumentPattern(self.arguments, "Rule.arguments")
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_given", given)

    def matches(self, server: str, tool: str, arguments: Mapping[str, object], today: date) -> bool:
        """Whether it is about this call.

        Args:
            server: the alias.
            tool: its name without the alias.
            arguments: as they would be sent.
            today: in UTC.
        """
        if self.until is not None and today > self.until:
            return False
        servers, tools = self._names
        if self.action == "allow":
            return (
                servers.surely(server) and tools.surely(tool) and (self._given is None or self._given.surely(arguments))
            )
        return (
            servers.perhaps(server)
            and (tools.perhaps(tool) or tools.perhaps(f"{server}.{tool}"))
            and (self._given is None or self._given.perhaps(arguments))
        )

    def __str__(self) -> str:
        arguments = "" if self.arguments is None else f" {encode(dict(self.arguments)).decode()}"
        return f"{self.action} {self.server} {self.tool}{arguments}"


class Decided(NamedTuple):
    """What a policy says of a call."""

    action: Action
    by: str
    """The setting, for people: `rule 2 (allow files read_*)`, or the default."""
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Rules, in the order in which they are tried.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    rules: Sequence[Rule] = ()
    default: Literal["ask", "deny"] = "ask"
    """What becomes of calls that no rule matches. There is no default that allows: that is a rule."""

    def __post_init__(self) -> None:
        rules = tuple(self.rules)
        if not all(isinstance(rule, Rule) for rule in rules):  # pyright: ignore[reportUnnecessaryIsInstance] - of untyped code
            raise ConfigurationError("ApprovalPolicy.rules are of the class Rule; from_table reads tables")
        if self.default not in ("ask", "deny"):
            raise ConfigurationError('ApprovalPolicy.default is "ask" or "deny"; what is allowed is a rule')
        object.__setattr__(self, "rules", rules)

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> ApprovalPolicy:
        """The policy of a configuration: `rules`, a list of tables with the fields of `Rule`, and `default`.

        Raises:
            ConfigurationError: a key is no setting, or a value is not of its form; the message names it.
        """
        _check_keys(table, {"rules", "default"}, "")
        rules: object = table.get("rules", [])
        if not isinstance(rules, list):
            raise ConfigurationError("rules: must be a list of tables, [[rules]]")
        made = [_rule(each, f"rules[{number}]") for number, each in enumerate(cast("list[object]", rules), 1)]
        default = cast("Literal['ask', 'deny']", table.get("default", "ask"))
        return cls(made, default)

    def decide(self, server: str, tool: str, arguments: Mapping[str, object], today: date) -> Decided:
        """What to do about a call; see `Rule.matches` for the arguments."""
        for number, rule in enumerate(self.rules, 1):
            if rule.matches(server, tool, arguments, today):
                return Decided(rule.action, f"rule {number} ({rule})", rule)
        return Decided(self.default, f'default = "{self.default}"')


def _rule(table: object, where: str) -> Rule:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: must be a table")
    values = dict(cast("dict[str, object]", table))
    known = {each.name: each for each in fields(Rule) if each.init}
    _check_keys(values, known, f"{where}.")
    for name in ("action", "server", "tool"):
        if name not in values:
            raise ConfigurationError(f"{where}.{name}: must be given")
    until = values.get("until")
    try:
        if type(until) is str:
            values["until"] = date.fromisoformat(until)
        return Rule(**values)  # pyright: ignore[reportArgumentType] - Rule checks what a file says
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None
    except ValueError:
        raise ConfigurationError(f'{where}.until: must be a day, as "2026-12-31"') from None


def _check_keys(table: Mapping[str, object], known: Mapping[str, object] | set[str], at: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{at}{key}: there is no such setting; {nearest(key, known)}")
