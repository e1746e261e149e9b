"""`splitproxy status [NAME]`: how the rollouts of a running proxy stand; once, or while they go on."""

import argparse
import json
import sys
import time
from typing import Any, Final
from urllib.parse import quote

from splitproxy import reports
from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import Unanswered, admin_argument, ask
from splitproxy.cli.showing import show_table, table_lines
from splitproxy.core.rollout.state import PHASES

_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.5
"""Between two looks of --watch and --wait."""
_RESTART_SECONDS: Final = 15.0
"""How long --watch and --wait bear that nobody answers: as long as the proxy may take to start again."""
_HISTORY: Final = 12
_ENDS: Final = frozenset({"Succeeded", "Failed"})
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Rollouts = list[reports.Rollout]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="one rollout, with its plan, signals and history")
    parser.add_argument("--watch", action="store_true", help="go on showing it until interrupted")
    parser.add_argument("--json", action="store_true", help="print what the API answers and nothing else")
    parser.add_argument(
        "--wait",
        metavar="PHASE",
        nargs="+",
        choices=PHASES,
        help="return when NAME is in one of these phases; 1 when it ends in another, or is late",
    )
    parser.add_argument("--revision", metavar="TEXT", help="with --wait: only a run of this revision counts")
    parser.add_argument("--timeout", metavar="DURATION", type=_seconds, help="with --wait: the longest wait, as 10m")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Show how it stands and return 0; 1 with the reason when there is nothing to show or a wait was in vain."""
    if (options.wait or options.revision or options.timeout) and not (options.wait and options.name):
        print("--wait needs a NAME; --revision and --timeout need --wait.", file=sys.stderr)
        return 2
    if options.wait and not _waited(options):
        return 1
    if options.watch:
        return _watch(options)
    found = _asked(options)
    if found is None:
        return 1
    _show(options, found)
    return 0


def _asked(options: argparse.Namespace, patience: float = 0.0) -> Any | None:
    """Return what the API tells; None after saying why it does not, or did not for the seconds of `patience`."""
    path = "/api/v1/rollouts" + (f"/{quote(options.name, safe='')}" if options.name else "")
    try:
        status, told = _answered(options.admin, path, time.monotonic() + patience)
    except Unanswered as error:
        print(error, file=sys.stderr)
        return None
    if status == 200:
        return told
    print(refusal(status, told), file=sys.stderr)
    return None


def _answered(admin: str, path: str, end: float) -> tuple[int, Any]:
    """Return the answer to a GET; ask again where nobody answers, until `end`. Raises Unanswered."""
    while True:
        try:
            return ask(admin, "GET", path, _SECONDS)
        except Unanswered:
            if time.monotonic() >= end:
                raise
        time.sleep(_LOOK_SECONDS)


def _show(options: argparse.Namespace, found: Any) -> None:
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif options.name:
        for line in _facts(found):
            print(line)
        if found["verdicts"]:
            print()
            show_table(reports.VERDICT_HEADS, [reports.verdict_row(verdict) for verdict in found["verdicts"]])
        for line in _past(found):
            print(line)
    elif found:
        show_table(reports.HEADS, [reports.row(rollout) for rollout in found])
    else:
        print("There are no rollouts: the configuration has none.")


def _facts(rollout: reports.Rollout) -> list[str]:
    return [reports.headline(rollout), *(f"  {name:11}{text}" for name, text in reports.facts(rollout))]


def _past(rollout: reports.Rollout) -> list[str]:
    lines = reports.latest(rollout["history"], _HISTORY)
    return ["", "HISTORY", *lines] if lines else []


def _picture(options: argparse.Namespace, found: Any) -> list[str]:
    """Return what `_show` prints, as lines for a picture that is drawn again and again."""
    if not options.name:
        rows = [reports.row(rollout) for rollout in found]
        return table_lines(reports.HEADS, rows) if rows else ["There are no rollouts."]
    verdicts = [reports.verdict_row(verdict) for verdict in found["verdicts"]]
    table = ["", *table_lines(reports.VERDICT_HEADS, verdicts)] if verdicts else []
    return [*_facts(found), *table, *_past(found)]


# --- going on ---------------------------------------------------------------------------------------------------------
def _watch(options: argparse.Namespace) -> int:
    """Show it again and again: a picture on a terminal, elsewhere a line (or JSON) for each change."""
    found = _asked(options)
    if found is None:
        return 1
    if sys.stdout.isatty() and not options.json:
        return _draw(options, found)
    told: dict[str, str] = {}
    while found is not None:
        for rollout in found if isinstance(found, list) else [found]:
            line = _line(rollout)
            if told.get(rollout["name"]) != line:
                told[rollout["name"]] = line
                print(json.dumps(rollout, ensure_ascii=False) if options.json else line, flush=True)
        time.sleep(_LOOK_SECONDS)
        found = _asked(options, _RESTART_SECONDS)
    return 1


def _line(rollout: reports.Rollout) -> str:
    reason = f"; {rollout['reason']}" if rollout["reason"] else ""
    return reports.headline(rollout) + reason


def _draw(options: argparse.Namespace, found: Any) -> int:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=False) as live:
        while found is not None:
            live.update(Text("\n".join(_picture(options, found))), refresh=True)
            time.sleep(_LOOK_SECONDS)
            found = _asked(options, _RESTART_SECONDS)
    return 1


def _waited(options: argparse.Namespace) -> bool:
    """Wait until the rollout is in a phase that is waited for; say why when it will not be."""
    end = time.monotonic() + options.timeout if options.timeout else float("inf")
    patience = 0.0
    while True:
        found = _asked(options, patience)
        if found is None:
            return False
        patience = _RESTART_SECONDS
        ours = options.revision is None or found["revision"] == options.revision
        if ours and found["phase"] in options.wait:
            return True
        if ours and found["phase"] in _ENDS:
            return _in_vain(found, "It ended otherwise")
        if time.monotonic() >= end:
            return _in_vain(found, f"It took longer than {reports.duration(options.timeout)}")
        time.sleep(_LOOK_SECONDS)


def _in_vain(found: reports.Rollout, why: str) -> bool:
    reason = f": {found['reason']}" if found["reason"] else ""
    print(f"{why}. {reports.headline(found)}{reason}", file=sys.stderr)
    return False


def _seconds(text: str) -> float:
    """Return a duration such as `90`, `90s`, `10m`, `1h` in seconds. Raises ArgumentTypeError."""
    number = text.rstrip("hms")
    try:
        value = float(number) * _UNITS[text[len(number) :] or "s"]
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s or 10m")
    return value
