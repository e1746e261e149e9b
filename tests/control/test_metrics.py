from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from splitproxy.control import metrics
from splitproxy.control.loading import Memfd, Share
from splitproxy.control.publish import Publisher, Snapshot
from splitproxy.control.state import State
from splitproxy.core import stats
from splitproxy.core.rollout.plan import MetricPlan, Plan
from splitproxy.core.rollout.state import PHASES, State as RolloutState

SHOP = (stats.SERIES, "shop", "0", "v1", "primary")
PLAN = Plan(
    *("pay", "pay", "v1", "v2", "7", "0f", (), (MetricPlan("request-duration", "request-duration", max=500.0),), ()),
    strategy="canary",
)
CONTROLLER = SimpleNamespace(
    plan=PLAN,
    state=RolloutState(phase="Paused"),
    summary=lambda: {"canaryWeight": 12.5},
    verdicts=[{"metric": "request-success-rate", "value": 99.5, "min": 99.0, "max": None}],
    results={"succeeded": 2, "failed": 0},
)
COPY = (stats.SERIES, "shop", "0", "v3", "mirror")
SHARES = [Share("shop", "0", "v1", "primary", 99.5), Share("shop", "0", "v2", "canary", 0.5)]


@pytest.fixture
def state(regions):
    region = regions.worker(0)
    shop, copy = region.block(SHOP), region.block(COPY)
    cells = region.cells
    cells[shop + stats.CODE + stats.CODES.index("200")] = 5
    cells[shop + stats.CODE + stats.CODES.index("503")] = 1
    cells[shop + stats.OUTCOME + stats.OUTCOMES.index("success")] = 5
    cells[shop + stats.OUTCOME + stats.OUTCOMES.index("5xx")] = 1
    cells[shop + stats.REASON + stats.REASONS.index("random")] = 6
    cells[shop + stats.REQUEST_BYTES], cells[shop + stats.RESPONSE_BYTES] = 100, 2000
    cells[shop + stats.IN_FLIGHT] = 2
    for seconds in (0.001, 0.0011, 0.3, 0.5, 200.0):
        cells[shop + stats.REQUEST_HISTOGRAM + stats.bucket(seconds)] += 1
        cells[shop + stats.REQUEST_NS] += int(seconds * 1e9)
    cells[copy + stats.OUTCOME + stats.OUTCOMES.index("upstream_timeout")] = 3
    cells[copy + stats.DROP + stats.DROPS.index("in_flight")] = 4
    cells[copy + stats.IN_FLIGHT] = 9
    cells[shop + stats.RETRIES] = 3
    cells[region.block((stats.FAILOVER, "shop", "v2", "v1")) + stats.FAILOVERS] = 2
    cells[stats.CONNECTIONS], cells[stats.LAG_NS], cells[stats.ACCEPTED] = 11, 2_000_000, 40
    cells[stats.TURNED_AWAY] = 3
    publisher = Publisher()
    publisher.workers[0] = SimpleNamespace(slot=0, leaving=False, generation=3)
    publisher.current, publisher.expected = Snapshot(3, Memfd.create("snapshot")), 1
    state = State(regions.descriptor, publisher)
    state.rollouts = SimpleNamespace(controllers={"pay": CONTROLLER}, live_shares=lambda shares: shares)
    state.reloader = SimpleNamespace(
        running=SimpleNamespace(shares=SHARES, health={}),
        last=SimpleNamespace(result="failure"),
        counts={"success": 2, "unchanged": 0, "failure": 1},
    )
    return state


@pytest.fixture
def samples(state):
    body, _ = metrics.render(state, "")
    return {
        (sample.name.removeprefix("splitproxy_"), *sorted(sample.labels.items())): sample.value
        for family in prometheus(body.decode())
        for sample in family.samples
    }


def value(samples, name, **labels):
    return samples[(name, *sorted(labels.items()))]


SERIES = {"route": "shop", "rule": "0", "upstream": "v1", "role": "primary"}


def test_requests_are_counted_by_the_clients_status(samples):
    assert value(samples, "requests_total", **SERIES, code="200") == 5
    assert value(samples, "requests_total", **SERIES, code="503") == 1
    assert sum(key[0] == "requests_total" for key in samples) == 2, "a status that never occurred is no series"


def test_attempts_are_counted_by_their_outcome(samples):
    assert value(samples, "attempts_total", **SERIES, outcome="success") == 5
    assert value(samples, "attempts_total", **SERIES, outcome="5xx") == 1
    assert (
        value(samples, "attempts_total", **SERIES | {"upstream": "v3", "role": "mirror"}, outcome="upstream_timeout")
        == 3
    )


@pytest.mark.parametrize(
    ("bound", "count"), [("0.001", 1), ("0.0025", 2), ("0.25", 2), ("0.5", 4), ("10.0", 4), ("+Inf", 5)]
)
def test_a_bucket_includes_its_bound(samples, bound, count):
    assert value(samples, "request_duration_seconds_bucket", **SERIES, le=bound) == count


def test_durations_have_sum_and_count(samples):
    assert value(samples, "request_duration_seconds_count", **SERIES) == 5
    assert value(samples, "request_duration_seconds_sum", **SERIES) == pytest.approx(200.8021)
    assert sum(key[0] == "request_duration_seconds_bucket" for key in samples) == 17


def test_bytes_and_requests_in_flight_leave_copies_out(samples):
    pair = {"route": "shop", "upstream": "v1"}
    assert value(samples, "request_bytes_total", **pair) == 100
    assert value(samples, "response_bytes_total", **pair) == 2000
    assert value(samples, "requests_in_flight", **pair) == 2
    assert ("requests_in_flight", ("route", "shop"), ("upstream", "v3")) not in samples


def test_mirrors_have_their_own(samples):
    pair = {"route": "shop", "upstream": "v3"}
    assert value(samples, "mirror_requests_total", **pair, outcome="upstream_timeout") == 3
    assert value(samples, "mirror_dropped_total", **pair, reason="in_flight") == 4


def test_retries_and_failovers_are_counted(samples):
    assert value(samples, "retries_total", route="shop", upstream="v1") == 3
    assert value(samples, "failovers_total", **{"route": "shop", "from": "v2", "to": "v1"}) == 2
    assert sum(key[0] in {"retries_total", "failovers_total"} for key in samples) == 2


def test_the_split_is_shown_as_configured_and_as_observed(samples):
    rule = {"route": "shop", "rule": "0"}
    assert value(samples, "split_weight", **rule, upstream="v1") == 99.5
    assert value(samples, "split_weight", **rule, upstream="v2") == 0.5
    assert value(samples, "split_assignments_total", **rule, upstream="v1", reason="random") == 6


def test_a_rollout_shows_its_phase_weight_values_and_limits(samples):
    phases = {phase: value(samples, "rollout_phase", rollout="pay", phase=phase) for phase in PHASES}
    assert phases == {**dict.fromkeys(PHASES, 0), "Paused": 1}
    assert value(samples, "rollout_canary_weight", rollout="pay") == 12.5
    assert value(samples, "rollout_metric", rollout="pay", metric="request-success-rate") == 99.5
    limits = {key[1:]: number for key, number in samples.items() if key[0] == "rollout_metric_limit"}
    assert limits == {
        (("bound", "min"), ("metric", "request-success-rate"), ("rollout", "pay")): 99,
        (("bound", "max"), ("metric", "request-duration"), ("rollout", "pay")): 500,
    }
    assert value(samples, "rollouts_total", rollout="pay", result="succeeded") == 2
    assert value(samples, "rollouts_total", rollout="pay", result="failed") == 0


def test_the_program_itself_is_measured(samples):
    assert value(samples, "config_generation") == 3
    assert value(samples, "config_last_reload_success") == 0
    assert value(samples, "config_reloads_total", result="success") == 2
    assert value(samples, "config_reloads_total", result="failure") == 1
    assert value(samples, "downstream_connections") == 11
    assert value(samples, "downstream_accepted_total") == 40
    assert value(samples, "downstream_turned_away_total") == 3
    assert value(samples, "event_loop_lag_seconds") == 0.002
    assert value(samples, "workers_ready") == 1


def test_open_metrics_are_served_to_those_who_ask(state):
    body, content_type = metrics.render(state, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {sample.name for family in open_metrics(body.decode()) for sample in family.samples}
    assert "splitproxy_requests_total" in names
    assert not {name for name in names if name.endswith("_created")}


def test_prometheus_text_is_served_to_all_others(state):
    body, content_type = metrics.render(state, "*/*")
    assert content_type.startswith("text/plain")
    assert b"_created" not in body
