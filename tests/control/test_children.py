import os
import subprocess
import sys

import pytest

from splitproxy import children
from splitproxy.channel import Channel, pair
from splitproxy.children import BackOff, Child


@pytest.fixture
def child():
    ours, theirs = pair()
    yield lambda slot, started: Child(1, Channel(ours), slot, started=started)
    ours.close()
    theirs.close()


def test_the_first_replacement_comes_at_once_and_further_ones_ever_later(child, monkeypatch):
    monkeypatch.setattr(children.time, "monotonic", lambda: 100.0)
    back_off = BackOff()
    delays = [back_off.died(child(0, started=99.9))[1] for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]


def test_a_long_life_forgives_earlier_deaths(child, monkeypatch):
    monkeypatch.setattr(children.time, "monotonic", lambda: 100.0)
    back_off = BackOff()
    for _ in range(3):
        back_off.died(child(0, started=99.9))
    assert back_off.died(child(0, started=80.0)) == (1, 0.0)


def test_every_slot_is_counted_by_itself(child, monkeypatch):
    monkeypatch.setattr(children.time, "monotonic", lambda: 100.0)
    back_off = BackOff()
    assert back_off.died(child(0, started=99.9)) == (1, 0.0)
    assert back_off.died(child(1, started=99.9)) == (1, 0.0)
    assert back_off.died(child(None, started=99.9)) == (1, 0.0)
    assert back_off.died(child(1, started=99.9)) == (2, 0.1)


def test_nothing_in_the_working_directory_is_imported_by_a_child(tmp_path):
    (tmp_path / "yaml.py").write_text("raise SystemExit('imported the wrong one')")
    (tmp_path / "splitproxy").mkdir()
    command = [sys.executable, "-P", "-c", "import splitproxy.channel, yaml; print(splitproxy.channel.__file__)"]
    environment = children.child_environment()
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert os.path.samefile(found.strip(), sys.modules["splitproxy.channel"].__file__)
