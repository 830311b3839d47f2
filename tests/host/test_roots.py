"""Folders that servers are told of: which may be, who agrees, and for how long."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison import events
from garrison.errors import ConfigurationError
from garrison.host.consent import Consent
from garrison.host.questions import Question, RootsQuestion
from garrison.host.roots import Roots, root_problem


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, with a project in it."""
    found = tmp_path / "people" / "ann"
    (found / "work" / "site").mkdir(parents=True)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(found))
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return found


class Person:
    """Answers all questions alike, and remembers them."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> bool:
        self.asked.append(question)
        return self.answer


def roots(person: Callable[[Question], bool] | None, *folders: str | os.PathLike[str], reason: str = "") -> Roots:
    return Roots("files", Consent(person), folders, dangerously_allow_roots=reason)


async def uris(told: Roots) -> list[str]:
    return [root.uri for root in await told()]


async def test_a_folder_is_told_once_somebody_agrees_and_asked_about_once(home: Path) -> None:
    person = Person()
    told = roots(person, home / "work" / "site")
    assert await asyncio.gather(uris(told), uris(told)) == [[(home / "work" / "site").as_uri()]] * 2
    assert await uris(told) == [(home / "work" / "site").as_uri()]
    assert person.asked == [RootsQuestion(server="files", roots=(str(home / "work" / "site"),))]


async def test_a_no_tells_nothing_and_holds(home: Path) -> None:
    person = Person(False)
    told = roots(person, home / "work")
    assert await uris(told) == await uris(told) == []
    assert len(person.asked) == 1
    assert await uris(roots(None, home / "work")) == []


async def test_a_uri_is_encoded_and_a_folder_told_once(home: Path) -> None:
    odd = home / "work" / "a b#c%41\u202e"
    odd.mkdir()
    told = roots(Person(), odd, str(odd) + os.sep, odd)
    assert await uris(told) == [odd.as_uri()]
    assert "%20b%23c%2541%E2%80%AE" in odd.as_uri()


def test_a_relative_folder_is_below_the_working_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "work")
    told = roots(Person(), "site")
    monkeypatch.chdir("/")
    assert asyncio.run(uris(told)) == [(home / "work" / "site").as_uri()]


@pytest.mark.parametrize(
    "written", ["work/..", "..", "work/../work/site", "work/site/absent", "", "file:///tmp", "a\0b"]
)
def test_what_is_no_folder_or_is_written_with_dots_is_refused(home: Path, written: str) -> None:
    place = f"{home}/{written}" if "://" not in written and written else written
    with pytest.raises(ConfigurationError):
        roots(Person(), place)


def test_a_file_is_no_root(home: Path) -> None:
    (home / "work" / "note").write_text("x")
    with pytest.raises(ConfigurationError, match="no directory"):
        roots(Person(), home / "work" / "note")
    with pytest.raises(ConfigurationError, match="list"):
        Roots("files", Consent(None), str(home / "work"))


@pytest.mark.parametrize(
    "below",
    [
        *(
            "",
            "..",
            ".ssh",
            ".ssh/keys",
            ".aws",
            ".gnupg",
            ".kube",
            ".docker",
            ".config",
            ".config/gcloud/logs",
            ".SSH",
        ),
        *(".local", ".local/share", ".local/share/keyrings", ".local/share/garrison", ".local/state/garrison/host"),
        *(".mozilla/firefox", ".config/garrison", "Library"),
    ],
)
def test_what_holds_everything_or_credentials_is_no_root_without_a_reason(home: Path, below: str) -> None:
    place = (home / below).resolve()
    place.mkdir(parents=True, exist_ok=True)
    with pytest.raises(ConfigurationError, match="dangerously_allow_roots"):
        roots(Person(), place)
    relaxed: list[events.Event] = []
    stop = events.listen(relaxed.append)
    try:
        assert asyncio.run(uris(roots(Person(), place, reason="a backup of everything"))) == [place.as_uri()]
    finally:
        stop()
    assert [event.name for event in relaxed if event.name == "policy.relaxed"] == ["policy.relaxed"]
    assert "a backup of everything" in relaxed[0].text


@pytest.mark.parametrize("place", ["/", "/etc", "/proc", "/proc/self", "/dev", "/sys"])
def test_the_system_is_no_root(home: Path, place: str) -> None:
    with pytest.raises(ConfigurationError):
        roots(Person(), place)


def test_a_blank_reason_is_none(home: Path) -> None:
    with pytest.raises(ConfigurationError):
        roots(Person(), home, reason="  ")


@pytest.mark.parametrize("below", ["work", "work/site", ".sshx", "aws", ".config/myapp", "etc", "Documents/.hidden"])
def test_other_folders_are(home: Path, below: str) -> None:
    place = home / below
    place.mkdir(parents=True, exist_ok=True)
    assert root_problem(str(place.resolve())) == ""
    assert asyncio.run(uris(roots(Person(), place))) == [place.as_uri()]


def test_a_link_is_judged_by_where_it_leads(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / "keys").symlink_to(home / ".ssh")
    with pytest.raises(ConfigurationError):
        roots(Person(), home / "keys")
    (home / "all").symlink_to("/")
    with pytest.raises(ConfigurationError):
        roots(Person(), home / "all")
    (home / "site").symlink_to(home / "work" / "site")
    assert asyncio.run(uris(roots(Person(), home / "site"))) == [(home / "work" / "site").as_uri()]
    # And what a linked credential folder leads to is one.
    (home / "work" / "gnupg").mkdir()
    (home / ".gnupg").symlink_to(home / "work" / "gnupg")
    with pytest.raises(ConfigurationError):
        roots(Person(), home / "work" / "gnupg")


async def test_a_link_that_leads_elsewhere_by_now_is_asked_about_anew_or_not_told(home: Path) -> None:
    link = home / "current"
    link.symlink_to(home / "work" / "site")
    person = Person()
    told = roots(person, link)
    assert await uris(told) == [(home / "work" / "site").as_uri()]
    (home / "work" / "next").mkdir()
    link.unlink()
    link.symlink_to(home / "work" / "next")
    assert await uris(told) == [(home / "work" / "next").as_uri()]
    assert len(person.asked) == 2

    heard: list[events.Event] = []
    stop = events.listen(heard.append)
    try:
        (home / ".ssh").mkdir()
        for place in (home / ".ssh", home / "gone"):
            link.unlink()
            link.symlink_to(place)
            assert await uris(told) == []
    finally:
        stop()
    assert [(event.name, event.server, event.target) for event in heard] == [("roots.refused", "files", str(link))] * 2
    assert len(person.asked) == 2
