"""What deciding costs: microseconds of CPU per tick and rollout, storage and measuring apart. Exit code 0: within 100.

    python loadtests/rollout_cost.py [--rounds 2000]

Plays whole releases through the state machine: five metrics, every kind of hook, a stage per percent. A tick is its
round: the tick itself, the answers of the hooks and gates it asks, and the verdicts.
"""

import argparse
import sys
import time

from splitproxy.core.analysis import PASS, Verdict
from splitproxy.core.rollout.events import Answer, Ask, Begin, Checked, Measure, Tick
from splitproxy.core.rollout.gates import WAITING
from splitproxy.core.rollout.machine import advance, traffic
from splitproxy.core.rollout.plan import HookPlan, MetricPlan, Plan, Stage
from splitproxy.core.rollout.state import State

LIMIT = 100.0
"""Microseconds of control's CPU per tick and rollout."""
NAMES = ("success", "p50", "p99", "rate", "errors")
PLAN = Plan(
    name="shop",
    route="shop",
    primary="v1",
    canary="v2",
    revision="r1",
    identity="digest",
    stages=tuple(Stage(weight=weight * 100, gate="confirm-traffic-increase") for weight in range(1, 100)),
    metrics=tuple(MetricPlan(name, "request-rate") for name in NAMES),
    hooks=tuple(HookPlan(type_, type_) for type_ in (*WAITING, "pre-rollout", "rollout", "rollback")),
    strategy="canary",
)
VERDICTS = tuple(Verdict(name, PASS, 1.0, 0.0, 2.0, 100, 1.0, 1.0, "/s", "") for name in NAMES)


def release() -> list[float]:
    """Return the seconds that each tick of one release takes."""
    state, plan, now, seconds = State(), PLAN, 0.0, []
    event: Begin | Tick = Begin("r1")
    while state.phase != "Succeeded":
        before = time.process_time_ns()
        pending: list[Begin | Tick | Answer | Checked] = [event]
        while pending:
            state, commands, plan = advance(plan, state, pending.pop(), now)
            traffic(plan, state)
            for command in commands:
                if isinstance(command, Measure):
                    pending.append(Checked(command.round, VERDICTS))
                elif isinstance(command, Ask):
                    outcome = "fail" if command.type == "rollback" else "pass"
                    pending.append(Answer(command.type, command.round, outcome, command.type))
        seconds.append((time.process_time_ns() - before) / 1e9)
        now += 1.0
        event = Tick()
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000, help="ticks to measure, at least (default 2000)")
    wanted = parser.parse_args(arguments).rounds
    release()  # Warm.
    ticks: list[float] = []
    while len(ticks) < wanted:
        ticks += release()
    ticks.sort()
    mean = sum(ticks) / len(ticks) * 1e6
    last = ticks[int(len(ticks) * 0.99)] * 1e6
    print(f"{len(ticks)} ticks: mean {mean:.1f} µs, median {ticks[len(ticks) // 2] * 1e6:.1f} µs, p99 {last:.1f} µs")
    print(f"limit {LIMIT:g} µs per tick on average: {'held' if mean <= LIMIT else 'BROKEN'}")
    return 0 if mean <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
