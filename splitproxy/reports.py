"""A rollout, as the admin API describes it, in words: for `splitproxy status`, the verbs and the demo."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

Rollout = dict[str, Any]
"""What `GET /api/v1/rollouts/{name}` answers."""

NOTHING: Final = "\N{EN DASH}"
"""What stands where there is nothing to say."""
HEADS: Final = ("ROLLOUT", "PHASE", "WEIGHT", "STEP", "FAILED", "LAST VERDICT", "NOW POSSIBLE")
VERDICT_HEADS: Final = ("SIGNAL", "VERDICT", "VALUE", "LIMITS", "PRIMARY", "SAMPLE", "REASON")


def percent(share: float) -> str:
    """Return a share as people write it: `95 %`, `0.01 %`."""
    return f"{round(share, 2):g} %"


def share_of_success(share: float) -> str:
    """Return a share of 1 in percent, never as 100 % while one failed."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"


def duration(seconds: float) -> str:
    """Return a duration as people write it: `8 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def step(rollout: Rollout) -> str:
    """Return which of the steps it is at: `2 of 5`; nothing where it is at none."""
    count = len(rollout["steps"])
    return f"{rollout['step'] + 1} of {count}" if 0 <= rollout["step"] < count else NOTHING


def headline(rollout: Rollout) -> str:
    """Return where a rollout stands, in one line."""
    parts = [f"{rollout['name']}: {rollout['phase']}", share(rollout)]
    if step(rollout) != NOTHING:
        parts.append(f"step {step(rollout)}")
    parts.append(f"failed checks {rollout['failedChecks']} of {rollout['threshold']}")
    if rollout["dryRun"]:
        parts.append("dry run")
    return ", ".join(parts)


def share(rollout: Rollout) -> str:
    """Return who gets what: `12.5 % to shop-v2`, `1 cohort and 5 % to shop-v2`, `all to shop-v1, copies to shop-v2`."""
    weight, cohorts, canary = rollout["canaryWeight"], rollout["cohorts"], rollout["canary"]
    parts = [f"{cohorts} cohort{'s' * (cohorts > 1)}"] * bool(cohorts) + [percent(weight)] * bool(weight)
    text = f"{' and '.join(parts)} to {canary}" if parts else f"all to {rollout['primary']}"
    return f"{text}, copies to {canary}" if rollout["mirroring"] else text


def row(rollout: Rollout) -> tuple[str, ...]:
    """Return a rollout's row of the table under HEADS."""
    return (
        *(rollout["name"], rollout["phase"], percent(rollout["canaryWeight"]), step(rollout)),
        f"{rollout['failedChecks']} of {rollout['threshold']}",
        _latest(rollout),
        possible(rollout) or NOTHING,
    )


def possible(rollout: Rollout) -> str:
    """Return the verbs that are legal now."""
    return " ".join(rollout["verbs"])


def _latest(rollout: Rollout) -> str:
    """Return the verdict that matters most: the first that did not pass, else all; without any, why it stands there.

    A comparison that is open yet is the rule while all goes well, so it hides no other verdict.
    """
    verdicts = [one for one in rollout["verdicts"] if not _open(one)] or rollout["verdicts"]
    if not verdicts:
        return rollout["reason"] or NOTHING
    told = next((verdict for verdict in verdicts if verdict["outcome"] != "pass"), None)
    if told is None:
        return f"pass: {', '.join(measured(verdict) for verdict in verdicts)}"
    return f"{told['outcome']}: {told['reason'] or measured(told)}"


def _open(verdict: dict[str, Any]) -> bool:
    return (verdict["metric"], verdict["outcome"]) == ("comparison", "inconclusive")


def measured(verdict: dict[str, Any]) -> str:
    """Return what a verdict is about: `request-duration 12.3 ms`."""
    return f"{verdict['metric']} {amount(verdict['value'], verdict['unit'])}"


def plan(rollout: Rollout) -> str:
    """Return the stages in a line, the present one in brackets."""
    return " → ".join(plan_parts(rollout)) or NOTHING


def plan_parts(rollout: Rollout) -> list[str]:
    """Return the stages in short, the present one in brackets."""
    stages = [stage_in_short(stage) for stage in rollout["steps"]]
    return [f"[{text}]" if number == rollout["step"] else text for number, text in enumerate(stages)]


def stage_in_short(stage: dict[str, Any]) -> str:
    """Return a stage in a few words: `10 %`, `25 % for 2 min`, `2 cohorts, 5 checks`, `mirror 100 %`, `pause`."""
    parts = []
    if stage["cohorts"]:
        parts.append(f"{stage['cohorts']} cohort{'s' * (stage['cohorts'] > 1)}")
    if stage["mirror"]:
        parts.append(f"mirror {percent(stage['mirror'])}")
    if stage["weight"] or not parts:
        parts.append(percent(stage["weight"]))
    text = " + ".join(parts)
    if stage["checks"] > 1:
        text += f", {stage['checks']} checks"
    if stage["hold"]:
        text += f" for {duration(stage['hold'])}"
    if stage["pause"] is not None:
        text += f", pause {duration(stage['pause'])}" if stage["pause"] else ", pause"
    return text


def amount(value: float | None, unit: str) -> str:
    """Return a measured value with its unit: `99.5 %`, `12.3 ms`."""
    if value is None:
        return NOTHING
    digits = f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:.0f}"
    return f"{digits} {unit}".rstrip()


def limits(verdict: dict[str, Any]) -> str:
    """Return the limits that a verdict was made by: `≥ 99 %`, `≤ 500 ms`, or both."""
    bounds = [
        f"{sign} {amount(verdict[bound], verdict['unit'])}"
        for bound, sign in (("min", "≥"), ("max", "≤"))
        if verdict[bound] is not None
    ]
    return ", ".join(bounds) or NOTHING


def verdict_row(verdict: dict[str, Any]) -> tuple[str, ...]:
    """Return a verdict's row of the table under VERDICT_HEADS; one that passed needs no reason."""
    reason = "" if verdict["outcome"] == "pass" else verdict["reason"]
    return (
        *(verdict["metric"], verdict["outcome"], amount(verdict["value"], verdict["unit"]), limits(verdict)),
        *(amount(verdict["primary"], verdict["unit"]), str(verdict["sample"]), reason or NOTHING),
    )


def facts(rollout: Rollout) -> list[tuple[str, str]]:
    """Return what there is to know besides verdicts and history, as pairs of a name and a text."""
    found = [
        ("phase", f"{rollout['phase']} since {moment(rollout['phaseSince'])}"),
        ("dry run", "decides and reports, and moves no traffic" if rollout["dryRun"] else ""),
        ("reason", rollout["reason"]),
        ("revision", _revision(rollout)),
        ("route", f"{rollout['route']}: {rollout['primary']} is the primary, {rollout['canary']} the canary"),
        ("traffic", share(rollout)),
        ("plan", f"{rollout['strategy']}: {plan(rollout)}"),
        ("checks", f"{rollout['failedChecks']} failed, {rollout['threshold']} end it"),
        ("next check", _next(rollout)),
        ("evidence", evidence(rollout)),
        ("copies", copies(rollout)),
        ("waits for", waits(rollout)),
        ("to edit", adoption(rollout)),
        *(("alarm", alarm) for alarm in rollout["alarms"]),
        ("possible", possible(rollout)),
    ]
    return [(name, text) for name, text in found if text]


def _revision(rollout: Rollout) -> str:
    return f"{rollout['revision']}, attempt {rollout['attempt']}" if rollout["revision"] else ""


def _next(rollout: Rollout) -> str:
    seconds = rollout["nextCheckInSeconds"]
    return "" if seconds is None else f"in {duration(seconds)}"


def waits(rollout: Rollout) -> str:
    """Return what a rollout waits for, empty when for nothing."""
    waiting = rollout["waitingFor"]
    if waiting is None:
        return ""
    hook = f" ({waiting['hook']})" if waiting["hook"] else ""
    return f"{waiting['gate']}{hook} since {moment(waiting['since'])}"


def adoption(rollout: Rollout) -> str:
    """Return the edit by which the file adopts a promotion, empty when there is none to make."""
    edit = rollout["adopt"]
    return f"primary: {edit['primary']}, canary: {edit['canary']}" if edit else ""


def evidence(rollout: Rollout) -> str:
    """Return what the comparison of both sides has come to, in a sentence; empty where none is made."""
    found = rollout.get("evidence")
    if not found:
        return ""
    return f"{found['sentence']}{_gate(found)}" if rollout["phase"] == "Progressing" else str(found["sentence"])


def copies(rollout: Rollout) -> str:
    """Return what the comparison of answers to copied requests has come to; empty where none is made."""
    found = rollout.get("mirrored")
    if not found:
        return ""
    odd = [field["field"] for field in found["fields"] if field["verdict"] in {"regression", "reported"}]
    return f"{found['sentence']}; differing: {', '.join(odd[:5])}" if odd else str(found["sentence"])


def _gate(found: dict[str, Any]) -> str:
    """Return how far the next step is, where evidence takes it."""
    gate = found["gate"]
    if found["pace"] != "evidence":
        return ""
    if gate["passed"]:
        return "; enough for the next step"
    left = gate["secondsLeft"]
    return "; the next step needs more" if left is None else f"; the next step needs about {left:.0f} s more"


def moment(at: str, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a moment of the API (ISO 8601) as the local time."""
    return datetime.fromisoformat(at).astimezone().strftime(form)


def happened(entry: dict[str, Any], form: str) -> str:
    """Return an entry of the history as a line, its time in `form`."""
    return f"{moment(entry['at'], form)}  {entry['kind']:8}  {entry['text']}"


def latest(history: Sequence[dict[str, Any]], count: int, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    """Return the last `count` lines of a history, the newest last, their times in `form`."""
    return [line for line, _ in summed(history, form)[-count:]]


def summed(history: Sequence[dict[str, Any]], form: str) -> list[tuple[str, bool]]:
    """Return a history as lines, and whether each is a warning; what repeats itself is one line, of its last time."""
    found: list[tuple[dict[str, Any], int]] = []
    for entry in history:
        again = bool(found) and all(found[-1][0][key] == entry[key] for key in ("kind", "text"))
        found.append((entry, found.pop()[1] + 1 if again else 1))
    return [
        (happened(entry, form) + (f"  ({times} times)" if times > 1 else ""), entry["warning"])
        for entry, times in found
    ]
