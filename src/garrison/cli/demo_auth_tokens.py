"""The attacks of the demo on a protected server: tokens that are stolen, foreign, ended, altered, or not enough.

Rules of this file:
- What is sent stands here, byte for byte; what came is an HTTP status and the error of the challenge or of JSON-RPC.
- Wrong tokens are signed by the right authorization server, so that the one thing that is wrong decides.

Spec: MCP 2026-07-28 basic/authorization; RFC 6750; RFC 8725; RFC 9068; RFC 9449 section 7.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from ..auth.challenge import WwwAuthenticate
from ..auth.dpop import DpopKey
from .demo_auth_byhand import ByHand
from .demo_auth_rows import Tried, attack, honest
from .demo_auth_scene import Person, Scene
from .demo_raw import Answer, Post, meta, outcome, request

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["attack_tokens", "flood"]

_Issue = Callable[..., str]
"""`DevAuthorizationServer.issue`, whose arguments are any claims."""
_PART: Final = "protected server"
_TOOL: Final[Mapping[str, str | None]] = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
}


def _call(tool: str, arguments: Mapping[str, object], authorization: str | None, **more: str) -> Post:
    body = request("tools/call", {"name": tool, "arguments": arguments, "_meta": meta()})
    return Post(body, {**_TOOL, "Mcp-Name": tool, "Authorization": authorization, **more})


def said(answer: Answer) -> str:
    """A status, and the error of the challenge or of JSON-RPC."""
    given = answer.headers.get("www-authenticate")
    if given is None:
        return str(answer)
    challenge = WwwAuthenticate.parse(given)[0]
    return f"{answer.status} {challenge.error or 'a challenge'}"


async def attack_tokens(scene: Scene) -> list[Tried]:
    """Every attack on the protected server."""
    return [
        *await _stolen(scene),
        *await _made_up(scene),
        *await _shown_wrongly(scene),
        *await _not_enough(scene),
        *await _of_others(scene),
        *await _taken_back(scene),
    ]


async def _stolen(scene: Scene) -> list[Tried]:
    """A token that is bound to a key of its owner."""
    key, thief = DpopKey.generate(), DpopKey.generate()
    token = (await ByHand(scene, Person(), key).tokens()).get("access_token", "")
    url, peer = scene.resource, scene.peer

    def proof(by: DpopKey = key, *, method: str = "POST", at: str = url, of: str = token, age: float = 0.0) -> str:
        return by.proof(method, at, access_token=of, now=time.time() - age)

    async def shown(scheme: str, **more: str) -> str:
        return said(await peer.post(_call("me", {}, f"{scheme} {token}", **more)))

    used = proof()
    rule = "DPoP (RFC 9449 section 7)"
    return [
        await attack(_PART, "a stolen token as a bearer token", "401 invalid_token", shown("Bearer"),
                     "tokens are bound to a key (cnf.jkt)"),
        await attack(_PART, "a stolen token without a proof", "401 invalid_dpop_proof", shown("DPoP"), rule),
        await attack(_PART, "a stolen token with the thief's own key", "401 invalid_dpop_proof",
                     shown("DPoP", DPoP=proof(thief)), "tokens are bound to a key (cnf.jkt)"),
        await honest(_PART, "  then the token with its owner's proof", "200 result", shown("DPoP", DPoP=used)),
        await attack(_PART, "the same proof, once more", "401 invalid_dpop_proof", shown("DPoP", DPoP=used),
                     "proofs are used once (jti)"),
        await attack(_PART, "a proof for another address", "401 invalid_dpop_proof",
                     shown("DPoP", DPoP=proof(at="https://other.example/mcp")), "htu is the resource's"),
        await attack(_PART, "a proof for another method", "401 invalid_dpop_proof",
                     shown("DPoP", DPoP=proof(method="GET")), "htm is the request's"),
        await attack(_PART, "a proof of an hour ago", "401 invalid_dpop_proof", shown("DPoP", DPoP=proof(age=3600)),
                     "proofs are new (iat)"),
        await attack(_PART, "a proof for another token", "401 invalid_dpop_proof",
                     shown("DPoP", DPoP=proof(of="another")), "ath is the token's hash"),
    ]  # fmt: skip


async def _made_up(scene: Scene) -> list[Tried]:
    """Tokens that are wrong in one thing. The right one is signed here as well."""
    from joserfc.jwk import ECKey

    authorization, here, peer = scene.authorization, scene.resource, scene.peer
    own = ECKey.generate_key("P-256")
    (public,) = cast("list[dict[str, str]]", authorization.jwks["keys"])

    async def shown(token: str) -> str:
        return said(await peer.post(_call("me", {}, f"Bearer {token}")))

    def token(audience: object = here, **changes: object) -> str:
        issue = cast("_Issue", authorization.issue)
        return issue("alice", ["notes:read"], audience, **changes)

    header, _, rest = token().partition(".")
    signature = rest.partition(".")[2]
    other = token(scope="admin").split(".")[1]
    wrong: tuple[tuple[str, str, str], ...] = (
        ("a token for another server", token("https://other.example/mcp"), "JwtVerifier(audience)"),
        ("a token for no server in particular", token(None), "JwtVerifier(audience)"),
        ("a token of another issuer", token(iss="https://evil.example"), "JwtVerifier(issuer)"),
        ("a token that has ended", token(lifetime=-120), "exp; JwtVerifier(leeway=)"),
        ("a token that never ends", token(exp=None), "exp; JwtVerifier(max_age=)"),
        ("a token of tomorrow", token(nbf=int(time.time()) + 86_400), "nbf; JwtVerifier(leeway=)"),
        ("no signature (alg none)", token(header={"alg": "none"}), "JwtVerifier(algorithms=)"),
        ("the public key as a secret (HS256)",
         token(header={"alg": "HS256"}, key=json.dumps(public, sort_keys=True).encode()), "JwtVerifier(algorithms=)"),
        ("a key of the sender's own", token(key=own), "keys come from jwks_uri"),
        ("the same, with the key in the header",
         token(header={"jwk": own.as_dict(private=False)}, key=own), "a header brings no key"),
        ("an ID token", token(typ="JWT"), "JwtVerifier(require_typ=)"),
        ("further scopes under an old signature", f"{header}.{other}.{signature}", "the signature"),
    )  # fmt: skip
    rows = [await attack(_PART, what, "401 invalid_token", shown(text), rule) for what, text, rule in wrong]
    rows.append(await honest(_PART, "  then a token with nothing wrong", "200 result", shown(token())))
    return rows


async def _shown_wrongly(scene: Scene) -> list[Tried]:
    """A right token in the wrong place."""
    token, peer = scene.authorization.issue("alice", ["notes:read"], scene.resource), scene.peer

    async def posted(post: Post, target: str = "") -> str:
        if not target:
            return said(await peer.post(post))
        lines = {"Host": f"127.0.0.1:{peer.port}", "Content-Type": "application/json", **post.headers}
        lines |= {"Accept": "application/json, text/event-stream", "Connection": "close"}
        lines["Content-Length"] = str(len(post.body))
        head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items() if value is not None)]
        return said(await peer.send("\r\n".join([*head, "", ""]).encode() + post.body))

    path = f"{scene.serving.path}?access_token={token}"
    rule = "tokens stand in Authorization alone"
    return [
        await attack(_PART, "no token", "401 a challenge", posted(_call("me", {}, None)), "Server(auth=)"),
        await attack(_PART, "a token in the query", "401 a challenge", posted(_call("me", {}, None), path), rule),
        await attack(_PART, "a token in the query and in the header", "400 invalid_request",
                     posted(_call("me", {}, f"Bearer {token}"), path), rule),
        await attack(_PART, "a token by another scheme", "401 a challenge",
                     posted(_call("me", {}, f"Basic {token}")), "Bearer and DPoP alone"),
        await honest(_PART, "  then the same token in its place", "200 result",
                     posted(_call("me", {}, f"Bearer {token}"))),
    ]  # fmt: skip


async def _not_enough(scene: Scene) -> list[Tried]:
    """A right token that does not allow it."""
    peer = scene.peer
    token = f"Bearer {scene.authorization.issue('alice', ['notes:read'], scene.resource)}"
    may = f"Bearer {scene.authorization.issue('alice', ['notes:read', 'notes:write'], scene.resource)}"

    async def called(tool: str, arguments: Mapping[str, object], by: str = token) -> str:
        answer = await peer.post(_call(tool, arguments, by))
        given = answer.headers.get("www-authenticate")
        scopes = "" if given is None else f": {' '.join(WwwAuthenticate.parse(given)[0].scope)}"
        return said(answer) + scopes

    async def like_nothing(tool: str, by: str = token) -> str:
        """Whether a tool is answered as one that does not exist."""
        texts: list[str] = []
        for name in (tool, "there-is-no-such-tool"):
            answer = await peer.post(_call(name, {}, by))
            texts.append(f"{answer.status} {json.dumps(answer.message, sort_keys=True).replace(name, 'NAME')}")
        return "as if it did not exist" if texts[0] == texts[1] else "told apart"

    async def listed() -> str:
        body = request("tools/list", {"_meta": meta()})
        answer = await peer.post(Post(body, {**_TOOL, "Mcp-Method": "tools/list", "Authorization": token}))
        result = cast("dict[str, list[dict[str, object]]]", answer.message.get("result") or {})
        return ", ".join(sorted(str(tool["name"]) for tool in result.get("tools", [])))

    return [
        await attack(_PART, "a tool that needs a further scope", "403 insufficient_scope: notes:write",
                     called("write", {"text": "x"}), "@server.tool(scopes=)"),
        await honest(_PART, "  then with that scope", "200 result", called("write", {"text": "x"}, may)),
        await attack(_PART, "a hidden tool", "as if it did not exist", like_nothing("purge"),
                     '@server.tool(without_scopes="hide")'),
        await attack(_PART, "a tool that declares no rule", "as if it did not exist", like_nothing("forgotten", may),
                     "what declares nothing is for nobody"),
        await honest(_PART, "  then what is listed", "me, read, write", listed()),
    ]  # fmt: skip


async def _of_others(scene: Scene) -> list[Tried]:
    """What belongs to somebody else."""
    peer, issue = scene.peer, scene.authorization.issue
    alice = f"Bearer {issue('alice', ['notes:read'], scene.resource)}"
    bob = f"Bearer {issue('bob', ['notes:read'], scene.resource)}"
    old: dict[str, str | None] = {"MCP-Protocol-Version": "2025-11-25"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "demo", "version": "1"}}
    opened = await peer.post(Post(request("initialize", hello), {"Authorization": alice}))
    session = opened.headers.get("mcp-session-id", "")

    async def in_session(by: str) -> str:
        headers = {**old, "Mcp-Session-Id": session, "Authorization": by}
        return said(await peer.post(Post(request("tools/list", {}), headers)))

    async def read(by: str) -> str:
        uri = "note://alice/1"
        headers = {**_TOOL, "Mcp-Method": "resources/read", "Mcp-Name": uri, "Authorization": by}
        return said(await peer.post(Post(request("resources/read", {"uri": uri, "_meta": meta()}), headers)))

    return [
        await attack(_PART, "the session of somebody of another tenant", "404 -32600", in_session(bob),
                     "sessions belong to issuer, subject and tenant"),
        await honest(_PART, "  then the session's own person", "200 result", in_session(alice)),
        await attack(_PART, "the note of somebody else", "200 -32602", read(bob), "@server.resource(authorize=)"),
        await honest(_PART, "  then the note's owner", "200 result", read(alice)),
    ]  # fmt: skip


async def _taken_back(scene: Scene) -> list[Tried]:
    """A token that was revoked, while the server has found it good before."""
    peer = scene.peer
    token = cast("_Issue", scene.authorization.issue)("alice", ["notes:read"], scene.resource, jti="taken-back")

    async def shown() -> str:
        return said(await peer.post(_call("me", {}, f"Bearer {token}")))

    rows = [await honest(_PART, "a token that is good still", "200 result", shown())]
    scene.revoked.add("taken-back")
    await asyncio.sleep(scene.protection.recheck + 0.1)
    rows.append(
        await attack(_PART, "the same a second after it was revoked", "401 invalid_token", shown(),
                     "ResourceServer(revoked=, recheck=1)")
    )  # fmt: skip
    return rows


async def flood(scene: Scene) -> list[Tried]:
    """Wrong tokens without end. What follows from the same address is not looked at for a minute."""
    peer = scene.peer
    token = scene.authorization.issue("alice", ["notes:read"], scene.resource)

    async def shown(text: str) -> str:
        answer = await peer.post(_call("me", {}, f"Bearer {text}"))
        return f"{answer.status} {outcome(answer.message)}"

    async def guessed() -> str:
        found = ""
        for number in range(scene.protection.failures_per_minute + 1):
            found = await shown(f"guess-{number}")
            if found.startswith("429"):
                break
        return found

    return [
        await honest(_PART, "a token that is good", "200 result", shown(token)),
        await attack(_PART, "guessing tokens without end", "429 -32600", guessed(),
                     f"ResourceServer(failures_per_minute={scene.protection.failures_per_minute})"),
        await honest(_PART, "  then the token that was good before", "200 result", shown(token)),
    ]  # fmt: skip
