"""What a service manager is told (sd_notify(3)), and the sockets that it opened for us (sd_listen_fds(3)).

Both protocols are a few environment variables; nothing happens where they are not set.
"""

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3
"""Where inherited sockets begin (SD_LISTEN_FDS_START)."""
_NOTIFYING: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Tells the service manager how things stand. What it cannot be told is lost: nothing may fail for it."""

    def __init__(self, environment: MutableMapping[str, str], *, heir: bool = False) -> None:
        """Take the variables out of `environment`, so that no child believes they are meant for it.

        `heir`: this process takes over from another, which still speaks, and to which WATCHDOG_PID refers.
        """
        self._taken = {name: environment.pop(name) for name in _NOTIFYING if name in environment}
        self._where = self._taken.get("NOTIFY_SOCKET", "")
        mine = heir or self._taken.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = self._taken.get("WATCHDOG_USEC", "")
        self.watchdog = int(usec) / 2e6 if mine and usec.isascii() and usec.isdigit() else 0.0
        """Seconds between two signs of life: half of what is allowed; 0 when nobody waits for them."""
        self._silent = heir

    def environment(self) -> Mapping[str, str]:
        """Return the variables that a successor needs."""
        return {name: value for name, value in self._taken.items() if name != "WATCHDOG_PID"}

    def hush(self) -> None:
        """Say nothing more: another process speaks for the service now."""
        self._silent = True

    def speak(self) -> None:
        """Begin to speak for the service, instead of the process before this one."""
        self._silent = False

    def ready(self, status: str) -> None:
        """All workers serve; also the end of a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload that was asked for by signal has begun; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Reloading")

    def status(self, text: str) -> None:
        """Say in words what goes on."""
        self._send(f"STATUS={text}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Give a sign of life."""
        self._send("WATCHDOG=1")

    def main_process(self, pid: int) -> None:
        """Name the process that is the service from now on."""
        self._send(f"MAINPID={pid}")

    def _send(self, text: str) -> None:
        if self._silent or not self._where:
            return
        # An abstract address is written with '@' for its leading zero byte.
        where = f"\0{self._where[1:]}" if self._where.startswith("@") else self._where
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), where)
        except OSError:
            pass


def inherited(environment: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR) -> list[tuple[str, socket.socket]]:
    """Return the listening TCP sockets that a service manager opened, each with its name, and forget the variables.

    None are meant for this process when LISTEN_PID is another's. What is no listening TCP socket is left alone.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    found = []
    for index in range(int(count)):
        os.set_inheritable(first + index, False)
        try:
            sock = socket.socket(fileno=first + index)
        except OSError:
            continue
        if _listens(sock):
            sock.setblocking(False)
            found.append((names[index] if index < len(names) else "unknown", sock))
        else:
            sock.detach()
    return found


def _listens(sock: socket.socket) -> bool:
    tcp = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
    return tcp and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
