"""The image's recipe as its linter sees it; tests/test_packaging.py has what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(not HADOLINT, reason="hadolint is not installed (extra deploy)")


def lint(text):
    """Return the rules that `text` breaks."""
    done = subprocess.run([HADOLINT, "--no-color", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.split()[1] for line in done.stdout.splitlines()]


def test_the_linter_finds_nothing(deploy):
    assert lint((deploy.parent / "Dockerfile").read_text()) == []


def test_the_linter_would_find_something(deploy):
    text = (deploy.parent / "Dockerfile").read_text()
    worse = text.replace("USER 10001:10001", "USER root").replace('CMD ["run", "-c", "/etc/splitproxy"]', "CMD run")
    assert {"DL3002", "DL3025"} <= set(lint(worse))
