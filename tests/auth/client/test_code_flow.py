"""The authorization code flow against forged, mixed-up, doubled and replayed answers; and the honest one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.auth import AuthorizationServerMetadata
from garrison.auth.client.browser import Browser
from garrison.auth.client.code_flow import Attempt, Authorized, authorize, check_iss
from garrison.auth.client.loopback import RedirectListener
from garrison.errors import AuthorizationFailed

ISSUER = "https://auth.example.com"
MCP = "https://mcp.example.com/mcp"
REDIRECT = "http://127.0.0.1:40001/callback/x"


def server(**more: Any) -> AuthorizationServerMetadata:
    members: dict[str, Any] = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "code_challenge_methods_supported": ("S256",),
    }
    return AuthorizationServerMetadata(**{**members, **more})


SAYS_ISS = server(authorization_response_iss_parameter_supported=True)


def begun(of: AuthorizationServerMetadata | None = None, **more: Any) -> tuple[Attempt, dict[str, str]]:
    """An attempt, and the parameters of its page."""
    attempt = Attempt(of or server(), "client-1", MCP, redirect_uri=REDIRECT, **more)
    return attempt, {name: values[0] for name, values in parse_qs(urlsplit(attempt.url).query).items()}


# What is asked


def test_a_request_has_everything_that_mcp_asks_for() -> None:
    attempt, asked = begun(scopes=("read", "write"))
    assert attempt.url.startswith(f"{ISSUER}/authorize?")
    assert len(asked.pop("state")) == 43  # 256 bits
    challenge = asked.pop("code_challenge")
    assert asked == {
        "response_type": "code",
        "client_id": "client-1",
        "redirect_uri": REDIRECT,
        "scope": "read write",
        "code_challenge_method": "S256",
        "resource": MCP,
    }
    found = attempt.take(f"code=c&state={quote(state_of(attempt))}")
    assert found is not None
    form = dict(found.request.parameters)
    verifier = form.pop("code_verifier")
    assert urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode() == challenge
    assert form == {
        "grant_type": "authorization_code",
        "code": "c",
        "client_id": "client-1",
        "redirect_uri": REDIRECT,
        "resource": MCP,
    }
    assert (found.server.issuer, found.scopes, found.redirect_uri) == (ISSUER, ("read", "write"), REDIRECT)


def test_no_two_attempts_share_a_secret() -> None:
    one, other = begun()[1], begun()[1]
    assert one["state"] != other["state"] and one["code_challenge"] != other["code_challenge"]
    assert "scope" not in one


def test_nothing_secret_is_shown() -> None:
    attempt, asked = begun()
    found = attempt.take(urlencode({"code": "the-code", "state": asked["state"]}))
    assert found is not None
    for text in (repr(attempt), repr(found), str(found)):
        assert "the-code" not in text
        assert found.request.parameters["code_verifier"] not in text
        assert asked["state"] not in text


def test_offline_access_asks_for_the_consent_that_it_needs() -> None:
    assert begun(scopes=("a", "offline_access"))[1]["prompt"] == "consent"
    assert "prompt" not in begun(scopes=("a",))[1]


@pytest.mark.attack("ATK-190")
@pytest.mark.parametrize("methods", [None, (), ("plain",), ("s256",)])
async def test_without_pkce_no_browser_opens(methods: tuple[str, ...] | None) -> None:
    opened: list[str] = []
    async with RedirectListener() as listener:
        with pytest.raises(AuthorizationFailed, match="PKCE"):
            await authorize(
                server(code_challenge_methods_supported=methods),
                "client-1",
                MCP,
                listener=listener,
                browser=lambda url: opened.append(url) is None,
            )
    assert opened == []


@pytest.mark.attack("ATK-191")
@pytest.mark.attack("ATK-192")
@pytest.mark.parametrize(
    "endpoint",
    [
        "https://h.example/$(id)",
        "https://h.example/;calc",
        "https://h.example/'x",
        "https://h.example/!x",
        "https://h.example/a?state=mine",
        "https://h.example/a?x&resource=https://evil.example",
        "https://h.example/" + "x" * 9000,
    ],
)
async def test_a_dangerous_page_is_not_opened(endpoint: str) -> None:
    opened: list[str] = []
    async with RedirectListener() as listener:
        with pytest.raises(AuthorizationFailed):
            metadata = server(authorization_endpoint=endpoint)
            await authorize(metadata, "c", MCP, listener=listener, browser=lambda url: opened.append(url) is None)
    assert opened == []


@pytest.mark.parametrize("endpoint", [None, "token"])
def test_a_server_without_endpoints_is_not_asked(endpoint: str | None) -> None:
    members = {"authorization_endpoint": None} if endpoint is None else {"token_endpoint": None}
    with pytest.raises(AuthorizationFailed, match="endpoint"):
        begun(server(**members))


# What is answered


@pytest.mark.attack("ATK-195")
def test_only_the_answer_with_the_state_counts_and_only_once() -> None:
    attempt, asked = begun()
    other = begun()[1]["state"]
    for query in (
        "",
        "code=x",
        "code=x&state=",
        f"code=x&state={other}",
        f"code=x&state={asked['state'][:-1]}",
        f"code=x&state={asked['state']}%20",
        f"code=x&state={asked['state'].swapcase()}",
        f"code=x&State={asked['state']}",
        f"code=x&state={asked['state']}&state={other}",
        f"code=x&state={other}&state={asked['state']}",
        f"error=access_denied&state={other}",
        "error=access_denied",
        "&".join(f"p{i}=1" for i in range(40)) + f"&state={asked['state']}",
        f"code=%ff&state={asked['state']}",
    ):
        assert attempt.take(query) is None, query
    right = f"code=right&state={asked['state']}"
    found = attempt.take(right)
    assert found is not None and found.code.reveal() == "right"
    assert attempt.take(right) is None


@pytest.mark.attack("ATK-196")
@pytest.mark.parametrize(
    "query",
    [
        "code=A&code=B",
        "code=A&code=A",
        "code=A&iss=https%3A%2F%2Fauth.example.com&iss=https%3A%2F%2Fevil.example",
        "code=A&x=1&x=1",
        "error=a&error=b",
        "code=A&error=access_denied",
        "",
        "code=",
        "code=" + "x" * 4097,
        "code=a%0Ab",
        "code=%E2%80%AE",
    ],
)
def test_an_answer_that_can_be_read_twice_is_not_used(query: str) -> None:
    attempt, asked = begun()
    with pytest.raises(AuthorizationFailed):
        attempt.take(f"{query}&state={asked['state']}")
    # It is over: the same state does not open a second try.
    assert attempt.take(f"code=A&state={asked['state']}") is None


def test_parameters_that_are_not_known_are_left_alone() -> None:
    attempt, asked = begun()
    assert attempt.take(f"code=A&session_state=x.y&scope=a+b&state={asked['state']}") is not None


OTHERS = [
    "https://auth.example.com/",
    "https://AUTH.example.com",
    "https://auth.example.com:443",
    "https://auth%2eexample.com",
    "https://evil.example",
    "HTTPS://auth.example.com",
    " https://auth.example.com",
    "",
]


@pytest.mark.attack("ATK-197")
@pytest.mark.parametrize("announced", [True, False])
def test_the_table_of_the_issuer_parameter(announced: bool) -> None:
    metadata = SAYS_ISS if announced else server()

    def answered(iss: str | None, **more: Any) -> Authorized | None:
        attempt, asked = begun(metadata, **more)
        given = {"code": "c", "state": asked["state"], **({} if iss is None else {"iss": iss})}
        return attempt.take(urlencode(given))

    assert answered(ISSUER) is not None
    for other in OTHERS:
        with pytest.raises(AuthorizationFailed, match="another authorization server"):
            answered(other)
    if announced:
        with pytest.raises(AuthorizationFailed, match="does not say"):
            answered(None)
    else:
        assert answered(None) is not None
        with pytest.raises(AuthorizationFailed, match="does not say"):
            answered(None, require_iss=True)
        assert answered(ISSUER, require_iss=True) is not None


@pytest.mark.attack("ATK-197")
@settings(deadline=None)
@given(st.text())
def test_no_other_text_is_the_issuer(text: str) -> None:
    if text != ISSUER:
        with pytest.raises(AuthorizationFailed):
            check_iss(server(), text)
    check_iss(server(), ISSUER)


@pytest.mark.attack("ATK-199")
@pytest.mark.parametrize("metadata", [SAYS_ISS, server()])
def test_nothing_of_an_error_of_another_server_is_shown(
    metadata: AuthorizationServerMetadata, caplog: pytest.LogCaptureFixture
) -> None:
    attempt, asked = begun(metadata)
    given = {
        "error": "evil_error",
        "error_description": "Call 555 or visit https://evil.example",
        "error_uri": "https://evil.example",
        "iss": "https://evil.example",
        "state": asked["state"],
    }
    with caplog.at_level(logging.DEBUG), pytest.raises(AuthorizationFailed) as caught:
        attempt.take(urlencode(given))
    for text in (str(caught.value), repr(caught.value), caplog.text):
        assert "evil" not in text and "555" not in text
    assert caught.value.error is None
    assert "oauth.refused" in caplog.text


@pytest.mark.attack("ATK-199")
def test_an_error_of_the_right_server_is_shown_cleaned() -> None:
    attempt, asked = begun(SAYS_ISS)
    said = "\x1b[2J\u202eno: see https://evil.example/x " + "y" * 300
    with pytest.raises(AuthorizationFailed, match="access_denied") as caught:
        attempt.take(
            urlencode({"error": "access_denied", "error_description": said, "iss": ISSUER, "state": asked["state"]})
        )
    text = str(caught.value)
    assert caught.value.error == "access_denied"
    assert "no: see (address left out)" in text and "evil" not in text
    assert text.isascii() and text.isprintable() and len(text) < 300
    for odd in ("\x1b]0;x", "www.evil.example"):
        attempt, asked = begun()
        with pytest.raises(AuthorizationFailed, match="without a name") as caught:
            attempt.take(urlencode({"error": odd, "state": asked["state"]}))
        assert caught.value.error is None


@pytest.mark.attack("ATK-198")
def test_the_code_of_one_server_is_not_for_another() -> None:
    """The person meant to sign in at X, which sent the browser on to the honest H; H's code comes back."""
    evil = "https://x.example"
    attempt, asked = begun(
        server(issuer=evil, authorization_endpoint=f"{evil}/authorize", token_endpoint=f"{evil}/token")
    )
    with pytest.raises(AuthorizationFailed, match="another authorization server"):
        attempt.take(urlencode({"code": "of-h", "state": asked["state"], "iss": ISSUER}))
    honest, asked = begun()
    found = honest.take(urlencode({"code": "of-h", "state": asked["state"], "iss": ISSUER}))
    assert found is not None and found.server.token_endpoint == f"{ISSUER}/token"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_is_delivered_without_the_state_is_nothing(data: bytes) -> None:
    assert begun()[0].take(data.decode("latin-1")) is None


def state_of(attempt: Attempt) -> str:
    return parse_qs(urlsplit(attempt.url).query)["state"][0]


# With a browser


async def visit(address: str) -> bytes:
    """What the browser does with the address that it is redirected to."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


def person(*deliveries: dict[str, str], seen: list[bytes] | None = None) -> Browser:
    """A browser whose page leads to the redirect URI with these parameters, in order; `{state}` is filled."""

    async def browser(url: str) -> bool:
        asked = parse_qs(urlsplit(url).query)
        for delivery in deliveries:
            given = {name: value.replace("{state}", asked["state"][0]) for name, value in delivery.items()}
            page = await visit(f"{asked['redirect_uri'][0]}?{urlencode(given)}")
            if seen is not None:
                seen.append(page.split(b" ")[1])
        return True

    return browser


RIGHT = {"code": "c", "state": "{state}", "iss": ISSUER}


async def asked(browser: Browser, **more: Any) -> Authorized:
    async with RedirectListener() as listener:
        return await authorize(SAYS_ISS, "client-1", MCP, listener=listener, browser=browser, **more)


async def test_a_person_signs_in() -> None:
    found = await asked(person(RIGHT), scopes=("a",))
    assert (found.code.reveal(), found.server.issuer, found.scopes) == ("c", ISSUER, ("a",))
    assert found.request.parameters["redirect_uri"] == found.redirect_uri


@pytest.mark.attack("ATK-195")
async def test_forged_answers_do_not_end_the_flow() -> None:
    seen: list[bytes] = []
    forged = ({"code": "evil", "iss": ISSUER}, {**RIGHT, "state": "x"}, {"error": "access_denied", "state": "y"})
    found = await asked(person(*forged, RIGHT, seen=seen))
    assert found.code.reveal() == "c"
    assert seen == [b"400", b"400", b"400"]


@pytest.mark.attack("ATK-197")
async def test_an_answer_of_another_server_ends_the_flow() -> None:
    with pytest.raises(AuthorizationFailed, match="iss"):
        await asked(person({**RIGHT, "iss": "https://evil.example"}))
    with pytest.raises(AuthorizationFailed, match="access_denied"):
        await asked(person({"error": "access_denied", "state": "{state}", "iss": ISSUER}))


async def test_the_address_of_the_last_page_will_do() -> None:
    def pasted(url: str) -> str:
        given = parse_qs(urlsplit(url).query)
        return f"{given['redirect_uri'][0]}?code=c&state={given['state'][0]}&iss={quote(ISSUER)}#fragment"

    assert (await asked(pasted)).code.reveal() == "c"

    async def later(url: str) -> str:
        await asyncio.sleep(0.01)
        return pasted(url)

    assert (await asked(later)).code.reveal() == "c"
    for wrong in (
        lambda url: pasted(url).replace("/callback/", "/other/"),
        lambda url: pasted(url).replace("127.0.0.1", "evil.example"),
        lambda url: pasted(url).replace("state=", "state=x"),
        lambda url: "just-a-code",
        lambda url: pasted(url) + "x" * 9000,
    ):
        with pytest.raises(AuthorizationFailed, match="not the answer"):
            await asked(wrong)


@pytest.mark.attack("ATK-196")
async def test_what_stands_in_the_fragment_is_no_answer() -> None:
    def in_fragment(url: str) -> str:
        given = parse_qs(urlsplit(url).query)
        return f"{given['redirect_uri'][0]}#code=c&state={given['state'][0]}&iss={quote(ISSUER)}"

    with pytest.raises(AuthorizationFailed, match="not the answer"):
        await asked(in_fragment)


async def test_without_a_browser_it_says_so() -> None:
    with pytest.raises(AuthorizationFailed, match="headless"):
        await asked(lambda url: False)

    async def broken(url: str) -> bool:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await asked(broken)

    async def late(url: str) -> bool:
        raise TimeoutError("of the browser's own")

    with pytest.raises(TimeoutError, match="own"):
        await asked(late)


async def test_nobody_is_waited_for_without_end() -> None:
    begun_at = time.monotonic()
    with pytest.raises(AuthorizationFailed, match=r"0\.2 s"):
        await asked(lambda url: True, timeout=0.2)
    assert time.monotonic() - begun_at < 2

    async def never(url: str) -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(AuthorizationFailed, match="nobody signed in"):
        await asked(never, timeout=0.05)


async def test_who_gives_up_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    flow = asyncio.create_task(asked(lambda url: True))
    await asyncio.sleep(0.05)
    flow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flow
    assert asyncio.all_tasks() == before
