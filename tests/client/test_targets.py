"""What may be named as the server, and what the client's arguments mean for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import garrison.errors as e
from garrison import Server
from garrison.client import Client
from garrison.client.targets import Reach, settle, transport_for
from garrison.policy import Limits, SecurityPolicy
from garrison.policy.tls import TlsClientConfig
from garrison.policy.transports import HttpTransportConfig, UnixSocketConfig, WebSocketConfig
from garrison.transports.http.url import HTTP, WEBSOCKET, UrlError, parse_endpoint, parse_unix


def reach(target: Any, **options: Any) -> Any:
    target, policy = settle(target, options.pop("policy", SecurityPolicy()))
    fields = dict.fromkeys(("token", "headers", "proxy", "tls", "challenge", "env", "cwd", "on_stderr"))
    return transport_for(target, Reach(policy=policy, **{**fields, **options}))


@pytest.mark.parametrize(
    ("target", "transport"),
    [
        ("https://example.com/mcp", "StreamableHttp"),
        ("HTTPS://example.com/mcp", "StreamableHttp"),
        ("http://localhost:8000/mcp", "StreamableHttp"),
        (HttpTransportConfig("https://example.com/mcp"), "StreamableHttp"),
        (HttpTransportConfig("http://example.com/mcp", unix_socket="/run/mcp.sock"), "StreamableHttp"),
        ("wss://example.com/mcp", "WebSocketTransport"),
        ("ws://[::1]:8000/mcp", "WebSocketTransport"),
        (WebSocketConfig("wss://example.com/mcp"), "WebSocketTransport"),
        ("unix:/run/mcp.sock", "UnixTransport"),
        (UnixSocketConfig("/run/mcp.sock"), "UnixTransport"),
        (["program", "argument"], "StdioTransport"),
        (Server("a", version="1"), "MemoryTransport"),
    ],
)
def test_each_kind_of_target_has_its_transport(target: object, transport: str):
    assert type(reach(target)).__name__ == transport


@pytest.mark.parametrize(
    "target",
    [
        "example.com/mcp",
        "ftp://example.com/",
        "file:///etc/passwd",
        "",
        "ws:",
        "wss://",
        "wss://user:secret@example.com/",
        "wss://example.com/#part",
        "wss://example.com/\r\nX: y",
        "ws+unix:///run/mcp.sock",
        "unix:",
        "unix:run/mcp.sock",
        "unix://host/run/mcp.sock",
        "unix:@abstract",
        "unix:/run/\0mcp.sock",
        "unix:/run/a\nb.sock",
        "unix:/run/",
        WebSocketConfig(""),
        WebSocketConfig("https://example.com/mcp"),
        HttpTransportConfig("wss://example.com/mcp"),
        42,
        None,
        {"url": "https://example.com"},
    ],
)
def test_what_is_no_target_is_refused_without_being_repeated(target: Any):
    with pytest.raises(e.ConfigurationError) as caught:
        Client(target)
    assert "secret" not in str(caught.value)


@pytest.mark.attack("ATK-049")
@pytest.mark.parametrize("url", ["http://example.com/mcp", "ws://example.com/mcp", "ws://127.0.0.1.example.com/"])
def test_without_tls_only_to_this_machine_or_to_a_host_with_a_reason(url: str, caplog: pytest.LogCaptureFixture):
    with pytest.raises(e.ConnectionFailed, match=r"SecurityPolicy\.allow_insecure_http_hosts"):
        Client(url, token="x")
    with pytest.raises(e.ConnectionFailed):
        Client(url, policy=SecurityPolicy(allow_insecure_http_hosts={"other.example.com": "a lab"}))
    assert "policy.relaxed" not in caplog.text
    host = url.split("/")[2]
    Client(url, policy=SecurityPolicy(allow_insecure_http_hosts={host.upper(): "a lab"}))
    assert "policy.relaxed" in caplog.text and "a lab" in caplog.text


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (["program"], ("token", "headers", "tls", "proxy", "challenge")),
        (Server("a", version="1"), ("token", "headers", "tls", "proxy", "challenge", "env", "cwd", "on_stderr")),
        ("unix:/run/mcp.sock", ("token", "headers", "tls", "proxy", "challenge", "env", "cwd", "on_stderr")),
        ("wss://example.com/", ("proxy", "challenge", "env", "cwd", "on_stderr")),
        ("https://example.com/", ("env", "cwd", "on_stderr")),
    ],
)
def test_an_option_that_has_no_meaning_for_the_target_is_named(target: Any, names: tuple[str, ...]):
    values: dict[str, Any] = {
        "token": "t",
        "headers": {"X-A": "b"},
        "tls": TlsClientConfig(),
        "proxy": "http://proxy:1",
        "challenge": print,
        "env": {},
        "cwd": "/",
        "on_stderr": print,
    }
    for name, value in values.items():
        if name in names:
            with pytest.raises(e.ConfigurationError, match=f"^{name}= is for "):
                reach(target, **{name: value})
        else:
            reach(target, **{name: value})


@pytest.mark.parametrize("kind", [HttpTransportConfig, WebSocketConfig])
@pytest.mark.parametrize("name", ["token", "headers", "tls"])
def test_what_is_said_twice_is_refused(kind: Any, name: str):
    url = "https://example.com/" if kind is HttpTransportConfig else "wss://example.com/"
    value: Any = {"token": "t", "headers": {"X-A": "b"}, "tls": TlsClientConfig()}[name]
    with pytest.raises(e.ConfigurationError, match=rf"{name}= is given twice.*{kind.__name__}\.{name}"):
        reach(kind(url, **{name: value}), **{name: value})
    reach(kind(url), **{name: value})
    reach(kind(url, **{name: value}))


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"X-A": "b\r\nX-B: c"}, None),
        ({"X A": "b"}, None),
        ({"": "b"}, None),
        ({"X-A": "é"}, None),
        ({"Host": "evil"}, None),
        ({"Cookie": "a=b"}, None),
        ({"authorization": "Bearer x"}, None),
        ({"Sec-WebSocket-Protocol": "chat"}, None),
        ({"Mcp-Session-Id": "x"}, None),
        (None, "a b"),
        (None, "a\r\nX-B: c"),
        (None, ""),
    ],
)
def test_headers_that_would_say_something_else_are_refused(headers: Any, token: Any):
    with pytest.raises(e.ConfigurationError, match=r"headers=|token="):
        reach("wss://example.com/", headers=headers, token=token)
    reach("wss://example.com/", headers={"X-A": "b", "Origin": "https://example.com"}, token="a.b-c_d")


@pytest.mark.parametrize(
    "target",
    [
        HttpTransportConfig("https://example.com/", max_message_size=1000),
        WebSocketConfig("wss://example.com/", max_message_size=1000),
        UnixSocketConfig("/run/mcp.sock", max_message_size=1000),
    ],
)
def test_max_message_size_replaces_the_limit_of_the_policy(target: Any):
    _, policy = settle(target, SecurityPolicy(limits=Limits(message_bytes=5000, json_depth=7)))
    assert (policy.limits.message_bytes, policy.limits.json_depth) == (1000, 7)
    _, policy = settle("wss://example.com/", SecurityPolicy(limits=Limits(message_bytes=5000)))
    assert policy.limits.message_bytes == 5000


def test_tls_has_no_meaning_without_tls():
    with pytest.raises(e.ConfigurationError, match="tls= is for wss"):
        Client("ws://localhost/", tls=TlsClientConfig())


def test_addresses():
    endpoint = parse_endpoint("wss://Example.COM/mcp?x=1", WEBSOCKET)
    assert (endpoint.secure, endpoint.host, endpoint.port, endpoint.target) == (True, "example.com", 443, "/mcp?x=1")
    assert endpoint.authority == "example.com" and endpoint.origin == "wss://example.com"
    assert parse_endpoint("ws://localhost:80/", WEBSOCKET).authority == "localhost"
    for url, schemes in (("wss://a/", HTTP), ("https://a/", WEBSOCKET)):
        with pytest.raises(UrlError, match=f"must be {schemes[0]}, or {schemes[1]} on loopback"):
            parse_endpoint(url, schemes)
    for url in ("https://[::1]", "https://[::1]:8443/", "https://[2001:DB8::1]:/x"):
        assert parse_endpoint(url, HTTP).host in ("::1", "2001:db8::1")
    for url in (
        *(
            "https://trusted.example[::1]/x",
            "https://[::1].evil.example:8443/",
            "https://[::1]x/",
            "https://[::1]8443/",
        ),
        *(
            "https://trusted.example[v1.evil.example]/",
            "https://[v1.evil.example]/",
            "https://::1/",
            "https://[1.2.3.4]/",
        ),
        *("https://[]/", "https://[::1/", "https://::1]/", "https://[::1%25eth0]/"),
    ):
        with pytest.raises(UrlError):
            parse_endpoint(url, HTTP)
    assert parse_unix("unix:/run/a b%20.sock?#") == "/run/a b%20.sock?#"
    with pytest.raises(UrlError, match="absolute path"):
        parse_unix("UNIX:/run/a")


def test_only_the_transport_that_is_needed_is_loaded():
    script = """
import sys
from garrison.client import Client
def loaded(*names): return [name for name in names if name in sys.modules]
Client(["program"])
print(loaded("websockets", "httptools", "garrison.client.http", "garrison.client.unix", "garrison.policy.transports"))
Client("unix:/run/mcp.sock")
print(loaded("websockets", "httptools", "garrison.client.http"))
Client("ws://localhost/")
print(loaded("httptools", "garrison.client.http", "garrison.transports.tls", "websockets.asyncio"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split("\n") == ["[]", "[]", "[]", ""]
