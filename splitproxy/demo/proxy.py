"""`python -m splitproxy.demo.proxy`: as `splitproxy run`, but told in JSON lines; started by the stage."""

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from typing import Any

from splitproxy.demo.attached import end_with
from splitproxy.supervisor import Programs, Ready, Supervisor


def _tell(word: str, value: Any) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more, which is no reason not to end in order
        sys.stdout.write(json.dumps({word: value}) + "\n")  # in one piece: others write to the same pipe
        sys.stdout.flush()


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--config", required=True)
    options = parser.parse_args()
    end_with(options.parent)

    def say(_level: str, text: str) -> None:
        _tell("said", text)

    def announce(ready: Ready) -> None:
        _tell("ready", asdict(ready))

    return Supervisor(Programs(["-m", "splitproxy.control", "-c", options.config]), say, announce).run()


if __name__ == "__main__":
    sys.exit(main())
