"""What counts as one peer of a network.

Rules of this file:
- A host of IPv6 has as many addresses as it likes in its /64, so that is what is counted. Of IPv4 it is the address.
- An IPv4 address inside an IPv6 one is that IPv4 address.
"""

from __future__ import annotations

__all__ = ["network_of"]


def network_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 of an IPv6 one, in which a host has as many as it likes.

    Args:
        address: without port. What is no IP address (`unix`, `local`) comes back as it is.
    """
    if ":" not in address:
        return address
    import socket

    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8].hex() if any(packed[:8]) else address
