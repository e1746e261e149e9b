"""Mirrored copies of requests: streamed beside the original, bounded in every way, and never in its way.

A copy has its own pool and deadline. Its answer is read and thrown away; its outcome is counted under the role
`mirror`. What cannot be copied whole is dropped and counted, never sent in part as if it were whole.
"""

from random import random
from time import perf_counter
from typing import TYPE_CHECKING

from splitproxy.core import stats
from splitproxy.core.fields import Field
from splitproxy.core.headers import MIRROR_MARK, is_mirrored
from splitproxy.core.requests import SAFE
from splitproxy.core.responses import ResponseHead
from splitproxy.errors import OutOfResources, ProxyError, UpstreamError
from splitproxy.proxy.upstream import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from splitproxy.core.routing import Mirror
    from splitproxy.proxy.exchange import Exchange
    from splitproxy.proxy.series import Series
    from splitproxy.proxy.service import Service
    from splitproxy.proxy.timers import Timed

_DROP = {reason: stats.DROP + index for index, reason in enumerate(stats.DROPS)}
_OUTCOME = {name: index for index, name in enumerate(stats.OUTCOMES)}


def start_copies(exchange: "Exchange", mirrors: "Iterable[Mirror]", head: bytes) -> "list[Copy]":
    """Send a copy of the request, whose head to an endpoint would be `head`, to each mirror that is due one."""
    started = (start_copy(exchange, mirror, head, Copy) for mirror in mirrors if due(mirror))
    return [copy for copy in started if copy is not None]


def due(mirror: "Mirror") -> bool:
    """Draw whether a mirror is to get a copy of a request."""
    return mirror.percent >= 100.0 or random() * 100.0 < mirror.percent


def start_copy(exchange: "Exchange", mirror: "Mirror", head: bytes, kind: "Callable[..., Copy]") -> "Copy | None":
    """Send a copy, made by `kind`, to one mirror; return it, None when it was dropped."""
    service, backend = exchange.service, mirror.backend
    if backend.series is None:
        backend.pool = service.upstream(backend.upstream, mirrors=True)
        backend.series = service.series(backend.key)
    reason = _refusal(exchange, mirror, backend.series.active)
    if reason:
        backend.series.add(_DROP[reason])
        return None
    marked = b"%b%b: %b\r\n\r\n" % (head[:-2], MIRROR_MARK, backend.upstream.encode())
    copy = kind(service, mirror, exchange.method, marked, exchange.downstream.address)
    copy.upload_done = exchange.upload is None
    return copy if copy.start() else None


def _refusal(exchange: "Exchange", mirror: "Mirror", in_flight: int) -> str:
    """Return why this request is not mirrored, or nothing."""
    head = exchange.head
    if not mirror.all_methods and head.method not in SAFE:
        return "method"
    if is_mirrored(head):
        return "loop"
    if head.content_length > mirror.max_body_bytes:
        return "body_too_large"
    if in_flight >= mirror.max_in_flight:
        return "in_flight"
    if head.upgrade:
        return "method"
    return ""


class Copy:
    """One mirrored request; a connection's user, like an exchange, but nobody waits for it."""

    __slots__ = (
        *(
            "_address",
            "_backlog",
            "_connection",
            "_over",
            "_series",
            "_size",
            "_started",
            "_waiting",
            "deadline",
            "method",
        ),
        *("mirror", "next_look", "service", "slot", "status", "upload_done"),
    )

    def __init__(self, service: "Service", mirror: "Mirror", method: bytes, head: bytes, address: bytes) -> None:
        self.service = service
        self.mirror = mirror
        self.method = method
        self.upload_done = False
        self.status = 0
        self.deadline = service.wheel.now + mirror.timeout
        self.next_look = 0.0
        self.slot: set[Timed] | None = None
        self._address = address
        self._backlog = [head]
        self._size = 0
        self._series: Series = mirror.backend.series
        self._connection: Connection | None = None
        self._waiting = False
        self._over = False
        self._started = 0.0

    def start(self) -> bool:
        """Ask for a connection; return whether there is a copy to feed."""
        self._series.active += 1
        self.service.note(self._series)
        self.service.wheel.watch(self)
        self._waiting = True
        try:
            connection = self.mirror.backend.pool.lease(self, self._address)
        except ProxyError:
            self._drop("no_endpoint")
            return False
        if connection is not None:
            self.on_connection(connection)
        return not self._over

    def write(self, data: bytes) -> None:
        """Send more of the body, or keep it until there is a connection; never more than the cap."""
        if self._over:
            return
        self._size += len(data)
        if self._size > self.mirror.max_body_bytes:
            self._drop("body_too_large")
        elif self._connection is None:
            self._backlog.append(data)
        elif self._connection.paused:
            self._drop("overrun")
        else:
            self._connection.write(data)

    def end(self) -> None:
        """The request is whole."""
        self.upload_done = True

    def cut(self) -> None:
        """The original ended before its body was whole: so does the copy."""
        if not self._over and not self.upload_done:
            self._drop("client_gone")

    # --- what the connection and the wheel say -----------------------------------------------------------------------
    def on_connection(self, connection: Connection) -> None:
        """Send what there is."""
        if not self._waiting:
            connection.endpoint.active -= 1
            connection.endpoint.upstream.released(connection.endpoint, connection)
            return
        self._waiting = False
        self._connection = connection
        self._started = perf_counter()
        connection.send(self, b"".join(self._backlog))
        self._backlog = []

    def on_interim(self, head: ResponseHead) -> None:
        """Ignore it."""

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Remember the status; the body is of no interest."""
        if head.status == 101:  # nothing was offered: upgrades are not mirrored
            self._abandon()
            self._finish("upstream_protocol_error")
            return
        self.status = head.status
        if trailers is not None:
            self.on_end(trailers)

    def on_whole(self, head: ResponseHead, body: bytes) -> None:
        """Remember the status; count the outcome."""
        self.status = head.status
        self.on_end([])

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Remember the status; the body is of no interest."""
        self.status = head.status

    def on_body(self, pieces: list[bytes]) -> None:
        """Ignore it."""

    def on_end(self, trailers: list[Field]) -> None:
        """Count the outcome."""
        self._series.add(stats.CODE + stats.CODE_INDEX[self.status])
        self._finish("5xx" if self.status >= 500 else "success")

    def on_failure(self, error: UpstreamError | OutOfResources) -> None:
        """Count the failure. A copy is never sent twice."""
        if self._connection is None:
            self._waiting = False
        if isinstance(error, UpstreamError):
            self._finish(error.code)
        else:
            self._drop("no_endpoint")

    def on_deadline(self, now: float) -> None:
        """Give up: it took too long. Only an endpoint that has the whole request is to blame for that."""
        if self._over:
            return
        if self._connection is None:
            self._drop("no_endpoint")
        elif not self.upload_done:
            self._drop("overrun")
        else:
            self._abandon()
            self._finish("upstream_timeout")

    def pause_upload(self) -> None:
        """Go on: `write` sees that the connection is full and drops the copy rather than wait."""

    def resume_upload(self) -> None:
        """Nothing to do."""

    # --- the end -----------------------------------------------------------------------------------------------------
    def _abandon(self) -> None:
        if self._waiting:
            self._waiting = False
            self.mirror.backend.pool.give_up(self)
        if self._connection is not None:
            self._connection.abandon()

    def _drop(self, reason: str) -> None:
        self._abandon()
        self._series.add(_DROP[reason])
        self._finish("")

    def _finish(self, outcome: str) -> None:
        """Count once and let go of everything."""
        if self._over:
            return
        self._over = True
        self._series.active -= 1
        self.service.note(self._series)
        if outcome:
            answered = self.status > 0 or outcome == "upstream_timeout"
            self._series.attempt(_OUTCOME[outcome], perf_counter() - self._started if answered else None)
        if self._connection is not None:
            self._connection.endpoint.active -= 1
            self._connection = None
        self._backlog = []
        self.service.wheel.forget(self)
