"""`splitproxy simulate`: play a rollout thousands of times on invented or recorded traffic."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from splitproxy.cli.showing import counted, loaded, reasons, show_facts, show_problems, show_table
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import compile_plan
from splitproxy.errors import ConfigError, RecordError
from splitproxy.reports import duration, percent

if TYPE_CHECKING:  # numpy is an extra
    from splitproxy.simulation.policy import Policy
    from splitproxy.simulation.summary import Column, Middle
    from splitproxy.simulation.traffic import Traffic

_KINDS: Final = {"none": 0.0, "errors": 0.05, "latency": 1.1, "tail": 2.0}
"""What may be wrong with the canary, and how much where nothing is said."""
_LONGEST: Final = 86_400
_LEAST_SECONDS: Final = 600
_MOST_RUNS: Final = 1_000_000
_EVERY: Final = 5.0
"""Seconds between lines of progress where there is no terminal."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="a file, or a folder whose *.yaml merge")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the rollout; not needed where there is but one")
    parser.add_argument("--runs", metavar="N", type=_count, default=1000, help="rollouts to play (%(default)s)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="the same gives the same (%(default)s)")
    parser.add_argument(
        "--seconds", metavar="TIME", type=_time, help="how long each is watched: 10m (as long as its steps take)"
    )
    traffic = parser.add_argument_group("traffic, of both sides together")
    traffic.add_argument("--rate", metavar="RPS", type=_rate, default=1000.0, help="requests a second (1000)")
    traffic.add_argument("--errors", metavar="SHARE", type=_share, default=0.001, help="that fail anyway (0.1%%)")
    traffic.add_argument("--drift", metavar="FACTOR", type=_factor, default=1.0, help="by which errors grow: 10x")
    traffic.add_argument("--bursts", action="store_true", help="now and then 3x the requests and 20x the errors")
    traffic.add_argument("--sticky", action="store_true", help="clients keep their side, few send most requests")
    traffic.add_argument("--record", metavar="FILE", type=Path, help="JSON lines of what was counted each second")
    wrong = parser.add_argument_group("the canary")
    wrong.add_argument(
        "--kind", choices=_KINDS, default="none", help="more errors, all slower, only the slowest tenth slower (none)"
    )
    wrong.add_argument("--size", metavar="SIZE", help="points of errors, +5; else how many times slower, 1.1x")
    wrong.add_argument("--onset", metavar="TIME", type=_time, default=0, help="when it begins: 30m (0)")
    parser.add_argument("--alone", action="store_true", help="leave out Flagger's and Argo's rules, which is quicker")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a picture, .png or .svg")


def run(options: argparse.Namespace) -> int:
    """Play, print and return 0; 1 when it cannot be played."""
    try:
        return _run(options)
    except (RecordError, OSError) as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        extra = {"numpy": "simulate", "matplotlib": "plot"}.get(error.name or "")
        if extra is None:
            raise
        return _refuse(f"this needs {error.name}: pip install 'splitproxy[{extra}]'")


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options.config, options.name)
    if isinstance(plan, str):
        return _refuse(plan)
    from splitproxy.simulation import record
    from splitproxy.simulation.many import play
    from splitproxy.simulation.policy import policy_of
    from splitproxy.simulation.rivals import RULES
    from splitproxy.simulation.summary import columns

    policy = policy_of(plan)
    if not policy.steps:
        return _refuse(f"{plan.name} has no stage that gives the canary a share of requests: nothing can be played")
    seconds = options.seconds or _planned(policy) + options.onset
    if options.record is None:
        recorded: tuple[Any, ...] = ()
    else:
        with options.record.open(encoding="utf-8") as lines:
            recorded = record.read(lines, str(options.record))
    traffic = _traffic(options, seconds, recorded)
    if isinstance(traffic, str):
        return _refuse(traffic)
    if options.plot is not None:
        if options.plot.suffix not in {".png", ".svg"}:
            return _refuse(f"--plot {options.plot}: a name that ends in .png or .svg is wanted")
        import matplotlib as _  # noqa: F401 - better missed now than after minutes
    rules = () if options.alone else RULES
    with _telling(options.runs) as progress:
        played = play(policy, traffic, options.runs, options.seed, rules, progress)
    names = tuple(rule.name for rule in rules)
    found = columns(played, names, traffic.onset, wrong=traffic.kind != "none" or bool(recorded))
    once = record.replay(recorded, policy.terms) if recorded else None
    if options.plot is not None:
        from splitproxy.simulation.picture import draw

        draw(options.plot, f"{plan.name}: {_words(traffic)}", played, names, traffic.onset, seconds)
    if options.json:
        told = {
            "rollout": plan.name,
            "runs": options.runs,
            "seed": options.seed,
            "traffic": {**traffic._asdict(), "recorded": len(recorded)},
            "policy": {**policy._asdict(), "steps": [step._asdict() for step in policy.steps]},
            "controllers": [column.plain() for column in found],
            "replayed": None if once is None else {"second": once[0], "sentence": once[1].sentence},
        }
        told["policy"]["terms"] = policy.terms._asdict()
        print(json.dumps(told, indent=2))
        return 0
    _show(plan, policy, traffic, found, options)
    if once is not None:
        verdict = "never convicts the canary" if once[0] is None else f"convicts the canary in second {once[0]:,}"
        show_facts([("recorded", f"the comparison {verdict}: {once[1].sentence}")])
    return 0


def _refuse(text: str) -> int:
    print(f"splitproxy simulate: {text}", file=sys.stderr)
    return 1


# --- what is asked for ------------------------------------------------------------------------------------------------
def _plan(path: str, name: str | None) -> Plan | str:
    """Return the rollout's plan, or why there is none."""
    try:
        valid = loaded(path)
    except ConfigError as error:
        show_problems(reasons(error), "error", sys.stderr)
        return f"{path} is not valid"
    rollouts = {rollout["name"]: rollout for rollout in valid.plain["rollouts"]}
    if not rollouts:
        return f"{path} has no rollouts"
    names = ", ".join(rollouts)
    if name is None and len(rollouts) > 1:
        return f"which rollout? {path} has {names}"
    if name is not None and name not in rollouts:
        return f"{path} has no rollout {name}, but {names}"
    return compile_plan(rollouts[name or next(iter(rollouts))])


def _planned(policy: "Policy") -> int:
    planned = sum(max(step.least, step.checks * step.interval) for step in policy.steps)
    return int(min(max(1.5 * planned, _LEAST_SECONDS), _LONGEST))


def _traffic(options: argparse.Namespace, seconds: int, recorded: tuple[Any, ...]) -> "Traffic | str":
    """Return the traffic, or what is wrong with it."""
    from splitproxy.simulation.traffic import Traffic

    kind = options.kind
    try:
        size = _KINDS[kind] if options.size is None else _size(kind, options.size)
    except argparse.ArgumentTypeError as error:
        return f"--size {options.size}: {error}"
    if options.size is not None and kind == "none":
        return "--size says how much is wrong, --kind what: errors, latency or tail"
    if kind in {"latency", "tail"} and (options.sticky or recorded):
        beside = "--sticky" if options.sticky else "--record"
        return f"--kind {kind} cannot be played with {beside}: only errors are"
    if options.sticky and recorded:
        return "--sticky cannot be played with --record: it does not say which client asked"
    if options.onset >= seconds:
        return f"--onset {options.onset} s is not before the end, {seconds} s"
    return Traffic(
        options.rate,
        options.errors,
        kind,
        size,
        options.onset,
        options.drift,
        options.bursts,
        options.sticky,
        seconds,
        recorded,
    )


def _size(kind: str, text: str) -> float:
    if kind == "errors":
        points = _number(text.removeprefix("+").removesuffix("%"), "points of errors such as +5 are wanted")
        if not 0 < points <= 100:
            raise argparse.ArgumentTypeError("above 0 and at most 100 points are wanted")
        return points / 100.0
    return _factor(text)


def _number(text: str, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(wanted) from None
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(wanted)
    return value


def _count(text: str) -> int:
    value = _number(text, "a whole number is wanted")
    if value != int(value) or not 1 <= value <= _MOST_RUNS:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_MOST_RUNS:,} is wanted")
    return int(value)


def _rate(text: str) -> float:
    value = _number(text, "requests a second are wanted, such as 1000")
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError("above 0 and at most 1,000,000 requests a second are wanted")
    return value


def _share(text: str) -> float:
    wanted = "a percentage is wanted, such as 0.1%"
    value = _number(text.removesuffix("%"), wanted)
    if not text.endswith("%") or not 0 <= value < 100:
        raise argparse.ArgumentTypeError(wanted)
    return value / 100.0


def _factor(text: str) -> float:
    wanted = "a factor is wanted, such as 2x"
    value = _number(text.removeprefix("x").removesuffix("x"), wanted)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError("a factor from 1 to 1000 is wanted, such as 2x")
    return value


def _time(text: str) -> int:
    wanted = "a time is wanted, such as 90s, 10m or 1h"
    size = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    value = _number(text[:-1] if size else text, wanted) * (size or 1)
    if not 0 <= value <= _LONGEST:
        raise argparse.ArgumentTypeError("at most 24h are wanted")
    return round(value)


# --- what is shown ----------------------------------------------------------------------------------------------------
def _show(plan: Plan, policy: "Policy", traffic: "Traffic", found: "list[Column]", options: argparse.Namespace) -> None:
    wrong = traffic.kind != "none"
    steps = " → ".join(percent(step.weight * 100) for step in policy.steps)
    terms = policy.terms
    compared = f"alpha {terms.alpha:g}, tolerated errors x{terms.errors:g}, latency x{terms.latency:g}"
    print(f"{plan.name}: {counted(options.runs, 'rollout')} of {duration(traffic.seconds)}, seed {options.seed}")
    show_facts([("traffic", _words(traffic)), ("steps", steps), ("comparison", compared if policy.compare else "off")])
    if policy.left_out:
        show_facts([("left out", "; ".join(policy.left_out))])
    if terms.sticky and not traffic.sticky:
        show_facts([("note", "clients of this rollout keep their side: play that with --sticky")])
    heads = ["CONTROLLER", "ROLLED BACK", "WRONGLY (95 %: BELOW)", "SECONDS (P95)", "BAD REQUESTS (P95)", "PROMOTED"]
    rows = [_row(column, options.runs, wrong=wrong or bool(traffic.recorded)) for column in found]
    show_table(heads, rows)
    own = found[0]
    if own.rolled_back:
        what = zip(own.by, ("evidence of errors", "evidence of latency", "failed checks of limits"), strict=True)
        causes = ", ".join(f"{words} {percent(100 * count / options.runs)}" for count, words in what if count)
        show_facts([("splitproxy", f"rolled back by {causes}")])
    if len(found) > 1:
        notes = "other controllers' rules see ideal measurements of the same requests at the same weights"
        show_facts([("note", f"{notes}; * the fastest that Flagger accepts")])


def _row(column: "Column", runs: int, *, wrong: bool) -> tuple[str, ...]:
    promoted = ""
    if column.promote_seconds is not None:
        promoted = percent(100 * column.promoted / runs)
        if column.promote_seconds.median is not None:
            promoted += f" after {duration(column.promote_seconds.median)}"
    return (
        column.name,
        percent(100 * column.rolled_back / runs),
        f"{percent(100 * column.early / runs)} ({percent(float(f'{100 * column.early_bound:.2g}'))})",
        _middle(column.seconds) if wrong else "-",
        _middle(column.bad) if wrong else "-",
        promoted or "-",
    )


def _middle(middle: "Middle") -> str:
    low, high = (None if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in middle)
    return "never" if low is None else f"{low} ({high or 'never'})"


def _words(traffic: "Traffic") -> str:
    if traffic.recorded:
        words = [f"as recorded in {counted(len(traffic.recorded), 'second')}"]
    else:
        words = [f"{traffic.rate:,g} requests a second, {percent(traffic.errors * 100)} of them fail"]
        words += [f"errors growing {traffic.drift:g} times"] if traffic.drift != 1 else []
    words += ["bursts"] if traffic.bursts else []
    words += ["clients keep their side"] if traffic.sticky else []
    since = f" from {duration(traffic.onset)} on" if traffic.onset else ""
    kinds = {
        "none": "a canary like the primary" if not traffic.recorded else "nothing added",
        "errors": f"on the canary {traffic.size * 100:g} points more{since}",
        "latency": f"the canary takes {traffic.size:g} times as long{since}",
        "tail": f"the canary's p99 is {traffic.size:g} times as long, its p90 the same{since}",
    }
    return ", ".join([*words, kinds[traffic.kind]])


class _Progress(Protocol):
    """Is told how many are done."""

    def __call__(self, done: int) -> None: ...


@contextmanager
def _telling(runs: int) -> Iterator[_Progress]:
    """Show progress on standard error: a bar on a terminal, else a line every few seconds."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("rollouts", total=runs)
            yield lambda done: bar.update(task, completed=done)
        return
    began = last = monotonic()

    def tell(done: int) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= _EVERY and done < runs:
            last = now
            print(f"{done:,} of {runs:,} rollouts after {duration(now - began)}", file=sys.stderr, flush=True)

    yield tell
