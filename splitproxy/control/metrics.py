"""Every metric of the contract, made from the signals at the moment somebody asks."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from splitproxy import __version__
from splitproxy.control import endpoints, process
from splitproxy.control.admission import VERDICTS, Told, admit
from splitproxy.control.exemplars import BOUNDS, Exemplars, Series
from splitproxy.control.exposition import Page, labelled, number
from splitproxy.control.rollouts.controller import Controller
from splitproxy.control.signals import Signals, Values
from splitproxy.control.state import State
from splitproxy.core import stats
from splitproxy.core.rollout.state import PHASES
from splitproxy.core.stats import Key

_EDGES: Final = tuple(stats.BOUNDS.index(bound) + 1 for bound in BOUNDS)
_SPANS: Final = tuple(zip((0, *_EDGES), (*_EDGES, stats.BUCKETS), strict=True))
"""For each bucket told, the recorded ones that make it."""
_LE: Final = (*map(str, BOUNDS), "+Inf")
_SERIES: Final = ("route", "rule", "upstream", "role")
_DEFAULT_MOST: Final = 50_000
"""Time series before there is a configuration that says how many."""


def render(state: State, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type: OpenMetrics where `accept`, the request's field, asks for it."""
    signals, running = state.signals, state.running
    signals.refresh()
    told = admit(
        list(state.rollouts.controllers.values()),
        [(key, signals.total(key)) for key in signals.known() if key[0] in {stats.SERIES, stats.FAILOVER}],
        endpoints.standings(signals),
        state.shares(),
        running.max_series if running else _DEFAULT_MOST,
    )
    page = Page(accept)
    series = [_Line(key, cells, state.exemplars) for key, cells in told.traffic if key[0] == stats.SERIES]
    live = [line for line in series if line.key[4] != "mirror"]
    _traffic(page, live)
    _attempts(page, series)
    _repeats(page, live, told)
    _mirrors(page, [line for line in series if line.key[4] == "mirror"])
    _splits(page, live, told.weights)
    _endpoints(page, told.endpoints)
    _rollouts(page, told.rollouts)
    _configuration(page, state)
    _workers(page, signals, len(state.publisher.serving()))
    spans = state.tracing.counts
    results = {(result,): count for result, count in spans.items() if result != "dropped"}
    results[("dropped",)] = spans["dropped"] + signals.header_sum(stats.SPAN_DROPS)
    page.counter("spans", "Spans of recorded requests, by what became of them.", ("result",), results)
    left_out = {(kind,): count for kind, count in told.left_out.items()}
    page.lines.append(process.text(open_metrics=page.open_metrics))
    page.gauge("metrics_left_out", "Time series beyond metrics.maxSeries, by what they tell of.", ("kind",), left_out)
    return page.finish()


class _Line:
    """One (route, rule, upstream, role): what was counted, and its labels, formatted once.

    Labels stand in alphabetical order, as other exporters have them; `code`, `le` and `outcome` come before these four.
    """

    __slots__ = ("cells", "examples", "key", "labels")

    def __init__(self, key: Key, cells: Values, exemplars: Exemplars) -> None:
        self.key, self.cells = key, cells
        self.labels = labelled(_SERIES, key[1:])
        self.examples: Series | None = exemplars.of(key)

    def used(self, first: int, words: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Yield each word whose cell, counted from `first`, is not zero, with its count."""
        cells = self.cells
        return ((word, cells[place]) for place, word in enumerate(words, first) if cells[place])


def _traffic(page: Page, live: list[_Line]) -> None:
    name = page.family("requests", "counter", "Requests by what the client got.")
    for line in live:
        codes = line.examples.codes if line.examples else {}
        page.lines += [
            f'{name}{{code="{code}",{line.labels}}} {count}.0{page.remark(codes.get(code), 1)}\n'
            for code, count in line.used(stats.CODE, stats.CODES)
        ]
    text = "From the request's head to the answer's last byte."
    _durations(page, page.family("request_duration_seconds", "histogram", text), live)
    pair = ("route", "upstream")
    for name, text, cell in (
        ("request_bytes", "Bytes of request bodies.", stats.REQUEST_BYTES),
        ("response_bytes", "Bytes of response bodies.", stats.RESPONSE_BYTES),
    ):
        page.counter(name, text, pair, _by_upstream(live, cell))
    flying = _by_upstream(live, stats.IN_FLIGHT)
    page.gauge("requests_in_flight", "Requests that have begun and not ended.", pair, flying)


def _durations(page: Page, name: str, live: list[_Line]) -> None:
    for line in live:
        recorded = line.cells[stats.REQUEST_HISTOGRAM : stats.ATTEMPT_HISTOGRAM]
        if not any(recorded):
            continue
        parts = [sum(recorded[first:last]) for first, last in _SPANS]
        counts = list(accumulate(parts))
        remarks = [""] * len(_LE)
        for place, one in (line.examples.buckets if line.examples else {}).copy().items():
            if parts[place]:  # the durations of tunnels and event streams are not counted
                remarks[place] = page.remark(one, one.seconds)
        page.lines += [
            f'{name}_bucket{{le="{le}",{line.labels}}} {count}.0{remark}\n'
            for le, count, remark in zip(_LE, counts, remarks, strict=True)
        ]
        page.lines.append(f"{name}_count{{{line.labels}}} {counts[-1]}.0\n")
        page.lines.append(f"{name}_sum{{{line.labels}}} {number(line.cells[stats.REQUEST_NS] / 1e9)}\n")


def _attempts(page: Page, series: list[_Line]) -> None:
    name = page.family("attempts", "counter", "First attempts of requests by outcome, copies for mirrors included.")
    for line in series:
        page.lines += [
            f'{name}{{outcome="{word}",{line.labels}}} {count}.0\n'
            for word, count in line.used(stats.OUTCOME, stats.OUTCOMES)
        ]


def _repeats(page: Page, live: list[_Line], told: Told) -> None:
    made = {place: count for place, count in _by_upstream(live, stats.RETRIES).items() if count}
    page.counter("retries", "Attempts after one that had failed, by policy.", ("route", "upstream"), made)
    moved = {key[1:]: cells[stats.FAILOVERS] for key, cells in told.traffic if key[0] == stats.FAILOVER}
    text = "Requests sent on to the primary after the canary had failed."
    page.counter("failovers", text, ("route", "from", "to"), moved)


def _mirrors(page: Page, mirrors: list[_Line]) -> None:
    for name, text, label, cell, words in (
        ("mirror_requests", "Copies sent, by outcome.", "outcome", stats.OUTCOME, stats.OUTCOMES),
        ("mirror_dropped", "Copies not made, or not to their end.", "reason", stats.DROP, stats.DROPS),
    ):
        merged = _merge(
            ((line.key[1], line.key[3], word), count) for line in mirrors for word, count in line.used(cell, words)
        )
        page.counter(name, text, ("route", "upstream", label), merged)


def _splits(page: Page, live: list[_Line], weights: Mapping[tuple[str, ...], float]) -> None:
    page.gauge("split_weight", "Share in force in percent.", ("route", "rule", "upstream"), weights)
    merged = _merge(
        ((*line.key[1:4], word), count) for line in live for word, count in line.used(stats.REASON, stats.REASONS)
    )
    text = "Requests by the reason they went to their upstream."
    page.counter("split_assignments", text, ("route", "rule", "upstream", "reason"), merged)


def _endpoints(page: Page, found: dict[tuple[str, str], endpoints.Standing]) -> None:
    labels = ("upstream", "endpoint")
    healthy = {place: int(one.healthy) for place, one in found.items()}
    page.gauge("endpoint_healthy", "0 while a worker's probes find it unhealthy.", labels, healthy)
    ejected = {place: int(one.ejected > 0) for place, one in found.items()}
    page.gauge("endpoint_ejected", "1 while a worker has ejected it for its errors.", labels, ejected)
    panic = {place: int(one.panic > 0) for place, one in found.items()}
    page.gauge("endpoint_panic", "1 while it is used only for want of others.", labels, panic)


def _rollouts(page: Page, controllers: list[Controller]) -> None:
    phases = {(one.plan.name, phase): int(one.state.phase == phase) for one in controllers for phase in PHASES}
    page.gauge("rollout_phase", "1 for the present phase.", ("rollout", "phase"), phases)
    stands = {one.plan.name: one.summary() for one in controllers}
    weights = {(name,): said["canaryWeight"] for name, said in stands.items()}
    page.gauge("rollout_canary_weight", "The canary's share in percent.", ("rollout",), weights)
    failed = {(name,): said["failedChecks"] for name, said in stands.items()}
    page.gauge("rollout_failed_checks", "Failed checks of this run.", ("rollout",), failed)
    values: dict[tuple[str, ...], float] = {}
    limits: dict[tuple[str, ...], float] = {}
    outcomes: dict[tuple[str, ...], float] = {}
    for one in controllers:
        name = one.plan.name
        # A step may have limits of its own, which the verdict knows.
        own = [{"metric": metric.name, "min": metric.min, "max": metric.max} for metric in one.plan.metrics]
        for said in {said["metric"]: said for said in (*own, *one.verdicts)}.values():
            bounds = {(name, said["metric"], bound): said[bound] for bound in ("min", "max")}
            limits.update({labels: bound for labels, bound in bounds.items() if bound is not None})
        values.update({(name, said["metric"]): said["value"] for said in one.verdicts if said["value"] is not None})
        outcomes.update(
            {(name, said["metric"], word): int(said["outcome"] == word) for said in one.verdicts for word in VERDICTS}
        )
    page.gauge("rollout_metric", "Value of the last check.", ("rollout", "metric"), values)
    page.gauge("rollout_metric_limit", "Limits of the metrics.", ("rollout", "metric", "bound"), limits)
    page.gauge("rollout_verdict", "1 for the last check's verdict.", ("rollout", "metric", "verdict"), outcomes)
    ended = {(one.plan.name, result): count for one in controllers for result, count in one.results.items()}
    page.counter("rollouts", "Runs that ended, by result.", ("rollout", "result"), ended)


def _configuration(page: Page, state: State) -> None:
    reloader = state.reloader
    good = not reloader.last or reloader.last.result != "failure"
    page.gauge("config_generation", "Generation of the configuration in force.", (), {(): state.generation})
    page.gauge("config_last_reload_success", "1 when the last reload was applied.", (), {(): int(good)})
    counts = {(result,): count for result, count in reloader.counts.items()}
    page.counter("config_reloads", "Reloads by result.", ("result",), counts)
    page.gauge("build_info", "1, with the version as its label.", ("version",), {(__version__,): 1})


def _workers(page: Page, signals: Signals, serving: int) -> None:
    connections, lag = signals.header_sum(stats.CONNECTIONS, living=True), signals.header_max(stats.LAG_NS) / 1e9
    page.gauge("downstream_connections", "Open connections of clients.", (), {(): connections})
    page.gauge("event_loop_lag_seconds", "How late the slowest worker's last tick was.", (), {(): lag})
    page.gauge("workers_ready", "Workers that serve the current configuration.", (), {(): serving})
    for name, text, cell in (
        ("downstream_accepted", "Connections accepted from clients.", stats.ACCEPTED),
        ("downstream_turned_away", "Connections over their listener's maxConnections.", stats.TURNED_AWAY),
        ("access_log_dropped", "Access log lines lost to a slow disk or pipe.", stats.LOG_DROPS),
        ("signal_overflows", "Series that found no room and were counted together.", stats.OVERFLOWS),
    ):
        page.counter(name, text, (), {(): signals.header_sum(cell)})


def _by_upstream(live: list[_Line], cell: int) -> dict[tuple[str, ...], float]:
    return _merge(((line.key[1], line.key[3]), line.cells[cell]) for line in live)


def _merge(items: Iterable[tuple[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
    merged: dict[tuple[str, ...], float] = defaultdict(float)
    for labels, value in items:
        merged[labels] += value
    return merged
