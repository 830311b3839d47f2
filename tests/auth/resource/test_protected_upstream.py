"""A server that calls other servers for its callers: their tokens stay with it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs

import pytest

from garrison import Client, Context, SecurityPolicy, Server, Timeouts
from garrison.auth import AuthorizationServerMetadata
from garrison.auth.client.authentication import ClientSecret
from garrison.auth.client.endpoint import TokenEndpoint
from garrison.auth.client.grants import TokenExchange
from garrison.policy.secret import Secret
from garrison.safe import Fetched
from tests.auth.resource.issuer import verifier
from tests.client.fakes import http_server
from tests.client.fakes import modern as answering
from tests.client.fakes import text as said
from tests.support.mcp import until
from tests.support.protected import FACES, ISSUER, Asked, bearer, facing, protection, speaking, use
from tests.support.raw_http import serving

EVERY = (*FACES, "session")
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
TOKENS = f"{ISSUER}/token"


class Exchanges(Asked):
    """A token endpoint that exchanges tokens: what it gives says for what it was asked."""

    def __init__(self, **answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.asked_for: list[dict[str, str]] = []

    async def post(self, url: str, body: bytes, *, media_type: str, headers: Any = None) -> Fetched:
        assert url == TOKENS
        form = {name: value for name, (value,) in parse_qs(body.decode()).items()}
        self.asked_for.append(form)
        await self.may_answer.wait()
        given = {
            "access_token": f"upstream-{len(self.asked_for)}",
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 300,
            **self.answer,
        }
        status = 400 if "error" in given else 200
        return Fetched(url, status, {"content-type": "application/json"}, json.dumps(given).encode())


def exchanging(fetch: Exchanges) -> TokenExchange:
    server = AuthorizationServerMetadata(issuer=ISSUER, token_endpoint=TOKENS)
    return TokenExchange(TokenEndpoint(fetch, server, ClientSecret("mcp", "a-secret-of-this-server")))


def gateway(fetch: Exchanges | None, upstream: str = "", **options: Any) -> Server:
    """A server whose tools call another."""
    auth = protection(exchange=None if fetch is None else exchanging(fetch), **options)
    server = Server("gateway", auth=auth, policy=SecurityPolicy(timeouts=Timeouts(shutdown=0.2)))

    @server.tool(public=True)
    async def bare() -> str:
        async with Client(upstream) as client:
            await client.call_tool("x")
        return "called"

    @server.tool(public=True)
    async def exchanged(ctx: Context) -> str:
        token = await ctx.upstream_token("https://upstream.example.com/mcp", scopes=["files:read"])
        async with Client(upstream, token=token.reveal()) as client:
            await client.call_tool("x")
        return "called"

    @server.tool(public=True)
    async def held(ctx: Context, resource: str = "https://upstream.example.com/mcp") -> str:
        return (await ctx.upstream_token(resource)).reveal()

    return server


@pytest.mark.attack("ATK-180")
@pytest.mark.parametrize("face", EVERY)
async def test_a_server_behind_sees_no_token_of_a_caller(face: str) -> None:
    fetch = Exchanges()
    async with http_server(answering({"tools/call": lambda request: said("ok")})) as canary:
        async with facing(face, gateway(fetch, canary.url)) as port:
            mine = bearer()
            async with speaking(face, port, mine) as line:
                for tool in ("bare", "exchanged"):
                    assert (await line.use(tool))["content"][0]["text"] == "called", tool
        assert canary.requests
        fields = [each.headers.get("authorization") for each in canary.requests]
        assert set(fields) == {None, "Bearer upstream-1"}
        for each in canary.requests:
            everything = repr(each.headers) + each.target + repr(each.body)
            assert not any(part in everything for part in mine.removeprefix("Bearer ").split("."))
        (asked,) = fetch.asked_for
        assert asked["subject_token"] == mine.removeprefix("Bearer ")
        assert asked["resource"] == "https://upstream.example.com/mcp"
        assert asked["scope"] == "files:read"


@pytest.mark.attack("ATK-180")
async def test_what_was_exchanged_is_for_one_caller_and_one_server() -> None:
    fetch = Exchanges()
    async with serving(gateway(fetch), token=None) as running:

        async def got(authorization: str, **arguments: str) -> str:
            answer = await use(running.port, "held", arguments, as_=authorization)
            return answer.json["result"]["content"][0]["text"]

        alice, bob = bearer(), bearer(subject="bob")
        first = await got(alice)
        assert first == "upstream-1" == await got(alice)
        assert await got(bob) == "upstream-2"
        assert await got(alice, resource="https://third.example.com/mcp") == "upstream-3"
        assert (await got(alice), await got(bob)) == ("upstream-1", "upstream-2")
        assert await got(bearer(jti="another")) == "upstream-4"


async def test_many_calls_wait_for_one_exchange() -> None:
    fetch = Exchanges()
    fetch.may_answer.clear()
    async with serving(gateway(fetch), token=None) as running:
        mine = bearer()
        calls = [asyncio.ensure_future(use(running.port, "held", as_=mine)) for _ in range(10)]
        await until(lambda: fetch.asked_for)
        await asyncio.sleep(0.1)
        fetch.may_answer.set()
        found = {each.json["result"]["content"][0]["text"] for each in await asyncio.gather(*calls)}
        assert (found, len(fetch.asked_for)) == ({"upstream-1"}, 1)


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "invalid_grant", "error_description": "the token of alice"},
        {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"access_token": ""},
        {"access_token": "THE SAME"},
    ],
)
async def test_an_exchange_that_fails_tells_the_caller_nothing(answer: dict[str, Any]) -> None:
    mine = bearer()
    if answer.get("access_token") == "THE SAME":
        answer = {"access_token": mine.removeprefix("Bearer ")}
    async with serving(gateway(Exchanges(**answer)), token=None) as running:
        found = await use(running.port, "held", as_=mine)
        result = found.json.get("result", {"isError": "error" in found.json})
        assert result["isError"]
        assert mine.removeprefix("Bearer ").encode() not in found.body
        assert b"the token of alice" not in found.body
        assert (await use(running.port, "held", as_=None)).status == 401


async def test_without_an_exchange_there_is_nothing_to_hand_on() -> None:
    async with serving(gateway(None), token=None) as running:
        answer = (await use(running.port, "held", as_=bearer())).json
        assert answer.get("result", {"isError": True})["isError"]


@pytest.mark.attack("ATK-180")
async def test_when_the_caller_s_token_has_ended_nothing_is_exchanged() -> None:
    fetch = Exchanges()
    ends = time.time() + 0.6
    server = gateway(fetch, verifiers=[verifier(leeway=0)])

    @server.tool(public=True)
    async def late(ctx: Context) -> str:
        await asyncio.sleep(ends - time.time() + 0.1)
        token: Secret = await ctx.upstream_token("https://upstream.example.com/mcp")
        return token.reveal()

    async with serving(server, token=None) as running:
        answer = (await use(running.port, "late", as_=bearer(exp=ends))).json
        assert answer.get("result", {"isError": True})["isError"]
        assert not fetch.asked_for
        assert (await use(running.port, "held", as_=bearer())).json["result"]["content"][0]["text"] == "upstream-1"
