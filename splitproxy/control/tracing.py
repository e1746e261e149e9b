"""Spans on their way from the workers to a receiver of OTLP/HTTP: queued, sent in batches, tried again, or dropped.

Nobody waits for this, and it may lose what it has: a receiver that is slow or gone costs the proxy a bounded queue and
a line in its log, and what was lost is counted.
"""

import asyncio
import collections
import contextlib
import logging
import socket
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import aiohttp

from splitproxy import __version__
from splitproxy.control import otlp, outbound
from splitproxy.control.exemplars import Exemplar, Exemplars
from splitproxy.control.link import Link
from splitproxy.core import stats
from splitproxy.core.tracing import Span, unpack

log = logging.getLogger(__name__)

MOST_QUEUED: Final = 4096
"""Recorded requests that wait to be sent; further ones are dropped."""
_BATCH: Final = 256
"""Recorded requests in one request to the receiver."""
GATHER: Final = 1.0
"""Seconds for which a batch that is not full is gathered."""
TRIES: Final = 5
"""How often a batch is sent before it is given up."""
_RETRYABLE: Final = frozenset((429, 502, 503, 504))
"""Statuses after which to try again (OTLP/HTTP, "Failures")."""
_FAREWELL: Final = 1.5
"""Seconds for which control goes on sending when it ends."""
_MESSAGE: Final = 1 << 20
RESULTS: Final = ("exported", "rejected", "failed", "dropped")
"""What becomes of spans: taken, or refused by the receiver; given up after the last try; no room for them here."""


class Tracing:
    """The spans of all workers."""

    def __init__(self, exemplars: Exemplars) -> None:
        """`exemplars` are told of each recorded request."""
        self.counts = dict.fromkeys(RESULTS, 0)
        """Spans by what became of them, those that workers dropped not included."""
        self._exemplars = exemplars
        self._plan: Mapping[str, Any] | None = None
        self._queue: collections.deque[Span] = collections.deque()
        self._filled = asyncio.Event()
        self._sources: set[socket.socket] = set()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def use(self, plan: Mapping[str, Any] | None) -> None:
        """Go by the block `tracing` of a plain snapshot from now on; None: nothing is traced any more."""
        self._plan = plan
        if plan is None:
            self._queue.clear()
        elif self._task is None:
            self._task = asyncio.create_task(self._export())

    # --- from the workers --------------------------------------------------------------------------------------------
    def join(self, worker: Link) -> None:
        """Take the spans of a worker, for as long as it lives."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        worker.send({"type": "spans"}, [theirs.fileno()])
        theirs.close()
        self._sources.add(ours)
        asyncio.get_running_loop().add_reader(ours, self._read, ours)

    def _read(self, source: socket.socket) -> None:
        """Take all that a worker has sent; forget it once it is gone."""
        with contextlib.suppress(BlockingIOError):
            while message := _received(source):
                self._take(unpack(message))
            self._forget(source)

    def _forget(self, source: socket.socket) -> None:
        self._sources.remove(source)
        asyncio.get_running_loop().remove_reader(source)
        source.close()

    def _take(self, spans: list[Span]) -> None:
        for span in spans:
            if self._plan is None:
                return
            if len(self._queue) >= MOST_QUEUED:
                self.counts["dropped"] += count([span])
                continue
            self._queue.append(span)
            key = (stats.SERIES, span.route, span.rule, span.upstream, span.role)
            code = stats.CODES[stats.CODE_INDEX[span.status]]
            self._exemplars.note(
                key, code, Exemplar(span.trace.decode(), (span.end - span.start) / 1e9, span.end / 1e9)
            )
        if self._queue:
            self._filled.set()

    # --- to the receiver ---------------------------------------------------------------------------------------------
    async def _export(self) -> None:
        async with outbound.session() as session:
            while True:
                await self._filled.wait()
                if len(self._queue) < _BATCH:
                    await asyncio.sleep(GATHER)
                batch = self._next_batch()
                try:
                    await self._deliver(session, batch, TRIES)
                except asyncio.CancelledError:  # the end: there is one more try
                    self._queue.extendleft(reversed(batch))
                    raise

    def _next_batch(self) -> list[Span]:
        batch = list(islice(self._queue, _BATCH))
        for _ in batch:
            self._queue.popleft()
        if not self._queue:
            self._filled.clear()
        return batch

    async def _deliver(self, session: aiohttp.ClientSession, batch: list[Span], tries: int) -> None:
        """Send a batch until it is taken, refused, or tried often enough."""
        for attempt in range(tries):
            reply = await self._send(session, batch)
            if reply is None or self._settled(reply, batch):
                return
            if attempt + 1 < tries:
                await asyncio.sleep(outbound.wait(attempt, reply))
        self.counts["failed"] += count(batch)

    async def _send(self, session: aiohttp.ClientSession, batch: list[Span]) -> outbound.Reply | None:
        """Send a batch once and return the answer; None: there is nothing to send, or nothing is traced any more."""
        plan = self._plan
        if plan is None or not batch:
            return None
        resource = {"service.name": plan["serviceName"], "service.version": __version__, **plan["resource"]}
        headers = outbound.merged(plan["headers"], {"Content-Type": "application/json"})
        body = await asyncio.to_thread(otlp.payload, batch, resource)
        return await outbound.send(session, outbound.Request(plan["endpoint"], headers, plan["timeout"], body))

    def _settled(self, reply: outbound.Reply, batch: list[Span]) -> bool:
        """Count a batch for good, and return True, unless it is to be sent again; say when this begins and ends."""
        spans = count(batch)
        if reply.status is not None and 200 <= reply.status < 300:
            refused, why = otlp.rejected(reply.text)
            refused = min(refused, spans)
            self.counts["rejected"] += refused
            self.counts["exported"] += spans - refused
            self._say(f"{refused} of {spans} spans were rejected: {outbound.shown(why)}" if refused else "")
            return True
        retryable = reply.status is None or reply.status in _RETRYABLE
        self._say(reply.text if reply.status is None else f"HTTP {reply.status}: {outbound.shown(reply.text, 200)}")
        if not retryable:
            self.counts["rejected"] += spans
        return not retryable

    def _say(self, failure: str) -> None:
        """Log the first failure of a row, and its end."""
        if bool(failure) != self._failing and self._plan is not None:
            self._failing = bool(failure)
            endpoint = self._plan["endpoint"]
            more = {"fields": {"endpoint": endpoint, **self.counts}}
            if failure:
                log.warning("spans do not reach %s: %s", endpoint, failure, extra=more)
            else:
                log.info("spans reach %s again", endpoint, extra=more)

    async def close(self) -> None:
        """Send what there still is, if that goes fast."""
        for source in list(self._sources):
            self._read(source)
        for source in list(self._sources):
            self._forget(source)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL), outbound.session() as session:
                    while batch := self._next_batch():
                        await self._deliver(session, batch, 1)


def count(spans: list[Span]) -> int:
    """Return how many spans recorded requests are: each, and its attempts."""
    return sum(1 + len(span.calls) for span in spans)


def _received(source: socket.socket) -> bytes:
    """Return the next message, empty when the worker is gone. Raises BlockingIOError when there is none yet."""
    try:
        return source.recv(_MESSAGE)
    except ConnectionError:
        return b""
