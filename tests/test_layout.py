"""The shape of the project: sizes, what a worker loads, and that what the documents say is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from splitproxy.children import child_environment
from splitproxy.config import load
from splitproxy.core import live, snapshot
from splitproxy.core.requests import parse_request
from splitproxy.core.splitting import Backend, Split

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 400
LONGER: dict[str, str] = {}
"""Module -> why it may be longer."""
HEAVY = {"aiohttp", "pydantic", "pydantic_core", "re2", "rich", "yaml"}
SUPERVISING = (
    *("supervisor", "succession", "handover", "household", "vigil", "children", "listening", "systemd", "turns"),
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def modules():
    return sorted((ROOT / "splitproxy").rglob("*.py"))


def named(path):
    return str(path.relative_to(ROOT))


def anchors(text):
    """Return the anchors of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_fits_in_a_head(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES or named(path) in LONGER


def test_what_is_excused_from_the_limit_needs_it():
    long = {named(path) for path in modules() if len(path.read_text().splitlines()) > MOST_LINES}
    assert set(LONGER) - long == set()


def test_no_module_is_called_after_nothing_in_particular():
    assert {path.stem for path in modules()} & {
        "utils",
        "util",
        "helpers",
        "common",
        "base",
        "manager",
        "misc",
    } == set()


@pytest.mark.parametrize("module", ["splitproxy.proxy.worker", "splitproxy.supervisor"])
def test_what_carries_traffic_loads_nothing_heavy(module):
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), check=True, capture_output=True, text=True
    )
    loaded = set(json.loads(done.stdout))
    assert loaded & HEAVY == set()
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("splitproxy.")}
    allowed = {
        "core",
        "channel",
        "errors",
        *(("logs", "proxy", "tls") if module.endswith("worker") else SUPERVISING),
    }
    assert ours <= {f"splitproxy.{name}" for name in allowed}


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=named)
def test_every_example_loads(path):
    assert load(path, os.environ).config.routes


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_link_in_a_document_leads_somewhere(path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            dead.append(target)
    assert dead == []


def test_every_file_that_a_document_names_exists():
    missing = []
    for path in DOCUMENTS:
        names = re.findall(r"`((?:splitproxy|config|docs|loadtests|tests)/[\w./-]+\.\w+)`", path.read_text())
        missing += [f"{named(path)}: {name}" for name in names if not (ROOT / name).exists()]
    assert missing == []


class TestReadme:
    commands = re.findall(r"^python3 -m venv .+$", (ROOT / "README.md").read_text(), re.MULTILINE)

    def test_one_command_ends_in_the_demo_and_one_in_the_tests(self):
        demo, tests = self.commands
        assert demo.endswith(".venv/bin/splitproxy demo")
        assert tests.endswith(".venv/bin/pytest -n 4")

    def test_ci_runs_the_very_command_that_it_names_for_the_tests(self):
        lines = (ROOT / ".ci/run").read_text().splitlines()
        assert [line for line in lines if line.startswith(self.commands[1] + " || ")] != []
        assert os.access(ROOT / ".ci/run", os.X_OK)

    def test_its_configuration_loads_and_has_ten_lines(self, tmp_path):
        (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        assert len(block.splitlines()) == 10
        file = tmp_path / "shop.yaml"
        file.write_text(block)
        assert load(file, {}).config.routes[0].name == "shop"

    def test_it_fits_on_a_screen(self):
        assert len((ROOT / "README.md").read_text().splitlines()) <= 75


@pytest.mark.parametrize("path", sorted((ROOT / "docs/decisions").glob("*.md")), ids=named)
def test_a_decision_is_short_and_says_when_it_falls(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]


def formulas():
    """Return what the Python in the document about splitting defines."""
    documented = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/routing.md").read_text(), re.DOTALL):
        exec(block, documented)
    return documented


def test_the_hash_in_the_documents_is_the_one_in_use():
    documented = formulas()
    backends = tuple(
        Backend(("shop", "everyone"), name, name, units) for name, units in (("primary", 70), ("canary", 30))
    )
    split = Split(backends, b"shop/everyone", key=lambda _, address: address)
    keys = [f"client-{number}" for number in range(500)]
    used = [split.choose(None, key.encode(), 0.0) for key in keys]
    assert {reason for _, reason in used} == {"key"}
    assert [backend is backends[1] for backend, _ in used] == [
        documented["is_canary"]("shop", "everyone", key, 0.3) for key in keys
    ]


def test_so_is_the_one_under_a_rollout(tmp_path):
    file = tmp_path / "shop.yaml"
    file.write_text("""
listeners: [{address: ":80"}]
upstreams: [{name: a, endpoints: ["http://x:1"]}, {name: b, endpoints: ["http://x:2"]}]
routes: [{name: r, rules: [{backendRefs: [{name: a}], split: {key: {sourceAddress: true}}}]}]
rollouts: [{name: shop, route: r, primary: a, canary: b, skipAnalysis: true}]
""")
    plain = load(file, {}).plain
    area = live.Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
    slot = area.slot(plain["routes"][0]["rules"][0]["rollout"]["live"], take=True)
    area.write_salt(slot, live.salt("shop", "2.1", 3))
    area.write(slot, live.encode(live.Traffic(weight=3000), 1))
    request = parse_request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100, 8192)
    split = snapshot.build(plain, area=area).table.match(request).live
    keys = [f"client-{number}" for number in range(500)]
    used = [split.place(request, key.encode(), 0.0, str)[:2] for key in keys]
    assert {reason for _, reason in used} == {"key"}
    is_canary = formulas()["is_canary_of"]
    assert [backend.upstream == "b" for backend, _ in used] == [is_canary("shop", "2.1", 3, key, 0.3) for key in keys]
