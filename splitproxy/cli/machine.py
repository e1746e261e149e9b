"""What `splitproxy doctor` looks at on the machine: Python, libraries, the kernel, limits, the clock."""

import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from splitproxy import __version__
from splitproxy.listening import BACKLOG

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"

_PYTHON: Final = (3, 11)
_LIBRARIES: Final = {
    "aiohttp": "aiohttp",
    "google-re2": "re2",
    "httptools": "httptools",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "rich": "rich",
    "uvloop": "uvloop",
}
"""Distribution -> what is imported of it."""
_FEW_DESCRIPTORS: Final = 16384
_TOO_FEW_DESCRIPTORS: Final = 256
_CLIENTS_BY_DESCRIPTORS: Final = 0.75
"""Four descriptors for every three clients (docs/operations.md, Limits)."""
_FEW_PORTS: Final = 10_000
_SLOW_CLOCKS: Final = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
"""Sources whose reading is a system call or slower: a microsecond and more, several times for each request."""
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns while the clock is not synchronised."""
_WRITTEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This program is younger: an older date is wrong."""


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do."""

    level: str
    """ok | warning: it works, not well or not for long | error: it does not work."""
    what: str
    text: str
    remedy: str = ""
    """Empty where there is nothing to do."""


def findings() -> Iterator[Finding]:
    """Yield what there is to say of this machine."""
    yield _python()
    yield from _libraries()
    yield from _kernel()
    yield _descriptors()
    yield from _network()
    yield _processors()
    yield from _clock()


def _python() -> Finding:
    text = (
        f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}; splitproxy {__version__}"
    )
    if sys.version_info >= _PYTHON and platform.python_implementation() == "CPython":
        return Finding(OK, "python", text)
    return Finding(ERROR, "python", text, f"Install CPython {'.'.join(map(str, _PYTHON))} or later.")


def _libraries() -> Iterator[Finding]:
    least, versions = _least_versions(), []
    for name, module in _LIBRARIES.items():
        try:
            importlib.import_module(module)
            version = importlib.metadata.version(name)
        except (ImportError, OSError, importlib.metadata.PackageNotFoundError) as error:
            yield Finding(ERROR, "libraries", f"{name} cannot be loaded: {error}", f"pip install --upgrade {name}")
            continue
        if _numbers(version) < _numbers(least.get(name, "0")):
            wanted = f"{name} {version} is too old: {least[name]} or later is needed"
            yield Finding(ERROR, "libraries", wanted, f"pip install --upgrade {name}")
        versions.append(f"{name} {version}")
    yield Finding(OK, "libraries", ", ".join(versions))


def _least_versions() -> dict[str, str]:
    """Return what this distribution requires; nothing where it runs from its sources without being installed."""
    try:
        required = importlib.metadata.requires("splitproxy") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+).*?>=([\d.]+)", one) for one in required if "extra ==" not in one)
    return {match[1].lower(): match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


# --- the kernel -------------------------------------------------------------------------------------------------------
def _kernel() -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding(ERROR, "kernel", f"{platform.system()}: splitproxy runs on Linux only", "Run it in a container.")
        return
    missing = [what for what, attempt in _FEATURES.items() if not _works(attempt)]
    text = f"{platform.system()} {platform.release()}"
    if missing:
        remedy = "Update the kernel, or allow it in the sandbox (seccomp, container runtime)."
        yield Finding(ERROR, "kernel", f"{text} does not let us have {', '.join(missing)}", remedy)
    else:
        yield Finding(OK, "kernel", f"{text} has {', '.join(_FEATURES)}")


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except (OSError, AttributeError):
        return False
    return True


def _memory_file() -> None:
    os.close(os.memfd_create("splitproxy-doctor", os.MFD_ALLOW_SEALING))


def _shared_port() -> None:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())


def _channel() -> None:
    for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
        one.close()


def _processes() -> None:
    Path(f"/proc/self/task/{os.getpid()}/stat").read_bytes()


_FEATURES: Final[dict[str, Callable[[], None]]] = {
    "memory files": _memory_file,
    "shared ports": _shared_port,
    "packet sockets": _channel,
    "/proc": _processes,
}
"""What processes, listeners and reloads are made of; each is tried."""


# --- limits -----------------------------------------------------------------------------------------------------------
def _descriptors() -> Finding:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the supervisor raises its own limit to the hard one
    if most == resource.RLIM_INFINITY:
        return Finding(OK, "descriptors", "as many as are wanted")
    text = f"{most} for each process: some {most * _CLIENTS_BY_DESCRIPTORS:.0f} clients for each worker"
    if most >= _FEW_DESCRIPTORS:
        return Finding(OK, "descriptors", text)
    level = ERROR if most < _TOO_FEW_DESCRIPTORS else WARNING
    return Finding(
        level, "descriptors", text, "Raise it: LimitNOFILE= of the systemd unit, --ulimit of the container, ulimit -Hn."
    )


def _network() -> Iterator[Finding]:
    backlog = _number("/proc/sys/net/core/somaxconn")
    if backlog is not None:
        text = f"{backlog} connections may wait to be accepted"
        if backlog >= BACKLOG:
            yield Finding(OK, "backlog", text)
        else:
            remedy = f"sysctl -w net.core.somaxconn={BACKLOG}"
            yield Finding(WARNING, "backlog", f"{text}, {BACKLOG} are asked for", remedy)
    low, high = _numbers_of("/proc/sys/net/ipv4/ip_local_port_range") or (0, _FEW_PORTS)
    if high - low < _FEW_PORTS:
        text = f"{high - low} for connections to each endpoint"
        yield Finding(WARNING, "ports", text, 'sysctl -w net.ipv4.ip_local_port_range="10240 65535"')


def _processors() -> Finding:
    cores = len(os.sched_getaffinity(0))
    quota = _quota()
    text = f"{cores} cores may be used" if cores > 1 else "1 core may be used"
    if quota is not None and quota < cores:
        return Finding(OK, "processors", f"{text}, {quota:g} of them at a time: {max(int(quota), 1)} workers at most")
    return Finding(OK, "processors", text)


def _quota() -> float | None:
    """Return how many cores the control group may use at a time, None where nothing says so."""
    try:
        allowed, _, period = Path("/sys/fs/cgroup/cpu.max").read_text().strip().partition(" ")
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        return None


def _numbers_of(path: str) -> tuple[int, ...] | None:
    try:
        return tuple(map(int, Path(path).read_text().split()))
    except (OSError, ValueError):
        return None


def _number(path: str) -> int | None:
    found = _numbers_of(path)
    return found[0] if found else None


# --- the clock --------------------------------------------------------------------------------------------------------
def _clock() -> Iterator[Finding]:
    now = datetime.now(UTC)
    if now < _WRITTEN:
        yield Finding(ERROR, "clock", f"says {now:%Y-%m-%d}: certificates and windows go by it", "Set it, and run NTP.")
        return
    synchronised = _synchronised()
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if synchronised is False:
        remedy = "Run chrony or systemd-timesyncd: logs, certificates and deployment windows go by the clock."
        yield Finding(WARNING, "clock", f"{text}, not synchronised", remedy)
    else:
        yield Finding(OK, "clock", f"{text}, synchronised" if synchronised else text)
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    name = source.read_text().strip() if source.exists() else ""
    if name in _SLOW_CLOCKS:
        yield Finding(
            WARNING, "clock", f"the source {name} is slow to read, which each request does", "Use tsc or kvm-clock."
        )


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), of which nothing is read."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 508))


def _synchronised() -> bool | None:
    """Say whether the kernel takes its clock for synchronised; None where it may not be asked."""
    asked = _Timex()  # no modes: nothing is changed
    answer = ctypes.CDLL(None).adjtimex(ctypes.byref(asked))
    return None if answer < 0 else answer != _TIME_ERROR
