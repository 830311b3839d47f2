"""Fetching as tools do it: by a parameter type, as text, chunk by chunk; and hostile addresses given to live tools."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from garrison import Client, ConfigurationError, RemoteError, Server, ToolError
from garrison.errors import ConnectionLost, ProtocolViolation, RequestTimeout
from garrison.safe.fetch import Fetched, FetchRefused, SafeFetch
from garrison.safe.fetch_url import FetchUrl
from garrison.safe.parameter import ParameterError
from garrison.safe.urls import SafeUrl
from tests.safe.test_fetch import PAGE, Names, Site, believing, moved, secured, site
from tests.support.certs import Authority

MIB = 1024 * 1024


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def on(here: Site, **more: Any) -> SafeFetch:
    """Who may ask this site, over plain http."""
    return SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"], **more)


# Text


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/html", "é".encode(), "é"),
        ("text/html; charset=utf-8", "\ufeffé".encode(), "é"),
        ('text/html; Charset="ISO-8859-1"; x=y', b"\xe9", "é"),
        ("text/html;charset=windows-1252", b"\x80", "€"),
        ("text/html; charset=Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("text/html; charset=utf-16", "é".encode("utf-16"), "é"),
        ("", b"x", "x"),
    ],
)
def test_text_is_what_its_charset_says(kind: str, body: bytes, text: str) -> None:
    assert Fetched("https://a/", 200, {"content-type": kind} if kind else {}, body).text == text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html; charset=utf-7", b"+ADw-script+AD4-"),
        ("text/html; charset=us-ascii", b"\xe9"),
        ("text/html", b"\xff"),
        ("text/html; charset=", b"x"),
        ("text/html; charset=idna", b"x"),
        ("text/html; charset=rot13", b"x"),
        ("text/html; charset=unicode_escape", b"\\x41"),
        ("text/html; charset=x\0y", b"x"),
    ],
)
def test_text_that_is_none(kind: str, body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        _ = Fetched("https://a/", 200, {"content-type": kind}, body).text


def test_untrusted_text_says_where_it_is_from() -> None:
    found = Fetched("https://a.test/x?token=1", 200, {}, "é".encode()).untrusted
    assert (found.value, found.source) == ("é", "https://a.test/x")


# Chunk by chunk


async def test_a_body_is_read_as_it_comes() -> None:
    async with site() as here:
        here.answers = lambda target: (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        )
        async with on(here).stream(f"http://127.0.0.1:{here.port}/a", headers={"X-Key": "1"}) as answer:
            assert (answer.status, answer.headers["x-a"], answer.media_type) == (200, "b", "")
            assert answer.url == f"http://127.0.0.1:{here.port}/a"
            assert b"".join([chunk async for chunk in answer]) == b"hello world"
            assert await answer.read() == b""
        assert b"\r\nX-Key: 1\r\n" in here.asked[0]
        async with on(here).stream(f"http://127.0.0.1:{here.port}/") as answer:
            assert await answer.read() == b"hello world"


async def test_the_head_is_there_before_the_body() -> None:
    async with site() as here:
        here.pause = 20.0
        here.answers = lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        async with asyncio.timeout(10), on(here).stream(f"http://127.0.0.1:{here.port}/") as answer:
            async for chunk in answer:
                assert chunk == b"hello"
                break


async def test_caps_of_a_stream() -> None:
    async with site() as here:
        url = f"http://127.0.0.1:{here.port}/"
        here.answers = lambda target: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 3000
        with pytest.raises(ProtocolViolation, match="max_bytes"):
            async with on(here, max_bytes=2999).stream(url) as answer:
                async for _ in answer:
                    pass
        async with on(here, max_bytes=3000).stream(url) as answer:
            assert len(await answer.read()) == 3000
        here.answers = lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n"
        with pytest.raises(ProtocolViolation, match="max_bytes"):
            async with on(here, max_bytes=2999).stream(url):
                pass
        here.answers = lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
        with pytest.raises(ConnectionLost):
            async with on(here).stream(url) as answer:
                await answer.read()
        here.pause = 20.0
        with pytest.raises(RequestTimeout):
            async with on(here, timeout=0.3).stream(url) as answer:
                await answer.read()
        with pytest.raises(FetchRefused, match="media type"):
            async with on(here, media_types=["text/html"]).stream(url):
                pass


async def test_the_time_of_who_reads_is_its_own() -> None:
    """The deadline ends waiting for bytes; what the block does besides is not cut off."""
    async with site() as here:
        async with on(here, timeout=0.3).stream(f"http://127.0.0.1:{here.port}/") as answer:
            assert await answer.read() == b"hello"
            await asyncio.sleep(0.5)


async def test_a_stream_follows_redirects_and_ends_its_connections() -> None:
    async with site() as here:
        here.answers = lambda target: moved("/end") if target == "/" else PAGE
        async with on(here).stream(f"http://127.0.0.1:{here.port}/") as answer:
            assert await answer.read() == b"hello"
        assert here.targets == ["/", "/end"]
        here.answers = lambda target: moved("http://127.0.0.2:1/")
        with pytest.raises(FetchRefused):
            async with on(here).stream(f"http://127.0.0.1:{here.port}/"):
                pass


# The parameter


web = SafeFetch(hosts=["api.test"])


class Page(FetchUrl, fetch=web):
    """A page of the API."""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("http://api.test/", "only https"),
        ("file:///etc/passwd", "scheme"),
        ("https://other.test/", "not on the list"),
        ("https://api.test.evil.test/", "not on the list"),
        ("https://api.test:22/", "port 443"),
        ("https://u:p@api.test/", "user name"),
        ("https://api.test/\n", "ASCII"),
        ("https://api.test/\\x", "ASCII"),
        ("https://api.test/#x", "fragment"),
        ("https://[::1]/", "not on the list"),
        ("x", "scheme"),
    ],
)
def test_a_url_is_judged_by_its_text(text: str, rule: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ParameterError, match=rule) as caught:
        Page.from_json(text)
    assert len(text) < 2 or text not in str(caught.value)
    assert caplog.records == []  # the refusal of the arguments is the event
    assert web.problem(text) in str(caught.value)


def test_a_url_that_may_be_fetched() -> None:
    page = Page.from_json("https://API.test/a?b")
    assert (str(page), repr(page)) == ("https://API.test/a?b", "Page('https://API.test/a?b')")
    assert page == Page("https://API.test/a?b") and hash(page) == hash(FetchUrl("https://API.test/a?b"))
    assert web.problem(str(page)) == ""
    assert "not public" in SafeFetch().problem("https://10.0.0.1/")
    with pytest.raises(ParameterError):
        FetchUrl("ftp://a/")


async def test_a_url_without_a_fetch_is_only_a_url() -> None:
    with pytest.raises(ConfigurationError, match="bound to no SafeFetch"):
        await FetchUrl("https://a/").get()


async def test_what_becomes_of_a_fetch_is_told_in_constant_words() -> None:
    async with site() as here:

        class Here(FetchUrl, fetch=on(here, max_bytes=10, timeout=0.5)):
            pass

        url = Here(f"http://127.0.0.1:{here.port}/")
        assert (await url.get()).text == "hello"
        async with url.stream() as answer:
            assert await answer.read() == b"hello"
        for bytes_, pause, said in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", 0.0, "too large"),
            (b"HTTP/1.1 200 OK\r\n", 0.0, "could not be reached"),
            (b"HTTP/1.1 200 OK\r\n", 5.0, "in time"),
            (moved("https://evil.test/"), 0.0, "another scheme"),
        ):
            here.answers, here.pause = (lambda target, answer=bytes_: answer), pause
            with pytest.raises(ToolError, match=said) as caught:
                await url.get()
            assert str(here.port) not in str(caught.value) and "evil" not in str(caught.value)
            with pytest.raises(ToolError, match=said):
                async with url.stream() as answer:
                    await answer.read()


# Live tools


@contextlib.asynccontextmanager
async def canary() -> AsyncIterator[tuple[list[str], int]]:
    """A port of every loopback address that says who came."""
    reached: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(str(writer.get_extra_info("sockname")[0]))
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\ninternal")
        await writer.drain()
        writer.close()

    first = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    servers = [first]
    for address in ("::1", "127.0.0.2"):
        with contextlib.suppress(OSError):
            servers.append(await asyncio.start_server(serve, address, port))
    async with contextlib.AsyncExitStack() as stack:
        for each in servers:
            await stack.enter_async_context(each)
        yield reached, port


class Tools:
    """A client of a server with tools that fetch."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, tool: str, url: str) -> str:
        """What a tool answers; an error begins with `refused`."""
        try:
            answer = await self._client.call_tool(tool, {"url": url})
        except RemoteError as error:
            return f"refused: {error}"
        text = cast("Any", answer.content[0]).text
        return f"refused: {text}" if answer.is_error else text


@contextlib.asynccontextmanager
async def tools(fetch: SafeFetch) -> AsyncIterator[Tools]:
    """A live server: `fetch` takes any text, `page` a bound URL, `naive` is the twin."""
    server = Server("fetching")

    class Url(FetchUrl, fetch=fetch):
        """What may be fetched."""

    @server.tool()
    async def fetch_text(url: str) -> str:
        return (await fetch.get(url)).text

    async def page(url: FetchUrl) -> str:
        return (await url.get()).text

    page.__annotations__["url"] = Url  # which is known in here alone
    server.tool()(page)

    @server.tool()
    def naive(url: str) -> str:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()

    async with server.http(port=0) as serving, Client(serving.url, token=serving.token) as client:
        yield Tools(client)


LITERALS = ["127.0.0.1", "[::1]", "0", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.2", "localhost",
            "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "169.254.169.254", "[fd00::1]"]  # fmt: skip


@pytest.mark.app
@pytest.mark.attack("ATK-134", transports=("http",))
async def test_addresses_given_to_a_live_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with canary() as (reached, port), tools(SafeFetch(timeout=5)) as here:
        for host in LITERALS:
            for url in (f"http://{host}:{port}/", f"https://{host}:{port}/", f"https://{host}/", f"http://{host}/"):
                assert (await here.ask("fetch_text", url)).startswith("refused: "), url
                said = await here.ask("page", url)
                assert said.startswith("refused: "), url
                assert host not in said.replace("SafeFetch.private_hosts", "") or host == "0"
        assert reached == []
        for host in ("127.0.0.1", "2130706433", "0x7f.1"):  # the twin goes there
            assert await here.ask("naive", f"http://{host}:{port}/") == "internal"
        assert reached == ["127.0.0.1"] * 3
    async with site() as there, tools(on(there)) as here:
        for tool in ("fetch_text", "page"):
            assert await here.ask(tool, f"http://127.0.0.1:{there.port}/") == "hello"


@pytest.mark.app
@pytest.mark.attack("ATK-135", transports=("http",))
async def test_schemes_given_to_a_live_tool(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    async with tools(SafeFetch()) as here:
        file = (tmp_path / "secret").as_uri()
        for url in (
            file,
            "gopher://a/",
            "ftp://a/",
            "dict://a/",
            "data:text/plain,x",
            "unix:/run/x",
            "//a",
            "",
            "jar:x!/",
        ):
            for tool in ("fetch_text", "page"):
                said = await here.ask(tool, url)
                assert said.startswith("refused: ") and "canary" not in said
        assert await here.ask("naive", file) == "canary"


@pytest.mark.app
@pytest.mark.attack("ATK-136", transports=("http",))
async def test_redirects_given_to_a_live_tool() -> None:
    async with canary() as (reached, port), site() as there, tools(on(there, redirects=3)) as here:
        url = f"http://127.0.0.1:{there.port}/"
        for location in (
            f"http://127.0.0.1:{port}/",
            f"http://localhost:{port}/",
            f"//127.0.0.2:{port}/",
            "http://169.254.169.254/latest/meta-data/",
            "https://169.254.169.254/",
            "file:///etc/passwd",
            f"http://x@127.0.0.1:{port}/",
        ):
            there.answers = lambda target, location=location: moved(location)
            for tool in ("fetch_text", "page"):
                assert (await here.ask(tool, url)).startswith("refused: The address was refused: ")
        assert reached == []
        there.answers = lambda target: moved(f"http://127.0.0.1:{port}/")
        assert await here.ask("naive", url) == "internal"
        there.asked.clear()
        there.answers = lambda target: moved(f"{target}x")
        assert "more than 3 redirects" in await here.ask("page", url)
        assert len(there.asked) == 4
        there.answers = lambda target: moved("/end") if target != "/end" else PAGE
        assert await here.ask("page", url) == "hello"


@pytest.mark.app
@pytest.mark.attack("ATK-137", transports=("http",))
async def test_ports_and_credentials_of_a_live_tool(authority: Authority) -> None:
    context = secured(authority, "a.test", "b.test")
    async with site(context) as a, site(context) as b:
        resolver = Names(a_test="127.0.0.1", b_test="127.0.0.1")
        fetch = SafeFetch(
            private_hosts=[f"a.test:{a.port}", f"b.test:{b.port}"], tls=believing(authority), resolver=resolver
        )
        async with tools(fetch) as here:
            for port in (22, 25, 80, 6379):
                for tool in ("fetch_text", "page"):
                    said = await here.ask(tool, f"https://a.test:{port}/")
                    assert said.startswith("refused: ") and "443" in said
            assert resolver.asked == []
            assert await here.ask("page", f"https://a.test:{a.port}/") == "hello"
        a.answers = lambda target: moved(f"https://b.test:{b.port}/")
        secret = {"Authorization": "Bearer secret"}
        async with fetch.stream(f"https://a.test:{a.port}/", headers=secret) as answer:
            assert await answer.read() == b"hello"
        assert b"secret" in a.asked[-1] and b"secret" not in b"".join(b.asked)


@pytest.mark.app
@pytest.mark.attack("ATK-138", transports=("http",))
async def test_names_that_change_given_to_a_live_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[object] = []

    async def dial(make: object, endpoint: object, *, address: object, **more: object) -> Any:
        dialled.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    class Turning:
        """A name that is public at the first look, and not at the next."""

        asked = 0

        async def __call__(self, host: str, port: int) -> Iterable[str]:
            self.asked += 1
            if host == "mixed.test":
                return ["1.1.1.1", "127.0.0.1"]
            return ["1.1.1.1"] if self.asked == 1 else ["127.0.0.1"]

    turning = Turning()
    async with tools(SafeFetch(resolver=turning, timeout=20)) as here:
        with monkeypatch.context() as patched:
            patched.setattr("garrison.transports.http.pool.dial", dial)
            direct = [SafeFetch(resolver=turning, timeout=20).get("https://turning.test/")]
            with pytest.raises(Exception, match="refused"):
                await direct[0]
            assert set(dialled) == {"1.1.1.1"} and turning.asked == 1
        for name in ("turning.test", "mixed.test"):
            for tool in ("fetch_text", "page"):
                assert "not public" in await here.ask(tool, f"https://{name}/")
        assert set(dialled) == {"1.1.1.1"}


@pytest.mark.app
@pytest.mark.attack("ATK-139", transports=("http",))
async def test_parts_of_a_path_given_to_a_live_tool() -> None:
    async with site() as api:
        fetch = on(api)
        base: Any = f"http://127.0.0.1:{api.port}/api/v1/users/"
        users = SafeUrl(base + "{id}")
        server = Server("users")

        @server.tool()
        async def user(user_id: str) -> str:
            return (await fetch.get(users.build(id=user_id))).text

        @server.tool()
        async def naive(user_id: str) -> str:
            return (await fetch.get(f"{base}{user_id}")).text

        async with server.http(port=0) as serving, Client(serving.url, token=serving.token) as client:
            for attack in ("../../admin", "..", "%2e%2e%2fadmin", "..\\admin", ""):
                assert (await client.call_tool("user", {"user_id": attack})).is_error
            assert api.targets == []
            for attack, target in (("x?y=1", "x%3Fy%3D1"), ("x#", "x%23"), ("//evil", "%2F%2Fevil"), ("ann", "ann")):
                assert not (await client.call_tool("user", {"user_id": attack})).is_error
                assert api.targets[-1] == f"/api/v1/users/{target}"
            assert not (await client.call_tool("naive", {"user_id": "../../admin?x"})).is_error
            assert api.targets[-1] == "/api/v1/users/../../admin?x"  # the twin asks for what was named
