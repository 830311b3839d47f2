"""Whatever is done to a log shows, at the record where it was done."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.audit.chain import linked
from garrison.audit.record import read_line
from tests.audit.scene import CALL, KEY, OTHER_KEY, REFUSAL, changed, checked, filled, log_at

pytestmark = [pytest.mark.app]
COUNT = 12
"""Lines of the log: a header, ten events, and the closing mark."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "audit.log"
    filled(path, COUNT - 2)
    return path


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "audit.log"))


@pytest.mark.attack("ATK-281")
def test_an_untouched_log_is_ok(log: Path) -> None:
    found = checked(log, closed=True)
    assert found.ok and found.verified and found.closed and found.records == COUNT
    assert (found.first, found.last, found.unprotected, found.torn, found.lost) == (0, COUNT - 1, 0, 0, 0)
    assert checked(log, key=None, closed=True).ok


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("at", range(COUNT))
def test_a_changed_byte_is_found_at_its_record(at: int, key: object, log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    for position in range(0, len(lines[at]) - 1, 7):
        bad = bytearray(lines[at])
        bad[position] ^= 1
        log.write_bytes(b"".join([*lines[:at], bytes(bad), *lines[at + 1 :]]))
        found = checked(log, key=key)
        assert found.problem is not None and found.problem.record <= at, position
        assert found.problem.line == at + 1 and found.records == at


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("at", range(COUNT - 1))
def test_a_dropped_line_is_named(at: int, log: Path) -> None:
    changed(log, lambda lines: lines.__delitem__(at))
    found = checked(log)
    assert found.problem is not None and found.problem.record == at and "missing" in found.problem.what


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("at", range(COUNT - 1))
def test_lines_that_changed_places_are_named(at: int, log: Path) -> None:
    changed(log, lambda lines: lines.insert(at + 1, lines.pop(at)))
    found = checked(log)
    assert found.problem is not None and found.problem.record == at


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("at", range(COUNT))
def test_a_line_that_stands_twice_is_named(at: int, log: Path) -> None:
    changed(log, lambda lines: lines.insert(at, lines[at]))
    found = checked(log)
    assert found.problem is not None and found.problem.record == at + 1


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("at", range(1, COUNT))
def test_a_log_without_its_end_is_not_closed(at: int, log: Path) -> None:
    changed(log, lambda lines: lines.__delitem__(slice(at, None)))
    found = checked(log)
    assert found.ok and not found.closed and found.unprotected == at - 1
    found = checked(log, closed=True)
    assert found.problem is not None and found.problem.record == at


@pytest.mark.parametrize("at", range(1, COUNT))
def test_a_head_that_was_kept_elsewhere_shows_that_the_end_is_gone(at: int, log: Path) -> None:
    head = read_line(log.read_bytes().splitlines(keepends=True)[at]).hash.hex()
    assert checked(log, head=head).ok
    changed(log, lambda lines: lines.__delitem__(slice(at, None)))
    found = checked(log, head=head)
    assert found.problem is not None and found.problem.record == at


@pytest.mark.parametrize("cut", [1, 5, 60, 250])
def test_a_torn_last_line_is_said_and_what_is_before_it_verified(cut: int, log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-cut])
    found = checked(log)
    assert found.ok and found.torn > 0 and found.records in (COUNT - 1, COUNT - 2) and not found.closed
    assert not checked(log, closed=True).ok


def written_anew(path: Path, lines: list[bytes]) -> None:
    """What somebody without the key can do: number the records anew, and compute every hash."""
    before = bytes(32)
    made: list[bytes] = []
    for number, line in enumerate(lines):
        new, before = linked(before, b'{"seq":%d,' % number + read_line(line).body.partition(b",")[2])
        made.append(new)
    path.write_bytes(b"".join(made))


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("at", range(COUNT))
def test_hashes_computed_anew_are_found_by_the_key(at: int, log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    written_anew(log, lines)
    assert checked(log, closed=True).ok  # nothing was changed yet
    written_anew(log, [*lines[:at], lines[at].replace(b'"time":"2026', b'"time":"2025'), *lines[at + 1 :]])
    assert checked(log, key=None, closed=True).ok
    found = checked(log)
    assert found.problem is not None and found.problem.record in (at, COUNT - 1)


def test_a_log_of_another_key_or_of_none_is_found(log: Path, tmp_path: Path) -> None:
    found = checked(log, key=OTHER_KEY)
    assert found.problem is not None and found.problem.record == 0 and "another key" in found.problem.what
    assert checked(log, key=[OTHER_KEY, KEY]).ok
    filled(tmp_path / "forged" / "audit.log", 3, key=OTHER_KEY)
    shutil.copy(tmp_path / "forged" / "audit.log", log)
    assert not checked(log).ok
    filled(tmp_path / "plain" / "audit.log", 3, key=None)
    shutil.copy(tmp_path / "plain" / "audit.log", log)
    found = checked(log)
    assert found.problem is not None and "no key" in found.problem.what
    found = checked(log, key=None, closed=True)
    assert found.ok and not found.keyed and found.unprotected == 5


def test_a_checkpoint_that_is_left_out_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    filled(path, 12, checkpoint_records=3)
    marks = [i for i, line in enumerate(path.read_bytes().splitlines()) if b'"log":"checkpoint"' in line]
    assert len(marks) == 3 and checked(path).ok
    lines = path.read_bytes().splitlines(keepends=True)
    written_anew(path, [line for number, line in enumerate(lines) if number not in marks])
    found = checked(path)
    assert found.problem is not None and found.problem.record == 4 and "not signed" in found.problem.what


def rotated(path: Path, files: int = 4) -> list[Path]:
    filled(path, 13 * files, max_bytes=4096, keep=None)
    found = sorted(path.parent.glob("audit.log.0*"))
    assert len(found) >= files
    return found


@pytest.mark.attack("ATK-281")
def test_a_log_of_several_files_is_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    before = rotated(path)
    found = checked(path, closed=True)
    assert found.ok and len(found.files) == len(before) + 1 and found.last == found.records - 1
    assert checked(before[1]).ok  # one of them, by itself


@pytest.mark.attack("ATK-281")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_file_is_missed(which: int, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    gone = rotated(path)[which]
    first = read_line(gone.read_bytes().splitlines(keepends=True)[0]).entry.seq
    gone.unlink()
    found = checked(path)
    assert found.problem is not None and "missing" in found.problem.what
    assert found.problem.record >= first


@pytest.mark.attack("ATK-281")
def test_files_that_changed_places_or_were_replaced_are_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    one, two, three = rotated(path)[:3]
    first = read_line(two.read_bytes().splitlines(keepends=True)[0]).entry.seq
    was = two.read_bytes()
    shutil.copy(three, two)
    found = checked(path)
    assert found.problem is not None and found.problem.record == first
    two.write_bytes(was)
    assert checked(path).ok
    shutil.copy(one, two)
    assert not checked(path).ok
    two.write_bytes(b"")
    assert not checked(path).ok


def test_the_end_of_a_file_before_cannot_be_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    one = rotated(path)[0]
    lines = one.read_bytes().splitlines(keepends=True)
    for keep in range(len(lines) - 1, 0, -3):
        one.write_bytes(b"".join(lines[:keep]))
        found = checked(path)
        assert found.problem is not None and found.problem.record == keep
    one.write_bytes(b"".join(lines)[:-1])
    assert not checked(path).ok


def test_files_that_were_deleted_by_the_log_are_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    filled(path, 80, max_bytes=4096, keep=2)
    left = sorted(path.parent.glob("audit.log.0*"))
    assert len(left) == 2
    found = checked(path, closed=True)
    assert found.ok and found.first is not None and found.first > 0
    left[0].unlink()
    assert not checked(path).ok


def test_a_file_that_says_it_follows_another_is_found_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    one, two = rotated(path)[:2]
    lines = two.read_bytes().splitlines(keepends=True)
    before = read_line(one.read_bytes().splitlines(keepends=True)[-1]).hash
    body = read_line(lines[0]).body
    lines[0] = linked(before, body.replace(before.hex().encode(), b"0" * 64))[0]
    two.write_bytes(b"".join(lines))
    found = checked(path, key=None)
    assert found.problem is not None and "follow" in found.problem.what


MUTATIONS = ("flip", "drop", "move", "double", "cut", "insert", "none")


@pytest.mark.attack("ATK-281")
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.sampled_from(MUTATIONS), st.integers(0, 2**32), st.sampled_from([2, 5, 1000]))
def test_any_log_and_any_change(count: int, mutation: str, seed: int, every: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.log"
        log = log_at(path, checkpoint_records=every)
        for number in range(count):
            log.write((CALL if dice.random() < 0.5 else REFUSAL)._replace(request=str(number)))
        log.close()
        lines = path.read_bytes().splitlines(keepends=True)
        at = dice.randrange(len(lines))
        if mutation == "flip":
            position = dice.randrange(len(lines[at]) - 1)
            other = bytes([lines[at][position] ^ dice.randrange(1, 256)])
            lines[at] = lines[at][:position] + other + lines[at][position + 1 :]
        elif mutation == "drop":
            del lines[at]
        elif mutation == "move":
            line = lines.pop(at)
            to = dice.choice([place for place in range(len(lines) + 1) if place != at])
            lines.insert(to, line)
            at = min(at, to)
        elif mutation == "double":
            lines.insert(dice.randrange(at + 1, len(lines) + 1), lines[at])
            at = len(lines)
        elif mutation == "cut":
            lines[at] = lines[at][: dice.randrange(len(lines[at]) - 1)]
        elif mutation == "insert":
            lines.insert(at, bytes(dice.randrange(256) for _ in range(5)) + dice.choice([b"", b"\n"]))
        path.write_bytes(b"".join(lines))
        found = checked(path, closed=True)
        if mutation == "none":
            assert found.ok
        else:
            assert found.problem is not None and found.problem.record <= at
