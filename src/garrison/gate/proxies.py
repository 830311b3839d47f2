"""Proxies that are trusted, and whom they speak for.

Rules of this file:
- A forwarded header counts only when the connection comes from a trusted proxy; from anybody else it is not looked at.
- Of a chain of addresses the rightmost that is no trusted proxy is the client: everything left of it was written by
  the client itself (RFC 7239 section 8.1).
- What is no address makes no sense to guess at: then the proxy itself is taken for the client. So it is where both
  kinds of header are present: a proxy writes one of them and passes on what the client wrote as the other.

RFC 7239; `X-Forwarded-For` and `X-Forwarded-Proto` as proxies send them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["TrustedProxies"]

_FOR: Final = re.compile(r'(?:^|;)\s*for=(?:"([^"]*)"|([^;,\s]*))', re.IGNORECASE)
_PROTO: Final = re.compile(r'(?:^|;)\s*proto=(?:"([^"]*)"|([^;,\s]*))', re.IGNORECASE)


class TrustedProxies:
    """The peers whose forwarded headers are believed.

    Args:
        names: addresses, networks, or `unix`, as `SecurityPolicy.trusted_proxies` has them.

    Raises:
        ConfigurationError: one of them is none of these.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._unix = "unix" in names
        self._networks: list[IPv4Network | IPv6Network] = []
        self._known: dict[str, bool] = {}
        if names and names != ("unix",):
            from ipaddress import ip_network  # lazy: a listener without proxies compares no addresses

            for name in names:
                if name == "unix":
                    continue
                try:
                    network = ip_network(name)
                except ValueError as exc:
                    raise ConfigurationError(f"SecurityPolicy.trusted_proxies: {name!r}: {exc}") from None
                if not network.prefixlen:
                    raise ConfigurationError(f"SecurityPolicy.trusted_proxies: {name!r} is everybody, not a proxy")
                self._networks.append(network)

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, address: str) -> bool:
        """True for the address of a trusted proxy; `unix` for whoever may connect to the Unix socket."""
        if address == "unix":
            return self._unix
        known = self._known.get(address)
        if known is None:
            if len(self._known) > 1024:
                self._known.clear()
            known = self._known[address] = self._within(address)
        return known

    def _within(self, address: str) -> bool:
        if not self._networks:
            return False
        from ipaddress import ip_address

        try:
            number = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(number, "ipv4_mapped", None)
        return any((mapped or number) in network for network in self._networks)

    def client(self, fields: Mapping[bytes, bytes], proxy: str) -> str:
        """The address of the client that a trusted proxy serves.

        Args:
            fields: the request's header fields.
            proxy: the proxy's own address.
        """
        forwarded = fields.get(b"forwarded")
        if forwarded is not None and b"x-forwarded-for" in fields:
            return proxy
        if forwarded is not None:
            matches = [_FOR.search(part) for part in forwarded.decode("latin-1").split(",")]
            chain = [match[1] or match[2] or "" if match else "" for match in matches]
        else:
            chain = fields.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
        for item in reversed(chain):
            address = _address(item)
            if address is None:
                return proxy
            if not self.trusts(address):
                return address
        return proxy

    def scheme(self, fields: Mapping[bytes, bytes]) -> str:
        """The scheme by which the client reached the proxy; empty where the proxy does not say."""
        forwarded = fields.get(b"forwarded")
        if forwarded is not None and b"x-forwarded-proto" not in fields:
            match = _PROTO.search(forwarded.decode("latin-1").rpartition(",")[2])
            return (match[1] or match[2] or "").lower() if match else ""
        return fields.get(b"x-forwarded-proto", b"").decode("latin-1").rpartition(",")[2].strip().lower()


def _address(text: str) -> str | None:
    """The IP address in one element of a chain, without port; None if it is none."""
    from ipaddress import ip_address

    text = text.strip()
    if "%" in text:
        return None  # a zone means something on the proxy only, and may hold anything
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
