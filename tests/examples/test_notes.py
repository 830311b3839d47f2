"""The notes of two organizations, and the vulnerable twin, attacked by one script with real tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from garrison import Client
from garrison.audit import verify
from garrison.auth import MemoryStore, OAuth
from garrison.testing import DevAuthorizationServer, User
from tests.cli.signing_in import consented, delivered
from tests.support.ports import free_port
from tests.support.protected import use

from .running import BOTH, CANARY, accept, file_of, said, served

pytestmark = pytest.mark.app
RESOURCE = "http://127.0.0.1:8000/mcp"
PEOPLE = (User("alice", tenant="red"), User("ann", tenant="red"), User("bob", tenant="blue"))


class Place:
    """A server of notes, and whoever gives tokens for it."""

    def __init__(self, url: str, authorization: DevAuthorizationServer) -> None:
        self.url = url
        self.authorization = authorization

    def token(self, name: str, scope: str = "notes:write", audience: str = RESOURCE, **claims: Any) -> str:
        return self.authorization.issue(name, [scope], audience, **claims)

    def client(self, name: str, scope: str = "notes:write", **claims: Any) -> Client:
        return Client(self.url, token=self.token(name, scope, **claims), on_elicit=accept)


@asynccontextmanager
async def notes(which: str, folder: Path, *words: str) -> AsyncIterator[Place]:
    """The example or its twin, on a listener of its own."""
    given = ("--database", str(folder / "notes.sqlite"), "--resource", RESOURCE)
    async with DevAuthorizationServer(PEOPLE, port=free_port()) as authorization:
        issuer = ("--issuer", authorization.issuer)
        with served(file_of(which, "notes"), *given, *issuer, *words, env={"GARRISON_TOKEN": ""}) as url:
            yield Place(url, authorization)


async def benign(client: Client) -> list[str]:
    """What an honest client does."""
    return [
        await said(client.call_tool("add_note", {"text": f"milk {CANARY}", "key": "a"})),
        await said(client.call_tool("add_note", {"text": "bread", "key": "b"})),
        await said(client.call_tool("list_notes", {})),
        await said(client.call_tool("read_note", {"id": 1})),
        await said(client.read_resource("notes://2")),
        await said(client.call_tool("delete_note", {"id": 2, "key": "c"})),
        await said(client.call_tool("list_notes", {})),
    ]


async def attack(place: Place) -> dict[str, str]:
    """Every way to Alice's note, and what came of it."""
    came: dict[str, str] = {}
    async with place.client("bob") as bob:
        came["by its number"] = await said(bob.call_tool("read_note", {"id": 1}))
        came["as a resource"] = await said(bob.read_resource("notes://1"))
        came["a condition in a call"] = await said(bob.call_tool("read_note", {"id": "0 OR 1=1"}))
        came["a condition in a URI"] = await said(bob.read_resource("notes://0%20OR%201=1"))
        came["a union"] = await said(bob.read_resource("notes://0%20UNION%20SELECT%20text%20FROM%20notes"))
    async with place.client("ann") as ann:
        came["of the same organization"] = await said(ann.call_tool("read_note", {"id": 1}))
    async with place.client("alice", tenant="blue") as other:
        came["the same name elsewhere"] = await said(other.call_tool("list_notes", {}))
    async with place.client("bob", "notes:read", client_id="another") as reader:
        came["by another program"] = await said(reader.read_resource("notes://1"))
    return came


@pytest.mark.attack("ATK-175")
@pytest.mark.attack("ATK-130")
@pytest.mark.parametrize("which", BOTH)
async def test_one_script_against_both(which: str, tmp_path: Path) -> None:
    async with notes(which, tmp_path) as place:
        async with place.client("alice") as alice:
            assert "kept" in await said(alice.call_tool("add_note", {"text": CANARY, "key": "1"}))
            came = await attack(place)
            leaked = {way for way, text in came.items() if CANARY in text}
            assert leaked == (set() if which == "example" else set(came))
            async with place.client("bob") as bob:
                await said(bob.call_tool("delete_note", {"id": 1, "key": "x"}))
            there = CANARY in await said(alice.call_tool("list_notes", {}))
            assert there == (which == "example")
            assert "kept" in await said(alice.call_tool("add_note", {"text": "later", "key": "2"}))


async def test_honest_calls_get_the_same_from_both(tmp_path: Path) -> None:
    answers: list[list[str]] = []
    for which in BOTH:
        folder = tmp_path / which
        folder.mkdir()
        async with notes(which, folder) as place, place.client("alice") as alice:
            answers.append(await benign(alice))
    assert answers[0] == answers[1]
    assert answers[0][3:6] == [f"milk {CANARY}", "bread", "note 2 is deleted"]


@pytest.mark.attack("ATK-154")
@pytest.mark.attack("ATK-175")
async def test_what_is_somebody_elses_reads_as_what_is_absent(tmp_path: Path) -> None:
    async with notes("example", tmp_path) as place:
        async with place.client("alice") as alice, place.client("bob") as bob:
            for _ in range(2):
                assert await said(alice.call_tool("add_note", {"text": "once", "key": "k"})) == "note 1 is kept"
            assert (await said(alice.call_tool("list_notes", {}))).count("once") == 1
            again = await said(alice.call_tool("add_note", {"text": "other", "key": "k"}))
            assert "was used for another call" in again or "409" in again, again
            theirs = await said(bob.call_tool("read_note", {"id": 1}))
            assert theirs == await said(bob.call_tool("read_note", {"id": 999}))
            theirs, none = [await said(bob.read_resource(f"notes://{id}")) for id in (1, 9)]
            assert theirs.replace("notes://1", "U") == none.replace("notes://9", "U")
            assert await said(bob.call_tool("add_note", {"text": "mine", "key": "k"})) == "note 2 is kept"


@pytest.mark.attack("ATK-175")
async def test_a_token_is_good_for_what_it_says(tmp_path: Path) -> None:
    async with notes("example", tmp_path) as place:
        port = urlsplit(place.url).port or 0
        add = {"text": "x", "key": "1"}
        for status, token in (
            (200, place.token("alice")),
            (403, place.token("alice", "notes:read")),
            (401, place.token("alice", audience="https://other.example.com/mcp")),
            (401, place.token("alice", tenant=None)),
            (401, "x"),
        ):
            assert (await use(port, "add_note", add, as_=f"Bearer {token}")).status == status
        async with place.client("alice", "notes:read") as reader:
            assert "1" in await said(reader.call_tool("list_notes", {}))


@pytest.mark.attack("ATK-147")
async def test_one_organization_does_not_use_up_the_others_calls(tmp_path: Path) -> None:
    async with notes("example", tmp_path, "--tenant-rate", "6/hour") as place:
        port = urlsplit(place.url).port or 0
        alice, ann, bob = (f"Bearer {place.token(name)}" for name in ("alice", "ann", "bob"))
        answers = [await use(port, "list_notes", as_=(alice, ann)[n % 2]) for n in range(10)]
        assert [answer.status for answer in answers] == [200] * 6 + [429] * 4
        assert int(answers[-1].get("retry-after") or 0) > 0
        assert (await use(port, "list_notes", as_=bob)).status == 200


@pytest.mark.attack("ATK-288")
async def test_every_call_is_on_record_and_no_note_is(tmp_path: Path) -> None:
    log = tmp_path / "notes.audit.jsonl"
    async with notes("example", tmp_path, "--audit", str(log)) as place:
        async with place.client("alice") as alice:
            await benign(alice)
        async with place.client("bob") as bob:
            await said(bob.call_tool("read_note", {"id": 1}))
    assert verify(str(log), closed=True).ok
    lines = log.read_text().splitlines()
    assert CANARY not in "".join(lines)
    (deleted,) = [line for line in lines if '"call.ended"' in line and '"delete_note"' in line]
    assert '"fields":{"id":2}' in deleted and '"tenant":"red"' in deleted
    assert any('"call.begun"' in line and '"delete_note"' in line for line in lines)
    assert sum('"call.ended"' in line and '"tenant":"blue"' in line for line in lines) == 1


async def listening(port: int) -> None:
    """Wait until somebody listens there: the first address that is told is that of the authorization server."""
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return
        except OSError:
            await asyncio.sleep(0.05)


async def test_with_dev_anybody_can_try_it(tmp_path: Path) -> None:
    port, dev = free_port(), free_port()
    resource = f"http://127.0.0.1:{port}/mcp"

    async def browser(page: str) -> bool:
        assert urlsplit(page).port == dev
        await asyncio.to_thread(lambda: delivered(consented(page, "bob")))
        return True

    words = ("--database", str(tmp_path / "notes.sqlite"), "--resource", resource, "--dev", "--dev-port", str(dev))
    with served(file_of("example", "notes"), *words, "--http", f"127.0.0.1:{port}", env={"GARRISON_TOKEN": ""}):
        await listening(port)
        auth = OAuth("notes-cli", browser=browser, store=MemoryStore())
        async with Client(resource, auth=auth) as client:
            assert await said(client.call_tool("add_note", {"text": "milk", "key": "1"})) == "note 1 is kept"
            assert "milk" in await said(client.call_tool("list_notes", {}))
