"""Who is at the other end of a connection, as far as the transport can tell.

Rules of this file:
- Everything here was seen by this process: an address of the system, a certificate that was verified, a user id of the
  kernel. What a peer says of itself is not here, but for what a trusted proxy says of whom it serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOCAL", "Credential", "Peer", "Until"]


class Credential(Protocol):
    """What shows who a peer is, and may end while it is used."""

    def left(self, now: float) -> float:
        """Seconds for which it holds, after which it is to be asked again. 0.0 or less: it has ended.

        Args:
            now: the time, in seconds of `time.time`.
        """
        ...


@final
class Until:
    """A credential that ends at a time.

    Args:
        expires: in seconds of `time.time`.
    """

    __slots__ = ("_expires",)

    def __init__(self, expires: float) -> None:
        self._expires = expires

    def left(self, now: float) -> float:
        return self._expires - now


@final
class Peer:
    """One peer. Made when its connection is, and not changed."""

    __slots__ = ("address", "certificate", "expires", "secure", "uid")

    def __init__(
        self,
        address: str,
        *,
        secure: bool = False,
        certificate: Mapping[str, object] | None = None,
        expires: float = float("inf"),
        uid: int | None = None,
    ) -> None:
        self.address = address
        """IP address without port, `unix` for a Unix socket, `local` for pipes and memory."""
        self.secure = secure
        """The connection is TLS that ends here."""
        self.certificate = certificate
        """The verified client certificate, as `ssl.SSLSocket.getpeercert` gives it; None without mutual TLS."""
        self.expires = expires
        """When the certificate ends, in seconds of `time.time`; what was let in by it ends then too."""
        self.uid = uid
        """The user id of the process at the other end of a Unix socket, as the kernel told it."""

    def __repr__(self) -> str:
        return f"Peer({self.address!r})"


LOCAL = Peer("local")
"""Whoever started this process, or is in it."""
