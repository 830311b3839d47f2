"""`WWW-Authenticate`: the challenges of a second reading, written and read again the same, whatever fields they were
spread over, in time that grows with the length and no faster. The input is one field a line."""

from __future__ import annotations

import re
import time

from fuzz.oracle import agree, chance, hold, parts, pumped, steps
from garrison.auth.challenge import MAX_CHARS, ChallengeError, WwwAuthenticate

SEEDS = (
    b'Bearer resource_metadata="https://a.example/.well-known/oauth-protected-resource", scope="files:read files"',
    b'Bearer error="invalid_token", error_description="expired"\nDPoP algs="ES256 EdDSA"',
    b'Basic realm="a \\"b\\", c", charset=UTF-8, , Negotiate YWJj==,Bearer',
    b'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
    b'Bearer , a = b\t,\tC\t=\t""',
    b"Digest a=b, A=c",
    b"Bearer scope=x error=y",
    b"Bearer realm=a=, b",
    b'Bearer a="\xe9\t", Negotiate a=, x',
    b'a="b", Bearer',
)
WORDS = (
    *(b"Bearer ", b"DPoP ", b"Negotiate abc==", b"realm=", b"scope=", b"error=", b"error_description=", b"algs="),
    *(b"resource_metadata=", b'"', b'\\"', b"\\", b",", b", ", b"=", b"==", b" = ", b"\t", b"\n", b"\xa0", b"\x85"),
    *(b'="', b'""', b"token68", b"/", b"https://a.example/"),
)
_TCHAR = r"[0-9A-Za-z!#$%&'*+.^_`|~-]"
_TEXT = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_PARAMETER = rf"({_TCHAR}+)[ \t]*=[ \t]*({_TCHAR}+|{_TEXT})"
_ALONE = re.compile(_PARAMETER)
_WITH_PARAMETER = re.compile(rf"({_TCHAR}+)[ \t]+{_PARAMETER}")
_WITH_TOKEN68 = re.compile(rf"({_TCHAR}+)[ \t]+([0-9A-Za-z._~+/-]+=*)")
_SCHEME = re.compile(_TCHAR + "+")
_PIECE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*', re.DOTALL)
_WRITTEN = re.compile(r"[\t -~\x80-\xff]*")
_OWN = ("resource_metadata", "error", "error_description", "scope", "realm")

Reading = list[tuple[str, str | None, dict[str, str]]]


def elements(text: str) -> list[str] | None:
    """A list of RFC 9110 section 5.6.1 without its commas; None: a quotation does not end."""
    found: list[str] = []
    position = 0
    while True:
        match = _PIECE.match(text, position)
        end = position if match is None else match.end()
        found.append(text[position:end])
        if end == len(text):
            return found
        if text[end] != ",":
            return None
        position = end + 1


def reference(text: str) -> Reading | None:
    """The challenges, element by element; None for what is none."""
    found: Reading = []
    for element in elements(text) or ["?"]:
        element = element.strip(" \t")
        if not element:
            continue
        if match := _ALONE.fullmatch(element):
            name, value = match.groups()
        elif match := _WITH_PARAMETER.fullmatch(element):
            scheme, name, value = match.groups()
            found.append((scheme, None, {}))
        elif match := _WITH_TOKEN68.fullmatch(element):
            found.append((match[1], match[2], {}))
            continue
        elif _SCHEME.fullmatch(element):
            found.append((element, None, {}))
            continue
        else:
            return None
        if not found or found[-1][1] is not None or name.lower() in found[-1][2]:
            return None
        quoted = value.startswith('"')
        found[-1][2][name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if quoted else value
    return found if all(allowed(given) for _, _, given in found) else None


def allowed(given: dict[str, str]) -> bool:
    """RFC 6750 section 3: what the attributes of OAuth may hold."""
    plain = [given.get(name, "") for name in ("error", "error_description", "scope")]
    return all(" " <= char <= "~" and char not in '"\\' for value in plain for char in value)


def shown(challenge: WwwAuthenticate) -> tuple[str, str | None, dict[str, str]]:
    """A challenge as the reference has it."""
    own = {name: getattr(challenge, name) for name in _OWN if name != "scope"}
    given = {name: value for name, value in own.items() if value is not None} | dict(challenge.parameters)
    return challenge.scheme, challenge.token68, given | {"scope": " ".join(challenge.scope)}


def check(data: bytes) -> None:
    values = data.decode("latin-1").split("\n")
    text = ",".join(values)
    expected = reference(text)
    try:
        found = WwwAuthenticate.parse(*values)
    except ChallengeError as error:
        hold(len(str(error)) < 120 and str(error).isascii(), "what is said", str(error))
        agree("refused", None, expected)
    else:
        hold(expected is not None, "taken", values)
        for challenge, (scheme, token68, given) in zip(found, expected or [], strict=True):
            words = " ".join(word for word in given.get("scope", "").split(" ") if word)
            agree("challenge", shown(challenge), (scheme, token68, given | {"scope": words}))
            again(challenge)
        agree("all again", WwwAuthenticate.parse(", ".join(map(str, found))), found)
        spread(text, found)
    build(data)
    if chance(data).random() < 0.005:
        long = pumped(data, MAX_CHARS - 10).decode("latin-1")[:MAX_CHARS]
        begin = time.process_time()
        _quietly(long)
        hold(time.process_time() - begin < 1.0, "slow")
        hold(steps(lambda: _quietly(long)) < 80 * len(long) + 1000, "steps")
        hold(_quietly(long + "," * (MAX_CHARS + 1 - len(long))), "too long, and taken")


def again(challenge: WwwAuthenticate) -> None:
    """What is written can stand in a header line, and is read again."""
    written = str(challenge)
    hold(_WRITTEN.fullmatch(written), "cannot stand in a header", written)
    agree("again", WwwAuthenticate.parse(written), (challenge,))


def spread(text: str, found: tuple[WwwAuthenticate, ...]) -> None:
    """Other fields, and elements without anything, change nothing."""
    pieces = elements(text) or []
    agree("each in a field", WwwAuthenticate.parse(*pieces), found)
    dice = chance(text.encode("latin-1"))
    fields = [pieces[0]]
    for piece in pieces[1:]:
        if dice.random() < 0.5:
            fields.append(piece)
        else:
            fields[-1] += "\t, ," + piece
    agree("spread", WwwAuthenticate.parse("", *fields, " "), found)


def build(data: bytes) -> None:
    """A challenge of these parts is refused, or can be written and read."""
    scheme, one, two, three = (part.decode("latin-1") for part in parts(data, 4))
    try:
        made = WwwAuthenticate(
            one or None,
            scheme=scheme.partition(" ")[0],
            error=two or None,
            scope=tuple(word for word in three.split(" ") if word),
            realm=three or None,
            parameters={two.lower(): one} if two else {},
            token68=None,
        )
    except ValueError:
        return
    again(made)


def _quietly(text: str) -> bool:
    """True where it is refused."""
    try:
        WwwAuthenticate.parse(text)
    except ChallengeError:
        return True
    return False
