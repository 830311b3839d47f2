"""`garrison demo --auth`: every row holds for the reason that it names, and a control that is missing is seen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from garrison.cli import main
from garrison.cli.demo_auth import play
from garrison.cli.demo_auth_client import attack_client
from garrison.cli.demo_auth_rows import Tried, attack, honest
from garrison.cli.demo_auth_scene import Person, Scene, scene
from garrison.cli.demo_auth_tokens import attack_tokens, flood

from .commands import garrison

_watching: list[list[tuple[str, tuple[Any, ...]]]] = []
_WATCHED = frozenset({"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec", "webbrowser.open"})


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _WATCHED:
        _watching[-1].append((event, arguments))


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """What this process connects to, resolves and starts."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


@pytest.fixture(scope="module")
def played() -> tuple[list[Tried], list[tuple[str, str]], list[tuple[str, tuple[Any, ...]]]]:
    """All rows, the security events beside them, and what this process did outside."""
    heard: list[tuple[str, str]] = []

    def record(event: str, text: str, **more: object) -> None:
        heard.append((event, text))

    with pytest.MonkeyPatch.context() as patch, watched() as done:
        patch.setattr("garrison.events.record", record)
        rows = asyncio.run(play())
    return rows, heard, done


def test_every_row_holds() -> None:
    done = garrison("demo", "--auth", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True and done.stderr == "" and report["seconds"] < 20
    rows = report["rows"]
    assert all(row["ok"] is (row["got"] == row["expected"]) is True for row in rows)
    attacks = [row for row in rows if row["kind"] == "attack"]
    assert len(attacks) >= 55 and all(row["verdict"] == "refused" and row["rule"] for row in attacks)
    assert {row["part"] for row in rows} == {"sign-in", "authorization server", "client", "protected server"}
    assert "eyJ" not in done.stdout  # how a JWT begins


def test_the_table_says_that_all_is_well(
    played: tuple[list[Tried], Any, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def again() -> list[Tried]:
        return played[0]

    monkeypatch.setattr("garrison.cli.demo_auth.play", again)
    assert main(["demo", "--auth"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and out.splitlines()[-1].startswith("All ") and out.count("  refused  ") >= 55
    assert "PASSED" not in out and "eyJ" not in out

    async def passed() -> list[Tried]:
        return [Tried("client", "an attack", "attack", "stopped", "served", "a rule")]

    monkeypatch.setattr("garrison.cli.demo_auth.play", passed)
    assert main(["demo", "--auth"]) == 1
    out = capfd.readouterr()[0]
    assert "PASSED" in out and "1 of 1 rows are not as expected" in out


def test_each_refusal_has_the_reason_that_its_row_names(played: tuple[list[Tried], list[tuple[str, str]], Any]) -> None:
    rows, heard, _ = played
    assert all(row.ok for row in rows)
    said = {text for event, text in heard if event == "auth.token_refused"}
    for reason in (
        "bound to a key, and shown without its proof",
        "no DPoP proof",
        "the proof is of another key than the token",
        "htu: the proof is for another address",
        "htm: the proof is for another method",
        "iat is missing, or too far off (ProofVerifier.window)",
        "ath: the proof is for another token",
        "aud does not have this server",
        "aud is missing",
        "no verifier takes a token of this form or issuer",
        "it has expired",
        "exp is missing",
        "nbf is in the future",
        "alg is not one of JwtVerifier.algorithms",
        "the signature is wrong",
        "typ is that of another kind of token",
    ):
        assert reason in said, (reason, said)
    refused = "\n".join(text for event, text in heard if event in ("oauth.refused", "fetch.refused"))
    for reason in ("(iss)", "PKCE with S256", "another server", "issuer", "not public"):
        assert reason in refused, (reason, refused)


def test_nothing_leaves_this_machine_and_no_program_starts(
    played: tuple[Any, Any, list[tuple[str, tuple[Any, ...]]]],
) -> None:
    done = played[2]
    reached = {arguments[1][0] for event, arguments in done if event == "socket.connect" and len(arguments[1]) >= 2}
    assert reached <= {"127.0.0.1", "::1"} and reached
    asked = {arguments[0] for event, arguments in done if event == "socket.getaddrinfo"}
    assert asked <= {"127.0.0.1", "::1", b"127.0.0.1", None}
    assert not [event for event, _ in done if event in ("subprocess.Popen", "os.exec", "webbrowser.open")]


async def passed(part: Callable[[Scene], Awaitable[list[Tried]]]) -> dict[str, str]:
    """The rows of a part that do not hold."""
    async with scene() as servers:
        return {row.what.strip(): row.got for row in await part(servers) if not row.ok}


async def test_proofs_that_are_not_checked_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "garrison.auth.resource.authenticator.TokenAuthenticator._check_proof", lambda *args, **options: None
    )
    rows = await passed(attack_tokens)
    assert {"a stolen token as a bearer token", "the same proof, once more", "a proof of an hour ago"} <= rows.keys()
    assert set(rows.values()) == {"200 result"}


async def test_claims_that_are_not_checked_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = "garrison.auth.resource.claims.ClaimRules._lifetime"
    monkeypatch.setattr(real, lambda *args, **options: float("inf"))
    rows = await passed(attack_tokens)
    assert rows.keys() == {"a token that has ended", "a token that never ends", "a token of tomorrow"}


async def test_rules_that_are_not_applied_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.server.access.AccessControl.knows", lambda *args: True)
    rows = await passed(attack_tokens)
    assert rows["a tool that needs a further scope"] == "200 result"
    assert {"a hidden tool", "a tool that declares no rule"} <= rows.keys()


async def test_a_client_that_does_not_look_at_the_issuer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.auth.client.code_flow.check_iss", lambda *args, **options: None)
    rows = await passed(attack_client)
    assert rows == {
        "mix-up: the answer of another issuer": "alice of red, 1 page, 1 code sent",
        "mix-up: an answer of no issuer": "alice of red, 1 page, 1 code sent",
    }


async def test_guesses_that_nobody_counts_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.auth.resource.throttle.Throttle.wait", lambda *args: 0.0)
    assert (await passed(flood)).keys() == {"guessing tokens without end"}


async def test_a_check_that_breaks_is_no_refusal() -> None:
    async def breaks() -> str:
        raise ConnectionResetError("gone")

    row = await attack("client", "a", "stopped", breaks(), "a rule")
    assert (row.ok, row.verdict, row.got) == (False, "PASSED", "ConnectionResetError: gone")
    assert (await honest("client", "a", "done", breaks())).verdict == "NO"


async def test_the_person_of_the_demo_goes_no_further_than_the_page() -> None:
    async with scene() as servers:
        person = Person()
        assert await person.agree(f"{servers.issuer}/authorize?client_id=nobody") == ""
        assert person.pages == 0
