"""How soon copies alone convict a bad version, how seldom a good one, and what comparing answers costs a worker.

    python loadtests/mirrored_evidence.py                # a few minutes; --runs 200 for a first look

Simulated with fixed seeds, by the very code that a rollout uses. Costs are measured on the spot.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from random import Random
from statistics import median, quantiles
from time import process_time

from splitproxy.core.differences import Answer, Reading, Terms, differences
from splitproxy.core.pair_evidence import SHARE, PairEvidence, PairTerms
from splitproxy.core.pairs import CANARY_BAD, END, PAIRS, REFERENCE_BAD

COPIES = 10
"""A second."""
PATIENCE = 3600
"""Seconds after which a canary counts as not found."""
CASES = (
    (0.001, 0.05, 0.001, 1.0),
    (0.001, 0.05, 0.001, 1.1),
    (0.001, 0.05, 0.01, 1.0),
    (0.001, 0.01, 0.001, 1.0),
    (0.01, 0.05, 0.001, 1.0),
    (0.001, 0.5, 0.001, 1.0),
)
"""Share of failures on the primary, how much more on the canary, alpha, tolerate.errors."""


def evidence(alpha: float, tolerated: float, twin: str) -> PairEvidence:
    return PairEvidence(PairTerms(alpha=alpha * SHARE, errors=tolerated, twin=twin))


def seconds_to_verdict(random: Random, base: float, more: float, found: PairEvidence, patience: int) -> float:
    """Return when a canary is convicted; what is beyond `patience`: never."""
    cells = [0] * END
    for number in itertools.count(1):
        if number % COPIES == 0:
            found.tick()
            if number // COPIES >= patience:
                return float("inf")
        canary, reference = random.random() < base + more, random.random() < base
        if canary != reference:
            cells[PAIRS], cells[CANARY_BAD], cells[REFERENCE_BAD] = 1, int(canary), int(reference)
            found.count(cells, latency=True)
            if canary and found.standing("v2", "v1").convicted:
                return number / COPIES
    raise AssertionError


def detection(runs: int) -> None:
    print("| primary fails | the canary more | alpha | tolerate.errors | reference | seconds, median | p95 |")
    print("|---|---|---|---|---|---|---|")
    for base, more, alpha, tolerated in CASES:
        for twin in ("", "twin"):
            random = Random(f"{base} {more} {alpha}")
            times = [
                seconds_to_verdict(random, base, more, evidence(alpha, tolerated, twin), PATIENCE) for _ in range(runs)
            ]
            shares = f"{100 * base:g} %", f"+{100 * more:g} points", f"{alpha:g}", f"{tolerated:g}"
            late = quantiles(times, n=20)[-1]
            row = (*shares, "noise twin" if twin else "primary", f"{median(times):.1f}", f"{late:.1f}")
            print(f"| {' | '.join(row)} |", flush=True)


def false_verdicts(runs: int, seconds: int = 600) -> None:
    print(f"\n| identical canary, {seconds // 60} minutes | alpha | runs | convicted |\n|---|---|---|---|")
    for base, alpha in itertools.product((0.001, 0.01, 0.1), (0.001, 0.05)):
        random = Random(f"{base} {alpha}")
        times = [seconds_to_verdict(random, base, 0.0, evidence(alpha, 1.0, ""), seconds) for _ in range(runs)]
        wrong = sum(time < seconds for time in times)
        print(f"| {100 * base:g} % fail | {alpha:g} | {runs} | {wrong} ({100 * wrong / runs:.3g} %) |", flush=True)


def documents(size: int) -> tuple[Answer, Answer, Answer]:
    """Return an answer of about so many octets, the same again with other times, and one with other fields as well."""
    rows = [
        {"id": number, "name": f"item {number}", "price": number / 7, "tags": ["a", "b"]}
        for number in range(size // 78)
    ]
    fields = {b"content-type": b"application/json"}

    def answer(at: int, **more: object) -> Answer:
        text = json.dumps({"at": at, "rows": rows, **more}).encode()
        return Answer(200, fields, len(text), text)

    return answer(1), answer(2), answer(3, debug=True)


def costs() -> None:
    print("\n| what | microseconds |\n|---|---|")
    outcomes: list[tuple[str, Callable[[], object]]] = []
    terms = Terms(bodies=True, headers=("content-type",))

    def compared(*answers: Answer) -> Callable[[], object]:
        """Compare the first with all others, as a pair does, with a noise twin or without."""

        def work() -> list[object]:
            one, *others = (Reading(answer, terms) for answer in answers)
            return [differences(one, other, terms) for other in others]

        return work

    for size in (1_000, 10_000, 65_000):
        first, again, other = documents(size)
        label = f"{first.size / 1000:.0f} KB of JSON"
        outcomes.append((f"{label}, equal octet by octet", compared(first, first)))
        outcomes.append((f"{label}, one place differs", compared(first, again)))
        outcomes.append((f"{label}, with a noise twin, two places differ", compared(first, other, again)))
    for label, work in outcomes:
        rounds, began = 0, process_time()
        while process_time() - began < 0.5:
            work()
            rounds += 1
        print(f"| {label} | {1e6 * (process_time() - began) / rounds:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    costs()
    print()
    detection(options.runs)
    false_verdicts(options.runs)
