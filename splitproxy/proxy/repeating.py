"""Attempts that are no plain ones: requests sent again after a failure, and faults that strike on purpose.

A request is replayed (no attempt of its own), retried, or failed over to the primary; whether, where to and when is
decided in `core/retry.py`, here it is done.

A rule's fault strikes once, before any upstream has a part in it: an abort is nobody's outcome, a delay nobody's time.
That of a backendRef strikes each attempt at its upstream, and looks as if the upstream had done it: it is counted as
the attempt's outcome and time, may be followed by a failover or a retry, and makes a rollout fail as a real one would.
"""

from functools import partial
from random import random
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.requests import IDEMPOTENT
from splitproxy.core.retry import KEPT_BYTES, Failed, Repeats
from splitproxy.errors import InjectedFault, InjectedUpstreamFault, ProxyError, UpstreamError, UpstreamReset
from splitproxy.proxy.filtering import filter_request

if TYPE_CHECKING:
    from splitproxy.core.filters import Fault
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.exchange import Exchange

_SUCCESS: Final = stats.OUTCOMES.index("success")
_SERVER_ERROR: Final = stats.OUTCOMES.index("5xx")


def may_replay(exchange: "Exchange", error: UpstreamError) -> bool:
    """Return whether a kept-alive connection died under the request before the endpoint can have acted on it unseen."""
    connection = exchange.connection
    return (
        connection is not None
        and connection.reused
        and isinstance(error, UpstreamReset)
        and error.silent
        and not exchange.replayed
        and exchange.upload_done
        and exchange.method in IDEMPOTENT
        and 0 < len(exchange.out) <= KEPT_BYTES
    )


def replay(exchange: "Exchange") -> None:
    """Send the request once more, on a new connection (RFC 9112 §9.3.1)."""
    connection, backend, series = exchange.connection, exchange.backend, exchange.series
    assert connection is not None
    assert backend is not None
    assert series is not None
    exchange.replayed = True
    exchange.connection = None
    exchange.attempts -= 1
    connection.endpoint.active -= 1
    connection.endpoint.excuse()
    series.add(stats.REPLAYS)
    try:
        fresh = backend.pool.lease(exchange, exchange.downstream.address, True)
    except ProxyError as refusal:
        exchange.refuse(refusal)
        return
    if fresh is None:
        exchange.wait()
    else:
        exchange.send(fresh)


# --- failover and retry ----------------------------------------------------------------------------------------------
def repeated(exchange: "Exchange", status: int, *, unsent: bool = False) -> bool:
    """Have another attempt made after one that failed, if the rule wants that; return whether it will be.

    `status` is that of the answer, of which nothing has been relayed, 0 if there was none; `unsent` says that no
    connection could be made. An attempt that is still under way is counted and dropped.
    """
    rule, backend = exchange.rule, exchange.backend
    if rule is None or rule.repeats is None or backend is None or exchange.begun or exchange.finished:
        return False
    primary = _primary(rule, backend)
    if primary is not None and not _reachable(exchange, primary):
        primary = None
    upload = exchange.upload
    failed = Failed(
        status,
        unsent,
        idempotent=exchange.method in IDEMPOTENT,
        kept=upload is None or upload.repeatable,
        canary=primary is not None,
        moved=exchange.failed_over,
        retries=exchange.retries,
    )
    step = rule.repeats.step(failed)
    wait = _patience(exchange, backend, rule.repeats) if step == "retry" else 0.0
    if step is None or wait is None:
        return False
    exchange.status = status  # for those who are told of the attempt; the request has none yet
    exchange.drop_attempt(_SERVER_ERROR if status >= 500 else _SUCCESS)
    exchange.status = 0
    if primary is not None and step == "failover":
        _move(exchange, rule, backend, primary)
    else:
        exchange.retries += 1
        backend.series.add(stats.RETRIES)
    if upload is not None:
        upload.rewind()
    if wait:
        exchange.hold(wait, partial(_begin_again, exchange))
    else:
        _begin_again(exchange)
    return True


def _primary(rule: "Rule", backend: "Backend") -> "Backend | None":
    """Return where requests that failed at `backend` go on to: None unless it is a canary and there is a primary."""
    if backend.role != "canary":
        return None
    if rule.live is None:
        return next((other for other in rule.split.backends if other.role == "primary"), None)
    for pair in (rule.live.pair(swapped=False), rule.live.pair(swapped=True)):
        if backend.plain in pair:  # with the roles that both had when the request was placed
            return next(other for other in pair if other.role == "primary")
    return None


def _reachable(exchange: "Exchange", primary: "Backend") -> bool:
    """Return whether `primary` has a usable endpoint; a reload may even have taken away a pool that was never used."""
    if primary.pool is None:
        try:
            primary.pool = exchange.service.upstream(primary.upstream)
        except KeyError:
            return False
    return bool(primary.pool.usable)


def _patience(exchange: "Exchange", backend: "Backend", repeats: Repeats) -> float | None:
    """Return the seconds until the next retry; None: it would come too late, or one too many."""
    now = exchange.service.loop.time()
    wait = repeats.wait(exchange.retries + 1, random())
    if exchange.past_deadline(now + wait):
        return None
    return wait if backend.pool.budget.take(now, backend.pool.requested) else None


def _move(exchange: "Exchange", rule: "Rule", canary: "Backend", primary: "Backend") -> None:
    """Make the request one of the primary's: what has become of it at the canary is counted there as an attempt."""
    service, series = exchange.service, exchange.series
    assert series is not None
    series.active -= 1
    service.note(series)
    if primary.series is None:
        primary.series = service.series(primary.key)
    exchange.backend, exchange.series, exchange.endpoint = primary, primary.series, None
    primary.series.active += 1
    service.note(primary.series)
    exchange.reason = "failover"
    exchange.failed_over = True
    block = service.region.block((stats.FAILOVER, rule.route, canary.upstream, primary.upstream))
    service.cells[block + stats.FAILOVERS] += 1


# --- one more attempt ------------------------------------------------------------------------------------------------
def _begin_again(exchange: "Exchange") -> None:
    """Make another attempt, with the head that the present backend is to get."""
    rule, backend = exchange.rule, exchange.backend
    assert rule is not None
    assert backend is not None
    out = filter_request(exchange, rule, backend, copies=False)
    if out is not None:
        exchange.out = out
        if backend.fault is None or not injected(exchange):
            _attempt(exchange)


def _attempt(exchange: "Exchange") -> None:
    """Send on an idle connection, or as soon as there is one."""
    backend = exchange.backend
    assert backend is not None
    try:
        connection = backend.pool.lease(exchange, exchange.downstream.address)
    except ProxyError as error:
        exchange.refuse(error)
        return
    exchange.wait()
    if connection is not None:
        exchange.on_connection(connection)


# --- faults ----------------------------------------------------------------------------------------------------------
def injected(exchange: "Exchange", fault: "Fault | None" = None) -> bool:
    """Draw the faults of an attempt, those of the rule's `fault` too; return whether they decide how it goes on."""
    backend = exchange.backend
    assert backend is not None
    delay = held = 0.0
    status = upstream_status = 0
    if fault is not None:
        delay, status = fault.draw(random(), random())
    if backend.fault is not None and not status:
        held, upstream_status = backend.fault.draw(random(), random())
    exchange.held = held
    if not (delay or held or status or upstream_status):
        return False
    then = partial(_strike, exchange, status, upstream_status)
    if delay + held:
        exchange.hold(delay + held, then)
    else:
        then()
    return True


def _strike(exchange: "Exchange", status: int, upstream_status: int) -> None:
    """Abort with one of the statuses (0: not), or let the attempt begin."""
    if status:
        exchange.refuse(InjectedFault(status))
    elif not upstream_status:
        _attempt(exchange)
    else:
        series = exchange.series
        assert series is not None
        exchange.attempts += 1
        if exchange.attempts == 1:
            series.attempt(_SERVER_ERROR if upstream_status >= 500 else _SUCCESS, None, exchange)
        if not repeated(exchange, upstream_status):
            exchange.refuse(InjectedUpstreamFault(upstream_status))
