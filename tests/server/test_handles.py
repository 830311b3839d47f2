"""Handles: what is kept for a caller is found by that caller alone, for a time, and within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from garrison import ConfigurationError, Context, Handles, SecurityPolicy, Server, Timeouts, ToolError
from garrison.policy.principal import ANONYMOUS, LOCAL, Principal
from tests.support.callers import ERAS, KINDS, Who, place
from tests.support.protected import protection

ISSUER = "https://auth.example.com"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def by(subject: str = "alice", **more: Any) -> Context[Any]:
    """The context of a call by this principal, as far as handles look at it."""
    principal = subject if isinstance(subject, Principal) else Principal(subject, issuer=ISSUER, **more)
    return SimpleNamespace(principal=principal)  # type: ignore[return-value]  # no more of a context is looked at


ALICE, BOB = by(), by("bob")


def missing(handles: Handles[Any], ctx: Context[Any], handle: str) -> str:
    """What a caller is told who has no such handle."""
    words: set[str] = set()
    for use in (handles.get, handles.end):
        with pytest.raises(ToolError) as told:
            use(ctx, handle)
        assert told.value.__cause__ is None
        words.add(str(told.value))
    (text,) = words
    return text


def test_a_value_is_found_by_its_handle_and_its_caller() -> None:
    carts = Handles[list[str]]("cart")
    cart = ["apple"]
    handle = carts.new(ALICE, cart)
    assert re.fullmatch(r"cart_[A-Za-z0-9_-]{43}", handle)
    assert carts.get(ALICE, handle) is cart
    assert carts.get(by(), handle) is cart  # the same caller in another call
    assert len(carts) == 1
    assert carts.end(ALICE, handle) is cart
    assert len(carts) == 0
    missing(carts, ALICE, handle)
    assert handle not in repr(carts)
    assert "apple" not in repr(carts)


def test_handles_are_random() -> None:
    handles = Handles[int](most_each=2000)
    made = [handles.new(ALICE, 0).removeprefix("handle_") for _ in range(1000)]
    assert len(set(made)) == 1000
    for position in range(42):  # 64 letters, of which 1,000 throws give nearly all
        assert len({each[position] for each in made}) > 50


@pytest.mark.attack("ATK-175", "ATK-259")
@pytest.mark.parametrize(
    "thief",
    [
        by("bob"),
        by("alice", tenant="elsewhere"),
        by("alice", client_id="another program"),
        SimpleNamespace(principal=Principal("alice")),
        SimpleNamespace(principal=Principal("alice", issuer="https://evil.example")),
        SimpleNamespace(principal=LOCAL),
        SimpleNamespace(principal=ANONYMOUS),
    ],
)
def test_what_belongs_to_somebody_else_is_as_unknown_as_anything(thief: Any) -> None:
    clock = Clock()
    carts = Handles[str]("cart", clock=clock)
    orders = Handles[str]("order", clock=clock)
    expired = carts.new(ALICE, "old")
    clock.now += 3601
    handle, ended, order = carts.new(ALICE, "hers"), carts.new(ALICE, "ended"), orders.new(ALICE, "other kind")
    carts.end(ALICE, ended)
    words = {missing(carts, thief, each) for each in (handle, handle.upper(), handle + "=", "", "cart_", order, "\0")}
    words |= {missing(carts, ALICE, each) for each in (expired, ended, order, "cart_" + order.removeprefix("order_"))}
    assert words == {"No such cart: it has ended or expired, or never was. Begin a new one."}
    assert carts.get(ALICE, handle) == "hers"  # the attempts have not ended it


@pytest.mark.parametrize("ttl", [0.5, 3600.0])
def test_a_handle_ends_when_its_time_is_over_used_or_not(ttl: float) -> None:
    clock = Clock()
    handles = Handles[str](ttl=ttl, clock=clock)
    first = handles.new(ALICE, "first")
    clock.now += ttl * 0.6
    second = handles.new(ALICE, "second")
    assert handles.get(ALICE, first) == "first"
    clock.now += ttl * 0.4
    missing(handles, ALICE, first)
    assert handles.get(ALICE, second) == "second"
    assert len(handles) == 1
    clock.now += ttl
    assert len(handles) == 0


def test_an_hour_is_the_default() -> None:
    clock = Clock()
    handles = Handles[str](clock=clock)
    handle = handles.new(ALICE, "x")
    clock.now += 3599
    assert handles.get(ALICE, handle) == "x"
    clock.now += 1
    missing(handles, ALICE, handle)


def test_nobody_pushes_out_what_belongs_to_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    handles = Handles[int]("cart", most=10, most_each=4, clock=clock)
    hers = handles.new(ALICE, 1)
    for number in range(4):
        handles.new(by("bob", client_id=f"program {number}"), number)
    for client in ("program 0", "program 9", None):  # an account has its share, whatever programs act for it
        with pytest.raises(ToolError, match=r"Too many at once of: cart\. End one of them first"):
            handles.new(by("bob", client_id=client), 5)
    assert "limit.reached" in caplog.text
    assert "Handles.most_each" in caplog.text
    assert handles.get(ALICE, hers) == 1
    for number in range(3):
        handles.new(by("bob", tenant="elsewhere"), number)
    handles.new(by("carol"), 1)
    handles.new(by("dave"), 1)
    with pytest.raises(ToolError, match="Try again later"):
        handles.new(by("erin"), 1)
    assert "Handles.most" in caplog.text
    assert handles.get(ALICE, hers) == 1
    assert handles.end(ALICE, hers) == 1
    handles.new(by("erin"), 1)  # what has ended makes room
    clock.now += 3600
    for number in range(4):  # and what has expired
        handles.new(BOB, number)
    assert len(handles) == 4


def test_counts_of_accounts_without_handles_are_not_kept() -> None:
    handles = Handles[int]()
    for number in range(50):
        ctx = by(f"user{number}")
        handles.end(ctx, handles.new(ctx, 1))
    assert handles._counts == {}


def test_of_many_threads_one_ends_a_handle() -> None:
    handles = Handles[int](most=100_000, most_each=10_000)
    won: list[int] = []
    mine = [handles.new(ALICE, number) for number in range(200)]

    def work(who: int) -> None:
        ctx = by(f"worker{who}")
        for handle in mine:
            own = handles.new(ctx, who)
            assert handles.get(ctx, own) == who
            with contextlib.suppress(ToolError):
                won.append(handles.end(ALICE, handle))
            assert handles.end(ctx, own) == who

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(won) == list(range(200))
    assert len(handles) == 0
    assert handles._counts == {}


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "Cart"},
        {"name": "a cart"},
        {"name": "x" * 33},
        {"ttl": 0},
        {"ttl": -1.0},
        {"ttl": float("inf")},
        {"ttl": float("nan")},
        {"most": 0},
        {"most_each": 0},
    ],
)
def test_settings_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Handles\."):
        Handles[int](**options)


@pytest.mark.attack("ATK-176")
def test_foreign_and_unknown_take_the_same_time() -> None:
    handles = Handles[int](most_each=2000)
    foreign = [handles.new(ALICE, 1) for _ in range(1000)]
    unknown = [f"handle_{each[7:][::-1]}" for each in foreign]

    def seconds(handle: str) -> float:
        began = time.perf_counter()
        try:
            handles.get(BOB, handle)
        except ToolError:
            return time.perf_counter() - began
        raise AssertionError

    ratio = 0.0
    for _ in range(3):  # the machine has other work
        pairs = [(seconds(a), seconds(b)) for a, b in zip(foreign, unknown, strict=True)]
        ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
        if 0.8 < ratio < 1.25:
            return
    raise AssertionError(ratio)


def shop() -> Server:
    policy = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))
    server = Server("shop", auth=protection(tenant_claim="tenant"), policy=policy)
    carts = Handles[list[str]]("cart")

    @server.tool(public=True)
    def begin(ctx: Context) -> str:
        return carts.new(ctx, [])

    @server.tool(public=True)
    async def add(ctx: Context, cart: str, item: str) -> list[str]:
        await asyncio.sleep(0)
        found = carts.get(ctx, cart)
        found.append(item)
        return found

    @server.tool(public=True)
    def pay(ctx: Context, cart: str) -> int:
        return len(carts.end(ctx, cart))

    return server


@pytest.mark.attack("ATK-175", "ATK-259")
@pytest.mark.parametrize("revision", ERAS[:2])
@pytest.mark.parametrize("transport", KINDS)
async def test_a_stolen_handle_is_as_unknown_as_an_invented_one(transport: str, revision: str) -> None:
    alice = Who("alice")
    async with place(transport, shop()) as at:
        async with at.caller(alice, revision) as p:
            handle = (await p.tool("begin"))["content"][0]["text"]
            await p.tool("add", {"cart": handle, "item": "apple"})
        invented = "cart_" + "A" * 43
        for thief in (Who("bob"), Who("alice", tenant="elsewhere")):
            async with at.caller(thief, revision) as p:
                for name, more in (("add", {"item": "x"}), ("pay", {})):
                    stolen = await p.bytes("tools/call", {"name": name, "arguments": {"cart": handle, **more}})
                    unknown = await p.bytes("tools/call", {"name": name, "arguments": {"cart": invented, **more}})
                    assert stolen == unknown
                    assert b"No such cart" in stolen
                    assert b'"isError":true' in stolen
        async with at.caller(alice, revision) as p:  # on another connection, and nothing has happened to it
            assert (await p.tool("pay", {"cart": handle}))["content"][0]["text"] == "1"
