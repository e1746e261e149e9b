"""How connections come in at one address, and who takes them.

A plain listener is the event loop's own server. Any other is accepted from here, since what comes first on such a
connection is not HTTP: a PROXY header, read to its last byte and no further, then TLS.
"""

import asyncio
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Final

from splitproxy.channel import RELEASE_SECONDS
from splitproxy.core.forwarding import Trust
from splitproxy.core.proxy_protocol import MAX_BYTES, Origin, measure, parse
from splitproxy.core.snapshot import ListenerPlan
from splitproxy.errors import BadProxyHeader, TooManyConnections
from splitproxy.proxy.crowd import new_crowd
from splitproxy.proxy.downstream import Downstream
from splitproxy.proxy.edge import FAREWELL, EdgeDownstream
from splitproxy.proxy.encryption import GOODBYE
from splitproxy.tls import ServerSide, in_words

if TYPE_CHECKING:
    from splitproxy.proxy.service import Service

BACKLOG: Final = 4096
_AT_ONCE: Final = 64
"""Connections accepted before others are served again."""
_PAUSE: Final = 1.0
"""Seconds without accepting after the system had no descriptor left."""
_MOMENT: Final = 0.2
"""Seconds without accepting while descriptors are short, until that is looked at again."""
_log = logging.getLogger("splitproxy.listener")


class Door:
    """What a listener's plan comes to; outlives snapshots that do not change it, and so do TLS sessions."""

    def __init__(self, plan: ListenerPlan) -> None:
        """Raise TlsError when a certificate cannot be used."""
        self.plan = plan
        self.server = None if plan.tls is None else ServerSide(plan.tls)
        self.trust = Trust(plan.trusted)
        self.immediate = plan.tls is None and not plan.proxy_protocol
        """Whether nothing comes before HTTP."""
        self.plain = self.immediate and not plan.trusted


class Entrance:
    """A listening socket in use."""

    def __init__(self, service: "Service", address: str, sock: socket.socket) -> None:
        """Take over `sock`, which is bound."""
        sock.setblocking(False)
        self._service, self._loop = service, service.loop
        self._address, self._sock = address, sock
        self._door = service.doors.get(address)
        """None: no snapshot in force here knows this address yet."""
        self._server: asyncio.Server | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._crowd = new_crowd(self._complain)
        self._pausing = False
        self._complaints = 0
        self._quiet_until = 0.0

    async def open(self) -> None:
        """Accept connections from now on, or as soon as it is known how."""
        self._pausing = False
        if self._door is None:
            return
        self._crowd.set_limit(self._door.plan.max_connections)
        if self._door.immediate:
            self._server = await self._loop.create_server(self._downstream, sock=self._sock, backlog=BACKLOG)
        else:
            self._sock.listen(BACKLOG)
            self._loop.add_reader(self._sock, self._accept)

    async def adapt(self) -> None:
        """Go by the door in force from the next connection on; of those that wait in the queue none is lost."""
        door = self._service.doors.get(self._address)
        if door is None:  # to be released in a moment
            return
        before, self._door = self._door, door
        self._crowd.set_limit(door.plan.max_connections)
        if before is None:
            await self.open()
        elif door.immediate is not before.immediate:
            sock = self._sock.dup()
            self._stop()
            self._sock = sock
            await self.open()

    async def release(self) -> None:
        """Accept what is queued, and what completes its handshake within a moment; then close (see supervisor)."""
        await asyncio.sleep(RELEASE_SECONDS)
        queue = self._sock.dup()
        queue.setblocking(False)
        self._stop()
        while True:
            try:
                connection, _ = queue.accept()
            except OSError:
                break
            self._welcome(connection)
        queue.close()
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=GOODBYE)

    def _downstream(self) -> Downstream:
        door = self._door
        assert door is not None
        if self._service.short_of_descriptors and not self._pausing:
            self._pausing = True
            self._loop.call_soon(self._pause)
        if door.plain:
            return Downstream(self._service, self._crowd)
        return EdgeDownstream(self._service, self._crowd, door, None)

    # --- too many --------------------------------------------------------------------------------------------------
    def _pause(self) -> None:
        """Accept nobody for a moment: who comes waits in the system's queue, and those who are here are served."""
        try:
            sock = self._sock.dup()
        except OSError:  # not even one is left: the event loop closes what comes; the next one has us ask again
            self._pausing = False
            return
        self._stop()
        self._sock = sock
        self._loop.call_later(_MOMENT, self._resume)

    def _resume(self) -> None:
        if not self._pausing or self._sock.fileno() < 0:  # opened anew, or released
            return
        if self._service.short_of_descriptors:
            self._loop.call_later(_MOMENT, self._resume)
            return
        task = self._loop.create_task(self.open())
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        else:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    # --- where something comes before HTTP ---------------------------------------------------------------------------
    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._service.short_of_descriptors:
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_MOMENT, self._accept_again, self._sock)
                return
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or memory left: asking at once again would only burn time
                _log.error("cannot accept on %s: %s", self._address, error.strerror)
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_PAUSE, self._accept_again, self._sock)
                return
            self._welcome(connection)

    def _accept_again(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock, self._accept)

    def _welcome(self, connection: socket.socket) -> None:
        assert self._door is not None
        self._service.arriving += 1
        task = self._loop.create_task(self._arrive(connection, self._door))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._service.arriving -= 1
        self._arriving.discard(task)

    async def _arrive(self, connection: socket.socket, door: Door) -> None:
        """Let a connection in once it has said what comes before HTTP."""
        connection.setblocking(False)
        crowd = self._crowd
        if door.server is not None and crowd.inside + len(self._arriving) > crowd.limit:
            connection.close()  # a handshake would cost more than any answer
            self._service.turned_away()
            self._complain(TooManyConnections(f"the listener has {crowd.limit} connections, which is its limit"))
            return
        try:
            origin = await self._origin(connection, door) if door.plan.proxy_protocol else None
            await self._let_in(connection, door, origin)
        except (BadProxyHeader, OSError) as error:
            connection.close()
            self._complain(error)
        except BaseException:
            connection.close()
            raise

    async def _let_in(self, connection: socket.socket, door: Door, origin: Origin | None) -> None:
        service, crowd = self._service, self._crowd
        if door.immediate:
            await self._loop.connect_accepted_socket(self._downstream, connection)
            return
        if door.server is None:
            await self._loop.connect_accepted_socket(lambda: EdgeDownstream(service, crowd, door, origin), connection)
            return
        await self._loop.connect_accepted_socket(
            lambda: EdgeDownstream(service, crowd, door, origin),
            connection,
            ssl=door.server.context,
            ssl_handshake_timeout=service.limits.header_timeout,
            ssl_shutdown_timeout=FAREWELL,
        )

    async def _origin(self, connection: socket.socket, door: Door) -> Origin | None:
        """Read a PROXY header and nothing behind it. Raises BadProxyHeader and OSError."""
        peer = str(connection.getpeername()[0])
        if door.trust and not door.trust.covers(peer.encode()):
            raise BadProxyHeader(f"{peer} is not one of trustedProxies")
        try:
            async with asyncio.timeout(self._service.limits.header_timeout):
                header = await self._header(connection)
        except TimeoutError:
            raise BadProxyHeader(f"no PROXY header from {peer} in time") from None
        return parse(header)

    async def _header(self, connection: socket.socket) -> bytes:
        header = b""
        while True:
            await self._until_readable(connection)
            # Looked at first and then taken as far as it is the header's: what follows is for TLS or HTTP to read.
            seen = connection.recv(MAX_BYTES, socket.MSG_PEEK)
            if not seen:
                raise ConnectionResetError("closed before a PROXY header came")
            length = measure(header + seen)
            size = min(length - len(header), len(seen)) if length else len(seen)
            header += connection.recv(size)
            if length == len(header):
                return header

    async def _until_readable(self, connection: socket.socket) -> None:
        readable = self._loop.create_future()
        self._loop.add_reader(connection, lambda: None if readable.done() else readable.set_result(None))
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)

    def _complain(self, error: Exception) -> None:
        """Log why a connection was turned away, at most once a second: who does it may do it all the time."""
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return  # it left by itself, as the checks of load balancers do
        self._complaints += 1
        now = self._service.wheel.now
        if now < self._quiet_until:
            return
        words = in_words(error) if isinstance(error, ssl.SSLError) else str(error) or type(error).__name__
        others = f" ({self._complaints - 1} more since the last such line)" if self._complaints > 1 else ""
        _log.warning("a connection to %s was turned away: %s%s", self._address, words, others)
        self._complaints, self._quiet_until = 0, now + 1.0
