"""`analysis.compare.mirror`: what of the answers to copies is compared."""

import pytest

from splitproxy.core.pair_evidence import SHARE
from splitproxy.core.rollout.stages import compile_plan

FILE = """
listeners: [{{address: 127.0.0.1:8080}}]
upstreams:
  - {{name: a, endpoints: ["http://127.0.0.1:9001"]}}
  - {{name: b, endpoints: ["http://127.0.0.1:9002"]}}
  - {{name: twin, endpoints: ["http://127.0.0.1:9003"]}}
routes:
  - name: r
    rules: [{{backendRefs: [{{name: a}}, {{name: twin, weight: 0}}]}}]
rollouts:
  - name: o
    route: r
    primary: a
    canary: b
    analysis: {{stepWeight: 10, metrics: [{{name: request-success-rate, thresholdRange: {{min: 9}}}}], {analysis}}}
"""
MIRROR = "rollouts[0].analysis.compare.mirror"
DEFAULTS = {
    "bodies": "ignore",
    "noiseTwin": None,
    "headers": ["content-type", "content-encoding", "cache-control", "location"],
    "ignore": [],
    "redact": [],
    "maxBodyBytes": 65536,
    "perSecond": 10,
    "examples": 5,
}


def file(mirror, *, copies="mirror: true"):
    return FILE.format(analysis=f"{copies}, compare: {{mirror: {{{mirror}}}}}")


def compared(loaded):
    """Return what workers are told of comparing copies."""
    return loaded.plain["routes"][0]["rules"][0]["rollout"]["mirror"]["compare"]


def test_defaults_are_filled_in(load_text):
    loaded = load_text(FILE.format(analysis="mirror: true"))
    assert compared(loaded) == {**DEFAULTS, "latency": 1.1, "delay": 0.005}


def test_what_is_said_reaches_workers_and_the_plan(load_text):
    loaded = load_text(
        file("bodies: act, noiseTwin: twin, headers: [ETag], ignore: [$.at], redact: [email], maxBodyBytes: 1Ki")
    )
    told = compared(loaded)
    assert (told["bodies"], told["noiseTwin"], told["headers"]) == ("act", "twin", ["ETag"])
    assert (told["ignore"], told["redact"], told["maxBodyBytes"]) == (["$.at"], ["email"], 1024)
    copies = compile_plan(loaded.plain["rollouts"][0]).copies
    assert (copies.twin, copies.bodies, copies.examples) == ("twin", "act", 5)
    assert loaded.warnings == []


def test_without_a_comparison_copies_are_not_compared(load_text):
    assert compared(load_text(FILE.format(analysis="mirror: true, compare: false"))) is None


@pytest.mark.parametrize(
    ("copies", "live"), [("mirror: true", 1 - SHARE), ("mirror: false", 1.0), ("compare: {alpha: 0.01}", 10.0)]
)
def test_alpha_is_shared_between_copies_and_clients(load_text, copies, live):
    plan = compile_plan(load_text(FILE.format(analysis=copies)).plain["rollouts"][0])
    assert plan.terms.alpha == pytest.approx(0.001 * live)
    assert plan.copies.alpha == pytest.approx(0.001 * SHARE * max(live, 1.0))
    if "mirror: true" in copies:
        assert plan.terms.alpha + plan.copies.alpha == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("mirror", "place", "message", "hint"),
    [
        ("bodies: act", "bodies", "without a noiseTwin", "name a noiseTwin, or write report"),
        ("bodies: all", "bodies", "ignore, report or act is wanted", ""),
        ("noiseTwin: a", "noiseTwin", "'a' is the primary", ""),
        ("noiseTwin: b", "noiseTwin", "'b' is the canary", ""),
        ("noiseTwin: twn", "noiseTwin", "there is no upstream 'twn'", "did you mean 'twin'?"),
        (
            "ignore: [a.b]",
            "ignore[0]",
            "no place of an answer is the text 'a.b': write a place, such as $.user.email",
            "",
        ),
        ("redact: ['$.a[0]']", "redact[0]", "at character 4", ""),
        ("headers: ['a b']", "headers[0]", "a header name is wanted", ""),
        ("perSecond: 0", "perSecond", "from 1 to 1000", ""),
        ("maxBodyBytes: 2Mi", "maxBodyBytes", "from 1 to 1Mi", ""),
        ("examples: 21", "examples", "from 0 to 20", ""),
        ("redacted: [x]", "redacted", "unknown key 'redacted'", "did you mean 'redact'?"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(refuse, mirror, place, message, hint):
    (problem,) = refuse(file(mirror))
    assert problem.path == f"{MIRROR}.{place}"
    assert message in problem.message
    assert problem.hint == hint


def test_a_comparison_without_copies_is_warned_of(load_text):
    (warning,) = load_text(file("bodies: report", copies="mirror: false")).warnings
    assert warning.path == MIRROR
    assert "nothing is copied" in warning.message


def test_a_twin_is_used(load_text):
    text = file("noiseTwin: twin").replace(", {name: twin, weight: 0}", "")
    assert load_text(text).warnings == []
