"""What was read makes the next call dangerous, whichever tool it is."""

from __future__ import annotations

import pytest

from garrison.host.flow import Flow
from garrison.host.labels import EVERYTHING, Label

NOTHING = Label(0)
P, U, O, D = Label.PRIVATE, Label.UNTRUSTED, Label.OUTWARD, Label.DESTRUCTIVE  # noqa: E741


@pytest.mark.parametrize(
    ("read", "call", "said"),
    [
        (NOTHING, EVERYTHING, []),
        (P, P | U, []),
        (U, U, []),
        (U, O, []),
        (P, D, []),
        (O | D, EVERYTHING, []),  # what a tool can do is nothing that was read
        (P, O, ["private data"]),
        (U, D, ["strangers"]),
        (U, P | O, ["come together"]),
        (P | U, O, ["come together"]),
        (P | U, D, ["strangers"]),
        (P | U, O | D, ["come together", "strangers"]),
        (EVERYTHING, EVERYTHING, ["come together", "strangers"]),
    ],
)
def test_reasons(read: Label, call: Label, said: list[str]) -> None:
    flow = Flow()
    flow.note("a.tool", read)
    found = flow.reasons(call)
    assert len(found) == len(said)
    for reason, words in zip(found, said, strict=True):
        assert words in reason and "a.tool" in reason


def test_it_adds_up_over_tools_and_names_its_sources() -> None:
    flow = Flow()
    assert flow.reasons(EVERYTHING) == () and flow.sources() == ()
    flow.note("files.read", P)
    flow.note("time.now", NOTHING)
    flow.note("web.fetch", U)
    flow.note("files.read", U)
    (reason,) = flow.reasons(O)
    assert "come together" in reason and "web.fetch" in reason and "files.read" in reason and "time" not in reason
    assert flow.sources() == ("files.read (private, untrusted)", "web.fetch (untrusted)")
    flow.forget()
    assert flow.reasons(EVERYTHING) == () and flow.sources() == ()


def test_labels_outlive_names() -> None:
    flow = Flow()
    for number in range(1000):
        flow.note(f"a.t{number}", P)
    flow.note("late.source", P | U)
    assert len(flow.sources()) < 1000
    first, second = flow.reasons(O | D)
    assert "too late" in second and len(first) < 1000
