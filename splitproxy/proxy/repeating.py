"""Whether a request may be sent again after an attempt that failed, and how."""

from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.requests import IDEMPOTENT
from splitproxy.errors import ProxyError, UpstreamError, UpstreamReset

if TYPE_CHECKING:
    from splitproxy.proxy.exchange import Exchange

REPLAY_BYTES: Final = 65_536
"""A request longer than this is not kept for a second try."""


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
        and 0 < len(exchange.out) <= REPLAY_BYTES
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
