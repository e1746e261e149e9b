"""Processes the benchmark starts: each in a group of its own, its tree's CPU and memory, and its certain end."""

import atexit
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds: the resolution of the two times /proc keeps for each process."""
_DESCRIPTORS = 65536
_running: list["Process"] = []


class StartError(Exception):
    """A process did not come up; the message ends with the last lines it wrote."""


class Process:
    """A command in its own session, its output in a file, stopped with all its children."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, cpus: Iterable[int] = ()) -> None:
        self.name = name
        self.output = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.output.open("wb") as sink:
            self.child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        self._members: dict[int, int] = {}
        _running.append(self)
        if chosen := set(cpus):
            with contextlib.suppress(ProcessLookupError):  # it fell over at once; wait_until says why
                os.sched_setaffinity(self.child.pid, chosen)

    @property
    def pid(self) -> int:
        return self.child.pid

    def last_lines(self, count: int = 8) -> str:
        text = self.output.read_text(errors="replace")
        return "\n".join(text.splitlines()[-count:])

    def wait_until_serving(self, port: int, request: bytes, timeout: float) -> float:
        """Return the seconds until `request` got a 200. Raises StartError."""
        started = time.monotonic()
        while (passed := time.monotonic() - started) < timeout:
            if self.child.poll() is not None:
                raise StartError(f"{self.name} ended with {self.child.returncode}: {self.last_lines()}")
            with contextlib.suppress(OSError):
                if status_of(exchange(port, request, timeout=2.0)) == 200:
                    return passed
            time.sleep(0.004)
        raise StartError(f"{self.name} did not serve within {timeout:.0f} s: {self.last_lines()}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait; remember the children, whose parent may be gone a moment later."""
        if self.child.poll() is None:
            self._members = {pid: started_at(pid) for pid in tree(self.pid)[1:]}
            self.child.terminate()

    def stop(self, patience: float = 5.0) -> None:
        """End the process and every process of its session: asked first, then killed."""
        if self.child.poll() is None:
            self.ask_to_stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid, started in self._members.items():  # those that left the group; a number may be another's by now
            if started and started_at(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.child.wait()
        if self in _running:
            _running.remove(self)


def stop_all() -> None:
    """End whatever still runs, the last started first."""
    for process in reversed(_running[:]):
        process.stop(patience=1.0)


def end_with_this_process() -> None:
    """Make every way out of this process, Ctrl-C and SIGTERM among them, end what it started."""
    atexit.register(stop_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))


def raise_descriptor_limit() -> int:
    """Allow as many open files as can be had, up to 65,536, here and in all children; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(_DESCRIPTORS, hard) if hard != resource.RLIM_INFINITY else _DESCRIPTORS)
    for limit in ((max(wanted, _DESCRIPTORS), max(hard, _DESCRIPTORS)), (wanted, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def find_program(name: str) -> str | None:
    """Return the path of a program beside this interpreter, on PATH, or where Debian puts servers."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(
        name, path=os.pathsep.join([beside, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


def free_ports() -> Iterator[int]:
    """Yield ports nobody listens on, below those the kernel gives to outgoing connections."""
    first = 20000 + os.getpid() % 5000
    for port in range(first, first + 5000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                yield port


def exchange(port: int, request: bytes, timeout: float = 10.0) -> bytes:
    """Send one request on a new connection and return the response: its head and the body its length announces."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        data = b""
        while chunk := connection.recv(262144):
            data += chunk
            head, separator, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if separator and length and len(body) >= int(length[1]):
                break
            if separator and body.endswith(b"0\r\n\r\n") and b"chunked" in head.lower():
                break
        return data


def status_of(response: bytes) -> int:
    """Return the status code of a response, 0 when there is none."""
    found = re.match(rb"HTTP/1\.[01] (\d{3})", response)
    return int(found[1]) if found else 0


def tree(root: int) -> list[int]:
    """Return `root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def started_at(pid: int) -> int:
    """Return when a process started, in ticks since boot, 0 when it is gone: with its number it names it for good."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def cpu_seconds(root: int) -> float:
    """Return user plus system time of a whole tree, children that ended (and were waited for) included."""
    ticks = 0
    for pid in tree(root):
        if fields := _stat(pid):
            ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))  # utime stime cutime cstime
    return ticks * TICK


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (field 3 of proc(5)), nothing when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True)
class Memory:
    """What a process holds, in bytes.

    `rss` is all of it; `own` is what is no file, pages shared with forks or as shared memory divided by their users;
    `files` is what it has mapped of files (programs, libraries).
    """

    rss: int
    own: int
    files: int


def memory(pid: int) -> Memory:
    """Return the memory of one process; zeros when it is gone or not ours to read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text() + Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Memory(0, 0, 0)
    found = {name: int(amount) * 1024 for name, amount in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    own = found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0)
    return Memory(found.get("Rss", 0), own, found.get("RssFile", 0))


def tree_memory(root: int) -> int:
    """Return the bytes a whole tree holds: all that is its own, and the files of the process that maps most of them.

    The proportional set size would say the same, were no other process using the same libraries: it falls when a
    stranger's Python starts.
    """
    found = [memory(pid) for pid in tree(root)]
    return sum(each.own for each in found) + max(each.files for each in found)


def command_line(pid: int) -> str:
    """Return the command a process was started with, empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


class PeakMemory:
    """The most memory a tree held while the block ran, looked at twice a second."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self.peak = max(self.peak, tree_memory(self.root))

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, tree_memory(self.root))
