"""Whether one endpoint may be used: probes, ejection, and the way back."""

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.balancing import in_use
from splitproxy.core.health import FIRST_SHARE, Health, HealthCheck, OutlierDetection, Row

CHECK = HealthCheck("/healthz", "", ((200, 299), (404, 404)), 10.0, 2.0, 2, 3)
OUTLIERS = OutlierDetection(3, 10.0, 30.0, 100.0, 50)


def probe(health, results, check=CHECK):
    """Feed results, `+` good and `-` bad; return what was said of each: `.` no change, else what it is now."""
    said = ""
    for now, result in enumerate(results):
        changed = health.probed(result == "+", check, float(now))
        said += ("+" if health.healthy else "-") if changed else "."
    return said


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ("+++", "..."),
        ("---", "..-"),
        ("--+---", ".....-"),
        ("---++", "..-.+"),
        ("----+-++", "..-....+"),
        ("---++---", "..-.+..-"),
    ],
)
def test_probes_change_their_mind_after_so_many_in_a_row(results, said):
    assert probe(Health(), results) == said


@given(results=st.text("+-", max_size=60), rise=st.integers(1, 4), fall=st.integers(1, 4))
def test_whatever_comes_a_change_has_its_row_before_it(results, rise, fall):
    health = Health()
    said = probe(health, results, CHECK._replace(healthy_threshold=rise, unhealthy_threshold=fall))
    healthy = True
    for at, word in enumerate(said, 1):
        if word != ".":
            healthy = not healthy
            row = results[at - (rise if healthy else fall) : at]
            assert word == ("+" if healthy else "-")
            assert set(row) == {word}
            assert len(row) == (rise if healthy else fall)
    assert healthy is health.healthy is health.usable


def test_what_probes_said_is_forgotten_when_there_are_none_any_more():
    health = Health()
    assert not health.unprobed()
    probe(health, "---")
    assert health.unprobed()
    assert health.usable


@pytest.mark.parametrize(("status", "good"), [(200, True), (204, True), (301, False), (404, True), (503, False)])
def test_a_good_answer_has_one_of_the_statuses(status, good):
    assert CHECK.accepts(status) is good


# --- ejection --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answered", "in_a_row"),
    [
        ((0, 0, 0), (1, 2, 3)),
        ((5, 5, 5), (1, 2, 3)),
        ((5, 5, 6, 6), (1, 2, 1, 2)),
        ((5, 4, 5, 5), (1, 2, 3, 4)),  # a failed answer's body is still under way: it only seems less
        ((5, 4, 6), (1, 2, 1)),
    ],
)
def test_errors_are_in_a_row_while_nothing_is_answered_in_between(answered, in_a_row):
    row = Row()
    assert tuple(map(row.failed, answered)) == in_a_row
    row.clear()
    assert row.failed(answered[-1]) == 1


def test_time_alone_ends_an_ejection():
    health = Health()
    assert health.eject(OUTLIERS, 0.0) == 30.0
    assert (health.usable, health.healthy, health.ejected_until) == (False, True, 30.0)
    assert not health.returned(29.9)
    assert health.returned(30.0)
    assert health.usable
    assert not health.returned(31.0)


def test_ejections_grow_up_to_a_limit_and_shrink_in_calm():
    health, now, lengths = Health(), 0.0, []
    for calm in (0.0, 5.0, 9.0, 0.0, 15.0, 1000.0):
        now += calm
        lengths.append(health.eject(OUTLIERS, now))
        now = health.ejected_until
        assert health.returned(now)
    assert lengths == [30.0, 60.0, 90.0, 100.0, 100.0, 30.0]


def test_an_ejection_can_be_forgiven():
    health = Health()
    assert not health.pardon(1.0)
    health.eject(OUTLIERS, 0.0)
    assert health.pardon(1.0)
    assert health.usable


@pytest.mark.parametrize(
    ("percent", "endpoints", "most"),
    [(10, 1, 0), (10, 2, 1), (10, 9, 1), (10, 20, 2), (10, 29, 2), (50, 3, 1), (50, 4, 2), (100, 1, 1), (0, 10, 0)],
)
def test_how_many_may_be_ejected_at_one_time(percent, endpoints, most):
    outliers = OUTLIERS._replace(max_ejection_percent=percent)
    assert sum(outliers.allows(ejected, endpoints) for ejected in range(endpoints + 1)) == most


# --- the way back ----------------------------------------------------------------------------------------------------
def test_a_fresh_endpoint_has_its_full_share_at_once_one_that_joins_others_has_not():
    assert Health().share(10.0, 0.0) == 1.0
    assert Health(joined=5.0).share(10.0, 6.0) == FIRST_SHARE
    assert Health(joined=5.0).share(0.0, 5.0) == 1.0


@pytest.mark.parametrize("leave", [lambda health: probe(health, "---++"), lambda health: health.eject(OUTLIERS, 0.0)])
def test_the_share_grows_after_the_return_and_then_stays(leave):
    health = Health()
    leave(health)
    back = health.ejected_until or 4.0
    health.returned(back)
    shares = [health.share(10.0, back + passed) for passed in (0.0, 0.5, 2.5, 9.0, 10.0)]
    assert shares == [FIRST_SHARE, FIRST_SHARE, 0.25, 0.9, 1.0]
    assert health.share(1e6, back + 11.0) == 1.0


# --- those in use ----------------------------------------------------------------------------------------------------
class Endpoint:
    weight, active, name = 1.0, 0, b""

    def __init__(self, usable):
        self.usable = usable


@pytest.mark.parametrize(
    ("usable", "panic", "used"),
    [
        ("++++", 50, "++++"),
        ("++--", 50, "++--"),  # just as many as it takes
        ("+---", 50, "++++"),
        ("+---", 0, "+---"),
        ("+---", 25, "+---"),
        ("+---", 26, "++++"),
        ("----", 50, "----"),  # nothing works: say so at once
        ("----", 100, "----"),
        ("-", 50, "-"),
        ("+++-", 100, "++++"),
        ("", 50, ""),
    ],
)
def test_in_a_panic_all_are_used_but_never_when_none_is_left(usable, panic, used):
    endpoints = [Endpoint(one == "+") for one in usable]
    chosen = in_use(endpoints, panic)
    assert "".join("+" if one in chosen else "-" for one in endpoints) == used
