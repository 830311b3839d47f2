"""The pages that people see: the consent page, and the page of an error that must not be sent on.

Rules of this file:
- Every text of a client is escaped, freed of what turns or hides text, and cut.
- No script, no image, nothing from elsewhere; no page may frame it. The form may lead to this server and to the one
  place where the answer goes.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import urlsplit

from .http import Reply
from .people import DevClient, User
from .redirects import is_local, origin_of

__all__ = ["consent_page", "error_page"]

_NAME: Final = 60
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#222}"
    "code{overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0 0 .6rem}"
    "button{font:inherit;padding:.4rem .9rem;margin:.2rem .3rem .2rem 0}"
    ".warning{border-left:4px solid #c60;padding-left:.8rem}"
)


def shown(text: str, most: int = _NAME) -> str:
    """A text of a peer as HTML: one line, without control and format characters, cut."""
    kept = "".join(" " if each.isspace() else each for each in text if unicodedata.category(each)[0] != "C")
    return escape(kept if len(kept) <= most else kept[: most - 1] + "…")


def consent_page(
    *,
    action: str,
    hidden: Iterable[tuple[str, str]],
    client: DevClient,
    redirect_uri: str,
    resource: str,
    scopes: Iterable[str],
    users: Iterable[User],
    headers: tuple[tuple[str, str], ...],
) -> Reply:
    """Who asks for what, and who agrees.

    Args:
        action: where the form goes.
        hidden: its hidden fields.
        client, redirect_uri, resource, scopes: what is asked for.
        users: who may agree, by being picked.
        headers: further fields of the answer.
    """
    name = shown(client.name or client.client_id)
    host = shown(urlsplit(client.client_id).netloc) if client.from_document else ""
    known_by = f"<dt>Known by the document of</dt><dd><code>{host}</code></dd>" if host else ""
    warning = (
        '<p class="warning">The answer goes to a program on this computer. Any program here can use that name: go on '
        "only if you have just started it.</p>"
        if is_local(redirect_uri)
        else ""
    )
    fields = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in hidden)
    words = ", ".join(f"<code>{shown(scope, 200)}</code>" for scope in scopes) or "nothing in particular"
    people = "".join(
        f'<button name="user" value="{escape(user.name)}">Continue as {shown(user.name)}</button>' for user in users
    )
    body = (
        f"<h1>{name}</h1><p>asks for access. This is a development server: pick who you are.</p>{warning}<dl>{known_by}"
        f"<dt>To the server</dt><dd><code>{shown(resource, 2048)}</code></dd>"
        f"<dt>Scopes</dt><dd>{words}</dd>"
        f"<dt>The answer goes to</dt><dd><code>{shown(redirect_uri, 2048)}</code></dd></dl>"
        f'<form method="post" action="{escape(action)}">{fields}{people}'
        '<button name="deny" value="1">Deny</button></form>'
    )
    return _page(200, f"{name} asks for access", body, f"'self' {origin_of(redirect_uri)}", headers)


def error_page(text: str, status: int = 400) -> Reply:
    """What is wrong with a request whose sender is not known: told to the person, and sent nowhere."""
    body = f"<h1>This request cannot be answered</h1><p>{shown(text, 400)}</p>"
    return _page(status, "Error", body, "'none'", ())


def _page(status: int, title: str, body: str, forms: str, headers: tuple[tuple[str, str], ...]) -> Reply:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="icon" href="data:,">'
        f'<style nonce="{nonce}">{_STYLE}</style></head><body>{body}</body></html>'
    )
    fields = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
        *headers,
    )
    return Reply(status, page.encode("utf-8"), fields)
