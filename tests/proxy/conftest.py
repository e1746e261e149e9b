"""A worker's data plane without its process: a service on the test's own event loop, scripted endpoints, raw clients.

Whatever a test does, at its end every request must have had one outcome and one line in the access log, nothing may be
in flight any more, and no defect may have been logged: the rig checks that for all of them.
"""

import asyncio
import contextlib
import inspect
import json
import mmap
import socket
import ssl
import struct
import traceback
from dataclasses import dataclass, field

import pytest
import trustme
import uvloop

from splitproxy.core import snapshot, stats
from splitproxy.proxy.door import Entrance
from splitproxy.proxy.service import Service

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PATIENCE = 15.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMITS = {
    "headerBytes": 65536,
    "headerCount": 100,
    "uriBytes": 8192,
    "bodyBytes": 0,
    "headerTimeout": 10.0,
    "bodyIdleTimeout": 30.0,
    "keepAliveTimeout": 75.0,
}
POOL = {"maxIdle": 128, "idleTimeout": 30.0, "maxConnections": 1024, "maxPending": 1024}
HEALTH = {"healthCheck": None, "outlierDetection": None, "slowStart": 0.0, "panicThreshold": 50}
TIMEOUTS = {"request": 0.0, "backendRequest": 0.0, "responseHead": 60.0, "streamIdle": 300.0, "tunnelIdle": 3600.0}
ROOT = {"path": {"type": "PathPrefix", "value": "/"}, "method": None, "headers": [], "cookies": [], "queryParams": []}


def pytest_generate_tests(metafunc):
    """Run `async def` tests on the event loop that workers have, or on those that `on_loop` names."""
    if inspect.iscoroutinefunction(metafunc.function):
        marker = metafunc.definition.get_closest_marker("on_loop")
        metafunc.fixturenames.append("loop_kind")
        metafunc.parametrize("loop_kind", marker.args if marker else ["uvloop"])


def pytest_configure(config):
    config.addinivalue_line("markers", "on_loop(*kinds): run an asynchronous test on these kinds of event loop")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def body():
        rig = pyfuncitem.funcargs.get("rig")
        try:
            async with asyncio.timeout(PATIENCE):
                await pyfuncitem.function(**arguments)
                if rig is not None:
                    await rig.settle()
        finally:
            if rig is not None:
                await rig.close()

    with asyncio.Runner(loop_factory=LOOPS[pyfuncitem.callspec.params["loop_kind"]]) as runner:
        runner.run(body())
    return True


# --- messages ----------------------------------------------------------------------------------------------------
@dataclass
class Message:
    """A request as an endpoint got it, or a response as a client got it."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list["Message"] = field(default_factory=list)
    raw: bytes = b""

    @property
    def status(self):
        return int(self.line.split(b" ")[1])

    @property
    def method(self):
        return self.line.split(b" ")[0]

    @property
    def target(self):
        return self.line.split(b" ")[1]

    def all(self, name):
        return [value for own, value in self.fields if own.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None

    @property
    def names(self):
        return {name.lower() for name, _ in self.fields}

    @property
    def json(self):
        return json.loads(self.body)


async def read_head(reader):
    raw = await reader.readuntil(b"\r\n\r\n")
    line, *lines = raw[:-4].split(b"\r\n")
    pairs = (item.partition(b":") for item in lines)
    return Message(line, [(name, value.strip()) for name, _, value in pairs], raw=raw)


async def read_chunks(reader, message):
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        message.body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line[:-2].partition(b":")
        message.trailers.append((name, value.strip()))


async def read_request(reader):
    message = await read_head(reader)
    if message.get(b"transfer-encoding") == b"chunked":
        await read_chunks(reader, message)
    else:
        message.body = await reader.readexactly(int(message.get(b"content-length") or 0))
    return message


async def read_response(reader, method=b"GET"):
    interim = []
    while (message := await read_head(reader)).status < 200 and message.status != 101:
        interim.append(message)
    message.interim = interim
    if method == b"HEAD" or message.status in {101, 204, 304}:
        return message
    if message.get(b"transfer-encoding") == b"chunked":
        await read_chunks(reader, message)
    elif message.get(b"content-length") is not None:
        message.body = await reader.readexactly(int(message.get(b"content-length")))
    else:
        message.body = await reader.read()
    return message


class Peer:
    """One end of a connection, written to and read from by a test."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, data, *, bytewise=False):
        """Send `data`; one byte at a time if `bytewise`, each seen by the other side on its own."""
        if not bytewise:
            self.writer.write(data)
            await self.writer.drain()
            return
        for at in range(len(data)):
            if self.writer.is_closing():
                return
            self.writer.write(data[at : at + 1])
            await asyncio.sleep(0)

    async def ends(self):
        """Return how the other side ended the connection, `eof` or `reset`, after whatever it still sent."""
        try:
            rest = await self.reader.read()
        except ConnectionError:
            return "reset"
        assert rest == b"", rest[:200]
        return "eof"

    def close(self):
        self.writer.close()

    def reset(self):
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def request(self):
        return await read_request(self.reader)


def cut(peer):
    """End a connection without a word, if it has not ended yet."""
    with contextlib.suppress(AttributeError):  # Python 3.11.2, of one over TLS that is closed already
        peer.writer.transport.abort()


class Client(Peer):
    async def response(self, method=b"GET"):
        return await read_response(self.reader, method)

    async def ask(self, target="/", method="GET", *, body=b"", **fields):
        """Send one request and return its response; names of fields are written with `_` for `-`."""
        fields = {"host": "kit.test", **fields}
        if body:
            fields["content_length"] = len(body)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        await self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return await self.response(method.encode())


class Endpoint:
    """A scripted endpoint: `script(peer, endpoint)` is run for each connection."""

    def __init__(self, script):
        self.script = script
        self.received = []
        self.connections = 0
        self.peers = []
        self.connected = asyncio.Event()
        self._tasks = set()

    async def start(self, tls=None):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        self.connections += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.connected.set()
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self.script(peer, self)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def stop(self):
        self.server.close()
        for task in list(self._tasks):
            task.cancel()
        for peer in self.peers:
            cut(peer)


def answering(data=OK, *, bytewise=False, then=""):
    """Return a script that answers every request with `data`; `then`: close or reset the connection."""

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            answer = data(endpoint.received[-1]) if callable(data) else data
            await peer.send(answer, bytewise=bytewise)
            if then:
                peer.reset() if then == "reset" else peer.close()
                return

    return script


# --- certificates ----------------------------------------------------------------------------------------------------
class Authority:
    """Who certifies, in every form in which a test needs what it has certified."""

    def __init__(self):
        self.ca = trustme.CA()
        self.pem = self.ca.cert_pem.bytes().decode()

    def certified(self, *names, **options):
        """Return a certificate for `names` in the form of the plain snapshot."""
        made = self.ca.issue_cert(*names, **options)
        chain = "".join(part.bytes().decode() for part in made.cert_chain_pems)
        return {"names": list(names), "pem": {"chain": chain, "key": made.private_key_pem.bytes().decode()}}

    def listener(self, *certificates, **changes):
        """Return the `tls` of a plain listener; certificates are given by their names."""
        pairs = [self.certified(*names) for names in certificates]
        return {"certificates": pairs, "minVersion": "1.2", "clientCa": "", "clientAuth": "required", **changes}

    def upstream(self, **changes):
        """Return the `tls` of a plain upstream."""
        return {"ca": self.pem, "serverName": None, "pem": None, "insecureSkipVerify": False, **changes}

    def client(self, *names, alpn=()):
        """Return the context of a client that trusts us; with `names` it has a certificate for them."""
        context = ssl.create_default_context(cadata=self.pem)
        if names:
            self.ca.issue_cert(*names).configure_cert(context)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def server(self, *names, clients=None):
        """Return the context of an endpoint; `clients` certifies those that it lets in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=clients.pem)
        return context


@pytest.fixture(scope="session")
def authority():
    return Authority()


# --- the rig -----------------------------------------------------------------------------------------------------
class Rig:
    """A service, its listener, and whoever talks to it."""

    answering = staticmethod(answering)
    OK = OK

    def __init__(self, folder):
        self.log_path = folder / "access.log"
        self.endpoints, self.clients, self.entrance = [], [], None
        self.service = None
        self.area = None  # where the live shares of rollouts stand, if there are any
        self.expect_bug = False

    async def endpoint(self, script=OK, *, tls=None, **options):
        """Start an endpoint, `tls` its context; bytes stand for a script that always answers with them."""
        endpoint = Endpoint(script if inspect.iscoroutinefunction(script) else answering(script, **options))
        self.endpoints.append(endpoint)
        return await endpoint.start(tls)

    def plain(self, *upstreams, rules=None, limits=(), timeouts=(), pool=(), generation=1, **changes):
        """Return a plain snapshot; upstreams a, b, c... are each an endpoint, a `host:port`, or a list of these."""
        plans = []
        scheme = "https" if "tls" in changes else "http"
        for name, given in zip("abcdef", upstreams, strict=False):
            urls = [
                u if isinstance(u, str) else f"127.0.0.1:{u.port}"
                for u in (given if isinstance(given, list) else [given])
            ]
            split = [url.rpartition(":") for url in urls]
            plans.append(
                {
                    "name": name,
                    "endpoints": [
                        {"url": f"{scheme}://{url}", "host": host, "port": int(port), "weight": 1}
                        for url, (host, _, port) in zip(urls, split, strict=True)
                    ],
                    "tls": changes.get("tls"),
                    "loadBalancing": "roundRobin",
                    "connectTimeout": changes.get("connect_timeout", 3.0),
                    "pool": {**POOL, **dict(pool)},
                    **HEALTH,
                    **changes.get("health", {}).get(name, {}),
                }
            )
        rules = [{}] if rules is None else rules
        return {
            "listeners": [{"name": "web", "address": "127.0.0.1:0", **changes.get("listener", {})}],
            "admin": {"address": "127.0.0.1:0", "allowedHosts": []},
            "probes": None,
            "workers": 1,
            "accessLog": {"path": str(self.log_path), "format": changes.get("log_format", "json")},
            "tracing": changes.get("tracing"),
            "limits": {**LIMITS, **dict(limits)},
            "upstreams": plans,
            "routes": [
                {
                    "name": "shop",
                    "hostnames": changes.get("hostnames", []),
                    "rules": [
                        {
                            "name": str(number),
                            "matches": [ROOT],
                            "filters": [],
                            "backendRefs": [{"name": "a", "weight": 1, "filters": []}],
                            "split": {"key": None, "overrides": []},
                            "timeouts": {**TIMEOUTS, **dict(timeouts)},
                            **rule,
                        }
                        for number, rule in enumerate(rules)
                    ],
                }
            ],
        }

    async def serve(self, *upstreams, **options):
        """Start to serve; called again, take over another configuration."""
        plain = self.plain(*upstreams, **options)
        if self.service is None:
            region = stats.Region(memoryview(mmap.mmap(-1, stats.REGION_BYTES)).cast("Q"))
            self.service = Service(region, asyncio.get_running_loop())
            self.service.log_bug = self._bug
            self.bugs = []
        generation = self.service.generation + 1
        self.service.commit(await self.service.prepare(snapshot.build(plain, generation, self.area)))
        if self.entrance is None:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
            self.entrance = Entrance(self.service, "127.0.0.1:0", sock)
            await self.entrance.open()
        else:
            await self.entrance.adapt()

    def _bug(self, where):
        self.bugs.append(f"{where}: {traceback.format_exc()}")

    async def client(self, receive_buffer=0, *, first=b"", tls=None, name=None):
        """Connect a client, which begins with `first`, then TLS in the context `tls`, asking for `name`."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        if first:
            await asyncio.get_running_loop().sock_sendall(sock, first)
        options = {} if tls is None else {"ssl": tls, "server_hostname": name or ""}
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16, **options)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def ask(self, *args, connection=(), **fields):
        """Ask once, on a connection of its own, made with the options `connection`."""
        client = await self.client(**dict(connection))
        response = await client.ask(*args, **fields)
        client.close()
        return response

    def pool(self, name="a", *, mirrors=False):
        return self.service.upstream(name, mirrors=mirrors)

    # --- signals --------------------------------------------------------------------------------------------------
    def cells(self):
        """Return {(route, rule, upstream, role): block}, with what is still in batches written."""
        self.service._write_series()
        cells = self.service.cells
        return {
            key[1:]: cells[place : place + stats.BLOCK]
            for key, place in stats.directory(cells)
            if key[0] == stats.SERIES
        }

    def counts(self, first, names, **of):
        """Return {name: count} of one group of cells, summed over the series that `of` names; zeros left out."""
        total = dict.fromkeys(names, 0)
        for key, block in self.cells().items():
            own = dict(zip(("route", "rule", "upstream", "role"), key, strict=True))
            if all(own[name] == value for name, value in of.items()):
                for index, name in enumerate(names):
                    total[name] += block[first + index]
        return {name: count for name, count in total.items() if count}

    def codes(self, **of):
        return self.counts(stats.CODE, stats.CODES, **of)

    def outcomes(self, **of):
        return self.counts(stats.OUTCOME, stats.OUTCOMES, **of)

    def reasons(self, **of):
        return self.counts(stats.REASON, stats.REASONS, **of)

    def drops(self, **of):
        return self.counts(stats.DROP, stats.DROPS, **of)

    def lines(self):
        """Return the lines of the access log."""
        self.service.access_log.flush()
        return self.log_path.read_text().splitlines()

    def log(self):
        return [json.loads(line) for line in self.lines()]

    # --- the end --------------------------------------------------------------------------------------------------
    async def until(self, condition):
        """Wait for what only looking tells, a few milliseconds at a time."""
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)

    def at_rest(self):
        pools = [pool for route in self.service._routes.values() for pool in (route.traffic, route.mirrors)]
        return not any(series.active for series in self.service._series.values()) and not any(
            endpoint.active for pool in pools for endpoint in pool.endpoints.values()
        )

    async def settle(self):
        """Wait until all is over, then check what must hold after anything."""
        for client in self.clients:
            client.close()
        if self.service is None:
            return
        await self.service.idle.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.until(self.at_rest)
        active = {key: series.active for key, series in self.service._series.items() if series.active}
        assert not active, f"still in flight: {active}"
        for route in self.service._routes.values():
            for pool in (route.traffic, route.mirrors):
                assert not pool.waiting
                for endpoint in pool.endpoints.values():
                    assert endpoint.active == 0, f"{endpoint.name} has {endpoint.active} requests that nobody knows of"
        traffic = sum(sum(self.codes(role=role).values()) for role in ("primary", "canary", "none"))
        assert traffic == len(self.lines()), "requests counted and requests logged differ"
        assert not self.bugs, "\n".join(self.bugs)

    async def close(self):
        for client in self.clients:
            cut(client)
        for endpoint in self.endpoints:
            endpoint.stop()
        if self.entrance is not None:
            self.entrance._stop()
        if self.service is not None:
            if self.service.access_log is not None:
                self.service.access_log.close()
                self.service.access_log = None
            for downstream in list(self.service.connections):
                downstream.transport.abort()
            for route in self.service._routes.values():
                route.retire()
            await self.service.idle.wait()
            await asyncio.sleep(0.01)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)
