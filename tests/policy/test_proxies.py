"""Forwarded headers count where a trusted proxy wrote them, and the client cannot choose its own address."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison import ConfigurationError, Limits, SecurityPolicy, Server, Timeouts
from garrison.gate.proxies import TrustedProxies
from tests.support.mcp import call, post
from tests.support.raw_http import Response, connected, exchange, serving

TRUSTED = TrustedProxies(("10.0.0.0/8", "fd00::/8", "unix"))


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ({}, "10.0.0.1"),
        ({"x-forwarded-for": "203.0.113.9"}, "203.0.113.9"),
        ({"x-forwarded-for": "1.1.1.1, 203.0.113.9"}, "203.0.113.9"),  # what is left of it the client wrote
        ({"x-forwarded-for": "203.0.113.9, 10.0.0.7"}, "203.0.113.9"),
        ({"x-forwarded-for": "10.0.0.8, 10.0.0.7"}, "10.0.0.1"),
        ({"x-forwarded-for": "203.0.113.9, unknown"}, "10.0.0.1"),
        ({"x-forwarded-for": "203.0.113.9:4711"}, "203.0.113.9"),
        ({"x-forwarded-for": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ({"x-forwarded-for": ""}, "10.0.0.1"),
        ({"forwarded": "for=203.0.113.9"}, "203.0.113.9"),
        ({"forwarded": 'for="[2001:db8::1]:47";proto=https, for=10.0.0.7'}, "2001:db8::1"),
        ({"forwarded": "for=1.1.1.1, FOR=203.0.113.9;by=10.0.0.7"}, "203.0.113.9"),
        (
            {"forwarded": "for=203.0.113.9", "x-forwarded-for": "203.0.113.9"},
            "10.0.0.1",
        ),  # the client wrote one of them
        ({"forwarded": "for=_hidden"}, "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy(fields: dict[str, str], client: str) -> None:
    assert TRUSTED.client({name.encode(): value.encode() for name, value in fields.items()}, "10.0.0.1") == client


@given(st.binary(max_size=200), st.sampled_from([b"forwarded", b"x-forwarded-for"]))
def test_whatever_it_says_the_client_is_an_address(value: bytes, name: bytes) -> None:
    client = TRUSTED.client({name: value}, "10.0.0.1")
    assert client == "10.0.0.1" or not TRUSTED.trusts(client)
    TRUSTED.scheme({name: value, b"x-forwarded-proto": value})


def test_who_is_trusted() -> None:
    for address in ("10.0.0.1", "10.255.0.1", "fd00::1", "::ffff:10.1.1.1", "unix"):
        assert TRUSTED.trusts(address), address
    for address in ("11.0.0.1", "fe80::1", "fe80::1%eth0", "", "evil", "10.0.0.1.evil", "010.0.0.1"):
        assert not TRUSTED.trusts(address), address
    assert not TrustedProxies(())
    assert not TrustedProxies(()).trusts("unix")
    for bad in ("10.0.0.0/33", "proxy.example", "10.0.0.1/8"):
        with pytest.raises(ConfigurationError, match="trusted_proxies"):
            TrustedProxies((bad,))


def make(limits: Limits | None = None, **policy: Any) -> tuple[Server, list[str]]:
    policy = {"allowed_hosts": ("mcp.example",), "trusted_proxies": ("127.0.0.1",), **policy}
    limits = limits or Limits()
    server = Server("p", policy=SecurityPolicy(limits=limits, timeouts=Timeouts(shutdown=0.2), **policy))
    ran: list[str] = []

    @server.tool(inline=True)
    def echo() -> str:
        ran.append("x")
        return "x"

    return server, ran


def proxied(port: int, client: str, **changes: str) -> bytes:
    fields = {"host": "mcp.example", "x_forwarded_for": client, **changes}
    return post(port, call("echo"), **fields)


async def test_clients_behind_one_proxy_are_counted_each_for_itself() -> None:
    server, _ = make(Limits(message_rate=1, message_burst=5))
    async with serving(server) as running, connected(running.port) as upstream:
        port = running.port
        responses: list[Response] = []
        for _ in range(8):
            await upstream.send(proxied(port, "203.0.113.1"))
            responses.append(await upstream.response())
        assert [response.status for response in responses[:5]] == [200] * 5
        refused = next(response for response in responses if response.status == 429)
        assert refused.get("retry-after") == "1"
        assert refused.get("connection") is None  # the proxy's connection serves others
        await upstream.send(proxied(port, "203.0.113.2"))
        assert (await upstream.response()).status == 200


async def test_a_proxys_connections_are_not_one_addresss() -> None:
    trusted, _ = make(Limits(connections_per_address=2))
    async with serving(trusted) as running:
        wires = [connected(running.port) for _ in range(6)]
        for wire in wires:
            opened = await wire.__aenter__()
            await opened.send(proxied(running.port, "203.0.113.1"))
            assert (await opened.response()).status == 200
        for wire in wires:
            await wire.__aexit__(None, None, None)
    direct, _ = make(Limits(connections_per_address=2), trusted_proxies=(), allowed_hosts=())
    async with serving(direct) as running:
        wires = [connected(running.port) for _ in range(3)]
        statuses: list[int] = []
        for wire in wires:
            opened = await wire.__aenter__()
            await opened.send(post(running.port, call("echo")))
            statuses.append((await opened.response()).status)
        assert statuses == [200, 200, 503]
        for wire in wires:
            await wire.__aexit__(None, None, None)


async def test_a_request_that_reached_the_proxy_without_tls_is_refused() -> None:
    server, ran = make(public_url="https://mcp.example/mcp")
    async with serving(server) as running:
        port = running.port
        response = await exchange(port, proxied(port, "203.0.113.1", x_forwarded_proto="http"))
        assert response.status == 400
        assert ran == []
        for proto in ("https", ""):
            assert (await exchange(port, proxied(port, "203.0.113.1", x_forwarded_proto=proto))).status == 200


@pytest.mark.attack("ATK-022")
async def test_who_is_no_trusted_proxy_decides_nothing_about_itself() -> None:
    server, _ = make(Limits(message_rate=1, message_burst=3), trusted_proxies=("10.0.0.1",), allowed_hosts=())
    async with serving(server) as running:
        port = running.port
        async with connected(port) as wire:
            for number in range(3):
                await wire.send(post(port, call("echo"), x_forwarded_for=f"203.0.113.{number}"))
                assert (await wire.response()).status == 200
            meters = running.core.floods._addresses
            assert set(meters) == {"127.0.0.1"}
        response = await exchange(port, post(port, call("echo"), host="evil.example", x_forwarded_host="localhost"))
        assert response.status == 421
