"""The command line: one module per verb, and only the chosen one is imported, so that each answers at once.

A verb's module has `arguments(parser)` and `run(options) -> int`, the exit code: 0 done, 1 it could not be, 2 usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from splitproxy import __version__

_ACTING = "splitproxy.cli.acting"

VERBS = {
    "run": ("splitproxy.cli.run", "serve traffic as a configuration says"),
    "init": ("splitproxy.cli.init", "write a commented configuration to start from"),
    "check": ("splitproxy.cli.check", "validate a configuration and print the effective routing order"),
    "explain": ("splitproxy.cli.explain", "say which route, rule and split a request gets, without sending it"),
    "doctor": ("splitproxy.cli.doctor", "say whether this machine has what splitproxy needs, and what to do if not"),
    "schema": ("splitproxy.cli.schema", "print the JSON Schema of the configuration, for editors"),
    "status": ("splitproxy.cli.status", "show the rollouts of a running proxy: phase, weight, signals, verdicts"),
    "top": ("splitproxy.cli.top", "show what flows through a running proxy, by route and upstream"),
    "events": ("splitproxy.cli.events", "tell what has happened in a running proxy, and what happens"),
    "start": (_ACTING, "start a rollout"),
    "pause": (_ACTING, "halt a rollout where it stands"),
    "resume": (_ACTING, "go on with a paused rollout"),
    "promote": ("splitproxy.cli.promote", "leave a rollout's wait, or take its next step, or all of them"),
    "abort": (_ACTING, "end a rollout: all traffic back to the primary"),
    "retry": (_ACTING, "start the failed revision of a rollout again"),
    "undo": (_ACTING, "go back to the version before the promoted one, while it is warm"),
    "approve": (_ACTING, "open the gate that a rollout waits at"),
    "deny": (_ACTING, "close the gate that a rollout waits at"),
    "set-weight": ("splitproxy.cli.set_weight", "set the canary's share by hand while a rollout is paused"),
    "reload": ("splitproxy.cli.reload", "make a running proxy read its configuration again"),
    "drain": ("splitproxy.cli.drain", "let a running proxy finish its requests and exit"),
    "simulate": ("splitproxy.cli.simulate", "play a rollout thousands of times on invented or recorded traffic"),
    "demo": ("splitproxy.cli.demo", "show a rollout with live traffic, with no configuration at all"),
    "completion": ("splitproxy.cli.completion", "print what makes a shell complete verbs, options and rollouts"),
}
"""Verb -> its module and one line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="splitproxy", description="A traffic-splitting reverse proxy that runs releases by itself."
    )
    parser.add_argument("--version", action="version", version=f"splitproxy {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    if chosen is not None and chosen not in VERBS:
        parser.error(f"there is no verb {chosen!r}{_meant(chosen, [*VERBS])}")
    for verb, (_, summary) in VERBS.items():
        subparser = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb == chosen:
            declare(verb, subparser)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    options, unknown = parser.parse_known_args(words)
    if unknown:
        known = verbs.choices[options.verb].format_usage().replace("[", " ").replace("]", " ").split()
        parser.error(f"{options.verb} does not know {unknown[0]!r}{_meant(unknown[0], known)}")
    try:
        return int(import_module(VERBS[options.verb][0]).run(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `splitproxy … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def declare(verb: str, parser: argparse.ArgumentParser) -> None:
    """Declare the options of `verb`, which imports its module."""
    import_module(VERBS[verb][0]).arguments(parser)


def _meant(word: str, known: Sequence[str]) -> str:
    from splitproxy.cli.nearest import meant

    options = [one for one in known if one.startswith("--")] if word.startswith("-") else known
    return meant(word, options) or f"; splitproxy {'VERB ' * word.startswith('-')}--help lists what there is"
