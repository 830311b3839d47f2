"""`TlsServerConfig` and `TlsClientConfig`, seen by the other end of a handshake."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from garrison import Client, Context, SecurityPolicy, Server, Timeouts
from garrison.errors import ClientError
from garrison.policy.tls import TlsClientConfig, TlsServerConfig
from tests.client.fakes import http_server, listening, modern, text
from tests.support.certs import Authority, Leaf
from tests.support.mcp import call, post
from tests.support.raw_http import TOKEN, connected, serving

from .case import case
from .limits import said_by
from .scene import folder, outcome

POLICY = SecurityPolicy(timeouts=Timeouts(shutdown=0.2, connect=5, request=5))


def make() -> Server:
    server = Server("tls", policy=POLICY)

    @server.tool(inline=True)
    def who(ctx: Context) -> str:
        return str(ctx.principal)

    return server


def trusting(authority: Authority, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.pem))
    if newest is not None:
        context.maximum_version = newest
    return context


def server_config(leaf: Leaf, **more: Any) -> TlsServerConfig:
    return TlsServerConfig(**{"certificate": leaf.certificate, "key": leaf.key, **more})


async def met(port: int, context: ssl.SSLContext) -> int | str:
    """The serial number of the certificate with which a call was answered; or how the handshake failed."""
    try:
        async with connected(port, ssl=context) as wire:
            await wire.send(post(port, call("who")))
            assert (await wire.response()).status == 200
            found = wire.writer.get_extra_info("ssl_object").getpeercert()
            wire.close()
            await wire.writer.wait_closed()
            return int(found["serialNumber"], 16)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return "refused"


# The server's


@case(TlsServerConfig, "certificate", first=("one", ["one"]), changed=("other", ["other"]))
async def certificate(value: str) -> object:
    with folder() as place:
        authority = Authority(place)
        leaves = {"one": authority.leaf(), "other": authority.leaf()}
        async with serving(make(), tls=server_config(leaves[value])) as running:
            found = await met(running.port, trusting(authority))
        return [name for name, leaf in leaves.items() if serial(leaf) == found]


def serial(leaf: Leaf) -> int:
    from cryptography.x509 import load_pem_x509_certificate

    return load_pem_x509_certificate(leaf.certificate.read_bytes()).serial_number


@case(TlsServerConfig, "key", first=("its own", "served"), changed=("another", "ConfigurationError"))
async def key(value: str) -> object:
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        chosen = leaf.key if value == "its own" else authority.leaf().key

        async def served() -> str:
            async with serving(make(), tls=server_config(leaf, key=chosen)) as running:
                assert await met(running.port, trusting(authority)) == serial(leaf)
                return "served"

        return await outcome(served())


@case(TlsServerConfig, "client_ca", default="served", changed=("given", "refused"))
async def client_ca(value: object) -> object:
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        async with serving(make(), tls=server_config(leaf, client_ca=authority.pem if value else None)) as running:
            return "served" if await met(running.port, trusting(authority)) == serial(leaf) else "refused"


@case(TlsServerConfig, "minimum", default="served", changed=("1.3", "refused"))
async def server_minimum(value: Any) -> object:
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        async with serving(make(), tls=server_config(leaf, minimum=value)) as running:
            found = await met(running.port, trusting(authority, ssl.TLSVersion.TLSv1_2))
            return "served" if found == serial(leaf) else found


@case(TlsServerConfig, "reload", default="old", changed=(0.01, "new"))
async def reload(value: float) -> object:
    with folder() as place:
        authority = Authority(place)
        leaf, new = authority.leaf(), authority.leaf()
        old = serial(leaf)
        async with serving(make(), tls=server_config(leaf, reload=value)) as running:
            await asyncio.sleep(0.6)  # the first look after the start is over
            leaf.replace(new)
            await asyncio.sleep(0.6)
            found = await met(running.port, trusting(authority))
            return {old: "old", serial(new): "new"}[found]  # type: ignore[index]


# The client's


async def principal(url: str, tls: TlsClientConfig | None) -> str:
    """As whom a client is known there."""
    async with Client(url, token=TOKEN, tls=tls, policy=POLICY) as client:
        return said_by(await client.call_tool("who"))


@case(TlsClientConfig, "ca", default="ConnectionFailed", changed=("given", "token"))
async def ca(value: object) -> object:
    with folder() as place:
        authority = Authority(place)
        async with serving(make(), tls=server_config(authority.leaf())) as running:
            return await outcome(principal(running.url, TlsClientConfig(ca=authority.pem if value else None)))


@asynccontextmanager
async def mutual() -> AsyncIterator[tuple[str, Authority]]:
    """A server that asks for certificates: its URL, and who issues them."""
    with folder() as place:
        authority = Authority(place)
        async with serving(make(), tls=server_config(authority.leaf(), client_ca=authority.pem), token=None) as running:
            yield running.url, authority


@case(TlsClientConfig, "certificate", default="refused", changed=("alice", "certificate:alice.example"))
async def client_certificate(value: str | None) -> object:
    async with mutual() as (url, authority):
        mine = None if value is None else authority.leaf((f"{value}.example",), client=True)
        files: dict[str, Path] = {} if mine is None else {"certificate": mine.certificate, "key": mine.key}
        try:
            return await principal(url, TlsClientConfig(ca=authority.pem, **files))  # type: ignore[arg-type]
        except ClientError:  # TLS 1.3 says so only after the handshake, so that several errors can come of it
            return "refused"


@case(
    TlsClientConfig,
    "key",
    first=("its own", "certificate:alice.example"),
    changed=("another", "ConfigurationError"),
)
async def client_key(value: str) -> object:
    async with mutual() as (url, authority):
        alice, other = (authority.leaf((name,), client=True) for name in ("alice.example", "bob.example"))
        key = alice.key if value == "its own" else other.key
        tls = TlsClientConfig(ca=authority.pem, certificate=alice.certificate, key=key)
        return await outcome(principal(url, tls))


@case(TlsClientConfig, "pins", default="token", changed=("another's", "ConnectionFailed"))
async def pins(value: object) -> object:
    with folder() as place:
        authority = Authority(place)
        async with serving(make(), tls=server_config(authority.leaf())) as running:
            pinned = (authority.leaf().pin,) if value else ()
            return await outcome(principal(running.url, TlsClientConfig(ca=authority.pem, pins=pinned)))


@case(TlsClientConfig, "minimum", default="ok", changed=("1.3", "ConnectionFailed"))
async def client_minimum(value: Any) -> object:
    """Against a server that knows nothing newer than 1.2."""
    with folder() as place:
        authority = Authority(place)
        leaf = authority.leaf()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.certificate, leaf.key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with (
            http_server(modern({"tools/call": lambda request: text("ok")})) as fake,
            listening(fake.serve, ssl=context) as port,
        ):

            async def called() -> str:
                tls = TlsClientConfig(ca=authority.pem, minimum=value)
                async with Client(f"https://localhost:{port}/mcp", tls=tls, policy=POLICY) as client:
                    return said_by(await client.call_tool("x"))

            return await outcome(called())
