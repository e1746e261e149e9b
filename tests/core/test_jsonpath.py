import re

import pytest

from splitproxy.core.jsonpath import look_up, parse

DOCUMENT = {"data": {"items": [{"value": 1}, {"value": 2}], "my-key": "x", "a b": None, "ö": 3}, "n": 4}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$", DOCUMENT),
        ("$.n", 4),
        ("n", 4),
        ("$.data.items[0].value", 1),
        ("data.items[-1].value", 2),
        ("$['data']['items'][1]", {"value": 2}),
        ("$.data.my-key", "x"),
        ('$.data["a b"]', None),
        ("$.data['ö']", 3),
    ],
)
def test_a_path_leads_to_its_value(text, value):
    assert look_up(DOCUMENT, parse(text)) == value


@pytest.mark.parametrize(
    ("text", "place"),
    [("$n", 2), ("$.", 2), ("a..b", 2), ("a.", 2), ("[0]n", 4), ("a[", 2), ("a[x]", 2), ("a['b]", 2), ("$.a b", 4)],
)
def test_a_path_that_makes_no_sense_is_an_error_with_its_place(text, place):
    with pytest.raises(ValueError, match=f"at character {place}: expected"):
        parse(text)


def test_an_empty_path_is_an_error():
    with pytest.raises(ValueError, match="it is empty"):
        parse("")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("$.x.y", "$.x"),
        ("$.data.items[2].value", "$.data.items[2]"),
        ("$.data.items.value", "$.data.items.value"),
        ("$.data[0]", "$.data[0]"),
        ("$.n.real", "$.n.real"),
        ("$.data.my-key[0]", "$.data.my-key[0]"),
    ],
)
def test_a_place_that_is_not_there_is_named(text, missing):
    with pytest.raises(LookupError, match=re.escape(f"there is no {missing}")):
        look_up(DOCUMENT, parse(text))
