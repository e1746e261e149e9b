"""Put splitproxy, nginx, HAProxy, Envoy and a plain aiohttp proxy side by side, in one run, on the same requests.

    python loadtests/bench.py                        everything, in under 15 minutes
    python loadtests/bench.py --quick                everything in little, in under 2
    python loadtests/bench.py --scenarios small-get --peers splitproxy,nginx

Peers that are not installed are named and left out. Everything runs on the loopback interface and ends with this
program. What is measured, how, and what it can and cannot tell: docs/performance.md.
"""

import argparse
import sys
from pathlib import Path

from harness import goals, report, scenarios
from harness.measure import measure
from harness.peers import PEERS
from harness.processes import end_with_this_process, raise_descriptor_limit, stop_all
from harness.session import Session, scratch_folder


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ",".join(scenarios.names(quick=False))
    parser.add_argument("--peers", default=",".join(PEERS), help=f"which, with commas between: {','.join(PEERS)}")
    parser.add_argument("--scenarios", default="", help=f"which, with commas between: {everything}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of small-get; the others take 3 of every 5")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--quick", action="store_true", help="short and rough: 2 rounds of 1 second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = min(options.rounds, 2), 1
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    options.peers = _words(parser, "--peers", options.peers, list(PEERS))
    known = scenarios.names(quick=False)
    options.scenarios = _words(parser, "--scenarios", options.scenarios, known) or scenarios.names(options.quick)
    return options


def _words(parser: argparse.ArgumentParser, flag: str, text: str, known: list[str]) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        parser.error(f"{flag}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    return words


def main() -> int:
    options = arguments()
    end_with_this_process()
    raise_descriptor_limit()
    programs = {name: PEERS[name].program() for name in options.peers}
    peers = {name: program for name, program in programs.items() if program}
    missing = {name: "not installed" for name, program in programs.items() if not program}
    for name in missing:
        print(f"{name} is not installed and left out", file=sys.stderr)
    if not peers:
        print("none of the peers is installed", file=sys.stderr)
        return 1
    with scratch_folder() as folder:
        try:
            session = Session(peers, options.rounds, options.seconds, options.quick, Path(folder), missing=missing)
            outcomes = measure(session, options.scenarios)
            environment = report.environment(session)
        finally:
            stop_all()
    text = report.markdown(environment, goals.summary(outcomes), outcomes)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(report.as_json(environment, outcomes))
    return 0 if report.sound(outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        stop_all()
        sys.exit(130)
