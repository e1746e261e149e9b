"""What slow clients cost: memory of a worker for each of them, and the latency of normal clients beside them.

    python loadtests/slow_clients.py [--clients 10000] [--head 200] [--seconds 10]

Starts an upstream and `splitproxy run` with one worker; then so many clients send the beginning of a head and no more,
while a few normal ones go on asking. Prints bytes per slow client beyond those that it has sent, and normal clients'
latency before and beside them. Exit code 0: at most 8 KiB each, p99 within twice what it was, no request failed.
Descriptors: two for each client on this machine; raise `ulimit -n` where it says that they do not suffice.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

LIMIT = 8192
"""Bytes of memory that a slow client may cost beyond those it has sent."""
SLACK = 2.0
"""How many times their latency alone the p99 of normal clients may be beside slow ones."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n"
PACE = 0.005
"""Seconds between two requests of a normal client."""


class Upstream(asyncio.Protocol):
    """Answers every request; they come whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._transport.write(ANSWER)


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def proxy(port: int, upstream_port: int, folder: Path) -> Iterator[int]:
    """Run splitproxy at `port` until the end; yield the process id of its worker."""
    file = folder / "splitproxy.yaml"
    configuration = {
        "listeners": [{"address": f"127.0.0.1:{port}"}],
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "limits": {"headerTimeout": "10m"},
        "upstreams": [{"name": "up", "endpoints": [f"http://127.0.0.1:{upstream_port}"]}],
        "routes": [{"name": "all", "rules": [{"backendRefs": [{"name": "up"}]}]}],
    }
    file.write_text(json.dumps(configuration))
    command = [sys.executable, "-m", "splitproxy", "run", "-c", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        try:
            for line in program.stderr:
                if "ready" in line:
                    break
            children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
            yield next(int(pid) for pid in children if "proxy.worker" in Path(f"/proc/{pid}/cmdline").read_text())
        finally:
            program.kill()


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has to itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def normal(port: int, end: float, took: list[float]) -> None:
    """Ask again and again on one connection; add the seconds of each answer to `took`. Raises when one fails."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        before = time.perf_counter()
        writer.write(GET)
        if not (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 "):
            raise RuntimeError("a normal client got another answer than 200")
        took.append(time.perf_counter() - before)
        await asyncio.sleep(PACE)
    writer.close()


async def latency(port: int, seconds: float) -> tuple[float, float]:
    """Return median and p99, in milliseconds, of eight normal clients."""
    took: list[float] = []
    await asyncio.gather(*(normal(port, time.monotonic() + seconds, took) for _ in range(8)))
    took.sort()
    return took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3


async def besiege(port: int, count: int, head: int) -> list[socket.socket]:
    """Connect slow clients, each of which sends `head` bytes of a head."""
    loop = asyncio.get_running_loop()
    beginning = b"GET / HTTP/1.1\r\nHost: kit.test\r\nX-Slow: ".ljust(head, b"a")[:head]
    clients = []
    for number in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        # Many addresses of loopback: one has not ports enough for tens of thousands.
        sock.bind((f"127.0.0.{2 + number % 200}", 0))
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, beginning)
        clients.append(sock)
    return clients


async def measure(count: int, head: int, seconds: float) -> int:
    """Measure, print, and return the exit code."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, proxy(port, server.sockets[0].getsockname()[1], Path(folder)) as pid:
        await latency(port, 1.0)  # warm
        alone = await latency(port, seconds)
        before = resident(pid)
        clients = await besiege(port, count, head)
        await asyncio.sleep(0.5)
        beside = await latency(port, seconds)
        each = (resident(pid) - before) / count - head
        closed = sum(_is_closed(sock) for sock in clients)
        for sock in clients:
            sock.close()
    server.close()
    good = each <= LIMIT and beside[1] <= SLACK * alone[1] and not closed
    print(f"{count} slow clients, {head} bytes of a head each: {each:.0f} bytes of memory each beyond those")
    print(f"normal clients alone:  median {alone[0]:.2f} ms, p99 {alone[1]:.2f} ms")
    print(f"normal clients beside: median {beside[0]:.2f} ms, p99 {beside[1]:.2f} ms")
    verdict = "held" if good else "BROKEN"
    print(f"limits {LIMIT} bytes, {SLACK:g} times the p99, none cut off: {verdict} ({closed} cut off)")
    return 0 if good else 1


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) is not None
    except BlockingIOError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000, help="slow clients (default 10000)")
    parser.add_argument("--head", type=int, default=200, help="bytes of a head that each sends (default 200)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which latency is measured (default 10)")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.clients * 4 // 3 + 200:
        print(f"{options.clients} clients need more descriptors than the {hard} of `ulimit -n`", file=sys.stderr)
        return 2
    return asyncio.run(measure(options.clients, options.head, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
