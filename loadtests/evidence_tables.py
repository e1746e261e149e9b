"""The figures of docs/evidence.md: plays every cell with fixed seeds and writes the tables between their markers.

    python loadtests/evidence_tables.py                  # all, ten to thirty minutes on two idle cores
    python loadtests/evidence_tables.py --only detection # one group; the others stay as they were last time

What each cell came to is kept in docs/evidence.json, from which the tables are written. Exit code 1: a target is
missed.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from random import Random
from statistics import median, quantiles

from mirrored_evidence import evidence as pair_evidence, seconds_to_verdict

from splitproxy.core.evidence import Batch, Evidence, Terms
from splitproxy.simulation.bound import least_requests
from splitproxy.simulation.many import play
from splitproxy.simulation.policy import Policy, Step
from splitproxy.simulation.rivals import RULES
from splitproxy.simulation.summary import columns
from splitproxy.simulation.traffic import Traffic

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "evidence.json"
PAGE = DOCS / "evidence.md"
SEED = 20260901
FOREVER = 10**9
STRICT = Terms(errors=1.0, latency=1.0, delay=0.0, warmup=0.0)
ERRORS_ONLY = STRICT._replace(warmup=float(FOREVER))
"""Without latency: nothing about it changes, and its part of the stake stays as it is."""
RAMP = (0.01, 0.05, 0.1, 0.25, 0.5)
STAGE_SECONDS = 120
NAMES = tuple(rule.name for rule in RULES)

# name, traffic, tolerated ratio, target for bad requests, for seconds
DETECTION = (
    ("+50 points errors", Traffic(kind="errors", size=0.5), 1.0, 4, 0.2),
    ("+5 points", Traffic(kind="errors", size=0.05), 1.0, 5, 2.0),
    ("+0.5 points", Traffic(kind="errors", size=0.005), 1.0, 12, 40.0),
    ("+0.5 points, 1.1 tolerated", Traffic(kind="errors", size=0.005), 1.1, 14, 45.0),
    ("p99 doubled, median the same", Traffic(kind="tail", size=2.0), 1.0, None, 5.0),
    ("everything 10 % slower", Traffic(kind="latency", size=1.1), 1.0, None, 16.0),
)
FALSE = (
    ("identical canary", Traffic()),
    ("errors growing ten-fold", Traffic(drift=10.0)),
    ("bursts", Traffic(bursts=True)),
    ("sticky heavy users", Traffic(sticky=True)),
)
GRID = tuple(
    (base, weight, size) for base in (0.001, 0.01) for weight in (0.01, 0.05, 0.1) for size in (0.005, 0.01, 0.05, 0.5)
)


def held(weight: float, terms: Terms) -> Policy:
    """Return a policy that keeps the canary at one weight."""
    return Policy((Step(weight, FOREVER, FOREVER, 3600, by_evidence=False),), terms)


def ramp(terms: Terms, *, by_evidence: bool = False) -> Policy:
    seconds = 10 if by_evidence else STAGE_SECONDS
    return Policy(tuple(Step(weight, 0 if by_evidence else seconds, 1, seconds, by_evidence) for weight in RAMP), terms)


def plain(played, traffic, names=()):
    return [one.plain() for one in columns(played, names, traffic.onset, wrong=traffic.kind != "none")]


def detection(runs):
    for name, traffic, tolerated, *_ in DETECTION:
        now = traffic._replace(seconds=3600)
        yield name, plain(play(held(0.05, STRICT._replace(errors=tolerated)), now, runs, SEED, RULES), now, NAMES)


def late(runs):
    for name, traffic, tolerated, *_ in DETECTION:
        now = traffic._replace(seconds=2700, onset=1800)
        yield name, plain(play(held(0.05, STRICT._replace(errors=tolerated)), now, runs, SEED), now)


def false(runs):
    terms = STRICT._replace(horizon=STAGE_SECONDS * len(RAMP))
    for name, traffic in FALSE:
        now = traffic._replace(seconds=terms.horizon)
        yield name, plain(play(ramp(terms), now, runs, SEED, RULES), now, NAMES)


def promotion(runs):
    terms = STRICT._replace(horizon=600)
    for name, rate, errors, size in (
        ("good canary, 1,000 rps", 1000.0, 0.001, 0.0),
        ("good canary, 1,000 rps, 1 % errors", 1000.0, 0.01, 0.0),
        ("good canary, 100 rps", 100.0, 0.001, 0.0),
        ("1.5 times the errors (1 %), 1,000 rps", 1000.0, 0.01, 0.005),
        ("1.5 times the errors (1 %), 100 rps", 100.0, 0.01, 0.005),
    ):
        traffic = Traffic(rate=rate, errors=errors, kind="errors" if size else "none", size=size, seconds=3600)
        yield name, plain(play(ramp(terms, by_evidence=True), traffic, runs, SEED), traffic)


def bound(runs):
    for base, weight, size in GRID:
        traffic = Traffic(errors=base, kind="errors", size=size, seconds=3600)
        for tolerated in (1.0, 1.1):
            (found,) = plain(play(held(weight, ERRORS_ONLY._replace(errors=tolerated)), traffic, runs, SEED), traffic)
            least = least_requests(STRICT.alpha, weight, base, base + size, tolerated)
            yield f"{base} {weight} {size} {tolerated}", {**found, "least": least}


def mirrored(runs):
    for alpha, target in ((0.001, 35.0), (0.01, 20.0)):
        random = Random(SEED)
        times = [seconds_to_verdict(random, 0.001, 0.05, pair_evidence(alpha, 1.0, ""), 3600) for _ in range(runs)]
        yield f"alpha {alpha}", {"median": median(times), "p95": quantiles(times, n=20)[-1], "target": target}


def cost(rounds):
    """Yield microseconds of CPU: a second's tick with all counts, without and with a limit, and one failure alone."""
    slow = tuple((n, 50 - n, 19 * n, 950 - 19 * n) for n in (25, 12, 5, 3, 1, 0))
    second, failure = Batch(0.05, 50, 950, 0, 1, slow), Batch(0.05, 1, 19, 1, 0)
    evidence, limited = Evidence(STRICT, 0.05), Evidence(STRICT, 0.05, 0.01)

    def tick(one):
        one.tick()
        one.add(second)

    found = {
        "tick": least(lambda: tick(evidence), rounds),
        "limited": least(lambda: tick(limited), rounds),
        "event": least(lambda: evidence.add(failure), rounds),
    }
    yield "microseconds", found


def least(call, rounds, times=20):
    """Return the microseconds of CPU that a call takes in the best of some rounds: others work on this machine too."""
    found = []
    for _ in range(times):
        began = time.process_time()
        for _ in range(rounds // times):
            call()
        found.append((time.process_time() - began) / (rounds // times) * 1e6)
    return min(found)


GROUPS = {
    "detection": (detection, 1000),
    "late": (late, 1000),
    "promotion": (promotion, 1000),
    "bound": (bound, 1000),
    "mirrored": (mirrored, 1000),
    "cost": (cost, 4000),
    "false": (false, 20_000),
}


# --- in words ---------------------------------------------------------------------------------------------------------
def number(value):
    return "never" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def middle(found):
    return "never" if found["median"] is None else f"{number(found['median'])} ({number(found['p95'])})"


def verdict(*met):
    return "yes" if all(met) else "**no**"


def table(heads, rows):
    return "\n".join(["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)])


def below(found, target):
    return found["median"] is not None and found["median"] <= target


def detection_words(kept):
    rows, rivals = [], []
    for name, _, _, bad, seconds in DETECTION:
        own, *others = kept[name]
        met = below(own["seconds"], seconds) and (bad is None or below(own["bad"], bad))
        target = f"≤ {bad}, < {seconds:g} s" if bad else f"< {seconds:g} s"
        requests = middle(own["canary_requests"])
        rows.append([name, middle(own["seconds"]), middle(own["bad"]), requests, target, verdict(met)])
        rivals.append([name, *[f"{middle(one['seconds'])} / {middle(one['bad'])}" for one in (own, *others)]])
    first = table(["on the canary", "seconds", "bad requests", "canary requests", "target", "met"], rows)
    return f"{first}\n\nSeconds / bad requests, beside other controllers' rules:\n\n" + table(
        ["on the canary", "splitproxy", *NAMES], rivals
    )


def late_words(kept, start):
    rows = []
    for name, *_ in DETECTION:
        (own,), (first, *_) = kept[name], start[name]
        ratio = own["seconds"]["median"] / first["seconds"]["median"]
        rows.append(
            [name, middle(first["seconds"]), middle(own["seconds"]), f"{ratio:.2g}", "≤ 3", verdict(ratio <= 3)]
        )
    return table(["on the canary", "from the start, s", "from minute 30, s", "ratio", "target", "met"], rows)


def false_words(kept):
    rows = []
    for name, _ in FALSE:
        runs = kept["runs"]
        shares = [f"{100 * one['early'] / runs:.3g} %" for one in kept[name]]
        own = kept[name][0]
        met = own["early"] / runs <= 0.001
        bound_ = f"{100 * own['early_bound']:.2g} %"
        rows.append([name, f"{own['early']} of {runs:,}", bound_, "≤ 0.1 %", verdict(met), *shares[1:]])
    return table(["traffic", "rolled back", "95 %: below", "target", "met", *NAMES], rows)


def promotion_words(kept):
    rows = []
    for name, found in kept.items():
        if name == "runs":
            continue
        (own,) = found
        share = own["promoted"] / kept["runs"]
        met = ""
        if name == "good canary, 1,000 rps":
            met = f"< 60 s: {verdict(below(own['promote_seconds'], 60))}"
        elif name.startswith("1.5"):
            met = f"≤ 5 %: {verdict(share <= 0.05)}"
        rolled = f"{100 * own['rolled_back'] / kept['runs']:.3g} %"
        rows.append([name, f"{100 * share:.3g} %", middle(own["promote_seconds"]), rolled, met])
    return table(["canary", "promoted", "after seconds", "rolled back", "target, met"], rows)


def bound_words(kept):
    ratios = {1.0: [], 1.1: []}
    cells = {}
    for place, found in kept.items():
        if place == "runs":
            continue
        base, weight, size, tolerated = map(float, place.split())
        ratio = found["requests"]["median"] / found["least"] if found["requests"]["median"] else float("inf")
        ratios[tolerated].append(ratio)
        cells[base, weight, size, tolerated] = f"{ratio:.2f}"
    rows = [
        [
            f"{100 * base:g} %",
            f"{100 * weight:g} %",
            *[
                f"{cells[base, weight, size, 1.0]} / {cells[base, weight, size, 1.1]}"
                for size in (0.005, 0.01, 0.05, 0.5)
            ],
        ]
        for base in (0.001, 0.01)
        for weight in (0.01, 0.05, 0.1)
    ]
    heads = ["errors", "weight", *[f"+{100 * size:g} points" for size in (0.005, 0.01, 0.05, 0.5)]]
    worst, tolerant = max(ratios[1.0]), max(ratios[1.1])
    return (
        f"{table(heads, rows)}\n\nWorst: {worst:.2f}, and {tolerant:.2f} with 1.1 tolerated; target ≤ 1.6: "
        + verdict(worst <= 1.6, tolerant <= 1.6)
    )


def mirrored_words(kept):
    rows = [
        [name, middle(found), f"< {found['target']:g} s", verdict(below(found, found["target"]))]
        for name, found in kept.items()
        if name != "runs"
    ]
    return table(["10 copies a second, +5 points", "seconds", "target", "met"], rows)


def cost_words(kept):
    found = kept["microseconds"]
    met = verdict(found["tick"] <= 100)
    rows = [
        ["a tick: 1,000 requests, 37 bets on latency", f"{found['tick']:.0f} µs", "≤ 100 µs", met],
        ["the same with a hard limit for errors", f"{found['limited']:.0f} µs", "", ""],
        ["one failure, weighed as it happens", f"{found['event']:.0f} µs", "", ""],
    ]
    return table(["control's CPU", "best of 20", "target", "met"], rows)


WORDS = {
    "detection": detection_words,
    "promotion": promotion_words,
    "bound": bound_words,
    "mirrored": mirrored_words,
    "cost": cost_words,
    "false": false_words,
}


def write(kept):
    """Write all tables between their markers; return whether every target is met."""
    text = PAGE.read_text()
    for name in GROUPS:
        if name not in kept:
            continue
        words = late_words(kept[name], kept["detection"]) if name == "late" else WORDS[name](kept[name])
        if f"<!-- {name} -->" not in text:
            continue
        before, rest = text.split(f"<!-- {name} -->", 1)
        _, after = rest.split(f"<!-- /{name} -->", 1)
        text = f"{before}<!-- {name} -->\n{words}\n<!-- /{name} -->{after}"
    PAGE.write_text(text)
    return "**no**" not in text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=GROUPS, action="append", help="these groups")
    parser.add_argument("--runs", type=int, help="rollouts per cell, for a first look")
    parser.add_argument("--write", action="store_true", help="only write the tables from what is kept")
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if options.write else options.only or GROUPS:
        group, runs = GROUPS[name]
        runs = options.runs or runs
        found = {"runs": runs}
        for cell, result in group(runs):
            found[cell] = result
            print(f"{name}: {cell}", file=sys.stderr, flush=True)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept[name] = found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if write(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
