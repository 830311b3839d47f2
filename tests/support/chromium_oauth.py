"""A person at the pages of an authorization server: signs in, agrees or says no, in a real Chromium.

Rules of this file:
- Pages are used as people use them: fields are filled, buttons pressed. What a page does not let a person do fails.
- Both pages are known: the two of `oidc-provider` for development, and the one of `DevAuthorizationServer`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from .chromium import Chromium, Page, chromium

__all__ = ["oauth_browser", "sign_in"]

SECONDS = 15.0
"""For all pages together."""

_STEP = """
    if (!document.body || document.readyState !== 'complete') return 'waiting';
    const press = (button) => { if (!button) return 'stuck'; setTimeout(() => button.click()); return 'pressed'; };
    const here = location.href;
    if (here.startsWith(end)) return 'there';
    if (window.pressed === here) return 'waiting';
    window.pressed = here;
    if (deny) {
        const away = document.querySelector('button[name=deny], a[href$="/abort"]');
        if (away) return press(away);
    }
    const login = document.querySelector('input[name=login]');
    if (login) {
        login.value = user;
        document.querySelector('input[name=password]').value = 'any';
        return press(document.querySelector('button[type=submit]'));
    }
    const people = [...document.querySelectorAll('button[name=user]')];
    if (people.length) return press(people.find((button) => button.value === user));
    return press(document.querySelector('button[type=submit]'));
"""


def oauth_browser(profile: Path) -> AbstractContextManager[Chromium]:
    """A browser for `sign_in`.

    Args:
        profile: an empty folder.
    """
    return chromium(profile)


async def sign_in(browser: Chromium, url: str, redirect_uri: str, *, user: str = "alice", deny: bool = False) -> None:
    """Open an authorization URL, and be a person at its pages until the browser is at the redirect URI.

    Args:
        browser: from `oauth_browser` or `chromium`. Each call has a context of its own: nobody is signed in.
        url: the authorization request.
        redirect_uri: where the answer goes. Something has to listen there.
        user: who signs in.
        deny: say no.

    Fails the test if the pages do not lead there.
    """
    page = await browser.open(url)
    end, seen = time.monotonic() + SECONDS, ""
    while time.monotonic() < end:
        seen = await _look(page, "return location.href")
        if seen.startswith(redirect_uri):
            return
        if await _look(page, _STEP, end=redirect_uri, user=user, deny=deny) == "stuck":
            break
        await asyncio.sleep(0.02)
    text = await _look(page, "return document.body ? document.body.innerText : ''")
    pytest.fail(f"the pages do not lead to {redirect_uri}; the last one is {seen}:\n{text[:1000]}")


async def _look(page: Page, script: str, **names: object) -> str:
    """What a script finds; nothing where the page went away under it."""
    try:
        return str(await page.run(script, **names))
    except RuntimeError:
        return ""
