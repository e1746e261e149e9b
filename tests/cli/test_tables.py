"""Tables that fit."""

from hypothesis import given, settings, strategies as st

from splitproxy import tables

TEXT = st.text("abc %", max_size=40)
TABLES = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(st.text("ABC", min_size=1, max_size=8), min_size=count, max_size=count),
        st.lists(st.lists(TEXT, min_size=count, max_size=count), max_size=6),
    )
)


def total(line):
    return len(tables.GAP.join(line))


@settings(deadline=None)
@given(TABLES, st.integers(20, 120))
def test_every_line_is_as_wide_as_the_others_and_fits_if_it_can(table, width):
    heads, rows = table
    for lines in (tables.fitted([heads, *rows], width), tables.wrapped([heads, *rows], width)):
        assert len({total(line) for line in lines}) == 1
        least = sum(max(len(head), 10) for head in heads) + 2 * (len(heads) - 1)
        assert total(lines[0]) <= max(width, least)


@settings(deadline=None)
@given(TABLES, st.integers(20, 120))
def test_wrapping_loses_no_word(table, width):
    heads, rows = table
    lines = tables.wrapped([heads, *rows], width)
    for place in range(len(heads)):
        said = "".join(line[place].replace(" ", "") for line in lines)
        assert said == "".join(row[place].replace(" ", "") for row in [heads, *rows])


ROWS = [("NAME", "PHASE", "REASON"), ("shop", "Progressing", "one two three four five six seven")]


def test_where_there_is_room_nothing_changes():
    assert tables.fitted(ROWS, 80) == tables.wrapped(ROWS, 80) == tables.aligned(ROWS)
    assert tables.aligned(ROWS, right=(0,))[1][0] == "shop"
    assert tables.aligned([("A",), ("long",)], right=(0,))[0] == ["   A"]


def test_the_widest_gives_way_first():
    assert tables.fitted(ROWS, 40)[1] == ["shop", "Progressing", "one two three four f…"]


def test_columns_that_may_leave_do_so_last_and_those_that_stay_whole_are_not_cut():
    assert tables.fitted(ROWS, 30, leaving=(2,))[1] == ["shop", "Progressing", "one two th…"]
    assert tables.fitted(ROWS, 20, leaving=(2,))[1] == ["shop", "Progressing"]
    assert tables.fitted(ROWS, 48, whole=(2,), leaving=(1,))[1] == [
        "shop",
        "Progressi…",
        "one two three four five six s…",
    ]
    assert tables.fitted(ROWS, 44, whole=(2,), leaving=(1,))[1] == ["shop", "one two three four five six seven"]


def test_a_number_keeps_to_its_percent_sign():
    assert [line[0].strip() for line in tables.wrapped([("SHARE",), ("to the canary 95 % now",)], 17)] == [
        "SHARE",
        "to the canary",
        "95 % now",
    ]
