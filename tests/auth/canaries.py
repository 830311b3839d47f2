"""Secrets of a test that are looked for wherever they must not be.

    async with watching(capfd) as watch:
        watch.plant("client secret", secret)
        ...                                   # a flow; what an authorization server gives is planted by `learn`
        watch.look_at_objects()
    assert watch.seen() == {}

Rules of this file:
- A secret is looked for by the beginning and the end of it, as it is and as it is encoded on its way: what a log cuts
  short is found too.
- What is looked at: every log record of every logger at the lowest level, with asyncio's own of each step of the loop;
  what a test raises; `repr`, `str`, `format` and the pickle of every living object of Garrison.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import pytest

from garrison.auth.store import CredentialStore
from garrison.testing import Reply, Request

_PIECE = 14
"""Characters at either end of a secret that nothing else has."""
_SIGNED = frozenset({"access_token", "assertion", "client_assertion", "id_token", "subject_token", "token"})
_SECRETS = _SIGNED | {"client_secret", "code", "code_verifier", "refresh_token", "state"}
"""Members of requests and answers; those that may be JWTs apart."""


class Watch:
    """What is looked for, and what was seen."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, str] = {}
        self._places: dict[str, set[bytes]] = {}

    # What is looked for.

    def plant(self, name: str, text: str) -> str:
        """Look for a secret from now on, and in what was seen before. Gives it."""
        assert len(text) >= 2 * _PIECE, f"{name} is too short to be looked for"
        raw = text.encode()
        forms = [text, quote(text, safe=""), quote_plus(text), base64.b64encode(raw).decode().rstrip("=")]
        forms += [base64.urlsafe_b64encode(raw).decode().rstrip("="), raw.hex()]
        for form in forms:
            self._pieces[form[:_PIECE].encode()] = name
            self._pieces[form[-_PIECE:].encode()] = name
        return text

    def plant_token(self, name: str, text: str) -> None:
        """The same for what may be a JWT: two of them begin alike, and only what proves them is secret."""
        self.plant(name, text.rpartition(".")[2])

    def plant_basic(self, client_id: str, secret: str) -> None:
        """The same for a secret as it stands in `Authorization: Basic`."""
        both = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
        self._pieces[base64.b64encode(both)[-_PIECE:]] = "client secret"

    def plant_store(self, store: CredentialStore) -> None:
        """The same for everything that a store has."""
        for name in store.keys():  # noqa: SIM118 - a store is no mapping
            kept = json.loads(store.load(name) or b"null")
            if name.kind == "token":
                self._plant_members(kept)
            elif name.kind == "key":
                self.plant("DPoP key", kept["d"])

    def learn(self, request: Request, reply: Reply) -> Reply:
        """`on_reply` of a `DevAuthorizationServer`: all that comes and goes there."""
        self._plant_members(dict(parse_qsl(request.query)))
        self._plant_members(dict(parse_qsl(request.body.decode("latin-1"))))
        for name, value in reply.headers:
            if name.lower() == "location":
                self._plant_members(dict(parse_qsl(urlsplit(value).query)))
        with suppress(ValueError):
            body = json.loads(reply.body)
            self._plant_members(body if isinstance(body, dict) else {})
        return reply

    def _plant_members(self, members: dict[str, object]) -> None:
        for name in _SECRETS & members.keys():
            value = members[name]
            if isinstance(value, str) and len(value) >= 2 * _PIECE:
                (self.plant_token if name in _SIGNED else self.plant)(name, value)

    # What is looked at.

    def look(self, place: str, data: str | bytes) -> None:
        """Something that was shown to somebody, or kept somewhere."""
        self._places.setdefault(place, set()).add(data.encode("utf-8", "replace") if isinstance(data, str) else data)

    def raised(self, error: BaseException) -> None:
        """What a user of Garrison would see of an error, and of those that it came from."""
        self.look("exception", "".join(traceback.format_exception(error)))
        self.look("exception", f"{error!r} {error} {error.args!r} {getattr(error, '__dict__', {})!r}")

    def look_at_objects(self, *, pickles: bool = False) -> None:
        """Everything of Garrison that came to life since and still lives, but what belongs to servers for tests."""
        for found in living():
            name = type(found).__qualname__
            for show in (repr, str, "{}".format):
                self.look(f"{show.__name__} of {name}", show(found))
            if pickles:
                with suppress(Exception):
                    self.look(f"pickle of {name}", pickle.dumps(found))
        with suppress(RuntimeError):
            self.look("tasks", repr(asyncio.all_tasks()))

    def look_into(self, folder: Path) -> int:
        """Every file below a folder; gives how many there are."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            self.look(f"file {path.name}", path.read_bytes())
            self.look("name of a file", str(path))
        return len(files)

    def seen(self) -> dict[str, set[str]]:
        """Which secrets were seen, and where."""
        found = {place: self._named_in(b"\0".join(every)) for place, every in self._places.items()}
        return {place: names for place, names in found.items() if names}

    def _named_in(self, data: bytes) -> set[str]:
        return {name for piece, name in self._pieces.items() if piece in data}

    @property
    def names(self) -> set[str]:
        """What is looked for."""
        return set(self._pieces.values())

    @property
    def places(self) -> set[str]:
        """Where was looked."""
        return set(self._places)


def living() -> Iterator[object]:
    """The objects of Garrison, but of its servers for tests, for these are told; and but what is frozen."""
    for found in gc.get_objects():
        module: object = type(found).__module__
        if isinstance(module, str) and module.startswith("garrison.") and not module.startswith("garrison.testing."):
            yield found


class _Everything(logging.Handler):
    """Hears every record, and all that a formatter could write of it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(1)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        place = f"log {record.name}"
        self._watch.look(place, self.format(record))
        self._watch.look(place, repr({**vars(record), "exc_info": None}))


@asynccontextmanager
async def watching(capfd: pytest.CaptureFixture[str]) -> AsyncIterator[Watch]:
    """Looks at all logs, at what is printed, and at each step of this event loop."""
    watch, loop, root = Watch(), asyncio.get_running_loop(), logging.getLogger()
    handler, level, patience = _Everything(watch), root.level, loop.slow_callback_duration
    names = [name for name in ("asyncio", *logging.root.manager.loggerDict) if name.startswith(("asyncio", "garrison"))]
    levels = {name: logging.getLogger(name).level for name in names}
    root.addHandler(handler)
    root.setLevel(1)
    for name in names:
        logging.getLogger(name).setLevel(1)
    gc.collect()
    gc.freeze()  # what was there before has none of these secrets; there may be a great deal of it
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        yield watch
    finally:
        gc.unfreeze()
        loop.set_debug(False)
        loop.slow_callback_duration = patience
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        root.setLevel(level)
        root.removeHandler(handler)
        printed = capfd.readouterr()
        watch.look("standard output", printed.out)
        watch.look("standard error", printed.err)
