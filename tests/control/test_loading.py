import asyncio
import os

import pytest

from splitproxy.children import child_environment
from splitproxy.control import loading
from splitproxy.control.loading import LoadError, Loading, Share
from splitproxy.core.snapshot import Loader

GOOD = """
listeners: [{address: "127.0.0.1:8080"}]
admin: {address: "127.0.0.1:9900", allowedHosts: [admin.example.com]}
workers: 3
upstreams:
  - {name: v1, endpoints: ["http://127.0.0.1:9001"]}
  - {name: v2, endpoints: ["http://127.0.0.1:9002"]}
routes:
  - name: shop
    rules:
      - backendRefs: [{name: v1, weight: 99.5}, {name: v2, weight: 0.5}]
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", child_environment().get("PYTHONPATH", ""))


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "splitproxy.yaml"
    file.write_text(GOOD)
    return file


def load(file, workers=None, generation=5):
    return Loading(str(file), workers, generation).candidate()


def test_a_good_file_becomes_a_snapshot_and_its_description(file):
    candidate = load(file)
    assert (candidate.listeners, candidate.admin, candidate.probes) == (["127.0.0.1:8080"], "127.0.0.1:9900", None)
    assert (candidate.workers, candidate.allowed_hosts) == (3, ["admin.example.com"])
    assert candidate.shares == [Share("shop", "0", "v1", "primary", 99.5), Share("shop", "0", "v2", "canary", 0.5)]
    assert candidate.sources == [str(file)]
    assert candidate.plain()["routes"][0]["name"] == "shop"
    assert candidate.public()["upstreams"][1]["name"] == "v2"
    loader = Loader(os.pread(candidate.snapshot.fileno(), 1 << 20, 0))
    list(loader)
    assert loader.snapshot.generation == 5


def test_neither_can_be_changed_any_more(file):
    candidate = load(file)
    for memfd in (candidate.snapshot, candidate.described):
        with pytest.raises(PermissionError):
            os.pwrite(memfd.fileno(), b"x", 0)


@pytest.mark.parametrize(("workers", "expected"), [("7", 7), ("auto", len(os.sched_getaffinity(0))), (None, 3)])
def test_the_command_line_overrides_the_number_of_workers(file, workers, expected):
    candidate = load(file, workers)
    assert candidate.workers == candidate.plain()["workers"] == expected


def test_a_bad_file_yields_every_error_with_its_place(file):
    file.write_text(GOOD.replace("name: v2, weight", "name: v3, weight").replace("workers: 3", "wrokers: 3"))
    with pytest.raises(LoadError) as refused:
        load(file)
    errors = refused.value.args[0]
    assert [error["line"] for error in errors] == [4, 11]
    assert all(error["text"].startswith(f"{file}:{error['line']}:") for error in errors)


def test_a_loader_that_dies_is_an_error(file):
    starting = Loading(str(file), None, 1)
    starting.stop()
    with pytest.raises(LoadError, match="the loader ended with exit code -9"):
        starting.candidate()


def test_a_loader_that_takes_for_ever_is_given_up(file, monkeypatch):
    monkeypatch.setattr(loading, "_LOAD_SECONDS", 0.0)
    with pytest.raises(LoadError, match="loading took longer than 0 s"):
        load(file)


async def test_a_load_holds_up_nothing(file):
    waiting = asyncio.create_task(asyncio.to_thread(Loading(str(file), None, 1).candidate))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await waiting).workers == 3
    assert turns > 10
