"""Long runs against a real splitproxy: what is lost over many reloads, and what memory does under mixed load.

    python loadtests/endurance.py [--requests 20000] [--reloads 20]     # the release figure: 1000000 and 200
    python loadtests/endurance.py --minutes 10 [--growth 5]             # memory; a reload every ten seconds

Every request carries a number that an endpoint counts and sends back, and a filter of the rule adds the generation of
the configuration. Of eight connections five are kept alive, two pipeline six requests at a time, and one serves a
single request; every third request is a POST, every twelfth a chunked one. Of four reloads two change the weights, one
adds or removes an endpoint as well, and one reads a file that is invalid. The load goes on until both are done, so
there are more requests where reloads are slow. With `--minutes` every tenth request is mirrored, and there are large
downloads, some of them broken off, and large uploads beside.

Exit code 0: every request was answered once and by its own answer, no connection was closed before its requests were
taken, no request begun after a reload was served by what was there before it, and no process has grown by more than
`--growth` percent.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter, deque
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from harness.processes import (
    ROOT,
    Process,
    StartError,
    command_line,
    end_with_this_process,
    free_ports,
    memory,
    raise_descriptor_limit,
    stop_all,
    tree,
)
from harness.session import scratch_folder

sys.path.insert(0, str(ROOT))

from splitproxy.cli.admin_client import ask

DEPTH = 6
"""Requests at a time on a connection that pipelines."""
PATIENCE = 15.0
"""Seconds that a connection may go without an answer."""
LARGE = 1 << 20
"""Bytes of a large download or upload."""
FAULTS = (
    *("failed", "wrong", "stale", "lost", "duplicated", "closed before taken", "not connected", "mirrored twice"),
)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
_LARGE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE)
_LARGE_UPLOAD = b"POST /upload/1 HTTP/1.1\r\nHost: long.test\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE)
_ROLES = {"splitproxy.proxy.worker": "worker", "splitproxy.control": "control"}
"""What is on the command line of a process -> what it is; the one with neither is the supervisor."""


class Books:
    """What was sent, what arrived and what came back; requests are numbered from 0."""

    def __init__(self) -> None:
        self.sent = 0
        self.stopping = False
        self.arrived = bytearray()
        """How often each request has arrived at an endpoint."""
        self.copies = bytearray()
        """The same for the mirror's endpoint."""
        self.counts: Counter[str] = Counter()
        self.unanswered: list[int] = []
        self.notes: list[str] = []
        self.generation = 0
        """That every request begun from now on has to be served by, or a later one."""

    def next(self) -> int | None:
        """Return the number of the next request, None when there are no more."""
        if self.stopping:
            return None
        self.sent += 1
        if self.sent > len(self.arrived):
            self.arrived += bytes(65_536)
            self.copies += bytes(65_536)
        return self.sent - 1

    def arrive(self, number: int, shadow: bool) -> None:
        """Count a request that an endpoint has got whole."""
        seen = self.copies if shadow else self.arrived
        if seen[number]:
            self.fault("mirrored twice" if shadow else "duplicated", f"request {number} arrived again")
        else:
            seen[number] = 1

    def answer(self, number: int, oldest: int, status: int, body: bytes) -> None:
        """Count an answer to a request that was begun when `oldest` was the newest generation."""
        told = body.split()
        if status != 200:
            self.fault("failed", f"request {number} was answered {status}: {body[:120]!r}")
        elif not told or told[0] != b"%d" % number:
            self.fault("wrong", f"request {number} got {body[:60]!r}")
        elif int(told[1]) < oldest:
            self.fault("stale", f"request {number} was served by generation {told[1].decode()}, not {oldest}")
        else:
            self.counts["right"] += 1

    def fault(self, kind: str, text: str) -> None:
        """Count what must not be."""
        self.counts[kind] += 1
        if len(self.notes) < 20:
            self.notes.append(f"{kind}: {text}")

    def close(self) -> None:
        """Find out what became of requests without an answer; call it when nothing more can arrive."""
        for number in self.unanswered:
            kind = "lost" if self.arrived[number] else "closed before taken"
            self.fault(kind, f"request {number} got no answer")

    def faults(self) -> dict[str, int]:
        return {kind: self.counts[kind] for kind in FAULTS}


class Endpoint(asyncio.Protocol):
    """Answers each request with its number and the generation that it was served by."""

    transport: asyncio.Transport

    def __init__(self, books: Books, shadow: bool) -> None:
        self.books, self.shadow = books, shadow
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n") + 4) >= 4:
            head = self.data[:end]
            low = head.lower()
            if b"\r\ntransfer-encoding: chunked" in low:
                last = self.data.find(b"\r\n0\r\n\r\n", end)
                if last < 0:
                    return
                end = last + 7
            elif b"\r\ncontent-length: " in low:
                end += int(low.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
                if len(self.data) < end:
                    return
            self.data = self.data[end:]
            self._answer(head.split(b" ", 2)[1], low)

    def _answer(self, target: bytes, low: bytes) -> None:
        kind, _, number = target[1:].partition(b"/")
        if kind == b"large":
            self.transport.write(_LARGE_ANSWER)
            return
        if kind == b"r":
            self.books.arrive(int(number), self.shadow)
        generation = low.split(b"\r\nx-generation: ", 1)[1].split(b"\r\n", 1)[0]
        body = b"%b %b" % (number, generation)
        self.transport.write(_ANSWER % (len(body), body))


class Caller(asyncio.Protocol):
    """A client's connection, in a closed loop: the next requests are sent when all before have been answered."""

    transport: asyncio.Transport

    def __init__(self, books: Books, depth: int, once: bool) -> None:
        self.books, self.depth, self.once = books, depth, once
        self.waiting: deque[tuple[int, int]] = deque()
        """Number and generation of each request without an answer."""
        self.data = b""
        self.last = False
        """Whether the other side has said that it will close."""
        self.heard = time.monotonic()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        batch = []
        while len(batch) < self.depth and (number := self.books.next()) is not None:
            self.waiting.append((number, self.books.generation))
            batch.append(_request(number, self.once))
        self.heard = time.monotonic()
        if batch:
            self.transport.write(b"".join(batch))
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n") + 4) >= 4:
            low = self.data[:end].lower()
            size = int(low.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
            if len(self.data) < end + size:
                return
            body, self.data = self.data[end : end + size], self.data[end + size :]
            self.last = self.last or b"\r\nconnection: close\r\n" in low
            if not self.waiting:
                self.books.fault("wrong", f"an answer that nobody asked for: {body[:60]!r}")
                return
            self.books.answer(*self.waiting.popleft(), int(low[9:12]), body)
        if not self.waiting:
            if self.once or self.last:
                self.transport.close()
            else:
                self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self.books.unanswered += [number for number, _ in self.waiting]
        if not self.over.done():
            self.over.set_result(None)


def _request(number: int, once: bool) -> bytes:
    method, framing, body = b"GET", b"", b""
    if number % 12 == 0:
        method, framing, body = b"POST", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"
    elif number % 3 == 0:
        method, framing, body = b"POST", b"Content-Length: 8\r\n", b"abcdefgh"
    close = b"Connection: close\r\n" if once else b""
    return b"%b /r/%d HTTP/1.1\r\nHost: long.test\r\n%b%b\r\n%b" % (method, number, framing, close, body)


class Run:
    """One run: the endpoints, the proxy, and everything that goes on."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.books = Books()
        ports = free_ports()
        self.port, self.admin = next(ports), next(ports)
        self.endpoints = [next(ports) for _ in range(4)]  # primary, primary's second, canary, the mirror's
        self.path = folder / "endurance.yaml"
        self.chance = random.Random(1)
        self.generation = 0
        self.reloads: Counter[str] = Counter()
        self.slowest = 0.0
        """Seconds."""
        self.command = [sys.executable, "-m", "splitproxy", "run", "-c", str(self.path)]

    # --- the configuration -------------------------------------------------------------------------------------------
    def write(self, *, share: int = 10, second: bool = False, valid: bool = True) -> None:
        """Write the file of the next generation, in one step."""
        primary, other, canary, shadow = self.endpoints
        urls = [f"'http://127.0.0.1:{port}'" for port in ((primary, other) if second else (primary,))]
        mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: shadow}, percent: 10, methods: all}},"
        text = f"""
workers: {self.options.workers}
listeners: [{{address: '127.0.0.1:{self.port}'}}]
admin: {{address: '127.0.0.1:{self.admin}'}}
upstreams:
  - {{name: primary, endpoints: [{", ".join(urls)}]}}
  - {{name: canary, endpoints: ['http://127.0.0.1:{canary}']}}
  - {{name: shadow, endpoints: ['http://127.0.0.1:{shadow}']}}
routes:
  - name: all
    rules:
      - filters: [
          {mirror if self.options.minutes else ""}
          {{type: RequestHeaderModifier, requestHeaderModifier: {{
            set: [{{name: x-generation, value: '{self.generation}'}}]}}}}
        ]
        backendRefs:
          - {{name: primary, weight: {100 - share}}}
          - {{name: {"canary" if valid else "nobody"}, weight: {share}}}
"""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    async def reload(self, number: int) -> None:
        """Have the proxy take another configuration, or refuse one."""
        valid = number % 4 != 3
        second = number % 8 >= 2
        self.generation += 1
        self.write(share=self.chance.randrange(1, 100), second=second, valid=valid)
        started = time.monotonic()
        status, told = await asyncio.to_thread(ask, f"127.0.0.1:{self.admin}", "POST", "/-/reload", 60.0)
        self.slowest = max(self.slowest, time.monotonic() - started)
        if status != (200 if valid else 422):
            self.books.fault("failed", f"reload {number} was answered {status}: {told}")
        elif valid:
            self.books.generation = self.generation
        self.reloads["applied" if valid else "refused"] += 1

    # --- the load ----------------------------------------------------------------------------------------------------
    async def call(self, depth: int, once: bool) -> None:
        """Keep one client's connection open, or one after the other, until there is nothing more to send."""
        books, loop = self.books, asyncio.get_running_loop()
        while not books.stopping:
            try:
                _, caller = await loop.create_connection(lambda: Caller(books, depth, once), "127.0.0.1", self.port)
            except OSError as error:
                books.fault("not connected", str(error))
                await asyncio.sleep(0.1)
                continue
            while not caller.over.done():
                await asyncio.wait([caller.over], timeout=1.0)
                if time.monotonic() - caller.heard > PATIENCE:
                    caller.transport.abort()

    async def haul(self, number: int) -> None:
        """Download and upload large bodies; every second download is broken off."""
        while not self.books.stopping:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=LARGE * 2)
            try:
                for turn in range(6):
                    if turn % 2 == number % 2:
                        writer.write(_LARGE_UPLOAD)
                    else:
                        writer.write(b"GET /large/1 HTTP/1.1\r\nHost: long.test\r\n\r\n")
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
                    size = int(head.lower().split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
                    if turn == 5 and number % 4 < 2:
                        break  # the rest is not wanted
                    await asyncio.wait_for(reader.readexactly(size), PATIENCE)
                    self.books.counts["large"] += 1
                    if not head.startswith(b"HTTP/1.1 200 "):
                        self.books.fault("failed", f"a large transfer got {head[:40]!r}")
                    await asyncio.sleep(0.05)
            except (OSError, EOFError, TimeoutError) as error:
                self.books.fault("failed", f"a large transfer broke off: {error!r}")
            writer.transport.abort()

    def callers(self) -> list[Any]:
        """Return the coroutines of all clients: of eight connections five kept, two that pipeline, one ever new."""
        kinds = [(1, False)] * 5 + [(DEPTH, False)] * 2 + [(1, True)]
        return [self.call(*kinds[number % len(kinds)]) for number in range(self.options.connections)]

    async def go(self) -> bool:
        """Do it all; return whether everything held."""
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(partial(Endpoint, self.books, shadow), "127.0.0.1", port, backlog=1024)
            for port, shadow in zip(self.endpoints, (False, False, False, True), strict=True)
        ]
        self.write()
        proxy = Process("endurance", self.command, self.path.parent)
        probe = b"GET /probe/0 HTTP/1.1\r\nHost: long.test\r\nConnection: close\r\n\r\n"
        await asyncio.to_thread(proxy.wait_until_serving, self.port, probe, 30.0)
        started = time.monotonic()
        grown = await (self.soak(proxy) if self.options.minutes else self.count())
        seconds = time.monotonic() - started
        await asyncio.sleep(0.5)  # whatever is still on its way to an endpoint
        self.books.close()
        self.report(seconds)
        await asyncio.to_thread(proxy.stop, 10.0)
        for server in servers:
            server.close()
        if "Traceback" in proxy.output.read_text(errors="replace"):
            print(f"the proxy's log has a traceback:\n{proxy.last_lines(40)}")
            return False
        return not any(self.books.faults().values()) and grown <= self.options.growth

    async def count(self) -> float:
        """Send at least so many requests while so many reloads go on, as evenly spread over them as may be."""
        books, wanted, reloads = self.books, self.options.requests, self.options.reloads
        load = asyncio.gather(*self.callers())
        for number in range(reloads + 1):
            while books.sent < wanted * (number + 1) / (reloads + 1):  # noqa: ASYNC110 - the callers are not to tell
                await asyncio.sleep(0.005)
            if number < reloads:
                await self.reload(number)
        books.stopping = True
        await load
        return 0.0

    async def soak(self, proxy: Process) -> float:
        """Load it for minutes; print what every process holds, and return the growth of memory in percent."""
        load = asyncio.gather(*self.callers(), *(self.haul(number) for number in range(4)))
        watch = Watch(proxy.pid)
        turns = max(5, round(self.options.minutes * 60 / self.options.step))
        for turn in range(turns):
            before = self.books.sent
            await asyncio.sleep(self.options.step)
            await self.reload(turn)
            rate = (self.books.sent - before) / self.options.step
            print(f"{(turn + 1) * self.options.step:6.0f} s {rate:7.0f}/s  {watch.look()}", flush=True)
        self.books.stopping = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(load, 2 * PATIENCE)
        return watch.growth()

    def report(self, seconds: float) -> None:
        """Print what happened."""
        books = self.books
        print(
            f"{books.sent} requests over {self.options.connections} connections in {seconds:.1f} s"
            f" ({books.sent / seconds:.0f}/s), {books.counts['right']} answered right;"
            f" {self.reloads['applied']} reloads, {self.reloads['refused']} more refused as they should be,"
            f" the slowest {self.slowest:.1f} s"
        )
        if self.options.minutes:
            print(f"large transfers {books.counts['large']}, mirrored {sum(books.copies)}")
        print(", ".join(f"{kind} {count}" for kind, count in books.faults().items()))
        for note in books.notes:
            print(f"  {note}")


class Watch:
    """What the processes of a proxy hold, over time."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.sizes: dict[str, list[int]] = {}
        """Process -> resident bytes at every look."""

    def look(self) -> str:
        """Look once more and return it as text."""
        parts = []
        for pid in tree(self.root):
            command = command_line(pid)
            role = next((role for module, role in _ROLES.items() if module in command), "supervisor")
            with contextlib.suppress(OSError):
                size, files = memory(pid).rss, len(os.listdir(f"/proc/{pid}/fd"))
                self.sizes.setdefault(f"{role} {pid}", []).append(size)
                parts.append(f"{role} {pid}: {size / (1 << 20):.1f} MiB, {files} files")
        return "; ".join(parts)

    def growth(self) -> float:
        """Print by how much each process has grown since a fifth of the time had passed; return the most in percent."""
        most = 0.0
        for name, sizes in self.sizes.items():
            first = sorted(sizes[len(sizes) // 5 :][:3])
            last = sorted(sizes[-3:])
            percent = 100.0 * (last[len(last) // 2] / first[len(first) // 2] - 1.0)
            print(f"{name}: {percent:+.1f} % since a fifth of the time, {max(sizes) / (1 << 20):.1f} MiB at most")
            most = max(most, percent)
        return most


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of a number of requests")
    parser.add_argument("--step", type=float, default=10.0, help="seconds between looks, with --minutes (default 10)")
    parser.add_argument("--growth", type=float, default=5.0, help="percent that a process may grow (default 5)")
    options = parser.parse_args(arguments)
    end_with_this_process()
    raise_descriptor_limit()
    with scratch_folder() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            held = runner.run(Run(options, Path(folder)).go())
        except StartError as error:
            print(error)
            held = False
        finally:
            stop_all()
    print("everything held" if held else "NOT everything held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
