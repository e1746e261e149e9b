"""`splitproxy check`: validate a configuration and print the effective routing order."""

import argparse
import json
import sys
from typing import Any, Final, NamedTuple

from splitproxy.cli.showing import counted, loaded, reasons, show_problems, show_table
from splitproxy.core import snapshot
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import compile_plan, stage_plan
from splitproxy.core.routing import Effective, Rule
from splitproxy.errors import ConfigError
from splitproxy.reports import duration, percent


class Line(NamedTuple):
    """One line of the routing order."""

    host: str
    path: str
    conditions: str
    """All but the path's; empty when there are none."""
    rule: Rule


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("file", metavar="FILE", nargs="?", help="a file, or a folder whose *.yaml merge")
    which.add_argument("-c", "--config", metavar="FILE", help="the same")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print every error and return 1; or the warnings and the order of routing, and return 0."""
    path = options.config or options.file
    try:
        valid = loaded(path)
    except ConfigError as error:
        problems = reasons(error)
        if options.json:
            print(json.dumps({"valid": False, "errors": [problem.to_dict() for problem in problems]}, indent=2))
        else:
            show_problems(problems, "error", sys.stderr)
            print(f"{counted(len(problems), 'error')}: {path} is not valid.", file=sys.stderr)
        return 1
    rules = {(route["name"], rule["name"]): rule for route in valid.plain["routes"] for rule in route["rules"]}
    effective = snapshot.build(valid.plain).table.order()
    order = [Line(line.host, *_parts(line, rules), line.rule) for line in effective]
    if options.json:
        warnings = [problem.to_dict() for problem in valid.warnings]
        body = {
            "valid": True,
            "checksum": valid.checksum,
            "warnings": warnings,
            "order": [*map(_described, order)],
            "rollouts": [_described_rollout(rollout) for rollout in valid.plain["rollouts"]],
        }
        print(json.dumps(body, indent=2))
        return 0
    show_problems(valid.warnings, "warning", sys.stderr)
    if order:
        show_table(("HOST", "PATH", "CONDITIONS", "ROUTE/RULE", "GOES TO"), [_row(line) for line in order])
    for rollout in valid.plain["rollouts"]:
        print("\n".join(_rollout_lines(rollout)))
    if valid.plain["rollouts"]:
        print(f"Rollouts are remembered in {valid.plain['state']['path']}.")
    found = f", {counted(len(valid.warnings), 'warning')}" if valid.warnings else ""
    print(f"{path} is valid: {counted(len(valid.plain['routes']), 'route')}{found}.")
    return 0


def _parts(line: Effective, rules: dict[tuple[str, str], dict[str, Any]]) -> tuple[str, str]:
    """Return a line's path and its other conditions, which the table describes as one text."""
    matches = rules[line.rule.route, line.rule.name]["matches"]
    paths = {f"{match['path']['type']} {match['path']['value']}" for match in matches}
    path = max((path for path in paths if f"{line.match}, ".startswith(f"{path}, ")), key=len)
    return path, line.match[len(path) + 2 :]


def _row(line: Line) -> tuple[str, ...]:
    return line.host, line.path, line.conditions or "-", f"{line.rule.route}/{line.rule.name}", _destination(line.rule)


def _destination(rule: Rule) -> str:
    if rule.redirect is not None:
        return f"redirect {rule.redirect.status}"
    shares = [(backend, share) for backend, share in rule.split.shares() if share]
    if not shares:
        return "500: no usable backendRef"
    if len(shares) == 1:
        return shares[0][0].upstream
    return ", ".join(f"{backend.upstream} {percent(share)}" for backend, share in shares)


def _described(line: Line) -> dict[str, Any]:
    shares = [
        {"upstream": backend.upstream, "role": backend.role, "percent": share}
        for backend, share in line.rule.split.shares()
    ]
    redirect = None if line.rule.redirect is None else line.rule.redirect.status
    return {
        "host": line.host,
        "path": line.path,
        "conditions": line.conditions,
        "route": line.rule.route,
        "rule": line.rule.name,
        "redirect": redirect,
        "shares": shares,
    }


# --- rollouts --------------------------------------------------------------------------------------------------------
_MOST_STAGES: Final = 20
"""Stages of a rollout that are printed."""


def _rollout_lines(rollout: dict[str, Any]) -> list[str]:
    """Return a rollout and its stages, in words."""
    plan = compile_plan(rollout)
    rules = ", ".join(rollout["rules"])
    revision = f", revision {plan.revision}" if plan.revision is not None else ""
    lines = [
        f"Rollout {plan.name} ({plan.strategy}): {plan.primary} to {plan.canary} on {plan.route}/{rules}{revision}",
        f"  {_pace(plan)}",
    ]
    stages = [] if plan.skip_analysis else [stage["text"] for stage in stage_plan(plan)]
    lines += [f"  {number}. {words}" for number, words in enumerate(stages[:_MOST_STAGES], 1)]
    if len(stages) > _MOST_STAGES:
        lines.append(f"  and {counted(len(stages) - _MOST_STAGES, 'stage')} more")
    return [*lines, f"  {_ending(plan)}"]


def _pace(plan: Plan) -> str:
    if plan.skip_analysis:
        return "promoted without any check"
    limit = "the first failed check ends it" if plan.threshold == 1 else f"{plan.threshold} failed checks end it"
    dry = "; dry run: traffic stays as it is" if plan.dry_run else ""
    return f"a check every {duration(plan.interval)}, {limit}{dry}"


def _ending(plan: Plan) -> str:
    if plan.mode == "handBack":
        ending = f"then {plan.primary} is updated, and traffic returns to it"
    else:
        ending = f"then {plan.canary} keeps the traffic"
    return f"{ending}; checks go on for {duration(plan.bake)}" if plan.bake else ending


def _described_rollout(rollout: dict[str, Any]) -> dict[str, Any]:
    plan = compile_plan(rollout)
    keys = ("name", "route", "primary", "canary", "revision", "rules")
    return {**{key: rollout[key] for key in keys}, "strategy": plan.strategy, "stages": stage_plan(plan)}
