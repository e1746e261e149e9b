"""Many rollouts at once are weighed exactly as one is."""

import math

import pytest

np = pytest.importorskip("numpy")

from splitproxy.core.evidence import Batch, Evidence, Terms  # noqa: E402
from splitproxy.core.slowness import THRESHOLDS  # noqa: E402
from splitproxy.simulation.weighing import Counted, Weighing  # noqa: E402

TERMS = Terms(errors=1.1, latency=1.0, warmup=0.0, horizon=50)
WEIGHTS = [0.02, 0.1, 0.5]
RUNS, SECONDS = 6, 20
PLACES = (0.5, 0.25, 0.15, 0.05, 0.04, 0.009, 0.001)


def slow(canary, primary):
    """Return one rollout's requests between thresholds as the core wants them: above and below each."""
    above = [[int(side[place + 1 :].sum()) for place in range(len(THRESHOLDS))] for side in (canary, primary)]
    return tuple((a, int(canary.sum()) - a, b, int(primary.sum()) - b) for a, b in zip(*above, strict=True))


def drawn(random, weight):
    """Return a second's counts; some canaries are bad, some slow."""
    rate = 400
    canary = random.poisson((rate * weight)[:, None] * np.array(PLACES))
    primary = random.poisson((rate * (1 - weight))[:, None] * np.array(PLACES))
    canary[RUNS // 2 :, -1] += random.poisson(0.3, RUNS - RUNS // 2)
    of_canary, of_primary = canary.sum(axis=1), primary.sum(axis=1)
    bad = random.binomial(of_canary, np.where(np.arange(RUNS) % 2, 0.02, 0.01))
    return Counted(of_canary, of_primary, bad, random.binomial(of_primary, 0.01), (canary, primary))


def told(evidence, weight, counted, run):
    """Tell the core the same of one rollout."""
    counts = (int(side[run]) for side in counted[:4])
    places = slow(*(side[run] for side in counted.slow))
    return evidence.add(Batch(weight, *counts, slow=places))


def test_the_same_counts_give_the_same_evidence_and_gates():
    random = np.random.default_rng(11)
    many = Weighing(TERMS, WEIGHTS, RUNS)
    ones = [Evidence(TERMS._replace(min_dwell=0.0), WEIGHTS[0]) for _ in range(RUNS)]
    stage = np.zeros(RUNS, dtype=np.int64)
    for second in range(SECONDS):
        counted = drawn(random, np.array(WEIGHTS)[stage])
        many.tick()
        many.add(stage, counted)
        for run, one in enumerate(ones):
            one.tick()
            told(one, WEIGHTS[stage[run]], counted, run)
        standings = [one.standing() for one in ones]
        assert np.log(many.e()) == pytest.approx([standing.log_e for standing in standings], abs=1e-9)
        assert [*many.passed()] == [standing.gate.passed for standing in standings]
        assert [*many.leading()] == [int(standing.leading.startswith("latency")) for standing in standings]
        on = np.nonzero(many.passed() & (stage < len(WEIGHTS) - 1) & (second % 3 == 0))[0]
        stage[on] += 1
        many.begin_stage(on)
        for run in on:
            ones[run].begin_stage(WEIGHTS[stage[run]])
    assert len({*stage}) > 1
    assert any(standing.log_e > math.log(1000) for standing in standings)


def test_the_same_order_of_failures_convicts_at_the_same_one():
    random = np.random.default_rng(5)
    lasting = np.arange(40) < random.integers(3, 40, size=(RUNS, 1))  # what is none comes last
    sides = np.where(lasting, random.random((RUNS, 40)) < 0.35, -1).astype(np.int64)
    stage = np.arange(RUNS) % len(WEIGHTS)
    many = Weighing(TERMS, WEIGHTS, RUNS)
    many.tick()
    rows = np.arange(RUNS)
    found = many.conviction(rows, stage, sides)
    for run in rows:
        one, convicted = Evidence(TERMS, WEIGHTS[stage[run]]), -1
        one.tick()
        for place, side in enumerate(sides[run]):
            if side < 0:
                break
            event = Batch(WEIGHTS[stage[run]], 1, 1, int(side), int(1 - side))
            if one.add(event) and convicted < 0:
                convicted = place
        assert found[run] == convicted
    assert 0 < (found >= 0).sum() < RUNS
    counted = Counted(*[(sides == 1).sum(axis=1)] * 2, (sides == 1).sum(axis=1), (sides == 0).sum(axis=1))
    assert {*rows[found >= 0]} <= {*many.suspects(stage, counted)}
