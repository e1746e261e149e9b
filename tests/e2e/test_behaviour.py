"""Under load, with reloads on the way: shares, stickiness and mirroring hold, and no request fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from splitproxy.children import child_environment

BEHAVIOUR = Path(__file__).resolve().parents[2] / "loadtests/behaviour.py"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed (extra `load`)")
def test_everything_a_release_relies_on_holds_under_load(tmp_path):
    figures = tmp_path / "figures.json"
    command = [
        sys.executable,
        str(BEHAVIOUR),
        "--seconds",
        "10",
        "--users",
        "40",
        "--reloads",
        "6",
        "--json",
        str(figures),
    ]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(figures.read_text())
