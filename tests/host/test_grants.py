"""A grant is for one tool as it was, for certain arguments, and for a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from garrison.errors import ConfigurationError
from garrison.host.grants import LONGEST, Grants
from garrison.host.questions import Always
from garrison.host.state import FolderState, MemoryState, State, StateError

DAY = 86_400.0


class Clock:
    """Two clocks: the wall's, which can be put back, and one that only goes forward."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def grants(self, state: State) -> Grants:
        return Grants(state, clock=lambda: self.wall, steady=lambda: self.steady)


def add(
    grants: Grants, always: Always | None = None, arguments: Mapping[str, object] | None = None, **other: Any
) -> Any:
    given: dict[str, Any] = {"identity": "id-a", "tool": "a.echo", "digest": "sha256:1", "alias": "a", **other}
    return grants.add(always or Always(), arguments=arguments or {"text": "x"}, **given)


def found(grants: Grants, arguments: Mapping[str, object] | None = None, **other: Any) -> bool:
    given = {"identity": "id-a", "tool": "a.echo", "digest": "sha256:1", **other}
    return grants.find(arguments=arguments or {"text": "x"}, **given) is not None


@pytest.fixture(params=["memory", "folder"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    return MemoryState() if request.param == "memory" else FolderState(tmp_path / "state")


def test_it_is_for_one_server_one_tool_and_one_definition(state: State) -> None:
    grants = Clock().grants(state)
    assert not found(grants)
    add(grants)
    assert found(grants)
    others: list[dict[str, Any]] = [{"identity": "id-b"}, {"tool": "a.echo2"}, {"tool": "b.echo"}]
    for other in others:
        assert not found(grants, **other)
    assert not found(grants, digest="sha256:2")


def test_another_definition_ends_it_for_good(state: State) -> None:
    grants = Clock().grants(state)
    add(grants)
    add(grants, tool="a.other")
    assert not found(grants, digest="sha256:2")
    assert not found(grants)  # the server took its change back
    assert found(grants, tool="a.other")
    add(grants)
    add(grants, Always(arguments={"text": "**"}), digest="sha256:3")
    assert [grant.digest for grant in grants.listed() if grant.tool == "a.echo"] == ["sha256:3"]


def test_it_is_for_these_very_arguments(state: State) -> None:
    grants = Clock().grants(state)
    add(grants, arguments={"path": "/a", "n": 1, "deep": {"x": [1, 2], "y": None}})
    assert found(grants, {"n": 1, "deep": {"y": None, "x": [1, 2]}, "path": "/a"})  # an object has no order
    for other in (
        {"path": "/a", "n": 1},
        {"path": "/a", "n": True, "deep": {"x": [1, 2], "y": None}},
        {"path": "/a", "n": "1", "deep": {"x": [1, 2], "y": None}},
        {"path": "/a", "n": 1, "deep": {"x": [2, 1], "y": None}},
        {"path": "/a", "n": 1, "deep": {"x": [1, 2], "y": None}, "more": 1},
        {"path": "/A", "n": 1, "deep": {"x": [1, 2], "y": None}},
    ):
        assert not found(grants, other)


def test_a_star_of_a_model_is_no_pattern(state: State) -> None:
    grants = Clock().grants(state)
    add(grants, arguments={"path": "**"})
    assert found(grants, {"path": "**"})
    assert not found(grants, {"path": "/etc/passwd"})


def test_a_pattern_is_one(state: State) -> None:
    grants = Clock().grants(state)
    add(grants, Always(arguments={"path": "/data/**"}), {"path": "/data/a"})
    assert found(grants, {"path": "/data/b/c"})
    for path in ("/data/../etc", "/etc", "/data", "/data/%2e%2e/x"):
        assert not found(grants, {"path": path})
    with pytest.raises(ConfigurationError):
        add(grants, Always(arguments={"url": "https://example.com*"}))


def test_it_ends(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    add(grants, Always(seconds=100))
    clock.passes(99)
    assert found(grants)
    clock.passes(1)
    assert not found(grants) and grants.listed() == ()


def test_it_ends_after_thirty_days_whatever_was_said(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    add(grants, Always(seconds=1e12))
    with state.changing("grants") as record:  # and whatever stands in the file
        for entry in record["grants"].values():  # type: ignore[union-attr]
            assert entry["until"] == clock.wall + LONGEST
            entry["until"] = clock.wall + 100 * LONGEST
    clock.passes(LONGEST - 10)
    assert found(grants)
    clock.passes(10)
    assert not found(grants)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_is_no_grant(seconds: float) -> None:
    grants = Clock().grants(MemoryState())
    assert add(grants, Always(seconds=seconds)) is None and not found(grants)


def test_a_clock_that_goes_back_ends_it(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    add(grants, Always(seconds=DAY))
    clock.wall -= 30  # clocks are set right
    assert found(grants)
    clock.passes(DAY / 2)
    clock.wall -= DAY / 4
    assert not found(grants)
    clock.wall += DAY / 4
    assert not found(grants)  # and it does not come back
    add(grants)
    assert found(grants)
    clock.wall -= DAY
    assert not found(grants)
    add(grants)
    assert found(grants)  # what is allowed now counts from now


def test_a_clock_that_goes_back_between_two_starts_ends_it(tmp_path: Path) -> None:
    clock = Clock()
    grants = clock.grants(FolderState(tmp_path / "state"))
    add(grants, Always(seconds=DAY))
    clock.passes(DAY / 2)
    assert found(grants)  # that it was used writes down when
    clock.wall -= DAY / 4
    assert clock.grants(FolderState(tmp_path / "state")).listed() == ()
    assert not found(clock.grants(FolderState(tmp_path / "state")))


def test_a_small_step_back_is_not_repeated_without_end(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    add(grants, Always(seconds=100))
    for _ in range(3):
        clock.passes(50)
        clock.wall -= 50
    assert not found(grants)


def test_it_survives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    add(clock.grants(FolderState(tmp_path / "state")), Always(seconds=DAY))
    clock.steady = 3.0  # another boot
    clock.wall += 60
    assert found(clock.grants(FolderState(tmp_path / "state")))


def test_it_is_listed_and_revoked(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    first = add(grants, arguments={"text": "sk-ant-" + "a1B2" * 24, "path": "\u202e/x"})
    clock.passes(1)
    second = add(grants, Always(arguments={"text": "a*"}, seconds=100), tool="a.other")
    assert grants.listed() == (first, second)
    assert "a1B2a1B2a1B2" not in first.arguments and "\u202e" not in first.arguments
    assert (second.alias, second.tool, second.until - second.granted) == ("a", "a.other", 100)
    assert second.arguments == '{"text":"a*"}'
    assert grants.revoke("00000000") == 0 and len(grants.listed()) == 2
    assert grants.revoke(first.id) == 1 and grants.listed() == (second,)
    add(grants)
    add(grants, identity="id-b")
    assert grants.end("id-a", "a.echo") == 1 and grants.end("id-a") == 1 and grants.end("id-a") == 0
    assert [grant.identity for grant in grants.listed()] == ["id-b"]
    assert grants.revoke() == 1 and grants.listed() == ()


def test_what_another_process_revokes_is_gone_at_once(tmp_path: Path) -> None:
    here, there = (Grants(FolderState(tmp_path / "state")) for _ in range(2))
    grant = add(here)
    assert found(here)
    there.revoke(grant.id)
    assert not found(here)


def test_secrets_are_not_written(tmp_path: Path) -> None:
    add(Grants(FolderState(tmp_path / "state")), arguments={"token": "ghp_" + "a1B2c3D4" * 5})
    (file,) = (tmp_path / "state").glob("grants.json")
    assert "a1B2c3D4a1B2" not in file.read_text()


def test_the_same_again_takes_the_place_of_the_first(state: State) -> None:
    clock = Clock()
    grants = clock.grants(state)
    add(grants, Always(seconds=DAY))
    add(grants, Always(seconds=100))
    assert [grant.until - clock.wall for grant in grants.listed()] == [100]


def test_there_is_an_end_to_how_many() -> None:
    state = MemoryState()
    grants = Grants(state)
    add(grants)
    with state.changing("grants") as record:
        (entry,) = record["grants"].values()  # type: ignore[union-attr]
        record["grants"] = {f"{n:08x}": {**entry, "tool": f"a.t{n}"} for n in range(1000)}
    assert add(grants) is None and not found(grants)


@pytest.mark.parametrize("entry", [None, [], {}, {"tool": "a.echo"}, {"exact": 1}])
def test_an_entry_that_is_none_allows_nothing(entry: Any) -> None:
    state = MemoryState()
    grants = Grants(state)
    add(grants, tool="a.other")
    with state.changing("grants") as record:
        kept: Any = record["grants"]
        kept["damaged"] = {**next(iter(kept.values())), **entry, "alien": 1} if isinstance(entry, dict) else entry
    assert not found(grants) and found(grants, tool="a.other")
    with state.changing("grants") as record:
        record["grants"] = entry
    assert not found(grants, tool="a.other")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state")
    grants = Grants(state)
    add(grants)
    (tmp_path / "state" / "grants.json").write_text("{")
    with pytest.raises(StateError):
        found(grants)
