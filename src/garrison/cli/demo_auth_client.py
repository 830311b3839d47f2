"""The demo's sign-in with Garrison's client, from the first refusal to the sign-out; and attacks on that client.

Rules of this file:
- The client is an ordinary `Client(url, auth=OAuth(...))`. Who attacks stands between it and an authorization server
  that is honest, or is a server that lies.
- What came is how the client ended, and what it gave away until then: pages that were opened, codes and tokens sent.

Spec: MCP 2026-07-28 basic/authorization; RFC 9207; RFC 9728; RFC 9700 section 4.4.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qs, urlencode

from ..auth.challenge import WwwAuthenticate
from ..auth.client.settings import AuthSettings, ClientCredentials, OAuth
from ..auth.store import MemoryStore
from ..client import Client
from ..errors import ClientError
from ..protocol import types as t
from ..testing import Reply, Request
from .demo_auth_byhand import ByHand
from .demo_auth_rows import Tried, attack, honest
from .demo_auth_scene import SECRET, Person, Scene, Thief, answer_of, fetched
from .demo_raw import Post, meta, request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["attack_client", "sign_in"]

_FLOW: Final = "sign-in"
_PART: Final = "client"
_EVIL: Final = "https://evil.example"
_INSIDE: Final = "https://169.254.169.254/latest"


async def _said(client: Client, tool: str, arguments: Mapping[str, object] | None = None) -> str:
    """What a tool says."""
    result = await client.call_tool(tool, dict(arguments or {}))
    content = result.content[0]
    return content.text if isinstance(content, t.TextContent) else ""


# The flow


async def sign_in(scene: Scene) -> list[Tried]:
    """Everything once, as it should be."""
    authorization, person = scene.authorization, Person()
    found: dict[str, str] = {}

    async def refused() -> str:
        answer = await scene.peer.post(Post(request("server/discover", {"_meta": meta()}), {
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "server/discover", "Authorization": None,
        }))  # fmt: skip
        challenge = WwwAuthenticate.parse(answer.headers.get("www-authenticate", ""))[0]
        found["metadata"] = challenge.resource_metadata or ""
        return f"{answer.status}, and where to ask"

    async def described() -> str:
        said = json.loads((await fetched(found["metadata"])).body)
        return f"it takes tokens of {said['authorization_servers'][0]}"

    rows = [
        await honest(_FLOW, "ask without a token", "401, and where to ask", refused(), "RFC 9728 section 5"),
        await honest(_FLOW, "read what the server says of itself", f"it takes tokens of {scene.issuer}", described(),
                     "RFC 9728 section 3"),
    ]  # fmt: skip
    auth = scene.auth(person)
    store = cast("MemoryStore", auth.store)

    async def pages(check: str) -> str:
        return f"{check}, {person.pages} page{'s' if person.pages != 1 else ''}"

    async def first(client: Client) -> str:
        said = await _said(client, "me")
        who = client.whoami
        return await pages(f"{said}, {' '.join(sorted((who.scopes if who else None) or ()))}")

    async def bound() -> str:
        from ..auth.store import decode_tokens

        every = store.keys()
        (key,) = [key for key in every if key.kind == "token"]
        return decode_tokens(store.load(key) or b"").token_type

    async def more(client: Client) -> str:
        return await pages(await _said(client, "write", {"text": "x"}))

    async def renewed(client: Client) -> str:
        before = len(authorization.asked("token"))
        await asyncio.sleep(1.1)  # half of the two seconds that the token lives
        said = await _said(client, "me")
        grants = [parse_qs(each.body.decode())["grant_type"][0] for each in authorization.asked("token")[before:]]
        return await pages(f"{said}, by {' '.join(grants)}")

    async def out(client: Client) -> str:
        signed_out = await client.sign_out()
        every = store.keys()
        left = [key for key in every if key.kind == "token"]
        return f"{'revoked' if signed_out else 'not revoked'}, {len(left)} kept"

    async def program() -> str:
        hosts = ClientCredentials("nightly", secret=SECRET, scopes=["notes:read"])
        async with Client(scene.resource, auth=hosts) as client:
            return await _said(client, "me")

    async with Client(scene.resource, auth=auth) as client:
        rows += [
            await honest(_FLOW, "sign in as alice, who agrees on the page", "alice of red, notes:read, 1 page",
                         first(client), "authorization code, PKCE, resource, state, iss"),
            await honest(_FLOW, "the token that came is bound to a key", "DPoP", bound(), "RFC 9449"),
        ]  # fmt: skip
        authorization.settings.token_seconds = 2
        rows.append(
            await honest(_FLOW, "call a tool that needs a further scope", "written, 2 pages", more(client),
                         "step-up: 403 insufficient_scope")
        )  # fmt: skip
        authorization.settings.token_seconds = 300
        rows += [
            await honest(_FLOW, "go on when the token is about to end", "alice of red, by refresh_token, 2 pages",
                         renewed(client), "renewed ahead, without a page"),
            await honest(_FLOW, "sign out", "revoked, 0 kept", out(client), "RFC 7009"),
        ]  # fmt: skip
    rows.append(
        await honest(_FLOW, "a program with a credential of its own", "nightly of red", program(), "ClientCredentials")
    )
    return rows


# The attacks


def _answered(**changes: str | None) -> Callable[[Request, Reply], Reply]:
    """Changes the answer of the authorization endpoint on its way; None takes a parameter out."""

    def change(request: Request, reply: Reply) -> Reply:
        headers = dict(reply.headers)
        if request.endpoint != "consent" or "Location" not in headers:
            return reply
        where, _, _ = headers["Location"].partition("?")
        given = {**answer_of(headers["Location"]), **changes}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return Reply(reply.status, reply.body, (*(_without(reply, "Location")), ("Location", f"{where}?{query}")))

    return change


def _without(reply: Reply, name: str) -> tuple[tuple[str, str], ...]:
    return tuple((each, value) for each, value in reply.headers if each != name)


async def _ended(scene: Scene, url: str = "", auth: OAuth | None = None, *, person: Person | None = None) -> str:
    """How a sign-in ends, and what was given away: pages that were opened, and requests for tokens."""
    person = person or Person()
    before = len(scene.authorization.asked("token"))
    settings: AuthSettings = auth or scene.auth(person)
    try:
        async with Client(url or scene.resource, auth=settings) as client:
            end = await _said(client, "me")
    except ClientError as exc:
        end = type(exc).__name__
    sent = len(scene.authorization.asked("token")) - before
    return f"{end}, {person.pages} page{'s' if person.pages != 1 else ''}, {sent} code{'s' if sent != 1 else ''} sent"


async def attack_client(scene: Scene) -> list[Tried]:
    """Every attack on the client."""
    rows = [*await _answers(scene), *await _documents(scene), *await _leaks(scene)]
    rows.append(
        await honest(_PART, "  then a sign-in that nobody disturbs", "alice of red, 1 page, 1 code sent", _ended(scene))
    )
    return rows


async def _answers(scene: Scene) -> list[Tried]:
    """The answer that comes to the redirect URI."""

    async def changed(timeout: float = 10.0, **changes: str | None) -> str:
        person = Person()
        async with scene.tampered(_answered(**changes)):
            return await _ended(scene, auth=scene.auth(person, timeout=timeout), person=person)

    foreign = (await ByHand(scene, Person("bob")).asked())["code"]
    stopped = "AuthorizationFailed, 1 page, 0 codes sent"
    return [
        await attack(_PART, "mix-up: the answer of another issuer", stopped, changed(iss=_EVIL), "iss (RFC 9207)"),
        await attack(_PART, "mix-up: an answer of no issuer", stopped, changed(iss=None), "iss was announced"),
        await attack(_PART, "an answer that nobody asked for (CSRF)", stopped, changed(0.4, state="guessed"),
                     "state; OAuth(timeout=)"),
        await attack(_PART, "a code of somebody else in the answer", "AuthorizationFailed, 1 page, 1 code sent",
                     changed(code=foreign), "PKCE (RFC 7636)"),
    ]  # fmt: skip


async def _documents(scene: Scene) -> list[Tried]:
    """Metadata that lies."""

    async def said(**changes: object) -> str:
        async with scene.metadata(**changes):
            return await _ended(scene)

    async def impostor() -> str:
        """A server that says it is the protected one, so that tokens for that one are shown to it."""

        def page(request: Request) -> Reply:
            if request.path.startswith("/.well-known/oauth-protected-resource"):
                lie = {"resource": scene.resource, "authorization_servers": [scene.issuer]}
                return Reply(200, json.dumps(lie).encode(), (("Content-Type", "application/json"),))
            where = f"{thief.origin}/.well-known/oauth-protected-resource/mcp"
            return Reply(401, b"", (("WWW-Authenticate", f'Bearer resource_metadata="{where}"'),))

        async with Thief(page) as thief:
            return await _ended(scene, f"{thief.origin}/mcp")

    before = "AuthorizationFailed, 0 pages, 0 codes sent"
    return [
        await attack(_PART, "a server that poses as another one", before, impostor(), "resource is the server's own"),
        await attack(_PART, "metadata of another issuer", before, said(issuer=_EVIL), "issuer compared whole"),
        await attack(_PART, "metadata without PKCE (downgrade)", before, said(code_challenge_methods_supported=None),
                     "PKCE must be announced"),
        await attack(_PART, "a page that is no page (javascript:)", before,
                     said(authorization_endpoint="javascript:alert(1)"), "https, or http on loopback"),
        await attack(_PART, "a page with a command in its address", before,
                     said(authorization_endpoint=f"{scene.issuer}/authorize?a=$(id)"), "addresses that no shell reads"),
    ]  # fmt: skip


async def _leaks(scene: Scene) -> list[Tried]:
    """Answers of the token endpoint that lead elsewhere, or to less."""

    async def redirected() -> str:
        async with Thief() as thief:

            def change(request: Request, reply: Reply) -> Reply:
                return (
                    Reply(307, b"", (("Location", f"{thief.origin}/token"),)) if request.endpoint == "token" else reply
                )

            async with scene.tampered(change):
                end = await _ended(scene)
            return f"{end.partition(',')[0]}, {len(thief.heard)} requests at the thief's"

    async def inside() -> str:
        """The token endpoint at the address where clouds have the credentials of a machine."""
        async with scene.metadata(token_endpoint=_INSIDE):
            return (await _ended(scene)).partition(",")[0]

    async def unbound() -> str:
        def change(request: Request, reply: Reply) -> Reply:
            if request.endpoint != "token" or reply.status != 200:
                return reply
            given = {**json.loads(reply.body), "token_type": "Bearer"}
            return Reply(200, json.dumps(given).encode(), _without(reply, "Content-Length"))

        person = Person()
        async with scene.tampered(change):
            end = await _ended(scene, auth=scene.auth(person, dpop="require"), person=person)
        return end.partition(",")[0]

    return [
        await attack(_PART, "a token endpoint that redirects", "AuthorizationFailed, 0 requests at the thief's",
                     redirected(), "codes follow no redirect"),
        await attack(_PART, "a token endpoint inside the network", "FetchRefused", inside(),
                     "SafeFetch: public addresses; private_hosts="),
        await attack(_PART, "a token that is not bound (downgrade)", "AuthorizationFailed", unbound(),
                     'OAuth(dpop="require")'),
    ]  # fmt: skip
