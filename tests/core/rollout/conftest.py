"""Plans written short, and a driver that answers what the machine asks."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from splitproxy.core.analysis import ERROR, FAIL, INCONCLUSIVE, PASS, Verdict
from splitproxy.core.rollout.events import (
    Alert,
    Answer,
    Ask,
    Begin,
    Checked,
    Event,
    Measure,
    Reachable,
    Record,
    Tick,
    Verb,
)
from splitproxy.core.rollout.machine import advance, compile_plan
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.state import State

METRIC = {
    "name": "request-success-rate",
    "kind": "request-success-rate",
    "min": 99.0,
    "max": None,
    "hardMin": None,
    "hardMax": None,
    "interval": None,
    "quantile": 0.99,
    "minRequests": 1,
    "noData": "hold",
    "failureLimit": None,
    "consecutiveErrorLimit": 4,
    "inconclusiveLimit": None,
    "template": None,
    "variables": {},
}
STEP = {
    "setWeight": None,
    "hold": None,
    "pause": None,
    "mirror": None,
    "interval": None,
    "minRequests": None,
    "metrics": [],
    "iterations": None,
}
ANALYSIS: dict[str, Any] = {
    "interval": 60.0,
    "threshold": 5,
    "iterations": 0,
    "stepWeight": 0,
    "maxWeight": 100,
    "stepWeights": [],
    "steps": [],
    "stepWeightPromotion": 0,
    "mirror": False,
    "mirrorWeight": 0,
    "dryRun": False,
    "compare": True,
    "cohorts": [],
    "ringIterations": [],
}
TOP = {"revision": "r1", "progressDeadline": 600.0, "skipAnalysis": False, "allowedWindows": []}


def hook(type_, *, name="", builtin=False, mute=False):
    return {
        "name": name or type_,
        "type": type_,
        "url": None if builtin else "http://127.0.0.1:1/",
        "muteAlert": mute,
    }


def plain_rollout(*, hooks=(), steps=(), metrics=None, mode="swap", bake=0.0, back=True, **more):
    """Return a rollout in plain form; `hooks` are types or whole hooks, what is not said is the default."""
    top = {key: more.pop(key, default) for key, default in TOP.items()}
    unknown = more.keys() - ANALYSIS.keys()
    assert not unknown, unknown
    analysis = {
        **ANALYSIS,
        **more,
        "steps": [{**STEP, **step} for step in steps],
        "metrics": [{**METRIC, **metric} for metric in ([{}] if metrics is None else metrics)],
        "webhooks": [hook(own) if isinstance(own, str) else own for own in hooks],
    }
    webhook = hook("hand-back") if mode == "handBack" and back else None
    return {
        "name": "shop",
        "route": "shop",
        "primary": "v1",
        "canary": "v2",
        "identity": "digest",
        **top,
        "promotion": {"mode": mode, "bakeTime": bake, "webhook": webhook},
        "analysis": analysis,
    }


@pytest.fixture(scope="session")
def plan_of():
    """Compile a plan from `analysis` keys."""
    return lambda **more: compile_plan(plain_rollout(**more))


def verdict(outcome, metric="request-success-rate", reason=""):
    value = {PASS: 100.0, FAIL: 90.0}.get(outcome)
    reason = reason or f"{metric} {outcome} (canary, 340 requests in 60 s)"
    return Verdict(metric, outcome, value, 99.0, None, 340, 60.0, 100.0, "%", reason)


LETTERS = {"S": PASS, "F": FAIL, "I": INCONCLUSIVE, "E": ERROR}


@dataclass
class Driver:
    """Runs a rollout; `answers` and `checks` say what the world answers, by hook type and for each metric."""

    plan: Plan
    state: State = field(default_factory=State)
    now: float = 0.0
    upcoming: Plan | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    checks: str | dict[str, str] = "S"
    asked: list[str] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    """Who was measured."""
    there: Reachable = field(default_factory=lambda: Reachable(canary=True))
    """What the last look at the upstreams said."""

    def send(self, event: Event) -> "Driver":
        """Send one event, and the answers to all that it leads to."""
        pending = [event]
        while pending:
            pending += self.step(pending.pop(0))
        return self

    def step(self, event: Event) -> list[Event]:
        """Send one event alone; return the answers to what it asked."""
        if isinstance(event, Reachable):
            self.there = event
        outcome = advance(self.plan, self.state, event, self.now, self.upcoming)
        self.state, self.plan = outcome.state, outcome.plan
        if self.upcoming == self.plan:
            self.upcoming = None
        answers = []
        for command in outcome.commands:
            match command:
                case Ask(type_, number):
                    self.asked.append(type_)
                    said = self.answers.get(type_, "fail" if type_ == "rollback" else "pass")
                    if said is not None:
                        answers.append(Answer(type_, number, said, type_, "because"))
                case Measure(number, side):
                    self.asked.append("measure")
                    self.sides.append(side)
                    answers.append(Checked(number, self.verdicts()))
                case Alert():
                    self.alerts.append(command)
                case Record():
                    self.records.append(command)
        return answers

    def verdicts(self):
        if isinstance(self.checks, str):
            return tuple(verdict(LETTERS[self.checks], metric.name) for metric in self.plan.metrics)
        return tuple(verdict(LETTERS[self.checks[metric.name]], metric.name) for metric in self.plan.metrics)

    def begin(self, revision="r1", by=""):
        return self.send(Begin(revision, by))

    def tick(self, times=1, *, after=60.0, windows_open=True):
        for _ in range(times):
            self.now += after
            if self.state.handed_back:  # the updated primary is looked at before each check
                self.send(self.there)
            self.send(Tick(windows_open))
        return self

    def say(self, name, **more):
        return self.send(Verb(name, "ann", **more))

    def until(self, phase, limit=50):
        for _ in range(limit):
            if self.state.phase == phase:
                return self
            self.tick()
        raise AssertionError(f"never {phase}: {self.state}")

    def take(self):
        """Return what was asked since this was called last."""
        asked, self.asked = self.asked, []
        return asked

    @property
    def where(self):
        """The phase and the share in percent."""
        return self.state.phase, self.state.weight / 100


@pytest.fixture(scope="session")
def run_of(plan_of):
    """Return a driver of a fresh rollout."""

    def build(*, answers=None, checks="S", **more):
        return Driver(plan_of(**more), answers=dict(answers or {}), checks=checks)

    return build


@pytest.fixture(scope="session")
def hook_of():
    return hook


@pytest.fixture(scope="session")
def verdict_of():
    return verdict
