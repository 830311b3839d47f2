"""Rates in memory: edges of windows, many threads, and callers who rotate their names."""

from __future__ import annotations

import gc
import math
import re
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import ConfigurationError, RateLimited, TooManyRequests
from garrison.gate.rates import Buckets, Charge, RateLimiter, take_all
from garrison.policy.rates import Rate, Rates

Algorithm = Literal["sliding", "bucket", "fixed"]
ALGORITHMS: tuple[Algorithm, ...] = ("sliding", "bucket", "fixed")


class Clock:
    """Seconds that go on only when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def passes(limiter: RateLimiter, caller: str, cost: int = 1) -> bool:
    try:
        limiter.check(caller, cost)
    except RateLimited:
        return False
    return True


# Values


@pytest.mark.parametrize(
    ("text", "burst", "rate"),
    [
        ("120/minute", 30, Rate(2, 30)),
        ("5/second", None, Rate(5, 5)),
        ("3600/hour", 1, Rate(1, 1)),
        ("86400/day", 10, Rate(1, 10)),
    ],
)
def test_a_rate_in_words(text: str, burst: int | None, rate: Rate) -> None:
    assert Rate.of(text, burst) == rate


@pytest.mark.parametrize(
    "text", ["", "120", "120/", "/minute", "-1/minute", "1.5/minute", "0/minute", "1/week", "٣/day"]
)
def test_what_is_no_rate_in_words(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Rate\."):
        Rate.of(text)


@pytest.mark.parametrize("per_second", [0, -1, math.nan, math.inf, 1e10, True, "1", None])
def test_a_rate_is_a_number_above_0(per_second: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Rate\.per_second"):
        Rate(per_second, 1)


@pytest.mark.parametrize("burst", [0, -1, 1.0, True, None])
def test_a_burst_is_a_positive_integer(burst: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Rate\.burst"):
        Rate(1, burst)


@pytest.mark.parametrize("name", ["principal", "address", "tenant", "completion", "heavy", "output_bytes", "most_keys"])
def test_a_wrong_value_is_named(name: str) -> None:
    for wrong in (0, "120/minute", {"per_second": 1, "burst": 1}, False):
        with pytest.raises(ConfigurationError, match=rf"Rates\.{name} must be"):
            Rates(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["principal", "completion"])
def test_there_is_always_a_rate(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Rates\.{name} must be a Rate"):
        Rates(**{name: None})  # type: ignore[arg-type]


def test_presets_can_be_changed() -> None:
    assert Rates.default() == Rates() and Rates().principal == Rate(60, 250)
    assert Rates.public().principal == Rate.of("120/minute", burst=30)
    changed = Rates.public(tenant=Rate(1, 1))
    assert changed.tenant == Rate(1, 1) and changed.address == Rates.public().address
    assert Rates.public() != Rates()


# One caller


def test_the_default_leaves_an_honest_agent_alone() -> None:
    """A burst of 200 calls at once, then 50 a second for as long as it likes."""
    buckets, now = Buckets(Rates().principal, 10), 1e6
    assert [buckets.take("agent", 1, now) for _ in range(200)] == [0.0] * 200
    for number in range(1, 50 * 120):
        assert buckets.take("agent", 1, now + number / 50) == 0.0
    flood = [buckets.take("flood", 1, now) for _ in range(300)]
    assert flood.count(0.0) == 250


def test_the_edges_of_a_sliding_window() -> None:
    clock = Clock()
    limiter = RateLimiter(3, 60, clock=clock)
    for clock.now in (1000.0, 1010.0, 1059.5):
        limiter.check("a")
    clock.now = 1059.999
    with pytest.raises(RateLimited) as caught:
        limiter.check("a")
    assert caught.value.retry_after == 1 and caught.value.data == {"retryAfter": 1}
    clock.now = 1060.0  # the first is a whole window ago
    assert passes(limiter, "a") and not passes(limiter, "a")
    clock.now = 1069.99
    assert not passes(limiter, "a")
    clock.now = 1070.0
    assert passes(limiter, "a") and not passes(limiter, "a")


def test_the_edges_of_a_bucket() -> None:
    clock = Clock()
    limiter = RateLimiter(3, 60, algorithm="bucket", clock=clock)
    assert [passes(limiter, "a") for _ in range(4)] == [True, True, True, False]
    clock.now = 1019.5
    assert not passes(limiter, "a")
    clock.now = 1020.0
    assert passes(limiter, "a") and not passes(limiter, "a")
    clock.now = 2000.0
    assert [passes(limiter, "a") for _ in range(4)] == [True, True, True, False]


def test_the_edges_of_a_fixed_window() -> None:
    clock = Clock(60.0)
    limiter = RateLimiter(3, 60, algorithm="fixed", clock=clock)
    assert [passes(limiter, "a") for _ in range(4)] == [True, True, True, False]
    clock.now = 119.999
    assert not passes(limiter, "a")
    clock.now = 120.0
    assert [passes(limiter, "a") for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_refused_says_when_it_would_pass_and_costs_nothing(algorithm: Algorithm) -> None:
    clock = Clock(600.0)
    limiter = RateLimiter(2, 60, algorithm=algorithm, clock=clock)
    assert passes(limiter, "a", 2)
    for _ in range(100):
        assert not passes(limiter, "a")
    with pytest.raises(RateLimited) as caught:
        limiter.check("a")
    error = caught.value
    assert str(error) == error.message == "Rate limit exceeded" and error.hint == "RateLimiter.max_requests"
    assert error.code == error.http_status == 429 and error.event == "limit.reached"
    assert isinstance(error, TooManyRequests)
    assert error.retry_after == (30 if algorithm == "bucket" else 60)
    clock.now += error.retry_after
    assert passes(limiter, "a")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cost_counts_as_a_whole(algorithm: Algorithm) -> None:
    limiter = RateLimiter(10, 60, algorithm=algorithm, clock=Clock())
    assert passes(limiter, "a", 6) and not passes(limiter, "a", 5) and passes(limiter, "a", 4)
    assert not passes(limiter, "a")
    for impossible in (0, -1, 11):
        with pytest.raises(ValueError, match="cost"):
            limiter.check("b", impossible)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_requests": 0, "window": 1}, "max_requests"),
        ({"max_requests": 1.5, "window": 1}, "max_requests"),
        ({"max_requests": 1, "window": 0}, "window"),
        ({"max_requests": 1, "window": math.inf}, "window"),
        ({"max_requests": 1, "window": "60"}, "window"),
        ({"max_requests": 1, "window": 1, "most_keys": 0}, "most_keys"),
        ({"max_requests": 1, "window": 1, "algorithm": "leaky"}, "algorithm"),
    ],
)
def test_a_wrong_setting_of_the_limiter_is_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"RateLimiter\.{name}"):
        RateLimiter(**arguments)


# Several callers


@pytest.mark.app
@pytest.mark.attack("ATK-147")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_caller_over_the_limit_is_nothing_to_another(algorithm: Algorithm) -> None:
    clock = Clock(600.0)
    limiter = RateLimiter(120, 60, algorithm=algorithm, clock=clock)
    alice = [passes(limiter, "alice") for _ in range(200)]
    assert alice == [True] * 120 + [False] * 80
    for second in range(60):
        clock.now = 600.0 + second
        assert passes(limiter, "bob")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_a_hundred_checks_at_once_exactly_ten_pass(algorithm: Algorithm) -> None:
    limiter = RateLimiter(10, 3600, algorithm=algorithm, clock=Clock(0.0))
    together = threading.Barrier(20)

    def some(_: int) -> int:
        together.wait()
        return sum(passes(limiter, "caller") for _ in range(5))

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(some, range(20))) == 10


@pytest.mark.app
@pytest.mark.attack("ATK-148")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_names_fill_no_memory_and_reset_no_limit(algorithm: Algorithm) -> None:
    """Every name is used once, and the attacker's own name in between."""
    clock = Clock(600.0)
    limiter = RateLimiter(10, 600, algorithm=algorithm, most_keys=2000, clock=clock)
    for _ in range(10):
        limiter.check("attacker")
    for number in range(20_000):
        passes(limiter, str(number))
    grown = growth(lambda number: passes(limiter, str(number)), range(20_000, 25_000))
    assert grown < 100_000 and len(limiter) <= 2000 + 1024
    assert not any(passes(limiter, "attacker") for _ in range(100))
    clock.now += 601  # all is paid for: the table has room again
    assert passes(limiter, "attacker") and passes(limiter, "newcomer")


@pytest.mark.app
@pytest.mark.attack("ATK-148")
def test_a_million_names_fill_no_memory_and_reset_no_limit() -> None:
    buckets = Buckets(Rate(1 / 60, 10), 10_000)
    assert buckets.take("attacker", 10, 0.0) == 0.0
    for number in range(1_000_000):
        buckets.take(str(number), 1, 0.0)
    assert len(buckets) == 10_000 + 1024
    assert growth(lambda number: buckets.take(f"again {number}", 1, 0.0), range(5000)) < 100_000
    assert buckets.take("attacker", 1, 0.0) > 59
    assert buckets.take("attacker", 1, 61.0) == 0.0 == buckets.take("newcomer", 1, 61.0)


def growth(each: Callable[[int], object], numbers: range) -> int:
    """Bytes that are kept after a function was called with all these numbers."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in numbers:
            each(number)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_table_of_idle_callers_becomes_small_again() -> None:
    buckets = Buckets(Rate(1, 1), 50_000)
    for number in range(50_000):
        assert buckets.take(str(number), 1, 0.0) == 0.0
    assert len(buckets) == 50_000
    for number in range(25_000):
        assert buckets.take(f"later {number}", 1, 100.0 + number) == 0.0
    assert len(buckets) < 10_000


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_who_leaves_a_shared_place_takes_its_debt_along(algorithm: Algorithm) -> None:
    """A table of one: the others share. When its owner is idle, a newcomer gets the place, and no new allowance."""
    clock = Clock(600.0)
    limiter = RateLimiter(4, 600, algorithm=algorithm, most_keys=1, clock=clock)
    limiter.check("owner")
    clock.now = 800.0 if algorithm != "fixed" else 600.0
    for _ in range(4):
        limiter.check("sharer")
    assert not passes(limiter, "sharer")
    clock.now = 1200.0 if algorithm != "fixed" else 1199.0  # the owner's is over, the sharer's is not
    allowed = sum(passes(limiter, "sharer") for _ in range(10))
    assert allowed == {"sliding": 0, "bucket": 2, "fixed": 0}[algorithm]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_long_names_are_told_apart_and_not_kept(algorithm: Algorithm) -> None:
    limiter = RateLimiter(1, 60, algorithm=algorithm, clock=Clock(0.0))
    long = "x" * 1_000_000
    assert passes(limiter, long + "a") and passes(limiter, long + "b") and passes(limiter, "\ud800" * 300)
    assert not passes(limiter, long + "a") and not passes(limiter, "\ud800" * 300)
    assert all(len(str(key)) <= 256 for key in limiter._table._kept)


# Clocks


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("jump", [-0.001, -1.0, -3600.0, -1e6])
def test_a_clock_that_goes_back_gives_nothing_away_and_shuts_nobody_out(algorithm: Algorithm, jump: float) -> None:
    clock = Clock(2e6)
    limiter = RateLimiter(5, 10, algorithm=algorithm, clock=clock)
    assert passes(limiter, "a", 5)
    clock.now += jump
    assert not passes(limiter, "a")
    clock.now += 20.1
    assert passes(limiter, "a", 5) and not passes(limiter, "a")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_that_leaps_ahead_is_one_new_allowance(algorithm: Algorithm) -> None:
    clock = Clock()
    limiter = RateLimiter(5, 10, algorithm=algorithm, clock=clock)
    assert passes(limiter, "a", 5)
    clock.now += 1e9
    assert passes(limiter, "a", 5) and not passes(limiter, "a")


# Whatever comes

requests = st.lists(st.tuples(st.floats(0, 5, allow_subnormal=False), st.integers(1, 4)), max_size=150)


def most_in_window(passed: list[tuple[float, int]], window: float) -> int:
    """The most that passed in any half-open window."""
    return max((sum(cost for then, cost in passed if start <= then < start + window) for start, _ in passed), default=0)


@given(requests, st.integers(4, 8), st.sampled_from([0.7, 3.0, 10.0]))
def test_no_window_has_more_than_it_may(steps: list[tuple[float, int]], most: int, window: float) -> None:
    clock, passed = Clock(), list[tuple[float, int]]()
    limiter = RateLimiter(most, window, clock=clock)
    for step, cost in steps:
        clock.now += step
        before = sum(each for then, each in passed if then + window > clock.now)
        if passes(limiter, "a", cost):
            passed.append((clock.now, cost))
        else:
            assert before + cost > most  # and nothing is refused that fits
    assert most_in_window(passed, window) <= most


@pytest.mark.parametrize("step", [0.05, 0.25, 0.4, 0.75])
def test_who_asks_all_the_time_gets_the_most_and_no_more(step: float) -> None:
    clock, passed = Clock(), list[tuple[float, int]]()
    limiter = RateLimiter(7, 3, clock=clock)
    for _ in range(400):
        clock.now += step
        if passes(limiter, "a"):
            passed.append((clock.now, 1))
    assert most_in_window(passed, 3) == min(7, 3 / step)


@given(requests, st.floats(0.1, 5), st.integers(4, 8))
def test_no_time_has_more_than_its_burst_and_what_it_is_worth(
    steps: list[tuple[float, int]], per_second: float, burst: int
) -> None:
    buckets, now, passed = Buckets(Rate(per_second, burst), 10), 1000.0, list[tuple[float, int]]()
    for step, cost in steps:
        now += step
        wait = buckets.take("a", cost, now)
        assert buckets.wait("a", cost, now) >= 0.0
        if not wait:
            passed.append((now, cost))
        else:
            assert buckets.wait("a", cost, now + wait + 1e-6) == 0.0  # it says when
    for first, (start, _) in enumerate(passed):
        total = 0
        for then, cost in passed[first:]:
            total += cost
            assert total <= burst + per_second * (then - start) + 0.02


@given(requests, st.integers(4, 8))
def test_no_full_window_has_more_than_it_may(steps: list[tuple[float, int]], most: int) -> None:
    clock, counts = Clock(0.0), dict[float, int]()
    limiter = RateLimiter(most, 3, algorithm="fixed", clock=clock)
    for step, cost in steps:
        clock.now += step
        number = clock.now // 3
        fits = counts.get(number, 0) + cost <= most
        assert passes(limiter, "a", cost) == fits
        counts[number] = counts.get(number, 0) + (cost if fits else 0)


# Several limits


def test_all_limits_are_charged_or_none() -> None:
    wide, narrow = Buckets(Rate(1, 10), 10), Buckets(Rate(0.1, 2), 10)
    charges = [Charge(wide, "a", 1, "wide"), Charge(narrow, "a", 1, "narrow")]
    assert [take_all(charges, 0.0)[1] for _ in range(50)] == ["", ""] + ["narrow"] * 48
    assert wide.take("a", 8, 0.0) == 0.0  # two were charged, and not fifty
    assert take_all(charges, 0.0)[0] == pytest.approx(10.0, abs=0.2)
    assert take_all(charges, 10.0) == (0.0, "")


def test_a_debt_is_asked_for_without_charging_it() -> None:
    budget = Buckets(Rate(100, 1000), 10, grace=60.0)
    asked = [Charge(budget, "a", 0, "bytes")]
    assert take_all(asked, 0.0) == (0.0, "")
    budget.charge("a", 1500, 0.0)
    assert take_all(asked, 0.0)[0] == pytest.approx(5.0, abs=0.1)
    assert take_all(asked, 5.1) == (0.0, "")
    budget.charge("a", 10**12, 5.1)
    assert take_all(asked, 25.1)[0] == pytest.approx(40.0, abs=0.1)  # the grace, whatever it was


# Documentation


def test_the_page_has_the_values_of_both_presets() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rate-limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$", page, re.MULTILINE)
    names = [each.name for each in fields(Rates)]
    assert [name for name, _, _ in rows] == names
    for name, default, public in rows:
        assert default == in_words(getattr(Rates(), name), name)
        assert public == in_words(getattr(Rates.public(), name), name)


def in_words(value: Rate | int | None, name: str) -> str:
    if not isinstance(value, Rate):
        return "none" if value is None else f"{value:,}"
    if name == "output_bytes":
        return f"{value.per_second / 1024:g} KiB a second, {value.burst >> 20} MiB at once"
    per = f"{value.per_second:g} a second" if value.per_second >= 1 else f"{value.per_second * 60:g} a minute"
    return f"{per}, {value.burst} at once"
