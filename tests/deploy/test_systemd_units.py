"""The units for systemd, as systemd itself reads them."""

import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from splitproxy.config import load

UNITS = ("splitproxy.service", "splitproxy.socket")


@pytest.fixture
def units(deploy, tmp_path):
    """Copy the units, with a program that is there; return the folder."""
    for name in UNITS:
        text = (deploy / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/bin/splitproxy", sys.executable))
    return tmp_path


def verify(folder):
    command = ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Units of this machine that are pulled in may have troubles of their own.
    return [line for line in done.stderr.splitlines() if str(folder) in line or "splitproxy" in line]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (package systemd)")
class TestVerified:
    def test_systemd_accepts_them(self, units):
        assert verify(units) == []

    @pytest.mark.parametrize(
        ("name", "right", "wrong"),
        [
            ("splitproxy.service", "WatchdogSec=30", "WatchdogSec=often"),
            ("splitproxy.service", "KillMode=mixed", "KillModes=mixed"),
            ("splitproxy.socket", "ListenStream=0.0.0.0:80", "ListenStream=nowhere"),
        ],
    )
    def test_and_would_say_what_is_wrong(self, units, name, right, wrong):
        text = (units / name).read_text()
        assert right in text
        (units / name).write_text(text.replace(right, wrong))
        assert verify(units) != []


def test_it_has_time_to_drain_and_a_place_for_its_state(deploy, tmp_path):
    text = (deploy / "systemd/splitproxy.service").read_text()
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert said["StateDirectory"] == "splitproxy"  # which systemd tells by $STATE_DIRECTORY
    assert said["NotifyAccess"] == "all"
    file = tmp_path / "splitproxy.yaml"
    file.write_text(
        textwrap.dedent("""
            listeners: [{address: "127.0.0.1:0"}]
            upstreams: [{name: a, endpoints: ["http://127.0.0.1:1"]}]
            routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]
        """)
    )
    drain = load(file, {}).config.drain
    assert float(said["TimeoutStopSec"]) > drain.delay + drain.timeout
