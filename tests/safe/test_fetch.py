"""SafeFetch against addresses, names, redirects and answers of a hostile peer; and that honest ones are fetched."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError, TlsClientConfig
from garrison.errors import ConnectionFailed, ProtocolViolation, RequestTimeout
from garrison.safe import Fetched, FetchRefused, SafeFetch
from tests.support.certs import Authority

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello"


def moved(location: str, status: int = 302) -> bytes:
    """A redirect."""
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


class Site:
    """A server on loopback that answers as it is told, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: Callable[[str], bytes] = lambda target: PAGE
        self.asked: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.pause = 0.0
        self.tasks: list[asyncio.Task[object]] = []

    @property
    def targets(self) -> list[str]:
        """What was asked for."""
        return [asked.split(b" ")[1].decode() for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            self.asked.append(head + body)
            writer.write(self.answers(self.targets[-1]))
            await writer.drain()
            await asyncio.sleep(self.pause)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def site(context: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """A running `Site`."""
    made = Site()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


class Names:
    """A resolver that knows these names, with `_` for dots, and what it was asked."""

    def __init__(self, **addresses: str | list[str]) -> None:
        self._found = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Iterable[str]:
        self.asked.append(host)
        found = self._found.get(host)
        if found is None:
            raise OSError(2, "Name or service not known")
        return [found] if isinstance(found, str) else found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secured(authority: Authority, *hosts: str) -> ssl.SSLContext:
    leaf = authority.leaf(hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    return context


def believing(authority: Authority) -> TlsClientConfig:
    return TlsClientConfig(ca=authority.pem)


# What is fetched


async def test_what_is_listed_is_fetched(authority: Authority) -> None:
    async with site(secured(authority, "api.test")) as here:
        resolver = Names(api_test="127.0.0.1")
        fetch = SafeFetch(private_hosts=[f"api.test:{here.port}"], tls=believing(authority), resolver=resolver)
        answer = await fetch.get(f"https://api.test:{here.port}/a?b=c", headers={"X-Key": "1"})
        assert answer == Fetched(f"https://api.test:{here.port}/a?b=c", 200, answer.headers, b"hello")
        assert answer.media_type == "text/plain"
        assert here.asked[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: api.test:%d\r\n" % here.port)
        assert b"\r\nX-Key: 1\r\n" in here.asked[0]
        posted = await fetch.post(
            f"https://api.test:{here.port}/token", b"x=1", media_type="application/x-www-form-urlencoded"
        )
        assert posted.status == 200
        assert here.asked[1].endswith(b"\r\nContent-Length: 3\r\n\r\nx=1")
        assert resolver.asked == ["api.test"] * 2


async def test_the_certificate_is_that_of_the_name_and_not_of_the_address(authority: Authority) -> None:
    async with site(secured(authority, "other.test", "127.0.0.1")) as here:
        fetch = SafeFetch(
            private_hosts=[f"api.test:{here.port}"], tls=believing(authority), resolver=Names(api_test="127.0.0.1")
        )
        with pytest.raises(ConnectionFailed, match="certificate"):
            await fetch.get(f"https://api.test:{here.port}/")
        assert here.asked == []


async def test_plain_http_is_for_listed_loopback_alone() -> None:
    async with site() as here:
        url = f"http://127.0.0.1:{here.port}/"
        assert (await SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"]).get(url)).body == b"hello"
        assert (await SafeFetch(private_hosts=["127.0.0.1:*"]).get(url)).body == b"hello"
        refusing = (["127.0.0.1"], ["127.0.0.1:1"], ["127.0.0.2:*"], ["localhost:*"])
        for fetch in (SafeFetch(), *(SafeFetch(private_hosts=listed) for listed in refusing)):
            with pytest.raises(FetchRefused):
                await fetch.get(url)
        with pytest.raises(FetchRefused, match="loopback"):
            await SafeFetch(private_hosts=[f"api.test:{here.port}"], resolver=Names(api_test="127.0.0.1")).get(
                f"http://api.test:{here.port}/"
            )
        assert here.connections == 2


# Where nothing is sent


@pytest.mark.attack("ATK-134", transports=("http",))
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "0",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::ffff:169.254.169.254]",
        "169.254.169.254",
        "localhost",
        "10.0.0.5",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
    ],
)
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises((FetchRefused, ConnectionFailed)) as caught:
            await SafeFetch(timeout=5).get(f"{scheme}://{host}/")
        # A spelling that the system's resolver knows nothing of is no address at all.
        assert isinstance(caught.value, FetchRefused) or "address" in str(caught.value) or "known" in str(caught.value)


@pytest.mark.attack("ATK-135", transports=("http",))
@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://a/", "ftp://a/", "dict://a/", "data:text/plain,x", "unix:/run/x.sock", "//a/", "",
     "https://u:p@a/", "https://a\\@b/", "https://a/#f", "https://a/ b", "https:///x", "https://a:0/", "https://a%2eb/"],
)  # fmt: skip
async def test_what_is_no_https_url_is_refused(url: str) -> None:
    resolver = Names()
    with pytest.raises(FetchRefused) as caught:
        await SafeFetch(resolver=resolver).get(url)
    assert resolver.asked == []
    assert not url or url not in str(caught.value)


@pytest.mark.attack("ATK-137", transports=("http",))
@pytest.mark.parametrize("port", [22, 25, 80, 6379, 8443])
async def test_other_ports_are_refused(port: int) -> None:
    resolver = Names(public_test="1.1.1.1")
    with pytest.raises(FetchRefused, match="port 443"):
        await SafeFetch(hosts=["public.test"], resolver=resolver).get(f"https://public.test:{port}/")
    assert resolver.asked == []


async def test_hosts_that_are_not_on_the_list_are_refused() -> None:
    resolver = Names(b_test="1.1.1.1")
    for host in ("b.test", "a.test.b.test", "sub.a.test"):
        with pytest.raises(FetchRefused, match="not on the list"):
            await SafeFetch(hosts=["a.test"], resolver=resolver).get(f"https://{host}/")
    assert resolver.asked == []


@pytest.mark.attack("ATK-138", transports=("http",))
async def test_one_address_that_is_not_public_refuses_the_name() -> None:
    for found in ("10.0.0.5", ["1.1.1.1", "127.0.0.1"], ["::1", "2606:4700::1111"]):
        with pytest.raises(FetchRefused, match="not public"):
            await SafeFetch(resolver=Names(mixed_test=found)).get("https://mixed.test/")
    with pytest.raises(ConnectionFailed, match="no address"):
        await SafeFetch(resolver=Names(none_test=[])).get("https://none.test/")
    with pytest.raises(ConnectionFailed, match="not known"):
        await SafeFetch(resolver=Names()).get("https://none.test/")


@pytest.mark.attack("ATK-138", transports=("http",))
async def test_the_connection_goes_to_the_address_that_was_judged(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers anew for each look is looked up once; nobody looks again to connect."""
    async with site(secured(authority, "api.test")) as here:
        loop = asyncio.get_running_loop()
        lookups: list[object] = []
        honest = loop.getaddrinfo

        async def spied(host: Any, *rest: Any, **more: Any) -> Any:
            lookups.append(host)
            return await honest(host, *rest, **more)

        monkeypatch.setattr(loop, "getaddrinfo", spied, raising=False)
        resolver = Names(api_test="127.0.0.1")
        fetch = SafeFetch(private_hosts=[f"api.test:{here.port}"], tls=believing(authority), resolver=resolver)
        assert (await fetch.get(f"https://api.test:{here.port}/")).status == 200
        assert resolver.asked == ["api.test"]
        assert "api.test" not in lookups


async def test_the_next_address_is_tried(authority: Authority) -> None:
    async with site(secured(authority, "api.test")) as here:
        resolver = Names(api_test=["127.0.0.9", "127.0.0.1"])
        fetch = SafeFetch(private_hosts=[f"api.test:{here.port}"], tls=believing(authority), resolver=resolver)
        assert (await fetch.get(f"https://api.test:{here.port}/")).body == b"hello"


# Redirects


@contextlib.asynccontextmanager
async def two_sites(authority: Authority, **options: Any) -> AsyncIterator[tuple[Site, Site, SafeFetch]]:
    """Two listed origins, and who fetches from them; other names lead to the second as well, but are not listed."""
    context = secured(authority, "a.test", "b.test", "internal.test")
    async with site(context) as a, site(context) as b:
        resolver = Names(a_test="127.0.0.1", b_test="127.0.0.1", internal_test="127.0.0.1")
        listed = [f"a.test:{a.port}", f"b.test:{b.port}"]
        yield a, b, SafeFetch(private_hosts=listed, tls=believing(authority), resolver=resolver, **options)


async def test_redirects_are_followed_and_secrets_stay_with_their_origin(authority: Authority) -> None:
    async with two_sites(authority) as (a, b, fetch):
        a.answers = lambda target: moved("/second") if target == "/" else moved(f"https://b.test:{b.port}/third", 308)
        secret = {"Authorization": "Bearer secret", "X-Key": "secret"}
        answer = await fetch.get(f"https://a.test:{a.port}/", headers=secret)
        assert (answer.url, answer.body) == (f"https://b.test:{b.port}/third", b"hello")
        assert a.targets == ["/", "/second"]
        assert all(b"secret" in asked for asked in a.asked)
        assert b"secret" not in b.asked[0]


@pytest.mark.attack("ATK-136", transports=("http",))
@pytest.mark.parametrize(
    ("location", "rule"),
    [
        ("http://169.254.169.254/latest/meta-data/", "another scheme"),
        ("https://169.254.169.254/", "not public"),
        ("https://internal.test/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("http://a.test/", "another scheme"),
        ("file:///etc/passwd", "scheme"),
        ("//u:p@b.test/", "user name"),
        ("https://b.test:22/", "port 443"),
        ("/\\evil", "ASCII"),
    ],
)
async def test_a_redirect_is_judged_at_its_hop(authority: Authority, location: str, rule: str) -> None:
    async with two_sites(authority) as (a, b, fetch):
        a.answers = lambda target: moved(location)
        with pytest.raises(FetchRefused, match=rule):
            await fetch.get(f"https://a.test:{a.port}/")
        assert (a.connections, b.connections) == (1, 0)


@pytest.mark.attack("ATK-136", transports=("http",))
async def test_a_chain_of_redirects_ends(authority: Authority) -> None:
    async with two_sites(authority, redirects=2) as (a, _, fetch):
        a.answers = lambda target: moved(f"{target}x")
        with pytest.raises(FetchRefused, match="more than 2 redirects"):
            await fetch.get(f"https://a.test:{a.port}/")
        assert a.targets == ["/", "/x", "/xx"]
        a.answers = lambda target: moved("/end") if target != "/end" else PAGE
        assert (await fetch.get(f"https://a.test:{a.port}/")).body == b"hello"
        assert (await fetch.get(f"https://a.test:{a.port}/", redirects=0)).status == 302


async def test_redirects_may_be_kept_within_their_origin(authority: Authority) -> None:
    async with two_sites(authority) as (a, b, fetch):
        a.answers = lambda target: (
            moved(f"https://b.test:{b.port}/") if target == "/out" else moved("/in") if target == "/" else PAGE
        )
        assert (await fetch.get(f"https://a.test:{a.port}/", same_origin=True)).body == b"hello"
        with pytest.raises(FetchRefused, match="another origin"):
            await fetch.get(f"https://a.test:{a.port}/out", same_origin=True)
        assert b.connections == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_what_is_posted_is_for_one_address(authority: Authority, status: int) -> None:
    async with two_sites(authority) as (a, b, fetch):
        a.answers = lambda target: moved(f"https://b.test:{b.port}/", status)
        answer = await fetch.post(f"https://a.test:{a.port}/token", b"secret", media_type="text/plain")
        assert answer.status == status
        assert b.connections == 0


# Answers


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1_000_000)),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"nonsense",
    ],
)
async def test_answers_that_are_too_much(answer: bytes) -> None:
    async with site() as here:
        here.answers = lambda target: answer
        fetch = SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"], max_bytes=1000)
        with pytest.raises(ProtocolViolation):
            await fetch.get(f"http://127.0.0.1:{here.port}/")
        here.answers = lambda target: b"HTTP/1.1 404 No\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
        assert len((await fetch.get(f"http://127.0.0.1:{here.port}/")).body) == 1000


async def test_time_is_bounded_over_all_hops() -> None:
    async with site() as here:
        fetch = SafeFetch(private_hosts=[f"127.0.0.1:{here.port}"], timeout=0.5, redirects=50)
        here.answers = lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
        here.pause = 30.0
        with pytest.raises(RequestTimeout):
            await fetch.get(f"http://127.0.0.1:{here.port}/")

        async def slow(host: str, port: int) -> list[str]:
            await asyncio.sleep(30)
            return ["1.1.1.1"]

        with pytest.raises(RequestTimeout):
            await SafeFetch(timeout=0.2, resolver=slow).get("https://a.test/")


async def test_only_media_types_that_are_wanted(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as here:
        private = [f"127.0.0.1:{here.port}"]
        url = f"http://127.0.0.1:{here.port}/"
        with pytest.raises(FetchRefused, match="media type"):
            await SafeFetch(private_hosts=private, media_types=["application/json"]).get(url)
        assert "fetch.refused" in caplog.text
        assert (await SafeFetch(private_hosts=private, media_types=["text/plain"]).get(url)).body == b"hello"


# Arguments


@pytest.mark.parametrize(
    "given",
    [
        {"hosts": ["https://a.test"]},
        {"hosts": ["a.test:443"]},
        {"private_hosts": ["a.test:0"]},
        {"private_hosts": ["a.test:65536"]},
        {"private_hosts": ["a b"]},
        {"private_hosts": [""]},
        {"max_bytes": 0},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"redirects": -1},
    ],
)
def test_arguments_that_are_none(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        SafeFetch(**given)


@pytest.mark.parametrize(
    "headers", [{"A b": "c"}, {"A": "b\r\nC: d"}, {"Host": "x"}, {"content-length": "1"}, {"A": "☃"}]
)
async def test_headers_that_are_none(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="headers="):
        await SafeFetch(resolver=Names()).get("https://a.test/", headers=headers)
