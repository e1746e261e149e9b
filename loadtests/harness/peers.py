"""The proxies side by side: how each is told to split 90/10 over two upstreams, with keep-alive and no access log."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import ROOT, find_program
from .requests import route_host, route_prefix

PRIMARY_WEIGHT, CANARY_WEIGHT = 90, 10


@dataclass(frozen=True)
class Upstreams:
    """The ports of the two versions, and of the one that gets copies."""

    primary: int
    canary: int
    mirror: int


@dataclass(frozen=True)
class Setup:
    """What a scenario asks of a peer. `routes` 0 is one route for everything; `mirror` copies every request."""

    workers: int = 1
    routes: int = 0
    mirror: bool = False
    connections: int = 2048


@dataclass(frozen=True)
class Peer:
    """One proxy: `configure` writes its files into a folder and returns the command that serves them."""

    name: str
    program: Callable[[], str | None]
    version: Callable[[str], str]
    configure: Callable[[str, Path, int, Upstreams, Setup, int], list[str]]
    can_mirror: bool = False
    can_route: bool = True

    def suits(self, setup: Setup) -> bool:
        return (self.can_mirror or not setup.mirror) and (self.can_route or not setup.routes)


def _version_by(*arguments: str, pattern: str) -> Callable[[str], str]:
    def ask(program: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
        found = re.search(pattern, done.stdout + done.stderr)
        return found[1] if found else "unknown version"

    return ask


def yaml_for_splitproxy(port: int, admin: int, upstreams: Upstreams, setup: Setup, primary_weight: int = 90) -> str:
    """Return the file `splitproxy run` reads."""
    lines = [
        f"workers: {setup.workers}",
        f"listeners:\n  - address: 127.0.0.1:{port}",
        f"admin: {{address: '127.0.0.1:{admin}'}}",
        "upstreams:",
        f"  - {{name: primary, endpoints: ['http://127.0.0.1:{upstreams.primary}']}}",
        f"  - {{name: canary, endpoints: ['http://127.0.0.1:{upstreams.canary}']}}",
    ]
    if setup.mirror:
        lines.append(f"  - {{name: shadow, endpoints: ['http://127.0.0.1:{upstreams.mirror}']}}")
    lines.append("routes:")
    copy = (
        "\n          - {type: RequestMirror, requestMirror: {backendRef: {name: shadow}, percent: 100, methods: all}}"
    )
    filters = f"\n        filters:{copy}" if setup.mirror else ""
    for number in range(setup.routes or 1):
        lines.append(f"  - name: route-{number}")
        if setup.routes:
            lines.append(f"    hostnames: [{route_host(number)}]")
        lines.append(
            "    rules:\n"
            f"      - matches: [{{path: {{type: PathPrefix, value: {route_prefix(number)}}}}}]{filters}\n"
            "        backendRefs:\n"
            f"          - {{name: primary, weight: {primary_weight}}}\n"
            f"          - {{name: canary, weight: {100 - primary_weight}}}"
        )
    return "\n".join(lines) + "\n"


def _splitproxy(program: str, folder: Path, port: int, upstreams: Upstreams, setup: Setup, spare: int) -> list[str]:
    path = folder / "splitproxy.yaml"
    path.write_text(yaml_for_splitproxy(port, spare, upstreams, setup))
    return [program, "-m", "splitproxy", "run", "-c", str(path)]


def nginx_preamble(workers: int, folder: Path, connections: int = 2048) -> str:
    """Return what every nginx here begins with: no daemon, no log, keep-alive without a limit on its length."""
    user = "user root root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return (
        f"{user} daemon off; worker_processes {workers}; error_log stderr error; pid {folder}/nginx.pid;\n"
        f"events {{ worker_connections {connections}; }}\n"
        f"http {{ access_log off; {folders} keepalive_timeout 75s; keepalive_requests 1000000000;\n"
        "default_type text/html; tcp_nodelay on; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n"
    )


def _nginx(program: str, folder: Path, port: int, upstreams: Upstreams, setup: Setup, _spare: int) -> list[str]:
    reuse = " reuseport" if setup.workers > 1 else ""
    mirror = "mirror /mirror;" if setup.mirror else ""
    copy = "location = /mirror { internal; proxy_pass http://shadow$request_uri; }" if setup.mirror else ""
    keep = "keepalive 128; keepalive_requests 1000000000;"
    text = nginx_preamble(setup.workers, folder, setup.connections) + (
        f"upstream shop {{ server 127.0.0.1:{upstreams.primary} weight={PRIMARY_WEIGHT};"
        f" server 127.0.0.1:{upstreams.canary} weight={CANARY_WEIGHT}; {keep} }}\n"
        f"upstream shadow {{ server 127.0.0.1:{upstreams.mirror}; {keep} }}\n"
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;\n'
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n"
        "proxy_max_temp_file_size 0; proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_busy_buffers_size 64k;\n"
    )
    listen = f"listen 127.0.0.1:{port} backlog=4096{reuse}"
    if not setup.routes:
        text += f"server {{ {listen}; {copy} location / {{ {mirror} proxy_pass http://shop; }} }}\n"
    else:
        shared = "".join(
            f"location {route_prefix(number)} {{ proxy_pass http://shop; }}\n" for number in range(1, setup.routes, 2)
        )
        text += f"server {{ {listen} default_server; server_name shared.example.com;\n"
        text += f"location / {{ return 404; }}\n{shared}}}\n"
        for number in range(0, setup.routes, 2):
            text += (
                f"server {{ listen 127.0.0.1:{port}; server_name {route_host(number)};"
                " location / { proxy_pass http://shop; } }\n"
            )
    path = folder / "nginx.conf"
    path.write_text(text + "}\n")
    return [program, "-p", str(folder), "-c", str(path), "-e", "stderr"]


def _haproxy(program: str, folder: Path, port: int, upstreams: Upstreams, setup: Setup, _spare: int) -> list[str]:
    choice = "default_backend shop"
    if setup.routes:
        hosts = "".join(f"{route_host(number)} shop\n" for number in range(0, setup.routes, 2))
        prefixes = "".join(f"{route_prefix(number)}/ shop\n" for number in range(1, setup.routes, 2))
        (folder / "hosts.map").write_text(hosts)
        (folder / "prefixes.map").write_text(prefixes or "/none none\n")
        choice = (
            "acl shared req.hdr(host) -i shared.example.com\n"
            f"  use_backend %[path,map_beg({folder}/prefixes.map,none)] if shared\n"
            f"  use_backend %[req.hdr(host),lower,map({folder}/hosts.map,none)]"
        )
    path = folder / "haproxy.cfg"
    path.write_text(
        f"global\n  nbthread {setup.workers}\n  maxconn {setup.connections}\n  no strict-limits\n"
        "defaults\n  mode http\n  option forwardfor\n  http-reuse always\n  timeout connect 3s\n  timeout client 75s\n"
        "  timeout server 60s\n  timeout http-request 10s\n  timeout http-keep-alive 75s\n"
        f"frontend web\n  bind 127.0.0.1:{port} backlog 4096\n  {choice}\n"
        "backend shop\n  balance roundrobin\n"
        f"  server primary 127.0.0.1:{upstreams.primary} weight {PRIMARY_WEIGHT}\n"
        f"  server canary 127.0.0.1:{upstreams.canary} weight {CANARY_WEIGHT}\n"
        "backend none\n  http-request return status 404\n"
    )
    return [program, "-db", "-f", str(path)]


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _envoy_hosts(setup: Setup) -> list[dict[str, Any]]:
    action: dict[str, Any] = {
        "timeout": "60s",
        "weighted_clusters": {
            "clusters": [
                {"name": "primary", "weight": PRIMARY_WEIGHT},
                {"name": "canary", "weight": CANARY_WEIGHT},
            ]
        },
    }
    if setup.mirror:
        action["request_mirror_policies"] = [{"cluster": "shadow"}]
    everything = [{"match": {"prefix": "/"}, "route": action}]
    if not setup.routes:
        return [{"name": "shop", "domains": ["*"], "routes": everything}]
    prefixes = [
        {"match": {"path_separated_prefix": route_prefix(number)}, "route": action}
        for number in range(1, setup.routes, 2)
    ]
    hosts = [
        {"name": route_host(number), "domains": [route_host(number)], "routes": everything}
        for number in range(0, setup.routes, 2)
    ]
    return [*hosts, {"name": "shared", "domains": ["shared.example.com"], "routes": prefixes}]


def _envoy(program: str, folder: Path, port: int, upstreams: Upstreams, setup: Setup, _spare: int) -> list[str]:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "use_remote_address": True,
        "route_config": {"name": "routes", "virtual_hosts": _envoy_hosts(setup)},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    ports = {"primary": upstreams.primary, "canary": upstreams.canary, "shadow": upstreams.mirror}
    clusters = [_envoy_cluster(name, number) for name, number in ports.items()]
    path = folder / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    flags = ["--concurrency", str(setup.workers), "--disable-hot-restart", "--log-level", "error"]
    return [program, "-c", str(path), *flags]


def _aiohttp(program: str, _folder: Path, port: int, upstreams: Upstreams, setup: Setup, _spare: int) -> list[str]:
    script = str(ROOT / "loadtests" / "peers" / "aiohttp_proxy.py")
    shares = [f"{upstreams.primary}={PRIMARY_WEIGHT}", f"{upstreams.canary}={CANARY_WEIGHT}"]
    return [program, script, "--port", str(port), "--workers", str(setup.workers), *shares]


def _python_with(*modules: str) -> Callable[[], str | None]:
    def find() -> str | None:
        sys.path.insert(0, str(ROOT))
        try:
            found = all(importlib.util.find_spec(module) for module in modules)
        except ModuleNotFoundError:
            found = False
        finally:
            sys.path.remove(str(ROOT))
        return sys.executable if found else None

    return find


def _splitproxy_version(_program: str) -> str:
    text = (ROOT / "splitproxy" / "__init__.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    return f"{found[1] if found else 'unknown'} on Python {sys.version.split()[0]}"


def _aiohttp_version(_program: str) -> str:
    return importlib.metadata.version("aiohttp")


SUBJECT = "splitproxy"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            SUBJECT, _python_with("splitproxy.cli.run", "uvloop", "httptools"), _splitproxy_version, _splitproxy, True
        ),
        Peer("nginx", lambda: find_program("nginx"), _version_by("-v", pattern=r"nginx/(\S+)"), _nginx, True),
        Peer("haproxy", lambda: find_program("haproxy"), _version_by("-v", pattern=r"version (\S+)"), _haproxy),
        Peer(
            "envoy", lambda: find_program("envoy"), _version_by("--version", pattern=r"/(\d+\.\d+\.\d+)/"), _envoy, True
        ),
        Peer("aiohttp", _python_with("aiohttp", "uvloop"), _aiohttp_version, _aiohttp, can_route=False),
    )
}
"""Name -> peer, in the order of the report."""
