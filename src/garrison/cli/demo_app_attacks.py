"""The demo's attacks on what tools do: by their arguments, by what they return, by how often they are called.

Rules of this file:
- An attack and its honest twin are calls of the same tool.
- What came is the status and the code, and where these would not tell, what is seen in the answer's own words.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from base64 import b64encode
from typing import TYPE_CHECKING, Final, cast

from ..audit.log import AuditLog
from ..audit.verification import verify
from ..server.serve import HttpServing
from .demo_app import BESIDE, application, furnish
from .demo_raw import Answer, HttpPeer, Post, meta, request
from .demo_rows import Row, row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from pathlib import Path

__all__ = ["attack_application", "attack_log"]

_MIB: Final = 1024 * 1024
_ERROR: Final = "200 isError"
_RESULT: Final = "200 result"
_REFUSED: Final = b'"decision":"refused"'
_PAY: Final = {"to": "ann", "cents": 500, "key": "k1"}


class _Caller:
    """Calls tools over HTTP."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    async def answer(self, tool: str, arguments: Mapping[str, object], **members: object) -> Answer:
        """The answer to one call; `members` are further ones of its parameters."""
        body = request("tools/call", {"name": tool, "arguments": arguments, "_meta": meta("elicitation"), **members})
        return await self._peer.post(
            Post(body, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool})
        )

    async def call(self, tool: str, **arguments: object) -> str:
        """The answer in a word; a secret in it is the whole of it."""
        answer = await self.answer(tool, arguments)
        return "the secret" if BESIDE in str(answer.message) else str(answer)

    async def said(self, tool: str, **arguments: object) -> str:
        """What the tool said."""
        return _text(await self.answer(tool, arguments))


def _text(answer: Answer) -> str:
    result = cast("dict[str, list[dict[str, str]]]", answer.message.get("result") or {})
    return result["content"][0]["text"] if result.get("content") else str(answer)


def _tar(name: str) -> str:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return b64encode(made.getvalue()).decode()


async def _row(what: str, expected: str, check: Awaitable[str]) -> Row:
    return await row(what, "http", "modern", expected, check)


async def attack_application(folder: Path, log: AuditLog | None) -> list[Row]:
    """Serve the application, and attack it.

    Args:
        folder: an empty one.
        log: keeps its records.
    """
    furnish(folder)
    serving = HttpServing(application(folder, log), "127.0.0.1", 0, token=secrets.token_urlsafe(32))
    await serving.start()
    try:
        caller = _Caller(HttpPeer(serving.port, serving.path, serving.token or ""))
        return [*await _inputs(caller), *await _outputs(caller), *await _effects(caller)]
    finally:
        await serving.close()


async def _inputs(caller: _Caller) -> list[Row]:
    call, said = caller.call, caller.said
    xml = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    return [
        await _row("a path out of the directory", _ERROR, call("read", path="../docs-private/key")),
        await _row("a link out of it", _ERROR, call("read", path="link.md")),
        await _row("  then a page in it", "a page", said("read", path="page.md")),
        await _row("a table that is not declared", _ERROR, call("look_up", table="keys", id="1")),
        await _row("SQL in a value", "0", said("look_up", table="users", id="' OR '1'='1")),
        await _row("  then a user by id", "1", said("look_up", table="users", id="1")),
        await _row("the metadata of a cloud", _ERROR, call("fetch", url="https://169.254.169.254/latest/meta-data/")),
        await _row("this machine, spelled otherwise", _ERROR, call("fetch", url="https://2130706433/")),
        await _row("a shell's words in an argument", "x; id $(id)", said("run", operation="echo", word="x; id $(id)")),
        await _row("an operation that is not declared", _ERROR, call("run", operation="sh -c", word="id")),
        await _row("  then a word", "x", said("run", operation="echo", word="x")),
        await _row("an archive that leads out", _ERROR, call("decode", kind="tar", data=_tar("../stolen"))),
        await _row("  then one that does not", "a.txt", said("decode", kind="tar", data=_tar("a.txt"))),
        await _row("an XML document that reads a file", _ERROR, call("decode", kind="xml", data=xml)),
        await _row("  then one that does not", "x", said("decode", kind="xml", data="<a>x</a>")),
    ]  # fmt: skip


async def _outputs(caller: _Caller) -> list[Row]:
    call, said = caller.call, caller.said

    async def seen(word: str) -> str:
        text = await said("say", word=word)
        return "as it is" if text == word else "written out" if text.isprintable() else "a part of it"

    async def cut() -> str:
        text = await said("say", word="x" * 1024, times=2048)
        return f"{'cut' if len(text) <= _MIB + 100 else 'whole'}, {'says so' if text.endswith(']') else 'silently'}"

    return [
        await _row("a terminal's commands in a result", "written out", seen("\x1b[2J\u202ex")),
        await _row("  then a plain word", "as it is", seen("x")),
        await _row("a secret in what a handler raises", _ERROR, call("fail")),
        await _row("a flood of 2 MiB", "cut, says so", cut()),
    ]


async def _effects(caller: _Caller) -> list[Row]:
    asked = await caller.answer("pay", _PAY)
    result = cast("dict[str, object]", asked.message.get("result") or {})
    questions = cast("dict[str, object]", result.get("inputRequests") or {})

    async def answered(arguments: Mapping[str, object], confirm: bool) -> str:
        yes = {"action": "accept" if confirm else "decline", "content": {"confirm": confirm}}
        members = {"requestState": result.get("requestState"), "inputResponses": dict.fromkeys(questions, yes)}
        answer = await caller.answer("pay", arguments, **members)
        return _text(answer) if confirm and "result" in answer.message else str(answer)

    async def often() -> str:
        *served, last = [await caller.answer("report", {}) for _ in range(4)]
        wait = last.headers.get("retry-after", "")
        count = sum(str(answer) == _RESULT for answer in served)
        return f"{count} served, then {last}, {'says when' if wait.isdigit() else 'does not say when'}"

    return [
        await _row("a payment that nobody confirmed", "200 asks", caller.call("pay", to="eve", cents=99, key="k0")),
        await _row("the yes to another payment", "200 -32602", answered({**_PAY, "to": "eve"}, True)),
        await _row("  then the yes to this one", "500 to ann", answered(_PAY, True)),
        await _row("  and the same call once more: not done again", "500 to ann", caller.said("pay", **_PAY)),
        await _row("its key for another payment", "409 409", caller.call("pay", **{**_PAY, "to": "eve"})),
        await _row("four reports, where three may be", "3 served, then 429 429, says when", often()),
    ]


async def attack_log(path: str) -> list[Row]:
    """Change a record that the demo has left, in a copy; the log itself is in order.

    Args:
        path: of a log that was closed.
    """

    async def judged(name: str) -> str:
        problem = verify(name).problem
        return "in order" if problem is None else f"broken at record {problem.record}"

    copy = f"{path}.changed"
    number = _change(path, copy)
    try:
        broken = f"broken at record {number}"
        changed = await row("the audit log, one word changed", "file", "modern", broken, judged(copy))
    finally:
        os.unlink(copy)
    return [changed, await row("  then the log of this demo", "file", "modern", "in order", judged(path))]


def _change(path: str, copy: str) -> int:
    """Write a log in which the first refusal is none, and say which record that is."""
    with open(path, "rb") as file:
        lines = file.readlines()
    at = next(number for number, line in enumerate(lines) if _REFUSED in line)
    number = json.loads(lines[at])["seq"]
    lines[at] = lines[at].replace(_REFUSED, b'"decision":"allowed"')
    with open(copy, "wb") as file:
        file.writelines(lines)
    return number
