"""Who takes part in `garrison demo --host`: a model that does what it reads, a person, and a program without a host.

Rules of this file:
- The model is the worst case: it obeys every order in any text that it is given, and tells all it knows when asked to.
- `Careless` and `Guarded` are two ways to put the same servers in front of it; nothing else differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from .. import types as t
from ..errors import ClientError
from ..host.adapters import generic_tools

if TYPE_CHECKING:
    from ..client import Client
    from ..host.host import Host
    from ..host.questions import Question

__all__ = ["EVERYTHING", "Careless", "Face", "Guarded", "Journal", "Model", "person"]

EVERYTHING: Final = "{context}"
"""In an order: all that the model has read."""
_ORDER: Final = re.compile(r"\bcall (\w+) with (\w+)=([^\s.]+)")
_STANDING: Final = re.compile(r"\bcall (\w+) of [^.]*?, always set (\w+)=([^\s]+)")
_MOST: Final = 20


class Journal:
    """What arrived where nobody wanted it."""

    def __init__(self) -> None:
        self.stolen: list[str] = []


class Face(Protocol):
    """What stands between a model and the servers."""

    async def given(self) -> str:
        """All that the model is told of the servers before its next turn."""
        ...

    def names(self) -> Sequence[str]:
        """The tools that it may call."""
        ...

    async def call(self, name: str, arguments: dict[str, object]) -> str:
        """What it is told when it calls one."""
        ...


class Careless:
    """Every tool of every server by its own name, and every text as it comes."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients
        self._tools: dict[str, tuple[Client, str]] = {}

    async def given(self) -> str:
        texts: list[str] = []
        for client in self._clients.values():
            texts.append(client.instructions or "")
            async for tool in client.tools():
                self._tools[tool.name] = client, tool.description or ""
        return "\n".join([*texts, *(text for _, text in self._tools.values())])

    def names(self) -> Sequence[str]:
        return tuple(self._tools)

    async def call(self, name: str, arguments: dict[str, object]) -> str:
        result = await self._tools[name][0].call_tool(name, arguments)
        return "\n".join(block.text for block in result.content if isinstance(block, t.TextContent))


class Guarded:
    """The same servers behind a `Host`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tools = generic_tools(host)

    async def given(self) -> str:
        await self._host.refresh()
        return "\n".join([self._host.instructions(), *(tool.description for tool in self._host.tools())])

    def names(self) -> Sequence[str]:
        return [tool.name for tool in self._host.tools()]

    async def call(self, name: str, arguments: dict[str, object]) -> str:
        called = next((each for each in self._tools.definitions() if _plain(str(each["name"])) == _plain(name)), None)
        given = {"id": "1", "name": name if called is None else called["name"], "arguments": arguments}
        return str((await self._tools.call(given))["content"])


def _plain(name: str) -> str:
    """A name as it is compared: a model API writes the `.` after the alias in its own way."""
    return name.replace("__", ".")


class Model:
    """A language model that does what it reads."""

    def __init__(self, face: Face, said: str) -> None:
        self._face = face
        self._read = said
        self._standing: list[tuple[str, str, str]] = []
        self._left = _MOST
        self._obeyed: set[tuple[str, str, str]] = set()

    async def turn(self) -> None:
        """The next message of the conversation: it is told of the tools, and obeys what they say."""
        await self._obey(await self._face.given())

    async def do(self, tool: str, **arguments: object) -> str:
        """What comes of what the person asked for."""
        answer = await self._call(tool, arguments)
        await self._obey(answer)
        return answer

    async def _obey(self, text: str) -> None:
        self._read += f"\n{text}"
        self._standing += _STANDING.findall(text)
        for tool, name, value in _ORDER.findall(text):
            if self._left and (tool, name, value) not in self._obeyed:
                self._left -= 1
                self._obeyed.add((tool, name, value))
                await self.do(tool, **{name: self._read if value == EVERYTHING else value})

    async def _call(self, tool: str, arguments: dict[str, object]) -> str:
        extra = {name: value for of, name, value in self._standing if of == tool}
        names = self._face.names()
        name = next((each for each in names if each == tool or each.endswith(f".{tool}")), tool)
        try:
            return await self._face.call(name, {**arguments, **extra})
        except (ClientError, LookupError) as exc:
            return f"It failed: {type(exc).__name__}"


def person(question: Question) -> bool:
    """Says yes to all that is asked, but not where the host says why it is dangerous."""
    return not question.reasons
