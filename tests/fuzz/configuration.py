"""Fuzz the configuration loader.

    python tests/fuzz/configuration.py -max_total_time=20       # libFuzzer's options
    python tests/fuzz/configuration.py crash-...                # one input again

Any file is a configuration that workers can build, or a ConfigError with reasons that can be printed.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import target

ROOT = Path(__file__).resolve().parents[2]
SMALL = 6_000
"""Bytes; longer files only make it slow."""


def seeds() -> list[bytes]:
    """Return the files to begin with: the examples, piece by piece where they are long."""
    found = []
    for path in sorted((ROOT / "config").glob("*.yaml")):
        text = path.read_text()
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        found.append("\n".join(lines).encode()[:SMALL])
    found.append(
        b"listeners: [{address: ':80'}]\nupstreams: [{name: a, endpoints: ['http://a:80']}, {name: b, endpoints: ['http://b:80']}]\n"
        b"routes: [{name: r, rules: [{backendRefs: [{name: a, weight: 9}, {name: b}]}]}]\n"
        b"rollouts: [{name: x, route: r, primary: a, canary: b, analysis: {stepWeight: 10, maxWeight: 50}}]\n"
    )
    return found


def check(file: Path) -> None:
    """Load a file. Raise whatever is not a ConfigError that can be shown."""
    from splitproxy.config import load
    from splitproxy.core.snapshot import build
    from splitproxy.errors import ConfigError

    try:
        plain = load(file, {"A": "1"}).plain
    except ConfigError as error:
        problems = error.args[0]
    else:
        build(plain)
        return
    assert problems
    for problem in problems:
        assert problem.message
        assert all(letter.isprintable() or letter == "\n" for letter in str(problem))


def prepare() -> target.Target:
    """Return the target and the files to begin with."""
    import splitproxy.config
    import splitproxy.core.snapshot  # noqa: F401 - instrumented

    folder = Path(tempfile.gettempdir())

    def test_one(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".yaml") as file:
            file.write(data)
            file.flush()
            check(Path(file.name))

    return test_one, seeds()


if __name__ == "__main__":
    sys.exit(target.run("configuration", prepare))
