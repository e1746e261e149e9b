"""The command line: one module per verb, and only the chosen one is imported, so that each answers at once.

A verb's module has `arguments(parser)` and `run(options) -> int`, the exit code: 0 done, 1 it could not be, 2 usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from splitproxy import __version__

VERBS = {
    "run": ("splitproxy.cli.run", "serve traffic as a configuration says"),
    "check": ("splitproxy.cli.check", "validate a configuration and print the effective routing order"),
    "explain": ("splitproxy.cli.explain", "say which route, rule and split a request gets, without sending it"),
    "schema": ("splitproxy.cli.schema", "print the JSON Schema of the configuration, for editors"),
    "reload": ("splitproxy.cli.reload", "make a running proxy read its configuration again"),
    "drain": ("splitproxy.cli.drain", "let a running proxy finish its requests and exit"),
    "demo": ("splitproxy.cli.demo", "show live split traffic, with no configuration at all"),
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
    for verb, (module, summary) in VERBS.items():
        subparser = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb == chosen:
            import_module(module).arguments(subparser)
    options = parser.parse_args(words)
    try:
        return int(import_module(VERBS[options.verb][0]).run(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `splitproxy … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
