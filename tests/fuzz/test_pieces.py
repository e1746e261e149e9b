"""Heads and bodies of both sides: documented errors only, and byte by byte is the same as all at once."""

import sys
from pathlib import Path

from hypothesis import given, settings, strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pieces

many = settings(max_examples=400, deadline=None, database=None)
CUTS = st.lists(st.integers(0, 300), max_size=4)
PARTS = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [
            *(
                b"\r\n",
                b"\r",
                b"\n",
                b"\r\n\r\n",
                b"\x00",
                b" ",
                b"\t",
                b":",
                b",",
                b"chunked",
                b"Content-Length: 3\r\n",
            ),
            *(
                b"chunked",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n",
                b"Host: b\r\n",
                b"HTTP/1.1",
                b"HTTP/1.0",
            ),
            *(b"HTTP/2.0", b"GET / HTTP/1.1\r\n", b"0\r\n\r\n", b"1\r\na\r\n", b"\x80", b"a" * 40, b"X: 1\r\n" * 12),
        ]
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 8), PARTS), max_size=4)
"""Each: where, how many bytes are taken out there, and what is put in."""


def edited(data, edits):
    for place, taken, part in edits:
        place %= len(data) + 1
        data = data[:place] + part + data[place + taken :]
    return data


REQUESTS = st.builds(edited, st.sampled_from(pieces.REQUESTS), EDITS)
RESPONSES = st.builds(edited, st.sampled_from(pieces.RESPONSES), EDITS)


@given(data=REQUESTS, cuts=CUTS)
@many
def test_requests_are_read_the_same_however_they_are_cut(data, cuts):
    pieces.check_client_side(data, cuts)


@given(data=RESPONSES, method=st.sampled_from([b"GET", b"HEAD"]), cuts=CUTS)
@many
def test_responses_are_read_the_same_however_they_are_cut(data, method, cuts):
    pieces.check_endpoint_side(data, method, cuts)


@given(data=st.binary(max_size=80), cuts=CUTS)
@many
def test_so_is_anything_else(data, cuts):
    pieces.check_client_side(data, cuts)
    pieces.check_endpoint_side(data, b"GET", cuts)
