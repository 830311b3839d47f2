"""An authorization server on paper: its keys, its tokens, and a web that has its documents."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Literal
from urllib.parse import parse_qs

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from garrison.auth.resource import JwtVerifier, Verified
from garrison.safe import Fetched, SafeFetch

ISSUER = "https://auth.example.com"
RESOURCE = "https://mcp.example.com/mcp"
JWKS_URI = f"{ISSUER}/keys"
ENDPOINT = f"{ISSUER}/introspect"
NOW = 1_800_000_000.0
JSON = {"content-type": "application/json; charset=utf-8"}
Key = ECKey | RSAKey | OKPKey


@cache
def key(kind: Literal["EC", "RSA", "OKP"], kid: str = "1", crv: Any = None) -> Key:
    """A private key. The same arguments give the same one."""
    made: dict[str, Callable[[], Key]] = {
        "EC": lambda: ECKey.generate_key(crv or "P-256", {"kid": kid}),
        "RSA": lambda: RSAKey.generate_key(2048, {"kid": kid}),
        "OKP": lambda: OKPKey.generate_key(crv or "Ed25519", {"kid": kid}),
    }
    return made[kind]()


def jwk(private: Key, **changed: Any) -> dict[str, Any]:
    """The public half, with these members changed; one that is None is left out."""
    members = {**private.as_dict(private=False), **changed}
    return {name: value for name, value in members.items() if value is not None}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def encoded(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims, with these changed; one that is None is left out."""
    good = {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "alice",
        "client_id": "app",
        "scope": "notes:read notes:write",
        "iat": NOW - 10,
        "exp": NOW + 300,
        "jti": "t1",
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(header: object, payload: object, private: Any, algorithm: str) -> str:
    """A JWS of any header and payload."""
    text = f"{encoded(header)}.{encoded(payload)}"
    return f"{text}.{encoded(JWSRegistry.algorithms[algorithm].sign(text.encode(), private))}"


def token(private: Key | None = None, algorithm: str = "ES256", *, header: Any = None, **changed: Any) -> str:
    """A good token, with these claims and members of its header changed."""
    head = {"alg": algorithm, "kid": "1", "typ": "at+jwt", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return signed(head, claims(**changed), private or key("EC"), algorithm)


Answer = Fetched | Exception | Callable[[], Fetched]


def page(body: bytes | object, status: int = 200, headers: Mapping[str, str] = JSON) -> Fetched:
    return Fetched("", status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


class Web(SafeFetch):
    """A fetcher of pages that are here, by URL. What is not is a 404."""

    def __init__(self, pages: Mapping[str, Answer] | None = None) -> None:
        super().__init__()
        self.pages = dict(pages or {})
        self.asked: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.redirects: list[int | None] = []
        self.pause = 0.0

    async def _answer(self, url: str) -> Fetched:
        self.asked.append(url)
        await asyncio.sleep(self.pause)
        found = self.pages.get(url, page(b"", 404))
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Fetched) else found()

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        same_origin: bool = False,
        redirects: int | None = None,
    ) -> Fetched:
        self.redirects.append(redirects)
        return await self._answer(url)

    async def post(
        self, url: str, body: bytes, *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> Fetched:
        assert media_type == "application/x-www-form-urlencoded"
        self.forms.append(parse_qs(body.decode()))
        self.headers.append(dict(headers or {}))
        return await self._answer(url)


def web(*keys: Mapping[str, Any]) -> Web:
    """A web with the keys of the issuer."""
    return Web({JWKS_URI: page(jwks(*(keys or (jwk(key("EC")),))))})


def verifier(fetch: Web | None = None, **changed: Any) -> JwtVerifier:
    """A verifier of the issuer, for the resource."""
    settings: dict[str, Any] = {"jwks_uri": JWKS_URI, "fetch": fetch or web(), **changed}
    return JwtVerifier(settings.pop("issuer", ISSUER), settings.pop("audience", RESOURCE), **settings)


async def verified(checking: Any, text: str, now: float = NOW) -> Verified:
    """What a verifier says, at once or later."""
    answer = checking.verify(text, now)
    return answer if isinstance(answer, Verified) else await answer


@asynccontextmanager
async def listening(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """A real server on loopback. Gives its port.

    Args:
        answer: from a whole request to the bytes of its answer.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        writer.write(answer(head + body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(body: bytes | object, status: str = "200 OK", kind: str = "application/json") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
