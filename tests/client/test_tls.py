"""The client's side of TLS: whom it believes, what it says before it does, and where plain http is in order."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import garrison.errors as e
from garrison.client import Client
from garrison.client.http import HttpSettings, StreamableHttp
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from garrison.policy.transports import UnixSocketConfig
from garrison.transports.tls import client_context, explain, server_context
from tests.support.certs import Authority, Leaf

from .fakes import FakeHttp, http_server, listening, modern, respond, text

FAST = SecurityPolicy(timeouts=Timeouts(connect=3.0, request=5.0, shutdown=0.2))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_side(leaf: Leaf, **changes: Any) -> ssl.SSLContext:
    """A server's context, made without the code under test: it takes bad certificates too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, value in changes.items():
            setattr(context, name, value)
    return context


class Seen:
    """What a server got to know, beside what its `FakeHttp` has."""

    def __init__(self, fake: FakeHttp, port: int) -> None:
        self.fake = fake
        self.url = f"https://localhost:{port}/mcp"
        self.bytes = b""
        """Everything that came after a handshake."""


@asynccontextmanager
async def secure(context: ssl.SSLContext, answer: Any = None) -> AsyncIterator[Seen]:
    fake = FakeHttp(answer or modern({"tools/call": lambda r: text("ok")}))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        feed = reader.feed_data

        def heard(data: bytes) -> None:
            seen.bytes += data
            feed(data)

        reader.feed_data = heard  # type: ignore[method-assign]  # a reader that also tells
        seen.bytes += bytes(reader._buffer)  # type: ignore[attr-defined]  # what came before it told
        await fake.serve(reader, writer)

    async with listening(serve, ssl=context) as port:
        seen = Seen(fake, port)
        yield seen


async def call(url: str, **options: Any) -> str:
    async with Client(url, **{"policy": FAST, "token": "secret", **options}) as client:
        answer = await client.call_tool("x")
    return answer.content[0].text  # type: ignore[union-attr]


# Certificates.


@pytest.mark.attack("ATK-048")
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda a, _: a.leaf(days=(-2, -0.1)), "has expired"),
        (lambda a, _: a.leaf(days=(1, 2)), "is not valid yet"),
        (lambda a, _: a.leaf(["example.com"]), "is for another host"),
        (lambda a, _: a.leaf(["example.com"], subject="localhost"), "is for another host"),
        (lambda a, _: a.leaf(self_signed=True), r"is self-signed; .*TlsClientConfig\(ca=FILE\)"),
        (lambda _, b: b.leaf(), r"no root that is believed; .*TlsClientConfig\(ca=FILE\)"),
        (lambda a, _: a.leaf(client=True), "was not accepted: unsuitable certificate purpose"),
    ],
    ids=["expired", "early", "wrong-host", "common-name", "self-signed", "unknown-root", "wrong-purpose"],
)
async def test_a_bad_certificate_gets_no_byte(authority: Authority, tmp_path: Path, make: Any, complaint: str) -> None:
    settings = TlsClientConfig(ca=authority.pem)
    async with secure(server_side(make(authority, Authority(tmp_path, "Other")))) as hostile:
        with pytest.raises(e.ConnectionFailed, match=complaint):
            await call(hostile.url, tls=settings)
        assert hostile.bytes == b"" and hostile.fake.requests == []
    async with secure(server_side(authority.leaf())) as honest:
        assert await call(honest.url, tls=settings) == "ok"
        assert b"Bearer secret" in honest.bytes


async def test_an_address_is_a_name_like_any_other(authority: Authority) -> None:
    settings = TlsClientConfig(ca=authority.pem)
    async with secure(server_side(authority.leaf(["localhost"]))) as server:
        with pytest.raises(e.ConnectionFailed, match="is for another address"):
            await call(server.url.replace("localhost", "127.0.0.1"), tls=settings)
        assert server.bytes == b""
    async with secure(server_side(authority.leaf(["127.0.0.1"]))) as server:
        assert await call(server.url.replace("localhost", "127.0.0.1"), tls=settings) == "ok"


@pytest.mark.attack("ATK-048")
async def test_the_platforms_roots_do_not_believe_a_private_one(authority: Authority) -> None:
    async with secure(server_side(authority.leaf())) as server:
        for settings in (None, TlsClientConfig()):
            with pytest.raises(e.ConnectionFailed, match="no root that is believed"):
                await call(server.url, tls=settings)
        assert server.bytes == b""
        assert await call(server.url, tls=TlsClientConfig(ca=authority.pem)) == "ok"


async def test_a_single_certificate_can_be_all_that_is_believed(authority: Authority) -> None:
    leaf = authority.leaf()
    believed = TlsClientConfig(ca=leaf.certificate)
    async with secure(server_side(leaf)) as server:
        assert await call(server.url, tls=believed) == "ok"
    async with secure(server_side(authority.leaf())) as server:
        with pytest.raises(e.ConnectionFailed):
            await call(server.url, tls=believed)
        assert server.bytes == b""


@pytest.mark.attack("ATK-048")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
async def test_old_servers_are_not_spoken_to(authority: Authority, version: ssl.TLSVersion) -> None:
    settings = TlsClientConfig(ca=authority.pem)
    old = server_side(authority.leaf(), minimum_version=version, maximum_version=version)
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with secure(old) as server:
        with pytest.raises(e.ConnectionFailed):
            await call(server.url, tls=settings)
        assert server.bytes == b""
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with secure(old) as server:
        assert await call(server.url, tls=settings) == "ok"
        with pytest.raises(e.ConnectionFailed):
            await call(server.url, tls=TlsClientConfig(ca=authority.pem, minimum="1.3"))


UNDER_ENVIRONMENT = """
import asyncio, os, ssl, sys
from garrison import Client, SecurityPolicy, Timeouts
from garrison.errors import ConnectionFailed
from garrison.policy.tls import TlsClientConfig
from garrison.policy.transports import UnixSocketConfig

url, ca, port = sys.argv[1:]
fast = SecurityPolicy(timeouts=Timeouts(connect=3.0))

async def call(tls):
    async with Client(url, token="secret", tls=tls, policy=fast) as client:
        return (await client.call_tool("x")).content[0].text

async def main():
    try:
        print(await call(None))
    except ConnectionFailed as exc:
        print("refused" if "no root that is believed" in str(exc) else exc)
    print(await call(TlsClientConfig(ca=ca)))
    print(os.path.exists(os.environ["SSLKEYLOGFILE"]))
    naive = ssl.create_default_context()
    reader, writer = await asyncio.open_connection("localhost", port, ssl=naive)
    print("naive")
    writer.close()

asyncio.run(main())
"""


@pytest.mark.attack("ATK-048")
async def test_the_environment_changes_nobodys_belief(authority: Authority, tmp_path: Path) -> None:
    folder, keys = tmp_path / "roots", tmp_path / "keys.log"
    folder.mkdir()
    ways = [{"SSL_CERT_FILE": str(authority.pem), "SSL_CERT_DIR": str(folder)}]
    openssl = shutil.which("openssl")
    if openssl is not None:
        told = subprocess.run(
            [openssl, "x509", "-hash", "-noout", "-in", authority.pem], capture_output=True, text=True
        )
        shutil.copy(authority.pem, folder / f"{told.stdout.strip()}.0")
        ways.append({"SSL_CERT_FILE": str(tmp_path / "none"), "SSL_CERT_DIR": str(folder)})
    async with secure(server_side(authority.leaf())) as server:
        for way in ways:
            keys.unlink(missing_ok=True)
            port = server.url.rpartition(":")[2].partition("/")[0]
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", UNDER_ENVIRONMENT, server.url, str(authority.pem), port),
                env={**os.environ, **way, "SSLKEYLOGFILE": str(keys)},
                stdout=subprocess.PIPE,
            )
            output, _ = await child.communicate()
            # Ours refuses the attacker's root, works with one that was named, and has logged no key; Python's own
            # default context, in the same process, is deceived by the same variables.
            assert output.decode().split() == ["refused", "ok", "False", "naive"]
            assert keys.exists()


@pytest.mark.parametrize("setting", ["verify_mode", "check_hostname", "minimum_version"])
def test_a_context_that_verifies_nothing_is_refused(setting: str) -> None:
    context = ssl.create_default_context()
    Client("https://localhost/", tls=context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if setting == "minimum_version":
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE if setting == "verify_mode" else ssl.CERT_REQUIRED
    with pytest.raises(e.InsecureConfigurationError, match="tls="):
        Client("https://localhost/", tls=context)


async def test_a_context_of_ones_own_is_used(authority: Authority) -> None:
    async with secure(server_side(authority.leaf())) as server:
        assert await call(server.url, tls=ssl.create_default_context(cafile=str(authority.pem))) == "ok"


def test_files_that_cannot_be_used_are_named_when_the_client_is_made(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.leaf(["agent"], client=True)
    for settings, complaint in (
        (TlsClientConfig(ca=tmp_path / "none"), r"TlsClientConfig\.ca: .*No such file"),
        (TlsClientConfig(ca=leaf.key), r"TlsClientConfig\.ca: .*holds no certificates"),
        (
            TlsClientConfig(certificate=leaf.certificate, key=authority.leaf().key),
            r"TlsClientConfig\.key: .*not the key",
        ),
    ):
        with pytest.raises(e.ConfigurationError, match=complaint):
            Client("https://localhost/", tls=settings)
    Client("https://localhost/", tls=TlsClientConfig(certificate=leaf.certificate, key=leaf.key))
    leaf.key.chmod(0o640)
    with pytest.raises(e.InsecureConfigurationError, match=r"TlsClientConfig\.key: .*0640"):
        Client("https://localhost/", tls=TlsClientConfig(certificate=leaf.certificate, key=leaf.key))
    with pytest.raises(e.ConfigurationError, match="tls= is for https"):
        Client("http://localhost/", tls=TlsClientConfig())


async def test_what_is_no_tls_is_told(authority: Authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(1)

    async with listening(plain) as port:
        with pytest.raises(e.ConnectionFailed, match="does not speak TLS"):
            await call(f"https://localhost:{port}/", tls=TlsClientConfig(ca=authority.pem))


def test_a_failure_without_a_known_cause_keeps_its_name() -> None:
    assert explain(ssl.SSLError(1, "[SSL: ODD_THING] odd thing")).startswith("TLS failed (")


def test_roots_are_found_without_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = client_context()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert client_context().cert_store_stats() == plain.cert_store_stats()
    nothing = ssl.get_default_verify_paths()._replace(
        openssl_cafile=str(tmp_path / "none"), openssl_capath=str(tmp_path / "none")
    )
    if sys.platform not in ("darwin", "win32"):
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
        monkeypatch.setattr("garrison.transports.tls._BUNDLES", (str(tmp_path / "none"),))
        with pytest.raises(e.ConfigurationError, match="no root certificates"):
            client_context()
        authority = Authority(tmp_path)
        monkeypatch.setattr("garrison.transports.tls._BUNDLES", (str(tmp_path / "none"), str(authority.pem)))
        assert client_context().cert_store_stats()["x509"] == 1


# Pins and client certificates.


async def test_pins_are_compared_before_any_byte(authority: Authority) -> None:
    leaf, other = authority.leaf(), authority.leaf()
    async with secure(server_side(leaf)) as server:
        with pytest.raises(e.ConnectionFailed, match=r"none of TlsClientConfig\.pins"):
            await call(server.url, tls=TlsClientConfig(ca=authority.pem, pins=(other.pin,)))
        await asyncio.sleep(0.05)
        assert server.bytes == b""
        for pins in ((leaf.pin,), (other.pin, leaf.pin)):
            assert await call(server.url, tls=TlsClientConfig(ca=authority.pem, pins=pins)) == "ok"
        with pytest.raises(e.ConnectionFailed, match="no root that is believed"):  # a pin replaces no root
            await call(server.url, tls=TlsClientConfig(pins=(leaf.pin,)))


async def test_pins_are_compared_through_a_proxy_too(authority: Authority) -> None:
    leaf, other = authority.leaf(), authority.leaf()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection(*head.split(b" ")[1].decode().split(":"))
        writer.write(b"HTTP/1.1 200 Go\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:
            far_writer.transport.abort()

    async with secure(server_side(leaf)) as server, listening(proxy) as between:
        way = {"proxy": f"http://127.0.0.1:{between}"}
        with pytest.raises(e.ConnectionFailed, match="pins"):
            await call(server.url, tls=TlsClientConfig(ca=authority.pem, pins=(other.pin,)), **way)
        assert server.bytes == b""
        assert await call(server.url, tls=TlsClientConfig(ca=authority.pem, pins=(leaf.pin,)), **way) == "ok"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_client_certificate_is_shown_where_it_is_asked_for(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    settings = TlsServerConfig(
        certificate=(leaf := authority.leaf()).certificate, key=leaf.key, client_ca=authority.pem
    )
    context = server_context(settings)
    context.maximum_version = version
    agent = authority.leaf(["agent"], client=True)
    stranger = Authority(tmp_path, "Other").leaf(["agent"], client=True)
    async with secure(context) as server:
        for bad in (None, stranger):
            shown: dict[str, Any] = {} if bad is None else {"certificate": bad.certificate, "key": bad.key}
            with pytest.raises((e.ConnectionFailed, e.ConnectionLost)):
                await call(server.url, tls=TlsClientConfig(ca=authority.pem, **shown))
        assert server.fake.requests == []
        good = TlsClientConfig(ca=authority.pem, certificate=agent.certificate, key=agent.key)
        assert await call(server.url, tls=good) == "ok"


def test_alerts_of_a_server_that_wants_a_certificate_name_the_setting() -> None:
    for reason in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
        alert = ssl.SSLError(1, reason)
        alert.reason = reason
        assert "certificate" in explain(alert) and "TlsClientConfig" in explain(alert)


# Plain http.


@pytest.mark.attack("ATK-049")
async def test_plain_http_leaves_this_machine_only_for_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lookup = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *r, **k: lookup("127.0.0.1" if host == "public.test" else host, *r, **k)
    )
    async with http_server(modern({"tools/call": lambda r: text("ok")})) as fake:
        url = f"http://public.test:{fake.port}/mcp"
        other = SecurityPolicy(allow_insecure_http_hosts={"elsewhere.test": "lab"})
        for policy in (FAST, other):
            with pytest.raises(e.ConnectionFailed, match=r"SecurityPolicy\.allow_insecure_http_hosts"):
                settings(url, policy=policy)
        assert fake.connections == 0
        with caplog.at_level(logging.WARNING, "garrison.security"):
            trusted = settings(url, policy=SecurityPolicy(allow_insecure_http_hosts={"Public.test": "a closed lab"}))
        assert [r.event for r in caplog.records] == ["policy.relaxed"]  # type: ignore[attr-defined]  # set by `record`
        assert "a closed lab" in caplog.text
        async with Client(StreamableHttp(trusted), policy=FAST) as client:
            await client.call_tool("x")
        assert len(caplog.records) == 1 and fake.connections == 1


def settings(url: str, *, policy: SecurityPolicy = FAST, **options: Any) -> HttpSettings:
    hosts = policy.allow_insecure_http_hosts
    return HttpSettings(url, limits=Limits(), timeouts=FAST.timeouts, token="secret", insecure_hosts=hosts, **options)


@pytest.mark.attack("ATK-049")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_never_leaves_https(authority: Authority, status: int) -> None:
    believed = TlsClientConfig(ca=authority.pem)
    target = ""

    async def moved(request: Any, writer: asyncio.StreamWriter) -> object:
        if request.target == "/mcp":
            return writer.write(respond(b"", status=f"{status} Moved", extra=f"Location: {target}\r\n"))
        return await modern({"tools/call": lambda r: text("ok")})(request, writer)

    async with (
        http_server(modern({"tools/call": lambda r: text("ok")})) as plain,
        secure(server_side(authority.leaf()), moved) as server,
    ):
        for elsewhere in (f"http://localhost:{plain.port}/mcp", f"//localhost:{plain.port}/mcp", "http:/other"):
            target = elsewhere
            with pytest.raises(e.HttpError, match=str(status)):
                await call(server.url, tls=believed)
        assert plain.connections == 0 and plain.requests == []
        target = "/other"
        if status in (307, 308):
            assert await call(server.url, tls=believed) == "ok"


# HTTP over a Unix socket.


@asynccontextmanager
async def over_unix(path: Path, **options: Any) -> AsyncIterator[FakeHttp]:
    fake = FakeHttp(modern({"tools/call": lambda r: text("ok")}))
    server = await asyncio.start_unix_server(fake.serve, path, **options)
    try:
        yield fake
    finally:
        server.close()


async def test_http_over_a_unix_socket_needs_no_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s"
    async with over_unix(path) as fake:
        reach = settings("http://service.test/mcp", unix_socket=UnixSocketConfig(str(path)))
        async with Client(StreamableHttp(reach), policy=FAST) as client:
            await client.call_tool("x")
            await client.call_tool("x")
        assert fake.connections == 1 and fake.requests[-1].headers["host"] == "service.test"
        assert not [r for r in caplog.records if r.name == "garrison.security"]
        with pytest.raises(e.ConfigurationError, match="unix_socket="):
            settings("https://service.test/mcp", unix_socket=UnixSocketConfig(str(path)), proxy="http://localhost:1")
        with pytest.raises(e.ConnectionFailed):
            settings("http://service.test/mcp")
    nobody = StreamableHttp(settings("http://service.test/mcp", unix_socket=UnixSocketConfig(str(tmp_path / "none"))))
    with pytest.raises(e.ConnectionFailed, match="none: No such file"):
        async with Client(nobody, policy=FAST):
            pass


async def test_tls_over_a_unix_socket_is_verified(authority: Authority, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with over_unix(tmp_path / "s", ssl=server_side(authority.leaf(["service.test"]))) as fake:
        believed = TlsClientConfig(ca=authority.pem)
        with pytest.raises(e.ConnectionFailed, match="is for another host"):
            async with Client(
                StreamableHttp(settings("https://other.test/mcp", unix_socket=UnixSocketConfig(path), tls=believed))
            ):
                pass
        assert fake.requests == []
        reach = settings("https://service.test/mcp", unix_socket=UnixSocketConfig(path), tls=believed)
        async with Client(StreamableHttp(reach), policy=FAST) as client:
            assert (await client.call_tool("x")).content
