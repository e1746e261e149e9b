"""Take the pictures of the dashboard in `docs/images`: `python -m web.pictures [FOLDER]` in `tests`.

Two versions with latencies of their own are released before a real browser: one run under way, one rolled back.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from web.conftest import Scene, Service, chromium

LIMIT_BYTES = 150_000
LOOKS = {"light": (1240, 860, "light"), "dark": (1240, 860, "dark"), "phone": (390, 844, "light")}
PAGES = {
    "rollout": "#/rollouts/shop",
    "rollback": "#/rollouts/search",
    "routes": "#/routes",
    "upstreams": "#/upstreams",
    "configuration": "#/configuration",
}
TOP = "window.scrollTo(0, 0)"


class Living(Service):
    """A version that takes its time, each time another, and fails now and then."""

    class Handler(Service.Handler):
        def do_GET(self):  # noqa: N802 - http.server calls it so
            chance = self.server.chance
            time.sleep(min(0.4, 0.018 * chance.lognormvariate(0, 0.45)))
            self.server.status = 500 if chance.random() < self.server.failing else 200
            super().do_GET()

    def __init__(self, name):
        self.chance, self.failing = random.Random(name), 0.0
        super().__init__(name)


def configuration(config):
    """Return the scene's configuration with longer plans, a mirror and a rule for testers."""
    shop, search = config["rollouts"]
    steps = [{"setWeight": weight, "hold": "4s"} for weight in (5, 10, 20, 30, 50)]
    limits = [
        {"name": "request-success-rate", "thresholdRange": {"min": 99}},
        {"name": "request-duration", "thresholdRange": {"max": 400}},
    ]
    for rollout, revision in ((shop, "2.4.0"), (search, "1.9.3")):
        rollout["promotion"] = {"bakeTime": "30s"}
        rollout["analysis"].update({"interval": "2s", "threshold": 4, "minRequests": 1, "metrics": limits})
        rollout["analysis"].pop("compare")
        rollout["revision"] = revision
    shop["analysis"]["steps"] = [*steps[:-1], {"setWeight": 50, "hold": "10m"}]
    search["analysis"]["steps"] = steps[1:]
    insiders = {
        "name": "insiders",
        "matches": [{"headers": [{"name": "x-cohort", "value": "insider"}]}],
        "backendRefs": [{"name": "shop-v2"}],
    }
    copied = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "search-v2"}, "percent": 20}}
    config["routes"].append(
        {
            "name": "beta",
            "hostnames": ["beta.example.com"],
            "rules": [insiders, {"name": "everyone", "filters": [copied], "backendRefs": [{"name": "search-v1"}]}],
        }
    )
    for upstream in config["upstreams"]:
        upstream["healthCheck"] = {"path": "/", "interval": "1s"}
    return config


class Exhibition(Scene):
    """The scene, with more going on."""

    hosts = (("shop", 3), ("search", 2), ("beta", 1))
    version = Living
    arranged = staticmethod(configuration)


def take(browser, scene, folder):
    """Take a picture of every page in every look; return those that are too large."""
    large = []
    for look, (width, height, scheme) in LOOKS.items():
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        page.goto(scene.url)
        page.wait_for_selector("#headline")
        for name, where in PAGES.items():
            page.evaluate("where => location.hash = where", where)
            page.wait_for_selector(f".detail[data-key='{where.split('/')[-1]}']")
            page.wait_for_timeout(2500)
            page.evaluate(TOP)
            path = folder / f"dashboard-{name}-{look}.png"
            page.screenshot(path=path)
            size = path.stat().st_size
            print(f"{path}: {size} bytes")
            large += [path] if size > LIMIT_BYTES else []
        context.close()
    return large


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs/images")
    with tempfile.TemporaryDirectory() as state, chromium() as browser:
        scene = Exhibition(Path(state))
        try:
            scene.proxy.until("search", lambda one: one["canaryWeight"] >= 10)
            scene.services["search-v2"].failing = 0.35
            scene.proxy.until_phase("search", "Failed")
            scene.services["search-v2"].failing = 0.0
            scene.proxy.until("shop", lambda one: one["canaryWeight"] >= 25)
            large = take(browser, scene, folder)
        finally:
            scene.close()
    return f"too large: {large}" if large else 0


if __name__ == "__main__":
    sys.exit(main())
