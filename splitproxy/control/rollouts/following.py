"""What a changed file means for rollouts: what it starts, what it adopts, and what it may not do to those under way."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from splitproxy.control.loading import Candidate
from splitproxy.core.rollout.state import ACTIVE, State

Plain = Mapping[str, Any]
"""A rollout in its plain form."""


class Running(NamedTuple):
    """A rollout as it is run."""

    plain: Plain
    """In force."""
    state: State


def revision(plain: Plain) -> str:
    """Return what names the canary's version: the file's revision, or the digest of the canary's endpoints."""
    return str(plain["revision"] or plain["identity"])


def same_pair(one: Plain, other: Plain) -> bool:
    """Say whether both divide the same requests between the same upstreams."""
    return all(one[key] == other[key] for key in ("route", "primary", "canary"))


def adopts(plain: Plain, running: Running) -> bool:
    """Say whether the file calls the promoted upstream the primary."""
    return running.state.swapped and plain["primary"] == running.plain["canary"]


def meaning(plain: Plain, running: Running, *, new: bool) -> Literal["begin", "return", "nothing"]:
    """Return what the file wants with its revision: to begin a run, to return to the promoted one, or nothing.

    `new`: the rollout was never seen before. Adoption (see `adopts`) comes first and changes `running`.
    """
    state, wanted = running.state, revision(plain)
    if state.phase in ACTIVE:
        if wanted == state.revision:
            return "nothing"
        return "return" if wanted == state.promoted else "begin"
    if plain["revision"] is None and (new or plain["identity"] == running.plain["identity"]):
        return "nothing"  # without a revision only another canary than before starts a run
    return "nothing" if wanted in (state.revision, state.promoted) else "begin"


def bereft(state: State) -> bool:
    """Say whether a run has left traffic on the canary because of its primary, and that is still not there."""
    left = state.phase not in ACTIVE and not state.swapped and state.weight > 0
    return left and state.primary_unreachable_since >= 0


def waiting(running: Running) -> str:
    """Return why a new revision does not begin where the rollout is `bereft`."""
    plain = running.plain
    return (
        f"rollout {plain['name']}: {plain['canary']} has all traffic and {plain['primary']} cannot be reached: the new"
        f" revision begins when {plain['primary']} is there again"
    )


def objections(candidate: Candidate, running: Mapping[str, Running], path: str | None) -> list[str]:
    """Return why `candidate` must not take the place of the configuration that is served; `path`: of the state file."""
    wanted = {plain["name"]: plain for plain in candidate.releases.get("rollouts", ())}
    found = list(_moved(candidate, path))
    for name, one in running.items():
        plain = wanted.get(name)
        found += _removed(candidate, name, one) if plain is None else _changed(plain, one)
    return found


def _moved(candidate: Candidate, path: str | None) -> Iterator[str]:
    state = candidate.releases.get("state")
    if path is not None and state and candidate.releases["rollouts"] and state["path"] != path:
        yield (
            f"state.path: {state['path']} cannot take the place of {path} while the program runs:"
            " keep it, or restart splitproxy"
        )


def _removed(candidate: Candidate, name: str, running: Running) -> Iterator[str]:
    plain, state = running
    if state.phase in ACTIVE:
        yield (
            f"rollout {name} is under way ({state.phase}) and cannot be removed: first run `splitproxy abort {name}`,"
            " or wait for its end"
        )
    elif state.swapped and _gives(candidate, plain["route"], plain["rules"], plain["primary"]):
        yield (
            f"rollout {name} cannot be removed: {plain['canary']} was promoted, and route {plain['route']} would send"
            f" its traffic back to {plain['primary']}: name {plain['canary']} alone in the backendRefs"
        )


def _gives(candidate: Candidate, route: str, rules: Iterable[str], upstream: str) -> bool:
    """Say whether `upstream` has a share of one of the rules."""
    names = set(rules)
    return any(
        share.percent > 0 and (share.route, share.upstream) == (route, upstream) and share.rule in names
        for share in candidate.shares
    )


def _changed(plain: Plain, running: Running) -> Iterator[str]:
    before, state = running
    if state.swapped and not adopts(plain, running):
        yield from _unadopted(plain, running)
    if state.phase not in ACTIVE:
        return
    name = plain["name"]
    for key in ("route", "primary"):
        if plain[key] != before[key]:
            yield (
                f"rollout {name} is under way ({state.phase}) with {key}: {before[key]}, which cannot become"
                f" {plain[key]}: first run `splitproxy abort {name}`, or wait for its end"
            )
    if plain["revision"] is None and before["revision"] is not None:
        yield (
            f"rollout {name} is under way ({state.phase}) with revision: {before['revision']!r}, which cannot be left"
            " out: keep it until the end"
        )
    elif plain["revision"] == before["revision"] is not None and plain["canary"] != before["canary"]:
        yield (
            f"rollout {name} is under way ({state.phase}) with canary: {before['canary']}: give {plain['canary']} a"
            " revision of its own to start anew with it"
        )


def _unadopted(plain: Plain, running: Running) -> Iterator[str]:
    """Say what is wrong with a file that goes on after a swap without naming the promoted upstream as the primary."""
    before, state = running
    if same_pair(plain, before) and revision(plain) in (state.revision, state.promoted):
        return
    yield refusal(plain, running)


def refusal(plain: Plain, running: Running) -> str:
    """Return why a swap that the file does not know of stands in the way of what the file wants."""
    before = running.plain
    return (
        f"rollout {plain['name']}: {before['canary']} is the primary since revision"
        f" {running.state.revision} was promoted, and this change would send its traffic back to {before['primary']}:"
        f" first write `primary: {before['canary']}` and `canary: {before['primary']}`"
    )
