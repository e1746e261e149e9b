"""What `splitproxy doctor` looks at for a configuration: its files, its addresses, and what already runs there."""

import os
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from splitproxy import __version__, mounts
from splitproxy.cli.admin_client import Unanswered, ask
from splitproxy.cli.machine import ERROR, OK, WARNING, Finding
from splitproxy.cli.showing import counted, loaded, reasons
from splitproxy.errors import ConfigError
from splitproxy.listening import in_words, resolve

_SECONDS: Final = 2.0
_LEAST_SPACE: Final = 100 * 1024 * 1024
_PRIVILEGED: Final = 1024

Plain = dict[str, Any]


def of_admin(admin: str, *, expected: bool) -> Iterator[Finding]:
    """Yield how a running proxy answers at `admin`; where one is `expected` none is an error."""
    try:
        status, told = ask(admin, "GET", "/healthz", _SECONDS)
    except Unanswered as error:
        if expected:
            yield Finding(ERROR, "admin", str(error))
        else:
            yield Finding(OK, "admin", f"nothing runs at {admin} yet")
        return
    if status != 200 or not isinstance(told, dict) or "version" not in told:
        yield Finding(
            ERROR, "admin", f"what answers at {admin} is not splitproxy (status {status})", "Change admin.address."
        )
        return
    yield _running(admin, told["version"])
    status, told = ask(admin, "GET", "/readyz", _SECONDS)
    if status != 200:
        yield Finding(WARNING, "admin", f"it is not ready: {told.get('detail', status)}", "Its log says more.")
    status, told = ask(admin, "GET", "/api/v1/config", _SECONDS)
    if status in (401, 403):
        yield Finding(
            WARNING, "admin", f"it does not let us look: {told.get('detail', status)}", "Set SPLITPROXY_TOKEN."
        )
    elif status == 200 and (last := told["lastReload"]) and last["result"] == "failure":
        yield Finding(
            WARNING, "admin", "its last reload failed, the configuration before serves on", "splitproxy reload"
        )


def _running(admin: str, version: str) -> Finding:
    if version == __version__:
        return Finding(OK, "admin", f"splitproxy {version} runs at {admin}")
    text = f"splitproxy {version} runs at {admin}, this is {__version__}"
    return Finding(
        WARNING, "admin", text, "Send USR2 to the running process: it is upgraded without a lost connection."
    )


def of_file(path: str) -> Iterator[Finding]:
    """Yield how the configuration at `path` and what it names do; its admin API is asked, too."""
    try:
        valid = loaded(path)
    except ConfigError as error:
        text = f"{counted(len(reasons(error)), 'error')} in {path}"
        yield Finding(ERROR, "file", text, f"splitproxy check {path} shows each with its line.")
        return
    if valid.warnings:
        text = f"{path} is valid, with {counted(len(valid.warnings), 'warning')}"
        yield Finding(WARNING, "file", text, f"splitproxy check {path} shows each.")
    else:
        yield Finding(OK, "file", f"{path} is valid")
    state = Path(valid.plain["state"]["path"])
    yield from _permissions([*valid.sources, *([state] if state.exists() else [])])
    yield from _written(valid.plain)
    admin = f"http://{_reachable(valid.plain['admin']['address'])}"
    yield from of_admin(admin, expected=False)
    yield from _addresses(valid.plain, _served(admin))
    yield from _workers(valid.plain)


# --- files ------------------------------------------------------------------------------------------------------------
def _permissions(sources: Iterable[Path]) -> Iterator[Finding]:
    found = False
    for path in sources:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            found = True
            yield Finding(ERROR, "permissions", f"anybody may change {path}", f"chmod o-w {path}")
        if mode & stat.S_IROTH and _is_key(path):
            found = True
            yield Finding(WARNING, "permissions", f"anybody may read the key {path}", f"chmod o-r {path}")
    if not found:
        yield Finding(OK, "permissions", "nobody else may change the files, or read keys")


def _is_key(path: Path) -> bool:
    return b"PRIVATE KEY-----" in path.read_bytes()


def _written(plain: Plain) -> Iterator[Finding]:
    """Yield what may be said of the files that are written."""
    log, audit = plain["accessLog"], plain["admin"]["auditLog"]
    if log and log["path"] != "-":
        yield _writable("access log", Path(log["path"]))
    if audit:
        yield _writable("audit log", Path(audit))
    if not plain["rollouts"]:
        return
    state = Path(plain["state"]["path"])
    writable = _writable("state", state)
    yield writable
    if writable.level == OK:
        yield from _lasting(state)


def _writable(what: str, path: Path) -> Finding:
    folder = path.absolute().parent
    if path.exists():
        able, remedy = (
            os.access(path, os.R_OK | os.W_OK),
            f"Give it to the user that runs splitproxy: chown USER {path}",
        )
    elif folder.exists():
        able, remedy = os.access(folder, os.W_OK | os.X_OK), f"Let that user write to {folder}."
    else:
        able, remedy = False, f"mkdir -p {folder}"
    user = f"user {os.getuid()}"
    return (
        Finding(OK, what, f"{path} can be written")
        if able
        else Finding(ERROR, what, f"{path} cannot be written by {user}", remedy)
    )


def _lasting(state: Path) -> Iterator[Finding]:
    folder = state.absolute().parent
    if why := mounts.loss(state):
        remedy = "Name a file on a disk or a volume: state: {path: …}. A restart would forget how far rollouts are."
        yield Finding(WARNING, "state", f"{state} will be lost: {why}", remedy)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if free < _LEAST_SPACE:
        remedy = "Make room: what cannot be saved is not done, so rollouts would stand still."
        yield Finding(WARNING, "state", f"{free // 1024 // 1024} MiB are left at {folder}", remedy)


# --- addresses --------------------------------------------------------------------------------------------------------
def _addresses(plain: Plain, served: frozenset[str]) -> Iterator[Finding]:
    wanted = [("listener", listener["address"]) for listener in plain["listeners"]]
    wanted.append(("admin", plain["admin"]["address"]))
    if plain["probes"]:
        wanted.append(("probes", plain["probes"]["address"]))
    for what, address in wanted:
        why = _taken(address)
        if not why:
            yield Finding(OK, what, f"{address} is free")
        elif address in served:
            yield Finding(OK, what, f"{address} is served by the splitproxy that runs")
        else:
            yield Finding(ERROR, what, f"{address}: {why}", _remedy(address))


def _taken(address: str) -> str:
    """Return why `address` cannot be bound, nothing when it can."""
    try:
        family, where = resolve(address)
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a listener does, in `listening`
            sock.bind(where)
    except OSError as error:
        return in_words(error)
    return ""


def _remedy(address: str) -> str:
    port = int(address.rpartition(":")[2])
    if port < _PRIVILEGED and os.geteuid() != 0:
        return "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port of 1024 or above."
    return f"ss -ltnp 'sport = :{port}' shows what has it; or name another address."


def _served(admin: str) -> frozenset[str]:
    """Return the addresses of the splitproxy that answers at `admin`; none where there is none."""
    try:
        status, told = ask(admin, "GET", "/api/v1/config", _SECONDS)
    except Unanswered:
        return frozenset()
    if status != 200 or not isinstance(told, dict) or not told.get("config"):
        return frozenset()
    config = told["config"]
    found = {listener["address"] for listener in config["listeners"]} | {config["admin"]["address"]}
    return frozenset(found | ({config["probes"]["address"]} if config["probes"] else set()))


def _reachable(address: str) -> str:
    """Return where an API bound to `address` is asked from this machine."""
    host, _, port = address.rpartition(":")
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{everywhere.get(host, host)}:{port}"


def _workers(plain: Plain) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    if isinstance(plain["workers"], int) and plain["workers"] > cores:
        text = f"{plain['workers']} on {counted(cores, 'core')}: they take turns, which costs latency"
        yield Finding(WARNING, "workers", text, "workers: auto")
