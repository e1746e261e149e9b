"""`splitproxy schema`: the JSON Schema of the configuration."""

import argparse
import json

from splitproxy.config.schema import document


def arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare nothing: there are no options."""


def run(_options: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(document(), indent=2, ensure_ascii=False))
    return 0
