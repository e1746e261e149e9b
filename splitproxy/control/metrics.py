"""Every metric of the contract, made from the signals at the moment somebody asks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from splitproxy import __version__
from splitproxy.control import endpoints
from splitproxy.control.rollouts.controller import Controller
from splitproxy.control.signals import Values
from splitproxy.control.state import State
from splitproxy.core import stats
from splitproxy.core.rollout.state import PHASES
from splitproxy.core.stats import Key

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Each is a bound of the recorded histogram too, so that nothing is estimated."""
_EDGES: Final = tuple((str(bound), stats.BOUNDS.index(bound) + 1) for bound in _BOUNDS)
_SERIES: Final = ("route", "rule", "upstream", "role")

Labelled = dict[tuple[str, ...], float]


def render(state: State, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type: OpenMetrics where `accept` asks for it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SignalCollector(state))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class SignalCollector(Collector):
    """Reads `State` when collected."""

    def __init__(self, state: State) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        signals = self._state.signals
        signals.refresh()
        series = [(key, signals.total(key)) for key in signals.known() if key[0] == stats.SERIES]
        live = [(key, cells) for key, cells in series if key[4] != "mirror"]
        mirrors = [(key, cells) for key, cells in series if key[4] == "mirror"]
        yield from _traffic(live)
        yield _counter(
            "attempts",
            "First attempts of requests by outcome, copies for mirrors included.",
            (*_SERIES, "outcome"),
            _spread(series, stats.OUTCOME, stats.OUTCOMES),
        )
        yield from _repeats(
            live, [(key, signals.total(key)[stats.FAILOVERS]) for key in signals.known() if key[0] == stats.FAILOVER]
        )
        yield from _mirrors(mirrors)
        yield from self._splits(live)
        yield from self._endpoints()
        yield from _rollouts(list(self._state.rollouts.controllers.values()))
        yield from self._configuration()
        yield from self._workers()

    def _splits(self, live: list[tuple[Key, Values]]) -> Iterator[Metric]:
        weights = _merge((share[:3], share.percent) for share in self._state.shares())
        yield _gauge("split_weight", "Share in force in percent.", ("route", "rule", "upstream"), weights)
        yield _counter(
            "split_assignments",
            "Requests by the reason they went to their upstream.",
            ("route", "rule", "upstream", "reason"),
            _merge(((*key[:3], key[4]), value) for key, value in _spread(live, stats.REASON, stats.REASONS).items()),
        )

    def _endpoints(self) -> Iterator[Metric]:
        found = endpoints.standings(self._state.signals)
        labels = ("upstream", "endpoint")
        healthy: Labelled = {place: int(one.healthy) for place, one in found.items()}
        yield _gauge("endpoint_healthy", "0 while a worker's probes find it unhealthy.", labels, healthy)
        ejected: Labelled = {place: int(one.ejected > 0) for place, one in found.items()}
        yield _gauge("endpoint_ejected", "1 while a worker has ejected it for its errors.", labels, ejected)
        panic: Labelled = {place: int(one.panic > 0) for place, one in found.items()}
        yield _gauge("endpoint_panic", "1 while it is used only for want of others.", labels, panic)

    def _configuration(self) -> Iterator[Metric]:
        reloader = self._state.reloader
        good = not reloader.last or reloader.last.result != "failure"
        yield _gauge("config_generation", "Generation of the configuration in force.", (), {(): self._state.generation})
        yield _gauge("config_last_reload_success", "1 when the last reload was applied.", (), {(): int(good)})
        counts: Labelled = {(result,): count for result, count in reloader.counts.items()}
        yield _counter("config_reloads", "Reloads by result.", ("result",), counts)
        yield _gauge("build_info", "1, with the version as its label.", ("version",), {(__version__,): 1})

    def _workers(self) -> Iterator[Metric]:
        signals = self._state.signals
        connections = signals.header_sum(stats.CONNECTIONS, living=True)
        yield _gauge("downstream_connections", "Open connections of clients.", (), {(): connections})
        accepted = signals.header_sum(stats.ACCEPTED)
        yield _counter("downstream_accepted", "Connections accepted from clients.", (), {(): accepted})
        away = signals.header_sum(stats.TURNED_AWAY)
        yield _counter("downstream_turned_away", "Connections over their listener's maxConnections.", (), {(): away})
        lag = signals.header_max(stats.LAG_NS) / 1e9
        yield _gauge("event_loop_lag_seconds", "How late the slowest worker's last tick was.", (), {(): lag})
        drops = signals.header_sum(stats.LOG_DROPS)
        yield _counter("access_log_dropped", "Access log lines lost to a slow disk or pipe.", (), {(): drops})
        overflows = signals.header_sum(stats.OVERFLOWS)
        yield _counter("signal_overflows", "Series that found no room and were counted together.", (), {(): overflows})
        serving = len(self._state.publisher.serving())
        yield _gauge("workers_ready", "Workers that serve the current configuration.", (), {(): serving})


def _traffic(live: list[tuple[Key, Values]]) -> Iterator[Metric]:
    yield _counter(
        "requests", "Requests by what the client got.", (*_SERIES, "code"), _spread(live, stats.CODE, stats.CODES)
    )
    durations = HistogramMetricFamily(
        "splitproxy_request_duration_seconds", "From the request's head to the answer's last byte.", labels=_SERIES
    )
    for key, cells in live:
        histogram = cells[stats.REQUEST_HISTOGRAM : stats.ATTEMPT_HISTOGRAM]
        if any(histogram):
            durations.add_metric(key[1:], _buckets(histogram), cells[stats.REQUEST_NS] / 1e9)
    yield durations
    place: Callable[[Key], tuple[str, ...]] = lambda key: (key[1], key[3])  # noqa: E731
    pair = ("route", "upstream")
    for name, text, cell in (
        ("request_bytes", "Bytes of request bodies.", stats.REQUEST_BYTES),
        ("response_bytes", "Bytes of response bodies.", stats.RESPONSE_BYTES),
    ):
        yield _counter(name, text, pair, _merge((place(key), cells[cell]) for key, cells in live))
    flying = _merge((place(key), cells[stats.IN_FLIGHT]) for key, cells in live)
    yield _gauge("requests_in_flight", "Requests that have begun and not ended.", pair, flying)


def _repeats(live: list[tuple[Key, Values]], failovers: list[tuple[Key, int]]) -> Iterator[Metric]:
    made = _merge(((key[1], key[3]), cells[stats.RETRIES]) for key, cells in live if cells[stats.RETRIES])
    yield _counter("retries", "Attempts after one that had failed, by policy.", ("route", "upstream"), made)
    moved: Labelled = {key[1:]: count for key, count in failovers}
    yield _counter(
        "failovers", "Requests sent on to the primary after the canary had failed.", ("route", "from", "to"), moved
    )


def _mirrors(mirrors: list[tuple[Key, Values]]) -> Iterator[Metric]:
    for name, text, label, cell, words in (
        ("mirror_requests", "Copies sent, by outcome.", "outcome", stats.OUTCOME, stats.OUTCOMES),
        ("mirror_dropped", "Copies not made, or not to their end.", "reason", stats.DROP, stats.DROPS),
    ):
        spread = _spread(mirrors, cell, words)
        merged = _merge(((key[0], key[2], key[4]), value) for key, value in spread.items())
        yield _counter(name, text, ("route", "upstream", label), merged)


def _rollouts(controllers: list[Controller]) -> Iterator[Metric]:
    phases: Labelled = {
        (one.plan.name, phase): int(one.state.phase == phase) for one in controllers for phase in PHASES
    }
    yield _gauge("rollout_phase", "1 for the present phase.", ("rollout", "phase"), phases)
    weights: Labelled = {(one.plan.name,): one.summary()["canaryWeight"] for one in controllers}
    yield _gauge("rollout_canary_weight", "The canary's share in percent.", ("rollout",), weights)
    values: Labelled = {}
    limits: Labelled = {}
    for one in controllers:
        name = one.plan.name
        # A step may have limits of its own, which the verdict knows.
        own = [{"metric": metric.name, "min": metric.min, "max": metric.max} for metric in one.plan.metrics]
        for said in {said["metric"]: said for said in (*own, *one.verdicts)}.values():
            bounds = {(name, said["metric"], bound): said[bound] for bound in ("min", "max")}
            limits.update({labels: bound for labels, bound in bounds.items() if bound is not None})
        values.update({(name, said["metric"]): said["value"] for said in one.verdicts if said["value"] is not None})
    yield _gauge("rollout_metric", "Value of the last check.", ("rollout", "metric"), values)
    yield _gauge("rollout_metric_limit", "Limits of the metrics.", ("rollout", "metric", "bound"), limits)
    ended: Labelled = {(one.plan.name, result): count for one in controllers for result, count in one.results.items()}
    yield _counter("rollouts", "Runs that ended, by result.", ("rollout", "result"), ended)


def _spread(series: list[tuple[Key, Values]], first: int, words: Iterable[str]) -> Labelled:
    """Return the cells from `first` on that are not zero, each under its series and its word."""
    found: Labelled = {}
    for key, cells in series:
        for place, word in enumerate(words, first):
            if cells[place]:
                found[*key[1:], word] = cells[place]
    return found


def _merge(items: Iterable[tuple[tuple[str, ...], float]]) -> Labelled:
    merged: Labelled = defaultdict(float)
    for labels, value in items:
        merged[labels] += value
    return merged


def _buckets(histogram: Values) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = [(bound, sum(histogram[:edge])) for bound, edge in _EDGES]
    return [*buckets, ("+Inf", sum(histogram))]


def _counter(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    return _fill(CounterMetricFamily(f"splitproxy_{name}", text, labels=labels), values)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    return _fill(GaugeMetricFamily(f"splitproxy_{name}", text, labels=labels), values)


def _fill(family: Any, values: Labelled) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    assert isinstance(family, Metric)
    return family
