"""TLS on the live listener: who is let in, what is refused to start, and certificates that change while it serves."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from garrison import Context, SecurityPolicy, Server, Timeouts
from garrison.errors import ConfigurationError, InsecureConfigurationError
from garrison.policy.tls import TlsServerConfig
from garrison.transports import tls
from garrison.transports.tls import Rotation, certificate_name, peer_certificate, server_context
from tests.support.certs import Authority, Leaf, write
from tests.support.mcp import call, post
from tests.support.raw_http import TOKEN, Wire, request, standard
from tests.support.roomy import ROOMY_RATES

REFUSED = (ssl.SSLError, ConnectionError)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config(leaf: Leaf, **changes: Any) -> TlsServerConfig:
    return TlsServerConfig(**{"certificate": leaf.certificate, "key": leaf.key, **changes})


def whoami(**timeouts: float) -> Server:
    policy = SecurityPolicy(timeouts=Timeouts(**{"shutdown": 0.2, **timeouts}), rates=ROOMY_RATES)
    server = Server("tls", policy=policy)

    @server.tool(inline=True)
    def who(ctx: Context) -> str:
        return str(ctx.principal)

    return server


def believing(authority: Authority, leaf: Leaf | None = None, *, version: ssl.TLSVersion | None = None):
    """A client's context, made without the code under test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.pem)
    if leaf is not None:
        context.load_cert_chain(leaf.certificate, leaf.key)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Visit:
    """One connection and one call on it."""

    def __init__(self, principal: str, ssl_object: ssl.SSLObject) -> None:
        self.principal = principal
        self.session = ssl_object.session
        self.reused = ssl_object.session_reused
        self.version = ssl_object.version()
        self.cipher = ssl_object.cipher()
        self.alpn = ssl_object.selected_alpn_protocol()
        shown = ssl_object.getpeercert()
        self.serial = str(shown["serialNumber"]) if shown else ""


async def visit(port: int, context: ssl.SSLContext, token: str | None = TOKEN) -> Visit:
    """Connects, calls `who`, leaves. Raises what TLS raises."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        writer.write(post(port, call("who"), token))
        response = await Wire(reader, writer).response()
        assert response.status == 200, response
        answer = response.json["result"]["structuredContent"]["result"]
        return Visit(answer, writer.get_extra_info("ssl_object"))
    except asyncio.IncompleteReadError as exc:
        raise ConnectionResetError from exc
    finally:
        writer.close()
        with suppress(*REFUSED):
            await writer.wait_closed()


# Versions, ciphers, protocols.


@pytest.mark.attack("ATK-048")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
async def test_versions_before_1_2_are_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf())) as running:
        with pytest.raises(REFUSED):
            await visit(running.port, believing(authority, version=version))
        for newer in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert (await visit(running.port, believing(authority, version=newer))).principal == "token"


def client_hello(version: int) -> bytes:
    """A ClientHello of TLS 1.0 to 1.2 that any server of that time understands."""
    ciphers = bytes.fromhex("c02bc02fc009c013c00ac014002f0035")
    groups = bytes.fromhex("000a00060004001d0017") + bytes.fromhex("000b00020100")
    signatures = bytes.fromhex("000d000a000804030401050106010201"[:28])
    extensions = groups + (signatures if version >= 0x0303 else b"")
    body = version.to_bytes(2) + bytes(32) + b"\0" + len(ciphers).to_bytes(2) + ciphers + b"\x01\x00"
    body += len(extensions).to_bytes(2) + extensions
    handshake = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(handshake).to_bytes(2) + handshake


@pytest.mark.attack("ATK-048")
@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302, 0x0303])
async def test_an_old_hello_is_not_answered(authority: Authority, version: int) -> None:
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf())) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(client_hello(version))
        if version >= 0x0303:
            record = await reader.readexactly(6)
            assert record[0] == 22 and record[5] == 2  # a handshake record, ServerHello
        else:
            answer = await reader.read()
            assert answer == b"" or (answer[0] == 21 and answer[5:] == bytes([2, 70]))  # alert: protocol_version
        writer.close()


async def test_1_3_only_on_request(authority: Authority) -> None:
    old, new = (believing(authority, version=v) for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3))
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf(), minimum="1.3")) as running:
        with pytest.raises(REFUSED):
            await visit(running.port, old)
        assert (await visit(running.port, new)).version == "TLSv1.3"
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf())) as running:
        assert (await visit(running.port, old)).version == "TLSv1.2"


@pytest.mark.attack("ATK-048")
async def test_1_2_has_ephemeral_keys_and_aead_only_in_the_servers_order(authority: Authority) -> None:
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf())) as running:
        for weak in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"):
            context = believing(authority, version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(weak)
            with pytest.raises(REFUSED):
                await visit(running.port, context)
        context = believing(authority, version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
        chosen = (await visit(running.port, context)).cipher
        assert chosen is not None and chosen[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    options = server_context(config(authority.leaf())).options
    assert options & ssl.OP_NO_RENEGOTIATION and options & ssl.OP_NO_COMPRESSION


async def test_the_protocol_is_agreed_where_the_client_asks(authority: Authority) -> None:
    async with whoami().http(port=0, token=TOKEN, tls=config(authority.leaf())) as running:
        for offered, agreed in (([], None), (["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
            context = believing(authority)
            if offered:
                context.set_alpn_protocols(offered)
            assert (await visit(running.port, context)).alpn == agreed


# Files.


@pytest.mark.attack("ATK-050")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o601])
async def test_a_key_that_others_can_reach_is_refused(authority: Authority, mode: int) -> None:
    leaf = authority.leaf()
    leaf.key.chmod(mode)
    with pytest.raises(InsecureConfigurationError, match=rf"TlsServerConfig\.key: .* has mode {mode:04o}"):
        async with whoami().http(port=0, token=TOKEN, tls=config(leaf)):
            pass
    for private in (0o600, 0o400):
        leaf.key.chmod(private)
        async with whoami().http(port=0, token=TOKEN, tls=config(leaf)) as running:
            assert (await visit(running.port, believing(authority))).principal == "token"


@pytest.mark.attack("ATK-050")
def test_a_key_is_a_file_of_its_own_user(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.leaf()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(InsecureConfigurationError, match="not a regular file"):
            server_context(config(leaf, key=path))
    link = tmp_path / "link"
    link.symlink_to(leaf.key)
    server_context(config(leaf, key=link))
    if os.geteuid() == 0:
        os.chown(leaf.key, 65534, -1)
        with pytest.raises(InsecureConfigurationError, match="belongs to another user"):
            server_context(config(leaf))


@pytest.mark.attack("ATK-050")
def test_what_is_loaded_is_what_was_checked(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, other = authority.leaf(), authority.leaf()
    check = tls._check_dates

    def exchange_the_key(*arguments: Any) -> None:
        check(*arguments)
        leaf.key.rename(leaf.key.with_suffix(".old"))
        write(leaf.key, other.key.read_bytes())
        leaf.key.chmod(0o644)

    monkeypatch.setattr(tls, "_check_dates", exchange_the_key)
    server_context(config(leaf))  # the key that fits was opened; the name leads to another one by now
    monkeypatch.undo()
    with pytest.raises(InsecureConfigurationError):
        server_context(config(leaf))


@pytest.mark.parametrize(
    ("setting", "make", "complaint"),
    [
        ("certificate", lambda a: a.pem.with_name("none"), "No such file"),
        ("certificate", lambda a: a.leaf().key, "no certificate in PEM"),
        ("certificate", lambda a: a.leaf(days=(-2, -0.1)).certificate, "expired on"),
        ("certificate", lambda a: a.leaf(days=(1, 2)).certificate, "not yet"),
        ("key", lambda a: a.pem.with_name("none"), "No such file"),
        ("key", lambda a: a.leaf().certificate, "no private key in PEM"),
        ("key", lambda a: a.leaf().key, "is not the key of"),
        ("key", lambda a: a.leaf(password=b"secret").key, "encrypted"),
        ("client_ca", lambda a: a.pem.with_name("none"), "No such file"),
        ("client_ca", lambda a: a.leaf().key, "no certificates in PEM"),
    ],
)
def test_what_cannot_be_used_is_named(authority: Authority, setting: str, make: Any, complaint: str) -> None:
    leaf = authority.leaf()
    server_context(config(leaf, client_ca=authority.pem))
    with pytest.raises(ConfigurationError, match=rf"^TlsServerConfig\.{setting}: .*{complaint}"):
        server_context(config(leaf, **{setting: make(authority)}))


def test_roots_that_anybody_can_change_are_refused(authority: Authority) -> None:
    leaf = authority.leaf()
    authority.pem.chmod(0o644)
    server_context(config(leaf, client_ca=authority.pem))
    authority.pem.chmod(0o646)
    with pytest.raises(InsecureConfigurationError, match="anybody can change it"):
        server_context(config(leaf, client_ca=authority.pem))


# Mutual TLS.


async def test_mutual_tls_lets_in_whom_it_names(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Stranger")
    settings = config(authority.leaf(), client_ca=authority.pem)
    async with whoami().http(port=0, token=TOKEN, tls=settings) as running:
        known = authority.leaf(["spiffe://example.org/agent", "agent.example.org"], client=True)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for bad in (
                None,
                stranger.leaf(["agent"], client=True),
                authority.leaf(["agent"], client=True, days=(-2, -0.1)),
                authority.leaf(["agent"]),  # for servers
                authority.leaf(["agent"], client=True, self_signed=True),
            ):
                with pytest.raises(REFUSED):
                    await visit(running.port, believing(authority, bad, version=version))
            seen = await visit(running.port, believing(authority, known, version=version))
            assert seen.principal.endswith("spiffe://example.org/agent")


async def test_a_certificate_is_only_there_when_it_was_verified(authority: Authority) -> None:
    seen: list[object] = []
    known = authority.leaf(["agent"], client=True)

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(peer_certificate(writer.transport))
        writer.close()

    for client_ca in (None, authority.pem):
        context = server_context(config(authority.leaf(), client_ca=client_ca))
        async with await asyncio.start_server(look, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=believing(authority, known), server_hostname="localhost"
            )
            await reader.read()
            writer.close()
            await writer.wait_closed()
    unasked, asked = seen
    assert unasked is None
    assert isinstance(asked, dict) and certificate_name(asked) == "agent"


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subjectAltName": (("DNS", "d"), ("email", "e@x"), ("URI", "u://1"), ("URI", "u://2"))}, "u://1"),
        ({"subjectAltName": (("email", "e@x"), ("DNS", "d"))}, "d"),
        ({"subjectAltName": (("IP Address", "::1"), ("email", "e@x"))}, "e@x"),
        ({"subject": ((("organizationName", "o"),), (("commonName", "c"),))}, "c"),
        # A common name beside other names was perhaps never looked at by whoever issued it.
        ({"subject": ((("commonName", "c"),),), "subjectAltName": (("IP Address", "::1"),)}, None),
        ({"subject": ((("commonName", "a\nb"),),)}, None),
        ({"subject": ((("commonName", ""),),)}, None),
        ({}, None),
    ],
)
def test_the_name_in_a_certificate(certificate: dict[str, object], name: str | None) -> None:
    assert certificate_name(certificate) == name


# Rotation.


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(getattr(record, "event", "")) for record in caplog.records if record.name == "garrison.security"]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "garrison.security"):
        yield caplog


def loops() -> list[Any]:
    try:
        import uvloop
    except ImportError:
        return [asyncio.new_event_loop]
    return [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("loop", loops(), ids=lambda factory: factory.__module__.partition(".")[0])
def test_certificates_change_under_load_and_no_request_fails(authority: Authority, loop: Any) -> None:
    leaf = authority.leaf()
    settings = config(leaf, reload=0.01)
    context = believing(authority)

    async def main() -> None:
        done = False
        serials: list[str] = []
        async with whoami().http(port=0, token=TOKEN, tls=settings) as running:

            async def load() -> None:
                while not done:
                    serials.append((await visit(running.port, context)).serial)

            workers = [asyncio.create_task(load()) for _ in range(4)]
            for _ in range(2):
                await asyncio.sleep(0.2)
                leaf.replace(authority.leaf())
                before = len(set(serials))
                async with asyncio.timeout(5):
                    while len(set(serials)) == before:
                        await asyncio.sleep(0.05)
            done = True
            await asyncio.gather(*workers)
        assert len(set(serials)) >= 3 and len(serials) > 20

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_half_written_pair_is_not_used(authority: Authority, told: pytest.LogCaptureFixture) -> None:
    leaf, new = authority.leaf(), authority.leaf()
    rotation = Rotation(config(leaf))
    first = rotation.context
    for bad in (new.certificate.read_bytes(), b"", new.certificate.read_bytes()[:100], b"\0" * 4096):
        write(leaf.certificate, bad)
        rotation.look()
        rotation.look()
        assert rotation.context is first
    assert events(told) == ["tls.failed"] * 2  # once for each complaint, however often it is looked at
    write(leaf.certificate, new.certificate.read_bytes())
    write(leaf.key, new.key.read_bytes())
    rotation.look()
    second = rotation.context
    assert second is not first
    assert events(told)[2:] == ["tls.reloaded"]
    rotation.look()
    assert rotation.context is second and len(told.records) == 3
    leaf.replace(authority.leaf(days=(-2, -0.1)))
    rotation.look()
    leaf.certificate.unlink()
    rotation.look()
    assert rotation.context is second
    assert events(told)[3:] == ["tls.failed"] * 2
    assert all("stays in use" in record.getMessage() for record in told.records if "failed" in record.getMessage())


def test_a_key_with_a_bad_mode_is_taken_once_the_mode_is_mended(
    authority: Authority, told: pytest.LogCaptureFixture
) -> None:
    leaf = authority.leaf()
    rotation = Rotation(config(leaf))
    first = rotation.context
    leaf.replace(authority.leaf())
    leaf.key.chmod(0o644)
    rotation.look()
    assert rotation.context is first and events(told) == ["tls.failed"]
    leaf.key.chmod(0o600)
    rotation.look()
    assert rotation.context is not first and events(told) == ["tls.failed", "tls.reloaded"]
    second = rotation.context
    leaf.key.chmod(0o640)  # while it is in use
    rotation.look()
    assert rotation.context is second and events(told)[2:] == ["tls.failed"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_new_roots_count_at_once_for_whoever_connects(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    roots, other = tmp_path / "roots.pem", Authority(tmp_path, "Other")
    write(roots, authority.pem.read_bytes())
    settings = config(authority.leaf(), client_ca=roots, reload=0.01)
    old = believing(authority, authority.leaf(["old"], client=True), version=version)
    new = believing(authority, other.leaf(["new"], client=True), version=version)
    async with whoami().http(port=0, token=TOKEN, tls=settings) as running:
        first = await visit(running.port, old)
        assert first.principal.endswith("old")
        assert first.session is None or not first.session.has_ticket
        with pytest.raises(REFUSED):
            await visit(running.port, new)
        write(roots, other.pem.read_bytes())
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0.1)
                try:
                    assert (await visit(running.port, new)).principal.endswith("new")
                    break
                except REFUSED:
                    continue
        with pytest.raises(REFUSED):
            await visit(running.port, old)


def test_a_session_is_not_taken_up_with_other_roots(authority: Authority, tmp_path: Path) -> None:
    """A resumed session is not asked for its certificate again, so it must not outlive the roots that believed it."""
    roots, other = tmp_path / "roots.pem", Authority(tmp_path, "Other")
    write(roots, authority.pem.read_bytes())
    rotation = Rotation(config(authority.leaf(), client_ca=roots))
    old = believing(authority, authority.leaf(["old"], client=True), version=ssl.TLSVersion.TLSv1_2)
    first = shake_hands(rotation.context, old)
    assert first.session is not None
    assert shake_hands(rotation.context, old, first.session).session_reused
    write(roots, other.pem.read_bytes())
    rotation.look()
    with pytest.raises(ssl.SSLError):
        shake_hands(rotation.context, old, first.session)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """A handshake in memory, with a proper goodbye, after which a session may be taken up again."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    for step in ("do_handshake", "unwrap"):
        ends = [theirs, ours]
        while ends:
            end = ends.pop(0)
            try:
                getattr(end, step)()
            except ssl.SSLWantReadError:
                ends.append(end)
    return theirs


async def test_open_connections_outlive_their_certificate(authority: Authority) -> None:
    leaf = authority.leaf()
    async with whoami().http(port=0, token=TOKEN, tls=config(leaf, reload=0.01)) as running:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=believing(authority), server_hostname="localhost"
        )
        wire = Wire(reader, writer)
        before = (await visit(running.port, believing(authority))).serial
        leaf.replace(authority.leaf())
        async with asyncio.timeout(5):
            while (await visit(running.port, believing(authority))).serial == before:
                await asyncio.sleep(0.1)
        await wire.send(request(b"", standard(running.port), method="GET"))
        assert (await wire.response()).status in (405, 400)
        writer.close()
        await writer.wait_closed()
