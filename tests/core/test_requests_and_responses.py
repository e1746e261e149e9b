"""Heads and chunked bodies: what is accepted means one thing only; h11 is asked for a second opinion."""

import contextlib
import itertools
import tracemalloc

import h11
import pytest
from hypothesis import example, given, settings, strategies as st

from splitproxy.core.chunked import ChunkedDecoder, chunk, last_chunk
from splitproxy.core.requests import check_partial, parse_request
from splitproxy.core.responses import parse_response
from splitproxy.core.targets import normalise, parse_host
from splitproxy.errors import BadRequest, HeadTooLarge, ProxyError, TargetTooLong, UpstreamProtocolError

many = settings(max_examples=200, deadline=None, database=None)


def head(*lines, start="GET / HTTP/1.1"):
    return "\r\n".join([start, "Host: kit.test", *lines, "", ""]).encode("latin-1")


def parse(raw):
    return parse_request(raw, 100, 8192)


# --- requests ----------------------------------------------------------------------------------------------------
def test_a_request_is_taken_apart():
    request = parse(
        b"POST /a%62/../c?d=e&f HTTP/1.1\r\nHost: Shop.Test:81\r\nContent-Length: 3\r\nCookie: a=b; c=d\r\n\r\n"
    )
    assert (request.method, request.target, request.path, request.query) == (
        b"POST",
        b"/a%62/../c?d=e&f",
        b"/c",
        b"d=e&f",
    )
    assert (request.authority.lower(), request.host) == (b"shop.test:81", b"shop.test")
    assert (request.content_length, request.chunked, request.keep_alive, request.minor) == (3, False, True, 1)
    assert (request.cookie(b"c"), request.cookie(b"x"), request.param(b"d"), request.param(b"f")) == (
        b"d",
        None,
        b"e",
        b"",
    )


def test_fields_are_found_whatever_their_case_and_repeated_ones_are_joined():
    request = parse(head("X-A: 1", "x-a:  2 ", "X-AB: 3"))
    assert request.field(b"x-a") == b"1, 2"
    assert request.field(b"x") is None
    assert request.field(b"a") is None


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [([], True), (["Connection: close"], False), (["Connection: Keep-Alive, CLOSE"], False), (["Connection: x"], True)],
)
def test_persistence_in_http_1_1(lines, keeps):
    assert parse(head(*lines)).keep_alive is keeps


@pytest.mark.parametrize(
    ("lines", "keeps"), [([], False), (["Connection: keep-alive"], True), (["Connection: close"], False)]
)
def test_persistence_in_http_1_0(lines, keeps):
    assert parse(head(*lines, start="GET / HTTP/1.0")).keep_alive is keeps


def test_limits_are_inclusive():
    assert parse_request(head("X: 1"), 2, 100).field(b"x") == b"1"
    with pytest.raises(HeadTooLarge):
        parse_request(head("X: 1"), 1, 100)
    assert parse_request(head(start="GET /abc HTTP/1.1"), 9, 4).target == b"/abc"
    with pytest.raises(TargetTooLong):
        parse_request(head(start="GET /abc HTTP/1.1"), 9, 3)


@pytest.mark.parametrize("before", [["Connection: close, TE"], ["X: 1"] * 9, ["Content-Length: 0"], ["Bad Name: 1"]])
def test_nothing_is_carried_over_from_one_head_to_the_next(before):
    with contextlib.suppress(ProxyError):
        parse(head(*before))
    request = parse(head("X-A: 1"))
    assert (request.keep_alive, request.options, request.field(b"te"), request.field(b"x")) == (
        True,
        frozenset(),
        None,
        None,
    )
    assert request.fields() == [(b"Host", b"kit.test"), (b"X-A", b"1")]


TOKENS = st.text("abcXYZ019-_.!~", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=20) | st.text(' \tabc,;="', max_size=20)
FIELDS = st.lists(
    st.one_of(
        st.builds("{}: {}".format, TOKENS, VALUES),
        st.builds(
            "{}:{}".format, st.sampled_from(["Connection", "Content-Length", "Transfer-Encoding", "Host"]), VALUES
        ),
        st.sampled_from(
            ["Content-Length: 5", "Transfer-Encoding: chunked", "Connection: close", "X : 1", " folded", "Host: b"]
        ),
        st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=12),
    ),
    max_size=6,
)
TARGETS = st.one_of(
    st.sampled_from(["/", "*", "http://kit.test/a?b", "/a?b=c&d", "/%41/../b", "//x", "a", ""]),
    st.builds("/{}".format, st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=20)),
)
METHODS = st.sampled_from(["GET", "POST", "OPTIONS", "DELETE", "PATCH", "get", "G T", ""])


@given(METHODS, TARGETS, st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1"]), FIELDS)
@example("GET", "/", "HTTP/1.1", ["X: \x80"])
@example("POST", "/", "HTTP/1.1", ["Content-Length: 5", "Content-Length: 5"])
@many
def test_what_is_accepted_h11_reads_the_same_way(method, target, version, lines):
    raw = "\r\n".join([f"{method} {target} {version}", "Host: kit.test", *lines, "", ""]).encode("latin-1")
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    try:
        ours = parse(raw)
    except ProxyError:
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(raw)
    theirs = other.next_event()
    assert isinstance(theirs, h11.Request)
    assert ours.method == theirs.method
    assert theirs.target.endswith(ours.target)
    assert ours.minor == int(theirs.http_version[2:])
    special = {b"connection", b"transfer-encoding", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection"}
    known = [(name.lower(), value) for name, value in ours.fields()]
    wanted = [(name, value) for name, value in theirs.headers if name not in special]
    assert [field for field in known if field not in wanted] == []
    framing = dict(theirs.headers)
    assert ours.chunked == (b"transfer-encoding" in framing)
    assert ours.content_length == int(framing.get(b"content-length", b"0"))


@given(st.binary(max_size=200))
@many
def test_no_bytes_make_the_parsers_fail_otherwise_than_by_their_errors(data):
    for raw in (data + b"\r\n\r\n", head() + data + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        raw = raw[: raw.index(b"\r\n\r\n") + 4]
        with contextlib.suppress(ProxyError):
            parse(raw)
    for raw in (data + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n"):
        with contextlib.suppress(UpstreamProtocolError):
            parse_response(raw[: raw.index(b"\r\n\r\n") + 4])


@given(st.binary(max_size=60))
@many
def test_what_is_refused_early_would_have_been_refused_in_the_end(data):
    raw = (b"GET / HTTP/1.1\r\nHost: kit.test\r\nX: " + data).partition(b"\r\n\r\n")[0]
    try:
        check_partial(raw)
    except BadRequest:
        with pytest.raises(ProxyError):
            parse((raw + b"\r\n\r\n")[: (raw + b"\r\n\r\n").index(b"\r\n\r\n") + 4])


@pytest.mark.parametrize(
    "name", ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "X-Forwarded-For", "Forwarded"]
)
def test_fields_of_this_hop_are_cut(name):
    request = parse(head(f"{name}: websocket", "X: 1", f"{name.lower()}: other"))
    assert request.fields() == [(b"Host", b"kit.test"), (b"X", b"1")]


@pytest.mark.parametrize("names", ["X-Absent", "X-Absent, X-B", "x-a,X-ABSENT", "x-b , x-a"])
def test_fields_that_connection_names_are_cut_and_no_other_byte(names):
    request = parse(head("X-A: 1", "X-AB: 2", f"Connection: {names}", "X-B: 3", "Y-X-A: 4"))
    named = {name.strip().lower() for name in names.split(",")}
    wanted = [("Host", "kit.test"), ("X-A", "1"), ("X-AB", "2"), ("X-B", "3"), ("Y-X-A", "4")]
    assert request.fields() == [(n.encode(), v.encode()) for n, v in wanted if n.lower() not in named]


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"A.test", b"a.test"),
        (b"a.test.", b"a.test"),
        (b"a:80", b"a"),
        (b"a:", b"a"),
        (b"[::1]:80", b"[::1]"),
        (b"1.2.3.4", b"1.2.3.4"),
    ],
)
def test_the_name_of_a_host(value, host):
    assert parse_host(value) == host


@pytest.mark.parametrize(
    "value", [b"a b", b"a/b", b"a@b", b"a:x", b"a:65536", b"[::1", b"::1", b"a\x00", b"a#", b"a?b", b""]
)
def test_what_is_no_host(value):
    with pytest.raises(BadRequest):
        parse_host(value)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (b"/", b"/"),
        (b"/a//b/", b"/a/b/"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/../../a", b"/a"),
        (b"/a/..", b"/"),
        (b"/%61", b"/a"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/a%2fb", b"/a%2Fb"),
        (b"/a/b/..", b"/a/"),
    ],
)
def test_paths_are_normalised_for_matching(path, wanted):
    assert normalise(path) == wanted


@given(st.text("/.%2eEfFa", max_size=20))
@many
def test_a_normalised_path_has_no_dots_to_climb_by(path):
    result = normalise(b"/" + path.encode())
    assert result.startswith(b"/")
    assert not {b"..", b"."} & set(result.split(b"/"))


# --- chunked bodies ----------------------------------------------------------------------------------------------
def decode(data, cuts=()):
    decoder, out, rest, at = ChunkedDecoder(), [], b"", 0
    for cut in [*cuts, len(data)]:
        pieces, rest = decoder.feed(data[at:cut])
        assert b"" not in pieces
        out += pieces
        if decoder.done:
            return b"".join(out), rest + data[cut:], decoder.trailers
        at = cut
    return b"".join(out), None, decoder.trailers


CUTS = st.lists(st.integers(0, 400), max_size=30).map(lambda cuts: sorted(set(cuts)))


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), CUTS, st.binary(max_size=20), st.booleans())
@many
def test_a_body_is_the_same_however_it_is_chunked_and_cut(chunks, cuts, following, trailers):
    fields = [(b"X-Sum", b"1")] if trailers else []
    framed = b"".join(chunk([piece]) for piece in chunks) + last_chunk(fields)
    cuts = [cut for cut in cuts if cut <= len(framed)]
    body, rest, found = decode(framed + following, cuts)
    assert body == b"".join(chunks)
    assert rest == following
    assert found == fields


@given(st.binary(max_size=40), CUTS)
@many
def test_cuts_do_not_change_whether_a_chunked_body_is_accepted(data, cuts):
    data = b"2\r\nab\r\n" + data
    results = []
    for places in ((), [cut for cut in cuts if cut < len(data)], range(len(data))):
        try:
            results.append(decode(data, places))
        except ValueError:
            results.append("refused")
    whole, *others = results
    for other in others:
        assert other == whole or (whole == "refused") == (other == "refused")


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"g\r\n",
            b"\r\n",
            b"+1\r\n",
            b"-1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\na\r\n",
            b"1\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
        ),
        *(
            b"1\r\naX",
            b"1;\x00\r\n",
            b"1;a\rb\r\n",
            b"f" * 17 + b"\r\n",
            b"0\r\nX\r\n",
            b"0\r\nX : 1\r\n",
            b"0\r\n X: 1\r\n",
        ),
        *(b"0\r\n: 1\r\n", b"0\r\nX: \x00\r\n", b"1" * 17_000, b"0\r\nX: " + b"a" * 17_000, b"1\r\na\r\r\n"),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_what_is_no_chunked_body(data, bytewise):
    with pytest.raises(ValueError, match=r"\w"):
        decode(data, range(len(data)) if bytewise else ())


def test_all_trailers_together_are_bounded():
    with pytest.raises(ValueError, match="trailers"):
        decode(b"0\r\n" + b"X: 1\r\n" * 5_000 + b"\r\n")


@pytest.mark.parametrize("cuts", [(), range(100)], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("data", [b"1;" + b"a" * 14 + b"\r\na\r\n0\r\n\r\n", b"0\r\nX: " + b"a" * 13 + b"\r\n\r\n"])
def test_a_line_may_be_as_long_as_the_limit_however_it_comes(data, cuts):
    for limit, fits in ((16, True), (15, False)):
        decoder = ChunkedDecoder(limit)
        places = [0, *[cut for cut in cuts if 0 < cut < len(data)], len(data)]
        with contextlib.nullcontext() if fits else pytest.raises(ValueError, match=r"\w"):
            for start, end in itertools.pairwise(places):
                decoder.feed(data[start:end])
        assert decoder.done is fits


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"content_length", b"X_Forwarded_For", b"X-Request-Id", b"Host", b"Proxy_Authorization"]
)
def test_what_may_not_be_in_trailers_is_dropped_however_it_is_spelt(name):
    assert decode(b"0\r\n%b: 1\r\nX-Sum: 1\r\n\r\n" % name) == (b"", b"", [(b"X-Sum", b"1")])


def test_what_is_remembered_of_heads_is_little_however_long_they_are():
    """Whatever anybody sends: what a worker keeps of it must not fill the memory."""
    many = b",".join(b"#-%d" % number for number in range(6_000))
    tracemalloc.start()
    try:
        for turn in range(120):
            options = b"close" if turn % 2 else many.replace(b"#", b"%d" % turn)
            host = b"h%d" % turn * (1 if turn % 3 else 10_000)
            head = b"GET /./%d%b HTTP/1.1\r\nHost: %b\r\nConnection: %b\r\n\r\n" % (turn, b"x" * 7_000, host, options)
            with contextlib.suppress(ProxyError):
                parse_request(head, 100, 8192)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 300_000


@pytest.mark.parametrize(("count", "lines", "fits"), [(32, 1, True), (33, 1, False), (16, 3, False), (10, 3, True)])
def test_connection_may_list_a_few_options(count, lines, fits):
    field = b"".join(
        b"Connection: %b\r\n" % b",".join(b"o%d-%d" % (line, number) for number in range(count))
        for line in range(lines)
    )
    with contextlib.nullcontext() if fits else pytest.raises(BadRequest, match="Connection options"):
        parse_request(b"GET / HTTP/1.1\r\nHost: kit.test\r\n%b\r\n" % field, 100, 8192)
    with contextlib.nullcontext() if fits else pytest.raises(UpstreamProtocolError, match="Connection options"):
        parse_response(b"HTTP/1.1 200 OK\r\n%b\r\n" % field)


@pytest.mark.parametrize(("size", "fits"), [(255, True), (261, True), (262, False)])
def test_a_host_is_no_longer_than_a_name_can_be(size, fits):
    with contextlib.nullcontext() if fits else pytest.raises(BadRequest, match="Host"):
        assert parse_host(b"a" * size) == b"a" * size


def test_extensions_are_dropped_and_several_pieces_are_one_chunk():
    assert decode(b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n') == (b"abc", b"", [])
    assert chunk([b"ab", b"", b"c"]) == b"3\r\nabc\r\n"


@pytest.mark.parametrize("line", [b"a:\r\n", b"a:b\r\n", b"x-field: a value of some length\r\n"])
def test_a_head_may_have_a_hundred_fields_however_short_and_not_one_more(line):
    def head(count):
        return b"GET / HTTP/1.1\r\nHost: kit.test\r\n" + line * (count - 1) + b"\r\n"

    assert parse_request(head(100), 100, 8192).host == b"kit.test"
    with pytest.raises(HeadTooLarge):
        parse_request(head(101), 100, 8192)
