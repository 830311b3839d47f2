"""A command at a terminal of its own, of which the test is the person."""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

__all__ = ["AtTerminal"]

_PATIENCE = 30.0


class AtTerminal:
    """`garrison` with its input, output and standard error at one terminal.

    Args:
        words: of the command.
        cwd: its folder.
        env: further variables.
    """

    def __init__(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        import pty  # not on every platform

        self._master, slave = pty.openpty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "garrison", *words],
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, start_new_session=True,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
        )  # fmt: skip
        os.close(slave)
        self.seen = ""
        """All that was shown."""
        self._read = 0

    def wait_for(self, text: str) -> str:
        """What was shown since the last time, up to this text."""
        ends = time.monotonic() + _PATIENCE
        while (found := self.seen.find(text, self._read)) < 0:
            if time.monotonic() > ends or not self._look():
                self._fail(f"{text!r} did not come")
        begin, self._read = self._read, found + len(text)
        return self.seen[begin : self._read]

    def _look(self) -> bool:
        """Reads a little more. False where there is no more."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            data = b""
        self.seen += self._decoder.decode(data).replace("\r\n", "\n")
        return bool(data)

    def _fail(self, why: str) -> NoReturn:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)
        raise AssertionError(f"{why}: {self.seen[self._read :]}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def answer(self, question: str, text: str) -> str:
        """Waits for a question and its prompt, and types a line; what was shown of it."""
        shown = self.wait_for(question) + self.wait_for("no [n]: ")
        self.type(f"{text}\n")
        return shown

    def end(self) -> tuple[int, str]:
        """The exit status, and what was shown since the last time."""
        ends = time.monotonic() + _PATIENCE
        while self._look():
            if time.monotonic() > ends:
                self._fail("it did not end")
        os.close(self._master)
        return self.process.wait(10), self.seen[self._read :]
