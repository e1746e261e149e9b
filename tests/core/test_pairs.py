"""Copies as evidence: what a pair counts as, what it proves, and what it never does however often one looks."""

import itertools
import json
from math import exp, log
from random import Random
from statistics import median

import pytest

from splitproxy.core.pair_evidence import MOST_FIELDS, SHARE, PairEvidence, PairTerms
from splitproxy.core.pairs import (
    BOTH_BAD,
    CANARY_BAD,
    COMPARED,
    END,
    FACTORS,
    LATENCY,
    PAIRS,
    REFERENCE_BAD,
    Outcome,
    counted,
)

FINE, BAD = Outcome(bad=False, seconds=0.1), Outcome(bad=True)
TWIN = PairTerms(twin="twin", bodies="act")
REQUEST = {"requestId": "r-1"}


def cells(**counts):
    """Return what workers have counted: `canary=1, reference=2, both=0, slower=(canary, reference)`."""
    found = [0] * END
    found[CANARY_BAD], found[REFERENCE_BAD] = counts.get("canary", 0), counts.get("reference", 0)
    found[BOTH_BAD] = counts.get("both", 0)
    found[PAIRS] = counts.get("pairs", sum(found))
    found[COMPARED] = counts.get("compared", 0)
    for place in range(len(FACTORS)):
        found[LATENCY + 2 * place], found[LATENCY + 2 * place + 1] = counts.get("slower", (0, 0))
    return found


def gathered(*labels, terms=TWIN, place="$.x", kind="value"):
    """Return the evidence of one field that differed on the canary (1), the twin (0), or both (None)."""
    evidence = PairEvidence(terms)
    for label in labels:
        who = {1: "canary", 0: "twin", None: "both"}[label]
        evidence.sample("0", [[place, kind, who, "1", "2", "3"]], REQUEST)
    return evidence


def standing(evidence):
    return evidence.standing("shop-v2", "shop-v1")


# --- what is counted -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("canary", "reference", "found"),
    [
        (FINE, FINE, {LATENCY + 1}),
        (Outcome(bad=False, seconds=0.11), FINE, set()),
        (BAD, FINE, {CANARY_BAD}),
        (FINE, BAD, {REFERENCE_BAD}),
        (BAD, BAD, {BOTH_BAD}),
        (Outcome(bad=False, seconds=0.5), FINE, {LATENCY, LATENCY + 2, LATENCY + 4}),
        (FINE, Outcome(bad=False, seconds=0.5), {LATENCY + 1, LATENCY + 3, LATENCY + 5}),
        (Outcome(bad=False, seconds=0.2), FINE, {LATENCY, LATENCY + 2}),
        (Outcome(bad=False, seconds=0.115), FINE, {LATENCY}),
        (Outcome(bad=False, seconds=0.1101), FINE, set()),
        (Outcome(bad=False), FINE, set()),
        (BAD._replace(seconds=9.0), FINE, {CANARY_BAD}),
    ],
)
def test_a_pair_is_counted_once_and_fairly(canary, reference, found):
    assert set(counted(canary, reference, 1.1, 0.005)) == {PAIRS} | found


def test_a_difference_of_less_than_a_millisecond_is_none():
    assert set(counted(Outcome(False, 0.0019), Outcome(False, 0.001), 1.0, 0.0)) == {PAIRS}


def test_a_tolerated_delay_is_taken_off():
    quick = Outcome(bad=False, seconds=0.002)
    for seconds, slower in ((0.0069, False), (0.0081, True)):
        assert (LATENCY in counted(Outcome(bad=False, seconds=seconds), quick, 1.1, 0.005)) is slower


# --- failures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("alpha", "needed"), [(0.001, 13), (0.01, 9), (0.05, 7)])
def test_so_many_failures_of_the_canary_alone_convict_it(alpha, needed):
    evidence = PairEvidence(PairTerms(alpha=alpha * SHARE, errors=1.0))
    evidence.count(cells(canary=needed - 1), latency=True)
    assert not standing(evidence).convicted
    evidence.count(cells(canary=1), latency=True)
    assert standing(evidence).convicted
    assert standing(evidence).leading == "failures"
    assert f"{needed} of {needed} pairs failed on shop-v2 alone, 0 on shop-v1 alone" in standing(evidence).sentence


def test_failures_that_both_sides_share_prove_nothing():
    evidence = PairEvidence(PairTerms())
    evidence.count(cells(both=1000), latency=True)
    assert evidence.log_e == pytest.approx(0.0)
    evidence.count(cells(canary=30, reference=30), latency=True)
    assert evidence.log_e < 0
    assert not standing(evidence).convicted


def test_a_verdict_waits_for_as_many_failures_as_are_asked_for():
    evidence = PairEvidence(PairTerms(errors=1.0, min_bad_events=40))
    evidence.count(cells(canary=39), latency=True)
    assert not standing(evidence).convicted
    evidence.count(cells(canary=1), latency=True)
    assert standing(evidence).convicted


def test_what_is_tolerated_does_not_convict():
    evidence = PairEvidence(PairTerms(alpha=0.05, errors=2.0))
    for _ in range(100):
        evidence.count(cells(canary=20, reference=10), latency=True)
    assert not standing(evidence).convicted


def test_the_order_and_the_size_of_batches_do_not_matter():
    one, other = PairEvidence(TWIN), PairEvidence(TWIN)
    one.count(cells(canary=3, reference=2, slower=(5, 1)), latency=True)
    for _ in range(3):
        other.count(cells(canary=1), latency=True)
    other.count(cells(reference=2, slower=(2, 1)), latency=True)
    other.count(cells(slower=(3, 0)), latency=True)
    assert one.log_e == pytest.approx(other.log_e)


def test_a_canary_that_turns_bad_late_is_found_as_quickly():
    evidence, early = (PairEvidence(PairTerms(errors=1.0)) for _ in range(2))
    for _ in range(1800):
        evidence.tick()
        evidence.count(cells(reference=1), latency=True)
    failures = 0
    while not standing(evidence).convicted:
        failures += 1
        evidence.tick()
        evidence.count(cells(canary=1), latency=True)
    early.count(cells(canary=failures), latency=True)
    assert standing(early).convicted
    assert failures <= 3 * 14


# --- latency ---------------------------------------------------------------------------------------------------------
def test_latency_convicts_unless_the_canary_is_warming_up():
    for latency in (False, True):
        evidence = PairEvidence(TWIN)
        evidence.count(cells(pairs=100, slower=(60, 2)), latency=latency)
        assert standing(evidence).convicted is latency
    assert standing(evidence).leading.startswith("latency")
    assert "shop-v2 was" in standing(evidence).sentence


def test_without_a_twin_latency_is_reported_and_proves_nothing():
    evidence = PairEvidence(PairTerms())
    evidence.count(cells(pairs=100, slower=(60, 2)), latency=True)
    assert evidence.log_e == pytest.approx(0.0)
    assert evidence.slower == [[60, 2]] * 3


# --- fields ----------------------------------------------------------------------------------------------------------
def test_without_a_twin_differences_are_reported_and_prove_nothing():
    evidence = gathered(*[1] * 200, terms=PairTerms(bodies="report"))
    (field,) = evidence.fields()
    assert evidence.log_e == pytest.approx(0.0)
    assert not standing(evidence).convicted
    assert (field["canaryOnly"], field["twinOnly"], field["e"], field["verdict"]) == (200, None, None, "reported")
    assert field["examples"] == [{"requestId": "r-1", "primary": "1", "canary": "2", "twin": "3"}] * 5


def test_what_the_twin_does_as_well_is_noise():
    evidence = gathered(*[None] * 300, *[1, 0] * 50)
    assert evidence.fields()[0]["verdict"] == "noise"
    assert evidence.log_e < 0


def test_what_the_canary_alone_does_is_a_regression():
    evidence = gathered(*[None] * 100, *[1] * 20)
    (field,) = evidence.fields()
    assert field["verdict"] == "regression"
    assert standing(evidence).convicted
    assert standing(evidence).leading == "$.x"
    assert "$.x differed on shop-v2 alone in 20 pairs, on shop-v1 alone in 0" in standing(evidence).sentence


@pytest.mark.parametrize(("place", "bodies", "acts"), [("$.x", "report", False), ("$.x", "act", True)])
def test_bodies_act_only_where_that_is_asked_for(place, bodies, acts):
    evidence = gathered(*[1] * 40, terms=TWIN._replace(bodies=bodies), place=place)
    assert evidence.fields()[0]["verdict"] == "regression"
    assert standing(evidence).convicted is acts


def test_a_status_acts_wherever_there_is_a_twin():
    assert standing(gathered(*[1] * 40, terms=TWIN._replace(bodies="ignore"), place="status")).convicted


def test_fields_are_bounded():
    evidence = PairEvidence(TWIN)
    for number in range(2 * MOST_FIELDS):
        evidence.sample("0", [[f"$.x{number}", "value", "canary", "1", "2", "1"]], REQUEST)
    assert len(evidence.fields()) == MOST_FIELDS == evidence.untracked


# --- what never happens ----------------------------------------------------------------------------------------------
def test_no_bet_can_be_expected_to_win_where_nothing_is_wrong():
    """All ways in which eight fair pairs can fall out, on average: exactly what was staked."""
    total = 0.0
    for labels in itertools.product((0, 1), repeat=8):
        evidence = PairEvidence(TWIN._replace(errors=1.0))
        for number, label in enumerate(labels):
            evidence.tick()
            match number % 3:
                case 0:
                    evidence.count(cells(canary=label, reference=1 - label), latency=True)
                case 1:
                    evidence.count(cells(slower=(label, 1 - label)), latency=True)
                case _:  # fields that hang together, and turn up one after the other
                    who = "canary" if label else "twin"
                    some = [[f"$.{name}", "value", who, "", "", ""] for name in "abc"[: number // 2]]
                    evidence.sample("0", some, REQUEST)
        total += exp(evidence.log_e)
    assert total / 2**8 == pytest.approx(1.0)


def test_a_better_canary_can_be_expected_to_lose_the_stake():
    chance, total = 0.4, 0.0
    for labels in itertools.product((0, 1), repeat=8):
        evidence = PairEvidence(TWIN._replace(errors=1.0))
        for label in labels:
            evidence.count(cells(canary=label, reference=1 - label), latency=True)
        total += exp(evidence.log_e) * chance ** sum(labels) * (1 - chance) ** (8 - sum(labels))
    assert total < 1


def test_a_good_canary_is_convicted_as_seldom_as_promised():
    """Watched after every single pair, over 80 pairs that differ."""
    alpha, runs, random, wrong = 0.05, 200, Random(5), 0
    for _ in range(runs):
        evidence = PairEvidence(TWIN._replace(alpha=alpha, errors=1.0))
        peak = 0.0
        for number in range(80):
            label = random.getrandbits(1)
            if number % 2:
                evidence.count(cells(canary=label, reference=1 - label), latency=True)
            else:
                evidence.sample("0", [["$.at", "value", "canary" if label else "twin", "", "", ""]], REQUEST)
            peak = max(peak, evidence.log_e)
        wrong += peak >= -log(alpha)
    assert wrong / runs <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5


# --- how quickly -----------------------------------------------------------------------------------------------------
def seconds_to_conviction(random, alpha, *, copies=10, base=0.001, more=0.05):
    """Return after how many seconds of copies a canary that fails so much more often is convicted."""
    evidence = PairEvidence(PairTerms(alpha=alpha * SHARE, errors=1.0))
    for number in itertools.count(1):
        if number % copies == 0:
            evidence.tick()
        canary, primary = random.random() < base + more, random.random() < base
        if canary != primary:
            evidence.count(cells(canary=int(canary), reference=int(primary)), latency=True)
            if standing(evidence).convicted:
                return number / copies
    raise AssertionError


@pytest.mark.parametrize(("alpha", "most"), [(0.001, 35.0), (0.01, 20.0)])
def test_five_points_more_failures_are_found_at_ten_copies_a_second(alpha, most):
    random = Random(11)
    assert median(seconds_to_conviction(random, alpha) for _ in range(151)) < most


# --- beside a rule that may not be watched ---------------------------------------------------------------------------
def thresholds(raw, noise, total):
    """Return whether a rule on relative and absolute difference calls a field regressed (Diffy's: 20 % and 0.03 %)."""
    gap = abs(raw - noise)
    return raw > noise and gap / (raw + noise) * 100 > 20 and gap / total * 100 > 0.03


@pytest.mark.parametrize(
    ("raw", "noise", "total", "reported"),
    [
        (30, 20, 1000, False),
        (31, 20, 1000, True),
        (20, 30, 1000, False),
        (1, 0, 1000, True),
        (1, 0, 3333, True),
        (1, 0, 3334, False),
        (500, 400, 10_000, False),
        (600, 400, 10_000, False),
    ],
)
def test_what_thresholds_report_is_not_what_is_proven(raw, noise, total, reported):
    """What differs on both at once cancels out: at the worst, all that `noise` counts was the twin's alone."""
    assert thresholds(raw, noise, total) is reported
    evidence = gathered(
        *(int(number * raw // (raw + noise) != (number + 1) * raw // (raw + noise)) for number in range(raw + noise))
    )
    proven = evidence.fields()[0]["verdict"] == "regression"
    assert proven is (raw == 600), "600 against 400 is no chance at all; the others may well be"


def test_a_watched_threshold_cries_wolf_and_evidence_does_not():
    """A field that differs now and then on either version alike, over 1,000 requests, looked at after each."""
    random, runs, flagged, convicted = Random(3), 200, 0, 0
    for _ in range(runs):
        evidence, raw, noise, cried = PairEvidence(TWIN._replace(alpha=0.01)), 0, 0, False
        for number in range(1, 1001):
            mine, its = random.random() < 0.01, random.random() < 0.01
            raw, noise = raw + mine, noise + its
            cried = cried or (number % 11 == 0 and thresholds(raw, noise, number))
            if mine != its:
                evidence.sample("0", [["$.at", "value", "canary" if mine else "twin", "", "", ""]], REQUEST)
        flagged += cried
        convicted += evidence.fields()[0]["verdict"] == "regression"
    assert flagged > runs / 2
    assert convicted <= 0.01 * runs + 3 * (0.01 * runs) ** 0.5


# --- across a restart ------------------------------------------------------------------------------------------------
def test_it_goes_on_after_a_restart_exactly_where_it_was():
    one, other = PairEvidence(TWIN), PairEvidence(TWIN)
    for evidence in (one, other):
        random = Random(2)
        for number in range(60):
            if number == 30 and evidence is other:
                evidence = PairEvidence(TWIN)
                evidence.restore(json.loads(json.dumps(other.plain())))
            evidence.tick()
            label = int(random.random() < 0.7)
            evidence.count(cells(canary=label, reference=1 - label, slower=(label, 0), compared=1), latency=True)
            who = ("canary", "twin", "both")[random.randrange(3)]
            evidence.sample("0", [[f"$.{'abc'[number % 3]}", "value", who, "1", "2", "3"]], {"requestId": str(number)})
        other = evidence if evidence is not one else other
    assert one.plain() == other.plain()
    assert standing(one) == standing(other)
    assert one.fields() == other.fields()
