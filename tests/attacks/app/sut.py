"""The server that the attacks on tools are played against, and the log of what its handlers were called to do.

Rules of this file:
- Tools are those of an ordinary server, with the helpers of `garrison.safe` where an author would use them.
- Each handler writes one line to `ran` before it does anything. What is refused leaves no line.
- `CANARY` stands where nobody may read it: outside of directories, in exceptions, in what is sent.
"""

from __future__ import annotations

import sqlite3
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from garrison import Context, Handles, McpError, SecurityPolicy, Server, Timeouts, ToolError
from garrison.gate.untrusted import Untrusted
from garrison.safe.archives import SafeArchive
from garrison.safe.command import SafeCommand
from garrison.safe.fetch import SafeFetch
from garrison.safe.fetch_url import FetchUrl
from garrison.safe.paths import SafePath
from garrison.safe.root import SafeRoot
from garrison.safe.sql import SafeSQL
from garrison.safe.templates import SafeTemplate
from garrison.safe.urls import SafeUrl
from garrison.safe.xml_documents import parse_xml
from garrison.safe.yaml_documents import parse_yaml
from garrison.server.access import Access
from garrison.types import EmbeddedResource, ImageContent, ResourceLink, TextResourceContents
from tests.support.everywhere import Answer, Door
from tests.support.protected import protection

__all__ = ["CANARY", "DOORS", "FAILURES", "KEY", "QUICK", "Sut", "answered"]

CANARY = "CANARY-3f1c9a"
KEY = "sk-live-4eC39HqLyjWDarjtT1zdp7dc9Qk2"
"""What looks like a key."""
DOORS = ("stdio", "http", "session", "websocket", "unix")
"""Where the rows about inputs and outputs are played."""
QUICK = Timeouts(shutdown=0.2)
_SECRET = f"/srv/app/{CANARY}/db.py: password={KEY} in SELECT * FROM users WHERE name='{CANARY}'"


@dataclass
class Choice:
    """What is asked for."""

    colour: str


class _Interrupt(KeyboardInterrupt):
    pass


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


def _raise(error: BaseException) -> None:
    raise error


FAILURES: dict[str, Any] = {
    "db": lambda: _raise(RuntimeError(_SECRET)),
    "group": lambda: _raise(BaseExceptionGroup(_SECRET, [ValueError(_SECRET), KeyboardInterrupt()])),
    "errors": lambda: _raise(ExceptionGroup(_SECRET, [ValueError(_SECRET), OSError(2, _SECRET)])),
    "interrupt": lambda: _raise(_Interrupt(_SECRET)),
    "exit": lambda: _raise(SystemExit(_SECRET)),
    "recursion": _recurse,
    "memory": lambda: _raise(MemoryError(_SECRET)),
    "internal": lambda: _raise(McpError.internal(_SECRET)),
}
"""What `fail` raises; each of them holds `CANARY` but the recursion."""

Kind = Literal["archive", "xml", "yaml", "template", "url"]
_BADGE = SafeTemplate('<a href="{link}">{name}</a>', kind="html")
_USERS = SafeUrl("https://api.example.com/api/v1/users/{id}")
_DECODERS: dict[Kind, Callable[[str], str]] = {
    "archive": lambda data: str([member.path for member in SafeArchive(b64decode(data)).members()]),
    "xml": lambda data: str(parse_xml(data).text),
    "yaml": lambda data: str(parse_yaml(data)),
    "template": lambda data: _BADGE.render(link=data, name=data),
    "url": lambda data: _USERS.build(id=data),
}
"""What `decode` does."""


class Sut:
    """The server, its directory, its database and its dispatch log.

    Args:
        folder: an empty directory.
        protected: callers need tokens of the issuer of `tests.support.protected`.
        name, options: of `Server`.
    """

    def __init__(self, folder: Path, *, protected: bool = False, name: str = "sut", **options: Any) -> None:
        self.ran: list[str] = []
        self.says = ""
        """The text of `said://text`."""
        self.folder = folder
        self.root = SafeRoot(self._files(), write=True)
        self.fetch = SafeFetch(hosts=["example.com"], timeout=2)
        self.run = SafeCommand("/bin/echo", {"say": ["--", "{word}"]}, slots={"word": str})
        self.sql = SafeSQL(str(self._database()), tables={"users": ["id", "name"], "orders": ["id", "item"]})
        self.carts: Handles[list[str]] = Handles("cart", most_each=3)
        self.protected = protected
        if protected:
            options["auth"] = protection(tenant_claim="tenant", scopes_supported=("read", "admin"))
        options.setdefault("policy", SecurityPolicy(timeouts=QUICK))
        self.server = Server(name, **options)
        self._inputs()
        self._outputs()
        self._effects()
        self._resources()

    def _files(self) -> Path:
        data = self.folder / "data"
        data.mkdir(parents=True)
        (data / "a.txt").write_text("inside")
        for outside in ("data-secret", "database"):
            (self.folder / outside).mkdir()
            (self.folder / outside / "x").write_text(CANARY)
        (self.folder / "x").write_text(CANARY)
        return data

    def _database(self) -> Path:
        path = self.folder / "shop.db"
        with sqlite3.connect(path) as db:
            db.executescript(
                "CREATE TABLE users (id TEXT, name TEXT); INSERT INTO users VALUES ('1', 'ann');"
                "CREATE TABLE orders (id TEXT, item TEXT); INSERT INTO orders VALUES ('7', 'tea');"
                f"CREATE TABLE keys (id TEXT, name TEXT); INSERT INTO keys VALUES ('1', '{CANARY}');"
            )
        db.close()
        return path

    def rule(self, *scopes: str) -> Any:
        """The rule of a tool: for everybody who has these scopes."""
        return {} if not self.protected else {"scopes": list(scopes)} if scopes else {"public": True}

    def _inputs(self) -> None:
        server, ran = self.server, self.ran

        @server.tool(**self.rule())
        def echo(text: str) -> str:
            ran.append("echo")
            return text

        @server.tool(**self.rule())
        def add(a: int, b: int) -> int:
            ran.append("add")
            return a + b

        @server.tool(**self.rule())
        async def scale(x: float, ctx: Context) -> float:
            ran.append("scale")
            return x * 2 if ctx.request_id is not None else x

        @server.tool(**self.rule())
        def total(numbers: list[int], note: dict[str, str] | None = None) -> int:
            ran.append("total")
            return sum(numbers)

        @server.tool(**self.rule())
        def region(region: Annotated[str, msgspec.Meta(extra_json_schema={"x-mcp-header": "Region"})]) -> str:
            ran.append("region")
            return region

        @server.tool(**self.rule())
        def read(path: str) -> str:
            ran.append("read")
            return self.root.read_text(path)

        @server.tool(**self.rule())
        async def fetch(url: str) -> str:
            ran.append("fetch")
            return (await self.fetch.get(url)).text

        @server.tool(**self.rule())
        async def lookup(table: str, id: str) -> list[dict[str, Any]]:
            ran.append("lookup")
            return list(await self.sql.select(table, where={"id": id}))

        @server.tool(**self.rule())
        async def run(op: str, arg: str) -> str:
            ran.append("run")
            return (await self.run.run(op, word=arg)).stdout.strip()

        def doc(path: SafePath) -> str:
            ran.append("doc")
            return path.read_text()

        async def page(url: FetchUrl) -> str:
            ran.append("page")
            return (await url.get()).text

        # Types that are bound in here alone cannot be found by their names.
        doc.__annotations__["path"] = type("Doc", (SafePath,), {}, root=self.root)
        page.__annotations__["url"] = type("Page", (FetchUrl,), {}, fetch=self.fetch)
        server.tool(**self.rule())(doc)
        server.tool(**self.rule())(page)

        @server.tool(**self.rule())
        def decode(kind: Kind, data: str) -> str:
            ran.append("decode")
            return _DECODERS[kind](data)

        @server.tool(**self.rule())
        async def slow(seconds: float) -> str:
            import asyncio

            ran.append("slow")
            await asyncio.sleep(seconds)
            return "slept"

    def _outputs(self) -> None:
        server, ran = self.server, self.ran

        @server.tool(**self.rule())
        def fail(kind: str) -> str:
            ran.append("fail")
            FAILURES[kind]()
            return "nothing failed"

        @server.tool(**self.rule())
        def explain(text: str) -> str:
            ran.append("explain")
            raise ToolError(text)

        @server.tool(**self.rule())
        def refuse(text: str) -> str:
            ran.append("refuse")
            raise McpError(text, code=7, data={"why": text, text: [text]})

        @server.tool(**self.rule())
        async def talk(text: str, ctx: Context) -> str:
            ran.append("talk")
            await ctx.progress(1, 2, text)
            await ctx.warning({"said": text})
            return "told"

        @server.tool(**self.rule())
        async def inquire(text: str, ctx: Context) -> str:
            ran.append("inquire")
            answer = await ctx.elicit(text, Choice)
            return answer.action

        @server.tool(**self.rule())
        def attached(text: str) -> Any:
            ran.append("attached")
            inner = TextResourceContents(uri="file:///a.txt", text=text)
            return [text, EmbeddedResource(inner), ResourceLink(name=text, uri="file:///a.txt", description=text)]

        @server.tool(**self.rule())
        def foreign(text: str) -> Any:
            ran.append("foreign")
            return Untrusted(text, source="https://example.com/page")

        @server.tool(output_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
                     **self.rule())  # fmt: skip
        def count(text: str) -> Any:
            ran.append("count")
            return {"n": int(text) if text.isdigit() else text}

        @server.tool(**self.rule())
        def picture(kind: str, data: str) -> Any:
            ran.append("picture")
            return ImageContent(data, kind)

        @server.tool(output_schema={"type": "object"}, **self.rule())
        def shape(text: str) -> dict[str, Any]:
            ran.append("shape")
            return {"deep": [{"text": text}]}

        @server.tool(**self.rule())
        def dump(n: int) -> str:
            ran.append("dump")
            return "x" * n

        @server.tool(**self.rule())
        def lines(n: int) -> list[str]:
            ran.append("lines")
            return ["x" * 1024] * n

    def _effects(self) -> None:
        server, ran = self.server, self.ran

        @server.tool(**self.rule())
        def whoami(ctx: Context) -> str:
            ran.append("whoami")
            return f"{ctx.principal.subject} of {ctx.principal.tenant}"

        @server.tool(**self.rule("admin"))
        def admin_reset() -> str:
            ran.append("admin_reset")
            return "reset"

        @server.tool(destructive=True, **self.rule())
        async def transfer(to: str, amount: int) -> str:
            ran.append(f"transfer {amount} to {to}")
            return "sent"

        @server.tool(destructive=True, confirm=False, **self.rule())
        def wipe(what: str) -> str:
            ran.append(f"wipe {what}")
            return "wiped"

        @server.tool(idempotent_by="key", **self.rule())
        def pay(to: str, amount: int, key: str) -> str:
            ran.append(f"pay {amount} to {to}")
            return f"paid, {len(ran)}"

        @server.tool(**self.rule())
        def cart_new(ctx: Context) -> str:
            ran.append("cart_new")
            return self.carts.new(ctx, [])

        @server.tool(**self.rule())
        def cart_add(ctx: Context, handle: str, item: str) -> int:
            ran.append("cart_add")
            self.carts.get(ctx, handle).append(item)
            return len(self.carts.get(ctx, handle))

    def _resources(self) -> None:
        server, ran = self.server, self.ran
        notes = {"home": {"n1": "of home"}, "away": {"m1": "of away"}}

        def own(access: Access) -> bool:
            if access.arguments is None or access.method == "completion/complete":
                return True
            return str(access.arguments.get("id")) in notes.get(access.principal.tenant or "", {})

        @server.resource("file:///{+path}", **self.rule())
        def file(path: str) -> str:
            ran.append("file")
            return self.root.read_text(path)

        @server.resource("db://{table}/{id}", **self.rule())
        async def row(table: Literal["users", "orders"], id: Annotated[str, "of the row"]) -> str:
            ran.append("row")
            found = await self.sql.select(table, where={"id": id})
            return str([dict(each) for each in found])

        @server.resource("tenant://notes/{id}", **({"authorize": own} if self.protected else {}))
        def note(id: str, ctx: Context) -> str:
            ran.append("note")
            return notes[ctx.principal.tenant or "home"][id]

        @server.completion("tenant://notes/{id}", "id")
        def ids(value: str, ctx: Context) -> list[str]:
            ran.append("ids")
            return sorted(notes[ctx.principal.tenant or "home"])

        @server.resource("said://text", **self.rule())
        def said() -> str:
            ran.append("said")
            return self.says

        @server.prompt(**self.rule())
        def greet(name: str) -> str:
            ran.append("greet")
            return f"Greet {name} kindly."


async def answered(at: Door, text: str | bytes) -> Answer:
    """The answer to one message on a connection of its own, whenever it comes."""
    async with at.connect() as line:
        await line.send(at.message(text))
        return (await line.answers(1))[0]
