"""Who may speak to an HTTP listener, asked of the live listener."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from garrison import ConfigurationError, InsecureConfigurationError, SecurityPolicy, Server, Timeouts
from garrison.server.serve import HttpServing, announce_on_stderr
from tests.support.mcp import call, modern_fields, post
from tests.support.raw_http import TOKEN, Response, changed, exchange, request, serving

ran: list[str] = []


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GARRISON_TOKEN", raising=False)
    ran.clear()
    yield


def make(**policy: object) -> Server:
    server = Server("gate", policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2), **policy))  # type: ignore[arg-type]

    @server.tool(inline=True)
    def echo() -> str:
        ran.append("x")
        return "x"

    return server


async def ask(port: int, token: str | None = TOKEN, **changes: str | None) -> Response:
    return await exchange(port, post(port, call("echo"), token, **changes))


def check(response: Response, *statuses: int) -> None:
    assert response.status in statuses, response
    assert ran == []
    assert not any(name.startswith("access-control") for name, _ in response.fields)
    assert response.get("x-content-type-options") == "nosniff"
    assert response.get("cache-control") == "no-store"
    assert response.get("referrer-policy") == "no-referrer"


@pytest.mark.attack("ATK-001")
@pytest.mark.attack("ATK-004")
@pytest.mark.attack("ATK-009")
@pytest.mark.attack("ATK-010")
@pytest.mark.attack("ATK-014")
@pytest.mark.attack("ATK-015")
async def test_hosts() -> None:
    async with serving(make()) as running:
        port = running.port
        for host in (
            "evil.example",
            f"evil.example:{port}",
            f"127.0.0.1:{port}.evil.example",
            f"localhost:{port}@evil.example",
            f"evil@localhost:{port}",
            f"127.0.0.1:{port + 1}",
            "127.0.0.1",
            "localhost",
            f"localhost.:{port}",
            f"localhost:0{port}",
            f"0.0.0.0:{port}",
            f"[::]:{port}",
            f"127.0.0.2:{port}",
            f"127.1:{port}",
            f"2130706433:{port}",
            f"localhost:{port}/",
            f"localhost:{port},evil.example",
            f"http://localhost:{port}",
            f"rebind.test:{port}",
            "",
            ":",
            None,
        ):
            check(await ask(port, host=host), 400, 421)
        for host in (f"LOCALHOST:{port}", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert (await ask(port, host=host)).status == 200, host


@pytest.mark.attack("ATK-002")
@pytest.mark.attack("ATK-003")
@pytest.mark.attack("ATK-005")
@pytest.mark.attack("ATK-006")
@pytest.mark.attack("ATK-020")
async def test_origins() -> None:
    async with serving(make(allowed_origins=("https://app.example", "http://dev.example:3000"))) as running:
        port = running.port
        for origin in (
            "http://evil.example",
            "null",
            "",
            f"http://127.0.0.1:{port}.evil.example",
            "http://localhost.evil.example",
            f"http://localhost:{port}x",
            f"http://localhost:{port + 1}",
            "http://localhost",
            f"https://localhost:{port}",
            "http://app.example",
            "https://app.example:443",
            "https://app.example.evil",
            "https://app.example/",
            "https://evil.app.example",
            "http://dev.example",
            "file://",
            "https://app.example https://evil.example",
        ):
            check(await ask(port, origin=origin), 403)
        for origin in (
            f"http://localhost:{port}",
            f"http://127.0.0.1:{port}",
            f"http://[::1]:{port}",
            "https://app.example",
            "http://dev.example:3000",
        ):
            assert (await ask(port, origin=origin)).status == 200, origin
        ran.clear()
        for site in ("cross-site", "same-site"):
            check(await ask(port, sec_fetch_site=site), 403)
        assert (await ask(port, sec_fetch_site="same-origin")).status == 200
        assert (await ask(port, sec_fetch_site="none")).status == 200


@pytest.mark.attack("ATK-011")
@pytest.mark.attack("ATK-019")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT"])
@pytest.mark.parametrize("target", ["/mcp", "/nothing", "/health", "/.well-known/oauth-protected-resource"])
async def test_the_gate_stands_before_every_path(method: str, target: str) -> None:
    async with serving(make()) as running:
        port = running.port
        base = modern_fields(port, call("echo"))
        for bad, statuses in (
            (changed(base, origin="http://evil.example", access_control_request_headers="authorization"), (403,)),
            (changed(base, host="evil.example"), (421,)),
            (changed(base, authorization=None), (401, 404)),
        ):
            data = request(b"", bad, method=method, target=target)
            if method == "HEAD":
                data = data.replace(b"HEAD", b"GET", 1)
            check(await exchange(port, data), *statuses)


@pytest.mark.attack("ATK-022")
async def test_forwarded_fields_decide_nothing() -> None:
    async with serving(make(allowed_hosts=("allowed.example",))) as running:
        port = running.port
        forwarded = {
            "x_forwarded_host": "allowed.example",
            "x_forwarded_proto": "https",
            "forwarded": "host=allowed.example",
            "x_forwarded_for": "127.0.0.1",
        }
        check(await ask(port, host="evil.example", **forwarded), 421)
        check(await ask(port, authorization=None, **forwarded), 401)
        assert (await ask(port, host="allowed.example")).status == 200
        assert (await ask(port, host="ALLOWED.example")).status == 200


@pytest.mark.attack("ATK-016")
async def test_tokens() -> None:
    async with serving(make()) as running:
        port = running.port
        for given in (
            None,
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            f"Basic {TOKEN}",
            f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN}x",
            f"Bearer  {TOKEN}",
            f"Bearer {TOKEN.upper()}",
            f"Bearer {TOKEN}, Bearer {TOKEN}",
            f"Bearer \xe9{TOKEN}",
            "Bearer " + "x" * 10_000,
        ):
            response = await ask(port, authorization=given)
            check(response, 401)
            assert (response.get("www-authenticate") or "").startswith("Bearer")
            assert TOKEN not in response.body.decode()
        # not in the target either
        data = request(
            json.dumps(call("echo")).encode(),
            changed(modern_fields(port, call("echo")), authorization=None),
            target=f"/mcp?access_token={TOKEN}",
        )
        check(await exchange(port, data), 401)
        for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER {TOKEN}"):
            assert (await ask(port, authorization=given)).status == 200


@pytest.mark.attack("ATK-017")
@pytest.mark.attack("ATK-018")
async def test_content_types() -> None:
    async with serving(make()) as running:
        port = running.port
        for kind in (
            None,
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "application/json-seq",
            "application/json-rpc",
            "application/jsonrequest",
            "text/json",
            "application/json; charset=utf-16",
            "application/json; charset=iso-8859-1",
            "application/json; charset=utf-8; x=y",
            "application/json, text/plain",
            "application/json;charset",
        ):
            check(await ask(port, content_type=kind), 415)
        for kind in (
            "application/json",
            "Application/JSON",
            "application/json;charset=UTF-8",
            'application/json; charset="utf-8"',
        ):
            assert (await ask(port, content_type=kind)).status == 200, kind


@pytest.mark.attack("ATK-046")
async def test_accept() -> None:
    async with serving(make()) as running:
        port = running.port
        for kind in (
            None,
            "",
            "application/json",
            "text/event-stream",
            "text/html",
            "application/jsonx, text/event-streamx",
            "image/*",
        ):
            check(await ask(port, accept=kind), 406)
        for kind in (
            "*/*",
            "application/json;q=0.9, text/event-stream",
            "TEXT/EVENT-STREAM,APPLICATION/JSON",
            "application/*, text/*",
        ):
            assert (await ask(port, accept=kind)).status == 200, kind


@pytest.mark.attack("ATK-012")
@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "127.0.0.1.evil.example", "localhost.", "[::1]", "*"]
)
async def test_only_loopback_is_bound(host: str) -> None:
    with pytest.raises(InsecureConfigurationError, match="loopback"):
        HttpServing(make(), host, 0)
    with pytest.raises(InsecureConfigurationError):
        HttpServing(make(dangerously_allow_unauthenticated="test"), host, 0, token=TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10"])
async def test_loopback_is_bound(host: str) -> None:
    running = HttpServing(make(), host, 0)
    await running.start()
    try:
        assert running.url == f"http://{host}:{running.port}/mcp"
    finally:
        await running.close()


async def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = HttpServing(make(), "127.0.0.1", 0), HttpServing(make(), "127.0.0.1", 0)
    assert first.token_is_new
    assert first.token is not None
    assert len(first.token) >= 43
    assert first.token != second.token
    announce_on_stderr(first)
    out, err = capsys.readouterr()
    assert first.token in err
    assert out == ""
    monkeypatch.setenv("GARRISON_TOKEN", "from-the-environment")
    from_environment = HttpServing(make(), "127.0.0.1", 0)
    assert (from_environment.token, from_environment.token_is_new) == ("from-the-environment", False)
    announce_on_stderr(from_environment)
    assert "from-the-environment" not in "".join(capsys.readouterr())
    assert HttpServing(make(), "127.0.0.1", 0, token=TOKEN).token == TOKEN
    # a token is asked for where one is given, whatever the policy would allow
    assert HttpServing(make(dangerously_allow_unauthenticated="why"), "127.0.0.1", 0, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("token", ["short", "x" * 15, "x" * 20 + " ", "x" * 20 + "\n", "x" * 20 + "é", "x\0" * 20])
def test_bad_tokens_do_not_start(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="token") as raised:
        HttpServing(make(), "127.0.0.1", 0, token=token)
    assert token not in str(raised.value)
    if "\0" not in token:
        monkeypatch.setenv("GARRISON_TOKEN", token)
        with pytest.raises(ConfigurationError):
            HttpServing(make(), "127.0.0.1", 0)
        with pytest.raises(ConfigurationError):
            HttpServing(make(dangerously_allow_unauthenticated="why"), "127.0.0.1", 0)


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_an_empty_token_is_no_way_around_the_token(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "environment":
        monkeypatch.setenv("GARRISON_TOKEN", "")
    try:
        running = HttpServing(make(), "127.0.0.1", 0, token="" if where == "argument" else None)
    except ConfigurationError:
        return
    assert running.token_is_new
    assert running.token


async def test_a_listener_without_token_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(make(dangerously_allow_unauthenticated="only a test"), token=None) as running:
            assert "only a test" in caplog.text
            assert (await ask(running.port, None)).status == 200
            check(await _after(running.port), 421)


async def _after(port: int) -> Response:
    ran.clear()
    return await ask(port, None, host="evil.example")


@pytest.mark.parametrize("value", ["http://x", "x/y", "x y", "x:123456", "a@b", "*", "*.example"])
async def test_malformed_hosts_do_not_start(value: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        await HttpServing(make(allowed_hosts=(value,)), "127.0.0.1", 0).start()


@pytest.mark.parametrize("value", ["example.com", "https://x/", "https://x/y", "*", "https://*", "null", ""])
async def test_malformed_origins_do_not_start(value: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        await HttpServing(make(allowed_origins=(value,)), "127.0.0.1", 0).start()
