"""A token that has to be asked about first: its request is held, nothing of it is served, and no failure lets it in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from garrison import Limits, SecurityPolicy, Timeouts
from garrison.auth.resource import Verified, VerifierUnavailable
from garrison.errors import ConnectionFailed
from garrison.policy.principal import Principal
from tests.auth.resource.issuer import JWKS_URI, RESOURCE, jwk, key, page, web
from tests.support.mcp import call, modern, until
from tests.support.protected import (
    ALICE,
    FACES,
    Asked,
    active,
    asking,
    facing,
    guarded,
    knock,
    knocking,
    let_in,
    message,
    protection,
    subject,
    use,
)
from tests.support.raw_http import changed, connected, exchange, request, serving
from tests.support.roomy import roomy

OPAQUE = "Bearer opaque-alice"
OTHER = "Bearer opaque-bob"
QUICK = SecurityPolicy(timeouts=Timeouts(shutdown=0.2))


def server(fetch: Asked, ran: list[str] | None = None, policy: SecurityPolicy = QUICK, **options: Any) -> Any:
    """A server whose tokens of alice and bob its authorization server knows."""
    fetch.answers |= {"opaque-alice": active(), "opaque-bob": active("bob")}
    return guarded(protection(verifiers=[asking(fetch)], **options), ran, policy=policy)


# What is held


@pytest.mark.parametrize("face", FACES)
async def test_nothing_runs_before_the_answer_is_there(face: str) -> None:
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    async with facing(face, server(fetch, ran)) as port:
        waiting = asyncio.ensure_future(knock(face, port, OPAQUE))
        await until(lambda: fetch.asked)
        await asyncio.sleep(0.05)
        assert not waiting.done() and not ran
        fetch.may_answer.set()
        assert let_in(await waiting)
        assert let_in(await knock(face, port, OPAQUE))
        assert (await knock(face, port, "Bearer opaque-nobody")).status == 401
        assert fetch.asked == ["opaque-alice", "opaque-nobody"]


@pytest.mark.parametrize("face", FACES)
async def test_many_who_wait_with_one_token_ask_once(face: str) -> None:
    fetch = Asked()
    fetch.may_answer.clear()
    async with facing(face, server(fetch)) as port:
        waiting = [asyncio.ensure_future(knock(face, port, OPAQUE)) for _ in range(100)]
        refused = [asyncio.ensure_future(knock(face, port, "Bearer opaque-nobody")) for _ in range(10)]
        await until(lambda: len(fetch.asked) == 2)
        await asyncio.sleep(0.1)
        fetch.may_answer.set()
        assert all(let_in(each) for each in await asyncio.gather(*waiting))
        assert {each.status for each in await asyncio.gather(*refused)} == {401}
        assert sorted(fetch.asked) == ["opaque-alice", "opaque-nobody"]


@pytest.mark.parametrize("face", FACES)
async def test_whatever_is_asked_is_asked_once_for_all(face: str) -> None:
    asked: list[str] = []
    go_on = asyncio.Event()

    async def revoked(principal: Principal, token_id: str | None) -> bool:
        asked.append(principal.subject)
        await go_on.wait()
        return False

    async with facing(face, guarded(protection(revoked=revoked))) as port:
        waiting = [asyncio.ensure_future(knock(face, port, ALICE)) for _ in range(30)]
        await until(lambda: asked)
        await asyncio.sleep(0.1)
        go_on.set()
        assert all(let_in(each) for each in await asyncio.gather(*waiting))
        assert asked == ["alice"]


@pytest.mark.parametrize("face", ["http", "asgi"])
async def test_nobody_is_told_about_methods_before_it_is_known_who_asks(face: str) -> None:
    fetch = Asked()
    async with facing(face, server(fetch)) as port:
        for given, statuses in (("Bearer opaque-nobody", [401, 401, 401]), (OPAQUE, [405, 415, 406])):
            body = json.dumps(call("whoami")).encode()
            lines = [("Host", f"127.0.0.1:{port}"), ("Authorization", given), ("Accept", "*/*")]
            found = []
            for method, changes in (
                ("PUT", {}),
                ("POST", {"content_type": "text/plain"}),
                ("POST", {"content_type": "application/json", "accept": "text/plain"}),
            ):
                fields = changed([*lines, ("Content-Type", "application/json")], **changes)
                found.append((await exchange(port, request(body, fields, method=method))).status)
            assert found == statuses
            fetch.asked.clear()


async def test_keys_that_have_to_be_fetched_are_fetched_once_for_all() -> None:
    fetch = web(jwk(key("EC")))
    fetch.pause = 0.1
    async with serving(guarded(protection(fetch)), token=None) as running:
        answers = await asyncio.gather(*(use(running.port, "whoami") for _ in range(20)))
        assert [each.status for each in answers] == [200] * 20
        assert fetch.asked == [JWKS_URI]


@pytest.mark.parametrize("expect", [True, False], ids=["100-continue", "at once"])
async def test_a_body_is_not_read_for_somebody_who_is_unknown(expect: bool) -> None:
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    size = 8_000_000
    limits = roomy(Limits(message_bytes=2 * size))
    guarded_server = server(fetch, ran, SecurityPolicy(limits=limits, timeouts=Timeouts(shutdown=0.2)))
    body = json.dumps(call("read", {"text": "x" * size})).encode()
    async with serving(guarded_server, token=None) as running, connected(running.port) as wire:
        whole = message(running.port, call("read"), OPAQUE, **({"expect": "100-continue"} if expect else {}))
        head = whole.partition(b"\r\n\r\n")[0].split(b"\r\n")
        lines = [line for line in head if not line.lower().startswith(b"content-length")]
        start = b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""])
        wire.writer.write(start)
        if not expect:
            wire.writer.write(body)
        await until(lambda: fetch.asked)
        await asyncio.sleep(0.2)
        connection: Any = next(iter(running.listener.guests))
        if expect:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await wire.head()
        else:
            assert not connection.transport.is_reading()
            assert len(connection._reader._body) + len(connection._reader._chunks or b"") <= 1 << 18
            assert len(connection._paused) <= 1 << 19
            assert wire.writer.transport.get_write_buffer_size() > size / 4  # it is the sender's, all the time
        fetch.may_answer.set()
        if expect:
            assert (await wire.head()).status == 100
            wire.writer.write(body)
        answer = await wire.response()
        assert answer.status == 200 and ran == ["read"]


async def test_a_host_is_not_asked_for_the_body_of_somebody_who_is_unknown() -> None:
    """What an ASGI host holds back while nobody asks for it, it does not read from the socket for long."""
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    app = server(fetch, ran).asgi()
    body = json.dumps(call("whoami")).encode()
    received: list[int] = []
    sent: list[Any] = []

    async def receive() -> Any:
        received.append(1)
        if len(received) > 1:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    head = message(80, call("whoami"), OPAQUE).partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/mcp",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1234),
        "headers": [tuple(line.split(b": ", 1)) for line in head],
    }
    async with app:
        asked = asyncio.ensure_future(app(scope, receive, send))
        await until(lambda: fetch.asked)
        await asyncio.sleep(0.05)
        assert not received and not sent
        fetch.may_answer.set()
        await asked
    assert (sent[0]["status"], ran, received[:1]) == (200, ["whoami"], [1])


async def test_a_large_body_behind_a_bad_token_is_never_kept() -> None:
    fetch, ran = Asked(), list[str]()
    async with serving(server(fetch, ran), token=None) as running:
        async with connected(running.port) as wire:
            start = message(running.port, call("read"), "Bearer opaque-nobody", expect="100-continue")
            await wire.send(start.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            assert (await wire.head()).status == 401
        assert (await use(running.port, "read", as_=OPAQUE)).status == 200
        assert ran == ["read"]


# Order


async def test_what_is_sent_ahead_is_answered_in_order() -> None:
    """Known, unknown, another unknown, known: each waits for those before it, and gets its own answer."""
    fetch, ran = Asked(), list[str]()
    async with serving(server(fetch, ran), token=None) as running:
        port = running.port
        assert (await use(port, "whoami", as_=OTHER)).status == 200
        fetch.answers["opaque-carol"] = active("carol")
        fetch.may_answer.clear()
        senders = [OTHER, OPAQUE, "Bearer opaque-carol", OTHER, OPAQUE]
        async with connected(port) as wire:
            await wire.send(b"".join(message(port, call("whoami", id=n), who) for n, who in enumerate(senders)))
            await until(lambda: len(fetch.asked) == 2)
            await asyncio.sleep(0.05)
            fetch.may_answer.set()
            answers = [await wire.response() for _ in senders]
        assert [each.json["id"] for each in answers] == [0, 1, 2, 3, 4]
        assert [subject(each) for each in answers] == ["bob", "alice", "carol", "bob", "alice"]


async def test_a_refusal_among_what_is_sent_ahead_is_in_its_place_and_the_last_word() -> None:
    fetch, ran = Asked(), list[str]()
    async with serving(server(fetch, ran), token=None) as running:
        port = running.port
        async with connected(port) as wire:
            senders = [OPAQUE, "Bearer opaque-nobody", OPAQUE]
            await wire.send(b"".join(message(port, call("whoami", id=n), who) for n, who in enumerate(senders)))
            first, second = await wire.response(), await wire.response()
            assert (first.status, first.json["id"], second.status) == (200, 0, 401)
            assert await wire.ended() == b""
        assert ran == ["whoami"]


async def test_a_handshake_behind_a_request_is_refused_without_harm_to_the_request() -> None:
    fetch, ran = Asked(), list[str]()
    async with facing("websocket", server(fetch, ran)) as port, connected(port) as wire:
        first = message(port, call("whoami"), OPAQUE)
        await wire.send(first)
        assert (await wire.response()).status == 200
        await wire.send(first + knocking("websocket", port, "Bearer opaque-nobody"))
        assert [(await wire.response()).status, (await wire.response()).status] == [200, 401]
    assert ran == ["whoami"] * 2


async def test_a_page_can_read_a_refusal_that_took_time() -> None:
    fetch = Asked()
    origin = "https://app.example.com"
    policy = SecurityPolicy(allowed_origins=(origin,), timeouts=Timeouts(shutdown=0.2))
    guarded_server = guarded(protection(verifiers=[asking(fetch)]), policy=policy)
    for face in ("http", "asgi"):
        async with facing(face, guarded_server) as port:
            for _ in range(2):  # asked about, and remembered
                answer = await knock(face, port, "Bearer opaque-nobody", origin=origin)
                assert (answer.status, answer.get("access-control-allow-origin")) == (401, origin)
                assert "www-authenticate" in (answer.get("access-control-expose-headers") or "")


# Peers that leave, and servers that stop


@pytest.mark.parametrize("face", FACES)
async def test_who_leaves_while_waiting_does_no_harm(face: str) -> None:
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    async with facing(face, server(fetch, ran)) as port:
        for reset in (True, False):
            async with connected(port) as wire:
                await wire.send(knocking(face, port, OPAQUE))
                await until(lambda: fetch.asked)
                if reset:
                    wire.reset()
        staying = asyncio.ensure_future(knock(face, port, OPAQUE))
        await asyncio.sleep(0.05)
        fetch.may_answer.set()
        assert let_in(await staying)
        assert fetch.asked == ["opaque-alice"]
        assert len(ran) <= 3


@pytest.mark.parametrize("face", ["http", "asgi"])
async def test_a_server_that_stops_leaves_nothing_behind(face: str, caplog: pytest.LogCaptureFixture) -> None:
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    with caplog.at_level(logging.DEBUG):
        async with facing(face, server(fetch, ran)) as port:
            waiting = [asyncio.ensure_future(knock(face, port, OPAQUE)) for _ in range(5)]
            await until(lambda: fetch.asked)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert not any(getattr(each, "status", 0) == 200 for each in answers)
    assert not ran
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        assert "_settle" not in repr(task), task
    assert not [each for each in caplog.records if each.exc_info]


# Whatever fails, nobody is let in


class Broken:
    """A verifier that fails in some way, now or later, and then recovers."""

    issuer = None

    def __init__(self, fail: Callable[[], Any], *, accepts: Callable[[], bool] = lambda: True) -> None:
        self.fail = fail
        self.looks = 0
        self._accepts = accepts

    def accepts(self, token: str) -> bool:
        return self._accepts()

    def verify(self, token: str, now: float) -> Verified | Awaitable[Verified]:
        self.looks += 1
        return self.fail()


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def later(fail: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def wait() -> Any:
        await asyncio.sleep(0)
        return fail()

    return wait


def later_then(first: Callable[[], Any], fail: Callable[[], Any]) -> Callable[[], Any]:
    """Something to wait for that brings no verdict; when asked again, it fails at once."""
    calls: list[int] = []

    def verify() -> Any:
        calls.append(1)
        return later(first)() if len(calls) % 2 else fail()

    return verify


GOOD = Verified(Principal("alice", issuer="test", scopes=frozenset({"notes:read"})))
FAILURES: dict[str, Callable[[], Any]] = {
    "ValueError": raising(ValueError("a secret")),
    "KeyError": raising(KeyError("x")),
    "unavailable": raising(VerifierUnavailable("no")),
    "OSError": raising(OSError("no route")),
    "RecursionError": raising(RecursionError("deep")),
}


@pytest.mark.attack("ATK-182")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", FAILURES)
async def test_a_verifier_that_raises_lets_nobody_in(face: str, name: str) -> None:
    ran: list[str] = []
    for how in (FAILURES[name], later(FAILURES[name])):
        broken = Broken(how)
        async with facing(face, guarded(protection(verifiers=[broken]), ran)) as port:
            answer = await knock(face, port, "Bearer token-of-alice")
            assert answer.status == 503, answer
            assert b"secret" not in answer.body
            assert answer.get("retry-after") == "1"
            assert broken.looks == 1
            broken.fail = lambda: GOOD
            assert let_in(await knock(face, port, "Bearer token-of-bob"))  # the listener goes on
    assert ran in ([], ["whoami", "whoami"])


@pytest.mark.parametrize("face", FACES)
async def test_a_look_that_raises_lets_nobody_in(face: str) -> None:
    ran: list[str] = []
    broken = Broken(lambda: GOOD, accepts=raising(TypeError("no")))
    async with facing(face, guarded(protection(verifiers=[broken]), ran)) as port:
        assert (await knock(face, port, "Bearer token-of-alice")).status == 503
        assert not ran


@pytest.mark.parametrize("face", FACES)
async def test_a_failure_after_the_wait_lets_nobody_in(face: str) -> None:
    """A token that has ended when its verdict is there is looked at once more, and then the verifier fails."""
    ran: list[str] = []
    ended = Verified(GOOD.principal, expires=1.0)
    broken = Broken(later_then(lambda: ended, raising(ValueError("no"))))
    async with facing(face, guarded(protection(verifiers=[broken]), ran)) as port:
        for number in range(3):
            assert (await knock(face, port, f"Bearer token-of-alice-{number}")).status == 503
            assert not ran
        broken.fail = later(lambda: GOOD)
        assert let_in(await knock(face, port, "Bearer token-of-bob"))


@pytest.mark.parametrize("face", FACES)
async def test_a_fault_of_ours_after_the_wait_lets_nobody_in(face: str) -> None:
    ran: list[str] = []
    auth = protection(web(), scopes=["notes:read"])
    granted = auth.granted
    async with facing(face, guarded(auth, ran)) as port:
        auth.granted = raising(ZeroDivisionError())  # type: ignore[assignment]
        for _ in range(2):  # keys have to be fetched, and are there
            with contextlib.suppress(asyncio.IncompleteReadError):  # the host has hung up
                assert (await knock(face, port, ALICE)).status in (400, 500, 503)
        assert not ran
        auth.granted = granted
        assert let_in(await knock(face, port, ALICE))


@pytest.mark.parametrize("answer", [None, 1, "yes", object()])
@pytest.mark.parametrize("when", ["now", "later"])
async def test_a_verifier_that_says_nothing_lets_nobody_in(answer: object, when: str) -> None:
    ran: list[str] = []
    fail = (lambda: answer) if when == "now" else later(lambda: answer)
    async with serving(guarded(protection(verifiers=[Broken(fail)]), ran), token=None) as running:
        assert (await use(running.port, "whoami", as_="Bearer token-of-alice")).status == 503
        assert not ran


@pytest.mark.parametrize("now", [True, False], ids=["now", "later"])
@pytest.mark.parametrize(
    ("answer", "status"),
    [(False, 200), (True, 401), (None, 503), (0, 503), ("no", 503), (ValueError("a secret"), 503)],
)
async def test_only_a_clear_no_keeps_a_token(now: bool, answer: object, status: int) -> None:
    def revoked(principal: Principal, token_id: str | None) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def revoked_later(principal: Principal, token_id: str | None) -> Any:
        return revoked(principal, token_id)

    ran: list[str] = []
    auth = protection(revoked=revoked if now else revoked_later)
    async with serving(guarded(auth, ran), token=None) as running:
        found = await use(running.port, "whoami")
        assert found.status == status, found
        assert b"secret" not in found.body
        assert ran == (["whoami"] if status == 200 else [])


@pytest.mark.attack("ATK-182")
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"active": True, "sub": "alice", "scope": "notes:read", "aud": RESOURCE}, 200),
        ({"active": "true", "sub": "alice", "aud": RESOURCE}, 503),
        ({"sub": "alice", "aud": RESOURCE}, 503),
        ({"active": 1, "sub": "alice", "aud": RESOURCE}, 503),
        ({"active": False}, 401),
        ({"active": True, "sub": "alice", "aud": "https://other.example.com/mcp"}, 401),
        ({"active": True, "sub": "alice"}, 401),
        ({"active": True, "aud": RESOURCE}, 401),
        ([], 503),
        (page({"active": True, "sub": "alice", "aud": RESOURCE}, 500), 503),
        (page(b"<html>", 200), 503),
        (ConnectionFailed("no route"), 503),
        (RuntimeError("a fault of ours"), 503),
    ],
)
@pytest.mark.parametrize("face", FACES)
async def test_an_odd_answer_of_the_authorization_server_lets_nobody_in(face: str, answer: Any, status: int) -> None:
    fetch, ran = Asked(), list[str]()
    fetch.answers["odd"] = answer
    async with facing(face, server(fetch, ran)) as port:
        found = await knock(face, port, "Bearer odd")
        assert found.status == status or (status == 200 and found.status == 101), found
        if status != 200:
            assert not ran
            assert (found.get("www-authenticate") is None) == (status == 503)
        assert let_in(await knock(face, port, OTHER))


async def test_no_answer_in_time_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    from garrison.auth.resource import authenticator

    monkeypatch.setattr(authenticator, "_ASK_TIMEOUT", 0.05)
    fetch, ran = Asked(), list[str]()
    fetch.may_answer.clear()
    async with serving(server(fetch, ran), token=None) as running:
        assert (await use(running.port, "whoami", as_=OPAQUE)).status == 503
        assert not ran
        fetch.may_answer.set()
        assert (await use(running.port, "whoami", as_=OTHER)).status == 200


async def test_while_one_token_waits_others_are_served() -> None:
    fetch = Asked()
    fetch.may_answer.clear()
    auth = protection(verifiers=[*protection().verifiers, asking(fetch)])
    async with serving(guarded(auth), token=None) as running:
        waiting = asyncio.ensure_future(use(running.port, "whoami", as_=OPAQUE))
        await until(lambda: fetch.asked)
        assert (await use(running.port, "whoami", as_=ALICE)).status == 200
        assert not waiting.done()
        fetch.answers["opaque-alice"] = active()
        fetch.may_answer.set()
        assert (await waiting).status == 200


async def test_no_more_than_so_many_are_asked_about_at_once() -> None:
    fetch = Asked()
    fetch.may_answer.clear()
    limits = Limits(connections=300, connections_per_address=300)
    server = guarded(
        protection(verifiers=[asking(fetch)], failures_per_minute=1000),
        policy=SecurityPolicy(limits=limits, timeouts=Timeouts(shutdown=0.2)),
    )
    async with serving(server, token=None) as running:
        waiting = [asyncio.ensure_future(use(running.port, "whoami", as_=f"Bearer t{n}")) for n in range(100)]
        done, pending = await asyncio.wait(waiting, timeout=0.5)
        assert (len(done), len(pending), len(fetch.asked)) == (36, 64, 64)
        assert {each.result().status for each in done} == {503}
        fetch.may_answer.set()
        assert {each.status for each in await asyncio.gather(*pending)} == {401}


async def test_the_lines_of_a_head_are_learnt_when_its_sender_is_known() -> None:
    fetch = Asked()
    async with serving(server(fetch), token=None) as running:
        body = json.dumps(modern("server/discover")).encode()
        async with connected(running.port) as wire:
            lines = [("Host", f"127.0.0.1:{running.port}"), ("Authorization", "Bearer opaque-nobody")]
            await wire.send(request(body, [*lines, ("Content-Type", "application/json"), ("Accept", "*/*")]))
            assert (await wire.response()).status == 401
        known = running.listener.heads._fields
        assert not any(b"opaque-nobody" in line for line in known)
        for _ in range(2):
            assert (await use(running.port, "whoami", as_=OPAQUE)).status == 200
        assert any(b"opaque-alice" in line for line in running.listener.heads._fields)
