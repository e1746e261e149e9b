"""`python -m splitproxy.control.loader GENERATION SNAPSHOT-FD DESCRIPTION-FD PATH WORKERS`: one load, see `loading`."""

import fcntl
import gc
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from splitproxy.errors import ConfigError


def main(generation: int, snapshot: int, description: int, path: str, workers: str) -> None:
    """Load and compile `path`, and leave the result, or what is wrong, in the memfds."""
    gc.disable()  # a short life, and next to nothing of what is made becomes garbage before its end
    from splitproxy.core.snapshot import encode

    try:
        head, plain, public = load(path, workers)
    except ConfigError as error:
        errors = [{**problem.to_dict(), "text": str(problem)} for problem in error.args[0]]
        write(description, lines({"errors": errors}))
    else:
        write(snapshot, encode(plain, generation))
        write(description, lines(head, plain, public))


def load(path: str, workers: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the small fields of `loading.Candidate`, the plain snapshot, and its public form. Raises ConfigError."""
    from splitproxy import config

    loaded = config.load(Path(path), os.environ)
    plain = loaded.plain
    if workers:
        plain["workers"] = len(os.sched_getaffinity(0)) if workers == "auto" else int(workers)
    head = {
        "listeners": [listener["address"] for listener in plain["listeners"]],
        "workers": plain["workers"],
        "admin": plain["admin"]["address"],
        "allowed_hosts": plain["admin"]["allowedHosts"],
        "tokens": list(tokens(plain)),
        "audit_log": plain["admin"]["auditLog"],
        "max_series": plain["metrics"]["maxSeries"],
        "drain": [plain["drain"]["delay"], plain["drain"]["timeout"]],
        "probes": plain["probes"] and plain["probes"]["address"],
        "shares": list(shares(plain)),
        "warnings": [str(warning) for warning in loaded.warnings],
        "checksum": loaded.checksum,
        "sources": [str(source) for source in loaded.sources],
        "tracing": plain["tracing"],
        "releases": releases(plain),
        "health": health(plain),
    }
    return head, plain, loaded.public


def tokens(plain: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the fields of `loading.Token` for every token, and forget the tokens themselves: nobody needs them."""
    for token in plain["admin"]["tokens"]:
        yield token["name"], token["role"], hashlib.sha256(token["value"].encode()).hexdigest()
        token["value"] = ""


def shares(plain: dict[str, Any]) -> Iterator[tuple[str, str, str, str, float]]:
    """Yield the fields of `loading.Share` for every rule's upstreams, as the workers see them."""
    from splitproxy.core.splitting import compile_split

    for route in plain["routes"]:
        for rule in route["rules"]:
            found: dict[tuple[str, str], float] = {}
            for backend, percent in compile_split((route["name"], rule["name"]), rule, "/").shares():
                key = (backend.upstream, backend.role)
                found[key] = found.get(key, 0.0) + percent
            for (upstream, role), percent in found.items():
                yield route["name"], rule["name"], upstream, role, percent


def releases(plain: dict[str, Any]) -> dict[str, Any]:
    """Return `loading.Candidate.releases`: little, however many routes there are."""
    rollouts = plain["rollouts"]
    upstreams = {rollout[side] for rollout in rollouts for side in ("primary", "canary")}
    routes = {rollout["route"] for rollout in rollouts}
    return {
        **{key: plain[key] for key in ("rollouts", "alertProviders", "metricTemplates", "state")},
        "endpoints": {
            upstream["name"]: [endpoint["url"] for endpoint in upstream["endpoints"]]
            for upstream in plain["upstreams"]
            if upstream["name"] in upstreams
        },
        "rules": {
            route["name"]: [rule["name"] for rule in route["rules"]]
            for route in plain["routes"]
            if route["name"] in routes
        },
    }


def health(plain: dict[str, Any]) -> dict[str, Any]:
    """Return `loading.Candidate.health`."""
    return {
        "watched": [one["name"] for one in plain["upstreams"] if one["healthCheck"] or one["outlierDetection"]],
        "failovers": [
            (route["name"], rule["name"], rule["rollout"] is not None)
            for route in plain["routes"]
            for rule in route["rules"]
            if rule["split"]["failover"]
        ],
    }


def lines(*documents: Any) -> Iterator[bytes]:
    """Yield each document as a line of JSON."""
    for document in documents:
        yield json.dumps(document).encode() + b"\n"


def write(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write all pieces to a memfd and make it immutable, whoever holds it."""
    with open(descriptor, "wb", closefd=False) as file:
        file.writelines(pieces)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
