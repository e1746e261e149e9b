"""How a request ends: early or late, in whatever way, exactly once, with one outcome, and one of each attempt."""

from asyncio import TimerHandle
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Final

from splitproxy.core import stats
from splitproxy.core.requests import RequestHead
from splitproxy.errors import (
    BadRequest,
    ClientGone,
    InternalError,
    ProxyError,
    UpstreamError,
)
from splitproxy.proxy.answers import answer, error_answer
from splitproxy.proxy.upload import Upload
from splitproxy.proxy.upstream import Connection

if TYPE_CHECKING:
    from splitproxy.core.filters import Redirect
    from splitproxy.core.routing import Rule, Timeouts
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.downstream import Downstream
    from splitproxy.proxy.pairs import Pair
    from splitproxy.proxy.pool import Endpoint
    from splitproxy.proxy.series import Series
    from splitproxy.proxy.service import Service

NEVER: Final = 86_400.0
"""Seconds that stand for a timeout that is off."""
OUTCOME: Final = {name: index for index, name in enumerate(stats.OUTCOMES)}
SUCCESS, SERVER_ERROR = OUTCOME["success"], OUTCOME["5xx"]
REASON_CELL: Final = {reason: stats.REASON + index for index, reason in enumerate(stats.REASONS)}


class Ending:
    """What every exchange carries, and every way it may end."""

    __slots__ = (
        *("_attempt_deadline", "_request_deadline", "_waiting", "attempt_started", "attempts", "backend", "begun"),
        *("bytes_out", "client", "connection", "downstream", "endpoint", "error", "finished", "head", "keep_alive"),
        *(
            "method",
            "pair",
            "reason",
            "request_id",
            "rule",
            "series",
            "service",
            "started",
            "status",
            "timed",
            "timeouts",
            "timer",
        ),
        *("upload", "upload_done"),
    )

    downstream: "Downstream"
    service: "Service"
    head: RequestHead
    method: bytes
    request_id: bytes
    keep_alive: bool
    reason: str
    """Why it goes where it goes: one of `stats.REASONS`, or nothing."""
    started: float
    status: int
    attempts: int
    bytes_out: int
    finished: bool
    upload_done: bool
    _request_deadline: float
    _attempt_deadline: float
    rule: "Rule | None"
    backend: "Backend | None"
    series: "Series | None"
    """Where its outcome is counted, once it is known which upstream it goes to."""
    connection: Connection | None
    endpoint: "Endpoint | None"
    """Of the last attempt."""
    upload: Upload | None
    timeouts: "Timeouts"
    error: ProxyError | None
    client: int
    """The hash of its client, where its side is that client's."""
    pair: "Pair"
    """What its answer is compared in; exchanges that are compared with their copies alone have one."""
    attempt_started: float
    """0: with the request, or so soon after that it makes no difference."""
    begun: bool
    """Whether the head of the answer has been sent: then it is too late for another status."""
    timed: bool
    """Whether its duration says something about the upstream: not so for event streams and tunnels."""
    traced: ClassVar[bool] = False
    """Whether it belongs to a trace."""
    lines: bytes = b""
    """What it is sent with beside the lines of its connection, once it has been sent for the first time."""
    _waiting: bool
    """For a connection."""
    timer: TimerHandle | None
    """What the request is held for: a back-off, or a fault."""

    def trace(self) -> tuple[bytes, bytes]:
        """Return the ids of its trace and of our span of it; empty ones where there is none."""
        return b"", b""

    @property
    def bytes_in(self) -> int:
        """What has come from the client so far."""
        return len(self.head.raw) + (0 if self.upload is None else self.upload.size)

    def _expect_within(self, seconds: float) -> None:
        """Have `on_deadline` called unless something happens within `seconds` (0: no limit)."""
        downstream = self.downstream
        deadline = self.service.wheel.now + (seconds or NEVER)
        if self._request_deadline and self._request_deadline < deadline:
            deadline = self._request_deadline
        if self._attempt_deadline and self._attempt_deadline < deadline:
            deadline = self._attempt_deadline
        downstream.deadline = deadline
        if deadline < downstream.next_look:
            self.service.wheel.watch(downstream)

    def past_deadline(self, moment: float) -> bool:
        """Return whether `timeouts.request` will have passed at that moment of the loop's clock."""
        return bool(self._request_deadline) and moment >= self._request_deadline

    def hold(self, seconds: float, then: Callable[[], None]) -> None:
        """Go on with `then` in so many seconds, unless the request ends before."""
        if not self.upload_done:
            self.downstream.pause()
        self._attempt_deadline = 0.0
        self._expect_within(0.0)
        self.timer = self.service.loop.call_later(seconds, self._go_on, then)

    def _go_on(self, then: Callable[[], None]) -> None:
        self.timer = None
        try:
            then()
        except Exception:
            self.service.log_bug("after a request was held")
            self.refuse(InternalError("a defect of the proxy; its log has the details"))

    # --- how it may end early ----------------------------------------------------------------------------------------
    def on_client_eof(self) -> bool:
        """Take the client's half-close; return whether to keep its connection for the answer."""
        if not self.upload_done:
            self.refuse(BadRequest("the connection ended within the body"))
        elif not self.downstream.buffer:  # else requests that came behind this one wait for their turn
            self.keep_alive = False
        return True

    def on_client_gone(self) -> None:
        """The client's connection is lost."""
        if not self.finished:
            self.error = ClientGone()
            self.status = 499
            self._give_up(OUTCOME["client_gone"])
            self.finish()

    def _give_up(self, outcome: int) -> None:
        """Drop the attempt under way, if any."""
        if self._waiting:
            self._waiting = False
            assert self.backend is not None
            self.backend.pool.give_up(self)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.drop_attempt(outcome)

    def drop_attempt(self, outcome: int) -> None:
        """Count the attempt under way, if any, and give up its connection, unless that is back in its pool."""
        connection = self.connection
        if connection is not None:
            self._end_attempt(outcome)
            if connection.user is not None:
                connection.abandon()

    @property
    def opening(self) -> bool:
        """Whether a connection is being opened for it, which has a time limit of its own; else it waits in a queue."""
        return self._waiting and self.backend is not None and self not in self.backend.pool.waiting

    def charge_hang(self) -> None:
        """Charge the attempt under way, now that `timeouts.request` is over, if the upstream had half of it or more.

        A canary that never answers would else be nobody's failure, wherever that is the time limit which strikes first.
        """
        series, upload = self.series, self.upload
        if self.begun or series is None:
            return
        if self.connection is not None:
            begun = max(self.attempt_started or self.started, 0.0 if upload is None else upload.ended)
            if self.upload_done and perf_counter() - begun >= self.timeouts.request / 2:
                self.drop_attempt(OUTCOME["upstream_timeout"])
        elif self.opening and not self.attempts:
            self.attempts = 1
            series.attempt(OUTCOME["connect_timeout"], None, self)

    def refuse(self, error: ProxyError) -> None:
        """Answer with `error`; once the answer has begun, all that is left is to cut it off."""
        if self.finished:
            return
        self.error = error
        self._give_up(OUTCOME["cancelled"])
        if self.begun:
            self.keep_alive = False
            self.downstream.reset()
            self.finish()
            return
        if error.closes or not self.upload_done:
            self.keep_alive = False
        if not isinstance(error, UpstreamError):
            self._count_locally()
        close, bodiless = not self.keep_alive, self.method == b"HEAD"
        data = error_answer(error, self.request_id, self.service.date(), close=close, bodiless=bodiless)
        self._answer(error.status, data)

    def redirect(self, redirect: "Redirect") -> None:
        """Answer with a redirect; the port it may name is the listener's (Gateway API, HTTPRequestRedirectFilter)."""
        path, _, query = self.head.target.partition(b"?")
        location = redirect.location(self.downstream.scheme, self.head.host, self.downstream.port, path, query)
        self.keep_alive = self.keep_alive and self.upload_done
        data = answer(redirect.status, b"Location: %b\r\n" % location, b"", self.service.date(), not self.keep_alive)
        self._count_locally()
        self._answer(redirect.status, data)

    def _count_locally(self) -> None:
        """Count the outcome as nobody's: what is ours is never charged to an upstream."""
        rule = self.rule
        if self.series is not None:
            self.series.active -= 1
            self.backend = None
        key = stats.OVERFLOW_KEY if rule is None else (stats.SERIES, rule.route, rule.name, "", "none")
        self.series = series = self.service.series(key)
        series.active += 1
        self.service.note(series)

    def _answer(self, status: int, data: bytes) -> None:
        self.status = status
        self.begun = True
        if not self.downstream.closed:
            self.bytes_out += len(data)
            self.downstream.transport.write(data)
        self.finish()

    def close_tunnel(self, bytes_out: int) -> None:
        """Take note that the tunnel this exchange became is over."""
        self.bytes_out += bytes_out
        self._end_attempt(SUCCESS)
        self.keep_alive = False
        self.finish()

    # --- finish ------------------------------------------------------------------------------------------------------
    def _end_attempt(self, outcome: int) -> None:
        """Count an attempt at once and let go of its connection."""
        connection, series = self.connection, self.series
        assert connection is not None
        assert series is not None
        self.connection = None
        connection.endpoint.active -= 1
        if outcome > SERVER_ERROR and self.status < 500:  # a 5xx was noticed when its head came
            if outcome < OUTCOME["client_gone"]:
                connection.endpoint.blame()
            else:
                connection.endpoint.excuse()
        if self.attempts > 1:  # what upstreams do is judged by first attempts: later ones are a choice of ours
            return
        counts = self.timed and outcome < OUTCOME["client_gone"]
        elapsed = perf_counter() - (self.attempt_started or self.started)
        series.attempt(outcome, elapsed if counts else None, self)

    def finish(self) -> None:
        """Count the one outcome of this request at once, and go on."""
        elapsed = perf_counter() - self.started
        if self.series is None:  # nothing was routed: the client left, or its body was refused at the door
            self._count_locally()
        series = self.series
        assert series is not None
        series.request(self.status, elapsed if self.timed else None, self.bytes_in, self.bytes_out)
        if self.backend is not None:
            series.add(REASON_CELL[self.reason])
        series.active -= 1
        self.service.note(series)
        self._close(elapsed)

    def _close(self, elapsed: float) -> None:
        """Let the client's connection go on; runs once for every request."""
        self.finished = True
        if not self.upload_done:  # an early answer: the rest of the body is of no use to anybody
            self.keep_alive = False
            if self.upload is not None:
                self.upload.cut_copies()
        access_log = self.service.access_log
        if access_log is not None:
            access_log.write(self, elapsed)
        self.downstream.done(self.keep_alive)
