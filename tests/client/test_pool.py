"""The HTTP connections underneath: addresses, TLS, proxies, limits."""

from __future__ import annotations

import asyncio
import datetime
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

import garrison.errors as e
from garrison.client import Client
from garrison.policy import Limits, SecurityPolicy, Timeouts
from garrison.transports.http.pool import Pool
from garrison.transports.http.url import UrlError, parse_endpoint

from .fakes import http_server, listening, modern, text


def test_addresses_are_read_as_the_rfc_says():
    endpoint = parse_endpoint("HTTPS://Example.COM:8443/a%20b?q=1")
    assert (endpoint.scheme, endpoint.host, endpoint.port) == ("https", "example.com", 8443)
    assert endpoint.target == "/a%20b?q=1" and endpoint.authority == "example.com:8443"
    assert parse_endpoint("http://[::1]").authority == "[::1]"
    assert parse_endpoint("https://x:443/").origin == parse_endpoint("https://X").origin == "https://x"
    assert [parse_endpoint(f"http://{h}/").loopback for h in ("localhost", "127.9.9.9", "[::1]")] == [True] * 3
    for host in ("localhost.evil.com", "127.0.0.1.evil.com", "[::2]", "2130706433", "0.0.0.0", "127.1"):
        assert not parse_endpoint(f"http://{host}/").loopback
    base = parse_endpoint("http://localhost:1/a/b?x")
    assert base.join("c").target == "/a/c" and base.join("?y").target == "/a/b?y"
    assert base.join("//other/").origin == "http://other"


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "file:///etc/passwd", "http://", "http://a b/", "http://a/\n", "http://a\\@b/", "http://a:99999/"),
        *("http://a:0/", "http://u@a/", "http://é/", "http://[::1", "http://a/#f", "http://-a/", "http://a..b/"),
    ],
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(UrlError):
        parse_endpoint(url)


@given(st.text())
def test_no_text_breaks_the_address_reader(url: str):
    try:
        endpoint = parse_endpoint("http://" + url)
    except UrlError:
        return
    assert "\r" not in endpoint.authority + endpoint.target and " " not in endpoint.authority + endpoint.target
    assert parse_endpoint(endpoint.origin + endpoint.target) == endpoint


def certificate(folder) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server context with a fresh certificate for localhost, and a client context that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "cert.pem"
    pem.write_bytes(
        cert.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads: list[str]) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    heads.append(head)
    if "Basic dTpw" not in head:
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        return
    host, port = head.split(" ")[1].split(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Go\r\n\r\n")

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


def test_tls_is_verified_and_a_proxy_carries_it(tmp_path):
    server_context, trusting = certificate(tmp_path)
    fast = SecurityPolicy(timeouts=Timeouts(connect=3.0, shutdown=0.5))

    async def main():
        heads: list[str] = []
        async with (
            http_server(modern({"tools/call": lambda r: text("ok")})) as fake,
            listening(fake.serve, ssl=server_context) as port,
            listening(lambda r, w: proxy(r, w, heads)) as between,
        ):
            url = f"https://localhost:{port}/mcp"
            async with Client(url, tls=trusting, policy=fast, token="t") as client:
                await client.call_tool("x")
                await client.call_tool("x")
                assert fake.connections == 1
            for context in (None, ssl.create_default_context()):
                with pytest.raises(e.ConnectionFailed):
                    async with Client(url, policy=fast, tls=context):
                        pass
            with pytest.raises(e.ConnectionFailed):  # the certificate is not for this name
                async with Client(url.replace("localhost", "127.0.0.1"), tls=trusting, policy=fast):
                    pass
            assert len(fake.requests) == 3

            address = f"127.0.0.1:{between}"
            async with Client(url, tls=trusting, policy=fast, token="t", proxy=f"http://u:p@{address}") as client:
                await client.call_tool("x")
            assert heads[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n") and "Bearer" not in heads[0]
            with pytest.raises(e.ConnectionFailed, match="407"):
                async with Client(url, tls=trusting, policy=fast, proxy=f"http://{address}"):
                    pass

    asyncio.run(main())
    for url, through in (("http://localhost/", "http://x:1"), ("https://a/", "ftp://x"), ("https://a/", "https://x")):
        with pytest.raises(e.ConfigurationError):
            Client(url, proxy=through)


def test_waiting_for_a_connection_is_bounded_and_leaves_nothing_behind():
    async def main():
        async with http_server(modern({})) as fake:
            pool = Pool(parse_endpoint(fake.url), limits=Limits(), timeouts=Timeouts(), most=2)
            first, second = await pool.connection(), await pool.connection()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await pool.connection()
            waiting = asyncio.ensure_future(pool.connection())
            await asyncio.sleep(0)
            pool.release(first)
            assert await waiting is first
            waiting = asyncio.ensure_future(pool.connection())
            await asyncio.sleep(0)
            second.abort()
            third = await waiting
            assert third is not second and third.usable
            extra = await pool.connection(extra=True)
            assert extra.usable
            pool.close()
            with pytest.raises(e.ConnectionFailed):
                await pool.connection()

    asyncio.run(main())


def test_a_silent_host_is_given_up():
    async def main():
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(5)

        fast = SecurityPolicy(timeouts=Timeouts(connect=0.3, request=0.6, shutdown=0.2))
        async with listening(silent) as port:
            with pytest.raises(e.ConnectionFailed, match=r"0\.3 s"):
                async with Client(f"https://localhost:{port}/", policy=fast):
                    pass
            with pytest.raises(e.RequestTimeout):
                async with Client(f"http://localhost:{port}/", policy=fast):
                    pass

    asyncio.run(main())
