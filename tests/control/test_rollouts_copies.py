"""The comparison of copies in control: what counts for which run, what it leads to, and what a restart remembers."""

import json
from types import SimpleNamespace

import pytest

from splitproxy.control.rollouts.copies import Copies
from splitproxy.core import pairs
from splitproxy.core.pair_evidence import PairTerms
from splitproxy.core.pairs import CANARY_BAD, COMPARED, END, NO_EVENT, PAIRS
from splitproxy.core.rollout.state import State

LIVE = "a" * 32


class World:
    """A rollout that copies, and counters that a test moves."""

    def __init__(self, **terms):
        self.cells, self.now, self.events = [0] * END, 0.0, []
        self.active, self.counters = True, "this boot"
        self.plan = SimpleNamespace(
            name="shop",
            compare=True,
            canary="v2",
            primary="v1",
            copies=PairTerms(**{"errors": 1.0, "warmup": 0.0, **terms}),
        )
        self.traffic = SimpleNamespace(mirror=10_000)
        self.served = [{"liveKey": LIVE}]
        self.notes, self.alerts = [], []
        self.telling = SimpleNamespace(note=self.notes.append, news=self.alerts.append)
        signals = SimpleNamespace(add_up=lambda keys, first, last: self.found(keys)[first:last])
        self.parts = SimpleNamespace(signals=signals, counters=self.counters)
        self.clock = SimpleNamespace(now=lambda: self.now)
        self.copies = Copies(self, {})

    def found(self, keys):
        return list(self.cells) if list(keys) == [pairs.key(LIVE)] else [0] * END

    def put(self, event):
        self.events.append(event)

    def salt(self):
        return 7

    def count(self, look=True, **counts):
        names = {"pairs": PAIRS, "canary": CANARY_BAD, "compared": COMPARED, "none": NO_EVENT}
        for name, count in counts.items():
            self.cells[names[name]] += count
        if look:
            self.now += 0.1
            self.copies.look()

    def tell(self, run=7, who="canary", place="$.x"):
        differences = [[place, "value", who, "1", "2", "1"]]
        message = {"run": run, "rule": "0", "request": "r-1", "statuses": [200, 200, 200], "differences": differences}
        self.copies.heard(message)

    def restarted(self, counters="this boot"):
        """Return the comparison of a process that takes over."""
        saved = {"copies": json.loads(json.dumps(self.copies.saved())), "counters": counters}
        return Copies(self, saved)


@pytest.fixture
def world():
    made = World(twin="twin", bodies="act")
    made.count()
    return made


def test_nothing_copied_is_nothing_to_be_seen(world):
    assert world.copies.view() is None
    assert world.copies.saved() is None


def test_what_was_counted_before_the_run_does_not_count():
    world = World()
    world.count(look=False, pairs=100, canary=100)
    world.count()
    world.count(pairs=1)
    assert world.copies.view()["pairs"] == 1
    assert world.copies.view()["canaryOnlyBad"] == 0


def test_failures_convict_once(world):
    for _ in range(40):
        world.count(pairs=1, canary=1)
    (event,) = world.events
    assert "failed on v2 alone, 0 on twin alone" in event.sentence
    assert dict(event.data)["leading"] == "failures"
    assert world.copies.view()["convicted"]


def test_fields_convict_as_they_are_told(world):
    world.count(pairs=40, compared=40)
    for _ in range(40):
        world.tell()
    assert [dict(event.data)["leading"] for event in world.events] == ["$.x"]


def test_what_is_told_of_another_run_does_not_count(world):
    world.count(pairs=40)
    for _ in range(40):
        world.tell(run=8)
    assert world.copies.view()["fields"] == []
    assert world.events == []


def test_nothing_counts_while_nothing_is_copied(world):
    world.traffic.mirror = 0
    world.count(pairs=40, canary=40)
    world.tell()
    assert world.copies.view() is None
    assert world.events == []


def test_a_new_attempt_begins_with_nothing(world):
    world.count(pairs=5, canary=5, none=2)
    assert world.copies.view()["noEvents"] == 2
    world.copies.decided(State(attempt=1), State(attempt=2))
    assert world.copies.view() is None
    world.count()
    world.count(pairs=1)
    assert world.copies.view()["pairs"] == 1


def test_a_restart_goes_on_where_it_was(world):
    world.count(pairs=5, canary=3)
    world.tell()
    before = world.copies.view()
    other = world.restarted()
    assert other.view() == before
    world.count(look=False, pairs=2, canary=1)
    other.look()
    assert (other.view()["pairs"], other.view()["canaryOnlyBad"]) == (7, 4)


def test_a_restart_with_other_counters_keeps_the_evidence(world):
    world.count(pairs=5, canary=3)
    log10_e = world.copies.view()["logE"]
    other = world.restarted("another boot")
    world.cells = [0] * END
    other.look()
    world.count(look=False, pairs=1)
    other.look()
    assert other.view()["logE"] == pytest.approx(log10_e, abs=0.01)
    assert other.view()["pairs"] == 6


@pytest.mark.parametrize(
    ("terms", "why"),
    [({}, "without a noise twin this is only reported"), ({"twin": "twin", "bodies": "report"}, "are to be reported")],
)
def test_people_are_told_once_of_what_nothing_follows_from(terms, why):
    world = World(**terms)
    world.count()
    for _ in range(60):
        world.tell()
        world.count(pairs=1, compared=1)
    (note,), (alert,) = world.notes, world.alerts
    assert note.startswith("v2 answers copies unlike")
    assert "$.x (50 of 50 pairs)" in note
    assert why in note
    assert alert.severity == "warn"
    assert note in alert.text
    assert world.events == []


def test_nobody_is_told_of_noise():
    world = World(twin="twin", bodies="report")
    world.count()
    for _ in range(60):
        world.tell(who="both")
        world.count(pairs=1, compared=1)
    assert world.notes == []


def test_latency_is_left_out_while_the_canary_warms_up():
    world = World(twin="twin", warmup=10.0)
    world.count()
    world.count(pairs=1)
    world.cells[pairs.LATENCY] += 50
    world.count()
    assert world.copies.view()["slower"][0]["canary"] == 0
    world.now += 11
    world.cells[pairs.LATENCY] += 50
    world.count()
    assert world.copies.view()["slower"][0]["canary"] == 50
    assert [dict(event.data)["leading"] for event in world.events] == ["latency x1"]
