"""The everyday cases under Locust, each with a proxy and upstreams of its own. Exit code 0 is: every limit was kept.

    python loadtests/everyday.py --list
    python loadtests/everyday.py spike                              # one case, several, or all
    python loadtests/everyday.py all --quick --reports reports      # each in a few seconds; Locust's pages in a folder
    python loadtests/everyday.py steady --host http://10.0.0.5:8080 --host-name shop.example.com     # another proxy

Locust comes with `pip install "splitproxy[load]"`; `--locust` takes the path of one installed elsewhere. Besides the
limits on what clients see, what they were answered is compared with what arrived at the upstreams, and no process may
have fallen over; each case looks at its own promise. Against another host only what clients see is judged. All of it is
in docs/loadtests.md.
"""

import argparse
import difflib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from behaviour import locust_command
from harness.everyday import CASES, Case, Checks, in_words
from harness.processes import (
    ROOT,
    Process,
    StartError,
    end_with_this_process,
    raise_descriptor_limit,
    stop_all,
)
from harness.session import scratch_folder
from harness.stage import Stage

USAGE = 2
LIMITS = ("--max-failures", "--max-p95", "--max-p99", "--max-lost")


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all, or: {', '.join(CASES)}")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--quick", action="store_true", help="a few seconds each, with few users")
    parser.add_argument("--seconds", type=float, help="length of each case (default: the case's)")
    parser.add_argument("--users", type=int, help="users at the most (default: the case's)")
    parser.add_argument("--reports", type=Path, metavar="FOLDER", help="write CASE.html and CASE.json there")
    parser.add_argument("--host", metavar="URL", help="load this proxy; start none")
    parser.add_argument("--host-name", metavar="NAME", help="Host header, with --host (default: the case's)")
    parser.add_argument("--path", help="one path for all requests, with --host")
    parser.add_argument("--locust", metavar="PATH", help="a locust installed elsewhere")
    for option, what in zip(LIMITS, ("failed requests, percent", "p95 in ms", "p99 in ms", "lost"), strict=True):
        parser.add_argument(option, type=float, metavar="MOST", help=f"limit: {what} (default: the case's)")
    options = parser.parse_args(given)
    if not options.list:
        _name_cases(parser, options)
    if not options.host and (options.host_name or options.path):
        parser.error("--host-name and --path are for --host; a proxy of ours has the names of the cases")
    if options.locust and not shutil.which(options.locust):
        parser.error(f"there is no program {options.locust}")
    return options


def _name_cases(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.cases:
        parser.error(f"which case? all, or: {', '.join(CASES)}")
    if "all" in options.cases:
        options.cases = list(CASES)
    for name in options.cases:
        if name not in CASES:
            near = difflib.get_close_matches(name, CASES, 1)
            parser.error(f"unknown case {name!r}{f'; did you mean {near[0]}?' if near else ''}; see --list")


def chosen(name: str, options: argparse.Namespace) -> Case:
    """Return a case as it was asked for."""
    case = CASES[name]
    return case.quick() if options.quick else case


def command(locust: list[str], case: Case, host: str, figures: Path, options: argparse.Namespace) -> list[str]:
    """Return Locust's command line for one case."""
    told = [*locust, "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless", "--only-summary"]
    told += ["--case", case.name, "--host", host, "--figures", str(figures), "--json-file", str(figures) + ".all"]
    told += ["--quick"] if options.quick else []
    given = {"--seconds": options.seconds, "--most-users": options.users}
    given |= {"--host-name": options.host_name, "--path": options.path}
    given |= {option: getattr(options, option[2:].replace("-", "_")) for option in LIMITS}
    for option, value in given.items():
        told += [option, f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    if options.reports:
        told += ["--html", str(options.reports.absolute() / f"{case.name}.html")]
    return told


def load(locust: list[str], case: Case, host: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run Locust to its end and return its figures. Raises StartError."""
    figures = folder / f"{case.name}.json"
    process = Process(f"locust {case.name}", command(locust, case, host, figures, options), folder)
    try:
        process.child.wait((options.seconds or case.seconds) + 60.0)
    except subprocess.TimeoutExpired:
        raise StartError(f"locust did not end: {process.last_lines(20)}") from None
    finally:
        process.stop()
    if not figures.exists():
        raise StartError(f"locust ended with {process.child.returncode}: {process.last_lines(20)}")
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def with_stage(
    locust: list[str], case: Case, stage: Stage, options: argparse.Namespace
) -> tuple[Checks, dict[str, Any]]:
    """Run a case against a proxy of our own, and look at what both sides saw."""
    with stage.meanwhile(case.name) as promise:
        figures = load(locust, case, f"http://127.0.0.1:{stage.port}", stage.folder, options)
    answered = sum(int(kind["answered"]) for kind in figures["kinds"])
    checks = [*stage.served(answered), *promise(answered)]
    figures["cpuMicrosecondsPerRequest"] = round(1e6 * stage.cpu() / max(1, answered), 1)
    return checks, figures


def run(locust: list[str], case: Case, stage: Stage | None, options: argparse.Namespace) -> bool:
    """Run one case, print and write what was seen; return whether everything held."""
    users, seconds = options.users or case.users, options.seconds or case.seconds
    print(f"{case.name}: {case.title}; {seconds:g} s, {users} users at the most", flush=True)
    if stage:
        checks, figures = with_stage(locust, case, stage, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            checks, figures = [], load(locust, case, options.host, Path(folder), options)
    checks = [(told["held"], told["what"]) for told in figures["checks"]] + checks
    print(in_words(checks), flush=True)
    if stage:
        print(f"          {figures['cpuMicrosecondsPerRequest']:g} µs of the proxy's CPU time for each request")
    if options.reports:
        figures["checks"] = [{"held": held, "what": text} for held, text in checks]
        (options.reports / f"{case.name}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return all(held for held, _ in checks)


def listed() -> str:
    return "\n".join(
        f"{case.name:14} {case.seconds:5g} s {case.users:4} users  {case.title}" for case in CASES.values()
    )


def main(given: list[str] | None = None) -> int:
    """Run the cases, print, and return the exit code."""
    options = arguments(given)
    if options.list:
        print(listed())
        return 0
    locust = locust_command(options.locust)
    if locust is None:
        print('Locust is not installed: pip install "splitproxy[load]", or --locust PATH', file=sys.stderr)
        return USAGE
    end_with_this_process()
    raise_descriptor_limit()
    if options.reports:
        options.reports.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as folder:
        try:
            stage = None if options.host else Stage(Path(folder), options.quick)
            broken = [name for name in options.cases if not run(locust, chosen(name, options), stage, options)]
        except (StartError, OSError) as error:
            print(f"could not be tried: {error}", file=sys.stderr)
            return 1
        finally:
            stop_all()
    print(f"BROKEN: {', '.join(broken)}" if broken else "everything held")
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        stop_all()
        sys.exit(130)
