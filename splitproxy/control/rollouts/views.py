"""How rollouts are shown: in the API, to webhooks and to receivers of news."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from splitproxy.control.loading import Share
from splitproxy.core import live
from splitproxy.core.analysis import Verdict
from splitproxy.core.live import EVERYTHING, Traffic
from splitproxy.core.rollout.events import Verb
from splitproxy.core.rollout.gates import WAITING
from splitproxy.core.rollout.machine import VERBS, iterations, legal, stage_plan
from splitproxy.core.rollout.plan import MetricPlan, Plan
from splitproxy.core.rollout.state import State

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller
    from splitproxy.control.rollouts.store import Entry

Plain = Mapping[str, Any]
"""A rollout in its plain form."""


def percent(share: int) -> float:
    """Return hundredths of a percent as percent."""
    return share * 100 / EVERYTHING


def verdict(one: Verdict) -> dict[str, Any]:
    """Return a verdict for JSON."""
    return one._asdict()


def metric(one: MetricPlan) -> dict[str, Any]:
    """Return a metric and its limits for JSON; limits as in the file, times in seconds."""
    return {
        "name": one.name,
        "kind": one.kind,
        "min": one.min,
        "max": one.max,
        "hardMin": one.hard_min,
        "hardMax": one.hard_max,
        "quantile": one.quantile,
        "interval": one.interval or None,
        "minRequests": one.min_requests,
    }


def sides(plan: Plan, state: State) -> tuple[str, str]:
    """Return the upstreams that are the primary and the canary now."""
    return (plan.canary, plan.primary) if state.swapped else (plan.primary, plan.canary)


def adoption(plan: Plan, state: State) -> dict[str, str] | None:
    """Return the edit that is still to be made in the file, None where there is none."""
    return {"primary": plan.canary, "canary": plan.primary} if state.swapped else None


def summary(plan: Plan, state: State, shares: Traffic) -> dict[str, Any]:
    """Return where a rollout stands, in short; `shares` are those in force."""
    primary, canary = sides(plan, state)
    return {
        "name": plan.name,
        "route": plan.route,
        "phase": state.phase,
        "reason": state.reason,
        # A digest of endpoints stands for the revision that the file does not give.
        "revision": state.revision if state.revision and plan.version(state.revision) == state.revision else None,
        "primary": primary,
        "canary": canary,
        "canaryWeight": 0.0 if state.swapped else percent(shares.weight),
        "mirroring": shares.mirror > 0,
        "cohorts": shares.cohorts,
        "step": state.step,
        "iterations": iterations(plan, state),
        "failedChecks": state.failed,
        "threshold": plan.threshold,
        "attempt": state.attempt,
        "dryRun": plan.dry_run,
    }


def payload(plan: Plan, state: State, shares: Traffic, verdicts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what webhooks are told: Flagger's keys, and ours."""
    ours = summary(plan, state, shares)
    return {"namespace": "", "checksum": state.revision, "rollout": plan.name, **ours, "verdicts": list(verdicts)}


def salt(name: str, state: State) -> int:
    """Return what the clients of a run are drawn with."""
    return live.salt(name, state.revision, state.attempt)


def waiting(plan: Plan, state: State, since: str) -> dict[str, Any] | None:
    """Return the gate that is waited at and the webhook that keeps it closed; None: there is none."""
    gate = next((gate for gate, phase in WAITING.items() if phase == state.phase), None)
    if gate is None:
        return None
    hooks = sorted((hook for hook in plan.hooks if hook.type == gate), key=lambda hook: not hook.builtin)
    return {"gate": gate, "hook": hooks[0].name if hooks else None, "since": since}


def verbs(plan: Plan, state: State) -> list[str]:
    """Return what an operator can say now."""
    return [name for name in VERBS if legal(plan, state, Verb(name)) is None]


def live_shares(shares: Iterable[Share], rollouts: Iterable[tuple[Plain, Traffic]]) -> list[Share]:
    """Return `shares` as they are at this moment: those of rules that a rollout owns are divided as it says."""
    owned = {(one["route"], rule): (one, traffic) for one, traffic in rollouts for rule in one["rules"]}
    found, pairs = [], dict[tuple[str, str], float]()
    for share in shares:
        owner = owned.get((share.route, share.rule))
        if owner and share.upstream in (owner[0]["primary"], owner[0]["canary"]):
            place = (share.route, share.rule)
            pairs[place] = pairs.get(place, 0.0) + share.percent
        else:
            found.append(share)
    for place, both in pairs.items():
        one, traffic = owned[place]
        roles = ("canary", "primary") if traffic.swapped else ("primary", "canary")
        canary = both * traffic.weight / EVERYTHING
        found.append(Share(*place, one["primary"], roles[0], both - canary))
        found.append(Share(*place, one["canary"], roles[1], canary))
    return found


def everything(one: Controller, history: Iterable[Entry]) -> dict[str, Any]:
    """Return all there is to know about a rollout, for the API."""
    plan, state = one.plan, one.state
    return {
        **one.summary(),
        "strategy": plan.strategy,
        "steps": stage_plan(plan),
        "startedAt": one.started_at,
        "phaseSince": one.phase_at,
        "nextCheckInSeconds": round(max(0.0, one.asking.due - one.clock.now()), 3) if one.active else None,
        "waitingFor": waiting(plan, state, one.phase_at),
        "promotionMode": plan.mode,
        "bakeTime": plan.bake,
        "gates": [{"gate": hook.type, "hook": hook.name} for hook in plan.hooks if hook.type in WAITING],
        "metrics": [metric(one) for one in plan.metrics],
        "adopt": adoption(plan, state),
        "verbs": verbs(plan, state),
        "verdicts": one.verdicts,
        "evidence": one.weighing.view(),
        "mirrored": one.copies.view(),
        "history": [entry.to_dict() for entry in history],
        "alarms": [alarm for alarm in (one.refused, one.keeping.alarm) if alarm],
    }
