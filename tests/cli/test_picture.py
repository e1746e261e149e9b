"""Pictures of a rollout fit the terminal, and what matters most stays."""

import io
import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from splitproxy import picture
from splitproxy.cli.sides import sides
from splitproxy.cli.top_picture import _Top
from splitproxy.cli.watching import Watch
from splitproxy.demo.figures import Figures, Side
from splitproxy.demo.traffic import Seen, Seens
from splitproxy.demo.view import View
from splitproxy.reports import NOTHING

SHOP = json.loads((Path(__file__).parent / "rollout.json").read_text())
CROWDED = {
    **SHOP,
    "reason": "2 of 5 checks failed: request-duration 612.4 ms is above 500 ms (canary, 340 requests in 10 s)",
    "waitingFor": {"gate": "confirm-promotion", "hook": "boss", "since": "2026-03-01T10:00:10Z"},
    "adopt": {"primary": "shop-v2", "canary": "shop-v1"},
    "alarms": ["the disk is full: nothing is saved, so the share does not grow"],
    "history": [{**SHOP["history"][0], "text": f"weight is {number} %"} for number in range(40)],
}
TRIED = {"attempts": 100, "attemptSuccessRate": 0.99}
WINDOW = {
    "seconds": 10,
    "requests": 100,
    "rate": 10.0,
    "successRate": 1.0,
    "p50": 0.004,
    "p95": 0.01,
    "p99": 0.5,
} | TRIED
SIZES = [(20, 5), (40, 12), (80, 24), (120, 40), (250, 80)]


def backend(name, role, **window):
    signals = {**WINDOW, **window}
    return {"name": name, "role": role, "weight": 50.0, "inFlight": 1, "signals": {"10s": signals, "60s": signals}}


def route(*backends, rule="0"):
    return {"name": "shop", "rules": [{"name": rule, "backends": list(backends)}]}


ROUTES = [route(backend("shop-v1", "primary", rate=90.0), backend("shop-v2", "canary"))]


def drawn(renderable, width, height):
    """Return a picture's lines as a terminal of that size shows them."""
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=True, color_system=None).print(renderable)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


class TestWatch:
    def watch(self, found, name="shop"):
        watch = Watch(Namespace(admin="127.0.0.1:1", name=name))
        watch.found, watch._routes = found, ROUTES
        return watch

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(
        "rollout", [SHOP, CROWDED, {**SHOP, "verdicts": [], "history": [], "steps": [], "verbs": []}]
    )
    def test_it_fits(self, size, rollout):
        drawn(self.watch(rollout).picture(*size), *size)

    @pytest.mark.parametrize("size", SIZES[2:])
    def test_on_an_ordinary_terminal_all_that_is_urgent_is_there(self, size):
        text = drawn(self.watch(CROWDED).picture(*size), *size)
        for words in ("shop: Progressing, 12.5 % to shop-v2, step 2 of 3", "2 of 5 checks failed", "the disk is full",
                      "confirm-promotion (boss)", "primary: shop-v2, canary: shop-v1", "fail     612.4 ms  ≤ 500 ms",
                      "shop-v1    primary  87.5 %", "99.00 %", "500 ms", "a abort", "q leaves"):  # fmt: skip
            assert words in text, text

    def test_a_wide_one_has_bars_too(self):
        text = drawn(self.watch(SHOP).picture(120, 40), 120, 40)
        assert re.search(r"shop-v1 +primary +87.5 % +90.0 % +90.0 +99.00 % +4 ms +500 ms +█{20,}", text)
        assert re.search(r"shop-v2 +canary +12.5 % +10.0 % +10.0 ", text)

    @pytest.mark.parametrize("size", SIZES)
    def test_many_rollouts_fit_and_the_rest_is_counted(self, size):
        text = drawn(self.watch([{**SHOP, "name": f"shop-{n}"} for n in range(100)], name=None).picture(*size), *size)
        assert re.search(r"and \d+ more", text)

    def test_a_verb_is_asked_about_first(self):
        watch = self.watch(SHOP)
        assert watch.press("t")
        assert "retry" not in drawn(watch.picture(80, 24), 80, 24), "it is not legal now"
        assert watch.press("a")
        assert "abort shop? y: yes, any other key: no" in drawn(watch.picture(80, 24), 80, 24)
        assert watch.press("q"), "any other key only says no"
        assert "abort shop?" not in drawn(watch.picture(80, 24), 80, 24)
        watch.press("a")
        watch.press("y")
        assert "No splitproxy answers at 127.0.0.1:1" in drawn(watch.picture(200, 24), 200, 24)
        assert not watch.press("q")

    def test_what_is_no_longer_true_is_marked(self):
        watch = self.watch(SHOP)
        watch.look()
        assert drawn(watch.picture(80, 24), 80, 24).startswith("As of 0 s ago. No splitproxy answers")


class TestSides:
    def test_rules_add_up_and_the_busiest_has_the_durations(self):
        quiet = route(
            backend("shop-v1", "primary", requests=10, attempts=10, attemptSuccessRate=0.5, p99=9.0), rule="1"
        )
        primary, canary = sides(SHOP, [*ROUTES, quiet])
        assert (primary.rate, primary.p99, canary.rate) == (100.0, 0.5, 10.0)
        assert primary.success == pytest.approx((99 + 5) / 110)
        assert primary.observed == pytest.approx(90.91, abs=0.01)

    def test_while_copies_are_all_the_canary_gets_they_are_what_is_shown(self):
        mirrored = [route(backend("shop-v1", "primary"), backend("shop-v2", "mirror", rate=7.0))]
        assert sides({**SHOP, "mirroring": True, "canaryWeight": 0.0}, mirrored)[1].rate == 7.0
        assert sides({**SHOP, "mirroring": True}, mirrored)[1].success is None


class TestTop:
    def api(self, api, flows):
        api.says(
            (200, [{"name": f"route-{n}", "rules": ROUTES[0]["rules"]} for n in range(flows)]), path="/api/v1/routes"
        )
        address = {"address": "127.0.0.1:9001", "mirror": False, "healthy": True, "ejected": False, "inUse": True}
        counts = ("inFlight", "idle", "open", "pending", "requests", "connectFailures")
        address |= {"panic": False, **dict.fromkeys(counts, 1)}
        upstream = {
            "name": "shop-v1",
            "addresses": [address, {**address, "ejected": True}, {**address, "healthy": False}],
        }
        api.says((200, [upstream]), path="/api/v1/upstreams")
        return Namespace(admin=f"127.0.0.1:{api.server_address[1]}", route=None, window="10s", sort="rate")

    @pytest.mark.parametrize("size", SIZES)
    def test_it_fits_and_the_rest_is_counted(self, api, size):
        top = _Top(self.api(api, 200))
        top.look()
        assert "more" in drawn(top.picture(*size), *size)

    def test_rates_of_addresses_come_with_the_second_look(self, api):
        top = _Top(self.api(api, 1))
        top.look()
        assert re.search(rf"healthy +{NOTHING} +1 ", drawn(top.picture(120, 40), 120, 40))
        top.look()
        text = drawn(top.picture(120, 40), 120, 40)
        assert re.search(r"healthy +0\.0 +1 ", text)
        assert re.search(r"ejected .*\n.* unhealthy ", text)
        assert top.press("s")
        assert "by success" in drawn(top.picture(120, 40), 120, 40)
        assert not top.press("q")


class TestDemo:
    figures = Figures(
        12.0,
        [Side("v1", "primary", 95.0, 1000, 90.0, 1.0, 0.003, 0.01), Side("v2", "canary", 5.0, 50, 5.0, 0.9, None, 0.5)],
        Seens(),
        CROWDED,
    )

    def view(self, width, height):
        console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
        file = Path("/tmp/splitproxy-demo/splitproxy.yaml")
        return View("127.0.0.1:34703", "127.0.0.1:37233", file, "a rollout " * 9, console)

    @pytest.mark.parametrize("size", SIZES)
    def test_it_fits(self, size):
        drawn(self.view(*size)._picture(self.figures), *size)

    @pytest.mark.parametrize("size", SIZES[2:])
    def test_on_an_ordinary_terminal_nothing_that_matters_is_cut_off(self, size):
        text = drawn(self.view(*size)._picture(self.figures), *size)
        for words in ("http://127.0.0.1:34703", "http://127.0.0.1:37233", "canary    configured", "v2        observed",
                      "primary          90.0    100 %", "shop: Progressing", "2 of 5 checks failed",
                      "fail     612.4 ms  ≤ 500 ms", "primary: shop-v2, canary: shop-v1"):  # fmt: skip
            assert words in text, text

    def test_without_a_rollout_there_are_the_latest_requests(self):
        seens = Seens()
        seens.recent.extend(Seen(1.7e9, "/cart", 200 + number, "primary", 0.001) for number in range(8))
        text = drawn(self.view(80, 24)._picture(Figures(1.0, self.figures.sides, seens)), 80, 24)
        assert re.search(r"/cart +207 +1\.0 ms +primary", text)


@pytest.mark.parametrize(
    ("width", "most", "lines"),
    [
        (40, 1, ["reason      one two three four five six…"]),
        (30, 2, ["reason      one two three four", "            five six seven"]),
        (26, 2, ["reason      one two three", "            four five six…"]),
    ],
)
def test_a_fact_keeps_to_its_lines(width, most, lines):
    found = picture.fact("reason", "one two three four five six seven", width, most)
    assert [line.plain.rstrip() for line in found] == lines


def test_the_present_stage_of_a_long_plan_stays_in_sight():
    steps = [{**SHOP["steps"][0], "weight": float(number)} for number in range(1, 100)]
    for step in (0, 50, 98):
        text = Text("\n").join(picture.plan({**SHOP, "steps": steps, "step": step}, 80)).plain
        assert f"[{step + 1} %]" in text
