"""Who is believed about the client, and what is believed: X-Forwarded-For, -Proto, -Host, -Port from trusted proxies.

Of X-Forwarded-For, read from the right, every address of a trusted proxy is skipped: the first other one was seen by a
proxy that is trusted, so it is the client. What stands left of it anybody may have written.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple, Protocol

from splitproxy.core.targets import parse_host
from splitproxy.errors import BadRequest

MAX_HOPS: Final = 32
"""Addresses of X-Forwarded-For that are looked at; behind more proxies than that nobody is."""
_WITH_PORT: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")
_PORTS: Final = {b"http": 80, b"https": 443}


class Fields(Protocol):
    """What is needed of a request's head."""

    authority: bytes

    def field(self, name: bytes, /) -> bytes | None:
        """Return the value of the field `name` (lower case), repeated ones joined by a comma."""


class Trust:
    """The networks whose proxies are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks` are in CIDR notation."""
        self._networks = tuple(ip_network(network) for network in networks)
        self.covers = lru_cache(maxsize=4096)(self._covers)
        """Whether an IP address, as text, lies in one of them."""

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _covers(self, text: bytes) -> bool:
        address = _parsed(text)
        return address is not None and any(address in network for network in self._networks)


class Arrival(NamedTuple):
    """How a request began its way, as far as it can be known."""

    address: bytes
    """The client's."""
    scheme: bytes
    """http | https: what the client speaks."""
    port: int
    """What the client connected to."""
    forwarded: bytes
    """The X-Forwarded lines to send on."""


def forwarded_lines(chain: bytes, scheme: bytes, host: bytes, port: bytes = b"") -> bytes:
    """Return X-Forwarded lines; an empty `host` or `port` is left out."""
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (chain, scheme)
    if host:
        lines += b"X-Forwarded-Host: %b\r\n" % host
    if port:
        lines += b"X-Forwarded-Port: %b\r\n" % port
    return lines


def believed(head: Fields, peer: bytes, scheme: bytes, port: int, trust: Trust) -> Arrival:
    """Return how a request arrived that the trusted `peer` has sent us by `scheme` to our `port`.

    What is not well-formed counts as not said.
    """
    chain = head.field(b"x-forwarded-for") or b""
    told = (head.field(b"x-forwarded-proto") or b"").lower()
    host = head.field(b"x-forwarded-host") or b""
    said = head.field(b"x-forwarded-port") or b""
    if not _PORT.fullmatch(said) or int(said) > 65535:
        said = b""
    if told in _PORTS:
        scheme, port = told, _PORTS[told]
    lines = forwarded_lines(
        chain + b", " + peer if chain else peer, scheme, host if _is_host(host) else head.authority, said
    )
    return Arrival(client(chain, peer, trust), scheme, int(said) if said else port, lines)


def client(chain: bytes, peer: bytes, trust: Trust) -> bytes:
    """Return the address that is furthest away of those that can be believed; `chain` is an X-Forwarded-For."""
    address = peer
    for hop in reversed(chain.rsplit(b",", MAX_HOPS)) if chain else ():
        known = _parsed(hop.strip(b" \t"))
        if known is None:
            break
        address = str(known).encode()
        if not trust.covers(address):
            break
    return address


def _parsed(text: bytes) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is; one with a port counts, an IPv4 address within IPv6 is what it is."""
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found[1] or found[2]
    try:
        address = ip_address(text.decode("latin-1").partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _is_host(value: bytes) -> bool:
    try:
        return bool(value) and bool(parse_host(value))
    except BadRequest:
        return False
