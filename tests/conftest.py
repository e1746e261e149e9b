"""Which tests get a second try, and what all processes that tests start have in common."""

import os
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.dont_write_bytecode = False  # or each process, of hundreds, compiles every module anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
EXACT = [HERE / "core", HERE / "config", HERE / "conformance", HERE / "fuzz"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    """See that every server of a module has ended: one whose socket alone is closed spins, and slows all others."""
    done = yield
    if nextitem is None or nextitem.path != item.path:
        servers = [thread for thread in threading.enumerate() if "serve_forever" in thread.name]
        for thread in servers:
            thread.join(1)
        assert [thread.name for thread in servers if thread.is_alive()] == [], "shutdown() before server_close()"
    return done


def pytest_collection_modifyitems(items):
    """Give tests that start processes or wait on sockets one more try: on a busy machine any patience may be too short.

    A second try is named in the summary. What is pure has none.
    """
    for item in items:
        if not any(item.path.is_relative_to(folder) for folder in EXACT):
            item.add_marker(pytest.mark.flaky(reruns=1))
