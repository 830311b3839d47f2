"""Settings that do not fit refuse to start, and say what to change; those that fit serve."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError, InsecureConfigurationError, SecurityPolicy, Server, Timeouts
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
from garrison.server.serve import HttpServing
from tests.support.certs import Authority
from tests.support.mcp import call, post
from tests.support.raw_http import TOKEN, connected, exchange, serving


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    yield


def make(**policy: Any) -> Server:
    server = Server("s", policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2), **policy))

    @server.tool(inline=True)
    def echo() -> str:
        return "x"

    return server


TLS = TlsServerConfig(certificate="cert.pem", key="key.pem")
MUTUAL = TlsServerConfig(certificate="cert.pem", key="key.pem", client_ca="ca.pem")

PROTECTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"tls": TLS}, {}),
    ({}, {"trusted_proxies": ("10.0.0.1",)}),
    ({}, {"allow_insecure_http_hosts": {"0.0.0.0": "the mesh encrypts"}}),
]
NAMED: list[dict[str, Any]] = [{"allowed_hosts": ("mcp.example",)}]
KNOWN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"token": TOKEN}, {}),
    ({"tls": MUTUAL}, {}),
    ({}, {"dangerously_allow_unauthenticated": "the gateway asks"}),
]


@pytest.mark.attack("ATK-012")
@pytest.mark.attack("ATK-013")
def test_an_address_that_others_reach_needs_all_three() -> None:
    for (how, protected), named, (who, known) in itertools.product(PROTECTED, NAMED, KNOWN):
        HttpServing(make(**protected, **named, **known), "0.0.0.0", 8000, **{**how, **who})
        with pytest.raises(InsecureConfigurationError, match="allowed_hosts"):
            HttpServing(make(**protected, **known), "0.0.0.0", 8000, **{**how, **who})
        if "tls" not in who:
            with pytest.raises(InsecureConfigurationError, match=r"tls.*trusted_proxies"):
                HttpServing(make(**named, **known), "0.0.0.0", 8000, **who)
        with pytest.raises(InsecureConfigurationError, match="token"):
            HttpServing(make(**protected, **named), "0.0.0.0", 8000, **how)


def test_one_message_names_all_that_is_missing_as_code_and_as_options() -> None:
    with pytest.raises(InsecureConfigurationError) as caught:
        HttpServing(make(), "0.0.0.0", 8000)
    for word in ("--tls-cert", "--tls-key", "--allowed-host", "--token", "GARRISON_TOKEN", "trusted_proxies", "127.0."):
        assert word in str(caught.value)


def test_a_token_of_the_environment_counts_and_one_made_at_start_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make(allowed_hosts=("mcp.example",))
    with pytest.raises(InsecureConfigurationError, match="token"):
        HttpServing(server, "0.0.0.0", 8000, tls=TLS)
    monkeypatch.setenv("GARRISON_TOKEN", TOKEN)
    assert HttpServing(server, "0.0.0.0", 8000, tls=TLS).token == TOKEN


def test_nothing_is_bound_when_settings_do_not_fit(free_port: int) -> None:
    with pytest.raises(InsecureConfigurationError):
        make().run_http("0.0.0.0", free_port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


@pytest.mark.parametrize(
    ("host", "policy", "options", "match"),
    [
        ("127.0.0.1", {"public_url": "https://mcp.example/mcp"}, {}, "public_url"),
        ("127.0.0.1", {"public_url": "https://x.example/", "trusted_proxies": ("unix",)}, {}, "public_url"),
        ("127.0.0.1", {}, {"http": False}, "websocket"),
        ("127.0.0.1", {}, {"unix": UnixSocketConfig("/run/x/s"), "tls": TLS}, "Unix socket"),
        ("0.0.0.0", {"profile": "conformance", "allowed_hosts": ("x",)}, {"tls": TLS, "token": TOKEN}, "conformance"),
    ],
)
def test_settings_that_contradict_each_other(host: str, policy: Any, options: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        HttpServing(make(**policy), host, 8000, **options)


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ({"public_url": "https://mcp.example/mcp", "trusted_proxies": ("127.0.0.1",)}, {}),
        ({"public_url": "https://mcp.example/mcp"}, {"tls": TLS}),
        ({"public_url": "https://mcp.example/mcp", "trusted_proxies": ("unix",)}, {"unix": UnixSocketConfig("/run/x")}),
        ({"profile": "conformance"}, {}),
        ({}, {"http": False, "websocket": WebSocketConfig()}),
    ],
)
def test_settings_that_fit(policy: Any, options: Any) -> None:
    HttpServing(make(**policy), "127.0.0.1", 8000, **options)


@pytest.mark.attack("ATK-013")
async def test_a_wildcard_listener_behind_a_proxy_keeps_its_checks() -> None:
    server = make(allowed_hosts=("mcp.example",), trusted_proxies=("127.0.0.1",))
    async with serving(server, host="0.0.0.0") as running:
        port = running.port
        assert (await exchange(port, post(port, call("echo"), host="mcp.example"))).status == 200
        assert (await exchange(port, post(port, call("echo"), host="evil.example"))).status == 421
        assert (await exchange(port, post(port, call("echo"), None, host="mcp.example"))).status == 401


async def test_a_plain_listener_behind_a_proxy_answers_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make(allowed_hosts=("mcp.example",), trusted_proxies=("10.0.0.1",))
    address = "127.0.0.1"
    from garrison.transports import listener

    real = listener.Peer

    def peer(seen: str, **more: Any) -> Any:
        return real(address, **more)

    monkeypatch.setattr(listener, "Peer", peer)
    async with serving(server, host="0.0.0.0") as running:
        port = running.port
        for address, status in (("10.0.0.1", 200), ("10.0.0.2", 403), ("::ffff:10.0.0.1", 200), ("127.0.0.1", 200)):
            response = await exchange(port, post(port, call("echo"), host="mcp.example"))
            assert response.status == status, address


@pytest.mark.attack("ATK-050")
async def test_a_key_that_others_can_read_keeps_the_port_closed(tmp_path: Path, free_port: int) -> None:
    leaf = Authority(tmp_path).leaf()
    leaf.key.chmod(0o644)
    tls = TlsServerConfig(certificate=leaf.certificate, key=leaf.key)
    running = HttpServing(make(), "127.0.0.1", free_port, tls=tls)
    with pytest.raises(InsecureConfigurationError, match=r"TlsServerConfig\.key"):
        await running.start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0
    leaf.key.chmod(0o600)
    async with serving(make(), tls=tls) as good, connected(good.port):
        assert good.url.startswith("https://127.0.0.1:")


async def test_relaxations_are_recorded_at_start(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    server = make(dangerously_allow_unauthenticated="why not", tolerate=("accept",))
    for running in (server.http(port=0), server.unix(str(tmp_path / "d" / "s"))):
        caplog.clear()
        async with running:
            assert "policy.relaxed: dangerously_allow_unauthenticated: why not" in caplog.text
            assert "policy.relaxed: tolerate.accept" in caplog.text
    caplog.clear()
    async with make().http(port=0):
        assert "policy.relaxed" not in caplog.text


@pytest.mark.parametrize(
    ("websocket", "setting"),
    [
        (WebSocketConfig("wss://mcp.example/mcp"), "url"),
        (WebSocketConfig(token=TOKEN), "token"),
        (WebSocketConfig(headers={"X-A": "1"}), "headers"),
        (WebSocketConfig(tls=TlsClientConfig()), "tls"),
    ],
)
def test_what_only_a_client_has_a_use_for_is_no_setting_of_a_server(websocket: WebSocketConfig, setting: str) -> None:
    for listen in (make().http, make().asgi):
        with pytest.raises(ConfigurationError, match=rf"WebSocketConfig\.{setting} is for clients"):
            listen(websocket=websocket)
        listen(websocket=WebSocketConfig(max_message_size=1000, subprotocol="other"))


def test_what_another_decides_is_no_setting_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"WebSocketConfig\.compression: set it at the ASGI server"):
        make().asgi(websocket=WebSocketConfig(compression=True))
    make().http(websocket=WebSocketConfig(compression=True))
    path = str(tmp_path / "s")
    with pytest.raises(ConfigurationError, match=r"UnixSocketConfig\.max_message_size is for lines"):
        make().http(unix=UnixSocketConfig(path, max_message_size=1000))
    make().unix(UnixSocketConfig(path, max_message_size=1000))
    with pytest.raises(ConfigurationError, match=r"HttpTransportConfig\.max_message_size is the one that counts"):
        HttpTransportConfig("http://localhost/mcp", unix_socket=UnixSocketConfig(path, max_message_size=1000))
    HttpTransportConfig("http://localhost/mcp", max_message_size=1000, unix_socket=UnixSocketConfig(path))
