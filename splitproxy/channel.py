"""Messages between the processes: one JSON object each, with file descriptors beside it where one is handed over.

A channel is one end of an AF_UNIX SOCK_SEQPACKET pair, so a message arrives whole or not at all, and a killed peer
leaves no half of one. Large things (snapshots, statistics) travel as memfds.

    supervisor -> control   {"type": "serving", "generation": g} + [snapshot, description]: what was committed last;
                            first of all to a control that was started again
                            {"type": "worker", "slot": i, "pid": p} + [channel to that worker]
                            {"type": "worker-leaving", "slot": i}: it was asked to finish and is not wanted any more
                            {"type": "worker-gone", "slot": i, "pid": p}   {"type": "reload"}   {"type": "drain"}
                            {"type": "listening", "id": n, "addresses": {asked: bound}} or {..., "error": {asked: why}}
                            {"type": "settled", "generation": g}: `committed` is done; no worker starts from less
    control -> supervisor   {"type": "listen", "id": n, "addresses": [asked, ...], "workers": N}: bind what is new, keep
                            what is bound; all or nothing
                            {"type": "forget"}: close what was bound for a change that will not be committed
                            {"type": "committed", "generation": g, "addresses": [...], "workers": N, "drain": [delay,
                            timeout]} + [snapshot, description]: hand new listeners to the workers, release all others,
                            run N workers, give this snapshot to every new one; drain so, in seconds
                            {"type": "reloaded", "result": word, "generation": g}: a reload is over, g serves
                            {"type": "ready", "generation": g, "admin": url}: all workers serve
                            {"type": "failed"}: the first load failed; stop everything, exit 1
                            {"type": "drain"}: asked through the API
                            {"type": "alive"}: every ALIVE_SECONDS, whatever happens
    supervisor -> worker    {"type": "snapshot", "generation": g} + [memfd]: serve this at once; comes first
                            {"type": "listener", "address": asked} + [socket]: listen and accept here from now on
                            {"type": "release", "address": asked}: no new connection can begin on it; accept what is
                            queued and what arrives within RELEASE_SECONDS, then close it
                            {"type": "control"} + [channel], again whenever control is started anew
                            {"type": "reopen"}   {"type": "leaving"}: serve on, and close each connection politely
                            {"type": "drain", "seconds": n}: release all listeners, finish all requests, cut off after
                            n seconds (0: never) what is left, exit
    control -> worker       {"type": "prepare", "generation": g} + [memfd]      {"type": "commit", "generation": g}
                            {"type": "forget", "generation": g}: a prepared one that will not be committed
                            {"type": "spans"} + [socket]: where recorded requests go (`core/tracing.py` packs them)
    worker -> control       {"type": "hello", "slot": i, "generation": g or 0}
                            {"type": "prepared" | "committed", "generation": g}
                            {"type": "refused", "generation": g, "error": text}
                            {"type": "results", "results": [...]}: failures and slow requests of sides that are
                            compared, as they happen (`proxy/tallying.py`); may be lost
                            {"type": "pair", "rollout": name, "run": salt, "rule": name, "request": id,
                            "statuses": [...], "differences": [[place, kind, who, values...], ...]}: how the answers to
                            a request and to its copies differ (`proxy/pairs.py`); may be lost

A snapshot's memfd is one open file in all processes: read it with `os.pread` or a mapping, never by its position.
A child whose channel to the supervisor ends has lost its supervisor and exits.
"""

import fcntl
import json
import os
import socket
import sys
import termios
from collections.abc import Iterable
from typing import Any

Message = dict[str, Any]
RELEASE_SECONDS = 0.2
"""How long a released listener is still accepted from: handshakes under way come to their end."""
ALIVE_SECONDS = 2.0
"""How often control gives a sign of life."""
POLITE_SECONDS = 1.0
"""How long a draining worker lets idle connections be: who asks once more is answered with `Connection: close`."""
_MAX_MESSAGE = 1 << 20
_MAX_FDS = 64


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end: `send` and `receive` whole messages. Neither blocks longer than the socket is told to."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE)
        self.sock = sock

    @classmethod
    def from_fd(cls, fd: int) -> "Channel":
        """Take over an inherited or received descriptor."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the descriptor, for selectors and `loop.add_reader`."""
        return self.sock.fileno()

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send `message` with `fds` (which stay open here). Raises OSError when the peer is gone or does not read."""
        socket.send_fds(self.sock, [json.dumps(message, separators=(",", ":")).encode()], list(fds))

    def unread(self) -> int:
        """Return how many octets of what was sent the peer has not read yet, the kernel's own overhead included."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and the descriptors that came with it; None when the peer is gone.

        Raises BlockingIOError when the socket is non-blocking and nothing is there.
        """
        try:
            data, fds, _flags, _address = socket.recv_fds(self.sock, _MAX_MESSAGE, _MAX_FDS)
        except ConnectionError:
            return None
        if not data:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        return json.loads(data), fds

    def close(self) -> None:
        """Close this end."""
        self.sock.close()
