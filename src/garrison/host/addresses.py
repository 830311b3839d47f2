"""Addresses of pages that a server wants a person to visit: where they lead, and what is odd about them.

    page = check_page("https://xn--ggle-55da.com/login")
    page.host                                # "xn--ggle-55da.com"
    page.warnings                            # how its name reads, that it mixes Latin and Cyrillic, what it looks like

Rules of this file:
- Only https. What two programs could read as two places is refused: user information, backslashes, blanks, hidden and
  raw non-ASCII characters, escapes in the host.
- The host is told as a browser would connect to it: small letters, ASCII, numbers as the address that they are.
- Nothing here looks anything up, fetches or opens, but `open_page`, which only a program calls that was told to.

Spec: 2026-07-28 client/elicitation "Safe URL Handling"; URL Standard, "Host parsing"; RFC 3986; UTS 39.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple
from unicodedata import bidirectional, category, normalize

from ..errors import AuthorizationFailed, NotApproved
from ..safe.addresses import is_public
from .confusables import hidden, scripts_mixed, skeleton

__all__ = ["LONG", "MAX_URL", "Page", "check_page", "open_page"]

MAX_URL: Final = 8192
"""Characters of an address; a longer one is refused."""
LONG: Final = 2000
"""Characters from which an address is said to be long."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*+):(?://([^/?#]*+))?([^?#]*+)((?:\?[^#]*+)?(?:#.*+)?)", re.DOTALL)
_REST: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#\[\]|]|%[0-9A-Fa-f]{2})*+")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]+")
_PORT: Final = 443

_HERE: Final = frozenset(
    {"localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "test"}
)
"""Last labels of names that only this network knows."""
_ENDINGS: Final = frozenset({"com", "org", "net", "edu", "gov", "mil", "io", "dev", "app", "ai", "co"})
"""Labels that end the names of well-known places, and mislead in front of another."""
_SECOND: Final = frozenset({"com", "co", "org", "net", "edu", "gov", "ac", "or", "ne", "go"})
"""Labels in front of a country's, which together end names."""


class Page(NamedTuple):
    """Where an address leads."""

    host: str
    """As it would be connected to; an IPv6 address without brackets."""
    warnings: tuple[str, ...]
    """What a person should look at, in the host's words."""
    url: str
    """The same address with its host in ASCII."""


def check_page(url: str) -> Page:
    """Judge the address of a page by its text.

    Raises:
        NotApproved: it is not https, or could be read as leading to two places. The text says why.
    """
    if len(url) > MAX_URL:
        raise _refused(f"it has more than {MAX_URL} characters")
    if hidden(url) or " " in url or "\\" in url:
        raise _refused("it holds blanks, backslashes or hidden characters")
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() != "https" or not match[2]:
        raise _refused("it does not begin with https:// and the name of a place")
    authority, path, rest = match[2], match[3], match[4]
    if "@" in authority:
        raise _refused("it has a name in front of the place it leads to (user information, '@')")
    if not _REST.fullmatch(path + rest):
        raise _refused("behind its host it holds characters that an address only has percent-encoded")
    written, port = _split(authority)
    warnings: list[str] = []
    host = _host(written, warnings)
    if port != _PORT:
        warnings.append(f"it leads to port {port}, not to the usual one")
    if "//" in path:
        warnings.append(f"its path looks like another address; it leads to {host}")
    if len(url) > LONG:
        warnings.append(f"it is long: {len(url)} characters")
    shown = f"[{host}]" if ":" in host else host
    return Page(host, tuple(warnings), f"https://{shown}{'' if port == _PORT else f':{port}'}{path}{rest}")


async def open_page(url: str) -> bool:
    """Open a page in the desktop's browser. No part of Garrison calls this: a program does, once a person agreed.

    The browser is started at a fixed place with the address as its one argument, and without a shell.

    Returns:
        False where there is no desktop, or nothing that opens pages.

    Raises:
        NotApproved: as `check_page`, or the address has characters that a program could take for more than that.
    """
    from ..auth.client.browser import open_browser  # lazy: hardly any host opens pages by itself

    try:
        return await open_browser(check_page(url).url)
    except AuthorizationFailed as exc:
        raise _refused("it has characters that are not given to a browser's program") from exc


def _refused(why: str) -> NotApproved:
    return NotApproved(f"the address of the page is refused: {why}")


def _split(authority: str) -> tuple[str, int]:
    """Host and port."""
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        return authority, _PORT
    if port and not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise _refused("its port is none")
    return host, int(port) if port else _PORT


def _host(written: str, warnings: list[str]) -> str:
    if written.startswith("["):
        return _six(written, warnings)
    if "%" in written:
        raise _refused("its host is written with escapes")
    labels = written.lower().removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _four(written, labels, warnings)
    spelled = [_ascii(label) for label in labels]
    host = ".".join(spelled)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in spelled):
        raise _refused("its host is no name")
    warnings += _about_name(host, [_unicode(label) for label in spelled])
    return host


def _six(written: str, warnings: list[str]) -> str:
    try:
        address = IPv6Address(written[1:-1])
    except AddressValueError:
        raise _refused("its host is no address") from None
    if address.scope_id is not None or not written.endswith("]"):
        raise _refused("its host is no address")
    warnings += _about_number(str(address), written[1:-1])
    return str(address)


def _four(written: str, labels: list[str], warnings: list[str]) -> str:
    """An IPv4 address in any of the ways in which browsers read one: fewer parts, octal, hexadecimal."""
    numbers: list[int] = []
    for label in labels:
        if not _NUMBER.fullmatch(label):
            raise _refused("its host is neither a name nor an address")
        digits, base = (label[2:], 16) if label.startswith("0x") else (label, 8 if label.startswith("0") else 10)
        try:
            numbers.append(int(digits[:64] or "0", base))
        except ValueError:
            raise _refused("its host is no address") from None
    *parts, last = numbers
    if len(numbers) > 4 or any(part > 255 for part in parts) or last >= 256 ** (5 - len(numbers)):
        raise _refused("its host is no address")
    value = sum(part << 8 * (3 - place) for place, part in enumerate(parts)) + last
    address = str(IPv4Address(value))
    warnings += _about_number(address, written.removesuffix("."))
    return address


def _about_number(address: str, written: str) -> Iterator[str]:
    yield f"it leads to a number ({address}), not to a name"
    if address != written.lower():
        yield f"the number is written in an unusual way: {written[:80]}"
    if not is_public(address):
        yield f"{address} is this machine, or one of a network that is not public"


def _about_name(host: str, labels: list[str]) -> Iterator[str]:
    reads = ".".join(labels)
    if reads != host:
        yield f"its name reads {reads!r}; what it leads to is written {host}"
    for label in labels:
        if label.isascii():
            continue
        mixed = scripts_mixed(label)
        alike = skeleton(label)
        if mixed:
            yield f"{label!r} mixes letters of {' and '.join(mixed)}, as only imitations do"
        if alike.isascii():
            yield f"{label!r} looks like {alike!r} and is not"
        if any(bidirectional(each) in ("R", "AL") for each in label):
            yield f"{label!r} is written from right to left: parts of the address may seem to stand elsewhere"
    if len(labels) == 1 or labels[-1] in _HERE:
        yield f"{host} is this machine, or one of a network that is not public"
    own = -3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND else -2
    if any(label.partition("-")[0] in _ENDINGS for label in labels[1:own]):
        yield f"it leads to {'.'.join(labels[own:])}; what stands before that is anybody's choice"


def _ascii(label: str) -> str:
    """A label as it is looked up. RFC 3492, with the characters that IDNA maps to others refused."""
    if label.isascii():
        return label
    if label.startswith("xn--"):
        raise _refused("its host is no name: Punycode is ASCII")
    if normalize("NFKC", label) != label or any(category(each)[0] not in "LMN" and each != "-" for each in label):
        raise _refused("its host holds characters that stand for others")
    return "xn--" + label.encode("punycode").decode()


def _unicode(label: str) -> str:
    """A label as it is read."""
    if not label.startswith("xn--"):
        return label
    try:
        read = label[4:].encode().decode("punycode")
    except UnicodeError:
        raise _refused("its host is no name: Punycode that is none") from None
    if read.isascii() or hidden(read) or normalize("NFKC", read.lower()) != read:
        raise _refused("its host is no name: Punycode of what needs none, or may not be in a name")
    return read
