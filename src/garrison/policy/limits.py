"""Limits and time-outs: frozen values whose defaults are the secure ones.

Rules of this file:
- Every number here is enforced by the live transport or parser that it names; there are no switches, only values.
- One object for all transports: what a number bounds, it bounds in the same way on each.
- The defaults leave an honest program alone (a burst of 200 calls, 100 of them at once, 50 a second sustained), and are
  tight where honesty needs no room.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError

__all__ = ["Limits", "Timeouts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of anything a peer may cause.

    Raises:
        ConfigurationError: a value is not a positive integer.
    """

    message_bytes: int = 16 * 1024 * 1024
    """Bytes of one message, every transport, both directions; counted while reading."""
    json_depth: int = 64
    """Nesting of arrays and objects. Never above 190."""
    json_nodes: int = 100_000
    """Values in one message, all levels together."""
    json_members: int = 1_000
    """Members of one object."""
    json_items: int = 10_000
    """Items of one array."""
    json_key_chars: int = 256
    """Code points of one member name."""
    json_number_chars: int = 64
    """Characters of one number."""
    argument_chars: int = 64 * 1024
    """Code points of a text in a tool's arguments, where its author set no bound. Published in its schema."""
    argument_items: int = 1_000
    """Items of an array in a tool's arguments, where its author set no bound. Published in its schema."""
    output_block_bytes: int = 1024 * 1024
    """Bytes of one text in a result, in UTF-8; what is longer is cut, and says so."""
    output_bytes: int = 4 * 1024 * 1024
    """Bytes of a whole result as JSON; a larger one is not sent."""
    header_bytes: int = 16 * 1024
    """Bytes of a whole HTTP head, request line included."""
    header_count: int = 64
    """Fields of one HTTP head."""
    connections: int = 512
    """Open connections of one listener. One more makes the connection that has waited longest without being let in
    leave; where all were let in, it is refused."""
    connections_per_address: int = 256
    """The same, for the connections of one peer address."""
    in_flight: int = 128
    """Requests under way on one connection; reading stops until one ends."""
    in_flight_per_principal: int = 256
    """Requests under way of one principal, all connections together; one more is refused."""
    message_rate: int = 100
    """Messages a second on one connection; reading stops until there is room. A message costs one, and one more for
    every 16 KiB of it."""
    message_burst: int = 400
    """Messages that may come at once before `message_rate` counts."""
    malformed_per_minute: int = 20
    """Malformed messages on one connection; one more ends it. Each is answered."""
    body_rate: int = 1024
    """Bytes a second in which a message that was begun has to arrive, once `Timeouts.body` has passed."""
    fragments: int = 1024
    """Frames of one WebSocket message."""
    outbound_bytes: int = 4 * 1024 * 1024
    """Bytes waiting for a peer that reads slowly, beside the one message being written."""
    sessions: int = 1_000
    """Legacy sessions in all."""
    sessions_per_principal: int = 250
    """Legacy sessions of one principal."""
    session_events: int = 256
    """Events kept for resumption, per legacy session."""
    session_event_bytes: int = 1024 * 1024
    """Bytes of events kept for resumption, per legacy session."""
    subscriptions: int = 1_000
    """Open `subscriptions/listen` streams of one server."""
    subscriptions_per_principal: int = 250
    """Open `subscriptions/listen` streams of one principal."""
    subscription_events: int = 256
    """Notifications a client keeps for a reader of one subscription; it ends when there are more."""
    batch: int = 50
    """Messages in one batch (revision 2025-03-26 only)."""
    rounds: int = 10
    """Rounds of asking back in one request."""
    threads: int = 32
    """Worker threads for synchronous handlers."""
    pages: int = 100
    """Pages a client follows in one listing."""
    definition_bytes: int = 64 * 1024
    """Bytes of one tool, resource, template or prompt that a server lists, as JSON, and of a cursor."""
    tools: int = 512
    """Tools that a client takes from one server."""
    listed: int = 10_000
    """Resources, templates or prompts that a client takes in one listing."""
    progress_rate: int = 100
    """Progress reports a second that a client passes on for one request; what is more is dropped."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"Limits.{name} must be a positive integer")
        if self.json_depth > 190:
            raise ConfigurationError("Limits.json_depth must be at most 190")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds until something that does not happen is given up.

    Raises:
        ConfigurationError: a value is not a positive number.
    """

    head: float = 10.0
    """From the first byte of an HTTP head to its last; for the first one of a connection, from its beginning."""
    body: float = 30.0
    """From the first byte of a message to its last; a second more for every `Limits.body_rate` bytes that came."""
    tls: float = 10.0
    """A TLS handshake."""
    idle: float = 30.0
    """An HTTP connection with nothing under way."""
    write_stall: float = 30.0
    """A peer that takes no bytes."""
    handler: float = 120.0
    """One run of a handler on the server."""
    ask: float = 300.0
    """A server's question to a legacy client."""
    session_idle: float = 1800.0
    """A legacy session, a WebSocket or a connection over a Unix socket without any request."""
    session_max: float = 28_800.0
    """A legacy session, in use or not."""
    ping: float = 20.0
    """Between pings on a WebSocket on which nothing arrives."""
    pong: float = 20.0
    """From a ping to any sign of life."""
    keep_alive: float = 15.0
    """Between comment lines on a quiet event stream."""
    request: float = 60.0
    """A client's request; progress starts it anew."""
    request_max: float = 300.0
    """A client's request, progress or not."""
    listing: float = 30.0
    """All pages of a client's listing. The time in which somebody is asked, or progress comes, is not counted; with
    it a listing ends at `request_max`."""
    connect: float = 10.0
    """Opening a connection, or the first answer of a started server."""
    shutdown: float = 5.0
    """Letting requests end before they are cancelled, and a child process before it is killed."""
    state: float = 600.0
    """Life of a sealed `requestState`."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise ConfigurationError(f"Timeouts.{name} must be a positive number of seconds")
