"""PROXY headers: what is one, how long it is, what it says."""

from ipaddress import ip_address

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.proxy_protocol import MAX_BYTES, MAX_LINE, SIGNATURE, Origin, measure, parse
from splitproxy.errors import BadProxyHeader


def binary(command, family, body, length=None):
    return SIGNATURE + bytes((command, family)) + (len(body) if length is None else length).to_bytes(2, "big") + body


def tcp(source, port, own="192.0.2.1", *, extensions=b""):
    packed = ip_address(source).packed
    size = 0x11 if len(packed) == 4 else 0x21
    own = ip_address(own if len(packed) == 4 else "2001:db8::1").packed
    return binary(0x21, size, packed + own + b"\x12\x34" + port.to_bytes(2, "big") + extensions)


def read(data):
    """Read a header as it comes, byte by byte; return what it says and what is left."""
    for end in range(1, len(data) + 1):
        length = measure(data[:end])
        if length and end >= length:
            return parse(data[:length]), data[length:]
    raise AssertionError("the header never ends")


GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", Origin(b"192.0.2.7", 443)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Origin(b"255.255.255.255", 65535)),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 1\r\n", Origin(b"1.2.3.4", 1)),
    (b"PROXY TCP6 2001:DB8::7 ::1 56324 443\r\n", Origin(b"2001:db8::7", 443)),
    (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        Origin(b"ffff:" * 7 + b"ffff", 65535),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (b"PROXY UNKNOWN whatever this is\r\n", None),
    (tcp("192.0.2.7", 443), Origin(b"192.0.2.7", 443)),
    (tcp("2001:db8::7", 8443), Origin(b"2001:db8::7", 8443)),
    (tcp("192.0.2.7", 443, extensions=b"\x04\x00\x03abc" * 30), Origin(b"192.0.2.7", 443)),
    (tcp("192.0.2.7", 443, extensions=bytes(MAX_BYTES - 28)), Origin(b"192.0.2.7", 443)),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, bytes(12)), None),
    (binary(0x21, 0x00, b"anything"), None),
    (binary(0x21, 0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "origin"), GOOD, ids=range(len(GOOD)))
def test_a_header_is_read_to_its_last_byte_and_no_further(header, origin):
    assert read(header) == (origin, b"")
    assert measure(header + b"GET / HTTP/1.1\r\n\r\n") == len(header)
    assert measure(header + SIGNATURE) == len(header)


BAD = [
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
    b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
    b"PROXY TCP4 1.2.3.4\r5.6.7.8 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_LINE + b"\r\n",
    b"PROXY UNKNOWN \xff\r\n",
    b"PROXY UNKNOWN \0\r\n",
    binary(0x11, 0x11, bytes(12)),
    binary(0x22, 0x11, bytes(12)),
    binary(0x21, 0x12, bytes(12)),
    binary(0x21, 0x22, bytes(36)),
    binary(0x21, 0x41, bytes(36)),
    binary(0x21, 0x11, bytes(11)),
    binary(0x21, 0x21, bytes(35)),
    binary(0x21, 0x11, b"", MAX_BYTES),
    SIGNATURE[:-1] + b"X" + b"\x21\x11\0\0",
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_is_no_header_is_refused(data):
    with pytest.raises(BadProxyHeader):
        read(data)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=200).map(SIGNATURE.__add__)
    | st.binary(max_size=120).map(b"PROXY ".__add__)
)
def test_any_bytes_are_a_header_or_refused_and_it_does_not_matter_how_they_come(data):
    try:
        length = measure(data)
        whole = parse(data[:length]) if 0 < length <= len(data) else "unfinished"
    except BadProxyHeader:
        whole = "refused"
    for end in range(1, len(data) + 1):
        try:
            so_far = measure(data[:end])
            assert so_far == 0 or so_far >= min(end, so_far)
            if so_far and end >= so_far:
                assert parse(data[:so_far]) == whole
                return
        except BadProxyHeader:
            assert whole == "refused"
            return
    assert whole == "unfinished"


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=50))
def test_both_versions_say_the_same(address, port, own, rest):
    line = f"PROXY TCP{address.version} {address} {address} {port} {own}\r\n".encode()
    coded = binary(
        0x21,
        0x11 if address.version == 4 else 0x21,
        address.packed * 2 + port.to_bytes(2, "big") + own.to_bytes(2, "big"),
    )
    for header in (line, coded):
        assert measure(header + rest) == len(header)
        assert parse(header) == (str(address).encode(), own)
