"""`splitproxy status [NAME]`: how the rollouts of a running proxy stand; once, or while they go on."""

import argparse
import json
import re
import sys
import time
from typing import Any, Final

from splitproxy import reports
from splitproxy.cli import waiting
from splitproxy.cli.admin_client import admin_argument
from splitproxy.cli.looking import LOOK_SECONDS, RESTART_SECONDS, patient_look
from splitproxy.cli.nearest import meant
from splitproxy.cli.progress import working
from splitproxy.cli.showing import show_facts, show_table
from splitproxy.core.rollout.state import PHASES

_HISTORY: Final = 12
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BY_WORD: Final = {phase.casefold(): phase for phase in PHASES}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="one rollout, with its plan, signals and history")
    parser.add_argument(
        "--watch", action="store_true", help="go on showing it: a picture on a terminal, else a line for each change"
    )
    parser.add_argument("--json", action="store_true", help="print what the API answers and nothing else")
    parser.add_argument(
        "--wait",
        metavar="PHASE",
        nargs="+",
        type=_phase,
        choices=PHASES,
        help="return when NAME is in one of these phases: exit code 0; 1 it ended in another; 3 it takes longer than "
        "--timeout; 4 the proxy does not tell",
    )
    parser.add_argument("--revision", metavar="TEXT", help="with --wait: only a run of this revision counts")
    parser.add_argument("--timeout", metavar="DURATION", type=_seconds, help="with --wait: the longest wait, as 30m")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Show how it stands and return 0; 1 with the reason when there is nothing to show; of --wait, its outcome."""
    if (options.wait or options.revision or options.timeout) and not (options.wait and options.name):
        print("--wait needs a NAME before it; --revision and --timeout need --wait.", file=sys.stderr)
        return 2
    if options.watch and not options.json:
        from splitproxy.cli.screen import filled

        if filled():
            from splitproxy.cli.watching import watch  # rich, for whoever has a terminal

            return watch(options)
    if options.wait:
        return _wait(options)
    return _follow(options) if options.watch else _once(options)


def _once(options: argparse.Namespace) -> int:
    with working("Asking"):
        found = patient_look(options.admin, options.name, 0.0)
    if found is None:
        return 1
    _show(options, found)
    return 0


def _show(options: argparse.Namespace, found: Any) -> None:
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif options.name:
        print(reports.headline(found))
        show_facts(reports.facts(found))
        if found["verdicts"]:
            print()
            show_table(reports.VERDICT_HEADS, [reports.verdict_row(verdict) for verdict in found["verdicts"]])
        for line in _past(found):
            print(line)
    elif found:
        show_table(reports.HEADS, [reports.row(rollout) for rollout in found])
    else:
        print("There are no rollouts: the configuration has none.")


def _past(rollout: reports.Rollout) -> list[str]:
    lines = reports.latest(rollout["history"], _HISTORY)
    return ["", "HISTORY", *lines] if lines else []


# --- going on ---------------------------------------------------------------------------------------------------------
class _Changes:
    """Prints a line, or JSON, for each change."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._json, self._told = options.json, dict[str, str]()

    def tell(self, rollout: reports.Rollout) -> None:
        # A reason may count seconds down, which is no change.
        stands = reports.headline(rollout) + re.sub(r"\d+", "", rollout["reason"])
        if self._told.get(rollout["name"]) != stands:
            self._told[rollout["name"]] = stands
            line = json.dumps(rollout, ensure_ascii=False) if self._json else waiting.standing(rollout)
            print(line, flush=True)


def _follow(options: argparse.Namespace) -> int:
    changes, patience = _Changes(options), 0.0
    while (found := patient_look(options.admin, options.name, patience)) is not None:
        for rollout in found if isinstance(found, list) else [found]:
            changes.tell(rollout)
        time.sleep(LOOK_SECONDS)
        patience = RESTART_SECONDS
    return 1


def _wait(options: argparse.Namespace) -> int:
    """Wait, and show how it stands then; with --watch also each change until then."""
    seen = _Changes(options).tell if options.watch else None
    code, found = waiting.wait(options, seen)
    if found is not None and not options.watch and (options.json or code == waiting.REACHED):
        _show(options, found)
    return code


def _phase(text: str) -> str:
    phase = _BY_WORD.get(text.casefold())
    if phase is None:
        near = meant(text.casefold(), _BY_WORD) or f": there are {', '.join(PHASES)}; NAME stands before --wait"
        raise argparse.ArgumentTypeError(f"there is no phase {text!r}{near}")
    return phase


def _seconds(text: str) -> float:
    """Return a duration such as `90`, `90s`, `10m`, `1h30m` in seconds. Raises ArgumentTypeError."""
    whole = f"{text}s" if text.replace(".", "", 1).isdigit() else text
    parts = re.findall(r"(\d+(?:\.\d*)?)(ms|s|m|h)", whole)
    value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != whole or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s or 1h30m")
    return value
