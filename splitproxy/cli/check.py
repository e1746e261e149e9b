"""`splitproxy check`: validate a configuration and print the effective routing order."""

import argparse
import json
import sys
from typing import Any, NamedTuple

from splitproxy.cli.showing import counted, loaded, percent, reasons, show_problems, show_table
from splitproxy.core import snapshot
from splitproxy.core.routing import Effective, Rule
from splitproxy.errors import ConfigError


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
        body = {"valid": True, "checksum": valid.checksum, "warnings": warnings, "order": [*map(_described, order)]}
        print(json.dumps(body, indent=2))
        return 0
    show_problems(valid.warnings, "warning", sys.stderr)
    if order:
        show_table(("HOST", "PATH", "CONDITIONS", "ROUTE/RULE", "GOES TO"), [_row(line) for line in order])
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
