"""What there is to tell people of a rollout, before it is put into a receiver's form."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from splitproxy.control.outbound import clipped, shown
from splitproxy.core.rollout.events import Alert


class Message(NamedTuple):
    """One piece of news; texts are on one line and free of invisible characters."""

    id: str
    """The same for everyone who gets it, and for no other."""
    rollout: str
    severity: str
    """info | warn | error."""
    title: str
    text: str
    """All of it in sentences: what happened, the numbers that decided, the canary's share, what happens next."""
    facts: tuple[tuple[str, str], ...]
    """The same by name, for receivers that show a table."""
    content: Mapping[str, Any]
    """The same as plain values, for programs."""

    def clipped_facts(self, name: int, value: int) -> list[tuple[str, str]]:
        """Return the facts with at most so many characters each."""
        return [(clipped(label, name), clipped(said, value)) for label, said in self.facts]


def compose(number: str, rollout: Mapping[str, Any], alert: Alert, context: Mapping[str, Any]) -> Message:
    """Return the news of an alert about a rollout in its plain form; `number` becomes its `id`.

    `context` may have: phase, revision, attempt, canaryWeight (percent), primary and canary (the upstreams that have
    these roles now), next (a sentence), at (ISO 8601), verdicts and evidence (as the API shows them). Of the verdicts
    the first that did not pass is told, else none.
    """
    verdict = next((one for one in context.get("verdicts", ()) if one["outcome"] != "pass"), None)
    return Message(
        id=number,
        rollout=rollout["name"],
        severity=alert.severity,
        title=shown(f"{rollout['name']}: {context['phase']}" if context.get("phase") else rollout["name"]),
        text=_sentences(alert.text, verdict, context),
        facts=tuple((name, said) for name, value in _facts(rollout, verdict, context) if (said := shown(value))),
        content={
            "at": context.get("at"),
            "key": alert.key,
            "rollout": rollout["name"],
            "route": rollout["route"],
            **_sides(rollout, context),
            "phase": context.get("phase"),
            "revision": context.get("revision"),
            "attempt": context.get("attempt"),
            "canaryWeight": context.get("canaryWeight"),
            "verdict": verdict,
            "evidence": context.get("evidence"),
            "next": context.get("next"),
        },
    )


def translated(text: str, table: Mapping[str, str], most: int) -> str:
    """Return `text` with characters replaced as `table` says, clipped to `most` without cutting into a replacement."""
    pieces = [table.get(character, character) for character in text]
    size = sum(map(len, pieces))
    if size > most:
        while size > most - 1:
            size -= len(pieces.pop())
        pieces.append("…")
    return "".join(pieces)


def _sentences(text: str, verdict: Mapping[str, Any] | None, context: Mapping[str, Any]) -> str:
    parts = [text]
    if verdict and verdict["reason"] not in text:
        parts.append(verdict["reason"])
    if context.get("canaryWeight") is not None:
        parts.append(f"Canary weight: {context['canaryWeight']:g} %.")
    if context.get("next"):
        parts.append(f"Next: {context['next']}")
    return shown(" ".join(_ended(part) for part in parts), 3000)


def _ended(part: str) -> str:
    """Return `part` with a full stop where it has no end of its own."""
    return part if part.rstrip().endswith((".", "!", "?", "…")) else f"{part.rstrip()}."


def _facts(
    rollout: Mapping[str, Any], verdict: Mapping[str, Any] | None, context: Mapping[str, Any]
) -> list[tuple[str, str]]:
    weight = context.get("canaryWeight")
    return [
        ("Route", rollout["route"]),
        ("Primary", _sides(rollout, context)["primary"]),
        ("Canary", _sides(rollout, context)["canary"]),
        ("Revision", context.get("revision") or ""),
        ("Phase", context.get("phase") or ""),
        ("Canary weight", "" if weight is None else f"{weight:g} %"),
        *(_numbers(verdict) if verdict else ()),
        ("Next", context.get("next") or ""),
    ]


def _sides(rollout: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, str]:
    """Return which upstream is which now: after a swap not what the file says."""
    return {side: context.get(side, rollout[side]) for side in ("primary", "canary")}


def _numbers(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    unit = f" {verdict['unit']}" if verdict["unit"] else ""
    limits = [("at least", verdict["min"]), ("at most", verdict["max"])]
    sample = f"{verdict['sample']} requests in {verdict['seconds']:g} s" if verdict["sample"] else ""
    return [
        ("Metric", f"{verdict['metric']} ({verdict['outcome']})"),
        ("Value", _number(verdict["value"], unit) or "no data"),
        ("Limit", " and ".join(f"{word} {_number(limit, unit)}" for word, limit in limits if limit is not None)),
        ("Sample", sample),
        ("Value of the primary", _number(verdict["primary"], unit)),
    ]


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.6g}{unit}"
