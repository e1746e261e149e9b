"""What filters do to heads, beyond the Gateway API's tables."""

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.filters import HeaderModifier, PathChange, Redirect, Rewrite, compile_filters
from splitproxy.core.targets import normalise


# --- header modifiers ------------------------------------------------------------------------------------------------
def test_set_puts_one_field_in_the_place_of_many():
    fields = [(b"X-A", b"1"), (b"other", b"o"), (b"x-a", b"2")]
    HeaderModifier([(b"X-a", b"new")], [], []).apply(fields)
    assert fields == [(b"other", b"o"), (b"X-a", b"new")]


def test_remove_takes_all_occurrences_and_leaves_the_rest_as_it_came():
    fields = [(b"X-A", b"1"), (b"Other", b" o "), (b"x-a", b"2"), (b"x-ab", b"3")]
    HeaderModifier([], [], [b"x-A"]).apply(fields)
    assert fields == [(b"Other", b" o "), (b"x-ab", b"3")]


def test_add_appends_to_the_last_of_many():
    fields = [(b"via", b"1"), (b"Via", b"2"), (b"z", b"z")]
    HeaderModifier([], [(b"VIA", b"3")], []).apply(fields)
    assert fields == [(b"via", b"1"), (b"Via", b"2,3"), (b"z", b"z")]


def test_add_to_an_empty_value_puts_no_comma():
    fields = [(b"x-a", b"")]
    HeaderModifier([], [(b"x-a", b"1")], []).apply(fields)
    assert fields == [(b"x-a", b"1")]


def test_a_cookie_that_is_set_is_never_joined_to_another():
    fields = [(b"Set-Cookie", b"a=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT")]
    HeaderModifier([], [(b"set-cookie", b"b=2")], []).apply(fields)
    assert fields[1:] == [(b"set-cookie", b"b=2")]


def test_a_cookie_is_added_as_cookies_are_listed():
    fields = [(b"Cookie", b"a=1")]
    HeaderModifier([], [(b"cookie", b"b=2")], []).apply(fields)
    assert fields == [(b"Cookie", b"a=1; b=2")]


def test_a_modifier_of_nothing_changes_nothing():
    fields = [(b"a", b"1")]
    HeaderModifier([], [], []).apply(fields)
    assert fields == [(b"a", b"1")]


# --- paths -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "prefix", "replacement", "result"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo/bar", "/x/y/z", "/x/y/z"),
    ],
)
def test_a_prefix_is_replaced_as_the_gateway_api_says(path, prefix, replacement, result):
    assert PathChange(None, prefix.encode(), replacement.encode()).path(path.encode()) == result.encode()


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("/foo/b%C3%A9/%2F", "/xyz/b%C3%A9/%2F"),  # what follows keeps its spelling
        ("/%66oo/bar", "/xyz/bar"),  # the prefix may be spelt otherwise
        ("//foo//bar", "/xyz/bar"),
        ("/foo/a/../b", "/xyz/b"),
        ("/foo/../foo/bar", "/xyz/bar"),  # kept, the dots would climb out of /xyz
        ("/x/../foo/", "/xyz/"),
        ("/foo/a/%2e%2E/b/%2e", "/xyz/b/"),
        ("/foo/..;/b", "/xyz/..;/b"),
        ("/foo/a/..", "/xyz/"),
        ("/foo/.", "/xyz/"),
        ("/foo/.hidden", "/xyz/.hidden"),
    ],
)
def test_an_unusual_spelling_of_the_path_does_not_escape_the_replacement(path, result):
    assert PathChange(None, b"/foo", b"/xyz").path(path.encode()) == result.encode()


def test_a_prefix_that_is_percent_encoded_in_the_file_is_the_decoded_one():
    assert PathChange(None, b"/%66oo", b"/xyz").path(b"/foo/bar") == b"/xyz/bar"
    assert PathChange(None, b"/caf%C3%A9", b"/xyz").path(b"/caf%c3%a9/bar") == b"/xyz/bar"


def test_with_the_root_replaced_nothing_is_lost():
    assert PathChange(None, b"/", b"/xyz").path(b"/./") == b"/xyz/"


segments = st.sampled_from(["foo", "a", ".", "..", "", "%2e", "%2E%2e", "%2F", "..%2f", "b%20c", ".x"])


@given(st.lists(segments, max_size=6), st.sampled_from(["", "/"]))
def test_a_replaced_path_is_the_replacement_and_what_followed_the_prefix(parts, slash):
    path = ("/foo/" + "/".join(parts) + slash).encode()
    normal = normalise(path)
    if normal != b"/foo" and not normal.startswith(b"/foo/"):
        return
    assert normalise(PathChange(None, b"/foo", b"/new/root").path(path)) == b"/new/root" + normal[len(b"/foo") :]


# --- redirects and rewrites ------------------------------------------------------------------------------------------
def test_a_redirect_keeps_the_query_and_the_path_as_they_came():
    redirect = Redirect(308, b"https", None, None, None)
    assert redirect.location(b"http", b"a.b", 80, b"/%7Ex//y", b"q=1&q=2") == b"https://a.b/%7Ex//y?q=1&q=2"


def test_a_redirect_of_an_address_keeps_its_brackets():
    assert Redirect(302, None, None, 8443, None).location(b"http", b"[::1]", 80, b"/", b"") == b"http://[::1]:8443/"


def test_without_any_host_a_redirect_is_relative_and_never_names_another():
    redirect = Redirect(302, None, None, None, None)
    assert redirect.location(b"http", b"", 80, b"//evil.example/x", b"") == b"/evil.example/x"


def test_a_redirect_of_the_asterisk_form_leads_to_the_root():
    assert Redirect(302, b"https", None, None, None).location(b"http", b"a.b", 80, b"*", b"") == b"https://a.b/"


def test_a_rewrite_of_the_host_alone_leaves_the_target():
    rewrite = Rewrite(b"internal", None)
    assert not rewrite.changes_path
    assert rewrite.target(b"/a//b", b"c=d") == b"/a//b?c=d"
    assert rewrite.target(b"/a", b"") == b"/a"


# --- compiling -------------------------------------------------------------------------------------------------------
def test_no_filters_compile_to_nothing():
    assert compile_filters([], "/") == (None, None, None, None, (), None)


def test_all_kinds_compile_side_by_side():
    nothing = {"set": [], "add": [], "remove": []}
    mirrors = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name}}} for name in "ab"]
    filters = compile_filters(
        [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": nothing},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": nothing},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": None}},
            *mirrors,
        ],
        "/",
    )
    assert isinstance(filters.request_modifier, HeaderModifier)
    assert isinstance(filters.response_modifier, HeaderModifier)
    assert filters.rewrite is not None
    assert filters.rewrite.hostname == b"h"
    assert filters.redirect is None
    assert [mirror["backendRef"]["name"] for mirror in filters.mirrors] == ["a", "b"]


def test_an_unknown_filter_is_an_error():
    with pytest.raises(ValueError, match="CORS"):
        compile_filters([{"type": "CORS"}], "/")
