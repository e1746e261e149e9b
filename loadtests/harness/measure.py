"""Runs the chosen scenarios and collects their outcomes."""

import statistics

from . import special
from .generators import LoadError
from .peers import PEERS
from .processes import StartError
from .scenarios import SMALL_GET, SPECIAL, Outcome, Row, Scenario, Variant, closed_loop
from .session import Running, Session

_WARM_UP = 1
_STARTING = 0.7
"""Seconds a peer takes to start, be checked and stop; only for the estimate of the time to go."""


def measure(session: Session, names: list[str]) -> list[Outcome]:
    """Run scenarios by name, in the order they are defined."""
    chosen = [scenario for scenario in closed_loop(session.quick) if scenario.name in names]
    others = [name for name in SPECIAL if name in names]
    session.planned = {scenario.name: _duration(session, scenario) for scenario in chosen}
    session.planned.update({name: special.duration(session, name) for name in others})
    outcomes = [closed_loop_scenario(session, scenario) for scenario in chosen]
    for name in others:
        session.begin(name)
        session.say(name)
        outcome = Outcome(name, SPECIAL[name])
        try:
            special.run(session, outcome)
        except (StartError, LoadError) as error:
            outcome.notes.append(f"failed: {error}")
        outcomes.append(outcome)
    return outcomes


def _rows(session: Session, scenario: Scenario) -> list[tuple[str, Variant]]:
    return [
        (peer, variant)
        for variant in scenario.variants
        for peer in session.peers
        if all(PEERS[peer].suits(each.setup) for each in scenario.variants)
    ]


def _duration(session: Session, scenario: Scenario) -> float:
    count = len(_rows(session, scenario))
    warm_up = 0 if session.quick else _WARM_UP
    return count * (scenario.rounds(session.rounds) * (session.seconds + 0.25) + _STARTING + warm_up)


def closed_loop_scenario(session: Session, scenario: Scenario) -> Outcome:
    """Measure every peer and variant in alternating rounds: A B C A B C."""
    outcome = Outcome(scenario.name, scenario.title)
    session.begin(scenario.name)
    unable = [name for name in session.peers if not all(PEERS[name].suits(v.setup) for v in scenario.variants)]
    if unable:
        outcome.notes.append(f"not able to do this, as set up here: {', '.join(unable)}")
    wanted = _rows(session, scenario)
    with session.serving([(peer, variant.setup) for peer, variant in wanted], scenario.pinned) as found:
        live: list[tuple[Row, Variant, Running]] = []
        for (peer, variant), running in zip(wanted, found, strict=True):
            row = Row(peer, variant.label)
            outcome.rows.append(row)
            if isinstance(running, str):
                row.left_out = running
            elif _warm_up(session, scenario, row, variant, running):
                live.append((row, variant, running))
            if row.left_out:
                session.say(f"{scenario.name}: {peer} {variant.label} is left out: {row.left_out}")
        for number in range(scenario.rounds(session.rounds)):
            for row, variant, running in live:
                if not row.left_out:
                    _one_round(session, scenario, row, variant, running)
                    which = f"{scenario.name}, round {number + 1} of {scenario.rounds(session.rounds)}"
                    session.say(f"{which}: {row.peer} {variant.label} {_in_short(row)}")
    if scenario.name == SMALL_GET:
        for row in outcome.rows:
            if row.samples:
                session.top_rates[row.peer] = statistics.median(sample.rate or 0.0 for sample in row.samples)
    return outcome


def _warm_up(session: Session, scenario: Scenario, row: Row, variant: Variant, running: Running) -> bool:
    """Check that a peer works and (in a full run) fill its pools; return whether it may take part."""
    try:
        session.check(running, variant.requests)
        if not session.quick:
            workers = variant.setup.workers
            session.closed_loop(running, variant.requests, _WARM_UP, scenario.connections, scenario.pinned, workers)
    except LoadError as error:
        row.left_out = str(error)
    return not row.left_out


def _one_round(session: Session, scenario: Scenario, row: Row, variant: Variant, running: Running) -> None:
    try:
        row.samples.append(
            session.closed_loop(
                running,
                variant.requests,
                session.seconds,
                scenario.connections,
                scenario.pinned,
                variant.setup.workers,
            )
        )
    except LoadError as error:
        row.left_out = str(error)


def _in_short(row: Row) -> str:
    if row.left_out or not row.samples:
        return f"left out: {row.left_out}"
    last = row.samples[-1]
    errors = f", {last.errors} ERRORS" if last.errors else ""
    return f"{1e6 * (last.cpu_per_request or 0):.1f} µs of CPU per request, {last.rate or 0:,.0f} a second{errors}"
