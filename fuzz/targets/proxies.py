"""Forwarded headers of trusted proxies: whoever is named is an address and no trusted proxy, and what a client wrote
before its proxy did changes nothing. The input is `Forwarded` on its first line, `X-Forwarded-For` on its second."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from fuzz.oracle import agree, hold, parts
from garrison.gate.proxies import TrustedProxies

SEEDS = (
    b"for=192.0.2.60;proto=https;by=203.0.113.43\n192.0.2.60",
    b'for="[2001:db8::1]:47011", for=10.0.0.7\n2001:db8::1, 10.0.0.7',
    b"for=_hidden;proto=http\nunknown",
    b'For="192.0.2.1:80";Proto="HTTPS", for=10.1.1.1;proto=http\n198.51.100.2:443,10.0.0.1',
    b'for="a, for=1.2.3.4\n[::ffff:10.0.0.1]',
    b"\n",
)
WORDS = (
    b"for=",
    b"proto=",
    b'"',
    b";",
    b",",
    b"[",
    b"]",
    b":",
    b"10.0.0.1",
    b"192.0.2.1",
    b"::ffff:10.0.0.1",
    b"%eth0",
    b"\n",
)
_PROXY = "10.9.9.9"
_NETWORK = ip_network("10.0.0.0/8")
_proxies = TrustedProxies(("10.0.0.0/8", "unix"))
_CLIENT = "198.51.100.7"


def check(data: bytes) -> None:
    forwarded, chain = (part.strip() for part in parts(data.replace(b"\r", b""), 2))
    for fields in (
        {b"forwarded": forwarded},
        {b"x-forwarded-for": chain},
        {b"forwarded": forwarded, b"x-forwarded-for": chain},
    ):
        found = _proxies.client(fields, _PROXY)
        if found != _PROXY:
            address = ip_address(found)
            plain = getattr(address, "ipv4_mapped", None) or address
            hold(plain.version != 4 or plain not in _NETWORK, "a proxy is named", found)
        hold(len(found) < 46, "long", found)
        agree("text", _proxies.scheme(fields), _proxies.scheme(fields).lower())
    agree(
        "the proxy's word", _proxies.client({b"forwarded": forwarded + b", for=" + _CLIENT.encode()}, _PROXY), _CLIENT
    )
    agree("the proxy's word", _proxies.client({b"x-forwarded-for": chain + b", " + _CLIENT.encode()}, _PROXY), _CLIENT)
    two = {b"x-forwarded-for": chain + b", " + _CLIENT.encode() + b", 10.0.0.1"}
    agree("the first proxy's word", _proxies.client(two, _PROXY), _CLIENT)
    agree("scheme", _proxies.scheme({b"forwarded": forwarded + b", for=x;proto=https"}), "https")
    agree("scheme", _proxies.scheme({b"x-forwarded-proto": forwarded + b", https"}), "https")
