"""Listening sockets, one SO_REUSEPORT socket for each worker slot and address, kept while the address is wanted.

A worker's death resets nobody: the next worker of the slot goes on with the same queue. One socket per slot, not one
for all: the kernel then spreads connections evenly, while a shared queue lets the quickest worker hog them.
"""

import array
import contextlib
import errno
import socket
import struct
from collections.abc import Iterable
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

    def __init__(self) -> None:
        self._sockets: dict[str, dict[int, socket.socket]] = {}
        """Address as asked -> slot -> socket."""

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
            first = next(iter(mine.values()), None)
            mine[slot] = _listen(address, first)
            self._sockets[address] = mine
        return mine[slot].fileno()

    def bound(self, address: str) -> str:
        """Return what `address` is bound to: the same, save that a port of 0 has become a real one."""
        sock = next(iter(self._sockets[address].values()))
        host, port = sock.getsockname()[:2]
        return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"

    def quiesce(self, address: str, slot: int) -> None:
        """Let no new connection begin on one socket, so that its queue can be emptied for good."""
        program = array.array("B", _DROP_SYN)
        place, _length = program.buffer_info()
        # Without it (a sandbox may forbid it) a connection that comes in the very moment of closing is reset.
        with contextlib.suppress(OSError):
            self._sockets[address][slot].setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(_DROP_SYN) // 8, place)
            )

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

    @staticmethod
    def _close(sockets: dict[int, socket.socket]) -> None:
        for sock in sockets.values():
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
