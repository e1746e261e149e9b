import asyncio

import pytest

from splitproxy.control.link import ListenError
from splitproxy.control.loading import Candidate, LoadError, Memfd
from splitproxy.control.publish import Refused, Snapshot
from splitproxy.control.reload import Reloader
from splitproxy.control.sites import SiteError


def candidate(generation, checksum="one", sources=("a.yaml",)):
    return Candidate(
        generation=generation,
        snapshot=Memfd.create("snapshot"),
        described=Memfd.create("description"),
        listeners=["127.0.0.1:80"],
        workers=2,
        admin="127.0.0.1:9900",
        allowed_hosts=[],
        probes=None,
        shares=[],
        warnings=["route shop is shadowed"],
        checksum=checksum,
        sources=list(sources),
    )


class Stage:
    """All that a reload touches, with one log of what happened to it, and one place that can be told to fail."""

    def __init__(self):
        self.log, self.fails, self.next = [], {}, candidate
        self.current, self.expected = None, 0
        self.rollouts = self.Rollouts(self)
        sites = self.Site(self, "admin"), self.Site(self, "probes")
        self.reloader = Reloader(self.load, self, self, *sites, self.rollouts)

    def did(self, what, *details):
        self.log.append(" ".join(map(str, (what, *details))))
        if what in self.fails:
            raise self.fails[what]

    async def load(self, generation):
        self.did("load")
        await asyncio.sleep(0)
        return self.next(generation)

    async def listen(self, addresses, workers):
        self.did("listen", *addresses, workers)

    def send(self, message):
        self.did(message["type"])

    async def committed(self, serving):
        self.did("committed", serving.generation)

    async def prepare(self, snapshot: Snapshot):
        self.did("prepare", snapshot.generation)

    async def commit(self, snapshot: Snapshot):
        self.current = snapshot
        self.did("commit", snapshot.generation)

    async def settle(self):
        self.did("settle")

    class Rollouts:
        def __init__(self, stage):
            self.stage, self.against = stage, []

        def objections(self, candidate):
            self.stage.did("objections")
            return self.against

        async def forgotten(self, candidate):
            self.stage.did("forgotten")
            return self.against

        async def prepare(self, candidate):
            self.stage.did("prepare-rollouts", candidate.generation)

        def commit(self, candidate):
            self.stage.did("commit-rollouts", candidate.generation)

        def forget(self):
            self.stage.did("forget-rollouts")

    class Site:
        def __init__(self, stage, name):
            self.stage, self.name = stage, name

        async def open(self, address):
            self.stage.did(f"open-{self.name}", address)

        async def keep(self, address):
            self.stage.did(f"keep-{self.name}", address)

        async def forget(self):
            self.stage.did(f"forget-{self.name}")


@pytest.fixture
def stage():
    return Stage()


async def test_a_reload_goes_its_steps_in_order(stage):
    report = await stage.reloader.reload("api")
    assert (report.result, report.generation, report.errors) == ("success", 1, [])
    assert stage.log == [
        *("load", "forgotten", "open-admin 127.0.0.1:9900", "open-probes None"),
        *("listen 127.0.0.1:80 2", "prepare-rollouts 1", "prepare 1"),
        *("commit 1", "commit-rollouts 1", "committed 1", "settle"),
        *("keep-admin 127.0.0.1:9900", "keep-probes None"),
    ]
    assert stage.expected == 2
    assert stage.reloader.counts == {"success": 1, "unchanged": 0, "failure": 0}


async def test_the_same_configuration_changes_nothing_and_says_so(stage):
    await stage.reloader.reload("start")
    stage.log.clear()
    report = await stage.reloader.reload("file")
    assert (report.result, report.generation) == ("unchanged", 1)
    assert stage.log == ["load"]


@pytest.mark.parametrize("difference", [{"checksum": "two"}, {"sources": ["a.yaml", "b.yaml"]}])
async def test_another_checksum_or_another_file_is_a_change(stage, difference):
    await stage.reloader.reload("start")
    stage.next = lambda generation: candidate(generation, **difference)
    assert (await stage.reloader.reload("file")).generation == 2


@pytest.mark.parametrize(
    ("step", "error", "message", "undone"),
    [
        ("load", LoadError([{"message": "bad", "text": "a.yaml:1: bad"}]), "a.yaml:1: bad", []),
        (
            "open-admin",
            SiteError({"127.0.0.1:9900": "the port is in use"}),
            "cannot listen on 127.0.0.1:9900: the port is in use",
            ["forget-admin", "forget-probes"],
        ),
        (
            "listen",
            ListenError({"127.0.0.1:80": "no permission"}),
            "cannot listen on 127.0.0.1:80: no permission",
            ["forget", "forget-admin", "forget-probes"],
        ),
        ("prepare", Refused(["worker 1: no"]), "worker 1: no", ["forget", "forget-admin", "forget-probes"]),
        ("listen", TimeoutError(), "the supervisor does not answer", ["forget", "forget-admin", "forget-probes"]),
    ],
)
async def test_a_failure_at_any_step_leaves_everything_as_it_was(stage, step, error, message, undone):
    await stage.reloader.reload("start")
    before, stage.next = stage.reloader.running, lambda generation: candidate(generation, "two")
    stage.log.clear()
    stage.fails = {step: error}
    report = await stage.reloader.reload("api")
    assert (report.result, report.generation, [each["text"] for each in report.errors]) == ("failure", 1, [message])
    assert stage.log[-len(undone) or len(stage.log) :] == undone
    assert stage.reloader.running is before
    assert stage.current.generation == 1
    stage.fails = {}
    assert (await stage.reloader.reload("api")).result == "success"


async def test_what_would_harm_a_rollout_under_way_is_not_loaded(stage):
    stage.rollouts.against = ["rollout shop is under way"]
    report = await stage.reloader.reload("start")
    assert (report.result, [error["text"] for error in report.errors]) == ("failure", ["rollout shop is under way"])
    assert stage.log == ["load", "forgotten"]
    stage.rollouts.against = []
    assert (await stage.reloader.reload("start")).result == "success"
    stage.rollouts.against = ["rollout shop is under way"]
    stage.next = lambda generation: candidate(generation, "two")
    stage.log.clear()
    report = await stage.reloader.reload("file")
    assert (report.result, [error["text"] for error in report.errors]) == ("failure", ["rollout shop is under way"])
    assert stage.log == ["load", "objections"]


async def test_a_generation_that_workers_were_asked_to_prepare_is_never_used_again(stage):
    stage.fails = {"prepare": Refused(["worker 0: no"])}
    await stage.reloader.reload("start")
    stage.fails = {}
    assert (await stage.reloader.reload("api")).generation == 2


async def test_a_supervisor_that_does_not_acknowledge_cannot_take_a_commit_back(stage, caplog):
    stage.fails = {"committed": TimeoutError()}
    report = await stage.reloader.reload("start")
    assert (report.result, stage.log[-3]) == ("success", "settle")
    assert "the supervisor does not answer" in caplog.text


async def test_reloads_come_one_after_the_other(stage):
    stage.next = lambda generation: candidate(generation, f"checksum {generation}")
    await asyncio.gather(*(stage.reloader.reload("api") for _ in range(3)))
    assert stage.log.count("load") == 3
    assert [entry for entry in stage.log if entry.startswith(("load", "keep-probes"))] == [
        *("load", "keep-probes None") * 3,
    ]


async def test_a_new_control_process_goes_on_above_what_the_workers_have_seen(stage):
    await stage.reloader.resume(candidate(7), 9)
    assert stage.log == [
        *("prepare-rollouts 7", "commit-rollouts 7"),
        *("open-admin 127.0.0.1:9900", "keep-admin 127.0.0.1:9900", "open-probes None", "keep-probes None"),
    ]
    assert (await stage.reloader.reload("start")).result == "unchanged"
    stage.next = lambda generation: candidate(generation, "two")
    assert (await stage.reloader.reload("file")).generation == 10


async def test_a_new_control_process_without_its_admin_port_resumes_all_the_same(stage, caplog):
    stage.fails = {"open-admin": SiteError({"127.0.0.1:9900": "the port is in use"})}
    await stage.reloader.resume(candidate(7), 7)
    assert stage.log[-1] == "keep-probes None"
    assert "cannot listen on 127.0.0.1:9900: the port is in use" in caplog.text
    assert await stage.reloader.open_sites() == ["cannot listen on 127.0.0.1:9900: the port is in use"]
    stage.fails = {}
    assert await stage.reloader.open_sites() == []
    assert "keep-admin 127.0.0.1:9900" in stage.log


async def test_everyone_who_wants_to_know_is_told(stage):
    told = []
    stage.reloader.reported.append(told.append)
    report = await stage.reloader.reload("signal")
    assert told == [report]
    assert report.to_dict()["trigger"] == "signal"
