"""A client of the demo that asks the authorization server by hand, and the attacks on what it is given.

Rules of this file:
- An attack differs from the honest request in one thing, which its name says.
- What came is an HTTP status and the error code that stands in the answer.

Spec: OAuth 2.1; RFC 7636; RFC 8707; RFC 9449 section 5; RFC 9700 sections 2 and 4.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlencode

from ..auth.dpop import DpopKey
from ..auth.pkce import PkceChallenge
from .demo_auth_rows import Tried, attack, honest
from .demo_auth_scene import CLIENT, Got, Person, Scene, answer_of, fetched

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ByHand", "attack_grants"]

_REDIRECT: Final = "http://127.0.0.1:9/callback"
_PART: Final = "authorization server"


class ByHand:
    """A registered public client.

    Args:
        scene: the servers.
        person: who signs in.
        key: what its tokens are bound to; None for a plain bearer token.
    """

    def __init__(self, scene: Scene, person: Person, key: DpopKey | None = None) -> None:
        self.scene = scene
        self.person = person
        self.key = key
        self.pkce = PkceChallenge()

    def page(self, **changes: str | None) -> str:
        """The address of the authorization request. A change of None leaves a parameter out."""
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": _REDIRECT,
            "state": "state-of-the-demo",
            "code_challenge": self.pkce.challenge,
            "code_challenge_method": "S256",
            "resource": self.scene.resource,
            "scope": "notes:read",
            **changes,
        }
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return f"{self.scene.issuer}/authorize?{query}"

    async def asked(self, **changes: str | None) -> dict[str, str]:
        """The answer to an authorization request."""
        return answer_of(await self.person.agree(self.page(**changes)))

    async def redeem(self, code: str, **changes: str | None) -> Got:
        """Show a code at the token endpoint."""
        given: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "client_id": CLIENT,
            "code": code,
            "redirect_uri": _REDIRECT,
            "code_verifier": self.pkce.verifier,
            "resource": self.scene.resource,
            **changes,
        }
        return await self._token(given, self.key)

    async def renew(self, refresh_token: str, key: DpopKey | None, **changes: str | None) -> Got:
        """Show a refresh token, with a proof of this key."""
        given: dict[str, str | None] = {
            "grant_type": "refresh_token",
            "client_id": CLIENT,
            "refresh_token": refresh_token,
            "resource": self.scene.resource,
            **changes,
        }
        return await self._token(given, key)

    async def tokens(self, **changes: str | None) -> dict[str, str]:
        """Sign in and get tokens."""
        return members(await self.redeem((await self.asked(**changes))["code"]))

    async def _token(self, form: Mapping[str, str | None], key: DpopKey | None) -> Got:
        url = f"{self.scene.issuer}/token"
        headers = {} if key is None else {"DPoP": key.proof("POST", url, now=time.time())}
        return await fetched(url, {name: value for name, value in form.items() if value is not None}, headers)


def members(got: Got) -> dict[str, str]:
    """The members of a JSON answer that are texts."""
    try:
        found: object = json.loads(got.body)
    except ValueError:
        return {}
    every = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    return {name: value for name, value in every.items() if isinstance(value, str)}


def _said(got: Got) -> str:
    """An answer of the token endpoint in short."""
    found = members(got)
    return f"{got.status} {found.get('error') or ('tokens' if 'access_token' in found else 'nothing')}"


async def attack_grants(scene: Scene) -> list[Tried]:
    """Attack what a client is given before it has a token."""
    return [*await _authorization(scene), *await _codes(scene), *await _refreshing(scene)]


async def _authorization(scene: Scene) -> list[Tried]:
    """The authorization request."""

    async def asked(**changes: str | None) -> str:
        found = await ByHand(scene, Person()).asked(**changes)
        return found.get("error") or ("a code" if "code" in found else "nothing")

    async def shown(**changes: str | None) -> str:
        got = await fetched(ByHand(scene, Person()).page(**changes))
        return f"{got.status}, {'sent on' if 'location' in got.headers else 'sent nowhere'}"

    async def forged() -> str:
        """The form of the consent page, sent by a browser that was not shown it."""
        address = await Person().agree(ByHand(scene, Person()).page(), cookie=False)
        return "a code" if "code=" in address else "no code"

    plain = PkceChallenge().verifier
    return [
        await attack(_PART, "PKCE by the method plain", "invalid_request",
                     asked(code_challenge=plain, code_challenge_method="plain"), "PKCE: S256 alone (OAuth 2.1)"),
        await attack(_PART, "no PKCE", "invalid_request",
                     asked(code_challenge=None, code_challenge_method=None), "PKCE: S256 alone (OAuth 2.1)"),
        await attack(_PART, "no resource named", "invalid_target", asked(resource=None), "resource (RFC 8707)"),
        await attack(_PART, "tokens by the implicit grant", "unsupported_response_type",
                     asked(response_type="token"), "response_type=code alone"),
        await attack(_PART, "the answer to a foreign address", "400, sent nowhere",
                     shown(redirect_uri="https://evil.example/callback"), "redirect_uri compared whole"),
        await attack(_PART, "the consent of another browser (CSRF)", "no code", forged(), "cookie and token of a page"),
        await honest(_PART, "  then the honest request", "a code", asked()),
    ]  # fmt: skip


async def _codes(scene: Scene) -> list[Tried]:
    """Codes that were caught on the way."""

    async def caught(**changes: str | None) -> str:
        hand = ByHand(scene, Person(), DpopKey.generate())
        return _said(await hand.redeem((await hand.asked())["code"], **changes))

    hand = ByHand(scene, Person(), DpopKey.generate())
    code = (await hand.asked())["code"]
    first = await hand.redeem(code)
    given = members(first)

    async def again() -> str:
        return _said(await hand.redeem(code))

    async def renewed() -> str:
        return _said(await hand.renew(given.get("refresh_token", ""), hand.key))

    async def once() -> str:
        return _said(first)

    return [
        await attack(_PART, "a caught code, without its verifier", "400 invalid_grant",
                     caught(code_verifier=PkceChallenge().verifier), "PKCE (RFC 7636)"),
        await attack(_PART, "a caught code, at another redirect URI", "400 invalid_grant",
                     caught(redirect_uri="http://127.0.0.1:10/callback"), "redirect_uri compared whole"),
        await attack(_PART, "a caught code, by another client", "400 invalid_grant",
                     caught(client_id="other-program"), "codes belong to their client"),
        await attack(_PART, "a code for another resource", "400 invalid_target",
                     caught(resource="https://other.example/mcp"), "resource (RFC 8707)"),
        await honest(_PART, "  then a code, for the first time", "200 tokens", once()),
        await attack(_PART, "a code, for the second time", "400 invalid_grant", again(), "codes are used once"),
        await attack(_PART, "what came of a code that was used twice", "400 invalid_grant", renewed(),
                     "a code used twice ends its tokens"),
    ]  # fmt: skip


async def _refreshing(scene: Scene) -> list[Tried]:
    """Refresh tokens that were stolen."""
    hand = ByHand(scene, Person(), DpopKey.generate())
    old = (await hand.tokens()).get("refresh_token", "")
    key, thief = hand.key, DpopKey.generate()

    async def renewed(token: str, proven: DpopKey | None, **changes: str | None) -> str:
        return _said(await hand.renew(token, proven, **changes))

    rows = [
        await attack(_PART, "a stolen refresh token, without its key", "400 invalid_dpop_proof", renewed(old, None),
                     "DPoP (RFC 9449 section 5)"),
        await attack(_PART, "a stolen refresh token, with the thief's key", "400 invalid_dpop_proof",
                     renewed(old, thief), "DPoP (RFC 9449 section 5)"),
        await attack(_PART, "a refresh token, for more scopes", "400 invalid_scope",
                     renewed(old, key, scope="notes:read admin"), "scopes never grow by a renewal"),
    ]  # fmt: skip
    got = await hand.renew(old, key)
    new = members(got).get("refresh_token", "")

    async def once() -> str:
        return _said(got)

    rows += [
        await honest(_PART, "  then the refresh token, by its owner", "200 tokens", once()),
        await attack(_PART, "the old refresh token, once more", "400 invalid_grant", renewed(old, key),
                     "refresh tokens rotate"),
        await attack(_PART, "the new one, after the old one came again", "400 invalid_grant", renewed(new, key),
                     "a refresh token used twice ends its family"),
    ]  # fmt: skip
    return rows
