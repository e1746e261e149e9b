import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from splitproxy.cli import main

FILE = """
listeners: [{address: ":80"}]
upstreams: [{name: a, endpoints: ["http://x:1"]}, {name: b, endpoints: ["http://x:2"]}]
routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]
rollouts:
  - name: shop
    route: r
    primary: a
    canary: b
    analysis:
      interval: 10s
      threshold: 2
      stepWeights: [5, 50]
      metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]
"""
QUICK = ("--runs", "40", "--seconds", "40")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(FILE)
    return str(path)


def simulate(capsys, file, *options):
    """Return exit code, output and errors."""
    try:
        code = main(["simulate", "-c", file, *options])
    except SystemExit as ended:
        code = ended.code
    done = capsys.readouterr()
    return code, done.out, done.err


def test_it_says_what_became_of_them_beside_the_others(capsys, file):
    code, out, _ = simulate(capsys, file, "shop", *QUICK, "--kind", "errors", "--size", "+50")
    assert code == 0
    assert "shop: 40 rollouts of 40 s, seed 1" in out
    assert "1,000 requests a second, 0.1 % of them fail, on the canary 50 points more" in out
    own = next(line for line in out.splitlines() if line.startswith("splitproxy"))
    assert "100 %" in own
    assert "Flagger 10s, threshold 1 *" in out
    assert "rolled back by evidence of errors 100 %" in out


def test_the_same_seed_gives_the_same_json(capsys, file):
    options = (*QUICK, "--alone", "--json", "--kind", "errors", "--size", "+5")
    first, second, other = (simulate(capsys, file, *options, "--seed", seed)[1] for seed in ("7", "7", "8"))
    assert first == second != other
    found = json.loads(first)
    (own,) = found["controllers"]
    assert own["rolled_back"] == 40
    assert own["bad"]["median"] <= 6
    assert [step["weight"] for step in found["policy"]["steps"]] == [0.05, 0.5]


def test_a_record_is_played_as_it_was_and_again_with_its_rates(capsys, file):
    sample = Path(__file__).resolve().parents[2] / "config/signals.jsonl"
    code, out, _ = simulate(capsys, file, "--runs", "20", "--seconds", "2m", "--record", str(sample), "--alone")
    assert code == 0
    assert "as recorded in 120 seconds" in out
    assert "the comparison convicts the canary in second 9" in out


@pytest.mark.slow
@pytest.mark.timeout(180)  # matplotlib looks at every font of the machine the first time
def test_a_picture(capsys, file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "p.svg"
    assert simulate(capsys, file, *QUICK, "--kind", "errors", "--plot", str(picture))[0] == 0
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("other",), "has no rollout other, but shop"),
        (("--kind", "latency", "--sticky"), "--kind latency cannot be played with --sticky"),
        (("--size", "5"), "--size says how much is wrong, --kind what"),
        (("--kind", "tail", "--size", "much"), "--size much: a factor is wanted, such as 2x"),
        (("--kind", "errors", "--size", "0"), "--size 0: above 0 and at most 100 points are wanted"),
        (("--onset", "1h", "--seconds", "10m"), "--onset 3600 s is not before the end, 600 s"),
        (("--record", "/nowhere.jsonl"), "No such file"),
        (("--plot", "x.bmp"), "a name that ends in .png or .svg is wanted"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(capsys, file, options, reason):
    code, out, err = simulate(capsys, file, *options)
    assert (code, out) == (1, "")
    assert reason in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--errors", "0.1"), "a percentage is wanted, such as 0.1%"),
        (("--rate", "0"), "above 0 and at most 1,000,000"),
        (("--onset", "soon"), "a time is wanted, such as 90s, 10m or 1h"),
        (("--drift", "0.5"), "a factor from 1 to 1000 is wanted"),
        (("--runs", "1.5"), "a whole number from 1"),
    ],
)
def test_mistyped_options(capsys, file, options, reason):
    code, _, err = simulate(capsys, file, *options)
    assert code == 2
    assert reason in err


def test_without_numpy_it_says_what_to_install(capsys, file, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("splitproxy.simulation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    code, _, err = simulate(capsys, file)
    assert code == 1
    assert "this needs numpy: pip install 'splitproxy[simulate]'" in err
