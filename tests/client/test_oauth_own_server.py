"""`Client(url, auth=...)` with `Server(auth=...)`: both halves of Garrison and an authorization server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison import Client, Server, WebSocketConfig
from garrison.auth.client.settings import ClientCredentials
from garrison.auth.resource.server import ResourceServer
from garrison.errors import AuthorizationFailed
from garrison.safe import SafeFetch
from garrison.server.serve import HttpServing
from garrison.testing import DevAuthorizationServer, DevClient
from tests.support.ports import free_port

from .oauth import CLIENT, POLICY, Person, forms, said, signing_in


@asynccontextmanager
async def house(**options: Any) -> AsyncIterator[tuple[DevAuthorizationServer, str]]:
    """An authorization server and a protected server, whose URL is given."""
    robot = DevClient("robot", secret="the secret of the robot", scopes=["read"])
    async with DevAuthorizationServer(auto_approve="alice", clients=[CLIENT, robot]) as authorization:
        port = free_port()
        url = f"http://127.0.0.1:{port}/mcp"
        fetch = SafeFetch(private_hosts=[authorization.issuer.removeprefix("http://")])
        server = Server("notes", auth=ResourceServer(url, authorization.issuer, fetch=fetch, **options))

        @server.tool(scopes=["read"])
        def x() -> str:
            return "ok"

        @server.tool(scopes=["write"])
        def change() -> str:
            return "changed"

        running = HttpServing(server, "127.0.0.1", port, websocket=WebSocketConfig())
        await running.start()
        try:
            yield authorization, url
        finally:
            await running.close()


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_person_signs_in(scheme: str) -> None:
    person = Person()
    async with house(scopes_supported=["read"]) as (_, url):
        target = url.replace("http", scheme, 1)
        async with Client(target, auth=signing_in(person, dpop="off"), policy=POLICY) as client:
            assert await said(client) == "ok"
            assert client.whoami is not None and client.whoami.resource == url
    assert len(person.pages) == 1


async def test_a_tool_that_needs_more_steps_up() -> None:
    person = Person()
    async with house(scopes_supported=["read"]) as (_, url):
        async with Client(url, auth=signing_in(person), policy=POLICY) as client:
            assert await said(client) == "ok"
            result = await client.call_tool("change")
            assert getattr(result.content[0], "text", "") == "changed"
            assert client.whoami is not None and client.whoami.scopes == {"read", "write"}
    assert len(person.pages) == 2


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_proofs_and_nonces(scheme: str) -> None:
    person = Person()
    async with house(scopes_supported=["read"], dpop="require", dpop_nonce=True) as (authorization, url):
        target = url.replace("http", scheme, 1)
        async with Client(target, auth=signing_in(person), policy=POLICY) as client:
            assert [await said(client) for _ in range(3)] == ["ok"] * 3
        assert "dpop" in authorization.asked("token")[0].headers
    assert len(person.pages) == 1


async def test_a_program_is_told_what_it_may_not() -> None:
    async with house(scopes_supported=["read"]) as (authorization, url):
        auth = ClientCredentials("robot", secret="the secret of the robot")
        async with Client(url, auth=auth, policy=POLICY) as client:
            assert await said(client) == "ok"
            with pytest.raises(AuthorizationFailed) as caught:
                await client.call_tool("change")
            assert caught.value.error == "invalid_scope"
            assert await said(client) == "ok"
        assert [form["scope"] for form in forms(authorization)] == ["read", "read write"]
