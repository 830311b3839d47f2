"""Whether a call of a model may be made: rules first, then what was granted, then somebody.

Rules of this file:
- A rule that denies ends it. What a rule or a grant lets pass is asked about all the same where the conversation has
  read what makes the call dangerous (`flow`), unless the rule says why not.
- What a server says of its tool lowers nothing. Where it says that the tool destroys or reaches others, it is believed.
- Each call ends in one event, `approval.granted` or `approval.denied`; `flow.held` before it says that somebody was
  asked although a rule or grant would have done.

Spec: 2026-07-28 server/tools "Security Considerations" (human in the loop; annotations are untrusted).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, final

from .. import events
from ..errors import ConfigurationError, NotApproved
from .labels import Label
from .questions import CallQuestion
from .rules import ApprovalPolicy, Rule
from .state import StateError

if TYPE_CHECKING:
    from .consent import Consent
    from .flow import Flow
    from .grants import Grants
    from .questions import Always

__all__ = ["ApprovalPolicy", "Approvals", "Rule"]

_CLAIMS: Final = {
    "destructiveHint": (Label.DESTRUCTIVE, "the server itself says that it destroys or overwrites"),
    "openWorldHint": (Label.OUTWARD, "the server itself says that it deals with the world outside"),
}
"""What a server can say to its own disadvantage, and the label that it is worth."""

_log = logging.getLogger("garrison.host")


@final
class Approvals:
    """Decides on calls.

    Args:
        policy: rules, and what becomes of what they do not mention.
        consent: asks somebody.
        grants: what was allowed for longer.
        clock: seconds since 1970, for tests.
    """

    __slots__ = ("_clock", "_consent", "_grants", "_policy")

    def __init__(
        self, policy: ApprovalPolicy, consent: Consent, grants: Grants, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._policy = policy
        self._consent = consent
        self._grants = grants
        self._clock = clock
        for number, rule in enumerate(policy.rules, 1):
            if rule.dangerously_ignore_flow:
                events.record(
                    "policy.relaxed",
                    f"dangerously_ignore_flow of rule {number} ({rule}): {rule.dangerously_ignore_flow}",
                    setting=f"rules[{number}].dangerously_ignore_flow",
                )

    async def check(
        self,
        *,
        server: str,
        identity: str,
        tool: str,
        digest: str,
        arguments: Mapping[str, object],
        labels: Label,
        hints: Mapping[str, object],
        flow: Flow,
    ) -> None:
        """Return if the call may be made.

        Args:
            server: the alias.
            identity: what approvals of this server are kept under.
            tool: the exposed name, `alias.tool`.
            digest: of the approved definition; empty for what has none.
            arguments: as they will be sent. They must not change while somebody is asked.
            labels: of the tool, by whoever runs the host.
            hints: the server's annotations.
            flow: of the conversation.

        Raises:
            NotApproved: it may not; nothing was sent.
            StateError: what was granted cannot be read.
        """
        about = events.Event("", server=server, target=tool, arguments=dict(arguments))
        decided = self._policy.decide(server, tool.removeprefix(f"{server}."), arguments, self._today())
        if decided.action == "deny":
            setting = "ApprovalPolicy.default" if decided.rule is None else "ApprovalPolicy.rules"
            events.record("approval.denied", f"{tool}: {decided.by}", setting=setting, about=about)
            raise NotApproved(f"{tool} was not called: {decided.by} does not allow it ({setting})")
        if decided.action == "allow":
            by, ignores = decided.by, decided.rule is not None and bool(decided.rule.dangerously_ignore_flow)
        else:
            by, ignores = self._granted(identity, tool, digest, arguments, about), False
        claims = [claim for hint, claim in _CLAIMS.items() if hints.get(hint) is True]
        dangers = flow.reasons(_with(labels, [label for label, _ in claims]))
        if by and dangers and not ignores:
            events.record(
                "flow.held",
                f"{tool} would pass by {by}: {'; '.join(dangers)}",
                setting="LocalServer.labels, Rule.dangerously_ignore_flow",
                decision="noted",
                about=about,
            )
            by = ""
        if by:
            events.record("approval.granted", f"{tool}: {by}", decision="allowed", about=about)
            return
        unlabelled = [text for label, text in claims if label not in labels]
        question = CallQuestion(
            server=server,
            reasons=(*dangers, *unlabelled),
            tool=tool,
            arguments=arguments,
            labels=labels,
            sources=flow.sources(),
            hints=hints,
        )
        verdict, why, setting = await self._consent.decide(question)
        if not verdict.allowed:
            raise NotApproved(f"{tool} was not called: {why}" + (f" ({setting})" if setting else ""))
        if verdict.always is not None:
            self._keep(verdict.always, server, identity, tool, digest, arguments)

    def _granted(
        self, identity: str, tool: str, digest: str, arguments: Mapping[str, object], about: events.Event
    ) -> str:
        try:
            grant = self._grants.find(identity, tool, digest, arguments)
        except StateError as exc:
            events.record("approval.denied", f"{tool}: {exc}", setting="Host(state=)", about=about)
            raise
        return "" if grant is None else f"grant {grant.id}"

    def _keep(
        self, always: Always, server: str, identity: str, tool: str, digest: str, arguments: Mapping[str, object]
    ) -> None:
        try:
            self._grants.add(always, identity=identity, tool=tool, digest=digest, arguments=arguments, alias=server)
        except (ConfigurationError, StateError) as exc:  # the yes to this call is one all the same
            _log.warning("What was allowed for %s holds for one call only: %s", tool, exc)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()


def _with(labels: Label, more: list[Label]) -> Label:
    for label in more:
        labels |= label
    return labels
