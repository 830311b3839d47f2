"""The file of an audit log: where it may lie, who writes it, when it is durable, and how it goes on after trouble."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.audit import AuditFailed, AuditKey, AuditLog
from garrison.audit import log as log_module
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.policy.secret import Secret
from tests.audit.scene import CALL, KEY, OTHER_KEY, REFUSAL, abandon, checked, filled, log_at

# The child of a fork does nothing here that another thread could have left half done.
pytestmark = [pytest.mark.app, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_record_is_in_the_file_when_write_returns(path: Path) -> None:
    with log_at(path) as log:
        for number in range(3):
            log.write(CALL._replace(request=str(number)))
            assert records(path)[-1]["request"] == str(number)
        assert log.head == (3, records(path)[-1]["hash"])
    assert [record.get("log") for record in records(path)] == ["begun", None, None, None, "closed"]


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        filled(path.parent / "new" / "folder" / "audit.log")
    finally:
        os.umask(old)
    made = path.parent / "new" / "folder"
    assert {stat.S_IMODE(each.stat().st_mode) for each in made.iterdir()} == {0o600}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_in_which_others_can_write_is_refused(path: Path) -> None:
    path.parent.chmod(0o770)
    with pytest.raises(InsecureConfigurationError, match="chmod"):
        log_at(path).open()
    path.parent.chmod(0o755)
    filled(path)


def test_a_link_or_anything_else_in_place_of_the_file_is_refused(path: Path) -> None:
    (path.parent / "other").write_text("")
    path.symlink_to("other")
    with pytest.raises(InsecureConfigurationError, match="symbolic link"):
        log_at(path).open()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises((InsecureConfigurationError, AuditFailed)):
        log_at(path).open()
    path.unlink()
    filled(path)
    path.chmod(0o622)
    with pytest.raises(InsecureConfigurationError, match="others can change it"):
        log_at(path).open()
    assert (path.parent / "other").read_text() == ""


def test_two_logs_cannot_write_one_file(path: Path) -> None:
    with log_at(path) as log:
        with pytest.raises(AuditFailed, match="another process"):
            log_at(path).open()
        program = f"from garrison.audit import AuditLog; AuditLog({os.fspath(path)!r}).open()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "another process writes this audit log" in done.stderr
        log.write(CALL)
    with log_at(path):
        assert checked(path).ok


def test_processes_that_are_forked_have_a_part_each(path: Path) -> None:
    log = log_at(path)
    for part in ("w1", "w2"):
        child = os.fork()
        if not child:
            log.open(part)
            log.write(CALL)
            log.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert checked(Path(f"{path}.{part}"), closed=True).records == 3
    assert not path.exists()


def test_a_fork_cannot_write_the_file_of_its_parent(path: Path) -> None:
    with log_at(path) as log:
        child = os.fork()
        if not child:
            try:
                log.write(CALL)
            except AuditFailed:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        log.write(CALL)
    assert checked(path, closed=True).records == 3


def test_a_log_goes_on_after_it_was_closed_and_says_so(path: Path) -> None:
    filled(path, 2)
    filled(path, 2)
    found = checked(path, closed=True)
    assert found.ok and found.records == 8 and found.adopted == 0
    assert [record["seq"] for record in records(path)] == list(range(8))
    assert "unclean" not in records(path)[4]


@pytest.mark.parametrize("torn", [b"", b"{", b'{"seq":4,"time":"2026-', b"\0" * 5000])
def test_a_log_goes_on_after_its_program_was_killed(torn: bytes, path: Path) -> None:
    filled(path, 3, close=False)
    with path.open("ab") as file:
        file.write(torn)
    assert checked(path).torn == len(torn)
    filled(path, 2)
    opened = records(path)[4]
    assert opened["log"] == "opened" and opened["unclean"] and opened.get("torn", 0) == len(torn)
    found = checked(path, closed=True)
    assert found.ok and found.records == 8 and found.adopted == 3


def test_a_log_that_was_changed_is_not_written_on(path: Path) -> None:
    filled(path, 3)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for broken in (
        b"".join([*lines[:-1], lines[-1].replace(b'"records":4', b'"records":5')]),
        b"".join([*lines[:-2], lines[-1]]),
        b"".join([lines[0].replace(b'"file":1', b'"file":2'), *lines[1:]]),
        whole + b"{}\n",
        b"not a log\n",
    ):
        path.write_bytes(broken)
        with pytest.raises(AuditFailed, match="garrison audit verify"):
            log_at(path).open()
        assert path.read_bytes() == broken
    path.write_bytes(whole)
    filled(path, 1)


@pytest.mark.parametrize("key", [KEY, None])
def test_a_last_record_that_was_changed_is_not_written_on(key: Any, path: Path) -> None:
    filled(path, 3, key=key, close=False)
    path.write_bytes(path.read_bytes().replace(b'"request":"2"', b'"request":"9"'))
    with pytest.raises(AuditFailed, match="garrison audit verify"):
        log_at(path, key=key).open()


def test_another_key_begins_another_file_of_the_same_chain(path: Path) -> None:
    filled(path, 2)
    filled(path, 2, key=OTHER_KEY)
    filled(path, 2, key=None)
    assert checked(path, key=None, closed=True).ok
    assert not checked(path).ok and not checked(path, key=[KEY, OTHER_KEY]).ok
    assert len(list(path.parent.glob("audit.log.0*"))) == 2


@pytest.mark.parametrize(("policy", "least", "most"), [("always", 20, 30), ("interval", 1, 8), ("never", 0, 3)])
def test_how_often_the_disk_is_asked(
    policy: Any, least: int, most: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_at(path, fsync=policy, interval=0.05)
    log.open()
    count = 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr(log_module.os, "fsync", fsync)
    for _ in range(20):
        log.write(CALL)
    if policy == "interval":
        until(lambda: count)
    assert least <= count <= most
    count = 0
    log.write(CALL)
    log.sync()
    assert count == (2 if policy == "always" else 1)
    log.close()


def test_what_is_due_is_done_without_an_event(path: Path) -> None:
    with log_at(path, interval=0.02, checkpoint_seconds=0.05, rate=1):
        pass
    log = log_at(path, interval=0.02, checkpoint_seconds=0.05, rate=1)
    for _ in range(5):
        log.write(REFUSAL)
    until(lambda: any(record.get("log") == "repeated" and record["count"] == 4 for record in records(path)))
    log.write(CALL)
    until(lambda: records(path)[-1].get("log") == "checkpoint")
    assert checked(path).unprotected == 0
    log.close()


class Disk:
    """A disk that takes so many bytes more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 40
        write = os.write

        def limited(descriptor: int, data: bytes) -> int:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done = write(descriptor, data[: self.room])
            self.room -= done
            return done

        monkeypatch.setattr(log_module.os, "write", limited)


@pytest.mark.parametrize("room", [0, 1, 100, 250, 330, 600])
def test_a_full_disk_is_an_error_and_the_log_recovers_by_itself(
    room: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    log = log_at(path)
    log.write(CALL)
    disk.room = room
    written = lost = 0
    for _ in range(10):
        try:
            log.write(CALL)
            written += 1
        except AuditFailed as exc:
            assert "No space left" in str(exc) and "alice" not in str(exc)
            lost += 1
    assert lost >= 7
    with pytest.raises(AuditFailed):
        log.sync()
    disk.room = 1 << 40
    log.write(CALL._replace(request="after"))
    log.close()
    found = checked(path, closed=True)
    assert found.ok and found.lost == lost and found.torn == 0
    assert [record["request"] for record in records(path) if "request" in record] == ["7"] * (written + 1) + ["after"]


def test_a_real_limit_of_the_system(path: Path) -> None:
    """RLIMIT_FSIZE stops a write in the middle of a record, as a full disk does."""
    child = os.fork()
    if not child:
        import signal

        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            log = log_at(path)
            log.write(CALL)
            size = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
            failed = 0
            for _ in range(3):
                try:
                    log.write(CALL)
                except AuditFailed:
                    failed += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            log.write(CALL)
            log.close()
            status = 0 if failed == 3 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = checked(path, closed=True)
    assert found.ok and found.lost == 3
    assert any(record.get("torn") == 100 for record in records(path))


def test_a_disk_that_fails_to_flush_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(path, fsync="always")
    log.write(CALL)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(log_module.os, "fsync", broken)
        with pytest.raises(AuditFailed, match="Input/output error"):
            log.write(CALL)
    log.write(CALL)
    log.close()
    assert checked(path, closed=True).lost == 1


def test_a_file_that_is_moved_away_is_missed(path: Path) -> None:
    log = log_at(path, interval=0.02)
    log.write(CALL)
    path.rename(path.parent / "moved")
    until(lambda: log._descriptor < 0)
    log.write(CALL)
    log.close()
    found = checked(path)
    assert found.problem is not None and "missing: files 1 to 1" in found.problem.what
    (path.parent / "moved").rename(path.parent / "audit.log.000001")
    assert checked(path, closed=True).ok


def test_a_file_that_is_cut_while_it_is_written_is_not_written_on(path: Path) -> None:
    log = log_at(path)
    log.write(CALL)
    lines = path.read_bytes().splitlines(keepends=True)
    log._give_up()
    path.write_bytes(lines[0])
    for _ in range(2):
        with pytest.raises(AuditFailed, match="does not end with what was written"):
            log.write(CALL)
    path.write_bytes(b"".join(lines))
    log.write(CALL)
    log.close()
    assert checked(path, closed=True).lost == 2


def test_several_threads_and_many_files_make_one_chain(path: Path) -> None:
    log = log_at(path, max_bytes=8192, keep=None, interval=0.01, fsync="interval", checkpoint_records=7)
    log.open()

    def work(name: str) -> None:
        for number in range(150):
            log.write(CALL._replace(request=f"{name}{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = checked(path, closed=True)
    assert found.ok and len(found.files) > 10
    written = [record["request"] for file in found.files for record in records(Path(file)) if "request" in record]
    assert sorted(written) == sorted(f"{name}{number}" for name in "abcd" for number in range(150))
    for name in "abcd":  # each thread's own, in its order
        assert [each for each in written if each[0] == name] == [f"{name}{number}" for number in range(150)]


@pytest.mark.parametrize("when", ["rename", "create", "header"])
def test_a_rotation_that_is_cut_short_is_finished(when: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(path, max_bytes=4096)
    from garrison.audit.place import Place

    def broken(*args: object, **more: object) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        if when == "rename":
            patched.setattr(Place, "put_away", broken)
        elif when == "create":
            patched.setattr(Place, "create", lambda self: (create(self), broken()) if log._number == 0 else broken())
            create = Place.create
            patched.undo()
            log.open()
            patched.setattr(Place, "create", broken)
        else:
            log.open()
            patched.setattr(AuditLog, "_begin", broken)
        with pytest.raises(AuditFailed):
            for _ in range(30):
                log.write(CALL)
    abandon(log)
    filled(path, 3)
    found = checked(path, closed=True)
    assert found.ok and len(found.files) == 2


@pytest.mark.attack("ATK-289")
def test_a_flood_of_identical_events_is_counted(path: Path) -> None:
    log = log_at(path)
    begin = time.monotonic()
    for _ in range(100_000):
        log.write(REFUSAL)
    log.write(CALL)
    log.close()
    seconds = time.monotonic() - begin
    written = [record for record in records(path) if record.get("event") == "host.refused"]
    assert len(written) <= 101 * (seconds + 2) and path.stat().st_size < 400 * len(written) + 2000
    assert sum(record.get("count", 1) for record in written) == 100_000
    assert checked(path, closed=True).ok


@pytest.mark.attack("ATK-289")
def test_a_flood_from_many_addresses_is_bounded_too(path: Path) -> None:
    log = log_at(path)
    begin = time.monotonic()
    for number in range(30_000):
        log.write(REFUSAL._replace(peer=f"10.0.{number % 200}.{number % 251}"))
    log.close()
    seconds = time.monotonic() - begin
    written = [record for record in records(path) if record.get("event") == "host.refused"]
    assert len(written) <= 65 * 101 * (seconds + 2)
    assert sum(record.get("count", 1) for record in written) == 30_000


@pytest.mark.attack("ATK-289")
def test_calls_and_few_events_are_always_written(path: Path) -> None:
    log = log_at(path, rate=5)
    for number in range(300):
        log.write(CALL._replace(request=str(number)))
    for peer in "abcd":
        for _ in range(5):
            log.write(REFUSAL._replace(peer=peer))
    log.close()
    assert checked(path).records == 1 + 300 + 20 + 1


def test_nothing_is_written_after_the_end(path: Path) -> None:
    log = log_at(path)
    log.close()
    assert not path.exists()
    with pytest.raises(AuditFailed, match="closed"):
        log.write(CALL)
    filled(path, 1)
    until(lambda: not [each for each in threading.enumerate() if each.name == "garrison-audit"], 10)


def test_the_key_is_not_shown(path: Path) -> None:
    text = "ab" * 32
    key = AuditKey(Secret(text))
    log = AuditLog(path, key=Secret(text))
    assert text not in repr(log) + repr(key) and key.id in repr(log)
    with pytest.raises(TypeError):
        key.__reduce__()
    file = path.parent / "key"
    file.write_text(text + "\n")
    file.chmod(0o600)
    assert AuditKey.read(file).id == key.id
    file.write_text("short")
    with pytest.raises(ConfigurationError, match="key"):
        AuditKey.read(file)
    file.chmod(0o644)
    with pytest.raises(InsecureConfigurationError):
        AuditKey.read(file)


@pytest.mark.parametrize(
    "settings",
    [
        *({"key": b"short"}, {"fsync": "sometimes"}, {"interval": 0}, {"max_bytes": 10}, {"keep": -1}, {"rate": 0}),
        *({"checkpoint_records": 0}, {"checkpoint_seconds": float("nan")}, {"fields": {"login": ["password"]}}),
    ],
)
def test_a_setting_that_is_not_of_its_form_is_an_error_at_the_start(settings: dict[str, Any], path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Audit"):
        AuditLog(path, **settings)
