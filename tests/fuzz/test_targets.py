"""The fuzzing targets themselves: their seeds hold, and the programs run, or say why they do not."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import configuration
import heads
import target

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("prepare", [heads.prepare, configuration.prepare])
def test_what_fuzzing_begins_with_holds(prepare):
    test_one, seeds = prepare()
    for seed in seeds:
        test_one(seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heads", "configuration"])
def test_a_target_runs_or_says_that_it_is_skipped(name, tmp_path):
    command = [sys.executable, str(HERE / f"{name}.py"), "-runs=100", "-verbosity=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: no failure" in done.stdout or f"{name}: skipped, atheris is not installed" in done.stdout


@pytest.mark.slow
def test_a_failure_is_reported(tmp_path):
    pytest.importorskip("atheris")
    program = tmp_path / "failing.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import target
def test_one(data):
    assert not data.startswith(b"a")
sys.exit(target.run("failing", lambda: (test_one, [b"abc"])))
""")
    command = [sys.executable, str(program), "-runs=1000", "-verbosity=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "failing: FAILED" in done.stdout
    (crash,) = tmp_path.glob("crash-*")
    assert crash.read_bytes().startswith(b"a")


def test_where_atheris_is_absent_a_target_is_skipped_with_its_name(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert target.run("heads", heads.prepare) == 0
    assert capsys.readouterr().out.startswith("heads: skipped, ")
