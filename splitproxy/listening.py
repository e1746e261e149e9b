"""Listening sockets, one SO_REUSEPORT socket for each worker slot and address, kept while the address is wanted.

A worker's death resets nobody: the next worker of the slot goes on with the same queue. One socket per slot, not one
for all: the kernel then spreads connections evenly, while a shared queue lets the quickest worker hog them.

How a listener is closed without losing a connection. Linux resets whatever waits in the queue of a listening socket
when its last descriptor is closed. So, first, a packet filter on the socket drops new SYNs: the queue can only shrink,
and who comes now is refused (or finds another listener) a second later, at the repetition of the SYN. Second, the
worker is told `release` (or `drain`): it accepts what is queued, and what completes its handshake within a moment, and
closes its descriptor. The supervisor closes its own right after telling, so the worker's is the last.
"""

import array
import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

BACKLOG: Final = 4096
_SO_ATTACH_FILTER: Final = 26
_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", code, if_true, if_false, operand)
    for code, if_true, if_false, operand in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # then drop,
        (0x06, 0, 0, 0xFFFFFFFF),  # else pass
    )
)
"""A classic BPF program (five instructions of eight bytes) for a listening TCP socket."""

_WORDS: Final = {
    errno.EADDRINUSE: "the port is in use by another program",
    errno.EACCES: "no permission to bind this port (below 1024 needs CAP_NET_BIND_SERVICE)",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EMFILE: "too many open files",
}


class Listeners:
    """Every listening socket of the program."""

    def __init__(self, opened: Iterable[tuple[str, socket.socket]] = ()) -> None:
        """`opened` are listening sockets of a service manager, with their names."""
        self._sockets: dict[str, dict[int, socket.socket]] = {}
        """Address as asked -> slot -> socket."""
        self.opened = list(opened)
        """They stay open, and listening, for the service manager; all slots share each."""
        self._spare: dict[str, dict[int, socket.socket]] = {}
        """What another supervisor had bound, by its slots, and no slot of ours has taken yet."""
        self._held: dict[tuple[str, int], int] = {}
        """Address and slot of another supervisor -> our slot that goes on with its socket."""
        self._others: set[socket.socket] = set()
        """Sockets that somebody else listens on too, so that no packet filter may close them."""

    def bind(self, addresses: Iterable[str], slots: Iterable[int]) -> dict[str, str]:
        """Bind what is not bound yet, for all `slots`; all or nothing. Return why each failing address failed.

        What is bound already is left alone; `take` adds what a new worker needs.
        """
        fresh = [address for address in addresses if address not in self._sockets]
        slots, failures = list(slots), {}
        for address in fresh:
            try:
                for slot in slots:
                    self.take(address, slot)
            except OSError as error:
                failures[address] = in_words(error)
        if failures:
            for address in fresh:
                self._close(self._sockets.pop(address, {}))
        return failures

    def take(self, address: str, slot: int) -> int:
        """Return the descriptor of `slot`'s socket for `address`, bound now if it was not. Raises OSError."""
        mine = self._sockets.get(address, {})
        if slot not in mine:
            mine[slot] = self._given(address, slot) or _listen(address, next(iter(mine.values()), None))
            self._sockets[address] = mine
        return mine[slot].fileno()

    def _given(self, address: str, slot: int) -> socket.socket | None:
        """Return a socket for `address` that exists already."""
        spare = self._spare.get(address)
        if spare:
            place = next(iter(spare))
            self._held[address, place] = slot
            return spare.pop(place)
        _family, where = resolve(address)
        shared = next((sock for _name, sock in self.opened if sock.getsockname() == where), None)
        if shared is None:
            return None
        # One socket for all slots: a further one cannot be bound beside it by another user than the service manager.
        sock = shared.dup()
        self._others.add(sock)
        return sock

    # --- one supervisor after another -------------------------------------------------------------------------------
    def adopt(self, address: str, sockets: dict[int, socket.socket]) -> None:
        """Take over what another supervisor, which serves on until ours does, has bound for its slots."""
        self._spare[address] = sockets
        self._others.update(sockets.values())

    def own(self) -> list[tuple[str, int]]:
        """Drop what no slot took and return the addresses and slots of the other supervisor that we go on with."""
        for sockets in self._spare.values():
            self._close(sockets)
        self._spare = {}
        for address, place in self._held:
            sock = self._sockets.get(address, {}).get(self._held[address, place])
            if sock is not None:
                self._others.discard(sock)
        held, self._held = list(self._held), {}
        return held

    def give(self) -> Iterator[tuple[str, dict[int, socket.socket]]]:
        """Yield every address with its sockets, for a successor; less what belongs to the service manager."""
        for address, mine in self._sockets.items():
            given = {slot: sock for slot, sock in mine.items() if sock not in self._others}
            if given:
                yield address, given

    def give_up(self, address: str, slot: int) -> None:
        """Note that a successor goes on with this socket: our end of it is no end of it."""
        sock = self._sockets.get(address, {}).get(slot)
        if sock is not None:
            self._others.add(sock)

    # --- the end of a listener --------------------------------------------------------------------------------------

    def bound(self, address: str) -> str:
        """Return what `address` is bound to: the same, save that a port of 0 has become a real one."""
        sock = next(iter(self._sockets[address].values()))
        host, port = sock.getsockname()[:2]
        return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"

    def quiesce(self, address: str, slot: int) -> None:
        """Let no new connection begin on one socket, so that its queue can be emptied for good."""
        sock = self._sockets[address][slot]
        if sock in self._others:
            return  # whoever goes on with it gets what comes
        program = array.array("B", _DROP_SYN)
        place, _length = program.buffer_info()
        # Without it (a sandbox may forbid it) a connection that comes in the very moment of closing is reset.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(_DROP_SYN) // 8, place))

    def quiesce_slot(self, slot: int) -> None:
        """Let no new connection begin on any socket of `slot`."""
        for address, mine in self._sockets.items():
            if slot in mine:
                self.quiesce(address, slot)

    def keep(self, addresses: Iterable[str], slots: Iterable[int] | None = None) -> None:
        """Close our descriptors of all other addresses and, if given, of all other slots."""
        wanted = set(addresses)
        for address in self._sockets.keys() - wanted:
            self._close(self._sockets.pop(address))
        if slots is not None:
            kept = set(slots)
            for mine in self._sockets.values():
                self._close({slot: mine.pop(slot) for slot in mine.keys() - kept})

    def close_all(self) -> None:
        """Close every descriptor of ours."""
        self.keep(())

    def _close(self, sockets: dict[int, socket.socket]) -> None:
        for sock in sockets.values():
            self._others.discard(sock)
            sock.close()


def in_words(error: OSError) -> str:
    """Say why an address could not be bound."""
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    return _WORDS.get(error.errno or 0) or error.strerror or str(error)


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def resolve(address: str) -> tuple[socket.AddressFamily, Any]:
    """Return the family and socket address of `host:port`; without a host, all of IPv4. Raises OSError."""
    host, port = split_address(address)
    family, _type, _protocol, _name, where = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
    return family, where


def _listen(address: str, first: socket.socket | None) -> socket.socket:
    family, where = resolve(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if first is not None:
            # Not listening yet: that is for its worker to do, lest connections wait for a process that only starts.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(first.getsockname())
        else:
            # Bound before SO_REUSEPORT is set, so that it fails where another program, even another splitproxy,
            # has the port: with the option both would get a share of the connections and nobody would be told.
            sock.bind(where)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
