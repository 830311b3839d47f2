"""Only a clear yes in time is a yes, and each question leaves one event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from garrison import events
from garrison.errors import ConfigurationError
from garrison.host.consent import Consent
from garrison.host.labels import Label
from garrison.host.questions import Always, CallQuestion, Question, RootsQuestion, Verdict

NUMBER = Verdict(1)  # type: ignore[arg-type]


def question(server: str = "files", **arguments: object) -> CallQuestion:
    return CallQuestion(server=server, tool=f"{server}.read", arguments=arguments, labels=Label.PRIVATE)


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    found: list[events.Event] = []
    stop = events.listen(found.append)
    yield found
    stop()


@pytest.mark.parametrize("answer", [True, Verdict(True), Verdict(True, tools=frozenset({"a"}), edited={"x": 1})])
@pytest.mark.parametrize("late", [False, True])
async def test_a_clear_yes_is_a_yes(answer: Any, late: bool, told: list[events.Event]) -> None:
    async def approve(_: Question) -> Any:
        await asyncio.sleep(0)
        return answer

    consent = Consent(approve if late else lambda _: answer)
    verdict = await consent.ask(question(path="/a"))
    assert consent.asks and verdict.allowed is True
    assert verdict.tools == getattr(answer, "tools", None) and verdict.edited == getattr(answer, "edited", None)
    assert [(e.name, e.decision, e.server, e.target, e.arguments) for e in told] == [
        ("approval.granted", "allowed", "files", "files.read", {"path": "/a"})
    ]


@pytest.mark.parametrize(
    "answer",
    [
        *(False, None, 1, "yes", "y", [True], object(), Verdict(False), NUMBER, (True, None, None, None)),
        *(Verdict(True, tools="files.read"), Verdict(True, tools=["files.read"]), Verdict),  # type: ignore[arg-type]
    ],
)
async def test_whatever_else_is_a_no(answer: Any, told: list[events.Event]) -> None:
    verdict = await Consent(lambda _: answer).ask(question())
    assert verdict == Verdict(False)
    assert [(e.name, e.decision) for e in told] == [("approval.denied", "refused")]


async def test_a_no_carries_nothing_else() -> None:
    answer = Verdict(False, always=Always(), tools=frozenset({"a"}), edited={})
    assert await Consent(lambda _: answer).ask(question()) == Verdict(False)


async def test_always_is_an_always_or_nothing() -> None:
    assert (await Consent(lambda _: Verdict(True, "always")).ask(question())).always is None  # type: ignore[arg-type]
    assert (await Consent(lambda _: Verdict(True, Always())).ask(question())).always == Always()


async def test_without_an_approver_nobody_is_asked(told: list[events.Event]) -> None:
    consent = Consent(None)
    assert not consent.asks
    assert await consent.ask(RootsQuestion(server="files", roots=("/a",))) == Verdict(False)
    assert [(e.name, e.setting, e.arguments) for e in told] == [("approval.denied", "Host(approve=)", None)]


@pytest.mark.parametrize("raised", [ValueError("boom"), asyncio.CancelledError(), TimeoutError()])
async def test_an_approver_that_fails_is_a_no(raised: BaseException, told: list[events.Event], caplog: Any) -> None:
    async def approve(_: Question) -> bool:
        raise raised

    consent = Consent(approve)
    assert not (await consent.ask(question())).allowed
    assert not (await consent.ask(question())).allowed  # and the next one is asked
    assert [e.name for e in told] == ["approval.denied"] * 2
    if not isinstance(raised, asyncio.CancelledError):
        assert "The approver failed" in caplog.text


async def test_a_late_yes_is_a_no(told: list[events.Event]) -> None:
    async def slow(_: Question) -> bool:
        await asyncio.sleep(30)
        return True

    def blocking(_: Question) -> bool:
        time.sleep(0.05)
        return True

    for approve in (slow, blocking):
        assert not (await Consent(approve, patience=0.02).ask(question())).allowed
    assert (await Consent(blocking, patience=5).ask(question())).allowed
    assert [(e.name, e.setting) for e in told][:2] == [("approval.denied", "Host(patience=)")] * 2


async def test_an_approver_that_will_not_end_keeps_its_turn() -> None:
    end = asyncio.Event()
    asked: list[Question] = []

    async def stubborn(each: Question) -> bool:
        asked.append(each)
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()
        return True

    consent = Consent(stubborn, patience=0.02)
    assert not (await consent.ask(question())).allowed
    assert not (await consent.ask(question())).allowed  # it was never put: what is typed now answers the first one
    assert len(asked) == 1
    end.set()
    await asyncio.sleep(0.01)
    assert (await consent.ask(question())).allowed and len(asked) == 2


async def test_taking_the_call_back_takes_the_question_back(told: list[events.Event]) -> None:
    ended = asyncio.Event()

    async def approve(_: Question) -> bool:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return True

    consent = Consent(approve)
    asking = asyncio.ensure_future(consent.ask(question()))
    waiting = asyncio.ensure_future(consent.ask(question("mail")))
    await asyncio.sleep(0.01)
    for task in (waiting, asking):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await ended.wait()
    assert [(e.name, e.server) for e in told] == [("approval.denied", "mail"), ("approval.denied", "files")]
    consent = Consent(lambda _: True)
    assert (await consent.ask(question())).allowed


async def test_one_question_at_a_time_and_servers_take_turns() -> None:
    order: list[str] = []
    busy = 0

    async def approve(each: Question) -> bool:
        nonlocal busy
        busy += 1
        assert busy == 1
        await asyncio.sleep(0.001)
        order.append(f"{each.server}{each.arguments['n']}")  # type: ignore[attr-defined]
        busy -= 1
        return True

    consent = Consent(approve)
    flood = [asyncio.ensure_future(consent.ask(question("a", n=n))) for n in range(5)]
    await asyncio.sleep(0)
    other = [asyncio.ensure_future(consent.ask(question("b", n=n))) for n in range(2)]
    assert all(verdict.allowed for verdict in await asyncio.gather(*flood, *other))
    assert order == ["a0", "a1", "b0", "a2", "b1", "a3", "a4"]


async def test_what_leaves_its_place_leaves_no_hole() -> None:
    release = asyncio.Event()

    async def approve(_: Question) -> bool:
        await release.wait()
        return True

    consent = Consent(approve)
    tasks = [asyncio.ensure_future(consent.ask(question("a"))) for _ in range(6)]
    await asyncio.sleep(0.01)
    for index in (1, 3, 5):
        tasks[index].cancel()
    await asyncio.sleep(0.01)
    release.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, Verdict) for each in done] == [True, False] * 3
    assert (await consent.ask(question("a"))).allowed


async def test_a_turn_that_is_given_to_who_just_left_goes_to_the_next() -> None:
    first = asyncio.Event()

    async def approve(each: Question) -> bool:
        if each.arguments["n"] == 0:  # type: ignore[attr-defined]
            await first.wait()
        return True

    consent = Consent(approve)
    tasks = [asyncio.ensure_future(consent.ask(question("a", n=n))) for n in range(3)]
    await asyncio.sleep(0.01)
    first.set()
    for _ in range(20):  # at every step of the loop at which the turn may be under way
        await asyncio.sleep(0)
        if tasks[0].done():
            tasks[1].cancel()
            break
    assert (await tasks[2]).allowed


async def test_too_many_questions_of_one_server_are_refused_and_another_server_is_not(
    told: list[events.Event],
) -> None:
    release = asyncio.Event()

    async def approve(_: Question) -> bool:
        await release.wait()
        return True

    consent = Consent(approve)
    flood = [asyncio.ensure_future(consent.ask(question("evil"))) for _ in range(40)]
    await asyncio.sleep(0.01)
    assert [(e.name, e.server, e.setting) for e in told] == [("approval.denied", "evil", "")] * 23
    good = asyncio.ensure_future(consent.ask(question("good")))
    await asyncio.sleep(0.01)
    release.set()
    assert (await good).allowed
    assert sum(verdict.allowed for verdict in await asyncio.gather(*flood)) == 17


async def test_waiting_for_a_turn_ends_too() -> None:
    async def approve(each: Question) -> bool:
        await asyncio.sleep(0.15 if each.server == "a" else 0)
        return True

    consent = Consent(approve, patience=0.2)
    asked = [consent.ask(question("a")) for _ in range(4)]
    assert sum(verdict.allowed for verdict in await asyncio.gather(*asked)) == 2


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"patience": float("nan")}, {"patience": float("inf")}, {"waiting": 0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Consent(None, **wrong)
    with pytest.raises(ConfigurationError):
        Consent("yes")  # type: ignore[arg-type]
