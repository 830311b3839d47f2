"""What a handler works with: log, progress, threads, lifespan, dependencies and its instance."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated

import pytest

from garrison import Context, Depends, Limits, RegistrationError, SecurityPolicy, Server, ToolError, mcp_server, tool
from tests.support.features import always, everywhere, make, text
from tests.support.mcp import MODERN, peer


@always
@everywhere
@pytest.mark.attack("ATK-110")
async def test_log_levels(revision: str, transport: str) -> None:
    server = make()

    @server.tool()
    async def talk(ctx: Context) -> str:
        await ctx.debug("d")
        await ctx.info({"text": "i\r\n\r\ndata: {}\nevent: x"})
        await ctx.log("error", "e", logger="mine")
        return "done"

    async with peer(server, revision, transport) as p:

        def heard() -> list[str]:
            levels = [params["level"] for method, params in p.notifications if method == "notifications/message"]
            p.notifications.clear()
            return levels

        if revision == MODERN:
            key = "io.modelcontextprotocol/logLevel"
            await p.tool("talk")
            assert heard() == []
            await p.tool("talk", **{key: "debug"})
            assert heard() == ["debug", "info", "error"]
            await p.tool("talk", **{key: "warning"})
            assert heard() == ["error"]
            assert (await p.error("tools/call", {"name": "talk"}, **{key: "loud"}))["code"] == -32602
        else:
            await p.tool("talk")
            assert heard() == ["info", "error"]
            await p.result("logging/setLevel", {"level": "error"})
            await p.tool("talk")
            assert p.notifications[-1][1] == {"level": "error", "data": "e", "logger": "mine"}
            assert heard() == ["error"]
            assert (await p.error("logging/setLevel", {"level": "loud"}))["code"] == -32602
            assert (await p.error("logging/setLevel", {"level": ["error"]}))["code"] == -32602


@always
@everywhere
async def test_progress(revision: str, transport: str) -> None:
    server = make()

    @server.tool()
    async def work(ctx: Context) -> str:
        for value in (1, 2, 2, 1, 3):
            await ctx.progress(value, 3, "step")
        return "done"

    @server.tool()
    def thread(ctx: Context) -> str:
        for value in (1, 2):
            ctx.progress(value)
        return threading.current_thread().name

    async with peer(server, revision, transport) as p:
        await p.tool("work")
        assert p.notifications == []
        for token in ("t", 7):
            await p.tool("work", progressToken=token)
            assert [n["progress"] for _, n in p.notifications] == [1, 2, 3]
            assert all(
                n["progressToken"] == token and type(n["progressToken"]) is type(token) for _, n in p.notifications
            )
            assert all(("message" in n) == (revision >= "2025-03-26") for _, n in p.notifications)
            p.notifications.clear()
        assert "MainThread" not in text(await p.tool("thread", progressToken="t"))
        assert [n["progress"] for _, n in p.notifications] == [1, 2]
        for bad in (1.5, {}, True):
            assert (await p.error("tools/call", {"name": "work"}, progressToken=bad))["code"] == -32602, bad


async def test_sync_handlers_run_in_a_bounded_number_of_threads() -> None:
    server = make(policy=SecurityPolicy(limits=Limits(threads=3)))
    lock = threading.Lock()
    now = most = 0

    @server.tool()
    def work() -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return "x"

    async with peer(server) as p:
        await asyncio.gather(*(p.tool("work") for _ in range(20)))
        assert most == 3


async def test_the_lifespan_is_entered_and_left_once_and_seen_by_handlers() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        events.append("enter")
        yield "the state"
        events.append("leave")

    server = make(lifespan=lifespan)

    @server.tool()
    async def state(ctx: Context[str]) -> str:
        return ctx.state

    async with peer(server, transport="http") as p:
        for _ in range(3):
            assert text(await p.tool("state")) == "the state"
    assert events == ["enter", "leave"]


PROVIDED: list[str] = []


@asynccontextmanager
async def outer() -> AsyncIterator[str]:
    PROVIDED.append("+outer")
    try:
        yield "outer"
    finally:
        PROVIDED.append("-outer")


@contextmanager
def inner(ctx: Context) -> Iterator[str]:
    PROVIDED.append("+inner")
    try:
        yield str(ctx.principal)
    finally:
        PROVIDED.append("-inner")


async def later() -> str:
    return "later"


def plain() -> int:
    return 7


@pytest.mark.parametrize("fails", [False, True])
async def test_what_depends_provides_is_left_in_order(fails: bool) -> None:
    server = make()
    PROVIDED.clear()
    events = PROVIDED

    @server.tool()
    async def use(
        word: str,
        a: Annotated[str, Depends(outer)],
        b: Annotated[str, Depends(inner)],
        c: Annotated[str, Depends(later)],
        d: Annotated[int, Depends(plain)],
    ) -> str:
        events.append("run")
        if fails:
            raise ToolError("no")
        return f"{word} {a} {b} {c} {d}"

    async with peer(server) as p:
        (listed,) = (await p.result("tools/list"))["tools"]
        assert list(listed["inputSchema"]["properties"]) == ["word"]
        result = await p.tool("use", {"word": "w"})
        assert text(result) == ("no" if fails else "w outer local later 7")
        assert events == ["+outer", "+inner", "run", "-inner", "-outer"]
        events.clear()
        bad = await p.request("tools/call", {"name": "use", "arguments": {"word": "w", "a": "mine"}})
        assert bad["result"]["isError"] is True
        assert events == []


async def test_a_class_is_a_server() -> None:
    @mcp_server(name="files", version="9", instructions="use it")
    class Files:
        def __init__(self, root: str) -> None:
            self.root = root

        @tool(description="Where")
        async def where(self) -> str:
            return self.root

    one, two = Files("/one"), Files("/two")
    async with peer(Server.of(one)) as p:
        assert text(await p.tool("where")) == "/one"
        discovered = await p.result("server/discover")
        assert discovered["instructions"] == "use it"
    async with peer(Server.of(two)) as p:
        assert text(await p.tool("where")) == "/two"
    assert Server.of(one) is Server.of(one)


def test_a_class_that_cannot_be_hashed_is_a_server_that_goes_with_its_instance() -> None:
    @mcp_server(name="data")
    @dataclass
    class Data:
        root: str

        @tool()
        def where(self) -> str:
            return self.root

    @mcp_server(name="slots")
    class Slots:
        __slots__ = ()

    data = Data("/")
    assert Server.of(data) is Server.of(data)
    gone = weakref.ref(data)
    del data
    gc.collect()
    assert gone() is None
    with pytest.raises(RegistrationError, match="__slots__"):
        Server.of(Slots())
