"""What the fuzzing targets have in common: atheris drives them, in a process of its own, from seeds in a folder."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

Target = tuple[Callable[[bytes], None], Iterable[bytes]]
"""What is to be called with any bytes, and the bytes to begin with."""


def run(name: str, prepare: Callable[[], Target]) -> int:
    """Fuzz what `prepare` returns with libFuzzer's options from the command line; return the exit code.

    `prepare` imports what is to be fuzzed, so that it is instrumented. Files named on the command line are run instead,
    once each. Where atheris is not installed this says so and counts as a success.
    """
    try:
        import atheris
    except ImportError:
        print(f"{name}: skipped, atheris is not installed (pip install 'splitproxy[fuzz]')")
        return 0
    with atheris.instrument_imports(include=["splitproxy"]):
        test_one, seeds = prepare()
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(seeds):
        (folder / f"{number:04}").write_bytes(seed)
    files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if child := os.fork():  # libFuzzer ends its process
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        shutil.rmtree(folder)
        print(f"{name}: {'no failure' if code == 0 else f'FAILED ({code}); the input is in the file named above'}")
        return 1 if code else 0
    atheris.Setup([sys.argv[0], *sys.argv[1:], *([] if files else [str(folder)])], test_one)
    atheris.Fuzz()
    raise AssertionError("atheris has ended its process")
