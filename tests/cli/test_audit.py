"""`garrison audit`: what was changed is named, what happened is shown, and no text of a peer reaches the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from garrison.audit import AuditLog
from garrison.audit.reading import follow, log_files
from garrison.events import Event
from tests.cli.commands import garrison

pytestmark = [pytest.mark.app]
KEY = "ab" * 32
CALL = Event(
    "call.ended", "", "allowed", "ok", principal="alice", peer="127.0.0.1", method="tools/call", target="read",
    request="7", arguments={}, duration=0.002,
)  # fmt: skip
REFUSAL = Event("host.refused", "not\x1b[2J served\nhere", "refused", peer="192.0.2.7", setting="allowed_hosts")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    with AuditLog(path, key=bytes.fromhex(KEY), fsync="never", max_bytes=4096) as made:
        for number in range(20):
            made.write(CALL._replace(request=str(number), principal="alice" if number % 2 else "bob"))
        made.write(REFUSAL)
        made.write(CALL._replace(outcome="error", target="write", duration=1.5))
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    return path


def audit(action: str, path: Path, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = garrison("audit", action, os.fspath(path), *words, env=env)
    return done.returncode, done.stdout, done.stderr


def test_verify_follows_the_files_and_says_what_it_cannot_tell(log: Path) -> None:
    assert len(log_files(str(log))) > 2
    status, out, _ = audit("verify", log)
    assert status == 0 and out.startswith("ok") and "give it with --key" in out
    status, out, _ = audit("verify", log, "--closed", "--key", str(log.parent / "key"))
    assert status == 0 and "fits" in out and "closed" in out
    status, out, _ = audit("verify", log, "--json", env={"GARRISON_AUDIT_KEY": KEY})
    assert status == 0 and json.loads(out)["verified"] is True and json.loads(out)["problem"] is None


@pytest.mark.attack("ATK-281")
def test_verify_names_the_record_that_was_changed(log: Path) -> None:
    first = Path(log_files(str(log))[0])
    first.write_bytes(first.read_bytes().replace(b'"request":"3"', b'"request":"4"'))
    status, out, _ = audit("verify", log)
    assert status == 1 and out.startswith("BROKEN\nat      record 4: changed") and f"{first}, line 5" in out
    assert "good    4 records" in out
    status, out, _ = audit("verify", log, "--json")
    assert status == 1 and json.loads(out)["ok"] is False and json.loads(out)["problem"]["record"] == 4


def test_verify_with_a_head_that_is_gone(log: Path) -> None:
    status, out, _ = audit("verify", log, "--json")
    head = json.loads(out)["head"]
    assert audit("verify", log, "--head", head)[0] == 0
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert audit("verify", log)[0] == 0
    status, out, _ = audit("verify", log, "--head", head)
    assert status == 1 and "the end was cut off" in out


@pytest.mark.parametrize("words", [("--key", "nowhere"), ("--head",), ("--lines", "x")])
def test_wrong_words_are_status_2(log: Path, words: tuple[str, ...]) -> None:
    status, _, err = audit("verify", log, *words)
    assert status == 2 and err


def test_no_such_log_and_a_key_that_others_can_read(log: Path) -> None:
    status, _, err = audit("verify", log.parent / "other")
    assert status == 2 and "no such audit log" in err
    (log.parent / "key").chmod(0o644)
    status, _, err = audit("verify", log, "--key", str(log.parent / "key"))
    assert status == 2 and "chmod 600" in err and KEY not in err


def test_tail_shows_the_last_and_filters(log: Path) -> None:
    status, out, _ = audit("tail", log, "-n", "3")
    assert status == 0 and len(out.splitlines()) == 3
    assert "host.refused" in out and "192.0.2.7" in out and "(allowed_hosts)" in out and "1500 ms" in out
    assert "\x1b" not in out and "\\x1b[2J served here" in out
    status, out, _ = audit("tail", log, "--event", "call.*", "--principal", "bob", "-n", "100", "--json")
    assert [json.loads(line)["request"] for line in out.splitlines()] == [str(number) for number in range(0, 20, 2)]
    assert audit("tail", log, "--since", "1h", "-n", "1000")[1]
    assert audit("tail", log, "--since", "2999-01-01")[1] == ""
    assert audit("tail", log, "--since", "yesterday")[0] == 2


def test_tail_in_json_is_the_log_itself(log: Path) -> None:
    whole = b"".join(Path(each).read_bytes() for each in log_files(str(log))).decode()
    assert audit("tail", log, "-n", "1000", "--json")[1] == whole


def test_tail_follows_from_file_to_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, fsync="never", max_bytes=4096)
    log.write(CALL._replace(request="first"))
    command = [sys.executable, "-m", "garrison", "audit", "tail", os.fspath(path), "-f", "--json", "--event", "call.*"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["request"] == "first"
        for number in range(45):
            log.write(CALL._replace(request=str(number)))
            if number % 9 == 0:
                time.sleep(0.3)
        found = [json.loads(process.stdout.readline())["request"] for _ in range(45)]
        assert found == [str(number) for number in range(45)]
        assert len(log_files(str(path))) > 2
    finally:
        process.kill()
        process.communicate()
        log.close()


def test_follow_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, fsync="never") as log:
        log.write(CALL)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    following = follow([str(path)], 10)
    assert [next(following).seq for _ in range(2)] == [0, 1]
    with path.open("ab") as file:
        file.write(whole[-20:])
    assert next(following).seq == 2


def test_report_sums_up(log: Path) -> None:
    status, out, _ = audit("report", log)
    assert status == 0
    for part in ("call.ended", "host.refused", "allowed", "read ok", "write error", "bob", "by 192.0.2.7", "p99"):
        assert part in out, part
    found = json.loads(audit("report", log, "--json")[1])
    assert found["events"] == {"call.ended": 21, "host.refused": 1}
    assert found["tools"] == {"read ok": 20, "write error": 1} and found["decisions"]["refused"] == 1
    latency = found["latency"]
    assert latency["count"] == 21 and latency["longest"] == 1500.0 and latency["p99"] == 1500.0
    assert latency["p50"] == pytest.approx(2.0, rel=0.06)


def test_report_counts_what_was_counted_instead_of_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, fsync="never", rate=2) as log:
        for _ in range(50):
            log.write(REFUSAL)
    found = json.loads(audit("report", path, "--json")[1])
    assert found["events"]["host.refused"] == 50 and found["counted"] >= 44
    assert found["decisions"] == {"refused": 50} and found["refusals"] == {"host.refused by 192.0.2.7": 50}
