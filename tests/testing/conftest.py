"""A development authorization server with one user and a few clients."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from garrison.testing import DevAuthorizationServer, DevClient, User

from .asking import REDIRECT


class Serving(Protocol):
    def __call__(self, **options: Any) -> AbstractAsyncContextManager[DevAuthorizationServer]: ...


@pytest.fixture
def serving() -> Serving:
    """Makes servers; alice agrees to everything at once, unless an option says otherwise."""

    def make(**options: Any) -> AbstractAsyncContextManager[DevAuthorizationServer]:
        clients = [
            DevClient("app", redirect_uris=[REDIRECT], name="An app"),
            DevClient("other", redirect_uris=[REDIRECT]),
            DevClient("watcher", secret="watcher-secret"),
            *options.pop("clients", ()),
        ]
        users = [User("alice", tenant="acme", scopes=["read", "write", "offline_access"]), User("bob", scopes=["read"])]
        return DevAuthorizationServer(**{"users": users, "clients": clients, "auto_approve": "alice", **options})

    return make
