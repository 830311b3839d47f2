"""Policies applied to calls: who pays, for what, and that all limits pay or none."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from garrison import Client, Server, events
from garrison.errors import RateLimited, RemoteError
from garrison.gate.admission import Admission
from garrison.gate.rates import RateLimiter
from garrison.policy.networks import network_of
from garrison.policy.principal import ANONYMOUS, LOCAL, Principal
from garrison.policy.rates import Rate, Rates

HERE = "192.0.2.1"
THERE = "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def person(name: str, tenant: str | None = None, client: str | None = None, issuer: str = "https://i") -> Principal:
    return Principal(name, issuer=issuer, tenant=tenant, client_id=client)


def refusal(admission: Admission, principal: Principal, address: str = HERE, *, completion: bool = False) -> str:
    """The setting that refuses a request; empty when it passes."""
    try:
        admission.take(principal, address, completion=completion)
    except RateLimited as exc:
        return exc.hint
    return ""


def tool_refusal(admission: Admission, principal: Principal, cost: int = 1, rate: Rate | None = None) -> str:
    """The same for the call of a tool."""
    try:
        admission.take(principal, HERE)
        admission.take_tool(principal, HERE, "report", cost, rate)
    except RateLimited as exc:
        return exc.hint
    return ""


ALICE, BOB = person("alice"), person("bob")


@pytest.mark.app
@pytest.mark.attack("ATK-147")
def test_one_principal_over_the_limit_is_nothing_to_another() -> None:
    clock = Clock()
    admission = Admission(Rates.public(), clock=clock)
    called = [refusal(admission, ALICE, HERE) for _ in range(200)]
    assert called == [""] * 30 + ["Rates.principal"] * 170
    for _ in range(120):
        assert refusal(admission, BOB, THERE) == ""
        clock.now += 0.5
    with pytest.raises(RateLimited) as caught:
        for _ in range(100):
            admission.take(ALICE, HERE)
    assert caught.value.retry_after == 1 and caught.value.data == {"retryAfter": 1}


def test_the_default_leaves_an_honest_agent_alone() -> None:
    clock = Clock()
    admission = Admission(Rates(), clock=clock)
    assert [refusal(admission, ALICE) for _ in range(251)] == [""] * 250 + ["Rates.principal"]
    for _ in range(50 * 60):
        clock.now += 0.02
        assert refusal(admission, ALICE) == ""


def test_an_account_is_one_whatever_programs_act_for_it() -> None:
    admission = Admission(Rates(principal=Rate(1, 2)), clock=Clock())
    assert refusal(admission, person("alice", client="a")) == ""
    assert refusal(admission, person("alice", client="b")) == ""
    assert refusal(admission, person("alice", client="c")) == "Rates.principal"
    assert refusal(admission, person("alice", issuer="https://other")) == ""
    assert refusal(admission, person("alice", tenant="t")) == ""


@pytest.mark.app
@pytest.mark.attack("ATK-148")
def test_where_nobody_is_asked_the_address_counts() -> None:
    admission = Admission(Rates(principal=Rate(1, 2)), clock=Clock())
    assert [refusal(admission, ANONYMOUS, HERE) for _ in range(3)] == ["", "", "Rates.principal"]
    assert refusal(admission, ANONYMOUS, THERE) == ""
    # an IPv6 host has as many addresses as it likes: its /64 is one
    addresses = [f"2001:db8:0:1::{number:x}" for number in range(1, 200)]
    assert [refusal(admission, ANONYMOUS, each) for each in addresses].count("") == 2
    assert refusal(admission, ANONYMOUS, "2001:db8:0:2::1") == ""
    # an IPv4 address in another spelling is the same
    assert refusal(admission, ANONYMOUS, f"::ffff:{HERE}") == "Rates.principal"
    # nobody's account is an address
    assert (
        refusal(admission, Principal(HERE), THERE) == "" and refusal(admission, Principal("@" + THERE[:-1]), "") == ""
    )


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (HERE, HERE),
        ("unix", "unix"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8::1%eth0", "20010db800000000"),
        ("::1", "::1"),
        ("::ffff:192.0.2.1", HERE),
        ("no:address", "no:address"),
    ],
)
def test_what_counts_as_one_peer(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_address_counts_for_all_its_principals() -> None:
    admission = Admission(Rates(address=Rate(1, 5)), clock=Clock())
    people = [person(str(number)) for number in range(6)]
    assert [refusal(admission, each) for each in people] == [""] * 5 + ["Rates.address"]
    assert refusal(admission, people[0], THERE) == ""
    for _ in range(50):  # a Unix socket has no address
        assert refusal(admission, Principal("uid:1", local=True), "unix") == ""


def test_a_tenant_counts_for_all_its_principals() -> None:
    admission = Admission(Rates(tenant=Rate(1, 3)), clock=Clock())
    people = [person(str(number), tenant="acme") for number in range(4)]
    assert [refusal(admission, each) for each in people] == ["", "", "", "Rates.tenant"]
    assert refusal(admission, person("0", tenant="other")) == ""
    assert refusal(admission, person("0", tenant="acme", issuer="https://another")) == ""
    assert refusal(admission, person("0")) == ""


def test_who_started_the_server_is_not_counted() -> None:
    strict = Rates(principal=Rate(0.01, 1), address=Rate(0.01, 1), output_bytes=Rate(1, 1))
    admission = Admission(strict, clock=Clock())
    for _ in range(100):
        admission.take(LOCAL, "local")
        admission.take(LOCAL, "local", completion=True)
        admission.take_tool(LOCAL, "local", "report", 10)
        admission.spend(LOCAL, "local", 10**9)
    plain = Admission(Rates(principal=Rate(0.01, 1)), clock=Clock())
    assert [refusal(plain, LOCAL) for _ in range(10)] == [""] * 10
    # but what is behind a tool is protected from everybody
    assert tool_refusal(plain, LOCAL, rate=Rate(0.01, 1)) == ""
    assert tool_refusal(plain, LOCAL, rate=Rate(0.01, 1)) == "rate= of tool 'report'"


@pytest.mark.app
@pytest.mark.attack("ATK-146")
def test_completions_have_a_rate_of_their_own() -> None:
    clock = Clock()
    admission = Admission(Rates(), clock=clock)
    asked = [refusal(admission, ALICE, completion=True) for _ in range(1000)]
    assert asked == [""] * 40 + ["Rates.completion"] * 960
    assert refusal(admission, ALICE) == "" and refusal(admission, BOB, completion=True) == ""
    for _ in range(100):  # as fast as somebody types
        clock.now += 0.05
        assert refusal(admission, ALICE, completion=True) == ""


# Tools


def test_a_tool_has_a_rate_for_each_caller() -> None:
    clock = Clock()
    admission = Admission(Rates(), clock=clock)
    slow = Rate.of("10/minute", burst=2)
    assert [tool_refusal(admission, ALICE, rate=slow) for _ in range(3)] == ["", "", "rate= of tool 'report'"]
    assert tool_refusal(admission, BOB, rate=slow) == ""
    admission.take_tool(ALICE, HERE, "another", 1, slow)  # another tool, whatever its rate
    clock.now += 6.0
    assert tool_refusal(admission, ALICE, rate=slow) == ""


def test_a_refusal_by_the_tool_gives_the_request_back() -> None:
    admission = Admission(Rates(principal=Rate(0.01, 10)), clock=Clock())
    rate = Rate(0.01, 3)
    calls = [tool_refusal(admission, ALICE, rate=rate) for _ in range(100)]
    assert calls == [""] * 3 + ["rate= of tool 'report'"] * 97
    assert [refusal(admission, ALICE) for _ in range(8)] == [""] * 7 + ["Rates.principal"]


def test_a_refusal_by_one_limit_charges_no_other() -> None:
    rates = Rates(principal=Rate(0.01, 100), address=Rate(0.01, 5), tenant=Rate(0.01, 50), output_bytes=Rate(1, 1))
    admission = Admission(rates, clock=Clock())
    alice = person("alice", tenant="acme")
    assert [refusal(admission, alice) for _ in range(40)] == [""] * 5 + ["Rates.address"] * 35
    assert [refusal(admission, alice, f"192.0.2.{number}") for number in range(2, 60)].count("") == 45
    assert refusal(admission, alice, THERE) == "Rates.tenant"


def test_a_cost_counts_for_as_many_requests() -> None:
    admission = Admission(Rates(principal=Rate(0.01, 10)), clock=Clock())
    assert [tool_refusal(admission, ALICE, cost=4) for _ in range(3)] == ["", "", "Rates.principal"]
    assert [refusal(admission, ALICE) for _ in range(3)] == ["", "", "Rates.principal"]


@pytest.mark.parametrize("burst", [1, 2, 10])
def test_a_tool_dearer_than_a_burst_takes_all_of_it(burst: int) -> None:
    clock = Clock()
    admission = Admission(Rates(principal=Rate(1, burst)), clock=clock)
    assert tool_refusal(admission, ALICE, cost=1000) == ""
    assert tool_refusal(admission, ALICE, cost=1000) == "Rates.principal"
    clock.now += burst
    assert tool_refusal(admission, ALICE, cost=1000) == ""


def test_heavy_tools_without_a_rate_have_the_policys() -> None:
    admission = Admission(Rates(heavy=Rate(0.1, 2)), clock=Clock())
    assert [tool_refusal(admission, ALICE, cost=3) for _ in range(3)] == ["", "", "Rates.heavy"]
    assert tool_refusal(admission, BOB, cost=3) == ""
    assert [tool_refusal(admission, person("c"), cost=1) for _ in range(5)] == [""] * 5
    assert [tool_refusal(admission, person("d"), 3, Rate(1, 5)) for _ in range(5)] == [""] * 5


def test_a_tool_has_so_many_calls_at_once() -> None:
    admission = Admission(Rates())

    def begin(_: int) -> bool:
        try:
            admission.acquire("report", 10)
        except RateLimited as exc:
            assert exc.hint == "concurrency= of tool 'report'" and exc.retry_after == 1
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(begin, range(100))) == 10
    admission.acquire("another", 1)
    admission.release("report")
    assert begin(0) and not begin(1)
    for _ in range(12):  # one too many does no harm
        admission.release("report")
    assert [begin(number) for number in range(11)] == [True] * 10 + [False]


# Bytes


def test_who_had_too_many_bytes_waits_until_they_are_paid() -> None:
    clock = Clock()
    admission = Admission(Rates(output_bytes=Rate(1000, 10_000)), clock=clock)
    admission.spend(ALICE, HERE, 9_000)
    assert refusal(admission, ALICE) == ""
    admission.spend(ALICE, HERE, 5_000)  # what was begun is sent whole
    with pytest.raises(RateLimited) as caught:
        admission.take(ALICE, HERE)
    assert caught.value.hint == "Rates.output_bytes" and caught.value.retry_after == 4
    assert refusal(admission, BOB) == ""
    clock.now += 4.0
    assert refusal(admission, ALICE) == ""


# In a server


async def test_a_limiter_in_a_tool_refuses_with_one_event() -> None:
    server = Server("s")
    limiter = RateLimiter(max_requests=2, window=60)
    heard: list[events.Event] = []

    @server.tool()
    def search(word: str) -> str:
        limiter.check("everybody")
        return word

    stop = events.listen(lambda event: heard.append(event) if event.name.startswith("limit.") else None)
    try:
        async with Client(server) as client:
            for _ in range(2):
                assert (await client.call_tool("search", {"word": "a"})).structured_content == {"result": "a"}
            with pytest.raises(RemoteError) as caught:
                await client.call_tool("search", {"word": "a"})
    finally:
        stop()
    assert caught.value.code == 429 and caught.value.data == {"retryAfter": 60}
    assert [(event.name, event.setting) for event in heard] == [("limit.reached", "RateLimiter.max_requests")]


def test_without_a_store_the_shared_ways_count_here() -> None:
    clock = Clock()
    admission = Admission(Rates(principal=Rate(0.01, 3), output_bytes=Rate(10, 100)), clock=clock)

    async def run() -> list[str]:
        found: list[str] = []
        for _ in range(4):
            try:
                await admission.take_shared(ALICE, HERE)
                await admission.take_tool_shared(ALICE, HERE, "report", 1, Rate(0.01, 1))
                found.append("")
            except RateLimited as exc:
                found.append(exc.hint)
        await admission.spend_shared(BOB, HERE, 1000)
        with pytest.raises(RateLimited):
            await admission.take_shared(BOB, HERE)
        return found

    assert asyncio.run(run()) == [""] + ["rate= of tool 'report'"] * 3
