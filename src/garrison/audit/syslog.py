"""Audit records as syslog messages: RFC 5424, to the machine's own daemon or over the network.

Rules of this file:
- The message is the record as JSON, and printable, so that it can neither end the line nor make another one.
- Over TCP each message is preceded by its length (RFC 6587 section 3.4.1, RFC 5425). UDP and the local socket say
  nothing of loss; who has to know uses TCP with TLS.
- What leaves the machine goes through TLS, or says why not.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, Literal, final

from ..errors import ConfigurationError, InsecureConfigurationError
from .chain import AuditKey
from .contract import AuditFailed
from .record import Recorder, encode

if TYPE_CHECKING:
    import ssl

    from ..events import Event

__all__ = ["SyslogSink"]

_AUTHPRIV: Final = 10
_SEVERITIES: Final = {"refused": 4, "failed": 3, "noted": 5}
"""Decision -> severity of RFC 5424 table 2; the rest is informational."""
_INFORMATIONAL: Final = 6
_NAME: Final = re.compile(r"[!-~]{1,48}")
_HOST: Final = re.compile(r"[!-~]{1,255}")
_PAUSE: Final = 5.0
"""Seconds after a failed connection in which none is tried."""


@final
class SyslogSink:
    """Sends records to a syslog daemon.

    Args:
        address: the path of a local socket, or host and port.
        protocol: `udp` or `tcp`, for a host and port.
        tls: for TCP: what to wrap the connection in (RFC 5425, port 6514 as a rule).
        facility: the number of RFC 5424 table 1; 10 is for security messages.
        app_name: as which program the messages are sent.
        timeout: seconds that one message may take.
        key, fields: as for `AuditLog`.
        dangerously_plain: why records may leave the machine without TLS.

    Raises:
        ConfigurationError: a value is not of its form.
        InsecureConfigurationError: the host is not this machine, and there is neither TLS nor a reason.
    """

    __slots__ = (
        *("_address", "_app", "_closed", "_facility", "_host", "_lock", "_protocol", "_recorder", "_seq", "_socket"),
        *("_timeout", "_tls", "_tried"),
    )

    def __init__(
        self,
        address: str | tuple[str, int] = "/dev/log",
        *,
        protocol: Literal["udp", "tcp"] = "udp",
        tls: ssl.SSLContext | None = None,
        facility: int = _AUTHPRIV,
        app_name: str = "garrison",
        timeout: float = 1.0,
        key: AuditKey | None = None,
        fields: Mapping[str, Iterable[str]] | None = None,
        dangerously_plain: str = "",
    ) -> None:
        if protocol not in ("udp", "tcp"):
            raise ConfigurationError("SyslogSink.protocol: udp or tcp")
        if not 0 <= facility <= 23:
            raise ConfigurationError("SyslogSink.facility: a number from 0 to 23")
        if _NAME.fullmatch(app_name) is None:
            raise ConfigurationError("SyslogSink.app_name: up to 48 printable ASCII characters, without spaces")
        if tls is not None and (protocol != "tcp" or isinstance(address, str)):
            raise ConfigurationError("SyslogSink.tls: only over TCP, to a host and port")
        if tls is not None and not _verifies(tls):
            raise InsecureConfigurationError("SyslogSink.tls: a context that verifies certificate and host name")
        if not isinstance(address, str) and tls is None and not dangerously_plain.strip() and not _is_here(address[0]):
            raise InsecureConfigurationError(
                "SyslogSink: audit records would leave this machine in the clear; give tls, or a reason in "
                "dangerously_plain"
            )
        self._address = address
        self._protocol = protocol
        self._tls = tls
        self._facility = facility
        self._app = app_name
        self._timeout = timeout
        self._host = _hostname()
        self._recorder = Recorder(token_bytes(32) if key is None else key.for_arguments(), fields)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._tried = float("-inf")
        self._seq = 0
        self._closed = False

    def write(self, event: Event) -> None:
        """Send an event.

        Raises:
            AuditFailed: it could not be sent. After a connection that failed, none is tried for five seconds.
        """
        with self._lock:
            if self._closed:
                raise AuditFailed("the syslog sink is closed")
            record = self._recorder.record(event, self._seq)
            severity = _SEVERITIES.get(record.decision, _INFORMATIONAL)
            head = f"<{self._facility * 8 + severity}>1 {record.time} {self._host} {self._app} {os.getpid()} - - "
            message = head.encode() + encode(record)
            try:
                self._send(message)
            except OSError as exc:
                raise AuditFailed(f"syslog: {exc.strerror or type(exc).__name__}") from None
            self._seq += 1

    def sync(self) -> None:
        """Nothing: what the daemon has, it has."""

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._closed = True
            self._drop()

    def _send(self, message: bytes) -> None:
        if self._framed:
            message = b"%d %b" % (len(message), message)
        if self._socket is not None:
            try:
                self._socket.sendall(message)
                return
            except OSError:  # the daemon was started anew; once more
                self._drop()
        self._connect().sendall(message)

    @property
    def _framed(self) -> bool:
        return self._protocol == "tcp" and not isinstance(self._address, str)

    def _connect(self) -> socket.socket:
        now = time.monotonic()
        if now - self._tried < _PAUSE:
            raise OSError(0, "no connection a moment ago")
        self._tried = now
        if isinstance(self._address, str):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.settimeout(self._timeout)
            try:
                made.connect(self._address)
            except BaseException:
                made.close()
                raise
        elif self._protocol == "tcp":
            made = socket.create_connection(self._address, self._timeout)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=self._address[0])
        else:
            family, kind, number, _, where = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            made = socket.socket(family, kind, number)
            made.settimeout(self._timeout)
            made.connect(where)
        self._socket = made
        self._tried = float("-inf")
        return made

    def _drop(self) -> None:
        made, self._socket = self._socket, None
        if made is not None:
            made.close()


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _verifies(context: ssl.SSLContext) -> bool:
    import ssl  # lazy: most logs go to a file

    return context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


def _hostname() -> str:
    """RFC 5424 section 6.2.4, or its nil value."""
    name = socket.gethostname()
    return name if _HOST.fullmatch(name) else "-"
