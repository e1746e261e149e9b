"""The endurance program in little, and that it sees what it is there to see."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "loadtests"))

import endurance


def run(*options):
    """Run the program; return what it printed."""
    command = [sys.executable, endurance.__file__, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_reloads_under_load_lose_nothing():
    printed = run("--requests", "3000", "--reloads", "4", "--connections", "8")
    assert "; 3 reloads, 1 more refused as they should be, " in printed
    assert "failed 0, wrong 0, stale 0, lost 0, duplicated 0, closed before taken 0" in printed


@pytest.mark.slow
def test_memory_is_watched():
    options = ["--minutes", "0.01", "--step", "0.1", "--growth", "100", "--connections", "2", "--workers", "1"]
    printed = run(*options)
    for role in ("supervisor", "control", "worker"):
        assert f"{role} " in printed
    assert printed.count(" % since a fifth of the time") == 3


@pytest.mark.parametrize(
    ("arrived", "answers", "unanswered", "fault"),
    [
        ([0], [(0, 0, 200, b"0 0")], [], None),
        ([0], [(0, 0, 502, b"{}")], [], "failed"),
        ([0], [(0, 0, 200, b"1 0")], [], "wrong"),
        ([0], [(0, 2, 200, b"0 1")], [], "stale"),
        ([0, 0], [(0, 0, 200, b"0 0")], [], "duplicated"),
        ([0], [], [0], "lost"),
        ([], [], [0], "closed before taken"),
    ],
)
def test_what_goes_wrong_is_counted(arrived, answers, unanswered, fault):
    books = endurance.Books()
    books.next()
    for number in arrived:
        books.arrive(number, False)
    for answer in answers:
        books.answer(*answer)
    books.unanswered = unanswered
    books.close()
    assert {kind for kind, count in books.faults().items() if count} == ({fault} if fault else set())


@pytest.mark.parametrize("cut", [1, 60, 10_000])
def test_both_ends_read_what_they_send(cut):
    class Wire(list):
        write = list.append

        def close(self):
            self.append(b"")

    async def body():
        books = endurance.Books()
        endpoint, caller = endurance.Endpoint(books, False), endurance.Caller(books, 13, False)
        endpoint.transport, there = Wire(), Wire()
        caller.connection_made(there)
        sent = b"".join(there).replace(b"Host: long.test", b"Host: long.test\r\nx-generation: 0")
        for at in range(0, len(sent), cut):
            endpoint.data_received(sent[at : at + cut])
        books.stopping = True
        answers = b"".join(endpoint.transport)
        for at in range(0, len(answers), cut):
            caller.data_received(answers[at : at + cut])
        assert there[-1] == b""
        assert books.counts == {"right": 13}
        assert list(books.arrived[:14]) == [1] * 13 + [0]

    asyncio.run(body())
