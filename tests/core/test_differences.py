"""How two answers differ: place by place, typed, pooled where documents repeat themselves, and with secrets hidden."""

import gzip
import json
import zlib

import pytest
from hypothesis import given, strategies as st

from splitproxy.core import differences
from splitproxy.core.differences import HIDDEN, MOST_FIELDS, Answer, Reading, Terms, redacted, rule, written

ALL = Terms(bodies=True, headers=("etag", "vary"))
HASH = "0123456789abcdef0123"


def answer(document=None, *, status=200, body=None, **fields):
    named = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    if body is None:
        body = json.dumps(document).encode()
        named = {b"content-type": b"application/json", **named}
    return Answer(status, named, len(body), body)


def between(one, other, terms):
    return differences.differences(Reading(one, terms), Reading(other, terms), terms)


def found(one, other, terms=ALL, *, sizes=False):
    """Return the fields in which two answers differ, as people write them."""
    fields = between(one, other, terms)
    return {f"{written(place)} {kind}": shown for (place, kind), shown in fields.items() if sizes or place[0] != "size"}


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"$.a value": ("1", "2")}),
        ({"a": 1}, {"a": "1"}, {"$.a type": ("1", '"1"')}),
        ({"a": 1}, {"a": True}, {"$.a type": ("1", "true")}),
        ({"a": 0}, {"a": None}, {"$.a type": ("0", "null")}),
        ({"a": 1}, {}, {"$.a missing": ("1", "")}),
        ({}, {"a": [1, 2]}, {"$.a extra": ("", "array of 2")}),
        ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, {"$.a.b.c value": ('"x"', '"y"')}),
        ([1, 2, 3], [1, 2], {"$ length": ("array of 3", "array of 2")}),
        ([1, 2, 3], [3, 2, 1], {"$ order": ("array of 3", "array of 3")}),
        ([1, 2, 3], [1, 5, 6], {"$[] value": ("2", "5")}),
        ([{"p": 1}, {"p": 2}], [{"p": 1}, {"q": 2}], {"$[].p missing": ("2", ""), "$[].q extra": ("", "2")}),
        ({"17": {"p": 1}, "18": {"p": 2}}, {"17": {"p": 1}, "18": {"p": 3}}, {"$.*.p value": ("2", "3")}),
        ({"17": 1}, {"18": 1}, {"$ keys": ("object of 1", "object of 1")}),
        ({HASH: 1}, {HASH: 2}, {"$.* value": ("1", "2")}),
        ({"a b": {"x.y": 1}}, {"a b": {"x.y": 2}}, {'$.a b["x.y"] value': ("1", "2")}),
        ("text", "other", {"$ value": ('"text"', '"other"')}),
        ({"long": "x" * 200}, {"long": "y"}, {"$.long value": (f'"{"x" * 78}…', '"y"')}),
    ],
)
def test_documents_differ_place_by_place(one, other, fields):
    assert found(answer(one), answer(other)) == fields


def test_numbers_are_compared_as_numbers_and_exactly():
    pairs = [("1", "1.0", False), ("10", "1e1", False), (str(2**70), str(2**70 + 1), True), ("0.1", "0.10", False)]
    for one, other, differ in pairs:
        texts = (f'{{"a": {text}}}'.encode() for text in (one, other))
        sides = [answer(body=text, content_type="application/json") for text in texts]
        assert bool(found(*sides)) is differ, (one, other)


def test_an_object_with_many_keys_is_a_map():
    one = {f"name{number}": {"n": number} for number in range(60)}
    other = {key: {"n": value["n"] + 1} for key, value in one.items()}
    assert found(answer(one), answer(other)) == {"$.*.n value": ("0", "1")}


def test_of_answers_with_different_statuses_only_the_statuses_are_told():
    assert found(answer({"a": 1}), answer({"error": 1}, status=404), sizes=True) == {"status value": ("200", "404")}


def test_without_bodies_only_statuses_are_compared():
    assert found(answer({"a": 1}, etag="x"), answer({"a": 2}, etag="y"), Terms(), sizes=True) == {}


def test_headers_that_are_asked_for_are_compared():
    one, other = answer({}, etag="x", vary="a", server="s"), answer({}, etag="y", server="t")
    assert found(one, other) == {"header:etag value": ("x", "y"), "header:vary missing": ("a", "")}


def test_sizes_of_what_is_no_json_differ_beyond_a_tenth():
    for size, differs in ((100, False), (110, False), (112, True), (50, True)):
        fields = found(answer(body=b"x" * 100), answer(body=b"x" * size), Terms(bodies=True), sizes=True)
        assert ("size value" in fields) is differs
    assert found(answer({"a": 1}), answer({"a": 1, "b": "x" * 100}), sizes=True).keys() == {"$.b extra"}


@pytest.mark.parametrize(("one", "other"), [(200, 304), (304, 200)])
def test_what_a_client_has_already_is_no_difference(one, other):
    assert found(answer({"a": 1}, status=one), answer({"a": 2}, status=other), sizes=True) == {}


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        (answer(body=b"<p>", content_type="text/html"), answer(body=b"<q>", content_type="text/html"), "body value"),
        (answer({"a": 1}), answer(body=b"<q>", content_type="text/html"), "body type"),
        (answer({"a": 1}), answer(body=b'{"a": ', content_type="application/json"), "body type"),
        (answer({"a": 1}), answer(body=b'{"a": NaN}', content_type="application/json"), "body type"),
    ],
)
def test_what_is_no_json_is_compared_as_a_whole(one, other, fields):
    assert list(found(one, other)) == [fields]


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked(coding, pack):
    document = json.dumps({"a": 1, "b": "x" * 500}).encode()
    other = document.replace(b'"a": 1', b'"a": 2')
    fields = {"content_type": "application/problem+json; charset=utf-8", "content_encoding": coding}
    one = answer(body=pack(document), **fields)
    assert found(one, answer(body=pack(other), **fields)) == {"$.a value": ("1", "2")}
    assert found(one, answer(body=pack(document)[:-4] + b"xxxx", **fields), sizes=True) != {}
    plain = answer(body=document, content_type=fields["content_type"])
    assert found(one, plain) == {}, "the same content, once packed"


def test_a_body_that_unpacks_to_too_much_is_not_looked_into():
    bomb = gzip.compress(b'{"a": "' + b"x" * 10_000_000 + b'"}')
    one, other = (
        answer(body=body, content_type="application/json", content_encoding="gzip")
        for body in (bomb, gzip.compress(b'{"a": "y"}'))
    )
    assert list(found(one, other)) == ["body type"]


def test_a_body_that_was_not_kept_is_not_compared():
    whole, cut = answer({"a": 1}), answer({"a": 2})._replace(body=None)
    assert found(whole, cut, sizes=True) == {}
    assert found(whole, cut._replace(size=90_000), sizes=True) == {"size value": ("8", "90000")}


def test_what_nests_for_ever_is_no_trouble():
    deep = [
        answer(body=b"[" * depth + b"1" + b"]" * depth, content_type="application/json") for depth in (900, 100_000)
    ]
    assert list(found(*deep)) in (["body value"], ["body type"], ["$ type"])
    nested = [answer(json.loads("[" * 200 + last + "]" * 200)) for last in ("1", "2")]
    assert len(found(*nested)) == 1


def test_what_differs_everywhere_is_bounded():
    one, other = ({chr(97 + n % 26) + "x" * (n // 26): n + more for n in range(50)} for more in (0, 1))
    sides = [answer(dict.fromkeys("abcdefgh", side)) for side in (one, other)]
    assert len(found(*sides)) == MOST_FIELDS


# --- rules -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("$.a", {"$.a", "$.a.b", "$.a[].token"}),
        ("$.a[]", {"$.a[].token"}),
        ("$.*.b", {"$.a.b"}),
        ("$", {"$.a", "$.a.b", "$.a[].token"}),
        ("B", {"$.a.b"}),
        ("tok", set()),
        ("status", {"status"}),
        ("header:ETag", {"header:etag"}),
        ("etag", {"header:etag"}),
    ],
)
def test_a_rule_covers_a_place_and_what_is_below_it(text, covered):
    places = [
        *(("$", "a"), ("$", "a", "b"), ("$", "a", "[]", "token")),
        *(("status",), ("header", "etag")),
    ]
    assert {written(place) for place in places if rule(text).covers(place)} == covered


def test_what_is_ignored_is_not_found():
    one, other = answer({"a": 1, "b": {"c": 1}}, etag="x"), answer({"a": 2, "b": {"c": 2}}, etag="y")
    terms = ALL._replace(ignored=tuple(map(rule, ("$.b", "header:etag"))))
    assert found(one, other, terms) == {"$.a value": ("1", "2")}


def test_what_is_redacted_is_found_and_not_shown():
    one = answer({"accessToken": "s3cret", "api_key": {"x": "s3cret"}, "name": "s3cret", "user": {"mail": "s3cret"}})
    other = answer({"accessToken": "s4cret", "api_key": {"x": "s4cret"}, "name": "n", "user": {"mail": "s4cret"}})
    terms = ALL._replace(redacted=tuple(map(rule, (*differences.SECRETS, "$.user.mail", "name"))))
    shown = redacted(between(one, other, terms), terms)
    assert set(shown.values()) == {(HIDDEN, HIDDEN)}
    assert len(shown) == 4


@pytest.mark.parametrize("text", ["", "a.b", "$a", "$.a[0]", "$.a..b", "$.", 'a"b'])
def test_a_rule_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"place|expected"):
        rule(text)


@given(
    st.lists(
        st.one_of(
            st.just("[]"), st.just("*"), st.text(st.characters(exclude_characters='"[]', codec="ascii"), min_size=1)
        )
    )
)
def test_a_place_that_is_written_is_read_again(steps):
    place = ("$", *steps)
    assert rule(written(place)).place == place


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def same(one, other):
    """Return whether two documents are equal, a number being no boolean."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is not list and type(other) is not list and one == other


@given(JSON, JSON)
def test_something_is_found_exactly_where_documents_differ(one, other):
    assert bool(found(answer(one), answer(other))) is not same(one, other)
    assert found(answer(one), answer(one)) == {}
