"""The PROXY protocol, versions 1 and 2, as a receiver reads it (HAProxy's proxy-protocol.txt, §2).

A load balancer that passes bytes on puts a header before them that says who its client is. The header is read strictly:
what is not one is refused, never guessed at, since a receiver that takes both would let clients write one themselves.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

from splitproxy.errors import BadProxyHeader

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""What a header of version 2 begins with."""
MAX_BYTES: Final = 4096
"""Of a header of version 2 with all its extensions; those in use take a few hundred."""
MAX_LINE: Final = 107
"""Bytes of a header of version 1 (§2.1)."""
_FIXED: Final = 16
_WORD: Final = b"PROXY "
_BEGINNING: Final = re.compile(rb"[\x20-\x7e]*\r?")
_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_KNOWN: Final = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) " + _PORT + b" " + _PORT)
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?")
_LOCAL, _PROXIED = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31


class Origin(NamedTuple):
    """Between whom the connection was that a load balancer passes on."""

    address: bytes
    """The client's."""
    port: int
    """The port that the client connected to."""


def measure(data: bytes) -> int:
    """Return how long the header is that `data` begins with, 0 while that cannot be told: then all of it belongs to it.

    The length may be more than there is of it. Raises BadProxyHeader.
    """
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return _measure_binary(data)
    if not _WORD.startswith(data[: len(_WORD)]):
        raise BadProxyHeader("the connection does not begin with a PROXY header")
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end >= 0:
        return end + 2
    if len(data) >= MAX_LINE:
        raise BadProxyHeader(f"the PROXY line is longer than {MAX_LINE} bytes")
    if not _BEGINNING.fullmatch(data):
        raise BadProxyHeader("the PROXY line has characters that may not stand in it")
    return 0


def _measure_binary(data: bytes) -> int:
    if len(data) > 12 and data[12] not in {_LOCAL, _PROXIED}:
        raise BadProxyHeader(f"unknown version or command 0x{data[12]:02x} in a PROXY header")
    if len(data) < _FIXED:
        return 0
    length = _FIXED + int.from_bytes(data[14:16], "big")
    if length > MAX_BYTES:
        raise BadProxyHeader(f"a PROXY header of {length} bytes, at most {MAX_BYTES} are taken")
    return length


def parse(header: bytes) -> Origin | None:
    """Return what a whole header says; None: nothing, so that the connection's own addresses count.

    None comes from a health check of the load balancer itself (LOCAL), UNKNOWN, and addresses that are no IP addresses.
    Raises BadProxyHeader.
    """
    return _parse_binary(header) if header.startswith(SIGNATURE) else _parse_line(header[:-2])


def _parse_line(line: bytes) -> Origin | None:
    found = _KNOWN.fullmatch(line)
    if found is None:
        if _UNKNOWN.fullmatch(line) and _BEGINNING.fullmatch(line):
            return None
        raise BadProxyHeader("the PROXY line is malformed")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    try:
        source, _ = kind(found[2].decode()), kind(found[3].decode())
    except AddressValueError:
        raise BadProxyHeader("the PROXY line has an invalid address") from None
    if int(found[4]) > 65535 or int(found[5]) > 65535:
        raise BadProxyHeader("the PROXY line has an invalid port")
    return Origin(str(source).encode(), int(found[5]))


def _parse_binary(header: bytes) -> Origin | None:
    family, body = header[13], header[_FIXED:]
    if header[12] == _LOCAL or family in {_UNSPECIFIED, _UNIX}:
        return None
    if family not in {_TCP4, _TCP6}:
        raise BadProxyHeader(f"a PROXY header about something else than TCP (0x{family:02x})")
    size = 4 if family == _TCP4 else 16
    if len(body) < 2 * size + 4:
        raise BadProxyHeader("the PROXY header is too short for its addresses")
    source = IPv4Address(body[:size]) if size == 4 else IPv6Address(body[:size])
    return Origin(str(source).encode(), int.from_bytes(body[2 * size + 2 : 2 * size + 4], "big"))
