"""The admin API's answers, built from `State`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from splitproxy import __version__
from splitproxy.control import endpoints
from splitproxy.control.signals import Signals, Values, Window
from splitproxy.control.state import State
from splitproxy.core import stats
from splitproxy.core.stats import Key

_WINDOWS: Final = (10, 60)


def config(state: State, *, brief: bool = False) -> dict[str, Any]:
    """Return what runs, from which files, and how the last reload went; `brief` without what the files say."""
    running, last = state.running, state.reloader.last
    said = {} if brief else {"config": running.public() if running else None}
    return {
        "version": __version__,
        "generation": state.generation,
        "checksum": running.checksum if running else None,
        **said,
        "listeners": running.listeners if running else [],
        "sources": running.sources if running else [],
        "warnings": running.warnings if running else [],
        "lastReload": last.to_dict() if last else None,
        "workers": [
            {"slot": worker.slot, "pid": worker.pid, "generation": worker.generation, "leaving": worker.leaving}
            for worker in list(state.publisher.workers.values())
        ],
    }


def upstreams(state: State) -> list[dict[str, Any]]:
    """Return every upstream's endpoints as configured, and the addresses in use, the mirrors' connections apart."""
    plain, signals = _plain(state), state.signals
    signals.refresh()
    seen: dict[str, list[Key]] = defaultdict(list)
    for key in signals.endpoints():
        if signals.gauge((key,), stats.ENDPOINT_NAMED):
            seen[key[1]].append(key)
    return [
        {
            "name": upstream["name"],
            "loadBalancing": upstream["loadBalancing"],
            "endpoints": [{"url": one["url"], "weight": one["weight"]} for one in upstream["endpoints"]],
            "addresses": [_address(signals, key) for key in sorted(seen[upstream["name"]])],
        }
        for upstream in plain["upstreams"]
    ]


def _address(signals: Signals, key: Key) -> dict[str, Any]:
    cells = signals.total(key)
    return {
        "address": key[2],
        "mirror": key[3] == "mirror",
        **endpoints.standing(signals, key).to_dict(),
        "inFlight": cells[stats.ENDPOINT_ACTIVE],
        "idle": cells[stats.ENDPOINT_IDLE],
        "open": cells[stats.ENDPOINT_OPEN],
        "pending": cells[stats.ENDPOINT_PENDING],
        "requests": cells[stats.ENDPOINT_REQUESTS],
        "connects": cells[stats.ENDPOINT_CONNECTS],
        "connectFailures": cells[stats.ENDPOINT_CONNECT_FAILURES],
    }


def chosen(state: State, only: str | None = None, contains: str = "") -> list[dict[str, Any]]:
    """Return the plain routes: every one, the one called `only`, or those with a text in their name or a host name."""
    wanted = contains.lower()
    return [
        route
        for route in _plain(state)["routes"]
        if (only is None or route["name"] == only) and any(wanted in name for name in _names(route))
    ]


def _names(route: dict[str, Any]) -> Iterator[str]:
    return (name.lower() for name in (route["name"], *route["hostnames"]))


def routes(state: State, which: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return these plain routes, or every one, with what was configured and what was observed."""
    signals = state.signals
    signals.refresh()
    backends: dict[tuple[str, str], dict[tuple[str, str], float | None]] = defaultdict(dict)
    for share in state.shares():
        backends[share.route, share.rule][share.upstream, share.role] = share.percent
    for key in signals.known():
        if key[0] == stats.SERIES and key[3]:
            backends[key[1], key[2]].setdefault((key[3], key[4]))
    return [
        {
            "name": route["name"],
            "hostnames": route["hostnames"],
            "rules": [
                {
                    "name": rule["name"],
                    "matches": rule["matches"],
                    "backends": [
                        _backend(signals, (stats.SERIES, route["name"], rule["name"], *which), weight)
                        for which, weight in backends[route["name"], rule["name"]].items()
                    ],
                }
                for rule in route["rules"]
            ],
        }
        for route in (chosen(state) if which is None else which)
    ]


def _backend(signals: Signals, key: Key, weight: float | None) -> dict[str, Any]:
    """Return one upstream of a rule; its weight is None where it has no share: mirrors and targets of overrides."""
    cells = signals.total(key)
    return {
        "name": key[3],
        "role": key[4],
        "weight": weight,
        "inFlight": cells[stats.IN_FLIGHT],
        "assignments": _words(cells, stats.REASON, stats.REASONS),
        "attempts": _words(cells, stats.OUTCOME, stats.OUTCOMES),
        "signals": {f"{seconds}s": signal(signals.window(key, seconds)) for seconds in _WINDOWS},
    }


def _words(cells: Values, first: int, words: Iterable[str]) -> dict[str, int]:
    return {word: cells[place] for place, word in enumerate(words, first) if cells[place]}


def signal(window: Window) -> dict[str, float | int | None]:
    """Return the golden signals of a window: rates per second, shares of 1, durations in seconds; None is no data."""
    requests, failures = window.requests, window.failures
    return {
        "seconds": round(window.seconds, 3),
        "requests": requests,
        "rate": round(requests / window.seconds, 3) if window.seconds else None,
        "successRate": 1 - failures / requests if requests else None,
        "errorRate": failures / requests if requests else None,
        "attempts": window.attempts,
        "attemptSuccessRate": window.succeeded / window.attempts if window.attempts else None,
        "p50": window.quantile(0.5),
        "p95": window.quantile(0.95),
        "p99": window.quantile(0.99),
    }


def _plain(state: State) -> dict[str, Any]:
    return state.running.plain() if state.running else {"upstreams": [], "routes": []}
