"""Timelines known from Flagger, tick for tick, and every place in which ours is another on purpose."""

import re
from pathlib import Path

import pytest

from splitproxy.core.analysis import FAIL, PASS, Verdict
from splitproxy.core.rollout.events import Answer, Ask, Begin, Checked, Measure, Reachable, Tick
from splitproxy.core.rollout.machine import advance, canary_share, iterations, traffic
from splitproxy.core.rollout.state import State

CODES = {
    "confirm-rollout": "CR",
    "confirm-traffic-increase": "CT",
    "confirm-promotion": "CP",
    "pre-rollout": "PRE",
    "rollback": "RB",
    "post-rollout": "PO",
}
PHASES = {
    "P": "Progressing",
    "W": "Waiting",
    "WT": "WaitingTrafficIncrease",
    "WP": "WaitingPromotion",
    "PR": "Promoting",
    "FI": "Finalising",
    "S": "Succeeded",
    "F": "Failed",
}
SHORT = {phase: short for short, phase in PHASES.items()}
DEVIATIONS = {
    "clamped": "the share never goes above maxWeight",
    "at-once": "rollback on the tick on which the count is reached; the count stays to be seen",
    "truthful": "weight, iterations and phase say what is so while a gate is waited at, and at 100 % of blue/green",
    "asked-once": "a gate is asked once for every decision, at every check while closed; never left out",
    "prepared-once": "pre-rollout hooks run once in a run",
    "watched": "the updated primary is checked with every part of the traffic that returns to it, and with all of it",
    "restart-asks": "a newer revision asks confirm-rollout as any other",
}


def _ticks(text):
    """Return a function that tells whether a tick lies in a list such as `2,4-5,7-`."""
    spans = [part.partition("-") for part in text.split(",")]
    bounds = [(int(low), (int(high) if high else 999) if dash else int(low)) for low, dash, high in spans]
    return lambda tick: any(low <= tick <= high for low, high in bounds)


class Script:
    """What the world answers at each tick."""

    def __init__(self, words):
        self.words = dict(word.partition("=")[::2] for word in words.split())
        self.revision = int(self.words.get("revision", -1))
        self._fail = _ticks(self.words["fail"]) if "fail" in self.words else lambda _: False
        self._listed = {
            code: (state == "open", _ticks(ticks))
            for code, (state, _, ticks) in ((c, w.partition(":")) for c, w in self.words.items() if c.isupper())
        }

    def verdicts(self, tick):
        bad = self._fail(tick)
        outcome, value, text = (FAIL, 90.0, "90 % is below 99 %") if bad else (PASS, 100.0, "")
        return (Verdict("request-success-rate", outcome, value, 99.0, None, 100, 60.0, None, "%", text),)

    def answer(self, type_, tick):
        is_open, listed = self._listed.get(CODES.get(type_, ""), (type_ == "rollback", lambda _: False))
        return "pass" if listed(tick) == is_open else "fail"


def _load():
    blocks = (Path(__file__).parent / "vectors.txt").read_text().split("\n\n")
    for block in blocks:
        head, *lines = [line for line in block.splitlines() if line and not line.startswith("#")] or [""]
        if head:
            name, _, words = head.partition(" ")
            yield pytest.param(words, lines, id=name)


def _play(plan, script, ticks):
    """Yield one line of the timeline per tick."""
    state = State()
    for tick in range(ticks):
        now, calls = tick * 60.0, []
        begin = tick in (0, script.revision)
        pending = [Begin("r1" if tick == 0 else "r2") if begin else Tick(), Reachable(canary=True)]
        while pending:
            state, commands, plan = advance(plan, state, pending.pop(), now)
            for command in commands:
                if isinstance(command, Measure):
                    calls.append("A")
                    pending.append(Checked(command.round, script.verdicts(tick)))
                elif isinstance(command, Ask):
                    if command.type in CODES:
                        calls.append(CODES[command.type])
                    outcome = script.answer(command.type, tick)
                    pending.append(Answer(command.type, command.round, outcome, command.type))
        now_sent = traffic(plan, state)
        to_canary = 100 if now_sent.cohorts else now_sent.weight // 100
        route = f"{100 - to_canary}/{to_canary}{'M' if now_sent.mirror else ''}"
        counts = f"w={canary_share(state) // 100} it={iterations(plan, state)} f={state.failed}"
        yield f"{SHORT[state.phase]} {route} {counts} | {','.join(calls) or '-'}"
        if state.phase in ("Succeeded", "Failed"):
            return


@pytest.mark.parametrize(("words", "lines"), list(_load()))
def test_the_timeline_is_flaggers_but_for_the_listed_deviations(plan_of, words, lines):
    script = Script(words)
    expected = []
    for line in lines:
        tick, flagger, ours, deviations = re.fullmatch(r"T(\d+) (.*?)(?: => (.*?) ! ([a-z, -]+))?", line).groups()
        assert int(tick) == len(expected) or ours == "over"
        assert (deviations is None) == (ours is None)
        if deviations is not None:
            assert set(deviations.split(", ")) <= DEVIATIONS.keys()
            assert ours != flagger
        if ours != "over":
            expected.append(ours or flagger)
    assert list(_play(plan_of(**_plain(script.words)), script, len(lines) + 3)) == expected


def _plain(words):
    """Return the keys of `analysis` that a vector's first line stands for."""
    hooks = [
        "confirm-rollout",
        "pre-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "post-rollout",
    ]
    hooks += ["rollback"] if "RB" in words else []
    numbers = ("stepWeight", "maxWeight", "threshold", "iterations", "stepWeightPromotion")
    more = {key: int(words[key]) for key in numbers if key in words}
    if "stepWeights" in words:
        more["stepWeights"] = [int(weight) for weight in words["stepWeights"].split(",")]
    if "match" in words:
        more["cohorts"], more["ringIterations"] = [[{}]], [more["iterations"]]
    return {"hooks": hooks, "mode": "handBack", "mirror": "mirror" in words, **more}
