"""Recorded signals: what a line may be, and that they are played again exactly."""

import json
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from splitproxy.core.evidence import Terms
from splitproxy.errors import RecordError
from splitproxy.simulation.record import read, replay
from splitproxy.simulation.traffic import Traffic, chances, shares

SAMPLE = Path(__file__).resolve().parents[2] / "config/signals.jsonl"
GOOD = {"weight": 5, "canary": {"requests": 50, "failed": 0}, "primary": {"requests": 950, "failed": 1}}


def test_the_sample_convicts_when_its_canary_turns_bad():
    seconds = read(SAMPLE.read_text().splitlines(), "signals.jsonl")
    second, standing = replay(seconds, Terms())
    assert 90 < second <= 100
    assert standing.leading == "errors"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "x:1: not JSON"),
        ("[]", 'x:1: an object with "weight" (percent), "canary" and "primary" is wanted'),
        (json.dumps({**GOOD, "weight": 101}), "x:1: weight is 101, a percentage from 0 to 100 is wanted"),
        (json.dumps({**GOOD, "canary": None}), "x:1: canary is missing"),
        (json.dumps({**GOOD, "canary": {"requests": 1, "failed": 2}}), "x:1: canary: requests and failed have to be"),
        (
            json.dumps({**GOOD, "primary": {"requests": 9, "failed": 0, "above": [1]}}),
            "x:1: primary: above has",
        ),
        ("", "x has no line"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(line, reason):
    with pytest.raises(RecordError) as caught:
        read([line], "x")
    assert str(caught.value).startswith(reason)


def test_rates_and_shares_are_the_recorded_ones():
    above = {"above": [5, 3, 1, 1, 1, 0]}
    line = {**GOOD, "canary": {"requests": 10, "failed": 1, **above}, "primary": {"requests": 10, "failed": 2, **above}}
    traffic = Traffic(recorded=read([json.dumps(line)], "x"))
    assert chances(traffic, 7) == (20.0, 0.2, 0.1)
    primary, canary, good = shares(traffic, 1.1, 0.005)
    assert [*primary] == [*canary] == [*good] == pytest.approx([0.5, 0.2, 0.2, 0.0, 0.0, 0.1, 0.0])
