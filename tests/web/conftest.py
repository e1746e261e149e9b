"""A running proxy with two releases, clients of both, and a real browser that looks at its dashboard."""

import contextlib
import json
import shutil
import socket
from pathlib import Path

import pytest
from e2e.conftest import Clients, Proxy, Service

PATIENCE = 30_000
"""Milliseconds that the page may take for anything, on a busy machine."""
TOKENS = [
    {"name": "ann", "role": "read", "value": "only-looking-0123456789"},
    {"name": "bob", "role": "operator", "value": "also-steering-0123456789"},
]


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


def release(name, analysis):
    return {
        "name": name,
        "route": name,
        "primary": f"{name}-v1",
        "canary": f"{name}-v2",
        "analysis": {
            "interval": "1s",
            "threshold": 2,
            "minRequests": 3,
            "compare": False,
            "metrics": [
                {"name": "request-success-rate", "thresholdRange": {"min": 99}},
                {"name": "request-duration", "thresholdRange": {"max": 5000}},
            ],
            **analysis,
        },
    }


def configuration(services, folder):
    """Return a file with two releases: one with a gate before its promotion, one whose canary can be made bad."""
    approve = {"name": "approval", "type": "confirm-promotion"}
    names = ("shop", "search")
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": free_address()},
        "state": {"path": str(folder / "state.db")},
        "upstreams": [{"name": name, "endpoints": [f"http://{service.address}"]} for name, service in services.items()],
        "routes": [
            {
                "name": name,
                "hostnames": [f"{name}.example.com"],
                "rules": [{"backendRefs": [{"name": f"{name}-v1"}]}],
            }
            for name in names
        ],
        "rollouts": [
            release("shop", {"steps": [{"setWeight": 20}, {"setWeight": 50}], "webhooks": [approve]}),
            release("search", {"steps": [{"setWeight": 30, "iterations": 1000}]}),
        ],
    }


class Scene:
    """The proxy and all around it."""

    version = Service
    hosts = (("shop", 2), ("search", 1))
    """Who is asked for, and by how many clients."""

    def __init__(self, folder):
        names = ("shop-v1", "shop-v2", "search-v1", "search-v2")
        self.services = {name: self.version(name) for name in names}
        self.config = self.arranged(configuration(self.services, folder))
        file = folder / "splitproxy.json"
        file.write_text(json.dumps(self.config))
        self.proxy = Proxy(file, self.config["admin"]["address"])
        self.clients = [Clients(self.proxy.listener, f"{name}.example.com", count=count) for name, count in self.hosts]

    @staticmethod
    def arranged(config):
        """Return the configuration as this scene wants it."""
        return config

    @property
    def url(self):
        return f"http://{self.proxy.admin}"

    def close(self):
        for clients in self.clients:
            clients.stop()
        self.proxy.stop()
        for service in self.services.values():
            service.shutdown()
            service.server_close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("web"))
    yield made
    made.close()


@contextlib.contextmanager
def chromium():
    """Start Debian's Chromium; skip where it or its driver is absent."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium")
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture
def open_page(browser, scene):
    """Return a function that opens the dashboard: (where, width=, scheme=). No page may complain in its console."""
    contexts, complaints = [], []

    def open_one(where="", *, width=1280, height=900, scheme="light", quiet=True, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        if quiet:
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{scene.url}/{where}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def axe_source():
    """The accessibility checker, which a test loads into the page."""
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    return (Path(package.__file__).parent / "axe.min.js").read_text()
