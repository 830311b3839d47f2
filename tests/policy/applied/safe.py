"""`SafeRoot`, `SafeSQL`, `SafeCommand`, `SafeFetch`: what tools call, seen through a tool of a live server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from garrison import SecurityPolicy, Server, Timeouts, TlsClientConfig
from garrison.errors import GarrisonError, ToolError
from garrison.safe import CommandLimits, Rows, SafeCommand, SafeFetch, SafeRoot, SafeSQL, Sandbox
from tests.safe.programs import program
from tests.safe.test_fetch import PAGE, Names, Site, moved, secured, site
from tests.safe.test_sql import Another
from tests.support.certs import Authority
from tests.support.mcp import call, post
from tests.support.raw_http import exchange, serving

from .case import case
from .scene import folder

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
ABSENT = "no such file or directory"


async def used(do: Callable[[], Any]) -> object:
    """What a tool gets that does this: its value, the name of an error, or what the caller reads of a refusal."""
    got: list[object] = []
    server = Server("s", policy=POLICY)

    @server.tool()
    async def act() -> str:
        try:
            found = do()
            got.append(await found if asyncio.iscoroutine(found) else found)
        except ToolError:
            raise
        except GarrisonError as exc:
            got.append(type(exc).__name__)
        return "done"

    async with serving(server) as running:
        result = (await exchange(running.port, post(running.port, call("act")))).json["result"]
    return result["content"][0]["text"] if result.get("isError") else got[0]


# SafeRoot


async def below(do: Callable[[SafeRoot], object], **settings: Any) -> object:
    """What a tool gets from a root with a few files in it."""
    with folder() as place:
        (place / "a" / "b" / "c").mkdir(parents=True)
        (place / "f").write_text("x" * 100)
        (place / "g").write_text("twin")
        os.link(place / "g", place / "h")
        (place / "link").symlink_to("f")
        return await used(lambda: do(SafeRoot(place, **settings)))


@case(SafeRoot, "path", first=("one", "one"), changed=("two", "two"))
async def root_path(value: str) -> object:
    with folder() as place:
        for name in ("one", "two"):
            (place / name).mkdir()
            (place / name / "f").write_text(name)
        return await used(lambda: SafeRoot(place / value).read_text("f"))


@case(SafeRoot, "write", default="is read-only (SafeRoot.write)", changed=(True, "written"))
async def root_write(value: bool) -> object:
    def do(root: SafeRoot) -> object:
        root.write_text("new", "written")
        return root.read_text("new")

    return await below(do, write=value)


@case(SafeRoot, "follow", default=ABSENT, changed=("within", 100))
async def root_follow(value: Any) -> object:
    return await below(lambda root: len(root.read_text("link")), follow=value)


@case(SafeRoot, "hard_links", default=ABSENT, changed=(True, "twin"))
async def root_hard_links(value: bool) -> object:
    return await below(lambda root: root.read_text("h"), hard_links=value)


@case(SafeRoot, "max_bytes", default=100, changed=(99, "is larger than 99 bytes (SafeRoot.max_bytes)"))
async def root_max_bytes(value: int) -> object:
    return await below(lambda root: len(root.read_bytes("f")), max_bytes=value)


@case(SafeRoot, "max_entries", default=["a", "f"], changed=(2, "more than 2 entries (SafeRoot.max_entries)"))
async def root_max_entries(value: int) -> object:
    return await below(lambda root: [each.path for each in root.list()], max_entries=value)


@case(SafeRoot, "max_depth", default=["a", "a/b", "a/b/c"], changed=(1, ["a"]))
async def root_max_depth(value: int) -> object:
    def do(root: SafeRoot) -> object:
        return [each.path for each in root.walk() if each.path.startswith("a")]

    return await below(do, max_depth=value)


# SafeSQL

UNDECLARED = "The query names a table that is not declared (SafeSQL.tables)"
UNLISTED = "The query calls a function that is not listed: Hex (SafeSQL.tables, SafeSQL.functions)"
READING = "The query writes, and this is for reading (SafeSQL.write)"
COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000) SELECT max(x) AS most FROM c"


def database(place: Path, name: str = "shop") -> Path:
    """A table of three rows in an SQLite file."""
    path = place / name
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO items (name) VALUES (?)", [(name,), ("b" * 50,), ("c" * 50,)])
        connection.commit()
    return path


async def asked(do: Callable[[SafeSQL], Any], **settings: Any) -> object:
    """What a tool gets from it."""
    with folder() as place:
        path = database(place)
        return await used(lambda: do(SafeSQL(path, **{"tables": {"items": ["id", "name"]}, **settings})))


async def every(db: SafeSQL) -> object:
    rows: Rows = await db.select("items")
    return len(rows), rows.truncated


@case(SafeSQL, "source", first=("shop", {"name": "shop"}), changed=("other", {"name": "other"}))
async def sql_source(value: str) -> object:
    with folder() as place:
        paths = {name: database(place, name) for name in ("shop", "other")}
        return await used(lambda: SafeSQL(paths[value], tables={"items": ["name"]}).get("items", name=value))


@case(SafeSQL, "tables", first=({"items": None}, (3, False)), changed=({"others": None}, UNDECLARED))
async def sql_tables(value: Any) -> object:
    return await asked(every, tables=value)


@case(SafeSQL, "dialect", default="ConfigurationError", changed=("sqlite", (3, False)))
async def sql_dialect(value: str | None) -> object:
    """What a function that gives connections is good for."""
    with folder() as place:
        path = database(place)

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, check_same_thread=False)

        return await used(lambda: every(SafeSQL(connect, tables={"items": ["id", "name"]}, dialect=value)))


@case(SafeSQL, "write", default=READING, changed=(True, 1))
async def sql_write(value: bool) -> object:
    return await asked(lambda db: db.update("items", {"name": "x"}, where={"id": 1}), write=value)


@case(SafeSQL, "timeout", default=1_000_000, changed=(0.01, "The query took longer than 0.01 s (SafeSQL.timeout)"))
async def sql_timeout(value: float) -> object:
    async def count(db: SafeSQL) -> object:
        return (await db.fetch(COUNT))[0]["most"]

    return await asked(count, timeout=value)


@case(SafeSQL, "max_rows", default=(3, False), changed=(2, (2, True)))
async def sql_max_rows(value: int) -> object:
    return await asked(every, max_rows=value)


@case(SafeSQL, "max_bytes", default=(3, False), changed=(100, (2, True)))
async def sql_max_bytes(value: int) -> object:
    return await asked(every, max_bytes=value)


@case(SafeSQL, "functions", default=UNLISTED, changed=(("hex",), ["73686F70"]))
async def sql_functions(value: Any) -> object:
    async def ask(db: SafeSQL) -> object:
        return [*(await db.ask("SELECT hex(name) FROM items WHERE id = 1"))[0].values()]

    return await asked(ask, functions=value)


@case(SafeSQL, "dangerously_without_read_only", default="ConfigurationError", changed=("a test", [(3,)]))
async def sql_without_read_only(value: str) -> object:
    """What a driver that is not told to read only is good for."""
    with folder() as place, contextlib.closing(sqlite3.connect(database(place))) as connection:
        another: Any = Another(connection, "qmark")

        async def do() -> object:
            db = SafeSQL(another, tables={"items": None}, dialect="oracle", dangerously_without_read_only=value)
            return [tuple(row.values()) for row in db.sync.fetch("SELECT count(*) FROM items")]

        return await used(do)


# SafeCommand

ECHO = {"go": ["%s", "a"]}


async def ran(program: str | Path, operations: Any, values: dict[str, Any] | None = None, **settings: Any) -> object:
    """What a tool gets from a program."""

    async def do() -> object:
        result = await SafeCommand(program, operations, **settings).run("go", **(values or {}))
        return result.stdout if result.ok else result.status

    return await used(do)


@case(SafeCommand, "program", first=("/usr/bin/true", ""), changed=("/usr/bin/false", 1))
async def command_program(value: str) -> object:
    return await ran(value, {"go": []})


@case(SafeCommand, "operations", first=(ECHO, "a"), changed=({"go": ["%s", "b"]}, "b"))
async def command_operations(value: Any) -> object:
    return await ran("/usr/bin/printf", value)


@case(
    SafeCommand,
    "slots",
    first=({"text": str}, "a"),
    changed=({"text": ["b"]}, "printf: go: slot 'text' must be one of: b"),
)
async def command_slots(value: Any) -> object:
    return await ran("/usr/bin/printf", {"go": ["%s", "{text}"]}, {"text": "a"}, slots=value)


@case(SafeCommand, "cwd", default="/\n", changed=("/usr", "/usr\n"))
async def command_cwd(value: str) -> object:
    return await ran("/usr/bin/pwd", {"go": []}, cwd=value)


@case(SafeCommand, "env", default=1, changed=({"GARRISON_SEEN": "yes"}, "yes\n"))
async def command_env(value: Any) -> object:
    return await ran("/usr/bin/printenv", {"go": ["GARRISON_SEEN"]}, env=value)


@case(SafeCommand, "inherit", default=1, changed=(("PYTEST_CURRENT_TEST",), ""))
async def command_inherit(value: Any) -> object:
    found = await ran("/usr/bin/printenv", {"go": ["PYTEST_CURRENT_TEST"]}, inherit=value)
    return "" if isinstance(found, str) and "command" in found.lower() else found


@case(SafeCommand, "timeout", default="", changed=(0.05, "sleep go did not end within 0.05 s"))
async def command_timeout(value: float) -> object:
    return await ran("/usr/bin/sleep", {"go": ["0.5"]}, timeout=value)


async def result_of(program: str, words: list[str], **settings: Any) -> Any:
    return await used(lambda: SafeCommand(program, {"go": words}, **settings).run("go"))


@case(SafeCommand, "max_output", default=("a" * 20, False), changed=(10, ("a" * 10, True)))
async def command_max_output(value: int) -> object:
    found = await result_of("/usr/bin/printf", ["%s", "a" * 20], max_output=value)
    return found.stdout, found.truncated


@case(SafeCommand, "max_errors", default=False, changed=(5, True))
async def command_max_errors(value: int) -> object:
    found = await result_of("/usr/bin/cat", ["/nonexistent"], max_errors=value)
    assert found.status == 1 and found.stderr
    return len(found.stderr) <= 5


async def open_files(**settings: Any) -> object:
    with folder() as place:
        script = program(place, "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])")
        return await ran(script, {"go": []}, **settings)


@case(
    SafeCommand, "limits", first=(CommandLimits(open_files=99), "99\n"), changed=(CommandLimits(open_files=77), "77\n")
)
async def command_limits(value: CommandLimits) -> object:
    return await open_files(limits=value)


@case(SafeCommand, "limits", default="1024\n", changed=(CommandLimits(open_files=77), "77\n"))
async def command_limits_by_default(value: CommandLimits | None) -> object:
    return await open_files(limits=value)


@case(SafeCommand, "sandbox", default="secret", changed=(Sandbox, 1), peer=True)
async def command_sandbox(value: Any) -> object:
    """What a program gets that reads a file of ours."""
    with folder() as place:
        (place / "f").write_text("secret")
        return await ran("/usr/bin/cat", {"go": [str(place / "f")]}, sandbox=value and value())


# SafeFetch

REFUSED = "The address was refused: "
NOT_PUBLIC = REFUSED + "the host is at an address that is not public (SafeFetch.private_hosts)"
NOT_LISTED = REFUSED + "the host is not on the list (SafeFetch.hosts)"
OTHER_TYPE = REFUSED + "the answer is of another media type (SafeFetch.media_types)"


async def fetched(here: Site, url: str = "", **settings: Any) -> object:
    """What a tool gets of the site's page."""

    async def do() -> object:
        fetch = SafeFetch(**{"private_hosts": [f"127.0.0.1:{here.port}", f"a.test:{here.port}"], **settings})
        return (await fetch.get(url or f"http://127.0.0.1:{here.port}/")).body

    return await used(do)


@case(SafeFetch, "hosts", default=NOT_PUBLIC, changed=(("b.test",), NOT_LISTED))
async def fetch_hosts(value: Any) -> object:
    """Why a host with an address that is not public is not asked."""
    async with site() as here:
        return await fetched(here, "https://c.test/", hosts=value, resolver=Names(c_test="127.0.0.1"))


@case(SafeFetch, "private_hosts", default=REFUSED + "only https is fetched", changed=("listed", b"hello"))
async def fetch_private_hosts(value: Any) -> object:
    async with site() as here:
        return await fetched(here, private_hosts=[f"127.0.0.1:{here.port}"] if value else ())


@case(SafeFetch, "max_bytes", default=b"hello", changed=(4, "ProtocolViolation"))
async def fetch_max_bytes(value: int) -> object:
    async with site() as here:
        return await fetched(here, max_bytes=value)


@case(SafeFetch, "timeout", default=b"hello", changed=(0.1, "RequestTimeout"))
async def fetch_timeout(value: float) -> object:
    with folder() as place:
        authority = Authority(place)
        async with site(secured(authority, "a.test")) as here:

            async def slow(host: str, port: int) -> Iterable[str]:
                await asyncio.sleep(0.4)
                return ["127.0.0.1"]

            tls = TlsClientConfig(ca=authority.pem)
            return await fetched(here, f"https://a.test:{here.port}/", timeout=value, tls=tls, resolver=slow)


@case(SafeFetch, "redirects", default=b"hello", changed=(1, REFUSED + "more than 1 redirects (SafeFetch.redirects)"))
async def fetch_redirects(value: int) -> object:
    async with site() as here:
        here.answers = lambda target: PAGE if target == "/xx" else moved(target + "x")
        return await fetched(here, redirects=value)


@case(SafeFetch, "media_types", default=b"hello", changed=(("application/json",), OTHER_TYPE))
async def fetch_media_types(value: Any) -> object:
    async with site() as here:
        return await fetched(here, media_types=value)


async def fetched_by_name(**settings: Any) -> object:
    """What is had of a site with a certificate of our own, under a name that we alone know."""
    with folder() as place:
        authority = Authority(place)
        usual = {"tls": "ours", "resolver": "ours"} | settings
        given: dict[str, Any] = {
            "tls": TlsClientConfig(ca=authority.pem) if usual["tls"] else None,
            "resolver": Names(a_test="127.0.0.1") if usual["resolver"] else None,
        }
        async with site(secured(authority, "a.test")) as here:
            return await fetched(here, f"https://a.test:{here.port}/", **given)


@case(SafeFetch, "tls", default="ConnectionFailed", changed=("ours", b"hello"))
async def fetch_tls(value: Any) -> object:
    return await fetched_by_name(tls=value)


@case(SafeFetch, "resolver", default="ConnectionFailed", changed=("ours", b"hello"))
async def fetch_resolver(value: Any) -> object:
    return await fetched_by_name(resolver=value)
