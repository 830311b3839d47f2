"""A client, a protected server and an authorization server between them, all of which are looked at for secrets; and
what the authorization server may say that repeats what it was told."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import pytest

from garrison import Client, Context, Server
from garrison.auth import (
    CredentialKey,
    MemoryStore,
    OAuth,
    ResourceServer,
    TokenSet,
)
from garrison.auth.store.records import encode_tokens
from garrison.policy.secret import Secret
from garrison.testing import DevAuthorizationServer, DevClient, Reply, Request
from tests.client.oauth import POLICY, Person
from tests.support.ports import free_port

from .canaries import Watch, watching


@dataclass
class Impatient(Person):
    """Signs in, or goes away at once."""

    ends: bool = False

    async def __call__(self, url: str) -> bool:
        return not self.ends and await super().__call__(url)


@dataclass
class Scene:
    """An authorization server, a protected server, and what is looked for at both."""

    authorization: DevAuthorizationServer
    url: str
    watch: Watch
    secret: str
    """Of the client `desktop`."""
    person: Impatient = field(default_factory=lambda: Impatient())
    answer: Callable[[Request, Reply], Reply] | None = None
    """Changes what the authorization server answers."""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def auth(self, **options: Any) -> OAuth:
        given: dict[str, Any] = {"client_id": "desktop", "client_secret": self.secret, "browser": self.person}
        return OAuth(**{**given, "store": MemoryStore(), "timeout": 5, **options})

    def client(self, **options: Any) -> Client:
        return Client(self.url, auth=self.auth(**options), policy=POLICY, era="modern")

    def reply(self, request: Request, reply: Reply) -> Reply:
        self.watch.learn(request, reply)
        return reply if self.answer is None else self.answer(request, reply)


def notes(auth: ResourceServer, watch: Watch) -> Server:
    """A server whose handlers show what they have."""
    server = Server("notes", auth=auth)

    @server.tool(public=True)
    def whoami() -> str:
        return "somebody"

    @server.tool(scopes=["read"])
    async def look(ctx: Context) -> str:
        watch.look_at_objects()
        return f"{ctx!r} {ctx} {ctx.principal!r} {ctx.principal} {ctx.principal.claims!r} {vars(type(ctx))!r}"

    @server.tool(scopes=["write"])
    def fall(ctx: Context) -> str:
        raise RuntimeError(f"{ctx!r} {ctx.principal!r}")

    return server


@asynccontextmanager
async def scene(capfd: pytest.CaptureFixture[str], *verifiers: Any, **options: Any) -> AsyncIterator[Scene]:
    async with watching(capfd) as watch:
        secret, port = watch.plant("client secret", secrets.token_urlsafe(24)), free_port()
        watch.plant_basic("desktop", secret)
        client = DevClient("desktop", redirect_uris=["http://127.0.0.1/callback"], secret=secret)
        url = f"http://127.0.0.1:{port}/mcp"
        given: dict[str, Any] = {"auto_approve": "alice", "clients": [client], "registration": True, **options}
        async with DevAuthorizationServer(**given) as authorization:
            found = Scene(authorization, url, watch, secret)
            authorization.on_reply = found.reply
            auth = ResourceServer(url, *(verifiers or (authorization.issuer,)), scopes_supported=["read"])
            async with notes(auth, watch).http(port=port):
                yield found


def text_of(result: Any) -> str:
    return str(getattr(result.content[0], "text", ""))


ALL = {"access_token", "client secret", "code", "code_verifier", "refresh_token", "state"}


def ended(at: Scene, store: MemoryStore) -> None:
    """Puts a token into a store that has ended, and one that would renew it."""
    watch = at.watch
    tokens = TokenSet(
        access_token=Secret(watch.plant("access_token", secrets.token_urlsafe(40))),
        token_type="Bearer",
        expires_at=0.0,
        refresh_token=Secret(watch.plant("refresh_token", secrets.token_urlsafe(40))),
        scopes=frozenset({"read"}),
    )
    store.save(CredentialKey(at.authorization.issuer, at.url, "desktop"), encode_tokens(tokens))


def echoed(request: Request) -> str:
    """Everything secret in a request, as one text."""
    return " ".join(
        [request.body.decode("latin-1"), request.headers.get("authorization", ""), request.headers.get("dpop", "")]
        + [value for _, value in parse_qsl(request.body.decode("latin-1"))]
    )


def answered(status: int, body: object, media_type: str = "application/json") -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, data, (("Content-Type", media_type),))


def described(request: Request, error: str = "invalid_request") -> Reply:
    form = dict(parse_qsl(request.body.decode("latin-1")))
    basic = request.headers.get("authorization", "").partition(" ")[2]
    secret = unquote_plus(b64decode(basic).decode().partition(":")[2])
    words = "; ".join([secret, basic, *(form[name] for name in sorted((ALL | {"token"}) & form.keys()))])
    return answered(400, {"error": error, "error_description": f"not good: {words}"})


RUBBISH: dict[str, Callable[[Request], Reply]] = {
    "another media type": lambda request: answered(200, echoed(request).encode(), "text/html"),
    "no JSON": lambda request: answered(200, echoed(request).encode()),
    "half a document": lambda request: answered(200, b'{"access_token": "' + echoed(request).encode()),
    "a member twice": lambda request: answered(
        200, b'{"%b": 1, "%b": 2}' % (form_value(request).encode(), form_value(request).encode())
    ),
    "another type": lambda request: answered(200, {"access_token": [echoed(request)], "token_type": "Bearer"}),
    "a token with spaces": lambda request: answered(200, {"access_token": echoed(request), "token_type": "Bearer"}),
    "another kind": lambda request: answered(200, {"access_token": "x" * 40, "token_type": form_value(request)}),
    "a scope that is none": lambda request: answered(
        200, {"access_token": "x" * 40, "token_type": "Bearer", "scope": "\n" + echoed(request)}
    ),
    "a description": described,
    "a description of a refresh that ended": lambda request: described(request, "invalid_grant"),
    "an error of that name": lambda request: answered(400, {"error": form_value(request)[:64]}),
    "an error of the server": lambda request: answered(500, echoed(request).encode(), "text/plain"),
    "a redirect": lambda request: Reply(307, b"", (("Location", f"/elsewhere?{request.body.decode()}"),)),
}

REFUSALS = {name for name in RUBBISH if "description" in name or name.startswith(("an error", "a redirect"))}
"""Those whose status is not 200, with which every answer to a revocation is a yes (RFC 7009 section 2.2)."""


def form_value(request: Request) -> str:
    """The secret that the request is about."""
    form = dict(parse_qsl(request.body.decode("latin-1")))
    return next(form[name] for name in ("code", "refresh_token", "token", "client_name") if name in form)
