"""Every kind of value: what it takes, the form it gives it, what it refuses."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from splitproxy.config import fields
from splitproxy.config.addresses import Address, EndpointUrl, Hostname, HostPattern, overlap, reaches
from splitproxy.config.fields import spelled_duration
from splitproxy.config.health import Statuses
from splitproxy.config.paths import ReplacementPath, path_value
from splitproxy.config.scalars import Substituted


def taken(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def refused(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    (error,) = caught.value.errors()
    return f"{error['msg']} {error.get('ctx', {}).get('hint', '')}"


@pytest.mark.parametrize(
    ("value", "normal"), [(204, "204"), ("200-299", "200-299"), ("404", "404"), (Substituted("503"), "503")]
)
def test_a_status_is_a_number_or_a_range(value: object, normal: str) -> None:
    assert taken(Statuses, value) == normal


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (100, "200 at least"),
        ("199-299", "200 at least"),
        ("299-200", "write 200-299"),
        (600, "a status such as 204"),
        ("2xx", "a status such as 204"),
        (True, "not true"),
        (["200"], "not a list"),
    ],
)
def test_other_statuses_are_refused(value: object, said: str) -> None:
    assert said in refused(Statuses, value)


# The vectors of Gateway API's GEP-2257.
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0h", 0), ("0s", 0), ("0h0m0s", 0), ("1h", 3600), ("30m", 1800), ("10s", 10), ("500ms", 0.5), ("2h30m", 9000),
        ("150m", 9000), ("7230s", 7230), ("1h30m10s", 5410), ("10s30m1h", 5410), ("100ms200ms300ms", 0.6),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_the_gateway_api_reads_it(text: str, seconds: float) -> None:
    assert taken(fields.Duration, text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "1m1",
        "1d",
        "1.5h",
        "-15m",
        "999999h",
        "1h30m10s20ms50h",
        "",
        "1:30",
        " 1s",
        "1s\n",
        "\uff11s",
        5,
        True,
        None,
    ],
)
def test_what_is_not_a_duration_of_the_gateway_api_is_refused(value: object) -> None:
    assert "a duration such as 500ms, 10s or 1m30s is wanted" in refused(fields.Duration, value)


@pytest.mark.parametrize(("value", "hint"), [(5, "write 5s"), ("1:30", "write 1m30s"), ("1.5s", "write 1500ms")])
def test_a_near_duration_is_told_the_right_form(value: object, hint: str) -> None:
    assert hint in refused(fields.Duration, value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (90, "1m30s"), (5410, "1h30m10s"), (3600.001, "1h1ms")]
)
def test_a_duration_is_written_with_the_largest_units_first(seconds: float, text: str) -> None:
    assert spelled_duration(seconds) == text


@pytest.mark.parametrize(("value", "size"), [("64Ki", 65536), ("1Mi", 1 << 20), ("2048", 2048), (2048, 2048)])
def test_a_size_is_a_number_of_bytes(value: object, size: int) -> None:
    assert taken(fields.Annotated[int, fields.size(1024, 1 << 20)], value) == size


@pytest.mark.parametrize("value", ["64KB", "64K", "1.5Mi", "-1Ki", "2Gi", "1023", 1023, 1.5, True, "010", ""])
def test_what_is_not_a_size_within_bounds_is_refused(value: object) -> None:
    assert "a size such as 64Ki or 1Mi from 1Ki to 1Mi is wanted" in refused(
        fields.Annotated[int, fields.size(1024, 1 << 20)], value
    )


@pytest.mark.parametrize(
    ("value", "weight"), [(0, 0), (1, 1), (99.99, 99.99), (0.01, 0.01), (1e3, 1000), (5.0, 5), (1_000_000, 1_000_000)]
)
def test_a_weight_has_up_to_two_decimals(value: float, weight: float) -> None:
    found = taken(fields.Weight, value)
    assert found == weight
    assert type(found) is type(weight)


@pytest.mark.parametrize("value", [-1, 1_000_001, 0.005, 1.234, "5", "lots", True, [], {}, 1e99])
def test_what_is_not_a_weight_is_refused(value: object) -> None:
    assert "a number from 0 to 1000000 with at most two decimals is wanted" in refused(fields.Weight, value)


@pytest.mark.parametrize(
    ("value", "hint"), [("10", "write 10, without quotes"), ("010", "write 10"), ("1_0", "write 10")]
)
def test_a_number_that_is_text_is_told_the_right_form(value: str, hint: str) -> None:
    assert refused(fields.Weight, value).endswith(hint)


def test_a_value_from_the_environment_is_typed_by_its_key() -> None:
    assert taken(fields.Weight, Substituted("10")) == 10
    assert taken(fields.Boolean, Substituted("true")) is True
    assert taken(fields.Name, Substituted("10")) == "10"
    assert "is wanted" in refused(fields.Weight, Substituted("010"))


@pytest.mark.parametrize(("value", "hint"), [("yes", "write true"), ("off", "write false"), (1, "")])
def test_only_true_and_false_are_booleans(value: object, hint: str) -> None:
    assert refused(fields.Boolean, value).endswith(hint)


@pytest.mark.parametrize("name", ["a", "shop-v2", "A.b_c", "1", "a" * 63])
def test_a_name_is_taken(name: str) -> None:
    assert taken(fields.Name, name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a" * 64, "é", "a\n", "a/b"])
def test_what_is_not_a_name_is_refused(name: str) -> None:
    assert "a name of 1 to 63" in refused(fields.Name, name)


@pytest.mark.parametrize("value", ["", "a b", "a\tb", '"quoted", w/ all !~'])
def test_a_header_value_is_taken(value: str) -> None:
    assert taken(fields.HeaderValue, value) == value


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "\x7f", "é", " a", "a\t", "a" * 4097])
def test_what_could_break_a_head_is_no_header_value(value: str) -> None:
    assert refused(fields.HeaderValue, value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\n", "(a)"])
def test_what_is_not_a_token_is_no_header_name(name: str) -> None:
    assert "a header name is wanted" in refused(fields.HeaderName, name)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        (":8080", "0.0.0.0:8080"),
        ("[::]:80", "[::]:80"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ],
)
def test_an_address_to_listen_at_has_one_form(text: str, address: str) -> None:
    assert taken(Address, text) == address


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("127.0.0.1", "such as 127.0.0.1:8080"),
        ("8080", "write 127.0.0.1:8080"),
        (8080, 'write ":8080"'),
        ("127.0.0.1:65536", "a port up to 65535"),
        ("127.0.0.1:http", "a port up to 65535"),
        ("127.0.0.1:080", "a port up to 65535"),
        ("::1:80", "such as 127.0.0.1:8080"),
        ("[127.0.0.1]:80", "without brackets"),
        ("example.com:80", "such as 127.0.0.1:8080"),
        ("[::1]", "such as 127.0.0.1:8080"),
        ("", "such as 127.0.0.1:8080"),
        (True, "is wanted"),
    ],
)
def test_what_is_not_an_address_to_listen_at_is_refused(value: object, part: str) -> None:
    assert part in refused(Address, value)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", True),
        ("127.0.0.1:80", "127.0.0.2:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", False),
        ("127.0.0.1:80", "[::]:80", False),
        ("127.0.0.1:80", "[::1]:80", True),
        ("[::1]:80", "[::]:80", False),
        ("0.0.0.0:80", "[::1]:80", True),
        ("127.0.0.1:0", "127.0.0.1:0", True),
    ],
)
def test_two_addresses_are_known_to_take_the_same_port(one: str, other: str, both: bool) -> None:
    assert overlap(one, other) is not both
    assert overlap(other, one) is not both


@pytest.mark.parametrize(
    ("listener", "host", "port", "yes"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("127.0.0.1:80", "127.0.0.1", 81, False),
        ("127.0.0.1:80", "localhost", 80, True),
        ("127.0.0.1:80", "10.0.0.1", 80, False),
        ("127.0.0.1:80", "example.com", 80, False),
        ("0.0.0.0:80", "127.0.0.5", 80, True),
        ("0.0.0.0:80", "10.0.0.1", 80, False),
        ("[::]:80", "::1", 80, True),
        ("10.0.0.1:80", "localhost", 80, False),
    ],
)
def test_a_connection_that_would_come_back_is_known(listener: str, host: str, port: int, yes: bool) -> None:
    assert reaches(listener, host, port) is yes


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("http://127.0.0.1:9001/", "http://127.0.0.1:9001"),
        ("HTTP://Shop.Internal:80", "http://shop.internal:80"),
        ("http://shop_v1:80", "http://shop_v1:80"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("HTTPS://Shop.Internal:443/", "https://shop.internal:443"),
    ],
)
def test_an_endpoint_is_host_and_port(url: str, normal: str) -> None:
    assert taken(EndpointUrl, url) == normal


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://a", "write 'https://a:443'"),
        ("127.0.0.1:80", "write 'http://127.0.0.1:80'"),
        ("http://a", "write 'http://a:80'"),
        ("http://[::1]", "names its port"),
        ("http://a:0", "a port from 1 to 65535"),
        ("http://a:99999", "a port up to 65535"),
        ("http://u:p@a:80", "no user name or password"),
        ("http://a:80/x", "has more"),
        ("http://a:80?x", "has more"),
        ("http://a:80#x", "has more"),
        ("http://a b:80", "not a host name or address"),
        ("http://[::1:80", "such as http://127.0.0.1:9001"),
        ("http://[v1.x]:80", "is not an IPv6 address"),
        ("ftp://a:80", "such as http://127.0.0.1:9001"),
        ("", "such as http://127.0.0.1:9001"),
    ],
)
def test_what_is_more_or_less_than_an_endpoint_is_refused(url: str, part: str) -> None:
    assert part in refused(EndpointUrl, url)


@pytest.mark.parametrize(
    ("text", "host"), [("Shop.Example.COM", "shop.example.com"), ("*.Example.com", "*.example.com"), ("a", "a")]
)
def test_a_host_is_kept_in_lower_case(text: str, host: str) -> None:
    assert taken(HostPattern, text) == host


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("*", "leave `hostnames` out"),
        ("a.*.b", "the whole first label"),
        ("*a.b", "the whole first label"),
        ("10.0.0.1", "not the address"),
        ("::1", "not the address"),
        ("a.b:80", "write 'a.b'"),
        ("bücher.example", "write xn--bcher-kva.example"),
        ("a..b", "is wanted"),
        ("a.b.", "is wanted"),
        ("-a.b", "is wanted"),
        ("a b", "is wanted"),
        ("http://a", "is wanted"),
        ("", "is wanted"),
        ("a." * 130 + "b", "is wanted"),
    ],
)
def test_what_is_not_a_host_is_refused(text: str, part: str) -> None:
    assert part in refused(HostPattern, text)


def test_one_host_is_no_wildcard() -> None:
    assert "not the wildcard" in refused(Hostname, "*.example.com")


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a.b/c", "/a..b", "/%20", "/~a;b=c,d", "/..a", "/a/.b"])
def test_a_path_is_taken(path: str) -> None:
    assert path_value(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "a", "//", "/a//b", "/./a", "/a/../b", "/a/.", "/a/..", "/a%2fb", "/a%2Fb", "/%2e%2E/a"),
        *("/a#b", "/a?b", "/a b", "/é", "/%", "/%zz", "/a\n", "/" + "a" * 1024),
    ],
)
def test_a_path_that_no_request_can_have_is_refused(path: str) -> None:
    with pytest.raises(Exception, match=r"path|cannot stand"):
        path_value(path)


@pytest.mark.parametrize("path", ["", "/", "/a/b", "/a//b", "/a%2fb"])
def test_a_path_to_write_may_be_empty(path: str) -> None:
    assert taken(ReplacementPath, path) == path


@pytest.mark.parametrize("path", ["a", "//host/a", "/a b", "/a?b", "/a\r\nb"])
def test_a_path_to_write_cannot_name_a_host_or_break_a_head(path: str) -> None:
    assert refused(ReplacementPath, path)
