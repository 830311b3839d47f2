"""Answers at the redirect URI: judged as a second reading of the query judges them. The right state counts once, no
parameter twice, and of an answer that fails by its state or its issuer nothing is shown.

The input is a line that chooses the server, and deliveries, one a line. `STATE` in them is the state, `%53TATE` the
same in percent escapes, `ISSUER` the issuer's."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from fuzz.oracle import agree, hold
from garrison.auth import AuthorizationServerMetadata
from garrison.auth.client.code_flow import Attempt, Authorized
from garrison.errors import AuthorizationFailed

SEEDS = (
    b"\ncode=abc&state=STATE",
    b"a\ncode=abc&state=STATE&iss=ISSUER\ncode=abc&state=STATE&iss=ISSUER",
    b"r\ncode=abc&state=STATE",
    b"\ncode=a&state=STATE&iss=https://evil.example\ncode=a&state=STATE",
    b"\ncode=abc&code=abc&state=STATE",
    b"\nstate=STATE&state=STATE&code=a\nstate=x&code=evil\nstate=%53TATE&code=a%20b+c",
    b"\nerror=access_denied&error_description=No%2C+see+https%3A%2F%2Fevil.example%0A&state=STATE",
    b"\nerror=STATE&error_description=STATE&state=STATE&error_uri=x",
    b"a\nerror=server_error&state=STATE\n",
    b"\nstate=STATE&error=&code=a",
    b"\nstate=STATE\ncode&state",
    b"\n&&;&=&%FF=1&state=STATE&code=1",
    b"r\n" + b"x=1&" * 40 + b"state=STATE&code=1&iss=ISSUER",
)
WORDS = (
    *b"STATE %53TATE ISSUER state= code= iss= error= error_description= & && = ; + % %00 %FF %26 %3D".split(),
    *b"%C3%A9 access_denied https%3A%2F%2F www. a=1 ? # error_uri=".split(),
    *(b"\n", b"&state=STATE", b"&iss=ISSUER", b"s%74ate="),
)
ISSUER = "https://as.example"
_REDIRECT = "http://127.0.0.1:40001/callback"
_SERVERS = [
    AuthorizationServerMetadata(
        issuer=ISSUER,
        authorization_endpoint=f"{ISSUER}/authorize",
        token_endpoint=f"{ISSUER}/token",
        code_challenge_methods_supported=("S256",),
        authorization_response_iss_parameter_supported=announced,
    )
    for announced in (False, True)
]


class Begun:
    """An attempt, and what the browser knows of it."""

    def __init__(self, choice: bytes) -> None:
        self.announced, self.required = b"a" in choice, b"r" in choice
        self.attempt = Attempt(
            _SERVERS[self.announced], "client", f"{ISSUER}/mcp", redirect_uri=_REDIRECT, require_iss=self.required
        )
        self.state = parse_qs(urlsplit(self.attempt.url).query)["state"][0]

    def fill(self, line: bytes) -> str:
        """A delivery with its words replaced."""
        escaped = "".join(f"%{ord(char):02X}" for char in self.state)
        text = line.decode("utf-8", "surrogateescape").replace("%53TATE", escaped).replace("STATE", self.state)
        return text.replace("ISSUER", quote(ISSUER, safe=""))


def parameters(query: str) -> list[tuple[str, str]]:
    """The members of a form, by hand; nothing where it is none."""
    pieces = query.split("&")
    if len(pieces) > 32:
        return []
    found: list[tuple[str, str]] = []
    for piece in filter(None, pieces):
        try:
            name, _, value = (_plain(part) for part in piece.partition("="))
        except UnicodeDecodeError:
            return []
        found.append((name, value))
    return found


def _plain(text: str) -> str:
    """Each run of ASCII is decoded by itself; what is not ASCII stays."""
    runs = re.split(r"([^\0-\x7f]+)", text.replace("+", " "))
    return "".join(run if number % 2 else unquote_to_bytes(run).decode() for number, run in enumerate(runs))


def expected(begun: Begun, query: str) -> str:
    """What has to come of a query that is the first with the right state; empty: it is not the answer."""
    found = parameters(query)
    given = dict(found)
    if [value for name, value in found if name == "state"] != [begun.state]:
        return ""
    if any(count > 1 for count in Counter(name for name, _ in found).values()):
        return "twice"
    if given.get("iss", "" if begun.announced or begun.required else ISSUER) != ISSUER:
        return "iss" if "iss" in given else "no iss"
    if "error" in given:
        return "error"
    code = given.get("code", "")
    return "code" if len(code) <= 4096 and re.fullmatch(r"[ -~]+", code) else "no code"


def message(choice: bytes, query: bytes) -> str:
    """What is said of an answer that says nothing of its own."""
    begun = Begun(choice)
    try:
        begun.attempt.take(begun.fill(query))
    except AuthorizationFailed as error:
        return str(error)
    raise LookupError("a seed of this target is wrong")


_SAID = {
    "twice": message(b"", b"state=STATE&x=&x="),
    "iss": message(b"", b"state=STATE&iss=x"),
    "no iss": message(b"r", b"state=STATE"),
}


def check(data: bytes) -> None:
    choice, *lines = data.split(b"\n")[:9]
    begun = Begun(choice)
    over = False
    for line in lines:
        query = begun.fill(line)
        due = "" if over else expected(begun, query)
        agree("outcome", judged(begun, query, due), due)
        over = over or due != ""
        whole(choice, line)


def judged(begun: Begun, query: str, due: str) -> str:
    """Which of the outcomes it is, as far as can be seen from outside."""
    given = dict(parameters(query))
    try:
        found = begun.attempt.take(query)
    except AuthorizationFailed as error:
        text = str(error)
        hold(text.isascii() and text.isprintable() and len(text) < 400, "what is said", text)
        hold(begun.state not in text and begun.state not in repr(error), "the state is shown", text)
        hold(not re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/|www\.", text), "a link", text)
        if due in _SAID:
            agree("what is said", (text, error.error), (_SAID[due], None))
        elif due == "error":
            hold(error.error is None or re.fullmatch(r"[\w.-]{1,64}", error.error, re.ASCII), "code", error.error)
            named = re.fullmatch("[a-z_]{1,64}", given["error"]) and given["error"] != begun.state
            hold(error.error == given["error"] or (not named and error.error is None), "code", error.error)
        else:
            agree("code", error.error, None)
            hold(not visible(given.get("code", ""), text), "the code is shown", text)
        return due or "failed"
    if found is None:
        return ""
    hold(isinstance(found, Authorized), "what came", found)
    agree("code", found.code.reveal(), given["code"])
    agree("asked", (found.server.issuer, found.redirect_uri), (ISSUER, _REDIRECT))
    agree("exchanged", found.request.parameters["code"], given["code"])
    hold(not visible(given["code"], repr(found)), "the code is shown", found)
    return "code"


def visible(code: str, text: str) -> bool:
    """Whether a text shows a code, and not by chance."""
    return len(code) >= 20 and code[:20] in text


def whole(choice: bytes, line: bytes) -> None:
    """The same delivery as an address that a person gives."""
    begun = Begun(choice)
    query = begun.fill(line)
    if "#" in query:
        return
    due = expected(begun, query)
    try:
        found = begun.attempt.take_address(f"{_REDIRECT}?{query}#{line.decode('latin-1')}")
    except AuthorizationFailed as error:
        hold(due != "code", "refused as an address", query)
        hold(begun.state not in str(error), "the state is shown", str(error))
        return
    agree("taken as an address", (due, found.code.reveal()), ("code", dict(parameters(query))["code"]))
