"""What a good authorization server refuses, the development one refuses too; and beside each attack, the honest way."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison.safe import Fetched
from garrison.testing import DevAuthorizationServer, DevClient, TrustedIssuer, User
from garrison.testing.oauth.redirects import is_registered

from .asking import REDIRECT, RESOURCE, Asking, members
from .conftest import Serving

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
REGISTERED = "https://a.example/cb"


# Redirect URIs


@pytest.mark.attack("ATK-212")
@pytest.mark.parametrize(
    "asked",
    [
        "https://a.example/cb/",
        "https://a.example/cb?x",
        "https://a.example/cb#x",
        "https://a.example.evil.example/cb",
        "https://a.example@evil.example/cb",
        "https://user@a.example/cb",
        "https://A.example/cb",
        "HTTPS://a.example/cb",
        "https://a.example/CB",
        "https://a.example//cb",
        "https://a.example/./cb",
        "https://a.example/x/../cb",
        "https://a.example:443/cb",
        "http://a.example/cb",
        "//a.example/cb",
        "javascript:alert(1)",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "http://127.0.0.1:123456/cb",
        "http://127.0.0.1:80:80/cb",
        "http://127.0.0.2/cb",
        "http://localhost/cb",
        "https://127.0.0.1/cb",
        "http://127.0.0.1/other",
        "http://[::1]/cb",
        "",
    ],
)
async def test_an_answer_goes_to_registered_addresses_only(serving: Serving, asked: str) -> None:
    async with serving(clients=[DevClient("web", redirect_uris=[REGISTERED, "http://127.0.0.1/cb"])]) as server:
        ask = Asking(server)
        answer = await ask.authorize(client_id="web", redirect_uri=asked)
        assert answer.status == 400 and "location" not in answer.headers
        for right in (REGISTERED, "http://127.0.0.1/cb", "http://127.0.0.1:5431/cb"):
            answer = await ask.authorize(client_id="web", redirect_uri=right)
            assert answer.headers["location"].startswith(f"{right}?code=")


def test_the_port_is_free_on_literal_loopback_addresses_alone() -> None:
    assert is_registered("http://[::1]:55/cb", ["http://[::1]/cb"])
    assert is_registered("http://127.0.0.1:55/cb?a=b", ["http://127.0.0.1:1/cb?a=b"])
    assert not is_registered("http://localhost:55/cb", ["http://localhost/cb"])
    assert not is_registered("https://a.example:55/cb", ["https://a.example/cb"])


# The consent page


def hidden(page: Fetched) -> dict[str, str]:
    """The hidden fields of the form."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page.body.decode()))


def cookie(page: Fetched) -> str:
    """The cookie that came with a page."""
    return page.headers["set-cookie"].partition(";")[0]


async def agree(ask: Asking, given: dict[str, str], headers: dict[str, str]) -> Fetched:
    """What the form leads to."""
    body = "&".join(f"{name}={value}" for name, value in given.items()).encode()
    return await ask.fetch.post(
        f"{ask.server.issuer}/consent", body, media_type="application/x-www-form-urlencoded", headers=headers
    )


async def test_a_person_agrees_or_does_not(serving: Serving) -> None:
    async with serving(auto_approve=None) as server:
        ask = Asking(server)
        page = await ask.authorize()
        assert page.status == 200 and b"An app" in page.body and REDIRECT.encode() in page.body
        answer = await agree(ask, {**hidden(page), "user": "bob"}, {"Cookie": cookie(page)})
        status, _ = await ask.redeem(members(answer)["code"])
        assert status == 200
        page = await ask.authorize()
        answer = await agree(ask, {**hidden(page), "deny": "1"}, {"Cookie": cookie(page)})
        assert members(answer)["error"] == "access_denied" and members(answer)["iss"] == server.issuer


@pytest.mark.attack("ATK-213")
async def test_a_name_is_text_and_nobody_frames_the_page(serving: Serving) -> None:
    name = '<script>alert(1)</script>"\u202e\u200b\x1b]8;;http://evil\x07' + "x" * 10_000
    async with serving(clients=[DevClient("bad", redirect_uris=[REDIRECT], name=name)], auto_approve=None) as server:
        page = await Asking(server).authorize(client_id="bad", scope='<img src="x">'.replace('"', "").replace(" ", ""))
        text = page.body.decode()
        assert page.status == 200 and "&lt;script&gt;" in text and "<script" not in text and "<img" not in text
        assert len(text) < 4_000 and not set("\u202e\u200b\x1b\x07") & set(text)
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        flags = page.headers["set-cookie"].lower()
        assert "httponly" in flags and "samesite=lax" in flags


async def test_a_consent_is_of_the_browser_that_saw_the_page_and_counts_once(serving: Serving) -> None:
    async with serving(auto_approve=None) as server:
        ask = Asking(server)
        page, other = await ask.authorize(), await ask.authorize()
        given = {**hidden(page), "user": "alice"}
        for headers, changes in (
            ({}, {}),
            ({"Cookie": cookie(other)}, {}),
            ({"Cookie": cookie(page), "Origin": "https://evil.example"}, {}),
            ({"Cookie": cookie(page), "Origin": "null"}, {}),
            ({"Cookie": cookie(page), "Sec-Fetch-Site": "cross-site"}, {}),
            ({"Cookie": cookie(page)}, {"csrf": hidden(other)["csrf"]}),
            ({"Cookie": cookie(page)}, {"transaction": hidden(other)["transaction"]}),
        ):
            assert (await agree(ask, {**given, **changes}, headers)).status == 403, (headers, changes)
        right = {"Cookie": cookie(page), "Origin": server.issuer, "Sec-Fetch-Site": "same-origin"}
        assert "code" in members(await agree(ask, given, right))
        assert (await agree(ask, given, right)).status == 403


async def test_a_consent_ends(serving: Serving) -> None:
    now = [1_000_000.0]
    async with serving(auto_approve=None, clock=lambda: now[0]) as server:
        ask = Asking(server)
        page = await ask.authorize()
        now[0] += 601
        given = {**hidden(page), "user": "alice"}
        assert (await agree(ask, given, {"Cookie": cookie(page)})).status == 403


# Requests and codes


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://unknown.example"}, "invalid_target"),
        ({"resource": "http://plain.example"}, "invalid_target"),
        ({"scope": "read nothing"}, "invalid_scope"),
        ({"dpop_jkt": "x"}, "invalid_request"),
    ],
)
async def test_a_wrong_request_gets_an_error_and_no_code(
    serving: Serving, changes: dict[str, str | None], error: str
) -> None:
    async with serving(scopes=["read"], resources=[RESOURCE]) as server:
        answer = members(await Asking(server).authorize(**changes))
        assert answer["error"] == error and "code" not in answer
        assert answer["state"] == "a state" and answer["iss"] == server.issuer
        assert "code" in members(await Asking(server).authorize())


async def test_a_parameter_stands_once(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        url = f"{server.issuer}/authorize?client_id=app&client_id=other&redirect_uri={REDIRECT}"
        assert (await ask.fetch.get(url)).status == 400
        status, said = await ask.token(grant_type="authorization_code", client_id="app")
        assert (status, said["error"]) == (400, "invalid_grant")
        body = b"grant_type=refresh_token&grant_type=authorization_code&client_id=app"
        got = await ask.fetch.post(f"{server.issuer}/token", body, media_type="application/x-www-form-urlencoded")
        assert got.status == 400 and json.loads(got.body)["error"] == "invalid_request"


@pytest.mark.attack("ATK-214")
@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "other"},
        {"code_verifier": "x" * 43},
        {"code_verifier": ""},
        {"resource": "https://other.example.com"},
        {"resource": ""},
        {"redirect_uri": REDIRECT + "/"},
    ],
)
async def test_a_code_is_for_the_one_who_asked(serving: Serving, wrong: dict[str, str]) -> None:
    async with serving() as server:
        ask = Asking(server)
        status, said = await ask.redeem(await ask.code(), **wrong)
        assert status == 400 and said["error"] in ("invalid_grant", "invalid_target"), said
        assert (await ask.redeem(await ask.code()))[0] == 200


@pytest.mark.attack("ATK-214")
async def test_a_code_that_is_shown_twice_ends_what_came_of_it(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        code = await ask.code()
        _, first = await ask.redeem(code)
        assert await ask.active(first["access_token"])
        assert (await ask.redeem(code))[1]["error"] == "invalid_grant"
        assert not await ask.active(first["access_token"])
        assert (await ask.renew(first["refresh_token"]))[1]["error"] == "invalid_grant"


async def test_a_code_ends_soon(serving: Serving) -> None:
    now = [1_000_000.0]
    async with serving(clock=lambda: now[0]) as server:
        ask = Asking(server)
        early, late = await ask.code(), await ask.code()
        now[0] += 59
        assert (await ask.redeem(early))[0] == 200
        now[0] += 2
        assert (await ask.redeem(late))[1]["error"] == "invalid_grant"


async def test_a_refresh_token_that_is_shown_twice_ends_the_family(serving: Serving) -> None:
    async with serving() as server:
        ask = Asking(server)
        _, first = await ask.redeem(await ask.code())
        assert (await ask.renew(first["refresh_token"], client_id="other"))[1]["error"] == "invalid_grant"
        assert (await ask.renew(first["refresh_token"], resource="https://other.example.com"))[0] == 400
        _, second = await ask.renew(first["refresh_token"])
        assert await ask.active(second["access_token"])
        assert (await ask.renew(first["refresh_token"]))[1]["error"] == "invalid_grant"
        assert (await ask.renew(second["refresh_token"]))[1]["error"] == "invalid_grant"
        assert not await ask.active(second["access_token"])


async def test_who_does_not_prove_itself_gets_nothing(serving: Serving) -> None:
    async with serving() as server:
        ask, more = Asking(server), {"grant_type": "client_credentials", "resource": RESOURCE}
        for wrong in (
            {"client_id": "watcher"},
            {"client_id": "watcher", "client_secret": "wrong"},
            {"client_id": "app", "client_secret": "watcher-secret"},
            {"client_id": "nobody", "client_secret": "x"},
        ):
            status, said = await ask.token(**more, **wrong)
            assert (status, said["error"]) == (401, "invalid_client"), wrong
        right = {"client_id": "watcher", "client_secret": "watcher-secret"}
        basic = {"Authorization": "Basic d2F0Y2hlcjp3YXRjaGVyLXNlY3JldA=="}
        assert (await ask.token(basic, **more, **right))[1]["error"] == "invalid_request", "two ways at once"
        assert (await ask.token(**more, client_id="app"))[1]["error"] == "unauthorized_client"
        assert (await ask.token(grant_type="password", username="a", password="b"))[1][
            "error"
        ] == "unsupported_grant_type"
        assert (await ask.token(**more, **right))[0] == 200


async def test_only_its_own_name_is_answered(serving: Serving) -> None:
    async with serving() as server:
        port = int(server.issuer.rpartition(":")[2])

        async def status(host: bytes, more: bytes = b"") -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /jwks HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (host, more))
            answer = await reader.read()
            writer.close()
            return answer.split(b" ")[1]

        own = b"127.0.0.1:%d" % port
        assert await status(own) == b"200" and await status(b"localhost:%d" % port) == b"200"
        assert await status(b"rebound.example:%d" % port) == b"421" and await status(b"127.0.0.1") == b"421"
        assert await status(own, b"Host: evil.example\r\n") == b"400"


# Client id metadata documents


@asynccontextmanager
async def site(answer: Callable[[str], bytes], arrived: list[str] | None = None) -> AsyncIterator[str]:
    """A place on all loopback addresses that serves documents; gives its origin, and notes who arrives."""
    tasks: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        if arrived is not None:
            arrived.append(str(writer.get_extra_info("sockname")))
        try:
            asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            said = answer(asked)
            if said == b"slow":
                await asyncio.sleep(30)
            writer.write(said)
            await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            if task is not None:
                task.cancel()


def document(members: object, *, kind: str = "application/json", more: str = "", size: int = 0) -> bytes:
    body = json.dumps(members).encode() + b" " * size
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.mark.attack("ATK-215")
async def test_a_document_has_to_be_what_its_url_says(serving: Serving) -> None:
    asked: list[str] = []
    arrived: list[str] = []

    def good(path: str, **changes: object) -> dict[str, object]:
        return {"client_id": origin + path, "client_name": "Doc", "redirect_uris": [REDIRECT], **changes}

    def answer(path: str) -> bytes:
        asked.append(path)
        moved = f"HTTP/1.1 302 Found\r\nLocation: {origin}/moved-here\r\nContent-Length: 0\r\n\r\n".encode()
        return {
            "/good": document(good(path)),
            "/moved": moved,
            "/moved-here": document(good("/moved")),
            "/other": document(good("/good")),
            "/slash": document(good("/slash/")),
            "/large": document(good(path), size=1024 * 1024),
            "/five": document(good(path), size=5 * 1024),
            "/slow": b"slow",
            "/text": document(good(path), kind="text/html"),
            "/list": document([]),
            "/nameless": document(good(path, client_name=None)),
            "/nowhere": document(good(path, redirect_uris=[])),
            "/plain": document(good(path, redirect_uris=["http://a.example/cb"])),
            "/script": document(good(path, redirect_uris=["javascript:alert(1)"])),
            "/secret": document(good(path, client_secret="x")),
            "/basic": document(good(path, token_endpoint_auth_method="client_secret_basic")),
            "/keyless": document(good(path, token_endpoint_auth_method="private_key_jwt")),
            "/twice": document(good(path)).replace(b'"Doc"', b'"D", "client_id": "x"'),
        }[path]

    async with site(answer, arrived) as origin, serving() as server:
        documents = server._documents
        assert documents is not None
        documents._seconds = 0.3
        ask = Asking(server)
        wrong = ["/moved", "/other", "/slash", "/large", "/five", "/slow", "/text", "/list", "/nameless", "/nowhere"]
        wrong += ["/plain", "/script", "/secret", "/basic", "/keyless", "/twice"]
        for path in wrong:
            refused = await ask.authorize(client_id=origin + path)
            assert refused.status == 401 and "location" not in refused.headers, path
        asked.clear()
        before = list(arrived)
        for private in (
            "https://10.0.0.1/c",
            "https://169.254.169.254/latest",
            "https://[fd00::1]/c",
            "http://192.168.0.1/c",
            "https://127.0.0.1.evil.invalid/c",
            f"https://127.0.0.2:{origin.rpartition(':')[2]}/good",
            f"{origin}/x/../good",
            f"{origin}/x/%2E./good",
            f"{origin}/good#x",
            f"{origin.replace('//', '//user@')}/good",
            origin,
        ):
            assert (await ask.authorize(client_id=private)).status == 401, private
        assert not asked and arrived == before, "and nothing was fetched"
        for _ in range(2):
            assert "code" in members(await ask.authorize(client_id=origin + "/good"))
        assert asked == ["/good"], "a document is kept for a while"
        server.auto_approve = None
        page = (await ask.authorize(client_id=origin + "/good")).body.decode()
        assert origin.removeprefix("http://") in page and "Any program here" in page


async def test_a_document_is_kept_no_longer_than_it_says(serving: Serving) -> None:
    asked, now = list[str](), [1_000_000.0]

    def answer(path: str) -> bytes:
        asked.append(path)
        said = {"client_id": origin + path, "client_name": "Doc", "redirect_uris": [REDIRECT]}
        return document(said, more="Cache-Control: max-age=10\r\n" if path == "/ten" else "Cache-Control: no-store\r\n")

    async with site(answer) as origin, serving(clock=lambda: now[0]) as server:
        ask = Asking(server)
        for path, wait, fetched in (("/ten", 9, 1), ("/ten", 2, 1), ("/ten", 0, 2), ("/no", 0, 1), ("/no", 0, 2)):
            assert "code" in members(await ask.authorize(client_id=origin + path))
            assert asked.count(path) == fetched, (path, wait)
            now[0] += wait


async def test_without_documents_there_are_none(serving: Serving) -> None:
    async with serving(documents=False) as server:
        assert (await Asking(server).authorize(client_id="https://client.example/doc")).status == 401


# ID-JAG


@asynccontextmanager
async def two(serving: Serving) -> AsyncIterator[tuple[DevAuthorizationServer, DevAuthorizationServer, Asking]]:
    """An identity provider, and an authorization server that trusts it."""
    async with DevAuthorizationServer(
        [User("alice"), User("zoe")], clients=[DevClient("sso", secret="sso-secret")]
    ) as idp:
        trusted = TrustedIssuer(idp.issuer, lambda: idp.jwks)
        async with serving(
            clients=[DevClient("agent", secret="agent-secret"), DevClient("rival", secret="rival-secret")],
            trusted_issuers=[trusted],
            resources=[RESOURCE],
            auto_approve=None,
        ) as server:
            yield idp, server, Asking(server)


async def present(ask: Asking, assertion: str, client: str = "agent", **more: str) -> tuple[int, Any]:
    return await ask.token(
        grant_type=BEARER, assertion=assertion, client_id=client, client_secret=f"{client}-secret", **more
    )


@pytest.mark.attack("ATK-219")
async def test_an_id_jag_is_checked_in_each_point(serving: Serving) -> None:
    async with two(serving) as (idp, server, ask):
        right: dict[str, Any] = {
            "subject": "alice",
            "audience": server.issuer,
            "client_id": "agent",
            "resource": RESOURCE,
            "scopes": ["read"],
        }
        now = int(time.time())
        wrong: dict[str, dict[str, Any]] = {
            "typ": {"header": {"typ": "JWT"}},
            "access token": {"header": {"typ": "at+jwt"}},
            "unsigned": {"header": {"alg": "none"}},
            "another audience": {"audience": "https://else.example"},
            "two audiences": {"aud": [server.issuer, "https://else.example"]},
            "the token endpoint": {"audience": server.issuer + "/token"},
            "a slash": {"audience": server.issuer + "/"},
            "another client": {"client_id": "rival"},
            "no client": {"client_id": None},
            "another resource": {"resource": "https://else.example"},
            "no resource": {"resource": None},
            "expired": {"exp": now - 60},
            "endless": {"exp": None},
            "long": {"exp": now + 10 * 3600},
            "future": {"nbf": now + 600},
            "no number": {"jti": None},
            "unknown provider": {"iss": "https://evil.example"},
            "unknown person": {"subject": "zoe"},
            "known by mail": {"subject": "mallory", "email": "alice@acme.example", "email_verified": True},
            "a kid of nobody": {"header": {"kid": "x"}},
            "a key of its own": {"header": {"jwk": idp.jwks}, "iss": server.issuer},
        }
        for name, changes in wrong.items():
            status, said = await present(ask, idp.issue_id_jag(**{**right, **changes}))
            assert (status, said["error"]) == (400, "invalid_grant"), (name, said)
        stranger = DevAuthorizationServer()
        status, said = await present(ask, stranger.issue_id_jag(**right, iss=idp.issuer, header={"kid": idp.key.kid}))
        assert (status, said["error"]) == (400, "invalid_grant"), "signed by somebody else"

        good = idp.issue_id_jag(**right)
        assert (await present(ask, good, "rival"))[1]["error"] == "invalid_grant"
        good = idp.issue_id_jag(**right)
        status, got = await present(ask, good)
        assert status == 200 and got["scope"] == "read" and "refresh_token" not in got
        assert await ask.active(got["access_token"])
        assert (await present(ask, good))[1]["error"] == "invalid_grant", "an assertion counts once"
        no_secret = await ask.token(grant_type=BEARER, assertion=idp.issue_id_jag(**right), client_id="agent")
        assert no_secret[1]["error"] == "invalid_client"


async def test_an_id_token_becomes_an_id_jag_for_its_own_client(serving: Serving) -> None:
    async with two(serving) as (idp, server, ask):
        idp.add_client(DevClient("sso", secret="sso-secret", elsewhere={server.issuer: "agent"}))
        sso = Asking(idp)

        async def exchange(subject_token: str, **changes: str) -> tuple[int, Any]:
            given = {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
                "subject_token": subject_token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                "audience": server.issuer,
                "resource": RESOURCE,
                "scope": "read",
                "client_id": "sso",
                "client_secret": "sso-secret",
            }
            return await sso.token(**{**given, **changes})

        status, got = await exchange(idp.issue_id_token("alice", "sso"))
        assert status == 200 and got["token_type"] == "N_A"
        assert got["issued_token_type"] == "urn:ietf:params:oauth:token-type:id-jag"
        assert (await present(ask, got["access_token"]))[0] == 200
        for wrong in (
            idp.issue_id_token("alice", "another"),
            idp.issue_id_token("alice", "sso", exp=1),
            idp.issue_id_token("nobody", "sso"),
            server.issue_id_token("alice", "sso"),
            got["access_token"],
        ):
            assert (await exchange(wrong))[1]["error"] == "invalid_grant"
        assert (await exchange(idp.issue_id_token("alice", "sso"), audience=""))[1]["error"] == "invalid_target"
        assert (await exchange(idp.issue_id_token("alice", "sso"), client_secret="x"))[0] == 401
