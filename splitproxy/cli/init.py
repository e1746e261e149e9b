"""`splitproxy init [FILE]`: write a commented configuration to start from."""

import argparse
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

_FILE: Final = "splitproxy.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default=_FILE, help="where to (%(default)s); - is standard output"
    )
    parser.add_argument("--force", action="store_true", help="also over a file that is there")


def run(options: argparse.Namespace) -> int:
    """Write the file and say what comes next; return 1 with the reason when it cannot be written."""
    text = starter(options.file if options.file != "-" else _FILE)
    if options.file == "-":
        print(text, end="")
        return 0
    try:
        with Path(options.file).open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"{options.file} is there already; --force writes over it.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{options.file} cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    name = shlex.quote(options.file)
    print(f"Wrote {options.file}. Next:\n  splitproxy check {name}\n  splitproxy run -c {name}")
    return 0


def starter(file: str) -> str:
    """Return the configuration, whose comments speak of `file`."""
    text = files("splitproxy.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
    heading, below = text.split("\n\n", 1)
    return f"{heading.replace('FILE', shlex.quote(file))}\n\n{below}"
