"""Names of endpoints: asked in the background, again and again; the last good answer stays."""

import asyncio
import socket

import pytest

from splitproxy.core.snapshot import EndpointPlan, UpstreamPlan
from splitproxy.proxy import resolver as module
from splitproxy.proxy.resolver import Resolver, is_address


def plan(*endpoints):
    listed = tuple(EndpointPlan(*endpoint) for endpoint in endpoints)
    return UpstreamPlan("a", listed, "roundRobin", 3.0, 1, 1.0, 1, 1, None, None, 0.0, 50.0)


class Answers:
    """Stands in for the loop's `getaddrinfo`: gives one scripted answer after the other, the last for ever."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0
        self.used, self.changed = [], asyncio.Event()

    async def getaddrinfo(self, host, port, **_):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.changed.set()
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer]

    def use(self, addresses):
        self.used.append([address for address, _, _ in addresses])

    async def until_asked(self, times):
        while self.asked < times:
            self.changed.clear()
            await self.changed.wait()
        await asyncio.sleep(0.01)


@pytest.fixture
def resolving(monkeypatch):
    """Return a function that starts to resolve by scripted answers, asking every few milliseconds."""
    monkeypatch.setattr(module, "INTERVAL", 0.005)

    async def start(*answers, endpoints=(("name.test", 80, 1.0),)):
        script = Answers(*answers)
        asyncio.get_running_loop().getaddrinfo = script.getaddrinfo
        resolver = Resolver(plan(*endpoints), script.use)
        await resolver.start()
        return resolver, script

    return start


@pytest.mark.on_loop("asyncio")
async def test_all_addresses_of_a_name_are_used(resolving):
    resolver, _ = await resolving(["10.0.0.2", "10.0.0.1", "10.0.0.2"])
    assert resolver.addresses() == [("10.0.0.1", 80, 1.0), ("10.0.0.2", 80, 1.0)]
    resolver.stop()


@pytest.mark.on_loop("asyncio")
async def test_a_changed_answer_is_taken_over_and_a_failure_or_an_empty_one_is_not(resolving):
    resolver, script = await resolving(["10.0.0.1"], ["10.0.0.2"], OSError("gone"), [], ["10.0.0.3"])
    await script.until_asked(5)
    resolver.stop()
    assert script.used == [["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"]]


@pytest.mark.on_loop("asyncio")
async def test_a_name_that_resolves_later_is_used_then(resolving):
    resolver, script = await resolving(OSError("not yet"), ["10.0.0.1"])
    assert resolver.addresses() == []
    await script.until_asked(2)
    resolver.stop()
    assert resolver.addresses() == [("10.0.0.1", 80, 1.0)]


@pytest.mark.on_loop("asyncio")
async def test_addresses_need_no_asking(resolving):
    resolver, script = await resolving([], endpoints=(("127.0.0.1", 80, 1.0), ("::1", 81, 2.0)))
    assert resolver.addresses() == [("127.0.0.1", 80, 1.0), ("::1", 81, 2.0)]
    assert script.asked == 0


@pytest.mark.parametrize(
    ("host", "wanted"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("1.2.3", False)]
)
def test_addresses_and_names_are_told_apart(host, wanted):
    assert is_address(host) is wanted
