"""What is deployed, and which metrics there are to be watched."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from splitproxy.control import metrics
from splitproxy.control.publish import Publisher
from splitproxy.control.state import State
from splitproxy.core import stats

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture
def deploy():
    return DEPLOY


@pytest.fixture(scope="session")
def told():
    """Return the names of all samples that /metrics may have."""
    descriptor = os.memfd_create("stats")
    os.ftruncate(descriptor, stats.REGION_BYTES)
    state = State(descriptor, Publisher())
    state.rollouts = SimpleNamespace(controllers={}, live_shares=list)
    state.reloader = SimpleNamespace(running=None, last=None, counts={})
    body, _ = metrics.render(state, "")
    os.close(descriptor)
    families = re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE)
    return {
        f"{name}{suffix}"
        for name, kind in families
        for suffix in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }
