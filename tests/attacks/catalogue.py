"""The attacks that this project answers: number, what is tried, and the transports on which it has to fail.

Rules of this file:
- A case without transports has one test or more, wherever they are. A case with transports is answered only where a
  test of it has passed on each of them.
- A case that has nothing to attack here is `not_applicable`, with the reason; it is not a pass.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CASES", "CLIENT", "EVERYWHERE", "MODERN", "TRANSPORTS", "Case"]

EVERYWHERE: tuple[str, ...] = (
    *("memory", "stdio", "http", "session", "asgi"),
    *("websocket", "asgi-websocket", "unix"),
)
"""Every transport of a server: `session` is HTTP with a handshake; `asgi` and `asgi-websocket` stand behind somebody
else's listener."""
MODERN: tuple[str, ...] = tuple(kind for kind in EVERYWHERE if kind != "session")
"""For what only the newest revision has."""
CLIENT: tuple[str, ...] = ("stdio", "http", "websocket", "unix")
"""Every transport over which a client meets a server that is not its own."""
TRANSPORTS = frozenset({*EVERYWHERE, *CLIENT})


class Case(NamedTuple):
    """One attack."""

    id: str
    title: str
    transports: tuple[str, ...] = ()
    not_applicable: str = ""
    """Why there is nothing to attack; empty for nearly all."""


CASES: tuple[Case, ...] = (
    # Who may speak to an HTTP listener
    Case("ATK-001", "A Host that is not served"),
    Case("ATK-002", "An Origin that is not listed"),
    Case("ATK-003", "Origin: null"),
    Case("ATK-004", "A Host that begins like a served one"),
    Case("ATK-005", "An Origin that begins like a listed one"),
    Case("ATK-006", "A listed Origin with another scheme"),
    Case("ATK-007", "Host twice"),
    Case("ATK-008", "A target with another authority"),
    Case("ATK-009", "No Host"),
    Case("ATK-010", "Host in other spellings"),
    Case("ATK-011", "Origin is checked on every path and method"),
    Case("ATK-012", "A bind that others can reach, without what it needs"),
    Case("ATK-013", "A bind that others can reach, with all it needs, asked under a foreign name"),
    Case("ATK-014", "0.0.0.0 as the name of this machine"),
    Case("ATK-015", "A foreign name that points to this machine"),
    Case("ATK-016", "No token on loopback"),
    Case("ATK-017", "A form of a web page"),
    Case("ATK-018", "Media types that look like JSON"),
    Case("ATK-019", "A preflight of a foreign page"),
    Case("ATK-020", "Fetch metadata of a foreign page without Origin"),
    Case("ATK-021", "Mounted in an application with open CORS"),
    Case("ATK-022", "Forwarded headers of a peer that is no proxy"),
    Case("ATK-023", "Host reaches what the server says of itself"),
    Case("ATK-024", "A response without the security headers, or with a banner"),
    Case("ATK-025", "Sessions and resumption where there are none"),
    # HTTP: parsing, sizes, time
    Case("ATK-026", "A body declared too large"),
    Case("ATK-027", "A body too large and not declared"),
    Case("ATK-028", "Expect: 100-continue, and then nothing"),
    Case("ATK-029", "More bytes than Content-Length says"),
    Case("ATK-030", "Content-Length against Transfer-Encoding"),
    Case("ATK-031", "Malformed chunks"),
    Case("ATK-032", "Folded lines, bare CR, NUL, space before the colon"),
    Case("ATK-033", "Too many fields, too large a field, a head without end"),
    Case("ATK-034", "A head byte by byte"),
    Case("ATK-035", "A body byte by byte"),
    Case("ATK-036", "Hoarded connections"),
    Case("ATK-037", "A reader that stops reading"),
    Case("ATK-038", "A compressed body"),
    Case("ATK-039", "A peer that leaves during its call"),
    Case("ATK-040", "Connections reset in the middle"),
    Case("ATK-041", "A storm of malformed JSON"),
    Case("ATK-042", "A flood of slow calls with one token"),
    Case("ATK-043", "The same ids from two clients"),
    Case("ATK-044", "Other methods, and headers that override them"),
    Case("ATK-045", "Other spellings of the path"),
    Case("ATK-046", "Accept without event streams"),
    Case("ATK-047", "Line breaks in what becomes an event"),
    Case("ATK-048", "Old TLS, and certificates that prove nothing"),
    Case("ATK-049", "Plain http off loopback, and redirects to it"),
    Case("ATK-050", "A key that others can read"),
    # Headers that repeat the body
    Case("ATK-051", "Another name in the header"),
    Case("ATK-052", "Another method in the header"),
    Case("ATK-053", "Another version in the header"),
    Case("ATK-054", "A required header is missing"),
    Case("ATK-055", "A mirrored header twice"),
    Case("ATK-056", "A name in Base64, as it should be"),
    Case("ATK-057", "A name in Base64, as it should not be"),
    Case("ATK-058", "A mirrored argument that differs, or is missing"),
    Case("ATK-059", "A mirrored number in other spellings"),
    Case("ATK-060", "Line breaks in a mirrored argument"),
    # stdio, WebSocket, Unix socket
    Case("ATK-061", "A line without end"),
    Case("ATK-062", "Lines that are not UTF-8"),
    Case("ATK-063", "Output of a handler among the messages"),
    Case("ATK-064", "CRLF, blank lines, lone CR"),
    Case("ATK-065", "Responses that nobody waits for"),
    Case("ATK-066", "Input ends during a call"),
    Case("ATK-067", "A flood of requests by a peer that does not read"),
    Case("ATK-068", "Cancelling too early, too late, twice, and for others"),
    Case("ATK-069", "A WebSocket opened by a foreign page"),
    Case("ATK-070", "A WebSocket under another host, and a flood of subprotocols"),
    Case("ATK-071", "The token in the query"),
    Case("ATK-072", "A message in a million fragments"),
    Case("ATK-073", "Frames that break the rules"),
    Case("ATK-074", "A credential that ends while the connection lasts"),
    Case("ATK-075", "Who may open the Unix socket"),
    Case("ATK-076", "A symbolic link where the socket will be"),
    Case("ATK-077", "A socket in a place that others can write to"),
    Case("ATK-078", "A token on the command line"),
    # JSON and JSON-RPC, on every transport
    Case("ATK-079", "The name twice", EVERYWHERE),
    Case("ATK-080", "A member twice, further in or in another spelling", EVERYWHERE),
    Case("ATK-081", "NaN and infinities", EVERYWHERE),
    Case("ATK-082", "Numbers that overflow", EVERYWHERE),
    Case("ATK-083", "Numbers without end", EVERYWHERE),
    Case("ATK-084", "Integers that a double rounds", EVERYWHERE),
    Case("ATK-085", "Deep nesting", EVERYWHERE),
    Case("ATK-086", "Wide objects and arrays", EVERYWHERE),
    Case("ATK-087", "Unpaired surrogates", EVERYWHERE),
    Case("ATK-088", "Control characters in names and ids", EVERYWHERE),
    Case("ATK-089", "Something after the message", EVERYWHERE),
    Case("ATK-090", "What is not JSON", EVERYWHERE),
    Case("ATK-091", "Ids that are none", EVERYWHERE),
    Case("ATK-092", 'Ids 1 and "1" at once', EVERYWHERE),
    Case("ATK-093", "An id that is under way", EVERYWHERE),
    Case("ATK-094", "Another jsonrpc version", EVERYWHERE),
    Case("ATK-095", "Request and response in one", EVERYWHERE),
    Case("ATK-096", "Batches", EVERYWHERE),
    Case("ATK-097", "Required members of _meta are missing", MODERN),
    Case("ATK-098", "Versions that do not exist", MODERN),
    Case("ATK-099", "Capabilities of an earlier request", MODERN),
    Case("ATK-100", "Methods that do not exist", EVERYWHERE),
    Case("ATK-101", "Reserved members of _meta from a client", EVERYWHERE),
    Case("ATK-102", "Trace context without measure", EVERYWHERE),
    Case("ATK-103", "Progress that is not due, or never ends", CLIENT),
    Case("ATK-104", "A result of an unknown type", CLIENT),
    Case("ATK-105", "Responses that nobody asked for", CLIENT),
    Case("ATK-106", "A schema that wants something fetched", CLIENT),
    Case("ATK-107", "A schema that costs without end", CLIENT),
    Case("ATK-108", "A server that pretends to be older"),
    Case("ATK-109", "Error codes that are reserved", EVERYWHERE),
    Case("ATK-110", "Log messages that nobody asked for", MODERN),
    Case("ATK-111", "Subscriptions beyond what was asked, or another's", MODERN),
    Case("ATK-112", "A misspelt setting"),
    Case("ATK-113", "One transport is laxer than another", EVERYWHERE),
    Case("ATK-114", "Optimised mode and a quiet log", EVERYWHERE),
)
