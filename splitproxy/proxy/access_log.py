"""The access log: one line a request, made from a template and written in batches off the request's path."""

import os
import select
import stat
import sys
from json.encoder import encode_basestring_ascii  # the C speed-up behind json.dumps
from time import gmtime, strftime, time  # noqa: TID251 - a log line carries wall time
from typing import TYPE_CHECKING, Final

from splitproxy.errors import ProxyError

if TYPE_CHECKING:
    from splitproxy.proxy.ending import Ending

_MAX_BUFFERED: Final = 4 << 20
"""Bytes kept while the disk or pipe does not keep up; beyond them lines are dropped and counted."""
_JSON: Final = (
    '{"time":"%s.%03dZ","requestId":%s,"client":%s,"method":%s,"host":%s,"target":%s,"protocol":%s,"status":%d,'
    '"route":%s,"rule":%s,"upstream":%s,"role":"%s","reason":%s,"endpoint":%s,"attempts":%d,"durationMs":%.3f,'
    '"upstreamMs":%s,"bytesIn":%d,"bytesOut":%d,"error":%s,"userAgent":%s}\n'
)


class AccessLog:
    """Where lines of one worker go. `flush` is called from the worker's tick."""

    def __init__(self, path: str, style: str) -> None:
        self.path, self.style = path, style
        self.dropped = 0
        self._lines: list[str] = []
        self._pending = b""
        self._second = 0
        self._stamp = ""
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        if self.path != "-":
            fd = os.open(self.path, flags | os.O_CREAT, 0o640)
        else:
            try:  # an open file of our own: not to block must not become a property of what others write to as well
                fd = os.open(f"/proc/self/fd/{sys.stdout.fileno()}", flags)
            except OSError:  # a socket, or no permission
                fd = os.dup(sys.stdout.fileno())
        # Workers share a pipe: no more than this goes into it in one piece (POSIX, PIPE_BUF).
        self._piece = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(fd).st_mode) else 65_536
        return fd

    def reopen(self) -> None:
        """Open the file again after a rotation (USR1)."""
        self.flush()
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh

    def close(self) -> None:
        """Write what is left and close."""
        self.flush()
        os.close(self._fd)

    def write(self, exchange: "Ending", elapsed: float) -> None:
        """Take one line."""
        milliseconds = self._stamp_now()
        if self.style == "json":
            self._lines.append(self._json(exchange, elapsed, milliseconds))
        else:
            self._lines.append(self._common(exchange))
        if len(self._lines) >= 512:
            self.flush()

    def _stamp_now(self) -> int:
        """Bring the time stamp up to this second; return the milliseconds beyond it."""
        now = time()
        second = int(now)
        if second != self._second:
            self._second = second
            pattern = "%Y-%m-%dT%H:%M:%S" if self.style == "json" else "%d/%b/%Y:%H:%M:%S +0000"
            self._stamp = strftime(pattern, gmtime(second))
        return int((now - second) * 1000)

    def take_dropped(self) -> int:
        """Return how many lines were lost since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def write_refusal(self, address: bytes, error: ProxyError, request_id: bytes) -> None:
        """Take a line for bytes that never became a request; none of them are shown."""
        milliseconds = self._stamp_now()
        if self.style == "json":
            known = (self._stamp, milliseconds, _quoted(request_id), _quoted(address), *["null"] * 4, error.status)
            unknown = ("null", "null", "null", "none", "null", "null", 0, 0.0, "null", 0, 0)
            self._lines.append(_JSON % (*known, *unknown, encode_basestring_ascii(error.code), "null"))
        else:
            self._lines.append(f'{address.decode()} - - [{self._stamp}] "-" {error.status} 0\n')

    def _json(self, exchange: "Ending", elapsed: float, milliseconds: int) -> str:
        head, rule, backend = exchange.head, exchange.rule, exchange.backend
        error, quote = exchange.error, encode_basestring_ascii
        charged = backend is not None and exchange.attempts > 0
        line = _JSON % (
            *(self._stamp, milliseconds, _quoted(exchange.request_id), _quoted(exchange.downstream.address)),
            *(
                _quoted(head.method),
                _quoted(head.host),
                _quoted(head.target),
                f'"HTTP/1.{head.minor}"',
                exchange.status,
            ),
            *(quote(rule.route) if rule else "null", quote(rule.name) if rule else "null"),
            *(quote(backend.upstream) if backend else "null", backend.role if backend and charged else "none"),
            f'"{exchange.reason}"' if exchange.reason else "null",
            *(_quoted(exchange.endpoint.name) if exchange.endpoint else "null", exchange.attempts),
            *(
                elapsed * 1000,
                _upstream_time(exchange, elapsed),
                exchange.bytes_in,
                exchange.bytes_out,
                quote(error.code) if error else "null",
            ),
            _quoted(head.field(b"user-agent") or b""),
        )
        if not exchange.traced:
            return line
        trace, span = (_quoted(given) if given else "null" for given in exchange.trace())
        return f'{line[:-2]},"traceId":{trace},"spanId":{span}}}\n'

    def _common(self, exchange: "Ending") -> str:
        head = exchange.head
        request = f"{_plain(head.method)} {_plain(head.target)} HTTP/1.{head.minor}"
        client = exchange.downstream.address.decode()
        line = f'{client} - - [{self._stamp}] "{request}" {exchange.status} {exchange.bytes_out}'
        if self.style == "combined":
            referer, agent = head.field(b"referer") or b"-", head.field(b"user-agent") or b"-"
            line += f' "{_plain(referer)}" "{_plain(agent)}"'
        return line + "\n"

    def flush(self) -> None:
        """Write what has gathered; keep the rest when the disk or pipe is full, within bounds."""
        if self._lines:
            text = "".join(self._lines).encode("ascii", "backslashreplace")
            if len(self._pending) + len(text) > _MAX_BUFFERED:
                self.dropped += len(self._lines)
            else:
                self._pending += text
            self._lines = []
        try:
            while self._pending:
                end = self._pending.rfind(b"\n", 0, self._piece) + 1
                self._pending = self._pending[os.write(self._fd, self._pending[: end or self._piece]) :]
        except OSError:
            pass  # EAGAIN, ENOSPC: tried again at the next tick, and dropped lines are counted


def _upstream_time(exchange: "Ending", elapsed: float) -> str:
    """Return the milliseconds from sending the last attempt to the end, null when there was none."""
    if not exchange.attempts:
        return "null"
    waited = exchange.attempt_started - exchange.started if exchange.attempt_started else 0.0
    return f"{(elapsed - waited) * 1000:.3f}"


def _quoted(value: bytes) -> str:
    return encode_basestring_ascii(value.decode("latin-1"))


def _plain(value: bytes) -> str:
    """Return `value` so that a quote, a control or an escape sequence in it cannot forge a line."""
    return encode_basestring_ascii(value.decode("latin-1"))[1:-1]
