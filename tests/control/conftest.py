import asyncio
import inspect
import mmap
import os

import pytest

from splitproxy.channel import Channel, pair
from splitproxy.control.link import Link
from splitproxy.control.loading import Memfd
from splitproxy.control.publish import Publisher
from splitproxy.core import stats


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run `async def` tests, each on its own event loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.function(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


class ScriptedWorker:
    """The other end of a worker's channel: notes what it is told and answers as its script says."""

    def __init__(self, publisher: Publisher, slot: int, *, serves: int = 0, refuses: str = "", silent: bool = False):
        ours, theirs = pair()
        self.told, self.serves, self.refuses, self.silent = [], serves, refuses, silent
        self.changed = asyncio.Event()
        self.pid = 1000 + slot
        self.link = Link(Channel(ours), self._heard, lambda: None)
        publisher.arrived(slot, self.pid, theirs.detach())
        self.link.send({"type": "hello", "slot": slot, "generation": serves})

    def _heard(self, message, descriptors):
        verb, generation = message["type"], message["generation"]
        self.told.append((verb, generation))
        for descriptor in descriptors:
            os.close(descriptor)
        self.changed.set()
        if self.silent or verb == "forget":
            return
        if verb == "prepare" and self.refuses:
            self.link.send({"type": "refused", "generation": generation, "error": self.refuses})
        else:
            self.serves = generation if verb == "commit" else self.serves
            self.link.send({"type": {"prepare": "prepared", "commit": "committed"}[verb], "generation": generation})

    async def until_told(self, *messages):
        while self.told[-len(messages) :] != list(messages):
            self.changed.clear()
            await self.changed.wait()


async def until(publisher: Publisher, condition):
    """Wait for `condition()`, asked again whenever a worker's state changes."""
    while not condition():
        publisher.changed.clear()
        await publisher.changed.wait()


@pytest.fixture
def publisher():
    publisher = Publisher()
    yield publisher
    for worker in publisher.workers.values():
        worker.link._channel.close()


@pytest.fixture
def scripted_worker(publisher):
    """Return a function that starts a scripted worker: (slot, serves=, refuses=, silent=)."""
    started = []

    def start(slot, **script):
        started.append(ScriptedWorker(publisher, slot, **script))
        return started[-1]

    yield start
    for worker in started:
        worker.link._channel.close()


@pytest.fixture
def wait_until():
    return until


@pytest.fixture
def memfd():
    return Memfd.create("snapshot")


class Regions:
    """The shared memory of a few workers."""

    def __init__(self, slots: int):
        self.descriptor = os.memfd_create("stats")
        os.ftruncate(self.descriptor, slots * stats.REGION_BYTES)

    def worker(self, slot: int) -> stats.Region:
        """Start to write as the worker of `slot`, again if it has been there before."""
        memory = mmap.mmap(self.descriptor, stats.REGION_BYTES, offset=slot * stats.REGION_BYTES)
        return stats.Region(memoryview(memory).cast("Q"))


@pytest.fixture
def regions():
    regions = Regions(3)
    yield regions
    os.close(regions.descriptor)
