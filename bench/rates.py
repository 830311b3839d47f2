#!/usr/bin/env python3
"""What rates cost: in memory, and shared by processes through a real Valkey or Redis, beside the `limits` library.

    uv run --with limits python bench/rates.py [--seconds 1.0] [--json FILE]

In memory: microseconds of CPU for one check, the best of many rounds. Shared: a server on a Unix socket of its own; calls
one after the other, and 32 at a time, with wall clock and with the CPU of this process for each. Rates are above the
load, so that every check passes and is charged. Rows of `limits` are left out where it is not installed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import timeit
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent)]

from tests.support.redis_server import redis_server

from garrison.errors import RateLimited
from garrison.gate.admission import Admission
from garrison.gate.rates import Buckets, Charge, RateLimiter
from garrison.gate.shared_rates import SharedRates
from garrison.policy.principal import ANONYMOUS, Principal
from garrison.policy.rates import Rate, Rates

try:
    import limits
    import limits.aio
except ImportError:
    limits = None

ABOVE = Rate(1e6, 10**7)
KEYS = [f'["https://issuer.example","t","user-{number}"]' for number in range(100)]


def each(function, count=1000):
    """Microseconds of one call of `function(key)`, the loop's own cost taken off."""
    keys = [KEYS[number % len(KEYS)] for number in range(count)]

    def run():
        for key in keys:
            function(key)

    def empty():
        for _ in keys:
            pass

    times = [
        min(timeit.repeat(what, number=5, repeat=30, timer=time.process_time)) / 5 / count * 1e6
        for what in (run, empty)
    ]
    return round(times[0] - times[1], 3)


def refused(function):
    def call(key):
        try:
            function(key)
        except RateLimited:
            pass

    return call


def in_memory():
    rows = {}
    for algorithm, count, window in (("sliding", 10_000, 0.01), ("bucket", 10**7, 10), ("fixed", 10**9, 60)):
        rows[f"RateLimiter, {algorithm}"] = each(RateLimiter(count, window, algorithm=algorithm).check)
        full = RateLimiter(1, 3600, algorithm=algorithm)
        rows[f"RateLimiter, {algorithm}, refused"] = each(refused(full.check))
    people = {key: Principal(key.strip("["), issuer="https://issuer.example", tenant="t") for key in KEYS}
    plain = Admission(Rates(principal=ABOVE))
    rows["Admission, the default"] = each(lambda key: plain.take(people[key], "192.0.2.1"))
    rows["Admission, the default, nobody verified"] = each(lambda key: plain.take(ANONYMOUS, "192.0.2.1"))
    rows["Admission, nobody verified, IPv6"] = each(lambda key: plain.take(ANONYMOUS, "2001:db8::1"))
    everything = Admission(Rates(principal=ABOVE, address=ABOVE, tenant=ABOVE, output_bytes=ABOVE))
    rows["Admission, principal, address, tenant and bytes"] = each(
        lambda key: everything.take(people[key], "192.0.2.1")
    )
    rows["Admission, a tool's rate beside it"] = each(
        lambda key: plain.take_tool(people[key], "192.0.2.1", "report", 1, ABOVE)
    )
    rows["Admission, a slot of a tool"] = each(lambda key: (plain.acquire("report", 8), plain.release("report")))
    if limits is not None:
        item = limits.parse("1000000000/minute")
        for name in ("MovingWindowRateLimiter", "SlidingWindowCounterRateLimiter", "FixedWindowRateLimiter"):
            strategy = getattr(limits.strategies, name)(limits.storage.MemoryStorage())
            few = 20 if name.startswith("Moving") else 1000
            rows[f"limits, {name}"] = each(lambda key: strategy.hit(item, key), few)
    return rows


async def load(take, seconds, at_once):
    """Microseconds of one call, by the clock and of CPU, and how many a second."""
    count = 0
    end = time.perf_counter() + seconds
    for number in range(50):
        await take(KEYS[number % len(KEYS)])

    async def worker(first):
        nonlocal count
        number = first
        while time.perf_counter() < end:
            await take(KEYS[number % len(KEYS)])
            number += 1
            count += 1

    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(number) for number in range(at_once)))
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        "latency_us": round(wall * at_once / count * 1e6, 1),
        "cpu_us": round(cpu / count * 1e6, 1),
        "per_second": round(count / wall),
    }


async def shared(url, seconds):
    rows = {}
    ours = SharedRates(url, namespace="bench", timeout=5)
    buckets, second = Buckets(ABOVE, 1000), Buckets(ABOVE, 1000)

    async def one(key):
        if (await ours.take([Charge(buckets, key, 1, "Rates.principal")])) != (0.0, ""):
            raise RuntimeError("refused, or the store did not answer")

    async def two(key):
        charges = [Charge(buckets, key, 1, "Rates.principal"), Charge(second, "t", 1, "Rates.tenant")]
        if (await ours.take(charges)) != (0.0, ""):
            raise RuntimeError("refused, or the store did not answer")

    takes = {"SharedRates, one limit": one, "SharedRates, two limits": two}
    if limits is not None:
        item = limits.parse("1000000000/minute")
        storage = limits.aio.storage.RedisStorage(
            f"async+redis+{url}" if url.startswith("unix") else f"async+{url}", implementation="redispy"
        )
        for name in ("SlidingWindowCounterRateLimiter", "FixedWindowRateLimiter", "MovingWindowRateLimiter"):
            strategy = getattr(limits.aio.strategies, name)(storage)
            takes[f"limits, {name}"] = lambda key, strategy=strategy, name=name: strategy.hit(item, name, key)
    for name, take in takes.items():
        for at_once in (1, 32):
            rows[f"{name}, {at_once} at once"] = await load(take, seconds, at_once)
    await ours.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row of shared rates")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    options = parser.parse_args()
    memory = in_memory()
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        over = asyncio.run(shared(server.url, options.seconds))
    print("| in memory | us |\n|---|---|")
    for name, cost in memory.items():
        print(f"| {name} | {cost:.2f} |")
    print("\n| shared | latency, us | CPU, us | a second |\n|---|---|---|---|")
    for name, row in over.items():
        print(f"| {name} | {row['latency_us']} | {row['cpu_us']} | {row['per_second']} |")
    if options.json is not None:
        options.json.write_text(json.dumps({"memory_us": memory, "shared": over}, indent=2))


if __name__ == "__main__":
    main()
