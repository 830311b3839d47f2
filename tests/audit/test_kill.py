"""Kill -9 in the middle of writing: what was acknowledged is there, and the log goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.audit.scene import checked

pytestmark = [pytest.mark.app]

PROGRAM = """
import os, sys
from garrison.audit import AuditKey, AuditLog
from garrison.events import Event
log = AuditLog(sys.argv[1], key=AuditKey(bytes(range(32))), max_bytes=60_000, keep=None, interval=0.02)
log.open()
for number in range(int(sys.argv[2]), 1 << 40):
    log.write(Event("call.ended", "word " * (number % 60), request=str(number)))
    os.write(1, b"%d\\n" % number)
"""


def test_nothing_that_was_acknowledged_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    dice = random.Random(5)
    acknowledged = -1
    began: list[int] = []
    for _ in range(6):
        began.append(acknowledged + 1)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, os.fspath(path), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first
        time.sleep(dice.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        said = first + process.stdout.read()
        process.wait()
        process.stdout.close()
        acknowledged = int(said[: said.rindex(b"\n")].split()[-1])
        found = checked(path)
        assert found.ok, found.problem
        written = numbers(path)
        assert acknowledged in written
        assert set(range(acknowledged + 1)) <= set(written)
        acknowledged = max(written)  # the last one may have been written and not said
    assert numbers(path) == list(range(acknowledged + 1))
    assert len(checked(path).files) > 3 and len(began) == 6


def numbers(path: Path) -> list[int]:
    from garrison.audit.reading import entries, log_files
    from garrison.audit.record import Record

    return [int(each.request) for each in entries(log_files(str(path))) if isinstance(each, Record)]
