"""Heads as they are sent on."""

import pytest

from splitproxy.core.headers import (
    compose_request,
    compose_response,
    is_mirrored,
    rebuild_request,
    request_fields,
    request_lines,
)
from splitproxy.core.requests import parse_request
from splitproxy.core.responses import parse_response

FORWARDED = b"X-Forwarded-For: 1.2.3.4\r\n"


def parse(*lines, start=b"GET /a HTTP/1.1", host=b"Host: kit.test"):
    return parse_request(b"\r\n".join([start, *([host] if host else []), *lines, b"", b""]), 100, 8192)


def composed(*lines, **options):
    return compose_request(parse(*lines, **options), FORWARDED, b"id", b"fallback")


def test_a_plain_head_gets_our_fields_behind_its_own():
    wanted = b"GET /a HTTP/1.1\r\nHost: kit.test\r\nX: 1\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-Id: id\r\n\r\n"
    assert composed(b"X: 1") == wanted


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: close", b"X: 1"],
        [b"X: 1", b"Connection: keep-alive"],
        [b"Keep-Alive: 1", b"X: 1", b"Connection: keep-alive, x-b", b"X-B: 2", b"Proxy-Connection: x"],
        [b"Connection: x-absent", b"X: 1"],
        [b"X-Forwarded-For: 6.6.6.6", b"X: 1", b"x_forwarded_for: 6.6.6.6"],
    ],
)
def test_whatever_is_cut_the_rest_stays_as_it_came(lines):
    assert composed(*lines) == composed(b"X: 1")


def test_a_request_id_that_came_is_the_only_one():
    assert composed(b"X-Request-Id: mine").lower().count(b"x-request-id") == 1


@pytest.mark.parametrize(
    ("start", "host", "wanted"),
    [
        (b"GET /a HTTP/1.0", b"", b"fallback"),
        (b"GET /a HTTP/1.0", b"Host: kit.test", b"kit.test"),
        (b"GET http://other.test/a HTTP/1.1", b"Host: kit.test", b"other.test"),
        (b"GET http://other.test:81/a HTTP/1.0", b"", b"other.test:81"),
    ],
)
def test_there_is_always_one_host_and_version_1_1(start, host, wanted):
    for data in (
        composed(start=start, host=host),
        rebuild_request(
            parse(start=start, host=host), b"/a", request_fields(parse(start=start, host=host), b"fallback"), b""
        ),
    ):
        assert data.startswith(b"GET /a HTTP/1.1\r\n")
        assert data.count(b"Host: ") == 1
        assert b"\r\nHost: %b\r\n" % wanted in data


def test_a_chunked_body_and_an_expectation_are_announced_anew():
    data = composed(b"Transfer-Encoding: chunked", b"Expect: 100-continue", start=b"POST /a HTTP/1.1")
    assert data.count(b"Transfer-Encoding: chunked\r\n") == 1
    assert data.count(b"Expect: 100-continue\r\n") == 1


def test_composed_and_rebuilt_heads_have_the_same_fields():
    lines = (b"X: 1", b"Connection: keep-alive, y", b"Y: 2", b"Cookie: a=b", b"Content-Length: 0", b"x:  3 ")
    head = parse(*lines)
    own = request_lines(head, FORWARDED, b"id")
    rebuilt = rebuild_request(head, head.target, request_fields(head, b"fallback"), own)
    again, other = (
        parse_request(data, 100, 8192).field for data in (compose_request(head, FORWARDED, b"id", b""), rebuilt)
    )
    for name in (b"host", b"x", b"y", b"cookie", b"content-length", b"x-request-id"):
        assert again(name) == other(name)


def test_a_copy_is_known_by_its_mark():
    assert is_mirrored(parse(b"x-SPLITPROXY-mirror: b"))
    assert not is_mirrored(parse(b"X-Splitproxy-Mirrored: b"))


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize(
    "cut", [b"", b"Connection: x-absent\r\n", b"Connection: keep-alive\r\nKeep-Alive: 1\r\nUpgrade: h2\r\n"]
)
def test_a_response_is_sent_on_as_version_1_1_without_fields_of_its_hop(version, cut):
    head = parse_response(version + b" 200 Fine\r\nX: 1\r\n" + cut + b"Content-Length: 2\r\n\r\n")
    for lines in (b"", b"Date: now\r\n"):
        assert compose_response(head, lines) == b"HTTP/1.1 200 Fine\r\nX: 1\r\nContent-Length: 2\r\n" + lines + b"\r\n"
