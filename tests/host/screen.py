"""A terminal of which the test is the person."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import threading
from typing import Any

from garrison.host.console import terminal
from garrison.host.questions import Question, Verdict

__all__ = ["PROMPT", "Screen"]

PROMPT = "no [n]: "


class Screen:
    """A terminal of which the test is the person."""

    def __init__(self) -> None:
        import pty  # not on every platform

        self._master, slave = pty.openpty()
        self.input = os.fdopen(slave, closefd=False)
        self.output = os.fdopen(slave, "w", encoding="utf-8")
        self.seen = ""
        threading.Thread(target=self._look, daemon=True).start()
        self._read = 0

    def _look(self) -> None:
        """Reads what is shown, as a terminal does whatever the program is at."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self.seen += decoder.decode(data)
        os.close(self._master)

    def ask(self, question: Question) -> asyncio.Future[Any]:
        approve: Any = terminal(input=self.input, output=self.output)
        return asyncio.ensure_future(approve(question))

    async def wait_for(self, text: str) -> str:
        """What was shown since the last time, up to this text."""
        for _ in range(2000):
            found = self.seen.find(text, self._read)
            if found >= 0:
                begin, self._read = self._read, found + len(text)
                return self.seen[begin : self._read]
            await asyncio.sleep(0.002)
        raise AssertionError(f"{text!r} did not come: {self.seen[-2000:]!r}")

    def type(self, text: str | bytes) -> None:
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    async def answers(self, question: Question, *typed: str) -> Verdict:
        asking = self.ask(question)
        for each in typed:
            await self.wait_for(": ") if each != typed[0] else await self.wait_for(PROMPT)
            self.type(each)
        return await asking

    def close(self) -> None:
        self.input.close()
        self.output.close()  # the last one that holds it: reading ends
