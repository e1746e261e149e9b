"""Who is believed, and what of it."""

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.forwarding import MAX_HOPS, Trust, believed, client

TRUST = Trust(["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"])


class Head:
    authority = b"shop.test"

    def __init__(self, **fields):
        self._fields = {name.replace("_", "-").encode(): value for name, value in fields.items()}

    def field(self, name):
        return self._fields.get(name)


@pytest.mark.parametrize(
    ("address", "covered"),
    [
        (b"10.1.2.3", True),
        (b"11.1.2.3", False),
        (b"192.0.2.7", True),
        (b"192.0.2.8", False),
        (b"fd00::1", True),
        (b"fe80::1", False),
        (b"fd00::1%eth0", True),
        (b"::ffff:10.1.2.3", True),
        (b"::ffff:11.1.2.3", False),
        (b"unknown", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_an_address_lies_in_a_trusted_network_or_not(address, covered):
    assert TRUST.covers(address) is covered
    assert not Trust([]).covers(address)


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        (b"", b"10.0.0.1"),
        (b"203.0.113.9", b"203.0.113.9"),
        (b"203.0.113.9, 10.0.0.2", b"203.0.113.9"),
        (b"6.6.6.6, 203.0.113.9, 10.0.0.2,10.0.0.3", b"203.0.113.9"),  # what stands left of it may be a lie
        (b"10.0.0.4, 10.0.0.2", b"10.0.0.4"),  # all of them trusted: the one furthest away
        (b"203.0.113.9, unknown, 10.0.0.2", b"10.0.0.2"),
        (b"203.0.113.9,, 10.0.0.2", b"10.0.0.2"),
        (b"203.0.113.9:4711", b"203.0.113.9"),
        (b"[2001:db8::9]:4711, fd00::2", b"2001:db8::9"),
        (b"2001:DB8::9", b"2001:db8::9"),
        (b"::ffff:203.0.113.9", b"203.0.113.9"),
        (b"_hidden", b"10.0.0.1"),
        (b"203.0.113.9, " + b"10.0.0.2, " * MAX_HOPS + b"10.0.0.3", b"10.0.0.2"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_trusted(chain, found):
    assert client(chain, b"10.0.0.1", TRUST) == found


@pytest.mark.parametrize(
    ("fields", "scheme", "port", "said"),
    [
        ({}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_proto": b"https"}, b"https", 443, (b"10.0.0.1", b"https", b"shop.test")),
        ({"x_forwarded_proto": b"HTTPS"}, b"https", 443, (b"10.0.0.1", b"https", b"shop.test")),
        ({"x_forwarded_proto": b"gopher"}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_proto": b"https, http"}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_host": b"www.test:81"}, b"http", 8080, (b"10.0.0.1", b"http", b"www.test:81")),
        ({"x_forwarded_host": b"a b"}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_port": b"8443"}, b"http", 8443, (b"10.0.0.1", b"http", b"shop.test", b"8443")),
        ({"x_forwarded_port": b"0"}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_port": b"70000"}, b"http", 8080, (b"10.0.0.1", b"http", b"shop.test")),
        ({"x_forwarded_for": b"203.0.113.9"}, b"http", 8080, (b"203.0.113.9, 10.0.0.1", b"http", b"shop.test")),
    ],
)
def test_what_is_well_formed_is_believed_and_sent_on(fields, scheme, port, said):
    arrival = believed(Head(**fields), b"10.0.0.1", b"http", 8080, TRUST)
    assert (arrival.scheme, arrival.port) == (scheme, port)
    names = (b"For", b"Proto", b"Host", b"Port")
    lines = b"".join(b"X-Forwarded-%b: %b\r\n" % pair for pair in zip(names, said, strict=False))
    assert arrival.forwarded == lines


@given(st.binary(max_size=200))
def test_no_chain_is_too_strange(chain):
    found = client(chain, b"10.0.0.1", TRUST)
    assert found == b"10.0.0.1" or set(found) <= set(b"0123456789abcdef:.")
