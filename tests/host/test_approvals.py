"""A call is made where a rule, a grant or somebody allows it; where what was read is dangerous, somebody alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from garrison import events
from garrison.errors import ConfigurationError, NotApproved
from garrison.host.approvals import ApprovalPolicy, Approvals, Rule
from garrison.host.consent import Consent
from garrison.host.flow import Flow
from garrison.host.grants import Grants
from garrison.host.labels import EVERYTHING, Label
from garrison.host.questions import Always, CallQuestion, Question, Verdict
from garrison.host.state import FolderState, MemoryState, State, StateError

NOTHING = Label(0)
ALLOW = Rule(action="allow", server="*", tool="*")
DENY = Rule(action="deny", server="bank", tool="wipe")
ASK = Rule(action="ask", server="bank", tool="*")


class Scene:
    """Approvals, somebody who answers as told, and what was asked and recorded."""

    def __init__(
        self,
        *rules: Rule,
        answer: Any = False,
        nobody: bool = False,
        state: State | None = None,
        **policy: Any,
    ) -> None:
        self.answer = answer
        self.asked: list[CallQuestion] = []
        self.told: list[events.Event] = []
        self.flow = Flow()
        self.grants = Grants(state or MemoryState())
        consent = Consent(None if nobody else self._approve)
        self.approvals = Approvals(ApprovalPolicy(rules, **policy), consent, self.grants)

    def _approve(self, question: Question) -> Any:
        assert isinstance(question, CallQuestion)
        self.asked.append(question)
        return self.answer

    async def check(
        self,
        tool: str = "bank.transfer",
        labels: Label = NOTHING,
        hints: dict[str, object] | None = None,
        digest: str = "sha256:1",
        **arguments: object,
    ) -> bool:
        stop = events.listen(self.told.append)
        server = tool.partition(".")[0]
        try:
            await self.approvals.check(
                server=server,
                identity=f"id-{server}",
                tool=tool,
                digest=digest,
                arguments=arguments,
                labels=labels,
                hints=hints or {},
                flow=self.flow,
            )
        except NotApproved as exc:
            self.error = str(exc)
            return False
        finally:
            stop()
        return True

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.told]


async def test_without_rules_and_without_anybody_everything_is_refused() -> None:
    scene = Scene(nobody=True)
    assert not await scene.check(to="ann")
    assert scene.names == ["approval.denied"] and "Host(approve=)" in scene.error


async def test_somebody_decides_with_all_of_it_before_their_eyes() -> None:
    scene = Scene()
    scene.flow.note("mail.read", Label.UNTRUSTED)
    hints: dict[str, object] = {"readOnlyHint": True}
    assert not await scene.check(labels=Label.DESTRUCTIVE, hints=hints, to="mallory")
    assert "somebody said no" in scene.error
    scene.answer = True
    assert await scene.check(labels=Label.DESTRUCTIVE, hints=hints, to="mallory")
    assert scene.names == ["approval.denied", "approval.granted"]
    question = scene.asked[0]
    assert (question.server, question.tool, question.arguments) == ("bank", "bank.transfer", {"to": "mallory"})
    assert (question.labels, question.hints) == (Label.DESTRUCTIVE, hints)
    assert question.sources == ("mail.read (untrusted)",) and "mail.read" in question.reasons[0]
    assert "unverified" in question.text()


async def test_rules_decide_without_asking_and_each_call_is_one_event() -> None:
    scene = Scene(DENY, ALLOW)
    assert not await scene.check("bank.wipe")
    assert "rule 1 (deny bank wipe)" in scene.error and "ApprovalPolicy.rules" in scene.error
    assert await scene.check("bank.transfer", to="ann")
    assert not scene.asked
    first, second = scene.told
    assert (first.name, first.decision, first.target, first.setting) == (
        "approval.denied", "refused", "bank.wipe", "ApprovalPolicy.rules",
    )  # fmt: skip
    assert (second.name, second.decision, second.server, second.arguments) == (
        "approval.granted", "allowed", "bank", {"to": "ann"},
    )  # fmt: skip
    assert "rule 2 (allow * *)" in second.text


async def test_a_default_of_deny_asks_nobody_and_knows_no_grants() -> None:
    state = MemoryState()
    asking = Scene(answer=Verdict(True, Always()), state=state)
    assert await asking.check(to="ann") and len(asking.grants.listed()) == 1
    scene = Scene(answer=True, state=state, default="deny")
    assert not await scene.check(to="ann")
    assert not scene.asked and scene.told[0].setting == "ApprovalPolicy.default"


@pytest.mark.parametrize("rules", [(), (ASK,)])
async def test_always_is_asked_once(rules: tuple[Rule, ...]) -> None:
    scene = Scene(*rules, answer=Verdict(True, Always()))
    for _ in range(3):
        assert await scene.check(to="ann")
    assert len(scene.asked) == 1 and scene.names == ["approval.granted"] * 3
    (grant,) = scene.grants.listed()
    assert (grant.alias, grant.tool, grant.identity) == ("bank", "bank.transfer", "id-bank")
    scene.answer = False
    assert not await scene.check(to="bob")
    assert not await scene.check("bank.other", to="ann")
    assert not await scene.check("bank2.transfer", to="ann")
    assert not await scene.check(digest="sha256:2", to="ann")
    assert not await scene.check(to="ann")  # the change ended it


async def test_a_rule_that_denies_goes_before_a_grant() -> None:
    state = MemoryState()
    assert await Scene(answer=Verdict(True, Always()), state=state).check("bank.wipe")
    assert not await Scene(DENY, answer=True, state=state).check("bank.wipe")


async def test_an_always_that_cannot_be_kept_is_a_yes_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(answer=Verdict(True, Always(arguments={"to": "https://a*"})))
    assert await scene.check(to="ann") and await scene.check(to="ann")
    assert len(scene.asked) == 2 and "one call only" in caplog.text


async def test_grants_that_cannot_be_read_end_the_call(tmp_path: Any) -> None:
    state = FolderState(tmp_path / "state")
    scene = Scene(answer=Verdict(True, Always()), state=state)
    assert await scene.check(to="ann")
    (tmp_path / "state" / "grants.json").write_text("[")
    scene.told.clear()
    with pytest.raises(StateError):
        await scene.check(to="ann")
    assert scene.names == ["approval.denied"] and len(scene.asked) == 1


@pytest.mark.parametrize("by", ["rule", "grant"])
async def test_what_would_pass_is_held_where_the_conversation_makes_it_dangerous(by: str) -> None:
    scene = Scene(*([ALLOW] if by == "rule" else []), answer=Verdict(True, Always()))
    scene.flow.note("files.read", Label.PRIVATE)
    assert await scene.check(labels=Label.DESTRUCTIVE)  # nothing dangerous yet: asked once, or a rule
    before = len(scene.asked)
    assert await scene.check(labels=Label.DESTRUCTIVE) and len(scene.asked) == before
    scene.flow.note("web.get", Label.UNTRUSTED)
    scene.answer = False
    scene.told.clear()
    assert not await scene.check(labels=Label.DESTRUCTIVE)
    assert scene.names == ["flow.held", "approval.denied"] and scene.told[0].decision == "noted"
    assert "web.get" in scene.told[0].text and len(scene.asked) == before + 1
    scene.flow.forget()
    assert await scene.check(labels=Label.DESTRUCTIVE)


async def test_a_tool_without_labels_is_taken_to_do_everything() -> None:
    scene = Scene(ALLOW)
    assert await scene.check(labels=EVERYTHING)
    scene.flow.note("some.tool", EVERYTHING)
    assert not await scene.check(labels=EVERYTHING) and "come together" in scene.asked[0].reasons[0]
    assert await scene.check(labels=Label(0))


async def test_a_rule_may_say_why_it_ignores_what_was_read() -> None:
    scene = Scene(Rule(action="allow", server="bank", tool="*", dangerously_ignore_flow="a sandbox of ours"))
    scene.flow.note("some.tool", EVERYTHING)
    assert await scene.check(labels=EVERYTHING) and not scene.asked
    told: list[events.Event] = []
    stop = events.listen(told.append)
    Scene(Rule(action="allow", server="bank", tool="*", dangerously_ignore_flow="a sandbox of ours"))
    Scene(ALLOW)
    stop()
    assert [(e.name, "a sandbox of ours" in e.text) for e in told] == [("policy.relaxed", True)]


@pytest.mark.parametrize(
    ("hints", "read", "labels"),
    [
        ({"destructiveHint": True}, Label.UNTRUSTED, Label.OUTWARD),
        ({"openWorldHint": True}, Label.PRIVATE, Label.DESTRUCTIVE),
    ],
)
async def test_a_server_is_believed_what_speaks_against_it(
    hints: dict[str, object], read: Label, labels: Label
) -> None:
    scene = Scene(ALLOW)
    scene.flow.note("some.tool", read)
    assert await scene.check(labels=labels)
    assert not await scene.check(labels=labels, hints=hints)
    assert any("the server itself says" in reason for reason in scene.asked[0].reasons)
    for odd in ("true", 1, None, False):
        assert await scene.check(labels=labels, hints=dict.fromkeys(hints, odd))


@pytest.mark.parametrize("hints", [{"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}])
async def test_a_server_is_not_believed_what_speaks_for_it(hints: dict[str, object]) -> None:
    scene = Scene()
    assert not await scene.check(hints=hints) and len(scene.asked) == 1
    scene = Scene(ALLOW)
    scene.flow.note("some.tool", Label.UNTRUSTED)
    assert not await scene.check(labels=Label.DESTRUCTIVE, hints=hints)


def test_a_policy_is_checked() -> None:
    for wrong in ({"rules": [{"server": "x"}]}, {"default": "allow"}):
        with pytest.raises(ConfigurationError):
            ApprovalPolicy(**wrong)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    yield
    assert not events.heard()
