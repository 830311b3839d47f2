"""Rates that processes share, in a real Valkey or Redis: exact counts, outages, and what is stored."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from garrison import Secret, events
from garrison.errors import ConfigurationError, RateLimited
from garrison.gate.admission import Admission
from garrison.gate.rates import Buckets, Charge
from garrison.gate.shared_rates import SharedRates
from garrison.policy.principal import Principal
from garrison.policy.rates import Rate, Rates
from tests.support.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.peer

ROOT = Path(__file__).resolve().parents[2]
HERE = "192.0.2.1"
ALICE, BOB = Principal("alice", issuer="https://i", tenant="acme"), Principal("bob", issuer="https://i")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("s")) as server:
        yield server


@pytest.fixture
def url(store: RedisServer) -> str:
    store.command("FLUSHALL")
    return store.url


def charge(rate: Rate, key: str = "a", cost: int = 1, setting: str = "x", grace: float = 0.0) -> Charge:
    return Charge(Buckets(rate, 100, grace), key, cost, setting)


async def refusal(admission: Admission, principal: Principal) -> str:
    try:
        await admission.take_shared(principal, HERE)
    except RateLimited as exc:
        return exc.hint
    return ""


PROCESS = """
import asyncio, json, sys
from garrison.errors import RateLimited
from garrison.gate.admission import Admission
from garrison.gate.shared_rates import SharedRates
from garrison.policy.principal import Principal
from garrison.policy.rates import Rate, Rates

async def main():
    shared = SharedRates(sys.argv[1], timeout=10)
    admission = Admission(Rates(principal=Rate(0.0001, 100)), shared=shared)
    alice = Principal("alice", issuer="https://i")
    print("ready", flush=True)
    sys.stdin.readline()

    async def one():
        try:
            await admission.take_shared(alice, "192.0.2.1")
        except RateLimited:
            return 0
        return 1

    print(sum(await asyncio.gather(*(one() for _ in range(150)))), flush=True)
    await shared.close()

asyncio.run(main())
"""


@pytest.mark.app
@pytest.mark.attack("ATK-147")
def test_of_two_processes_exactly_so_many_pass_together(url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    passed: list[int] = []
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            passed.append(int(process.stdout.readline()))
            assert process.wait(10) == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sum(passed) == 100


async def test_a_hundred_at_once_and_two_callers(url: str) -> None:
    shared = SharedRates(url, timeout=10)
    admission = Admission(Rates(principal=Rate(0.0001, 10)), shared=shared)
    together = await asyncio.gather(*(refusal(admission, ALICE) for _ in range(100)))
    assert sorted(together) == [""] * 10 + ["Rates.principal"] * 90
    assert await refusal(admission, BOB) == ""
    await shared.close()


async def test_the_store_says_when_it_would_pass(url: str) -> None:
    shared = SharedRates(url, timeout=10)
    slow = [charge(Rate(5, 2))]
    assert [await shared.take(slow), await shared.take(slow)] == [(0.0, ""), (0.0, "")]
    answer = await shared.take(slow)
    assert answer is not None and 0.1 < answer[0] <= 0.2 and answer[1] == "x"
    await asyncio.sleep(answer[0])
    assert await shared.take(slow) == (0.0, "")
    await shared.close()


async def test_all_limits_are_charged_or_none(url: str) -> None:
    shared = SharedRates(url, timeout=10)
    wide, narrow = charge(Rate(0.001, 10), setting="wide"), charge(Rate(0.001, 2), setting="narrow")
    refused: list[str] = []
    for _ in range(30):
        answer = await shared.take([wide, narrow])
        assert answer is not None
        refused.append(answer[1])
    assert refused == ["", ""] + ["narrow"] * 28
    assert await shared.take([wide._replace(cost=8)]) == (0.0, "")  # two were charged, and not thirty
    await shared.close()


async def test_tools_and_bytes_are_counted_together(url: str) -> None:
    """Two servers of one store: what one of them charged, the other one knows."""
    stores = [SharedRates(url, timeout=10) for _ in range(2)]
    rates = Rates(principal=Rate(0.001, 20), tenant=Rate(0.001, 50), output_bytes=Rate(10, 1000))
    first, second = (Admission(rates, shared=each) for each in stores)
    slow = Rate(0.001, 3)
    for number in range(3):
        admission = (first, second)[number % 2]
        await admission.take_shared(ALICE, HERE)
        await admission.take_tool_shared(ALICE, HERE, "report", 1, slow)
    for admission in (first, second):
        await admission.take_shared(ALICE, HERE)
        with pytest.raises(RateLimited, match="Rate limit exceeded") as caught:
            await admission.take_tool_shared(ALICE, HERE, "report", 1, slow)
        assert caught.value.hint == "rate= of tool 'report'"
    # three were charged: what the tool refused was given back
    assert [await refusal(second, ALICE) for _ in range(18)] == [""] * 17 + ["Rates.principal"]
    await first.spend_shared(BOB, HERE, 1500)
    with pytest.raises(RateLimited) as caught:
        await second.take_shared(BOB, HERE)
    assert caught.value.hint == "Rates.output_bytes" and 45 <= caught.value.retry_after <= 50
    for each in stores:
        await each.close()


async def test_nothing_readable_is_stored_and_it_expires(url: str, store: RedisServer) -> None:
    shared = SharedRates(url, namespace="mine.1", timeout=10)
    admission = Admission(Rates(principal=Rate(10, 5)), shared=shared)
    await admission.take_shared(ALICE, HERE)
    await admission.take_shared(Principal("\udc80" * 5000), HERE)
    keys = store.command("KEYS", "*")
    assert keys.startswith(b"*2\r\n") and keys.count(b"{mine.1}:") == 2 and len(keys) < 150
    assert b"alice" not in keys and b"https" not in keys
    await asyncio.sleep(0.15)  # a tenth of a second pays for it
    assert store.command("KEYS", "*") == b"*0\r\n"
    await shared.close()


async def test_namespaces_have_nothing_to_do_with_each_other(url: str) -> None:
    for namespace, passes in (("a", True), ("b", True), ("a", False)):
        shared = SharedRates(url, namespace=namespace, timeout=10)
        answer = await shared.take([charge(Rate(0.001, 1))])
        assert answer is not None and (answer == (0.0, "")) is passes
        await shared.close()


async def test_the_script_comes_back_after_a_flush(url: str, store: RedisServer) -> None:
    shared = SharedRates(url, timeout=10)
    for _ in range(2):
        assert await shared.take([charge(Rate(1, 5))]) == (0.0, "")
        store.command("SCRIPT", "FLUSH")
    await shared.close()


async def test_a_store_whose_clock_went_back_shuts_nobody_out(url: str, store: RedisServer) -> None:
    shared = SharedRates(url, timeout=10)
    slow = charge(Rate(10, 1))
    assert await shared.take([slow]) == (0.0, "")
    (key,) = [word for word in store.command("KEYS", "*").split(b"\r\n") if word.startswith(b"{")]
    store.command("SET", key.decode(), str((time.time() + 1e6) * 1e6))
    answer = await shared.take([slow])
    assert answer is not None and answer[0] < 0.2
    await shared.charge([slow])
    await asyncio.sleep(0.25)
    assert await shared.take([slow]) == (0.0, "")
    await shared.close()


# Outages


@pytest.mark.app
async def test_without_the_store_each_process_counts_for_itself_until_it_is_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    heard: list[events.Event] = []
    stop = events.listen(lambda event: heard.append(event) if event.name.startswith("limit.") else None)
    try:
        with redis_server(tmp_path_factory.mktemp("s")) as own:
            shared = SharedRates(own.url, retry=0.2)
            admission = Admission(Rates(principal=Rate(0.0001, 10)), shared=shared)
            assert [await refusal(admission, ALICE) for _ in range(6)] == [""] * 6
            own.kill()
            started = time.monotonic()
            without = await asyncio.gather(*(refusal(admission, ALICE) for _ in range(50)))
            assert time.monotonic() - started < 2.0
            # what this process had let pass is not forgotten
            assert sorted(without) == [""] * 4 + ["Rates.principal"] * 46
            assert [(each.name, each.setting, each.decision) for each in heard] == [
                ("limit.store_unavailable", "SharedRates.url", "failed")
            ]
            await asyncio.sleep(0.25)
            assert await refusal(admission, BOB) == "" and len(heard) == 1  # still away, and said once
            own.start()
            await asyncio.sleep(0.25)
            assert await refusal(admission, ALICE) == ""  # asked again: this one knows of nobody
            assert own.command("DBSIZE") == b":1\r\n" and len(heard) == 1
            own.kill()
            assert await refusal(admission, Principal("carol")) == "" and len(heard) == 2  # and another time
            await shared.close()
    finally:
        stop()


@pytest.mark.app
async def test_a_store_that_hangs_is_not_waited_for() -> None:
    async with silent_server() as url:
        shared = SharedRates(url, timeout=0.4, retry=0.5)
        admission = Admission(Rates(principal=Rate(0.0001, 10)), shared=shared)
        started = time.monotonic()
        together = await asyncio.gather(*(refusal(admission, ALICE) for _ in range(20)))
        assert sorted(together) == [""] * 10 + ["Rates.principal"] * 10
        assert time.monotonic() - started < 3.0
        started = time.monotonic()
        for _ in range(20):
            await refusal(admission, BOB)
        assert time.monotonic() - started < 0.3
        await asyncio.sleep(0.55)  # now one of them asks, and the others do not wait
        started = time.monotonic()
        asking = asyncio.create_task(refusal(admission, BOB))
        await asyncio.sleep(0)
        await refusal(admission, BOB)
        assert time.monotonic() - started < 0.3 and not asking.done()
        await asking
        await shared.close()


async def test_without_the_store_nobody_passes_where_that_is_wanted(tmp_path: Path) -> None:
    shared = SharedRates(f"unix://{tmp_path}/none.sock", fail="refuse")
    admission = Admission(Rates(), shared=shared)
    assert await refusal(admission, ALICE) == "SharedRates.fail"
    await shared.close()


async def test_closing_lets_go_whoever_waits() -> None:
    async with silent_server() as url:
        shared = SharedRates(url, timeout=20)
        waiting = [asyncio.create_task(shared.take([charge(Rate(1, 1))])) for _ in range(100)]
        await asyncio.sleep(0.05)
        await shared.close()
        assert await asyncio.gather(*waiting) == [None] * 100


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """The URL of one that takes connections and says nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_one_object_serves_one_loop_after_another(url: str) -> None:
    shared = SharedRates(url, timeout=10)
    slow = [charge(Rate(0.001, 2))]

    async def once() -> tuple[float, str] | None:
        answer = await shared.take(slow)
        await shared.close()
        return answer

    assert asyncio.run(once()) == asyncio.run(once()) == (0.0, "")
    answer = asyncio.run(once())
    assert answer is not None and answer[0] > 900


# Settings


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"url": "127.0.0.1:6379"}, "url"),
        ({"url": "http://127.0.0.1"}, "url"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "a}b"}, "namespace"),
        ({"namespace": "a\nb"}, "namespace"),
        ({"timeout": 0}, "timeout"),
        ({"retry": float("inf")}, "retry"),
        ({"fail": "open"}, "fail"),
    ],
)
def test_a_wrong_setting_is_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"SharedRates\.{name}"):
        SharedRates(**{"url": "redis://127.0.0.1", **arguments})


def test_the_password_is_not_shown() -> None:
    shared = SharedRates(Secret("rediss://:hunter2@127.0.0.1/0"))
    assert "hunter2" not in repr(shared) and "hunter2" not in json.dumps(str(shared))
    with pytest.raises(TypeError):
        shared.__reduce__()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install garrison\[redis\]"):
        SharedRates("redis://127.0.0.1")
