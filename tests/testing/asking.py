"""A client of the development authorization server: it asks in the right way, but for what a test changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from garrison.auth import PkceChallenge
from garrison.safe import Fetched, SafeFetch
from garrison.testing import DevAuthorizationServer

__all__ = ["REDIRECT", "RESOURCE", "Asking", "members"]

RESOURCE = "https://mcp.example.com/mcp"
REDIRECT = "http://127.0.0.1:9/callback"


class Asking:
    """Asks a server as the client `app`."""

    def __init__(self, server: DevAuthorizationServer) -> None:
        self.server = server
        self.pkce = PkceChallenge()
        self.fetch = SafeFetch(private_hosts=[urlsplit(server.issuer).netloc], redirects=0)

    async def authorize(self, headers: Mapping[str, str] | None = None, /, **changes: str | None) -> Fetched:
        """What the authorization endpoint answers. A parameter that is None is left out."""
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "app",
            "redirect_uri": REDIRECT,
            "scope": "read",
            "state": "a state",
            "code_challenge": self.pkce.challenge,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
        }
        given.update(changes)
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return await self.fetch.get(f"{self.server.issuer}/authorize?{query}", headers=headers)

    async def code(self, **changes: str | None) -> str:
        """A code."""
        answer = members(await self.authorize(**changes))
        assert "code" in answer, answer
        return answer["code"]

    async def post(
        self, endpoint: str, given: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of what an endpoint answers to a form."""
        got = await self.fetch.post(
            f"{self.server.issuer}/{endpoint}",
            urlencode(given).encode(),
            media_type="application/x-www-form-urlencoded",
            headers=headers,
        )
        return got.status, json.loads(got.body) if got.body else None

    async def token(self, headers: Mapping[str, str] | None = None, /, **given: str) -> tuple[int, Any]:
        """What the token endpoint answers."""
        return await self.post("token", given, headers)

    async def redeem(self, code: str, headers: Mapping[str, str] | None = None, /, **changes: str) -> tuple[int, Any]:
        """What it answers to a code."""
        given = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": "app",
            "redirect_uri": REDIRECT,
            "code_verifier": self.pkce.verifier,
            "resource": RESOURCE,
        }
        return await self.token(headers, **{**given, **changes})

    async def renew(self, refresh_token: str, /, **changes: str) -> tuple[int, Any]:
        """What it answers to a refresh token."""
        given = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": "app"}
        return await self.token(**{**given, "resource": RESOURCE, **changes})

    async def active(self, token: str) -> bool:
        """Whether introspection, asked by the client `watcher`, finds a token good."""
        _, answer = await self.post(
            "introspect", {"token": token, "client_id": "watcher", "client_secret": "watcher-secret"}
        )
        return answer["active"]


def members(answer: Fetched) -> dict[str, str]:
    """What a redirect brings to the client."""
    assert answer.status == 303, (answer.status, answer.body)
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))
